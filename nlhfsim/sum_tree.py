"""A tree of partial sums: draw an action in proportion to its weight, and change a weight, in O(log n).

Eight weights to a node: a group of eight neighbours is one line of the processor's cache, and a million actions are seven levels.
``sums[starts[l] : starts[l + 1]]`` is level l; level 0 holds the weights themselves, padded with zeros to whole groups; entry k
of level l + 1 is the sum of group k of level l, always added up anew from its eight children, never corrected by a difference. So
the tree is at every moment a function of the weights alone: nothing drifts, and a tree built from the weights has the same bits.

Everything here is written so that it runs as plain Python and compiles as it stands.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array

WIDTH = 8


def empty_tree(n: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the sums, all zero, and the starts of the levels of a tree over n weights."""
    levels, groups = 1, (n + WIDTH - 1) // WIDTH
    while groups > 1:
        groups = (groups + WIDTH - 1) // WIDTH
        levels += 1
    starts = np.zeros(levels + 1, dtype=np.int64)
    width = n
    for level in range(levels):
        groups = (width + WIDTH - 1) // WIDTH
        starts[level + 1] = starts[level] + groups * WIDTH
        width = groups
    # A draw that rounding sends beyond the last weight reads on behind its level, here at the latest, and is drawn again.
    return np.zeros(starts[levels] + WIDTH), starts


def group_sum(sums: Array, begin: int) -> float:
    """Return the sum of the eight entries from `begin`."""
    low = (sums[begin] + sums[begin + 1]) + (sums[begin + 2] + sums[begin + 3])
    high = (sums[begin + 4] + sums[begin + 5]) + (sums[begin + 6] + sums[begin + 7])
    return low + high  # type: ignore[no-any-return]


def add_up(sums: Array, starts: npt.NDArray[np.int64]) -> None:
    """Fill every level above the weights."""
    for level in range(len(starts) - 2):
        for group in range((starts[level + 1] - starts[level]) // WIDTH):
            sums[starts[level + 1] + group] = group_sum(sums, starts[level] + WIDTH * group)


def add_up_above(sums: Array, starts: npt.NDArray[np.int64], i: int, j: int) -> None:
    """Add up anew what stands above the weights i and j; neither path waits for the other."""
    for level in range(len(starts) - 2):
        i, j = i >> 3, j >> 3
        sums[starts[level + 1] + i] = group_sum(sums, starts[level] + WIDTH * i)
        sums[starts[level + 1] + j] = group_sum(sums, starts[level] + WIDTH * j)


def total(sums: Array, starts: npt.NDArray[np.int64]) -> float:
    """Return the sum of all weights."""
    return group_sum(sums, starts[len(starts) - 2])


def descend(sums: Array, begin: int, wanted: float) -> tuple[int, float]:
    """Return which of the eight entries from `begin` holds the partial sum `wanted`, and what is left of it there.

    The partial sums are taken along a tree, not a chain, as each addition waits for the ones before it; they still never fall.
    """
    sum0 = sums[begin]
    sum1 = sum0 + sums[begin + 1]
    sum2, sum3 = sum1 + sums[begin + 2], sum1 + (sums[begin + 2] + sums[begin + 3])
    sum4, sum5 = sum3 + sums[begin + 4], sum3 + (sums[begin + 4] + sums[begin + 5])
    sum6 = sum5 + sums[begin + 6]
    # From a number on, as NumPy's booleans alone would add up to a boolean in plain Python.
    child = 0 + (wanted >= sum0) + (wanted >= sum1) + (wanted >= sum2) + (wanted >= sum3)
    child = child + (wanted >= sum4) + (wanted >= sum5) + (wanted >= sum6)
    below = sum0 if wanted >= sum0 else 0.0
    below = sum1 if wanted >= sum1 else below
    below = sum2 if wanted >= sum2 else below
    below = sum3 if wanted >= sum3 else below
    below = sum4 if wanted >= sum4 else below
    below = sum5 if wanted >= sum5 else below
    below = sum6 if wanted >= sum6 else below
    return child, wanted - below
