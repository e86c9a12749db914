"""Claims × games → verdicts, with margin, tightness and witness; and whether every mutant is rejected."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nlhfsim import claims as registry
from nlhfsim.claims import Case, Claim, Finding, Mutant, Witness, cases_of_game, judge, mixed_case, shrink
from nlhfsim.claims._method_mutants import mutants_of
from nlhfsim.claims._registry import is_own
from nlhfsim.claims._spec import COSTS
from nlhfsim.claims._verdict import VerificationReport, Verdict, conclude
from nlhfsim.claims._witness import witness_of
from nlhfsim.errors import InputError, ensure_flag, ensure_integer
from nlhfsim.games.game import PreferenceGame, ensure_game

__all__ = ["VerificationReport", "Verdict", "verify"]

_LOGGER = logging.getLogger(__name__)
_CHUNK = 10
"""Cases a task; the claims of a task share each case's equilibrium."""
_WORTH_PROCESSES = 2000
"""Checks from which on processes are started: they take seconds to come up."""
_PATIENCE = 60
"""On at least so many cases, over the cost class, a mutant is tried."""


class _Check(NamedTuple):
    """A task: some claims on some cases."""

    claims: tuple[str | Claim, ...]
    seed: int
    cases: tuple[int, ...]


class _Trial(NamedTuple):
    """A task: a mutant of a claim, or a wrong step of its method, on cases until one rejects it."""

    claim: str | Claim
    mutant: str
    of_method: bool
    seed: int
    n_cases: int
    position: int


class _Result(NamedTuple):
    """What a claim found on the case of a number, -1 for cases of the claim's own."""

    claim: str
    case: int
    finding: Finding
    seconds: float


def verify(
    claims: Any = None,
    n_games: int = 200,
    seed: int = 0,
    *,
    game: PreferenceGame | None = None,
    mutants: bool = True,
    kill_matrix: bool = False,
    workers: int | None = None,
) -> VerificationReport:
    """Check claims on many games, and that the checks can fail.

    Parameters
    ----------
    claims : str, Claim, or sequence of them, optional
        By id or as values, registered or not. Default: every registered claim.
    n_games : int
        Games of the mixed family on which cheap claims are checked; moderate ones on a quarter, costly ones on a twentieth of
        them. Claims about particular games have their own.
    seed : int
        Seed of the games; the result depends on nothing else.
    game : PreferenceGame, optional
        Check on this game instead, with `n_games` random policies and step sizes; claims about particular games are left out.
    mutants : bool
        Whether to try the mutants of each claim, which must be rejected.
    kill_matrix : bool
        Whether to try the wrong steps of each method on every claim about it that is not costly as well.
    workers : int, optional
        Processes. Default: all processors where the work is worth it.

    Returns
    -------
    VerificationReport
        ``.passed``; a `Verdict` a claim in ``.verdicts``; ``.mutants``; ``.to_frame()``; ``.save(folder)``.

    Raises
    ------
    InputError
        If a claim is unknown, or a number is out of range.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> report = nl.verify("nash-mirror-prox-rate", n_games=20)
    >>> report.passed, report["nash-mirror-prox-rate"].verdict, report["nash-mirror-prox-rate"].mutant_rejected
    (True, 'holds', True)
    """
    began = time.monotonic()
    chosen = _chosen(claims)
    count, seed = ensure_integer("n_games", n_games, 1, 10**7), ensure_integer("seed", seed)
    ensure_flag("mutants", mutants), ensure_flag("kill_matrix", kill_matrix)
    given = None if game is None else cases_of_game(ensure_game(game), seed, count)
    if given is not None:
        chosen = [claim for claim in chosen if claim.cases is None]
        _ensure_some(chosen)
    processes = _processes(workers, len(chosen) * count if given is None else 0)
    found: dict[str, list[_Result]] = {claim.id: [] for claim in chosen}
    if given is not None:
        for index, case in enumerate(given):
            _sort_in(found, _on_case(chosen, index, case))
    else:
        _run(_check, list(_checks(chosen, seed, count)), processes, lambda results: _sort_in(found, results))
    trials = list(_trials(chosen, seed, count, mutants and given is None, kill_matrix and given is None))
    outcomes: dict[int, bool] = {}
    _run(_try, trials, processes, lambda outcome: outcomes.update([outcome]))
    killed = _mutants(trials, outcomes)
    verdicts = []
    for claim in chosen:
        results = sorted(found[claim.id], key=lambda result: result.case)
        findings, seconds = [result.finding for result in results], sum(result.seconds for result in results)
        verdicts.append(conclude(claim, findings, _witness(claim, results, seed, given), killed.get(claim.id, {}), seconds))
    return VerificationReport(tuple(verdicts), killed, _wrong_steps(trials, outcomes), count, seed, time.monotonic() - began)


def _sort_in(found: dict[str, list[_Result]], results: list[_Result]) -> None:
    for result in results:
        found[result.claim].append(result)


def _chosen(claims: Any) -> list[Claim]:
    if claims is None:
        claims = registry.names()
    if isinstance(claims, (str, Claim)):
        claims = [claims]
    if not isinstance(claims, Iterable):
        raise InputError(f"claims = {claims!r} must be claims, or their ids")
    chosen = [registry.get(claim) if isinstance(claim, str) else claim for claim in claims]
    for claim in chosen:
        if not isinstance(claim, Claim):
            raise InputError(f"claims: {claim!r} must be a claim, or the id of one")
    _ensure_some(chosen)
    ids = [claim.id for claim in chosen]
    if len(set(ids)) < len(ids):
        raise InputError(f"claims: {next(name for name in ids if ids.count(name) > 1)!r} is there more than once")
    return chosen


def _ensure_some(chosen: Sequence[Claim]) -> None:
    if not chosen:
        raise InputError("claims is empty: name at least one that is not about particular games")


def _processes(workers: int | None, checks: int) -> int:
    if workers is not None:
        return ensure_integer("workers", workers, 1, 256)
    import joblib

    return int(joblib.cpu_count()) if checks >= _WORTH_PROCESSES else 1


def _share(claim: Claim, count: int) -> int:
    return max(1, count // COSTS[claim.cost])


def _reference(claim: Claim) -> str | Claim:
    """Return the id of a claim of the package, which other processes know, or the claim itself."""
    return claim.id if is_own(claim) else claim


def _resolve(claim: str | Claim) -> Claim:
    return registry.get(claim) if isinstance(claim, str) else claim


def _checks(chosen: list[Claim], seed: int, count: int) -> Iterator[_Check]:
    """Yield the tasks, the longest first."""
    for claim in chosen:
        if claim.cases is not None:
            yield _Check((_reference(claim),), seed, ())
    for cost in sorted(COSTS, key=lambda name: -COSTS[name]):
        some = tuple(_reference(claim) for claim in chosen if claim.cost == cost and claim.cases is None)
        size = max(1, _CHUNK // COSTS[cost])
        total = max(1, count // COSTS[cost])
        for begin in range(0, total if some else 0, size):
            yield _Check(some, seed, tuple(range(begin, min(begin + size, total))))


def _check(task: _Check) -> list[_Result]:
    claims = [_resolve(claim) for claim in task.claims]
    if not task.cases:
        own = [case for claim in claims for case in claim.own_cases(task.seed)]
        return [result for case in own for result in _on_case(claims, -1, case)]
    return [result for index in task.cases for result in _on_case(claims, index, mixed_case(task.seed, index))]


def _on_case(claims: list[Claim], index: int, case: Case) -> list[_Result]:
    results = []
    for claim in claims:
        began = time.process_time()
        finding = judge(claim, case)
        results.append(_Result(claim.id, index, finding, time.process_time() - began))
    return results


def _trials(chosen: list[Claim], seed: int, count: int, mutants: bool, kill_matrix: bool) -> Iterator[_Trial]:
    positions = itertools.count()
    for claim in chosen:
        few = _PATIENCE // COSTS[claim.cost]
        tried = max(_share(claim, count), few)
        if mutants:
            for mutant in claim.mutants:
                yield _Trial(_reference(claim), mutant.name, False, seed, tried, next(positions))
        if kill_matrix and claim.method is not None and claim.cost != "costly":
            own = {mutant.name for mutant in claim.mutants}
            for name in (name for name in mutants_of(claim.method) if not (mutants and name in own)):
                yield _Trial(_reference(claim), name, True, seed, few, next(positions))


def _wrong(trial: _Trial) -> Claim:
    claim = _resolve(trial.claim)
    if trial.of_method and claim.method is not None:
        return claim.mutated(Mutant(trial.mutant, {"method": mutants_of(claim.method)[trial.mutant]}))
    return claim.mutated(next(mutant for mutant in claim.mutants if mutant.name == trial.mutant))


def _try(trial: _Trial) -> tuple[int, bool]:
    wrong = _wrong(trial)
    cases = (
        (mixed_case(trial.seed, index) for index in range(trial.n_cases)) if wrong.cases is None else wrong.own_cases(trial.seed)
    )
    return trial.position, any(_rejects(wrong, case, trial.of_method) for case in cases)


def _rejects(wrong: Claim, case: Case, of_method: bool) -> bool:
    try:
        return judge(wrong, case).verdict == "violated"
    except InputError as error:
        # What asks for the linearization of a method refuses one that does not rest where it says: the wrong step is noticed.
        if of_method and isinstance(error.__cause__, InputError):
            return True
        raise


def _run(work: Callable[[Any], Any], tasks: list[Any], processes: int, take: Callable[[Any], Any]) -> None:
    """Do the tasks, in processes if there are several, and hand each result on as it comes."""
    if processes == 1 or len(tasks) < 2:
        results: Iterable[Any] = map(work, tasks)
    else:
        import joblib

        pool = joblib.Parallel(n_jobs=min(processes, len(tasks)), return_as="generator_unordered", batch_size=1)
        results = pool(joblib.delayed(work)(task) for task in tasks)
    for done, result in enumerate(results, 1):
        take(result)
        _LOGGER.info("%s %d of %d", "checks" if work is _check else "mutants", done, len(tasks))


def _witness(claim: Claim, results: list[_Result], seed: int, given: list[Case] | None) -> Witness | None:
    """Return the case that decides: the worst violation, shrunk, else the tightest."""
    decided = [(k, r) for k, r in enumerate(results) if r.finding.verdict in ("holds", "violated")]
    if not decided:
        return None
    violated = [item for item in decided if item[1].finding.verdict == "violated"]
    position, result = max(violated or decided, key=lambda item: item[1].finding.ratio)
    if claim.cases is not None:
        case = claim.own_cases(seed)[position]
    else:
        case = mixed_case(seed, result.case) if given is None else given[result.case]
    return shrink(claim, case) if violated else witness_of(claim, case)


def _mutants(trials: list[_Trial], rejected: dict[int, bool]) -> dict[str, dict[str, bool]]:
    """Return by claim and mutant whether it was rejected."""
    found: dict[str, dict[str, bool]] = {}
    for trial in trials:
        if not trial.of_method:
            found.setdefault(_resolve(trial.claim).id, {})[trial.mutant] = rejected[trial.position]
    return found


def _wrong_steps(trials: list[_Trial], rejected: dict[int, bool]) -> dict[str, dict[str, dict[str, bool]]]:
    """Return by method, wrong step and claim whether the claim rejects the step."""
    found: dict[str, dict[str, dict[str, bool]]] = {}
    for trial in trials:
        claim = _resolve(trial.claim)
        if claim.method is not None and "method" in _changes(claim, trial):
            row = found.setdefault(claim.method.name, {}).setdefault(trial.mutant, {})
            row[claim.id] = rejected[trial.position]
    return found


def _changes(claim: Claim, trial: _Trial) -> Mapping[str, Any]:
    if trial.of_method:
        return {"method": None}
    return next(mutant.changes for mutant in claim.mutants if mutant.name == trial.mutant)
