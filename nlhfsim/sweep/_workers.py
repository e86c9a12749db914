"""Handing tasks to workers: processes of this machine, or those of a Dask cluster; by the same loop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from typing import Any

from nlhfsim import __version__
from nlhfsim.errors import DataError, InputError, MissingExtraError, ensure_integer
from nlhfsim.sweep._design import Task
from nlhfsim.sweep._work import failure, perform

_ALONE, _GIVEN_UP = 2, 4
"""From so many deaths of its worker on, a run is tried with no other beside it; at so many it has failed."""
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB", "NUMBA")}
"""So that workers do not fight for processors, and linear algebra has the same bits whatever their number."""
_PATIENCE = 10.0
"""Seconds to wait for a scheduler to answer."""
_WATCH = 0.5
"""Seconds between looks at whether the parent lives."""

Take = Callable[[Task, dict[str, Any]], None]


@contextmanager
def crew(workers: Any, client: Any) -> Iterator[Callable[[Sequence[Task], Take], None]]:
    """Give what does tasks and hands each record on as it comes: processes, by default one a processor, or a Dask cluster."""
    if workers is not None and client is not None:
        raise InputError("give workers, the number of processes, or client, a Dask cluster, not both")
    if client is None:
        count = _processors() if workers is None else ensure_integer("workers", workers, 1, 1024)
        yield lambda tasks, take: _in_processes(tasks, count, take)
        return
    with _cluster(client) as connected:
        yield lambda tasks, take: _on_cluster(tasks, connected, take)


def _processors() -> int:
    import joblib

    return int(joblib.cpu_count())


def _in_processes(tasks: Sequence[Task], workers: int, take: Take) -> None:
    """Do tasks in processes and hand each record on as it comes.

    A worker that dies (killed, or out of memory) breaks the pool. Then there is a new one, and what was in flight is done again.
    """
    waiting, alone = deque(tasks), deque[Task]()
    deaths: dict[str, int] = {}
    while waiting or alone:
        if alone:
            some, width = deque([alone.popleft()]), 1
        else:
            some, width = waiting, min(workers, len(waiting))
        with _processes(width) as pool:
            lost = _drain(pool, some, 1 if width == 1 else 2 * width, take)
        for task in lost:
            deaths[task.id] = deaths.get(task.id, 0) + 1
            if deaths[task.id] >= _GIVEN_UP:
                words = f"its process died {_GIVEN_UP} times, the last time with no other beside it: killed, or out of memory"
                take(task, failure(words) | {"id": task.id, "seconds": 0.0})
            elif deaths[task.id] >= _ALONE:
                alone.append(task)
            else:
                waiting.appendleft(task)


def _on_cluster(tasks: Sequence[Task], client: Any, take: Take) -> None:
    """Do tasks on the workers of a Dask client and hand each record on as it comes; Dask itself tries again where one dies."""
    threads = sum(client.nthreads().values()) or 1
    with client.get_executor(pure=False) as pool:
        try:
            _drain(pool, deque(tasks), 2 * threads, take)
        except BaseException:
            pool.shutdown(wait=False)
            raise


def _drain(pool: Executor, waiting: deque[Task], width: int, take: Take) -> list[Task]:
    """Do tasks, at most `width` in flight, and return those that were so when the pool broke."""
    flying: dict[Future[dict[str, Any]], Task] = {}
    while waiting or flying:
        while waiting and len(flying) < width:
            try:
                flying[pool.submit(perform, waiting[0])] = waiting[0]
            except BrokenExecutor:
                return [*flying.values(), waiting.popleft()]
            waiting.popleft()
        finished, _ = wait(flying, return_when=FIRST_COMPLETED)
        broken = []
        for future in finished:
            task = flying.pop(future)
            try:
                record = future.result()
            except BrokenExecutor:
                broken.append(task)
                continue
            except CancelledError:
                raise DataError("the Dask cluster has gone") from None
            except Exception as error:  # what cannot be sent to a worker, or one that Dask gave up
                record = failure(f"{type(error).__name__}: {error}") | {"id": task.id, "seconds": 0.0}
            take(task, record)
        if broken:
            return broken + list(flying.values())
    return []


@contextmanager
def _processes(count: int) -> Iterator[Executor]:
    """Run a pool of processes, which end with this one however it ends."""
    from joblib.externals.loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(count, initializer=_begin, initargs=(os.getpid(),), env=_ONE_THREAD)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, kill_workers=True)
        raise
    pool.shutdown(wait=True)


def _begin(parent: int) -> None:
    """Begin a worker: an interrupt is the parent's affair, and where the parent has died there is nothing left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH)
    os._exit(1)


@contextmanager
def _cluster(client: Any) -> Iterator[Any]:
    """Give the client of a Dask cluster, connected to here if it is an address."""
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtraError("a Dask cluster needs dask: pip install 'nlhfsim[dask]'") from None
    if isinstance(client, Client):
        _ensure_same_version(client)
        yield client
        return
    if not isinstance(client, str):
        raise InputError(f"client = {client!r} must be a dask.distributed.Client, or the address of a scheduler")
    try:
        connected: Any = Client(client, timeout=_PATIENCE)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"no Dask scheduler answers at {client!r} ({error})") from None
    with connected:
        _ensure_same_version(connected)
        yield connected


def _ensure_same_version(client: Any) -> None:
    try:
        versions = client.run(_version)
    except Exception as error:
        raise DataError(f"the Dask workers cannot run nlhfsim, which must be installed there too ({error})") from None
    for worker, version in versions.items():
        if version != __version__:
            raise DataError(f"the Dask worker {worker} has nlhfsim {version}, must have {__version__} as here")


def _version() -> str:
    return __version__
