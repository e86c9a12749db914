"""The stability limit of the paper: how the time to converge grows as regularization vanishes, each method at its best step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._spec import Dynamics, as_dynamics, build, get
from nlhfsim.equilibrium import Equilibrium, solve_path
from nlhfsim.errors import Array, InputError, ensure_array
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.named import cyclic_tournament
from nlhfsim.stability.step_sizes import BestStep, best_of

METHODS = ("SelfPlayPG", "NaturalPG", "NashMirrorProx", "ProximalPG")
BETAS = (0.03, 0.01, 0.003, 0.001)
TUNING: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "ProximalPG": {"proximal_step": (2.0, 3.0, 4.0, 5.0, 6.0, 8.0), "inner_steps": (2, 3, 4)}
}
"""Parameters that are tuned beside the step size."""


@dataclass(frozen=True)
class StabilityLimit:
    """Time constants at the best constant step against β; see `stability_limit`.

    Attributes
    ----------
    methods : tuple of str
        The methods' names.
    betas : numpy.ndarray
        Shape ``(betas,)``, the largest first.
    time_constants : numpy.ndarray
        Oracle calls in which deviations shrink by e, shape ``(methods, betas)``.
    chosen : tuple of tuple of Dynamics
        Each method at each β with its best parameters and step size.
    slopes : numpy.ndarray
        Of log time constant against log β, by least squares, shape ``(methods,)``; NaN where a time constant is 0 or infinite.
    """

    methods: tuple[str, ...]
    betas: Array
    time_constants: Array
    chosen: tuple[tuple[Dynamics, ...], ...]
    slopes: Array

    def __str__(self) -> str:
        """Return a table: a row a method."""
        head = "".join(f"{f'β = {beta:g}':>12s}" for beta in self.betas)
        rows = [f"{'oracle calls to shrink by e':28s}{head}   slope"]
        for name, times, slope in zip(self.methods, self.time_constants, self.slopes):
            rows.append(f"{name:28s}" + "".join(f"{time:12.5g}" for time in times) + f"{slope:8.3f}")
        return "\n".join(rows)

    def plot(self, ax: Any = None) -> Any:
        """Draw time constants against 1/β, and return the matplotlib axes; see `nlhfsim.plots.stability_limit`."""
        from nlhfsim import plots

        return plots.stability_limit(self, ax)


def stability_limit(
    methods: Any = METHODS,
    betas: npt.ArrayLike = BETAS,
    *,
    game: PreferenceGame | None = None,
    tuning: Mapping[str, Mapping[str, Sequence[Any]]] = TUNING,
) -> StabilityLimit:
    """Return how the time constant of each method at its best constant step grows as β → 0.

    Methods that are stable only for steps of order β (`SelfPlayPG`, `NaturalPG`) need time of order 1/β²; the proximal methods
    (`NashMirrorProx`, `ProximalPG`), whose step does not shrink with β, of order 1/β.

    Parameters
    ----------
    methods : Dynamics, factory or str, or a sequence of them
        Their own step sizes are not used.
    betas : array_like
        At least two, positive.
    game : PreferenceGame, optional
        Its own β is not used. Default: the cyclic tournament of 21 actions, whose modes rotate at ten frequencies. On a 3-cycle,
        with one mode, the slope of the proximal methods tends to 0.
    tuning : mapping
        Values to try, all together, for the parameters of a method beside its step size. Default: `proximal_step` (2, 3, 4, 5,
        6, 8) and `inner_steps` (2, 3, 4) of `ProximalPG`. With a single mode both can be matched to it, so that it vanishes
        in a step or two and time constants say little: give ``tuning={}`` there.

    Returns
    -------
    StabilityLimit
        Time constants, parameters, fitted slopes.

    Raises
    ------
    InputError
        As `best_step`; if fewer than two β are given.

    Notes
    -----
    Theory of this project, `stability-limit`: slopes of -2.00 ± 0.02 and -1.00 ± 0.03 on the default game.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> found = nl.stability.stability_limit(["SelfPlayPG", "NashMirrorProx"])
    >>> found.slopes.round(2)
    array([-2.  , -1.01])
    """
    ensure_game(game := cyclic_tournament(21) if game is None else game)
    strengths = np.sort(np.atleast_1d(ensure_array("betas", betas)))[::-1]
    if strengths.ndim != 1 or len(strengths) < 2 or strengths[-1] <= 0 or (np.diff(strengths) == 0).any():
        raise InputError("betas must be at least two different positive numbers")
    chosen = list(methods) if isinstance(methods, Iterable) and not isinstance(methods, str) else [methods]
    if not chosen:
        raise InputError("methods is empty: name at least one")
    _ensure_tuning(tuning)
    equilibria = solve_path(game, strengths)
    found = [[_best(game.with_beta(e_beta), m, eq, tuning) for e_beta, eq in zip(strengths, equilibria)] for m in chosen]
    times = np.array([[best.time_constant for _, best in row] for row in found]).reshape(len(found), len(strengths))
    return StabilityLimit(
        methods=tuple(as_dynamics(method).name for method in chosen),
        betas=np.ascontiguousarray(strengths),
        time_constants=times,
        chosen=tuple(tuple(dynamics.with_step(best.step_size) for dynamics, best in row) for row in found),
        slopes=np.array([_slope(strengths, row) for row in times]),
    )


def _ensure_tuning(tuning: Any) -> None:
    if not isinstance(tuning, Mapping) or not all(isinstance(grid, Mapping) for grid in tuning.values()):
        raise InputError(
            f"tuning = {tuning!r} must map names of methods to values of their parameters, as stability.limit.TUNING"
        )
    for name in tuning:
        get(name)


def _best(
    game: PreferenceGame, method: Any, equilibrium: Equilibrium, tuning: Mapping[str, Mapping[str, Sequence[Any]]]
) -> tuple[Dynamics, BestStep]:
    """Return a method with its best parameters of the grid, and its best step."""
    dynamics = as_dynamics(method)
    variants = list(_variants(dynamics, tuning.get(dynamics.name, {})))
    known = None if dynamics.method.fixed_point == "none" else equilibrium
    return best_of(game, variants, known)


def _variants(dynamics: Dynamics, grid: Mapping[str, Sequence[Any]]) -> Iterator[Dynamics]:
    if not grid:
        yield dynamics
        return
    for values in itertools.product(*grid.values()):
        yield build(dynamics.name, **(dict(dynamics.given) | dict(zip(grid, values))))


def _slope(betas: Array, times: Array) -> float:
    if not (np.isfinite(times) & (times > 0)).all():
        return float("nan")
    return float(np.polyfit(np.log(betas), np.log(times), 1)[0])
