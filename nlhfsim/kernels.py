"""Compiled counterparts of the primitives that a method's step calls.

Importing this module tells Numba what `exp`, `log_softmax`, `expect` and `advantage`, and their counterparts in `in_place`, mean
for one policy, shape ``(n,)``, and for many runs at once, ``(runs, n)``, so that a step written with them compiles as it stands.
Only `simulate` imports it, so that the rest of the package does not wait for Numba.

Sums may be reordered and multiplications fused (``reassoc``, ``contract``), so that loops fill the vector registers; the flags
that assume away NaN are off.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from nlhfsim import loop_cache
from nlhfsim.games.payoffs import DensePayoff, LowRankPayoff, advantage
from nlhfsim.in_place import advantage_to, ascend_to, exp_to, tilt_to
from nlhfsim.simplex import exp, expect, log_softmax

_summing = njit(fastmath={"reassoc", "contract"}, error_model="numpy", nogil=True)
# In `_exp` the order of the operations matters.
_ordered = njit(fastmath={"contract"}, error_model="numpy", nogil=True)

_LOG2_E = 1 / math.log(2)
# log 2 in two parts, the first with 21 trailing zero bits, so that k times it is exact for every exponent k.
_LOG_2_HIGH = 0.693147180369123816490
_LOG_2_LOW = 1.90821492927058770002e-10
# 1.5 · 2^52: adding it leaves the nearest whole number in the low bits.
_ROUNDER = 6755399441055744.0
_C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = (1 / math.factorial(k) for k in range(3, 14))


@_ordered
def _exp(x: Any) -> Any:  # pragma: no cover
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


@_summing
def _exp_all(out: Any, values: Any) -> None:  # pragma: no cover
    for i in range(values.size):
        out[i] = _exp(values[i])


@_summing
def _log_softmax(out: Any, logits: Any) -> None:  # pragma: no cover
    largest = logits[0]
    for i in range(1, logits.size):
        largest = max(largest, logits[i])
    total = 0.0
    for i in range(logits.size):
        total += _exp(logits[i] - largest)
    log_total = np.log(total)
    for i in range(logits.size):
        out[i] = (logits[i] - largest) - log_total


@_summing
def _product(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
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


@_summing
def _skew_product(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
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


@_summing
def _dense_advantage(out: Any, matrix: Any, policy: Any) -> None:  # pragma: no cover
    if policy.size < 100:
        _product(out, matrix, policy)
    else:
        _skew_product(out, matrix, policy)


@_summing
def _low_rank_advantage(out: Any, left: Any, right: Any, policy: Any) -> None:  # pragma: no cover
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


@_summing
def _finite(values: Any) -> Any:  # pragma: no cover
    finite = True
    for i in range(values.size):
        finite &= abs(values[i]) <= 1.7976931348623157e308
    return finite


@_summing
def _dot(first: Any, second: Any) -> Any:  # pragma: no cover
    total = 0.0
    for i in range(first.size):
        total += first[i] * second[i]
    return total


@_summing
def _tilt(out: Any, a: Any, x: Any, b: Any, y: Any, c: Any, z: Any) -> None:  # pragma: no cover
    p, q, r = _number(a), _number(b), _number(c)
    for i in range(out.size):
        out[i] = p * x[i] + q * y[i] + r * z[i]
    _log_softmax(out, out)


@_summing
def _ascend(logits: Any, step_size: Any, policy: Any, gain: Any, beta: Any, log_reference: Any) -> None:  # pragma: no cover
    for i in range(gain.size):
        gain[i] -= beta * (logits[i] - log_reference[i])
    average, step = _dot(policy, gain), _number(step_size)
    for i in range(gain.size):
        logits[i] += step * policy[i] * (gain[i] - average)


def _number(coefficient: Any) -> Any:
    """Return a coefficient as a number; of one run it is one, or an array of length 1."""
    raise NotImplementedError  # pragma: no cover  (compiled code only)


@overload(_number, strict=False, inline="always")
def _overload_number(coefficient: Any) -> Any:
    if _has_ndim(coefficient, 1):
        return lambda coefficient: coefficient[0]
    return lambda coefficient: coefficient


def _has_ndim(kind: Any, ndim: int) -> bool:
    return getattr(kind, "ndim", None) == ndim


@overload(exp_to, strict=False)
def _overload_exp_to(out: Any, log_values: Any) -> Any:
    def one(out, log_values):  # type: ignore[no-untyped-def]
        _exp_all(out, log_values)

    def many(out, log_values):  # type: ignore[no-untyped-def]
        _exp_all(out.reshape(-1), log_values.reshape(-1))

    return one if _has_ndim(out, 1) else many


@overload(advantage_to, strict=False)
def _overload_advantage_to(out: Any, payoff: Any, policy: Any) -> Any:
    form = getattr(payoff, "instance_class", None)

    def dense_one(out, payoff, policy):  # type: ignore[no-untyped-def]
        _dense_advantage(out, payoff.matrix, policy)

    def dense_many(out, payoff, policy):  # type: ignore[no-untyped-def]
        # From about here on one matrix-matrix product is faster than a product a run.
        if policy.shape[0] >= 8 and policy.shape[1] >= 64:
            np.dot(policy, payoff.matrix.T, out)
        else:
            for run in range(policy.shape[0]):
                _dense_advantage(out[run], payoff.matrix, policy[run])

    def low_rank_one(out, payoff, policy):  # type: ignore[no-untyped-def]
        _low_rank_advantage(out, payoff.left, payoff.right, policy)

    def low_rank_many(out, payoff, policy):  # type: ignore[no-untyped-def]
        for run in range(policy.shape[0]):
            _low_rank_advantage(out[run], payoff.left, payoff.right, policy[run])

    if form is DensePayoff:
        return dense_one if _has_ndim(policy, 1) else dense_many
    if form is LowRankPayoff:
        return low_rank_one if _has_ndim(policy, 1) else low_rank_many
    return None


@overload(tilt_to, strict=False)
def _overload_tilt_to(out: Any, a: Any, x: Any, b: Any, y: Any, c: Any, z: Any) -> Any:
    def one(out, a, x, b, y, c, z):  # type: ignore[no-untyped-def]
        _tilt(out, a, x, b, y, c, z)

    def many(out, a, x, b, y, c, z):  # type: ignore[no-untyped-def]
        for run in range(out.shape[0]):
            _tilt(out[run], _of(a, run), _of(x, run), _of(b, run), _of(y, run), _of(c, run), _of(z, run))

    return one if _has_ndim(out, 1) else many


@overload(ascend_to, strict=False)
def _overload_ascend_to(logits: Any, step_size: Any, policy: Any, gain: Any, beta: Any, log_reference: Any) -> Any:
    def one(logits, step_size, policy, gain, beta, log_reference):  # type: ignore[no-untyped-def]
        _ascend(logits, step_size, policy, gain, beta, log_reference)

    def many(logits, step_size, policy, gain, beta, log_reference):  # type: ignore[no-untyped-def]
        for run in range(logits.shape[0]):
            _ascend(logits[run], _of(step_size, run), policy[run], gain[run], beta, log_reference)

    return one if _has_ndim(logits, 1) else many


def _of(value: Any, run: Any) -> Any:
    """Return the part of one run: a row of ``(runs, n)``, the number of ``(runs, 1)``; what has no axis of runs is common."""
    raise NotImplementedError  # pragma: no cover  (compiled code only)


@overload(_of, strict=False, inline="always")
def _overload_of(value: Any, run: Any) -> Any:
    if _has_ndim(value, 2):
        return lambda value, run: value[run]
    return lambda value, run: value


@overload(exp, strict=False)
def _overload_exp(log_values: Any) -> Any:
    def compiled(log_values):  # type: ignore[no-untyped-def]
        out = np.empty_like(log_values)
        exp_to(out, log_values)
        return out

    return compiled


@overload(log_softmax, strict=False)
def _overload_log_softmax(logits: Any) -> Any:
    def one(logits):  # type: ignore[no-untyped-def]
        out = np.empty_like(logits)
        _log_softmax(out, logits)
        return out

    def many(logits):  # type: ignore[no-untyped-def]
        out = np.empty_like(logits)
        for run in range(logits.shape[0]):
            _log_softmax(out[run], logits[run])
        return out

    return one if _has_ndim(logits, 1) else many


@overload(expect, strict=False)
def _overload_expect(policy: Any, values: Any) -> Any:
    def one(policy, values):  # type: ignore[no-untyped-def]
        return _dot(policy, values)

    def many(policy, values):  # type: ignore[no-untyped-def]
        out = np.empty((policy.shape[0], 1))
        for run in range(policy.shape[0]):
            out[run, 0] = _dot(policy[run], values[run])
        return out

    return one if _has_ndim(policy, 1) else many


@overload(advantage, strict=False)
def _overload_advantage(payoff: Any, policy: Any) -> Any:
    def compiled(payoff, policy):  # type: ignore[no-untyped-def]
        out = np.empty_like(policy)
        advantage_to(out, payoff, policy)
        return out

    return compiled


def all_finite(logits: Any) -> bool:
    """Return whether no entry is NaN or infinite, logits of shape ``(n,)`` or ``(runs, n)``."""
    return bool(np.isfinite(logits).all())


@overload(all_finite, strict=False)
def _overload_all_finite(logits: Any) -> Any:
    def one(logits):  # type: ignore[no-untyped-def]
        return _finite(logits)

    def many(logits):  # type: ignore[no-untyped-def]
        for run in range(logits.shape[0]):
            if not _finite(logits[run]):
                return False
        return True

    return one if _has_ndim(logits, 1) else many


@functools.cache
def compilable(helper: Callable[..., Any]) -> None:
    """Let compiled code call a plain Python function that a method's step uses; it is compiled with the step."""
    overload(helper, strict=False)(lambda *arguments: helper)


@functools.cache
def compile_loop(step: Callable[..., Any], fields: tuple[str, ...], in_place: bool = False) -> Callable[..., Any]:
    """Compile a method's step together with the loop around it.

    A step of this package is kept on disk, so that a second process does not compile it again; see `loop_cache`.

    Parameters
    ----------
    step : callable
        The method's step, or its kernel.
    fields : tuple of str
        The fields of its state.
    in_place : bool
        Whether `step` is a kernel, ``kernel(state, context, step_size, params, policy, gain, half)``, that overwrites the state.

    Returns
    -------
    callable
        See `nlhfsim.loop_cache.LOOP`. It releases the global interpreter lock.
    """
    cached = loop_cache.load(step, fields, in_place)
    if cached is not None:
        return cached
    names = {"njit": njit, "np": np, "all_finite": all_finite, "plain_step": step}
    exec(loop_cache.source(fields, in_place, cached=False), names)
    return names["loop"]  # type: ignore[return-value]
