"""What the methods share that play and average: sums and maxima over actions, and the play that regrets call for.

Each takes one vector, shape ``(n,)``, as compiled steps have, or many on leading axes, ``(..., n)``. Numba knows the number of
axes when it compiles and drops the branch that is not taken, whose ``keepdims`` it has not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nlhfsim.dynamics._conditions import probabilities
from nlhfsim.errors import Array


def total(values: Array) -> Any:
    """Return the sum over the last axis: a number for one vector, else with that axis kept."""
    if values.ndim == 1:
        return values.sum()
    return values.sum(axis=-1, keepdims=True)


def largest(values: Array) -> Any:
    """Return the maximum over the last axis: a number for one vector, else with that axis kept."""
    if values.ndim == 1:
        return values.max()
    return values.max(axis=-1, keepdims=True)


def matched(regrets: Array) -> Array:
    """Return the play in proportion to the positive regrets, uniform where none is positive (probability space)."""
    positive = np.maximum(regrets, 0.0)
    mass = total(positive)
    return np.where(mass > 0, positive / np.where(mass > 0, mass, 1.0), 1.0 / regrets.shape[-1])


def mismatch(weights: Array, play: Array) -> float:
    """Return how far a play is from being in proportion to the positive weights, from the definition, in units of a probability.

    The play is a policy, in one ratio to the positive weights for all actions; if none is positive it is uniform.
    """
    positive = np.array([max(weight, 0.0) for weight in weights])
    if positive.max() == 0:
        positive = np.ones(len(weights))
    crossed = np.outer(play, positive) - np.outer(positive, play)
    return float(max(abs(sum(play) - 1), -play.min(), np.abs(crossed).max() / positive.max()))


def misaverage(logits: Array, parts: list[tuple[float, Array]]) -> float:
    """Return how far softmax(logits) is from the average of policies with the weights given."""
    mass = sum(weight for weight, _ in parts)
    average = sum(weight * policy for weight, policy in parts) / mass
    return float(np.abs(probabilities(logits) - average).max())
