"""How far rounding, and an equilibrium known to so many digits, carry into what claims measure."""

from __future__ import annotations

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._spec import Measured
from nlhfsim.errors import Array
from nlhfsim.simplex import kl_log

EPS = float(np.finfo(np.float64).eps)


def deviation_error(case: Case) -> float:
    """Return how far log π* is off in standard deviations under π*: the case's `log_error`, and rounding of Aπ*/β in it."""
    return case.log_error + 2 * EPS / case.beta


def span_error(case: Case) -> float:
    """Return how far log π* is off in span.

    The error δ of log π* solves δ = r + AJδ/β, r the residual, and AJδ spans at most the mean absolute deviation of δ under π*,
    so at most its standard deviation.
    """
    return deviation_error(case) * (1 + 0.5 / case.beta)


def kl_from_equilibrium(case: Case, log_policy: Array) -> Measured:
    """Return KL(μ‖π*) of a log-policy ``(n,)``, with what it may be off by.

    If log π* is off by δ then KL is off by ⟨μ - π*, δ⟩ ≤ ½ ‖μ - π*‖₁ ‖δ‖_sp.
    """
    policy = np.exp(log_policy)
    distance = 0.5 * float(np.abs(policy - case.equilibrium).sum())
    rounding = 4 * EPS * float(np.sum(policy * (1 + np.abs(log_policy) + np.abs(case.log_equilibrium))))
    return Measured(float(kl_log(log_policy, case.log_equilibrium)), distance * span_error(case) + rounding)
