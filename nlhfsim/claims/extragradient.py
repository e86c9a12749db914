"""The last-iterate rate of extragradient preference optimization."""

from __future__ import annotations

import math

from nlhfsim.claims._case import Case
from nlhfsim.claims._method_mutants import mutants_of
from nlhfsim.claims._rates import WHY, kl_along, powers, steps_up_to
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Mutant
from nlhfsim.dynamics import Extragradient
from nlhfsim.sources import EXTRAGRADIENT


def _factor(case: Case) -> float:
    return 1 - case.step_size * case.beta


def _largest(case: Case) -> float:
    return 2 / (case.beta + math.sqrt(1 + case.beta**2))


def _wide(case: Case) -> float:
    return min(1.5 * _largest(case), 0.999 / case.beta)


_MOVED = "regularizer at the half point in the second step"

register(
    Claim(
        id="extragradient-rate",
        title="Extragradient: KL to π* shrinks by 1 - γβ a step",
        statement=r"\mathrm{KL}(\pi^* \| \pi_K) \le (1 - \gamma\beta)^K\, \mathrm{KL}(\pi^* \| \pi_0)",
        source=EXTRAGRADIENT.at("last-iterate rate for γ ≤ 1/(β + 3); the wider range derived here, by explicit-is-implicit"),
        kind="rate",
        status="theorem",
        measure=kl_along,
        bound=powers(_factor),
        tolerance=1e-12,
        why=WHY,
        hypotheses=(steps_up_to("γ ≤ 2/(β + √(1 + β²))", _largest),),
        mutants=(
            Mutant("the exponent times 1.5", {"bound": powers(_factor, 1.5)}),
            Mutant("γ up to 1.5 times as large", {"hypotheses": (steps_up_to("γ ≤ 3/(β + √(1 + β²)), γβ < 1", _wide),)}),
            Mutant(_MOVED, {"method": mutants_of(Extragradient())[_MOVED]}),
        ),
        proof="docs/proofs/derived-claims.md#extragradient-rate",
        method=Extragradient(),
    )
)
