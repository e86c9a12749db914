"""The tree of partial sums: what is drawn, exactly and in the mean, and that it is a function of its weights and nothing else.

The truth about a draw is its definition in rational numbers: of the weights in order, the first whose cumulative sum exceeds the
uniform number times the sum of all.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from generators import LARGEST, Given
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from nlhfsim import kernels  # noqa: F401  (teaches Numba the tree)
from nlhfsim import pairs, sum_tree

Floats = npt.NDArray[np.float64]
SIZES = [1, 7, 8, 9, 64, 65, 513, 5000]
compiled = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="the compiler is off")


def tree_of(weights: Any) -> tuple[Floats, npt.NDArray[np.int64]]:
    """A tree built new over some weights."""
    sums, starts = sum_tree.empty_tree(len(weights))
    sums[: len(weights)] = weights
    sum_tree.add_up(sums, starts)
    return sums, starts


def drawn(weights: Any, *uniforms: float) -> tuple[int, int, int]:
    """The pair drawn with uniform numbers given, and how many more numbers it took."""
    sums, starts = tree_of(weights)
    generator: Any = Given(uniforms)
    first, second = pairs.draw_pair(sums, starts, generator, len(weights))
    return int(first), int(second), generator.more


def exactly(cumulative: list[Fraction], uniform: float) -> int:
    """The draw by its definition."""
    wanted = Fraction(uniform) * cumulative[-1]
    return next(k for k, total in enumerate(cumulative) if total > wanted)


def cumulative_of(weights: Any) -> list[Fraction]:
    """Cumulative sums without rounding."""
    return list(accumulate(Fraction(float(weight)) for weight in weights))


@numba.njit
def many_pairs(sums: Any, starts: Any, generator: Any, n: int, counts: Any) -> None:
    """Count pairs in compiled code, as many as `counts` has rows."""
    for k in range(counts.shape[0]):
        counts[k, 0], counts[k, 1] = pairs.draw_pair(sums, starts, generator, n)


@numba.njit
def many_changes(sums: Any, starts: Any, places: Any, values: Any) -> None:
    """Change two weights at a time in compiled code."""
    for k in range(places.shape[0]):
        i, j = places[k]
        sums[i], sums[j] = values[k]
        sum_tree.add_up_above(sums, starts, i, j)


# --- draws ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_draws_at_every_boundary(n: int) -> None:
    """With integer weights that add up to a power of 2 nothing rounds: the draw is exact at every boundary and next to it."""
    weights = np.random.default_rng(n).integers(0, 6, n).astype(float)
    whole = 2.0 ** math.ceil(math.log2(weights.sum() + 1))
    weights[n // 2] += whole - weights.sum()
    cumulative = cumulative_of(weights)
    edges = sorted({float(total) / whole for total in cumulative} - {1.0})
    edges = edges if n < 100 else edges[:: n // 60] + edges[-20:]
    uniforms = [u for edge in edges for u in (edge, edge - 2.0**-40, edge + 2.0**-40) if 0 <= u < 1] + [0.0, 1 - 2.0**-40]
    sums, starts = tree_of(weights)
    assert sum_tree.total(sums, starts) == whole
    for one, other in zip(uniforms, reversed(uniforms)):
        generator: Any = Given([one, other])
        assert pairs.draw_pair(sums, starts, generator, n) == (exactly(cumulative, one), exactly(cumulative, other))
        assert generator.more == 0


@pytest.mark.parametrize("n", SIZES)
def test_draws_of_any_weights(n: int) -> None:
    """With weights over many orders of magnitude the draw is the exact one unless rounding could tell otherwise."""
    rng = np.random.default_rng(n)
    weights = np.exp(rng.normal(0, 4, n))
    cumulative, uniforms = cumulative_of(weights), rng.random(60)
    sums, starts = tree_of(weights)
    room = Fraction(2.0**-48) * cumulative[-1]
    clear = 0
    for uniform in uniforms:
        generator: Any = Given([uniform, uniform])
        first, second = pairs.draw_pair(sums, starts, generator, n)
        wanted, right = Fraction(uniform) * cumulative[-1], exactly(cumulative, uniform)
        assert first == second and weights[first] > 0
        if cumulative[right] - wanted > room and (right == 0 or wanted - cumulative[right - 1] > room):
            assert first == right
            clear += 1
    assert clear > 50


@compiled
@pytest.mark.parametrize("n", SIZES)
def test_frequencies_are_the_weights(n: int) -> None:
    """Over 200,000 compiled pairs both actions come as often as their weights say, by chi-square, and zeros never."""
    rng = np.random.default_rng([n, 1])
    weights = rng.exponential(size=n) * (rng.random(n) < 0.8)
    weights[0] = 1.0
    sums, starts = tree_of(weights)
    draws = np.empty((200_000, 2), dtype=np.int64)
    many_pairs(sums, starts, np.random.default_rng(5), n, draws)
    for column in draws.T:
        assert statistic(column, weights / weights.sum()) < chi2.isf(1e-6, max((weights > 0).sum() - 1, 1))


def statistic(column: npt.NDArray[np.int64], probabilities: Floats) -> float:
    """Pearson's chi-square; infinite if something impossible was drawn."""
    counts = np.bincount(column, minlength=len(probabilities))
    if len(counts) > len(probabilities) or counts[probabilities == 0].any():
        return math.inf
    expected = len(column) * probabilities[probabilities > 0]
    return float(((counts[probabilities > 0] - expected) ** 2 / expected).sum())


@compiled
def test_the_chi_square_can_fail() -> None:
    """Weights that are 10 % off in one action of seven are noticed."""
    weights = np.ones(7)
    sums, starts = tree_of(weights)
    draws = np.empty((200_000, 2), dtype=np.int64)
    many_pairs(sums, starts, np.random.default_rng(5), 7, draws)
    wrong = np.array([1.1, *np.ones(6)])
    assert statistic(draws[:, 0], wrong / wrong.sum()) > chi2.isf(1e-6, 6)


@compiled
def test_the_two_actions_of_a_pair_are_independent() -> None:
    """Chi-square of the 49 pairs of seven actions against the products of their probabilities."""
    weights = np.arange(1.0, 8.0)
    sums, starts = tree_of(weights)
    draws = np.empty((200_000, 2), dtype=np.int64)
    many_pairs(sums, starts, np.random.default_rng(6), 7, draws)
    p = weights / weights.sum()
    assert statistic(7 * draws[:, 0] + draws[:, 1], np.outer(p, p).ravel()) < chi2.isf(1e-6, 48)


@pytest.mark.parametrize("n", [9, 65, 513, 5000])
def test_compiled_draws_are_the_plain_ones(n: int) -> None:
    """With the same generator compiled code draws the same pairs."""
    weights = np.exp(np.random.default_rng(n).normal(0, 3, n))
    sums, starts = tree_of(weights)
    draws = np.empty((500, 2), dtype=np.int64)
    many_pairs(sums, starts, np.random.default_rng(7), n, draws)
    generator = np.random.default_rng(7)
    assert draws.tolist() == [list(pairs.draw_pair(sums, starts, generator, n)) for _ in range(500)]


# --- the ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*SIZES, 50, 393, 3100])
def test_zero_weights_are_never_drawn(n: int) -> None:
    """Neither an action without weight nor one that is not there comes, at the ends and at all boundaries as they round."""
    rng = np.random.default_rng([n, 3])
    for trial in range(40 if n < 1000 else 5):
        weights = 10.0 ** rng.uniform(-300, 0, n) if trial % 2 else rng.exponential(size=n)
        weights[rng.random(n) < 0.4] = 0.0
        weights[-(trial % 5) :] *= trial % 3 == 0
        weights[rng.integers(n)] = 1.0
        edges = np.cumsum(weights) / weights.sum()
        near = [np.nextafter(edge, side) for edge in rng.choice(edges, 6) for side in (0.0, 2.0)]
        for uniform in (0.0, 2.0**-53, LARGEST, 1 - 2.0**-52, *edges[-3:], *near):
            if uniform < 1:
                first, second, _ = drawn(weights, uniform, 0.5)
                assert first < n and second < n and weights[first] > 0 and weights[second] > 0


def test_the_upper_end_of_uneven_sums() -> None:
    """Where the last partial sum of the root rounds below the sum of all, the largest number falls behind it: drawn again.

    Five levels, the root with seven entries: what stands behind the end is then read level after level, and must be there.
    """
    n, rng = 24577, np.random.default_rng(0)
    behind = 0
    for _ in range(12):
        weights = np.exp(rng.normal(0, 2, n))
        first, second, more = drawn(weights, LARGEST, 0.25)
        assert first < n and second < n
        behind += more > 0
    assert behind >= 2


def test_one_action() -> None:
    """A tree over one action has nothing else to draw."""
    for uniform in (0.0, 0.5, LARGEST):
        assert drawn([1e-200], uniform, uniform) == (0, 0, 0)


# --- the sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_every_entry_is_the_sum_below_it(n: int) -> None:
    """Each entry of each level, the total included, is the sum of the weights under it to a few units in the last place."""
    weights = np.exp(np.random.default_rng(n).normal(0, 5, n))
    sums, starts = tree_of(weights)
    assert (np.diff(starts) % 8 == 0).all() and starts[-1] - starts[-2] == 8
    for level in range(len(starts) - 1):
        width = 8**level
        for k in range(int(starts[level + 1] - starts[level])):
            below = math.fsum(weights[k * width : (k + 1) * width])
            assert sums[starts[level] + k] == pytest.approx(below, rel=4e-16 * 3 * (level + 1), abs=0)
    assert sum_tree.total(sums, starts) == pytest.approx(math.fsum(weights), rel=4e-16 * 3 * len(starts), abs=0)


@compiled
@pytest.mark.parametrize("n", SIZES)
def test_a_changed_tree_is_a_new_one(n: int) -> None:
    """After 100,000 pairs of changes over 600 orders of magnitude every bit is that of a tree built from the weights."""
    rng = np.random.default_rng(n)
    sums, starts = tree_of(rng.exponential(size=n))
    places = rng.integers(0, n, (100_000, 2))
    values = 10.0 ** rng.uniform(-300, 300, (100_000, 2))
    values[places[:, 0] == places[:, 1], 0] = values[places[:, 0] == places[:, 1], 1]
    many_changes(sums, starts, places, values)
    np.testing.assert_array_equal(sums, tree_of(sums[:n])[0])


WEIGHTS = st.one_of(st.just(0.0), st.floats(1e-300, 1e200), st.sampled_from([1.0, 2.0**-53, 1e16]))


@given(st.lists(WEIGHTS, min_size=1, max_size=150), st.data())
def test_changes_in_plain_python(weights: list[float], data: st.DataObject) -> None:
    """The same for any weights and any changes, one after the other in plain Python."""
    n = len(weights)
    sums, starts = tree_of(weights)
    for _ in range(3):
        i, j = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
        sums[i], sums[j] = data.draw(WEIGHTS), data.draw(WEIGHTS)
        sum_tree.add_up_above(sums, starts, i, j)
        np.testing.assert_array_equal(sums, tree_of(sums[:n])[0])


@given(st.lists(WEIGHTS, min_size=1, max_size=150).filter(any), st.floats(0, LARGEST), st.floats(0, LARGEST))
def test_a_draw_is_near_the_exact_one(weights: list[float], one: float, other: float) -> None:
    """What is drawn has weight, and lies within rounding of where its definition puts it."""
    cumulative = cumulative_of(weights)
    first, second, more = drawn(weights, one, other)
    room = Fraction(2.0**-49) * cumulative[-1]
    for index, uniform in ((first, one), (second, other)):
        assert weights[index] > 0
        wanted = Fraction(uniform) * cumulative[-1]
        if not more:
            assert cumulative[index] > wanted - room and (index == 0 or cumulative[index - 1] <= wanted + room)


@given(st.lists(st.floats(0, 1e300), min_size=8, max_size=8), st.floats(0, 1))
def test_descend_never_returns_a_negative_rest(group: list[float], share: float) -> None:
    """The child is one of eight, and what is left to want there is not negative; Python floats and NumPy's give the same."""
    sums = np.array(group)
    wanted = share * sum_tree.group_sum(sums, 0)
    child, rest = sum_tree.descend(sums, 0, float(wanted))
    assert 0 <= child <= 7 and rest >= 0
    assert sum_tree.descend(sums, 0, np.float64(wanted)) == (child, rest)
    assert sum_tree.descend(group, 0, float(wanted)) == (child, rest)  # type: ignore[arg-type]
