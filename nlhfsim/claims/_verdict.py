"""What verification found: a verdict a claim, the kill matrix, and the report that holds them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nlhfsim import __version__
from nlhfsim.claims._spec import Claim, Finding
from nlhfsim.claims._witness import Witness
from nlhfsim.errors import DataError, MissingExtraError
from nlhfsim.files import ensure_path

_BINS = 20
_LARGEST_SHARE = 0.01
"""Of inconclusive cases, above which the claim itself is."""


@dataclass(frozen=True)
class Verdict:
    """What the cases say about a claim.

    Attributes
    ----------
    claim : Claim
        The claim.
    verdict : str
        ``"holds"``, ``"violated"`` or ``"inconclusive"``: no case counted, or more than 1 % of them, and more than one, could not
        be told from rounding, or the claim is a conjecture that nothing was found against.
    n_games, n_inconclusive, n_skipped : int
        Cases that counted, that could not be decided, and that say nothing about the claim.
    worst_ratio, median_ratio : float or None
        Tightness: measured/bound (for lower bounds the reverse), for equalities and thresholds the distance in units of the
        tolerance. None if no case counted.
    margin : float or None
        1 - `worst_ratio`.
    witness : Witness or None
        The case of the worst ratio, shrunk if the claim is violated.
    mutants : dict
        By name whether the mutant was rejected; empty if they were not tried.
    seconds : float
        Processor time of its checks.
    ratios : tuple of float
        The ratio of every case that counted, in the order of the cases.
    """

    claim: Claim
    verdict: str
    n_games: int
    n_inconclusive: int
    n_skipped: int
    worst_ratio: float | None
    median_ratio: float | None
    witness: Witness | None
    mutants: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0
    ratios: tuple[float, ...] = ()

    @property
    def margin(self) -> float | None:
        """1 - `worst_ratio`."""
        return None if self.worst_ratio is None else 1 - self.worst_ratio

    @property
    def mutant_rejected(self) -> bool | None:
        """Whether every mutant was rejected; None if there is none, or they were not tried."""
        return all(self.mutants.values()) if self.mutants else None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong: an asserted claim is neither violated nor left undecided, and no mutant survived.

        A claim about which every case says nothing is not held against the report.
        """
        silent = self.n_games == 0 and self.n_inconclusive == 0
        right = self.claim.status == "conjecture" or self.verdict == "holds" or silent
        return right and self.mutant_rejected is not False

    def histogram(self) -> list[int]:
        """Return how many ratios lie in each twentieth of the interval from 0 to 1, and last how many above 1."""
        ratios = np.array(self.ratios)
        counts, _ = np.histogram(ratios[ratios <= 1], np.linspace(0, 1, _BINS + 1))
        return [*map(int, counts), int((ratios > 1).sum())]

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as numbers, lists and strings."""
        claim = self.claim
        return {
            "id": claim.id,
            "title": claim.title,
            "statement": claim.statement,
            "source": str(claim.source),
            "kind": claim.kind,
            "status": claim.status,
            "cost": claim.cost,
            "hypotheses": [hypothesis.name for hypothesis in claim.hypotheses],
            "tolerance": {"relative": claim.tolerance, "absolute": claim.absolute, "why": claim.why},
            "slack": claim.slack,
            "proof": claim.proof,
            "verdict": self.verdict,
            "n_games": self.n_games,
            "n_inconclusive": self.n_inconclusive,
            "n_skipped": self.n_skipped,
            "worst_ratio": _finite(self.worst_ratio),
            "median_ratio": _finite(self.median_ratio),
            "margin": _finite(self.margin),
            "histogram": self.histogram(),
            "mutant_rejected": self.mutant_rejected,
            "mutants": dict(self.mutants),
            "seconds": round(self.seconds, 3),
            "witness": None if self.witness is None else self.witness.to_dict(),
        }


def conclude(claim: Claim, findings: list[Finding], witness: Witness | None, mutants: dict[str, bool], seconds: float) -> Verdict:
    """Return the verdict that the findings of all cases amount to."""
    by_verdict = {name: sum(f.verdict == name for f in findings) for name in ("holds", "violated", "inconclusive", "skipped")}
    counted = by_verdict["holds"] + by_verdict["violated"]
    if by_verdict["violated"]:
        verdict = "violated"
    elif counted == 0 or by_verdict["inconclusive"] > max(1, _LARGEST_SHARE * (counted + by_verdict["inconclusive"])):
        verdict = "inconclusive"
    else:
        verdict = "inconclusive" if claim.status == "conjecture" else "holds"
    ratios = [f.ratio for f in findings if f.verdict in ("holds", "violated")]
    return Verdict(
        claim,
        verdict,
        counted,
        by_verdict["inconclusive"],
        by_verdict["skipped"],
        max(ratios) if ratios else None,
        float(np.median(ratios)) if ratios else None,
        witness,
        mutants,
        seconds,
        tuple(float(ratio) for ratio in ratios),
    )


@dataclass(frozen=True)
class VerificationReport:
    """What `verify` found.

    Attributes
    ----------
    verdicts : tuple of Verdict
        One a claim.
    mutants : dict
        ``mutants[claim][mutant]`` says whether the mutant of a claim was rejected.
    wrong_steps : dict
        The kill matrix: ``wrong_steps[method][wrong step][claim]`` says whether a claim about the method rejects that step.
    n_games, seed : int
        As asked for.
    seconds : float
        Wall-clock time.
    """

    verdicts: tuple[Verdict, ...]
    mutants: dict[str, dict[str, bool]]
    wrong_steps: dict[str, dict[str, dict[str, bool]]]
    n_games: int
    seed: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every verdict passed, and some case decided something."""
        return all(verdict.passed for verdict in self.verdicts) and any(verdict.n_games > 0 for verdict in self.verdicts)

    def __getitem__(self, claim: str) -> Verdict:
        for verdict in self.verdicts:
            if verdict.claim.id == claim:
                return verdict
        raise KeyError(claim)

    def __repr__(self) -> str:
        counts = [f"{sum(v.verdict == name for v in self.verdicts)} {name}" for name in ("holds", "violated", "inconclusive")]
        return f"VerificationReport({'passed' if self.passed else 'FAILED'}, {', '.join(counts)}, n_games={self.n_games})"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as numbers, lists and strings."""
        return {
            "passed": self.passed,
            "claims": [verdict.to_dict() for verdict in self.verdicts],
            "wrong_steps": self.wrong_steps,
            "n_games": self.n_games,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "version": __version__,
        }

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a row a claim. Needs the ``data`` extra."""
        try:
            import pandas
        except ImportError:
            raise MissingExtraError("to_frame needs pandas: pip install 'nlhfsim[data]'") from None
        left_out = ("hypotheses", "tolerance", "witness", "mutants", "statement", "proof")
        return pandas.DataFrame([{k: v for k, v in x.to_dict().items() if k not in left_out} for x in self.verdicts])

    def save(self, folder: str | Path) -> Path:
        """Write ``result.json`` and a file a witness in ``witnesses/`` to a folder, and return its path.

        Raises
        ------
        InputError
            If `folder` is no path.
        DataError
            If it cannot be written.
        """
        target = ensure_path("folder", folder)
        try:
            (target / "witnesses").mkdir(parents=True, exist_ok=True)
            (target / "result.json").write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"folder {str(folder)!r} cannot be written: {error.strerror or error}") from None
        for verdict in self.verdicts:
            if verdict.witness is not None:
                verdict.witness.save(target / "witnesses" / f"{verdict.claim.id}.json")
        return target


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
