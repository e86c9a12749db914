"""Comparisons of single pairs: the advantage of one action over another, votes on it, and estimates of Aπ from batches of them.

Everything here is written so that it runs as plain Python and compiles as it stands.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import LowRankPayoff, PairwisePayoff, Payoff

UNIFORM, REFERENCE, POLICY = 0, 1, 2
"""Where the actions whose gain is estimated are drawn from; see `SampledPayoff.candidates`."""


class SampledPayoff(NamedTuple):
    """A payoff that answers with votes: its product with a policy is an unbiased estimate of Aπ from a fresh batch of pairs.

    For each pair an action y is drawn from the candidates' distribution q and an opponent y' from π; the vote o between them adds
    ``(o - 1/2)/q(y)`` to the estimate at y, and the batch is averaged.

    Attributes
    ----------
    payoff : Payoff
        The payoff form that the votes come from.
    generator : numpy.random.Generator, or its words in compiled code
        Where all randomness comes from; it advances. See `uniform`.
    batch_size : int
        Pairs a batch.
    votes : bool
        Whether o is a Bernoulli vote; else the probability P[y, y'] itself.
    candidates : int
        q: `UNIFORM`, `REFERENCE` or `POLICY`, the policy that is asked about.
    reference : numpy.ndarray
        ρ and its partial sums, shape ``(2, n)``; read for `REFERENCE` only.
    """

    payoff: Payoff
    generator: Any
    batch_size: int
    votes: bool
    candidates: int
    reference: Array

    def product(self, policy: Array) -> Array:
        """Return the estimate of Aπ for one policy in probability space, shape ``(n,)``."""
        out = np.empty(policy.shape)
        estimate_to(out, self, policy)
        return out


def pair_advantage(payoff: Any, i: int, j: int) -> float:
    """Return ``A[i, j] = P[i, j] - 1/2`` of one pair."""
    if isinstance(payoff, LowRankPayoff):
        left, right = payoff
        return float(left[i] @ right[j] - right[i] @ left[j])
    if isinstance(payoff, PairwisePayoff):
        return float(np.asarray(payoff.function(np.array([i]), np.array([j])))[0]) - 0.5
    return float(payoff.matrix[i, j])


class StackedPayoff(NamedTuple):
    """The matrices of advantages of all contexts, shape ``(contexts, n, n)``."""

    matrices: Array


def pair_advantage_in(payoff: Any, context: int, i: int, j: int) -> float:
    """Return ``A_x[i, j]`` of one pair in one context; the payoff is a `StackedPayoff`, a tuple, or that of the only context."""
    if isinstance(payoff, StackedPayoff):
        return float(payoff.matrices[context, i, j])
    return pair_advantage(payoff[context] if type(payoff) is tuple else payoff, i, j)


def uniform(generator: Any) -> float:
    """Return the next number in [0, 1) of a generator.

    Its compiled counterpart takes the four words of an SFC64 generator's state, so that a draw is a few instructions and no call,
    and gives the same numbers.
    """
    return float(generator.random())


def vote(payoff: Any, generator: Any, i: int, j: int, votes: bool) -> float:
    """Return ``o - 1/2`` for a vote o ~ Bernoulli(P[i, j]) between two actions, or its expectation."""
    return cast(pair_advantage(payoff, i, j), generator, votes)


def cast(advantage: float, generator: Any, votes: bool) -> float:
    """Return ``o - 1/2`` for a vote o ~ Bernoulli(1/2 + advantage), or its expectation."""
    if not votes:
        return advantage
    # NaN, from a preference function that failed, must not become a vote.
    if advantage != advantage:
        return advantage
    return 0.5 if uniform(generator) < 0.5 + advantage else -0.5


def draw(partial_sums: Array, share: float) -> int:
    """Return the first action whose partial sum is above ``share`` times the total, shape of the sums ``(n,)``."""
    wanted = share * partial_sums[-1]
    low, high = 0, len(partial_sums) - 1
    while low < high:
        middle = (low + high) // 2
        if partial_sums[middle] > wanted:
            high = middle
        else:
            low = middle + 1
    # Rounding may have brought the wanted sum up to the total: then the last action that has any probability.
    while low > 0 and partial_sums[low] == partial_sums[low - 1]:
        low -= 1
    return low


def with_sums(policies: Array) -> Array:
    """Return policies ``(..., n)`` in probability space and their partial sums, shape ``(2, ..., n)``."""
    return np.stack([policies, np.cumsum(policies, axis=-1)])


def draw_candidate(candidates: int, reference: Array, policy: Array, sums: Array, share: float) -> tuple[int, float]:
    """Return an action whose gain is estimated and its importance weight 1/q; `sums` are the partial sums of the policy."""
    n = len(policy)
    if candidates == UNIFORM:
        return min(int(share * n), n - 1), float(n)
    if candidates == REFERENCE:
        i = draw(reference[1], share)
        return i, 1.0 / reference[0, i]
    i = draw(sums, share)
    return i, sums[n - 1] / policy[i]


def estimate_to(out: Array, payoff: SampledPayoff, policy: Array) -> None:
    """Write the estimate of Aπ from a fresh batch to `out`, both of shape ``(n,)``."""
    n = len(policy)
    sums = np.empty(n)
    total = 0.0
    for k in range(n):
        out[k] = 0.0
        total += policy[k]
        sums[k] = total
    random = payoff.generator
    for _ in range(payoff.batch_size):
        i, weight = draw_candidate(payoff.candidates, payoff.reference, policy, sums, uniform(random))
        j = draw(sums, uniform(random))
        out[i] += vote(payoff.payoff, random, i, j, payoff.votes) * (weight / payoff.batch_size)
