"""What comparisons of single pairs mean in compiled code, and preference functions in the form that compiled code calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numba.experimental.function_type  # noqa: F401  (teaches Numba to take an object with an address for a function)
import numpy as np
from numba import cfunc, config, types
from numba.core.types import WrapperAddressProtocol
from numba.extending import overload

from nlhfsim import pairs, sum_tree
from nlhfsim.games import votes
from nlhfsim.games.matrix_free import Representation
from nlhfsim.games.payoffs import DensePayoff, LowRankPayoff, PairwisePayoff
from nlhfsim.kernels import one

_INLINED: Any = {"forceinline": True, "error_model": "numpy", "nogil": True}
_SIGNATURE = types.float64(types.int64, types.int64)

for _helper in (
    pairs.averaged_times,
    pairs.bring_up,
    pairs.draw_pair,
    pairs.exponent_of,
    pairs.fill_tree,
    pairs.fill_with,
    pairs.lag_now,
    pairs.record_to,
    sum_tree.add_up,
    sum_tree.add_up_above,
    sum_tree.descend,
    sum_tree.empty_tree,
    sum_tree.group_sum,
    sum_tree.total,
    votes.cast,
    votes.draw,
    votes.draw_candidate,
    votes.estimate_to,
    votes.vote,
):
    overload(_helper, strict=False, jit_options=_INLINED)(lambda *arguments, _helper=_helper: _helper)


@overload(pairs.exp_of, strict=False, jit_options=_INLINED)
def _exp_of(exponent: Any) -> Any:
    return lambda exponent: one.exp(exponent)


@overload(votes.pair_advantage, strict=False, jit_options=_INLINED)
def _pair_advantage(payoff: Any, i: Any, j: Any) -> Any:
    def low_rank(payoff, i, j):  # type: ignore[no-untyped-def]
        advantage = 0.0
        for k in range(payoff.left.shape[1]):
            advantage += payoff.left[i, k] * payoff.right[j, k] - payoff.right[i, k] * payoff.left[j, k]
        return advantage

    def representation(payoff, i, j):  # type: ignore[no-untyped-def]
        rotated, vectors = payoff.function.rotated, payoff.function.vectors
        score = 0.0
        for k in range(vectors.shape[1]):
            score += rotated[i, k] * vectors[j, k]
        return np.tanh(payoff.function.scale * score / 2) / 2

    form = getattr(payoff, "instance_class", None)
    if form is DensePayoff:
        return lambda payoff, i, j: payoff.matrix[i, j]
    if form is LowRankPayoff:
        return low_rank
    if form is PairwisePayoff:
        known = getattr(payoff.types[0], "instance_class", None) is Representation
        return representation if known else (lambda payoff, i, j: payoff.function(i, j) - 0.5)
    return None


@overload(votes.uniform, strict=False, jit_options=_INLINED)
def _uniform(generator: Any) -> Any:
    eleven, three, shift, back, one_more = (np.uint64(k) for k in (11, 3, 24, 40, 1))

    def sfc64(generator):  # type: ignore[no-untyped-def]
        a, b, c, counter = generator[0], generator[1], generator[2], generator[3]
        word = a + b + counter
        generator[0] = b ^ (b >> eleven)
        generator[1] = c + (c << three)
        generator[2] = ((c << shift) | (c >> back)) + word
        generator[3] = counter + one_more
        return np.float64(np.int64(word >> eleven)) * 2.0**-53

    return sfc64 if isinstance(generator, types.Array) else (lambda generator: generator.random())


@overload(votes.pair_advantage_in, strict=False, jit_options=_INLINED)
def _pair_advantage_in(payoff: Any, context: Any, i: Any, j: Any) -> Any:
    if getattr(payoff, "instance_class", None) is votes.StackedPayoff:
        return lambda payoff, context, i, j: payoff.matrices[context, i, j]
    return lambda payoff, context, i, j: votes.pair_advantage(payoff, i, j)


class Callback(WrapperAddressProtocol):
    """A preference function of the user's as compiled code calls it, a pair at a time; what it raises is kept in `error`.

    Compiled by Numba, it is called directly. What it raises there is lost, so the pair is asked for again through Python.
    """

    def __init__(self, function: Callable[..., Any], compiled: bool = False) -> None:
        """Make the address; raises what Numba raises if a compiled function does not take numbers."""
        self.error: BaseException | None = None

        def call(i: int, j: int) -> float:
            try:
                return float(np.asarray(function(np.array([i]), np.array([j]))).reshape(()))
            except BaseException as error:
                self.error = error
                return float("nan")

        self._call = through_python = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64, ctypes.c_int64)(call)
        self._direct: Any = None
        if compiled:

            def direct(i, j):  # type: ignore[no-untyped-def]
                try:
                    return float(function(i, j))
                except Exception:
                    return through_python(i, j)

            self._direct = cfunc(_SIGNATURE)(direct)

    def __wrapper_address__(self) -> int:
        """Return the address of the C function."""
        address = ctypes.cast(self._call, ctypes.c_void_p).value if self._direct is None else self._direct.address
        assert address is not None
        return int(address)

    def signature(self) -> Any:
        """Return the type of the function."""
        return _SIGNATURE


def callable_payoff(payoff: Any) -> Any:
    """Return a payoff whose preference function compiled code can call.

    A function that is compiled by Numba already is called directly, if it takes numbers as well as arrays; any other through
    Python, which takes some microseconds a pair.
    """
    # With Numba's compiler off, for a debugger, compiled code is plain Python, which needs no address.
    if not isinstance(payoff, PairwisePayoff) or isinstance(payoff.function, Representation) or bool(vars(config)["DISABLE_JIT"]):
        return payoff
    if hasattr(payoff.function, "py_func"):
        try:
            return payoff._replace(function=Callback(payoff.function, compiled=True))
        except Exception as error:
            if not type(error).__module__.startswith("numba"):
                raise
    return payoff._replace(function=Callback(payoff.function))
