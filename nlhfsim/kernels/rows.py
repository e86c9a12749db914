"""Compiled loops over many runs at once whose actions are neighbours in memory (C order): run by run, with the loops of `one`."""

from __future__ import annotations

from typing import Any

import numpy as np

from nlhfsim.kernels import one
from nlhfsim.kernels.many import of_run, summing


@summing
def copy(out: Any, values: Any) -> None:  # pragma: no cover
    for run in range(values.shape[0]):
        one.copy(out[run], values[run])


@summing
def all_finite(values: Any) -> Any:  # pragma: no cover
    for run in range(values.shape[0]):
        if not one.finite(values[run]):
            return False
    return True


@summing
def exp_all(out: Any, values: Any) -> None:  # pragma: no cover
    for run in range(values.shape[0]):
        one.exp_all(out[run], values[run])


@summing
def log_softmax(out: Any, logits: Any) -> None:  # pragma: no cover
    for run in range(logits.shape[0]):
        one.log_softmax(out[run], logits[run])


@summing
def mirror(out: Any, logits: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    for run in range(out.shape[0]):
        one.mirror(out[run], logits[run], gain[run], of_run(step_size, run), beta, log_reference)


@summing
def prox(out: Any, logits: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    for run in range(out.shape[0]):
        one.prox(out[run], logits[run], gain[run], of_run(step_size, run), beta, log_reference)


@summing
def mixture(out: Any, logits: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    for run in range(out.shape[0]):
        one.mixture(out[run], logits[run], of_run(step_size, run), beta, log_reference)


@summing
def ascend(logits: Any, policy: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    for run in range(logits.shape[0]):
        one.ascend(logits[run], policy[run], gain[run], of_run(step_size, run), beta, log_reference)


@summing
def dense(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
    """Write Aπ of every run: by a matrix-matrix product, for few actions or runs one by one."""
    runs, n = policy.shape
    if n >= 16 and runs >= 8:
        np.dot(policy, matrix.T, out)
    else:
        for run in range(runs):
            one.dense(out[run], matrix, policy[run])
