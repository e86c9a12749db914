"""Compiled loops over the actions of one policy; each writes to its first argument.

Sums may be reordered and multiplications fused (``reassoc``, ``contract``), so that loops fill the vector registers; the flags
that assume away NaN are off. Everything is inlined: a call passes seven numbers for every array, which at few actions costs more
than the work.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

summing = njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True, forceinline=True)
# In `exp` the order of the operations matters.
ordered = njit(fastmath={"contract"}, error_model="numpy", nogil=True, forceinline=True)

_LOG2_E = 1 / math.log(2)
# log 2 in two parts, the first with 21 trailing zero bits, so that k times it is exact for every exponent k.
_LOG_2_HIGH = 0.693147180369123816490
_LOG_2_LOW = 1.90821492927058770002e-10
# 1.5 · 2^52: adding it leaves the nearest whole number in the low bits.
_ROUNDER = 6755399441055744.0
_C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = (1 / math.factorial(k) for k in range(3, 14))


@ordered
def exp(x: Any) -> Any:  # pragma: no cover
    """Return exp(x) for x ≤ 700 to 2 units in the last place, 0 below -708; unlike the C library's it vectorizes.

    ``exp(x) = 2^k exp(r)`` with ``|r| ≤ log(2)/2``, exp(r) by its Taylor polynomial (Estrin's order).
    """
    shifted = x * _LOG2_E + _ROUNDER
    bits = np.float64(shifted).view(np.int64)
    k = shifted - _ROUNDER
    r = (x - k * _LOG_2_HIGH) - k * _LOG_2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = ((1.0 + r) + r2 * (0.5 + _C3 * r)) + r4 * ((_C4 + _C5 * r) + r2 * (_C6 + _C7 * r))
    high = ((_C8 + _C9 * r) + r2 * (_C10 + _C11 * r)) + r4 * (_C12 + _C13 * r)
    power = np.int64((bits + 1023) << 52).view(np.float64)
    return 0.0 if x < -708.0 else (low + r4 * r4 * high) * power


@summing
def copy(out: Any, values: Any) -> None:  # pragma: no cover
    for i in range(values.size):
        out[i] = values[i]


@summing
def exp_all(out: Any, values: Any) -> None:  # pragma: no cover
    for i in range(values.size):
        out[i] = exp(values[i])


@summing
def log_softmax(out: Any, logits: Any) -> None:  # pragma: no cover
    n = logits.size
    largest = largest1 = largest2 = largest3 = logits[0]
    i = 0
    while i + 4 <= n:  # four maxima at a time: each waits for the one before it
        largest = logits[i] if logits[i] > largest else largest
        largest1 = logits[i + 1] if logits[i + 1] > largest1 else largest1
        largest2 = logits[i + 2] if logits[i + 2] > largest2 else largest2
        largest3 = logits[i + 3] if logits[i + 3] > largest3 else largest3
        i += 4
    while i < n:
        largest = logits[i] if logits[i] > largest else largest
        i += 1
    largest = max(max(largest, largest1), max(largest2, largest3))
    total = 0.0
    for i in range(n):
        total += exp(logits[i] - largest)
    log_total = np.log(total)
    for i in range(n):
        out[i] = (logits[i] - largest) - log_total


@summing
def product(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
    """Write Aπ to `out`, four rows at a time."""
    n = policy.size
    i = 0
    while i + 4 <= n:
        row0, row1, row2, row3 = matrix[i], matrix[i + 1], matrix[i + 2], matrix[i + 3]
        sum0, sum1, sum2, sum3 = 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            p = policy[j]
            sum0 += row0[j] * p
            sum1 += row1[j] * p
            sum2 += row2[j] * p
            sum3 += row3[j] * p
        out[i], out[i + 1], out[i + 2], out[i + 3] = sum0, sum1, sum2, sum3
        i += 4
    while i < n:
        total = 0.0
        for j in range(n):
            total += matrix[i, j] * policy[j]
        out[i] = total
        i += 1


@summing
def skew_product(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
    """Write Aπ to `out`, reading only the upper triangle of the skew-symmetric A: half the memory of a general product."""
    n = policy.size
    out[:] = 0.0
    i = 0
    while i + 4 <= n:
        for k in range(i, i + 4):
            for j in range(k + 1, i + 4):
                out[k] += matrix[k, j] * policy[j]
                out[j] -= matrix[k, j] * policy[k]
        row0, row1, row2, row3 = matrix[i, i + 4 :], matrix[i + 1, i + 4 :], matrix[i + 2, i + 4 :], matrix[i + 3, i + 4 :]
        p0, p1, p2, p3 = policy[i], policy[i + 1], policy[i + 2], policy[i + 3]
        rest, below = policy[i + 4 :], out[i + 4 :]
        sum0, sum1, sum2, sum3 = 0.0, 0.0, 0.0, 0.0
        for j in range(n - i - 4):
            p, a0, a1, a2, a3 = rest[j], row0[j], row1[j], row2[j], row3[j]
            sum0 += a0 * p
            sum1 += a1 * p
            sum2 += a2 * p
            sum3 += a3 * p
            below[j] -= (a0 * p0 + a1 * p1) + (a2 * p2 + a3 * p3)
        out[i] += sum0
        out[i + 1] += sum1
        out[i + 2] += sum2
        out[i + 3] += sum3
        i += 4
    while i < n:
        for j in range(i + 1, n):
            out[i] += matrix[i, j] * policy[j]
            out[j] -= matrix[i, j] * policy[i]
        i += 1


@summing
def dense(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
    if policy.size < 100:
        product(out, matrix, policy)
    else:
        skew_product(out, matrix, policy)


@summing
def low_rank(out: Any, left: Any, right: Any, policy: Any) -> None:  # pragma: no cover
    n, rank = left.shape
    along_left, along_right = np.zeros(rank), np.zeros(rank)
    for i in range(n):
        for k in range(rank):
            along_left[k] += left[i, k] * policy[i]
            along_right[k] += right[i, k] * policy[i]
    for i in range(n):
        total = 0.0
        for k in range(rank):
            total += left[i, k] * along_right[k] - right[i, k] * along_left[k]
        out[i] = total


@summing
def finite(values: Any) -> Any:  # pragma: no cover
    total = 0.0
    for i in range(values.size):
        total += values[i] * 0.0  # NaN where it is NaN or infinite
    return total == 0.0


@summing
def dot(first: Any, second: Any) -> Any:  # pragma: no cover
    total = 0.0
    for i in range(first.size):
        total += first[i] * second[i]
    return total


@summing
def mirror(out: Any, logits: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    pull = step_size * beta
    for i in range(out.size):
        out[i] = (1 - pull) * logits[i] + pull * log_reference[i] + step_size * gain[i]
    log_softmax(out, out)


@summing
def prox(out: Any, logits: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    pull = step_size * beta
    share = 1 / (1 + pull)
    for i in range(out.size):
        out[i] = (logits[i] + pull * log_reference[i] + step_size * gain[i]) * share
    log_softmax(out, out)


@summing
def mixture(out: Any, logits: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    share = step_size * beta
    for i in range(out.size):
        out[i] = (1 - share) * logits[i] + share * log_reference[i]
    log_softmax(out, out)


@summing
def ascend(logits: Any, policy: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    for i in range(gain.size):
        gain[i] -= beta * (logits[i] - log_reference[i])
    average = dot(policy, gain)
    for i in range(gain.size):
        logits[i] += step_size * policy[i] * (gain[i] - average)
