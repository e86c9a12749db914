"""Pairwise comparisons to games: counts of wins and ties, what they cover, and the preferences estimated from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.datasets.readers import read_table
from nlhfsim.datasets.votes import Votes, index_of, read_votes
from nlhfsim.errors import Array, DataError, InputError, ensure_array, ensure_nonnegative
from nlhfsim.games import PreferenceGame

_MAX_ENTRIES = 10**8


@dataclass(frozen=True)
class Coverage:
    """What a set of comparisons covers; ``str()`` of it is one readable sentence a line.

    Attributes
    ----------
    votes, ties : float
        Number of votes (the sum of their weights), and how many of them were ties.
    items, contexts : int
        Number of items, and of contexts (1 when pooled).
    pairs_seen, pairs : int
        Pairs of items compared at least once in some context, of all pairs.
    min_votes, median_votes : float
        Least and median number of votes a pair, all contexts together.
    contexts_with_unseen_pairs : int
        Contexts in which some pair was never compared.
    prior : float
        Votes added to each side of each pair before the preferences are estimated.
    """

    votes: float
    ties: float
    items: int
    contexts: int
    pairs_seen: int
    pairs: int
    min_votes: float
    median_votes: float
    contexts_with_unseen_pairs: int
    prior: float

    def __str__(self) -> str:
        lines = [
            f"{self.votes:.10g} votes on {self.items} items, {self.ties:.10g} of them tied",
            f"{self.pairs_seen} of {self.pairs} pairs compared; votes a pair: at least {self.min_votes:.10g}, "
            f"median {self.median_votes:.10g}",
        ]
        if self.contexts > 1:
            lines.append(f"{self.contexts} contexts, {self.contexts_with_unseen_pairs} with pairs never compared")
        if self.prior > 0:
            lines.append(f"prior: {self.prior:g} votes for each side of each pair; a pair never compared is 1/2")
        else:
            lines.append("no prior: the preferences are the observed frequencies")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Counts of pairwise comparisons.

    Attributes
    ----------
    items : tuple of str
        Names of the items.
    contexts : tuple of str or None
        Names of the contexts; None when all votes are pooled, and then the arrays have one context.
    wins : numpy.ndarray
        Weighted votes for the row over the column, shape ``(contexts, n, n)``.
    ties : numpy.ndarray
        Weighted ties, symmetric, shape ``(contexts, n, n)``.
    prior : float
        Votes added to each side of each pair by `game`, unless it is told another number.
    """

    items: tuple[str, ...]
    contexts: tuple[str, ...] | None
    wins: Array
    ties: Array
    prior: float = 0.5

    def __post_init__(self) -> None:
        shape = (1 if self.contexts is None else len(self.contexts), len(self.items), len(self.items))
        for name in ("wins", "ties"):
            array = ensure_array(name, getattr(self, name))
            if array.shape != shape or (array < 0).any():
                raise InputError(f"{name} has shape {array.shape}, must be {shape}, and none of its entries negative")
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Comparisons, (self.items, self.contexts, self.wins, self.ties, self.prior))

    @property
    def totals(self) -> Array:
        """Weighted votes of each pair, ties included, symmetric, shape ``(contexts, n, n)``."""
        return self.wins + np.swapaxes(self.wins, -1, -2) + self.ties

    def coverage(self) -> Coverage:
        """Return how many votes there are and which pairs they reach.

        Examples
        --------
        >>> import nlhfsim as nl
        >>> print(nl.datasets.load("mtbench").comparisons.coverage())
        3355 votes on 6 items, 780 of them tied
        15 of 15 pairs compared; votes a pair: at least 150, median 212
        no prior: the preferences are the observed frequencies
        """
        n = len(self.items)
        upper = np.triu_indices(n, 1)
        by_context = self.totals[:, upper[0], upper[1]]
        by_pair = by_context.sum(axis=0)
        return Coverage(
            votes=float(by_pair.sum()),
            ties=float(self.ties[:, upper[0], upper[1]].sum()),
            items=n,
            contexts=len(self.wins),
            pairs_seen=int((by_pair > 0).sum()),
            pairs=len(by_pair),
            min_votes=float(by_pair.min()),
            median_votes=float(np.median(by_pair)),
            contexts_with_unseen_pairs=int((by_context == 0).any(axis=1).sum()),
            prior=self.prior,
        )

    def game(self, beta: float = 0.1, reference: npt.ArrayLike | None = None, prior: float | None = None) -> PreferenceGame:
        """Return the game of the estimated preferences.

        Parameters
        ----------
        beta : float
            Regularization β ≥ 0.
        reference : array_like, optional
            Reference policy. Default: uniform.
        prior : float, optional
            Votes added to each side of each pair. Default: that of these comparisons.

        Returns
        -------
        PreferenceGame
            ``P = (wins + ties / 2 + prior) / (total + 2 prior)``, the mean of the Beta posterior of each pair under a Beta(prior,
            prior) prior. A context's weight is its share of the votes.

        Raises
        ------
        InputError
            If `prior` is negative, or 0 while a pair was never compared; the message names the pair.
        """
        added = self.prior if prior is None else ensure_nonnegative("prior", prior)
        totals = self.totals
        if added == 0:
            self._refuse_unseen_pairs(totals)
        with np.errstate(invalid="ignore"):
            preferences = (self.wins + self.ties / 2 + added) / (totals + 2 * added)
        diagonal = np.arange(len(self.items))
        preferences[:, diagonal, diagonal] = 0.5
        kept = self if added == self.prior else Comparisons(self.items, self.contexts, self.wins, self.ties, added)
        if self.contexts is None:
            return PreferenceGame(preferences[0], beta, reference, self.items, comparisons=kept)
        votes = totals.sum(axis=(1, 2))
        return PreferenceGame(preferences, beta, reference, self.items, votes / votes.sum(), comparisons=kept)

    def _refuse_unseen_pairs(self, totals: Array) -> None:
        unseen = np.argwhere((totals == 0) & ~np.eye(len(self.items), dtype=bool))
        if len(unseen):
            k, i, j = unseen[0]
            place = "" if self.contexts is None else f" in context {self.contexts[k]!r}"
            raise InputError(
                f"{self.items[i]!r} and {self.items[j]!r} were never compared{place}: prior = 0 leaves their preference open, "
                "must be positive (0.5, say)"
            )


def from_comparisons(
    table: Any,
    *,
    context: str | Sequence[str] | None = None,
    weight: str | None = None,
    prior: float = 0.5,
    beta: float = 0.1,
    reference: npt.ArrayLike | None = None,
) -> PreferenceGame:
    """Return the game estimated from pairwise comparisons.

    Parameters
    ----------
    table : data frame, iterable of dicts or tuples, or path
        One comparison a row: ``item_a, item_b, winner`` (or ``model_a, model_b, winner``), and where present ``context`` and
        ``weight``; tuples in that order. The winner is the item itself, or item_a, item_b, model_a, model_b, or tie. Rows of
        counts are taken too: ``item_i, item_j, wins_i, wins_j`` and where present ``ties``. Files: .csv, .jsonl, and .parquet,
        which needs ``pip install nlhfsim[data]``.
    context : str or sequence of str, optional
        Column, or columns, whose every value is a context of the game, weighted with its share of the votes. Default: the column
        called "context", if there is one. ``context=()`` pools all rows.
    weight : str, optional
        Column of the rows' weights. Default: the column called "weight", if there is one, else every row counts once.
    prior : float
        Votes added to each side of each pair: the preference is the mean of its posterior under a Beta(prior, prior) prior. At 0
        it is the observed frequency, ties being half a win each.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy. Default: uniform.

    Returns
    -------
    PreferenceGame
        The items in natural order of their names, with ``game.comparisons`` the counts.

    Raises
    ------
    DataError
        If the table is not one of comparisons, or they do not connect its items; the message names the place.
    InputError
        If an option is wrong, or `prior` is 0 and a pair was never compared.
    MissingExtraError
        For .parquet without pyarrow.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> votes = [("A", "B", "A"), ("A", "B", "tie"), ("B", "C", "B"), ("A", "C", "C")]
    >>> game = nl.datasets.from_comparisons(votes)
    >>> game.labels, game.preferences.round(3).tolist()
    (('A', 'B', 'C'), [[0.5, 0.667, 0.25], [0.333, 0.5, 0.75], [0.75, 0.25, 0.5]])
    """
    return read_comparisons(table, context=context, weight=weight, prior=prior).game(beta, reference)


def read_comparisons(
    table: Any,
    *,
    context: str | Sequence[str] | None = None,
    weight: str | None = None,
    prior: float = 0.5,
) -> Comparisons:
    """Count pairwise comparisons; the arguments are those of `from_comparisons`.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> counts = nl.datasets.read_comparisons([("A", "B", "A"), ("A", "B", "tie")])
    >>> counts.wins.tolist(), counts.ties.tolist()
    ([[[0.0, 1.0], [0.0, 0.0]]], [[[0.0, 1.0], [1.0, 0.0]]])
    """
    added = ensure_nonnegative("prior", prior)
    source = read_table(table)
    votes = read_votes(source, context, weight)
    items = sorted({*votes.first, *votes.second}, key=_natural)
    contexts = None if votes.contexts is None else sorted(set(votes.contexts), key=lambda key: [_natural(part) for part in key])
    wins, ties = _count(votes, items, contexts, source.source)
    _refuse_unplayable(source.source, items, (wins + np.swapaxes(wins, 1, 2) + ties).sum(axis=0))
    labels = None if contexts is None else tuple(", ".join(key) for key in contexts)
    if labels is not None:
        _refuse_empty_contexts(source.source, labels, wins, ties)
    return Comparisons(tuple(items), labels, wins, ties, added)


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts item 2 before item 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def _count(votes: Votes, items: list[str], contexts: list[tuple[str, ...]] | None, source: str) -> tuple[Array, Array]:
    shape = (1 if contexts is None else len(contexts), len(items), len(items))
    if np.prod(shape, dtype=float) > _MAX_ENTRIES:
        raise DataError(
            f"{source} has {shape[1]} items in {shape[0]} contexts, {8e-9 * np.prod(shape, dtype=float):.1f} GB a matrix: "
            "must be fewer (context=() pools the contexts)"
        )
    wins, ties = np.zeros(shape), np.zeros(shape)
    first, second = index_of(votes.first, items), index_of(votes.second, items)
    if votes.contexts is None or contexts is None:
        place = np.zeros(len(first), dtype=np.intp)
    else:
        place = index_of(votes.contexts, contexts)
    np.add.at(wins, (place, first, second), votes.wins_first)
    np.add.at(wins, (place, second, first), votes.wins_second)
    np.add.at(ties, (place, first, second), votes.ties)
    np.add.at(ties, (place, second, first), votes.ties)
    return wins, ties


def _refuse_unplayable(source: str, items: list[str], totals: Array) -> None:
    """Refuse a graph of comparisons, shape ``(n, n)``, that is in pieces or a star."""
    from scipy.sparse.csgraph import connected_components

    met = totals > 0
    count, component = connected_components(met, directed=False)
    if count > 1:
        groups = [[item for item, c in zip(items, component) if c == k] for k in range(count)]
        named = "; ".join(_shortened(group) for group in groups[:4]) + ("; …" if count > 4 else "")
        raise DataError(f"{source} falls into {count} groups of items never compared with each other, must be one: {named}")
    if len(items) < 3:
        return
    edges = met.sum() / 2
    hubs = [item for item, degree in zip(items, met.sum(axis=1)) if degree == edges]
    if hubs:
        raise DataError(
            f"{source}: every comparison involves {hubs[0]!r}, so the other items are never compared with each other and there "
            "is no game between them; must hold comparisons among them too"
        )


def _shortened(group: list[str]) -> str:
    return ", ".join(group[:5]) + (f" and {len(group) - 5} more" if len(group) > 5 else "")


def _refuse_empty_contexts(source: str, labels: tuple[str, ...], wins: Array, ties: Array) -> None:
    empty = np.flatnonzero((wins + ties).sum(axis=(1, 2)) == 0)
    if len(empty):
        raise DataError(f"{source}: context {labels[empty[0]]!r} has no votes, all its weights are 0, must have some")
