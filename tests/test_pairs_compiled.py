"""Learning from pairs in compiled code: long runs do not drift, every form of payoff gives what plain Python gives, and what a
preference function raises comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

import nlhfsim as nl
import nlhfsim.loop
import nlhfsim.simulate
from nlhfsim import dynamics, kernels, pairs, sum_tree
from nlhfsim.errors import InputError
from nlhfsim.games import votes

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
PAIRED = {
    "SelfPlayPG": dynamics.SelfPlayPG(0.5),
    "IPOMD": dynamics.IPOMD(0.5, mixing=0.3),
    "NashProx": dynamics.NashProx(0.5, proximal_step=2.0, averaging=0.1),
    "NashProx, refreshed": dynamics.NashProx(0.5, proximal_step=2.0, refresh_every=7),
    "ProximalPG": dynamics.ProximalPG(proximal_step=2.0, inner_step_size=nl.schedules.inverse_time(40, 80), inner_steps=6),
}
ESTIMATED = [name for name in dynamics.names() if dynamics.get(name).method.pairs is None]
ESTIMATED = [name for name in ESTIMATED if not dynamics.build(name).method.unsampled(dynamics.build(name).params)]
compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the compiler is off")


def test_every_method_of_pairs_is_here() -> None:
    """A new method that learns from pairs needs an entry above."""
    paired = {name for name in dynamics.names() if dynamics.get(name).method.pairs}
    assert paired == {method.name for method in PAIRED.values()}


def go(game: nl.PreferenceGame, method: Any, n_steps: int, **options: Any) -> nl.Trajectory:
    """A sampled run without equilibrium, recorded at its ends only."""
    given: dict[str, Any] = {"feedback": "sampled", "equilibrium": False, "record_every": []}
    return nl.simulate(game, method, n_steps, **given | options)


# --- long runs ------------------------------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("name", ["SelfPlayPG", "NashProx"])
def test_a_tree_built_new_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree after a million votes is the one built from θ: runs that build it anew now and then have the same bits."""
    game = nl.games.random_game(300, 1, beta=0.02)
    found = []
    for portion in (10**15, 400 * 99_991, 400 * 1009):
        monkeypatch.setattr(nlhfsim.loop, "_PORTION", portion)
        found.append(go(game, PAIRED[name], 1_000_000, average="parameters"))
    for other in found[1:]:
        for field, values in found[0].state.items():
            np.testing.assert_array_equal(other.state[field], values)
        np.testing.assert_array_equal(other.final, found[0].final)


@numba.njit(error_model="numpy")
def filled(sums: Any, starts: Any, logits: Any, log_reference: Any, offset: float) -> None:
    """All weights at once, as where a tree is built."""
    pairs.fill_with(sums, starts, logits, log_reference, 0.3, offset)


@numba.njit(error_model="numpy")
def one_by_one(sums: Any, logits: Any, log_reference: Any, offset: float, order: Any) -> None:
    """Weight after weight, as after votes."""
    for i in order:
        sums[i] = pairs.exp_of(min(pairs.exponent_of(logits, log_reference, 0.3, i) - offset, 500.0))


@compiled
def test_weights_have_the_same_bits_alone_and_in_a_row() -> None:
    """The compiler rounds a weight the same way in a loop over all actions, which it vectorizes, and alone."""
    logits, log_reference = np.random.default_rng(0).normal(0, 60, (2, 100_000))
    sums, starts = sum_tree.empty_tree(100_000)
    filled(sums, starts, logits, log_reference, 17.3)
    alone = np.zeros(100_000)
    one_by_one(alone, logits, log_reference, 17.3, np.random.default_rng(1).permutation(100_000))
    np.testing.assert_array_equal(sums[:100_000], alone)


@compiled
def test_nothing_drifts() -> None:
    """After 10^7 votes Σθ is what it was, but for the rounding of single steps.

    Each vote rounds two logits once, by at most 2^-53 times the power of two above the largest; independent errors of mean zero
    add up to their root mean square, and eight times that is not exceeded by chance.
    """
    game, count = nl.games.random_game(1000, 2, beta=0.02), 10_000_000
    run = go(game, dynamics.SelfPlayPG(0.2), count)
    theta = run.parameters[0]
    assert np.abs(theta - game.log_reference).max() > 1
    unit = 2.0**-53 * 2.0 ** math.ceil(math.log2(np.abs(theta).max() + 1))
    moved = math.fsum(theta) - math.fsum(game.log_reference)
    assert abs(moved) < 8 * unit * math.sqrt(2 * count) < 1e-10


# --- compiled is plain ----------------------------------------------------------------------------------------------------


def angles(n: int) -> Any:
    """Angles of actions on a circle."""
    return np.linspace(0, 2 * np.pi, n, endpoint=False)


def plain_function(i: Any, j: Any) -> Any:
    """A preference function of integer arrays."""
    return 0.5 + 0.45 * np.sin(0.37 * (i - j))


@numba.njit
def numba_function(i: Any, j: Any) -> Any:
    """One that Numba compiles for numbers as well."""
    return 0.5 + 0.45 * np.sin(0.37 * (i - j))


@numba.njit(["float64[:](int64[:], int64[:])", "float64[:, :](int64[:, :], int64[:, :])"])
def arrays_only(i: Any, j: Any) -> Any:
    """One that Numba has compiled for arrays and nothing else."""
    return 0.5 + 0.45 * np.sin(0.37 * (i - j))


def low_rank(n: int) -> nl.PreferenceGame:
    """A low-rank game of any size."""
    factors = np.random.default_rng(n).uniform(-0.35, 0.35, (2, n, 2))
    return nl.games.low_rank(*factors, beta=0.05, reference=reference(n))


def reference(n: int) -> Any:
    """A reference that is not uniform, with most of its weight on twenty actions, so that few pairs are of one action."""
    weights = np.full(n, 1e-3 / n)
    weights[:: max(1, n // 20)] += 1.0
    return weights / weights.sum()


def pairwise(function: Any, n: int) -> nl.PreferenceGame:
    """A game of a function of the pair."""
    return nl.games.pairwise(function, n, beta=0.05, reference=reference(n))


def represented(n: int) -> nl.PreferenceGame:
    """A preference representation; beyond 2,000 actions it stores no matrix."""
    vectors = np.random.default_rng(n).standard_normal((n, 4))
    return nl.games.preference_representation(vectors, 2.0, beta=0.05, reference=reference(n))


GAMES: dict[str, Callable[[], nl.PreferenceGame]] = {
    "dense": lambda: nl.games.random_game(40, 1, beta=0.05, reference=reference(40)),
    "zero-one": lambda: nl.games.random_game(9, 2, "zero-one", beta=0.05, reference=reference(9)),
    "one action": lambda: nl.PreferenceGame([[0.5]], 0.1),
    "low rank": lambda: low_rank(30),
    "Python function": lambda: pairwise(plain_function, 30),
    "Numba function": lambda: pairwise(numba_function, 30),
    "Numba function of arrays": lambda: pairwise(arrays_only, 30),
    "representation": lambda: represented(2001),
}


@pytest.mark.parametrize("key", GAMES)
def test_compiled_pairs_are_plain(key: str) -> None:
    """Every method of pairs, on every form of payoff, with and without votes, several pairs a batch, and averages."""
    game = GAMES[key]()
    large = game.n > 100  # its metrics take all pairs
    n_steps, marks = (40, []) if large else (150, [50])
    for k, method in enumerate(PAIRED.values()):
        if large and k < 3:
            continue
        options = {"feedback": nl.Sampled(1 + k % 3, votes=k != 1), "average": "parameters" if k % 2 else None, "seed": k}
        fast, slow = (go(game, method, n_steps, record_every=marks, compiled=c, **options) for c in (True, False))
        assert (fast.compiled, slow.compiled) == (True, False) and fast.log_policies is not None
        np.testing.assert_allclose(fast.log_policies, slow.log_policies, rtol=0, atol=1e-12)
        np.testing.assert_allclose(fast.parameters, slow.parameters, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(fast.state["generator"], slow.state["generator"])
        if game.n > 1 and k != 1:
            assert np.abs(fast.parameters - game.log_reference).max() > 1e-2


@pytest.mark.parametrize("candidates", ["uniform", "reference", "policy"])
@pytest.mark.parametrize("name", ESTIMATED)
def test_compiled_estimates_are_plain(name: str, candidates: str) -> None:
    """Every other method reads the same estimates, with each kind of candidates."""
    game = GAMES["dense"]()
    method = dynamics.build(name, **dict(dynamics.get(name).method.example))
    if candidates == "policy" and not method.method.full_support:
        return
    fast, slow = (
        go(game, method, 30, record_every=10, compiled=c, feedback=nl.Sampled(3, candidates=candidates)) for c in (True, False)
    )
    assert (fast.compiled, slow.compiled) == (True, False) and slow.log_policies is not None
    scale = 1 + np.abs(slow.log_policies[np.isfinite(slow.log_policies)]).max()
    np.testing.assert_allclose(fast.log_policies, slow.log_policies, rtol=0, atol=1e-12 * scale)
    np.testing.assert_array_equal(fast.state["generator"], slow.state["generator"])


@pytest.mark.parametrize("key", GAMES)
def test_compiled_estimates_of_every_payoff(key: str) -> None:
    """One of them on every form of payoff."""
    game = GAMES[key]()
    for votes_seen in (True,) if game.n > 100 else (True, False):
        feedback = nl.Sampled(5, votes=votes_seen)
        fast, slow = (go(game, dynamics.NaturalPG(0.05), 20, feedback=feedback, compiled=c) for c in (True, False))
        np.testing.assert_allclose(fast.parameters, slow.parameters, rtol=0, atol=1e-11)
        np.testing.assert_array_equal(fast.state["generator"], slow.state["generator"])


@pytest.mark.parametrize("votes_seen", [True, False])
@pytest.mark.parametrize("key", GAMES)
def test_a_pair_is_compared_by_its_own_preference(key: str, votes_seen: bool) -> None:
    """The probability seen between two actions is P itself, and a vote is won if the number drawn lies below it."""
    game = GAMES[key]()
    payoff, rng = game.contexts[0].payoff, np.random.default_rng(4)
    whole = game.preferences if game.n < 100 else None
    for i, j in rng.integers(0, game.n, (20, 2)):
        p = float(whole[i, j]) if whole is not None else float(payoff.function(np.array([i]), np.array([j]))[0])
        generator = np.random.default_rng([i, j])
        expected = (0.5 if np.random.default_rng([i, j]).random() < p else -0.5) if votes_seen else p - 0.5
        assert votes.vote(payoff, generator, i, j, votes_seen) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("key", ["low rank", "Python function", "Numba function", "representation"])
def test_a_hundred_thousand_actions(key: str) -> None:
    """Games that store no matrix are run at n = 100,000, equal to plain Python; what needs all pairs is NaN and says why."""
    n = 100_000
    made = {
        "low rank": lambda: low_rank(n),
        "Python function": lambda: pairwise(plain_function, n),
        "Numba function": lambda: pairwise(numba_function, n),
        "representation": lambda: represented(n),
    }
    game = made[key]()
    fast = go(game, PAIRED["NashProx"], 300, equilibrium=False if key == "low rank" else None)
    if key == "representation":
        slow = go(game, PAIRED["NashProx"], 300, compiled=False)
        np.testing.assert_allclose(fast.parameters, slow.parameters, rtol=0, atol=1e-12)
    assert (np.abs(fast.parameters - game.log_reference) > 0).sum() > 10 and fast.status == ("completed",)
    assert np.isfinite(fast.span).all() and np.isfinite(fast.min_probability).all()
    assert np.isnan(fast.exploitability).all() == np.isnan(fast.gap0).all() == (key != "low rank")
    assert np.isnan(fast.kl).all()
    if key != "low rank":
        assert any(note.startswith("exploitability and gap0 are NaN") and "100000 actions" in note for note in fast.notes)
        assert any(note.startswith("kl is NaN") and "100000" in note for note in fast.notes)


# --- functions that fail --------------------------------------------------------------------------------------------------


class Failing:
    """A preference function that raises, or without an error returns NaN, at its k-th pair after the game was made."""

    def __init__(self, error: BaseException | None, after: int) -> None:
        self.error, self.left, self.armed = error, after, False

    def __call__(self, i: Any, j: Any) -> Any:
        self.left -= self.armed
        if self.left < 0:
            if self.error is None:
                return np.full(np.shape(i), np.nan) if np.size(i) == 1 else plain_function(i, j)
            raise self.error
        return plain_function(i, j)


@compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["SelfPlayPG", "NashProx", "NaturalPG"])
def test_what_a_function_raises_comes_out(name: str, threads: int) -> None:
    """An exception in the middle of a run surfaces as an InputError that names it, whatever the method."""
    function = Failing(ZeroDivisionError("no such pair"), 50)
    game = pairwise(function, 30)
    function.armed = True
    with pytest.raises(InputError, match=r"ZeroDivisionError\('no such pair'\)") as caught:
        go(game, PAIRED.get(name, dynamics.NaturalPG(0.1)), 200, runs=3, threads=threads)
    assert caught.value.__cause__ is function.error


@compiled
def test_an_interrupt_in_a_function_is_an_interrupt() -> None:
    """A KeyboardInterrupt that the function gets is raised as it is."""
    function = Failing(KeyboardInterrupt(), 50)
    game = pairwise(function, 30)
    function.armed = True
    with pytest.raises(KeyboardInterrupt):
        go(game, PAIRED["SelfPlayPG"], 200)


def test_in_plain_python_the_error_itself_comes_out() -> None:
    """With compiled=False the exception is the function's own, for a debugger."""
    function = Failing(ZeroDivisionError("no such pair"), 50)
    game = pairwise(function, 30)
    function.armed = True
    with pytest.raises(ZeroDivisionError):
        go(game, PAIRED["SelfPlayPG"], 200, compiled=False)


@numba.njit
def fails_alone(i: Any, j: Any) -> Any:
    """A function compiled by Numba that fails for single pairs, not for the many that a game checks when it is made."""
    if np.asarray(i).size == 1:
        raise ValueError("one pair")
    return 0.5 + 0.45 * np.sin(0.37 * (i - j))


@compiled
def test_what_a_compiled_function_raises_comes_out() -> None:
    """A function that Numba has compiled cannot raise through compiled code; it is not taken for a vote all the same."""
    with pytest.raises(InputError, match=r"ValueError\('one pair'\)"):
        go(pairwise(fails_alone, 30), PAIRED["SelfPlayPG"], 200)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", ["SelfPlayPG", "NaturalPG"])
def test_no_answer_is_no_vote(name: str, compiled: bool) -> None:
    """A preference that is NaN in the middle of a run is not counted as lost: the run ends there, as diverged."""
    function = Failing(None, 50)
    game = pairwise(function, 30)
    function.armed = True
    run = go(game, PAIRED.get(name, dynamics.NaturalPG(0.1)), 200, compiled=compiled)
    assert run.status == ("diverged",) and any("stopped being finite at step 51" in note for note in run.notes)


@compiled
def test_a_compiled_function_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs share what is made of a preference function."""
    made: list[Any] = []
    real = kernels.callable_payoff
    monkeypatch.setattr("nlhfsim.kernels.callable_payoff", lambda payoff: made.append(1) or real(payoff))
    go(pairwise(numba_function, 30), PAIRED["SelfPlayPG"], 5, runs=6)
    assert len(made) == 1
