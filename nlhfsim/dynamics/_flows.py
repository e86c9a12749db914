"""The two fields that most methods follow as their step γ goes to 0, where k steps take the time t = γk.

With u = Aπ - β(θ - log ρ) and J(π) = diag(π) - ππᵀ: mirror steps become dθ/dt = u, gradient steps dθ/dt = J(π)u. A method's file
says in one line how its step, (θ⁺ - θ)/γ at γ → 0, leads there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import expect, log_softmax


def natural_gradient(context: Context, params: Any, logits: Array) -> Array:
    """Return ``u - ⟨π, u⟩``, shape ``(..., n)``: the KL-regularized replicator, π̇ = π∘(u - ⟨π, u⟩).

    Constants do not move π; this one keeps θ = log π normalized, as d log Σe^θ/dt = ⟨π, dθ/dt⟩ = 0.
    """
    policy = np.exp(log_softmax(logits))
    slope = advantage(context.payoff, policy) - context.beta * (logits - context.log_reference)
    return np.asarray(slope - expect(policy, slope))


def policy_gradient(context: Context, params: Any, logits: Array) -> Array:
    """Return ``J(π)u = π∘(u - ⟨π, u⟩)``, shape ``(..., n)``; its entries add up to 0, so Σθ is conserved."""
    return np.exp(log_softmax(logits)) * natural_gradient(context, params, logits)
