"""The last-iterate rate of magnetic mirror descent."""

from __future__ import annotations

from nlhfsim.claims._case import Case
from nlhfsim.claims._rates import WHY, implicit_factor, kl_along, powers, steps_up_to
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Mutant
from nlhfsim.dynamics import MagneticMirrorDescent
from nlhfsim.sources import MAGNETIC_MIRROR_DESCENT


def _largest(case: Case) -> float:
    return 4 * case.beta


register(
    Claim(
        id="magnetic-md-rate",
        title="MagneticMirrorDescent: KL to π* shrinks by 1 + γβ a step",
        statement=r"\mathrm{KL}(\pi^* \| \pi_K) \le (1 + \gamma\beta)^{-K}\, \mathrm{KL}(\pi^* \| \pi_0)",
        source=MAGNETIC_MIRROR_DESCENT.at("theorem 3.4, with Lipschitz constant 1/2"),
        kind="rate",
        status="theorem",
        measure=kl_along,
        bound=powers(implicit_factor),
        tolerance=1e-12,
        why=WHY,
        hypotheses=(steps_up_to("γ ≤ 4β", _largest),),
        mutants=(Mutant("the exponent times 1.5", {"bound": powers(implicit_factor, 1.5)}),),
        slack="γ ≤ 8β has not failed; γ = 16β does, on rock–paper–scissors at β = 0.01",
        proof="docs/proofs/derived-claims.md#magnetic-md-rate",
        method=MagneticMirrorDescent(),
    )
)
