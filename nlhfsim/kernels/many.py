"""Compiled loops over many runs at once, arrays ``(runs, n)`` whose runs are neighbours in memory (Fortran order).

Inner loops go over runs, so that they fill the vector registers at few actions too. Each writes to its first argument.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from nlhfsim.kernels import one
from nlhfsim.kernels.one import exp

# Not inlined: a call is a small part of the work on many runs, and inlining costs seconds of compilation.
summing = njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True)


def of_run(step_size: Any, run: Any) -> Any:
    """Return the step size of one run: a number is common to all, of an array ``(runs, 1)`` it is the run's."""
    raise NotImplementedError  # pragma: no cover  (compiled code only)


@overload(of_run, strict=False, inline="always")
def _overload_of_run(step_size: Any, run: Any) -> Any:
    if getattr(step_size, "ndim", 0) == 2:
        return lambda step_size, run: step_size[run, 0]
    return lambda step_size, run: step_size


@summing
def copy(out: Any, values: Any) -> None:  # pragma: no cover
    runs, n = values.shape
    for run in range(runs):
        for i in range(n):
            out[run, i] = values[run, i]


@summing
def exp_all(out: Any, values: Any) -> None:  # pragma: no cover
    runs, n = out.shape
    for i in range(n):
        for run in range(runs):
            out[run, i] = exp(values[run, i])


@summing
def all_finite(values: Any) -> Any:  # pragma: no cover
    total = 0.0
    runs, n = values.shape
    for i in range(n):
        for run in range(runs):
            total += values[run, i] * 0.0  # NaN where it is NaN or infinite
    return total == 0.0


@summing
def log_softmax(out: Any, logits: Any) -> None:  # pragma: no cover
    runs, n = out.shape
    largest, total = np.empty(runs), np.empty(runs)
    for run in range(runs):
        largest[run], total[run] = logits[run, 0], 0.0
    for i in range(1, n):
        for run in range(runs):
            largest[run] = logits[run, i] if logits[run, i] > largest[run] else largest[run]
    for i in range(n):
        for run in range(runs):
            total[run] += exp(logits[run, i] - largest[run])
    for run in range(runs):
        total[run] = np.log(total[run])
    for i in range(n):
        for run in range(runs):
            out[run, i] = (logits[run, i] - largest[run]) - total[run]


@summing
def mirror(out: Any, logits: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    runs, n = out.shape
    step = np.empty(runs)
    for run in range(runs):
        step[run] = of_run(step_size, run)
    for i in range(n):
        for run in range(runs):
            old = logits[run, i]
            out[run, i] = old + step[run] * (gain[run, i] - beta * (old - log_reference[i]))
    log_softmax(out, out)


@summing
def prox(out: Any, logits: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    runs, n = out.shape
    step, share = np.empty(runs), np.empty(runs)
    for run in range(runs):
        step[run] = of_run(step_size, run)
        share[run] = 1 / (1 + step[run] * beta)
    for i in range(n):
        pull = beta * log_reference[i]
        for run in range(runs):
            out[run, i] = (logits[run, i] + step[run] * (pull + gain[run, i])) * share[run]
    log_softmax(out, out)


@summing
def mixture(out: Any, logits: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    runs, n = out.shape
    share = np.empty(runs)
    for run in range(runs):
        share[run] = of_run(step_size, run) * beta
    for i in range(n):
        for run in range(runs):
            out[run, i] = logits[run, i] + share[run] * (log_reference[i] - logits[run, i])
    log_softmax(out, out)


@summing
def ascend(logits: Any, policy: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    runs, n = logits.shape
    step, average = np.empty(runs), np.zeros(runs)
    for run in range(runs):
        step[run] = of_run(step_size, run)
    for i in range(n):
        for run in range(runs):
            gain[run, i] -= beta * (logits[run, i] - log_reference[i])
            average[run] += policy[run, i] * gain[run, i]
    for i in range(n):
        for run in range(runs):
            logits[run, i] += step[run] * policy[run, i] * (gain[run, i] - average[run])


@summing
def product(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
    runs, n = policy.shape
    for i in range(n):
        for run in range(runs):
            out[run, i] = 0.0
        for j in range(n):
            a = matrix[i, j]
            for run in range(runs):
                out[run, i] += a * policy[run, j]


@summing
def dense(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
    """Write Aπ of every run: by loops at few actions, by a matrix-matrix product, or for few runs one by one."""
    runs, n = policy.shape
    if n < 16:
        product(out, matrix, policy)
    elif runs >= 8:
        np.dot(matrix, policy.T, out.T)
    else:
        row, single = np.empty(n), np.empty(n)
        for run in range(runs):
            for i in range(n):
                single[i] = policy[run, i]
            one.dense(row, matrix, single)
            for i in range(n):
                out[run, i] = row[i]


@summing
def low_rank(out: Any, left: Any, right: Any, policy: Any) -> None:  # pragma: no cover
    runs, n = policy.shape
    first, second = np.dot(np.dot(policy, right), left.T), np.dot(np.dot(policy, left), right.T)
    for run in range(runs):
        for i in range(n):
            out[run, i] = first[run, i] - second[run, i]
