"""The package against 60-digit values from the definitions (`oracles`): probabilities to 1e-10, most of them far better."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import oracles
import pytest
from oracles import mp

import nlhfsim as nl

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")

REQUIRED = 1e-10
SIZES = (3, 5, 8, 12)
BETAS = (0.05, 0.3, 2.0)
LAWS = ("logistic", "zero-one", "cyclic")


@functools.cache
def preferences(law: str, n: int) -> Any:
    """A game with P + P^T = 1 exactly: entries are multiples of 2**-30."""
    if law == "cyclic":
        P = np.full((n, n), 0.5)
        for i in range(n):
            for k in range(1, (n - 1) // 2 + 1):
                P[i, (i + k) % n], P[(i + k) % n, i] = 0.875, 0.125
        return P
    rng = np.random.default_rng([n, LAWS.index(law)])
    raw = rng.integers(0, 2, (n, n)) if law == "zero-one" else 1 / (1 + np.exp(rng.normal(0, 2, (n, n))))
    upper = np.triu(np.round(raw * 2.0**30) / 2.0**30, 1)
    return upper + np.tril(1.0 - upper.T, -1) + np.eye(n) / 2


@functools.cache
def policy(kind: str, n: int) -> Any:
    """A reference or start: uniform, peaked (probabilities down to about 1e-6), or drawn."""
    if kind == "uniform":
        return np.full(n, 1.0 / n)
    rng = np.random.default_rng([n, 7 if kind == "peaked" else 11])
    weights = np.exp(rng.normal(0, 3.0, n)) if kind == "peaked" else rng.exponential(size=n)
    return weights / weights.sum()


@functools.cache
def exact_equilibrium(law: str, n: int, beta: float, reference: str) -> Any:
    """The 60-digit equilibrium."""
    return oracles.equilibrium(preferences(law, n), policy(reference, n), beta)


def game_of(law: str, n: int, beta: float, reference: str) -> nl.PreferenceGame:
    """The same game for the package."""
    return nl.PreferenceGame(preferences(law, n), beta=beta, reference=policy(reference, n))


def distance(found: Any, exact: Any) -> float:
    """Largest difference of a probability, formed in 60 digits."""
    return float(max(abs(mp.mpf(float(a)) - b) for a, b in zip(found, exact, strict=True)))


def relative(found: float, exact: Any) -> float:
    """Relative error, formed in 60 digits."""
    return float(abs(mp.mpf(float(found)) / exact - 1))


@pytest.mark.parametrize("reference", ["uniform", "peaked"])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("law", LAWS)
def test_equilibria(law: str, n: int, beta: float, reference: str) -> None:
    """`solve` finds the equilibrium, in probability and in log space, and its certificate does not promise too much."""
    exact = exact_equilibrium(law, n, beta, reference)
    found = nl.solve(game_of(law, n, beta, reference))
    assert found.status == "certified"
    assert distance(found.policy, exact) < 1e-13
    # In log space the residual's own tolerance, times what the inverse Jacobian can make of it on games this small.
    logs = max(abs(mp.mpf(float(a)) - mp.log(b)) for a, b in zip(found.log_policy, exact))
    assert logs < 100 * max(1e-12, 8 * np.finfo(float).eps / beta)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("law", LAWS)
def test_cvxpy_finds_the_same_equilibria(law: str, n: int, beta: float) -> None:
    """The convex program is as near as its own KL bound says (Pinsker)."""
    found = nl.solve(game_of(law, n, beta, "uniform"), "cvxpy")
    exact = exact_equilibrium(law, n, beta, "uniform")
    gap = sum(abs(mp.mpf(float(a)) - b) for a, b in zip(found.policy, exact))
    assert found.kl_bound is not None and found.kl_bound < 1e-6
    assert float(gap) <= np.sqrt(2 * found.kl_bound) + 1e-14


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("law", LAWS)
def test_exploitabilities(law: str, n: int, beta: float) -> None:
    """Exploitability is what the best response gains, by the definition; relatively accurate, also near the equilibrium."""
    game, P, rho = game_of(law, n, beta, "peaked"), preferences(law, n), policy("peaked", n)
    mu = policy("drawn", n)
    assert relative(nl.exploitability(game, mu), oracles.exploitability(P, rho, beta, mu)) < 1e-11
    assert relative(nl.exploitability(game, mu, regularized=False), oracles.unregularized_exploitability(P, mu)) < 1e-11
    assert distance(nl.best_response(game, mu), oracles.best_response(P, rho, beta, mu)) < 1e-13
    near = [p * (1 + mp.mpf(k % 3 - 1) / 10**4) for k, p in enumerate(exact_equilibrium(law, n, beta, "peaked"))]
    floats = np.array([float(value) for value in oracles.simplex(near)])
    exact = oracles.exploitability(P, rho, beta, floats)
    # A rounding error of one probability moves log(mu/BR), here about 1e-4/beta, by about eps/beta.
    assert relative(nl.exploitability(game, floats / floats.sum()), exact) < 1e-9


@pytest.mark.parametrize("n", [3, 5])
def test_payoffs(n: int) -> None:
    """The regularized payoff of one policy against another, by the definition."""
    game, P, rho = game_of("logistic", n, 0.3, "peaked"), preferences("logistic", n), policy("peaked", n)
    pi, mu = policy("drawn", n), policy("uniform", n)
    assert relative(game.payoff(pi, mu), oracles.payoff(P, rho, 0.3, pi, mu)) < 1e-13


RUNS: dict[str, tuple[str, int, float, str, int, dict[str, Any]]] = {
    # name: method, n, beta, law, steps, parameters
    "pg, slow": ("SelfPlayPG", 3, 0.3, "cyclic", 20, {"step_size": 0.25}),
    "pg, fast": ("SelfPlayPG", 8, 0.05, "logistic", 12, {"step_size": 3.0}),
    "pg, wide": ("SelfPlayPG", 12, 2.0, "zero-one", 4, {"step_size": 0.25}),
    "natural, slow": ("NaturalPG", 5, 0.3, "zero-one", 20, {"step_size": 0.25}),
    "natural, fast": ("NaturalPG", 12, 0.05, "logistic", 12, {"step_size": 3.0}),
    "natural, spiralling out": ("NaturalPG", 3, 0.05, "cyclic", 20, {"step_size": 1.0}),
    "magnetic, slow": ("MagneticMirrorDescent", 3, 2.0, "zero-one", 20, {"step_size": 0.25}),
    "magnetic, fast": ("MagneticMirrorDescent", 8, 0.05, "cyclic", 12, {"step_size": 3.0}),
    "nash-md, slow": ("NashMD", 5, 0.3, "logistic", 20, {"step_size": 0.25}),
    "nash-md, fast": ("NashMD", 8, 0.3, "zero-one", 12, {"step_size": 3.0}),
    "nash-md, schedule": ("NashMD", 3, 0.3, "cyclic", 15, {"step_size": nl.schedules.inverse_time(2 / 0.3, 2)}),
    "mirror prox, paper": ("NashMirrorProx", 12, 0.05, "zero-one", 10, {"step_size": 2.0}),
    "mirror prox, slow": ("NashMirrorProx", 5, 2.0, "cyclic", 20, {"step_size": 0.25}),
    "extragradient, fast": ("Extragradient", 8, 0.05, "logistic", 12, {"step_size": 1.75}),
    "extragradient, slow": ("Extragradient", 3, 0.3, "zero-one", 20, {"step_size": 0.25}),
    "proximal point, short": ("ProximalPoint", 5, 0.3, "logistic", 6, {"proximal_step": 0.25}),
    "proximal point, long": ("ProximalPoint", 8, 0.05, "zero-one", 4, {"proximal_step": 3.0}),
    "proximal pg": (
        "ProximalPG",
        5,
        0.05,
        "cyclic",
        4,
        {"proximal_step": 2.0, "inner_step_size": 0.75, "inner_steps": 5},
    ),
    "nash prox, average": ("NashProx", 5, 0.3, "logistic", 12, {"step_size": 1.0, "proximal_step": 2.0, "averaging": 0.25}),
    "nash prox, refresh": ("NashProx", 3, 0.05, "zero-one", 12, {"step_size": 0.5, "proximal_step": 3.0, "refresh_every": 4}),
    "optimistic": ("OptimisticMirrorDescent", 8, 0.05, "cyclic", 15, {"step_size": 1.25}),
    "ipo-md": ("IPOMD", 5, 0.3, "zero-one", 12, {"step_size": 1.5, "mixing": 0.25}),
    "magnet refresh": ("MagnetRefresh", 5, 0.3, "cyclic", 12, {"step_size": 1.5, "magnet": 0.25, "refresh_every": 5}),
    "weights, slow": ("MultiplicativeWeights", 12, 0.05, "logistic", 20, {"step_size": 0.25}),
    "weights, fast": ("MultiplicativeWeights", 5, 0.3, "cyclic", 12, {"step_size": 3.0}),
    "fictitious play": ("FictitiousPlay", 5, 0.3, "logistic", 25, {}),
    "fictitious play, cycling": ("FictitiousPlay", 3, 0.05, "cyclic", 40, {"smoothed": False}),
    "fictitious play, smoothed": ("FictitiousPlay", 8, 0.05, "zero-one", 20, {"smoothed": True}),
    "regret matching": ("RegretMatching", 8, 0.05, "logistic", 25, {}),
    "regret matching, cycling": ("RegretMatching", 5, 0.3, "cyclic", 25, {}),
    "regret matching plus": ("RegretMatchingPlus", 12, 0.3, "zero-one", 20, {}),
    "regret matching plus, cycling": ("RegretMatchingPlus", 3, 0.05, "cyclic", 25, {}),
}


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "plain"])
@pytest.mark.parametrize("run", RUNS)
def test_trajectories(run: str, compiled: bool) -> None:
    """Every step of every method lands where its definition says, and the recorded distances are those of the policies."""
    method, n, beta, law, steps, parameters = RUNS[run]
    game, P, rho, start = game_of(law, n, beta, "peaked"), preferences(law, n), policy("peaked", n), policy("drawn", n)
    exact = exact_run(run)
    instance = nl.dynamics.build(method, **parameters)
    found = nl.simulate(game, instance, steps, start=start, record_every=1, compiled=compiled)
    assert found.steps.tolist() == list(range(steps + 1))
    assert found.log_policies is not None
    for k, target in enumerate(exact, start=1):
        assert distance(np.exp(found.log_policies[0, k]), target) < REQUIRED / 100
    pi = exact_equilibrium(law, n, beta, "peaked")
    for k in (1, steps):
        assert relative(found.kl[0, k], oracles.kl(pi, exact[k - 1])) < 1e-8
        assert relative(found.exploitability[0, k], oracles.exploitability(P, rho, beta, exact[k - 1])) < 1e-8


@functools.cache
def exact_run(run: str) -> Any:
    """The 60-digit run."""
    method, n, beta, law, steps, parameters = RUNS[run]
    return oracles.trajectory(method, preferences(law, n), policy("peaked", n), beta, policy("drawn", n), steps, **parameters)


def test_every_method_has_a_golden_run() -> None:
    """A method without an entry in `RUNS` fails here."""
    assert {entry[0] for entry in RUNS.values()} == set(nl.dynamics.names())


@pytest.mark.parametrize("wrong", ["double step", "transposed", "half beta", "uniform reference"])
@pytest.mark.parametrize(
    "run", ["pg, slow", "nash-md, slow", "mirror prox, slow", "extragradient, slow", "proximal point, short"]
)
def test_the_golden_check_can_fail(run: str, wrong: str) -> None:
    """A run with one wrong argument is far outside the tolerance."""
    method, n, beta, law, steps, parameters = RUNS[run]
    P, rho = preferences(law, n), policy("peaked", n)
    if wrong == "double step":
        parameters = {name: 2 * value for name, value in parameters.items()}
    game = nl.PreferenceGame(
        P.T if wrong == "transposed" else P,
        beta=beta / 2 if wrong == "half beta" else beta,
        reference=None if wrong == "uniform reference" else rho,
    )
    found = nl.simulate(game, nl.dynamics.build(method, **parameters), steps, start=policy("drawn", n), compiled=False)
    assert found.final is not None
    assert distance(found.final[0], exact_run(run)[-1]) > 1e5 * REQUIRED
