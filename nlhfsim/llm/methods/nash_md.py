"""Nash-MD in its policy-gradient form: opponents come from a geometric mixture of policy and reference.

θ climbs J(π)(Aπ̃ - β(θ - log ρ)), responses y ~ π, opponents y' ~ π̃ ∝ π^(1-m) ρ^m, the mixture normalized token by token, as
it is sampled (for responses of one token the mixture of the theory, for longer ones an approximation of it). The fixed point
is biased unless m = 0. On a softmax policy it is J(π) times the step of the simulator's `NashMD` at γβ = m, which takes the
natural gradient.
Source: Munos et al., arXiv 2312.00886, section 7 (Nash-MD-PG).
"""

from nlhfsim.llm.methods._spec import Method, register
from nlhfsim.sources import NASH_LEARNING

METHOD = register(
    Method(
        name="nash_md",
        simulator="NashMD",
        source=NASH_LEARNING.at("Nash-MD-PG"),
        summary="policy gradient against a geometric mixture with the reference",
        defaults={"mixing": 0.125},
        opponent_mixing=lambda given: float(given["mixing"]),
    )
)
