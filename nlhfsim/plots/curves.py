"""Convergence curves with bands over runs and proven rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlhfsim.errors import Array, InputError, ensure_choice, ensure_positive
from nlhfsim.log_linear.attainable import NEGLIGIBLE
from nlhfsim.plots.style import (
    DOUBLE,
    SINGLE,
    axes_or_new,
    ensure_trajectories,
    finish,
    fit_height,
    legend,
    looks_of,
    marker_of,
    narrow,
    style,
)
from nlhfsim.trajectory import CLOCKS, METRICS, Records, Trajectory

_PROVEN = (0, (4, 2.5))
_ATTAINABLE = (0, (1, 1.5))
_GUIDE = (0, (5, 1.5, 1, 1.5))
_ABOVE = 4.0
"""Guides run so many times above the end of their curves, to stand beside them."""
WORDS = {
    "kl": r"Distance to equilibrium  $\mathrm{KL}(\pi^*\,\Vert\,\pi_t)$",
    "exploitability": r"Exploitability  $E_\beta(\pi_t)$",
    "gap0": r"Unregularized exploitability  $E_0(\pi_t)$",
    "span": r"Span  $\Vert\log\pi_t-\log\rho\,\Vert_{\mathrm{sp}}$",
    "min_probability": r"Smallest probability  $\min_y\,\pi_t(y)$",
}
CLOCK_WORDS = {"times": r"Time  $t$", "steps": r"Steps  $t$", "oracle_calls": "Oracle calls", "queries": "Preference queries"}
FLOORS = {"kl": 1e-30, "exploitability": 1e-30, "gap0": 1e-16}
"""Values at or below these are rounding and are not drawn."""
_ROUNDING = 1e-24
"""Once a curve is within 4 times of a minimum below this, it has reached rounding and ends."""
_CEILING, _LOST = 1e12, 1e300
"""A curve ends above the first; the second stands for what is infinitely bad."""


def convergence(
    trajectories: Records | Sequence[Records],
    metric: str = "kl",
    *,
    clock: str = "oracle_calls",
    rates: bool = True,
    factors: Sequence[float | None] | None = None,
    powers: Sequence[float] = (),
    scale: str = "auto",
    ax: Any = None,
) -> Any:
    """Draw a metric of one or several trajectories against what was spent, and return the axes.

    Parameters
    ----------
    trajectories : Trajectory, Flow, or sequence of either
        One line each: the median over runs, with a band from the 10 % to the 90 % quantile where there are several. A run that
        diverged counts as infinitely bad from there on; a cross marks its last record.
    metric : str
        ``"kl"``, ``"exploitability"``, ``"gap0"``, ``"span"`` or ``"min_probability"``; what lies below rounding (1e-30, for
        ``"gap0"`` 1e-16) is not drawn.
    clock : str
        ``"steps"``, ``"oracle_calls"`` or ``"queries"``. Where a method counts no oracle calls, all are drawn against steps;
        flows are drawn against time.
    rates : bool
        Whether to draw the proven ``factor^t KL(π*‖π_0)`` of a trajectory that has it, dashed in its colour; ``"kl"`` only. The
        level that log-linear policies can reach is drawn dotted in any case, of KL and exploitability, unless it is negligible.
    factors : sequence of float or None, optional
        One a trajectory: by what the metric shrinks a step in the end, such as the square of `nlhfsim.stability.local_rate` for
        KL and exploitability. A dash-dotted line of that rate beside the curve's end; None draws none.
    powers : sequence of float
        A dash-dotted grey line that falls like the inverse of the clock to each of these powers, beside the end of the first
        curve: 1 for KL from votes, 1/2 for averages, …
    scale : str
        Of the clock: ``"linear"``, where a geometric rate is a straight line; ``"log"``, with the start, at 0, left of the
        first record; ``"auto"``: log where one curve ends more than 8 times sooner than another.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure, two columns wide for more than four trajectories.

    Raises
    ------
    InputError
        If there is nothing to draw, or a name is unknown.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> trajectory = nl.simulate(game, nl.dynamics.NashMirrorProx(step_size=2.0), 100, start=[0.8, 0.1, 0.1])
    >>> axes = nl.plots.convergence(trajectory)
    >>> axes.get_yscale()
    'log'
    """
    chosen = ensure_trajectories(trajectories)
    ensure_choice("metric", metric, METRICS)
    ensure_choice("scale", scale, ("auto", "linear", "log"))
    clock, clock_words = _clock(chosen, clock)
    given = _ensure_factors(factors, chosen)
    exponents = [ensure_positive("powers", power) for power in powers]
    looks = looks_of(chosen)
    wide = len(chosen) > 4 or (len(chosen) > 2 and not narrow(look["label"] for look in looks))
    with style():
        axes = axes_or_new(ax, (DOUBLE, 3.0) if wide else (SINGLE, 2.7))
        axes.set_yscale("log")
        lines, spans = [], []
        for k, (trajectory, look) in enumerate(zip(chosen, looks)):
            # Markers at staggered places: of curves that coincide, each still shows.
            spots = (
                {"marker": marker_of(trajectory.dynamics), "markevery": (0.03 + 0.025 * (k % 7), 0.17)} if len(chosen) > 1 else {}
            )
            lines.append(_draw_curve(axes, trajectory, metric, clock, **look, **spots))
            spans.append(np.asarray(lines[-1].get_xdata())[np.isfinite(lines[-1].get_ydata())])
            if rates and metric == "kl" and isinstance(trajectory, Trajectory) and trajectory.proven_factor is not None:
                spans.append(_draw_rate(axes, trajectory, clock, trajectory.proven_factor, look["color"]))
        for level in sorted({level for trajectory in chosen if (level := _attainable(trajectory, metric)) is not None}):
            axes.axhline(level, color="0.4", linestyle=_ATTAINABLE, linewidth=0.9, gid="attainable")
        _scale_clock(axes, scale, spans)
        low, high = axes.get_ylim()
        for trajectory, line, factor in zip(chosen, lines, given):
            if factor is not None:
                clock_of_rate = getattr(trajectory, "steps" if isinstance(trajectory, Trajectory) else "times")
                _draw_guide(axes, line, clock_of_rate * np.log(factor), line.get_color(), "factor")
        for power in exponents:
            with np.errstate(divide="ignore"):
                _draw_guide(axes, lines[0], -power * np.log(lines[0].get_xdata()), "0.4", f"power {power:g}")
        axes.set_ylim(max(low, FLOORS.get(metric, 0.0)), high)
        axes.set_xlabel(clock_words)
        axes.set_ylabel(WORDS[metric])
        finish(axes, grid=True)
        handles = _keys(axes, chosen)
        legend(axes, handles, "beside" if wide else "above")
        if ax is None and not wide:
            fit_height(axes, handles)
    return axes


def _draw_curve(axes: Any, trajectory: Records, metric: str, clock: str, **look: Any) -> Any:
    """Draw median and band of a metric, and where runs diverged; return the line of the median."""
    times, values = getattr(trajectory, clock), trajectory.metric(metric)
    finite = np.abs(values) <= _CEILING
    if not finite.any():
        raise InputError(
            f"{metric} of {trajectory.dynamics} is nowhere a number: {'; '.join(trajectory.notes) or 'no reason noted'}"
        )
    floor, top = FLOORS.get(metric, 0.0), values[finite].max()
    low, median, high = (np.quantile(np.where(finite, values, _LOST), q, axis=0) for q in (0.1, 0.5, 0.9))
    drawn = np.where((median > floor) & (median <= top), median, np.nan)
    if median.min() < _ROUNDING:
        drawn[np.argmax(median <= 4 * max(median.min(), floor)) + 1 :] = np.nan
    (line,) = axes.plot(times, drawn, markersize=3.6, markeredgewidth=0, **look)
    if trajectory.runs > 1:
        band = np.clip([low, high], max(floor, float(np.finfo(float).tiny)), top)
        axes.fill_between(times, *band, where=(high > floor) & (low <= top), color=look["color"], alpha=0.18, linewidth=0)
    for row, status in zip(values, trajectory.status):
        if status == "diverged":
            last = np.flatnonzero(row <= _CEILING)[-1]
            axes.plot(times[last], row[last], "x", color=look["color"], markersize=6, markeredgewidth=1.4, gid="diverged")
    return line


def _attainable(trajectory: Records, metric: str) -> float | None:
    """Return the smallest value of a metric that a trajectory's features allow, if that is more than rounding."""
    level = getattr(trajectory.attainable, metric, None) if metric in ("kl", "exploitability") else None
    return float(level) if level is not None and level > NEGLIGIBLE else None


def _draw_rate(axes: Any, trajectory: Trajectory, clock: str, factor: float, colour: str) -> Array:
    """Draw the proven bound of KL from the (median) start down to the rounding floor; return the times."""
    times = getattr(trajectory, clock)
    with np.errstate(under="ignore"):
        bound = np.median(trajectory.kl[:, 0]) * factor ** (trajectory.steps - trajectory.steps[0]).astype(float)
    bound = np.where(bound > FLOORS["kl"], bound, np.nan)
    axes.plot(times, bound, color=colour, linestyle=_PROVEN, linewidth=0.8, gid="proven")
    return np.asarray(times[np.isfinite(bound)])


def _draw_guide(axes: Any, line: Any, log_shape: Array, colour: Any, gid: str) -> None:
    """Draw a curve of known shape, given by its logarithm at the times of a line, above the end of that line."""
    times, values = (np.asarray(data, dtype=float) for data in line.get_data())
    last = np.flatnonzero(np.isfinite(values) & np.isfinite(log_shape))[-1]
    with np.errstate(over="ignore", under="ignore"):
        guide = _ABOVE * values[last] * np.exp(log_shape - log_shape[last])
    axes.plot(times[: last + 1], guide[: last + 1], color=colour, linestyle=_GUIDE, linewidth=0.8, gid=gid)


def _ensure_factors(factors: Any, trajectories: Sequence[Records]) -> list[float | None]:
    if factors is None:
        return [None] * len(trajectories)
    given = list(np.atleast_1d(np.asarray(factors, dtype=object)))
    if len(given) != len(trajectories):
        raise InputError(f"factors holds {len(given)} values for {len(trajectories)} trajectories; give one each, None for none")
    return [None if factor is None else ensure_positive("factors", factor) for factor in given]


def _clock(trajectories: Sequence[Records], clock: str) -> tuple[str, str]:
    """Return the clock that all trajectories have, and its axis label."""
    ensure_choice("clock", clock, CLOCKS)
    runs = [item for item in trajectories if isinstance(item, Trajectory)]
    if not runs:
        return "times", CLOCK_WORDS["times"]
    if len(runs) < len(trajectories):
        raise InputError("trajectories holds flows, drawn against time, and others, drawn against steps; draw them apart")
    uncounted = [t.dynamics for t in runs if np.isnan(getattr(t, clock)).any()]
    if uncounted:
        return "steps", f"{CLOCK_WORDS['steps']}  ({uncounted[0]} counts no {CLOCK_WORDS[clock].lower()})"
    if clock == "queries" and not any(t.queries.any() for t in runs):
        raise InputError("clock = 'queries' shows nothing: with exact feedback no queries are made; use 'oracle_calls'")
    return clock, CLOCK_WORDS[clock]


def _scale_clock(axes: Any, scale: str, spans: Sequence[Array]) -> None:
    """Put time on its scale: logarithmic from the first record after the start, which stands to the left of it."""
    later = [times[times > 0] for times in spans if (times > 0).any()]
    ends = [float(times.max()) for times in later]
    if ends and (scale == "log" or (scale == "auto" and max(ends) > 8 * min(ends))):
        first = min(float(times.min()) for times in later)
        axes.set_xscale("symlog", linthresh=first, linscale=0.4)
        axes.set_xlim(-0.15 * first, 1.1 * max(ends))
    elif ends:
        axes.set_xlim(-0.02 * max(ends), 1.02 * max(ends))


def _keys(axes: Any, trajectories: Sequence[Records]) -> list[Any]:
    """Return the legend entries: the methods, and what band, dashes and crosses mean where they occur."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = list(axes.get_legend_handles_labels()[0])
    if any(t.runs > 1 for t in trajectories):
        handles.append(Patch(color="0.8", label="10 % to 90 % of runs"))
    if any(line.get_gid() == "proven" for line in axes.lines):
        handles.append(Line2D([], [], color="0.4", linestyle=_PROVEN, linewidth=0.8, label="proven rate"))
    if any(line.get_gid() == "attainable" for line in axes.lines):
        dots = Line2D([], [], color="0.4", linestyle=_ATTAINABLE, linewidth=0.9, label="attainable with the features")
        handles.append(dots)
    if any(line.get_gid() == "factor" for line in axes.lines):
        handles.append(Line2D([], [], color="0.4", linestyle=_GUIDE, linewidth=0.8, label="predicted rate"))
    for line in axes.lines:
        kind, _, power = (line.get_gid() or "").partition(" ")
        if kind == "power":
            look = {"color": line.get_color(), "linestyle": _GUIDE, "linewidth": 0.8}
            handles.append(Line2D([], [], **look, label=rf"$\propto t^{{-{power}}}$"))
    if any("diverged" in t.status for t in trajectories):
        handles.append(Line2D([], [], color="0.4", marker="x", linestyle="none", markeredgewidth=1.4, label="diverged"))
    return handles
