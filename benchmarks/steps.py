"""The cost of one exact step of magnetic mirror descent, and of everything around the steps, at several sizes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import handwritten, rivals
from benchmarks._measure import (
    NOT_INSTALLED,
    PROCESSOR_NOTE,
    Floats,
    Report,
    Turns,
    ensure_agreement,
    in_turns,
    steps_in,
    threads_note,
)
from benchmarks.rivals import NotInstalledError, Problem, Run

SIZES = (3, 10, 30, 100, 300, 1000)
OURS = "nlhfsim MagneticMirrorDescent"
GRADIENT = "nlhfsim SelfPlayPG"
BY_HAND = ("Numba by hand, loops", "Numba by hand, BLAS")
FLOOR = "one gemv (floor)"
CHECKED_STEPS = 20
TOLERANCE = 1e-10
CAP_SECONDS = 3.0


class Contestant(NamedTuple):
    """Who steps: how to make its run, the law that says what is right, and up to which size it is worth waiting for."""

    name: str
    make: Callable[[Problem], Run]
    truth: Callable[[Problem, int], Floats] = rivals.mirror_truth
    uniform: bool = False
    largest: int = 10**9
    why: str = ""


def _gain(asked: Problem, n_steps: int) -> Floats:
    return np.asarray((asked.advantages * np.exp(asked.start)).sum(axis=1))


def _self_play(asked: Problem) -> Run:
    return rivals.nlhfsim_runs(asked, "SelfPlayPG")


CONTESTANTS = (
    Contestant(OURS, rivals.nlhfsim_runs),
    Contestant(BY_HAND[0], handwritten.numba_loops),
    Contestant(BY_HAND[1], handwritten.numba_blas),
    Contestant(FLOOR, handwritten.one_gemv, _gain),
    Contestant("JAX, jit + scan", rivals.jax_scan),
    Contestant("NumPy, out=", handwritten.numpy_closed_form),
    Contestant(GRADIENT, _self_play, rivals.gradient_truth),
    Contestant("torch autograd, SelfPlayPG", rivals.torch_autograd, rivals.gradient_truth),
    Contestant(
        "OpenSpiel mmd_dilated", rivals.open_spiel_mmd, uniform=True, largest=100, why="half a minute of set-up at n = 1000"
    ),
)


def run(*, quick: bool, out: Path, sizes: Sequence[int] | None = None, contestants: Sequence[Contestant] = CONTESTANTS) -> Report:
    """Check, then time, every contestant at every size."""
    sizes = sizes or ((3, 10, 100) if quick else SIZES)
    repeats, seconds = (9, 0.01) if quick else (25, 0.02)
    report = Report(
        "steps",
        "One exact step, microseconds",
        {
            "n": "n",
            "contestant": "contestant",
            "us_min": "µs a step, min",
            "us_median": "median",
            "us_processor": "processor µs",
            "fixed_us": "fixed µs a run",
            "over_ours": "× nlhfsim",
            "note": "note",
        },
        settings={"sizes": list(sizes), "repeats": repeats, "seconds_a_run": seconds, "checked_steps": CHECKED_STEPS},
        notes=[
            PROCESSOR_NOTE,
            "per step: the difference of a long and a short run, so that what a run costs anyhow cancels; that is the fixed cost",
            "SelfPlayPG is what one writes with autograd on logits; it is set beside our SelfPlayPG, not beside the mirror step",
        ],
    )
    for n in sizes:
        rows = _one_size(n, contestants, repeats, seconds)
        report.rows += rows
        report.notes += threads_note(f"n = {n}", rows)
        _aim(report, n, {row["contestant"]: row for row in rows if row["us_min"] is not None})
    return report


def _one_size(n: int, contestants: Sequence[Contestant], repeats: int, seconds: float) -> list[dict[str, Any]]:
    asked = rivals.problem(n)
    rows: dict[str, dict[str, Any]] = {}
    lengths: dict[str, tuple[int, int]] = {}
    runs: dict[str, Run] = {}
    for one in contestants:
        rows[one.name] = {"n": n, "contestant": one.name, "us_min": None, "us_median": None}
        if n > one.largest:
            rows[one.name]["note"] = f"not run: {one.why}"
            continue
        own = asked.uniform() if one.uniform else asked
        try:
            runs[one.name] = one.make(own)
        except NotInstalledError:
            rows[one.name]["note"] = NOT_INSTALLED
            continue
        found = runs[one.name](CHECKED_STEPS)
        name = f"{one.name} at n = {n}"
        rows[one.name]["error"] = ensure_agreement(name, found, one.truth(own, CHECKED_STEPS), TOLERANCE)
        lengths[one.name] = _lengths(runs[one.name], seconds)
    calls = {(name, length): partial(run_steps, length) for name, run_steps in runs.items() for length in lengths[name]}
    turns = in_turns(calls, repeats, cap=CAP_SECONDS)
    for name, (few, many) in lengths.items():
        rows[name] |= _per_step(turns[name, few], turns[name, many], few, many)
    for one in contestants:
        ours = rows.get(GRADIENT if one.truth is rivals.gradient_truth else OURS)
        if ours and ours.get("us_processor") and rows[one.name].get("us_processor"):
            rows[one.name]["over_ours"] = rows[one.name]["us_processor"] / ours["us_processor"]
    return list(rows.values())


def _lengths(run_steps: Run, seconds: float) -> tuple[int, int]:
    """Return a short and a long number of steps, the long one taking about `seconds`; both have been run once."""
    long = steps_in(run_steps, seconds, 5)
    short = max(1, long // 10)
    run_steps(short)
    return short, long


def _per_step(short: Turns, long: Turns, few: int, many: int) -> dict[str, Any]:
    """Return microseconds a step and a run, from runs of two lengths."""
    step = (min(long.seconds) - min(short.seconds)) / (many - few)
    middle = statistics.median(b - a for a, b in zip(short.seconds, long.seconds)) / (many - few)
    processor = (min(long.processor) - min(short.processor)) / (many - few)
    found: dict[str, Any] = {
        "threads": long.threads,
        "steps": [few, many],
        "seconds_short": short.seconds,
        "seconds_long": long.seconds,
        "processor_short": short.processor,
        "processor_long": long.processor,
    }
    if min(step, middle, processor) <= 0:
        return found | {"note": "the machine is too busy to tell"}
    return found | {
        "us_min": 1e6 * step,
        "us_median": 1e6 * middle,
        "us_processor": 1e6 * processor,
        "fixed_us": 1e6 * max(0.0, min(short.processor) - few * processor),
    }


def _aim(report: Report, n: int, rows: dict[str, dict[str, Any]]) -> None:
    if OURS not in rows:
        return
    ours = rows[OURS]["us_processor"]
    by_hand = [rows[name]["us_processor"] for name in BY_HAND if name in rows]
    if by_hand and n in (3, 10, 100):
        report.aim(f"n = {n}: at most 2 times the better loop by hand", ours / min(by_hand), 2.0)
    if FLOOR in rows and n == 1000:
        report.aim("n = 1000: at most 1.25 times one gemv", ours / rows[FLOOR]["us_processor"], 1.25)
