"""Nash mirror descent: a mirror step from, and against, a geometric mixture with the reference.

    π̃ ∝ π^(1 - γβ) ρ^(γβ),    log π⁺ ∝ log π̃ + γAπ̃

Source: Munos et al., arXiv 2312.00886, section 6; theorem 1 with γ_t = 2/(β(t + 2)), `nl.schedules.inverse_time(2/beta, 2)`.
As γ → 0: θ⁺ - θ = γ(Aπ̃ - β(θ - log ρ)) up to a constant and π̃ = π + O(γ), so dθ/dt is that of `NaturalPG`, unbiased.
Known failure: at a constant step its fixed point is in general not π*, as its opponent is the mixture, and on
rock–paper–scissors at small β a whole window of step sizes is unstable.
"""

from __future__ import annotations

import numpy as np

from nlhfsim.dynamics._conditions import gains, power_mean, probabilities, stationarity
from nlhfsim.dynamics._flows import natural_gradient
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, ProvenRange, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.in_place import advantage_to, exp_to, mirror_to, mixture_to
from nlhfsim.simplex import exp, log_softmax
from nlhfsim.sources import NASH_LEARNING


def step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """One mirror step from the mixture."""
    share = step_size * context.beta
    mixture = log_softmax((1 - share) * state.logits + share * context.log_reference)
    return LogPolicy(log_softmax(mixture + step_size * advantage(context.payoff, exp(mixture))))


def kernel(
    state: LogPolicy, context: Context, step_size: float, params: NoParams, policy: Array, gain: Array, half: Array
) -> None:
    """`step` in place."""
    mixture_to(half, state.logits, step_size, context.beta, context.log_reference)
    exp_to(policy, half)
    advantage_to(gain, context.payoff, policy)
    mirror_to(state.logits, half, gain, step_size, 0.0, context.log_reference)


def characterisation(context: Context, params: NoParams, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of π⁺ from the maximizer of ``γ⟨Aπ̃, q⟩ - KL(q‖π̃)``, π̃ the geometric mixture."""
    share = step_size * context.beta
    mixture = power_mean((1 - share, probabilities(before.logits)), (share, np.exp(context.log_reference)))
    return stationarity(step_size * gains(context, mixture), probabilities(after.logits), (1.0, mixture))


def proven(context: Context, params: NoParams, step_size: float) -> ProvenRange:
    """Return γ ≤ 1/β, where the mixture is one; the recursion has a floor of order γ/β, so no factor."""
    largest = 1 / context.beta if context.beta > 0 else np.inf
    return ProvenRange(float(largest), "nash-md-recursion (Munos et al., arXiv 2312.00886)", None)


def safe_step(context: Context, params: NoParams) -> float:
    """Return min(β, 1/β): the floor of the recursion, γ/(8β), is then at most 1/8; 0.1 at β = 0."""
    return min(context.beta, 1 / context.beta) if context.beta > 0 else 0.1


METHOD = Method(
    name="NashMD",
    step=step,
    characterisation=characterisation,
    flow=natural_gradient,
    safe_step=safe_step,
    proven=proven,
    source=NASH_LEARNING.at("section 6, Nash-MD; theorem 1"),
    fixed_point="biased",
    kernel=kernel,
    together=True,
    log_linear="mirror",
    example={"step_size": 0.3},
    summary="mirror step from and against a geometric mixture with the reference",
)


@register(METHOD)
def NashMD(step_size: StepSize | None = None) -> Dynamics:
    """Nash-MD: ``π̃ ∝ π^(1-γβ) ρ^(γβ)``, ``log π⁺ ∝ log π̃ + γAπ̃``.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ in (0, 1/β]. Default: min(β, 1/β). For convergence to π* give ``nl.schedules.inverse_time(2 / beta, 2)``.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.NashMD(step_size=nl.schedules.inverse_time(20, 2))
    NashMD(step_size=inverse-time:20,2)
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("step_size", step_size))
