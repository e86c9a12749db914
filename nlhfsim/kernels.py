"""Compiled counterparts of the primitives that a method's step calls.

Importing this module tells Numba what `log_softmax`, `expect` and `advantage` mean for one policy, shape ``(n,)``, so that a
step written with them compiles as it stands. Only `simulate` imports it, so that the rest of the package does not wait for Numba.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from nlhfsim import loop_cache
from nlhfsim.games.payoffs import DensePayoff, advantage
from nlhfsim.simplex import expect, log_softmax


@overload(log_softmax, strict=False)
def _log_softmax(logits: Any) -> Any:
    def compiled(logits):  # type: ignore[no-untyped-def]
        largest = logits[0]
        for i in range(1, logits.size):
            largest = max(largest, logits[i])
        total = 0.0
        for i in range(logits.size):
            total += np.exp(logits[i] - largest)
        log_total = np.log(total)
        out = np.empty_like(logits)
        for i in range(logits.size):
            out[i] = (logits[i] - largest) - log_total
        return out

    return compiled


@overload(expect, strict=False)
def _expect(policy: Any, values: Any) -> Any:
    def compiled(policy, values):  # type: ignore[no-untyped-def]
        total = 0.0
        for i in range(policy.size):
            total += policy[i] * values[i]
        return total

    return compiled


@overload(advantage, strict=False)
def _advantage(payoff: Any, policy: Any) -> Any:
    if getattr(payoff, "instance_class", None) is DensePayoff:

        def compiled(payoff, policy):  # type: ignore[no-untyped-def]
            return np.dot(payoff.matrix, policy)

        return compiled
    return None


@functools.cache
def compilable(helper: Callable[..., Any]) -> None:
    """Let compiled code call a plain Python function that a method's step uses; it is compiled with the step."""
    overload(helper, strict=False)(lambda *arguments: helper)


@functools.cache
def compile_loop(step: Callable[..., Any], fields: tuple[str, ...]) -> Callable[..., Any]:
    """Compile a method's step together with the loop around it.

    A step of this package is kept on disk, so that a second process does not compile it again; see `loop_cache`.

    Parameters
    ----------
    step : callable
        The method's step.
    fields : tuple of str
        The fields of its state.

    Returns
    -------
    callable
        ``loop(state, context, step_sizes, params) -> (*fields of the state, steps done)``: one step for each entry of
        `step_sizes`; it ends early after the first step whose logits are not finite. It releases the global interpreter lock.
    """
    cached = loop_cache.load(step, fields)
    if cached is not None:
        return cached
    names = {"njit": njit, "np": np, "plain_step": step}
    exec(loop_cache.source(fields, cached=False), names)
    return names["loop"]  # type: ignore[return-value]
