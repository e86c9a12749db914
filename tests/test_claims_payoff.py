"""Claims about payoff, gap, equilibrium, Online IPO, the proximal sub-game and the reward model.

Both sides of each claim are held against the definitions at 60 digits, and the uncertainty that they state must cover what they
are off by. Every mutant, and claims that are wrong in the ways that a reader would be, must be rejected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import oracles
import pytest
from oracles import mp

import nlhfsim as nl
from nlhfsim.claims import Case, Claim, judge, mixed_case
from nlhfsim.claims.gap import gap
from nlhfsim.claims.payoff import best_payoff
from nlhfsim.claims.reward_model import optimum_gap0, three_actions

ON_ANY_GAME = [
    "constant-sum",
    "exploitability-is-kl-to-best-response",
    "strong-monotonicity",
    "advantage-of-equilibrium",
    "reference-distance",
    "reference-distance-bound",
    "log-ratio-span",
    "bias-of-regularization",
    "online-ipo-is-self-play-pg",
    "one-vote-step-is-unbiased",
    "proximal-subgame",
    "gap-dominates-kl",
    "gap-dominates-kl-upper",
    "gap-decomposition",
]
REWARD_MODEL = ["bradley-terry-is-exploitable", "bradley-terry-on-three-actions", "bradley-terry-games-are-solved"]


class Truth:
    """A case and what the definitions say about it, P with dyadic entries."""

    def __init__(self, margins: list[float], beta: float, step_size: float, peaks: tuple[float, float]) -> None:
        n = 4
        P = np.full((n, n), 0.5)
        P[np.triu_indices(n, 1)] += margins
        P += np.tril(1 - P.T - P, -1)
        rng = np.random.default_rng(7)
        reference, policy, opponent = (nl.games.random_reference(n, rng, peak) for peak in (peaks[0], peaks[1], peaks[1]))
        game = nl.PreferenceGame(P, beta, reference)
        self.case = Case(game, np.log(policy), np.log(opponent), step_size)
        self.P, self.beta, self.gamma = P.tolist(), mp.mpf(beta), mp.mpf(step_size)
        self.rho, self.pi, self.mu = (oracles.simplex(list(row)) for row in (game.reference, policy, opponent))
        self.star = oracles.equilibrium(self.P, self.rho, beta)
        self.gap = oracles.exploitability(self.P, self.rho, self.beta, self.mu)

    def slope(self, policy: Any) -> Any:
        """The gradient in π of the payoff against the policy itself."""
        return oracles.penalized_gradient(oracles.advantages(self.P, policy), [(self.beta, self.rho)], policy)

    def monotone(self) -> Any:
        """⟨F(π) - F(μ), π - μ⟩."""
        slopes = zip(self.slope(self.pi), self.slope(self.mu), self.pi, self.mu)
        return -mp.fsum((there - back) * (p - m) for there, back, p, m in slopes)

    def gradient(self, factor: Any) -> list[Any]:
        """A multiple of the self-play gradient at π."""
        return [factor * g for g in oracles.policy_gradient(self.P, [(self.beta, self.rho)], self.pi)]

    def subgame(self) -> list[Any]:
        """The logarithms of the proximal step from π, both penalties apart."""
        terms = [(self.beta, self.rho), (1 / self.gamma, self.pi)]
        return [mp.log(p) for p in oracles.symmetric_equilibrium(self.P, terms, self.pi)]

    def won(self, policy: Any, opponent: Any) -> Any:
        """P_β(policy ≻ opponent) - ½."""
        return oracles.payoff(self.P, self.rho, self.beta, policy, opponent) - mp.mpf(1) / 2

    def kl_both(self, p: Any, q: Any) -> Any:
        """KL(p‖q) + KL(q‖p)."""
        return oracles.kl(p, q) + oracles.kl(q, p)

    def log_ratio(self) -> Any:
        """‖log π* - log ρ‖_sp."""
        return oracles.span([mp.log(a / b) for a, b in zip(self.star, self.rho)])


Side = Callable[[Truth], Any]
SIDES: dict[str, tuple[Side, Side]] = {
    "exploitability-is-kl-to-best-response": (
        lambda t: t.gap,
        lambda t: t.beta * oracles.kl(t.mu, oracles.best_response(t.P, t.rho, t.beta, t.mu)),
    ),
    "strong-monotonicity": (lambda t: t.monotone(), lambda t: t.beta * t.kl_both(t.pi, t.mu)),
    "advantage-of-equilibrium": (lambda t: t.won(t.star, t.mu), lambda t: t.beta * oracles.kl(t.mu, t.star)),
    "reference-distance": (
        lambda t: t.kl_both(t.star, t.rho),
        lambda t: mp.fsum(p * g for p, g in zip(t.star, oracles.advantages(t.P, t.rho))) / t.beta,
    ),
    "reference-distance-bound": (lambda t: t.kl_both(t.star, t.rho), lambda t: 1 / (2 * t.beta)),
    "log-ratio-span": (lambda t: t.log_ratio(), lambda t: 1 / t.beta),
    "bias-of-regularization": (
        lambda t: oracles.unregularized_exploitability(t.P, t.star),
        lambda t: -t.beta * mp.log(min(t.rho)),
    ),
    "online-ipo-is-self-play-pg": (lambda t: t.gradient(-4 / t.beta), lambda t: t.gradient(-4 / t.beta)),
    "one-vote-step-is-unbiased": (lambda t: t.gradient(t.gamma), lambda t: t.gradient(t.gamma)),
    "proximal-subgame": (lambda t: t.subgame(), lambda t: t.subgame()),
    "gap-dominates-kl": (lambda t: t.gap, lambda t: t.beta * oracles.kl(t.mu, t.star)),
    "gap-dominates-kl-upper": (lambda t: t.gap, lambda t: (t.beta + 1 / (4 * t.beta)) * oracles.kl(t.mu, t.star)),
    "gap-decomposition": (lambda t: t.gap, lambda t: t.gap),
}
"""By claim what `measure` and `bound` are by the definitions."""


CASES: list[tuple[list[float], float, float, tuple[float, float]]] = [
    ([0.25, -0.375, 0.125, 0.5, -0.25, 0.4375], 0.03125, 20.0, (1.0, 1.0)),
    ([0.5, -0.5, 0.5, 0.5, 0.5, 0.5], 0.125, 0.5, (4.0, 4.0)),
    ([0.125, 0.0, 0.25, 0.5, 0.0, -0.125], 4.0, 0.0625, (1.0, 1.0)),
    ([-0.25, 0.25, 0.125, 0.25, -0.5, 0.4375], 1.0, 1.0, (30.0, 4.0)),
]
"""Margins, β, step size, peaks of reference and policies: small β, certain votes, strong regularizer, reference on one action."""


@lru_cache
def truth(index: int) -> Truth:
    """Each with what the definitions say."""
    return Truth(*CASES[index])


@pytest.mark.parametrize("index", range(len(CASES)))
@pytest.mark.parametrize("name", SIDES)
def test_both_sides_are_what_the_definitions_say(name: str, index: int) -> None:
    claim, known = nl.claims.get(name), truth(index)
    for side, expected in zip((claim.measure, claim.bound), SIDES[name]):
        value, uncertainty = claim.evaluate(side, known.case)
        wanted = expected(known)
        exact = oracles.numbers(wanted if isinstance(wanted, list) else [wanted])
        off = np.array([float(abs(mp.mpf(float(v)) - e)) for v, e in zip(value, exact)])
        size = np.array([float(abs(e)) for e in exact])
        # A side that is one rounded expression states no uncertainty.
        assert (off <= uncertainty + 1e-15 * size).all(), (off, uncertainty)
        assert (uncertainty <= 1e-9 * size.max()).all(), "so wide that it says nothing"


@pytest.mark.parametrize("name", ON_ANY_GAME + REWARD_MODEL)
def test_a_claim_holds_and_every_mutant_falls_within_sixty_games(name: str) -> None:
    claim = nl.claims.get(name)
    report = nl.verify(name, n_games=60)
    found = report[name]
    assert found.verdict == "holds" and found.n_inconclusive == 0, str(found.witness)
    assert claim.mutants and found.mutant_rejected, found.mutants


@pytest.mark.parametrize("name", ON_ANY_GAME + REWARD_MODEL)
def test_a_claim_has_what_a_reader_needs(name: str) -> None:
    claim = nl.claims.get(name)
    assert claim.statement and claim.why and claim.proof and "$" not in claim.statement
    assert claim.measure is not claim.bound


def _kl(p: Any, q: Any) -> float:
    return float(np.sum(p * np.log(p / q)))


WRONG: dict[str, tuple[str, Callable[[Case], float]]] = {
    "exploitability, the other KL": (
        "exploitability-is-kl-to-best-response",
        lambda case: case.beta * _kl(nl.best_response(case.game, case.opponent) + 1e-300, case.opponent),
    ),
    "advantage, 1.5": ("advantage-of-equilibrium", lambda case: 1.5 * case.beta * float(nl.kl(case.opponent, case.equilibrium))),
    "gap, the other KL": ("gap-dominates-kl", lambda case: case.beta * float(nl.kl(case.equilibrium, case.opponent))),
    "gap, 1.5": ("gap-dominates-kl", lambda case: 1.5 * case.beta * float(nl.kl(case.opponent, case.equilibrium))),
    "monotonicity, one way": ("strong-monotonicity", lambda case: case.beta * _kl(case.policy, case.opponent)),
    "distance, 1.5": ("reference-distance-bound", lambda case: 0.5 / (1.5 * case.beta)),
    "bias, 1.5": ("bias-of-regularization", lambda case: -case.beta * float(np.log(case.reference.min())) / 1.5),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_claim_from_outside_is_rejected(what: str) -> None:
    name, bound = WRONG[what]
    wrong = replace(nl.claims.get(name), id="mine", bound=bound, mutants=())
    report = nl.verify(wrong, n_games=60)
    assert report["mine"].verdict == "violated" and not report.passed
    assert report["mine"].witness is not None and report["mine"].witness.case.n <= 4


def at_equilibrium() -> Case:
    """A case whose opponent is the equilibrium."""
    case = mixed_case(0, 20)
    return case.at(log_opponent=case.log_equilibrium)


@pytest.mark.parametrize("name", ["gap-dominates-kl", "gap-dominates-kl-upper"])
def test_at_the_equilibrium_a_gap_says_nothing(name: str) -> None:
    claim, case = nl.claims.get(name), at_equilibrium()
    assert judge(claim, case).verdict == "skipped"
    assert judge(claim.without(claim.hypotheses[0].name), case).verdict == "inconclusive"


def test_what_would_take_long_or_never_be_drawn_does_not_count() -> None:
    case = mixed_case(0, 20)
    rare = case.at(log_policy=np.log([1 - 1e-13, *[1e-13 / (case.n - 1)] * (case.n - 1)]))
    assert "rare" in judge(nl.claims.get("one-vote-step-is-unbiased"), rare).reason
    for n, names in ((40, ["one-vote-step-is-unbiased"]), (120, ["one-vote-step-is-unbiased", "online-ipo-is-self-play-pg"])):
        report = nl.verify(names, n_games=1, game=nl.games.random_game(n, 1))
        assert all(verdict.n_skipped == 1 for verdict in report.verdicts)


def test_a_reference_that_is_the_equilibrium_shows_no_distance() -> None:
    assert judge(nl.claims.get("reference-distance"), mixed_case(0, 0)).reason == "the reference is the equilibrium"


def test_a_proximal_step_needs_a_step_size() -> None:
    claim = nl.claims.get("proximal-subgame")
    assert "γ > 0" in judge(claim, mixed_case(0, 20).at(step_size=-1.0)).reason
    # Two penalties merge whenever they add up to one; the hypothesis keeps to proximal steps.
    assert judge(claim.without("γ > 0"), mixed_case(0, 3).at(step_size=-4.0)).verdict == "holds"


def counterexample(margins: tuple[float, float, float], beta: float) -> Case:
    """Three actions with the margins of 0 over 1, 1 over 2 and 2 over 0."""
    a, b, c = margins
    matrix = 0.5 + np.array([[0.0, a, -c], [-a, 0.0, b], [c, -b, 0.0]])
    return three_actions(0.1, 0.1, beta).at(game=nl.PreferenceGame(matrix, beta))


def without_any(claim: Claim) -> Claim:
    """The claim without its hypotheses."""
    for hypothesis in claim.hypotheses:
        claim = claim.without(hypothesis.name)
    return claim


@pytest.mark.parametrize("name", REWARD_MODEL)
def test_reward_model_claims_need_their_hypotheses(name: str) -> None:
    claim, case = nl.claims.get(name), counterexample((0.5, 0.1, 0.4), 0.01)
    assert judge(claim, case).verdict == "skipped"
    assert judge(without_any(claim), case).verdict == "violated"


def test_a_reward_that_diverges_decides_nothing() -> None:
    case = counterexample((0.5, 0.5, -0.5), 0.1)
    for name in REWARD_MODEL:
        assert judge(nl.claims.get(name), case).verdict == "skipped"
        assert judge(without_any(nl.claims.get(name)), case).verdict == "inconclusive"


def test_the_witness_of_the_theory() -> None:
    found = [optimum_gap0(three_actions(0.5, 0.2, beta)).value for beta in (1.0, 0.1, 0.01, 0.001)]
    np.testing.assert_allclose(found, [0.116, 0.189, 0.200, 0.200], atol=5e-4)
    assert optimum_gap0(three_actions(0.5, 0.5, 0.01)).value == pytest.approx(0.0, abs=1e-12)


def test_the_witness_at_sixty_digits() -> None:
    for beta in (1.0, 0.1, 0.01):
        case = three_actions(0.5, 0.2, beta)
        t = mp.findroot(lambda t: 1 / (1 + mp.exp(-t)) + 1 / (1 + mp.exp(-2 * t)) - mp.mpf(1.3), 0.5)
        policy = oracles.softmax([t / beta, 0, -t / beta])
        gains = [mp.mpf(0.5) * policy[1] - mp.mpf(0.2) * policy[2], mp.mpf(0.2) * policy[0] - mp.mpf(0.5) * policy[1]]
        for side in (optimum_gap0, nl.claims.get("bradley-terry-on-three-actions").bound):
            value = side(case)
            assert float(getattr(value, "value", value)) == pytest.approx(float(max(gains)), rel=1e-11)


def test_on_its_own_games_the_reward_model_wins_as_regularization_goes() -> None:
    game = nl.games.bradley_terry([0.7, 0.0, -0.4], reference=[0.01, 0.09, 0.9])
    uniform = np.full(3, -np.log(3))
    gaps = [optimum_gap0(Case(game.with_beta(beta), uniform, uniform)).value for beta in (1.0, 0.1, 0.03)]
    assert gaps[0] > 0.05 and gaps[2] < 1e-6 and sorted(gaps, reverse=True) == gaps


def test_the_climb_is_certified_by_concavity() -> None:
    for index in range(40):
        case = mixed_case(3, index)
        climbed, formula = best_payoff(case), gap(case)
        assert abs(climbed.value - formula.value) <= climbed.uncertainty + formula.uncertainty
        assert climbed.uncertainty < 1e-11 * (1 + case.beta)
