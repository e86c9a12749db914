"""Folders and files that results go to: known to be writable beforehand, each file whole or not there; what JSON takes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from nlhfsim.errors import DataError, InputError


def ensure_path(name: str, value: Any) -> Path:
    """Return `value` as a path.

    Raises
    ------
    InputError
        If it is neither a text nor a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} = {value!r} must be the path of a file or folder")
    return Path(value)


def ensure_folder(name: str, path: str | os.PathLike[str]) -> Path:
    """Return a folder for results, made if needed and known to be writable.

    Raises
    ------
    InputError
        If `path` is none or empty, or is there and no folder.
    DataError
        If the folder cannot be made or written to.
    """
    shown = str(path)
    folder = ensure_path(name, path)
    if not shown.strip() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{name} {shown!r} must be a folder, or the name of one to be made")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".nlhfsim-writable-{os.getpid()}"  # other processes may try at this moment
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise DataError(f"{name} {shown!r} cannot be written: {error.strerror or error}") from None
    return folder


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one move: whoever looks, also after a crash or a power failure, finds the whole new file or what was
    there before.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        _remove(partial)
        raise DataError(f"{str(path)!r} cannot be written: {error.strerror or error}") from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the disk is in trouble already, and the sentence about that is what counts
        pass


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises
    ------
    DataError
        If it cannot be read, or holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{str(path)!r} must hold one JSON object")
    return found


def jsonable(value: Any) -> Any:
    """Return `value` for JSON: arrays as lists, what does not exist or is not finite as null."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
