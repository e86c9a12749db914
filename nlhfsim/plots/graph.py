"""The majorities of a game as a graph: who beats whom, by how much, and where that goes round."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nlhfsim.equilibrium import Equilibrium, solve
from nlhfsim.errors import Array, InputError, ensure_integer
from nlhfsim.games.diagnostics import strongest_cycle, top_cycle
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.plots.style import SINGLE, axes_or_new, legend, names_of, style

_TOP, _OTHER, _CYCLE = "#0072B2", "0.62", "#D55E00"
_AREA = 900.0
"""Of a node with probability 1, in square points."""
_TIE = 1e-12


def tournament(game: PreferenceGame, *, equilibrium: Equilibrium | None = None, at_most: int = 12, ax: Any = None) -> Any:
    """Draw the majorities of a game as a graph on a circle, and return the axes.

    An arrow leads from the action that is preferred to the other, the wider and darker the larger the margin; a tie is a dotted
    line. The area of a node is its probability in the equilibrium. Actions stand so that, as far as possible, each beats the next
    one clockwise, the likeliest at the top: where majorities go round, they are seen to. The strongest three-cycle is coloured.

    Parameters
    ----------
    game : PreferenceGame
        One context.
    equilibrium : Equilibrium, optional
        Default: solved here.
    at_most : int
        Of more actions the likeliest so many are drawn (2 to 40), and the title says so.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure, one column wide.

    Raises
    ------
    InputError
        If the game has contexts, or the equilibrium is not one of this game.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> axes = nl.plots.tournament(nl.datasets.load(beta=0.05))
    >>> sum(patch.get_gid() == "majority" for patch in axes.patches)
    10
    """
    ensure_game(game)
    most = ensure_integer("at_most", at_most, 2, 40)
    if game.batched:
        raise InputError("game has contexts; draw one of them: tournament(game.context(0))")
    if equilibrium is not None and equilibrium.fingerprint != game.fingerprint:
        raise InputError("equilibrium is of another game")
    policy = (solve(game) if equilibrium is None else equilibrium).policy
    shown = np.sort(np.argsort(-policy, kind="stable")[:most])
    part = game.restrict([int(action) for action in shown]) if len(shown) < game.n else game
    graph = _Graph(part, policy[shown], _around(part.advantages, int(np.argmax(policy[shown]))))
    with style():
        axes = axes_or_new(ax, (SINGLE, 3.3), "compressed")
        _draw_edges(axes, graph)
        _draw_nodes(axes, graph)
        axes.set_xlim(-1.12, 1.12)
        axes.set_ylim(-1.12, 1.12)
        axes.set_aspect("equal")
        axes.set_axis_off()
        if part.n < game.n:
            axes.set_title(f"The {part.n} likeliest of {game.n} actions", fontsize=8, pad=16)
        legend(axes, _keys(graph), "below")
    return axes


class _Graph(NamedTuple):
    """What is drawn: the game, its policy, and the actions in their order clockwise from the top."""

    game: PreferenceGame
    policy: Array
    order: list[int]

    @property
    def places(self) -> Array:
        """Where each action stands on the unit circle, ``(n, 2)``."""
        places = np.empty((self.game.n, 2))
        angles = np.pi / 2 - 2 * np.pi * np.arange(self.game.n) / self.game.n
        places[self.order] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return places

    @property
    def areas(self) -> Array:
        """Of the nodes, in square points."""
        return np.maximum(_AREA * self.policy, 14.0)

    @property
    def cycle(self) -> set[tuple[int, int]]:
        """The edges of the strongest three-cycle."""
        three = strongest_cycle(self.game)
        if three is None:
            return set()
        a, b, c = (self.game.labels.index(label) for label in three)
        return {(a, b), (b, c), (c, a)}

    def width(self, margin: float) -> float:
        """Return the width of an edge, in points, for P - 1/2; where there are many, they are thinner."""
        return (0.4 + 3.6 * margin) * min(1.0, 7 / self.game.n)


def _around(advantages: Array, first: int) -> list[int]:
    """Return an order of the actions around a circle in which each beats the next by as much as possible, in sum.

    Nearest neighbour from the first, then actions are moved, one at a time, as long as that helps.
    """
    n = len(advantages)
    order = [first]
    while len(order) < n:
        left = [k for k in range(n) if k not in order]
        order.append(left[int(np.argmax(advantages[order[-1], left]))])
    while n > 3:
        moved = [
            others[:k] + [one] + others[k:] for one in order for others in [[a for a in order if a != one]] for k in range(n)
        ]
        tours = np.array(moved)
        gains = advantages[tours, np.roll(tours, -1, axis=1)].sum(axis=1)
        best = int(np.argmax(gains))
        if gains[best] <= advantages[order, np.roll(order, -1)].sum() + 1e-12:
            break
        order = moved[best]
    if n == 3 and advantages[order, np.roll(order, -1)].sum() < 0:
        order.reverse()
    start = order.index(first)
    return order[start:] + order[:start]


def _draw_edges(axes: Any, graph: _Graph) -> None:
    from matplotlib.patches import FancyArrowPatch

    advantages, places = graph.game.advantages, graph.places
    radii, cycle = np.sqrt(graph.areas) / 2 + 1.0, graph.cycle
    few = graph.game.n <= 8
    pairs: list[tuple[int, int]] = sorted(zip(*np.triu_indices(graph.game.n, 1)), key=lambda pair: abs(advantages[pair]))
    for i, j in pairs:
        winner, loser = (i, j) if advantages[i, j] > 0 else (j, i)
        margin, around = abs(float(advantages[i, j])), (winner, loser) in cycle
        look: dict[str, Any] = {"shrinkA": radii[winner], "shrinkB": radii[loser], "zorder": 2.0 if around else 1.0}
        if margin <= _TIE:
            look |= {"arrowstyle": "-", "linestyle": (0, (1, 2)), "linewidth": 0.7, "color": "0.6", "gid": "tie"}
        else:
            shade = _CYCLE if around else _shade(margin)
            look |= {"arrowstyle": "-|>", "mutation_scale": 7 if few else 5, "color": shade}
            look |= {"linewidth": max(graph.width(margin), 1.2) if around else graph.width(margin)}
            look |= {"gid": "majority", "joinstyle": "miter"}
        axes.add_patch(FancyArrowPatch(places[winner], places[loser], **look))


def _shade(margin: float) -> str:
    return str(0.8 - margin)


def _draw_nodes(axes: Any, graph: _Graph) -> None:
    places, areas = graph.places, graph.areas
    top = set(top_cycle(graph.game))
    colours = [_TOP if label in top else _OTHER for label in graph.game.labels]
    axes.scatter(*places.T, s=areas, c=colours, edgecolors="w", linewidths=0.6, zorder=3, clip_on=False, gid="actions")
    size = 8 if graph.game.n <= 14 else 6.5
    for label, share, (x, y), area in zip(names_of(graph.game), graph.policy, places, areas):
        away = np.sqrt(area) / 2 + 3
        side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
        height = "center" if abs(y) < 0.8 else "bottom" if y > 0 else "top"
        number = f"{share:.2f}" if share >= 0.005 else "<0.01"
        words = f"{label} {number}" if graph.game.n > 8 or abs(y) > 0.8 else f"{label}\n{number}"
        look: dict[str, Any] = {"ha": side, "va": height, "fontsize": size, "linespacing": 1.05, "parse_math": False}
        axes.annotate(words, (x, y), (away * x, away * y), textcoords="offset points", annotation_clip=False, **look)


def _keys(graph: _Graph) -> list[Any]:
    from matplotlib.lines import Line2D

    margins = graph.game.advantages[graph.game.advantages > _TIE]
    handles: list[Any] = []
    if len(margins):
        for margin in sorted({float(margins.min().round(9)), float(margins.max().round(9))}):
            words = f"preferred with {50 + 100 * margin:.3g}%"
            handles.append(Line2D([], [], color=_shade(margin), linewidth=graph.width(margin), label=words))
    if graph.cycle:
        handles.append(Line2D([], [], color=_CYCLE, linewidth=1.5, label="strongest three-cycle"))
    if (np.abs(graph.game.advantages[np.triu_indices(graph.game.n, 1)]) <= _TIE).any():
        handles.append(Line2D([], [], color="0.6", linewidth=0.7, linestyle=(0, (1, 2)), label="tie"))
    dot: dict[str, Any] = {"color": _TOP, "marker": "o", "linestyle": "none", "markersize": 5}
    handles.append(Line2D([], [], label="top cycle" if len(top_cycle(graph.game)) > 1 else "Condorcet winner", **dot))
    return handles
