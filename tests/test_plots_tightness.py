"""Histograms of tightness: every case is counted once, on its side of the bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import plots
from nlhfsim.errors import InputError

BOUNDS = ["log-ratio-span", "gap-dominates-kl"]
EQUALITY = "constant-sum"
ANYTHING: Any = "all"


@pytest.fixture(scope="module")
def report() -> nl.VerificationReport:
    return nl.verify([*BOUNDS, EQUALITY], n_games=60, mutants=False, workers=1)


def bars(axes: Any, row: int) -> list[tuple[float, float, float, str]]:
    """Return left and right side, height and kind of every bar of a row."""
    found = []
    for patch in axes.patches:
        heights, edges, baseline = patch.get_data()
        if baseline == row:
            found += [(*sides, row - top, patch.get_gid()) for *sides, top in zip(edges[:-1], edges[1:], heights)]
    return found


def marks(axes: Any, gid: str) -> list[Any]:
    return [line for line in axes.lines if line.get_gid() == gid]


def test_a_verdict_keeps_the_ratio_of_every_case(report: nl.VerificationReport) -> None:
    for verdict in report.verdicts:
        assert len(verdict.ratios) == verdict.n_games
        assert max(verdict.ratios) == verdict.worst_ratio and np.median(verdict.ratios) == verdict.median_ratio


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_bars_are_the_cases(report: nl.VerificationReport, scale: str) -> None:
    """Of bars higher than the least height the heights are counts; each side is a claim's share of its bin."""
    axes = plots.tightness(report, scale=scale, bins=12)
    for row, label in enumerate(axes.get_yticklabels()):
        ratios = np.array(report[label.get_text()].ratios)
        found = bars(axes, row)
        counts = np.array([((left <= ratios) & (ratios < right)).sum() for left, right, *_ in found])
        counts[0] += (ratios < found[0][0]).sum()
        assert counts.sum() == len(ratios)
        heights = np.array([height for _, _, height, _ in found])
        expected = np.where(counts > 0, np.maximum(0.85 * counts / counts.max(), 0.025), 0)
        np.testing.assert_allclose(heights, expected, atol=1e-12)
        assert all(kind == "holds" for *_, kind in found)


def test_tightest_first_with_median_and_largest(report: nl.VerificationReport) -> None:
    axes = plots.tightness(report)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == sorted(BOUNDS, key=lambda name: -max(report[name].ratios))
    for name, median, worst in zip(names, marks(axes, "median"), marks(axes, "worst")):
        assert median.get_xdata()[0] == report[name].median_ratio and worst.get_xdata()[0] == report[name].worst_ratio
    assert [text.get_text() for text in axes.texts] == ["60", "60", "cases"]
    assert axes.get_xlabel() == "Measured / bound"


def test_what_is_violated_stands_beyond_the_bound_and_is_seen(report: nl.VerificationReport) -> None:
    holds = report["gap-dominates-kl"]
    violated = replace(holds, ratios=(*holds.ratios, 1.0 + 1e-12, 1.02, 1.31, float("inf")))
    axes = plots.tightness(violated)
    found = [bar for bar in bars(axes, 0) if bar[3] == "violated" and bar[2] > 0]
    assert len(found) == 3 and all(height >= 0.3 for _, _, height, _ in found)
    assert found[0][0] == pytest.approx(1) and found[0][0] <= 1.02 < found[0][1]
    assert found[1][0] <= 1.31 < found[1][1] and found[2][1] == axes.get_xlim()[1]
    assert "violated" in [text.get_text() for text in axes.get_legend().get_texts()]
    assert marks(axes, "worst")[0].get_marker() == ">"


def test_what_a_search_found_is_marked_in_its_row(report: nl.VerificationReport) -> None:
    found = nl.claims.tightness("log-ratio-span", n=2, evaluations=100)
    axes = plots.tightness(report, searched=found)
    (diamond,) = marks(axes, "searched")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert diamond.get_xdata()[0] == found.found and round(diamond.get_ydata()[0]) == names.index("log-ratio-span")


def test_equalities_are_drawn_in_tolerances(report: nl.VerificationReport) -> None:
    assert plots.tightness(report[EQUALITY]).get_xlabel() == "Distance, in tolerances"
    alone = replace(report, verdicts=(report[EQUALITY],))
    assert len(plots.tightness(alone).get_yticklabels()) == 1


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "mixed": (lambda report: plots.tightness(report.verdicts), "found mixes bounds with equalities"),
    "nothing": (lambda report: plots.tightness([]), "found holds no claim of which a case counted"),
    "no case": (
        lambda report: plots.tightness(replace(report["log-ratio-span"], ratios=())),
        "no case of log-ratio-span counted",
    ),
    "a word": (lambda report: plots.tightness(ANYTHING), "found must be a VerificationReport, a Verdict, or a list of them"),
    "a number": (lambda report: plots.tightness(report.n_games), "found must be a VerificationReport"),
    "too many": (lambda report: plots.tightness([report["log-ratio-span"]] * 61), "found holds 61 claims; draw at most 60"),
    "scale": (lambda report: plots.tightness(report, scale="cubic"), "scale = 'cubic' is unknown"),
    "bins": (lambda report: plots.tightness(report, bins=2), "bins = 2 must be at least 4"),
    "searched": (
        lambda report: plots.tightness(report["gap-dominates-kl"], searched=search()),
        "searched = 'log-ratio-span' is unknown",
    ),
    "search of what": (
        lambda report: plots.tightness(report, searched=ANYTHING),
        "searched must hold what nlhfsim.claims.tightness found",
    ),
}


def search() -> Any:
    return nl.claims.tightness("log-ratio-span", n=2, evaluations=100)


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused(report: nl.VerificationReport, name: str) -> None:
    attempt, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence):
        attempt(report)
