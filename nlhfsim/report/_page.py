"""The page: what a result says, section by section, put into the template."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nlhfsim import __version__
from nlhfsim.report import _training
from nlhfsim.report._claims import accounts, claims_table, kill_matrix
from nlhfsim.report._folder import CURVES, Folder
from nlhfsim.report._tables import Cell, Table, cell, table
from nlhfsim.tables import comparison_notes, comparison_table, show

_HERE = Path(__file__).parent
_CAPTIONS = {
    CURVES: "What was measured while the model was trained.",
    "convergence": "Distance from the equilibrium against work.",
    "convergence-kl": "KL(π* ‖ π) against work.",
    "convergence-exploitability": "Regularized exploitability against work.",
    "convergence-gap0": "Unregularized exploitability against work.",
    "convergence-best-step": "KL(π* ‖ π) against oracle calls, each method at its best step.",
    "convergence-proven-step": "KL(π* ‖ π) against oracle calls, at the largest step with a proven rate, and that rate.",
    "phase-portrait": "Runs on the simplex; arrows: the flow of self-play policy gradient.",
    "preferences": "Preferences, ordered by the equilibrium.",
    "outcome": "Outcome against what was varied: median over seeds, other parameters at their best, bars over all seeds.",
    "experiment": "Equal numbers of votes, each method at its own best step of one grid.",
}


class Section(NamedTuple):
    """A part of the page: its anchor, its heading, and its tables."""

    anchor: str
    title: str
    tables: list[Table]


class Picture(NamedTuple):
    """A figure: where its bits are, as a data address, what it shows, and whether it is of many panels, so of small letters."""

    address: str
    caption: str
    panels: bool


def render(folder: Folder) -> str:
    """Return the page about a folder as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    run = folder.training
    sections = (
        list(_sections(folder.result)) if run is None else [Section("evaluations", "Evaluations", [_training.evaluations(run)])]
    )
    claims = accounts(_report(folder.result))
    pictures = [_picture(path.read_bytes(), path.stem, media) for path, media in folder.pictures]
    pictures += [_picture(bits, CURVES, "image/svg+xml") for bits in ([] if run is None else _training.curves(run))]
    return environment.get_template("page.html").render(
        title=folder.kind,
        subject=_subject(folder),
        facts=_facts(folder),
        sections=sections,
        claims=claims,
        pictures=pictures,
        origin=_origin(folder),
        configuration=folder.provenance.get("config") if run is None else _training.configuration(run),
        version=__version__,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
    )


def _report(result: dict[str, Any]) -> dict[str, Any]:
    """Return the report on claims, which stands within the result of a demonstration."""
    found = result.get("claims")
    if isinstance(found, dict):
        return found
    return result if isinstance(found, list) else {}


def _subject(folder: Folder) -> str:
    result = folder.result
    if folder.training is not None:
        return _training.subject(folder.training)
    if "dataset" in result:
        return f"{result['dataset']}, β = {result['beta']:g}"
    if "sweep" in result:
        return str(result["sweep"].get("title") or folder.path.name)
    if "wrong_steps" in result:
        return f"{len(result['claims'])} claims, {result['n_games']} games, seed {result['seed']}"
    return folder.path.name


def _facts(folder: Folder) -> list[tuple[str, str, str]]:
    """Return what is to be seen at once: a name, a value and its mark."""
    if folder.training is not None:
        return _training.facts(folder.training)
    result, report, found = folder.result, _report(folder.result), []
    if "status" in result and "policy" in result:
        found.append(("equilibrium", str(result["status"]), "good" if result["status"] == "certified" else "bad"))
        cycles = result.get("cycles")
        if isinstance(cycles, bool):
            found.append(("majorities", "they cycle" if cycles else "no cycle", ""))
    if "cvxpy_distance" in result:
        found.append(("distance from cvxpy", show(float(result["cvxpy_distance"])), ""))
    if report:
        verdicts = [claim["verdict"] for claim in report["claims"]]
        found.append(("verification", "passed" if report["passed"] else "failed", "good" if report["passed"] else "bad"))
        found += [(word, str(verdicts.count(word)), mark) for word, mark in _VERDICTS if verdicts.count(word)]
        mutants = [killed for claim in report["claims"] for killed in claim["mutants"].values()]
        if mutants:
            found.append(("mutants rejected", f"{sum(mutants)} of {len(mutants)}", "good" if all(mutants) else "bad"))
    if "sweep" in result:
        counts = {name: result["sweep"][name] for name in ("runs", "completed", "diverged", "failed")}
        found += [(name, str(n), "bad" if name == "failed" and n else "") for name, n in counts.items()]
    return found


_VERDICTS = (("holds", "good"), ("violated", "bad"), ("inconclusive", "open"))


def _sections(result: dict[str, Any]) -> Iterator[Section]:
    if "policy" in result:
        yield Section("equilibrium", "Equilibrium", [_equilibrium(result)])
    if "comparison" in result:
        yield Section("comparison", "Comparison", list(_comparisons(result)))
    if "sweep" in result:
        yield Section("best", "The best of each method", [_records("Best parameters", result["best"], _BEST_NOTE)])
    if len(result.get("runs", [])) > len(result.get("comparison", [])):  # else each is in the comparison already
        yield Section("runs", "Runs", [_records("Every run", result["runs"])])
    report = _report(result)
    if report:
        yield Section("claims", "Claims", [claims_table(report)])
        if report["wrong_steps"]:
            yield Section("kill-matrix", "Wrong steps", [kill_matrix(report)])


_BEST_NOTE = "Best parameters of each method on each problem, of so many points tried; medians over runs at the end."


def _equilibrium(result: dict[str, Any]) -> Table:
    rows: list[list[Any]]
    if result["policy"] and isinstance(result["policy"][0], list):
        columns = ["context", *result["labels"]]
        rows = [[str(k), *map(float, row)] for k, row in enumerate(result["policy"])]
    else:
        columns = ["action", "probability"]
        rows = [[label, float(p)] for label, p in zip(result["labels"], result["policy"])]
    notes = [f"{result['status']}: exploitability {show(result['exploitability'])}; {result['solver_status']}"]
    if result.get("kl_bound") is not None:
        notes.append(f"KL from the exact equilibrium at most {show(result['kl_bound'])}")
    if isinstance(result.get("condorcet_winner"), str):
        notes.append(f"Condorcet winner: {result['condorcet_winner']}")
    return table(f"Equilibrium at β = {result['beta']:g}", columns, rows, notes)


def _comparisons(result: dict[str, Any]) -> Iterator[Table]:
    games: dict[Any, list[dict[str, Any]]] = {}
    for row in result["comparison"]:
        games.setdefault(row.get("game"), []).append(row)
    for game, rows in games.items():
        title = "Each method at its best step" if game is None else str(game)
        yield table(title, *comparison_table(rows), comparison_notes(rows))
    if result.get("proven"):
        columns = ["method", "parameters", "proven factor of KL a step", "fitted factor", "calls to 1e-6"]
        keys = ("dynamics", "params", "proven_factor", "fitted_factor", "calls_to_1e-6")
        yield table("At the largest step with a proven rate", columns, [[row[key] for key in keys] for row in result["proven"]])


def _records(title: str, records: list[dict[str, Any]], note: str = "") -> Table:
    """Return a table of dicts, without the columns that say nothing: where all rows are empty, or repeat an identifier."""
    names = list(dict.fromkeys(name for record in records for name in record))
    names.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    shown = [name for name in names if name != "id" and any(record.get(name) is not None for record in records)]
    common = {name: records[0].get(name) for name in shown if name not in _NAMED and _same([r.get(name) for r in records])}
    shown = [name for name in shown if name not in common]
    rows = [[_status(record.get(name)) if name == "status" else record.get(name) for name in shown] for record in records[:_MOST]]
    notes = [note] if note else []
    words = [f"{name.replace('_', ' ')} {cell(value).text}" for name, value in common.items()]
    notes += [f"The same in all: {', '.join(words)}."] if words else []
    notes += [f"{len(records) - _MOST} more are in the folder."] if len(records) > _MOST else []
    return table(title, [name.replace("_", " ") for name in shown], rows, notes)


def _same(values: list[Any]) -> bool:
    """Return whether there are several values, all equal."""
    return len(values) > 1 and all(value == values[0] for value in values)


_NAMED = ("dynamics", "method", "params")
_MOST = 2000
"""Rows that a page can show."""
_FIRST = ("run", "game", "beta", "dynamics", "method", "params", "status", "seed")


def _status(value: Any) -> Cell:
    return Cell(show(value), mark={"completed": "good", "diverged": "open", "failed": "bad"}.get(str(value), ""))


def _picture(bits: bytes, name: str, media: str) -> Picture:
    address = f"data:{media};base64,{base64.b64encode(bits).decode('ascii')}"
    return Picture(address, _CAPTIONS.get(name, re.sub("[-_]+", " ", name).capitalize() + "."), name == CURVES)


def _origin(folder: Folder) -> list[tuple[str, str]]:
    """Return how the result was made, and how to make it again."""
    about = folder.provenance
    machine = about.get("machine") or {}
    versions = about.get("versions") or {"nlhfsim": folder.result.get("version")}
    processes = about.get("processes", 1)
    found = [
        ("command", about.get("command") or about.get("reproduce")),
        ("processes", f"{processes}, begun by torchrun or accelerate launch" if processes != 1 else None),
        ("seed", folder.result.get("seed") if folder.training is None else folder.training.config.get("seed")),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items() if number)),
        ("made", about.get("created")),
        ("machine", ", ".join(f"{machine[key]}" for key in ("system", "processor") if machine.get(key))),
        ("cores", machine.get("cores")),
        ("configuration", about.get("digest")),
    ]
    return [(name, str(value)) for name, value in found if value not in (None, "")]
