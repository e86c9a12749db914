"""Asymptotic claims: what is measured on runs against closed forms, and wrong ones rejected."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.claims import Case, judge, mixed_case
from nlhfsim.claims import high_probability as votes
from nlhfsim.claims import stability_limit as limits
from nlhfsim.claims._growth import growth, turning_points
from nlhfsim.claims._method_mutants import mutants_of
from nlhfsim.claims.local_rate import linearizable, local_rate_claim
from nlhfsim.claims.thresholds import _roots
from nlhfsim.errors import InputError

OMEGA = 12**-0.5


def cycle(beta: float, step_size: float = 1.0) -> Case:
    """The uniform 3-cycle of certain votes."""
    game = nl.games.cyclic_tournament(3, 0.5, beta=beta)
    uniform = np.full(3, -math.log(3))
    return Case(game, uniform, uniform, step_size)


# --- growth along runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_size", [0.2, 1.0, 3.0])
def test_growth_is_that_of_the_closed_form(step_size: float) -> None:
    """|1 - γβ + iγω|, shrinking and growing alike; a method whose state has more than θ; and nothing where nothing moves."""
    case = cycle(0.2, step_size)
    found = growth(case, dynamics.NaturalPG(step_size))
    assert found.value == pytest.approx(math.log(abs(1 - step_size * (0.2 - 1j * OMEGA))), rel=1e-4)
    s, w = 1 / (1 + 0.2 * step_size), 1j * OMEGA
    matrix = s * np.array([[1 + step_size * w * s, step_size**2 * w * s], [w, w * step_size]])
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    assert growth(case, dynamics.OptimisticMirrorDescent(step_size)).value == pytest.approx(math.log(radius), rel=1e-3)


def test_growth_of_a_biased_method_is_about_its_own_fixed_point() -> None:
    """`NashMD` off the uniform reference rests elsewhere than at π*; the factor there is that of differences of a plain run."""
    game = nl.games.cyclic_tournament(3, 0.5, beta=0.3).with_reference([0.6, 0.3, 0.1])
    start = np.log([0.3, 0.3, 0.4])
    run = nl.simulate(game, dynamics.NashMD(0.5), 60, start=np.exp(start), record_every=1)
    assert run.log_policies is not None
    moves = np.linalg.norm(np.diff(run.log_policies[0], axis=0), axis=1)
    fitted = np.polyfit(np.arange(20, 60), np.log(moves[20:60]), 1)[0]
    assert growth(Case(game, start, start, 0.5), dynamics.NashMD(0.5)).value == pytest.approx(fitted, rel=0.03)
    assert run.kl[0, -1] > 1e-6


def test_runs_turn_where_they_should() -> None:
    """6β/(β² + 1/12) for `SelfPlayPG`, 2β/(β² + 1/12) for `NaturalPG` on the uniform cycle, within 1 %."""
    for beta in (0.05, 0.5):
        for method, factor in ((dynamics.SelfPlayPG(), 6), (dynamics.NaturalPG(), 2)):
            expected = factor * beta / (beta**2 + 1 / 12)
            (turn,) = turning_points(cycle(beta), method, expected / 3, expected * 3)
            assert turn.value == pytest.approx(expected, rel=0.01) and turn.uncertainty < 0.01 * expected


def test_the_window_of_nash_md() -> None:
    """Its ends as published; none at β = 0.1."""
    assert _roots()(cycle(0.01), None) == pytest.approx([0.241, 96.4], abs=0.05)
    assert _roots()(cycle(0.05), None) == pytest.approx([1.33, 15.7], abs=0.05)
    assert not len(_roots()(cycle(0.1), None)) and not turning_points(cycle(0.1), dynamics.NashMD(), 0.1, 9.99)


# --- local rates -----------------------------------------------------------------------------------------------------------


def test_every_smooth_method_has_a_local_rate() -> None:
    """A claim a method, found by its name, and one for all of them on the cycle; none for what is not smooth or has no rest."""
    assert set(linearizable()) == set(nl.claims.local_rate._ON_CYCLE)
    assert {"local-rate", "local-rate-nash-md", "local-rate-proximal-pg"} <= set(nl.claims.names())
    assert "local-rate-nash-prox" in [claim.id for claim in nl.claims.about("NashProx")]
    for method in (dynamics.RegretMatching(), dynamics.MultiplicativeWeights(0.1), dynamics.MagnetRefresh()):
        with pytest.raises(InputError, match="has no local rate"):
            local_rate_claim(method)


@pytest.mark.parametrize("name", ["local-rate", "local-rate-natural-pg", "local-rate-nash-prox"])
def test_local_rates_hold_and_mutants_do_not(name: str) -> None:
    """Within 2 %; twice the regularization or another rotation is told apart."""
    verdict = nl.verify(name, n_games=160, seed=2, workers=1).verdicts[0]
    assert verdict.passed and verdict.verdict == "holds" and verdict.mutant_rejected


def test_a_method_of_ones_own_can_be_checked() -> None:
    """With other parameters it holds; a step that is not differentiated as it is run would not."""
    mine = local_rate_claim(dynamics.NashProx(0.8, 4.0, averaging=0.3))
    case = mixed_case(0, 2)
    assert judge(mine, case).verdict == "holds"
    doubled = mutants_of(dynamics.NaturalPG(0.3))["factor 2 in the step"]
    right = local_rate_claim(dynamics.NaturalPG(0.3))
    wrong = replace(right, measure=lambda case, _: right.measure(case, replace(doubled, step_size=case.step_size)))
    assert judge(right, case).verdict == "holds" and judge(wrong, case).verdict == "violated"


# --- thresholds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["critical-step", "omd-critical-step", "nash-md-threshold"])
def test_thresholds_hold_and_mutants_do_not(name: str) -> None:
    """Within 1.5 %; wrong formulas are told apart."""
    verdict = nl.verify(name, n_games=80, seed=0, workers=1).verdicts[0]
    assert verdict.verdict == "holds" and verdict.n_inconclusive == 0 and any(verdict.mutants.values())


def test_wrong_thresholds_from_outside_are_found() -> None:
    """1/β without ω, and γ_c of another β."""
    for wrong in (lambda case, dynamics: 2 / case.beta, lambda case, dynamics: 6 * case.beta / (case.beta**2 + 0.09)):
        claim = replace(nl.claims.get("critical-step"), id="wrong", bound=wrong)
        assert judge(claim, mixed_case(0, 2)).verdict == "violated"


# --- the stability limit ---------------------------------------------------------------------------------------------------


def circulant_times(n: int, beta: float) -> tuple[float, float]:
    """Time constants of `NaturalPG` and `NashMirrorProx` at their best step, from the circulant's eigenvalues on a fine grid."""
    row = nl.games.cyclic_tournament(n, 0.5).advantages[0]
    w = np.fft.fft(row)[1:] / n
    found = []
    for factor in (
        lambda g: np.abs(1 - g * beta + g * w).max(),
        lambda g: np.abs((1 + g * w * (1 + g * w) / (1 + g * beta)) / (1 + g * beta)).max(),
    ):
        found.append(max(-np.log(factor(g)) for g in np.geomspace(1e-3, 10, 20_000)))
    return 1 / found[0], 2 / found[1]


def test_time_constants_are_those_of_the_circulant() -> None:
    """What `stability-limit` reads off linearizations of the steps, in closed form."""
    natural, prox = limits._times(21, limits.GRADIENT)[1], limits._times(21, limits.PROXIMAL)[0]
    for k, beta in enumerate(limits.BETAS):
        assert (natural[k], prox[k]) == pytest.approx(circulant_times(21, beta), rel=1e-3)


@pytest.mark.parametrize("name", ["stability-limit", "stability-limit-proximal", "stability-limit-one-mode"])
def test_the_stability_limit_holds_and_mutants_do_not(name: str) -> None:
    """Slopes -2 and -1; the control."""
    verdict = nl.verify(name, workers=1).verdicts[0]
    assert verdict.passed and verdict.verdict == "holds" and verdict.mutant_rejected


# --- votes -----------------------------------------------------------------------------------------------------------------

WITH_VOTES = [
    "self-play-pg-high-probability",
    "self-play-pg-high-probability-tail",
    "proximal-pg-high-probability",
    "proximal-pg-high-probability-tail",
    "proximal-pg-above-critical-step",
]


@pytest.mark.parametrize("seed", [0, 1])
def test_high_probability_holds_and_mutants_do_not(seed: int) -> None:
    """Slopes -1, logarithmic tails, the contrast; too small a constant, too large a first step and other laws are told apart."""
    report = nl.verify(WITH_VOTES, seed=seed, workers=1)
    assert report.passed and all(verdict.verdict == "holds" and verdict.mutant_rejected for verdict in report.verdicts)


def test_a_first_step_below_the_critical_one_is_not_enough() -> None:
    """At γ_0 = 6 < γ_c = 9 the median still falls like 1/T, but one run in ten is thrown far off for good."""
    case = next(votes._votes(0))
    critical = nl.stability.critical_step(case.game, dynamics.SelfPlayPG)
    found = votes._found("SelfPlayPG", case.step_size, 6.0, 0)
    assert critical == pytest.approx(9.0) and found.slopes[0] < -0.8 and found.slopes[-1] > -0.5
    assert found.quantiles[-1, -1] > 1e3 * votes._found("SelfPlayPG", case.step_size, 1.0, 0).quantiles[-1, -1]


def test_wrong_laws_from_outside_are_found() -> None:
    """A tail that grows like 1/δ is not what is seen."""
    claim: Any = replace(
        nl.claims.get("self-play-pg-high-probability-tail"), id="wrong", bound=lambda case: np.array([5.0, 10.0])
    )
    assert nl.verify(claim, workers=1).verdicts[0].verdict == "violated"
