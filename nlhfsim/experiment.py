"""The paper's experiment: learning from votes, every method at equal votes and at its own best step of one grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlhfsim.compare import Comparison, compare
from nlhfsim.dynamics._spec import Dynamics, as_dynamics
from nlhfsim.dynamics.schedules import StepSize, inverse_time
from nlhfsim.equilibrium import solve
from nlhfsim.errors import Array, InputError, ensure_array, ensure_integer, ensure_positive
from nlhfsim.feedback import Sampled, ensure_feedback
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.stability import self_play_spectrum
from nlhfsim.tuning import frame_of

METHODS = (
    "SelfPlayPG",
    "ProximalPG",
    "NashProx",
    "NashMD",
    "Extragradient",
    "NashMirrorProx",
    "OptimisticMirrorDescent",
    "IPOMD",
)
STEP_SIZES = tuple(float(f"{10 ** (k / 3):.3g}") for k in range(-6, 7))
"""Constant steps tried, 0.01 to 100, three a decade; each also as the first step of one that decays."""
DECAY_AFTER = 1 / 20
"""A decaying step is γ t0/(t + t0), t0 this share of the steps."""


@dataclass(frozen=True)
class Experiment:
    """Methods on several games at equal votes.

    Attributes
    ----------
    games : dict of PreferenceGame
        By name.
    comparisons : dict of Comparison
        By name of the game: rows, runs, and the grid of every method.
    critical_steps : dict of float
        By name of the game: the constant step above which exact `SelfPlayPG` is unstable there.
    queries : int
        Votes each method had in each run.
    feedback : Sampled
        Batch size and kind of votes.
    """

    games: dict[str, PreferenceGame]
    comparisons: dict[str, Comparison]
    critical_steps: dict[str, float]
    queries: int
    feedback: Sampled

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """The rows of all comparisons, each with the name of its game."""
        return tuple({"game": name} | row for name, comparison in self.comparisons.items() for row in comparison.rows)

    def to_frame(self) -> Any:
        """Return the rows as a pandas DataFrame. Needs the ``data`` extra."""
        return frame_of(self.rows)

    def constant_steps(self, game: str) -> list[tuple[str, Array, Array]]:
        """Return each method, the constant steps of the grid, and the median KL at the end at each (NaN: a run diverged)."""
        found = []
        for row, tuning in zip(self.comparisons[game].rows, self.comparisons[game].tunings):
            assert tuning is not None
            name = next(key for key in tuning.grid[0] if key.endswith("step_size"))
            points = [(point[name], point["value"]) for point in tuning.grid if not isinstance(point[name], str)]
            found.append((row["dynamics"], *(np.array(values, dtype=np.float64) for values in zip(*points))))
        return found

    def plot(self) -> Any:
        """Draw the experiment, a column a game, and return the matplotlib figure.

        Top: KL(π*‖π) against votes at the best step, median over runs, and for the policy gradient and the proximal methods the
        band up to the 95 % quantile. Middle: the same of the exploitability. Bottom: KL at the end at every constant step of the
        grid, with the critical step of `SelfPlayPG`.
        """
        from nlhfsim import plots

        return plots.experiment(self)


def experiment(
    games: PreferenceGame | Mapping[str, PreferenceGame] | None = None,
    methods: Iterable[Any] = METHODS,
    *,
    beta: float | None = None,
    queries: int = 500_000,
    feedback: Any = None,
    step_sizes: Iterable[float] = STEP_SIZES,
    runs: int = 32,
    seed: int = 0,
    start: Any = "random",
) -> Experiment:
    """Let methods learn from equally many votes on several games, each at its own best step of one grid.

    The grid holds constant steps and, with the same first steps, steps that decay like 1/t; the best is the one with the smallest
    median KL(π*‖π) at the end, over runs of its own. At small β and with batches the paper's contrast is seen: the policy
    gradient is stuck with steps below its critical one, the proximal methods are not.

    Parameters
    ----------
    games : PreferenceGame, or mapping of str to PreferenceGame, optional
        Games with β > 0. Default: `default_games`, real intransitive choices, a cyclic tournament, a low-rank and a random game.
    methods : iterable of Dynamics, factory or str
        Their step size is tuned, other parameters stay.
    beta : float, optional
        β of the default games; games of your own have theirs. Default: 0.005.
    queries : int
        Votes of each method in each run.
    feedback : Sampled, optional
        Default: ``nl.Sampled(batch_size=100)``.
    step_sizes : iterable of float
        The constant steps of the grid.
    runs, seed, start
        As for `nlhfsim.simulate`; by default each run starts somewhere else.

    Raises
    ------
    InputError
        If an argument is not as described.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> found = nl.experiment(
    ...     {"cycle": nl.games.rock_paper_scissors(beta=0.005)}, ["SelfPlayPG", "NashProx"],
    ...     queries=100_000, step_sizes=[0.1, 1.0], runs=4, start=[0.8, 0.1, 0.1])
    >>> [(row["game"], row["dynamics"], row["queries"]) for row in found.rows]
    [('cycle', 'SelfPlayPG', 100000), ('cycle', 'NashProx', 100000)]
    """
    votes = Sampled(batch_size=100) if feedback is None else ensure_feedback(feedback)
    if votes is None:
        raise InputError("feedback = 'exact' makes no queries; give nl.Sampled(...), or use nl.compare")
    budget = ensure_integer("queries", queries, 1)
    chosen = _ensure_games(games, beta, ensure_integer("seed", seed))
    steps = [ensure_positive("step_sizes", step) for step in np.atleast_1d(ensure_array("step_sizes", _list_of(step_sizes)))]
    if not steps:
        raise InputError("step_sizes is empty, must hold at least one step")
    names = [methods] if isinstance(methods, (str, Dynamics)) else list(methods)
    comparisons, critical = {}, {}
    for name, game in chosen.items():
        if game.beta == 0:
            raise InputError(f"games[{name!r}] has beta = 0, must have beta > 0: KL is measured to its regularized equilibrium")
        equilibrium = solve(game)
        critical[name] = self_play_spectrum(game, equilibrium).critical_step
        contestants = [as_dynamics(method) for method in names]
        grids = {dynamics.name: _grid(dynamics, steps, budget // votes.batch_size) for dynamics in contestants}
        comparisons[name] = compare(
            game,
            contestants,
            queries=budget,
            feedback=votes,
            step_sizes=grids,
            runs=runs,
            seed=seed,
            start=start,
            equilibrium=equilibrium,
        )
    return Experiment(chosen, comparisons, critical, budget, votes)


def _list_of(values: Any) -> Any:
    """Return what can be iterated over as a list, all else as it is."""
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else values


def _ensure_games(games: Any, beta: float | None, seed: int) -> dict[str, PreferenceGame]:
    """Return the games by name."""
    if games is None:
        return default_games(0.005 if beta is None else beta, seed)
    if beta is not None:
        raise InputError(f"beta = {beta!r} is that of the default games; games of your own have theirs, as game.with_beta(...)")
    if isinstance(games, PreferenceGame):
        return {"game": games}
    if not isinstance(games, Mapping) or not games:
        raise InputError("games must be a game, or a mapping of names to games that holds at least one")
    return {str(name): ensure_game(game) for name, game in games.items()}


def default_games(beta: float = 0.005, seed: int = 0) -> dict[str, PreferenceGame]:
    """Return the games of the experiment: real choices that cycle, a cyclic tournament, a low-rank and a random game."""
    from nlhfsim import datasets, games

    rng = np.random.default_rng(seed)
    regularization = ensure_positive("beta", beta)
    return {
        "real choices, n = 5": datasets.load("regenwetter2012", beta=regularization),
        "cyclic tournament, n = 21": games.cyclic_tournament(21, 0.5, beta=regularization),
        "low rank, n = 50": games.random_low_rank(50, 2, rng, beta=regularization),
        "random, n = 10": games.random_game(10, rng, beta=regularization),
    }


def _grid(dynamics: Dynamics, steps: list[float], calls: int) -> list[StepSize]:
    """Return constant steps and decaying ones with the same first steps, for a budget of oracle calls."""
    counted = dynamics.method.oracle_calls
    if dynamics.method.scheduled is None:
        raise InputError(f"{dynamics.name} has no step size to tune; leave it out, or compare it with nl.compare")
    if counted is None:
        raise InputError(f"{dynamics.name} counts no oracle calls, so that none can be equal; leave it out")
    inner = 1 if dynamics.method.inner_steps is None else dynamics.method.inner_steps(dynamics.params)
    t0 = max(1.0, calls / counted(dynamics.params) * inner * DECAY_AFTER)
    return [*steps, *(inverse_time(step * t0, t0) for step in steps)]
