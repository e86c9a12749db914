"""Properties of the package on games that Hypothesis draws: symmetries, two routes to one number, certificates, ranges of floats.

The default profile draws the same few games each time, ``NLHFSIM_HYPOTHESIS=deep`` many others (see `conftest`). Runs are plain
Python: that it is the compiled loop is a clause of the contract.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nlhfsim as nl
from nlhfsim import dynamics, testing
from nlhfsim.games.responses import context_exploitability
from nlhfsim.simplex import log_softmax

pytestmark = pytest.mark.filterwarnings(
    "ignore::nlhfsim.errors.ProvenRangeWarning", "ignore::nlhfsim.errors.EquilibriumStartWarning"
)

Floats = npt.NDArray[np.float64]
Game = nl.PreferenceGame
MP = oracles.mp
QUICK = settings.default.max_examples <= 100  # type: ignore[union-attr]
METHODS = st.sampled_from(dynamics.names())


def few(count: int) -> Any:
    """Settings of a test whose examples take long: fewer of them."""
    return settings(max_examples=count if QUICK else 20 * count)


def example(name: str) -> dynamics.Dynamics:
    """The method's own example."""
    return dynamics.build(name, **dict(dynamics.get(name).method.example))


def run(game: Game, method: Any, n_steps: int, start: Floats) -> Floats:
    """log π of every step of a plain run, ``(steps, *policy_shape)``."""
    found = nl.simulate(game, method, n_steps, start=start, equilibrium=False, compiled=False, record_every=1)
    assert found.log_policies is not None
    return found.log_policies[0]


def residual_allowed(beta: float) -> float:
    """The log-ratio residual up to which an equilibrium counts as certified."""
    return float(min(max(1e-12, 8 * np.finfo(float).eps / beta), 1e-6))


@st.composite
def games_with_policy(draw: Any, **options: Any) -> tuple[Game, Floats]:
    """A game, and a policy of it."""
    game = draw(testing.preference_games(**options))
    return game, draw(testing.policies(game))


# --- the contract ---------------------------------------------------------------------------------------------------------


@given(METHODS, testing.preference_games(beta=testing.betas(1e-2, 10), smallest_reference=1e-4), st.integers(0, 100))
@few(10)
def test_methods_keep_the_contract(name: str, game: Game, seed: int) -> None:
    """Not only on the usual games; compiled, as they are used."""
    testing.check_dynamics(name, games=game, seed=seed)


# --- symmetries -----------------------------------------------------------------------------------------------------------


def relabelled(game: Game, order: Any) -> Game:
    """The game with its actions in another order."""
    weights = game.weights if game.batched else None
    order = np.asarray(order)
    return Game(game.preferences[..., order[:, None], order], game.beta, game.reference[..., order], weights=weights)


@given(games_with_policy(n=(2, 5)), st.data())
def test_names_of_actions_do_not_matter(drawn: tuple[Game, Floats], data: st.DataObject) -> None:
    """Equilibrium, exploitability and best response of the relabelled game are those of the game, relabelled."""
    game, policy = drawn
    order = data.draw(st.permutations(range(game.n)))
    other = relabelled(game, order)
    one, two = nl.solve(game), nl.solve(other)
    assert one.status == two.status == "certified"
    off = np.ptp(two.log_policy - one.log_policy[order])
    assert off <= 1e3 * residual_allowed(game.beta)
    for regularized in (True, False):
        values = nl.exploitability(game, policy, regularized=regularized), nl.exploitability(
            other, policy[order], regularized=regularized
        )
        assert values[0] == pytest.approx(values[1], rel=1e-9, abs=1e-15)
    np.testing.assert_allclose(
        nl.best_response(other, policy[order]), nl.best_response(game, policy)[order], rtol=1e-9, atol=1e-300
    )
    assert nl.games.has_majority_cycle(game) == nl.games.has_majority_cycle(other)


def split(game: Game, policy: Floats, action: int, share: float) -> tuple[Game, Floats]:
    """The game with one action twice, its reference and its chance in a policy shared out alike."""
    keep = [*range(game.n), action]
    reference, start = game.reference[keep], policy[keep]
    for values in (reference, start):
        values[action] *= share
        values[-1] *= 1 - share
    return Game(game.preferences[np.ix_(keep, keep)], game.beta, reference), start


def merged(log_policies: Floats, action: int) -> Floats:
    """log π with the last action put together with the one that it is a copy of."""
    found = log_policies[..., :-1].copy()
    found[..., action] = np.logaddexp(log_policies[..., action], log_policies[..., -1])
    return found


SPLITTING = {
    "Extragradient",
    "MagneticMirrorDescent",
    "MagnetRefresh",
    "MultiplicativeWeights",
    "NashMD",
    "NashMirrorProx",
    "NaturalPG",
    "OptimisticMirrorDescent",
    "ProximalPoint",
}
"""Mirror methods: two copies of an action are one."""


@given(games_with_policy(n=(1, 4)), st.data())
def test_copies_of_an_action_share_its_mass(drawn: tuple[Game, Floats], data: st.DataObject) -> None:
    """The equilibrium gives two copies together what it gives one, in the proportion of the reference; exploitability too."""
    game, policy = drawn
    action, share = data.draw(st.integers(0, game.n - 1)), data.draw(st.sampled_from([0.5, 0.25, 0.001]))
    doubled, start = split(game, policy, action, share)
    one, two = nl.solve(game), nl.solve(doubled)
    assert np.ptp(merged(two.log_policy, action) - one.log_policy) <= 1e3 * residual_allowed(game.beta)
    assert two.policy[action] * (1 - share) == pytest.approx(two.policy[-1] * share, rel=1e-9)
    assert nl.exploitability(doubled, start) == pytest.approx(nl.exploitability(game, policy), rel=1e-8, abs=1e-15)


@given(st.sampled_from(sorted(SPLITTING)), games_with_policy(n=(1, 4), beta=testing.betas(1e-2, 10)), st.data())
def test_runs_of_mirror_methods_merge_copies(name: str, drawn: tuple[Game, Floats], data: st.DataObject) -> None:
    """From a start that shares out an action as the reference does, both together move as the one would, at every step."""
    game, policy = drawn
    action, share = data.draw(st.integers(0, game.n - 1)), data.draw(st.sampled_from([0.5, 0.25, 0.001]))
    doubled, start = split(game, policy, action, share)
    method = dynamics.build(name).resolve(game.contexts)
    one, two = run(game, method, 5, policy), run(doubled, method, 5, start)
    np.testing.assert_allclose(merged(two, action), one, rtol=0, atol=1e-10 * (1 + np.abs(one).max()))


@pytest.mark.parametrize("name", [name for name in dynamics.names() if name not in SPLITTING])
def test_other_methods_see_copies(name: str) -> None:
    """Policy gradients move a logit in proportion to its chance, regret matching and ties of fictitious play count actions."""
    game, policy = nl.games.rock_paper_scissors(margin=0.3, beta=0.1), np.array([0.5, 0.3, 0.2])
    if name == "FictitiousPlay":  # it splits evenly between the actions that tie
        game, policy = Game([[0.5, 0.5, 0.2], [0.5, 0.5, 0.2], [0.8, 0.8, 0.5]]).restrict([0, 1]), np.array([0.5, 0.5])
    doubled, start = split(game, policy, 0, 0.5)
    method = example(name)
    assert np.abs(merged(run(doubled, method, 5, start), 0) - run(game, method, 5, policy)).max() > 1e-3


@given(games_with_policy(contexts=(1, 3)))
def test_contexts_decouple(drawn: tuple[Game, Floats]) -> None:
    """The equilibrium is that of each context, exploitability the average of theirs."""
    game, policy = drawn
    found = nl.solve(game)
    alone = [nl.solve(game.context(k)) for k in range(game.n_contexts)]
    np.testing.assert_array_equal(found.log_policy, [one.log_policy for one in alone])
    values = [nl.exploitability(game.context(k), policy[k]) for k in range(game.n_contexts)]
    assert nl.exploitability(game, policy) == pytest.approx(game.weights @ values, rel=1e-12, abs=1e-18)


# --- two routes to one number ---------------------------------------------------------------------------------------------


@given(games_with_policy(low_rank=True, n=(1, 6)), METHODS)
def test_low_rank_is_dense(drawn: tuple[Game, Floats], name: str) -> None:
    """A game stored by its factors is the game with its matrix: products, exploitability, equilibrium, runs."""
    game, policy = drawn
    full = game.materialized()
    np.testing.assert_allclose(game.advantage(policy), full.advantage(policy), rtol=0, atol=1e-15)
    assert nl.exploitability(game, policy) == pytest.approx(nl.exploitability(full, policy), rel=1e-8, abs=1e-15)
    one, two = nl.solve(game), nl.solve(full)
    assert np.ptp(one.log_policy - two.log_policy) <= 1e3 * residual_allowed(game.beta)
    method = dynamics.build(name).resolve(game.contexts)
    if name not in ("FictitiousPlay", "RegretMatching", "RegretMatchingPlus"):  # rounding may break their ties
        a, b = run(game, method, 4, policy), run(full, method, 4, policy)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * (1 + np.abs(b).max()))


@given(games_with_policy(n=(1, 4), beta=testing.betas(1e-2, 10)))
def test_exploitability_is_the_gain_of_the_best_response(drawn: tuple[Game, Floats]) -> None:
    """E_β(μ) = P_β(BR(μ) ≻ μ) - 1/2, and no drawn policy gains more."""
    game, policy = drawn
    best = nl.best_response(game, policy)
    assume(best.min() > 0)
    gain = game.payoff(best, policy) - 0.5
    assert nl.exploitability(game, policy) == pytest.approx(gain, rel=1e-7, abs=1e-12 * (1 + game.beta))


def pair_moments(game: Game, policy: Floats) -> tuple[Floats, Floats, float]:
    """Mean and variance of the Online IPO estimate from one vote, by enumeration, and its largest size."""
    log_ratio = np.log(policy) - game.log_reference
    mean, square, largest = np.zeros(game.n), np.zeros(game.n), 0.0
    for i in range(game.n):
        for j in range(game.n):
            for vote, chance in ((0.5, game.preferences[i, j]), (-0.5, 1 - game.preferences[i, j])):
                moved = np.zeros(game.n)
                half = 0.5 * (vote - game.beta * (log_ratio[i] - log_ratio[j]))
                moved[i] += half
                moved[j] -= half
                mean += policy[i] * policy[j] * chance * moved
                square += policy[i] * policy[j] * chance * moved**2
                largest = max(largest, abs(half))
    return mean, square - mean**2, largest


def estimate_moments(game: Game, policy: Floats) -> tuple[Floats, Floats, float]:
    """The same of the estimate of Aπ from one vote on a uniform candidate against the policy, centred."""
    n, mean, square = game.n, np.zeros(game.n), np.zeros(game.n)
    for i in range(n):
        wins = float(game.preferences[i] @ policy)
        for vote, chance in ((0.5, wins), (-0.5, 1 - wins)):
            moved = n * vote * (np.eye(n)[i] - 1 / n)
            mean, square = mean + chance / n * moved, square + chance / n * moved**2
    return mean, square - mean**2, n / 2


@pytest.mark.parametrize(("name", "moments"), [("SelfPlayPG", pair_moments), ("MultiplicativeWeights", estimate_moments)])
@given(drawn=games_with_policy(n=(2, 4), beta=testing.betas(1e-2, 1), smallest_reference=1e-2), seed=st.integers(0, 2**32))
@few(4)
def test_votes_have_the_exact_step_as_their_mean(name: str, moments: Any, drawn: tuple[Game, Floats], seed: int) -> None:
    """One step from one vote, over 500 runs, is on average the exact step, within Bernstein's bound at one in 10^10."""
    game, policy = drawn
    runs, method = 500, dynamics.build(name, step_size=0.5)
    sampled = nl.simulate(
        game,
        method,
        1,
        start=policy,
        runs=runs,
        seed=seed,
        feedback=nl.Sampled(candidates="uniform"),
        equilibrium=False,
        compiled=False,
    )
    moved = (sampled.parameters - np.log(policy)) / 0.5
    moved -= moved.mean(axis=-1, keepdims=True)
    mean, variance, largest = moments(game, policy)
    level = np.log(2e10)
    allowed = np.sqrt(2 * variance * level / runs) + 2 * largest * level / (3 * runs) + 1e-12
    assert (np.abs(moved.mean(axis=0) - mean) <= allowed).all()
    exact = (run(game, method, 1, policy)[-1] - np.log(policy)) / 0.5
    np.testing.assert_allclose(exact - exact.mean(), mean - mean.mean(), rtol=0, atol=1e-9)


# --- what is kept ---------------------------------------------------------------------------------------------------------


@given(st.one_of(testing.preference_games(contexts=(1, 3)), testing.preference_games(low_rank=True)))
def test_games_survive_pickling(game: Game) -> None:
    """Every bit of it: fingerprint, labels, weights; and it is immutable again."""
    again = pickle.loads(pickle.dumps(game))
    assert again.fingerprint == game.fingerprint and again.labels == game.labels and again.policy_shape == game.policy_shape
    np.testing.assert_array_equal(again.log_reference, game.log_reference)
    assert not again.log_reference.flags.writeable


@given(testing.preference_games(contexts=(1, 2)), METHODS, st.integers(0, 2**53), st.sampled_from(["exact", "sampled"]))
def test_trajectories_survive_a_file(
    tmp_path_factory: pytest.TempPathFactory, game: Game, name: str, seed: int, feedback: str
) -> None:
    """What was saved is loaded in every bit, and continues as the original does."""
    method = dynamics.build(name)
    if feedback == "sampled":
        assume(not method.method.unsampled(method.params))
    options: dict[str, Any] = {"feedback": feedback, "equilibrium": False, "compiled": False}
    path = Path(tmp_path_factory.mktemp("saved")) / "run.npz"
    one = nl.simulate(game, method, 3, start="random", runs=2, seed=seed, **options)
    two = nl.load(one.save(path))
    for field in ("steps", "oracle_calls", "queries", "kl", "exploitability", "log_policies", "final", "parameters"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))
    assert (one.status, one.params, one.seed, one.fingerprint, one.notes) == (
        two.status,
        two.params,
        two.seed,
        two.fingerprint,
        two.notes,
    )
    more = [nl.simulate(game, method, 2, start=begun, **options).parameters for begun in (one, two)]
    np.testing.assert_array_equal(*more)


# --- certificates and ranges ----------------------------------------------------------------------------------------------


@given(testing.preference_games(n=(1, 4), beta=testing.betas(1e-2, 1e2)))
@few(12)
def test_certificates_are_honest(game: Game) -> None:
    """KL(policy ‖ π*) at 60 digits is within the KL bound, and the policy within its residual of the true one."""
    found = nl.solve(game)
    assert found.status == "certified" and found.kl_bound is not None
    P = game.preferences.tolist()
    truth = oracles.equilibrium(P, oracles.simplex(game.reference), game.beta)
    mine = oracles.simplex([MP.exp(MP.mpf(float(value))) for value in found.log_policy])
    distance = float(oracles.kl(mine, truth))
    assert distance <= found.kl_bound * (1 + 1e-6) + 1e-29
    np.testing.assert_allclose([float(p) for p in truth], found.policy, rtol=1e4 * residual_allowed(game.beta))


@given(games_with_policy(beta=testing.betas(1e-8, 1e8), smallest_reference=1e-300))
def test_every_beta_and_reference_is_in_range(drawn: tuple[Game, Floats]) -> None:
    """From β = 1e-8 to 1e8 and references down to 1e-300 nothing overflows, and what is not certified says so."""
    game, policy = drawn
    found = nl.solve(game)
    assert found.status in ("certified", "approximate", "failed")
    assert np.isfinite(found.exploitability) and found.exploitability >= 0
    np.testing.assert_allclose(found.policy.sum(), 1, rtol=1e-12)
    if game.beta >= 1e-3:
        assert found.status == "certified"
    for value in (nl.exploitability(game, policy), nl.exploitability(game, policy, regularized=False)):
        assert np.isfinite(value) and value >= 0
    np.testing.assert_allclose(nl.best_response(game, policy).sum(), 1, rtol=1e-12)


@given(METHODS, games_with_policy(beta=testing.betas(1e-8, 1e8), smallest_reference=1e-300))
def test_safe_steps_are_safe_in_every_range(name: str, drawn: tuple[Game, Floats]) -> None:
    """At its safe step every method stays finite for 20 steps, whatever β and the reference."""
    game, policy = drawn
    found = nl.simulate(game, name, 20, start=policy, equilibrium=False, compiled=False)
    assert found.status == ("completed",) and np.isfinite(found.log_policies).all()  # type: ignore[arg-type]


@given(games_with_policy(n=(2, 4), smallest_reference=1e-100))
def test_exploitability_is_never_negative_and_bounds_the_distance(drawn: tuple[Game, Floats]) -> None:
    """β KL(μ‖π*) ≤ E_β(μ) ≤ (β + 1/(4β)) KL(μ‖π*), where rounding leaves it to be seen."""
    game, policy = drawn
    found = nl.solve(game)
    value = float(context_exploitability(game.contexts[0], log_softmax(np.log(policy))))
    distance = float(nl.kl(policy, found.policy)) if found.policy.min() > 0 else np.nan
    assume(distance > 1e-9)
    assert game.beta * distance <= value * (1 + 1e-6) <= (game.beta + 0.25 / game.beta) * distance * (1 + 2e-6)


@given(testing.comparison_logs(contexts=(1, 2), weights=True), st.sampled_from([0.5, 1.0]), testing.betas())
def test_the_order_of_a_log_does_not_matter(rows: list[dict[str, Any]], prior: float, beta: float) -> None:
    """Rows in reverse, and rows with their two items exchanged, make the same game."""
    swapped = {"item_a": "item_b", "item_b": "item_a", "model_a": "model_b", "model_b": "model_a"}
    mirrored = [
        row | {"item_a": row["item_b"], "item_b": row["item_a"], "winner": swapped.get(row["winner"], row["winner"])}
        for row in rows
    ]
    one, *others = (nl.datasets.from_comparisons(log, prior=prior, beta=beta) for log in (rows, rows[::-1], mirrored))
    for other in others:
        assert one.labels == other.labels
        np.testing.assert_allclose(one.preferences, other.preferences, rtol=0, atol=1e-15)
