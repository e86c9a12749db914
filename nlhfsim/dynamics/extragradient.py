"""Extragradient preference optimization (EGPO): two explicit natural gradient steps.

    θ' = θ + γ(Aπ_θ - β(θ - log ρ)),    θ⁺ = θ + γ(Aπ_θ' - β(θ - log ρ))

The regularizer is taken at θ both times: with it at θ' in the second half the rate below fails.
Source: Zhou et al., arXiv 2503.08942 (γ ≤ 1/(β + 3)); the range γ ≤ 2/(β + √(1 + β²)) and the factor 1 - γβ a step are
derived, through the identity with `NashMirrorProx` at γ/(1 - γβ).
As γ → 0: θ' = θ + O(γ), so dθ/dt is that of `NaturalPG`.
"""

from __future__ import annotations

import math

import numpy as np

from nlhfsim.dynamics._conditions import gains, probabilities, stationarity
from nlhfsim.dynamics._flows import natural_gradient
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, ProvenRange, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.in_place import advantage_to, exp_to, mirror_to
from nlhfsim.simplex import exp, log_softmax
from nlhfsim.sources import EXTRAGRADIENT


def step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """Look ahead, come back, and step with the payoff seen there and the regularizer seen here."""
    pull = context.beta * (state.logits - context.log_reference)
    half = log_softmax(state.logits + step_size * (advantage(context.payoff, exp(state.logits)) - pull))
    return LogPolicy(log_softmax(state.logits + step_size * (advantage(context.payoff, exp(half)) - pull)))


def kernel(
    state: LogPolicy, context: Context, step_size: float, params: NoParams, policy: Array, gain: Array, half: Array
) -> None:
    """`step` in place."""
    exp_to(policy, state.logits)
    advantage_to(gain, context.payoff, policy)
    mirror_to(half, state.logits, gain, step_size, context.beta, context.log_reference)
    exp_to(policy, half)
    advantage_to(gain, context.payoff, policy)
    mirror_to(state.logits, state.logits, gain, step_size, context.beta, context.log_reference)


def characterisation(context: Context, params: NoParams, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of π⁺ from the maximizer of ``⟨Aπ' - β log(π/ρ), q⟩ - KL(q‖π)/γ``, π' in probability space."""
    old = probabilities(before.logits)
    regularizer = context.beta * np.log(old / np.exp(context.log_reference))
    half = old * np.exp(step_size * (gains(context, old) - regularizer))
    slope = gains(context, half / half.sum()) - regularizer
    return stationarity(slope, probabilities(after.logits), (1 / step_size, old))


def largest_proven_step(context: Context) -> float:
    """Return 2/(β + √(1 + β²))."""
    return 2 / (context.beta + math.hypot(1, context.beta))


def proven(context: Context, params: NoParams, step_size: float) -> ProvenRange:
    """Return γ ≤ 2/(β + √(1 + β²)) with factor 1 - γβ."""
    largest = largest_proven_step(context)
    factor = 1 - step_size * context.beta if step_size <= largest else None
    return ProvenRange(largest, "extragradient-rate (Zhou et al., arXiv 2503.08942, range derived)", factor)


def safe_step(context: Context, params: NoParams) -> float:
    """Return the largest proven step."""
    return largest_proven_step(context)


METHOD = Method(
    name="Extragradient",
    step=step,
    characterisation=characterisation,
    flow=natural_gradient,
    safe_step=safe_step,
    proven=proven,
    source=EXTRAGRADIENT.at("the EGPO update"),
    oracle_calls=lambda params: 2,
    kernel=kernel,
    together=True,
    log_linear="mirror",
    example={"step_size": 1.0},
    summary="two explicit natural gradient steps (EGPO)",
)


@register(METHOD)
def Extragradient(step_size: StepSize | None = None) -> Dynamics:
    """Extragradient (EGPO): ``θ' = θ + γ(Aπ_θ - β(θ - log ρ))``, ``θ⁺ = θ + γ(Aπ_θ' - β(θ - log ρ))``. Two oracle calls a step.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: 2/(β + √(1 + β²)), the largest step with a proven rate.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.Extragradient(step_size=0.5)
    Extragradient(step_size=0.5)
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("step_size", step_size))
