"""What the tests of sampled feedback share: the methods that have a sampled form, a small game, and standardized sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import nlhfsim as nl
from nlhfsim import dynamics

Floats = npt.NDArray[np.float64]


def example(name: str, **changes: Any) -> dynamics.Dynamics:
    """The method's own example."""
    return dynamics.build(name, **(dict(dynamics.get(name).method.example) | changes))


def unsampled(name: str) -> str:
    """Why a method has no sampled form."""
    method = example(name)
    return method.method.unsampled(method.params)


SAMPLED = [name for name in dynamics.names() if not unsampled(name)]
ESTIMATED = [name for name in SAMPLED if dynamics.get(name).method.pairs is None]
PAIRED = [name for name in SAMPLED if dynamics.get(name).method.pairs is not None]
LIMIT = 5.0
START = [0.15, 0.2, 0.4, 0.25]


def game_of(beta: float = 0.3) -> nl.PreferenceGame:
    """A zero-one cycle with a bystander, and a reference that is not uniform."""
    P = [[0.5, 1.0, 0.0, 0.8], [0.0, 0.5, 1.0, 0.7], [1.0, 0.0, 0.5, 0.4], [0.2, 0.3, 0.6, 0.5]]
    return nl.PreferenceGame(P, beta, [0.4, 0.3, 0.2, 0.1])


def softmax(logits: Floats) -> Floats:
    """Normalized exponentials."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def scores(errors: Floats, weights: Floats) -> float:
    """The largest standardized sum of errors times weights, over coordinates; both of shape ``(steps, n)``."""
    terms = errors * weights
    spread = np.sqrt((terms**2).sum(axis=0))
    return float(np.max(np.abs(terms.sum(axis=0)[spread > 0]) / spread[spread > 0]))
