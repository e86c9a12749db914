"""Magnetic mirror descent: mirror descent, implicit in the regularizer.

    π⁺ = argmax_q ⟨Aπ, q⟩ - β KL(q‖ρ) - KL(q‖π)/γ,    log π⁺ ∝ (log π + γβ log ρ + γAπ) / (1 + γβ)

Source: Sokota et al., arXiv 2206.05825, theorem 3.4 with Lipschitz constant 1/2: ``KL(π*‖π_K) ≤ (1 + γβ)^(-K) KL(π*‖π_0)`` for
γ ≤ 4β. As γ → 0: θ⁺ - θ = γ(Aπ - β(θ - log ρ))/(1 + γβ) up to a constant, so dθ/dt is that of `NaturalPG`.
Known failure: a step that does not shrink with β cycles on rock–paper–scissors.
"""

from __future__ import annotations

import numpy as np

from nlhfsim.dynamics._conditions import gains, probabilities, stationarity
from nlhfsim.dynamics._flows import natural_gradient
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, ProvenRange, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.in_place import advantage_to, exp_to, prox_to
from nlhfsim.simplex import exp, log_softmax
from nlhfsim.sources import MAGNETIC_MIRROR_DESCENT


def step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """One mirror step with both anchors."""
    pull = step_size * context.beta
    gain = advantage(context.payoff, exp(state.logits))
    return LogPolicy(log_softmax((state.logits + pull * context.log_reference + step_size * gain) / (1 + pull)))


def kernel(
    state: LogPolicy, context: Context, step_size: float, params: NoParams, policy: Array, gain: Array, half: Array
) -> None:
    """`step` in place."""
    exp_to(policy, state.logits)
    advantage_to(gain, context.payoff, policy)
    prox_to(state.logits, state.logits, gain, step_size, context.beta, context.log_reference)


def characterisation(context: Context, params: NoParams, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of π⁺ from the maximizer of ``⟨Aπ, q⟩ - β KL(q‖ρ) - KL(q‖π)/γ``."""
    old = probabilities(before.logits)
    pulls = ((context.beta, np.exp(context.log_reference)), (1 / step_size, old))
    return stationarity(gains(context, old), probabilities(after.logits), *pulls)


def proven(context: Context, params: NoParams, step_size: float) -> ProvenRange:
    """Return γ ≤ 4β with factor 1/(1 + γβ)."""
    factor = 1 / (1 + step_size * context.beta) if step_size <= 4 * context.beta else None
    return ProvenRange(4 * context.beta, "magnetic-md-rate (Sokota et al., arXiv 2206.05825)", factor)


def safe_step(context: Context, params: NoParams) -> float:
    """Return the largest proven step, 4β; 0.1 at β = 0."""
    return 4 * context.beta or 0.1


METHOD = Method(
    name="MagneticMirrorDescent",
    step=step,
    characterisation=characterisation,
    flow=natural_gradient,
    safe_step=safe_step,
    proven=proven,
    source=MAGNETIC_MIRROR_DESCENT.at("section 3, equation of MMD; theorem 3.4"),
    kernel=kernel,
    together=True,
    log_linear="mirror",
    example={"step_size": 0.3},
    summary="mirror descent, implicit in the regularizer",
)


@register(METHOD)
def MagneticMirrorDescent(step_size: StepSize | None = None) -> Dynamics:
    """Magnetic mirror descent: ``log π⁺ ∝ (log π + γβ log ρ + γAπ)/(1 + γβ)``.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: 4β, the largest step with a proven rate.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.MagneticMirrorDescent(step_size=0.5)
    MagneticMirrorDescent(step_size=0.5)
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("step_size", step_size))
