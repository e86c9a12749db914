"""Seconds a step beside TRL's online DPO with the IPO loss, the only online trainer from preferences that TRL still has.

Same model, prompts, oracle and number of tokens; two responses a prompt, as TRL has no other number.
"""

from __future__ import annotations

import importlib
import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import NOT_INSTALLED, PROCESSOR_NOTE, Report, ensure_agreement, in_turns
from benchmarks.trl_work import BETA, Watch, Work, by_nlhfsim, by_trl, our_trainer, trained
from nlhfsim.errors import MissingExtraError

TOLERANCE = 1e-5
"""Of loss and gradient, relative to their largest entry: both sides run in float32."""
DEFAULTS, EXACT, TUNED = "TRL, its defaults", "TRL, its defaults in float32", "TRL, float32, cache on, no logging"
OURS = {"nlhfsim, Online IPO": "online_ipo", "nlhfsim, Nash Prox": "nash_prox"}
_FLOAT32 = {"bf16": False}
_TUNED = {**_FLOAT32, "logging_strategy": "no", "gradient_checkpointing": False}


def run(*, quick: bool, out: Path) -> Report:
    """Compare loss and gradient on the same responses, then time whole steps in turns.

    Raises
    ------
    DisagreementError
        If loss or gradient differ, or a trainer makes another number of tokens.
    """
    repeats, steps, work = (1, 2, Work(new_tokens=8)) if quick else (4, 6, Work())
    report = Report(
        "trl",
        f"A step of {2 * work.prompts} responses of {work.new_tokens} tokens, beside TRL",
        {
            "contestant": "trainer",
            "s_min": "s a step",
            "s_median": "median",
            "tokens_per_second": "tokens/s",
            "ratio": "times nlhfsim's Online IPO",
            "error": "gradient off by",
            "note": "note",
        },
        settings={"beta": BETA, "prompts": work.prompts, "repeats": repeats, "steps": steps, "new_tokens": work.new_tokens},
    )
    missing = missing_library()
    if missing is not None:
        report.rows.append({"contestant": missing, "note": NOT_INSTALLED})
        return report
    import torch

    torch.set_num_threads(1)
    off = gradient_error(work)
    calls: dict[str, Callable[[], list[float]]] = {
        DEFAULTS: partial(by_trl, work, steps),
        EXACT: partial(by_trl, work, steps, **_FLOAT32),
        TUNED: partial(by_trl, work, steps, **_TUNED),
        **{name: partial(by_nlhfsim, work, method, steps) for name, method in OURS.items()},
    }
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    turns = in_turns({name: partial(_kept, found[name], call) for name, call in calls.items()}, repeats)
    best = {name: min(statistics.median(one) for one in found[name]) for name in turns}
    ours = next(iter(OURS))
    for name, seconds in best.items():
        middle = statistics.median(sum(found[name], []))
        row: dict[str, Any] = {"contestant": name, "s_min": seconds, "s_median": middle, "seconds": found[name]}
        row |= {"tokens_per_second": work.tokens / seconds, "ratio": seconds / best[ours]}
        report.rows.append(row | ({"error": off} if name == TUNED else {}))
    report.aim("TRL at its defaults over Online IPO, at least 4", best[DEFAULTS] / best[ours], 4.0, at_least=True)
    report.aim("TRL with its cache over Online IPO, at least 1.1", best[TUNED] / best[ours], 1.1, at_least=True)
    report.notes = [
        f"{sum(weight.numel() for weight in work.model().parameters()):,} weights, vocabulary of {work.vocabulary:,}, float32; "
        f"{work.prompts} prompts of 6 to 12 tokens; one vote a pair on rock, paper and scissors",
        "every response has its full length; TRL's IPO loss and gradient are 4/β times ours, checked on responses that it drew",
        "TRL's defaults are bfloat16 by autocast and computing activations again, which turns the cache of generation off",
        f"s a step: median of {steps} steps, best of {repeats} turns",
        PROCESSOR_NOTE,
    ]
    return report


def missing_library() -> str | None:
    """Return the name of what cannot be imported of what is needed to stand beside TRL, None if all can."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        for name in ("nlhfsim.llm", "trl.experimental.online_dpo", "datasets"):
            importlib.import_module(name)
    except MissingExtraError:
        return "nlhfsim.llm"
    except ImportError:
        return "TRL"
    return None


def _kept(seconds: list[list[float]], call: Callable[[], list[float]]) -> None:
    seconds.append(call())


def gradient_error(work: Work) -> float:
    """Return how far ours is from TRL's gradient on the responses and votes of its first step, away from the reference.

    Raises
    ------
    DisagreementError
        If the loss or the gradient is not β/4 times TRL's.
    """
    import torch

    moved = work.model()
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    watch, ours = Watch(work, keep_gradient=True), our_trainer(work, "online_ipo", 1)
    ours.policies.model.load_state_dict(moved.state_dict())
    trained(work, moved, watch, 1, work.model(), temperature=1.0, max_grad_norm=0.0, **_TUNED)
    loss = ours.estimator.backward(*_as_ours(ours, watch)).loss
    ensure_agreement("TRL's loss", [BETA / 4 * watch.losses[0] / loss], [1.0], TOLERANCE)
    own = {name: weight.grad for name, weight in ours.policies.parameters.items()}
    largest = max(float(values.abs().max()) for values in own.values())
    return max(
        ensure_agreement(f"TRL's gradient of {name}", BETA / 4 * watch.gradient[name] / largest, own[name] / largest, TOLERANCE)
        for name in own
    )


def _as_ours(trainer: Any, watch: Watch) -> tuple[Any, Any]:
    """Return TRL's responses and votes as ours, the two responses to a prompt next to each other."""
    import torch

    from nlhfsim.llm.estimate import Labels
    from nlhfsim.llm.logprobs import Responses
    from nlhfsim.llm.sampling import pad_left

    half = len(watch.tokens) // 2
    order = [row for k in range(half) for row in (k, half + k)]
    tokens, mask = pad_left([trainer.tokenizer(watch.prompts[row])["input_ids"] for row in order], "cpu")
    drawn = torch.tensor([watch.tokens[row] for row in order])
    there = torch.ones_like(drawn, dtype=torch.bool)
    responses = Responses(tokens, mask, drawn, there, torch.zeros(len(order), dtype=torch.bool))
    # A tie goes to the first, in TRL.
    first = torch.tensor([0.5 if watch.votes[k] >= watch.votes[half + k] else -0.5 for k in range(half)])
    centred = torch.zeros(half, 2, 2)
    centred[:, 0, 1], centred[:, 1, 0] = first, -first
    valid = ~torch.eye(2, dtype=torch.bool).expand(half, 2, 2)
    return responses, Labels(centred, valid, np.array([]), half, 0)
