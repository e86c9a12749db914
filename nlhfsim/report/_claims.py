"""Claims on the page: a table of verdicts, an account of each with its mathematics and its worst game, and the kill matrix."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from nlhfsim.report._mathematics import mathematics
from nlhfsim.report._tables import Cell, Table, table
from nlhfsim.tables import show, verdict_words

_MARKS = {"holds": "good", "violated": "bad", "inconclusive": "open"}
_LARGEST = 12
"""Actions up to which the worst game is shown entry by entry."""


class Game(NamedTuple):
    """The worst game of a claim: what it is in words, and its preferences, policies and labels."""

    words: str
    labels: list[str]
    preferences: list[list[str]]
    policies: list[tuple[str, list[str]]]


class Account(NamedTuple):
    """What is to be known about a claim."""

    id: str
    title: str
    verdict: str
    mark: str
    formula: str
    facts: list[tuple[str, str]]
    address: str
    bars: list[tuple[float, float, bool]]
    peak: str
    game: Game | None


def claims_table(report: dict[str, Any]) -> Table:
    """Return the verdicts, a claim a row."""
    rows = []
    for claim in report["claims"]:
        mutants = claim["mutants"]
        killed = f"{sum(mutants.values())} of {len(mutants)}" if mutants else "–"
        rows.append(
            [
                Cell(claim["id"], link=claim["id"]),
                Cell(_words(claim), mark=_MARKS[claim["verdict"]]),
                claim["status"],
                claim["n_games"],
                claim["worst_ratio"],
                claim["median_ratio"],
                Cell(
                    killed, sum(mutants.values()) / len(mutants) if mutants else -1.0, mark="" if all(mutants.values()) else "bad"
                ),
                claim["seconds"],
            ]
        )
    columns = ["claim", "verdict", "status", "games", "worst ratio", "median", "mutants rejected", "seconds"]
    note = (
        "Ratio: measured over bound (lower bounds: bound over measured), at most 1 where the claim holds; of identities and "
        "thresholds: the difference in units of the tolerance."
    )
    return table("Verdicts", columns, rows, [note])


def accounts(report: dict[str, Any]) -> list[Account]:
    """Return what is to be known about each claim of a report."""
    return [_account(claim) for claim in report.get("claims", [])]


def kill_matrix(report: dict[str, Any]) -> Table:
    """Return which claims reject each wrong step, and which do not notice it."""
    rows = [
        [method, name, _names(row, True), Cell(_names(row, False) or "–", mark="" if any(row.values()) else "bad")]
        for method, steps in report["wrong_steps"].items()
        for name, row in steps.items()
    ]
    return table("Wrong steps of the methods", ["method", "what is wrong", "rejected by", "not noticed by"], rows)


def _names(row: dict[str, bool], killed: bool) -> str:
    return ", ".join(claim for claim, value in row.items() if value is killed)


def _words(claim: dict[str, Any]) -> str:
    return verdict_words(claim["status"], claim["verdict"], claim["n_games"])


def _account(claim: dict[str, Any]) -> Account:
    tolerance = claim["tolerance"]
    parts = [f"{show(tolerance[name])} {name}" for name in ("relative", "absolute") if tolerance[name]]
    counted = f"{claim['n_games']} games count"
    counted += f", {claim['n_inconclusive']} could not be decided" if claim["n_inconclusive"] else ""
    counted += f", {claim['n_skipped']} say nothing" if claim["n_skipped"] else ""
    survived = [name for name, killed in claim["mutants"].items() if not killed]
    facts = [
        ("source", claim["source"]),
        ("kind", f"{claim['kind']}, {claim['status']}"),
        ("domain", "; ".join(["β > 0, full support", *claim["hypotheses"]])),
        ("checked", counted),
        ("tightness", _tightness(claim)),
        ("slack", claim["slack"]),
        ("tolerance", f"{', '.join(parts) or 'none'}: {tolerance['why']}"),
        ("mutants rejected", ", ".join(name for name, killed in claim["mutants"].items() if killed)),
        ("mutants that survived", ", ".join(survived)),
        ("proof", claim["proof"]),
    ]
    bars, peak = _bars(claim)
    number = re.search(r"arXiv (\d{4}\.\d{4,5})", claim["source"])
    return Account(
        claim["id"],
        claim["title"],
        _words(claim),
        _MARKS[claim["verdict"]],
        mathematics(claim["statement"]),
        [(name, value) for name, value in facts if value],
        f"https://arxiv.org/abs/{number[1]}" if number else "",
        bars,
        peak,
        _game(claim["witness"]),
    )


def _tightness(claim: dict[str, Any]) -> str:
    if claim["worst_ratio"] is None:
        return ""
    return f"worst {show(claim['worst_ratio'])}, median {show(claim['median_ratio'])}"


def _bars(claim: dict[str, Any]) -> tuple[list[tuple[float, float, bool]], str]:
    """Return the histogram of ratios as bars (place, height, violated) between 0 and 1, and what its highest stands for."""
    counts = claim.get("histogram") or []
    highest = max(counts, default=0)
    if not highest:
        return [], ""
    width = 1 / len(counts)
    bars = [(k * width, count / highest, k == len(counts) - 1) for k, count in enumerate(counts) if count]
    return bars, f"{highest} of {sum(counts)} games"


def _game(witness: dict[str, Any] | None) -> Game | None:
    if witness is None:
        return None
    words = f"measured {show(witness['measured'])}, bound {show(witness['bound'])}; β = {show(float(witness['beta']))}"
    words += f", step size {show(float(witness['step_size']))}; of the family {witness['family']}"
    if len(witness["labels"]) > _LARGEST:
        return Game(f"{words}; {len(witness['labels'])} actions, in result.json", [], [], [])
    policies = [
        (name, [show(float(p)) for p in np.exp(witness[key])])
        for name, key in (("reference", "log_reference"), ("policy", "log_policy"), ("opponent", "log_opponent"))
    ]
    matrix = [[show(float(p)) for p in row] for row in witness["preferences"]]
    return Game(words, [str(label) for label in witness["labels"]], matrix, policies)
