"""Running a method on a game: validate what is asked, then run it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from nlhfsim.dynamics._proven import warn_outside_proven_range
from nlhfsim.dynamics._spec import Dynamics, as_dynamics
from nlhfsim.equilibrium import Equilibrium
from nlhfsim.errors import EquilibriumStartWarning, InputError, ensure_choice, ensure_integer
from nlhfsim.execution import execute, with_attainable
from nlhfsim.feedback import Feedback, Sampled, ensure_feedback
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.loop_cache import AVERAGES
from nlhfsim.parametrizations import Parametrization
from nlhfsim.plan import Plan, resolved, shared_class, target_of
from nlhfsim.trajectory import Records, Trajectory

_AT_EQUILIBRIUM = 1e-12


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
    parametrization: Parametrization | None = None,
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
        Seed of everything random. Each run, and each context in it, has a stream of its own. A trajectory that is continued keeps
        its own.
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
        its tabular one divided by the largest eigenvalue of the features' covariance. Only pairs with votes are compiled.
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
    shared = shared_class(game, parametrization)
    dynamics = resolved(game, as_dynamics(method), shared)
    if votes is None and shared is None:
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
        compiled=bool(compiled),
        feedback=votes,
        average=_ensure_average(average, dynamics, votes),
        threads=None if threads is None else ensure_integer("threads", threads, 1, 1024),
        shared=shared,
    )
    trajectory = with_attainable(plan, execute(plan, start), start)
    if not isinstance(start, Trajectory) and votes is None:
        warn_flat(trajectory)
    return trajectory


def _ensure_keep(keep_policies: Any) -> str | bool | None:
    if keep_policies is None:
        return None
    if isinstance(keep_policies, bool):
        return "all" if keep_policies else False
    return ensure_choice("keep_policies", keep_policies, ("all", "final"))


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
