"""Results as tables, for the terminal and for pages: columns, rows, and notes that say what they mean."""

from __future__ import annotations

import math
from typing import Any


def show(value: Any) -> str:
    """Return a cell's text: short numbers, a dash for what does not exist."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if math.isinf(value):
            return "never"
        if value.is_integer() and abs(value) < 1e9:
            return str(int(value))
        return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"
    if isinstance(value, dict):
        return ",\n".join(f"{k}={show(v)}" for k, v in value.items())
    return str(value)


def comparison_table(rows: Any) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a comparison, the best first."""
    if "calls_to_1e-6" in rows[0]:
        keys = ("final_kl", "final_exploitability", "final_gap0", "calls_to_1e-3", "calls_to_1e-6", "in_proven_range")
        columns = ["method", "parameters", "KL", "E_beta", "E_0", "E_beta to 1e-3", "to 1e-6", "proven step"]
        ordered = sorted(rows, key=lambda row: (_never(row["calls_to_1e-6"]), _never(row["final_kl"])))
    else:
        keys = ("final_kl", "final_kl_q95", "final_exploitability", "final_exploitability_q95", "final_gap0", "queries_to_1e-2")
        columns = ["method", "parameters", "KL", "95 %", "E_beta", "95 %", "E_0", "E_beta to 1e-2"]
        ordered = sorted(rows, key=lambda row: _never(row["final_kl"]))
    cells = [[_never(row[key]) if "_to_" in key else row[key] for key in keys] for row in ordered]
    return columns, [[row["dynamics"], row["params"], *some] for row, some in zip(ordered, cells)]


def _never(value: float | None) -> float:
    """Return a number for sorting and showing: what JSON has as null is never reached."""
    return math.inf if value is None else value


def comparison_notes(rows: Any) -> list[str]:
    """Return what the table means, and notes on methods that diverged or whose best step lies at the edge of the grid."""
    edges = [row["dynamics"] for row in rows if row["at_edge"]]
    lost = [row["dynamics"] for row in rows if row["status"] == "diverged"]
    measured = "KL(π* ‖ π), exploitability E_beta, unregularized exploitability E_0"
    if "calls_to_1e-6" in rows[0]:
        meaning = (
            f"at the end: {measured}; oracle calls until E_beta was below 1e-3 and 1e-6; whether convergence is proven at this "
            "step size (–: at none)"
        )
    else:
        meaning = f"at the end, median and 95 % quantile over runs: {measured}; votes until E_beta was below 1e-2"
    notes = [meaning]
    notes += [f"diverged at every step of the grid, or at the step given: {', '.join(lost)}"] if lost else []
    return notes + ([f"best step at the edge of the grid, a wider grid may do better: {', '.join(edges)}"] if edges else [])


def verdict_words(status: str, verdict: str, n_games: int) -> str:
    """Return a verdict in words that fit what kind of claim it is about."""
    if status == "conjecture" and verdict == "inconclusive" and n_games:
        return "no counterexample"
    return "shown" if (status, verdict) == ("counterexample", "holds") else verdict
