"""Running a method on a game: validate what is asked, send every run in every context through the loop, collect the records."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._proven import proven_factor, warn_outside_proven_range
from nlhfsim.dynamics._spec import Dynamics, as_dynamics, get, names
from nlhfsim.dynamics.schedules import StepTable
from nlhfsim.equilibrium import Equilibrium, solve
from nlhfsim.errors import (
    Array,
    EquilibriumStartWarning,
    InputError,
    SizeError,
    by_label,
    ensure_array,
    ensure_choice,
    ensure_distribution,
    ensure_integer,
)
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.payoffs import Context, PairwisePayoff
from nlhfsim.log_linear.attainable import attainable_of
from nlhfsim.log_linear.shared import SharedClass, class_of
from nlhfsim.log_linear.starts import start_logs
from nlhfsim.loop import ContextRuns, loop_of
from nlhfsim.parametrizations import LogLinear, Parametrization, Tabular
from nlhfsim.simplex import log_softmax
from nlhfsim.trajectory import METRICS, Records, Trajectory, joined

STARTS = ("reference", "uniform", "random")
_LOGGER = logging.getLogger(__name__)
_PER_DECADE = 20
_AT_EQUILIBRIUM = 1e-12
_KEPT_BYTES = 2**27
_MANY = 8
"""From so many runs on they go together, which compiles a second loop."""


def simulate(
    game: PreferenceGame,
    method: Any,
    n_steps: int,
    *,
    feedback: str = "exact",
    runs: int = 1,
    seed: int = 0,
    start: npt.ArrayLike | str | Trajectory | None = None,
    record_every: int | Sequence[int] | None = None,
    keep_policies: str | bool | None = None,
    parametrization: Parametrization | None = None,
    equilibrium: Equilibrium | bool | None = None,
    compiled: bool = True,
) -> Trajectory:
    """Run a method on a game and return its records.

    Parameters
    ----------
    game : PreferenceGame
        The game; its contexts are run side by side.
    method : Dynamics, factory or str
        Such as ``nl.dynamics.NashMirrorProx(step_size=2.0)``; a bare ``nl.dynamics.NashMirrorProx`` or its name takes the
        defaults.
    n_steps : int
        Steps to do, at least 0; when continuing, steps to add.
    feedback : str
        ``"exact"``: a step reads Aπ itself.
    runs : int
        Number of runs; a `start` of shape ``(runs, ...)`` says it too, or a step size of shape ``(runs,)``. From eight
        on the runs of most methods advance together, which is faster than one after the other.
    seed : int
        Seed of everything random.
    start : array_like, str or Trajectory, optional
        ``"reference"`` (default), ``"uniform"``, ``"random"`` (uniform on the simplex, another one each run and context), a
        policy with full support of shape `game.policy_shape`, one policy a run of shape ``(runs, *game.policy_shape)``, or a
        Trajectory, which is continued bit for bit as if it had never stopped (a schedule of your own must be the same function as
        before: only its name can be compared). For log-linear policies: θ of shape ``(d,)`` or ``(runs, d)``, where
        ``"reference"`` is 0 and ``"random"`` a normal θ scaled so that log π_θ - log ρ has variance 1 or so; a policy, or
        ``"uniform"``, must be log-linear itself, to 1e-8. If d = n an array that could be either is θ; a policy is then given as
        ``(runs, contexts, n)``.
    record_every : int or sequence of int, optional
        Record every k-th step, or at these steps. Default: 20 records a decade. Step 0 and the last step are always recorded.
    keep_policies : "all", "final" or bool, optional
        Which policies the trajectory keeps; True is "all", False none. Default: all of them if they take up to 128 MB, else the
        final ones.
    parametrization : Tabular or LogLinear, optional
        How the policies depend on θ: ``nl.Tabular()`` (default), a logit for each context and action; ``nl.LogLinear(features)``,
        ``π_θ(y|x) ∝ ρ(y|x) exp(φ(x, y)ᵀθ)`` with one θ for all contexts. Then mirror methods read the payoffs projected on the
        features (compatible function approximation), gradient methods follow the gradient in θ, and the trajectory says in
        `attainable` what the features allow. Nothing is proven about convergence there; the default step of a gradient method is
        its tabular one divided by the largest eigenvalue of the features' covariance. Steps are not compiled.
    equilibrium : Equilibrium or False, optional
        The solved equilibrium, so that it is not solved again; False: do without, KL is then NaN. Default: solved here, where the
        game allows it.
    compiled : bool
        False: run the step as plain Python, slower and open to a debugger; equal to 1e-13.

    Returns
    -------
    Trajectory
        Records, final policies, status.

    Warns
    -----
    ProvenRangeWarning
        If the step size lies outside the range with proven convergence on this game.
    EquilibriumStartWarning
        If the run starts at the equilibrium already.

    Raises
    ------
    InputError
        If an argument is not as described.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    >>> trajectory = nl.simulate(game, nl.dynamics.NashMirrorProx(step_size=2.0), 100, start=[0.8, 0.1, 0.1])
    >>> trajectory.status, bool(trajectory.kl[0, -1] < 1e-12)
    (('completed',), True)
    """
    ensure_choice("feedback", feedback, ("exact",))
    ensure_game(game)
    target, reason = target_of(game, equilibrium)
    shared = shared_class(game, parametrization)
    dynamics = resolved(game, as_dynamics(method), shared)
    if shared is None:
        warn_outside_proven_range(game, dynamics)
    plan = Plan(
        game=game,
        dynamics=dynamics,
        n_steps=ensure_integer("n_steps", n_steps, 0, 10**10),
        runs=_ensure_runs(runs, dynamics),
        seed=ensure_integer("seed", seed),
        record_every=record_every,
        keep_policies=_ensure_keep(keep_policies),
        equilibrium=target,
        without=reason,
        compiled=compiled and compiles(game, dynamics) and shared is None,
        shared=shared,
    )
    trajectory = with_attainable(plan, execute(plan, start), start)
    if not isinstance(start, Trajectory):
        warn_flat(trajectory)
    return trajectory


@dataclass(frozen=True)
class Plan:
    """A validated simulation: what `execute` runs. The equilibrium is solved, the step size known."""

    game: PreferenceGame
    dynamics: Dynamics
    n_steps: int
    runs: int
    seed: int
    record_every: int | Sequence[int] | None
    keep_policies: str | bool | None
    equilibrium: Equilibrium | None
    compiled: bool
    without: str = ""
    """Why there is no equilibrium."""
    shared: SharedClass | None = None
    """The log-linear policies; None: the policies are tabular."""


def shared_class(game: PreferenceGame, parametrization: Any) -> SharedClass | None:
    """Return the log-linear policies that a parametrization is on a game, None if it is tabular."""
    if parametrization is None or isinstance(parametrization, Tabular):
        return None
    if isinstance(parametrization, LogLinear):
        return class_of(game, parametrization)
    raise InputError(f"parametrization = {parametrization!r} must be nl.Tabular() or nl.LogLinear(features)")


def resolved(game: PreferenceGame, dynamics: Dynamics, shared: SharedClass | None) -> Dynamics:
    """Return a method with its step size; on log-linear policies a gradient step by default is scaled to the features."""
    if shared is None:
        return dynamics.resolve(game.contexts)
    if dynamics.method.log_linear is None:
        able = ", ".join(name for name in names() if get(name).method.log_linear is not None)
        raise InputError(f"{dynamics.name} has no log-linear form; the methods that have one are {able}")
    kind = ensure_choice(f"log_linear of {dynamics.name}", dynamics.method.log_linear, ("mirror", "gradient"))
    found = dynamics.resolve(game.contexts)
    if kind == "mirror" or dynamics.step_size is not None or not isinstance(found.step_size, float):
        return found
    return found.with_step(found.step_size / shared.features.stretch(game.weights[:, None]))


def compiles(game: PreferenceGame, dynamics: Dynamics) -> bool:
    """Return whether a method's step is compiled on a game: a payoff that is a function of the pair is evaluated by NumPy."""
    return dynamics.method.compiled and not any(isinstance(context.payoff, PairwisePayoff) for context in game.contexts)


def target_of(game: PreferenceGame, equilibrium: Any) -> tuple[Equilibrium | None, str]:
    """Return the equilibrium that KL is measured to, or None and the reason."""
    if equilibrium is False:
        return None, "no equilibrium was asked for (equilibrium=False)"
    try:
        return solved_target(game, equilibrium), ""
    except SizeError as error:
        return None, str(error)


def _ensure_runs(runs: Any, dynamics: Dynamics) -> int:
    """Return the number of runs, which a step size of shape ``(runs,)`` says too."""
    count = ensure_integer("runs", runs, 1)
    if not isinstance(dynamics.step_size, tuple) or count == len(dynamics.step_size):
        return count
    if count != 1:
        raise InputError(
            f"{dynamics.method.scheduled} holds {len(dynamics.step_size)} values but runs = {count}; they must agree"
        )
    return len(dynamics.step_size)


def execute(plan: Plan, start: npt.ArrayLike | str | Trajectory | None) -> Trajectory:
    """Run a plan from a start, without warnings."""
    if isinstance(start, Trajectory):
        _ensure_continues(plan, start)
        first = int(start.steps[-1])
        if plan.runs not in (1, start.runs):
            raise InputError(f"start holds {start.runs} runs but runs = {plan.runs}; they must agree")
        plan = replace(plan, runs=start.runs, seed=start.seed)
        return joined(start, _run(plan, _states_of(start, plan), first))
    return execute_from(plan, starts_of(plan, start))


def starts_of(plan: Plan, start: Any) -> Array:
    """Return the log-policies that a plan starts from, shape ``(runs, contexts, n)``."""

    def policies(given: Any) -> Array:
        return start_policies(plan.game, given, plan.runs, plan.seed)

    return policies(start) if plan.shared is None else start_logs(plan.shared, start, plan.runs, plan.seed, policies)


def with_attainable(plan: Plan, trajectory: Trajectory, start: Any) -> Trajectory:
    """Return a trajectory of log-linear policies with what they can attain; a tabular one as it is."""
    if plan.shared is None:
        return trajectory
    target, without = _log_equilibria(plan), plan.without or "the equilibrium was not found"
    found = attainable_of(plan.shared, target, without, trajectory.state["logits"], trajectory.seed)
    former = start.attainable if isinstance(start, Trajectory) else None
    kept = [note for note in trajectory.notes if former is None or note not in former.notes]
    return replace(trajectory, attainable=found, notes=(*kept, *found.notes))


def execute_from(plan: Plan, logs: Array) -> Trajectory:
    """Run a plan from log-policies ``(runs, contexts, n)``, without warnings."""
    if isinstance(plan.dynamics.step_size, tuple) and len(logs) != plan.runs:
        raise InputError(
            f"start holds {len(logs)} policies but {plan.dynamics.method.scheduled} {plan.runs} values; they must agree"
        )
    plan = replace(plan, runs=len(logs))
    method, params = plan.dynamics.method, plan.dynamics.params
    groups = [
        [method.init(context, params, np.array(logs[numbers if together(plan) else numbers[0], k])) for numbers in _groups(plan)]
        for k, context in _parts(plan)
    ]
    return _run(plan, groups, 0)


def together(plan: Plan) -> bool:
    """Return whether the runs of a plan advance as one; whatever the steps, so that a continuation has the same bits."""
    return plan.runs >= _MANY and plan.dynamics.method.together and plan.shared is None


def _parts(plan: Plan) -> list[tuple[Any, Context]]:
    """Return what goes through the loop on its own, an index of contexts and what a step sees: each context, or all at once."""
    if plan.shared is None:
        return list(enumerate(plan.game.contexts))
    return [(slice(None), plan.shared.seen(plan.dynamics.method.log_linear or ""))]


def _groups(plan: Plan) -> list[list[int]]:
    """Return the numbers of the runs that go through the loop together."""
    return [list(range(plan.runs))] if together(plan) else [[run] for run in range(plan.runs)]


def start_policies(game: PreferenceGame, start: Any, runs: int, seed: int) -> Array:
    """Return the log-policies to start from, shape ``(runs, contexts, n)``; see `simulate` for what `start` may be."""
    shape = (runs, game.n_contexts, game.n)
    if start is None or isinstance(start, str):
        kind = "reference" if start is None else ensure_choice("start", start, STARTS)
        if kind == "reference":
            return np.broadcast_to(game.log_reference.reshape(1, game.n_contexts, game.n), shape)
        if kind == "uniform":
            return np.full(shape, -np.log(game.n))
        seeds = np.random.SeedSequence(seed).spawn(runs)
        return np.stack([_random_log_policies(np.random.default_rng(s), shape[1:]) for s in seeds])
    if isinstance(start, Equilibrium):
        raise InputError("start is an Equilibrium; give its policy: start=equilibrium.policy")
    given = ensure_array("start", by_label("start", start, game.labels))
    one = given.ndim != len(game.policy_shape) + 1
    wanted = game.policy_shape if one else (given.shape[0], *game.policy_shape)
    if not one and (runs not in (1, wanted[0]) or wanted[0] == 0):
        raise InputError(f"start holds {wanted[0]} policies but runs = {runs}; they must agree")
    policies = ensure_distribution("start", given, wanted, full_support=True)
    count = runs if one else wanted[0]
    rows = np.log(policies).reshape(1 if one else count, game.n_contexts, game.n)
    return np.broadcast_to(rows, (count, game.n_contexts, game.n))


def _random_log_policies(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return log_softmax(np.log(rng.standard_exponential(shape)))


def record_steps(first: int, last: int, record_every: int | Sequence[int] | None) -> npt.NDArray[np.int64]:
    """Return the steps to record in (first, last], the last one included; by default 20 a decade on a grid that starts at 0."""
    if record_every is None:
        decades = np.log10(max(last, 1)) + 1
        grid = np.unique(np.round(10 ** (np.arange(int(decades * _PER_DECADE) + 1) / _PER_DECADE)).astype(np.int64))
    elif isinstance(record_every, Sequence | np.ndarray) and np.ndim(record_every):
        grid = np.array([ensure_integer("record_every", step) for step in record_every], dtype=np.int64)
    else:
        grid = np.arange(0, last + 1, ensure_integer("record_every", record_every, 1))
    inside = grid[(grid > first) & (grid < last)]
    return np.unique(np.append(inside, last)) if last > first else np.array([], dtype=np.int64)


def solved_target(game: PreferenceGame, equilibrium: Equilibrium | None) -> Equilibrium:
    """Return the equilibrium that KL is measured to: the one given, checked to be this game's, or solved now."""
    ensure_game(game)
    if equilibrium is None:
        return solve(game)
    if not isinstance(equilibrium, Equilibrium):
        raise InputError(f"equilibrium = {equilibrium!r} must be the result of nl.solve(game), or False to do without")
    if equilibrium.fingerprint != game.fingerprint:
        raise InputError("equilibrium is that of another game; it must be nl.solve(game) of this one")
    return equilibrium


def _ensure_keep(keep_policies: Any) -> str | bool | None:
    if keep_policies is None:
        return None
    if isinstance(keep_policies, bool):
        return "all" if keep_policies else False
    return ensure_choice("keep_policies", keep_policies, ("all", "final"))


def _ensure_continues(plan: Plan, start: Trajectory) -> None:
    if start.fingerprint != plan.game.fingerprint:
        raise InputError("start is a trajectory of another game; a run continues only on the game it began on")
    if (start.dynamics, start.params) != (plan.dynamics.name, plan.dynamics.parameters):
        raise InputError(
            f"start is a trajectory of {start.dynamics} with {start.params}, but the method is {plan.dynamics.name} with "
            f"{plan.dynamics.parameters}; a run continues only with the method it began with "
            "(to change the method, start from the final policies)"
        )
    if start.parametrization != _described(plan):
        raise InputError(
            "start is a trajectory of policies with another parametrization, or other features; a run continues only with those "
            "that it began with"
        )
    if "diverged" in start.status:
        raise InputError("start is a trajectory that diverged; there is nothing finite to continue from")


def _states_of(start: Trajectory, plan: Plan) -> list[list[Any]]:
    """Return the stored states of a trajectory as the method's own NamedTuples, by context and group of runs."""
    parts = _parts(plan)
    probe = plan.dynamics.method.init(parts[0][1], plan.dynamics.params, np.array(parts[0][1].log_reference))
    kind = type(probe)

    def restore(numbers: list[int], context: Any) -> Any:
        chosen = numbers if together(plan) else numbers[0]
        fields = {name: start.state[name][chosen, context] for name in kind._fields}
        # A number is common to runs that go together.
        numbers_of = {name: np.ravel(v)[0].item() for name, v in fields.items() if not np.ndim(getattr(probe, name))}
        return kind(**{name: np.array(v) for name, v in fields.items()} | numbers_of)

    return [[restore(numbers, context) for numbers in _groups(plan)] for context, _ in parts]


def _described(plan: Plan) -> Any:
    return "tabular" if plan.shared is None else plan.shared.described


def _log_equilibria(plan: Plan) -> Array | None:
    """Return log π*, shape ``(contexts, n)``, where it is known."""
    if plan.equilibrium is None or plan.equilibrium.status == "failed":
        return None
    return plan.equilibrium.log_policy.reshape(plan.game.n_contexts, plan.game.n)


def _run(plan: Plan, states: list[list[Any]], first: int) -> Trajectory:
    """Run every context of every group of runs from its state at step `first`; the first record is that state."""
    game, dynamics = plan.game, plan.dynamics
    last = first + plan.n_steps
    steps = np.concatenate([[first], record_steps(first, last, plan.record_every)]).astype(np.int64)
    plan = replace(plan, keep_policies=_what_to_keep(plan, len(steps)))
    inner = None if dynamics.method.inner_steps is None else dynamics.method.inner_steps(dynamics.params)
    sizes = StepTable(dynamics.method.scheduled or "", dynamics.step_size or 0.0, first, last, inner)
    loop = loop_of(dynamics, states[0][0]._fields, plan.compiled)
    log_equilibria = _log_equilibria(plan)
    rows = None if plan.shared is None else game.contexts
    in_place = plan.compiled and dynamics.method.kernel is not None
    recorders = []
    for (k, context), of_part in zip(_parts(plan), states):
        target = None if log_equilibria is None else log_equilibria[k]
        for numbers, state in zip(_groups(plan), of_part):
            runs = f"runs {numbers[0] + 1} to {numbers[-1] + 1}" if len(numbers) > 1 else f"run {numbers[0] + 1}"
            _LOGGER.info("%s: %s of %d, %d steps", dynamics.name, runs, plan.runs, plan.n_steps)
            # Contexts that share θ are the rows of their run.
            numbers, stacked = (numbers, together(plan)) if rows is None else (numbers * game.n_contexts, True)
            runs_of = ContextRuns(loop, context, dynamics.params, state, target, numbers, stacked, in_place, rows)
            runs_of.go(steps, sizes, keep=plan.keep_policies == "all")
            recorders.append(runs_of)
    return _collect(plan, steps, recorders)


def _what_to_keep(plan: Plan, records: int) -> str | bool:
    if plan.keep_policies is not None:
        return plan.keep_policies
    size = 8 * plan.runs * records * plan.game.n * plan.game.n_contexts
    return "all" if size <= _KEPT_BYTES else "final"


def _collect(plan: Plan, steps: npt.NDArray[np.int64], recorders: list[ContextRuns]) -> Trajectory:
    """Gather the records, context after context and in it group after group."""
    game, dynamics = plan.game, plan.dynamics
    counted = dynamics.method.oracle_calls
    calls = np.nan if counted is None else float(counted(dynamics.params))
    # One entry for each run and context, or each run whose contexts share θ.
    lost = [(run, at) for r in recorders for run, at in zip(r.numbers, r.diverged_at) if at is not None]
    diverged = sorted(lost if plan.shared is None else set(lost))
    notes = [f"run {run}: the logits stopped being finite at step {at}; records after that are NaN" for run, at in diverged]
    notes += equilibrium_notes(plan.equilibrium, plan.without)
    parameters = None
    if plan.shared is not None:
        parameters = plan.shared.parameters(np.stack([r.state.logits for r in recorders]))
        notes += plan.shared.notes + _theta_notes(plan.shared, recorders, parameters)

    def gathered(parts: list[Array]) -> Array:
        """Return ``(runs, ..., contexts, ...)`` from parts ``(runs of a group, ...)``: the contexts become axis 1."""
        if plan.shared is not None:
            return np.stack(parts)  # of a run each, ``(contexts, ...)``
        groups = len(parts) // game.n_contexts
        by_context = [np.concatenate(parts[k * groups : (k + 1) * groups]) for k in range(game.n_contexts)]
        return np.stack(by_context, axis=1)

    by_context = {name: gathered([r.values[name] for r in recorders]).swapaxes(1, 2) for name in METRICS}
    log_policies = None
    if plan.keep_policies == "all":
        log_policies = gathered([r.log_policies for r in recorders if r.log_policies is not None]).swapaxes(1, 2)
        log_policies = log_policies if game.batched else log_policies[:, :, 0]
    state = {name: gathered([r.field(name) for r in recorders]) for name in recorders[0].state._fields}
    logits = state["logits"].reshape(plan.runs, *game.policy_shape)
    with np.errstate(all="ignore"):
        final = np.exp(log_softmax(logits)) if plan.keep_policies else None
    gone = {run for run, _ in diverged}
    return Trajectory(
        steps=steps,
        oracle_calls=np.asarray(steps * calls),
        queries=np.zeros(len(steps)),
        by_context=by_context,
        weights=np.array(game.weights),
        log_policies=log_policies,
        final=final,
        parameters=logits if parameters is None else parameters,
        status=tuple("diverged" if run in gone else "completed" for run in range(plan.runs)),
        notes=tuple(notes),
        dynamics=dynamics.name,
        params=dynamics.parameters,
        seed=plan.seed,
        proven_factor=proven_factor(game, dynamics) if plan.shared is None else None,
        fingerprint=game.fingerprint,
        state=state,
        compiled=plan.compiled,
        parametrization=_described(plan),
    )


def _theta_notes(shared: SharedClass, recorders: list[ContextRuns], parameters: Array) -> tuple[str, ...]:
    """Return a note if θ, which is read off the logits by least squares, does not give them back."""
    away = [shared.distance(r.state.logits, theta) for r, theta in zip(recorders, parameters)]
    sizes = [max(1.0, float(np.abs(r.state.logits).max())) for r in recorders]
    worst = max(
        (distance for distance, size in zip(away, sizes) if np.isfinite(distance) and distance > 1e-8 * size), default=0.0
    )
    if worst == 0:
        return ()
    return (f"parameters are approximate: their log-probabilities are up to {worst:.1g} from those of the policies",)


def equilibrium_notes(equilibrium: Equilibrium | None, without: str) -> list[str]:
    """Return what a reader of KL should know about the equilibrium that it is measured to; `without` says why there is none."""
    if equilibrium is None:
        return [f"kl is NaN: {without}"]
    if equilibrium.status == "failed":
        return [f"kl is NaN: the equilibrium was not found ({equilibrium.solver_status})"]
    notes = []
    if equilibrium.status == "approximate":
        notes.append(f"kl is to an equilibrium that is only approximate (KL bound {equilibrium.kl_bound})")
    if equilibrium.unique is False:
        dimension = equilibrium.face_dimension
        several = (
            "one equilibrium of several" if dimension is None else f"the centre of the equilibria, a set of dimension {dimension}"
        )
        notes.append(f"kl is to {several}")
    return notes


def warn_flat(trajectory: Records) -> None:
    """Warn if a run starts at the equilibrium, so that its curves show nothing."""
    at = [run for run in range(trajectory.runs) if trajectory.kl[run, 0] < _AT_EQUILIBRIUM]
    if at:
        who = "the start is" if trajectory.runs == 1 else f"the start of {len(at)} of {trajectory.runs} runs is"
        warnings.warn(
            f"{who} the equilibrium already (KL {trajectory.kl[at[0], 0]:.1e}), so the curves show nothing; "
            "give another start, such as start='random'",
            EquilibriumStartWarning,
            stacklevel=3,
        )
