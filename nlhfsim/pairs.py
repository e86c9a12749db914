"""Learning from pairs: the Online IPO estimate of the policy gradient, O(log n) a vote.

A pair y, y' ~ π gets a vote o ~ Bernoulli(P[y, y']), and θ moves along

    g = ½ ((o - ½) - β h - τ k) (e_y - e_y'),    h = (θ - log ρ)_y - (θ - log ρ)_y',    k = (θ - θ̄)_y - (θ - θ̄)_y'

whose mean is J(π)(Aπ - β(θ - log ρ) - τ(θ - θ̄)): -β/4 times the gradient of the Online IPO loss (h - (o - ½)/β)² of the pair,
its sampling held fixed (Calandriello et al., arXiv 2403.08635). Only two logits move and normalizers cancel, so a tree of partial
sums draws the pair and takes the update in O(log n). What moves in every coordinate moves lazily: the lag θ - θ̄ of a coordinate
that was not touched for k steps is (1 - α)^k of what it was, and its sum over time k times its θ.

Nothing drifts in long runs: the tree is a function of θ (see `sum_tree`), and θ itself is a sum of its steps, rounded once each.
Weights are exp(θ - offset); the offset moves to the largest θ, and the tree is built anew, when a weight leaves e^±500.

Everything here is written so that it runs as plain Python and compiles as it stands.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context
from nlhfsim.games.votes import uniform, vote
from nlhfsim.sum_tree import WIDTH, add_up, add_up_above, descend, empty_tree, total

Levels = npt.NDArray[np.int64]
LARGEST_EXPONENT = 500.0
SMALLEST_TOTAL = math.exp(-LARGEST_EXPONENT)


class Pairs(NamedTuple):
    """Where a method's pairs come from, and what its step pulls to.

    Attributes
    ----------
    mixing : float
        m: pairs come from π̃ ∝ π^(1-m) ρ^m.
    pull : float
        τ, the weight of the proximal term; 0: there is none.
    averaging : float
        α: the centre moves to ``(1 - α) θ̄ + α θ`` after every step; read if `refresh_every` is 0.
    refresh_every : int
        m: the centre jumps to θ after every m-th step; 0: it moves by `averaging`.
    inner : int
        How many steps here are one step of the method: averages are over θ after whole steps of the method.
    """

    mixing: float = 0.0
    pull: float = 0.0
    averaging: float = 0.0
    refresh_every: int = 0
    inner: int = 1


class PairState(NamedTuple):
    """θ and what is behind it, arrays of shape ``(n,)`` (empty where they are not needed), in place.

    Attributes
    ----------
    logits : numpy.ndarray
        θ, π = softmax(θ).
    lag : numpy.ndarray
        θ - θ̄ when the coordinate last moved, before the centre followed; empty without a proximal term.
    history : numpy.ndarray
        The sum of the coordinate's θ over all times before `touched` that are averaged; empty if no average is wanted.
    touched : numpy.ndarray
        The number of steps done when the coordinate had last moved.
    offset : float
        The weights in the tree are exp(θ - offset).
    taken : int
        Steps done.
    """

    logits: Array
    lag: Array
    history: Array
    touched: npt.NDArray[np.int64]
    offset: float
    taken: int


def start_pairs(log_policy: Array, pairs: Pairs, average: bool) -> PairState:
    """Return the initial state at a log-policy, shape ``(n,)``; the centre is there too."""
    n = len(log_policy)
    lag, history = np.zeros(n if pairs.pull else 0), np.zeros(n if average else 0)
    touched = np.zeros(n if pairs.pull or average else 0, dtype=np.int64)
    return PairState(np.array(log_policy), lag, history, touched, 0.0, 0)


def exp_of(exponent: float) -> float:
    """Return exp of a number up to 700; its compiled counterpart vanishes below -708."""
    return math.exp(exponent)


def exponent_of(logits: Array, log_reference: Array, mixing: float, i: int) -> float:
    """Return the logit of action i in π̃ ∝ π^(1-m) ρ^m."""
    return (1.0 - mixing) * logits[i] + mixing * log_reference[i]  # type: ignore[no-any-return]


def fill_tree(sums: Array, starts: Levels, logits: Array, log_reference: Array, mixing: float, offset: float) -> float:
    """Fill the tree and return the offset, which moves to the largest θ̃ where the weights would leave their range."""
    n = len(logits)
    largest = exponent_of(logits, log_reference, mixing, 0)
    for i in range(1, n):
        largest = max(largest, exponent_of(logits, log_reference, mixing, i))
    if largest - offset > LARGEST_EXPONENT:
        offset = largest
    fill_with(sums, starts, logits, log_reference, mixing, offset)
    if total(sums, starts) < SMALLEST_TOTAL:
        offset = largest
        fill_with(sums, starts, logits, log_reference, mixing, offset)
    return offset


def fill_with(sums: Array, starts: Levels, logits: Array, log_reference: Array, mixing: float, offset: float) -> None:
    """Fill the tree with exp(θ̃ - offset)."""
    for i in range(len(logits)):
        sums[i] = exp_of(exponent_of(logits, log_reference, mixing, i) - offset)
    add_up(sums, starts)


def draw_pair(sums: Array, starts: Levels, generator: Any, n: int) -> tuple[int, int]:
    """Return two actions drawn in proportion to their weights; both go down the tree at once, as neither waits for the other."""
    top, last = len(starts) - 2, len(sums) - WIDTH
    whole = total(sums, starts)
    i, j = n, n
    # Rounding of the partial sums may lead to a weight that is 0 or not there, once in some 10^16 draws.
    while i >= n or j >= n or sums[i] == 0.0 or sums[j] == 0.0:
        wanted_i, wanted_j = uniform(generator) * whole, uniform(generator) * whole
        i, j = 0, 0
        for level in range(top, -1, -1):
            child_i, wanted_i = descend(sums, min(starts[level] + WIDTH * i, last), wanted_i)
            child_j, wanted_j = descend(sums, min(starts[level] + WIDTH * j, last), wanted_j)
            i, j = WIDTH * i + child_i, WIDTH * j + child_j
    return i, j


def bring_up(state: PairState, pairs: Pairs, log_kept: float, i: int, taken: int) -> None:
    """Bring the lag of coordinate i to what it is after `taken` steps, and its sum to include that time."""
    if state.touched.size == 0 or state.touched[i] > taken:
        return
    if state.history.size > 0:
        state.history[i] += state.logits[i] * averaged_times(state.touched[i], taken, pairs.inner)
    if state.lag.size > 0:
        state.lag[i] = lag_now(state.lag[i], state.touched[i], taken, pairs.refresh_every, log_kept)
    state.touched[i] = taken + 1


def averaged_times(touched: int, taken: int, inner: int) -> int:
    """Return how many of the times from `touched` to `taken` are multiples of `inner`."""
    if inner == 1:
        return taken + 1 - touched
    return taken // inner - (touched - 1) // inner


def lag_now(lag: float, touched: int, taken: int, refresh_every: int, log_kept: float) -> float:
    """Return θ - θ̄ after `taken` steps of a coordinate that moved last in step `touched`; `log_kept` is log(1 - α)."""
    if refresh_every > 0:
        return lag if taken // refresh_every == (touched - 1) // refresh_every else 0.0
    return lag * exp_of(max((taken - touched + 1) * log_kept, -LARGEST_EXPONENT))


def record_to(out: Array, state: PairState, taken: int, inner: int) -> None:
    """Write what is recorded after `taken` steps to `out`, shape ``(n,)``: θ, or its mean so far if that is kept."""
    for i in range(len(out)):
        out[i] = state.logits[i]
        if state.history.size > 0:
            out[i] = (state.history[i] + out[i] * averaged_times(state.touched[i], taken, inner)) / (taken // inner + 1)


def run_pairs(
    state: PairState, context: Context, step_sizes: Array, pairs: Pairs, marks: npt.NDArray[np.int64], records: Array
) -> tuple[Any, ...]:
    """Do one step for each step size; see `nlhfsim.loop_cache.LOOP` for arguments and result.

    ``context.payoff`` is a `SampledPayoff`; a step takes its batch of pairs. θ, or its average if one is wanted, is recorded.
    """
    logits, log_reference, beta = state.logits, context.log_reference, context.beta
    payoff, generator, batch, votes, _, _ = context.payoff
    n, mixing, lagging = len(logits), pairs.mixing, state.lag.size > 0
    sums, starts = empty_tree(n)
    offset = fill_tree(sums, starts, logits, log_reference, mixing, state.offset)
    first, second, moves = np.zeros(batch, dtype=np.int64), np.zeros(batch, dtype=np.int64), np.zeros(batch)
    log_kept = math.log1p(-pairs.averaging) if pairs.averaging < 1.0 else -LARGEST_EXPONENT
    half, taken, filled = 0.5 / batch, state.taken, 0
    for t in range(len(step_sizes)):
        for b in range(batch):
            i, j = draw_pair(sums, starts, generator, n)
            bring_up(state, pairs, log_kept, i, taken)
            bring_up(state, pairs, log_kept, j, taken)
            slope = vote(payoff, generator, i, j, votes)
            slope -= beta * ((logits[i] - log_reference[i]) - (logits[j] - log_reference[j]))
            if lagging:
                slope -= pairs.pull * (state.lag[i] - state.lag[j])
            first[b], second[b], moves[b] = i, j, step_sizes[t] * (half * slope)
        taken += 1
        largest = 0.0
        for b in range(batch):
            i, j, move = first[b], second[b], moves[b]
            # An action against itself moves nothing; there and back again would cost digits.
            if i != j:
                logits[i] += move
                logits[j] -= move
                if lagging:
                    state.lag[i] += move
                    state.lag[j] -= move
            if not (abs(move) < np.inf and abs(logits[i]) < np.inf and abs(logits[j]) < np.inf):
                # Neither drawn again nor recorded as if it were a policy.
                logits[i] = np.nan
                return logits, state.lag, state.history, state.touched, offset, taken, t + 1
        for b in range(batch):
            i, j = first[b], second[b]
            up = exponent_of(logits, log_reference, mixing, i) - offset
            down = exponent_of(logits, log_reference, mixing, j) - offset
            sums[i], sums[j] = exp_of(min(up, LARGEST_EXPONENT)), exp_of(min(down, LARGEST_EXPONENT))
            add_up_above(sums, starts, i, j)
            largest = max(largest, max(up, down))
        if largest > LARGEST_EXPONENT or total(sums, starts) < SMALLEST_TOTAL:
            offset = fill_tree(sums, starts, logits, log_reference, mixing, offset)
        if filled < len(marks) and marks[filled] == t + 1:
            record_to(records[filled], state, taken, pairs.inner)
            filled += 1
    return logits, state.lag, state.history, state.touched, offset, taken, len(step_sizes)
