"""What a simulation is to do: the game, the method with its step size, what steps see, where runs start; all of it validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlhfsim.dynamics._spec import Dynamics, get, names
from nlhfsim.equilibrium import Equilibrium, solve
from nlhfsim.errors import Array, InputError, SizeError, by_label, ensure_array, ensure_choice, ensure_distribution
from nlhfsim.feedback import Feedback
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.games.payoffs import PairwisePayoff
from nlhfsim.log_linear.shared import SharedClass, class_of
from nlhfsim.log_linear.starts import start_logs
from nlhfsim.pairs import Pairs
from nlhfsim.parametrizations import LogLinear, Tabular
from nlhfsim.simplex import log_softmax

STARTS = ("reference", "uniform", "random")
_MANY = 8
"""From so many runs on they go together, which compiles a second loop."""


@dataclass(frozen=True)
class Plan:
    """A validated simulation: what `nlhfsim.execution.execute` runs. The equilibrium is solved, the step size known."""

    game: PreferenceGame
    dynamics: Dynamics
    n_steps: int
    runs: int
    seed: int
    record_every: int | Sequence[int] | None
    keep_policies: str | bool | None
    equilibrium: Equilibrium | None
    compiled: bool
    """Whether what can be compiled is."""
    without: str = ""
    """Why there is no equilibrium."""
    shared: SharedClass | None = None
    """The log-linear policies; None: the policies are tabular."""
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

    @property
    def together(self) -> bool:
        """Whether the runs advance as one; whatever the steps, so that a continuation has the same bits."""
        alone = self.feedback is not None or self.average is not None or self.shared is not None
        return self.runs >= _MANY and self.dynamics.method.together and not alone

    @property
    def loop_compiled(self) -> bool:
        """Whether the loop is compiled: not exact products with a function of the pair, nor steps on shared parameters."""
        if not (self.compiled and self.dynamics.method.compiled):
            return False
        if self.shared is not None:
            return self.pairs is not None and self.shared.compiles
        exact = self.feedback is None
        return not (exact and any(isinstance(context.payoff, PairwisePayoff) for context in self.game.contexts))


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


def target_of(game: PreferenceGame, equilibrium: Any) -> tuple[Equilibrium | None, str]:
    """Return the equilibrium that KL is measured to, or None and the reason."""
    if equilibrium is False:
        return None, "no equilibrium was asked for (equilibrium=False)"
    try:
        return solved_target(game, equilibrium), ""
    except SizeError as error:
        return None, str(error)


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


def starts_of(plan: Plan, start: Any) -> Array:
    """Return the log-policies that a plan starts from, shape ``(runs, contexts, n)``."""

    def policies(given: Any) -> Array:
        return start_policies(plan.game, given, plan.runs, plan.seed)

    return policies(start) if plan.shared is None else start_logs(plan.shared, start, plan.runs, plan.seed, policies)


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
