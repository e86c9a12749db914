"""Recipes: a TOML file becomes what the trainer takes, every mistake is told with its place before anything is loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nlhfsim.errors import ConfigurationError, DataError, InputError
from nlhfsim.llm import read_recipe
from nlhfsim.llm.oracles import Prompt, Response, ask

NEW = {"model_type": "qwen2", "vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
NEW |= {"num_key_value_heads": 1, "intermediate_size": 32}
GIVEN: dict[str, Any] = {
    "model": {"new": NEW},
    "prompts": {"list": [[1, 2], [2, 3], [3, 1], [1, 1], [2, 2]]},
    "oracle": {"kind": "classes", "groups": [[4], [5], [6]], "preferences": "rock-paper-scissors"},
    "training": {"method": "nash_prox", "beta": 0.05, "steps": 10},
}
PREFERENCES = [[0.5, 0.9], [0.1, 0.5]]


def given(**changes: Any) -> dict[str, Any]:
    """The configuration with other sections; None leaves one out."""
    return {name: section for name, section in (copy.deepcopy(GIVEN) | changes).items() if section is not None}


def verdicts(oracle: Any, left: Response, right: Response, prompt: str = "Why?") -> tuple[float, bool]:
    found = ask(oracle, [Prompt(prompt, (1,))], [left], [right])
    return float(found.probabilities[0]), bool(found.valid[0])


def said(text: str, *tokens: int) -> Response:
    return Response(text, tokens)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_all_that_the_trainer_takes(tmp_path: Path) -> None:
    """Paths start at the folder of the file, whatever the working directory."""
    write(tmp_path / "asked.jsonl", "".join(json.dumps({"question": [k, k + 1]}) + "\n" for k in range(6)))
    write(tmp_path / "beats.csv", "a,b\n0.5,0.9\n0.1,0.5\n")
    path = write(
        tmp_path / "run.toml",
        """
        title = "A first run"
        seed = 7
        [model.new]
        model_type = "qwen2"
        vocab_size = 12
        hidden_size = 16
        num_hidden_layers = 1
        num_attention_heads = 2
        num_key_value_heads = 1
        intermediate_size = 32

        [prompts]
        path = "asked.jsonl"
        column = "question"
        held_out = 2
        [oracle]
        kind = "matrix"
        preferences = "beats.csv"
        responses = ["yes", "no"]
        noise = 0.25
        both_orders = true
        cache = true
        [training]
        beta = 0.05
        gradient_clip = "none"
        allowed_tokens = [4, 5]
        """,
    )
    recipe = read_recipe(path)
    assert recipe.title == "A first run" and recipe.config.seed == 7 and recipe.config.gradient_clip is None
    parts = recipe.build("cpu")
    assert [prompt.content for prompt in parts["prompts"]] == [(k, k + 1) for k in range(4)]
    assert [prompt.content for prompt in parts["held_out"]] == [(4, 5), (5, 6)]
    assert parts["model"].config.vocab_size == 12 and parts["tokenizer"] is None and parts["device"] == "cpu"
    # 0.9 by an annotator who says the opposite in a quarter of all cases
    assert verdicts(parts["oracle"], said("yes"), said("no")) == (pytest.approx(0.75 * 0.9 + 0.25 * 0.1), True)
    assert repr(parts["oracle"]).startswith("Noisy(BothOrders(Cached(MatrixOracle(2 responses")


def test_new_models_have_the_random_weights_of_the_seed_and_leave_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (read_recipe(given(seed=seed)).build("cpu")["model"].state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("held_out, count", [(2, 2), (0.4, 2), (0.01, 1), (0.99, 4)])
def test_prompts_are_held_out_from_the_end(held_out: float, count: int) -> None:
    prompts = GIVEN["prompts"]["list"]
    recipe = read_recipe(given(prompts={"list": prompts, "held_out": held_out}))
    assert recipe.held_out is not None
    assert [list(one.content) for one in recipe.prompts + recipe.held_out] == prompts and len(recipe.held_out) == count


def test_texts_become_messages_where_a_chat_is_asked_for() -> None:
    for chat, expected in ((True, ({"role": "user", "content": "Why?"},)), (False, "Why?"), (None, "Why?")):
        section = {"list": ["Why?"]} if chat is None else {"list": ["Why?"], "chat": chat}
        assert read_recipe(given(prompts=section)).prompts[0].content == expected


def test_oracles_of_functions_are_imported_from_the_folder_of_the_file(tmp_path: Path) -> None:
    source = "def first(response):\n    return len(response.text) % 2\n\n"
    source += "def shorter(prompt, left, right):\n    return float(len(left) < len(right))\n\n"
    source += "class Inner:\n    @staticmethod\n    def length(prompt, response):\n        return -len(response)\n"
    write(tmp_path / "preferences_of_this_test.py", source)

    def build(**section: Any) -> Any:
        content = json.dumps(given(oracle=section))
        return read_recipe(write(tmp_path / "run.json", content)).build("cpu")["oracle"]

    module = "preferences_of_this_test"
    short, long = said("no"), said("never")
    assert verdicts(build(kind="function", function=f"{module}:shorter"), short, long) == (1, True)
    scores = build(kind="score", score=f"{module}:Inner.length", temperature=2.0)
    assert verdicts(scores, short, long) == (pytest.approx(1 / (1 + np.exp(-1.5))), True)
    assert verdicts(build(kind="classes", classify=f"{module}:first", preferences=PREFERENCES), short, long) == (0.9, True)


def test_classes_are_those_of_the_first_token() -> None:
    oracle = read_recipe(given()).build("cpu")["oracle"]
    rock, scissors = said("", 4), said("", 6)
    assert verdicts(oracle, rock, scissors)[0] > 0.5 > verdicts(oracle, scissors, rock)[0]
    assert not verdicts(oracle, rock, said("", 9))[1]


def saved(folder: Path, head: str) -> Path:
    """A model of random weights, with a tokenizer of bytes as this kind of model has it."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {letter: k for k, letter in enumerate(["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    end = "<|endoftext|>"
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end, pad_token=end).save_pretrained(folder)
    config = transformers.Qwen2Config(**{key: NEW[key] for key in NEW if key != "model_type"} | {"vocab_size": 257}, num_labels=1)
    config.pad_token_id = 0
    getattr(transformers, f"Qwen2For{head}")(config).save_pretrained(folder)
    return folder


def test_models_and_tokenizers_are_read_from_folders(tmp_path: Path) -> None:
    saved(tmp_path / "model", "CausalLM")
    saved(tmp_path / "rewards", "SequenceClassification")
    config = given(model={"path": "model"}, prompts={"list": ["why yes"]}, oracle={"kind": "judge", "model": "model"})
    config["oracle"]["answers"] = ["A", "B"]
    recipe = read_recipe(write(tmp_path / "run.json", json.dumps(config)))
    parts = recipe.build("cpu")
    tokens = parts["tokenizer"]("why yes")["input_ids"]
    assert len(tokens) == 7 and parts["tokenizer"].decode(tokens) == "why yes" and parts["model"].config.vocab_size == 257
    assert 0 < verdicts(parts["oracle"], said("yes"), said("no"))[0] < 1
    config["oracle"] = {"kind": "reward-model", "model": "rewards", "temperature": 0.5}
    config["tokenizer"] = {"path": "rewards"}
    parts = read_recipe(write(tmp_path / "run.json", json.dumps(config))).build("cpu")
    there, back = (verdicts(parts["oracle"], said(a), said(b))[0] for a, b in (("yes", "no"), ("no", "yes")))
    assert there + back == pytest.approx(1) and there != 0.5


def test_a_folder_without_a_tokenizer_is_enough_for_prompts_of_tokens(tmp_path: Path) -> None:
    saved(tmp_path / "model", "CausalLM")
    for file in (tmp_path / "model").glob("token*"):
        file.unlink()
    prompts = ["why"], [[1, 2]]
    texts, tokens = (given(model={"path": str(tmp_path / "model")}, prompts={"list": one}) for one in prompts)
    assert read_recipe(tokens).build("cpu")["tokenizer"] is None
    with pytest.raises(InputError, match="^model: tokenizer .* cannot be loaded: none of tokenizer_config.json"):
        read_recipe(texts).build("cpu")
    with pytest.raises(InputError, match=r"prompts are texts, and the model is new: give a \[tokenizer\]"):
        read_recipe(given(prompts={"list": ["why"]})).build("cpu")


ORACLE = GIVEN["oracle"]
MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"modell": {}}, ["modell: unknown; did you mean 'model'?"]),
    ({"title": 3}, ["title: 3 must be a text"]),
    ({"seed": -1}, ["seed: -1 must be at least 0"]),
    ({"seed": 1, "training": {"seed": 2}}, ["seed: is given more than once: at the top and as training.seed"]),
    ({"model": None}, ["model: must be given: a table [model]"]),
    ({"model": "qwen"}, ["model: 'qwen' must be a table [model]"]),
    ({"model": {"path": "absent"}}, ["model.path: there is no folder"]),
    ({"model": {"path": "a", "new": NEW}}, ["model: must have one of path", "not path and new"]),
    ({"model": {"revision": "main"}}, ["model: must have one of path"]),
    ({"model": {"name": 3}}, ["model.name: 3 must be a text"]),
    ({"model": {"new": {}}}, ["model.new: must be a table with model_type"]),
    ({"tokenizer": {"new": {}}}, ["tokenizer.new: unknown"]),
    ({"prompts": {}}, ["prompts: must have either path"]),
    ({"prompts": {"list": [], "path": "a"}}, ["prompts: must have either path"]),
    ({"prompts": {"path": "absent.jsonl"}}, ["prompts.path: ", "absent.jsonl"]),
    ({"prompts": {"list": [[1], []]}}, ["prompts.list: prompts[1] is an empty prompt"]),
    ({"prompts": {"list": [[1], [2]], "held_out": 2}}, ["prompts.held_out: 2 must be at most 1"]),
    ({"prompts": {"list": [[1], [2]], "held_out": 1.0}}, ["prompts.held_out: 1.0 must be a share between 0 and 1"]),
    ({"prompts": {"list": [[1], [2]], "held_out": "absent.jsonl"}}, ["prompts.held_out: ", "absent.jsonl"]),
    ({"prompts": {"list": [[1]], "held_out": 1}}, ["prompts.held_out: needs at least two prompts"]),
    ({"prompts": {"list": [[1]], "chat": "yes"}}, ["prompts.chat: 'yes' must be True or False"]),
    ({"prompts": {"list": [[1]], "colum": "x"}}, ["prompts.colum: unknown; did you mean 'column'?"]),
    ({"oracle": {"kind": "jugde"}}, ["oracle.kind: 'jugde' is unknown; did you mean 'judge'?"]),
    ({"oracle": {"preferences": PREFERENCES}}, ["oracle.kind: must be given; choose one of classes"]),
    ({"oracle": {"kind": "judge"}}, ["oracle.model: must be given for kind = 'judge'"]),
    ({"oracle": ORACLE | {"noise": 2}}, ["oracle.noise: 2 must lie between 0 and 1"]),
    ({"oracle": ORACLE | {"cache": 0}}, ["oracle.cache: 0 must be at least 1"]),
    ({"oracle": ORACLE | {"both_order": True}}, ["oracle.both_order: unknown; did you mean 'both_orders'?"]),
    ({"oracle": ORACLE | {"classify": "a:b"}}, ["oracle: must have either groups"]),
    ({"oracle": ORACLE | {"groups": [[1], ["a"]]}}, ["oracle.groups: groups[1] = 'a' must be a whole number"]),
    ({"oracle": ORACLE | {"preferences": [[0.5, 0.9], [0.2, 0.5]]}}, ["oracle.preferences: "]),
    ({"oracle": {"kind": "function", "function": "shorter"}}, ["oracle.function: 'shorter' must be 'module:name'"]),
    ({"training": {"betta": 1}}, ["training.betta: is no field; did you mean 'beta'?"]),
    ({"training": {"method": "nash_md", "averaging": 0.1}}, ["training: averaging = 0.1 is not a parameter of nash_md"]),
]


@pytest.mark.parametrize("changes, sentences", MISTAKES, ids=[str(changes)[:60] for changes, _ in MISTAKES])
def test_a_mistake_is_told_with_its_place(changes: dict[str, Any], sentences: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_recipe(given(**changes))
    assert len(refused.value.mistakes) == 1, refused.value.mistakes
    for sentence in sentences:
        assert sentence in refused.value.mistakes[0]


def test_all_mistakes_are_told_at_once() -> None:
    changes = {"model": {"path": "absent"}, "oracle": ORACLE | {"noise": 2}, "training": {"beta": -1, "learning_rat": 1}}
    with pytest.raises(ConfigurationError) as refused:
        read_recipe(given(**changes))
    places = [sentence.partition(":")[0] for sentence in refused.value.mistakes]
    assert sorted(places) == ["model.path", "oracle.noise", "training.beta", "training.learning_rat"]


UNBUILT: list[tuple[dict[str, Any], str]] = [
    ({"model": {"new": NEW | {"model_type": "qwen22"}}}, r"model.new.model_type = 'qwen22' is unknown; did you mean 'qwen2'"),
    ({"model": {"new": NEW | {"hidden_sise": 3}}}, "model.new.hidden_sise: unknown; did you mean 'hidden_size'"),
    ({"model": {"new": NEW | {"model_type": "t5"}}}, "model.new"),
    ({"oracle": ORACLE | {"preferences": "rock-paper"}}, "^oracle.preferences: "),
    ({"oracle": ORACLE | {"groups": [[1], [1]]}}, "^oracle: groups has token 1 in classes 0 and 1"),
    ({"oracle": {"kind": "function", "function": "json:absent"}}, "^oracle.function = 'json:absent' cannot be imported: Attrib"),
    ({"oracle": {"kind": "function", "function": "no_such_module:f"}}, "cannot be imported: ModuleNotFoundError"),
    ({"oracle": {"kind": "function", "function": "math:pi"}}, "is a float, must be a function"),
    ({"oracle": {"kind": "matrix", "preferences": PREFERENCES, "responses": ["a"]}}, "^oracle: responses has 1 entries"),
]


@pytest.mark.parametrize("changes, words", UNBUILT, ids=[words for _, words in UNBUILT])
def test_what_cannot_be_built_is_told_with_its_place(changes: dict[str, Any], words: str) -> None:
    recipe = read_recipe(given(**changes))
    with pytest.raises(InputError, match=words):
        recipe.build("cpu")


def test_a_damaged_folder_is_told(tmp_path: Path) -> None:
    for name, words in (
        ("model", "^model: causal language model .* cannot be loaded"),
        ("judge", "^oracle: judge .* cannot be loaded"),
    ):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "config.json", "{")
        changes = {"model": {"path": str(tmp_path / name)}}
        if name == "judge":
            changes = {"oracle": {"kind": "judge", "model": str(tmp_path / name)}}
        with pytest.raises(InputError, match=words):
            read_recipe(given(**changes)).build("cpu")


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="finds no CUDA device here; take 'cpu' or 'auto'"):
        read_recipe(given()).build("cuda")


def test_overrides_go_before_the_file() -> None:
    overrides = {"steps": 3, "oracle.noise": 0.5, "seed": 9}
    recipe = read_recipe(given(training={"steps": 10, "seed": 2}), overrides)
    assert recipe.config.steps == 3 and recipe.config.seed == 9
    assert recipe.tables["oracle"]["noise"] == 0.5 and recipe.tables["training"]["steps"] == 3
    source = given()
    read_recipe(source, overrides)
    assert source == GIVEN, "what was given is left as it is"
    with pytest.raises(ConfigurationError, match="prompts.list.first: cannot be set: prompts.list is no table"):
        read_recipe(given(), {"prompts.list.first": 1})
    with pytest.raises(ConfigurationError, match="oracel: unknown; did you mean 'oracle'"):
        read_recipe(given(), {"oracel.noise": 1})


def test_a_file_that_is_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not TOML"):
        read_recipe(write(tmp_path / "run.toml", "[model"))
    with pytest.raises(DataError, match="cannot be read"):
        read_recipe(tmp_path / "absent.toml")
