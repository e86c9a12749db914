"""Loading what transformers has saved: whole, or refused in a sentence."""

from __future__ import annotations

from typing import Any

from nlhfsim.errors import DataError, InputError


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


def first_line(error: Exception) -> str:
    """Return the first line of a message: those of the hub run on for a page."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
