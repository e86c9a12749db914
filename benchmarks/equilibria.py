"""The time and the accuracy of equilibria: without regularization beside LP solvers, with it beside a conic solver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nlhfsim as nl
from benchmarks import solvers
from benchmarks._measure import NOT_INSTALLED, PROCESSOR_NOTE, DisagreementError, Floats, Report, Turns, in_turns, threads_note
from benchmarks.rivals import NotInstalledError
from benchmarks.solvers import NoAnswerError

OURS = "nlhfsim"
IPM, CLARABEL = "scipy highs-ipm", "cvxpy Clarabel"
EXACT = 1e-14
SOLVED = 1e-6
"""A rival whose exploitability is above it has not solved the game; its time is shown, but not compared."""
CAP_SECONDS = 20.0
BETAS = (1.0, 0.1, 0.01, 1e-3)


class Solver(NamedTuple):
    """A solver, and the largest game that it is worth waiting for."""

    solve: Callable[..., Floats]
    largest: int = 10**9


AT_ZERO: Mapping[str, Solver] = {
    OURS: Solver(solvers.nlhfsim_at_zero),
    IPM: Solver(solvers.highs_ipm, 1000),
    "scipy highs-ds": Solver(solvers.highs_simplex, 300),
    "nashpy linear_program": Solver(solvers.nashpy_linear_program, 300),
    "QuantEcon minmax": Solver(solvers.quantecon_minmax, 300),
    "QuantEcon lemke_howson": Solver(solvers.quantecon_lemke_howson, 300),
    "OpenSpiel lp_solver": Solver(solvers.open_spiel_lp, 100),
    "pygambit lp_solve": Solver(solvers.pygambit_lp, 100),
}
REGULARIZED: Mapping[str, Solver] = {
    OURS: Solver(solvers.nlhfsim_regularized),
    CLARABEL: Solver(solvers.clarabel, 1000),
    "scipy root, hybr": Solver(solvers.scipy_root, 1000),
}


def games_at_zero(n: int) -> dict[str, Floats]:
    """Return the advantages ``(n, n)`` of games that are hard in different ways."""
    random = nl.games.random_game
    half = n // 2
    made = {
        "near ties": random(n, 0, "near-ties").advantages,
        "all tied": np.zeros((n, n)),
        "duplicated actions": np.kron(np.ones((2, 2)), random(half, 1, "zero-one").advantages),
        "total order": np.triu(np.full((n, n), 0.5), 1) - np.tril(np.full((n, n), 0.5), -1),
        "disjoint cycles": np.kron(np.eye(max(1, n // 3)), nl.games.rock_paper_scissors().advantages),
        "random tournament": random(n, 2, "zero-one").advantages,
        "random logistic": random(n, 3, "logistic").advantages,
    }
    return {name: np.array(advantages) for name, advantages in made.items()}


def games_regularized(n: int) -> dict[str, Floats]:
    """Return the advantages ``(n, n)`` of the games that are solved with regularization."""
    made = {
        "zero-one": nl.games.random_game(n, 4, "zero-one"),
        "logistic": nl.games.random_game(n, 5, "logistic"),
        "cyclic tournament": nl.games.cyclic_tournament(n - 1 + n % 2),
    }
    return {name: np.array(game.advantages) for name, game in made.items()}


def run(
    *,
    quick: bool,
    out: Path,
    sizes: Sequence[int] | None = None,
    at_zero: Mapping[str, Solver] = AT_ZERO,
    regularized: Mapping[str, Solver] = REGULARIZED,
) -> Report:
    """Solve, check and time."""
    sizes = sizes or ((10, 100) if quick else (10, 30, 100, 300, 1000))
    repeats = 3
    report = Report(
        "equilibria",
        "Equilibria, milliseconds",
        {
            "beta": "β",
            "n": "n",
            "game": "game",
            "contestant": "contestant",
            "ms_min": "ms, min",
            "ms_median": "median",
            "ms_processor": "processor ms",
            "exploitability": "exploitability",
            "residual": "log-ratio residual",
            "over_ours": "× nlhfsim",
            "note": "note",
        },
        settings={"sizes": list(sizes), "repeats": repeats, "cap_seconds": CAP_SECONDS, "betas": list(BETAS)},
        notes=[
            PROCESSOR_NOTE,
            "exploitability and residual are recomputed here from the policy, from their definitions",
            f"ours has to reach {EXACT:.0e} at β = 0, and a residual of 1e-12 (or 16 eps/β) else; a rival above {SOLVED:.0e} "
            "has not solved the game and is not compared",
            "Clarabel runs at its default tolerances; its time includes cvxpy's translation, as a user's does",
        ],
    )
    largest = max(sizes)
    for n in sizes:
        games = games_at_zero(n) if n == largest else {"random tournament": games_at_zero(n)["random tournament"]}
        for name, advantages in games.items():
            calls = {who: partial(one.solve, advantages) for who, one in at_zero.items() if n <= one.largest}
            _solve_all(report, {"beta": 0.0, "n": n, "game": name}, calls, partial(_certify_at_zero, advantages), repeats)
    for n in sizes:
        games = games_regularized(n) if n == largest else {"zero-one": games_regularized(n)["zero-one"]}
        for name, advantages in games.items():
            log_reference = np.log(nl.games.random_reference(len(advantages), 6))
            for beta in BETAS if n == largest else (0.1,):
                asked = (advantages, log_reference, beta)
                calls = {who: partial(one.solve, *asked) for who, one in regularized.items() if n <= one.largest}
                where = {"beta": beta, "n": len(advantages), "game": name}
                _solve_all(report, where, calls, partial(_certify_regularized, *asked), repeats)
    if not quick and largest >= 1000:
        _largest_games(report)
    _aim(report, largest)
    return report


def _largest_games(report: Report, n: int = 5000) -> None:
    """Solve n = 5000 once, without rivals."""
    advantages = np.array(nl.games.random_game(n, 7, "zero-one").advantages)
    log_reference = np.log(nl.games.random_reference(n, 8))
    where = {"n": n, "game": "random tournament"}
    call = partial(solvers.nlhfsim_at_zero, advantages)
    _solve_all(report, {"beta": 0.0} | where, {OURS: call}, partial(_certify_at_zero, advantages), 1)
    asked = (advantages, log_reference, 0.1)
    regularized = partial(solvers.nlhfsim_regularized, *asked)
    _solve_all(report, {"beta": 0.1} | where, {OURS: regularized}, partial(_certify_regularized, *asked), 1)


def _certify_at_zero(advantages: Floats, policy: Floats) -> tuple[float, float | None, bool]:
    """Return exploitability, nothing, and whether it is as small as ours has to be."""
    found = solvers.exploitability(advantages, policy)
    return found, None, found <= EXACT * max(1.0, len(policy) / 1000)


def _certify_regularized(
    advantages: Floats, log_reference: Floats, beta: float, log_policy: Floats
) -> tuple[float, float | None, bool]:
    """Return exploitability, log-ratio residual, and whether both are as small as ours have to be."""
    found = solvers.regularized_exploitability(advantages, log_reference, beta, log_policy)
    residual = solvers.residual(advantages, log_reference, beta, log_policy)
    return found, residual, found <= EXACT and residual <= max(1e-12, 16 * np.finfo(float).eps / beta)


def _solve_all(
    report: Report,
    where: dict[str, Any],
    calls: Mapping[str, Callable[[], Floats]],
    certify: Callable[[Floats], tuple[float, float | None, bool]],
    repeats: int,
) -> None:
    """Solve one game by every solver, check each answer, and add a row each."""
    rows, able = [], {}
    for name, call in calls.items():
        row: dict[str, Any] = {**where, "contestant": name, "ms_min": None}
        rows.append(row)
        first = Turns()
        try:
            first.take(call)  # compiles what is to be compiled, and shows whether there is an answer
        except NotInstalledError:
            row["note"] = NOT_INSTALLED
            continue
        except NoAnswerError as error:
            row["note"] = f"no answer: {error}"
            continue
        row["exploitability"], row["residual"], exact = certify(first.result)
        row["first_seconds"] = first.seconds[0]
        if name == OURS and not exact:
            raise DisagreementError(
                f"{name} at {where} reaches exploitability {row['exploitability']:.2e} and residual {row['residual']}"
            )
        row["solved"] = bool(row["exploitability"] <= SOLVED)
        row["note"] = None if row["solved"] else "not solved"
        if name == CLARABEL and first.seconds[0] >= solvers.CLARABEL_SECONDS:
            row["note"] = f"stopped after {solvers.CLARABEL_SECONDS:.0f} s"
        if repeats == 1 or first.seconds[0] > CAP_SECONDS:
            _time(row, first)
        else:
            able[name] = call
    for name, turns in in_turns(able, repeats, cap=CAP_SECONDS).items():
        _time(next(row for row in rows if row["contestant"] == name), turns)
    ours = next((row.get("ms_processor") for row in rows if row["contestant"] == OURS), None)
    for row in rows:
        if ours and row["ms_min"] and row.get("solved"):
            row["over_ours"] = row["ms_processor"] / ours
    report.rows += rows
    report.notes += threads_note(f"{where['game']}, n = {where['n']}, β = {where['beta']}", rows)


def _time(row: dict[str, Any], turns: Turns) -> None:
    timing = turns.timing
    row |= {"ms_min": 1e3 * timing.minimum, "ms_median": 1e3 * timing.median}
    row |= {"ms_processor": 1e3 * min(turns.processor), "seconds": turns.seconds, "threads": turns.threads}


def _aim(report: Report, n: int) -> None:
    """Compare our slowest time, and our ratio to the rival named in advance on each game, with what was aimed at."""
    rows = [row for row in report.rows if n - 1 <= row["n"] <= n and row["ms_min"]]
    if n != 1000 or not rows:
        return
    for words, rival, factor in (("β = 0", IPM, 5.0), ("β > 0", CLARABEL, 10.0)):
        chosen = [row for row in rows if (row["beta"] == 0) == (rival == IPM)]
        ours = [row["ms_processor"] / 1e3 for row in chosen if row["contestant"] == OURS]
        if ours:
            report.aim(f"{words}, n = {n}: at most 1 s on every game", max(ours), 1.0)
        for game in dict.fromkeys(row["game"] for row in chosen):
            mine = [
                row["over_ours"] for row in chosen if (row["contestant"], row["game"]) == (rival, game) and "over_ours" in row
            ]
            if mine:
                words_here = f"{words}, n = {n}, {game}: at least {factor:g} times as fast as {rival}"
                report.aim(words_here, min(mine), factor, at_least=True)
