"""Claims about the payoff P_β itself: what holds for any pair of policies."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from nlhfsim.claims._accuracy import EPS
from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.errors import Array
from nlhfsim.games.responses import log_best_response
from nlhfsim.simplex import kl_log, log_softmax
from nlhfsim.sources import PROXIMAL_POINT_NLHF

_CLIMB = 0.75
"""Share of 1/β that a step of `best_payoff` takes; at 1 the first one would land on the closed form."""
_STEPS = 60


def payoff(case: Case, policy: Array, opponent: Array, beta: float | None = None) -> float:
    """Return P_β(π ≻ μ) by its definition, in probability space."""
    strength = case.beta if beta is None else beta
    won = float(np.einsum("i,ij,j->", policy, case.advantages + 0.5, opponent))
    return won - strength * divergence(policy, case.reference) + strength * divergence(opponent, case.reference)


def divergence(p: Array, q: Array) -> float:
    """Return KL(p‖q) by its definition, in probability space, 0 log 0 = 0."""
    return float(np.sum(rel_entr(p, q)))


def payoff_rounding(case: Case, *policies: Array) -> float:
    """Return what `payoff` may be off by: rounding of its largest term."""
    largest = max(float(np.sum(np.abs(rel_entr(p, case.reference)))) for p in policies)
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
        proof="docs/proofs/derived-claims.md#constant-sum",
    )
)


def best_payoff(case: Case) -> Measured:
    """Return max_π P_β(π ≻ μ) - 1/2 against the case's opponent μ, by climbing the payoff.

    The payoff is concave in π, so what is left to gain at a policy is at most what its gradient g promises, max g - ⟨g, π⟩: that
    is the certificate, and the uncertainty. Nothing is taken from the closed form.
    """
    gain, logits = case.advantages @ case.opponent, case.log_reference
    enough = payoff_rounding(case, case.reference, case.opponent)
    for _ in range(_STEPS):
        policy = np.exp(logits)
        slope = gain - case.beta * (logits - case.log_reference)
        promised = float(slope.max() - policy @ slope)
        if promised <= enough:
            break
        logits = log_softmax(logits + _CLIMB / case.beta * slope)
    uncertainty = promised + payoff_rounding(case, policy, case.opponent)
    return Measured(payoff(case, policy, case.opponent) - 0.5, uncertainty)


def _to_best_response(case: Case, factor: float = 1.0, backwards: bool = False) -> Measured:
    response, opponent = log_best_response(case.context, case.log_opponent), case.log_opponent
    pair = (response, opponent) if backwards else (opponent, response)
    rounding = 8 * EPS * float(np.sum(np.exp(pair[0]) * (1 + np.abs(response) + np.abs(opponent))))
    return Measured(factor * case.beta * float(kl_log(*pair)), factor * case.beta * rounding)


register(
    Claim(
        id="exploitability-is-kl-to-best-response",
        title="exploitability is β KL to the best response",
        statement=r"\mathcal E_\beta(\mu) = \max_\pi \mathcal P_\beta(\pi \succ \mu) - \tfrac12 = \beta\, \mathrm{KL}(\mu \| "
        r"\mathrm{BR}(\mu)), \quad \mathrm{BR}(\mu) \propto \rho\, e^{A\mu/\beta}",
        source=PROXIMAL_POINT_NLHF.at("definition of the exploitability; the identity derived here"),
        kind="equality",
        status="identity",
        measure=best_payoff,
        bound=_to_best_response,
        tolerance=0.0,
        why="rounding of the largest terms, and what concavity leaves to gain at the policy found",
        mutants=(
            Mutant("KL the other way", {"bound": lambda case: _to_best_response(case, backwards=True)}),
            Mutant("β times 1.5", {"bound": lambda case: _to_best_response(case, 1.5)}),
        ),
        proof="docs/proofs/derived-claims.md#exploitability-is-kl-to-best-response",
    )
)


def _monotonicity(case: Case, sign: float = -1.0) -> Measured:
    """⟨F(π) - F(μ), π - μ⟩ in probability space, F(π) = -Aπ + β log(π/ρ)."""
    apart, beta = case.policy - case.opponent, case.beta
    slopes = [sign * case.advantages @ p + beta * np.log(p / case.reference) for p in (case.policy, case.opponent)]
    sizes = [1 + beta * (1 + np.abs(np.log(p / case.reference))) for p in (case.policy, case.opponent)]
    logs = np.abs(case.log_policy) + np.abs(case.log_opponent) + np.abs(case.log_reference)
    rounding = 8 * EPS * float(np.sum(np.abs(apart) * (sizes[0] + sizes[1] + beta * logs)))
    shares = 8 * EPS * float(np.sum((case.policy + case.opponent) * np.abs(slopes[0] - slopes[1])))
    return Measured(float((slopes[0] - slopes[1]) @ apart), rounding + shares)


def _both_ways(case: Case, there: float = 1.0, back: float = 1.0) -> Measured:
    weighted = there * kl_log(case.log_policy, case.log_opponent) + back * kl_log(case.log_opponent, case.log_policy)
    logs = np.abs(case.log_policy) + np.abs(case.log_opponent)
    return Measured(case.beta * float(weighted), 4 * EPS * case.beta * float((case.policy + case.opponent) @ (1 + logs)))


register(
    Claim(
        id="strong-monotonicity",
        title="the game is β-strongly monotone relative to KL, with equality",
        statement=r"\langle F(\pi) - F(\mu), \pi - \mu \rangle = \beta\,(\mathrm{KL}(\pi\|\mu) + \mathrm{KL}(\mu\|\pi)), "
        r"\quad F(\pi) = -A\pi + \beta \log(\pi/\rho)",
        source=PROXIMAL_POINT_NLHF.at("strong monotonicity of the regularized game; the equality derived here"),
        kind="equality",
        status="identity",
        measure=_monotonicity,
        bound=_both_ways,
        tolerance=0.0,
        why="rounding of the largest terms",
        mutants=(
            Mutant("KL one way, twice", {"bound": lambda case: _both_ways(case, 2.0, 0.0)}),
            Mutant("KL one way only", {"bound": lambda case: _both_ways(case, 1.0, 0.0)}),
            Mutant("β times 1.5", {"bound": lambda case: _both_ways(case, 1.5, 1.5)}),
        ),
        proof="docs/proofs/derived-claims.md#strong-monotonicity",
    )
)
