"""What a preference oracle is: prompts and two responses to each, to probabilities that the first is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array

Flags = npt.NDArray[np.bool_]


class Message(NamedTuple):
    """What one side says in a conversation."""

    role: str
    content: str


class Prompt(NamedTuple):
    """A prompt as an oracle sees it.

    Attributes
    ----------
    text : str
        As it was given, before any chat template; the decoded tokens if tokens were given; of a conversation, see `as_text`.
    tokens : tuple of int
        As the model reads it.
    number : int
        Its number among all prompts.
    messages : tuple of Message
        Of a conversation, in order; empty if it is none.
    """

    text: str
    tokens: tuple[int, ...]
    number: int = 0
    messages: tuple[Message, ...] = ()


def as_text(messages: Sequence[Message]) -> str:
    """Return a conversation as one text: a lone message as it is, several with who says them."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


class Response(NamedTuple):
    """A response as an oracle sees it.

    Attributes
    ----------
    text : str
        Decoded, without special tokens.
    tokens : tuple of int
        As sampled, the token that ends it included.
    """

    text: str
    tokens: tuple[int, ...]


class Verdicts(NamedTuple):
    """What an oracle says of N pairs.

    Attributes
    ----------
    probabilities : numpy.ndarray
        Shape ``(N,)``, in [0, 1]: that the left response is preferred. A tie is ½. Not read where a verdict is not valid.
    valid : numpy.ndarray
        Shape ``(N,)``, bool: whether the oracle had a verdict at all.
    """

    probabilities: Array
    valid: Flags


@runtime_checkable
class PreferenceOracle(Protocol):
    """Anything with this method. It must answer the same way each time: votes are drawn by the trainer.

    One that knows all pairs of many responses at once may also have the method that `ask_all` describes, and one that can say
    why it had no verdict an attribute ``unread``, a short text on the last time: a run that ends for want of verdicts quotes it.
    """

    def compare(self, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response]) -> Verdicts:
        """Return the probability that each `left` response is preferred to the `right` one, given the prompt."""
        ...
