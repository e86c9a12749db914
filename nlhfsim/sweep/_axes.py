"""An entry of a configuration: what is fixed in it, what takes each value of a list, and what is drawn from a distribution."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nlhfsim.errors import InputError, did_you_mean, ensure_integer, ensure_real

_RESERVED = ("grid", "random", "samples")
LARGEST = 10**6
"""Samples, and runs, of one sweep."""


class Mistakes:
    """Collects what is wrong, with its place, so that all of it is told at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, place: str, message: object) -> None:
        """Note a mistake, once."""
        # Messages that begin with the argument's name need it once only, and the place ends with it.
        text = str(message)
        last = place.rpartition(".")[2].partition("[")[0]
        if last and text.startswith(f"{last} = "):
            text = text.removeprefix(f"{last} = ")
        sentence = f"{place}: {text}" if place else text
        if sentence not in self.found:
            self.found.append(sentence)

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Note what the body refuses."""
        try:
            yield
        except InputError as error:
            self.add(place, error)

    def unknown(self, place: str, key: object, known: Any) -> None:
        """Note a key that does not exist, with the nearest that does."""
        self.add(f"{place}.{key}" if place else str(key), f"unknown{did_you_mean(str(key), known)}")


@dataclass(frozen=True)
class Distribution:
    """What an axis is drawn from: ``uniform``, ``log-uniform``, ``integers`` (both ends included) or ``choice``."""

    kind: str
    values: tuple[Any, ...]

    def draw(self, count: int, rng: np.random.Generator) -> list[Any]:
        """Return `count` values; the first of them are the same if more are asked for."""
        if self.kind == "choice":
            return [self.values[k] for k in rng.integers(len(self.values), size=count)]
        low, high = self.values
        if self.kind == "integers":
            return [int(k) for k in rng.integers(low, high, endpoint=True, size=count)]
        if self.kind == "uniform":
            return [float(x) for x in low + (high - low) * rng.random(count)]
        logs = math.log(low) + (math.log(high) - math.log(low)) * rng.random(count)
        return [float(x) for x in np.clip(np.exp(logs), low, high)]


def distribution_of(given: Any) -> Distribution:
    """Read a distribution, a table with one key, such as ``{ uniform = [0.1, 1] }``."""
    kinds = ("uniform", "log-uniform", "integers", "choice")
    if not isinstance(given, Mapping) or len(given) != 1:
        raise InputError(f"must be a table with one key, of {', '.join(kinds)}, as in {{ uniform = [0.1, 1] }}; not {given!r}")
    [(kind, values)] = given.items()
    if kind not in kinds:
        raise InputError(f"distribution {kind!r} is unknown{did_you_mean(str(kind), kinds)}")
    if kind == "choice":
        if not isinstance(values, list) or not values:
            raise InputError(f"choice = {values!r} must be a list of values, at least one")
        return Distribution(kind, tuple(values))
    if not isinstance(values, list) or len(values) != 2:
        raise InputError(f"{kind} = {values!r} must be two numbers, [low, high]")
    ends = [ensure_integer(kind, x, -(2**53)) if kind == "integers" else ensure_real(kind, x) for x in values]
    if not ends[0] < ends[1] or (kind == "log-uniform" and ends[0] <= 0):
        positive = "0 < " if kind == "log-uniform" else ""
        raise InputError(f"{kind} = {values} must be [low, high] with {positive}low < high")
    return Distribution(kind, tuple(ends))


@dataclass(frozen=True)
class Entry:
    """An entry of a configuration.

    Attributes
    ----------
    place : str
        Where it stands, such as ``methods[1]``.
    fixed, grid, random : dict
        By key: a value, a list of values of which each is taken, a distribution.
    samples : int or None
        How many points are drawn, if some of it is random.
    """

    place: str
    fixed: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    random: dict[str, Distribution] = field(default_factory=dict)
    samples: int | None = None

    @property
    def keys(self) -> list[str]:
        """All keys that are given."""
        return [*self.fixed, *self.grid, *self.random]

    def possible(self, key: str) -> list[Any]:
        """Return the values that are known beforehand, of a key that words name."""
        if key in self.fixed:
            return [self.fixed[key]]
        if key in self.random:
            return list(self.random[key].values) if self.random[key].kind == "choice" else []
        return list(self.grid.get(key, []))

    def where(self, key: str, value: Any = None) -> str:
        """Return the place of a key, and of one of its values if they are listed."""
        if key in self.grid:
            listed = self.grid[key]
            position = next((k for k, other in enumerate(listed) if same(other, value)), None)
            return f"{self.place}.grid.{key}" + ("" if position is None else f"[{position}]")
        return f"{self.place}.random.{key}" if key in self.random else f"{self.place}.{key}"

    @property
    def size(self) -> int:
        """How many points the entry has."""
        return math.prod(map(len, self.grid.values())) * ((self.samples or 1) if self.random else 1)

    def points(self, seed: int) -> list[dict[str, Any]]:
        """Return every point of the grid, each with every sample of what is random."""
        grid = [dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]
        samples = self._samples(self.samples or 1, seed) if self.random else [{}]
        return [self.fixed | point | sample for point in grid for sample in samples]

    def drawn(self, count: int, seed: int) -> list[dict[str, Any]]:
        """Return `count` random points: a listed value is one of the list, each as likely as the others."""
        listed = {key: Distribution("choice", tuple(values)) for key, values in self.grid.items()}
        everything = Entry(self.place, self.fixed, {}, self.random | listed)
        return [self.fixed | sample for sample in everything._samples(count, seed)]

    def _samples(self, count: int, seed: int) -> list[dict[str, Any]]:
        columns = [law.draw(count, stream(seed, f"{self.place}.{key}")) for key, law in self.random.items()]
        return [dict(zip(self.random, row)) for row in zip(*columns)] if columns else [{}] * count


def same(one: Any, other: Any) -> bool:
    """Return whether two values of a configuration are equal and of one kind: 1 is 1.0 but not true."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def stream(seed: int, place: str) -> np.random.Generator:
    """Return the generator of one axis, independent of those of all others."""
    words = np.frombuffer(hashlib.sha256(place.encode()).digest(), dtype=np.uint32)
    return np.random.default_rng([seed, *words.tolist()])


def read_entry(given: Any, place: str, drawn: bool, mistakes: Mistakes) -> Entry | None:
    """Return an entry, None if it is none; `drawn` says that the design as a whole is random.

    Whether its keys exist is not looked at.
    """
    if not isinstance(given, Mapping):
        mistakes.add(place, f"{given!r} must be a table")
        return None
    fixed = {}
    given_fixed = {str(key): value for key, value in given.items() if key not in _RESERVED}
    for key, value in given_fixed.items():
        with mistakes.at(f"{place}.{key}"):
            fixed[key] = plain(value)
    grid = _read_axes(given, "grid", place, _read_list, mistakes)
    random = _read_axes(given, "random", place, lambda value: distribution_of(plain(value)), mistakes)
    for key in sorted({*fixed} & {*grid} | {*fixed} & {*random} | {*grid} & {*random}):
        mistakes.add(f"{place}.{key}", "is given more than once: as a value, under grid or under random")
    samples = _read_samples(given.get("samples"), place, "random" in given, drawn, mistakes)
    # Of an entry with a value that is no value at all the rest would be told to lack it.
    return Entry(place, fixed, grid, random, samples) if len(fixed) == len(given_fixed) else None


def _read_axes(given: Mapping[Any, Any], word: str, place: str, read: Any, mistakes: Mistakes) -> dict[str, Any]:
    axes = given.get(word, {})
    if not isinstance(axes, Mapping):
        mistakes.add(f"{place}.{word}", f"{axes!r} must be a table, as in {word}.step_size = {_EXAMPLES[word]}")
        return {}
    found = {}
    for key, value in axes.items():
        with mistakes.at(f"{place}.{word}.{key}"):
            found[str(key)] = read(value)
    return found


_EXAMPLES = {"grid": "[0.1, 1]", "random": "{ log-uniform = [0.01, 10] }"}


def _read_list(value: Any) -> list[Any]:
    values = plain(value)
    if not isinstance(values, list) or not values:
        raise InputError(f"{value!r} must be a list of values, at least one")
    for k, one in enumerate(values):
        if any(same(one, other) for other in values[:k]):
            raise InputError(f"{one!r} is there twice")
    return values


def _read_samples(given: Any, place: str, random: bool, drawn: bool, mistakes: Mistakes) -> int | None:
    if given is None:
        if random and not drawn:
            mistakes.add(f"{place}.samples", "must be given: how many points to draw of what is random")
        return None
    if drawn:
        mistakes.add(f"{place}.samples", "must not be given: samples stands at the top, and so the design as a whole is drawn")
    elif not random:
        mistakes.add(f"{place}.samples", "must not be given: nothing is random here")
    samples = None
    with mistakes.at(f"{place}.samples"):
        samples = ensure_integer("samples", given, 1, LARGEST)
    return samples


def plain(value: Any) -> Any:
    """Return a value of numbers, words, lists and tables, those of numpy among them; anything else is refused."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{value} must be finite")
    if not isinstance(value, (bool, int, float, str)):
        raise InputError(f"{value!r} must be a number, a word, true or false, or a list of them")
    return value
