"""Hypothesis strategies of games, references, policies and logs of comparisons.

Everything is built from whole numbers, so that what Hypothesis shrinks a counterexample to can be read: preferences among 1/2, 0
and 1, then quarters and steps of 0.05; the uniform reference; β = 1; few actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from nlhfsim.errors import Array, InputError, ensure_integer, ensure_nonnegative, ensure_positive
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.payoffs import LowRankPayoff, Payoff, validated

Draw = Callable[[st.SearchStrategy[Any]], Any]
Bounds = int | tuple[int, int]
Whole = npt.NDArray[np.int64]

_STEPS = (1, 2, 10)
"""Denominators d of preferences 1/2 + k/(2d): certain votes and ties, quarters, steps of 0.05."""
_ROUND = (1, 2, 4, 5, 10, 20, 40, 50, 100, 200, 400, 500, 1000)
"""Denominators that give short decimals."""
_NEAR = (0, 3, 6, 9, 12)
"""Margins of near-ties are 10 to minus one of these, halved."""


def betas(smallest: float = 1e-3, largest: float = 1e3, *, zero: bool = False) -> st.SearchStrategy[float]:
    """Draw regularization strengths β, every decade alike: a digit times a power of ten.

    Parameters
    ----------
    smallest, largest : float
        Bounds of β > 0, both reached.
    zero : bool
        Whether β = 0, the unregularized game, is drawn too.

    Returns
    -------
    SearchStrategy of float
        It shrinks to 1.

    Raises
    ------
    InputError
        If a bound is not positive, or they are in the wrong order.

    Examples
    --------
    >>> import hypothesis, nlhfsim as nl
    >>> hypothesis.find(nl.testing.betas(), lambda beta: beta < 0.3)
    0.1
    """
    low, high = ensure_positive("smallest", smallest), ensure_positive("largest", largest)
    if low > high:
        raise InputError(f"smallest = {low:g} must be at most largest = {high:g}")
    exponents = st.integers(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    positive = st.builds(
        lambda power, digit: min(max(float(f"{digit}e{power}"), low), high), exponents, st.sampled_from([1, 3, 2, 5, 7])
    )
    return st.one_of(positive, st.just(0.0)) if zero else positive


def references(n: Bounds, *, smallest: float = 1e-12) -> st.SearchStrategy[Array]:
    """Draw policies with full support over n actions: uniform, in proportion to digits, or peaked over decades.

    Parameters
    ----------
    n : int or (int, int)
        Number of actions, or its bounds.
    smallest : float
        No probability is below it; it is reached. At least 1e-300.

    Returns
    -------
    SearchStrategy of numpy.ndarray
        Probability space, shape ``(n,)``; it shrinks to the uniform policy.

    Raises
    ------
    InputError
        If a number is outside its range, or `smallest` is above 1/n.

    Examples
    --------
    >>> import hypothesis, nlhfsim as nl
    >>> hypothesis.find(nl.testing.references((1, 5)), lambda reference: reference.min() < 1e-6).round(6)
    array([9.99999e-01, 1.00000e-06])
    """
    low, high = _bounds("n", n)
    floor = ensure_positive("smallest", smallest)
    if not 1e-300 <= floor <= 1 / high:
        raise InputError(f"smallest = {floor:g} must lie between 1e-300 and 1/n = {1 / high:g}")
    return _slots(low, high).flatmap(lambda slots: _policy(slots, floor))


def policies(game: PreferenceGame, *, smallest: float = 1e-12) -> st.SearchStrategy[Array]:
    """Draw policies of a game with full support, such as starts of a run.

    Parameters
    ----------
    game : PreferenceGame
        The game.
    smallest : float
        No probability is below it; it is reached.

    Returns
    -------
    SearchStrategy of numpy.ndarray
        Probability space, shape `game.policy_shape`; it shrinks to the uniform policy.

    Examples
    --------
    >>> import hypothesis, nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors()
    >>> hypothesis.find(nl.testing.policies(game), lambda policy: nl.exploitability(game, policy) > 0.4).round(2)
    array([0.9 , 0.09, 0.01])
    """
    rows = references(ensure_game(game).n, smallest=min(smallest, 1 / game.n))
    if not game.batched:
        return rows
    return st.lists(rows, min_size=game.n_contexts, max_size=game.n_contexts).map(np.stack)


def preferences(n: Bounds = (1, 5)) -> st.SearchStrategy[Array]:
    """Draw matrices of preferences.

    They may hold anything on a grid, near-ties (down to 5e-13 from 1/2), cyclic tournaments, low rank, an order and a cycle added
    up, duplicated actions and dominated ones.

    Parameters
    ----------
    n : int or (int, int)
        Number of actions, or its bounds.

    Returns
    -------
    SearchStrategy of numpy.ndarray
        P of shape ``(n, n)``, ``P + P.T == 1`` to rounding, 1/2 on the diagonal; it shrinks to ties.

    Examples
    --------
    >>> import hypothesis, nlhfsim as nl
    >>> hypothesis.find(nl.testing.preferences(2), lambda P: P[0, 1] > 0.5)
    array([[0.5, 1. ],
           [0. , 0.5]])
    """
    low, high = _bounds("n", n)
    return _slots(low, high).flatmap(_matrix)


def preference_games(
    n: Bounds = (1, 5),
    *,
    beta: float | st.SearchStrategy[float] | None = None,
    contexts: Bounds | None = None,
    reference: str | npt.ArrayLike | st.SearchStrategy[Any] | None = None,
    smallest_reference: float = 1e-12,
    low_rank: bool = False,
) -> st.SearchStrategy[PreferenceGame]:
    """Draw preference games: the preferences of `preferences`, a reference of `references`, a β of `betas`.

    Parameters
    ----------
    n : int or (int, int)
        Number of actions, or its bounds.
    beta : float or strategy, optional
        β ≥ 0, or what to draw it from. Default: `betas()`, from 1e-3 to 1e3.
    contexts : int or (int, int), optional
        Number of contexts, or its bounds; their weights are drawn too. Default: a game without a context axis.
    reference : array_like, strategy or "uniform", optional
        Reference policy, or what to draw it from (one a context). Default: `references(n, smallest=smallest_reference)`.
    smallest_reference : float
        No probability of the reference is below it, unless it is above 1/n.
    low_rank : bool
        Draw games of low rank that are stored by their factors.

    Returns
    -------
    SearchStrategy of PreferenceGame
        It shrinks to few actions that tie, the uniform reference and β = 1.

    Raises
    ------
    InputError
        If an argument is outside its range.

    Examples
    --------
    >>> import hypothesis, nlhfsim as nl
    >>> game = hypothesis.find(nl.testing.preference_games(), nl.games.has_majority_cycle)
    >>> game.n, sorted(game.preferences[0].tolist())
    (3, [0.0, 0.5, 1.0])
    """
    sizes = _bounds("n", n)
    strengths = (
        betas() if beta is None else beta if isinstance(beta, st.SearchStrategy) else st.just(ensure_nonnegative("beta", beta))
    )
    rows = _referees(reference, ensure_positive("smallest_reference", smallest_reference))
    counts = None if contexts is None else _bounds("contexts", contexts)
    return _games(sizes, counts, _Parts(strengths, _low_rank_forms if low_rank else _matrix, rows))


def comparison_logs(
    items: Bounds = (2, 5), *, more: int = 8, contexts: Bounds | None = None, weights: bool = False
) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Draw logs of comparisons that `nlhfsim.datasets.from_comparisons` takes: connected, and no star.

    Parameters
    ----------
    items : int or (int, int)
        Number of items, at least 2, or its bounds.
    more : int
        Up to so many rows beside those that connect the items.
    contexts : int or (int, int), optional
        Number of contexts, or its bounds; each has a row at least. Default: no column of contexts.
    weights : bool
        Whether rows have weights, some of them 0.

    Returns
    -------
    SearchStrategy of list of dict
        Rows with ``item_a, item_b, winner`` and where asked for ``context`` and ``weight``. Winners are written in every way that
        is read. It shrinks to few rows that the first item wins.

    Examples
    --------
    >>> import hypothesis, nlhfsim as nl
    >>> hypothesis.find(nl.testing.comparison_logs(), lambda rows: rows[0]["winner"] == "tie")
    [{'item_a': 'A', 'item_b': 'B', 'winner': 'tie'}]
    """
    sizes, counts = _bounds("items", items), None if contexts is None else _bounds("contexts", contexts)
    if sizes[0] < 2 or sizes[1] > 26:
        raise InputError(f"items = {items} must lie between 2 and 26")
    return _logs(sizes, ensure_integer("more", more), counts, weights)


# --- which actions --------------------------------------------------------------------------------------------------------


class _Slots(NamedTuple):
    """Actions that may be there, and which of them are.

    Something is drawn for every slot, and what belongs to one that is empty is left out afterwards: so an action is taken out of
    a counterexample by one number, whatever its place.
    """

    total: int
    present: Whole

    def of(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the rows of the actions that are there, and of a square matrix the columns too."""
        return array[np.ix_(self.present, self.present)] if array.shape == (self.total, self.total) else array[self.present]


@st.composite
def _slots(draw: Draw, low: int, high: int) -> _Slots:
    if low == high:
        return _Slots(high, np.arange(high))
    threshold = draw(st.sampled_from([1, 2, 5]))
    filled = np.flatnonzero(draw(_several(high, 0, 9)) >= threshold)
    empty = np.setdiff1d(np.arange(high), filled)
    return _Slots(high, np.sort(np.append(filled, empty[: max(low - len(filled), 0)])))


def _bounds(name: str, value: Any) -> tuple[int, int]:
    """Return the lower and the upper bound of a number of things, at least 1."""
    low, high = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    pair = ensure_integer(name, low, 1), ensure_integer(name, high, 1)
    if pair[0] > pair[1]:
        raise InputError(f"{name} = {value} must have its lower bound first")
    return pair


def _several(count: int, low: int, high: int) -> st.SearchStrategy[Whole]:
    """Draw so many whole numbers."""
    return st.lists(st.integers(low, high), min_size=count, max_size=count).map(lambda found: np.array(found, dtype=np.int64))


# --- policies -------------------------------------------------------------------------------------------------------------


@st.composite
def _policy(draw: Draw, slots: _Slots, smallest: float) -> Array:
    kind, n = draw(st.sampled_from(["uniform", "digits", "peaked"])), len(slots.present)
    if kind == "uniform":
        return np.full(n, 1 / n)
    decades = math.ceil(-math.log10(smallest)) + 1  # one more, so that the end is reached
    weights = slots.of(draw(_several(slots.total, *((1, 9) if kind == "digits" else (0, decades))))).astype(np.float64)
    if kind == "peaked":
        weights = 10.0**-weights
    policy = np.maximum(weights / weights.sum(), smallest)
    policy[np.argmax(policy)] -= policy.sum() - 1
    return np.asarray(policy / policy.sum())


def _referees(reference: Any, smallest: float) -> Callable[[_Slots], st.SearchStrategy[Any]]:
    """Return what references of the actions that are there are drawn from."""
    if reference is None:
        return lambda slots: _policy(slots, min(smallest, 1 / len(slots.present)))
    if isinstance(reference, st.SearchStrategy):
        return lambda slots: reference
    if isinstance(reference, str):
        if reference != "uniform":
            raise InputError(f"reference = {reference!r} must be 'uniform', probabilities, or a strategy of them")
        return lambda slots: st.just(np.full(len(slots.present), 1 / len(slots.present)))
    return lambda slots: st.just(np.asarray(reference))


# --- preferences ----------------------------------------------------------------------------------------------------------


def _skew(slots: _Slots, below: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the skew-symmetric matrix with these entries below the diagonal, row after row, for the actions that are there."""
    matrix = np.zeros((slots.total, slots.total), dtype=below.dtype)
    matrix[np.tril_indices(slots.total, -1)] = below
    return slots.of(matrix - matrix.T)


def _pairs(slots: _Slots) -> int:
    return slots.total * (slots.total - 1) // 2


def _probabilities(margins: Whole, denominator: int | None = None) -> Array:
    """Return 1/2 + k/(2d) for skew-symmetric k, d the next round number unless it is given."""
    d = denominator or _round(margins)
    return np.asarray((d + margins) / (2 * d))


def _round(margins: Whole) -> int:
    """Return a round number that no entry exceeds."""
    largest = int(np.abs(margins).max())
    return next((d for d in _ROUND if d >= largest), largest)


def _circle(n: int) -> Whole:
    """Return 1 where the row beats the column in the tournament of each against the next (n - 1)//2, -1 where it loses."""
    ahead = (np.arange(n)[None, :] - np.arange(n)[:, None]) % n
    reach = (n - 1) // 2
    return np.asarray(np.where((ahead > 0) & (ahead <= reach), 1, np.where(ahead >= n - reach, -1, 0)), dtype=np.int64)


def _grid(draw: Draw, slots: _Slots) -> Array:
    """Any preferences 1/2 + k/(2d)."""
    d = draw(st.sampled_from(_STEPS))
    return _probabilities(_skew(slots, draw(_several(_pairs(slots), -d, d))), d)


def _near_ties(draw: Draw, slots: _Slots) -> Array:
    """Preferences that differ from 1/2 by powers of ten, pair by pair."""
    powers = draw(_several(_pairs(slots), 0, len(_NEAR) - 1))
    size = 10.0 ** -np.array(_NEAR, dtype=np.float64)[powers] / 2
    return np.asarray(0.5 + _skew(slots, size * draw(_several(_pairs(slots), -1, 1))))


def _cyclic(draw: Draw, slots: _Slots) -> Array:
    """A cyclic tournament, its actions in any order."""
    d = draw(st.sampled_from(_STEPS))
    order = np.argsort(slots.of(draw(_several(slots.total, 0, 9))), kind="stable")
    return _probabilities(draw(st.integers(1, d)) * _circle(len(order))[np.ix_(order, order)], d)


def _low_rank(draw: Draw, slots: _Slots) -> Array:
    """Preferences of rank 2 or 4."""
    left, right = _integer_factors(draw, slots)
    return _probabilities(left @ right.T - right @ left.T)


def _mixed(draw: Draw, slots: _Slots) -> Array:
    """An order by scores and a cyclic tournament, added up."""
    scores = slots.of(draw(_several(slots.total, 0, 4)))
    return _probabilities(scores[:, None] - scores[None, :] + draw(st.integers(0, 4)) * _circle(len(scores)))


def _duplicated(draw: Draw, slots: _Slots) -> Array:
    """Fewer actions, some of them more than once."""
    of = slots.of(draw(_several(slots.total, 0, max(slots.total - 2, 0))))
    return _grid(draw, _Slots(slots.total, of))


def _dominated(draw: Draw, slots: _Slots) -> Array:
    """The last action does worse than another one against everything, as far as votes can be worse than certain."""
    better, loss = draw(st.integers(0, max(slots.total - 2, 0))), draw(st.sampled_from([0.5, 0.25, 0.05]))
    preferred = _grid(draw, slots)
    if len(preferred) > 1:
        better %= len(preferred) - 1
        preferred[-1, :-1] = np.maximum(preferred[better, :-1] - loss, 0.0)
        preferred[:-1, -1] = 1 - preferred[-1, :-1]
    return preferred


_KINDS: tuple[Callable[[Draw, _Slots], Array], ...] = (
    _grid,
    _cyclic,
    _mixed,
    _low_rank,
    _near_ties,
    _duplicated,
    _dominated,
)


@st.composite
def _matrix(draw: Draw, slots: _Slots) -> Array:
    return draw(st.sampled_from(_KINDS))(draw, slots)  # type: ignore[no-any-return]


def _integer_factors(draw: Draw, slots: _Slots) -> tuple[Whole, Whole]:
    """Draw U and V of whole numbers."""
    rank = draw(st.integers(1, 2))
    left, right = (slots.of(draw(_several(slots.total * 2, -3, 3)).reshape(-1, 2))[:, :rank] for _ in range(2))
    return left, right


# --- games and logs -------------------------------------------------------------------------------------------------------


@st.composite
def _low_rank_forms(draw: Draw, slots: _Slots) -> Payoff:
    """Draw the preferences of a context as factors."""
    left, right = _integer_factors(draw, slots)
    scale = 2.0 * _round(left @ right.T - right @ left.T)
    return validated(LowRankPayoff(left / scale, right.astype(np.float64)))


class _Parts(NamedTuple):
    """What games are drawn from: β, preferences, references."""

    beta: st.SearchStrategy[float]
    preferences: Callable[[_Slots], st.SearchStrategy[Any]]
    references: Callable[[_Slots], st.SearchStrategy[Any]]


@st.composite
def _games(draw: Draw, sizes: tuple[int, int], counts: tuple[int, int] | None, parts: _Parts) -> PreferenceGame:
    beta, slots = draw(parts.beta), draw(_slots(*sizes))
    one = st.tuples(parts.preferences(slots), parts.references(slots), st.integers(1, 5))
    if counts is None:
        preferred, reference, _ = draw(one)
        return PreferenceGame(preferred, beta, reference)
    several, references, shares = zip(*draw(st.lists(one, min_size=counts[0], max_size=counts[1])))
    weights = np.array(shares) / sum(shares)
    matrices = np.stack(several) if isinstance(several[0], np.ndarray) else several
    return PreferenceGame(matrices, beta, np.stack(references), weights=weights)


@st.composite
def _logs(draw: Draw, sizes: tuple[int, int], more: int, counts: tuple[int, int] | None, weights: bool) -> list[dict[str, Any]]:
    n = draw(st.integers(*sizes))
    kept = _connecting(draw, n)
    other = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(1, n - 1)), max_size=more))
    rows = [_row(draw, n, i, j) for i, j in [*kept, *((i, (i + step) % n) for i, step in other)]]
    if weights:
        for k, row in enumerate(rows):
            row["weight"] = draw(st.sampled_from([1, 2, 0.5, 0.25, 3] if k < len(kept) else [1, 0, 2, 0.5]))
    if counts is not None:
        _give_contexts(draw, rows, draw(st.integers(*counts)), len(kept))
    return list(draw(st.permutations(rows)))


def _connecting(draw: Draw, n: int) -> list[tuple[int, int]]:
    """Draw pairs that connect n items without all meeting one of them: a tree, and a pair more if it is a star."""
    pairs = [(draw(st.integers(0, i - 1)), i) for i in range(1, n)]
    hub = next((k for k in range(n) if all(k in pair for pair in pairs)), None)
    if n > 2 and hub is not None:
        first, second = [k for k in range(n) if k != hub][:2]
        pairs.append((first, second))
    return pairs


def _row(draw: Draw, n: int, i: int, j: int) -> dict[str, Any]:
    """Draw who wins between two items, and how it is written."""
    names = [chr(ord("A") + k) for k in range(n)]
    winner = draw(st.sampled_from([names[i], names[j], "tie", "item_a", "item_b", "model_a", "model_b"]))
    return {"item_a": names[i], "item_b": names[j], "winner": winner}


def _give_contexts(draw: Draw, rows: list[dict[str, Any]], contexts: int, kept: int) -> None:
    """Put every row into a context; each gets one that counts, and the log a row more where it has too few."""
    while kept < contexts:
        rows.insert(kept, dict(rows[0]))
        kept += 1
    for k, row in enumerate(rows):
        row["context"] = f"c{k + 1 if k < contexts else draw(st.integers(1, contexts))}"
