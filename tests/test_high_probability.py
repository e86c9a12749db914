"""High-probability convergence: quantiles over a thousand runs fall like 1/T, and a mutant with heavy-tailed noise does not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

import nlhfsim as nl
from nlhfsim.errors import InputError
from nlhfsim.stability import self_play_spectrum

BETA = 0.5
START = np.array([0.8, 0.1, 0.1])
STEPS = 20_000
RUNS = 1000
CYCLE = nl.games.rock_paper_scissors(beta=BETA)
# λ₀ = β/3 on the uniform cycle: c λ₀ = 2, and the first step is 1.
C, T0 = 6 / BETA, 6 / BETA
Vote = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def bernoulli(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """Votes minus 1/2."""
    return (rng.random(len(probabilities)) < probabilities) - 0.5


def heavy(rng: np.random.Generator, probabilities: np.ndarray) -> np.ndarray:
    """The same mean, but noise of infinite variance: Student's t with 1.3 degrees of freedom."""
    return probabilities - 0.5 + 0.25 * rng.standard_t(1.3, len(probabilities))


def oracle(vote: Vote, steps: int = STEPS, runs: int = RUNS, c: float = C) -> Any:
    """One-pair self-play policy gradient from its definition, all runs at once: an object with the records of a trajectory."""
    rng = np.random.default_rng(5)
    P = 0.5 + 0.5 * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]).T
    theta, rows = np.tile(np.log(START), (runs, 1)), np.arange(runs)
    marks = np.unique(np.geomspace(steps / 20, steps, 12).astype(int))
    kl = []
    for t in range(steps):
        policy = np.exp(theta - theta.max(axis=1, keepdims=True))
        sums = policy.cumsum(axis=1)
        y, other = ((rng.random((runs, 1)) * sums[:, -1:] >= sums).sum(axis=1) for _ in range(2))
        h = theta[rows, y] - theta[rows, other]  # the reference is uniform
        move = c / (t + T0) * 0.5 * (vote(rng, P[y, other]) - BETA * h)
        np.add.at(theta, (rows, y), move)
        np.add.at(theta, (rows, other), -move)
        if t + 1 in marks:
            log_policy = theta - np.log(np.exp(theta - theta.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
            log_policy -= theta.max(axis=1, keepdims=True)
            kl.append(-np.log(3) - log_policy.mean(axis=1))
    values = np.array(kl).T
    return SimpleNamespace(steps=marks, runs=runs, notes=(), metric=lambda name: values)


@pytest.fixture(scope="module")
def runs() -> nl.Trajectory:
    """A thousand runs of one-vote self-play policy gradient."""
    method = nl.dynamics.SelfPlayPG(nl.schedules.inverse_time(C, T0))
    return nl.simulate(CYCLE, method, STEPS, feedback=nl.Sampled(), runs=RUNS, start=START)


def test_self_play_policy_gradient_converges_with_high_probability(runs: nl.Trajectory) -> None:
    """Median and tail quantiles fall like 1/T and grow at most linearly in log(1/δ); the interval of each slope holds -1."""
    found = nl.high_probability(runs)
    assert found.falls_like_inverse_time() and found.grows_at_most_linearly()
    assert ((found.slope_intervals[:, 0] <= -0.9) & (found.slope_intervals[:, 1] >= -1.1)).all()
    assert 5 < found.quantiles[-1, -1] / found.quantiles[0, -1] < 11


def test_proximal_policy_gradient_converges_with_high_probability() -> None:
    """The same of `ProximalPG`, whose inner steps decay with their total count."""
    method = nl.dynamics.ProximalPG(2.0, nl.schedules.inverse_time(C, T0), 20)
    run = nl.simulate(CYCLE, method, STEPS // 20, feedback=nl.Sampled(), runs=RUNS, start=START)
    found = nl.high_probability(run)
    assert found.falls_like_inverse_time() and found.grows_at_most_linearly()


def test_the_oracle_agrees_and_heavy_tails_are_rejected(runs: nl.Trajectory) -> None:
    """The law written out passes and has the same quantiles; with votes of infinite variance the same check fails."""
    plain, bad = nl.high_probability(oracle(bernoulli)), nl.high_probability(oracle(heavy))
    ours = nl.high_probability(runs)
    assert plain.falls_like_inverse_time() and plain.grows_at_most_linearly()
    for mine, theirs in zip(ours.intervals, plain.intervals):
        assert mine[0] <= theirs[1] and theirs[0] <= mine[1]
    assert not bad.falls_like_inverse_time() and not bad.grows_at_most_linearly()


def test_too_small_a_constant_is_slow() -> None:
    """At c λ₀ = 1/4, below 1/2, the median falls like T^(-2cλ₀) = T^(-1/2) only, and the check says so."""
    method = nl.dynamics.SelfPlayPG(nl.schedules.inverse_time(C / 8, T0 / 8))
    run = nl.simulate(CYCLE, method, 5 * STEPS, feedback=nl.Sampled(batch_size=8), runs=200, start=START)
    found = nl.high_probability(run, deltas=(0.5,))
    assert found.slopes[0] == pytest.approx(-0.5, abs=0.12) and not found.falls_like_inverse_time()


def synthetic(draws: np.ndarray, exponent: float = -1.0) -> Any:
    """Runs whose error at time t is ``draws · t^exponent``."""
    steps = np.unique(np.geomspace(10, 1000, 8).astype(int))
    values = draws[:, None] * steps**exponent
    return SimpleNamespace(steps=steps, runs=len(draws), notes=("a note",), metric=lambda name: values)


def test_known_laws() -> None:
    """Exact powers are fitted exactly; tail growth is 1 for an exponential law, as computed for χ²₁ and for Pareto tails."""
    levels = (np.arange(4000) + 0.5) / 4000
    found = nl.high_probability(synthetic(stats.expon.ppf(levels), -0.7))
    lines = str(found).splitlines()
    assert len(lines) == 7 and "-0.70 (-0.70 to -0.70)" in lines[2] and lines[5].startswith(" 0.01")
    assert found.slopes == pytest.approx([-0.7] * 4, abs=1e-12) and found.tail_growth == pytest.approx(1, abs=0.02)
    assert not found.falls_like_inverse_time() and found.falls_like_inverse_time(0.31)
    for law in (stats.chi2(1), stats.pareto(0.75)):
        q = law.ppf([0.5, 0.9, 0.95, 0.99])
        expected = (q[3] - q[2]) / (q[1] - q[0])  # both over log 5
        assert nl.high_probability(synthetic(law.ppf(levels))).tail_growth == pytest.approx(expected, rel=0.03)


def test_bootstrap_intervals_cover() -> None:
    """The interval of the median covers the true one in about 95 % of 100 experiments."""
    rng = np.random.default_rng(0)
    hits = 0
    for k in range(100):
        found = nl.high_probability(synthetic(rng.exponential(size=200)), deltas=(0.5,), seed=k)
        low, high = found.intervals[0] * 1000
        hits += low <= np.log(2) <= high
    assert 87 <= hits <= 99


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"deltas": (0.1, 0.5)}, "each smaller than the one before"),
        ({"deltas": (0.5, 0.001)}, "takes at least 2000 runs, not 300"),
        ({"deltas": (1.0,)}, "must lie between 0 and 1"),
        ({"deltas": ()}, "must lie between 0 and 1"),
        ({"metric": "kld"}, "metric = 'kld' is unknown"),
        ({"clock": "time"}, "clock = 'time' is unknown"),
        ({"after": 999.0}, "leaves 1 records"),
    ],
)
def test_bad_input(given: dict[str, Any], message: str) -> None:
    """Levels out of order or out of reach, unknown names, nothing to fit."""
    with pytest.raises(InputError, match=message):
        nl.high_probability(synthetic(np.ones(300)), **given)


def test_runs_that_hold_no_positive_numbers_are_refused() -> None:
    """A run that diverged, or an error that is 0, has no slope; the notes say why."""
    for value in (np.nan, 0.0):
        with pytest.raises(InputError, match="a note"):
            nl.high_probability(synthetic(np.array([value] + [1.0] * 299)))


# --- the linearization ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_the_spectrum_of_the_uniform_cycle(beta: float) -> None:
    """γ_c = 6β/(β² + 1/12), λ₀ = β/3."""
    game = nl.games.rock_paper_scissors(beta=beta)
    found = self_play_spectrum(game, nl.solve(game))
    assert found.critical_step == pytest.approx(6 * beta / (beta**2 + 1 / 12), rel=1e-10)
    assert found.slowest_rate == pytest.approx(beta / 3, rel=1e-10)


@pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
def test_runs_bracket_the_critical_step() -> None:
    """Exact self-play policy gradient from next to π* converges 3 % below the critical step and leaves 3 % above."""
    rng = np.random.default_rng(3)
    game = nl.games.random_game(4, rng, beta=0.05)
    equilibrium = nl.solve(game)
    critical = self_play_spectrum(game, equilibrium).critical_step
    start = equilibrium.policy * np.exp(1e-5 * rng.standard_normal(4))
    start /= start.sum()
    ends = [nl.simulate(game, nl.dynamics.SelfPlayPG(f * critical), 40_000, start=start).kl[0] for f in (0.97, 1.03)]
    assert ends[0][-1] < 1e-2 * ends[0][0] and ends[1][-1] > 1e2 * ends[1][0]


def test_no_critical_step_without_regularization() -> None:
    """At β = 0 no constant step is stable on a cycle."""
    game = nl.games.rock_paper_scissors(beta=0.0)
    with pytest.raises(InputError, match="needs beta > 0"):
        self_play_spectrum(game, nl.solve(game))


def test_the_figure_shows_the_quantiles(runs: nl.Trajectory) -> None:
    """One curve a δ, its slope in the legend, and a line of slope -1 that ends where it ends."""
    found = nl.high_probability(runs, deltas=(0.5, 0.1))
    axes = found.plot()
    curves = axes.lines
    assert np.array_equal(curves[0].get_ydata(), found.quantiles[0])
    guide = curves[1]
    assert guide.get_ydata()[-1] == pytest.approx(found.quantiles[0, -1])
    assert np.diff(np.log(guide.get_ydata())) == pytest.approx(-np.diff(np.log(found.times)))
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words[1] == f"δ = 0.1, slope {found.slopes[1]:.2f}"
