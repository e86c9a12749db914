"""Whether sampled steps are right: their mean against the exact gradient, and their distance from the equilibrium after a run."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

import nlhfsim as nl
from benchmarks._measure import DisagreementError, Floats
from benchmarks.first_passages import normalized
from benchmarks.pair_rivals import PairProblem, PairRun

FROZEN = 1e-8
"""A step size so small that the policy stays where it is: the logits then move by γ times a sum of independent estimates."""
LARGEST_Z = 5.0
LARGEST_DISTANCE_Z = 4.0
_CERTAIN = 10.0
_OFTEN = 100
_PAIRS = 400_000
_OPPONENTS = 64


class Moments(NamedTuple):
    """What one estimate g of the gradient must be like along several directions.

    Attributes
    ----------
    directions : numpy.ndarray
        Shape ``(k, n)``.
    mean, deviation : numpy.ndarray
        Of ``⟨direction, g⟩``, shape ``(k,)``.
    pull : numpy.ndarray
        The part of the mean that comes from -βh, which a slip of its sign would turn round.
    uncertainty : numpy.ndarray
        Standard error of the mean itself, 0 where it is exact.
    """

    directions: Floats
    mean: Floats
    deviation: Floats
    pull: Floats
    uncertainty: Floats

    def samples(self) -> int:
        """Return how many estimates show a factor of two and a wrong sign of βh at ten standard deviations."""
        errors = (np.abs(self.mean), np.abs(2 * self.pull))
        signals = [float((error / self.deviation).max()) for error in errors]
        return math.ceil((_CERTAIN / min(signals)) ** 2)


def gradient_of(policy: Floats, slope: Floats) -> Floats:
    """Return J(π) times a vector."""
    return np.asarray(policy * (slope - policy @ slope))


def exact_moments(asked: PairProblem, samples: int) -> Moments:
    """Return the moments along the gradient, along its part from -βh, and along axes that `samples` estimates visit often."""
    policy, beta, advantages = np.exp(asked.start), asked.game.beta, asked.preferences - 0.5
    lean = asked.start - asked.log_reference
    pull = gradient_of(policy, -beta * lean)
    mean = gradient_of(policy, advantages @ policy) + pull
    axes = np.eye(len(policy))[2 * samples * policy >= _OFTEN]
    directions = np.vstack([mean, pull, axes])
    h = lean[:, None] - lean
    squares = np.outer(policy, policy) * (0.25 - 2 * beta * h * advantages + (beta * h) ** 2) / 4
    # The mean of (d_y - d_y')² g² for each direction d, as the squares are symmetric in y and y'.
    second = 2 * (np.square(directions) @ squares.sum(axis=1) - np.einsum("ki,ki->k", directions @ squares, directions))
    along = directions @ mean
    return Moments(directions, along, np.sqrt(second - along**2), directions @ pull, np.zeros(len(along)))


def drawn_moments(asked: PairProblem, seed: int = 0) -> Moments:
    """Return the moments along two directions, from many pairs drawn here: for games that are too large to write out."""
    rng, beta = np.random.default_rng(seed), asked.game.beta
    policy, lean = np.exp(asked.start), asked.start - asked.log_reference
    prefers = _pairs_of(asked)
    everyone = np.arange(len(policy))
    opponents = rng.choice(len(policy), _OPPONENTS, p=policy)
    gain = np.mean([prefers(everyone, np.full_like(everyone, k)) - 0.5 for k in opponents], axis=0)
    pull = gradient_of(policy, -beta * lean)
    directions = np.stack([gradient_of(policy, gain) + pull, pull])
    y, z = rng.choice(len(policy), (2, _PAIRS), p=policy)
    apart = directions[:, y] - directions[:, z]
    h, advantage = lean[y] - lean[z], prefers(y, z) - 0.5
    values = apart * (advantage - beta * h) / 2
    second = (np.square(apart) * (0.25 - 2 * beta * h * advantage + (beta * h) ** 2) / 4).mean(axis=1)
    mean = values.mean(axis=1)
    return Moments(
        directions, mean, np.sqrt(second - mean**2), (apart * -beta * h / 2).mean(axis=1), values.std(axis=1) / math.sqrt(_PAIRS)
    )


def _pairs_of(asked: PairProblem) -> Any:
    """Return P as a function of arrays of pairs, written down again for factors."""
    payoff: Any = asked.game.contexts[0].payoff
    if hasattr(payoff, "function"):
        return payoff.function
    left, right = payoff.left, payoff.right
    return lambda y, z: 0.5 + (left[y] * right[z]).sum(axis=-1) - (right[y] * left[z]).sum(axis=-1)


def ensure_unbiased(name: str, run: PairRun, asked: PairProblem, moments: Moments, samples: int, batch: int = 1) -> float:
    """Return the largest absolute z of the mean of at least `samples` estimates, drawn by a run of the problem at step `FROZEN`.

    Raises
    ------
    DisagreementError
        If it reaches 5, or is not a number.
    """
    runs = 4
    n_steps = math.ceil(max(samples, moments.samples()) / (runs * batch))
    moved = (run(n_steps, runs, 1) - asked.start).mean(axis=0) / (FROZEN * n_steps)
    # A common shift of all logits is no change of the policy.
    along = moments.directions @ (moved - moved.mean())
    expected = moments.mean
    spread = np.sqrt(moments.deviation**2 / (runs * n_steps * batch) + moments.uncertainty**2)
    largest = float(np.abs((along - expected) / spread).max())
    if not largest < LARGEST_Z:
        raise DisagreementError(f"{name}: the mean estimate is {largest:.1f} standard errors off the exact gradient")
    return largest


def distances(run: PairRun, target: Floats, n_steps: int, runs: int, seed: int = 2) -> Floats:
    """Return KL(π*‖π) after a run, one for each of `runs` seeds; `target` is log π*."""
    return np.asarray((np.exp(target) * (target - normalized(run(n_steps, runs, seed)))).sum(axis=-1))


def ensure_as_far(name: str, found: Floats, right: Floats) -> float:
    """Return the absolute z of the difference of two mean distances.

    Raises
    ------
    DisagreementError
        If it reaches 4, or is not a number.
    """
    spread = math.hypot(*(float(np.std(values, ddof=1)) / math.sqrt(len(values)) for values in (found, right)))
    z = abs(float(found.mean() - right.mean())) / spread
    if not z < LARGEST_DISTANCE_Z:
        raise DisagreementError(
            f"{name}: mean KL to π* {found.mean():.4g}, of the right steps {right.mean():.4g}, {z:.1f} standard errors off"
        )
    return z


def log_equilibrium(game: nl.PreferenceGame) -> Floats:
    """Return log π*."""
    return np.asarray(nl.solve(game).log_policy)
