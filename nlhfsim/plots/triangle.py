"""Phase portraits of games with three actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import Array, InputError
from nlhfsim.flow import with_flow
from nlhfsim.games.game import PreferenceGame
from nlhfsim.plots.style import SINGLE, axes_or_new, ensure_trajectories, legend, looks_of, style
from nlhfsim.simplex import expect
from nlhfsim.trajectory import Records


def phase_portrait(
    game: PreferenceGame,
    trajectories: Records | Sequence[Records] = (),
    *,
    equilibrium: Equilibrium | None = None,
    path: Sequence[Equilibrium] | None = None,
    field: Any = None,
    ax: Any = None,
) -> Any:
    """Draw policies of a game with three actions as points of the triangle, and return the (ternary) axes.

    Parameters
    ----------
    game : PreferenceGame
        Three actions, one context.
    trajectories : Trajectory, Flow, or sequence of either
        Runs on that game that kept all policies: a curve each, with a dot at every record and a ring at the start.
    equilibrium : Equilibrium, optional
        A star.
    path : sequence of Equilibrium, optional
        The equilibria at several β, from `nlhfsim.solve_path`: a grey line.
    field : Dynamics, factory or str, optional
        Arrows, all of one length, along the flow of a method that has one (see `nlhfsim.flow`): of ``"NaturalPG"``, ``π̇ =
        π∘(u - ⟨π, u⟩)`` with ``u = Aπ - β log(π/ρ)``, of ``"SelfPlayPG"``, ``π̇ = J(π) J(π) u``, …
    ax : mpltern axes, optional
        From ``figure.add_subplot(projection="ternary")``. Default: a new figure, one column wide.

    Raises
    ------
    InputError
        If the game has another number of actions or several contexts, or a trajectory does not belong or kept no policies.
    """
    chosen = ensure_trajectories(trajectories, least=0)
    _ensure_triangle(game, chosen, equilibrium, ax)
    with style():
        axes = axes_or_new(ax, (SINGLE, 2.85 + 0.15 * (len(chosen) + (path is not None))), "compressed", projection="ternary")
        if field is not None:
            _draw_field(axes, game, field)
        if path is not None:
            points = np.stack([item.policy for item in path])
            axes.plot(*points.T, "-", color="0.45", linewidth=1.6, label="equilibria over β")
        for trajectory, look in zip(chosen, looks_of(chosen)):
            _draw_orbit(axes, trajectory, **look)
        if equilibrium is not None:
            star: dict[str, Any] = {"markersize": 9, "markerfacecolor": "#F0E442", "markeredgecolor": "k", "markeredgewidth": 0.6}
            axes.plot(*equilibrium.policy[:, None], "*", zorder=5, label=r"equilibrium $\pi^*$", **star)
        _draw_corners(axes, game.labels)
        legend(axes, axes.get_legend_handles_labels()[0], "below")
    return axes


def _draw_orbit(axes: Any, trajectory: Records, **look: Any) -> None:
    assert trajectory.log_policies is not None
    for run, policies in enumerate(np.exp(trajectory.log_policies)):
        named = look if run == 0 else look | {"label": None}
        axes.plot(*policies.T, linewidth=0.7, marker=".", markersize=2, **named)
        axes.plot(*policies[:1].T, "o", color=look["color"], markerfacecolor="w", markersize=4.5, zorder=4, gid="start")


def _draw_corners(axes: Any, labels: Sequence[str]) -> None:
    """Name the corners and mark every fifth of the sides."""
    for axis in (axes.taxis, axes.laxis, axes.raxis):
        axis.set_ticks(np.linspace(0.2, 0.8, 4), labels=[""] * 4)
    axes.grid(True, color="0.92", linewidth=0.5, zorder=-1)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
    for corner, name, place in zip(np.eye(3), labels, ("bottom", "top", "top")):
        axes.text(*(corner + 0.04 * (corner - 1 / 3)), name, ha="center", va=place, parse_math=False)


def flow(game: PreferenceGame, policies: Array, method: Any) -> Array:
    """Return dπ/dt of the flow of a method at policies ``(..., n)`` inside the simplex of a game with one context."""
    dynamics = with_flow(method)
    assert dynamics.method.flow is not None
    velocity = dynamics.method.flow(game.contexts[0], dynamics.params, np.log(policies))
    return np.asarray(policies * (velocity - expect(policies, velocity)))


def _draw_field(axes: Any, game: PreferenceGame, method: Any, cells: int = 17) -> None:
    grid = np.array([(i, j, cells - i - j) for i in range(1, cells) for j in range(1, cells - i)]) / cells
    moves = flow(game, grid, method)
    lengths = np.linalg.norm(moves, axis=1, keepdims=True)
    arrows = np.divide(moves, lengths, out=np.zeros_like(moves), where=lengths > 0)
    shape = {"width": 0.0035, "headwidth": 4.5, "headlength": 5, "headaxislength": 4.5}
    axes.quiver(*grid.T, *arrows.T, color="0.65", pivot="mid", scale=24, zorder=0, **shape)


def _ensure_triangle(game: PreferenceGame, trajectories: Sequence[Records], equilibrium: Any, ax: Any) -> None:
    if game.n != 3 or game.batched:
        what = f"{game.n} actions" + (" in a game with contexts" if game.batched else "")
        raise InputError(
            f"game has {what}; a phase portrait needs three actions and one context (see game.restrict, game.context)"
        )
    for item in [*trajectories, *([] if equilibrium is None else [equilibrium])]:
        name = item.dynamics if isinstance(item, Records) else "equilibrium"
        if item.fingerprint != game.fingerprint:
            raise InputError(f"{name} is of another game; a phase portrait shows one game")
        if isinstance(item, Records) and item.log_policies is None:
            raise InputError(f"the trajectory of {name} kept no policies; run it with keep_policies='all'")
    if ax is not None and not hasattr(ax, "set_tlabel"):
        raise InputError("ax must be ternary, from figure.add_subplot(projection='ternary') after importing mpltern")
