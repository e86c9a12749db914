"""Claims about the constant steps at which methods stop being stable: found by runs, against what linearizations say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._growth import turning_points
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.claims.critical_step import rotation
from nlhfsim.dynamics import Dynamics, NashMD, NaturalPG, SelfPlayPG
from nlhfsim.errors import Array
from nlhfsim.games import cyclic_tournament
from nlhfsim.sources import NASH_LEARNING, PROXIMAL_POINT_NLHF
from nlhfsim.stability import critical_step

DERIVED = PROXIMAL_POINT_NLHF.at("stability of constant steps; the statement is derived in this project")
_RAREST = 0.02
_WHY = "the runs bracket the step to 1 %, half of which is its uncertainty; near it they leave or come back slowly"


def _first_turn(factor: float) -> Callable[[Case, Dynamics], Measured]:
    """Return the measurement of the smallest step at which runs turn unstable, looked for from a proven one up."""

    def measure(case: Case, dynamics: Dynamics) -> Measured:
        safe = case.beta / (case.beta**2 + math.pi**-2)
        found = turning_points(case, dynamics, 0.9 * factor * safe, 1500 * factor * safe)
        return found[0] if found else Measured(np.nan)

    return measure


def _visible(case: Case) -> str:
    if case.n < 2 or float(case.equilibrium.min()) < _RAREST:
        return "an action is so rare that it hardly moves"
    return "" if case.beta >= 0.03 else "beta is so small that runs near the threshold are too slow"


def _predicted(case: Case, dynamics: Dynamics) -> float:
    return critical_step(case.game, dynamics)


def _predicted_at_reference(case: Case, dynamics: Dynamics) -> float:
    """Return min -2 Re λ/|λ|² of J(AJ - βI) at ρ in place of π*."""
    return _spectral(case, case.reference)


def _spectral(case: Case, policy: Array, power: float = 2.0) -> float:
    covariance = np.diag(policy) - np.outer(policy, policy)
    values = np.linalg.eigvals(covariance @ (case.advantages @ covariance - case.beta * np.eye(case.n)))
    values = values[np.abs(values) > 1e-9]
    return float(np.min(-power * values.real / np.abs(values) ** 2))


register(
    Claim(
        id="critical-step",
        title="SelfPlayPG: runs from next to π* leave it exactly above the critical step",
        statement=(
            r"\text{locally stable iff } \gamma < \gamma_c = \min_{\lambda \ne 0} \frac{-2\operatorname{Re}\lambda}{|\lambda|^2},"
            r"\quad \lambda \text{ of } J(\pi^*)(AJ(\pi^*) - \beta I)"
        ),
        source=DERIVED,
        kind="threshold",
        status="asymptotic",
        measure=_first_turn(4.0),
        bound=_predicted,
        tolerance=0.015,
        why=_WHY,
        mutants=(
            Mutant("1 for 2", {"bound": lambda case, dynamics: _spectral(case, case.equilibrium, 1.0)}),
            Mutant("2.2 for 2", {"bound": lambda case, dynamics: _spectral(case, case.equilibrium, 2.2)}),
            Mutant("ρ in place of π*", {"bound": _predicted_at_reference}),
        ),
        proof="docs/proofs/critical-step.md#linearization",
        cost="moderate",
        method=SelfPlayPG(),
        counts=_visible,
    )
)


def _by_rotation(factor: float = 2.0, at_equilibrium: bool = True) -> Callable[[Case, Dynamics], float]:
    def bound(case: Case, dynamics: Dynamics) -> float:
        omega = rotation(case.advantages, case.equilibrium if at_equilibrium else case.reference)
        return factor * case.beta / (case.beta**2 + omega**2)

    return bound


register(
    Claim(
        id="omd-critical-step",
        title="NaturalPG: runs from next to π* leave it exactly above 2β/(β² + ω²)",
        statement=(
            r"\text{locally stable iff } \gamma < \frac{2\beta}{\beta^2 + \omega^2},"
            r"\quad \omega \text{ the spectral radius of } AJ(\pi^*)"
        ),
        source=DERIVED,
        kind="threshold",
        status="asymptotic",
        measure=_first_turn(2.0),
        bound=_by_rotation(),
        tolerance=0.015,
        why=_WHY,
        mutants=(
            Mutant("1 for 2", {"bound": _by_rotation(1.0)}),
            Mutant("ω at ρ in place of π*", {"bound": _by_rotation(at_equilibrium=False)}),
        ),
        proof="docs/proofs/derived-claims.md#omd-critical-step",
        cost="moderate",
        method=NaturalPG(),
        counts=_visible,
    )
)

# --- Nash-MD on the cycle --------------------------------------------------------------------------------------------------


def _cycles(seed: int) -> Iterator[Case]:
    for beta in (0.05, 0.01):
        game = cyclic_tournament(3, 0.5, beta=beta)
        uniform = game.log_reference.reshape(3)
        yield Case(game, uniform, uniform, 1.0, "by hand")


def _window(case: Case, dynamics: Dynamics) -> Measured:
    """Return both ends of the unstable window, found by runs."""
    found = turning_points(case, dynamics, case.beta, 0.999 / case.beta)
    if len(found) != 2:
        return Measured(np.full(2, np.nan))
    return Measured(np.array([end.value for end in found]), np.array([end.uncertainty for end in found]))


def _roots(squared_rotation: float = 1 / 12, power: int = 2) -> Callable[[Case, Any], Array]:
    """Return where (1 - γβ)²(1 + γ²/12) = 1 for 0 < γ < 1/β; or with another ω² or exponent."""

    def bound(case: Case, dynamics: Dynamics) -> Array:
        shrink = np.poly1d([-case.beta, 1.0]) ** power
        zeros = np.roots((shrink * np.poly1d([squared_rotation, 0.0, 1.0]) - 1).coeffs)
        real = np.sort(zeros[np.abs(zeros.imag) < 1e-9].real)
        return np.asarray(real[(real > 1e-9) & (real < 1 / case.beta)][:2])

    return bound


register(
    Claim(
        id="nash-md-threshold",
        title="NashMD on the uniform cycle: a window of constant steps is unstable",
        statement=(
            r"\text{locally stable iff } (1 - \gamma\beta)^2(1 + \gamma^2/12) < 1"
            r"\text{ on the 3-cycle of certain votes, } \rho \text{ uniform}"
        ),
        source=NASH_LEARNING.at("Nash-MD; the statement is derived in this project"),
        kind="threshold",
        status="asymptotic",
        measure=_window,
        bound=_roots(),
        tolerance=0.01,
        why=_WHY,
        mutants=(
            Mutant("1/16, ω = 1/4, for 1/12", {"bound": _roots(1 / 16)}),
            Mutant("1 - γβ not squared", {"bound": _roots(power=1)}),
        ),
        proof="docs/proofs/derived-claims.md#nash-md-threshold",
        cost="costly",
        method=NashMD(),
        cases=_cycles,
    )
)
