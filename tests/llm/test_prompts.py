"""Prompts: every form in which they are given comes to the same, what is none is refused by its place, the order resumes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlhfsim.errors import DataError, InputError, NlhfsimError
from nlhfsim.llm.prompts import PromptStream, encode_prompts, read_prompts

TEXTS = ["Why is the sky blue?", "Grüße, in UTF-8: ✓", "Why is the sky blue?"]
TOKENS = [[3, 1, 2], [7]]
TALK = [[{"role": "user", "content": "Hello"}], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]]


class Letters:
    """A tokenizer of letters, with or without a chat template; it begins every text with token 1, as many do."""

    def __init__(self, chat_template: str | None = None) -> None:
        self.chat_template = chat_template

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [1, *map(ord, text)]}

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))

    def apply_chat_template(self, messages: Any, *, add_generation_prompt: bool, tokenize: bool, return_dict: bool) -> list[int]:
        assert add_generation_prompt and tokenize and not return_dict
        if messages[0]["content"] == "forbidden":
            raise ValueError("this content is not allowed")
        return [*map(ord, "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>")]


def contents(source: Any, **options: Any) -> list[Any]:
    return [prompt.content for prompt in read_prompts(source, **options)]


def write(path: Path, rows: list[Any], column: str = "prompt", prefix: str = "") -> Path:
    path.write_text(prefix + "".join(json.dumps({column: row}) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("given", [TEXTS, TOKENS, TALK], ids=["texts", "tokens", "talk"])
def test_a_list_a_file_and_a_table_hold_the_same_prompts(given: list[Any], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = [tuple(one) if isinstance(one, list) else one for one in given]
    assert contents(given) == expected
    assert contents(write(tmp_path / "a.jsonl", given)) == expected
    assert contents(str(write(tmp_path / "bom.jsonl", given, prefix="\ufeff"))) == expected
    table = pa.table({"question": given})
    pq.write_table(table, tmp_path / "a.parquet")
    assert contents(tmp_path / "a.parquet", column="question") == expected
    assert contents(table, column="question") == expected
    assert contents(table.to_pandas(), column="question") == expected
    assert contents([{"prompt": one} for one in given]) == expected


def test_token_numbers_may_be_arrays() -> None:
    assert contents([np.array([3, 1, 2]), np.array([7])]) == contents(TOKENS)


REFUSED: list[tuple[Any, type[Exception], str]] = [
    ([], InputError, "prompts has no prompts"),
    (["fine", " \n"], InputError, r"prompts\[1\] is an empty prompt"),
    ([[1], []], InputError, r"prompts\[1\] is an empty prompt"),
    ([[1, 2], [3, -1]], InputError, r"prompts\[1\]\[1\] = -1 is no token number"),
    ([[1, 2.5]], InputError, r"prompts\[0\]\[0\] is 1: prompts are"),
    ([[True]], InputError, r"prompts\[0\]\[0\] is True"),
    ([None], InputError, r"prompts\[0\] is None, must be a prompt"),
    (["text", [1]], InputError, r"prompts\[0\] is a text, prompts\[1\] a list of token numbers"),
    ([[1], TALK[0]], InputError, r"prompts\[1\] a conversation"),
    (TALK[0], InputError, "one conversation, must be a list of conversations"),
    ([[*TALK[0], {"role": "assistant", "content": "Hi"}]], InputError, "ends with the answer of an assistant"),
    ([{"question": "Why?"}], InputError, "no column 'prompt'; choose one of question"),
    (7, InputError, "of type int, must be a list"),
    (b"text", InputError, "of type bytes"),
    ("prompts.docx", DataError, "must be a list, or the path of a file that ends in .jsonl, .parquet, .csv"),
    ("absent.jsonl", DataError, "absent.jsonl"),
]


@pytest.mark.parametrize("given, kind, words", REFUSED, ids=[words for *_, words in REFUSED])
def test_what_is_no_prompt_is_refused_by_its_place(given: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        read_prompts(given)


FILES = [
    ('{"prompt": "a"}\n\n{"prompt": \n', "line 3 is not JSON"),
    ('{"prompt": "a"}\n"b"\n', "line 2 must be a JSON object, one row"),
    ('{"promt": "a"}\n', "no column 'prompt'; did you mean 'promt'"),
    ('{"prompt": "a"}\n\n{"prompt": ""}\n', r"row 2 \(line 3\) is an empty prompt"),
    ('{"prompt": "a"}\n{"other": "b"}\n', r"row 2 \(line 2\) is None, must be a prompt"),
    ("", "p.jsonl"),
    ("\n\n", "is empty"),
    ("prompt", "line 1 is not JSON"),
]


@pytest.mark.parametrize("text, words", FILES, ids=[words for _, words in FILES])
def test_a_damaged_file_is_refused_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NlhfsimError, match=words) as refused:
        read_prompts(path)
    assert isinstance(refused.value, InputError)


def test_a_file_that_is_not_utf8_or_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes('{"prompt": "Grüße"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_prompts(tmp_path / "p.jsonl")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="is not a parquet file"):
        read_prompts(tmp_path / "p.parquet")


def encoded(given: Any, tokenizer: Any, **options: Any) -> list[tuple[str, str, int]]:
    """Prompts with their tokens spelled as letters."""
    prompts = encode_prompts(read_prompts(given), tokenizer, **options)
    return [(prompt.text, "".join(map(chr, prompt.tokens)), prompt.number) for prompt in prompts]


def test_texts_go_through_the_tokenizer_and_through_the_template_only_where_asked() -> None:
    assert encoded(["ab", "c"], Letters("…")) == [("ab", "\x01ab", 0), ("c", "\x01c", 1)]
    assert encoded(["ab"], Letters("…"), chat=True) == [("ab", "<user>ab<assistant>", 0)]
    assert encoded(TALK, Letters("…")) == [
        ("Hello", "<user>Hello<assistant>", 0),
        ("system: Be brief.\n\nuser: Why?", "<system>Be brief.<user>Why?<assistant>", 1),
    ]
    carried = [prompt.messages for prompt in encode_prompts(read_prompts(TALK), Letters("…"))]
    assert carried == [(("user", "Hello"),), (("system", "Be brief."), ("user", "Why?"))]
    assert encode_prompts(read_prompts(["ab"]), Letters("…"))[0].messages == ()


def test_token_numbers_are_taken_as_they_are() -> None:
    [prompt] = encode_prompts(read_prompts([[97, 98]]), Letters())
    assert prompt == ("ab", (97, 98), 0, ())
    [prompt] = encode_prompts(read_prompts([[97, 98]]), None)
    assert prompt == ("97 98", (97, 98), 0, ())


UNENCODABLE: list[tuple[Any, Any, dict[str, Any], str]] = [
    (["ab"], None, {}, r"prompts\[0\] is a text, and there is no tokenizer"),
    (TALK, None, {}, r"prompts\[0\] is a conversation, and there is no tokenizer"),
    (TALK, Letters(), {}, "the tokenizer has none"),
    (["ab"], Letters(), {"chat": True}, "the tokenizer has none"),
    (TALK, Letters("…"), {"chat": False}, "chat must not be False"),
    ([[{"role": "user", "content": "forbidden"}]], Letters("…"), {}, "refused by the chat template: this content is not allowed"),
    (["abc", "abcd"], Letters(), {"max_tokens": 4}, r"prompts\[1\] has 5 tokens, at most 4 fit: raise max_prompt_tokens"),
    ([[1], [2, 9, 8]], None, {"vocabulary_size": 9}, r"prompts\[1\]\[1\] = 9 is no token of the model, must be below 9"),
]


@pytest.mark.parametrize("given, tokenizer, options, words", UNENCODABLE, ids=[words for *_, words in UNENCODABLE])
def test_what_cannot_be_encoded_is_refused(given: Any, tokenizer: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        encode_prompts(read_prompts(given), tokenizer, **options)


def test_a_text_that_the_tokenizer_drops_is_refused() -> None:
    class Deaf(Letters):
        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": []}

    with pytest.raises(InputError, match="becomes a prompt of no tokens"):
        encode_prompts(read_prompts(["ab"]), Deaf())


def test_a_real_tokenizer_and_template_encode() -> None:
    """Of transformers, whichever release is installed: the template's result changed its type between releases."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "user": 1, "assistant": 2, "why": 3, "blue": 4}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    assert encode_prompts(read_prompts(["why blue"]), tokenizer)[0].tokens == (3, 4)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
    )
    assert encode_prompts(read_prompts(["why blue"]), tokenizer, chat=True)[0].tokens == (1, 3, 4, 2)


def test_every_epoch_is_another_permutation() -> None:
    stream = PromptStream(7, seed=3)
    epochs = [stream.take(7).tolist() for _ in range(20)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 15
    assert PromptStream(7, seed=4).take(7).tolist() != epochs[0] == PromptStream(7, seed=3).take(7).tolist()


def test_the_order_does_not_depend_on_how_much_is_taken_at_once_and_resumes_anywhere() -> None:
    whole = PromptStream(5, seed=1).take(40).tolist()
    for size in (1, 3, 5, 12):
        stream, taken = PromptStream(5, seed=1), []
        while len(taken) < 40:
            assert stream.position == len(taken)
            taken += stream.take(size).tolist()
            stream = PromptStream(5, seed=1, position=stream.position)
        assert taken[:40] == whole
    assert max(Counter(whole).values()) == min(Counter(whole).values()) == 8


def test_nothing_taken_is_nothing() -> None:
    stream = PromptStream(5, seed=1, position=5)
    assert stream.take(0).tolist() == [] and stream.position == 5
    with pytest.raises(InputError, match="n = 0 must be at least 1"):
        PromptStream(0, seed=1)
