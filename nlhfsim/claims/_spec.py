"""What a claim is: data and pure functions, with named hypotheses, a tolerance that has a reason, and mutants that must fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.dynamics import Dynamics
from nlhfsim.errors import Array, InputError, UnknownNameError, did_you_mean, ensure_choice, ensure_nonnegative
from nlhfsim.sources import Source

KINDS = ("equality", "upper", "lower", "rate", "threshold")
STATUSES = ("identity", "theorem", "asymptotic", "conjecture", "counterexample")
COSTS = {"cheap": 1, "moderate": 4, "costly": 20}
"""Cost classes: a claim is checked on the number of games asked for, divided by this."""
_UNRESOLVED = 1e-2
"""An entry whose uncertainty is above this share of it decides nothing."""
_AWAY = 1e-6
"""A start nearer to π* than this KL shows nothing about a rate."""


class Measured(NamedTuple):
    """A measurement with what it may be off by.

    Attributes
    ----------
    value : float or numpy.ndarray
        The number, or one number a step, shape ``(k,)``; NaN does not count.
    uncertainty : float or numpy.ndarray
        Absolute error from rounding or from an equilibrium that is known to so many digits only; of the same shape, or a number.
    """

    value: Any
    uncertainty: Any = 0.0


@dataclass(frozen=True)
class Hypothesis:
    """A named condition under which a claim is made; `Claim.without` drops it to look for a counterexample.

    Attributes
    ----------
    name : str
        In words and symbols: ``"γ ≤ 4β"``.
    holds : callable
        ``holds(case) -> bool``.
    enforce : callable or None
        ``enforce(case) -> case`` that meets it, say with the step size brought into its range; None: a case that does not meet it
        does not count.
    """

    name: str
    holds: Callable[[Case], bool]
    enforce: Callable[[Case], Case] | None = None

    def __post_init__(self) -> None:
        _ensure_functions(f"hypothesis {self.name!r}", self, ("holds",), ("enforce",))


@dataclass(frozen=True)
class Mutant:
    """A claim that is wrong by at most a factor 2, by one dropped term or one wrong argument, and must be found violated.

    Attributes
    ----------
    name : str
        What is wrong.
    changes : mapping
        The attributes of the claim that differ: ``{"bound": …}``.
    """

    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A statement about preference games that can be checked on a case.

    Attributes
    ----------
    id : str
        As in the theory: lower case with hyphens.
    title : str
        The statement in a few words.
    statement : str
        The statement in LaTeX, without dollar signs.
    source : Source
        Where it is stated, with theorem or equation.
    kind : str
        ``"equality"``: both sides agree; ``"upper"`` and ``"rate"``: measured ≤ bound; ``"lower"``: measured ≥ bound;
        ``"threshold"``: measured and predicted threshold agree within the tolerance.
    status : str
        ``"identity"``, ``"theorem"``, ``"asymptotic"``, ``"conjecture"`` (searched, never asserted), or ``"counterexample"``: it
        holds where the thing that must fail is seen to fail.
    measure, bound : callable
        ``measure(case)`` and ``bound(case)``, or ``measure(case, dynamics)`` where the claim is about a method: a number, an
        array or a `Measured`. They share no function beyond NumPy's: two routes to one truth.
    tolerance : float
        Relative tolerance, beside the uncertainties.
    absolute : float
        Absolute tolerance.
    why : str
        The reason for the tolerances.
    hypotheses : tuple of Hypothesis
        What is assumed beside β > 0 and full support.
    mutants : tuple of Mutant
        Wrong claims that the check must reject.
    slack : str
        Where the bound is known to be loose, by how much; empty if it is attained.
    proof : str
        The proof in a few lines, or where it is.
    cost : str
        ``"cheap"``, ``"moderate"`` or ``"costly"``.
    method : Dynamics or None
        The method that the claim is about, with parameters; its step size is the case's, if it has one.
    counts : callable or None
        ``counts(case) -> str``: why the case says nothing about the claim, empty if it does. A start within KL 1e-6 of π* never
        counts for a rate.
    unregularized : bool
        Whether it is about β = 0; else a game without regularization does not count.
    cases : callable or None
        ``cases(seed) -> iterable of Case``: the claim's own cases, where it is about particular games.
    """

    id: str
    title: str
    statement: str
    source: Source
    kind: str
    status: str
    measure: Callable[..., Any]
    bound: Callable[..., Any]
    tolerance: float = 1e-10
    absolute: float = 0.0
    why: str = "rounding"
    hypotheses: tuple[Hypothesis, ...] = ()
    mutants: tuple[Mutant, ...] = ()
    slack: str = ""
    proof: str = ""
    cost: str = "cheap"
    method: Dynamics | None = None
    counts: Callable[[Case], str] | None = None
    unregularized: bool = False
    cases: Callable[[int], Iterable[Case]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, choices in (("kind", KINDS), ("status", STATUSES), ("cost", COSTS)):
            ensure_choice(name, getattr(self, name), choices)
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", str(self.id)):
            raise InputError(f"id = {self.id!r} must be words in lower case with hyphens between them")
        for name in ("title", "statement", "why", "slack", "proof"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} of claim {self.id} = {getattr(self, name)!r} must be a string")
        for name in ("tolerance", "absolute"):
            ensure_nonnegative(f"{name} of claim {self.id}", getattr(self, name))
        if not isinstance(self.source, Source):
            raise InputError(f"source of claim {self.id} = {self.source!r} must be a nlhfsim.sources.Source")
        if not isinstance(self.method, (Dynamics, type(None))):
            raise InputError(f"method of claim {self.id} = {self.method!r} must be a method with parameters, NashMD(0.5) say")
        _ensure_functions(f"claim {self.id}", self, ("measure", "bound"), ("counts", "cases"))
        _ensure_items(self, "hypotheses", Hypothesis)
        _ensure_items(self, "mutants", Mutant)
        known = [item.name for item in fields(self)]
        for mutant in self.mutants:
            for changed in mutant.changes:
                ensure_choice(f"changes of mutant {mutant.name!r} of claim {self.id}", changed, known)

    def without(self, hypothesis: str) -> Claim:
        """Return the claim without one of its hypotheses, by name, to look for a counterexample.

        Raises
        ------
        UnknownNameError
            If it has no such hypothesis.
        """
        known = [item.name for item in self.hypotheses]
        if hypothesis not in known:
            raise UnknownNameError(f"claim {self.id} has no hypothesis {hypothesis!r}{did_you_mean(str(hypothesis), known)}")
        kept = tuple(item for item in self.hypotheses if item.name != hypothesis)
        which = f"-{known.index(hypothesis) + 1}" if len(known) > 1 else ""
        return replace(self, id=f"{self.id}-without{which}", hypotheses=kept)

    def mutated(self, mutant: Mutant) -> Claim:
        """Return the wrong claim that a mutant stands for."""
        return replace(self, mutants=(), **mutant.changes)

    def admit(self, case: Case) -> Case | str:
        """Return the case with every hypothesis enforced, or why it does not count."""
        if self.unregularized:
            case = case.with_beta(0.0)
        elif case.beta == 0:
            return "beta is 0"
        for hypothesis in self.hypotheses:
            if hypothesis.enforce is not None:
                case = self._answer(f"enforce of hypothesis {hypothesis.name!r}", hypothesis.enforce, case, Case)
        if case.beta == 0 and not self.unregularized:
            return "a hypothesis made beta 0"
        for hypothesis in self.hypotheses:
            if not self._answer(f"hypothesis {hypothesis.name!r}", hypothesis.holds, case, (bool, np.bool_)):
                return f"hypothesis {hypothesis.name} does not hold"
        if self.counts is not None and (why := self._answer("counts", self.counts, case, str)):
            return str(why)
        if self.kind == "rate" and not self.unregularized and not case.start_kl > _AWAY:
            return "the start is the equilibrium"
        return case

    def _answer(self, part: str, function: Callable[[Case], Any], case: Case, kind: Any) -> Any:
        """Return what a part of the claim says about a case, of the kind that it must be."""
        try:
            answer = function(case)
            if not isinstance(answer, kind):
                names = [k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,))]
                raise TypeError(f"it returned {answer!r}, must return a {names[0]}")
        except Exception as error:
            raise self._failure(part, case, error) from error
        return answer

    def evaluate(self, side: Callable[..., Any], case: Case) -> tuple[Array, Array]:
        """Return a side of the claim on a case as values and uncertainties, shape ``(k,)`` each."""
        try:
            with np.errstate(all="ignore"):
                found = side(case) if self.method is None else side(case, self.dynamics(case))
            value, uncertainty = found if isinstance(found, Measured) else Measured(found)
            for given in (value, uncertainty):
                if np.asarray(given).dtype == np.bool_:
                    raise TypeError("it returned True or False, which does not say by how much: return a number")
                if np.asarray(given).dtype.kind not in "iuf":
                    raise TypeError(f"it returned {given!r}, must return a number or an array of them")
            values, doubt = np.atleast_1d(np.asarray(value, dtype=np.float64)), np.asarray(uncertainty, dtype=np.float64)
        except Exception as error:
            raise self._failure("measure" if side is self.measure else "bound", case, error) from error
        if doubt.ndim and doubt.shape != values.shape:
            raise InputError(
                f"claim {self.id}: uncertainty has shape {doubt.shape}, its value {values.shape}; must agree or be one number"
            )
        return values, np.broadcast_to(doubt, values.shape)

    def _failure(self, part: str, case: Case, error: Exception) -> InputError:
        """Return the sentence that says which part of the claim failed, on what and why."""
        words = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        where = f"a case of {case.n} actions, beta = {case.beta:g}, step_size = {case.step_size:g}"
        return InputError(f"{part} of claim {self.id} failed on {where}: {words}")

    def own_cases(self, seed: int) -> list[Case]:
        """Return the claim's own cases; none if it is about all games."""
        if self.cases is None:
            return []
        try:
            found = list(self.cases(seed))
        except Exception as error:
            raise InputError(f"cases of claim {self.id} failed: {type(error).__name__}: {error}") from error
        for case in found:
            if not isinstance(case, Case):
                raise InputError(f"cases of claim {self.id}: {case!r} must be a nlhfsim.claims.Case")
        return found

    def dynamics(self, case: Case) -> Dynamics:
        """Return the method with the step size of the case, if it takes one."""
        if self.method is None:
            raise InputError(f"claim {self.id} is not about a method")
        return self.method if self.method.method.scheduled is None else self.method.with_step(case.step_size)


def _ensure_functions(owner: str, parts: Any, needed: Iterable[str], possible: Iterable[str]) -> None:
    for name in needed:
        if not callable(getattr(parts, name)):
            raise InputError(f"{name} of {owner} = {getattr(parts, name)!r} must be a function of a case")
    for name in possible:
        if getattr(parts, name) is not None and not callable(getattr(parts, name)):
            raise InputError(f"{name} of {owner} = {getattr(parts, name)!r} must be a function, or None")


def _ensure_items(claim: Claim, name: str, kind: Any) -> None:
    """Refuse what is not a tuple of hypotheses or mutants with names of their own."""
    items = getattr(claim, name)
    if not isinstance(items, (tuple, list)):
        raise InputError(f"{name} of claim {claim.id} = {items!r} must be a tuple of nlhfsim.claims.{kind.__name__}")
    names = []
    for item in items:
        if not isinstance(item, kind):
            raise InputError(f"{name} of claim {claim.id} holds {item!r}, must hold nlhfsim.claims.{kind.__name__}")
        if item.name in names:
            raise InputError(f"{name} of claim {claim.id}: {item.name!r} is there more than once")
        names.append(item.name)


class Finding(NamedTuple):
    """What one case says about a claim.

    Attributes
    ----------
    verdict : str
        ``"holds"``, ``"violated"``, ``"inconclusive"`` or ``"skipped"``.
    ratio : float
        At most 1 exactly where the claim holds: measured/bound (upper), bound/measured (lower), 0 for 0 against 0, distance in
        units of the tolerance (equality, threshold). The worst entry's.
    measured, bound : float
        Of the worst entry.
    reason : str
        Why the case does not count, if it does not.
    """

    verdict: str
    ratio: float = float("nan")
    measured: float = float("nan")
    bound: float = float("nan")
    reason: str = ""


def judge(claim: Claim, case: Case) -> Finding:
    """Return what a case says about a claim.

    Entries that are NaN, or less certain than a hundredth of their size, decide nothing; a case without another is inconclusive.
    Infinity is a number like others: what is below it holds.

    Raises
    ------
    InputError
        If `claim` or `case` is none.
    """
    if not isinstance(claim, Claim):
        raise InputError(f"claim = {claim!r} must be a claim; nlhfsim.claims.get returns one by its id")
    if not isinstance(case, Case):
        raise InputError(f"case = {case!r} must be a nlhfsim.claims.Case")
    with np.errstate(all="ignore"):
        admitted = claim.admit(case)
    if isinstance(admitted, str):
        return Finding("skipped", reason=admitted)
    measured, doubt = claim.evaluate(claim.measure, admitted)
    bound, more_doubt = claim.evaluate(claim.bound, admitted)
    try:
        measured, doubt, bound, more_doubt = np.broadcast_arrays(measured, doubt, bound, more_doubt)
    except ValueError:
        raise InputError(
            f"claim {claim.id}: measure has shape {measured.shape}, bound {bound.shape}; must agree or be one number"
        ) from None
    uncertainty = doubt + more_doubt
    size = np.maximum(np.abs(measured), np.abs(bound))
    resolved = ~np.isnan(measured) & ~np.isnan(bound) & (uncertainty <= _UNRESOLVED * size + claim.absolute)
    if not resolved.any():
        return Finding("inconclusive", reason="nothing could be told from rounding")
    return _worst(claim, measured[resolved], bound[resolved], uncertainty[resolved])


def _worst(claim: Claim, measured: Array, bound: Array, uncertainty: Array) -> Finding:
    with np.errstate(all="ignore"):
        if claim.kind in ("equality", "threshold"):
            allowed = claim.tolerance * np.maximum(np.abs(measured), np.abs(bound)) + claim.absolute + uncertainty
            same = measured == bound
            ratios = np.where(same, 0.0, np.abs(measured - bound) / np.where(same, 1.0, allowed))
            excess = np.where(same, -1.0, ratios - 1)
        else:
            above, below = (bound, measured) if claim.kind == "lower" else (measured, bound)
            allowed = claim.tolerance * np.abs(bound) + claim.absolute + uncertainty
            excess = np.where(above <= below, -1.0, above - below - allowed)  # no tolerance of an infinite side is a number
            tied = np.where(above == 0, 0.0, 1.0)  # 0 against 0 says nothing about the constant
            ratios = np.where(above == below, tied, np.where(below > 0, np.maximum(above, 0.0) / below, np.inf * (above > below)))
    excess = np.where(np.isnan(excess), np.inf, excess)
    ratios = np.where(np.isnan(ratios), np.where(excess > 0, np.inf, 0.0), ratios)
    violated = excess > 0
    ratios = np.where(violated, ratios, np.minimum(ratios, 1.0))  # what is allowed for does not count as tightness
    worst = int(np.argmax(np.where(violated == violated.any(), ratios, -np.inf)))
    verdict = "violated" if violated.any() else "holds"
    return Finding(verdict, float(ratios[worst]), float(measured[worst]), float(bound[worst]))
