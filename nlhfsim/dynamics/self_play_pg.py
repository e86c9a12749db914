"""Self-play policy gradient on softmax policies, the same thing as Online IPO.

Both players are the same policy; each step climbs the gradient of the regularized payoff against the current policy held fixed:

    θ⁺ = θ + γ J(π_θ) (Aπ_θ - β (θ - log ρ)),    J(π) = diag(π) - ππᵀ

Source: Tiapkin et al., arXiv 2505.19731 (self-play policy gradient); Calandriello et al., arXiv 2403.08635 (Online IPO, equal
to it in expectation). Converges globally, on every game, for constant steps γ ≤ γ₁ = min(4β, 1/β) (docs/proofs).
As γ → 0: θ⁺ - θ = γJ(π)u exactly, so dθ/dt = J(π)(Aπ - β(θ - log ρ)), which converges to π* from everywhere.
Known failure: with cyclic preferences a step above a critical one of order β cycles for ever, and rare actions learn slowly,
as the gradient of each logit carries its probability.
"""

from __future__ import annotations

import numpy as np

from nlhfsim.dynamics._conditions import payoff_gradient
from nlhfsim.dynamics._flows import policy_gradient
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, ProvenRange, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage, lifted
from nlhfsim.in_place import advantage_to, ascend_to, exp_to, log_softmax_to
from nlhfsim.pairs import Pairs
from nlhfsim.simplex import exp, expect, log_softmax
from nlhfsim.sources import PROXIMAL_POINT_NLHF


def ascend(logits: Array, context: Context, step_size: float) -> Array:
    """Return θ + γ J(π_θ) (Aπ_θ - β (θ - log ρ)), shape ``(..., n)``."""
    policy = exp(log_softmax(logits))
    slope = advantage(context.payoff, policy) - context.beta * (logits - context.log_reference)
    return logits + lifted(context.payoff, step_size * policy * (slope - expect(policy, slope)))


def step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """One gradient step."""
    return LogPolicy(ascend(state.logits, context, step_size))


def kernel(
    state: LogPolicy, context: Context, step_size: float, params: NoParams, policy: Array, gain: Array, half: Array
) -> None:
    """`step` in place."""
    log_softmax_to(half, state.logits)
    exp_to(policy, half)
    advantage_to(gain, context.payoff, policy)
    ascend_to(state.logits, policy, gain, step_size, context.beta, context.log_reference)


def characterisation(context: Context, params: NoParams, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of θ⁺ - θ from γ times the gradient of the payoff, found by differentiating the payoff itself."""
    moved = step_size * payoff_gradient(context, before.logits)
    return float(np.abs(after.logits - before.logits - moved).max())


def largest_proven_step(context: Context) -> float:
    """Return γ₁ = min(4β, 1/β), 0 at β = 0."""
    return float(min(4 * context.beta, 1 / max(context.beta, 1e-300)))


def proven(context: Context, params: NoParams, step_size: float) -> ProvenRange:
    """Global convergence for γ ≤ γ₁; its linear rate depends on the path, so no factor is given."""
    return ProvenRange(largest_proven_step(context), "self-play-pg-universal-step (theory of this project)", None)


def safe_step(context: Context, params: NoParams) -> float:
    """Return γ₁; at β = 0, where no constant step converges on a cycle, 0.1."""
    return largest_proven_step(context) or 0.1


METHOD = Method(
    name="SelfPlayPG",
    step=step,
    characterisation=characterisation,
    flow=policy_gradient,
    safe_step=safe_step,
    proven=proven,
    source=PROXIMAL_POINT_NLHF.at("self-play policy gradient; Online IPO in Calandriello et al., arXiv 2403.08635"),
    helpers=(ascend,),
    kernel=kernel,
    together=True,
    pairs=lambda params: Pairs(),
    log_linear="gradient",
    example={"step_size": 0.3},
    summary="policy gradient against the current policy (= Online IPO)",
)


@register(METHOD)
def SelfPlayPG(step_size: StepSize | None = None) -> Dynamics:
    """Self-play policy gradient (= Online IPO): ``θ⁺ = θ + γ J(π_θ)(Aπ_θ - β(θ - log ρ))``.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: the largest step for which global convergence is proven on the game.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.SelfPlayPG(step_size=0.5)
    SelfPlayPG(step_size=0.5)
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("step_size", step_size))
