"""Bradley–Terry fits, their goodness of fit and their optimum, against a general optimizer, brute force and known figures."""

from __future__ import annotations

import itertools

import numpy as np
import oracles
import pytest
from scipy import optimize, stats
from scipy.special import expit

import nlhfsim as nl
from nlhfsim import datasets, games
from nlhfsim.datasets import Comparisons
from nlhfsim.errors import InputError
from nlhfsim.games import (
    PreferenceGame,
    bradley_terry_test,
    fit_bradley_terry,
    goodness_of_fit,
    reward_model,
    reward_model_optimum,
)
from nlhfsim.games.likelihood import maximize_likelihood

WITNESS = [[0.5, 1.0, 0.3], [0.0, 0.5, 1.0], [0.7, 0.0, 0.5]]


def game_of_votes(wins, ties=None, prior=0.5):
    """A game made from counts, one table or one a context."""
    won = np.array(wins, dtype=float)
    tied = np.zeros_like(won) if ties is None else np.array(ties, dtype=float)
    n, contexts = won.shape[-1], None if won.ndim == 2 else tuple(f"c{k}" for k in range(len(won)))
    labels = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:n])
    return Comparisons(labels, contexts, won.reshape(-1, n, n), tied.reshape(-1, n, n), prior).game()


def drawn_votes(scores, votes, rng, tie_rate=0.0):
    """Wins and ties of so many votes a pair; a tie has the same chance in each pair, half-wins follow Bradley–Terry."""
    n = len(scores)
    wins, ties = np.zeros((n, n)), np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        chance = 1 / (1 + np.exp(scores[j] - scores[i]))
        tie = min(tie_rate, 2 * min(chance, 1 - chance))
        wins[i, j], wins[j, i], ties[i, j] = rng.multinomial(votes, [chance - tie / 2, 1 - chance - tie / 2, tie])
    return wins, ties + ties.T


def log_likelihood(wins, scores):
    """Sum over votes of log P, from the definition of the model."""
    pairs = [(i, j) for i in range(len(wins)) for j in range(len(wins)) if i != j]
    return sum(wins[i, j] * np.log(1 / (1 + np.exp(scores[j] - scores[i]))) for i, j in pairs)


def fitted_by_scipy(wins):
    found = optimize.minimize(lambda s: -log_likelihood(wins, s), np.zeros(len(wins)), method="BFGS", options={"gtol": 1e-9})
    return found.x - found.x.mean(), -found.fun


def saturated(wins):
    total = wins + wins.T
    return sum(w * np.log(w / t) for w, t in zip(wins[wins > 0], total[wins > 0]))


# The fit.


@pytest.mark.parametrize("seed", range(6))
def test_the_fit_to_counts_is_that_of_a_general_optimizer(seed):
    rng = np.random.default_rng(seed)
    wins, ties = np.zeros((5, 5)), np.zeros((5, 5))
    above = np.triu_indices(5, 1)
    wins[above], wins.T[above], ties[above] = rng.integers(1, 30, (3, 10))
    fit = fit_bradley_terry(game_of_votes(wins, ties + ties.T))
    halves = wins + (ties + ties.T) / 2
    scores, best = fitted_by_scipy(halves)
    np.testing.assert_allclose(fit.scores, scores, atol=1e-6)
    assert fit.log_likelihood == pytest.approx(best, abs=1e-8) and fit.status == "converged"
    assert fit.deviance == pytest.approx(2 * (saturated(halves) - best), abs=1e-8)
    assert fit.degrees_of_freedom == 6
    # At the maximum each action has won as often as expected (an exact condition, unlike the optimizer).
    expected = ((halves + halves.T) * expit(fit.scores[:, None] - fit.scores[None, :])).sum(axis=1) - np.diag(
        halves + halves.T
    ) / 2
    np.testing.assert_allclose(halves.sum(axis=1), expected, rtol=1e-13)


@pytest.mark.parametrize("law", ["uniform", "logistic", "low-rank", "near-ties"])
def test_without_counts_all_pairs_weigh_the_same(law):
    game = games.random_game(6, 2, law)
    shares = game.preferences - np.eye(6) / 2
    fit = fit_bradley_terry(game)
    scores, best = fitted_by_scipy(shares)
    np.testing.assert_allclose(fit.scores, scores, atol=2e-6)
    assert fit.log_likelihood == pytest.approx(best, abs=1e-9)
    np.testing.assert_allclose(fit_bradley_terry(game, votes_per_pair=7).scores, fit.scores, atol=1e-12)
    assert fit_bradley_terry(game, votes_per_pair=7).deviance == pytest.approx(7 * fit.deviance, rel=1e-9)


def test_counts_weigh_the_pairs_and_the_prior_of_the_game_is_left_out():
    wins = np.array([[0, 90, 1], [10, 0, 1], [1, 2, 0]])
    game = game_of_votes(wins, prior=0.5)
    np.testing.assert_allclose(fit_bradley_terry(game).scores, fitted_by_scipy(wins.astype(float))[0], atol=1e-6)
    np.testing.assert_allclose(
        fit_bradley_terry(game, prior=2.0).scores, fitted_by_scipy(wins + 2.0 - 2 * np.eye(3))[0], atol=1e-6
    )
    equal = fit_bradley_terry(game, votes_per_pair=1).scores
    np.testing.assert_allclose(equal, fitted_by_scipy(game.preferences - np.eye(3) / 2)[0], atol=1e-6)
    assert np.abs(equal - fit_bradley_terry(game).scores).max() > 0.1


@pytest.mark.parametrize("scores", [[0.3, -1.2, 2.0, 0.0], np.linspace(-17, 17, 12), [1e-9, 0.0, -1e-9]])
def test_bradley_terry_games_give_back_their_scores(scores):
    fit = fit_bradley_terry(games.bradley_terry(scores))
    np.testing.assert_allclose(fit.scores, np.array(scores) - np.mean(scores), rtol=1e-6, atol=1e-12)
    assert 0 <= fit.deviance < 1e-10 and fit.status == "converged"


def test_two_actions_have_their_log_odds():
    fit = fit_bradley_terry(game_of_votes([[0, 9], [3, 0]]))
    np.testing.assert_allclose(fit.scores, [np.log(3) / 2, -np.log(3) / 2], rtol=1e-14)
    assert fit.degrees_of_freedom == 0


def test_the_scores_of_the_witness():
    """By symmetry s = (a, 0, -a), and the stationarity of a is 1.5 - 0.2 = sigmoid(a) + sigmoid(2a)."""
    a = optimize.brentq(lambda a: expit(a) + expit(2 * a) - 1.3, 0, 2, xtol=1e-15)
    np.testing.assert_allclose(fit_bradley_terry(PreferenceGame(WITNESS)).scores, [a, 0, -a], atol=1e-13)


def can_be_split(wins):
    """Whether the actions fall in two parts one of which never won against the other (Ford, 1957)."""
    n = len(wins)
    parts = (s for size in range(1, n) for s in itertools.combinations(range(n), size))
    return any(not wins[np.ix_(part, [j for j in range(n) if j not in part])].any() for part in parts)


def test_a_maximum_exists_exactly_under_fords_condition():
    seen = set()
    for seed in range(120):
        rng = np.random.default_rng(seed)
        n = 2 + seed % 4
        wins = rng.integers(0, 2, (n, n)) * rng.integers(1, 5, (n, n)) * (1 - np.eye(n, dtype=int))
        if not wins.any():
            continue
        fit = fit_bradley_terry(game_of_votes(wins))
        expected = "no maximum" if can_be_split(wins) else "converged"
        assert fit.status == expected and (fit.scores is None) == (expected == "no maximum") == bool(fit.message)
        assert len(fit.groups) == 1 or expected == "no maximum"
        assert sorted(label for group in fit.groups for label in group) == sorted("ABCDEF"[:n])
        seen.add((n, expected))
    assert len(seen) == 8


def test_without_a_maximum_the_least_upper_bound_is_given():
    """A and B beat each other and both always beat the cycle C, D, E: the optimizer climbs to the sum over the two groups."""
    wins = np.zeros((5, 5))
    wins[0, 1], wins[1, 0], wins[:2, 2:] = 7, 3, 2
    wins[2, 3] = wins[3, 4] = wins[4, 2] = 4
    wins[3, 2] = 1
    fit = fit_bradley_terry(game_of_votes(wins))
    ridge = optimize.minimize(lambda s: -log_likelihood(wins, s), np.zeros(5), method="BFGS", options={"gtol": 1e-7})
    assert fit.log_likelihood == pytest.approx(-ridge.fun, abs=1e-5) and fit.log_likelihood >= -ridge.fun
    assert fit.deviance == pytest.approx(2 * (saturated(wins) - fit.log_likelihood), rel=1e-12)
    assert set(fit.groups) == {("A", "B"), ("C", "D", "E")} and fit.degrees_of_freedom == 1
    assert fit.message == "A, B never lost a vote to any action but each other"


@pytest.mark.parametrize(
    ("wins", "message"),
    [
        ([[0, 3, 2], [0, 0, 2], [0, 1, 0]], "A never lost a vote to another action"),
        ([[0, 3, 2], [2, 0, 2], [0, 0, 0]], "C never won a vote against another action"),
        ([[0, 3, 0], [2, 0, 0], [0, 0, 0]], "C never had a vote with another action"),
    ],
)
def test_the_actions_to_blame_are_named(wins, message):
    fit = fit_bradley_terry(game_of_votes(wins))
    assert fit.status == "no maximum" and fit.message == message
    assert fit_bradley_terry(game_of_votes(wins), prior=0.1).status == "converged"


@pytest.mark.parametrize("n", [3, 8, 40])
def test_certain_votes_that_cycle_are_fitted(n):
    """Tournaments in which every vote is certain, strongly connected: far from Bradley–Terry, and still one maximum."""
    tried = 0
    for seed in range(12):
        game = games.random_game(n, seed, "zero-one")
        fit = fit_bradley_terry(game)
        if fit.scores is not None:
            tried += 1
            expected = expit(fit.scores[:, None] - fit.scores[None, :]).sum(axis=1) - 0.5
            np.testing.assert_allclose((game.advantages > 0).sum(axis=1), expected, rtol=1e-12)
            assert fit.status == "converged"
    assert tried > 1


def test_a_long_chain_of_near_certain_votes_is_fitted():
    """Each action nearly always beats the next: the scores are far apart, and Newton's method alone would leap."""
    n = 12
    wins = np.diag(np.full(n - 1, 1e6), 1) + np.diag(np.ones(n - 1), -1)
    fit = fit_bradley_terry(game_of_votes(wins))
    assert fit.status == "converged"
    np.testing.assert_allclose(np.diff(fit.scores), -np.log(1e6), rtol=1e-9)


def test_newtons_method_converges_from_far_away():
    """Where the likelihood is flat, a whole Newton step would leap out of it; the damped one climbs."""
    wins = np.array([[0.0, 5, 2], [3, 0, 4], [6, 1, 0]])
    expected = fit_bradley_terry(game_of_votes(wins)).scores
    for start in ([9.0, -9.0, 0.0], [-25.0, 0.0, 25.0]):
        scores, converged = maximize_likelihood(wins[None], np.array(start))
        assert converged.all()
        np.testing.assert_allclose(scores[0], expected, atol=1e-12)


# The goodness of fit.


def test_p_values_are_uniform_under_the_model():
    """120 tables drawn from the model, with and without ties: the p-values are uniform, and ignoring ties breaks that."""
    rng = np.random.default_rng(5)
    plain, tied, ignored = [], [], []
    for _ in range(120):
        scores = rng.normal(size=5)
        wins, ties = drawn_votes(scores, 40, rng)
        plain.append(bradley_terry_test(game_of_votes(wins, ties), draws=199, rng=rng).p_value)
        wins, ties = drawn_votes(scores, 40, rng, tie_rate=0.4)
        tied.append(bradley_terry_test(game_of_votes(wins, ties), draws=199, rng=rng).p_value)
        ignored.append(bradley_terry_test(game_of_votes(wins + ties / 2), draws=199, rng=rng).p_value)
    for values in (plain, tied):
        assert stats.kstest(values, "uniform").pvalue > 0.05
    assert stats.kstest(ignored, "uniform").pvalue < 1e-4 and np.mean(ignored) > 0.6


def test_a_strong_cycle_has_the_smallest_p_value_there_is():
    found = bradley_terry_test(games.cyclic_tournament(5, 0.3), votes_per_pair=40, draws=250)
    assert found.p_value == 1 / 251 and found.null_deviances.shape == (250,)


def test_with_many_votes_the_deviances_are_chi_square():
    """Wilks: the bootstrap's deviances follow chi² with the degrees of freedom, and so does its p-value."""
    game = games.bradley_terry([0.4, -0.3, 0.0, 0.9, -1.0])
    found = bradley_terry_test(game, votes_per_pair=4000, draws=4000)
    assert found.degrees_of_freedom == 6
    assert stats.kstest(found.null_deviances, stats.chi2(6).cdf).pvalue > 0.01
    shifted = game.preferences.copy()
    shifted[0, 1] += 0.025
    shifted[1, 0] -= 0.025
    off = bradley_terry_test(PreferenceGame(shifted), votes_per_pair=4000, draws=4000)
    assert 0.005 < stats.chi2(6).sf(off.deviance) < 0.5
    assert off.p_value == pytest.approx(stats.chi2(6).sf(off.deviance), abs=0.02)


def test_the_bootstrap_is_that_of_a_plain_loop():
    """A slow bootstrap by scipy of a table with ties and unequal counts, some pairs never compared."""
    wins = np.array([[0, 12, 3, 5], [8, 0, 9, 0], [9, 6, 0, 14], [10, 0, 3, 0]], dtype=float)
    ties = np.array([[0, 10, 0, 6], [10, 0, 5, 0], [0, 5, 0, 2], [6, 0, 2, 0]], dtype=float)
    halves, rng = wins + ties / 2, np.random.default_rng(3)
    scores, best = fitted_by_scipy(halves)
    slow = []
    for _ in range(150):
        table = np.zeros((4, 4))
        for i, j in itertools.combinations(range(4), 2):
            votes = int((halves + halves.T)[i, j])
            if votes:
                chance, tie = expit(scores[i] - scores[j]), ties[i, j] / votes
                first, second, both = rng.multinomial(votes, [chance - tie / 2, 1 - chance - tie / 2, tie])
                table[i, j], table[j, i] = first + both / 2, second + both / 2
        slow.append(2 * (saturated(table) - fitted_by_scipy(table)[1]))
    found = bradley_terry_test(game_of_votes(wins, ties), draws=3000)
    assert stats.ks_2samp(slow, found.null_deviances).pvalue > 0.05
    observed = 2 * (saturated(halves) - best)
    assert found.deviance == pytest.approx(observed, abs=1e-8) and found.degrees_of_freedom == 5 - 3
    assert found.p_value == pytest.approx((np.sum(found.null_deviances >= observed) + 1) / 3001, abs=2 / 3001)


def test_the_embedded_data():
    """The gambles are no Bradley–Terry model, the girls' subjects may be one.

    MT-Bench: p is about 0.11 when ties are taken as half wins that vary like whole votes, which is too kind; with ties that
    vary like ties, and with the ties left out (chi² of the decided votes), the model is rejected at 5 %.
    """
    assert bradley_terry_test(datasets.load("regenwetter2012"), draws=400).p_value == 1 / 401
    girls = bradley_terry_test(datasets.load("kendall1940-girls"), draws=400)
    assert girls.degrees_of_freedom == 45 and girls.p_value == pytest.approx(stats.chi2(45).sf(girls.deviance), abs=0.12)
    counts = datasets.load("mtbench").comparisons
    halves = Comparisons(counts.items, None, counts.wins + counts.ties / 2, 0 * counts.ties, 0.0).game()
    assert 0.07 < bradley_terry_test(halves, draws=2000).p_value < 0.16
    assert bradley_terry_test(counts.game(), draws=2000).p_value < 0.04
    decided = Comparisons(counts.items, None, counts.wins, 0 * counts.ties, 0.0).game()
    found = bradley_terry_test(decided, draws=2000)
    assert found.p_value == pytest.approx(stats.chi2(10).sf(found.deviance), abs=0.01) and found.p_value < 0.04


def test_the_seed_decides_and_a_generator_moves_on():
    game = datasets.load("kendall1940-girls")
    first, again, other = (bradley_terry_test(game, draws=50, rng=seed).null_deviances for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    rng = np.random.default_rng(1)
    assert (bradley_terry_test(game, draws=50, rng=rng).null_deviances == first).all()
    assert (bradley_terry_test(game, draws=50, rng=rng).null_deviances != first).any()


def test_draws_come_in_blocks(monkeypatch):
    monkeypatch.setattr(goodness_of_fit, "_ENTRIES", 11 * 11 * 70)
    found = bradley_terry_test(datasets.load("kendall1940-girls"), draws=200)
    assert found.null_deviances.shape == (200,) and len(np.unique(found.null_deviances)) == 200
    assert found.null_deviances.mean() == pytest.approx(45, rel=0.1)


def test_certain_pairs_between_groups_do_not_deviate():
    """Where A always wins, the test is that of the others alone."""
    inner = np.array([[0, 14, 6], [6, 0, 13], [14, 7, 0]])
    wins = np.zeros((4, 4))
    wins[0, 1:], wins[1:, 1:] = 20, inner
    whole, part = (bradley_terry_test(game_of_votes(table), draws=500) for table in (wins, inner))
    assert whole.deviance == pytest.approx(part.deviance, rel=1e-12) and whole.degrees_of_freedom == 1
    assert (whole.null_deviances == part.null_deviances).all() and whole.p_value == part.p_value < 0.05


def test_the_deviances_of_groups_add_up():
    """Two cycles, one always above the other: two degrees of freedom, whose deviances have mean two."""
    cycle = np.array([[0, 220, 200], [180, 0, 210], [200, 190, 0]])
    wins = np.zeros((6, 6))
    wins[:3, :3] = wins[3:, 3:] = cycle
    wins[:3, 3:] = 10
    found = bradley_terry_test(game_of_votes(wins), draws=2000)
    assert found.degrees_of_freedom == 2 and stats.kstest(found.null_deviances, stats.chi2(2).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("game", "options", "reason"),
    [
        (games.rock_paper_scissors(), {}, "no counts: the game was not made from comparisons"),
        (game_of_votes([[0, 3], [2, 0]]), {}, "nothing to test: there are as many scores as pairs compared"),
        (PreferenceGame([[0.5]]), {"votes_per_pair": 3}, "nothing to test"),
        (game_of_votes(np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0]]) * 1.1), {}, "a pair has 3.3 votes: votes with weights"),
    ],
)
def test_without_a_p_value_there_is_a_reason(game, options, reason):
    found = bradley_terry_test(game, **options)
    assert found.p_value is None and found.reason.startswith(reason) and found.draws == 0 and found.null_deviances.size == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bradley_terry_test(games.rock_paper_scissors(), votes_per_pair=0), "votes_per_pair = 0 must be at least 1"),
        (lambda: bradley_terry_test(games.rock_paper_scissors(), votes_per_pair=2.5), "votes_per_pair = 2.5 must be a whole"),
        (lambda: bradley_terry_test(games.rock_paper_scissors(), draws=0), "draws = 0 must be at least 1"),
        (lambda: bradley_terry_test(games.rock_paper_scissors(), rng="x"), "rng = 'x' must be a numpy.random.Generator"),
        (lambda: fit_bradley_terry(games.rock_paper_scissors(), prior=-1), "prior = -1 must not be negative"),
        (lambda: fit_bradley_terry("no game"), "game = 'no game' must be a PreferenceGame"),
        (
            lambda: fit_bradley_terry(PreferenceGame(WITNESS, comparisons="votes")),
            r"game.comparisons = 'votes' must hold wins and ties of shape \(1, 3, 3\)",
        ),
        (
            lambda: reward_model_optimum(games.rock_paper_scissors(), [1, 0, 0]),
            r"equilibrium = \[1, 0, 0\] must be an Equilibrium",
        ),
        (
            lambda: reward_model_optimum(games.rock_paper_scissors(), nl.solve(games.rock_paper_scissors(beta=0.2))),
            "equilibrium is that of another game",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# The optimum of the reward model.


@pytest.mark.parametrize(("beta", "gap"), [(1, 0.116), (0.1, 0.189), (0.01, 0.200), (0.001, 0.200), (0, 0.200)])
def test_the_witness_stays_exploitable(beta, gap):
    game = PreferenceGame(WITNESS, beta=beta)
    found = reward_model_optimum(game, nl.solve(game))
    assert found.gap0 == pytest.approx(gap, abs=5e-4)
    assert found.equilibrium_gap0 < found.gap0 and found.exploitability >= found.equilibrium_exploitability


def test_bradley_terry_games_and_even_cycles_are_not_exploitable():
    for beta in (1e-2, 1e-3, 0.0):
        transitive = games.bradley_terry([0.3, -0.4, 1.0], beta=beta)
        assert reward_model_optimum(transitive, nl.solve(transitive)).gap0 < 1e-6
        cycle = games.rock_paper_scissors(beta=beta)
        assert reward_model_optimum(cycle, nl.solve(cycle)).gap0 < 1e-10


@pytest.mark.parametrize("name", ["low-rank", "peaked", "random", "near-ties", "real", "zero-one-cycle"])
def test_the_optimum_and_its_numbers_match_their_definitions(family, equilibrium_of, name):
    game = family[name]
    equilibrium = equilibrium_of(game)
    found = reward_model_optimum(game, equilibrium)
    fit = fit_bradley_terry(game)
    np.testing.assert_array_equal(found.reward, fit.scores)
    expected = oracles.penalized_argmax(oracles.numbers(fit.scores), [(game.beta, oracles.simplex(game.reference))])
    np.testing.assert_allclose(found.policy, np.array(expected, dtype=float), rtol=1e-9, atol=1e-300)
    target, P, rho = (
        oracles.simplex(equilibrium.policy),
        np.round(game.preferences * 2**40) / 2**40,
        oracles.simplex(game.reference),
    )
    even = sum(t * sum(P[i][j] * e for j, e in enumerate(expected)) for i, t in enumerate(target))
    assert found.preference_rate == pytest.approx(float(even), abs=1e-9)
    assert found.regularized_preference_rate == pytest.approx(float(0.5 + game.beta * oracles.kl(expected, target)), abs=1e-9)
    assert found.exploitability == pytest.approx(float(oracles.exploitability(P, rho, game.beta, expected)), abs=1e-9)
    assert found.gap0 == pytest.approx(float(oracles.unregularized_exploitability(P, expected)), abs=1e-9)
    assert found.equilibrium_gap0 == pytest.approx(float(oracles.unregularized_exploitability(P, target)), abs=1e-9)
    assert found.equilibrium_exploitability == equilibrium.exploitability and found.message == ""


def test_at_beta_zero_the_optimum_is_uniform_over_the_best_scores():
    """A and B have the same score by symmetry, C a lower one; the reference does not matter."""
    game = PreferenceGame([[0.5, 0.5, 0.8], [0.5, 0.5, 0.8], [0.2, 0.2, 0.5]], beta=0, reference=[0.2, 0.3, 0.5])
    found = reward_model_optimum(game, nl.solve(game))
    assert found.policy.tolist() == [0.5, 0.5, 0.0] and found.gap0 == 0.0 and found.preference_rate == 0.5
    rounded = reward_model._optimum(np.log([0.2, 0.3, 0.5]), np.array([1.0, 1.0 + 2.0**-52, 0.9]), 0.0)
    np.testing.assert_allclose(np.exp(rounded), [0.5, 0.5, 0.0], rtol=1e-15)


def test_contexts_are_fitted_one_by_one_and_averaged():
    blocks = np.stack([WITNESS, games.bradley_terry([0.0, 2.0, 1.0]).preferences, games.random_game(3, 4).preferences])
    game = PreferenceGame(blocks, beta=0.05, reference=[0.5, 0.3, 0.2], weights=[0.5, 0.2, 0.3])
    found = reward_model_optimum(game, nl.solve(game))
    alone = [reward_model_optimum(game.context(k), nl.solve(game.context(k))) for k in range(3)]
    for name in ("preference_rate", "exploitability", "gap0"):
        values = [getattr(one, name) for one in alone]
        np.testing.assert_allclose(getattr(found, f"{name}_by_context"), values, rtol=1e-9)
        assert getattr(found, name) == pytest.approx(np.dot(game.weights, values), rel=1e-9)
    regularized = [one.regularized_preference_rate for one in alone]
    assert found.regularized_preference_rate == pytest.approx(np.dot(game.weights, regularized), rel=1e-9)
    np.testing.assert_allclose(found.policy, [one.policy for one in alone], rtol=1e-9)


def test_the_reward_sees_the_prior_of_the_game():
    """A never lost, so the votes alone give no reward; the prior that made the preferences gives one."""
    game = game_of_votes([[0, 3, 2], [0, 0, 2], [0, 1, 0]], prior=0.5)
    found = reward_model_optimum(game, nl.solve(game))
    np.testing.assert_array_equal(found.reward, fit_bradley_terry(game, prior=0.5).scores)
    none = reward_model_optimum(game, nl.solve(game), prior=0)
    assert none.policy is None and none.gap0 is None and none.equilibrium_gap0 == found.equilibrium_gap0
    assert none.message == "no reward model: A never lost a vote to another action; prior=0.5, say, gives one"
    strong = games.random_game(3, 0, "zero-one", contexts=6)
    missing = reward_model_optimum(strong, nl.solve(strong)).message
    assert missing.startswith("no reward model in ") and " of 6 contexts, the first of them context " in missing
