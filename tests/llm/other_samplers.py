"""Samplers of the tests: transformers' own generation on a copy of the model, and what watches or breaks one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from nlhfsim.llm import NashTrainer
from nlhfsim.llm.samplers import Samples, SamplingRequest, Weights


class Generating:
    """Draws by `generate` of transformers, from models that were made of nothing but what was handed over.

    Attributes
    ----------
    models : dict
        By view.
    requests : list
        Those that came.
    """

    def __init__(self, make: Callable[[], Any], logs: bool = True) -> None:
        self.make, self.logs = make, logs
        self.models: dict[str, Any] = {}
        self.requests: list[SamplingRequest] = []

    def load(self, view: str, weights: Weights) -> None:
        self.models[view] = loaded(self.make(), weights)

    def sample(self, request: SamplingRequest) -> Any:
        self.requests.append(request)
        rows, logs = generated(self.models[request.view], request)
        return Samples(rows, logs) if self.logs else rows


@torch.no_grad()
def loaded(model: Any, weights: Weights) -> Any:
    """A model whose weights are those handed over, and no other."""
    given = dict(weights)
    model = model.to(next(iter(given.values())).dtype)
    lacking = set(dict(model.named_parameters())) - set(given)
    assert not lacking, f"{lacking} were not handed over"
    model.load_state_dict(given, strict=False)
    return model.eval()


@torch.no_grad()
def generated(model: Any, request: SamplingRequest) -> tuple[list[list[int]], list[list[float]]]:
    """Responses and the log-probabilities of their tokens."""
    width = max(map(len, request.prompts))
    tokens = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in request.prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in request.prompts])
    allowed = None if request.allowed_tokens is None else list(request.allowed_tokens)
    with torch.random.fork_rng():
        torch.manual_seed(request.seed)
        out = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            do_sample=True,
            num_return_sequences=request.copies,
            max_new_tokens=request.max_new_tokens,
            temperature=request.temperature,
            top_k=request.top_k or 0,
            top_p=request.top_p or 1.0,
            eos_token_id=list(request.stop_tokens) or None,
            pad_token_id=0,
            prefix_allowed_tokens_fn=None if allowed is None else lambda *_: allowed,
            return_dict_in_generate=True,
            output_logits=True,
        )
    logits = torch.stack(out.logits, 1)
    if allowed is not None:
        outside = torch.ones(logits.shape[-1], dtype=torch.bool)
        outside[allowed] = False
        logits = logits.masked_fill(outside, -torch.inf)
    logs = (logits / request.temperature).log_softmax(-1)
    rows, found = [], []
    for row, log in zip(out.sequences[:, width:].tolist(), logs, strict=True):
        ends = [j + 1 for j, token in enumerate(row) if token in request.stop_tokens]
        rows.append(row[: ends[0] if ends else len(row)])
        found.append([float(log[j, token]) for j, token in enumerate(rows[-1])])
    return rows, found


class Watched:
    """Notes what is asked of a sampler, and refuses to draw from weights that are not those in force."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.trainer: NashTrainer | None = None
        self.seen: list[str] = []
        self._held: dict[str, dict[str, Any]] = {}

    def load(self, view: str, weights: Weights) -> None:
        self.seen.append(f"load {view}")
        self._held[view] = {name: weight.clone() for name, weight in weights}
        self.sampler.load(view, weights)

    def sample(self, request: SamplingRequest) -> Any:
        assert self.trainer is not None
        self.seen.append(f"draw {request.view}")
        now = dict(Weights(self.trainer.policies, request.view))
        held = self._held[request.view]
        assert set(now) == set(held) and all(torch.equal(now[name], held[name]) for name in now), "stale weights"
        return self.sampler.sample(request)


class Replaying:
    """Returns rows that were drawn before."""

    def __init__(self, draws: Sequence[list[list[int]]], log: float | None = None) -> None:
        self.draws, self.log = list(draws), log

    def load(self, view: str, weights: Weights) -> None: ...

    def sample(self, request: SamplingRequest) -> Any:
        rows = self.draws.pop(0)
        return rows if self.log is None else Samples(rows, [[self.log] * len(row) for row in rows])


class Failing:
    """Fails at its n-th draw, or at its n-th load, and never again."""

    def __init__(self, sampler: Any, *, draw: int = 0, load: int = 0) -> None:
        self.sampler, self.left = sampler, {"draw": draw, "load": load}

    def _count(self, what: str) -> None:
        self.left[what] -= 1
        if self.left[what] == 0:
            raise ConnectionError(f"gone at a {what}")

    def load(self, view: str, weights: Weights) -> None:
        self._count("load")
        self.sampler.load(view, weights)

    def sample(self, request: SamplingRequest) -> Any:
        self._count("draw")
        return self.sampler.sample(request)
