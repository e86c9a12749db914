"""The theory as claims: data and pure functions, one file an object that they speak about. `register` adds one from outside."""

from nlhfsim.claims._case import Case, cases_of_game, mixed_case
from nlhfsim.claims._registry import about, get, names, register
from nlhfsim.claims._routes import shared_functions
from nlhfsim.claims._spec import Claim, Finding, Hypothesis, Measured, Mutant, judge
from nlhfsim.claims._step import step_claim
from nlhfsim.claims._tightness import Tightness, tightness
from nlhfsim.claims._witness import Witness, load_witness, shrink

__all__ = [
    "Case",
    "Claim",
    "Finding",
    "Hypothesis",
    "Measured",
    "Mutant",
    "Tightness",
    "Witness",
    "about",
    "cases_of_game",
    "get",
    "judge",
    "load_witness",
    "mixed_case",
    "names",
    "register",
    "shared_functions",
    "shrink",
    "step_claim",
    "tightness",
]

from nlhfsim.claims import (  # noqa: E402,F401  (each registers its claims, in the order of the theory)
    payoff,
    equilibrium,
    online_ipo,
    proximal_subgame,
    explicit_is_implicit,
    gap,
    proximal_point,
    nash_mirror_prox,
    extragradient,
    magnetic_mirror_descent,
    nash_md,
    multiplicative_weights,
    reward_model,
    self_play_pg,
    critical_step,
    flow,
    local_rate,
    thresholds,
    stability_limit,
    high_probability,
)
from nlhfsim.claims._registry import seal  # noqa: E402

seal()
del seal
