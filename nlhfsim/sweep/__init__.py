"""Sweeps: many runs from one configuration, in processes or on a Dask cluster, which survive being killed."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from nlhfsim.errors import DataError
from nlhfsim.files import write_whole
from nlhfsim.sweep._design import Task, design_of
from nlhfsim.sweep._result import Sweep
from nlhfsim.sweep._store import Store, ensure_extra, locked
from nlhfsim.sweep._workers import crew

__all__ = ["Sweep", "sweep"]

_LOGGER = logging.getLogger(__name__)


def sweep(config: Any, out: Any, *, workers: int | None = None, client: Any = None, resume: bool = True) -> Sweep:
    """Do all runs that a configuration describes, each once, and keep them in a folder.

    Every finished run is a file of its own, written in one move. However the sweep ends (interrupted, killed, the disk full), the
    same call goes on with it, and the table at the end has the same bits as if it had never stopped.

    Parameters
    ----------
    config : path or mapping
        A ``.toml`` file, or the same tables as a dict: ``games``, ``methods``, ``run``, and, if wanted, ``title``, ``seed`` and
        ``samples``. What stands in an entry of ``games``, in one of ``methods`` or in ``run`` is fixed; under ``grid`` each value
        of a list is taken; under ``random`` values are drawn from ``uniform``, ``log-uniform``, ``integers`` or ``choice``, as
        many as the entry's ``samples`` says. ``samples`` at the top: so many points drawn from the design as a whole. See
        ``docs/how-to/sweeps.md``.
    out : path
        The folder.
    workers : int, optional
        Processes. Default: one a processor.
    client : dask.distributed.Client or str, optional
        A Dask cluster to run on instead, or the address of its scheduler. Needs the ``dask`` extra; files that games are read
        from must be there for its workers too.
    resume : bool
        False: refuse a folder that holds a sweep already.

    Returns
    -------
    Sweep
        ``.path``, ``.rows``, ``.to_frame()``, ``.curves()``, ``.best()``. A run that raised is there with the status ``"failed"``
        and its error; the next call tries it again.

    Raises
    ------
    ConfigurationError
        If the configuration has mistakes: all of them, each with its place, before anything runs.
    InputError
        If the folder is in use by another sweep, or holds one with another configuration.
    DataError
        If something cannot be read or written; what was done stays.
    MissingExtraError
        Without the ``data`` extra, which the tables are written with.
    KeyboardInterrupt
        With a message that says what is kept.

    Examples
    --------
    >>> import tempfile
    >>> import nlhfsim as nl
    >>> config = {
    ...     "games": [{"source": "rock-paper-scissors", "grid": {"beta": [0.05, 0.1]}}],
    ...     "methods": [{"name": "NashMirrorProx", "grid": {"step_size": [1, 2]}}],
    ...     "run": {"n_steps": 100, "start": "random", "seeds": 3},
    ... }
    >>> found = nl.sweep(config, out=tempfile.mkdtemp(), workers=1)
    >>> len(found.rows), found.counts["completed"], found.best()[0]["params"]
    (12, 12, {'step_size': 2.0})
    """
    ensure_extra()
    design = design_of(config)
    with crew(workers, client) as perform_all, locked(out) as folder:
        store = Store(folder, design)
        store.open(resume)
        done = {name for name, status in store.finished().items() if status != "failed"}
        progress = _Progress(store, len(done), len(design.runs))
        try:
            perform_all([run.task for run in design.runs if run.task.id not in done], progress.take)
            store.put_together()
            found = Sweep.read(folder)
            write_whole(folder / "result.json", (json.dumps(found.to_dict(), indent=1) + "\n").encode("utf-8"))
        except DataError as error:
            raise DataError(f"{error}; {progress.kept}") from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(progress.kept) from None
    return found


class _Progress:
    """Keeps the records as they come, and says how far the sweep is."""

    def __init__(self, store: Store, before: int, total: int) -> None:
        self._store, self._before, self._total = store, before, total
        self._began, self._now = time.monotonic(), 0

    @property
    def kept(self) -> str:
        """What there is, for one who has to stop."""
        folder = str(self._store.folder)
        return f"{self._store.kept} of {self._total} runs are kept in {folder!r}, and the same call goes on with the rest"

    def take(self, task: Task, record: dict[str, Any]) -> None:
        """Keep a record."""
        self._store.put(record)
        self._now += 1
        left = self._total - self._before - self._now
        seconds = (time.monotonic() - self._began) / self._now * left
        _LOGGER.info("%d of %d runs%s", self._total - left, self._total, f", {_spoken(seconds)} left" if left else "")


def _spoken(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {max(seconds, 1):.0f} s"
