"""A training run of a language model, read back from the folder that it writes, also while it is still going on.

Needs no torch: what a machine with an accelerator wrote is read, drawn and reported on any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nlhfsim.errors import Array, DataError, MissingExtraError, ensure_choice
from nlhfsim.files import ensure_path, read_object
from nlhfsim.provenance import FILE as PROVENANCE
from nlhfsim.tables import show

METRICS, CONFIG, RESULT = "metrics.jsonl", "config.json", "result.json"
KINDS = {"step": "steps", "evaluation": "evaluations"}
SHOWN = {
    "step": "step",
    "win_rate_reference": "wins over reference",
    "win_rate_reference_error": "±",
    "win_rate_target": "over target",
    "win_rate_target_error": "±",
    "kl_reference": "KL to reference",
    "kl_target": "KL to target",
    "exploitability": "E_beta",
    "gap0": "E_0",
    "kl_equilibrium": "KL to equilibrium",
    "entropy": "entropy",
    "length": "length",
    "order_disagreement": "order disagreement",
}
"""Columns of the table of evaluations, in order, and their headings."""
_ERROR = "_error"
"""Ends the name of a standard error, behind that of what it belongs to."""
LEGEND = (
    "on the held-out prompts: share of comparisons won against the reference and the target ± its standard error, "
    "KL(policy ‖ ·) to both in nats a response, entropy in nats a token, tokens a response, how far the verdicts "
    "of both orders are apart"
)
EXACT_LEGEND = "from the whole distribution over responses: exploitability E_beta, unregularized E_0, KL(π* ‖ policy)"


@dataclass(frozen=True)
class TrainingRun:
    """A training run of a language model, as far as it has come.

    Attributes
    ----------
    path : pathlib.Path or None
        The folder; None: it is in memory only.
    status : str
        ``"done"``, ``"interrupted"``, or ``"unfinished"``: still going on, or killed.
    config : dict
        The fields of `nlhfsim.llm.NashConfig`.
    recipe : dict or None
        The tables of the TOML file that described it, if one did.
    result, provenance : dict
        ``result.json`` and ``provenance.json``; empty where there is none yet.
    steps, evaluations : dict of numpy.ndarray
        By name, shape ``(records,)`` each: what was measured at each optimizer step, and at each evaluation on the held-out
        prompts. NaN where there was nothing to measure. Seconds a phase are ``seconds_generation``, …

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> from nlhfsim.training_run import load_run
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "config.json").write_text(json.dumps({"training": {"method": "nash_prox", "beta": 0.1, "steps": 8}}))
    >>> line = json.dumps({"kind": "evaluation", "step": 4, "win_rate_reference": 0.75, "kl_reference": 0.5})
    >>> _ = (folder / "metrics.jsonl").write_text(line + chr(10))
    >>> run = load_run(folder)
    >>> run.evaluations["win_rate_reference"], run.last_step, run.status
    (array([0.75]), 4, 'unfinished')
    """

    path: Path | None
    status: str
    config: dict[str, Any]
    recipe: dict[str, Any] | None = None
    result: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Array] = field(default_factory=dict)
    evaluations: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of_records(
        cls, records: Iterable[Mapping[str, Any]], config: dict[str, Any], status: str, *, path: Path | None, recipe: Any = None
    ) -> TrainingRun:
        """Return a run that is still in memory, of the records that it has made."""
        found: dict[str, list[dict[str, float]]] = {name: [] for name in KINDS.values()}
        for record in records:
            numbers = {name: value for name, value in record.items() if name != "kind"}
            found[KINDS[record["kind"]]].append(dict(_numbers(numbers, "record")))
        steps, evaluations = (_columns(found[name]) for name in KINDS.values())
        return cls(path, status, config, recipe, steps=steps, evaluations=evaluations)

    def __repr__(self) -> str:
        return f"TrainingRun({self.summary()}; {'in memory' if self.path is None else repr(str(self.path))})"

    @property
    def last_step(self) -> int:
        """The last step that there is a record of; 0 if there is none."""
        return max(
            (int(records["step"][-1]) for records in (self.steps, self.evaluations) if len(records.get("step", ()))), default=0
        )

    @property
    def final(self) -> dict[str, float]:
        """The last evaluation, what was measured of it; empty if there was none."""
        last = {name: float(values[-1]) for name, values in self.evaluations.items() if len(values)}
        return {name: value for name, value in last.items() if not math.isnan(value)}

    def summary(self) -> str:
        """Return in one line what was trained, how far, and the last evaluation."""
        method, beta = self.config.get("method", "unknown method"), self.config.get("beta", math.nan)
        words = [f"{method}, beta = {show(beta)}", f"step {self.last_step} of {self.config.get('steps', '?')}, {self.status}"]
        last = self.final
        first = [name for name in ("exploitability", *SHOWN) if name in last and name != "step" and not name.endswith(_ERROR)]
        words += [f"{SHOWN[name]} {with_error(last, name)}" for name in dict.fromkeys(first)][:4]
        return ", ".join(words)

    def table(self, last: int | None = None) -> tuple[list[str], list[list[Any]], list[str]]:
        """Return columns, rows and notes of the evaluations, the `last` of them or all, without what was never measured."""
        names = [name for name in SHOWN if not np.isnan(self.evaluations.get(name, np.array([]))).all()]
        columns = [self.evaluations[name][-last if last else 0 :].tolist() for name in names]
        exact = [EXACT_LEGEND] if "exploitability" in names else []
        return [SHOWN[name] for name in names], [list(row) for row in zip(*columns)], [LEGEND, *exact] if names else []

    def to_frame(self, kind: str = "evaluations") -> Any:
        """Return the records as a pandas DataFrame, a row a record, indexed by step.

        Parameters
        ----------
        kind : str
            ``"evaluations"`` or ``"steps"``.

        Raises
        ------
        MissingExtraError
            Without pandas, which is in ``nlhfsim[data]``.
        """
        ensure_choice("kind", kind, tuple(KINDS.values()))
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("to_frame needs pandas: pip install 'nlhfsim[data]'") from None
        records = getattr(self, kind) or {"step": np.array([])}
        frame = pd.DataFrame(records)
        return frame.assign(step=frame["step"].astype("int64")).set_index("step")

    def plot(self) -> Any:
        """Draw what was measured against the step, and return the figure; see `nlhfsim.plots.training`."""
        from nlhfsim.plots import training

        return training(self)


def with_error(measured: Mapping[str, float], name: str) -> str:
    """Return a measurement as text, with its standard error behind it if it has one."""
    error = measured.get(f"{name}{_ERROR}")
    return show(measured[name]) + ("" if error is None else f" ± {error:.2g}")


def is_training(folder: str | Path) -> bool:
    """Return whether a folder is one that a training run writes."""
    return (Path(folder) / METRICS).is_file() and (Path(folder) / CONFIG).is_file()


def load_run(folder: str | Path) -> TrainingRun:
    """Return the training run in a folder, as far as it has come.

    Raises
    ------
    InputError
        If `folder` is no path.
    DataError
        If there is none, or a file of it cannot be read; the message names the line.
    """
    path = ensure_path("folder", folder)
    if not path.is_dir():
        raise DataError(f"folder {str(path)!r} is not there; give one that a training run writes")
    if not (path / CONFIG).is_file():
        raise DataError(f"folder {str(path)!r} holds no {CONFIG}, as a training run writes it")
    about = read_object(path / CONFIG)
    config, recipe = about.get("training"), about.get("recipe")
    if not isinstance(config, dict) or not (recipe is None or isinstance(recipe, dict)):
        raise DataError(f"{str(path / CONFIG)!r} is not of a training run: it must have the object 'training'")
    found = {name: _columns(records) for name, records in _read_metrics(path / METRICS).items()}
    result, origin = (read_object(path / name) if (path / name).is_file() else {} for name in (RESULT, PROVENANCE))
    run = TrainingRun(path, "unfinished", config, recipe, result, origin, **found)
    # A run that goes on after an interruption has the result of that until it ends.
    steps = result.get("steps")
    return replace(run, status=str(result.get("status"))) if isinstance(steps, int) and run.last_step <= steps else run


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and content of each line of a metrics file that there is; a last line that is half-written is left out.

    Raises
    ------
    DataError
        If the file cannot be read, or a line before is no record.
    """
    try:
        text = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    *lines, rest = text.split(b"\n")
    for number, line in enumerate([*lines, rest], 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number > len(lines):
                return
            raise DataError(f"{str(path)!r}, line {number} is not JSON: {error}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str) or type(entry.get("step")) is not int:
            raise DataError(f"{str(path)!r}, line {number} must be an object with a 'kind' and a whole 'step'")
        yield number, entry


def _read_metrics(path: Path) -> dict[str, list[dict[str, float]]]:
    """Return the records of each kind in the order of their steps; of two evaluations of one step, the later."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in KINDS.values()}
    for number, entry in read_lines(path):
        kind = entry.pop("kind")
        if kind not in KINDS:
            continue
        records, record = found[KINDS[kind]], dict(_numbers(entry, f"{str(path)!r}, line {number}"))
        before = records[-1]["step"] if records else -math.inf
        if record["step"] < before or (record["step"] == before and kind == "step"):
            raise DataError(
                f"{str(path)!r}, line {number} is {kind} {entry['step']} behind {kind} {before:g}: two runs wrote to one folder"
            )
        if record["step"] == before:
            records.pop()
        records.append(record)
    return found


def _numbers(entry: Mapping[str, Any], place: str, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield names and numbers of a record, those of an object in it behind its name; null is NaN."""
    for name, value in entry.items():
        if isinstance(value, dict) and not prefix:
            yield from _numbers(value, place, f"{name}_")
        elif value is None:
            yield f"{prefix}{name}", math.nan
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)
        else:
            raise DataError(f"{place}: {prefix}{name} = {value!r} must be a number or null")


def _columns(records: list[dict[str, float]]) -> dict[str, Array]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: np.array([record.get(name, math.nan) for record in records]) for name in names}
