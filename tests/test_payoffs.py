"""Payoff forms without a matrix against the dense game: products, equilibria, runs, validation, and a million actions."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nlhfsim as nl
from nlhfsim.errors import InputError, SizeError
from nlhfsim.games import payoffs
from nlhfsim.games.payoffs import LowRankPayoff, PairwisePayoff
from nlhfsim.solvers import newton as newton_module
from nlhfsim.solvers.double_oracle import solve_by_double_oracle

Floats = npt.NDArray[np.float64]
pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")


def factors(n: int, rank: int, seed: int, longest: float = 0.7) -> tuple[Floats, Floats]:
    """U and V whose rows (u, v) have length at most `longest`."""
    left, right = np.random.default_rng(seed).standard_normal((2, n, rank))
    scale = longest / np.sqrt(((left**2).sum(1) + (right**2).sum(1)).max())
    return scale * left, scale * right


def as_matrix(left: Floats, right: Floats) -> Floats:
    """P entry by entry, from the definition."""
    n = len(left)
    return np.array([[0.5 + sum(left[i] * right[j]) - sum(right[i] * left[j]) for j in range(n)] for i in range(n)])


def both(n: int, rank: int, seed: int, beta: float) -> tuple[nl.PreferenceGame, nl.PreferenceGame]:
    """A low-rank game with a peaked reference, and the same game dense."""
    left, right = factors(n, rank, seed)
    reference = nl.games.random_reference(n, seed, 2.0)
    low = nl.games.low_rank(left, right, beta=beta, reference=reference)
    return low, nl.PreferenceGame(as_matrix(left, right), beta, reference)


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (2, 1), (7, 2), (12, 6), (130, 3)])
def test_low_rank_is_dense_to_rounding(n: int, rank: int) -> None:
    """Matrix, products with one and many policies, exploitability, restriction, and the payoff of a pair of policies."""
    low, full = both(n, rank, 3, 0.1)
    assert isinstance(low.contexts[0].payoff, LowRankPayoff)
    np.testing.assert_allclose(low.preferences, full.preferences, rtol=0, atol=1e-15)
    policies = np.random.default_rng(0).dirichlet(np.ones(n), size=4)
    np.testing.assert_allclose(low.advantage(policies), full.advantage(policies), rtol=0, atol=1e-15)
    assert nl.exploitability(low, policies[0]) == pytest.approx(nl.exploitability(full, policies[0]), rel=1e-12, abs=1e-15)
    assert low.payoff(policies[0], policies[1]) == pytest.approx(full.payoff(policies[0], policies[1]), abs=1e-14)
    chosen = list(range(0, n, 2))
    np.testing.assert_allclose(low.restrict(chosen).preferences, full.restrict(chosen).preferences, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(low.materialized().preferences, low.preferences)


@pytest.mark.parametrize("beta", [1e-4, 0.01, 1.0, 30.0])
@pytest.mark.parametrize("n", [9, 60, 300])
def test_equilibria_agree(n: int, beta: float) -> None:
    """Newton's method by the Woodbury identity, by a factorization, and (small n) the convex program find one policy."""
    low, full = both(n, 2, 5, beta)
    found, expected = nl.solve(low), nl.solve(full)
    assert found.status == expected.status == "certified"
    np.testing.assert_allclose(found.policy, expected.policy, rtol=0, atol=1e-12)
    if n == 9 and beta >= 0.01:
        program = nl.solve(low, "cvxpy")
        assert program.kl_bound is not None and program.kl_bound < 1e-9
        np.testing.assert_allclose(found.policy, program.policy, rtol=0, atol=(2 * program.kl_bound) ** 0.5 + 1e-9)


def test_the_inverse_jacobian_is_one() -> None:
    """Woodbury and LU, applied to the Jacobian's columns formed from its definition, give the identity; wrong ones do not."""
    low, full = both(40, 3, 1, 0.05)
    policy = np.random.default_rng(2).dirichlet(np.ones(40))
    jacobian = np.eye(40) - full.advantages @ (np.diag(policy) - np.outer(policy, policy)) / 0.05
    inverses: list[Any] = [newton_module._inverse_jacobian(game.contexts[0], np.log(policy)) for game in (low, full)]
    for inverse in inverses:
        np.testing.assert_allclose([inverse(column) for column in jacobian.T], np.eye(40), rtol=0, atol=1e-12)
    wrong = newton_module._woodbury(low.contexts[0].payoff, policy, 0.1)  # type: ignore[arg-type]
    assert np.abs(np.array([wrong(column) for column in jacobian.T]) - np.eye(40)).max() > 1e-2


def test_runs_agree(starts_of: Any) -> None:
    """Every method's compiled run on a low-rank game is that on the dense one, with many runs, below and above 100 actions."""
    for n in (7, 120):
        low, full = both(n, 2, 4, 0.2)
        for name in nl.dynamics.names():
            pair = [nl.simulate(g, name, 5, start=starts_of(full), equilibrium=False) for g in (low, full)]
            assert pair[0].log_policies is not None and pair[1].log_policies is not None
            np.testing.assert_allclose(pair[0].log_policies, pair[1].log_policies, rtol=0, atol=2e-12, err_msg=name)


def test_contexts_may_differ_in_form() -> None:
    """A game with one low-rank and one dense context runs and is solved as the two alone."""
    low, full = both(6, 1, 2, 0.1)
    other = nl.games.random_game(6, 1, beta=0.1)
    mixed = nl.PreferenceGame([low.contexts[0].payoff, other.contexts[0].payoff], 0.1)
    alone = [nl.solve(g.with_reference(None)).policy for g in (full, other)]
    np.testing.assert_allclose(nl.solve(mixed).policy, alone, rtol=0, atol=1e-13)
    trajectory = nl.simulate(mixed, "NashMirrorProx", 300, start="random")
    assert trajectory.kl[0, -1] < 1e-12


def test_bounds_are_checked_without_the_matrix() -> None:
    """The largest entry is found and named; short rows need no search; a bound that proves nothing is refused at a huge n."""
    left, right = factors(700, 2, 0, longest=3.0)
    largest, where = payoffs.largest_entry(left, right)
    entries = np.abs(as_matrix(left[:50], right[:50]) - 0.5)
    assert where is not None and largest >= entries.max()
    assert abs(left[where[0]] @ right[where[1]] - right[where[0]] @ left[where[1]]) == pytest.approx(largest)
    product = left @ right.T
    assert largest == pytest.approx(np.abs(product - product.T).max(), rel=1e-14)
    with pytest.raises(
        InputError, match=r"\(U Vᵀ - V Uᵀ\)\[\d+, \d+\] = -?\d.* must lie between -0.5 and 0.5: scale U or V down"
    ):
        nl.games.low_rank(left, right)
    # Long rows whose entries are small nevertheless: parallel factors cancel.
    nl.games.low_rank(50 * left, 50 * left)
    assert payoffs._norm_bound(*factors(700, 2, 0)) <= 0.5
    # The bound does not change when U is divided and V multiplied.
    assert payoffs._norm_bound(left * 1e-3, right * 1e3) == pytest.approx(payoffs._norm_bound(left, right), rel=1e-12)


def test_a_bound_that_proves_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every entry cannot be checked, rows that are too long are an error that says so."""
    monkeypatch.setattr(payoffs, "_EXACT_CHECK", 10)
    left, right = factors(20, 2, 0, longest=3.0)
    with pytest.raises(InputError, match="of 20 actions is too large to check every entry"):
        nl.games.low_rank(left, right)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], "U has shape"),
        ([[1.0], [2.0]], [[1.0, 2.0]], "V has shape"),
        ([[np.nan], [0.0]], [[0.0], [0.1]], r"U\[0, 0\] = nan must be finite"),
        (np.empty((0, 2)), np.empty((0, 2)), "U has shape"),
    ],
)
def test_bad_factors_are_named(left: Any, right: Any, message: str) -> None:
    """Shapes, NaN, no action."""
    with pytest.raises(InputError, match=message):
        nl.games.low_rank(left, right)


def test_games_keep_their_form() -> None:
    """with_beta, with_reference, context, pickling and copies of arrays: same form, same fingerprint, nothing checked twice."""
    low, _ = both(400, 2, 3, 0.1)
    changed = low.with_beta(1.0).with_reference(None).with_beta(0.1).with_reference(low.reference)
    assert changed.contexts[0].payoff.left is low.contexts[0].payoff.left  # type: ignore[union-attr]
    copy = pickle.loads(pickle.dumps(low))
    assert copy.fingerprint == low.fingerprint and not copy.contexts[0].payoff.left.flags.writeable
    left, right = factors(5, 1, 0)
    game = nl.games.low_rank(left, right)
    left[:] = 7.0
    assert np.abs(game.advantages).max() <= 0.5
    assert game.fingerprint != nl.games.low_rank(right, factors(5, 1, 0)[0]).fingerprint


# --- functions of the pair ------------------------------------------------------------------------------------------------


def sine(i: Any, j: Any) -> Any:
    """A cyclic preference of a pair."""
    return 0.5 + 0.5 * np.sin(np.asarray(i) - np.asarray(j))


def test_a_function_of_the_pair_is_its_matrix() -> None:
    """Products, equilibrium and a run of a pairwise game, and of its materialized copy, are those of the matrix."""
    n = 11
    game = nl.games.pairwise(sine, n, beta=0.1)
    matrix = [[0.5 + 0.5 * np.sin(i - j) for j in range(n)] for i in range(n)]
    full = nl.PreferenceGame(matrix, 0.1)
    np.testing.assert_allclose(game.preferences, full.preferences, rtol=0, atol=1e-15)
    np.testing.assert_allclose(nl.solve(game).policy, nl.solve(full).policy, rtol=0, atol=1e-13)
    start = np.random.default_rng(0).dirichlet(np.ones(n), size=3)
    runs = [nl.simulate(g, "NashMD", 20, start=start) for g in (game, game.materialized(), full)]
    assert [run.compiled for run in runs] == [False, True, True]
    for run in runs[:2]:
        np.testing.assert_allclose(run.kl, runs[2].kl, rtol=1e-9, atol=1e-14)
    assert pickle.loads(pickle.dumps(game)).fingerprint == game.fingerprint != full.fingerprint
    np.testing.assert_allclose(game.restrict([3, 1]).preferences, full.restrict([3, 1]).preferences, rtol=0, atol=1e-15)


def test_products_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of rows add up to the whole product."""
    game = nl.games.pairwise(sine, 50)
    policies = np.random.default_rng(1).dirichlet(np.ones(50), size=2)
    whole = game.advantage(policies)
    monkeypatch.setattr(payoffs, "_BLOCK", 120)
    np.testing.assert_allclose(game.advantage(policies), whole, rtol=0, atol=1e-16)
    assert len(list(payoffs._rows(game.contexts[0].payoff))) == 25  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda i, j: np.full(np.shape(i), 0.6), r"function\(0, 0\) \+ function\(0, 0\) = 1.2, must be 1"),
        (lambda i, j: np.where(i < j, 1.5, np.where(i > j, -0.5, 0.5)), r"function\(0, 1\) = 1.5 must be a probability"),
        (lambda i, j: np.where(i == j, 0.5, np.nan), r"function\(0, 1\) = nan must be a probability"),
        (lambda i, j: 0.5, "function returns shape"),
        ("rock", "must be a function of two integer arrays"),
        (lambda i: 0.5, r"function must take two integer arrays \(i, j\) and return probabilities: TypeError"),
        (lambda i, j: np.full(np.shape(i), "half"), "function returns <U4 values, must return real numbers"),
        (lambda i, j: np.full(np.shape(i), 0.5 + 0j), "function returns complex128 values"),
    ],
)
def test_bad_functions_are_named(function: Any, message: str) -> None:
    """Not a probability, not adding up to 1, one value for all pairs, not a function."""
    with pytest.raises(InputError, match=message):
        nl.games.pairwise(function, 5)


def test_what_is_out_of_reach_says_so() -> None:
    """Matrices and products over all pairs of too many actions are refused with the numbers; KL is NaN with the reason."""
    huge = nl.games.pairwise(sine, 10**6)
    for attempt in (lambda: huge.preferences, lambda: huge.advantage(huge.reference), huge.materialized):
        with pytest.raises(SizeError, match=r"with n = 1000000 actions it takes all 1e\+12 pairs, must be at most 20000"):
            attempt()
    with pytest.raises(SizeError):
        nl.solve(huge)
    low = nl.games.low_rank(*factors(30_000, 2, 0), beta=0.1)
    with pytest.raises(SizeError):
        low.materialized()
    with pytest.raises(SizeError):
        nl.solve(low, "cvxpy")
    assert isinstance(huge.restrict([0, 5]).contexts[0].payoff, payoffs.DensePayoff)


def test_preference_representations_may_be_huge() -> None:
    """Beyond 2,000 actions a representation stores embeddings only; its pairs are those of the stored game."""
    vectors = np.random.default_rng(0).standard_normal((3000, 4))
    game = nl.games.preference_representation(vectors, 0.7)
    assert isinstance(game.contexts[0].payoff, PairwisePayoff)
    small = nl.games.preference_representation(vectors[:6], 0.7)
    np.testing.assert_allclose(game.restrict(range(6)).preferences, small.preferences, rtol=0, atol=1e-15)


# --- many actions ---------------------------------------------------------------------------------------------------------


def test_double_oracle_finds_the_value() -> None:
    """At β = 0 on games with few strong actions it agrees with the interior point on the whole matrix."""
    rng = np.random.default_rng(3)
    angles = rng.uniform(0, 2 * np.pi, 400)
    lengths = np.where(np.arange(400) < 3, 1.0, rng.uniform(0, 0.2, 400))
    angles[:3] = [0.0, 2.2, 4.1]
    order = rng.permutation(400)
    plane = (lengths * np.stack([np.cos(angles), np.sin(angles)]))[:, order]
    # A transitive part makes the equilibrium unique: strong actions beat the weak.
    left = np.stack([plane[0] / 2, lengths[order] / 4], axis=1)
    right = np.stack([plane[1] / 2, np.ones(400) / 4], axis=1)
    low = nl.games.low_rank(left * 0.8, right * 0.8, beta=0.0)
    whole = nl.solve(low.materialized())
    answer = solve_by_double_oracle(low.contexts[0])
    assert whole.unique and answer.unique and answer.face_dimension == 0
    np.testing.assert_allclose(np.exp(answer.log_policy), whole.policy, rtol=0, atol=1e-10)
    assert low.advantage(np.exp(answer.log_policy)).max() <= 1e-13


def test_many_equilibria_are_reported() -> None:
    """Where thousands of actions tie, an equilibrium is certified and known not to be the only one."""
    found = nl.solve(nl.games.low_rank(*factors(5000, 2, 1), beta=0.0))
    assert found.status == "certified" and found.exploitability <= 1e-13
    assert found.unique is False and found.face_dimension is None
    run = nl.simulate(nl.games.low_rank(*factors(5000, 2, 1), beta=0.0), "MultiplicativeWeights", 3, equilibrium=found)
    assert any("one equilibrium of several" in note for note in run.notes)


@pytest.mark.parametrize("scale", [1e-10, 1e-6, 1.0])
def test_ties_are_relative(scale: float) -> None:
    """A total order has one equilibrium, however small its margins."""
    strength = np.linspace(0, 0.5, 2500) * scale
    found = nl.solve(nl.games.low_rank(strength[:, None], np.ones((2500, 1)), beta=0.0))
    assert found.unique is True and found.policy.argmax() == 2499 and found.policy.max() == 1


def test_a_game_and_its_copies_have_one_fingerprint() -> None:
    """Whatever brings the game back brings the reference back to the bit."""
    for seed in range(20):
        game = nl.games.random_game(10, seed).with_reference(np.random.default_rng(seed).dirichlet(np.ones(10)))
        copies = (pickle.loads(pickle.dumps(game)), game.with_beta(0.3).with_beta(game.beta), game.materialized())
        assert {copy.fingerprint for copy in copies} == {game.fingerprint}
    contexts = nl.games.random_game(4, 1, contexts=2).with_reference(np.random.default_rng(1).dirichlet(np.ones(4), size=2))
    np.testing.assert_array_equal(contexts.context(1).log_reference, contexts.log_reference[1])


def test_a_materialized_function_is_checked_at_every_pair() -> None:
    """A value that the sample missed is found, and named, when all pairs are computed."""

    def faulty(i: Any, j: Any) -> Any:
        values = 0.5 + 0.0 * i
        values[(i == 17) & (j == 900)] = 0.9
        return values

    game = nl.games.pairwise(faulty, 1000)
    with pytest.raises(InputError, match=r"function\(17, 900\) \+ function\(900, 17\) = 1.4, must be 1"):
        game.materialized()
    with pytest.raises(InputError, match=r"function\(17, 900\) \+ function\(900, 17\) = 1.4, must be 1"):
        game.restrict([3, 17, 900])


def test_more_that_is_refused() -> None:
    """What is no list of actions, no policy, or overflows."""
    game = nl.games.rock_paper_scissors()
    for actions in ("rock", 1):
        with pytest.raises(InputError, match="must be a list of labels or indices"):
            game.restrict(actions)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="policy must be an array of numbers"):
        game.advantage("x")
    with pytest.raises(InputError, match="overflows: the largest entries are 1e.300 in U"):
        nl.games.low_rank([[1e300], [0]], [[1e300], [1e-301]])
    with pytest.raises(InputError, match="n = 0 must be at least 1"):
        nl.games.pairwise(sine, 0)
    with pytest.raises(SizeError, match="the flow of 6000 actions is out of reach"):
        nl.flow(nl.games.low_rank(*factors(6000, 1, 0)), "SelfPlayPG", 1.0)


MILLION = """
import numpy as np, nlhfsim as nl
left, right = np.random.default_rng(0).standard_normal((2, 10**6, 8))
scale = np.sqrt(0.5 / ((left**2).sum(1) + (right**2).sum(1)).max())
left *= scale; right *= scale
game = nl.games.low_rank(left, right, beta=0.01)
del left, right
equilibrium = nl.solve(game)
run = nl.simulate(game, nl.dynamics.NashMirrorProx(step_size=2.0), 20, start="random", equilibrium=equilibrium)
assert equilibrium.status == "certified", equilibrium
assert run.status == ("completed",) and run.log_policies is None and run.final.shape == (1, 10**6)
assert 0 < run.kl[0, -1] < run.kl[0, 0] * run.proven_factor**20, run.kl
# Not ru_maxrss, which a process inherits from its parent.
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_a_million_actions_fit_in_a_gibibyte() -> None:
    """n = 10^6, r = 8: solved, run and measured, within 1 GiB of memory for the whole process."""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1024, done.stdout
    assert time.monotonic() - begun < 240
