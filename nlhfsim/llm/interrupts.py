"""What comes between: Ctrl-C, which lets the step under way finish, and a second run into the same folder."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from nlhfsim.errors import InputError


class Interrupts:
    """While entered, the first SIGINT or SIGTERM only sets `asked` and says so; a second one interrupts at once.

    Outside the main thread signals cannot be caught, and it does nothing.

    Parameters
    ----------
    words : str or None
        What goes to standard error at the first signal; None, as for all processes but the first: nothing.
    """

    def __init__(self, words: str | None) -> None:
        self.asked, self._words = False, words
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # A signal may come in the middle of a line that is being written, which Python refuses to break: the run is worth more.
        with suppress(RuntimeError, OSError):
            if self._words is not None:
                print(self._words, file=sys.stderr, flush=True)


@contextmanager
def only_one(folder: Path | None) -> Iterator[None]:
    """Keep a folder for one run; a process that dies gives it free.

    Raises
    ------
    InputError
        If a run is writing to it.
    """
    if folder is None:
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"out {str(folder)!r} is being written by another run: wait for it, or choose another folder") from None
    try:
        yield
    finally:
        lock.release()
