"""The loop: what is recorded when, where runs start, what is refused, divergence, warnings, continuation."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pytest

import nlhfsim as nl
import nlhfsim.loop
from nlhfsim import dynamics, simulate
from nlhfsim.dynamics import _spec
from nlhfsim.errors import EquilibriumStartWarning, InputError, ProvenRangeWarning, UnknownNameError

Floats = npt.NDArray[np.float64]
START = [0.7, 0.2, 0.1]
MIRROR = dynamics.NashMirrorProx(2.0)


@pytest.fixture
def cycle() -> nl.PreferenceGame:
    """Rock–paper–scissors at β = 0.1."""
    return nl.games.rock_paper_scissors(0.5, beta=0.1)


@pytest.fixture
def two() -> nl.PreferenceGame:
    """Two contexts of two actions with weights 0.25 and 0.75."""
    P = [[[0.5, 0.9], [0.1, 0.5]], [[0.5, 0.3], [0.7, 0.5]]]
    return nl.PreferenceGame(P, 0.2, [[0.5, 0.5], [0.2, 0.8]], weights=[0.25, 0.75])


# --- records --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record_every", "expected"),
    [
        (1, list(range(11))),
        (4, [0, 4, 8, 10]),
        (5, [0, 5, 10]),
        (100, [0, 10]),
        ([3, 7, 7, 0, 12], [0, 3, 7, 10]),
        ([], [0, 10]),
        (np.array([2, 9]), [0, 2, 9, 10]),
    ],
)
def test_records_are_where_asked(record_every: Any, expected: list[int], cycle: nl.PreferenceGame) -> None:
    """Every k-th step or the given ones, always step 0 and the last; oracle calls count two a step of mirror prox."""
    run = nl.simulate(cycle, MIRROR, 10, start=START, record_every=record_every)
    assert run.steps.tolist() == expected
    assert run.oracle_calls.tolist() == [2 * t for t in expected] and run.queries.tolist() == [0] * len(expected)
    assert run.kl.shape == (1, len(expected)) and run.log_policies.shape == (1, len(expected), 3)  # type: ignore[union-attr]


def test_records_do_not_change_the_run(cycle: nl.PreferenceGame) -> None:
    """The last policy is the same bits however often one looks, and the records agree where they coincide."""
    every = nl.simulate(cycle, MIRROR, 200, start=START, record_every=1)
    seldom = nl.simulate(cycle, MIRROR, 200, start=START)
    np.testing.assert_array_equal(every.final, seldom.final)
    np.testing.assert_array_equal(every.kl[:, seldom.steps], seldom.kl)


def test_the_default_grid_is_twenty_a_decade(cycle: nl.PreferenceGame) -> None:
    """Steps grow by 10^(1/20), rounded, without repeats, from 0 to the last."""
    steps = nl.simulate(cycle, MIRROR, 12345, start=START, keep_policies=False).steps
    wanted = {round(10 ** (k / 20)) for k in range(82)} | {0, 12345}
    assert steps.tolist() == sorted(wanted)
    assert (np.diff(steps) > 0).all()


def test_a_run_of_no_steps_is_its_start(cycle: nl.PreferenceGame) -> None:
    """n_steps = 0 records the start alone, for every method."""
    for name in dynamics.names():
        run = nl.simulate(cycle, name, 0, start=START)
        assert run.steps.tolist() == [0] and run.status == ("completed",)
        np.testing.assert_allclose(run.final, [START], rtol=1e-14)


def test_records_hold_the_definitions(two: nl.PreferenceGame) -> None:
    """kl, exploitability, gap0, span and min_probability equal their formulas from the recorded policies, averaged with ν."""
    run = nl.simulate(two, MIRROR, 6, start="random", runs=3, record_every=1)
    assert run.log_policies is not None and run.log_policies.shape == (3, 7, 2, 2)
    policies, star, rho, A = np.exp(run.log_policies), nl.solve(two).policy, two.reference, two.advantages
    gain = np.einsum("kij,rtkj->rtki", A, policies)
    kl = (star * np.log(star / policies)).sum(-1) @ two.weights
    E = 0.2 * np.log((rho * np.exp(gain / 0.2)).sum(-1)) + 0.2 * (policies * np.log(policies / rho)).sum(-1)
    np.testing.assert_allclose(run.kl, kl, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(run.exploitability, E @ two.weights, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(run.gap0, gain.max(-1) @ two.weights, rtol=1e-12)
    np.testing.assert_allclose(run.span, np.ptp(np.log(policies / rho), axis=-1).max(-1), rtol=1e-12)
    np.testing.assert_allclose(run.min_probability, policies.min(axis=(-1, -2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("keep", "policies", "final"), [("all", True, True), (True, True, True), ("final", False, True), (False, False, False)]
)
def test_keep_policies(keep: Any, policies: bool, final: bool, cycle: nl.PreferenceGame) -> None:
    """All policies, the last ones, or none are kept; the metrics are there either way."""
    run = nl.simulate(cycle, MIRROR, 5, start=START, keep_policies=keep)
    assert (run.log_policies is not None, run.final is not None) == (policies, final)
    assert np.isfinite(run.kl).all() and run.parameters.shape == (1, 3)


def test_small_blocks_measure_the_same(cycle: nl.PreferenceGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are computed in blocks of records; their size does not show."""
    whole = nl.simulate(cycle, MIRROR, 50, start=START, record_every=1)
    monkeypatch.setattr(nlhfsim.loop, "_BLOCK", 7)
    blocks = nl.simulate(cycle, MIRROR, 50, start=START, record_every=1)
    for name, values in whole.by_context.items():
        np.testing.assert_allclose(blocks.by_context[name], values, rtol=1e-12, atol=1e-30)


def importable_plan() -> Any:
    """The module that solves for the equilibrium; the name of that behind nl.simulate is taken by the function."""
    import sys

    assert simulate is nl.simulate
    return sys.modules["nlhfsim.plan"]


# --- starts ---------------------------------------------------------------------------------------------------------------


def first_policies(game: nl.PreferenceGame, **arguments: Any) -> Floats:
    """The policies at step 0."""
    run = nl.simulate(game, MIRROR, 0, equilibrium=False, **arguments)
    return np.asarray(run.final)


def test_named_starts(two: nl.PreferenceGame) -> None:
    """reference (the default), uniform, and random: different in every run and context, the same for a seed."""
    np.testing.assert_allclose(first_policies(two), [two.reference], rtol=1e-14)
    np.testing.assert_allclose(first_policies(two, start="reference", runs=2), [two.reference] * 2, rtol=1e-14)
    np.testing.assert_allclose(first_policies(two, start="uniform"), np.full((1, 2, 2), 0.5), rtol=1e-14)
    drawn = first_policies(two, start="random", runs=50, seed=3)
    assert drawn.shape == (50, 2, 2) and len(np.unique(drawn[..., 0])) == 100
    np.testing.assert_array_equal(drawn, first_policies(two, start="random", runs=50, seed=3))
    np.testing.assert_array_equal(drawn[:20], first_policies(two, start="random", runs=20, seed=3))


def test_random_starts_are_uniform_on_the_simplex() -> None:
    """The least of three coordinates of a uniform point of the simplex has mean 1/9, each coordinate variance 1/18."""
    game = nl.games.rock_paper_scissors()
    drawn = first_policies(game, start="random", runs=4000, seed=0)
    assert abs(drawn.min(axis=1).mean() - 1 / 9) < 0.005
    assert abs(drawn[:, 0].var() - 1 / 18) < 0.004


@pytest.mark.parametrize(
    ("start", "runs", "expected"),
    [
        ([0.9, 0.1], 1, [[[0.9, 0.1]] * 2]),
        ([[0.9, 0.1], [0.3, 0.7]], 1, [[[0.9, 0.1], [0.3, 0.7]]]),
        ([[0.9, 0.1], [0.3, 0.7]], 2, [[[0.9, 0.1], [0.3, 0.7]]] * 2),
        ([[[0.9, 0.1], [0.3, 0.7]]] * 3, 1, [[[0.9, 0.1], [0.3, 0.7]]] * 3),
        ([[[0.9, 0.1], [0.3, 0.7]]] * 3, 3, [[[0.9, 0.1], [0.3, 0.7]]] * 3),
    ],
)
def test_given_starts(start: Any, runs: int, expected: Any, two: nl.PreferenceGame) -> None:
    """One row for all contexts, one policy for all runs, or one policy a run."""
    np.testing.assert_allclose(first_policies(two, start=start, runs=runs), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": [0.5, 0.5]}, r"start has shape \(2,\), must be \(3,\)"),
        ({"start": [[0.5, 0.5]]}, r"start has shape \(1, 2\), must be \(1, 3\)"),
        ({"start": 0.3}, r"start has shape \(\), must be \(3,\)"),
        ({"start": np.full((2, 2, 3), 1 / 3)}, r"start has shape \(2, 2, 3\)"),
        ({"start": np.ones((0, 3))}, "start holds 0 policies"),
        ({"start": [START, START], "runs": 3}, "start holds 2 policies but runs = 3"),
        ({"start": [1.0, 0.0, 0.0]}, r"start\[1\] = 0 must be positive \(full support\)"),
        ({"start": [START, [0.5, 0.6, -0.1]]}, r"start\[1, 2\] = -0.1 must be positive"),
        ({"start": [0.5, 0.3, 0.1]}, "start adds up to 0.9, must be 1"),
        ({"start": [0.5, 0.5, np.nan]}, r"start\[2\] = nan must be finite"),
        ({"start": [[0.5, 0.5], [1.0]]}, "start must be an array of numbers"),
        ({"start": "unifrom"}, "did you mean 'uniform'"),
        ({"n_steps": -1}, "n_steps = -1 must be at least 0"),
        ({"n_steps": 2.5}, "n_steps = 2.5 must be a whole number"),
        ({"n_steps": True}, "n_steps = True must be a whole number"),
        ({"runs": 0}, "runs = 0 must be at least 1"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"seed": None}, "seed = None must be"),
        ({"record_every": 0}, "record_every = 0 must be at least 1"),
        ({"record_every": [1, -2]}, "record_every = -2 must be at least 0"),
        ({"record_every": "all"}, "record_every = 'all' must be"),
        ({"keep_policies": "some"}, "keep_policies = 'some' is unknown"),
        ({"feedback": "votes"}, "feedback = 'votes' is unknown"),
        ({"equilibrium": True}, "must be the result of nl.solve"),
        ({"equilibrium": [0.3, 0.3, 0.4]}, "must be the result of nl.solve"),
        ({"game": np.full((3, 3), 0.5)}, "must be a PreferenceGame"),
        ({"game": np.full((3, 3), 0.5), "equilibrium": False}, "must be a PreferenceGame"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str, cycle: nl.PreferenceGame) -> None:
    """Each argument is refused by name with what would be right."""
    given = {"game": cycle, "method": MIRROR, "n_steps": 3} | arguments
    with pytest.raises(InputError, match=message):
        nl.simulate(**given)


# --- the equilibrium, and warnings ----------------------------------------------------------------------------------------


def test_a_given_equilibrium_is_used(cycle: nl.PreferenceGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solved equilibrium is not solved again; that of another game is refused; without one KL is NaN and the notes say so."""
    solved, other = nl.solve(cycle), nl.solve(cycle.with_beta(0.2))
    expected = nl.simulate(cycle, MIRROR, 5, start=START).kl
    monkeypatch.setattr(importable_plan(), "solve", lambda game: pytest.fail("solved again"))
    np.testing.assert_array_equal(nl.simulate(cycle, MIRROR, 5, start=START, equilibrium=solved).kl, expected)
    with pytest.raises(InputError, match="that of another game"):
        nl.simulate(cycle, MIRROR, 5, start=START, equilibrium=other)
    without = nl.simulate(cycle, MIRROR, 5, start=START, equilibrium=False)
    assert np.isnan(without.kl).all() and np.isfinite(without.exploitability).all()
    assert any("no equilibrium was asked for" in note for note in without.notes)


def test_notes_tell_what_kl_is_measured_to(cycle: nl.PreferenceGame) -> None:
    """A set of equilibria, an approximate one and a failed solver are each noted."""
    ties = nl.PreferenceGame(np.full((3, 3), 0.5), 0.0)
    assert "a set of dimension 2" in nl.simulate(ties, "MultiplicativeWeights", 1, start=START).notes[0]
    solved = nl.solve(cycle)
    wrong = type(solved)(**{**solved.__dict__, "status": "failed", "solver_status": "no luck"})
    failed = nl.simulate(cycle, MIRROR, 2, start=START, equilibrium=wrong)
    assert np.isnan(failed.kl).all() and "the equilibrium was not found (no luck)" in failed.notes[0]
    rough = type(solved)(**{**solved.__dict__, "status": "approximate", "kl_bound": 1e-6})
    assert "only approximate (KL bound 1e-06)" in nl.simulate(cycle, MIRROR, 2, start=START, equilibrium=rough).notes[0]
    assert nl.simulate(cycle, MIRROR, 2, start=START).notes == ()


def test_a_start_at_the_equilibrium_warns(cycle: nl.PreferenceGame) -> None:
    """On the symmetric cycle the reference is π*: the curves show nothing, and a warning says it where simulate was called."""
    with pytest.warns(EquilibriumStartWarning, match="the start is the equilibrium already") as caught:
        nl.simulate(cycle, MIRROR, 3)
    assert caught[0].filename == __file__
    with pytest.warns(EquilibriumStartWarning, match="the start of 1 of 2 runs is"):
        nl.simulate(cycle, MIRROR, 3, start=[[1 / 3] * 3, START])


def test_a_step_outside_the_proven_range_warns(cycle: nl.PreferenceGame) -> None:
    """The warning names the step, the range 2(β + √(1 + β²)) = 2.20998 and the claim; at the edge of the range there is none."""
    largest = 2 * (0.1 + np.sqrt(1.01))
    message = (
        rf"step_size = 2.5 is outside the range \(0, {largest:.6g}\].*NashMirrorProx.*nash-mirror-prox-rate.*may still converge"
    )
    with pytest.warns(ProvenRangeWarning, match=message) as caught:
        nl.simulate(cycle, dynamics.NashMirrorProx(2.5), 3, start=START)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nl.simulate(cycle, dynamics.NashMirrorProx(largest), 3, start=START)


@pytest.mark.parametrize("name", dynamics.names())
def test_default_steps_do_not_warn(name: str) -> None:
    """The step taken when none is given lies in the proven range of the method, on every β."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for beta in (1e-3, 0.1, 5.0):
            nl.simulate(nl.games.random_game(4, 1, beta=beta), name, 1)


def test_the_narrowest_context_decides(two: nl.PreferenceGame) -> None:
    """With contexts the proven range is the smallest over them, and the factor the slowest."""

    def proven(context: Any, params: Any, step_size: float) -> _spec.ProvenRange:
        least = float(np.exp(context.log_reference.min()))
        return _spec.ProvenRange(least, "some theorem", 1 - least)

    method = _spec.Method("Named", dynamics.get("NashMD").method.step, proven=proven)
    with pytest.warns(ProvenRangeWarning, match=r"step_size = 0.3 is outside the range \(0, 0.2\].*some theorem"):
        run = nl.simulate(two, _spec.Dynamics(method, step_size=0.3), 1, start=[0.7, 0.3])
    assert run.proven_factor == pytest.approx(0.8)
    assert nl.simulate(two, _spec.Dynamics(method, step_size=0.1), 1, start=[0.7, 0.3]).proven_factor == pytest.approx(0.8)


# --- divergence -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
@pytest.mark.parametrize("compiled", [True, False])
def test_divergence_is_reported_with_its_step(compiled: bool) -> None:
    """NaturalPG with γβ = 1e7 grows until it overflows: the step in the note is that of a plain recursion."""
    game = nl.games.random_game(4, 0, beta=10.0)
    theta, expected = np.log([0.4, 0.3, 0.2, 0.1]), 0
    with np.errstate(all="ignore"):
        while np.isfinite(theta).all():
            theta = theta - theta.max()
            theta = theta - np.log(np.exp(theta).sum())
            theta = theta + 1e6 * (game.advantages @ np.exp(theta) - 10.0 * (theta - np.log(0.25)))
            theta = theta - theta.max()
            expected += 1
    for record_every in (1, None):
        run = nl.simulate(
            game, dynamics.NaturalPG(1e6), 100, start=[0.4, 0.3, 0.2, 0.1], record_every=record_every, compiled=compiled
        )
        assert run.status == ("diverged",)
        assert run.notes == (f"run 0: the logits stopped being finite at step {expected}; records after that are NaN",)
        before = run.steps < expected
        for name in ("kl", "exploitability", "gap0", "span", "min_probability"):
            assert np.isfinite(run.metric(name)[0, before]).all() and np.isnan(run.metric(name)[0, ~before]).all()
        assert np.isnan(run.final).all() and "diverged" in repr(run)


def test_divergence_of_any_logit_counts(cycle: nl.PreferenceGame) -> None:
    """A step that sends the last logit alone to infinity is seen at once, not only when the first one follows."""

    def step(state: Any, context: Any, step_size: float, params: Any) -> Any:
        logits = state.logits.copy()
        logits[2] = logits[2] * 1e100
        return _spec.LogPolicy(logits)

    method = _spec.Dynamics(_spec.Method("Escape", step), step_size=1.0)
    for compiled in (True, False):
        run = nl.simulate(cycle, method, 50, start=START, compiled=compiled, record_every=25)
        assert run.status == ("diverged",) and "at step 4;" in run.notes[0]


@pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
def test_one_diverged_run_leaves_the_others_alone() -> None:
    """A run at the fixed point survives a step that sends the other to infinity; a diverged run cannot be continued."""
    game = nl.PreferenceGame(np.full((2, 2), 0.5), 1.0)
    run = nl.simulate(game, dynamics.NaturalPG(1e6), 200, start=[[0.5, 0.5], [0.9, 0.1]], equilibrium=False)
    assert run.status == ("completed", "diverged")
    assert np.isfinite(run.exploitability[0]).all() and np.isnan(run.exploitability[1, -1])
    assert run.notes[0].startswith("run 1:")
    with pytest.raises(InputError, match="nothing finite to continue from"):
        nl.simulate(game, dynamics.NaturalPG(1e6), 1, start=run, equilibrium=False)


# --- continuation ---------------------------------------------------------------------------------------------------------


def test_continuation_is_refused_for_another_run(cycle: nl.PreferenceGame) -> None:
    """Another game, another method and other parameters are refused, each with its reason."""
    run = nl.simulate(cycle, MIRROR, 3, start=START)
    for other, message in ((cycle.with_beta(0.2), "another game"), (cycle.with_reference(START), "another game")):
        with pytest.raises(InputError, match=message):
            nl.simulate(other, MIRROR, 3, start=run)
    for method in (dynamics.NashMirrorProx(1.0), dynamics.Extragradient(1.0)):
        with pytest.raises(InputError, match="NashMirrorProx with {'step_size': 2.0}, but the method is"):
            nl.simulate(cycle, method, 3, start=run)


def test_continuation_takes_what_was_kept(cycle: nl.PreferenceGame) -> None:
    """Runs kept without policies continue too; policies of the whole are there only if both parts kept them."""
    whole = nl.simulate(cycle, MIRROR, 8, start=START)
    for keep in ("final", False):
        part = nl.simulate(cycle, MIRROR, 3, start=START, keep_policies=keep)
        joined = nl.simulate(cycle, MIRROR, 5, start=part)
        assert joined.log_policies is None and joined.steps[-1] == 8
        np.testing.assert_array_equal(joined.final, whole.final)
    more = nl.simulate(cycle, MIRROR, 0, start=whole)
    np.testing.assert_array_equal(more.kl, whole.kl)


def test_many_continuations_are_one_run(cycle: nl.PreferenceGame) -> None:
    """A run cut into ten keeps every bit of the whole, schedules and inner steps included."""
    for method in (dynamics.NashProx(0.5, refresh_every=3), dynamics.ProximalPG(2.0, nl.schedules.inverse_time(3, 9), 4)):
        whole = nl.simulate(cycle, method, 20, start=START, record_every=1)
        run = nl.simulate(cycle, method, 2, start=START, record_every=1)
        for _ in range(9):
            run = nl.simulate(cycle, method, 2, start=run, record_every=1)
        np.testing.assert_array_equal(run.log_policies, whole.log_policies)
        np.testing.assert_array_equal(run.kl, whole.kl)


def test_names_and_factories_are_methods(cycle: nl.PreferenceGame) -> None:
    """A name, a bare factory and an instance with the default step are one run."""
    runs = [nl.simulate(cycle, method, 4, start=START) for method in ("NashMirrorProx", dynamics.NashMirrorProx, MIRROR)]
    for run in runs:
        np.testing.assert_array_equal(run.final, runs[0].final)
        assert run.params == {"step_size": 2.0} and run.dynamics == "NashMirrorProx"
    with pytest.raises(UnknownNameError, match="did you mean 'NashMirrorProx'"):
        nl.simulate(cycle, "NashMirorProx", 4)


def test_runs_do_not_see_each_other(cycle: nl.PreferenceGame, starts_of: Callable[[nl.PreferenceGame], Floats]) -> None:
    """Several runs at once are the runs one by one, bit for bit."""
    starts = starts_of(cycle)
    together = nl.simulate(cycle, MIRROR, 9, start=starts)
    for k, start in enumerate(starts):
        np.testing.assert_array_equal(together.kl[k], nl.simulate(cycle, MIRROR, 9, start=start).kl[0])


class Counting(NamedTuple):
    """A state that counts its steps."""

    logits: Floats
    taken: int


@pytest.mark.parametrize("compiled", [True, False])
def test_huge_but_finite_logits_lose_no_steps(compiled: bool, cycle: nl.PreferenceGame) -> None:
    """Logits whose sum overflows are still finite: every step is done, and the run counts as completed."""

    def step(state: Any, context: Any, step_size: float, params: Any) -> Any:
        return Counting(np.full(3, 1e308), state.taken + 1)

    method = _spec.Method("Counting", step, init=lambda context, params, logs: Counting(logs, 0))
    run = nl.simulate(cycle, _spec.Dynamics(method, step_size=1.0), 10, start=START, record_every=10, compiled=compiled)
    assert run.status == ("completed",) and run.state["taken"].tolist() == [[10]]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the compiler is off")
def test_an_interrupt_ends_a_compiled_run_cleanly() -> None:
    """Ctrl-C in the middle of compiled steps is a KeyboardInterrupt, soon, and never a crash of the process."""
    script = """
import warnings; warnings.simplefilter("ignore")
import nlhfsim as nl
game = nl.games.cyclic_tournament(9, beta=0.01)
nl.simulate(game, nl.dynamics.NashProx(0.5), 10, equilibrium=False)
print("running", flush=True)
try:
    nl.simulate(game, nl.dynamics.NashProx(0.5), 10**8, equilibrium=False, record_every=1000)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    for delay in (0.05, 0.3):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "running\n"
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out) == (0, "interrupted\n"), err
