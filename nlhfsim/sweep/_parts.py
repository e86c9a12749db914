"""The parts of a run as a configuration names them: games, methods and settings, each built once and every fault noted."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nlhfsim import datasets, dynamics, games
from nlhfsim.dynamics import Dynamics, schedules
from nlhfsim.errors import InputError, UnknownNameError, did_you_mean, ensure_integer
from nlhfsim.feedback import Feedback, Sampled, ensure_feedback
from nlhfsim.game_sources import kind_of, looks_like_file, read_policy, read_source
from nlhfsim.games.game import PreferenceGame
from nlhfsim.plan import STARTS
from nlhfsim.sweep._axes import Entry, Mistakes

_OF_EVERY_GAME = ("beta", "reference")
_OF_COMPARISONS = ("context", "prior")
SETTINGS = ("n_steps", "feedback", "start")
"""What a run is given beside game, method and seed."""


class Recipe(NamedTuple):
    """How to make a game again, in any process, and what must come out.

    Attributes
    ----------
    text : str
        The arguments of `read_source`, as JSON.
    fingerprint : str
        Of the game.
    """

    text: str
    fingerprint: str

    def build(self) -> PreferenceGame:
        """Return the game, or raise `InputError` if it has become another one."""
        given = json.loads(self.text)
        game = read_source(**given)
        if game.fingerprint != self.fingerprint:
            raise InputError(f"{given['source']!r} is not the game that it was when the sweep began: its file has changed")
        return game


@dataclass(frozen=True)
class GamePart:
    """A game at one point of its entry, which `config` holds as written."""

    place: str
    config: dict[str, Any]
    recipe: Recipe
    beta: float
    n: int
    contexts: int


@dataclass(frozen=True)
class MethodPart:
    """A method at one point of its entry."""

    place: str
    config: dict[str, Any]
    dynamics: Dynamics


@dataclass(frozen=True)
class SettingsPart:
    """The settings at one point of their entry; `policy` is the start where it is no word."""

    config: dict[str, Any]
    n_steps: int
    feedback: Feedback
    start: str
    policy: tuple[Any, ...] | None

    @property
    def starts_from(self) -> Any:
        """The start as `simulate` takes it."""
        return self.start if self.policy is None else np.array(self.policy)


def build(entry: Entry, point: dict[str, Any], make: Callable[[dict[str, Any]], Any], mistakes: Mistakes) -> Any:
    """Return what `make` makes of a point, None if it cannot.

    A fault is noted at the argument that the message begins with; then the rest is tried without that, so that all are found.
    """
    left = dict(point)
    while True:
        try:
            made = make(left)
        except InputError as error:
            words = re.match(r"\w+", str(error))
            blamed = words.group() if words and words.group() in left else None
            if blamed is not None:
                mistakes.add(entry.where(blamed, left.pop(blamed)), error)
                continue
            if len(left) == len(point):
                mistakes.add(entry.place, error)
            return None
        return made if len(left) == len(point) else None


def check_keys(entry: Entry, word: str, known: Callable[[str], list[str]], mistakes: Mistakes) -> bool:
    """Note keys that a source or method, which `word` names, does not have; return whether there are none."""
    before = len(mistakes.found)
    names = entry.possible(word)
    if not names:
        mistakes.add(f"{entry.place}.{word}", "must be given")
    accepted = {}
    for name in names:
        with mistakes.at(entry.where(word, name)):
            if not isinstance(name, str):
                raise InputError(f"{name!r} must be a word")
            accepted[name] = known(name)
    for key in entry.keys:
        for name, keys in accepted.items():
            if key != word and key not in keys:
                mistakes.add(entry.where(key), f"{name!r} has no such parameter{did_you_mean(key, keys)}")
                break
    return len(mistakes.found) == before


def keys_of_source(source: str, base: Path) -> list[str]:
    """Return what may be given with a SOURCE."""
    kind = kind_of(located(source, base), "source")
    if kind == "named":
        return list(inspect.signature(games.NAMED[source]).parameters)
    return [*_OF_EVERY_GAME, *(_OF_COMPARISONS if kind == "comparisons" else ())]


def located(text: str, base: Path) -> str:
    """Return a SOURCE with the path of a file taken from the folder of the configuration."""
    known = text in games.NAMED or text in datasets.DATASETS
    path = base / text
    return str(path) if not known and (path.is_file() or looks_like_file(text)) else text


def make_game(point: dict[str, Any], place: str, base: Path, look: Callable[[PreferenceGame, str], None]) -> GamePart:
    """Return the game of a point, after a look at it; it is not kept, as many games may be large."""
    left = dict(point)
    source = located(left.pop("source"), base)
    given: dict[str, Any] = {"source": source}
    for key in (*_OF_EVERY_GAME, *_OF_COMPARISONS):
        if key in left:
            given[key] = left.pop(key)
    if isinstance(given.get("reference"), str) and given["reference"] != "uniform":
        given["reference"] = _policy_of(given["reference"], base, "reference", "'uniform'").tolist()
    if isinstance(given.get("context"), str):
        given["context"] = [given["context"]]
    game = read_source(**given, parameters=left)
    text = json.dumps(given | {"parameters": left}, sort_keys=True)
    look(game, place)
    return GamePart(place, point, Recipe(text, game.fingerprint), game.beta, game.n, game.n_contexts)


def _policy_of(text: str, base: Path, name: str, words: str) -> Any:
    path = base / text
    if not path.is_file() and not looks_like_file(text):
        raise UnknownNameError(f"{name} = {text!r} must be {words}, a list of probabilities, or a file of them")
    return read_policy(name, str(path), None)


def keys_of_method(name: str) -> list[str]:
    """Return the parameters of a method, those included of which it says whose they are."""
    factory = dynamics.get(name)
    return [*inspect.signature(factory).parameters, *getattr(getattr(factory, "alias", None), "elsewhere", ())]


def make_method(point: dict[str, Any], place: str) -> MethodPart:
    """Return the method of a point."""
    given = {key: _parameter(key, value) for key, value in point.items() if key != "name"}
    return MethodPart(place, point, dynamics.build(point["name"], **given))


def _parameter(key: str, value: Any) -> Any:
    if isinstance(value, list):
        raise InputError(f"{key} = {value} must be one value; to run each of them, write grid.{key} = {value}")
    if isinstance(value, str) and value.startswith(schedules.WRITTEN):
        try:
            return schedules.parse(value)
        except InputError as error:
            raise InputError(f"{key} = {value!r}: {error}") from None
    return value


def make_settings(point: dict[str, Any], base: Path) -> SettingsPart:
    """Return the settings of a point."""
    # That it is missing is noted where the keys are looked at.
    n_steps = ensure_integer("n_steps", point.get("n_steps", 1), 1, 10**10)
    feedback = _feedback_of(point.get("feedback", "exact"))
    start = point.get("start", "reference")
    if isinstance(start, str) and start in STARTS:
        return SettingsPart(point, n_steps, feedback, start, None)
    policy = _policy_of(start, base, "start", ", ".join(map(repr, STARTS))) if isinstance(start, str) else start
    try:
        array = np.asarray(policy, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())
    if array.ndim not in (1, 2):
        raise InputError(f"start = {start!r} must be {', '.join(STARTS)}, a list of probabilities, or a file of them")
    rows = tuple(tuple(row) for row in array.tolist()) if array.ndim == 2 else tuple(array.tolist())
    return SettingsPart(point, n_steps, feedback, json.dumps(start), rows)


def _feedback_of(given: Any) -> Feedback:
    if isinstance(given, str):
        return ensure_feedback(given)
    known = list(inspect.signature(Sampled).parameters)
    if not isinstance(given, dict):
        raise InputError(f"feedback = {given!r} must be 'exact', 'sampled', or a table with {', '.join(known)}")
    for key in given:
        if key not in known:
            raise UnknownNameError(f"feedback = {given!r} has an unknown key {key!r}{did_you_mean(key, known)}")
    try:
        return Sampled(**given)
    except InputError as error:
        raise InputError(f"feedback = {given!r}: {error}") from None
