"""The local radius over step sizes and strengths of regularization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._spec import as_dynamics
from nlhfsim.equilibrium import solve_path
from nlhfsim.errors import Array, InputError, ensure_array
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.stability._local import subject
from nlhfsim.stability.step_sizes import critical_step


@dataclass(frozen=True)
class StabilityMap:
    """The factor a step of a method's last iterate, over constant steps and β; see `stability_map`.

    Attributes
    ----------
    method : str
        The method's name.
    parameter : str
        What its step size is called.
    betas, step_sizes : numpy.ndarray
        Shapes ``(betas,)`` and ``(steps,)``.
    radius : numpy.ndarray
        The spectral radius a step, the largest over contexts, shape ``(betas, steps)``; infinite where no fixed point is found.
    critical_steps : numpy.ndarray
        The smallest unstable step at each β, as `critical_step`, shape ``(betas,)``.
    oracle_calls : int or None
        Oracle calls of a step.
    """

    method: str
    parameter: str
    betas: Array
    step_sizes: Array
    radius: Array
    critical_steps: Array
    oracle_calls: int | None

    def plot(self, ax: Any = None) -> Any:
        """Draw the map, and return the matplotlib axes; see `nlhfsim.plots.stability_map`."""
        from nlhfsim import plots

        return plots.stability_map(self, ax)


def stability_map(game: PreferenceGame, method: Any, step_sizes: npt.ArrayLike, betas: npt.ArrayLike) -> StabilityMap:
    """Return the local radius of a method at every pair of a constant step and β.

    Parameters
    ----------
    game : PreferenceGame
        Its own β is not used.
    method : Dynamics, factory or str
        Its own step size is not used, its other parameters are kept.
    step_sizes, betas : array_like
        Positive, increasing, shapes ``(steps,)`` and ``(betas,)``.

    Raises
    ------
    InputError
        As `critical_step`; if a value is not positive or the values do not increase.

    Notes
    -----
    Theory of this project, `local-rate`, `critical-step`.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5)
    >>> found = nl.stability.stability_map(game, nl.dynamics.NaturalPG, [0.1, 1.0, 10.0], [0.01, 0.1])
    >>> (found.radius < 1).tolist()
    [[True, False, False], [True, True, False]]
    >>> found.critical_steps.round(3)    # 2β/(β² + 1/12)
    array([0.24 , 2.143])
    """
    ensure_game(game)
    steps, strengths = _increasing("step_sizes", step_sizes), _increasing("betas", betas)
    ignores_beta = as_dynamics(method).method.fixed_point == "none"
    radius, critical = np.empty((len(strengths), len(steps))), np.empty(len(strengths))
    for k, (beta, equilibrium) in enumerate(zip(strengths, solve_path(game, strengths))):
        at = game.with_beta(float(beta))
        known = None if ignores_beta else equilibrium
        about = subject(at, method, known)
        critical[k] = critical_step(at, method, equilibrium=known)
        radius[k] = [np.exp(about.log_radius(float(step))) for step in steps]
    calls = about.dynamics.method.oracle_calls
    return StabilityMap(
        method=about.dynamics.name,
        parameter=str(about.dynamics.method.scheduled),
        betas=strengths,
        step_sizes=steps,
        radius=radius,
        critical_steps=critical,
        oracle_calls=None if calls is None else calls(about.dynamics.params),
    )


def _increasing(name: str, values: npt.ArrayLike) -> Array:
    array = np.atleast_1d(ensure_array(name, values))
    if array.ndim != 1 or not len(array) or array[0] <= 0 or (np.diff(array) <= 0).any():
        raise InputError(f"{name} must be positive numbers, each larger than the one before")
    return array
