"""Games that need no matrix: low-rank preferences, and preferences as a function of the pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, InputError, ensure_array, ensure_integer, ensure_positive
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import LowRankPayoff, PairwisePayoff

_STORED = 2000
"""Up to so many actions a preference representation stores its matrix, which makes exact feedback fast."""


def low_rank(U: npt.ArrayLike, V: npt.ArrayLike, *, beta: float = 0.1, reference: npt.ArrayLike | None = None) -> PreferenceGame:
    """Low-rank preferences: ``P = 1/2 + U Vᵀ - V Uᵀ``, of rank at most twice the number of columns. No matrix is stored.

    A product with a policy costs O(n · rank), the equilibrium O(n · rank²) an iteration, so a million actions are in reach.

    Parameters
    ----------
    U, V : array_like
        Factors, shape ``(n, rank)`` each; every entry of ``U Vᵀ - V Uᵀ`` must lie in [-1/2, 1/2]. This is clear if no row of
        ``[U, V]`` is longer than ``sqrt(1/2)``; else every entry is checked, in blocks.
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
        If the shapes differ, or an advantage lies outside [-1/2, 1/2]; the message names the entry. With long rows and over
        2·10^11 products of entries to check, a game whose rows do not prove the bound is refused too.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.low_rank([[0.5], [0.0]], [[0.0], [0.5]]).preferences
    array([[0.5 , 0.75],
           [0.25, 0.5 ]])
    """
    return PreferenceGame(LowRankPayoff(ensure_array("U", U), ensure_array("V", V)), beta, reference)


def pairwise(
    function: Callable[[Any, Any], Any], n: int, *, beta: float = 0.1, reference: npt.ArrayLike | None = None
) -> PreferenceGame:
    """Preferences as a function of the pair: ``P[i, j] = function(i, j)``, evaluated when it is asked for.

    With exact feedback every product with a policy evaluates all n² pairs; `PreferenceGame.materialized` stores them once.

    Parameters
    ----------
    function : callable
        ``function(i, j)`` for integer arrays of one shape: the probabilities that action i is preferred to action j, of that
        shape, with ``function(i, j) + function(j, i) == 1``. Checked at 4,096 pairs (at every pair of at most 64 actions). If
        it is compiled by Numba (``@numba.njit``) and takes numbers as well as arrays, votes call it directly, in nanoseconds.
    n : int
        Number of actions, at least 1.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(n,)``. Default: uniform.

    Raises
    ------
    InputError
        If the function does not return probabilities that add up to 1; the message names the pair.

    Examples
    --------
    >>> import numpy as np, nlhfsim as nl
    >>> angle = np.linspace(0, 2 * np.pi, 5, endpoint=False)
    >>> game = nl.games.pairwise(lambda i, j: 0.5 + 0.5 * np.sin(angle[i] - angle[j]), 5)
    >>> nl.exploitability(game, game.reference, regularized=False) < 1e-15
    True
    """
    return PreferenceGame(PairwisePayoff(function, ensure_integer("n", n, 1)), beta, reference)


class Representation(NamedTuple):
    """``sigmoid(scale · ⟨R e_i, e_j⟩)`` as a function of the pair, arrays of shape ``(n, dimension)``."""

    vectors: Array
    rotated: Array
    scale: float

    def __call__(self, i: npt.NDArray[np.int64], j: npt.NDArray[np.int64]) -> Array:
        score = np.einsum("...k,...k->...", self.rotated[i], self.vectors[j])
        return np.asarray(0.5 + np.tanh(self.scale * score / 2) / 2)


def preference_representation(
    embeddings: npt.ArrayLike, scale: float = 1.0, *, beta: float = 0.1, reference: npt.ArrayLike | None = None
) -> PreferenceGame:
    """General preference representation: ``P[i, j] = sigmoid(scale · ⟨R e_i, e_j⟩)``, R turning each coordinate pair by 90°.

    Parameters
    ----------
    embeddings : array_like
        Embeddings e of the actions, shape ``(n, dimension)``, the dimension even.
    scale : float
        Positive factor of the score, the inverse of the paper's temperature.
    beta : float
        Regularization β ≥ 0.
    reference : array_like, optional
        Reference policy, shape ``(n,)``. Default: uniform.

    Returns
    -------
    PreferenceGame
        The game of n actions; up to 2,000 of them its matrix is stored, beyond that it is a function of the pair.

    Raises
    ------
    InputError
        If the dimension is odd or zero, or `scale` is not positive.

    Notes
    -----
    Zhang et al., *Beyond Bradley–Terry models: a general preference model for language model alignment*, arXiv 2410.02197. R is
    block diagonal with blocks [[0, -1], [1, 0]], so the score is skew-symmetric; in dimension 2 an action beats those that lie
    less than 180° counter-clockwise of it.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.preference_representation([[1.0, 0.0], [0.0, 1.0]]).preferences.round(3)
    array([[0.5  , 0.731],
           [0.269, 0.5  ]])
    """
    vectors = ensure_array("embeddings", embeddings)
    if vectors.ndim != 2 or 0 in vectors.shape or vectors.shape[1] % 2:
        raise InputError(f"embeddings has shape {vectors.shape}, must be (n, dimension) with an even dimension")
    rotated = np.empty_like(vectors)
    rotated[:, 0::2], rotated[:, 1::2] = -vectors[:, 1::2], vectors[:, 0::2]
    game = PreferenceGame(
        PairwisePayoff(Representation(vectors, rotated, ensure_positive("scale", scale)), len(vectors)), beta, reference
    )
    return game.materialized() if game.n <= _STORED else game
