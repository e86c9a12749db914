"""The benchmarks check what they time, say what is missing, and write complete results; tiny sizes, and no rival is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from benchmarks import __main__ as command
from benchmarks import (
    _measure,
    equilibria,
    first_passages,
    handwritten,
    latency,
    low_rank,
    pair_checks,
    pair_rivals,
    rivals,
    runs,
    sampled,
    sampled_extragradient,
    section4,
    solvers,
    stability,
    steps,
    tightness,
    verification,
)
from benchmarks._measure import NOT_INSTALLED, DisagreementError, Floats, Report
from benchmarks.pair_rivals import PairProblem, PairRun
from benchmarks.rivals import NotInstalledError, Problem, Run

MACHINE = {"cpu", "cores", "python", "versions", "blas", "threads", "date", "commit", "load_average"}


def missing(*_arguments: Any) -> Any:
    """A rival that is not there."""
    raise NotInstalledError("nothing")


def plain(asked: Problem) -> Run:
    """The package without the compiler, which would take a second of this test."""
    return rivals.nlhfsim_runs(asked, compiled=False)


def wrong(make: Callable[[Problem], Run]) -> Callable[[Problem], Run]:
    """Break a contestant: γ off by one in a thousand."""
    return lambda asked: make(asked._replace(step_size=1.001 * asked.step_size))


NUMPY = steps.Contestant("NumPy", handwritten.numpy_closed_form)
FEW = (
    steps.Contestant(steps.OURS, plain),
    NUMPY,
    steps.Contestant("absent", missing),
    steps.Contestant("slow", missing, largest=2, why="too slow"),
)


def test_steps_are_timed_beside_what_is_there_and_say_what_is_not(tmp_path: Path) -> None:
    report = steps.run(quick=True, out=tmp_path, sizes=(3,), contestants=FEW)
    ours, by_numpy, absent, slow = report.rows
    assert ours["error"] <= steps.TOLERANCE and by_numpy["error"] <= steps.TOLERANCE
    assert absent["note"] == NOT_INSTALLED and absent["us_min"] is None
    assert slow["note"] == "not run: too slow"


@pytest.mark.parametrize("compiled", [handwritten.numba_loops, handwritten.numba_blas])
def test_loops_by_hand_are_right(compiled: Callable[[Problem], Run]) -> None:
    asked = rivals.problem(5)
    np.testing.assert_allclose(compiled(asked)(20), rivals.mirror_truth(asked, 20), atol=1e-12)


def test_truths_are_those_of_the_definitions() -> None:
    # At the fixed point of either law nothing moves; away from it the first step is the one worked out here by hand.
    cycle = np.array([[0.0, 0.5, -0.5], [-0.5, 0.0, 0.5], [0.5, -0.5, 0.0]])
    flat = np.full(3, -np.log(3))
    at_rest = Problem(cycle, flat, 0.1, 0.5, flat)
    start = np.log([0.5, 0.25, 0.25])
    moved = at_rest._replace(start=start, beta=0.0)
    gain = np.array([0.0, -0.125, 0.125])
    for truth in (rivals.mirror_truth, rivals.gradient_truth):
        np.testing.assert_allclose(truth(at_rest, 3), flat, atol=1e-14)
    mirror = start + 0.5 * gain
    np.testing.assert_allclose(rivals.mirror_truth(moved, 1), mirror - np.log(np.exp(mirror).sum()), atol=1e-14)
    gradient = start + 0.5 * np.exp(start) * gain  # the mean gain is zero, as everywhere at β = 0
    np.testing.assert_allclose(rivals.gradient_truth(moved, 1), gradient - np.log(np.exp(gradient).sum()), atol=1e-14)


def test_a_broken_step_is_caught(tmp_path: Path) -> None:
    broken = (NUMPY, steps.Contestant("broken", wrong(handwritten.numpy_closed_form)))
    with pytest.raises(DisagreementError, match="broken at n = 3 differs from the right answer"):
        steps.run(quick=True, out=tmp_path, sizes=(3,), contestants=broken)


def test_a_step_that_is_not_finite_or_of_another_shape_is_caught() -> None:
    with pytest.raises(DisagreementError, match="nan"):
        _measure.ensure_agreement("x", [np.nan], [0.0], 1.0)
    with pytest.raises(DisagreementError, match="shape"):
        _measure.ensure_agreement("x", [0.0, 0.0], [0.0], 1.0)


def test_runs_are_compared_and_a_broken_batch_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "RUNS", 4)
    several = {"NumPy": handwritten.numpy_closed_form, "absent": missing}
    report = runs.run(quick=True, out=tmp_path, sizes=(3,), contestants=several)
    assert report.rows[0]["per_second"] > 0 and report.rows[1]["note"] == NOT_INSTALLED
    with pytest.raises(DisagreementError, match="broken"):
        runs.run(quick=True, out=tmp_path, sizes=(3,), contestants={"broken": wrong(handwritten.numpy_closed_form)})


def test_a_batch_of_the_package_is_right() -> None:
    one = rivals.problem(4)
    asked = one._replace(start=np.stack([one.start, one.log_reference]))
    np.testing.assert_allclose(plain(asked)(20), rivals.mirror_truth(asked, 20), atol=1e-12)


def test_equilibria_are_certified_and_rivals_that_fail_are_not_compared(tmp_path: Path) -> None:
    def uniform(advantages: Floats) -> Floats:
        return np.full(len(advantages), 1 / len(advantages))

    def silent(*_arguments: Any) -> Floats:
        raise solvers.NoAnswerError("gave up")

    at_zero = {
        equilibria.OURS: equilibria.AT_ZERO[equilibria.OURS],
        "wrong": equilibria.Solver(uniform),
        "silent": equilibria.Solver(silent),
        "absent": equilibria.Solver(missing),
    }
    ours = {equilibria.OURS: equilibria.REGULARIZED[equilibria.OURS]}
    report = equilibria.run(quick=True, out=tmp_path, sizes=(6,), at_zero=at_zero, regularized=ours)
    tournament = {row["contestant"]: row for row in report.rows if row["game"] == "total order"}
    assert tournament[equilibria.OURS]["exploitability"] <= equilibria.EXACT
    assert tournament["wrong"]["note"] == "not solved" and "over_ours" not in tournament["wrong"]
    assert tournament["silent"]["note"] == "no answer: gave up" and tournament["absent"]["note"] == NOT_INSTALLED
    assert {row["beta"] for row in report.rows} == {0.0, *equilibria.BETAS}


def test_an_equilibrium_of_ours_that_is_wrong_is_caught(tmp_path: Path) -> None:
    def rough(*asked: Any) -> Floats:
        return np.log(np.exp(solvers.nlhfsim_regularized(*asked)) + 1e-9)

    with pytest.raises(DisagreementError, match="reaches exploitability"):
        broken = {equilibria.OURS: equilibria.Solver(rough)}
        equilibria.run(quick=True, out=tmp_path, sizes=(6,), at_zero={}, regularized=broken)


def test_the_recomputed_certificates_are_those_of_the_package() -> None:
    game = nl.games.random_game(5, 3, beta=0.2, reference=nl.games.random_reference(5, 4))
    advantages, log_reference, policy = game.advantages, np.log(game.reference), nl.games.random_reference(5, 5)
    found = solvers.regularized_exploitability(advantages, log_reference, 0.2, np.log(policy))
    assert found == pytest.approx(nl.exploitability(game, policy), rel=1e-12)
    assert solvers.exploitability(advantages, policy) == pytest.approx(nl.exploitability(game, policy, regularized=False))
    assert solvers.residual(advantages, log_reference, 0.2, nl.solve(game).log_policy) < 1e-13


@pytest.mark.parametrize("name", [*section4.METHODS, section4.EXTRAPOLATED])
def test_first_passages_agree_with_plain_numpy(name: str) -> None:
    games = section4.games_of("random", 0.1, count=2)
    dynamics = section4.method(name, 1.0)
    right = first_passages.passages(games, name, [1.0], section4.THRESHOLDS, 40)[:, 0]
    found = section4.simulated_passages(games, dynamics, 40)
    section4.ensure_same(name, found, right)
    with pytest.raises(DisagreementError, match="plain NumPy"):
        section4.ensure_same(name, np.where(np.isinf(found), 40, found + 2), right)


def test_low_rank_sizes_are_skipped_while_the_form_is_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "is_dense", lambda: True)
    [row] = low_rank.run(quick=True, out=tmp_path, sizes=(1_000_000,)).rows
    assert row["note"].startswith("not run: the form is dense")


def twice(asked: PairProblem) -> PairRun:
    """A sampled step that forgets the half."""
    return pair_rivals.numpy_closed_form(asked._replace(step_size=2 * asked.step_size))


def flipped(asked: PairProblem) -> PairRun:
    """A sampled step with the sign of βh turned round at the start: θ - log ρ is turned round by a reflected ρ."""
    reflected = np.exp(first_passages.normalized(2 * asked.start - asked.log_reference))
    return pair_rivals.numpy_closed_form(asked._replace(game=asked.game.with_reference(reflected)))


def stale(asked: PairProblem) -> PairRun:
    """A sampled step that draws from the policy of the start for ever: right at first."""
    n, reference = len(asked.start), asked.log_reference

    def one(n_steps: int, seed: int) -> Floats:
        rng, logits = np.random.default_rng(seed), asked.start.copy()
        for y, z in rng.choice(n, (n_steps, 2), p=np.exp(asked.start)):
            h = logits[y] - reference[y] - logits[z] + reference[z]
            move = asked.step_size * (float(rng.random() < asked.preferences[y, z]) - 0.5 - asked.game.beta * h) / 2
            logits[y], logits[z] = logits[y] + move, logits[z] - move * (y != z)
        return logits

    return pair_rivals.each(one)


CAREFUL = sampled.Contestant("NumPy", pair_rivals.numpy_closed_form, samples=4000, runs=100)


def test_sampled_steps_are_timed_beside_what_is_there_and_say_what_is_not(tmp_path: Path) -> None:
    few = (CAREFUL, CAREFUL._replace(name="absent", make=missing))
    report = sampled.run(quick=True, out=tmp_path, sizes=(3,), contestants=few, tables=("steps",))
    by_numpy, absent = report.rows
    assert by_numpy["z_gradient"] < pair_checks.LARGEST_Z and by_numpy["z_distance"] < pair_checks.LARGEST_DISTANCE_Z
    assert absent["note"] == NOT_INSTALLED and "ns_min" not in absent


@pytest.mark.parametrize(("make", "words"), [(twice, "exact gradient"), (flipped, "exact gradient"), (stale, "mean KL")])
def test_a_broken_sampled_step_is_caught(make: Callable[[PairProblem], PairRun], words: str, tmp_path: Path) -> None:
    broken = [CAREFUL._replace(name="broken", make=make)]
    with pytest.raises(DisagreementError, match=f"broken at n = 5: .*{words}"):
        sampled.run(quick=True, out=tmp_path, sizes=(5,), contestants=broken, tables=("steps",))


@pytest.mark.parametrize("make", [twice, flipped])
def test_a_broken_sampled_step_is_caught_where_no_matrix_is_written_out(make: Callable[[PairProblem], PairRun]) -> None:
    asked = pair_rivals.low_rank_problem(200, step_size=pair_checks.FROZEN)
    moments = pair_checks.drawn_moments(asked)
    pair_checks.ensure_unbiased("right", pair_rivals.numpy_closed_form(asked), asked, moments, 4000)
    with pytest.raises(DisagreementError, match="exact gradient"):
        pair_checks.ensure_unbiased("broken", make(asked), asked, moments, 4000)


def test_a_batch_that_sums_where_it_should_average_is_caught() -> None:
    asked = pair_rivals.pair_problem(5, step_size=pair_checks.FROZEN)
    moments = pair_checks.exact_moments(asked, 4000)
    right = pair_rivals.by_definition(asked, 16)
    pair_checks.ensure_unbiased("right", right, asked, moments, 4000, 16)
    summed = pair_rivals.by_definition(asked._replace(step_size=16 * asked.step_size), 16)
    with pytest.raises(DisagreementError, match="exact gradient"):
        pair_checks.ensure_unbiased("broken", summed, asked, moments, 4000, 16)


def test_the_moments_of_a_sampled_step_are_those_of_every_pair_and_vote() -> None:
    asked = pair_rivals.pair_problem(4)
    policy, lean = np.exp(asked.start), asked.start - asked.log_reference
    first, second = np.zeros(4), np.zeros(4)
    for y, z, vote in np.ndindex(4, 4, 2):
        chance = asked.preferences[y, z] if vote else 1 - asked.preferences[y, z]
        estimate = (vote - 0.5 - asked.game.beta * (lean[y] - lean[z])) / 2 * (np.eye(4)[y] - np.eye(4)[z])
        first += policy[y] * policy[z] * chance * estimate
        second += policy[y] * policy[z] * chance * estimate**2
    moments = pair_checks.exact_moments(asked, 10**6)
    np.testing.assert_allclose(moments.directions[0], first, atol=1e-15)
    np.testing.assert_allclose(moments.mean[2:], first, atol=1e-15)
    np.testing.assert_allclose(moments.deviation[2:], np.sqrt(second - first**2), rtol=1e-12)


def test_a_number_of_threads_that_changes_a_bit_is_caught() -> None:
    sampled.ensure_same_bits(np.ones(2), np.ones(2))
    with pytest.raises(DisagreementError, match="number of threads"):
        sampled.ensure_same_bits(np.ones(2), np.array([1.0, np.nextafter(1.0, 2.0)]))


def test_the_lead_of_extragradient_is_a_ratio_of_medians_at_the_best_steps(tmp_path: Path) -> None:
    passages = sampled_extragradient.Passages
    fast, slow = np.full((2, 9, 2), 10.0), np.full((2, 9, 2), 40.0)
    slow[0], fast[1] = np.inf, np.inf

    def made(asked: sampled_extragradient.Asked, method: str) -> sampled_extragradient.Passages:
        if asked.sampled:
            raise NotInstalledError("votes")
        return passages(slow, slow) if method == "NaturalPG" else passages(fast, 2 * fast)

    report = sampled_extragradient.run(quick=True, out=tmp_path, simulate=made, grid=(0.1, 1.0))
    exact, absent = report.rows[0], report.rows[2]
    assert (exact["NaturalPG"], exact["NaturalPG_step"], exact["Extragradient_step"]) == (40.0, "1*", "0.1*")
    assert (exact["steps_ratio"], exact["cost_ratio"], exact["steps_interval"]) == (4.0, 2.0, "4 to 4")
    assert absent["note"] == NOT_INSTALLED
    assert sampled_extragradient.ratio(np.inf, 3.0) == np.inf and sampled_extragradient.ratio(3.0, np.inf) == 0.0


def test_intervals_of_a_ratio_cover_it() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        low, high = sampled_extragradient.interval(2 * rng.exponential(size=(1, 101)) + 20, rng.exponential(size=(1, 101)) + 10)
        covered += low <= 2.0 <= high
    assert covered >= 85


@pytest.mark.parametrize("method", sampled_extragradient.METHODS)
def test_wrong_first_passages_are_caught(method: str) -> None:
    game = nl.games.rock_paper_scissors(beta=0.1)
    asked = sampled_extragradient.Asked(game, False, (0.3,), sampled_extragradient.Effort(2, 60))
    found = sampled_extragradient.simulated(asked, method)
    sampled_extragradient.ensure_first_passages("right", asked, method, found)
    with pytest.raises(DisagreementError, match="plain NumPy"):
        sampled_extragradient.ensure_first_passages("broken", asked, method, found._replace(steps=found.steps + 2))


def test_latency_reports_what_is_missing_and_catches_a_program_that_fails(tmp_path: Path) -> None:
    programs = {"python": ("", "pass"), "absent": ("open_spiel", "pass")}
    report = latency.run(quick=True, out=tmp_path, programs=programs)
    assert report.rows[0]["s_min"] > 0
    assert report.rows[1]["s_min"] is not None or report.rows[1]["note"] == NOT_INSTALLED
    with pytest.raises(DisagreementError, match="wrong failed: AssertionError"):
        latency.run(quick=True, out=tmp_path, programs={"wrong": ("", "assert False")})


def test_results_say_everything_about_the_machine(tmp_path: Path) -> None:
    report = Report("part", "Title", {"name": "name", "value": "value"})
    report.rows = [{"name": "a", "value": 0.5}, {"name": "b", "value": float("inf"), "array": [np.float64(1.0)]}]
    report.aim("at most 1", 2.0, 1.0)
    _measure.write(report, tmp_path, quick=True)
    written = json.loads((tmp_path / "part.json").read_text())
    assert written["machine"].keys() >= MACHINE and written["machine"]["versions"]["numpy"] == np.__version__
    assert written["rows"][1] == {"name": "b", "value": "infinity", "array": [1.0]}
    assert written["targets"] == [{"target": "at most 1", "measured": 2.0, "limit": 1.0, "met": False}]
    text = (tmp_path / "part.md").read_text()
    assert "| b    | never |" in text and "MISSED: at most 1: 2" in text


def test_the_command_refuses_an_unknown_part_and_fails_on_a_disagreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def disagree(*, quick: bool, out: Path) -> Report:
        raise DisagreementError("somebody differs")

    monkeypatch.setattr(command, "_ONE_THREAD", {})
    with pytest.raises(SystemExit):
        command.main(["nothing", "--out", str(tmp_path)])
    assert "must be one of steps, runs" in capsys.readouterr().err
    monkeypatch.setattr(steps, "run", disagree)
    assert command.main(["steps", "--out", str(tmp_path)]) == 1
    assert "steps: somebody differs" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--out", "/proc/x"], "--out /proc/x is no folder that can be written to: No such file or directory"),
        (["--out", __file__], "is no folder that can be written to: File exists"),
        (["--core", "99999"], "--core 99999 must be one of the cores that this process may run on: 0"),
        (["--core", "-1"], "--core -1 must be one of the cores"),
    ],
)
def test_a_folder_and_a_core_that_there_are_not_are_refused(
    given: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured, in a sentence."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_ONE_THREAD", {})
    monkeypatch.setattr(command.importlib, "import_module", missing)
    with pytest.raises(SystemExit) as stop:
        command.main(["steps", "--quick", *given])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_linearizations_are_held_against_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = stability.run(quick=True, out=tmp_path, games=2, methods=("NashMD",))
    (row,) = report.rows
    assert row["factors"] == row["brackets"] == 2 and row["worst_factor"] < 1e-4 and row["worst_bracket"] < 1e-3
    real = stability.measured
    monkeypatch.setattr(stability, "measured", lambda *arguments: real(*arguments) * 1.3)
    with pytest.raises(DisagreementError, match="log factors are off"):
        stability.run(quick=True, out=tmp_path, games=2, methods=("NashMD",))


def test_tightness_is_searched_and_a_false_bound_stops_it(tmp_path: Path) -> None:
    """A row a bound with its tightest game; a rate also as an exponent; a claim that is violated is no result."""
    report = tightness.run(quick=True, out=tmp_path, chosen=["log-ratio-span", *tightness.searched()[-1:]])
    first, exponent = report.rows
    assert first["claim"] == "log-ratio-span" and 0.9 < first["drawn"] <= first["found"] + 0.02 <= 1.03
    assert exponent["claim"].endswith("-exponent") and 0.5 < exponent["found"] <= 1
    false = nl.claims.get("log-ratio-span")
    half = replace(false, id="half", bound=lambda case: 0.5 / case.beta)
    with pytest.raises(DisagreementError, match="half is violated"):
        tightness.run(quick=True, out=tmp_path, chosen=[half])


def test_verification_is_timed_in_fresh_processes(tmp_path: Path) -> None:
    """Two rows, the same counts; a failing command is no result."""
    report = verification.run(quick=True, out=tmp_path, claims=["constant-sum"])
    assert [row["checks"] for row in report.rows] == [20, 20] and report.targets[0]["met"]
    with pytest.raises(DisagreementError, match="'constant-sun' is unknown"):
        verification.run(quick=True, out=tmp_path, claims=["constant-sun"])
