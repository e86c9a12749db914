"""Log-space probability against mpmath at 60 digits: accuracy where the textbook formulas fail, and what may never happen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlhfsim as nl
from nlhfsim import kernels, simplex
from nlhfsim.errors import InputError

mp = oracles.mp
Floats = npt.NDArray[np.float64]

LOGITS = st.lists(st.floats(-700, 700), min_size=1, max_size=8)
WEIGHTS = st.lists(st.floats(1e-300, 1.0), min_size=2, max_size=6)


def extended_kl(log_p: Floats, log_q: Floats) -> float:
    """Sum of p log(p/q) + q - p at 900 digits for the very floats given: KL, extended smoothly to sums other than 1."""
    with mp.workdps(900):
        total = mp.mpf(0)
        for a, b in zip(oracles.numbers(log_p), oracles.numbers(log_q)):
            total += mp.exp(b) - mp.exp(a) + mp.exp(a) * (a - b)
        return float(total)


def close(value: object, expected: float, rel: float) -> bool:
    """Whether two numbers agree to a relative accuracy (absolutely below 1e-300, where float64 loses digits)."""
    return bool(abs(float(value) - expected) <= rel * abs(expected) + 1e-300)  # type: ignore[arg-type]


@pytest.mark.parametrize("distance", [1e-15, 1e-10, 1e-5, 0.1, 0.29, 0.31, 1.0, 29.9, 30.1, 400.0])
def test_kl_is_accurate_at_every_distance(distance: float) -> None:
    """KL of log-policies that differ by 1e-15 to 400 keeps 13 digits."""
    rng = np.random.default_rng(0)
    log_p = simplex.log_softmax(rng.standard_normal(6))
    log_q = simplex.log_softmax(log_p + distance * rng.standard_normal(6))
    assert close(simplex.kl_log(log_p, log_q), extended_kl(log_p, log_q), 1e-13)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        ([0.5, 0.5], [1e-300, 1.0]),
        ([1e-300, 1.0], [0.5, 0.5]),
        ([1e-300, 1.0], [1e-150, 1.0]),
        ([0.0, 1.0], [0.25, 0.75]),
        ([0.0, 0.0, 1.0], [1e-300, 0.5, 0.5]),
        ([0.2, 0.3, 0.5], [0.1, 0.1, 0.8]),
        ([1.0], [1.0]),
    ],
)
def test_kl_of_zeros_and_tiny_probabilities(p: list[float], q: list[float]) -> None:
    """nl.kl equals the definition at 900 digits with zeros in p and ratios of 1e300."""
    with mp.workdps(900):
        expected = float(oracles.kl(oracles.simplex(p), oracles.simplex(q)))
    assert close(nl.kl(p, q), expected, 1e-13)


def test_kl_is_infinite_where_support_is_missing() -> None:
    """A zero of q that p has not gives infinity, not NaN."""
    assert np.isposinf(nl.kl([0.5, 0.5], [0.0, 1.0]))
    assert np.isposinf(nl.kl([1.0, 0.0], [0.0, 1.0]))


def test_kl_below_the_smallest_float() -> None:
    """In log space a probability of e^-2000 on either side is no obstacle."""
    log_p, log_q = np.array([0.0, -2000.0]), np.array([-1000.0, 0.0])
    assert close(simplex.kl_log(log_p, log_q), 1000.0, 1e-13)
    assert close(simplex.kl_log(np.array([-2000.0, 0.0]), np.array([-1000.0, 0.0])), 0.0, 1e-13)
    # e^-740 is positive in float64, but the ratio to the other probability is not.
    assert close(simplex.kl_log(np.array([-740.0, 0.0]), np.array([0.0, -740.0])), 740.0, 1e-13)


@given(WEIGHTS, st.data())
def test_kl_is_never_negative(weights: list[float], data: st.DataObject) -> None:
    """KL ≥ 0 in floating point, and it is 0 at equal arguments."""
    other = data.draw(st.lists(st.floats(1e-300, 1.0), min_size=len(weights), max_size=len(weights)))
    p, q = (np.array(w) / np.sum(w) for w in (weights, other))
    assert nl.kl(p, q) >= 0
    assert nl.kl(p, p) == 0
    assert nl.kl([0.0, 1.0], [0.0, 1.0]) == 0


@given(LOGITS, st.floats(-1e-6, 1e-6))
def test_kl_of_a_nudge_is_not_lost(logits: list[float], nudge: float) -> None:
    """A nudge of one logit is seen with its own relative accuracy, not with that of 1."""
    log_p = simplex.log_softmax(np.array(logits))
    log_q = log_p.copy()
    log_q[0] += nudge
    assert close(simplex.kl_log(log_p, log_q), extended_kl(log_p, log_q), 1e-12)


@given(st.floats(-700, 700))
def test_excess_is_accurate(d: float) -> None:
    """d + exp(-d) - 1 keeps 13 digits for every d and is never negative."""
    with mp.workdps(900):
        exact = float(mp.mpf(d) + mp.exp(-mp.mpf(d)) - 1)
    value = float(simplex.excess(np.array([d]))[0])
    assert value >= 0
    assert close(value, exact, 1e-13)


@given(LOGITS)
def test_log_softmax_is_that_of_mpmath(logits: list[float]) -> None:
    """log softmax is right to rounding of the largest logit, adds up to 1, and the compiled one agrees."""
    values = np.array(logits)
    total = mp.log(mp.fsum(mp.exp(mp.mpf(v)) for v in logits))
    expected = np.array([float(mp.mpf(v) - total) for v in logits])
    found = simplex.log_softmax(values)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-16 * (1 + np.abs(expected).max()))
    assert abs(np.exp(found).sum() - 1) < 1e-13


@given(LOGITS, st.floats(-1e6, 1e6))
def test_log_softmax_does_not_see_constants(logits: list[float], shift: float) -> None:
    """Adding a constant to all logits changes nothing beyond the rounding of the sum."""
    values = np.array(logits)
    moved = simplex.log_softmax(values + shift)
    np.testing.assert_allclose(moved, simplex.log_softmax(values), rtol=0, atol=1e-15 * (1000 + abs(shift)))


def test_log_softmax_of_huge_logits() -> None:
    """Logits of ±1e300 overflow nowhere."""
    np.testing.assert_array_equal(simplex.log_softmax(np.array([1e300, 0.0])), [0.0, -1e300])
    np.testing.assert_array_equal(simplex.log_softmax(np.array([7.0])), [0.0])


def test_primitives_act_on_the_last_axis() -> None:
    """A stack of policies gives the stack of the answers."""
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((2, 3, 5))
    policies = simplex.log_softmax(logits)
    for i, k in np.ndindex(2, 3):
        np.testing.assert_array_equal(policies[i, k], simplex.log_softmax(logits[i, k]))
        assert simplex.kl_log(policies, policies[0, 0])[i, k] == simplex.kl_log(policies[i, k], policies[0, 0])
        assert nl.span(logits)[i, k] == max(logits[i, k]) - min(logits[i, k])
    assert simplex.expect(np.exp(policies), logits).shape == (2, 3, 1)


def test_compiled_primitives_equal_the_plain_ones() -> None:
    """What a compiled step calls agrees with NumPy to rounding."""
    from numba import njit

    @njit
    def compiled(logits, values):  # type: ignore[no-untyped-def]
        policy = np.exp(simplex.log_softmax(logits))
        return simplex.log_softmax(logits), simplex.expect(policy, values)

    assert kernels is not None
    rng = np.random.default_rng(4)
    for logits in (50 * rng.standard_normal(30), np.array([0.0, -2000.0, 5.0]), np.array([-900.0, 900.0]), np.array([3.0])):
        values = rng.standard_normal(len(logits))
        logs, mean = compiled(logits, values)
        np.testing.assert_allclose(logs, simplex.log_softmax(logits), rtol=1e-15, atol=3e-14)
        assert abs(mean - simplex.expect(np.exp(simplex.log_softmax(logits)), values)[0]) < 1e-14


@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=8), st.floats(-10, 10))
def test_span_is_a_semi_norm(values: list[float], factor: float) -> None:
    """span is max - min: never negative, zero on constants, homogeneous."""
    assert nl.span(values) == max(values) - min(values) >= 0
    assert nl.span(np.full(4, values[0])) == 0
    np.testing.assert_allclose(nl.span(factor * np.array(values)), abs(factor) * nl.span(values), rtol=1e-14)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([0.5, 0.6], [0.5, 0.5], "p adds up to 1.1, must be 1"),
        ([0.5, 0.5], [0.2, 0.2], "q adds up to 0.4, must be 1"),
        ([1.5, -0.5], [0.5, 0.5], "p must hold probabilities"),
        ([0.5, np.nan], [0.5, 0.5], r"p\[1\] = nan must be finite"),
        ([0.5, 0.5], [0.2, 0.3, 0.5], "p has 2 entries and q has 3"),
        (1.0, [1.0], "p must hold probabilities"),
        (["a"], [1.0], "p must be an array of numbers"),
    ],
)
def test_kl_refuses_what_is_no_policy(p: object, q: object, message: str) -> None:
    """Bad arguments are refused by name."""
    with pytest.raises(InputError, match=message):
        nl.kl(p, q)  # type: ignore[arg-type]
