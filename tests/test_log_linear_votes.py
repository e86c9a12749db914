"""Votes on log-linear policies: the mean of a step and of an estimate, exactly; runs against an oracle in θ on the same votes.

Planted biases go through the same enumeration and are rejected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from sampled import LIMIT, Floats, example, game_of
from test_log_linear import GRADIENT, MIRROR, Oracle, contexts_game, sparse_of
from test_pairs_compiled import Failing, compiled, fails_alone
from test_sampled_runs import same
from voting import RULES, Voting, averages, ended, mean_of

import nlhfsim as nl
from nlhfsim import dynamics, loop
from nlhfsim.dynamics import _spec
from nlhfsim.errors import InputError
from nlhfsim.feedback import CANDIDATES, generator_of
from nlhfsim.games.payoffs import DensePayoff, LowRankPayoff
from nlhfsim.log_linear import attainable, shared, votes
from nlhfsim.pairs import Pairs

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
GAME, THETA, CENTRE = contexts_game(), np.array([0.5, -1.0, 0.3]), np.array([-0.4, 0.2, 1.1])
PHI = np.random.default_rng(8).normal(size=(3, 4, 3))


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches for what is attainable take most of a short run, so they are left out where they are not what is tested."""
    if "attainable" not in request.node.name:
        monkeypatch.setattr(attainable, "_LARGEST", 0)


def go(game: nl.PreferenceGame, method: Any, n_steps: int, phi: Any = PHI, **options: Any) -> nl.Trajectory:
    """A sampled run of log-linear policies without equilibrium, every step recorded."""
    given = {"feedback": nl.Sampled(2), "equilibrium": False, "record_every": 1, "parametrization": nl.LogLinear(phi)}
    return nl.simulate(game, method, n_steps, **(given | options))


ALL: dict[str, dynamics.Dynamics] = {key: method for key, (method, _) in RULES.items()} | {key: example(key) for key in MIRROR}


def test_every_method_is_here() -> None:
    """A new method with a log-linear form and votes needs its rule above, or an oracle."""
    assert {method.name for method in ALL.values()} == set(GRADIENT + MIRROR)


# --- means, exactly -------------------------------------------------------------------------------------------------------


def two() -> nl.PreferenceGame:
    """Two contexts of three actions, for batches."""
    return nl.PreferenceGame(GAME.preferences[:2, :3, :3], 0.3, [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], weights=[0.7, 0.3])


def step_of(game: nl.PreferenceGame, phi: Floats, key: str, feedback: nl.Sampled) -> Callable[[Any], Floats]:
    """The move of θ in one step of size 0.7 of the package's loop."""
    method, of = RULES[key][0], shared.class_of(game, nl.LogLinear(phi))
    how: Pairs = method.method.pairs(method.params)  # type: ignore[misc]

    def step(generator: Any) -> Floats:
        context = of.context._replace(payoff=of.voting(feedback.batch_size, feedback.votes, 0, generator))
        state = votes.start_shared_pairs(game.log_reference, THETA, how, False)
        state = state._replace(centre=np.array(CENTRE)) if how.pull else state
        empty: Any = np.zeros(0, dtype=np.int64)
        moved = votes.run_shared_pairs(state, context, np.array([0.7]), how, empty, np.zeros((0, *phi.shape[:2])))[1]
        return np.asarray(moved - THETA)

    return step


def mean_step(game: nl.PreferenceGame, key: str, feedback: nl.Sampled, wrong: str | None = None) -> tuple[Floats, Floats]:
    """The mean of a step of the package, or of the oracle with something wrong, and γ times the gradient."""
    phi, rule = PHI[: game.n_contexts, : game.n], RULES[key][1]
    oracle = Oracle(game, phi)
    mixed = oracle.policy((1 - rule.mixing) * THETA)
    answer = step_of(game, phi, key, feedback)
    if wrong is not None:
        answer = lambda generator: 0.7 * Voting(game, phi, feedback, generator, wrong).move(THETA, CENTRE, rule)  # noqa: E731
    return mean_of(game, mixed, mixed, feedback, answer), 0.7 * oracle.gradient(THETA, mixed, rule.pull, CENTRE)


@pytest.mark.parametrize("votes_seen", [True, False])
@pytest.mark.parametrize("key", RULES)
def test_the_mean_of_a_step_is_the_gradient(key: str, votes_seen: bool) -> None:
    """γ Σ_x ν_x φ_xᵀJ(π̃_x)(A_xπ̃_x - βφ_xθ - τφ_x(θ - θ̄)) over all that can be drawn, centre away from θ; of batches too."""
    for game, batch in ((GAME, 1), *([(two(), 2)] if key == "NashProx" else [])):
        found, exact = mean_step(game, key, nl.Sampled(batch, votes_seen))
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", ["", "sign of βh", "uniform contexts", "factor 2", "other features", "centre"])
def test_a_biased_step_is_rejected(wrong: str) -> None:
    """The same enumeration of a step with something wrong is not the gradient; with nothing wrong it is."""
    found, exact = mean_step(GAME, "NashProx", nl.Sampled(), wrong)
    assert (np.abs(found - exact).max() > 1e-3) == (wrong != "") and (wrong or np.abs(found - exact).max() < 1e-12)


def mean_estimate(game: nl.PreferenceGame, feedback: nl.Sampled, wrong: str | None = None) -> tuple[Floats, Floats]:
    """The mean of the package's estimate, or of the oracle's with something wrong, and A_xπ_x."""
    of = shared.class_of(game, nl.LogLinear(PHI[: game.n_contexts, : game.n]))
    policy = np.random.default_rng(4).dirichlet(np.ones(game.n), size=game.n_contexts)

    def answer(generator: Any) -> Floats:
        if wrong is not None:
            return Voting(game, PHI, feedback, generator, wrong).estimate(policy)
        seen = of.voting(feedback.batch_size, feedback.votes, CANDIDATES[feedback.candidates], generator)
        out = np.full(policy.shape, np.nan)
        votes.estimate_all_to(out, seen, policy)
        return out

    q = {"uniform": np.full(policy.shape, 1 / game.n), "reference": game.reference, "policy": policy}[feedback.candidates]
    return mean_of(game, q, policy, feedback, answer), np.einsum("xij,xj->xi", game.advantages, policy)


@pytest.mark.parametrize("votes_seen", [True, False])
@pytest.mark.parametrize("candidates", CANDIDATES)
def test_the_mean_of_an_estimate_is_exact(candidates: str, votes_seen: bool) -> None:
    """Over contexts, actions, opponents and votes the estimate is A_xπ_x of every context; a batch is averaged."""
    for game, batch in ((GAME, 1), (two(), 2)):
        found, exact = mean_estimate(game, nl.Sampled(batch, votes_seen, candidates))
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", ["", "no 1/ν", "uniform contexts", "factor 2", "no 1/q"])
def test_a_biased_estimate_is_rejected(wrong: str) -> None:
    """The same enumeration of an estimate with something wrong is not A_xπ_x; with nothing wrong it is."""
    found, exact = mean_estimate(GAME, nl.Sampled(candidates="reference"), wrong)
    assert (np.abs(found - exact).max() > 1e-3) == (wrong != "") and (wrong or np.abs(found - exact).max() < 1e-12)


@pytest.mark.parametrize("key", ["NaturalPG", "NashMD", "MagneticMirrorDescent"])
def test_mirror_steps_from_votes_are_exact_on_average(key: str) -> None:
    """Over 500 runs the mean of θ after a step that is linear in the payoffs is the exact one, by a z-test; not 1.5 times it."""
    options: dict[str, Any] = {"start": THETA, "feedback": nl.Sampled(6), "record_every": [], "keep_policies": False}
    thetas = go(GAME, ALL[key], 1, runs=500, seed=5, **options).parameters
    exact, still = (nl.simulate(GAME, ALL[key], k, start=THETA, parametrization=nl.LogLinear(PHI)).parameters[0] for k in (1, 0))
    error = thetas.std(axis=0, ddof=1) / np.sqrt(500)
    assert np.abs((thetas.mean(axis=0) - exact) / error).max() < LIMIT
    assert np.abs((thetas.mean(axis=0) - exact - 0.5 * (exact - still)) / error).max() > LIMIT or key != "NaturalPG"


# --- whole runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [None, "parameters"])
@pytest.mark.parametrize("key", RULES)
def test_identity_features_are_the_tabular_method(key: str, average: str | None) -> None:
    """In one context with φ = I a method of pairs does with the same votes what it does on a table, at every step and in θ."""
    game, start, method = game_of(), np.array([0.15, 0.2, 0.4, 0.25]), RULES[key][0]
    options: dict[str, Any] = {"feedback": nl.Sampled(3), "average": average, "record_every": 1, "runs": 2, "equilibrium": False}
    table = nl.simulate(game, method, 200, start=start, compiled=False, **options)
    run = go(game, method, 200, np.eye(4), start=np.log(start) - game.log_reference, compiled=False, **options)
    np.testing.assert_allclose(run.log_policies, table.log_policies, rtol=0, atol=1e-12)  # type: ignore[arg-type]
    np.testing.assert_allclose(run.final, table.final, rtol=0, atol=1e-12)  # type: ignore[arg-type]
    np.testing.assert_array_equal(run.state["generator"], table.state["generator"])
    moved = table.parameters - game.log_reference
    np.testing.assert_allclose(run.parameters, moved - moved.mean(axis=1, keepdims=True), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(run.queries, table.queries)


@pytest.mark.parametrize("key", ALL)
def test_runs_are_those_of_the_oracle(key: str) -> None:
    """θ, policies and both averages at every step of two runs, all votes drawn from the run's stream; three contexts."""
    method, k = ALL[key], list(ALL).index(key)
    feedback = nl.Sampled(1 + k % 3, k % 4 != 1, list(CANDIDATES)[k % 3])
    for average in averages(method):
        run = go(GAME, method, 24, start=THETA, runs=2, seed=11, feedback=feedback, average=average, compiled=False)
        assert run.log_policies is not None and run.final is not None
        assert key in MIRROR or (run.parameters == run.state["theta"]).all()
        for number in range(2):
            oracle = Voting(GAME, PHI, feedback, generator_of(11, number, 0))
            oracle.silent = int(method.method.initial_calls == 0)
            after = oracle.pairs(THETA, RULES[key][1], method.step_size) if key in RULES else None
            iterates = oracle.iterates(key, THETA, method.parameters) if after is None else after
            thetas = np.array([THETA, *islice(iterates, 24)])
            shown = np.cumsum(thetas, axis=0) / np.arange(1, 26)[:, None] if average == "parameters" else thetas
            wanted = np.array([oracle.policy(theta) for theta in shown])
            if average == "policies":
                wanted = np.cumsum(wanted, axis=0) / np.arange(1, 26)[:, None, None]
            np.testing.assert_allclose(run.parameters[number], thetas[-1], rtol=0, atol=1e-9)
            np.testing.assert_allclose(np.exp(run.log_policies[number]), wanted, rtol=0, atol=1e-10)
            np.testing.assert_allclose(run.final[number], wanted[-1], rtol=0, atol=1e-10)
        assert np.abs(run.parameters[0] - run.parameters[1]).max() > 1e-3


@pytest.mark.parametrize("key", ALL)
def test_compiled_is_plain_bit_for_bit(key: str) -> None:
    """Policies, θ, state and generator after compiled votes; pair loops say that they are compiled."""
    for average in averages(ALL[key]):
        fast, slow = (go(GAME, ALL[key], 30, start="random", runs=2, average=average, compiled=c) for c in (True, False))
        same(fast, slow)
        assert (fast.compiled, slow.compiled) == (key in RULES, False)


@pytest.mark.parametrize("key", [*RULES, "NashMD", "OptimisticMirrorDescent", "MagnetRefresh"])
def test_a_run_continues_bit_for_bit(key: str, tmp_path: Path) -> None:
    """5 steps, saved and read back, and 6 more are 11 in every bit, whatever is averaged."""
    for average in averages(ALL[key]):
        whole = go(GAME, ALL[key], 11, start="random", runs=2, average=average, record_every=[5])
        part = go(GAME, ALL[key], 5, start="random", runs=2, average=average, record_every=[])
        for begun in (part, nl.load(part.save(tmp_path / "part"))):
            same(go(GAME, ALL[key], 6, start=begun, average=average, record_every=[]), whole)


def test_runs_and_threads_are_apart() -> None:
    """Threads change no bit, runs added none of those before; moves of runs are uncorrelated, seeds tell them apart."""
    one, two_, more = (
        go(GAME, ALL["NashProx"], 100, runs=runs, threads=threads, seed=3) for runs, threads in ((4, 1), (4, 2), (6, None))
    )
    same(one, two_)
    np.testing.assert_array_equal(more.log_policies[:4], one.log_policies)  # type: ignore[index]
    assert (go(GAME, ALL["NashProx"], 100, seed=4).parameters != one.parameters).all()
    long = go(GAME, dynamics.SelfPlayPG(1e-6), 2000, runs=4)
    logs = np.asarray(long.log_policies)
    moves = np.diff(logs[:, :, 0, 0] - logs[:, :, 0, 1], axis=1)
    assert np.abs(np.corrcoef(moves) - np.eye(4)).max() < LIMIT / np.sqrt(2000)


@pytest.mark.parametrize("key", ["SelfPlayPG", "NashProx", "NaturalPG"])
def test_sparse_features_are_dense_ones(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features with zeros, as a sparse matrix that is written out, or is not, and as an array: the same votes, the same θ."""
    phi = PHI * (np.random.default_rng(2).random(PHI.shape) < 0.6)
    dense = go(GAME, ALL[key], 40, phi, start=THETA, average="parameters", compiled=False)
    for most in (2**22, 0):
        monkeypatch.setattr(shared, "_DENSIFIED", most)
        sparse = go(GAME, ALL[key], 40, sparse_of(phi), start=THETA, average="parameters", compiled=key == "SelfPlayPG")
        np.testing.assert_allclose(sparse.log_policies, dense.log_policies, rtol=0, atol=1e-9)  # type: ignore[arg-type]
        np.testing.assert_allclose(sparse.parameters, dense.parameters, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(sparse.state["generator"], dense.state["generator"])


# --- payoff forms ---------------------------------------------------------------------------------------------------------


def low(seed: int) -> LowRankPayoff:
    """Low-rank preferences among four actions."""
    return LowRankPayoff(*np.random.default_rng(seed).uniform(-0.4, 0.4, (2, 4, 2)))


FORMS: dict[str, list[Any]] = {
    "low rank and dense": [low(1), DensePayoff(GAME.advantages[0].copy()), low(2)],
    "low rank": [low(3), low(4), low(5)],
}


@pytest.mark.parametrize("key", ["NashProx", "NaturalPG"])
@pytest.mark.parametrize("forms", FORMS)
def test_contexts_of_other_forms_are_their_matrices(forms: str, key: str) -> None:
    """Several contexts not all of matrices run uncompiled and do what the materialized game does, compiled."""
    game = nl.PreferenceGame(FORMS[forms], 0.3, GAME.reference, weights=[0.5, 0.3, 0.2])
    run, stored = (go(one, ALL[key], 60, start=THETA) for one in (game, game.materialized()))
    assert (run.compiled, stored.compiled) == (False, key == "NashProx")
    np.testing.assert_allclose(run.log_policies, stored.log_policies, rtol=0, atol=1e-11)  # type: ignore[arg-type]
    np.testing.assert_array_equal(run.state["generator"], stored.state["generator"])


def plain(i: Any, j: Any) -> Any:
    """A preference function."""
    return 0.5 + 0.45 * np.sin(0.37 * (i - j))


ONE_PHI = np.random.default_rng(3).normal(size=(12, 2))


@pytest.mark.parametrize("key", ["SelfPlayPG", "NaturalPG"])
def test_a_function_of_the_pair_is_its_matrix(key: str) -> None:
    """In one context, plain or compiled by Numba, as materialized; compiled loops call it too."""
    games = [nl.games.pairwise(function, 12, beta=0.1) for function in (plain, numba.njit(plain))]
    stored = go(games[0].materialized(), ALL[key], 60, ONE_PHI, compiled=False)
    for game, fast in ((games[0], True), (games[0], False), (games[1], True)):
        run = go(game, ALL[key], 60, ONE_PHI, compiled=fast)
        assert run.compiled == (fast and key == "SelfPlayPG") and np.abs(run.parameters).max() > 1e-2
        np.testing.assert_allclose(run.log_policies, stored.log_policies, rtol=0, atol=1e-11)  # type: ignore[arg-type]
        np.testing.assert_array_equal(run.state["generator"], stored.state["generator"])


@compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("key", ["SelfPlayPG", "NaturalPG"])
def test_what_a_function_raises_comes_out(key: str, threads: int) -> None:
    """In the middle of a run, as an InputError that names it; of a function that Numba compiled as well."""
    function = Failing(ZeroDivisionError("no such pair"), 50)
    game = nl.games.pairwise(function, 12, beta=0.1)
    function.armed = True
    with pytest.raises(InputError, match=r"ZeroDivisionError\('no such pair'\)") as caught:
        go(game, ALL[key], 200, ONE_PHI, runs=3, threads=threads, keep_policies=False, record_every=[])
    assert caught.value.__cause__ is function.error
    with pytest.raises(InputError, match=r"ValueError\('one pair'\)"):
        go(nl.games.pairwise(fails_alone, 12, beta=0.1), ALL[key], 200, ONE_PHI, record_every=[])


def test_functions_are_called_in_portions() -> None:
    """Compiled code that calls a function is left as often as on a table, so that an interrupt is heard."""
    game = nl.games.pairwise(plain, 12)
    seen = shared.class_of(game, nl.LogLinear(ONE_PHI)).voting(3, True, 0, None)
    context = game.contexts[0]._replace(payoff=seen, log_reference=game.log_reference.reshape(1, 12))
    assert loop._work(context, None, 1) >= 3 * 20_000


# --- ends, costs, refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("average", [None, "parameters"])
def test_divergence_ends_a_run(average: str | None, compiled: bool) -> None:
    """With huge steps: status, the step noted, NaN from there on in records, the last policy and its metrics; others go on."""
    far = np.reshape([1e153, 1.0, 1.0], (3, 1, 1))  # θ is finite for long, its logits are not
    for scale, step in ((1.0, 1e3), (1e150, 1e-100), (far, 1e5)):
        method = dynamics.IPOMD([step, 1e-9 / np.max(scale) ** 2], mixing=1.0)  # keeps drawing pairs however far θ is
        run = go(GAME.with_beta(1e3), method, 300, scale * PHI, average=average, compiled=compiled)
        assert run.status == ("diverged", "completed") and run.log_policies is not None and run.final is not None
        gone = ended(run)
        seldom = go(GAME.with_beta(1e3), method, 300, scale * PHI, average=average, compiled=compiled, record_every=[])
        assert gone <= ended(seldom) <= gone + 9  # when the context is drawn from again
        assert gone < 200 and np.isfinite(run.log_policies[0, :gone]).all() and np.isnan(run.log_policies[0, gone:]).all()
        assert np.isnan(run.exploitability[0, gone:]).all() and np.isnan(run.final[0]).all()
        assert np.isfinite(run.log_policies[1]).all() and np.isfinite(run.final[1]).all()
    often, seldom = (go(GAME, dynamics.SelfPlayPG(1e308), 99, 1e9 * PHI, compiled=compiled, record_every=k) for k in (1, []))
    assert ended(often) == ended(seldom) < 99
    assert go(GAME, ALL["NashMD"].with_step(1e200), 50, average=average, compiled=compiled).status == ("diverged",)


@pytest.mark.parametrize("key", ["SelfPlayPG", "NaturalPG"])
def test_no_answer_is_no_vote(key: str) -> None:
    """A preference that is NaN in the middle of a run is not counted as lost: the run ends, as diverged."""
    function = Failing(None, 50)
    game = nl.games.pairwise(function, 12, beta=0.1)
    function.armed = True
    run = go(game, ALL[key], 200, ONE_PHI, keep_policies=False, record_every=[])
    assert run.status == ("diverged",) and np.isnan(run.parameters).any()


@pytest.mark.parametrize("key", ALL)
def test_every_vote_is_counted(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries are the votes asked for, first looks included, of all contexts together, also in a continuation."""
    found, real = [], votes.cast
    monkeypatch.setattr(votes, "cast", lambda *arguments: found.append(1) or real(*arguments))
    run = go(GAME, ALL[key], 4, feedback=nl.Sampled(3), compiled=False)
    assert run.queries[-1] == len(found) == 3 * (run.oracle_calls[-1] + ALL[key].method.initial_calls)
    more = go(GAME, ALL[key], 2, start=run, feedback=nl.Sampled(3), compiled=False)
    assert more.queries[-1] == len(found)


def test_refusals() -> None:
    """No log-linear form, no sampled form, policies of pairs averaged, other feedback or features in a continuation."""
    with pytest.raises(InputError, match="RegretMatching has no log-linear form"):
        go(GAME, "RegretMatching", 2)
    with pytest.raises(InputError, match="MagnetRefresh has no sampled form"):
        go(GAME, dynamics.MagnetRefresh(), 2)
    with pytest.raises(InputError, match="average = 'policies' would cost SelfPlayPG"):
        go(GAME, "SelfPlayPG", 2, average="policies")
    begun = go(GAME, ALL["SelfPlayPG"], 2)
    for phi, feedback, message in ((PHI, nl.Sampled(5), "feedback"), (PHI + 1.0, nl.Sampled(2), "other features")):
        with pytest.raises(InputError, match=message):
            go(GAME, ALL["SelfPlayPG"], 2, phi, start=begun, feedback=feedback)


def test_a_method_that_does_not_compile_learns_from_pairs() -> None:
    """A method of the user's that is declared not to compile takes the plain loop, and the same votes."""
    method = _spec.Method("Own", dynamics.get("SelfPlayPG").method.step, pairs=lambda _: Pairs(), log_linear="gradient")
    for can in (True, False):
        own = _spec.Dynamics(replace(method, compiled=can), step_size=0.7)
        run = go(GAME, own, 20)
        assert run.compiled == can
        np.testing.assert_array_equal(run.parameters, go(GAME, ALL["SelfPlayPG"], 20).parameters)


def test_what_is_attainable_is_that_of_the_features() -> None:
    """Votes change nothing in it: kl is the exact run's, and the gain in the class that of the last policy."""
    run = go(GAME, ALL["NashProx"], 40, equilibrium=None, record_every=[])
    exact = nl.simulate(GAME, "NaturalPG", 0, start=run.parameters[0], parametrization=nl.LogLinear(PHI))
    assert run.attainable is not None and exact.attainable is not None
    assert run.attainable.kl == pytest.approx(exact.attainable.kl, rel=1e-9) and 1e-4 < run.attainable.kl < run.kl[0, -1]
    np.testing.assert_allclose(run.attainable.class_exploitability, exact.attainable.class_exploitability, rtol=1e-6)
    assert 0 < run.attainable.class_exploitability[0] <= run.exploitability[0, -1]


def test_comparisons_carry_what_is_attainable() -> None:
    """compare(queries=...) runs both kinds of methods on votes, tuned or given, for the same budget, each with its row."""
    methods, kind = [dynamics.SelfPlayPG(0.1), "NashMirrorProx"], nl.LogLinear(PHI)
    found = nl.compare(GAME, methods, queries=60, step_sizes={"NashMirrorProx": [0.05, 0.2]}, parametrization=kind)
    for row, run in zip(found.rows, found.trajectories):
        assert run.attainable is not None and row["queries"] == 60 and run.feedback["votes"] is True
        assert row["attainable_kl"] == run.attainable.kl < row["final_kl"] and row["proven_factor"] is None
        assert row["attainable_exploitability"] == run.attainable.exploitability < row["final_exploitability"]
    assert found.rows[0]["final_kl"] == nl.simulate(GAME, methods[0], 60, feedback="sampled", parametrization=kind).kl[0, -1]
