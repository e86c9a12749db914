"""The best values that log-linear policies can reach: what a run is to be compared with where its features cannot express π*."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlhfsim.errors import Array, SizeError
from nlhfsim.games.payoffs import PairwisePayoff
from nlhfsim.games.responses import context_exploitability, log_best_response
from nlhfsim.log_linear.shared import SharedClass
from nlhfsim.simplex import expect, kl_log, log_softmax, spread

NEGLIGIBLE = 1e-12
"""Attainable values up to it are 0 for all purposes: π* is in the class."""
_LARGEST = 10**7
"""Multiplications for the payoffs of all runs at which the searches, some thousand times that, are left out."""
_STEPS = 200
_REACH = 10.0
"""The span of the longest Newton step tried."""
_SMOOTHING = (0.1, 0.01, 0.001)
_WIDTHS = (1.0, 4.0)

Objective = Callable[[Array], tuple[float, Array]]
"""Of logits ``(contexts, n)``: the value, and its gradient in the logits."""


@dataclass(frozen=True, eq=False)
class Attainable:
    """What the policies of a log-linear class can reach on a game, averages over contexts.

    Attributes
    ----------
    kl : float
        ``min_θ KL(π*‖π_θ)``, convex, by Newton's method; NaN without an equilibrium.
    kl_gap : float
        The squared Newton decrement where it ended: about how far `kl` is above the minimum.
    exploitability : float
        The smallest E_β(π_θ) that was found (E_0 at β = 0), from several starts: an upper bound of the minimum, as the problem is
        not convex. NaN if it was not searched for.
    class_exploitability : numpy.ndarray
        Shape ``(runs,)``: the largest ``P_β(π_θ' ≻ π_θ) - 1/2`` that was found against the last policy of each run, what an
        opponent of the same class gains. A lower bound of the maximum, between 0 and E_β(π_θ).
    notes : tuple of str
        What a reader of the numbers should know.
    """

    kl: float
    kl_gap: float
    exploitability: float
    class_exploitability: Array
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it in the form that JSON takes."""
        return vars(self) | {"class_exploitability": self.class_exploitability.tolist(), "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Attainable:
        """Return it from that form."""
        values = np.array(stored["class_exploitability"], dtype=np.float64)
        return cls(**stored | {"class_exploitability": values, "notes": tuple(stored["notes"])})


def attainable_of(shared: SharedClass, log_target: Array | None, without: str, finals: Array, seed: int) -> Attainable:
    """Return what a class can reach.

    Parameters
    ----------
    shared : SharedClass
        The class on its game.
    log_target : numpy.ndarray or None
        log π*, shape ``(contexts, n)``; None if there is none, and then `without` says why.
    without : str
        The reason.
    finals : numpy.ndarray
        Logits of the last policies, shape ``(runs, contexts, n)``.
    seed : int
        Seed of the random starts.
    """
    runs, reference, notes = len(finals), shared.context.log_reference, []
    kl, gap, nearest = np.nan, np.nan, reference
    smallest, within = np.nan, np.full(runs, np.nan)
    try:
        if log_target is None:
            notes.append(f"the attainable kl is NaN: {without}")
        else:
            kl, gap, nearest = kl_projection(shared, log_target)
        if _work(shared) * runs > _LARGEST:
            notes.append("the attainable exploitability was not searched for: the game, times the runs, is too large")
        else:
            rng = np.random.default_rng(seed)
            starts = [nearest, reference, *(row for row in finals[:4] if np.isfinite(row).all()), *_random(shared, rng)]
            smallest = least_exploitability(shared, starts[:1] if kl <= NEGLIGIBLE else starts)
            within = np.array([class_exploitability(shared, row, np.random.default_rng(seed)) for row in finals])
    except SizeError as error:
        notes.append(f"not all that is attainable was found: {str(error).partition(':')[0]}")
    if kl > NEGLIGIBLE:
        notes.insert(0, _sentence(kl, gap, smallest))
    return Attainable(float(kl), float(gap), float(smallest), within, tuple(notes))


def _sentence(kl: float, gap: float, smallest: float) -> str:
    found = "" if np.isnan(smallest) else f", and the smallest exploitability found among them is {smallest:.4g}"
    rough = "" if gap <= max(1e-9 * kl, 1e-14) else f" (not solved to rounding: it may be lower by about {gap:.1g})"
    return f"the equilibrium is not a policy of these features: the smallest attainable kl is {kl:.4g}{rough}{found}"


def kl_projection(shared: SharedClass, log_target: Array) -> tuple[float, float, Array]:
    """Return ``min_θ Σ_x ν_x KL(p_x‖π_θ,x)``, the squared Newton decrement there, and the logits of the minimizer.

    Newton's method, where it fails L-BFGS, and again Newton's method from there.
    """
    weights, target = shared.context.payoff.weights, np.exp(log_target)

    def divergence(logits: Array) -> tuple[float, Array]:
        log_policy = log_softmax(logits)
        return float(weights[:, 0] @ kl_log(log_target, log_policy)), np.asarray(weights * (np.exp(log_policy) - target))

    found = _newton(shared, log_target, shared.context.log_reference)
    for _ in range(3):
        if found[1] <= 1e-10 * max(found[0], 1e-4):
            break
        again = _newton(shared, log_target, _descend(shared, divergence, found[2]))
        if not again[0] <= found[0]:
            break
        found = again
    return found


def _newton(shared: SharedClass, log_target: Array, start: Array) -> tuple[float, float, Array]:
    """Return where Newton's method ends on ``Σ_x ν_x KL(p_x‖π_θ,x)``: value, squared decrement, logits.

    A step is the projection of ``p/π - 1`` on the features, as ``J(π)(p/π - 1) = p - π``. Where the value no longer falls by more
    than its rounding errors, whole steps go on as long as they halve the decrement.
    """
    reference, weights = shared.context.log_reference, shared.context.payoff.weights
    target = np.exp(log_target)

    def value(scores: Array) -> float:
        return float(weights[:, 0] @ kl_log(log_target, log_softmax(reference + scores)))

    def newton(scores: Array) -> tuple[Array, float]:
        log_policy = log_softmax(reference + scores)
        ratio = np.exp(np.minimum(log_target - log_policy, 300.0)) - 1
        step = shared.features.project(np.exp(log_policy), weights, ratio)
        return step, float((weights * (target - np.exp(log_policy)) * step).sum())

    scores = start - reference
    current, (step, decrement) = value(scores), newton(scores)
    for _ in range(_STEPS):
        if not decrement > 0:
            break
        size = min(1.0, _REACH / float(spread(step).max()))
        moved = value(scores + size * step)
        while not moved < current - 1e-4 * size * decrement and size * float(spread(step).max()) > 1e-9:
            size /= 2
            moved = value(scores + size * step)
        if not moved < current:
            size, moved = 1.0, value(scores + step)
        then = newton(scores + size * step)
        if not (moved < current or (moved <= current + 1e-14 and abs(then[1]) < decrement / 2)):
            break
        scores, current, (step, decrement) = scores + size * step, moved, then
    return current, abs(decrement), reference + scores


def least_exploitability(shared: SharedClass, starts: Sequence[Array]) -> float:
    """Return the smallest exploitability found from starts, logits ``(contexts, n)``; E_0 at β = 0, through smoothed maxima."""
    context, weights = shared.context, shared.context.payoff.weights[:, 0]

    def exploitability(logits: Array) -> float:
        log_policy = log_softmax(logits)
        return float(weights @ context_exploitability(context, log_policy, context.payoff.gains(np.exp(log_policy))))

    def objective(smoothing: float) -> Objective:
        def at(logits: Array) -> tuple[float, Array]:
            log_policy = log_softmax(logits)
            gain = context.payoff.gains(np.exp(log_policy))
            if context.beta > 0:
                response = log_best_response(context, log_policy, gain)
                value = context.beta * kl_log(log_policy, response)
                slope = context.beta * (log_policy - context.log_reference)
            else:
                response = log_softmax(gain / smoothing)
                top = gain.max(axis=-1, keepdims=True)
                value = smoothing * np.log(np.exp((gain - top) / smoothing).sum(axis=-1)) + top[:, 0]
                slope = np.zeros_like(gain)
            # The game is skew-symmetric: the gradient of ⟨r, Aπ⟩ in π is -Ar.
            return float(weights @ value), _in_logits(shared, log_policy, slope - context.payoff.gains(np.exp(response)))

        return at

    best = min(exploitability(start) for start in starts)
    for start in starts if best > NEGLIGIBLE else ():
        for smoothing in (1.0,) if context.beta > 0 else _SMOOTHING:
            start = _descend(shared, objective(smoothing), start)
            best = min(best, exploitability(start))
    return best


def class_exploitability(shared: SharedClass, logits: Array, rng: np.random.Generator) -> float:
    """Return the largest ``P_β(π_θ' ≻ μ) - 1/2`` found for μ = softmax(logits), shape ``(contexts, n)``; NaN if not finite.

    For β > 0 it is ``E_β(μ) - β KL(π_θ'‖BR(μ))``.
    """
    if not np.isfinite(logits).all():
        return float("nan")
    context, weights = shared.context, shared.context.payoff.weights
    log_policy = log_softmax(logits)
    gain = context.payoff.gains(np.exp(log_policy))
    largest = float(weights[:, 0] @ context_exploitability(context, log_policy, gain))
    response = log_best_response(context, log_policy, gain) if context.beta > 0 else None

    def lost(rival: Array) -> tuple[float, Array]:
        log_rival = log_softmax(rival)
        if response is None:
            value, slope = (gain.max(axis=-1) - (np.exp(log_rival) * gain).sum(axis=-1)), -gain
        else:
            value, slope = context.beta * kl_log(log_rival, response), context.beta * (log_rival - response)
        return float(weights[:, 0] @ value), _in_logits(shared, log_rival, slope)

    tilt = shared.features.project(np.exp(log_policy), weights, gain) / max(context.beta, 0.01)
    starts = [logits, context.log_reference + tilt, *_random(shared, rng)]
    if response is not None:
        starts.append(kl_projection(shared, response)[2])
    least = min(min(lost(start)[0], lost(_descend(shared, lost, start))[0]) for start in starts)
    return min(max(largest - least, 0.0), largest)


def _in_logits(shared: SharedClass, log_policy: Array, slope: Array) -> Array:
    """Return the gradient in the logits of an average over contexts whose gradient in the policies is given."""
    policy = np.exp(log_policy)
    return np.asarray(shared.context.payoff.weights * policy * (slope - expect(policy, slope)))


def _descend(shared: SharedClass, objective: Objective, logits: Array) -> Array:
    """Return the logits of a local minimum near a start, by L-BFGS."""
    from scipy.optimize import minimize

    span, reference = shared.features.span, shared.context.log_reference

    def at(z: Array) -> tuple[float, Array]:
        value, gradient = objective(reference + np.asarray(span @ z).reshape(reference.shape))
        return value, np.asarray(span.T @ gradient.reshape(-1))

    with np.errstate(all="ignore"):
        options: Any = {"maxiter": 500, "ftol": 1e-15, "gtol": 1e-11}
        start = shared.features.coordinates(logits - reference)
        found = np.asarray(minimize(at, start, jac=True, method="L-BFGS-B", options=options).x)
    return np.asarray(reference + np.asarray(span @ found).reshape(reference.shape))


def _random(shared: SharedClass, rng: np.random.Generator) -> Iterator[Array]:
    """Yield logits of random policies of the class."""
    features = shared.features
    for width in _WIDTHS:
        yield shared.context.log_reference + features.scores(width * rng.standard_normal(features.d) / features.size())


def _work(shared: SharedClass) -> int:
    """Return about how many multiplications the payoffs of all contexts take once."""
    contexts, n = shared.context.log_reference.shape
    payoff = shared.context.payoff
    each = n * n * (30 if any(isinstance(form, PairwisePayoff) for form in payoff.payoffs) else 1)
    return int(contexts * (each if payoff.matrices is not None else each + 10_000))
