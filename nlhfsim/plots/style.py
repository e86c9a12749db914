"""What all figures share: sizes, fonts, one look a method, legends, and `save`."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nlhfsim.errors import DataError, InputError, ensure_choice
from nlhfsim.files import ensure_path
from nlhfsim.flow import Flow
from nlhfsim.games.game import PreferenceGame
from nlhfsim.trajectory import Records

SINGLE, DOUBLE = 3.4, 7.0
"""Widths of a figure in inches: one column, two columns."""
FORMATS = ("pdf", "png", "svg")
METHOD_COLOURS: dict[str, str] = {
    "SelfPlayPG": "#000000",
    "ProximalPG": "#D55E00",
    "NashMirrorProx": "#0072B2",
    "NashProx": "#CC79A7",
    "ProximalPoint": "#E69F00",
    "NaturalPG": "#56B4E9",
    "MagneticMirrorDescent": "#009E73",
    "Extragradient": "#882255",
    "NashMD": "#999933",
    "MultiplicativeWeights": "#888888",
    "OptimisticMirrorDescent": "#0072B2",
    "MagnetRefresh": "#009E73",
    "IPOMD": "#000000",
    "FictitiousPlay": "#888888",
    "RegretMatching": "#D55E00",
    "RegretMatchingPlus": "#882255",
}
"""The colour of every method in every figure, safe for the colour-blind (Okabe and Ito; Tol, muted)."""
_FIRST_OF_ITS_COLOUR = frozenset(list(METHOD_COLOURS)[:10])
_DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5, 1, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
_MARKERS = "os^DvPX<>*"
_LONGEST = 20
"""Letters of an action's name in a figure."""
_SYMBOLS = {"step_size": "γ", "inner_step_size": "inner γ", "proximal_step": "proximal γ"}
_STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.handletextpad": 0.5,
    "legend.labelspacing": 0.3,
    "legend.columnspacing": 1.0,
    "lines.linewidth": 1.2,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "nlhfsim",
    "savefig.dpi": 300,
}


def style() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def axes_or_new(ax: Any, size: tuple[float, float], layout: Any = "constrained", projection: str | None = None) -> Any:
    """Return the axes given, or those of a new figure."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    if projection == "ternary":
        import mpltern  # noqa: F401

    return Figure(figsize=size, layout=layout).add_subplot(projection=projection)


def finish(axes: Any, grid: bool = False) -> None:
    """Set what matplotlib reads only when it draws, after the style is gone."""
    axes.tick_params(labelsize=8, width=0.6, length=2.5)
    axes.tick_params(which="minor", width=0.4, length=1.5)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(True, color="0.92", linewidth=0.5)


def legend(axes: Any, handles: Sequence[Any], where: str) -> None:
    """Put the legend where there are no data."""
    places = {
        "above": ("lower right", (1.0, 1.0)),
        "beside": ("upper left", (1.0, 1.0)),
        "below": ("upper center", (0.5, -0.08)),
    }
    if handles:
        place, anchor = places[where]
        two = len(handles) > 1 and where != "beside" and narrow(handle.get_label() for handle in handles)
        axes.legend(handles=handles, loc=place, bbox_to_anchor=anchor, ncols=1 + two, borderaxespad=0.3)


def fit_height(axes: Any, handles: Sequence[Any], base: float = 2.55) -> None:
    """Make a new figure of one column so high that a legend above the axes leaves them their height."""
    rows = -(-len(handles) // (2 if narrow(handle.get_label() for handle in handles) else 1)) if handles else 0
    axes.figure.set_figheight(base + 0.155 * rows)


def narrow(labels: Iterable[str]) -> bool:
    """Return whether labels are so short that two stand side by side in one column of print."""
    return max(map(len, labels)) <= 23


def names_of(game: PreferenceGame) -> list[str]:
    """Return the actions' labels, cut to what a column of print has room for, and numbered where that makes two alike."""
    cut = [label if len(label) <= _LONGEST else label[: _LONGEST - 1].rstrip() + "…" for label in game.labels]
    return [f"{name}{k}" if cut.count(name) > 1 else name for k, name in enumerate(cut)]


def looks_of(trajectories: Sequence[Records]) -> list[dict[str, Any]]:
    """Return colour, line style and label of each trajectory; those of one method differ in dashes, the later are lighter."""
    looks: list[dict[str, Any]] = []
    methods, colours = [t.dynamics for t in trajectories], [colour_of(t.dynamics) for t in trajectories]
    short = [_label(t, 1) for t in trajectories]
    for k, (trajectory, text) in enumerate(zip(trajectories, short)):
        first = int(trajectory.dynamics not in _FIRST_OF_ITS_COLOUR)
        taken = [look["linestyle"] for look, colour in zip(looks, colours) if colour == colours[k]]
        dashes = next((style for style in _DASHES[first:] + _DASHES[:first] if style not in taken), _DASHES[first])
        label = text if short.count(text) == 1 else _label(trajectory, None)
        looks.append({"color": _lighter(colours[k], methods[:k].count(methods[k])), "linestyle": dashes, "label": label})
    return looks


def _lighter(colour: str, times: int) -> str:
    """Return a colour mixed with white, so that it is still seen."""
    from matplotlib.colors import to_hex, to_rgb

    share = (0.0, 0.4, 0.55)[min(times, 2)]
    red, green, blue = (part + share * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue)) if times else colour


def _label(trajectory: Records, count: int | None) -> str:
    """Return the method and its first `count` parameters, the step size before others."""
    values = {
        name: f"{v:.3g}" if isinstance(v, (int, float)) and not isinstance(v, bool) else str(v)
        for name, v in trajectory.params.items()
    }
    shown = [f"{_SYMBOLS.get(name, name.replace('_', ' '))}={value}" for name, value in list(values.items())[:count]]
    return ", ".join([trajectory.dynamics + " flow" * isinstance(trajectory, Flow), *shown])


def colour_of(name: str) -> str:
    """Return the colour of a method; one that `METHOD_COLOURS` does not name gets one of its colours, always the same."""
    palette = list(dict.fromkeys(METHOD_COLOURS.values()))
    return METHOD_COLOURS.get(name, palette[zlib.crc32(name.encode()) % len(palette)])


def marker_of(name: str) -> str:
    place = list(METHOD_COLOURS).index(name) if name in METHOD_COLOURS else zlib.crc32(name.encode())
    return _MARKERS[place % len(_MARKERS)]


def ensure_trajectories(trajectories: Any, least: int = 1) -> list[Records]:
    chosen = [trajectories] if isinstance(trajectories, Records) else list(trajectories)
    if len(chosen) < least or not all(isinstance(item, Records) for item in chosen):
        raise InputError("trajectories must hold at least one Trajectory or Flow, and nothing else")
    return chosen


def ensure_ternary(ax: Any) -> None:
    if not hasattr(ax, "set_tlabel"):
        raise InputError("ax must be ternary, from figure.add_subplot(projection='ternary') after importing mpltern")


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure (or that of axes) to a ``.pdf``, ``.svg`` or ``.png`` file, the same bytes each time; return its path.

    Raises
    ------
    InputError
        If `path` is none, or its suffix is none of these.
    DataError
        If the file cannot be written.
    """
    target = ensure_path("path", path)
    suffix = ensure_choice("suffix", target.suffix.removeprefix(".").lower(), FORMATS)
    drawing = figure.get_figure(root=True)
    # A constrained figure fits already and keeps its printed width; cropping would change it.
    crop = None if drawing.get_layout_engine() is not None else "tight"
    undated: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    partial = target.with_name(target.name + ".part")
    try:
        with style():
            drawing.savefig(partial, format=suffix, bbox_inches=crop, metadata=undated.get(suffix))
        partial.replace(target)
    except OSError as error:
        raise DataError(f"path = {str(target)!r} cannot be written: {error.strerror or error}") from None
    return target
