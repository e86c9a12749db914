"""Curves of a training run in TensorBoard, Weights & Biases or Trackio: callbacks of the trainer.

The run's folder has every number in ``metrics.jsonl`` all the same: a tracker that fails during a run is left out with a warning.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nlhfsim.errors import InputError, MissingExtraError, NlhfsimWarning, ensure_choice
from nlhfsim.files import write_whole
from nlhfsim.llm.pretrained import first_line

NAMES = ("tensorboard", "wandb", "trackio")
FILE = "tracking.json"
"""Holds the name of a run at the services, so that one that goes on is the same there."""
_PROJECT = "nlhfsim"


def make(names: Iterable[str]) -> list[Tracker]:
    """Return trackers by name, each once.

    Parameters
    ----------
    names : iterable of str
        Of `NAMES`.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    MissingExtraError
        If its library is not installed; the message has the command that does it.

    Examples
    --------
    >>> from nlhfsim.llm import trackers
    >>> trackers.make([])
    []
    """
    kinds: dict[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
    return [kinds[ensure_choice("trackers", name, kinds)]() for name in dict.fromkeys(names)]


class Tracker:
    """What trackers share: numbers by flat names, and that a failure does not end the run.

    Names are those of ``metrics.jsonl``: ``train/loss`` of a step, ``evaluation/win_rate_reference`` of an evaluation. What is
    not finite or was not measured is left out.
    """

    library = ""

    def __init__(self) -> None:
        self._library = _imported(self.library)
        self._broken = False

    def on_begin(self, run: Mapping[str, Any]) -> None:
        """Open the run.

        Parameters
        ----------
        run : mapping
            ``out`` (the folder or None), ``step`` (those done already), ``training`` and ``recipe`` as in ``config.json``.

        Raises
        ------
        InputError
            If the tracker refuses.
        """
        try:
            self._open(run)
        except InputError:
            raise
        except Exception as error:  # each service fails in its own way
            raise InputError(f"{self.library} cannot begin: {first_line(error)}") from None

    def on_step(self, metrics: Mapping[str, Any]) -> None:
        """Write the numbers of a step."""
        self._carefully(lambda: self._write(dict(_numbers("train", metrics)), int(metrics["step"])))

    def on_evaluation(self, metrics: Mapping[str, Any]) -> None:
        """Write the numbers of an evaluation."""
        self._carefully(lambda: self._write(dict(_numbers("evaluation", metrics)), int(metrics["step"])))
        self._carefully(self._flush)

    def on_end(self, status: str) -> None:
        """Close the run; `status` is ``"done"`` or ``"interrupted"``."""
        self._carefully(lambda: self._close(status))

    def _carefully(self, action: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            action()
        except Exception as error:  # each service fails in its own way
            self._broken = True
            message = f"{self.library} fails, and is left out from here on: {first_line(error)}"
            warnings.warn(message, NlhfsimWarning, stacklevel=3)

    def _open(self, run: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _write(self, numbers: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def _close(self, status: str) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        """Show what was written; services do that by themselves."""


class TensorBoard(Tracker):
    """Event files for TensorBoard.

    Parameters
    ----------
    folder : path, optional
        Where they go; default: ``tensorboard`` in the run's folder.
    """

    library = "tensorboard"

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self._folder = folder

    def _open(self, run: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder
        if folder is None:
            if run["out"] is None:
                raise InputError("tensorboard writes files: give the run a folder by out (--out), or TensorBoard one of its own")
            folder = Path(run["out"], "tensorboard")
        make_writer: Any = SummaryWriter
        # Later points of a run that was cut off are not shown: it makes them again.
        self._writer = make_writer(str(folder), purge_step=run["step"] + 1 if run["step"] else None)
        if not run["step"]:
            self._writer.add_text("config", f"```json\n{json.dumps(_config(run), indent=1, ensure_ascii=False)}\n```")

    def _write(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def _flush(self) -> None:
        self._writer.flush()

    def _close(self, status: str) -> None:
        self._writer.close()


class WeightsAndBiases(Tracker):
    """A run at Weights & Biases, or in a folder where ``WANDB_MODE=offline``.

    Parameters
    ----------
    project : str, optional
        Default: that of ``WANDB_PROJECT``, else nlhfsim.
    """

    library = "wandb"

    def __init__(self, project: str | None = None) -> None:
        super().__init__()
        self._project = project or os.environ.get("WANDB_PROJECT") or _PROJECT

    def _open(self, run: Mapping[str, Any]) -> None:
        name, id_ = _name(run)
        # Its copy of the console would be one of the progress line, thousands of times.
        more = {"dir": run["out"], "settings": {"console": "off"}}
        self._run = self._library.init(project=self._project, name=name, id=id_, resume="allow", config=_config(run), **more)
        # Steps of its own may only grow, and a run that goes on from a checkpoint repeats some.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _write(self, numbers: dict[str, float], step: int) -> None:
        self._run.log(numbers | {"step": step})

    def _close(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "done" else 1)


class Trackio(Tracker):
    """A run of Trackio, on this machine.

    Parameters
    ----------
    project : str, optional
        Default: nlhfsim.
    """

    library = "trackio"

    def __init__(self, project: str | None = None) -> None:
        super().__init__()
        self._project = project or _PROJECT

    def _open(self, run: Mapping[str, Any]) -> None:
        name, id_ = _name(run)
        with contextlib.redirect_stdout(sys.stderr):  # it greets, and our standard output may be JSON
            self._library.init(project=self._project, name=f"{name}-{id_}", resume="allow", config=_config(run))

    def _write(self, numbers: dict[str, float], step: int) -> None:
        self._library.log(numbers, step=step)

    def _close(self, status: str) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._library.finish()


def _imported(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError:
        raise MissingExtraError(f"tracking by {library} needs it: pip install {library}") from None


def _numbers(prefix: str, metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what is a finite number, of tables too, by names with slashes."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{prefix}/{name}", value)
        elif name != "step" and isinstance(value, (int, float)) and math.isfinite(value):
            yield f"{prefix}/{name}", float(value)


def _config(run: Mapping[str, Any]) -> dict[str, Any]:
    return {"training": run["training"], "recipe": run["recipe"]}


def _name(run: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a run is called at a service, and an id that it keeps when it goes on."""
    folder = None if run["out"] is None else Path(run["out"])
    title = (run["recipe"] or {}).get("title") or (run["training"]["method"] if folder is None else folder.name)
    if folder is None:
        return str(title), secrets.token_hex(4)
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["name"]), str(found["id"])
    except (OSError, ValueError, KeyError, TypeError):
        made = {"name": str(title), "id": secrets.token_hex(4)}
        write_whole(path, (json.dumps(made, ensure_ascii=False) + "\n").encode("utf-8"))
        return made["name"], made["id"]
