"""Runs of a method's plain step, as claims measure them."""

from __future__ import annotations

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._spec import Measured
from nlhfsim.claims._step import step_input
from nlhfsim.dynamics import Dynamics
from nlhfsim.errors import Array
from nlhfsim.simplex import kl_log, log_softmax

EPS = float(np.finfo(np.float64).eps)


def log_policies(case: Case, dynamics: Dynamics, n_steps: int) -> Array:
    """Return the log-policies of steps 0 to `n_steps`, shape ``(n_steps + 1, n)``."""
    method, params, context = dynamics.method, dynamics.params, case.context
    size = step_input(dynamics, case.step_size)
    state, rows = method.init(context, params, case.log_policy), [case.log_policy]
    for _ in range(n_steps):
        state = method.step(state, context, size, params)
        rows.append(log_softmax(state.logits))
    return np.array(rows)


def kl_to_equilibrium(case: Case, rows: Array, inexact: float = 0.0) -> Measured:
    """Return KL(π*‖π) of log-policies ``(k, n)``, with what it may be off by.

    If log π* is off by δ then KL is off by Cov_π*(δ, log π*/π) ≤ sd(δ) sd(log π*/π), beside δ²; sd(δ) is at most the case's
    `log_error`. Rounding of log π counts like δ, and so does `inexact`, by which an inner solver may miss log π.
    """
    log_ratio = case.log_equilibrium - rows
    pi = case.equilibrium
    deviation = np.sqrt(np.sum(pi * (log_ratio - np.sum(pi * log_ratio, axis=-1, keepdims=True)) ** 2, axis=-1))
    error = case.log_error + inexact + 4 * EPS * np.abs(rows).max(axis=-1)
    return Measured(kl_log(np.broadcast_to(case.log_equilibrium, rows.shape), rows), 2 * error * deviation + error**2)
