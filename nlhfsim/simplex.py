"""Probability on the simplex, in log space.

All functions act on the last axis, so one policy ``(n,)``, one policy a context ``(contexts, n)`` and many runs ``(runs, n)``
are the same call. `kernels` holds the compiled counterparts of `exp`, `log_softmax`, `expect` and the payoff product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, ensure_array


def exp(log_values: Array) -> Array:
    """Return the elementwise exponential, of log-probabilities: its compiled counterpart vanishes below -708."""
    return np.asarray(np.exp(log_values))


def log_softmax(logits: Array) -> Array:
    """Return the log-probabilities of the softmax of `logits` (last axis; log space in and out)."""
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True)))


def expect(policy: Array, values: Array) -> Array:
    """Return the mean of `values` under `policy` (probability space), the last axis kept with length 1."""
    return np.asarray(np.sum(policy * values, axis=-1, keepdims=True))


def span(values: npt.ArrayLike) -> Array:
    """Return the span semi-norm ``max v - min v`` over the last axis.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> float(nl.span([0.5, -1.0, 2.0]))
    3.0
    """
    array = ensure_array("values", values)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise InputError(f"values has shape {array.shape}, must hold at least one value on its last axis")
    return spread(array)


def spread(values: Array) -> Array:
    """Return the span over the last axis without checks; NaN stays NaN."""
    return np.asarray(values.max(axis=-1) - values.min(axis=-1))


# Taylor coefficients of d + expm1(-d) = d^2/2! - d^3/3! + ...; 15 terms are below rounding for |d| < 0.3.
_SERIES = np.cumprod(1.0 / np.arange(2, 17)) * np.where(np.arange(2, 17) % 2 == 0, 1.0, -1.0)


def excess(log_ratio: Array) -> Array:
    """Return ``d + expm1(-d)``, never negative and relatively accurate at small d (elementwise)."""
    with np.errstate(over="ignore", invalid="ignore"):
        direct = log_ratio + np.expm1(-log_ratio)
    small = np.abs(log_ratio) < 0.3
    d = np.where(small, log_ratio, 0.0)
    return np.where(small, d * d * np.polynomial.polynomial.polyval(d, _SERIES), direct)


def kl_log(log_p: Array, log_q: Array) -> Array:
    """Return KL(p‖q) from log-probabilities, over the last axis.

    Computed as a sum of the non-negative terms ``p (d + expm1(-d))``, ``d = log p - log q``: it is never negative and has small
    relative error however close p and q are. Entries with ``log_p = -inf`` add their share q of the mass.
    """
    p = np.exp(log_p)
    with np.errstate(invalid="ignore"):
        difference = np.where(p > 0, log_p - log_q, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        terms = np.where(p > 0, p * excess(difference), np.exp(log_q))
        # Far out, p·expm1(-d) = q - p is exact where expm1 alone would overflow.
        far = difference < -30
        terms = np.where(far & (p > 0), p * difference + np.exp(log_q) - p, terms)
    return np.asarray(terms.sum(axis=-1))


def safe_log(probabilities: Array) -> Array:
    """Return the elementwise logarithm, ``-inf`` at zero without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def kl(p: npt.ArrayLike, q: npt.ArrayLike) -> Array:
    """Return the Kullback–Leibler divergence KL(p‖q) over the last axis (probability space, natural logarithm).

    Parameters
    ----------
    p, q : array_like
        Probabilities of the same trailing length, shapes that broadcast.

    Returns
    -------
    numpy.ndarray
        At least 0; ``inf`` where q has a zero that p has not.

    Raises
    ------
    InputError
        If the arguments are negative, not finite, or of different length.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> round(float(nl.kl([0.5, 0.5], [0.25, 0.75])), 6)
    0.143841
    """
    arrays = [ensure_array("p", p), ensure_array("q", q)]
    for name, array in zip("pq", arrays):
        if array.ndim == 0 or (array < 0).any():
            raise InputError(f"{name} must hold probabilities, one a last-axis entry and none negative")
        if (np.abs(array.sum(axis=-1) - 1) > 1e-6).any():
            raise InputError(f"{name} adds up to {array.sum(axis=-1).flat[0]:.10g}, must be 1")
    if arrays[0].shape[-1] != arrays[1].shape[-1]:
        raise InputError(f"p has {arrays[0].shape[-1]} entries and q has {arrays[1].shape[-1]}, must be equal")
    return kl_log(safe_log(arrays[0]), safe_log(arrays[1]))
