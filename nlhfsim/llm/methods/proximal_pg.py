"""The proximal point method, its sub-games played by policy gradient: the paper's combined method.

θ climbs J(π)(Aπ - β(θ - log ρ) - τ(θ - θ̄)), τ = 1/proximal_step, for `inner_steps` steps; then the target becomes the
policy, and the next sub-game begins.
Source: Tiapkin et al., arXiv 2505.19731, proximal point with self-play policy gradient.
"""

from nlhfsim.llm.methods._spec import Follow, Method, register
from nlhfsim.sources import PROXIMAL_POINT_NLHF

METHOD = register(
    Method(
        name="proximal_pg",
        simulator="ProximalPG",
        source=PROXIMAL_POINT_NLHF.at("proximal point framework"),
        summary="sub-games around the last policy, each played by policy gradient",
        defaults={"proximal_step": 5.0, "inner_steps": 50},
        pull=lambda given: 1 / float(given["proximal_step"]),
        follow=lambda given: Follow(refresh_every=given["inner_steps"]),
    )
)
