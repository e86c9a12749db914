"""What a training run writes while it goes on, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlhfsim.errors import DataError
from nlhfsim.files import jsonable, write_whole
from nlhfsim.training_run import TrainingRun, load_run, read_lines

__all__ = ["MetricsWriter", "TrainingRun", "load_run"]


class MetricsWriter:
    """Appends records to a file, a JSON object a line, each there at once for whoever reads along.

    Parameters
    ----------
    path : path
        The file. It is made by the first record.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from nlhfsim.llm.record import MetricsWriter
    >>> path = pathlib.Path(tempfile.mkdtemp(), "metrics.jsonl")
    >>> writer = MetricsWriter(path)
    >>> for step in range(1, 4):
    ...     writer.write({"kind": "step", "step": step, "loss": float("nan")})
    >>> writer.truncate_after(1)
    >>> path.read_text()
    '{"kind": "step", "step": 1, "loss": null}\\n'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; numbers that are not finite become null.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        line = json.dumps(jsonable(dict(record)), ensure_ascii=False, allow_nan=False)
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise DataError(f"{str(self.path)!r} cannot be written: {error.strerror or error}") from None

    def truncate_after(self, step: int) -> None:
        """Drop the records of later steps, and a last line that is half-written: a run that goes on writes them again.

        Raises
        ------
        DataError
            If the file cannot be read or written.
        """
        if not self.path.exists():
            return
        kept = [json.dumps(entry, ensure_ascii=False) for _, entry in read_lines(self.path) if entry["step"] <= step]
        write_whole(self.path, "".join(line + "\n" for line in kept).encode("utf-8"))
