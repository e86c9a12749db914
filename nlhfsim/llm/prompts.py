"""Prompts: read from lists and files, made into tokens, and put into a seeded order that never ends."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.datasets.readers import read_table
from nlhfsim.errors import DataError, InputError, UnknownNameError, did_you_mean, ensure_integer
from nlhfsim.llm import prompt_datasets
from nlhfsim.llm.oracles import Message, Prompt
from nlhfsim.llm.oracles._spec import as_text

Content = str | tuple[int, ...] | tuple[dict[str, str], ...]

_KINDS = "texts, lists of token numbers, or conversations (lists of {'role', 'content'})"
_SUFFIXES = (".jsonl", ".parquet", ".csv")
_ORDER = int.from_bytes(b"prompts", "big")
"""Keeps the order of the prompts independent of whatever else is drawn from the same seed."""


class RawPrompt(NamedTuple):
    """A prompt as it was given.

    Attributes
    ----------
    content : str, tuple of int, or tuple of dict
        A text, token numbers, or a conversation: messages with ``"role"`` and ``"content"``.
    place : str
        Where it stands, for messages.
    """

    content: Content
    place: str

    @property
    def kind(self) -> str:
        """``"text"``, ``"tokens"`` or ``"conversation"``."""
        if isinstance(self.content, str):
            return "text"
        return "tokens" if isinstance(self.content[0], int) else "conversation"


def read_prompts(
    source: Any, *, column: str = "prompt", split: str | None = None, name: str = "prompts"
) -> tuple[RawPrompt, ...]:
    """Return the prompts that a list, a table or a file holds.

    Parameters
    ----------
    source : list, data frame, dataset, or path
        Texts, lists of token numbers, or conversations, all of one kind, each as often as is liked; or a ``.jsonl``,
        ``.parquet`` or ``.csv`` file, a data frame, or rows (dicts), with one of these in a column; or what this function
        returned. Or a dataset of the library ``datasets``, a folder that its ``save_to_disk`` wrote, or
        ``"hf:OWNER/NAME/SUBSET:SPLIT"`` at the hub, subset and split if wanted. One that streams is read to its end.
    column : str
        The column.
    split : str, optional
        Of a dataset that has several. Default: the only one, else train.
    name : str
        What messages call `source`.

    Returns
    -------
    tuple of RawPrompt
        In the order of the source.

    Raises
    ------
    InputError
        If a list has no prompts, an empty one, one that is none, or several kinds.
    DataError
        The same of a file, or if it cannot be read.

    Examples
    --------
    >>> from nlhfsim.llm.prompts import read_prompts
    >>> [prompt.content for prompt in read_prompts(["Why is the sky blue?", "Name a prime."])]
    ['Why is the sky blue?', 'Name a prime.']
    """
    refuse: type[InputError] = InputError
    prompts: Iterable[tuple[Any, str]]
    if prompt_datasets.is_dataset(source):
        prompts, refuse = prompt_datasets.values(source, column, split, name), DataError
    elif split is not None:
        raise InputError(f"split = {split!r} is for datasets of the library datasets alone")
    elif isinstance(source, (str, os.PathLike)):
        prompts, refuse = _from_file(Path(source), column, name), DataError
    elif hasattr(source, "columns") or hasattr(source, "column_names") or _are_rows(source):
        prompts = _from_table(source, column, name)
    else:
        prompts = _from_list(source, name)
    found = []
    for value, place in prompts:
        found.append(RawPrompt(_content(value, place, refuse), place))
        if found[-1].kind != found[0].kind:
            raise refuse(
                f"{name} must be of one kind, and {found[0].place} is {_spoken(found[0].kind)}, {place} {_spoken(found[-1].kind)}"
            )
    if not found:
        raise refuse(f"{name}{_in_file(source)} has no prompts, must have at least one")
    return tuple(found)


def _spoken(kind: str) -> str:
    return {"text": "a text", "tokens": "a list of token numbers"}.get(kind, "a conversation")


def _in_file(source: Any) -> str:
    return f" = {str(source)!r}" if isinstance(source, (str, os.PathLike)) else ""


def _from_list(source: Any, name: str) -> Iterable[tuple[Any, str]]:
    if isinstance(source, (bytes, Mapping)) or not isinstance(source, Iterable):
        raise InputError(f"{name} is of type {type(source).__name__}, must be a list of {_KINDS}, or the path of a file")
    # What was read already keeps its place.
    return [one if isinstance(one, RawPrompt) else (one, f"{name}[{k}]") for k, one in enumerate(source)]


def _are_rows(source: Any) -> bool:
    if not isinstance(source, (list, tuple)) or not source or not all(isinstance(row, Mapping) for row in source):
        return False
    if all(_is_message(row) for row in source):
        raise InputError("prompts is one conversation, must be a list of conversations: put it into brackets")
    return True


def _from_file(path: Path, column: str, name: str) -> Iterable[tuple[Any, str]]:
    if path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{name} = {str(path)!r} must be a list, or the path of a file that ends in {', '.join(_SUFFIXES)}")
    return _from_table(path, column, name)


def _from_table(source: Any, column: str, name: str) -> Iterable[tuple[Any, str]]:
    table = read_table(source)
    if table.n_rows == 0:
        return []
    if column not in table.names:
        raise UnknownNameError(f"{name}: {table.source} has no column {column!r}{did_you_mean(column, table.names)}")
    return [(value, table.where(k)) for k, value in enumerate(table.column(column))]


def _content(value: Any, place: str, refuse: type[InputError]) -> Content:
    """Return a prompt in its exact type."""
    if isinstance(value, str):
        if not value.strip():
            raise refuse(f"{place} is an empty prompt, must be a text")
        return value
    if isinstance(value, np.ndarray) or hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise refuse(f"{place} is {value!r}, must be a prompt: prompts are {_KINDS}")
    if not value:
        raise refuse(f"{place} is an empty prompt, must have at least one token")
    if all(isinstance(token, (int, np.integer)) and not isinstance(token, bool) for token in value):
        lowest = min(value)
        if lowest < 0:
            raise refuse(f"{place}[{list(value).index(lowest)}] = {lowest} is no token number, must be at least 0")
        return tuple(int(token) for token in value)
    for k, message in enumerate(value):
        if not _is_message(message):
            raise refuse(f"{place}[{k}] is {message!r}: prompts are {_KINDS}")
    if value[-1]["role"] == "assistant":
        raise refuse(f"{place} ends with the answer of an assistant, must end with what is to be answered")
    return tuple({"role": message["role"], "content": message["content"]} for message in value)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def encode_prompts(
    raw: Sequence[RawPrompt],
    tokenizer: Any,
    *,
    max_tokens: int | None = None,
    chat: bool | None = None,
    vocabulary_size: int | None = None,
    advice: str = "raise max_prompt_tokens, or shorten the prompt",
) -> tuple[Prompt, ...]:
    """Return prompts as a model reads them.

    Parameters
    ----------
    raw : sequence of RawPrompt
        From `read_prompts`.
    tokenizer : transformers tokenizer or None
        Without one, prompts must be token numbers, and their text is the numbers with spaces between.
    max_tokens : int, optional
        The most tokens that a prompt may have.
    chat : bool, optional
        True: a text becomes the message of a user, in the tokenizer's chat template. False: conversations are refused. None:
        texts stay as they are, conversations go through the template.
    vocabulary_size : int, optional
        Token numbers must be below.
    advice : str
        What to do about a prompt that is too long.

    Returns
    -------
    tuple of Prompt
        Numbered from 0.

    Raises
    ------
    InputError
        If a prompt needs a tokenizer or a template that is not there, has no tokens or too many, or a token is not in the
        vocabulary.

    Examples
    --------
    >>> from nlhfsim.llm.prompts import encode_prompts, read_prompts
    >>> encode_prompts(read_prompts([[3, 1], [2]]), None, max_tokens=4)
    (Prompt(text='3 1', tokens=(3, 1), number=0, messages=()), Prompt(text='2', tokens=(2,), number=1, messages=()))
    """
    prompts = []
    for number, one in enumerate(raw):
        text, tokens, messages = _encode(one, tokenizer, chat)
        if not tokens:
            raise InputError(f"{one.place} becomes a prompt of no tokens, must have at least one: the tokenizer drops all of it")
        if max_tokens is not None and len(tokens) > max_tokens:
            raise InputError(f"{one.place} has {len(tokens)} tokens, at most {max_tokens} fit: {advice}")
        if vocabulary_size is not None and max(tokens) >= vocabulary_size:
            wrong = next(k for k, token in enumerate(tokens) if token >= vocabulary_size)
            raise InputError(f"{one.place}[{wrong}] = {tokens[wrong]} is no token of the model, must be below {vocabulary_size}")
        prompts.append(Prompt(text, tokens, number, messages))
    return tuple(prompts)


def _encode(raw: RawPrompt, tokenizer: Any, chat: bool | None) -> tuple[str, tuple[int, ...], tuple[Message, ...]]:
    """Return text, tokens and messages of a prompt."""
    content = raw.content
    if raw.kind == "tokens":
        text = " ".join(map(str, content)) if tokenizer is None else str(tokenizer.decode(list(content)))
        return text, content, ()  # type: ignore[return-value]
    if tokenizer is None:
        raise InputError(f"{raw.place} is {_spoken(raw.kind)}, and there is no tokenizer: give one, or prompts as tokens")
    if isinstance(content, str) and not chat:
        return content, tuple(tokenizer(content)["input_ids"]), ()
    if chat is False:
        raise InputError(f"{raw.place} is a conversation, which needs a chat template: chat must not be False")
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(f"{raw.place} needs a chat template, and the tokenizer has none: set chat_template, or give plain texts")
    messages: Any = [{"role": "user", "content": content}] if isinstance(content, str) else list(content)
    turns = tuple(Message(**message) for message in messages)
    return as_text(turns), _through_template(raw.place, tokenizer, messages), turns


def _through_template(place: str, tokenizer: Any, messages: Any) -> tuple[int, ...]:
    try:
        tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    except Exception as error:  # a template is a program of its own, and refuses in its own way
        raise InputError(f"{place} is refused by the chat template: {error}") from None
    return tuple(tokens)


class PromptStream:
    """Numbers of prompts in a seeded order that never ends: every epoch a new permutation.

    Parameters
    ----------
    n : int
        How many prompts there are, at least 1.
    seed : int
        Of the order.
    position : int
        How many were taken already: the stream goes on behind them.

    Examples
    --------
    >>> from nlhfsim.llm.prompts import PromptStream
    >>> stream = PromptStream(3, seed=0)
    >>> first, second = stream.take(2), stream.take(4)
    >>> sorted([*first.tolist(), *second[:1].tolist()]), stream.position
    ([0, 1, 2], 6)
    >>> bool((PromptStream(3, seed=0, position=2).take(4) == second).all())
    True
    """

    def __init__(self, n: int, seed: int, position: int = 0) -> None:
        self.n, self.seed = ensure_integer("n", n, 1), ensure_integer("seed", seed)
        self._position = ensure_integer("position", position)

    @property
    def position(self) -> int:
        """How many were taken."""
        return self._position

    def take(self, count: int) -> npt.NDArray[np.int64]:
        """Return the next numbers, shape ``(count,)``; beyond the end of an epoch, those of the next."""
        start, stop = self._position, self._position + ensure_integer("count", count)
        epochs = range(start // self.n, -(-stop // self.n))
        self._position = stop
        if not epochs:
            return np.empty(0, dtype=np.int64)
        orders = np.concatenate([self._order(epoch) for epoch in epochs])
        first = epochs.start * self.n
        return orders[start - first : stop - first]

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(self.n)
