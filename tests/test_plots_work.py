"""Work-precision figures: the work until an error was first reached, by the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import plots
from nlhfsim.compare import Comparison
from nlhfsim.errors import InputError
from nlhfsim.tuning import Tuning

START = [0.8, 0.1, 0.1]
ANYTHING: Any = 3
pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")


@pytest.fixture(scope="module")
def game() -> nl.PreferenceGame:
    return nl.games.rock_paper_scissors(margin=0.5, bias=-0.2, beta=0.05)


@pytest.fixture(scope="module")
def comparison(game: nl.PreferenceGame) -> Any:
    """What `nlhfsim.compare` returns, put together here without a compiler."""
    methods = [nl.dynamics.SelfPlayPG(3.0), nl.dynamics.NashMirrorProx(3.0), nl.dynamics.MultiplicativeWeights(0.1)]
    runs = [nl.simulate(game, m, k, start=START, record_every=1, compiled=False) for m, k in zip(methods, (400, 200, 400))]
    return Comparison((), tuple(runs), (None,) * 3, nl.solve(game))


def curves(axes: Any) -> list[Any]:
    return [line for line in axes.lines if line.get_gid() is None]


@pytest.mark.parametrize("metric", ["exploitability", "kl", "gap0"])
def test_a_curve_holds_first_passages(comparison: Any, metric: str) -> None:
    axes = plots.work_precision(comparison, metric)
    lines = curves(axes)
    assert len(lines) == 3
    for line, run in zip(lines, comparison.trajectories):
        assert len(line.get_xdata()) > (10 if run.dynamics == "NashMirrorProx" else 0)
        for work, level in zip(*line.get_data()):
            (before,) = np.flatnonzero(run.oracle_calls == work)
            values = run.metric(metric)[0]
            assert values[before] <= level and (values[:before] > level).all()
        assert (np.diff(line.get_xdata()) >= 0).all() and (np.diff(line.get_ydata()) < 0).all()
        assert line.get_color() == plots.colour_of(run.dynamics)


def test_what_was_spent_in_vain_is_dotted(comparison: Any) -> None:
    """Multiplicative weights stalls; mirror prox gets to rounding, and policy gradient is on its way."""
    axes = plots.work_precision(comparison)
    vain = [line for line in axes.lines if line.get_gid() == "vain"]
    assert plots.colour_of("MultiplicativeWeights") in {line.get_color() for line in vain}
    assert plots.colour_of("NashMirrorProx") not in {line.get_color() for line in vain}
    for line in vain:
        assert line.get_xdata()[1] == 400 and line.get_ydata()[0] == line.get_ydata()[1]


def test_of_several_runs_the_median_and_a_band(game: nl.PreferenceGame) -> None:
    runs = nl.simulate(game, nl.dynamics.NashMirrorProx(2.0), 60, start="random", runs=11, record_every=1, compiled=False)
    axes = plots.work_precision(runs)
    (line,) = curves(axes)
    outline = axes.collections[0].get_paths()[0].vertices
    for work, level in list(zip(*line.get_data()))[::9]:
        passages = np.sort(runs.first_passage("exploitability", level))
        assert work == passages[5]
        sides = outline[np.isclose(outline[:, 1], level, atol=0), 0]
        np.testing.assert_allclose([sides.min(), sides.max()], [max(passages[1], 2), passages[9]])


def test_where_half_of_the_runs_end_so_does_the_curve(game: nl.PreferenceGame) -> None:
    """Three runs of which two diverge at once: no median below what they start with."""
    steps = np.array([0.5, 400.0, 500.0])
    runs = nl.simulate(game.with_beta(10.0), nl.dynamics.NaturalPG(steps), 100, start=START, record_every=1, compiled=False)
    assert runs.status.count("diverged") == 2
    alone = nl.simulate(game.with_beta(10.0), nl.dynamics.NaturalPG(0.05), 100, start=START, record_every=1, compiled=False)
    axes = plots.work_precision([runs, alone])
    assert len(curves(axes)[0].get_xdata()) == 0 and len(curves(axes)[1].get_xdata()) > 50
    assert [line.get_label().endswith(", never lower") for line in curves(axes)] == [True, False]


def test_the_work_is_what_was_asked_for(game: nl.PreferenceGame, comparison: Any) -> None:
    seconds = {"SelfPlayPG": 0.5, "NashMirrorProx": 2.0, "MultiplicativeWeights": 0.25}
    timed = plots.work_precision(comparison, seconds_per_step=seconds)
    stepped = plots.work_precision(comparison, work="steps")
    assert timed.get_xlabel() == "Seconds" and stepped.get_xlabel() == r"Steps  $t$"
    for one, other, factor in zip(curves(timed), curves(stepped), seconds.values()):
        np.testing.assert_allclose(one.get_xdata(), factor * np.asarray(other.get_xdata()))
    exact = nl.simulate(game, nl.dynamics.ProximalPoint(1.0), 5, start=START, compiled=False)
    assert plots.work_precision([exact, comparison.trajectories[0]]).get_xlabel() == r"Steps  $t$"
    votes = nl.simulate(game, "SelfPlayPG", 200, start=START, feedback="sampled", seed=3, compiled=False)
    axes = plots.work_precision(votes)
    assert axes.get_xlabel() == "Preference queries"
    assert set(curves(axes)[0].get_xdata()) <= set(votes.queries)


def test_a_tuning_is_drawn_by_its_best_run(comparison: Any) -> None:
    run = comparison.trajectories[1]
    tuning = Tuning(nl.dynamics.NashMirrorProx(3.0), run, ({"step_size": 3.0},), "kl", False)
    for found in (tuning, [tuning]):
        (line,) = curves(plots.work_precision(found))
        assert line.get_xydata().tolist() == curves(plots.work_precision(run))[0].get_xydata().tolist()


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nothing": (lambda run: plots.work_precision([]), "at least one Trajectory or Tuning"),
    "a number": (lambda run: plots.work_precision(ANYTHING), "at least one Trajectory or Tuning"),
    "metric": (lambda run: plots.work_precision(run, "span"), "metric = 'span' is unknown"),
    "work": (lambda run: plots.work_precision(run, work="hours"), "work = 'hours' is unknown"),
    "no seconds": (lambda run: plots.work_precision(run, work="seconds"), "needs seconds_per_step"),
    "seconds of another": (
        lambda run: plots.work_precision(run, seconds_per_step={"NashMD": 1.0}),
        "seconds_per_step = 'SelfPlayPG'",
    ),
    "no time": (
        lambda run: plots.work_precision(run, seconds_per_step={"SelfPlayPG": 0.0}),
        r"\['SelfPlayPG'\] = 0 must be positive",
    ),
    "no votes": (lambda run: plots.work_precision(run, work="queries"), "SelfPlayPG was run with exact feedback"),
    "no calls": (lambda run: plots.work_precision(point(), work="oracle_calls"), "ProximalPoint counts none; use 'steps'"),
    "no KL": (lambda run: plots.work_precision(point(), "kl"), "kl of ProximalPoint is nowhere a number: .*no equilibrium"),
    "at rest": (lambda run: plots.work_precision(resting()), "nowhere above rounding"),
}


def point() -> nl.Trajectory:
    game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
    return nl.simulate(game, nl.dynamics.ProximalPoint(1.0), 3, start=START, equilibrium=False, compiled=False)


def resting() -> nl.Trajectory:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", nl.errors.EquilibriumStartWarning)
        return nl.simulate(nl.games.rock_paper_scissors(beta=0.1), "NashMD", 3, compiled=False)


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused(comparison: Any, name: str) -> None:
    attempt, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence):
        attempt(comparison.trajectories[0])
