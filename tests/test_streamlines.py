"""Streamlines on the triangle: they follow the field, stay inside, keep their distance, and leave no place out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpltern  # noqa: F401
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

import nlhfsim as nl
from nlhfsim import plots
from nlhfsim.errors import InputError
from nlhfsim.plots.triangle import _step_of, displacement

Floats = npt.NDArray[np.float64]
CORNERS = np.array([[0.0, 1.0], [-1 / np.sqrt(3), 0.0], [1 / np.sqrt(3), 0.0]])


def cycle(points: Floats) -> Floats:
    """Replicator dynamics of rock, paper and scissors, along which the product of the proportions is constant."""
    return np.asarray(points * (np.roll(points, 1, axis=1) - np.roll(points, -1, axis=1)))


def sink(points: Floats) -> Floats:
    return np.array([0.5, 0.3, 0.2]) - points


def saddle(points: Floats) -> Floats:
    return np.stack([points[:, 0] - 1 / 3, 1 / 3 - points[:, 1], points[:, 1] - points[:, 0]], axis=1)


FIELDS: dict[str, Callable[[Floats], Floats]] = {"cycle": cycle, "sink": sink, "saddle": saddle}


def drawn(axes: Any, which: int = 0) -> list[Floats]:
    """Return lines (or, the second collection, arrow heads) as proportions, by the geometry of the triangle."""
    paths = [path.vertices for path in axes.collections[which].get_paths()]
    weights = np.linalg.inv(np.vstack([CORNERS.T, np.ones(3)]))
    return [np.column_stack([path, np.ones(len(path))]) @ weights.T for path in paths]


def test_lines_of_the_replicator_keep_the_product_and_close() -> None:
    lines = drawn(plots.streamlines(cycle))
    for line in lines:
        logs = np.log(line.clip(1e-12)).sum(axis=1)
        assert np.ptp(logs[line.min(axis=1) > 1e-3]) < 1e-4
    closed = [line for line in lines if np.array_equal(line[0], line[-1])]
    assert len(closed) >= 4
    for line in closed:
        assert np.linalg.norm(np.diff(line, axis=0), axis=1).max() < 2 * 0.006 * np.sqrt(1.5)


@pytest.mark.parametrize("name", FIELDS)
def test_lines_are_tangent_to_the_field_in_its_direction_and_inside(name: str) -> None:
    for line in drawn(plots.streamlines(FIELDS[name])):
        assert line.min() > 0 and np.allclose(line.sum(axis=1), 1)
        moves, middle = np.diff(line, axis=0)[:-1], ((line[1:] + line[:-1]) / 2)[:-1]
        moves, field = moves @ CORNERS, FIELDS[name](middle) @ CORNERS
        cosines = (moves * field).sum(axis=1) / np.linalg.norm(moves, axis=1) / np.linalg.norm(field, axis=1)
        # Next to a fixed point the direction turns within one step.
        assert cosines[np.linalg.norm(field, axis=1) > 0.01].min() > 0.9995


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("spacing", [0.05, 0.12])
def test_lines_keep_their_distance_and_leave_no_place_out(name: str, spacing: float) -> None:
    lines = [line @ CORNERS for line in drawn(plots.streamlines(FIELDS[name], spacing=spacing))]
    gaps = [cdist(a, b).min() for k, a in enumerate(lines) for b in lines[:k]]
    assert min(gaps) > 0.49 * spacing
    places = np.random.default_rng(0).dirichlet(np.ones(3), 400) @ CORNERS
    far = cdist(places, np.concatenate(lines)).min(axis=1)
    assert np.quantile(far, 0.9) < spacing and far.max() < 2 * spacing


def test_a_spiral_keeps_its_distance_from_itself() -> None:
    def spiral(points: Floats) -> Floats:
        return cycle(points) + 0.01 * (1 / 3 - points)

    turns = []
    for line in drawn(plots.streamlines(spiral)):
        place = line @ CORNERS
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(place, axis=0), axis=1))])
        apart = np.abs(length[:, None] - length) > 1.1 * 0.08
        assert not apart.any() or cdist(place, place)[apart].min() > 0.49 * 0.08
        angles = np.unwrap(np.arctan2(*(place - CORNERS.mean(axis=0)).T))
        turns.append(abs(angles[-1] - angles[0]) / (2 * np.pi))
    assert max(turns) > 0.9


def test_arrow_heads_point_along_the_field() -> None:
    heads = [head[:3] for head in drawn(plots.streamlines(sink), 1)]
    assert len(heads) >= len(drawn(plots.streamlines(sink)))
    for head in heads:
        along, field = head[0] - head[1:].mean(axis=0), sink(head.mean(axis=0))
        assert along @ field > 0.98 * np.linalg.norm(along) * np.linalg.norm(field)
    assert len(plots.streamlines(sink, arrowsize=0).collections) == 1


def test_any_ternary_axes_will_do() -> None:
    """Axes that add up to 100 and are turned: their field sees their numbers, and the lines turn with the corners."""
    seen = []

    def in_percent(points: Floats) -> Floats:
        seen.append(points.sum(axis=1))
        return cycle(points)

    axes = Figure().add_subplot(projection="ternary", ternary_sum=100.0, rotation=90)
    limits = axes.get_xlim(), axes.get_ylim()
    assert plots.streamlines(in_percent, ax=axes) is axes
    assert np.allclose(np.concatenate(seen), 100)
    assert (axes.get_xlim(), axes.get_ylim()) == limits
    plain = drawn(plots.streamlines(cycle))
    for path, line in zip(axes.collections[0].get_paths(), plain, strict=True):
        np.testing.assert_allclose(path.vertices, line @ axes.corners_data, atol=1e-9)


def test_lines_end_where_the_field_does() -> None:
    def half(points: Floats) -> Floats:
        return np.where(points[:, :1] < 0.5, sink(points) + [0.3, 0, 0], np.nan)

    lines = drawn(plots.streamlines(half))
    assert len(lines) > 5 and max(line[:, 0].max() for line in lines) < 0.51


def test_one_step_is_the_update_of_the_method() -> None:
    game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.2, beta=0.1)
    policies = np.random.default_rng(1).dirichlet(np.ones(3), 5)
    weights = policies * np.exp(0.7 * policies @ game.preferences.T)
    expected = weights / weights.sum(axis=1, keepdims=True) - policies
    np.testing.assert_allclose(displacement(game, policies, nl.dynamics.MultiplicativeWeights(0.7)), expected, atol=1e-12)


def test_between_lattice_points_a_field_of_steps_is_linear() -> None:
    from scipy.interpolate import LinearNDInterpolator

    game, method = nl.games.rock_paper_scissors(margin=0.5, bias=-0.2, beta=0.1), nl.dynamics.NashMD(1.0)
    lattice = np.array([(i, j, 6 - i - j) for i in range(7) for j in range(7 - i)]) / 6
    points = 0.01 + 0.97 * lattice
    expected = LinearNDInterpolator(lattice @ CORNERS, displacement(game, points, method))
    places = np.random.default_rng(2).dirichlet(np.ones(3), 300)
    inside = (places - 0.01) / 0.97
    found = _step_of(game, method, cells=6, margin=0.01)(places)
    known = inside.min(axis=1) > 0
    np.testing.assert_allclose(found[known], expected(inside[known] @ CORNERS), atol=1e-12)
    assert known.sum() > 200 and np.isfinite(found).all()


def test_a_portrait_of_steps_follows_the_steps() -> None:
    game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.2, beta=0.1)
    method = nl.dynamics.ProximalPG(2.0, 5.0, 20)
    axes = plots.phase_portrait(game, field=method, field_of="step", field_as="streamlines")
    for line in drawn(axes):
        middle = ((line[1:] + line[:-1]) / 2)[5:-5:7]
        moves = np.diff(line, axis=0)[5:-5:7]
        field = displacement(game, middle, method)
        cosines = (moves * field).sum(axis=1) / np.linalg.norm(moves, axis=1) / np.linalg.norm(field, axis=1)
        # Within a cell of the lattice from the sides, where logarithms bend it most, the field is less exact.
        assert (cosines[middle.min(axis=1) > 1 / 64] > 0.999).all() and (cosines > 0.95).all()
    arrows = plots.phase_portrait(game, field=method, field_of="step").collections[0]
    assert len(arrows.U) == 16 * 15 / 2


def test_a_path_of_betas_is_solved_and_marked() -> None:
    game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.2, beta=0.1)
    betas = np.geomspace(10, 0.01, 7)
    axes = plots.phase_portrait(game, path=betas)
    points = np.array([nl.solve(game.with_beta(float(beta))).policy for beta in betas])
    line = axes.lines[0]
    np.testing.assert_allclose(line.get_xydata(), points @ CORNERS, atol=1e-9)
    dots = [dot.get_xydata()[0] for dot in axes.lines if dot.get_gid() == "beta"]
    np.testing.assert_allclose(dots, points[[0, 2, 4, 6]] @ CORNERS, atol=1e-9)
    assert [text.get_text() for text in axes.texts][:2] == [r"$\beta = 10$", r"$\beta = 0.01$"]
    words = [text.get_text() for text in plots.phase_portrait(game, path=[3e4, 1e-12]).texts]
    assert words[:2] == [r"$\beta = 30000$", r"$\beta = 10^{-12}$"]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "flat axes": (lambda: plots.streamlines(cycle, ax=Figure().add_subplot()), "ax must be ternary"),
    "spacing": (lambda: plots.streamlines(cycle, spacing=0.001), "spacing = 0.001 must lie between 0.02 and 0.5"),
    "arrows": (lambda: plots.streamlines(cycle, arrowsize=-1), "arrowsize = -1 must lie between"),
    "shape": (lambda: plots.streamlines(lambda points: points[:, 0]), "must return one velocity a point"),
    "zero": (lambda: plots.streamlines(lambda points: 0 * points), "zero or no finite number everywhere"),
    "nan": (lambda: plots.streamlines(lambda points: np.nan * points), "zero or no finite number everywhere"),
    "field_of": (lambda: portrait(field="NashMD", field_of="steps"), "field_of = 'steps' is unknown; did you mean 'step'"),
    "field_as": (lambda: portrait(field="NashMD", field_as="lines"), "field_as = 'lines' is unknown"),
    "no flow": (lambda: portrait(field="MagnetRefresh"), "has no continuous-time limit"),
    "path": (lambda: portrait(path=[-1.0]), "betas must be a list of numbers none of which is negative"),
    "path of others": (
        lambda: portrait(path=[nl.solve(nl.datasets.load(beta=1.0))]),
        "path must hold equilibria of a game with three",
    ),
}


def portrait(**options: Any) -> Any:
    return plots.phase_portrait(nl.games.rock_paper_scissors(beta=0.1), **options)


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused(name: str) -> None:
    attempt, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence):
        attempt()
