"""Cost of a step and of an equilibrium against the number of actions, drawn from the results of `steps` and `equilibria`."""

from __future__ import annotations

import importlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _measure
from benchmarks._measure import Report
from nlhfsim import plots
from nlhfsim.plots.style import DOUBLE, finish, style

Lines = dict[str, list[tuple[float, float]]]

# Colour, marker, line style; ours is black and drawn last. Okabe and Ito's colours, safe for the colour-blind.
LOOKS: Mapping[str, tuple[str, str, Any]] = {
    "nlhfsim": ("#000000", "o", "-"),
    "nlhfsim MagneticMirrorDescent": ("#000000", "o", "-"),
    "Numba by hand, loops": ("#D55E00", "s", "-"),
    "Numba by hand, BLAS": ("#E69F00", "s", (0, (4, 1.5))),
    "one gemv (floor)": ("#888888", "", (0, (1.2, 1.2))),
    "JAX, jit + scan": ("#0072B2", "^", "-"),
    "NumPy, out=": ("#56B4E9", "v", "-"),
    "torch autograd, SelfPlayPG": ("#882255", "D", "-"),
    "OpenSpiel mmd_dilated": ("#009E73", "P", "-"),
    "scipy highs-ipm": ("#0072B2", "^", "-"),
    "scipy highs-ds": ("#56B4E9", "v", "-"),
    "nashpy linear_program": ("#882255", "D", "-"),
    "QuantEcon minmax": ("#D55E00", "s", "-"),
    "QuantEcon lemke_howson": ("#E69F00", "s", (0, (4, 1.5))),
    "OpenSpiel lp_solver": ("#009E73", "P", "-"),
    "pygambit lp_solve": ("#CC79A7", "X", "-"),
    "cvxpy Clarabel": ("#0072B2", "^", "-"),
    "scipy root, hybr": ("#56B4E9", "v", "-"),
}


def run(*, quick: bool, out: Path) -> Report:
    """Draw ``cost.png`` and ``cost.svg``; the parts that the figure needs are run first where their results are missing."""
    steps, equilibria = (_result(part, quick, out) for part in ("steps", "equilibria"))
    panels = [
        ("Mirror step", "µs a step", lines(steps["rows"], "us_processor", 1.0)),
        ("Equilibrium at β = 0", "seconds", lines(_chosen(equilibria["rows"], "random tournament", 0.0), "ms_processor", 1e-3)),
        ("Equilibrium at β = 0.1", "seconds", lines(_chosen(equilibria["rows"], "zero-one", 0.1), "ms_processor", 1e-3)),
    ]
    written = [str(plots.save(draw(panels), out / f"cost.{suffix}").name) for suffix in ("png", "svg")]
    return Report(
        "figure",
        "Cost against size",
        {"file": "file"},
        rows=[{"file": name} for name in written],
        notes=["the equilibria are those of random tournaments", *map(_origin, (steps, equilibria))],
    )


def _result(part: str, quick: bool, out: Path) -> dict[str, Any]:
    """Return the result of a part, from its file or by running it."""
    path = out / f"{part}.json"
    if not path.exists():
        _measure.write(importlib.import_module(f"benchmarks.{part}").run(quick=quick, out=out), out, quick=quick)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _origin(made: Mapping[str, Any]) -> str:
    quick = ", a quick run" if made["quick"] else ""
    return f"from {made['part']}.json of {made['machine']['date']}{quick}"


def _chosen(rows: Sequence[Mapping[str, Any]], game: str, beta: float) -> list[Mapping[str, Any]]:
    """Return the rows of one game and β that were solved."""
    return [row for row in rows if row["game"] == game and row["beta"] == beta and row.get("solved")]


def lines(rows: Sequence[Mapping[str, Any]], key: str, unit: float) -> Lines:
    """Return the points of every contestant that the figure knows."""
    found: Lines = defaultdict(list)
    for row in rows:
        if row["contestant"] in LOOKS and row.get(key):
            found[row["contestant"]].append((row["n"], unit * row[key]))
    return dict(found)


def draw(panels: Sequence[tuple[str, str, Lines]]) -> Any:
    """Return a figure with one log-log panel each, its legend below it."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(DOUBLE, 3.6), layout="constrained")
        for axes, (title, unit, curves) in zip(figure.subplots(1, len(panels)), panels):
            # Ours last, so that it lies on top; the legend names it first.
            for name in sorted(curves, key=lambda name: name.startswith("nlhfsim")):
                colour, marker, dashes = LOOKS[name]
                ours = name.startswith("nlhfsim")
                axes.plot(
                    *zip(*sorted(curves[name])),
                    color=colour,
                    marker=marker,
                    markersize=3.5,
                    linestyle=dashes,
                    linewidth=1.8 if ours else 1.0,
                    label="nlhfsim" if ours else name,
                )
            axes.set(xscale="log", yscale="log", xlabel="actions n", ylabel=unit)
            axes.set_title(title, fontsize=8, loc="left")
            finish(axes, grid=True)
            handles, labels = axes.get_legend_handles_labels()
            first = [*handles[-1:], *handles[:-1]]
            axes.legend(first, [*labels[-1:], *labels[:-1]], loc="upper center", bbox_to_anchor=(0.5, -0.22), fontsize=7)
    return figure
