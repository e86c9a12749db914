"""Figures: what is drawn are the recorded numbers, and nothing outside of the figure changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.figure import Figure

import nlhfsim as nl
from nlhfsim import plots
from nlhfsim.dynamics import names
from nlhfsim.errors import DataError, InputError

START = [0.8, 0.1, 0.1]
quiet = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
pytestmark = quiet


@pytest.fixture(scope="module")
def game() -> nl.PreferenceGame:
    return nl.games.rock_paper_scissors(margin=0.5, bias=-0.2, beta=0.05)


@pytest.fixture(scope="module")
def runs(game: nl.PreferenceGame) -> list[nl.Trajectory]:
    """Self-play policy gradient, which cycles, and two methods that converge."""
    methods = [nl.dynamics.SelfPlayPG(10.0), nl.dynamics.ProximalPG(2.0, 5.0, 20), nl.dynamics.NashMirrorProx(2.0)]
    return [nl.simulate(game, m, 100, start=START, record_every=1, compiled=False) for m in methods]


def curves(axes: Any) -> list[Any]:
    """Return the lines that stand for trajectories."""
    return [line for line in axes.lines if line.get_gid() is None]


def marked(axes: Any, gid: str) -> list[Any]:
    """Return the lines of one kind: ``proven``, ``diverged``, ``start``."""
    return [line for line in axes.lines if line.get_gid() == gid]


@pytest.mark.parametrize("metric", ["kl", "exploitability", "gap0", "min_probability"])
@pytest.mark.parametrize("clock", ["steps", "oracle_calls"])
def test_the_curves_are_the_recorded_numbers(runs: list[nl.Trajectory], metric: str, clock: str) -> None:
    lines = curves(plots.convergence(runs, metric, clock=clock))
    assert len(lines) == len(runs)
    for line, run in zip(lines, runs):
        np.testing.assert_array_equal(line.get_xdata(), getattr(run, clock))
        np.testing.assert_array_equal(line.get_ydata(), run.metric(metric)[0])


def test_the_proven_rate_is_the_closed_form(game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    """(1 + γβ)^(-t) KL(π*‖π_0) for Nash Mirror Prox at γ = 2, β = 0.05; two oracle calls a step; none for the others."""
    (line,) = marked(plots.convergence(runs), "proven")
    start = float(nl.kl(nl.solve(game).policy, START))
    np.testing.assert_array_equal(line.get_xdata(), 2 * np.arange(101))
    np.testing.assert_allclose(line.get_ydata(), start * 1.1 ** -np.arange(101.0), rtol=1e-9)
    assert line.get_color() == curves(plots.convergence(runs))[2].get_color() == plots.METHOD_COLOURS["NashMirrorProx"]
    assert not marked(plots.convergence(runs, rates=False), "proven")
    assert not marked(plots.convergence(runs, "exploitability"), "proven")


def test_a_predicted_rate_runs_beside_the_end_of_its_curve(game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    """Four times above the end, and falling by the factor a step; the curve itself falls alike in the end."""
    factor = nl.stability.local_rate(game, nl.dynamics.NashMirrorProx(2.0)) ** 2
    axes = plots.convergence(runs, factors=[None, None, factor])
    (guide,) = marked(axes, "factor")
    np.testing.assert_allclose(guide.get_ydata()[1:] / guide.get_ydata()[:-1], factor)
    np.testing.assert_allclose(guide.get_ydata()[-1], 4 * runs[2].kl[0, -1])
    np.testing.assert_allclose(guide.get_ydata()[60:], 4 * runs[2].kl[0, 60:], rtol=0.05)
    assert guide.get_color() == plots.METHOD_COLOURS["NashMirrorProx"]
    assert "predicted rate" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_powers_fall_like_the_clock(runs: list[nl.Trajectory]) -> None:
    axes = plots.convergence(runs[2], "exploitability", powers=[0.5, 1], scale="log")
    for line, power in zip([marked(axes, "power 0.5")[0], marked(axes, "power 1")[0]], (0.5, 1)):
        times, values = line.get_data()
        np.testing.assert_allclose(values[1:] * times[1:] ** power, 4 * runs[2].exploitability[0, -1] * 200**power)
    assert axes.get_ylim() == plots.convergence(runs[2], "exploitability", scale="log").get_ylim()


def test_rounding_is_not_drawn() -> None:
    """A run that has long converged ends on its way down, though its floor of rounding errors lies above 1e-30."""
    game = nl.datasets.load("kendall1940-girls", beta=0.05)
    run = nl.simulate(game, nl.dynamics.NashMirrorProx(2.0), 600, record_every=1, compiled=False)
    assert 1e-30 < run.kl[0, -1] < 1e-28
    axes = plots.convergence(run)
    drawn = np.asarray(curves(axes)[0].get_ydata())
    end = int(np.isfinite(drawn).sum())
    assert np.isfinite(drawn[:end]).all() and (np.diff(drawn[:end]) < 0).all() and drawn[end - 1] < 1e-27
    assert axes.get_ylim()[0] >= 1e-30


def test_several_runs_are_a_median_in_a_band(game: nl.PreferenceGame) -> None:
    run = nl.simulate(game, nl.dynamics.NashMirrorProx(2.0), 50, start="random", runs=11, compiled=False)
    axes = plots.convergence(run)
    ordered = np.sort(run.kl, axis=0)
    np.testing.assert_allclose(curves(axes)[0].get_ydata(), ordered[5])
    outline = axes.collections[0].get_paths()[0].vertices
    for place, time in enumerate(run.oracle_calls):
        heights = outline[outline[:, 0] == time, 1]
        np.testing.assert_allclose([heights.min(), heights.max()], ordered[[1, 9], place])


def test_a_diverged_run_ends_with_a_cross(game: nl.PreferenceGame) -> None:
    run = nl.simulate(game.with_beta(10.0), nl.dynamics.NaturalPG(100.0), 500, start=START, record_every=1, compiled=False)
    last = np.flatnonzero(run.kl[0] <= 1e12)[-1]
    assert run.status == ("diverged",) and 1 < last < 499
    axes = plots.convergence(run)
    (cross,) = marked(axes, "diverged")
    assert (cross.get_xdata(), cross.get_ydata()) == (run.oracle_calls[last], run.kl[0, last])
    np.testing.assert_array_equal(np.isfinite(curves(axes)[0].get_ydata()), np.arange(501) <= last)


def test_the_clock_is_one_that_all_have(game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    exact = nl.simulate(game, nl.dynamics.ProximalPoint(1.0), 5, start=START, compiled=False)
    axes = plots.convergence([exact, runs[2]])
    assert axes.get_xlabel() == "Steps  $t$  (ProximalPoint counts no oracle calls)"
    np.testing.assert_array_equal(curves(axes)[1].get_xdata(), runs[2].steps)


def test_the_scale_follows_the_curves(game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    assert plots.convergence(runs[2]).get_xscale() == "linear"
    assert plots.convergence(runs).get_xscale() == "symlog"  # 100 and 2,000 oracle calls
    assert plots.convergence(runs, scale="linear").get_xscale() == "linear"
    assert plots.convergence(runs[2], scale="log").get_xlim()[0] < 0 < plots.convergence(runs[2], scale="log").get_xlim()[1]


def test_every_method_has_a_look_of_its_own(game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    assert set(names()) <= set(plots.METHOD_COLOURS)
    known = [runs[0].__class__(**{**runs[0].__dict__, "dynamics": name}) for name in plots.METHOD_COLOURS]
    looks = {(line.get_color(), line._unscaled_dash_pattern) for line in curves(plots.convergence(known))}
    assert len(looks) == len(known)
    assert plots.colour_of("Mine") == plots.colour_of("Mine") in plots.METHOD_COLOURS.values()


def test_step_sizes_of_one_method_are_told_apart(game: nl.PreferenceGame) -> None:
    steps = [nl.simulate(game, nl.dynamics.NashMirrorProx(s), 5, start=START, compiled=False) for s in (0.5, 1.0, 2.0)]
    lines = curves(plots.convergence(steps))
    assert [line.get_label() for line in lines] == [f"NashMirrorProx, γ={s}" for s in ("0.5", "1", "2")]
    assert len({line._unscaled_dash_pattern for line in lines}) == 3
    # One hue, ever lighter: on paper, where dashes are hidden by markers, two orbits stay apart.
    hues, _, _ = rgb_to_hsv([to_rgb(line.get_color()) for line in lines]).T
    np.testing.assert_allclose(hues, hues[0], atol=0.01)
    assert (np.diff([sum(to_rgb(line.get_color())) for line in lines]) > 0.25).all() and lines[0].get_color() == "#0072B2"


def test_the_portrait_shows_the_policies(game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    """In the triangle with corners (0, 1), (-1/√3, 0), (1/√3, 0) a policy is its own weighted mean of the corners."""
    equilibrium = nl.solve(game)
    axes = plots.phase_portrait(game, runs, equilibrium=equilibrium)
    corners = np.array([[0.0, 1.0], [-1 / np.sqrt(3), 0.0], [1 / np.sqrt(3), 0.0]])
    lines = curves(axes)
    for line, run in zip(lines, runs):
        assert run.log_policies is not None
        np.testing.assert_allclose(line.get_xydata(), np.exp(run.log_policies[0]) @ corners, atol=1e-12)
    np.testing.assert_allclose(lines[-1].get_xydata(), [equilibrium.policy @ corners])
    for ring in marked(axes, "start"):
        np.testing.assert_allclose(ring.get_xydata(), [START @ corners], atol=1e-15)
    assert [text.get_text() for text in axes.texts] == ["rock", "paper", "scissors"]


@pytest.mark.parametrize("method", ["SelfPlayPG", "NaturalPG", "NashMD", "MultiplicativeWeights"])
def test_the_field_is_where_a_small_step_goes(game: nl.PreferenceGame, method: str) -> None:
    policies = np.random.default_rng(3).dirichlet(np.ones(3), size=20)
    step = 1e-6
    after = nl.simulate(game, nl.dynamics.get(method)(step), 1, start=policies, compiled=False).final
    np.testing.assert_allclose((after - policies) / step, plots.flow(game, policies, method), atol=1e-5)


def test_field_and_path_are_drawn(game: nl.PreferenceGame) -> None:
    path = nl.solve_path(game, [1.0, 0.1, 0.01])
    axes = plots.phase_portrait(game, path=path, field="NaturalPG")
    assert len(axes.collections) == 1 and len(curves(axes)[0].get_xdata()) == 3


def test_the_best_step_of_a_map_lies_between_its_columns() -> None:
    """β/(β² + 1/12) for natural gradients on the even cycle, six times nearer than the columns, 8 % apart."""
    game = nl.games.rock_paper_scissors(margin=0.5)
    found = nl.stability.stability_map(game, "NaturalPG", np.geomspace(0.05, 5, 60), np.geomspace(0.01, 0.1, 12))
    (best,) = marked(plots.stability_map(found), "best")
    np.testing.assert_allclose(best.get_xdata(), found.betas / (found.betas**2 + 1 / 12), rtol=0.006)


def test_preferences_are_ordered_by_the_equilibrium() -> None:
    game = nl.datasets.load(beta=0.05)
    equilibrium = nl.solve(game)
    axes = plots.preferences(game, order=equilibrium)
    order = [game.labels.index(text.get_text()) for text in axes.get_yticklabels()]
    assert (np.diff(equilibrium.policy[order]) <= 0).all()
    np.testing.assert_array_equal(axes.images[0].get_array(), game.preferences[order][:, order])
    assert [text.get_text() for text in axes.texts] == [f"{100 * p:.0f}" for p in game.preferences[order][:, order].ravel()]
    low, high = axes.images[0].get_clim()
    assert (low + high) / 2 == pytest.approx(0.5) and low <= game.preferences.min()
    assert not plots.preferences(nl.games.cyclic_tournament(17)).texts


def test_bars_have_the_heights_of_the_policies() -> None:
    game = nl.datasets.load(beta=0.05)
    policies = {"Newton": nl.solve(game).policy, "reference": game.reference}
    axes = plots.policy_bars(game, policies)
    order = [game.labels.index(text.get_text()) for text in axes.get_xticklabels()]
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(2, 5)
    np.testing.assert_allclose(heights, [policy[order] for policy in policies.values()])


def test_given_axes_are_drawn_on(game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    axes = Figure().add_subplot()
    assert plots.convergence(runs, ax=axes) is axes and runs[0].plot(ax=axes) is axes


@pytest.mark.parametrize("suffix", plots.FORMATS)
def test_a_saved_figure_is_the_same_bytes_each_time(tmp_path: Path, runs: list[nl.Trajectory], suffix: str) -> None:
    paths = [plots.save(plots.convergence(runs), tmp_path / f"{name}.{suffix}") for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes() and len(list(tmp_path.iterdir())) == 2


def test_a_figure_keeps_its_printed_width(tmp_path: Path, game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    from matplotlib.image import imread

    drawn = [plots.convergence(runs), plots.phase_portrait(game, runs), plots.preferences(game), plots.tournament(game)]
    for axes in (*drawn, plots.work_precision(runs)):
        assert imread(plots.save(axes, tmp_path / "a.png")).shape[1] == 3.4 * 300


def test_nothing_outside_the_figure_changes(tmp_path: Path, game: nl.PreferenceGame, runs: list[nl.Trajectory]) -> None:
    import matplotlib.pyplot as plt

    before, open_before = dict(matplotlib.rcParams), plt.get_fignums()
    axes = [plots.convergence(runs), plots.phase_portrait(game, runs, field="SelfPlayPG"), plots.preferences(game)]
    axes += [plots.phase_portrait(game, path=[1, 0.1], field="NashMD", field_of="step", field_as="streamlines")]
    axes += [plots.tournament(game), plots.work_precision(runs), plots.tightness(nl.verify("log-ratio-span", 5, mutants=False))]
    for drawn in [*axes, plots.policy_bars(game, {"a": START})]:
        plots.save(drawn, tmp_path / "a.svg")
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == open_before


def test_importing_plots_is_light() -> None:
    script = "import sys, nlhfsim.plots; sys.exit('matplotlib' in sys.modules or 'mpltern' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


REFUSED = {
    "nothing to draw": (lambda game, run: plots.convergence([]), "at least one Trajectory"),
    "no KL": (lambda game, run: plots.convergence(without_kl(game)), "no equilibrium was asked for"),
    "metric": (lambda game, run: plots.convergence(run, "kll"), "did you mean 'kl'"),
    "scale": (lambda game, run: plots.convergence(run, scale="cubic"), "'cubic' is unknown"),
    "factors": (lambda game, run: plots.convergence(run, factors=[0.5, 0.5]), "factors holds 2 values for 1 trajectories"),
    "factor": (lambda game, run: plots.convergence(run, factors=[-0.5]), "factors = -0.5 must be positive"),
    "powers": (lambda game, run: plots.convergence(run, powers=[0]), "powers = 0 must be positive"),
    "queries": (lambda game, run: plots.convergence(run, clock="queries"), "no queries are made"),
    "actions": (lambda game, run: plots.phase_portrait(nl.datasets.load()), "game has 5 actions; .* needs three"),
    "contexts": (lambda game, run: plots.phase_portrait(contexts(game)), "3 actions in a game with contexts"),
    "other game": (lambda game, run: plots.phase_portrait(game.with_beta(1.0), run), "is of another game"),
    "no policies": (lambda game, run: plots.phase_portrait(game, without_kl(game)), "kept no policies"),
    "field": (lambda game, run: plots.phase_portrait(game, field="MagnetRefresh"), "MagnetRefresh has no continuous-time limit"),
    "flat axes": (lambda game, run: plots.phase_portrait(game, ax=Figure().add_subplot()), "ax must be ternary"),
    "matrix of contexts": (lambda game, run: plots.preferences(contexts(game)), "draw one of them"),
    "order": (lambda game, run: plots.preferences(game, order=[0, 0, 1]), "every action of the game once"),
    "no bars": (lambda game, run: plots.policy_bars(game, {}), "at least one policy"),
    "bars": (lambda game, run: plots.policy_bars(game, {"mine": [0.5, 0.5]}), r"mine has shape \(2,\), must be \(3,\)"),
    "suffix": (lambda game, run: plots.save(plots.preferences(game), "a.gif"), "suffix = 'gif' is unknown"),
}


def without_kl(game: nl.PreferenceGame) -> nl.Trajectory:
    method = nl.dynamics.NashMD(0.1)
    return nl.simulate(game, method, 3, start=START, equilibrium=False, keep_policies=False, compiled=False)


def contexts(game: nl.PreferenceGame) -> nl.PreferenceGame:
    return nl.PreferenceGame(np.stack([game.preferences] * 2), 0.05)


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused(game: nl.PreferenceGame, runs: list[nl.Trajectory], name: str) -> None:
    attempt, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence):
        attempt(game, runs[2])


def test_a_folder_that_cannot_be_written_is_an_error_in_a_sentence(tmp_path: Path, game: nl.PreferenceGame) -> None:
    with pytest.raises(DataError, match="missing/a.pdf' cannot be written: No such file or directory"):
        plots.save(plots.preferences(game), tmp_path / "missing" / "a.pdf")
