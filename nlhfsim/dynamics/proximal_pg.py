"""The proximal point method with self-play policy gradient inside: the combined method of the paper.

Each outer step plays the game (β', ρ') with β' = β + 1/γ, ρ' ∝ (ρ^β π_k^(1/γ))^(1/β') by `inner_steps` steps of `SelfPlayPG`
from π_k:

    θ ← θ + η J(π_θ) (Aπ_θ - β(θ - log ρ) - (θ - θ_k)/γ)

Source: Tiapkin et al., arXiv 2505.19731, the proximal point framework with self-play policy gradient.
As η → 0, γ and m = `inner_steps` fixed: θ - θ_k = O(mη), so the pull to the centre vanishes and dθ/dt in the time t = mηk is that
of `SelfPlayPG`: the limit shows nothing of the proximal term, whose work is to let η be large.
Why it helps: the inner game is β'-regularized, so an inner step of the order of β', not of β, is stable.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlhfsim.dynamics._conditions import payoff_gradient
from nlhfsim.dynamics._flows import policy_gradient
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, given_parameters, register
from nlhfsim.dynamics.proximal_point import subgame
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.dynamics.self_play_pg import ascend, largest_proven_step
from nlhfsim.errors import Array, ensure_integer, ensure_positive
from nlhfsim.games.payoffs import Context
from nlhfsim.pairs import Pairs
from nlhfsim.sources import PROXIMAL_POINT_NLHF


class Params(NamedTuple):
    """``pull`` = 1/γ, the weight of the proximal term; ``inner_steps`` a step."""

    pull: float
    inner_steps: int


def step(state: LogPolicy, context: Context, step_sizes: Array, params: Params) -> LogPolicy:
    """Play the sub-game around the current policy for one inner step per entry of `step_sizes`."""
    inner = subgame(context, state.logits, params.pull)
    logits = state.logits
    for step_size in step_sizes:
        logits = ascend(logits, inner, step_size)
    return LogPolicy(logits)


def characterisation(context: Context, params: Params, before: LogPolicy, step_sizes: Array, after: LogPolicy) -> float:
    """Return the distance of θ⁺ from gradient ascent on the unmerged sub-game's payoff, differentiated itself."""
    logits = before.logits
    for step_size in step_sizes:
        logits = logits + step_size * payoff_gradient(context, logits, before.logits, params.pull)
    return float(np.abs(after.logits - logits).max())


def safe_step(context: Context, params: Params) -> float:
    """Return the proven step of `SelfPlayPG` in the sub-games: it does not depend on their centre."""
    return largest_proven_step(context._replace(beta=context.beta + params.pull))


METHOD = Method(
    name="ProximalPG",
    step=step,
    characterisation=characterisation,
    flow=policy_gradient,
    safe_step=safe_step,
    source=PROXIMAL_POINT_NLHF.at("proximal point framework with self-play policy gradient"),
    oracle_calls=lambda params: params.inner_steps,
    inner_steps=lambda params: params.inner_steps,
    scheduled="inner_step_size",
    helpers=(ascend, subgame),
    tuning={"proximal_step": (2.0, 10.0, 50.0), "inner_steps": (5, 20)},
    together=True,
    pairs=lambda params: Pairs(pull=params.pull, refresh_every=params.inner_steps, inner=params.inner_steps),
    log_linear="gradient",
    example={"proximal_step": 2.0, "inner_step_size": 0.8, "inner_steps": 20},
    summary="proximal point method, each sub-game played by self-play policy gradient",
)


@register(METHOD)
def ProximalPG(
    proximal_step: float = 2.0,
    inner_step_size: StepSize | None = None,
    inner_steps: int = 20,
) -> Dynamics:
    """Proximal point method with self-play policy gradient inside. `inner_steps` oracle calls a step.

    Parameters
    ----------
    proximal_step : float
        γ > 0: the proximal term has weight 1/γ.
    inner_step_size : float or schedule, optional
        Step size of the inner `SelfPlayPG`; a schedule counts inner steps over the whole run. Default: the proven step in
        the sub-games.
    inner_steps : int
        Inner steps a step, at least 1.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.ProximalPG(proximal_step=2.0, inner_step_size=0.5, inner_steps=10)
    ProximalPG(inner_step_size=0.5, proximal_step=2, inner_steps=10)
    """
    gamma, count = ensure_positive("proximal_step", proximal_step), ensure_integer("inner_steps", inner_steps, 1, 10**6)
    given = given_parameters(proximal_step=gamma, inner_steps=count)
    return Dynamics(METHOD, Params(1 / gamma, count), ensure_step_size("inner_step_size", inner_step_size), given)
