"""Datasets of the Hugging Face library as prompts: in memory, streaming, saved to disk, and named where there is no network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nlhfsim.errors import ConfigurationError, DataError, InputError, MissingExtraError, UnknownNameError
from nlhfsim.llm import read_recipe
from nlhfsim.llm.prompts import read_prompts

datasets = pytest.importorskip("datasets")

TEXTS = ["Why is the sky blue?", "Grüße ✓", "Why is the sky blue?"]
TOKENS = [[3, 1, 2], [7]]
TALK = [[{"role": "user", "content": "Hello"}], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]]


@pytest.fixture(autouse=True)
def quiet_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """No bars, no network, and no cache of whoever runs the tests."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def made(values: Any, column: str = "prompt") -> Any:
    return datasets.Dataset.from_dict({column: values, "other": list(range(len(values)))})


def contents(source: Any, **options: Any) -> list[Any]:
    return [prompt.content for prompt in read_prompts(source, **options)]


@pytest.mark.parametrize("given", [TEXTS, TOKENS, TALK], ids=["texts", "tokens", "talk"])
def test_a_dataset_holds_the_prompts_of_a_list(given: list[Any], tmp_path: Path) -> None:
    expected = contents(given)
    whole = made(given)
    assert contents(whole) == contents(whole.to_iterable_dataset()) == expected
    assert contents(whole.rename_column("prompt", "question"), column="question") == expected
    whole.save_to_disk(tmp_path / "saved")
    assert contents(tmp_path / "saved") == contents(str(tmp_path / "saved")) == expected
    assert contents(whole.select([1])) == expected[1:2]
    assert contents(whole.to_iterable_dataset().take(1)) == expected[:1]


def test_a_stream_of_unknown_columns_is_read() -> None:
    def rows() -> Any:
        yield from ({"prompt": text} for text in TEXTS)

    stream = datasets.IterableDataset.from_generator(rows)
    assert stream.column_names is None
    assert contents(stream) == TEXTS
    with pytest.raises(UnknownNameError, match="prompts has no column 'prompts'; did you mean 'prompt'"):
        read_prompts(stream, column="prompts")


def test_parts_are_named(tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": made(TEXTS), "test": made(["What?"])})
    streams = datasets.IterableDatasetDict({name: part.to_iterable_dataset() for name, part in parts.items()})
    parts.save_to_disk(tmp_path / "parts")
    for source in (parts, streams, tmp_path / "parts"):
        assert contents(source) == TEXTS and contents(source, split="test") == ["What?"]
        with pytest.raises(UnknownNameError, match="has no split 'tset'; did you mean 'test'"):
            read_prompts(source, split="tset")
    assert contents(datasets.DatasetDict({"only": made(["a"])})) == ["a"]


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (["fine", "  "], DataError, "prompts, row 2 is an empty prompt"),
    (["fine", None], DataError, "prompts, row 2 is None, must be a prompt"),
    ([], DataError, "prompts has no prompts"),
]


@pytest.mark.parametrize("given, kind, words", REFUSED, ids=[words for *_, words in REFUSED])
def test_what_is_no_prompt_is_refused_by_its_row(given: Any, kind: type[Exception], words: str) -> None:
    stream = datasets.IterableDataset.from_generator(lambda: ({"prompt": text} for text in given))
    for source in (made(given), stream):
        with pytest.raises(kind, match=words):
            read_prompts(source)


def test_a_column_that_is_not_there_is_told() -> None:
    with pytest.raises(UnknownNameError, match="prompts has no column 'prompt'; choose one of other, question"):
        read_prompts(made(TEXTS, "question"))


def test_a_name_at_the_hub_is_loaded_with_its_subset_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def load(*names: Any, **options: Any) -> Any:
        called.append((*names, options["split"]))
        return made(TEXTS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    for source in ("hf:owner/name", "hf:old", "hf:owner/name/sub:train[:100]", "hf:owner/name:test"):
        assert contents(source) == TEXTS
    assert contents("hf:owner/name", split="test") == contents("hf:owner/name:test", split="test") == TEXTS
    assert called == [
        ("owner/name", None, None),
        ("old", None, None),
        ("owner/name", "sub", "train[:100]"),
        *[("owner/name", None, "test")] * 3,
    ]


@pytest.mark.parametrize(
    "source, options, kind, words",
    [
        (
            "hf:owner/name",
            {},
            DataError,
            "prompts = 'hf:owner/name' cannot be loaded: .*without network, save it elsewhere by save",
        ),
        ("hf:", {}, InputError, "must be written 'hf:OWNER/NAME'"),
        ("hf:a/b/c/d", {}, InputError, "must be written 'hf:OWNER/NAME'"),
        ("hf:a/b:test", {"split": "train"}, InputError, "names the split 'test', and split = 'train'"),
        ("{folder}", {}, DataError, "is a folder without a dataset"),
        ("{folder}/damaged", {}, DataError, "cannot be read"),
        (["text"], {"split": "train"}, InputError, "split = 'train' is for datasets"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(
    source: Any, options: dict[str, str], kind: type[Exception], words: str, tmp_path: Path
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "state.json").write_text("{")
    (tmp_path / "damaged" / "dataset_info.json").write_text("{")
    given = source.format(folder=tmp_path) if isinstance(source, str) else source
    with pytest.raises(kind, match=words) as refused:
        read_prompts(given, **options)
    assert "\n" not in str(refused.value)


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="needs the library datasets: pip install datasets"):
        read_prompts("hf:owner/name")
    assert contents(["text"]) == ["text"]


def test_a_recipe_takes_a_folder_or_a_name(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": made(TOKENS, "q"), "test": made([[5]], "q")}).save_to_disk(tmp_path / "saved")
    oracle = {"kind": "classes", "groups": [[4], [5], [6]], "preferences": "rock-paper-scissors"}
    given = {"model": {"new": {"model_type": "qwen2"}}, "oracle": oracle, "prompts": {"path": "saved", "column": "q"}}

    def read(**prompts: Any) -> Any:
        path = tmp_path / "run.json"
        path.write_text(json.dumps(given | {"prompts": given["prompts"] | prompts}), encoding="utf-8")
        return read_recipe(path)

    assert [list(one.content) for one in read().prompts] == TOKENS
    assert [one.content for one in read(split="test").prompts] == [(5,)]
    with pytest.raises(ConfigurationError, match="prompts.path: prompts = 'hf:owner/name' cannot be loaded"):
        read(path="hf:owner/name")
    with pytest.raises(ConfigurationError, match="prompts.held_out: 'hf:owner/name:test' cannot be loaded"):
        read(held_out="hf:owner/name:test")
    with pytest.raises(ConfigurationError, match="prompts.split: 3 must be the name of a split"):
        read(split=3)
