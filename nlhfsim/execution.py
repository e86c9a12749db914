"""Running a plan: every run in every context goes through the loop, on several threads where that pays; then the records."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._proven import proven_factor
from nlhfsim.dynamics.schedules import StepTable
from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import Array, InputError, ensure_integer
from nlhfsim.feedback import CANDIDATES, described, ensure_sampled, generator_from, generator_of, sampled_context, words_of
from nlhfsim.games.payoffs import Context, PairwisePayoff
from nlhfsim.games.votes import SampledPayoff, estimate_to
from nlhfsim.log_linear.attainable import attainable_of
from nlhfsim.log_linear.shared import SharedClass, SharedPayoff
from nlhfsim.log_linear.votes import HELPERS, estimate_all_to, start_shared_pairs
from nlhfsim.loop import ContextRuns, loop_of, loop_of_pairs, mean_of, term_of
from nlhfsim.pairs import start_pairs
from nlhfsim.plan import Plan, starts_of
from nlhfsim.simplex import log_softmax
from nlhfsim.trajectory import METRICS, Trajectory, joined

_LOGGER = logging.getLogger(__name__)
_PER_DECADE = 20
_KEPT_BYTES = 2**27
_NOTED = 8
"""Up to so many runs that diverged are noted one by one."""


def execute(plan: Plan, start: npt.ArrayLike | str | Trajectory | None) -> Trajectory:
    """Run a plan from a start, without warnings."""
    if isinstance(start, Trajectory):
        _ensure_continues(plan, start)
        first = int(start.steps[-1])
        if plan.runs not in (1, start.runs):
            raise InputError(f"start holds {start.runs} runs but runs = {plan.runs}; they must agree")
        plan = replace(plan, runs=start.runs, seed=start.seed)
        return joined(start, _run(plan, _restored(plan, start), first))
    return execute_from(plan, starts_of(plan, start))


def execute_from(plan: Plan, logs: Array) -> Trajectory:
    """Run a plan from log-policies ``(runs, contexts, n)``, without warnings."""
    if isinstance(plan.dynamics.step_size, tuple) and len(logs) != plan.runs:
        raise InputError(
            f"start holds {len(logs)} policies but {plan.dynamics.method.scheduled} {plan.runs} values; they must agree"
        )
    plan = replace(plan, runs=len(logs))
    if plan.feedback is not None:
        ensure_sampled(plan.dynamics, plan.feedback)

    def begun(numbers: list[int], part: int, index: Any) -> _Begun:
        generator = None if plan.feedback is None else generator_of(plan.seed, numbers[0], part, plan.stream)
        seen = _seen(plan, part, generator)
        log_policy = np.array(logs[numbers if plan.together else numbers[0], index])
        sums = None if plan.average is None or plan.pairs is not None else np.array(term_of(plan.average, log_policy))
        return _Begun(_initial(plan, seen, log_policy), seen, sums)

    return _run(plan, [[begun(numbers, k, index) for numbers in _groups(plan)] for k, index in enumerate(_parts(plan))], 0)


def with_attainable(plan: Plan, trajectory: Trajectory, start: Any) -> Trajectory:
    """Return a trajectory of log-linear policies with what they can attain; a tabular one as it is."""
    if plan.shared is None:
        return trajectory
    target, without = _log_equilibria(plan), plan.without or "the equilibrium was not found"
    found = attainable_of(plan.shared, target, without, _last_shown(plan, trajectory), trajectory.seed)
    former = start.attainable if isinstance(start, Trajectory) else None
    kept = [note for note in trajectory.notes if former is None or note not in former.notes]
    return replace(trajectory, attainable=found, notes=(*kept, *found.notes))


def _last_shown(plan: Plan, trajectory: Trajectory) -> Array:
    """Return the logits of what was recorded last, shape ``(runs, contexts, n)``: those of the last θ, or of the average."""
    state = trajectory.state
    if "sums" in state:
        return mean_of(plan.average, state["sums"], int(trajectory.steps[-1]) + 1)
    return state.get("shown", state["logits"])


class _FirstLook(NamedTuple):
    """A payoff that answers with votes by compiled code, before the loop; its generator goes on."""

    sampled: SampledPayoff

    def product(self, policy: Array) -> Array:
        """Return the estimate of Aπ."""
        from nlhfsim import kernels

        generator, out = self.sampled.generator, np.empty(policy.shape)
        words = words_of(generator)
        kernels.compile_whole(estimate_to)(out, self.sampled._replace(generator=words), policy)
        generator.bit_generator.state = generator_from(words).bit_generator.state
        return out


class _Begun(NamedTuple):
    """A group of runs in one part where it begins, or goes on: the state, what the steps see, the sums of an average."""

    state: Any
    seen: Context
    sums: Array | None


def _parts(plan: Plan) -> list[Any]:
    """Return what goes through the loop on its own, as an index of contexts: each of them, or all that share parameters."""
    return list(range(plan.game.n_contexts)) if plan.shared is None else [slice(None)]


def _groups(plan: Plan) -> list[list[int]]:
    """Return the numbers of the runs that go through the loop together."""
    return [list(range(plan.runs))] if plan.together else [[run] for run in range(plan.runs)]


def _seen(plan: Plan, part: int, generator: np.random.Generator | None) -> Context:
    """Return a part of the game as steps see it; with votes if there is a generator of them."""
    feedback, shared = plan.feedback, plan.shared
    if shared is None:
        context = plan.game.contexts[part]
        return context if feedback is None or generator is None else sampled_context(context, feedback, generator)
    context = shared.seen(plan.dynamics.method.log_linear or "")
    if feedback is None or generator is None:
        return context
    votes = shared.voting(feedback.batch_size, feedback.votes, CANDIDATES[feedback.candidates], generator)
    return context._replace(payoff=votes if plan.pairs is not None else replace(context.payoff, votes=votes))


def _initial(plan: Plan, seen: Context, log_policy: Array) -> Any:
    """Return the state that runs begin with, at a log-policy ``([contexts or runs,] n)``."""
    looks = plan.dynamics.method.initial_calls and plan.compiled and isinstance(seen.payoff, SampledPayoff)
    # A preference function would be made callable, maybe compiled, for every run, for one batch: that one is left to Python.
    if looks and not isinstance(seen.payoff.payoff, PairwisePayoff):
        seen = seen._replace(payoff=_FirstLook(seen.payoff))
    pairs, average = plan.pairs, plan.average is not None
    if pairs is None:
        return plan.dynamics.method.init(seen, plan.dynamics.params, log_policy)
    if plan.shared is None:
        return start_pairs(log_policy, pairs, average)
    return start_shared_pairs(log_policy, plan.shared.parameters(log_policy[None])[0], pairs, average)


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
    if start.parametrization != _described(plan):
        raise InputError(
            "start is a trajectory of policies with another parametrization, or other features; a run continues only with those "
            "that it began with"
        )
    if "diverged" in start.status:
        raise InputError("start is a trajectory that diverged; there is nothing finite to continue from")


def _restored(plan: Plan, start: Trajectory) -> list[list[_Begun]]:
    """Return what is stored in a trajectory as the method's own NamedTuples, by part and group of runs."""
    index = _parts(plan)[0]
    seen = _silent(_seen(plan, 0, None if plan.feedback is None else generator_of(0, 0, 0)))
    probe = _initial(plan, seen, np.array(plan.game.log_reference.reshape(plan.game.n_contexts, -1)[index]))
    kind = type(probe)

    def restored(numbers: list[int], part: int, index: Any) -> _Begun:
        chosen = numbers if plan.together else numbers[0]
        fields = {name: start.state[name][chosen, index] for name in kind._fields}
        # A number is common to runs that go together.
        numbers_of = {name: np.ravel(v)[0].item() for name, v in fields.items() if not np.ndim(getattr(probe, name))}
        state = kind(**{name: np.array(v) for name, v in fields.items()} | numbers_of)
        generator = None if plan.feedback is None else generator_from(start.state["generator"][numbers[0], part])
        sums = np.array(start.state["sums"][numbers[0], index]) if "sums" in start.state else None
        return _Begun(state, _seen(plan, part, generator), sums)

    return [[restored(numbers, k, index) for numbers in _groups(plan)] for k, index in enumerate(_parts(plan))]


def _silent(context: Context) -> Context:
    """Return a context that answers without asking for votes."""
    payoff: Any = context.payoff
    if isinstance(payoff, SharedPayoff):
        silent = None if payoff.votes is None else payoff.votes._replace(batch_size=0)
        return context._replace(payoff=replace(payoff, votes=silent))
    return context._replace(payoff=payoff._replace(batch_size=0)) if hasattr(payoff, "batch_size") else context


def _described(plan: Plan) -> Any:
    return "tabular" if plan.shared is None else plan.shared.described


def _log_equilibria(plan: Plan) -> Array | None:
    """Return log π*, shape ``(contexts, n)``, where it is known."""
    if plan.equilibrium is None or plan.equilibrium.status == "failed":
        return None
    return plan.equilibrium.log_policy.reshape(plan.game.n_contexts, plan.game.n)


def _run(plan: Plan, begun: list[list[_Begun]], first: int) -> Trajectory:
    """Run every part of every group of runs from where it is at step `first`; the first record is that state."""
    game, dynamics, shared = plan.game, plan.dynamics, plan.shared
    last = first + plan.n_steps
    steps = np.concatenate([[first], record_steps(first, last, plan.record_every)]).astype(np.int64)
    plan = replace(plan, keep_policies=_what_to_keep(plan, len(steps)))
    inner = None if dynamics.method.inner_steps is None else dynamics.method.inner_steps(dynamics.params)
    sizes = StepTable(dynamics.method.scheduled or "", dynamics.step_size or 0.0, first, last, inner)
    if plan.pairs is None:
        loop = loop_of(dynamics, begun[0][0].state._fields, plan.loop_compiled, plan.average)
    else:
        loop = loop_of_pairs(plan.loop_compiled, shared is not None)
    params = dynamics.params if plan.pairs is None else plan.pairs
    in_place = plan.loop_compiled and plan.pairs is None and dynamics.method.kernel is not None
    log_equilibria = _log_equilibria(plan)
    recorders = []
    for index, of_part in zip(_parts(plan), begun):
        target = None if log_equilibria is None else log_equilibria[index]
        context = game.contexts[index] if shared is None else shared.context
        for numbers, at, seen in zip(_groups(plan), of_part, _for_compiled(plan, [at.seen for at in of_part])):
            # Contexts that share θ are the rows of their run.
            rows, stacked = (numbers, plan.together) if shared is None else (numbers * game.n_contexts, True)
            group = ContextRuns(loop, context, seen, params, at.state, target, rows, stacked, in_place)
            recorders.append(replace(group, average=plan.average, sums=at.sums, rows=None if shared is None else game.contexts))
    _go(plan, recorders, steps, sizes)
    return _collect(plan, steps, recorders)


def _for_compiled(plan: Plan, seen: list[Context]) -> list[Context]:
    """Return what steps see as compiled code takes it, one entry a group of runs: words of the generator, functions to call."""
    estimated = plan.compiled and plan.pairs is None and plan.shared is not None and plan.shared.compiles
    if plan.feedback is None or not (plan.loop_compiled or estimated):
        return seen
    from nlhfsim import kernels

    first: Any = seen[0].payoff
    estimates = isinstance(first, SharedPayoff)
    votes = first.votes if estimates else first
    # One for all runs: a preference function that is compiled is compiled again for it.
    called = kernels.callable_payoff(votes.payoff)
    changed = []
    for context in seen:
        payoff: Any = context.payoff
        old = payoff.votes if estimates else payoff
        new = old._replace(payoff=called, generator=words_of(old.generator))
        if estimates:
            new = replace(payoff, votes=new, estimate=kernels.compile_whole(estimate_all_to, HELPERS))
        changed.append(context._replace(payoff=new))
    return changed


def _words(seen: Context) -> Any:
    """Return the words of the generator behind what steps see."""
    payoff: Any = seen.payoff
    votes: Any = payoff.votes if isinstance(payoff, SharedPayoff) else payoff
    generator = votes.generator
    return generator if isinstance(generator, np.ndarray) else words_of(generator)


def _go(plan: Plan, recorders: list[ContextRuns], steps: npt.NDArray[np.int64], sizes: StepTable) -> None:
    """Let all groups of runs go, those with sampled feedback on several threads, as compiled steps need no interpreter."""
    name = plan.dynamics.name

    def go(group: ContextRuns) -> None:
        numbers = sorted(set(group.numbers))
        runs = f"runs {numbers[0] + 1} to {numbers[-1] + 1}" if len(numbers) > 1 else f"run {numbers[0] + 1}"
        _LOGGER.info("%s: %s of %d, %d steps", name, runs, plan.runs, plan.n_steps)
        group.go(steps, sizes, keep=plan.keep_policies == "all")

    threads = min(plan.threads or _processors(), len(recorders))
    if plan.feedback is None or not plan.loop_compiled or threads == 1:
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
    # One entry for each run and context, or each run whose contexts share θ.
    lost = [(run, at) for r in recorders for run, at in zip(r.numbers, r.diverged_at) if at is not None]
    diverged = sorted(lost if plan.shared is None else set(lost))
    notes = _divergence_notes(diverged) + equilibrium_notes(plan.equilibrium, plan.without)
    notes += [note for note in dict.fromkeys(r.unmeasured for r in recorders) if note]
    parameters = None
    if plan.shared is not None:
        parameters = _thetas(plan.shared, recorders)
        notes += plan.shared.notes + _theta_notes(plan.shared, recorders, parameters)

    def gathered(parts: list[Any]) -> Array:
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
    state = {name: gathered([r.part(name) for r in recorders]) for name in recorders[0].state._fields}
    if plan.feedback is not None:
        state["generator"] = gathered([_words(r.seen)[None] for r in recorders])
    if recorders[0].sums is not None:
        state["sums"] = gathered([r.sums if plan.shared is not None else r.sums[None] for r in recorders if r.sums is not None])
    shown = gathered([r.shown(int(steps[-1])) for r in recorders]).reshape(plan.runs, *game.policy_shape)
    logits = state["logits"].reshape(plan.runs, *game.policy_shape)
    with np.errstate(all="ignore"):
        final = np.exp(log_softmax(shown)) if plan.keep_policies else None
    gone = {run for run, _ in diverged}
    notes += _frozen_note(plan, by_context["min_probability"][:, -1].min(axis=-1))
    return Trajectory(
        steps=steps,
        oracle_calls=np.asarray(steps * calls),
        queries=_queries(plan, steps),
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
        proven_factor=proven_factor(game, dynamics) if plan.shared is None and plan.feedback is None else None,
        fingerprint=game.fingerprint,
        state=state,
        compiled=plan.loop_compiled,
        feedback=described(plan.feedback),
        average=plan.average,
        parametrization=_described(plan),
    )


def _divergence_notes(diverged: list[tuple[int, int]]) -> list[str]:
    """Return a note a run that diverged, with its step; of many runs the first ones and how many more."""
    notes = [f"run {run}: the logits stopped being finite at step {at}; records after that are NaN" for run, at in diverged]
    if len(notes) > _NOTED:
        notes[_NOTED - 1 :] = [f"{len(notes) - _NOTED + 1} more runs: the same, at step {min(at for _, at in diverged)} or later"]
    return notes


def _frozen_note(plan: Plan, smallest: Array) -> list[str]:
    """Return a note if votes drove runs to policies that give some action no probability at all."""
    frozen = np.flatnonzero(smallest == 0)
    if plan.feedback is None or not len(frozen):
        return []
    who = f"run {frozen[0]}" if len(frozen) == 1 else f"{len(frozen)} runs"
    return [f"{who}: some probabilities are 0 to rounding at the end, so that no votes bring them back: the steps are too large"]


def _queries(plan: Plan, steps: npt.NDArray[np.int64]) -> Array:
    """Return the queries spent at each record, those of the first look included."""
    counted = plan.dynamics.method.oracle_calls
    if plan.feedback is None or counted is None:
        return np.zeros(len(steps))
    calls = steps * float(counted(plan.dynamics.params)) + plan.dynamics.method.initial_calls
    return np.asarray(calls * plan.feedback.batch_size)


def _thetas(shared: SharedClass, recorders: list[ContextRuns]) -> Array:
    """Return the last θ of each run, shape ``(runs, d)``: that of the state, else read off the logits."""
    if hasattr(recorders[0].state, "theta"):
        return np.stack([r.state.theta for r in recorders])
    return shared.parameters(np.stack([r.state.logits for r in recorders]))


def _theta_notes(shared: SharedClass, recorders: list[ContextRuns], parameters: Array) -> tuple[str, ...]:
    """Return a note if θ, which is read off the logits by least squares, does not give them back."""
    away = [shared.distance(r.state.logits, theta) for r, theta in zip(recorders, parameters)]
    sizes = [max(1.0, float(np.abs(r.state.logits).max())) for r in recorders]
    worst = max((far for far, size in zip(away, sizes) if np.isfinite(far) and far > 1e-8 * size), default=0.0)
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
