"""Witnesses: the case that decides a verdict, shrunk to a readable game, saved, loaded and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlhfsim.claims._case import Case
from nlhfsim.claims._registry import get, names
from nlhfsim.claims._spec import Claim, Finding, judge
from nlhfsim.errors import Array, DataError, InputError, UnknownNameError, ensure_positive
from nlhfsim.files import ensure_path
from nlhfsim.games.game import PreferenceGame
from nlhfsim.simplex import log_softmax

_EVALUATIONS = 400
_POLICIES = ("log_reference", "log_policy", "log_opponent")
_FIELDS = ("claim", "verdict", "ratio", "measured", "bound", "family", "preferences", "labels", "beta", "step_size", *_POLICIES)


@dataclass(frozen=True, eq=False)
class Witness:
    """A case with what it says about a claim.

    Attributes
    ----------
    claim : str
        Id of the claim.
    case : Case
        The game, two policies and a step size, the hypotheses enforced.
    finding : Finding
        The verdict on it, with measured and bound.
    """

    claim: str
    case: Case
    finding: Finding

    def replay(self, claim: Claim | None = None) -> Finding:
        """Judge the case again, by the registered claim or the one given."""
        if claim is None and self.claim not in names():
            raise UnknownNameError(f"claim {self.claim!r} is not registered: give it, as in witness.replay(claim)")
        return judge(get(self.claim) if claim is None else claim, self.case)

    def __str__(self) -> str:
        case, found = self.case, self.finding
        return (
            f"{self.claim}: {found.verdict}, measured {found.measured:.6g}, bound {found.bound:.6g}\n"
            f"P = {_rows(case.game.preferences.reshape(case.n, case.n))}\n"
            f"beta = {case.beta:.6g}, reference = {_row(case.reference)}, step_size = {case.step_size:.6g}\n"
            f"policy = {_row(case.policy)}, opponent = {_row(case.opponent)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the witness as numbers, lists and strings."""
        case = self.case
        return {
            "claim": self.claim,
            "verdict": self.finding.verdict,
            "ratio": _number(self.finding.ratio),
            "measured": _number(self.finding.measured),
            "bound": _number(self.finding.bound),
            "family": case.family,
            "preferences": case.game.preferences.reshape(case.n, case.n).tolist(),
            "labels": list(case.game.labels),
            "beta": case.beta,
            "log_reference": case.log_reference.tolist(),
            "log_policy": case.log_policy.tolist(),
            "log_opponent": case.log_opponent.tolist(),
            "step_size": case.step_size,
        }

    def save(self, path: str | Path) -> Path:
        """Write the witness to a JSON file, and return its path.

        Raises
        ------
        InputError
            If `path` is none.
        DataError
            If the file cannot be written.
        """
        target = ensure_path("path", path)
        try:
            target.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"path {str(path)!r} cannot be written: {error.strerror or error}") from None
        return target


def load_witness(path: str | Path) -> Witness:
    """Return a saved witness.

    Raises
    ------
    InputError
        If `path` is none.
    DataError
        If the file is not one.
    """
    source = ensure_path("path", path)
    try:
        parts = json.loads(source.read_text(encoding="utf-8"))
        _ensure_fields(parts)
        logs = {name: np.array(parts[name], dtype=np.float64) for name in _POLICIES}
        game = PreferenceGame(parts["preferences"], parts["beta"], np.exp(logs["log_reference"]), parts["labels"])
        for name, row in logs.items():
            if row.shape != (game.n,) or game.n_contexts > 1:
                raise ValueError("its policies are not of the game's size")
            if not (np.isfinite(row).all() and abs(np.logaddexp.reduce(row)) < 1e-9):
                raise ValueError(f"{name} is not the logarithm of probabilities that add up to 1")
        step_size = ensure_positive("step_size", parts["step_size"])
        case = Case(game, logs["log_policy"], logs["log_opponent"], step_size, str(parts["family"]))
        ratio, measured, bound = (
            np.nan if parts[name] is None else float(parts[name]) for name in ("ratio", "measured", "bound")
        )
        return Witness(str(parts["claim"]), case, Finding(str(parts["verdict"]), ratio, measured, bound))
    except OSError as error:
        raise DataError(f"path {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"path {str(path)!r} is not a saved witness: {error}") from None


def _ensure_fields(parts: Any) -> None:
    if isinstance(parts, dict) and "claims" in parts:
        raise ValueError("it is a report; the witnesses lie beside it, in the folder witnesses")
    if not isinstance(parts, dict) or "claim" not in parts:
        raise ValueError("it is not a JSON object as Witness.save and `nlhfsim verify --out` write it")
    missing = [name for name in _FIELDS if name not in parts]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")


def shrink(claim: Claim, case: Case, keep: Callable[[Finding], bool] | None = None, least: int = 1) -> Witness:
    """Return the simplest case found for which `keep` still accepts the finding, from one for which it does.

    Parameters
    ----------
    claim : Claim
        The claim.
    case : Case
        The case.
    keep : callable, optional
        Default: that the claim is violated.
    least : int
        Actions that the game must keep.

    Raises
    ------
    InputError
        If `keep` does not accept the case itself.
    """
    accepts = keep or (lambda finding: finding.verdict == "violated")
    found = judge(claim, case)
    if not accepts(found):
        raise InputError(
            f"the case does not show what is to be kept: claim {claim.id} {found.verdict} on it; does it draw without a seed?"
        )
    if claim.cases is not None:
        return witness_of(claim, case)
    left, improved = _EVALUATIONS, True
    while improved and left > 0:
        improved = False
        for simpler in _simpler(case, least):
            left -= 1
            if _still(claim, simpler, accepts):
                case, improved = simpler, True
                break
            if left == 0:
                break
    return witness_of(claim, case)


def witness_of(claim: Claim, case: Case) -> Witness:
    """Return a case, its hypotheses enforced, with what it says about a claim."""
    admitted = claim.admit(case)
    shown = case if isinstance(admitted, str) else admitted
    return Witness(claim.id, shown, judge(claim, shown))


def _still(claim: Claim, case: Case, accepts: Callable[[Finding], bool]) -> bool:
    try:
        return accepts(judge(claim, case))
    except (InputError, ArithmeticError, np.linalg.LinAlgError):
        return False


def _simpler(case: Case, least: int = 1) -> Iterator[Case]:
    """Yield simpler cases, the boldest first; each differs from the case."""
    n, matrix = case.n, case.game.preferences.reshape(case.n, case.n)
    for left_out in range(n if n > least else 0):
        yield _without(case, left_out)
    uniform = np.full(n, -np.log(n))
    if not np.allclose(case.log_reference, uniform):
        yield case.at(game=case.game.with_reference(None))
    for name in ("log_policy", "log_opponent"):
        for log_policy in (uniform, case.log_reference, _rounded(getattr(case, name), 1), _rounded(getattr(case, name), 2)):
            if _simplicity(log_policy) < _simplicity(getattr(case, name)):
                yield case.at(**{name: log_policy})
    for digits in (0, 1, 2):
        rounded = _rounded_matrix(matrix, digits)
        if not np.allclose(rounded, matrix, rtol=0, atol=1e-12):  # a game keeps P - 1/2, and P to rounding only
            yield case.at(game=PreferenceGame(rounded, case.beta, case.reference))
    for i, j in zip(*np.triu_indices(n, 1)):
        for value in (0.0, 0.5, 1.0):
            if matrix[i, j] not in (0.0, 0.5, 1.0):
                changed = matrix.copy()
                changed[i, j], changed[j, i] = value, 1 - value
                yield case.at(game=PreferenceGame(changed, case.beta, case.reference))
    for log_reference in (_rounded(case.log_reference, 1), _rounded(case.log_reference, 2)):
        if _simplicity(log_reference) < _simplicity(case.log_reference):
            yield case.at(game=case.game.with_reference(np.exp(log_reference)))
    for beta in _simple_numbers(case.beta):
        yield case.with_beta(beta)
    for step_size in _simple_numbers(case.step_size):
        yield case.at(step_size=step_size)


def _without(case: Case, left_out: int) -> Case:
    kept = [action for action in range(case.n) if action != left_out]
    policies = {name: log_softmax(getattr(case, name)[kept]) for name in ("log_policy", "log_opponent")}
    return case.at(game=case.game.restrict(kept), **policies)


def _rounded(log_policy: Array, digits: int) -> Array:
    """Return the policy with probabilities of so many decimals, the largest taking up the rest; itself if one would be 0."""
    policy = np.round(np.exp(log_policy), digits)
    top = int(np.argmax(policy))
    policy[top] = round(1 - float(np.delete(policy, top).sum()), digits)
    return np.log(policy) if policy.min() > 0 else log_policy


def _rounded_matrix(matrix: Array, digits: int) -> Array:
    """Return preferences with so many decimals, or certain votes and ties; a pair's two entries still add up to 1."""
    above = np.triu(np.round(matrix * 2) / 2 if digits == 0 else np.round(matrix, digits), 1)
    return np.asarray(above + np.tril(1 - above.T, -1) + np.eye(len(matrix)) / 2)


def _simplicity(log_policy: Array) -> int:
    """Return how complicated a policy is to write: 0 uniform, 1 and 2 with so many decimals, else 3."""
    policy = np.exp(log_policy)
    if np.allclose(policy, 1 / len(policy), rtol=1e-12):
        return 0
    return next((digits for digits in (1, 2) if np.allclose(policy, np.round(policy, digits), atol=1e-12)), 3)


def _simple_numbers(value: float) -> Iterator[float]:
    """Yield numbers near a positive one that are simpler to write: a power of ten, one digit, two digits."""
    if value <= 0:
        return
    complexity = len(f"{value:.17g}".strip("0").replace(".", "").strip("0"))
    power = 10.0 ** np.round(np.log10(value))
    for simple, digits in ((1.0, 0), (float(power), 0), (float(f"{value:.1g}"), 1), (float(f"{value:.2g}"), 2)):
        if simple != value and (digits < complexity - 1 or digits == 0 and value != power and value != 1):
            yield simple


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _row(values: Array) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _rows(matrix: Array) -> str:
    return "[" + ", ".join(_row(row) for row in matrix) + "]"
