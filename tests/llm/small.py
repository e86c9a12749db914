"""Small models and games for the tests of language models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from nlhfsim.llm import exact, oracles

CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
"""A beats B, B beats C, C beats A, with three different probabilities."""


def gpt2(vocabulary: int = 3, seed: int = 0, spread: float = 0.1) -> Any:
    """A small GPT-2: in float64 all of it is, unlike models that normalize in float32 whatever their weights are."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = dict(n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=None, eos_token_id=None)
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, initializer_range=spread, **shape))


def qwen2(vocabulary: int = 3, seed: int = 0, spread: float = 0.3) -> Any:
    """A small Qwen 2: rotary positions, grouped heads."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, intermediate_size=48, initializer_range=spread, **shape))


MODELS: dict[str, Callable[..., Any]] = {"gpt2": gpt2, "qwen2": qwen2}


def cyclic_oracle(vocabulary: int, length: int, stop: tuple[int, ...] = ()) -> oracles.MatrixOracle:
    """Responses of all lengths, a cycle between their first tokens (mod 3) and a smaller preference for later last tokens."""
    responses = exact.enumerate_responses(range(vocabulary), length, stop)
    first = np.array([tokens[0] % 3 for tokens in responses])
    last = np.array([tokens[-1] for tokens in responses], dtype=float)
    matrix = CYCLE[np.ix_(first, first)] + 0.05 * np.tanh(last[:, None] - last[None, :])
    return oracles.MatrixOracle(matrix, responses)
