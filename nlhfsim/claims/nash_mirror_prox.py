"""The last-iterate rate of Nash mirror prox."""

from __future__ import annotations

import math

from nlhfsim.claims._case import Case
from nlhfsim.claims._rates import WHY, implicit_factor, kl_along, powers, steps_up_to
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Mutant
from nlhfsim.dynamics import NashMirrorProx
from nlhfsim.sources import NASH_MIRROR_PROX


def _largest(case: Case) -> float:
    return 2 * (case.beta + math.sqrt(1 + case.beta**2))


register(
    Claim(
        id="nash-mirror-prox-rate",
        title="NashMirrorProx: KL to π* shrinks by 1 + γβ a step",
        statement=r"\mathrm{KL}(\pi^* \| \pi_K) \le (1 + \gamma\beta)^{-K}\, \mathrm{KL}(\pi^* \| \pi_0)",
        source=NASH_MIRROR_PROX.at("last-iterate rate (1 + 2β)^(-N/2), N oracle calls, at γ = 2; the wider range derived here"),
        kind="rate",
        status="theorem",
        measure=kl_along,
        bound=powers(implicit_factor),
        tolerance=1e-12,
        why=WHY,
        hypotheses=(steps_up_to("γ ≤ 2(β + √(1 + β²))", _largest),),
        mutants=(
            Mutant("the exponent times 1.5", {"bound": powers(implicit_factor, 1.5)}),
            Mutant("γ up to twice as large", {"hypotheses": (steps_up_to("γ ≤ 4(β + √(1 + β²))", _largest, 2.0),)}),
        ),
        proof="docs/proofs/derived-claims.md#nash-mirror-prox-rate",
        method=NashMirrorProx(),
    )
)
