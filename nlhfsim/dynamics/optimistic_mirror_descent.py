"""Optimistic mirror descent: mirror prox that looks ahead with the payoff of the previous look-ahead, one oracle call a step.

    π'_t = prox(π_t; Aπ'_{t-1}),  π_{t+1} = prox(π_t; Aπ'_t),    prox(π; v) = argmax_q ⟨v, q⟩ - β KL(q‖ρ) - KL(q‖π)/γ

with π'_{-1} = π_0. At β = 0 it is optimistic multiplicative weights, the exact tabular form of optimistic online NPO.
Source: Rakhlin & Sridharan, arXiv 1311.1869 (optimistic mirror descent with a general prox); Zhang et al., arXiv 2502.16852
(optimistic online mirror descent for Nash learning from human feedback).
As γ → 0: π'_t = π_t + O(γ) whatever payoff was seen last, so dθ/dt is that of `NaturalPG`.
Known failure: at steps at which `NashMirrorProx` still converges it may cycle, as its look-ahead is one step old.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlhfsim.dynamics._conditions import gains, power_mean, probabilities, stationarity
from nlhfsim.dynamics._flows import natural_gradient
from nlhfsim.dynamics._spec import Dynamics, Method, NoParams, register
from nlhfsim.dynamics.nash_mirror_prox import prox
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.in_place import advantage_to, exp_to, prox_to
from nlhfsim.simplex import exp
from nlhfsim.sources import OPTIMISTIC_MIRROR_DESCENT


class State(NamedTuple):
    """θ with π_t = softmax(θ), and Aπ'_{t-1}, both of shape ``(..., n)``."""

    logits: Array
    gain: Array


def init(context: Context, params: NoParams, log_policy: Array) -> State:
    """Start with the look-ahead at the policy itself; this reads Aπ_0 once, beside the steps."""
    return State(log_policy, advantage(context.payoff, exp(log_policy)))


def step(state: State, context: Context, step_size: float, params: NoParams) -> State:
    """Look ahead with the last payoff seen, read the payoff there, and step with it from where we were."""
    half = prox(state.logits, state.gain, context, step_size)
    gain = advantage(context.payoff, exp(half))
    return State(prox(state.logits, gain, context, step_size), gain)


def kernel(state: State, context: Context, step_size: float, params: NoParams, policy: Array, gain: Array, half: Array) -> None:
    """`step` in place."""
    prox_to(half, state.logits, state.gain, step_size, context.beta, context.log_reference)
    exp_to(policy, half)
    advantage_to(state.gain, context.payoff, policy)
    prox_to(state.logits, state.logits, state.gain, step_size, context.beta, context.log_reference)


def characterisation(context: Context, params: NoParams, before: State, step_size: float, after: State) -> float:
    """Return the distance of π⁺ from the maximizer with Aπ', π' in closed form, and of the payoff kept from Aπ'."""
    old, reference = probabilities(before.logits), np.exp(context.log_reference)
    total = context.beta + 1 / step_size
    parts = ((context.beta / total, reference), (1 / (step_size * total), old), (1.0, np.exp(before.gain / total)))
    seen = gains(context, power_mean(*parts))
    distance = stationarity(seen, probabilities(after.logits), (context.beta, reference), (1 / step_size, old))
    return max(distance, float(np.abs(after.gain - seen).max()))


def safe_step(context: Context, params: NoParams) -> float:
    """Return 1, half the step of `NashMirrorProx`."""
    return 1.0


METHOD = Method(
    name="OptimisticMirrorDescent",
    step=step,
    characterisation=characterisation,
    flow=natural_gradient,
    init=init,
    safe_step=safe_step,
    source=OPTIMISTIC_MIRROR_DESCENT.at("section 3, the OMD update with predictable sequences"),
    helpers=(prox,),
    kernel=kernel,
    together=True,
    initial_calls=1,
    log_linear="mirror",
    example={"step_size": 0.8},
    summary="mirror prox that looks ahead with the last payoff seen (optimistic NPO at beta = 0)",
)


@register(METHOD)
def OptimisticMirrorDescent(step_size: StepSize | None = None) -> Dynamics:
    """Optimistic mirror descent: ``π'_t = prox(π_t; Aπ'_{t-1})``, ``π_{t+1} = prox(π_t; Aπ'_t)``. One oracle call a step.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: 1.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.OptimisticMirrorDescent(step_size=0.5)
    OptimisticMirrorDescent(step_size=0.5)
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("step_size", step_size))
