"""Whole steps beside TRL's online DPO with the IPO loss: at its defaults, and tuned."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import torch

from benchmarks._measure import NOT_INSTALLED, Report, Section
from benchmarks.gpu.device import free, now, peak
from benchmarks.gpu.sizes import Sizes
from benchmarks.trl import OURS, missing_library
from benchmarks.trl_work import Work, by_nlhfsim, by_trl

DEFAULTS, TUNED = "TRL, its defaults", "TRL, tuned"
_TUNED = {"logging_strategy": "no", "gradient_checkpointing": False}


def run(found: Section, sizes: Sizes, where: torch.device) -> None:
    """Time steps of ours, and of TRL where it can be imported."""
    work = _work(sizes, where)
    found.title = f"A step of {2 * work.prompts} responses of {work.new_tokens} tokens, beside TRL"
    found.columns = {
        "contestant": "trainer",
        "step": "s a step",
        "generated": "tokens/s of the whole step",
        "ratio": "times nlhfsim's Online IPO",
        "at_once": "prompts at a time",
        "memory": "peak GB",
        "note": "note",
    }
    found.notes = [
        f"two responses to each of {work.prompts} prompts of {work.prompt_tokens[0]} tokens, as TRL makes no other number; "
        f"median of {sizes.trl_steps} steps behind one that is not counted",
        f"TRL has float32 weights, bfloat16 by autocast and by default activations computed again; ours is {sizes.precision}",
        "tuned: activations kept, so that generation uses its cache; no logging; as many prompts at a time as memory allows",
    ]
    missing = missing_library()
    if missing is not None:
        found.rows.append({"contestant": missing, "note": NOT_INSTALLED})
        if missing == "nlhfsim.llm":
            return
    for name, method in OURS.items():
        free()
        _add(found, work, name, by_nlhfsim(work, method, sizes.trl_steps), work.ours["micro_batch_prompts"])
    if missing is None:
        free()
        _add(found, work, DEFAULTS, by_trl(work, sizes.trl_steps), work.at_once)
        _add(found, work, TUNED, *_tuned(work, sizes.trl_steps))


def _work(sizes: Sizes, where: torch.device) -> Work:
    ours: dict[str, Any] = {
        "precision": sizes.precision,
        "micro_batch_prompts": max(1, sizes.micro_batch * sizes.group // 2),
        "logprob_chunk": sizes.chunk,
    }
    return Work(
        model=lambda: sizes.model.build(where),
        vocabulary=sizes.model.vocabulary,
        prompts=sizes.trl_prompts,
        at_once=sizes.trl_at_once,
        prompt_tokens=(sizes.prompt_tokens, sizes.prompt_tokens),
        new_tokens=sizes.trl_new_tokens,
        on_gpu=where.type == "cuda",
        clock=now,
        ours=ours,
    )


def _tuned(work: Work, steps: int) -> tuple[list[float], int]:
    """Return seconds of TRL's steps, and how many prompts it took at a time: as many as there is memory for."""
    at_once = work.prompts
    while True:
        free()
        try:
            return by_trl(replace(work, at_once=at_once), steps, **_TUNED), at_once
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
        at_once //= 2


def _add(found: Section, work: Work, name: str, seconds: list[float], at_once: int) -> None:
    row: dict[str, Any] = {"contestant": name, "step": statistics.median(seconds), "steps": seconds, "at_once": at_once}
    ours = next((other["step"] for other in found.rows if "step" in other), row["step"])
    found.rows.append(row | {"ratio": row["step"] / ours, "generated": work.tokens / row["step"], "memory": peak()})


def aims(report: Report, found: Section) -> None:
    """Hold what a GPU did against what it should do."""
    ratios = {row["contestant"]: row["ratio"] for row in found.rows if "ratio" in row}
    if DEFAULTS in ratios:
        report.aim("a step at least 8 times as fast as TRL at its defaults", ratios[DEFAULTS], 8.0, at_least=True)
    if TUNED in ratios:
        report.aim("a step at least 2.5 times as fast as TRL tuned", ratios[TUNED], 2.5, at_least=True)
