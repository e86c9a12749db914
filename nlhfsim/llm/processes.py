"""Several processes, one policy: each takes its share of a step's prompts, and their gradients are added up.

Started by ``accelerate launch`` or ``torchrun``, a process finds the others through accelerate; started alone, it is all there
is. Every process holds the whole policy. What is divided by, prompts, responses or pairs, is counted over all of them, so that
the gradient does not depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlhfsim.errors import InputError, MissingExtraError, OracleError

_PATIENCE = timedelta(days=1)
"""How long a process waits for another, which may ask a slow judge or evaluate alone; launchers notice one that dies."""


class Processes:
    """This process among those that train together.

    Parameters
    ----------
    device : str or torch.device, optional
        Where this process computes; None: its GPU, or the CPU where there is none.

    Attributes
    ----------
    rank, count : int
        Its number, and how many there are.
    device : torch.device
        Where it computes.
    failure : Exception or None
        What all of them stopped with, each at the same point.

    Raises
    ------
    InputError
        If there is no such device.
    MissingExtraError
        If there are several and accelerate, which is in ``nlhfsim[parallel]``, is not installed.
    """

    def __init__(self, device: Any = None) -> None:
        self.rank, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        self.device = _device(device)
        self.failure: Exception | None = None
        if self.count > 1:
            try:
                from accelerate import PartialState
            except ImportError:
                raise MissingExtraError("several processes need accelerate: pip install 'nlhfsim[parallel]'") from None
            state: Any = PartialState(cpu=self.device.type == "cpu", timeout=_PATIENCE)
            self.rank, self.device = int(state.process_index), torch.device(state.device)

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates and writes."""
        return self.rank == 0

    def share(self, index: npt.NDArray[np.int64]) -> list[int]:
        """Return the prompts of a step that are this process's.

        Raises
        ------
        InputError
            If there are fewer prompts than processes.
        """
        if len(index) < self.count:
            raise InputError(f"prompts_per_step = {len(index)} must be at least {self.count}, the number of processes")
        return [int(k) for k in index[self.rank :: self.count]]

    def sums(self, *values: float) -> list[float]:
        """Return numbers added up over all processes."""
        if self.count == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(found)
        return [float(value) for value in found.tolist()]

    def any(self, flag: bool) -> bool:
        """Return whether a flag is True in some process."""
        return self.sums(float(flag))[0] > 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let what fails here in one process fail in all of them, each having come to this point.

        Raises
        ------
        OracleError
            In those that it did not fail in, with what the first of the others said.
        """
        self.failure = None
        try:
            yield
        except Exception as error:
            self.failure = error
        if not self.any(self.failure is not None):
            return
        said = [words for words in self.gather(None if self.failure is None else str(self.failure)) if words is not None]
        self.failure = self.failure or OracleError(f"in another process: {said[0]}")
        raise self.failure

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors up over all processes, in place."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Return a value of every process, in order."""
        found = [value] * self.count
        if self.count > 1:
            torch.distributed.all_gather_object(found, value)
        return found


def _device(given: Any) -> torch.device:
    there = torch.cuda.is_available()
    try:
        found = torch.device("cuda" if given is None and there else "cpu" if given is None else given)
    except (RuntimeError, TypeError):
        raise InputError(f"device = {given!r} must be 'cpu', 'cuda' or a torch.device") from None
    if found.type == "meta" or (found.type == "cuda" and not there):
        raise InputError(f"device = {str(given)!r} cannot compute here: take 'cpu'" + (" or 'cuda'" if there else ""))
    return found
