"""The preferences of a recipe: an oracle of one kind, with what it takes, in its wrappers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlhfsim.errors import (
    InputError,
    ensure_between,
    ensure_flag,
    ensure_integer,
    ensure_positive,
)
from nlhfsim.llm.credentials import checked, ensure_no_secret
from nlhfsim.llm.recipe_kinds import OF_A_SERVER, Check, Kind, ensure_function, ensure_text, import_function, read_kind
from nlhfsim.sweep._axes import Mistakes

_LOADED = ("judge", "reward-model")
"""Kinds with a model that is loaded here."""
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
        before = len(mistakes.found)
        kind, found = read_kind("oracle", section, KINDS, mistakes, WRAPPERS)
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


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{name} = {value!r} must be a list")
    return value


def _preferences(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return ensure_text(name, value)
    from nlhfsim.games.game import PreferenceGame

    PreferenceGame(_list(name, value))
    return value


def _groups(name: str, value: Any) -> list[tuple[int, ...]]:
    return [
        tuple(ensure_integer(f"{name}[{k}]", token) for token in _list(f"{name}[{k}]", one))
        for k, one in enumerate(_list(name, value))
    ]


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


_OF_A_MODEL: dict[str, Check] = {"batch_size": _whole, "template": ensure_text, "chat": ensure_flag, "max_length": _whole}
_OF_A_SERVICE: dict[str, Check] = {
    "template": ensure_text,
    "answers": _list,
    "mode": ensure_text,
    "logprobs": ensure_flag,
    "top_logprobs": _whole,
    "max_tokens": _whole,
    "extra": _extra,
    "concurrency": _whole,
} | OF_A_SERVER
_OF_A_FUNCTION: dict[str, Check] = {"batched": ensure_flag, "tokens": ensure_flag}
KINDS: dict[str, Kind] = {
    "matrix": ({"preferences": _preferences}, {"responses": _list, "prompts": _list, "strict": ensure_flag}),
    "classes": ({"preferences": _preferences}, {"classify": ensure_function, "groups": _groups}),
    "function": ({"function": ensure_function}, _OF_A_FUNCTION),
    "score": ({"score": ensure_function}, {"temperature": ensure_positive} | _OF_A_FUNCTION),
    "reward-model": ({"model": ensure_text}, {"temperature": ensure_positive} | _OF_A_MODEL),
    "judge": ({"model": ensure_text}, {"answers": _list} | _OF_A_MODEL),
    "served-judge": ({"address": ensure_text, "model": ensure_text}, _OF_A_SERVICE),
}
"""By kind: what must be given, and what may be."""
WRAPPERS: dict[str, Check] = {"noise": _noise, "both_orders": ensure_flag, "cache": _cache}
