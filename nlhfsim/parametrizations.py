"""How a policy depends on its parameters: a logit for each context and action, or log-linear in features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nlhfsim.errors import InputError, ensure_array, position
from nlhfsim.games.payoffs import frozen_array

_SMALLEST, _LARGEST = 1e-150, 1e154


@dataclass(frozen=True)
class Tabular:
    """One parameter for each context and action, π = softmax(θ); contexts do not see each other.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> nl.simulate(game, "NashMirrorProx", 3, start="random", parametrization=nl.Tabular()).parameters.shape
    (1, 3)
    """


@dataclass(frozen=True, eq=False)
class LogLinear:
    """Policies ``π_θ(y|x) ∝ ρ(y|x) exp(φ(x, y)ᵀθ)`` with one θ of shape ``(d,)`` for all contexts.

    Parameters
    ----------
    features : array_like or scipy.sparse array
        φ of shape ``(n, d)``, the same in every context, or ``(contexts, n, d)``; sparse of shape ``(contexts * n, d)``, whose
        row ``x * n + y`` is φ(x, y). They may be linearly dependent. Kept as a copy that cannot be written to.

    Raises
    ------
    InputError
        If it is not an array of finite numbers of such a shape; that it fits the game is checked when it is used.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.random_game(5, 0, beta=0.5)
    >>> line = nl.LogLinear([[0.0], [1.0], [2.0], [3.0], [4.0]])
    >>> run = nl.simulate(game, nl.dynamics.NaturalPG(0.5), 200, parametrization=line)
    >>> run.parameters.shape, bool(run.kl[0, -1] > run.attainable.kl > 0)
    ((1, 1), True)
    """

    features: Any

    def __post_init__(self) -> None:
        """Check the features and freeze them."""
        object.__setattr__(self, "features", _sparse(self.features) if is_sparse(self.features) else _dense(self.features))

    def __repr__(self) -> str:
        kind = "sparse features" if is_sparse(self.features) else "features"
        return f"LogLinear({kind} of shape {self.features.shape})"


Parametrization = Tabular | LogLinear


def is_sparse(features: Any) -> bool:
    """Return whether features are a matrix or array of `scipy.sparse`."""
    return hasattr(features, "tocsr")


def _dense(features: Any) -> Any:
    array = ensure_array("features", features)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"features has shape {array.shape}, must be (n, d) or (contexts, n, d), none of them 0")
    _ensure_scale(array)
    return frozen_array(array)


def _ensure_scale(values: Any) -> None:
    """Refuse features whose squares overflow or vanish."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest != 0 and not _SMALLEST <= largest <= _LARGEST:
        raise InputError(
            f"features have a largest entry of {largest:g}, must lie between {_SMALLEST:g} and {_LARGEST:g}: scale them"
        )


def _sparse(features: Any) -> Any:
    if features.ndim != 2 or 0 in features.shape or np.issubdtype(features.dtype, np.complexfloating):
        raise InputError(
            f"sparse features have shape {features.shape} and type {features.dtype}, must be real, (contexts * n, d)"
        )
    matrix = features.tocsr().astype(np.float64, copy=True)
    matrix.sum_duplicates()
    bad = np.flatnonzero(~np.isfinite(matrix.data))
    if len(bad):
        row = int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
        where = (row, int(matrix.indices[bad[0]]))
        raise InputError(f"features{position(where)} = {matrix.data[bad[0]]} must be finite")
    _ensure_scale(matrix.data)
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.setflags(write=False)
    return matrix
