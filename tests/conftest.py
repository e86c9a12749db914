"""Shared fixtures: a small mixed family of games, starts away from the reference, and the hypothesis profiles.

Random games alone are a weak test (entries drawn at random get easier as n grows), so every check runs on cycles, certain votes,
low rank, near ties, peaked references and real data too.
``NLHFSIM_HYPOTHESIS=deep`` searches longer than the default profile, ``quick``.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

import nlhfsim as nl

settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True, database=None)
settings.register_profile("deep", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("NLHFSIM_HYPOTHESIS", "quick"))

Floats = npt.NDArray[np.float64]


def contexts_game() -> nl.PreferenceGame:
    """Three contexts of four actions: a cycle with a bystander, certain votes and a random game, unequal weights."""
    rng = np.random.default_rng(6)
    cycle = np.full((4, 4), 0.5)
    for winner, loser in ((0, 1), (1, 2), (2, 0)):
        cycle[winner, loser], cycle[loser, winner] = 0.9, 0.1
    certain = np.triu(np.ones((4, 4)), 1) + np.eye(4) / 2
    upper = np.triu(rng.uniform(size=(4, 4)), 1)
    mixed = upper + np.tril(1 - upper.T, -1) + np.eye(4) / 2
    reference = rng.dirichlet(np.ones(4), size=3)
    return nl.PreferenceGame(np.stack([cycle, certain, mixed]), 0.15, reference, weights=[0.5, 0.3, 0.2])


FAMILY: dict[str, Callable[[], nl.PreferenceGame]] = {
    "cyclic-tournament": lambda: nl.games.cyclic_tournament(7, 0.5, beta=0.05),
    "zero-one-cycle": lambda: nl.PreferenceGame([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], 0.01, [0.6, 0.3, 0.1]),
    "low-rank": lambda: nl.games.random_low_rank(8, 2, 1, beta=0.1),
    "transitive-cyclic": lambda: nl.games.transitive_cyclic(6, 0.4, beta=0.3),
    "near-ties": lambda: nl.games.near_ties(5, 2, 1e-3, beta=0.001),
    "peaked": lambda: nl.games.random_game(6, 3, beta=0.2, reference=nl.games.random_reference(6, 4, 8.0)),
    "real": lambda: nl.datasets.load("kendall1940-girls", beta=0.02),
    "random": lambda: nl.games.random_game(10, 5, beta=1.0),
    "strong": lambda: nl.games.random_game(5, 8, "zero-one", beta=2.5, reference=nl.games.random_reference(5, 9, 1.0)),
    "contexts": contexts_game,
}


@pytest.fixture(scope="session")
def family() -> dict[str, nl.PreferenceGame]:
    """Every game of the mixed family by its name."""
    return {name: make() for name, make in FAMILY.items()}


@pytest.fixture(params=list(FAMILY))
def game(request: pytest.FixtureRequest, family: dict[str, nl.PreferenceGame]) -> nl.PreferenceGame:
    """One game of the mixed family."""
    return family[request.param]


@pytest.fixture(scope="session")
def equilibrium_of() -> Callable[[nl.PreferenceGame], nl.Equilibrium]:
    """The certified equilibrium of a game, solved once a session."""
    known: dict[str, nl.Equilibrium] = {}

    def solved(game: nl.PreferenceGame) -> nl.Equilibrium:
        if game.fingerprint not in known:
            known[game.fingerprint] = nl.solve(game)
            assert known[game.fingerprint].status == "certified"
        return known[game.fingerprint]

    return solved


@pytest.fixture(scope="session")
def starts_of() -> Callable[[nl.PreferenceGame], Floats]:
    """Two policies of a game away from its reference, ``(2, *policy_shape)``: a moderate one and a peaked one."""

    def starts(game: nl.PreferenceGame) -> Floats:
        rng = np.random.default_rng(11)
        logits = np.stack([spread * rng.standard_normal(game.policy_shape) for spread in (1.0, 4.0)])
        weights = np.exp(logits)
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True))

    return starts


@pytest.fixture(scope="session")
def starts(family: dict[str, nl.PreferenceGame], starts_of: Callable[[nl.PreferenceGame], Floats]) -> dict[str, Floats]:
    """The starts of every game of the family by its name."""
    return {name: starts_of(one) for name, one in family.items()}
