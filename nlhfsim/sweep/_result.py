"""What a sweep returns: where its tables are, and the best of it."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlhfsim import __version__
from nlhfsim.errors import DataError, InputError, ensure_choice
from nlhfsim.files import ensure_path
from nlhfsim.sweep._store import CURVES_FILE, RESULTS, TIMINGS, read_about

METRICS = ("kl", "exploitability", "gap0")
STATUSES = ("completed", "diverged", "failed")
_PROBLEM = ("beta", "reference", "feedback", "batch_size", "votes", "candidates", "n_steps", "start")
"""With the game's columns: what must agree for methods to be compared."""


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: a folder of tables.

    Attributes
    ----------
    path : pathlib.Path
        The folder: ``results.parquet``, a row a run in the order of the design, the same bits each time; ``timings.parquet``, the
        seconds of each; ``curves.parquet``, if asked for, a row a record; ``sweep.json``, configuration and versions;
        ``result.json``, the summary; ``runs/``, a file a run.
    title : str
        Of the configuration.
    rows : tuple of dict
        The rows of ``results.parquet``.
    """

    path: Path
    title: str
    rows: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, path: str | Path) -> Sweep:
        """Return the sweep in a folder.

        Raises
        ------
        InputError
            If `path` is none.
        DataError
            If there is none, or it is not finished.
        """
        folder = ensure_path("path", path)
        about = read_about(folder)
        if not (folder / RESULTS).exists():
            raise DataError(f"the sweep in {str(folder)!r} is not finished; the call that began it goes on with it")
        return cls(folder, about["title"], tuple(_table(folder, RESULTS).to_pylist()))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return f"Sweep({len(self.rows)} runs: {counts}; {str(self.path)!r})"

    @property
    def counts(self) -> dict[str, int]:
        """How many runs completed, diverged and failed."""
        found = Counter(row["status"] for row in self.rows)
        return {name: found[name] for name in STATUSES}

    def to_frame(self) -> Any:
        """Return the results as a pandas DataFrame, a row a run: configuration, outcome and seconds."""
        frame = _table(self.path, RESULTS).to_pandas()
        return frame.assign(seconds=_table(self.path, TIMINGS).to_pandas()["seconds"])

    def curves(self) -> Any:
        """Return the records of all runs as a pandas DataFrame, a row a record, with the run's number and id.

        Raises
        ------
        InputError
            If the configuration did not ask for them.
        """
        if not (self.path / CURVES_FILE).exists():
            raise InputError("there are no curves: the configuration must say curves = true under [run]")
        return _table(self.path, CURVES_FILE).to_pandas()

    def best(self, metric: str | None = None) -> list[dict[str, Any]]:
        """Return the best parameters of every method on every problem: game, β, feedback, steps and start.

        Parameters
        ----------
        metric : str, optional
            ``"kl"``, ``"exploitability"`` or ``"gap0"`` at the end, median over seeds. Default: KL, at β = 0 the gap.

        Returns
        -------
        list of dict
            With the problem, ``method``, ``params``, ``points`` (how many were tried), ``runs`` (of the best), ``status`` and the
            medians ``final_kl``, ``final_exploitability`` and ``final_gap0``; those of one problem together, best first.
        """
        if metric is not None:
            ensure_choice("metric", metric, METRICS)
        problems: dict[str, dict[str, dict[str, list[dict[str, Any]]]]] = {}
        for row in self.rows:
            problem = json.dumps({name: value for name, value in row.items() if of_problem(name)})
            point = json.dumps({name: value for name, value in row.items() if name.startswith("method_")})
            problems.setdefault(problem, {}).setdefault(row["method"], {}).setdefault(point, []).append(row)
        found = []
        for methods in problems.values():
            some = [_best_of(points, metric) for points in methods.values()]
            found += [entry for _, entry in sorted(some, key=lambda item: item[0])]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as numbers, lists and strings: its runs with the fields that all commands give them, and the best."""
        return {
            "sweep": {"title": self.title, "runs": len(self.rows), **self.counts, "version": __version__},
            "runs": [_entry(row) for row in self.rows],
            "best": self.best(),
        }


def of_problem(name: str) -> bool:
    """Return whether a column says which problem a run is about, rather than how it was done or how it ended."""
    return name in _PROBLEM or name.partition("_")[0] == "game"


def _best_of(points: dict[str, list[dict[str, Any]]], metric: str | None) -> tuple[float, dict[str, Any]]:
    """Return the value of the best point, and its entry."""

    def value(rows: list[dict[str, Any]]) -> float:
        name = metric or ("kl" if rows[0]["beta"] > 0 else "gap0")
        return _median(row[f"final_{name}"] for row in rows)

    rows = min(points.values(), key=value)
    first = rows[0]
    worst = max((row["status"] for row in rows), key=STATUSES.index)
    entry = {name: given for name, given in first.items() if of_problem(name)}
    entry |= {"method": first["method"], "params": _params(first), "points": len(points), "runs": len(rows), "status": worst}
    for name in METRICS:
        median = _median(row[f"final_{name}"] for row in rows)
        entry[f"final_{name}"] = median if median < math.inf else None
    return value(rows), entry


def _median(values: Iterable[float | None]) -> float:
    """Return the median, where what is missing is infinitely bad."""
    return statistics.median([math.inf if value is None or math.isnan(value) else value for value in values])


def _params(row: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a run had; of one that failed those that it was given."""
    if row["params"] is not None:
        return dict(json.loads(row["params"]))
    return {
        name.removeprefix("method_"): value for name, value in row.items() if name.startswith("method_") and value is not None
    }


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """Return a run with the fields that others rely on, and those that tell it from the others."""
    names = ("run", "id", *(name for name in row if of_problem(name)))
    outcome = ("seed", "steps", "oracle_calls", "queries", "final_kl", "final_exploitability", "final_gap0", "status", "error")
    return {
        "dynamics": row["method"],
        "params": _params(row),
        **{name: row[name] for name in outcome},
        **{name: row[name] for name in names if row[name] is not None},
    }


def _table(folder: Path, name: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(folder / name).read()
    except (OSError, pyarrow.ArrowException):
        raise DataError(f"{str(folder / name)!r} is damaged; the call that began the sweep writes it again") from None
