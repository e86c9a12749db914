"""Multiplicative weights: mirror descent on the bare preference game, no reference.

    log π⁺ ∝ log π + γAπ

The exact tabular form of SPPO and DNO.
Source: Wu et al., arXiv 2405.00675; the average of π_0 … π_(T-1) from uniform has E_0 ≤ log n/(γT) + γ/8 (Freund & Schapire,
1999). As γ → 0: θ⁺ - θ = γAπ up to a constant, so dθ/dt = Aπ, the replicator equation, which conserves KL(π*‖π) of an interior
π*. Known failure: the last iterate moves away from an interior equilibrium at every step (Bailey & Piliouras, 2018).
"""

from __future__ import annotations

import numpy as np

from nlhfsim.dynamics._conditions import gains, probabilities, stationarity
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.in_place import advantage_to, exp_to, mirror_to
from nlhfsim.simplex import exp, log_softmax
from nlhfsim.sources import SELF_PLAY_PREFERENCE_OPTIMIZATION


def step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """One multiplicative update."""
    return LogPolicy(log_softmax(state.logits + step_size * advantage(context.payoff, exp(state.logits))))


def kernel(
    state: LogPolicy, context: Context, step_size: float, params: NoParams, policy: Array, gain: Array, half: Array
) -> None:
    """`step` in place."""
    exp_to(policy, state.logits)
    advantage_to(gain, context.payoff, policy)
    mirror_to(state.logits, state.logits, gain, step_size, 0.0, context.log_reference)


def characterisation(context: Context, params: NoParams, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of π⁺ from the maximizer of ``⟨Aπ, q⟩ - KL(q‖π)/γ``."""
    old = probabilities(before.logits)
    return stationarity(gains(context, old), probabilities(after.logits), (1 / step_size, old))


def flow(context: Context, params: NoParams, logits: Array) -> Array:
    """Return Aπ, shape ``(..., n)``: as πᵀAπ = 0, it keeps θ normalized."""
    return advantage(context.payoff, np.exp(log_softmax(logits)))


def safe_step(context: Context, params: NoParams) -> float:
    """Return 0.1."""
    return 0.1


METHOD = Method(
    name="MultiplicativeWeights",
    step=step,
    characterisation=characterisation,
    flow=flow,
    safe_step=safe_step,
    source=SELF_PLAY_PREFERENCE_OPTIMIZATION.at("the SPPO update in exact tabular form"),
    fixed_point="none",
    iterate="average",
    kernel=kernel,
    together=True,
    log_linear="mirror",
    example={"step_size": 0.3},
    summary="mirror descent without reference (SPPO and DNO in exact tabular form)",
)


@register(METHOD)
def MultiplicativeWeights(step_size: StepSize | None = None) -> Dynamics:
    """Multiplicative weights (SPPO, DNO): ``log π⁺ ∝ log π + γAπ``. The game's β and ρ are not used.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: 0.1.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.MultiplicativeWeights(step_size=0.5)
    MultiplicativeWeights(step_size=0.5)
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("step_size", step_size))
