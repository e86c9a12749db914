"""`verify` and its command: verdicts are the same from one process or many, wrong claims and wrong methods from outside fall."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import nlhfsim as nl
from nlhfsim import claims, dynamics
from nlhfsim.claims import Case, Claim, Measured, Mutant
from nlhfsim.claims._registry import _REGISTRY
from nlhfsim.cli.commands import group
from nlhfsim.dynamics import Dynamics
from nlhfsim.errors import InputError, UnknownNameError
from nlhfsim.games.payoffs import advantage
from nlhfsim.simplex import log_softmax
from nlhfsim.sources import PROXIMAL_POINT_NLHF

RATE = "nash-mirror-prox-rate"


def without_times(report: nl.VerificationReport) -> dict[str, Any]:
    """The report without what depends on the machine."""
    found = report.to_dict() | {"seconds": 0}
    return found | {"claims": [claim | {"seconds": 0} for claim in found["claims"]]}


def made_outside(measure: Any, bound: Any, **parts: Any) -> Claim:
    """A claim as a user writes one."""
    standard = {"kind": "upper", "status": "theorem", "title": "made outside", "statement": "x", "source": PROXIMAL_POINT_NLHF}
    return Claim(id="made-outside", measure=measure, bound=bound, **(standard | parts))


def test_processes_change_nothing() -> None:
    """One process and two give the same report, claims from outside (closures) included."""
    limit = 0.75
    mine = made_outside(lambda case: np.ptp(case.advantages @ case.policy), lambda case: limit)
    some = [RATE, "nash-md-step", mine]
    reports = [without_times(nl.verify(some, 60, 5, workers=count, kill_matrix=True)) for count in (1, 2)]
    assert reports[0] == reports[1]
    assert [claim["verdict"] for claim in reports[0]["claims"]] == ["holds", "holds", "violated"]


def test_another_seed_checks_other_games() -> None:
    """Beyond the first, readable ones."""
    one, other = (nl.verify(RATE, 40, seed, mutants=False)[RATE].median_ratio for seed in (0, 1))
    assert one != other


def test_a_verdict_counts_what_counted() -> None:
    """Skipped and inconclusive cases are counted apart, and too many inconclusive ones make the claim so."""
    for share, says in ((0.0, "holds"), (0.5, "inconclusive")):
        mine = made_outside(
            lambda case, share=share: Measured(0.5, 1.0 if case.step_size < 100**share / 10 and share else 0.0),
            lambda case: 1.0,
            counts=lambda case: "n is odd" if case.n % 2 else "",
        )
        found = nl.verify(mine, 200).verdicts[0]
        assert found.verdict == says and found.n_games + found.n_skipped + found.n_inconclusive == 200
        assert found.n_skipped > 40 and (found.n_inconclusive > 0) == (says == "inconclusive")
    nothing = nl.verify(made_outside(lambda case: 0.0, lambda case: 1.0, counts=lambda case: "never"), 10).verdicts[0]
    assert (nothing.verdict, nothing.n_games, nothing.worst_ratio, nothing.witness) == ("inconclusive", 0, None, None)


def test_costly_claims_are_checked_on_fewer_games() -> None:
    """A quarter and a twentieth, at least one."""
    for cost, count in (("cheap", 60), ("moderate", 15), ("costly", 3)):
        mine = made_outside(lambda case: 0.5, lambda case: 1.0, cost=cost)
        assert nl.verify(mine, 60).verdicts[0].n_games == count
    assert nl.verify(made_outside(lambda case: 0.5, lambda case: 1.0, cost="costly"), 1).verdicts[0].n_games == 1


def test_a_conjecture_is_searched_not_asserted() -> None:
    """Not refuted it is inconclusive, refuted it is violated, and the report passes either way."""
    for bound, says in ((1.1, "inconclusive"), (0.5, "violated")):
        mine = made_outside(lambda case: np.ptp(case.advantages @ case.policy), lambda case, b=bound: b, status="conjecture")
        report = nl.verify(mine, 60)
        assert (report.passed, report.verdicts[0].verdict) == (True, says)


def test_a_surviving_mutant_fails_the_report() -> None:
    """A check that cannot fail is no check."""
    mine = made_outside(lambda case: 0.1, lambda case: 1.0, mutants=(Mutant("half", {"bound": lambda case: 0.5}),))
    report = nl.verify(mine, 20)
    assert not report.passed and report.verdicts[0].verdict == "holds" and report.verdicts[0].mutant_rejected is False


def test_on_a_game_given() -> None:
    """Each context is checked, claims about particular games are left out, and β = 0 games count for nothing here."""
    rng = np.random.default_rng(0)
    game = nl.games.random_game(4, rng, contexts=3, beta=0.2)
    report = nl.verify([RATE, "constant-sum"], 12, game=game)
    assert report.passed and [verdict.n_games for verdict in report.verdicts] == [12, 12] and report.mutants == {}
    assert nl.verify(RATE, 3, game=game.with_beta(0.0)).verdicts[0].n_skipped == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("constant-summ",), UnknownNameError, "did you mean 'constant-sum'"),
        (([],), InputError, "claims is empty"),
        ((3,), InputError, "claims = 3 must be claims"),
        (([3],), InputError, "claims: 3 must be a claim"),
        ((["constant-sum", "constant-sum"],), InputError, "'constant-sum' is there more than once"),
        (("constant-sum", 0), InputError, "n_games = 0 must be at least 1"),
        (("constant-sum", 5, -1), InputError, "seed = -1 must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, error: type[Exception], message: str) -> None:
    """With the argument and its value."""
    with pytest.raises(error, match=message):
        nl.verify(*arguments)


# --- what it has not seen: subtly wrong claims and methods ---------------------------------------------------------------------


def kl(p: Any, q: Any) -> float:
    """KL(p‖q)."""
    return float(np.sum(p * np.log(p / q)))


WRONG_CLAIMS = {
    # π* is at most 1/β away from ρ in span; two thirds of it is not enough
    "a constant off by 1.5": made_outside(
        lambda case: np.ptp(case.log_equilibrium - case.log_reference), lambda case: 1 / (1.5 * case.beta)
    ),
    # E_β(μ) dominates β KL(μ‖π*), not β KL(π*‖μ)
    "the other KL direction": made_outside(
        lambda case: case.beta * kl(case.equilibrium, case.policy), lambda case: nl.exploitability(case.game, case.policy)
    ),
    # an explicit mirror step shrinks KL by 1 - γβ for small γ only
    "a hypothesis missing": made_outside(
        lambda case: kl(case.equilibrium, mirror_step(case)),
        lambda case: abs(1 - case.step_size * case.beta) * kl(case.equilibrium, case.policy),
    ),
}


def mirror_step(case: Case) -> Any:
    """One step of natural policy gradient."""
    slope = case.advantages @ case.policy - case.beta * (case.log_policy - case.log_reference)
    return np.exp(log_softmax(case.log_policy + case.step_size * slope))


@pytest.mark.parametrize("name", WRONG_CLAIMS)
def test_wrong_claims_from_outside_are_refuted(name: str) -> None:
    """Within 200 games, with a small witness that shows it again."""
    report = nl.verify(WRONG_CLAIMS[name], 200)
    assert not report.passed and report.verdicts[0].verdict == "violated"
    witness = report.verdicts[0].witness
    assert witness is not None and witness.case.n <= 3
    assert witness.replay(WRONG_CLAIMS[name]).verdict == "violated"


def wrong_argument(state: Any, context: Any, step_size: Any, params: Any) -> Any:
    """Magnetic mirror descent that divides by 1 + γ in place of 1 + γβ."""
    gain = advantage(context.payoff, np.exp(state.logits))
    pull = step_size * context.beta
    logits = log_softmax((state.logits + pull * context.log_reference + step_size * gain) / (1 + step_size))
    return state._replace(logits=logits)


def test_a_method_with_one_wrong_argument_is_refuted() -> None:
    """By the claim about its step, and by its rate."""
    right = dynamics.MagneticMirrorDescent(0.5)
    wrong = replace(right, method=replace(right.method, name="Wrong", step=wrong_argument))
    assert nl.verify(claims.step_claim(right), 30).passed
    assert nl.verify(claims.step_claim(wrong), 30, mutants=False).verdicts[0].verdict == "violated"
    slow: Dynamics = replace(dynamics.NashMirrorProx(), method=replace(right.method, name="Slow"))
    rate = replace(claims.get(RATE), id="slow-rate", method=slow)
    assert nl.verify(rate, 60, mutants=False).verdicts[0].verdict == "violated"


def test_the_kill_matrix_shows_which_claims_notice_a_wrong_step() -> None:
    """Every wrong step is rejected by the step's claim; the rate notices most."""
    report = nl.verify([RATE, "nash-mirror-prox-step"], 60, kill_matrix=True)
    matrix = report.wrong_steps["NashMirrorProx"]
    assert len(matrix) >= 5 and all(row["nash-mirror-prox-step"] for row in matrix.values())
    assert sum(row[RATE] for row in matrix.values()) >= 4


# --- the command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[str]:
    """A wrong claim, registered for the test."""
    yield claims.register(replace(WRONG_CLAIMS["the other KL direction"], id="wrong-direction")).id
    del _REGISTRY["wrong-direction"]


def invoke(*arguments: str) -> Any:
    """The command's result: its exit code is what the command returns."""
    return CliRunner().invoke(group, ["verify", *arguments], standalone_mode=False)


def test_the_command_prints_one_object(tmp_path: Path) -> None:
    """With the fields that others rely on; the folder holds it and the witnesses, which replay."""
    result = invoke(RATE, "constant-sum", "--games", "30", "--json", "--out", str(tmp_path))
    found = json.loads(result.stdout)
    assert result.return_value == 0 and found["passed"] is True
    assert [claim["id"] for claim in found["claims"]] == [RATE, "constant-sum"]
    for claim in found["claims"]:
        assert claim["kind"] in ("rate", "equality") and claim["status"] in ("theorem", "identity")
        assert claim["verdict"] == "holds" and claim["n_games"] == 30 and claim["mutant_rejected"] is True
        assert 0 <= claim["worst_ratio"] <= 1
    assert json.loads((tmp_path / "result.json").read_text()) == found
    replayed = invoke("--replay", str(tmp_path / "witnesses" / f"{RATE}.json"), "--json")
    assert replayed.return_value == 0 and json.loads(replayed.stdout)["verdict"] == "holds"


def test_the_command_returns_1_on_a_violated_claim(registered: str) -> None:
    """And shows the witness."""
    result = invoke(registered, "--games", "40")
    assert result.return_value == 1
    assert "violated" in result.stdout and "P = [[" in result.stdout


def test_the_command_shows_the_kill_matrix() -> None:
    """Wrong claims and wrong steps, and by what they were rejected."""
    result = invoke("nash-md-step", RATE, "--games", "60", "--mutants")
    assert result.return_value == 0
    for words in ("Wrong claims", "γ up to twice as large", "Wrong steps", "opponent's policy stale", "not noticed by"):
        assert words in result.stdout


def test_deep_and_games_exclude_each_other() -> None:
    """As both say how many."""
    assert "--deep stands for --games 5000" in str(invoke("--deep", "--games", "3").exception)
