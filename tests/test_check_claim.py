"""`check_claim` can fail: for everything that it asks of a claim, one that lacks only that."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import testing
from nlhfsim.claims import Case, Claim, Hypothesis, Measured, Mutant, mixed_case
from nlhfsim.errors import InputError
from nlhfsim.sources import PROXIMAL_POINT_NLHF


def gap(case: Case) -> float:
    """``‖Aμ‖_sp``, at most 1, and more than a half on some games."""
    return float(np.ptp(case.advantages @ case.opponent))


HALF = Mutant("half the bound", {"bound": lambda case: 0.5})
FEW = Hypothesis("n ≤ 12", lambda case: case.n <= 12)
SMALL = Hypothesis("γ ≤ 1", lambda case: case.step_size <= 1, lambda case: case.at(step_size=min(case.step_size, 1.0)))


def made(**parts: Any) -> Claim:
    """A claim that lacks nothing, but for the parts given."""
    right = {"kind": "upper", "status": "theorem", "measure": gap, "bound": lambda case: 1.0, "mutants": (HALF,)}
    return Claim(id="mine", title="mine", statement="x", source=PROXIMAL_POINT_NLHF, **(right | parts))


def complaint(claim: Claim, n_games: int = 60) -> str:
    """What is wrong with a claim, the lines of it below the heading."""
    with pytest.raises(testing.claim.BrokenClaimError) as caught:
        testing.check_claim(claim, n_games)
    head, *lines = str(caught.value).split("\n")
    assert head == "claim mine:" and isinstance(caught.value, AssertionError)
    return "\n".join(lines)


def test_a_claim_that_lacks_nothing() -> None:
    """Says which of its hypotheses are needed: one that no game of the family fails to meet is not."""
    large = made(measure=lambda case: gap(case) * max(case.step_size, 1.0), hypotheses=(SMALL, FEW))
    found = testing.check_claim(large, 60)
    assert found.verdict.verdict == "holds" and found.necessary == {"γ ≤ 1": True, "n ≤ 12": False}


def test_a_hypothesis_without_which_nothing_can_be_told_is_not_called_needed() -> None:
    """Only a counterexample shows that it is."""
    blurred = made(measure=lambda case: Measured(gap(case), 0.0 if case.step_size <= 1 else 9.0), hypotheses=(SMALL,))
    assert testing.check_claim(blurred, 60).necessary == {"γ ≤ 1": False}


def drawing() -> Any:
    """A measure that is another one each time."""
    ticks = itertools.count()
    return lambda case: gap(case) * (1 - 1e-9 * (next(ticks) % 2))


def helper(case: Case) -> float:
    """Called by both sides of an identity."""
    return case.beta


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"bound": lambda case: 0.7}, "- it is violated:\nmine: violated, measured"),
        ({"counts": lambda case: "rare" if case.family else ""}, "it counts on 0 of 60 games only"),
        ({"counts": lambda case: "" if case.family == "by hand" and case.beta == 1 else "rare"}, "it counts on 1 of 60 games"),
        ({"measure": lambda c: Measured(gap(c), 9.0 * (c.step_size == 100))}, "4 of 60 games cannot be told from rounding"),
        ({"mutants": ()}, "it has no mutants"),
        (
            {"mutants": (HALF, Mutant("none", {"bound": lambda case: 1.0}), Mutant("twice", {"bound": lambda case: 2.0}))},
            "mutants that are not rejected: none, twice",
        ),
        ({"bound": lambda case: 2.5}, "its bound is loose, the largest ratio is 0.397"),
        ({"kind": "rate", "bound": lambda case: 2.5}, "its bound is loose"),
        ({"kind": "lower", "measure": lambda case: 2.5, "bound": gap}, "its bound is loose"),
        (
            {"kind": "equality", "measure": helper, "bound": lambda case: helper(case)},
            "both sides call test_check_claim.helper: a bug there would be on both",
        ),
        ({"measure": drawing()}, "on one case: draw random numbers from a seed"),
        ({"measure": lambda case: case.opponent[0], "mutants": (HALF,)}, "relabelling the actions changes Finding"),
    ],
)
def test_what_a_claim_lacks(parts: dict[str, Any], words: str) -> None:
    """Violated, rarely checked, undecided, without mutants or with live ones, loose, of one route, random, or about labels."""
    assert words in complaint(made(**parts))


@pytest.mark.parametrize("n", [2, 3, 4, 9])
def test_no_action_keeps_its_place_when_actions_are_relabelled(n: int) -> None:
    """So that a claim about the action in any one place is found out, on the smallest games too; the game is the same one."""
    case = next(case for case in (mixed_case(0, index) for index in range(6, 300)) if case.n == n)
    other = testing.claim._relabelled(case)
    order = np.abs(other.log_policy[:, None] - case.log_policy).argmin(axis=1)
    assert (order != np.arange(n)).all() and sorted(order) == list(range(n))
    np.testing.assert_array_equal(other.log_opponent, case.log_opponent[order])
    np.testing.assert_array_equal(other.advantages, case.advantages[np.ix_(order, order)])
    np.testing.assert_allclose(other.log_reference, case.log_reference[order], rtol=1e-12)


@pytest.mark.parametrize("parts", [{"slack": "factor 5", "bound": lambda case: 5.0}, {"mutants": (), "slack": "not known"}])
def test_what_is_said_is_no_fault(parts: dict[str, Any]) -> None:
    """A bound that says how loose it is needs to be neither tight nor able to fail."""
    never = Mutant("half", {"bound": lambda case: 0.5})
    assert testing.check_claim(made(**({"mutants": (never,)} | parts)), 60).verdict.verdict == "holds"


def test_a_bound_that_both_sides_know_is_no_fault() -> None:
    """Two routes are asked of identities: a bound may be made of what it bounds."""
    some = made(measure=lambda case: helper(case), bound=lambda case: 1.5 * helper(case), mutants=(), slack="factor 1.5")
    assert testing.check_claim(some, 60).verdict.verdict == "holds"


def test_a_claim_about_particular_games_is_not_relabelled() -> None:
    """Its games are its own, and say the same twice."""
    start = np.log([0.5, 0.3, 0.2])
    cases = [Case(nl.games.rock_paper_scissors(beta=0.1), start, start, step) for step in (0.3, 0.9)]
    mine = made(measure=lambda case: case.step_size * case.policy[0] / 0.5, cases=lambda seed: cases)
    assert testing.check_claim(mine, 20).verdict.n_games == 2


def test_misuse_is_refused() -> None:
    """What is no claim, and a number out of range."""
    with pytest.raises(InputError, match="claim = 3 must be a claim"):
        testing.check_claim(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="n_games = 0 must be at least 1"):
        testing.check_claim("constant-sum", 0)
