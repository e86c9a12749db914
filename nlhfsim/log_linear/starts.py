"""Where runs of log-linear policies start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from nlhfsim.errors import Array, InputError, NlhfsimWarning, ensure_array
from nlhfsim.log_linear.shared import SharedClass
from nlhfsim.simplex import log_softmax

_IN_CLASS = 1e-8


def start_logs(shared: SharedClass, start: Any, runs: int, seed: int, policies: Callable[[Any], Array]) -> Array:
    """Return the log-policies to start from, shape ``(runs, contexts, n)``.

    Parameters
    ----------
    shared : SharedClass
        The policies that there are.
    start : array_like, str or None
        None and ``"reference"`` are θ = 0; ``"random"`` is a standard normal θ, scaled so that φθ is; an array of one or two axes
        whose last has length d is θ, of all runs or one a run; all else is a policy and must be in the class.
    runs, seed : int
        As for `nlhfsim.simulate`.
    policies : callable
        What checks the start as tabular policies and returns their logarithms, shape ``(runs, contexts, n)``.

    Raises
    ------
    InputError
        If the start is neither θ nor a policy of the class.
    """
    features = shared.features
    if start is None or (isinstance(start, str) and start == "reference"):
        theta = np.zeros((runs, features.d))
    elif isinstance(start, str) and start == "random":
        seeds = np.random.SeedSequence(seed).spawn(runs)
        theta = np.stack([np.random.default_rng(s).standard_normal(features.d) for s in seeds]) / features.size()
    elif len(_shape(start)) in (1, 2) and _shape(start)[-1] == features.d:
        theta = _given(start, shared, runs)
    else:
        theta = _within(_policies(start, shared, policies), shared)
    # One by one, so that the bits of a run do not depend on how many there are.
    return log_softmax(shared.context.log_reference + np.stack([features.scores(row) for row in theta]))


def _shape(start: Any) -> tuple[int, ...]:
    """Return the shape of a start, ``()`` of what is no array."""
    try:
        return tuple(np.shape(start))
    except ValueError:
        return ()


def _given(start: Any, shared: SharedClass, runs: int) -> Array:
    """Return the θ that were given, one a run."""
    theta = np.atleast_2d(ensure_array("start", start))
    if len(theta) == 0 or (np.ndim(start) == 2 and runs not in (1, len(theta))):
        raise InputError(f"start holds {len(theta)} values of theta but runs = {runs}; they must agree")
    n = shared.context.log_reference.shape[-1]
    if shared.features.d == n and (theta > 0).all() and (np.abs(theta.sum(axis=-1) - 1) <= 1e-6).all():
        warnings.warn(
            f"start is taken as theta, as there are as many features as actions (d = n = {n}), though it looks like a policy; "
            "give a policy with all its axes, (runs, contexts, n)",
            NlhfsimWarning,
            stacklevel=6,
        )
    return theta if np.ndim(start) == 2 else np.repeat(theta, runs, axis=0)


def _policies(start: Any, shared: SharedClass, policies: Callable[[Any], Array]) -> Array:
    """Return the log-policies that were given; in a game without context axis they may have shape ``(runs, 1, n)``."""
    shape, d = _shape(start), shared.features.d
    rows = np.asarray(start)[:, 0] if len(shape) == 3 and shape[1] == 1 and not shared.batched else start
    try:
        return policies(rows)
    except InputError as error:
        raise InputError(f"{error} (as theta it would have shape ({d},) or (runs, {d}))") from None


def _within(logs: Array, shared: SharedClass) -> Array:
    """Return the θ of policies, or refuse those that are not in the class."""
    theta, d = shared.parameters(logs), shared.features.d
    for run, row in enumerate(logs):
        distance = shared.distance(row, theta[run])
        if not distance <= _IN_CLASS * max(1.0, float(np.abs(row - shared.context.log_reference).max())):
            which = f"start[{run}]" if len(logs) > 1 else "start"
            raise InputError(
                f"{which} is not a log-linear policy of these features: its log-probabilities are {distance:.3g} from those of "
                f"the nearest one; give theta itself, shape ({d},) or (runs, {d})"
            )
    return theta
