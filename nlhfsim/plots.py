"""Figures: convergence curves with proven rates, phase portraits on the simplex, preference matrices.

Every function takes an axes and returns it; without one it makes a figure of its own, outside of pyplot's state. Nothing
global is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nlhfsim.errors import Array, DataError, InputError, ensure_choice
from nlhfsim.simplex import log_softmax
from nlhfsim.trajectory import CLOCKS, METRICS, Trajectory

if TYPE_CHECKING:
    from nlhfsim.equilibrium import Equilibrium
    from nlhfsim.games.game import PreferenceGame

# Okabe–Ito and Tol colours; the line style tells apart what grey print would not.
METHOD_STYLES: dict[str, tuple[str, str]] = {
    "SelfPlayPG": ("#D55E00", "-"),
    "NaturalPG": ("#E69F00", "-"),
    "MagneticMirrorDescent": ("#AA7700", "--"),
    "NashMD": ("#CC79A7", "-"),
    "NashMirrorProx": ("#0072B2", "-"),
    "Extragradient": ("#56B4E9", "--"),
    "ProximalPoint": ("#000000", "-"),
    "ProximalPG": ("#009E73", "-"),
    "NashProx": ("#44AA99", "--"),
    "MultiplicativeWeights": ("#888888", "-"),
}
_SPARE = ("#332288", "#882255", "#117733", "#999933", "#661100", "#6699CC")
_FLOOR, _CEILING = 1e-31, 1e12
_LABELS = {
    "kl": "KL(π* ‖ π)",
    "exploitability": "exploitability $E_β$(π)",
    "gap0": "unregularized exploitability $E_0$(π)",
    "span": "span of log π − log ρ",
    "min_probability": "smallest probability",
}
_CLOCK_LABELS = {"steps": "steps", "oracle_calls": "oracle calls", "queries": "queries (votes)"}
_STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def style_of(name: str) -> tuple[str, str]:
    """Return the colour and line style of a method, the same in every figure; one made from its name if it is not ours."""
    if name in METHOD_STYLES:
        return METHOD_STYLES[name]
    return _SPARE[sum(name.encode()) % len(_SPARE)], "-."


def convergence(
    trajectories: Sequence[Trajectory],
    metric: str = "kl",
    *,
    clock: str | None = None,
    rates: bool = True,
    scale: str = "log",
    ax: Any = None,
) -> Any:
    """Draw a metric of several runs against what they spent, and return the matplotlib axes.

    Parameters
    ----------
    trajectories : sequence of Trajectory
        One line each: the median over runs, with a band from the 10 % to the 90 % quantile.
    metric : str
        ``"kl"``, ``"exploitability"``, ``"gap0"``, ``"span"`` or ``"min_probability"``.
    clock : str, optional
        ``"oracle_calls"``, ``"steps"`` or ``"queries"``. Default: oracle calls if all methods count them, else steps.
    rates : bool
        Draw, dotted, the proven bound ``factor^K KL_0`` of the methods that have one (only for ``"kl"``).
    scale : str
        Of the horizontal axis: ``"log"`` (linear up to 1, so that the start is seen) or ``"linear"``, which makes a linear rate a
        line.
    ax : matplotlib Axes, optional
        Where to draw.

    Raises
    ------
    InputError
        If there is nothing to draw.
    """
    ensure_choice("metric", metric, METRICS)
    ensure_choice("scale", scale, ("log", "linear"))
    if not trajectories:
        raise InputError("trajectories is empty, must hold at least one trajectory")
    if clock is None:
        clock = "steps" if any(np.isnan(t.oracle_calls).any() for t in trajectories) else "oracle_calls"
    ensure_choice("clock", clock, CLOCKS)
    with _styled():
        ax = _axes(ax, (5.2, 3.0))
        drawn = [_curve(ax, trajectory, metric, clock) for trajectory in trajectories]
        if rates and metric == "kl":
            _rates(ax, trajectories, clock)
        if scale == "log":
            ax.set_xscale("symlog", linthresh=1, linscale=0.3)
        ax.set_yscale("log")
        ax.set_xlim(left=0)
        _limit(ax, [values for values in drawn if len(values)])
        ax.set_xlabel(_CLOCK_LABELS[clock])
        ax.set_ylabel(_LABELS[metric])
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=2.2, borderaxespad=0.0)
    return ax


def _curve(ax: Any, trajectory: Trajectory, metric: str, clock: str) -> Array:
    """Draw one trajectory; return the values drawn."""
    colour, line = style_of(trajectory.dynamics)
    times = _times(trajectory, clock)
    recorded = trajectory.metric(metric)
    with np.errstate(invalid="ignore"):
        values = np.where((recorded > _FLOOR) & (recorded < _CEILING), recorded, np.nan)
    alive = np.isfinite(values).any(axis=0)
    times, values = times[alive], values[:, alive]
    if not len(times):
        return values.ravel()
    low, middle, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=0)
    # Two names of one method draw the same curve: the dashed one lies on top, so that both are seen.
    ax.plot(times, middle, color=colour, linestyle=line, label=_name(trajectory), zorder=2.5 if line == "--" else 2)
    if trajectory.runs > 1:
        ax.fill_between(times, low, high, color=colour, alpha=0.2, linewidth=0)
    if "diverged" in trajectory.status:
        ax.plot(times[-1], middle[-1], marker="x", color=colour, markersize=5, linestyle="none")
    return np.asarray(middle)


def _times(trajectory: Trajectory, clock: str) -> Array:
    times = np.asarray(getattr(trajectory, clock), dtype=np.float64)
    if np.isnan(times).any():
        raise InputError(f"clock = {clock!r} is not counted for {trajectory.dynamics}; draw against 'steps'")
    return times


def _name(trajectory: Trajectory) -> str:
    """Return a legend entry: the method with its step size."""
    step = next(iter(trajectory.params.values()), None)
    shown = f"{step:.3g}" if isinstance(step, float) else str(step)
    return f"{trajectory.dynamics} ({shown})"


def _rates(ax: Any, trajectories: Sequence[Trajectory], clock: str) -> None:
    """Draw the proven bounds that there are, dotted, with one entry in the legend for all."""
    proven = [trajectory for trajectory in trajectories if trajectory.proven_factor is not None]
    for trajectory in proven:
        _rate(ax, trajectory, clock)
    if proven:
        ax.plot([], [], color="black", linestyle=":", linewidth=1.0, label="proven bound")


def _rate(ax: Any, trajectory: Trajectory, clock: str) -> None:
    """Draw the proven bound of one trajectory from its start."""
    assert trajectory.proven_factor is not None
    start = float(np.median(trajectory.kl[:, 0]))
    steps = trajectory.steps - trajectory.steps[0]
    with np.errstate(under="ignore"):
        bound = start * trajectory.proven_factor ** steps.astype(np.float64)
    shown = bound > _FLOOR
    colour, _ = style_of(trajectory.dynamics)
    ax.plot(_times(trajectory, clock)[shown], bound[shown], color=colour, linestyle=":", linewidth=1.0)


def _limit(ax: Any, drawn: list[Array]) -> None:
    """Keep the axis on the curves: a dotted bound may run on below or above them."""
    if drawn:
        low, high = min(float(v.min()) for v in drawn), max(float(v.max()) for v in drawn)
        ax.set_ylim(max(low / 5, _FLOOR), high * 5)


def phase_portrait(
    game: PreferenceGame,
    trajectories: Sequence[Trajectory] = (),
    *,
    equilibrium: Equilibrium | None = None,
    field: bool = True,
    ax: Any = None,
) -> Any:
    """Draw runs on the simplex of a game with three actions, and return the (ternary) matplotlib axes.

    Parameters
    ----------
    game : PreferenceGame
        Three actions, one context.
    trajectories : sequence of Trajectory
        Runs with their policies; every run of each is a curve from a dot.
    equilibrium : Equilibrium, optional
        Marked with a star.
    field : bool
        Draw the direction of the self-play policy gradient flow, ``dθ/dt = J(π)(Aπ - β(θ - log ρ))``, as arrows.
    ax : mpltern axes, optional
        An axes made with ``projection="ternary"``.

    Raises
    ------
    InputError
        If the game has not three actions and one context, a trajectory is of another size or kept no policies.
    """
    if game.n != 3 or game.batched:
        raise InputError(
            f"game has {game.n} actions and {game.n_contexts} contexts; a phase portrait needs three actions, one context"
        )
    for trajectory in trajectories:
        if trajectory.log_policies is None or trajectory.log_policies.shape[-1] != 3 or trajectory.log_policies.ndim != 3:
            raise InputError(
                f"the trajectory of {trajectory.dynamics} holds no policies of three actions; simulate with keep_policies='all'"
            )
    with _styled():
        ax = _axes(ax, (4.6, 3.6), projection="ternary")
        if field:
            _field(ax, game)
        for trajectory in trajectories:
            _path(ax, trajectory)
        if equilibrium is not None:
            ax.plot(
                *([p] for p in equilibrium.policy),
                marker="*",
                markersize=10,
                color="black",
                linestyle="none",
                label="equilibrium",
            )
        _corners(ax, game.labels)
        if trajectories or equilibrium is not None:
            ax.legend(loc="upper left", bbox_to_anchor=(0.78, 1.05), handlelength=1.8, borderaxespad=0.0)
    return ax


def _path(ax: Any, trajectory: Trajectory) -> None:
    colour, line = style_of(trajectory.dynamics)
    assert trajectory.log_policies is not None
    for run, policies in enumerate(np.exp(trajectory.log_policies)):
        policies = policies[np.isfinite(policies).all(axis=1)]
        ax.plot(*policies.T, color=colour, linestyle=line, linewidth=0.9, label=_name(trajectory) if run == 0 else None)
        ax.plot(*policies[:1].T, marker="o", markersize=3, color=colour, linestyle="none")


def flow_direction(game: PreferenceGame, log_policies: Array) -> Array:
    """Return how the self-play policy gradient flow moves policies ``(..., 3)``: dπ/dt in probability space."""
    policy = np.exp(log_policies)
    slope = game.advantage(policy) - game.beta * (log_policies - game.log_reference)
    logits = policy * (slope - np.sum(policy * slope, axis=-1, keepdims=True))
    return np.asarray(policy * (logits - np.sum(policy * logits, axis=-1, keepdims=True)))


def _field(ax: Any, game: PreferenceGame, lines: int = 15) -> None:
    """Draw unit arrows of the flow on a triangular grid, their shade its speed."""
    grid = np.array([(i, j, lines - i - j) for i in range(1, lines) for j in range(1, lines - i)], dtype=np.float64) / lines
    direction = flow_direction(game, log_softmax(np.log(grid)))
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    unit = direction / np.where(length > 0, length, 1.0) * 0.035
    speed = (length[:, 0] / max(float(length.max()), 1e-300)) ** 0.5
    style = {
        "cmap": "Greys",
        "clim": (-0.6, 1.4),
        "width": 0.0035,
        "headwidth": 4,
        "headlength": 4.5,
        "headaxislength": 4,
        "zorder": 0,
    }
    ax.quiver(*grid.T, *unit.T, speed, angles="xy", scale_units="xy", scale=1, pivot="mid", **style)


def _corners(ax: Any, labels: Sequence[str]) -> None:
    for axis, label, place in zip((ax.taxis, ax.laxis, ax.raxis), labels, ("center", "right", "left")):
        axis.set_ticks([0.2, 0.4, 0.6, 0.8], labels=[""] * 4)
        axis.set_tick_params(length=2)
    for corner, label, align in zip(np.eye(3), labels, (("center", "bottom"), ("right", "top"), ("left", "top"))):
        outward = corner + 0.05 * (corner - 1 / 3)
        ax.text(*outward, label, ha=align[0], va=align[1])


def preferences(game: PreferenceGame, *, order: Equilibrium | None = None, ax: Any = None) -> Any:
    """Draw the preference matrix of a game (one context), and return the matplotlib axes.

    Parameters
    ----------
    game : PreferenceGame
        Its first context is drawn.
    order : Equilibrium, optional
        Order the actions by the probability that it gives them.
    ax : matplotlib Axes, optional
        Where to draw.
    """
    single = game.context(0) if game.batched else game
    places = np.arange(single.n)
    if order is not None:
        weights = order.policy.reshape(-1, single.n)[0]
        places = np.argsort(-weights, kind="stable")
    matrix = single.preferences[np.ix_(places, places)]
    names = [single.labels[i] for i in places]
    with _styled():
        size = float(np.clip(1.4 + 0.42 * single.n, 2.6, 7.0))
        ax = _axes(ax, (size + 1.1, size))
        image = ax.imshow(matrix, cmap="PuOr_r", vmin=0, vmax=1)
        if single.n <= 15:
            for (i, j), value in np.ndenumerate(matrix):
                ax.text(
                    j,
                    i,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="white" if abs(value - 0.5) > 0.33 else "black",
                )
            ax.set_xticks(range(single.n), names, rotation=45, ha="right", rotation_mode="anchor")
            ax.set_yticks(range(single.n), names)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
        bar.set_label("probability that row is preferred to column")
        bar.outline.set_visible(False)
    return ax


def policy_bars(game: PreferenceGame, policies: Mapping[str, npt.ArrayLike], ax: Any = None) -> Any:
    """Draw policies of a game (one context) side by side as bars, and return the matplotlib axes.

    Parameters
    ----------
    game : PreferenceGame
        The game, for the labels.
    policies : mapping
        Name to policy, probability space, shape ``(n,)``.
    ax : matplotlib Axes, optional
        Where to draw.
    """
    if not policies:
        raise InputError("policies is empty, must hold at least one policy")
    width = 0.8 / len(policies)
    colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", *_SPARE)
    with _styled():
        ax = _axes(ax, (max(3.4, 0.55 * game.n + 1.2), 2.4))
        for k, (name, policy) in enumerate(policies.items()):
            heights = np.asarray(policy, dtype=np.float64)
            if heights.shape != (game.n,):
                raise InputError(f"policies[{name!r}] has shape {heights.shape}, must be ({game.n},)")
            offset = (k - (len(policies) - 1) / 2) * width
            ax.bar(np.arange(game.n) + offset, heights, width * 0.92, label=name, color=colours[k % len(colours)])
        ax.set_xticks(range(game.n), game.labels, rotation=0 if game.n <= 5 else 45, ha="center" if game.n <= 5 else "right")
        ax.set_ylabel("probability")
        ax.legend()
    return ax


def save(ax: Any, path: str | Path) -> Path:
    """Write the figure of an axes as .pdf, .svg or .png, by the suffix, and return the path.

    Raises
    ------
    DataError
        If the folder cannot be written.
    InputError
        If the suffix is another one.
    """
    target = Path(path)
    ensure_choice("path's suffix", target.suffix, (".pdf", ".svg", ".png"))
    try:
        with _styled():
            ax.figure.savefig(target, dpi=200, bbox_inches="tight", pad_inches=0.03)
    except OSError as error:
        raise DataError(f"{str(target)!r} cannot be written: {error.strerror or error}") from None
    return target


def _styled() -> Any:
    """Return a context manager with the style of our figures; outside of it matplotlib is as before."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _axes(ax: Any, size: tuple[float, float], projection: str | None = None) -> Any:
    """Return `ax`, or the axes of a new figure that pyplot does not hold."""
    if projection == "ternary":
        import mpltern  # noqa: F401  (registers the projection)
    if ax is not None:
        if projection is not None and getattr(ax, "name", "") != projection:
            raise InputError(f"ax must be made with projection={projection!r}")
        return ax
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained" if projection is None else None)
    FigureCanvasAgg(figure)
    return figure.add_subplot(projection=projection)
