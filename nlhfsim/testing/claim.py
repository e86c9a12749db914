"""Whether a claim is one that `verify` can stand on: deterministic, made of two routes, and able to fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nlhfsim.claims import Case, Claim, Finding, get, judge, mixed_case, shared_functions
from nlhfsim.errors import InputError, ensure_integer
from nlhfsim.testing._subject import derangement
from nlhfsim.verify import Verdict, verify

_FEW = 12
"""Cases on which the claim itself is examined."""
_COUNTED = 0.05
"""Share of the games that must say something about the claim."""


class BrokenClaimError(AssertionError):
    """A claim does not keep what a claim must; the message lists everything that is broken."""


@dataclass(frozen=True)
class CheckedClaim:
    """What `check_claim` found.

    Attributes
    ----------
    verdict : Verdict
        On the mixed family, with mutants.
    necessary : dict
        By hypothesis, whether a counterexample was found without it.
    """

    verdict: Verdict
    necessary: dict[str, bool]


def check_claim(claim: str | Claim, n_games: int = 200, seed: int = 0) -> CheckedClaim:
    """Check a claim, and the claim's check, on the mixed family of games.

    It must hold where it counts; count on at least 5 % of the games, and be decided on 99 % of them; say the same twice and after
    relabelling the actions; have, if it is an identity, two sides that share no function; and be able to fail: every
    mutant is rejected, and a bound is attained within a factor 2 or says in `slack` how loose it is.

    Parameters
    ----------
    claim : Claim or str
        Registered or not.
    n_games : int
        As in `nlhfsim.verify`.
    seed : int
        Seed of the games.

    Returns
    -------
    CheckedClaim
        The verdict, and which hypotheses are needed.

    Raises
    ------
    BrokenClaimError
        Listing everything that is broken.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> nl.testing.check_claim("nash-mirror-prox-rate", 60).necessary
    {'γ ≤ 2(β + √(1 + β²))': True}
    """
    chosen = get(claim) if isinstance(claim, str) else claim
    if not isinstance(chosen, Claim):
        raise InputError(f"claim = {claim!r} must be a claim, or the id of one")
    count, seed = ensure_integer("n_games", n_games, 1), ensure_integer("seed", seed)
    verdict = verify(chosen, count, seed).verdicts[0]
    broken = [*_of_verdict(verdict), *_of_sides(chosen, seed)]
    if broken:
        raise BrokenClaimError(f"claim {chosen.id}:\n" + "\n".join(f"- {words}" for words in broken))
    dropped = (verify(chosen.without(item.name), count, seed, mutants=False).verdicts[0] for item in chosen.hypotheses)
    return CheckedClaim(verdict, {h.name: v.verdict == "violated" for h, v in zip(chosen.hypotheses, dropped)})


def _of_verdict(verdict: Verdict) -> Iterator[str]:
    claim, tried = verdict.claim, verdict.n_games + verdict.n_skipped + verdict.n_inconclusive
    if verdict.verdict == "violated":
        yield f"it is violated:\n{verdict.witness}"
    if verdict.n_games < max(1, _COUNTED * tried):
        yield f"it counts on {verdict.n_games} of {tried} games only: its hypotheses may be too narrow; give them an `enforce`"
    elif verdict.n_inconclusive > max(1, 0.01 * tried):
        yield f"{verdict.n_inconclusive} of {tried} games cannot be told from rounding: measure it more exactly"
    if not claim.mutants and not claim.slack:
        yield "it has no mutants: give it a wrong version that must fail, or say in `slack` how loose the bound is"
    survived = [name for name, rejected in verdict.mutants.items() if not rejected]
    if survived:
        yield f"mutants that are not rejected: {', '.join(survived)}"
    loose = verdict.worst_ratio is not None and verdict.worst_ratio < 0.5
    if loose and claim.kind in ("upper", "lower", "rate") and not claim.slack:
        yield f"its bound is loose, the largest ratio is {verdict.worst_ratio:.3g}: say so in `slack`, with the factor"


def _of_sides(claim: Claim, seed: int) -> Iterator[str]:
    shared = shared_functions(claim)
    if shared and claim.kind == "equality":
        yield f"both sides call {', '.join(sorted(shared))}: a bug there would be on both; find a second route to one of them"
    cases = claim.own_cases(seed) if claim.cases is not None else [mixed_case(seed, index) for index in range(_FEW)]
    for case in cases[: 1 if claim.cases is not None else _FEW]:
        first, again = judge(claim, case), judge(claim, case)
        if not _alike(first, again, 0.0):
            yield f"it says {first} and then {again} on one case: draw random numbers from a seed"
            return
        if claim.cases is None and not _alike(first, judge(claim, _relabelled(case)), 1e-6):
            yield f"relabelling the actions changes {first} to {judge(claim, _relabelled(case))}"
            return


def _relabelled(case: Case) -> Case:
    order = derangement(case.n, case.n)
    policies = {name: getattr(case, name)[order] for name in ("log_policy", "log_opponent")}
    return case.at(game=case.game.restrict([int(action) for action in order]), **policies)


def _alike(first: Finding, second: Finding, tolerance: float) -> bool:
    """Return whether two findings agree: the verdict, and what was measured relative to the larger side."""
    if first.verdict != second.verdict or not np.isfinite(first.measured):
        return first.verdict == second.verdict
    scale = max(abs(first.measured), abs(first.bound), 1e-12)
    return abs(first.measured - second.measured) <= tolerance * scale or first.measured == second.measured
