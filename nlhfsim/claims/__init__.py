"""The theory as claims: data and pure functions, one file an object that they speak about. `register` adds one from outside."""

from nlhfsim.claims._case import Case, cases_of_game, mixed_case
from nlhfsim.claims._registry import about, get, names, register
from nlhfsim.claims._spec import Claim, Finding, Hypothesis, Measured, Mutant, judge
from nlhfsim.claims._step import step_claim
from nlhfsim.claims._witness import Witness, load_witness, shrink

__all__ = [
    "Case",
    "Claim",
    "Finding",
    "Hypothesis",
    "Measured",
    "Mutant",
    "Witness",
    "about",
    "cases_of_game",
    "get",
    "judge",
    "load_witness",
    "mixed_case",
    "names",
    "register",
    "shrink",
    "step_claim",
]

from nlhfsim.claims import payoff, nash_mirror_prox  # noqa: E402,F401  (each registers its claims, in the order of the theory)
from nlhfsim.claims import self_play_pg, critical_step, flow  # noqa: E402,F401
from nlhfsim.claims import local_rate, thresholds, stability_limit, high_probability  # noqa: E402,F401
