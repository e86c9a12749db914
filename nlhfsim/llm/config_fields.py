"""What every field of a configuration must be; each check returns the value in its exact type, or says what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nlhfsim.errors import (
    InputError,
    ensure_between,
    ensure_choice,
    ensure_flag,
    ensure_integer,
    ensure_nonnegative,
    ensure_positive,
)
from nlhfsim.llm import methods

PRECISIONS = ("float32", "bfloat16", "float64")
SCHEDULES = ("constant", "linear", "cosine", "inverse_time")
OPTIMIZERS = ("adamw", "sgd")
DECODINGS = ("auto", "eager", "static", "graph")
Check = Callable[[str, Any], Any]


def _choice(choices: tuple[str, ...]) -> Check:
    return lambda name, value: ensure_choice(name, value, choices)


def _integer(minimum: int) -> Check:
    return lambda name, value: ensure_integer(name, value, minimum)


def _share(name: str, value: Any) -> float:
    if ensure_between(name, value, 0, 1) == 0:
        raise InputError(f"{name} = 0 must be above 0")
    return float(value)


def _unit(name: str, value: Any) -> float:
    return ensure_between(name, value, 0, 1)


def _tokens(name: str, value: Any) -> tuple[int, ...]:
    try:
        tokens = tuple(ensure_integer(f"{name}[{k}]", one) for k, one in enumerate(value))
    except TypeError:
        raise InputError(f"{name} = {value!r} must be a list of token numbers") from None
    if name == "allowed_tokens" and not tokens:
        raise InputError(f"{name} = [] must hold at least one token number")
    if (twice := next((one for one in tokens if tokens.count(one) > 1), None)) is not None:
        raise InputError(f"{name} = {list(tokens)} holds {twice} twice, must hold every token number once")
    return tokens


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(one, str) and one for one in value):
        raise InputError(f"{name} = {value!r} must be a list of names")
    if not (names := tuple(value)):
        raise InputError(f"{name} = [] must hold at least one name")
    return names


def _betas(name: str, value: Any) -> tuple[float, float]:
    try:
        first, second = value
    except (TypeError, ValueError):
        raise InputError(f"{name} = {value!r} must be two numbers") from None
    pair = ensure_between(f"{name}[0]", first, 0, 1), ensure_between(f"{name}[1]", second, 0, 1)
    if max(pair) == 1:
        raise InputError(f"{name} = {list(pair)} must be below 1")
    return pair


CHECKS: dict[str, Check] = {
    "method": lambda name, value: ensure_choice(name, value, methods.names()),
    "beta": ensure_nonnegative,
    "proximal_step": ensure_positive,
    "averaging": _share,
    "refresh_every": _integer(1),
    "inner_steps": _integer(1),
    "mixing": _unit,
    "group_size": _integer(2),
    "votes": ensure_flag,
    "feedback": _choice(("sampled", "exact")),
    "kl_estimator": _choice(("pair", "token")),
    "steps": _integer(1),
    "prompts_per_step": _integer(1),
    "micro_batch_prompts": _integer(1),
    "max_prompt_tokens": _integer(1),
    "max_new_tokens": _integer(1),
    "temperature": ensure_positive,
    "top_k": _integer(1),
    "top_p": _share,
    "allow_off_policy": ensure_flag,
    "allowed_tokens": _tokens,
    "stop_tokens": _tokens,
    "optimizer": _choice(OPTIMIZERS),
    "learning_rate": ensure_positive,
    "schedule": _choice(SCHEDULES),
    "decay_steps": _integer(1),
    "warmup_steps": _integer(0),
    "adam_betas": _betas,
    "adam_epsilon": ensure_positive,
    "weight_decay": ensure_nonnegative,
    "gradient_clip": ensure_positive,
    "precision": _choice(PRECISIONS),
    "lora_rank": _integer(1),
    "lora_alpha": ensure_positive,
    "lora_modules": _names,
    "activation_checkpointing": ensure_flag,
    "logprob_chunk": _integer(1),
    "generation_batch": _integer(1),
    "decoding": _choice(DECODINGS),
    "evaluation_responses": _integer(1),
    "exact_check": ensure_flag,
    "evaluate_every": _integer(1),
    "checkpoint_every": _integer(1),
    "keep_checkpoints": _integer(1),
    "seed": _integer(0),
}
