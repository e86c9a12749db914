"""Correctness before speed: the trainer's gradient is the simulator's, and all ways to decode draw the same responses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._measure import DisagreementError, Section, ensure_agreement
from benchmarks.gpu.device import free, timed
from benchmarks.gpu.sizes import TINY, Shape, Sizes

LIMITS = {
    ("GPT2", "float64"): 1e-12,
    ("GPT2", "float32"): 1e-5,
    ("GPT2", "bfloat16"): 0.1,
    ("Qwen2", "float64"): 5e-6,
    ("Qwen2", "float32"): 5e-6,
    ("Qwen2", "bfloat16"): 0.1,
}
"""Largest difference of a weight's gradient over the largest gradient; Qwen 2 normalizes in float32 whatever its weights are."""
FLIPPED = 0.02
"""Largest share of tokens that rounding to bfloat16 may change, of those behind the same tokens."""
_VOCABULARY, _LENGTH = 4, 2
_PROMPTS = [[0], [1, 2], [2, 0, 1]]


def run(found: Section, sizes: Sizes, where: torch.device) -> None:
    """Compare the gradient of the trainer with that of the simulator's step on the same pairs.

    Raises
    ------
    DisagreementError
        If one is further away than its limit.
    """
    found.title = "Cross-check: the trainer's gradient beside the simulator's step"
    found.columns = {
        "model": "model",
        "precision": "precision",
        "pairs": "off by, same pairs",
        "mean": "expectation",
        "limit": "limit",
        "worst": "furthest method",
        "seconds": "s",
    }
    found.notes = [
        f"{len(sizes.checked)} methods, {_VOCABULARY**_LENGTH} responses to each of {len(_PROMPTS)} prompts; the largest "
        "difference in the gradient of any weight, over the largest gradient"
    ]
    for family, precision in LIMITS:
        rows, seconds = timed(lambda: [(name, _off(family, precision, name, where)) for name in sizes.checked])
        worst, (pairs, mean) = max(rows, key=lambda row: max(row[1]))
        limit = LIMITS[family, precision]
        row = {"model": family, "precision": precision, "pairs": pairs, "mean": mean, "limit": limit, "seconds": seconds}
        found.rows.append(row | {"worst": worst, "all": dict(rows)})
        ensure_agreement(f"the gradient of {worst} on {family} in {precision}", [pairs, mean], [0.0, 0.0], limit)


def _off(family: str, precision: str, method: str, where: torch.device) -> tuple[float, float]:
    from nlhfsim.llm import NashConfig, crosscheck, oracles

    responses = list(itertools.product(range(_VOCABULARY), repeat=_LENGTH))
    ahead = np.triu(np.random.default_rng(0).uniform(-0.5, 0.5, (len(responses), len(responses))), 1)
    oracle = oracles.MatrixOracle(0.5 + ahead - ahead.T, responses)
    config = NashConfig(method=method, max_new_tokens=_LENGTH, stop_tokens=(), precision=precision, group_size=6)
    found = crosscheck(_model(family), None, oracle, _PROMPTS, config, device=where)
    return found.error, found.expected_error


def _model(family: str) -> Any:
    """Return a small model on the processor: in float64 all of a GPT-2 is, unlike of models that normalize in float32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    if family == "Qwen2":
        return Shape("Qwen2", _VOCABULARY, 32, 2, 4, 2, 8, 48).build("cpu")
    torch.manual_seed(0)
    shape: dict[str, Any] = dict(n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=None, eos_token_id=None)
    return GPT2LMHeadModel(GPT2Config(vocab_size=_VOCABULARY, initializer_range=0.1, **shape))


def decodings(sizes: Sizes, where: torch.device) -> list[dict[str, Any]]:
    """Compare what two ways to decode draw with the same generator.

    Raises
    ------
    DisagreementError
        If a token differs in float32, or more of them than rounding explains.
    """
    rows = []
    for shape, precision in dict.fromkeys(((TINY, "float32"), (sizes.model, sizes.precision))):
        slow, fast = (_drawn(shape, precision, name, sizes.flips, where) for name in sizes.decodings)
        share, limit = flipped(slow, fast), FLIPPED if precision == "bfloat16" else 0.0
        if not share <= limit:
            words = f"{sizes.decodings[1]} decoding draws another token than {sizes.decodings[0]} in {share:.2%} of cases"
            raise DisagreementError(f"{words}, in {precision}, where at most {limit:.2%} may be rounding")
        weights = sum(weight.numel() for weight in shape.build("meta").parameters())
        rows.append({"precision": precision, "weights": weights, "flipped": share, "tokens": slow.numel()})
    return rows


def told(sizes: Sizes, row: dict[str, Any]) -> str:
    """Return in words what comparing two ways to decode has found of one model."""
    return (
        f"{' and '.join(sizes.decodings)} decoding, same generator, {row['tokens']} tokens by {row['weights']:,} weights in "
        f"{row['precision']}: {row['flipped']:.2%} of tokens differ behind the same tokens"
    )


def flipped(left: Tensor, right: Tensor) -> float:
    """Return how often a token differs behind the same tokens: responses that do, over tokens up to the first that does.

    What follows another token is drawn from another distribution, and says nothing.
    """
    differ = left != right
    same = differ.int().cumsum(1) - differ.int() == 0
    return float((differ & same).sum()) / float(same.sum())


def _drawn(shape: Shape, precision: str, decoding: str, flips: tuple[int, int, int], where: torch.device) -> Tensor:
    """Return drawn tokens; of eight only: among all of them one has so little probability that any rounding changes it."""
    from nlhfsim.llm import NashConfig, NashTrainer, oracles

    free()
    prompts, copies, length = flips
    config = NashConfig(
        method="online_ipo",
        precision=precision,
        decoding=decoding,
        allowed_tokens=tuple(range(8)),
        stop_tokens=(),
        max_new_tokens=length,
    )
    oracle, given = oracles.FunctionOracle(lambda prompt, left, right: 0.5), tokens_of(prompts, length, shape.vocabulary)
    trainer = NashTrainer(shape.build(where), None, oracle, given, config, device=where)
    return torch.tensor([one.tokens for group in trainer.sample(given, copies) for one in group])


def tokens_of(prompts: int, length: int, vocabulary: int) -> list[list[int]]:
    """Return prompts of random tokens."""
    drawn: list[list[int]] = np.random.default_rng(0).integers(0, vocabulary, (prompts, length)).tolist()
    return drawn
