"""The figure of a sweep: medians over seeds of its table, other parameters at their best, and what cannot be drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim.errors import DataError, InputError

CONFIG: dict[str, Any] = {
    "games": [{"source": "rock-paper-scissors", "grid": {"beta": [0.05, 0.1]}}],
    "methods": [
        {"name": "NashMirrorProx", "grid": {"step_size": [0.5, 1, 2]}},
        {"name": "NashMD", "grid": {"step_size": [0.5, 1, 30]}},
        {"name": "NashProx", "proximal_step": 2, "grid": {"step_size": [0.5, 1], "averaging": [0.1, 0.5]}},
    ],
    "run": {"n_steps": 20, "start": "random", "seeds": 3},
}
pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> nl.Sweep:
    return nl.sweep(CONFIG, out=tmp_path_factory.mktemp("sweep"), workers=1)


def rows_of(found: nl.Sweep, method: str, **values: Any) -> list[dict[str, Any]]:
    return [row for row in found.rows if row["method"] == method and all(row[name] == v for name, v in values.items())]


def test_curves_are_the_medians_of_the_table(found: nl.Sweep) -> None:
    """A curve a method and β; a run that diverged is infinitely bad, so its point is missing; averaging is at its best."""
    axes = nl.plots.sweep(found)
    lines = axes.get_lines()
    assert axes.get_xlabel() == "step size" and len(lines) == 6 and axes.get_xscale() == axes.get_yscale() == "log"
    for line, (method, beta) in zip(lines, [(m, b) for b in (0.05, 0.1) for m in ("NashMirrorProx", "NashMD", "NashProx")]):
        assert line.get_label() == method and line.get_color() == nl.plots.colour_of(method)
        for step, shown in zip(*line.get_data()):
            rows = rows_of(found, method, beta=beta, method_step_size=step)
            medians = [
                np.median(
                    [row["final_kl"] if row["status"] == "completed" else np.inf for row in rows if row["method_averaging"] == a]
                )
                for a in {row["method_averaging"] for row in rows}
            ]
            best = min(medians)
            np.testing.assert_equal(shown, np.nan if best > 1e12 else max(best, 1e-30))
    keys = [text.get_text() for text in axes.get_legend().get_texts()]
    assert keys == ["NashMirrorProx", "NashMD", "NashProx", "β=0.05", "β=0.1"]


def test_along_another_number_and_metric(found: nl.Sweep) -> None:
    """Against β the step size is at its best."""
    axes = nl.plots.sweep(found, "beta", "exploitability")
    line = axes.get_lines()[0]
    for beta, shown in zip(*line.get_data()):
        medians = [
            np.median([row["final_exploitability"] for row in rows_of(found, "NashMirrorProx", beta=beta, method_step_size=step)])
            for step in (0.5, 1, 2)
        ]
        assert shown == max(min(medians), 1e-30)


def test_what_cannot_be_drawn(found: nl.Sweep, tmp_path: Path) -> None:
    """Unknown names, nothing that varies, too many problems."""
    with pytest.raises(InputError, match="along = 'stepsize' is unknown; did you mean 'step_size'"):
        nl.plots.sweep(found, "stepsize")
    with pytest.raises(InputError, match="metric = 'loss' is unknown"):
        nl.plots.sweep(found, metric="loss")
    one = {"games": [{"source": "rock-paper-scissors"}], "methods": [{"name": "NashMD"}], "run": {"n_steps": 3, "seeds": 2}}
    with pytest.raises(InputError, match="varies no number"):
        nl.plots.sweep(nl.sweep(one, out=tmp_path / "one", workers=1))
    many = CONFIG | {"games": [{"source": "rock-paper-scissors", "grid": {"beta": [0.1, 0.2, 0.3, 0.4, 0.5]}}]}
    five = nl.sweep(many | {"methods": CONFIG["methods"][:1]}, out=tmp_path / "many", workers=1)
    with pytest.raises(InputError, match="has 5 problems beside step_size, of which one figure shows four"):
        nl.plots.sweep(five)
    assert len(nl.plots.sweep(five, "beta").get_lines()) == 1


def test_a_damaged_table_is_said_to_be(found: nl.Sweep, tmp_path: Path) -> None:
    """By a sentence with the file, not by the library that reads it."""
    folder = tmp_path / "damaged"
    shutil.copytree(found.path, folder)
    (folder / "results.parquet").write_bytes(b"PAR1?")
    with pytest.raises(DataError, match="results.parquet' is damaged"):
        nl.Sweep.read(folder)


def test_long_names_under_bars_are_turned() -> None:
    """Three names fill a column of print when they are long, and stand side by side when they are short."""
    for names, turned in (
        (["a", "b", "c"], False),
        (["gpt-4-turbo-2024-04-09", "claude-3-opus-20240229", "llama-3-70b-instruct"], True),
    ):
        game = nl.games.rock_paper_scissors(beta=0.1)
        named = nl.PreferenceGame(game.preferences, 0.1, labels=names)
        axes = nl.plots.policy_bars(named, {"uniform": [1 / 3] * 3})
        assert all((text.get_rotation() > 0) == turned for text in axes.get_xticklabels())
