"""IPO-MD: the Online IPO loss on pairs from a geometric mixture of policy and reference.

θ climbs J(π̃)(Aπ̃ - β(θ - log ρ)), both responses from π̃ ∝ π^(1-m) ρ^m, the mixture normalized token by token, as it is sampled.
The fixed point is biased unless m = 0.
Source: Calandriello et al., arXiv 2403.08635 (IPO-MD).
"""

from nlhfsim.llm.methods._spec import Method, register
from nlhfsim.sources import ONLINE_IPO

METHOD = register(
    Method(
        name="ipo_md",
        simulator="IPOMD",
        source=ONLINE_IPO.at("IPO-MD"),
        summary="the Online IPO loss on pairs from a geometric mixture with the reference",
        defaults={"mixing": 0.125},
        mixing=lambda given: float(given["mixing"]),
    )
)
