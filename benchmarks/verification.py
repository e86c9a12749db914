"""How long the whole theory takes to check, from an empty prompt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._measure import DisagreementError, Report

_LIMIT = 120.0


def run(*, quick: bool, out: Path, claims: Sequence[str] = ()) -> Report:
    """Time ``nlhfsim verify`` in fresh processes, without and with compiled loops on disk; all claims, unless some are named.

    Raises
    ------
    DisagreementError
        If a claim is violated or a mutant survives.
    """
    games = 20 if quick else 200
    report = Report(
        "verification",
        f"nlhfsim verify --games {games}, from an empty prompt",
        {"loops": "compiled loops on disk", "seconds": "seconds", "claims": "claims", "checks": "cases", "mutants": "mutants"},
        notes=["wall time, all processors; the mutants of every claim are tried"],
        settings={"games": games, "processors": os.cpu_count()},
    )
    with tempfile.TemporaryDirectory() as cache:
        for loops in ("none", "those of the first"):
            began = time.monotonic()
            found = _verify(games, cache, claims)
            seconds = time.monotonic() - began
            report.rows.append({"loops": loops, "seconds": seconds, **_counts(found)})
    report.aim("seconds without compiled loops", report.rows[0]["seconds"], _LIMIT)
    return report


def _verify(games: int, cache: str, claims: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "nlhfsim", "verify", *claims, "--json", "--games", str(games)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NLHFSIM_CACHE_DIR": cache})
    if done.returncode != 0:
        raise DisagreementError(f"nlhfsim verify ends with {done.returncode}: {done.stderr[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _counts(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "claims": len(found["claims"]),
        "checks": sum(claim["n_games"] for claim in found["claims"]),
        "mutants": sum(len(claim["mutants"]) for claim in found["claims"]),
        "inconclusive": sum(claim["n_inconclusive"] for claim in found["claims"]),
    }
