"""Magnetic mirror descent whose magnet is refreshed: to the unregularized equilibrium through a sequence of regularized games.

    log π⁺ ∝ (log π + γα log σ + γAπ) / (1 + γα),    σ ← π after every m-th step, or once the inner game (α, σ) is solved

The game's own β and ρ are not used: its target is the von Neumann winner (β = 0). With refreshes every m steps it is magnetic
preference optimization (MPO); with an exact inner solve COMAL, which is the proximal point method at β = 0 with step 1/α;
NashPG is the same scheme with policy gradients inside.
Source: Wang et al., arXiv 2410.16714 (MPO); Liu et al., arXiv 2410.23223 (COMAL).
Known failure: the inner game obeys the limit of `MagneticMirrorDescent`, γ ≤ 4α; refreshed too early, the sequence may cycle.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nlhfsim.dynamics._conditions import gains, probabilities, stationarity
from nlhfsim.dynamics._spec import Dynamics, Method, given_parameters, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.errors import Array, ensure_integer, ensure_positive
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import exp, log_softmax, spread
from nlhfsim.sources import MAGNETIC_PREFERENCE_OPTIMIZATION

SOLVED = 1e-9
"""Log-ratio residual at which the inner game counts as solved."""


class Params(NamedTuple):
    """``magnet`` = α; ``refresh_every`` = m, 0 to refresh when the inner game is solved."""

    magnet: float
    refresh_every: int


class State(NamedTuple):
    """θ and log σ, both of shape ``(n,)``, and the number of steps done."""

    logits: Array
    log_magnet: Array
    taken: int


def init(context: Context, params: Params, log_policy: Array) -> State:
    """Start with the magnet at the policy."""
    return State(log_policy, log_policy, 0)


def widest(values: Array) -> float:
    """Return the span of values ``(n,)``, of those of several contexts, ``(contexts, n)``, the largest."""
    if values.ndim == 1:
        return values.max() - values.min()  # type: ignore[no-any-return]
    return float(spread(values).max())


def step(state: State, context: Context, step_size: float, params: Params) -> State:
    """One magnetic step; then the magnet is refreshed if it is time."""
    gain = advantage(context.payoff, exp(state.logits))
    pull = step_size * params.magnet
    logits = log_softmax((state.logits + pull * state.log_magnet + step_size * gain) / (1 + pull))
    taken = state.taken + 1
    if params.refresh_every > 0:
        refresh = taken % params.refresh_every == 0
    else:
        # log π - log BR(π) in the inner game, up to a constant, from the payoff read at the old policy.
        defect = params.magnet * (state.logits - state.log_magnet) - gain
        refresh = widest(defect) <= SOLVED * params.magnet
    return State(logits, logits if refresh else state.log_magnet, taken)


def characterisation(context: Context, params: Params, before: State, step_size: float, after: State) -> float:
    """Return the distance of π⁺ from the maximizer of ``⟨Aπ, q⟩ - α KL(q‖σ) - KL(q‖π)/γ``, and of σ⁺ from its rule."""
    old, magnet = probabilities(before.logits), probabilities(before.log_magnet)
    new = probabilities(after.logits)
    distance = stationarity(gains(context, old), new, (params.magnet, magnet), (1 / step_size, old))
    if params.refresh_every > 0:
        refresh = (before.taken + 1) % params.refresh_every == 0
    else:
        refresh = stationarity(gains(context, old), old, (params.magnet, magnet)) <= SOLVED
    target = after.logits if refresh else before.log_magnet
    return max(distance, float(np.abs(after.log_magnet - target).max()))


def safe_step(context: Context, params: Params) -> float:
    """Return 4α, the largest proven step of the inner game."""
    return 4 * params.magnet


def unsampled(params: Params) -> str:
    """Say why votes do not do for refreshes once the inner game is solved."""
    return "" if params.refresh_every else "whether its inner game is solved cannot be seen from votes; give refresh_every"


METHOD = Method(
    name="MagnetRefresh",
    step=step,
    characterisation=characterisation,
    init=init,
    unsampled=unsampled,
    safe_step=safe_step,
    source=MAGNETIC_PREFERENCE_OPTIMIZATION.at("algorithm 1; COMAL in Liu et al., arXiv 2410.23223"),
    fixed_point="none",
    smooth=False,
    autonomous=False,
    log_linear="mirror",
    helpers=(widest,),
    tuning={"magnet": (0.03, 0.1, 0.3), "refresh_every": (10, 100)},
    example={"step_size": 0.4, "magnet": 0.1, "refresh_every": 20},
    summary="magnetic mirror descent with a refreshed magnet, to the unregularized equilibrium (MPO, COMAL)",
)


@register(METHOD)
def MagnetRefresh(step_size: StepSize | None = None, magnet: float = 0.1, refresh_every: int | None = None) -> Dynamics:
    """Magnetic mirror descent with a refreshed magnet (MPO; with an exact inner solve COMAL). The game's β and ρ are not used.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: 4α, the largest step proven for the inner game.
    magnet : float
        α > 0, the strength of the pull to the magnet.
    refresh_every : int, optional
        Refresh after every m-th step. Default: once the inner game is solved, to a log-ratio residual of 1e-9.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.MagnetRefresh(step_size=0.4, magnet=0.1, refresh_every=50)
    MagnetRefresh(step_size=0.4, magnet=0.1, refresh_every=50)
    """
    alpha = ensure_positive("magnet", magnet)
    given: dict[str, Any] = {"magnet": alpha}
    every = 0
    if refresh_every is not None:
        every = given["refresh_every"] = ensure_integer("refresh_every", refresh_every, 1)
    return Dynamics(METHOD, Params(alpha, every), ensure_step_size("step_size", step_size), given_parameters(**given))
