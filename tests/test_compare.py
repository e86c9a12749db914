"""Comparisons at equal budget: equal calls, the best step of a grid where it is known, divergence, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.errors import InputError, MissingExtraError, UnknownNameError

START = [0.7, 0.2, 0.1]
COLUMNS = {
    *(
        "dynamics",
        "params",
        "runs",
        "steps",
        "oracle_calls",
        "queries",
        "final_kl",
        "final_exploitability",
        "final_gap0",
        "final_kl_q95",
        "final_exploitability_q95",
        "calls_to_1e-3",
    ),
    *("calls_to_1e-6", "fitted_factor", "proven_factor", "in_proven_range", "grid_points", "at_edge", "status"),
}


@pytest.fixture
def cycle() -> nl.PreferenceGame:
    """Rock–paper–scissors at β = 0.1."""
    return nl.games.rock_paper_scissors(0.5, beta=0.1)


@pytest.fixture
def ties() -> nl.PreferenceGame:
    """No preferences at β = 0.5: log(π/ρ) shrinks by 1 - γβ a step of NaturalPG, so γ = 2 ends the run in one step."""
    return nl.PreferenceGame(np.full((3, 3), 0.5), 0.5)


# --- equal budgets --------------------------------------------------------------------------------------------------------


def test_every_method_gets_the_same_oracle_calls(cycle: nl.PreferenceGame) -> None:
    """A method with c calls a step makes budget // c steps: 1, 2 and 20 calls."""
    methods = [dynamics.NaturalPG(0.1), dynamics.NashMirrorProx(2.0), dynamics.ProximalPG(2.0, 0.8, 20)]
    table = nl.compare(cycle, methods, oracle_calls=107, start=START)
    assert [row["steps"] for row in table.rows] == [107, 53, 5]
    assert [row["oracle_calls"] for row in table.rows] == [107, 106, 100]
    assert all(set(row) == COLUMNS for row in table.rows) and table.tunings == (None,) * 3


def test_rows_are_what_simulate_says(cycle: nl.PreferenceGame) -> None:
    """Final values, first passages and rates are those of the method run alone with every step recorded."""
    methods = [dynamics.NashMirrorProx(1.5), dynamics.NaturalPG(0.3), dynamics.NashProx(0.5, refresh_every=5)]
    table = nl.compare(cycle, methods, oracle_calls=120, runs=3, seed=2, start="random")
    for method, row, trajectory in zip(methods, table.rows, table.trajectories):
        n_steps = 120 // method.method.oracle_calls(method.params)  # type: ignore[misc]
        alone = nl.simulate(cycle, method.with_step(method.step_size), n_steps, runs=3, seed=2, start="random", record_every=1)
        np.testing.assert_array_equal(trajectory.final, alone.final)
        assert row["final_kl"] == pytest.approx(np.median(alone.kl[:, -1]), rel=1e-12)
        assert row["calls_to_1e-3"] == np.median(alone.first_passage("exploitability", 1e-3))
        assert row["fitted_factor"] == pytest.approx(np.median(alone.fit_rate()), rel=1e-9)
        assert row["proven_factor"] == alone.proven_factor and row["params"] == method.parameters and row["runs"] == 3


pytestmark = pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")


def test_proven_ranges_are_told(cycle: nl.PreferenceGame) -> None:
    """Inside, outside, and nothing proven."""
    methods = [dynamics.NashMirrorProx(2.0), dynamics.NashMirrorProx(2.5), dynamics.MultiplicativeWeights(0.1)]
    rows = nl.compare(cycle, methods, oracle_calls=20, start=START).rows
    assert [row["in_proven_range"] for row in rows] == [True, False, None]
    assert rows[0]["proven_factor"] == pytest.approx(1 / 1.2) and rows[1]["proven_factor"] is rows[2]["proven_factor"] is None


def test_the_order_of_methods_is_kept(cycle: nl.PreferenceGame) -> None:
    """Rows, runs and grids come in the order given; one method alone need not be in a list; a generator is consumed once."""
    names = ["SelfPlayPG", "NashMD", "Extragradient"]
    table = nl.compare(cycle, (name for name in names), oracle_calls=20, step_sizes=[0.1, 0.2], start=START)
    assert [row["dynamics"] for row in table.rows] == [t.dynamics for t in table.trajectories] == names
    assert len(nl.compare(cycle, "NashMD", oracle_calls=20, step_sizes=[0.1], start=START).rows) == 1


def test_comparisons_repeat(cycle: nl.PreferenceGame) -> None:
    """The same call gives the same table."""
    tables = [nl.compare(cycle, ["NashMD", "SelfPlayPG"], oracle_calls=40, runs=2, seed=1, start="random").rows for _ in range(2)]
    assert repr(tables[0]) == repr(tables[1])


def test_the_equilibrium_is_solved_once_and_checked(cycle: nl.PreferenceGame) -> None:
    """A given equilibrium is the target; another game's is refused."""
    solved = nl.solve(cycle)
    assert nl.compare(cycle, [dynamics.NashMD(0.1)], oracle_calls=5, start=START, equilibrium=solved).equilibrium is solved
    with pytest.raises(InputError, match="another game"):
        nl.compare(cycle.with_beta(0.2), ["NashMD"], oracle_calls=5, equilibrium=solved)


# --- tuning ---------------------------------------------------------------------------------------------------------------


def test_tune_picks_the_known_best_step(ties: nl.PreferenceGame) -> None:
    """The factor is |1 - γ/2|: γ = 2 is best in the middle, and the nearest to 2 where 2 is missing."""
    for grid, best in (([0.5, 1.0, 2.0, 2.5, 3.5], 2.0), ([3.5, 2.5, 0.5, 1.0], 2.5), ([0.1, 1.7, 3.9], 1.7)):
        tuning = nl.tune(ties, "NaturalPG", grid, oracle_calls=8, start=START)
        assert tuning.best.step_size == best and tuning.at_edge is False
        assert [point["step_size"] for point in tuning.grid] == grid
        values = [point["value"] for point in tuning.grid]
        assert values[grid.index(best)] == min(values) == pytest.approx(tuning.trajectory.kl[0, -1], rel=1e-9, abs=1e-30)


@pytest.mark.parametrize(
    ("grid", "at_edge"), [([0.1, 0.2, 0.4], True), ([0.4, 2.0, 3.0], False), ([0.5, 1.0], False), ([1.0], False)]
)
def test_a_best_step_at_the_edge_is_told(grid: list[float], at_edge: bool, ties: nl.PreferenceGame) -> None:
    """The best of three or more at the end of the grid says that a wider grid may do better."""
    assert nl.tune(ties, "NaturalPG", grid, oracle_calls=6, start=START).at_edge is at_edge


def test_converged_points_rank_by_how_early(ties: nl.PreferenceGame) -> None:
    """Below 1e-12 lies rounding: of steps that all converge the fastest wins, not the luckiest last digit."""
    tuning = nl.tune(ties, "NaturalPG", [1.6, 1.9, 2.0, 2.2], oracle_calls=400, start=START)
    assert tuning.best.step_size == 2.0


def test_values_of_the_grid_are_those_of_the_metric(ties: nl.PreferenceGame) -> None:
    """kl, exploitability and gap0 at the end of the budget, in closed form for γβ = 1/2: log(π/ρ) halves each step."""
    weights = np.array(START) ** (0.5**4)
    policy = weights / weights.sum()
    kl = float(-np.log(3 * policy).mean())
    gap = float(0.5 * (policy * np.log(3 * policy)).sum())
    for metric, expected in (("kl", kl), ("exploitability", gap), ("gap0", 0.0)):
        tuning = nl.tune(ties, "NaturalPG", [1.0], oracle_calls=4, metric=metric, start=START)
        assert tuning.metric == metric and tuning.grid[0]["value"] == pytest.approx(expected, rel=1e-9, abs=1e-16)


def test_several_parameters_are_tuned_together(cycle: nl.PreferenceGame) -> None:
    """The product of the values is tried; what an instance fixes and the grid does not name stays."""
    grid = {"step_size": [0.2, 0.5], "refresh_every": [1, 4, 8]}
    tuning = nl.tune(cycle, dynamics.NashProx(proximal_step=3.0, refresh_every=2), grid, oracle_calls=40, start=START)
    assert [(p["step_size"], p["refresh_every"]) for p in tuning.grid] == [(s, m) for s in (0.2, 0.5) for m in (1, 4, 8)]
    assert tuning.best.parameters["proximal_step"] == 3.0 and "averaging" not in tuning.best.parameters
    best = min(tuning.grid, key=lambda point: point["value"])
    assert {name: tuning.best.parameters[name] for name in grid} == {name: best[name] for name in grid}


def test_a_bare_method_is_tuned_in_all_its_parameters(cycle: nl.PreferenceGame) -> None:
    """Without a grid a name is tuned on what its metadata names too; an instance keeps what its caller chose."""
    bare = nl.tune(cycle, "NashProx", oracle_calls=10, start=START)
    assert {point["proximal_step"] for point in bare.grid} == set(dynamics.NashProx.method.tuning["proximal_step"])
    fixed = nl.tune(cycle, dynamics.NashProx(proximal_step=7.0, refresh_every=5), oracle_calls=10, start=START)
    assert len(fixed.grid) < len(bare.grid)
    assert fixed.best.parameters["proximal_step"] == 7.0 and fixed.best.parameters["refresh_every"] == 5
    with pytest.raises(InputError, match="not both"):
        nl.tune(cycle, dynamics.NashProx(averaging=0.3), {"refresh_every": [1, 4]}, oracle_calls=10, start=START)


def test_comparing_from_the_equilibrium_is_said(cycle: nl.PreferenceGame) -> None:
    """A comparison whose runs start at the equilibrium shows nothing, and says so."""
    for call in (nl.compare, nl.tune):
        with pytest.warns(nl.errors.EquilibriumStartWarning, match="show nothing"):
            call(nl.games.rock_paper_scissors(), "NashMD", oracle_calls=10)  # type: ignore[operator]


def test_an_unregistered_method_is_tuned_in_its_step_only(cycle: nl.PreferenceGame) -> None:
    """Other parameters need the factory of a registered method; the message says so."""
    mine = dynamics.Method(name="Mine", step=dynamics.NaturalPG.method.step, compiled=False)
    assert nl.tune(cycle, mine, [0.1, 0.2], oracle_calls=10, start=START).best.name == "Mine"
    with pytest.raises(InputError, match="only step_size can be tuned"):
        nl.tune(cycle, mine, {"step_size": [0.1], "pull": [1.0]}, oracle_calls=10, start=START)


def test_schedules_can_be_tuned(cycle: nl.PreferenceGame) -> None:
    """A grid may hold schedules, which the table prints as the command line writes them."""
    grid = {"step_size": [nl.schedules.inverse_time(20, 2), 0.1]}
    tuning = nl.tune(cycle, "NashMD", grid, oracle_calls=30, start=START)
    assert [point["step_size"] for point in tuning.grid] == ["inverse-time:20,2", 0.1]


def test_which_methods_are_tuned(cycle: nl.PreferenceGame) -> None:
    """An instance runs as given, a name is tuned; an array tunes everything, a mapping the methods it names."""
    methods = [dynamics.NashMD(0.05), "NashMirrorProx"]

    def points(step_sizes: Any) -> list[int]:
        return [
            row["grid_points"] for row in nl.compare(cycle, methods, oracle_calls=20, step_sizes=step_sizes, start=START).rows
        ]

    default = points(None)[1]
    assert default > 10
    assert points(None) == [0, default] and points("default") == [default, default]
    assert points([0.1, 0.3]) == [2, 2]
    assert points({"NashMD": [0.1, 0.2, 0.3]}) == [3, default]


# --- divergence -----------------------------------------------------------------------------------------------------------


def test_diverged_points_lose(ties: nl.PreferenceGame) -> None:
    """A point that overflows has NaN and the status 'diverged' and is never best."""
    tuning = nl.tune(ties, "NaturalPG", [1e6, 0.5], oracle_calls=100, start=START)
    assert tuning.best.step_size == 0.5
    assert [point["status"] for point in tuning.grid] == ["diverged", "completed"] and np.isnan(tuning.grid[0]["value"])


def test_a_grid_that_diverges_everywhere_says_so(ties: nl.PreferenceGame) -> None:
    """If every point overflows the row reports divergence with NaN, not an exception."""
    row = nl.compare(ties, ["NaturalPG"], oracle_calls=100, step_sizes=[1e6, 1e7], start=START).rows[0]
    assert row["status"] == "diverged" and np.isnan(row["final_kl"]) and np.isinf(row["calls_to_1e-6"])


# --- what is refused ------------------------------------------------------------------------------------------------------


def test_proximal_point_is_refused_with_the_reason(cycle: nl.PreferenceGame) -> None:
    """Its inner solver's calls are not counted: refused before anything runs, and told what to use instead."""
    for call in (lambda: nl.compare(cycle, ["NashMD", "ProximalPoint"]), lambda: nl.tune(cycle, "ProximalPoint", [1.0])):
        with pytest.raises(InputError, match="ProximalPoint cannot be compared at equal oracle calls.*inner solver.*ProximalPG"):
            call()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "methods is empty"),
        ({"methods": ["NashMDD"]}, "did you mean 'NashMD'"),
        ({"methods": [3]}, "method = 3 must be a method"),
        ({"oracle_calls": 1}, "oracle_calls = 1 must be at least 2, one step of NashMirrorProx"),
        ({"oracle_calls": 0}, "oracle_calls = 0 must be at least 1"),
        ({"oracle_calls": 10.5}, "oracle_calls = 10.5 must be a whole number"),
        ({"metric": "kll"}, "did you mean 'kl'"),
        ({"step_sizes": "defualt"}, "did you mean 'default'"),
        ({"step_sizes": []}, "is empty"),
        ({"step_sizes": [0.1, -0.1]}, "step_size = -0.1 must be positive"),
        ({"step_sizes": [0.1, np.nan]}, "= nan must be finite"),
        ({"step_sizes": ["fast"]}, "must be"),
        ({"step_sizes": [[0.1, 0.2]]}, "must be"),
        ({"step_sizes": {"NashMirorProx": [0.1]}}, "did you mean 'NashMirrorProx'"),
        ({"runs": 0}, "runs = 0 must be at least 1"),
        ({"start": [0.5, 0.5]}, r"start has shape \(2,\)"),
        ({"game": np.full((3, 3), 0.5)}, "must be a PreferenceGame"),
    ],
)
def test_bad_comparisons_are_refused(arguments: dict[str, Any], message: str, cycle: nl.PreferenceGame) -> None:
    """Each argument is refused by name with what would be right."""
    given = {"game": cycle, "methods": ["NashMirrorProx"], "oracle_calls": 20, "start": START} | arguments
    with pytest.raises(InputError, match=message):
        nl.compare(**given)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], "is empty"),
        ({}, "is empty"),
        ({"step_size": []}, "is empty"),
        ({"step_size": [0.1], "refresh_every": []}, "is empty"),
        ([0.0], "step_size = 0 must be positive"),
        ({"step_size": [np.inf]}, "step_size = inf must be finite"),
        ({"step_size": ["fast"]}, "step_size"),
        ({"step_size": 0.1}, "step_size"),
        ({"step_size": [0.1], "refresh_every": [0]}, "refresh_every = 0 must be at least 1"),
        ({"stepsize": [0.1]}, "no parameter 'stepsize'; did you mean 'step_size'"),
    ],
)
def test_bad_grids_are_refused(grid: Any, message: str, cycle: nl.PreferenceGame) -> None:
    """Empty grids, steps that are not positive numbers, and unknown parameters are refused."""
    with pytest.raises(InputError, match=message):
        nl.tune(cycle, "NashProx", grid, oracle_calls=10, start=START)


def test_a_misspelt_parameter_is_an_unknown_name(cycle: nl.PreferenceGame) -> None:
    """The error of a misspelt parameter is the one of all misspelt names."""
    with pytest.raises(UnknownNameError):
        nl.tune(cycle, "NashProx", {"averagin": [0.1]}, oracle_calls=10, start=START)


# --- tables ---------------------------------------------------------------------------------------------------------------


def test_tables_hold_the_rows(cycle: nl.PreferenceGame, monkeypatch: pytest.MonkeyPatch) -> None:
    """to_frame gives the rows; without pandas one sentence gives the command that installs it."""
    table = nl.compare(cycle, ["NashMD"], oracle_calls=20, step_sizes=[0.1, 0.2, 0.3], start=START)
    assert table.to_frame()["dynamics"].tolist() == ["NashMD"] and set(table.to_frame().columns) == COLUMNS
    tuning = table.tunings[0]
    assert tuning is not None and tuning.to_frame()["step_size"].tolist() == [0.1, 0.2, 0.3]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install nlhfsim\[data\]"):
        table.to_frame()


# --- equal votes ----------------------------------------------------------------------------------------------------------


def test_every_method_gets_the_same_votes(cycle: nl.PreferenceGame) -> None:
    """c calls a step, b votes a call: budget // (c b) steps; a first look is paid for; a budget of votes means votes."""
    methods = [
        dynamics.NaturalPG(0.1),
        dynamics.NashMirrorProx(1.0),
        dynamics.OptimisticMirrorDescent(1.0),
        dynamics.ProximalPG(2.0, 0.8, 20),
    ]
    table = nl.compare(cycle, methods, queries=500, feedback=nl.Sampled(batch_size=4), start=START)
    assert [row["steps"] for row in table.rows] == [125, 62, 124, 6]
    assert [row["queries"] for row in table.rows] == [500, 496, 500, 480]
    renamed = {"calls_to_1e-3": "queries_to_1e-2", "calls_to_1e-6": "queries_to_1e-3"}
    assert all(set(row) == {renamed.get(name, name) for name in COLUMNS} for row in table.rows)
    assert all(row["in_proven_range"] is None and row["proven_factor"] is None for row in table.rows)
    one_vote = nl.compare(cycle, methods[:1], queries=30, start=START).trajectories[0]
    assert one_vote.feedback == {"batch_size": 1, "votes": True, "candidates": "uniform"} and one_vote.steps[-1] == 30
    calls = nl.compare(cycle, methods[:1], oracle_calls=30, feedback=nl.Sampled(batch_size=4), start=START).rows[0]
    assert (calls["steps"], calls["queries"]) == (30, 120)


def test_sampled_rows_are_what_simulate_says(cycle: nl.PreferenceGame) -> None:
    """Quantiles, first passages in votes and the final runs are those of the method run alone with the same seed."""
    feedback = nl.Sampled(batch_size=2)
    table = nl.compare(cycle, [dynamics.SelfPlayPG(0.3)], queries=4000, feedback=feedback, runs=5, seed=3, start=START)
    alone = nl.simulate(cycle, dynamics.SelfPlayPG(0.3), 2000, feedback=feedback, runs=5, seed=3, start=START)
    row = table.rows[0]
    assert (table.trajectories[0].kl == alone.kl).all()
    assert row["final_kl"] == np.sort(alone.kl[:, -1])[2] and row["final_kl_q95"] == np.quantile(alone.kl[:, -1], 0.95)
    assert row["queries_to_1e-2"] == np.median(alone.first_passage("exploitability", 1e-2, clock="queries"))


def test_a_grid_point_is_judged_by_votes_of_its_own(cycle: nl.PreferenceGame) -> None:
    """The best of a grid of one is run again with other votes than those that chose it; and the same call, the same bits."""
    given: dict[str, Any] = {"queries": 300, "runs": 3, "start": START}
    first, second = (nl.tune(cycle, "SelfPlayPG", [0.3], **given) for _ in range(2))
    assert first.grid[0]["value"] != np.median(first.trajectory.kl[:, -1])
    assert first.grid == second.grid and (first.trajectory.kl == second.trajectory.kl).all()
    best = nl.tune(cycle, "SelfPlayPG", [1e-6, 0.3, 50.0], **(given | {"queries": 20_000})).best
    assert best.step_size == 0.3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"oracle_calls": 5, "queries": 5}, "oracle_calls or queries"),
        ({"queries": 100, "feedback": "exact"}, "feedback is exact"),
        ({"queries": 0}, "queries = 0 must be at least 1"),
        ({"queries": 3, "feedback": nl.Sampled(batch_size=4)}, "queries = 3 must be at least 4, one step of NashMD"),
        ({"queries": 100, "feedback": "votes"}, "feedback = 'votes' is unknown"),
    ],
)
def test_bad_budgets_of_votes_are_refused(given: dict[str, Any], message: str, cycle: nl.PreferenceGame) -> None:
    """Two budgets, votes without sampling, less than a batch, unknown feedback."""
    with pytest.raises(InputError, match=message):
        nl.compare(cycle, [dynamics.NashMD(0.1)], start=START, **given)


def test_a_method_without_a_sampled_form_is_refused(cycle: nl.PreferenceGame) -> None:
    """Fictitious play's best response is not linear in what it reads."""
    with pytest.raises(InputError, match="FictitiousPlay has no sampled form"):
        nl.compare(cycle, ["FictitiousPlay"], queries=100, start=START)
