"""Log-probabilities of given responses: one temperature, chunked, so that no tensor of all tokens times the vocabulary exists.

The transformer runs once over prompt and response; its output layer, which is what needs memory at a large vocabulary, runs over
a few tokens at a time, and again in the backward pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nlhfsim.errors import InputError
from nlhfsim.llm.pretrained import tried

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TokenSpace:
    """What a policy is over: softmax(logits / temperature), restricted to `allowed` tokens if there are some.

    The same object is used when a policy is sampled and when its log-probabilities are taken.

    Attributes
    ----------
    temperature : float
        T > 0.
    allowed : torch.Tensor or None
        Token numbers in increasing order, shape ``(tokens,)``.
    """

    temperature: float = 1.0
    allowed: Tensor | None = None

    @classmethod
    def of(cls, temperature: float, allowed: tuple[int, ...] | None, device: Any) -> TokenSpace:
        """Return the space of a configuration."""
        return cls(temperature, None if allowed is None else torch.tensor(sorted(allowed), device=device))

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Return log-probabilities over the tokens of the space, at least float32, shape ``(..., tokens)``."""
        if self.allowed is not None:
            logits = logits.index_select(-1, self.allowed)
        exact = logits if logits.dtype == torch.float64 else logits.float()
        return torch.log_softmax(exact if self.temperature == 1.0 else exact / self.temperature, dim=-1)

    def places(self, tokens: Tensor) -> Tensor:
        """Return the place of each token in the last axis of `log_probabilities`."""
        return tokens if self.allowed is None else torch.searchsorted(self.allowed, tokens)

    def tokens(self, places: Tensor) -> Tensor:
        """Return the token at each place."""
        return places if self.allowed is None else self.allowed[places]


@dataclass(frozen=True)
class Responses:
    """Prompts, padded on the left, and responses to them, padded on the right.

    Attributes
    ----------
    prompts, prompt_mask : torch.Tensor
        Shape ``(N, longest prompt)``: tokens, and which of them there are.
    tokens, mask : torch.Tensor
        Shape ``(N, longest response)``; the token that ends a response belongs to it.
    ended : torch.Tensor
        Shape ``(N,)``, bool: whether a stop token ended it, not the limit.
    sampled : torch.Tensor or None
        Log-probabilities of the tokens in the distribution that they were drawn from, shape of `tokens`, 0 at padding.
    """

    prompts: Tensor
    prompt_mask: Tensor
    tokens: Tensor
    mask: Tensor
    ended: Tensor
    sampled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: Any) -> Responses:
        """Return some of them, without the padding that none of those needs."""
        prompt_mask, mask = self.prompt_mask[index], self.mask[index]
        left = prompt_mask.shape[1] - int(prompt_mask.sum(1).max())
        right = max(1, int(mask.sum(1).max()))
        sampled = None if self.sampled is None else self.sampled[index][:, :right]
        return Responses(
            self.prompts[index][:, left:],
            prompt_mask[:, left:],
            self.tokens[index][:, :right],
            mask[:, :right],
            self.ended[index],
            sampled,
        )


class Scores(NamedTuple):
    """What the policy makes of given responses, every tensor of shape ``(N, longest response)``, 0 at padding.

    Attributes
    ----------
    log_probabilities : torch.Tensor
        Of every token.
    entropy : torch.Tensor or None
        Of the distribution at every token, without gradient.
    divergences : tuple of torch.Tensor
        KL between that distribution and the anchor's, of each anchor.
    """

    log_probabilities: Tensor
    entropy: Tensor | None = None
    divergences: tuple[Tensor, ...] = ()

    @property
    def sums(self) -> Tensor:
        """Summed log-probability of every response, shape ``(N,)``."""
        return self.log_probabilities.sum(-1)


def forward_arguments(model: Any, mask: Tensor) -> dict[str, Tensor]:
    """Return attention mask and, where the model takes them, the positions that padding does not move."""
    arguments = {"attention_mask": mask.long()}
    if "position_ids" in inspect.signature(model.forward).parameters:
        arguments["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
    return arguments


def head_of(model: Any) -> Head:
    """Return the function from the last hidden states to logits: output layer, then the scaling of the model's family."""
    layer, config = model.get_output_embeddings(), model.config
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)

    def head(hidden: Tensor) -> Tensor:
        logits: Tensor = layer(hidden) * scale if scale != 1.0 else layer(hidden)
        return cap * torch.tanh(logits / cap) if cap else logits

    return head


@torch.no_grad()
def splits(model: Any) -> bool:
    """Return whether the model is its backbone followed by `head_of`, as every family known here is; tried, not believed."""
    backbone = model.base_model
    if backbone is model or model.get_output_embeddings() is None:
        return False
    tokens = torch.arange(2, device=next(model.parameters()).device)[None] % max(1, model.get_input_embeddings().num_embeddings)
    hidden = getattr(backbone(input_ids=tokens, use_cache=False), "last_hidden_state", None)
    if hidden is None:
        return False
    try:
        with tried("its output layer"):
            whole, parts = model(input_ids=tokens, use_cache=False).logits, head_of(model)(hidden)
    except InputError:  # some bring hidden states into another precision in between
        return False
    return bool(whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-3, atol=1e-3))


def states(model: Any, responses: Responses, split: bool) -> tuple[Tensor, Head]:
    """Return what the distribution at each token of the responses comes from, ``(tokens, features)``, and the function to logits.

    With `split` these are hidden states and the output layer; else logits and the identity.
    """
    tokens = torch.cat([responses.prompts, responses.tokens], dim=1)
    mask = torch.cat([responses.prompt_mask, responses.mask], dim=1)
    arguments = forward_arguments(model, mask)
    first, last = responses.prompts.shape[1] - 1, tokens.shape[1] - 1
    if split:
        hidden = model.base_model(input_ids=tokens, use_cache=False, **arguments).last_hidden_state
        return hidden[:, first:last][responses.mask], head_of(model)
    return model(input_ids=tokens, use_cache=False, **arguments).logits[:, first:last][responses.mask], lambda logits: logits


def score(
    found: tuple[Tensor, Head],
    responses: Responses,
    space: TokenSpace,
    *,
    chunk: int,
    anchors: tuple[tuple[Tensor, Head], ...] = (),
    entropy: bool = False,
) -> Scores:
    """Return the log-probabilities of responses, with gradient where it is on.

    Parameters
    ----------
    found : tuple
        `states` of a policy at the responses.
    responses : Responses
        N of them.
    space : TokenSpace
        What the policy is over.
    chunk : int
        Tokens whose logits are in memory at once.
    anchors : tuple
        `states` of other policies at the same responses: the KL to them is wanted.
    entropy : bool
        Whether the entropy is wanted.
    """
    hidden, head = found
    places = space.places(responses.tokens[responses.mask])
    # With a single chunk, computing its logits again would lower no peak: the backward pass begins with them.
    again = torch.is_grad_enabled() and hidden.requires_grad and len(places) > chunk
    columns: list[list[Tensor]] = []
    for begin in range(0, len(places), chunk):
        part = slice(begin, begin + chunk)
        work = partial(_chunk, head, space, tuple((values[part], other) for values, other in anchors), entropy, places[part])
        if again:
            columns.append(checkpoint(work, hidden[part], use_reentrant=False))
        else:
            columns.append(work(hidden[part]))
    values = [_spread(torch.cat(column), responses.mask) for column in zip(*columns, strict=True)]
    return Scores(values[0], values[1] if entropy else None, tuple(values[1 + entropy :]))


def _chunk(
    head: Head, space: TokenSpace, anchors: tuple[tuple[Tensor, Head], ...], entropy: bool, places: Tensor, hidden: Tensor
) -> list[Tensor]:
    logs = space.log_probabilities(head(hidden))
    out = [logs.gather(-1, places[:, None])[:, 0]]
    if entropy:
        fixed = logs.detach()
        out.append(-(fixed.exp() * fixed.clamp(min=-1e4)).sum(-1))
    for values, other in anchors:
        with torch.no_grad():
            anchor = space.log_probabilities(other(values))
        out.append((logs.exp() * (logs - anchor)).sum(-1))
    return out


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Return the values of tokens at their places, 0 elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
