"""Many runs at once beside one run after another: throughput in steps of runs a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nlhfsim as nl
from benchmarks import handwritten, rivals
from benchmarks._measure import NOT_INSTALLED, PROCESSOR_NOTE, Report, ensure_agreement, in_turns, steps_in, threads_note
from benchmarks.rivals import NotInstalledError, Problem, Run

RUNS = 128
SIZES = (10, 100, 1000)
SINGLE = "nlhfsim, one run"
BATCH = "nlhfsim, all runs in one call"
OWN_STEPS = "nlhfsim, the same with a step size each"
CHECKED_STEPS = 20
TOLERANCE = 1e-10

CONTESTANTS: Mapping[str, Callable[[Problem], Run]] = {
    SINGLE: lambda asked: rivals.nlhfsim_runs(asked._replace(start=asked.start[0])),
    BATCH: rivals.nlhfsim_runs,
    OWN_STEPS: rivals.nlhfsim_runs,
    "JAX, vmap in scan": rivals.jax_scan,
    "NumPy, batched": handwritten.numpy_closed_form,
}


def run(
    *,
    quick: bool,
    out: Path,
    sizes: Sequence[int] | None = None,
    contestants: Mapping[str, Callable[[Problem], Run]] = CONTESTANTS,
) -> Report:
    """Check, then time, every contestant at every size."""
    sizes = sizes or ((10, 100) if quick else SIZES)
    repeats, seconds = (3, 0.2) if quick else (7, 0.5)
    report = Report(
        "runs",
        f"{RUNS} runs at once, magnetic mirror descent",
        {
            "n": "n",
            "contestant": "contestant",
            "per_second": "run-steps a second, best",
            "per_second_median": "median",
            "per_processor_second": "a processor second, best",
            "over_single": "× one run",
            "note": "note",
        },
        settings={"runs": RUNS, "sizes": list(sizes), "repeats": repeats, "seconds_a_call": seconds},
        notes=[PROCESSOR_NOTE],
    )
    for n in sizes:
        rows = _one_size(n, contestants, repeats, seconds)
        report.rows += rows
        report.notes += threads_note(f"n = {n}", rows)
        ratio = next((row.get("over_single") for row in rows if row["contestant"] == BATCH), None)
        if n in (10, 1000) and ratio:
            report.aim(f"n = {n}: at least 2 times the throughput of one run", ratio, 2.0, at_least=True)
    return report


def _one_size(n: int, contestants: Mapping[str, Callable[[Problem], Run]], repeats: int, seconds: float) -> list[dict[str, Any]]:
    one = rivals.problem(n)
    rng = np.random.default_rng(1)
    asked = one._replace(start=np.log(np.stack([nl.games.random_reference(n, rng) for _ in range(RUNS)])))
    own_steps = asked._replace(step_size=asked.step_size * np.linspace(0.5, 1.5, RUNS)[:, None])
    rights = {True: rivals.mirror_truth(own_steps, CHECKED_STEPS), False: rivals.mirror_truth(asked, CHECKED_STEPS)}
    rows: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], Any]] = {}
    work: dict[str, int] = {}
    for name, make in contestants.items():
        rows[name] = {"n": n, "contestant": name, "per_second": None}
        try:
            run_steps = make(own_steps if name == OWN_STEPS else asked)
        except NotInstalledError:
            rows[name]["note"] = NOT_INSTALLED
            continue
        found = run_steps(CHECKED_STEPS)
        count = len(found) if found.ndim == 2 else 1
        right = rights[name == OWN_STEPS]
        wanted = right if found.ndim == 2 else right[0]
        rows[name]["error"] = ensure_agreement(f"{name} at n = {n}", found, wanted, TOLERANCE)
        n_steps = steps_in(run_steps, seconds, CHECKED_STEPS)
        calls[name], work[name] = partial(run_steps, n_steps), n_steps * count
    for name, turns in in_turns(calls, repeats).items():
        timing = turns.timing
        rows[name] |= {
            "per_second": work[name] / timing.minimum,
            "per_second_median": work[name] / timing.median,
            "per_processor_second": work[name] / min(turns.processor),
            "threads": turns.threads,
            "seconds": turns.seconds,
            "run_steps": work[name],
        }
    single = rows.get(SINGLE, {}).get("per_processor_second")
    for row in rows.values():
        if single and row["per_second"]:
            row["over_single"] = row["per_processor_second"] / single
    return list(rows.values())
