"""A training run as a TOML file: which model, prompts and preferences, and how it is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlhfsim.errors import ConfigurationError, InputError, ensure_between, ensure_choice, ensure_flag, ensure_integer
from nlhfsim.llm.config import NashConfig
from nlhfsim.llm import trackers
from nlhfsim.llm.prompt_datasets import PREFIX
from nlhfsim.llm.prompts import RawPrompt, read_prompts
from nlhfsim.llm.recipe_models import Place, load_model, load_tokenizer
from nlhfsim.llm.recipe_oracle import OracleRecipe
from nlhfsim.llm.recipe_sampler import SamplerRecipe
from nlhfsim.sweep._axes import Mistakes
from nlhfsim.sweep._config import read_config

SECTIONS = ("model", "tokenizer", "prompts", "oracle", "sampler", "training")
_OPTIONAL = ("tokenizer", "sampler")
_TOP = ("title", "seed", "trackers", *SECTIONS)
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Recipe:
    """What a configuration file describes, checked as far as is possible without loading anything.

    Attributes
    ----------
    name, title : str
        The file, and its title.
    tables : dict
        The tables as they are in force, for ``config.json``.
    config : NashConfig
        How it is trained.
    model, tokenizer : Place
        Where they are loaded from; no tokenizer: the model's.
    prompts, held_out : tuple of RawPrompt
        What is trained on, and what evaluations use; None: nothing is held out.
    oracle : OracleRecipe
        The preferences.
    trackers : tuple of str
        Where its curves go too, names of `nlhfsim.llm.trackers`.
    sampler : SamplerRecipe or None
        Who draws the responses; None: the trainer.
    """

    name: str
    title: str
    tables: dict[str, Any]
    config: NashConfig
    model: Place
    tokenizer: Place | None
    prompts: tuple[RawPrompt, ...]
    held_out: tuple[RawPrompt, ...] | None
    oracle: OracleRecipe
    trackers: tuple[str, ...] = ()
    sampler: SamplerRecipe | None = None

    def build(self, device: str = "auto") -> dict[str, Any]:
        """Load everything, and return it by the names of `NashTrainer`'s parameters.

        Parameters
        ----------
        device : str
            ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA if there is a device.

        Returns
        -------
        dict
            ``model``, ``tokenizer``, ``oracle``, ``prompts``, ``config``, ``held_out``, ``device`` and ``sampler``.

        Raises
        ------
        InputError
            If something cannot be loaded; the message begins with its place in the file.
        """
        from nlhfsim.llm.memory import advice_on

        where = _device(device)
        oracle = self.oracle.prepare()  # what a mistake there costs should not be the loading of a model
        sampler = None if self.sampler is None else self.sampler.make()
        tokenizer = load_tokenizer(self.tokenizer, self.model, needed=self.prompts[0].kind != "tokens")
        model = load_model(self.model, self.config.seed)
        with advice_on("loading"):
            judge = oracle(where)
        found = {"model": model, "tokenizer": tokenizer, "oracle": judge, "prompts": self.prompts}
        return found | {"config": self.config, "held_out": self.held_out, "device": where, "sampler": sampler}


def read_recipe(source: Any, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return the training run that a TOML file, or its content as a dict, describes.

    Parameters
    ----------
    source : path or mapping
        With the tables ``model``, ``prompts``, ``oracle``, ``training`` and, if wanted, ``tokenizer``, ``sampler``,
        ``title``, ``seed`` and ``trackers``.
        Paths start at the folder of the file, and so do modules. A field of ``training`` is None where the file says "none".
    overrides : mapping, optional
        Values that go before those of the file, by ``section.key``; a key alone is one of ``training``.

    Raises
    ------
    ConfigurationError
        If there are mistakes; each is listed with its place.
    DataError
        If the file cannot be read.

    Examples
    --------
    >>> from nlhfsim.llm import read_recipe
    >>> recipe = read_recipe(
    ...     {
    ...         "model": {"new": {"model_type": "qwen2", "vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 1}},
    ...         "prompts": {"list": [[1, 2], [3]]},
    ...         "oracle": {"kind": "classes", "groups": [[4], [5], [6]], "preferences": "rock-paper-scissors"},
    ...         "training": {"method": "nash_prox", "beta": 0.05, "steps": 10},
    ...     }
    ... )
    >>> recipe.config.steps, len(recipe.prompts)
    (10, 2)
    """
    given = read_config(source)
    tables = copy.deepcopy(dict(given.tables))
    mistakes = Mistakes()
    _override(tables, overrides or {}, mistakes)
    for key in tables:
        if key not in _TOP:
            mistakes.unknown("", key, _TOP)
    sections = {name: found for name in SECTIONS if (found := _section(tables, name, mistakes)) is not None}
    title = tables.get("title", "")
    if not isinstance(title, str):
        mistakes.add("title", f"{title!r} must be a text")
    tracked = _trackers(tables.get("trackers", []), mistakes)
    config = model = tokenizer = oracle = sampler = held_out = None
    prompts: tuple[RawPrompt, ...] = ()
    if "training" in sections:
        config = _training(tables, sections["training"], given.name, mistakes)
    if "model" in sections:
        model = Place.read(sections["model"], "model", given.base, mistakes, new=True)
    if "tokenizer" in sections:
        tokenizer = Place.read(sections["tokenizer"], "tokenizer", given.base, mistakes)
    if "prompts" in sections:
        prompts, held_out = _prompts(sections["prompts"], given.base, mistakes)
    if "oracle" in sections:
        oracle = OracleRecipe.read(sections["oracle"], given.base, mistakes)
    if "sampler" in sections:
        sampler = SamplerRecipe.read(sections["sampler"], given.base, config, mistakes)
    if mistakes.found or config is None or model is None or oracle is None:
        raise ConfigurationError(given.name, mistakes.found)
    return Recipe(given.name, title, tables, config, model, tokenizer, prompts, held_out, oracle, tracked, sampler)


def _trackers(given: Any, mistakes: Mistakes) -> tuple[str, ...]:
    if not isinstance(given, list):
        mistakes.add("trackers", f"{given!r} must be a list of names, such as ['tensorboard']")
        return ()
    for k, name in enumerate(given):
        with mistakes.at(f"trackers[{k}]"):
            ensure_choice("trackers", name, trackers.NAMES)
    return tuple(map(str, given))


def _override(tables: dict[str, Any], overrides: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Put values over those of the file."""
    for key, value in overrides.items():
        *path, last = key.split(".") if "." in key or key == "seed" else ("training", key)
        place: Any = tables
        for k, name in enumerate(path):
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                mistakes.add(key, f"cannot be set: {'.'.join(path[: k + 1])} is no table")
                break
        else:
            place[last] = value
        if key == "seed" and isinstance(tables.get("training"), dict):
            tables["training"].pop("seed", None)


def _section(tables: Mapping[str, Any], name: str, mistakes: Mistakes) -> dict[str, Any] | None:
    """Return a table, None if it is left out or none."""
    found = tables.get(name, {} if name == "training" else None)
    if isinstance(found, Mapping):
        return dict(found)
    if name in tables or name not in _OPTIONAL:
        mistakes.add(name, f"{found!r} must be a table [{name}]" if name in tables else f"must be given: a table [{name}]")
    return None


def _training(tables: Mapping[str, Any], section: dict[str, Any], name: str, mistakes: Mistakes) -> NashConfig | None:
    """Return how it is trained; the seed may stand at the top too."""
    if "seed" in tables:
        if "seed" in section:
            mistakes.add("seed", "is given more than once: at the top and as training.seed")
        section = section | {"seed": tables["seed"]}
    section = {key: None if value == "none" else value for key, value in section.items()}
    try:
        return NashConfig.from_dict(section, name)
    except ConfigurationError as error:
        for sentence in error.mistakes:
            key, colon, words = sentence.partition(": ")
            alone = key == "seed" and "seed" in tables
            if colon and key in section:
                mistakes.add(key if alone else f"training.{key}", words)
            else:
                mistakes.add("training", sentence)
    return None


def _prompts(
    section: dict[str, Any], base: Path, mistakes: Mistakes
) -> tuple[tuple[RawPrompt, ...], tuple[RawPrompt, ...] | None]:
    """Return the prompts to train on, and those held out."""
    known = ("path", "list", "column", "split", "held_out", "chat")
    for key in section:
        if key not in known:
            mistakes.unknown("prompts", key, known)
    column, split = section.get("column", "prompt"), section.get("split")
    found: tuple[RawPrompt, ...] = ()
    held_out: tuple[RawPrompt, ...] | None = None
    if not isinstance(column, str):
        mistakes.add("prompts.column", f"{column!r} must be the name of a column")
    if split is not None and not isinstance(split, str):
        mistakes.add("prompts.split", f"{split!r} must be the name of a split")
        split = None
    if ("path" in section) == ("list" in section):
        mistakes.add("prompts", "must have either path, a file, or list, the prompts themselves")
        return (), None
    key = "path" if "path" in section else "list"
    chat = None
    with mistakes.at("prompts.chat"):
        chat = ensure_flag("chat", section["chat"]) if "chat" in section else None
    with mistakes.at(f"prompts.{key}"):
        found = _as_chat(_read(section[key], base, str(column), split), chat)
    with mistakes.at("prompts.held_out"):
        if found and "held_out" in section:
            found, held_out = _hold_out(found, section["held_out"], base, str(column), chat)
    return found, held_out


def _read(given: Any, base: Path, column: str, split: str | None = None, name: str = "prompts") -> tuple[RawPrompt, ...]:
    if isinstance(given, str) and not given.startswith(PREFIX):
        given = base / given
    return read_prompts(given, column=column, split=split, name=name)


def _as_chat(prompts: Sequence[RawPrompt], chat: bool | None) -> tuple[RawPrompt, ...]:
    """Return texts as what a user says, if `chat` is True."""
    if chat is False and prompts[0].kind == "conversation":
        raise InputError(f"{prompts[0].place} is a conversation, which needs a chat template: leave chat = false out")
    if not chat or prompts[0].kind != "text":
        return tuple(prompts)
    return tuple(RawPrompt(({"role": "user", "content": str(one.content)},), one.place) for one in prompts)


def _hold_out(
    prompts: tuple[RawPrompt, ...], given: Any, base: Path, column: str, chat: bool | None
) -> tuple[tuple[RawPrompt, ...], tuple[RawPrompt, ...]]:
    """Return prompts without, and those that are held out: of another file, or a share or a number from the end."""
    if isinstance(given, str):
        other = _as_chat(_read(given, base, column, name="held_out"), chat)
        if other[0].kind != prompts[0].kind:
            raise InputError(
                f"{given!r} holds prompts of the kind {other[0].kind}, must be {prompts[0].kind} as those trained on"
            )
        return prompts, other
    if len(prompts) < 2:
        raise InputError("needs at least two prompts, one to train on and one to hold out")
    if isinstance(given, float):
        share = ensure_between("held_out", given, 0, 1)
        count = min(max(round(share * len(prompts)), 1), len(prompts) - 1)
        if share in (0, 1):
            raise InputError(f"held_out = {given} must be a share between 0 and 1, or a whole number of prompts")
    else:
        count = ensure_integer("held_out", given, 1, len(prompts) - 1)
    return prompts[:-count], prompts[-count:]


def _device(device: str) -> str:
    import torch

    ensure_choice("device", device, DEVICES)
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise InputError("device = 'cuda': torch finds no CUDA device here; take 'cpu' or 'auto'")
    return ("cuda" if there else "cpu") if device == "auto" else device
