"""An interior-point method for the unregularized game, β = 0; it ends at the centre of the set of von Neumann winners."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, dense
from nlhfsim.simplex import safe_log
from nlhfsim.solvers import Answer


def solve_by_interior_point(context: Context) -> Answer:
    """Return the centre of the set of von Neumann winners of one context, and the dimension of that set."""
    matrix = dense(context.payoff)
    scale = float(np.abs(matrix).max()) or 1.0
    x, slack, early, iterations = _central_path(matrix / scale)
    words = f"interior point: {iterations} iterations"
    support = x > slack  # strict complementarity: exactly one of x_i and s_i tends to zero
    face = np.vstack([matrix[np.ix_(support, support)] / scale, np.ones(int(support.sum()))])
    dimension = int(support.sum()) - int(np.linalg.matrix_rank(face, tol=1e-9))
    candidates = [x, np.where(support, x, 0.0) / x[support].sum()]
    if dimension > 0:
        # Near the end rounding drifts along the face; an earlier point, projected onto the face, is closer to its centre.
        target = np.append(np.zeros(int(support.sum())), 1.0)
        centre = np.zeros(len(x))
        centre[support] = early[support] + np.linalg.lstsq(face, target - face @ early[support], rcond=None)[0]
        candidates.append(np.maximum(centre, 0.0) / np.maximum(centre, 0.0).sum())
    good = [c for c in candidates if (matrix @ c).max() <= max(float((matrix @ x).max()), 1e-14)]
    return Answer(safe_log(good[-1]), "interior-point", words, dimension)


def _central_path(matrix: Array, max_iterations: int = 100) -> tuple[Array, Array, Array, int]:
    """Follow ``x_i s_i = μ``, ``s = v 1 - A x``, to μ = 0; A skew with entries of order 1.

    Return x, s, the first x with a gap below 1e-8, and the number of iterations.

    As ``xᵀAx = 0``, ``v = xᵀs`` is the duality gap. Predictor and corrector (Mehrotra, SIAM J. Optim. 2, 1992) share one
    factorization of ``diag(s/x) - A``, positive definite plus skew and so never singular.
    """
    import scipy.linalg

    n = len(matrix)
    x = np.full(n, 1.0 / n)
    value = float((matrix @ x).max()) + 0.1
    slack = value - matrix @ x
    best, best_gap, stalled = (x, slack), float(x @ slack), 0
    early: Array | None = None
    for iteration in range(max_iterations):
        system = -matrix
        system.flat[:: n + 1] += slack / x
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
            factors = scipy.linalg.lu_factor(system, overwrite_a=True, check_finite=False)
        dx, dv, length = _predictor_corrector(matrix, factors, x, slack)
        x = x + length * dx
        x, value = x / x.sum(), value + length * dv
        slack = np.maximum(value - matrix @ x, 1e-20)
        gap = float(x @ slack)
        if not np.isfinite(gap) or (x <= 0).any():
            break
        stalled = 0 if gap < 0.5 * best_gap else stalled + 1
        if gap < best_gap:
            best, best_gap = (x, slack), gap
        if gap < 1e-8 and early is None:
            early = x
        if gap < 1e-17 or (gap < 1e-10 and stalled >= 2):
            break
    return *best, best[0] if early is None else early, iteration + 1


def _predictor_corrector(matrix: Array, factors: Any, x: Array, slack: Array) -> tuple[Array, float, float]:
    """Return the direction (dx, dv) of one interior-point iteration and how far to go along it."""
    import scipy.linalg

    n = len(x)
    ones = scipy.linalg.lu_solve(factors, np.ones(n), check_finite=False)

    def direction(target: Array) -> tuple[Array, float, Array]:
        # Linearization of x_i s_i = target_i with s = v 1 - A x and 1ᵀdx = 0.
        plain = scipy.linalg.lu_solve(factors, target / x - slack, check_finite=False)
        dv = float(plain.sum() / ones.sum())
        dx = plain - dv * ones
        return dx, dv, dv - matrix @ dx

    average = float(x @ slack) / n
    dx, _, ds = direction(np.zeros(n))
    length = min(1.0, _longest(x, dx), _longest(slack, ds))
    predicted = float((x + length * dx) @ (slack + length * ds)) / n
    centring = min(max(predicted / average, 0.0) ** 3, 1.0)
    dx, dv, ds = direction(centring * average - dx * ds)
    return dx, dv, min(1.0, 0.9995 * min(_longest(x, dx), _longest(slack, ds)))


def _longest(position: Array, direction: Array) -> float:
    """Return the longest step that keeps `position` non-negative (at most 1e6)."""
    shrinking = direction < 0
    if not shrinking.any():
        return 1e6
    return float(np.min(-position[shrinking] / direction[shrinking]))
