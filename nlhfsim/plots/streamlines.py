"""Evenly spaced streamlines of a vector field on the triangle of three proportions.

Every place of a fine lattice is integrated forwards and backwards along the field itself, all of them at once. Then lines are
taken one after another, each begun as close to those already there as their spacing allows, and cut where it would come within
half of that of one of them, or of itself (Jobard and Lefer, *Creating evenly-spaced streamlines of arbitrary density*, 1997).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nlhfsim.errors import Array, InputError, ensure_between
from nlhfsim.plots.style import SINGLE, axes_or_new, ensure_ternary, style

Field = Callable[[Array], Any]

CORNERS = np.array([[0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]]) / [np.sqrt(3), 1.0]
"""The triangle of height 1 in which distances are measured: top, left, right."""
_STEP, _LENGTH = 0.006, 3.0
"""Of the integration along a line, and the farthest it goes each way, in heights of the triangle."""
_EDGE = 1e-6
"""The field is not asked for at smaller proportions."""
_PROGRESS = 0.9
_CLOSED = 0.05
"""A line that passes its beginning within so many steps is closed."""


def streamlines(
    field: Field,
    *,
    spacing: float = 0.08,
    color: Any = "0.6",
    linewidth: float = 0.7,
    arrowsize: float = 1.0,
    zorder: float = 0.5,
    ax: Any = None,
) -> Any:
    """Draw evenly spaced streamlines of any vector field on ternary axes, and return the axes.

    Parameters
    ----------
    field : callable
        From points of shape ``(k, 3)``, whose rows add up to 1 (to the axes' ``ternary_sum``) in the order top, left, right, to
        their velocities of the same shape. Only directions matter. Where it is not finite or zero a line ends.
    spacing : float
        Between lines, in heights of the triangle, 0.02 to 0.5.
    color, linewidth, zorder
        Of the lines, as everywhere in matplotlib.
    arrowsize : float
        Size of the arrow heads; 0 for none.
    ax : mpltern axes, optional
        From ``figure.add_subplot(projection="ternary")``, whatever its corners, rotation and ``ternary_sum``. Default: a new
        figure, one column wide.

    Raises
    ------
    InputError
        If the axes are not ternary, or the field returns anything else than one finite velocity a point somewhere.

    Examples
    --------
    Species that eat each other in a circle; mpltern alone is needed to go on from there:

    >>> import numpy as np
    >>> import nlhfsim as nl
    >>> def cycle(points):
    ...     return points * (np.roll(points, 1, axis=1) - np.roll(points, -1, axis=1))
    >>> axes = nl.plots.streamlines(cycle)
    >>> len(axes.collections)
    2
    """
    if ax is not None:
        ensure_ternary(ax)
    apart, size = ensure_between("spacing", spacing, 0.02, 0.5), ensure_between("arrowsize", arrowsize, 0.0, 10.0)
    from matplotlib.collections import LineCollection, PolyCollection

    with style():
        axes = axes_or_new(ax, (SINGLE, 2.85), "compressed", projection="ternary")
        total = axes.ternary_sum
        lines = evenly_spaced(lambda points: np.asarray(field(total * points)), apart)

        def placed(shapes: list[Array]) -> list[Any]:
            return [axes.transProjection.transform(total * barycentric(shape)) for shape in shapes]

        axes.add_collection(LineCollection(placed(lines), colors=color, linewidths=linewidth, zorder=zorder), autolim=False)
        if size:
            heads = [head for line in lines for head in _heads(line, 0.022 * size, 6 * apart)]
            look = {"facecolors": color, "edgecolors": "none", "zorder": zorder}
            axes.add_collection(PolyCollection(placed(heads), **look), autolim=False)
    return axes


def barycentric(plane: Array) -> Array:
    """Return the proportions ``(k, 3)`` of points ``(k, 2)`` of the plane of `CORNERS`."""
    top = plane[:, 1]
    left = (1 - top - np.sqrt(3) * plane[:, 0]) / 2
    return np.stack([top, left, 1 - top - left], axis=1)


def evenly_spaced(field: Field, spacing: float) -> list[Array]:
    """Return streamlines, each of shape ``(k, 2)`` in the plane of `CORNERS`, in the direction of the field."""
    from scipy.spatial import KDTree

    seeds = _lattice(spacing / 2) @ CORNERS
    if not np.any(_directions(field, seeds)):
        raise InputError("field is zero or no finite number everywhere, so there are no lines to follow")
    ways = [_follow(field, seeds, sign) for sign in (1.0, -1.0)]
    chosen: list[Array] = []
    free = np.full(len(seeds), np.inf)
    seed = int(np.argmin(np.linalg.norm(seeds - seeds.mean(axis=0) - [0.0, spacing], axis=1)))
    while True:
        tree = KDTree(np.concatenate(chosen)) if chosen else None
        line = _cut(_Ways(ways[0][seed], ways[1][seed]), tree, spacing)
        free[seed] = -np.inf
        if len(line) * _STEP > spacing:
            chosen.append(line)
            free = np.minimum(free, KDTree(line).query(seeds)[0])
        open_seeds = np.flatnonzero(free >= spacing)
        if not len(open_seeds):
            return chosen
        seed = int(open_seeds[np.argmin(free[open_seeds])])


class _Ways(NamedTuple):
    """A line as followed from its seed, ``(k, 2)`` forwards and backwards, both from the seed on."""

    forwards: Array
    backwards: Array


def _lattice(spacing: float) -> Array:
    """Return the inner points of a triangular lattice, ``(k, 3)``."""
    cells = max(int(np.ceil(1 / spacing)), 3)
    return np.array([(i, j, cells - i - j) for i in range(1, cells) for j in range(1, cells - i)]) / cells


def _directions(field: Field, plane: Array) -> Array:
    """Return the field's directions at points of the plane, unit vectors ``(k, 2)``, 0 where there is none."""
    points = np.maximum(barycentric(plane), _EDGE)
    points /= points.sum(axis=1, keepdims=True)
    velocities = np.asarray(field(points), dtype=float)
    if velocities.shape != points.shape:
        raise InputError(
            f"field returns shape {velocities.shape} at points of shape {points.shape}; it must return one velocity a point"
        )
    moves = (velocities - velocities.mean(axis=1, keepdims=True)) @ CORNERS
    lengths = np.linalg.norm(moves, axis=1, keepdims=True)
    sound = np.isfinite(lengths) & (lengths > 0)
    return np.asarray(np.divide(moves, lengths, out=np.zeros_like(moves), where=sound))


def _follow(field: Field, seeds: Array, sign: float) -> list[Array]:
    """Return where the field leads from each seed, by Runge and Kutta's method of order 4 in the length of the line."""
    steps = int(_LENGTH / _STEP)
    paths = np.full((steps + 1, *seeds.shape), np.nan)
    paths[0] = seeds
    going = np.arange(len(seeds))
    slope = sign * _directions(field, seeds)
    for step in range(steps):
        here = paths[step, going]
        second = sign * _directions(field, here + _STEP / 2 * slope)
        third = sign * _directions(field, here + _STEP / 2 * second)
        fourth = sign * _directions(field, here + _STEP * third)
        after = here + _STEP / 6 * (slope + 2 * second + 2 * third + fourth)
        # A line that does not get on is at the point where it ends: the field turns round within the step.
        alive = (barycentric(after).min(axis=1) > 0) & (np.linalg.norm(after - here, axis=1) > _PROGRESS * _STEP)
        going, after = going[alive], after[alive]
        if not len(going):
            break
        paths[step + 1, going], slope = after, sign * _directions(field, after)
    lengths = np.isfinite(paths[..., 0]).sum(axis=0)
    return [paths[: int(length), k] for k, length in enumerate(lengths)]


def _cut(ways: _Ways, others: Any, spacing: float) -> Array:
    """Return the part of a line that keeps its distance from the others and from itself."""
    parts = []
    for way in ways:
        near = np.zeros(len(way), dtype=bool) if others is None else others.query(way)[0] < spacing / 2
        parts.append(way[: np.argmax(near)] if near.any() else way)
    turn = _closed_after(parts[0], spacing)
    if turn is not None:
        return np.concatenate([parts[0][:turn], parts[0][:1]])
    line = np.concatenate([parts[1][:0:-1], parts[0]])
    middle = max(len(parts[1]) - 1, 0)
    return line[slice(*_away_from_itself(line, middle, spacing))]


def _closed_after(forwards: Array, spacing: float) -> int | None:
    """Return after how many points a line is back where it began, None if it is not."""
    if len(forwards) < 2:
        return None
    lag = int(spacing / _STEP)
    offsets = forwards - forwards[0]
    tangent = (forwards[1] - forwards[0]) / _STEP
    beside = np.abs(offsets[:, 0] * tangent[1] - offsets[:, 1] * tangent[0])
    back = (np.linalg.norm(offsets, axis=1) < _STEP) & (beside < _CLOSED * _STEP)
    back[:lag] = False
    return int(np.argmax(back)) if back.any() else None


def _away_from_itself(line: Array, seed: int, spacing: float) -> tuple[int, int]:
    """Return the range of a line, grown from its seed both ways, before it comes near to an earlier part of itself."""
    from scipy.spatial.distance import cdist

    place = np.arange(len(line))
    age = np.abs(place - seed)
    near = cdist(line, line) < spacing / 2
    near &= np.abs(place[:, None] - place) * _STEP > spacing
    near &= age[None, :] <= age[:, None]
    met = [int(k) for k in place[near.any(axis=1)]]
    return max([k + 1 for k in met if k < seed], default=0), min([k for k in met if k > seed], default=len(line))


def _heads(line: Array, size: float, every: float) -> list[Array]:
    """Return arrow heads, triangles ``(3, 2)``, in the middle of a line, or of each stretch of a long one."""
    count = max(round(len(line) * _STEP / every), 1)
    found = []
    for k in [(2 * stretch + 1) * len(line) // (2 * count) for stretch in range(count)]:
        along = line[min(k + 1, len(line) - 1)] - line[k - 1]
        along = along / np.linalg.norm(along)
        across = np.array([-along[1], along[0]])
        tip = line[k] + 0.5 * size * along
        found.append(np.array([tip, tip - size * along + 0.36 * size * across, tip - size * along - 0.36 * size * across]))
    return found
