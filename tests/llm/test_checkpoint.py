"""Checkpoints: a run that was broken off, in any way, goes on to the bits of one that was not; damage and strangers are refused.

Truth: the same run undisturbed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small import gpt2, qwen2
from training import PROMPTS, assert_same_state, copied, same, state_of, timeless, train_on

import nlhfsim.llm.checkpoint as checkpoint
from nlhfsim.errors import DataError, InputError
from nlhfsim.llm import NashTrainer, load_run, methods
from nlhfsim.llm.record import MetricsWriter

EVERY: dict[str, Any] = dict(checkpoint_every=2, evaluate_every=3, steps=6)


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `save_pretrained` writes is tested with the policies, and would take a third of the time here."""
    monkeypatch.setattr(NashTrainer, "save_model", lambda self, folder: folder)


class Crash(Exception):
    """Power fails."""


class At:
    """A callback that does something after a step is recorded."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step, self.action = step, action

    def on_step(self, metrics: dict[str, Any]) -> None:
        if metrics["step"] == self.step:
            self.action()


def crash() -> None:
    raise Crash


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [timeless(json.loads(line)) for line in lines]


def crashed(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    """Train until a step, and leave the folder as it is then: nothing is saved on the way out."""
    with monkeypatch.context() as patched:
        patched.setattr(NashTrainer, "_stop", lambda *_, **__: "")
        with pytest.raises(Crash):
            train_on(out=folder, callbacks=[At(step, crash)], **given).fit()


def undisturbed(folder: Path, **given: Any) -> NashTrainer:
    trainer = train_on(out=folder, **given)
    trainer.fit()
    return trainer


CASES: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in methods.names()},
    "refresh": {"refresh_every": 3},
    "bfloat16": {"precision": "bfloat16"},
    "token": {"kl_estimator": "token", "schedule": "cosine", "warmup_steps": 2},
    "exact": {"feedback": "exact"},
    "sgd": {"optimizer": "sgd", "micro_batch_prompts": 1, "generation_batch": 4},
}


@pytest.mark.parametrize("name", list(CASES))
def test_a_resumed_run_has_the_same_bits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = EVERY | CASES[name]
    whole = undisturbed(tmp_path / "whole", **given)
    crashed(tmp_path / "broken", 5, monkeypatch, **given)
    resumed = train_on(out=tmp_path / "broken", **given)
    run = resumed.fit()
    assert_same_state(state_of(whole), state_of(resumed))
    assert records(tmp_path / "broken") == records(tmp_path / "whole")
    assert [row["step"] for row in records(tmp_path / "broken") if row["kind"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in records(tmp_path / "broken") if row["kind"] == "evaluation"] == [0, 3, 6]
    assert run.status == "done" and run.steps["step"].tolist() == [1, 2, 3, 4, 5, 6]
    weights = [tmp_path / one / "checkpoints" / "step-00000006" / "policy.safetensors" for one in ("broken", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


LOST = {
    "generator": lambda found: found._replace(state=found.state | {"generators": [fresh_generator()]}),
    "position": lambda found: found._replace(state=found.state | {"position": 0}),
    "target": lambda found: found._replace(target=found.policy),
    "memory": lambda found: found._replace(optimizer=found.optimizer | {"state": {}}),
    "voter": lambda found: found._replace(state=found.state | {"voters": [fresh_voter()]}),
}


def fresh_generator() -> str:
    return torch.Generator().manual_seed(99).get_state().numpy().tobytes().hex()


def fresh_voter() -> Any:
    return train_on(seed=5).estimator.voter.bit_generator.state


@pytest.mark.parametrize("lost", list(LOST))
def test_what_a_checkpoint_must_hold(lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part left out is noticed by the comparison of bits."""
    load = checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda path: LOST[lost](load(path)))
    with pytest.raises(AssertionError, match="differs"):
        test_a_resumed_run_has_the_same_bits("nash_prox", tmp_path, monkeypatch)


BROKEN_OFF = """
import os, signal, sys, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_checkpoint import At, EVERY
from training import train_on
folder = Path(sys.argv[1])
def end(how):
    if how == "SIGKILL":
        with open(folder / "metrics.jsonl", "a") as file:
            file.write('{"kind": "step", "st')
    os.kill(os.getpid(), getattr(signal, how))
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
for how, step in (("SIGKILL", 3), ("SIGINT", 5)):
    child = os.fork()
    if child == 0:
        train_on(out=folder, callbacks=[At(step, lambda: end(how))], **EVERY).fit()
        sys.exit()
    _, status = os.waitpid(child, 0)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    print(how, os.waitstatus_to_exitcode(status), *names, (folder / "result.json").exists(), flush=True)
"""


def test_killed_then_interrupted_in_processes_of_their_own(tmp_path: Path) -> None:
    """`kill -9` after step 3, which loses step 3 and half a line; then Ctrl-C after step 5; then to the end."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    folder = tmp_path / "broken"
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_OFF, str(folder)],
        env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == [
        f"SIGKILL {-signal.SIGKILL} step-00000002 False",
        f"SIGINT {-signal.SIGINT} step-00000004 step-00000005 True",
    ], done.stderr
    assert "\nKeyboardInterrupt: stopped after step 5 of 6; saved in " in done.stderr
    assert load_run(folder).status == "interrupted" and load_run(folder).last_step == 5
    whole, resumed = undisturbed(tmp_path / "whole", **EVERY), undisturbed(folder, **EVERY)
    assert_same_state(state_of(whole), state_of(resumed))
    assert records(folder) == records(tmp_path / "whole") and load_run(folder).status == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    trainer = train_on(out=tmp_path, callbacks=[At(3, lambda: os.kill(os.getpid(), number))], **EVERY)
    with pytest.raises(KeyboardInterrupt, match=r"^stopped after step 3 of 6; saved in '.*', the same call goes on from there$"):
        trainer.fit()
    told = "nlhfsim: finishing the step or evaluation under way{}; again to stop at once\n"
    assert signal.getsignal(number) == before and trainer.taken == 3
    assert capsys.readouterr().err == told.format(" and saving")
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"
    assert checkpoint.found(tmp_path)[-1].name == "step-00000003"
    with pytest.raises(KeyboardInterrupt, match="^stopped after step 3 of 6$"):
        train_on(callbacks=[At(3, lambda: os.kill(os.getpid(), number))], **EVERY).fit()
    assert capsys.readouterr().err == told.format("")


def test_an_interruption_is_told_at_once_also_in_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is finished and saved too."""
    trainer = train_on(out=tmp_path, **EVERY)
    evaluate = trainer.evaluate

    def interrupted() -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        assert "finishing the step or evaluation under way and saving" in capsys.readouterr().err
        return evaluate()

    trainer.evaluate = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt, match="stopped after step 0 of 6; saved in "):
        trainer.fit()
    assert load_run(tmp_path).evaluations["step"].tolist() == [0]


def test_interrupted_twice_is_interrupted_at_once(tmp_path: Path) -> None:
    """In the middle of a step, whose changes are taken back: what is saved is the step before."""

    class Impatient:
        def __init__(self, oracle: Any) -> None:
            self.oracle = oracle

        def compare(self, *pairs: Any) -> Any:
            if trainer.taken == 3 and trainer.stream.position == 8:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return self.oracle.compare(*pairs)

    given = EVERY | {"evaluate_every": None}
    whole = undisturbed(tmp_path / "whole", **given)
    trainer = train_on(oracle=Impatient(whole.estimator.oracle), out=tmp_path / "broken", **given)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.taken == 3 and checkpoint.found(tmp_path / "broken")[-1].name == "step-00000003"
    assert_same_state(state_of(whole), state_of(undisturbed(tmp_path / "broken", **given)))
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


@pytest.mark.parametrize("where", ["step", "restore"])
def test_broken_off_while_weights_change_is_not_saved(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = EVERY | {"method": "extragradient" if where == "restore" else "nash_prox"}
    whole = undisturbed(tmp_path / "whole", **given)
    trainer = train_on(out=tmp_path / "broken", **given)
    original = getattr(trainer.optimizer, where)

    def broken(*arguments: Any) -> Any:
        if trainer.taken == 3:
            with torch.no_grad():
                next(iter(trainer.policies.masters.values())).add_(1.0)
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(trainer.optimizer, where, broken)
    with pytest.raises(KeyboardInterrupt) as failed:
        trainer.fit()
    assert not hasattr(failed.value, "__notes__"), "that all is saved would be untrue"
    assert [path.name for path in checkpoint.found(tmp_path / "broken")] == ["step-00000002"]
    assert_same_state(state_of(whole), state_of(undisturbed(tmp_path / "broken", **given)))
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


def test_a_thread_trains_too(tmp_path: Path) -> None:
    """Signals can be caught in the main thread alone."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(train_on(out=tmp_path, steps=1).fit()))
    thread.start()
    thread.join()
    assert found[0].status == "done"


@pytest.mark.parametrize("step", [3, 6])
def test_a_record_that_cannot_be_written(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is done again by the run that goes on: a checkpoint has no step that is not recorded."""
    whole = undisturbed(tmp_path / "whole", **EVERY)
    write = MetricsWriter.write

    def full(self: MetricsWriter, record: Any) -> None:
        if record["kind"] == "step" and record["step"] == step:
            raise DataError("'metrics.jsonl' cannot be written: No space left on device")
        write(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(MetricsWriter, "write", full)
        with pytest.raises(DataError, match="No space left"):
            train_on(out=tmp_path / "broken", **EVERY).fit()
    resumed = undisturbed(tmp_path / "broken", **EVERY)
    assert_same_state(state_of(whole), state_of(resumed))
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


@pytest.mark.parametrize("step", [3, 6])
def test_an_evaluation_that_fails_is_done_when_the_run_goes_on(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = undisturbed(tmp_path / "whole", **EVERY)
    evaluate = NashTrainer.evaluate
    with monkeypatch.context() as patched:
        patched.setattr(NashTrainer, "evaluate", lambda self: crash() if self.taken == step else evaluate(self))
        with pytest.raises(Crash):
            train_on(out=tmp_path / "broken", **EVERY).fit()
    assert_same_state(state_of(whole), state_of(undisturbed(tmp_path / "broken", **EVERY)))
    assert records(tmp_path / "broken") == records(tmp_path / "whole")


def cut(path: Path, left: int = 40) -> None:
    path.write_bytes(path.read_bytes()[:left])


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "no state": lambda folder: (folder / "state.json").unlink(),
    "half a state": lambda folder: cut(folder / "state.json"),
    "an empty state": lambda folder: (folder / "state.json").write_text("{}"),
    "a state of another kind": lambda folder: (folder / "state.json").write_text("[1, 2]"),
    "half of the weights": lambda folder: cut(folder / "policy.safetensors", 5000),
    "a few bytes of weights": lambda folder: cut(folder / "policy.safetensors", 4),
    "no weights": lambda folder: (folder / "policy.safetensors").unlink(),
    "no target": lambda folder: (folder / "target.safetensors").unlink(),
    "half an optimizer": lambda folder: cut(folder / "optimizer.pt", 5000),
    "an empty optimizer": lambda folder: cut(folder / "optimizer.pt", 0),
    "an optimizer of another kind": lambda folder: (folder / "optimizer.pt").write_text("hello"),
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(),
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


def test_damage_is_told_and_an_older_one_is_there(tmp_path: Path) -> None:
    given = EVERY | {"steps": 4}
    whole = undisturbed(tmp_path / "whole", **given)
    for name, damage in DAMAGE.items():
        folder = tmp_path / name
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder / "checkpoints" / "step-00000004")
        trainer = train_on(out=folder, **given)
        before = state_of(trainer)
        with pytest.raises(DataError, match=r"step-00000004' .*; remove it to go on from an older one$") as caught:
            trainer.fit()
        assert "\n" not in str(caught.value), name
        assert_same_state(before, state_of(trainer))
        shutil.rmtree(folder / "checkpoints" / "step-00000004")
        trainer.fit()
        assert_same_state(state_of(whole), state_of(trainer))
        assert records(folder) == records(tmp_path / "whole")


def test_a_half_written_checkpoint_is_none(tmp_path: Path) -> None:
    whole = undisturbed(tmp_path / "run", **EVERY)
    latest = checkpoint.found(tmp_path / "run")[-1]
    shutil.copytree(latest, latest.with_name(".step-00000007.part"))
    assert checkpoint.found(tmp_path / "run")[-1] == latest
    whole.save()
    assert sorted(path.name for path in latest.parent.iterdir()) == [".step-00000007.part", "step-00000004", "step-00000006"]


STRANGERS: dict[str, tuple[dict[str, Any], str]] = {
    "fields": (
        {"beta": 0.3, "seed": 4},
        r"of another configuration: beta = 0\.1 there, 0\.3 here, seed = 0 there, 4 here; take ",
    ),
    "tuples": ({"stop_tokens": (2,)}, r"stop_tokens = \[\] there, \[2\] here"),
    "schedule": ({"schedule": "linear"}, "schedule = constant there, linear here"),
    "model": ({"model": gpt2(seed=1)}, "is of another model: take another folder, or the same model"),
    "family": ({"model": qwen2()}, "is of another model"),
    "prompts": ({"prompts": [*PROMPTS, [1]]}, "is of another set of prompts: take another folder"),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps."""
    folder = tmp_path_factory.mktemp("done")
    undisturbed(folder, **(EVERY | {"steps": 4}))
    return folder


@pytest.mark.parametrize("name", list(STRANGERS))
def test_strangers_are_refused(name: str, done: Path, tmp_path: Path) -> None:
    given, right = STRANGERS[name]
    shutil.copytree(done, tmp_path / "run")
    trainer = train_on(out=tmp_path / "run", **(EVERY | {"steps": 4} | given))
    before, metrics = state_of(trainer), (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=right):
        trainer.fit()
    assert_same_state(before, state_of(trainer))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


def test_a_run_can_be_made_longer(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "run")
    longer = undisturbed(tmp_path / "run", **EVERY)
    whole = undisturbed(tmp_path / "whole", **EVERY)
    assert_same_state(state_of(whole), state_of(longer))
    with pytest.raises(InputError, match="steps = 6 there, 8 here"):
        undisturbed(tmp_path / "linear", **(EVERY | {"schedule": "linear"}))
        train_on(out=tmp_path / "linear", **(EVERY | {"schedule": "linear", "steps": 8})).fit()


def test_a_finished_run_is_left_as_it_is(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "run")
    run = train_on(out=tmp_path / "run", **(EVERY | {"steps": 4})).fit()
    assert run.status == "done" and records(tmp_path / "run") == records(done)
    seconds = [json.loads((folder / "result.json").read_text())["seconds"] for folder in (done, tmp_path / "run")]
    assert seconds[1] >= seconds[0]


def test_a_used_folder_is_refused_without_resuming(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "run")
    with pytest.raises(InputError, match=r"out '.*run' has a run already: resume it \(resume = True\), or choose another folder"):
        train_on(out=tmp_path / "run", **(EVERY | {"steps": 4})).fit(resume=False)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(InputError, match="has a run already"):
        train_on(out=tmp_path / "run", **(EVERY | {"steps": 4})).fit(resume=False)
    assert train_on(out=tmp_path / "new", steps=1).fit(resume=False).last_step == 1
    with pytest.raises(InputError, match="resume = 'auto' must be True or False"):
        train_on(steps=1).fit(resume="auto")  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_are_kept(keep: int, tmp_path: Path) -> None:
    undisturbed(tmp_path, steps=5, checkpoint_every=1, keep_checkpoints=keep)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{k:08d}" for k in range(6 - keep, 6)]


def test_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the system refuses to write on, in the middle of a file."""
    trainer = train_on(out=tmp_path, **EVERY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    trainer.callbacks.append(At(3, limit))
    try:
        with pytest.raises(DataError, match=r"checkpoint '.*step-00000004' cannot be written: ") as caught:
            trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    whole = train_on(**EVERY)
    whole.fit()
    assert_same_state(state_of(whole), state_of(undisturbed(tmp_path, **EVERY)))


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", ""):
        with pytest.raises(InputError, match="out '.*' must be a folder, or the name of one to be made"):
            train_on(out=out)
    with pytest.raises(DataError, match="out '.*' cannot be written: Not a directory"):
        train_on(out=tmp_path / "file" / "below")
    with pytest.raises(InputError, match="out must be given to save a checkpoint"):
        train_on().save()


def test_saving_and_going_back_by_hand(tmp_path: Path) -> None:
    trainer = train_on(out=tmp_path)
    trainer.step()
    path, before = trainer.save(), state_of(trainer)
    later = [timeless(trainer.step()) for _ in range(2)]
    weights = copied(trainer.policies.masters)
    trainer.load(path)
    assert_same_state(before, state_of(trainer))
    assert [timeless(trainer.step()) for _ in range(2)] == later and same(weights, trainer.policies.masters)
    with pytest.raises(DataError, match="cannot be read"):
        trainer.load(tmp_path / "nothing")
    with pytest.raises(InputError, match="path = None must be the path of a file or folder"):
        trainer.load(None)
