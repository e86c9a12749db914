"""The potential Φ of self-play policy gradient and what its decrease is measured in; w is the centred log-ratio to π*."""

from __future__ import annotations

import math

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._spec import Hypothesis
from nlhfsim.claims._rates import steps_up_to
from nlhfsim.errors import Array
from nlhfsim.simplex import excess

EPS = float(np.finfo(np.float64).eps)


def proven_step(case: Case) -> float:
    """Return γ₀ = β/(½ + β√(1 + L₀))², L₀ = 1/(2β) + log(1/min ρ)."""
    largest = 1 / (2 * case.beta) - float(case.log_reference.min())
    return case.beta / (0.5 + case.beta * math.sqrt(1 + largest)) ** 2


def up_to_proven_step() -> Hypothesis:
    """Return the hypothesis γ ≤ γ₀, enforced by lowering the step size."""
    return steps_up_to("γ ≤ γ₀ = β/(½ + β√(1+L₀))², L₀ = 1/(2β) + log(1/min ρ)", proven_step)


def left_over(case: Case, step_size: float) -> float:
    """Return c = 1 - (e-2)γ/γ₀, the share of the first-order decrease that the second order leaves."""
    return 1 - (math.e - 2) * step_size / proven_step(case)


def centred(log_ratio: Array) -> Array:
    """Return w = log π/π* without its mean, shape ``(..., n)``."""
    return np.asarray(log_ratio - log_ratio.mean(axis=-1, keepdims=True))


def level(w: Array) -> Array:
    """Return ℓ = log(Σe^(-w)/n) of centred w ``(..., n)``, to relative accuracy also where it is small."""
    deepest = -w.min(axis=-1)
    direct = deepest + np.log(np.mean(np.exp(-w - deepest[..., None]), axis=-1))
    return np.asarray(np.where(np.abs(w).max(axis=-1) < 1, np.log1p(np.mean(excess(w), axis=-1)), direct))


def shares(w: Array) -> Array:
    """Return each action's share of Σe^(-w), shape ``(n,)``."""
    terms = np.exp(w.min() - w)
    return np.asarray(terms / terms.sum())


def symmetric_divergence(pi: Array, log_pi: Array, q: Array, log_q: Array) -> float:
    """Return D = Σ(π - q) log(π/q) = KL(π‖q) + KL(q‖π)."""
    return float(np.sum((pi - q) * (log_pi - log_q)))


def divergence_error(case: Case) -> float:
    """Return what D between π and π* may be off by: the error of log π*, and rounding of its terms."""
    pi, q, log_ratio = case.policy, case.equilibrium, np.abs(case.log_policy - case.log_equilibrium)
    of_target = largest_error(case) * float(np.sum(q * log_ratio + np.abs(pi - q)))
    return of_target + 4 * EPS * float(np.sum((pi + q) * log_ratio))


def largest_error(case: Case) -> float:
    """Return how far an entry of log π* is off: δ = residual + A J δ/β, and |AJδ| is at most half the standard deviation of δ."""
    return case.log_error * (1 + 1 / (2 * case.beta))
