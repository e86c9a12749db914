"""The clauses of the contract about single plain steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, DensePayoff, advantage, dense
from nlhfsim.testing._subject import (
    Check,
    Clause,
    Situation,
    Skipped,
    Subject,
    advance,
    differing,
    distance,
    log_policy,
    run_plain,
    step_input,
)

TOLERANCE = 1e-11
"""Residual of a characterisation that counts as rounding."""
REJECTED = 1e3 * TOLERANCE
"""Residual by which a wrong step must be told from the right one."""
TELLING = 1e-6
"""Distance from the right step from which on a wrong one must be told from it."""


def inputs(subject: Subject) -> Iterator[Check]:
    """A step works on arrays that cannot be written to and returns arrays of its own."""
    for at in subject.situations():
        state = _frozen(run_plain(at.method, at.context, at.policy, 2)[-1])
        copies = [np.array(part) for part in state]
        size = step_input(at.method)
        after = at.method.method.step(state, at.context, _read_only(size), at.method.params)
        changed = sum(differing(part, copy) for part, copy in zip(state, copies))
        yield Check("entries of the state that the step changed", changed, 0, at.name)
        shared = any(np.shares_memory(after.logits, part) for part in state if np.ndim(part))
        yield Check("arrays of the state that the new logits share memory with", float(shared), 0, at.name)


def _read_only(value: Any) -> Any:
    """Return a copy that cannot be written to; a number as it is."""
    if not np.ndim(value):
        return value
    copy = np.array(value)
    copy.setflags(write=False)
    return copy


def _frozen(state: Any) -> Any:
    return type(state)(*(_read_only(part) if np.ndim(part) else np.asarray(part).item() for part in state))


def constants(subject: Subject) -> Iterator[Check]:
    """Adding a constant to the logits changes no policy; where it does, the logits must be log-probabilities and stay so."""
    for at in subject.situations():
        state = run_plain(at.method, at.context, at.policy, 2)[-1]
        after, shifted = (advance(at.method, at.context, s) for s in (state, state._replace(logits=state.logits + 1.5)))
        scale = 1 + np.abs(log_policy(after)).max()
        moved = distance(log_policy(after), log_policy(shifted))
        if moved <= 1e-11 * scale:
            yield Check("change of log π⁺ by a constant in the logits", moved, 1e-11 * scale, at.name)
        else:
            size = distance(after.logits, log_policy(after))
            yield Check(
                "logits that are read as log-probabilities but are none: log of their total", size, 1e-11 * scale, at.name
            )


def leading_axes(subject: Subject) -> Iterator[Check]:
    """On a leading axis the plain step gives what it gives row by row."""
    method = subject.method.method
    if not (method.together or method.log_linear):
        raise Skipped("the step promises no leading axes (neither together nor log_linear)")
    for name, game in subject.games.items():
        one, starts = subject.constant(game), subject.starts(name).reshape(2, game.n_contexts, game.n)
        for k, context in enumerate(game.contexts):
            alone = [run_plain(one, context, policy, 3)[-1].logits for policy in starts[:, k]]
            together = run_plain(one, context, starts[:, k], 3)[-1].logits
            allowed = 1e-12 * (1 + np.abs(alone).max())
            yield Check("distance of log π of rows together from each alone", distance(together, alone), allowed, name)


# --- what a step reads ----------------------------------------------------------------------------------------------------


class _Counting:
    """A payoff that counts how often it is read."""

    def __init__(self, payoff: Any) -> None:
        self.payoff, self.calls = payoff, 0

    def product(self, policy: Array) -> Array:
        """Return Aπ."""
        self.calls += 1
        return advantage(self.payoff, policy)


class _Stale:
    """A payoff that answers for a policy of its own, whatever it is asked about."""

    def __init__(self, payoff: Any, policy: Array) -> None:
        self.gain = advantage(payoff, policy)

    def product(self, policy: Array) -> Array:
        """Return Aμ for the policy kept."""
        return self.gain


def oracle_calls(subject: Subject) -> Iterator[Check]:
    """The declared oracle calls are the products Aπ that a step, and the start, take."""
    method = subject.method.method
    if method.oracle_calls is None:
        raise Skipped("an inner solver decides how often the payoff is read (oracle_calls=None)")
    for at in subject.situations():
        counting = _Counting(at.context.payoff)
        context = at.context._replace(payoff=counting)
        state = method.init(context, at.method.params, np.log(at.policy))
        begun = counting.calls
        advance(at.method, context, state)
        declared, counted = method.oracle_calls(at.method.params), counting.calls - begun
        yield Check(f"oracle calls of a step declared as {declared}, off by", abs(counted - declared), 0, at.name)
        yield Check(
            f"oracle calls of init declared as {method.initial_calls}, off by", abs(begun - method.initial_calls), 0, at.name
        )


# --- the characterisation -------------------------------------------------------------------------------------------------


def characterisation(subject: Subject) -> Iterator[Check]:
    """Every step satisfies the optimality condition that defines the method, to rounding."""
    condition = _condition(subject)
    for at in subject.situations():
        states = run_plain(at.method, at.context, at.policy, 3)
        for before, after in zip(states, states[1:]):
            yield Check("residual of the characterisation", condition(at, before, after), TOLERANCE, at.name)


def _condition(subject: Subject) -> Callable[[Situation, Any, Any], float]:
    found = subject.method.method.characterisation
    if found is None:
        raise Skipped("the method has no characterisation")
    known = found

    def residual(at: Situation, before: Any, after: Any) -> float:
        with np.errstate(all="ignore"):
            return float(known(at.context, at.method.params, before, step_input(at.method), after))

    return residual


Wrong = Callable[[Dynamics, Context, Any, Any], Any]
"""Returns the state after a wrong step, from the method, the context, the state before, and the one before that."""


def _in_context(change: Callable[[Context], Context]) -> Wrong:
    return lambda method, context, state, stale: advance(method, change(context), state)


def _another_reference(context: Context) -> Context:
    log_reference = context.log_reference.copy()
    log_reference[0] += 0.5
    return context._replace(log_reference=log_reference - np.log(np.exp(log_reference).sum()))


def _stale_opponent(method: Dynamics, context: Context, state: Any, stale: Any) -> Any:
    return advance(method, context._replace(payoff=_Stale(context.payoff, np.exp(log_policy(stale)))), state)


WRONG_STEPS: dict[str, Wrong] = {
    "payoff transposed": _in_context(lambda c: c._replace(payoff=DensePayoff(np.ascontiguousarray(-dense(c.payoff))))),
    "half of beta": _in_context(lambda c: c._replace(beta=c.beta / 2)),
    "regularizer dropped": _in_context(lambda c: c._replace(beta=0.0)),
    "another reference": _in_context(_another_reference),
    "double step": lambda method, context, state, stale: advance(method, context, state, 2.0),
    "stale state": lambda method, context, state, stale: advance(method, context, stale),
    "stale opponent": _stale_opponent,
}


def rejection(name: str) -> Callable[[Subject], Iterator[Check]]:
    """Return the check that the characterisation tells a step with one wrong argument from the right one."""

    def check(subject: Subject) -> Iterator[Check]:
        condition, taken, counted, used = _condition(subject), 0, 0, False
        if name == "stale opponent" and subject.method.method.oracle_calls is None:
            raise Skipped("an inner solver reads the payoff")
        for at in subject.situations():
            stale, state = run_plain(at.method, at.context, at.policy, 1)
            right = advance(at.method, at.context, state)
            wrong = _attempt(WRONG_STEPS[name], at, state, stale)
            if wrong is None:
                continue
            taken += 1
            used = used or any(differing(a, b) for a, b in zip(wrong, right))
            # Numbers beside the arrays count steps: what is wrong with a step shows in its arrays.
            if max(distance(a, b) for a, b in zip(wrong, right) if np.ndim(b)) > TELLING:
                counted += 1
                residual = condition(at, state, wrong)
                residual = np.inf if np.isnan(residual) else residual
                yield Check(f"residual of a step with {name}", residual, REJECTED, at.name, least=True)
        if not taken:
            raise Skipped("no step can be taken with it")
        if not used:
            raise Skipped("it makes no difference to the step")
        if not counted:
            raise Skipped("no game tells it from the right step")

    return check


@np.errstate(all="ignore")
def _attempt(wrong: Wrong, at: Situation, state: Any, stale: Any) -> Any:
    """Return a wrong step, or None where it cannot be taken at all."""
    try:
        found = wrong(at.method, at.context, state, stale)
    except ArithmeticError:
        return None
    return found if all(np.isfinite(part).all() for part in found) else None


# --- the continuous-time limit --------------------------------------------------------------------------------------------


def flow(subject: Subject) -> Iterator[Check]:
    """The first step divided by its size tends to the declared flow, up to a constant."""
    method = subject.method.method
    if method.flow is None:
        raise Skipped("the method declares no continuous-time limit")
    if method.scheduled is None:
        raise Skipped("the method has no step size")
    for at in subject.situations():
        state = method.init(at.context, at.method.params, np.log(at.policy))
        field = _centred(method.flow(at.context, at.method.params, state.logits))
        first = 1e-3 / (1 + at.context.beta)
        coarse, fine = (distance(_velocity(at, state, size), field) for size in (first, first / 16))
        allowed = max(0.3 * coarse, 1e-8 * (1 + np.abs(field).max()))
        yield Check("distance of (θ⁺ - θ)/γ from the flow, when γ is divided by 16", fine, allowed, at.name)


def _centred(vector: Array) -> Array:
    return np.asarray(vector - vector.mean())


def _velocity(at: Situation, state: Any, size: float) -> Array:
    """Return (θ⁺ - θ) over the sum of the step sizes that a step of this size uses."""
    sizes = step_input(at.method.with_step(size))
    after = at.method.method.step(state, at.context, sizes, at.method.params)
    return _centred((after.logits - state.logits) / np.sum(sizes))


STEP_CLAUSES = (
    Clause("inputs", "a step leaves what it is given alone", inputs),
    Clause("constants", "a constant in the logits changes no policy, unless they are log-probabilities", constants),
    Clause("leading axes", "rows on a leading axis are steps of their own", leading_axes),
    Clause("oracle calls", "a step reads the payoff as often as it declares", oracle_calls),
    Clause("characterisation", "every step satisfies its optimality condition", characterisation),
    *(Clause(f"rejects: {name}", f"the characterisation rejects a step with {name}", rejection(name)) for name in WRONG_STEPS),
    Clause("flow", "(θ⁺ - θ)/γ tends to the declared flow", flow),
)
