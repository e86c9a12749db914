"""How fast small deviations from a fixed point shrink or grow along runs, and at which step sizes they begin to grow.

Nothing here is linearized: the method's own step is run, on full states.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._spec import Measured
from nlhfsim.claims._step import step_input
from nlhfsim.dynamics import Dynamics
from nlhfsim.errors import Array
from nlhfsim.simplex import log_softmax

_SIZE = 1e-5
"""Deviations are kept near this size: rounding of θ is 1e-10 of it, and its square 1e-5."""
_SHORTEST, _LONGEST = 200, 12_800
_AGREE = 1e-2
_FOLDS = 30
"""By so many powers of e a deviation shrinks or grows in a run at least, so that modes of nearly the same size part."""
_SETTLED = 1e-15


def growth(case: Case, dynamics: Dynamics) -> Measured:
    """Return by which factor a small generic deviation grows in a step, as a logarithm; NaN if it could not be told.

    The run is made longer until the slopes of its last three quarters agree; half their spread is the uncertainty.
    """
    size = step_input(dynamics, case.step_size)
    rest = _at_rest(case, dynamics, size)
    noise = np.random.default_rng(case.n).standard_normal(case.n)
    state = _moved(rest, noise - noise.mean())
    logs: list[float] = []
    total, steps = 0.0, _SHORTEST
    while steps <= _LONGEST:
        while len(logs) < steps:
            state = dynamics.method.step(state, case.context, size, dynamics.params)
            deviation = _distance(rest, state)
            if deviation == 0:
                return Measured(np.nan)
            logs.append(total + np.log(deviation))
            if not _SIZE / 10 < deviation < _SIZE * 10:
                total += float(np.log(deviation / _SIZE))
                state = _scaled(rest, state, _SIZE / deviation)
        slopes = [_slope(logs[steps * k // 4 : steps * (k + 1) // 4]) for k in (1, 2, 3)]
        rate = abs(float(np.mean(slopes)))
        if np.ptp(slopes) <= _AGREE * rate and rate * steps >= _FOLDS:
            return Measured(_slope(logs[steps // 2 :]), float(np.ptp(slopes)) / 2)
        steps *= 2
    return Measured(np.nan)


def _slope(logs: list[float]) -> float:
    return float(np.polyfit(np.arange(len(logs)), logs, 1)[0])


def _at_rest(case: Case, dynamics: Dynamics, size: Any) -> Any:
    """Return the state at the fixed point, by running from π* until nothing moves."""
    method = dynamics.method
    state = method.init(case.context, dynamics.params, case.log_equilibrium)
    for _ in range(_LONGEST):
        after = method.step(state, case.context, size, dynamics.params)
        moved = float(np.abs(log_softmax(after.logits) - log_softmax(state.logits)).max())
        state = after
        if moved <= _SETTLED or method.fixed_point != "biased" and moved < 1e-12:
            break
    return state


def _moved(rest: Any, noise: Array) -> Any:
    return rest._replace(logits=log_softmax(rest.logits + _SIZE * noise))


def _distance(rest: Any, state: Any) -> float:
    """Return the distance of the full states, constants of logits left out."""
    parts = [log_softmax(state.logits) - log_softmax(rest.logits)]
    parts += [np.asarray(b) - a for a, b in zip(rest[1:], state[1:]) if isinstance(a, np.ndarray)]
    return float(np.sqrt(sum(np.sum((part - part.mean()) ** 2) for part in parts)))


def _scaled(rest: Any, state: Any, factor: float) -> Any:
    """Return the state whose deviation from the fixed point is `factor` times as large; counters stay.

    Constants carry no meaning and would grow with the factor; a step may rely on logits that are normalized.
    """

    def scaled(before: Any, after: Any) -> Any:
        if not isinstance(before, np.ndarray):
            return after
        deviation = after - before
        return before + factor * (deviation - deviation.mean())

    found = type(state)(*(scaled(a, b) for a, b in zip(rest, state)))
    return found._replace(logits=log_softmax(found.logits))


# --- thresholds ------------------------------------------------------------------------------------------------------------

_RUNS = 28
_STEPS = 2000
_START = 1e-6
_FAR = 1e-3
_NOTHING = 1e-30


def unstable(case: Case, dynamics: Dynamics, step_sizes: Array, steps: int = _STEPS) -> Any:
    """Return for each step size whether a run from next to π* leaves it, shape ``(runs,)``."""
    noise = np.random.default_rng(case.n).standard_normal(case.n)
    start = log_softmax(case.log_equilibrium + _START * noise)
    if dynamics.method.together:
        logs = _log_deviations(case, dynamics, np.tile(start, (len(step_sizes), 1)), step_sizes[:, None], steps)
    else:
        logs = np.stack([_log_deviations(case, dynamics, start, float(size), steps) for size in step_sizes], axis=1)
    third, last = logs[steps // 2 : 3 * steps // 4].mean(axis=0), logs[3 * steps // 4 :].mean(axis=0)
    # A run that came close to π*, where rounding takes over, came back.
    back = (last < third) | (last < np.log(_START) - 5)
    return ~(back & (logs.max(axis=0) < np.log(_FAR)))


def _log_deviations(case: Case, dynamics: Dynamics, start: Array, step_size: Any, steps: int) -> Array:
    """Return the logarithm of the distance from π* after each step, of one run, or of many in which the method steps together."""
    method, params, context = dynamics.method, dynamics.params, case.context
    state = method.init(context, params, start)
    logs = np.empty((steps, *start.shape[:-1]))
    with np.errstate(all="ignore"):
        for t in range(steps):
            state = method.step(state, context, step_size, params)
            deviation = np.abs(log_softmax(state.logits) - case.log_equilibrium).max(axis=-1)
            logs[t] = np.log(np.maximum(deviation, _NOTHING))
            if np.all(~(logs[t] < np.log(_FAR)) | (logs[t] < np.log(_START) - 6)):
                logs[t:] = logs[t]  # every run has left, or come back: what follows changes nothing
                break
    return logs


def turning_points(case: Case, dynamics: Dynamics, low: float, high: float) -> list[Measured]:
    """Return the step sizes between `low` and `high` at which runs from next to π* turn from stable to unstable, or back."""
    grid = np.geomspace(low, high, _RUNS)
    found = []
    for k in _turns(unstable(case, dynamics, grid)):
        finer = np.geomspace(grid[k], grid[k + 1], _RUNS)
        for j in _turns(unstable(case, dynamics, finer)):
            found.append(Measured(float(np.sqrt(finer[j] * finer[j + 1])), float(finer[j + 1] - finer[j]) / 2))
    return found


def _turns(states: Array) -> list[int]:
    return [int(k) for k in np.flatnonzero(states[1:] != states[:-1])]
