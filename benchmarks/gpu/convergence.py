"""How near a model comes to the exact equilibrium of a game that is small enough to enumerate, from votes alone.

Preferences have a circle between the classes of first tokens, 0.8 to 0.2, and a transitive part, in which every token has a score
at every place that differs from prompt to prompt.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp

from benchmarks._measure import Floats, Report, Section, ensure_agreement
from benchmarks.gpu.device import free, peak, timed
from benchmarks.gpu.sizes import Shape, Sizes

METHODS = {"Online IPO": "online_ipo", "Nash Prox": "nash_prox"}
BETA = 0.1
GOAL = 1e-2
TOLERANCE = 1e-5
"""Of exploitability: the model runs in float32."""
CYCLE, TRANSITIVE = 0.3, 0.2
PROMPTS = [[0, 1], [1, 2]]
MARKS = 4
"""Evaluations, beside the one at the start."""
_HIDDEN = 64
"""Features of the model that the learning rate of the sizes is that of."""


def preferences(tokens: int, length: int) -> Floats:
    """Return the preferences, shape ``(prompts, responses, responses)``, all in [0, 1]."""
    responses = np.array(list(itertools.product(range(tokens), repeat=length)))
    classes = responses[:, 0] % 3
    circle = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])[np.ix_(classes, classes)]
    table = np.random.default_rng(0).standard_normal((len(PROMPTS), length, tokens)) / np.sqrt(length)
    scores = table[:, np.arange(length), responses].sum(-1)
    found: Floats = 0.5 + CYCLE * circle + TRANSITIVE * np.tanh(scores[:, :, None] - scores[:, None, :])
    return found


def run(found: Section, sizes: Sizes, where: torch.device) -> None:
    """Train both methods with the same configuration, and report how far each is from the equilibrium along the way.

    Raises
    ------
    DisagreementError
        If the exploitability that a trainer reports is not that of its model.
    """
    from nlhfsim.llm import oracles

    shape, game = _player(sizes, where), preferences(sizes.game_tokens, sizes.game_length)
    oracle = oracles.MatrixOracle(game, list(itertools.product(range(sizes.game_tokens), repeat=sizes.game_length)))
    marks = [round(k * sizes.game_steps / MARKS) for k in range(MARKS + 1)]
    found.title = f"Convergence to the exact equilibrium from votes: {game.shape[-1]:,} responses, {len(game)} prompts"
    found.columns = {
        "method": "method",
        **{f"mark{k}": f"E_β after {steps} steps" for k, steps in enumerate(marks)},
        "kl": "KL(π* ‖ π) at the end",
        "seconds": "s a run",
        "step": "s a step",
        "memory": "peak GB",
    }
    for name, method in METHODS.items():
        free()
        trainer = _trainer(sizes, where, shape, method, oracle)
        played, seconds = timed(trainer.fit)
        path = [float(value) for value in played.evaluations["exploitability"]]
        ensure_agreement("exploitability", path[-1], by_definition(trainer, game), TOLERANCE)
        phases = [values for key, values in played.steps.items() if key.startswith("seconds_")]
        row: dict[str, Any] = {"method": name, "seconds": seconds, "step": float(np.median(np.sum(phases, axis=0))), "path": path}
        row |= {f"mark{k}": value for k, value in enumerate(path)}
        found.rows.append(row | {"kl": float(played.evaluations["kl_equilibrium"][-1]), "memory": peak()})
        del trainer
    weights = sum(weight.numel() for weight in shape.build("meta").parameters())
    found.notes = [
        f"{weights:,} weights, all trained, in float32; responses of {sizes.game_length} tokens, {sizes.game_tokens} of them "
        f"allowed; β = {BETA:g}; {sizes.game_group} responses to each prompt in a step, one vote a pair",
        f"AdamW, learning rate {_rate(sizes, shape):.3g} falling linearly to 0, the same for both: {sizes.game_rate:g} at "
        f"{_HIDDEN} features, divided by how many times as many there are; each method else at its defaults; one seed",
        "E_β over all responses, held against its definition in NumPy from the model's raw logits at the end; s a run with all "
        "evaluations and solving for the equilibrium, s a step without, median",
    ]


def aims(report: Report, found: Section) -> None:
    """Hold what a GPU did against what it should do."""
    report.aim(f"E_β below {GOAL:g} from votes: Nash Prox", found.rows[-1]["path"][-1], GOAL)


def _player(sizes: Sizes, where: torch.device) -> Shape:
    """Return the largest model that has the time."""
    for shape in sizes.players[:-1]:
        free()
        if _pace(sizes, where, shape) * sizes.game_steps <= sizes.game_seconds:
            return shape
    return sizes.players[-1]


def _pace(sizes: Sizes, where: torch.device, shape: Shape, steps: int = 3) -> float:
    """Return seconds a step, behind two that are not counted."""
    trainer = _trainer(sizes, where, shape, "nash_prox", None)
    for _ in range(2):
        trainer.step()
    return timed(lambda: [trainer.step() for _ in range(steps)])[1] / steps


def _trainer(sizes: Sizes, where: torch.device, shape: Shape, method: str, oracle: Any) -> Any:
    """Return a trainer on the game; without its oracle one that does not evaluate, of which only the time counts."""
    from nlhfsim.llm import NashConfig, NashTrainer, oracles

    config = NashConfig(
        method=method,
        beta=BETA,
        allowed_tokens=tuple(range(sizes.game_tokens)),
        stop_tokens=(),
        max_new_tokens=sizes.game_length,
        prompts_per_step=len(PROMPTS),
        group_size=sizes.game_group,
        steps=sizes.game_steps,
        learning_rate=_rate(sizes, shape),
        schedule="linear",
        exact_check=oracle is not None,
        evaluate_every=max(1, sizes.game_steps // MARKS),
    )
    oracle = oracle or oracles.rock_paper_scissors(lambda response: response.tokens[0] % 3)
    return NashTrainer(shape.build(where), None, oracle, PROMPTS, config, device=where)


def _rate(sizes: Sizes, shape: Shape) -> float:
    """Return the learning rate: with Adam, a step changes a feature in proportion to how many features feed it."""
    return sizes.game_rate * _HIDDEN / shape.hidden


def by_definition(trainer: Any, game: Floats) -> float:
    """Return E_β, what the best response to a model gains over it, mean over prompts, in NumPy from the model's raw logits."""
    logs, reference = (_log_policy(trainer, view) for view in ("policy", "reference"))
    gains = np.einsum("kij,kj->ki", game - 0.5, np.exp(logs))
    best = BETA * logsumexp(reference + gains / BETA, axis=1)
    own = -BETA * (np.exp(logs) * (logs - reference)).sum(axis=1)
    return float((best - own).mean())


@torch.no_grad()
def _log_policy(trainer: Any, view: str) -> Floats:
    """Return the log-probability of every response, from forward passes without padding, shape ``(prompts, responses)``."""
    tokens, length = len(trainer.config.allowed_tokens), trainer.config.max_new_tokens
    responses = itertools.product(range(tokens), repeat=length)
    rows = torch.tensor([[*prompt, *response] for response in responses for prompt in PROMPTS], device=trainer.policies.device)
    sums = []
    for part in torch.split(rows, 256):
        with trainer.policies.view(view) as model:
            logits = model(input_ids=part).logits[:, -length - 1 : -1, :tokens]
        logs = log_softmax(logits.double().cpu().numpy(), axis=-1)
        sums.append(np.take_along_axis(logs, part[:, -length:, None].cpu().numpy(), axis=-1).sum(axis=(1, 2)))
    found: Floats = np.concatenate(sums).reshape(-1, len(PROMPTS)).T
    return found
