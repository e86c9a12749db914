"""Two processes train as one does: the same gradient, the same weights, whole checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlhfsim.errors import MissingExtraError
from nlhfsim.llm.processes import Processes
from nlhfsim.report import write_report

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What one process and two found, by their number; and where."""
    results: dict[int, dict[str, Any]] = {}
    for count in (1, 2):
        folder = tmp_path_factory.mktemp(f"processes-{count}")
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if count == 2 else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, *launch, str(HERE / "two_processes.py"), str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        results[count] = json.loads((folder / "found.json").read_text()) | {"folder": folder, "stderr": done.stderr}
    return results


def close(one: Any, other: Any) -> bool:
    """Equal to rounding in float64."""
    return bool(np.abs(np.array(one) - np.array(other)).max() < 1e-11)


@pytest.mark.parametrize("estimator", ["pair", "token"])
def test_the_gradient_of_given_responses(found: dict[int, dict[str, Any]], estimator: str) -> None:
    """Pairs without a verdict are not spread evenly over the processes; both estimators of KL."""
    assert close(found[1][estimator]["gradient"], found[2][estimator]["gradient"])
    assert close(found[1][estimator]["loss"], found[2][estimator]["loss"])
    assert np.abs(found[1][estimator]["gradient"]).max() > 1e-3


@pytest.mark.parametrize("method", ["nash_prox", "extragradient"])
def test_the_weights_after_exact_steps(found: dict[int, dict[str, Any]], method: str) -> None:
    """Three steps of Adam, with a target and with half steps."""
    assert np.abs(np.array(found[1][method]) - np.array(found[2][method])).max() < 1e-6


def test_each_process_draws_its_own(found: dict[int, dict[str, Any]]) -> None:
    """And all of it is counted."""
    assert found[2]["counts"][0] == found[2]["counts"][3] == 2
    assert found[2]["counts"][2] == found[1]["counts"][2] == 3 * 4 * 4 * 2
    assert not close(found[1]["whole"], found[2]["whole"])


def test_two_processes_resume_to_the_bit(found: dict[int, dict[str, Any]]) -> None:
    """The generators of both are in the checkpoint; only the first process writes."""
    for count in (1, 2):
        assert found[count]["whole"] == found[count]["resumed"]
    folder = found[2]["folder"] / "resumed"
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if row["kind"] == "step"] == [2, 3]
    assert (folder / "model" / "model.safetensors").exists() and json.loads((folder / "result.json").read_text())[
        "status"
    ] == "done"


def test_how_many_there_were_is_on_record(found: dict[int, dict[str, Any]]) -> None:
    """The same command in another number of processes gives other numbers; the page says it where there are several."""
    for count in (1, 2):
        folder = found[count]["folder"] / "whole"
        about = json.loads((folder / "provenance.json").read_text())
        assert about["processes"] == count and ("accelerate" in about["versions"]) == (count == 2)
        text = write_report(folder, folder / "page.html").read_text(encoding="utf-8")
        assert (f"<dt>processes</dt><dd>{count}, begun by torchrun" in text) == (count == 2)
        assert ("with the same versions and as many processes gives" in text) == (count == 2)


def test_each_process_has_a_sampler_of_its_own(found: dict[int, dict[str, Any]]) -> None:
    """It draws for its share of the prompts, by seeds of its own; only the first evaluates."""
    for count in (1, 2):
        distances, draws = found[count]["sampler"]
        assert 0 < max(distances) < 1e-6 and len(draws) == count
        steps = [[row for row in rows if row[1] == 4 // count] for rows in draws[1:]] if count == 2 else [draws[0][2:-2]]
        assert all(len(rows) == 3 * 2 for rows in steps), "three steps, there and at the half step"
        seeds = [seed for rows in draws for seed, _ in rows]
        assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("where", ["step", "draw", "evaluation"])
def test_what_is_down_for_one_process_stops_all_with_everything_saved(found: dict[int, dict[str, Any]], where: str) -> None:
    """At the same step, and the same call goes on to the bits of a run that was never stopped."""
    for count in (1, 2):
        stopped = found[count][f"down in {where}"]
        failed = 0 if where == "evaluation" else count - 1
        own, other = "the judge is down", "in another process: the judge is down"
        assert stopped["said"] == [own if rank == failed else other for rank in range(count)]
        assert stopped["saved"] == ["step-00000001"] and stopped["weights"] == found[count]["whole"]


def test_an_interruption_is_told_once(found: dict[int, dict[str, Any]]) -> None:
    """By the first process; all stop at the same step."""
    for count in (1, 2):
        assert found[count]["stderr"].count("nlhfsim: finishing the step or evaluation under way and saving; again to") == 1
        assert [said.partition(";")[0] for said in found[count]["interrupted"]] == ["stopped after step 2 of 3"] * count


def test_all_stop_at_the_same_step_without_verdicts(found: dict[int, dict[str, Any]]) -> None:
    """With the words of the process that has some, and everything saved."""
    for count in (1, 2):
        stopped = found[count]["in vain"]
        assert len(stopped["said"]) == count and stopped["saved"] == ["step-00000009"]
        for taken, said in stopped["said"]:
            assert taken == 9 and "10 steps in a row" in said and "it returned NaN or None" in said


def test_too_few_prompts(found: dict[int, dict[str, Any]]) -> None:
    """A process without a prompt is refused."""
    assert "prompts_per_step = 1 must be at least 2, the number of processes" in found[2]["few"]


def test_a_checkpoint_of_two_is_refused_by_one(found: dict[int, dict[str, Any]]) -> None:
    """It lacks the other's generator."""
    from two_processes import trainer_of

    with pytest.raises(ValueError, match="of another configuration: processes = 2 there, 1 here"):
        trainer_of(found[2]["folder"] / "whole", group_size=4).fit()


def test_a_process_waits_for_another_that_asks_a_slow_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than torch's minutes: one evaluation alone may take them."""
    given: dict[str, Any] = {}

    class State:
        def __init__(self, **fields: Any) -> None:
            given.update(fields)
            self.process_index, self.device = 0, "cpu"

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", State)
    assert Processes("cpu").count == 2 and given["timeout"] >= timedelta(hours=12)


def test_without_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the command that installs it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nlhfsim\[parallel\]'"):
        Processes("cpu")
