"""Comparisons at equal budget: each method at its own best step of one grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._proven import in_proven_range
from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import InputError, ensure_choice
from nlhfsim.games.game import PreferenceGame
from nlhfsim.parametrizations import Parametrization
from nlhfsim.plan import resolved, shared_class, solved_target
from nlhfsim.simulate import warn_flat
from nlhfsim.trajectory import Trajectory
from nlhfsim.tuning import Contestant, Finished, Settings, Tuning, contestant_of, frame_of, settings_of, tune_on


@dataclass(frozen=True)
class Comparison:
    """Several methods on one game at equal budget.

    Attributes
    ----------
    rows : tuple of dict
        One a method, as given: ``dynamics``, ``params``, ``runs``, ``steps``, ``oracle_calls``, ``queries``, ``final_kl``,
        ``final_exploitability``, ``final_gap0`` (medians over runs), ``final_kl_q95``, ``final_exploitability_q95`` (their 95 %
        quantiles over runs), ``calls_to_1e-3`` and ``calls_to_1e-6`` (oracle calls to that exploitability, exact up to 20,000
        steps, ``inf`` if never), with sampled feedback ``queries_to_1e-2`` and ``queries_to_1e-3``,
        ``fitted_factor`` (of the KL a step), ``proven_factor``, ``in_proven_range`` (None: convergence to π* is not proven),
        ``grid_points`` (0: run as given), ``at_edge``, ``status``; of log-linear
        policies also ``attainable_kl`` and ``attainable_exploitability``, the best values that the features allow, beside which
        the final ones are to be read.
    trajectories : tuple of Trajectory
        The runs behind the rows.
    tunings : tuple of Tuning or None
        The grids behind the rows, where a method was tuned.
    equilibrium : Equilibrium
        What KL is measured to.
    """

    rows: tuple[dict[str, Any], ...]
    trajectories: tuple[Trajectory, ...]
    tunings: tuple[Tuning | None, ...]
    equilibrium: Equilibrium

    def to_frame(self) -> Any:
        """Return the rows as a pandas DataFrame. Needs the ``data`` extra."""
        return frame_of(self.rows)

    def plot(self, metric: str = "kl", ax: Any = None) -> Any:
        """Draw `metric` of every method against oracle calls, or votes, and return the matplotlib axes."""
        from nlhfsim import plots

        clock = "queries" if any(t.queries.any() for t in self.trajectories) else "oracle_calls"
        return plots.convergence(self.trajectories, metric=metric, clock=clock, ax=ax)


def compare(
    game: PreferenceGame,
    methods: Iterable[Any],
    *,
    oracle_calls: int | None = None,
    queries: int | None = None,
    feedback: Any = None,
    step_sizes: npt.ArrayLike | Mapping[str, Any] | str | None = None,
    metric: str | None = None,
    runs: int = 1,
    seed: int = 0,
    start: Any = None,
    parametrization: Parametrization | None = None,
    equilibrium: Equilibrium | None = None,
) -> Comparison:
    """Compare methods on a game at equal oracle calls, or at equal queries.

    Parameters
    ----------
    game : PreferenceGame
        The game.
    methods : iterable of Dynamics, factory or str
        The methods. One whose oracle calls cannot be counted (`ProximalPoint`) is refused.
    oracle_calls : int, optional
        Budget of every method (default: 2000); a method with c calls a step makes ``oracle_calls // c`` steps.
    queries : int, optional
        Budget in votes instead: a method with c calls a step and batches of b pairs makes ``queries // (c b)`` steps.
    feedback : str or Sampled, optional
        As for `nlhfsim.simulate`. Default: exact, or, with a budget of queries, ``nl.Sampled()``, one vote an oracle call.
    step_sizes : array_like, mapping or "default", optional
        None: an instance with a step size runs as given, all else is tuned on the default grid (see `tune`). ``"default"``:
        every method is tuned on the default grid; an array: on these step sizes. A mapping gives a grid (of steps, or of
        several parameters by name) for methods by name. A method that has no step size runs as given unless a mapping names it.
    metric : str, optional
        What tuning minimizes: ``"kl"`` (default for β > 0), ``"exploitability"`` or ``"gap0"`` (default at β = 0).
    runs, seed, start, parametrization, equilibrium
        As for `nlhfsim.simulate`.

    Returns
    -------
    Comparison
        Rows, runs and grids.

    Raises
    ------
    InputError
        If there is no method, or a method cannot be compared.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.05)
    >>> comparison = nl.compare(game, ["SelfPlayPG", "NashMirrorProx"], oracle_calls=400, start=[0.8, 0.1, 0.1])
    >>> [row["dynamics"] for row in sorted(comparison.rows, key=lambda row: row["final_kl"])]
    ['NashMirrorProx', 'SelfPlayPG']
    """
    chosen = [methods] if isinstance(methods, (str, Dynamics)) else list(methods)
    if not chosen:
        raise InputError("methods is empty, must name at least one method")
    contestants = [contestant_of(method) for method in chosen]
    target = solved_target(game, equilibrium)
    shared = shared_class(game, parametrization)
    settings = settings_of(game, oracle_calls, queries, feedback, runs, seed, start, target, shared)
    for contestant in contestants:
        settings.steps(contestant.dynamics)
        resolved(game, contestant.dynamics, shared)
    criterion = settings.metric(metric)
    for name in step_sizes if isinstance(step_sizes, Mapping) else ():
        ensure_choice("step_sizes", name, {n for c in contestants for n in (c.dynamics.name, c.alias) if n})
    tunings: list[Tuning | None] = []
    trajectories, rows = [], []
    for contestant in contestants:
        grid = _grid_for(contestant, step_sizes)
        if grid is None:
            tuning, best, trajectory = None, contestant.dynamics, settings.run(contestant.dynamics)
        else:
            tuning = tune_on(settings, contestant, grid, criterion)
            best, trajectory = tuning.best, tuning.trajectory
        tunings.append(tuning)
        trajectories.append(trajectory)
        rows.append(_row(settings, best, trajectory, tuning))
    if settings.feedback is None:
        warn_flat(trajectories[0])
    return Comparison(tuple(rows), tuple(trajectories), tuple(tunings), target)


def _grid_for(contestant: Contestant, step_sizes: Any) -> Any:
    """Return the grid that a method is to be tuned on, None if it runs as given."""
    default = contestant.default_grid() or None
    if isinstance(step_sizes, str):
        ensure_choice("step_sizes", step_sizes, ("default",))
        return default
    unnamed = default if contestant.dynamics.step_size is None else None
    if isinstance(step_sizes, Mapping):
        named = step_sizes.get(contestant.alias, step_sizes.get(contestant.dynamics.name, unnamed))
        return default if isinstance(named, str) and named == "default" else named
    # Step sizes for all are not for a method that has none.
    return unnamed if step_sizes is None or contestant.dynamics.method.scheduled is None else step_sizes


def _row(settings: Settings, dynamics: Dynamics, trajectory: Trajectory, tuning: Tuning | None) -> dict[str, Any]:
    game, exact = settings.game, settings.feedback is None
    instance = resolved(game, dynamics, settings.shared)
    proven = instance.method.fixed_point == "nash" and exact and settings.shared is None
    whole = Finished(trajectory, slice(None))
    clock, levels = ("oracle_calls", (1e-3, 1e-6)) if exact else ("queries", (1e-2, 1e-3))
    word = "calls" if exact else "queries"
    passages = {
        f"{word}_to_{eps:.0e}".replace("-0", "-"): trajectory.first_passage("exploitability", eps, clock=clock) for eps in levels
    }
    attainable = trajectory.attainable
    best = {"attainable_kl": attainable.kl, "attainable_exploitability": attainable.exploitability} if attainable else {}
    return {
        "dynamics": instance.name,
        "params": instance.parameters,
        "runs": trajectory.runs,
        "steps": int(trajectory.steps[-1]),
        "oracle_calls": int(trajectory.oracle_calls[-1]),
        "queries": int(trajectory.queries[-1]),
        "final_kl": whole.final("kl"),
        "final_exploitability": whole.final("exploitability"),
        "final_gap0": whole.final("gap0"),
        "final_kl_q95": whole.final("kl", 0.95),
        "final_exploitability_q95": whole.final("exploitability", 0.95),
        **{name: float(np.median(times)) for name, times in passages.items()},
        "fitted_factor": float(np.median(trajectory.fit_rate())),
        "proven_factor": trajectory.proven_factor,
        # A biased method has at best a neighbourhood of π* proven at a constant step, log-linear policies nothing.
        "in_proven_range": in_proven_range(game, instance) if proven else None,
        "grid_points": len(tuning.grid) if tuning else 0,
        "at_edge": tuning.at_edge if tuning else False,
        "status": whole.status,
        **best,
    }
