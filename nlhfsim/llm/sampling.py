"""Sampling responses: a generator of its own, truncation, and mixtures of policies with a cache each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlhfsim.llm.decoding import Decoder
from nlhfsim.llm.logprobs import Responses, TokenSpace

_BLOCK = 512
Mixture = tuple[tuple[str, float], ...]
"""Views and their weights: the distribution at a token is proportional to the product of theirs to the power of the weights."""


@dataclass(frozen=True)
class Limits:
    """When a response ends, and how sampling is truncated.

    Attributes
    ----------
    max_new_tokens : int
        Longest response.
    stop_tokens : tuple of int
        Tokens that end a response.
    top_k, top_p : int and float or None
        Truncation; with it, what is sampled is not the policy.
    """

    max_new_tokens: int
    stop_tokens: tuple[int, ...] = ()
    top_k: int | None = None
    top_p: float | None = None


def pad_left(prompts: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """Return tokens and mask of prompts, shape ``(N, longest)``; padding has token 0, which nothing reads."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[False] * (longest - len(prompt)) + [True] * len(prompt) for prompt in prompts], device=device)
    return tokens, mask


def mixture_of(mixing: float) -> Mixture:
    """Return π^(1-m) ρ^m, of the views that have any weight."""
    return tuple(part for part in (("policy", 1 - mixing), ("reference", mixing)) if part[1] > 0)


# Not inference mode: models may keep a tensor for later, and what is made in it can never be part of a backward pass.
@torch.no_grad()
def sample(
    decoder: Decoder,
    mixture: Mixture,
    prompts: Sequence[Sequence[int]],
    copies: int,
    space: TokenSpace,
    limits: Limits,
    generator: torch.Generator,
    batch: int | None = None,
) -> Responses:
    """Draw responses.

    Parameters
    ----------
    decoder : Decoder
        What the models write with.
    mixture : tuple
        Views and weights, see `mixture_of`.
    prompts : sequence
        Token numbers of each prompt.
    copies : int
        Responses to each prompt; those to one prompt follow each other.
    space : TokenSpace
        What a policy is over.
    limits : Limits
        When a response ends.
    generator : torch.Generator
        The only source of randomness.
    batch : int, optional
        Responses drawn at once, rounded up to whole prompts; None: all.

    Returns
    -------
    Responses
        ``len(prompts) * copies`` of them, with the log-probability of every token as it was drawn.
    """
    at_once = len(prompts) if batch is None else max(1, batch // copies)
    parts = [
        _sample(decoder, mixture, prompts[begin : begin + at_once], copies, space, limits, generator)
        for begin in range(0, len(prompts), at_once)
    ]
    return parts[0] if len(parts) == 1 else join(parts)


def _sample(
    decoder: Decoder,
    mixture: Mixture,
    prompts: Sequence[Sequence[int]],
    copies: int,
    space: TokenSpace,
    limits: Limits,
    generator: torch.Generator,
) -> Responses:
    device, longest = decoder.policies.device, limits.max_new_tokens
    tokens, mask = pad_left(prompts, device)
    writers = [decoder.writer(view, tokens, mask, copies, longest) for view, _ in mixture]
    prompt_tokens, prompt_mask = tokens.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
    count = len(prompt_tokens)
    stop = torch.tensor(limits.stop_tokens, dtype=torch.long, device=device)
    running = torch.ones(count, dtype=torch.bool, device=device)
    # All at once, so that what is drawn next does not depend on when these responses end.
    shares = torch.rand((longest, count), generator=generator, device=device, dtype=torch.float64)
    drawn, there, logs_drawn = [], [], []
    for k in range(longest):
        if len(writers) == 1:
            logs = space.log_probabilities(writers[0].logits)
        else:
            parts = [weight * space.log_probabilities(w.logits) for w, (_, weight) in zip(writers, mixture, strict=True)]
            logs = torch.log_softmax(torch.stack(parts).sum(0), dim=-1)
        places = draw(truncated(logs, limits), shares[k])
        chosen = torch.where(running, space.tokens(places), 0)
        drawn.append(chosen)
        there.append(running)
        logs_drawn.append(torch.where(running, logs.gather(-1, places[:, None])[:, 0], 0.0))
        running = running & ~torch.isin(chosen, stop)
        if k + 1 == longest or (len(stop) > 0 and k % _looks(device) == 0 and not bool(running.any())):
            break
        for writer in writers:
            writer.advance(chosen, there[-1])
    found = torch.stack(there, 1)
    width = max(1, int(found.sum(1).max()))
    drawn_tokens, drawn_logs = torch.stack(drawn, 1)[:, :width], torch.stack(logs_drawn, 1)[:, :width]
    return Responses(prompt_tokens, prompt_mask, drawn_tokens, found[:, :width], ~running, drawn_logs)


def _looks(device: torch.device) -> int:
    """Return after how many tokens to look whether all responses have ended: a look waits for a GPU, which then waits too."""
    return 16 if device.type == "cuda" else 1


def draw(logs: Tensor, shares: Tensor) -> Tensor:
    """Return one place a row by inverting the distribution function at its share.

    Parameters
    ----------
    logs : torch.Tensor
        Log-probabilities, shape ``(N, tokens)``; they need not be normalized.
    shares : torch.Tensor
        Uniform in [0, 1), float64, shape ``(N,)``.
    """
    if logs.shape[-1] <= _BLOCK:
        return _inverse(logs.double().exp(), shares[:, None])[0][:, 0]
    # First a block, then a token of it: the running sum of a whole vocabulary takes longer than everything else here.
    chances = torch.nn.functional.pad(logs.exp(), (0, -logs.shape[-1] % _BLOCK)).view(len(logs), -1, _BLOCK)
    blocks = chances.sum(-1, dtype=torch.float64)
    block, rest = _inverse(blocks, shares[:, None])
    inside = chances.gather(1, block[:, :, None].expand(-1, -1, _BLOCK))[:, 0].double()
    place, _ = _inverse(inside, rest / blocks.gather(-1, block))
    return (block * _BLOCK + place)[:, 0]


def _inverse(chances: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the running sum passes a share of the total, never at a chance of 0, and what of it is left there."""
    reach = chances.cumsum(-1)
    total = reach[:, -1:]
    goal = torch.minimum(shares * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(reach, goal, right=True).clamp(max=reach.shape[-1] - 1)  # beyond it only if they are no numbers
    return place, (goal - (reach.gather(-1, place) - chances.gather(-1, place))).clamp(min=0.0)


def truncated(logs: Tensor, limits: Limits) -> Tensor:
    """Return log-probabilities with those left out by `top_k` and `top_p` at minus infinity, not normalized again."""
    if limits.top_k is not None and limits.top_k < logs.shape[-1]:
        logs = logs.masked_fill(logs < logs.topk(limits.top_k).values[:, -1:], -torch.inf)
    if limits.top_p is not None:
        ordered, order = logs.sort(dim=-1, descending=True)
        shares = ordered.softmax(-1)
        outside = shares.cumsum(-1) - shares >= limits.top_p
        logs = ordered.masked_fill(outside, -torch.inf).gather(-1, order.argsort(-1))
    return logs


def join(parts: Sequence[Responses]) -> Responses:
    """Return responses of several parts, padded alike."""
    left, right = max(part.prompts.shape[1] for part in parts), max(part.tokens.shape[1] for part in parts)

    def glued(name: str, on_left: bool, width: int) -> Tensor:
        values = [getattr(part, name) for part in parts]
        return torch.cat(
            [torch.nn.functional.pad(v, (width - v.shape[1], 0) if on_left else (0, width - v.shape[1])) for v in values]
        )

    return Responses(
        glued("prompts", True, left),
        glued("prompt_mask", True, left),
        glued("tokens", False, right),
        glued("mask", False, right),
        torch.cat([part.ended for part in parts]),
        glued("sampled", False, right) if all(part.sampled is not None for part in parts) else None,
    )
