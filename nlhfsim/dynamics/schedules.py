"""Step sizes that change with time: functions t -> γ_t for t = 0, 1, …"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlhfsim.errors import Array, InputError, ensure_array, ensure_integer, ensure_positive

StepSize = float | Callable[[int], float] | tuple[float, ...]
"""One number, a function of t, or one number a run."""
WRITTEN = ("inverse-time:", "two-stage:")
"""How the text of a schedule begins, see `parse`."""
_LONGEST = 2 * 10**7
"""Up to so many step sizes a table of a whole schedule is made."""


@dataclass(frozen=True)
class InverseTime:
    """γ_t = c / (t + t0)."""

    c: float
    t0: float

    def __call__(self, t: int) -> float:
        """Return γ_t."""
        return self.c / (t + self.t0)

    def table(self, start: int, stop: int) -> Array:
        """Return γ_t for t in [start, stop)."""
        return np.asarray(self.c / (np.arange(start, stop) + self.t0))

    def __str__(self) -> str:
        return f"inverse-time:{self.c:g},{self.t0:g}"


@dataclass(frozen=True)
class TwoStage:
    """γ_t = first for t < switch, then second."""

    first: float
    second: float
    switch: int

    def __call__(self, t: int) -> float:
        """Return γ_t."""
        return self.first if t < self.switch else self.second

    def table(self, start: int, stop: int) -> Array:
        """Return γ_t for t in [start, stop)."""
        return np.where(np.arange(start, stop) < self.switch, self.first, self.second)

    def __str__(self) -> str:
        return f"two-stage:{self.first:g},{self.second:g},{self.switch}"


def inverse_time(c: float, t0: float = 1.0) -> InverseTime:
    """Return the schedule γ_t = c/(t + t0), t = 0, 1, …; c > 0, t0 > 0.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> schedule = nl.schedules.inverse_time(20, 2)    # Nash-MD's rate at beta = 0.1
    >>> schedule(0), schedule(8)
    (10.0, 2.0)
    """
    return InverseTime(ensure_positive("c", c), ensure_positive("t0", t0))


def two_stage(first: float, second: float, switch: int) -> TwoStage:
    """Return the schedule that is `first` for t < `switch` and `second` from then on; both steps > 0.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> schedule = nl.schedules.two_stage(1.0, 0.1, 100)
    >>> schedule(99), schedule(100)
    (1.0, 0.1)
    """
    return TwoStage(ensure_positive("first", first), ensure_positive("second", second), ensure_integer("switch", switch, 1))


def parse(text: str) -> InverseTime | TwoStage:
    """Read a schedule as the command line writes it: ``inverse-time:c,t0`` or ``two-stage:first,second,switch``."""
    kind, _, numbers = text.partition(":")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        raise InputError(f"schedule {text!r} must be numbers after the colon, as in inverse-time:20,2") from None
    if kind == "inverse-time" and len(values) in (1, 2):
        return inverse_time(*values)
    if kind == "two-stage" and len(values) == 3:
        return two_stage(values[0], values[1], ensure_integer("switch", values[2], 1))
    raise InputError(f"schedule {text!r} is unknown; write inverse-time:c,t0 or two-stage:first,second,switch")


def values(name: str, step_size: Callable[[int], float], start: int, stop: int) -> Array:
    """Return γ_t of a schedule for t in [start, stop), shape ``(stop - start,)``; each must be finite and at least 0."""
    if isinstance(step_size, InverseTime | TwoStage):
        return step_size.table(start, stop)
    try:
        table = np.array([step_size(t) for t in range(start, stop)], dtype=np.float64)
    except ArithmeticError as error:
        raise InputError(f"{name} must return one number for each step t = 0, 1, …: {error} (steps count from 0)") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must return one number for each step t: {error}") from None
    if table.shape != (stop - start,):
        raise InputError(f"{name} must return one number for each step t, not an array of shape {table.shape[1:]}")
    bad = np.flatnonzero(~(np.isfinite(table) & (table >= 0)))
    if len(bad):
        raise InputError(f"{name} is {table[bad[0]]} at step {start + bad[0]}, must be finite and not negative")
    return table


class StepTable:
    """The step sizes of a simulation, in pieces.

    Parameters
    ----------
    name : str
        The parameter's name, for messages.
    step_size : float, schedule or tuple of float
        One for all runs, or one a run.
    first, last : int
        The steps that will be done are those in [first, last).
    inner : int or None
        How many values one step uses; None: it uses one number, not an array of them.
    """

    def __init__(self, name: str, step_size: StepSize, first: int, last: int, inner: int | None) -> None:
        self._step_size = step_size
        self._inner = inner
        self.per_step = 1 if inner is None else inner
        self._name, self._first = name, first
        self._table = None
        # Many runs read the table, so it is made once, unless that takes too much memory.
        if callable(step_size) and (last - first) * self.per_step <= _LONGEST:
            self._table = values(name, step_size, first * self.per_step, last * self.per_step)

    def between(self, begin: int, end: int, runs: list[int], together: bool) -> Array:
        """Return those of the steps in [begin, end), counted from `first`, for some of the runs.

        Shape ``(end - begin, [inner,] runs, 1)`` if they go together, else, of one run, ``(end - begin, [inner])``.
        """
        shape = (end - begin,) if self._inner is None else (end - begin, self._inner)
        if isinstance(self._step_size, tuple):
            table = np.broadcast_to(np.array(self._step_size)[runs], (*shape, len(runs)))
        else:
            if not callable(self._step_size):
                common = np.full(shape, self._step_size)
            elif self._table is not None:
                common = self._table[begin * self.per_step : end * self.per_step].reshape(shape)
            else:
                steps = [(self._first + step) * self.per_step for step in (begin, end)]
                common = values(self._name, self._step_size, *steps).reshape(shape)
            table = np.broadcast_to(common[..., None], (*shape, len(runs)))
        return np.array(table[..., None] if together else table[..., 0], dtype=np.float64, order="C")


def ensure_step_size(name: str, value: Any) -> StepSize | None:
    """Return a step size: a positive float, a schedule, a tuple of floats, or None (the method's safe step on the game)."""
    if value is None or callable(value):
        return value  # type: ignore[no-any-return]
    if np.ndim(value) == 0:
        return ensure_positive(name, value)
    steps = ensure_array(name, value)
    if steps.ndim != 1 or not len(steps):
        raise InputError(f"{name} has shape {steps.shape}, must be one number, or one a run, shape (runs,)")
    return tuple(ensure_positive(name, step) for step in steps)


def describe(step_size: StepSize) -> Any:
    """Return a step size in the form that JSON and tables take: a number, a list of them, or a schedule's name."""
    if isinstance(step_size, tuple):
        return list(step_size)
    if not callable(step_size):
        return float(step_size)
    return str(step_size) if isinstance(step_size, (InverseTime, TwoStage)) else getattr(step_size, "__name__", "callable")
