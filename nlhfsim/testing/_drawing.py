"""How the strategies draw: actions that may be there, policies, preferences, games and logs, all from whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from nlhfsim.errors import Array, InputError, ensure_integer
from nlhfsim.games.game import PreferenceGame
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


# --- which actions --------------------------------------------------------------------------------------------------------


class Slots(NamedTuple):
    """Actions that may be there, and which of them are.

    Something is drawn for every slot, and what belongs to one that is empty is left out afterwards: so an action is taken out of
    a counterexample by one number, whatever its place.
    """

    total: int
    present: Whole

    def of(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the entries, or rows, of the actions that are there."""
        return array[self.present]

    def between(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the entries of a square matrix between the actions that are there."""
        return matrix[np.ix_(self.present, self.present)]


@st.composite
def slots_of(draw: Draw, low: int, high: int) -> Slots:
    """Draw which of `high` actions are there, at least `low` of them."""
    if low == high:
        return Slots(high, np.arange(high))
    threshold = draw(st.sampled_from([1, 2, 5]))
    filled = np.flatnonzero(draw(_several(high, 0, 9)) >= threshold)
    empty = np.setdiff1d(np.arange(high), filled)
    return Slots(high, np.sort(np.append(filled, empty[: max(low - len(filled), 0)])))


def bounds_of(name: str, value: Any) -> tuple[int, int]:
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
def policy_of(draw: Draw, slots: Slots, smallest: float) -> Array:
    """Draw a policy with full support over the actions that are there."""
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


def references_of(reference: Any, smallest: float) -> Callable[[Slots], st.SearchStrategy[Any]]:
    """Return what references of the actions that are there are drawn from."""
    if reference is None:
        return lambda slots: policy_of(slots, min(smallest, 1 / len(slots.present)))
    if isinstance(reference, st.SearchStrategy):
        return lambda slots: reference
    if isinstance(reference, str):
        if reference != "uniform":
            raise InputError(f"reference = {reference!r} must be 'uniform', probabilities, or a strategy of them")
        return lambda slots: st.just(np.full(len(slots.present), 1 / len(slots.present)))
    return lambda slots: st.just(np.asarray(reference))


# --- preferences ----------------------------------------------------------------------------------------------------------


def _skew(slots: Slots, below: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the skew-symmetric matrix with these entries below the diagonal, row after row, for the actions that are there."""
    matrix = np.zeros((slots.total, slots.total), dtype=below.dtype)
    matrix[np.tril_indices(slots.total, -1)] = below
    return slots.between(matrix - matrix.T)


def _pairs(slots: Slots) -> int:
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


def _grid(draw: Draw, slots: Slots) -> Array:
    """Any preferences 1/2 + k/(2d)."""
    d = draw(st.sampled_from(_STEPS))
    return _probabilities(_skew(slots, draw(_several(_pairs(slots), -d, d))), d)


def _near_ties(draw: Draw, slots: Slots) -> Array:
    """Preferences that differ from 1/2 by powers of ten, pair by pair."""
    powers = draw(_several(_pairs(slots), 0, len(_NEAR) - 1))
    size = 10.0 ** -np.array(_NEAR, dtype=np.float64)[powers] / 2
    return np.asarray(0.5 + _skew(slots, size * draw(_several(_pairs(slots), -1, 1))))


def _cyclic(draw: Draw, slots: Slots) -> Array:
    """A cyclic tournament, its actions in any order."""
    d = draw(st.sampled_from(_STEPS))
    order = np.argsort(slots.of(draw(_several(slots.total, 0, 9))), kind="stable")
    return _probabilities(draw(st.integers(1, d)) * _circle(len(order))[np.ix_(order, order)], d)


def _low_rank(draw: Draw, slots: Slots) -> Array:
    """Preferences of rank 2 or 4."""
    left, right = _integer_factors(draw, slots)
    return _probabilities(left @ right.T - right @ left.T)


def _mixed(draw: Draw, slots: Slots) -> Array:
    """An order by scores and a cyclic tournament, added up."""
    scores = slots.of(draw(_several(slots.total, 0, 4)))
    return _probabilities(scores[:, None] - scores[None, :] + draw(st.integers(0, 4)) * _circle(len(scores)))


def _duplicated(draw: Draw, slots: Slots) -> Array:
    """Fewer actions, some of them more than once."""
    of = slots.of(draw(_several(slots.total, 0, max(slots.total - 2, 0))))
    return _grid(draw, Slots(slots.total, of))


def _dominated(draw: Draw, slots: Slots) -> Array:
    """The last action does worse than another one against everything, as far as votes can be worse than certain."""
    better, loss = draw(st.integers(0, max(slots.total - 2, 0))), draw(st.sampled_from([0.5, 0.25, 0.05]))
    preferred = _grid(draw, slots)
    if len(preferred) > 1:
        better %= len(preferred) - 1
        preferred[-1, :-1] = np.maximum(preferred[better, :-1] - loss, 0.0)
        preferred[:-1, -1] = 1 - preferred[-1, :-1]
    return preferred


_KINDS: tuple[Callable[[Draw, Slots], Array], ...] = (
    _grid,
    _cyclic,
    _mixed,
    _low_rank,
    _near_ties,
    _duplicated,
    _dominated,
)


@st.composite
def matrix_of(draw: Draw, slots: Slots) -> Array:
    """Draw preferences of any kind, those on a grid being the simplest."""
    return draw(st.sampled_from(_KINDS))(draw, slots)  # type: ignore[no-any-return]


def _integer_factors(draw: Draw, slots: Slots) -> tuple[Whole, Whole]:
    """Draw U and V of whole numbers."""
    rank = draw(st.integers(1, 2))
    left, right = (slots.of(draw(_several(slots.total * 2, -3, 3)).reshape(-1, 2))[:, :rank] for _ in range(2))
    return left, right


# --- games and logs -------------------------------------------------------------------------------------------------------


@st.composite
def low_rank_of(draw: Draw, slots: Slots) -> Payoff:
    """Draw the preferences of a context as factors."""
    left, right = _integer_factors(draw, slots)
    scale = 2.0 * _round(left @ right.T - right @ left.T)
    return validated(LowRankPayoff(left / scale, right.astype(np.float64)))


class Parts(NamedTuple):
    """What games are drawn from: β, preferences, references."""

    beta: st.SearchStrategy[float]
    preferences: Callable[[Slots], st.SearchStrategy[Any]]
    references: Callable[[Slots], st.SearchStrategy[Any]]


@st.composite
def games_of(draw: Draw, sizes: tuple[int, int], counts: tuple[int, int] | None, parts: Parts) -> PreferenceGame:
    """Draw a game; without `counts` it has no context axis."""
    beta, slots = draw(parts.beta), draw(slots_of(*sizes))
    one = st.tuples(parts.preferences(slots), parts.references(slots), st.integers(1, 5))
    if counts is None:
        preferred, reference, _ = draw(one)
        return PreferenceGame(preferred, beta, reference)
    several, references, shares = zip(*draw(st.lists(one, min_size=counts[0], max_size=counts[1])))
    weights = np.array(shares) / sum(shares)
    matrices = np.stack(several) if isinstance(several[0], np.ndarray) else several
    return PreferenceGame(matrices, beta, np.stack(references), weights=weights)


@st.composite
def logs_of(draw: Draw, sizes: tuple[int, int], more: int, counts: tuple[int, int] | None, weights: bool) -> list[dict[str, Any]]:
    """Draw a log of comparisons: rows that connect the items, up to `more` others, in any order."""
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
