"""Payoff forms: how a game stores its advantages ``A = P - 1/2`` and multiplies them by a policy.

A form is a NamedTuple of arrays, so that the compiled loop of `simulate` takes it as it is. A new form needs three things: its
branch in `advantage` and in `dense`, and the compiled product in `nlhfsim.kernels`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlhfsim.errors import Array


class DensePayoff(NamedTuple):
    """The skew-symmetric matrix of advantages itself, shape ``(n, n)``, entries in [-1/2, 1/2]."""

    matrix: Array


Payoff = DensePayoff


class Context(NamedTuple):
    """One context of a game in the form that a method's step sees.

    Attributes
    ----------
    payoff : Payoff
        The advantages A.
    log_reference : numpy.ndarray
        log ρ, shape ``(n,)``.
    beta : float
        Regularization β ≥ 0.
    """

    payoff: Payoff
    log_reference: Array
    beta: float


def advantage(payoff: Payoff, policy: Array) -> Array:
    """Return Aπ for policies in probability space, shape ``(..., n)``: how much each action gains against π."""
    return np.asarray(policy @ payoff.matrix.T)


def dense(payoff: Payoff) -> Array:
    """Return the matrix of advantages, shape ``(n, n)``."""
    return payoff.matrix


def n_actions(payoff: Payoff) -> int:
    """Return the number of actions."""
    return int(payoff.matrix.shape[0])
