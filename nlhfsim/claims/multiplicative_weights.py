"""Claims about multiplicative weights: the average converges, the last iterate spirals out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._runs import EPS, log_policies
from nlhfsim.claims._spec import Claim, Hypothesis, Measured, Mutant
from nlhfsim.dynamics import Dynamics, MultiplicativeWeights, OptimisticMirrorDescent
from nlhfsim.errors import Array
from nlhfsim.simplex import kl_log
from nlhfsim.sources import MULTIPLICATIVE_WEIGHTS, MULTIPLICATIVE_WEIGHTS_SPIRAL


def _log_partition(case: Case) -> Measured:
    """Return log Σ_y π(y) exp(γ(Aπ)_y) for the case's policies and the uniform one, what one step adds to KL(π*‖π)."""
    policies = np.stack([case.policy, case.opponent, np.full(case.n, 1 / case.n)])
    exponents = case.step_size * policies @ case.advantages.T
    value = np.log1p(np.sum(policies * np.expm1(exponents), axis=1))
    return Measured(value, 8 * EPS * (1 + np.abs(exponents).max()) + 1e-15 * case.step_size)


def _log_sinh(factor: float = 1.0) -> Callable[[Case], float]:
    """Return log(sinh(γ/2)/(γ/2)), times a factor: its series where γ is small."""

    def bound(case: Case) -> float:
        half = case.step_size / 2
        small = half**2 / 6 - half**4 / 180
        return factor * (small if half < 0.01 else float(half + np.log(-np.expm1(-2 * half) / (2 * half))))

    return bound


def _square(factor: float) -> Callable[[Case], float]:
    return lambda case: factor * case.step_size**2


register(
    Claim(
        id="self-play-log-partition",
        title="against itself a policy's log-partition is at most that of the uniform distribution, hence γ²/24",
        statement=r"\log \sum_y \pi(y)\, e^{\gamma (A\pi)_y} \le \log\frac{\sinh(\gamma/2)}{\gamma/2} \le \frac{\gamma^2}{24}",
        source=MULTIPLICATIVE_WEIGHTS.at("Hoeffding's lemma gives γ²/8; this form derived here"),
        kind="upper",
        status="theorem",
        measure=_log_partition,
        bound=_log_sinh(),
        tolerance=1e-12,
        why="rounding of the exponents and of their sum",
        mutants=(Mutant("halved", {"bound": _log_sinh(0.5)}), Mutant("γ²/48", {"bound": _square(1 / 48)})),
        proof="docs/proofs/derived-claims.md#self-play-log-partition",
    )
)

_PLAYS = 60
_SMALL = 0.1
"""A second step size, beside the case's: at small ones, with a sure winner, the bound is nearly attained."""


def _average_gap(case: Case, dynamics: Dynamics) -> Measured:
    """Return E_0 of the average of π_0, …, π_{T-1} for T = 1, 2, … at both step sizes."""
    gaps = []
    for one in (case, case.at(step_size=_SMALL)):
        plays = np.exp(log_policies(one, dynamics, _PLAYS - 1))
        averages = np.cumsum(plays, axis=0) / np.arange(1, _PLAYS + 1)[:, None]
        gaps.append((averages @ case.advantages.T).max(axis=1))
    return Measured(np.concatenate(gaps), 8 * EPS)


def _average_bound(entropy: float = 1.0, square: float = 1.0) -> Callable[[Case, Dynamics], Array]:
    """Return ``log n/(γT) + γ/24``, its terms times factors."""

    def bound(case: Case, dynamics: Dynamics) -> Array:
        plays = np.arange(1, _PLAYS + 1)
        parts = [entropy * np.log(case.n) / (step * plays) + square * step / 24 for step in (case.step_size, _SMALL)]
        return np.concatenate(parts)

    return bound


def _uniform(case: Case) -> Case:
    return case.at(log_policy=np.full(case.n, -np.log(case.n)))


register(
    Claim(
        id="mwu-average-converges",
        title="MultiplicativeWeights: E_0 of the average of T plays from uniform is at most log n/(γT) + γ/24",
        statement=r"\pi_0\ \text{uniform}:\quad E_0\Bigl(\tfrac1T \sum_{t=0}^{T-1} \pi_t\Bigr) \le "
        r"\frac{\log n}{\gamma T} + \frac{\gamma}{24}",
        source=MULTIPLICATIVE_WEIGHTS.at("the regret bound; γ/8 by Hoeffding's lemma, γ/24 derived here"),
        kind="upper",
        status="theorem",
        measure=_average_gap,
        bound=_average_bound(),
        tolerance=1e-12,
        why="rounding of a sum",
        hypotheses=(Hypothesis("uniform start", lambda case: bool(np.ptp(case.log_policy) < 1e-12), _uniform),),
        mutants=(
            Mutant("without γ/24", {"bound": _average_bound(square=0.0)}),
            Mutant("half the entropy", {"bound": _average_bound(entropy=0.5)}),
        ),
        proof="docs/proofs/derived-claims.md#mwu-average-converges",
        method=MultiplicativeWeights(),
        unregularized=True,
    )
)

_TURNS = 12
_LEAST = 1e-6
"""Actions with less in π* count as not played."""


def _interior(case: Case) -> bool:
    return bool(case.equilibrium.min() > _LEAST)


def _kl_after(case: Case, dynamics: Dynamics) -> Measured:
    """Return KL(π*‖π_t) for t = 1, 2, …, with what one step may change it by beside what is claimed.

    A step adds log Σ π exp(γAπ) - γπ*ᵀAπ; of an exact winner Aπ* is 0 where it plays, and at most 0 elsewhere.
    """
    rows = log_policies(case, dynamics, _TURNS)
    margins = case.advantages @ case.equilibrium
    losing = case.step_size * float(np.where(case.equilibrium > _LEAST, np.abs(margins), np.maximum(margins, 0.0)).max())
    rounding = 8 * EPS * (1 + np.abs(rows[1:]).max(axis=1))
    return Measured(kl_log(np.broadcast_to(case.log_equilibrium, rows[1:].shape), rows[1:]), losing + rounding)


def _kl_before(reverse: bool = False) -> Callable[[Case, Dynamics], Array]:
    """Return KL(π*‖π_t), or KL(π_t‖π*), for t = 0, 1, … by the definition in probability space."""

    def bound(case: Case, dynamics: Dynamics) -> Array:
        rows = log_policies(case, dynamics, _TURNS)[:-1]
        log_ratio = np.log(np.maximum(case.equilibrium, 1e-300)) - rows
        return np.asarray(np.sum(-np.exp(rows) * log_ratio if reverse else case.equilibrium * log_ratio, axis=1))

    return bound


def _reverse_after(case: Case, dynamics: Dynamics) -> Measured:
    rows = log_policies(case, dynamics, _TURNS)[1:]
    log_target = np.broadcast_to(case.log_equilibrium, rows.shape)
    return Measured(kl_log(rows, log_target), _kl_after(case, dynamics).uncertainty)


register(
    Claim(
        id="mwu-last-iterate-spirals",
        title="MultiplicativeWeights: KL to an interior π* never decreases at β = 0",
        statement=r"\beta = 0,\ \pi^* > 0:\quad \mathrm{KL}(\pi^* \| \pi_{t+1}) \ge \mathrm{KL}(\pi^* \| \pi_t)",
        source=MULTIPLICATIVE_WEIGHTS_SPIRAL.at("the last iterate moves away from an interior equilibrium"),
        kind="lower",
        status="counterexample",
        measure=_kl_after,
        bound=_kl_before(),
        tolerance=1e-13,
        why="rounding of a sum; what π* itself loses, times γ, is in the uncertainty",
        hypotheses=(Hypothesis("interior π*", _interior),),
        mutants=(
            Mutant("also where π* is not interior", {"hypotheses": ()}),
            Mutant("also with a look-ahead", {"method": OptimisticMirrorDescent()}),
            Mutant("KL(π_t‖π*) for KL(π*‖π_t)", {"measure": _reverse_after, "bound": _kl_before(reverse=True)}),
        ),
        proof="docs/proofs/derived-claims.md#mwu-last-iterate-spirals",
        method=MultiplicativeWeights(),
        unregularized=True,
    )
)
