"""What the claims about last-iterate rates share: KL(π*‖π_K) along a run, and powers of a factor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._runs import kl_to_equilibrium, log_policies
from nlhfsim.claims._spec import Hypothesis, Measured
from nlhfsim.dynamics import Dynamics
from nlhfsim.errors import Array

STEPS = 40
WHY = "rounding of a power; the error of π* and rounding of the run are propagated to KL"


def kl_along(case: Case, dynamics: Dynamics) -> Measured:
    """Return KL(π*‖π_K) for K = 1, …, `STEPS`."""
    return kl_to_equilibrium(case, log_policies(case, dynamics, STEPS)[1:])


def powers(factor: Callable[[Case], float], power: float = 1.0, steps: int = STEPS) -> Callable[[Case, Dynamics], Array]:
    """Return the bound ``factor^(power K) KL(π*‖π_0)`` for K = 1, …, `steps`; KL by its definition."""

    def bound(case: Case, dynamics: Dynamics) -> Array:
        first = float(np.sum(case.equilibrium * (case.log_equilibrium - case.log_policy)))
        return np.asarray(first * factor(case) ** (power * np.arange(1, steps + 1)))

    return bound


def implicit_factor(case: Case) -> float:
    """Return 1/(1 + γβ), by which a step with the proximal term divides KL."""
    return 1 / (1 + case.step_size * case.beta)


def steps_up_to(name: str, largest: Callable[[Case], float], factor: float = 1.0) -> Hypothesis:
    """Return the hypothesis that the step size is at most `factor` times what `largest` says; enforced by lowering it."""

    def enforce(case: Case) -> Case:
        return case.at(step_size=min(case.step_size, factor * largest(case)))

    return Hypothesis(name, lambda case: case.step_size <= factor * largest(case), enforce)
