"""Where methods are locally stable, and how fast they are at their best step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nlhfsim.plots.style import SINGLE, axes_or_new, colour_of, finish, legend, marker_of, style

if TYPE_CHECKING:
    from nlhfsim.stability import StabilityLimit, StabilityMap

_STEPS = {
    "step_size": r"Step size  $\gamma$",
    "inner_step_size": "Inner step size",
    "proximal_step": r"Proximal step  $\gamma$",
}
_UNSTABLE = "0.82"
_GUIDE = (0, (4, 2.5))
_JUMP = 2.5
"""Best steps at neighbouring β that differ by more belong to different branches."""
_LONGEST = 1e9
"""Time constants beyond are rounding."""


def stability_map(found: StabilityMap, ax: Any = None) -> Any:
    """Draw where a method is locally stable, over step size and β, and return the axes.

    Colour is the time constant, oracle calls (steps, where none are counted) in which deviations shrink by e, the darker the
    faster; a black line marks radius = 1 and grey what is unstable; a white dashed line is the best step at each β.

    Parameters
    ----------
    found : StabilityMap
        What `nlhfsim.stability.stability_map` found.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure, one column wide.

    Examples
    --------
    >>> import numpy as np
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5)
    >>> found = nl.stability.stability_map(game, nl.dynamics.NashMD, np.geomspace(0.01, 10, 20), np.geomspace(0.01, 0.1, 10))
    >>> nl.plots.stability_map(found).get_xscale()
    'log'
    """
    from matplotlib.colors import LogNorm
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter

    with style():
        axes = axes_or_new(ax, (SINGLE, 2.9))
        axes.set_facecolor(_UNSTABLE)
        with np.errstate(divide="ignore"):
            rates = -np.log(np.minimum(found.radius, 1.0)) / (found.oracle_calls or 1)
        times = np.ma.masked_where(found.radius > 1, 1 / np.maximum(rates, 1 / _LONGEST))
        if times.count():
            norm = LogNorm(max(float(times.min()), 0.1), float(times.max()) * 1.001)
            image = axes.pcolormesh(
                found.step_sizes, found.betas, times, norm=norm, cmap="viridis", shading="nearest", rasterized=True
            )
            bar = axes.figure.colorbar(image, ax=axes, aspect=25, pad=0.02)
            bar.set_label("Oracle calls to shrink by e" if found.oracle_calls else "Steps to shrink by e")
            bar.ax.tick_params(labelsize=8, width=0.6, length=2)
            bar.outline.set_visible(False)
        handles = _edges(axes, found)
        for betas, best in _branches(found):
            axes.plot(best, betas, color="w", linestyle=_GUIDE, linewidth=1.0, gid="best")
        handles.append(Line2D([], [], color="0.45", linestyle=_GUIDE, linewidth=1.0, label="best step"))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(found.step_sizes[0], found.step_sizes[-1])
        axes.set_ylim(found.betas[0], found.betas[-1])
        axes.set_xlabel(f"{_STEPS.get(found.parameter, found.parameter)}  of {found.method}")
        axes.set_ylabel(r"Regularization  $\beta$")
        for axis, values in ((axes.xaxis, found.step_sizes), (axes.yaxis, found.betas)):
            if values[-1] >= 10 * values[0]:
                axis.set_minor_formatter(NullFormatter())
        finish(axes)
        legend(axes, handles, "above")
    return axes


def _branches(found: StabilityMap) -> list[tuple[Any, Any]]:
    """Return β and the best step inside the map, a pair a branch: where the best step jumps, another branch begins."""
    best = np.array([_between(found.step_sizes, row) for row in found.radius])
    stable = found.radius.min(axis=1) < 1
    inside = np.flatnonzero(stable & (best > found.step_sizes[0]) & (best < found.step_sizes[-1]))
    jumps = (np.abs(np.diff(np.log(best[inside]))) > np.log(_JUMP)) | (np.diff(inside) > 1)
    return [(found.betas[part], best[part]) for part in np.split(inside, np.flatnonzero(jumps) + 1) if len(part) > 2]


def _between(steps: Any, radii: Any) -> float:
    """Return the step of the smallest radius, by the parabola through the lowest of a map and its two neighbours."""
    k = int(np.argmin(radii))
    if not 0 < k < len(steps) - 1 or not np.isfinite(radii[k - 1 : k + 2]).all():
        return float(steps[k])
    places = np.log(steps[k - 1 : k + 2])
    curvature, slope, _ = np.polyfit(places - places[1], radii[k - 1 : k + 2], 2)
    if curvature <= 0:
        return float(steps[k])
    return float(np.exp(np.clip(places[1] - slope / (2 * curvature), places[0], places[2])))


def _edges(axes: Any, found: StabilityMap) -> list[Any]:
    """Draw where the radius is 1, from the roots at each β and the contour of the map; return keys for the legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color="k", linewidth=1.2, label="radius = 1")]
    if found.radius.max() > 1 > found.radius.min() and min(found.radius.shape) > 1:
        levels = np.clip(found.radius - 1, -0.5, 0.5)
        axes.contour(found.step_sizes, found.betas, levels, [0.0], colors="k", linewidths=1.2)
    if found.radius.max() > 1:
        handles.append(Patch(facecolor=_UNSTABLE, label="unstable"))
    return handles


def stability_limit(found: StabilityLimit, ax: Any = None) -> Any:
    """Draw the time constant of each method at its best step against 1/β, both logarithmic, and return the axes.

    Each with its fitted slope; dashed lines grow like 1/β and 1/β².

    Parameters
    ----------
    found : StabilityLimit
        What `nlhfsim.stability.stability_limit` found.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure, one column wide.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> found = nl.stability.stability_limit(["SelfPlayPG", "NashMirrorProx"], [0.1, 0.01])
    >>> nl.plots.stability_limit(found).get_yscale()
    'log'
    """
    with style():
        axes = axes_or_new(ax, (SINGLE, 2.9))
        inverse = 1 / found.betas
        for k, (name, times, slope) in enumerate(zip(found.methods, found.time_constants, found.slopes)):
            # A wider line below: of methods that coincide, both still show.
            look: dict[str, Any] = {"color": colour_of(name), "marker": marker_of(name), "markersize": 4.5 - 0.4 * k}
            words = name if np.isnan(slope) else rf"{name}  $\propto\beta^{{{slope:.2f}}}$"
            axes.plot(inverse, times, label=words, linewidth=max(2.6 - 0.5 * k, 1.0), markeredgewidth=0, **look)
        for power in (1, 2):
            _guide(axes, inverse, found.time_constants, power)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(r"$1/\beta$")
        axes.set_ylabel("Oracle calls to shrink by e")
        finish(axes, grid=True)
        legend(axes, [line for line in axes.lines if line.get_gid() is None], "above")
    return axes


def _guide(axes: Any, inverse: Any, times: Any, power: int) -> None:
    """Draw a line of growth 1/β^power above the curves that grow so, with its name at the end."""
    growth = np.log(times[:, -1] / times[:, 0]) / np.log(inverse[-1] / inverse[0])
    near = times[np.abs(growth - power) < 0.3]
    if len(near):
        values = 1.8 * near[:, 0].max() * (inverse / inverse[0]) ** power
        axes.plot(inverse, values, color="0.4", linestyle=_GUIDE, linewidth=0.8, gid="guide")
        middle = len(inverse) // 2
        words = r"$\propto 1/\beta$" if power == 1 else rf"$\propto 1/\beta^{power}$"
        axes.annotate(words, (inverse[middle], values[middle]), (-3, 3), textcoords="offset points", ha="right", fontsize=8)
