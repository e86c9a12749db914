"""The identities and inequalities of `docs/proofs/derived-claims.md`, from definitions, on games drawn by their equilibrium."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest

from proof_points import Floats, Points, cyclic, draw, log_normalized


@cache
def points() -> tuple[Points, ...]:
    """Games and policies; log-ratios to the equilibrium up to 8, so that identities are seen above rounding."""
    return tuple(one._replace(w=np.clip(one.w, -8, 8)) for one in draw(1, (2, 3, 5), 200))


def policy(one: Points) -> Floats:
    return log_normalized(one.log_q + one.w)


def pull(one: Points, log_policy: Floats) -> Floats:
    """Aπ."""
    return np.asarray(np.einsum("kij,kj->ki", one.advantages, np.exp(log_policy)))


def kl(first: Floats, second: Floats) -> Floats:
    return np.asarray((np.exp(first) * (first - second)).sum(-1))


def tv(first: Floats, second: Floats) -> Floats:
    return np.asarray(0.5 * np.abs(np.exp(first) - np.exp(second)).sum(-1))


def prox(one: Points, gamma: Floats, log_policy: Floats, payoff: Floats) -> Floats:
    """argmax ⟨payoff, z⟩ - β KL(z‖ρ) - KL(z‖π)/γ."""
    weight = 1 + gamma * one.beta
    return log_normalized((log_policy + gamma * one.beta * one.log_rho + gamma * payoff) / weight)


def exploitability(one: Points, log_policy: Floats) -> Floats:
    gain = np.logaddexp.reduce(one.log_rho + pull(one, log_policy) / one.beta, axis=-1)
    return np.asarray(one.beta[:, 0] * (gain + kl(log_policy, one.log_rho)))


def mirror_prox(one: Points, gamma: Floats, start: Floats) -> tuple[Floats, Floats]:
    ahead = prox(one, gamma, start, pull(one, start))
    return ahead, prox(one, gamma, start, pull(one, ahead))


def test_identities_of_the_gap() -> None:
    """E_β = β KL(μ‖BR(μ)), the advantage of π* is β KL(μ‖π*), and the sandwich with β + 1/(4β)."""
    for one in points():
        beta, mu = one.beta[:, 0], policy(one)
        answer = log_normalized(one.log_rho + pull(one, mu) / one.beta)
        size = 1 + 1e3 * beta * np.abs(one.log_rho).max(-1)
        gap = exploitability(one, mu)
        assert (np.abs(gap - beta * kl(mu, answer)) < 1e-14 * size).all()
        game_value = (np.exp(one.log_q) * pull(one, mu)).sum(-1) + beta * (kl(mu, one.log_rho) - kl(one.log_q, one.log_rho))
        assert (np.abs(game_value - beta * kl(mu, one.log_q)) < 1e-14 * size).all()
        far = kl(mu, one.log_q)
        assert (beta * far <= gap + 1e-14 * size).all() and (gap <= (beta + 1 / (4 * beta)) * far + 1e-14 * size).all()


def excess_of_gap(advantages: Floats, q: Floats, mu: Floats, beta: float) -> float:
    """(E_β(μ) - β KL(μ‖π*)) β / KL(μ‖π*); the claim says at most ¼."""
    shifted = advantages @ (mu - q) / beta
    return float(beta**2 * np.log(q @ np.exp(shifted - q @ shifted)) / (mu @ np.log(mu / q)))


def test_quarter_in_the_sandwich_is_not_sharp() -> None:
    """Near π* the constant is ω² < 1/π², as a cyclic tournament has it; further away at least 0.097, with three actions."""
    n = 9
    turn = 2 * np.pi * np.arange(n) / n
    mu = np.exp(1e-3 * np.cos(turn))
    near = excess_of_gap(cyclic(np.random.default_rng(0), 1, n)[0], np.full(n, 1 / n), mu / mu.sum(), 0.5)
    assert near == pytest.approx((1 / (2 * n * np.tan(np.pi / (2 * n)))) ** 2, rel=1e-3) and near < 1 / np.pi**2
    log_q = np.array([-0.29, -0.29, 0.39])
    q, mu = np.exp(log_q), np.exp(log_q + [-0.36, 1.27, -0.9])
    far = excess_of_gap(cyclic(np.random.default_rng(0), 1, 3)[0], q / q.sum(), mu / mu.sum(), 0.3123)
    assert 0.097 < far < 0.25 and far > 1.1 / 12


def test_distance_from_the_reference() -> None:
    """KL(π*‖ρ) + KL(ρ‖π*) = π*ᵀAρ/β ≤ min(1/(2β), 1/(4β²)); the span is at most 1/β and E_0(π*) ≤ β log(1/min ρ)."""
    worst = []
    for one in points():
        beta, rho = one.beta[:, 0], one.log_rho
        both = kl(one.log_q, rho) + kl(rho, one.log_q)
        assert (np.abs(both - (np.exp(one.log_q) * pull(one, rho)).sum(-1) / beta) < 1e-11 / beta).all()
        bound = np.minimum(1 / (2 * beta), 1 / (4 * beta**2))
        assert (both <= bound + 1e-12).all() and (np.ptp(one.log_q - rho, axis=-1) <= 1 / beta + 1e-9).all()
        assert (pull(one, one.log_q).max(-1) <= beta * -rho.min(-1) + 1e-12).all()
        worst.append(float((both / bound).max()))
    assert max(worst) > 0.9


@pytest.mark.parametrize("gamma", [0.1, 1.0, 5.0])
def test_mirror_prox_identity(gamma: float) -> None:
    """One step of Nash-MP loses exactly what the page says; with the wrong sign of the error it does not."""
    for one in points():
        beta, start = one.beta[:, 0], policy(one)
        ahead, after = mirror_prox(one, np.asarray(gamma), start)
        moved, back = np.exp(ahead) - np.exp(start), np.exp(ahead) - np.exp(after)
        error = gamma * (np.einsum("kij,kj->ki", one.advantages, moved) * back).sum(-1)
        right = kl(one.log_q, start) - (1 + gamma * beta) * kl(after, ahead) - kl(ahead, start)
        right = right - gamma * beta * kl(ahead, one.log_q) - error
        left = (1 + gamma * beta) * kl(one.log_q, after)
        size = (1 + gamma * beta) * (1 + np.abs(one.log_rho).max(-1) + np.abs(start).max(-1))
        assert (np.abs(left - right) < 1e-13 * size).all()
        assert one.w.shape[1] == 2 or np.abs(left - right - 2 * error).max() > 1e-5


def rate_excess(one: Points, after: Floats, factor: Floats) -> Floats:
    """KL(π*‖π⁺) less the proven share of KL(π*‖π), in units that hide rounding."""
    size = 1 + np.abs(one.log_rho).max(-1) + np.abs(policy(one)).max(-1)
    return np.asarray((kl(one.log_q, after) - factor * kl(one.log_q, policy(one))) / size)


def test_wider_ranges_of_the_rates() -> None:
    """Nash-MP to γ = 2(β + √(1 + β²)), extragradient to 2(√(1 + β²) - β), magnetic descent to 4β; 40 times these fail."""
    for one in points():
        root = np.sqrt(1 + one.beta**2)
        wide, gamma = 2 * (one.beta + root), 2 * (root - one.beta)
        factor = 1 / (1 + (wide * one.beta)[:, 0])
        assert rate_excess(one, mirror_prox(one, wide, policy(one))[1], factor).max() < 1e-14
        step = log_normalized
        start = policy(one)

        def ascend(at: Floats, one: Points = one, start: Floats = start, gamma: Floats = gamma) -> Floats:
            return step(start + gamma * (pull(one, at) - one.beta * (start - one.log_rho)))

        assert rate_excess(one, ascend(ascend(start)), 1 - (gamma * one.beta)[:, 0]).max() < 1e-14
        magnetic = 4 * one.beta
        assert rate_excess(one, prox(one, magnetic, start, pull(one, start)), 1 / (1 + 4 * one.beta[:, 0] ** 2)).max() < 1e-14
        if one.w.shape[1] > 2:
            assert rate_excess(one, mirror_prox(one, 40 * wide, start)[1], 1 / (1 + (40 * wide * one.beta)[:, 0])).max() > 1e-3
            far = prox(one, 40 * magnetic, start, pull(one, start))
            assert rate_excess(one, far, 1 / (1 + 160 * one.beta[:, 0] ** 2)).max() > 1e-3


def test_explicit_is_implicit() -> None:
    """Extragradient(γ) = Nash-MP(γ/(1 - γβ))."""
    for one in points():
        gamma = 0.7 / (one.beta + 0.5)
        start = policy(one)
        ahead = log_normalized(start + gamma * (pull(one, start) - one.beta * (start - one.log_rho)))
        after = log_normalized(start + gamma * (pull(one, ahead) - one.beta * (start - one.log_rho)))
        other = mirror_prox(one, gamma / (1 - gamma * one.beta), start)[1]
        np.testing.assert_allclose(after, other, rtol=1e-10, atol=1e-10)


def test_nash_md_recursion() -> None:
    """KL(π*‖π⁺) ≤ (1 - γβ) KL(π*‖π) - γβ KL(π̃‖π*) + γ²/24; with γ²/48 it fails."""
    dropped = []
    for one in points():
        gamma = np.minimum(1.0, 1 / one.beta)
        alpha, start = gamma * one.beta, policy(one)
        mixed = log_normalized((1 - alpha) * start + alpha * one.log_rho)
        after = log_normalized(mixed + gamma * pull(one, mixed))
        bound = (1 - alpha[:, 0]) * kl(one.log_q, start) - alpha[:, 0] * kl(mixed, one.log_q)
        needed = (kl(one.log_q, after) - bound) / gamma[:, 0] ** 2
        assert needed.max() <= 1 / 24 + 1e-9
        dropped.append(float(needed.max()))
    assert max(dropped) > 1 / 48


def test_unregularized_proximal_point_converges() -> None:
    """β = 0 on a game with a dominated action: the distance to the winner falls at each step and π_k → π*."""
    cycle = 0.5 * np.array([[0, 1, -1, 0.2], [-1, 0, 1, 0.4], [1, -1, 0, 0.6], [-0.2, -0.4, -0.6, 0]])
    winner, current, gamma = np.array([1, 1, 1, 0]) / 3, np.log([0.1, 0.2, 0.1, 0.6]), 1.0
    assert (cycle @ winner <= 1e-15).all()
    distance = []
    for _ in range(400):
        after = current
        for _ in range(200):
            after = log_normalized(0.5 * after + 0.5 * (current + gamma * cycle @ np.exp(after)))
        current = after
        distance.append(float((winner[:3] * (np.log(winner[:3]) - current[:3])).sum()))
    assert (np.diff(distance) <= 1e-13).all() and distance[-1] < 1e-9 and (cycle @ np.exp(current)).max() < 1e-4


def test_games_inside_a_set_cancel() -> None:
    """Σ_S π(Aπ) ≤ π(S)(1 - π(S))/2 for every set S, so log Σ π exp(γAπ) ≤ log(sinh(γ/2)/(γ/2))."""
    for one in points():
        pi, gain = np.exp(policy(one)), pull(one, policy(one))
        n = pi.shape[1]
        for size in range(1, n):
            for chosen in combinations(range(n), size):
                share = pi[:, chosen].sum(-1)
                assert ((pi * gain)[:, chosen].sum(-1) <= share * (1 - share) / 2 + 1e-15).all()
        for gamma in (0.1, 1.0, 10.0, 100.0):
            partition = np.logaddexp.reduce(policy(one) + gamma * gain, axis=-1)
            assert (partition <= gamma / 2 + np.log(-np.expm1(-gamma) / gamma) + 1e-12).all()


def test_a_long_total_order_attains_the_log_partition() -> None:
    """n equally likely actions in a total order: γ²/24 to a relative 1/n²."""
    n, gamma = 400, 0.1
    gain = (np.arange(n) - (n - 1) / 2) / n
    assert np.log(np.exp(gamma * gain).mean()) == pytest.approx(gamma**2 / 24, rel=1e-3)


def test_pinsker_is_strict() -> None:
    """KL ≥ 2t² + (4/9)t⁴, nearly attained; with (1/2)t⁴ for (4/9)t⁴ it fails."""
    half = np.linspace(1e-2, 0.49, 300)
    x, z = 0.5 + half[:, None], 0.5 - half[None, :]
    distance = x - z
    divergence = x * np.log(x / z) + (1 - x) * np.log((1 - x) / (1 - z))
    assert (divergence >= 2 * distance**2 + 4 / 9 * distance**4 - 1e-15).all()
    assert (divergence < 2 * distance**2 + 1 / 2 * distance**4).any()


def test_proximal_point_without_regularization_has_no_common_rate() -> None:
    """0 beats 1 by δ, 1 beats 2 and 2 beats 0 for certain: from uniform, γ = 1, E_0 is above ¼ at a time of the order 1/δ."""
    last = []
    for delta in (0.1, 0.03, 0.01):
        advantages = np.array([[0, delta, -0.5], [-delta, 0, 0.5], [0.5, -0.5, 0]])
        current, seen = np.log(np.full(3, 1 / 3)), 0
        for k in range(1, 1000):
            after = current
            for _ in range(60):
                after = log_normalized(0.5 * after + 0.5 * (current + advantages @ np.exp(after)))
            current = after
            seen = k if (advantages @ np.exp(current)).max() > 0.25 else seen
        last.append(seen)
    assert last == [0, 116, 635]


def test_reward_model_on_a_cycle() -> None:
    """(s - mu) - (s - (s + m)u)(1 + u + u²) = mu² + (s + m)u³, and what margins (0.5, 0.5, 0.2) lose."""
    rng = np.random.default_rng(0)
    m, s, u = rng.random((3, 1000))
    left = (s - m * u) - (s - (s + m) * u) * (1 + u + u**2)
    np.testing.assert_allclose(left, m * u**2 + (s + m) * u**3, atol=1e-14)
    t = 0.435
    for _ in range(50):
        excess = 1 / (1 + np.exp(-t)) + 1 / (1 + np.exp(-2 * t)) - 1.3
        t -= excess / 0.7
    found = [max(0.5 * u - 0.2 * u**2, 0.2 - 0.5 * u) / (1 + u + u**2) for u in np.exp(-t / np.array([1, 0.1, 0.01, 0.001]))]
    np.testing.assert_allclose(found, [0.116, 0.189, 0.2, 0.2], atol=1e-3)
