"""The device: which one, what it is called, its clock, and its memory."""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def device() -> torch.device:
    """Return the GPU, or the processor where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Return seconds of the wall, after everything that the GPU was given is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Return a result, and the seconds until it was there."""
    begin = now()
    result = call()
    return result, now() - begin


def free() -> None:
    """Give back memory that nobody uses."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    forget_peak()


def forget_peak() -> None:
    """Let `peak` begin here."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> float | None:
    """Return the largest number of GB allocated on the GPU since `free` or `forget_peak`; None where there is none."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None


def described() -> dict[str, Any]:
    """Return what the GPU is, with its driver."""
    if not torch.cuda.is_available():
        return {"gpu": None, "cuda": torch.version.cuda}
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "memory_gb": properties.total_memory / 1e9,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "compute": ".".join(map(str, torch.cuda.get_device_capability())),
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().partition("\n")[0]


def ceiling(where: torch.device, size: int, dtype: torch.dtype, repeats: int = 5, products: int = 8) -> float:
    """Return the floating-point operations a second of a matrix product, the best of several times `products` of them."""
    left, right = (torch.randn(size, size, device=where, dtype=dtype) for _ in range(2))
    out = left @ right  # what comes first sets libraries up

    def work() -> None:
        for _ in range(products):
            torch.mm(left, right, out=out)

    work()
    return 2 * size**3 * products / min(_elapsed(work, where) for _ in range(repeats))


def _elapsed(work: Callable[[], None], where: torch.device) -> float:
    """Return seconds of some work, by the GPU's own clock where there is one."""
    if where.type != "cuda":
        return timed(work)[1]
    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000
