"""Hypothesis strategies of games, references, policies and logs of comparisons.

Everything is built from whole numbers, so that what Hypothesis shrinks a counterexample to can be read: preferences among 1/2, 0
and 1, then quarters and steps of 0.05; the uniform reference; β = 1; few actions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from nlhfsim.errors import Array, InputError, ensure_integer, ensure_nonnegative, ensure_positive
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.testing._drawing import (
    Bounds,
    Parts,
    bounds_of,
    games_of,
    logs_of,
    low_rank_of,
    matrix_of,
    policy_of,
    references_of,
    slots_of,
)


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
    low, high = bounds_of("n", n)
    floor = ensure_positive("smallest", smallest)
    if not 1e-300 <= floor <= 1 / high:
        raise InputError(f"smallest = {floor:g} must lie between 1e-300 and 1/n = {1 / high:g}")
    return slots_of(low, high).flatmap(lambda slots: policy_of(slots, floor))


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
    low, high = bounds_of("n", n)
    return slots_of(low, high).flatmap(matrix_of)


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
    sizes = bounds_of("n", n)
    strengths = (
        betas() if beta is None else beta if isinstance(beta, st.SearchStrategy) else st.just(ensure_nonnegative("beta", beta))
    )
    rows = references_of(reference, ensure_positive("smallest_reference", smallest_reference))
    counts = None if contexts is None else bounds_of("contexts", contexts)
    return games_of(sizes, counts, Parts(strengths, low_rank_of if low_rank else matrix_of, rows))


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
    sizes, counts = bounds_of("items", items), None if contexts is None else bounds_of("contexts", contexts)
    if sizes[0] < 2 or sizes[1] > 26:
        raise InputError(f"items = {items} must lie between 2 and 26")
    return logs_of(sizes, ensure_integer("more", more), counts, weights)
