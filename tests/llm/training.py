"""What the tests of the trainer share: small runs, what a run's state is, and a model that is a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from small import cyclic_oracle, gpt2
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from nlhfsim.llm import NashConfig, NashTrainer
from nlhfsim.llm.oracles import Verdicts

PROMPTS = [[0], [1, 2], [2, 0, 1], [2]]
SMALL: dict[str, Any] = dict(max_new_tokens=2, stop_tokens=(), learning_rate=1e-2, prompts_per_step=2, steps=6)


def train_on(model: Any = None, oracle: Any = None, prompts: Any = None, **given: Any) -> NashTrainer:
    """A trainer of a small model on responses of two tokens; fields of the configuration, and the trainer's own arguments."""
    own = {name: given.pop(name) for name in ("out", "callbacks", "held_out") if name in given}
    config = NashConfig(**(SMALL | given))
    return NashTrainer(
        gpt2() if model is None else model,
        None,
        cyclic_oracle(3, config.max_new_tokens) if oracle is None else oracle,
        PROMPTS if prompts is None else prompts,
        config,
        **own,
    )


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether the bits are."""
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def state_of(trainer: NashTrainer) -> dict[str, Any]:
    """Everything that the next step depends on, by value."""
    memory = trainer.optimizer.inner.state_dict()
    return {
        "weights": {name: weight.detach().clone() for name, weight in trainer.policies.masters.items()},
        "model": {name: weight.detach().clone() for name, weight in trainer.policies.model.named_parameters()},
        "target": {name: weight.detach().clone() for name, weight in trainer.policies.shadow.items()},
        "memory": {f"{k} {key}": value.clone() for k, row in memory["state"].items() for key, value in row.items()},
        "generator": {"state": trainer.estimator.generator.get_state()},
        "numbers": (
            trainer.estimator.voter.bit_generator.state,
            trainer.stream.position,
            trainer.taken,
            trainer.queries,
            trainer.tokens,
        ),
        "gradients": [name for name, weight in trainer.policies.parameters.items() if weight.grad is not None],
    }


def assert_same_state(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Equal bits everywhere."""
    for name, value in first.items():
        there = same(value, second[name]) if isinstance(value, dict) else value == second[name]
        assert there, f"{name} differs"


def timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what depends on the clock or the machine's memory."""
    return {name: value for name, value in row.items() if "second" not in name and name != "peak_memory"}


class Untrustworthy:
    """An oracle with a verdict on the pairs that `valid` says."""

    def __init__(self, oracle: Any, valid: Any) -> None:
        self.oracle, self.valid, self.calls = oracle, valid, 0

    def compare(self, prompts: Any, left: Any, right: Any) -> Verdicts:
        self.calls += 1
        found = self.oracle.compare(prompts, left, right)
        flags = np.array([self.valid(self.calls, k) for k in range(len(prompts))], dtype=bool)
        return Verdicts(np.where(flags, found.probabilities, np.nan), flags)


class LookupConfig(PretrainedConfig):  # type: ignore[misc]
    model_type = "nlhfsim_lookup"


class Lookup(PreTrainedModel):  # type: ignore[misc]
    """A table: the logits of the next token are the row of the last one. A prompt of one token is a context of a game."""

    config_class = LookupConfig

    def __init__(self, table: Any) -> None:
        super().__init__(LookupConfig())
        self.table = torch.nn.Embedding.from_pretrained(torch.tensor(table, dtype=torch.float64), freeze=False)

    def get_output_embeddings(self) -> Any:
        return self.table

    def get_input_embeddings(self) -> Any:
        return self.table

    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: bool = False, cache: Any = None) -> Any:
        return CausalLMOutput(logits=self.table(input_ids))
