"""Newton's method on ``θ - log ρ - Aπ_θ/β``, continued in β where it stalls; β > 0."""

from __future__ import annotations

import warnings

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, dense
from nlhfsim.games.responses import log_best_response, log_ratio_residual
from nlhfsim.simplex import log_softmax, spread
from nlhfsim.solvers import Answer, tolerance


@np.errstate(over="ignore", invalid="ignore")  # at a tiny β steps overflow, and are then refused by the backtracking
def newton(context: Context, log_start: Array, target: float = 0.0, max_iterations: int = 60) -> tuple[Array, str]:
    """Solve ``θ = log ρ + Aπ_θ/β`` (mod constants) by damped Newton from a log-policy ``(n,)``; β > 0.

    The Jacobian ``I - A J(π)/β`` has eigenvalues 1 ± iω/β (A skew, J positive semidefinite), so it is never singular, and its
    step reduces ``‖F‖²``. θ is kept normalized as log π.

    Returns the log-policy with the smallest residual seen, and why the iteration ended. It ends at a log-ratio residual ≤
    `target`, or (as always for the default 0) when rounding stops the progress.
    """
    log_policy = log_softmax(np.asarray(log_start))
    defect = _defect(context, log_policy)
    best, best_residual = log_policy, float(spread(defect))
    for iteration in range(max_iterations):
        if best_residual <= target:
            return best, f"newton: residual {best_residual:.1e} after {iteration} iterations"
        step = _newton_step(context, log_policy, defect)
        log_policy, defect, damping = _backtrack(context, log_policy, defect, step)
        residual = float(spread(defect))
        if residual < best_residual:
            slow = damping == 1 and residual > 0.5 * best_residual and residual < tolerance(context.beta)
            best, best_residual = log_policy, residual
            if not slow:
                continue
        return best, f"newton: residual {best_residual:.1e} after {iteration + 1} iterations"
    return best, f"newton: residual {best_residual:.1e}, stopped at {max_iterations} iterations"


def _defect(context: Context, log_policy: Array) -> Array:
    """Return F = log π - log BR(π), centred: constants do not count."""
    difference = log_policy - log_best_response(context, log_policy)
    return np.asarray(difference - difference.mean())


def _newton_step(context: Context, log_policy: Array, defect: Array) -> Array:
    import scipy.linalg

    policy = np.exp(log_policy)
    matrix = dense(context.payoff)
    jacobian = (matrix * policy - np.outer(matrix @ policy, policy)) / -context.beta
    jacobian.flat[:: len(policy) + 1] += 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)  # an inaccurate step is caught by the backtracking
        try:
            return np.asarray(scipy.linalg.solve(jacobian, -defect, overwrite_a=True, check_finite=False))
        except (scipy.linalg.LinAlgError, ValueError):
            return np.zeros_like(defect)  # singular in rounding, or overflowed at a tiny β: no progress from here


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


def solve_by_newton(context: Context, warm: Array | None) -> Answer:
    """Try Newton directly, from `warm` or ρ; where it stalls, follow the equilibrium from large β down to the context's."""
    log_policy, words = newton(context, context.log_reference if warm is None else warm, max_iterations=30)
    if log_ratio_residual(context, log_policy) <= tolerance(context.beta):
        return Answer(log_policy, "newton", words)
    log_policy = np.array(context.log_reference)
    level, ratio = max(3.0, 3 * context.beta), 3.0
    levels = 0
    while level > context.beta and levels < 200:
        trial = max(level / ratio, context.beta)
        final = trial == context.beta
        candidate, words = newton(context._replace(beta=trial), log_policy, 0.0 if final else 1e-6)
        accepted = log_ratio_residual(context._replace(beta=trial), candidate) <= max(1e-4, tolerance(trial))
        if accepted:
            log_policy, level, ratio = candidate, trial, min(3.0, ratio**1.5)
        else:
            ratio = ratio**0.5
        levels += 1
        if ratio < 1.01:
            break
    if level > context.beta:
        words = f"newton: rounding or a stall ended the continuation at beta = {level:.1e}"
    return Answer(log_policy, "newton", f"{words}, continued in beta over {levels} levels")
