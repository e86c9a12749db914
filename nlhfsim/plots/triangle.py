"""Phase portraits of games with three actions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.equilibrium import Equilibrium, solve_path
from nlhfsim.errors import Array, InputError, ProvenRangeWarning, ensure_array, ensure_choice
from nlhfsim.flow import with_flow
from nlhfsim.games.game import PreferenceGame
from nlhfsim.plots.style import SINGLE, axes_or_new, ensure_ternary, ensure_trajectories, legend, looks_of, names_of, style
from nlhfsim.plots.streamlines import Field, streamlines
from nlhfsim.simplex import expect
from nlhfsim.simulate import simulate
from nlhfsim.trajectory import Records

_PATH = "0.35"


def phase_portrait(
    game: PreferenceGame,
    trajectories: Records | Sequence[Records] = (),
    *,
    equilibrium: Equilibrium | None = None,
    path: Sequence[Equilibrium] | npt.ArrayLike | None = None,
    field: Any = None,
    field_of: str = "flow",
    field_as: str = "arrows",
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
    path : array_like or sequence of Equilibrium, optional
        The equilibria over β as a grey line: for values of β, which are solved for here, with a dot at every power of ten and the
        first and the last β beside the ends; or equilibria as `nlhfsim.solve_path` returns them.
    field : Dynamics, factory or str, optional
        A method whose vector field is drawn.
    field_of : str
        ``"flow"``: its continuous-time limit (see `nlhfsim.flow`), of ``"NaturalPG"``, ``π̇ = π∘(u - ⟨π, u⟩)`` with ``u = Aπ - β
        log(π/ρ)``, of ``"SelfPlayPG"``, ``π̇ = J(π) J(π) u``, …; ``"step"``: where one exact step, the first of a run, moves a
        policy, which every method has.
    field_as : str
        ``"arrows"``, all of one length, or ``"streamlines"`` (see `streamlines`).
    ax : mpltern axes, optional
        From ``figure.add_subplot(projection="ternary")``. Default: a new figure, one column wide.

    Raises
    ------
    InputError
        If the game has another number of actions or several contexts, a trajectory does not belong or kept no policies, or the
        method has no limit.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, bias=-0.2, beta=0.05)
    >>> axes = nl.plots.phase_portrait(game, field="NashMD", field_of="step", field_as="streamlines", path=[10.0, 1.0, 0.1, 0.01])
    """
    chosen = ensure_trajectories(trajectories, least=0)
    ensure_choice("field_of", field_of, _FIELDS)
    ensure_choice("field_as", field_as, ("arrows", "streamlines"))
    _ensure_triangle(game, chosen, equilibrium, ax)
    betas, equilibria = _path(game, path)
    with style():
        axes = axes_or_new(ax, (SINGLE, 2.85 + 0.15 * (len(chosen) + (path is not None))), "compressed", projection="ternary")
        if field is not None:
            _draw_field(axes, _FIELDS[field_of](game, field), field_as)
        if equilibria:
            _draw_path(axes, betas, np.stack([item.policy for item in equilibria]))
        for trajectory, look in zip(chosen, looks_of(chosen)):
            _draw_orbit(axes, trajectory, **look)
        if equilibrium is not None:
            star: dict[str, Any] = {"markersize": 9, "markerfacecolor": "#F0E442", "markeredgecolor": "k", "markeredgewidth": 0.6}
            axes.plot(*equilibrium.policy[:, None], "*", zorder=5, label=r"equilibrium $\pi^*$", **star)
        _draw_corners(axes, names_of(game))
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


def displacement(game: PreferenceGame, policies: Array, method: Any) -> Array:
    """Return π_1 - π_0 of the first exact step of a method from policies ``(k, n)`` inside the simplex."""
    with warnings.catch_warnings():
        # What one step does is drawn, whether or not many of them are proven to converge.
        warnings.simplefilter("ignore", ProvenRangeWarning)
        run = simulate(game, method, 1, start=policies, equilibrium=False, keep_policies="final", compiled=False)
    assert run.final is not None
    return np.asarray(run.final - policies)


def _flow_of(game: PreferenceGame, method: Any) -> Field:
    return lambda policies: flow(game, policies, method)


def _step_of(game: PreferenceGame, method: Any, cells: int = 64, margin: float = 1e-3) -> Field:
    """Return the displacement of one step, computed once on a lattice and linear on the triangles between its points."""
    i, j = (index.ravel() for index in np.indices((cells + 1, cells + 1)))
    i, j = i[i + j <= cells], j[i + j <= cells]
    lattice = np.stack([i, j, cells - i - j], axis=1) / cells
    moves = np.zeros((cells + 2, cells + 2, 3))
    moves[i, j] = displacement(game, margin + (1 - 3 * margin) * lattice, method)

    def field(policies: Array) -> Array:
        inside = np.maximum((policies - margin) / (1 - 3 * margin), 0.0)
        place = cells * inside[:, :2] / inside.sum(axis=1, keepdims=True)
        corner = np.minimum(place.astype(int), cells)
        # In the far half of a cell the weights are those towards the far corner.
        share = place - corner
        far = share.sum(axis=1) > 1
        share = np.where(far[:, None], 1 - share[:, ::-1], share)
        sides = corner + [1, 0], corner + [0, 1]
        base = corner + far[:, None]
        values = [moves[tuple(points.T)] for points in (base, *sides)]
        weights = 1 - share.sum(axis=1), share[:, 0], share[:, 1]
        return np.asarray(sum(weight[:, None] * value for weight, value in zip(weights, values)))

    return field


_FIELDS = {"flow": _flow_of, "step": _step_of}


def _draw_field(axes: Any, field: Field, drawn_as: str, cells: int = 17) -> None:
    if drawn_as == "streamlines":
        streamlines(field, ax=axes, color="0.68", zorder=0)
        return
    grid = np.array([(i, j, cells - i - j) for i in range(1, cells) for j in range(1, cells - i)]) / cells
    moves = field(grid)
    lengths = np.linalg.norm(moves, axis=1, keepdims=True)
    arrows = np.divide(moves, lengths, out=np.zeros_like(moves), where=lengths > 0)
    shape = {"width": 0.0035, "headwidth": 4.5, "headlength": 5, "headaxislength": 4.5}
    axes.quiver(*grid.T, *arrows.T, color="0.65", pivot="mid", scale=24, zorder=0, **shape)


def _path(game: PreferenceGame, path: Any) -> tuple[Array | None, list[Equilibrium]]:
    """Return the values of β, if they are known, and their equilibria."""
    if path is None:
        return None, []
    if not isinstance(path, np.ndarray) and any(isinstance(item, Equilibrium) for item in path):
        if not all(isinstance(item, Equilibrium) and item.policy.shape == (3,) for item in path):
            raise InputError("path must hold equilibria of a game with three actions, or values of β, and nothing else")
        return None, list(path)
    betas = np.atleast_1d(ensure_array("path", path))
    return betas, solve_path(game, betas)


def _draw_path(axes: Any, betas: Array | None, policies: Array) -> None:
    axes.plot(*policies.T, "-", color=_PATH, linewidth=1.8, zorder=2.5, label=r"equilibria over $\beta$")
    if betas is None:
        return
    from matplotlib.patheffects import withStroke

    positive = betas > 0
    exponents = np.log10(betas, out=np.full(len(betas), 0.5), where=positive)
    ends = {0, len(betas) - 1}
    for k in sorted(ends | set(np.flatnonzero(np.isclose(exponents, exponents.round(), atol=1e-6)))):
        axes.plot(*policies[k : k + 1].T, "o", color=_PATH, markersize=3.2, markeredgewidth=0, zorder=2.6, gid="beta")
    for k in sorted(ends):
        # Beside the end, on the side away from the rest of the path.
        rest = axes.transProjection.transform(axes.ternary_sum * policies.mean(axis=0)[None])[0]
        place = axes.transProjection.transform(axes.ternary_sum * policies[k : k + 1])[0]
        right = place[0] >= rest[0]
        halo = [withStroke(linewidth=2.2, foreground="w")]
        look: dict[str, Any] = {"fontsize": 7, "color": "0.25", "va": "center", "ha": "left" if right else "right"}
        power = float(exponents[k])
        round_power = abs(power) > 3.5 and abs(power - round(power)) < 1e-9
        words = rf"$\beta = 10^{{{round(power)}}}$" if round_power else rf"$\beta = {betas[k]:g}$"
        axes.annotate(words, place, (6 if right else -6, 0), textcoords="offset points", path_effects=halo, zorder=6, **look)


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
    if ax is not None:
        ensure_ternary(ax)
