"""What language models of real size cost, and whether they converge, on one GPU: a section a question, in under eight minutes.

Where there is no GPU the same code runs at a small size, and the table says so. What a section finds is written before the next
begins; one that fails is a row, and the others go on.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks._measure import NOT_INSTALLED, Report, Section, write
from nlhfsim.errors import MissingExtraError

SECTIONS = {
    "crosscheck": "agreement",
    "throughput": "throughput",
    "convergence": "convergence",
    "trl": "beside_trl",
    "lora": "adapters",
}
"""The sections, what matters most first, and the modules that they are in."""
BUDGET = 480.0
"""Seconds that all sections may take together on a GPU."""
ONLY_WORKS = "QUICK: only to see that it works; a few steps of small models measure neither speed nor convergence"
NO_GPU = "NOT RUN ON A GPU: there was none, so all of this is a small size on a processor, and says nothing of the aims"


def run(*, quick: bool, out: Path, sections: Sequence[str] | None = None) -> Report:
    """Run the sections, all or those that are named, and write what is known after each of them."""
    report = Report("gpu", "Language models on one GPU", {"section": "section", "seconds": "s", "outcome": "outcome"})
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # TRL would spread a model over all that there are
    try:
        import nlhfsim.llm  # noqa: F401
    except MissingExtraError:
        report.rows.append({"section": "nlhfsim.llm", "outcome": NOT_INSTALLED})
        return report
    from benchmarks.gpu import device, sizes

    where = device.device()
    on_gpu = where.type == "cuda"
    asked = sizes.sizes(on_gpu, quick)
    _set_up(report, on_gpu, device.described(), asked._asdict())
    report.notes += [ONLY_WORKS] * quick
    begin = time.perf_counter()
    for name in SECTIONS:
        if sections is None or name in sections:
            _section(report, name, asked, where, hold=on_gpu and not quick)
            report.sections[-1].title += ", quick: only to see that it works" * quick
            write(report, out, quick=quick)
    spent = time.perf_counter() - begin
    report.rows.append({"section": "all", "seconds": spent})
    if spent > BUDGET:
        report.notes.append(f"TOO SLOW: all sections together took {spent:.0f} s, and are to take at most {BUDGET:.0f}")
    return report


def _set_up(report: Report, on_gpu: bool, machine: dict[str, object], sizes: dict[str, object]) -> None:
    """Say where it runs, and at which size."""
    report.settings = {"sizes": sizes, "device": machine}
    if on_gpu:
        report.title += f": {machine['gpu']}"
        report.notes = [", ".join(f"{name} {value}" for name, value in machine.items())]
        return
    import torch

    torch.set_num_threads(1)
    report.title += ": not run on one, a small size on a processor"
    report.notes = [NO_GPU]


def _section(report: Report, name: str, sizes: object, where: object, *, hold: bool) -> None:
    """Run a section, and hold it against its aims if it was run as they are meant; what it found until it failed is kept."""
    found, begin = Section(name, {}), time.perf_counter()
    outcome = "done"
    report.sections.append(found)
    try:
        module = importlib.import_module(f"benchmarks.gpu.{SECTIONS[name]}")
        module.run(found, sizes, where)
        if hold and hasattr(module, "aims"):
            module.aims(report, found)
    except MissingExtraError as error:
        outcome = f"{NOT_INSTALLED}: {error}"
    except Exception as error:  # whatever it is, the other sections are not lost
        traceback.print_exc()
        outcome = f"FAILED: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        report.failed = True
    found.seconds = time.perf_counter() - begin
    report.rows.append({"section": name, "seconds": found.seconds, "outcome": outcome})
    print(f"{name}: {outcome}, {found.seconds:.1f} s", file=sys.stderr, flush=True)
