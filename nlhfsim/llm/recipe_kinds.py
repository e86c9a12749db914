"""What tables of a recipe share that have a kind: the kind is looked up, and what it takes is checked one by one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nlhfsim.errors import InputError, did_you_mean, ensure_integer, ensure_nonnegative, ensure_positive
from nlhfsim.llm.credentials import checked, ensure_header, ensure_name
from nlhfsim.sweep._axes import Mistakes

Check = Callable[[str, Any], Any]
Kind = tuple[dict[str, Check], dict[str, Check]]
"""What must be given for a kind, and what may be."""


def read_kind(
    table: str, section: Mapping[str, Any], kinds: Mapping[str, Kind], mistakes: Mistakes, of_all: Mapping[str, Check]
) -> tuple[str, dict[str, Any]]:
    """Return the kind that a table has and what it takes, checked one by one; the kind is empty if there is none of that name.

    Parameters
    ----------
    table : str
        The table's name.
    section : mapping
        The table.
    kinds : mapping
        By kind: what must be given, and what may be.
    mistakes : Mistakes
        Gets what is wrong.
    of_all : mapping
        What may be given for every kind.
    """
    kind = section.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        words = "must be given" if kind is None else f"{kind!r} is unknown"
        mistakes.add(f"{table}.kind", words + did_you_mean(str(kind or ""), kinds))
        return "", {}
    required, optional = kinds[kind]
    checks = {**required, **optional, **of_all}
    found = {}
    for key, value in section.items():
        if key == "kind":
            continue
        if key not in checks:
            mistakes.unknown(table, key, checks)
            continue
        with mistakes.at(f"{table}.{key}"):
            found[key] = checks[key](key, value)
    for key in required:
        if key not in section:
            mistakes.add(f"{table}.{key}", f"must be given for kind = {kind!r}")
    return kind, found


def import_function(place: str, written: str, base: Path) -> Any:
    """Return the function that ``module:name`` is, of a module in the folder of the recipe or an installed one."""
    module, _, name = written.partition(":")
    sys.path.insert(0, str(base))
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module is a program of its own, and fails in its own way
        raise InputError(f"{place} = {written!r} cannot be imported: {type(error).__name__}: {error}") from None
    finally:
        sys.path.remove(str(base))
    if not callable(found):
        raise InputError(f"{place} = {written!r} is a {type(found).__name__}, must be a function")
    return found


def ensure_text(name: str, value: Any) -> str:
    """Return `value` if it is a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} = {value!r} must be a text")
    return value


def ensure_function(name: str, value: Any) -> str:
    """Return `value` if it can name a function, as `import_function` takes it."""
    module, colon, inner = ensure_text(name, value).partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), *inner.split(".")]):
        raise InputError(f"{name} = {value!r} must be 'module:name', a function of a module beside the recipe or installed")
    return value  # type: ignore[no-any-return]


def _headers(name: str, value: Any) -> dict[str, Any]:
    return checked(ensure_header, name, value)


OF_A_SERVER: dict[str, Check] = {
    "key": ensure_name,
    "headers": _headers,
    "retries": ensure_integer,
    "backoff": ensure_nonnegative,
    "longest_wait": ensure_nonnegative,
    "timeout": ensure_positive,
}
"""What may be said of whatever is asked behind an address."""
