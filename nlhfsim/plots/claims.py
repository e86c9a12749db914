"""How tight claims are: histograms of measured over bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlhfsim.claims import Tightness
from nlhfsim.claims._verdict import VerificationReport, Verdict
from nlhfsim.errors import Array, InputError, ensure_choice, ensure_integer
from nlhfsim.plots.style import DOUBLE, SINGLE, axes_or_new, finish, legend, style

_HOLDS, _VIOLATED, _SEARCHED = "#0072B2", "#D55E00", "#E69F00"
_IN_TOLERANCES = ("equality", "threshold")
_SMALLEST = 1e-4
"""What is smaller stands in the first bin of a logarithmic axis."""
_FEW, _LONG = 12, 24
"""Rows that have room, and letters of a name that need two columns."""
_SEEN, _VIOLATION_SEEN = 0.025, 0.3
"""Least heights of a bin that holds a case."""
_CAPACITY = 60


def tightness(
    found: VerificationReport | Verdict | Sequence[Verdict],
    *,
    searched: Tightness | Sequence[Tightness] = (),
    scale: str = "linear",
    bins: int = 25,
    ax: Any = None,
) -> Any:
    """Draw how tight claims are as histograms over the cases they were checked on, a row a claim, and return the axes.

    The ratio is measured/bound (of lower bounds the reverse): at 1 a bound is attained, beyond it, in another colour, violated. A
    line marks the median, a triangle the largest ratio; the number of cases stands at the right. Tightest claims come first.

    Parameters
    ----------
    found : VerificationReport, Verdict, or sequence of Verdict
        From `nlhfsim.verify`. Of a report all bounds are drawn; equalities and thresholds, whose ratios are distances in units of
        the tolerance, are left out, unless there is nothing else, or they are given as verdicts.
    searched : Tightness or sequence of Tightness, optional
        From `nlhfsim.claims.tightness`: a diamond at the largest ratio that the search found, in the row of its claim.
    scale : str
        ``"linear"``, or ``"log"`` from 1e-4 on, where what is smaller stands in the first bin.
    bins : int
        Bins up to 1, from 4 to 200.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure, as high as there are claims, two columns wide where names are long.

    Raises
    ------
    InputError
        If no case counted, or bounds are mixed with equalities.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> report = nl.verify(["log-ratio-span", "gap-dominates-kl"], n_games=40, mutants=False)
    >>> [text.get_text() for text in nl.plots.tightness(report).get_yticklabels()]
    ['gap-dominates-kl', 'log-ratio-span']
    """
    ensure_choice("scale", scale, ("linear", "log"))
    verdicts = _chosen(found)
    searches = _searches(searched, [verdict.claim.id for verdict in verdicts])
    in_tolerances = verdicts[0].claim.kind in _IN_TOLERANCES
    largest = max([max(verdict.ratios) for verdict in verdicts] + [one.found for one in searches.values()])
    edges = _edges(scale, ensure_integer("bins", bins, 4, 200), largest)
    names = [verdict.claim.id for verdict in verdicts]
    with style():
        wide = max(map(len, names)) > _LONG
        each = 0.25 if len(names) <= _FEW else 0.19
        axes = axes_or_new(ax, (DOUBLE if wide else SINGLE, 0.9 + max(each * len(names), 0.8)))
        for row, verdict in enumerate(verdicts):
            _draw_row(axes, verdict, row, edges)
            if verdict.claim.id in searches:
                place = min(searches[verdict.claim.id].found, edges[-1])
                axes.plot(place, row - 0.12, "D", color=_SEARCHED, markersize=4, markeredgewidth=0, zorder=4, gid="searched")
        _beside(axes, -0.95, "cases")
        axes.set_yticks(np.arange(len(names)) - 0.28, names)
        axes.set_ylim(len(names) - 0.8, -1.05)
        axes.set_xscale(scale)
        axes.set_xlim(edges[0], edges[-1])
        axes.axvline(1.0, color="0.4", linewidth=0.8, linestyle=(0, (4, 2.5)), zorder=0.5, gid="bound")
        axes.set_xlabel("Distance, in tolerances" if in_tolerances else "Measured / bound")
        finish(axes)
        axes.tick_params(axis="y", length=0, labelsize=7)
        axes.spines["left"].set_visible(False)
        legend(axes, _keys(axes), "above")
    return axes


def _chosen(found: Any) -> list[Verdict]:
    """Return the verdicts to draw, the tightest first."""
    if isinstance(found, VerificationReport):
        bounds = [verdict for verdict in found.verdicts if verdict.claim.kind not in _IN_TOLERANCES and verdict.ratios]
        given = bounds or [verdict for verdict in found.verdicts if verdict.ratios]
    else:
        given = [found] if isinstance(found, Verdict) else list(found) if isinstance(found, Sequence) else [found]
        if not all(isinstance(verdict, Verdict) for verdict in given):
            raise InputError("found must be a VerificationReport, a Verdict, or a list of them, from nlhfsim.verify")
        empty = [verdict.claim.id for verdict in given if not verdict.ratios]
        if empty:
            raise InputError(f"found: no case of {', '.join(empty)} counted, so there is nothing to draw")
    if not given:
        raise InputError("found holds no claim of which a case counted, so there is nothing to draw")
    if len({verdict.claim.kind in _IN_TOLERANCES for verdict in given}) > 1:
        raise InputError("found mixes bounds with equalities, whose ratios are distances in tolerances; draw them apart")
    if len(given) > _CAPACITY:
        raise InputError(f"found holds {len(given)} claims; draw at most {_CAPACITY} in one figure")
    return sorted(given, key=lambda verdict: -max(verdict.ratios))


def _searches(searched: Any, claims: Sequence[str]) -> dict[str, Tightness]:
    """Return what was searched for by claim."""
    given = [searched] if isinstance(searched, Tightness) else list(searched)
    if not all(isinstance(one, Tightness) for one in given):
        raise InputError("searched must hold what nlhfsim.claims.tightness found, and nothing else")
    for one in given:
        ensure_choice("searched", one.claim, claims)
    return {one.claim: one for one in given}


def _edges(scale: str, bins: int, largest: float) -> Array:
    """Return the edges of the bins; 1 is one of them, what is violated lies above, and what is beyond them in the last."""
    up_to_one = np.linspace(0, 1, bins + 1) if scale == "linear" else np.geomspace(_SMALLEST, 1, bins + 1)
    # A ratio of 1 up to rounding attains the bound and belongs below it.
    up_to_one[-1] = 1 + 1e-9
    beyond = 1 + (np.arange(bins) + 1) / bins if scale == "linear" else _SMALLEST ** -((np.arange(bins) + 1) / bins)
    needed = 1 + int(np.searchsorted(beyond, largest))
    return np.concatenate([up_to_one, beyond[:needed]])


def _draw_row(axes: Any, verdict: Verdict, row: int, edges: Array) -> None:
    """Draw one histogram standing on its line, its highest bin 0.85 high, and no case too low to be seen."""
    ratios = np.clip(np.nan_to_num(verdict.ratios, nan=edges[-1], posinf=edges[-1]), edges[0], edges[-1])
    counts = np.histogram(ratios, edges)[0]
    violated = edges[:-1] >= 1
    least = np.where(violated, _VIOLATION_SEEN, _SEEN)
    heights = np.where(counts > 0, np.maximum(0.85 * counts / counts.max(), least), 0.0)
    for part, colour in ((~violated, _HOLDS), (violated, _VIOLATED)):
        if counts[part].any():
            sides = np.append(edges[:-1][part], edges[1:][part][-1])
            look: dict[str, Any] = {"fill": True, "color": colour, "alpha": 0.75, "linewidth": 0}
            patch = axes.stairs(row - heights[part], sides, baseline=row, **look)
            patch.set_gid("violated" if part is violated else "holds")
    axes.plot(edges[[0, -1]], [row, row], color="0.8", linewidth=0.5, zorder=0.8, gid="base", solid_capstyle="butt")
    median, worst = float(np.median(ratios)), float(ratios.max())
    axes.plot([median] * 2, [row, row - 0.85], color="k", linewidth=1.0, zorder=3, gid="median", clip_on=False)
    axes.plot(
        worst, row - 0.12, ">" if worst == edges[-1] else "v", color="k", markersize=3.2, markeredgewidth=0, zorder=3, gid="worst"
    )
    _beside(axes, row, f"{len(ratios)}")


def _beside(axes: Any, row: float, words: str) -> None:
    look: dict[str, Any] = {"fontsize": 7, "color": "0.35", "va": "center", "ha": "left", "annotation_clip": False}
    axes.annotate(words, (1.0, row - 0.28), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", **look)


def _keys(axes: Any) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D([], [], color="k", linewidth=1.0, label="median"),
        Line2D([], [], color="k", marker="v", markersize=4, linestyle="none", markeredgewidth=0, label="largest"),
    ]
    if any(line.get_gid() == "searched" for line in axes.lines):
        look: dict[str, Any] = {"marker": "D", "markersize": 4, "linestyle": "none", "markeredgewidth": 0}
        handles.append(Line2D([], [], color=_SEARCHED, label="found by search", **look))
    if any(patch.get_gid() == "violated" for patch in axes.patches):
        handles.append(Patch(color=_VIOLATED, alpha=0.75, linewidth=0, label="violated"))
    return handles
