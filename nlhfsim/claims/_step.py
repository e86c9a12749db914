"""That a method's step is what defines it: the claim of every method with a characterisation, with wrong steps as mutants."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._method_mutants import mutants_of
from nlhfsim.claims._spec import Claim, Hypothesis, Measured, Mutant
from nlhfsim.dynamics import Dynamics, as_dynamics
from nlhfsim.errors import Array, InputError
from nlhfsim.sources import PROXIMAL_POINT_NLHF

_STEPS = 3
_TOLERANCE = 1e-13
SHORTER: dict[str, dict[str, Any]] = {"MagnetRefresh": {"refresh_every": 2}}
"""Parameters with which a few steps see all that a step does, by method, where its example's are too long for that."""


def kebab(name: str) -> str:
    """Return a method's name in lower case with hyphens."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def step_input(dynamics: Dynamics, step_size: float) -> Any:
    """Return what one step receives as its step size: a number, one for each inner step, or 0 if the method has none."""
    method = dynamics.method
    size = 0.0 if method.scheduled is None else step_size
    return size if method.inner_steps is None else np.full(method.inner_steps(dynamics.params), size)


def residuals(case: Case, dynamics: Dynamics) -> Measured:
    """Return how far each of a few steps is from the condition that characterises it, in units of the logits it moves."""
    method, params, context = dynamics.method, dynamics.params, case.context
    if method.characterisation is None:
        raise InputError(f"{method.name} has no characterisation")
    size = step_input(dynamics, case.step_size)
    state, found = method.init(context, params, case.log_policy), []
    for _ in range(_STEPS):
        after = method.step(state, context, size, params)
        scale = 1.0 + _largest(state, after, case.log_reference)
        found.append(method.characterisation(context, params, state, size, after) / scale)
        state = after
    return Measured(np.array(found))


def _largest(before: Any, after: Any, log_reference: Array) -> float:
    return max(float(np.abs(row).max()) for row in (before.logits, after.logits, log_reference))


def _moderate(case: Case) -> Case:
    return case.at(step_size=min(max(case.step_size, 0.05), 2.0, 0.9 / case.beta))


_RANGE = Hypothesis("0 < γ ≤ min(2, 0.9/β)", lambda case: case.step_size <= min(2.0, 0.9 / case.beta), _moderate)


def step_claim(method: Any) -> Claim:
    """Return the claim that the step of a method is the one that its characterisation defines.

    Parameters
    ----------
    method : Dynamics, Method, factory or str
        A method that has a characterisation, as in `nlhfsim.simulate`; registered or not.

    Raises
    ------
    InputError
        If it is no method, or has no characterisation.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> claim = nl.claims.step_claim(nl.dynamics.NashMD(0.5))
    >>> claim.id, claim.status
    ('nash-md-step', 'identity')
    """
    dynamics = as_dynamics(method)
    spec = dynamics.method
    if spec.characterisation is None:
        raise InputError(f"{spec.name} has no characterisation: give Method(characterisation=…) to have its step checked")
    return Claim(
        id=f"{kebab(spec.name)}-step",
        title=f"the step of {spec.name} meets the optimality condition that defines it",
        statement=rf"\text{{{spec.name}: }}\pi^+ \text{{ satisfies its optimality condition}}",
        source=spec.source or PROXIMAL_POINT_NLHF,
        kind="equality",
        status="identity",
        measure=residuals,
        bound=lambda case, dynamics: 0.0,
        absolute=_TOLERANCE,
        why="rounding of logits, relative to the largest",
        hypotheses=(_RANGE,),
        mutants=tuple(Mutant(name, {"method": wrong}) for name, wrong in mutants_of(dynamics).items()),
        proof="The condition shares no code with the step; see the method's file.",
        method=dynamics,
    )
