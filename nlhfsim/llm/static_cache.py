"""Writing with a cache of a fixed size, so that a GPU can replay the step of a token as one graph.

Launching the kernels of a transformer one by one takes longer than computing one token. With keys, values, mask and positions at
places in memory that do not change, a step is recorded once, and replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, StaticLayer
from transformers.modeling_utils import AttentionInterface

from nlhfsim.llm.policy import Policies

Run = Callable[[], Tensor]
_ATTENTION = "nlhfsim_one_query"


class StaticWriter:
    """A view whose keys and values lie in tensors of a fixed size; one set of responses after the other is written with it.

    Parameters
    ----------
    policies : Policies
        The models.
    view : str
        Which of them writes.
    count, size : int
        Responses, and tokens of prompt and response together that there is room for.
    record : callable, optional
        Makes of a function without arguments one that does the same again, see `cuda_graph`; None: it is called each time.

    Attributes
    ----------
    logits : torch.Tensor
        Of the next token, shape ``(count, vocabulary)``.
    """

    logits: Tensor

    def __init__(self, policies: Policies, view: str, count: int, size: int, record: Callable[[Run], Run] | None = None) -> None:
        self.policies, self.view, self.count, self.size, self._record = policies, view, count, size, record
        self._tokens = torch.zeros(count, 1, dtype=torch.long, device=policies.device)
        self._positions = torch.zeros_like(self._tokens)
        self._place = torch.zeros(1, dtype=torch.long, device=policies.device)
        self._layers: list[_Slots] = []
        self._run: Run | None = None

    def begin(self, prompts: Any, copies: int) -> None:
        """Take over prompts that a `Writer` has read, for `copies` responses to each."""
        layers, width = prompts.cache.layers, prompts.mask.shape[1]
        if not self._layers:
            self._allocate(prompts, layers)
        for own, layer in zip(self._layers, layers, strict=True):
            own.keys[:, :, :width] = layer.keys.repeat_interleave(copies, 0)
            own.values[:, :, :width] = layer.values.repeat_interleave(copies, 0)
        there = prompts.mask.repeat_interleave(copies, 0)
        self._bias.fill_(self._closed)
        self._bias[:, 0, 0, :width].masked_fill_(there.bool(), 0.0)
        self._positions.copy_(there.sum(-1, keepdim=True) - 1)
        self._filled = width
        self.logits = prompts.logits.repeat_interleave(copies, 0)
        if self._run is None:
            self._place.fill_(width)  # what recording writes there is written over by the first token
            self._run = self._forward if self._record is None else self._record(self._forward)

    def _allocate(self, prompts: Any, layers: list[Any]) -> None:
        for layer in layers:
            keys, values = (
                part.new_zeros(self.count, part.shape[1], self.size, part.shape[3]) for part in (layer.keys, layer.values)
            )
            self._layers.append(_Slots(keys, values, self._place))
        cache = Cache(layers=list(self._layers))
        self._arguments = {prompts.name: cache, "position_ids": self._positions, "use_cache": True} | prompts.last
        dtype = self._layers[0].keys.dtype
        self._closed = torch.finfo(dtype).min
        self._bias = torch.empty((self.count, 1, 1, self.size), dtype=dtype, device=self.policies.device)

    def advance(self, chosen: Tensor, there: Tensor) -> None:
        """Read one more token of every response; what is read behind its end changes nothing of it."""
        assert self._run is not None
        self._tokens.copy_(chosen[:, None])
        self._positions.add_(1)
        self._bias[:, 0, 0, self._filled] = 0.0
        self._place.fill_(self._filled)
        self._filled += 1
        self.logits = self._run()

    def _forward(self) -> Tensor:
        with self.policies.view(self.view) as model, _one_query(model):
            logits: Tensor = model(input_ids=self._tokens, attention_mask=self._bias, **self._arguments).logits
        return logits[:, -1]


class _Slots(StaticLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, shape ``(N, heads, size, width)``; the next token's go where `place` says.

    That of transformers counts the tokens itself, in each layer, and in another way in every version.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        super().__init__(keys.shape[2])
        self.keys, self.values, self.place, self.is_initialized = keys, values, place, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Put a token's in, and return those of all tokens."""
        self.keys.index_copy_(2, self.place, key_states)
        self.values.index_copy_(2, self.place, value_states)
        return self.keys, self.values

    def get_seq_length(self, *_: Any) -> int:
        """Return 0: positions and mask are given, so nothing follows from it."""
        return 0


@contextmanager
def _one_query(model: Any) -> Iterator[None]:
    """Let the model attend by `one_query` here."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def one_query(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return softmax(s q Kᵀ + mask) V of one query a row; query heads that share keys and values read them where they are.

    Parameters
    ----------
    module : torch.nn.Module
        Who asks; not used.
    query : torch.Tensor
        Shape ``(N, heads, 1, width)``.
    key, value : torch.Tensor
        Shape ``(N, shared heads, size, width)``.
    attention_mask : torch.Tensor
        Shape ``(N, 1, 1, size)``, added to the scores.
    scaling : float, optional
        s; default ``width ** -0.5``.
    softcap : float, optional
        c: scores are c tanh(scores / c) before the mask.

    Returns
    -------
    tuple
        Shape ``(N, 1, heads, width)``, and None for the weights.
    """
    rows, heads, width = query.shape[0], query.shape[1], query.shape[-1]
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    scores = _products(grouped, key) * (width**-0.5 if scaling is None else scaling)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    weights = torch.softmax(scores + attention_mask, dim=-1).to(value.dtype)
    return (weights @ value).reshape(rows, 1, heads, value.shape[-1]), None


def _products(query: Tensor, key: Tensor) -> Tensor:
    """Return q Kᵀ, at least float32: in half precision the softmax of rounded scores is far from that of other kernels."""
    if query.dtype in (torch.float32, torch.float64):
        return query @ key.mT
    if query.is_cuda and hasattr(torch.ops.aten.bmm, "dtype"):  # sums as they are, without a float32 copy of all keys
        return torch.bmm(query.flatten(0, 1), key.flatten(0, 1).mT, out_dtype=torch.float32).view(*query.shape[:3], -1)
    return query.float() @ key.float().mT


AttentionInterface.register(_ATTENTION, one_query)


def cuda_graph(run: Run, device: torch.device) -> Run:
    """Record what a function does on a GPU; what is returned does it again, from and to the same places in memory."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # libraries set themselves up when they are first called, which cannot be recorded
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run()

    def replay() -> Tensor:
        with torch.cuda.device(device):
            graph.replay()
        return out

    return replay
