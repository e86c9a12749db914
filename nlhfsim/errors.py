"""Exceptions, warnings, and the validators that refuse bad input at the edge.

Every validator names the argument, shows the offending value or its position, and says what would be right. Code behind
the edge does not check again.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_FEW = 40
"""A message lists no more names than this."""


class NlhfsimError(Exception):
    """Base of every exception that nlhfsim raises on purpose."""


class InputError(NlhfsimError, ValueError):
    """An argument is not what it must be; the message names it and says what would be right."""


class UnknownNameError(InputError):
    """A game, dataset, method or parameter of that name does not exist."""


class SizeError(InputError):
    """Something was asked for that takes too much time or memory at this number of actions."""


class DataError(InputError):
    """A file or table of comparisons cannot be read as preference data."""


class ConfigurationError(InputError):
    """A configuration has mistakes; the message lists them all, each with its place.

    Attributes
    ----------
    mistakes : tuple of str
        One sentence each, as ``place: what is wrong``.
    """

    def __init__(self, name: str, mistakes: Iterable[str]) -> None:
        self.name, self.mistakes = name, tuple(mistakes)
        count = "a mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        super().__init__("\n  ".join([f"{name} has {count}, so nothing was run:", *self.mistakes]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.mistakes)


class OracleError(NlhfsimError):
    """A preference oracle cannot be asked: its service is down, or refuses; a training run stops with everything saved."""


class SamplerError(NlhfsimError):
    """A sampler of responses cannot be asked: its server is down, or refuses; a training run stops with everything saved."""


class MissingExtraError(NlhfsimError, ImportError):
    """An optional dependency is needed; the message gives the command that installs it."""


class NlhfsimWarning(UserWarning):
    """Base of the warnings of nlhfsim."""


class ProvenRangeWarning(NlhfsimWarning):
    """A step size lies outside the range for which convergence of the method is proven."""


class EquilibriumStartWarning(NlhfsimWarning):
    """A run starts at the equilibrium, so its curves show nothing."""


def ensure_real(name: str, value: object, kind: str = "a real number") -> float:
    """Return `value` as a finite float, or raise `InputError` naming the argument and the kind of number that it must be."""
    if isinstance(value, np.ndarray):
        if value.ndim != 0:
            raise InputError(f"{name} must be one number, not an array of shape {value.shape}")
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} = {value!r} must be {kind}")
    try:
        number = float(value)
    except OverflowError:
        raise InputError(f"{name} is too large a number: must be below 1.8e308") from None
    if not math.isfinite(number):
        raise InputError(f"{name} = {number} must be finite")
    return number


def ensure_positive(name: str, value: object) -> float:
    """Return `value` as a finite float > 0."""
    number = ensure_real(name, value)
    if number <= 0:
        raise InputError(f"{name} = {number:g} must be positive")
    return number


def ensure_nonnegative(name: str, value: object) -> float:
    """Return `value` as a finite float >= 0."""
    number = ensure_real(name, value)
    if number < 0:
        raise InputError(f"{name} = {number:g} must not be negative")
    return number


def ensure_between(name: str, value: object, low: float, high: float) -> float:
    """Return `value` as a float in the closed interval [low, high]."""
    number = ensure_real(name, value)
    if not low <= number <= high:
        raise InputError(f"{name} = {number:g} must lie between {low:g} and {high:g}")
    return number


def ensure_integer(name: str, value: object, minimum: int = 0, maximum: int = 2**53) -> int:
    """Return `value` as an int between `minimum` and `maximum`."""
    number = ensure_real(name, value, "a whole number")
    if number != int(number):
        raise InputError(f"{name} = {number} must be a whole number")
    if number < minimum:
        raise InputError(f"{name} = {int(number)} must be at least {minimum}")
    if number > maximum:
        raise InputError(f"{name} = {int(number)} must be at most {maximum}")
    return int(number)


def ensure_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} = {value!r} must be True or False")
    return bool(value)


def ensure_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`, else raise with the nearest choice suggested."""
    options = list(choices)
    if isinstance(value, str) and value in options:
        return value
    raise UnknownNameError(f"{name} = {value!r} is unknown{did_you_mean(str(value), options)}")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest option, else all of them if they are few."""
    known = sorted(options)
    close = difflib.get_close_matches(word.lower(), [o.lower() for o in known], n=1, cutoff=0.6)
    if close:
        nearest = next(o for o in known if o.lower() == close[0])
        return f"; did you mean {nearest!r}?"
    if len(known) > _FEW:
        return f"; none of the {len(known)} known names is like it"
    return f"; choose one of {', '.join(known)}" if known else "; it has none"


def position(index: Iterable[int]) -> str:
    """Format an array index for a message: ``[2, 5]``."""
    return "[" + ", ".join(str(int(i)) for i in index) + "]"


def ensure_array(name: str, value: object) -> Array:
    """Return `value` as a fresh float64 array without NaN or infinity."""
    try:
        if np.iscomplexobj(np.asarray(value)):
            raise TypeError("it is complex")
        if np.ma.is_masked(value):
            raise TypeError("some of its entries are masked")
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of numbers: {error}") from None
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = tuple(bad[0])
        raise InputError(f"{name}{position(where) if where else ''} = {array[where]} must be finite")
    return array


def by_label(name: str, value: object, labels: tuple[str, ...]) -> object:
    """Return `value`, the entries of a pandas Series put in the order of `labels`; anything else as it is.

    A Series numbered from 0 is taken by position. One with other labels is refused.
    """
    index = getattr(value, "index", None)
    if index is None or callable(index) or not hasattr(value, "to_numpy") or hasattr(value, "columns"):
        return value
    names = [str(entry) for entry in index]
    if names == [str(i) for i in range(len(names))] or names == list(labels):
        return value.to_numpy()
    if sorted(names) != sorted(labels):
        raise InputError(f"{name} is labelled {', '.join(names)}, must be labelled {', '.join(labels)} like the actions")
    array = value.to_numpy()
    return array[[names.index(label) for label in labels]]


def ensure_distribution(name: str, value: object, shape: tuple[int, ...], *, full_support: bool) -> Array:
    """Return `value` as probabilities over the last axis, normalized to rounding.

    Parameters
    ----------
    name : str
        The argument's name, for messages.
    value : array_like
        Probabilities; a single row is accepted for every context.
    shape : tuple of int
        The shape wanted, actions last.
    full_support : bool
        Whether zero probabilities are refused.

    Returns
    -------
    numpy.ndarray
        Shape `shape`, probability space, each row adding up to 1.

    Raises
    ------
    InputError
        Wrong shape, NaN, a negative (or zero) probability, or a sum away from 1 by more than 1e-6.
    """
    array = ensure_array(name, value)
    if array.shape == shape[-1:] and array.shape != shape:
        array = np.broadcast_to(array, shape).copy()
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, must be {shape}")
    bad = np.argwhere(array <= 0 if full_support else array < 0)
    if len(bad):
        where = tuple(bad[0])
        wanted = "positive (full support)" if full_support else "at least 0"
        raise InputError(f"{name}{position(where)} = {array[where]:g} must be {wanted}")
    total = array.sum(axis=-1)
    off = np.argwhere(np.abs(total - 1) > 1e-6)
    if len(off):
        where = tuple(off[0])
        row = f"{name}{position(where)}" if where else name
        raise InputError(f"{row} adds up to {total[where]:.10g}, must be 1")
    return np.asarray(array / total[..., None])
