"""Condorcet winners and majority cycles, against a search through all orders of the actions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nlhfsim import datasets, games
from nlhfsim.games import PreferenceGame, condorcet_winner, has_majority_cycle


def beats(game, i, j):
    return game.preferences[i, j] > 0.5 + 1e-12


def winner_by_definition(game):
    found = [i for i in range(game.n) if all(beats(game, i, j) for j in range(game.n) if j != i)]
    return game.labels[found[0]] if found else None


def cycle_by_definition(game):
    """A majority relation has no cycle exactly when some order of the actions never has a later one beat an earlier one."""
    orders = itertools.permutations(range(game.n))
    return not any(all(not beats(game, later, earlier) for earlier, later in itertools.combinations(o, 2)) for o in orders)


@pytest.mark.parametrize("law", ["uniform", "zero-one", "low-rank", "bradley-terry"])
@pytest.mark.parametrize("seed", range(12))
def test_diagnostics_match_their_definitions(law, seed):
    game = games.random_game(3 + seed % 3, seed, law)
    assert condorcet_winner(game) == winner_by_definition(game)
    assert has_majority_cycle(game) is cycle_by_definition(game)


def test_random_games_cover_both_answers():
    drawn = [games.random_game(4, seed, "zero-one") for seed in range(20)]
    assert {has_majority_cycle(game) for game in drawn} == {True, False}
    assert {condorcet_winner(game) is None for game in drawn} == {True, False}


def test_a_tie_is_no_majority():
    ties = PreferenceGame(np.full((3, 3), 0.5))
    assert condorcet_winner(ties) is None and has_majority_cycle(ties) is False
    almost = PreferenceGame([[0.5, 0.5, 1.0], [0.5, 0.5, 1.0], [0.0, 0.0, 0.5]])
    assert condorcet_winner(almost) is None and has_majority_cycle(almost) is False


def test_rounding_makes_no_majority():
    """Two equal camps, whose shares add up to a half only up to rounding."""
    game = games.annotator_mixture([[3.0, 2.0, 1.0]] * 3 + [[1.0, 2.0, 3.0]] * 3, [0.05, 0.1, 0.35, 0.05, 0.1, 0.35])
    assert 0 < game.advantages.max() < 1e-15
    assert condorcet_winner(game) is None and has_majority_cycle(game) is False


def test_a_margin_of_near_ties_is_still_a_majority():
    assert condorcet_winner(games.bradley_terry([0.0, 1e-9])) == "1"


def test_a_lone_action_wins():
    game = PreferenceGame([[0.5]], labels=["only"])
    assert condorcet_winner(game) == "only" and has_majority_cycle(game) is False


def test_a_cycle_below_the_top_leaves_the_winner():
    matrix = np.full((4, 4), 0.5)
    matrix[0, 1:], matrix[1:, 0] = 0.9, 0.1
    matrix[1:, 1:] = games.rock_paper_scissors().preferences
    game = PreferenceGame(matrix, labels=["best", "rock", "paper", "scissors"])
    assert condorcet_winner(game) == "best" and has_majority_cycle(game) is True


def test_contexts_are_answered_one_by_one():
    blocks = [games.rock_paper_scissors().preferences, games.bradley_terry([0.0, 2.0, 1.0]).preferences]
    game = PreferenceGame(np.stack(blocks), labels=["A", "B", "C"])
    assert condorcet_winner(game) == [None, "B"]
    assert has_majority_cycle(game) == [True, False]
    one = PreferenceGame(np.stack(blocks[:1]))
    assert condorcet_winner(one) == [None] and has_majority_cycle(one) == [True]


def test_published_facts_of_the_embedded_data():
    chat = datasets.load("mtbench")
    assert condorcet_winner(chat) == "gpt-4" and has_majority_cycle(chat) is False
    for name in ("regenwetter2012", "kendall1940-girls"):
        assert condorcet_winner(datasets.load(name)) is None and has_majority_cycle(datasets.load(name)) is True
