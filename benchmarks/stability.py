"""What linearizations predict, beside what runs do: the asymptotic factor, and the critical step from both sides."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nlhfsim as nl
from benchmarks._measure import DisagreementError, Floats, Report
from nlhfsim import dynamics, stability
from nlhfsim.dynamics import Dynamics
from nlhfsim.simplex import log_softmax

GAMES = 200
METHODS = tuple(
    name
    for name in dynamics.names()
    if (m := dynamics.get(name).method).smooth and m.autonomous and m.fixed_point != "none" and not m.stochastic
)
TOLERANCE = 0.01
"""Of the log of the factor, and of the critical step."""
SLOWEST, FASTEST = 0.9999, 0.2
_MARKS = 12
_LONGEST = 20_000
_LARGEST = 1e4
"""Above this step a run shows rounding, times the step."""
_SEEN = 1e-6
"""A change of log amplitude over the whole run below this is not seen."""


class Found(NamedTuple):
    """What one method did on one game; None where there was nothing to measure.

    Attributes
    ----------
    factor_error : float or None
        Measured minus predicted log of the factor a step.
    relative_error : float or None
        The same over the predicted one.
    bracket : float or None
        Measured over predicted critical step, interpolated between 0.99 and 1.01 of it.
    bracketed : bool
        Whether runs shrink below and grow above.
    """

    factor_error: float | None
    relative_error: float | None
    bracket: float | None
    bracketed: bool


def run(*, quick: bool, out: Path, games: int | None = None, methods: tuple[str, ...] = METHODS) -> Report:
    """Measure every method on every game.

    Raises
    ------
    DisagreementError
        If a factor or a critical step is off by more than `TOLERANCE`.
    """
    count = games or (4 if quick else GAMES)
    report = Report(
        "stability",
        "Linearizations beside runs",
        {
            "method": "method",
            "factors": "factors measured",
            "worst_factor": "worst error of log factor",
            "worst_relative": "worst relative error of it",
            "brackets": "critical steps measured",
            "worst_bracket": "worst error of the critical step",
        },
        settings={"games": count, "tolerance": TOLERANCE, "seed": 0, "factors between": [FASTEST, SLOWEST]},
        notes=[
            "steps drawn below the critical one; the decay is fitted to the run's component along the dominant left eigenvector",
            "critical steps: runs shrink at 0.99 and grow at 1.01 of the predicted step; the error is that of the root between",
            "log factors interpolated linearly, at most 0.01: those of ProximalPG bend over its inner steps",
            "critical steps above 10,000 are left out: runs at such steps show rounding, times the step",
        ],
    )
    found: dict[str, list[Found]] = {name: [] for name in methods}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nl.errors.ProvenRangeWarning)
        warnings.simplefilter("ignore", nl.errors.EquilibriumStartWarning)
        for k, game in enumerate(mixed_games(count)):
            for name in methods:
                found[name].append(compare(game, name, np.random.default_rng([k, METHODS.index(name)])))
    for name, results in found.items():
        report.rows.append(_row(name, results))
    worst = max((row["worst_factor"] or 0.0) for row in report.rows)
    root = max((row["worst_bracket"] or 0.0) for row in report.rows)
    if not (worst <= TOLERANCE and root <= TOLERANCE and all(one.bracketed for results in found.values() for one in results)):
        raise DisagreementError(f"log factors are off by up to {worst:.1e}, critical steps by {root:.1e}: {report.rows}")
    report.aim(f"error of log factors on {count} games", worst, TOLERANCE)
    report.aim("error of critical steps", root, TOLERANCE)
    return report


def _row(name: str, results: list[Found]) -> dict[str, Any]:
    def worst(values: list[float | None]) -> float | None:
        return max((abs(value) for value in values if value is not None), default=None)

    return {
        "method": name,
        "factors": sum(one.factor_error is not None for one in results),
        "worst_factor": worst([one.factor_error for one in results]),
        "worst_relative": worst([one.relative_error for one in results]),
        "brackets": sum(one.bracket is not None for one in results),
        "worst_bracket": worst([None if one.bracket is None else one.bracket - 1 for one in results]),
    }


def mixed_games(count: int) -> Iterator[nl.PreferenceGame]:
    """Yield games of many kinds, β log-uniform in [0.01, 1], half of them with a reference that is not uniform."""
    for k in range(count):
        rng = np.random.default_rng([k, 2505])
        n, beta = int(rng.integers(3, 9)), float(10 ** rng.uniform(-2, 0))
        odd = n + 1 - n % 2
        kind = k % 8
        game = (
            nl.games.cyclic_tournament(odd, float(rng.uniform(0.1, 0.5)), beta=beta)
            if kind == 0
            else (
                nl.games.rock_paper_scissors(margin=0.5, beta=beta)
                if kind == 1
                else (
                    nl.games.random_low_rank(n, 2, rng, beta=beta)
                    if kind == 2
                    else (
                        nl.games.transitive_cyclic(n, float(rng.uniform(0.1, 0.9)), beta=beta)
                        if kind == 3
                        else (
                            nl.games.near_ties(n, rng, 1e-3, beta=beta)
                            if kind == 4
                            else nl.games.random_game(n, rng, ("uniform", "logistic", "zero-one")[kind - 5], beta=beta)
                        )
                    )
                )
            )
        )
        yield game.with_reference(nl.games.random_reference(game.n, rng, 1.0)) if rng.uniform() < 0.5 else game


def compare(game: nl.PreferenceGame, name: str, rng: np.random.Generator) -> Found:
    """Measure the factor at a step drawn below the critical one, and both sides of the critical step."""
    equilibrium = nl.solve(game)
    method = dynamics.build(name, **(dict(dynamics.get(name).method.example or {})))
    critical = stability.critical_step(game, method, equilibrium=equilibrium)
    drawn = float(10 ** rng.uniform(-1, 0)) * 0.95
    step = drawn * min(critical, 3 / game.beta)
    local = stability.linearize(game, method.with_step(step), equilibrium=equilibrium)
    error = relative = None
    if FASTEST <= local.radius <= SLOWEST:
        length = int(np.clip(np.log(1e-5) / np.log(local.radius), 12, _LONGEST))
        predicted = float(np.log(local.radius))
        error = measured(game, method.with_step(step), local, local.eigenvalues[0], length) - predicted
        relative = error / -predicted
    bracket, bracketed = _bracket(game, method, critical, equilibrium) if critical < _LARGEST else (None, True)
    return Found(error, relative, bracket, bracketed)


def _bracket(
    game: nl.PreferenceGame, method: Dynamics, critical: float, equilibrium: nl.Equilibrium
) -> tuple[float | None, bool]:
    """Return measured over predicted critical step, and whether the mode that crosses shrinks below and grows above."""
    below, above = (method.with_step(side * critical) for side in (0.99, 1.01))
    inner, outer = (stability.linearize(game, side, equilibrium=equilibrium) for side in (below, above))
    mode = outer.eigenvalues[0]
    same = inner.eigenvalues[np.abs(inner.eigenvalues - mode).argmin()]
    logs = np.log(np.abs([same, mode]))
    if np.abs(logs).min() * _LONGEST < _SEEN:
        return None, True
    lengths = np.clip(1.0 / np.abs(logs), 50, _LONGEST).astype(int)
    low = measured(game, below, inner, same, int(lengths[0]), 1e-6)
    high = measured(game, above, outer, mode, int(min(lengths[1], 5 / abs(logs[1]))), 1e-6)
    return float(0.99 + 0.02 * low / (low - high)), bool(low < 0 < high)


def measured(
    game: nl.PreferenceGame,
    method: Dynamics,
    local: stability.Linearization,
    mode: complex,
    length: int,
    size: float = 1e-4,
) -> float:
    """Return the log of the factor a step of a run from a generic perturbation, along the left eigenvector of a mode."""
    values, vectors = np.linalg.eig(local.matrix.T)
    left = local.basis @ vectors[:, int(np.abs(values - mode).argmin())]
    rest = np.concatenate([np.ravel(part) for part in local.state if isinstance(part, np.ndarray)])
    generic = np.random.default_rng(game.n).standard_normal(game.n)
    now: Any = np.exp(log_softmax(local.log_policy + size * generic))
    marks = np.unique(np.linspace(length / 4, length, _MARKS).astype(int))
    seen = []
    for more in np.diff([0, *marks]).tolist():
        now = nl.simulate(game, method, more, start=now, equilibrium=False, record_every=max(more, 1), keep_policies=False)
        seen.append(abs(left @ (_point(now, local.state) - rest)))
    return float(np.polyfit(marks, np.log(seen), 1)[0])


def _point(trajectory: nl.Trajectory, state: Any) -> Floats:
    """Return the full state at the end of a run as one vector."""
    fields = [name for name, part in zip(state._fields, state) if isinstance(part, np.ndarray)]
    return np.concatenate([np.ravel(trajectory.state[name][0, 0]) for name in fields])
