"""Random games and random reference policies, from a generator or a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, ensure_between, ensure_choice, ensure_integer
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import Checked, LowRankPayoff, frozen_array, largest_entry
from nlhfsim.simplex import log_softmax


def random_game(
    n: int,
    rng: np.random.Generator | int,
    law: str = "uniform",
    contexts: int | None = None,
    *,
    beta: float = 0.1,
    reference: npt.ArrayLike | None = None,
) -> PreferenceGame:
    """Random game: the preferences of the pairs are drawn from a law.

    Parameters
    ----------
    n : int
        Number of actions, at least 1.
    rng : numpy.random.Generator or int
        Source of randomness, or a seed.
    law : str
        Of P[i, j], i < j:

        - ``"uniform"``: uniform on [0, 1];
        - ``"logistic"``: the sigmoid of a standard normal;
        - ``"zero-one"``: 0 or 1, a fair coin (a random tournament);
        - ``"near-ties"``: uniform within 0.001 of 1/2;
        - ``"bradley-terry"``: ``sigmoid(s_i - s_j)`` with standard normal scores (transitive);
        - ``"low-rank"``: as `random_low_rank` with rank 1.
    contexts : int, optional
        Number of contexts, independent of one another. Default: a plain game without a context axis.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy. Default: uniform.

    Returns
    -------
    PreferenceGame
        P of shape ``(n, n)``, or ``(contexts, n, n)``.

    Raises
    ------
    InputError
        If an argument is outside its range, or the law is unknown.

    Notes
    -----
    Entries drawn uniformly make games that get easier as n grows: test on cyclic and low-rank games too.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.random_game(5, rng=0, law="zero-one", contexts=2).preferences.shape
    (2, 5, 5)
    """
    size = ensure_integer("n", n, 1)
    draw = _LAWS[ensure_choice("law", law, _LAWS)]
    generator = as_generator(rng)
    if contexts is None:
        return PreferenceGame(draw(size, generator) + 0.5, beta, reference)
    count = ensure_integer("contexts", contexts, 1)
    blocks = np.stack([draw(size, generator) for _ in range(count)])
    return PreferenceGame(blocks + 0.5, beta, reference)


def near_ties(
    n: int,
    rng: np.random.Generator | int,
    scale: float = 1e-3,
    *,
    beta: float = 0.1,
    reference: npt.ArrayLike | None = None,
) -> PreferenceGame:
    """Random game whose pairs nearly tie: P[i, j] uniform within `scale` of 1/2.

    Parameters
    ----------
    n : int
        Number of actions, at least 1.
    rng : numpy.random.Generator or int
        Source of randomness, or a seed.
    scale : float
        Largest margin, in [0, 1/2].
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(n,)``. Default: uniform.

    Returns
    -------
    PreferenceGame
        The game of n actions.

    Raises
    ------
    InputError
        If an argument is outside its range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> bool(abs(nl.games.near_ties(4, rng=0).advantages).max() <= 1e-3)
    True
    """
    size = ensure_integer("n", n, 1)
    largest = ensure_between("scale", scale, 0, 0.5)
    return PreferenceGame(_uniform(size, as_generator(rng), largest) + 0.5, beta, reference)


def random_low_rank(
    n: int,
    rank: int,
    rng: np.random.Generator | int,
    margin: float = 0.5,
    *,
    beta: float = 0.1,
    reference: npt.ArrayLike | None = None,
) -> PreferenceGame:
    """Random low-rank game: ``P = 1/2 + U Vᵀ - V Uᵀ`` with normal factors, scaled to a largest margin; no matrix is stored.

    Parameters
    ----------
    n : int
        Number of actions, at least 2.
    rank : int
        Columns of U and V, at least 1; the matrix has rank ``min(2 rank, n or n - 1, whichever is even)``.
    rng : numpy.random.Generator or int
        Source of randomness, or a seed.
    margin : float
        Largest entry of ``|P - 1/2|``, in [0, 1/2]; where finding it takes over 2·10^11 multiplications, an upper bound on it.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(n,)``. Default: uniform.

    Returns
    -------
    PreferenceGame
        The game of n actions.

    Raises
    ------
    InputError
        If an argument is outside its range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> round(float(abs(nl.games.random_low_rank(6, rank=1, rng=0).advantages).max()), 12)
    0.5
    """
    size = ensure_integer("n", n, 2, 10**8)
    columns = ensure_integer("rank", rank, 1, 10**4)
    largest = ensure_between("margin", margin, 0, 0.5)
    left, right = _factors(size, columns, as_generator(rng))
    form = LowRankPayoff(frozen_array(2 * largest * left), frozen_array(right))
    return PreferenceGame(Checked([form], False), beta, reference)


def random_reference(n: int, rng: np.random.Generator | int, peak: float = 1.0, contexts: int | None = None) -> Array:
    """Random policy with full support: the softmax of `peak` times standard normal logits.

    Parameters
    ----------
    n : int
        Number of actions, at least 1.
    rng : numpy.random.Generator or int
        Source of randomness, or a seed.
    peak : float
        Standard deviation of the logits, in [0, 50]: 0 is uniform, 1 moderate, 10 puts nearly everything on one action.
    contexts : int, optional
        Number of contexts. Default: one policy without a context axis.

    Returns
    -------
    numpy.ndarray
        Probability space, shape ``(n,)`` or ``(contexts, n)``, every entry positive.

    Raises
    ------
    InputError
        If an argument is outside its range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.random_reference(4, rng=0, peak=0)
    array([0.25, 0.25, 0.25, 0.25])
    """
    size = ensure_integer("n", n, 1)
    spread = ensure_between("peak", peak, 0, 50)
    shape = (size,) if contexts is None else (ensure_integer("contexts", contexts, 1), size)
    return np.asarray(np.exp(log_softmax(spread * as_generator(rng).standard_normal(shape))))


def as_generator(rng: object) -> np.random.Generator:
    """Return the generator that `rng` is, or that it seeds; else raise `InputError`."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (bool, np.bool_)) or not isinstance(rng, (int, np.integer, float)):
        raise InputError(f"rng = {rng!r} must be a numpy.random.Generator or a whole number, the seed")
    return np.random.default_rng(ensure_integer("rng", rng))


def _skew(upper: npt.ArrayLike) -> Array:
    above = np.triu(np.asarray(upper, dtype=np.float64), 1)
    return above - above.T


def _uniform(n: int, rng: np.random.Generator, largest: float = 0.5) -> Array:
    return _skew(rng.uniform(-largest, largest, (n, n)))


def _logistic(n: int, rng: np.random.Generator) -> Array:
    return _skew(np.tanh(rng.standard_normal((n, n)) / 2) / 2)


def _zero_one(n: int, rng: np.random.Generator) -> Array:
    return _skew(rng.integers(0, 2, (n, n)) - 0.5)


def _near_ties(n: int, rng: np.random.Generator) -> Array:
    return _uniform(n, rng, 1e-3)


def _bradley_terry(n: int, rng: np.random.Generator) -> Array:
    scores = rng.standard_normal(n)
    return _skew(np.tanh((scores[:, None] - scores) / 2) / 2)


def _low_rank(n: int, rng: np.random.Generator) -> Array:
    left, right = _factors(n, 1, rng)
    return _skew(np.clip(left @ right.T - right @ left.T, -0.5, 0.5))


def _factors(n: int, rank: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return U and V, shape ``(n, rank)``, such that the largest entry of ``|U Vᵀ - V Uᵀ|`` is 1/2 (at huge n at most 1/2)."""
    left, right = rng.standard_normal((2, n, rank))
    largest, _ = largest_entry(left, right)
    return (left * (0.5 / largest) if largest > 0 else left), right


_LAWS: dict[str, Callable[[int, np.random.Generator], Array]] = {
    "uniform": _uniform,
    "logistic": _logistic,
    "zero-one": _zero_one,
    "near-ties": _near_ties,
    "bradley-terry": _bradley_terry,
    "low-rank": _low_rank,
}
