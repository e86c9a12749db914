"""What methods of pairs do on average over a run: their exact step, their centre following as defined.

The moves of a run less their exact means are martingale differences, so their sums, with any weights known beforehand, divided by
the root of the sum of their squares are nearly standard normal. Planted biases go through the same statistics and are rejected.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from sampled import LIMIT, PAIRED, START, Floats, game_of, scores, softmax

import nlhfsim as nl
from nlhfsim import dynamics

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")


class Rule(NamedTuple):
    """What a method of pairs is defined by: the share of the reference, τ, and how the centre follows."""

    mixing: float = 0.0
    pull: float = 0.0
    averaging: float = 0.0
    refresh_every: int = 0


RULES: dict[str, tuple[dynamics.Dynamics, Rule]] = {
    "SelfPlayPG": (dynamics.SelfPlayPG(0.3), Rule()),
    "IPOMD": (dynamics.IPOMD(0.3, mixing=0.4), Rule(0.4)),
    "NashProx": (dynamics.NashProx(0.3, proximal_step=2.0, averaging=0.05), Rule(0.0, 0.5, 0.05)),
    "NashProx, refreshed": (dynamics.NashProx(0.3, proximal_step=2.0, refresh_every=9), Rule(0.0, 0.5, 0.0, 9)),
    "ProximalPG": (dynamics.ProximalPG(2.0, inner_step_size=0.3, inner_steps=1), Rule(0.0, 0.5, 0.0, 1)),
}


def pair_bias(game: nl.PreferenceGame, thetas: Floats, gamma: float, rule: Rule) -> float:
    """How far the moves of a run, θ ``(steps + 1, n)``, are from J(π̃)(Aπ̃ - β(θ - log ρ) - τ(θ - θ̄)) on average.

    Errors are weighted with each of the three parts, which they would contain if its factor or sign were wrong.
    """
    centre, parts = thetas[0], []
    for t, theta in enumerate(thetas[:-1], 1):
        mixed = softmax((1 - rule.mixing) * theta + rule.mixing * np.log(game.reference))
        jacobian = np.diag(mixed) - np.outer(mixed, mixed)
        slopes = (game.preferences @ mixed - 0.5, -game.beta * (theta - np.log(game.reference)), -rule.pull * (theta - centre))
        parts.append([jacobian @ slope for slope in slopes])
        if rule.refresh_every == 0:
            centre = (1 - rule.averaging) * centre + rule.averaging * thetas[t]
        elif t % rule.refresh_every == 0:
            centre = thetas[t]
    exact = np.array(parts).swapaxes(0, 1)
    errors = np.diff(thetas, axis=0) / gamma - exact.sum(axis=0)
    used = [part for part in exact if np.abs(part).max() > 0]
    return max(scores(errors, weights) for weights in (np.ones_like(errors), *used))


def thetas_of(run: nl.Trajectory) -> Floats:
    """θ from log π, as Σθ is conserved: the start is log π_0 itself."""
    assert run.log_policies is not None
    logs = run.log_policies[0]
    return np.asarray(logs - logs.mean(axis=1, keepdims=True) + logs[0].mean())


@pytest.mark.parametrize("feedback", [nl.Sampled(), nl.Sampled(16), nl.Sampled(1, votes=False)], ids=["1", "16", "P"])
@pytest.mark.parametrize("key", RULES)
def test_moves_from_pairs_are_unbiased(key: str, feedback: nl.Sampled) -> None:
    """Over 6,000 steps the moves of every method of pairs are its exact steps on average, its centre following as defined."""
    method, rule = RULES[key]
    game = game_of()
    run = nl.simulate(game, method, 6000, feedback=feedback, start=START, record_every=1, equilibrium=False, seed=3)
    np.testing.assert_allclose(run.parameters[0], thetas_of(run)[-1], rtol=0, atol=1e-10)
    assert pair_bias(game, thetas_of(run), 0.3, rule) < LIMIT


def test_every_method_of_pairs_is_tested() -> None:
    """A new method that learns from pairs needs its rule above."""
    assert set(PAIRED) == {method.name for method, _ in RULES.values()}


def biased_thetas(game: nl.PreferenceGame, wrong: str, n_steps: int, gamma: float) -> Floats:
    """A run of self-play around a centre, averaged by 0.05 with τ = 1/2, with something wrong; written out densely."""
    rng, thetas = np.random.default_rng(0), [np.log(START)]
    centre = thetas[0]
    for _ in range(n_steps):
        theta, move = thetas[-1], np.zeros(game.n)
        i, j = rng.choice(game.n, 2, p=np.array(START) if wrong == "pairs of the start" else softmax(theta))
        vote = (0.5 if rng.random() < game.preferences[i, j] else -0.5) * (-1 if wrong == "votes swapped" else 1)
        ratio, lag = theta - np.log(game.reference), theta - centre
        slope = vote + (1 if wrong == "sign of βh" else -1) * game.beta * (ratio[i] - ratio[j])
        slope -= 0.0 if wrong == "no proximal term" else 0.5 * (lag[i] - lag[j])
        size = gamma * (1.0 if wrong == "factor 2" else 0.5) * slope
        move[i] += size
        move[j] -= size
        thetas.append(theta + move)
        centre = centre + (0.0 if wrong == "centre stays" else 0.05) * (thetas[-1] - centre)
    return np.array(thetas)


PAIR_BIASES = ["pairs of the start", "votes swapped", "sign of βh", "no proximal term", "factor 2", "centre stays"]


@pytest.mark.parametrize("wrong", [*PAIR_BIASES, ""])
def test_biased_moves_are_rejected(wrong: str) -> None:
    """The statistics of the test above see each planted bias, and pass the same code without one."""
    game = game_of()
    thetas = biased_thetas(game, wrong, 8000, 0.3)
    assert (pair_bias(game, thetas, 0.3, Rule(0.0, 0.5, 0.05)) > LIMIT) == (wrong != "")
