"""Claims about the flow of self-play policy gradient: the potential falls along it, it ends in π*, and how wide it strays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._potential import EPS, centred, divergence_error, level, symmetric_divergence
from nlhfsim.claims._registry import register
from nlhfsim.claims._runs import kl_to_equilibrium
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.dynamics import Dynamics, NaturalPG, SelfPlayPG
from nlhfsim.errors import Array
from nlhfsim.flow import Flow, flow
from nlhfsim.games.payoffs import Context, DensePayoff, dense
from nlhfsim.sources import PROXIMAL_POINT_NLHF

DERIVED = PROXIMAL_POINT_NLHF.at("self-play policy gradient in continuous time; the statement is derived in this project")
_PAGE = "docs/proofs/self-play-pg-converges.md"
_SIZE = 1e-30
_OFFSET = 0.5
"""Constant added to θ, which Φ and Z must make up for."""


def _velocity(case: Case, dynamics: Dynamics, logits: Array) -> Array:
    field = dynamics.method.flow
    assert field is not None
    return np.asarray(field(case.context, dynamics.params, logits))


def _slope(case: Case, dynamics: Dynamics) -> Measured:
    """Return dΦ/dt along the field of the method by a complex step on Φ = Σ π*e^(-θ)."""
    logits = case.log_policy + _OFFSET
    velocity = _velocity(case, dynamics, logits)
    terms = np.exp(case.log_equilibrium - (logits + 1j * _SIZE * velocity)).imag / _SIZE
    # Cauchy–Schwarz: Σ π*δ e^(-θ)θ', δ the error of log π*; and rounding of the field, whose terms may cancel.
    spread = float(np.sqrt(np.sum(np.exp(case.log_equilibrium - 2 * logits) * velocity**2)))
    size = float(np.sum(np.exp(case.log_equilibrium - logits) * case.policy)) * _largest_gain(case)
    return Measured(float(np.sum(terms)), case.log_error * spread + 16 * EPS * (size + float(np.sum(np.abs(terms)))))


def _largest_gain(case: Case) -> float:
    return 1 + case.beta * (1 + float(np.abs(case.log_policy - case.log_reference).max()))


def _derived_slope(forward: float = 1.0, backward: float = 1.0, whole: bool = True) -> Callable[[Case, Dynamics], Measured]:
    """Return -(β/Z)(KL(π‖π*) + KL(π*‖π)); or with other weights of the two, or without Z."""

    def bound(case: Case, dynamics: Dynamics) -> Measured:
        pi, q, log_ratio = case.policy, case.equilibrium, case.log_policy - case.log_equilibrium
        factor = case.beta / (np.exp(_OFFSET) if whole else 1.0)
        if forward == backward:
            D = forward * symmetric_divergence(pi, case.log_policy, q, case.log_equilibrium)
        else:
            D = float(forward * np.sum(pi * log_ratio) - backward * np.sum(q * log_ratio))
        return Measured(-factor * D, factor * divergence_error(case))

    return bound


register(
    Claim(
        id="self-play-pg-flow-converges",
        title="along the flow of SelfPlayPG the potential Φ falls, at a rate known exactly",
        statement=(
            r"\frac{d}{dt}\sum_y \pi^*_y e^{-\theta_y} = "
            r"-\frac{\beta}{Z}\bigl(\mathrm{KL}(\pi\|\pi^*) + \mathrm{KL}(\pi^*\|\pi)\bigr)"
            r"\text{ along } \dot\theta = J(\pi_\theta)(A\pi_\theta - \beta(\theta - \log\rho)),\ Z = \sum_y e^{\theta_y};\quad"
            r"\text{so } \pi_t \to \pi^* \text{ from every start}"
        ),
        source=DERIVED,
        kind="equality",
        status="theorem",
        measure=_slope,
        bound=_derived_slope(),
        tolerance=1e-12,
        why="rounding of the field and of Φ; the error of π* is propagated to both sides",
        mutants=(
            Mutant("half of KL(π‖π*) dropped", {"bound": _derived_slope(0.5, 1.0)}),
            Mutant("half of KL(π*‖π) dropped", {"bound": _derived_slope(1.0, 0.5)}),
            Mutant("1/Z left out", {"bound": _derived_slope(whole=False)}),
            Mutant("the flow of NaturalPG", {"method": NaturalPG()}),
        ),
        proof=f"{_PAGE}#flow",
        method=SelfPlayPG(),
    )
)

_LONGEST = 1e5
"""Longest time integrated."""


def _time_needed(case: Case) -> float:
    rarest = case.beta * min(float(case.equilibrium.min()), float(case.policy.min()))
    return 30 / rarest if rarest > 0 else float("inf")


def _end_of_flow(case: Case, dynamics: Dynamics) -> Measured:
    found = flow(case.game, dynamics, [_time_needed(case)], start=case.policy, equilibrium=False, rtol=1e-9, atol=1e-9)
    return kl_to_equilibrium(case, found.log_policies[0, -1:])


def _transposed(context: Context, params: Any, logits: Array) -> Array:
    """The field on the game in which winners and losers are exchanged."""
    right = SelfPlayPG().method.flow
    assert right is not None
    return right(context._replace(payoff=DensePayoff(-dense(context.payoff))), params, logits)


_WRONG = replace(SelfPlayPG(), method=replace(SelfPlayPG().method, flow=_transposed))

register(
    Claim(
        id="self-play-pg-flow-reaches-equilibrium",
        title="the flow of SelfPlayPG ends in π*",
        statement=r"\pi_t \to \pi^* \text{ along } \dot\theta = J(\pi_\theta)(A\pi_\theta - \beta(\theta - \log\rho))",
        source=DERIVED,
        kind="upper",
        status="theorem",
        measure=_end_of_flow,
        bound=lambda case, dynamics: 1e-10,
        absolute=1e-12,
        why="a time of 30/(β min(π*, π_0)) is not an infinite one, and the integration errs by 1e-9 a step, which adds up",
        mutants=(Mutant("P transposed", {"method": _WRONG}),),
        proof=f"{_PAGE}#flow",
        cost="moderate",
        method=SelfPlayPG(),
        counts=lambda case: "" if _time_needed(case) <= _LONGEST else f"it would take longer than {_LONGEST:g}",
    )
)

# --- how wide it strays ----------------------------------------------------------------------------------------------------


def _flow_from_reference(case: Case, dynamics: Dynamics) -> Flow:
    times = np.geomspace(0.1 / max(1.0, case.beta), min(1e4, 1e3 / case.beta), 60)
    return flow(case.game, dynamics, times, start="reference", equilibrium=False, rtol=1e-7, atol=1e-7)


def _widest(case: Case, dynamics: Dynamics) -> Measured:
    return Measured(float(_flow_from_reference(case, dynamics).span.max()), 1e-5)


def _width_allowed(case: Case, dynamics: Dynamics) -> float:
    return float(case.n / case.beta + np.log(4))


register(
    Claim(
        id="self-play-pg-flow-span",
        title="the flow of SelfPlayPG from the reference strays at most n/β + log 4 from it",
        statement=(
            r"\|\theta_t - \log\rho\|_{\mathrm{sp}} \le n/\beta + \log 4 \le n(1/\beta + \log n)"
            r"\quad\text{from } \theta_0 = \log\rho"
        ),
        source=DERIVED,
        kind="upper",
        status="theorem",
        measure=_widest,
        bound=_width_allowed,
        tolerance=1e-12,
        why="the integration errs by 1e-7 a step",
        slack="by a factor of n or more: the widest seen is 1.033/β; potential-bounds-span and flow-starts-low carry the mutants",
        proof=f"{_PAGE}#span",
        cost="costly",
        method=SelfPlayPG(),
    )
)


def _outlier(n: int, depth: float) -> Array:
    """Return the centred w at which the potential bounds the span best: one entry far up, one log 2 below the others."""
    w = np.full(n, -depth)
    w[1] -= np.log(2)
    w[0] = -w[1:].sum()
    return w


def _directions(case: Case) -> list[Array]:
    """Return log-ratios that the bound is checked on: to π* of the policies, and its extreme shape."""
    n, w = case.n, [centred(log_policy - case.log_equilibrium) for log_policy in (case.log_policy, case.log_opponent)]
    return [*w, _outlier(n, 10 + case.step_size)] if n > 1 else w


def _span_allowed(times: float = 1.0, offset: float = 4.0) -> Callable[[Case], Array]:
    return lambda case: np.array([times * case.n * level(w) + np.log(offset) for w in _directions(case)])


register(
    Claim(
        id="potential-bounds-span",
        title="the potential bounds how far a policy is from π*",
        statement=r"\|w\|_{\mathrm{sp}} \le n \log\Bigl(\tfrac1n\sum_y e^{-w_y}\Bigr) + \log 4,\quad \sum_y w_y = 0",
        source=DERIVED,
        kind="upper",
        status="theorem",
        measure=lambda case: np.array([float(np.ptp(w)) for w in _directions(case)]),
        bound=_span_allowed(),
        tolerance=1e-12,
        why="rounding; the inequality holds for any w, so an error of π* does not matter",
        mutants=(
            Mutant("log 2 for log 4", {"bound": _span_allowed(offset=2.0)}),
            Mutant(
                "n - 1 for n", {"bound": lambda case: np.array([(case.n - 1) * level(w) + np.log(4) for w in _directions(case)])}
            ),
            Mutant("n/2 for n", {"bound": _span_allowed(0.5)}),
        ),
        proof=f"{_PAGE}#span",
    )
)


def _start_level(case: Case) -> Measured:
    """Return ℓ at the reference."""
    return Measured(level(centred(case.log_reference - case.log_equilibrium)), case.log_error * (1 + 1 / (2 * case.beta)))


register(
    Claim(
        id="flow-starts-low",
        title="at the reference the potential is low",
        statement=(
            r"\log\Bigl(\tfrac1n\sum_y e^{-w_y}\Bigr) \le \min\Bigl(\frac{1 - 1/n}{\beta}, \frac{1}{8\beta^2}\Bigr)"
            r"\text{ at } \pi = \rho"
        ),
        source=DERIVED,
        kind="upper",
        status="theorem",
        measure=_start_level,
        bound=lambda case: min((1 - 1 / case.n) / case.beta, 1 / case.beta / (8 * case.beta)),
        tolerance=1e-12,
        why="rounding; the error of π* is propagated",
        mutants=(Mutant("1/16 for 1/8", {"bound": lambda case: 1 / (16 * case.beta**2)}),),
        proof=f"{_PAGE}#span",
    )
)
