"""Claims about the payoff P_β itself: what holds for any pair of policies."""

from __future__ import annotations

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.errors import Array
from nlhfsim.sources import PROXIMAL_POINT_NLHF

EPS = float(np.finfo(np.float64).eps)


def payoff(case: Case, policy: Array, opponent: Array, beta: float | None = None) -> float:
    """Return P_β(π ≻ μ) by its definition, in probability space."""
    strength = case.beta if beta is None else beta
    won = float(np.einsum("i,ij,j->", policy, case.advantages + 0.5, opponent))
    return won - strength * divergence(policy, case.reference) + strength * divergence(opponent, case.reference)


def divergence(p: Array, q: Array) -> float:
    """Return KL(p‖q) by its definition, in probability space."""
    return float(np.sum(p * np.log(p / q)))


def payoff_rounding(case: Case, *policies: Array) -> float:
    """Return what `payoff` may be off by: rounding of its largest term."""
    largest = max(float(np.sum(p * np.abs(np.log(p / case.reference)))) for p in policies)
    return 16 * EPS * (1 + case.beta * (1 + largest))


def _sum(case: Case) -> Measured:
    there, back = payoff(case, case.policy, case.opponent), payoff(case, case.opponent, case.policy)
    return Measured(there + back, payoff_rounding(case, case.policy, case.opponent))


def _sum_without_opponents_penalty(case: Case) -> Measured:
    penalties = case.beta * (divergence(case.policy, case.reference) + divergence(case.opponent, case.reference))
    total = _sum(case)
    return Measured(total.value - penalties, total.uncertainty)


register(
    Claim(
        id="constant-sum",
        title="the payoffs of both players add up to 1",
        statement=r"\mathcal P_\beta(\pi \succ \mu) + \mathcal P_\beta(\mu \succ \pi) = 1",
        source=PROXIMAL_POINT_NLHF.at("definition of the regularized preference game"),
        kind="equality",
        status="identity",
        measure=_sum,
        bound=lambda case: 1.0,
        tolerance=0.0,
        why="rounding of the largest term",
        mutants=(Mutant("the opponent's penalty dropped", {"measure": _sum_without_opponents_penalty}),),
        proof="P + Pᵀ = 1 and the penalties cancel.",
    )
)
