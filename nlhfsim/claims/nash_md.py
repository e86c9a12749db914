"""Claims about Nash mirror descent: one step, and its rate with decreasing steps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._rates import STEPS, steps_up_to
from nlhfsim.claims._registry import register
from nlhfsim.claims._runs import EPS, kl_to_equilibrium, log_policies
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.dynamics import Dynamics, NashMD
from nlhfsim.errors import Array
from nlhfsim.simplex import log_softmax
from nlhfsim.sources import NASH_LEARNING


def _growth(contraction: float = 1.0, mixture: float = 1.0) -> Callable[[Case, Dynamics], Measured]:
    """Return KL(π*‖π⁺) less what the terms of first order in γ make of KL(π*‖π), those times factors."""

    def measure(case: Case, dynamics: Dynamics) -> Measured:
        share = case.step_size * case.beta
        rows = np.array([*log_policies(case, dynamics, 1)[::-1], case.log_equilibrium])
        mixed = log_softmax((1 - share) * case.log_policy + share * case.log_reference)
        after, before, _ = kl_to_equilibrium(case, rows).value
        floor = float(np.sum(np.exp(mixed) * (mixed - case.log_equilibrium)))
        value = after - (1 - contraction * share) * before + mixture * share * floor
        return Measured(value, _growth_error(case, rows[0], mixed))

    return measure


def _growth_error(case: Case, new: Array, mixed: Array) -> float:
    """Return what the growth may be off by.

    As a function of log π* it has the gradient π*(log π⁺/π^(1-γβ) + …): an error of log π* counts with the range of those logits.
    """
    logits = (new, mixed, case.log_policy, case.log_equilibrium)
    largest = max(float(np.abs(row).max()) for row in logits)
    change = np.ptp(new - case.log_policy) + case.step_size * case.beta * (2 * largest + 1)
    return float(case.log_error * change + 8 * EPS * (1 + largest))


def _square(factor: float) -> Callable[[Case, Dynamics], float]:
    return lambda case, dynamics: factor * case.step_size**2 / 24


register(
    Claim(
        id="nash-md-recursion",
        title="NashMD: one step contracts KL to π* by 1 - γβ, up to γ²/24",
        statement=r"\mathrm{KL}(\pi^* \| \pi^+) \le (1 - \gamma\beta)\, \mathrm{KL}(\pi^* \| \pi) - \gamma\beta\, "
        r"\mathrm{KL}(\tilde\pi \| \pi^*) + \gamma^2/24",
        source=NASH_LEARNING.at("the one-step inequality behind theorem 1, constant 2; 1/24 derived here"),
        kind="upper",
        status="theorem",
        measure=_growth(),
        bound=_square(1.0),
        tolerance=1e-12,
        why="rounding and the error of π* are propagated to the difference of KLs",
        hypotheses=(steps_up_to("γβ ≤ 1", lambda case: 1 / case.beta),),
        mutants=(
            Mutant("contracts twice as much", {"measure": _growth(contraction=2.0)}),
            Mutant("the term with the mixture twice", {"measure": _growth(mixture=2.0)}),
            Mutant("γ²/48", {"bound": _square(0.5)}),
        ),
        proof="docs/proofs/derived-claims.md#nash-md-recursion",
        method=NashMD(),
    )
)


def _kl_with_schedule(case: Case, dynamics: Dynamics) -> Measured:
    """Return KL(π*‖π_{t+1}) for t = 0, …, with γ_t = 2/(β(t + 2))."""
    method, rows = dynamics.method, []
    state = method.init(case.context, dynamics.params, case.log_policy)
    for t in range(STEPS):
        state = method.step(state, case.context, 2 / (case.beta * (t + 2)), dynamics.params)
        rows.append(log_softmax(state.logits))
    return kl_to_equilibrium(case, np.array(rows))


def _inverse_time(case: Case, dynamics: Dynamics) -> Array:
    return np.asarray(1 / (6 * case.beta**2 * (np.arange(STEPS) + 2)))


register(
    Claim(
        id="nash-md-rate",
        title="NashMD with γ_t = 2/(β(t + 2)): KL to π* falls like 1/t from every start",
        statement=r"\gamma_t = \frac{2}{\beta(t + 2)}:\quad \mathrm{KL}(\pi^* \| \pi_{t+1}) \le \frac{1}{6\beta^2(t + 2)}",
        source=NASH_LEARNING.at("theorem 1, constant 8; 1/6 derived here"),
        kind="upper",
        status="theorem",
        measure=_kl_with_schedule,
        bound=_inverse_time,
        tolerance=1e-12,
        why="rounding and the error of π* are propagated to KL",
        slack="0.4 of the bound is needed, so half of it is not rejected; nash-md-step carries the wrong steps",
        proof="docs/proofs/derived-claims.md#nash-md-rate",
        method=NashMD(),
    )
)
