"""That methods explicit in the regularizer are those implicit in it, at another step size: two names, one family."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._runs import EPS, log_policies
from nlhfsim.claims._spec import Claim, Hypothesis, Measured, Mutant
from nlhfsim.dynamics import Extragradient, MagneticMirrorDescent, NashMirrorProx, NaturalPG
from nlhfsim.errors import Array
from nlhfsim.sources import PROXIMAL_POINT_NLHF

EXPLICIT = (NaturalPG(), Extragradient())
IMPLICIT = (MagneticMirrorDescent(), NashMirrorProx())
_EDGE = 0.99
"""The largest γβ tried: near 1 the implicit step size goes to infinity."""


def _explicit(case: Case) -> Measured:
    """A look-ahead is off by rounding times γ/2 at most; both sides read logits of the size of the policies' and γ/2."""
    largest = max(float(np.abs(row).max()) for row in (case.log_policy, case.log_opponent, case.log_reference))
    steps = [log_policies(start, method, 1)[1] for method in EXPLICIT for start in (case, case.at(log_policy=case.log_opponent))]
    return Measured(np.concatenate(steps), 16 * EPS * (1 + case.step_size) * (1 + largest + case.step_size))


def _implicit(other: Callable[[Case], float]) -> Callable[[Case], Array]:
    def bound(case: Case) -> Array:
        starts = (case.at(step_size=other(case)), case.at(step_size=other(case), log_policy=case.log_opponent))
        return np.concatenate([log_policies(start, method, 1)[1] for method in IMPLICIT for start in starts])

    return bound


def _implicit_step(case: Case) -> float:
    return float(np.divide(case.step_size, 1 - case.step_size * case.beta))


def _below_one(case: Case) -> Case:
    return case.at(step_size=min(case.step_size, _EDGE / case.beta))


register(
    Claim(
        id="explicit-is-implicit",
        title="NaturalPG is MagneticMirrorDescent, and Extragradient is NashMirrorProx, at γ/(1 - γβ)",
        statement=r"\text{NaturalPG}(\gamma) = \text{MagneticMirrorDescent}(\gamma'),\quad "
        r"\text{Extragradient}(\gamma) = \text{NashMirrorProx}(\gamma'),\quad \gamma' = \gamma/(1 - \gamma\beta)",
        source=PROXIMAL_POINT_NLHF.at("mirror descent on the regularized game; the identity derived here"),
        kind="equality",
        status="identity",
        measure=_explicit,
        bound=_implicit(_implicit_step),
        tolerance=0.0,
        why="rounding of logits, of a look-ahead times γ/2",
        hypotheses=(Hypothesis("γβ < 1", lambda case: case.step_size * case.beta < 1, _below_one),),
        mutants=(
            Mutant("the same step size", {"bound": _implicit(lambda case: case.step_size)}),
            Mutant("1 + γβ for 1 - γβ", {"bound": _implicit(lambda case: case.step_size / (1 + case.step_size * case.beta))}),
        ),
        proof="docs/proofs/derived-claims.md#explicit-is-implicit",
    )
)
