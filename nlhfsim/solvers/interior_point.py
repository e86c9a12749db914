"""An interior-point method for the unregularized game, β = 0; it ends at the centre of the set of von Neumann winners."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, dense
from nlhfsim.simplex import safe_log
from nlhfsim.solvers import Answer

Indices = npt.NDArray[np.int64]


def solve_by_interior_point(context: Context) -> Answer:
    """Return the centre of the set of von Neumann winners of one context, and the dimension of that set.

    Actions that win and lose against all others alike are solved as one with a weight, the number of them.
    """
    matrix = dense(context.payoff)
    first, copies, counts = _distinct(matrix)
    answer = _solved(np.ascontiguousarray(matrix[np.ix_(first, first)]), counts.astype(np.float64))
    policy = (np.exp(answer.log_policy) / counts)[copies]
    dimension = answer.face_dimension
    if dimension is not None:
        dimension += int((counts - 1)[np.exp(answer.log_policy) > 0].sum())
    return Answer(safe_log(policy / policy.sum()), answer.method, answer.words, dimension)


def _distinct(matrix: Array) -> tuple[Indices, Indices, Indices]:
    """Return the first of each kind of equal rows, the kind of every row, and how many there are of each kind."""
    # Rows are told apart by two fixed random sums, and compared in full where these agree.
    marks = matrix @ np.random.default_rng(0).standard_normal((len(matrix), 2))
    _, first, copies, counts = np.unique(marks, axis=0, return_index=True, return_inverse=True, return_counts=True)
    if (matrix == matrix[first[copies]]).all():
        return first, copies.ravel(), counts
    everything = np.arange(len(matrix))
    return everything, everything, np.ones(len(matrix), dtype=np.int64)


def _solved(matrix: Array, weights: Array) -> Answer:
    """Solve for distinct actions; the centre is weighted."""
    scale = float(np.abs(matrix).max()) or 1.0
    uniform = weights / weights.sum()
    if np.abs(matrix @ uniform).max() <= 1e-16 * scale:
        # Every action gains nothing against it, so it lies on the central path, at its end.
        return Answer(safe_log(uniform), "interior-point", "interior point: 0 iterations", _face_dimension(matrix))
    x, slack, early, iterations = _central_path(matrix / scale)
    words = f"interior point: {iterations} iterations"
    support = x > slack  # strict complementarity: exactly one of x_i and s_i tends to zero
    on_face = matrix[np.ix_(support, support)] / scale
    dimension = _face_dimension(on_face)
    candidates = [x, np.where(support, x, 0.0) / x[support].sum()]
    if dimension > 0:
        # Near the end rounding drifts along the face.
        centre = np.zeros(len(x))
        centre[support] = _centred(matrix / scale, support, early, weights)
        candidates.append(np.maximum(centre, 0.0) / np.maximum(centre, 0.0).sum())
    good = [c for c in candidates if (matrix @ c).max() <= max(float((matrix @ x).max()), 1e-14)]
    return Answer(safe_log(good[-1]), "interior-point", words, dimension)


def _centred(matrix: Array, support: npt.NDArray[np.bool_], start: Array, weights: Array) -> Array:
    """Return where the central path ends: the maximizer over the face of ``Σ w_i log x_i + Σ w_j log s_j``, i played, j not.

    By Newton's method in coordinates of the face, ``{x: A x = 0, Σx = 1}`` among the actions played, s = -A x among the others.
    """
    import scipy.linalg

    face = np.vstack([matrix[np.ix_(support, support)], np.ones(int(support.sum()))])
    target = np.append(np.zeros(len(face) - 1), 1.0)
    x = start[support] + np.linalg.lstsq(face, target - face @ start[support], rcond=None)[0]
    losing = -matrix[np.ix_(~support, support)]
    along = scipy.linalg.null_space(face, rcond=1e-9)
    moved = losing @ along
    w, v = weights[support], weights[~support]
    for _ in range(100):
        slack = losing @ x
        if x.min() <= 0 or slack.min(initial=1.0) <= 0:
            break
        gradient = along.T @ (w / x) + moved.T @ (v / slack)
        hessian = along.T @ ((w / x**2)[:, None] * along) + moved.T @ ((v / slack**2)[:, None] * moved)
        step = along @ np.linalg.solve(hessian, gradient)
        # The decrement of a self-concordant function: a damped step is always safe, the whole step near the end.
        decrement = float(np.sqrt(np.sum(w * (step / x) ** 2) + np.sum(v * (losing @ step / slack) ** 2)))
        x = x + step * (1.0 if decrement < 0.25 else 1 / (1 + decrement))
        if decrement < 1e-10:
            break
    return np.asarray(x)


def _face_dimension(matrix: Array) -> int:
    """Return the dimension of ``{x: Ax = 0, Σx = 1}`` for the advantages of actions that an equilibrium plays.

    It is n - 1 less the rank of A: the solution has Σx = 1, so that equation does not follow from the others. Groups of actions
    that tie with all outside the group have ranks of their own.
    """
    from scipy.sparse.csgraph import connected_components

    count, labels = connected_components(matrix != 0, directed=False)
    groups = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=count))[:-1])
    blocks = [matrix[np.ix_(group, group)] for group in groups if len(group) > 1]
    return len(matrix) - 1 - sum(int(np.linalg.matrix_rank(block / np.abs(block).max(), tol=1e-9)) for block in blocks)


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
        # Where an entry of x has all but vanished the system overflows; the gap is then not finite, which ends the path.
        with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
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
