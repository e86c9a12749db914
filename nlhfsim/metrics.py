"""Functions of recorded arrays: distances to the equilibrium, first passages, fitted rates, quantiles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, SizeError, ensure_array, ensure_between, ensure_positive
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.games.responses import context_exploitability, context_gap0
from nlhfsim.simplex import kl_log, spread

BY_CONTEXT = ("kl", "exploitability", "gap0", "span", "min_probability")


def of_context(context: Context, log_policies: Array, log_equilibrium: Array | None) -> tuple[dict[str, Array], str]:
    """Return every metric of log-policies ``(..., n)`` in one context, each of shape ``(...)``, and why some are NaN, if any.

    ``kl`` is KL(π*‖π), NaN without an equilibrium; ``gap0`` the unregularized exploitability; ``span`` is ``‖log π - log ρ‖_sp``.
    """
    shape = log_policies.shape[:-1]
    kl = (
        np.full(shape, np.nan)
        if log_equilibrium is None
        else kl_log(np.broadcast_to(log_equilibrium, log_policies.shape), log_policies)
    )
    exploitability, gap0, why = np.full(shape, np.nan), np.full(shape, np.nan), ""
    try:
        gain = advantage(context.payoff, np.exp(log_policies))
        exploitability, gap0 = context_exploitability(context, log_policies, gain), context_gap0(context, log_policies, gain)
    except SizeError as error:
        why = f"exploitability and gap0 are NaN: {error}"
    return {
        "kl": kl,
        "exploitability": exploitability,
        "gap0": gap0,
        "span": spread(log_policies - context.log_reference),
        "min_probability": np.exp(log_policies.min(axis=-1)),
    }, why


def first_passage(times: npt.ArrayLike, values: npt.ArrayLike, eps: float) -> Array:
    """Return the first of `times` at which each row of `values` is at most `eps`; ``inf`` if none is.

    Parameters
    ----------
    times : array_like
        Shape ``(records,)``.
    values : array_like
        Shape ``(..., records)``; NaN never passes.
    eps : float
        Threshold > 0.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.metrics.first_passage([0, 10, 20], [[1.0, 0.1, 0.01], [1.0, 0.9, 0.8]], 0.1)
    array([10., inf])
    """
    threshold = ensure_positive("eps", eps)
    clock, rows = _records(times, values)
    below = rows <= threshold
    return np.where(below.any(axis=-1), clock[below.argmax(axis=-1)], np.inf)


def fit_rate(times: npt.ArrayLike, values: npt.ArrayLike, *, floor: float = 1e-26) -> Array:
    """Return the factor per unit of time by which each row of `values` shrinks, fitted to the second half of its clean part.

    The clean part ends where a value falls to `floor` (rounding) or is not finite; a line is fitted to the logarithms by least
    squares over the second half of the time it covers. NaN where fewer than three records are left.

    Parameters
    ----------
    times : array_like
        Shape ``(records,)``, increasing.
    values : array_like
        Shape ``(..., records)``, non-negative.
    floor : float
        Values at or below it are rounding.

    Examples
    --------
    >>> import numpy as np, nlhfsim as nl
    >>> t = np.arange(50)
    >>> round(float(nl.metrics.fit_rate(t, 3 * 0.9**t)), 12)
    0.9
    """
    clock, rows = _records(times, values)
    factors = np.array([_fit_row(clock, row, floor) for row in rows.reshape(-1, len(clock))])
    return factors.reshape(np.shape(values)[:-1])


def _records(times: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Array, Array]:
    """Return times ``(records,)``, increasing, and values ``(..., records)``."""
    clock, rows = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if clock.ndim != 1 or rows.ndim == 0 or rows.shape[-1] != len(clock):
        raise InputError(f"values has shape {rows.shape}, must end in the number of times, {clock.shape}")
    if (np.diff(clock) <= 0).any():
        raise InputError("times must be increasing")
    return clock, rows


def _fit_row(clock: Array, row: Array, floor: float) -> float:
    clean = np.isfinite(row) & (row > floor)
    end = len(row) if clean.all() else int(np.argmin(clean))
    if end < 3:
        return float("nan")
    start = int(np.searchsorted(clock, (clock[0] + clock[end - 1]) / 2))
    start = min(start, end - 3)
    slope = np.polyfit(clock[start:end], np.log(row[start:end]), 1)[0]
    return float(np.exp(slope))


def quantiles(values: npt.ArrayLike, levels: npt.ArrayLike) -> Array:
    """Return quantiles over the first axis (runs), shape ``(levels, ...)``; levels in [0, 1]."""
    chosen = np.atleast_1d(ensure_array("levels", levels))
    for level in chosen:
        ensure_between("levels", float(level), 0.0, 1.0)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[0] == 0:
        raise InputError("values must have at least one run on its first axis")
    return np.asarray(np.quantile(array, chosen, axis=0))
