"""Preference games: the game itself, its payoff forms, named and random games, diagnostics."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nlhfsim.errors import InputError, UnknownNameError, did_you_mean, ensure_choice
from nlhfsim.games.decomposition import TransitiveCyclicSplit, transitive_cyclic_split
from nlhfsim.games.diagnosis import Diagnosis
from nlhfsim.games.diagnostics import (
    CyclicTriples,
    condorcet_winner,
    cyclic_triples,
    has_majority_cycle,
    majority_cycles,
    strongest_cycle,
    top_cycle,
)
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.goodness_of_fit import BradleyTerryTest, bradley_terry_test
from nlhfsim.games.matrix_free import low_rank, pairwise, preference_representation
from nlhfsim.games.named import (
    annotator_mixture,
    bradley_terry,
    cyclic_tournament,
    generalized_rock_paper_scissors,
    rock_paper_scissors,
    transitive_cyclic,
)
from nlhfsim.games.random import near_ties, random_game, random_low_rank, random_reference
from nlhfsim.games.reward_model import BradleyTerryFit, RewardModelOptimum, fit_bradley_terry, reward_model_optimum

__all__ = [
    "BradleyTerryFit",
    "BradleyTerryTest",
    "CyclicTriples",
    "Diagnosis",
    "NAMED",
    "PreferenceGame",
    "RewardModelOptimum",
    "TransitiveCyclicSplit",
    "annotator_mixture",
    "bradley_terry",
    "bradley_terry_test",
    "condorcet_winner",
    "cyclic_tournament",
    "cyclic_triples",
    "fit_bradley_terry",
    "generalized_rock_paper_scissors",
    "has_majority_cycle",
    "low_rank",
    "majority_cycles",
    "named",
    "near_ties",
    "pairwise",
    "preference_representation",
    "random_game",
    "random_low_rank",
    "random_reference",
    "reward_model_optimum",
    "rock_paper_scissors",
    "strongest_cycle",
    "top_cycle",
    "transitive_cyclic",
    "transitive_cyclic_split",
]

NAMED: dict[str, Callable[..., PreferenceGame]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        rock_paper_scissors,
        generalized_rock_paper_scissors,
        cyclic_tournament,
        bradley_terry,
        annotator_mixture,
        transitive_cyclic,
        random_game,
        near_ties,
        random_low_rank,
    )
}
"""The games that numbers and flat lists describe, by the name that the command line uses."""


def named(name: str, **params: Any) -> PreferenceGame:
    """Return a game by its name, the function's with hyphens.

    Parameters
    ----------
    name : str
        A key of `NAMED`.
    **params
        Arguments of the function.

    Returns
    -------
    PreferenceGame
        What the function returns.

    Raises
    ------
    UnknownNameError
        If the game, or a parameter of it, does not exist; the message suggests the nearest.
    InputError
        If a parameter is missing, or its value is refused.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.games.named("cyclic-tournament", n=5, margin=0.25, beta=0.01)
    PreferenceGame(n=5, beta=0.01)
    """
    function = NAMED[ensure_choice("game", name, NAMED)]
    known = inspect.signature(function).parameters
    for key in params:
        if key not in known:
            raise UnknownNameError(f"game {name!r} has no parameter {key!r}{did_you_mean(key, known)}")
    missing = [key for key, one in known.items() if one.default is one.empty and key not in params]
    if missing:
        raise InputError(f"game {name!r} needs {' and '.join(missing)}, of {', '.join(known)}")
    return function(**params)
