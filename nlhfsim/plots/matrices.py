"""Preferences as a heat map, policies as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import InputError, ensure_distribution, ensure_flag
from nlhfsim.games.diagnostics import majority_cycles, strongest_cycle
from nlhfsim.games.game import PreferenceGame
from nlhfsim.plots.style import DOUBLE, METHOD_COLOURS, SINGLE, axes_or_new, finish, legend, names_of, style

_THREE = "#D55E00"
_ACROSS = 40
"""Letters of labels that stand side by side under a figure of one column."""
_LABELLED = 40
"""Up to so many actions are named, and their strongest three-cycle marked."""


def preferences(
    game: PreferenceGame, *, order: Equilibrium | Sequence[int] | None = None, cycles: bool = True, ax: Any = None
) -> Any:
    """Draw P as a heat map, white at 1/2, with the numbers (in %) up to 15 actions, and return the axes.

    Parameters
    ----------
    game : PreferenceGame
        One context.
    order : Equilibrium or sequence of int, optional
        The order of the actions: by decreasing probability in an equilibrium, or as given.
    cycles : bool
        Whether to mark where majorities go round: a black outline about the actions of each cycle (see
        `nlhfsim.games.majority_cycles`), and frames about the three cells of the strongest three-cycle, whose rows beat their
        columns.
    ax : matplotlib axes, optional
        Where to draw. Default: a new figure.

    Raises
    ------
    InputError
        If the game has contexts, or the order is not one of its actions.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.datasets.load(beta=0.05)
    >>> axes = nl.plots.preferences(game, order=nl.solve(game))
    """
    if game.batched:
        raise InputError("game has contexts; draw one of them: preferences(game.context(0))")
    ensure_flag("cycles", cycles)
    if isinstance(order, Equilibrium) and order.policy.shape != (game.n,):
        raise InputError(f"order is an equilibrium of shape {order.policy.shape}, must be {(game.n,)}")
    chosen = np.argsort(-order.policy, kind="stable") if isinstance(order, Equilibrium) else _given(order, game.n)
    if sorted(chosen.tolist()) != list(range(game.n)):
        raise InputError(f"order must hold every action of the game once, 0 to {game.n - 1}")
    matrix = game.preferences[np.ix_(chosen, chosen)]
    from matplotlib.ticker import PercentFormatter

    reach = max(np.ceil(np.abs(matrix - 0.5).max() * 20) / 20, 0.05)
    with style():
        axes = axes_or_new(ax, (SINGLE, 2.8) if game.n <= 11 else (DOUBLE, 5.6), "compressed")
        image = axes.imshow(matrix, cmap="RdBu", vmin=0.5 - reach, vmax=0.5 + reach)
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.9, aspect=25, format=PercentFormatter(1.0, 0))
        bar.set_label("Row preferred to column")
        bar.ax.tick_params(labelsize=8, width=0.6, length=2)
        bar.outline.set_visible(False)
        names = [names_of(game)[i] for i in chosen] if game.n <= _LABELLED else []
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        if game.n <= 15:
            for (i, j), value in np.ndenumerate(matrix):
                tone = "w" if abs(value - 0.5) > 0.6 * reach else "k"
                axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=tone, fontsize=7)
        axes.tick_params(labelsize=8, length=0)
        axes.spines[:].set_visible(False)
        if cycles:
            _mark_cycles(axes, game, chosen)
    return axes


def _given(order: Any, n: int) -> npt.NDArray[np.intp]:
    return np.arange(n) if order is None else np.asarray(order)


def _mark_cycles(axes: Any, game: PreferenceGame, order: npt.NDArray[np.intp]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    place = {game.labels[action]: k for k, action in enumerate(order)}
    handles: list[Any] = []
    for circle in majority_cycles(game):
        cells = np.zeros((game.n, game.n), dtype=bool)
        cells[np.ix_(*[[place[label] for label in circle]] * 2)] = True
        axes.add_collection(LineCollection(_outline(cells), colors="k", linewidths=1.4, capstyle="projecting", clip_on=False))
        handles[:] = [Rectangle((0, 0), 1, 1, fill=False, edgecolor="k", linewidth=1.4, label="majority cycle")]
    three = strongest_cycle(game) if game.n <= _LABELLED else None
    if three is not None:
        look: dict[str, Any] = {"fill": False, "edgecolor": _THREE, "linewidth": 1.6}
        for winner, loser in zip(three, (*three[1:], three[0])):
            axes.add_patch(Rectangle((place[loser] - 0.44, place[winner] - 0.44), 0.88, 0.88, gid="three-cycle", **look))
        handles.append(Rectangle((0, 0), 1, 1, label="strongest three-cycle", **look))
    legend(axes, handles, "above")


def _outline(cells: npt.NDArray[np.bool_]) -> list[list[tuple[float, float]]]:
    """Return the sides between cells that are in a set and those that are not, in the coordinates of an image."""
    padded = np.pad(cells, 1)
    sides = []
    for i, j in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        sides.append([(j - 0.5, i - 0.5), (j + 0.5, i - 0.5)])
    for i, j in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        sides.append([(j - 0.5, i - 0.5), (j - 0.5, i + 0.5)])
    return sides


def policy_bars(game: PreferenceGame, policies: Mapping[str, npt.ArrayLike], ax: Any = None) -> Any:
    """Draw policies of a game with one context side by side, a group of bars an action, and return the axes.

    Actions stand in the order of their probability in the first policy.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.datasets.load(beta=0.05)
    >>> axes = nl.plots.policy_bars(game, {"equilibrium": nl.solve(game).policy, "reference": game.reference})
    """
    if game.batched or not policies:
        raise InputError("policy_bars needs a game with one context (see game.context) and at least one policy")
    rows = {name: ensure_distribution(name, row, (game.n,), full_support=False) for name, row in policies.items()}
    order = np.argsort(-next(iter(rows.values())), kind="stable")
    width, spare = 0.8 / len(rows), ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#888888", "#882255")
    with style():
        axes = axes_or_new(ax, (SINGLE if game.n <= 11 else DOUBLE, 2.3))
        for k, (name, row) in enumerate(rows.items()):
            left = np.arange(game.n) - 0.4 + k * width
            colour = METHOD_COLOURS.get(name, spare[k % len(spare)])
            axes.bar(left, row[order], width, align="edge", color=colour, edgecolor="w", label=name)
        names = [names_of(game)[i] for i in order]
        crowded = game.n > 3 or game.n * max(map(len, names)) > _ACROSS
        tilt: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(range(game.n), names, parse_math=False, **tilt)
        axes.set_ylabel("Probability")
        finish(axes)
        legend(axes, axes.get_legend_handles_labels()[0], "above")
    return axes
