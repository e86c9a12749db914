"""What the command line reads: SOURCE, ``k=v`` parameters, policies, output folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlhfsim.errors import Array, DataError, InputError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from nlhfsim.dynamics import Dynamics
    from nlhfsim.games.game import PreferenceGame


def read_source(
    source: str,
    *,
    game_params: tuple[str, ...] = (),
    beta: float | None = None,
    reference: str | None = None,
    context: str | None = None,
    prior: float | None = None,
    seed: int = 0,
) -> PreferenceGame:
    """Return the game that SOURCE names: a named game, a dataset, or a file with a matrix or comparisons."""
    from nlhfsim import datasets, games

    named = source in games.NAMED
    is_file = not named and source not in datasets.DATASETS and _looks_like_file(source)
    log = is_file and datasets.looks_like_comparisons(source)
    if game_params and not named:
        raise InputError(f"--game-param is for named games; {source!r} is {'a file' if is_file else 'no named game'}")
    if (context is not None or prior is not None) and not log:
        raise InputError(f"--context and --prior are for files of comparisons, which {source!r} is not")
    if named:
        game = _named_game(source, parameters(game_params, "--game-param"), seed)
    elif source in datasets.DATASETS:
        game = datasets.load(source)
    elif log:
        columns = None if context is None else [name for name in context.split(",") if name]
        game = datasets.from_comparisons(source, context=columns, prior=0.5 if prior is None else prior)
    elif is_file:
        game = datasets.read_game(source)
    else:
        raise UnknownNameError(f"SOURCE {source!r} is neither a game, a dataset nor a file{_suggestion(source)}")
    if beta is not None:
        game = game.with_beta(beta)
    return game if reference is None else game.with_reference(read_policy("--reference", reference, game))


def _looks_like_file(source: str) -> bool:
    return os.path.exists(source) or os.sep in source or Path(source).suffix in (".csv", ".npy", ".json", ".jsonl", ".parquet")


def _suggestion(source: str) -> str:
    from nlhfsim import datasets, games

    return did_you_mean(source, [*games.NAMED, *datasets.DATASETS])


def _named_game(source: str, given: dict[str, Any], seed: int) -> PreferenceGame:
    import inspect

    from nlhfsim import games

    accepted = inspect.signature(games.NAMED[source]).parameters
    if "rng" in accepted:
        given = {"rng": seed} | given
    return games.named(source, **given)


def read_policy(option: str, text: str, game: PreferenceGame) -> Array | None:
    """Return a policy written as ``uniform``, as numbers separated by commas, or as the path of a .csv, .npy or .json file.

    ``uniform`` gives None.
    """
    if text == "uniform":
        return None
    if os.path.exists(text) or Path(text).suffix in (".csv", ".npy", ".json"):
        return _policy_file(option, Path(text))
    try:
        return np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise InputError(f"{option} = {text!r} must be 'uniform', {game.n} numbers separated by commas, or a file") from None


def _policy_file(option: str, path: Path) -> Array:
    import json

    if not path.exists():
        raise DataError(f"{option}: {str(path)!r} does not exist")
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        elif path.suffix == ".json":
            array = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64)
        else:
            array = np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=1)
    except OSError as error:
        raise DataError(f"{option}: {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, EOFError):
        raise DataError(f"{option}: {str(path)!r} is not a table of numbers (.csv, .npy or .json)") from None
    return np.asarray(array, dtype=np.float64)


def read_start(text: str, game: PreferenceGame) -> Any:
    """Return a start as `simulate` takes it: a word, a policy from numbers or a file, or a saved run, which goes on."""
    if text in ("reference", "uniform", "random"):
        return text
    if text.endswith(".npz"):
        from nlhfsim.trajectory import load

        return load(text)
    return read_policy("--start", text, game)


def parameters(pairs: tuple[str, ...], option: str) -> dict[str, Any]:
    """Return ``k=v`` pairs as a dict; values are numbers, lists of numbers, ``true`` or ``false``, schedules or words."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{option} {pair!r} must be written name=value")
        found[name.strip().replace("-", "_")] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    from nlhfsim.dynamics import schedules

    if text.startswith(("inverse-time:", "two-stage:")):
        return schedules.parse(text)
    if text in ("true", "false"):
        return text == "true"
    if text.startswith(("[", "{")):
        return _json(text)
    parts = text.split(",")
    try:
        numbers: list[Any] = [int(part) if part.strip().lstrip("+-").isdigit() else float(part) for part in parts]
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers


def _json(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{text!r} is not JSON: {error}") from None


def build_method(name: str, given: dict[str, Any]) -> Dynamics:
    """Return a registered method with the parameters that are meant for it."""
    from nlhfsim import dynamics

    if "," in name:
        raise InputError(f"--dynamics {name!r} must be one method; 'nlhfsim compare' takes several")
    return dynamics.build(name, **given)


def method_names(text: str, *, sampled: bool = False) -> list[str]:
    """Return method names from a list separated by commas; ``all``: each that counts oracle calls."""
    from nlhfsim import dynamics

    if text == "all":
        counted = [name for name in dynamics.names() if dynamics.get(name).method.oracle_calls is not None]
        return [name for name in counted if not sampled or not _unsampled(dynamics.get(name))]
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError("--dynamics is empty, must name at least one method")
    for name in names:
        dynamics.get(name)
    return names


def _unsampled(factory: Any) -> str:
    """Return why a method has no sampled form with its default parameters."""
    instance = factory()
    return str(instance.method.unsampled(instance.params))


def methods_with_parameters(names: list[str], pairs: tuple[str, ...]) -> list[Dynamics | str]:
    """Return methods with ``k=v`` for every one that has k, ``NAME.k=v`` for one of them; a name where nothing is given."""
    import inspect

    from nlhfsim import dynamics

    chosen: dict[str, dict[str, Any]] = {name: {} for name in names}
    accepted = {name: list(inspect.signature(dynamics.get(name)).parameters) for name in names}
    for key, value in parameters(pairs, "--param").items():
        owner, dot, parameter = key.rpartition(".")
        if dot and owner not in chosen:
            raise UnknownNameError(f"--param {key} is for {owner!r}, which is not compared{did_you_mean(owner, names)}")
        takers = [owner] if dot else [name for name in names if parameter in accepted[name]]
        if not takers:
            known = {name for options in accepted.values() for name in options}
            raise UnknownNameError(f"--param {key}: no method here has that parameter{did_you_mean(parameter, known)}")
        for name in takers:
            chosen[name][parameter] = value
    return [build_method(name, chosen[name]) if chosen[name] else name for name in names]


def ensure_folder(path: str | None) -> Path | None:
    """Return the output folder, made if needed and known to be writable."""
    if path is None:
        return None
    folder = Path(path)
    if not path.strip() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"--out {path!r} must be a folder, or the name of one to be made")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".nlhfsim-writable"
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise DataError(f"--out {path!r} cannot be written: {error.strerror or error}") from None
    return folder
