"""What a served judge says: from the JSON of an OpenAI-compatible server to the probability that the left answer is meant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

_SPACE = " \t\r\n▁Ġ"
"""What tokens begin with: some servers show them as their tokenizer writes them."""
_AROUND = _SPACE + "*_`'\".,:;!()[]{}<>"
_TIE = "tie"
_KNOWN = 0.05
"""How exactly a probability must be known where the server's list of tokens ends too soon."""


def probability(choice: Any, answers: tuple[str, str]) -> float | None:
    """Return the probability of the first of two answers, None if the judge says neither.

    By log-probabilities the softmax of the two answers. Where there are none, or none of an answer, by the text: 1, 0, or ½ for
    a tie.

    Parameters
    ----------
    choice : dict
        The first of the server's ``choices``, of a chat or a completion.
    answers : tuple of str
        Without spaces around.
    """
    if not isinstance(choice, Mapping):
        return None
    listed = _listed(choice.get("logprobs"))
    logs = [_sum(listed, answer) for answer in answers]
    if any(log is not None for log in logs):
        return _softmax(logs, min(log for _, log in listed))
    return _of_text(text_of(choice), answers)


def text_of(choice: Any) -> str:
    """Return the text of one of the server's ``choices``, empty where there is none."""
    if not isinstance(choice, Mapping):
        return ""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    return text if isinstance(text, str) else ""


def _of_text(text: str, answers: tuple[str, str]) -> float | None:
    lines = text.strip().splitlines()
    said = lines[0].strip(_AROUND).casefold() if lines else ""
    known = {_TIE: 0.5, answers[0].casefold(): 1.0, answers[1].casefold(): 0.0}
    return known.get(said)


def _listed(logprobs: Any) -> list[tuple[str, float]]:
    """Return tokens that can be the answer's first, with log-probabilities; nothing if there are none or they are damaged."""
    try:
        if "content" in logprobs:
            pairs = [(one["token"], one["logprob"]) for one in logprobs["content"][0]["top_logprobs"]]
        else:
            pairs = list(logprobs["top_logprobs"][0].items())
        found = [(token.strip(_SPACE), float(log)) for token, log in pairs]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return []
    return found if all(log <= 1e-6 for _, log in found) else []


def _sum(listed: Sequence[tuple[str, float]], answer: str) -> float | None:
    """Return the log-probability of an answer, with or without a space before it."""
    logs = [log for token, log in listed if token == answer]
    total = float(np.logaddexp.reduce(logs)) if logs else -math.inf
    return total if total > -math.inf else None


def _softmax(logs: Sequence[float | None], least: float) -> float | None:
    """Return the probability of the first against the second; a missing one is anywhere below the `least` that is listed."""
    first, second = logs
    if first is not None and second is not None:
        return float(expit(first - second))
    there = first if first is not None else second
    assert there is not None
    most = (1 - float(expit(there - least))) / 2
    if most > _KNOWN:
        return None
    return most if first is None else 1 - most
