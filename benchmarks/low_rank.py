"""Time and peak memory on random games of rank 16 (eight columns in U and V), each size in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nlhfsim as nl
from benchmarks._measure import DisagreementError, Floats, Report
from benchmarks.solvers import exploitability, residual

COLUMNS = 8
BETA = 0.1
STEPS = 100
SIZES = (1_000, 10_000, 100_000, 1_000_000)
LARGEST_DENSE = 5_000
TIMEOUT_SECONDS = 900


def run(*, quick: bool, out: Path, sizes: Sequence[int] | None = None) -> Report:
    """Measure every size that the payoff form of the package allows."""
    sizes = sizes or ((300, 1_000) if quick else SIZES)
    dense = is_dense()
    report = Report(
        "low_rank",
        f"Random games of rank {2 * COLUMNS}",
        {
            "n": "n",
            "game_s": "make, s",
            "solve_s": "solve β = 0.1, s",
            "step_us": "a step, µs",
            "solve_at_zero_s": "solve β = 0, s",
            "megabytes": "peak MB",
            "base_megabytes": "of it before the game",
            "dense_megabytes": "the n × n matrix, MB",
            "residual": "log-ratio residual",
            "exploitability_at_zero": "E_0 at β = 0",
            "note": "note",
        },
        settings={"columns": COLUMNS, "beta": BETA, "steps": STEPS, "dense": dense},
        notes=["the package keeps these games as an n × n matrix" if dense else "the package keeps these games as factors"],
    )
    for n in sizes:
        row: dict[str, Any] = {"n": n, "dense_megabytes": 8e-6 * n * n}
        report.rows.append(row)
        if dense and n > LARGEST_DENSE:
            row["note"] = f"not run: the form is dense, and n is above {LARGEST_DENSE}"
            continue
        row |= _in_own_process(n)
        if row.get("disagreement"):
            raise DisagreementError(f"n = {n}: {row['disagreement']}")
    return report


def is_dense() -> bool:
    """Return whether `nl.games.random_low_rank` makes a matrix."""
    payoff = nl.games.random_low_rank(1000, COLUMNS, 0, beta=BETA).contexts[0].payoff
    return any(getattr(part, "size", 0) >= 1000 * 1000 for part in payoff)


def _in_own_process(n: int) -> dict[str, Any]:
    """Return the row of one size, measured by a new process, whose peak memory is then that of this size."""
    command = [sys.executable, "-m", "benchmarks.low_rank", str(n)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, cwd=Path(__file__).parents[1])
    except subprocess.TimeoutExpired:
        return {"note": f"not finished in {TIMEOUT_SECONDS} s"}
    if done.returncode != 0:
        return {"note": "failed: " + (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(n: int) -> dict[str, Any]:
    """Return times, peak memory and the check of one size; a `disagreement` is a sentence."""
    _warm_up()
    base = _peak_megabytes()
    begin = time.perf_counter()
    game = nl.games.random_low_rank(n, COLUMNS, np.random.default_rng(0), beta=BETA)
    made = time.perf_counter()
    equilibrium = nl.solve(game)
    solved = time.perf_counter()
    options: dict[str, Any] = {"equilibrium": equilibrium, "record_every": STEPS, "keep_policies": False}
    nl.simulate(game, nl.dynamics.MagneticMirrorDescent, STEPS, **options)
    first = time.perf_counter()
    trajectory = nl.simulate(game, nl.dynamics.MagneticMirrorDescent, 2 * STEPS, **options)
    second = time.perf_counter()
    at_zero = nl.solve(game.with_beta(0.0))
    last = time.perf_counter()
    row: dict[str, Any] = {
        "game_s": made - begin,
        "solve_s": solved - made,
        "simulate_s": first - solved,
        "step_us": 1e6 * max(0.0, (second - first) - (first - solved)) / STEPS,
        "solve_at_zero_s": last - second,
        "exploitability_at_zero": at_zero.exploitability,
        "megabytes": _peak_megabytes(),
        "base_megabytes": base,
        "residual": equilibrium.residual,
        "disagreement": None,
    }
    # The matrix is built for the check, after the peak was read.
    if n <= LARGEST_DENSE:
        advantages = np.array(game.advantages)
        row["exploitability_at_zero"] = exploitability(advantages, np.array(at_zero.policy))
        row["residual"] = residual(advantages, np.log(game.reference), BETA, np.array(equilibrium.log_policy))
    elif equilibrium.status != "certified":
        row["disagreement"] = f"the equilibrium is {equilibrium.status}: {equilibrium.solver_status}"
    if row["residual"] is None or row["residual"] > 1e-11:
        row["disagreement"] = f"the equilibrium has a log-ratio residual of {row['residual']}"
    if at_zero.status != "certified":
        row["disagreement"] = f"the equilibrium at β = 0 is {at_zero.status}: {at_zero.solver_status}"
    distances: Floats = trajectory.kl[0]
    if not distances[-1] <= distances[0]:
        row["disagreement"] = f"KL to the equilibrium grew from {distances[0]} to {distances[-1]}"
    return row


def _warm_up() -> None:
    """Load and compile everything on a tiny game."""
    tiny = nl.games.random_low_rank(2 * COLUMNS + 2, COLUMNS, 1, beta=BETA)
    nl.simulate(tiny, nl.dynamics.MagneticMirrorDescent, 2, equilibrium=nl.solve(tiny), record_every=2, keep_policies=False)


def _peak_megabytes() -> float:
    """Return the largest resident size of this process so far."""
    # On Linux a process begins with its parent's ru_maxrss; this is its own.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return float(line.split()[1]) / 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
