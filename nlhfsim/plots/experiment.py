"""The figure of the paper's experiment: methods at equal votes, and where constant steps fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nlhfsim.plots.style import DOUBLE, METHOD_COLOURS, finish, looks_of, marker_of, style

if TYPE_CHECKING:
    from nlhfsim.experiment import Experiment

_ROWS = (("kl", r"$\mathrm{KL}(\pi^*\,\Vert\,\pi)$"), ("exploitability", r"Exploitability $E_\beta$"))
_UPPER = 0.95
_BANDS = ("SelfPlayPG", "ProximalPG", "NashProx")
"""The methods whose bands are drawn, the paper's contrast: bands of all would hide each other."""


def experiment(found: Experiment) -> Any:
    """Draw an `Experiment`, a column a game, and return the figure; see `nlhfsim.experiment.Experiment.plot`."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    names = list(found.comparisons)
    with style():
        figure = Figure(figsize=(max(DOUBLE, 2.1 * len(names)), 6.4), layout="constrained")
        axes = figure.subplots(3, len(names), squeeze=False, sharey="row")
        for column, name in enumerate(names):
            trajectories = found.comparisons[name].trajectories
            looks = looks_of(trajectories)
            for row, (metric, words) in enumerate(_ROWS):
                ax = axes[row, column]
                for trajectory, look in zip(trajectories, looks):
                    _band(ax, trajectory, metric, look)
                ax.set_xscale("log")
                ax.set_yscale("log")
                ax.set_xlabel("Preference queries")
                finish(ax, grid=True)
                if column == 0:
                    ax.set_ylabel(words)
            axes[0, column].set_title(name)
            _constant_steps(axes[2, column], found, name, looks)
            if column == 0:
                axes[2, 0].set_ylabel(r"$\mathrm{KL}(\pi^*\,\Vert\,\pi)$ at the end")
        handles, _ = axes[2, 0].get_legend_handles_labels()
        if any(t.dynamics in _BANDS for t in trajectories):
            handles.append(Patch(color="0.8", label="up to the 95 % quantile of runs"))
        runs = {t.runs for comparison in found.comparisons.values() for t in comparison.trajectories}
        betas = sorted({game.beta for game in found.games.values()})
        figure.suptitle(
            f"Medians of {max(runs)} runs at the best step, $\\beta$ = {', '.join(f'{b:g}' for b in betas)}, "
            f"{found.feedback.batch_size} votes an oracle call",
            fontsize=9,
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _band(ax: Any, trajectory: Any, metric: str, look: dict[str, Any]) -> None:
    """Draw the median over runs against votes, for some methods with a band up to the upper quantile."""
    votes, values = trajectory.queries, trajectory.metric(metric)
    median, upper = np.nanquantile(values, [0.5, _UPPER], axis=0)
    seen = votes > 0
    line = {key: value for key, value in look.items() if key != "label"}
    ax.plot(
        votes[seen], median[seen], marker=marker_of(trajectory.dynamics), markevery=0.2, markersize=3, markeredgewidth=0, **line
    )
    if trajectory.dynamics in _BANDS:
        ax.fill_between(votes[seen], median[seen], upper[seen], color=look["color"], alpha=0.15, linewidth=0)


def _constant_steps(ax: Any, found: Experiment, name: str, looks: list[dict[str, Any]]) -> None:
    """Draw KL at the end against the constant step, with the critical step of self-play policy gradient."""
    for (method, steps, values), look in zip(found.constant_steps(name), looks):
        line = {key: value for key, value in look.items() if key != "label"}
        ax.plot(steps, values, marker=marker_of(method), markersize=3, markeredgewidth=0, label=method, **line)
    ax.axvline(
        found.critical_steps[name],
        color=METHOD_COLOURS["SelfPlayPG"],
        linewidth=0.8,
        linestyle=(0, (1, 1.5)),
        label=r"critical step of SelfPlayPG",
    )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("Constant step size")
    finish(ax, grid=True)
