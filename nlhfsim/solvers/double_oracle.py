"""The unregularized game, β = 0, with too many actions for its matrix: solved on a growing set of actions.

Best responses over all actions are added to the set until none gains anything (the double oracle algorithm of McMahan, Gordon &
Blum, ICML 2003, for the one player of a symmetric game). In a low-rank game the set stays small: an equilibrium with few actions
exists, and a best response costs one product with the policy.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array
from nlhfsim.games.payoffs import Context, LowRankPayoff, Payoff, advantage, dense, n_actions, restricted
from nlhfsim.simplex import safe_log
from nlhfsim.solvers import Answer
from nlhfsim.solvers.interior_point import solve_by_interior_point

Actions = npt.NDArray[np.int64]
_FIRST, _ADDED, _LARGEST = 200, 100, 1500
_GAIN, _TIE = 1e-13, 1e-9
"""What counts as a gain against the policy, and as a tie (an action of another equilibrium, maybe), of entries of order 1."""


def solve_by_double_oracle(context: Context) -> Answer:
    """Return an equilibrium of one context: the centre of all of them, with their dimension, if at most 1,500 actions tie.

    If more do, the equilibrium is one of them, and it is only said whether there is another one, found without the first one's
    actions; ``unique`` is None where that does not tell.
    """
    payoff = _scaled(context.payoff)
    everything = np.arange(n_actions(payoff))
    chosen = _best(advantage(payoff, np.exp(context.log_reference)), _FIRST)
    answer, settled = _grown(payoff, everything, chosen)
    if settled:
        return answer
    support = np.exp(answer.log_policy) > 0
    others = everything[~support]
    second, _ = _grown(payoff, others, others[:_FIRST])
    another = float(advantage(payoff, np.exp(second.log_policy)).max()) <= _GAIN
    words = f"{answer.words}; over {_LARGEST} actions tie, {'and' if another else 'unknown whether'} there are other equilibria"
    return replace(answer, words=words, face_dimension=None, unique=False if another else None)


def _scaled(payoff: Payoff) -> Payoff:
    """Return a low-rank form with entries of order 1, as far as some hundreds of actions show: gains and ties are relative."""
    if not isinstance(payoff, LowRankPayoff):
        return payoff
    some = np.unique(np.linspace(0, n_actions(payoff) - 1, 2 * _FIRST).astype(np.int64))
    largest = float(np.abs(dense(restricted(payoff, some))).max())
    return LowRankPayoff(payoff.left * (0.5 / largest), payoff.right) if largest > 0 else payoff


def _grown(payoff: Payoff, allowed: Actions, chosen: Actions) -> tuple[Answer, bool]:
    """Solve on `chosen`, growing within `allowed`; return the answer and whether every tied action is in the set."""
    barred = np.ones(n_actions(payoff), dtype=bool)
    barred[allowed] = False
    rounds = 0
    while True:
        rounds += 1
        part = Context(restricted(payoff, chosen), np.full(len(chosen), -np.log(len(chosen))), 0.0)
        answer = solve_by_interior_point(part)
        policy = np.zeros(len(barred))
        policy[chosen] = np.exp(answer.log_policy)
        policy /= policy.sum()
        gains = advantage(payoff, policy)
        gains[chosen] = gains[barred] = -np.inf
        gaining, tied = int((gains > _GAIN).sum()), int((gains > -_TIE).sum())
        words = f"double oracle: {rounds} rounds, {len(chosen)} actions"
        more = min(gaining, _ADDED) if gaining else tied
        if more == 0 or len(chosen) + more > _LARGEST:
            return Answer(safe_log(policy), "interior-point", words, answer.face_dimension), more == 0
        chosen = np.sort(np.concatenate([chosen, _best(gains, more)]))


def _best(gains: Array, count: int) -> Actions:
    """Return the actions with the largest gains, in order."""
    count = min(count, len(gains))
    return np.sort(np.argpartition(-gains, count - 1)[:count])
