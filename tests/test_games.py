"""Preference games: what the constructor promises and refuses, and the named and random games against their closed forms."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import numpy as np
import pytest

from nlhfsim import games
from nlhfsim.errors import InputError, UnknownNameError
from nlhfsim.games import PreferenceGame

CYCLE = np.array([[0.5, 1.0, 0.3], [0.0, 0.5, 0.9], [0.7, 0.1, 0.5]])
POLICIES = np.random.default_rng(7).dirichlet(np.ones(3), size=2)
NEEDED = {
    "generalized-rock-paper-scissors": {"n": 5},
    "cyclic-tournament": {"n": 6},
    "bradley-terry": {"scores": [0.0, 1.0, 3.0]},
    "transitive-cyclic": {"n": 5, "mixing": 0.3},
    "random-game": {"n": 4, "rng": 0},
    "near-ties": {"n": 4, "rng": 0},
    "random-low-rank": {"n": 4, "rank": 1, "rng": 0},
}


def changed(where, value):
    matrix = CYCLE.copy()
    matrix[where] = value
    return matrix


def exploitability(game, policy):
    """Unregularized exploitability from its definition: the best action's margin."""
    return ((game.preferences - 0.5) @ policy).max()


# The constructor refuses what is no game, and says what and where.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preferences": changed((1, 2), 0.8)}, r"preferences\[1, 2\] \+ preferences\[2, 1\] = 0.9, must be 1"),
        ({"preferences": changed((1, 1), 0.6)}, r"preferences\[1, 1\] = 0.6, must be 1/2 on the diagonal"),
        ({"preferences": changed((0, 1), np.nan)}, r"preferences\[0, 1\] = nan must be finite"),
        ({"preferences": changed((0, 1), 1.2)}, r"preferences\[0, 1\] = 1.2 is outside \[0, 1\]"),
        ({"preferences": np.stack([CYCLE, changed((0, 1), -0.2)])}, r"preferences\[1, 0, 1\] = -0.2 is outside"),
        ({"preferences": CYCLE[:2]}, r"shape \(2, 3\), must be square"),
        ({"preferences": np.full((0, 0), 0.5)}, "at least one action"),
        ({"preferences": [["a", "b"], ["c", "d"]]}, "preferences must be an array of numbers"),
        ({"preferences": CYCLE, "beta": -0.1}, "beta = -0.1 must not be negative"),
        ({"preferences": CYCLE, "beta": float("inf")}, "beta = inf must be finite"),
        ({"preferences": CYCLE, "beta": "0.1"}, "beta = '0.1' must be a real number"),
        ({"preferences": CYCLE, "reference": [0.5, 0.5, 0.0]}, r"reference\[2\] = 0 must be positive \(full support\)"),
        ({"preferences": CYCLE, "reference": [0.5, 0.5]}, r"reference has shape \(2,\), must be \(3,\)"),
        ({"preferences": CYCLE, "reference": [0.5, 0.4, 0.4]}, "reference adds up to 1.3, must be 1"),
        ({"preferences": CYCLE, "labels": ["A", "B"]}, "labels has 2 entries, must be 3"),
        ({"preferences": CYCLE, "labels": ["A", "B", "A"]}, "labels has 'A' more than once"),
        ({"preferences": CYCLE, "labels": "ABC"}, "not one string"),
        ({"preferences": np.stack([CYCLE, CYCLE]), "weights": [1.0, 0.0]}, r"weights\[1\] = 0 must be positive"),
        ({"preferences": np.stack([CYCLE, CYCLE]), "weights": [0.5, 0.6]}, "weights adds up to 1.1"),
    ],
)
def test_bad_input_is_refused_with_its_place(arguments, message):
    with pytest.raises(InputError, match=message):
        PreferenceGame(**arguments)


def test_the_users_arrays_are_neither_changed_nor_shared():
    matrix, reference, weights = np.stack([CYCLE, CYCLE.T]), np.full((2, 3), 1 / 3), np.array([0.25, 0.75])
    copies = [array.copy() for array in (matrix, reference, weights)]
    game = PreferenceGame(matrix, 0.1, reference, weights=weights)
    for array, copy in zip((matrix, reference, weights), copies):
        assert (array == copy).all() and array.flags.writeable
        array[:] = 0.0
    np.testing.assert_allclose(game.preferences, copies[0], atol=1e-15)
    np.testing.assert_allclose(game.reference, copies[1])
    np.testing.assert_allclose(game.weights, copies[2])


def test_a_game_is_immutable():
    game = PreferenceGame(CYCLE)
    with pytest.raises(AttributeError, match="with_beta or with_reference"):
        game.beta = 1.0
    for array in (game.log_reference, game.weights, game.contexts[0].payoff.matrix, game.contexts[0].log_reference):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


def test_advantages_are_exactly_skew_symmetric_after_rounding_noise():
    noisy = CYCLE + np.random.default_rng(0).uniform(-1e-9, 1e-9, (3, 3)) * (CYCLE > 0) * (CYCLE < 1)
    advantages = PreferenceGame(noisy).advantages
    assert (advantages == -advantages.T).all()


def test_with_beta_and_with_reference_change_one_thing():
    game = PreferenceGame(np.stack([CYCLE, CYCLE.T]), 0.3, [0.2, 0.3, 0.5], ["A", "B", "C"], [0.25, 0.75], comparisons="kept")
    for other in (game.with_beta(0.7), game.with_reference(None)):
        assert other.labels == game.labels and other.comparisons == "kept"
        np.testing.assert_array_equal(other.preferences, game.preferences)
        np.testing.assert_array_equal(other.weights, game.weights)
    assert game.with_beta(0.7).beta == 0.7 and game.beta == 0.3
    np.testing.assert_allclose(game.with_beta(0.7).reference, game.reference, rtol=1e-15)
    np.testing.assert_allclose(game.with_reference(None).reference, np.full((2, 3), 1 / 3))
    with pytest.raises(InputError, match="beta = -1 must not be negative"):
        game.with_beta(-1)


def test_restrict_keeps_the_pairs_and_conditions_the_reference():
    game = PreferenceGame(CYCLE, 0.3, [0.2, 0.3, 0.5], ["A", "B", "C"])
    part = game.restrict(["C", 0])
    assert part.labels == ("C", "A") and part.beta == 0.3
    np.testing.assert_allclose(part.preferences, [[0.5, 0.7], [0.3, 0.5]])
    np.testing.assert_allclose(part.reference, [5 / 7, 2 / 7])
    with pytest.raises(InputError, match="'D' is not a label; the labels are A, B, C"):
        game.restrict(["D"])
    with pytest.raises(InputError, match="must be different"):
        game.restrict(["A", "A"])
    with pytest.raises(InputError, match="action 3 must be below"):
        game.restrict([3])


def test_a_context_is_a_game_of_its_own():
    references = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
    game = PreferenceGame(np.stack([CYCLE, CYCLE.T]), 0.3, references)
    second = game.context(1)
    assert second.policy_shape == (3,) and not second.batched
    np.testing.assert_allclose(second.preferences, CYCLE.T, atol=1e-15)
    np.testing.assert_allclose(second.reference, references[1])
    with pytest.raises(InputError, match="index = 2 must be below the number of contexts, 2"):
        game.context(2)


@pytest.mark.parametrize("preferences", [CYCLE, CYCLE[None], np.stack([CYCLE, CYCLE.T])], ids=["plain", "one context", "two"])
def test_pickle_gives_the_same_game(preferences):
    game = PreferenceGame(preferences, 0.3, [0.2, 0.3, 0.5], ["A", "B", "C"])
    copy = pickle.loads(pickle.dumps(game))
    assert (copy.labels, copy.beta, copy.policy_shape) == (game.labels, game.beta, game.policy_shape)
    np.testing.assert_array_equal(copy.preferences, game.preferences)
    np.testing.assert_allclose(copy.log_reference, game.log_reference, rtol=1e-15)
    np.testing.assert_array_equal(copy.weights, game.weights)


def test_the_fingerprint_sees_whatever_the_dynamics_depend_on():
    game = PreferenceGame(CYCLE, 0.3, labels=["A", "B", "C"])
    others = [game.with_beta(0.4), game.with_reference([0.2, 0.3, 0.5]), PreferenceGame(CYCLE.T, 0.3)]
    assert len({game.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert game.fingerprint == PreferenceGame(CYCLE, 0.3).fingerprint


# The payoff, against its definition.


@pytest.mark.parametrize("beta", [0.0, 0.2, 3.0])
def test_payoff_is_its_definition_and_constant_sum(beta):
    reference = np.array([0.2, 0.3, 0.5])
    game = PreferenceGame(CYCLE, beta, reference)
    p, q = POLICIES
    by_hand = sum(p[i] * CYCLE[i, j] * q[j] for i in range(3) for j in range(3))
    by_hand += beta * sum(q * np.log(q / reference)) - beta * sum(p * np.log(p / reference))
    assert game.payoff(p, q) == pytest.approx(by_hand, abs=1e-14)
    assert game.payoff(p, q) + game.payoff(q, p) == pytest.approx(1.0, abs=1e-14)
    assert game.payoff(p, p) == pytest.approx(0.5, abs=1e-15)
    assert game.payoff(p, q, regularized=False) == pytest.approx(p @ CYCLE @ q, abs=1e-14)


def test_payoff_averages_the_contexts_with_their_weights():
    game = PreferenceGame(np.stack([CYCLE, CYCLE.T]), 0.2, weights=[0.25, 0.75])
    policy, opponent = POLICIES, POLICIES[::-1]
    parts = [game.context(k).payoff(policy[k], opponent[k]) for k in range(2)]
    assert game.payoff(policy, opponent) == pytest.approx(0.25 * parts[0] + 0.75 * parts[1], abs=1e-14)


def test_advantage_is_a_matrix_product_for_any_leading_shape():
    game = PreferenceGame(np.stack([CYCLE, CYCLE.T]))
    policies = np.random.default_rng(1).dirichlet(np.ones(3), size=(4, 2))
    expected = [[(game.preferences[k] - 0.5) @ policies[r, k] for k in range(2)] for r in range(4)]
    np.testing.assert_allclose(game.advantage(policies), expected, atol=1e-15)
    with pytest.raises(InputError, match=r"must end in \(2, 3\)"):
        game.advantage([0.2, 0.3, 0.5])


# Named games.


def test_rock_paper_scissors_has_margins_and_kaplanskys_equilibrium():
    game = games.rock_paper_scissors(margin=0.5, bias=-0.3)
    assert game.labels == ("rock", "paper", "scissors")
    won = {("paper", "rock"): 0.5, ("scissors", "paper"): 0.5, ("rock", "scissors"): 0.2}
    for (winner, loser), margin in won.items():
        assert game.preferences[game.labels.index(winner), game.labels.index(loser)] == pytest.approx(0.5 + margin)
    opposing = np.array([won["scissors", "paper"], won["rock", "scissors"], won["paper", "rock"]])
    assert exploitability(game, opposing / opposing.sum()) == pytest.approx(0.0, abs=1e-15)
    assert exploitability(game, np.full(3, 1 / 3)) > 0.05


def test_generalized_rock_paper_scissors_is_rock_paper_scissors_at_three_and_surely_decided():
    three = games.generalized_rock_paper_scissors(3)
    reordered = games.rock_paper_scissors().restrict(["rock", "scissors", "paper"])
    np.testing.assert_array_equal(three.preferences, reordered.preferences)
    seven = games.generalized_rock_paper_scissors(7).preferences
    assert all(seven[i, (i + k) % 7] == (1.0 if k <= 3 else 0.0) for i in range(7) for k in range(1, 7))
    with pytest.raises(InputError, match="n = 4 must be odd"):
        games.generalized_rock_paper_scissors(4)


@pytest.mark.parametrize(("n", "reach", "ties"), [(5, None, 0), (6, None, 1), (7, 1, 4), (7, 2, 2)])
def test_cyclic_tournament_beats_as_many_as_it_loses_to(n, reach, ties):
    game = games.cyclic_tournament(n, margin=0.2, reach=reach)
    preferences = game.preferences
    steps = (n - 1 - ties) // 2
    for i in range(n):
        others = np.delete(preferences[i], i)
        assert [(others > 0.5).sum(), (others < 0.5).sum(), (others == 0.5).sum()] == [steps, steps, ties]
        assert all(preferences[i, (i + k) % n] == pytest.approx(0.7) for k in range(1, steps + 1))
    assert exploitability(game, np.full(n, 1 / n)) == pytest.approx(0.0, abs=1e-15)
    with pytest.raises(InputError, match=r"reach = 9 must be at most \(n - 1\) // 2"):
        games.cyclic_tournament(n, reach=9)


def test_bradley_terry_log_odds_are_score_differences():
    scores = np.array([0.3, -1.2, 2.0])
    preferences = games.bradley_terry(scores).preferences
    np.testing.assert_allclose(np.log(preferences / preferences.T), scores[:, None] - scores, atol=1e-13)


def test_bradley_terry_takes_extreme_scores():
    assert games.bradley_terry([1e300, -1e300, 0.0]).preferences[0, 1] == 1.0


def test_low_rank_is_its_formula_and_names_an_entry_out_of_range():
    left, right = np.random.default_rng(3).uniform(-0.4, 0.4, (2, 5, 1))
    game = games.low_rank(left, right)
    expected = [[left[i, 0] * right[j, 0] - right[i, 0] * left[j, 0] + 0.5 for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(game.preferences, expected, atol=1e-15)
    assert np.linalg.matrix_rank(game.advantages) == 2
    with pytest.raises(InputError, match=r"\(U Vᵀ - V Uᵀ\)\[0, 1\] = 2 must lie between -0.5 and 0.5.* 0.25 "):
        games.low_rank([[2.0], [0.0]], [[0.0], [1.0]])
    with pytest.raises(InputError, match="V has shape"):
        games.low_rank([[2.0], [0.0]], [[0.0]])


def test_preference_representation_is_the_inner_product_with_the_rotated_embedding():
    vectors = np.random.default_rng(4).standard_normal((4, 6))
    quarter_turn = np.kron(np.eye(3), [[0.0, -1.0], [1.0, 0.0]])
    preferences = games.preference_representation(vectors, scale=0.7).preferences
    for i, j in np.ndindex(4, 4):
        score = 0.7 * np.dot(quarter_turn @ vectors[i], vectors[j])
        assert preferences[i, j] == pytest.approx(1 / (1 + np.exp(-score)), abs=1e-14)
    with pytest.raises(InputError, match="even dimension"):
        games.preference_representation(np.ones((3, 3)))
    with pytest.raises(InputError, match="scale = 0 must be positive"):
        games.preference_representation(vectors, scale=0)


def test_embeddings_on_a_circle_make_a_cycle():
    angles = 2 * np.pi * np.arange(3) / 3
    game = games.preference_representation(np.column_stack([np.cos(angles), np.sin(angles)]))
    assert games.has_majority_cycle(game) and games.condorcet_winner(game) is None


def test_annotators_of_condorcet_vote_two_to_one_in_a_circle():
    np.testing.assert_allclose(games.annotator_mixture().preferences[[0, 1, 2], [1, 2, 0]], 2 / 3)


def test_annotator_mixture_averages_votes():
    utilities, shares = [[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]], [0.3, 0.7]
    sure = games.annotator_mixture(utilities, shares).preferences
    np.testing.assert_allclose([sure[0, 1], sure[0, 2], sure[1, 2]], [0.3, 0.3, 0.3 * 0.5 + 0.7])
    noisy = games.annotator_mixture(utilities, shares, sharpness=2.0).preferences
    assert noisy[0, 1] == pytest.approx(0.3 / (1 + np.exp(-2)) + 0.7 / (1 + np.exp(4)), abs=1e-14)
    single = games.annotator_mixture([[0.3, -1.2, 2.0]], sharpness=1.0).preferences
    np.testing.assert_allclose(single, games.bradley_terry([0.3, -1.2, 2.0]).preferences, atol=1e-15)
    with pytest.raises(InputError, match="shares adds up to 0.9"):
        games.annotator_mixture(utilities, [0.3, 0.6])
    with pytest.raises(InputError, match="sharpness = -1 must not be negative"):
        games.annotator_mixture(utilities, sharpness=-1)


@pytest.mark.parametrize(("mixing", "winner"), [(0.0, "0"), (0.4, "0"), (0.6, None), (1.0, None)])
def test_transitive_cyclic_has_a_condorcet_winner_until_half(mixing, winner):
    game = games.transitive_cyclic(7, mixing)
    assert games.condorcet_winner(game) == winner
    assert games.has_majority_cycle(game) is (mixing > 0.5)
    ends = [games.transitive_cyclic(7, m).preferences for m in (0.0, 1.0)]
    np.testing.assert_allclose(game.preferences, (1 - mixing) * ends[0] + mixing * ends[1])
    np.testing.assert_array_equal(ends[1], games.generalized_rock_paper_scissors(7).preferences)


def test_unanimous_annotators_are_sure_whatever_the_rounding_of_their_shares():
    """About one draw of shares in ten adds up to just above 1."""
    for seed in range(100):
        game = games.annotator_mixture([[2.0, 1.0]] * 7, np.random.default_rng(seed).dirichlet(np.ones(7)))
        np.testing.assert_allclose(game.preferences, [[0.5, 1.0], [0.0, 0.5]], atol=1e-15)


# Random games.


@pytest.mark.parametrize("law", ["uniform", "logistic", "zero-one", "near-ties", "bradley-terry", "low-rank"])
@pytest.mark.parametrize("contexts", [None, 3])
def test_random_games_are_games_and_repeat(law, contexts):
    for n in (1, 2, 9):
        game = games.random_game(n, 5, law, contexts)
        assert game.preferences.shape == ((n, n) if contexts is None else (contexts, n, n))
        again = games.random_game(n, np.random.default_rng(5), law, contexts)
        np.testing.assert_array_equal(game.preferences, again.preferences)
    other = games.random_game(9, 6, law, contexts)
    assert (other.preferences != game.preferences).any()
    if contexts:
        assert (game.preferences[0] != game.preferences[1]).any()


def test_laws_are_what_they_are_called():
    upper = np.triu_indices(60, 1)
    draw = {law: games.random_game(60, 0, law).preferences[upper] for law in ("uniform", "logistic", "zero-one", "near-ties")}
    assert set(draw["zero-one"]) == {0.0, 1.0} and abs(draw["zero-one"].mean() - 0.5) < 0.05
    assert 4e-4 < np.abs(draw["near-ties"] - 0.5).mean() < 6e-4 and np.abs(draw["near-ties"] - 0.5).max() <= 1e-3
    assert abs(draw["uniform"].std() - 12**-0.5) < 0.02
    log_odds = np.log(draw["logistic"] / (1 - draw["logistic"]))
    assert abs(log_odds.std() - 1) < 0.06 and abs(log_odds.mean()) < 0.1
    assert games.has_majority_cycle(games.random_game(30, 0, "bradley-terry")) is False
    low_rank = games.random_game(30, 0, "low-rank").advantages
    assert np.linalg.matrix_rank(low_rank) == 2 and np.abs(low_rank).max() == pytest.approx(0.5)


def test_no_seed_of_a_low_rank_game_leaves_the_unit_interval_by_rounding():
    for seed in range(200):
        assert games.random_game(4, seed, "low-rank").preferences.min() >= 0.0
        assert games.random_low_rank(4, 2, seed).preferences.max() <= 1.0


def test_random_low_rank_and_near_ties_keep_their_margin():
    game = games.random_low_rank(8, 2, 0, margin=0.3)
    assert np.linalg.matrix_rank(game.advantages) == 4
    assert np.abs(game.advantages).max() == pytest.approx(0.3)
    assert np.abs(games.near_ties(8, 0, scale=0.02).advantages).max() <= 0.02


def test_random_reference_is_a_policy_that_peaks():
    np.testing.assert_allclose(games.random_reference(5, 0, peak=0), 0.2)
    peaked = games.random_reference(50, 0, peak=50, contexts=20)
    assert peaked.shape == (20, 50) and (peaked > 0).all()
    np.testing.assert_allclose(peaked.sum(axis=1), 1.0)
    assert np.median(peaked.max(axis=1)) > 0.99
    PreferenceGame(np.full((20, 50, 50), 0.5), reference=peaked)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: games.random_game(0, 0), "n = 0 must be at least 1"),
        (lambda: games.random_game(3, 0, "unifrom"), "law = 'unifrom' is unknown; did you mean 'uniform'?"),
        (lambda: games.random_game(3, None), "rng = None must be a numpy.random.Generator or a whole number"),
        (lambda: games.random_game(3, -1), "rng = -1 must be at least 0"),
        (lambda: games.random_game(3, 0, contexts=0), "contexts = 0 must be at least 1"),
        (lambda: games.near_ties(3, 0, scale=0.6), "scale = 0.6 must lie between 0 and 0.5"),
        (lambda: games.random_low_rank(3, 0, 0), "rank = 0 must be at least 1"),
        (lambda: games.random_reference(3, 0, peak=-1), "peak = -1 must lie between 0 and 50"),
        (lambda: games.cyclic_tournament(2), "n = 2 must be at least 3"),
        (lambda: games.cyclic_tournament(3.5), "n = 3.5 must be a whole number"),
        (lambda: games.rock_paper_scissors(0.6), "margin = 0.6 must lie between 0 and 0.5"),
        (lambda: games.rock_paper_scissors(0.4, 0.2), r"margin \+ bias = 0.6 must lie between 0 and 0.5"),
        (lambda: games.bradley_terry([]), r"scores has shape \(0,\), must be \(n,\)"),
        (lambda: games.bradley_terry([0.0, np.nan]), r"scores\[1\] = nan must be finite"),
        (lambda: games.transitive_cyclic(3, 1.1), "mixing = 1.1 must lie between 0 and 1"),
    ],
)
def test_bad_parameters_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# The registry.


@pytest.mark.parametrize("name", games.NAMED)
def test_every_named_game_takes_beta_and_reference(name):
    params = NEEDED.get(name, {})
    n = games.named(name, **params).n
    reference = np.arange(1.0, n + 1) / (n * (n + 1) / 2)
    game = games.named(name, **params, beta=0.25, reference=reference)
    assert game.beta == 0.25
    np.testing.assert_allclose(game.reference, reference)


def test_names_are_the_functions_with_hyphens_and_document_themselves():
    for name, function in games.NAMED.items():
        assert getattr(games, name.replace("-", "_")) is function
        assert ">>>" in (inspect.getdoc(function) or "")


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="'rock-paper-scisors' is unknown; did you mean 'rock-paper-scissors'?"):
        games.named("rock-paper-scisors")
    with pytest.raises(UnknownNameError, match="'cyclic-tournament' has no parameter 'margn'; did you mean 'margin'?"):
        games.named("cyclic-tournament", n=5, margn=0.1)
    with pytest.raises(InputError, match="game 'transitive-cyclic' needs n and mixing"):
        games.named("transitive-cyclic")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.array([[0.0, 0.4], [0.1, 0.0]]), "skew-symmetric"),
        (np.array([[0.0, 0.6], [-0.6, 0.0]]), r"\[-1/2, 1/2\]"),
        (np.array([[0.0, np.nan], [np.nan, 0.0]]), "skew-symmetric"),
        (np.zeros((2, 3)), "skew-symmetric"),
        (np.zeros((2, 2), dtype=np.float32), "float64"),
    ],
)
def test_a_payoff_form_is_validated_too(matrix: Any, message: str) -> None:
    """A payoff form given directly keeps the promises of one built from preferences, and is frozen apart from the caller's."""
    from nlhfsim.games.payoffs import DensePayoff

    with pytest.raises(InputError, match=message):
        PreferenceGame(DensePayoff(matrix))
    mine = np.array([[0.0, 0.4], [-0.4, 0.0]])
    game = PreferenceGame(DensePayoff(mine))
    mine[0, 1] = 0.1
    assert game.preferences[0, 1] == 0.9 and mine.flags.writeable


def test_single_precision_is_rounding_not_an_error() -> None:
    """P in float32 misses P + P^T = 1 by its own rounding, which is forgiven; in float64 the same gap is not."""
    upper = np.triu(np.random.default_rng(3).random((6, 6)), 1)
    exact = upper + np.tril(1 - upper.T, -1) + np.eye(6) / 2
    single = exact.astype(np.float32)
    assert np.abs(single.astype(float) + single.T.astype(float) - 1).max() > 1e-8
    np.testing.assert_allclose(PreferenceGame(single).preferences, exact, atol=1e-7)
    wrong = exact.copy()
    wrong[0, 1] += 1e-7
    with pytest.raises(InputError, match="must be 1"):
        PreferenceGame(wrong)


def test_complex_numbers_and_what_is_no_game_are_refused() -> None:
    """An imaginary part is not dropped in silence, and functions of a game say what they want."""
    import nlhfsim as nl

    with pytest.raises(InputError, match="it is complex"):
        PreferenceGame(np.full((2, 2), 0.5 + 0.1j))
    for call in (nl.solve, nl.best_response, nl.exploitability):
        with pytest.raises(InputError, match="must be a PreferenceGame"):
            call([[0.5]], [1.0]) if call is not nl.solve else call([[0.5]])
    with pytest.raises(InputError, match="at least one value"):
        nl.span([])
