"""What made a result: the command, the versions that its bits may depend on, when, and on what kind of machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nlhfsim import __version__
from nlhfsim.files import write_whole

FILE = "provenance.json"
_LIBRARIES = ("numpy", "scipy", "numba")


def versions(*more: str) -> dict[str, str]:
    """Return the versions that the bits of a result may depend on: ours, Python's, those of the libraries, and of `more`."""
    libraries = {name: version(name) for name in (*_LIBRARIES, *more)}
    return {"nlhfsim": __version__, "python": platform.python_version()} | libraries


def write(folder: Path, command: str | None, *more: str, processes: int | None = None) -> None:
    """Write ``provenance.json`` to a folder: apart from the result, whose bits are the same every time.

    Versions of `more` libraries are recorded too, and how many `processes` a result was made by, if its bits depend on it.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    found: dict[str, Any] = {
        "command": command,
        **({} if processes is None else {"processes": processes}),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions("cvxpy", *more),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
    }
    write_whole(folder / FILE, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
