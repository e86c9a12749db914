"""Compiled code: the primitives of a step, and a method's step together with the loop.

Importing this package tells Numba what `exp`, `log_softmax`, `expect` and `advantage`, and their counterparts in `in_place`, mean
for one policy, shape ``(n,)``, and for many runs at once, ``(runs, n)``, so that a step written with them compiles as it stands.
Only a run imports it, so that the rest of `nlhfsim` does not wait for Numba.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from nlhfsim import loop_cache
from nlhfsim.kernels.comparisons import callable_payoff
from nlhfsim.kernels.overloads import add_policy_to, add_to, all_finite, copy_to, log_mean_to, mean_to

__all__ = [
    "add_policy_to",
    "add_to",
    "all_finite",
    "callable_payoff",
    "compilable",
    "compile_loop",
    "compile_whole",
    "copy_to",
    "log_mean_to",
    "mean_to",
]
_IN_LOOPS = ("add_policy_to", "add_to", "all_finite", "copy_to", "log_mean_to", "mean_to")


@functools.cache
def compilable(helper: Callable[..., Any]) -> None:
    """Let compiled code call a plain Python function that a method's step uses; it is compiled with the step."""
    overload(helper, strict=False)(lambda *arguments: helper)


@functools.cache
def compile_loop(
    step: Callable[..., Any], fields: tuple[str, ...], in_place: bool = False, average: str | None = None
) -> Callable[..., Any]:
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
    average : str, optional
        ``"policies"`` or ``"parameters"``: what is averaged over time and recorded.

    Returns
    -------
    callable
        See `nlhfsim.loop_cache.LOOP`. It releases the global interpreter lock.
    """
    return _compiled(
        step, f"_{average}" if average else "", lambda cached: loop_cache.source(fields, in_place, average, cached=cached)
    )


@functools.cache
def compile_whole(function: Callable[..., Any], helpers: tuple[Callable[..., Any], ...] = ()) -> Callable[..., Any]:
    """Compile a function that is a loop already, such as `nlhfsim.pairs.run_pairs`, with plain functions that it calls."""
    for helper in helpers:
        compilable(helper)
    return _compiled(function, f"_{function.__name__}", lambda cached: loop_cache.WHOLE.replace("CACHE", str(cached)))


def _compiled(step: Callable[..., Any], name: str, source: Callable[[bool], str]) -> Callable[..., Any]:
    """Return the loop with this source, through the cache on disk where there is one."""
    cached = loop_cache.load(step, name, source(True))
    if cached is not None:
        return cached
    names: dict[str, Any] = {"njit": njit, "np": np, "plain_step": step} | {name: globals()[name] for name in _IN_LOOPS}
    exec(source(False), names)
    return names["loop"]  # type: ignore[no-any-return]
