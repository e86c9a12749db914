"""Reading many texts with a model: loading it, its limits, batches of like lengths."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from nlhfsim.errors import InputError, ensure_integer
from nlhfsim.llm.pretrained import ensure_covers, load_pretrained, load_tokenizer


def load(kind: Any, model: Any, tokenizer: Any, device: Any, what: str) -> tuple[Any, Any]:
    """Return model and tokenizer, read from a folder or the hub where `model` is a path; `kind` is the class that reads it.

    A model that is read goes to the first CUDA device if there is one, and one that is given stays where it is, unless `device`
    says otherwise.
    """
    if isinstance(model, (str, os.PathLike)):
        source = os.fspath(model)
        model = load_pretrained(kind, source, what, dtype="auto")
        if tokenizer is None:
            tokenizer = load_tokenizer(source, f"tokenizer of the {what}")
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model = {model!r} must be a transformers model or the path of one")
    if not callable(tokenizer):
        raise InputError(f"tokenizer = {tokenizer!r} must be a transformers tokenizer, the one that the model was trained with")
    ensure_covers(model, tokenizer)
    return (model if device is None else model.to(device)), tokenizer


def use_chat(tokenizer: Any, chat: bool | None) -> bool:
    """Return whether texts go through the chat template of the tokenizer."""
    has = bool(getattr(tokenizer, "chat_template", None))
    if chat and not has:
        raise InputError("chat = True needs a chat template, and the tokenizer has none: set its chat_template, or chat = False")
    return has if chat is None else bool(chat)


def context_length(model: Any, tokenizer: Any, max_length: int | None) -> int | None:
    """Return how many tokens the model reads at most, None if it does not say."""
    config = model.config.get_text_config()
    known = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    limits = [int(limit) for limit in known if limit is not None and limit > 0]
    limit = min(limits) if limits and min(limits) < 10**9 else None
    if max_length is None:
        return limit
    return ensure_integer("max_length", max_length, 1, 2**53 if limit is None else limit)


def parameters(model: Any) -> frozenset[str]:
    """Return the names of what the forward pass takes, looking through adapters."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(inner.forward).parameters)


@contextmanager
def reading(model: Any) -> Iterator[None]:
    """Switch dropout and gradients off for a while."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_training:
            model.train()


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield the numbers of the texts in batches of like lengths, so that there is little padding; the longest come first."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    for first in range(0, len(order), size):
        yield order[first : first + size]
