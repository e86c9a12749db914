"""Solvers of one context of a game, one file each. What an `Answer` is worth is for `nlhfsim.equilibrium` to say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nlhfsim.errors import Array

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Answer:
    """What a solver says about one context.

    Attributes
    ----------
    log_policy : numpy.ndarray
        Shape ``(n,)``, log space.
    method, words : str
        The solver's name, and its own words on how it went.
    face_dimension : int or None
        Dimension of the set of equilibria; None where it is not known.
    unique : bool or None
        Whether the equilibrium is the only one. Default: whether the dimension is 0.
    """

    log_policy: Array
    method: str
    words: str
    face_dimension: int | None = 0
    unique: bool | None = None

    def __post_init__(self) -> None:
        """Let a known dimension say whether the equilibrium is unique."""
        if self.face_dimension is not None:
            object.__setattr__(self, "unique", self.face_dimension == 0)


def tolerance(beta: float) -> float:
    """Return the log-ratio residual up to which an equilibrium at β > 0 counts as certified: max(1e-12, 8 eps/β), at most 1e-6.

    Below β = 2e-9 rounding alone exceeds the cap, so nothing is certified there.
    """
    return min(max(1e-12, 8 * _EPS / beta), 1e-6)
