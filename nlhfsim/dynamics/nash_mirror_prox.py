"""Nash mirror prox: two proximal steps, the second with the payoff at the half point.

    π' = prox(π; Aπ),  π⁺ = prox(π; Aπ'),    prox(π; v) = argmax_q ⟨v, q⟩ - β KL(q‖ρ) - KL(q‖π)/γ

Source: Tiapkin et al., arXiv 2505.19731 version 1 (Nash Mirror Prox, γ = 2): ``KL(π*‖π_K) ≤ (1 + γβ)^(-K) KL(π*‖π_0)`` for γ ≤
2, and, derived, for γ ≤ 2(β + √(1 + β²)). Equals `Extragradient` at γ/(1 + γβ).
As γ → 0: θ⁺ - θ = γ(Aπ' - β(θ - log ρ))/(1 + γβ) up to a constant and π' = π + O(γ), so dθ/dt is that of `NaturalPG`.
Known failure: twice the proven step on rock–paper–scissors at small β moves away in one step; on transitive games its two
oracle calls a step are one too many.
"""

from __future__ import annotations

import math

import numpy as np

from nlhfsim.dynamics._conditions import gains, power_mean, probabilities, stationarity
from nlhfsim.dynamics._flows import natural_gradient
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, ProvenRange, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.in_place import advantage_to, exp_to, prox_to
from nlhfsim.simplex import exp, log_softmax
from nlhfsim.sources import NASH_MIRROR_PROX


def prox(log_policy: Array, gain: Array, context: Context, step_size: float) -> Array:
    """Return log argmax_q ⟨v, q⟩ - β KL(q‖ρ) - KL(q‖π)/γ for v = `gain`."""
    pull = step_size * context.beta
    return log_softmax((log_policy + pull * context.log_reference + step_size * gain) / (1 + pull))


def step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """Look ahead, come back, and step with what was seen there."""
    half = prox(state.logits, advantage(context.payoff, exp(state.logits)), context, step_size)
    return LogPolicy(prox(state.logits, advantage(context.payoff, exp(half)), context, step_size))


def kernel(
    state: LogPolicy, context: Context, step_size: float, params: NoParams, policy: Array, gain: Array, half: Array
) -> None:
    """`step` in place."""
    exp_to(policy, state.logits)
    advantage_to(gain, context.payoff, policy)
    prox_to(half, state.logits, gain, step_size, context.beta, context.log_reference)
    exp_to(policy, half)
    advantage_to(gain, context.payoff, policy)
    prox_to(state.logits, state.logits, gain, step_size, context.beta, context.log_reference)


def characterisation(context: Context, params: NoParams, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of π⁺ from the maximizer of ``⟨Aπ', q⟩ - β KL(q‖ρ) - KL(q‖π)/γ``, π' in closed form."""
    old, reference = probabilities(before.logits), np.exp(context.log_reference)
    total = context.beta + 1 / step_size
    tilted = np.exp(gains(context, old) / total)
    half = power_mean((context.beta / total, reference), (1 / (step_size * total), old), (1.0, tilted))
    return stationarity(gains(context, half), probabilities(after.logits), (context.beta, reference), (1 / step_size, old))


def largest_proven_step(context: Context) -> float:
    """Return 2(β + √(1 + β²))."""
    return 2 * (context.beta + math.hypot(1, context.beta))


def proven(context: Context, params: NoParams, step_size: float) -> ProvenRange:
    """Return γ ≤ 2(β + √(1 + β²)) with factor 1/(1 + γβ)."""
    largest = largest_proven_step(context)
    factor = 1 / (1 + step_size * context.beta) if step_size <= largest else None
    return ProvenRange(largest, "nash-mirror-prox-rate (Tiapkin et al., arXiv 2505.19731v1)", factor)


def safe_step(context: Context, params: NoParams) -> float:
    """Return 2, the step of the paper."""
    return 2.0


METHOD = Method(
    name="NashMirrorProx",
    step=step,
    characterisation=characterisation,
    flow=natural_gradient,
    safe_step=safe_step,
    proven=proven,
    source=NASH_MIRROR_PROX.at("Nash Mirror Prox, theorem of the last-iterate rate"),
    oracle_calls=lambda params: 2,
    helpers=(prox,),
    kernel=kernel,
    together=True,
    log_linear="mirror",
    example={"step_size": 2.0},
    summary="two proximal steps, the second with the payoff at the half point",
)


@register(METHOD)
def NashMirrorProx(step_size: StepSize | None = None) -> Dynamics:
    """Nash mirror prox: ``π' = prox(π; Aπ)``, ``π⁺ = prox(π; Aπ')``. Two oracle calls a step.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: 2, the step of the paper.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.NashMirrorProx(step_size=2.0)
    NashMirrorProx(step_size=2)
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("step_size", step_size))
