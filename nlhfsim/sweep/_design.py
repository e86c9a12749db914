"""From a configuration to its runs: read, checked as a whole before anything runs, and laid out in an order that stays."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nlhfsim.dynamics import Dynamics
from nlhfsim.errors import ConfigurationError
from nlhfsim.feedback import Feedback, ensure_sampled
from nlhfsim.games.game import PreferenceGame
from nlhfsim.plan import resolved, start_policies
from nlhfsim.sweep import _parts
from nlhfsim.sweep._axes import LARGEST, Distribution, Entry, Mistakes, plain, read_entry, stream
from nlhfsim.sweep._config import TOP, Shared, of_each_run, read_config, read_entries, read_integer
from nlhfsim.sweep._parts import GamePart, MethodPart, Recipe, SettingsPart


class Task(NamedTuple):
    """A run as a worker does it."""

    id: str
    recipe: Recipe
    dynamics: Dynamics
    feedback: Feedback
    n_steps: int
    start: Any
    seed: int
    record_every: int | None
    curves: bool


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes
    ----------
    task : Task
        What is done. Its `id` is a hash of the run's whole configuration.
    config : dict
        What it is, as columns of the table.
    """

    task: Task
    config: dict[str, Any]


@dataclass(frozen=True)
class Design:
    """All runs of a sweep, in their order, and the configuration behind them."""

    title: str
    runs: tuple[Run, ...]
    tables: dict[str, Any]
    base: Path
    text: str | None
    curves: bool

    @property
    def digest(self) -> str:
        """A hash of all runs and their order."""
        return _digest([run.task.id for run in self.runs])


def design_of(config: Any) -> Design:
    """Return the design that a configuration describes.

    Raises
    ------
    ConfigurationError
        With all mistakes at once, each with its place.
    DataError
        If the file cannot be read.
    """
    source, mistakes = read_config(config), Mistakes()
    tables = source.tables
    for key in tables:
        if key not in TOP:
            mistakes.unknown("", key, TOP)
    if not isinstance(tables.get("title", ""), str):
        mistakes.add("title", f"{tables['title']!r} must be text")
    seed = read_integer(tables, "seed", 0, 0, mistakes)
    samples = read_integer(tables, "samples", None, 1, mistakes)
    drawn = "samples" in tables
    games, methods = (read_entries(tables, name, drawn, mistakes) for name in ("games", "methods"))
    settings = read_entry(tables.get("run", {}), "run", drawn, mistakes)
    shared = Shared.of(settings, mistakes) if settings is not None else None
    settings = None if settings is None else of_each_run(settings)
    if shared is not None:
        size = _size(games, methods, settings, samples) * len(shared.seeds)
        if size > LARGEST:
            raise ConfigurationError(source.name, [f"it describes {size} runs, must describe at most {LARGEST}"])
    parts = _Parts(source.base, samples, seed or 0, games, methods, settings, mistakes)
    if mistakes.found or shared is None:
        raise ConfigurationError(source.name, sorted(mistakes.found, key=_section))
    runs = tuple({run.task.id: run for run in _laid_out(parts, shared)}.values())  # entries may overlap
    return Design(str(tables.get("title", "")), runs, plain(tables), source.base, source.text, shared.curves)


def _section(mistake: str) -> tuple[int, int]:
    """Return where a mistake comes in the list: at the top, then by section and entry."""
    place = re.match(r"(games|methods|run)(?:\[(\d+)\])?", mistake)
    return (0, 0) if place is None else (("games", "methods", "run").index(place[1]) + 1, int(place[2] or 0))


class _Parts:
    """Games, methods and settings of a design, made and checked with each other."""

    def __init__(
        self,
        base: Path,
        samples: int | None,
        seed: int,
        games: list[Entry],
        methods: list[Entry],
        settings: Entry | None,
        mistakes: Mistakes,
    ) -> None:
        self.samples, self.seed, self._base, self._mistakes = samples, seed, base, mistakes
        self.methods = [self._methods_of(entry) for entry in methods]
        self.settings = [] if settings is None else self._settings_of(settings)
        self._every_method = list({id(part): part for parts in self.methods for part in parts}.values())
        self._starts = list({part.start: part for part in self.settings if part.policy is not None}.values())
        self._check_feedback()
        self.games = [self._games_of(entry) for entry in games]

    def _points(self, entry: Entry) -> list[dict[str, Any]]:
        return entry.points(self.seed) if self.samples is None else entry.drawn(self.samples, self.seed)

    def _games_of(self, entry: Entry) -> list[GamePart]:
        if not _parts.check_keys(entry, "source", lambda name: _parts.keys_of_source(name, self._base), self._mistakes):
            return []

        return self._made(entry, lambda point: _parts.make_game(point, entry.place, self._base, self._look))

    def _methods_of(self, entry: Entry) -> list[MethodPart]:
        if not _parts.check_keys(entry, "name", _parts.keys_of_method, self._mistakes):
            return []
        return self._made(entry, lambda point: _parts.make_method(point, entry.place))

    def _settings_of(self, entry: Entry) -> list[SettingsPart]:
        return self._made(entry, lambda point: _parts.make_settings(point, self._base))

    def _made(self, entry: Entry, make: Any) -> list[Any]:
        """Return what a point of an entry makes, for each, equal points made once."""
        known: dict[str, Any] = {}
        for point in self._points(entry):
            key = json.dumps(point, sort_keys=True)
            if key not in known:
                known[key] = _parts.build(entry, point, make, self._mistakes)
        made = [known[json.dumps(point, sort_keys=True)] for point in self._points(entry)]
        return [part for part in made if part is not None]

    def _check_feedback(self) -> None:
        """Every method must have a sampled form, where there are votes."""
        for feedback in {part.feedback for part in self.settings if part.feedback is not None}:
            for method in self._every_method:
                with self._mistakes.at(f"{method.place} with run.feedback"):
                    ensure_sampled(method.dynamics, feedback)

    def _look(self, game: PreferenceGame, place: str) -> None:
        """Starts must be policies of the game, and a step size that is not given must follow from it."""
        for setting in self._starts:
            with self._mistakes.at(f"run.start on {place}"):
                start_policies(game, setting.starts_from, 1, 0)
        for method in self._every_method:
            if method.dynamics.step_size is None:
                with self._mistakes.at(f"{method.place} on {place}"):
                    resolved(game, method.dynamics, None)


def _laid_out(parts: _Parts, shared: Shared) -> Iterator[Run]:
    """Yield the runs, those on one game side by side."""
    if parts.samples is None:
        every_game = [part for some in parts.games for part in some]
        every_method = [part for some in parts.methods for part in some]
        points: Any = itertools.product(every_game, every_method, parts.settings)
    else:
        points = _drawn(parts, parts.samples)
    for game, method, settings in points:
        for seed in shared.seeds:
            yield _run(game, method, settings, seed, shared)


def _drawn(parts: _Parts, samples: int) -> Iterator[tuple[GamePart, MethodPart, SettingsPart]]:
    """Yield random points: a game, a method, each entry as likely as the others, and settings."""
    which = [
        Distribution("choice", tuple(range(len(some)))).draw(samples, stream(parts.seed, name))
        for name, some in (("games", parts.games), ("methods", parts.methods))
    ]
    for k, (game, method) in enumerate(zip(*which)):
        yield parts.games[game][k], parts.methods[method][k], parts.settings[k]


def _run(game: GamePart, method: MethodPart, settings: SettingsPart, seed: int, shared: Shared) -> Run:
    votes = settings.feedback
    config = {
        "game": game.config["source"],
        **{f"game_{key}": value for key, value in game.config.items() if key not in ("source", "beta", "reference")},
        "beta": game.beta,
        "reference": game.config.get("reference"),
        "n": game.n,
        "contexts": game.contexts,
        "fingerprint": game.recipe.fingerprint,
        "method": method.config["name"],
        **{_column(key, value): value for key, value in method.config.items() if key != "name"},
        "feedback": "exact" if votes is None else "sampled",
        "batch_size": None if votes is None else votes.batch_size,
        "votes": None if votes is None else votes.votes,
        "candidates": None if votes is None else votes.candidates,
        "n_steps": settings.n_steps,
        "start": settings.start,
        "seed": seed,
    }
    whole = config | {"policy": settings.policy, "record_every": shared.record_every, "curves": shared.curves}
    start = settings.start if settings.policy is None else settings.policy
    parts = (game.recipe, method.dynamics, votes, settings.n_steps, start, seed, shared.record_every, shared.curves)
    return Run(Task(_digest(whole)[:24], *parts), config)


def _column(key: str, value: Any) -> str:
    """Return the column of a method's parameter; schedules, which are words, have one of their own beside the numbers."""
    return f"method_{key}_schedule" if isinstance(value, str) else f"method_{key}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(_same_numbers(value), sort_keys=True).encode()).hexdigest()


def _same_numbers(value: Any) -> Any:
    """Return a value in which numbers that are equal are written alike: 1.0 as 1."""
    if isinstance(value, dict):
        return {key: _same_numbers(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_same_numbers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _size(games: list[Entry], methods: list[Entry], settings: Entry | None, samples: int | None) -> int:
    """Return how many runs there are of each seed."""
    if samples is not None:
        return samples
    sizes = [sum(entry.size for entry in entries) for entries in (games, methods, [] if settings is None else [settings])]
    return math.prod(sizes)
