"""The machinery of claims: what a case says, hypotheses, mutants, witnesses, the mixed family; on claims made here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.claims import Case, Claim, Hypothesis, Measured, Mutant, cases_of_game, judge, load_witness, mixed_case, shrink
from nlhfsim.claims._case import FAMILIES
from nlhfsim.claims._registry import _REGISTRY
from nlhfsim.claims._witness import witness_of
from nlhfsim.errors import DataError, InputError, UnknownNameError
from nlhfsim.sources import PROXIMAL_POINT_NLHF

CASE = Case(nl.games.cyclic_tournament(3, 0.5, beta=0.1), np.log([0.5, 0.3, 0.2]), np.log([0.2, 0.2, 0.6]), 2.0)


def claim(measure: Any, bound: Any, kind: str = "upper", **parts: Any) -> Claim:
    """A claim whose sides are given: functions, or what they return."""
    sides = [side if callable(side) else lambda case, side=side: side for side in (measure, bound)]
    return Claim("made-here", "made here", "x", PROXIMAL_POINT_NLHF, kind, "theorem", *sides, **({"tolerance": 0.0} | parts))


def verdict(*sides: Any, **parts: Any) -> str:
    """What the case says about such a claim."""
    return judge(claim(*sides, **parts), CASE).verdict


# --- one case -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "measured", "bound", "says"),
    [
        ("upper", 1.0, 2.0, "holds"),
        ("upper", 2.0, 2.0, "holds"),
        ("upper", 2.0 + 1e-15, 2.0, "violated"),
        ("upper", -1.0, 0.0, "holds"),
        ("upper", np.inf, 2.0, "violated"),
        ("rate", 1.0, 2.0, "holds"),
        ("rate", 3.0, 2.0, "violated"),
        ("lower", 2.0, 1.0, "holds"),
        ("lower", 1.0, 2.0, "violated"),
        ("lower", 0.0, -1.0, "holds"),
        ("equality", 1.0, 1.0, "holds"),
        ("equality", 1.0, 1.0 + 1e-15, "violated"),
        ("threshold", 0.0, 1.0, "violated"),
        ("equality", np.inf, 1.0, "violated"),
        ("upper", 1.0, np.inf, "holds"),
        ("upper", np.inf, np.inf, "holds"),
        ("upper", 1.0, -np.inf, "violated"),
        ("lower", 1.0, -np.inf, "holds"),
        ("lower", np.inf, np.inf, "holds"),
        ("lower", 1.0, np.inf, "violated"),
        ("threshold", np.inf, np.inf, "holds"),
    ],
)
def test_each_kind_compares_as_it_says(kind: str, measured: float, bound: float, says: str) -> None:
    """Upper bounds and rates from below, lower bounds from above, equalities and thresholds both ways."""
    assert verdict(measured, bound, kind) == says
    if np.isinf([measured, bound]).any():
        assert verdict(measured, bound, kind, tolerance=1e-10) == says


@pytest.mark.parametrize(
    ("kind", "measured", "bound", "ratio"), [("upper", 1.0, 4.0, 0.25), ("lower", 4.0, 1.0, 0.25), ("equality", 1.0, 1.2, 0.5)]
)
def test_the_ratio_is_the_share_of_what_is_allowed(kind: str, measured: float, bound: float, ratio: float) -> None:
    """1 means attained; equalities count in units of their tolerance, here 0.4."""
    found = judge(claim(measured, bound, kind, absolute=0.4 if kind == "equality" else 0.0), CASE)
    assert (found.verdict, found.measured, found.bound) == ("holds", measured, bound)
    assert found.ratio == pytest.approx(ratio)


def test_the_worst_entry_decides() -> None:
    """Of an array the entry of the largest ratio is reported; one violated entry is enough."""
    found = judge(claim(np.array([1.0, 3.0, 0.5]), np.array([2.0, 4.0, 5.0])), CASE)
    assert (found.verdict, found.measured, found.bound) == ("holds", 3.0, 4.0)
    found = judge(claim(np.array([1.0, 4.1, 0.5]), np.array([2.0, 4.0, 0.1])), CASE)
    assert (found.verdict, found.measured) == ("violated", 0.5)


def test_a_violated_entry_is_shown_though_a_doubtful_one_looks_worse() -> None:
    """1.008 ± 0.009 against 1 is no violation, 1.001 exactly is, with the smaller ratio."""
    found = judge(claim(Measured(np.array([1.008, 1.001]), np.array([9e-3, 0.0])), 1.0), CASE)
    assert (found.verdict, found.measured) == ("violated", 1.001)


@pytest.mark.parametrize("kind", ["upper", "lower", "rate"])
def test_zero_against_zero_holds_and_says_nothing_about_the_constant(kind: str) -> None:
    """0 ≤ 2·0 too; another entry decides."""
    nothing = judge(claim(0.0, 0.0, kind=kind), CASE)
    assert (nothing.verdict, nothing.ratio) == ("holds", 0)
    sides = (1.0, 0.5) if kind == "lower" else (0.5, 1.0)
    assert judge(claim(*(np.array([0.0, side]) for side in sides), kind=kind), CASE).ratio == 0.5
    assert judge(claim(-1.0, 0.0), CASE).ratio == 0


def test_what_cannot_be_told_from_rounding_decides_nothing() -> None:
    """NaN and uncertain entries are left out; if no entry is left the case is inconclusive, never holds."""
    assert verdict(np.array([np.nan, 1.0]), 2.0) == "holds"
    assert verdict(np.nan, 2.0) == "inconclusive"
    assert verdict(Measured(1.0, 0.5), 2.0) == "inconclusive"
    assert verdict(Measured(np.array([3.0, 1.0]), np.array([0.5, 0.0])), 2.0) == "holds"
    assert verdict(2.0, Measured(1.99, 0.5)) == "inconclusive"
    assert verdict(1.0, np.nan) == "inconclusive"


def test_a_hundredth_of_the_larger_side_is_certain_enough() -> None:
    """Of 2, that is 0.02; and what is within the absolute tolerance needs no digits."""
    assert verdict(Measured(1.0, 0.019), 2.0) == "holds" and verdict(Measured(1.0, 0.021), 2.0) == "inconclusive"
    assert verdict(Measured(1e-12, 1e-11), 0.0, "equality", absolute=1e-10) == "holds"


def test_uncertainty_is_allowed_for_and_no_more() -> None:
    """A difference below the uncertainties of both sides is no violation, one above is."""
    assert verdict(Measured(2.0 + 1.5e-3, 1e-3), Measured(2.0, 1e-3)) == "holds"
    assert verdict(Measured(2.0 + 2.5e-3, 1e-3), Measured(2.0, 1e-3)) == "violated"
    assert verdict(2.0 + 1e-6, 2.0, tolerance=1e-6) == "holds"
    assert verdict(2.0 + 3e-6, 2.0, tolerance=1e-6) == "violated"
    assert verdict(1.4, 1.0, absolute=0.5) == "holds" and verdict(1.6, 1.0, absolute=0.5) == "violated"


def test_equalities_allow_for_uncertainty_and_for_a_share_of_the_larger_side() -> None:
    """±0.001 on both sides covers 0.0015 and not 0.0025; 1 and 2 differ by half of the larger."""
    assert verdict(Measured(1.0, 1e-3), Measured(1.0015, 1e-3), "equality") == "holds"
    assert verdict(Measured(1.0, 1e-3), Measured(1.0025, 1e-3), "equality") == "violated"
    assert verdict(1.0, 2.0, "equality", tolerance=0.5) == "holds"
    assert verdict(1.0, 2.0, "equality", tolerance=0.49) == "violated"


def test_sides_of_different_shapes_are_refused() -> None:
    """The message names the claim and both shapes."""
    with pytest.raises(InputError, match=r"made-here: measure has shape \(2,\), bound \(3,\)"):
        verdict(np.ones(2), np.ones(3))
    with pytest.raises(InputError, match=r"made-here: uncertainty has shape \(3,\), its value \(1,\)"):
        verdict(Measured(1.0, np.zeros(3)), 2.0)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (lambda case: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda case: "a word", "ValueError: could not convert string to float"),
        (lambda case: np.array([1 + 2j]), "TypeError: it returned complex numbers"),
        (lambda: 1.0, "TypeError: .*takes 0 positional arguments"),
    ],
)
def test_a_side_that_fails_is_named(measure: Any, words: str) -> None:
    """With the claim, the side, the case, and the error itself."""
    with pytest.raises(InputError, match=f"measure of claim made-here failed on a case of 3 actions, beta = 0.1, .*{words}"):
        judge(replace(claim(1.0, 2.0), measure=measure), CASE)
    with pytest.raises(InputError, match="bound of claim made-here failed"):
        judge(replace(claim(1.0, 2.0), bound=measure), CASE)


# --- what counts ----------------------------------------------------------------------------------------------------------

SMALL_STEP = Hypothesis("γ ≤ 1", lambda case: case.step_size <= 1, lambda case: replace(case, step_size=min(case.step_size, 1.0)))


def test_hypotheses_are_enforced_and_can_be_dropped() -> None:
    """With the hypothesis the step is brought into range; without it the counterexample is found; unknown ones are refused."""
    made = claim(lambda case: case.step_size, 1.0, hypotheses=(SMALL_STEP,))
    assert judge(made, CASE).verdict == "holds"
    assert judge(made.without("γ ≤ 1"), CASE).verdict == "violated"
    with pytest.raises(UnknownNameError, match="has no hypothesis 'γ < 1'; did you mean 'γ ≤ 1'"):
        made.without("γ < 1")


def test_a_claim_about_a_method_is_given_the_step_size_of_the_case() -> None:
    """Whatever that of the method was; one without a step size stays as it is, and a claim about none has no method."""
    made = claim(lambda case, method: method.step_size, lambda case, method: 2.0, "equality", method=dynamics.NashMD(0.5))
    assert judge(made, CASE).verdict == "holds" and judge(made, CASE.at(step_size=1.9)).verdict == "violated"
    still = replace(made.method, method=replace(made.method.method, scheduled=None), step_size=None)
    assert replace(made, method=still).dynamics(CASE) is still
    with pytest.raises(InputError, match="made-here is not about a method"):
        claim(1.0, 2.0).dynamics(CASE)


def test_a_case_that_does_not_meet_a_hypothesis_does_not_count() -> None:
    """A hypothesis that cannot be enforced leaves the case out and says why."""
    made = claim(3.0, 1.0, hypotheses=(Hypothesis("n = 2", lambda case: case.n == 2),))
    assert judge(made, CASE) == ("skipped", pytest.approx(math.nan, nan_ok=True), *[pytest.approx(math.nan, nan_ok=True)] * 2,
                                 "hypothesis n = 2 does not hold")  # fmt: skip


def test_a_start_at_the_equilibrium_shows_nothing_about_a_rate() -> None:
    """On the uniform cycle π* = ρ: a run from there does not count for a rate, but does for a bound."""
    at_rest = CASE.at(log_policy=CASE.log_reference)
    assert judge(claim(3.0, 1.0, "rate"), at_rest).verdict == "skipped"
    assert judge(claim(3.0, 1.0, "upper"), at_rest).verdict == "violated"
    assert judge(claim(3.0, 1.0, "rate", unregularized=True), at_rest).verdict == "violated"
    for off, says in ((1e-4, "skipped"), (1e-2, "violated")):  # KL is off²/3 up to third order
        near = CASE.at(log_policy=np.log(np.array([1 + off, 1 - off, 1.0]) / 3))
        assert near.start_kl == pytest.approx(off**2 / 3, rel=0.1)
        assert judge(claim(3.0, 1.0, "rate"), near).verdict == says


def test_beta_zero_counts_for_claims_about_it_only() -> None:
    """A claim about β = 0 takes every game there; others leave out a game without regularization."""
    seen: list[float] = []
    assert judge(claim(lambda case: seen.append(case.beta) or 0.0, 1.0, unregularized=True), CASE).verdict == "holds"
    assert seen == [0.0]
    assert judge(claim(0.0, 1.0), CASE.with_beta(0.0)).reason == "beta is 0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "uper"}, "did you mean 'upper'"),
        ({"status": "law"}, "status = 'law' is unknown"),
        ({"cost": "dear"}, "cost = 'dear' is unknown"),
        ({"id": "My Claim"}, "lower case with hyphens"),
        ({"measure": 3.0}, "measure of claim made-here = 3.0 must be a function"),
        ({"source": "a paper"}, "must be a nlhfsim.sources.Source"),
        ({"hypotheses": ("γ ≤ 1",)}, "hypotheses of claim made-here holds 'γ ≤ 1', must hold nlhfsim.claims.Hypothesis"),
        ({"mutants": ("half",)}, "mutants of claim made-here holds 'half', must hold nlhfsim.claims.Mutant"),
        ({"mutants": (Mutant("half", {"bond": 1}),)}, "changes of mutant 'half' of claim made-here = 'bond' is unknown"),
    ],
)
def test_a_claim_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    """Every mistake in the data of a claim is named when it is made."""
    with pytest.raises(InputError, match=message):
        replace(claim(1.0, 2.0), **changes)


# --- the mixed family -----------------------------------------------------------------------------------------------------


def test_the_mixed_family_is_mixed_and_the_same_every_time() -> None:
    """Every part occurs, β covers four decades, references peak, sizes vary; a seed and a number make a case."""
    cases = [mixed_case(0, index) for index in range(300)]
    assert {case.family for case in cases} == {*FAMILIES, "by hand"}
    betas = np.log10([case.beta for case in cases])
    assert betas.min() < -2.8 and betas.max() > 0.8
    assert min(case.log_reference.min() for case in cases) < -10
    assert len({case.n for case in cases}) > 8
    mixed_case.cache_clear()
    again = mixed_case(0, 123)
    assert again.game.fingerprint == cases[123].game.fingerprint and again.step_size == cases[123].step_size
    assert mixed_case(1, 123).game.fingerprint != again.game.fingerprint


@pytest.mark.parametrize(
    "name", ["log_policy", "log_opponent", "policy", "opponent", "log_reference", "advantages", "log_equilibrium", "equilibrium"]
)
def test_no_claim_can_change_a_case(name: str) -> None:
    """Cases are shared: what one claim wrote into them others would see. What a case is made from is copied."""
    with pytest.raises(ValueError, match="read-only"):
        judge(claim(lambda case: getattr(case, name).sort() or 0.0, 1.0), CASE)
    start = np.log([0.5, 0.3, 0.2])
    case = CASE.at(log_policy=start)
    start[0] = 0.0
    assert case.policy[0] == pytest.approx(0.5)


def test_equilibria_of_the_mixed_family_are_certified() -> None:
    """So that none of the claims rests on a wrong reference; the stated error is tiny."""
    for index in range(200):
        case = mixed_case(0, index)
        assert case.solution.status == "certified" and case.log_error < 1e-11


def test_an_equilibrium_is_as_uncertain_as_its_certificate_says() -> None:
    """The residual counts in full, beside rounding, which is at least a bit of log π*."""
    case = CASE.at()
    case.__dict__["solution"] = replace(case.solution, residual=1e-6)
    assert 1e-6 < case.log_error < 1.001e-6 and CASE.at().log_error >= np.spacing(1.0)


def test_cases_on_a_game_cover_its_contexts_with_policies_of_the_seed() -> None:
    """Each context occurs, also where fewer cases were asked for; another seed draws other policies and steps."""
    game = nl.games.random_game(3, np.random.default_rng(0), contexts=3, beta=0.2)
    cases = cases_of_game(game, 0, 1)
    assert [case.game.fingerprint for case in cases] == [game.context(k).fingerprint for k in range(3)]
    again, other = cases_of_game(game, 0, 1), cases_of_game(game, 1, 1)
    for one, same, another in zip(cases, again, other):
        np.testing.assert_array_equal(one.log_policy, same.log_policy)
        assert one.step_size == same.step_size != another.step_size and (one.log_policy != another.log_policy).all()


# --- the registry ---------------------------------------------------------------------------------------------------------


def test_every_registered_method_has_a_claim() -> None:
    """A method without a claim is not checked by `verify`."""
    assert [name for name in dynamics.names() if not nl.claims.about(name)] == []


def test_every_claim_is_complete() -> None:
    """Statement, source, proof or reason, and mutants or a known slack."""
    for name in nl.claims.names():
        found = nl.claims.get(name)
        assert found.statement and found.title and found.why, name
        assert nl.cite(found).startswith("@"), name
        assert found.mutants or found.slack, name
        assert found.proof or found.status in ("asymptotic", "conjecture"), name


def test_names_are_unique_and_unknown_ones_are_refused() -> None:
    """The nearest id is suggested; another claim may not take an id."""
    assert len(set(nl.claims.names())) == len(nl.claims.names())
    with pytest.raises(UnknownNameError, match="did you mean 'constant-sum'"):
        nl.claims.get("constant_sum")
    with pytest.raises(InputError, match="'constant-sum' is taken"):
        nl.claims.register(replace(claim(1.0, 2.0), id="constant-sum"))
    with pytest.raises(InputError, match="must be a nlhfsim.claims.Claim"):
        nl.claims.register("constant-sum")  # type: ignore[arg-type]


def test_the_claim_of_a_registered_step_with_other_parameters_takes_its_place() -> None:
    """Its id is listed once, so that all claims can still be checked, and stands for the claim registered last."""
    before = nl.claims.names()
    mine = nl.claims.step_claim(dynamics.NashMD(0.25))
    try:
        nl.claims.register(mine)
        assert sorted(nl.claims.names()) == sorted(before) and nl.claims.get("nash-md-step") is mine
        assert nl.claims.about("NashMD").count(mine) == 1
        with pytest.raises(InputError, match="'nash-md-step' is taken"):
            nl.claims.register(replace(mine, title="another"))
    finally:
        _REGISTRY.pop(mine.id, None)
    assert nl.claims.names() == before


@pytest.mark.parametrize("name", [name for name in nl.claims.names() if nl.claims.get(name).kind == "equality"])
def test_the_sides_of_an_identity_are_two_routes(name: str) -> None:
    """They share no function of the package: one bug cannot be on both sides."""
    assert nl.claims.shared_functions(nl.claims.get(name)) == set()


def helper(case: Case) -> float:
    """Called on both sides below."""
    return case.beta


def deeper(case: Case) -> float:
    """Calls it too."""
    return 2 * helper(case)


def test_a_shared_function_is_seen() -> None:
    """Named on both sides, deep in one of them, in a closure, or in a comprehension."""
    name = f"{__name__}.helper"
    assert nl.claims.shared_functions(claim(helper, deeper)) == {name}
    assert nl.claims.shared_functions(claim(lambda case: helper(case), lambda case: max(deeper(c) for c in [case]))) == {name}

    def closed(function: Any) -> Any:
        return lambda case: function(case)

    assert name in nl.claims.shared_functions(claim(closed(helper), deeper))


# --- witnesses ------------------------------------------------------------------------------------------------------------


def beats_all(case: Case) -> float:
    """The best guaranteed margin of an action, positive if it beats all others."""
    others = case.advantages + np.where(np.eye(case.n) > 0, np.inf, 0.0)
    return float(others.min(axis=1).max()) if case.n > 1 else 1.0


def some(found: Callable[[Case], bool]) -> Case:
    """The first drawn case of the family with a property."""
    return next(case for case in (mixed_case(3, index) for index in range(5, 500)) if found(case))


def test_a_witness_shrinks_to_a_readable_game() -> None:
    """'Some action beats all others' is false; the witness is a cycle of certain votes on three actions, all else simple."""
    made = claim(beats_all, 0.0, "lower")
    case = some(lambda case: case.n >= 8 and judge(made, case).verdict == "violated")
    witness = shrink(made, case)
    assert witness.finding.verdict == "violated"
    game = witness.case.game
    assert game.n == 3 and set(game.preferences.ravel()) <= {0.0, 0.5, 1.0}
    np.testing.assert_allclose(game.reference, 1 / 3)
    assert game.beta == 1.0 and witness.case.step_size == 1.0
    np.testing.assert_allclose([witness.case.policy, witness.case.opponent], 1 / 3)


def test_what_does_not_matter_is_simplified_beside_what_does() -> None:
    """A preference and a reference that are needed as they are, to a tenth or so, stay; the other pairs are ties or certain."""

    def needed(case: Case) -> float:
        return float(case.n == 3 and 0.11 < case.advantages[0, 1] < 0.19 and 0.66 < case.reference[0] < 0.74)

    game = nl.PreferenceGame([[0.5, 0.637, 0.21], [0.363, 0.5, 0.83], [0.79, 0.17, 0.5]], 0.37, [0.6912, 0.1777, 0.1311])
    found = shrink(claim(needed, 0.5), CASE.at(game=game)).case
    assert 0.11 < found.advantages[0, 1] < 0.19
    assert set(found.game.preferences[np.triu_indices(3, 1)][1:]) <= {0.0, 0.5, 1.0}
    np.testing.assert_allclose(found.reference, found.reference.round(1), atol=1e-12)
    assert found.reference[0] == pytest.approx(0.7)


def test_what_is_kept_can_be_anything_that_a_case_says() -> None:
    """A case on which a claim holds is simplified too; a simpler game that cannot be judged is passed by."""
    assert shrink(claim(1.0, 2.0), CASE, lambda finding: finding.verdict == "holds").case.n == 1

    def refusing(case: Case) -> float:
        if case.n < 3:
            raise InputError("too few actions")
        return 2.0

    assert shrink(claim(refusing, 1.0), CASE).case.n == 3


def test_a_witness_shows_the_case_as_it_was_judged() -> None:
    """With the hypotheses enforced; a case of the claim's own is not changed."""
    assert witness_of(claim(2.0, 1.0, hypotheses=(SMALL_STEP,)), CASE).case.step_size == 1.0
    own = shrink(claim(2.0, 1.0, cases=lambda seed: [CASE]), CASE).case
    assert own.n == 3 and own.step_size == 2.0 and own.game.fingerprint == CASE.game.fingerprint


def test_shrinking_keeps_what_matters() -> None:
    """A claim that fails at small β only keeps β small, and one that fails for peaked references keeps one."""
    made = claim(lambda case: 1 / case.beta, 50.0)
    witness = shrink(made, some(lambda case: case.beta < 0.015))
    assert witness.case.beta == pytest.approx(0.01) or witness.case.beta < 0.02
    made = claim(lambda case: -case.log_reference.min(), 6.0)
    witness = shrink(made, some(lambda case: case.log_reference.min() < -10 and case.n > 4))
    assert witness.case.n == 2 and witness.finding.measured > 6


def test_shrinking_a_case_that_shows_nothing_is_refused() -> None:
    """There is nothing to keep."""
    with pytest.raises(InputError, match="made-here holds on it"):
        shrink(claim(1.0, 2.0), CASE)


def test_a_witness_is_saved_loaded_and_replayed(tmp_path: Path) -> None:
    """The numbers are the same to the bit, and the replay says what was said."""
    wrong = nl.claims.get("nash-mirror-prox-rate").without("γ ≤ 2(β + √(1 + β²))")
    witness = shrink(wrong, mixed_case(0, 1))
    loaded = load_witness(witness.save(tmp_path / "witness.json"))
    assert loaded.to_dict() == witness.to_dict() and str(loaded) == str(witness)
    assert loaded.replay(wrong) == witness.finding
    assert replace(loaded, claim="nash-mirror-prox-rate").replay().verdict == "holds"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda parts: parts.pop("beta"), "not a saved witness: it lacks beta"),
        (lambda parts: parts["preferences"][0].__setitem__(1, 2.0), "not a saved witness: preferences"),
        (lambda parts: parts["log_policy"].pop(), "not a saved witness: its policies are not of the game's size"),
    ],
)
def test_a_file_that_is_no_witness_is_refused(tmp_path: Path, spoil: Callable[[Any], Any], message: str) -> None:
    """What is wrong with it is said."""
    path = witness_of(claim(2.0, 1.0), CASE).save(tmp_path / "witness.json")
    parts = json.loads(path.read_text())
    spoil(parts)
    path.write_text(json.dumps(parts))
    with pytest.raises(DataError, match=message):
        load_witness(path)


def test_no_file_and_no_json_are_refused(tmp_path: Path) -> None:
    """With the path."""
    with pytest.raises(DataError, match="cannot be read"):
        load_witness(tmp_path / "none.json")
    for text, message in (
        ("[]", "it is not a JSON object as Witness.save"),
        ('{"claims": []}', "it is a report; the witnesses lie"),
    ):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(DataError, match=f"not a saved witness: {message}"):
            load_witness(tmp_path / "other.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="not a saved witness"):
        load_witness(tmp_path / "bad.json")


# --- tightness ------------------------------------------------------------------------------------------------------------


def span_of_best_response(case: Case) -> float:
    """``‖Aμ‖_sp``, at most 1."""
    return float(np.ptp(case.advantages @ case.opponent))


def test_the_tightest_game_is_found_and_readable() -> None:
    """``‖Aμ‖_sp ≤ 1`` is attained in the limit of certain votes at a vertex, on two actions by half: 0.5, on three by 1."""
    made = claim(span_of_best_response, 1.0)
    found = nl.claims.tightness(made, n=[2, 3], evaluations=2000)
    assert found.verdict == "holds" and found.by_size[2] == pytest.approx(0.5, abs=1e-2)
    assert 0.99 < found.ratio <= 1 + 1e-12
    assert set(found.witness.case.game.preferences.ravel()) <= {0.0, 0.5, 1.0}
    assert 2000 < found.evaluations <= 2 * 2000 + 120


def test_the_search_finds_a_counterexample() -> None:
    """A constant too small by a tenth is found out."""
    found = nl.claims.tightness(claim(span_of_best_response, 0.9), n=3, evaluations=1000)
    assert found.verdict == "violated" and found.found > 1.05


def peak(value: float) -> float:
    """1 at 0.3, and 0.917 at 0."""
    return 1 / (1 + (value - 0.3) ** 2)


@pytest.mark.parametrize(
    "measure",
    [
        lambda case: peak(np.log10(case.beta)),
        lambda case: peak(np.log10(case.step_size)),
        lambda case: peak(np.log(case.policy[0] / case.policy[-1])),
        lambda case: peak(np.log(case.opponent[0] / case.opponent[-1])),
    ],
)
def test_the_search_covers_what_the_claim_depends_on(measure: Callable[[Case], float]) -> None:
    """β, the step size and both policies; polished to many digits; the readable witness gives a thousandth away at most."""
    found = nl.claims.tightness(claim(measure, 1.0), n=2, evaluations=600)
    assert found.found == pytest.approx(1, abs=1e-8)
    assert 0.999 <= found.ratio / found.found <= 1
    assert found.ratio == found.witness.replay(claim(measure, 1.0)).ratio


def test_the_search_begins_at_cases_of_the_family() -> None:
    """The certain 3-cycle at β = 0.01 is among them, which no random point is."""
    beta = 0.01

    def there(case: Case) -> float:
        certain = (np.abs(case.advantages) == 0.5).sum() == 6
        return 1.0 if certain and abs(case.beta / beta - 1) < 1e-9 else 0.1

    assert nl.claims.tightness(claim(there, 1.0), n=3, evaluations=100).found == 1


def test_the_witness_has_as_many_actions_as_were_searched() -> None:
    """Though one action, where both sides are 0, is simpler; and 0 against 0 is not what was found."""
    made = claim(lambda case: np.ptp(case.advantages @ case.policy), lambda case: 2 * np.ptp(case.advantages @ case.policy))
    for n in ([2, 3], 3):
        found = nl.claims.tightness(made, n=n, evaluations=200)
        assert found.witness.case.n >= np.min(n) and found.found == pytest.approx(0.5) == found.ratio
        assert found.witness.finding.bound > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": []}, r"n = \[\] must be one number of actions, or several"),
        ({"n": "3"}, "n = '3' must be a whole number"),
        ({"n": [3, 10**6]}, "n = 1000000 must be at most 50"),
        ({"evaluations": "many"}, "evaluations = 'many' must be a whole number"),
        ({"evaluations": 100.5}, "evaluations = 100.5 must be a whole number"),
    ],
)
def test_the_search_names_what_is_wrong(options: dict[str, Any], message: str) -> None:
    """The argument, its value, and what would be right."""
    with pytest.raises(InputError, match=message):
        nl.claims.tightness(claim(1.0, 2.0), **options)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"mutants": 3}, "mutants of claim made-here = 3 must be a tuple of nlhfsim.claims.Mutant"),
        ({"hypotheses": None}, "hypotheses of claim made-here = None must be a tuple of nlhfsim.claims.Hypothesis"),
        ({"tolerance": -1.0}, "tolerance of claim made-here = -1 must not be negative"),
        ({"absolute": np.nan}, "absolute of claim made-here = nan must be finite"),
        ({"slack": 2.0}, "slack of claim 'made-here' = 2.0 must be a string"),
    ],
)
def test_a_claim_names_what_is_wrong_with_it(parts: dict[str, Any], message: str) -> None:
    """When it is made."""
    with pytest.raises(InputError, match=message):
        claim(1.0, 2.0, **parts)


def test_a_truth_value_is_no_measurement() -> None:
    """It does not say by how much."""
    with pytest.raises(InputError, match="measure of claim made-here failed .* True or False, which does not say by how much"):
        judge(claim(True, 1.0), CASE)


def test_step_claims_are_made_of_methods_however_they_are_named() -> None:
    """A name, an alias, a factory, a `Method`; anything else is refused in a sentence."""
    given = {"nash-md-step": ("NashMD", dynamics.NashMD, dynamics.NashMD.method), "natural-pg-step": ("INPO",)}
    assert {name: {nl.claims.step_claim(m).id for m in methods} for name, methods in given.items()} == {k: {k} for k in given}
    for wrong in (None, 3, "no such method"):
        with pytest.raises(InputError, match="^method"):
            nl.claims.step_claim(wrong)


def test_the_search_refuses_what_it_cannot_search() -> None:
    """Claims with cases of their own, empty ranges, hypotheses that no case meets."""
    with pytest.raises(InputError, match="is about particular games"):
        nl.claims.tightness(claim(1.0, 2.0, cases=lambda seed: [CASE]))
    with pytest.raises(InputError, match="betas"):
        nl.claims.tightness(claim(1.0, 2.0), betas=(1.0, 0.1))
    never = Hypothesis("never", lambda case: False)
    with pytest.raises(InputError, match="none of 100 cases counted"):
        nl.claims.tightness(claim(1.0, 2.0, hypotheses=(never,)), n=2, evaluations=100)


def test_a_mutant_is_the_claim_with_what_is_wrong() -> None:
    """Only the attributes named differ, and it has no mutants itself."""
    wrong = Mutant("half the bound", {"bound": lambda case: 0.5})
    made = claim(0.9, 1.0, mutants=(wrong,))
    assert judge(made.mutated(wrong), CASE).verdict == "violated"
    assert made.mutated(wrong).mutants == () and made.mutated(wrong).measure is made.measure
