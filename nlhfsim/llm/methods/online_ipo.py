"""Online IPO, the same thing as self-play policy gradient.

Responses y, y' ~ π to the same prompt are compared, and θ climbs

    E ½ ((o - ½) - β (h(y) - h(y'))) ∇(log π(y) - log π(y')) = J(π) (Aπ - β (θ - log ρ)),    h = log π - log ρ

Source: Calandriello et al., arXiv 2403.08635 (Online IPO); Tiapkin et al., arXiv 2505.19731 (self-play policy gradient).
Known failure: with cyclic preferences a step above a critical one of order β cycles for ever.
"""

from nlhfsim.llm.methods._spec import Method, register
from nlhfsim.sources import ONLINE_IPO

METHOD = register(
    Method(
        name="online_ipo",
        simulator="SelfPlayPG",
        source=ONLINE_IPO.at("Online IPO; self-play policy gradient in Tiapkin et al., arXiv 2505.19731"),
        summary="policy gradient against the current policy",
    )
)
