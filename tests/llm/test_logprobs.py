"""Log-probabilities of responses: chunks, padding and the output layers of model families change nothing.

Truth: whole logits of the model itself, a response at a time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small import MODELS, cyclic_oracle, gpt2, qwen2
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

import nlhfsim.llm.logprobs as logprobs
from nlhfsim.llm import NashConfig, NashTrainer
from nlhfsim.llm.logprobs import Responses, TokenSpace, score, splits, states

SHAPE: dict[str, Any] = dict(
    vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24
)


def gemma() -> Any:
    """Caps its logits."""
    return Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=8, initializer_range=1.0, final_logit_softcapping=2.0)).eval()


def cohere() -> Any:
    """Scales its logits."""
    return CohereForCausalLM(CohereConfig(**SHAPE, logit_scale=0.25, initializer_range=0.5, pad_token_id=0)).eval()


def granite() -> Any:
    """Divides its logits."""
    return GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=4.0, initializer_range=0.5)).eval()


FAMILIES = {"gemma": gemma, "cohere": cohere, "granite": granite} | {
    name: (lambda make: lambda: make(11).eval())(make) for name, make in MODELS.items()
}


def responses_of(pairs: list[tuple[list[int], list[int]]], left: int = 0, right: int = 0) -> Responses:
    """Prompts and responses, padded by more than is needed."""
    wide, long = max(len(p) for p, _ in pairs) + left, max(len(r) for _, r in pairs) + right
    return Responses(
        torch.tensor([[0] * (wide - len(p)) + p for p, _ in pairs]),
        torch.tensor([[False] * (wide - len(p)) + [True] * len(p) for p, _ in pairs]),
        torch.tensor([r + [0] * (long - len(r)) for _, r in pairs]),
        torch.tensor([[True] * len(r) + [False] * (long - len(r)) for _, r in pairs]),
        torch.zeros(len(pairs), dtype=torch.bool),
    )


PAIRS = [([3, 1], [4, 4, 10]), ([9], [2]), ([5, 0, 7], [0, 0])]


def by_definition(model: Any, pairs: list[tuple[list[int], list[int]]], temperature: float) -> list[list[float]]:
    """A response at a time."""
    found = []
    for prompt, response in pairs:
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].double() / temperature
        found.append(logits.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0].tolist())
    return found


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("split", [True, False])
def test_families(family: str, split: bool) -> None:
    """Through the backbone and the output layer, or through whole logits."""
    torch.manual_seed(0)
    model = FAMILIES[family]()
    assert splits(model)
    responses = responses_of(PAIRS, left=2, right=3)
    found = score(states(model, responses, split), responses, TokenSpace(0.8), chunk=2).log_probabilities
    right = by_definition(model, PAIRS, 0.8)
    for row, mask, expected in zip(found, responses.mask, right, strict=True):
        np.testing.assert_allclose(row[mask].detach(), expected, rtol=0, atol=3e-6)
        assert not row[~mask].any()


def test_a_family_that_does_more_is_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that is not the output layer's is noticed, and whole logits are taken."""
    model = gemma()
    model.config.final_logit_softcapping = None
    right = splits(model)
    model.config.final_logit_softcapping = 2.0
    monkeypatch.setattr(logprobs, "head_of", lambda model: model.get_output_embeddings())
    assert right and not splits(model)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunks_change_neither_values_nor_gradients(chunk: int) -> None:
    """Against all tokens at once without recomputation."""
    model = qwen2(11)
    responses = responses_of(PAIRS)
    whole = torch.cat([responses.prompts, responses.tokens], 1)
    score(states(model, responses, True), responses, TokenSpace(), chunk=chunk).sums.square().sum().backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    total: Any = 0.0
    for prompt, response in PAIRS:
        logs = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        total = total + logs.gather(-1, torch.tensor(response)[:, None]).sum().square()
    total.backward()
    assert whole.shape == (3, 6)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(found[name], weight.grad, rtol=1e-4, atol=1e-4)


def test_entropy_and_divergence_over_the_vocabulary() -> None:
    """At every token of a response, over all tokens; with a gradient for the divergence."""
    model, other = qwen2(11), qwen2(11, seed=1)
    responses = responses_of(PAIRS)
    anchor = states(other, responses, split=True)
    anchor = (anchor[0].detach(), anchor[1])
    found = score(states(model, responses, True), responses, TokenSpace(), chunk=2, anchors=(anchor,), entropy=True)
    assert found.entropy is not None and not found.entropy.requires_grad and found.divergences[0].requires_grad
    for k, (prompt, response) in enumerate(PAIRS):
        own, their = (
            one(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
            for one in (model, other)
        )
        length = len(response)
        torch.testing.assert_close(found.entropy[k, :length].double(), -(own.exp() * own).sum(-1), rtol=1e-5, atol=1e-5)
        right = (own.exp() * (own - their)).sum(-1)
        torch.testing.assert_close(found.divergences[0][k, :length].double(), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", list(MODELS))
@pytest.mark.parametrize("estimator", ["pair", "token"])
def test_padding_changes_nothing(family: str, estimator: str) -> None:
    """More padding on either side: the same loss and the same gradient."""
    config = NashConfig(method="nash_prox", max_new_tokens=3, stop_tokens=(2,), kl_estimator=estimator, group_size=4)
    trainer = NashTrainer(MODELS[family](), None, cyclic_oracle(3, 3, (2,)), [[0], [1, 2], [2, 0, 1]], config)
    responses = trainer.estimator.draw(trainer.prompts, (("policy", 1.0),), 4)
    labels = trainer.estimator.judge(trainer.prompts, responses)
    pad = torch.nn.functional.pad
    wider = replace(
        responses,
        prompts=pad(responses.prompts, (3, 0), value=1),
        prompt_mask=pad(responses.prompt_mask, (3, 0)),
        tokens=pad(responses.tokens, (0, 4), value=1),
        mask=pad(responses.mask, (0, 4)),
        sampled=pad(responses.sampled, (0, 4), value=1.0),
    )
    found = []
    for batch in (responses, wider):
        sums = trainer.estimator._micro_batch(batch, labels.centred, labels.valid, int(labels.valid.sum()), len(batch))
        found.append(
            (sums, {name: weight.grad.clone() for name, weight in trainer.policies.masters.items() if weight.grad is not None})
        )
        trainer.optimizer.clear()
    np.testing.assert_allclose(found[0][0].apart, found[1][0].apart, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[0][0][:4], found[1][0][:4], rtol=1e-5)
    for name, slope in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], slope, rtol=1e-4, atol=1e-6)


def test_memory_of_chunks() -> None:
    """The largest tensor is a chunk times the vocabulary, not all tokens times it."""
    model = gpt2(500)
    responses = responses_of([([1, 2], [3] * 12)] * 10)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
            nonlocal largest
            out = function(*arguments, **(keywords or {}))
            sizes = [one.numel() for one in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(one, torch.Tensor)]
            largest = max([largest, *sizes])
            return out

    with Watch():
        score(states(model, responses, True), responses, TokenSpace(), chunk=8).sums.sum().backward()
    assert largest < 120 * 500 and largest >= 8 * 500
