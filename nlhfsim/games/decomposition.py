"""A game as a sum: preferences that a score explains, and what is left, which only goes in circles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import dense


@dataclass(frozen=True, eq=False)
class TransitiveCyclicSplit:
    """The two parts ``A = T + C`` of the advantages of one context, orthogonal to each other.

    Attributes
    ----------
    scores : numpy.ndarray
        s, shape ``(n,)``, with mean zero: an action's mean advantage over all actions, itself among them.
    transitive : numpy.ndarray
        ``T[i, j] = s[i] - s[j]``, shape ``(n, n)``, the nearest to A of all matrices of this form.
    cyclic : numpy.ndarray
        ``C = A - T``, shape ``(n, n)``, skew-symmetric, each of its rows adding up to 0.
    cyclic_share : float
        ``‖C‖² / ‖A‖²`` (Frobenius), in [0, 1]; 0 where every pair ties.
    """

    scores: Array
    transitive: Array = field(repr=False)
    cyclic: Array = field(repr=False)
    cyclic_share: float


def transitive_cyclic_split(game: PreferenceGame) -> TransitiveCyclicSplit | list[TransitiveCyclicSplit]:
    """Split the advantages ``A = P - 1/2`` into a transitive and a cyclic part.

    Parameters
    ----------
    game : PreferenceGame
        The game. Every pair counts equally, whatever the votes behind it; β and the reference do not matter.

    Returns
    -------
    TransitiveCyclicSplit, or a list of them
        For a game with a context axis a list with one entry a context.

    Notes
    -----
    T is the least-squares fit of score differences to A, the gradient part of the combinatorial Hodge decomposition (Jiang,
    Lim, Yao & Ye, *Statistical ranking and combinatorial Hodge theory*, Mathematical Programming 127 (2011)); the harmonic
    part is zero, as every pair is compared. For games: Candogan, Menache, Ozdaglar & Parrilo, *Flows and decompositions of
    games*, Mathematics of Operations Research 36 (2011), and Balduzzi et al., arXiv 1901.08106. A linear split of P: a
    Bradley–Terry game, whose log-odds are differences of scores, has a small cyclic part all the same.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.transitive_cyclic_split(nl.games.rock_paper_scissors()).cyclic_share
    1.0
    >>> split = nl.games.transitive_cyclic_split(nl.PreferenceGame([[0.5, 0.9], [0.1, 0.5]]))
    >>> split.scores, split.cyclic_share
    (array([ 0.2, -0.2]), 0.0)
    """
    splits = [_split(dense(context.payoff)) for context in game.contexts]
    return splits if game.batched else splits[0]


def _split(advantages: Array) -> TransitiveCyclicSplit:
    scores = advantages.mean(axis=1)
    scores = scores - scores.mean()
    transitive = scores[:, None] - scores[None, :]
    cyclic = advantages - transitive
    largest = float(np.abs(advantages).max())
    # Relative to the largest entry, as the square of a tiny one is zero.
    share = float(((cyclic / largest) ** 2).sum() / ((advantages / largest) ** 2).sum()) if largest > 0 else 0.0
    for array in (scores, transitive, cyclic):
        array.setflags(write=False)
    return TransitiveCyclicSplit(scores, transitive, cyclic, min(share, 1.0))
