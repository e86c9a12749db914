"""A run with a judge behind an address: it stops when the judge is gone, with everything saved, and the key is in no file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from served_judge import Reply, chat, error, serving
from test_cli_llm import RECIPE, call, records

from nlhfsim.errors import ConfigurationError, InputError
from nlhfsim.llm import read_recipe
from nlhfsim.llm.oracles import BothOrders, ServedJudgeOracle
from nlhfsim.training_run import load_run

KEY = "sk-a-Secret-0123456789"
ORACLE = """
[oracle]
kind = "served-judge"
address = "{address}"
model = "a-judge"
template = "{{prompt}}|{{left}}|{{right}}"
key = "KEY_OF_THIS_TEST"
retries = 1
backoff = 0.01
timeout = 5
concurrency = 4
both_orders = true
headers = {{ X-Team = "blue", X-Token = "$KEY_OF_THIS_TEST" }}
extra = {{ seed = 1, temperature = "none" }}
[training]"""
WINS = {0: math.log(0.7), 1: math.log(0.2), 2: math.log(0.5)}
"""By how far the second is ahead in the cycle of pairs of tokens."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("KEY_OF_THIS_TEST", KEY)
    monkeypatch.setattr("nlhfsim.cli.training._draw", lambda run, folder: None)


def prefers(body: dict[str, Any]) -> Reply:
    """A cycle of the first tokens, and a liking for the first place."""
    _, left, right = body["messages"][0]["content"].split("|")
    first, second = (int(text.split()[0]) // 2 for text in (left, right))
    return chat("A", {"A": WINS[(first - second) % 3], "B": math.log(0.3)})


def write(path: Path, address: str) -> Path:
    begin, _, rest = RECIPE.partition("[oracle]")
    path.write_text(begin + ORACLE.format(address=address) + rest.partition("[training]")[2], encoding="utf-8")
    return path


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def holding(folder: Path, word: str) -> list[str]:
    """The files that have a word in them."""
    return [path.name for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


def test_a_run_whose_judge_dies_goes_on_with_the_same_bits_and_the_key_is_nowhere(capsys: Any, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    said = []

    def train(folder: Path) -> int:
        code, out, err = call(capsys, "llm", "train", recipe, "--out", folder, "--track", "tensorboard", "--json")
        said.append(out + err)
        return code

    with serving(prefers) as judge:
        recipe = write(tmp_path / "run.toml", judge.address)
        assert train(whole) == 0, said
        asked = len(judge.seen)
        assert {"messages", "model", "max_tokens", "logprobs", "top_logprobs", "seed"} == {*judge.seen[0]}
        assert judge.headers[0]["authorization"] == f"Bearer {KEY}" and judge.headers[0]["x-token"] == KEY

        def dies(body: dict[str, Any]) -> Reply:
            return prefers(body) if len(judge.seen) <= asked + 0.6 * asked else error(503, f"{KEY} is not known while I am ill")

        judge.behaviour = dies
        assert train(parts) == 2
        assert f"the judge at {judge.address} answers 503: … is not known while I am ill; asked 2 times" in said[-1]
        assert f"the same command goes on from what is saved in '{parts}'" in said[-1] and "Traceback" not in said[-1]
    stopped = load_run(parts)
    assert stopped.status == "interrupted" and 0 < stopped.last_step < 6
    assert train(parts) == 2 and "cannot be reached" in said[-1], "nobody is there"
    assert load_run(parts).last_step == stopped.last_step
    with serving(prefers, judge.port):
        assert train(parts) == 0, said
    assert records(parts) == records(whole) and weights(parts) == weights(whole)

    for folder in (whole, parts):
        assert call(capsys, "report", folder)[0] == 0
    assert {"config.json", "report.html"} <= {*holding(parts, "a-judge")}, "the search finds what is there"
    assert holding(tmp_path, KEY) == [] == holding(tmp_path, KEY[:14])
    assert KEY not in "".join(said)
    assert load_run(parts).recipe["oracle"]["key"] == "KEY_OF_THIS_TEST"  # type: ignore[index]


def test_verdicts_that_are_none_are_counted_in_the_metrics(capsys: Any, tmp_path: Path) -> None:
    def mumbles(body: dict[str, Any]) -> Reply:
        return chat("Hm") if "8" in body["messages"][0]["content"].split("|", 1)[1] else prefers(body)

    with serving(mumbles) as judge:
        recipe = write(tmp_path / "run.toml", judge.address)
        assert call(capsys, "llm", "train", recipe, "--out", tmp_path / "out", "--json")[0] == 0
    invalid = load_run(tmp_path / "out").steps["invalid"]
    assert 0 < invalid.mean() < 1


def test_a_judge_without_one_verdict_ends_the_run_and_is_quoted(capsys: Any, tmp_path: Path) -> None:
    """In its own words, short and without the key; the same command goes on, counting anew."""
    words = f"I cannot\n\x1b[1mdecide {KEY} " + "for ever " * 100
    with serving(lambda body: chat(words)) as judge:
        recipe = write(tmp_path / "run.toml", judge.address)
        code, _, err = call(capsys, "llm", "train", recipe, "--out", tmp_path / "out", "--steps", 40)
        told = f"the last time: the judge at {judge.address} answers 'I cannot [1mdecide … for ever for ever"
        assert code == 2 and told in err and "which is no verdict between 'A' and 'B'; the same command goes on" in err, err
        assert KEY not in err and KEY[:14] not in err and len(err.splitlines()[-1]) < 800
        assert load_run(tmp_path / "out").last_step == 9
        assert call(capsys, "llm", "train", recipe, "--out", tmp_path / "out", "--steps", 40)[0] == 2
    assert load_run(tmp_path / "out").last_step == 18 and holding(tmp_path, KEY) == []


MISTAKES = [
    ({"key": KEY}, "oracle.key: key must be the name of an environment variable with the key"),
    ({"api_key": KEY}, "oracle.api_key: unknown"),
    ({"headers": {"Authorization": f"Bearer {KEY}"}}, "oracle.headers: headers['Authorization'] may hold a secret"),
    ({"extra": {"api_key": KEY}}, "oracle.extra: extra['api_key'] may hold a secret"),
    ({"timeout": 0}, "oracle.timeout: 0 must be positive"),
    ({"adress": "x"}, "oracle.adress: unknown; did you mean 'address'?"),
    ({"device": "cuda"}, "oracle.device: unknown"),
]


def given(**section: Any) -> dict[str, Any]:
    oracle = {"kind": "served-judge", "address": "http://127.0.0.1:9/v1", "model": "a-judge"} | section
    return {
        "model": {"new": {"model_type": "qwen2", "vocab_size": 8}},
        "prompts": {"list": [[1]]},
        "oracle": oracle,
        "training": {"steps": 1},
    }


@pytest.mark.parametrize("section, words", MISTAKES, ids=[words for _, words in MISTAKES])
def test_mistakes_in_the_table_are_told_and_keys_in_it_are_not_shown(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_recipe(given(**section))
    [sentence] = refused.value.mistakes
    assert words in sentence and KEY not in str(refused.value)


def test_a_key_on_the_command_line_is_refused_before_anything_is_written(capsys: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path / "run.toml", "http://127.0.0.1:9/v1")
    for setting in (f"oracle.key={KEY}", f"oracle.api_key={KEY}", f"key={KEY}"):
        code, out, err = call(capsys, "llm", "train", recipe, "--out", tmp_path / "out", "--set", setting)
        assert code == 2 and out == "" and KEY not in err and "Traceback" not in err
    assert not (tmp_path / "out").exists() and holding(tmp_path, KEY) == []


def test_what_is_missing_is_told_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlhfsim.llm.recipe.load_model", lambda *arguments: pytest.fail("loaded"))
    with pytest.raises(InputError, match="^oracle: key: there is no environment variable NO_SUCH_KEY, which must hold the key"):
        read_recipe(given(key="NO_SUCH_KEY")).build("cpu")


def test_a_model_is_a_name_at_the_server_also_where_a_folder_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a-judge").mkdir()
    (tmp_path / "run.json").write_text(json.dumps(given(both_orders=True)), encoding="utf-8")
    oracle = read_recipe(tmp_path / "run.json").oracle.prepare()("cpu")
    assert isinstance(oracle, BothOrders) and isinstance(oracle._oracle, ServedJudgeOracle)
    assert repr(oracle) == "BothOrders(ServedJudgeOracle('http://127.0.0.1:9/v1', 'a-judge'))"
