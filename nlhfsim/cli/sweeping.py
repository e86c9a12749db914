"""Sweeps on the command line: the best of each method, what failed, how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import nlhfsim
from nlhfsim.cli import output
from nlhfsim.errors import InputError
from nlhfsim.tables import show

if TYPE_CHECKING:
    from nlhfsim.sweep import Sweep

_SHOWN = 40


def do_sweep(config: str, out: str, workers: int | None, dask: str | None, resume: bool, as_json: bool) -> None:
    """Do a sweep and say what it found."""
    try:
        with output.Progress(quiet=as_json).stage("sweeping"):
            found = nlhfsim.sweep(config, out=out, workers=workers, client=dask, resume=resume)
    except KeyboardInterrupt as stop:
        if stop.args:
            click.echo(f"nlhfsim: {stop}", err=True)
        raise
    not_drawn = _draw(found)
    if as_json:
        output.emit_json({"path": str(found.path)} | found.to_dict())
        return
    _tell(found)
    if not_drawn:
        print(f"no figure: {not_drawn}")


def _draw(found: Sweep) -> str:
    """Draw the outcome against what was varied, or return why it is not drawn."""
    from nlhfsim import plots

    try:
        axes = plots.sweep(found)
    except InputError as error:
        return str(error)
    for suffix in ("pdf", "svg"):
        plots.save(axes, found.path / f"outcome.{suffix}")
    return ""


def _tell(found: Sweep) -> None:
    best = found.best()
    rows = [
        [_game(entry), entry["beta"], _feedback(entry), entry["n_steps"], entry["method"], entry["params"], entry["points"]]
        + [entry["runs"], entry["final_kl"], entry["final_exploitability"], entry["final_gap0"]]
        for entry in best[:_SHOWN]
    ]
    columns = ["game", "beta", "feedback", "steps", "method", "parameters", "of", "runs", "KL", "E_beta", "E_0"]
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items() if count)
    output.table(f"{found.title or 'Sweep'}: {len(found.rows)} runs, {counts}", columns, rows, _notes(found, len(best)))
    print(f"\nresults.parquet, a row a run, is in {found.path}/")


def _game(entry: dict[str, Any]) -> str:
    parameters = [
        f"{name.removeprefix('game_')}={show(value)}"
        for name, value in entry.items()
        if name.startswith("game_") and value is not None
    ]
    return " ".join([entry["game"], *parameters])


def _feedback(entry: dict[str, Any]) -> str:
    return "exact" if entry["feedback"] == "exact" else f"{entry['batch_size']} votes a call"


def _notes(found: Sweep, entries: int) -> list[str]:
    """Return what the table means, and what it leaves out."""
    notes = [
        "the best parameters of each method, of so many tried; at the end, median over runs: KL(π* ‖ π), exploitability E_beta, "
        "unregularized exploitability E_0"
    ]
    failed = [row for row in found.rows if row["status"] == "failed"]
    notes += [f"{entries - _SHOWN} more are in result.json"] if entries > _SHOWN else []
    if failed:
        notes.append(
            f"failed, to be tried again by the same command: {len(failed)} runs; run {failed[0]['run']}: {failed[0]['error']}"
        )
    return notes
