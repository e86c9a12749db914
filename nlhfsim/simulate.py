"""Running a method on a game: validate what is asked, send every run in every context through the loop, collect the records."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._proven import proven_factor, warn_outside_proven_range
from nlhfsim.dynamics._spec import Dynamics, as_dynamics
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
from nlhfsim.feedback import (
    Feedback,
    Sampled,
    described,
    ensure_feedback,
    ensure_sampled,
    generator_from,
    generator_of,
    sampled_context,
    words_of,
)
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.payoffs import Context, PairwisePayoff
from nlhfsim.loop import ContextRuns, loop_of, loop_of_pairs, term_of
from nlhfsim.loop_cache import AVERAGES
from nlhfsim.pairs import Pairs, start_pairs
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
    feedback: str | Sampled = "exact",
    runs: int = 1,
    seed: int = 0,
    start: npt.ArrayLike | str | Trajectory | None = None,
    record_every: int | Sequence[int] | None = None,
    keep_policies: str | bool | None = None,
    equilibrium: Equilibrium | bool | None = None,
    average: str | None = None,
    threads: int | None = None,
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
    feedback : str or Sampled
        ``"exact"``: a step reads Aπ itself. ``nl.Sampled(batch_size=16, votes=True)``: it sees votes on sampled pairs;
        ``"sampled"`` is ``nl.Sampled()``, one vote an oracle call.
    runs : int
        Number of runs; a `start` of shape ``(runs, ...)`` says it too, or a step size of shape ``(runs,)``. From eight
        on the runs of most methods advance together, which is faster than one after the other.
    seed : int
        Seed of everything random. Each run, and each context in it, has a stream of its own.
    start : array_like, str or Trajectory, optional
        ``"reference"`` (default), ``"uniform"``, ``"random"`` (uniform on the simplex, another one each run and context), a
        policy with full support of shape `game.policy_shape`, one policy a run of shape ``(runs, *game.policy_shape)``, or a
        Trajectory, which is continued bit for bit as if it had never stopped (a schedule of your own must be the same function as
        before: only its name can be compared).
    record_every : int or sequence of int, optional
        Record every k-th step, or at these steps. Default: 20 records a decade. Step 0 and the last step are always recorded.
    keep_policies : "all", "final" or bool, optional
        Which policies the trajectory keeps; True is "all", False none. Default: all of them if they take up to 128 MB, else the
        final ones.
    equilibrium : Equilibrium or False, optional
        The solved equilibrium, so that it is not solved again; False: do without, KL is then NaN. Default: solved here, where the
        game allows it.
    average : "policies" or "parameters", optional
        Record the average of the iterates so far instead of the last one: of the policies π_0 … π_t, or of the logits θ_0 … θ_t
        (Polyak–Ruppert). A method that learns from pairs averages parameters only, at no cost that grows with n.
    threads : int, optional
        Threads that runs with sampled feedback are spread over. Default: one a processor. The results do not depend on it.
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
    ensure_game(game)
    votes = ensure_feedback(feedback)
    target, reason = target_of(game, equilibrium)
    dynamics = as_dynamics(method).resolve(game.contexts)
    if votes is None:
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
        compiled=compiled and compiles(game, dynamics, votes),
        feedback=votes,
        average=_ensure_average(average, dynamics, votes),
        threads=None if threads is None else ensure_integer("threads", threads, 1, 1024),
    )
    trajectory = execute(plan, start)
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
    feedback: Feedback = None
    average: str | None = None
    threads: int | None = None
    stream: str = "runs"
    """Which of the independent streams of votes: those of runs that are reported, or of runs that choose parameters."""

    @property
    def pairs(self) -> Pairs | None:
        """Where the pairs come from, if the method learns from pairs."""
        method = self.dynamics.method
        return None if self.feedback is None or method.pairs is None else method.pairs(self.dynamics.params)


def compiles(game: PreferenceGame, dynamics: Dynamics, feedback: Feedback = None) -> bool:
    """Return whether a method's step is compiled on a game: exact products with a function of the pair are left to NumPy."""
    if feedback is not None:
        return dynamics.method.compiled
    return dynamics.method.compiled and not any(isinstance(context.payoff, PairwisePayoff) for context in game.contexts)


def _ensure_average(average: Any, dynamics: Dynamics, feedback: Feedback) -> str | None:
    """Return what is averaged over time."""
    if average is None:
        return None
    ensure_choice("average", average, AVERAGES)
    if dynamics.method.iterate == "average" and dynamics.method.scheduled is None:
        raise InputError(f"average = {average!r} must not be given: the policy of {dynamics.name} is an average already")
    if average == "policies" and feedback is not None and dynamics.method.pairs is not None:
        raise InputError(
            f"average = 'policies' would cost {dynamics.name} a pass over all actions for every vote; use average='parameters'"
        )
    return str(average)


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
    return execute_from(plan, start_policies(plan.game, start, plan.runs, plan.seed))


def execute_from(plan: Plan, logs: Array) -> Trajectory:
    """Run a plan from log-policies ``(runs, contexts, n)``, without warnings."""
    if isinstance(plan.dynamics.step_size, tuple) and len(logs) != plan.runs:
        raise InputError(
            f"start holds {len(logs)} policies but {plan.dynamics.method.scheduled} {plan.runs} values; they must agree"
        )
    plan = replace(plan, runs=len(logs))
    if plan.feedback is not None:
        ensure_sampled(plan.dynamics, plan.feedback)
    method, params, pairs = plan.dynamics.method, plan.dynamics.params, plan.pairs

    def begun(numbers: list[int], k: int) -> _Begun:
        context = plan.game.contexts[k]
        log_policy = np.array(logs[numbers if together(plan) else numbers[0], k])
        if plan.feedback is not None:
            context = sampled_context(context, plan.feedback, generator_of(plan.seed, numbers[0], k, plan.stream))
        if pairs is not None:
            return _Begun(start_pairs(log_policy, pairs, plan.average is not None), context, None)
        sums = None if plan.average is None else np.array(term_of(plan.average, log_policy))
        return _Begun(method.init(context, params, log_policy), context, sums)

    return _run(plan, [[begun(numbers, k) for numbers in _groups(plan)] for k in range(plan.game.n_contexts)], 0)


class _Begun(NamedTuple):
    """A group of runs in one context where it begins, or goes on: the state, what the steps see, the sums of an average."""

    state: Any
    seen: Context
    sums: Array | None


def together(plan: Plan) -> bool:
    """Return whether the runs of a plan advance as one; whatever the steps, so that a continuation has the same bits."""
    alone = plan.feedback is not None or plan.average is not None
    return plan.runs >= _MANY and plan.dynamics.method.together and not alone


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
    for name, before, now in (
        ("feedback", start.feedback, described(plan.feedback)),
        ("average", start.average, plan.average),
    ):
        if before != now:
            raise InputError(f"start is a trajectory with {name} = {before!r}, but {name} = {now!r} now; they must agree")
    if "diverged" in start.status:
        raise InputError("start is a trajectory that diverged; there is nothing finite to continue from")


def _states_of(start: Trajectory, plan: Plan) -> list[list[_Begun]]:
    """Return what is stored in a trajectory as the method's own NamedTuples, by context and group of runs."""
    first, zeros = plan.game.contexts[0], np.zeros(plan.game.n)
    if plan.pairs is not None:
        probe: Any = start_pairs(zeros, plan.pairs, plan.average is not None)
    else:
        if plan.feedback is not None:
            first = sampled_context(first, plan.feedback, generator_of(0, 0, 0))
            first = first._replace(payoff=first.payoff._replace(batch_size=0))  # asks nothing
        probe = plan.dynamics.method.init(first, plan.dynamics.params, zeros)
    kind = type(probe)

    def restored(numbers: list[int], k: int) -> _Begun:
        chosen = numbers if together(plan) else numbers[0]
        fields = {name: start.state[name][chosen, k] for name in kind._fields}
        # A number is common to runs that go together.
        numbers_of = {name: np.ravel(v)[0].item() for name, v in fields.items() if not np.ndim(getattr(probe, name))}
        state = kind(**{name: np.array(v) for name, v in fields.items()} | numbers_of)
        context = plan.game.contexts[k]
        if plan.feedback is not None:
            context = sampled_context(context, plan.feedback, generator_from(start.state["generator"][numbers[0], k]))
        sums = np.array(start.state["sums"][numbers[0], k]) if "sums" in start.state else None
        return _Begun(state, context, sums)

    return [[restored(numbers, k) for numbers in _groups(plan)] for k in range(plan.game.n_contexts)]


def _run(plan: Plan, begun: list[list[_Begun]], first: int) -> Trajectory:
    """Run every context of every group of runs from where it is at step `first`; the first record is that state."""
    game, dynamics = plan.game, plan.dynamics
    last = first + plan.n_steps
    steps = np.concatenate([[first], record_steps(first, last, plan.record_every)]).astype(np.int64)
    plan = replace(plan, keep_policies=_what_to_keep(plan, len(steps)))
    inner = None if dynamics.method.inner_steps is None else dynamics.method.inner_steps(dynamics.params)
    sizes = StepTable(dynamics.method.scheduled or "", dynamics.step_size or 0.0, first, last, inner)
    params = dynamics.params if plan.pairs is None else plan.pairs
    if plan.pairs is None:
        loop = loop_of(dynamics, begun[0][0].state._fields, plan.compiled, plan.average)
    else:
        loop = loop_of_pairs(plan.compiled)
    log_equilibria = None
    if plan.equilibrium is not None and plan.equilibrium.status != "failed":
        log_equilibria = plan.equilibrium.log_policy.reshape(game.n_contexts, game.n)
    in_place = plan.compiled and dynamics.method.kernel is not None
    recorders = []
    for k, context in enumerate(game.contexts):
        target = None if log_equilibria is None else log_equilibria[k]
        # One for all runs: a preference function that is compiled is compiled again for it.
        called = _called_from_compiled(context.payoff) if plan.compiled and plan.feedback is not None else None
        for numbers, at in zip(_groups(plan), begun[k]):
            seen = at.seen if called is None else _for_compiled(at.seen, called)
            group = ContextRuns(loop, context, seen, params, at.state, target, numbers, together(plan), in_place)
            recorders.append(replace(group, average=plan.average, sums=at.sums))
    _go(plan, recorders, steps, sizes)
    return _collect(plan, steps, recorders)


def _called_from_compiled(payoff: Any) -> Any:
    """Return a payoff whose preference function compiled code can call."""
    from nlhfsim.kernels import callable_payoff

    return callable_payoff(payoff)


def _for_compiled(context: Context, called: Any) -> Context:
    """Return a sampled context as compiled code takes it: the words of the generator, a payoff that it can call."""
    sampled = context.payoff
    return context._replace(payoff=sampled._replace(payoff=called, generator=words_of(sampled.generator)))


def _go(plan: Plan, recorders: list[ContextRuns], steps: npt.NDArray[np.int64], sizes: StepTable) -> None:
    """Let all groups of runs go, those with sampled feedback on several threads, as compiled steps need no interpreter."""
    name = plan.dynamics.name

    def go(group: ContextRuns) -> None:
        numbers = group.numbers
        runs = f"runs {numbers[0] + 1} to {numbers[-1] + 1}" if len(numbers) > 1 else f"run {numbers[0] + 1}"
        _LOGGER.info("%s: %s of %d, %d steps", name, runs, plan.runs, plan.n_steps)
        group.go(steps, sizes, keep=plan.keep_policies == "all")

    threads = min(plan.threads or _processors(), len(recorders))
    if plan.feedback is None or not plan.compiled or threads == 1:
        for group in recorders:
            go(group)
        return
    go(recorders[0])  # compiles
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(go, group) for group in recorders[1:]]
        try:
            for future in futures:
                future.result()
        except BaseException:
            for group in recorders:
                group.stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


def _processors() -> int:
    """Return how many processors may be used; only some systems tell which of them this process is held to."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


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
    # One entry for each run and context.
    diverged = sorted((run, at) for r in recorders for run, at in zip(r.numbers, r.diverged_at) if at is not None)
    notes = [f"run {run}: the logits stopped being finite at step {at}; records after that are NaN" for run, at in diverged]
    notes += equilibrium_notes(plan.equilibrium, plan.without)
    notes += [note for note in dict.fromkeys(r.unmeasured for r in recorders) if note]

    def gathered(parts: list[Any]) -> Array:
        """Return ``(runs, ..., contexts, ...)`` from parts ``(runs of a group, ...)``: the contexts become axis 1."""
        groups = len(parts) // game.n_contexts
        by_context = [np.concatenate(parts[k * groups : (k + 1) * groups]) for k in range(game.n_contexts)]
        return np.stack(by_context, axis=1)

    by_context = {name: gathered([r.values[name] for r in recorders]).swapaxes(1, 2) for name in METRICS}
    log_policies = None
    if plan.keep_policies == "all":
        log_policies = gathered([r.log_policies for r in recorders if r.log_policies is not None]).swapaxes(1, 2)
        log_policies = log_policies if game.batched else log_policies[:, :, 0]
    state = {name: gathered([r.part(name) for r in recorders]) for name in recorders[0].state._fields}
    if plan.feedback is not None:
        generators = [r.seen.payoff.generator for r in recorders]
        state["generator"] = gathered([(g if plan.compiled else words_of(g))[None] for g in generators])
    if recorders[0].sums is not None:
        state["sums"] = gathered([r.sums[None] for r in recorders if r.sums is not None])
    shown = gathered([r.shown(int(steps[-1])) for r in recorders]).reshape(plan.runs, *game.policy_shape)
    logits = state["logits"].reshape(plan.runs, *game.policy_shape)
    with np.errstate(all="ignore"):
        final = np.exp(log_softmax(shown)) if plan.keep_policies else None
    gone = {run for run, _ in diverged}
    return Trajectory(
        steps=steps,
        oracle_calls=np.asarray(steps * calls),
        queries=_queries(plan, steps),
        by_context=by_context,
        weights=np.array(game.weights),
        log_policies=log_policies,
        final=final,
        parameters=logits,
        status=tuple("diverged" if run in gone else "completed" for run in range(plan.runs)),
        notes=tuple(notes),
        dynamics=dynamics.name,
        params=dynamics.parameters,
        seed=plan.seed,
        proven_factor=None if plan.feedback else proven_factor(game, dynamics),
        fingerprint=game.fingerprint,
        state=state,
        compiled=plan.compiled,
        feedback=described(plan.feedback),
        average=plan.average,
    )


def _queries(plan: Plan, steps: npt.NDArray[np.int64]) -> Array:
    """Return the queries spent at each record, those of the first look included."""
    counted = plan.dynamics.method.oracle_calls
    if plan.feedback is None or counted is None:
        return np.zeros(len(steps))
    calls = steps * float(counted(plan.dynamics.params)) + plan.dynamics.method.initial_calls
    return np.asarray(calls * plan.feedback.batch_size)


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
