"""A training run on the page: what is seen at once, its evaluations, its curves, its configuration."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nlhfsim.errors import InputError
from nlhfsim.report._folder import CURVES
from nlhfsim.report._tables import Table, table
from nlhfsim.tables import show
from nlhfsim.training_run import SHOWN, TrainingRun, with_error

_MARKS = {"done": "good", "interrupted": "open", "unfinished": "open"}
_AT_ONCE = ("win_rate_reference", "kl_reference", "exploitability")


def subject(run: TrainingRun) -> str:
    """Return what was trained."""
    title = (run.recipe or {}).get("title")
    words = f"{run.config.get('method')}, β = {show(run.config.get('beta'))}"
    return f"{title}: {words}" if title else words


def facts(run: TrainingRun) -> list[tuple[str, str, str]]:
    """Return what is to be seen at once: a name, a value and its mark."""
    found = [
        ("status", run.status, _MARKS.get(run.status, "")),
        ("steps", f"{run.last_step} of {run.config.get('steps')}", ""),
    ]
    final = run.final
    return found + [(SHOWN[name], with_error(final, name), "") for name in _AT_ONCE if name in final]


def evaluations(run: TrainingRun) -> Table:
    """Return what was measured on the held-out prompts, an evaluation a row."""
    columns, rows, notes = run.table()
    return table("Evaluations", columns or ["step"], rows, notes or ["There was no evaluation yet."])


def curves(run: TrainingRun) -> list[bytes]:
    """Return the figure of the run as SVG, none if nothing was measured yet."""
    from nlhfsim import plots

    try:
        figure = plots.training(run)
    except InputError:
        return []
    with tempfile.TemporaryDirectory() as folder:
        return [plots.save(figure, Path(folder) / f"{CURVES}.svg").read_bytes()]


def configuration(run: TrainingRun) -> dict[str, Any]:
    """Return the recipe, if there is one, with the configuration in force."""
    return (run.recipe or {}) | {"training": run.config}
