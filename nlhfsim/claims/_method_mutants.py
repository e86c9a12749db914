"""Wrong steps of a method: what a bug would make of any, and those of one method, in `_wrong_steps`."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nlhfsim.claims._wrong_steps import SPECIFIC, Change, plain
from nlhfsim.dynamics import Dynamics
from nlhfsim.dynamics._spec import Method
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, DensePayoff, advantage, dense


@functools.cache
def _with_past(right: Any) -> Any:
    """Return the type of a state that also keeps the policy last asked about."""
    kept = namedtuple("WithPast", (*right._fields, "past"))  # type: ignore[misc]
    kept.right = right  # type: ignore[attr-defined]
    return kept


def _without_past(state: Any) -> Any:
    return type(state).right(*state[:-1])


class _StalePayoff:
    """Answers each question with the answer to the one before."""

    def __init__(self, payoff: Any, past: Array) -> None:
        self.payoff, self.past = payoff, past

    def product(self, policy: Array) -> Array:
        """Return Aπ of the policy asked about before."""
        asked, self.past = self.past, policy
        return advantage(self.payoff, asked)


def stale_opponent(method: Method) -> Method:
    """The opponent's policy is the one before."""

    def init(context: Context, params: Any, log_policy: Array) -> Any:
        state = method.init(context, params, log_policy)
        kept: Any = _with_past(type(state))  # type: ignore[arg-type]
        return kept(*state, np.exp(log_policy))

    def step(state: Any, context: Context, step_size: Any, params: Any) -> Any:
        payoff = _StalePayoff(context.payoff, state.past)
        after = method.step(_without_past(state), context._replace(payoff=payoff), step_size, params)
        return type(state)(*after, payoff.past)

    def characterisation(context: Context, params: Any, before: Any, step_size: Any, after: Any) -> float:
        assert method.characterisation is not None
        return method.characterisation(context, params, _without_past(before), step_size, _without_past(after))

    return plain(method, init=init, step=step, characterisation=characterisation)


def in_context(change: Callable[[Context], Context]) -> Change:
    """The step is given another game."""

    def wrong(method: Method) -> Method:
        def step(state: Any, context: Context, step_size: Any, params: Any) -> Any:
            return method.step(state, change(context), step_size, params)

        return plain(method, step=step)

    return wrong


def doubled_step(method: Method) -> Method:
    """The step size is doubled."""

    def step(state: Any, context: Context, step_size: Any, params: Any) -> Any:
        return method.step(state, context, 2 * step_size, params)

    return plain(method, step=step)


def _tilted(context: Context) -> Context:
    uniform = np.full_like(context.log_reference, -np.log(len(context.log_reference)))
    return context._replace(log_reference=uniform)


GENERIC: dict[str, Change] = {
    "P transposed": in_context(lambda context: context._replace(payoff=DensePayoff(-dense(context.payoff)))),
    "factor 2 in the step": doubled_step,
    "opponent's policy stale": stale_opponent,
    "regularizer dropped": in_context(lambda context: context._replace(beta=0.0)),
    "regularizer halved": in_context(lambda context: context._replace(beta=context.beta / 2)),
    "uniform for the reference": in_context(_tilted),
}


def mutants_of(dynamics: Dynamics) -> dict[str, Dynamics]:
    """Return wrong versions of a method by what is wrong; a change that the method does not notice is left out."""
    changes = GENERIC | SPECIFIC.get(dynamics.name, {})
    wrong = {name: replace(dynamics, method=change(dynamics.method)) for name, change in changes.items()}
    return {name: mutant for name, mutant in wrong.items() if _differs(dynamics, mutant)}


def _differs(dynamics: Dynamics, mutant: Dynamics) -> bool:
    """Return whether a few steps tell the methods apart on a three-cycle whose reference is not uniform."""
    cycle = DensePayoff(np.array([[0.0, 0.5, -0.5], [-0.5, 0.0, 0.5], [0.5, -0.5, 0.0]]))
    context = Context(cycle, np.log([0.5, 0.3, 0.2]), 0.1)
    try:
        return not np.array_equal(_few_steps(dynamics, context), _few_steps(mutant, context))
    except (AttributeError, TypeError):
        return False  # a step that reads the matrix itself cannot be given another product


def _few_steps(dynamics: Dynamics, context: Context) -> Array:
    method, params = dynamics.method, dynamics.params
    size: Any = 0.0 if method.scheduled is None else 0.5
    size = size if method.inner_steps is None else np.full(method.inner_steps(params), size)
    state = method.init(context, params, np.log([0.2, 0.3, 0.5]))
    for _ in range(4):
        state = method.step(state, context, size, params)
    return np.asarray(state.logits)
