"""Majorities and the two parts of a game, against searches through all orders, sets and triples, and least squares."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nlhfsim import datasets, games
from nlhfsim.games import PreferenceGame, condorcet_winner, cyclic_triples, has_majority_cycle, top_cycle, transitive_cyclic_split
from nlhfsim.games.payoffs import DensePayoff


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


# Top cycle and cyclic triples.


def game_with_ties(n, seed, levels=(-0.4, -0.1, 0.0, 0.0, 0.1, 0.4)):
    upper = np.triu(np.random.default_rng(seed).choice(levels, (n, n)), 1)
    return PreferenceGame(upper - upper.T + 0.5)


def smallest_dominating_set(game):
    """The first set, by size, each of whose members beats every action outside it."""
    everything = range(game.n)
    for size in range(1, game.n + 1):
        found = [
            s
            for s in itertools.combinations(everything, size)
            if all(beats(game, i, j) for i in s for j in everything if j not in s)
        ]
        if found:
            assert len(found) == 1
            return tuple(game.labels[i] for i in found[0])


def triples_by_definition(game):
    def around(i, j, k):
        return beats(game, i, j) and beats(game, j, k) and beats(game, k, i)

    return sum(around(i, j, k) or around(i, k, j) for i, j, k in itertools.combinations(range(game.n), 3))


@pytest.mark.parametrize("n", range(1, 7))
def test_top_cycle_and_triples_match_their_definitions(n):
    for seed in range(40):
        for game in (game_with_ties(n, seed), game_with_ties(n, seed, (-0.2, 0.5)), games.random_game(n, seed, "uniform")):
            assert top_cycle(game) == smallest_dominating_set(game)
            counted = cyclic_triples(game)
            assert counted.cyclic == triples_by_definition(game) and counted.triples == n * (n - 1) * (n - 2) // 6
            assert counted.share == (counted.cyclic / counted.triples if n > 2 else 0.0)


def test_a_tie_keeps_an_action_in_the_top_cycle():
    """A beats B, B beats C, A ties with C: all three are in the Smith set; the Schwartz set would be A alone."""
    game = PreferenceGame([[0.5, 0.8, 0.5], [0.2, 0.5, 0.8], [0.5, 0.2, 0.5]], labels=["A", "B", "C"])
    assert top_cycle(game) == ("A", "B", "C")
    assert cyclic_triples(game).cyclic == 0


def test_rounding_keeps_an_action_in_the_top_cycle():
    slight = PreferenceGame(DensePayoff(np.array([[0.0, 1e-13], [-1e-13, 0.0]])))
    clear = PreferenceGame(DensePayoff(np.array([[0.0, 1e-11], [-1e-11, 0.0]])))
    assert top_cycle(slight) == ("0", "1") and top_cycle(clear) == ("0",)


def test_a_condorcet_winner_is_the_top_cycle():
    for seed in range(20):
        game = games.random_game(5, seed, "zero-one")
        winner = condorcet_winner(game)
        assert (top_cycle(game) == (winner,)) if winner is not None else len(top_cycle(game)) > 2


@pytest.mark.parametrize("n", [3, 7, 21, 101])
def test_a_regular_tournament_has_the_most_cyclic_triples(n):
    """(n³ - n)/24, the largest number there is (Kendall & Babington Smith, 1940)."""
    counted = cyclic_triples(games.generalized_rock_paper_scissors(n))
    assert counted.cyclic == (n**3 - n) // 24 and counted.share == pytest.approx((n + 1) / (4 * (n - 2)), rel=1e-14)


def test_cyclic_triples_follow_from_the_numbers_of_wins():
    """Without ties: n(n-1)(n-2)/6 - sum over actions of the pairs that it beats."""
    game = games.random_game(60, 3, "zero-one")
    wins = (game.advantages > 0).sum(axis=1)
    assert cyclic_triples(game).cyclic == 60 * 59 * 58 // 6 - (wins * (wins - 1) // 2).sum() > 1000


def test_top_cycle_and_triples_of_the_embedded_data():
    girls, chat, gambles = (datasets.load(name) for name in ("kendall1940-girls", "mtbench", "regenwetter2012"))
    assert top_cycle(girls) == girls.labels and cyclic_triples(girls)[:2] == (16, 165)
    assert top_cycle(chat) == ("gpt-4",) and cyclic_triples(chat)[:2] == (0, 20)
    assert top_cycle(gambles) == gambles.labels and cyclic_triples(gambles)[:2] == (4, 10)


def test_contexts_have_their_own_top_cycle_triples_and_split():
    blocks = [games.rock_paper_scissors().preferences, games.bradley_terry([0.0, 2.0, 1.0]).preferences]
    game = PreferenceGame(np.stack(blocks), labels=["A", "B", "C"])
    assert top_cycle(game) == [("A", "B", "C"), ("B",)]
    assert [counted.cyclic for counted in cyclic_triples(game)] == [1, 0]
    assert [split.cyclic_share for split in transitive_cyclic_split(game)] == [
        transitive_cyclic_split(PreferenceGame(block)).cyclic_share for block in blocks
    ]
    assert isinstance(top_cycle(PreferenceGame(np.stack(blocks[:1]))), list)


# The transitive and the cyclic part.


@pytest.mark.parametrize("law", ["uniform", "zero-one", "low-rank", "near-ties"])
@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_transitive_part_is_the_least_squares_fit(law, n):
    game = games.random_game(n, 4, law)
    pairs = list(itertools.combinations(range(n), 2))
    design = np.zeros((len(pairs), n))
    for row, (i, j) in enumerate(pairs):
        design[row, i], design[row, j] = 1.0, -1.0
    observed = np.array([game.advantages[pair] for pair in pairs])
    expected = np.linalg.lstsq(design, observed)[0]
    split = transitive_cyclic_split(game)
    np.testing.assert_allclose(split.scores, expected - expected.mean(), atol=1e-14)
    residual = observed - design @ expected
    assert split.cyclic_share == pytest.approx((residual @ residual) / (observed @ observed), abs=1e-14)


def test_the_parts_add_up_and_are_orthogonal(game):
    splits = transitive_cyclic_split(game)
    for context, split in zip(game.contexts, splits if game.batched else [splits]):
        advantages = context.payoff.matrix
        np.testing.assert_allclose(split.transitive + split.cyclic, advantages, atol=1e-16)
        assert abs((split.transitive * split.cyclic).sum()) < 1e-13
        np.testing.assert_allclose(split.cyclic.sum(axis=1), 0, atol=1e-13)
        norms = [(part**2).sum() for part in (split.transitive, split.cyclic, advantages)]
        assert norms[0] + norms[1] == pytest.approx(norms[2], rel=1e-13)
        assert split.cyclic_share == pytest.approx(norms[1] / norms[2], abs=1e-14)
        assert not split.scores.flags.writeable and not split.cyclic.flags.writeable


def test_the_cyclic_share_of_extremes():
    scores = np.array([0.2, 0.05, -0.1])
    linear = PreferenceGame(scores[:, None] - scores[None, :] + 0.5)
    assert transitive_cyclic_split(linear).cyclic_share < 1e-30
    np.testing.assert_allclose(transitive_cyclic_split(linear).scores, scores - scores.mean(), atol=1e-15)
    assert transitive_cyclic_split(games.cyclic_tournament(9, 0.2)).cyclic_share == 1.0
    assert transitive_cyclic_split(PreferenceGame(np.full((3, 3), 0.5))).cyclic_share == 0.0
    assert transitive_cyclic_split(PreferenceGame([[0.5]])).cyclic_share == 0.0


def test_the_cyclic_share_does_not_depend_on_the_scale():
    matrix = games.random_game(5, 1).advantages
    tiny = PreferenceGame(DensePayoff(np.ascontiguousarray(matrix * 2.0**-800)))
    assert transitive_cyclic_split(tiny).cyclic_share == transitive_cyclic_split(PreferenceGame(matrix + 0.5)).cyclic_share > 0.01
