"""Regret matching: play each action in proportion to how much one regrets not having played it always.

    r_{t+1} = r_t + Ax_t - (x_tᵀAx_t) 1,    x_{t+1} ∝ max(r_{t+1}, 0),    π_{t+1} = (x_0 + … + x_{t+1})/(t + 2)

with r_0 = 0 and x_0 = π_0 the start; x_{t+1} is uniform if no regret is positive. The policy is the average π. The game's own β
and ρ are not used: its target is the von Neumann winner.
Source: Hart & Mas-Colell, Econometrica 68 (2000), regret matching, here on external regrets. As xᵀAx = 0, E_0 of the average of T
plays is max r_T/T, and ‖max(r_T, 0)‖² grows by at most Σ_y (Ax)_y² ≤ n/4 a step (Blackwell), so E_0 ≤ √n/(2√T).
Known failure: the plays themselves do not converge, only their average does, and no faster than 1/√T is proven.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlhfsim.dynamics._averaging import matched, misaverage, mismatch, total
from nlhfsim.dynamics._conditions import gains, probabilities
from nlhfsim.dynamics._spec import Dynamics, Method, NoParams, register
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import expect
from nlhfsim.sources import REGRET_MATCHING


class State(NamedTuple):
    """log of the average, the weighted sum of all plays, the last play, the cumulative regrets, each ``(..., n)``; steps done."""

    logits: Array
    plays: Array
    play: Array
    regrets: Array
    taken: int


def init(context: Context, params: NoParams, log_policy: Array) -> State:
    """Play the start first, without regrets."""
    return State(log_policy, np.exp(log_policy), np.exp(log_policy), np.zeros_like(log_policy), 0)


def step(state: State, context: Context, step_size: float, params: NoParams) -> State:
    """Regret the last play; match the regrets; average."""
    gain = advantage(context.payoff, state.play)
    regrets = state.regrets + (gain - expect(state.play, gain))
    play = matched(regrets)
    plays = state.plays + play
    taken = state.taken + 1
    return State(np.log(plays) - np.log(taken + 1.0), plays, play, regrets, taken)


def instant_regrets(context: Context, play: Array) -> Array:
    """Return what each action would have won against `play` more than `play` itself won, from the definition."""
    won = gains(context, play)
    return np.array([won[y] - sum(play[z] * won[z] for z in range(len(play))) for y in range(len(play))])


def characterisation(context: Context, params: NoParams, before: State, step_size: float, after: State) -> float:
    """Return the distance of r⁺ - r from the regrets of the last play, of x⁺ from matching r⁺, and of π⁺ from the average."""
    regretted = np.abs(after.regrets - before.regrets - instant_regrets(context, before.play)).max()
    average = misaverage(after.logits, [(before.taken + 1.0, probabilities(before.logits)), (1.0, after.play)])
    counted = abs(after.taken - before.taken - 1)
    return float(max(regretted, mismatch(after.regrets, after.play), average, counted))


METHOD = Method(
    name="RegretMatching",
    step=step,
    characterisation=characterisation,
    init=init,
    source=REGRET_MATCHING.at("regret matching, on external regrets"),
    scheduled=None,
    fixed_point="none",
    iterate="average",
    full_support=False,
    smooth=False,
    autonomous=False,
    helpers=(total, matched),
    example={},
    summary="plays in proportion to positive regrets, averaged",
)


@register(METHOD)
def RegretMatching() -> Dynamics:
    """Regret matching: plays in proportion to the positive cumulative regrets; the policy is their average.

    It has no parameters, and the game's β and ρ are not used: E_0 of the average of T plays is at most √n/(2√T).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.3, beta=0.0)
    >>> trajectory = nl.simulate(game, nl.dynamics.RegretMatching(), 9999, start=[0.8, 0.1, 0.1])
    >>> bool(trajectory.gap0[0, -1] <= 3**0.5 / (2 * 10_000**0.5))
    True
    """
    return Dynamics(METHOD)
