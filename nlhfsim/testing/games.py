"""A small mixed family of games to check anything on, and games as Python code."""

from __future__ import annotations

import numpy as np

from nlhfsim import datasets, games
from nlhfsim.errors import Array
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.payoffs import LowRankPayoff, dense


def mixed_games() -> dict[str, PreferenceGame]:
    """Return a small mixed family of games by name, with β from 1e-3 to 2.5.

    Random games alone are a weak test, as entries drawn at random get easier the more actions there are. So there are cycles,
    certain votes, low rank, near-ties, peaked references, real data and several contexts too.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> ", ".join(nl.testing.mixed_games())
    'cyclic-tournament, zero-one-cycle, low-rank, transitive-cyclic, near-ties, peaked, real, random, strong, contexts'
    """
    cycle = PreferenceGame([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], 0.01, [0.6, 0.3, 0.1])
    peaked, uneven = games.random_reference(6, 4, 8.0), games.random_reference(5, 9, 1.0)
    return {
        "cyclic-tournament": games.cyclic_tournament(7, 0.5, beta=0.05),
        "zero-one-cycle": cycle,
        "low-rank": games.random_low_rank(8, 2, 1, beta=0.1),
        "transitive-cyclic": games.transitive_cyclic(6, 0.4, beta=0.3),
        "near-ties": games.near_ties(5, 2, 1e-3, beta=0.001),
        "peaked": games.random_game(6, 3, beta=0.2, reference=peaked),
        "real": datasets.load("kendall1940-girls", beta=0.02),
        "random": games.random_game(10, 5, beta=1.0),
        "strong": games.random_game(5, 8, "zero-one", beta=2.5, reference=uneven),
        "contexts": _three_contexts(),
    }


def _three_contexts() -> PreferenceGame:
    """Return three contexts of four actions: a cycle with a bystander, certain votes and a random game, unequal weights."""
    rng = np.random.default_rng(6)
    cycle = np.full((4, 4), 0.5)
    for winner, loser in ((0, 1), (1, 2), (2, 0)):
        cycle[winner, loser], cycle[loser, winner] = 0.9, 0.1
    certain = np.triu(np.ones((4, 4)), 1) + np.eye(4) / 2
    upper = np.triu(rng.uniform(size=(4, 4)), 1)
    mixed = upper + np.tril(1 - upper.T, -1) + np.eye(4) / 2
    reference = rng.dirichlet(np.ones(4), size=3)
    return PreferenceGame(np.stack([cycle, certain, mixed]), 0.15, reference, weights=[0.5, 0.3, 0.2])


def as_code(game: PreferenceGame) -> str:
    """Return a Python expression for a game, with ``nl`` for nlhfsim, such as a counterexample is reported by.

    The advantages are the same in every bit, the reference to rounding. Forms that store no matrix are written out, save those of
    low rank; labels are left out.

    Parameters
    ----------
    game : PreferenceGame
        The game.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> print(nl.testing.as_code(nl.games.rock_paper_scissors(margin=0.25, beta=0.1)))
    nl.PreferenceGame([[0.5, 0.25, 0.75], [0.75, 0.5, 0.25], [0.25, 0.75, 0.5]], beta=0.1)
    """
    payoff = ensure_game(game).contexts[0].payoff
    rest = f"beta={game.beta!r}"
    if np.ptp(game.log_reference) > 0:
        rest += f", reference={_numbers(game.reference)}"
    if isinstance(payoff, LowRankPayoff) and not game.batched:
        return f"nl.games.low_rank({payoff.left.tolist()}, {payoff.right.tolist()}, {rest})"
    if game.batched:
        rest += f", weights={_numbers(game.weights)}"
    return f"nl.PreferenceGame({_preferences(game)}, {rest})"


def _preferences(game: PreferenceGame) -> str:
    """Return code for the preferences, short decimals where they are the same game, else the advantages themselves."""
    advantages = game.advantages
    for written in (np.vectorize(lambda p: float(f"{p:.12g}"))(game.preferences), game.preferences):
        if np.array_equal(PreferenceGame(written).advantages, advantages):
            return repr(written.tolist())
    forms = [f"nl.games.payoffs.DensePayoff(np.array({dense(c.payoff).tolist()}))" for c in game.contexts]
    return f"[{', '.join(forms)}]" if game.batched else forms[0]


def _numbers(policy: Array) -> str:
    """Return code for probabilities, short decimals where that changes rounding only."""
    short = np.vectorize(lambda p: float(f"{p:.12g}"))(policy)
    same = np.allclose(short / short.sum(axis=-1, keepdims=True), policy, rtol=1e-15, atol=0)
    return repr((short if same else policy).tolist())
