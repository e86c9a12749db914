"""Throughput of full fine-tuning: tokens a second, seconds a phase, memory, and the share of what the machine can do."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch

from benchmarks._measure import DisagreementError, Report, Section
from benchmarks.gpu.agreement import decodings, told, tokens_of
from benchmarks.gpu.device import ceiling, forget_peak, free, now, peak
from benchmarks.gpu.flops import FORMULA, Operations
from benchmarks.gpu.sizes import Sizes

METHODS = {"Online IPO": ("online_ipo", 1), "Nash Prox": ("nash_prox", 2)}
"""Each with how many anchors it has: the reference, and the target."""
PHASES = ("generation", "oracle", "anchors", "policy", "optimizer", "target")
_TRAINING = ("anchors", "policy", "optimizer", "target")


def run(found: Section, sizes: Sizes, where: torch.device) -> None:
    """Measure the ceiling, compare ways to decode, then time steps of both methods with both.

    Raises
    ------
    DisagreementError
        If ways to decode disagree, or a step does not do the work that it is timed for.
    """
    free()
    most = ceiling(where, sizes.product, getattr(torch, sizes.precision))
    found.title = "Throughput of full fine-tuning"
    found.columns = {
        "method": "method",
        "decoding": "decoding",
        "step": "s a step",
        "generated": "generated tokens/s",
        "trained": "trained tokens/s",
        **{name: f"{name} s" for name in PHASES},
        "share": "training over ceiling",
        "policy_share": "policy",
        "anchors_share": "anchors",
        "memory": "peak GB",
    }
    agreed = decodings(sizes, where)
    for decoding in sizes.decodings:
        for name in METHODS:
            free()
            found.rows.append({"method": name, "decoding": decoding} | _timed(sizes, where, name, decoding, most))
    count, weights = sizes.prompts * sizes.group, sum(weight.numel() for weight in sizes.model.build("meta").parameters())
    found.notes = [
        f"{weights:,} weights in {sizes.precision}, all trained; {count} responses of {sizes.new_tokens} tokens to "
        f"{sizes.prompts} prompts of {sizes.prompt_tokens}; medians of {' and '.join(map(str, sizes.steps))} steps of the two "
        "ways to decode, behind one that is not counted",
        f"ceiling: {most / 1e12:.3g} TFLOP/s, the best product of two matrices of {sizes.product}² in {sizes.precision}",
        f"{FORMULA}: N weights of the linear layers, H those of the output layer; backward twice that; an anchor one forward "
        "pass; nothing that is computed again; training: policy and anchors, over the seconds of all phases behind the oracle",
        *(told(sizes, row) for row in agreed),
        f"Nash Prox over Online IPO: {over(found):+.1%} of a step's seconds, {sizes.decodings[-1]} decoding",
    ]


def over(found: Section) -> float:
    """Return how much longer a step of Nash Prox takes than one of Online IPO, as a share; both with the fast decoding."""
    ours, other = (row["step"] for row in found.rows[-2:])
    return float(other / ours - 1)


def aims(report: Report, found: Section) -> None:
    """Hold what a GPU did against what it should do."""
    fast = found.rows[-2]
    report.aim("generation at least 80,000 tokens/s, as a graph", fast["generated"], 80_000.0, at_least=True)
    report.aim("training of Online IPO at least 30 % of the ceiling", fast["share"], 0.3, at_least=True)
    report.aim("a step of Nash Prox at most 20 % over Online IPO", over(found), 0.2)


def _timed(sizes: Sizes, where: torch.device, name: str, decoding: str, most: float) -> dict[str, Any]:
    """Return what steps of a method take."""
    method, anchors = METHODS[name]
    trainer = _trainer(sizes, where, method, decoding)
    records = []
    for _ in range(sizes.steps[sizes.decodings.index(decoding)] + 1):
        if trainer.taken == 1:
            forget_peak()
        begin, before = now(), trainer.tokens
        record = trainer.step()
        records.append(record | {"all": now() - begin})
        _ensure_done(sizes, record, trainer.tokens - before)
    middle = {phase: statistics.median(one["seconds"].get(phase, 0.0) for one in records[1:]) for phase in PHASES}
    tokens, count = sizes.prompts * sizes.group * sizes.new_tokens, sizes.prompts * sizes.group
    operations = Operations.of(trainer.policies.model)
    policy = count * operations.training(sizes.prompt_tokens, sizes.new_tokens)
    passes = anchors * count * operations.forward(sizes.prompt_tokens, sizes.new_tokens)
    training = sum(middle[phase] for phase in _TRAINING)
    return middle | {
        "step": statistics.median(one["all"] for one in records[1:]),
        "steps": [one["all"] for one in records],
        "generated": tokens / middle["generation"],
        "trained": tokens / training,
        "share": (policy + passes) / training / most,
        "policy_share": policy / middle["policy"] / most,
        "anchors_share": passes / middle["anchors"] / most,
        "memory": peak(),
    }


def _trainer(sizes: Sizes, where: torch.device, method: str, decoding: str) -> Any:
    from nlhfsim.llm import NashConfig, NashTrainer, oracles

    config = NashConfig(
        method=method,
        precision=sizes.precision,
        decoding=decoding,
        prompts_per_step=sizes.prompts,
        group_size=sizes.group,
        micro_batch_prompts=sizes.micro_batch,
        logprob_chunk=sizes.chunk,
        max_new_tokens=sizes.new_tokens,
        stop_tokens=(),
        steps=max(sizes.steps) + 1,
    )
    oracle = oracles.rock_paper_scissors(lambda response: response.tokens[0] % 3)
    prompts = tokens_of(sizes.prompts, sizes.prompt_tokens, sizes.model.vocabulary)
    return NashTrainer(sizes.model.build(where), None, oracle, prompts, config, device=where)


def _ensure_done(sizes: Sizes, record: dict[str, Any], made: int) -> None:
    wanted = sizes.prompts * sizes.group * sizes.new_tokens
    if record["length"] != sizes.new_tokens or made != wanted or not np.isfinite(record["loss"]):
        raise DisagreementError(f"a step made {made} tokens instead of {wanted}, or its loss {record['loss']} is not finite")
