"""Features on a game: φθ, its adjoint, and the projections on it that the methods take.

Functions of the actions have shape ``(contexts, n)``. What is constant over the actions of a context moves no policy, so all
projections are up to such constants.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import scipy.linalg

from nlhfsim.errors import Array, SizeError

_ROUNDING = 2.0**-52
_TINY = 1e-300
_CANCELLED = 1e-8
"""Where a pivot of normal equations is a smaller part of its diagonal entry, one step of refinement is not enough."""
_ITERATIONS = 5000
"""Of LSMR."""


class Features(Protocol):
    """φ on a game."""

    d: int
    constant: Any
    """The columns that are constant over the actions of every context."""
    rank: int | None
    """The dimension of the class of policies, None if it is not known."""
    span: Any
    """Matrix ``(contexts * n, k)`` whose columns span φ up to constants: the coordinates for searches over the class."""

    def by_rows(self) -> tuple[Array, Any, Any]:
        """Return φ as a sparse matrix ``(contexts * n, d)`` by rows: data, indices, and where each row begins."""

    def scores(self, theta: Array) -> Array:
        """Return φθ, shape ``(..., contexts, n)``, for θ of shape ``(..., d)``."""

    def lift(self, values: Array) -> Array:
        """Return ``φ Σ_x φ_xᵀ v_x``, shape ``(contexts, n)``."""

    def project(self, policy: Array, weights: Array, values: Array) -> Array:
        """Return φw, w the minimizer of ``Σ_x ν_x Σ_y π_x(y) ((φ_x w)_y - v_x(y) - c_x)²``, ν of shape ``(contexts, 1)``."""

    def fit(self, values: Array) -> Array:
        """Return the smallest θ whose φθ is nearest to the values, all contexts and actions counted alike."""

    def coordinates(self, values: Array) -> Array:
        """Return the z for which ``span @ z`` is nearest to the values."""

    def stretch(self, weights: Array) -> float:
        """Return the largest eigenvalue of ``Σ_x ν_x φ_xᵀ(I - 11ᵀ/n)φ_x``: gradient steps are so much larger than tabular."""

    def size(self) -> float:
        """Return the root mean square of φθ, less its means, for a standard normal θ."""


class DenseFeatures:
    """φ as an array ``(contexts, n, d)``; projections are done in an orthonormal basis of its columns up to constants."""

    def __init__(self, stack: Array) -> None:
        self.contexts, self.n, self.d = stack.shape
        self._flat = np.ascontiguousarray(stack.reshape(-1, self.d))
        self._centred = (stack - stack.mean(axis=1, keepdims=True)).reshape(-1, self.d)
        scale = np.abs(self._centred).max(axis=0)
        constant = scale <= 16 * _ROUNDING * np.abs(self._flat).max(axis=0)
        self.constant = np.flatnonzero(constant)
        unit = self._centred[:, ~constant] / scale[~constant]
        left, sizes, right = np.linalg.svd(unit, full_matrices=False)
        self.rank: int | None = int((sizes > max(unit.shape) * _ROUNDING * max(sizes.max(initial=0.0), _TINY)).sum())
        self.span = np.ascontiguousarray(left[:, : self.rank])
        self._basis = self.span.reshape(self.contexts, self.n, -1)
        kept = right[: self.rank].T
        back = kept / scale[~constant, None] / sizes[: self.rank]
        if self.rank < len(right):
            # Of the θ with one φθ the smallest lies in the space that the rows of φ span.
            rows = np.linalg.qr(kept * scale[~constant, None])[0]
            back = rows @ (rows.T @ back)
        self._back = np.zeros((self.d, kept.shape[1]))
        self._back[~constant] = back

    def by_rows(self) -> tuple[Array, Any, Any]:
        """Return φ by rows, zeros included."""
        rows = len(self._flat)
        return self._flat.ravel(), np.tile(np.arange(self.d), rows), np.arange(rows + 1) * self.d

    def scores(self, theta: Array) -> Array:
        """Return φθ, shape ``(..., contexts, n)``."""
        return np.asarray(theta @ self._flat.T).reshape(*theta.shape[:-1], self.contexts, self.n)

    def lift(self, values: Array) -> Array:
        """Return ``φ Σ_x φ_xᵀ v_x``."""
        return np.asarray(self._flat @ (values.reshape(-1) @ self._flat)).reshape(values.shape)

    def fit(self, values: Array) -> Array:
        """Return the smallest θ whose φθ is nearest to the values."""
        return np.asarray(self._back @ self.coordinates(values))

    def coordinates(self, values: Array) -> Array:
        """Return the z for which ``span @ z`` is nearest to the values."""
        return np.asarray((values - values.mean(axis=-1, keepdims=True)).reshape(-1) @ self.span)

    def project(self, policy: Array, weights: Array, values: Array) -> Array:
        """Return the projection by weighted least squares, accurate however small the probabilities are."""
        best = policy.argmax(axis=-1)[:, None]
        # J(π) of the actions beside the likeliest is D^½(I - uuᵀ)D^½ with u = √π, and I - uuᵀ has the root I - uuᵀ/(1 + √π_best).
        # With features relative to those of the likeliest action no difference of nearly equal numbers is taken.
        features = self._basis - np.take_along_axis(self._basis, best[..., None], axis=1)
        target = values - np.take_along_axis(values, best, axis=1)
        share = policy / (1 + np.sqrt(np.take_along_axis(policy, best, axis=1)))
        scale = np.sqrt(weights * policy)
        np.put_along_axis(scale, best, 0.0, axis=1)
        rows = scale[..., None] * (features - share[:, None, :] @ features)
        right = scale * (target - (share * target).sum(axis=-1, keepdims=True))
        solution = least_squares(rows.reshape(-1, self.span.shape[1]), right.reshape(-1))
        return np.asarray(self.span @ solution).reshape(policy.shape)

    def stretch(self, weights: Array) -> float:
        """Return the largest eigenvalue of ``Σ_x ν_x φ_xᵀ(I - 11ᵀ/n)φ_x``."""
        rows = np.repeat(np.sqrt(weights), self.n, axis=0) * self._centred
        return float(np.linalg.norm(rows, 2) ** 2)

    def size(self) -> float:
        """Return the root mean square of φθ, less its means, for a standard normal θ."""
        return float(np.linalg.norm(self._centred) / np.sqrt(self.contexts * self.n))


class SparseFeatures:
    """φ as a sparse matrix ``(contexts * n, d)`` that is never written out; projections are done by LSMR."""

    def __init__(self, matrix: Any, contexts: int) -> None:
        self.span, self.contexts, self.n, self.d = matrix, contexts, matrix.shape[0] // contexts, matrix.shape[1]
        self.rank: int | None = None
        squares, spread = self._squares()
        self.constant = np.flatnonzero(spread <= 1e-14 * squares)

    def _squares(self) -> tuple[Array, Array]:
        """Return the squared length of every column, and that of the column less its means over actions, shape ``(d,)``."""
        import scipy.sparse

        rows = np.arange(self.contexts * self.n)
        total = scipy.sparse.csr_array((np.ones(len(rows)), (rows // self.n, rows)), shape=(self.contexts, len(rows)))
        squares, sums = (np.asarray(m.multiply(m).sum(axis=0)).ravel() for m in (self.span, total @ self.span))
        return squares, squares - sums / self.n

    def by_rows(self) -> tuple[Array, Any, Any]:
        """Return φ by rows."""
        return self.span.data, self.span.indices.astype(np.int64), self.span.indptr.astype(np.int64)

    def scores(self, theta: Array) -> Array:
        """Return φθ, shape ``(..., contexts, n)``."""
        rows = np.atleast_2d(theta)
        return np.asarray(self.span @ rows.T).T.reshape(*theta.shape[:-1], self.contexts, self.n)

    def lift(self, values: Array) -> Array:
        """Return ``φ Σ_x φ_xᵀ v_x``."""
        return np.asarray(self.span @ (self.span.T @ values.reshape(-1))).reshape(values.shape)

    def fit(self, values: Array) -> Array:
        """Return the smallest θ whose φθ is nearest to the values, as near as LSMR comes."""
        even = np.full((self.contexts, self.n), 1 / self.n)
        return self._solve(even, np.ones((self.contexts, 1)), values)[0]

    def coordinates(self, values: Array) -> Array:
        """Return θ itself."""
        return self.fit(values)

    def project(self, policy: Array, weights: Array, values: Array) -> Array:
        """Return the projection on φ by weighted least squares."""
        theta, converged = self._solve(policy, weights, values)
        if converged:
            return self.scores(theta)
        raise SizeError(
            f"the projection on {self.d} sparse features did not converge at a policy with probabilities down to "
            f"{policy.min():.1g}: give fewer features, or dense ones, or use a method that follows the gradient, such as "
            "SelfPlayPG"
        )

    def _solve(self, policy: Array, weights: Array, values: Array) -> tuple[Array, bool]:
        """Return the smallest solution of a weighted least-squares problem, and whether LSMR converged."""
        from scipy.sparse.linalg import lsmr

        if not (np.isfinite(values).all() and np.isfinite(policy).all()):
            return np.full(self.d, np.nan), True
        operator = self._operator(policy, weights)
        right = np.sqrt(weights * policy) * (values - (policy * values).sum(axis=-1, keepdims=True))
        theta, stopped, *_ = lsmr(operator, right.reshape(-1), atol=1e-14, btol=1e-14, conlim=0, maxiter=_ITERATIONS)
        return np.asarray(theta), stopped != 7

    def _operator(self, policy: Array, weights: Array) -> Any:
        """Return the matrix whose rows are ``√(ν π_y)`` times φ(y) less its mean under π."""
        from scipy.sparse.linalg import LinearOperator

        scale = np.sqrt(weights * policy)

        def forward(theta: Array) -> Array:
            scores = self.scores(theta.reshape(-1))
            return np.asarray(scale * (scores - (policy * scores).sum(axis=-1, keepdims=True))).reshape(-1)

        def backward(rows: Array) -> Array:
            scaled = scale * rows.reshape(scale.shape)
            return np.asarray(self.span.T @ (scaled - policy * scaled.sum(axis=-1, keepdims=True)).reshape(-1))

        return LinearOperator(self.span.shape, matvec=forward, rmatvec=backward, dtype=np.float64)

    def stretch(self, weights: Array) -> float:
        """Return the largest eigenvalue of ``Σ_x ν_x φ_xᵀ(I - 11ᵀ/n)φ_x``."""
        from scipy.sparse.linalg import svds

        operator = self._operator(np.full((self.contexts, self.n), 1 / self.n), weights * self.n)
        if self.d == 1:
            return float(np.linalg.norm(operator.matvec(np.ones(1))) ** 2)
        start = np.ones(min(self.span.shape))
        return float(svds(operator, 1, v0=start, return_singular_vectors=False)[0] ** 2)

    def size(self) -> float:
        """Return the root mean square of φθ, less its means, for a standard normal θ."""
        return float(np.sqrt(self._squares()[1].sum() / (self.contexts * self.n)))


def least_squares(rows: Array, right: Array) -> Array:
    """Return the w that minimizes ``|Rw - b|``, by normal equations where these are good enough, else by pivoted QR.

    The rows may differ by any factor: they are sorted by size, for which QR with pivoted columns is accurate row by row (Cox &
    Higham, 1998).
    """
    if not (np.isfinite(rows).all() and np.isfinite(right).all()):
        return np.full(rows.shape[1], np.nan)
    normal = rows.T @ rows
    try:
        factor = scipy.linalg.cho_factor(normal, check_finite=False)
    except np.linalg.LinAlgError:
        factor = None
    if factor is not None and (factor[0].diagonal() ** 2 >= _CANCELLED * normal.diagonal()).all():
        first = scipy.linalg.cho_solve(factor, right @ rows, check_finite=False)
        return np.asarray(first + scipy.linalg.cho_solve(factor, (right - rows @ first) @ rows, check_finite=False))
    order = np.argsort(-np.abs(rows).max(axis=1), kind="stable")
    return np.asarray(scipy.linalg.lstsq(rows[order], right[order], cond=_TINY, lapack_driver="gelsy", check_finite=False)[0])
