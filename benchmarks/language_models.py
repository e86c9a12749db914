"""How near a language model comes to its exact equilibrium; Online IPO beside Nash Prox, each over a grid of learning rates."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from joblib import Parallel, delayed

from benchmarks._measure import NOT_INSTALLED, Report
from nlhfsim.errors import MissingExtraError

WORKERS = 2
BETA = 0.05
RATES = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
CLOSE = 0.01
"""Rates that end below this exploitability are counted as good."""
METHODS: dict[str, dict[str, Any]] = {
    "Online IPO": {"method": "online_ipo"},
    "Nash Prox, average 0.05, η = 5": {"method": "nash_prox", "averaging": 0.05, "proximal_step": 5.0},
    "Nash Prox, average 0.05, η = 20": {"method": "nash_prox", "averaging": 0.05, "proximal_step": 20.0},
    "Nash Prox, refresh 50, η = 5": {"method": "nash_prox", "refresh_every": 50, "proximal_step": 5.0},
}


class Effort(NamedTuple):
    """How much is done: steps of the runs that are to come close, steps and seeds of the grid."""

    exact: int = 1500
    votes: int = 1500
    steps: int = 600
    seeds: int = 5


QUICK = Effort(24, 24, 12, 2)


def run(
    *,
    quick: bool,
    out: Path,
    rates: Sequence[float] | None = None,
    methods: Mapping[str, dict[str, Any]] = METHODS,
    workers: int = WORKERS,
) -> Report:
    """Come close to the equilibrium, then compare the methods.

    Raises
    ------
    DisagreementError
        If a trainer reports another exploitability than its model has.
    """
    effort = QUICK if quick else Effort()
    rates = rates or (RATES[4:6] if quick else RATES)
    report = Report(
        "language_models",
        "A language model and its exact equilibrium",
        {
            "name": "run",
            "rate": "learning rate",
            "start": "E_β at the start",
            "quarter": "after a quarter",
            "half": "half",
            "final": "at the end",
            "lowest": "lowest",
            "highest": "highest",
            "seconds": "s a run",
            "note": "note",
        },
        settings={"effort": effort._asdict(), "beta": BETA, "rates": list(rates), "methods": dict(methods)},
    )
    try:
        import nlhfsim.llm  # noqa: F401
    except MissingExtraError:
        report.rows.append({"name": "nlhfsim.llm", "note": NOT_INSTALLED})
        return report
    common = {"beta": BETA, "group_size": 16, "steps": effort.steps}
    grid = [(name, rate) for name in methods for rate in rates]
    asked = [
        dict(method="online_ipo", beta=0.1, feedback="exact", learning_rate=1e-3, steps=effort.exact),
        dict(method="online_ipo", beta=0.1, group_size=32, learning_rate=1e-3, steps=effort.votes),
        dict(method="nash_prox", beta=0.1, group_size=32, learning_rate=1e-3, steps=effort.votes),
        *(methods[name] | common | {"learning_rate": rate, "seed": k} for name, rate in grid for k in range(effort.seeds)),
    ]
    played = Parallel(n_jobs=workers)(delayed(_play)(one) for one in asked)
    weights = played[0].weights
    names = ("exact gradients, Online IPO, β = 0.1", "votes, Online IPO, β = 0.1", "votes, Nash Prox, β = 0.1")
    report.rows = [_row(name, 1e-3, [one]) for name, one in zip(names, played)]
    for k, (name, rate) in enumerate(grid):
        begin = len(names) + k * effort.seeds
        report.rows.append(_row(name, rate, played[begin : begin + effort.seeds]))
    if not quick:
        for row, limit in zip(report.rows, (1e-4, 2e-3, 2e-3)):
            report.aim(f"E_β at most {limit:g}: {row['name']}", row["final"], limit)
    report.notes = [
        f"{weights:,} weights; three prompts, 27 responses; E_β over all of them, checked against its definition",
        f"AdamW, learning rates that fall linearly to 0; first {effort.exact} steps, of votes {effort.votes} with 32 responses a "
        f"prompt; below, at β = {BETA}, votes on 16 in {effort.steps} steps, medians and extremes of {effort.seeds} seeds",
        f"seconds of the processor; {workers} processes with a thread each",
        *(_summary(name, report.rows[len(names) :]) for name in methods),
    ]
    return report


def _play(given: dict[str, Any]) -> Any:
    from benchmarks import language_game

    return language_game.play(**given)


def _row(name: str, rate: float, played: Sequence[Any]) -> dict[str, Any]:
    paths = list(zip(*(one.exploitability for one in played), strict=True))
    start, quarter, half = (statistics.median(paths[k]) for k in (0, 1, 2))
    return {
        "name": name,
        "rate": rate,
        "start": start,
        "quarter": quarter,
        "half": half,
        "final": statistics.median(paths[-1]),
        "lowest": min(paths[-1]) if len(played) > 1 else None,
        "highest": max(paths[-1]) if len(played) > 1 else None,
        "seconds": statistics.median(one.processor for one in played),
        "wall_seconds": [one.seconds for one in played],
        "paths": [one.exploitability for one in played],
    }


def _summary(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in one sentence how a method does at its best rate, and at how many rates it comes close."""
    own = [row for row in rows if row["name"] == name]
    best = min(own, key=lambda row: float(row["final"]))
    good = [row["rate"] for row in own if row["final"] <= CLOSE]
    where = f"{min(good):g} to {max(good):g}" if good else "none"
    return (
        f"{name}: best at {best['rate']:g}, where E_β is {best['quarter']:.2g} after a quarter, {best['half']:.2g} after half, "
        f"{best['final']:.2g} at the end ({best['lowest']:.2g} to {best['highest']:.2g}); it ends at {CLOSE} or below at "
        f"{len(good)} of {len(own)} rates: {where}"
    )
