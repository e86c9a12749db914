"""What is measured on prompts that are held out: win rates, KL, entropy, and how far the oracle depends on the order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from nlhfsim.errors import Array
from nlhfsim.llm.estimate import Estimator
from nlhfsim.llm.logprobs import Responses
from nlhfsim.llm.memory import advice_on
from nlhfsim.llm.oracles import Prompt, ask

_STREAM = 0x6576616C
"""Keeps the draws of evaluations apart from those of training: how often one evaluates changes nothing else."""


@torch.no_grad()
def evaluate(estimator: Estimator, prompts: Sequence[Prompt], step: int) -> dict[str, float | None]:
    """Return the measures of the policy as it is.

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
        with a verdict), ``win_rate_reference_error`` and ``win_rate_target_error`` (their standard errors, see `win_rate`),
        ``kl_reference`` and ``kl_target`` (of a response, summed over its tokens from whole distributions),
        ``entropy`` (of a token), ``length``, ``order_disagreement`` (mean distance of p(y, y') + p(y', y) from 1), ``invalid``
        (share of pairs without a verdict). None: there is no target.
    """
    device = estimator.policies.device
    seed = int(np.random.SeedSequence(estimator.config.seed, spawn_key=(_STREAM, step)).generate_state(1)[0])
    generator = torch.Generator(device=device).manual_seed(seed)
    others = tuple(name for name in ("reference", "target") if name in estimator.policies.names)
    copies = estimator.config.evaluation_responses
    own = estimator.draw(prompts, (("policy", 1.0),), copies, generator)
    prompts_of = [prompt for prompt in prompts for _ in range(copies)]
    found: dict[str, float | None] = {"win_rate_target": None, "win_rate_target_error": None, "kl_target": None}
    swaps, lost = [], 0
    for name in others:
        their = estimator.draw(prompts, ((name, 1.0),), copies, generator)
        wins, swap = _compare(estimator, prompts_of, own, their)
        found[f"win_rate_{name}"], found[f"win_rate_{name}_error"] = win_rate(wins.reshape(len(prompts), copies))
        swaps.append(swap)
        lost += int(np.isnan(wins).sum())
    entropy, *divergences = _sums(estimator, own, others)
    found |= {f"kl_{name}": total / len(own) for name, total in zip(others, divergences, strict=True)}
    tokens = int(own.mask.sum())
    return found | {
        "entropy": entropy / tokens,
        "length": tokens / len(own),
        "order_disagreement": _mean(np.concatenate(swaps)),
        "invalid": lost / (len(others) * len(own)),
    }


def _sums(estimator: Estimator, own: Responses, others: tuple[str, ...]) -> list[float]:
    """Return entropy, and KL to each of the others, summed over all tokens; as many responses at once as a step has."""
    config = estimator.config
    at_once = (config.micro_batch_prompts or config.prompts_per_step) * config.group_size
    totals = np.zeros(1 + len(others))
    with advice_on("evaluation"):
        for begin in range(0, len(own), at_once):
            scores = estimator.score("policy", own.rows(slice(begin, begin + at_once)), entropy=True, against=others)
            totals += [float(values.double().sum()) for values in (scores.entropy, *scores.divergences) if values is not None]
    return totals.tolist()


def _compare(estimator: Estimator, prompts: Sequence[Prompt], own: Responses, their: Responses) -> tuple[Array, Array]:
    """Return the chance in each pair, NaN without a verdict, and distances between the two orders; equal ones tie, unasked."""
    left, right = estimator.texts(own), estimator.texts(their)
    asked = [k for k in range(len(prompts)) if left[k].tokens != right[k].tokens]
    pairs = [prompts[k] for k in asked], [left[k] for k in asked], [right[k] for k in asked]
    first = ask(estimator.oracle, *pairs)
    second = ask(estimator.oracle, pairs[0], pairs[2], pairs[1])
    wins = np.full(len(prompts), 0.5)
    wins[asked] = np.where(first.valid, first.probabilities, np.nan)
    both = first.valid & second.valid
    swap = np.abs(first.probabilities + second.probabilities - 1)[both]
    return wins, swap


def win_rate(wins: Array) -> tuple[float, float]:
    """Return the mean chance over all pairs with a verdict, and its standard error.

    What is drawn independently are the prompts: responses to one share what is easy or hard about it. So the error is clustered
    by prompt, from the sums of the distances of a prompt's pairs from the mean, with the factor G/(G-1) of G prompts. The scatter
    of prompts and of the responses on both sides is in it; the oracle's probabilities count as they are.

    Parameters
    ----------
    wins : numpy.ndarray
        Shape ``(prompts, responses)``, NaN where there is no verdict. A prompt without any is none.

    Returns
    -------
    tuple of float
        NaN where there is nothing to tell them from: one prompt says nothing about others.

    Examples
    --------
    >>> import numpy as np
    >>> [round(value, 3) for value in win_rate(np.array([[0.9, 0.9], [0.5, 0.5]]))]  # of 0.9 and 0.5, whose spread is 0.28
    [0.7, 0.2]
    """
    there = ~np.isnan(wins)
    mean = _mean(wins[there])
    off = np.where(there, wins - mean, 0.0).sum(1)[there.any(1)]
    prompts = len(off)
    return mean, math.sqrt(prompts / (prompts - 1) * float(off @ off)) / int(there.sum()) if prompts > 1 else math.nan


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) else math.nan
