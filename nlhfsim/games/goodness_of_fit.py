"""Whether votes could have come from a Bradley–Terry model: a parametric bootstrap of the deviance."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, ensure_integer
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.likelihood import degrees_of_freedom, deviances, maximize_likelihood, win_groups
from nlhfsim.games.random import as_generator
from nlhfsim.games.reward_model import Votes, observed_votes

_ENTRIES = 2_000_000


@dataclass(frozen=True, eq=False)
class BradleyTerryTest:
    """How badly the Bradley–Terry model fits the votes of one context.

    Attributes
    ----------
    deviance : float
        Twice the log-likelihood ratio of the observed frequencies over the fit, at least 0.
    degrees_of_freedom : int
        Pairs compared less scores fitted.
    p_value : float or None
        ``(b + 1) / (draws + 1)``, b the draws from the fitted model whose deviance is at least as large; None where there is
        nothing to test with, see `reason`. Small: the model does not fit.
    median_votes : float
        Median number of votes among the pairs compared; 0 without counts.
    reason : str
        Why there is no p-value; else empty.
    draws : int
        Bootstrap samples drawn.
    null_deviances : numpy.ndarray
        Their deviances, each from its own fit, shape ``(draws,)``; empty without a p-value.
    """

    deviance: float
    degrees_of_freedom: int
    p_value: float | None
    median_votes: float
    reason: str
    draws: int
    null_deviances: Array = field(repr=False)


def bradley_terry_test(
    game: PreferenceGame,
    *,
    votes_per_pair: int | None = None,
    draws: int = 1000,
    rng: np.random.Generator | int = 0,
) -> BradleyTerryTest | list[BradleyTerryTest]:
    """Test whether the votes behind a game could have come from Bradley–Terry preferences.

    Parameters
    ----------
    game : PreferenceGame
        A game with `comparisons`; the prior of the comparisons is left out, only votes cast are counted. Any other game has no
        p-value unless `votes_per_pair` says what its preferences stand for.
    votes_per_pair : int, optional
        Take the preferences of the game as the frequencies among so many votes a pair, instead of the counts.
    draws : int
        Bootstrap samples, at least 1; the smallest p-value is ``1 / (draws + 1)``.
    rng : numpy.random.Generator or int
        Source of randomness, or a seed.

    Returns
    -------
    BradleyTerryTest, or a list of them
        For a game with a context axis a list with one entry a context.

    Raises
    ------
    InputError
        If an option is outside its range, or `game.comparisons` is no table of counts for this game.

    Notes
    -----
    A parametric bootstrap of the likelihood ratio (Davison & Hinkley, *Bootstrap Methods and their Application*, 1997, section
    4.2.3). A sample has the votes of each pair redrawn independently, as many as there were, from the fitted model. A tie is
    half a win for each side, and ties are redrawn too, as frequent as they were in that pair (at most what the fitted
    probability allows): votes with ties vary less than votes without, and a test that forgets it rejects too rarely. Where the
    likelihood has no maximum, the fitted model is its limit: pairs between groups of the win graph are certain, pairs within a
    group may deviate.

    It holds its level from about ten votes a pair; with two it rejects about twice as often as it should, as the fit follows the
    noise. Votes that depend on each other, being of one voter or on one item, make the p-value too small.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.bradley_terry_test(nl.datasets.load("kendall1940-girls")).p_value > 0.5
    True
    >>> nl.games.bradley_terry_test(nl.datasets.load("regenwetter2012")).p_value < 0.001
    True
    >>> nl.games.bradley_terry_test(nl.games.rock_paper_scissors()).reason
    'no counts: the game was not made from comparisons; votes_per_pair says how many votes a pair stands for'
    """
    samples, generator = ensure_integer("draws", draws, 1), as_generator(rng)
    tests = [_test(votes, samples, generator) for votes in observed_votes(game, votes_per_pair, 0.0)]
    return tests if game.batched else tests[0]


def _p_value(deviance: float, null_deviances: Array) -> float:
    """Return ``(b + 1) / (draws + 1)``, b the draws at least as large; rounding of the fits makes no draw smaller."""
    return float((np.sum(null_deviances >= deviance - 1e-7 * (1 + deviance)) + 1) / (len(null_deviances) + 1))


def _test(votes: Votes, draws: int, generator: np.random.Generator) -> BradleyTerryTest:
    observed, freedom, null = 0.0, 0, np.zeros(draws)
    reason, median = _untestable(votes), _median_votes(votes)
    for group in win_groups(votes.wins):
        square = np.ix_(group, group)
        wins, ties = votes.wins[square], votes.ties[square]
        scores, _ = maximize_likelihood(wins[None])
        observed += float(deviances(wins[None], scores)[0])
        freedom += degrees_of_freedom(wins)
        if not reason and degrees_of_freedom(wins) > 0:
            null += _null_deviances(wins, ties, scores[0], draws, generator)
    if not reason and freedom == 0:
        reason = "nothing to test: there are as many scores as pairs compared, so that they fit exactly"
    if reason:
        return BradleyTerryTest(observed, freedom, None, median, reason, 0, np.zeros(0))
    null.setflags(write=False)
    return BradleyTerryTest(observed, freedom, _p_value(observed, null), median, "", draws, null)


def _median_votes(votes: Votes) -> float:
    total = np.triu(votes.wins + votes.wins.T)
    return float(np.median(total[total > 0])) if votes.counted and total.any() else 0.0


def _untestable(votes: Votes) -> str:
    if not votes.counted:
        return "no counts: the game was not made from comparisons; votes_per_pair says how many votes a pair stands for"
    total = votes.wins + votes.wins.T
    off = np.argwhere(np.abs(total - np.round(total)) > 1e-9 * np.maximum(total, 1.0))
    if len(off):
        return f"a pair has {total[tuple(off[0])]:.10g} votes: votes with weights that are no whole numbers cannot be redrawn"
    return ""


def _null_deviances(wins: Array, ties: Array, scores: Array, draws: int, generator: np.random.Generator) -> Array:
    """Return the deviances of samples from the fitted model, shape ``(draws,)``, a block of samples at a time."""
    from scipy.special import expit

    above = np.triu_indices(len(wins), 1)
    total = (wins + wins.T)[above]
    met = total > 0
    rows, columns = above[0][met], above[1][met]
    votes = np.round(total[met]).astype(np.int64)
    chance, tie_rate = expit(scores[rows] - scores[columns]), ties[rows, columns] / votes
    found = []
    size = max(1, _ENTRIES // wins.size)
    for begin in range(0, draws, size):
        table = np.zeros((min(size, draws - begin), *wins.shape))
        table[:, rows, columns] = _redrawn(votes, chance, tie_rate, len(table), generator)
        table[:, columns, rows] = votes - table[:, rows, columns]
        found.append(deviances(table, maximize_likelihood(table, scores, 1e-10)[0]))
    return np.concatenate(found)


def _redrawn(votes: npt.NDArray[np.int64], chance: Array, tie_rate: Array, draws: int, generator: np.random.Generator) -> Array:
    """Return wins of the first of each pair, ties counted half, shape ``(draws, pairs)``, with the mean ``votes * chance``."""
    rate = np.minimum(tie_rate, 2 * np.minimum(chance, 1 - chance))
    ties = generator.binomial(votes, rate, (draws, len(votes)))
    decided = np.divide(chance - rate / 2, 1 - rate, out=np.full(len(rate), 0.5), where=rate < 1)
    return np.asarray(generator.binomial(votes - ties, np.clip(decided, 0, 1)) + ties / 2)
