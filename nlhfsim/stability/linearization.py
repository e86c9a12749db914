"""The linearization of a method at its own fixed point, and the local rate that it predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import Array, ensure_integer
from nlhfsim.games.game import PreferenceGame
from nlhfsim.stability._local import Subject, constant_step, log_radius, subject


@dataclass(frozen=True)
class Linearization:
    """A method's step near its fixed point: ``δ⁺ = M δ``, δ the deviation of its full state, constants of logits left out.

    Attributes
    ----------
    method : str
        The method's name.
    step_size : float
        γ; 0 if the method has none.
    matrix : numpy.ndarray
        M, shape ``(r, r)``, of `period` steps.
    eigenvalues : numpy.ndarray
        Of M, complex, the largest first, shape ``(r,)``.
    radius : float
        The factor a step: the spectral radius of M, its `period`-th root.
    basis : numpy.ndarray
        What the coordinates of M are, shape ``(d, r)``: the full state is a vector of length d, its arrays in order.
    state : NamedTuple
        The method's state at the fixed point.
    log_policy : numpy.ndarray
        Its policy, shape ``(n,)``, log space.
    kl_from_equilibrium : float
        KL(π*‖policy): 0 up to rounding, unless the method's fixed point is biased.
    context : int
        In which context of the game, 0 if it has one only.
    radius_by_context : numpy.ndarray
        Shape ``(contexts,)``, NaN where another was asked for.
    period : int
        After how many steps the method does the same again.
    oracle_calls : int or None
        Oracle calls of a step.
    differentiated : str
        ``"complex step"`` or ``"central differences"``.
    """

    method: str
    step_size: float
    matrix: Array
    eigenvalues: npt.NDArray[np.complex128]
    radius: float
    basis: Array
    state: Any
    log_policy: Array
    kl_from_equilibrium: float
    context: int
    radius_by_context: Array
    period: int
    oracle_calls: int | None
    differentiated: str

    @property
    def stable(self) -> bool:
        """Whether small deviations shrink."""
        return self.radius < 1

    @property
    def time_constant(self) -> float:
        """Oracle calls (steps, where a method counts none) in which deviations shrink by e; infinite if they do not."""
        calls = 1 if self.oracle_calls is None else self.oracle_calls
        with np.errstate(divide="ignore"):
            return float(-calls / np.log(self.radius)) if self.stable else float("inf")

    def __repr__(self) -> str:
        # A radius that rounds to 1 is given by its distance from 1: on which side it lies is the question.
        near = abs(self.radius - 1) < 1e-6 and self.radius != 1
        radius = f"1 {'+' if self.radius > 1 else '-'} {abs(self.radius - 1):.2g}" if near else f"{self.radius:.6g}"
        return f"Linearization({self.method}, step_size={self.step_size:.4g}, radius={radius})"


def linearize(
    game: PreferenceGame, method: Any, *, context: int | None = None, equilibrium: Equilibrium | None = None
) -> Linearization:
    """Return the linearization of a method at its own fixed point, in its full state.

    The state is (θ), (θ, the payoff seen last), (θ, the centre), …; constants are projected out of every array to which they
    can be added without effect. A fixed point other than π* (`NashMD` at a constant step, `IPOMD`) is found from π* by Newton's
    method on the step itself. The step is differentiated by a complex step; where it cannot take complex numbers, or makes
    something else of them, by central differences of fourth order; `ProximalPoint` implicitly, from the optimality condition
    of its sub-game. With a period of m steps (`NashProx` with refreshes), M is that of m steps.

    Parameters
    ----------
    game : PreferenceGame
        β > 0. At β = 0, and for methods that do not use the game's β, the unregularized equilibrium must be unique and play all
        actions.
    method : Dynamics, factory or str
        As in `simulate`, with a constant step size; default: its safe step.
    context : int, optional
        In which context. Default: the one with the largest radius.
    equilibrium : Equilibrium, optional
        The solved equilibrium, so that it is not solved again (of ``game.with_beta(0)`` for methods that do not use β).

    Returns
    -------
    Linearization
        Matrix, eigenvalues, radius, fixed point.

    Raises
    ------
    InputError
        If the method is not smooth, depends on the time (a schedule, a counter) or draws at random; if no fixed point is found,
        or the method rests elsewhere than at π*, without saying so.

    Notes
    -----
    Theory of this project, `local-rate`.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> local = nl.stability.linearize(game, nl.dynamics.NaturalPG(step_size=0.5))
    >>> round(local.radius, 6), round(abs(1 - 0.5 * 0.1 + 0.5j * 12**-0.5), 6)    # |1 - γβ + iγω|, ω² = 1/12
    (0.960902, 0.960902)
    """
    about = subject(game, method, equilibrium)
    step_size = constant_step(game, about.dynamics)
    chosen = None if context is None else ensure_integer("context", context, 0, game.n_contexts - 1)
    radii = np.full(game.n_contexts, np.nan)
    kept = {}
    for k in range(game.n_contexts) if chosen is None else [chosen]:
        kept[k] = about.at(step_size, k)
        radii[k] = np.exp(log_radius(kept[k].excess, about.period))
    worst = int(np.nanargmax(radii))
    return _described(about, kept[worst], step_size, worst, radii)


def local_rate(game: PreferenceGame, method: Any, *, equilibrium: Equilibrium | None = None) -> float:
    """Return the factor a step by which the last iterate tends to the method's fixed point: ``‖θ - θ*‖`` shrinks by it.

    It is the spectral radius of the linearization, the largest over contexts; KL shrinks by its square. Above 1 the fixed point
    is unstable.

    Parameters
    ----------
    game, method, equilibrium
        As in `linearize`.

    Raises
    ------
    InputError
        As `linearize`.

    Notes
    -----
    Theory of this project, `local-rate`.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> method = nl.dynamics.NashMirrorProx(step_size=2.0)
    >>> rate = nl.stability.local_rate(game, method)
    >>> run = nl.simulate(game, method, 60, start=[0.4, 0.3, 0.3], record_every=1)
    >>> measured = (run.kl[0, 60] / run.kl[0, 20]) ** (1 / 80)
    >>> round(rate, 3), round(float(measured), 3)
    (0.723, 0.723)
    """
    return linearize(game, method, equilibrium=equilibrium).radius


def _described(about: Subject, local: Any, step_size: float, context: int, radii: Array) -> Linearization:
    dynamics, steps = about.dynamics, about.maps[context]
    values = np.linalg.eigvals(local.matrix).astype(np.complex128) if np.isfinite(local.matrix).all() else np.full(1, np.inf + 0j)
    state = steps.state(local.point)
    logits = local.point[steps.logits]
    calls = dynamics.method.oracle_calls
    return Linearization(
        method=dynamics.name,
        step_size=step_size,
        matrix=local.matrix,
        eigenvalues=values[np.argsort(-np.abs(values), kind="stable")],
        radius=float(radii[context]),
        basis=local.basis,
        state=state,
        log_policy=np.asarray(logits - np.logaddexp.reduce(logits)),
        kl_from_equilibrium=about.distance(local, context),
        context=context,
        radius_by_context=radii,
        period=about.period,
        oracle_calls=None if calls is None else calls(dynamics.params),
        differentiated=local.means,
    )
