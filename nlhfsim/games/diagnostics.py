"""What the majorities of a game look like: a Condorcet winner, or a cycle."""

from __future__ import annotations

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


def _has_cycle(majority: npt.NDArray[np.bool_]) -> bool:
    """Return whether the digraph has a strong component of more than one action."""
    from scipy.sparse.csgraph import connected_components

    count, _ = connected_components(majority, directed=True, connection="strong")
    return bool(count < len(majority))
