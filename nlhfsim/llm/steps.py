"""One step of a method: its draws, its estimate of the gradient, the optimizer, the target."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from scipy.special import entr

from nlhfsim.errors import InputError, NlhfsimWarning, OracleError
from nlhfsim.llm import methods
from nlhfsim.llm.estimate import Clock, Labels, Sums
from nlhfsim.llm.logprobs import Responses
from nlhfsim.llm.losses import gains_against
from nlhfsim.llm.memory import advice_on, peak_memory
from nlhfsim.llm.oracles import Prompt
from nlhfsim.llm.oracles._check import unread_by
from nlhfsim.llm.prompts import PromptStream
from nlhfsim.llm.sampling import mixture_of

if TYPE_CHECKING:
    from nlhfsim.llm.trainer import NashTrainer

_MOST_IN_VAIN = 10
"""Steps in a row without a verdict that a run goes on: an oracle that fails now and then has one in most steps, and one that
always does costs its questions for nothing."""


def take_step(trainer: NashTrainer) -> dict[str, Any]:
    """Do a step, and return its metrics; if it fails, everything is as it was before.

    Where not one pair has a verdict nothing is known of the gradient, and the policy stays: also an optimizer's momentum would
    move it.
    """
    estimator, optimizer, config = trainer.estimator, trainer.optimizer, trainer.config
    estimator.clock = Clock(device=trainer.policies.device)
    position, generator = trainer.stream.position, estimator.generator.get_state()
    voter = estimator.voter.bit_generator.state
    counts = trainer.queries, trainer.tokens
    try:
        index = trainer.processes.share(trainer.stream.take(config.prompts_per_step))
        found = exact_gradient(trainer, index) if config.feedback == "exact" else sampled_gradient(trainer, index)
        norm, rate = 0.0, 0.0
        if found.pop("usable", True):
            with estimator.clock.phase("optimizer"), advice_on("optimizer"):
                trainer.torn = True
                norm, rate = optimizer.step(trainer.taken)
        if not math.isfinite(norm):
            trainer.torn = False
            raise InputError(_not_finite(trainer))
    except BaseException:
        optimizer.clear()
        trainer.stream = PromptStream(len(trainer.prompts), config.seed, position=position)
        estimator.generator.set_state(generator)
        estimator.voter.bit_generator.state = voter
        trainer.queries, trainer.tokens = counts
        raise
    trainer.taken += 1
    trainer.policies.model.nlhfsim_steps = trainer.taken
    with estimator.clock.phase("target"):
        trainer.policies.follow(config.follow, trainer.taken)
    trainer.torn = False
    return {"kind": "step", "step": trainer.taken, "gradient_norm": norm, "learning_rate": rate} | found | _speed(trainer, found)


def _not_finite(trainer: NashTrainer) -> str:
    config = trainer.config
    size = f"beta = {config.beta:g}" + (f" and 1/proximal_step = {config.pull:g}" if config.pull else "")
    return (
        f"the gradient of step {trainer.taken + 1} is not finite: lower learning_rate = {config.learning_rate:g}, or {size}, or "
        f"raise temperature = {config.temperature:g}"
        + (", or take precision = 'float32'" if config.precision == "bfloat16" else "")
    )


def exact_gradient(trainer: NashTrainer, index: Sequence[int]) -> dict[str, Any]:
    """Put the expected gradient on some prompts into the weights."""
    method, given, exact = methods.get(trainer.config.method), trainer.config.parameters, trainer.exact
    assert exact is not None
    drawn = mixture_of(method.mixing(given))
    with trainer.estimator.clock.phase("policy"):
        opponents = exact.log_mixture(drawn if method.opponent_mixing is None else mixture_of(method.opponent_mixing(given)))
        if method.half_step:
            with _and_back(trainer):
                exact.backward(index, opponents, drawn, trainer.optimizer.collect)
                trainer.optimizer.step(trainer.taken)
                opponents = exact.log_policy()
        loss = exact.backward(index, opponents, drawn, trainer.optimizer.collect)
    return {"loss": loss, "queries": trainer.queries, "tokens": trainer.tokens}


def sampled_gradient(trainer: NashTrainer, index: Sequence[int]) -> dict[str, Any]:
    """Put an estimate of the gradient on some prompts into the weights."""
    config, estimator, optimizer = trainer.config, trainer.estimator, trainer.optimizer
    method, given, group = methods.get(config.method), config.parameters, config.group_size
    prompts = [trainer.prompts[k] for k in index]
    responses = _drawn(trainer, prompts, method.mixing(given), group * (2 if method.half_step else 1))
    opponents = None
    if method.opponent_mixing is not None:
        opponents = _drawn(trainer, prompts, method.opponent_mixing(given), group)
    if method.half_step:
        first, responses = _halves(responses, group)
        with _and_back(trainer):
            _count(trainer, first, None, labels := estimator.judge(prompts, first))
            if _usable(trainer, labels):
                estimator.backward(first, labels, optimizer.collect)
                optimizer.step(trainer.taken)
            opponents = _drawn(trainer, prompts, 0.0, group)
    labels = estimator.judge(prompts, responses, opponents)
    _count(trainer, responses, opponents, labels)
    found = _metrics(trainer, responses, labels, estimator.backward(responses, labels, optimizer.collect))
    if trainer.processes.any(labels.asked > labels.invalid):  # where all responses are equal, nobody was asked
        trainer.in_vain = 0
    if _usable(trainer, labels):
        return found
    trainer.in_vain += 1
    if trainer.in_vain >= _MOST_IN_VAIN:
        raise _without_verdicts(trainer)
    warnings.warn("no pair of a step had a verdict, so the policy stayed: does the oracle work?", NlhfsimWarning, stacklevel=2)
    optimizer.clear()
    return found | {"usable": False, "loss": math.nan}


def _without_verdicts(trainer: NashTrainer) -> OracleError:
    """Return what all processes stop with, each at this step, after too many without a verdict; counting begins anew."""
    trainer.in_vain = 0
    said = next((words for words in trainer.processes.gather(unread_by(trainer.estimator.oracle)) if words), "")
    last = f" the last time: {said}" if said else ""
    error = OracleError(
        f"no pair of {_MOST_IN_VAIN} steps in a row had a verdict, so the policy does not move: does the oracle work?{last}"
    )
    trainer.processes.failure = error
    return error


def _drawn(trainer: NashTrainer, prompts: Sequence[Prompt], mixing: float, copies: int) -> Responses:
    """Draw; where one process cannot, all stop at this step, with everything saved."""
    with trainer.processes.together():
        return trainer.estimator.draw(prompts, mixture_of(mixing), copies)


def _usable(trainer: NashTrainer, labels: Labels) -> bool:
    """Return whether the verdicts give a gradient: one is there, and if opponents are others, two responses met some."""
    counted = gains_against(labels.centred, labels.valid)[1] if labels.against_others else labels.valid
    nothing = labels.asked > 0 and labels.invalid == labels.asked
    return trainer.processes.any(bool(counted.any()) and not nothing)


@contextmanager
def _and_back(trainer: NashTrainer) -> Iterator[None]:
    """Take the weights and the optimizer back to where they are now."""
    before = trainer.optimizer.snapshot()
    trainer.torn = True
    try:
        yield
    finally:
        trainer.optimizer.restore(before)
        trainer.torn = False


def _halves(responses: Responses, group: int) -> tuple[Responses, Responses]:
    """Return the first and the second half of every group."""
    number = torch.arange(len(responses), device=responses.tokens.device) % (2 * group)
    return responses.rows(number < group), responses.rows(number >= group)


def _count(trainer: NashTrainer, responses: Responses, opponents: Responses | None, labels: Labels) -> None:
    tokens = int(responses.mask.sum()) + (int(opponents.mask.sum()) if opponents is not None else 0)
    asked, made = trainer.processes.sums(labels.asked, tokens)
    trainer.queries += int(asked)
    trainer.tokens += int(made)


def _metrics(trainer: NashTrainer, responses: Responses, labels: Labels, sums: Sums) -> dict[str, Any]:
    """Return the measures of a step's draws, over all processes."""
    entropies = entr(labels.probabilities) + entr(1 - labels.probabilities)
    tokens, count, ended, asked, invalid, entropy, answered = trainer.processes.sums(
        int(responses.mask.sum()),
        len(responses),
        int(responses.ended.sum()),
        labels.asked,
        labels.invalid,
        float(entropies.sum()),
        len(entropies),
    )
    return {
        "loss": sums.loss,
        "length": tokens / count,
        "entropy": -sums.log_policy * count / tokens,
        "label_entropy": entropy / answered if answered else math.nan,
        "invalid": invalid / max(1.0, asked),
        "ended": ended / count,
        "kl_reference": sums.log_policy - sums.log_reference,
        "kl_target": None if sums.log_target is None else sums.log_policy - sums.log_target,
        "queries": trainer.queries,
        "tokens": trainer.tokens,
    } | sums.apart.metrics()


def _speed(trainer: NashTrainer, found: dict[str, Any]) -> dict[str, Any]:
    """Return seconds a phase, tokens a second, and memory."""
    seconds = trainer.estimator.clock.seconds
    made = found.get("length", 0.0) * trainer.config.prompts_per_step * trainer.config.group_size
    training = sum(seconds.get(name, 0.0) for name in ("anchors", "policy", "optimizer", "target"))
    return {
        "generation_tokens_per_second": made / seconds["generation"] if seconds.get("generation") else None,
        "training_tokens_per_second": made / training if made and training else None,
        "peak_memory": peak_memory(trainer.policies.device),
        "seconds": dict(seconds),
    }
