"""The diagnosis of a game: what its functions say, averaged, in one table and in JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import datasets, games
from nlhfsim.games import PreferenceGame, bradley_terry_test, fit_bradley_terry, reward_model_optimum

UNBEATEN = datasets.from_comparisons([("A", "B", "A"), ("A", "C", "A"), ("B", "C", "B"), ("B", "C", "C")])


def test_the_diagnosis_holds_what_its_functions_say():
    game = datasets.load("kendall1940-girls", beta=0.05)
    equilibrium = nl.solve(game)
    found = game.diagnose(equilibrium, draws=100, rng=3)
    assert found.condorcet_winner is None and found.top_cycle == game.labels and found.cycles is True
    assert found.cyclic_triples.cyclic == 16 and found.cyclic_triple_share == 16 / 165
    assert found.cyclic_share == games.transitive_cyclic_split(game).cyclic_share == found.split.cyclic_share
    np.testing.assert_array_equal(found.bradley_terry.scores, fit_bradley_terry(game).scores)
    assert found.bradley_terry_test.p_value == bradley_terry_test(game, draws=100, rng=3).p_value
    assert found.reward_model.gap0 == reward_model_optimum(game, equilibrium).gap0
    assert game.diagnose(draws=10).reward_model is None


def test_the_diagnosis_averages_with_the_weights():
    blocks = np.stack([games.rock_paper_scissors().preferences, games.bradley_terry([0.0, 2.0, 1.0]).preferences])
    game = PreferenceGame(blocks, weights=[0.25, 0.75])
    found = game.diagnose()
    assert found.cyclic_triple_share == 0.25
    shares = [split.cyclic_share for split in found.split]
    assert found.cyclic_share == pytest.approx(0.25 * shares[0] + 0.75 * shares[1], rel=1e-14) and shares[0] != shares[1]
    text = str(found)
    assert "in 1 of 2 contexts" in text and "25.0% on average" in text and "1 to 3 actions, median 2" in text


def test_the_diagnosis_is_json(game, equilibrium_of):
    found = game.diagnose(equilibrium_of(game), votes_per_pair=20, draws=20)
    read = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert read["labels"] == list(game.labels) and read["beta"] == game.beta
    assert np.shape(read["transitive_scores"]) == game.policy_shape
    first = read["bradley_terry_test"][0] if game.batched else read["bradley_terry_test"]
    assert {"deviance", "p_value", "reason"} <= set(first)
    assert set(read) == set(game.diagnose(draws=1).to_dict())


@pytest.mark.parametrize(
    ("game", "options", "sentences"),
    [
        (games.rock_paper_scissors(), {}, ["all 3 actions: rock, paper, scissors", "1 of 1, 100.0%", "not tested (no counts"]),
        (datasets.load("kendall1940-girls"), {}, ["Terry      not rejected, p = 0.", "on 45 degrees of freedom, 50 draws"]),
        (datasets.load("mtbench"), {}, ["gpt-4\n", "1 of 6 actions: gpt-4", "0 of 20, 0.0%", "Terry      rejected, p = 0.0"]),
        (
            UNBEATEN,
            {},
            ["none: A never lost a vote to another action", "not tested (noth"],
        ),
        (
            games.cyclic_tournament(9, 0.2),
            {"votes_per_pair": 4},
            ["0, 1, 2, 3, 4, 5, …", "rough, as the median pair has 4 votes"],
        ),
        (games.random_game(4, 0, contexts=3), {"votes_per_pair": 30}, ["rejected at 5% in ", " of the 3 contexts"]),
        (games.random_game(3, 0, "zero-one", contexts=6), {}, ["whose win graphs are not strongly connected", "not tested"]),
    ],
)
def test_the_diagnosis_reads_well(game, options, sentences):
    found = game.diagnose(nl.solve(game), draws=50, **options)
    text = str(found)
    assert text == found.summary() and all(sentence in text for sentence in sentences)
    assert max(len(line) for line in text.splitlines()) < 150
    assert "E_beta" not in str(game.with_beta(0).diagnose(nl.solve(game.with_beta(0)), draws=1)).rpartition("\n")[0]
