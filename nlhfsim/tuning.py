"""The best parameters of a method on a game at a budget: a grid of them, run side by side where that pays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._spec import Dynamics, as_dynamics, build, get, names
from nlhfsim.dynamics.schedules import describe
from nlhfsim.equilibrium import Equilibrium
from nlhfsim.execution import execute, execute_from, with_attainable
from nlhfsim.errors import InputError, MissingExtraError, ensure_array, ensure_choice, ensure_integer, ensure_positive
from nlhfsim.feedback import Feedback, Sampled, ensure_feedback, ensure_sampled
from nlhfsim.games.game import PreferenceGame
from nlhfsim.log_linear.shared import SharedClass
from nlhfsim.parametrizations import Parametrization
from nlhfsim.plan import Plan, resolved, shared_class, solved_target, starts_of
from nlhfsim.simulate import warn_flat
from nlhfsim.trajectory import Trajectory

DEFAULT_GRID: tuple[float, ...] = tuple(float(f"{10 ** (k / 6):.4g}") for k in range(-12, 13))
"""Step sizes tried when none are given: 0.01 to 100, six a decade."""

METRICS = ("kl", "exploitability", "gap0")
EXACT_RECORDS = 20_000
"""Up to so many steps every step is recorded, so that first passages are exact."""
_WORTH_IT = 3 * 10**9
"""Multiplications of a tuning from which on its runs go side by side."""
_AT_ONCE = 2**22
"""Entries of the policies of runs that go side by side."""
_TRIES = 16
"""Up to so many runs judge a grid point with sampled feedback."""
CONVERGED = 1e-12
"""Values at or below it rank by how early they were reached: beyond it lies rounding."""


@dataclass(frozen=True)
class Tuning:
    """A method on a grid of parameters.

    Attributes
    ----------
    best : Dynamics
        The instance with the smallest metric at the end of the budget.
    trajectory : Trajectory
        Its run.
    grid : tuple of dict
        One entry a grid point: the parameters, ``value`` (the median over runs of the metric at the end; NaN after divergence)
        and ``status``.
    metric : str
        What was minimized.
    at_edge : bool
        Whether the best step is the smallest or largest of a grid of three or more, so that a wider grid may do better.
    """

    best: Dynamics
    trajectory: Trajectory
    grid: tuple[dict[str, Any], ...]
    metric: str
    at_edge: bool

    def to_frame(self) -> Any:
        """Return the grid as a pandas DataFrame. Needs the ``data`` extra."""
        return frame_of(self.grid)


def tune(
    game: PreferenceGame,
    method: Any,
    grid: npt.ArrayLike | Mapping[str, Sequence[Any]] | None = None,
    *,
    oracle_calls: int | None = None,
    queries: int | None = None,
    feedback: Any = None,
    metric: str | None = None,
    runs: int = 1,
    seed: int = 0,
    start: Any = None,
    parametrization: Parametrization | None = None,
    equilibrium: Equilibrium | None = None,
) -> Tuning:
    """Return the best parameters of a method on a game at a budget of oracle calls, or of queries.

    Parameters
    ----------
    game : PreferenceGame
        The game.
    method : Dynamics, factory or str
        The method; parameters that the grid does not name stay as they are in an instance, at their defaults in a bare method.
    grid : array_like or mapping, optional
        Step sizes, or values for several parameters by name (their product is tried). Default: step sizes from 0.01 to 100,
        six a decade; for a bare method times the values that its metadata names for other parameters.
    oracle_calls, queries : int, optional
        Budget of every grid point: oracle calls (default: 2000), or, with sampled feedback, queries.
    feedback : str or Sampled, optional
        As for `simulate`. Default: exact, or, with a budget of queries, ``nl.Sampled()``. With sampled feedback a grid point is
        judged by up to 16 runs whose votes are others than those of the final runs, so that the best point is not a lucky one.
    metric : str, optional
        ``"kl"`` (default for β > 0), ``"exploitability"`` or ``"gap0"`` (default at β = 0), at the end of the budget, median over
        runs; among values at or below 1e-12 the earliest.
    runs, seed, start, parametrization, equilibrium
        As for `nlhfsim.simulate`.

    Raises
    ------
    InputError
        If the grid is empty, the budget is below one step, or a method without a step size is given no values by name.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> tuning = nl.tune(game, nl.dynamics.NashMirrorProx, [0.5, 1, 2], oracle_calls=200, start=[0.8, 0.1, 0.1])
    >>> tuning.best
    NashMirrorProx(step_size=2)
    """
    target, shared = solved_target(game, equilibrium), shared_class(game, parametrization)
    settings = settings_of(game, oracle_calls, queries, feedback, runs, seed, start, target, shared)
    contestant = contestant_of(method)
    tuning = tune_on(settings, contestant, contestant.default_grid() if grid is None else grid, settings.metric(metric))
    if settings.feedback is None:
        warn_flat(tuning.trajectory)
    return tuning


class Contestant(NamedTuple):
    """A method to compare, and whether the caller fixed none of its parameters."""

    dynamics: Dynamics
    bare: bool
    alias: str = ""

    def default_grid(self) -> dict[str, Sequence[Any]]:
        """Return the grid when none is given, maybe empty: `DEFAULT_GRID`, for a bare method times what its metadata names."""
        method = self.dynamics.method
        steps = {} if method.scheduled is None else {method.scheduled: DEFAULT_GRID}
        return {**steps, **(method.tuning or {} if self.bare else {})}


def contestant_of(method: Any) -> Contestant:
    """Return a method as a comparison takes it; one step size for each run is refused."""
    factory = get(method) if isinstance(method, str) else method
    if isinstance(getattr(method, "step_size", None), tuple):
        raise InputError(
            f"{method!r} has a step size for each run; a comparison takes one, or a grid of them to choose from: "
            f"step_sizes = {{{method.name!r}: {list(method.step_size)}}}"
        )
    if hasattr(factory, "alias"):  # a name of the literature for an instance fixes what that instance fixes
        return Contestant(as_dynamics(method), False, factory.alias.name)
    return Contestant(as_dynamics(method), not isinstance(method, Dynamics))


@dataclass(frozen=True)
class Settings:
    """What every run of a comparison shares."""

    game: PreferenceGame
    budget: int
    clock: str
    """What the budget counts: ``"oracle_calls"`` or ``"queries"``."""
    feedback: Feedback
    runs: int
    seed: int
    start: Any
    equilibrium: Equilibrium
    shared: SharedClass | None = None

    def steps(self, dynamics: Dynamics) -> int:
        """Return how many steps the budget buys."""
        if self.feedback is not None:
            ensure_sampled(dynamics, self.feedback)
        if dynamics.method.oracle_calls is None:
            raise InputError(
                f"{dynamics.name} cannot be compared at equal oracle calls: those of its inner solver are not counted; "
                "run it with simulate, or compare ProximalPG, which plays the same sub-games by gradient steps"
            )
        batch = 1 if self.clock == "oracle_calls" or self.feedback is None else self.feedback.batch_size
        step = dynamics.method.oracle_calls(dynamics.params) * batch
        first = dynamics.method.initial_calls * batch if self.clock == "queries" else 0
        if first + step > self.budget:
            raise InputError(f"{self.clock} = {self.budget} must be at least {first + step}, one step of {dynamics.name}")
        return (self.budget - first) // step

    def metric(self, name: str | None) -> str:
        """Return what tuning minimizes: by default KL, at β = 0, where π* need not be unique, the unregularized gap."""
        chosen = ensure_choice("metric", name or ("kl" if self.game.beta > 0 else "gap0"), METRICS)
        if chosen == "kl" and self.equilibrium.status == "failed":
            raise InputError(
                f"metric = 'kl' needs the equilibrium, which was not found ({self.equilibrium.solver_status}); "
                "use metric='exploitability'"
            )
        return chosen

    def run(self, dynamics: Dynamics) -> Trajectory:
        """Run one method for the budget, with exact feedback every step recorded where that is in reach."""
        plan = self._plan(dynamics)
        if self.feedback is not None:
            return with_attainable(plan, execute(plan, self.start), self.start)
        keep = "all" if self.game.n * self.game.n_contexts <= 1000 else "final"
        plan = replace(plan, record_every=1 if plan.n_steps <= EXACT_RECORDS else None, keep_policies=keep)
        return with_attainable(plan, execute(plan, self.start), self.start)

    def run_all(self, instances: Sequence[Dynamics]) -> list[Finished]:
        """Run instances of one method for the budget, those that differ only in a constant step size side by side."""
        if self.feedback is not None:
            return [self._try(instance) for instance in instances]
        groups: dict[Any, list[int]] = {}
        work = len(instances) * self.budget * self.runs * self.game.n_contexts * (self.game.n**2 + 100)
        for index, one in enumerate(instances):
            # Side by side needs a loop of its own; compiling it takes seconds.
            alike = one.method.together and isinstance(one.step_size, float) and work > _WORTH_IT and self.shared is None
            groups.setdefault((one.params, one.given) if alike else index, []).append(index)
        finished: dict[int, Finished] = {}
        for members in groups.values():
            plan = self._plan(instances[members[0]])
            logs = starts_of(plan, self.start)
            runs = len(logs)
            at_once = max(1, _AT_ONCE // (runs * self.game.n))
            for some in (members[k : k + at_once] for k in range(0, len(members), at_once)):
                dynamics = resolved(self.game, instances[some[0]], self.shared)
                if len(some) > 1:
                    steps = [instances[index].step_size for index in some]
                    dynamics = dynamics.with_step(tuple(np.repeat(np.array(steps, dtype=np.float64), runs).tolist()))
                whole = replace(plan, dynamics=dynamics, runs=runs * len(some))
                trajectory = execute_from(whole, np.tile(logs, (len(some), 1, 1)))
                for position, index in enumerate(some):
                    finished[index] = Finished(trajectory, slice(position * runs, (position + 1) * runs))
        return [finished[index] for index in range(len(instances))]

    def _try(self, instance: Dynamics) -> Finished:
        """Run one instance with sampled feedback, on votes of its own, and record the end only."""
        plan = self._plan(instance)
        logs = starts_of(plan, self.start)[:_TRIES]
        plan = replace(plan, record_every=max(plan.n_steps, 1), stream="tuning")
        return Finished(execute_from(plan, logs), slice(None))

    def _plan(self, dynamics: Dynamics) -> Plan:
        chosen = resolved(self.game, dynamics, self.shared)
        return Plan(
            game=self.game,
            dynamics=chosen,
            n_steps=self.steps(chosen),
            runs=ensure_integer("runs", self.runs, 1),
            seed=ensure_integer("seed", self.seed),
            record_every=None,
            keep_policies="final",
            equilibrium=self.equilibrium,
            compiled=True,
            feedback=self.feedback,
            shared=self.shared,
        )


class Finished(NamedTuple):
    """The runs of one instance, which are some of the runs of a trajectory."""

    trajectory: Trajectory
    runs: slice

    def final(self, metric: str, level: float = 0.5) -> float:
        """Return the median over runs, or another quantile, of a metric at the end; NaN if a run diverged."""
        return float(np.quantile(self.trajectory.metric(metric)[self.runs, -1], level))

    def rank(self, metric: str) -> tuple[float, float]:
        """Return what orders grid points: the value reached, then, once it is converged, how early."""
        value = self.final(metric)
        if math.isnan(value):
            return math.inf, math.inf
        if value > CONVERGED:
            return value, math.inf
        passage = float(np.median(self.trajectory.first_passage(metric, CONVERGED)[self.runs]))
        return max(value, CONVERGED), passage

    @property
    def status(self) -> str:
        """Return "diverged" if any run did, else "completed"."""
        return "diverged" if "diverged" in self.trajectory.status[self.runs] else "completed"


def settings_of(
    game: PreferenceGame,
    oracle_calls: Any,
    queries: Any,
    feedback: Any,
    runs: int,
    seed: int,
    start: Any,
    equilibrium: Equilibrium,
    shared: SharedClass | None,
) -> Settings:
    """Return validated settings from the arguments of `tune` and `compare`."""
    if oracle_calls is not None and queries is not None:
        raise InputError("give oracle_calls or queries, the budget of every method, not both")
    votes = Sampled() if queries is not None and feedback is None else ensure_feedback(feedback)
    if queries is None:
        budget = ensure_integer("oracle_calls", 2000 if oracle_calls is None else oracle_calls, 1)
        return Settings(game, budget, "oracle_calls", votes, runs, seed, start, equilibrium, shared)
    if votes is None:
        raise InputError(
            f"queries = {queries} is a budget of votes, but feedback is exact; give oracle_calls, or nl.Sampled(...)"
        )
    return Settings(game, ensure_integer("queries", queries, 1), "queries", votes, runs, seed, start, equilibrium, shared)


def _points(dynamics: Dynamics, grid: Any) -> list[dict[str, Any]]:
    """Return the grid points as parameter dicts."""
    scheduled = dynamics.method.scheduled
    if scheduled is None and not (isinstance(grid, Mapping) and grid):
        raise InputError(
            f"{dynamics.name} has no step size to tune; give values of its parameters by name (it has "
            f"{', '.join(dynamics.parameters) or 'none'}), or run it with simulate"
        )
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if np.ndim(values) == 0:
                raise InputError(f"grid[{name!r}] = {values!r} must be a list of values to try")
        axes = {str(name): list(values) for name, values in grid.items()}
    elif isinstance(grid, list | tuple) and any(callable(step) for step in grid):
        axes = {scheduled or "": list(grid)}
    else:
        steps = np.atleast_1d(ensure_array("grid", grid))
        if steps.ndim != 1:
            raise InputError(f"grid has shape {steps.shape}, must be a list of step sizes")
        axes = {scheduled or "": steps.tolist()}
    if not axes or any(len(values) == 0 for values in axes.values()):
        raise InputError(f"grid = {grid!r} is empty, must hold at least one value of each parameter")
    return [dict(zip(axes, values)) for values in product(*axes.values())]


def _instance(contestant: Contestant, point: dict[str, Any]) -> Dynamics:
    """Return the method at a grid point; parameters beside the step size are validated by the method's factory."""
    dynamics, scheduled = contestant.dynamics, contestant.dynamics.method.scheduled or ""
    if set(point) == {scheduled}:
        step = point[scheduled]
        return dynamics.with_step(step if callable(step) else ensure_positive(f"grid: {scheduled}", step))
    if dynamics.name not in names():
        own = {name: value for name, value in point.items() if name != scheduled}
        if set(own) <= set(getattr(dynamics.params, "_fields", ())):
            return replace(dynamics, params=dynamics.params._replace(**own), step_size=point.get(scheduled, dynamics.step_size))
        raise InputError(
            f"grid names {', '.join(point)}, but of {dynamics.name}, which is not registered, only "
            f"{scheduled or 'the fields of its params'} can be tuned"
        )
    given = {} if contestant.bare else ({scheduled: dynamics.step_size} if scheduled else {}) | dict(dynamics.given)
    return build(dynamics.name, **(given | point))


def tune_on(settings: Settings, contestant: Contestant, grid: Any, metric: str) -> Tuning:
    """Run a method at every point of a grid, then once more at the best with every step recorded."""
    dynamics, scheduled = contestant.dynamics, contestant.dynamics.method.scheduled or ""
    points = _points(dynamics, grid)
    instances = [_instance(contestant, point) for point in points]
    finished = settings.run_all(instances)
    ranks = [run.rank(metric) for run in finished]
    best = min(range(len(points)), key=ranks.__getitem__)
    table = tuple(
        {
            **{name: describe(value) if name == scheduled else value for name, value in point.items()},
            "value": run.final(metric),
            "status": run.status,
        }
        for point, run in zip(points, finished)
    )
    steps = [p[scheduled] for p in points if scheduled in p]
    numbers = [step for step in steps if not callable(step)]
    at_edge = len(set(numbers)) > 2 and points[best].get(scheduled) in (min(numbers), max(numbers))
    return Tuning(instances[best], settings.run(instances[best]), table, metric, at_edge)


def frame_of(rows: Sequence[dict[str, Any]]) -> Any:
    """Return rows as a pandas DataFrame."""
    try:
        import pandas
    except ImportError:
        raise MissingExtraError("to_frame needs pandas: pip install nlhfsim[data]") from None
    return pandas.DataFrame(list(rows))
