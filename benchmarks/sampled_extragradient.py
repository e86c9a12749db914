"""How much of extragradient's lead over mirror descent is left when payoffs are estimated from votes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nlhfsim as nl
from benchmarks import pair_rivals
from benchmarks._measure import NOT_INSTALLED, Floats, Report, cell
from benchmarks.first_passages import Games, passages
from benchmarks.rivals import NotInstalledError
from benchmarks.section4 import ensure_same

METHODS = ("NaturalPG", "Extragradient")
GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
THRESHOLDS = (1e-2, 1e-3)
BATCH = 100
QUICK_GAME = "rock-paper-scissors, β = 0.1"
RESAMPLES = 2000
_TINY = 1e-300


class Effort(NamedTuple):
    """Runs of each method at each step, and the steps after which one has failed."""

    runs: int
    cap: int


FULL, QUICK = Effort(64, 4000), Effort(8, 200)


def games() -> dict[str, nl.PreferenceGame]:
    """Return the games by name."""
    made = {f"random n = 10, {seed}": _random(seed) for seed in (1, 2, 3)}
    made |= {f"rock-paper-scissors, β = {beta:g}": nl.games.rock_paper_scissors(beta=beta) for beta in (0.01, 0.1)}
    scores = 2 * np.random.default_rng(1).standard_normal(10)
    return made | {
        "cyclic tournament n = 21": nl.games.cyclic_tournament(21, beta=0.01),
        "Bradley-Terry n = 10": nl.games.bradley_terry(scores, beta=0.01, reference=nl.games.random_reference(10, 2)),
        "regenwetter2012": nl.datasets.load("regenwetter2012", beta=0.01),
    }


def _random(seed: int) -> nl.PreferenceGame:
    """Preferences uniform on [0, 1], ρ ∝ exp(normal), β = 0.01, as in the simulations of the extragradient paper."""
    rng = np.random.default_rng(seed)
    return nl.games.random_game(10, rng, beta=0.01, reference=nl.games.random_reference(10, rng))


class Asked(NamedTuple):
    """A game, whether it is seen through votes, the step sizes, and how much is run."""

    game: nl.PreferenceGame
    sampled: bool
    grid: Sequence[float]
    effort: Effort


class Passages(NamedTuple):
    """First passages of one method, shape ``(grid, runs, thresholds)``, in steps and in what a step costs."""

    steps: Floats
    cost: Floats


Simulate = Callable[[Asked, str], Passages]


def simulated(asked: Asked, method: str) -> Passages:
    """Return first passages by `nl.simulate`, every step recorded; what a step costs is votes, or oracle calls.

    Raises
    ------
    NotInstalledError
        If votes are asked for and the package has none.
    """
    options: dict[str, Any] = {"runs": asked.effort.runs, "seed": 1, "start": "random", "record_every": 1}
    options |= {"keep_policies": False, "equilibrium": False}
    if asked.sampled:
        options |= {"feedback": pair_rivals.feedback(BATCH), "threads": None}
    clocks = ("steps", "queries" if asked.sampled else "oracle_calls")
    found = []
    for step_size in asked.grid:
        with pair_rivals.quiet():
            trajectory = nl.simulate(asked.game, getattr(nl.dynamics, method)(step_size=step_size), asked.effort.cap, **options)
        found.append(
            [np.stack([trajectory.first_passage("exploitability", eps, clock=c) for eps in THRESHOLDS], -1) for c in clocks]
        )
    both = np.array(found).swapaxes(0, 1)
    return Passages(both[0], both[1])


def run(
    *,
    quick: bool,
    out: Path,
    chosen: Mapping[str, nl.PreferenceGame] | None = None,
    simulate: Simulate = simulated,
    grid: Sequence[float] | None = None,
) -> Report:
    """Find first passages of both methods, exact and sampled, and the ratio of their medians with an interval."""
    everything = games()
    chosen = chosen or ({QUICK_GAME: everything[QUICK_GAME]} if quick else everything)
    effort, grid = (QUICK, grid or (0.3, 1.0, 2.0)) if quick else (FULL, grid or GRID)
    report = Report(
        "sampled_extragradient",
        "Mirror descent over extragradient: ratio of median first passages, each at its best step",
        {
            "game": "game",
            "feedback": "feedback",
            "threshold": "E_β ≤",
            "NaturalPG": "mirror descent, steps",
            "NaturalPG_step": "at",
            "Extragradient": "extragradient, steps",
            "Extragradient_step": "at",
            "steps_ratio": "ratio in steps",
            "steps_interval": "95 %",
            "cost_ratio": "in votes or oracle calls",
            "cost_interval": "95 %",
            "note": "note",
        },
        notes=_notes(effort, grid),
        settings={"grid": list(grid), "batch": BATCH, "resamples": RESAMPLES, **effort._asdict()},
    )
    for name, game in chosen.items():
        for sampled in (False, True):
            report.rows += _rows(name, Asked(game, sampled, grid, effort), simulate)
    return report


def _notes(effort: Effort, grid: Sequence[float]) -> list[str]:
    return [
        f"{effort.runs} runs from starts uniform on the simplex, the same for both methods; at most {effort.cap} steps; sampled: "
        f"batches of {BATCH} votes",
        f"steps from {', '.join(map(cell, grid))}; the best is that with the least median, the larger if they tie; one at an end "
        "of the grid is marked by *",
        f"intervals: {RESAMPLES} bootstrap resamples of the runs, paired, the best step chosen anew in each; above 1 "
        "extragradient is ahead; never over never is left out",
        "both methods are explicit steps: NaturalPG spends one oracle call a step, Extragradient two",
    ]


def _rows(name: str, asked: Asked, simulate: Simulate) -> list[dict[str, Any]]:
    """Return a row for each threshold."""
    rows: list[dict[str, Any]] = [
        {"game": name, "feedback": "sampled" if asked.sampled else "exact", "threshold": eps} for eps in THRESHOLDS
    ]
    try:
        found = {method: simulate(asked, method) for method in METHODS}
    except NotInstalledError:
        return [row | {"note": NOT_INSTALLED} for row in rows]
    if not asked.sampled and simulate is simulated:
        for method in METHODS:
            ensure_first_passages(f"{method} on {name}", asked, method, found[method])
    for k, row in enumerate(rows):
        row |= _compared({method: Passages(*(times[..., k] for times in one)) for method, one in found.items()}, asked.grid)
    return rows


def ensure_first_passages(name: str, asked: Asked, method: str, found: Passages) -> None:
    """Check exact first passages against plain NumPy.

    Raises
    ------
    DisagreementError
        If one differs by more than a step.
    """
    first = nl.simulate(asked.game, method, 0, runs=asked.effort.runs, seed=1, start="random", equilibrium=False)
    runs = asked.effort.runs
    same = np.broadcast_to(asked.game.advantages, (runs, asked.game.n, asked.game.n))
    log_reference = np.broadcast_to(np.log(asked.game.reference), (runs, asked.game.n))
    one = Games(same, log_reference, first.parameters, asked.game.beta)
    right = passages(one, method, asked.grid, THRESHOLDS, asked.effort.cap)
    for k in range(len(asked.grid)):
        ensure_same(f"{name}, step {asked.grid[k]:g}", found.steps[k], right[:, k])


def _compared(found: Mapping[str, Passages], grid: Sequence[float]) -> dict[str, Any]:
    """Return the medians, the ratios and their intervals of one threshold, from first passages ``(grid, runs)``."""
    row: dict[str, Any] = {}
    for method in METHODS:
        steps, k = best(found[method].steps)
        row |= {method: steps, f"{method}_step": _at(grid, k) if math.isfinite(steps) else None}
    for clock in Passages._fields:
        mirror, extra = (getattr(found[method], clock) for method in METHODS)
        low, high = interval(mirror, extra)
        row |= {f"{clock}_ratio": ratio(best(mirror)[0], best(extra)[0]), f"{clock}_interval": f"{cell(low)} to {cell(high)}"}
    return row


def _at(grid: Sequence[float], k: int) -> str:
    return cell(float(grid[k])) + ("*" if k in (0, len(grid) - 1) else "")


def best(times: Floats) -> tuple[float, int]:
    """Return the least median over runs of first passages ``(grid, runs)``, and which step has it, the last if several do."""
    medians = _medians(times)
    return float(medians.min()), int(len(medians) - 1 - medians[::-1].argmin())


def _medians(times: Floats) -> Floats:
    """Return medians over the last axis, the upper one of two, so that no mean of infinity with a number is taken."""
    return np.asarray(np.sort(times, axis=-1)[..., times.shape[-1] // 2])


def ratio(mirror: float, extra: float) -> float:
    """Return mirror/extra; inf if only mirror descent fails, 0 if only extragradient does, NaN if both do."""
    if math.isinf(mirror):
        return math.nan if math.isinf(extra) else math.inf
    return mirror / max(extra, _TINY) if mirror != extra else 1.0


def interval(mirror: Floats, extra: Floats, seed: int = 0) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of the ratio of the least medians, over paired resamples of the runs."""
    picks = np.random.default_rng(seed).integers(mirror.shape[1], size=(RESAMPLES, mirror.shape[1]))
    least = [_medians(times[:, picks]).min(axis=0) for times in (mirror, extra)]
    ratios = np.array([ratio(*pair) for pair in zip(*(values.tolist() for values in least))])
    ratios = np.sort(ratios[~np.isnan(ratios)])
    if not len(ratios):
        return math.nan, math.nan
    last = len(ratios) - 1
    return float(ratios[round(0.025 * last)]), float(ratios[round(0.975 * last)])
