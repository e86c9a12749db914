"""Trackers get every finite number of a run, once; what fails is left out, what is missing is told."""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from test_cli_llm import RECIPE, call
from training import train_on

from nlhfsim.errors import ConfigurationError, InputError, MissingExtraError, NlhfsimWarning, UnknownNameError
from nlhfsim.llm import NashTrainer, read_recipe, trackers
from nlhfsim.training_run import load_run


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), purge_orphaned_data=True).Reload()
    return {tag: [(point.step, point.value) for point in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def trainer(tracked: list[Any], out: Path | None, **options: Any) -> NashTrainer:
    return train_on(callbacks=tracked, out=out, evaluate_every=2, **options)


def points(run: Any, kind: str, name: str) -> list[tuple[int, float]]:
    table = getattr(run, kind)
    return [(int(step), value) for step, value in zip(table["step"], table[name]) if math.isfinite(value)]


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_tensorboard_has_the_numbers_of_the_folder(tmp_path: Path) -> None:
    run = trainer(trackers.make(["tensorboard", "tensorboard"]), tmp_path).fit()
    found = events(tmp_path / "tensorboard")
    for tag, kind, name in (
        ("train/loss", "steps", "loss"),
        ("train/kl_target", "steps", "kl_target"),
        ("evaluation/win_rate_reference", "evaluations", "win_rate_reference"),
    ):
        expected = points(run, kind, name)
        assert len(expected) == (6 if kind == "steps" else 4)
        assert [step for step, _ in found[tag]] == [step for step, _ in expected]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert len(found["train/seconds/generation"]) == 6 and "train/step" not in found and "train/kind" not in found


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_a_run_that_goes_on_shows_each_step_once(tmp_path: Path) -> None:
    """Cut off after step 5 with a checkpoint of step 4 only: step 5 is done again."""
    first = trainer(trackers.make(["tensorboard"]), tmp_path, checkpoint_every=4)

    def fails(metrics: Any) -> None:
        if metrics["step"] == 5:
            first.torn = True  # as if it had been killed: nothing is saved
            raise OSError("the power is gone")

    first.callbacks.append(types.SimpleNamespace(on_step=fails))
    with pytest.raises(OSError):
        first.fit()
    second = trainer(trackers.make(["tensorboard"]), tmp_path, checkpoint_every=4)
    run = second.fit()
    found = events(tmp_path / "tensorboard")["train/loss"]
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in found] == pytest.approx(run.steps["loss"].tolist(), rel=1e-6)


class Service(types.ModuleType):
    """What wandb and trackio have in common, as they document it; whatever else is called fails."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.given: list[dict[str, Any]] = []
        self.logged: list[tuple[dict[str, float], int | None]] = []
        self.ended: list[int | None] = []
        self.defined: list[Any] = []
        self.fail_at: int | None = None

    def write(self, numbers: dict[str, float], step: int | None = None) -> None:
        if self.fail_at is not None and len(self.logged) == self.fail_at:
            raise ConnectionError("no route\nto anywhere")
        self.logged.append((dict(numbers), step))


class Wandb(Service):
    def init(self, *, project: str, name: str, id: str, resume: str, config: Any, dir: str | None, settings: Any) -> Any:
        self.given.append(dict(project=project, name=name, id=id, resume=resume, config=config, dir=dir, settings=settings))
        run = types.SimpleNamespace(log=self.write, finish=lambda exit_code=None: self.ended.append(exit_code))
        run.define_metric = lambda name, step_metric=None: self.defined.append((name, step_metric))
        return run


class Trackio(Service):
    def init(self, project: str, name: str | None = None, *, config: Any = None, resume: str = "never") -> None:
        print("* Trackio project initialized")
        self.given.append(dict(project=project, name=name, config=config, resume=resume))

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.write(metrics, step)

    def finish(self) -> None:
        self.ended.append(0)


@pytest.fixture(params=[Wandb, Trackio])
def service(request: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    found = request.param(request.param.__name__.lower())
    monkeypatch.setitem(sys.modules, found.__name__, found)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return found


def test_services_get_the_numbers_and_a_run_that_goes_on_is_the_same_there(service: Any, tmp_path: Path, capsys: Any) -> None:
    for steps in (4, 6):
        run = trainer(trackers.make([service.__name__]), tmp_path / "first", steps=steps).fit()
    steps = [row.get("step", step) for row, step in service.logged if "train/loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6] and service.ended == [0, 0]
    assert [row["train/loss"] for row, _ in service.logged if "train/loss" in row] == run.steps["loss"].tolist()
    wins = [row["evaluation/win_rate_reference"] for row, _ in service.logged if "evaluation/win_rate_reference" in row]
    assert wins == run.evaluations["win_rate_reference"].tolist()
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for row, _ in service.logged for value in row.values())
    first, second = ({key: value for key, value in given.items() if key != "config"} for given in service.given)
    assert first == second and first["resume"] == "allow" and first["project"] == "nlhfsim" and "first" in first["name"]
    assert service.given[0]["config"]["training"]["steps"] == 4
    assert capsys.readouterr().out == ""
    trainer(trackers.make([service.__name__]), tmp_path / "other" / "first", steps=1).fit()
    assert {key: service.given[2][key] for key in ("name", "id") if key in first} != {
        key: first[key] for key in ("name", "id") if key in first
    }, "another folder is another run"


def test_what_was_not_measured_is_left_out(service: Any) -> None:
    [tracker] = trackers.make([service.__name__])
    tracker.on_begin({"out": None, "step": 0, "training": {"method": "nash_prox"}, "recipe": None})
    metrics = {
        "kind": "step",
        "step": 3,
        "loss": math.nan,
        "kl_target": None,
        "queries": 7,
        "seconds": {"oracle": 0.5, "target": math.inf},
    }
    tracker.on_step(metrics)
    [(numbers, _)] = service.logged
    assert {name: value for name, value in numbers.items() if name != "step"} == {"train/queries": 7, "train/seconds/oracle": 0.5}


def test_steps_of_wandb_are_ours(service: Any) -> None:
    trainer(trackers.make([service.__name__]), None, steps=1).fit()
    if isinstance(service, Wandb):
        assert service.defined == [("step", None), ("*", "step")] and all(step is None for _, step in service.logged)
    else:
        assert [step for _, step in service.logged] == [0, 1, 1]


def test_a_service_that_fails_is_left_out(service: Any, tmp_path: Path) -> None:
    service.fail_at = 2
    with pytest.warns(NlhfsimWarning, match=f"^{service.__name__} fails, and is left out from here on: no route$") as warned:
        run = trainer(trackers.make([service.__name__]), tmp_path).fit()
    assert len(warned) == 1 and run.last_step == 6 and len(service.logged) == 2 and service.ended == []


def test_a_service_that_refuses_at_the_start_is_told_before_a_step_is_done(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**given: Any) -> None:
        raise RuntimeError("api_key not configured\nrun login")

    service.init = init
    stopped = trainer(trackers.make([service.__name__]), None)
    with pytest.raises(InputError, match=f"^{service.__name__} cannot begin: api_key not configured$"):
        stopped.fit()
    assert stopped.taken == 0


def test_a_run_that_is_interrupted_ends_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Wandb("wandb")
    monkeypatch.setitem(sys.modules, "wandb", service)

    def stop(metrics: Any) -> None:
        raise OSError("full")

    with pytest.raises(OSError):
        trainer([*trackers.make(["wandb"]), types.SimpleNamespace(on_step=stop)], None).fit()
    assert service.ended == [1]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_what_the_services_are_called_with_is_what_they_take(name: str) -> None:
    """Where the real one is installed, the stand-in above takes no more than it does."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    real = inspect.signature(importlib.import_module(name).init)
    kind = {"wandb": Wandb, "trackio": Trackio}[name]
    assert {*inspect.signature(kind("x").init).parameters} <= {*real.parameters}


@pytest.mark.parametrize("name", trackers.NAMES)
def test_a_library_that_is_missing_is_told_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=f"^tracking by {name} needs it: pip install {name}$"):
        trackers.make([name])


def test_names_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="'tensorbord' is unknown; did you mean 'tensorboard'"):
        trackers.make(["tensorbord"])
    parts = {
        "model": {"new": {"model_type": "qwen2"}},
        "prompts": {"list": [[1]]},
        "oracle": {"kind": "function", "function": "a:b"},
    }
    for given, words in ((["wandv"], "trackers[0]: 'wandv' is unknown"), ("wandb", "trackers: 'wandb' must be a list of names")):
        with pytest.raises(ConfigurationError) as refused:
            read_recipe(parts | {"trackers": given})
        assert words in refused.value.mistakes[0]


def test_tensorboard_without_a_folder_is_refused() -> None:
    with pytest.raises(InputError, match="tensorboard writes files: give the run a folder by out"):
        trainer(trackers.make(["tensorboard"]), None).fit()


def test_the_recipe_and_the_command_line_name_trackers(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlhfsim.cli.training._draw", lambda run, folder: None)
    services = {name: kind(name) for name, kind in (("wandb", Wandb), ("trackio", Trackio))}
    for name, found in services.items():
        monkeypatch.setitem(sys.modules, name, found)
    (tmp_path / "run.toml").write_text('trackers = ["wandb"]\n' + RECIPE, encoding="utf-8")
    options = ["--steps", 1, "--track", "trackio", "--track", "wandb", "--json"]
    code, out, err = call(capsys, "llm", "train", tmp_path / "run.toml", "--out", tmp_path / "out", *options)
    assert code == 0 and json.loads(out)["steps"] == 1, err
    assert [len(found.given) for found in services.values()] == [1, 1]
    assert services["wandb"].given[0]["name"] == "A cycle of tokens"
    assert load_run(tmp_path / "out").recipe["trackers"] == ["wandb"]  # type: ignore[index]
    code, out, err = call(capsys, "llm", "train", tmp_path / "run.toml", "--track", "tensorbord")
    assert code == 2 and out == "" and err.count("\n") == 1 and "tensorbord" in err
