"""A training folder: what is written is read back, also while the run goes on; damage is told with its line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlhfsim.errors import DataError, UnknownNameError
from nlhfsim.llm.record import MetricsWriter, load_run
from nlhfsim.training_run import TrainingRun, is_training

CONFIG = {"method": "nash_prox", "beta": 0.05, "steps": 40}


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "step", "step": number, "loss": 1 / number, "seconds": {"generation": 0.5, "oracle": 0.25}} | more


def evaluation(number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "evaluation", "step": number, "win_rate_reference": 0.5, "win_rate_target": None} | more


def make(folder: Path, records: list[dict[str, Any]], **files: Any) -> Path:
    """A folder as a run writes it."""
    folder.mkdir(exist_ok=True)
    for name, content in ({"config": {"training": CONFIG, "recipe": None}} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    writer = MetricsWriter(folder / "metrics.jsonl")
    for record in records:
        writer.write(record)
    return folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    records = [evaluation(0), step(1), step(2, kl_target=0.5), evaluation(2, win_rate_reference=np.float32(0.75))]
    run = load_run(make(tmp_path, records, result={"status": "done", "steps": 2, "final": {}}))
    assert run.status == "done" and run.config == CONFIG and run.recipe is None and run.last_step == 2
    np.testing.assert_array_equal(run.steps["step"], [1, 2])
    np.testing.assert_array_equal(run.steps["loss"], [1, 0.5])
    np.testing.assert_array_equal(run.steps["kl_target"], [math.nan, 0.5])
    np.testing.assert_array_equal(run.steps["seconds_oracle"], [0.25, 0.25])
    np.testing.assert_array_equal(run.evaluations["win_rate_reference"], [0.5, 0.75])
    assert np.isnan(run.evaluations["win_rate_target"]).all()
    assert run.final == {"step": 2, "win_rate_reference": 0.75}
    frame = run.to_frame()
    assert frame.index.tolist() == [0, 2] and frame["win_rate_reference"].tolist() == [0.5, 0.75]
    assert run.to_frame("steps").index.tolist() == [1, 2]
    with pytest.raises(UnknownNameError, match="did you mean 'steps'"):
        run.to_frame("step")


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write(step(1, loss=math.nan, gradient_norm=math.inf, seconds={"oracle": -math.inf}))
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "kind": "step",
        "step": 1,
        "loss": None,
        "seconds": {"oracle": None},
        "gradient_norm": None,
    }


def test_a_run_is_read_while_it_goes_on(tmp_path: Path) -> None:
    """Every record is there at once, and half of the next is not seen."""
    folder = make(tmp_path, [])
    run = load_run(folder)
    assert run.status == "unfinished" and run.last_step == 0 and run.final == {} and run.table() == ([], [], [])
    assert len(run.to_frame()) == 0
    writer = MetricsWriter(folder / "metrics.jsonl")
    for number in (1, 2, 3):
        writer.write(step(number))
        assert load_run(folder).last_step == number
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write('{"kind": "step", "step": 4, "note": "Grüße'.encode()[:-2])
    assert load_run(folder).last_step == 3


def test_a_run_that_goes_on_after_an_interruption_is_unfinished(tmp_path: Path) -> None:
    result = {"status": "interrupted", "steps": 2}
    assert load_run(make(tmp_path, [step(1), step(2)], result=result)).status == "interrupted"
    MetricsWriter(tmp_path / "metrics.jsonl").write(step(3))
    assert load_run(tmp_path).status == "unfinished"


def test_resuming_writes_nothing_twice(tmp_path: Path) -> None:
    whole = [evaluation(0), *map(step, (1, 2, 3)), evaluation(3), step(4), step(5)]
    path = make(tmp_path, whole) / "metrics.jsonl"
    expected = path.read_bytes()
    path.write_bytes(expected[:-7])
    writer = MetricsWriter(path)
    writer.truncate_after(3)
    assert path.read_bytes() == b"".join(expected.splitlines(keepends=True)[:5])
    writer.write(step(4))
    writer.write(step(5))
    assert path.read_bytes() == expected
    writer.truncate_after(5)
    assert path.read_bytes() == expected
    writer.truncate_after(-1)
    assert path.read_bytes() == b""


def test_there_is_nothing_to_truncate_where_nothing_was_written(tmp_path: Path) -> None:
    MetricsWriter(tmp_path / "metrics.jsonl").truncate_after(0)
    assert list(tmp_path.iterdir()) == []


def test_of_two_evaluations_of_one_step_the_later_counts(tmp_path: Path) -> None:
    run = load_run(make(tmp_path, [evaluation(5), evaluation(5, win_rate_reference=0.9)]))
    assert run.evaluations["win_rate_reference"].tolist() == [0.9]


DAMAGED = [
    ('{"kind": "step", "step": 1}\n{"kind": "st\n{"kind": "step", "step": 3}\n', "line 2 is not JSON"),
    ('{"kind": "step", "step": 1}\n\n[1]\n', "line 3 must be an object with a 'kind' and a whole 'step'"),
    ('{"kind": "step"}\n', "line 1 must be an object with a 'kind' and a whole 'step'"),
    ('{"kind": "step", "step": 1.5}\n', "line 1 must be an object"),
    ('{"kind": "step", "step": true}\n', "line 1 must be an object"),
    ('{"kind": "step", "step": 1, "loss": "low"}\n', "line 1: loss = 'low' must be a number or null"),
    ('{"kind": "step", "step": 1, "seconds": {"oracle": []}}\n', r"line 1: seconds_oracle = \[\] must be a number"),
    ('{"kind": "step", "step": 2}\n{"kind": "step", "step": 2}\n', "line 2 is step 2 behind step 2: two runs"),
    ('{"kind": "evaluation", "step": 9}\n{"kind": "evaluation", "step": 5}\n', "line 2 is evaluation 5 behind evaluation 9"),
    ("\x00\x00\n", "line 1 is not JSON"),
]


@pytest.mark.parametrize("text, words", DAMAGED, ids=[words for _, words in DAMAGED])
def test_a_damaged_record_is_told_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    make(tmp_path, [])
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(DataError, match=words):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("config.json", "{", "is not JSON"),
        ("config.json", "{}", "is not of a training run"),
        ("config.json", '{"training": {}, "recipe": 3}', "is not of a training run"),
        ("result.json", "[]", "must hold one JSON object"),
        ("provenance.json", "\ud800", "is not JSON"),
    ],
)
def test_a_damaged_file_is_told(name: str, text: str, words: str, tmp_path: Path) -> None:
    make(tmp_path, [step(1)])
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=words):
        load_run(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there; give one that a training run writes"):
        load_run(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no config.json"):
        load_run(tmp_path)
    assert not is_training(tmp_path) and is_training(make(tmp_path, [step(1)]))


def test_a_disk_that_is_full_is_told() -> None:
    with pytest.raises(DataError, match="'/dev/full' cannot be written"):
        MetricsWriter("/dev/full").write(step(1))


def test_the_table_leaves_out_what_was_never_measured(tmp_path: Path) -> None:
    records = [evaluation(k, kl_reference=k / 2, exploitability=None if k else 0.5) for k in (0, 2, 4)]
    columns, rows, notes = load_run(make(tmp_path, records)).table(last=2)
    assert columns == ["step", "wins over reference", "KL to reference", "E_beta"]
    assert rows[0][:3] == [2, 0.5, 1] and math.isnan(rows[0][3]) and rows[1][0] == 4 and len(notes) == 2


def test_it_says_what_it_is(tmp_path: Path) -> None:
    run = load_run(make(tmp_path, [evaluation(20, kl_reference=1.5)]))
    assert repr(run) == (
        "TrainingRun(nash_prox, beta = 0.05, step 20 of 40, unfinished, wins over reference 0.5, KL to reference 1.5; "
        f"{str(tmp_path)!r})"
    )


def test_a_win_rate_stands_with_its_standard_error(tmp_path: Path) -> None:
    run = load_run(make(tmp_path, [evaluation(20, win_rate_reference_error=0.0321, kl_reference=1.5)]))
    assert "wins over reference 0.5 ± 0.032, KL to reference 1.5;" in repr(run)
    columns, [row], [legend] = run.table()
    assert columns == ["step", "wins over reference", "±", "KL to reference"] and row == [20, 0.5, 0.0321, 1.5]
    assert "± its standard error" in legend


def test_a_folder_is_read_where_torch_is_not_installed(tmp_path: Path) -> None:
    """What a machine with an accelerator wrote is looked at on another."""
    make(tmp_path, [evaluation(0), step(1)])
    code = "import sys; sys.modules['torch'] = None; from nlhfsim.training_run import load_run; print(load_run(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("TrainingRun(nash_prox")
    assert isinstance(load_run(tmp_path), TrainingRun)
