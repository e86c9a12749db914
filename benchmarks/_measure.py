"""What all parts share: timing in turns, the check against the right answer, the machine, tables and result files."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
PACKAGES = ("nlhfsim", "numpy", "scipy", "numba", "cvxpy", "clarabel", "highspy") + (
    "jax",
    "torch",
    "transformers",
    "peft",
    "trl",
    "open_spiel",
    "quantecon",
    "nashpy",
    "pygambit",
    "threadpoolctl",
)
NOT_INSTALLED = "not installed"
PROCESSOR_NOTE = (
    "ratios and targets are those of processor time, best repeat: with one thread each it is the wall time of an idle machine, "
    "and what else runs on a busy one hardly touches it"
)
Name = TypeVar("Name")


class DisagreementError(AssertionError):
    """A contestant's numbers differ from the right answer, so that its time means nothing."""


@dataclass(frozen=True)
class Timing:
    """Seconds over repeats."""

    minimum: float
    median: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarize repeats."""
        return cls(min(seconds), statistics.median(seconds), len(seconds))


@dataclass
class Section:
    """One table of a report that has several.

    Attributes
    ----------
    title : str
        Its headline.
    columns, rows, notes
        As of `Report`.
    seconds : float or None
        What it took.
    """

    title: str
    columns: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float | None = None


@dataclass
class Report:
    """What one part found.

    Attributes
    ----------
    part, title : str
        The part, and its headline.
    rows : list of dict
        One a measurement; what was not measured is None, with the reason under ``"note"``.
    columns : dict
        Which fields of the rows the table shows, and their headings.
    targets : list of dict
        ``target``, ``measured``, ``met``.
    notes : list of str
        What a reader has to know.
    settings : dict
        Sizes, repeats, grids.
    sections : list of Section
        More tables, behind the first.
    failed : bool
        Whether something could not be measured that should have been: then the command fails, and the rest is reported.
    """

    part: str
    title: str
    columns: dict[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    failed: bool = False

    def aim(self, target: str, measured: float, limit: float, *, at_least: bool = False) -> None:
        """Record a target and whether it is met; a target never fails the command."""
        met = measured >= limit if at_least else measured <= limit
        self.targets.append({"target": target, "measured": measured, "limit": limit, "met": bool(met)})


def ensure_agreement(name: str, found: npt.ArrayLike, right: npt.ArrayLike, tolerance: float) -> float:
    """Return the largest difference between a contestant's numbers and the right ones.

    Raises
    ------
    DisagreementError
        If it exceeds `tolerance`, or the numbers have another shape or are not finite.
    """
    got, wanted = np.asarray(found, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if got.shape != wanted.shape:
        raise DisagreementError(f"{name} returns numbers of shape {got.shape}, the right answer has shape {wanted.shape}")
    difference = float(np.abs(got - wanted).max())
    if not difference <= tolerance:
        raise DisagreementError(f"{name} differs from the right answer by {difference:.2e}, more than {tolerance:.0e}")
    return difference


@dataclass
class Turns:
    """What one contestant did in its turns: wall seconds and processor seconds of every repeat, and the last result."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def timing(self) -> Timing:
        """The wall seconds, summarized."""
        return Timing.of(self.seconds)

    @property
    def threads(self) -> float:
        """Processor seconds over wall seconds: about 1 for one busy thread, less on a busy machine."""
        return sum(self.processor) / sum(self.seconds)

    def take(self, call: Callable[[], Any]) -> None:
        """Time one call."""
        begin, before = time.perf_counter(), time.process_time()
        self.result = call()
        self.seconds.append(time.perf_counter() - begin)
        self.processor.append(time.process_time() - before)


def in_turns(contestants: Mapping[Name, Callable[[], Any]], repeats: int, *, cap: float = math.inf) -> dict[Name, Turns]:
    """Time contestants in turns, so that a slow spell of the machine meets all; one that has used `cap` seconds drops out."""
    turns = {name: Turns() for name in contestants}
    for _ in range(repeats):
        for name, call in contestants.items():
            if sum(turns[name].seconds) < cap:
                turns[name].take(call)
    return turns


def steps_in(run: Callable[[int], Any], seconds: float, at_least: int) -> int:
    """Return how many steps take about `seconds`; so many have been run, so that nothing is compiled later."""
    n_steps = at_least
    while True:
        run(n_steps)
        # One stall of a busy machine must not pass for the cost of the steps.
        spent = min(in_turns({"": partial(run, n_steps)}, 3)[""].seconds)
        if spent > seconds / 2 or n_steps > 10**7:
            return n_steps
        n_steps = int(n_steps * min(8.0, max(1.5, seconds / spent)))


def threads_note(where: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a warning for each row whose contestant kept more than one thread busy."""
    used = [(row["contestant"], row["threads"]) for row in rows if row.get("threads", 0.0) > 1.15]
    return [f"{where}: {name} kept {threads:.2f} threads busy, which favours it" for name, threads in used]


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every BLAS in this process to one thread, as far as threadpoolctl is there to do so."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        yield
        return
    with threadpoolctl.threadpool_limits(limits=1):
        yield


def versions() -> dict[str, str]:
    """Return the version of every package that takes part, or that it is not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = NOT_INSTALLED
    return found


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "pinned_to": usable,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "blas": _blas(),
        "threads": {
            name: os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "XLA_FLAGS")
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def _blas() -> list[dict[str, Any]] | str:
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return "threadpoolctl is not installed: threads are held down by the environment alone"
    keys = ("user_api", "internal_api", "version", "num_threads", "architecture")
    return [{key: pool.get(key) for key in keys} for pool in threadpoolctl.threadpool_info()]


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def write(report: Report, out: Path, *, quick: bool) -> None:
    """Write ``PART.json`` and ``PART.md``."""
    content = {"quick": quick, "machine": machine(), **asdict(report)}
    (out / f"{report.part}.json").write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
    (out / f"{report.part}.md").write_text(as_markdown(report))


def _plain(value: Any) -> Any:
    """Return `value` as JSON takes it; infinities become words."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "infinity"
    return value


def as_markdown(report: Report) -> str:
    """Return the report as text: a table, targets, notes, and the machine in one line."""
    parts = [f"## {report.title}", "", *table(report.rows, report.columns), ""]
    for section in report.sections:
        spent = "" if section.seconds is None else f" ({cell(section.seconds)} s)"
        parts += [f"### {section.title}{spent}", "", *(table(section.rows, section.columns) if section.columns else []), ""]
        parts += [f"- {note}" for note in section.notes] + [""] * bool(section.notes)
    for target in report.targets:
        words = "met" if target["met"] else "MISSED"
        parts.append(f"- {words}: {target['target']}: {cell(target['measured'])}")
    parts += [f"- {note}" for note in report.notes]
    where = machine()
    present = [f"{name} {version}" for name, version in where["versions"].items() if version != NOT_INSTALLED]
    absent = [name for name, version in where["versions"].items() if version == NOT_INSTALLED]
    parts += [
        f"- {where['cpu']}, {where['cores']} cores, one used; Python {where['python']}, {', '.join(present)}"
        + (f"; not installed: {', '.join(absent)}" if absent else "")
        + f"; commit {where['commit']}, {where['date']}"
    ]
    return "\n".join(parts) + "\n"


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """Return a markdown table whose columns line up."""
    cells = [list(columns.values())] + [[cell(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |" for line in cells]
    return [lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]]


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "never" if math.isinf(value) else "–" if math.isnan(value) else _number(value)
    return str(value)


def _number(value: float) -> str:
    if value != 0 and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
