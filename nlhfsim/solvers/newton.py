"""Newton's method on ``θ - log ρ - Aπ_θ/β``, continued in β along the path of equilibria; β > 0."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, LowRankPayoff, advantage, dense
from nlhfsim.games.responses import log_best_response
from nlhfsim.simplex import log_softmax, spread
from nlhfsim.solvers import Answer, tolerance

Inverse = Callable[[Array], Array]
_NEAR = 1.0
"""A log-ratio residual from which Newton's method at the next β of the path sets out well."""
_CHORD = 1e-5
"""Below this residual an older factorization serves as long as it gains a factor of ten."""
_FIRST_LEVEL = 1.0
_FIRST_RATIO, _LARGEST_RATIO, _SMALLEST_RATIO = 3.0, 5.0, 1.01


class _Point(NamedTuple):
    """Where an iteration ended: a log-policy, its log-ratio residual, the last inverse Jacobian, the iterations taken."""

    log_policy: Array
    residual: float
    inverse: Inverse | None
    iterations: int
    words: str


def solve_by_newton(context: Context, warm: Array | None) -> Answer:
    """Follow the equilibrium from a large β down to the context's; from a log-policy `warm` near it, if given, go directly."""
    if warm is not None:
        point = _newton(context, warm, max_iterations=30)
        if point.residual <= tolerance(context.beta):
            return Answer(point.log_policy, "newton", point.words)
    return _continued(context)


def newton(context: Context, log_start: Array, target: float = 0.0, max_iterations: int = 60) -> tuple[Array, str]:
    """Solve ``θ = log ρ + Aπ_θ/β`` (mod constants) by damped Newton from a log-policy ``(n,)``; β > 0.

    The Jacobian ``I - A J(π)/β`` has eigenvalues 1 ± iω/β (A skew, J positive semidefinite), so it is never singular, and its
    step reduces ``‖F‖²``. θ is kept normalized as log π.

    Returns the log-policy with the smallest residual seen, and why the iteration ended. It ends at a log-ratio residual ≤
    `target`, or (as always for the default 0) when rounding stops the progress.
    """
    point = _newton(context, log_start, target, max_iterations)
    return point.log_policy, point.words


def _continued(context: Context) -> Answer:
    """Go down in β from 1 (or the context's, if larger), each level started from the best of three predictions.

    They are the equilibrium of the level before, and the tangents of the path in 1/β and in log β, where
    ``dθ/d(1/β) = (I - AJ/β)⁻¹ Aπ``.
    """
    level, ratio, levels = max(_FIRST_LEVEL, context.beta), _FIRST_RATIO, 1
    final = level == context.beta
    point = _newton(context._replace(beta=level), context.log_reference, 0.0 if final else _NEAR)
    while level > context.beta and ratio > _SMALLEST_RATIO:
        trial = max(level / ratio, context.beta)
        final = trial == context.beta
        at = context._replace(beta=trial)
        start = _prediction(at, context._replace(beta=level), point)
        candidate = _newton(at, start, 0.0 if final else _NEAR, 60 if final else 8)
        levels += 1
        if candidate.residual <= max(tolerance(trial), 1e-4 if final else _NEAR):
            point, level = candidate, trial
            if point.iterations <= 2:
                ratio = min(ratio * 1.5, _LARGEST_RATIO)
            elif point.iterations >= 5:
                ratio = max(ratio / 1.5, 1.5)
        else:
            ratio = ratio**0.5
    words = point.words
    if level > context.beta:
        words = f"newton: rounding or a stall ended the continuation at beta = {level:.1e}"
    if levels > 1:
        words += f", continued in beta over {levels} levels"
    return Answer(point.log_policy, "newton", words)


def _prediction(at: Context, before: Context, point: _Point) -> Array:
    """Return the log-policy with the smallest defect at the new level."""
    inverse = point.inverse or _inverse_jacobian(before, point.log_policy)
    with np.errstate(over="ignore", invalid="ignore"):
        tangent = inverse(advantage(before.payoff, np.exp(point.log_policy)))
        lengths = (0.0, 1 / at.beta - 1 / before.beta, np.log(before.beta / at.beta) / before.beta)
        trials = [log_softmax(point.log_policy + length * tangent) for length in lengths]
        norms = [float(np.linalg.norm(_defect(at, trial))) for trial in trials]
    return trials[int(np.nanargmin(norms))]


@np.errstate(over="ignore", invalid="ignore")  # at a tiny β steps overflow, and are then refused by the backtracking
def _newton(context: Context, log_start: Array, target: float = 0.0, max_iterations: int = 60) -> _Point:
    log_policy = log_softmax(np.asarray(log_start))
    defect = _defect(context, log_policy)
    residual = float(spread(defect))
    best, best_residual = log_policy, residual
    inverse: Inverse | None = None
    for iteration in range(max_iterations):
        if best_residual <= target:
            return _Point(best, best_residual, inverse, iteration, _words(best_residual, iteration))
        chord = inverse is not None and best_residual < _CHORD
        inverse = inverse if inverse is not None and chord else _inverse_jacobian(context, log_policy)
        before = residual
        log_policy, defect, damping = _backtrack(context, log_policy, defect, inverse(-defect))
        residual = float(spread(defect))
        if residual < best_residual:
            slow = damping == 1 and residual > 0.5 * best_residual and residual < tolerance(context.beta)
            best, best_residual = log_policy, residual
            if chord and residual > 0.1 * before:
                inverse = None
            if not slow:
                continue
        elif chord and best_residual > tolerance(context.beta):
            inverse, log_policy, residual = None, best, best_residual
            defect = _defect(context, best)
            continue
        return _Point(best, best_residual, inverse, iteration + 1, _words(best_residual, iteration + 1))
    return _Point(
        best,
        best_residual,
        inverse,
        max_iterations,
        f"newton: residual {best_residual:.1e}, stopped at {max_iterations} iterations",
    )


def _words(residual: float, iterations: int) -> str:
    return f"newton: residual {residual:.1e} after {iterations} iterations"


def _defect(context: Context, log_policy: Array) -> Array:
    """Return F = log π - log BR(π), centred: constants do not count."""
    difference = log_policy - log_best_response(context, log_policy)
    return np.asarray(difference - difference.mean())


def _backtrack(context: Context, log_policy: Array, defect: Array, step: Array) -> tuple[Array, Array, float]:
    """Return the first damped step that reduces ‖F‖ enough, its defect, and the damping."""
    norm = float(defect @ defect)
    damping = 1.0
    while True:
        trial = log_softmax(log_policy + damping * step)
        trial_defect = _defect(context, trial)
        if float(trial_defect @ trial_defect) <= (1 - 0.5 * damping) * norm or damping < 1e-3:
            return trial, trial_defect, damping
        damping /= 2


def _inverse_jacobian(context: Context, log_policy: Array) -> Inverse:
    """Return ``v -> (I - A J(π)/β)⁻¹ v``: by a factorization, or for a low-rank A by the Woodbury identity, O(n r²)."""
    payoff, policy = context.payoff, np.exp(log_policy)
    if isinstance(payoff, LowRankPayoff) and 4 * payoff.left.shape[1] < len(policy):
        return _woodbury(payoff, policy, context.beta)
    return _factorized(dense(payoff), policy, context.beta)


def _factorized(matrix: Array, policy: Array, beta: float) -> Inverse:
    import scipy.linalg

    jacobian = matrix * (policy / -beta)
    jacobian += np.outer(matrix @ policy / beta, policy)
    jacobian.flat[:: len(policy) + 1] += 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # an inaccurate step is caught by the backtracking
        factors = scipy.linalg.lu_factor(jacobian, overwrite_a=True, check_finite=False)
    return lambda vector: np.asarray(scipy.linalg.lu_solve(factors, vector, check_finite=False))


def _woodbury(payoff: LowRankPayoff, policy: Array, beta: float) -> Inverse:
    # A = B Cᵀ with B = [U, -V], C = [V, U]: (I - B M)⁻¹ = I + B (I - M B)⁻¹ M with M = Cᵀ J/β of 2r rows.
    left, right = payoff
    rank = left.shape[1]

    def centred(columns: Array) -> Array:
        return np.asarray(policy.reshape(-1, *(1,) * (columns.ndim - 1)) * (columns - policy @ columns) / beta)

    def reduced(columns: Array) -> Array:
        weighted = centred(columns)
        return np.concatenate([right.T @ weighted, left.T @ weighted])

    core = np.eye(2 * rank) - np.hstack([reduced(left), -reduced(right)])

    def inverse(vector: Array) -> Array:
        try:
            small = np.linalg.solve(core, reduced(vector))
        except np.linalg.LinAlgError:
            return np.zeros_like(vector)  # singular in rounding, or overflowed at a tiny β: no progress from here
        return np.asarray(vector + left @ small[:rank] - right @ small[rank:])

    return inverse
