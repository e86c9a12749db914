"""The trainer as a whole: micro-batches, steps without verdicts, failures, events, limits of models, memory, convergence.

Truth: the whole batch for its parts; the state before for what fails; the exact equilibrium for where it ends.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import MODELS, cyclic_oracle, gpt2
from tokenizers import Tokenizer, models, pre_tokenizers
from training import PROMPTS, SMALL, Untrustworthy, assert_same_state, copied, same, state_of, timeless, train_on
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, Qwen2Config

import nlhfsim.llm.estimate as estimate
import nlhfsim.llm.policy as policy_module
from nlhfsim.errors import DataError, InputError, NlhfsimWarning, OracleError, UnknownNameError
from nlhfsim.llm import NashConfig, NashTrainer, checkpoint, load_run, methods, oracles
from nlhfsim.llm.optimizer import Optimizer
from nlhfsim.training_run import TrainingRun


def gradient_of(monkeypatch: pytest.MonkeyPatch, **given: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The masters' gradient of a first step, from a policy that has left the reference, and the step's record."""
    found: list[dict[str, torch.Tensor]] = []

    def keep(self: Optimizer, taken: int) -> tuple[float, float]:
        found.append({name: w.grad.clone() for name, w in self.policies.masters.items() if w.grad is not None})
        self.clear()
        return 1.0, 1.0

    trainer = train_on(**given)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainer.policies.masters.values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator).to(weight.dtype))
    trainer.policies.publish()
    with monkeypatch.context() as patched:
        patched.setattr(Optimizer, "step", keep)
        row = trainer.step()
    return found[-1], row


PARTS: list[dict[str, Any]] = [
    {"method": "nash_prox"},
    {"method": "nash_md"},
    {"method": "extragradient"},
    {"kl_estimator": "token"},
    {"method": "nash_md", "kl_estimator": "token"},
    {"feedback": "exact"},
]


@pytest.mark.parametrize(("given", "valid"), [*((given, True) for given in PARTS), *((given, False) for given in PARTS[:-1])])
def test_parts_of_a_batch_are_the_batch(given: dict[str, Any], valid: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if verdicts are missing unevenly: the mean is over all pairs that have one, not a mean of means."""
    oracle = cyclic_oracle(3, 2)
    if not valid:
        oracle = Untrustworthy(oracle, lambda call, k: k % 5 not in (0, 1) and k > 3)  # type: ignore[assignment]
    shared = {"oracle": oracle, "prompts_per_step": 4, "precision": "float64"} | given
    whole, row = gradient_of(monkeypatch, **shared)
    for at_once in (1, 3):
        parts, other = gradient_of(monkeypatch, micro_batch_prompts=at_once, **shared)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-9, atol=1e-14)
        assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-4
        for name in ("loss", "kl_reference", "kl_target", "entropy"):
            assert other.get(name) == (None if row.get(name) is None else pytest.approx(row[name], rel=1e-9, abs=1e-12))


def test_a_mean_of_means_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = estimate.Estimator._micro_batch

    def wrong(self: Any, responses: Any, centred: Any, valid: Any, pairs: int, count: int) -> Any:
        parts = len(self.policies.masters) and 4 // (self.config.micro_batch_prompts or 4)
        return original(self, responses, centred, valid, max(1, int(valid.sum())) * max(1, parts), count)

    monkeypatch.setattr(estimate.Estimator, "_micro_batch", wrong)
    with pytest.raises(AssertionError, match="not close"):
        test_parts_of_a_batch_are_the_batch({"method": "nash_prox"}, False, monkeypatch)


def test_gradients_in_bfloat16_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The masters' gradient is the float32 sum of the micro-batches' in bfloat16; a sum in bfloat16 is another."""
    parts: list[dict[str, torch.Tensor]] = []
    collect = Optimizer.collect

    def spy(self: Optimizer) -> None:
        parts.append({name: w.grad.clone() for name, w in self.policies.parameters.items() if w.grad is not None})
        collect(self)

    monkeypatch.setattr(Optimizer, "collect", spy)
    given: dict[str, Any] = {"precision": "bfloat16", "prompts_per_step": 4, "micro_batch_prompts": 1, "method": "online_ipo"}
    found, _ = gradient_of(monkeypatch, **given)
    assert len(parts) == 4 and {g.dtype for part in parts for g in part.values()} == {torch.bfloat16}
    rounded = False
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, sum((part[name].float() for part in parts[1:]), parts[0][name].float()))
        rounded |= not torch.equal(gradient, sum((part[name] for part in parts[1:]), parts[0][name]).float())
    assert rounded


@pytest.mark.parametrize("estimator", ["pair", "token"])
def test_anchors_are_read_once(estimator: str) -> None:
    """Their sums and the KL at every token come from one forward pass of each micro-batch."""
    trainer = train_on(method="nash_prox", kl_estimator=estimator, micro_batch_prompts=1)
    passes: dict[str, int] = {}
    for name in ("reference", "target"):
        with trainer.policies.view(name) as model:
            model.base_model.register_forward_hook(lambda *_, name=name: passes.update({name: passes.get(name, 0) + 1}))
    trainer.step()
    assert passes == {"reference": 2, "target": 2}


SAMPLED = [*methods.names(), "token"]


def fields_of(name: str) -> dict[str, Any]:
    return {"kl_estimator": "token"} if name == "token" else {"method": name}


@pytest.mark.filterwarnings("ignore:no pair of a step had a verdict")
@pytest.mark.parametrize("name", SAMPLED)
def test_a_step_without_a_verdict_moves_nothing(name: str) -> None:
    """Not by the optimizer's momentum either, nor by the KL alone; it is counted, and the run goes on."""
    oracle = Untrustworthy(cyclic_oracle(3, 2), lambda call, k: trainer.taken != 2)
    trainer = train_on(oracle=oracle, steps=4, **fields_of(name))
    rows = [trainer.step() for _ in range(2)]
    before = state_of(trainer)
    row = trainer.step()
    after = state_of(trainer)
    for part in ("weights", "model", "memory", "gradients"):
        assert_same_state({part: before[part]}, after)
    assert (row["step"], row["invalid"], row["gradient_norm"], row["learning_rate"]) == (3, 1.0, 0.0, 0.0)
    assert math.isnan(row["loss"]) and math.isnan(row["label_entropy"]) and "usable" not in row
    assert row["queries"] > rows[-1]["queries"] and row["kl_reference"] is not None
    last = trainer.step()
    assert last["step"] == 4 and last["invalid"] == 0 and not same(before["weights"], copied(trainer.policies.masters))


def test_momentum_is_what_would_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect that is avoided: a gradient of zeros given to AdamW."""
    import nlhfsim.llm.steps as steps

    monkeypatch.setattr(steps, "_usable", lambda *_: True)
    with pytest.raises(AssertionError, match="weights differs"):
        test_a_step_without_a_verdict_moves_nothing("online_ipo")


def test_missing_verdicts_are_counted() -> None:
    """Two prompts with four responses each; every third pair that is asked has none."""
    oracle = Untrustworthy(cyclic_oracle(3, 2), lambda call, k: k % 3 != 0)
    row = train_on(oracle=oracle).step()
    assert oracle.calls == 1 and 3 < row["queries"] <= 12
    assert row["invalid"] == pytest.approx(math.ceil(row["queries"] / 3) / row["queries"])


def test_missing_verdicts_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in their place is not read: certain wins and NaN give the same gradient."""

    class Both:
        def __init__(self, value: float) -> None:
            self.value = value

        def compare(self, prompts: Any, left: Any, right: Any) -> oracles.Verdicts:
            found = cyclic_oracle(3, 2).compare(prompts, left, right)
            valid = np.arange(len(prompts)) % 3 != 0
            return oracles.Verdicts(np.where(valid, found.probabilities, self.value), valid)

    one, other = (gradient_of(monkeypatch, oracle=Both(value))[0] for value in (1.0, math.nan))
    assert same(one, other)


BAD: dict[str, tuple[Any, str]] = {
    "NaN": (lambda n: np.full(n, np.nan), r"probabilities\[0\] = nan must lie in \[0, 1\]"),
    "too large": (lambda n: np.full(n, 1.5), r"probabilities\[0\] = 1.5 must lie in \[0, 1\]"),
    "negative": (lambda n: np.full(n, -0.5), r"probabilities\[0\] = -0.5 must lie"),
    "too many": (lambda n: np.full(n + 1, 0.5), r"returned probabilities of shape"),
    "one number": (lambda n: 0.5, r"returned .*0.5.* as probabilities, must be an array of"),
    "words": (lambda n: ["left"] * n, r"= 'left' must be a number"),
    "an exception": (lambda n: {}["judge"], "judge"),
}


@pytest.mark.parametrize("name", list(BAD))
@pytest.mark.parametrize("method", ["nash_prox", "extragradient"])
def test_a_bad_answer_leaves_everything_as_before(name: str, method: str, tmp_path: Path) -> None:
    answer, right = BAD[name]
    good = cyclic_oracle(3, 2)
    calls = itertools.count()
    first_bad = 2 if method == "nash_prox" else 5

    class Oracle:
        def compare(self, prompts: Any, left: Any, right: Any) -> Any:
            return answer(len(prompts)) if next(calls) == first_bad else good.compare(prompts, left, right)

    trainer = train_on(oracle=Oracle(), method=method, out=tmp_path / "run")
    trainer.step()
    trainer.step()
    before = state_of(trainer)
    with pytest.raises(KeyError if name == "an exception" else InputError, match=right) as caught:
        trainer.step()
    assert_same_state(before, state_of(trainer))
    if name != "an exception":
        assert "Oracle.compare" in str(caught.value) and "\n" not in str(caught.value)
    undisturbed = train_on(oracle=good, method=method)
    rows = [timeless(undisturbed.step()) for _ in range(3)]
    assert timeless(trainer.step()) == rows[-1]
    assert_same_state(state_of(undisturbed), state_of(trainer))


def test_a_failure_in_fit_is_saved_and_goes_on(tmp_path: Path) -> None:
    good = cyclic_oracle(3, 2)
    whole = train_on()
    whole.fit()
    broken = Untrustworthy(good, lambda call, k: True)
    trainer = train_on(oracle=broken, out=tmp_path)
    compare = broken.compare
    broken.compare = lambda *pairs: {}["judge"] if trainer.taken == 3 else compare(*pairs)  # type: ignore[method-assign]
    with pytest.raises(KeyError, match="judge") as failed:
        trainer.fit()
    saved = f"nlhfsim: stopped after step 3 of 6; saved in {str(tmp_path)!r}, the same call goes on from there"
    assert failed.value.__notes__ == [saved], "a traceback ends with it"
    assert load_run(tmp_path).status == "interrupted" and load_run(tmp_path).last_step == 3
    resumed = train_on(out=tmp_path)
    resumed.fit()
    assert_same_state(state_of(whole), state_of(resumed))


NOT_FINITE = {
    "sampled": (
        {},
        r"gradient of step \d is not finite: lower learning_rate = 1e\+30, or beta = 0.1 and 1/proximal_step = 0.2, or",
    ),
    "exact": ({"feedback": "exact"}, r"the policy's probabilities are no numbers any more: lower learning_rate = 1e\+30"),
    "bfloat16": ({"precision": "bfloat16"}, r"not finite: .*, or take precision = 'float32'"),
}


@pytest.mark.parametrize("name", list(NOT_FINITE))
def test_a_gradient_that_is_not_finite(name: str) -> None:
    given, right = NOT_FINITE[name]
    trainer = train_on(learning_rate=1e30, gradient_clip=None, optimizer="sgd", **given)
    before: dict[str, Any] = {}
    with pytest.raises(InputError, match=right):
        for _ in range(5):
            before = state_of(trainer)
            trainer.step()
    assert before["numbers"] == state_of(trainer)["numbers"] and trainer.taken > 0
    for kind in ("weights", "target", "model"):
        assert all(torch.equal(w, state_of(trainer)[kind][n]) or w.isnan().any() for n, w in before[kind].items())


def test_huge_and_tiny_weights_of_the_kl() -> None:
    for beta in (1e-30, 1e-12, 1e3, 1e12):
        for given in ({}, {"feedback": "exact"}, {"kl_estimator": "token"}):
            trainer = train_on(method="online_ipo", beta=beta, steps=2, **given)
            rows = [trainer.step() for _ in range(2)]
            assert all(math.isfinite(row["gradient_norm"]) and math.isfinite(row["loss"]) for row in rows)
            assert all(bool(weight.isfinite().all()) for weight in trainer.policies.masters.values())


def test_without_a_kl() -> None:
    run = train_on(method="online_ipo", beta=0).fit()
    assert np.isfinite(run.steps["loss"]).all() and run.final["kl_reference"] > 0
    exact = train_on(method="online_ipo", beta=0, feedback="exact", steps=2).fit()
    assert "gap0" in exact.final and "kl_equilibrium" not in exact.final


class Recorder:
    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def on_step(self, metrics: dict[str, Any]) -> None:
        self.events.append((metrics["kind"], metrics["step"]))

    def on_evaluation(self, metrics: dict[str, Any]) -> None:
        self.events.append((metrics["kind"], metrics["step"]))


class OnlySteps:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step(self, metrics: dict[str, Any]) -> None:
        self.steps.append(metrics["step"])


def test_events_come_in_order() -> None:
    everything, steps = Recorder(), OnlySteps()
    train_on(callbacks=(one for one in (everything, steps)), evaluate_every=2, steps=3).fit()
    assert everything.events == [
        ("evaluation", 0),
        ("step", 1),
        ("step", 2),
        ("evaluation", 2),
        ("step", 3),
        ("evaluation", 3),
    ]
    assert steps.steps == [1, 2, 3]


def test_how_often_one_evaluates_changes_nothing_else() -> None:
    ends = []
    for every, held_out in ((None, None), (1, None), (2, [[2, 2]])):
        trainer = train_on(evaluate_every=every, held_out=held_out)
        run = trainer.fit()
        trainer.evaluate()
        ends.append((state_of(trainer), run.steps["loss"].tolist(), [timeless(row) for row in trainer._rows if row["step"] == 0]))
    for state, losses, _ in ends[1:]:
        assert_same_state(ends[0][0], state)
        assert losses == ends[0][1]
    assert ends[0][2] == ends[1][2] != ends[2][2]


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    ends = []
    for seed in (0, 0, 1):
        trainer = train_on(seed=seed)
        trainer.fit()
        ends.append(copied(trainer.policies.masters))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


def test_a_run_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = train_on(evaluate_every=2, checkpoint_every=1, method="online_ipo")
    run = trainer.fit()
    assert isinstance(run, TrainingRun) and run.path is None and run.status == "done" and list(tmp_path.iterdir()) == []
    assert run.steps["step"].tolist() == [1, 2, 3, 4, 5, 6] and run.evaluations["step"].tolist() == [0, 2, 4, 6]
    assert run.config == json.loads(json.dumps(trainer.config.to_dict())) and run.last_step == 6
    assert run.final["step"] == 6 and run.final["kl_reference"] > 0 and "kl_target" not in run.final
    assert np.isnan(run.evaluations["win_rate_target"]).all() and "step 6 of 6, done" in run.summary()
    assert (run.steps["seconds_generation"] > 0).all() and (run.steps["peak_memory"] > 1e6).all()
    assert (np.diff(run.steps["queries"]) > 0).all() and (np.diff(run.steps["tokens"]) > 0).all()
    assert len(run.table()[1]) == 4 and len(run.to_frame("steps")) == 6
    assert trainer.fit().steps["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_what_is_written_is_what_was_returned(tmp_path: Path) -> None:
    trainer = train_on(out=tmp_path, evaluate_every=2, feedback="exact")
    returned, read = trainer.fit(), load_run(tmp_path)
    assert read.status == returned.status == "done" and read.config == returned.config and read.path == returned.path
    for kind in ("steps", "evaluations"):
        one, other = getattr(returned, kind), getattr(read, kind)
        assert set(one) == set(other)
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])
    assert read.result["final"]["exploitability"] == returned.final["exploitability"] and read.result["steps"] == 6
    assert {"torch", "transformers"} <= set(read.provenance["versions"])
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == [
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "model",
        "provenance.json",
        "result.json",
    ]


def test_counts_of_a_step() -> None:
    """Responses of two tokens, four to each of two prompts; extragradient draws twice as many and as many opponents."""
    row = train_on(method="online_ipo").step()
    assert row["tokens"] == 16 and row["length"] == 2 and row["ended"] == 0 and row["queries"] <= 12
    assert train_on(method="nash_md").step()["tokens"] == 32
    assert train_on(method="extragradient").step()["tokens"] == 48
    chances = train_on(method="online_ipo", oracle=oracles.FunctionOracle(lambda *_: 0.25), votes=False).step()
    assert chances["label_entropy"] == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))


TOO_LONG: list[tuple[dict[str, Any], Any, str]] = [
    ({"max_new_tokens": 32}, PROMPTS, "max_new_tokens = 32 must be below the model's context of 32 tokens"),
    ({"max_new_tokens": 500}, PROMPTS, "max_new_tokens = 500 must be below"),
    (
        {"max_new_tokens": 30},
        [[0], [1] * 3],
        r"prompts\[1\] has 3 tokens, at most 2 fit: shorten the prompt, or lower max_new_to",
    ),
    ({"max_prompt_tokens": 31}, PROMPTS, r"max_prompt_tokens \+ max_new_tokens = 33 must be at most 32, its context"),
    ({"max_prompt_tokens": 2}, PROMPTS, r"prompts\[2\] has 3 tokens, at most 2 fit: raise max_prompt_tokens"),
    ({"allowed_tokens": (0, 3)}, PROMPTS, "allowed_tokens has 3, and the model's tokens are numbered from 0 to 2"),
    ({"stop_tokens": (7,)}, PROMPTS, "stop_tokens has 7, and the model's tokens are numbered from 0 to 2"),
    ({}, [[3]], r"prompts\[0\]\[0\] = 3 is no token of the model, must be below 3"),
    ({}, [], "prompts"),
    ({}, ["a text"], "there is no tokenizer"),
]


@pytest.mark.parametrize(("given", "prompts", "right"), TOO_LONG)
def test_what_a_model_cannot_do(given: dict[str, Any], prompts: Any, right: str) -> None:
    with pytest.raises(InputError, match=right) as caught:
        NashTrainer(gpt2(), None, oracles.FunctionOracle(lambda *_: 0.5), prompts, NashConfig(**(SMALL | given)))
    assert "\n" not in str(caught.value)


def test_all_of_the_context_is_used() -> None:
    """The longest prompt and the longest response that fit together."""
    trainer = train_on(prompts=[[1] * 30, [0]], oracle=oracles.FunctionOracle(lambda *_: 0.7), steps=1)
    assert trainer.fit().steps["length"].tolist() == [2]


def test_held_out_prompts_are_checked_too() -> None:
    with pytest.raises(InputError, match=r"held_out\[0\]\[1\] = 9 is no token"):
        train_on(held_out=[[0, 9]])


def test_arguments_of_another_kind() -> None:
    for arguments, right in (
        ((gpt2(), None, cyclic_oracle(3, 2), PROMPTS, {"beta": 1}), "config = .* must be a NashConfig"),
        ((gpt2(), None, lambda *_: 0.5, PROMPTS, NashConfig(**SMALL)), r"oracle is of type function, must have a method compare"),
        ((gpt2(), "", cyclic_oracle(3, 2), PROMPTS, NashConfig(**SMALL)), "tokenizer '' cannot be loaded"),
    ):
        with pytest.raises(InputError, match=right):
            NashTrainer(*arguments)


def words(stop: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer of three words; no padding token, and an end of sequence or none."""
    inner = Tokenizer(models.WordLevel({"rock": 0, "paper": 1, "end": 2}, unk_token="rock"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **({"eos_token": "end"} if stop else {}))


@pytest.mark.parametrize("family", list(MODELS))
def test_a_tokenizer_without_padding(family: str, tmp_path: Path) -> None:
    tokenizer = words()
    assert tokenizer.pad_token is None
    seen: list[str] = []

    def judge(prompt: str, left: str, right: str) -> float:
        seen.extend((prompt, left, right))
        return 0.8 if "paper" in left else 0.4

    config = NashConfig(**(SMALL | {"stop_tokens": None, "max_new_tokens": 3}))
    trainer = NashTrainer(
        MODELS[family](), tokenizer, oracles.FunctionOracle(judge), ["rock", "paper rock paper"], config, out=tmp_path / "run"
    )
    run = trainer.fit()
    assert trainer.estimator.limits.stop_tokens == (2,) and 0 < run.steps["ended"].mean() <= 1
    assert run.steps["length"].max() <= 3 and {"rock", "paper rock paper"} <= set(seen)
    assert not any("end" in text for text in seen)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "run" / "model")
    assert again("rock paper")["input_ids"] == [0, 1]


def out_of_memory(how: str) -> Exception:
    if how == "gpu":
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    if how == "python":
        return MemoryError()
    return RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ...")


PHASES = {
    "generation": "out of memory in generation: lower generation_batch .*, or max_new_tokens",
    "scoring": "out of memory in scoring: lower micro_batch_prompts .*, logprob_chunk or group_size",
    "training": "out of memory in training: lower micro_batch_prompts, .* activation_checkpointing = True, .*'bfloat16'",
    "optimizer": "out of memory in optimizer: take optimizer = 'sgd'",
    "evaluation": "out of memory in evaluation: lower micro_batch_prompts .* fewer held-out prompts",
    "loading": "out of memory in loading: train adapters .lora_rank., which keeps one copy of the model, or take a smaller",
    "exact": "out of memory in training: lower micro_batch_prompts",
}


@pytest.mark.parametrize("how", ["gpu", "cpu", "python"])
@pytest.mark.parametrize("phase", list(PHASES))
def test_out_of_memory(phase: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be lowered is named; whether it is torch's error, or the system's."""

    def fail(*_: Any, **__: Any) -> Any:
        raise out_of_memory(how)

    trainer = train_on(feedback="exact" if phase == "exact" else "sampled")
    trainer.step()
    before = state_of(trainer)
    score = estimate.score
    if phase == "generation":
        monkeypatch.setattr(estimate, "sample", fail)
    elif phase in ("scoring", "training", "evaluation", "exact"):
        graded = phase in ("training", "exact")
        monkeypatch.setattr(estimate, "score", lambda *a, **k: fail() if torch.is_grad_enabled() is graded else score(*a, **k))
    elif phase == "optimizer":
        monkeypatch.setattr(trainer.optimizer.inner, "step", fail)
    else:
        monkeypatch.setattr(policy_module, "_frozen_copy", fail)
    with pytest.raises(InputError, match=PHASES[phase]) as caught:
        if phase == "evaluation":
            trainer.evaluate()
        elif phase == "loading":
            train_on()
        else:
            trainer.step()
    assert "\n" not in str(caught.value)
    assert_same_state(before, state_of(trainer))


def test_other_errors_are_not_about_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(estimate, "sample", fail)
    with pytest.raises(RuntimeError, match="^shapes do not match$"):
        train_on().step()


FAST: dict[str, Any] = dict(prompts=[[0], [1, 2]], beta=0.2, steps=120, schedule="cosine", learning_rate=3e-3)


@pytest.mark.parametrize("method", ["online_ipo", "nash_prox"])
def test_exact_gradients_reach_the_equilibrium(method: str) -> None:
    """E_β ≤ 1e-3 over all nine responses to each of two prompts."""
    run = train_on(method=method, feedback="exact", **FAST).fit()
    assert run.evaluations["exploitability"][0] > 0.03
    assert run.final["exploitability"] <= 1e-3 and run.final["kl_equilibrium"] < 0.01


def test_votes_come_near() -> None:
    """One vote a pair: noise is left, and the policy is still several times nearer than it began."""
    run = train_on(exact_check=True, group_size=16, **FAST).fit()
    assert run.final["exploitability"] < 0.25 * run.evaluations["exploitability"][0]


def test_what_the_policy_says() -> None:
    """Drawn as in training: from the allowed tokens, the same for a seed, and training draws what it would have drawn."""
    trainer, other = (train_on(gpt2(8), cyclic_oracle(3, 2), allowed_tokens=(2, 0, 1), group_size=3) for _ in range(2))
    found = trainer.sample([[0], [1, 2]], 50)
    assert [len(responses) for responses in found] == [50, 50]
    assert {token for responses in found for one in responses for token in one.tokens} == {0, 1, 2}
    assert found == trainer.sample([[0], [1, 2]], 50) != trainer.sample([[0], [1, 2]], 50, seed=1)
    assert len(trainer.sample()) == len(trainer.held_out) and len(trainer.sample(view="reference")[0]) == 1
    assert trainer.step()["loss"] == other.step()["loss"]
    with pytest.raises(UnknownNameError, match="view = 'targets' is unknown; did you mean 'target'"):
        trainer.sample(view="targets")


def test_a_model_that_was_trained_is_no_reference() -> None:
    """Unless it is meant: said once."""
    model = gpt2()
    train_on(model).step()
    with pytest.warns(NlhfsimWarning, match="model was trained for 1 steps by another trainer"):
        train_on(model)
    train_on(model)


def test_a_model_has_one_trainer(recwarn: pytest.WarningsRecorder) -> None:
    """Before it has taken a step too. One that is gone, or could not be made, is none; nor is the trainer of another copy."""
    model = gpt2()
    first = train_on(model, feedback="exact", exact_check=True)
    train_on(copy.deepcopy(model))
    del first
    with pytest.raises(InputError):
        train_on(model, oracle=3)
    second = train_on(model)
    pickle.dumps(second.policies.model)
    assert not recwarn.list
    with pytest.warns(NlhfsimWarning, match="model belongs to another trainer .* give each trainer a model of its own"):
        train_on(model)


def test_an_oracle_that_is_never_sure_is_told() -> None:
    """At the first step that it costs, and not at the end."""
    trainer = train_on(oracle=oracles.FunctionOracle(lambda prompt, left, right: None))
    with pytest.warns(NlhfsimWarning, match="no pair of a step had a verdict, so the policy stayed"):
        trainer.step()


@pytest.mark.filterwarnings("ignore:no pair of a step had a verdict")
@pytest.mark.parametrize("method", ["nash_prox", "extragradient"])
def test_a_run_without_verdicts_ends_with_everything_saved(method: str, tmp_path: Path) -> None:
    """At the tenth step in a row, which is undone; one verdict, and a resumption, begin the count anew."""
    sound = {7}
    given: dict[str, Any] = {"steps": 40, "method": method, "group_size": 4, "learning_rate": 1e-4}
    oracle = Untrustworthy(cyclic_oracle(3, 2), lambda call, k: trainer.taken in sound)
    trainer = train_on(oracle=oracle, out=tmp_path, **given)
    with pytest.raises(OracleError, match="^no pair of 10 steps in a row had a verdict, so the policy does not move: does the"):
        trainer.fit()
    assert trainer.taken == 17 and checkpoint.found(tmp_path)[-1].name == "step-00000017"
    assert load_run(tmp_path).status == "interrupted" and load_run(tmp_path).last_step == 17
    trainer = train_on(oracle=oracle, out=tmp_path, **given)
    with pytest.raises(OracleError, match="10 steps in a row"):
        trainer.fit()
    assert trainer.taken == 26
    for _ in range(5):
        trainer.step()
    trainer.load(checkpoint.found(tmp_path)[-1])
    assert [trainer.step()["step"] for _ in range(9)] == list(range(27, 36)), "neither does the count survive going back"


@pytest.mark.filterwarnings("ignore:no pair of a step had a verdict")
def test_a_step_in_which_nobody_is_asked_says_nothing_of_the_oracle() -> None:
    """Where all responses are equal, as of a policy that has collapsed; such steps neither count nor begin the count anew."""
    trainer = train_on(oracle=oracles.FunctionOracle(lambda prompt, left, right: None), steps=40, group_size=2)
    draw, counted = trainer.estimator.draw, []

    def now_and_then_equal(*given: Any) -> Any:
        found = draw(*given)
        if len(given) > 3:  # an evaluation
            return found
        equal = trainer.taken % 3 == 2
        tokens = found.tokens.clone()
        tokens[1::2] = tokens[::2]
        tokens[1::2, 0] = tokens[::2, 0] if equal else (tokens[::2, 0] + 1) % 3
        counted.append(not equal)
        return replace(found, tokens=tokens)

    trainer.estimator.draw = now_and_then_equal  # type: ignore[method-assign]
    with pytest.raises(OracleError, match="^no pair of 10 steps in a row had a verdict"):
        trainer.fit()
    assert sum(counted) == 10 and len(counted) == 14


@pytest.mark.filterwarnings("ignore:no pair of a step had a verdict")
@pytest.mark.parametrize("wrap", [lambda oracle: oracle, lambda oracle: oracles.Noisy(oracles.BothOrders(oracle), 0.1)])
def test_a_function_that_returns_nothing_is_told(wrap: Any) -> None:
    """NaN is no verdict, and looks like a mistake in the function: it is said."""
    trainer = train_on(oracle=wrap(oracles.FunctionOracle(lambda prompt, left, right: math.nan)), steps=40)
    with pytest.raises(OracleError, match=r"the last time: FunctionOracle\('<lambda>'\): it returned NaN or None, which is no v"):
        trainer.fit()


def test_callbacks_have_something_to_call() -> None:
    """And what they do with what they get is their own business."""
    for wrong, right in ((print, r"callbacks\[0\] = .* must have one of the methods"), (None, "callbacks = None must be a list")):
        with pytest.raises(InputError, match=right):
            train_on(callbacks=wrong if wrong is None else [wrong])

    class Clears:
        def on_step(self, metrics: dict[str, Any]) -> None:
            metrics.clear()

    assert train_on(callbacks=[Clears()], steps=2).fit().steps["step"].tolist() == [1, 2]


@pytest.mark.parametrize("device", ["banana", 3.5, "meta", "cuda"])
def test_a_device_that_is_not_there(device: Any) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="device = "):
        NashTrainer(gpt2(), None, cyclic_oracle(3, 2), PROMPTS, NashConfig(**SMALL), device=device)


def test_an_oracle_must_be_made() -> None:
    with pytest.raises(InputError, match="oracle is of type type, must have a method compare"):
        train_on(oracle=oracles.MatrixOracle)


TINY: dict[str, Any] = dict(
    vocab_size=3, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=16
)


def test_a_model_without_its_head_is_refused(tmp_path: Path) -> None:
    """transformers would make one up, at random."""
    reward = AutoModelForSequenceClassification.from_config(Qwen2Config(**TINY, num_labels=1, tie_word_embeddings=False))
    reward.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="has no lm_head.weight, so it is no model: with random weights in its place it is noise"):
        train_on(str(tmp_path))


def test_a_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    """The second is refused while the first writes, and not afterwards."""
    second: list[str] = []

    class Begins:
        def on_step(self, metrics: dict[str, Any]) -> None:
            with pytest.raises(InputError, match="is being written by another run") as caught:
                train_on(out=tmp_path).fit()
            second.append(str(caught.value))

    train_on(out=tmp_path, callbacks=[Begins()], steps=1).fit()
    assert len(second) == 1
    assert train_on(out=tmp_path, steps=2).fit().last_step == 2


def test_what_measures_may_change_and_is_told(tmp_path: Path) -> None:
    """Held-out prompts, or the oracle of a recipe: the curves have two parts then."""
    train_on(out=tmp_path, steps=1).fit()
    with pytest.warns(NlhfsimWarning, match="held-out prompts: not as they were for checkpoint"):
        train_on(out=tmp_path, steps=2, held_out=[[2, 2]]).fit()
