"""Quantiles over many runs against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nlhfsim.plots.style import SINGLE, axes_or_new, finish, legend, style

if TYPE_CHECKING:
    from nlhfsim.high_probability import HighProbability

_NAMES = {"kl": r"$\mathrm{KL}(\pi^*\Vert\,\pi)$", "exploitability": r"$E_\beta$", "gap0": "$E_0$"}
_GUIDE = (0, (4, 2.5))


def high_probability(found: HighProbability, ax: Any = None) -> Any:
    """Draw the (1 - δ)-quantiles of an error over runs against time, both logarithmic, and return the axes.

    Each with its fitted slope, the bootstrap interval of its last value, and a dashed line of slope -1 through its last value.

    Parameters
    ----------
    found : HighProbability
        What `nlhfsim.high_probability` measured.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> method = nl.dynamics.SelfPlayPG(nl.schedules.inverse_time(12, 12))
    >>> game = nl.games.rock_paper_scissors(beta=0.5)
    >>> runs = nl.simulate(game, method, 2000, feedback=nl.Sampled(), runs=200, start=[0.5, 0.3, 0.2])
    >>> nl.plots.high_probability(nl.high_probability(runs, deltas=(0.5, 0.1))).get_xscale()
    'log'
    """
    from matplotlib import colormaps
    from matplotlib.ticker import NullFormatter

    with style():
        axes = axes_or_new(ax, (SINGLE, 2.7))
        shades = colormaps["viridis"]
        for k, delta in enumerate(found.deltas):
            colour = shades(0.85 * k / max(len(found.deltas) - 1, 1))
            low, high = found.intervals[k]
            values = found.quantiles[k]
            axes.plot(found.times, values, color=colour, label=f"δ = {delta:g}, slope {found.slopes[k]:.2f}")
            axes.plot(found.times, values[-1] * found.times[-1] / found.times, color=colour, linestyle=_GUIDE, linewidth=0.7)
            bar = [[values[-1] - low], [high - values[-1]]]
            axes.errorbar(found.times[-1:], values[-1:], yerr=bar, color=colour, linewidth=0.9, capsize=2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel({"steps": "Steps", "oracle_calls": "Oracle calls", "queries": "Preference queries"}[found.clock])
        axes.set_ylabel(f"(1 − δ)-quantile of {_NAMES.get(found.metric, found.metric)}, {found.runs} runs")
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            if high >= 10 * low:  # a power of ten at least is labelled; labels between would run into each other
                axis.set_minor_formatter(NullFormatter())
        finish(axes, grid=True)
        legend(axes, axes.get_legend_handles_labels()[0], "above")
    return axes
