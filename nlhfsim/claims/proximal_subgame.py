"""The sub-game of a proximal step: two penalties are one."""

from __future__ import annotations

import numpy as np

from nlhfsim.claims._accuracy import EPS, span_error
from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Hypothesis, Measured, Mutant
from nlhfsim.errors import Array
from nlhfsim.simplex import log_softmax
from nlhfsim.sources import PROXIMAL_POINT_NLHF

_STEPS = 20_000


def unmerged_equilibrium(case: Case) -> Measured:
    """Return log π⁺ of the payoff P_β(π ≻ μ) - (1/γ) KL(π‖π_k) + (1/γ) KL(μ‖π_k), both penalties kept apart, by ascent.

    Each player climbs the payoff's own gradient in the logits, looking ahead at the opponent; a step of 1/(½ + β + 1/γ) converges
    from everywhere. At a gradient of span s the logarithms are off by at most s/β′ (1 + 1/(2β′)), β′ = β + 1/γ: the payoff is
    β′-strongly monotone relative to KL.
    """
    matrix, beta, pull = case.advantages, case.beta, 1 / case.step_size
    strength, step = beta + pull, 1 / (0.5 + beta + pull)
    logs, policy = case.log_policy, case.policy
    size = 0.5 + beta * np.abs(case.log_reference).max() + pull * np.abs(case.log_policy).max()
    for _ in range(_STEPS):
        penalty = beta * (logs - case.log_reference) + pull * (logs - case.log_policy)
        slope = matrix @ policy - penalty
        remaining = slope.max() - slope.min()
        if remaining <= 4 * EPS * size:
            break
        ahead = _softmax(logs + step * slope)
        logs = logs + step * (matrix @ ahead - penalty)
        policy = _softmax(logs)
        logs = np.log(policy) if policy.min() > 1e-300 else log_softmax(logs)
    error = (remaining + 8 * EPS * (size + strength * np.abs(logs).max())) / strength
    return Measured(logs, error * (1 + 0.5 / strength))


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def merged_equilibrium(case: Case, strength: float = 1.0, share: float = 1.0) -> Measured:
    """Return log π* of the game (β′, ρ′), β′ = β + 1/γ, ρ′ ∝ (ρ^β π^(1/γ))^(1/β′); both 1/γ are multiplied by a number."""
    beta = case.beta + strength / case.step_size
    weight = case.beta / (case.beta + share / case.step_size)
    reference = np.exp(log_softmax(weight * case.log_reference + (1 - weight) * case.log_policy))
    subgame = case.at(game=case.game.with_beta(beta).with_reference(reference))
    rounding = 8 * EPS * (1 + np.abs(case.log_reference) + np.abs(case.log_policy)).max()
    return Measured(subgame.log_equilibrium, span_error(subgame) + rounding * (1 + 0.5 / beta))


register(
    Claim(
        id="proximal-subgame",
        title="the proximal sub-game is a game with one regularizer",
        statement=r"\pi^+ \text{ of } \mathcal P_\beta(\pi \succ \mu) - \tfrac1\gamma \mathrm{KL}(\pi\|\pi_k) + \tfrac1\gamma "
        r"\mathrm{KL}(\mu\|\pi_k) \text{ is } \pi^* \text{ of } \beta' = \beta + \tfrac1\gamma,\ "
        r"\rho' \propto (\rho^\beta \pi_k^{1/\gamma})^{1/\beta'}",
        source=PROXIMAL_POINT_NLHF.at("proximal point step; the identity derived here"),
        kind="equality",
        status="identity",
        measure=unmerged_equilibrium,
        bound=merged_equilibrium,
        tolerance=0.0,
        why="rounding of the gradient of either payoff, propagated to log π",
        hypotheses=(Hypothesis("γ > 0", lambda case: case.step_size > 0),),
        mutants=(
            Mutant("β + 1/(2γ) for β′", {"bound": lambda case: merged_equilibrium(case, strength=0.5)}),
            Mutant("1/γ halved in ρ′", {"bound": lambda case: merged_equilibrium(case, share=0.5)}),
        ),
        proof="docs/proofs/derived-claims.md#proximal-subgame",
        cost="moderate",
    )
)
