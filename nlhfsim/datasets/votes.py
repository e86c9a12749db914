"""Rows of a table to votes: which items met, who won, in which context, with which weight."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.datasets.readers import COUNT_COLUMNS, PAIR_COLUMNS, Table
from nlhfsim.errors import Array, DataError, UnknownNameError, did_you_mean

_FIRST, _SECOND = {"item_a", "model_a"}, {"item_b", "model_b"}
_WORDS = {**dict.fromkeys(_FIRST, "first"), **dict.fromkeys(_SECOND, "second"), "tie": "tie"}


@dataclass(frozen=True)
class Votes:
    """Votes by row.

    Attributes
    ----------
    first, second : list of str
        The two items of a row.
    wins_first, wins_second, ties : numpy.ndarray
        Weighted votes for the first item, for the second, and ties, shape ``(rows,)``.
    contexts : list of tuple of str or None
        The context of a row; None when rows are pooled.
    """

    first: list[str]
    second: list[str]
    wins_first: Array
    wins_second: Array
    ties: Array
    contexts: list[tuple[str, ...]] | None


def read_votes(table: Table, context: str | Sequence[str] | None, weight: str | None) -> Votes:
    """Read every row of a table, refusing the first one that is no vote."""
    if not table.n_rows:
        raise DataError(f"{table.source} has no rows, must hold comparisons")
    pair, counted = _pair_columns(table)
    first, second = (_texts(table, name) for name in pair)
    for k, (one, other) in enumerate(zip(first, second)):
        if one == other:
            raise DataError(f"{table.where(k)}: {one!r} is compared with itself, must be two different items")
    outcomes = _counts(table) if counted else _winners(table, first, second)
    scaled = outcomes * _weights(table, weight)
    return Votes(first, second, scaled[0], scaled[1], scaled[2], _contexts(table, context))


def _pair_columns(table: Table) -> tuple[tuple[str, str], bool]:
    """Return the names of the item columns, and whether the rows hold counts rather than one winner each."""
    names = set(table.names)
    for pair in PAIR_COLUMNS:
        if names >= {*pair, "winner"}:
            return pair, False
    if names >= set(COUNT_COLUMNS):
        return (COUNT_COLUMNS[0], COUNT_COLUMNS[1]), True
    found = ", ".join(table.names) or "none"
    raise DataError(
        f"{table.source} has the columns {found}, must have item_a, item_b and winner (or model_a, model_b and winner, "
        f"or {', '.join(COUNT_COLUMNS)})"
    )


def _texts(table: Table, name: str) -> list[str]:
    """Return a column of names as text."""
    texts = []
    for k, value in enumerate(table.column(name)):
        text = _text(value)
        if text is None:
            wanted = "is missing" if _missing(value) else f"is {value!r}, must be text or a number"
            raise DataError(f"{table.where(k)}: {name} {wanted}")
        texts.append(text)
    return texts


def _text(value: Any) -> str | None:
    """Return a name as text without outer blanks, a whole number without its point; None for what is no name."""
    if isinstance(value, str):
        return value.strip() or None
    if _missing(value) or isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        return None
    number = float(value)
    return str(int(number)) if number.is_integer() and not isinstance(value, numbers.Integral) else str(value)


def _missing(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, blank text, or a data frame's own mark."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, numbers.Real) and not math.isfinite(value)


def _winners(table: Table, first: list[str], second: list[str]) -> Array:
    """Return votes for the first, for the second, and ties, shape ``(3, rows)``."""
    outcomes = np.zeros((3, table.n_rows))
    index = {"first": 0, "second": 1, "tie": 2}
    for k, (winner, one, other) in enumerate(zip(_texts(table, "winner"), first, second)):
        named = "first" if winner == one else "second" if winner == other else None
        word = _WORDS.get(winner)
        if named is not None and word is not None and named != word:
            raise DataError(
                f"{table.where(k)}: winner {winner!r} is also the name of the other item or of a tie: rename the item"
            )
        verdict = named or word
        if verdict is None:
            raise DataError(
                f"{table.where(k)}: winner {winner!r} must be {one!r}, {other!r}, item_a, item_b, model_a, model_b or tie"
            )
        outcomes[index[verdict], k] = 1.0
    return outcomes


def _counts(table: Table) -> Array:
    """Return the aggregated counts, shape ``(3, rows)``."""
    wins = [_amounts(table, name, "count") for name in COUNT_COLUMNS[2:]]
    ties = _amounts(table, "ties", "count") if "ties" in table.names else np.zeros(table.n_rows)
    return np.stack([*wins, ties])


def _weights(table: Table, weight: str | None) -> Array:
    name = "weight" if weight is None else weight
    if name in table.names:
        return _amounts(table, name, "weight")
    if weight is not None:
        raise UnknownNameError(f"weight = {weight!r} is not a column of {table.source}{did_you_mean(weight, table.names)}")
    return np.ones(table.n_rows)


def _amounts(table: Table, name: str, kind: str) -> Array:
    """Return a column of finite numbers that are not negative."""
    amounts = np.empty(table.n_rows)
    for k, value in enumerate(table.column(name)):
        try:
            amounts[k] = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            amounts[k] = math.nan
        if not 0 <= amounts[k] < math.inf:
            raise DataError(f"{table.where(k)}: {name} = {value!r} must be a finite number, not negative, to be a {kind}")
    return amounts


def _contexts(table: Table, context: str | Sequence[str] | None) -> list[tuple[str, ...]] | None:
    if context is None:
        names: Sequence[str] = ("context",) if "context" in table.names else ()
    else:
        names = (context,) if isinstance(context, str) else tuple(context)
    for name in names:
        if name not in table.names:
            raise UnknownNameError(f"context = {name!r} is not a column of {table.source}{did_you_mean(str(name), table.names)}")
    return list(zip(*(_texts(table, name) for name in names))) if names else None


def index_of(values: Sequence[Any], order: Sequence[Any]) -> npt.NDArray[np.intp]:
    """Return where each value stands in `order`, shape ``(len(values),)``."""
    places = {value: k for k, value in enumerate(order)}
    return np.fromiter((places[value] for value in values), dtype=np.intp, count=len(values))
