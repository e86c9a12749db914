"""A slow oracle of log-linear policies that learn from votes, and the mean of an answer over everything that can be drawn.

The oracle draws by searching cumulative sums and moves θ by the formulas with full matrices; it can have something wrong in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from generators import Given
from sampled import Floats
from test_log_linear import Oracle

import nlhfsim as nl
from nlhfsim import dynamics


class Rule(NamedTuple):
    """What a method of pairs is defined by: the share of the reference, τ, how the centre follows, steps a step of the method."""

    mixing: float = 0.0
    pull: float = 0.0
    averaging: float = 0.0
    refresh_every: int = 0
    inner: int = 1


RULES: dict[str, tuple[dynamics.Dynamics, Rule]] = {
    "SelfPlayPG": (dynamics.SelfPlayPG(0.7), Rule()),
    "IPOMD": (dynamics.IPOMD(0.7, mixing=0.3), Rule(0.3)),
    "IPOMD, all reference": (dynamics.IPOMD(0.7, mixing=1.0), Rule(1.0)),
    "NashProx": (dynamics.NashProx(0.7, proximal_step=1.25, averaging=0.2), Rule(0.0, 0.8, 0.2)),
    "NashProx, refreshed": (dynamics.NashProx(0.7, proximal_step=1.25, refresh_every=3), Rule(0.0, 0.8, 0.0, 3)),
    "ProximalPG": (dynamics.ProximalPG(4.0, nl.schedules.inverse_time(20, 30), inner_steps=5), Rule(0.0, 0.25, 0.0, 5, 5)),
}


class Voting(Oracle):
    """The oracle in θ where it sees votes, drawn from a generator; with something `wrong` for tests of the tests."""

    def __init__(self, game: nl.PreferenceGame, phi: Floats, feedback: nl.Sampled, generator: Any, wrong: str = "") -> None:
        super().__init__(game, phi)
        self.feedback, self.generator, self.wrong, self.silent = feedback, generator, wrong, 0

    def pick(self, chances: Floats) -> int:
        """An index drawn in proportion to chances."""
        return int(np.searchsorted(np.cumsum(chances), self.generator.random() * chances.sum(), side="right"))

    def context(self) -> int:
        """A context drawn by ν."""
        return self.pick(np.ones(len(self.nu)) if self.wrong == "uniform contexts" else self.nu)

    def vote(self, x: int, i: int, j: int) -> float:
        """The advantage of i, or a vote on it."""
        if not self.feedback.votes:
            return float(self.A[x, i, j])
        return 0.5 if self.generator.random() < 0.5 + self.A[x, i, j] else -0.5

    def move(self, theta: Floats, centre: Floats, rule: Rule) -> Floats:
        """The estimate of the gradient from a batch of pairs."""
        mixed, total = self.policy((1 - rule.mixing) * theta), np.zeros(len(theta))
        for _ in range(self.feedback.batch_size):
            x = self.context()
            i, j = self.pick(mixed[x]), self.pick(mixed[x])
            seen = (x + 1) % len(self.nu) if self.wrong == "other features" else x
            change = self.phi[seen, i] - self.phi[seen, j]
            slope = self.vote(x, i, j) - rule.pull * change @ (theta - (0 * centre if self.wrong == "centre" else centre))
            slope += (1 if self.wrong == "sign of βh" else -1) * self.beta * change @ theta
            total += (1.0 if self.wrong == "factor 2" else 0.5) * slope * change
        return total / self.feedback.batch_size

    def estimate(self, policy: Floats) -> Floats:
        """The estimate of A_xπ_x of every context from a batch of pairs."""
        out, n = np.zeros_like(policy), policy.shape[1]
        q = {"uniform": np.full_like(policy, 1 / n), "reference": self.rho, "policy": policy}[self.feedback.candidates]
        for _ in range(self.feedback.batch_size):
            x = self.context()
            i, j = self.pick(q[x]), self.pick(policy[x])
            weight = 1.0 if self.wrong == "no 1/ν" else 1 / self.nu[x]
            weight *= {"factor 2": 2.0, "no 1/q": n * q[x, i]}.get(self.wrong, 1.0) / q[x, i]
            out[x, i] += self.vote(x, i, j) * weight / self.feedback.batch_size
        return out

    def compatible(self, theta: Floats) -> Floats:
        """ŵ with the estimate in place of A_xπ_x; the first `silent` ones are not asked for."""
        if self.silent:
            self.silent -= 1
            return np.zeros_like(theta)
        policy = self.policy(theta)
        gains, F, b = self.estimate(policy), np.zeros((len(theta), len(theta))), np.zeros(len(theta))
        for x, pi in enumerate(policy):
            J = np.diag(pi) - np.outer(pi, pi)
            F += self.nu[x] * self.phi[x].T @ J @ self.phi[x]
            b += self.nu[x] * self.phi[x].T @ J @ gains[x]
        return np.asarray(np.linalg.solve(F, b))

    def pairs(self, theta: Floats, rule: Rule, step_size: Any) -> Iterator[Floats]:
        """θ_1, θ_2, … of a method of pairs."""
        centre, t = theta, 0
        while True:
            theta = theta + (step_size(t) if callable(step_size) else step_size) * self.move(theta, centre, rule)
            t += 1
            if rule.refresh_every == 0:
                centre = (1 - rule.averaging) * centre + rule.averaging * theta
            elif t % rule.refresh_every == 0:
                centre = theta
            if t % rule.inner == 0:
                yield theta


def mean_of(
    game: nl.PreferenceGame, first: Floats, second: Floats, feedback: nl.Sampled, answer: Callable[[Any], Floats]
) -> Floats:
    """The mean of an answer over contexts by ν, actions of shape ``(contexts, n)`` and votes.

    Each is led to by uniform numbers near both ends of its interval, so that others are noticed; in batches by the middle.
    """
    places = (0.01, 0.99) if feedback.batch_size == 1 else (0.5,)

    def numbers(below: float, chance: float) -> list[float]:
        return [below + place * chance for place in places]

    P, one = game.preferences, []
    lower = [np.cumsum(chances, axis=-1) - chances for chances in (game.weights, first, second)]
    for x, i, j in product(range(game.n_contexts), range(game.n), range(game.n)):
        p = P[x, i, j]
        for chance, below in ((p, 0.0), (1 - p, p)) if feedback.votes else ((1.0, None),):
            drawn = [numbers(lower[0][x], game.weights[x]), numbers(lower[1][x, i], first[x, i])]
            drawn += [numbers(lower[2][x, j], second[x, j]), *([] if below is None else [numbers(below, chance)])]
            each = game.weights[x] * first[x, i] * second[x, j] * chance / len(places) ** len(drawn)
            one += [(each, several) for several in product(*drawn)]
    mean: Any = 0.0
    for batch in product(one, repeat=feedback.batch_size):
        generator = Given([number for _, several in batch for number in several])
        mean = mean + np.prod([chance for chance, _ in batch]) * answer(generator)
        assert not generator.numbers and not generator.more
    return np.asarray(mean)


def averages(method: dynamics.Dynamics) -> list[str | None]:
    """The averages that a method can have."""
    return [None, "parameters"] if method.method.pairs else [None, "parameters", "policies"]


def ended(run: nl.Trajectory) -> int:
    """The step at which the first run, and no other, is noted to have diverged."""
    (note,) = [note for note in run.notes if "stopped being finite" in note]
    return int(note.split("run 0: the logits stopped being finite at step ")[1].split(";")[0])
