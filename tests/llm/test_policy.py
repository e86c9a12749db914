"""Three views of one architecture: what is trained, what stays, what follows; and models that are refused.

Truth: closed forms of moving averages, transformers' own loading, and PyTorch's own gradients.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import MODELS, gpt2, qwen2
from training import PROMPTS, copied, same, train_on
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

import nlhfsim.llm.policy as policy_module
from nlhfsim.errors import DataError, InputError
from nlhfsim.llm import NashTrainer
from nlhfsim.llm.methods import Follow
from nlhfsim.llm.model import ensure_model, ensure_tokenizer
from nlhfsim.llm.policy import Policies

CPU = torch.device("cpu")


def policies_of(model: Any, precision: str = "float32", **more: Any) -> Policies:
    return Policies(model, device=CPU, precision=precision, with_target=True, **more)


def drift(policies: Policies, step: int, size: float) -> None:
    """Move every master weight by a share of its size, in a direction of its own."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for weight in policies.masters.values():
            weight.mul_(1 + size * torch.sign(torch.randn(weight.shape, generator=generator)).to(weight.dtype))
    policies.publish()


def test_a_moving_average_in_float32_of_a_policy_in_bfloat16() -> None:
    """θ̄ after n steps is (1 - α)ⁿ θ̄₀ + α Σ (1 - α)^(n - k) θ_k, computed here in float64."""
    policies, rate, steps = policies_of(gpt2(), "bfloat16"), 0.001, 50
    start = copied(policies.shadow)
    closed = {name: (1 - rate) ** steps * weight.double() for name, weight in start.items()}
    for step in range(1, steps + 1):
        drift(policies, step, 0.01)
        policies.follow(Follow(averaging=rate), step)
        for name, weight in policies.masters.items():
            closed[name] += rate * (1 - rate) ** (steps - step) * weight.detach().double()
    for name, weight in policies.shadow.items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight.double(), closed[name], rtol=1e-5, atol=1e-8)
    assert share_moved(start, policies.shadow) > 0.95


def share_moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Of the weights that are not 0, which a relative drift leaves alone."""
    moved, count = 0, 0
    for name, weight in before.items():
        there = weight != 0
        moved += int(((weight != after[name]) & there).sum())
        count += int(there.sum())
    return moved / count


def test_averaging_in_bfloat16_does_not_move() -> None:
    """The defect that the float32 shadow is for: steps of a thousandth of a drift are below half a unit in the last place."""
    policies = policies_of(gpt2(), "bfloat16")
    policies.shadow = {name: weight.to(torch.bfloat16) for name, weight in policies.shadow.items()}
    policies.masters = {name: weight.to(torch.bfloat16) for name, weight in policies.masters.items()}
    start = copied(policies.shadow)
    for step in range(1, 51):
        drift(policies, step, 0.01)
        policies.follow(Follow(averaging=0.001), step)
    assert share_moved(start, policies.shadow) < 0.05


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_a_refresh_is_a_copy(precision: str) -> None:
    policies = policies_of(qwen2(), precision)
    for step in range(1, 8):
        before, working = copied(policies.shadow), copied(policies._models["target"].state_dict())
        drift(policies, step, 0.1)
        policies.follow(Follow(refresh_every=3), step)
        if step % 3 == 0:
            assert same(policies.shadow, policies.masters)
            assert same(policies._models["target"].state_dict(), policies.model.state_dict())
        else:
            assert same(policies.shadow, before) and same(policies._models["target"].state_dict(), working)


@pytest.mark.parametrize("averaging", [0.3, 0.5, 1.0])
def test_all_of_the_policy_is_a_copy(averaging: float) -> None:
    policies = policies_of(gpt2(), "float64")
    start = copied(policies.shadow)
    drift(policies, 1, 0.1)
    policies.follow(Follow(averaging=averaging), 1)
    for name, weight in policies.shadow.items():
        right = (1 - averaging) * start[name] + averaging * policies.masters[name].detach()
        torch.testing.assert_close(weight.detach(), right, rtol=1e-14, atol=1e-16)
    assert same(policies.shadow, policies.masters) is (averaging == 1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("given", [{"method": "online_ipo"}, {"averaging": 0.5}, {"refresh_every": 2}])
def test_the_reference_never_changes(precision: str, given: dict[str, Any]) -> None:
    model = gpt2()
    start = copied(model.to(torch.bfloat16 if precision == "bfloat16" else torch.float32).state_dict())
    trainer = train_on(model, precision=precision, steps=3, evaluate_every=1, **given)
    fingerprint = trainer.policies.fingerprint()
    trainer.fit()
    with trainer.policies.view("reference") as reference:
        assert same(reference.state_dict(), start)
    assert trainer.policies.fingerprint() == fingerprint and not same(copied(trainer.policies.model.state_dict()), start)
    assert trainer.policies.names == (("policy", "reference") if "method" in given else ("policy", "reference", "target"))


def test_proximal_pg_is_nash_prox_with_copies() -> None:
    ends = []
    for given in ({"method": "proximal_pg", "inner_steps": 2}, {"method": "nash_prox", "refresh_every": 2}):
        trainer = train_on(steps=5, **given)
        trainer.fit()
        ends.append(copied(trainer.policies.masters))
    assert same(*ends)


def test_a_target_that_is_not_followed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policies, "follow", lambda *_: None)
    with pytest.raises(AssertionError):
        test_a_refresh_is_a_copy("float32")


def test_weights_are_trained_in_place_and_without_dropout() -> None:
    model = gpt2()
    model.config.attn_pdrop = 0.5
    model.train()
    before = copied(model.state_dict())
    trainer = train_on(model, steps=2)
    assert trainer.policies.model is model and not any(module.training for module in model.modules())
    trainer.fit()
    assert not same(before, copied(model.state_dict()))


def test_rotary_positions_keep_their_precision() -> None:
    """`model.to(bfloat16)` would round them, unlike transformers when it loads a model in bfloat16."""
    policies = policies_of(qwen2(), "bfloat16")
    for name in policies.names:
        with policies.view(name) as model:
            assert torch.equal(model.model.rotary_emb.inv_freq, qwen2().model.rotary_emb.inv_freq)
            assert all(weight.dtype == torch.bfloat16 for weight in model.parameters())


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_saved_model_is_loaded_by_transformers(tmp_path: Path, family: str, precision: str) -> None:
    trainer = train_on(MODELS[family](), steps=2, precision=precision, out=tmp_path / "run")
    trainer.fit()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model", dtype=trainer.policies.dtype).eval()
    tokens = torch.tensor([[0, 1, 2, 1]])
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, trainer.policies.model(tokens).logits)
    again = NashTrainer(tmp_path / "run" / "model", None, trainer.estimator.oracle, PROMPTS, trainer.config)
    assert same(copied(again.policies.model.state_dict()), copied(trainer.policies.model.state_dict()))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_tied_weights_stay_tied(tmp_path: Path, precision: str) -> None:
    """GPT-2's output layer is its embedding: one master, one gradient, the same after everything."""
    trainer = train_on(gpt2(), steps=3, precision=precision, out=tmp_path, checkpoint_every=2)
    assert not any("lm_head" in name for name in trainer.policies.masters)
    trainer.fit()
    resumed = train_on(gpt2(), steps=3, precision=precision, out=tmp_path, checkpoint_every=2)
    resumed.load(tmp_path / "checkpoints" / "step-00000003")
    for one in (trainer, resumed):
        for name in one.policies.names:
            with one.policies.view(name) as model:
                assert model.lm_head.weight is model.transformer.wte.weight
    assert same(trainer.policies.masters, resumed.policies.masters) and same(trainer.policies.shadow, resumed.policies.shadow)
    assert same(copied(trainer.policies.model.state_dict()), copied(resumed.policies.model.state_dict()))


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("given", [{}, {"kl_estimator": "token"}, {"feedback": "exact"}])
def test_activation_checkpointing_changes_no_gradient(family: str, given: dict[str, Any]) -> None:
    ends = []
    for checkpointing in (False, True):
        trainer = train_on(
            MODELS[family](), optimizer="sgd", activation_checkpointing=checkpointing, precision="float64", **given
        )
        trainer.step()
        ends.append(copied(trainer.policies.masters))
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("family", list(MODELS))
def test_activations_are_computed_again_and_generation_keeps_its_cache(family: str) -> None:
    """A block runs twice a training forward; every token after the first is generated from one token."""
    widths: list[tuple[bool, int]] = []

    def spy(module: Any, arguments: Any, keywords: Any) -> None:
        widths.append((torch.is_grad_enabled(), keywords["input_ids"].shape[1]))

    counts = {}
    for checkpointing in (False, True):
        widths.clear()
        trainer = train_on(MODELS[family](), activation_checkpointing=checkpointing, max_new_tokens=3, method="online_ipo")
        model = trainer.policies.model
        blocks = model.transformer.h if family == "gpt2" else model.model.layers
        passes: list[bool] = []
        blocks[0].mlp.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
        model.register_forward_pre_hook(spy, with_kwargs=True)
        trainer.step()
        counts[checkpointing] = sum(passes)
        assert [width for graded, width in widths if not graded] == [3, 1, 1]
        assert not any(module.training for module in model.modules())
    assert counts[False] == 1 and counts[True] == 2


def test_a_model_that_cannot_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(gpt2()), "supports_gradient_checkpointing", False)
    with pytest.raises(InputError, match="activation_checkpointing = True is not supported by GPT2LMHeadModel, must be False"):
        train_on(activation_checkpointing=True)


BERT = dict(vocab_size=3, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
T5 = dict(vocab_size=3, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)


def test_models_of_other_kinds() -> None:
    headless = AutoModel.from_config(gpt2().config)
    wrong: list[tuple[Any, str]] = [
        (torch.nn.Linear(2, 2), "model is of type Linear, must be a causal language model of transformers"),
        (None, "model is of type NoneType"),
        (headless, "model is of type GPT2Model"),
        (T5ForConditionalGeneration(T5Config(**T5)), "model is of type T5ForConditionalGeneration"),
        (BertForMaskedLM(BertConfig(**BERT)), "model is a BertForMaskedLM that reads later tokens too"),
    ]
    for model, right in wrong:
        with pytest.raises(InputError, match=right) as caught:
            train_on(model, prompts=[[0]]) if model is not None else ensure_model(None)
        assert "\n" not in str(caught.value)


def test_paths_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model '.*nothing' cannot be loaded"):
        ensure_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"model '.*empty' cannot be loaded"):
        ensure_model(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{not json")
    with pytest.raises(DataError, match=r"model '.*empty' cannot be loaded"):
        ensure_model(tmp_path / "empty")
    with pytest.raises(DataError, match=r"tokenizer '.*nothing' cannot be loaded"):
        ensure_tokenizer(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"tokenizer '.*empty' cannot be loaded: none of tokenizer_config.json, .* is there"):
        ensure_tokenizer(tmp_path / "empty")
    with pytest.raises(InputError, match="tokenizer is of type int"):
        ensure_tokenizer(3)


def test_a_model_whose_weights_are_damaged(tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be loaded"):
        ensure_model(tmp_path)


def test_nothing_to_train() -> None:
    with pytest.raises(InputError, match="no weight with requires_grad = True, so there is nothing to train"):
        train_on(gpt2().requires_grad_(False))


def test_views_are_apart() -> None:
    """No weight of one view is another's memory, and none of the others has a gradient."""
    policies = policies_of(gpt2(), "bfloat16")
    places = [{weight.data_ptr() for weight in policies._models[name].parameters()} for name in policies.names]
    places += [{weight.data_ptr() for weight in weights.values()} for weights in (policies.masters, policies.shadow)]
    assert sum(map(len, places)) == len(set().union(*places))
    assert not any(w.requires_grad for name in ("reference", "target") for w in policies._models[name].parameters())


def test_fingerprints_tell_models_apart() -> None:
    one, other, changed = gpt2(), gpt2(seed=1), gpt2()
    with torch.no_grad():
        changed.transformer.wte.weight[0, 0] += 1e-3
    found = {policies_of(copy.deepcopy(model)).fingerprint() for model in (one, gpt2(), other, changed)}
    assert len(found) == 3 and policy_module.VIEWS == ("policy", "reference", "target")
    assert np.all([len(text) == 16 for text in found])
