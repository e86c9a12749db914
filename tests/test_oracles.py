"""The oracles against what is known without them: closed forms, symmetries, derivatives, identities. No package code runs."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from oracles import mp

CYCLE = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
TIGHT = mp.mpf(10) ** -48


def dyadic_game(n: int, seed: int) -> np.ndarray:
    """A random game with P + P^T = 1 exactly."""
    upper = np.triu(np.round(np.random.default_rng(seed).random((n, n)) * 2**30) / 2**30, 1)
    return upper + np.tril(1.0 - upper.T, -1) + np.eye(n) / 2


def dirichlet(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(n, 0.7))


def close(left: object, right: object, tolerance: object = TIGHT) -> bool:
    return max(abs(a - b) for a, b in zip(left, right, strict=True)) <= tolerance


@pytest.mark.parametrize("beta", [0.05, 2.0])
def test_the_uniform_cycle_has_the_uniform_equilibrium(beta: float) -> None:
    assert close(oracles.equilibrium(CYCLE, [1, 1, 1], beta), [mp.mpf(1) / 3] * 3)


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("margin", [-0.5, 0.125])
def test_two_actions_solve_a_scalar_equation(beta: float, margin: float) -> None:
    """(A pi)_0 - (A pi)_1 = a (pi_1 + pi_0) = a, so the equilibrium odds are the reference odds times exp(a / beta)."""
    P, rho = np.array([[0.5, 0.5 + margin], [0.5 - margin, 0.5]]), [mp.mpf(1) / 8, mp.mpf(7) / 8]
    odds = rho[0] / rho[1] * mp.exp(mp.mpf(margin) / mp.mpf(beta))
    assert close(oracles.equilibrium(P, rho, beta), [odds / (1 + odds), 1 / (1 + odds)])


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
def test_no_policy_beats_the_equilibrium(beta: float) -> None:
    P, rho = dyadic_game(4, 1), dirichlet(4, 2)
    pi = oracles.equilibrium(P, rho, beta)
    assert abs(oracles.exploitability(P, rho, beta, pi)) < TIGHT
    for seed in range(5):
        mu = dirichlet(4, 10 + seed)
        value = oracles.payoff(P, rho, beta, mu, pi) - mp.mpf(1) / 2
        assert abs(value + beta * oracles.kl(oracles.simplex(mu), pi)) < TIGHT, "advantage of the equilibrium"


@pytest.mark.parametrize("beta", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_exploitability_is_nonnegative_and_the_best_response_is_best(beta: float, seed: int) -> None:
    P, rho, mu = dyadic_game(5, seed), dirichlet(5, seed + 10), dirichlet(5, seed + 20)
    gap = oracles.exploitability(P, rho, beta, mu)
    assert gap > 0
    best = oracles.best_response(P, rho, beta, mu)
    for other in range(5):
        trial = oracles.mixture(best, oracles.simplex(dirichlet(5, 30 + other)), mp.mpf(1) / 10)
        assert oracles.payoff(P, rho, beta, trial, mu) - mp.mpf(1) / 2 < gap
    assert abs(gap - beta * oracles.kl(oracles.simplex(mu), best)) < TIGHT, "exploitability is beta KL to the best response"


@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_exploitability_agrees_with_a_numerical_search(beta: float) -> None:
    P, rho, mu = dyadic_game(3, 7), dirichlet(3, 8), dirichlet(3, 9)
    assert abs(oracles.searched_exploitability(P, rho, beta, mu) - oracles.exploitability(P, rho, beta, mu)) < 1e-8


def test_unregularized_exploitability_is_the_limit_of_a_vanishing_penalty() -> None:
    P, rho, mu = dyadic_game(4, 3), dirichlet(4, 4), dirichlet(4, 5)
    limit = oracles.unregularized_exploitability(P, mu)
    assert abs(oracles.exploitability(P, rho, 1e-7, mu) - limit) < 1e-5
    assert oracles.unregularized_exploitability(CYCLE, [1, 1, 1]) == 0
    assert oracles.unregularized_exploitability(CYCLE, [1, 0, 0]) == mp.mpf(1) / 2


def test_payoff_is_constant_sum() -> None:
    P, rho, pi, mu = dyadic_game(4, 3), dirichlet(4, 4), dirichlet(4, 5), dirichlet(4, 6)
    assert abs(oracles.payoff(P, rho, 0.3, pi, mu) + oracles.payoff(P, rho, 0.3, mu, pi) - 1) < TIGHT


def test_a_game_that_is_not_exactly_constant_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly"):
        oracles.payoff([[0.5, 0.6], [0.6, 0.5]], [1, 1], 0.1, [1, 1], [1, 1])


def test_prox_is_at_the_multiplier_that_makes_it_a_policy() -> None:
    """q_y solves v_y - beta (log(q_y/rho_y) + 1) - (log(q_y/pi_y) + 1)/gamma = multiplier, found here as a scalar root."""
    beta, gamma = mp.mpf(3) / 10, mp.mpf(2)
    v, rho, pi = oracles.numbers([0.25, -0.5, 0.125]), oracles.simplex(dirichlet(3, 1)), oracles.simplex(dirichlet(3, 2))

    def policy(multiplier: object) -> list:
        logs = [beta * mp.log(r) + mp.log(p) / gamma for r, p in zip(rho, pi)]
        return [mp.exp((a + b - multiplier) / (beta + 1 / gamma) - 1) for a, b in zip(v, logs)]

    root = mp.findroot(lambda multiplier: mp.log(mp.fsum(policy(multiplier))), mp.mpf(0))
    assert close(oracles.prox(v, beta, rho, gamma, pi), policy(root))


def test_prox_is_nonexpansive_in_its_three_point_inequality() -> None:
    """<v, u - q> <= beta (KL(u|rho) - KL(q|rho)) + (KL(u|pi) - KL(q|pi))/gamma, with slack (beta + 1/gamma) KL(u|q)."""
    beta, gamma = mp.mpf(3) / 10, mp.mpf(2)
    v, rho, pi = oracles.numbers([0.25, -0.5, 0.125]), oracles.simplex(dirichlet(3, 1)), oracles.simplex(dirichlet(3, 2))
    q, u = oracles.prox(v, beta, rho, gamma, pi), oracles.simplex(dirichlet(3, 3))

    def value(policy: list) -> object:
        linear = mp.fsum(a * b for a, b in zip(v, policy))
        return linear - beta * oracles.kl(policy, rho) - oracles.kl(policy, pi) / gamma

    assert abs(value(q) - value(u) - (beta + 1 / gamma) * oracles.kl(u, q)) < TIGHT


@pytest.mark.parametrize("gamma", [0.25, 3.0])
def test_a_proximal_point_is_the_equilibrium_of_the_merged_game(gamma: float) -> None:
    """beta' = beta + 1/gamma, rho' proportional to (rho^beta pi^(1/gamma))^(1/beta')."""
    P, rho, pi, beta = dyadic_game(4, 1), oracles.simplex(dirichlet(4, 2)), oracles.simplex(dirichlet(4, 3)), mp.mpf(0.05)
    (point,) = oracles.trajectory("ProximalPoint", P, rho, beta, pi, 1, proximal_step=gamma)
    merged = beta + 1 / mp.mpf(gamma)
    anchor = oracles.mixture(rho, pi, 1 / (mp.mpf(gamma) * merged))
    assert close(point, oracles.equilibrium(P, anchor, merged))


@pytest.mark.parametrize("terms", [1, 2])
def test_policy_gradient_is_the_derivative_of_the_payoff(terms: int) -> None:
    P, rho, centre = dyadic_game(3, 1), oracles.simplex(dirichlet(3, 2)), oracles.simplex(dirichlet(3, 3))
    theta, beta = oracles.numbers([0.3, -1.1, 0.4]), mp.mpf(0.3)
    penalties = [(beta, rho), (mp.mpf(1) / 2, centre)][:terms]
    fixed = oracles.softmax(theta)

    def own_payoff(k: int, value: object) -> object:
        pi = oracles.softmax([value if j == k else t for j, t in enumerate(theta)])
        return oracles.payoff(P, rho, 0, pi, fixed) - mp.fsum(c * oracles.kl(pi, anchor) for c, anchor in penalties)

    numerical = [mp.diff(lambda value, k=k: own_payoff(k, value), theta[k]) for k in range(3)]
    assert close(oracles.policy_gradient(P, penalties, fixed), numerical, mp.mpf(10) ** -35)


@pytest.mark.parametrize("beta", [0.05, 2.0])
def test_the_online_ipo_gradient_is_a_multiple_of_the_policy_gradient(beta: float) -> None:
    """The gradient of the population loss is -4/beta times that of the payoff (Calandriello et al., arXiv 2403.08635)."""
    P, rho, theta = dyadic_game(4, 1), dirichlet(4, 2), np.array([0.3, -1.0, 0.2, 1.5])
    exact = oracles.policy_gradient(P, [(mp.mpf(beta), oracles.simplex(rho))], oracles.softmax(theta))
    expected = np.array([float(-4 * g / beta) for g in exact])
    np.testing.assert_allclose(oracles.online_ipo_gradient(P, rho, beta, theta), expected, rtol=1e-12, atol=1e-12)


STEPS = {
    "SelfPlayPG": {"step_size": 0.5},
    "NaturalPG": {"step_size": 0.5},
    "MagneticMirrorDescent": {"step_size": 0.5},
    "NashMirrorProx": {"step_size": 2.0},
    "OptimisticMirrorDescent": {"step_size": 0.5},
    "Extragradient": {"step_size": 1.0},
    "ProximalPoint": {"proximal_step": 2.0},
    "ProximalPG": {"proximal_step": 2.0, "inner_step_size": 0.5, "inner_steps": 3},
    "NashProx": {"step_size": 0.5, "proximal_step": 2.0, "averaging": 0.25},
}


@pytest.mark.parametrize("method", sorted(STEPS))
def test_the_equilibrium_is_a_fixed_point(method: str) -> None:
    P, rho = dyadic_game(3, 1), dirichlet(3, 2)
    pi = oracles.equilibrium(P, rho, 0.3)
    assert close(oracles.trajectory(method, P, rho, 0.3, pi, 2, **STEPS[method])[-1], pi)


@pytest.mark.parametrize("method", sorted(STEPS))
def test_a_run_comes_nearer_to_the_equilibrium(method: str) -> None:
    P, rho, start = dyadic_game(3, 1), dirichlet(3, 2), oracles.simplex(dirichlet(3, 3))
    pi = oracles.equilibrium(P, rho, 0.3)
    last = oracles.trajectory(method, P, rho, 0.3, start, 12, **STEPS[method])[-1]
    # A policy gradient carries each action's probability, and this start is peaked: those methods are slow.
    share = 1 if method in ("SelfPlayPG", "ProximalPG", "NashProx") else mp.mpf(1) / 4
    assert oracles.kl(pi, last) < oracles.kl(pi, start) * share


@pytest.mark.parametrize("explicit, implicit", [("NaturalPG", "MagneticMirrorDescent"), ("Extragradient", "NashMirrorProx")])
def test_explicit_is_implicit_at_another_step_size(explicit: str, implicit: str) -> None:
    """gamma' = gamma / (1 - gamma beta)."""
    P, rho, start, beta, gamma = dyadic_game(4, 1), dirichlet(4, 2), dirichlet(4, 3), mp.mpf(0.3), mp.mpf(1)
    left = oracles.trajectory(explicit, P, rho, beta, start, 3, step_size=gamma)
    right = oracles.trajectory(implicit, P, rho, beta, start, 3, step_size=gamma / (1 - gamma * beta))
    assert all(close(a, b) for a, b in zip(left, right, strict=True))


def test_nash_prox_with_refresh_is_proximal_pg() -> None:
    P, rho, start = dyadic_game(4, 1), dirichlet(4, 2), dirichlet(4, 3)
    outer = oracles.trajectory("ProximalPG", P, rho, 0.3, start, 2, proximal_step=2.0, inner_step_size=0.5, inner_steps=3)
    inner = oracles.trajectory("NashProx", P, rho, 0.3, start, 6, proximal_step=2.0, step_size=0.5, refresh_every=3)
    assert close(outer[0], inner[2]) and close(outer[1], inner[5])


def test_multiplicative_weights_spirals_away_from_the_middle_of_the_cycle() -> None:
    policies = oracles.trajectory("MultiplicativeWeights", CYCLE, [1, 1, 1], 0.3, [0.5, 0.25, 0.25], 5, step_size=0.5)
    distances = [oracles.kl([mp.mpf(1) / 3] * 3, pi) for pi in policies]
    assert distances == sorted(distances)


def test_nash_md_forgets_its_start_at_the_largest_step() -> None:
    """gamma beta = 1: the mixture is the reference, and the step is exp(A rho / beta) away from it."""
    P, rho = dyadic_game(4, 1), dirichlet(4, 2)
    (pi,) = oracles.trajectory("NashMD", P, rho, 2.0, dirichlet(4, 3), 1, step_size=0.5)
    assert close(pi, oracles.best_response(P, rho, 2.0, rho))
