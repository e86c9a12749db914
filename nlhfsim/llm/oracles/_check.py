"""Asking an oracle, and refusing what is no answer; and the bits that several oracles share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from string import Formatter
from typing import Any

import numpy as np

from nlhfsim.errors import Array, InputError
from nlhfsim.llm.oracles._spec import Flags, PreferenceOracle, Prompt, Response, Verdicts

_AT_ONCE = 2**16
"""About so many pairs are asked for in one call where all pairs of many responses are."""
_ROUNDING = 1e-6
"""How far outside [0, 1] a probability may be by the rounding of single precision."""


def ask(
    oracle: PreferenceOracle, prompts: Sequence[Prompt], left: Sequence[Response], right: Sequence[Response], *, first: int = 0
) -> Verdicts:
    """Return what `oracle` says of N pairs, checked.

    Parameters
    ----------
    oracle : PreferenceOracle
        Its ``compare`` may also return the N probabilities alone: then all are valid. Lists do as well as
        arrays. It is not called if there are no pairs.
    prompts, left, right : sequences
        N of each.
    first : int
        Number of the first pair, for messages.

    Returns
    -------
    Verdicts
        Two fresh arrays; probabilities that leave [0, 1] by rounding are clipped, and those that are not valid are ½.

    Raises
    ------
    InputError
        If what the oracle returns is not as described; the message names its class, the pair and the value.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import FunctionOracle, Prompt, Response, ask
    >>> longer = FunctionOracle(lambda prompt, left, right: float(len(left) > len(right)))
    >>> ask(longer, [Prompt("Why?", ())], [Response("Because.", ())], [Response("So.", ())])
    Verdicts(probabilities=array([1.]), valid=array([ True]))
    """
    if not callable(getattr(oracle, "compare", None)):
        raise InputError(f"oracle = {oracle!r} must have a method compare(prompts, left, right), as nlhfsim.llm.oracles do")
    count = len(prompts)
    if not len(left) == len(right) == count:
        raise InputError(
            f"prompts, left and right have {count}, {len(left)} and {len(right)} entries, must be one of each a pair"
        )
    if count == 0:
        return Verdicts(np.empty(0), np.empty(0, dtype=np.bool_))
    return _checked(f"{type(oracle).__name__}.compare", oracle.compare(prompts, left, right), count, first)


def ask_all(oracle: PreferenceOracle, prompt: Prompt, responses: Sequence[Response]) -> Verdicts:
    """Return what `oracle` says of every response against every other, each pair asked for once, in the order given.

    Parameters
    ----------
    oracle : PreferenceOracle
        If it has a method ``compare_all(prompt, responses)``, which says of all pairs what ``compare`` does, as two arrays
        ``(n, n)``, that is called, and only the part above the diagonal read; else ``compare``, with many pairs at a time.
    prompt : Prompt
        The one prompt.
    responses : sequence of Response
        n of them.

    Returns
    -------
    Verdicts
        Two arrays ``(n, n)``: below the diagonal 1 less what is above, on it ½.

    Raises
    ------
    InputError
        As `ask`.

    Examples
    --------
    >>> from nlhfsim.llm.oracles import FunctionOracle, Prompt, Response, ask_all
    >>> longer = FunctionOracle(lambda prompt, left, right: float(len(left) > len(right)))
    >>> ask_all(longer, Prompt("Why?", ()), [Response("Because.", ()), Response("So.", ())]).probabilities
    array([[0.5, 1. ],
           [0. , 0.5]])
    """
    count = len(responses)
    chances, valid = np.full((count, count), 0.5), np.ones((count, count), dtype=np.bool_)
    whole = _whole(oracle, prompt, responses)
    numbers, first, at_once = np.arange(count), 0, max(1, _AT_ONCE // max(1, count))
    for begin in range(0, count, at_once):
        rows, columns = np.nonzero(numbers[begin : begin + at_once, None] < numbers)
        rows += begin
        if whole is None:
            left, right = ([responses[k] for k in side.tolist()] for side in (rows, columns))
            found = ask(oracle, [prompt] * len(left), left, right, first=first)
        else:
            answer = whole[0][rows, columns], whole[1][rows, columns]
            found = _checked(f"{type(oracle).__name__}.compare_all", answer, len(rows), first)
        chances[rows, columns], chances[columns, rows] = found.probabilities, 1 - found.probabilities
        valid[rows, columns] = valid[columns, rows] = found.valid
        first += len(rows)
    return Verdicts(chances, valid)


def _whole(oracle: Any, prompt: Prompt, responses: Sequence[Response]) -> tuple[Any, Any] | None:
    """Return what an oracle that knows all pairs at once says of them, None of any other oracle."""
    if not hasattr(oracle, "compare_all"):
        return None
    probabilities, valid = (np.asarray(part) for part in oracle.compare_all(prompt, responses))
    shape = (len(responses), len(responses))
    if probabilities.shape != shape or valid.shape != shape:
        name, shapes = f"{type(oracle).__name__}.compare_all", f"{probabilities.shape} and {valid.shape}"
        raise InputError(f"{name} returned arrays of shape {shapes}, must be {shape}")
    return probabilities, valid


def _checked(name: str, result: Any, count: int, first: int) -> Verdicts:
    """Return what an oracle returned as verdicts."""
    probabilities, valid = _parts(result)
    flags = np.ones(count, dtype=np.bool_) if valid is None else _flags(name, valid, count, first)
    return Verdicts(_probabilities(name, probabilities, flags, count, first), flags)


def _parts(result: Any) -> tuple[Any, Any]:
    """Return probabilities and flags, None where there are none; a tuple of two numbers is two probabilities."""
    if isinstance(result, tuple) and len(result) == 2 and not all(np.ndim(part) == 0 and part is not None for part in result):
        return result
    return result, None


def _array(name: str, value: Any) -> Any:
    """Return `value` as an array that holds the very entries of a list, of whatever type."""
    try:
        return np.asarray(value) if hasattr(value, "dtype") else np.asarray(value, dtype=object)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an array of numbers: {error}") from None


def _flags(name: str, valid: Any, count: int, first: int) -> Flags:
    array = _array(f"{name}: valid", valid)
    _check_shape(name, "valid", array, count)
    for k, entry in enumerate([] if array.dtype == np.bool_ else array.tolist()):
        if not isinstance(entry, (bool, np.bool_)):
            raise InputError(f"{name}: valid[{first + k}] = {entry!r} must be True or False")
    return np.array(array, dtype=np.bool_)


def _probabilities(name: str, value: Any, valid: Flags, count: int, first: int) -> Array:
    given = _array(f"{name}: probabilities", value)
    _check_shape(name, "probabilities", given, count)
    array = _numbers(given, lambda k: f"{name}: probabilities[{first + k}]")
    right = "must lie in [0, 1]: the probability that the left response is preferred"
    wrong = np.flatnonzero(valid & ~((array >= -_ROUNDING) & (array <= 1 + _ROUNDING)))
    if len(wrong):
        k = int(wrong[0])
        missing = ", or not be valid" if math.isnan(array[k]) else ""
        raise InputError(f"{name}: probabilities[{first + k}] = {array[k]:g} {right}{missing}")
    return np.where(valid, np.clip(array, 0.0, 1.0), 0.5)


def _check_shape(name: str, what: str, array: Any, count: int) -> None:
    if array.ndim == 0:
        raise InputError(f"{name} returned {array[()]!r} as {what}, must be an array of {count}, one a pair")
    if array.shape != (count,):
        raise InputError(f"{name} returned {what} of shape {array.shape}, must be ({count},), one a pair")


def _numbers(array: Any, name: Callable[[int], str]) -> Array:
    if array.dtype.kind in "biuf":
        return np.asarray(array, dtype=np.float64)
    return np.array([number_or_nothing(name(k), entry) for k, entry in enumerate(array.tolist())], dtype=np.float64)


def unread_by(oracle: Any) -> str:
    """Return why an oracle, or the one that it wraps, had no verdict the last time that it had none; empty if it does not say."""
    return str(getattr(oracle, "unread", ""))


def number_or_nothing(name: str, value: Any) -> float:
    """Return `value` as a float, NaN for None."""
    if value is None:
        return math.nan
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} = {value!r} must be a number") from None


def per_pair(name: str, result: Any, count: int) -> Array:
    """Return what a user's batched function said of `count` entries, NaN for None."""
    array = _array(f"{name}'s result", result)
    if array.shape != (count,):
        raise InputError(f"{name} returned an array of shape {array.shape}, must be ({count},), one for each that it was given")
    return _numbers(array, lambda k: f"{name}'s result [{k}]")


def ensure_callable(name: str, value: Any, signature: str) -> Callable[..., Any]:
    """Return `value` if it can be called."""
    if not callable(value):
        raise InputError(f"{name} = {value!r} must be a function {signature}")
    return value  # type: ignore[no-any-return]


def ensure_template(name: str, template: Any, fields: Collection[str]) -> str:
    """Return `template` if it is a format string with each of `fields` and no other."""
    wanted = " and ".join(f"{{{field}}}" for field in fields)
    if not isinstance(template, str):
        raise InputError(f"{name} = {template!r} must be a text with {wanted}")
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"{name} is no template: {error}; write a brace that is no field twice: {{{{ or }}}}") from None
    found = [field for _, field, _, _ in parts if field is not None]
    strange = next((field for field in found if field not in fields), None)
    if strange is not None:
        raise InputError(
            f"{name} has the field {{{strange}}}, must have {wanted} alone; write a brace that is no field twice: {{{{ or }}}}"
        )
    missing = next((field for field in fields if field not in found), None)
    if missing is not None:
        raise InputError(f"{name} has no {{{missing}}}, must have {wanted}")
    return template
