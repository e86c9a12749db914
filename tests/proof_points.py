"""Thousands of games and policies for the checks of `docs/proofs`, written from definitions, without the package.

A game is drawn by its equilibrium q: for skew A and β > 0 the reference ρ ∝ q exp(-Aq/β) is the only one that has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Maker = Callable[[np.random.Generator, int, int], Floats]


class Points(NamedTuple):
    """Games (rows) of one size, each with one policy: A ``(k, n, n)``, β ``(k, 1)``, log q, log ρ and centred w ``(k, n)``."""

    advantages: Floats
    beta: Floats
    log_q: Floats
    log_rho: Floats
    w: Floats


def skew(upper: Floats) -> Floats:
    """The skew matrices with these entries above the diagonal."""
    cut = np.triu(upper, 1)
    return np.asarray(cut - np.swapaxes(cut, -1, -2))


def uniform(rng: np.random.Generator, k: int, n: int) -> Floats:
    return skew(rng.uniform(-0.5, 0.5, (k, n, n)))


def certain(rng: np.random.Generator, k: int, n: int) -> Floats:
    return skew(rng.choice([-0.5, 0.5], (k, n, n)))


def near_ties(rng: np.random.Generator, k: int, n: int) -> Floats:
    return skew(1e-3 * rng.uniform(-0.5, 0.5, (k, n, n)))


def low_rank(rng: np.random.Generator, k: int, n: int) -> Floats:
    first, second = rng.standard_normal((2, k, n, 1))
    product = first * np.swapaxes(second, 1, 2)
    product = product - np.swapaxes(product, 1, 2)
    return np.asarray(0.5 * product / (np.abs(product).max(axis=(1, 2), keepdims=True) + 1e-300))


def cyclic(rng: np.random.Generator, k: int, n: int) -> Floats:
    """Each action beats the next (n-1)//2 around a circle, by ½."""
    ahead = (np.arange(n)[None, :] - np.arange(n)[:, None]) % n
    one = np.where((ahead > 0) & (ahead <= (n - 1) // 2), 0.5, 0.0)
    return np.broadcast_to(one - one.T, (k, n, n)).copy()


def three_cycle(rng: np.random.Generator, k: int, n: int) -> Floats:
    """Certain votes around the first three actions; the others tie with everything."""
    found = np.zeros((k, n, n))
    if n >= 3:
        found[:, :3, :3] = cyclic(rng, k, 3)
    return found


MAKERS: tuple[Maker, ...] = (uniform, certain, near_ties, low_rank, cyclic, three_cycle)


def log_normalized(logits: Floats) -> Floats:
    """Logits less their log-sum-exp."""
    return np.asarray(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))


def centred(w: Floats) -> Floats:
    return np.asarray(w - w.mean(axis=-1, keepdims=True))


def _spread(rng: np.random.Generator, k: int, n: int, low: float, high: float) -> Floats:
    """Gaussian rows whose scales run from 10^low to 10^high."""
    return np.asarray(rng.standard_normal((k, n)) * 10 ** rng.uniform(low, high, (k, 1)))


def policies(rng: np.random.Generator, log_q: Floats) -> Floats:
    """Centred log-ratios to q: Gaussian of any size, one action far up or down, policies that know nothing of q, up to ±30."""
    k, n = log_q.shape
    kinds = rng.integers(0, 4, (k, 1))
    rows, chosen = np.arange(k), rng.integers(0, n, k)
    lone = np.zeros((k, n))
    lone[rows, chosen] = rng.choice([-1.0, 1.0], k) * 10 ** rng.uniform(-1.5, 1.4, k)
    split = lone.copy()
    split[rows, (chosen + 1) % n] -= np.log(2)
    away = _spread(rng, k, n, -0.5, 1) - log_q
    w = np.select([kinds == 0, kinds == 1, kinds == 2], [_spread(rng, k, n, -2, 1.3), lone, split], away)
    return np.clip(centred(w), -30, 30)


def game_of(advantages: Floats, beta: Floats, log_q: Floats) -> Floats:
    """The log reference whose equilibrium is q."""
    return log_normalized(log_q - np.einsum("kij,kj->ki", advantages, np.exp(log_q)) / beta)


def draw(seed: int, sizes: tuple[int, ...] = (2, 3, 4, 6, 9), k: int = 500) -> list[Points]:
    """`k` points of every size and every kind of game; β from 10⁻³ to 10, equilibria from uniform to peaked."""
    rng = np.random.default_rng(seed)
    found = []
    for n in sizes:
        advantages = np.concatenate([make(rng, k, n) for make in MAKERS])
        rows = len(advantages)
        beta = 10 ** rng.uniform(-3, 1, (rows, 1))
        log_q = log_normalized(_spread(rng, rows, n, -2, 0.9))
        log_rho = game_of(advantages, beta, log_q)
        w = centred(policies(rng, log_q))
        found.append(Points(advantages, beta, log_q, log_rho, w))
    return found


class Values:
    """Everything that the pages name, at points: q, π, r, a, u, v, D, KL, TV, Z′, Φ̄, R, E, L, L₀, S, ℓ."""

    def __init__(self, points: Points) -> None:
        self.points, self.beta, self.w = points, points.beta[:, 0], points.w
        self.n = points.w.shape[1]
        self.q, self.rho = np.exp(points.log_q), np.exp(points.log_rho)
        self.z = (self.q * np.exp(self.w)).sum(-1)
        shift = np.where(np.abs(self.w).max(-1) < 0.5, np.log1p((self.q * np.expm1(self.w)).sum(-1)), np.log(self.z))
        self.r = self.w - shift[:, None]
        self.pi = self.q * np.exp(self.r)
        self.d = self.q * np.expm1(self.r)
        self.a = np.einsum("kij,kj->ki", points.advantages, self.d)
        self.u = self.a - points.beta * self.r
        self.v = self.u - (self.pi * self.u).sum(-1, keepdims=True)
        self.jeffreys = (self.d * self.r).sum(-1)
        self.kl = (self.q * kernel(self.r)).sum(-1)
        self.tv = 0.5 * np.abs(self.d).sum(-1)
        self.phi = np.exp(-self.w).sum(-1)
        self.ratio = np.exp(-self.r).sum(-1)
        self.largest = np.exp(-self.r).max(-1)
        self.smallest_q = self.q.min(-1)
        self.log_inverse = -points.log_q.min(-1)
        self.level_0 = 0.5 / self.beta - points.log_rho.min(-1)
        self.level = np.log1p((np.expm1(-self.w) + self.w).sum(-1) / self.n)
        self.slope = 0.5 + self.beta * np.sqrt(1 + self.log_inverse)
        self.gamma_0 = self.beta / (0.5 + self.beta * np.sqrt(1 + self.level_0)) ** 2
        self.gamma_1 = np.minimum(4 * self.beta, 1 / self.beta)

    def variance(self, x: Floats) -> Floats:
        """Variance under π."""
        mean = (self.pi * x).sum(-1, keepdims=True)
        return np.asarray((self.pi * (x - mean) ** 2).sum(-1))

    def change(self, gamma: Floats) -> Floats:
        """Z′(Φ̄⁺ - Φ̄) after the step γ, relatively accurate."""
        return np.asarray((np.exp(-self.r) * np.expm1(-gamma[:, None] * self.pi * self.v)).sum(-1))

    def scale(self, gamma: Floats) -> Floats:
        """The size of the terms that `change` adds up, hence of its rounding errors."""
        return np.asarray((np.exp(-self.r) * np.abs(np.expm1(-gamma[:, None] * self.pi * self.v))).sum(-1))


def kernel(r: Floats) -> Floats:
    """r eʳ - eʳ + 1, by its series where it would cancel."""
    series = r**2 * (1 / 2 + r * (1 / 3 + r * (1 / 8 + r * (1 / 30 + r / 144))))
    return np.where(np.abs(r) < 1e-2, series, r * np.exp(r) - np.expm1(r))


def excess(x: Floats) -> Floats:
    """e⁻ˣ - 1 + x, by its series where it would cancel."""
    series = x**2 * (1 / 2 + x * (-1 / 6 + x * (1 / 24 + x * (-1 / 120 + x / 720))))
    return np.where(np.abs(x) < 1e-2, series, np.expm1(-x) + x)
