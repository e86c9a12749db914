"""The strategies of `nlhfsim.testing`: what they draw is valid, reaches every kind of game, and shrinks to what can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_package import modules_loaded_by

import nlhfsim as nl
from nlhfsim import testing
from nlhfsim.errors import InputError
from nlhfsim.games.payoffs import LowRankPayoff

Floats = npt.NDArray[np.float64]
Game = nl.PreferenceGame
UNIFORM_CYCLES = [[[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]], [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]]


def find(strategy: st.SearchStrategy[Any], condition: Callable[[Any], bool], tries: int = 1000) -> Any:
    """The simplest example with a property, the same each time."""
    phases = [hypothesis.Phase.generate, hypothesis.Phase.shrink]  # to explain an example is to vary it after it was shrunk
    options = settings(max_examples=tries, deadline=None, derandomize=True, database=None, phases=phases)
    return hypothesis.find(strategy, condition, settings=options)


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """So many examples, the same each time."""
    found: list[Any] = []
    phases = [hypothesis.Phase.generate]
    options = settings(max_examples=count, deadline=None, derandomize=True, database=None, phases=phases)
    options(given(strategy)(lambda example: found.append(example)))()
    return found


def test_the_strategies_load_when_they_are_used() -> None:
    """`import nlhfsim` does not pull in hypothesis, `nlhfsim.testing` does."""
    assert "hypothesis" not in modules_loaded_by("import nlhfsim")
    assert "hypothesis" in modules_loaded_by("import nlhfsim\nnlhfsim.testing")


# --- validity -------------------------------------------------------------------------------------------------------------


@given(testing.preferences((1, 6)))
def test_preferences_are_preferences(P: Floats) -> None:
    """Probabilities that add up to 1 in pairs, 1/2 on the diagonal."""
    assert P.dtype == np.float64 and P.ndim == 2 and 1 <= len(P) <= 6
    assert ((P >= 0) & (P <= 1)).all() and (P.diagonal() == 0.5).all()
    np.testing.assert_allclose(P + P.T, 1, rtol=0, atol=1e-15)


def valid(game: Game, sizes: tuple[int, int], smallest: float) -> None:
    """What is promised of every game."""
    assert sizes[0] <= game.n <= sizes[1] and game.reference.shape == game.policy_shape
    np.testing.assert_allclose(game.reference.sum(axis=-1), 1, rtol=1e-14)
    assert game.reference.min() >= min(smallest, 1 / game.n) * (1 - 1e-9)
    np.testing.assert_allclose(game.weights.sum(), 1, rtol=1e-14)
    again = Game(game.preferences, game.beta, game.reference, weights=game.weights if game.batched else None)
    np.testing.assert_allclose(again.advantages, game.advantages, rtol=0, atol=1e-15)


@given(testing.preference_games())
def test_games_are_valid(game: Game) -> None:
    """By default one to five actions, one context without an axis, β from 1e-3 to 1e3."""
    valid(game, (1, 5), 1e-12)
    assert not game.batched and 1e-3 <= game.beta <= 1e3


@given(testing.preference_games((2, 4), contexts=(1, 3), beta=testing.betas(1e-8, 10, zero=True), smallest_reference=1e-300))
def test_games_with_contexts_are_valid(game: Game) -> None:
    """Every context has preferences and a reference of its own; bounds are kept."""
    valid(game, (2, 4), 1e-300)
    assert game.batched and 1 <= game.n_contexts <= 3
    assert game.beta == 0 or 1e-8 <= game.beta <= 10


@given(testing.preference_games((3, 8), low_rank=True, reference="uniform", beta=0.5))
def test_games_of_low_rank_are_stored_by_their_factors(game: Game) -> None:
    """No matrix is stored; the arguments are what they say."""
    valid(game, (3, 8), 1 / 8)
    assert isinstance(game.contexts[0].payoff, LowRankPayoff) and np.linalg.matrix_rank(game.advantages) <= 4
    assert game.beta == 0.5 and np.ptp(game.reference) == 0


@given(testing.preference_games(3, reference=[0.5, 0.3, 0.2]), testing.preference_games(3, reference=testing.references(3)))
def test_a_reference_of_ones_own(given_one: Game, drawn_one: Game) -> None:
    """A fixed reference is taken, and a strategy of them."""
    np.testing.assert_allclose(given_one.reference, [0.5, 0.3, 0.2], rtol=1e-15)
    assert drawn_one.n == 3


@given(st.data())
def test_policies_are_policies(data: st.DataObject) -> None:
    """Of the game's shape, with full support, no smaller than asked."""
    game = data.draw(testing.preference_games(contexts=data.draw(st.sampled_from([None, 2]))))
    smallest = data.draw(st.sampled_from([1e-300, 1e-6, 1e-2]))
    policy = data.draw(testing.policies(game, smallest=smallest))
    assert policy.shape == game.policy_shape and policy.min() >= min(smallest, 1 / game.n) * (1 - 1e-9)
    np.testing.assert_allclose(policy.sum(axis=-1), 1, rtol=1e-14)


@given(testing.comparison_logs(weights=True), testing.comparison_logs((2, 4), contexts=(1, 3), weights=True))
def test_logs_are_taken(pooled: list[dict[str, Any]], split: list[dict[str, Any]]) -> None:
    """Every log makes a game, of all its items and contexts."""
    game = nl.datasets.from_comparisons(pooled)
    assert set(game.labels) == {row[name] for row in pooled for name in ("item_a", "item_b")}
    assert game.comparisons.coverage().votes == sum(row["weight"] for row in pooled)
    assert nl.datasets.from_comparisons(split).n_contexts == len({row["context"] for row in split})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: testing.preference_games(0), "n = 0 must be at least 1"),
        (lambda: testing.preference_games((4, 2)), "lower bound first"),
        (lambda: testing.preference_games(beta=-1.0), "beta = -1 must not be negative"),
        (lambda: testing.preference_games(reference="peaked"), "must be 'uniform'"),
        (lambda: testing.betas(0.0), "smallest = 0 must be positive"),
        (lambda: testing.betas(2.0, 1.0), "must be at most largest"),
        (lambda: testing.references(3, smallest=0.5), "must lie between 1e-300 and 1/n"),
        (lambda: testing.policies("game"), "must be a PreferenceGame"),  # type: ignore[arg-type]
        (lambda: testing.comparison_logs((1, 3)), "must lie between 2 and 26"),
    ],
)
def test_misuse_is_refused_at_once(call: Callable[[], Any], message: str) -> None:
    """Wrong arguments are refused where they are given, not when something is drawn."""
    with pytest.raises(InputError, match=message):
        call()


# --- reach ----------------------------------------------------------------------------------------------------------------


def twins(game: Game) -> bool:
    """Two actions with the same preferences that are not all ties."""
    A = game.advantages
    return any(A[i].any() and (A[i] == A[j]).all() for i in range(game.n) for j in range(i))


def dominated(game: Game) -> bool:
    """An action does worse than another against everything."""
    P = game.preferences
    return any((P[i] < P[j]).all() for i in range(game.n) for j in range(game.n))


def regular(game: Game) -> bool:
    """A cyclic tournament without ties: every action beats as many as beat it."""
    signs = np.sign(game.advantages)
    return game.n >= 3 and not signs.sum(axis=1).any() and bool((signs + np.eye(game.n)).all())


def additive(game: Game) -> bool:
    """A[i, j] = s_i - s_j, an order, with three levels of the score at least."""
    A = game.advantages
    scores = A.mean(axis=1)
    return len(set(scores.round(9))) > 2 and np.abs(A - scores[:, None] + scores).max() < 1e-12


FEATURES: dict[str, Callable[[Game], bool]] = {
    "one action": lambda game: game.n == 1,
    "two actions": lambda game: game.n == 2,
    "five actions": lambda game: game.n == 5,
    "all ties": lambda game: game.n > 1 and not game.advantages.any(),
    "some ties": lambda game: game.advantages.any() and (game.advantages + np.eye(game.n) == 0).any(),
    "near-ties": lambda game: ((game.advantages != 0) & (np.abs(game.advantages) < 1e-8)).any(),
    "near-ties beside certain votes": lambda g: (np.abs(g.advantages) == 0.5).any() and (np.abs(g.advantages) % 0.01 > 0).any(),
    "certain votes only": lambda game: game.n > 2 and (np.abs(game.advantages) + np.eye(game.n) / 2 == 0.5).all(),
    "cyclic tournament": regular,
    "cyclic tournament of five": lambda game: game.n == 5 and regular(game),
    "majority cycle": nl.games.has_majority_cycle,  # type: ignore[dict-item]
    "rank 2 of 4 or 5": lambda game: game.n >= 4 and np.linalg.matrix_rank(game.advantages) == 2,
    "rank 4": lambda game: np.linalg.matrix_rank(game.advantages) == 4,
    "an order": additive,
    "an order and a cycle": lambda g: 0.1 < nl.games.transitive_cyclic_split(g).cyclic_share < 0.9,  # type: ignore[union-attr]
    "duplicated actions": twins,
    "a dominated action": dominated,
    "uniform reference": lambda game: game.n > 1 and np.ptp(game.reference) == 0,
    "reference of digits": lambda game: game.n > 1 and 0.01 < game.reference.min() < 0.9 / game.n,
    "peaked reference": lambda game: game.reference.min() < 1e-6,
    "reference at 1e-12": lambda game: game.reference.min() < 1.01e-12,
    "small beta": lambda game: game.beta < 0.01,
    "smallest beta": lambda game: game.beta == 1e-3,
    "large beta": lambda game: game.beta > 100,
    "largest beta": lambda game: game.beta == 1e3,
}


def test_every_kind_of_game_is_drawn_often() -> None:
    """Of a thousand games each feature is seen five times."""
    games = drawn(testing.preference_games(), 1000)
    seen = Counter({name: sum(bool(has(game)) for game in games) for name, has in FEATURES.items()})
    assert {name: count for name, count in seen.items() if count < 5} == {}


@pytest.mark.parametrize("value", [1e-8, 0.0, 1e8])
def test_beta_reaches_its_ends(value: float) -> None:
    """The bounds that are asked for are drawn, and β = 0."""
    game = find(testing.preference_games(beta=testing.betas(1e-8, 1e8, zero=True)), lambda game: game.beta == value)
    assert (game.n, game.beta) == (1, value)


def test_references_reach_their_end() -> None:
    """Down to 1e-300."""
    assert find(testing.references(2, smallest=1e-300), lambda rho: rho.min() < 1e-290).min() >= 1e-300
    assert min(rho.min() for rho in drawn(testing.references(2, smallest=1e-300), 300)) == pytest.approx(1e-300)


@pytest.mark.parametrize("word", ["B", "tie", "item_a", "item_b", "model_a", "model_b"])
def test_logs_reach_every_way_to_name_a_winner(word: str) -> None:
    """The simplest log with it has one row."""
    assert len(find(testing.comparison_logs(), lambda rows: any(row["winner"] == word for row in rows))) == 1


@pytest.mark.parametrize(
    "has",
    [
        lambda rows: any(row["weight"] == 0 for row in rows),
        lambda rows: len({row["context"] for row in rows}) == 3,
        lambda rows: len({row["item_b"] for row in rows} | {row["item_a"] for row in rows}) == 5,
        lambda rows: len(rows) > 6,
    ],
)
def test_logs_reach_what_they_may_hold(has: Callable[[Any], bool]) -> None:
    """Rows of no weight, all contexts, all items, many rows."""
    find(testing.comparison_logs(contexts=(1, 3), weights=True), has)


def test_the_same_games_are_drawn_again() -> None:
    """Without randomness of its own a run in continuous integration can be repeated."""
    first, again = (drawn(testing.preference_games(contexts=(1, 2)), 50) for _ in range(2))
    assert [game.fingerprint for game in first] == [game.fingerprint for game in again]


def test_twenty_actions_can_be_drawn() -> None:
    """Larger games are slower, not refused."""
    assert find(testing.preference_games((1, 20)), lambda game: game.n >= 12, 100).n == 12


# --- shrinking ------------------------------------------------------------------------------------------------------------


def plain(game: Game, beta: float = 1.0) -> bool:
    """Whether the game has uniform references and this β."""
    return game.beta == beta and np.ptp(game.reference) == 0


def test_the_simplest_game() -> None:
    """One action, β = 1."""
    game = find(testing.preference_games(), lambda game: True)
    assert plain(game) and game.n == 1


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("has", [nl.games.has_majority_cycle, lambda game: not (game.advantages >= 0).all(axis=1).any()])
def test_cycles_shrink_to_rock_paper_scissors(has: Callable[[Game], bool], low_rank: bool) -> None:
    """A majority cycle, and no action that loses to none: three actions, certain votes, uniform reference, β = 1."""
    game = find(testing.preference_games(low_rank=low_rank), has)
    assert plain(game) and game.preferences.tolist() in UNIFORM_CYCLES


def test_no_condorcet_winner_shrinks_to_a_tie() -> None:
    """Two tied actions have no Condorcet winner."""
    game = find(testing.preference_games(), lambda game: nl.games.condorcet_winner(game) is None)
    assert plain(game) and game.preferences.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_a_peaked_reference_shrinks_to_two_tied_actions() -> None:
    """The reference stays peaked, all else is plain."""
    game = find(testing.preference_games(), lambda game: game.reference.min() < 1e-6)
    assert game.n == 2 and not game.advantages.any() and game.beta == 1
    assert game.reference.round(9).tolist() == [0.999999, 1e-06]


def test_a_near_tie_shrinks_to_two_actions() -> None:
    """Whatever the actions between which it was found."""
    game = find(testing.preference_games(), lambda game: ((game.advantages != 0) & (np.abs(game.advantages) < 1e-4)).any())
    assert plain(game) and game.n == 2 and np.abs(game.advantages).max() == pytest.approx(5e-7, abs=1e-15)


def test_what_needs_a_small_beta_shrinks_to_a_tenth() -> None:
    """An equilibrium far from the reference: β = 0.1 and a certain vote between two actions."""
    game = find(testing.preference_games(), lambda game: nl.kl(nl.solve(game).policy, game.reference) > 0.3)
    assert plain(game, 0.1) and game.preferences.tolist() in ([[0.5, 0.0], [1.0, 0.5]], [[0.5, 1.0], [0.0, 0.5]])


def test_one_of_several_contexts_shrinks_alone() -> None:
    """The other context and the other actions go."""
    game = find(testing.preference_games(contexts=(1, 3)), lambda game: np.any(nl.games.has_majority_cycle(game)))
    assert plain(game) and game.n_contexts == 1 and game.preferences[0].tolist() in UNIFORM_CYCLES


def test_entries_are_short_decimals() -> None:
    """A preference that is neither a tie nor certain, among three actions of which none ties."""
    game = find(testing.preference_games(), lambda g: g.n == 3 and len(set(np.abs(g.advantages).round(9).ravel())) == 4)
    assert plain(game) and all(len(f"{p:.12g}") <= 5 for p in game.preferences.ravel())


def test_a_log_of_three_items_shrinks_to_three_rows() -> None:
    """A triangle, each row won by its first item."""
    rows = find(
        testing.comparison_logs(), lambda rows: len({row["item_b"] for row in rows} | {row["item_a"] for row in rows}) == 3
    )
    assert len(rows) == 3 and all(row["winner"] == row["item_a"] for row in rows)
