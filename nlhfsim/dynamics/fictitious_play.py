"""Fictitious play: best responses to the average of all plays so far, on the bare preference game.

    x_{t+1} = BR(π_t),    π_{t+1} = π_t + (x_{t+1} - π_t)/(t + 2),    π_0 = x_0 the start

BR(π) is uniform over the maximizers of Aπ. The policy is the average π, of which the start is the first play, so it has full
support. With ``smoothed=True`` (stochastic, or logit, fictitious play) BR is the best response of the regularized game,
BR(π) ∝ ρ exp(Aπ/β), whose only fixed point is the equilibrium π*; otherwise β and ρ are not used.
Source: Brown, "Iterative solution of games by fictitious play" (1951); the average converges in every zero-sum game (Robinson,
1951). Smoothed: Fudenberg & Levine, "The Theory of Learning in Games" (1998), chapter 4.
Known failure: it can be very slow. It may need a number of rounds exponential in the size of a symmetric game before it plays any
action of an equilibrium (Brandt, Fischer & Harrenstein, 2010), and the rate 1/√t that Karlin conjectured is false (Daskalakis &
Pan, arXiv 1412.4840).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlhfsim.dynamics._averaging import largest, misaverage, mismatch, total
from nlhfsim.dynamics._conditions import gains, probabilities
from nlhfsim.dynamics._spec import Dynamics, Method, given_parameters, register
from nlhfsim.errors import Array, InputError, ensure_flag
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import log_softmax
from nlhfsim.sources import FICTITIOUS_PLAY

TIE = 4 * 2.0**-52
"""Actions whose gain is within n times this of the largest count as tied.

It is the rounding error of a gain, a sum of n products that add up to at most 1/2 in absolute value. Measured by the largest gain
itself, which goes to 0 as the average converges, the tolerance would fall below that error and rounding would split ties.
"""


class Params(NamedTuple):
    """``smoothed``: respond in the regularized game."""

    smoothed: bool


class State(NamedTuple):
    """log of the average, the sum of all plays, both of shape ``(..., n)``, and the number of steps done.

    The sum is kept and not the average: it never shrinks, so the log stays finite, and whole plays add up without rounding.
    """

    logits: Array
    plays: Array
    taken: int


def init(context: Context, params: Params, log_policy: Array) -> State:
    """Count the start as the first play.

    Raises
    ------
    InputError
        If the best response is to be smoothed in a game without regularization.
    """
    if params.smoothed and context.beta == 0:
        raise InputError("smoothed = True of FictitiousPlay needs a game with beta > 0, which does the smoothing; beta is 0")
    return State(log_policy, np.exp(log_policy), 0)


def split_evenly(gain: Array) -> Array:
    """Return the policy that is uniform over the maximizers of `gain`, ties decided within `TIE`, shape ``(..., n)``."""
    best = np.where(gain >= largest(gain) - TIE * gain.shape[-1], 1.0, 0.0)
    return best / total(best)  # type: ignore[no-any-return]


def step(state: State, context: Context, step_size: float, params: Params) -> State:
    """Respond to the average; then the response joins it."""
    taken = state.taken + 1
    gain = advantage(context.payoff, state.plays) / taken
    if params.smoothed:
        play = np.exp(log_softmax(context.log_reference + gain / context.beta))
    else:
        play = split_evenly(gain)
    plays = state.plays + play
    return State(np.log(plays) - np.log(taken + 1.0), plays, taken)


def characterisation(context: Context, params: Params, before: State, step_size: float, after: State) -> float:
    """Return the distance of the new play from a best response to π, and of π⁺ from the average with it.

    A best response loses nothing and treats the maximizers alike; a smoothed one is in proportion to ρ exp(Aπ/β).
    """
    old, play = probabilities(before.logits), after.plays - before.plays
    gain = gains(context, old)
    if params.smoothed:
        amiss = mismatch(np.exp(context.log_reference) * np.exp((gain - gain.max()) / context.beta), play)
    else:
        tied = gain.max() - gain < 1e-12
        amiss = float(max(gain.max() - gain @ play, np.ptp(play[tied])))
    average = misaverage(after.logits, [(before.taken + 1.0, old), (1.0, play)])
    return max(amiss, abs(float(play.sum()) - 1), average, float(abs(after.taken - before.taken - 1)))


METHOD = Method(
    name="FictitiousPlay",
    step=step,
    characterisation=characterisation,
    init=init,
    source=FICTITIOUS_PLAY.at("smoothed: Fudenberg & Levine, The Theory of Learning in Games (1998), chapter 4"),
    scheduled=None,
    unsampled=lambda params: "its best response is not linear in what it reads, so votes would bias it",
    fixed_point="none",
    iterate="average",
    smooth=False,
    autonomous=False,
    helpers=(largest, total, split_evenly),
    example={"smoothed": False},
    summary="best responses to the average of all plays; smoothed: those of the regularized game",
)


@register(METHOD)
def FictitiousPlay(smoothed: bool = False) -> Dynamics:
    """Fictitious play: the average of best responses to itself, ``π⁺ = π + (BR(π) - π)/(t + 2)``. It has no step size.

    Parameters
    ----------
    smoothed : bool
        False: best responses in the bare game, ties split evenly; the game's β and ρ are not used. True: the best responses
        ρ exp(Aπ/β) of the regularized game (β > 0), so that the average tends to its equilibrium.

    Raises
    ------
    InputError
        If `smoothed` is neither True nor False; when it is run smoothed on a game with β = 0.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.3, beta=0.1)
    >>> smoothed = nl.simulate(game, nl.dynamics.FictitiousPlay(smoothed=True), 10_000, start="random")
    >>> bool(abs(smoothed.final[0] - nl.solve(game).policy).max() < 1e-3)
    True
    """
    flag = ensure_flag("smoothed", smoothed)
    return Dynamics(METHOD, Params(flag), None, given_parameters(smoothed=flag))
