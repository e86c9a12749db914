"""What the primitives mean in compiled code: the functions of `simplex`, `payoffs` and `in_place`, told to Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from nlhfsim.games.payoffs import DensePayoff, LowRankPayoff, advantage, lifted
from nlhfsim.games.votes import SampledPayoff, estimate_to
from nlhfsim.in_place import advantage_to, ascend_to, exp_to, log_softmax_to, mirror_to, mixture_to, prox_to
from nlhfsim.kernels import many, one, rows
from nlhfsim.simplex import exp, expect, log_softmax


def _loops(kind: Any) -> Any:
    """Return the module of loops for arrays of a type: one policy, or many runs by the order of memory."""
    if kind.ndim == 1:
        return one
    return many if kind.layout == "F" else rows


@overload(exp_to, strict=False)
def _exp_to(out: Any, log_values: Any) -> Any:
    chosen = _loops(out).exp_all
    return lambda out, log_values: chosen(out, log_values)


@overload(log_softmax_to, strict=False)
def _log_softmax_to(out: Any, logits: Any) -> Any:
    chosen = _loops(out).log_softmax
    return lambda out, logits: chosen(out, logits)


@overload(advantage_to, strict=False)
def _advantage_to(out: Any, payoff: Any, policy: Any) -> Any:
    form = getattr(payoff, "instance_class", None)
    if form is SampledPayoff:
        return lambda out, payoff, policy: estimate_to(out, payoff, policy)
    if form is DensePayoff:
        chosen = _loops(out).dense
        return lambda out, payoff, policy: chosen(out, payoff.matrix, policy)
    if form is LowRankPayoff:
        chosen = one.low_rank if out.ndim == 1 else many.low_rank
        return lambda out, payoff, policy: chosen(out, payoff.left, payoff.right, policy)
    return None


@overload(mirror_to, strict=False)
def _mirror_to(out: Any, logits: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> Any:
    chosen = _loops(out).mirror
    return lambda out, logits, gain, step_size, beta, log_reference: chosen(out, logits, gain, step_size, beta, log_reference)


@overload(prox_to, strict=False)
def _prox_to(out: Any, logits: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> Any:
    chosen = _loops(out).prox
    return lambda out, logits, gain, step_size, beta, log_reference: chosen(out, logits, gain, step_size, beta, log_reference)


@overload(mixture_to, strict=False)
def _mixture_to(out: Any, logits: Any, step_size: Any, beta: Any, log_reference: Any) -> Any:
    chosen = _loops(out).mixture
    return lambda out, logits, step_size, beta, log_reference: chosen(out, logits, step_size, beta, log_reference)


@overload(ascend_to, strict=False)
def _ascend_to(logits: Any, policy: Any, gain: Any, step_size: Any, beta: Any, log_reference: Any) -> Any:
    chosen = _loops(logits).ascend
    return lambda logits, policy, gain, step_size, beta, log_reference: chosen(
        logits, policy, gain, step_size, beta, log_reference
    )


@overload(exp, strict=False)
def _exp(log_values: Any) -> Any:
    def compiled(log_values):  # type: ignore[no-untyped-def]
        out = np.empty_like(log_values)
        exp_to(out, log_values)
        return out

    return compiled


@overload(log_softmax, strict=False)
def _log_softmax(logits: Any) -> Any:
    def compiled(logits):  # type: ignore[no-untyped-def]
        out = np.empty_like(logits)
        log_softmax_to(out, logits)
        return out

    return compiled


@overload(expect, strict=False)
def _expect(policy: Any, values: Any) -> Any:
    def together(policy, values):  # type: ignore[no-untyped-def]
        out = np.empty((policy.shape[0], 1))
        for run in range(policy.shape[0]):
            out[run, 0] = one.dot(policy[run], values[run])
        return out

    return (lambda policy, values: one.dot(policy, values)) if policy.ndim == 1 else together


@overload(advantage, strict=False)
def _advantage(payoff: Any, policy: Any) -> Any:
    def compiled(payoff, policy):  # type: ignore[no-untyped-def]
        out = np.empty_like(policy)
        advantage_to(out, payoff, policy)
        return out

    return compiled


@overload(lifted, strict=False)
def _lifted(payoff: Any, gradient: Any) -> Any:
    return lambda payoff, gradient: gradient


def all_finite(logits: Any) -> bool:
    """Return whether no entry is NaN or infinite, logits of shape ``(n,)`` or ``(runs, n)``."""
    return bool(np.isfinite(logits).all())


@overload(all_finite, strict=False)
def _all_finite(logits: Any) -> Any:
    chosen = one.finite if logits.ndim == 1 else _loops(logits).all_finite
    return lambda logits: chosen(logits)


def copy_to(out: Any, values: Any) -> None:
    """Copy an array of shape ``(n,)`` or ``(runs, n)``; Numba's own assignment compiles the text of its error messages too."""
    out[...] = values


@overload(copy_to, strict=False)
def _copy_to(out: Any, values: Any) -> Any:
    chosen = one.copy if out.ndim == 1 else _loops(values).copy
    return lambda out, values: chosen(out, values)


def add_to(sums: Any, logits: Any) -> None:
    """Add θ to the sums, both of shape ``(n,)``."""
    for i in range(len(sums)):
        sums[i] += logits[i]


def add_policy_to(sums: Any, logits: Any) -> None:
    """Add softmax(θ) to the sums, both of shape ``(n,)``."""
    policy = exp(log_softmax(logits))
    for i in range(len(sums)):
        sums[i] += policy[i]


def mean_to(out: Any, sums: Any, count: int) -> None:
    """Write the mean of `count` terms to `out`, shape ``(n,)``."""
    for i in range(len(out)):
        out[i] = sums[i] / count


def log_mean_to(out: Any, sums: Any, count: int) -> None:
    """Write the log of the mean of `count` terms to `out`, shape ``(n,)``."""
    for i in range(len(out)):
        out[i] = np.log(sums[i] / count)


for _helper in (add_to, add_policy_to, mean_to, log_mean_to):
    overload(_helper, strict=False)(lambda *arguments, _helper=_helper: _helper)
