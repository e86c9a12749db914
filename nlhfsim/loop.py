"""The only loop: it advances one run in one context from record to record, compiled together with the method's step."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim import metrics
from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.errors import Array, InputError
from nlhfsim.games.payoffs import Context
from nlhfsim.simplex import log_softmax
from nlhfsim.trajectory import METRICS

_LOGGER = logging.getLogger(__name__)
_BLOCK = 2**22
"""Entries of the log-policies that are held at once for measuring."""
_PORTION = 10**8
"""Multiplications that compiled code is given at once."""


def loop_of(dynamics: Dynamics, fields: tuple[str, ...], compiled: bool) -> Callable[..., Any]:
    """Return ``loop(state, context, step_sizes, params) -> (*fields of the state, steps done)``, compiled or plain."""
    if compiled:
        from nlhfsim import kernels

        for helper in dynamics.method.helpers:
            kernels.compilable(helper)
        return _guarded(kernels.compile_loop(dynamics.method.step, fields), dynamics.name)
    step = dynamics.method.step

    def plain(state: Any, context: Context, step_sizes: Array, params: Any) -> tuple[Any, ...]:
        for t, step_size in enumerate(step_sizes):
            state = step(state, context, step_size, params)
            if not np.isfinite(state.logits).all():
                return (*state, t + 1)
        return (*state, len(step_sizes))

    return plain


def _guarded(loop: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a compiled loop that an interrupt does not crash, and that says in a sentence that a step does not compile."""

    def guarded(*arguments: Any) -> tuple[Any, ...]:
        try:
            with _interrupts_deferred():
                result: tuple[Any, ...] = loop(*arguments)
            return result
        except Exception as error:
            if not type(error).__module__.startswith("numba"):
                raise
            raise InputError(
                f"the step of {name} does not compile: run it with compiled=False to see what is wrong with it, or declare its "
                "Method with compiled=False if it is right but beyond Numba"
            ) from error

    return guarded


@dataclass
class ContextRun:
    """One run in one context: its state, and the records made so far."""

    loop: Callable[..., Any]
    context: Context
    params: Any
    state: Any
    log_equilibrium: Array | None
    diverged_at: int | None = None

    def go(self, steps: npt.NDArray[np.int64], table: Array, keep: bool) -> None:
        """Advance from record to record; measure in blocks, so that memory stays bounded."""
        n = len(self.state.logits)
        self.log_policies = np.empty((len(steps), n)) if keep else None
        self.values = {name: np.full(len(steps), np.nan) for name in METRICS}
        # Compiled code hears no interrupt, so it is given at most about half a second of work at a time.
        self.portion = max(1, _PORTION // ((n * n + 50) * (table.shape[1] if table.ndim == 2 else 1)))
        block = max(1, _BLOCK // n)
        for begin in range(0, len(steps), block):
            chosen = range(begin, min(begin + block, len(steps)))
            logs = np.stack([self._advance_to(steps, record, table) for record in chosen])
            with np.errstate(all="ignore"):
                measured = metrics.of_context(self.context, logs, self.log_equilibrium)
            for name in METRICS:
                self.values[name][begin : begin + len(logs)] = measured[name]
            if self.log_policies is not None:
                self.log_policies[begin : begin + len(logs)] = logs

    def _advance_to(self, steps: npt.NDArray[np.int64], record: int, table: Array) -> Array:
        """Return the log-policy at a record, NaN once diverged."""
        _LOGGER.debug("step %d of %d", steps[record], steps[-1])
        if record > 0 and self.diverged_at is None:
            begin, end = int(steps[record - 1] - steps[0]), int(steps[record] - steps[0])
            for part in range(begin, end, self.portion):
                sizes = table[part : min(part + self.portion, end)]
                with np.errstate(all="ignore"):
                    *fields, done = self.loop(self.state, self.context, sizes, self.params)
                shape = self.state.logits.shape
                self.state = type(self.state)(*fields)
                if self.state.logits.shape != shape:
                    raise InputError(f"the step returns logits of shape {self.state.logits.shape}, must be {shape}")
                if not np.isfinite(self.state.logits).all():
                    self.diverged_at = int(steps[0]) + part + int(done)
                    break
        if self.diverged_at is not None:
            return np.full(len(self.state.logits), np.nan)
        return log_softmax(self.state.logits)


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Hold back an interrupt until compiled code has handed its result over: raised in between, it would crash the process."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        handler(*held[0])
