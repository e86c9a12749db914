"""The configuration of a run: what is right passes unchanged through JSON, what is wrong is told with its name and value."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from nlhfsim.errors import ConfigurationError, InputError, UnknownNameError
from nlhfsim.llm import NashConfig, methods

NAN, INFINITY = float("nan"), float("inf")
WRONG: dict[str, list[tuple[Any, str]]] = {
    "method": [("nash_proxy", "did you mean 'nash_prox'"), (3, "unknown"), (None, "unknown")],
    "beta": [(-0.1, "not be negative"), (NAN, "finite"), (INFINITY, "finite"), ("0.1", "real number"), (True, "real number")],
    "proximal_step": [(0, "positive"), (-1, "positive"), (NAN, "finite")],
    "averaging": [(0, "above 0"), (1.5, "between 0 and 1"), (-0.1, "between 0 and 1"), (NAN, "finite")],
    "refresh_every": [(0, "at least 1"), (2.5, "whole number")],
    "inner_steps": [(0, "at least 1")],
    "mixing": [(-0.1, "between 0 and 1"), (1.1, "between 0 and 1")],
    "group_size": [(1, "at least 2"), (4.5, "whole number"), ("4", "whole number"), (True, "whole number")],
    "votes": [(1, "True or False"), ("yes", "True or False")],
    "feedback": [("exactly", "did you mean 'exact'")],
    "kl_estimator": [("tokens", "did you mean 'token'")],
    "steps": [(0, "at least 1"), (2**60, "at most")],
    "prompts_per_step": [(0, "at least 1")],
    "micro_batch_prompts": [(0, "at least 1")],
    "max_prompt_tokens": [(0, "at least 1")],
    "max_new_tokens": [(0, "at least 1")],
    "temperature": [(0, "positive"), (NAN, "finite"), (INFINITY, "finite")],
    "top_k": [(0, "at least 1")],
    "top_p": [(0, "above 0"), (1.01, "between 0 and 1")],
    "allow_off_policy": [("no", "True or False")],
    "allowed_tokens": [
        ((), "= [] must hold at least one token number"),
        ((1, 1), "= [1, 1] holds 1 twice"),
        ((-1,), "at least 0"),
        (7, "list of token"),
        ("ab", "whole number"),
    ],
    "stop_tokens": [
        ((3, 2, 2), "= [3, 2, 2] holds 2 twice, must hold every token number once"),
        ((0.5,), "whole number"),
        (2, "list of token"),
    ],
    "optimizer": [("adam", "did you mean 'adamw'")],
    "learning_rate": [(0, "positive"), (-1, "positive"), (NAN, "finite")],
    "schedule": [("lineal", "did you mean 'linear'")],
    "decay_steps": [(0, "at least 1")],
    "warmup_steps": [(-1, "at least 0"), (101, "at most steps = 100")],
    "adam_betas": [((0.9,), "two numbers"), (0.9, "two numbers"), ((0.9, 1.0), "below 1"), ((-0.1, 0.9), "between 0 and 1")],
    "adam_epsilon": [(0, "positive")],
    "weight_decay": [(-1, "not be negative")],
    "gradient_clip": [(0, "positive"), (NAN, "finite")],
    "precision": [("bf16", "unknown"), ("float16", "did you mean")],
    "lora_rank": [(0, "at least 1")],
    "lora_alpha": [(0, "positive"), (8, "belongs to lora_rank")],
    "lora_modules": [("q_proj", "list of names"), ((), "at least one"), (("q_proj",), "belongs to lora_rank")],
    "activation_checkpointing": [(1, "True or False")],
    "logprob_chunk": [(0, "at least 1")],
    "generation_batch": [(0, "at least 1")],
    "decoding": [("cuda", "auto, eager, graph, static"), ("graf", "graph")],
    "evaluation_responses": [(0, "at least 1")],
    "exact_check": [(1, "True or False")],
    "evaluate_every": [(0, "at least 1")],
    "checkpoint_every": [(0, "at least 1")],
    "keep_checkpoints": [(0, "at least 1")],
    "seed": [(-1, "at least 0"), (0.5, "whole number")],
}


def test_every_field_has_bad_values() -> None:
    assert set(WRONG) == {field.name for field in fields(NashConfig)}


@pytest.mark.parametrize(("name", "value", "right"), [(name, *case) for name, cases in WRONG.items() for case in cases])
def test_a_bad_value_is_told(name: str, value: Any, right: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        NashConfig(**{name: value})
    message = str(caught.value)
    assert right in message and "\n" not in message
    wrong = [value, *([[]] if value == () else ()), *(value if isinstance(value, (tuple, str)) else ())]
    assert any(form in message for one in wrong for form in (str(one), f"{one:g}" if isinstance(one, float) else repr(one)))


def test_all_mistakes_are_listed_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        NashConfig.from_dict({"beta": -1, "stesp": 3, "group_size": 1, "steps": 5, 7: 1}, name="training")
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == ["stesp", "7", "beta", "group_size"]
    assert "did you mean 'steps'" in str(caught.value) and str(caught.value).startswith("training has 4 mistakes")
    with pytest.raises(ConfigurationError, match="warmup_steps = 9 must be at most steps = 5"):
        NashConfig.from_dict({"steps": 5, "warmup_steps": 9})
    with pytest.raises(ConfigurationError, match="is of type list, must be a table"):
        NashConfig.from_dict([("beta", 1)])  # type: ignore[arg-type]


GIVEN = {"proximal_step": 2.0, "averaging": 0.5, "refresh_every": 3, "inner_steps": 4, "mixing": 0.25}


@pytest.mark.parametrize("method", methods.names())
@pytest.mark.parametrize("name", list(GIVEN))
def test_parameters_belong_to_methods(method: str, name: str) -> None:
    takes = methods.get(method).defaults
    if name in takes:
        assert getattr(NashConfig(method=method, **{name: GIVEN[name]}), name) == GIVEN[name]
    else:
        with pytest.raises(InputError, match=f"{name} = {GIVEN[name]} is not a parameter of {method}, but of "):
            NashConfig(method=method, **{name: GIVEN[name]})


def test_what_does_not_go_together() -> None:
    with pytest.raises(InputError, match="averaging .* or refresh_every .*, not both"):
        NashConfig(averaging=0.1, refresh_every=2)
    for truncated in ({"top_k": 5}, {"top_p": 0.9}):
        with pytest.raises(InputError, match=r"top_. = .* biases the gradient; leave it out, or set allow_off_policy = True"):
            NashConfig(**truncated)
        assert NashConfig(**truncated, allow_off_policy=True)
    with pytest.raises(InputError, match="decay_steps = 5 belongs to schedule = 'inverse_time', not 'cosine'"):
        NashConfig(schedule="cosine", decay_steps=5)
    with pytest.raises(InputError, match="needs beta > 0"):
        NashConfig(method="online_ipo", beta=0, kl_estimator="token")
    with pytest.raises(InputError, match="needs responses of the policy"):
        NashConfig(method="ipo_md", kl_estimator="token")
    assert NashConfig(method="ipo_md", kl_estimator="token", mixing=0)
    assert NashConfig(method="nash_md", kl_estimator="token")


@pytest.mark.parametrize("beta", [1e-40, 5e-324, 1e31, 1e308])
def test_a_weight_that_float32_cannot_divide_by(beta: float) -> None:
    with pytest.raises(InputError, match=r"beta = .* must be 0 or between 1e-30 and 1e30"):
        NashConfig(method="online_ipo", beta=beta)


def test_a_pull_without_end() -> None:
    with pytest.raises(InputError, match=r"beta \+ 1/proximal_step = inf must be"):
        NashConfig(proximal_step=5e-324)
    assert NashConfig(beta=1e-40).pull == 0.2
    assert NashConfig(method="online_ipo", beta=0).beta == 0


CASES: list[dict[str, Any]] = [
    {},
    {"refresh_every": 7},
    {"method": "proximal_pg", "proximal_step": 3},
    {"allowed_tokens": [5, 2], "stop_tokens": [], "adam_betas": [0.8, 0.9]},
    {"schedule": "inverse_time", "decay_steps": 3, "gradient_clip": None, "seed": 2**53, "top_p": 1, "allow_off_policy": True},
    *({"method": name} for name in methods.names()),
]


@pytest.mark.parametrize("given", CASES)
def test_round_trip(given: dict[str, Any]) -> None:
    config = NashConfig(**given)
    assert NashConfig.from_dict(config.to_dict()) == config
    again = NashConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)))
    assert again == config and hash(again) == hash(config)
    assert isinstance(again.adam_betas, tuple) and isinstance(again.stop_tokens, (tuple, type(None)))


def test_types_are_exact() -> None:
    config = NashConfig(beta=1, steps=30.0, seed=True + 1, allowed_tokens=range(3))  # type: ignore[arg-type]
    assert type(config.beta) is float and type(config.steps) is int and config.allowed_tokens == (0, 1, 2)
    with pytest.raises(FrozenInstanceError):
        config.beta = 2  # type: ignore[misc]


def test_what_a_resumed_run_may_change() -> None:
    free = {"decoding", "evaluation_responses", "exact_check", "evaluate_every", "checkpoint_every", "keep_checkpoints"}
    every = {field.name for field in fields(NashConfig)}
    assert set(NashConfig().fixed) == every - free - {"steps"}
    assert set(NashConfig(schedule="inverse_time", decay_steps=5).fixed) == every - free - {"steps"}
    for schedule in ("linear", "cosine", "inverse_time"):
        assert set(NashConfig(schedule=schedule).fixed) == every - free


def test_an_unknown_method_is_no_other_error() -> None:
    with pytest.raises(UnknownNameError):
        NashConfig(method="")
