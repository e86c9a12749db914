"""The stochastic lines of `docs/proofs/self-play-pg-converges.md`: expectations over actions and votes, computed exactly."""

from __future__ import annotations

import numpy as np

from proof_points import Floats, Values

FOUR = 4 / np.e**2
"""max of s² e⁻ˢ."""
VOTES = (0.5, -0.5)


def log_ratio(x: Values) -> Floats:
    """log(π/ρ)."""
    return np.asarray(x.points.log_q + x.r - x.points.log_rho)


def one_vote_bound(x: Values, gamma: Floats) -> Floats:
    """C of the one-vote theorem."""
    beta, level = x.beta, x.log_inverse
    return np.asarray(0.5 * np.exp(gamma * (1.5 + beta * level)) * (13.5 + 4 * beta**2 * level**2 + 4 * FOUR * beta**2))


def pair_bound(x: Values, gamma: Floats) -> Floats:
    """C of the theorem on pairs."""
    beta, level = x.beta, x.log_inverse
    return np.asarray(2.25 * np.exp(gamma * (0.75 + beta * level / 2)) * (1.5 + beta**2 * level**2 + FOUR * beta**2))


def chances(x: Values, vote: float) -> Floats:
    """Probability of a vote for y, over y' ~ π, ``(k, n)``."""
    return np.asarray(0.5 + np.sign(vote) * np.einsum("kij,kj->ki", x.points.advantages, x.pi))


def expected_excess(x: Values, gamma: Floats) -> Floats:
    """Z′ E(Φ̄⁺ - Φ̄ - Φ̄'Δ) after one vote on an action of π: Σ over the action drawn, the logit moved, and the vote."""
    total = np.zeros(len(x.beta))
    eye = np.eye(x.n)[None]
    for vote in VOTES:
        payoff = vote - x.beta[:, None] * log_ratio(x)
        move = gamma[:, None, None] * (eye - x.pi[:, None, :]) * payoff[:, :, None]
        terms = np.exp(-x.r)[:, None, :] * (np.expm1(-move) + move)
        total += (x.pi * chances(x, vote) * terms.sum(-1)).sum(-1)
    return total


def expected_slope(x: Values, gamma: Floats) -> Floats:
    """Z′ times the first-order part of the same expectation; it must be -γβD."""
    total = np.zeros(len(x.beta))
    eye = np.eye(x.n)[None]
    for vote in VOTES:
        payoff = vote - x.beta[:, None] * log_ratio(x)
        move = gamma[:, None, None] * (eye - x.pi[:, None, :]) * payoff[:, :, None]
        total -= (x.pi * chances(x, vote) * (np.exp(-x.r)[:, None, :] * move).sum(-1)).sum(-1)
    return total


def expected_pair_excess(x: Values, gamma: Floats) -> Floats:
    """The same for one vote on a pair of π, the update ½ γ (X - β h)(e_y - e_y')."""
    h = log_ratio(x)[:, :, None] - log_ratio(x)[:, None, :]
    pairs = x.pi[:, :, None] * x.pi[:, None, :] * (1 - np.eye(x.n))[None]
    total = np.zeros(len(x.beta))
    for vote in VOTES:
        move = 0.5 * gamma[:, None, None] * (vote - x.beta[:, None, None] * h)
        chance = 0.5 + np.sign(vote) * x.points.advantages
        own = np.exp(-x.r)[:, :, None] * (np.expm1(-move) + move)
        other = np.exp(-x.r)[:, None, :] * (np.expm1(move) - move)
        total += (pairs * chance * (own + other)).sum((-1, -2))
    return total


def expected_pair_slope(x: Values, gamma: Floats) -> Floats:
    """Z′ times its first-order part; it must be -γβD."""
    h = log_ratio(x)[:, :, None] - log_ratio(x)[:, None, :]
    pairs = x.pi[:, :, None] * x.pi[:, None, :]
    total = np.zeros(len(x.beta))
    for vote in VOTES:
        move = 0.5 * gamma[:, None, None] * (vote - x.beta[:, None, None] * h)
        chance = 0.5 + np.sign(vote) * x.points.advantages
        total -= (pairs * chance * move * (np.exp(-x.r)[:, :, None] - np.exp(-x.r)[:, None, :])).sum((-1, -2))
    return total


def offset_of_payoff(x: Values) -> tuple[Floats, Floats]:
    """The smallest and the largest value of û + βr_y over votes and actions."""
    rest = -x.beta[:, None] * (x.points.log_q - x.points.log_rho)
    return np.asarray(rest.min(-1) - 0.5), np.asarray(rest.max(-1) + 0.5)


def noisy_change(x: Values, gamma: Floats, noise: Floats) -> Floats:
    """Z′ E(Φ̄⁺ - Φ̄) when u is u + noise or u - noise with equal chances."""
    total = np.zeros(len(x.beta))
    for sign in (1, -1):
        u = x.u + sign * noise
        v = u - (x.pi * u).sum(-1, keepdims=True)
        total += 0.5 * (np.exp(-x.r) * np.expm1(-gamma[:, None] * x.pi * v)).sum(-1)
    return total
