"""What a sweep found: the outcome against one of the parameters that it varied."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np

from nlhfsim.errors import InputError, ensure_choice
from nlhfsim.plots.curves import FLOORS, WORDS
from nlhfsim.plots.style import SINGLE, axes_or_new, colour_of, finish, fit_height, legend, marker_of, style
from nlhfsim.sweep import Sweep
from nlhfsim.sweep._result import of_problem

_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1, 1.5)))
_BAD = 1e12
"""What is worse, or did not end, is drawn at the upper end."""

_LONGEST = 46
"""Letters that a legend has room for."""

Point = tuple[float, float, float, float]


def sweep(found: Sweep, along: str | None = None, metric: str | None = None, *, ax: Any = None) -> Any:
    """Draw the outcome of a sweep against one varied number, and return the axes.

    A curve a method and problem (game, β, feedback, steps, start): at each value the median over seeds, with the other parameters
    at their best there, and a bar from the smallest to the largest. A run that diverged or failed counts as infinitely bad, and a
    curve is broken where the median is.

    Parameters
    ----------
    found : Sweep
        From `nlhfsim.sweep`.
    along : str, optional
        A parameter of methods, such as ``"step_size"``, or ``"beta"``, ``"batch_size"``, ``"n_steps"``. Default: the step size if
        it takes several values, else the first number that does.
    metric : str, optional
        ``"kl"``, ``"exploitability"`` or ``"gap0"`` at the end. Default: KL, at β = 0 the unregularized exploitability.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure.

    Raises
    ------
    InputError
        If nothing numeric was varied, `along` is not among what was, or there are more than four problems.

    Examples
    --------
    >>> import tempfile
    >>> import nlhfsim as nl
    >>> config = {
    ...     "games": [{"source": "rock-paper-scissors", "beta": 0.1}],
    ...     "methods": [{"name": "NashMirrorProx", "grid": {"step_size": [0.5, 1, 2]}}],
    ...     "run": {"n_steps": 20, "start": "random", "seeds": 3},
    ... }
    >>> axes = nl.plots.sweep(nl.sweep(config, out=tempfile.mkdtemp(), workers=1))
    >>> axes.get_xlabel(), len(axes.get_lines()[0].get_xdata())
    ('step size', 3)
    """
    varied = _varied(found)
    if not varied:
        raise InputError("the sweep varies no number: there is nothing to draw its outcome against")
    if along is None:
        along = "step_size" if "step_size" in varied else varied[0]
    ensure_choice("along", along, varied)
    metric = metric or ("kl" if all(row["beta"] > 0 for row in found.rows) else "gap0")
    ensure_choice("metric", metric, tuple(FLOORS))
    curves, problems = _curves(found, along, metric)
    with style():
        axes = axes_or_new(ax, (SINGLE, 2.6))
        for key, points in curves.items():
            _draw(axes, key, points, problems.index(key[1]), FLOORS[metric])
        handles = _keys([method for method, _ in curves], problems)
        axes.set(xlabel=along.replace("_", " "), ylabel=WORDS[metric].replace("_t", ""), yscale="log")
        values = [point[0] for points in curves.values() for point in points]
        if min(values) > 0 and max(values) >= 4 * min(values):
            axes.set_xscale("log")
        legend(axes, handles, "above")
        if ax is None:
            fit_height(axes, handles)
        finish(axes)
    return axes


def _varied(found: Sweep) -> list[str]:
    """Return the numbers that take several values: parameters of methods, then settings."""
    rows = found.rows
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name.startswith("method_")]
    chosen = []
    for name in [*names, "beta", "batch_size", "n_steps"]:
        values = {row[name] for row in rows if isinstance(row.get(name), (int, float)) and not isinstance(row[name], bool)}
        if len(values) > 1:
            chosen.append(name.removeprefix("method_"))
    return chosen


def _curves(found: Sweep, along: str, metric: str) -> tuple[dict[tuple[str, str], list[Point]], list[str]]:
    """Return by method and problem the points of its curve: value, and the smallest, median and largest outcome there."""
    column = f"method_{along}" if any(f"method_{along}" in row for row in found.rows) else along
    groups: dict[tuple[str, str], dict[float, dict[str, list[float]]]] = {}
    for row in found.rows:
        if not isinstance(row.get(column), (int, float)):
            continue
        problem = json.dumps({k: v for k, v in row.items() if of_problem(k) and k != column})
        others = json.dumps({k: v for k, v in row.items() if k.startswith("method_") and k != column})
        outcome = row[f"final_{metric}"] if row["status"] == "completed" else None
        at = groups.setdefault((row["method"], problem), {}).setdefault(float(row[column]), {})
        at.setdefault(others, []).append(float("inf") if outcome is None else outcome)
    problems = list(dict.fromkeys(problem for _, problem in groups))
    if len(problems) > len(_DASHES):
        raise InputError(f"the sweep has {len(problems)} problems beside {along}, of which one figure shows four at most")
    curves = {}
    for key, values in groups.items():
        best = {value: min(some.values(), key=statistics.median) for value, some in sorted(values.items())}
        curves[key] = [(value, min(some), statistics.median(some), max(some)) for value, some in best.items()]
    return curves, problems


def _draw(axes: Any, key: tuple[str, str], points: list[Point], number: int, floor: float) -> None:
    method = key[0]
    place, least, middle, worst = np.array(points).T
    shown = np.where(middle < _BAD, np.maximum(middle, floor), np.nan)
    upper = np.where(worst < _BAD, np.maximum(worst, floor), np.where(np.isnan(shown), np.nan, _BAD))
    look = {"color": colour_of(method), "linestyle": _DASHES[number]}
    lower = np.where(np.isnan(shown), np.nan, np.maximum(least, floor))
    axes.vlines(place, lower, upper, color=look["color"], linewidth=0.7)
    axes.plot(place, shown, marker=marker_of(method), markersize=3, label=method, **look)


def _keys(methods: list[str], problems: list[str]) -> list[Any]:
    """Return the entries of the legend: methods by colour and, where there are several, problems by dashes."""
    from matplotlib.lines import Line2D

    keys = [Line2D([], [], color=colour_of(m), marker=marker_of(m), markersize=3, label=m) for m in dict.fromkeys(methods)]
    if len(problems) == 1:
        return keys
    told = [_told(problem, problems) for problem in problems]
    cut = [words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…" for words in told]
    return keys + [Line2D([], [], color="0.4", linestyle=dashes, label=words) for dashes, words in zip(_DASHES, cut)]


def _told(problem: str, problems: list[str]) -> str:
    """Return what tells a problem from the others."""
    parts, all_parts = json.loads(problem), [json.loads(other) for other in problems]
    names = [n for n in parts if parts[n] is not None and any(other.get(n) != parts[n] for other in all_parts)]
    named = {"beta": "β=", "game": "", "feedback": "", "start": "from "}
    return ", ".join(named.get(n, n.removeprefix("game_").replace("_", " ") + "=") + str(parts[n]) for n in names)
