"""A sampler behind an address, beside a stand-in that speaks as SGLang does; and samplers in a recipe."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_judge import Judge, Reply, serving
from served_sampler import Engine, refused
from small import qwen2
from test_cli_llm import RECIPE, call, records
from test_sampling import chi_square_p
from test_samplers import shifted, train_by

from nlhfsim.errors import ConfigurationError, InputError, SamplerError
from nlhfsim.llm import read_recipe
from nlhfsim.llm.samplers import ServedSampler
from nlhfsim.training_run import load_run

KEY = "sk-a-Secret-0123456789"
FAST: dict[str, Any] = dict(retries=1, backoff=0.01, timeout=20)
POLICY = (("policy", 1.0),)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("KEY_OF_THIS_TEST", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setattr("nlhfsim.cli.training._draw", lambda run, folder: None)


@contextmanager
def served(folder: Path, engine: Any = None, **given: Any) -> Iterator[tuple[ServedSampler, Judge]]:
    """A sampler and its server."""
    with serving(Engine() if engine is None else engine) as server:
        yield ServedSampler(root(server), folder, **(FAST | given)), server


def root(server: Judge) -> str:
    return server.address.removesuffix("/v1")


def test_counts_are_the_enumerated_policy_and_the_requests_those_of_the_documentation(tmp_path: Path) -> None:
    """χ² of 900 draws; temperature, allowed tokens and a stop token as the server takes them."""
    with served(tmp_path) as (sampler, server):
        fields: dict[str, Any] = dict(max_new_tokens=3, stop_tokens=(2,), temperature=0.7, exact_check=True)
        trainer = shifted(train_by(sampler, qwen2(), **fields))
        assert trainer.exact is not None
        found = trainer.estimator.draw(trainer.prompts[:3], POLICY, 300)
        assert chi_square_p(trainer, found, np.exp(trainer.exact.log_mixture(POLICY))[:3]) > 1e-4
        here = trainer.estimator.score("policy", found).log_probabilities.detach()
        assert float((here - found.sampled).abs().max()) < 1e-4  # type: ignore[operator]
    assert server.paths == ["/update_weights_from_disk", "/generate"]
    update, generate = server.seen
    assert set(update) == {"model_path", "load_format", "weight_version", "flush_cache"}
    assert set(generate) == {"input_ids", "sampling_params", "return_logprob"}
    assert generate["input_ids"] == [list(prompt.tokens) for prompt in trainer.prompts[:3] for _ in range(300)]
    seeds = {one.pop("sampling_seed") for one in generate["sampling_params"]}
    assert len(seeds) == 900, "by the same seed a server draws the same"
    none = {"min_p": 0.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "min_new_tokens": 0}
    how = {"max_new_tokens": 3, "temperature": 0.7, "top_p": 1.0, "top_k": -1, "ignore_eos": False, "stop_token_ids": [2]}
    assert all(one == how | none for one in generate["sampling_params"])
    assert not any("authorization" in one for one in server.headers), "a key is sent where one is named"


def test_allowed_tokens_are_all_that_is_drawn_and_have_the_probabilities_that_they_have_here(tmp_path: Path) -> None:
    """To the rounding of float32 at the size of what is added to their logits; truncation is passed on."""
    fields: dict[str, Any] = dict(allowed_tokens=(0, 2), temperature=1.5, top_k=2, top_p=0.9, allow_off_policy=True)
    with served(tmp_path) as (sampler, server):
        trainer = shifted(train_by(sampler, qwen2(), **fields))
        found = trainer.estimator.draw(trainer.prompts, POLICY, 8)
        here = trainer.estimator.score("policy", found).log_probabilities.detach()
    assert set(found.tokens.flatten().tolist()) == {0, 2}
    assert float((here - found.sampled).abs().max()) < 1e-4  # type: ignore[operator]
    asked = server.seen[-1]["sampling_params"][0]
    assert (asked["top_k"], asked["top_p"], asked["ignore_eos"], asked["stop_token_ids"]) == (2, 0.9, True, [])


def test_one_server_holds_one_policy_at_a_time_and_reads_it_when_it_draws_from_it(tmp_path: Path) -> None:
    """Evaluations load each; nothing is loaded twice in a row, and written weights are read again without writing them."""
    engine = Engine()
    with served(tmp_path, engine) as (sampler, _):
        trainer = train_by(sampler, method="nash_prox", refresh_every=2, steps=2)
        run = trainer.fit()
        for _ in range(2):
            trainer.sample()
        written = sorted(path.name for path in next(tmp_path.iterdir()).iterdir())
    assert engine.loads == [
        *("policy-000001", "reference-000002", "target-000003"),  # the evaluation before
        *("policy-000001", "policy-000004"),  # two steps
        *("policy-000005", "reference-000002", "target-000006"),  # the evaluation after
        "policy-000005",  # what is asked twice then
    ]
    assert written == ["policy-000005", "reference-000002", "target-000006"], "the newest of each"
    assert run.steps["sampler_distance"].max() < 1e-5 and run.steps["seconds_weights"][-1] > 0
    del sampler, trainer, run
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_two_samplers_share_a_folder_and_the_server_may_see_it_elsewhere(tmp_path: Path) -> None:
    """As in a container; each writes to its own."""
    (tmp_path / "seen").symlink_to(tmp_path / "written")
    engine = Engine()
    with served(tmp_path / "written", engine, server_folder=tmp_path / "seen") as (sampler, server):
        other = ServedSampler(root(server), tmp_path / "written", **FAST)
        for one in (sampler, other):
            train_by(one).step()
        assert len(list((tmp_path / "written").iterdir())) == 2
        first, second = (body["model_path"] for body in server.seen if "model_path" in body)
    assert first.startswith(str(tmp_path / "seen")) and second.startswith(str(tmp_path / "written"))


def changed(engine: Engine, change: Any) -> Any:
    """The engine, with its answers to `generate` changed."""

    def behaviour(body: dict[str, Any]) -> Reply:
        status, headers, content = engine(body)
        if "input_ids" not in body:
            return status, headers, content
        answers = json.loads(content)
        said = change(answers)
        return said if isinstance(said, tuple) else (status, headers, json.dumps(answers if said is None else said))

    return behaviour


def meta(k: int, **given: Any) -> Any:
    return lambda answers: answers[k]["meta_info"].update(given)


GONE = {"type": "abort", "message": "no memory", "status_code": 500, "err_type": None}
DEFECTS = {
    "other weights": (
        meta(2, weight_version="default"),
        r"answers row 2 by the weights 'default', not by 'nlhfsim-.*/policy-000001'",
    ),
    "aborted": (meta(1, finish_reason=GONE), "broke off row 1: no memory"),
    "fewer": (lambda answers: answers[:3], "does not answer with a list of 8 responses: is it SGLang?"),
    "one": (lambda answers: answers[0], "does not answer with a list of 8 responses"),
    "no logs": (
        lambda answers: answers[3].update(meta_info={}),
        "answers row 3 without what SGLang's answers",
    ),
    "other logs": (
        meta(0, output_token_logprobs=[[-1.0, 2, None]]),
        "answers row 0 with log-probabilities of other tokens than its",
    ),
    "no JSON": (lambda answers: (200, {}, "<html>"), "answers with what is no JSON: is this the address of an SGLang server?"),
    "refused": (lambda answers: refused("input_ids cannot be empty."), "answers 400: input_ids cannot be empty."),
    "too long": (
        lambda answers: refused("exceeds the maximum context length"),
        "answers 400: exceeds the maximum context length",
    ),
    "no such path": (
        lambda answers: (404, {}, '{"detail": "Not Found"}'),
        "answers 404: Not Found .*the address has no path, such as",
    ),
    "key": (lambda answers: (401, {}, '{"error": "Unauthorized"}'), "answers 401: Unauthorized"),
    "down": (lambda answers: (503, {}, f"{KEY} is unknown"), "answers 503: … is unknown; asked 2 times"),
}


def test_a_folder_that_is_no_path_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="^server_folder = 5 must be the path of a file or folder$"):
        ServedSampler("http://localhost:30000", tmp_path, server_folder=5)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(DEFECTS))
def test_what_is_no_answer_stops_the_run(name: str, tmp_path: Path) -> None:
    """With what the server said, and its address; never with a key."""
    change, words = DEFECTS[name]
    with served(tmp_path, changed(Engine(), change), key="KEY_OF_THIS_TEST") as (sampler, server):
        trainer = train_by(sampler)
        with pytest.raises(SamplerError, match=f"^the sampler at {root(server)} {words}") as failed:
            trainer.step()
        assert trainer.taken == 0 and KEY not in str(failed.value)
        assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


def test_a_server_that_stops_where_it_was_not_asked_to_is_refused(tmp_path: Path) -> None:
    """At the end of sequence of its own model: the policy would be another one."""
    with served(tmp_path, Engine(eos=(1,))) as (sampler, _):
        trainer = train_by(sampler, stop_tokens=(2,), max_new_tokens=3)
        words = (
            r"^ServedSampler.sample: row \d+ .* ends after [12] tokens with token 1, must end at max_new_tokens = 3 or with one"
        )
        with pytest.raises(InputError, match=words):
            trainer.step()


def test_weights_that_the_server_does_not_find_are_told(tmp_path: Path) -> None:
    with served(tmp_path / "a", server_folder=tmp_path / "elsewhere") as (sampler, server):
        with pytest.raises(
            SamplerError, match="answers 400: Failed to get weights iterator: Cannot find any model weights with .*else"
        ):
            train_by(sampler).step()
    with served(tmp_path / "b", lambda body: (200, {}, '{"success": false, "message": "busy"}')) as (sampler, _):
        with pytest.raises(SamplerError, match="does not load the weights in '.*policy-000001': busy"):
            train_by(sampler).step()


def test_loading_weights_may_need_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_OF_THIS_TEST", "admin")
    with served(tmp_path, key="KEY_OF_THIS_TEST", admin_key="ADMIN_OF_THIS_TEST", headers={"X-Team": "blue"}) as (
        sampler,
        server,
    ):
        train_by(sampler).step()
    assert [one["authorization"] for one in server.headers] == ["Bearer admin", f"Bearer {KEY}"]
    assert server.headers[0]["x-team"] == "blue"


def test_a_server_of_another_distribution_shows(tmp_path: Path) -> None:
    """The mean distance of its log-probabilities is in the metrics, and training goes on with ours."""
    with served(tmp_path / "a") as (right, _), served(tmp_path / "b", Engine(noise=-0.01)) as (off, _):
        found = {}
        for sampler in (right, off):
            trainer = train_by(sampler, seed=3)
            found[sampler] = trainer.step()
    assert found[off]["loss"] == found[right]["loss"] and found[right]["sampler_distance"] < 1e-5
    assert found[off]["sampler_distance"] == pytest.approx(0.01, rel=1e-3)
    assert found[off]["kl_sampler"] == pytest.approx(2 * (math.expm1(0.01) - 0.01), rel=0.01), "two tokens"


# In a recipe

SAMPLER = """
[sampler]
kind = "served"
address = "{address}"
folder = "weights"
key = "KEY_OF_THIS_TEST"
retries = 1
backoff = 0.01
[training]"""


def test_a_run_whose_server_dies_goes_on_with_the_same_bits_and_the_key_is_nowhere(capsys: Any, tmp_path: Path) -> None:
    """From the command line."""
    whole, parts, said = tmp_path / "whole", tmp_path / "parts", []

    def train(folder: Path) -> int:
        code, out, err = call(capsys, "llm", "train", recipe, "--out", folder, "--json")
        said.append(out + err)
        return code

    with serving(Engine()) as server:
        recipe = tmp_path / "run.toml"
        recipe.write_text(RECIPE.replace("[training]", SAMPLER.format(address=root(server))), encoding="utf-8")
        assert train(whole) == 0, said
        asked = len(server.seen)
        engine = Engine()
        server.behaviour = lambda body: engine(body) if len(server.seen) < 1.5 * asked else refused(f"not {KEY}", 500)
        assert train(parts) == 2
        assert f"the sampler at {root(server)} answers 500: not …; asked 2 times" in said[-1] and "Traceback" not in said[-1]
        assert f"the same command goes on from what is saved in '{parts}'" in said[-1]
        stopped = load_run(parts)
        assert stopped.status == "interrupted" and 0 < stopped.last_step < 6
        server.behaviour = Engine()
        assert train(parts) == 0, said
    assert records(parts) == records(whole)
    assert (parts / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    assert load_run(parts).recipe["sampler"]["key"] == "KEY_OF_THIS_TEST"  # type: ignore[index]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(said)


HEADS = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16}


def given(**section: Any) -> dict[str, Any]:
    method = section.pop("method", "online_ipo")
    return {
        "model": {"new": {"model_type": "qwen2", "vocab_size": 8, "num_hidden_layers": 1, **HEADS}},
        "prompts": {"list": [[1]]},
        "oracle": {"kind": "classes", "groups": [[4], [5], [6]], "preferences": "rock-paper-scissors"},
        "training": {"steps": 1, "method": method},
        "sampler": {"kind": "served", "address": "http://127.0.0.1:9", "folder": "weights"} | section,
    }


MISTAKES = [
    ({"kind": "sglang"}, "sampler.kind: 'sglang' is unknown"),
    ({"kind": None}, "sampler.kind: must be given"),
    ({"adress": "x"}, "sampler.adress: unknown; did you mean 'address'?"),
    ({"address": []}, "sampler.address: [] must be a text, or a list with one for each process"),
    ({"address": ["http://a", 1]}, "sampler.address: address[1] = 1 must be a text"),
    ({"folder": ""}, "sampler.folder: '' must be a text"),
    ({"timeout": 0}, "sampler.timeout: 0 must be positive"),
    ({"key": KEY}, "sampler.key: key must be the name of an environment variable with the key"),
    ({"kind": "function"}, "sampler.function: must be given for kind = 'function'"),
    ({"method": "nash_md"}, "sampler: method = 'nash_md' draws from a mixture of policy and reference"),
]


@pytest.mark.parametrize("section, words", MISTAKES, ids=[words for _, words in MISTAKES])
def test_mistakes_in_the_table_are_told_with_their_place(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        read_recipe(given(**section))
    assert words in str(told.value) and KEY not in str(told.value)


def test_the_table_must_be_one() -> None:
    with pytest.raises(ConfigurationError, match=r"sampler: 'served' must be a table \[sampler\]"):
        read_recipe(given() | {"sampler": "served"})
    assert read_recipe({key: value for key, value in given().items() if key != "sampler"}).build("cpu")["sampler"] is None


def test_what_is_found_when_it_is_made_is_told_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is none; fewer servers than processes; each process takes its own."""
    with pytest.raises(
        InputError, match=r"^sampler: address = 'localhost' must begin with http:// .*such as 'http://localhost:30000'"
    ):
        read_recipe(given(address="localhost", folder=str(tmp_path))).build("cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    recipe = read_recipe(given(address=["http://a:1", "http://b:2"], folder=str(tmp_path)))
    assert recipe.sampler is not None and repr(recipe.sampler.make()) == "ServedSampler('http://b:2')"
    alone = read_recipe(given(address="http://a:1", folder=str(tmp_path))).sampler
    with pytest.raises(InputError, match="^sampler: address = 'http://a:1' must be 2 of them, one for each process"):
        alone.make()  # type: ignore[union-attr]


def test_a_function_of_a_module_beside_the_recipe_makes_a_sampler(tmp_path: Path) -> None:
    source = "class Mine:\n    def load(self, view, weights): ...\n    def sample(self, request): ...\ndef none(): return 3\n"
    (tmp_path / "samplers_of_this_test.py").write_text(source, encoding="utf-8")

    def make(name: str) -> Any:
        section = {"kind": "function", "function": f"samplers_of_this_test:{name}"}
        (tmp_path / "run.json").write_text(json.dumps(given() | {"sampler": section}), encoding="utf-8")
        return read_recipe(tmp_path / "run.json").build("cpu")["sampler"]

    assert type(make("Mine")).__name__ == "Mine"
    with pytest.raises(InputError, match=r"^sampler: sampler = 3 must have the methods load"):
        make("none")
    with pytest.raises(InputError, match="^sampler: function = 'samplers_of_this_test:gone' cannot be imported"):
        make("gone")
