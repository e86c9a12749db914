"""Adapters: three policies on one base model.

Truth: the logits of the base model before it had adapters; peft's own loading; the simulator through `crosscheck`.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from small import MODELS, cyclic_oracle, gpt2, qwen2
from transformers import AutoModelForCausalLM

from nlhfsim.errors import InputError
from nlhfsim.llm import NashConfig, NashTrainer, crosscheck, methods
from nlhfsim.llm.lora import LoraPolicies

PROMPTS = [[0], [1, 2]]
TOKENS = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])


def trainer_of(model: Any, **fields: Any) -> NashTrainer:
    """A trainer with adapters, responses of two tokens."""
    given: dict[str, Any] = {"max_new_tokens": 2, "stop_tokens": (), "lora_rank": 4, "learning_rate": 1e-2, "steps": 3}
    return NashTrainer(model, None, cyclic_oracle(3, 2), PROMPTS, NashConfig(**given | fields))


def randomize(policies: Any) -> None:
    """Random adapters for policy and target."""
    torch.manual_seed(3)
    with torch.no_grad():
        for weights in (policies.masters, policies.shadow):
            for weight in weights.values():
                weight.normal_()


def logits(policies: Any, view: str) -> torch.Tensor:
    """The logits of a view."""
    with torch.no_grad(), policies.view(view) as model:
        found: torch.Tensor = model(TOKENS).logits
    return found


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_reference_is_the_base_model_to_the_bit(family: str, precision: str) -> None:
    """After random adapters; and policy and target are neither it nor each other."""
    base = MODELS[family]().eval().to(getattr(torch, precision))
    right = base(TOKENS).logits.detach()
    policies = trainer_of(copy.deepcopy(base), precision=precision).policies
    assert torch.equal(logits(policies, "policy"), right), "B starts at 0"
    randomize(policies)
    assert torch.equal(logits(policies, "reference"), right)
    own, target = logits(policies, "policy"), logits(policies, "target")
    assert min(float((one - other).abs().max()) for one, other in ((own, right), (target, right), (own, target))) > 0.1
    assert torch.equal(logits(policies, "policy"), own)


def test_adapters_that_stay_on_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer was found whose reference was the base model with its adapters left on."""
    policies = trainer_of(qwen2()).policies
    randomize(policies)
    right = logits(policies, "reference")
    monkeypatch.setattr(LoraPolicies, "_activate", lambda self, name: None)
    assert not torch.equal(logits(policies, "reference"), right)


@pytest.mark.parametrize("method", methods.names())
def test_the_gradient_is_the_simulators(method: str) -> None:
    """Of the adapters' weights, every method."""
    config = NashConfig(
        method=method, max_new_tokens=2, stop_tokens=(), precision="float64", group_size=6, lora_rank=4, micro_batch_prompts=1
    )
    found = crosscheck(gpt2(), None, cyclic_oracle(3, 2), PROMPTS, config)
    assert max(found.error, found.expected_error) < 1e-12


def test_one_base_model_and_no_copy() -> None:
    """What is trained and kept beside the base model is the two adapters."""
    model = qwen2()
    base = {weight.data_ptr() for weight in model.parameters()}
    policies = trainer_of(model).policies
    weights = dict(policies.model.named_parameters())
    adapters = {name for name in weights if ".lora_" in name}
    assert {weights[name].data_ptr() for name in weights if name not in adapters} == base
    assert len(adapters) == 2 * len(policies.masters) == 2 * len(policies.shadow)
    assert {name for name, weight in weights.items() if weight.requires_grad} == set(policies.masters)
    assert all(weight.dtype == torch.float32 for weight in trainer_of(qwen2(), precision="bfloat16").policies.masters.values())


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_a_step_moves_the_policy_alone(activation_checkpointing: bool) -> None:
    """And a refresh copies it to the target, exactly; reference and base model stay."""
    trainer = trainer_of(qwen2(), method="proximal_pg", inner_steps=2, activation_checkpointing=activation_checkpointing)
    before = {view: logits(trainer.policies, view) for view in ("policy", "reference", "target")}
    trainer.step()
    assert not torch.equal(logits(trainer.policies, "policy"), before["policy"])
    assert torch.equal(logits(trainer.policies, "target"), before["target"])
    trainer.step()
    assert torch.equal(logits(trainer.policies, "target"), logits(trainer.policies, "policy"))
    assert torch.equal(logits(trainer.policies, "reference"), before["reference"])


def test_the_average_of_factors() -> None:
    """Is what the target has: (1 - α) of its own and α of the policy's, factor by factor."""
    trainer = trainer_of(qwen2(), averaging=0.25)
    randomize(trainer.policies)
    policy, target = ({n: w.clone() for n, w in ws.items()} for ws in (trainer.policies.masters, trainer.policies.shadow))
    trainer.policies.follow(trainer.config.follow, 1)
    for name, weight in trainer.policies.shadow.items():
        torch.testing.assert_close(weight, 0.75 * target[name] + 0.25 * policy[name])


def test_a_mixture_switches_between_its_policies() -> None:
    """Log-probabilities as drawn, each view with a cache of its own, are those of whole forwards."""
    trainer = trainer_of(gpt2(), method="nash_md", precision="float64", max_new_tokens=4, stop_tokens=())
    randomize(trainer.policies)
    mixture = (("policy", 0.6), ("reference", 0.4))
    found = trainer.estimator.draw(trainer.prompts, mixture, 5)
    right = trainer.estimator.log_probabilities(mixture, found)
    torch.testing.assert_close(found.sampled.sum(-1), right, rtol=0, atol=1e-12)  # type: ignore[union-attr]


def test_resumes_to_the_bit(tmp_path: Path) -> None:
    """Adapters, target and optimizer are all that is saved."""
    whole = trainer_of(qwen2(), steps=4)
    whole.fit()
    first = NashTrainer(qwen2(), None, cyclic_oracle(3, 2), PROMPTS, whole.config, out=tmp_path)
    first.step(), first.step(), first.save()  # type: ignore[func-returns-value]
    again = NashTrainer(qwen2(), None, cyclic_oracle(3, 2), PROMPTS, whole.config, out=tmp_path)
    again.fit()
    assert again.taken == 4
    for name, weight in whole.policies.masters.items():
        assert torch.equal(again.policies.masters[name], weight)
        assert torch.equal(again.policies.shadow[name], whole.policies.shadow[name])
    [path, *_] = tmp_path.glob("checkpoints/*/policy.safetensors")
    assert path.stat().st_size < 4 * sum(weight.numel() for weight in whole.policies.masters.values()) + 10_000


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own call
def test_a_saved_adapter_is_loaded_by_peft(tmp_path: Path) -> None:
    """On the base model that it was trained on."""
    from peft import PeftModel

    qwen2().save_pretrained(tmp_path / "base")
    trainer = trainer_of(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    randomize(trainer.policies)
    trainer.save_model(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(tmp_path / "adapter"))
    torch.testing.assert_close(loaded.eval()(TOKENS).logits, logits(trainer.policies, "policy"))


def test_the_version_of_peft_is_on_record_where_there_are_adapters(tmp_path: Path) -> None:
    """The bits depend on it; without adapters it is not used."""
    for rank in (None, 4):
        config = NashConfig(max_new_tokens=2, stop_tokens=(), lora_rank=rank, steps=1)
        NashTrainer(gpt2(), None, cyclic_oracle(3, 2), PROMPTS, config, out=tmp_path / str(rank)).fit()
        about = json.loads((tmp_path / str(rank) / "provenance.json").read_text())
        assert about["versions"].get("peft") == (None if rank is None else version("peft")) and about["processes"] == 1


def test_bad_adapters() -> None:
    """Names that the model does not have, and fields that belong together."""
    linear = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"  # from the paper of Qwen 2's architecture
    with pytest.raises(InputError, match=f"lora_modules = .*'nowhere'.* names no layer of the model, which has {linear}$"):
        trainer_of(qwen2(), lora_modules=("nowhere",))
    with pytest.raises(InputError, match="lm_head.*names the embedding or the output layer"):
        trainer_of(qwen2(), lora_modules=["q_proj", "lm_head"])
    assert len(trainer_of(qwen2(), lora_modules=["q_proj"]).policies.masters) == 4
    with pytest.raises(InputError, match="lora_alpha = 8.0 belongs to lora_rank"):
        NashConfig(lora_alpha=8)
    with pytest.raises(InputError, match="lora_modules = 'q_proj' must be a list of names"):
        NashConfig(lora_rank=2, lora_modules="q_proj")  # type: ignore[arg-type]
    assert NashConfig(lora_rank=8).lora_alpha == 16


def test_without_peft() -> None:
    """One sentence with the command that installs it."""
    program = (
        "import sys; sys.modules['peft'] = None; sys.path.insert(0, 'tests/llm')\n"
        "from test_lora import *\n"
        "trainer_of(qwen2())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "MissingExtraError: lora_rank needs peft: pip install 'nlhfsim[lora]'" in done.stderr
