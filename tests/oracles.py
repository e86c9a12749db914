"""Slow, obvious truth in probability space, from the definitions of the game, at 60 decimal digits.

Nothing here imports the package. Policies are lists of mpmath numbers; every maximizer is checked against its own
first-order conditions before it is returned, and an equilibrium against its best response. A few float64 oracles at the end
maximize or differentiate numerically, where a third route is useful.

A *term* is a pair (coefficient, anchor) and stands for the penalty ``coefficient * KL(. || anchor)``: the game itself has
the one term (beta, reference), a proximal sub-game has (beta, reference) and (1/gamma, current policy), never merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpmath import MPContext
from scipy.optimize import minimize

mp = MPContext()
"""A private context: its precision does not leak into other users of mpmath."""
mp.dps = 60

Number = Any
Vector = list[Number]
Matrix = list[Vector]
Terms = Sequence[tuple[Number, Vector]]
Step = Callable[[Vector, int], Vector]

TIGHT = mp.mpf(10) ** -50


# --- the simplex ------------------------------------------------------------------------------------------------------


def numbers(values: Sequence[Any]) -> Vector:
    """The values as 60-digit numbers; a float64 is taken exactly as it is stored."""
    return [mp.mpf(float(value)) if isinstance(value, (np.floating, np.integer)) else mp.mpf(value) for value in values]


def simplex(values: Sequence[Any]) -> Vector:
    """The values divided by their sum (a float64 policy sums to 1 only within rounding)."""
    weights = numbers(values)
    total = mp.fsum(weights)
    return [weight / total for weight in weights]


def kl(p: Sequence[Any], q: Sequence[Any]) -> Number:
    """KL(p || q) = sum_y p_y log(p_y / q_y), with 0 log 0 = 0."""
    return mp.fsum(a * mp.log(a / b) for a, b in zip(p, q) if a != 0)


def span(values: Sequence[Any]) -> Number:
    """max - min."""
    return max(values) - min(values)


def advantages(P: Any, mu: Sequence[Any]) -> Vector:
    """(A mu)_y = sum_z (P[y, z] - 1/2) mu_z."""
    return [mp.fsum((entry - mp.mpf(1) / 2) * m for entry, m in zip(row, mu)) for row in preferences(P)]


def preferences(P: Any) -> Matrix:
    """P as 60-digit numbers; P + P^T = 1 must hold exactly, so games for the oracle have dyadic entries."""
    matrix = [numbers(row) for row in P]
    if any(matrix[i][j] + matrix[j][i] != 1 for i in range(len(matrix)) for j in range(i + 1)):
        raise ValueError("P + P^T = 1 must hold exactly: round the entries to multiples of 2**-30")
    return matrix


# --- the game ---------------------------------------------------------------------------------------------------------


def payoff(P: Any, rho: Sequence[Any], beta: Any, pi: Sequence[Any], mu: Sequence[Any]) -> Number:
    """P_beta(pi > mu): expected preference of a response of pi over one of mu, minus and plus the penalties."""
    pi, mu, rho = simplex(pi), simplex(mu), simplex(rho)
    won = mp.fsum(p * entry * m for p, row in zip(pi, preferences(P)) for entry, m in zip(row, mu))
    return won - mp.mpf(beta) * kl(pi, rho) + mp.mpf(beta) * kl(mu, rho)


def penalized_argmax(v: Vector, terms: Terms) -> Vector:
    """The q of the simplex that maximizes <v, q> - sum of the terms, checked to be stationary.

    The objective is strictly concave, so a positive q whose gradient is the same in every coordinate is the maximizer.
    """
    total = mp.fsum(c for c, _ in terms)
    raw = [mp.exp(value / total) for value in v]
    for c, anchor in terms:
        raw = [value * a ** (c / total) for value, a in zip(raw, anchor)]
    q = simplex(raw)
    slope = penalized_gradient(v, terms, q)
    if span(slope) > TIGHT * (1 + max(abs(value) for value in slope)):
        raise ArithmeticError(f"not stationary: the gradient spans {span(slope)}")
    return q


def penalized_gradient(v: Vector, terms: Terms, q: Vector) -> Vector:
    """Gradient in q of <v, q> - sum_i c_i KL(q || anchor_i)."""
    return [v[y] - mp.fsum(c * (mp.log(q[y] / anchor[y]) + 1) for c, anchor in terms) for y in range(len(q))]


def best_response(P: Any, rho: Sequence[Any], beta: Any, mu: Sequence[Any]) -> Vector:
    """The policy that maximizes P_beta(. > mu)."""
    return penalized_argmax(advantages(P, simplex(mu)), [(mp.mpf(beta), simplex(rho))])


def exploitability(P: Any, rho: Sequence[Any], beta: Any, mu: Sequence[Any]) -> Number:
    """max_pi P_beta(pi > mu) - 1/2, the payoff of the best response itself."""
    return payoff(P, rho, beta, best_response(P, rho, beta, mu), mu) - mp.mpf(1) / 2


def unregularized_exploitability(P: Any, mu: Sequence[Any]) -> Number:
    """max_y P(y > mu) - 1/2: without a penalty the payoff is linear and a vertex is best."""
    mu = simplex(mu)
    return max(mp.fsum(entry * m for entry, m in zip(row, mu)) for row in preferences(P)) - mp.mpf(1) / 2


def equilibrium(P: Any, rho: Sequence[Any], beta: Any) -> Vector:
    """The symmetric Nash equilibrium: the one policy that is its own best response."""
    reference = simplex(rho)
    pi = symmetric_equilibrium(P, [(mp.mpf(beta), reference)], reference)
    answer = best_response(P, reference, beta, pi)
    if max(abs(a / b - 1) for a, b in zip(answer, pi)) > TIGHT:
        raise ArithmeticError("the equilibrium is not its own best response")
    return pi


def symmetric_equilibrium(P: Any, terms: Terms, start: Vector) -> Vector:
    """The policy at which no change of one's own policy pays against itself, with any number of penalty terms.

    Ascent with look-ahead at the opponent (proven to converge from everywhere) comes near it; Newton's method in
    (probabilities, multiplier) on the first-order conditions finishes.
    """
    total = mp.fsum(c for c, _ in terms)
    step, pi = 1 / (total + mp.mpf(1) / 2), start
    for _ in range(5000):
        slope = penalized_gradient(advantages(P, pi), terms, pi)
        if span(slope) < total / 20:
            return _newton(P, terms, pi)
        ahead = ascend(pi, slope, step)
        pi = ascend(pi, penalized_gradient(advantages(P, ahead), terms, pi), step)
    raise ArithmeticError("no convergence to the equilibrium")


def ascend(pi: Vector, slope: Vector, step: Any) -> Vector:
    """Mirror ascent: argmax_q <slope, q> - KL(q || pi) / step."""
    return penalized_argmax(slope, [(1 / mp.mpf(step), pi)])


def _newton(P: Any, terms: Terms, pi: Vector) -> Vector:
    """Solve gradient_y(pi) = multiplier for every y and sum(pi) = 1, unknowns pi and the multiplier."""
    n, total, matrix = len(pi), mp.fsum(c for c, _ in terms), preferences(P)
    for _ in range(60):
        slope = penalized_gradient(advantages(P, pi), terms, pi)
        system, right = mp.matrix(n + 1, n + 1), mp.matrix(n + 1, 1)
        for i in range(n):
            for j in range(n):
                system[i, j] = matrix[i][j] - mp.mpf(1) / 2 - (total / pi[i] if i == j else 0)
            system[i, n], system[n, i], right[i] = -1, 1, -slope[i]
        right[n] = 1 - mp.fsum(pi)
        move = mp.lu_solve(system, right)
        shrink = max(-move[i] / pi[i] for i in range(n))
        length = min(mp.mpf(1), mp.mpf(1) / 2 / shrink) if shrink > 0 else mp.mpf(1)
        pi = [pi[i] + length * move[i] for i in range(n)]
        if max(abs(move[i] / pi[i]) for i in range(n)) < TIGHT:
            return pi
    raise ArithmeticError("Newton's method did not finish")


def prox(v: Sequence[Any], beta: Any, rho: Sequence[Any], gamma: Any, pi: Sequence[Any]) -> Vector:
    """argmax over the simplex of <v, q> - beta KL(q || rho) - KL(q || pi) / gamma."""
    return penalized_argmax(numbers(v), [(mp.mpf(beta), simplex(rho)), (1 / mp.mpf(gamma), simplex(pi))])


def mixture(p: Vector, q: Vector, weight: Any) -> Vector:
    """The policy proportional to p^(1 - weight) q^weight, as the minimizer of (1 - weight) KL(. || p) + weight KL(. || q)."""
    return penalized_argmax([mp.mpf(0)] * len(p), [(1 - mp.mpf(weight), p), (mp.mpf(weight), q)])


# --- policy gradients -------------------------------------------------------------------------------------------------


def softmax(theta: Sequence[Any]) -> Vector:
    """exp(theta) normalized."""
    return simplex([mp.exp(value) for value in theta])


def policy_gradient(P: Any, terms: Terms, pi: Vector) -> Vector:
    """Gradient in the logits of the payoff of softmax(theta) against itself held fixed.

    Chain rule over actions: sum_y (d pi_y / d theta_k) (d payoff / d pi_y), with d pi_y / d theta_k = pi_y (1{y = k} - pi_k).
    """
    slope = penalized_gradient(advantages(P, pi), terms, pi)
    n = len(pi)
    return [mp.fsum(pi[y] * ((1 if y == k else 0) - pi[k]) * slope[y] for y in range(n)) for k in range(n)]


def policy_gradient_step(P: Any, terms: Terms, pi: Vector, step: Any) -> Vector:
    """The policy after one step of gradient ascent on the logits (any logits of pi: a constant does not matter)."""
    return simplex([p * mp.exp(mp.mpf(step) * g) for p, g in zip(pi, policy_gradient(P, terms, pi))])


# --- the methods ------------------------------------------------------------------------------------------------------


def trajectory(
    method: str, P: Any, rho: Sequence[Any], beta: Any, start: Sequence[Any], n_steps: int, **params: Any
) -> list[Vector]:
    """The policies after steps 1 .. n_steps of a method of the table of dynamics, by its name there.

    A step size is a number or a function of the number of the step, counted from 0.
    """
    steps = METHODS[method](P, simplex(rho), mp.mpf(beta), simplex(start), **params)
    return [next(steps) for _ in range(n_steps)]


def _at(step_size: Any, t: int) -> Number:
    return mp.mpf(step_size(t) if callable(step_size) else step_size)


def _iterate(pi: Vector, step: Step) -> Iterator[Vector]:
    t = 0
    while True:
        pi = step(pi, t)
        yield pi
        t += 1


def _self_play_pg(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any) -> Iterator[Vector]:
    return _iterate(start, lambda pi, t: policy_gradient_step(P, [(beta, rho)], pi, _at(step_size, t)))


def _natural_pg(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any) -> Iterator[Vector]:
    """Explicit mirror ascent: the whole payoff, penalty included, is linearized at the current policy."""

    def step(pi: Vector, t: int) -> Vector:
        return ascend(pi, penalized_gradient(advantages(P, pi), [(beta, rho)], pi), _at(step_size, t))

    return _iterate(start, step)


def _magnetic(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any) -> Iterator[Vector]:
    """Only the preference is linearized, the penalty is kept whole."""
    return _iterate(start, lambda pi, t: prox(advantages(P, pi), beta, rho, _at(step_size, t), pi))


def _nash_md(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any) -> Iterator[Vector]:
    """The geometric mixture with the reference plays the opponent and is the point to stay near."""

    def step(pi: Vector, t: int) -> Vector:
        gamma = _at(step_size, t)
        mixed = mixture(pi, rho, gamma * beta)
        return ascend(mixed, advantages(P, mixed), gamma)

    return _iterate(start, step)


def _mirror_prox(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any) -> Iterator[Vector]:
    def step(pi: Vector, t: int) -> Vector:
        gamma = _at(step_size, t)
        ahead = prox(advantages(P, pi), beta, rho, gamma, pi)
        return prox(advantages(P, ahead), beta, rho, gamma, pi)

    return _iterate(start, step)


def _optimistic(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any) -> Iterator[Vector]:
    """As mirror prox, but looking ahead by the previous look-ahead policy."""
    ahead = start

    def step(pi: Vector, t: int) -> Vector:
        nonlocal ahead
        gamma = _at(step_size, t)
        ahead = prox(advantages(P, ahead), beta, rho, gamma, pi)
        return prox(advantages(P, ahead), beta, rho, gamma, pi)

    return _iterate(start, step)


def _extragradient(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any) -> Iterator[Vector]:
    """Two explicit steps from the same policy; the penalty is linearized at that policy in both."""

    def step(pi: Vector, t: int) -> Vector:
        ahead = ascend(pi, penalized_gradient(advantages(P, pi), [(beta, rho)], pi), _at(step_size, t))
        return ascend(pi, penalized_gradient(advantages(P, ahead), [(beta, rho)], pi), _at(step_size, t))

    return _iterate(start, step)


def _subgame(beta: Number, rho: Vector, proximal_step: Any, centre: Vector) -> Terms:
    return [(beta, rho), (1 / mp.mpf(proximal_step), centre)]


def _proximal_point(P: Any, rho: Vector, beta: Number, start: Vector, proximal_step: Any) -> Iterator[Vector]:
    """The equilibrium of P_beta(pi > mu) - KL(pi || pi_k) / gamma + KL(mu || pi_k) / gamma, both penalties kept apart."""
    return _iterate(start, lambda pi, t: symmetric_equilibrium(P, _subgame(beta, rho, _at(proximal_step, t), pi), pi))


def _proximal_pg(
    P: Any, rho: Vector, beta: Number, start: Vector, proximal_step: Any, inner_step_size: Any, inner_steps: int
) -> Iterator[Vector]:
    """`inner_steps` of gradient ascent on the sub-game around the policy at which they began."""

    def step(pi: Vector, t: int) -> Vector:
        terms = _subgame(beta, rho, proximal_step, pi)
        for _ in range(inner_steps):
            pi = policy_gradient_step(P, terms, pi, inner_step_size)
        return pi

    return _iterate(start, step)


def _nash_prox(
    P: Any,
    rho: Vector,
    beta: Number,
    start: Vector,
    step_size: Any,
    proximal_step: Any,
    averaging: Any = None,
    refresh_every: int | None = None,
) -> Iterator[Vector]:
    """Gradient ascent on the sub-game around a centre that follows: averaged logits, or replaced every m-th step."""
    centre = start

    def step(pi: Vector, t: int) -> Vector:
        nonlocal centre
        pi = policy_gradient_step(P, _subgame(beta, rho, proximal_step, centre), pi, _at(step_size, t))
        if averaging is not None:
            centre = mixture(centre, pi, averaging)
        elif (t + 1) % refresh_every == 0:
            centre = pi
        return pi

    return _iterate(start, step)


def _ipo_md(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any, mixing: Any) -> Iterator[Vector]:
    """Pairs and opponent from the mixture; the logits move along the mixture's covariance with the slope at the policy."""

    def step(pi: Vector, t: int) -> Vector:
        mixed = mixture(pi, rho, mixing)
        slope = penalized_gradient(advantages(P, mixed), [(beta, rho)], pi)
        mean = mp.fsum(m * s for m, s in zip(mixed, slope))
        return simplex([p * mp.exp(_at(step_size, t) * m * (s - mean)) for p, m, s in zip(pi, mixed, slope)])

    return _iterate(start, step)


def _magnet_refresh(
    P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any, magnet: Any, refresh_every: int
) -> Iterator[Vector]:
    """Proximal steps of the game with the magnet in place of the reference; the magnet jumps every m-th step."""
    anchor = start

    def step(pi: Vector, t: int) -> Vector:
        nonlocal anchor
        pi = prox(advantages(P, pi), magnet, anchor, _at(step_size, t), pi)
        if (t + 1) % refresh_every == 0:
            anchor = pi
        return pi

    return _iterate(start, step)


def _multiplicative_weights(P: Any, rho: Vector, beta: Number, start: Vector, step_size: Any) -> Iterator[Vector]:
    return _iterate(start, lambda pi, t: ascend(pi, advantages(P, pi), _at(step_size, t)))


def averaged(plays: Sequence[Vector], weights: Sequence[Any]) -> Vector:
    """The weighted average of policies."""
    return [mp.fsum(w * p for w, p in zip(weights, column)) / mp.fsum(weights) for column in zip(*plays)]


def even_best_response(P: Any, mu: Vector) -> Vector:
    """Uniform over the actions that gain most against mu, to 50 digits."""
    gain = advantages(P, mu)
    return simplex([1 if max(gain) - g < TIGHT else 0 for g in gain])


def proportional(regrets: Vector) -> Vector:
    """The positive parts normalized, uniform without any."""
    positive = [max(r, mp.mpf(0)) for r in regrets]
    return simplex(positive if any(positive) else [1] * len(positive))


def regrets_against(P: Any, play: Vector) -> Vector:
    """How much more often than the play itself each action would have won against it."""
    won = [mp.fsum(entry * p for entry, p in zip(row, play)) for row in preferences(P)]
    return [w - mp.fsum(p * v for p, v in zip(play, won)) for w in won]


def _fictitious_play(P: Any, rho: Vector, beta: Number, start: Vector, smoothed: bool = False) -> Iterator[Vector]:
    """The average of all plays, each the best response to the average before it."""
    plays = [start]
    while True:
        average = averaged(plays, [1] * len(plays))
        plays.append(best_response(P, rho, beta, average) if smoothed else even_best_response(P, average))
        yield averaged(plays, [1] * len(plays))


def _regret_matching(P: Any, rho: Vector, beta: Number, start: Vector) -> Iterator[Vector]:
    """The average of all plays, each in proportion to the positive parts of the sum of all regrets before it."""
    plays = [start]
    while True:
        plays.append(proportional([mp.fsum(column) for column in zip(*(regrets_against(P, play) for play in plays))]))
        yield averaged(plays, [1] * len(plays))


def _regret_matching_plus(P: Any, rho: Vector, beta: Number, start: Vector) -> Iterator[Vector]:
    """Regrets are cut at 0 each time; the k-th play, counted from 1, has weight k."""
    plays, kept = [start], [mp.mpf(0)] * len(start)
    while True:
        kept = [max(k + r, mp.mpf(0)) for k, r in zip(kept, regrets_against(P, plays[-1]))]
        plays.append(proportional(kept))
        yield averaged(plays, range(1, len(plays) + 1))


METHODS: dict[str, Callable[..., Iterator[Vector]]] = {
    "SelfPlayPG": _self_play_pg,
    "NaturalPG": _natural_pg,
    "MagneticMirrorDescent": _magnetic,
    "NashMD": _nash_md,
    "NashMirrorProx": _mirror_prox,
    "OptimisticMirrorDescent": _optimistic,
    "Extragradient": _extragradient,
    "ProximalPoint": _proximal_point,
    "ProximalPG": _proximal_pg,
    "NashProx": _nash_prox,
    "MultiplicativeWeights": _multiplicative_weights,
    "IPOMD": _ipo_md,
    "MagnetRefresh": _magnet_refresh,
    "FictitiousPlay": _fictitious_play,
    "RegretMatching": _regret_matching,
    "RegretMatchingPlus": _regret_matching_plus,
}


# --- float64 oracles --------------------------------------------------------------------------------------------------

Floats = npt.NDArray[np.float64]


def searched_exploitability(P: Floats, rho: Floats, beta: float, mu: Floats) -> float:
    """max_pi P_beta(pi > mu) - 1/2 by numerical search over the simplex (tiny n; good to about 1e-8)."""

    def loss(pi: Floats) -> float:
        own, other = pi * np.log(pi / rho), mu * np.log(mu / rho)
        return float(-(pi @ P @ mu - beta * own.sum() + beta * other.sum() - 0.5))

    found = minimize(
        loss,
        rho,
        method="SLSQP",
        bounds=[(1e-12, 1.0)] * len(rho),
        constraints=[{"type": "eq", "fun": lambda pi: pi.sum() - 1.0}],
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return -float(found.fun)


def online_ipo_loss(P: Floats, rho: Floats, beta: float, theta: npt.NDArray[Any], sampling: Floats) -> Any:
    """Population Online IPO loss: pairs from `sampling`, votes from P; complex logits are allowed (complex step)."""
    logits = theta - np.log(np.exp(theta).sum()) - np.log(rho)
    loss = 0.0
    for y, first in enumerate(sampling):
        for z, second in enumerate(sampling):
            h = logits[y] - logits[z]
            for vote, chance in ((1.0, P[y, z]), (0.0, 1.0 - P[y, z])):
                loss = loss + first * second * chance * (h - (vote - 0.5) / beta) ** 2
    return loss


def online_ipo_gradient(P: Floats, rho: Floats, beta: float, theta: Floats) -> Floats:
    """Gradient of the Online IPO loss in the logits, pairs sampled from softmax(theta) held fixed, by complex steps."""
    weights = np.exp(theta - theta.max())
    sampling, tiny = weights / weights.sum(), 1e-30
    gradient = np.empty(len(theta))
    for k in range(len(theta)):
        moved = theta.astype(complex)
        moved[k] += 1j * tiny
        gradient[k] = online_ipo_loss(P, rho, beta, moved, sampling).imag / tiny
    return gradient
