"""The contract that every method keeps, as one call."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nlhfsim.dynamics._spec import as_dynamics
from nlhfsim.errors import EquilibriumStartWarning, InputError, NlhfsimError, ProvenRangeWarning, ensure_integer
from nlhfsim.games.game import PreferenceGame, ensure_game
from nlhfsim.simulate import simulate
from nlhfsim.testing._run_clauses import RUN_CLAUSES
from nlhfsim.testing._step_clauses import STEP_CLAUSES
from nlhfsim.testing._subject import Check, Clause, Skipped, Subject
from nlhfsim.testing.games import as_code, mixed_games

CLAUSES: tuple[Clause, ...] = (*RUN_CLAUSES, *STEP_CLAUSES)


@dataclass(frozen=True)
class Broken:
    """A promise that a method broke.

    Attributes
    ----------
    clause, promise : str
        The name of the clause, and what it promises.
    detail : str
        What was measured and what is allowed, or the exception that was raised.
    game, code : str
        Name of the game, and a Python expression for it; empty where the promise is about none, or a step raised an exception.
    others : int
        How many other checks of the clause failed.
    """

    clause: str
    promise: str
    detail: str
    game: str = ""
    code: str = ""
    others: int = 0

    def __str__(self) -> str:
        more = f" ({self.others} other checks of this fail too)" if self.others else ""
        lines = [f"{self.clause}: {self.promise}", f"    {self.detail}{more}"]
        if self.game:
            lines.append(f"    on the game {self.game!r}: {self.code}")
        return "\n".join(lines)


@dataclass(frozen=True)
class ContractReport:
    """What was checked of a method.

    Attributes
    ----------
    method : str
        The method with its parameters.
    checked : dict
        How many checks were made of each clause.
    skipped : dict
        The clauses that do not apply, with the reason.
    broken : tuple of Broken
        The promises that were broken.
    """

    method: str
    checked: dict[str, int]
    skipped: dict[str, str]
    broken: tuple[Broken, ...]

    def __str__(self) -> str:
        failed = {item.clause for item in self.broken}
        rows = [f"{self.method}: {sum(self.checked.values())} checks, {len(failed)} promises broken"]
        for clause in CLAUSES:
            count, reason = self.checked.get(clause.name, 0), self.skipped.get(clause.name)
            state = f"skipped: {reason}" if reason else f"{'broken' if clause.name in failed else 'kept'}, {count} checks"
            rows.append(f"  {clause.name:<30} {state}")
        return "\n".join(rows)


class BrokenContractError(NlhfsimError, AssertionError):
    """A method breaks promises of the contract; the message lists them, and ``.report`` says what else was checked."""

    def __init__(self, report: ContractReport) -> None:
        broken = report.broken
        head = f"{report.method} breaks {len(broken)} promise{'s' * (len(broken) > 1)} of the contract of a method:"
        super().__init__("\n".join([head, *map(str, broken)]))
        self.report = report


def check_dynamics(
    method: Any,
    *,
    games: Mapping[str, PreferenceGame] | Sequence[PreferenceGame] | PreferenceGame | None = None,
    seed: int = 0,
) -> ContractReport:
    """Hold a method, registered or not, against everything that `nlhfsim` takes for granted about methods.

    It stays finite and on the simplex at its safe step, leaves its inputs alone, gives the same bits for one seed, continues a
    run bit for bit, does not see the names of actions, constants in its logits or other contexts, is compiled what it is in
    plain Python, its kernel and its runs together too, satisfies its characterisation, which rejects steps with one wrong
    argument, has the fixed point, the oracle calls and the continuous-time limit that it declares.

    Parameters
    ----------
    method : Dynamics, Method, factory or str
        As in `nlhfsim.simulate`. It is checked at its step size; that it stays finite and its fixed point at its safe step.
    games : PreferenceGame, or sequence or mapping of them, optional
        The games to check it on, such as Hypothesis draws them. Default: `mixed_games`.
    seed : int
        Seed of the starts.

    Returns
    -------
    ContractReport
        What was checked, and what was skipped with the reason. Printed, it is a table.

    Raises
    ------
    BrokenContractError
        An `AssertionError` that lists every broken promise with numbers and the game as Python code.
    InputError
        If what is given is no method, or no game, or the method cannot be run for want of a step size.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> report = nl.testing.check_dynamics(nl.dynamics.ProximalPoint(proximal_step=2.0))
    >>> report.skipped["kernel"], report.checked["characterisation"] > 50
    ('the method has no kernel', True)
    """
    dynamics = as_dynamics(method)
    known = _named(games)
    for game in known.values():
        dynamics.resolve(game.contexts)
    subject = Subject(dynamics, known, ensure_integer("seed", seed), usual=games is None)
    with warnings.catch_warnings():
        for category in (ProvenRangeWarning, EquilibriumStartWarning):
            warnings.simplefilter("ignore", category)
        report = _held_against(subject)
    if report.broken:
        raise BrokenContractError(report)
    return report


def _named(games: Any) -> dict[str, PreferenceGame]:
    """Return games by name."""
    if games is None:
        return mixed_games()
    if isinstance(games, PreferenceGame):
        return {"game": games}
    if not isinstance(games, (Mapping, Sequence)):
        raise InputError(f"games = {games!r} must be a PreferenceGame, or several")
    named = dict(games) if isinstance(games, Mapping) else {f"game {k}": game for k, game in enumerate(games)}
    if not named:
        raise InputError("games is empty, must hold a PreferenceGame at least")
    return {str(name): ensure_game(game) for name, game in named.items()}


def _held_against(subject: Subject) -> ContractReport:
    checked: dict[str, int] = {}
    skipped: dict[str, str] = {}
    whole = subject
    subject, broken = _runnable(subject)
    for clause in CLAUSES:
        if clause.name in {item.clause for item in broken}:
            continue
        failed: list[Check] = []
        try:
            for check in clause.check(subject):
                checked[clause.name] = checked.get(clause.name, 0) + 1
                if not check.holds:
                    failed.append(check)
        except Skipped as reason:
            skipped[clause.name] = str(reason)
        except Exception as error:
            broken.append(Broken(clause.name, clause.promise, f"raised {type(error).__name__}: {error}"))
            continue
        if failed:
            broken.append(_simplest(subject, clause, failed))
    return ContractReport(repr(whole.method), checked, skipped, tuple(broken))


def _runnable(subject: Subject) -> tuple[Subject, list[Broken]]:
    """Return the subject, its step left to Python if it does not compile though it should, and that as a broken promise."""
    if not subject.method.method.compiled:
        return subject, []
    game = next(iter(subject.games.values()))
    try:
        simulate(game, subject.constant(game), 1, equilibrium=False)
    except InputError as error:
        if "does not compile" not in str(error):
            return subject, []
        clause = next(clause for clause in CLAUSES if clause.name == "compiled")
        plain = replace(subject.method, method=replace(subject.method.method, compiled=False, kernel=None))
        return replace(subject, method=plain), [Broken(clause.name, clause.promise, str(error))]
    except Exception:
        return subject, []  # whatever it is, the clauses will say it
    return subject, []


def _simplest(subject: Subject, clause: Clause, failed: list[Check]) -> Broken:
    """Return the failure on the smallest game."""
    sizes = {name: (game.n * game.n_contexts, game.n) for name, game in subject.games.items()}
    chosen = min(failed, key=lambda check: sizes.get(check.game, (0, 0)))
    game = subject.games.get(chosen.game)
    code = "" if game is None else as_code(game)
    return Broken(clause.name, clause.promise, str(chosen), chosen.game if code else "", code, len(failed) - 1)
