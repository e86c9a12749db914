"""Nash Prox: Online IPO with a pull to a target that follows, the practical version of the paper.

θ climbs J(π)(Aπ - β(θ - log ρ) - τ(θ - θ̄)), τ = 1/proximal_step. The target θ̄ is a moving average of the weights (not, as
in the simulator, of the log-probabilities: the same thing only to first order), or a copy of them made every m-th step.
Source: Tiapkin et al., arXiv 2505.19731, Nash Prox.
"""

from nlhfsim.llm.methods._spec import Follow, Method, register
from nlhfsim.sources import PROXIMAL_POINT_NLHF

METHOD = register(
    Method(
        name="nash_prox",
        simulator="NashProx",
        source=PROXIMAL_POINT_NLHF.at("Nash Prox"),
        summary="Online IPO with a pull to a target that follows (moving average or refresh)",
        defaults={"proximal_step": 5.0, "averaging": 0.05, "refresh_every": None},
        pull=lambda given: 1 / float(given["proximal_step"]),
        follow=lambda given: Follow(given["averaging"] or 0.0, given["refresh_every"] or 0),
    )
)
