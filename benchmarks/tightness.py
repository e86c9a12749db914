"""How tight every bound of the theory is: the worst of the mixed family, and the worst that a search finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np

import nlhfsim as nl
from benchmarks._measure import DisagreementError, Report
from nlhfsim.claims import Claim, Measured, Tightness

BETAS = (1e-4, 10.0)
_WITH_FLOOR = ("inexact-proximal-point",)
"""Rates that end at a positive number: their exponent says nothing."""


def searched() -> list[Claim]:
    """Return the claims with a bound that speak of all games and are quick to check, and of each rate its exponent."""
    found = map(nl.claims.get, nl.claims.names())
    bounds = [c for c in found if c.kind in ("upper", "lower", "rate") and c.cases is None and c.cost == "cheap"]
    return bounds + [exponent(claim) for claim in bounds if claim.kind == "rate" and claim.id not in _WITH_FLOOR]


def exponent(claim: Claim) -> Claim:
    """Return the claim that log KL falls at least as fast as a rate says: its ratio is that of the exponents."""

    def logs(side: Any) -> Any:
        def fallen(case: Any, *dynamics: Any) -> Measured:
            found = side(case, *dynamics)
            values, doubt = found if isinstance(found, Measured) else Measured(found)
            return Measured(-np.log(np.asarray(values) / case.start_kl), np.asarray(doubt) / np.asarray(values) + 1e-14)

        return fallen

    sides = logs(claim.bound), logs(claim.measure)
    return replace(claim, id=f"{claim.id}-exponent", kind="upper", measure=sides[0], bound=sides[1], counts=_away, mutants=())


def _away(case: Any) -> str:
    return "" if case.start_kl > 1e-6 else "the start is the equilibrium"


def run(*, quick: bool, out: Path, chosen: Sequence[str | Claim] | None = None) -> Report:
    """Search for the tightest game of every bound, and hold it against the claim.

    Raises
    ------
    DisagreementError
        If a claim that is asserted is violated, by a drawn game or a found one.
    """
    everything: Sequence[str | Claim] = searched() if chosen is None else chosen
    claims = list(everything)[:2] if quick and chosen is None else list(everything)
    games, evaluations = (40, 300) if quick else (2000, 3000)
    sizes = (2, 3) if quick else (2, 3, 4)
    checked = nl.verify(claims, games, mutants=False)
    options = {"n": sizes, "betas": BETAS, "evaluations": evaluations}
    found = joblib.Parallel(n_jobs=-1)(joblib.delayed(nl.claims.tightness)(claim, **options) for claim in claims)
    report = Report(
        "tightness",
        "Measured over bound: the worst of the mixed family, and the worst that a search finds",
        {
            "claim": "claim",
            "status": "status",
            "drawn": f"worst of {games} games",
            "median": "median",
            "found": "search",
            "by_size": "at n = " + ", ".join(map(str, sizes)),
            "beta": "β there",
            "game": "P there, row by row above the diagonal",
        },
        notes=[
            "lower bounds: bound over measured; 1 is attained; the bound times the number in the column search is the sharpest "
            "one of its form that no case contradicts",
            f"search: differential evolution over A, ρ, β in [{BETAS[0]:g}, {BETAS[1]:g}], policies and steps, then Nelder and "
            f"Mead's method, {evaluations} cases a size; the game is simplified while the ratio stays within a thousandth",
        ],
        settings={"games": games, "evaluations": evaluations, "sizes": list(sizes), "betas": list(BETAS)},
    )
    for verdict, tight in zip(checked.verdicts, found):
        _ensure_holds(verdict, tight)
        report.rows.append(_row(verdict, tight))
    return report


def _ensure_holds(verdict: Any, tight: Tightness) -> None:
    if verdict.claim.status != "conjecture" and "violated" in (verdict.verdict, tight.verdict):
        raise DisagreementError(
            f"{verdict.claim.id} is violated: {tight.witness if tight.verdict == 'violated' else verdict.witness}"
        )


def _row(verdict: Any, tight: Tightness) -> dict[str, Any]:
    case = tight.witness.case
    above = [f"{case.game.preferences[i, j]:.3g}" for i in range(case.n) for j in range(i + 1, case.n)]
    return {
        "claim": verdict.claim.id,
        "status": verdict.claim.status,
        "drawn": verdict.worst_ratio,
        "median": verdict.median_ratio,
        "found": tight.found,
        "by_size": ", ".join(f"{ratio:.4g}" if math.isfinite(ratio) else "–" for ratio in tight.by_size.values()),
        "beta": case.beta,
        "game": " ".join(above),
        "witness": tight.witness.to_dict(),
        "slack": verdict.claim.slack,
    }
