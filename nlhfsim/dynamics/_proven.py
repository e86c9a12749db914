"""What is proven about a method at its step size on a game."""

from __future__ import annotations

import warnings

from nlhfsim.dynamics._spec import Dynamics, ProvenRange
from nlhfsim.dynamics.schedules import StepTable
from nlhfsim.errors import ProvenRangeWarning
from nlhfsim.games.game import PreferenceGame


def proven_ranges(game: PreferenceGame, dynamics: Dynamics) -> list[ProvenRange]:
    """Return what is proven about a method at its (first, largest) step size in each context of a game; empty if nothing is."""
    first = _first_step(dynamics)
    found = [dynamics.method.proven(context, dynamics.params, first) for context in game.contexts]
    return [item for item in found if item is not None]


def in_proven_range(game: PreferenceGame, dynamics: Dynamics) -> bool | None:
    """Return whether the method's (first) step size lies in the range with proven convergence; None if there is no such range."""
    ranges = proven_ranges(game, dynamics)
    if not ranges:
        return None
    return _first_step(dynamics) <= _largest(ranges) * (1 + 1e-12)


def warn_outside_proven_range(game: PreferenceGame, dynamics: Dynamics) -> None:
    """Warn, naming the range, if the step size lies outside the range with proven convergence."""
    if in_proven_range(game, dynamics) is False:
        ranges = proven_ranges(game, dynamics)
        warnings.warn(
            f"{dynamics.method.scheduled} = {_first_step(dynamics):g} is outside the range (0, {_largest(ranges):.6g}] for which "
            f"convergence of {dynamics.name} is proven on this game ({ranges[0].claim}); it may still converge",
            ProvenRangeWarning,
            stacklevel=3,
        )


def _first_step(dynamics: Dynamics) -> float:
    step_size = dynamics.step_size or 0.0
    if isinstance(step_size, tuple):
        return max(step_size)
    return float(StepTable(dynamics.method.scheduled or "", step_size, 0, 1, None).between(0, 1, [0], False)[0])


def _largest(ranges: list[ProvenRange]) -> float:
    return min(item.largest for item in ranges)


def proven_factor(game: PreferenceGame, dynamics: Dynamics) -> float | None:
    """Return the proven factor of KL a step at a constant step size, the worst over contexts; None if there is none."""
    ranges = proven_ranges(game, dynamics)
    factors = [item.factor for item in ranges]
    if callable(dynamics.step_size) or isinstance(dynamics.step_size, tuple) or not factors or None in factors:
        return None
    return max(factor for factor in factors if factor is not None)
