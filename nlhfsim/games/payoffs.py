"""Payoff forms: how a game stores its advantages ``A = P - 1/2`` and multiplies them by a policy.

A form is a NamedTuple of arrays, so that the compiled loop of `simulate` takes it as it is. A new form needs a class here, its
branch in each function below, and the compiled product in `nlhfsim.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, SizeError, ensure_array, ensure_integer, position

LARGEST_DENSE = 20_000
"""Up to so many actions a form that stores no matrix may be written out as one (3.2 GB)."""
_ROUNDING = 1e-12
_EXACT_CHECK = 2e11
"""Multiplications that finding the largest entry of a low-rank form may take (some ten seconds)."""
_BLOCK = 2**22


class DensePayoff(NamedTuple):
    """The skew-symmetric matrix of advantages itself, shape ``(n, n)``, entries in [-1/2, 1/2]."""

    matrix: Array


class LowRankPayoff(NamedTuple):
    """``A = U Vᵀ - V Uᵀ`` by its factors, shape ``(n, r)`` each; the product with a policy costs O(nr).

    Attributes
    ----------
    left, right : numpy.ndarray
        U and V.
    """

    left: Array
    right: Array


class PairwisePayoff(NamedTuple):
    """``P[i, j]`` as a function of the pair, evaluated when it is asked for.

    Attributes
    ----------
    function : callable
        ``function(i, j)``: for integer arrays of one shape the probabilities that i is preferred to j, of that shape.
    size : int
        Number of actions.
    """

    function: Any
    size: int


Payoff = DensePayoff | LowRankPayoff | PairwisePayoff
FORMS = (DensePayoff, LowRankPayoff, PairwisePayoff)


class Checked(NamedTuple):
    """Payoff forms that are known to be valid, one a context: `PreferenceGame` takes them without checking again."""

    payoffs: list[Payoff]
    batched: bool
    log_reference: Array | None = None
    """log ρ to the bit, shape ``(contexts, n)``; None: from the argument."""


class Context(NamedTuple):
    """One context of a game in the form that a method's step sees.

    Attributes
    ----------
    payoff : Payoff
        The advantages A: a payoff form, or what stands for one during a run, such as `nlhfsim.games.votes.SampledPayoff`.
    log_reference : numpy.ndarray
        log ρ, shape ``(n,)``.
    beta : float
        Regularization β ≥ 0.
    """

    payoff: Any
    log_reference: Array
    beta: float


def advantage(payoff: Any, policy: Array) -> Array:
    """Return Aπ for policies in probability space, shape ``(..., n)``: how much each action gains against π.

    Raises
    ------
    SizeError
        If the form is a function of the pair and n is above `LARGEST_DENSE`: a product evaluates all n² pairs.
    """
    if not isinstance(payoff, FORMS):  # a form that is made for a run, not for a game, knows its product itself
        return np.asarray(payoff.product(policy))
    # With more than two axes NumPy would multiply block by block.
    rows = policy if policy.ndim <= 2 else policy.reshape(-1, policy.shape[-1])
    if isinstance(payoff, LowRankPayoff):
        gains = (rows @ payoff.right) @ payoff.left.T - (rows @ payoff.left) @ payoff.right.T
    elif isinstance(payoff, PairwisePayoff):
        _ensure_small(payoff, "a product with a policy")
        gains = np.concatenate([rows @ block.T for block in _rows(payoff)], axis=-1)
    else:
        gains = rows @ payoff.matrix.T
    return np.asarray(gains.reshape(policy.shape))


def lifted(payoff: Any, gradient: Array) -> Array:
    """Return how the logits move when the parameters follow a gradient in the logits, shape ``(..., n)``.

    Tabular parameters are the logits, so it is the gradient itself; a form made for a run with other parameters knows better.
    """
    return np.asarray(payoff.lifted(gradient)) if hasattr(payoff, "lifted") else gradient


def dense(payoff: Payoff) -> Array:
    """Return the matrix of advantages, shape ``(n, n)``.

    Raises
    ------
    SizeError
        If the form stores no matrix and n is above `LARGEST_DENSE`.
    """
    if isinstance(payoff, DensePayoff):
        return payoff.matrix
    _ensure_small(payoff, "its matrix")
    if isinstance(payoff, LowRankPayoff):
        product = payoff.left @ payoff.right.T
        return np.asarray(np.clip(product - product.T, -0.5, 0.5))
    return _skew(np.concatenate(list(_rows(payoff))), np.arange(payoff.size))


def n_actions(payoff: Payoff) -> int:
    """Return the number of actions."""
    if isinstance(payoff, PairwisePayoff):
        return payoff.size
    return int(payoff[0].shape[0])


def restricted(payoff: Payoff, actions: npt.NDArray[np.int64]) -> Payoff:
    """Return the same form on some of the actions."""
    if isinstance(payoff, LowRankPayoff):
        return LowRankPayoff(*(frozen_array(factor[actions]) for factor in payoff))
    if isinstance(payoff, PairwisePayoff):
        i, j = np.meshgrid(actions, actions, indexing="ij")
        return DensePayoff(frozen_array(_skew(np.asarray(payoff.function(i, j), dtype=np.float64) - 0.5, actions)))
    return DensePayoff(frozen_array(payoff.matrix[np.ix_(actions, actions)]))


def content(payoff: Payoff) -> list[bytes]:
    """Return bytes that tell forms apart, for a fingerprint; a function is known by its values at 4,096 pairs."""
    if isinstance(payoff, PairwisePayoff):
        return [type(payoff).__name__.encode(), str(payoff.size).encode(), np.asarray(_sampled(payoff, 4096)[2]).tobytes()]
    return [type(payoff).__name__.encode(), *(np.ascontiguousarray(array).tobytes() for array in payoff)]


def frozen(payoff: Any) -> Payoff:
    """Return a form that was validated before with its arrays not writable."""
    kind: Any = type(payoff)
    return kind(*(frozen_array(part) if isinstance(part, np.ndarray) else part for part in payoff))  # type: ignore[no-any-return]


def validated(payoff: Any) -> Payoff:
    """Return a payoff form given as such with its arrays checked and not writable.

    Raises
    ------
    InputError
        If it is no payoff form, its arrays are not float64 and C-contiguous of fitting shapes, or it is not skew-symmetric with
        entries in [-1/2, 1/2].
    """
    if isinstance(payoff, DensePayoff):
        return _validated_dense(payoff)
    if isinstance(payoff, LowRankPayoff):
        return _validated_low_rank(payoff)
    if isinstance(payoff, PairwisePayoff):
        return _validated_pairwise(payoff)
    raise InputError(f"preferences holds {payoff!r}, must hold payoff forms only")


@np.errstate(over="ignore", invalid="ignore")
def largest_entry(left: Array, right: Array) -> tuple[float, tuple[int, int] | None]:
    """Return the largest entry of ``|U Vᵀ - V Uᵀ|`` and where it is, without building the matrix.

    Where that would take over 2·10^11 multiplications, return an upper bound, ``max_i |u_i|² + |v_i|²`` (or the same with U and V
    scaled to the same largest row), and None.
    """
    if left.size * len(left) > _EXACT_CHECK:
        return _norm_bound(left, right), None
    first, second = np.hstack([left, -right]), np.hstack([right, left]).T.copy()
    best, where = 0.0, (0, 0)
    n, height, width = len(left), 1024, 1024
    for i in range(0, n, height):
        for j in range(i, n, width):  # below the diagonal the entries are the same, mirrored
            tile = first[i : i + height] @ second[:, j : j + width]
            largest = max(float(tile.max()), -float(tile.min()))
            if largest > best:
                row, column = np.unravel_index(int(np.abs(tile).argmax()), tile.shape)
                best, where = largest, (i + int(row), j + int(column))
    return best, where


@np.errstate(over="ignore", invalid="ignore")
def _norm_bound(left: Array, right: Array) -> float:
    squares = np.einsum("ij,ij->i", left, left), np.einsum("ij,ij->i", right, right)
    largest = [float(np.sqrt(square.max(initial=0.0))) for square in squares]
    if min(largest) == 0:
        return 0.0
    # A is unchanged when U is divided and V multiplied by a number; |A_ij| ≤ |(u_i, v_i)| |(u_j, v_j)| by Cauchy and Schwarz.
    ratios = (1.0, largest[1] / largest[0])
    return min(float((squares[0] * ratio + squares[1] / ratio).max()) for ratio in ratios)


def _validated_dense(payoff: DensePayoff) -> DensePayoff:
    matrix: Any = payoff.matrix
    if not isinstance(matrix, np.ndarray) or matrix.dtype != np.float64 or matrix.ndim != 2 or not matrix.flags.c_contiguous:
        raise InputError("a DensePayoff must hold a C-contiguous float64 matrix; give preferences as an array instead")
    if matrix.shape[0] != matrix.shape[1] or not (matrix == -matrix.T).all() or not (np.abs(matrix) <= 0.5).all():
        raise InputError("a DensePayoff must be skew-symmetric with entries in [-1/2, 1/2]; give preferences as an array instead")
    return DensePayoff(frozen_array(matrix))


def _validated_low_rank(payoff: LowRankPayoff) -> LowRankPayoff:
    left, right = ensure_array("U", payoff.left), ensure_array("V", payoff.right)
    if left.ndim != 2 or 0 in left.shape:
        raise InputError(f"U has shape {left.shape}, must be (n, rank)")
    if right.shape != left.shape:
        raise InputError(f"V has shape {right.shape}, must be that of U, {left.shape}")
    largest, where = (0.5, None) if _norm_bound(left, right) <= 0.5 + _ROUNDING else largest_entry(left, right)
    if not np.isfinite(largest):
        raise InputError(
            f"U Vᵀ - V Uᵀ overflows: the largest entries are {np.abs(left).max():g} in U and {np.abs(right).max():g} in V"
        )
    if largest > 0.5 + _ROUNDING:
        scale = f"scale U or V down, by {0.5 / largest:.3g} at least"
        if where is None:
            raise InputError(
                f"U Vᵀ - V Uᵀ of {len(left)} actions is too large to check every entry, and its rows only bound the entries by "
                f"{largest:g}, must be at most 0.5: {scale}"
            )
        i, j = where
        entry = float(left[i] @ right[j] - right[i] @ left[j])
        raise InputError(f"(U Vᵀ - V Uᵀ){position(where)} = {entry:g} must lie between -0.5 and 0.5: {scale}")
    return LowRankPayoff(frozen_array(left), frozen_array(right))


def _validated_pairwise(payoff: PairwisePayoff) -> PairwisePayoff:
    if not callable(payoff.function):
        raise InputError(f"function = {payoff.function!r} must be a function of two integer arrays, (i, j) -> P[i, j]")
    size = ensure_integer("size", payoff.size, 1)
    i, j, forward, backward = _sampled(payoff._replace(size=size), 4096)
    for values in (forward, backward):
        if values.shape != i.shape:
            raise InputError(
                f"function returns shape {values.shape} for indices of shape {i.shape}, must return one value a pair"
            )
    _check_pairs(forward, backward, lambda k: (i[k], j[k]))
    return PairwisePayoff(payoff.function, size)


def _check_pairs(forward: Array, backward: Array, pair: Callable[[int], tuple[int, int]]) -> None:
    """Refuse values P[i, j] and P[j, i] of a function that are not probabilities adding up to 1; `pair` names the k-th."""
    bad = np.flatnonzero(~((forward >= -1e-8) & (forward <= 1 + 1e-8)))
    if len(bad):
        i, j = pair(int(bad[0]))
        raise InputError(f"function({i}, {j}) = {forward.flat[bad[0]]:g} must be a probability")
    off = np.flatnonzero(~(np.abs(forward + backward - 1) <= 1e-8))
    if len(off):
        i, j = pair(int(off[0]))
        total = forward.flat[off[0]] + backward.flat[off[0]]
        raise InputError(f"function({i}, {j}) + function({j}, {i}) = {total:.10g}, must be 1 (on the diagonal 1/2 + 1/2)")


def _skew(values: Array, actions: npt.NDArray[np.int64]) -> Array:
    """Return the matrix of advantages between some actions from the values of a function, checked and made exact."""

    def pair(k: int) -> tuple[int, int]:
        i, j = divmod(k, len(actions))
        return int(actions[i]), int(actions[j])

    _check_pairs(values + 0.5, values.T + 0.5, pair)
    return np.asarray(np.clip((values - values.T) / 2, -0.5, 0.5))


def _sampled(payoff: PairwisePayoff, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array, Array]:
    """Return pairs (i, j), always the same for a size, with P[i, j] and P[j, i]; all of them where there are no more."""
    n = payoff.size
    if n * n <= count:
        i, j = (index.ravel() for index in np.indices((n, n)))
    else:
        i, j = np.random.default_rng(n).integers(0, n, (2, count))
        i[:8] = j[:8]
    try:
        forward, backward = (np.asarray(payoff.function(*pair)) for pair in ((i, j), (j, i)))
    except Exception as error:
        raise InputError(f"function must take two integer arrays (i, j) and return probabilities: {error!r}") from error
    if not all(values.dtype.kind in "fiub" for values in (forward, backward)):
        raise InputError(f"function returns {forward.dtype} values, must return real numbers")
    return i, j, forward.astype(np.float64), backward.astype(np.float64)


def _rows(payoff: PairwisePayoff) -> Any:
    """Yield blocks of rows of the matrix of advantages."""
    columns = np.arange(payoff.size)
    height = max(1, _BLOCK // payoff.size)
    for begin in range(0, payoff.size, height):
        i, j = np.meshgrid(columns[begin : begin + height], columns, indexing="ij")
        yield np.asarray(payoff.function(i, j), dtype=np.float64) - 0.5


def _ensure_small(payoff: Payoff, what: str) -> None:
    n = n_actions(payoff)
    if n > LARGEST_DENSE:
        raise SizeError(
            f"{what} is out of reach: with n = {n} actions it takes all {n**2:.2g} pairs, must be at most {LARGEST_DENSE} actions"
        )


def frozen_array(array: Array) -> Array:
    """Return the array itself if it is C-contiguous and not writable, else such a copy."""
    if array.flags.c_contiguous and not array.flags.writeable:
        return array
    copy = np.array(array, order="C")
    copy.setflags(write=False)
    return copy
