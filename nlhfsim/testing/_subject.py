"""What the clauses of the contract are held against: a method, games, starts; and plain steps of the method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlhfsim.dynamics._spec import Dynamics
from nlhfsim.equilibrium import Equilibrium, solve
from nlhfsim.errors import Array
from nlhfsim.games.game import PreferenceGame
from nlhfsim.games.payoffs import Context


class Check(NamedTuple):
    """One number held against what is allowed.

    Attributes
    ----------
    what : str
        What the number is.
    value, allowed : float
        The number, and its largest value, or its smallest if `least`.
    game : str
        Name of the game.
    least : bool
        Whether the number must be at least what is allowed.
    """

    what: str
    value: float
    allowed: float
    game: str = ""
    least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the number is in its range; NaN never is."""
        return bool(self.value >= self.allowed if self.least else self.value <= self.allowed)

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.3g}, must be at {'least' if self.least else 'most'} {self.allowed:.3g}"


class Skipped(Exception):
    """Raised by a clause that does not apply, with the reason."""


@dataclass(frozen=True)
class Clause:
    """One promise of the contract: its name, what it promises in a sentence, and the generator of its checks."""

    name: str
    promise: str
    check: Callable[[Subject], Iterator[Check]]


class Situation(NamedTuple):
    """A context of a game, its name, the method with a constant step size there, and a policy to start from."""

    name: str
    context: Context
    method: Dynamics
    policy: Array


@dataclass(frozen=True)
class Subject:
    """A method, the games to check it on by name, two starts for each of shape ``(2, *policy_shape)``, and a seed.

    `usual` says that the games are those of `mixed_games`, on some of which every declared property shows.
    """

    method: Dynamics
    games: Mapping[str, PreferenceGame]
    seed: int
    usual: bool
    _solved: dict[str, Equilibrium] = field(default_factory=dict)

    def starts(self, name: str) -> Array:
        """Return two policies away from the reference: a moderate one and a peaked one."""
        rng = np.random.default_rng(self.seed + 11)
        logits = np.stack([spread * rng.standard_normal(self.games[name].policy_shape) for spread in (1.0, 4.0)])
        weights = np.exp(logits)
        return np.asarray(weights / weights.sum(axis=-1, keepdims=True))

    def constant(self, game: PreferenceGame) -> Dynamics:
        """Return the method with one constant step size on a game, the first of a schedule or of several."""
        found = self.method.resolve(game.contexts)
        size: Any = found.step_size
        if callable(size):
            return found.with_step(float(size(0)))
        return found.with_step(float(size[0])) if isinstance(size, tuple) else found

    def safe(self, game: PreferenceGame) -> Dynamics:
        """Return the method at its safe step on a game; where it names none, as it is."""
        if self.method.method.scheduled is None or self.method.method.safe_step is None:
            return self.constant(game)
        return self.method.with_step(None).resolve(game.contexts)

    def equilibrium(self, name: str) -> Equilibrium:
        """Return the equilibrium of a game, solved once."""
        if name not in self._solved:
            self._solved[name] = solve(self.games[name])
        return self._solved[name]

    def situations(self) -> Iterator[Situation]:
        """Yield every context of every game with every start."""
        for name, game in self.games.items():
            method = self.constant(game)
            for policy in self.starts(name):
                for context, row in zip(game.contexts, policy.reshape(game.n_contexts, game.n)):
                    yield Situation(name, context, method, row)


def step_input(method: Dynamics, factor: float = 1.0) -> Any:
    """Return what one step receives as its step size: a number, or one for each inner step; 0 if the method has none."""
    size = 0.0 if method.method.scheduled is None else factor * float(method.step_size)  # type: ignore[arg-type]
    inner = method.method.inner_steps
    return size if inner is None else np.full(inner(method.params), size)


def advance(method: Dynamics, context: Context, state: Any, factor: float = 1.0) -> Any:
    """Return the state after one plain step."""
    return method.method.step(state, context, step_input(method, factor), method.params)


def run_plain(method: Dynamics, context: Context, policy: Array, n_steps: int) -> list[Any]:
    """Return the states of plain steps from a policy, the first one included."""
    states = [method.method.init(context, method.params, np.log(policy))]
    for _ in range(n_steps):
        states.append(advance(method, context, states[-1]))
    return states


def log_policy(state: Any) -> Array:
    """Return log softmax of a state's logits, by the textbook formula."""
    shifted = state.logits - state.logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def distance(one: Any, other: Any) -> float:
    """Return the largest difference between two arrays or numbers; NaN if either holds one."""
    return float(np.abs(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)).max())


def differing(one: Any, other: Any) -> float:
    """Return how many entries of two arrays differ in some bit, NaN being equal to itself."""
    first, second = np.asarray(one), np.asarray(other)
    if first.shape != second.shape:
        return float(max(first.size, second.size, 1))
    return float((~((first == second) | ((first != first) & (second != second)))).sum())


def derangement(n: int, seed: int) -> npt.NDArray[np.int64]:
    """Return a permutation that leaves nothing in its place, so that whatever is special about a place shows; n = 1 has none."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(n)
        if n == 1 or (order != np.arange(n)).all():
            return order
