"""Extragradient: a step against the policy as it will be after a first step.

    θ' = θ + γ J(π_θ)(Aπ_θ - β(θ - log ρ)),    θ⁺ = θ + γ J(π_θ)(Aπ_θ' - β(θ - log ρ))

Both steps start at θ and take responses y ~ π_θ; the opponents of the second come from π_θ'. The optimizer, too, starts both
times where it was. On a softmax policy each is J(π_θ) times a half of the simulator's `Extragradient`, which takes the
natural gradient.
Source: Zhou et al., arXiv 2503.08942 (EGPO).
"""

from nlhfsim.llm.methods._spec import Method, register
from nlhfsim.sources import EXTRAGRADIENT

METHOD = register(
    Method(
        name="extragradient",
        simulator="Extragradient",
        source=EXTRAGRADIENT.at("EGPO"),
        summary="policy gradient against the policy after a first step, from the same start",
        half_step=True,
    )
)
