"""IPO-MD: Online IPO with pairs from a geometric mixture of the policy and the reference.

    π̃ ∝ π^(1 - m) ρ^m,    θ⁺ = θ + γ J(π̃) (Aπ̃ - β (θ - log ρ))

Source: Calandriello et al., arXiv 2403.08635, section 5 (IPO-MD); m = 0 is `SelfPlayPG`.
As γ → 0: θ⁺ - θ = γJ(π̃)(Aπ̃ - β(θ - log ρ)) exactly, with the same m: the bias stays.
Known failure: unless m = 0 its fixed point is not π*, as pairs and opponent come from the mixture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlhfsim.dynamics._conditions import gains, power_mean, probabilities
from nlhfsim.dynamics._spec import Dynamics, LogPolicy, Method, ProvenRange, given_parameters, register
from nlhfsim.dynamics.schedules import StepSize, ensure_step_size
from nlhfsim.dynamics.self_play_pg import largest_proven_step
from nlhfsim.dynamics.self_play_pg import proven as proven_of_self_play
from nlhfsim.errors import Array, ensure_between
from nlhfsim.games.payoffs import Context, advantage, lifted
from nlhfsim.pairs import Pairs
from nlhfsim.simplex import exp, expect, log_softmax
from nlhfsim.sources import ONLINE_IPO


class Params(NamedTuple):
    """``mixing`` = m, the share of the reference in the mixture."""

    mixing: float


def step(state: LogPolicy, context: Context, step_size: float, params: Params) -> LogPolicy:
    """One gradient step with pairs from the mixture."""
    mixture = exp(log_softmax((1 - params.mixing) * state.logits + params.mixing * context.log_reference))
    slope = advantage(context.payoff, mixture) - context.beta * (state.logits - context.log_reference)
    return LogPolicy(state.logits + lifted(context.payoff, step_size * mixture * (slope - expect(mixture, slope))))


def characterisation(context: Context, params: Params, before: LogPolicy, step_size: float, after: LogPolicy) -> float:
    """Return the distance of θ⁺ - θ from ``-(γβ/4)`` times the gradient of the population IPO loss with pairs from π̃.

    The loss ``Σ_yy' π̃_y π̃_y' E(h(y, y') - (o - 1/2)/β)²`` is summed over all pairs, its gradient taken pair by pair; β > 0.
    """
    reference = np.exp(context.log_reference)
    mixture = power_mean((1 - params.mixing, probabilities(before.logits)), (params.mixing, reference))
    log_ratio = np.log(probabilities(before.logits) / reference)
    # d loss / d h(y, y') = 2 (h - (P - 1/2)/β), times π̃_y π̃_y'; h moves with +e_y - e_y'.
    margins = np.stack([gains(context, row) for row in np.eye(len(mixture))], axis=1)
    pull = np.outer(mixture, mixture) * 2 * (log_ratio[:, None] - log_ratio[None, :] - margins / context.beta)
    gradient = pull.sum(axis=1) - pull.sum(axis=0)
    return float(np.abs(after.logits - before.logits + step_size * context.beta / 4 * gradient).max())


def flow(context: Context, params: Params, logits: Array) -> Array:
    """Return ``J(π̃)(Aπ̃ - β(θ - log ρ))``, shape ``(..., n)``."""
    mixture = np.exp(log_softmax((1 - params.mixing) * logits + params.mixing * context.log_reference))
    slope = advantage(context.payoff, mixture) - context.beta * (logits - context.log_reference)
    return np.asarray(mixture * (slope - expect(mixture, slope)))


def proven(context: Context, params: Params, step_size: float) -> ProvenRange | None:
    """At m = 0 what is proven of `SelfPlayPG`, else nothing."""
    return proven_of_self_play(context, params, step_size) if params.mixing == 0 else None  # type: ignore[arg-type]


def safe_step(context: Context, params: Params) -> float:
    """Return the proven step of `SelfPlayPG`; 0.1 at β = 0."""
    return largest_proven_step(context) or 0.1


METHOD = Method(
    name="IPOMD",
    step=step,
    characterisation=characterisation,
    flow=flow,
    safe_step=safe_step,
    proven=proven,
    source=ONLINE_IPO.at("section 5, IPO-MD"),
    fixed_point="biased",
    tuning={"mixing": (0.125, 0.25, 0.5)},
    together=True,
    pairs=lambda params: Pairs(mixing=params.mixing),
    log_linear="gradient",
    example={"step_size": 0.3, "mixing": 0.25},
    summary="Online IPO with pairs from a geometric mixture with the reference",
)


@register(METHOD)
def IPOMD(step_size: StepSize | None = None, mixing: float = 0.125) -> Dynamics:
    """IPO-MD: ``π̃ ∝ π^(1-m) ρ^m``, ``θ⁺ = θ + γ J(π̃)(Aπ̃ - β(θ - log ρ))``.

    Parameters
    ----------
    step_size : float or schedule, optional
        γ > 0. Default: the proven step of `SelfPlayPG` on the game.
    mixing : float
        m in [0, 1]: the share of the reference in the mixture; 0 is `SelfPlayPG`.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.dynamics.IPOMD(step_size=0.5, mixing=0.25)
    IPOMD(step_size=0.5, mixing=0.25)
    """
    share = ensure_between("mixing", mixing, 0.0, 1.0)
    return Dynamics(METHOD, Params(share), ensure_step_size("step_size", step_size), given_parameters(mixing=share))
