"""Named games: cycles, tournaments, Bradley–Terry preferences, and mixtures of annotators."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import (
    Array,
    InputError,
    ensure_array,
    ensure_between,
    ensure_distribution,
    ensure_integer,
    ensure_nonnegative,
)
from nlhfsim.games.game import PreferenceGame

_ROUNDING = 1e-12
_CONDORCET = ((3.0, 2.0, 1.0), (1.0, 3.0, 2.0), (2.0, 1.0, 3.0))


def rock_paper_scissors(
    margin: float = 0.5, bias: float = 0.0, *, beta: float = 0.1, reference: npt.ArrayLike | None = None
) -> PreferenceGame:
    """Rock–paper–scissors: paper beats rock, scissors beat paper, rock beats scissors.

    Parameters
    ----------
    margin : float
        Each winner's probability of winning, less 1/2; in [0, 1/2].
    bias : float
        Added to the margin of one edge, rock over scissors; ``margin + bias`` must lie in [0, 1/2].
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(3,)``. Default: uniform.

    Returns
    -------
    PreferenceGame
        Three actions: rock, paper, scissors.

    Raises
    ------
    InputError
        If a margin lies outside [0, 1/2].

    Notes
    -----
    The von Neumann winner weights each action with the margin of the edge between the other two, so a biased edge moves
    probability to paper (Kaplansky, *A contribution to von Neumann's theory of games*, Annals of Mathematics 46, 1945).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.rock_paper_scissors(margin=0.5, bias=-0.25).preferences
    array([[0.5 , 0.  , 0.75],
           [1.  , 0.5 , 0.  ],
           [0.25, 1.  , 0.5 ]])
    """
    even = ensure_between("margin", margin, 0, 0.5)
    biased = even + ensure_between("bias", bias, -0.5, 0.5)
    if not -_ROUNDING <= biased <= 0.5 + _ROUNDING:
        raise InputError(f"margin + bias = {biased:g} must lie between 0 and 0.5")
    biased = min(max(biased, 0.0), 0.5)
    advantages = np.array([[0, -even, biased], [even, 0, -even], [-biased, even, 0]])
    return PreferenceGame(advantages + 0.5, beta, reference, ["rock", "paper", "scissors"])


def generalized_rock_paper_scissors(n: int, *, beta: float = 0.1, reference: npt.ArrayLike | None = None) -> PreferenceGame:
    """Rock–paper–scissors with an odd number of actions: each surely beats the next ``(n - 1) / 2`` and loses to the rest.

    Parameters
    ----------
    n : int
        Number of actions, odd and at least 3.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(n,)``. Default: uniform.

    Returns
    -------
    PreferenceGame
        P in {0, 1/2, 1}; the von Neumann winner is uniform (the game is the same seen from every action).

    Raises
    ------
    InputError
        If `n` is even or below 3.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.generalized_rock_paper_scissors(5).preferences[0]
    array([0.5, 1. , 1. , 0. , 0. ])
    """
    size = ensure_integer("n", n, 3)
    if size % 2 == 0:
        raise InputError(f"n = {size} must be odd, so that each action beats as many as it loses to")
    return PreferenceGame(_cycle(size, 0.5, (size - 1) // 2) + 0.5, beta, reference)


def cyclic_tournament(
    n: int,
    margin: float = 0.5,
    reach: int | None = None,
    *,
    beta: float = 0.1,
    reference: npt.ArrayLike | None = None,
) -> PreferenceGame:
    """Cyclic tournament: each action beats the next `reach` ones around the circle, the other pairs tie.

    Parameters
    ----------
    n : int
        Number of actions, at least 3.
    margin : float
        The winner's probability of winning, less 1/2; in [0, 1/2].
    reach : int, optional
        How many of the next actions each one beats, from 1 to ``(n - 1) // 2``. Default: ``(n - 1) // 2``.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(n,)``. Default: uniform.

    Returns
    -------
    PreferenceGame
        A circulant game: the uniform policy is a von Neumann winner. Many modes rotate at once, so it tests stability harder
        than one 3-cycle.

    Raises
    ------
    InputError
        If an argument is outside its range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.cyclic_tournament(5, margin=0.25, reach=1).preferences[0]
    array([0.5 , 0.75, 0.5 , 0.5 , 0.25])
    """
    size = ensure_integer("n", n, 3)
    edge = ensure_between("margin", margin, 0, 0.5)
    longest = (size - 1) // 2
    steps = longest if reach is None else ensure_integer("reach", reach, 1)
    if steps > longest:
        raise InputError(f"reach = {steps} must be at most (n - 1) // 2 = {longest}, or two actions beat each other")
    return PreferenceGame(_cycle(size, edge, steps) + 0.5, beta, reference)


def bradley_terry(scores: npt.ArrayLike, *, beta: float = 0.1, reference: npt.ArrayLike | None = None) -> PreferenceGame:
    """Bradley–Terry preferences: ``P[i, j] = sigmoid(s_i - s_j)``. Transitive, the highest score is the Condorcet winner.

    Parameters
    ----------
    scores : array_like
        Scores (rewards) s, shape ``(n,)``, in log-odds.
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
        If `scores` is not a non-empty vector of finite numbers.

    Notes
    -----
    Bradley & Terry, *Rank analysis of incomplete block designs*, Biometrika 39 (1952).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.bradley_terry([1.0, 0.0]).preferences.round(3)
    array([[0.5  , 0.731],
           [0.269, 0.5  ]])
    """
    values = ensure_array("scores", scores)
    if values.ndim != 1 or not len(values):
        raise InputError(f"scores has shape {values.shape}, must be (n,)")
    return PreferenceGame(_log_odds(values[:, None] - values) + 0.5, beta, reference)


def annotator_mixture(
    utilities: npt.ArrayLike | None = None,
    shares: npt.ArrayLike | None = None,
    sharpness: float | None = None,
    *,
    beta: float = 0.1,
    reference: npt.ArrayLike | None = None,
) -> PreferenceGame:
    """Mixture of annotators: each is consistent, their majority need not be.

    Parameters
    ----------
    utilities : array_like, optional
        What each annotator thinks of each action, shape ``(annotators, n)``. Default: three annotators who order three actions
        0 > 1 > 2, 1 > 2 > 0 and 2 > 0 > 1, Condorcet's paradox.
    shares : array_like, optional
        Share of the votes that each annotator gives, shape ``(annotators,)``, adding up to 1. Default: equal.
    sharpness : float, optional
        An annotator prefers i to j with probability ``sigmoid(sharpness · (u_i - u_j))``. Default: surely, an equal utility being
        half a vote each.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(n,)``. Default: uniform.

    Returns
    -------
    PreferenceGame
        ``P[i, j] = Σ_k shares_k · P_k[i, j]``.

    Raises
    ------
    InputError
        If a shape is wrong, the shares do not add up to 1, or `sharpness` is negative.

    Notes
    -----
    Condorcet, *Essai sur l'application de l'analyse à la probabilité des décisions rendues à la pluralité des voix* (1785).

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.annotator_mixture()
    >>> game.preferences.round(3)
    array([[0.5  , 0.667, 0.333],
           [0.333, 0.5  , 0.667],
           [0.667, 0.333, 0.5  ]])
    >>> nl.games.has_majority_cycle(game)
    True
    """
    values = ensure_array("utilities", _CONDORCET if utilities is None else utilities)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"utilities has shape {values.shape}, must be (annotators, n)")
    count = len(values)
    given = np.full(count, 1 / count) if shares is None else shares
    weights = ensure_distribution("shares", given, (count,), full_support=False)
    difference = values[:, :, None] - values[:, None, :]
    if sharpness is None:
        votes = (np.sign(difference) + 1) / 2
    else:
        votes = _log_odds(ensure_nonnegative("sharpness", sharpness) * difference) + 0.5
    return PreferenceGame(np.clip(np.tensordot(weights, votes, axes=1), 0, 1), beta, reference)


def transitive_cyclic(n: int, mixing: float, *, beta: float = 0.1, reference: npt.ArrayLike | None = None) -> PreferenceGame:
    """Blend of a total order and a cycle: ``(1 - mixing) · transitive + mixing · cyclic``.

    Parameters
    ----------
    n : int
        Number of actions, at least 3.
    mixing : float
        Weight of the cyclic part, in [0, 1].
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(n,)``. Default: uniform.

    Returns
    -------
    PreferenceGame
        The transitive part: action i surely beats every j > i. The cyclic part: each action surely beats the next
        ``(n - 1) // 2``. Action 0 is the Condorcet winner as long as ``mixing < 1/2``.

    Raises
    ------
    InputError
        If an argument is outside its range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.transitive_cyclic(3, mixing=0.25).preferences
    array([[0.5 , 1.  , 0.75],
           [0.  , 0.5 , 1.  ],
           [0.25, 0.  , 0.5 ]])
    """
    size = ensure_integer("n", n, 3)
    share = ensure_between("mixing", mixing, 0, 1)
    order = np.triu(np.full((size, size), 0.5), 1)
    advantages = (1 - share) * (order - order.T) + share * _cycle(size, 0.5, (size - 1) // 2)
    return PreferenceGame(advantages + 0.5, beta, reference)


def _cycle(n: int, margin: float, reach: int) -> Array:
    """Return the advantages of the cyclic tournament, shape ``(n, n)``."""
    ahead = (np.arange(n) - np.arange(n)[:, None]) % n
    return margin * (((1 <= ahead) & (ahead <= reach)).astype(np.float64) - (ahead >= n - reach))


def _log_odds(score: Array) -> Array:
    """Return ``sigmoid(score) - 1/2``, exactly skew-symmetric for a skew-symmetric score."""
    return np.asarray(np.tanh(score / 2) / 2)
