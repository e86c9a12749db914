"""Learning from pairs: the mean of a step, exactly; the lazy lag and average against every coordinate moved at every step;
logits far apart.

The plain `run_pairs` is driven with generators that say or tell what is drawn; the truth is the definition written out densely.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import oracles
import pytest
from generators import LARGEST, Given, Recording
from oracles import mp

import nlhfsim as nl
from nlhfsim import dynamics, pairs
from nlhfsim.games.payoffs import Context
from nlhfsim.games.votes import UNIFORM, SampledPayoff
from nlhfsim.pairs import Pairs, PairState

Floats = npt.NDArray[np.float64]


def normalized(weights: Any) -> Floats:
    """Weights divided by their sum."""
    return np.asarray(weights / np.sum(weights))


def small_game(n: int = 3, beta: float = 0.4) -> nl.PreferenceGame:
    """A game with certain votes among others and a reference that is not uniform."""
    P = np.full((n, n), 0.5)
    for i, j in product(range(n), repeat=2):
        if i < j:
            P[i, j] = (0.9, 0.3, 1.0, 0.65)[(i + 2 * j) % 4]
            P[j, i] = 1 - P[i, j]
    return nl.PreferenceGame(P, beta, normalized(np.arange(1.0, n + 1)[::-1]))


def asked(game: nl.PreferenceGame, generator: Any, batch: int = 1, votes: bool = True) -> Context:
    """The game's context with votes in place of its payoff."""
    context = game.contexts[0]
    return context._replace(payoff=SampledPayoff(context.payoff, generator, batch, votes, UNIFORM, np.zeros((2, 0))))


def run(state: PairState, context: Context, sizes: Any, how: Pairs, marks: Any = ()) -> tuple[PairState, Floats, int]:
    """The state after a step for each size, what was recorded, and the steps done."""
    state = PairState(*(np.array(part) if np.ndim(part) else part for part in state))
    places = np.array(marks, dtype=np.int64)
    records = np.full((len(places), len(state.logits)), np.nan)
    with np.errstate(all="ignore"):
        *fields, count = pairs.run_pairs(state, context, np.array(sizes, dtype=float), how, places, records)
    return PairState(*fields), records, count


METHODS: dict[str, tuple[dynamics.Dynamics, float, float]] = {
    "SelfPlayPG": (dynamics.SelfPlayPG(0.7), 0.0, 0.0),
    "IPOMD": (dynamics.IPOMD(0.7, mixing=0.3), 0.3, 0.0),
    "IPOMD, all reference": (dynamics.IPOMD(0.7, mixing=1.0), 1.0, 0.0),
    "NashProx": (dynamics.NashProx(0.7, proximal_step=1.25, averaging=0.2), 0.0, 0.8),
    "NashProx, refreshed": (dynamics.NashProx(0.7, proximal_step=1.25, refresh_every=3), 0.0, 0.8),
    "ProximalPG": (dynamics.ProximalPG(proximal_step=4.0, inner_step_size=0.7, inner_steps=5), 0.0, 0.25),
}
"""A method, its share of the reference in the pairs, and the weight of its proximal term."""


def how_of(name: str) -> Pairs:
    """How a method learns from pairs."""
    method = METHODS[name][0]
    assert method.method.pairs is not None
    return method.method.pairs(method.params)


# --- the mean of a step ---------------------------------------------------------------------------------------------------


def outcomes(game: nl.PreferenceGame, mixed: Floats, votes: bool) -> Iterator[tuple[float, list[float]]]:
    """Every pair and vote: its probability, and uniform numbers in the middle of what leads to it."""
    upper = np.cumsum(mixed)
    middle = upper - mixed / 2
    for i, j in product(range(game.n), repeat=2):
        p = float(game.preferences[i, j])
        if not votes:
            yield mixed[i] * mixed[j], [middle[i], middle[j]]
            continue
        for chance, uniform in ((p, p / 2), (1 - p, p + (1 - p) / 2)):
            if chance > 0:
                yield mixed[i] * mixed[j] * chance, [middle[i], middle[j], uniform]


def mean_step(game: nl.PreferenceGame, name: str, logits: Floats, lag: Floats, batch: int, votes: bool) -> Floats:
    """The mean of θ⁺ - θ over everything that can be drawn."""
    how = how_of(name)
    mixed = normalized(np.exp((1 - METHODS[name][1]) * logits + METHODS[name][1] * np.log(game.reference)))
    state = pairs.start_pairs(logits, how, False)
    if how.pull:
        state = state._replace(lag=lag, touched=np.full(game.n, 1), taken=0)  # up to date
    mean, mass = np.zeros(game.n), 0.0
    for several in product(list(outcomes(game, mixed, votes)), repeat=batch):
        generator = Given([number for _, numbers in several for number in numbers])
        after, _, _ = run(state, asked(game, generator, batch, votes), [0.7], how)
        assert not generator.numbers and not generator.more
        chance = np.prod([one for one, _ in several])
        mean, mass = mean + chance * (after.logits - logits), mass + chance
    assert mass == pytest.approx(1, abs=1e-14)
    return np.asarray(mean)


def exact_step(game: nl.PreferenceGame, name: str, logits: Floats, lag: Floats) -> Floats:
    """γ J(π̃)(Aπ̃ - β(θ - log ρ) - τ(θ - θ̄)), from the definition."""
    _, mixing, pull = METHODS[name]
    mixed = normalized(np.exp(logits) ** (1 - mixing) * game.reference**mixing)
    slope = (game.preferences - 0.5) @ mixed - game.beta * (logits - np.log(game.reference)) - pull * lag
    return 0.7 * (np.diag(mixed) - np.outer(mixed, mixed)) @ slope


@pytest.mark.parametrize("votes", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_the_mean_of_a_step_is_the_gradient(name: str, votes: bool) -> None:
    """Over all pairs and votes, with the centre away from θ, the step is γ times the gradient to 1e-12; logits not normalized."""
    game = small_game(4)
    logits, lag = np.array([0.4, -1.3, 2.0, 0.1]), np.array([0.5, -0.25, 1.5, -1.0])
    found = mean_step(game, name, logits, lag, 1, votes)
    np.testing.assert_allclose(found, exact_step(game, name, logits, lag), rtol=0, atol=1e-12)
    for wrong in (2.0 * found, exact_step(game.with_beta(0.5 * game.beta), name, logits, lag)):
        assert np.abs(wrong - exact_step(game, name, logits, lag)).max() > 1e-3


@pytest.mark.parametrize("name", ["SelfPlayPG", "NashProx"])
def test_a_batch_is_averaged(name: str) -> None:
    """Two pairs a step have the same mean."""
    game, logits, lag = small_game(3), np.array([0.3, -0.6, 0.9]), np.array([0.5, -0.25, 1.5])
    found = mean_step(game, name, logits, lag, 2, True)
    np.testing.assert_allclose(found, exact_step(game, name, logits, lag), rtol=0, atol=1e-12)


def test_the_mean_is_the_online_ipo_gradient() -> None:
    """The mean step of self-play is -γβ/4 times the gradient of the population loss, differentiated by complex steps."""
    game, logits = small_game(4), np.array([0.4, -1.3, 2.0, 0.1])
    gradient = oracles.online_ipo_gradient(game.preferences, game.reference, game.beta, logits)
    found = mean_step(game, "SelfPlayPG", logits, np.zeros(4), 1, True)
    np.testing.assert_allclose(found, -0.7 * game.beta / 4 * gradient, rtol=0, atol=1e-12)


def test_an_action_against_itself_changes_no_bit() -> None:
    """The move is there and back again, so nothing moves, however large the step."""
    game = small_game(3)
    logits = np.array([0.1, 0.2, 0.3])
    after, _, _ = run(pairs.start_pairs(logits, how_of("NashProx"), True), asked(game, Given([0.5, 0.5, 0.1])), [1e17], Pairs())
    np.testing.assert_array_equal(after.logits, logits)


# --- lazy against dense ---------------------------------------------------------------------------------------------------


class Dense:
    """Every coordinate of θ, of the centre and of the sum of all θ, brought up to date at every step; in any arithmetic."""

    def __init__(self, game: nl.PreferenceGame, name: str, logits: Any, batch: int) -> None:
        self.game, self.batch = game, batch
        self.how, (self.method, self.mixing, self.pull) = METHODS[name][0].parameters, METHODS[name]
        self.logits, self.centre = np.array(logits), np.array(logits)
        self.total, self.terms, self.taken = np.array(logits), 1, 0
        self.log_reference = np.log(game.reference)

    def mixture(self) -> Any:
        """π̃, exact enough for any spread of the logits."""
        exponents = (1 - self.mixing) * self.logits + self.mixing * self.log_reference
        return oracles.softmax(list(exponents)) if exponents.dtype == object else normalized(np.exp(exponents - exponents.max()))

    def step(self, size: float, drawn: list[tuple[int, int, float]]) -> None:
        """One step with pairs and votes given; a vote is won if its number lies below P."""
        move = 0 * self.logits
        for i, j, uniform in drawn:
            vote = 0.5 if uniform < self.game.preferences[i, j] else -0.5
            ratio, lag = self.logits - self.log_reference, self.logits - self.centre
            slope = vote - self.game.beta * (ratio[i] - ratio[j]) - self.pull * (lag[i] - lag[j])
            move[i] += size / 2 * slope / self.batch
            move[j] -= size / 2 * slope / self.batch
        self.logits = self.logits + move
        self.taken += 1
        if "averaging" in self.how:
            self.centre = self.centre + self.how["averaging"] * (self.logits - self.centre)
        every = self.how.get("refresh_every", self.how.get("inner_steps", 0))
        if every and self.taken % every == 0:
            self.centre = self.logits
        if self.taken % self.how.get("inner_steps", 1) == 0:
            self.total, self.terms = self.total + self.logits, self.terms + 1

    def check(self, index: int, uniform: float, mixed: Any) -> None:
        """That an action is the one that a uniform number leads to, by the definition and to rounding."""
        below = sum(mixed[:index])
        assert below - 1e-12 <= uniform <= below + mixed[index] + 1e-12


def replay(dense: Dense, uniforms: list[float], drawn: list[tuple[int, int]], sizes: Any) -> Iterator[None]:
    """Do the same steps densely, checking each draw; yields after each."""
    for t, size in enumerate(sizes):
        mixed, batch = dense.mixture(), []
        for b in range(t * dense.batch, (t + 1) * dense.batch):
            for index, uniform in zip(drawn[b], uniforms[3 * b : 3 * b + 2]):
                dense.check(index, uniform, mixed)
            batch.append((*drawn[b], uniforms[3 * b + 2]))
        dense.step(size, batch)
        yield


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The pairs that are drawn."""
    found: list[tuple[int, int]] = []
    real = pairs.draw_pair

    def draw_pair(*arguments: Any) -> tuple[int, int]:
        found.append(real(*arguments))
        return found[-1]

    monkeypatch.setattr(pairs, "draw_pair", draw_pair)
    return found


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_lazy_is_dense(name: str, batch: int, drawn: list[tuple[int, int]]) -> None:
    """Over 2,000 steps θ, the averages, and at the end the centre of every coordinate agree with dense updates to 1e-10."""
    game, how = small_game(9, beta=0.05), how_of(name)
    logits = np.log(game.reference) + np.linspace(-1, 2, 9)
    sizes = 3.0 / (1 + np.arange(2000) / 300)
    marks = [t for t in range(1, 2001) if t % 35 == 0]  # whole steps of every method here
    generator = Recording(np.random.default_rng(3))
    start = pairs.start_pairs(logits, how, True)
    after, averages, _ = run(start, asked(game, generator, batch), sizes, how, marks)
    alone, _, _ = run(pairs.start_pairs(logits, how, False), asked(game, Given(generator.drawn), batch), sizes, how, [])
    np.testing.assert_array_equal(after.logits, alone.logits)
    dense = Dense(game, name, logits, batch)
    for t, _ in enumerate(replay(dense, generator.drawn, drawn, sizes), 1):
        if t in marks:
            np.testing.assert_allclose(averages[marks.index(t)], dense.total / dense.terms, rtol=0, atol=1e-10)
    np.testing.assert_allclose(after.logits, dense.logits, rtol=0, atol=1e-10)
    assert np.abs(after.logits - logits).max() > 0.3
    for i in range(game.n):
        pairs.bring_up(after, how, np.log1p(-how.averaging) if how.averaging < 1 else -500.0, i, after.taken)
    if how.pull:
        np.testing.assert_allclose(after.logits - after.lag, dense.centre, rtol=0, atol=1e-10)
    np.testing.assert_allclose(after.history / dense.terms, dense.total / dense.terms, rtol=0, atol=1e-10)


def test_recording_the_iterates() -> None:
    """Without an average θ itself is recorded, also where it did not move."""
    game, how = small_game(9), Pairs()
    start = pairs.start_pairs(np.log(game.reference), how, False)
    _, records, _ = run(start, asked(game, np.random.default_rng(0)), np.full(30, 0.5), how, range(1, 31))
    for t in (1, 7, 30):
        after, _, _ = run(start, asked(game, np.random.default_rng(0)), np.full(t, 0.5), how)
        np.testing.assert_array_equal(records[t - 1], after.logits)


# --- logits far apart -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_logits_that_wander(name: str, drawn: list[tuple[int, int]]) -> None:
    """Starting 2,000 nats apart, with steps of hundreds of nats and draws at both ends, all is as with 60 digits."""
    game, how = small_game(6, beta=1e-5), how_of(name)
    rng = np.random.default_rng(1)
    logits = np.array([-900.0, 0.0, -2000.0, -300.0, -650.0, -20.0])
    uniforms = rng.random(3 * 400)
    for end in (0.0, LARGEST):
        uniforms[rng.random(3 * 400) < 0.4] = end
    uniforms[2::3] = rng.random(400)
    sizes = 10.0 ** rng.uniform(1, 3.5, 400)
    sizes *= 1e-3 if how.pull else 1.0  # the proximal term is stable up to steps of about 1/τ
    after, _, count = run(pairs.start_pairs(logits, how, False), asked(game, Given(uniforms)), sizes, how)
    assert count == 400 and np.isfinite(after.logits).all()
    dense = Dense(game, name, np.array(oracles.numbers(logits)), 1)
    dense.log_reference = np.array([mp.log(p) for p in oracles.numbers(game.reference)])
    for _ in replay(dense, list(uniforms), drawn, sizes):
        pass
    np.testing.assert_allclose(after.logits, dense.logits.astype(float), rtol=1e-12, atol=1e-9)


def test_the_offset_follows(drawn: list[tuple[int, int]]) -> None:
    """A top that climbs, and one that falls, by more than 500 nats: weights stay in range, draws go where the policy is."""
    game, how = nl.PreferenceGame([[0.5, 1.0], [0.0, 0.5]], 0.0, [0.5, 0.5]), Pairs()
    climbs, _, _ = run(pairs.start_pairs(np.zeros(2), how, False), asked(game, Given([0.1, 0.9, 0.1])), [4000.0], how)
    assert climbs.logits.tolist() == [1000.0, -1000.0] and climbs.offset == 1000.0
    low = np.array([-3000.0, -3000.0])
    falls, _, _ = run(pairs.start_pairs(low, how, False), asked(game, Given([0.1, 0.9, 0.1])), [4.0], how)
    assert falls.logits.tolist() == [-2999.0, -3001.0] and falls.offset == -3000.0
    sinking = pairs.start_pairs(np.array([-699.0, -490.0]), how, False)
    sinks, _, _ = run(sinking, asked(game, Given([0.0, 0.5, 0.1])), [418.0], how)
    assert sinks.logits.tolist() == [-594.5, -594.5] and sinks.offset == -594.5
    for state, u, right in (
        (climbs, LARGEST, 0),
        (sinks, 0.49, 0),
        (sinks, 0.51, 1),
        (falls, 0.9, 1),
        (falls, 0.8, 0),
    ):  # 1 / (1 + e^-2) = 0.88
        run(state, asked(game, Given([u, u, 0.1])), [1.0], how)
        assert drawn[-1] == (right, right)


def test_logits_that_overflow_end_the_run() -> None:
    """A finite move that takes a logit out of range ends the run at that step, instead of drawing from weights that are NaN."""
    how, large = Pairs(), 1.7e308
    game = nl.PreferenceGame([[0.5, 1.0], [0.0, 0.5]], 0.0, [0.5, 0.5])
    state = pairs.start_pairs(np.array([large, large]), how, False)
    after, records, count = run(state, asked(game, Given([0.1, 0.9, 0.1, 0.1, 0.9, 0.1])), [large] * 3, how, [1, 2])
    assert count == 1 and not np.isfinite(after.logits).all() and np.isnan(records).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_divergence_is_reported(compiled: bool) -> None:
    """With a β so large that the step overflows, the run ends as diverged with its step named, records NaN from there."""
    game = nl.games.random_game(3, 1, beta=1e300)
    method = dynamics.SelfPlayPG([1e10, 1e-301])
    run = nl.simulate(
        game, method, 50, start=[0.5, 0.3, 0.2], feedback="sampled", record_every=1, equilibrium=False, compiled=compiled
    )
    assert run.status == ("diverged", "completed") and run.log_policies is not None
    noted = [note for note in run.notes if "run 0: the logits stopped being finite at step" in note]
    gone = int(noted[0].split("step ")[1].split(";")[0])
    assert np.isfinite(run.log_policies[0, :gone]).all() and np.isnan(run.log_policies[0, gone:]).all()
    assert np.isfinite(run.log_policies[1]).all()


@pytest.mark.parametrize("compiled", [True, False])
def test_tiny_beta_is_no_beta(compiled: bool) -> None:
    """β = 1e-320 gives what β = 0 gives, bit for bit."""
    tiny, none = (
        nl.simulate(game, dynamics.SelfPlayPG(0.5), 300, feedback="sampled", equilibrium=False, compiled=compiled)
        for game in (nl.games.random_game(5, 1, beta=1e-320), nl.games.random_game(5, 1, beta=0.0))
    )
    np.testing.assert_array_equal(tiny.parameters, none.parameters)
