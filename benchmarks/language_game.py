"""A transformer of 42 thousand weights that plays a game whose equilibrium is known: three prompts, 27 responses of three tokens.

Responses beat each other in a circle of classes, 0.9 to 0.1, plus a part that is transitive and differs from prompt to prompt.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks._measure import Floats, ensure_agreement
from nlhfsim.llm import NashConfig, NashTrainer, oracles

# Two different tokens each: attention without absolute positions cannot count a token that is repeated from the beginning.
PROMPTS = [[0, 1], [1, 2], [2, 0]]
RESPONSES = list(itertools.product(range(3), repeat=3))
CYCLE, TRANSITIVE = 0.4, 0.1
TOLERANCE = 1e-5
"""Of exploitability: the model runs in float32."""


class Played(NamedTuple):
    """One run.

    Attributes
    ----------
    exploitability : list of float
        E_β at the start and at equal distances up to the end.
    seconds, processor : float
        Wall and processor time of training and evaluations.
    weights : int
        Of the model.
    """

    exploitability: list[float]
    seconds: float
    processor: float
    weights: int


def preferences() -> Floats:
    """Return the preferences, shape ``(prompts, responses, responses)``, all in [0, 1]."""
    classes = np.array([sum(response) % 3 for response in RESPONSES])
    circle = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])[np.ix_(classes, classes)]
    scores = np.random.default_rng(0).standard_normal((len(PROMPTS), len(RESPONSES)))
    transitive = np.tanh((scores[:, :, None] - scores[:, None, :]) / 2)
    found: Floats = 0.5 + CYCLE * circle + TRANSITIVE * transitive
    return found


def model() -> Any:
    """Return the reference, which is not uniform: its weights are drawn seven times as wide as is usual."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=3, intermediate_size=96, initializer_range=0.15, **shape))


def play(marks: int = 4, **given: Any) -> Played:
    """Train by a configuration, evaluate `marks` times, and hold the last evaluation against the definition.

    Raises
    ------
    DisagreementError
        If the exploitability that the trainer reports is not that of its model.
    """
    torch.set_num_threads(1)
    config = NashConfig(
        max_new_tokens=3,
        stop_tokens=(),
        prompts_per_step=3,
        schedule="linear",
        evaluate_every=given["steps"] // marks,
        exact_check=True,
        **given,
    )
    oracle = oracles.MatrixOracle(preferences(), RESPONSES)
    trainer = NashTrainer(model(), None, oracle, PROMPTS, config)
    begin, before = time.perf_counter(), time.process_time()
    run = trainer.fit()
    spent = time.perf_counter() - begin, time.process_time() - before
    found = [float(value) for value in run.evaluations["exploitability"]]
    policy = trainer.policies.model
    ensure_agreement("exploitability", found[-1], by_definition(policy, config.beta), TOLERANCE)
    return Played(found, *spent, sum(weight.numel() for weight in policy.parameters()))


def by_definition(policy: Any, beta: float) -> float:
    """Return E_β, what the best response to a model gains over it, mean over prompts, in NumPy from the model's raw logits."""
    logs, reference = _log_policy(policy), _log_policy(model())
    gains = np.einsum("kij,kj->ki", preferences() - 0.5, np.exp(logs))
    best = beta * logsumexp(reference + gains / beta, axis=1)
    own = -beta * (np.exp(logs) * (logs - reference)).sum(axis=1)
    return float((best - own).mean())


@torch.no_grad()
def _log_policy(policy: Any) -> Floats:
    rows = torch.tensor([[*prompt, *response] for prompt in PROMPTS for response in RESPONSES])
    logs = log_softmax(policy(rows).logits.double().numpy(), axis=-1)
    tokens = rows.numpy()[:, 2:, None]
    sums: Floats = np.take_along_axis(logs[:, 1:-1], tokens, axis=-1).sum(axis=(1, 2)).reshape(len(PROMPTS), -1)
    return sums
