"""What the command line writes: tables, one JSON object, files."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nlhfsim import files, provenance
from nlhfsim.files import jsonable
from nlhfsim.tables import show

if TYPE_CHECKING:
    from nlhfsim.equilibrium import Equilibrium
    from nlhfsim.games.game import PreferenceGame
    from nlhfsim.trajectory import Trajectory


ARGUMENTS = "nlhfsim.arguments"
"""Key under which click's context keeps what was typed."""


def speaks() -> bool:
    """Return whether this process is to say anything: of several that train together the first alone."""
    return os.environ.get("RANK", "0") == "0"


def write_result(value: Any, folder: Path) -> None:
    """Write ``result.json`` to a folder, and beside it ``provenance.json``: what made it."""
    write_json(value, folder / "result.json")
    provenance.write(folder, command())


def command() -> str | None:
    """Return the command that is being run, as it is typed."""
    context = click.get_current_context(silent=True)
    arguments = None if context is None else context.meta.get(ARGUMENTS)
    return None if arguments is None else shlex.join(["nlhfsim", *arguments])


def write_json(value: Any, path: Path) -> None:
    """Write one JSON object to a file."""
    write_text(json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text file in one move."""
    files.write_whole(path, text.encode("utf-8"))


def emit_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    click.echo(json.dumps(jsonable(value), ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], notes: Iterable[str] = ()) -> None:
    """Print a table with a title, words left and numbers right, and notes below it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = [list(row) for row in rows]
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        words = any(isinstance(row[k], (str, dict)) and row[k] for row in cells)
        grid.add_column(column, justify="left" if words else "right", no_wrap=True)
    for row in cells:
        grid.add_row(*(_broken(show(cell)) for cell in row))
    # The console is as wide as the table: better a line that the terminal breaks than a number that is cut.
    console = Console(file=sys.stdout, highlight=False, width=10_000, markup=False)
    console.on_broken_pipe = _broken_pipe  # type: ignore[method-assign]
    console.width = console.measure(grid).maximum
    console.print(title, style="bold", soft_wrap=True)
    console.print(grid)
    for note in notes:
        console.print(note, soft_wrap=True)


def _broken_pipe() -> None:
    """Leave a closed pipe to `main`: rich would exit with code 1, which here means a violated claim."""
    raise BrokenPipeError


def _broken(text: str) -> str:
    """Break sentences, not what has line breaks already."""
    return text if "\n" in text else textwrap.fill(text, 40, break_on_hyphens=False, break_long_words=False)


def run_entries(trajectory: Trajectory) -> list[dict[str, Any]]:
    """Return one entry a run, with the fields that others rely on."""
    calls = float(trajectory.oracle_calls[-1])
    return [
        {
            "dynamics": trajectory.dynamics,
            "params": trajectory.params,
            "seed": trajectory.seed,
            "run": run,
            "steps": int(trajectory.steps[-1]),
            "oracle_calls": None if math.isnan(calls) else int(calls),
            "queries": int(trajectory.queries[-1]),
            "final_kl": float(trajectory.kl[run, -1]),
            "final_exploitability": float(trajectory.exploitability[run, -1]),
            "status": trajectory.status[run],
        }
        for run in range(trajectory.runs)
    ]


def equilibrium_entry(game: PreferenceGame, equilibrium: Equilibrium) -> dict[str, Any]:
    """Return a solved game with the fields that others rely on; the majorities of too many actions are null."""
    from nlhfsim.errors import SizeError
    from nlhfsim.games import condorcet_winner, has_majority_cycle

    try:
        winner, cycles = condorcet_winner(game), has_majority_cycle(game)
    except SizeError:
        winner = cycles = None
    return {
        "beta": game.beta,
        "labels": list(game.labels),
        "policy": equilibrium.policy,
        "exploitability": equilibrium.exploitability,
        "kl_bound": equilibrium.kl_bound,
        "residual": equilibrium.residual,
        "status": equilibrium.status,
        "condorcet_winner": winner,
        "cycles": cycles,
        "unique": equilibrium.unique,
        "face_dimension": equilibrium.face_dimension,
        "method": equilibrium.method,
        "solver_status": equilibrium.solver_status,
    }


def certificate_notes(equilibrium: Equilibrium) -> list[str]:
    """Return the certificates of an equilibrium in words."""
    words = f"{equilibrium.status} by {equilibrium.method}: exploitability {equilibrium.exploitability:.1e}"
    if equilibrium.kl_bound is not None:
        words += f", its KL from the exact equilibrium at most {equilibrium.kl_bound:.1e}"
        words += f", log-ratio residual {equilibrium.residual:.1e}"
    notes = [words]
    if equilibrium.unique is False:
        dimension = equilibrium.face_dimension
        which = "this is one of several" if dimension is None else f"a set of dimension {dimension}; this is its centre"
        notes.append(f"the equilibrium is not unique: {which}")
    return notes


def shape_notes(game: PreferenceGame) -> list[str]:
    """Return what the majorities look like, in words."""
    from nlhfsim.errors import SizeError
    from nlhfsim.games import condorcet_winner, has_majority_cycle

    try:
        winners, cycles = condorcet_winner(game), has_majority_cycle(game)
    except SizeError:
        return [f"the majorities of {game.n} actions were not looked at"]
    if isinstance(winners, list) and isinstance(cycles, list):
        won = sum(winner is not None for winner in winners)
        return [f"of {game.n_contexts} contexts {won} have a Condorcet winner and {sum(cycles)} a majority cycle"]
    winner = f"Condorcet winner: {winners}" if winners is not None else "no Condorcet winner"
    return [f"{winner}; {'the majorities cycle' if cycles else 'no majority cycle'}"]


class Progress:
    """Says on a terminal what is being done, with what the library logs about it; silent elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.quiet = quiet or not self.console.is_terminal

    @contextmanager
    def stage(self, words: str) -> Iterator[None]:
        """Show `words` and what is logged while the body runs."""
        if self.quiet:
            yield
            return
        logger = logging.getLogger("nlhfsim")
        before = logger.level
        with self.console.status(f"{words} …") as status:
            handler = _StatusHandler(words, status)
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
            try:
                yield
            finally:
                logger.removeHandler(handler)
                logger.setLevel(before)

    @contextmanager
    def line(self, words: str) -> Iterator[Callable[[str], None]]:
        """Give a function that shows what it is told, `words` at first, while the body runs."""
        if self.quiet:
            yield lambda text: None
            return
        with self.console.status(words) as status:
            yield status.update


class _StatusHandler(logging.Handler):
    """Puts messages of the library behind the words of a status line."""

    def __init__(self, words: str, status: Any) -> None:
        super().__init__()
        self.words, self.status, self.message = words, status, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message; a step is shown behind the run that it belongs to."""
        if record.levelno >= logging.INFO:
            self.message = record.getMessage()
            self.status.update(f"{self.words} … {self.message}")
        else:
            self.status.update(f"{self.words} … {self.message}, {record.getMessage()}")
