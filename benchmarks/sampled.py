"""The cost of a step from one sampled pair, beside a tree by hand, JAX, torch and NumPy; large games, threads, batches."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import pair_rivals
from benchmarks._measure import (
    NOT_INSTALLED,
    PROCESSOR_NOTE,
    DisagreementError,
    Report,
    Timing,
    Turns,
    in_turns,
    threads_note,
)
from benchmarks.pair_checks import (
    FROZEN,
    distances,
    drawn_moments,
    ensure_as_far,
    ensure_unbiased,
    exact_moments,
    log_equilibrium,
)
from benchmarks.pair_rivals import PairProblem, PairRun
from benchmarks.rivals import NotInstalledError

SIZES = (10, 100, 1000)
LARGE = (1_000, 10_000, 100_000, 1_000_000)
PAIRWISE = 100_000
BATCHES = (1, 16, 256)
THREADED_RUNS = 64
TABLES = ("steps", "low rank", "function of the pair", "batches", "threads")
OURS = "nlhfsim SelfPlayPG"
BY_HAND = "Numba by hand, tree"
IN_STEP = "JAX scan, inverse cdf"
PLAY_STEP = 0.5
"""The step size of the runs whose distance from the equilibrium is compared: every vote counts."""


class Contestant(NamedTuple):
    """Who steps, how many pairs a step takes, and what its check can afford: estimates, and runs."""

    name: str
    make: Callable[[PairProblem], PairRun]
    batch: int = 1
    samples: int = 100_000
    runs: int = 100
    group: str = ""


CONTESTANTS = (
    Contestant(OURS, pair_rivals.nlhfsim_pairs, samples=1_000_000, runs=400),
    Contestant(BY_HAND, pair_rivals.numba_tree, samples=1_000_000, runs=400),
    Contestant("JAX scan, numbers drawn ahead", pair_rivals.jax_ahead, group="jax"),
    Contestant(IN_STEP, pair_rivals.jax_inverse_cdf, group="jax"),
    Contestant("JAX scan, categorical", pair_rivals.jax_categorical, samples=20_000, runs=40, group="jax"),
    Contestant("torch autograd, IPO loss", pair_rivals.torch_autograd, samples=10_000, runs=24, group="torch"),
    Contestant("NumPy, inverse cdf", pair_rivals.numpy_closed_form),
    Contestant("torch, batches of 100 pairs", partial(pair_rivals.torch_autograd, batch=100), batch=100, runs=24),
)
LOW_RANK = (
    Contestant(OURS, pair_rivals.nlhfsim_pairs),
    Contestant(BY_HAND, pair_rivals.numba_tree_low_rank),
)
COLUMNS = {
    "table": "table",
    "n": "n",
    "contestant": "contestant",
    "pairs": "pairs a step",
    "ns_min": "ns a pair, min",
    "ns_median": "median",
    "ns_processor": "processor ns",
    "million": "M pairs a second",
    "over_hand": "× by hand",
    "over_jax": "× JAX",
    "over_torch": "× torch",
    "growth": "× smallest n, over that of log n",
    "note": "note",
}


class Effort(NamedTuple):
    """How much is measured."""

    repeats: int
    seconds: float
    play_steps: int
    share: float
    """Of the estimates and runs of a check."""


FULL, QUICK = Effort(25, 0.02, 1000, 1.0), Effort(5, 0.01, 1000, 0.2)


def run(
    *,
    quick: bool,
    out: Path,
    sizes: Sequence[int] | None = None,
    large: Sequence[int] | None = None,
    contestants: Sequence[Contestant] = CONTESTANTS,
    tables: Sequence[str] = TABLES,
) -> Report:
    """Check, then time, every contestant; then large games, batches and threads."""
    sizes = sizes if sizes is not None else (10, 100) if quick else SIZES
    large = large if large is not None else (1_000, 10_000) if quick else LARGE
    effort = QUICK if quick else FULL
    report = Report("sampled", "One sampled pair, nanoseconds", COLUMNS, notes=_NOTES + [PROCESSOR_NOTE])
    report.settings = {"sizes": list(sizes), "large": list(large), "effort": effort._asdict(), "play_step": PLAY_STEP}
    parts: dict[str, Callable[[], None]] = {
        "steps": partial(_steps, report, sizes, contestants, effort),
        "low rank": partial(_large, report, large, effort),
        "function of the pair": partial(_pairwise, report, 5_000 if quick else PAIRWISE, effort),
        "batches": partial(_batches, report, effort),
        "threads": partial(_threads, report, effort),
    }
    for table in tables:
        parts[table]()
    return report


_NOTES = [
    "checked before timed: the mean of many estimates against J(π)(Aπ - β(θ - log ρ)), along it, along its part from β and along "
    "every logit that is drawn often enough (|z| < 5), and the mean KL to the equilibrium after a run at step "
    f"{PLAY_STEP} against that of the tree by hand, or, for batches and for the tree itself, of the law written out (|z| < 4)",
    "per pair: the difference of a long and a short run, so that what a run costs anyhow cancels",
    "× JAX is held against the fastest of its scans at each n; a scan whose numbers are drawn ahead keeps 24 bytes a step",
    "a step of a batch is one move by the mean of its pairs, not as many moves",
]


def _steps(report: Report, sizes: Sequence[int], contestants: Sequence[Contestant], effort: Effort) -> None:
    """Random dense games: everybody."""
    for n in sizes:
        asked = pair_rivals.pair_problem(n)
        rows = [_row("steps", asked, one) for one in contestants]
        present = _checked(asked, contestants, rows, effort)
        _time(rows, {k: (contestants[k].make(asked), contestants[k].batch) for k in present}, effort)
        report.rows += rows
        report.notes += threads_note(f"n = {n}", rows)
        _compare(report, n, rows, contestants)


def _row(table: str, asked: PairProblem, one: Contestant) -> dict[str, Any]:
    return {"table": table, "n": len(asked.start), "contestant": one.name, "pairs": one.batch}


def _checked(asked: PairProblem, contestants: Sequence[Contestant], rows: list[dict[str, Any]], effort: Effort) -> list[int]:
    """Check each contestant that is there, note those that are not, and return which are there."""
    present = []
    target = log_equilibrium(asked.game)
    for k, one in enumerate(contestants):
        try:
            one.make(asked)
        except NotInstalledError:
            rows[k]["note"] = NOT_INSTALLED
            continue
        present.append(k)
        rows[k] |= check(asked, one, target, effort)
    return present


def check(asked: PairProblem, one: Contestant, target: Any, effort: Effort) -> dict[str, float]:
    """Return both z of a contestant.

    Raises
    ------
    DisagreementError
        If its estimates are biased, or its runs end elsewhere than they should.
    """
    name = f"{one.name} at n = {len(asked.start)}"
    found = {"z_gradient": _unbiased(name, asked, one, effort)}
    lively = asked._replace(step_size=PLAY_STEP)
    itself = one.batch > 1 or one.name == BY_HAND
    right = pair_rivals.by_definition(lively, one.batch) if itself else pair_rivals.numba_tree(lively)
    several = max(16, int(effort.share * one.runs))
    # A law written out costs memory: for large batches few of its runs must do.
    known = max(8, min(several, 40_000 // one.batch // len(asked.start))) if itself else 400
    n_steps = effort.play_steps if one.batch == 1 else effort.play_steps // 5
    far = distances(one.make(lively), target, n_steps, several)
    return found | {"z_distance": ensure_as_far(name, far, distances(right, target, n_steps, known, seed=3))}


def _unbiased(name: str, asked: PairProblem, one: Contestant, effort: Effort) -> float:
    frozen = asked._replace(step_size=FROZEN)
    samples = int(effort.share * one.samples)
    return ensure_unbiased(name, one.make(frozen), frozen, exact_moments(frozen, samples), samples, one.batch)


def _time(
    rows: list[dict[str, Any]], runs: Mapping[int, tuple[PairRun, int]], effort: Effort, at_least: int = 20, cap: float = 3.0
) -> None:
    """Add to each row what a pair costs, from runs of two lengths, in turns."""
    lengths = {k: _lengths(partial(_once, one), effort.seconds, at_least) for k, (one, _) in runs.items()}
    calls = {(k, length): partial(_once, runs[k][0], length) for k, both in lengths.items() for length in both}
    turns = in_turns(calls, effort.repeats, cap=cap)
    for k, (few, many) in lengths.items():
        rows[k] |= _per_pair(turns[k, few], turns[k, many], (many - few) * runs[k][1]) | {"steps": [few, many]}


def _once(run_pairs: PairRun, n_steps: int) -> Any:
    return run_pairs(n_steps, 1, 0)


def _lengths(run_steps: Callable[[int], Any], seconds: float, at_least: int) -> tuple[int, int]:
    """Return a short and a long number of steps, the long one taking about `seconds` more; both have been run."""
    few, many = at_least, 2 * at_least
    run_steps(few)
    base = min(in_turns({"": partial(run_steps, few)}, 3)[""].seconds)
    while many < 10**8:
        run_steps(many)
        spent = min(in_turns({"": partial(run_steps, many)}, 3)[""].seconds) - base
        if spent > seconds / 2:
            break
        many = int(many * min(8.0, max(2.0, seconds / max(spent, 1e-9))))
    few = max(few, many // 10)
    run_steps(few)
    return few, many


def _per_pair(short: Turns, long: Turns, pairs: int) -> dict[str, Any]:
    differences = [b - a for a, b in zip(short.seconds, long.seconds)]
    best = min(long.seconds) - min(short.seconds)
    processor = min(long.processor) - min(short.processor)
    found: dict[str, Any] = {
        "threads": long.threads,
        "seconds_short": short.seconds,
        "seconds_long": long.seconds,
        "processor_short": short.processor,
        "processor_long": long.processor,
    }
    if min(best, processor, statistics.median(differences)) <= 0:
        return found | {"note": "the machine is too busy to tell"}
    return found | {
        "ns_min": 1e9 * best / pairs,
        "ns_median": 1e9 * statistics.median(differences) / pairs,
        "ns_processor": 1e9 * processor / pairs,
        "million": pairs / processor / 1e6,
    }


def _compare(report: Report, n: int, rows: Sequence[dict[str, Any]], contestants: Sequence[Contestant]) -> None:
    """Add to each row how it compares with the rivals, and set our targets."""
    by_name: dict[str, float] = {row["contestant"]: row["ns_processor"] for row in rows if row.get("ns_processor")}
    fastest: dict[str, float | None] = {"hand": by_name.get(BY_HAND)}
    for group in ("jax", "torch"):
        costs = [by_name[one.name] for one in contestants if one.group == group and one.name in by_name]
        fastest[group] = min(costs, default=None)
    for row in rows:
        for group, cost in fastest.items():
            if cost and row.get("ns_processor"):
                row[f"over_{group}"] = row["ns_processor"] / cost
    ours = by_name.get(OURS)
    if not ours:
        return
    if BY_HAND in by_name:
        report.aim(f"n = {n}: at most 1.25 times the tree by hand", ours / by_name[BY_HAND], 1.25)
    rivals = {
        "a JAX scan that draws within the step": by_name.get(IN_STEP),
        "the fastest JAX scan": fastest["jax"],
        "a torch step": fastest["torch"],
    }
    for (words, cost), least in zip(rivals.items(), (20.0, 20.0, 50.0)):
        if cost:
            report.aim(f"n = {n}: at least {least:g} times as fast as {words}", cost / ours, least, at_least=True)


def _large(report: Report, sizes: Sequence[int], effort: Effort) -> None:
    """Games of rank 16 (eight columns) from a thousand actions to a million."""
    smallest: dict[str, tuple[int, float]] = {}
    for n in sizes:
        rows = _matrix_free("low rank", pair_rivals.low_rank_problem(n), LOW_RANK, effort)
        report.rows += rows
        report.notes += threads_note(f"low rank, n = {n}", rows)
        hand = next((row.get("ns_processor") for row in rows if row["contestant"] == BY_HAND), None)
        for row in rows:
            cost = row.get("ns_processor")
            if cost:
                first, least = smallest.setdefault(row["contestant"], (n, cost))
                row["growth"] = (cost / least) / (math.log(n) / math.log(first))
                row["over_hand"] = cost / hand if hand else None
            if cost and row["contestant"] == OURS and n == 1_000_000:
                report.aim("a million actions: at least 0.6 million steps a second", row["million"], 0.6, at_least=True)


def _pairwise(report: Report, n: int, effort: Effort) -> None:
    """One game that is a function of the pair."""
    report.rows += _matrix_free("function of the pair", pair_rivals.pairwise_problem(n), LOW_RANK[:1], effort)


def _matrix_free(table: str, asked: PairProblem, contestants: Sequence[Contestant], effort: Effort) -> list[dict[str, Any]]:
    """Check the estimates against pairs drawn here, then time: no matrix is built."""
    rows = [_row(table, asked, one) for one in contestants]
    frozen = asked._replace(step_size=FROZEN)
    moments = drawn_moments(frozen)
    present: dict[int, tuple[PairRun, int]] = {}
    for k, one in enumerate(contestants):
        try:
            run_frozen = one.make(frozen)
        except NotInstalledError:
            rows[k]["note"] = NOT_INSTALLED
            continue
        name = f"{one.name}, {table}, n = {len(asked.start)}"
        rows[k]["z_gradient"] = ensure_unbiased(name, run_frozen, frozen, moments, int(effort.share * one.samples))
        present[k] = one.make(asked), one.batch
    # What a run costs anyhow grows with n, so that the steps have to take long enough to show.
    _time(rows, present, effort._replace(repeats=5, seconds=max(effort.seconds, 5e-7 * len(asked.start))), 1000, cap=10.0)
    return rows


def _batches(report: Report, effort: Effort) -> None:
    """Votes in batches: each size is checked on a small game and timed on a hundred actions."""
    small, asked = pair_rivals.pair_problem(10), pair_rivals.pair_problem(100)
    target = log_equilibrium(small.game)
    contestants = [
        Contestant(OURS, partial(pair_rivals.nlhfsim_pairs, batch=batch), batch=batch, samples=1_000_000) for batch in BATCHES
    ]
    rows = [_row("batches", asked, one) for one in contestants]
    present: dict[int, tuple[PairRun, int]] = {}
    for k, one in enumerate(contestants):
        try:
            present[k] = one.make(asked), one.batch
        except NotInstalledError:
            rows[k]["note"] = NOT_INSTALLED
            continue
        rows[k] |= check(small, one, target, effort)
    _time(rows, present, effort)
    report.rows += rows


def _threads(report: Report, effort: Effort) -> None:
    """Many seeds on one thread and on two, wall time; the same bits either way."""
    asked = pair_rivals.pair_problem(100)
    rows: dict[int, dict[str, Any]] = {}
    runs: dict[int, PairRun] = {}
    for threads in (1, 2):
        rows[threads] = {
            "table": "threads",
            "n": 100,
            "contestant": f"{OURS}, {THREADED_RUNS} seeds, threads={threads}",
            "pairs": 1,
        }
        try:
            runs[threads] = pair_rivals.nlhfsim_pairs(asked, threads=threads)
        except NotInstalledError:
            rows[threads]["note"] = NOT_INSTALLED
    report.rows += list(rows.values())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    report.notes.append(f"threads: wall time of whole calls on {cores} usable cores; final parameters are the same to the bit")
    if len(runs) == 2:
        _time_threads(report, rows, runs, 200_000 if effort is FULL else 10_000, cores)


def _time_threads(
    report: Report, rows: dict[int, dict[str, Any]], runs: dict[int, PairRun], n_steps: int, cores: int, repeats: int = 7
) -> None:
    calls = {threads: partial(one, n_steps, THREADED_RUNS, 0) for threads, one in runs.items()}
    ensure_same_bits(calls[1](), calls[2]())
    turns = in_turns(calls, repeats)
    pairs = n_steps * THREADED_RUNS
    for threads, turn in turns.items():
        timing: Timing = turn.timing
        rows[threads] |= {
            "ns_min": 1e9 * timing.minimum / pairs,
            "ns_median": 1e9 * timing.median / pairs,
            "ns_processor": 1e9 * min(turn.processor) / pairs,
            "million": pairs / timing.minimum / 1e6,
            "seconds": turn.seconds,
        }
    ratio = turns[1].timing.minimum / turns[2].timing.minimum
    report.aim(f"two threads at least 1.8 times as fast as one ({cores} usable cores)", ratio, 1.8, at_least=True)


def ensure_same_bits(one: Any, two: Any) -> None:
    """Check that the number of threads changes nothing.

    Raises
    ------
    DisagreementError
        If a bit differs.
    """
    if not np.array_equal(one, two):
        raise DisagreementError("final parameters depend on the number of threads")
