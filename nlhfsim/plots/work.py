"""What precision costs: the work until an error was first reached, a curve a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nlhfsim.compare import Comparison
from nlhfsim.errors import Array, InputError, ensure_choice, ensure_positive
from nlhfsim.plots.curves import CLOCK_WORDS, FLOORS, WORDS
from nlhfsim.plots.style import DOUBLE, SINGLE, axes_or_new, finish, fit_height, legend, looks_of, marker_of, narrow, style
from nlhfsim.trajectory import CLOCKS, Trajectory
from nlhfsim.tuning import Tuning

_A_DECADE = 8
"""Levels at which the work is measured."""
_METRICS = ("exploitability", "kl", "gap0")
_BAND = (0.1, 0.9)
_VAIN = (0, (1, 1.5))
_ALMOST = 0.9
"""What was spent after this share of the work is too little to be called in vain."""
_ROUNDING = {"kl": 1e-24, "exploitability": 1e-24, "gap0": 1e-14}
"""A curve that ends lower has ended at rounding."""


def work_precision(
    found: Comparison | Tuning | Trajectory | Sequence[Trajectory | Tuning],
    metric: str = "exploitability",
    *,
    work: str | None = None,
    seconds_per_step: Mapping[str, float] | None = None,
    ax: Any = None,
) -> Any:
    """Draw the work until an error was first at or below a level, for every level, both logarithmic, and return the axes.

    A curve a method: the median over runs (the lower of two), with a band from the 10 % to the 90 % quantile of the work where
    there are several. A run that never came so low counts as infinite work, so a curve ends where half of the runs do; from there
    a dotted line shows what was spent in vain.

    Parameters
    ----------
    found : Comparison, Tuning, Trajectory, or sequence of Trajectory or Tuning
        From `nlhfsim.compare`, `nlhfsim.tune` or `nlhfsim.simulate`. Records are the resolution: use ``record_every=1`` for
        exact work.
    metric : str
        ``"exploitability"``, ``"kl"`` or ``"gap0"``; what lies below rounding (1e-30, for ``"gap0"`` 1e-16) is not drawn.
    work : str, optional
        ``"oracle_calls"``, ``"queries"``, ``"steps"`` or ``"seconds"``. Default: queries if votes were made, else oracle calls,
        or steps where a method does not count them; seconds if they are given.
    seconds_per_step : mapping, optional
        By method name how long a step took, as measured by you: seconds are not part of the records, which are the same on every
        machine.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure, two columns wide for more than four methods.

    Raises
    ------
    InputError
        If there is nothing to draw, or a method lacks what the work is counted in.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.05)
    >>> comparison = nl.compare(game, ["SelfPlayPG", "NashMirrorProx"], oracle_calls=400, start=[0.8, 0.1, 0.1])
    >>> axes = nl.plots.work_precision(comparison)
    >>> axes.get_xscale(), axes.get_xlabel()
    ('log', 'Oracle calls')
    """
    trajectories = _trajectories(found)
    ensure_choice("metric", metric, _METRICS)
    clock = _clock(trajectories, work, seconds_per_step)
    times = [_times(trajectory, clock, seconds_per_step or {}) for trajectory in trajectories]
    levels = _levels(trajectories, metric)
    looks = looks_of(trajectories)
    wide = len(trajectories) > 4 or (len(trajectories) > 2 and not narrow(look["label"] for look in looks))
    with style():
        axes = axes_or_new(ax, (DOUBLE, 3.0) if wide else (SINGLE, 2.7))
        axes.set_xscale("log")
        axes.set_yscale("log")
        for k, (trajectory, spent, look) in enumerate(zip(trajectories, times, looks)):
            marks = {"marker": marker_of(trajectory.dynamics), "markevery": (0.02 + 0.025 * (k % 7), 0.17), "markersize": 3.6}
            reached = _draw_curve(axes, spent, trajectory.metric(metric), levels, **look, **marks, markeredgewidth=0)
            if reached is not None and reached[1] > _ROUNDING[metric] and reached[0] < _ALMOST * spent[-1]:
                _draw_vain(axes, *reached, spent[-1], look["color"])
        axes.set_xlabel("Seconds" if clock == "seconds" else CLOCK_WORDS[clock])
        axes.set_ylabel(WORDS[metric])
        finish(axes, grid=True)
        handles = _keys(axes, trajectories)
        legend(axes, handles, "beside" if wide else "above")
        if ax is None and not wide:
            fit_height(axes, handles)
    return axes


def _trajectories(found: Any) -> list[Trajectory]:
    items = found.trajectories if isinstance(found, Comparison) else [found] if isinstance(found, (Tuning, Trajectory)) else found
    try:
        chosen = [item.trajectory if isinstance(item, Tuning) else item for item in items]
    except TypeError:
        chosen = []
    if not chosen or not all(isinstance(item, Trajectory) for item in chosen):
        raise InputError("found must be a Comparison, or hold at least one Trajectory or Tuning, and nothing else")
    return chosen


def _clock(trajectories: Sequence[Trajectory], work: str | None, seconds: Mapping[str, float] | None) -> str:
    """Return what all trajectories count."""
    uncounted = [t.dynamics for t in trajectories if np.isnan(t.oracle_calls).any()]
    if work is None:
        votes = all(t.queries.any() for t in trajectories)
        return "seconds" if seconds else "queries" if votes else "steps" if uncounted else "oracle_calls"
    ensure_choice("work", work, (*CLOCKS, "seconds"))
    if work == "seconds" and not seconds:
        raise InputError("work = 'seconds' needs seconds_per_step, by method name how long a step took")
    if work == "oracle_calls" and uncounted:
        raise InputError(f"work = 'oracle_calls': {uncounted[0]} counts none; use 'steps'")
    silent = [t.dynamics for t in trajectories if not t.queries.any()]
    if work == "queries" and silent:
        raise InputError(f"work = 'queries': {silent[0]} was run with exact feedback, which makes none; use 'oracle_calls'")
    return work


def _times(trajectory: Trajectory, clock: str, seconds: Mapping[str, float]) -> Array:
    if clock != "seconds":
        return np.asarray(getattr(trajectory, clock), dtype=float)
    ensure_choice("seconds_per_step", trajectory.dynamics, seconds)
    return np.asarray(
        trajectory.steps * ensure_positive(f"seconds_per_step[{trajectory.dynamics!r}]", seconds[trajectory.dynamics])
    )


def _levels(trajectories: Sequence[Trajectory], metric: str) -> Array:
    """Return the errors at which work is measured, from the largest at a start to the smallest reached."""
    for trajectory in trajectories:
        if not np.isfinite(trajectory.metric(metric)).any():
            why = "; ".join(trajectory.notes) or "no reason noted"
            raise InputError(f"{metric} of {trajectory.dynamics} is nowhere a number: {why}")
    values = np.concatenate([trajectory.metric(metric).ravel() for trajectory in trajectories])
    starts = np.concatenate([trajectory.metric(metric)[:, 0] for trajectory in trajectories])
    sound, begun = (
        values[np.isfinite(values) & (values > FLOORS[metric])],
        starts[np.isfinite(starts) & (starts > FLOORS[metric])],
    )
    if not len(sound) or not len(begun):
        raise InputError(f"{metric} is nowhere above rounding, so there is nothing to draw")
    low, high = np.floor(np.log10(sound.min()) * _A_DECADE), np.ceil(np.log10(begun.max()) * _A_DECADE)
    return np.asarray(10.0 ** (np.arange(high, low - 1, -1) / _A_DECADE))


def _draw_curve(axes: Any, times: Array, values: Array, levels: Array, **look: Any) -> tuple[float, float] | None:
    """Draw the work for each level, and return the last of it and its level."""
    below = np.where(np.isfinite(values), values, np.inf)[None] <= levels[:, None, None]
    reached = np.where(below.any(axis=-1), times[below.argmax(axis=-1)], np.inf)
    low, median, high = np.quantile(reached, (_BAND[0], 0.5, _BAND[1]), axis=1, method="inverted_cdf")
    seen = np.isfinite(median) & (median > 0)
    few = {"markevery": None} if seen.sum() < 8 else {}
    never = {} if seen.any() else {"label": f"{look['label']}, never lower"}
    axes.plot(median[seen], levels[seen], **look | few | never)
    if len(values) > 1:
        # Where the slowest tenth never came, the band is open to the end of what was spent.
        outer = np.where(np.isfinite(high), high, times[-1])
        axes.fill_betweenx(
            levels[seen], np.maximum(low, times[1])[seen], outer[seen], color=look["color"], alpha=0.18, linewidth=0
        )
    last = np.flatnonzero(seen)[-1:]
    return (float(median[last[0]]), float(levels[last[0]])) if len(last) else None


def _draw_vain(axes: Any, begin: float, level: float, end: float, colour: str) -> None:
    axes.plot([begin, end], [level, level], color=colour, linestyle=_VAIN, linewidth=0.8, gid="vain")


def _keys(axes: Any, trajectories: Sequence[Trajectory]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = list(axes.get_legend_handles_labels()[0])
    if any(t.runs > 1 for t in trajectories):
        handles.append(Patch(color="0.8", label="10 % to 90 % of runs"))
    if any(line.get_gid() == "vain" for line in axes.lines):
        handles.append(Line2D([], [], color="0.4", linestyle=_VAIN, linewidth=0.8, label="no better"))
    return handles
