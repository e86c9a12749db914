"""The paper's experiment: equal votes, one grid, and the contrast it is made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim.errors import InputError
from nlhfsim.experiment import METHODS, default_games

STEPS = (0.05, 0.2, 1.0, 5.0)


@pytest.fixture(scope="module")
def found() -> nl.Experiment:
    """Policy gradient and its proximal versions on the uniform cycle at β = 0.005, where γ_c = 6β/(β² + 1/12) = 0.3599."""
    games = {"cycle": nl.games.rock_paper_scissors(beta=0.005)}
    return nl.experiment(
        games, ["SelfPlayPG", "ProximalPG", "NashProx"], queries=400_000, step_sizes=STEPS, runs=12, start=[0.8, 0.1, 0.1]
    )


def test_all_have_the_same_votes_and_their_own_best_step(found: nl.Experiment) -> None:
    """Each row spends the budget at the grid point with the smallest median, and the figure's curves are the grid's."""
    assert [row["dynamics"] for row in found.rows] == ["SelfPlayPG", "ProximalPG", "NashProx"]
    assert all(row["game"] == "cycle" and row["queries"] == 400_000 and row["runs"] == 12 for row in found.rows)
    for tuning, (_, steps, values) in zip(found.comparisons["cycle"].tunings, found.constant_steps("cycle")):
        assert tuning is not None and len(tuning.grid) == 2 * len(STEPS)
        assert steps.tolist() == list(STEPS) and values.tolist() == [point["value"] for point in tuning.grid[: len(STEPS)]]
        best = min(tuning.grid, key=lambda point: point["value"])
        name = [key for key in best if key.endswith("step_size")][0]
        assert tuning.best.parameters[name] == best[name]
    assert found.critical_steps["cycle"] == pytest.approx(6 * 0.005 / (0.005**2 + 1 / 12), rel=1e-9)


def test_the_contrast_of_the_paper(found: nl.Experiment) -> None:
    """Above its critical step the policy gradient stays away from π*; the proximal methods come closer than it ever does."""
    gradient, proximal, practical = (values for _, _, values in found.constant_steps("cycle"))
    above = np.array(STEPS) > found.critical_steps["cycle"]
    assert (gradient[above] > 0.1).all()
    assert max(proximal[2], practical[2]) < 0.05 * gradient[2]
    assert min(practical) < 0.5 * min(gradient)


def test_the_same_call_gives_the_same_numbers(found: nl.Experiment) -> None:
    """The experiment is repeated exactly from its arguments."""
    again = nl.experiment(found.games, ["NashProx"], queries=400_000, step_sizes=STEPS, runs=12, start=[0.8, 0.1, 0.1])
    assert again.rows[0] == found.rows[2]


def test_the_figure_shows_what_was_found(found: nl.Experiment, tmp_path: Path) -> None:
    """Three rows: medians against votes, twice, and the final KL against constant steps with the critical one."""
    figure = found.plot()
    kl, _, steps = (axes.lines for axes in figure.axes)
    drawn = found.comparisons["cycle"].trajectories[2]
    assert np.array_equal(kl[2].get_ydata(), np.median(drawn.kl, axis=0)[1:])
    assert np.array_equal(kl[2].get_xdata(), drawn.queries[1:])
    assert steps[0].get_ydata().tolist() == found.constant_steps("cycle")[0][2].tolist()
    assert steps[-1].get_xdata()[0] == found.critical_steps["cycle"]
    assert nl.plots.save(figure, tmp_path / "experiment.png").stat().st_size > 10_000
    assert set(found.to_frame()["game"]) == {"cycle"}


def test_the_default_games_and_methods() -> None:
    """Real choices that cycle, a tournament, a low-rank and a random game at the β asked for; all methods have a sampled form."""
    games = default_games(0.03, 1)
    assert [game.n for game in games.values()] == [5, 21, 50, 10] and {game.beta for game in games.values()} == {0.03}
    assert all(not nl.dynamics.get(name).method.unsampled(None) for name in METHODS)
    assert len(METHODS) == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"feedback": "exact"}, "makes no queries"),
        ({"games": {}}, "holds at least one"),
        ({"games": {"x": nl.games.rock_paper_scissors(beta=0.0)}}, r"games\['x'\] has beta = 0"),
        ({"games": {"x": 3}}, "PreferenceGame"),
        ({"games": [nl.games.rock_paper_scissors()]}, "a mapping of names to games"),
        ({"beta": 0.3}, "games of your own have theirs"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"step_sizes": "fast"}, "step_sizes must be an array of numbers"),
        ({"methods": ["FictitiousPlay"]}, "has no step size to tune"),
        ({"step_sizes": []}, "step_sizes is empty"),
        ({"step_sizes": [0.1, -1]}, "step_sizes = -1 must be positive"),
        ({"methods": ["ProximalPoint"]}, "counts no oracle calls"),
        ({"methods": []}, "methods is empty"),
        ({"queries": 50}, "queries = 50 must be at least 100"),
        ({"beta": 0.0, "games": None}, "beta = 0 must be positive"),
    ],
)
def test_bad_input(given: dict[str, Any], message: str) -> None:
    """What cannot be compared is refused with a sentence."""
    with pytest.raises(InputError, match=message):
        nl.experiment(**({"games": {"x": nl.games.rock_paper_scissors(beta=0.1)}, "methods": ["NashMD"]} | given))


def test_one_game_may_be_given_as_it_is() -> None:
    """A game without a name is called game."""
    found = nl.experiment(
        nl.games.rock_paper_scissors(beta=0.1), "NashMD", queries=200, step_sizes=0.3, runs=1, start=[0.5, 0.3, 0.2]
    )
    assert list(found.games) == ["game"] and len(found.rows) == 1
