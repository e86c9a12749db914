"""Claims on the command line: the table of verdicts, the kill matrix, witnesses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import nlhfsim
from nlhfsim import claims, provenance
from nlhfsim.cli import inputs, output
from nlhfsim.tables import verdict_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nlhfsim.claims import Witness
    from nlhfsim.verify import VerificationReport, Verdict

DEEP = 5000
"""Games of ``--deep``."""


def verify_claims(
    names: tuple[str, ...],
    mutants: bool,
    deep: bool,
    games: int | None,
    seed: int,
    workers: int | None,
    replay: str | None,
    out: str | None,
    as_json: bool,
) -> int:
    """Check claims, say what was found, and return the exit code."""
    if deep and games is not None:
        raise click.UsageError("--deep stands for --games 5000: give one of them")
    if replay is not None:
        if names or mutants or deep or games is not None or out is not None:
            raise click.UsageError(
                "--replay judges the case of its file only: leave out claims, --mutants, --deep, --games and --out"
            )
        return _replayed(claims.load_witness(replay), as_json)
    folder = inputs.ensure_folder(out)
    count = DEEP if deep else 200 if games is None else games
    with output.Progress(quiet=as_json).stage("verifying"):
        report = nlhfsim.verify(list(names) or None, count, seed, kill_matrix=mutants, workers=workers)
    if folder is not None:
        report.save(folder)
        provenance.write(folder, output.command())
    if as_json:
        output.emit_json(report.to_dict())
    else:
        _tell(report, mutants)
        if folder is not None:
            print(f"\nresult.json and the witnesses are in {folder}/")
    return 0 if report.passed else 1


def _replayed(witness: Witness, as_json: bool) -> int:
    found = witness.replay()
    if as_json:
        output.emit_json({"claim": witness.claim, **found._asdict()})
    else:
        print(witness)
        print(f"now: {found.verdict}, measured {found.measured:.6g}, bound {found.bound:.6g} {found.reason}".rstrip())
    return 1 if found.verdict == "violated" and claims.get(witness.claim).status != "conjecture" else 0


def _tell(report: VerificationReport, mutants: bool) -> None:
    count = len(report.verdicts)
    output.table(
        f"{count} claim{'s' * (count > 1)}, {report.n_games} games, seed {report.seed}, {report.seconds:.0f} s",
        *verdict_table(report.verdicts),
        verdict_notes(report.verdicts),
    )
    for verdict in report.verdicts:
        if verdict.verdict == "violated" and verdict.witness is not None:
            print(f"\n{verdict.witness}")
    if mutants:
        print()
        _tell_mutants(report)
    print(f"\n{report!r}")


def verdict_table(verdicts: Iterable[Verdict]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of verdicts: a claim a row."""
    rows: list[list[Any]] = []
    for verdict in verdicts:
        killed = sum(verdict.mutants.values())
        mutants = f"{killed} of {len(verdict.mutants)}" if verdict.mutants else None
        ratios = [verdict.worst_ratio, verdict.median_ratio]
        rows.append(
            [
                verdict.claim.id,
                verdict.claim.status,
                verdict_words(verdict.claim.status, verdict.verdict, verdict.n_games),
                verdict.n_games,
                *ratios,
                mutants,
            ]
        )
    return ["claim", "status", "verdict", "games", "worst ratio", "median", "mutants rejected"], rows


def verdict_notes(verdicts: Iterable[Verdict]) -> list[str]:
    """Return what the table means, and what is wrong."""
    some = list(verdicts)
    notes = [
        "ratio: measured over bound (lower bounds: bound over measured), at most 1; identities and thresholds: difference in "
        "units of the tolerance"
    ]
    survived = [f"{v.claim.id} ({name})" for v in some for name, killed in v.mutants.items() if not killed]
    undecided = sum(v.n_inconclusive for v in some)
    notes += [f"{undecided} cases could not be told from rounding and do not count"] if undecided else []
    notes += [f"mutants that survived: {', '.join(survived)}"] if survived else []
    silent = [v.claim.id for v in some if v.n_games == 0]
    notes += [f"no game says anything about {', '.join(silent)}; more games may"] if silent else []
    return notes


def _tell_mutants(report: VerificationReport) -> None:
    """Print the kill matrix: wrong claims, and wrong steps against every claim about their method."""
    steps = {(claim, name) for by in report.wrong_steps.values() for name, row in by.items() for claim in row}
    wrong = [[c, name, killed] for c, row in report.mutants.items() for name, killed in row.items() if (c, name) not in steps]
    if wrong:
        output.table("Wrong claims", ["claim", "what is wrong", "rejected"], wrong)
    rows = [
        [method, name, ", ".join(c for c, killed in by.items() if killed), ", ".join(c for c, killed in by.items() if not killed)]
        for method, row in report.wrong_steps.items()
        for name, by in row.items()
    ]
    if rows:
        print()
        output.table("Wrong steps", ["method", "what is wrong", "rejected by", "not noticed by"], rows)
