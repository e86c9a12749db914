"""Shared fixtures: a small mixed family of games, starts away from the reference, and the hypothesis profiles.

Random games alone are a weak test (entries drawn at random get easier as n grows), so every check runs on cycles, certain votes,
low rank, near ties, peaked references and real data too.

``quick``, the default profile of hypothesis, draws the same 40 examples each time, as continuous integration needs;
``NLHFSIM_HYPOTHESIS=deep python -m pytest tests/test_properties.py`` draws 2,000 others each time. A number of its own in
``settings`` is a test's own business in both.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

import nlhfsim as nl

settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True, database=None)
settings.register_profile("deep", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("NLHFSIM_HYPOTHESIS", "quick"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job begins so, and what it starts would never be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

Floats = npt.NDArray[np.float64]


FAMILY = nl.testing.mixed_games()


@pytest.fixture(scope="session")
def family() -> dict[str, nl.PreferenceGame]:
    """Every game of the mixed family by its name."""
    return dict(FAMILY)


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
