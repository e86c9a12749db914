"""What a folder of results holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlhfsim.errors import DataError
from nlhfsim.files import read_object
from nlhfsim.provenance import FILE
from nlhfsim.training_run import TrainingRun, is_training, load_run

CURVES = "training"
"""Name of the figure of a training run."""
_PICTURES = {".svg": "image/svg+xml", ".png": "image/png"}
"""Kinds of figures that a page can show, the better ones first."""
_KINDS = {
    "sweep": "Sweep",
    "wrong_steps": "Verification",
    "dataset": "Demonstration",
    "critical_steps": "Experiment",
    "comparison": "Comparison",
    "runs": "Run",
    "policy": "Equilibrium",
}
"""What a result is, by a key that only such a result has; the first that is there decides."""


@dataclass(frozen=True)
class Folder:
    """A folder that a command wrote.

    Attributes
    ----------
    path : pathlib.Path
        The folder.
    kind : str
        ``"Demonstration"``, ``"Verification"``, …
    result : dict
        ``result.json``.
    provenance : dict
        ``provenance.json``, or what ``sweep.json`` says about itself; empty if there is neither.
    pictures : tuple of (path, media type)
        The figures, one for each name.
    training : TrainingRun or None
        The run, if the folder is that of one: also of one that is still going on.
    """

    path: Path
    kind: str
    result: dict[str, Any]
    provenance: dict[str, Any]
    pictures: tuple[tuple[Path, str], ...]
    training: TrainingRun | None = None

    @classmethod
    def read(cls, path: Path) -> Folder:
        """Return what is in a folder.

        Raises
        ------
        DataError
            If there is no result, or it cannot be read.
        """
        if not path.is_dir():
            raise DataError(f"folder {str(path)!r} is not there; give one that a command wrote with --out")
        if is_training(path):
            run = load_run(path)
            # Its curves are drawn anew: the run may have gone on.
            shown = tuple(one for one in _pictures(path) if one[0].stem != CURVES)
            return cls(path, "Training", run.result, run.provenance, shown, run)
        if not (path / "result.json").exists():
            unfinished = "; the sweep in it is not finished" if (path / "sweep.json").exists() else ""
            raise DataError(f"folder {str(path)!r} holds no result.json, as a command writes it with --out{unfinished}")
        result = read_object(path / "result.json")
        kind = next((words for key, words in _KINDS.items() if key in result), None)
        if kind is None:
            raise DataError(f"{str(path / 'result.json')!r} is not a result of nlhfsim: it has none of {', '.join(_KINDS)}")
        provenance = next((read_object(path / name) for name in (FILE, "sweep.json") if (path / name).exists()), {})
        return cls(path, kind, result, provenance, tuple(_pictures(path)))


def _pictures(path: Path) -> list[tuple[Path, str]]:
    found: dict[str, tuple[Path, str]] = {}
    for suffix, media in _PICTURES.items():
        for picture in sorted(one for one in path.glob(f"*{suffix}") if one.is_file()):
            found.setdefault(picture.stem, (picture, media))
    return [found[name] for name in sorted(found)]
