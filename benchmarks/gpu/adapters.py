"""Memory of a step with low-rank adapters, beside the weights themselves and what training all of them needs."""

from __future__ import annotations

import math
from typing import Any

import torch

from benchmarks._measure import DisagreementError, Section
from benchmarks.gpu.agreement import tokens_of
from benchmarks.gpu.device import forget_peak, free, peak, timed
from benchmarks.gpu.sizes import Sizes

RANK = 16
_GROUP = 4
_BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}


def run(found: Section, sizes: Sizes, where: torch.device) -> None:
    """Take steps with adapters, and report their memory.

    Raises
    ------
    DisagreementError
        If a step does not make its tokens, or its loss is not finite.
    """
    found.title = f"Low-rank adapters of rank {RANK}: memory of a step of Nash Prox"
    found.columns = {
        "weights": "weights",
        "adapters": "of adapters",
        "own": "weights GB",
        "memory": "peak GB",
        "full": "all weights trained, without activations GB",
        "step": "s a step",
    }
    free()
    trainer = _trainer(sizes, where)
    trainer.step()
    forget_peak()
    record, seconds = timed(trainer.step)
    if record["length"] != sizes.adapted_tokens or not math.isfinite(record["loss"]):
        raise DisagreementError(f"a step made {record['length']} tokens a response, and its loss is {record['loss']}")
    policies = trainer.policies
    weights = sum(weight.numel() for _, weight in policies.reference_weights())
    found.rows.append(
        {
            "weights": f"{weights:,}",
            "adapters": f"{sum(weight.numel() for weight in policies.masters.values()):,}",
            "own": weights * _BYTES[sizes.precision] / 1e9,
            "memory": peak(),
            "full": full_bytes(weights, sizes.precision, with_target=True) / 1e9,
            "step": seconds,
        }
    )
    found.notes = [
        f"{_GROUP} responses of {sizes.adapted_tokens} tokens to each of {sizes.adapted_prompts} prompts of "
        f"{sizes.adapted_tokens}, activations of one prompt at a time; {sizes.precision}; the second step; GB are 10⁹ bytes",
        f"all weights trained: {full_bytes(1, sizes.precision, with_target=True)} bytes a weight, by arithmetic: policy, "
        "reference and target; where they are less precise than float32, float32 copies of policy and target, and of the "
        "gradient; the gradient; AdamW's two means",
        *([] if where.type == "cuda" else ["the peak is that of a GPU's memory: not measured on a processor"]),
    ]


def full_bytes(weights: int, precision: str, *, with_target: bool) -> int:
    """Return the bytes that training all weights takes, without activations: three models, masters, gradient and AdamW."""
    size, exact = _BYTES[precision], max(4, _BYTES[precision])
    models = 3 if with_target else 2
    copies = 0 if size == exact else (models - 1) * exact
    gradient = exact if size == exact else exact + size
    return weights * (models * size + copies + gradient + 2 * exact)


def _trainer(sizes: Sizes, where: torch.device) -> Any:
    from nlhfsim.llm import NashConfig, NashTrainer, oracles

    config = NashConfig(
        method="nash_prox",
        precision=sizes.precision,
        lora_rank=RANK,
        prompts_per_step=sizes.adapted_prompts,
        group_size=_GROUP,
        micro_batch_prompts=1,
        max_new_tokens=sizes.adapted_tokens,
        stop_tokens=(),
        steps=2,
    )
    oracle = oracles.rock_paper_scissors(lambda response: response.tokens[0] % 3)
    prompts = tokens_of(sizes.adapted_prompts, sizes.adapted_tokens, sizes.adapted.vocabulary)
    return NashTrainer(sizes.adapted.build(where), None, oracle, prompts, config, device=where)
