"""Mirror steps written by hand: what a good engineer would write for this one method, without a library."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from benchmarks._measure import Floats
from benchmarks.rivals import Problem, Run


@njit
def _loops(scaled: Any, anchor: Any, shrink: float, logits: Any, n_steps: int) -> None:
    """Plain loops; as the matrix is skew, its rows stand in for its columns, so that the inner loop vectorizes."""
    n = logits.size
    moved, weights = np.empty(n), np.exp(logits)
    for _ in range(n_steps):
        for i in range(n):
            moved[i] = shrink * logits[i] + anchor[i]
        for j in range(n):
            weight, row = weights[j], scaled[j]
            for i in range(n):
                moved[i] -= weight * row[i]
        _normalize(moved, logits, weights)


@njit
def _with_blas(scaled: Any, anchor: Any, shrink: float, logits: Any, n_steps: int) -> None:
    """The product by BLAS, all else by one loop."""
    n = logits.size
    moved, weights = np.empty(n), np.exp(logits)
    for _ in range(n_steps):
        np.dot(scaled, weights, moved)
        for i in range(n):
            moved[i] += shrink * logits[i] + anchor[i]
        _normalize(moved, logits, weights)


@njit
def _normalize(moved: Any, logits: Any, weights: Any) -> None:
    """Write log softmax and softmax of `moved`, with one exponential an entry."""
    n = logits.size
    largest = moved[0]
    for i in range(1, n):
        largest = max(largest, moved[i])
    total = 0.0
    for i in range(n):
        logits[i] = moved[i] - largest
        weights[i] = np.exp(logits[i])
        total += weights[i]
    log_total, share = np.log(total), 1 / total
    for i in range(n):
        logits[i] -= log_total
        weights[i] *= share


@njit
def _products(matrix: Any, policy: Any, out: Any, n_steps: int) -> None:
    for _ in range(n_steps):
        np.dot(matrix, policy, out)


def _numba(loop: Any, asked: Problem) -> Run:
    scaled = np.ascontiguousarray(asked.step_size * asked.shrink * asked.advantages)
    anchor = asked.step_size * asked.beta * asked.shrink * asked.log_reference

    def run(n_steps: int) -> Floats:
        logits = asked.start.copy()
        loop(scaled, anchor, asked.shrink, logits, n_steps)
        return logits

    return run


def numba_loops(asked: Problem) -> Run:
    """Numba, in place, plain loops."""
    return _numba(_loops, asked)


def numba_blas(asked: Problem) -> Run:
    """Numba, in place, the product by BLAS."""
    return _numba(_with_blas, asked)


def one_gemv(asked: Problem) -> Run:
    """Not a contestant but the floor: the product Aπ alone, by BLAS from compiled code, over and over."""
    policy, out = np.exp(asked.start), np.empty(len(asked.start))

    def run(n_steps: int) -> Floats:
        _products(asked.advantages, policy, out, n_steps)
        return out

    return run


def numpy_closed_form(asked: Problem) -> Run:
    """NumPy with ``out=``; takes one start or many."""
    scaled = np.ascontiguousarray(asked.step_size * asked.shrink * asked.advantages.T)
    anchor = asked.step_size * asked.beta * asked.shrink * asked.log_reference
    one = asked.start.shape[:-1] + (1,)
    policy, gain, largest, total = np.empty_like(asked.start), np.empty_like(asked.start), np.empty(one), np.empty(one)

    def run(n_steps: int) -> Floats:
        logits = asked.start.copy()
        np.exp(logits, out=policy)
        for _ in range(n_steps):
            np.matmul(policy, scaled, out=gain)
            np.multiply(logits, asked.shrink, out=logits)
            np.add(logits, anchor, out=logits)
            np.add(logits, gain, out=logits)
            np.max(logits, axis=-1, keepdims=True, out=largest)
            np.subtract(logits, largest, out=logits)
            np.exp(logits, out=policy)
            np.sum(policy, axis=-1, keepdims=True, out=total)
            np.divide(policy, total, out=policy)
            np.log(total, out=total)
            np.subtract(logits, total, out=logits)
        return logits

    return run
