"""Nash Prox: self-play policy gradient around a centre that follows, the practical version of the paper.

    θ⁺ = θ + γ J(π_θ) (Aπ_θ - β(θ - log ρ) - τ(θ - θ̄)),    τ = 1/proximal_step

then θ̄⁺ = (1 - α) θ̄ + α θ⁺ (moving average), or θ̄ ← θ⁺ after every m-th step (hard refresh: m steps are then one step of
`ProximalPG` with m inner steps).
Source: Tiapkin et al., arXiv 2505.19731, Nash Prox.
As γ → 0, α (or m) fixed: the centre forgets at the rate α a step, so θ - θ̄ = γ(1/α - 1)dθ/dt + O(γ²) (with refreshes O(mγ)): it
is slaved to θ and dθ/dt is that of `SelfPlayPG`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nlhfsim.dynamics._conditions import payoff_gradient
from nlhfsim.dynamics._flows import policy_gradient
from nlhfsim.dynamics._spec import Dynamics, Method, given_parameters, register
from nlhfsim.dynamics.proximal_point import subgame
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.dynamics.self_play_pg import ascend, largest_proven_step
from nlhfsim.errors import Array, InputError, ensure_between, ensure_integer, ensure_positive
from nlhfsim.games.payoffs import Context
from nlhfsim.pairs import Pairs
from nlhfsim.sources import PROXIMAL_POINT_NLHF


class Params(NamedTuple):
    """``pull`` = τ; ``averaging`` = α; ``refresh_every`` = m, 0 for the moving average."""

    pull: float
    averaging: float
    refresh_every: int


class State(NamedTuple):
    """θ, the centre θ̄, both of shape ``(..., n)``, and the number of steps done."""

    logits: Array
    centre: Array
    taken: int


def init(context: Context, params: Params, log_policy: Array) -> State:
    """Start with the centre at the policy."""
    return State(log_policy, log_policy, 0)


def step(state: State, context: Context, step_size: float, params: Params) -> State:
    """One gradient step in the sub-game around the centre; then the centre follows."""
    logits = ascend(state.logits, subgame(context, state.centre, params.pull), step_size)
    taken = state.taken + 1
    if params.refresh_every == 0:
        centre = (1 - params.averaging) * state.centre + params.averaging * logits
    elif taken % params.refresh_every == 0:
        centre = logits
    else:
        centre = state.centre
    return State(logits, centre, taken)


def characterisation(context: Context, params: Params, before: State, step_size: float, after: State) -> float:
    """Return the distance of θ⁺ from gradient ascent on the payoff with the proximal term, and of θ̄⁺ from its rule."""
    gradient = payoff_gradient(context, before.logits, before.centre, params.pull)
    moved = np.abs(after.logits - before.logits - step_size * gradient).max()
    share = params.averaging if params.refresh_every == 0 else float((before.taken + 1) % params.refresh_every == 0)
    followed = np.abs((after.centre - before.centre) - share * (after.logits - before.centre)).max()
    return float(max(moved, followed))


def safe_step(context: Context, params: Params) -> float:
    """Return the proven step of `SelfPlayPG` in the sub-games: it does not depend on their centre."""
    return largest_proven_step(context._replace(beta=context.beta + params.pull))


METHOD = Method(
    name="NashProx",
    step=step,
    characterisation=characterisation,
    flow=policy_gradient,
    init=init,
    safe_step=safe_step,
    source=PROXIMAL_POINT_NLHF.at("Nash Prox"),
    helpers=(ascend, subgame),
    tuning={"proximal_step": (2.0, 10.0, 50.0), "averaging": (0.05, 0.2)},
    period=lambda params: params.refresh_every or 1,
    together=True,
    pairs=lambda params: Pairs(0.0, *params),
    log_linear="gradient",
    example={"step_size": 0.8, "proximal_step": 2.0, "averaging": 0.05},
    summary="policy gradient around a centre that follows (moving average or refresh)",
)


@register(METHOD)
def NashProx(
    step_size: StepSize | None = None,
    proximal_step: float = 2.0,
    averaging: float | None = None,
    refresh_every: int | None = None,
) -> Dynamics:
    """Nash Prox: self-play policy gradient around a centre that follows the policy.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: the proven step of `SelfPlayPG` in the sub-games.
    proximal_step : float
        1/τ > 0: the pull to the centre has weight τ.
    averaging : float, optional
        α in (0, 1]: the centre moves to ``(1 - α) θ̄ + α θ`` after every step. Default, unless `refresh_every` is given: 0.05.
    refresh_every : int, optional
        m ≥ 1: the centre jumps to θ after every m-th step instead.

    Raises
    ------
    InputError
        If both `averaging` and `refresh_every` are given, or a number is out of range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.NashProx(step_size=0.5, refresh_every=20)
    NashProx(step_size=0.5, proximal_step=2, refresh_every=20)
    """
    gamma = ensure_positive("proximal_step", proximal_step)
    if averaging is not None and refresh_every is not None:
        raise InputError("give averaging (moving average) or refresh_every (hard refresh) to NashProx, not both")
    follow: dict[str, Any]
    if refresh_every is not None:
        every = ensure_integer("refresh_every", refresh_every, 1)
        params, follow = Params(1 / gamma, 0.0, every), {"refresh_every": every}
    else:
        alpha = ensure_between("averaging", 0.05 if averaging is None else averaging, 0.0, 1.0)
        if alpha == 0:
            raise InputError("averaging = 0 must be above 0: the centre would never follow")
        params, follow = Params(1 / gamma, alpha, 0), {"averaging": alpha}
    given = given_parameters(proximal_step=gamma, **follow)
    return Dynamics(METHOD, params, ensure_step_size("step_size", step_size), given)
