"""`verify` and its command: verdicts are the same from one process or many, wrong claims and wrong methods from outside fall."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import nlhfsim as nl
from nlhfsim import claims, dynamics
from nlhfsim.claims import Case, Claim, Finding, Measured, Mutant
from nlhfsim.claims._registry import _REGISTRY
from nlhfsim.claims._verdict import conclude
from nlhfsim.cli import verification
from nlhfsim.cli.commands import group
from nlhfsim.dynamics import Dynamics
from nlhfsim.errors import InputError, UnknownNameError
from nlhfsim.games.payoffs import advantage
from nlhfsim.simplex import log_softmax
from nlhfsim.sources import PROXIMAL_POINT_NLHF
from nlhfsim.verify import Verdict

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


def test_a_claim_that_names_the_package_reaches_other_processes(tmp_path: Path) -> None:
    """From a script without a guard, as one is written; what is measured there is what is measured here."""
    script = tmp_path / "script.py"
    script.write_text("""
import nlhfsim as nl
from nlhfsim.claims import Claim
from nlhfsim.sources import PROXIMAL_POINT_NLHF

def gap(case):
    return nl.exploitability(case.game, log_policy=case.log_policy)

mine = Claim("mine", "x", "x", PROXIMAL_POINT_NLHF, "upper", "theorem", gap, lambda case: nl.kl([0.5, 0.5], [0.5, 0.5]) - 1.0)
print([nl.verify(mine, 40, workers=count)["mine"].median_ratio for count in (1, 2)])
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    one, two = json.loads(done.stdout.replace("inf", "Infinity"))
    assert done.returncode == 0 and done.stderr == "" and one == two


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


def test_a_verdict_sums_up_its_findings() -> None:
    """Up to 1 % undecided cases are none too many; the worst ratio, violated or not, and the median; every mutant must fall."""
    mine = made_outside(lambda case: 0.5, lambda case: 1.0)
    doubtful, held = Finding("inconclusive"), [Finding("holds", ratio) for ratio in [0.1] * 50 + [0.4] * 48]
    known = [*held, Finding("holds", 0.9)]
    one, two = (
        conclude(mine, [*some, *[doubtful] * k, Finding("skipped")], None, {}, 0.0) for some, k in ((known, 1), (held, 2))
    )
    assert (one.verdict, two.verdict) == ("holds", "inconclusive")
    assert (one.n_games, one.n_inconclusive, one.n_skipped) == (99, 1, 1)
    assert (one.worst_ratio, one.median_ratio) == (0.9, 0.1) and one.margin == pytest.approx(0.1)
    assert one.passed and one.mutant_rejected is None
    bad = conclude(mine, [*known, Finding("violated", 1.5)], None, {"a": True, "b": True}, 0.0)
    assert (bad.verdict, bad.worst_ratio, bad.margin, bad.passed) == ("violated", 1.5, -0.5, False)
    survived = conclude(mine, known, None, {"a": True, "b": False}, 0.0)
    assert survived.mutant_rejected is False and not survived.passed
    undecided = conclude(mine, [doubtful], None, {}, 0.0)
    silent = conclude(mine, [Finding("skipped")] * 3, None, {}, 0.0)
    open_question = replace(undecided, claim=replace(mine, status="conjecture"))
    assert (undecided.passed, two.passed, silent.passed, open_question.passed) == (False, False, True, True)
    reports = (((one, bad), False), ((one, one), True), ((one, undecided), False), ((one, silent), True), ((silent,), False))
    for verdicts, passed in reports:
        assert nl.VerificationReport(verdicts, {}, {}, 1, 0, 0.0).passed is passed


def test_a_report_as_a_table() -> None:
    """A row a claim, with what can be sorted by; claims are found by id."""
    report = nl.verify(["constant-sum", RATE], 5)
    frame = report.to_frame()
    assert frame["id"].tolist() == ["constant-sum", RATE] and frame["verdict"].tolist() == ["holds"] * 2
    assert {"worst_ratio", "margin", "n_games", "status"} <= set(frame) and not {"statement", "witness"} & set(frame)
    assert "passed, 2 holds, 0 violated" in repr(report)
    with pytest.raises(KeyError, match="constant"):
        report["constant"]


@pytest.mark.parametrize(
    ("cost", "asked", "tried"), [("cheap", 1, 60), ("cheap", 80, 80), ("moderate", 400, 100), ("costly", 20, 3)]
)
def test_mutants_get_enough_games(cost: str, asked: int, tried: int) -> None:
    """As many as the claim, but 60 over the cost class at least: a mutant that survives was tried on so many, of the seed."""
    seen: list[Case] = []
    wrong = Mutant("no mutant", {"bound": lambda case: seen.append(case) or 1.0})
    report = nl.verify(made_outside(lambda case: 0.5, lambda case: 1.0, cost=cost, mutants=(wrong,)), asked, 5, workers=1)
    assert not report.passed and [case.game.fingerprint for case in seen] == fingerprints(5, tried)


def fingerprints(seed: int, count: int) -> list[str]:
    """Of the first games of the mixed family."""
    return [claims.mixed_case(seed, index).game.fingerprint for index in range(count)]


def own_cases(seed: int) -> list[Case]:
    """Three cases of a claim's own, told apart by their step size."""
    start = np.log([0.5, 0.3, 0.2])
    return [Case(nl.games.rock_paper_scissors(beta=0.1), start, start, step) for step in (seed + 1.0, seed + 5.0, seed + 2.0)]


def test_a_claim_about_particular_games() -> None:
    """Is checked on these, once, for the seed, and so are its mutants; the case shown is the one that decided."""
    seen: list[float] = []
    wrong = Mutant("never", {"bound": lambda case: seen.append(case.step_size) or 100.0})
    mine = made_outside(
        lambda case: case.step_size,
        lambda case: 10.0,
        cases=own_cases,
        counts=lambda case: "too small" if case.step_size == 4 else "",
        mutants=(wrong,),
    )
    found = nl.verify(mine, 50, 3, workers=1).verdicts[0]
    assert (found.n_games, found.n_skipped, found.worst_ratio, found.median_ratio) == (2, 1, 0.8, 0.65)
    assert found.witness is not None and found.witness.case.step_size == 8 and seen == [8, 5]
    with pytest.raises(InputError, match="not about particular games"):
        nl.verify(mine, game=nl.games.rock_paper_scissors())


def test_the_witness_is_the_worst_case() -> None:
    """Of those that hold the tightest, of the violations the largest; on a game given it is of that game."""
    game = nl.games.cyclic_tournament(5, 0.3, beta=0.7)
    measured = made_outside(lambda case: case.policy.max(), lambda case: 1.0)
    for given in (None, game):
        found = nl.verify(measured, 20, 2, game=given).verdicts[0]
        assert found.witness is not None and found.witness.finding.ratio == found.worst_ratio
        assert given is None or found.witness.case.game.fingerprint == game.fingerprint
    policies = [nl.verify(measured, 3, seed, game=game).verdicts[0].worst_ratio for seed in (0, 0, 1)]
    assert policies[0] == policies[1] != policies[2]
    # With doubt allowed for, a case may hold at a larger ratio than one that is violated.
    doubtful = made_outside(
        lambda case: Measured(1.008, 9e-3) if case.n > 3 else 1.001, lambda case: 1.0, counts=lambda c: "" if c.n > 2 else "few"
    )
    found = nl.verify(doubtful, 40).verdicts[0]
    assert found.verdict == "violated" and found.witness is not None and found.witness.finding.verdict == "violated"


def test_a_changed_claim_of_the_package_is_not_taken_for_the_registered_one() -> None:
    """Under the same id, in one process and in two."""
    wrong = replace(claims.get("constant-sum"), bound=lambda case: 2.0)
    for workers in (1, 2):
        assert nl.verify(wrong, 20, mutants=False, workers=workers).verdicts[0].verdict == "violated"


def test_the_kill_matrix_does_not_need_the_mutants() -> None:
    """Without them the wrong steps of a claim are tried all the same; a costly claim is left out."""
    mutants = nl.verify("nash-md-step", 10, kill_matrix=True)
    alone = nl.verify("nash-md-step", 10, mutants=False, kill_matrix=True)
    assert alone.mutants == {} and alone.wrong_steps == mutants.wrong_steps
    assert all(row["nash-md-step"] for row in alone.wrong_steps["NashMD"].values())
    costly = replace(claims.get("nash-md-step"), id="costly-step", cost="costly")
    assert nl.verify(costly, 10, mutants=False, kill_matrix=True).wrong_steps == {}


def test_on_a_game_given() -> None:
    """Each context is checked, claims about particular games are left out, and β = 0 games count for nothing here."""
    rng = np.random.default_rng(0)
    game = nl.games.random_game(4, rng, contexts=3, beta=0.2)
    report = nl.verify([RATE, "constant-sum"], 12, game=game)
    assert report.passed and [verdict.n_games for verdict in report.verdicts] == [12, 12] and report.mutants == {}
    assert nl.verify(RATE, 3, game=game.with_beta(0.0)).verdicts[0].n_skipped == 3
    seen: list[str] = []
    nl.verify(made_outside(lambda case: seen.append(case.game.fingerprint) or 0.0, lambda case: 1.0), 5, game=game)
    assert {game.context(k).fingerprint for k in range(3)} == set(seen)


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
        ({"claims": "constant-sum", "mutants": 1}, InputError, "mutants = 1 must be"),
        ({"claims": "constant-sum", "kill_matrix": "yes"}, InputError, "kill_matrix = 'yes' must be"),
        ({"claims": "constant-sum", "workers": 0}, InputError, "workers = 0 must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, error: type[Exception], message: str) -> None:
    """With the argument and its value."""
    with pytest.raises(error, match=message):
        nl.verify(**arguments) if isinstance(arguments, dict) else nl.verify(*arguments)


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


def test_the_command_hands_on_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """All claims by default, 200 games, 5000 with --deep; the seed, the processes and whether the kill matrix is wanted."""
    asked: list[Any] = []
    report = nl.verify("constant-sum", 1)

    def noted(*arguments: Any, **options: Any) -> nl.VerificationReport:
        asked.append((*arguments, options))
        return report

    monkeypatch.setattr(nl, "verify", noted)
    for words in ([], ["--deep"], ["a", "b", "--games", "7", "--seed", "3", "--workers", "2", "--mutants"]):
        assert invoke(*words).return_value == 0
    assert asked == [
        (None, 200, 0, {"kill_matrix": False, "workers": None}),
        (None, 5000, 0, {"kill_matrix": False, "workers": None}),
        (["a", "b"], 7, 3, {"kill_matrix": True, "workers": 2}),
    ]


def test_a_replay_returns_1_where_the_claim_is_asserted_and_violated(registered: str, tmp_path: Path) -> None:
    """The witness of a wrong claim is judged anew: 1 while it is violated, 0 if the claim is a conjecture or was mended."""
    path = nl.verify(registered, 40, mutants=False).save(tmp_path) / "witnesses" / f"{registered}.json"
    wrong = claims.get(registered)
    result = invoke("--replay", str(path))
    assert result.return_value == 1 and "now: violated, measured" in result.stdout
    _REGISTRY[registered] = replace(wrong, status="conjecture")
    assert invoke("--replay", str(path)).return_value == 0
    _REGISTRY[registered] = replace(wrong, bound=lambda case: np.inf)
    result = invoke("--replay", str(path))
    assert result.return_value == 0 and "now: holds" in result.stdout and f"{registered}: violated" in result.stdout


def judged(status: str, verdict: str, mutants: Any = (), **counts: int) -> Verdict:
    """A verdict with some of its parts."""
    mine = made_outside(lambda case: 0.5, lambda case: 1.0, status=status)
    numbers = {"n_games": 5, "n_inconclusive": 0, "n_skipped": 0} | counts
    return Verdict(mine, verdict, **numbers, worst_ratio=0.9, median_ratio=0.4, witness=None, mutants=dict(mutants))


def test_the_table_says_what_was_found() -> None:
    """In words that fit the status; the mutants that fell and the names of those that did not; the undecided cases."""
    verdicts = [
        judged("conjecture", "inconclusive"),
        judged("conjecture", "inconclusive", n_games=0),
        judged("counterexample", "holds"),
        judged("counterexample", "violated"),
        judged("theorem", "holds", {"a": True, "b": False, "c": True}, n_inconclusive=3, n_skipped=40),
    ]
    columns, rows = verification.verdict_table(verdicts)
    table = [dict(zip(columns, row)) for row in rows]
    assert [row["verdict"] for row in table] == ["no counterexample", "inconclusive", "shown", "violated", "holds"]
    assert [row["mutants rejected"] for row in table] == [None, None, None, None, "2 of 3"]
    assert [row["games"] for row in table] == [5, 0, 5, 5, 5]
    assert (table[0]["worst ratio"], table[0]["median"]) == (0.9, 0.4)
    assert verification.verdict_notes(verdicts)[1:] == [
        "3 cases could not be told from rounding and do not count",
        "mutants that survived: made-outside (b)",
        "no game says anything about made-outside; more games may",
    ]
    assert len(verification.verdict_notes(verdicts[:1])) == 1


def test_a_claim_that_nothing_decides_does_not_pass() -> None:
    """A measure that is NaN, with or without mutants."""
    mine = made_outside(lambda case: np.nan, lambda case: 1.0)
    for mutants in (True, False):
        report = nl.verify(mine, 10, mutants=mutants)
        assert not report.passed and report.verdicts[0].verdict == "inconclusive" and "FAILED" in repr(report)


def test_the_kill_matrix_in_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong claims apart from wrong steps; each step with the claims that reject it and those that do not notice it."""
    tables: dict[str, Any] = {}
    monkeypatch.setattr(verification.output, "table", lambda title, columns, rows, notes=(): tables.update({title: rows}))
    mutants, steps = {"one": {"stale": True, "half": False}}, {"Method": {"stale": {"one": True, "two": False}}}
    verification._tell_mutants(nl.VerificationReport((), mutants, steps, 1, 0, 0.0))
    assert tables == {"Wrong claims": [["one", "half", False]], "Wrong steps": [["Method", "stale", "one", "two"]]}
