"""Training runs of a language model: what was measured against the step, a small picture each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nlhfsim.errors import Array, InputError
from nlhfsim.plots.style import DOUBLE, METHOD_COLOURS, finish, style
from nlhfsim.training_run import TrainingRun, load_run

_COLOURS = tuple(dict.fromkeys(["#0072B2", "#D55E00", "#009E73", *METHOD_COLOURS.values()]))
_DASHES: tuple[Any, ...] = ("-", (0, (3, 1.5)))
_COLUMNS = 3
_DOTS = 60
"""Of more evaluations than this the dots would touch."""
_SMOOTH = 100
"""Of more records than twice this a moving mean is drawn over the records themselves."""
_EQUILIBRIUM = r"$\mathrm{KL}(\pi^*\,\Vert\,\pi)$"


class Panel(NamedTuple):
    """A small picture: its title, what it shows by name of the record and label, and its scale."""

    title: str
    curves: tuple[tuple[str, str], ...]
    scale: str = "linear"
    level: float | None = None


PANELS = (
    Panel("Win rate", (("win_rate_reference", "over reference"), ("win_rate_target", "over target")), level=0.5),
    Panel("KL in nats a response", (("kl_reference", "to reference"), ("kl_target", "to target"))),
    Panel("Distance from equilibrium", (("exploitability", r"$E_\beta$"), ("kl_equilibrium", _EQUILIBRIUM)), "log"),
    Panel("Entropy in nats a token", (("entropy", ""),)),
    Panel("Response length in tokens", (("length", ""),)),
    Panel("Verdicts", (("label_entropy", "entropy of a label"), ("invalid", "share invalid"))),
    Panel("Gradient norm", (("gradient_norm", ""),), "log"),
    Panel("Tokens a second", tuple((f"{kind}_tokens_per_second", kind) for kind in ("generation", "training"))),
)


def training(runs: Any) -> Any:
    """Draw one or several training runs of a language model, and return the figure.

    A panel a measurement, left out where no run has it: win rates, KL to reference and target, distance from the equilibrium
    where it is known, entropy and length from the evaluations on the held-out prompts (dots; the bands of win rates are one
    standard error to each side, that over the target has edges only); entropy of the labels and share of invalid verdicts,
    gradient norm and speed from the optimizer's steps, with a moving mean where there are many.

    Parameters
    ----------
    runs : TrainingRun, path, sequence or mapping of either
        A colour each; the keys of a mapping are the labels, else the names of the folders.

    Returns
    -------
    matplotlib.figure.Figure
        Seven inches wide.

    Raises
    ------
    InputError
        If there is no run, or nothing was measured yet.

    Examples
    --------
    >>> import pathlib
    >>> import numpy as np
    >>> import nlhfsim as nl
    >>> from nlhfsim.training_run import TrainingRun
    >>> measured = {"step": np.array([0.0, 10, 20]), "win_rate_reference": np.array([0.5, 0.6, 0.65])}
    >>> run = TrainingRun(pathlib.Path("run"), "done", {"method": "nash_prox", "beta": 0.1}, evaluations=measured)
    >>> [axes.get_title() for axes in nl.plots.training(run).axes]
    ['Win rate']
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    chosen = _labelled(runs)
    panels = [panel for panel in PANELS if any(_measured(run, name) for run in chosen.values() for name, _ in panel.curves)]
    if not panels:
        raise InputError("nothing was measured yet: there is nothing to draw")
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure = Figure(figsize=(DOUBLE, 1.75 * rows + 0.25 * (len(chosen) > 1)), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, panels):
            for colour, run in zip(_COLOURS, chosen.values()):
                _draw(axes, panel, run, colour)
            _dress(axes, panel, list(chosen.values()))
        for axes in grid[len(panels) :]:
            axes.remove()
        for axes in grid[len(panels) - columns : len(panels)]:  # the lowest of every column
            axes.set_xlabel("Optimizer step")
        if len(chosen) > 1:
            handles = [Line2D([], [], color=colour, label=label) for colour, label in zip(_COLOURS, chosen)]
            figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 4))
    return figure


def _labelled(runs: Any) -> dict[str, TrainingRun]:
    """Return runs by label; of folders with the same name the paths are the labels, of runs in memory the methods."""
    if isinstance(runs, Mapping):
        found = {str(label): _run(run) for label, run in runs.items()}
    else:
        alone = isinstance(runs, (TrainingRun, str, Path)) or not isinstance(runs, Sequence)
        several = [_run(run) for run in ([runs] if alone else runs)]
        names = [str(run.config.get("method")) if run.path is None else run.path.resolve().name for run in several]
        if len(set(names)) < len(names):
            names = [
                f"{k + 1}: {name}" if run.path is None else str(run.path) for k, (name, run) in enumerate(zip(names, several))
            ]
        found = dict(zip(names, several))
    if not 1 <= len(found) <= len(_COLOURS):
        raise InputError(f"runs holds {len(found)}, must hold between 1 and {len(_COLOURS)}")
    return found


def _run(run: Any) -> TrainingRun:
    if isinstance(run, (str, Path)):
        return load_run(run)
    if not isinstance(run, TrainingRun):
        raise InputError(f"runs must hold training runs or their folders, not a {type(run).__name__}")
    return run


def _series(run: TrainingRun, name: str) -> tuple[Array, Array, bool]:
    """Return steps and values of a measurement, from the evaluations if they have it, and whether they do."""
    for records, evaluated in ((run.evaluations, True), (run.steps, False)):
        values = records.get(name, np.array([]))
        there = np.isfinite(values)
        if there.any():
            return records["step"][there], values[there], evaluated
    return np.array([]), np.array([]), False


def _measured(run: TrainingRun, name: str) -> bool:
    return len(_series(run, name)[0]) > 0


def _draw(axes: Any, panel: Panel, run: TrainingRun, colour: str) -> None:
    for (name, _), dashes in zip(panel.curves, _DASHES):
        at, values, evaluated = _series(run, name)
        if panel.scale == "log":
            at, values = at[values > 0], values[values > 0]
        if not len(at):
            continue
        error = run.evaluations.get(f"{name}_error")
        if error is not None and evaluated:
            where, middle = run.evaluations["step"], run.evaluations[name]
            axes.fill_between(where, middle - error, middle + error, **(_band if dashes == "-" else _edges)(colour))
        if evaluated or len(at) <= 2 * _SMOOTH:
            dots = "o" if evaluated and dashes == "-" and len(at) <= _DOTS else ""
            axes.plot(at, values, color=colour, linestyle=dashes, linewidth=1.1, marker=dots, markersize=2.2, markeredgewidth=0)
            continue
        axes.plot(at, values, color=colour, linewidth=0.4, alpha=0.25)
        axes.plot(*_moving_mean(at, values), color=colour, linestyle=dashes, linewidth=1.1)


def _band(colour: str) -> dict[str, Any]:
    """Return the look of a curve's band."""
    return {"color": colour, "alpha": 0.2, "linewidth": 0}


def _edges(colour: str) -> dict[str, Any]:
    """Return the look of the second curve's: two bands of a colour would run into each other."""
    return {"facecolor": "none", "edgecolor": colour, "alpha": 0.8, "linewidth": 0.7, "linestyle": ":"}


def _moving_mean(at: Array, values: Array) -> tuple[Array, Array]:
    """Return means of the values over windows of a hundredth of them, each at the middle of its steps."""
    width = max(len(values) // _SMOOTH, 1)
    kernel = np.full(width, 1 / width)
    return np.convolve(at, kernel, "valid"), np.convolve(values, kernel, "valid")


def _dress(axes: Any, panel: Panel, runs: list[TrainingRun]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator, NullFormatter

    axes.set_yscale(panel.scale)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    low, high = axes.yaxis.get_view_interval()
    if panel.scale == "log" and high >= 10 * low:  # a power of ten is labelled; labels between would run into each other
        axes.yaxis.set_minor_formatter(NullFormatter())
    if panel.level is not None:
        axes.axhline(panel.level, color="0.6", linewidth=0.6, zorder=0)
    shown = [
        Line2D([], [], color="0.35", linestyle=dashes, linewidth=1.1, label=label)
        for (name, label), dashes in zip(panel.curves, _DASHES)
        if label and any(_measured(run, name) for run in runs)
    ]
    axes.set_title(panel.title, fontsize=8, pad=15 if shown else 4)
    if shown:
        # Above the axes it hides no curve.
        axes.legend(handles=shown, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 0.96), ncols=2, handlelength=1.6)
    finish(axes, grid=True)
