"""Where a recipe takes models and tokenizers from: a folder, the hub, or a new model from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nlhfsim.errors import ConfigurationError, DataError, InputError, did_you_mean
from nlhfsim.llm import pretrained
from nlhfsim.llm.pretrained import first_line, load_pretrained
from nlhfsim.sweep._axes import Mistakes

_KEYS = ("path", "name", "revision")


@dataclass(frozen=True)
class Place:
    """Where a model or tokenizer is.

    Attributes
    ----------
    section : str
        The table that says it, for messages.
    source : str or None
        The folder, or the name at the hub; None for a new model.
    revision : str or None
        Of a name at the hub.
    new : dict
        ``model_type`` and the numbers of the configuration of a new model.
    """

    section: str
    source: str | None
    revision: str | None = None
    new: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, section: Mapping[str, Any], name: str, base: Path, mistakes: Mistakes, *, new: bool = False) -> Place | None:
        """Return what a table says, None if it has mistakes or is empty."""
        ways = ("path", "name", "new") if new else ("path", "name")
        known = (*_KEYS, "new") if new else _KEYS
        for key in section:
            if key not in known:
                mistakes.unknown(name, key, known)
        given = [way for way in ways if way in section]
        if len(given) != 1:
            if all(key in known for key in section):
                words = "path (a folder), name (at the hub)" + (" or [model.new] (a model with random weights)" if new else "")
                mistakes.add(name, f"must have one of {words}" + (f", not {' and '.join(given)}" if given else ""))
            return None
        if given == ["new"]:
            return cls._of_new(section["new"], name, mistakes)
        source = section[given[0]]
        if any(not isinstance(section.get(key, ""), str) for key in _KEYS) or not source:
            mistakes.add(f"{name}.{given[0]}", f"{source!r} must be a text, and revision too")
            return None
        if given == ["path"]:
            source = str(base / source)
            if not Path(source).is_dir():
                mistakes.add(f"{name}.path", f"there is no folder {source!r}; a model of the hub is given by name")
                return None
        return cls(name, source, section.get("revision"))

    @classmethod
    def _of_new(cls, given: Any, name: str, mistakes: Mistakes) -> Place | None:
        if not isinstance(given, Mapping) or not isinstance(given.get("model_type"), str):
            mistakes.add(f"{name}.new", 'must be a table with model_type = "qwen2", or another that transformers knows')
            return None
        return cls(name, None, None, dict(given))


def load_model(place: Place, seed: int) -> Any:
    """Return the causal language model at a place; a new one has the random weights of `seed`."""
    from transformers import AutoModelForCausalLM

    if place.source is None:
        return _new_model(place, seed)
    more = {"revision": place.revision or "main", "dtype": "auto"}
    try:
        return load_pretrained(AutoModelForCausalLM, place.source, "causal language model", **more)
    except DataError as error:
        raise DataError(f"{place.section}: {error}") from None


def _new_model(place: Place, seed: int) -> Any:
    import torch
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

    given = dict(place.new)
    kind = given.pop("model_type")
    where = f"{place.section}.new"
    if kind not in CONFIG_MAPPING:
        raise InputError(f"{where}.model_type = {kind!r} is unknown{did_you_mean(kind, CONFIG_MAPPING)}")
    known = {*AutoConfig.for_model(kind).to_dict(), *getattr(CONFIG_MAPPING[kind], "attribute_map", {})}
    unknown = [f"{where}.{key}: unknown{did_you_mean(key, known)}" for key in given if key not in known]
    if unknown:
        raise ConfigurationError(where, unknown)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            make: Any = AutoModelForCausalLM.from_config
            return make(AutoConfig.for_model(kind, **given))
    except Exception as error:  # as many ways as there are kinds of models
        raise InputError(f"{where} is no configuration of a causal language model: {first_line(error)}") from None


def load_tokenizer(place: Place | None, model: Place, *, needed: bool) -> Any:
    """Return the tokenizer at a place, else the model's; None if there is none and none is needed."""
    chosen = place or model
    if chosen.source is None:
        if needed:
            raise InputError("prompts are texts, and the model is new: give a [tokenizer], or prompts as lists of token numbers")
        return None
    try:
        return pretrained.load_tokenizer(chosen.source, revision=chosen.revision or "main")
    except DataError as error:
        if place is None and not needed:
            return None
        raise DataError(f"{chosen.section}: {error}") from None
