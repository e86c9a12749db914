"""The only loop: it advances runs in one context from record to record, compiled together with the method's step."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim import metrics
from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.dynamics.schedules import StepTable
from nlhfsim.errors import Array, InputError
from nlhfsim.games.payoffs import Context, LowRankPayoff, PairwisePayoff
from nlhfsim.games.votes import SampledPayoff
from nlhfsim.log_linear.votes import HELPERS, SharedPairState, SharedVotes, run_shared_pairs
from nlhfsim.pairs import PairState, record_to, run_pairs
from nlhfsim.simplex import log_softmax
from nlhfsim.trajectory import METRICS

_LOGGER = logging.getLogger(__name__)
_BLOCK = 2**20
"""Entries of the log-policies that are held at once for measuring."""
_FEW = 256
"""Below so many actions kernels go over runs in their inner loops."""
_PORTION = 5 * 10**8
"""Multiplications that compiled code is given at once."""


def loop_of(dynamics: Dynamics, fields: tuple[str, ...], compiled: bool, average: str | None = None) -> Callable[..., Any]:
    """Return the loop that `nlhfsim.loop_cache.LOOP` describes, compiled or plain."""
    if compiled:
        from nlhfsim import kernels

        for helper in dynamics.method.helpers:
            kernels.compilable(helper)
        method = dynamics.method
        loop = kernels.compile_loop(method.kernel or method.step, fields, method.kernel is not None, average)
        return _guarded(loop, dynamics.name)
    step = dynamics.method.step

    def plain(
        state: Any,
        context: Context,
        step_sizes: Array,
        params: Any,
        marks: npt.NDArray[np.int64],
        records: Array,
        sums: Array | None = None,
        taken: int = 0,
    ) -> tuple[Any, ...]:
        filled = 0
        for t, step_size in enumerate(step_sizes):
            state = step(state, context, step_size, params)
            if state.logits.shape != records.shape[1:]:
                return (*state, t + 1)
            if sums is not None:
                sums += term_of(average, state.logits)
            if filled < len(marks) and marks[filled] == t + 1:
                records[filled] = state.logits if sums is None else mean_of(average, sums, taken + t + 2)
                filled += 1
            if not np.isfinite(state.logits).all():
                return (*state, t + 1)
        return (*state, len(step_sizes))

    return plain


def term_of(average: str | None, logits: Array) -> Array:
    """Return what is summed up for an average, of policies or of θ."""
    return np.exp(log_softmax(logits)) if average == "policies" else logits


def mean_of(average: str | None, sums: Array, count: int) -> Array:
    """Return the logits of the average of `count` iterates."""
    mean = sums / count
    return np.asarray(np.log(mean)) if average == "policies" else mean


def loop_of_pairs(compiled: bool, shared: bool = False) -> Callable[..., Any]:
    """Return the loop of methods that learn from pairs, with a θ for each context or one that they share.

    Step sizes of shape ``(steps, inner)`` are those of inner steps.
    """
    loop: Callable[..., Any] = run_shared_pairs if shared else run_pairs
    if compiled:
        from nlhfsim import kernels

        loop = _guarded(kernels.compile_whole(loop, HELPERS if shared else ()), "learning from pairs")

    def adapted(
        state: Any, context: Context, step_sizes: Array, pairs: Any, marks: npt.NDArray[np.int64], records: Array
    ) -> tuple[Any, ...]:
        if shared:  # one a context, all the same
            step_sizes = step_sizes[..., 0, 0]
        inner = step_sizes[:1].size
        *fields, count = loop(state, context, step_sizes.ravel(), pairs, marks * inner, records)
        return (*fields, -(-count // inner))

    return adapted


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
                f"the step of {name} does not compile: run it with compiled=False to see what is wrong with it, name the plain "
                "functions that it calls in Method(helpers=…), or declare its Method with compiled=False if it is right but "
                "beyond Numba"
            ) from error

    return guarded


@dataclass
class ContextRuns:
    """Runs in one context that advance together: their state, and the records made so far.

    The fields of `state` are those of one run, shape ``(n,)``, if `together` is False; else arrays carry a leading axis of runs,
    ``(runs, n)``, and numbers are common to all. `numbers` are the runs' numbers in the simulation.
    `context` is what is measured, `seen` what the steps see: with sampled feedback its payoff answers with votes. `sums` are
    those of an average, shape ``(n,)``, if one is wanted of a method that does not learn from pairs.
    With `rows` the leading axis is that of the contexts of one run, which share parameters, so that they end together.
    """

    loop: Callable[..., Any]
    context: Context
    seen: Context
    params: Any
    state: Any
    log_equilibrium: Array | None
    numbers: list[int]
    together: bool
    in_place: bool
    average: str | None = None
    sums: Array | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    rows: tuple[Context, ...] | None = None

    def __post_init__(self) -> None:
        """Note that nothing diverged so far."""
        self.runs = len(self.numbers)
        self.n = self.state.logits.shape[-1]
        self.diverged_at: list[int | None] = [None] * self.runs
        self.unmeasured = ""

    def go(self, steps: npt.NDArray[np.int64], sizes: StepTable, keep: bool) -> None:
        """Advance from record to record; measure in blocks, so that memory stays bounded."""
        self.log_policies = np.empty((self.runs, len(steps), self.n)) if keep else None
        self.values = {name: np.full((self.runs, len(steps)), np.nan) for name in METRICS}
        # Compiled code hears no interrupt, so it is given at most about half a second of work at a time.
        self.portion = max(1, _PORTION // (self.runs * _work(self.seen, self.state, self.runs) * sizes.per_step))
        block = max(1, _BLOCK // (self.n * self.runs))
        done = 0
        for begin in range(0, len(steps), block):
            marks = steps[begin : begin + block] - steps[0]
            _LOGGER.debug("step %d of %d", steps[begin], steps[-1])
            logits = np.full((len(marks), self.runs, self.n), np.nan)
            if begin == 0:
                logits[0] = self.shown(int(steps[0])).reshape(self.runs, self.n)
            self._advance(done, marks, sizes, logits, int(steps[0]))
            done = int(marks[-1])
            with np.errstate(all="ignore"):
                logs = log_softmax(logits).swapaxes(0, 1)
                measured = self._measured(logs)
            for name in METRICS:
                self.values[name][:, begin : begin + len(marks)] = measured[name]
            if self.log_policies is not None:
                self.log_policies[:, begin : begin + len(marks)] = logs

    def _measured(self, logs: Array) -> dict[str, Array]:
        """Return every metric of log-policies ``(runs, records, n)``, those of contexts each in its own."""
        if self.rows is None:
            measured, self.unmeasured = metrics.of_context(self.context, logs, self.log_equilibrium)
            return measured
        targets = [None] * self.runs if self.log_equilibrium is None else list(self.log_equilibrium)
        each = [metrics.of_context(*arguments) for arguments in zip(self.rows, logs, targets)]
        self.unmeasured = each[0][1]
        return {name: np.stack([values[name] for values, _ in each]) for name in METRICS}

    def shown(self, taken: int) -> Array:
        """Return the logits of the iterate that is recorded after `taken` steps, the last or the average, shape ``(runs, n)``."""
        if self.sums is not None:
            return mean_of(self.average, self.sums, taken + 1).reshape(self.runs, self.n)
        if isinstance(self.state, PairState):
            recorded = np.empty(self.n)
            record_to(recorded, self.state, self.state.taken, self.params.inner)
            return recorded[None]
        if isinstance(self.state, SharedPairState):
            return self.state.shown
        return np.asarray(self.state.logits).reshape(self.runs, self.n)

    def part(self, name: str) -> Array:
        """Return a field of the state, shape ``(runs, ...)``; a number is repeated."""
        value = np.asarray(getattr(self.state, name))
        return value if self.together and value.ndim else np.broadcast_to(value, (self.runs, *value.shape))

    def _advance(self, done: int, marks: npt.NDArray[np.int64], sizes: StepTable, logits: Array, first: int) -> None:
        """Go from `done` to the last mark, filling ``logits (marks, runs, n)``; rows of runs that diverged stay NaN."""
        while done < marks[-1]:
            live = [run for run in range(self.runs) if self.diverged_at[run] is None]
            if not live or self.stopped.is_set():
                return
            end = min(done + self.portion, int(marks[-1]))
            inside = np.flatnonzero((marks > done) & (marks <= end))
            out = np.full((len(inside), *((len(live),) if self.together else ()), self.n), np.nan)
            numbers = [self.numbers[run] for run in live]
            count = self._call(live, sizes.between(done, end, numbers, self.together), marks[inside] - done, out, first + done)
            filled = int(np.searchsorted(marks[inside], done + count, side="right"))
            out = out.reshape(len(inside), len(live), self.n)
            for column, run in enumerate(live):
                if self.diverged_at[run] is not None and filled and marks[inside[filled - 1]] == done + count:
                    out[filled - 1, column] = np.nan
            logits[np.ix_(inside[:filled], np.array(live))] = out[:filled]
            done += count

    def _call(self, live: list[int], sizes: Array, marks: npt.NDArray[np.int64], out: Array, first: int) -> int:
        """Let the loop do up to ``len(sizes)`` steps of the runs that are alive; return how many it did."""
        some = self.together and len(live) < self.runs
        # A kernel overwrites the arrays it is given; at few actions its inner loops go over runs, which are then neighbours.
        order: Any = "F" if self.in_place and self.n < _FEW else "C"
        parts = (field[live] if some and np.ndim(field) else field for field in self.state)
        state = type(self.state)(*(np.array(part, order=order) if np.ndim(part) else part for part in parts))
        with np.errstate(all="ignore"):
            more = () if self.sums is None else (self.sums, first)
            *fields, count = self.loop(state, self.seen, sizes, self.params, marks, out, *more)
        _raise_kept(self.seen.payoff)
        after = type(state)(*fields)
        if after.logits.shape != state.logits.shape:
            raise InputError(f"the step returns logits of shape {after.logits.shape}, must be {state.logits.shape}")
        lost = ~np.isfinite(after.logits.reshape(len(live), self.n)).all(axis=1)
        for run in np.array(live)[lost] if self.rows is None or not lost.any() else live:
            self.diverged_at[run] = first + int(count)
        if some:
            after = type(state)(*(_merged(old, new, live) for old, new in zip(self.state, after)))
        self.state = after
        return int(count)


def _raise_kept(payoff: Any) -> None:
    """Raise what a preference function of the user's raised while compiled code called it."""
    votes = payoff.votes if isinstance(getattr(payoff, "votes", None), SharedVotes) else payoff
    error = getattr(getattr(getattr(votes, "payoff", None), "function", None), "error", None)
    if isinstance(error, Exception):
        raise InputError(f"function must take two integer arrays (i, j) and return probabilities: {error!r}") from error
    if error is not None:
        raise error


def _merged(old: Any, new: Any, live: list[int]) -> Any:
    """Return a field of all runs after those in `live` went on."""
    if not np.ndim(new):
        return new
    whole = old.copy()
    whole[live] = new
    return whole


def _work(context: Context, state: Any, runs: int) -> int:
    """Return about how many multiplications a step of one run takes; in a matrix-matrix product ten count as one."""
    n = len(context.log_reference)
    if isinstance(context.payoff, SharedVotes | SampledPayoff):
        # A preference function of the user's may take some microseconds a pair.
        a_pair = 20_000 if isinstance(context.payoff.payoff, PairwisePayoff) else 400
        if isinstance(context.payoff, SharedVotes):
            return int(context.payoff.batch_size * (a_pair + 4 * len(context.payoff.data) // n))
        return context.payoff.batch_size * a_pair + (0 if isinstance(state, PairState) else 20 * n)
    if isinstance(context.payoff, LowRankPayoff):
        return 4 * n * int(context.payoff.left.shape[1]) + 400
    return n * n // (1 if runs < 8 else 10) + 400


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
