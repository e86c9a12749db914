"""High-probability convergence, measured: how the quantiles of an error over many runs shrink with time and grow with 1/δ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, ensure_array, ensure_between, ensure_choice, ensure_integer
from nlhfsim.trajectory import CLOCKS, METRICS, Trajectory

DELTAS = (0.5, 0.1, 0.05, 0.01)
_RESAMPLES = 1000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class HighProbability:
    """Quantiles over runs of an error that should fall like 1/T, with bootstrap intervals over runs (95 %).

    Attributes
    ----------
    deltas : tuple of float
        δ: the quantiles are those of level 1 - δ.
    times : numpy.ndarray
        The clock at the records used, shape ``(records,)``.
    quantiles : numpy.ndarray
        Shape ``(deltas, records)``.
    intervals : numpy.ndarray
        Their bootstrap intervals at the last record, shape ``(deltas, 2)``.
    slopes : numpy.ndarray
        Of log quantile against log time, by least squares over the records used, shape ``(deltas,)``.
    slope_intervals : numpy.ndarray
        Shape ``(deltas, 2)``.
    tail_growth : float
        How much faster the last quantiles grow in log(1/δ) between the two smallest δ than between the two largest: 1 if the tail
        is exponential (quantiles linear in log(1/δ)), 1.24 for χ² with one degree of freedom, above for heavier tails. NaN with
        fewer than three δ.
    tail_growth_interval : tuple of float
        Its bootstrap interval.
    metric, clock : str
        What was measured, and against what.
    runs : int
        Number of runs.
    """

    deltas: tuple[float, ...]
    times: Array
    quantiles: Array
    intervals: Array
    slopes: Array
    slope_intervals: Array
    tail_growth: float
    tail_growth_interval: tuple[float, float]
    metric: str
    clock: str
    runs: int

    def __str__(self) -> str:
        """Return a table: a row a δ."""
        words = [f"{self.metric} over {self.runs} runs, {self.clock} {self.times[0]:g} to {self.times[-1]:g}"]
        words.append("   δ   quantile at the end (95 %)            slope (95 %)")
        for delta, row, last, slope, span in zip(self.deltas, self.quantiles, self.intervals, self.slopes, self.slope_intervals):
            ends = f"{row[-1]:.3g} ({last[0]:.3g} to {last[1]:.3g})"
            words.append(f"{delta:5g}  {ends:36s} {slope:.2f} ({span[0]:.2f} to {span[1]:.2f})")
        low, high = self.tail_growth_interval
        words.append(f"tail growth in log(1/δ): {self.tail_growth:.2f} ({low:.2f} to {high:.2f}), 1 if exponential")
        return "\n".join(words)

    def plot(self, ax: Any = None) -> Any:
        """Draw the quantiles against time, and return the matplotlib axes; see `nlhfsim.plots.high_probability`."""
        from nlhfsim import plots

        return plots.high_probability(self, ax)

    def falls_like_inverse_time(self, tolerance: float = 0.1) -> bool:
        """Return whether the slope of every quantile is within `tolerance` of -1."""
        return bool((np.abs(self.slopes + 1) <= tolerance).all())

    def grows_at_most_linearly(self, largest: float = 1.5) -> bool:
        """Return whether growth in log(1/δ) is at most linear: its bootstrap interval reaches down to `largest` or below."""
        return bool(self.tail_growth_interval[0] <= largest)


def high_probability(
    trajectory: Trajectory,
    metric: str = "kl",
    deltas: Sequence[float] = DELTAS,
    *,
    clock: str = "steps",
    after: float | None = None,
    seed: int = 0,
) -> HighProbability:
    """Measure how the (1 - δ)-quantiles over runs of a metric fall with time.

    Parameters
    ----------
    trajectory : Trajectory
        Many runs of one method: at least ``2/min(deltas)`` of them.
    metric : str
        ``"kl"``, ``"exploitability"``, …
    deltas : sequence of float
        δ in (0, 1), largest first.
    clock : str
        ``"steps"``, ``"oracle_calls"`` or ``"queries"``.
    after : float, optional
        Slopes are fitted to the records from this time on. Default: a tenth of the last time.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    HighProbability
        Quantiles, slopes and their intervals. ``falls_like_inverse_time()`` asks whether all slopes are within 0.1 of -1,
        ``grows_at_most_linearly()`` whether the tail is no heavier than exponential in log(1/δ).

    Raises
    ------
    InputError
        If there are too few runs or records, a δ is out of range, or a run diverged.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(beta=0.5)
    >>> method = nl.dynamics.SelfPlayPG(step_size=nl.schedules.inverse_time(12, 12))
    >>> runs = nl.simulate(game, method, 20_000, feedback=nl.Sampled(), runs=200, start=[0.5, 0.3, 0.2])
    >>> found = nl.high_probability(runs, deltas=(0.5, 0.1))
    >>> found.falls_like_inverse_time(0.2)
    True
    """
    if not callable(getattr(trajectory, "metric", None)):
        raise InputError(f"trajectory = {trajectory!r} must be the result of nl.simulate, many runs of it")
    ensure_choice("metric", metric, METRICS)
    times = np.asarray(getattr(trajectory, ensure_choice("clock", clock, CLOCKS)), dtype=np.float64)
    chosen = _ensure_deltas(deltas, trajectory.runs)
    begin = times[-1] / 10 if after is None else float(after)
    used = (times >= begin) & (times > 0)
    if used.sum() < 3:
        raise InputError(f"after = {begin:g} leaves {used.sum()} records, must leave at least 3 of {len(times)}")
    values = trajectory.metric(metric)[:, used]
    if not (np.isfinite(values) & (values > 0)).all():
        why = "; ".join(trajectory.notes[:2]) or "it is 0"
        raise InputError(f"{metric} is not a positive number in every run and record: {why}")
    levels = 1 - np.array(chosen)
    quantiles = np.quantile(values, levels, axis=0)
    rng = np.random.default_rng(ensure_integer("seed", seed))
    draws = [np.quantile(values[rng.integers(0, len(values), len(values))], levels, axis=0) for _ in range(_RESAMPLES)]
    resampled = np.stack(draws)
    growth = _tail_growth(quantiles[:, -1], chosen)
    growths = np.array([_tail_growth(draw[:, -1], chosen) for draw in resampled])
    low, high = (np.nan, np.nan) if np.isnan(growth) else _interval(growths)
    return HighProbability(
        deltas=chosen,
        times=times[used],
        quantiles=quantiles,
        intervals=_interval(resampled[:, :, -1]),
        slopes=_slopes(times[used], quantiles),
        slope_intervals=_interval(np.stack([_slopes(times[used], draw) for draw in resampled])),
        tail_growth=growth,
        tail_growth_interval=(float(low), float(high)),
        metric=metric,
        clock=clock,
        runs=len(values),
    )


def _ensure_deltas(deltas: Sequence[float], runs: int) -> tuple[float, ...]:
    chosen = tuple(ensure_between("deltas", float(delta), 0.0, 1.0) for delta in np.atleast_1d(ensure_array("deltas", deltas)))
    if not chosen or min(chosen) <= 0 or max(chosen) >= 1 or list(chosen) != sorted(set(chosen), reverse=True):
        raise InputError(f"deltas = {list(chosen)} must lie between 0 and 1, each smaller than the one before")
    if runs * min(chosen) < 2:
        raise InputError(
            f"deltas: a quantile of level 1 - {min(chosen):g} takes at least {int(np.ceil(2 / min(chosen)))} runs, not {runs}"
        )
    return chosen


def _slopes(times: npt.NDArray[np.float64], quantiles: Array) -> Array:
    """Return the slope of log quantile against log time of each row."""
    clock = np.log(times) - np.log(times).mean()
    return np.asarray(np.log(quantiles) @ clock / (clock @ clock))


def _tail_growth(last: Array, deltas: tuple[float, ...]) -> float:
    if len(deltas) < 3:
        return float("nan")
    rates = np.diff(last) / np.diff(-np.log(deltas))
    return float(rates[-1] / rates[0]) if rates[0] > 0 else float("inf")


def _interval(draws: Array) -> Array:
    """Return the bootstrap interval over the first axis, shape ``(..., 2)``."""
    tails = ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2)
    return np.moveaxis(np.quantile(draws, tails, axis=0), 0, -1)
