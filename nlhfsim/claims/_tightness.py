"""The game that makes a bound tightest: a global search over game parameters, a local polish, and what constant is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nlhfsim.claims._case import Case, mixed_case
from nlhfsim.claims._registry import get
from nlhfsim.claims._spec import Claim, Finding, judge
from nlhfsim.claims._witness import Witness, shrink, witness_of
from nlhfsim.errors import Array, InputError, ensure_array, ensure_integer
from nlhfsim.games.game import PreferenceGame
from nlhfsim.simplex import log_softmax

_SPREAD = 12.0
"""Logits of references and policies are searched within this distance of 0."""
_POPULATION = 60
_KEPT = 0.999
"""A simpler witness may give away so much of the ratio."""


@dataclass(frozen=True)
class Tightness:
    """How close a bound came to equality.

    Attributes
    ----------
    claim : str
        Id of the claim.
    ratio : float
        The largest measured/bound found (for lower bounds the reverse; for equalities in units of the tolerance): no violation
        was found of the claim with its bound multiplied by this number (lower bounds: divided).
    found : float
        The same before the witness was made readable.
    verdict : str
        ``"holds"``, or ``"violated"`` if a counterexample was found.
    witness : Witness
        The case, simplified as long as the ratio stays within a thousandth.
    by_size : dict
        The largest ratio for each number of actions.
    evaluations : int
        Cases tried.
    """

    claim: str
    ratio: float
    found: float
    verdict: str
    witness: Witness
    by_size: dict[int, float]
    evaluations: int

    def __str__(self) -> str:
        sizes = ", ".join(f"n = {n}: {ratio:.6g}" for n, ratio in self.by_size.items())
        return f"{self.claim}: largest ratio {self.found:.6g} ({sizes}) in {self.evaluations} cases\n{self.witness}"


def tightness(
    claim: str | Claim,
    *,
    n: int | Sequence[int] = (2, 3, 4),
    betas: tuple[float, float] = (1e-3, 10.0),
    step_sizes: tuple[float, float] = (1e-2, 1e2),
    evaluations: int = 4000,
    seed: int = 0,
) -> Tightness:
    """Search for the game that makes a bound tightest, or violates it.

    A global search by differential evolution over the entries of A, the logits of ρ, β, and of what else the claim depends on
    (two policies, the step size); then Nelder and Mead's method from the best point.

    Parameters
    ----------
    claim : str or Claim
        A claim that is not about particular games, by id or as a value.
    n : int or sequence of int
        Numbers of actions to search.
    betas, step_sizes : pair of float
        Range of β and of γ before the hypotheses are enforced.
    evaluations : int
        Cases tried for each n, three quarters of them by the global search.
    seed : int
        Seed of the search.

    Returns
    -------
    Tightness
        With ``.ratio``, ``.witness``, ``.by_size``.

    Raises
    ------
    InputError
        If the claim has cases of its own, or a range is empty.

    Examples
    --------
    >>> import nlhfsim as nl
    >>> found = nl.claims.tightness("log-ratio-span", n=3, evaluations=1000)
    >>> found.verdict, 0.9 < found.ratio <= 1
    ('holds', True)
    """
    chosen = get(claim) if isinstance(claim, str) else claim
    if not isinstance(chosen, Claim):
        raise InputError(f"claim = {claim!r} must be a claim, or the id of one")
    if chosen.cases is not None:
        raise InputError(f"claim {chosen.id} is about particular games: there is nothing to search")
    sizes = _sizes(n)
    budget, seed = ensure_integer("evaluations", evaluations, 100), ensure_integer("seed", seed)
    ranges = _log_range("betas", betas), _log_range("step_sizes", step_sizes)
    searches = [_Search(chosen, size, *ranges, seed) for size in sizes]
    for search in searches:
        search.run(budget)
    best = max(searches, key=lambda search: search.best)
    if best.case is None:
        raise InputError(f"claim {chosen.id}: none of {budget} cases counted; its hypotheses may be too narrow")
    witness = _readable(chosen, best.case, best.best, min(sizes))
    return Tightness(
        chosen.id,
        witness.finding.ratio,
        best.best,
        judge(chosen, best.case).verdict,
        witness,
        {search.size: search.best for search in searches},
        sum(search.evaluations for search in searches),
    )


def _sizes(n: Any) -> list[int]:
    several = isinstance(n, (Sequence, np.ndarray)) and not isinstance(n, str)
    sizes = [ensure_integer("n", size, 1, 50) for size in (n if several else [n])]
    if not sizes:
        raise InputError(f"n = {n!r} must be one number of actions, or several")
    return sizes


def _log_range(name: str, pair: tuple[float, float]) -> tuple[float, float]:
    ends = ensure_array(name, pair)
    if ends.shape != (2,) or not 0 < ends[0] <= ends[1]:
        raise InputError(f"{name} = {pair!r} must be two positive numbers, the smaller first")
    return math.log10(ends[0]), math.log10(ends[1])


def _readable(claim: Claim, case: Case, ratio: float, least: int) -> Witness:
    def as_tight(finding: Finding) -> bool:
        return finding.verdict in ("holds", "violated") and finding.ratio >= _KEPT * ratio

    return shrink(claim, case, as_tight, least) if math.isfinite(ratio) else witness_of(claim, case)


class _Search:
    """The search among games of one size; remembers the best case."""

    def __init__(
        self, claim: Claim, size: int, log_betas: tuple[float, float], log_steps: tuple[float, float], seed: int
    ) -> None:
        self.claim, self.size, self.seed = claim, size, seed
        self.pairs = np.triu_indices(size, 1)
        self.parts = {"A": len(self.pairs[0]), "reference": size, "beta": 1, "policy": size, "opponent": size, "step": 1}
        limits = {"A": (-0.5, 0.5), "beta": log_betas, "step": log_steps}
        self.bounds = [limits.get(name, (-_SPREAD, _SPREAD)) for name, count in self.parts.items() for _ in range(count)]
        self.best, self.evaluations = -math.inf, 0
        self.case: Case | None = None

    def run(self, budget: int) -> None:
        """Search globally, then polish."""
        from scipy.optimize import Bounds, differential_evolution, minimize

        free = self._free()
        middle = self._encode(mixed_case(self.seed, 0)) if self.size == 3 else np.array([sum(b) / 2 for b in self.bounds])
        bounds = Bounds(*np.array([self.bounds[k] for k in free]).T)

        def objective(values: Any) -> float:
            point = middle.copy()
            point[free] = values
            return self._loss(point)

        rounds = max(1, int(0.75 * budget) // _POPULATION - 1)
        found = differential_evolution(
            objective, bounds, init=self._population(free), maxiter=rounds, polish=False, tol=0, rng=self.seed
        )
        left = budget - self.evaluations
        if left > 0 and math.isfinite(found.fun):
            options = {"maxfev": left, "xatol": 1e-10, "fatol": 1e-12, "adaptive": True}
            minimize(objective, found.x, method="Nelder-Mead", bounds=bounds, options=options)  # type: ignore[call-overload]

    def _population(self, free: npt.NDArray[np.intp]) -> Array:
        """Return first points: cases of the mixed family of this size, and points spread evenly."""
        rng = np.random.default_rng(self.seed)
        low, high = np.array(self.bounds).T
        rows = rng.uniform(low, high, (_POPULATION, len(self.bounds)))
        known = [case for case in (mixed_case(self.seed, index) for index in range(200)) if case.n == self.size]
        for row, case in zip(rows[: _POPULATION // 2], known):
            row[:] = np.clip(self._encode(case), low, high)
        return np.asarray(rows[:, free])

    def _free(self) -> npt.NDArray[np.intp]:
        """Return the coordinates that the claim depends on."""
        dependent = {"A", "reference", "beta"} | {name for name in ("policy", "opponent", "step") if self._depends_on(name)}
        names = np.repeat(list(self.parts), list(self.parts.values()))
        return np.flatnonzero([name in dependent for name in names])

    def _depends_on(self, name: str) -> bool:
        rng = np.random.default_rng(self.seed)
        for index in range(20):
            case = mixed_case(self.seed, index)
            row = log_softmax(rng.standard_normal(case.n))
            changes: dict[str, dict[str, Any]] = {
                "policy": {"log_policy": row},
                "opponent": {"log_opponent": row},
                "step": {"step_size": case.step_size * 0.01},
            }
            if not _same(judge(self.claim, case), judge(self.claim, case.at(**changes[name]))):
                return True
        return False

    def _encode(self, case: Case) -> Array:
        matrix = case.advantages[self.pairs]
        rows = [row - row.max() / 2 - row.min() / 2 for row in (case.log_reference, case.log_policy, case.log_opponent)]
        return np.concatenate([matrix, rows[0], [np.log10(case.beta)], rows[1], rows[2], [np.log10(case.step_size)]])

    def _decode(self, point: Array) -> Case:
        values = dict(zip(self.parts, np.split(point, np.cumsum(list(self.parts.values()))[:-1])))
        matrix = np.full((self.size, self.size), 0.5)
        matrix[self.pairs] += values["A"]
        matrix.T[self.pairs] -= values["A"]
        reference = np.exp(log_softmax(values["reference"]))
        game = PreferenceGame(matrix, float(10 ** values["beta"][0]), reference)
        policies = log_softmax(values["policy"]), log_softmax(values["opponent"])
        return Case(game, *policies, float(10 ** values["step"][0]), "search")

    def _loss(self, point: Array) -> float:
        self.evaluations += 1
        case = self._decode(point)
        finding = judge(self.claim, case)
        if finding.verdict not in ("holds", "violated"):
            return math.inf
        if finding.ratio > self.best:
            self.best, self.case = finding.ratio, case
        return -finding.ratio if math.isfinite(finding.ratio) else -1e300


def _same(first: Finding, second: Finding) -> bool:
    return first == second or (math.isnan(first.ratio) and math.isnan(second.ratio))
