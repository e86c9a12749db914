"""Figures: what is drawn is what was recorded, and nothing outside the figure changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import plots

pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.NlhfsimWarning")
START = [0.8, 0.1, 0.1]


@pytest.fixture(scope="module")
def game() -> nl.PreferenceGame:
    return nl.games.rock_paper_scissors(margin=0.5, bias=-0.2, beta=0.05)


@pytest.fixture(scope="module")
def run(game: nl.PreferenceGame) -> nl.Trajectory:
    return nl.simulate(game, nl.dynamics.NashMirrorProx(2.0), 60, start=START, record_every=1, compiled=False)


@pytest.fixture(scope="module")
def many(game: nl.PreferenceGame) -> nl.Trajectory:
    return nl.simulate(game, nl.dynamics.NaturalPG(0.2), 50, start="random", runs=9, compiled=False)


def line(ax: Any, label: str) -> Any:
    """Return the line whose legend entry begins with `label`."""
    return next(drawn for drawn in ax.lines if str(drawn.get_label()).startswith(label))


def test_the_curve_is_the_recorded_metric(run: nl.Trajectory) -> None:
    """Every record above the rounding floor is drawn at its oracle calls."""
    drawn = line(plots.convergence([run], metric="exploitability"), "NashMirrorProx (2)")
    np.testing.assert_array_equal(drawn.get_xdata(), 2.0 * np.arange(61))
    np.testing.assert_array_equal(drawn.get_ydata(), run.exploitability[0])


def test_many_runs_are_a_median_in_a_band(many: nl.Trajectory) -> None:
    """The line is the median over runs and the band the 10 to 90 % quantiles."""
    ax = plots.convergence([many])
    np.testing.assert_allclose(line(ax, "NaturalPG").get_ydata(), np.median(many.kl, axis=0), rtol=1e-14)
    corners = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert np.isclose(corners.max(), np.quantile(many.kl, 0.9, axis=0).max())
    assert np.isclose(corners.min(), np.quantile(many.kl, 0.1, axis=0).min())


def test_the_proven_bound_is_the_theorem(game: nl.PreferenceGame, run: nl.Trajectory) -> None:
    """KL_0 (1 + γβ)^(-K) is drawn dotted, two oracle calls a step; no bound beside other metrics or with rates off."""
    dotted = [
        drawn
        for drawn in plots.convergence([run], scale="linear").lines
        if drawn.get_linestyle() == ":" and len(drawn.get_xdata())
    ]
    assert len(dotted) == 1
    np.testing.assert_allclose(dotted[0].get_ydata(), run.kl[0, 0] * (1 + 2.0 * 0.05) ** -np.arange(61.0), rtol=1e-12)
    for ax in (plots.convergence([run], rates=False), plots.convergence([run], metric="gap0")):
        assert not [drawn for drawn in ax.lines if drawn.get_linestyle() == ":"]


def test_a_step_outside_the_proven_range_has_no_bound(game: nl.PreferenceGame) -> None:
    """NashMirrorProx at 4 is proven nowhere on this game, so nothing dotted is drawn."""
    far = nl.simulate(game, nl.dynamics.NashMirrorProx(4.0), 20, start=START, compiled=False)
    assert far.proven_factor is None
    assert not [drawn for drawn in plots.convergence([far]).lines if drawn.get_linestyle() == ":"]


def test_a_diverged_run_ends_with_a_cross(game: nl.PreferenceGame) -> None:
    """What is drawn stops at the last finite record."""
    lost = nl.simulate(game.with_beta(10), nl.dynamics.NaturalPG(100.0), 500, start=START, compiled=False)
    assert lost.status == ("diverged",)
    ax = plots.convergence([lost])
    assert [drawn for drawn in ax.lines if drawn.get_marker() == "x"]
    assert np.isfinite(line(ax, "NaturalPG").get_ydata()).all()


def test_the_portrait_draws_the_policies(game: nl.PreferenceGame, run: nl.Trajectory) -> None:
    """The curve on the simplex is the recorded policies; the star is the equilibrium."""
    ax = plots.phase_portrait(game, [run], equilibrium=nl.solve(game))
    assert run.log_policies is not None
    drawn = line(ax, "NashMirrorProx")
    bare = plots.phase_portrait(game, field=False)
    (expected,) = bare.plot(*np.exp(run.log_policies[0]).T)
    np.testing.assert_allclose(drawn.get_xydata(), expected.get_xydata(), atol=1e-15)
    assert {"rock", "paper", "scissors"} <= {text.get_text() for text in ax.texts}


def test_the_field_is_the_flow_of_the_step(game: nl.PreferenceGame) -> None:
    """A tiny policy gradient step moves the policy along `flow_direction`."""
    logs = np.log(np.array([0.6, 0.3, 0.1]))
    small = 1e-6
    after = nl.simulate(game, nl.dynamics.SelfPlayPG(small), 1, start=np.exp(logs), compiled=False).final
    assert after is not None
    np.testing.assert_allclose((after[0] - np.exp(logs)) / small, plots.flow_direction(game, logs), rtol=1e-4)


def test_preferences_are_ordered_by_the_equilibrium() -> None:
    """The matrix drawn is P with rows and columns in the order of the equilibrium's probabilities."""
    game = nl.datasets.load()
    equilibrium = nl.solve(game)
    places = np.argsort(-equilibrium.policy)
    ax = plots.preferences(game, order=equilibrium)
    np.testing.assert_array_equal(ax.images[0].get_array(), game.preferences[np.ix_(places, places)])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [game.labels[i] for i in places]


def test_bars_have_the_heights_of_the_policies(game: nl.PreferenceGame) -> None:
    """One bar an action and policy."""
    ax = plots.policy_bars(game, {"equilibrium": nl.solve(game).policy, "reference": game.reference})
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [*nl.solve(game).policy, *game.reference])


def test_one_colour_a_method_everywhere() -> None:
    """Every registered method has a style of its own; another one gets a stable one."""
    assert set(plots.METHOD_STYLES) == set(nl.dynamics.names())
    assert len(set(plots.METHOD_STYLES.values())) == len(plots.METHOD_STYLES)
    assert plots.style_of("Mine") == plots.style_of("Mine")


def test_nothing_global_changes(game: nl.PreferenceGame, run: nl.Trajectory, tmp_path: Path) -> None:
    """No rcParams change, and pyplot holds no figure of ours."""
    import matplotlib.pyplot as plt

    before, figures = dict(matplotlib.rcParams), plt.get_fignums()
    plots.save(run.plot(), tmp_path / "a.svg")
    plots.save(plots.phase_portrait(game, [run]), tmp_path / "b.png")
    plots.save(plots.preferences(game), tmp_path / "c.pdf")
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == figures
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir())


def test_an_axes_is_taken_and_returned(game: nl.PreferenceGame, run: nl.Trajectory) -> None:
    """Given an axes, it is drawn on and given back."""
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert plots.convergence([run], ax=ax) is ax
    assert nl.compare(game, [nl.dynamics.NashMD(0.1)], oracle_calls=20, start=START).plot(ax=ax) is ax
    with pytest.raises(nl.errors.InputError, match="projection='ternary'"):
        plots.phase_portrait(game, ax=ax)


def test_wrong_input_is_refused(game: nl.PreferenceGame, run: nl.Trajectory, tmp_path: Path) -> None:
    """Each message names what is wrong."""
    bare = nl.simulate(game, nl.dynamics.NashMD(0.1), 5, start=START, keep_policies=False, compiled=False)
    wide = nl.games.cyclic_tournament(5)
    cases: list[tuple[Any, str]] = [
        (lambda: plots.convergence([]), "trajectories is empty"),
        (lambda: plots.convergence([run], metric="kll"), "did you mean 'kl'"),
        (lambda: plots.convergence([run], clock="time"), "clock"),
        (lambda: plots.convergence([run], scale="cubic"), "scale"),
        (lambda: plots.phase_portrait(wide), "needs three actions"),
        (lambda: plots.phase_portrait(game, [bare]), "keep_policies='all'"),
        (lambda: plots.policy_bars(game, {}), "policies is empty"),
        (lambda: plots.policy_bars(game, {"short": [0.5, 0.5]}), r"shape \(2,\), must be \(3,\)"),
        (lambda: plots.save(run.plot(), tmp_path / "a.gif"), "suffix"),
        (lambda: plots.save(run.plot(), tmp_path / "missing" / "a.png"), "cannot be written"),
    ]
    for attempt, message in cases:
        with pytest.raises(nl.errors.InputError, match=message):
            attempt()


def test_uncounted_oracle_calls_are_drawn_against_steps(game: nl.PreferenceGame) -> None:
    """The proximal point method counts no oracle calls; the message says what to do, and steps work."""
    exact = nl.simulate(game, nl.dynamics.ProximalPoint(1.0), 5, start=START)
    with pytest.raises(nl.errors.InputError, match="against 'steps'"):
        plots.convergence([exact], clock="oracle_calls")
    ax = plots.convergence([exact])
    assert ax.get_xlabel() == "steps"
    np.testing.assert_array_equal(line(ax, "ProximalPoint").get_xdata(), exact.steps)
