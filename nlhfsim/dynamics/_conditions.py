"""Optimality conditions from the definitions, for the characterisation of a method's step.

Nothing here is shared with the steps: policies are taken to probability space, mixtures are powers, gradients of the payoff
come from a complex step on the payoff itself.
"""

from __future__ import annotations

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, dense


def probabilities(logits: Array) -> Array:
    """Return softmax(logits) of one policy."""
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def gains(context: Context, policy: Array) -> Array:
    """Return Aμ from the matrix: gains[y] = Σ_y' A[y, y'] μ[y']."""
    return np.asarray(np.einsum("ij,j->i", dense(context.payoff), policy))


def stationarity(linear: Array, new: Array, *pulls: tuple[float, Array]) -> float:
    """Return how far q = `new` is from maximizing ``⟨linear, q⟩ - Σ_k w_k KL(q‖p_k)`` over the simplex.

    At the maximum ``linear - Σ_k w_k (log q - log p_k)`` is the same for all actions; the result is its span, in units of the
    total weight.
    """
    log_new = np.log(new)
    slope = linear - sum(weight * (log_new - np.log(centre)) for weight, centre in pulls)
    return float((slope.max() - slope.min()) / sum(weight for weight, _ in pulls))


def power_mean(*parts: tuple[float, Array]) -> Array:
    """Return the normalized product of ``p_k ** w_k``."""
    product = np.exp(sum(weight * np.log(part) for weight, part in parts))
    return np.asarray(product / product.sum())


def payoff_gradient(context: Context, logits: Array, centre: Array | None = None, pull: float = 0.0) -> Array:
    """Return the gradient in θ of ``π_θᵀAμ - β KL(π_θ‖ρ) - pull KL(π_θ‖softmax(centre))`` at μ = π_θ held fixed.

    By a complex step on the definition, accurate to rounding.
    """
    opponent_gains = gains(context, probabilities(logits))
    size = 1e-30
    shifted = (logits - logits.max()) + 1j * size * np.eye(len(logits))
    powers = np.exp(shifted)
    policy = powers / powers.sum(axis=1, keepdims=True)
    log_policy = shifted - np.log(powers.sum(axis=1, keepdims=True))
    value = policy @ opponent_gains - context.beta * np.sum(policy * (log_policy - context.log_reference), axis=1)
    if centre is not None:
        value = value - pull * np.sum(policy * (log_policy - np.log(probabilities(centre))), axis=1)
    return np.asarray(value.imag / size)
