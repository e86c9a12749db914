"""Natural policy gradient: online mirror descent with the regularizer linearized.

    θ⁺ = θ + γ (Aπ_θ - β (θ - log ρ))

The same update is explicit online mirror descent and, with η = 1/γ, Iterative Nash Policy Optimization (INPO). It equals
`MagneticMirrorDescent` at γ' = γ/(1 - γβ).
Source: Zhang et al., arXiv 2407.00617, equation of the INPO update; rate by that identity from Sokota et al., arXiv 2206.05825.
As γ → 0: θ⁺ - θ = γu up to a constant, so dθ/dt = Aπ - β(θ - log ρ), along which d KL(π*‖π)/dt ≤ -β KL(π*‖π).
Known failure: with cyclic preferences unstable for γ > 2β/(β² + ω²), ω the largest rotation frequency of the game at π*.
"""

from __future__ import annotations

import numpy as np

from nlhfsim.dynamics._conditions import gains, probabilities, stationarity
from nlhfsim.dynamics._flows import natural_gradient
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, ProvenRange, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.in_place import advantage_to, exp_to, mirror_to
from nlhfsim.simplex import exp, log_softmax
from nlhfsim.sources import ITERATIVE_NASH_POLICY_OPTIMIZATION


def step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """One natural gradient step."""
    slope = advantage(context.payoff, exp(state.logits)) - context.beta * (state.logits - context.log_reference)
    return LogPolicy(log_softmax(state.logits + step_size * slope))


def kernel(
    state: LogPolicy, context: Context, step_size: float, params: NoParams, policy: Array, gain: Array, half: Array
) -> None:
    """`step` in place."""
    exp_to(policy, state.logits)
    advantage_to(gain, context.payoff, policy)
    mirror_to(state.logits, state.logits, gain, step_size, context.beta, context.log_reference)


def characterisation(context: Context, params: NoParams, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of π⁺ from the maximizer of ``⟨Aπ - β log(π/ρ), q⟩ - KL(q‖π)/γ``."""
    old = probabilities(before.logits)
    slope = gains(context, old) - context.beta * np.log(old / np.exp(context.log_reference))
    return stationarity(slope, probabilities(after.logits), (1 / step_size, old))


def largest_proven_step(context: Context) -> float:
    """Return 4β/(1 + 4β²); where β² would overflow, 1/β, which it equals to rounding there."""
    return 4 * context.beta / (1 + 4 * context.beta**2) if context.beta < 1e100 else 1 / context.beta


def proven(context: Context, params: NoParams, step_size: float) -> ProvenRange:
    """Return γ ≤ 4β/(1 + 4β²) with factor 1 - γβ: `magnetic-md-rate` through `explicit-is-implicit`."""
    largest = largest_proven_step(context)
    factor = 1 - step_size * context.beta if step_size <= largest else None
    return ProvenRange(largest, "magnetic-md-rate through explicit-is-implicit (Sokota et al., arXiv 2206.05825)", factor)


def safe_step(context: Context, params: NoParams) -> float:
    """Return the largest proven step; 0.1 at β = 0."""
    return largest_proven_step(context) or 0.1


METHOD = Method(
    name="NaturalPG",
    step=step,
    characterisation=characterisation,
    flow=natural_gradient,
    safe_step=safe_step,
    proven=proven,
    source=ITERATIVE_NASH_POLICY_OPTIMIZATION.at("the INPO update with eta = 1/step_size; explicit online mirror descent"),
    kernel=kernel,
    together=True,
    log_linear="mirror",
    example={"step_size": 0.3},
    summary="natural policy gradient (= explicit online mirror descent, INPO)",
)


@register(METHOD)
def NaturalPG(step_size: StepSize | None = None) -> Dynamics:
    """Natural policy gradient (= explicit online mirror descent, INPO): ``θ⁺ = θ + γ(Aπ_θ - β(θ - log ρ))``.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: the largest step with a proven rate on the game, 4β/(1 + 4β²).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.NaturalPG(step_size=0.5).parameters
    {'step_size': 0.5}
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("step_size", step_size))
