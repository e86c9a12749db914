"""Loading what transformers has saved: whole, or refused in a sentence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nlhfsim.errors import DataError, InputError

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def load_pretrained(kind: Any, source: str, what: str, **keywords: Any) -> Any:
    """Return a model that is saved in a folder or at the hub.

    Parameters
    ----------
    kind : class
        The class of transformers that loads it.
    source : str
        The folder, or the name at the hub.
    what : str
        What it is to be, for messages.

    Raises
    ------
    DataError
        If it cannot be loaded, or lacks weights: transformers would make those up.
    """
    from nlhfsim.llm.memory import advice_on

    try:
        keywords["local_files_only"] = _only_cached(source)
        with advice_on("loading"):
            model, info = kind.from_pretrained(source, output_loading_info=True, **keywords)
    except InputError:
        raise
    except Exception as error:  # every file of it can be damaged in its own way
        raise DataError(f"{what} {source!r} cannot be loaded: {first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise DataError(
            f"{what} {source!r} has no {missing[0]}, so it is no {what}: with random weights in its place it is noise"
        )
    return model


def load_tokenizer(source: str, what: str = "tokenizer", **keywords: Any) -> Any:
    """Return a tokenizer that is saved in a folder or at the hub.

    Parameters
    ----------
    source, what
        As for `load_pretrained`.

    Raises
    ------
    DataError
        If it cannot be loaded, or a folder has none: transformers would make one up, without a vocabulary, from the kind of the
        model.
    """
    from transformers import AutoTokenizer

    try:
        keywords["local_files_only"] = _only_cached(source)
        if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in _TOKENIZER_FILES):
            raise FileNotFoundError(f"none of {', '.join(_TOKENIZER_FILES)} is there")
        return AutoTokenizer.from_pretrained(source, **keywords)
    except Exception as error:  # every file of it can be damaged in its own way
        raise DataError(f"{what} {source!r} cannot be loaded: {first_line(error)}") from error


def _only_cached(source: str) -> bool:
    """Return whether the hub does not answer, so that what is in the cache must do; refuse what is no folder and not there.

    Transformers asks a hub that does not answer again and again, for most of a minute.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import http_backoff, validate_repo_id  # type: ignore[attr-defined]

    if source and Path(source).exists():
        return False
    try:
        validate_repo_id(source)
    except HFValidationError:
        raise FileNotFoundError("there is no such folder, and at the hub names are like 'owner/name'") from None
    if constants.HF_HUB_OFFLINE:
        return True
    try:  # any answer will do: what it means is told by transformers
        url = hf_hub_url(source, "config.json")
        with _silent("huggingface_hub"):
            http_backoff("HEAD", url, max_retries=1, retry_on_status_codes=(), timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # as many ways as there are libraries that ask
        if (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source, repo_type="model")).is_dir():
            return True
        raise FileNotFoundError(f"there is no such folder, and the hub does not answer: {first_line(error)}") from error
    return False


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep off what a library logs; what matters of it is raised too."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def first_line(error: Exception) -> str:
    """Return the first line of a message: those of the hub run on for a page."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def tried(words: str) -> Iterator[None]:
    """Turn what a model raises that is not made for what is asked of it into a sentence; memory that runs out is another matter.

    Raises
    ------
    InputError
        Beginning with `words`.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise InputError(f"{words}: {first_line(error)}") from error


def head_of(model: Any) -> Any:
    """Return the output layer of a language model, None if it has none."""
    try:
        return model.get_output_embeddings()
    except (AttributeError, NotImplementedError):  # transformers says so of some models that have none
        return None


def ensure_covers(model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer with a larger vocabulary than a model's; special tokens that were added to it may never occur.

    Raises
    ------
    InputError
        If it has.
    """
    there, needed = int(model.get_input_embeddings().num_embeddings), int(getattr(tokenizer, "vocab_size", 0))
    if needed > there:
        raise InputError(f"tokenizer has {needed} tokens and model {there}: they do not belong together")
