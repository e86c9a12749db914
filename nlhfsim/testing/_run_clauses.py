"""The clauses of the contract about whole runs, as `nlhfsim.simulate` makes them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.dynamics.schedules import inverse_time
from nlhfsim.errors import Array, InputError
from nlhfsim.feedback import Sampled
from nlhfsim.games.game import PreferenceGame
from nlhfsim.simulate import simulate
from nlhfsim.solvers import tolerance
from nlhfsim.testing._subject import Check, Clause, Skipped, Subject, derangement, differing, distance, log_policy
from nlhfsim.trajectory import Trajectory, load

RUNS = 9
"""So many runs go through the loop together."""


def declarations(subject: Subject) -> Iterator[Check]:
    """Metadata take the values they may have, `init` starts at the policy, and the safe step is a number everywhere."""
    method = subject.method.method
    known = (("fixed_point", ("nash", "biased", "none")), ("iterate", ("last", "average")))
    for name, values in (*known, ("log_linear", (None, "mirror", "gradient"))):
        wrong = getattr(method, name) not in values
        yield Check(f"{name} = {getattr(method, name)!r}, of which the known values are {values}: unknown", float(wrong), 0)
    for at in subject.situations():
        state = method.init(at.context, at.method.params, np.log(at.policy))
        named = getattr(state, "_fields", ("nothing",))[0]
        yield Check(
            f"first field of the state, which is called {named!r}, other than 'logits'", float(named != "logits"), 0, at.name
        )
        off = distance(log_policy(state), np.log(at.policy))
        yield Check("distance of log π of the first state from the start", off, 1e-13 * (1 - np.log(at.policy).min()), at.name)


def safe_step(subject: Subject) -> Iterator[Check]:
    """A positive finite step size is named on every game, also without regularization and for one action."""
    method = subject.method.method
    if method.scheduled is None:
        raise Skipped("the method has no step size")
    if method.safe_step is None:
        raise Skipped("the method names no safe step")
    for name, game in [*subject.games.items(), ("", PreferenceGame([[0.5]], 0.1))]:
        for at in (game, game.with_beta(0.0)):
            sizes = [float(method.safe_step(context, subject.method.params)) for context in at.contexts]
            wrong = sum(not (np.isfinite(size) and size > 0) for size in sizes)
            yield Check(f"contexts, at β = {at.beta:g}, whose safe step is not positive: {sizes}", float(wrong), 0, name)
            yield Check(
                f"entries, at β = {at.beta:g}, that are not finite after three safe steps", _unfinished(subject, at), 0, name
            )


def _unfinished(subject: Subject, game: PreferenceGame) -> float:
    """Return how many probabilities are no numbers after three safe steps; a method may refuse a game without regularization."""
    try:
        final = simulate(game, subject.safe(game), 3, equilibrium=False).final
    except InputError:
        if game.beta == 0:
            return 0.0
        raise
    assert final is not None
    return float((~np.isfinite(final)).sum())


def simplex(subject: Subject) -> Iterator[Check]:
    """At the safe step every policy of a run is finite, positive in log space and adds up to 1."""
    for name, game in subject.games.items():
        run = simulate(game, subject.safe(game), 40, start=subject.starts(name), equilibrium=False, record_every=1)
        assert run.log_policies is not None
        yield Check("runs that did not stay finite for 40 safe steps", float(run.status.count("diverged")), 0, name)
        off = distance(np.exp(run.log_policies).sum(axis=-1), 1.0)
        yield Check("distance of the sum of probabilities from 1", off, 1e-13 * game.n, name)


def seeds(subject: Subject) -> Iterator[Check]:
    """Two calls with one seed agree in every bit; with votes too, where the method learns from them."""
    name, game = _with_contexts(subject)
    method = subject.constant(game)
    feedbacks: list[Any] = ["exact"]
    if not method.method.unsampled(method.params):
        feedbacks.append(Sampled(batch_size=2))
    for feedback in feedbacks:
        options: dict[str, Any] = {"runs": 3, "seed": subject.seed, "start": "random", "feedback": feedback}
        first, again = (simulate(game, method, 7, equilibrium=False, compiled=False, **options) for _ in range(2))
        kind = "exact" if feedback == "exact" else "sampled"
        yield Check(f"log-probabilities that differ between {kind} runs of one seed", _different(first, again), 0, name)


def _different(one: Trajectory, other: Trajectory) -> float:
    return differing(one.log_policies, other.log_policies) + differing(one.parameters, other.parameters)


def _variants(subject: Subject, game: PreferenceGame) -> list[Dynamics]:
    """Return the method, and with a schedule if it can have one and has none."""
    method = subject.method.resolve(game.contexts)
    if method.method.scheduled is None or callable(method.step_size) or isinstance(method.step_size, tuple):
        return [method]
    return [method, method.with_step(inverse_time(5.0 * float(method.step_size or 1.0), 5.0))]


def continuation(subject: Subject) -> Iterator[Check]:
    """run(5) continued by 6 is run(11) in every bit, also through a file, also with a schedule."""
    for name, game in subject.games.items():
        for method in _variants(subject, game):
            start = _starts(subject, name, method)
            whole = simulate(game, method, 11, start=start, record_every=[5], equilibrium=False)
            part = simulate(game, method, 5, start=start, record_every=100, equilibrium=False)
            with tempfile.TemporaryDirectory() as folder:
                saved = load(part.save(Path(folder) / "part.npz"))
            for begun, how in ((part, ""), (saved, " through a file")):
                joined = simulate(game, method, 6, start=begun, record_every=100, equilibrium=False)
                off = _different(joined, whole) + differing(joined.oracle_calls, whole.oracle_calls)
                off += sum(differing(joined.state[key], values) for key, values in whole.state.items())
                yield Check(f"entries that differ between run(5) continued by 6{how} and run(11)", off, 0, name)


def _starts(subject: Subject, name: str, method: Dynamics) -> Array:
    """Return the starts of a game, as many as the method has step sizes if it has several."""
    starts = subject.starts(name)
    return np.resize(starts, (len(method.step_size), *starts.shape[1:])) if isinstance(method.step_size, tuple) else starts


def relabelling(subject: Subject) -> Iterator[Check]:
    """Permuting the actions of the game and of the start permutes the run."""
    for name, game in subject.games.items():
        order = derangement(game.n, subject.seed + 1)
        method, starts = subject.constant(game), subject.starts(name)
        renamed = _permuted(game, order)
        one = simulate(game, method, 6, start=starts, equilibrium=False).log_policies
        other = simulate(renamed, method, 6, start=starts[..., order], equilibrium=False).log_policies
        assert one is not None and other is not None
        allowed = 1e-11 * (1 + np.abs(one).max())
        yield Check("distance of log π from that with the actions renamed", distance(one[..., order], other), allowed, name)


def _permuted(game: PreferenceGame, order: Any) -> PreferenceGame:
    preferences = game.preferences[..., order[:, None], order]
    weights = game.weights if game.batched else None
    return PreferenceGame(preferences, game.beta, game.reference[..., order], weights=weights)


def _with_contexts(subject: Subject) -> tuple[str, PreferenceGame]:
    """Return a game with several contexts: one of those given, or two copies of one, the actions of the second in reverse."""
    for name, game in subject.games.items():
        if game.n_contexts > 1:
            return name, game
    name, game = min(subject.games.items(), key=lambda item: item[1].n)
    first = game.context(0)
    reverse = np.arange(game.n)[::-1]
    P, rho = first.preferences, first.reference
    both = PreferenceGame(np.stack([P, P[np.ix_(reverse, reverse)]]), game.beta, np.stack([rho, rho[reverse] + rho]) / [[1], [2]])
    return f"{name} twice", both


def contexts(subject: Subject) -> Iterator[Check]:
    """A game with contexts runs as its contexts do one by one."""
    name, game = _with_contexts(subject)
    rng = np.random.default_rng(subject.seed + 2)
    start = rng.dirichlet(np.ones(game.n), size=(2, game.n_contexts))
    method = subject.constant(game)
    whole = simulate(game, method, 9, start=start, equilibrium=False).log_policies
    assert whole is not None
    for k in range(game.n_contexts):
        alone = simulate(game.context(k), method, 9, start=start[:, k], equilibrium=False).log_policies
        allowed = 1e-12 * (1 + np.abs(whole).max())
        yield Check(f"distance of log π in context {k} from that context alone", distance(whole[:, :, k], alone), allowed, name)


def compiled(subject: Subject) -> Iterator[Check]:
    """The compiled step is the plain step."""
    if not subject.method.method.compiled:
        raise Skipped("the step is declared not to be compiled")
    if subject.method.method.kernel is not None:
        raise Skipped("the kernel is compiled in its place")
    yield from _against_plain(subject)


def kernel(subject: Subject) -> Iterator[Check]:
    """The kernel, compiled, is the plain step."""
    if subject.method.method.kernel is None:
        raise Skipped("the method has no kernel")
    yield from _against_plain(subject)


def _against_plain(subject: Subject) -> Iterator[Check]:
    for name, game in subject.games.items():
        for one in _variants(subject, game):
            options: dict[str, Any] = {"start": _starts(subject, name, one), "equilibrium": False}
            fast, slow = (simulate(game, one, 6, compiled=fast, **options) for fast in (True, False))
            allowed = 1e-13 * (1 + np.abs(slow.log_policies).max())  # type: ignore[arg-type]
            yield Check(
                "distance of compiled log π from the plain one", distance(fast.log_policies, slow.log_policies), allowed, name
            )


def together(subject: Subject) -> Iterator[Check]:
    """Runs that advance together, each with a step size of its own, are what they are alone, compiled and plain."""
    if not subject.method.method.together:
        raise Skipped("the step does not take many runs at once (together=False)")
    for name, stored in subject.games.items():
        game = stored.materialized()  # how a payoff is stored is not the step's business, and another form compiles again
        method, shares = subject.constant(game), np.linspace(0.2, 1.0, RUNS)
        sizes = None if method.method.scheduled is None else float(method.step_size or 0.0) * shares  # type: ignore[arg-type]
        starts = np.resize(subject.starts(name), (RUNS, *game.policy_shape))
        for fast in (True, False) if method.method.compiled else (False,):
            options: dict[str, Any] = {"equilibrium": False, "compiled": fast}
            many = method if sizes is None else method.with_step(tuple(sizes))
            whole = simulate(game, many, 6, start=starts, **options).log_policies
            for run in (0, 4, RUNS - 1):
                one = method if sizes is None else method.with_step(float(sizes[run]))
                alone = simulate(game, one, 6, start=starts[run], **options).log_policies
                assert whole is not None and alone is not None
                allowed = 1e-11 * (1 + np.abs(alone).max())
                yield Check("distance of log π of runs together from each alone", distance(whole[run], alone[0]), allowed, name)


def fixed_point(subject: Subject) -> Iterator[Check]:
    """Declared Nash: 30 safe steps stay at π*, to 1e-9 and what the certificate leaves open; else π* is left on some game."""
    stays, moved = subject.method.method.fixed_point == "nash", 0.0
    seen = False
    for name, game in subject.games.items():
        if game.beta == 0 or (equilibrium := subject.equilibrium(name)).status != "certified" or equilibrium.policy.min() == 0:
            continue
        seen = True
        start = equilibrium.policy
        run = simulate(game, subject.safe(game), 30, start=start, equilibrium=equilibrium, record_every=30)
        assert run.log_policies is not None
        drift = distance(run.log_policies[0, -1], equilibrium.log_policy)
        moved = max(moved, drift)
        if stays:
            # 1e-9 for thirty steps of rounding; the residual of a certified π*, up to `tolerance`, may enter every step whole.
            yield Check("distance of log π from π* after 30 steps from there", drift, 1e-9 + 100 * tolerance(game.beta), name)
    if not seen:
        raise Skipped("no game has β > 0 and a certified equilibrium")
    if not stays:
        if moved <= 1e-3 and not subject.usual:
            raise Skipped("π* is not left on these games, though the fixed point is declared another")
        declared = subject.method.method.fixed_point
        yield Check(f"fixed_point is declared {declared!r}: distance from π* after 30 steps from there", moved, 1e-3, least=True)


RUN_CLAUSES = (
    Clause("declarations", "metadata take known values and init starts at the policy", declarations),
    Clause("safe step", "the safe step is a positive number on every game", safe_step),
    Clause("simplex", "at the safe step a run stays finite and on the simplex", simplex),
    Clause("seed", "one seed gives the same bits", seeds),
    Clause("continuation", "run(a) continued by b is run(a + b) in every bit", continuation),
    Clause("relabelling", "the names of the actions do not matter", relabelling),
    Clause("contexts", "contexts do not see each other", contexts),
    Clause("compiled", "the compiled step is the plain step, to 1e-13", compiled),
    Clause("kernel", "the kernel is the plain step, to 1e-13", kernel),
    Clause("together", "runs together are the runs alone", together),
    Clause("fixed point", "the fixed point is what is declared", fixed_point),
)
