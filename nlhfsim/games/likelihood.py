"""The Bradley–Terry likelihood of tables of votes: where it has a maximum, the maximum, and the deviance from it.

A table holds votes for the row over the column, shape ``(n, n)``, zero on the diagonal; a tie is half a vote for each side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array

_ITERATIONS = 200


def win_groups(wins: Array) -> list[list[int]]:
    """Return the strong components of the win graph, an edge from i to j where i won a vote against j."""
    from scipy.sparse.csgraph import connected_components

    count, component = connected_components(wins > 0, directed=True, connection="strong")
    order = np.argsort(component, kind="stable")
    return [list(map(int, part)) for part in np.split(order, np.bincount(component, minlength=count).cumsum()[:-1])]


def degrees_of_freedom(wins: Array) -> int:
    """Return the pairs compared less the scores fitted, for a group that the votes connect."""
    return int(((wins + wins.T) > 0).sum()) // 2 - (len(wins) - 1)


def maximize_likelihood(wins: Array, start: Array | None = None, tolerance: float = 1e-24) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return Bradley–Terry scores of many tables of votes at once.

    Parameters
    ----------
    wins : numpy.ndarray
        Votes for the row over the column, shape ``(tables, n, n)``, each table connected by its votes.
    start : numpy.ndarray, optional
        Scores to start from, shape ``(n,)``. Default: zero.
    tolerance : float
        Stop a table when its log-likelihood can grow by no more than this share of its votes.

    Returns
    -------
    scores : numpy.ndarray
        Shape ``(tables, n)``, mean zero.
    converged : numpy.ndarray of bool
        Shape ``(tables,)``.

    Notes
    -----
    Newton's method with steps of ``log(1 + r)/r``, r the span of the Newton direction. The third derivative of log-sigmoid is at
    most its second, so along the direction the curvature grows at most like ``exp(r t)``, and this step is the best for that
    bound: each one increases the likelihood, from any start (Bach, *Self-concordant analysis for logistic regression*,
    Electronic Journal of Statistics 4 (2010)).
    """
    from scipy.special import expit

    tables, n = wins.shape[:2]
    scores = np.zeros((tables, n)) if start is None else np.tile(start, (tables, 1))
    total = wins + np.swapaxes(wins, 1, 2)
    votes = wins.sum(axis=(1, 2))
    gain = np.zeros(tables)
    pending = np.arange(tables) if n > 1 else np.arange(0)
    for _ in range(_ITERATIONS):
        if not len(pending):
            break
        s = scores[pending]
        lower = expit(s[:, None, :] - s[:, :, None])
        upset = wins[pending] * lower
        gradient = upset.sum(axis=2) - upset.sum(axis=1)
        direction = _newton_direction(total[pending] * lower * np.swapaxes(lower, 1, 2), gradient)
        reach = np.ptp(direction, axis=1)
        step = np.log1p(reach) / np.where(reach > 0, reach, 1.0)
        scores[pending] += np.where(reach > 0, step, 0.0)[:, None] * direction
        gain[pending] = (gradient * direction).sum(axis=1) / votes[pending]
        pending = pending[(reach > 1e-10) & (gain[pending] > tolerance)]
    return scores - scores.mean(axis=1, keepdims=True), gain <= max(1e-15, tolerance)


def _newton_direction(curvature: Array, gradient: Array) -> Array:
    """Return ``H⁻¹ g`` on the vectors of mean zero, H the Laplacian of the weights `curvature`, shape ``(tables, n)``."""
    n = gradient.shape[1]
    degree = curvature.sum(axis=2)
    hessian = -curvature + degree.mean(axis=1)[:, None, None] / n
    diagonal = np.arange(n)
    hessian[:, diagonal, diagonal] += degree
    return np.asarray(np.linalg.solve(hessian, gradient[..., None])[..., 0])


def deviances(wins: Array, scores: Array) -> Array:
    """Return twice the log-likelihood ratio of the frequencies over the scores, shape ``(tables,)``, as a sum of terms ≥ 0."""
    from scipy.special import expit, kl_div

    expected = (wins + np.swapaxes(wins, 1, 2)) * expit(scores[:, :, None] - scores[:, None, :])
    return np.asarray(2 * kl_div(wins, expected).sum(axis=(1, 2)))
