"""Claims about Online IPO: its population gradient is that of self-play, and so is the mean of the step that one vote makes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from nlhfsim import dynamics
from nlhfsim.claims._accuracy import EPS
from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import register
from nlhfsim.claims._spec import Claim, Measured, Mutant
from nlhfsim.errors import Array
from nlhfsim.games.votes import UNIFORM, SampledPayoff
from nlhfsim.pairs import run_pairs, start_pairs
from nlhfsim.sources import ONLINE_IPO

_TINY = 1e-200
"""The imaginary step: the derivative of an analytic function to rounding."""
_MANY, _TOO_MANY = 30, 100
_RAREST = 1e-12


def loss(case: Case, logits: Array, drawn_from: Array) -> Array:
    """Return the population Online IPO loss of complex logits ``(k, n)``, the pairs drawn from π̄, the votes from P."""
    log_ratio = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)) - case.log_reference
    h = log_ratio[:, :, None] - log_ratio[:, None, :]
    won = case.advantages + 0.5
    expected = won * (h - 0.5 / case.beta) ** 2 + (1 - won) * (h + 0.5 / case.beta) ** 2
    return np.asarray(np.einsum("kij,i,j->k", expected, drawn_from, drawn_from))


def loss_gradient(case: Case) -> Measured:
    """Return the gradient of the loss at θ = log π in each logit, the sampling π̄ = π held fixed: one imaginary step each."""
    gradient = loss(case, case.log_policy + 1j * _TINY * np.eye(case.n), case.policy).imag / _TINY
    size = np.abs(case.log_policy) + np.abs(case.log_reference) + 0.5 / case.beta
    largest = size + case.policy @ size
    return Measured(gradient, 16 * EPS * case.policy * (largest + case.policy @ largest))


def self_play_gradient(case: Case, factor: float = 1.0, strength: float = 1.0) -> Measured:
    """Return `factor` times ∇_θ P_β(π_θ ≻ π̄) at π̄ = π_θ: the gradient in π, then the Jacobian J = diag(π) - ππᵀ of the softmax.

    The regularization is multiplied by `strength`.
    """
    pi, beta = case.policy, strength * case.beta
    slope = case.advantages @ pi - beta * (case.log_policy - case.log_reference)
    size = 0.5 + beta * (np.abs(case.log_policy) + np.abs(case.log_reference))
    gradient = pi * (slope - pi @ slope)
    return Measured(factor * gradient, 8 * EPS * abs(factor) * pi * (size + pi @ size))


def _few_actions(case: Case) -> str:
    return "more than 100 actions: derivatives in each logit take long" if case.n > _TOO_MANY else ""


def _drawn(case: Case) -> str:
    """Return why the pairs cannot be enumerated: too many, or one so rare that no number draws it."""
    if case.n > _MANY:
        return "more than 30 actions: every pair and vote takes long"
    return "an action is too rare to be drawn" if case.policy.min() < _RAREST else ""


_STATEMENT = (
    r"\nabla_\theta \mathbb E\bigl(h_\theta(y,y') - (o - \tfrac12)/\beta\bigr)^2 = -\tfrac{4}{\beta} "
    r"\nabla_\theta \mathcal P_\beta(\pi_\theta \succ \bar\pi)\big|_{\bar\pi = \pi_\theta}, \quad y, y' \sim \bar\pi"
)

register(
    Claim(
        id="online-ipo-is-self-play-pg",
        title="the population Online IPO gradient is -4/β times that of self-play",
        statement=_STATEMENT,
        source=ONLINE_IPO.at("Online IPO and self-play"),
        kind="equality",
        status="identity",
        measure=loss_gradient,
        bound=lambda case: self_play_gradient(case, -4 / case.beta),
        tolerance=0.0,
        why="rounding of the largest term of each component",
        counts=_few_actions,
        mutants=(
            Mutant("-2/β for -4/β", {"bound": lambda case: self_play_gradient(case, -2 / case.beta)}),
            Mutant("β halved in the payoff", {"bound": lambda case: self_play_gradient(case, -4 / case.beta, 0.5)}),
        ),
        proof="docs/proofs/derived-claims.md#online-ipo-is-self-play-pg",
    )
)


class _Scripted:
    """A generator that draws one pair and its vote."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = iter(numbers)

    def random(self) -> float:
        """Return the next number."""
        return next(self.numbers)


def _outcomes(case: Case) -> Iterator[tuple[float, _Scripted]]:
    """Yield the probability of every pair of two actions with every vote, and the generator that draws it.

    A number between partial sums of π draws its action; one below P[y, y'] makes the vote a win. A pair of the same action moves
    nothing.
    """
    upper = np.cumsum(case.policy)
    places = (upper - case.policy / 2) / upper[-1]
    won = case.advantages + 0.5
    for i, j in product(range(case.n), repeat=2):
        for chance, number in ((won[i, j], won[i, j] / 2), (1 - won[i, j], (1 + won[i, j]) / 2)):
            if i != j and chance > 0:
                yield case.policy[i] * case.policy[j] * chance, _Scripted(places[i], places[j], number)


def mean_vote_step(case: Case) -> Measured:
    """Return the mean of the package's own one-vote step θ⁺ - θ of SelfPlayPG, over every pair and vote, exactly."""
    method = dynamics.SelfPlayPG().method
    assert method.pairs is not None
    pairs = method.pairs(None)
    size, marks, records = np.array([case.step_size]), np.zeros(0, dtype=np.int64), np.zeros((0, case.n))
    mean, moved = np.zeros(case.n), np.zeros(case.n)
    for probability, generator in _outcomes(case):
        votes = SampledPayoff(case.context.payoff, generator, 1, True, UNIFORM, np.zeros((2, 0)))
        state = start_pairs(case.log_policy, pairs, False)
        after = run_pairs(state, case.context._replace(payoff=votes), size, pairs, marks, records)[0]
        step = after - case.log_policy
        mean += probability * step
        moved += probability * (np.abs(step) + (step != 0) * np.abs(case.log_policy))
    logs = np.abs(case.log_policy) + np.abs(case.log_reference)
    terms = case.policy * (case.beta * (logs + case.policy @ logs) + 1)
    return Measured(mean, 8 * EPS * (moved + case.step_size * terms))


register(
    Claim(
        id="one-vote-step-is-unbiased",
        title="the mean of the one-vote Online IPO step is the exact self-play step",
        statement=r"\mathbb E\, \tfrac{\gamma}{2}\bigl((o - \tfrac12) - \beta h_\theta(y,y')\bigr)(e_y - e_{y'}) = "
        r"\gamma J(\pi)\bigl(A\pi - \beta(\theta - \log\rho)\bigr), \quad y, y' \sim \pi",
        source=ONLINE_IPO.at("Online IPO estimated from sampled pairs"),
        kind="equality",
        status="identity",
        measure=mean_vote_step,
        bound=lambda case: self_play_gradient(case, case.step_size),
        tolerance=0.0,
        why="rounding of each step and of the largest term of each component",
        counts=_drawn,
        mutants=(
            Mutant("a factor 2", {"bound": lambda case: self_play_gradient(case, 2 * case.step_size)}),
            Mutant("β halved", {"bound": lambda case: self_play_gradient(case, case.step_size, 0.5)}),
        ),
        proof="docs/proofs/derived-claims.md#one-vote-step-is-unbiased",
        cost="moderate",
    )
)
