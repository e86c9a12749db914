"""The table of section 4 of the theory notes: oracle calls that six methods need, each at its best fixed step of one grid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nlhfsim as nl
from benchmarks._measure import DisagreementError, Floats, Report, cell
from benchmarks.first_passages import Games, normalized, passages
from nlhfsim.dynamics import Dynamics, Method
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import log_softmax

GRID = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0)
THRESHOLDS = (1e-3, 1e-6)
CAP = 4000
COUNT = 8
PORTIONS = (60, 440, 3500)
METHODS = ("NaturalPG", "NashMD", "Extragradient", "OptimisticMirrorDescent", "NashMirrorProx", "SelfPlayPG")
EXTRAPOLATED = "ExtrapolatedMirrorDescent"
WIDER = "SelfPlayPG, grid × n"
CALLS = {"Extragradient": 2, "NashMirrorProx": 2}
_NEVER = math.inf
PUBLISHED: Mapping[tuple[str, float], Mapping[str, tuple[float, float]]] = {
    ("random", 0.01): {
        "NaturalPG": (1050, 2192),
        "NashMD": (1026, 3588),
        "Extragradient": (56, 194),
        "OptimisticMirrorDescent": (49, 106),
        "NashMirrorProx": (60, 204),
        "SelfPlayPG": (1410, _NEVER),
    },
    ("rock-paper-scissors", 0.01): {
        "NaturalPG": (_NEVER, _NEVER),
        "NashMD": (_NEVER, _NEVER),
        "Extragradient": (61, 107),
        "OptimisticMirrorDescent": (80, 138),
        "NashMirrorProx": (61, 109),
        "SelfPlayPG": (_NEVER, _NEVER),
    },
    ("Bradley-Terry", 0.01): {
        "NaturalPG": (12, 44),
        "NashMD": (12, 44),
        "Extragradient": (24, 87),
        "OptimisticMirrorDescent": (12, 44),
        "NashMirrorProx": (25, 90),
        "SelfPlayPG": (42, _NEVER),
    },
    ("random", 0.1): {
        "NaturalPG": (8, 22),
        "NashMD": (30, 2934),
        "Extragradient": (8, 20),
        "OptimisticMirrorDescent": (10, 24),
        "NashMirrorProx": (13, 32),
        "SelfPlayPG": (14, 143),
    },
}
CASES = (*PUBLISHED, ("rock-paper-scissors", 0.1), ("Bradley-Terry", 0.1))


class Variant(NamedTuple):
    """What the notes leave open, decided one way."""

    words: str
    law: str = "uniform"
    peaked: bool = True
    regularized: bool = True
    own_step: bool = False
    scores: float = 2.0
    repaired: bool = False


TAKEN = Variant("as in the table")
REPAIRED = TAKEN._replace(words="with optimism by extrapolation and n times the steps for SelfPlayPG", repaired=True)
VARIANTS = (
    TAKEN,
    REPAIRED,
    REPAIRED._replace(words="that, and a step of its own for each game", own_step=True),
    REPAIRED._replace(words="that, and ρ uniform instead of ρ ∝ exp(normal)", peaked=False),
    REPAIRED._replace(words="that, and sigmoids of normals instead of entries uniform on [0, 1]", law="logistic"),
    REPAIRED._replace(words="that, and Bradley-Terry scores of standard deviation 1 instead of 2", scores=1.0),
    REPAIRED._replace(words="that, and E_0 instead of E_β", regularized=False),
)
SEEDS = (1, 2, 3)


class _State(NamedTuple):
    """θ, and the payoff seen a step ago."""

    logits: Any
    gain: Any


def _extrapolated_init(context: Context, params: Any, log_policy: Floats) -> _State:
    return _State(log_policy, advantage(context.payoff, np.exp(log_policy)))


def _extrapolated_step(state: Any, context: Any, step_size: float, params: Any) -> Any:
    gain = advantage(context.payoff, np.exp(state.logits))
    pull = context.beta * (state.logits - context.log_reference)
    return _State(log_softmax(state.logits + step_size * (2 * gain - state.gain - pull)), gain)


def method(name: str, step_size: float) -> Dynamics:
    """Return a method of the package, or the extrapolated one defined here, at a step size."""
    if name == EXTRAPOLATED:
        return Dynamics(Method(name=name, step=_extrapolated_step, init=_extrapolated_init), step_size=step_size)
    made: Dynamics = getattr(nl.dynamics, name)(step_size=step_size)
    return made


def games_of(kind: str, beta: float, count: int = COUNT, variant: Variant = TAKEN, seed: int = 1) -> Games:
    """Return the games, references and starts of one row of the table."""
    rng = np.random.default_rng(seed)
    n = 3 if kind == "rock-paper-scissors" else 10
    if kind == "rock-paper-scissors":
        advantages = [nl.games.rock_paper_scissors().advantages] * count
    elif kind == "Bradley-Terry":
        advantages = [nl.games.bradley_terry(variant.scores * rng.standard_normal(n)).advantages for _ in range(count)]
    else:
        advantages = [nl.games.random_game(n, rng, variant.law).advantages for _ in range(count)]
    logits = rng.standard_normal((count, n))
    log_reference = normalized(logits if variant.peaked else np.zeros((count, n)))
    start = np.log(rng.dirichlet(np.ones(n), count)) if kind == "rock-paper-scissors" else log_reference
    return Games(np.array(advantages), log_reference, start, beta)


def run(*, quick: bool, out: Path, cases: Sequence[tuple[str, float]] | None = None) -> Report:
    """Make the table, check it against plain NumPy, set it beside the notes, and try what the notes leave open."""
    cases = cases or (CASES[3:4] if quick else CASES)
    count, cap = (2, 500) if quick else (COUNT, CAP)
    report = Report(
        "section4",
        "Oracle calls to exploitability 1e-3 and 1e-6 at the best fixed step",
        {
            "game": "game",
            "beta": "β",
            "method": "method",
            "calls_1e-3": "to 1e-3",
            "step_1e-3": "at step",
            "calls_1e-6": "to 1e-6",
            "step_1e-6": "at step",
            "failed_1e-6": "fail",
            "published": "notes",
            "ratio_1e-3": "ours/notes, 1e-3",
            "ratio_1e-6": "1e-6",
        },
        settings={"grid": list(GRID), "thresholds": list(THRESHOLDS), "cap_steps": cap, "games": count},
        notes=[
            "exploitability is E_β; random entries are uniform on [0, 1], Bradley-Terry scores 2 × normal, ρ ∝ exp(normal); "
            "starts are ρ, on rock-paper-scissors Dirichlet(1, 1, 1)",
            f"grid of steps: {', '.join(map(cell, GRID))}; at most {cap} steps; medians of {count} games (of starts on "
            'rock-paper-scissors); one step for all games of a row, the best median; "fail": games that do not get there at it',
            "every first passage was found by nl.simulate with every step recorded, and again by plain NumPy, and is the same",
            "the step is γ as spelled in section 2: explicit for NaturalPG and Extragradient, implicit for NashMirrorProx and "
            "OptimisticMirrorDescent; γ explicit is γ/(1-γβ) implicit, so that on one grid the implicit ones step less far",
            f"{EXTRAPOLATED} is θ + γ(2Aπ_t - Aπ_(t-1) - β(θ - log ρ)), the optimism that the notes' column fits; section 2 "
            "defines OptimisticMirrorDescent by two prox steps",
        ],
    )
    for kind, beta in cases:
        games = games_of(kind, beta, count)
        for name in (*METHODS, EXTRAPOLATED, WIDER):
            report.rows.append(_row(kind, games, name, cap))
    if not quick:
        report.notes += _try_variants(cap)
    return report


def _grid_of(name: str, n: int) -> tuple[float, ...]:
    return tuple(n * step for step in GRID) if name == WIDER else GRID


def _row(kind: str, games: Games, name: str, cap: int) -> dict[str, Any]:
    own = "SelfPlayPG" if name == WIDER else name
    grid = _grid_of(name, games.start.shape[1])
    found = np.stack([simulated_passages(games, method(own, step), cap) for step in grid], axis=1)
    right = passages(games, own, grid, THRESHOLDS, cap)
    ensure_same(f"{name} on {kind}, β = {games.beta:g}", found, right)
    medians = np.median(found, axis=0) * CALLS.get(own, 1)
    column = "OptimisticMirrorDescent" if name == EXTRAPOLATED else own
    published = PUBLISHED.get((kind, games.beta), {}).get(column)
    row: dict[str, Any] = {"game": kind, "beta": games.beta, "method": name}
    for k, label in enumerate(("1e-3", "1e-6")):
        best = int(medians[:, k].argmin())
        calls = float(medians[best, k])
        row |= {f"calls_{label}": calls, f"failed_{label}": int(np.isinf(found[:, best, k]).sum())}
        row[f"step_{label}"] = grid[best] if math.isfinite(calls) else None
        row[f"ratio_{label}"] = _ratio(calls, published[k]) if published else None
    row["published"] = " / ".join(map(cell, published)) if published else None
    return row


def _ratio(ours: float, theirs: float) -> float | str:
    if math.isinf(ours) and math.isinf(theirs):
        return "both never"
    return "never" if math.isinf(ours) else "reached" if math.isinf(theirs) else ours / theirs


def simulated_passages(games: Games, dynamics: Dynamics, cap: int) -> Floats:
    """Return first passages ``(games, thresholds)`` in steps, the games run as contexts of one game, every step recorded."""
    game = nl.PreferenceGame(games.advantages + 0.5, games.beta, np.exp(games.log_reference))
    options: dict[str, Any] = {"record_every": 1, "keep_policies": False, "equilibrium": False}
    start: Any = np.exp(games.start)
    done, gaps = 0, np.empty((0, len(games.start)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nl.errors.NlhfsimWarning)  # most steps of the grid are outside the proven range
        for portion in PORTIONS:
            steps = min(portion, cap - done)
            trajectory = nl.simulate(game, dynamics, steps, start=start, **options)
            done, start = done + steps, trajectory
            if "diverged" in trajectory.status and done < cap:
                # Where one game diverges nothing can be continued, so all are run to the end at once.
                trajectory = nl.simulate(game, dynamics, cap, start=np.exp(games.start), **options)
                done = cap
            gaps = trajectory.by_context["exploitability"][0]
            if done == cap or (gaps <= THRESHOLDS[-1]).any(axis=0).all():
                break
    return np.stack([nl.metrics.first_passage(np.arange(len(gaps)), gaps.T, eps) for eps in THRESHOLDS], axis=1)


def ensure_same(name: str, found: Floats, right: Floats) -> None:
    """Check first passages; one step of difference is rounding at the threshold.

    Raises
    ------
    DisagreementError
        If they differ by more.
    """
    same = (found == right) | (np.abs(np.where(np.isinf(found), -9, found) - np.where(np.isinf(right), -99, right)) <= 1)
    if not same.all():
        where = tuple(int(k) for k in np.argwhere(~same)[0])
        raise DisagreementError(f"{name}: nl.simulate passes at step {found[where]}, plain NumPy at {right[where]} (at {where})")


def _try_variants(cap: int) -> list[str]:
    """Return a sentence a variant: how far its figures are from those of the notes."""
    sentences = []
    for variant in VARIANTS:
        factors = [_typical_factor(variant, cap, seed) for seed in SEEDS]
        sentences.append(
            f"{variant.words}: off the notes by a factor {np.mean(factors):.2f} on average over the figures ({min(factors):.2f} "
            f"to {max(factors):.2f} over {len(SEEDS)} draws of the games; never counts as {2 * cap} calls)"
        )
    return sentences


def _typical_factor(variant: Variant, cap: int, seed: int) -> float:
    rows = [(kind, beta, name, figure) for (kind, beta), figures in PUBLISHED.items() for name, figure in figures.items()]
    logs = [log for row in rows for log in _deviations(*row, variant, cap, seed)]
    return float(2 ** np.mean(np.abs(logs)))


def _deviations(
    kind: str, beta: float, name: str, published: tuple[float, float], variant: Variant, cap: int, seed: int
) -> list[float]:
    games = games_of(kind, beta, COUNT, variant, seed)
    own, grid = name, _grid_of(name, games.start.shape[1])
    if variant.repaired:
        own = EXTRAPOLATED if name == "OptimisticMirrorDescent" else name
        grid = _grid_of(WIDER if name == "SelfPlayPG" else name, games.start.shape[1])
    first = passages(games, own, grid, THRESHOLDS, cap, regularized=variant.regularized) * CALLS.get(name, 1)
    best = np.median(first.min(axis=1), axis=0) if variant.own_step else np.median(first, axis=0).min(axis=0)
    return [math.log2(max(1.0, min(a, 2.0 * cap)) / min(b, 2.0 * cap)) for a, b in zip(best, published)]
