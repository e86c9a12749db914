"""One self-contained page from a folder of results: tables that sort, figures, claims, how to repeat it."""

from __future__ import annotations

from pathlib import Path

from nlhfsim.errors import DataError
from nlhfsim.files import ensure_path, write_whole
from nlhfsim.report._folder import Folder
from nlhfsim.report._page import render

__all__ = ["write_report"]


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write an HTML page about the result in a folder, and return its path.

    The page needs no other file and no network. It has what the folder has: equilibrium, comparisons, runs, sweeps, training,
    claims with their mathematics and worst games, the kill matrix, figures, and how the result was made.

    Parameters
    ----------
    folder : path
        What ``nlhfsim demo | solve | run | compare | experiment | verify | sweep | llm train`` wrote with ``--out``, or a
        report, sweep or training run saved from Python.
    out : path, optional
        The file. Default: ``report.html`` in the folder.

    Raises
    ------
    InputError
        If `folder` or `out` is no path.
    DataError
        If there is no result in the folder, or the page cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import nlhfsim as nl
    >>> from nlhfsim.report import write_report
    >>> folder = nl.verify(["constant-sum", "log-ratio-span"], 20).save(tempfile.mkdtemp())
    >>> write_report(folder).name
    'report.html'
    """
    found = Folder.read(ensure_path("folder", folder))
    try:
        page = render(found)
    except OSError as error:
        raise DataError(f"{error.filename!r} cannot be read: {error.strerror or error}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DataError(f"{str(found.path / 'result.json')!r} is not complete: {error}") from error
    target = found.path / "report.html" if out is None else ensure_path("out", out)
    if target.is_dir():
        raise DataError(f"out {str(out)!r} is a folder, must be the name of a file")
    write_whole(target, page.encode("utf-8", "replace"))
    return target
