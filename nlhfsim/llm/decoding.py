"""What a view writes with, token after token: a cache that grows, or one of a fixed size."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor

from nlhfsim.errors import InputError, NlhfsimWarning
from nlhfsim.llm.logprobs import forward_arguments
from nlhfsim.llm.model import context_length
from nlhfsim.llm.policy import Policies
from nlhfsim.llm.pretrained import tried
from nlhfsim.llm.static_cache import Run, StaticWriter, cuda_graph

_BLOCK = 64
"""Sizes of a fixed cache are multiples of it, so that prompts of about the same length share one."""


class Writer:
    """One view, its own cache, and its logits of the next token; the cache grows.

    Two views must not share a cache: the second would read keys and values that the first has written.

    Parameters
    ----------
    policies : Policies
        The models.
    view : str
        Which of them writes.
    tokens, mask : torch.Tensor
        Prompts, padded on the left, shape ``(N, longest)``.

    Attributes
    ----------
    logits : torch.Tensor
        Of the next token, shape ``(N, vocabulary)``.
    """

    def __init__(self, policies: Policies, view: str, tokens: Tensor, mask: Tensor) -> None:
        self.policies, self.view, self._prompts = policies, view, tokens
        with policies.view(view) as model:
            accepted = inspect.signature(model.forward).parameters
        self.name = "past_key_values" if "past_key_values" in accepted else "cache"
        self.last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.positions = "position_ids" in accepted
        self._read(tokens, mask)

    def _read(self, tokens: Tensor, mask: Tensor) -> None:
        with self.policies.view(self.view) as model:
            out = model(input_ids=tokens, use_cache=True, **forward_arguments(model, mask), **self.last)
        self.cache: Any = getattr(out, self.name, None) or getattr(out, "past_key_values", None)
        self.logits, self.mask = out.logits[:, -1], mask.long()

    def repeat(self, copies: int) -> None:
        """Go on with `copies` of each prompt, which is not read again where its cache can be copied."""
        if copies == 1:
            return
        if not all(hasattr(part, "batch_repeat_interleave") for part in (self.cache, *getattr(self.cache, "layers", ()))):
            self._read(self._prompts.repeat_interleave(copies, 0), self.mask.repeat_interleave(copies, 0))
            return
        self.cache.batch_repeat_interleave(copies)
        self.logits, self.mask = self.logits.repeat_interleave(copies, 0), self.mask.repeat_interleave(copies, 0)

    def advance(self, chosen: Tensor, there: Tensor) -> None:
        """Read one more token of every response that has one."""
        self.mask = torch.cat([self.mask, there[:, None].long()], 1)
        arguments: dict[str, Any] = {"attention_mask": self.mask, self.name: self.cache}
        if self.positions:
            arguments["position_ids"] = (self.mask.sum(-1, keepdim=True) - 1).clamp(min=0)
        with self.policies.view(self.view) as model:
            out = model(input_ids=chosen[:, None], use_cache=True, **arguments, **self.last)
        self.logits = out.logits[:, -1]


class Decoder:
    """Gives the views of some policies what they write with.

    A cache of a fixed size and its graph are kept for the next responses, one for each view: they find the weights where they
    were, as training changes them in place.

    Parameters
    ----------
    policies : Policies
        The models.
    decoding : str
        ``"eager"``: a cache that grows. ``"static"``: one of a fixed size. ``"graph"``: that, with its step as a CUDA graph.
        ``"auto"``: a graph on a GPU if the model allows it, else eager.

    Raises
    ------
    InputError
        If model or device do not allow what is asked for.
    """

    def __init__(self, policies: Policies, decoding: str) -> None:
        self.policies, self.decoding = policies, decoding
        on_gpu = policies.device.type == "cuda"
        if decoding == "graph" and not on_gpu:
            raise InputError(f"decoding = 'graph' needs a CUDA device, and this one is {policies.device.type}: take 'auto'")
        self.static = decoding in ("static", "graph") or (decoding == "auto" and on_gpu)
        self._kept: dict[str, StaticWriter] = {}
        _ensure_writes(policies)
        if self.static:
            self._or_give_up(self._try_out)

    def writer(self, view: str, tokens: Tensor, mask: Tensor, copies: int, new_tokens: int) -> Writer | StaticWriter:
        """Return what a view writes `copies` responses of at most `new_tokens` to each prompt with."""
        read = Writer(self.policies, view, tokens, mask)
        if self.static:
            found: StaticWriter | None = self._or_give_up(lambda: self._static(read, copies, new_tokens))
            if found is not None:
                return found
        read.repeat(copies)
        return read

    def _static(self, read: Writer, copies: int, new_tokens: int) -> StaticWriter:
        _ensure_plain(read, new_tokens)
        (prompts, width), view = read.mask.shape, read.view
        count, size = prompts * copies, -(-(width + new_tokens) // _BLOCK) * _BLOCK
        kept = self._kept.pop(view, None)
        if kept is None or (kept.count, kept.size) != (count, size):
            del kept  # its memory goes to the next one
            kept = StaticWriter(self.policies, view, count, size, None if self.decoding == "static" else self._recorded)
        kept.begin(read, copies)
        self._kept[view] = kept
        return kept

    def _recorded(self, run: Run) -> Run:
        return cuda_graph(run, self.policies.device)

    def _or_give_up(self, work: Any) -> Any:
        """Do what may not work with the model; from then on it decodes eagerly, or where that was not asked for, is refused."""
        kind = type(self.policies.model).__name__
        try:
            with tried(kind):
                return work()
        except InputError as error:
            if self.decoding != "auto":
                raise InputError(f"decoding = {self.decoding!r} does not work with {error}; take decoding = 'eager'") from error
            self.static = False
            warnings.warn(f"decoding eagerly, which is slower than a graph: {error}", NlhfsimWarning, stacklevel=3)

    @torch.no_grad()
    def _try_out(self) -> None:
        """Compare a token that is read with a fixed cache with the same one and a cache that grows; tried, not believed."""
        tokens, mask = _trial(self.policies)
        read = Writer(self.policies, "policy", tokens, mask)
        _ensure_plain(read, 1)
        fixed = StaticWriter(self.policies, "policy", 2, _BLOCK)
        fixed.begin(read, 1)
        for writer in (read, fixed):
            writer.advance(tokens[:, 0], mask[:, 1])
        if not _same(fixed.logits, read.logits):
            raise InputError("with a cache of a fixed size its logits are others")


def _trial(policies: Policies) -> tuple[Tensor, Tensor]:
    """Return two prompts of different lengths."""
    tokens = torch.arange(4, device=policies.device).view(2, 2) % policies.model.get_input_embeddings().num_embeddings
    return tokens, torch.tensor([[False, True], [True, True]], device=policies.device)


def _same(logits: Tensor, right: Tensor) -> bool:
    """Return whether logits say the same but for rounding, with room for TF32 and for deep models in half precision.

    What they have in common says nothing, but is rounded with them.
    """
    eps = torch.finfo(right.dtype).eps
    own, other = (part.double() - part.double().mean(-1, keepdim=True) for part in (logits, right))
    rounding = (0.05 if eps > 1e-4 else 0.01) * float(other.abs().max()) + 1.5 * eps * float(right.abs().max())
    return bool(float((own - other).abs().max()) <= rounding)


@torch.no_grad()
def _ensure_writes(policies: Policies) -> None:
    """Compare a token read with a cache, beside a longer prompt, with the same text alone and without one; tried, not believed.

    Raises
    ------
    InputError
        If the logits are others, as where a cache or a state takes no notice of padding: what is drawn would be another policy.
    """
    kind = type(policies.model).__name__
    if (context_length(policies.model) or 3) < 3:
        return  # not even this can be tried
    (tokens, mask), copies = _trial(policies), 2
    whole, there = torch.cat([tokens, tokens[:, :1]], 1), torch.cat([mask, mask[:, 1:]], 1)
    with tried(f"model is a {kind}, which cannot go on from a cache beside a longer prompt"):
        read = Writer(policies, "policy", tokens, mask)
        read.repeat(copies)
        read.advance(tokens[:, 0].repeat_interleave(copies), torch.ones(2 * copies, dtype=torch.bool, device=policies.device))
        with policies.view("policy") as model:
            padded = model(input_ids=whole, **forward_arguments(model, there)).logits[:, -1]
            alone = torch.cat([model(input_ids=row[kept][None]).logits[:, -1] for row, kept in zip(whole, there, strict=True)])
    if not bool(alone.isfinite().all()):
        raise InputError(f"model is a {kind}, whose logits are not finite: are its weights whole?")
    if not _same(padded, alone):
        raise InputError(f"model is a {kind}, whose logits beside a longer prompt are others: it takes no notice of padding")
    if not _same(read.logits, alone.repeat_interleave(copies, 0)):
        raise InputError(f"model is a {kind}, whose logits with a cache are others: what it draws would be of another policy")


def _ensure_plain(read: Writer, new_tokens: int) -> None:
    """Refuse a cache whose place one of a fixed size cannot take."""
    layers, width = getattr(read.cache, "layers", []), read.mask.shape[1]
    for layer in layers:
        window = getattr(layer, "sliding_window", None)
        if window is not None and window < width + new_tokens:
            raise InputError(f"its window of {window} tokens is shorter than prompt and response, {width + new_tokens} tokens")
        parts = [getattr(layer, name, None) for name in ("keys", "values")]
        plain = all(isinstance(part, Tensor) and part.dim() == 4 and part.shape[2] == width for part in parts)
        if not plain or hasattr(layer, "conv_states"):
            raise InputError("its cache is not of keys and values of all tokens")
    if not layers:
        raise InputError("its cache has no layers")
    if not read.positions:
        raise InputError("it takes no positions")
