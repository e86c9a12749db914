"""The configuration of a sweep as tables: read from a file, its sections as entries, and what all of its runs have in common."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from nlhfsim.errors import DataError, InputError, ensure_flag, ensure_integer
from nlhfsim.sweep._axes import LARGEST, Entry, Mistakes, read_entry
from nlhfsim.sweep._parts import SETTINGS

TOP = ("title", "seed", "samples", "games", "methods", "run")
_OF_ALL_RUNS = ("seeds", "record_every", "curves")


class Source(NamedTuple):
    """A configuration as it was given: its tables, the folder that its paths start from, its name, its text if it has one."""

    tables: Mapping[str, Any]
    base: Path
    name: str
    text: str | None


def read_config(config: Any) -> Source:
    """Return the tables of a configuration given as a mapping, or as the path of a .toml or .json file."""
    if isinstance(config, Mapping):
        return Source(config, Path.cwd(), "config", None)
    try:
        path = Path(config)
    except TypeError:
        raise InputError(f"config = {config!r} must be the path of a .toml file, or its content as a dict") from None
    try:
        text = path.read_text(encoding="utf-8")
        tables = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise DataError(f"config {str(path)!r} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # also a text that is not UTF-8
        raise DataError(f"config {str(path)!r} is not {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from None
    if not isinstance(tables, dict):
        raise DataError(f"config {str(path)!r} must hold one object")
    return Source(tables, path.resolve().parent, str(path), None if path.suffix == ".json" else text)


def read_integer(tables: Mapping[str, Any], key: str, default: int | None, minimum: int, mistakes: Mistakes) -> int | None:
    """Return a whole number that stands at the top."""
    if key not in tables:
        return default
    number = default
    with mistakes.at(key):
        number = ensure_integer(key, tables[key], minimum, LARGEST if key == "samples" else 2**53)
    return number


def read_entries(tables: Mapping[str, Any], name: str, drawn: bool, mistakes: Mistakes) -> list[Entry]:
    """Return the entries of a section."""
    given = tables.get(name)
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        mistakes.add(name, f"must be given: one or more tables [[{name}]]")
        return []
    found = [read_entry(one, f"{name}[{k}]", drawn, mistakes) for k, one in enumerate(given)]
    return [entry for entry in found if entry is not None]


class Shared(NamedTuple):
    """What all runs have in common, and the seeds that each is done with."""

    seeds: tuple[int, ...]
    record_every: int | None
    curves: bool

    @classmethod
    def of(cls, entry: Entry, mistakes: Mistakes) -> Shared:
        """Read it from the entry of the settings, and look at the keys of that."""
        known = (*_OF_ALL_RUNS, *SETTINGS)
        for key in entry.keys:
            if key not in known:
                mistakes.unknown(entry.where(key).removesuffix(f".{key}"), key, known)
            elif key in _OF_ALL_RUNS and key not in entry.fixed:
                mistakes.add(entry.where(key), f"must be given once, as {entry.place}.{key}")
        if "n_steps" not in entry.keys:
            mistakes.add(f"{entry.place}.n_steps", "must be given")
        seeds: tuple[int, ...] = (0,)
        every, curves = None, False
        with mistakes.at(f"{entry.place}.seeds"):
            seeds = _seeds(entry.fixed.get("seeds", [0]))
        with mistakes.at(f"{entry.place}.record_every"):
            if "record_every" in entry.fixed:
                every = ensure_integer("record_every", entry.fixed["record_every"], 1)
        with mistakes.at(f"{entry.place}.curves"):
            curves = ensure_flag("curves", entry.fixed.get("curves", False))
        return cls(seeds, every, curves)


def of_each_run(entry: Entry) -> Entry:
    """Return the entry of the settings without what all runs have in common."""
    return replace(entry, fixed={key: value for key, value in entry.fixed.items() if key not in _OF_ALL_RUNS})


def _seeds(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list):
        return tuple(range(ensure_integer("seeds", given, 1, LARGEST)))
    seeds = tuple(ensure_integer(f"seeds[{k}]", one) for k, one in enumerate(given))
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds = {given} must be whole numbers, at least one, none of them twice")
    return seeds
