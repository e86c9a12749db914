"""The benchmark for a GPU, at the size that shows that it works: what it counts is right, and what is wrong is caught."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import nlhfsim as nl
from benchmarks import __main__ as command
from benchmarks import gpu
from benchmarks._measure import DisagreementError, Report, Section, as_markdown
from benchmarks.gpu import adapters, agreement, beside_trl, convergence, device, sizes, throughput
from benchmarks.gpu.flops import Operations
from nlhfsim.llm import NashConfig, NashTrainer, oracles

CPU = torch.device("cpu")
QUICK = sizes.sizes(on_gpu=False, quick=True)


@pytest.mark.parametrize(("prompt", "new"), [(5, 3), (8, 24)])
@pytest.mark.parametrize("shape", [sizes.TINY, sizes.TINY_THREE])
def test_operations_are_those_that_torch_counts(shape: sizes.Shape, prompt: int, new: int) -> None:
    """Forward over all tokens, output layer over the response alone, and backward; attention written out, so that it counts."""
    model = shape.build("cpu")
    model.config._attn_implementation = "eager"
    counter = FlopCounterMode(display=False)
    with counter:
        hidden = model.base_model(input_ids=torch.zeros(2, prompt + new, dtype=torch.long), use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, prompt - 1 : -1])
    by_module = counter.get_flop_counts().items()
    # Some versions of transformers write the angles of positions as a product, which is not counted.
    angles = sum(sum(found.values()) for name, found in by_module if name.endswith("rotary_emb"))
    forward, operations = counter.get_total_flops() - angles, Operations.of(model)
    assert forward == 2 * operations.forward(prompt, new)
    with counter:
        logits.float().logsumexp(-1).sum().backward()
    assert counter.get_total_flops() + forward == 2 * operations.training(prompt, new)


@pytest.mark.parametrize(
    ("shape", "weights"), [(sizes.HALF_A_BILLION, 494_032_768), (sizes.FOUR_BILLION, 4_022_468_096)], ids=["0.5B", "4B"]
)
def test_shapes_have_as_many_weights_as_the_models_that_they_are_of(shape: sizes.Shape, weights: int) -> None:
    """Published of Qwen2.5-0.5B and Qwen3-4B. Everything is made where it is to run."""
    model = shape.build("meta")
    assert sum(weight.numel() for weight in model.parameters()) == weights
    assert {one.device.type for one in (*model.parameters(), *model.buffers())} == {"meta"}


def test_sizes_are_whole_everywhere() -> None:
    """Every size is one; what TRL takes at a time divides its prompts, so that its steps are as large as ours."""
    for on_gpu, quick in ((True, False), (False, False), (False, True)):
        found = sizes.sizes(on_gpu, quick)
        assert found.trl_prompts % found.trl_at_once == 0 and found.game_steps % convergence.MARKS == 0
        assert found.game_tokens <= min(shape.vocabulary for shape in found.players)
    full = sizes.sizes(True, False)
    assert full.prompts * full.group == 256 and full.game_tokens**full.game_length == 4096


def test_tokens_that_differ_count_up_to_the_first() -> None:
    left = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]])
    right = torch.tensor([[1, 2, 3, 4], [1, 9, 3, 9], [0, 0, 0, 0]])
    assert agreement.flipped(left, right) == 2 / (4 + 2 + 1)
    assert agreement.flipped(left, left) == 0


def test_rounding_changes_few_tokens_in_bfloat16_and_none_in_float32() -> None:
    """On a processor the fixed cache stands for the graph."""
    drawn = [agreement._drawn(sizes.TINY, "bfloat16", name, (8, 8, 24), CPU) for name in ("eager", "static")]
    assert drawn[0].shape == (64, 24) and 0 <= agreement.flipped(*drawn) < agreement.FLIPPED
    assert [row["flipped"] for row in agreement.decodings(QUICK, CPU)] == [0]


def test_what_decodings_have_in_common_is_told_of_each_model() -> None:
    """By its weights, as torch counts them, and its precision."""
    asked = QUICK._replace(model=sizes.SMALL, precision="bfloat16")
    said = [agreement.told(asked, row) for row in agreement.decodings(asked, CPU)]
    for shape, precision, words in zip((sizes.TINY, sizes.SMALL), ("float32", "bfloat16"), said, strict=True):
        weights = sum(weight.numel() for weight in shape.build("cpu").parameters())
        assert f"16 tokens by {weights:,} weights in {precision}: " in words


def test_decodings_that_disagree_are_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    right = agreement._drawn
    monkeypatch.setattr(agreement, "_drawn", lambda *given: right(*given) + (given[2] == "static"))
    with pytest.raises(DisagreementError, match="static decoding draws another token than eager in 100.00% of cases"):
        agreement.decodings(QUICK, CPU)


def test_a_gradient_that_is_off_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured stays."""
    monkeypatch.setattr(agreement, "LIMITS", {("GPT2", "float64"): 1e-12, ("Qwen2", "float64"): 1e-12})
    found = Section("", {})
    with pytest.raises(DisagreementError, match="the gradient of nash_prox on Qwen2 in float64 differs"):
        agreement.run(found, QUICK, CPU)
    assert [row["pairs"] < row["limit"] for row in found.rows] == [True, False]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["online_ipo", "nash_prox"])
def test_bytes_of_full_training_are_those_of_a_trainer(method: str, precision: str) -> None:
    """Models, masters, AdamW and gradients, counted by what is there at the end of a backward pass, and no tensor twice."""
    config = NashConfig(method=method, precision=precision, max_new_tokens=2, stop_tokens=(), prompts_per_step=1)
    oracle = oracles.rock_paper_scissors(lambda response: response.tokens[0] % 3)
    trainer = NashTrainer(sizes.TINY.build("cpu"), None, oracle, [[0, 1]], config)
    kept: dict[int, torch.Tensor] = {}

    def keep(*tensors: Any) -> None:
        kept.update({one.data_ptr(): one for one in tensors if isinstance(one, torch.Tensor) and one.dim() > 0})

    def collect() -> None:
        policies = trainer.policies
        for name in policies.names:
            with policies.view(name) as model:
                keep(*model.parameters(), *(weight.grad for weight in model.parameters()))
        right()
        keep(*policies.masters.values(), *policies.shadow.values(), *(weight.grad for weight in policies.masters.values()))
        keep(*(value for state in trainer.optimizer.inner.state.values() for value in state.values()))

    trainer.step()
    right, trainer.optimizer.collect = trainer.optimizer.collect, collect  # type: ignore[method-assign]
    trainer.step()
    weights = sum(weight.numel() for weight in trainer.policies.parameters.values())
    assert sum(one.nbytes for one in kept.values()) == adapters.full_bytes(weights, precision, with_target=method == "nash_prox")


def test_exploitability_is_that_of_the_core_and_held_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The game has a cycle and every preference its complement; from raw logits it is the trainer's own report."""
    game = convergence.preferences(QUICK.game_tokens, QUICK.game_length)
    assert 0 <= game.min() and np.allclose(game + np.swapaxes(game, 1, 2), 1)
    assert nl.games.majority_cycles(nl.PreferenceGame(game[0]))
    found = Section("", {})
    convergence.run(found, QUICK, CPU)
    assert [row["method"] for row in found.rows] == ["Online IPO", "Nash Prox"]
    assert all(len(row["path"]) == convergence.MARKS + 1 and np.isfinite(row["kl"]) for row in found.rows)
    assert found.rows[0]["path"][0] == found.rows[1]["path"][0] > convergence.GOAL
    monkeypatch.setattr(convergence, "by_definition", lambda trainer, game: 0.5)
    with pytest.raises(DisagreementError, match="exploitability differs from the right answer"):
        convergence.run(found, QUICK, CPU)


def test_the_larger_model_plays_if_it_has_the_time() -> None:
    both = QUICK._replace(players=(sizes.PLAYER, sizes.TINY))
    assert convergence._player(both, CPU) == sizes.PLAYER
    assert convergence._player(both._replace(game_seconds=0.0), CPU) == sizes.TINY


def test_steps_are_timed_for_the_work_that_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "decodings", lambda *_: [])
    monkeypatch.setattr(throughput, "ceiling", lambda *_: 1e9)
    found = Section("", {})
    throughput.run(found, QUICK, CPU)
    assert [(row["method"], row["decoding"]) for row in found.rows] == [
        (method, decoding) for decoding in ("eager", "static") for method in throughput.METHODS
    ]
    for row in found.rows:
        assert row["step"] > sum(row[phase] for phase in ("generation", "policy")) > 0
        forward = 4 * Operations.of(sizes.TINY.build("cpu")).forward(QUICK.prompt_tokens, QUICK.new_tokens) / 1e9
        seconds = sum(row[phase] for phase in ("anchors", "policy", "optimizer", "target"))
        anchors = {"Online IPO": 1, "Nash Prox": 2}[row["method"]]
        assert row["share"] == pytest.approx((3 + anchors) * forward / seconds)
        assert row["anchors_share"] == pytest.approx(anchors * forward / row["anchors"])
        assert row["policy_share"] == pytest.approx(3 * forward / row["policy"])
        assert row["generated"] * row["generation"] == pytest.approx(16) == row["trained"] * seconds
    with pytest.raises(DisagreementError, match="a step made 15 tokens instead of 16"):
        throughput._ensure_done(QUICK, {"length": QUICK.new_tokens, "loss": 0.1}, 15)
    with pytest.raises(DisagreementError, match="not finite"):
        throughput._ensure_done(QUICK, {"length": QUICK.new_tokens, "loss": float("nan")}, 16)


def test_a_ceiling_is_operations_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((0.5, 0.25, 1.0))
    monkeypatch.setattr(device, "_elapsed", lambda work, where: next(seconds))
    assert device.ceiling(CPU, 10, torch.float32, repeats=3, products=4) == 2 * 1000 * 4 / 0.25


def test_what_a_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU that is made up: its own clock in milliseconds, its name, driver, and memory."""
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("record")

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, end: Any) -> float:
            return 250.0

    made_up = {
        "is_available": lambda: True,
        "synchronize": lambda: done.append("all"),
        "empty_cache": lambda: done.append("empty"),
        "reset_peak_memory_stats": lambda: done.append("forget"),
        "max_memory_allocated": lambda: 5 * 10**9,
        "get_device_properties": lambda number: SimpleNamespace(name="Made Up", total_memory=141 * 10**9),
        "get_device_capability": lambda: (9, 0),
        "Event": Event,
    }
    for name, value in made_up.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(device.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="580.95\n"))
    assert device._elapsed(lambda: done.append("work"), torch.device("cuda")) == 0.25
    assert done == ["record", "work", "record", "wait"] and device.device().type == "cuda"
    assert device.timed(lambda: 7)[0] == 7 and done[4:] == ["all", "all"]
    device.free()
    assert device.peak() == 5 and done[6:] == ["empty", "forget"]
    found = device.described()
    assert (found["gpu"], found["memory_gb"], found["compute"], found["driver"]) == ("Made Up", 141, "9.0", "580.95")
    report = Report("gpu", "Language models on one GPU", {})
    gpu._set_up(report, True, found, {})
    assert report.title.endswith("one GPU: Made Up") and "driver 580.95" in report.notes[0]


def test_trl_takes_as_many_at_a_time_as_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def by_trl(work: Any, steps: int, **settings: Any) -> list[float]:
        tried.append(work.at_once)
        if work.at_once > 2:
            raise torch.OutOfMemoryError("no")
        assert settings == ({} if len(tried) == 1 else {"logging_strategy": "no", "gradient_checkpointing": False})
        return [2.0, 4.0, 3.0]

    monkeypatch.setattr(beside_trl, "by_trl", by_trl)
    monkeypatch.setattr(beside_trl, "by_nlhfsim", lambda *_: [1.0, 2.0, 1.5])
    monkeypatch.setattr(beside_trl, "missing_library", lambda: None)
    found, report = Section("", {}), Report("gpu", "", {})
    beside_trl.run(found, QUICK._replace(trl_prompts=8, trl_at_once=2), CPU)
    assert tried == [2, 8, 4, 2] and [row["ratio"] for row in found.rows] == [1, 1, 2, 2]
    beside_trl.aims(report, found)
    assert [(target["measured"], target["met"]) for target in report.targets] == [(2, False), (2, False)]


def test_aims_are_held_against_the_fast_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are meant: on a GPU, at full size."""
    report, found = Report("gpu", "", {}), Section("", {})
    rows = ((1.0, 0.9, 99.0), (1.0, 0.9, 99.0), (2.0, 0.31, 90_000.0), (2.2, 0.2, 1.0))
    rows_of = found.rows = [{"step": step, "share": share, "generated": speed} for step, share, speed in rows]
    throughput.aims(report, found)
    convergence.aims(report, SimpleNamespace(rows=[{"path": [1.0, 0.5]}, {"path": [1.0, 0.02]}]))  # type: ignore[arg-type]
    assert [target["met"] for target in report.targets] == [True, True, True, False]
    monkeypatch.setattr(throughput, "run", lambda found, *_: found.rows.extend(rows_of))
    for hold in (True, False):
        again = Report("gpu", "", {})
        gpu._section(again, "throughput", None, None, hold=hold)
        assert len(again.targets) == 3 * hold and not again.failed
    assert [target["measured"] for target in report.targets] == pytest.approx([90_000, 0.31, 0.1, 0.02])


def test_a_section_that_fails_does_not_lose_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a row, what it had found is kept, and the command fails; each is written before the next begins."""

    def fails(found: Section, *_: Any) -> None:
        found.columns, found.rows = {"step": "s a step"}, [{"step": 3.0}]
        assert [row["section"] for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]] == ["crosscheck"]
        raise torch.OutOfMemoryError("of 80 GB\nand more")

    monkeypatch.setattr(agreement, "LIMITS", {("GPT2", "float64"): 1e-12})
    monkeypatch.setattr(throughput, "run", fails)
    monkeypatch.setattr(command, "_ONE_THREAD", {})
    given = ["gpu", "--quick", "--out", str(tmp_path)]
    assert command.main([*given, "--section", "lora", "--section", "throughput", "--section", "crosscheck"]) == 1
    written = json.loads((tmp_path / "gpu.json").read_text())
    outcomes = {row["section"]: row.get("outcome") for row in written["rows"]}
    assert outcomes == {"crosscheck": "done", "throughput": "FAILED: OutOfMemoryError: of 80 GB", "lora": "done", "all": None}
    assert written["failed"] and written["targets"] == [] and written["settings"]["device"]["gpu"] is None
    text = (tmp_path / "gpu.md").read_text()
    assert gpu.NO_GPU in text and "not run on one" in text.splitlines()[0]
    heads = [line for line in text.splitlines() if line.startswith("### ")]
    assert gpu.ONLY_WORKS in text and all(", quick: only to see that it works (" in head for head in heads)
    assert "| 3        |" in text and "### Low-rank adapters of rank 16" in text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_section_runs_on_a_gpu(tmp_path: Path) -> None:
    """At the small size, decoding by a graph; no aim is held there."""
    report = gpu.run(quick=True, out=tmp_path)
    assert not report.failed, report.rows
    assert report.targets == [] and report.settings["sizes"]["decodings"] == ("eager", "graph")


def test_what_takes_too_long_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BUDGET", 0.0)
    report = gpu.run(quick=True, out=tmp_path, sections=["lora"])
    assert report.notes[-1].startswith("TOO SLOW: all sections together took")
    assert not report.failed and "| of adapters |" in as_markdown(report)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["gpu", "--section", "nothing"], "--section nothing must be one of crosscheck, throughput, convergence, trl, lora"),
        (["gpu", "steps", "--section", "lora"], "--section lora belongs to the part gpu"),
        (["--section", "lora"], "--section lora belongs to the part gpu"),
    ],
)
def test_sections_that_there_are_not_are_refused(
    given: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "_ONE_THREAD", {})
    with pytest.raises(SystemExit):
        command.main([*given, "--out", str(tmp_path)])
    assert message in capsys.readouterr().err
