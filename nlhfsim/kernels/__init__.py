"""Compiled code: the primitives of a step, and a method's step together with the loop.

Importing this package tells Numba what `exp`, `log_softmax`, `expect` and `advantage`, and their counterparts in `in_place`, mean
for one policy, shape ``(n,)``, and for many runs at once, ``(runs, n)``, so that a step written with them compiles as it stands.
Only `simulate` imports it, so that the rest of `nlhfsim` does not wait for Numba.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from nlhfsim import loop_cache
from nlhfsim.kernels.overloads import all_finite, copy_to

__all__ = ["all_finite", "compilable", "compile_loop", "copy_to"]


@functools.cache
def compilable(helper: Callable[..., Any]) -> None:
    """Let compiled code call a plain Python function that a method's step uses; it is compiled with the step."""
    overload(helper, strict=False)(lambda *arguments: helper)


@functools.cache
def compile_loop(step: Callable[..., Any], fields: tuple[str, ...], in_place: bool = False) -> Callable[..., Any]:
    """Compile a method's step together with the loop around it.

    A step of this package is kept on disk, so that a second process does not compile it again; see `loop_cache`.

    Parameters
    ----------
    step : callable
        The method's step, or its kernel.
    fields : tuple of str
        The fields of its state.
    in_place : bool
        Whether `step` is a kernel, ``kernel(state, context, step_size, params, policy, gain, half)``, that overwrites the state.

    Returns
    -------
    callable
        See `nlhfsim.loop_cache.LOOP`. It releases the global interpreter lock.
    """
    cached = loop_cache.load(step, fields, in_place)
    if cached is not None:
        return cached
    names = {"njit": njit, "np": np, "all_finite": all_finite, "copy_to": copy_to, "plain_step": step}
    exec(loop_cache.source(fields, in_place, cached=False), names)
    return names["loop"]  # type: ignore[return-value]
