"""What is measured on prompts that are held out: win rates, KL, entropy, and how far the oracle depends on the order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nlhfsim.llm.estimate import Estimator
from nlhfsim.llm.logprobs import Responses
from nlhfsim.llm.oracles import Prompt, ask

_STREAM = 0x6576616C
"""Keeps the draws of evaluations apart from those of training: how often one evaluates changes nothing else."""


@torch.no_grad()
def evaluate(estimator: Estimator, prompts: Sequence[Prompt], step: int) -> dict[str, float | None]:
    """Return the measures of the policy as it is; one response of each policy to each prompt.

    Parameters
    ----------
    estimator : Estimator
        Models, oracle and configuration; its generators are left alone.
    prompts : sequence of Prompt
        Held out.
    step : int
        Steps done: evaluations of different steps draw differently.

    Returns
    -------
    dict
        ``win_rate_reference`` and ``win_rate_target`` (mean probability that the policy's response is preferred, over the pairs
        with a verdict), ``kl_reference`` and ``kl_target`` (of a response, summed over its tokens from whole distributions),
        ``entropy`` (of a token), ``length``, ``order_disagreement`` (mean distance of p(y, y') + p(y', y) from 1), ``invalid``
        (share of pairs without a verdict). None: there is no target.
    """
    device = estimator.policies.device
    seed = int(np.random.SeedSequence(estimator.config.seed, spawn_key=(_STREAM, step)).generate_state(1)[0])
    generator = torch.Generator(device=device).manual_seed(seed)
    others = tuple(name for name in ("reference", "target") if name in estimator.policies.names)
    own = estimator.draw(prompts, (("policy", 1.0),), 1, generator)
    found: dict[str, float | None] = {"win_rate_target": None, "kl_target": None}
    swaps, invalid = [], []
    for name in others:
        their = estimator.draw(prompts, ((name, 1.0),), 1, generator)
        rate, swap, lost = _compare(estimator, prompts, own, their)
        found[f"win_rate_{name}"] = rate
        swaps.append(swap)
        invalid.append(lost)
    scores = estimator.score("policy", own, entropy=True, against=others)
    for name, divergence in zip(others, scores.divergences, strict=True):
        found[f"kl_{name}"] = float(divergence.sum(-1).double().mean())
    assert scores.entropy is not None
    tokens = int(own.mask.sum())
    return found | {
        "entropy": float(scores.entropy.double().sum()) / tokens,
        "length": tokens / len(own),
        "order_disagreement": _mean(swaps),
        "invalid": _mean(invalid),
    }


def _compare(estimator: Estimator, prompts: Sequence[Prompt], own: Responses, their: Responses) -> tuple[float, float, float]:
    """Return win rate, distance between the two orders, and share without a verdict; equal responses are a tie, and not asked."""
    left, right = estimator.texts(own), estimator.texts(their)
    asked = [k for k in range(len(prompts)) if left[k].tokens != right[k].tokens]
    pairs = [prompts[k] for k in asked], [left[k] for k in asked], [right[k] for k in asked]
    first = ask(estimator.oracle, *pairs)
    second = ask(estimator.oracle, pairs[0], pairs[2], pairs[1])
    ties = len(prompts) - len(asked)
    wins = np.append(first.probabilities[first.valid], np.full(ties, 0.5))
    both = first.valid & second.valid
    swap = np.abs(first.probabilities + second.probabilities - 1)[both]
    return _mean(wins), _mean(swap), 1 - len(wins) / len(prompts)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
