"""What methods read from votes: that it is unbiased, at the policies they prescribe, from fresh batches, and paid for.

Every estimate that a run reads is compared with Aπ at the policy that it is about. The errors of a run are martingale
differences, so their sums, with any weights known beforehand, divided by the root of the sum of their squares are nearly standard
normal. Planted biases go through the same statistics and are rejected.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from generators import LARGEST, Given
from sampled import ESTIMATED, LIMIT, START, Floats, example, game_of, scores, softmax

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.errors import InputError
from nlhfsim.feedback import sampled_context
from nlhfsim.games import votes
from nlhfsim.games.votes import SampledPayoff

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")


# --- one batch, exactly ---------------------------------------------------------------------------------------------------


def test_a_draw_is_exact() -> None:
    """Where nothing rounds, a draw from partial sums is the first above the wanted sum, at every boundary; zeros never come."""
    for weights in ([3, 0, 0, 5, 1, 7, 0], [0, 0, 16], [16], [0, 1, 0, 15, 0, 0], [1] * 16, [0, 4, 4, 0, 8]):
        partial = np.cumsum(np.array(weights, dtype=float))
        assert partial[-1] == 16
        for k in range(64):
            assert votes.draw(partial, k / 64) == next(i for i, total in enumerate(partial) if total > k / 4)
    for partial in ([0.1, 0.3, 0.3], [5e-324, 5e-324]):  # so small a sum rounds up to itself
        assert votes.draw(np.array(partial), LARGEST) == int(partial[0] == 0.1)


@pytest.mark.parametrize("votes_seen", [True, False])
@pytest.mark.parametrize("candidates", ["uniform", "reference", "policy"])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_mean_of_an_estimate_is_exact(batch: int, candidates: str, votes_seen: bool) -> None:
    """Over every action, opponent and vote that can be drawn the estimate of Aπ is Aπ, to 1e-12."""
    P = np.array([[0.5, 1.0, 0.3], [0.0, 0.5, 0.8], [0.7, 0.2, 0.5]])
    game, policy = nl.PreferenceGame(P, 0.3, [0.5, 0.3, 0.2]), np.array([0.2, 0.7, 0.1])
    q = {"uniform": np.full(3, 1 / 3), "reference": game.reference, "policy": policy}[candidates]
    outcomes = []
    for i, j in product(range(3), repeat=2):
        ends = [(P[i, j], P[i, j] / 2), (1 - P[i, j], (1 + P[i, j]) / 2)] if votes_seen else [(1.0, None)]
        for chance, vote in ends:
            drawn = [np.cumsum(q)[i] - q[i] / 2, np.cumsum(policy)[j] - policy[j] / 2, *([vote] if votes_seen else [])]
            outcomes.append((q[i] * policy[j] * chance, drawn))
    mean = np.zeros(3)
    for several in product(outcomes, repeat=batch):
        generator: Any = Given([number for _, numbers in several for number in numbers])
        feedback = nl.Sampled(batch, votes_seen, candidates)
        asked = sampled_context(game.contexts[0], feedback, generator)
        mean += np.prod([chance for chance, _ in several]) * asked.payoff.product(policy)
        assert not generator.numbers and not generator.more
    np.testing.assert_allclose(mean, (P - 0.5) @ policy, rtol=0, atol=1e-12)


# --- reading along --------------------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """One product Aπ that was asked for: π, and what came back."""

    policy: Floats
    estimate: Floats


class Log(NamedTuple):
    """The readings of a run: those at its start, then call by call of each step; and log π_0, log π_1, …"""

    first: list[Reading]
    calls: list[list[Reading]]
    log_policies: Floats


def logged(
    name: str, method: dynamics.Dynamics, game: nl.PreferenceGame, feedback: nl.Sampled, n_steps: int, seed: int = 1
) -> Log:
    """Run a method as plain Python and note what it reads by `advantage`."""
    readings: list[Reading] = []
    module: Any = sys.modules[method.method.step.__module__]
    real = module.advantage

    def spy(payoff: Any, policy: Floats) -> Floats:
        estimate = real(payoff, policy)
        readings.append(Reading(np.array(policy), np.array(estimate)))
        return estimate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "advantage", spy)
        run = nl.simulate(
            game,
            method,
            n_steps,
            feedback=feedback,
            start=START,
            seed=seed,
            record_every=1,
            compiled=False,
            equilibrium=False,
        )
    assert run.log_policies is not None
    count, calls = method.method.initial_calls, method.method.oracle_calls(method.params)  # type: ignore[misc]
    assert len(readings) == count + calls * n_steps
    later = readings[count:]
    return Log(readings[:count], [later[call::calls] for call in range(calls)], run.log_policies[0])


def errors_of(game: nl.PreferenceGame, readings: list[Reading]) -> tuple[Floats, Floats]:
    """What was read less Aπ, and Aπ, each ``(steps, n)``."""
    exact = np.array([game.preferences @ reading.policy - 0.5 for reading in readings])
    return np.array([reading.estimate for reading in readings]) - exact, exact


def bias(game: nl.PreferenceGame, readings: list[Reading]) -> float:
    """How far the readings are from unbiased, in standard deviations, by several sums.

    Beside their plain sum, errors are weighted with what they would contain if a factor were wrong, Aπ, or if the opponent were
    stale, Aπ_t - Aπ_(t-1).
    """
    errors, exact = errors_of(game, readings)
    change = np.diff(exact, axis=0, prepend=exact[:1])
    return max(scores(errors, weights) for weights in (np.ones_like(exact), exact, change))


def dependence(one: Floats, other: Floats) -> float:
    """The largest standardized correlation between coordinates of two series of errors."""
    return max(scores(one, np.roll(other, k, axis=1)) for k in range(one.shape[1]))


FEEDBACKS = {
    "one vote": (nl.Sampled(), 2000),
    "a batch from the reference": (nl.Sampled(16, candidates="reference"), 500),
    "from the policy": (nl.Sampled(candidates="policy"), 2000),
    "probabilities": (nl.Sampled(2, votes=False), 1000),
}


@pytest.mark.parametrize("key", FEEDBACKS)
@pytest.mark.parametrize("name", ESTIMATED)
def test_what_is_read_is_unbiased(name: str, key: str) -> None:
    """Call by call every reading is Aπ on average, whatever the candidates, and its batch is fresh: no call knows of another."""
    feedback, n_steps = FEEDBACKS[key]
    method, game = example(name), game_of()
    if method.method.scheduled is not None:
        # Candidates from a policy that leaves actions out would not be seen for long.
        method = method.with_step(0.002 if feedback.candidates == "policy" else 0.1)
    if feedback.candidates == "policy" and not method.method.full_support:
        with pytest.raises(InputError, match="candidates = 'policy' leaves actions unseen"):
            logged(name, method, game, feedback, 1)
        return
    log = logged(name, method, game, feedback, n_steps)
    errors = [errors_of(game, readings)[0] for readings in log.calls]
    assert max(bias(game, readings) for readings in log.calls) < LIMIT
    assert np.abs(errors[0]).max() > 0.1
    assert max(dependence(one[1:], one[:-1]) for one in errors) < LIMIT
    if len(errors) == 2:
        assert dependence(*errors) < LIMIT


# --- where a method reads -------------------------------------------------------------------------------------------------


def prescribed(name: str, game: nl.PreferenceGame, gamma: float, log: Log) -> Iterator[list[Floats]]:
    """The policies that a method is defined to read at, step after step, given what it has read until then."""
    rho, beta, seen = np.log(game.reference), game.beta, log.first[0].estimate if log.first else None
    regrets = np.zeros(game.n)
    play = np.array(START)
    for t, theta in enumerate(log.log_policies[:-1]):
        read = [readings[t].estimate for readings in log.calls]

        def prox(gain: Floats) -> Floats:
            return softmax((theta + gamma * beta * rho + gamma * gain) / (1 + gamma * beta))

        if name == "NashMD":
            yield [softmax((1 - gamma * beta) * theta + gamma * beta * rho)]
        elif name == "NashMirrorProx":
            yield [softmax(theta), prox(read[0])]
        elif name == "Extragradient":
            yield [softmax(theta), softmax(theta + gamma * (read[0] - beta * (theta - rho)))]
        elif name == "OptimisticMirrorDescent":
            yield [prox(seen)]  # type: ignore[arg-type]
            seen = read[0]
        elif name.startswith("RegretMatching"):
            yield [play]
            regrets = regrets + read[0] - play @ read[0]
            regrets = np.maximum(regrets, 0) if name.endswith("Plus") else regrets
            positive = np.maximum(regrets, 0)
            play = positive / positive.sum() if positive.any() else np.full(game.n, 1 / game.n)
        else:
            yield [softmax(theta)]


class Replay:
    """A payoff that gives back what was read before."""

    def __init__(self, readings: list[Reading]) -> None:
        self.readings = list(readings)

    def product(self, policy: Floats) -> Floats:
        """The next reading, if it was of this policy."""
        reading = self.readings.pop(0)
        np.testing.assert_array_equal(policy, reading.policy)
        return reading.estimate


@pytest.mark.parametrize("name", ESTIMATED)
def test_methods_read_where_they_are_defined_to(name: str) -> None:
    """Each reading is at the prescribed policy: current, mixture, half point, play; and the exact step takes it from there."""
    method, game = example(name), game_of()
    gamma = 0.0 if method.method.scheduled is None else 0.5
    method = method if method.method.scheduled is None else method.with_step(gamma)
    log = logged(name, method, game, nl.Sampled(3), 40)
    for t, policies in enumerate(prescribed(name, game, gamma, log)):
        assert len(policies) == len(log.calls)
        for policy, readings in zip(policies, log.calls):
            np.testing.assert_allclose(readings[t].policy, policy, rtol=0, atol=1e-12)
    everything = log.first + [readings[t] for t in range(40) for readings in log.calls]
    context = game.contexts[0]._replace(payoff=Replay(everything))
    state = method.method.init(context, method.params, np.log(START))
    for log_policy in log.log_policies[1:]:
        state = method.method.step(state, context, gamma, method.params)
        np.testing.assert_allclose(softmax(state.logits), np.exp(log_policy), rtol=0, atol=1e-14)


# --- planted biases -------------------------------------------------------------------------------------------------------


class Biased:
    """Estimates of Aπ as in the package, with something wrong."""

    def __init__(self, wrong: str, batch: int) -> None:
        self.wrong, self.batch, self.last = wrong, batch, np.array(START)

    def product(self, payoff: SampledPayoff, policy: Floats) -> Floats:
        """Estimate Aπ."""
        rng, matrix, n = payoff.generator, payoff.payoff.matrix, len(policy)  # type: ignore[union-attr]
        opponent = {"stale opponent": self.last, "softmax over the batch": np.full(n, 1 / n)}.get(self.wrong, policy)
        q = policy if self.wrong in ("no importance weight", "right, from the policy") else np.full(n, 1 / n)
        out = np.zeros(n)
        for i, j in zip(rng.choice(n, self.batch, p=q), rng.choice(n, self.batch, p=opponent)):
            vote = 0.5 if rng.random() < 0.5 + matrix[i, j] else -0.5
            vote *= {"votes swapped": -1, "factor 2": 2}.get(self.wrong, 1)
            out[i] += vote / self.batch / (1 / n if self.wrong == "no importance weight" else q[i])
        self.last = policy
        return out


BIASES = ["stale opponent", "softmax over the batch", "votes swapped", "factor 2", "no importance weight"]


@pytest.mark.parametrize("wrong", [*BIASES, "", "right, from the policy"])
def test_biased_readings_are_rejected(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of the test above see each planted bias, and pass the same code without one."""
    estimates = Biased(wrong, 16)
    monkeypatch.setattr(SampledPayoff, "product", lambda payoff, policy: estimates.product(payoff, policy))
    game = game_of(0.05)
    # From the policy itself the weights 1/π are heavy-tailed where it moves far: then steps are small.
    step = 0.1 if wrong == "right, from the policy" else 1.0
    log = logged("NaturalPG", dynamics.NaturalPG(step), game, nl.Sampled(16), 1200)
    assert (bias(game, log.calls[0]) > LIMIT) == (wrong in BIASES)


def test_a_batch_used_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the second call of mirror prox saw the pairs of the first, their errors would be correlated."""
    real, kept = SampledPayoff.product, []

    def product(payoff: SampledPayoff, policy: Floats) -> Floats:
        kept.append(payoff.generator.bit_generator.state)
        if len(kept) % 2 == 0:
            payoff.generator.bit_generator.state = kept[-2]
        return real(payoff, policy)

    monkeypatch.setattr(SampledPayoff, "product", product)
    game = game_of()
    log = logged("NashMirrorProx", dynamics.NashMirrorProx(0.1), game, nl.Sampled(), 1000)
    one, other = (errors_of(game, readings)[0] for readings in log.calls)
    assert dependence(one, other) > LIMIT
