"""The best reward model of a game: Bradley–Terry scores by maximum likelihood, and their optimum beside the equilibrium."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nlhfsim.errors import Array, InputError, ensure_integer, ensure_nonnegative
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.likelihood import degrees_of_freedom, deviances, maximize_likelihood, win_groups
from nlhfsim.games.payoffs import advantage, dense
from nlhfsim.games.responses import exploitability_by_context
from nlhfsim.simplex import log_softmax, safe_log


class Votes(NamedTuple):
    """The votes behind one context.

    Attributes
    ----------
    wins : numpy.ndarray
        Votes for the row over the column, a tie half a vote for each side, shape ``(n, n)``, zero on the diagonal.
    ties : numpy.ndarray
        Tied votes among them, symmetric, shape ``(n, n)``.
    counted : bool
        Whether these are numbers of votes rather than equal weights.
    """

    wins: Array
    ties: Array
    counted: bool


@dataclass(frozen=True, eq=False)
class BradleyTerryFit:
    """Bradley–Terry scores of one context, ``P[i beats j] = sigmoid(s[i] - s[j])``, by maximum likelihood.

    Attributes
    ----------
    scores : numpy.ndarray or None
        s in log-odds, shape ``(n,)``, mean zero; None where the likelihood has no maximum.
    log_likelihood : float
        The largest log-likelihood, without binomial coefficients; where it has no maximum, its least upper bound.
    deviance : float
        Twice the log-likelihood ratio of the observed frequencies over the fit, at least 0.
    degrees_of_freedom : int
        Pairs compared less scores fitted: what the deviance is about where the model holds and the votes are many.
    status : str
        ``"converged"``; ``"no maximum"``: the win graph is not strongly connected, so that some scores run off to infinity (or
        are open, where the votes are in pieces); ``"not converged"``.
    message : str
        Empty where converged; for ``"no maximum"`` the actions to blame.
    groups : tuple of tuples of str
        Strong components of the win graph: one group if there is a maximum.
    """

    scores: Array | None
    log_likelihood: float
    deviance: float
    degrees_of_freedom: int
    status: str
    message: str
    groups: tuple[tuple[str, ...], ...] = field(repr=False)


def fit_bradley_terry(
    game: PreferenceGame, *, votes_per_pair: int | None = None, prior: float = 0.0
) -> BradleyTerryFit | list[BradleyTerryFit]:
    """Fit Bradley–Terry scores, the reward model of a game, by maximum likelihood.

    Parameters
    ----------
    game : PreferenceGame
        A game with `comparisons` is fitted to its counts, a tie being half a win for each side; any other to its
        preferences, all pairs weighted equally.
    votes_per_pair : int, optional
        Take the preferences of the game as the frequencies among so many votes a pair, instead of the counts.
    prior : float
        Votes added to each side of each pair; with any, there is a maximum. 0 is maximum likelihood.

    Returns
    -------
    BradleyTerryFit, or a list of them
        For a game with a context axis a list with one entry a context.

    Raises
    ------
    InputError
        If an option is outside its range, or `game.comparisons` is no table of counts for this game.

    Notes
    -----
    A maximum exists, and is then unique, exactly if, however the actions are split in two, each part has won a vote against the
    other (Ford, *Solution of a ranking problem from binary comparisons*, American Mathematical Monthly 64 (1957)). Otherwise each
    strong component of the win graph is fitted on its own, which gives the least upper bound. Newton's method, with a step that
    cannot overshoot.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.fit_bradley_terry(nl.games.bradley_terry([1.0, 0.0, -1.0])).scores.round(6)
    array([ 1.,  0., -1.])
    >>> fit = nl.games.fit_bradley_terry(nl.PreferenceGame([[0.5, 1.0], [0.0, 0.5]], labels=["A", "B"]))
    >>> fit.scores is None, fit.status, fit.message
    (True, 'no maximum', 'A never lost a vote to another action')
    """
    fits = [_fit(votes.wins, game.labels) for votes in observed_votes(game, votes_per_pair, prior)]
    return fits if game.batched else fits[0]


@dataclass(frozen=True, eq=False)
class RewardModelOptimum:
    """The KL-regularized optimum π_r of the fitted reward model, held against an equilibrium π*.

    Where a reward could not be fitted, in some context, what concerns π_r is None and `message` says why. Numbers are averaged
    over contexts with the game's weights; those that end in ``_by_context`` have shape ``(contexts,)``.

    Attributes
    ----------
    equilibrium_exploitability, equilibrium_gap0 : float
        ``E_β(π*)`` and ``E_0(π*)``.
    reward : numpy.ndarray or None
        r, the Bradley–Terry scores in log-odds, shape `game.policy_shape`.
    policy, log_policy : numpy.ndarray or None
        ``π_r ∝ ρ exp(r/β)`` in probability and log space, shape `game.policy_shape`; at β = 0 uniform over the highest scores.
    preference_rate : float or None
        ``P(π* ≻ π_r)``, unregularized. With β > 0 it may lie below 1/2: π* stays nearer to ρ (see `reward_model_optimum`).
    regularized_preference_rate : float or None
        ``P_β(π* ≻ π_r)``, which for β > 0 is ``1/2 + β KL(π_r‖π*)``, at least 1/2.
    exploitability, gap0 : float or None
        ``E_β(π_r)`` and ``E_0(π_r)``.
    preference_rate_by_context, exploitability_by_context, gap0_by_context : numpy.ndarray or None
        The same in each context.
    message : str
        Empty, or why there is no reward model, or none to rely on.
    """

    equilibrium_exploitability: float
    equilibrium_gap0: float
    reward: Array | None = None
    policy: Array | None = None
    log_policy: Array | None = field(default=None, repr=False)
    preference_rate: float | None = None
    regularized_preference_rate: float | None = None
    exploitability: float | None = None
    gap0: float | None = None
    preference_rate_by_context: Array | None = field(default=None, repr=False)
    exploitability_by_context: Array | None = field(default=None, repr=False)
    gap0_by_context: Array | None = field(default=None, repr=False)
    message: str = ""


def reward_model_optimum(
    game: PreferenceGame, equilibrium: Any, *, votes_per_pair: int | None = None, prior: float | None = None
) -> RewardModelOptimum:
    """Return what reinforcement learning on the best reward model would give, and what that loses to the equilibrium.

    Parameters
    ----------
    game : PreferenceGame
        The game.
    equilibrium : Equilibrium
        That of this very game, ``nl.solve(game)``.
    votes_per_pair : int, optional
        As for `fit_bradley_terry`.
    prior : float, optional
        Votes added to each side of each pair before the reward is fitted. Default: the prior of the comparisons with which the
        game's preferences were estimated, so that reward model and game have seen the same; 0 without comparisons.

    Returns
    -------
    RewardModelOptimum
        With the policy, and its exploitability beside that of the equilibrium.

    Raises
    ------
    InputError
        If the equilibrium is that of another game, or an option is outside its range.

    Notes
    -----
    The reward is the maximum likelihood score in log-odds, and π_r maximizes ``E_π[r] - β KL(π‖ρ)`` with the β of the game
    (Rafailov et al., arXiv 2305.18290, section 3). Near a tie a probability moves by a quarter of its log-odds, so at the same
    β π_r is regularized about four times less than the equilibrium. On Bradley–Terry games ``E_0(π_r)`` goes to 0 with β. On
    games that cycle it need not: the margins 1/2, 1/2 and 1/5 around three actions leave 1/5.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.PreferenceGame([[0.5, 1.0, 0.3], [0.0, 0.5, 1.0], [0.7, 0.0, 0.5]], beta=0.1)
    >>> found = nl.games.reward_model_optimum(game, nl.solve(game))
    >>> round(found.gap0, 3), round(found.equilibrium_gap0, 3), round(found.regularized_preference_rate, 3)
    (0.189, 0.027, 0.57)
    """
    ensure_game(game)
    _ensure_equilibrium_of(game, equilibrium)
    own = [exploitability_by_context(game, equilibrium.log_policy, regularized=flag) for flag in (True, False)]
    ours = float(game.average(own[0])), float(game.average(own[1]))
    added = getattr(game.comparisons, "prior", 0.0) if prior is None and votes_per_pair is None else prior or 0.0
    fits = [_fit(votes.wins, game.labels) for votes in observed_votes(game, votes_per_pair, added)]
    scores = [fit.scores for fit in fits if fit.scores is not None]
    if len(scores) < len(fits):
        return RewardModelOptimum(*ours, message=_no_reward(fits))
    reward = np.stack(scores)
    rows = np.stack([_optimum(c.log_reference, row, c.beta) for c, row in zip(game.contexts, reward)])
    log_policy = rows.reshape(game.policy_shape)
    policy = np.exp(log_policy)
    for array in (reward, log_policy, policy):
        array.setflags(write=False)
    won = [advantage(c.payoff, p) for c, p in zip(game.contexts, np.exp(rows))]
    rates = 0.5 + (equilibrium.policy.reshape(reward.shape) * np.stack(won)).sum(axis=1)
    gaps = [exploitability_by_context(game, log_policy, regularized=flag) for flag in (True, False)]
    return RewardModelOptimum(
        *ours,
        reward=reward.reshape(game.policy_shape),
        policy=policy,
        log_policy=log_policy,
        preference_rate=float(game.average(rates)),
        regularized_preference_rate=game.payoff(equilibrium.policy, policy),
        exploitability=float(game.average(gaps[0])),
        gap0=float(game.average(gaps[1])),
        preference_rate_by_context=rates,
        exploitability_by_context=gaps[0],
        gap0_by_context=gaps[1],
        message=next((fit.message for fit in fits if fit.message), ""),
    )


def _optimum(log_reference: Array, reward: Array, beta: float) -> Array:
    """Return the log-policy that maximizes ``E_π[r] - β KL(π‖ρ)``, shape ``(n,)``."""
    if beta > 0:
        return log_softmax(log_reference + (reward - reward.max()) / beta)
    best = reward >= reward.max() - 1e-9
    return safe_log(best / best.sum())


def _no_reward(fits: list[BradleyTerryFit]) -> str:
    without = [k for k, fit in enumerate(fits) if fit.scores is None]
    place = f" in {len(without)} of {len(fits)} contexts, the first of them context {without[0]}" if len(fits) > 1 else ""
    return f"no reward model{place}: {fits[without[0]].message}; prior=0.5, say, gives one"


def _ensure_equilibrium_of(game: PreferenceGame, equilibrium: Any) -> None:
    if not all(hasattr(equilibrium, name) for name in ("policy", "log_policy", "fingerprint")):
        raise InputError(f"equilibrium = {equilibrium!r} must be an Equilibrium, such as nl.solve(game)")
    if equilibrium.fingerprint != game.fingerprint:
        raise InputError("equilibrium is that of another game; it must be nl.solve(game) of this one")


def observed_votes(game: PreferenceGame, votes_per_pair: int | None, prior: float) -> list[Votes]:
    """Return the votes that each context stands for: its counts, its preferences among `votes_per_pair`, or equal weights."""
    ensure_game(game)
    added = ensure_nonnegative("prior", prior)
    each = None if votes_per_pair is None else ensure_integer("votes_per_pair", votes_per_pair, 1)
    if each is None and game.comparisons is not None:
        wins, ties = _counts(game)
        off_diagonal = 1.0 - np.eye(game.n)
        return [Votes((w + t / 2 + added) * off_diagonal, t * off_diagonal, True) for w, t in zip(wins, ties)]
    preferences = [dense(context.payoff) + 0.5 for context in game.contexts]
    off_diagonal, weight = 1.0 - np.eye(game.n), 1.0 if each is None else float(each)
    return [Votes((weight * p + added) * off_diagonal, np.zeros_like(p), each is not None) for p in preferences]


def _counts(game: PreferenceGame) -> tuple[Array, Array]:
    shape = (game.n_contexts, game.n, game.n)
    wins, ties = (getattr(game.comparisons, name, None) for name in ("wins", "ties"))
    if not isinstance(wins, np.ndarray) or not isinstance(ties, np.ndarray) or wins.shape != shape or ties.shape != shape:
        raise InputError(f"game.comparisons = {game.comparisons!r} must hold wins and ties of shape {shape}")
    return wins, ties


def _fit(wins: Array, labels: tuple[str, ...]) -> BradleyTerryFit:
    groups = win_groups(wins)
    scores, log_likelihood, lost, freedom, settled = np.zeros(len(wins)), 0.0, 0.0, 0, True
    for group in groups:
        block = wins[np.ix_(group, group)]
        found, converged = maximize_likelihood(block[None])
        scores[group] = found[0]
        settled &= bool(converged[0])
        log_likelihood -= float((block * np.logaddexp(0.0, found[0][None, :] - found[0][:, None])).sum())
        lost += float(deviances(block[None], found)[0])
        freedom += degrees_of_freedom(block)
    scores.setflags(write=False)
    exists = len(groups) == 1
    status = ("converged" if settled else "not converged") if exists else "no maximum"
    message = _blame(wins, groups, labels) if not exists else "" if settled else "Newton's method did not converge"
    names = tuple(tuple(labels[i] for i in group) for group in groups)
    return BradleyTerryFit(scores if exists else None, log_likelihood, lost, freedom, status, message, names)


def _blame(wins: Array, groups: list[list[int]], labels: tuple[str, ...]) -> str:
    """Name the smallest group without a loss to, a win against, or any vote with the actions outside it."""
    verdicts = []
    for group in groups:
        outside = np.setdiff1d(np.arange(len(wins)), group)
        won, lost = (wins[np.ix_(np.array(group), outside)] > 0).any(), (wins[np.ix_(outside, np.array(group))] > 0).any()
        if not (won and lost):
            words = "never lost a vote to" if won else "never won a vote against" if lost else "never had a vote with"
            verdicts.append((len(group), words, group))
    size, words, group = min(verdicts)
    named = ", ".join(labels[i] for i in group[:5]) + (f" and {size - 5} more" if size > 5 else "")
    return f"{named} {words} another action" if size == 1 else f"{named} {words} any action but each other"
