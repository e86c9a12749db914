"""What a claim is checked on: a game of one context, two policies, a step size; and the mixed family that they are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from nlhfsim import datasets, games
from nlhfsim.equilibrium import Equilibrium, solve
from nlhfsim.errors import Array
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import Context
from nlhfsim.simplex import kl_log, log_softmax

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Case:
    """A game of one context with what claims quantify over.

    Attributes
    ----------
    game : PreferenceGame
        One context; contexts decouple, so a claim that holds in each holds for their average.
    log_policy, log_opponent : numpy.ndarray
        Two log-policies with full support, shape ``(n,)``; runs start at the first. Copied, and as all arrays of a case not to be
        written to: cases are shared among claims.
    step_size : float
        γ > 0.
    family : str
        Where it was drawn from, for readers.
    """

    game: PreferenceGame
    log_policy: Array
    log_opponent: Array
    step_size: float = 1.0
    family: str = ""

    def __post_init__(self) -> None:
        for name in ("log_policy", "log_opponent"):
            object.__setattr__(self, name, _frozen(np.array(getattr(self, name), dtype=np.float64)))

    @property
    def context(self) -> Context:
        """The context, in the form that a method's step sees."""
        return self.game.contexts[0]

    @property
    def n(self) -> int:
        """Number of actions."""
        return self.game.n

    @property
    def beta(self) -> float:
        """Regularization β."""
        return self.game.beta

    @cached_property
    def advantages(self) -> Array:
        """The matrix A, shape ``(n, n)``."""
        return self.game.advantages.reshape(self.n, self.n)

    @property
    def log_reference(self) -> Array:
        """log ρ, shape ``(n,)``."""
        return self.context.log_reference

    @property
    def reference(self) -> Array:
        """The reference ρ, probability space, shape ``(n,)``."""
        return np.exp(self.log_reference)

    @cached_property
    def policy(self) -> Array:
        """π, probability space, shape ``(n,)``."""
        return _frozen(np.exp(self.log_policy))

    @cached_property
    def opponent(self) -> Array:
        """μ, probability space, shape ``(n,)``."""
        return _frozen(np.exp(self.log_opponent))

    @cached_property
    def solution(self) -> Equilibrium:
        """The equilibrium with its certificates."""
        return solve(self.game)

    @property
    def log_equilibrium(self) -> Array:
        """log π*, shape ``(n,)``."""
        return self.solution.log_policy.reshape(self.n)

    @property
    def equilibrium(self) -> Array:
        """π*, probability space, shape ``(n,)``."""
        return self.solution.policy.reshape(self.n)

    @cached_property
    def log_error(self) -> float:
        """How far log π* is off, in standard deviations under π*: at most the residual of its certificate, and rounding.

        J^½(AJ/β)J^-½ is skew-symmetric, so the Jacobian 1 - AJ/β of the residual shrinks nothing in the norm of Var_π*.
        """
        rounding = 4 * _EPS * (1.0 + float(np.abs(self.log_equilibrium).max()))
        return (self.solution.residual or 0.0) + rounding

    @cached_property
    def start_kl(self) -> float:
        """KL(π*‖π)."""
        return float(kl_log(self.log_equilibrium, self.log_policy))

    def at(self, **changes: Any) -> Case:
        """Return the case with some attributes changed."""
        return replace(self, **changes)

    def with_beta(self, beta: float) -> Case:
        """Return the case at another β."""
        return self if beta == self.beta else self.at(game=self.game.with_beta(beta))


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array


def cases_of_game(game: PreferenceGame, seed: int = 0, count: int = 8) -> list[Case]:
    """Return cases on one game: each of its contexts with random policies and step sizes, at least one a context."""
    found = []
    for index in range(max(count, game.n_contexts)):
        rng = np.random.default_rng([seed, index])
        context = game.context(index % game.n_contexts) if game.batched else game
        found.append(_with_policies(context, rng, "the game given"))
    return found


@lru_cache(maxsize=512)
def mixed_case(seed: int, index: int) -> Case:
    """Return case number `index` of the mixed family.

    Cyclic tournaments, cycles with certain votes, low rank, transitive plus cyclic parts, near ties, peaked references,
    duplicated and dominated actions, real data, random games; β from 1e-3 to 10; policies away from the reference.
    """
    if index < len(_FIRST):
        return _FIRST[index]()
    rng = np.random.default_rng([seed, index])
    name = list(FAMILIES)[index % len(FAMILIES)]
    game = FAMILIES[name](rng)
    reference = _reference(game.n, rng)
    beta = float(10 ** rng.uniform(-3, 1))
    return _with_policies(game.with_beta(beta).with_reference(reference), rng, name)


def _with_policies(game: PreferenceGame, rng: np.random.Generator, family: str) -> Case:
    policies = [_log_policy(game.n, rng) for _ in range(2)]
    return Case(game, policies[0], policies[1], float(10 ** rng.uniform(-2, 2)), family)


def _log_policy(n: int, rng: np.random.Generator) -> Array:
    return log_softmax(rng.choice([0.5, 1.0, 4.0]) * rng.standard_normal(n))


def _reference(n: int, rng: np.random.Generator) -> Array:
    kind = rng.integers(4)
    if kind == 0:
        return np.full(n, 1 / n)
    return games.random_reference(n, rng, [1.0, 3.0, 8.0][kind - 1])


def _size(rng: np.random.Generator, smallest: int = 2, largest: int = 12) -> int:
    return int(rng.integers(smallest, largest + 1))


def _duplicated(rng: np.random.Generator) -> PreferenceGame:
    """A game one of whose actions is there twice."""
    matrix = games.random_game(_size(rng, 3, 8), rng).preferences
    index = [*range(len(matrix)), int(rng.integers(len(matrix)))]
    return PreferenceGame(matrix[np.ix_(index, index)])


def _dominated(rng: np.random.Generator) -> PreferenceGame:
    """A cycle of certain votes with an action that loses to all."""
    n = 2 * _size(rng, 1, 4) + 1
    matrix = np.full((n + 1, n + 1), 0.5)
    matrix[:n, :n] = games.cyclic_tournament(n, 0.5).preferences
    matrix[:n, n], matrix[n, :n] = 1.0, 0.0
    return PreferenceGame(matrix)


def _real(rng: np.random.Generator) -> PreferenceGame:
    """Some of the items of an embedded dataset."""
    game = datasets.load(str(rng.choice(sorted(datasets.DATASETS))))
    chosen = rng.choice(game.n, size=_size(rng, 3, game.n), replace=False)
    return game.restrict([int(action) for action in chosen])


FAMILIES: dict[str, Callable[[np.random.Generator], PreferenceGame]] = {
    "cyclic tournament": lambda rng: games.cyclic_tournament(2 * _size(rng, 1, 6) + 1, float(rng.uniform(0.1, 0.5))),
    "certain 3-cycle": lambda rng: games.cyclic_tournament(3, 0.5),
    "low rank": lambda rng: games.random_low_rank(_size(rng, 3), int(rng.integers(1, 3)), rng).materialized(),
    "transitive and cyclic": lambda rng: games.transitive_cyclic(_size(rng, 3), float(rng.uniform())),
    "near ties": lambda rng: games.near_ties(_size(rng), rng, float(10 ** rng.uniform(-4, -1))),
    "certain votes": lambda rng: games.random_game(_size(rng), rng, "zero-one"),
    "duplicated action": _duplicated,
    "dominated action": _dominated,
    "real data": _real,
    "Bradley-Terry": lambda rng: games.random_game(_size(rng), rng, "bradley-terry"),
    "random": lambda rng: games.random_game(_size(rng), rng),
}
"""The parts of the mixed family by name: functions of a generator."""


def _readable(game: PreferenceGame, policy: list[float], opponent: list[float], step_size: float) -> Callable[[], Case]:
    return lambda: Case(game, np.log(policy), np.log(opponent), step_size, "by hand")


# The first cases are readable, and hard: many a wrong claim falls here. In the last one rare 0 beats 1 and 1 beats the reference.
_FIRST: tuple[Callable[[], Case], ...] = tuple(
    _readable(games.cyclic_tournament(3, 0.5, beta=beta).with_reference(reference), policy, [0.2, 0.3, 0.5], step)
    for beta, reference, policy, step in (
        (0.01, None, [0.4, 0.3, 0.3], 100.0),
        (0.01, None, [0.8, 0.1, 0.1], 100.0),
        (0.1, None, [0.8, 0.1, 0.1], 100.0),
        (1.0, None, [0.5, 0.3, 0.2], 100.0),
        (0.05, None, [0.36, 0.32, 0.32], 2.0),
        (0.02, [1e-14, 0.02, 0.98], [0.8, 0.1, 0.1], 2.0),
    )
)
