"""The game that a SOURCE means, as the command line and sweeps write it: a named game, a dataset, or a file; and policies."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nlhfsim import datasets, games
from nlhfsim.errors import Array, DataError, InputError, UnknownNameError, did_you_mean, ensure_array
from nlhfsim.games.game import PreferenceGame

_FILES = (".csv", ".npy", ".json", ".jsonl", ".parquet")
_POLICY_FILES = (".csv", ".npy", ".json")


def looks_like_file(source: str) -> bool:
    """Return whether a SOURCE is there as a file, or is written like the path of one."""
    return os.path.exists(source) or os.sep in source or Path(source).suffix in _FILES


def kind_of(source: str, name: str = "source") -> str:
    """Return what a SOURCE is: ``"named"``, ``"dataset"``, ``"comparisons"`` or ``"matrix"``, the last two being files.

    Raises
    ------
    UnknownNameError
        If it is none of them; the nearest name is suggested.
    """
    if source in games.NAMED:
        return "named"
    if source in datasets.DATASETS:
        return "dataset"
    if looks_like_file(source):
        return "comparisons" if datasets.looks_like_comparisons(source) else "matrix"
    nearest = did_you_mean(source, [*games.NAMED, *datasets.DATASETS])
    raise UnknownNameError(f"{name} {source!r} is neither a game, a dataset nor a file{nearest}")


def read_source(
    source: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    beta: float | None = None,
    reference: Any = None,
    context: list[str] | None = None,
    prior: float | None = None,
    seed: int = 0,
    spelled: Callable[[str], str] = str,
) -> PreferenceGame:
    """Return the game that a SOURCE means.

    Parameters
    ----------
    source : str
        A key of `nlhfsim.games.NAMED` or `nlhfsim.datasets.DATASETS`, or the path of a matrix or of a log of comparisons.
    parameters : mapping, optional
        Arguments of a named game.
    beta : float, optional
        Regularization. Default: the source's own, else 0.1.
    reference : str or array_like, optional
        Reference policy, see `read_policy`. Default: the source's own, else uniform.
    context, prior : optional
        As for `nlhfsim.datasets.from_comparisons`; for comparisons only.
    seed : int
        The `rng` of a random game that is given none.
    spelled : callable
        How the caller writes the name of an argument, for messages.

    Raises
    ------
    InputError
        If there is no such source, or an argument is refused.
    """
    kind = kind_of(source, spelled("source"))
    if parameters and kind != "named":
        what = "no named game" if kind == "dataset" else "a file"
        raise InputError(f"{spelled('parameters')} is for named games; {source!r} is {what}")
    if (context is not None or prior is not None) and kind != "comparisons":
        raise InputError(f"{spelled('context')} and {spelled('prior')} are for files of comparisons, which {source!r} is not")
    if kind == "named":
        game = games.named(source, **_seeded(source, dict(parameters or {}), seed))
    elif kind == "dataset":
        game = datasets.load(source)
    elif kind == "comparisons":
        game = datasets.from_comparisons(source, context=context, prior=0.5 if prior is None else prior)
    else:
        game = datasets.read_game(source)
    if beta is not None:
        game = game.with_beta(beta)
    return game if reference is None else game.with_reference(read_policy(spelled("reference"), reference, game))


def _seeded(source: str, given: dict[str, Any], seed: int) -> dict[str, Any]:
    return {"rng": seed} | given if "rng" in inspect.signature(games.NAMED[source]).parameters else given


def read_policy(name: str, given: Any, game: PreferenceGame | None = None) -> Array | None:
    """Return a policy given as ``"uniform"``, which is None, as numbers, or as the path of a .csv, .npy or .json file.

    Numbers may be a list, or text that separates them by commas.
    """
    if not isinstance(given, str):
        return ensure_array(name, given)
    if given == "uniform":
        return None
    if os.path.exists(given) or Path(given).suffix in _POLICY_FILES:
        return _policy_file(name, Path(given))
    try:
        return np.array([float(part) for part in given.split(",")])
    except ValueError:
        count = "" if game is None else f"{game.n} "
        raise InputError(f"{name} = {given!r} must be 'uniform', {count}numbers separated by commas, or a file") from None


def _policy_file(name: str, path: Path) -> Array:
    if not path.exists():
        raise DataError(f"{name}: {str(path)!r} does not exist")
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        elif path.suffix == ".json":
            array = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64)
        else:
            array = np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=1)
    except OSError as error:
        raise DataError(f"{name}: {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, EOFError):
        raise DataError(f"{name}: {str(path)!r} is not a table of numbers (.csv, .npy or .json)") from None
    return np.asarray(array, dtype=np.float64)
