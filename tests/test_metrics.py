"""First passages, fitted rates and quantiles against closed forms; the metrics of a policy against 60 digits."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlhfsim as nl
from nlhfsim import metrics
from nlhfsim.errors import InputError

T = np.arange(200.0)


@pytest.mark.parametrize(
    ("values", "eps", "expected"),
    [
        ([3.0, 2.0, 1.0, 2.0, 0.5], 1.0, 20),
        ([0.5, 2.0, 1.0, 2.0, 0.5], 1.0, 0),
        ([3.0, 2.0, 1.5, 2.0, 1.2], 1.0, np.inf),
        ([3.0, np.nan, np.nan, 0.1, 0.1], 1.0, 30),
        ([np.nan] * 5, 1.0, np.inf),
    ],
)
def test_first_passage(values: list[float], eps: float, expected: float) -> None:
    """The first time at or below the threshold; NaN never passes; inf if none does."""
    assert metrics.first_passage([0, 10, 20, 30, 40], values, eps) == expected


def test_first_passage_of_many_runs() -> None:
    """Leading axes are runs."""
    values = np.stack([0.5**T, 0.9**T]).reshape(2, 1, 200)
    assert metrics.first_passage(T, values, 1e-3).tolist() == [[10.0], [66.0]]


@given(st.floats(0.05, 1.05), st.floats(1e-6, 1e3))
def test_fit_rate_of_a_geometric_curve(factor: float, scale: float) -> None:
    """c q^t has the factor q exactly, whatever c, on any grid of times."""
    for times in (T, np.unique(np.round(10 ** np.linspace(0, 2, 30)))):
        np.testing.assert_allclose(metrics.fit_rate(times, scale * factor**times), factor, rtol=1e-9)


def test_fit_rate_reads_the_tail() -> None:
    """A fast beginning does not spoil the slow end."""
    np.testing.assert_allclose(metrics.fit_rate(T, 0.5**T + 1e-3 * 0.97**T), 0.97, rtol=1e-3)


def test_fit_rate_stops_at_rounding() -> None:
    """Values at the floor, and everything after NaN, do not count."""
    floored = np.maximum(0.5**T, 1e-28)
    np.testing.assert_allclose(metrics.fit_rate(T, floored), 0.5, rtol=1e-9)
    np.testing.assert_allclose(metrics.fit_rate(T, np.maximum(0.5**T, 1e-12), floor=1e-11), 0.5, rtol=1e-9)
    broken = np.where(T > 50, np.nan, 0.8**T)
    np.testing.assert_allclose(metrics.fit_rate(T, broken), 0.8, rtol=1e-9)


@pytest.mark.parametrize("values", [[1.0, 0.5], [0.0, 1.0, 1.0, 1.0], [np.nan] * 6, [1.0, 1e-30, 1.0, 0.9, 0.8]])
def test_fit_rate_of_too_little_is_nan(values: list[float]) -> None:
    """Fewer than three clean records give no rate."""
    assert np.isnan(metrics.fit_rate(np.arange(len(values)), values))


def test_fit_rate_keeps_the_shape() -> None:
    """One factor a row, whatever the leading axes."""
    values = np.stack([0.5**T, 0.9**T, 0.99**T]).reshape(3, 1, 200)
    np.testing.assert_allclose(metrics.fit_rate(T, values), [[0.5], [0.9], [0.99]], rtol=1e-9)


def test_quantiles() -> None:
    """Quantiles over runs, levels first; one level may be a number."""
    values = np.arange(11.0)[:, None] * [1.0, 10.0]
    np.testing.assert_allclose(metrics.quantiles(values, [0.0, 0.5, 0.9]), [[0, 0], [5, 50], [9, 90]])
    np.testing.assert_allclose(metrics.quantiles(values, 0.5), [[5, 50]])


@pytest.mark.parametrize(
    ("values", "levels", "message"),
    [([1.0], [1.5], "levels = 1.5 must lie between 0 and 1"), ([], [0.5], "at least one run"), (1.0, 0.5, "at least one run")],
)
def test_quantiles_refuse_nonsense(values: object, levels: object, message: str) -> None:
    """Levels outside [0, 1] and no runs are refused."""
    with pytest.raises(InputError, match=message):
        metrics.quantiles(values, levels)  # type: ignore[arg-type]


@pytest.mark.parametrize("beta", [0.0625, 2.0])
def test_metrics_of_a_policy(beta: float) -> None:
    """KL to π*, both exploitabilities, span and least probability of one policy at 60 digits."""
    P = [[0.5, 0.875, 0.25], [0.125, 0.5, 1.0], [0.75, 0.0, 0.5]]
    rho, pi = [0.5, 0.25, 0.25], [0.125, 0.125, 0.75]
    game = nl.PreferenceGame(P, beta, rho)
    star = oracles.equilibrium(P, rho, beta)
    found = metrics.of_context(game.contexts[0], np.log(pi), nl.solve(game).log_policy)[0]
    expected = {
        "kl": oracles.kl(star, oracles.numbers(pi)),
        "exploitability": oracles.exploitability(P, rho, beta, oracles.numbers(pi)),
        "gap0": oracles.unregularized_exploitability(P, oracles.numbers(pi)),
        "span": oracles.mp.log(3) - oracles.mp.log(0.25),
        "min_probability": 0.125,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-12), name
    assert np.isnan(metrics.of_context(game.contexts[0], np.log(pi), None)[0]["kl"])


def test_metrics_of_many_policies_are_those_of_each(family: dict[str, nl.PreferenceGame]) -> None:
    """Leading axes are policies."""
    game = family["low-rank"]
    logs = np.log(np.random.default_rng(0).dirichlet(np.ones(game.n), size=(2, 3)))
    together = metrics.of_context(game.contexts[0], logs, game.log_reference)[0]
    for i, j in np.ndindex(2, 3):
        for name, value in metrics.of_context(game.contexts[0], logs[i, j], game.log_reference)[0].items():
            assert together[name][i, j] == pytest.approx(float(value), rel=1e-12)
