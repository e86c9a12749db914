"""Sampling responses: cached keys and values, a generator of its own, and mixtures of policies with a cache each."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nlhfsim.llm.logprobs import Responses, TokenSpace, forward_arguments
from nlhfsim.llm.policy import Policies

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
    policies: Policies,
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
    policies : Policies
        The models.
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
        _sample(policies, mixture, prompts[begin : begin + at_once], copies, space, limits, generator)
        for begin in range(0, len(prompts), at_once)
    ]
    return parts[0] if len(parts) == 1 else join(parts)


def _sample(
    policies: Policies,
    mixture: Mixture,
    prompts: Sequence[Sequence[int]],
    copies: int,
    space: TokenSpace,
    limits: Limits,
    generator: torch.Generator,
) -> Responses:
    tokens, mask = pad_left(prompts, policies.device)
    writers = [_Writer(policies, view, tokens, mask, copies) for view, _ in mixture]
    prompt_tokens, prompt_mask = tokens.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
    count = len(prompt_tokens)
    stop = torch.tensor(limits.stop_tokens, dtype=torch.long, device=policies.device)
    running = torch.ones(count, dtype=torch.bool, device=policies.device)
    drawn, there, logs_drawn = [], [], []
    for _ in range(limits.max_new_tokens):
        if len(writers) == 1:
            logs = space.log_probabilities(writers[0].logits)
        else:
            parts = [weight * space.log_probabilities(w.logits) for w, (_, weight) in zip(writers, mixture, strict=True)]
            logs = torch.log_softmax(torch.stack(parts).sum(0), dim=-1)
        places = draw(truncated(logs, limits), generator)
        chosen = torch.where(running, space.tokens(places), 0)
        drawn.append(chosen)
        there.append(running)
        logs_drawn.append(torch.where(running, logs.gather(-1, places[:, None])[:, 0], 0.0))
        running = running & ~torch.isin(chosen, stop)
        if len(drawn) == limits.max_new_tokens or not bool(running.any()):
            break
        for writer in writers:
            writer.advance(chosen, there[-1])
    return Responses(
        prompt_tokens, prompt_mask, torch.stack(drawn, 1), torch.stack(there, 1), ~running, torch.stack(logs_drawn, 1)
    )


def draw(logs: Tensor, generator: torch.Generator) -> Tensor:
    """Return one place a row by inverting the distribution function at one uniform number a row, shape ``(N,)``."""
    reach = logs.double().exp().cumsum(-1)
    shares = torch.rand((len(logs), 1), generator=generator, device=logs.device, dtype=torch.float64)
    places = torch.searchsorted(reach, shares * reach[:, -1:], right=True)[:, 0]
    return places.clamp(max=logs.shape[-1] - 1)


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


class _Writer:
    """One view, its own cache, and its logits of the next token.

    Two views must not share a cache: the second would read keys and values that the first has written.
    """

    def __init__(self, policies: Policies, view: str, tokens: Tensor, mask: Tensor, copies: int) -> None:
        self.policies, self.view = policies, view
        with policies.view(view) as model:
            accepted = inspect.signature(model.forward).parameters
            self.name = "past_key_values" if "past_key_values" in accepted else "cache"
            self.last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
            self.positions = "position_ids" in accepted
            # A prompt is read once, and its cache copied, where the cache can be copied.
            out = model(input_ids=tokens, use_cache=True, **forward_arguments(model, mask), **self.last)
            self.cache: Any = _cache_of(out, self.name)
            self.logits, self.mask = out.logits[:, -1], mask.long()
            if copies > 1:
                self.mask = self.mask.repeat_interleave(copies, 0)
                if hasattr(self.cache, "batch_repeat_interleave"):
                    self.cache.batch_repeat_interleave(copies)
                    self.logits = self.logits.repeat_interleave(copies, 0)
                else:
                    repeated = tokens.repeat_interleave(copies, 0)
                    out = model(input_ids=repeated, use_cache=True, **forward_arguments(model, self.mask), **self.last)
                    self.cache, self.logits = _cache_of(out, self.name), out.logits[:, -1]

    def advance(self, chosen: Tensor, there: Tensor) -> None:
        """Read one more token of every response."""
        self.mask = torch.cat([self.mask, there[:, None].long()], 1)
        arguments: dict[str, Any] = {"attention_mask": self.mask, self.name: self.cache}
        if self.positions:
            arguments["position_ids"] = (self.mask.sum(-1, keepdim=True) - 1).clamp(min=0)
        with self.policies.view(self.view) as model:
            out = model(input_ids=chosen[:, None], use_cache=True, **arguments, **self.last)
        self.logits = out.logits[:, -1]


def _cache_of(out: Any, name: str) -> Any:
    return getattr(out, name, None) or getattr(out, "past_key_values", None)
