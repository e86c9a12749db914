"""The command ``python -m benchmarks [PART ...] [--quick] [--out DIR] [--section NAME]``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

PARTS = {
    "steps": "cost of one exact step, beside hand-written loops, JAX, torch and OpenSpiel",
    "runs": "128 runs at once beside one run, JAX and NumPy",
    "equilibria": "equilibria of games of up to 5000 actions, beside LP and conic solvers and game-theory libraries",
    "low_rank": "time and memory on low-rank games of up to a million actions",
    "section4": "oracle calls of six methods, beside the figures of the theory notes",
    "latency": "how long a first result takes, beside importing JAX and torch",
    "sampled": "cost of one sampled pair, beside a sum tree by hand, JAX, torch and NumPy; large games, threads, batches",
    "sampled_extragradient": "how much of extragradient's lead over mirror descent votes leave",
    "verification": "how long the whole theory takes to check",
    "tightness": "how tight every bound of the theory is, and on which game",
    "stability": "rates and critical steps that linearizations predict, beside runs on 200 games",
    "language_models": "how near a small transformer comes to its equilibrium; Online IPO and Nash Prox over learning rates",
    "trl": "seconds a step of a language model, beside the online DPO of TRL",
    "gpu": "cross-check, throughput, convergence, TRL and LoRA at real sizes on one GPU; without one, at a small size",
    "figure": "cost against size, drawn from the results of steps and equilibria",
}
_ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "NPROC": "1",
    "JAX_PLATFORMS": "cpu",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are asked for; return 1 if a contestant disagrees with the right answer or fails, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time nlhfsim beside other libraries, one thread each; every number is checked before its time is reported.",
        epilog="parts: " + "; ".join(f"{name}: {words}" for name, words in PARTS.items()),
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repeats, to see that everything works")
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"), metavar="DIR", help="folder for the results")
    parser.add_argument("--core", type=int, metavar="K", help="keep to this core; worth it on an idle machine only")
    parser.add_argument("--section", action="append", metavar="NAME", help="only this section of the part gpu; may be repeated")
    options = parser.parse_args(arguments)
    chosen = [name.replace("-", "_") for name in options.parts] or list(PARTS)
    for name in chosen:
        if name not in PARTS:
            parser.error(f"PART = {name!r} must be one of {', '.join(PARTS)}")
    # Libraries read these when they are first imported, which is why no part is imported above.
    os.environ.update(_ONE_THREAD)
    _stay_on(parser, options.core)
    _ensure_folder(parser, options.out)
    measure = importlib.import_module("benchmarks._measure")
    failed = False
    asked = {"sections": _sections(parser, chosen, options.section)} if options.section else {}
    for name in chosen:
        try:
            with measure.one_blas_thread():
                report = importlib.import_module(f"benchmarks.{name}").run(quick=options.quick, out=options.out, **asked)
        except measure.DisagreementError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        measure.write(report, options.out, quick=options.quick)
        print(measure.as_markdown(report), flush=True)
        failed |= report.failed
    return int(failed)


def _stay_on(parser: argparse.ArgumentParser, core: int | None) -> None:
    """Keep to a core, if one is given and there."""
    if core is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        parser.error("--core needs Linux: this system does not let a process keep to a core")
    there = sorted(os.sched_getaffinity(0))
    if core not in there:
        parser.error(f"--core {core} must be one of the cores that this process may run on: {', '.join(map(str, there))}")
    os.sched_setaffinity(0, {core})


def _ensure_folder(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Make the folder for the results, and refuse one that cannot be written to before anything is measured."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        parser.error(f"--out {folder} is no folder that can be written to: {error.strerror}")


def _sections(parser: argparse.ArgumentParser, chosen: list[str], given: list[str]) -> list[str]:
    """Return the sections that are asked for, if it is the part gpu alone that is run and has them."""
    if chosen != ["gpu"]:
        parser.error(f"--section {given[0]} belongs to the part gpu, which must be the only one")
    known = importlib.import_module("benchmarks.gpu").SECTIONS
    for name in given:
        if name not in known:
            parser.error(f"--section {name} must be one of {', '.join(known)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
