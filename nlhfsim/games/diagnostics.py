"""What the majorities of a game look like: a Condorcet winner, the top cycle, and how many triples of actions go in a circle."""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import dense

_TIE = 1e-12


def condorcet_winner(game: PreferenceGame) -> str | None | list[str | None]:
    """Return the action that beats every other with probability above 1/2.

    Parameters
    ----------
    game : PreferenceGame
        The game; a margin of at most 1e-12 is rounding and counts as a tie.

    Returns
    -------
    str or None, or a list of them
        Its label, None where there is none; for a game with a context axis a list with one entry a context.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.condorcet_winner(nl.games.bradley_terry([0.0, 2.0, 1.0]))
    '1'
    >>> nl.games.condorcet_winner(nl.games.rock_paper_scissors()) is None
    True
    """
    winners = [_winner(majority, game.labels) for majority in _majorities(game)]
    return winners if game.batched else winners[0]


def has_majority_cycle(game: PreferenceGame) -> bool | list[bool]:
    """Return whether some actions beat each other in a circle, each the next with probability above 1/2.

    Parameters
    ----------
    game : PreferenceGame
        The game; a margin of at most 1e-12 is rounding and counts as a tie.

    Returns
    -------
    bool, or a list of them
        For a game with a context axis a list with one entry a context.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.has_majority_cycle(nl.games.rock_paper_scissors())
    True
    >>> nl.games.has_majority_cycle(nl.games.bradley_terry([0.0, 2.0, 1.0]))
    False
    """
    cycles = [_has_cycle(majority) for majority in _majorities(game)]
    return cycles if game.batched else cycles[0]


def majority_cycles(game: PreferenceGame) -> tuple[tuple[str, ...], ...]:
    """Return the sets of actions that majorities lead round: any two of a set lie on a circle in which each beats the next.

    Parameters
    ----------
    game : PreferenceGame
        One context; a margin of at most 1e-12 is rounding and counts as a tie.

    Returns
    -------
    tuple of tuple of str
        Labels in the game's order; the set that beats more comes first. Actions on no circle are in none.

    Raises
    ------
    InputError
        If the game has a context axis.

    Notes
    -----
    The strong components of the majorities that hold more than one action. Without ties the first of them is the top cycle where
    there is no Condorcet winner.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.majority_cycles(nl.games.rock_paper_scissors())
    (('rock', 'paper', 'scissors'),)
    >>> nl.games.majority_cycles(nl.datasets.load("mtbench"))
    ()
    """
    from scipy.sparse.csgraph import connected_components

    if game.batched:
        raise InputError("game has contexts; look at one of them, game.context(index)")
    majority = _majorities(game)[0]
    _, component = connected_components(majority, directed=True, connection="strong")
    sets = [np.flatnonzero(component == k) for k in np.unique(component)]
    circles = sorted((s for s in sets if len(s) > 1), key=lambda s: (-float(majority[s].sum(axis=1).mean()), int(s[0])))
    return tuple(tuple(game.labels[int(i)] for i in circle) for circle in circles)


def top_cycle(game: PreferenceGame) -> tuple[str, ...] | list[tuple[str, ...]]:
    """Return the top cycle, or Smith set: the smallest non-empty set of actions each of which beats every action outside it.

    Parameters
    ----------
    game : PreferenceGame
        The game. To beat is to be preferred with probability above 1/2; a margin of at most 1e-12 is rounding and counts as a
        tie. A tie beats nothing, so what ties with a member is a member too. (The Schwartz set, which lets outsiders tie, may be
        smaller where there are ties; without ties it is the same set.)

    Returns
    -------
    tuple of str, or a list of them
        Labels in the game's order: the Condorcet winner alone where there is one, else at least two. For a game with a context
        axis a list with one entry a context.

    Notes
    -----
    The strong components of "is not beaten by" are totally ordered, and the top cycle is the first of them. Smith, *Aggregation
    of preferences with variable electorate*, Econometrica 41 (1973); Schwartz, *The Logic of Collective Choice* (1986).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.top_cycle(nl.games.rock_paper_scissors())
    ('rock', 'paper', 'scissors')
    >>> nl.games.top_cycle(nl.datasets.load("mtbench"))
    ('gpt-4',)
    """
    sets = [tuple(label for label, inside in zip(game.labels, _top(m)) if inside) for m in _majorities(game)]
    return sets if game.batched else sets[0]


class CyclicTriples(NamedTuple):
    """How many triples of actions are strict majority three-cycles.

    Attributes
    ----------
    cyclic : int
        Triples in which each action beats one of the two others.
    triples : int
        All triples, ``n (n - 1) (n - 2) / 6``.
    share : float
        ``cyclic / triples``, 0 where there are no triples. At most ``(n + 1) / (4 (n - 2))``, which tends to 1/4.
    """

    cyclic: int
    triples: int
    share: float


def cyclic_triples(game: PreferenceGame) -> CyclicTriples | list[CyclicTriples]:
    """Return how many triples of actions go in a circle, each beating the next with probability above 1/2.

    Parameters
    ----------
    game : PreferenceGame
        The game; a margin of at most 1e-12 is rounding and counts as a tie, and a triple with a tie in it is not cyclic.

    Returns
    -------
    CyclicTriples, or a list of them
        For a game with a context axis a list with one entry a context.

    Notes
    -----
    The count is ``trace(M³) / 3``, M the matrix of strict majorities, exact up to n of 200,000. Without ties it is that of
    Kendall & Babington Smith, *On the method of paired comparisons*, Biometrika 31 (1940), from the numbers of wins alone.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.cyclic_triples(nl.games.rock_paper_scissors())
    CyclicTriples(cyclic=1, triples=1, share=1.0)
    >>> nl.games.cyclic_triples(nl.datasets.load("kendall1940-girls"))[:2]
    (16, 165)
    """
    counted = [_count_cycles(majority) for majority in _majorities(game)]
    return counted if game.batched else counted[0]


def strongest_cycle(game: PreferenceGame) -> tuple[str, str, str] | None:
    """Return the majority three-cycle whose weakest edge is strongest, each action beating the next; None if there is none.

    Raises
    ------
    InputError
        If the game has a context axis.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.strongest_cycle(nl.games.rock_paper_scissors())
    ('rock', 'scissors', 'paper')
    """
    if game.batched:
        raise InputError("game has contexts; look at one of them, game.context(index)")
    wins = np.where(_strict(game.advantages), game.advantages, 0.0)
    best, found = 0.0, None
    for first in range(game.n):
        # weakest[j, k] is the weakest edge of first -> j -> k -> first.
        weakest = np.minimum(np.minimum(wins[first][:, None], wins), wins[:, first][None, :])
        j, k = np.unravel_index(int(weakest.argmax()), weakest.shape)
        if weakest[j, k] > best:
            best, found = float(weakest[j, k]), (game.labels[first], game.labels[int(j)], game.labels[int(k)])
    return found


def _majorities(game: PreferenceGame) -> list[npt.NDArray[np.bool_]]:
    return [_strict(dense(context.payoff)) for context in game.contexts]


def _strict(advantages: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(advantages > _TIE)


def _winner(majority: npt.NDArray[np.bool_], labels: tuple[str, ...]) -> str | None:
    beaten = majority.sum(axis=1)
    best = int(beaten.argmax())
    return labels[best] if beaten[best] == len(labels) - 1 else None


def _top(majority: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which actions are in the top cycle."""
    from scipy.sparse.csgraph import connected_components

    unbeaten = ~majority.T
    _, component = connected_components(unbeaten, directed=True, connection="strong")
    # Outside the top cycle an action is beaten by all of it; inside, an action is unbeaten by all outside and by itself.
    return np.asarray(component == component[unbeaten.sum(axis=1).argmax()])


def _count_cycles(majority: npt.NDArray[np.bool_]) -> CyclicTriples:
    beats = majority.astype(np.float64)
    count = round(float(((beats @ beats) * beats.T).sum()) / 3)
    triples = comb(len(majority), 3)
    return CyclicTriples(count, triples, count / triples if triples else 0.0)


def _has_cycle(majority: npt.NDArray[np.bool_]) -> bool:
    """Return whether the digraph has a strong component of more than one action."""
    from scipy.sparse.csgraph import connected_components

    count, _ = connected_components(majority, directed=True, connection="strong")
    return bool(count < len(majority))
