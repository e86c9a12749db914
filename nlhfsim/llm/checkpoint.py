"""Checkpoints: everything that the next step depends on, whole or not there, and the same bits after resuming."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlhfsim.errors import DataError, InputError, NlhfsimWarning
from nlhfsim.llm.pretrained import first_line

FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{8})")
_WEIGHTS = {"policy": "policy.safetensors", "target": "target.safetensors"}
_MEMORY, _STATE = "optimizer.pt", "state.json"
STATE = ("step", "queries", "tokens", "seconds", "position", "voters", "generators", "config", "fixed", "digests")
"""What `Checkpoint.state` has."""
REMOVE = "remove it to go on from an older one"


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes
    ----------
    policy, target : dict
        Master weights and shadow by name, on the CPU; a method without a target has none.
    optimizer : dict
        The optimizer's memory.
    state : dict
        Step, position in the data, counters, the states of every process's generators, and the digests of configuration and
        reference.
    """

    policy: Mapping[str, Tensor]
    target: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`.

    Raises
    ------
    DataError
        If it cannot be written; those that were there are still there.
    """
    step = int(checkpoint.state["step"])
    root = folder / FOLDER
    final, partial, old = root / f"step-{step:08d}", root / f".step-{step:08d}.part", root / f".step-{step:08d}.old"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, weights in (("policy", checkpoint.policy), ("target", checkpoint.target)):
            if weights:
                save_file({key: value.detach().contiguous() for key, value in weights.items()}, partial / _WEIGHTS[name])
        torch.save(checkpoint.optimizer, partial / _MEMORY)
        (partial / _STATE).write_text(json.dumps(checkpoint.state), encoding="utf-8")
        _flush(partial)
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(final, old)
        os.replace(partial, final)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(f"checkpoint {str(final)!r} cannot be written: {error}") from error
    for older in found(folder)[:-keep]:
        shutil.rmtree(older, ignore_errors=True)
    return final


def found(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    root = folder / FOLDER
    return sorted(path for path in root.iterdir() if _NAME.fullmatch(path.name)) if root.is_dir() else []


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    DataError
        If it is not whole.
    """
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        lacking = [key for key in STATE if key not in state]
        if lacking:
            raise KeyError(f"{_STATE} has no {', '.join(lacking)}")
        weights = {name: load_file(path / file) if (path / file).exists() else {} for name, file in _WEIGHTS.items()}
        memory = torch.load(path / _MEMORY, map_location="cpu", weights_only=True)
        return Checkpoint(weights["policy"], weights["target"], memory, state)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError, EOFError, UnpicklingError) as error:
        raise DataError(f"checkpoint {str(path)!r} cannot be read: {first_line(error)}; {REMOVE}") from error


def ensure_same(path: Path, state: Mapping[str, Any], config: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Refuse a checkpoint of another configuration, model or set of prompts, and say what differs.

    Raises
    ------
    InputError
        Naming every field that differs.
    """
    theirs = state["config"] | {"processes": len(state["generators"])}
    differing = [key for key in config if key in theirs and theirs[key] != config[key] and key in (*state["fixed"], "processes")]
    if differing:
        said = ", ".join(f"{key} = {theirs[key]} there, {config[key]} here" for key in differing)
        raise InputError(f"checkpoint {str(path)!r} is of another configuration: {said}; take another folder, or the same values")
    for what, digest in digests.items():
        if state["digests"].get(what) != digest:
            raise InputError(f"checkpoint {str(path)!r} is of another {what}: take another folder, or the same {what}")


def warn_of_change(path: Path, state: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Say what differs that may, and makes curves of two parts."""
    for what, found in digests.items():
        if state["digests"].get(what, found) != found:
            message = f"{what}: not as they were for checkpoint {str(path)!r}, so what is measured from here on is something else"
            warnings.warn(message, NlhfsimWarning, stacklevel=4)


def digest(value: Any) -> str:
    """Return a hash of anything that JSON takes."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def ensure_fits(target: Mapping[str, Tensor], source: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights whose names or shapes are not those that are there.

    Raises
    ------
    DataError
        If they are not.
    """
    wrong = set(target) ^ set(source) or {name for name in target if target[name].shape != source[name].shape}
    if wrong:
        raise DataError(
            f"checkpoint {str(path)!r} does not hold the model's weights: {min(wrong)!r} is missing or other; {REMOVE}"
        )


def copy_to(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Copy weights by name into those that are there."""
    with torch.no_grad():
        for name, weight in target.items():
            weight.copy_(source[name])


def _flush(folder: Path) -> None:
    """Make sure that the files are on the disk before the folder gets its name."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
