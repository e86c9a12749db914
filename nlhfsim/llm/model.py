"""What comes from transformers: models and tokenizers, checked once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from nlhfsim.errors import InputError
from nlhfsim.llm.pretrained import head_of, load_pretrained, load_tokenizer, tried

Decode = Callable[[Sequence[Sequence[int]]], list[str]]
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")


def ensure_model(model: Any) -> Any:
    """Return a causal language model given as one, or by the folder or name that transformers loads it from.

    Raises
    ------
    InputError
        If it is none.
    DataError
        If it cannot be loaded.
    """
    if isinstance(model, (str, os.PathLike)):
        model = load_pretrained(AutoModelForCausalLM, os.fspath(model), "model")
    if not isinstance(model, PreTrainedModel) or getattr(model.config, "is_encoder_decoder", False) or head_of(model) is None:
        raise InputError(
            f"model is of type {type(model).__name__}, must be a causal language model of transformers, or the path of one"
        )
    return model


@torch.no_grad()
def ensure_causal(model: Any) -> None:
    """Refuse a model that reads ahead, such as one for masked tokens; tried, not believed.

    Raises
    ------
    InputError
        If a later token changes the logits of an earlier one.
    """
    size, kind = vocabulary_size(model), type(model).__name__
    tokens = torch.tensor([[0, 0], [0, size - 1]], device=next(model.parameters()).device)
    with tried(f"model is a {kind} that cannot read two tokens"):
        logits = model(input_ids=tokens).logits[:, 0]
    rounding = 32 * torch.finfo(logits.dtype).eps * float(logits.abs().max())
    if size > 1 and float((logits[0] - logits[1]).abs().max()) > rounding:
        raise InputError(f"model is a {kind} that reads later tokens too, must be a causal language model")


def ensure_tokenizer(tokenizer: Any) -> Any:
    """Return a tokenizer given as one, by the folder or name that transformers loads it from, or None.

    Raises
    ------
    InputError
        If it is none.
    DataError
        If it cannot be loaded.
    """
    if isinstance(tokenizer, (str, os.PathLike)):
        return load_tokenizer(os.fspath(tokenizer))
    if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "batch_decode")):
        raise InputError(f"tokenizer is of type {type(tokenizer).__name__}, must be one of transformers, or the path of one")
    return tokenizer


def context_length(model: Any) -> int | None:
    """Return how many tokens the model reads, None if it does not say.

    With positions of the kind longrope it is what the model was first trained on: beyond, all positions of a text depend on the
    longest text that it is read together with, so that a response would have one probability when drawn and another when scored.
    """
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    found = next((int(value) for name in _CONTEXT if (value := getattr(config, name, None))), None)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return found
    first = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return found if first is None or found is None else min(int(first), found)


def vocabulary_size(model: Any) -> int:
    """Return the number of tokens that the model gives a probability."""
    return int(model.get_output_embeddings().weight.shape[0])


def stop_tokens_of(model: Any, tokenizer: Any, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the tokens that end a response: as given, else the tokenizer's and the model's end of sequence."""
    if given is not None:
        return given
    found: set[int] = set()
    generation = getattr(model, "generation_config", None)
    for value in (getattr(tokenizer, "eos_token_id", None), getattr(generation, "eos_token_id", None)):
        found |= {int(token) for token in (value if isinstance(value, (list, tuple)) else [value]) if token is not None}
    return tuple(sorted(found))


def decoder(tokenizer: Any) -> Decode:
    """Return the function from token numbers to texts; without a tokenizer, the numbers themselves."""
    if tokenizer is None:
        return lambda rows: [" ".join(map(str, row)) for row in rows]
    return partial(_decode, tokenizer)


def _decode(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    return [str(text) for text in tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=True)]
