"""`docs/proofs/critical-step.md`: the spectrum of self-play policy gradient, its bounds, and the games that attain them."""

from __future__ import annotations

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim.stability import self_play_spectrum
from proof_points import Floats, Maker, certain, cyclic, draw, game_of, log_normalized

THREE = 12.240526324069274
"""min over ε of 2(1 + log 1/ε)/(3ε(1 - 2ε))."""


def basis(n: int) -> Floats:
    """Orthonormal columns that span the vectors with sum zero, ``(n, n - 1)``."""
    return np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, : n - 1]]))[0][:, 1:]


def modes(advantages: Floats, q: Floats, beta: float) -> tuple[Floats, Floats]:
    """j = v*Jv and k = |v*JAJv| of every unit eigenvector v of J(AJ - βI) on the vectors with sum zero."""
    spread = np.diag(q) - np.outer(q, q)
    inside = basis(len(q))
    values, vectors = np.linalg.eig(inside.T @ (spread @ advantages @ spread - beta * spread) @ inside)
    v = inside @ vectors
    j = np.einsum("im,ij,jm->m", v.conj(), spread, v).real
    k = np.abs(np.einsum("im,ij,jm->m", v.conj(), spread @ advantages @ spread, v))
    assert np.allclose(values.real, -beta * j, atol=1e-12 * (1 + beta)) and np.allclose(np.abs(values.imag), k, atol=1e-8)
    return j, k


def ratio(advantages: Floats, q: Floats, beta: float) -> tuple[float, float]:
    """γ_c/γ₀ and γ_c/min(4β, 1/β)."""
    j, k = modes(advantages, q, beta)
    critical = float((2 * beta * j / (k**2 + beta**2 * j**2)).min())
    log_rho = game_of(advantages[None], np.array([[beta]]), np.log(q)[None])[0]
    gamma_0 = beta / (0.5 + beta * np.sqrt(1 + 0.5 / beta - log_rho.min())) ** 2
    return critical / gamma_0, critical / min(4 * beta, 1 / beta)


def polygon(n: int) -> float:
    """κ_n = cot(π/2n)/(2n), the largest ω with n actions."""
    return float(1 / (2 * n * np.tan(np.pi / (2 * n))))


def sampled() -> list[tuple[Floats, Floats, float]]:
    """Games of 2 to 9 actions with their equilibria, β from 10⁻³ to 10."""
    return [
        (points.advantages[i], np.exp(points.log_q[i]), float(points.beta[i, 0]))
        for points in draw(7, (2, 3, 4, 6, 9), 60)
        for i in range(len(points.beta))
        if points.log_q[i].min() > -12
    ]


def test_bounds_of_every_mode() -> None:
    """k ≤ κ_n j, j ≤ ½, 4k² ≤ j(½ - j), for three actions on k² ≤ j/(3π²); γ_c/γ₀ above 4(1 + log 2), above 12.24 from n = 3."""
    smallest = {True: np.inf, False: np.inf}
    for advantages, q, beta in sampled():
        n = len(q)
        j, k = modes(advantages, q, beta)
        assert (k <= polygon(n) * j + 1e-9).all() and (j <= 0.5 + 1e-12).all()
        assert (4 * k**2 <= j * (0.5 - j) + 1e-9).all() and (k**2 <= j / (3 * np.pi**2) + 1e-9).all()
        first, second = ratio(advantages, q, beta)
        assert first > (4 * (1 + np.log(2)) if n == 2 else THREE) and second >= 4 - 1e-9
        smallest[n == 2] = min(smallest[n == 2], first)
    assert smallest[True] < 8 and smallest[False] < 15


@pytest.mark.parametrize("n", [3, 5, 9, 21])
def test_cyclic_tournaments_attain_the_spectral_bound(n: int) -> None:
    """ω = cot(π/2n)/(2n), which rises to 1/π; a bound 1 % below fails."""
    advantages = cyclic(np.random.default_rng(0), 1, n)[0]
    even = np.full(n, 1 / n)
    omega = np.abs(np.linalg.eigvals(advantages @ (np.diag(even) - np.outer(even, even)))).max()
    assert omega == pytest.approx(polygon(n), rel=1e-9) and omega < 1 / np.pi
    assert n < 21 or omega > 0.99 / np.pi


def test_six_actions_attain_the_spectral_bound_and_four_do_not() -> None:
    """Directions of a regular 2n-gon with sum zero exist unless n is a power of two."""
    angles = np.exp(1j * np.pi * np.arange(6) / 6) * np.array([1, 1, -1, -1, 1, 1])
    assert abs(angles.sum()) < 1e-12
    cross = np.imag(np.conj(angles)[:, None] * angles[None, :])
    advantages = 0.5 * np.sign(np.where(np.abs(cross) < 1e-12, 0, cross))
    even = np.full(6, 1 / 6)
    omega = np.abs(np.linalg.eigvals(advantages @ (np.diag(even) - np.outer(even, even)))).max()
    assert omega == pytest.approx(polygon(6), rel=1e-9)
    rng, best = np.random.default_rng(0), 0.0
    for advantages in certain(rng, 200, 4):
        for q in rng.dirichlet(np.full(4, 5.0), 20):
            best = max(best, np.abs(np.linalg.eigvals(advantages @ (np.diag(q) - np.outer(q, q)))).max())
    assert 0.27 < best < 0.995 * polygon(4)


def test_top_two_eigenvalues_of_the_covariance() -> None:
    """λ₁ + λ₂ ≤ 2/3, attained by three equal actions; with 1/2 it fails."""
    rng, sums = np.random.default_rng(2), []
    for n in (3, 4, 7):
        for q in np.concatenate([rng.dirichlet(np.full(n, size), 300) for size in (0.3, 1, 20)]):
            sums.append(np.linalg.eigvalsh(np.diag(q) - np.outer(q, q))[-2:].sum())
    assert 0.66 < max(sums) <= 2 / 3 + 1e-12


def test_best_constants() -> None:
    """Without preferences and β → ∞ the quotients come to 4(1 + log 2) and 12.24; γ_c = 4 min(4β, 1/β) at n = 2, β = ½."""
    even, none = np.array([0.5, 0.5]), np.zeros((2, 2))
    assert ratio(none, even, 1e4)[0] == pytest.approx(4 * (1 + np.log(2)), rel=1e-3)
    assert ratio(none, even, 0.5)[1] == pytest.approx(4)
    eps = 0.2959999181872229
    q = np.array([eps, eps, 1 - 2 * eps])
    assert ratio(np.zeros((3, 3)), q, 1e5)[0] == pytest.approx(THREE, rel=1e-3)
    grid = np.linspace(0.25, 1 / 3, 100_001)
    assert (2 * (1 + np.log(1 / grid)) / (3 * grid * (1 - 2 * grid))).min() == pytest.approx(THREE, rel=1e-9)


def test_largest_eigenvalue_for_given_smallest_probability() -> None:
    """λmax(J) for three actions: (1 - ε)/2 up to ε = ¼ and 3ε(1 - 2ε) above; for four and more the trace bounds it."""
    rng = np.random.default_rng(5)
    for q in rng.dirichlet(np.ones(3), 2000):
        eps, top = q.min(), np.linalg.eigvalsh(np.diag(q) - np.outer(q, q))[-1]
        assert top <= ((1 - eps) / 2 if eps <= 0.25 else 3 * eps * (1 - 2 * eps)) + 1e-12
    for n in (4, 5, 6, 7, 12):
        for q in rng.dirichlet(np.full(n, 8.0), 500):
            eps, values = q.min(), np.linalg.eigvalsh(np.diag(q) - np.outer(q, q))
            assert values[-1] <= 1 - eps**2 - (1 - eps) ** 2 / (n - 1) - (n - 2) * eps + 1e-12
            assert values[1] >= eps - 1e-12 and 2 * (1 - np.log(eps)) / values[-1] > THREE


def test_natural_gradient_threshold() -> None:
    """2β/(β² + ω²) ≥ 2β/(β² + π⁻²) on every game."""
    for advantages, q, beta in sampled()[::7]:
        omega = np.abs(np.linalg.eigvals(advantages @ (np.diag(q) - np.outer(q, q)))).max()
        assert 2 * beta / (beta**2 + omega**2) > 2 * beta / (beta**2 + np.pi**-2)


@pytest.mark.parametrize(("make", "n"), [(cyclic, 5), (certain, 6)])
def test_package_agrees(make: Maker, n: int) -> None:
    """`self_play_spectrum` finds min 2βj/(k² + β²j²)."""
    advantages = make(np.random.default_rng(3), 1, n)[0]
    log_q = log_normalized(np.random.default_rng(4).standard_normal((1, n)))
    rho = np.exp(game_of(advantages[None], np.array([[0.3]]), log_q)[0])
    j, k = modes(advantages, np.exp(log_q[0]), 0.3)
    game = nl.PreferenceGame(advantages + 0.5, 0.3, rho)
    found = self_play_spectrum(game, nl.solve(game)).critical_step
    assert found == pytest.approx(float((0.6 * j / (k**2 + 0.09 * j**2)).min()), rel=1e-6)
