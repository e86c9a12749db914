"""``nlhfsim llm`` and what is drawn and reported of a run: a small model is trained from a TOML file, as a user does it."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim.cli import main
from nlhfsim.cli.training import Line, duration
from nlhfsim.errors import InputError
from nlhfsim.llm.record import MetricsWriter
from nlhfsim.plots.training import PANELS
from nlhfsim.training_run import TrainingRun, load_run

RECIPE = """
title = "A cycle of tokens"
seed = 3
[model.new]
model_type = "qwen2"
vocab_size = 12
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 32
[prompts]
list = [[1, 2], [2, 3], [3, 1], [1, 1], [2, 2]]
held_out = 2
[oracle]
kind = "classes"
groups = [[4, 5], [6, 7], [8, 9]]
preferences = "rock-paper-scissors"
[training]
method = "nash_prox"
steps = 6
prompts_per_step = 3
max_new_tokens = 2
stop_tokens = []
allowed_tokens = [4, 5, 6, 7, 8, 9]
learning_rate = 0.01
evaluate_every = 2
checkpoint_every = 2
"""


def call(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process; return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as exit_:
        main([str(one) for one in arguments])
    printed = capsys.readouterr()
    return int(exit_.value.code or 0), printed.out, printed.err


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take longer than the training here."""
    monkeypatch.setattr("nlhfsim.cli.training._draw", lambda run, folder: None)


def records(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what takes its time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = {"seconds", "peak_memory", "generation_tokens_per_second", "training_tokens_per_second"}
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def test_a_model_is_trained_and_looked_at(capsys: Any, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code, out, err = call(capsys, "llm", "train", recipe, "--out", folder)
    assert code == 0 and err == "", err
    assert out.startswith("A cycle of tokens: nash_prox, beta = 0.1, step 6 of 6, done") and "wins over reference" in out
    assert {"config.json", "metrics.jsonl", "model", "provenance.json", "result.json", "training.pdf"} <= {
        one.name for one in folder.iterdir()
    }
    run = load_run(folder)
    assert run.evaluations["step"].tolist() == [0, 2, 4, 6] and run.recipe is not None and run.recipe["seed"] == 3
    assert run.provenance["command"] == f"nlhfsim llm train {recipe} --out {folder}" and "torch" in run.provenance["versions"]
    code, out, err = call(capsys, "llm", "show", folder, "--last", 2)
    assert code == 0 and [line.split()[0] for line in out.splitlines() if re.match(r" +\d", line)] == ["4", "6"]
    code, out, err = call(capsys, "llm", "show", folder, "--json")
    shown = json.loads(out)
    assert shown["status"] == "done" and shown["steps"] == 6 and shown["tokens"] == 6 * 3 * 4 * 2
    assert shown["final"] == shown["evaluations"][-1] and len(shown["evaluations"]) == 4
    assert shown["final"]["win_rate_reference"] == run.evaluations["win_rate_reference"][-1]

    page = folder / "report.html"
    assert call(capsys, "report", folder)[0] == 0
    text = page.read_text(encoding="utf-8")
    for words in ("A cycle of tokens: nash_prox, β = 0.1", ">done<", "6 of 6", "data:image/svg+xml", "rock-paper-scissors"):
        assert words in text
    assert text.count("<img") == 1, "the curves of the folder are not shown beside those drawn anew"


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_goes_on_has_the_records_of_one_that_never_stopped(capsys: Any, recipe: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert call(capsys, "llm", "train", recipe, "--out", whole, "--json")[0] == 0
    for steps in (4, 6):
        code, out, err = call(capsys, "llm", "train", recipe, "--out", parts, "--steps", steps, "--json")
        assert code == 0 and out.count("\n") == 1 and json.loads(out)["steps"] == steps, err
    assert records(parts) == records(whole)
    code, _, err = call(capsys, "llm", "train", recipe, "--out", parts, "--no-resume")
    assert code == 2 and "has a run already" in err


@pytest.mark.usefixtures("undrawn")
def test_options_go_before_the_file(capsys: Any, recipe: Path, tmp_path: Path) -> None:
    options = ["--steps", 1, "--seed", 5, "--set", "beta=0.3", "--set", "oracle.noise=0.25", "--set", "gradient-clip=none"]
    code, out, err = call(capsys, "llm", "train", recipe, "--out", tmp_path / "out", *options, "--json")
    found = json.loads(out)
    assert code == 0 and (found["steps"], found["seed"], found["beta"]) == (1, 5, 0.3), err
    run = load_run(tmp_path / "out")
    assert run.recipe is not None and run.recipe["oracle"]["noise"] == 0.25 and run.config["gradient_clip"] is None


def test_without_a_folder_nothing_is_kept_and_that_is_said(capsys: Any, recipe: Path, tmp_path: Path) -> None:
    before = {*tmp_path.iterdir()}
    code, out, err = call(capsys, "llm", "train", recipe, "--steps", 1)
    assert code == 0 and "step 1 of 1, done" in out and {*tmp_path.iterdir()} == before
    assert err == "nlhfsim: warning: without --out nothing is kept, neither the model nor the metrics\n"


def test_mistakes_are_told_all_at_once(capsys: Any, recipe: Path) -> None:
    code, out, err = call(capsys, "llm", "train", recipe, "--set", "betta=1", "--set", "oracle.kind=jugde", "--set", "steps=0")
    assert code == 2 and out == ""
    assert err.splitlines() == [
        f"nlhfsim: {recipe} has 3 mistakes, so nothing was run:",
        "  training.betta: is no field; did you mean 'beta'?",
        "  training.steps: 0 must be at least 1",
        "  oracle.kind: 'jugde' is unknown; did you mean 'judge'?",
    ]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "absent.toml"], "absent.toml"),
        (["train", "{recipe}", "--out", "{recipe}"], "--out"),
        (["train", "{recipe}", "--set", "beta"], "--set 'beta' must be written name=value"),
        (["train", "{recipe}", "--device", "tpu"], "'tpu' is not one of"),
        (["train", "{recipe}", "--set", "allowed_tokens=[40]"], "allowed_tokens has 40"),
        (["show", "absent"], "folder 'absent' is not there"),
        (["show", ".", "--last", "0"], "--last"),
        (["shwo", "."], "No such command 'shwo'"),
    ],
)
def test_bad_input_is_one_sentence(capsys: Any, recipe: Path, arguments: list[str], words: str) -> None:
    code, out, err = call(capsys, "llm", *(one.format(recipe=recipe) for one in arguments))
    lines = [line for line in err.splitlines() if "warning" not in line]
    assert code == 2 and out == "" and len(lines) == 1 and words in lines[0], err


def test_without_torch_training_is_refused_in_one_sentence_and_looking_is_not(recipe: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", [{"kind": "evaluation", "step": 0, "win_rate_reference": 0.5}])
    code = "import sys; sys.modules['torch'] = None; from nlhfsim.cli import main; main(sys.argv[1:])"

    def program(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)

    done = program("llm", "train", recipe, "--out", folder)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "nlhfsim: nlhfsim.llm needs torch: pip install 'nlhfsim[torch]'\n"
    assert program("llm", "--help").returncode == 0
    done = program("llm", "show", folder)
    assert done.returncode == 0 and "step 0 of 9, unfinished" in done.stdout, done.stderr
    assert program("report", folder).returncode == 0 and (folder / "report.html").is_file()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way")
def test_an_interrupted_run_says_how_to_go_on(capsys: Any, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "nlhfsim", "llm", "train", str(recipe), "--out", str(folder)]
    running = subprocess.Popen([*command, "--steps", "1000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while not (folder / "metrics.jsonl").exists() or load_run(folder).last_step < 3:
            assert running.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        code, out, _ = call(capsys, "llm", "show", folder)
        assert code == 0 and "unfinished" in out
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130 and out == "" and "Traceback" not in err
    assert err.startswith("nlhfsim: finishing the step or evaluation under way and saving; again to stop at once\n"), err
    said = re.search(r"stopped after step (\d+) of 1000000", err)
    assert said is not None and "goes on from there" in err, err
    assert load_run(folder).status == "interrupted" and load_run(folder).last_step == int(said[1])
    steps = int(said[1]) + 2
    code, out, _ = call(capsys, "llm", "train", recipe, "--out", folder, "--steps", steps, "--json")
    assert code == 0 and json.loads(out)["steps"] == steps
    assert load_run(folder).steps["step"].tolist() == list(range(1, steps + 1))


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_one_says_that_they_were_interrupted(
    capsys: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, at_once: bool
) -> None:
    """After the step under way, and where a second signal breaks it off."""
    monkeypatch.setenv("RANK", str(rank))

    def fit(trainer: Any, resume: bool) -> None:
        if at_once:
            stop = KeyboardInterrupt()
            stop.add_note("nlhfsim: stopped after step 2 of 6")
            raise stop
        raise KeyboardInterrupt("stopped after step 2 of 6")

    monkeypatch.setattr("nlhfsim.llm.NashTrainer.fit", fit)
    code, out, err = call(capsys, "llm", "train", recipe, "--out", tmp_path / "out")
    told = ["nlhfsim: stopped after step 2 of 6", "nlhfsim: interrupted"]
    assert (code, out, err.split("\n")) == (
        130,
        "",
        ["", ""] if rank else [told[0], "", told[1], ""],
    ), "click ends the line of ^C"


def test_an_exception_in_a_recipe_s_function_ends_with_how_to_go_on(recipe: Path, tmp_path: Path) -> None:
    """It is the user's own mistake, so its traceback is there; and the last line says that nothing is lost."""
    (tmp_path / "mine.py").write_text("def better(prompt, left, right):\n    return 1 / 0\n")
    text, tables = RECIPE.partition("[oracle]")[0], RECIPE.partition("[training]")[2]
    recipe.write_text(
        f'{text}[oracle]\nkind = "function"\nfunction = "mine:better"\n[training]{tables}'.replace("held_out = 2", "")
    )
    command = [sys.executable, "-m", "nlhfsim", "llm", "train", str(recipe), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "ZeroDivisionError: division by zero" in done.stderr
    told = f"nlhfsim: stopped after step 0 of 6; saved in {str(tmp_path / 'out')!r}, the same call goes on from there"
    assert done.stderr.splitlines()[-1] == told, done.stderr


def write_run(folder: Path, found: list[dict[str, Any]], **config: Any) -> Path:
    """A folder as a run writes it."""
    folder.mkdir()
    training = {"method": "nash_prox", "beta": 0.1, "steps": 9, "seed": 0} | config
    (folder / "config.json").write_text(json.dumps({"training": training, "recipe": None}))
    (folder / "metrics.jsonl").touch()
    writer = MetricsWriter(folder / "metrics.jsonl")
    for record in found:
        writer.write(record)
    return folder


def test_a_run_that_has_not_begun_is_shown_and_reported(capsys: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", [])
    code, out, _ = call(capsys, "llm", "show", folder)
    assert code == 0 and "step 0 of 9, unfinished" in out and "there was no evaluation yet" in out
    assert json.loads(call(capsys, "llm", "show", folder, "--json")[1])["evaluations"] == []
    assert call(capsys, "report", folder)[0] == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "There was no evaluation yet." in text and "<img" not in text


def test_a_damaged_run_is_told_by_the_report_too(capsys: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", [])
    (folder / "metrics.jsonl").write_text("{}\n")
    code, _, err = call(capsys, "report", folder)
    assert code == 2 and "metrics.jsonl', line 1 must be an object" in err


def test_the_line_says_where_the_run_is() -> None:
    """Ten seconds a step, and a speed that is not always there; steps before a resumption take no time."""
    said: list[str] = []
    clock = iter([100.0, 110.0, 120.0])
    line = Line(50, said.append, lambda: next(clock))
    line.on_step({"step": 31, "generation_tokens_per_second": None})
    line.on_evaluation({"step": 31, "win_rate_reference": 0.625, "kl_reference": 1.5, "exploitability": None})
    line.on_step({"step": 32, "generation_tokens_per_second": 1234.5})
    assert said == [
        "step 31 of 50, 3 min left",
        "step 32 of 50, win rate 0.625, KL 1.5, 1234 tokens/s, 3 min left",
    ]
    assert [duration(seconds) for seconds in (5.4, 99, 101, 5900, 7260)] == ["5 s", "99 s", "2 min", "98 min", "2 h 1 min"]


def measured(**columns: Any) -> dict[str, Any]:
    length = len(next(iter(columns.values())))
    return {"step": np.arange(length, dtype=float)} | {name: np.asarray(values, dtype=float) for name, values in columns.items()}


def a_run(path: str | None = "a", steps: dict[str, Any] | None = None, **evaluations: Any) -> TrainingRun:
    where = None if path is None else Path(path)
    return TrainingRun(where, "done", {"method": "nash_prox"}, steps=steps or {}, evaluations=measured(**evaluations))


def test_every_measurement_has_its_panel_and_what_was_not_measured_has_none() -> None:
    names = [name for panel in PANELS for name, _ in panel.curves]
    everything = a_run(**{name: [0.5, 0.25, 0.125] for name in names})
    figure = nl.plots.training(everything)
    assert [axes.get_title() for axes in figure.axes] == [panel.title for panel in PANELS]
    for axes, panel in zip(figure.axes, PANELS, strict=True):
        drawn = [list(line.get_ydata()) for line in axes.get_lines()]
        assert drawn.count([0.5, 0.25, 0.125]) == len(panel.curves) and axes.get_yscale() == panel.scale
    some = nl.plots.training(a_run(kl_reference=[0.0, 1.0], win_rate_target=[math.nan, math.nan]))
    assert [axes.get_title() for axes in some.axes] == ["KL in nats a response"]
    assert math.isclose(figure.get_figwidth(), nl.plots.DOUBLE)


def test_win_rates_have_a_band() -> None:
    """One standard error to each side where there is one."""
    run = a_run(win_rate_reference=[0.5, 0.6, 0.7], win_rate_reference_error=[0.05, 0.04, math.nan], kl_reference=[0.1, 0.2, 0.3])
    rates, divergence = nl.plots.training(run).axes
    [band] = rates.collections
    assert not divergence.collections
    corners = {(round(x), round(y, 9)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(0, 0.45), (0, 0.55), (1, 0.56), (1, 0.64)}
    nothing = a_run(win_rate_reference=[0.5], win_rate_reference_error=[math.nan])
    nl.plots.training(nothing).draw_without_rendering()


def test_the_bands_of_two_win_rates_are_told_apart() -> None:
    """The second, of the dashed curve, has no area: its edges are dashed too."""
    both = {f"win_rate_{name}{end}": [0.5, 0.6] for name in ("reference", "target") for end in ("", "_error")}
    [rates] = nl.plots.training(a_run(**both)).axes
    first, second = rates.collections
    assert first.get_facecolor().size and first.get_linewidth() == [0]
    assert not second.get_facecolor().size and second.get_linewidth()[0] > 0
    assert second.get_linestyle() != first.get_linestyle()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_what_the_steps_are_stands_below_the_lowest_panel_of_every_column(count: int) -> None:
    """However full the last row is."""
    chosen = a_run(**{panel.curves[0][0]: [0.5, 0.25] for panel in PANELS[:count]})
    axes = nl.plots.training(chosen).axes
    columns = min(count, 3)
    assert len(axes) == count
    assert [one.get_xlabel() == "Optimizer step" for one in axes] == [k + columns >= count for k in range(count)]


def test_runs_are_told_apart_by_label_and_colour() -> None:
    runs = {"one": a_run(length=[1, 2]), "other": a_run(length=[3, 4])}
    figure = nl.plots.training(runs)
    [axes] = figure.axes
    lines = axes.get_lines()
    assert [line.get_ydata().tolist() for line in lines] == [[1, 2], [3, 4]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "other"]
    shown = [line.get_color() for line in figure.legends[0].get_lines()]
    assert shown == [line.get_color() for line in lines] and len(set(shown)) == 2
    for several, labels in (
        ([a_run("x/a", length=[1]), a_run("x/b", length=[1])], ["a", "b"]),
        ([a_run("x/a", length=[1]), a_run("y/a", length=[1])], ["x/a", "y/a"]),
        ([a_run(None, length=[1]), a_run(None, length=[1])], ["1: nash_prox", "2: nash_prox"]),
    ):
        assert [text.get_text() for text in nl.plots.training(several).legends[0].get_texts()] == labels


def test_many_steps_have_a_moving_mean_over_them() -> None:
    noise = np.random.default_rng(0).normal(size=2000)
    run = a_run(steps=measured(label_entropy=0.5 + 0.1 * noise), length=[1, 2])
    raw, mean = nl.plots.training(run).axes[1].get_lines()
    assert len(raw.get_xdata()) == 2000 and np.std(mean.get_ydata()) < 0.5 * np.std(raw.get_ydata())
    at = len(mean.get_xdata()) // 2
    # A mean of 20 steps stands at their middle.
    inside = np.abs(np.arange(2000) - mean.get_xdata()[at]) < 10
    assert inside.sum() == 20 and mean.get_ydata()[at] == pytest.approx(0.5 + 0.1 * noise[inside].mean())


@pytest.mark.parametrize(
    "runs, words",
    [([], "runs holds 0"), ([3], "not a int"), (a_run(length=[math.nan]), "nothing was measured yet"), ({}, "runs holds 0")],
)
def test_what_cannot_be_drawn_is_refused(runs: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        nl.plots.training(runs)
