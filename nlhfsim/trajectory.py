"""What a simulation returns: records, final state, tables, files."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim import metrics
from nlhfsim.errors import Array, DataError, InputError, MissingExtraError, ensure_choice
from nlhfsim.files import ensure_path
from nlhfsim.log_linear.attainable import Attainable

FORMAT = "nlhfsim-trajectory-1"
METRICS = ("kl", "exploitability", "gap0", "span", "min_probability")
CLOCKS = ("steps", "oracle_calls", "queries")


class Records:
    """What is read off the recorded runs of one method on one game: the part that `Trajectory` and `nlhfsim.flow.Flow` share."""

    by_context: dict[str, Array]
    weights: Array
    log_policies: Array | None
    status: tuple[str, ...]
    notes: tuple[str, ...]
    dynamics: str
    params: dict[str, Any]
    fingerprint: str
    attainable: Attainable | None = None

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.status)

    @property
    def kl(self) -> Array:
        """KL(π*‖π_t), shape ``(runs, records)``."""
        return _averaged(self.by_context["kl"], self.weights)

    @property
    def exploitability(self) -> Array:
        """E_β(π_t), shape ``(runs, records)``."""
        return _averaged(self.by_context["exploitability"], self.weights)

    @property
    def gap0(self) -> Array:
        """E_0(π_t), shape ``(runs, records)``."""
        return _averaged(self.by_context["gap0"], self.weights)

    @property
    def span(self) -> Array:
        """Largest ``‖log π_t - log ρ‖_sp`` over contexts, shape ``(runs, records)``."""
        return np.asarray(self.by_context["span"].max(axis=-1))

    @property
    def min_probability(self) -> Array:
        """Smallest probability, shape ``(runs, records)``."""
        return np.asarray(self.by_context["min_probability"].min(axis=-1))

    def metric(self, name: str) -> Array:
        """Return one of the metrics by name, shape ``(runs, records)``."""
        values: Array = getattr(self, ensure_choice("metric", name, METRICS))
        return values

    def plot(self, metric: str = "kl", ax: Any = None) -> Any:
        """Draw `metric` against the clock, with the proven rate if there is one, and return the matplotlib axes."""
        from nlhfsim import plots

        return plots.convergence([self], metric=metric, ax=ax)

    def _frame(self, clocks: tuple[str, ...]) -> Any:
        try:
            import pandas
        except ImportError:
            raise MissingExtraError("to_frame needs pandas: pip install nlhfsim[data]") from None
        records = self.by_context["kl"].shape[1]
        columns: dict[str, Any] = {"dynamics": self.dynamics, "run": np.repeat(np.arange(self.runs), records)}
        columns |= {clock: np.tile(getattr(self, clock), self.runs) for clock in clocks}
        columns |= {name: self.metric(name).ravel() for name in METRICS}
        return pandas.DataFrame(columns)


@dataclass(frozen=True)
class Trajectory(Records):
    """The records of one method's runs on one game. The last record is the last step.

    Attributes
    ----------
    steps, oracle_calls, queries : numpy.ndarray
        Shape ``(records,)``: what had been spent at each record; ``oracle_calls`` is NaN where the method does not count them.
    kl, exploitability, gap0, span, min_probability : numpy.ndarray
        Shape ``(runs, records)``: KL(π*‖π_t); E_β(π_t); the unregularized exploitability E_0(π_t); ``‖log π_t - log ρ‖_sp``;
        ``min π_t``. The first three are averages over contexts, ``span`` the largest and ``min_probability`` the smallest over
        contexts. NaN after a run diverged and where `notes` says so.
    by_context : dict of numpy.ndarray
        The same metrics, each of shape ``(runs, records, contexts)``.
    log_policies : numpy.ndarray or None
        log π_t, shape ``(runs, records, [contexts,] n)``; None unless all policies were kept.
    final : numpy.ndarray or None
        The last policies, probability space, shape ``(runs, [contexts,] n)``; None if no policies were kept.
    parameters : numpy.ndarray
        The last θ, shape ``(runs, [contexts,] n)``; of log-linear policies ``(runs, d)``.
    status : tuple of str
        One a run: ``"completed"`` or ``"diverged"``.
    notes : tuple of str
        What a reader of the numbers should know.
    dynamics : str
        The method's name.
    params : dict
        The method's parameters.
    runs, seed : int
        As asked for.
    proven_factor : float or None
        The proven factor per step of KL(π*‖π_t) at this step size, if there is one.
    fingerprint : str
        Fingerprint of the game.
    state : dict of numpy.ndarray
        The method's full state at the end, each field of shape ``(runs, contexts, ...)``, that of the random generators included:
        what a continuation starts from.
    feedback : str or dict
        ``"exact"``, or the parameters of `nlhfsim.Sampled`.
    average : str or None
        What the records are averages of: ``"policies"``, ``"parameters"``; None: they are of the last iterate.
    parametrization : str or dict
        ``"tabular"``, or the shape and fingerprint of the features.
    attainable : Attainable or None
        For log-linear policies the best values that the features allow; None for tabular ones, for which they are 0.
    """

    steps: npt.NDArray[np.int64]
    oracle_calls: Array
    queries: Array
    by_context: dict[str, Array]
    weights: Array
    log_policies: Array | None
    final: Array | None
    parameters: Array
    status: tuple[str, ...]
    notes: tuple[str, ...]
    dynamics: str
    params: dict[str, Any]
    seed: int
    proven_factor: float | None
    fingerprint: str
    state: dict[str, Array]
    compiled: bool
    feedback: Any = "exact"
    average: str | None = None
    parametrization: Any = "tabular"
    attainable: Attainable | None = None

    def __repr__(self) -> str:
        shown = ", ".join(sorted(set(self.status)))
        return f"Trajectory({self.dynamics}, runs={self.runs}, steps={int(self.steps[-1])}, records={len(self.steps)}, {shown})"

    def first_passage(self, metric: str = "kl", eps: float = 1e-6, *, clock: str = "oracle_calls") -> Array:
        """Return when `metric` was first recorded at or below `eps`, shape ``(runs,)``; ``inf`` if never.

        Parameters
        ----------
        metric : str
            ``"kl"``, ``"exploitability"``, ``"gap0"``, …
        eps : float
            Threshold > 0.
        clock : str
            ``"steps"``, ``"oracle_calls"`` or ``"queries"``. Records are the resolution: use `record_every=1` for exact times.
        """
        times = getattr(self, ensure_choice("clock", clock, CLOCKS))
        return metrics.first_passage(times, self.metric(metric), eps)

    def fit_rate(self, metric: str = "kl", *, clock: str = "steps", floor: float = 1e-26) -> Array:
        """Return the fitted factor of `metric` per step (or other clock), shape ``(runs,)``; see `nlhfsim.metrics.fit_rate`."""
        times = getattr(self, ensure_choice("clock", clock, CLOCKS))
        return metrics.fit_rate(times, self.metric(metric), floor=floor)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a row a run and record. Needs the ``data`` extra."""
        return self._frame(CLOCKS)

    def to_xarray(self) -> Any:
        """Return an xarray Dataset with dimensions run, record, context and action. Needs the ``data`` extra."""
        try:
            import xarray
        except ImportError:
            raise MissingExtraError("to_xarray needs xarray: pip install nlhfsim[data]") from None
        variables: dict[str, Any] = {name: (("run", "record"), self.metric(name)) for name in METRICS}
        if self.log_policies is not None:
            batched = ("context",) if self.log_policies.ndim == 4 else ()
            variables["log_policy"] = (("run", "record", *batched, "action"), self.log_policies)
        clocks = {clock: ("record", getattr(self, clock)) for clock in CLOCKS}
        attributes = {"dynamics": self.dynamics, "params": json.dumps(self.params), "seed": self.seed}
        return xarray.Dataset(variables, clocks, attributes)

    def save(self, path: str | Path) -> Path:
        """Write everything to one ``.npz`` file (no pickles), read back by `nlhfsim.load`, and return its path.

        Raises
        ------
        InputError
            If `path` is none.
        DataError
            If the file cannot be written.
        """
        target = ensure_path("path", path)
        target = target if target.suffix == ".npz" else target.with_name(target.name + ".npz")
        arrays: dict[str, Any] = {name: getattr(self, name) for name in (*CLOCKS, "weights", "parameters")}
        arrays |= {f"by_context.{name}": values for name, values in self.by_context.items()}
        arrays |= {f"state.{name}": values for name, values in self.state.items()}
        arrays |= {name: getattr(self, name) for name in ("log_policies", "final") if getattr(self, name) is not None}
        about = {name: getattr(self, name) for name in _ABOUT} | {"format": FORMAT, "arrays": sorted(arrays)}
        about["attainable"] = None if self.attainable is None else self.attainable.to_dict()
        partial = target.with_name(target.name + ".part")
        try:
            with open(partial, "wb") as file:
                np.savez_compressed(file, about=json.dumps(about), **arrays)
            partial.replace(target)
        except OSError as error:
            raise DataError(f"path = {str(target)!r} cannot be written: {error.strerror or error}") from None
        return target


_ABOUT = (
    "status",
    "notes",
    "dynamics",
    "params",
    "seed",
    "proven_factor",
    "fingerprint",
    "compiled",
    "feedback",
    "average",
    "parametrization",
)


def _averaged(by_context: Array, weights: Array) -> Array:
    """Average the last axis, context after context, so that the bits do not depend on how many records there are."""
    total = np.zeros(by_context.shape[:-1])
    for k, weight in enumerate(weights):
        total += by_context[..., k] * weight
    return total


def load(path: str | Path) -> Trajectory:
    """Read a trajectory written by `Trajectory.save`.

    Raises
    ------
    InputError
        If `path` is none.
    DataError
        If there is no such file, or it is not one of ours.
    """
    source = ensure_path("path", path)
    if not source.exists() and not source.suffix:
        source = source.with_name(source.name + ".npz")
    try:
        return _read(source)
    except OSError as error:
        raise DataError(f"path = {str(source)!r} cannot be read: {error.strerror or error}") from None
    except _UNREADABLE:
        raise DataError(f"path = {str(source)!r} is not a trajectory saved by nlhfsim") from None


# What numpy, zipfile and json are seen to raise on foreign and damaged files.
_UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def _read(source: Path) -> Trajectory:
    # The file is opened here, as np.load leaves it open when it is not a whole archive.
    with open(source, "rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    about = json.loads(str(arrays.pop("about")))
    if about.pop("format") != FORMAT:
        raise ValueError("format")
    if about.pop("arrays") != sorted(arrays):
        raise ValueError("arrays")
    groups: dict[str, dict[str, Array]] = {"by_context": {}, "state": {}}
    for name in [name for name in arrays if "." in name]:
        group, _, field = name.partition(".")
        groups[group][field] = arrays.pop(name)
    about["status"], about["notes"] = tuple(about["status"]), tuple(about["notes"])
    if about.get("attainable") is not None:
        about["attainable"] = Attainable.from_dict(about["attainable"])
    return Trajectory(**{"log_policies": None, "final": None} | arrays | groups | about)


def joined(before: Trajectory, after: Trajectory) -> Trajectory:
    """Return one trajectory from a run and its continuation, whose first record is the last of `before`."""
    if before.fingerprint != after.fingerprint:
        raise InputError("the two trajectories are of different games")
    clocks = {name: np.concatenate([getattr(before, name), getattr(after, name)[1:]]) for name in CLOCKS}
    by_context = {name: np.concatenate([before.by_context[name], after.by_context[name][:, 1:]], axis=1) for name in METRICS}
    log_policies = None
    if before.log_policies is not None and after.log_policies is not None:
        log_policies = np.concatenate([before.log_policies, after.log_policies[:, 1:]], axis=1)
    kept = {name: getattr(after, name) for name in after.__dataclass_fields__}
    notes = tuple(dict.fromkeys(before.notes + after.notes))
    return Trajectory(**kept | clocks | {"by_context": by_context, "log_policies": log_policies, "notes": notes})
