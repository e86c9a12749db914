"""Figures of majorities: arrows lead from winner to loser, nodes have the equilibrium's areas, and cycles are where they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import nlhfsim as nl
from nlhfsim import plots
from nlhfsim.errors import InputError
from nlhfsim.games import majority_cycles
from nlhfsim.plots.graph import _around

ORANGE = "#D55E00"
ANYTHING: Any = "all"


def two_cycles() -> nl.PreferenceGame:
    """a, b, c go round and beat all others; e, f, g go round; d beats e, f and g."""
    matrix = np.full((7, 7), 0.5)
    ring = nl.games.rock_paper_scissors(margin=0.3).preferences
    matrix[:3, :3] = matrix[4:, 4:] = ring
    matrix[:3, 3:], matrix[3:, :3] = 0.8, 0.2
    matrix[3, 4:], matrix[4:, 3] = 0.6, 0.4
    return nl.PreferenceGame(matrix, 0.1, labels=list("abcdefg"))


def with_ties(n: int, seed: int) -> nl.PreferenceGame:
    upper = np.triu(np.random.default_rng(seed).choice([-0.4, -0.1, 0.0, 0.1, 0.4], (n, n)), 1)
    return nl.PreferenceGame(upper - upper.T + 0.5, 0.1)


def arrows(axes: Any, gid: str = "majority") -> dict[tuple[int, int], Any]:
    """Return the arrows by the actions that they lead between, told by the places of the nodes."""
    places = nodes(axes).get_offsets()

    def action(point: Any) -> int:
        return int(np.argmin(np.linalg.norm(places - point, axis=1)))

    found = [patch for patch in axes.patches if patch.get_gid() == gid]
    return {tuple(action(end) for end in patch._posA_posB): patch for patch in found}


def nodes(axes: Any) -> Any:
    (found,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_an_arrow_leads_from_the_preferred_action(seed: int) -> None:
    game = with_ties(6, seed)
    axes = plots.tournament(game)
    wins = {(i, j) for i, j in itertools.permutations(range(6), 2) if game.preferences[i, j] > 0.5}
    found = arrows(axes)
    assert set(found) == wins
    ties = {(i, j) for i, j in itertools.combinations(range(6), 2) if game.preferences[i, j] == 0.5}
    assert {tuple(sorted(pair)) for pair in arrows(axes, "tie")} == ties
    widths = {round(float(game.preferences[pair]), 9): patch.get_linewidth() for pair, patch in found.items()}
    assert widths[0.9] > widths[0.6]


def test_the_strongest_cycle_is_coloured_and_the_top_cycle_filled() -> None:
    game = two_cycles()
    axes = plots.tournament(game)
    coloured = {pair for pair, patch in arrows(axes).items() if to_rgb(patch.get_edgecolor()) == to_rgb(ORANGE)}
    strongest = nl.games.strongest_cycle(game)
    assert strongest is not None
    a, b, c = (game.labels.index(label) for label in strongest)
    assert coloured == {(a, b), (b, c), (c, a)} and all(game.preferences[pair] > 0.5 for pair in coloured)
    blue = [tuple(colour) == (*to_rgb("#0072B2"), 1.0) for colour in nodes(axes).get_facecolors()]
    assert blue == [label in "abc" for label in game.labels]
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["preferred with 60%", "preferred with 80%", "strongest three-cycle", "top cycle"]


def test_areas_are_the_probabilities_and_the_likeliest_stands_at_the_top() -> None:
    game = nl.datasets.load(beta=0.05)
    policy = nl.solve(game).policy
    axes = plots.tournament(game)
    areas = nodes(axes).get_sizes()
    np.testing.assert_allclose(areas / areas.sum(), policy, rtol=1e-9)
    np.testing.assert_allclose(nodes(axes).get_offsets()[np.argmax(policy)], [0, 1], atol=1e-12)
    shown = [text.get_text().replace("\n", " ") for text in axes.texts]
    assert shown == [f"{label} {share:.2f}" for label, share in zip(game.labels, policy)]


@pytest.mark.parametrize("seed", range(10))
def test_the_order_is_the_best_around_or_near_it(seed: int) -> None:
    """Of all orders of six actions; a lone cycle is found exactly."""
    advantages = nl.games.random_game(6, seed, "uniform").advantages

    def value(order: Any) -> float:
        return float(advantages[list(order), np.roll(order, -1)].sum())

    best = max(value((0, *rest)) for rest in itertools.permutations(range(1, 6)))
    order = _around(advantages, 0)
    assert order[0] == 0 and sorted(order) == list(range(6)) and value(order) > 0.85 * best


@pytest.mark.parametrize("n", [3, 5, 8])
def test_a_circle_of_actions_goes_round_clockwise(n: int) -> None:
    matrix = np.full((n, n), 0.5)
    shuffled = np.random.default_rng(n).permutation(n)
    for winner, loser in zip(shuffled, np.roll(shuffled, -1)):
        matrix[winner, loser], matrix[loser, winner] = 0.9, 0.1
    axes = plots.tournament(nl.PreferenceGame(matrix, 0.1))
    places = nodes(axes).get_offsets()
    for winner, loser in arrows(axes):
        turn = np.cross([*places[winner], 0], [*places[loser], 0])[2]
        assert turn < 0 and np.linalg.norm(places[winner] - places[loser]) == pytest.approx(2 * np.sin(np.pi / n))


def test_of_many_actions_the_likeliest_are_drawn() -> None:
    game = nl.games.random_game(30, 1, "uniform", beta=0.05)
    policy = nl.solve(game).policy
    axes = plots.tournament(game, at_most=9)
    assert axes.get_title() == "The 9 likeliest of 30 actions" and len(arrows(axes)) == 36
    likeliest = {game.labels[i] for i in np.argsort(policy)[-9:]}
    assert {text.get_text().split()[0] for text in axes.texts} == likeliest


def test_a_lone_action_is_drawn_and_given_axes_are_used() -> None:
    axes = Figure().add_subplot()
    assert plots.tournament(nl.PreferenceGame([[0.5]], 0.1), ax=axes) is axes
    assert len(nodes(axes).get_offsets()) == 1


def test_long_names_are_cut_and_stay_different() -> None:
    labels = ["An answer that goes on and on", "An answer that goes on elsewhere", "no", "twenty letters, $x_1$"]
    game = nl.PreferenceGame(np.full((4, 4), 0.5), 0.1, labels=labels)
    shown = [text.get_text() for text in plots.preferences(game).get_yticklabels()]
    assert shown == ["An answer that goes…0", "An answer that goes…1", "no", "twenty letters, $x_…"]
    plots.preferences(game).figure.draw_without_rendering()


def outlined(axes: Any) -> list[set[tuple[int, int]]]:
    """Return for each outline the cells inside it, by counting the sides to the left of each."""
    found = []
    n = axes.images[0].get_array().shape[0]
    for collection in (c for c in axes.collections if isinstance(c, LineCollection)):
        upright = {tuple(s[0]) for s in collection.get_segments() if s[0][0] == s[1][0]}
        found.append({(i, j) for i in range(n) for j in range(n) if sum((k - 0.5, i - 0.5) in upright for k in range(j + 1)) % 2})
    return found


@pytest.mark.parametrize("order", [range(7), [0, 4, 1, 5, 2, 6, 3]])
def test_majority_cycles_are_outlined_in_the_matrix(order: Any) -> None:
    game, order = two_cycles(), list(order)
    axes = plots.preferences(game, order=order)
    expected = [{(order.index(i), order.index(j)) for i in circle for j in circle} for circle in ((0, 1, 2), (4, 5, 6))]
    assert outlined(axes) == expected
    frames = [patch.get_xy() for patch in axes.patches if patch.get_gid() == "three-cycle"]
    cells = [(order[round(y + 0.44)], order[round(x + 0.44)]) for x, y in frames]
    assert len(cells) == 3 and all(game.preferences[cell] == 0.8 for cell in cells)
    assert sorted(i for i, _ in cells) == sorted(j for _, j in cells) == [0, 1, 2]
    assert not plots.preferences(game, cycles=False).collections


def test_a_matrix_without_cycles_is_left_alone() -> None:
    axes = plots.preferences(nl.datasets.load("mtbench", beta=0.05))
    assert not axes.collections and not axes.patches and axes.get_legend() is None


def test_majority_cycles_are_the_strong_components() -> None:
    assert majority_cycles(two_cycles()) == (("a", "b", "c"), ("e", "f", "g"))
    assert majority_cycles(two_cycles().restrict(list("gdeacfb"))) == (("a", "c", "b"), ("g", "e", "f"))
    for seed in range(20):
        game = with_ties(6, seed)
        reach = np.linalg.matrix_power((game.advantages > 0).astype(int) + np.eye(6, dtype=int), 6) > 0
        both = reach & reach.T
        expected = {tuple(game.labels[j] for j in np.flatnonzero(both[i])) for i in range(6) if both[i].sum() > 1}
        assert set(majority_cycles(game)) == expected
        assert bool(expected) == nl.games.has_majority_cycle(game)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "contexts": (lambda: plots.tournament(contexts()), r"draw one of them: tournament\(game.context\(0\)\)"),
    "cycles of contexts": (lambda: majority_cycles(contexts()), "game has contexts"),
    "no game": (lambda: plots.tournament("rps"), "game"),
    "one": (lambda: plots.tournament(two_cycles(), at_most=1), "at_most = 1 must be at least 2"),
    "too many": (lambda: plots.tournament(two_cycles(), at_most=100), "at_most = 100 must be at most 40"),
    "other game": (lambda: plots.tournament(two_cycles(), equilibrium=ring()), "equilibrium is of another game"),
    "order of another": (lambda: plots.preferences(two_cycles(), order=ring()), r"shape \(3,\), must be \(7,\)"),
    "cycles": (lambda: plots.preferences(two_cycles(), cycles=ANYTHING), "cycles = 'all' must be True or False"),
}


def contexts() -> nl.PreferenceGame:
    return nl.PreferenceGame(np.stack([nl.games.rock_paper_scissors().preferences] * 2), 0.05)


def ring() -> nl.Equilibrium:
    return nl.solve(contexts().context(0))


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused(name: str) -> None:
    attempt, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence):
        attempt()
