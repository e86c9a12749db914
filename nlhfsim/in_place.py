"""The primitives of a step once more, writing to arrays that are given: what a method's kernel is made of.

A kernel is a method's step in place, for the compiled loop, which then allocates nothing. At few actions that is several times
faster. The functions here are for one policy, shape ``(n,)``, and for many runs, ``(runs, n)``, with coefficients that are
numbers or of shape ``(runs, 1)``; `kernels` holds their compiled counterparts.
"""

from __future__ import annotations

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Payoff, advantage
from nlhfsim.simplex import exp, expect, log_softmax

Coefficient = float | Array


def exp_to(out: Array, log_values: Array) -> None:
    """Write ``exp(log_values)`` to `out`."""
    out[...] = exp(log_values)


def advantage_to(out: Array, payoff: Payoff, policy: Array) -> None:
    """Write Aπ to `out`."""
    out[...] = advantage(payoff, policy)


def tilt_to(out: Array, a: Coefficient, x: Array, b: Coefficient, y: Array, c: Coefficient, z: Array) -> None:
    """Write ``log softmax(a x + b y + c z)`` to `out`, which may be one of them."""
    out[...] = log_softmax(a * x + b * y + c * z)


def ascend_to(logits: Array, step_size: Coefficient, policy: Array, gain: Array, beta: float, log_reference: Array) -> None:
    """Add ``γ J(π)(Aπ - β(θ - log ρ))`` to θ, with Aπ in `gain`, which is overwritten."""
    gain[...] = gain - beta * (logits - log_reference)
    logits[...] = logits + step_size * policy * (gain - np.asarray(expect(policy, gain)))
