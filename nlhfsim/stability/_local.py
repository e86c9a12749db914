"""A method at its own fixed point: who has one, where it is, and how fast deviations from it shrink or grow."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._spec import Dynamics, as_dynamics
from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import Array, InputError, SizeError
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.plan import solved_target
from nlhfsim.simplex import kl_log
from nlhfsim.stability._step_map import StepMap

_LOOSE, _LOOSE_A_STEP = 1e-12, 4e-15
"""|λ|² - 1 above which an eigenvalue is outside of the unit circle in any case, and more of it for each unit of the step size.

Rounding moves eigenvalues that are on the circle, as those of actions that are hardly played are in policy gradient methods.
"""
_ROUNDING = 8 * float(np.finfo(float).eps)
"""Relative error of the Jacobian of a step."""
_LARGEST = 1500
_INTERIOR = 1e-7
_ITERATIONS = 30
_CLOSE = 1e-9
_REACH = 3.0
"""Newton's method moves no log-probability further than this at once."""
_SAME = 1e-8


class Local(NamedTuple):
    """The linearization of a step in one context.

    Attributes
    ----------
    point : numpy.ndarray
        The fixed point, shape ``(d,)``.
    matrix : numpy.ndarray
        The Jacobian without constants, shape ``(r, r)``.
    basis : numpy.ndarray
        What its coordinates are, shape ``(d, r)``.
    means : str
        How it was differentiated.
    """

    point: Array
    matrix: Array
    basis: Array
    means: str

    @property
    def excess(self) -> float:
        """The largest |λ|² - 1, accurate near 0; infinite where the Jacobian overflows."""
        if not np.isfinite(self.matrix).all():
            return float("inf")
        return float(_excess(np.linalg.eigvals(self.matrix - np.eye(len(self.matrix)))).max(initial=-1.0))

    def beyond_rounding(self, step_size: float) -> tuple[float, float]:
        """Return the largest |λ|² - 1 less what rounding may have added to it, and how much that is.

        An eigenvalue moves with the matrix by its condition number ``1/|y*x|``, y and x its left and right unit eigenvectors.
        """
        from scipy.linalg import eig

        loose = _LOOSE + _LOOSE_A_STEP * step_size
        excess = self.excess
        if not abs(excess) < 2 * loose:
            return excess - loose, loose
        offset = self.matrix - np.eye(len(self.matrix))
        values, left, right = eig(offset, left=True, right=True)  # type: ignore[misc]
        with np.errstate(divide="ignore"):
            condition = 1 / np.abs((left.conj() * right).sum(axis=0))
        error = _ROUNDING * (1 + float(np.linalg.norm(offset, 2)))
        allowed = np.minimum(2 * error * condition + _LOOSE_A_STEP * step_size, loose)
        excesses = _excess(values) - allowed
        worst = int(np.argmax(excesses))
        return float(excesses[worst]), float(allowed[worst])


class Subject(NamedTuple):
    """A method on a game, ready to be linearized at any step size.

    Attributes
    ----------
    dynamics : Dynamics
        Its step size as it was given.
    maps : list of StepMap
        One a context.
    log_targets : numpy.ndarray
        The equilibrium, shape ``(contexts, n)``.
    beta : float
        The regularization at which that is the equilibrium.
    """

    dynamics: Dynamics
    maps: list[StepMap]
    log_targets: Array
    beta: float

    @property
    def period(self) -> int:
        """After how many steps the method does the same again."""
        return self.maps[0].period

    def at(self, step_size: float, context: int) -> Local:
        """Return the linearization in one context at a constant step size.

        Raises
        ------
        InputError
            If no fixed point is found, or it is not the equilibrium although the method says so.
        """
        found = _settled(self.maps[context], step_size, self.exact)
        if found is None:
            raise InputError(f"no fixed point of {self.dynamics.name} at the step {step_size:g} was found near the equilibrium")
        distance = self.distance(found, context)
        if self.exact and distance > _SAME:
            raise InputError(
                f"{self.dynamics.name} does not rest at the equilibrium as it says but at KL {distance:.1e} from it; "
                "its fixed_point must be 'biased'"
            )
        return found

    @property
    def exact(self) -> bool:
        """Whether the method's fixed point is the equilibrium, by its own account."""
        return self.dynamics.method.fixed_point != "biased"

    def distance(self, local: Local, context: int) -> float:
        """Return KL(π*‖fixed point)."""
        return float(kl_log(self.log_targets[context], _log_policy(self.maps[context], local.point)))

    def excess(self, step_size: float) -> float:
        """Return the largest |λ|² - 1 over contexts and eigenvalues; infinite if there is no fixed point to speak of."""
        worst = -1.0
        for k in range(len(self.maps)):
            try:
                worst = max(worst, self.at(step_size, k).excess)
            except InputError:
                return float("inf")
        return worst

    def beyond_rounding(self, step_size: float) -> tuple[float, float]:
        """Return the largest |λ|² - 1 less what rounding may have added to it, and how much that is; infinite without a point."""
        worst = -1.0, 0.0
        for k in range(len(self.maps)):
            try:
                worst = max(worst, self.at(step_size, k).beyond_rounding(step_size))
            except InputError:
                return float("inf"), 0.0
        return worst

    def log_radius(self, step_size: float) -> float:
        """Return the logarithm of the factor a step."""
        return log_radius(self.excess(step_size), self.period)


def _excess(offsets: npt.NDArray[Any]) -> Array:
    """Return |λ|² - 1 from λ - 1."""
    with np.errstate(over="ignore"):
        return np.asarray(2 * offsets.real + np.abs(offsets) ** 2)


def log_radius(excess: float, period: int) -> float:
    """Return the logarithm of the spectral radius a step, accurate near 0; -inf for 0."""
    with np.errstate(divide="ignore"):
        return float(np.log1p(excess) / (2 * period))


def subject(game: PreferenceGame, method: Any, equilibrium: Equilibrium | None = None) -> Subject:
    """Return a method on a game, ready to be linearized.

    Raises
    ------
    InputError
        If the method has no linearization, or its fixed point is not interior.
    """
    ensure_game(game)
    dynamics = as_dynamics(method)
    _ensure_linearizable(dynamics)
    if game.n > _LARGEST:
        raise SizeError(f"the linearization of {game.n} actions is out of reach, for at most {_LARGEST} actions")
    # A method without a regularized fixed point aims at the unregularized equilibrium.
    aim = game if dynamics.method.fixed_point != "none" else game.with_beta(0.0)
    target = solved_target(aim, equilibrium)
    if target.status == "failed":
        raise InputError(f"the equilibrium of this game was not found ({target.solver_status}), so nothing is linear about it")
    if aim.beta == 0 and (target.unique is not True or target.policy.min() < _INTERIOR):
        why = "" if game.beta == 0 else f" ({dynamics.name} does not use the game's own beta)"
        raise InputError(
            f"{dynamics.name} has no linearization on this game: at beta = 0{why} it takes a unique equilibrium that plays all "
            "actions, or there is no fixed point inside the simplex to be near of"
        )
    logs = target.log_policy.reshape(game.n_contexts, game.n)
    maps = [StepMap(context, dynamics, log_policy) for context, log_policy in zip(game.contexts, logs)]
    return Subject(dynamics, maps, logs, aim.beta)


def constant_step(game: PreferenceGame, dynamics: Dynamics) -> float:
    """Return the constant step size of a method, its safe one on a game if none is given, 0 if it has none.

    Raises
    ------
    InputError
        If it is a schedule, or one a run.
    """
    step_size = dynamics.resolve(game.contexts).step_size
    if step_size is None:
        return 0.0
    if callable(step_size) or isinstance(step_size, tuple):
        raise InputError(f"{dynamics!r} has no linearization: its {dynamics.method.scheduled} must be one constant number")
    return float(step_size)


def _ensure_linearizable(dynamics: Dynamics) -> None:
    method = dynamics.method
    reasons = {
        "its step draws at random": method.stochastic,
        "its step depends on the time": not method.autonomous,
        "its step is not smooth": not method.smooth,
    }
    for reason, applies in reasons.items():
        if applies:
            raise InputError(f"{method.name} has no linearization: {reason}")


def _log_policy(steps: StepMap, point: Array) -> Array:
    logits = point[steps.logits]
    return np.asarray(logits - np.logaddexp.reduce(logits))


def _settled(steps: StepMap, step_size: float, exact: bool, depth: int = 4) -> Local | None:
    """Return the linearization at the fixed point near π*, by Newton's method, where needed continued from smaller steps."""
    found = _newton(steps, steps.start, step_size, exact)
    if found is None and not exact and depth > 0:
        nearer = _settled(steps, step_size / 4, exact, depth - 1)
        if nearer is not None:
            return _newton(steps, nearer.point, step_size, exact)
    return found


def _newton(steps: StepMap, start: Array, step_size: float, exact: bool) -> Local | None:
    """Solve step(x) = x without constants; a method whose start is the fixed point, up to rounding, stays there."""
    point, before = start, np.inf
    for _ in range(_ITERATIONS):
        image, jacobian, means = steps.derivative(point, step_size)
        basis = steps.basis(jacobian)
        local = Local(point, basis.T @ jacobian @ basis, basis, means)
        residual = basis.T @ (image - point)
        if not (np.isfinite(local.matrix).all() and np.isfinite(residual).all()):
            return local if point is start and exact else None
        rounding = np.abs(residual).max(initial=0.0) <= 1e-14 * (1 + np.abs(point).max()) + 1e-15 * step_size
        if rounding and exact:
            return local
        move = _solve(np.eye(len(residual)) - local.matrix, residual)
        length = float(np.abs(move).max(initial=0.0))
        if rounding and (length > 1 or length > before / 2):
            return local
        if length <= _CLOSE:
            return local._replace(point=point + basis @ move)
        point = point + basis @ move * min(1.0, _REACH / length)
        before = length
    return None


def _solve(matrix: Array, right: Array) -> Array:
    try:
        return np.asarray(np.linalg.solve(matrix, right))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.lstsq(matrix, right)[0])
