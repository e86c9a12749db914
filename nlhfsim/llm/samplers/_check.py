"""What a sampler returned, as responses; and refusing what are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlhfsim.errors import InputError
from nlhfsim.llm.logprobs import Responses
from nlhfsim.llm.samplers._spec import Samples, SamplingRequest
from nlhfsim.llm.sampling import pad_left

_ROUNDING = 1e-2
"""How far above 0 a log-probability may be by the rounding of half precision."""

_LEAST = -700.0
"""Below it a log-probability is none of a token that was drawn: by a chance under 1e-304 nothing ever is. Its exponential leaves
the range of floats too, and some servers say -9999 where they know none."""


def responses_of(name: str, said: Any, request: SamplingRequest, vocabulary: int, device: Any, dtype: torch.dtype) -> Responses:
    """Return what a sampler said to a request.

    Parameters
    ----------
    name : str
        Of the sampler, for messages.
    said : Samples or sequence of sequences of int
        What it returned.
    request : SamplingRequest
        What it was asked for.
    vocabulary : int
        Tokens that the model has.
    device, dtype
        Of the tensors, and of those that are log-probabilities.

    Raises
    ------
    InputError
        If it is not as `Sampler` describes; the message names the sampler and the row.
    """
    tokens, logs = said if isinstance(said, Samples) else (said, None)
    rows, count = _rows(f"{name} returned", tokens), len(request.prompts) * request.copies
    if len(rows) != count:
        raise InputError(
            f"{name} returned {len(rows)} rows, must be {count}: {request.copies} for each of {len(request.prompts)} prompts"
        )
    allowed = None if request.allowed_tokens is None else frozenset(request.allowed_tokens)
    for k, row in enumerate(rows):
        _check_row(_place(name, k, request), row, request, vocabulary, allowed)
    filled, mask = _padded([[int(token) for token in row] for row in rows], torch.long)
    prompts, prompt_mask = (part.repeat_interleave(request.copies, 0) for part in pad_left(request.prompts, device))
    stop = set(request.stop_tokens)
    ended = torch.tensor([row[-1] in stop for row in rows])
    sampled = None if logs is None else _logs(name, logs, rows, request, dtype).to(device)
    return Responses(prompts, prompt_mask, filled.to(device), mask.to(device), ended.to(device), sampled)


def _place(name: str, k: int, request: SamplingRequest) -> str:
    return f"{name}: row {k} (response {k % request.copies} to prompt {k // request.copies})"


def _rows(name: str, value: Any) -> list[Sequence[Any]]:
    """Return rows, given as lists or as an array."""
    value = value.tolist() if hasattr(value, "tolist") else value
    try:
        rows = [row.tolist() if hasattr(row, "tolist") else row for row in value]
        for row in rows:
            len(row)
    except TypeError:
        raise InputError(f"{name} {value!r}, must be a row of tokens for each response") from None
    return rows


def _check_row(place: str, row: Sequence[Any], request: SamplingRequest, vocabulary: int, allowed: frozenset[int] | None) -> None:
    if not 1 <= len(row) <= request.max_new_tokens:
        raise InputError(f"{place} has {len(row)} tokens, must have 1 to max_new_tokens = {request.max_new_tokens}")
    for j, token in enumerate(row):
        if isinstance(token, bool) or not isinstance(token, (int, np.integer)) or not 0 <= token < vocabulary:
            raise InputError(f"{place} has {token!r} at [{j}], must be the number of a token, from 0 to {vocabulary - 1}")
        if allowed is not None and token not in allowed:
            raise InputError(f"{place} has token {token} at [{j}], which is not one of allowed_tokens")
        if token in request.stop_tokens and j < len(row) - 1:
            raise InputError(f"{place} goes on behind the stop token {token} at [{j}], must end with it")
    if len(row) < request.max_new_tokens and row[-1] not in request.stop_tokens:
        stops = f"one of stop_tokens = {list(request.stop_tokens)}" if request.stop_tokens else "and there are no stop_tokens"
        raise InputError(
            f"{place} ends after {len(row)} tokens with token {row[-1]}, must end at max_new_tokens = {request.max_new_tokens}"
            + (f" or with {stops}" if request.stop_tokens else f", {stops}")
        )


def _logs(name: str, logs: Any, rows: list[Sequence[Any]], request: SamplingRequest, dtype: torch.dtype) -> Tensor:
    found = _rows(f"{name} returned as log-probabilities", logs)
    if len(found) != len(rows):
        raise InputError(f"{name} returned log-probabilities of {len(found)} rows, must be {len(rows)}, one for each response")
    for k, (values, row) in enumerate(zip(found, rows, strict=True)):
        place = _place(name, k, request)
        if len(values) != len(row):
            raise InputError(f"{place} has {len(values)} log-probabilities, must be {len(row)}, one for each token")
        for j, value in enumerate(values):
            if not isinstance(value, (int, float, np.number)) or not math.isfinite(value) or value > _ROUNDING:
                raise InputError(f"{place} has {value!r} as log-probability at [{j}], must be a finite number, at most 0")
            if value < _LEAST:
                right = f"must be at least {_LEAST:g}: a token of less is never drawn; leave them out where they are not known"
                raise InputError(f"{place} has {value!r} as log-probability at [{j}], {right}")
    return _padded([[float(value) for value in row] for row in found], dtype)[0]


def _padded(rows: list[list[Any]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return rows with zeros behind them, and which entries there are."""
    width = max(map(len, rows))
    filled = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=dtype)
    lengths = torch.tensor([len(row) for row in rows])
    return filled, torch.arange(width)[None] < lengths[:, None]
