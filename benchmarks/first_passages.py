"""First passages by plain NumPy, all games and step sizes at once: the independent answer that `section4` is checked against.

Written from the displays of the theory notes, section 2, without the package. Shapes: advantages ``(games, n, n)``, log-policies
``(games, steps, n)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks._measure import Floats


class Games(NamedTuple):
    """Several games of one size with one β: advantages ``(games, n, n)``, log ρ and starts ``(games, n)``."""

    advantages: Floats
    log_reference: Floats
    start: Floats
    beta: float


class _Setting(NamedTuple):
    """What a step sees; `gain` returns Aπ of log-policies ``(games, steps, n)``."""

    gain: Callable[[Floats], Floats]
    anchor: Floats
    beta: float
    step: Floats


def normalized(logits: Floats) -> Floats:
    """Return log softmax over the last axis."""
    largest = logits.max(axis=-1, keepdims=True)
    return np.asarray(logits - largest - np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True)))


def _prox(s: _Setting, theta: Floats, gain: Floats) -> Floats:
    return normalized((theta + s.step * s.beta * s.anchor + s.step * gain) / (1 + s.step * s.beta))


def _natural(s: _Setting, theta: Floats, seen: Floats) -> tuple[Floats, Floats]:
    return normalized(theta + s.step * (s.gain(theta) - s.beta * (theta - s.anchor))), seen


def _self_play(s: _Setting, theta: Floats, seen: Floats) -> tuple[Floats, Floats]:
    policy, pull = np.exp(theta), s.gain(theta) - s.beta * (theta - s.anchor)
    return normalized(theta + s.step * policy * (pull - (policy * pull).sum(axis=-1, keepdims=True))), seen


def _nash_md(s: _Setting, theta: Floats, seen: Floats) -> tuple[Floats, Floats]:
    mixed = normalized((1 - s.step * s.beta) * theta + s.step * s.beta * s.anchor)
    return normalized(mixed + s.step * s.gain(mixed)), seen


def _extragradient(s: _Setting, theta: Floats, seen: Floats) -> tuple[Floats, Floats]:
    pull = s.beta * (theta - s.anchor)
    half = normalized(theta + s.step * (s.gain(theta) - pull))
    return normalized(theta + s.step * (s.gain(half) - pull)), seen


def _mirror_prox(s: _Setting, theta: Floats, seen: Floats) -> tuple[Floats, Floats]:
    return _prox(s, theta, s.gain(_prox(s, theta, s.gain(theta)))), seen


def _optimistic(s: _Setting, theta: Floats, seen: Floats) -> tuple[Floats, Floats]:
    gain = s.gain(_prox(s, theta, seen))
    return _prox(s, theta, gain), gain


def _extrapolated(s: _Setting, theta: Floats, seen: Floats) -> tuple[Floats, Floats]:
    gain = s.gain(theta)
    return normalized(theta + s.step * (2 * gain - seen - s.beta * (theta - s.anchor))), gain


RULES: dict[str, Callable[..., tuple[Floats, Floats]]] = {
    "NaturalPG": _natural,
    "NashMD": _nash_md,
    "Extragradient": _extragradient,
    "OptimisticMirrorDescent": _optimistic,
    "ExtrapolatedMirrorDescent": _extrapolated,
    "NashMirrorProx": _mirror_prox,
    "SelfPlayPG": _self_play,
}


def passages(
    games: Games, method: str, grid: Sequence[float], thresholds: Sequence[float], cap: int, *, regularized: bool = True
) -> Floats:
    """Return the first step at which exploitability is at or below each threshold, ``(games, steps, thresholds)``, or inf."""
    anchor = games.log_reference[:, None]
    transposed = games.advantages.transpose(0, 2, 1)

    def gain(theta: Floats) -> Floats:
        return np.asarray(np.exp(theta) @ transposed)

    setting = _Setting(gain, anchor, games.beta, np.asarray(grid, dtype=np.float64)[None, :, None])
    theta = np.repeat(games.start[:, None], len(grid), axis=1)
    seen = gain(theta)
    first = np.full((*theta.shape[:2], len(thresholds)), np.inf)
    with np.errstate(all="ignore"):  # a step that is too large overflows, and then never passes
        for step in range(cap + 1):
            gap = _exploitability(gain(theta), theta, anchor, games.beta) if regularized else gain(theta).max(axis=-1)
            passed = (gap[..., None] <= np.asarray(thresholds)) & np.isinf(first)
            first[passed] = step
            if np.isfinite(first).all():
                break
            theta, seen = RULES[method](setting, theta, seen)
    return first


def _exploitability(gain: Floats, theta: Floats, anchor: Any, beta: float) -> Floats:
    """Return β KL(μ‖BR(μ)), summed as d + exp(-d) - 1, so that it is never negative."""
    difference = theta - normalized(anchor + gain / beta)
    return np.asarray(beta * (np.exp(theta) * (difference + np.expm1(-difference))).sum(axis=-1))
