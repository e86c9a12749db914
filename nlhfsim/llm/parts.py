"""What a trainer is made of: policies, prompts as the model reads them, and tokens that it has."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary

import torch

from nlhfsim.errors import InputError, NlhfsimWarning
from nlhfsim.llm.config import NashConfig
from nlhfsim.llm.lora import Lora, LoraPolicies
from nlhfsim.llm.model import context_length, vocabulary_size
from nlhfsim.llm.oracles import Prompt
from nlhfsim.llm.policy import Policies
from nlhfsim.llm.prompts import encode_prompts, read_prompts

EVENTS = ("on_begin", "on_step", "on_evaluation", "on_end")


OWNERS: WeakKeyDictionary[Any, ReferenceType[Any]] = WeakKeyDictionary()
"""The trainer of each model, as long as both are there. Not on the model, which is copied and pickled."""


def warn_if_taken(model: Any) -> None:
    """Say that a model was trained already, or that another trainer is about to train it."""
    owner = OWNERS.get(model)
    if getattr(model, "nlhfsim_steps", 0):
        steps = model.nlhfsim_steps
        said = f"model was trained for {steps} steps by another trainer, and as it is now it is the reference of this one"
        model.nlhfsim_steps = 0
    elif owner is not None and owner() is not None:
        said = "model belongs to another trainer that is still there, and what one of them does to it happens to the other"
    else:
        return
    warnings.warn(f"{said}: give each trainer a model of its own", NlhfsimWarning, stacklevel=3)


def policies_of(model: Any, config: NashConfig, device: torch.device) -> Policies:
    """Return the policies that a configuration trains: all weights of a model, or adapters on it."""
    keywords: dict[str, Any] = {
        "device": device,
        "precision": config.precision,
        "with_target": config.pull > 0,
        "activation_checkpointing": config.activation_checkpointing,
    }
    if config.lora_rank is None:
        return Policies(model, **keywords)
    assert config.lora_alpha is not None
    return LoraPolicies(model, lora=Lora(config.lora_rank, config.lora_alpha, config.lora_modules, config.seed), **keywords)


def encoded(source: Any, name: str, model: Any, tokenizer: Any, config: NashConfig) -> tuple[Prompt, ...]:
    """Return prompts as the model reads them, none longer than it can read with a response behind it."""
    context, limit = context_length(model), config.max_prompt_tokens
    advice = "raise max_prompt_tokens, or shorten the prompt"
    if context is not None:
        if context <= config.max_new_tokens:
            raise InputError(f"max_new_tokens = {config.max_new_tokens} must be below the model's context of {context} tokens")
        if limit is not None and limit + config.max_new_tokens > context:
            raise InputError(
                f"max_prompt_tokens + max_new_tokens = {limit + config.max_new_tokens} must be at most {context}, its context"
            )
        if limit is None:
            limit = context - config.max_new_tokens
            advice = f"shorten the prompt, or lower max_new_tokens: the model reads {context} tokens"
    return encode_prompts(
        read_prompts(source, name=name), tokenizer, max_tokens=limit, vocabulary_size=vocabulary_size(model), advice=advice
    )


def ensure_tokens(model: Any, config: NashConfig) -> None:
    """Refuse token numbers that the model does not have."""
    size = vocabulary_size(model)
    for name in ("allowed_tokens", "stop_tokens"):
        wrong: Sequence[int] = [token for token in getattr(config, name) or () if token >= size]
        if wrong:
            raise InputError(f"{name} has {wrong[0]}, and the model's tokens are numbered from 0 to {size - 1}")


def ensure_callbacks(callbacks: Any) -> list[Any]:
    """Return callbacks as a list, each known to have something that is called.

    Raises
    ------
    InputError
        If one has not.
    """
    if not isinstance(callbacks, Iterable):
        raise InputError(f"callbacks = {callbacks!r} must be a list")
    found = list(callbacks)
    for k, callback in enumerate(found):
        if not any(callable(getattr(callback, event, None)) for event in EVENTS):
            raise InputError(f"callbacks[{k}] = {callback!r} must have one of the methods {', '.join(EVENTS)}")
    return found
