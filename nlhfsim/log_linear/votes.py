"""Learning from votes with a θ that all contexts share: the Online IPO estimate on features, and estimates of all A_xπ_x.

A pair is drawn in a context x ~ ν: y, y' ~ π_x. It moves θ along

    g = ½ ((o - ½) - β h - τ k) (φ_y - φ_y'),    h = (φ_y - φ_y')ᵀθ,    k = (φ_y - φ_y')ᵀ(θ - θ̄)

whose mean is Σ_x ν_x φ_xᵀJ(π_x)(A_xπ_x - βφ_xθ - τφ_x(θ - θ̄)). The log-probabilities of a context are read off θ each time, so a
vote costs as much as a context has features, O(nd). See `nlhfsim.pairs` for the tabular case.

Everything here is written so that it runs as plain Python and compiles as it stands; features are rows of a sparse matrix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context
from nlhfsim.games.votes import cast, draw, draw_candidate, pair_advantage_in, uniform
from nlhfsim.pairs import Pairs, exp_of


class SharedVotes(NamedTuple):
    """What stands for the payoffs of all contexts when a run sees votes.

    Attributes
    ----------
    payoff : payoff form
        That of the only context, or a `StackedPayoff` or tuple of all.
    data, indices, indptr : numpy.ndarray
        φ as a sparse matrix ``(contexts * n, d)`` by rows.
    weights : numpy.ndarray
        ν and its partial sums, shape ``(2, contexts)``.
    generator, batch_size, votes, candidates
        As in `nlhfsim.games.votes.SampledPayoff`.
    reference : numpy.ndarray
        ρ of all contexts and its partial sums, shape ``(2, contexts, n)``; read for `REFERENCE` only.
    """

    payoff: Any
    data: Array
    indices: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    weights: Array
    generator: Any
    batch_size: int
    votes: bool
    candidates: int
    reference: Array


class SharedPairState(NamedTuple):
    """θ and what is behind it, in place.

    Attributes
    ----------
    logits : numpy.ndarray
        log ρ + φθ, shape ``(contexts, n)``; what is recorded is in `shown`.
    theta, centre, history : numpy.ndarray
        θ, θ̄ and the sum of θ over time, shape ``(d,)``; empty where they are not needed.
    shown : numpy.ndarray
        The logits that are recorded, of θ or of its average.
    taken : int
        Steps done.
    """

    logits: Array
    theta: Array
    centre: Array
    history: Array
    shown: Array
    taken: int


def start_shared_pairs(logits: Array, theta: Array, pairs: Pairs, average: bool) -> SharedPairState:
    """Return the initial state at a θ, shape ``(d,)``, with its logits; the centre is there too."""
    centre = np.array(theta) if pairs.pull else np.zeros(0)
    history = np.array(theta) if average else np.zeros(0)
    return SharedPairState(np.array(logits), np.array(theta), centre, history, np.array(logits), 0)


def score(seen: Any, row: int, theta: Array) -> float:
    """Return φᵀθ of one row."""
    total = 0.0
    for k in range(seen.indptr[row], seen.indptr[row + 1]):
        total += seen.data[k] * theta[seen.indices[k]]
    return total


def add_row(seen: Any, row: int, amount: float, out: Array) -> None:
    """Add a multiple of one row to `out`, shape ``(d,)``."""
    for k in range(seen.indptr[row], seen.indptr[row + 1]):
        out[seen.indices[k]] += amount * seen.data[k]


def draw_context(seen: Any) -> int:
    """Return a context x ~ ν; the only one takes no random number."""
    return 0 if seen.weights.shape[1] == 1 else draw(seen.weights[1], uniform(seen.generator))


def logits_to(out: Array, seen: Any, log_reference: Array, theta: Array, scale: float) -> None:
    """Write ``log ρ + scale φθ`` to `out`, shape ``(contexts, n)``."""
    contexts, n = out.shape
    for x in range(contexts):
        for y in range(n):
            out[x, y] = log_reference[x, y] + scale * score(seen, x * n + y, theta)


def sums_to(out: Array, seen: Any, log_reference: Array, x: int, theta: Array, mixing: float) -> None:
    """Write the partial sums of π̃ ∝ π^(1-m) ρ^m of context x, up to a factor, to `out`, shape ``(n,)``."""
    n = len(out)
    largest = -np.inf
    for y in range(n):
        out[y] = log_reference[x, y] + (1.0 - mixing) * score(seen, x * n + y, theta)
        largest = max(largest, out[y])
    total = 0.0
    for y in range(n):
        total += exp_of(max(out[y] - largest, -700.0))
        out[y] = total


def show(state: SharedPairState, seen: Any, log_reference: Array, pairs: Pairs, taken: int) -> None:
    """Write the logits of θ, and of what is recorded after `taken` steps, to the state."""
    logits_to(state.logits, seen, log_reference, state.theta, 1.0)
    if state.history.size > 0:
        logits_to(state.shown, seen, log_reference, state.history, 1.0 / (taken // pairs.inner + 1))
    else:
        logits_to(state.shown, seen, log_reference, state.theta, 1.0)


def run_shared_pairs(
    state: SharedPairState, context: Context, step_sizes: Array, pairs: Pairs, marks: npt.NDArray[np.int64], records: Array
) -> tuple[Any, ...]:
    """Do one step for each step size; see `nlhfsim.loop_cache.LOOP` for arguments and result.

    ``context.payoff`` is a `SharedVotes`; a step takes its batch of pairs. Logits of all contexts are recorded.
    """
    seen, log_reference, theta = context.payoff, context.log_reference, state.theta
    n, d, batch = log_reference.shape[1], len(theta), seen.batch_size
    half, taken, filled = 0.5 / batch, state.taken, 0
    sums, gradient = np.zeros(n), np.zeros(d)
    for t in range(len(step_sizes)):
        for k in range(d):
            gradient[k] = 0.0
        finite = 0.0
        for _ in range(batch):
            x = draw_context(seen)
            sums_to(sums, seen, log_reference, x, theta, pairs.mixing)
            finite += sums[n - 1] * 0.0
            i, j = draw(sums, uniform(seen.generator)), draw(sums, uniform(seen.generator))
            slope = cast(pair_advantage_in(seen.payoff, x, i, j), seen.generator, seen.votes)
            i, j = x * n + i, x * n + j
            difference = score(seen, i, theta) - score(seen, j, theta)
            slope -= context.beta * difference
            if pairs.pull > 0.0:
                slope -= pairs.pull * (difference - (score(seen, i, state.centre) - score(seen, j, state.centre)))
            if i != j:
                add_row(seen, i, half * slope, gradient)
                add_row(seen, j, -half * slope, gradient)
        taken += 1
        for k in range(d):
            theta[k] += step_sizes[t] * gradient[k]
            finite += theta[k] * 0.0
        follow(state, pairs, taken)
        if filled < len(marks) and marks[filled] == t + 1:
            show(state, seen, log_reference, pairs, taken)
            for x in range(len(log_reference)):
                for y in range(n):
                    records[filled, x, y] = state.shown[x, y]
                    finite += state.logits[x, y] * 0.0
            filled += 1
        # φθ may overflow where θ does not: that is seen where it is recorded or drawn from.
        if finite != 0.0:
            # Neither drawn from again nor recorded as if it were a policy.
            state.logits.fill(np.nan)
            state.shown.fill(np.nan)
            return state.logits, theta, state.centre, state.history, state.shown, taken, t + 1
    show(state, seen, log_reference, pairs, taken)
    return state.logits, theta, state.centre, state.history, state.shown, taken, len(step_sizes)


def follow(state: SharedPairState, pairs: Pairs, taken: int) -> None:
    """Let the centre follow θ after step `taken`, and count θ into its average after whole steps of the method."""
    for k in range(len(state.centre)):
        if pairs.refresh_every == 0:
            state.centre[k] += pairs.averaging * (state.theta[k] - state.centre[k])
        elif taken % pairs.refresh_every == 0:
            state.centre[k] = state.theta[k]
    if taken % pairs.inner == 0:
        for k in range(len(state.history)):
            state.history[k] += state.theta[k]


def estimate_all_to(out: Array, seen: Any, policy: Array) -> None:
    """Write unbiased estimates of A_xπ_x of all contexts from one batch to `out`, all of shape ``(contexts, n)``.

    Each pair is one of a context x ~ ν; with importance weights 1/ν_x beside those of `SampledPayoff`.
    """
    contexts, n = policy.shape
    sums = np.zeros((contexts, n))
    for x in range(contexts):
        total = 0.0
        for y in range(n):
            out[x, y] = 0.0
            total += policy[x, y]
            sums[x, y] = total
    for _ in range(seen.batch_size):
        x = draw_context(seen)
        i, weight = draw_candidate(seen.candidates, seen.reference[:, x], policy[x], sums[x], uniform(seen.generator))
        j = draw(sums[x], uniform(seen.generator))
        o = cast(pair_advantage_in(seen.payoff, x, i, j), seen.generator, seen.votes)
        out[x, i] += o * (weight / (seen.batch_size * seen.weights[0, x]))


HELPERS = (score, add_row, draw_context, logits_to, sums_to, show, follow)
