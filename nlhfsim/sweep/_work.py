"""What a worker does: one run, from its task to a record of plain numbers and words."""

from __future__ import annotations

import functools
import json
import math
import time
from typing import Any

import numpy as np

from nlhfsim.dynamics._proven import in_proven_range
from nlhfsim.equilibrium import Equilibrium
from nlhfsim.execution import execute
from nlhfsim.games.game import PreferenceGame
from nlhfsim.plan import Plan, resolved, target_of
from nlhfsim.sweep._design import Task
from nlhfsim.sweep._parts import Recipe
from nlhfsim.trajectory import METRICS, Trajectory

_AT_HAND = 8
"""Games that a worker keeps with their equilibria; the runs on one game come side by side."""

OUTCOME = {
    "status": "text",
    "error": "text",
    "params": "text",
    "steps": "integer",
    "oracle_calls": "integer",
    "queries": "integer",
    "final_kl": "number",
    "final_exploitability": "number",
    "final_gap0": "number",
    "min_kl": "number",
    "min_exploitability": "number",
    "min_gap0": "number",
    "in_proven_range": "flag",
    "proven_factor": "number",
    "equilibrium": "text",
    "notes": "text",
}
"""What a run gives, by column, and its type. What does not exist is null."""
CURVES = {"step": "integer", "oracle_calls": "integer", "queries": "integer"} | {name: "number" for name in METRICS}
"""What a run gives at each record."""


def perform(task: Task) -> dict[str, Any]:
    """Do a run and return its record; whatever goes wrong in it is its result too."""
    began = time.perf_counter()
    try:
        found = _outcome(task)
    except Exception as error:
        found = failure(f"{type(error).__name__}: {error}")
    return found | {"id": task.id, "seconds": time.perf_counter() - began}


def failure(words: str) -> dict[str, Any]:
    """Return the outcome of a run that has none."""
    return dict.fromkeys(OUTCOME) | {"status": "failed", "error": " ".join(words.split())}


@functools.lru_cache(maxsize=_AT_HAND)
def _solved(recipe: Recipe) -> tuple[PreferenceGame, Equilibrium | None, str]:
    game = recipe.build()
    return game, *target_of(game, None)


def _outcome(task: Task) -> dict[str, Any]:
    game, equilibrium, reason = _solved(task.recipe)
    dynamics = resolved(game, task.dynamics, None)
    plan = Plan(
        game=game,
        dynamics=dynamics,
        n_steps=task.n_steps,
        runs=1,
        seed=task.seed,
        record_every=task.record_every,
        keep_policies=False,
        equilibrium=equilibrium,
        without=reason,
        compiled=True,
        feedback=task.feedback,
        threads=1,
    )
    start = task.start if isinstance(task.start, str) else np.array(task.start)
    trajectory = execute(plan, start)
    found = {
        "status": trajectory.status[0],
        "error": None,
        "params": json.dumps(trajectory.params, sort_keys=True),
        "steps": int(trajectory.steps[-1]),
        "oracle_calls": _number(trajectory.oracle_calls[-1], int),
        "queries": int(trajectory.queries[-1]),
        **{f"final_{name}": _number(trajectory.metric(name)[0, -1]) for name in ("kl", "exploitability", "gap0")},
        **{f"min_{name}": _smallest(trajectory.metric(name)[0]) for name in ("kl", "exploitability", "gap0")},
        "in_proven_range": in_proven_range(game, dynamics) if task.feedback is None else None,
        "proven_factor": trajectory.proven_factor,
        "equilibrium": None if equilibrium is None else equilibrium.status,
        "notes": "; ".join(trajectory.notes) or None,
    }
    return found | ({"curves": _curves(trajectory)} if task.curves else {})


def _number(value: Any, kind: type[float] | type[int] = float) -> float | int | None:
    """Return a number, None for what does not exist."""
    return kind(value) if math.isfinite(value) else None


def _smallest(values: Any) -> float | int | None:
    known = values[np.isfinite(values)]
    return _number(known.min()) if len(known) else None


def _curves(trajectory: Trajectory) -> dict[str, list[Any]]:
    clocks: dict[str, list[Any]] = {
        "step": [int(step) for step in trajectory.steps],
        "oracle_calls": [_number(calls, int) for calls in trajectory.oracle_calls],
        "queries": [int(votes) for votes in trajectory.queries],
    }
    return clocks | {name: [_number(value) for value in trajectory.metric(name)[0]] for name in METRICS}
