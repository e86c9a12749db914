"""The preferences of a recipe: an oracle of one kind, with what it takes, in its wrappers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlhfsim.errors import (
    InputError,
    did_you_mean,
    ensure_between,
    ensure_flag,
    ensure_integer,
    ensure_nonnegative,
    ensure_positive,
)
from nlhfsim.llm.oracles._secrets import checked, ensure_header, ensure_name, ensure_no_secret
from nlhfsim.sweep._axes import Mistakes

_LOADED = ("judge", "reward-model")
"""Kinds with a model that is loaded here."""
Check = Callable[[str, Any], Any]
Finish = Callable[[str], Any]
"""From the device to the oracle."""


@dataclass(frozen=True)
class OracleRecipe:
    """An oracle as a table describes it.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    options : dict
        What it takes, checked one by one.
    wrappers : dict
        Of ``noise``, ``both_orders`` and ``cache`` those that are given.
    base : pathlib.Path
        The folder that paths and modules start from.
    """

    kind: str
    options: dict[str, Any]
    wrappers: dict[str, Any]
    base: Path

    @classmethod
    def read(cls, section: Mapping[str, Any], base: Path, mistakes: Mistakes) -> OracleRecipe | None:
        """Return what a table says, None if it has mistakes."""
        kind = section.get("kind")
        if kind not in KINDS:
            words = "must be given" if kind is None else f"{kind!r} is unknown"
            mistakes.add("oracle.kind", words + did_you_mean(str(kind or ""), KINDS))
            return None
        required, optional = KINDS[kind]
        checks = required | optional | WRAPPERS
        before = len(mistakes.found)
        found = {}
        for key, value in section.items():
            if key == "kind":
                continue
            if key not in checks:
                mistakes.unknown("oracle", key, checks)
                continue
            with mistakes.at(f"oracle.{key}"):
                found[key] = checks[key](key, value)
        for key in required:
            if key not in section:
                mistakes.add(f"oracle.{key}", f"must be given for kind = {kind!r}")
        if kind == "classes" and ("groups" in section) == ("classify" in section):
            mistakes.add("oracle", "must have either groups, the tokens that begin each class, or classify, a function")
        if len(mistakes.found) > before:
            return None
        wrappers = {key: found.pop(key) for key in WRAPPERS if key in found}
        return cls(kind, found, wrappers, base)

    def prepare(self) -> Finish:
        """Return what makes the oracle, after all that is found without loading a model."""
        options = dict(self.options)
        for key in ("function", "score", "classify"):
            if key in options:
                options[key] = import_function(f"oracle.{key}", options[key], self.base)
        if isinstance(options.get("preferences"), str):
            options["preferences"] = self._game(options["preferences"])
        if "model" in options and self.kind in _LOADED:
            local = self.base / options["model"]
            options["model"] = str(local) if local.is_dir() else options["model"]
        if self.kind in _LOADED:
            return lambda device: self._wrap(self._make(options | {"device": device}))
        oracle = self._wrap(self._make(options))
        return lambda device: oracle

    def _make(self, options: dict[str, Any]) -> Any:
        from nlhfsim.llm import oracles

        names = {
            "matrix": "MatrixOracle",
            "classes": "ClassOracle",
            "function": "FunctionOracle",
            "score": "ScoreOracle",
            "judge": "JudgeOracle",
            "served-judge": "ServedJudgeOracle",
            "reward-model": "RewardModelOracle",
        }
        try:
            if "groups" in options:
                options["classify"] = oracles.FirstToken(options.pop("groups"))
            return getattr(oracles, names[self.kind])(**options)
        except InputError as error:
            raise InputError(f"oracle: {error}") from None

    def _wrap(self, oracle: Any) -> Any:
        """Return the oracle in its wrappers: what costs is remembered, orders are averaged over that, noise comes last."""
        from nlhfsim.llm.oracles import BothOrders, Cached, Noisy

        cache = self.wrappers.get("cache", False)
        if cache is not False:
            oracle = Cached(oracle) if cache is True else Cached(oracle, cache)
        if self.wrappers.get("both_orders"):
            oracle = BothOrders(oracle)
        return Noisy(oracle, self.wrappers["noise"]) if self.wrappers.get("noise") else oracle

    def _game(self, source: str) -> Any:
        """Return the game of a name, a dataset or a file."""
        from nlhfsim.game_sources import read_source

        local = self.base / source
        try:
            return read_source(str(local) if local.is_file() else source)
        except InputError as error:
            raise InputError(f"oracle.preferences: {error}") from None


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


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} = {value!r} must be a text")
    return value


def _function(name: str, value: Any) -> str:
    module, colon, inner = _text(name, value).partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), *inner.split(".")]):
        raise InputError(f"{name} = {value!r} must be 'module:name', a function of a module beside the recipe or installed")
    return value  # type: ignore[no-any-return]


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{name} = {value!r} must be a list")
    return value


def _preferences(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _text(name, value)
    from nlhfsim.games.game import PreferenceGame

    PreferenceGame(_list(name, value))
    return value


def _groups(name: str, value: Any) -> list[tuple[int, ...]]:
    return [
        tuple(ensure_integer(f"{name}[{k}]", token) for token in _list(f"{name}[{k}]", one))
        for k, one in enumerate(_list(name, value))
    ]


def _headers(name: str, value: Any) -> dict[str, Any]:
    return checked(ensure_header, name, value)


def _extra(name: str, value: Any) -> dict[str, Any]:
    """Return further fields of a request; "none" leaves one out, as TOML has no null."""
    fields = checked(lambda _, given: None if given == "none" else given, name, value)
    ensure_no_secret(name, fields)
    return fields


def _cache(name: str, value: Any) -> bool | int:
    return value if isinstance(value, bool) else ensure_integer(name, value, 1)


def _whole(name: str, value: Any) -> int:
    return ensure_integer(name, value, 1)


def _noise(name: str, value: Any) -> float:
    return ensure_between(name, value, 0, 1)


_OF_A_MODEL: dict[str, Check] = {"batch_size": _whole, "template": _text, "chat": ensure_flag, "max_length": _whole}
_OF_A_SERVICE: dict[str, Check] = {
    "template": _text,
    "answers": _list,
    "mode": _text,
    "logprobs": ensure_flag,
    "top_logprobs": _whole,
    "max_tokens": _whole,
    "key": ensure_name,
    "headers": _headers,
    "extra": _extra,
    "concurrency": _whole,
    "retries": ensure_integer,
    "backoff": ensure_nonnegative,
    "longest_wait": ensure_nonnegative,
    "timeout": ensure_positive,
}
_OF_A_FUNCTION: dict[str, Check] = {"batched": ensure_flag, "tokens": ensure_flag}
KINDS: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "matrix": ({"preferences": _preferences}, {"responses": _list, "prompts": _list, "strict": ensure_flag}),
    "classes": ({"preferences": _preferences}, {"classify": _function, "groups": _groups}),
    "function": ({"function": _function}, _OF_A_FUNCTION),
    "score": ({"score": _function}, {"temperature": ensure_positive} | _OF_A_FUNCTION),
    "reward-model": ({"model": _text}, {"temperature": ensure_positive} | _OF_A_MODEL),
    "judge": ({"model": _text}, {"answers": _list} | _OF_A_MODEL),
    "served-judge": ({"address": _text, "model": _text}, _OF_A_SERVICE),
}
"""By kind: what must be given, and what may be."""
WRAPPERS: dict[str, Check] = {"noise": _noise, "both_orders": ensure_flag, "cache": _cache}
