"""Claims about self-play policy gradient: both sides against 60-digit numbers and closed forms, and wrong claims rejected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

import nlhfsim as nl
import oracles
from nlhfsim.claims import Case, Claim, judge, mixed_case
from nlhfsim.claims._potential import level, proven_step
from nlhfsim.claims.critical_step import THREE_ACTIONS, TIGHTEST, rotation, spectral_step
from nlhfsim.claims.self_play_pg import escape_case, universal_step
from nlhfsim.dynamics.self_play_pg import largest_proven_step
from nlhfsim.simplex import log_softmax
from oracles import mp

IDS = [
    "self-play-pg-descent",
    "self-play-pg-converges",
    "one-vote-pg-unbiased",
    "one-vote-pg-converges",
    "rotation-at-most-one-over-pi",
    "critical-step-lower-bound",
    "critical-step-over-proved-step",
    "critical-step-over-proved-step-three-actions",
    "self-play-pg-flow-converges",
    "potential-bounds-span",
    "flow-starts-low",
]
COSTLY = ["self-play-pg-reaches-equilibrium", "self-play-pg-span-bound", "self-play-pg-flow-reaches-equilibrium"]
P = np.array([[0.5, 0.875, 0.25], [0.125, 0.5, 0.75], [0.75, 0.25, 0.5]])
RHO = np.array([0.5, 0.25, 0.25])
PI = np.array([0.125, 0.25, 0.625])
BETA = 0.25


@pytest.fixture(scope="module")
def case() -> Case:
    """A game with dyadic entries, so that the oracle can have it too; a step below the proven one."""
    return Case(nl.PreferenceGame(P, BETA, RHO), np.log(PI), np.log(RHO), 0.2)


@pytest.fixture(scope="module")
def q() -> list[Any]:
    """The equilibrium by the oracle."""
    return oracles.equilibrium(P, RHO, BETA)


def sides(name: str, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Measured and bound of a claim on a case as it is."""
    claim = nl.claims.get(name)
    return claim.evaluate(claim.measure, case)[0], claim.evaluate(claim.bound, case)[0]


def phi(q: list[Any], theta: list[Any]) -> Any:
    """Φ(θ)."""
    return mp.fsum(a * mp.exp(-t) for a, t in zip(q, theta))


def divergence(q: list[Any]) -> Any:
    """D at PI."""
    return oracles.kl(PI, q) + oracles.kl(q, PI)


# --- both sides, from definitions ------------------------------------------------------------------------------------------


def test_the_decrease_of_the_potential(case: Case, q: list[Any]) -> None:
    """Φ(θ) - Φ(θ⁺) and cγβD/Z at γ, γ/4 and γ/16, with θ = log π + 1/2."""
    theta = [mp.log(p) + mp.mpf(1) / 2 for p in PI]
    gradient = oracles.policy_gradient(P, [(mp.mpf(BETA), oracles.numbers(RHO))], oracles.numbers(PI))
    root = mp.mpf(1) / 2 + BETA * mp.sqrt(1 + mp.mpf(1) / (2 * BETA) + mp.log(4))
    measured, bound = sides("self-play-pg-descent", case)
    for k, share in enumerate((1, 4, 16)):
        step = mp.mpf(case.step_size) / share
        drop = phi(q, theta) - phi(q, [t + step * g for t, g in zip(theta, gradient)])
        kept = 1 - (mp.e - 2) * step * root**2 / BETA
        assert measured[k] == pytest.approx(float(drop), rel=1e-9)
        assert bound[k] == pytest.approx(float(kept * step * BETA * divergence(q) / mp.exp(mp.mpf(1) / 2)), rel=1e-9)


def test_the_proven_step_is_that_of_the_method() -> None:
    """γ₁ of the claims and of the method were written down separately; γ₀ is always below it."""
    for index in range(30):
        case = mixed_case(1, index)
        assert universal_step(case) == pytest.approx(largest_proven_step(case.context), rel=1e-12)
        assert proven_step(case) < universal_step(case)


def test_the_contraction_of_the_level(case: Case, q: list[Any]) -> None:
    """1 - ℓ⁺/ℓ from the case's own policy, and 2cγβ n min π*/(E R)."""

    def centred_level(theta: list[Any]) -> Any:
        w = [t - mp.log(a) for t, a in zip(theta, q)]
        mean = mp.fsum(w) / 3
        return mp.log(mp.fsum(mp.exp(mean - x) for x in w) / 3)

    theta = [mp.log(p) for p in PI]
    gradient = oracles.policy_gradient(P, [(mp.mpf(BETA), oracles.numbers(RHO))], oracles.numbers(PI))
    after = centred_level([t + mp.mpf(case.step_size) * g for t, g in zip(theta, gradient)])
    odds = [a / p for a, p in zip(q, PI)]
    kept = 1 - (mp.e - 2) * case.step_size / proven_step(case)
    measured, bound = sides("self-play-pg-converges", case)
    assert measured[0] == pytest.approx(float(1 - after / centred_level(theta)), rel=1e-9)
    assert bound[0] == pytest.approx(float(2 * kept * case.step_size * BETA * 3 * min(q) / (max(odds) * mp.fsum(odds))), rel=1e-9)


def test_the_level_is_accurate_near_zero() -> None:
    """ℓ of a tiny w to relative accuracy, where the logarithm of the mean has none, and of a large one without overflow."""
    tiny = np.array([2e-7, -1e-7, -1e-7])
    with mp.workdps(60):
        exact = mp.log(mp.fsum(mp.exp(-mp.mpf(float(x))) for x in tiny) / 3)
    assert float(level(tiny)) == pytest.approx(float(exact), rel=1e-9)
    assert float(level(np.array([2000.0, -1000.0, -1000.0]))) == pytest.approx(1000 + math.log(2 / 3))


def one_vote(case: Case) -> Iterator[tuple[float, np.ndarray]]:
    """Every outcome of one vote: its probability and its move, one after the other."""
    for y in range(3):
        for other in range(3):
            for won, chance in ((1, P[y, other]), (0, 1 - P[y, other])):
                direction = -PI.copy()
                direction[y] += 1
                yield PI[y] * PI[other] * chance, direction * (won - 0.5 - BETA * math.log(PI[y] / RHO[y]))


def test_one_vote(case: Case, q: list[Any]) -> None:
    """The mean move is the gradient; the mean of Φ̄ after a step is that of every outcome; the bound is as stated."""
    mean = sum(chance * move for chance, move in one_vote(case))
    gradient = oracles.policy_gradient(P, [(mp.mpf(BETA), oracles.numbers(RHO))], oracles.numbers(PI))
    for side in sides("one-vote-pg-unbiased", case):
        assert side == pytest.approx(mean, abs=1e-12)
        assert side == pytest.approx([float(g) for g in gradient], abs=1e-12)
    target = np.array([float(a) for a in q])
    w = np.log(PI / target)
    w -= w.mean()
    measured, bound = sides("one-vote-pg-converges", case)
    phis = sum(chance * np.exp(-w - case.step_size * move).sum() for chance, move in one_vote(case))
    before, Z = np.exp(-w).sum(), (target * np.exp(w)).sum()
    assert measured[0] == pytest.approx(1 - phis / before, rel=1e-9)
    L = -math.log(target.min())
    C = 0.5 * math.exp(case.step_size * (1.5 + BETA * L)) * (13.5 + 4 * BETA**2 * L**2 + 16 * BETA**2 / math.e**2)
    expected = (case.step_size * BETA * float(divergence(q)) / Z - C * case.step_size**2 * before) / before
    assert bound[0] == pytest.approx(expected, rel=1e-9)


def test_the_slope_of_the_potential_along_the_flow(case: Case, q: list[Any]) -> None:
    """dΦ/dt by a difference in 60 digits, and -(β/Z)D."""
    theta = [mp.log(p) + mp.mpf(1) / 2 for p in PI]
    gradient = oracles.policy_gradient(P, [(mp.mpf(BETA), oracles.numbers(RHO))], oracles.numbers(PI))
    size = mp.mpf(10) ** -20
    slope = (phi(q, [t + size * g for t, g in zip(theta, gradient)]) - phi(q, theta)) / size
    measured, bound = sides("self-play-pg-flow-converges", case)
    assert measured[0] == pytest.approx(float(slope), rel=1e-10)
    assert bound[0] == pytest.approx(float(-BETA * divergence(q) / mp.exp(mp.mpf(1) / 2)), rel=1e-10)


# --- the spectrum ----------------------------------------------------------------------------------------------------------


def test_rotation_of_cyclic_tournaments_tends_to_one_over_pi() -> None:
    """ω = cot(π/2n)/(2n) at the uniform policy, increasing to 1/π; n = 3 gives 1/√12."""
    found = [rotation(nl.games.cyclic_tournament(n, 0.5).advantages, np.full(n, 1 / n)) for n in (3, 5, 21, 101)]
    assert found == pytest.approx([1 / math.tan(math.pi / 2 / n) / 2 / n for n in (3, 5, 21, 101)], rel=1e-12)
    assert found[0] == pytest.approx(12**-0.5) and found == sorted(found) and 0.9999 / math.pi < found[-1] < 1 / math.pi


def test_critical_steps_in_closed_form() -> None:
    """6β/(β² + 1/12) on the uniform cycle, 4/β with two equal actions; a single action has none; rare actions make no noise."""
    uniform = np.full(3, 1 / 3)
    for beta in (0.01, 1.0, 100.0):
        cycle = nl.games.cyclic_tournament(3, 0.5).advantages
        assert spectral_step(cycle, uniform, beta).value == pytest.approx(6 * beta / (beta**2 + 1 / 12), rel=1e-10)
        assert spectral_step(np.zeros((2, 2)), np.full(2, 0.5), beta).value == pytest.approx(4 / beta, rel=1e-12)
    assert spectral_step(np.zeros((1, 1)), np.ones(1), 1.0).value == math.inf
    rare = np.array([0.5, 0.5 - 1e-30, 1e-30])
    assert spectral_step(nl.games.cyclic_tournament(3, 0.5).advantages, rare, 1.0).value == pytest.approx(4.0, rel=0.2)


def test_the_stability_module_agrees() -> None:
    """γ_c of these claims and of `nl.stability` were written down separately."""
    for index in (3, 7, 12, 21):
        case = mixed_case(0, index)
        if case.equilibrium.min() > 1e-4:
            ours = spectral_step(case.advantages, case.equilibrium, case.beta).value
            assert nl.stability.critical_step(case.game, nl.dynamics.SelfPlayPG) == pytest.approx(ours, rel=1e-6)


def large_beta_ratio(reference: np.ndarray) -> float:
    """γ_c/γ₀ as β → ∞: 2(1 + log(1/min ρ))/(largest eigenvalue of J(ρ))."""
    covariance = np.diag(reference) - np.outer(reference, reference)
    return float(2 * (1 - math.log(reference.min())) / np.linalg.eigvalsh(covariance)[-1])


def test_the_constant_for_three_actions() -> None:
    """The least value along (s, s, 1 - 2s) by another optimizer, and no reference of three to five actions has a smaller one."""
    best = minimize_scalar(lambda s: large_beta_ratio(np.array([s, s, 1 - 2 * s])), bounds=(0.1, 0.33), method="bounded")
    assert best.fun == pytest.approx(THREE_ACTIONS, rel=1e-9) and best.x == pytest.approx(TIGHTEST[3][0], abs=1e-4)
    rng = np.random.default_rng(0)
    for n in (3, 4, 5):
        starts = [rng.standard_normal(n) for _ in range(10)]
        least = min(minimize(lambda x: large_beta_ratio(np.exp(log_softmax(x))), x, method="Nelder-Mead").fun for x in starts)
        assert least >= THREE_ACTIONS * (1 - 1e-9)
    assert THREE_ACTIONS < 6 * (1 + math.log(3))


# --- the claims ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*IDS, *COSTLY])
def test_the_claim_holds_and_its_mutants_do_not(name: str) -> None:
    """Nothing is violated, every mutant is rejected, and what is reported as tight is."""
    verdict = nl.verify(name, n_games=60, seed=3, workers=1).verdicts[0]
    assert verdict.passed and verdict.verdict == ("inconclusive" if verdict.claim.status == "conjecture" else "holds")
    assert verdict.mutant_rejected and verdict.n_games > 0 and verdict.n_inconclusive == 0


def test_the_flow_stays_within_the_span_bound() -> None:
    """It is far from tight, and says so; what carries its mutants is said there."""
    verdict = nl.verify("self-play-pg-flow-span", n_games=40, workers=1).verdicts[0]
    assert verdict.verdict == "holds" and not verdict.mutants and verdict.worst_ratio is not None and verdict.worst_ratio < 0.5
    assert "potential-bounds-span" in verdict.claim.slack


WRONG = {
    "self-play-pg-descent": lambda case, dynamics: 1.2 * case.step_size * case.beta * 1e3,
    "rotation-at-most-one-over-pi": lambda case: 0.28,
    "critical-step-over-proved-step": lambda case: 7.0,
    "potential-bounds-span": lambda case: case.n * 0.5,
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_claims_from_outside_are_found(name: str) -> None:
    """A claim that someone else makes, not registered, is checked the same way and its counterexample can be replayed."""
    wrong = replace(nl.claims.get(name), id="somebody-elses", bound=WRONG[name], mutants=())
    report = nl.verify(wrong, n_games=60, workers=1)
    witness = report["somebody-elses"].witness
    assert not report.passed and witness is not None and witness.replay(wrong).verdict == "violated"


def test_the_step_bound_of_descent_can_be_dropped_and_fails() -> None:
    """Without γ ≤ γ₀ the descent inequality has a counterexample where c is set to its least value."""

    def least(case: Case, dynamics: nl.dynamics.Dynamics) -> float:
        D = float(np.sum((case.policy - case.equilibrium) * (case.log_policy - case.log_equilibrium)))
        return (3 - math.e) * case.step_size / 16 * case.beta * D / math.exp(0.5)

    claim = nl.claims.get("self-play-pg-descent")
    kept = replace(claim, bound=least, mutants=())
    free: Claim = kept.without(claim.hypotheses[0].name)
    verdicts = [[judge(which, mixed_case(0, i)).verdict for i in range(60)] for which in (kept, free)]
    assert "violated" not in verdicts[0] and "violated" in verdicts[1]


def test_the_counterexample_is_the_game_and_not_the_method() -> None:
    """The span exceeds 1/β on it, by 0.6 %, and does not with a uniform reference."""
    claim = nl.claims.get("self-play-pg-span-bound")
    case = escape_case()
    assert judge(claim, case).measured * case.beta == pytest.approx(1.0063, abs=1e-4)
    tame = case.at(game=case.game.with_reference(None), log_policy=np.full(4, -math.log(4)))
    assert judge(claim, tame).verdict == "violated"
