"""What the command line reads: SOURCE, ``k=v`` parameters, policies, output folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlhfsim.errors import InputError, UnknownNameError, did_you_mean

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
    from nlhfsim import game_sources

    return game_sources.read_source(
        source,
        parameters(game_params, "--game-param"),
        beta=beta,
        reference=reference,
        context=None if context is None else [name for name in context.split(",") if name],
        prior=prior,
        seed=seed,
        spelled=_spelled,
    )


def _spelled(argument: str) -> str:
    """Return how the command line writes an argument of `nlhfsim.game_sources.read_source`."""
    return {"source": "SOURCE", "parameters": "--game-param"}.get(argument, f"--{argument}")


def read_start(text: str, game: PreferenceGame) -> Any:
    """Return a start as `simulate` takes it: a word, a policy from numbers or a file, or a saved run, which goes on."""
    if text in ("reference", "uniform", "random"):
        return text
    if text.endswith(".npz"):
        from nlhfsim.trajectory import load

        return load(text)
    from nlhfsim.game_sources import read_policy

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

    if text.startswith(schedules.WRITTEN):
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
    from nlhfsim import files

    return files.ensure_folder("--out", path)
