"""Runs with sampled feedback: seeds and streams, threads, continuation, runs that are killed, averages of iterates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampled import SAMPLED, START, Floats, example

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
BATCHED = nl.Sampled(3)
COMPILED = ("MagnetRefresh", "NashMD", "NashProx")
"""One method with a plain step, one with a kernel, one of pairs: averages are compiled in these only, as each takes a while."""


@pytest.fixture
def contexts(family: dict[str, nl.PreferenceGame]) -> nl.PreferenceGame:
    """Three contexts of four actions."""
    return family["contexts"]


def go(game: nl.PreferenceGame, method: Any, n_steps: int, **options: Any) -> nl.Trajectory:
    """A sampled run without equilibrium."""
    return nl.simulate(game, method, n_steps, **({"feedback": BATCHED, "equilibrium": False} | options))


def same(one: nl.Trajectory, other: nl.Trajectory) -> None:
    """Assert that two trajectories agree in every bit of policies, parameters and state, random generators included."""
    assert one.status == other.status and one.params == other.params and one.seed == other.seed
    for name in ("steps", "oracle_calls", "queries", "log_policies", "final", "parameters"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("kl", "exploitability", "gap0", "span"):  # measured in blocks, which BLAS rounds by their size
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-15, err_msg=name)
    assert one.state.keys() == other.state.keys() and "generator" in one.state
    for name, values in one.state.items():
        np.testing.assert_array_equal(other.state[name], values, err_msg=name)


# --- seeds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLED)
def test_seeds(name: str, contexts: nl.PreferenceGame) -> None:
    """One seed gives the same bits, another other votes; runs added change no bit of those before."""
    first, again, other = (go(contexts, example(name), 20, runs=2, seed=seed) for seed in (7, 7, 8))
    same(first, again)
    assert (first.parameters != other.parameters).any(axis=-1).all()
    more = go(contexts, example(name), 20, runs=9, seed=7)
    np.testing.assert_array_equal(more.log_policies[:2], first.log_policies)  # type: ignore[index]
    for field, values in first.state.items():
        np.testing.assert_array_equal(more.state[field][:2], values)


def test_streams_are_apart() -> None:
    """In equal contexts every run and context draws numbers of its own: moves of equal starts are uncorrelated, none equal."""
    P = [[0.5, 0.5], [0.5, 0.5]]
    game = nl.PreferenceGame([P, P, P], 0.0, [[0.5, 0.5]] * 3)
    run = go(game, dynamics.SelfPlayPG(1e-6), 2000, runs=4, record_every=1, feedback=nl.Sampled(8), start="uniform")
    assert run.log_policies is not None
    moves = np.diff(run.log_policies[..., 0], axis=1).swapaxes(1, 2).reshape(12, 2000)
    correlations = np.corrcoef(moves) - np.eye(12)
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)
    assert len(np.unique(run.state["generator"][..., :2].reshape(12, 2), axis=0)) == 12


def test_the_start_and_the_votes_have_streams_of_their_own(contexts: nl.PreferenceGame) -> None:
    """A random start does not change which numbers the votes get."""
    drawn, given = (go(contexts, "NaturalPG", 20, start=start, seed=3) for start in ("random", "uniform"))
    np.testing.assert_array_equal(drawn.state["generator"], given.state["generator"])


@pytest.mark.parametrize("name", ["SelfPlayPG", "NashProx", "NashMD", "OptimisticMirrorDescent"])
def test_threads_change_no_bit(name: str, contexts: nl.PreferenceGame) -> None:
    """One, two and five threads, and as many as there are, give the same bits."""
    runs = [go(contexts, example(name), 300, runs=5, start="random", threads=threads) for threads in (1, 2, 5, None)]
    for other in runs[1:]:
        same(runs[0], other)


def test_systems_that_do_not_tell_their_processors(contexts: nl.PreferenceGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not say which processors may be used, all are."""
    wanted = go(contexts, "SelfPlayPG", 20, runs=3)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    same(go(contexts, "SelfPlayPG", 20, runs=3), wanted)
    assert nl.simulate(contexts, "SelfPlayPG", 20, equilibrium=False).status == ("completed",)


# --- continuation ---------------------------------------------------------------------------------------------------------


def variants(name: str) -> list[dynamics.Dynamics]:
    """The example, with a schedule, with a step size for each run, and other modes."""
    scheduled = dynamics.get(name).method.scheduled
    found = [example(name)]
    if scheduled is not None:
        found.append(example(name, **{scheduled: nl.schedules.inverse_time(5.0, 20.0)}))
        found.append(example(name, **{scheduled: [0.3, 0.05]}))
    if name == "NashProx":
        found.append(dynamics.NashProx(step_size=0.5, refresh_every=4))
    if name == "ProximalPG":
        found.append(dynamics.ProximalPG(inner_step_size=nl.schedules.two_stage(0.5, 0.1, 30), inner_steps=7))
    return found


def averages(name: str) -> list[str | None]:
    """The averages that a method can have."""
    method = dynamics.get(name).method
    return [None, *(["parameters"] if method.scheduled else []), *(["policies"] if method.scheduled and not method.pairs else [])]


@pytest.mark.parametrize("name", SAMPLED)
def test_a_sampled_run_continues_bit_for_bit(name: str, contexts: nl.PreferenceGame, tmp_path: Path) -> None:
    """run(5), saved and read back, continued by 6 is run(11) in every bit, whatever is averaged; two runs, three contexts."""
    for method in variants(name):
        for average in averages(name):
            options: dict[str, Any] = {"average": average, "compiled": average is None or name in COMPILED}
            begin: dict[str, Any] = {"start": "random", "runs": 2, "seed": 4}
            whole = go(contexts, method, 11, record_every=[5], **begin, **options)
            part = go(contexts, method, 5, record_every=[], **begin, **options)
            for begun in (part, nl.load(part.save(tmp_path / "part"))):
                same(go(contexts, method, 6, record_every=[], start=begun, **options), whole)


@pytest.mark.parametrize("compiled", [True, False])
def test_one_step_at_a_time(compiled: bool, contexts: nl.PreferenceGame) -> None:
    """Thirty continuations by one step are a run of thirty, also where the logits are far apart and the centre lags."""
    for method in (dynamics.NashProx(30.0, averaging=0.3), dynamics.IPOMD(400.0, mixing=0.2), dynamics.NashMD(0.5)):
        options: dict[str, Any] = {"compiled": compiled, "average": "parameters", "record_every": 1}
        run = go(contexts, method, 0, **options)
        for _ in range(30):
            run = go(contexts, method, 1, start=run, **options)
        same(run, go(contexts, method, 30, **options))


def test_what_a_run_began_with_it_goes_on_with(contexts: nl.PreferenceGame) -> None:
    """Other feedback or another average is refused, each named with what it was."""
    sampled, exact = go(contexts, "NashMD", 3), nl.simulate(contexts, "NashMD", 3, equilibrium=False)
    attempts: list[tuple[nl.Trajectory, dict[str, Any], str]] = [
        (
            sampled,
            {"feedback": "exact"},
            "start is a trajectory with feedback = {.*'batch_size': 3.*, but feedback = 'exact' now",
        ),
        (exact, {}, "start is a trajectory with feedback = 'exact', but feedback = {"),
        (sampled, {"feedback": nl.Sampled(4)}, "feedback"),
        (sampled, {"feedback": nl.Sampled(3, votes=False)}, "feedback"),
        (sampled, {"feedback": nl.Sampled(3, candidates="reference")}, "feedback"),
        (sampled, {"average": "policies"}, "start is a trajectory with average = None, but average = 'policies' now"),
        (go(contexts, "NashMD", 3, average="policies"), {"average": "parameters"}, "average = 'policies', but average = 'param"),
        (go(contexts, "NashMD", 3, average="policies"), {}, "average"),
    ]
    for start, options, message in attempts:
        with pytest.raises(InputError, match=message):
            go(contexts, "NashMD", 2, start=start, **options)


CHUNKS = """\
import sys
from pathlib import Path
import nlhfsim as nl

path, chunks = Path(sys.argv[1]), int(sys.argv[2])
game = nl.games.random_game(8, 1, beta=0.1)
method = nl.dynamics.NashProx(nl.schedules.inverse_time(100, 200), averaging=0.05)
options = dict(feedback=nl.Sampled(2), average="parameters", equilibrium=False, record_every=500)
run = nl.load(path) if path.exists() else None
for _ in range(chunks):
    run = nl.simulate(game, method, 500, start=run, **(options | (dict(runs=3, seed=9) if run is None else {})))
    run.save(path)
    if run.steps[-1] >= 500 * chunks:
        break
"""


def test_a_killed_run_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    """A process that runs and saves chunk after chunk is killed; started again it ends with the bits of one that was not."""
    script, killed, whole = tmp_path / "chunks.py", tmp_path / "killed.npz", tmp_path / "whole.npz"
    script.write_text(CHUNKS, encoding="utf-8")
    process = subprocess.Popen([sys.executable, script, killed, "1000000"])
    deadline = time.monotonic() + 120
    while not killed.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = int(nl.load(killed).steps[-1]) // 500
    assert done >= 1
    subprocess.run([sys.executable, script, killed, str(done + 3)], check=True, timeout=120)
    subprocess.run([sys.executable, script, whole, str(done + 3)], check=True, timeout=120)
    same(nl.load(killed), nl.load(whole))
    at_once = nl.simulate(
        nl.games.random_game(8, 1, beta=0.1),
        dynamics.NashProx(nl.schedules.inverse_time(100, 200), averaging=0.05),
        500 * (done + 3),
        feedback=nl.Sampled(2),
        average="parameters",
        equilibrium=False,
        record_every=500,
        runs=3,
        seed=9,
    )
    same(nl.load(killed), at_once)


# --- averages -------------------------------------------------------------------------------------------------------------


def softmax(logits: Floats) -> Floats:
    """Normalized exponentials over the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


MEANS: dict[str, Callable[[Floats], Floats]] = {
    "policies": lambda logs: np.cumsum(np.exp(logs), axis=1) / np.arange(1, logs.shape[1] + 1)[:, None, None],
    "parameters": lambda logs: softmax(np.cumsum(logs, axis=1) / np.arange(1, logs.shape[1] + 1)[:, None, None]),
}
"""The mean of log-policies ``(runs, records, contexts, n)`` so far; a constant in θ does not change the mean's softmax."""
AVERAGED = [name for name in dynamics.names() if dynamics.get(name).method.scheduled]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("feedback", ["exact", "sampled"])
@pytest.mark.parametrize("name", AVERAGED)
def test_averages_are_means_of_the_iterates(name: str, feedback: str, compiled: bool, contexts: nl.PreferenceGame) -> None:
    """What is recorded is the mean of all iterates recorded without an average, the start included; the run is the same."""
    if feedback == "sampled" and name not in SAMPLED or compiled and name not in COMPILED:
        return
    n_steps = 4 if name == "ProximalPoint" else 25
    options: dict[str, Any] = {"feedback": feedback, "runs": 2, "start": "random", "record_every": 1, "compiled": compiled}
    plain = go(contexts, example(name), n_steps, **options)
    assert plain.log_policies is not None
    for average, mean in MEANS.items():
        if average == "policies" and feedback == "sampled" and dynamics.get(name).method.pairs:
            continue
        averaged = go(contexts, example(name), n_steps, average=average, **options)
        wanted = mean(plain.log_policies)
        assert averaged.log_policies is not None and averaged.final is not None
        np.testing.assert_allclose(np.exp(averaged.log_policies), wanted, rtol=0, atol=1e-12)
        np.testing.assert_allclose(averaged.final, wanted[:, -1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(averaged.parameters, plain.parameters, rtol=0, atol=1e-12)
        assert np.abs(wanted[:, -1] - np.exp(plain.log_policies[:, -1])).max() > 1e-3
        seldom = go(contexts, example(name), n_steps, average=average, **(options | {"record_every": [3]}))
        np.testing.assert_array_equal(seldom.final, averaged.final)


def test_averages_learn_what_a_vote_does_not() -> None:
    """With a constant step one vote keeps θ moving; its average comes much nearer to the equilibrium."""
    game = nl.games.rock_paper_scissors(beta=0.3)
    last, mean = (
        nl.simulate(
            game, dynamics.SelfPlayPG(0.3), 200_000, feedback="sampled", average=average, start=START[:3] / np.sum(START[:3])
        )
        for average in (None, "parameters")
    )
    assert mean.kl[0, -1] < 1e-4 < 1e-3 < np.median(last.kl[0, -20:])


def test_policies_that_votes_cannot_bring_back_are_noted() -> None:
    """Enormous steps end in a deterministic policy, and a note says so; many diverged runs take few notes."""
    game = nl.games.rock_paper_scissors(beta=0.1)
    frozen = nl.simulate(game, nl.dynamics.SelfPlayPG(1e6), 100, feedback=nl.Sampled(2), start=[0.8, 0.1, 0.1])
    assert frozen.min_probability[0, -1] == 0 and any("some probabilities are 0" in note for note in frozen.notes)
    lost = nl.simulate(game, nl.dynamics.NaturalPG(1e300), 20, feedback=nl.Sampled(2), start=[0.8, 0.1, 0.1], runs=50)
    assert lost.status.count("diverged") == 50 and len(lost.notes) < 12 and any("43 more runs" in note for note in lost.notes)


def test_a_first_look_is_compiled_with_the_same_votes() -> None:
    """The look before the first step of optimistic mirror descent takes the same votes compiled as plain."""
    game = nl.games.rock_paper_scissors(beta=0.1)
    ends = [
        nl.simulate(game, "OptimisticMirrorDescent", 3, feedback=nl.Sampled(500), start=[0.5, 0.3, 0.2], compiled=compiled)
        for compiled in (True, False)
    ]
    assert (ends[0].state["generator"] == ends[1].state["generator"]).all()
    np.testing.assert_allclose(ends[0].parameters, ends[1].parameters, rtol=0, atol=1e-13)
