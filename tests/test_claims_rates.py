"""The claims about methods: what they measure against 60-digit oracles, and that they can fail: mutants, hypotheses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import oracles
import pytest

import nlhfsim as nl
from nlhfsim import claims
from nlhfsim.claims import Case, Claim, Hypothesis, Mutant, judge, mixed_case
from nlhfsim.claims._method_mutants import mutants_of
from nlhfsim.claims._rates import steps_up_to
from nlhfsim.claims._runs import kl_to_equilibrium, log_policies
from nlhfsim.claims._step import residuals
from nlhfsim.claims._witness import _simpler

Floats = npt.NDArray[np.float64]

RATES = ["proximal-point-rate", "nash-mirror-prox-rate", "extragradient-rate", "magnetic-md-rate"]
IDS = [
    *RATES,
    "inexact-proximal-point",
    "unregularized-prox-monotone",
    "unregularized-prox-average",
    "unregularized-prox-converges",
    "self-play-log-partition",
    "nash-md-recursion",
    "nash-md-rate",
    "mwu-average-converges",
    "mwu-last-iterate-spirals",
    "explicit-is-implicit",
]

# Entries that are dyadic, so that P + P' = 1 exactly for the oracles.
P = np.array([[0.5, 0.875, 0.25], [0.125, 0.5, 1.0], [0.75, 0.0, 0.5]])
RHO, START, OTHER = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.1, 0.7]), np.array([0.3, 0.6, 0.1])
BETA, GAMMA = 0.25, 0.5


@pytest.fixture
def case() -> Case:
    """A three-cycle with unequal margins."""
    return Case(nl.PreferenceGame(P, BETA, RHO), np.log(START), np.log(OTHER), GAMMA)


def first_rejected(claim: Claim, n_cases: int = 60) -> int | None:
    """The number of the first case of the mixed family that violates a claim."""
    return next((k for k in range(n_cases) if judge(claim, mixed_case(0, k)).verdict == "violated"), None)


# --- the claims hold ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_it_holds(name: str) -> None:
    """Nothing is violated, nearly nothing undecided, and it is checked on something."""
    verdict = nl.verify(name, n_games=80, mutants=False, workers=1).verdicts[0]
    assert verdict.verdict == "holds" and verdict.n_games >= 10


@pytest.mark.parametrize("name", IDS)
def test_it_is_documented(name: str) -> None:
    """Each has a statement in LaTeX, a source, the reason of its tolerance, a proof or a place of it, and slack or mutants."""
    claim = claims.get(name)
    assert "\\" in claim.statement and "$" not in claim.statement
    assert claim.why and claim.proof and claim.source.locator and (claim.mutants or claim.slack)


# --- what is measured, against 60 digits ----------------------------------------------------------------------------------

ORACLES: dict[str, dict[str, Any]] = {
    "proximal-point-rate": {"method": "ProximalPoint", "proximal_step": GAMMA},
    "nash-mirror-prox-rate": {"method": "NashMirrorProx", "step_size": GAMMA},
    "extragradient-rate": {"method": "Extragradient", "step_size": GAMMA},
    "magnetic-md-rate": {"method": "MagneticMirrorDescent", "step_size": GAMMA},
    "nash-md-rate": {"method": "NashMD", "step_size": lambda t: 2 / (BETA * (t + 2))},
}


@pytest.mark.parametrize("name", ORACLES)
def test_kl_along_a_run_is_that_of_the_oracle(name: str, case: Case) -> None:
    """KL(π*‖π_K), K = 1 … 4, within what the measurement says that it may be off by."""
    claim = claims.get(name)
    value, doubt = claim.evaluate(claim.measure, case)
    target = oracles.equilibrium(P, RHO, BETA)
    run = oracles.trajectory(ORACLES[name]["method"], P, RHO, BETA, START, 4, **_without_method(ORACLES[name]))
    expected = np.array([float(oracles.kl(target, policy)) for policy in run])
    assert (np.abs(value[:4] - expected) <= doubt[:4] + 1e-15).all()
    assert (doubt[:4] < 1e-10).all()


def _without_method(parts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parts.items() if key != "method"}


@pytest.mark.parametrize(("name", "factor"), [(n, 1 - GAMMA * BETA if "extra" in n else 1 / (1 + GAMMA * BETA)) for n in RATES])
def test_bounds_are_powers_of_the_factor(name: str, factor: float, case: Case) -> None:
    """The bound at K is factor^K KL(π*‖π_0), the KL by the oracle."""
    claim = claims.get(name)
    first = float(oracles.kl(oracles.equilibrium(P, RHO, BETA), oracles.simplex(START)))
    value, _ = claim.evaluate(claim.bound, case)
    np.testing.assert_allclose(value[:4], [first * factor**k for k in range(1, 5)], rtol=1e-12)


def test_growth_of_nash_md_is_that_of_the_oracle(case: Case) -> None:
    """KL(π*‖π⁺) - (1 - γβ) KL(π*‖π) + γβ KL(π̃‖π*), and γ²/24."""
    target, start, share = oracles.equilibrium(P, RHO, BETA), oracles.simplex(START), GAMMA * BETA
    (after,) = oracles.trajectory("NashMD", P, RHO, BETA, START, 1, step_size=GAMMA)
    mixture = oracles.mixture(start, oracles.simplex(RHO), share)
    expected = oracles.kl(target, after) - (1 - share) * oracles.kl(target, start) + share * oracles.kl(mixture, target)
    claim = claims.get("nash-md-recursion")
    (value,), (doubt,) = claim.evaluate(claim.measure, case)
    assert abs(value - float(expected)) <= doubt < 1e-12
    assert claim.evaluate(claim.bound, case)[0] == GAMMA**2 / 24


def test_errors_of_inexact_steps_have_the_size_they_say(case: Case) -> None:
    """Each iterate is off the exact step from the one before by ε in span, ε being what the bound has."""
    claim = claims.get("inexact-proximal-point")
    method, seen = claim.dynamics(case), [case.log_policy]
    recorded = dataclasses.replace(method.method, init=lambda c, p, row: seen.append(row) or method.method.init(c, p, row))
    claim.measure(case, dataclasses.replace(method, method=recorded))
    first = float(oracles.kl(oracles.equilibrium(P, RHO, BETA), oracles.simplex(START)))
    pull = GAMMA * BETA
    size = (claim.bound(case, method)[0] - first / (1 + pull)) * pull / (1 + pull)
    assert len(seen) > 3
    for before, after in zip(seen[1:], seen[2:]):
        (exact,) = oracles.trajectory("ProximalPoint", P, RHO, BETA, np.exp(before), 1, proximal_step=GAMMA)
        off = after - np.array([float(oracles.mp.log(p)) for p in exact])
        assert np.ptp(off) == pytest.approx(size, rel=1e-9)


def test_averages_of_multiplicative_weights_are_those_of_the_oracle(case: Case) -> None:
    """E_0 of the average of π_0 … π_{T-1} from uniform, and log n/(γT) + γ/24."""
    claim = claims.get("mwu-average-converges")
    admitted = claim.admit(case)
    assert isinstance(admitted, Case) and admitted.beta == 0
    uniform = oracles.simplex([1, 1, 1])
    plays = [uniform, *oracles.trajectory("MultiplicativeWeights", P, RHO, BETA, [1, 1, 1], 4, step_size=GAMMA)]
    for t in range(1, 6):
        average = oracles.averaged(plays[:t], [1] * t)
        expected = float(oracles.unregularized_exploitability(P, average))
        assert claim.evaluate(claim.measure, admitted)[0][t - 1] == pytest.approx(expected, rel=1e-12, abs=1e-15)
        bound = np.log(3) / (GAMMA * t) + GAMMA / 24
        assert claim.evaluate(claim.bound, admitted)[0][t - 1] == pytest.approx(bound, rel=1e-14)


def test_the_spiral_is_that_of_the_oracle(case: Case) -> None:
    """KL(π*‖π_t) along multiplicative weights, π* the opposing margins of a three-cycle."""
    claim = claims.get("mwu-last-iterate-spirals")
    admitted = claim.admit(case)
    assert isinstance(admitted, Case)
    target = oracles.simplex([P[1, 2] - 0.5, P[2, 0] - 0.5, P[0, 1] - 0.5])
    run = oracles.trajectory("MultiplicativeWeights", P, RHO, BETA, START, 3, step_size=GAMMA)
    expected = [float(oracles.kl(target, policy)) for policy in run]
    np.testing.assert_allclose(claim.evaluate(claim.measure, admitted)[0][:3], expected, rtol=1e-11)
    assert expected[0] < expected[1] < expected[2]


def test_winners_are_several_where_there_are_several() -> None:
    """Two copies of an action: the centre of the edge and both its ends, or one of them, each of them a winner."""
    from nlhfsim.claims.proximal_point import winners

    cycle = nl.games.rock_paper_scissors(0.5, beta=0.0).preferences
    game = nl.PreferenceGame(cycle[np.ix_([0, 1, 2, 2], [0, 1, 2, 2])])
    case = Case(game.with_beta(0.0), np.log([0.4, 0.3, 0.2, 0.1]), np.log([0.1, 0.2, 0.3, 0.4]), 1.0)
    found = winners(case)
    assert len(found) > 1 and np.ptp(found[:, 2]) > 0.1
    for winner in found:
        assert winner[2] + winner[3] == pytest.approx(1 / 3, abs=1e-9)
        assert float(oracles.unregularized_exploitability(game.preferences, winner)) < 1e-9


# --- the claims can fail --------------------------------------------------------------------------------------------------

MUTANTS = [(name, mutant.name) for name in IDS for mutant in claims.get(name).mutants]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS)
def test_mutants_fall_within_sixty_cases(name: str, mutant: str) -> None:
    """Each wrong claim is rejected soon."""
    claim = claims.get(name)
    assert first_rejected(claim.mutated(next(m for m in claim.mutants if m.name == mutant))) is not None


STEP_MUTANTS = [
    (name, m.name) for name in claims.names() if claims.get(name).measure is residuals for m in claims.get(name).mutants
]


@pytest.mark.parametrize(("name", "mutant"), STEP_MUTANTS)
def test_wrong_steps_fall_within_sixty_cases(name: str, mutant: str) -> None:
    """Each wrong step of a method is rejected by the claim that defines its step."""
    claim = claims.get(name)
    assert first_rejected(claim.mutated(next(m for m in claim.mutants if m.name == mutant))) is not None


@pytest.mark.parametrize(
    ("name", "hypothesis"),
    [
        ("nash-mirror-prox-rate", "γ ≤ 2(β + √(1 + β²))"),
        ("extragradient-rate", "γ ≤ 2/(β + √(1 + β²))"),
        ("magnetic-md-rate", "γ ≤ 4β"),
        ("nash-md-recursion", "γβ ≤ 1"),
        ("mwu-average-converges", "uniform start"),
        ("mwu-last-iterate-spirals", "interior π*"),
    ],
)
def test_dropped_hypotheses_find_counterexamples(name: str, hypothesis: str) -> None:
    """Each hypothesis is needed."""
    assert first_rejected(claims.get(name).without(hypothesis)) is not None


def test_a_step_below_one_over_beta_is_what_makes_a_step_size_of_the_other() -> None:
    """Beyond γβ = 1 the identity is one of formulas, with a negative γ': nothing violates it."""
    assert first_rejected(claims.get("explicit-is-implicit").without("γβ < 1")) is None


def cycle(beta: float, gamma: float, policy: list[float]) -> Case:
    """Rock–paper–scissors with certain votes."""
    return Case(nl.games.cyclic_tournament(3, 0.5, beta=beta), np.log(policy), np.log([0.2, 0.3, 0.5]), gamma)


@pytest.mark.parametrize(
    ("name", "hypothesis", "good", "bad"),
    [("nash-mirror-prox-rate", "γ ≤ 2(β + √(1 + β²))", 3.4, 4.0), ("magnetic-md-rate", "γ ≤ 4β", 0.08, 0.16)],
)
def test_how_far_beyond_the_range_it_fails(name: str, hypothesis: str, good: float, bad: float) -> None:
    """On rock–paper–scissors at β = 0.01: NashMirrorProx at γ = 4, not at 3.4; MagneticMirrorDescent at 16β, not at 8β."""
    claim = claims.get(name).without(hypothesis)
    starts = [[0.34, 0.33, 0.33], [0.4, 0.3, 0.3], [0.8, 0.1, 0.1], [0.9, 0.08, 0.02]]
    assert {judge(claim, cycle(0.01, good, start)).verdict for start in starts} == {"holds"}
    assert "violated" in {judge(claim, cycle(0.01, bad, start)).verdict for start in starts}


@pytest.mark.parametrize(("factor", "verdicts"), [(1.0, {"holds"}), (1.1, {"holds", "violated"})])
def test_extragradient_keeps_its_rate_in_the_range_of_mirror_prox(factor: float, verdicts: set[str]) -> None:
    """Through explicit-is-implicit γ ≤ 2(β + √(1 + β²)) becomes γ ≤ 2/(β + √(1 + β²)); a tenth more fails."""

    def widest(case: Case) -> float:
        return float(2 / (case.beta + np.hypot(1, case.beta)))

    wider = dataclasses.replace(claims.get("extragradient-rate"), hypotheses=(steps_up_to("wider", widest, factor),))
    assert {judge(wider, mixed_case(0, k)).verdict for k in range(100)} == verdicts


def test_simpler_games_are_games_though_rounding_goes_up_twice() -> None:
    """0.95 is 1.0 and 1 - 0.95 is 0.1 to one decimal: a simpler game rounds one of the two."""
    assert np.round(1 - 0.95, 1) == 0.1 and np.round(0.95, 1) == 1.0
    tried = list(_simpler(Case(nl.PreferenceGame([[0.5, 0.95], [1 - 0.95, 0.5]], 0.1), np.log([0.4, 0.6]), np.log([0.2, 0.8]))))
    assert any(np.array_equal(simpler.game.preferences, [[0.5, 1], [0, 0.5]]) for simpler in tried)


# --- wrong claims from outside --------------------------------------------------------------------------------------------


def outsider(**changes: Any) -> Claim:
    """A claim about MagneticMirrorDescent written without anything of the claims about it."""

    def measure(case: Case, dynamics: nl.dynamics.Dynamics) -> claims.Measured:
        return kl_to_equilibrium(case, log_policies(case, dynamics, 10)[1:])

    def bound(case: Case, dynamics: nl.dynamics.Dynamics) -> Floats:
        return np.asarray(case.start_kl / (1 + case.step_size * case.beta) ** np.arange(1, 11))

    mine = Hypothesis("small step", lambda case: case.step_size <= 4 * case.beta, _small)
    parts: dict[str, Any] = {"measure": measure, "bound": bound, "hypotheses": (mine,)} | changes
    return Claim("mine", "mine", r"\dots", nl.sources.MAGNETIC_MIRROR_DESCENT, "rate", "theorem", method=METHOD, **parts)


METHOD = nl.dynamics.MagneticMirrorDescent()


def _small(case: Case) -> Case:
    return case.at(step_size=min(case.step_size, 4 * case.beta))


def _faster(case: Case, dynamics: nl.dynamics.Dynamics) -> Floats:
    return np.asarray(case.start_kl / (1 + 1.5 * case.step_size * case.beta) ** np.arange(1, 11))


def _other_direction(case: Case, dynamics: nl.dynamics.Dynamics) -> Floats:
    return np.asarray(nl.kl(np.exp(log_policies(case, dynamics, 10)[1:]), case.equilibrium))


def test_a_right_claim_from_outside_holds() -> None:
    """The control."""
    report = nl.verify(outsider(), n_games=60, workers=1)
    assert report.passed and report["mine"].verdict == "holds"


@pytest.mark.parametrize(
    "changes",
    [{"bound": _faster}, {"measure": _other_direction}, {"hypotheses": ()}],
    ids=["constant", "direction", "hypothesis"],
)
def test_a_wrong_claim_from_outside_is_rejected(changes: dict[str, Callable[..., Any]]) -> None:
    """A constant off by 1.5, the other direction of KL, a hypothesis forgotten: violated, with a witness that replays."""
    wrong = outsider(**changes)
    report = nl.verify(wrong, n_games=60, workers=1)
    assert not report.passed and report["mine"].verdict == "violated"
    witness = report["mine"].witness
    assert witness is not None and witness.replay(wrong).verdict == "violated"


@pytest.mark.parametrize("wrong", ["no look-ahead", "second step from the half point", "opponent's policy stale"])
@pytest.mark.parametrize("name", ["nash-mirror-prox-rate", "extragradient-rate"])
def test_rates_reject_wrong_steps_too(name: str, wrong: str) -> None:
    """The published rate tells these steps from the right ones, as their characterisation does."""
    claim = claims.get(name)
    assert claim.method is not None
    assert first_rejected(claim.mutated(Mutant(wrong, {"method": mutants_of(claim.method)[wrong]}))) is not None
