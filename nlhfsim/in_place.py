"""The primitives of a step once more, writing to arrays that are given: what a method's kernel is made of.

A kernel is a method's step in place, for the compiled loop, which then allocates nothing. At few actions that is several times
faster. The functions here are for one policy, shape ``(n,)``, and for many runs, ``(runs, n)``, with step sizes that are numbers
or of shape ``(runs, 1)``; `kernels` holds their compiled counterparts. `out` may be one of the arrays read.
"""

from __future__ import annotations

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Payoff, advantage
from nlhfsim.simplex import exp, expect, log_softmax

StepSize = float | Array


def exp_to(out: Array, log_values: Array) -> None:
    """Write ``exp(log_values)`` to `out`."""
    out[...] = exp(log_values)


def log_softmax_to(out: Array, logits: Array) -> None:
    """Write log softmax(θ) to `out`."""
    out[...] = log_softmax(logits)


def advantage_to(out: Array, payoff: Payoff, policy: Array) -> None:
    """Write Aπ to `out`."""
    out[...] = advantage(payoff, policy)


def mirror_to(out: Array, logits: Array, gain: Array, step_size: StepSize, beta: float, log_reference: Array) -> None:
    """Write an explicit mirror step, ``log softmax(θ + γ(v - β(θ - log ρ)))`` with v in `gain`."""
    out[...] = log_softmax(logits + step_size * (gain - beta * (logits - log_reference)))


def prox_to(out: Array, logits: Array, gain: Array, step_size: StepSize, beta: float, log_reference: Array) -> None:
    """Write a step implicit in the regularizer, ``log argmax_q ⟨v, q⟩ - β KL(q‖ρ) - KL(q‖π)/γ`` with v in `gain`."""
    pull = step_size * beta
    out[...] = log_softmax((logits + pull * log_reference + step_size * gain) / (1 + pull))


def mixture_to(out: Array, logits: Array, step_size: StepSize, beta: float, log_reference: Array) -> None:
    """Write the log of the geometric mixture ``π^(1-γβ) ρ^(γβ)``, normalized."""
    share = step_size * beta
    out[...] = log_softmax((1 - share) * logits + share * log_reference)


def ascend_to(logits: Array, policy: Array, gain: Array, step_size: StepSize, beta: float, log_reference: Array) -> None:
    """Add ``γ J(π)(v - β(θ - log ρ))`` to θ, with v in `gain`, which is overwritten."""
    gain[...] = gain - beta * (logits - log_reference)
    logits[...] = logits + step_size * policy * (gain - np.asarray(expect(policy, gain)))
