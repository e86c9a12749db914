"""The proximal point method, its sub-games solved to rounding.

    π⁺ = the equilibrium of P_β(π ≻ μ) - KL(π‖π_k)/γ + KL(μ‖π_k)/γ

which is the equilibrium of the game with β' = β + 1/γ and ρ' ∝ (ρ^β π_k^(1/γ))^(1/β').
Source: Tiapkin et al., arXiv 2505.19731, the proximal point framework: ``KL(π*‖π_K) ≤ (1 + γβ)^(-K) KL(π*‖π_0)`` for every γ >
0. At β = 0, KL(π*‖π_k) never increases, for every von Neumann winner π* (Rockafellar, 1976).
As γ → 0: θ⁺ - θ = γ(Aπ⁺ - β(θ⁺ - log ρ)) up to a constant, the implicit Euler step of dθ/dt of `NaturalPG`.
"""

from __future__ import annotations

import numpy as np

from nlhfsim.dynamics._conditions import gains, probabilities, stationarity
from nlhfsim.dynamics._flows import natural_gradient
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, NoParams, ProvenRange, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.equilibrium import regularized_equilibrium
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, advantage
from nlhfsim.simplex import exp, log_softmax
from nlhfsim.sources import PROXIMAL_POINT_NLHF


def subgame(context: Context, log_centre: Array, pull: float) -> Context:
    """Return the context with the proximal term merged: β' = β + pull, ρ' the weighted geometric mean of ρ and the centre."""
    beta = context.beta + pull
    log_reference = (context.beta * context.log_reference + pull * log_centre) / beta
    return Context(context.payoff, log_reference, beta)


def step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """Solve one sub-game, starting from its centre."""
    inner = subgame(context, state.logits, 1 / step_size)
    inner = inner._replace(log_reference=log_softmax(inner.log_reference))
    return LogPolicy(regularized_equilibrium(inner, state.logits))


def analytic_step(state: LogPolicy, context: Context, step_size: float, params: NoParams) -> LogPolicy:
    """Return the step at a complex state, exact to first order in its imaginary part: the solution differentiated implicitly.

    At the real solution, one Newton step on ``θ - log ρ' - Aπ_θ/β' = const`` with the complex ρ' follows the imaginary part.
    """
    solved = step(LogPolicy(state.logits.real), context, step_size, params).logits
    policy = exp(solved)
    inner = subgame(context, state.logits, 1 / step_size)
    defect = solved - inner.log_reference - advantage(context.payoff, policy) / inner.beta
    jacobian = np.eye(len(policy)) - advantage(context.payoff, np.diag(policy) - np.outer(policy, policy)).T / inner.beta
    return LogPolicy(log_softmax(solved - np.linalg.solve(jacobian, defect)))


def characterisation(context: Context, params: NoParams, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of π⁺ from its best response in the unmerged sub-game: ``⟨Aπ⁺, q⟩ - β KL(q‖ρ) - KL(q‖π)/γ``."""
    old, new = probabilities(before.logits), probabilities(after.logits)
    return stationarity(gains(context, new), new, (context.beta, np.exp(context.log_reference)), (1 / step_size, old))


def proven(context: Context, params: NoParams, step_size: float) -> ProvenRange:
    """Return every γ > 0, with factor 1/(1 + γβ)."""
    return ProvenRange(np.inf, "proximal-point-rate", 1 / (1 + step_size * context.beta))


def safe_step(context: Context, params: NoParams) -> float:
    """Return 1."""
    return 1.0


METHOD = Method(
    name="ProximalPoint",
    step=step,
    characterisation=characterisation,
    flow=natural_gradient,
    safe_step=safe_step,
    proven=proven,
    source=PROXIMAL_POINT_NLHF.at("the proximal point framework"),
    oracle_calls=None,
    scheduled="proximal_step",
    analytic=analytic_step,
    compiled=False,
    unsampled=lambda params: "its inner solver reads the game itself",
    example={"proximal_step": 2.0},
    summary="each step the equilibrium of the game regularized towards the last policy, solved to rounding",
)


@register(METHOD)
def ProximalPoint(proximal_step: StepSize | None = None) -> Dynamics:
    """Proximal point method: ``π⁺`` is the equilibrium of the game regularized towards π with weight 1/γ, solved to rounding.

    Its oracle calls are those of its inner solver and are not counted: it is left out of comparisons at equal budget.

    Parameters
    ----------
    proximal_step : float or schedule, optional
        γ > 0, any. Default: 1.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.ProximalPoint(proximal_step=5.0)
    ProximalPoint(proximal_step=5)
    """
    return Dynamics(METHOD, NoParams(), ensure_step_size("proximal_step", proximal_step))
