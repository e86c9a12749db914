"""Sweeps: what a configuration means, what is wrong with it, and what the tables hold."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim.errors import ConfigurationError, DataError, InputError
from nlhfsim.sweep._axes import distribution_of, stream
from nlhfsim.sweep._design import design_of
from nlhfsim.sweep._result import _median

CONFIG = """\
title = "Cycles"

[[games]]
source = "rock-paper-scissors"
margin = 0.5
grid.beta = [0.05, 0.1]

[[games]]
source = "regenwetter2012"
beta = 0.02
reference = [0.4, 0.15, 0.15, 0.15, 0.15]

[[methods]]
name = "NashMirrorProx"
grid.step_size = [1, 2.5]

[[methods]]
name = "SelfPlayPG"
step_size = "inverse-time:12,12"

[run]
n_steps = 60
start = "random"
seeds = [0, 7]
grid.feedback = ["exact", { batch_size = 4 }]
curves = true
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of 36 short runs."""
    path = tmp_path_factory.mktemp("config") / "cycles.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> nl.Sweep:
    """It, done without disturbance."""
    return nl.sweep(config, out=tmp_path_factory.mktemp("finished"), workers=1)


def minimal(**changes: Any) -> dict[str, Any]:
    """A configuration of one run, with sections changed."""
    whole = {
        "games": [{"source": "rock-paper-scissors"}],
        "methods": [{"name": "NashMD", "step_size": 0.5}],
        "run": {"n_steps": 5},
    }
    return whole | changes


def mistakes_of(config: Any) -> list[str]:
    """What is wrong with a configuration."""
    with pytest.raises(ConfigurationError) as raised:
        design_of(config)
    return list(raised.value.mistakes)


class TestDesign:
    """From a configuration to runs."""

    def test_a_grid_is_the_product_of_what_is_listed(self, config: Path) -> None:
        """3 games × 3 methods × 2 kinds of feedback × 2 seeds, in the order of the file, each once."""
        runs = [run.config for run in design_of(config).runs]
        assert len(runs) == 36 == len({json.dumps(run) for run in runs})
        assert [run["seed"] for run in runs[:4]] == [0, 7, 0, 7]
        assert Counter((run["game"], run["beta"]) for run in runs) == {
            ("rock-paper-scissors", 0.05): 12,
            ("rock-paper-scissors", 0.1): 12,
            ("regenwetter2012", 0.02): 12,
        }
        assert Counter(run.get("method_step_size") for run in runs) == {1: 12, 2.5: 12, None: 12}
        assert Counter(run.get("method_step_size_schedule") for run in runs) == {None: 24, "inverse-time:12,12": 12}
        assert Counter(run["batch_size"] for run in runs) == {None: 18, 4: 18}

    def test_a_dict_and_json_mean_what_the_file_means(self, config: Path, tmp_path: Path) -> None:
        """The same runs with the same ids."""
        import tomllib

        tables = tomllib.loads(CONFIG)
        (tmp_path / "config.json").write_text(json.dumps(tables), encoding="utf-8")
        assert design_of(config).digest == design_of(tables).digest == design_of(tmp_path / "config.json").digest

    def test_what_changes_a_run_changes_its_id_and_nothing_else_does(self) -> None:
        """The title is no part of a run; β, a parameter, the seed, steps, start, records, and whether there are curves are."""
        base = minimal()
        same = design_of(minimal(title="Another")).digest
        others = [
            minimal(games=[{"source": "rock-paper-scissors", "beta": 0.2}]),
            minimal(methods=[{"name": "NashMD", "step_size": 0.25}]),
            *(
                minimal(run={"n_steps": 5} | one)
                for one in ({"seeds": [1]}, {"n_steps": 6}, {"start": "uniform"}, {"record_every": 2}, {"curves": True})
            ),
            minimal(run={"n_steps": 5, "feedback": "sampled"}),
        ]
        assert design_of(base).digest == same
        assert len({design_of(one).digest for one in [base, *others]}) == len(others) + 1

    def test_samples_are_reproducible_and_more_of_them_keep_the_first(self) -> None:
        """Each axis has a stream of its own, so that another axis, or more samples, leaves it alone."""

        def drawn(samples: int, **more: Any) -> list[dict[str, Any]]:
            law = {"step_size": {"log-uniform": [0.01, 10]}, "magnet": {"choice": [0.1, 0.2, 0.3]}, **more}
            return [
                run.config
                for run in design_of(minimal(methods=[{"name": "MagnetRefresh", "random": law, "samples": samples}])).runs
            ]

        few, many, wider = drawn(5), drawn(50), drawn(50, refresh_every={"integers": [1, 9]})
        assert few == drawn(5) == many[:5]
        for key in ("method_step_size", "method_magnet"):
            assert [run[key] for run in many] == [run[key] for run in wider]
        steps = [run["method_step_size"] for run in many]
        assert len(set(steps)) == 50 and 0.01 <= min(steps) < 0.1 and 1 < max(steps) <= 10
        assert {run["method_magnet"] for run in many} == {0.1, 0.2, 0.3}
        assert {type(run["method_refresh_every"]) for run in wider} == {int}

    @pytest.mark.parametrize("kind", ["uniform", "log-uniform", "integers"])
    def test_distributions_are_what_they_are_called(self, kind: str) -> None:
        """Kolmogorov–Smirnov against scipy's law of that name."""
        from scipy import stats

        laws = {"uniform": stats.uniform(2, 6), "log-uniform": stats.loguniform(2, 8), "integers": stats.randint(2, 9)}
        values = distribution_of({kind: [2, 8]}).draw(4000, stream(0, kind))
        assert min(values) >= 2 and max(values) <= 8
        if kind == "integers":
            counts = Counter(values)
            expected = [4000 * laws[kind].pmf(k) for k in range(2, 9)]
            assert stats.chisquare([counts[k] for k in range(2, 9)], expected).pvalue > 1e-3
        else:
            assert stats.kstest(values, laws[kind].cdf).pvalue > 1e-3

    def test_samples_of_an_entry_are_taken_at_every_point_of_its_grid(self) -> None:
        """The same ones, so that grid points differ in nothing else."""
        entry = {
            "name": "NashProx",
            "grid": {"refresh_every": [1, 5]},
            "random": {"step_size": {"uniform": [0, 1]}},
            "samples": 3,
        }
        runs = [run.config for run in design_of(minimal(methods=[entry])).runs]
        steps = {every: [r["method_step_size"] for r in runs if r["method_refresh_every"] == every] for every in (1, 5)}
        assert len(runs) == 6 and steps[1] == steps[5] and len(set(steps[1])) == 3

    def test_samples_at_the_top_draw_the_design_as_a_whole(self) -> None:
        """Every listed value turns up, every point is one of the product, each is done with every seed."""
        config = {
            "samples": 60,
            "games": [{"source": "rock-paper-scissors", "random": {"beta": {"log-uniform": [0.01, 1]}}}, {"source": "mtbench"}],
            "methods": [{"grid": {"name": ["NashMD", "SelfPlayPG"], "step_size": [0.1, 0.2]}}],
            "run": {"n_steps": 5, "seeds": 2},
        }
        runs = [run.config for run in design_of(config).runs]
        cyclic = [run for run in runs if run["game"] == "rock-paper-scissors"]
        assert len({run["beta"] for run in cyclic}) * 2 == len(cyclic) and 30 < len(cyclic) < 90
        assert {(run["method"], run["method_step_size"]) for run in runs} == {
            (name, step) for name in ("NashMD", "SelfPlayPG") for step in (0.1, 0.2)
        }
        assert design_of(config | {"seed": 1}).digest != design_of(config).digest == design_of(config).digest

    def test_files_are_looked_for_beside_the_configuration(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever the working directory; their content counts, not their place."""
        digests = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "matrix.csv").write_text("0.5,0.8\n0.2,0.5\n", encoding="utf-8")
            (tmp_path / name / "start.json").write_text("[0.25, 0.75]", encoding="utf-8")
            (tmp_path / name / "sweep.json").write_text(
                json.dumps(minimal(games=[{"source": "matrix.csv", "beta": 0.1}], run={"n_steps": 5, "start": "start.json"})),
                encoding="utf-8",
            )
            digests.append(design_of(tmp_path / name / "sweep.json").digest)
        assert digests[0] == digests[1]
        (tmp_path / "two" / "matrix.csv").write_text("0.5,0.7\n0.3,0.5\n", encoding="utf-8")
        assert design_of(tmp_path / "two" / "sweep.json").digest != digests[0]


PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "sweeps.md"


@pytest.mark.parametrize(("number", "runs"), [(0, 99), (1, 1440), (2, 200)])
def test_the_configurations_of_the_page_are_what_it_says(number: int, runs: int) -> None:
    """3 games × 11 methods × 3 seeds; (3 × 2 + 4) games × 4 methods × 18 settings × 2 seeds; 200 samples."""
    import tomllib

    text = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[number]
    assert len(design_of(tomllib.loads(text)).runs) == runs


class TestMistakes:
    """A configuration is checked as a whole before anything runs."""

    def test_all_are_told_at_once_each_with_its_place(self) -> None:
        """Unknown keys and names with the nearest, values in grids by position, whatever section they stand in."""
        found = mistakes_of(
            {
                "titel": "x",
                "games": [
                    {"source": "rock-paper-scisors"},
                    {"source": "rock-paper-scissors", "margn": 0.5},
                    {"source": "rock-paper-scissors", "margin": 3, "grid": {"beta": [0.1, -1]}},
                    {"source": "regenwetter2012", "prior": 2},
                    {"beta": 1},
                    {"source": "no-such-file.csv"},
                ],
                "methods": [
                    {"name": "NashMirrorPro"},
                    {"name": "NashMD", "step_size": 3, "grid": {"step_size": [0.5]}},
                    {"name": "NashMD", "grid": {"step_size": [-1, "inverse-time:x,1", 0.5]}},
                    {"name": "NashProx", "grid": {"step_size": [0.1, 0.1]}, "random": {"averaging": {"uniform": [0.5, 0.1]}}},
                    {"name": "NashMD", "step_size": [1, 2]},
                    {"name": "NashMD", "samples": 3},
                ],
                "run": {
                    "n_step": 5,
                    "seeds": [1, 1],
                    "start": "randm",
                    "feedback": {"batch_sise": 3},
                    "grid": {"curves": [True]},
                },
            }
        )
        places = [mistake.partition(": ")[0] for mistake in found]
        assert set(places) == {
            "titel",
            "games[0].source",
            "games[1].margn",
            "games[2].margin",
            "games[2].grid.beta[1]",
            "games[3].prior",
            "games[4].source",
            "games[5]",
            "methods[0].name",
            "methods[1].step_size",
            "methods[2].grid.step_size[0]",
            "methods[2].grid.step_size[1]",
            "methods[3].grid.step_size",
            "methods[3].random.averaging",
            "methods[3].samples",
            "methods[4].step_size",
            "methods[5].samples",
            "run.n_step",
            "run.grid.curves",
            "run.n_steps",
            "run.seeds",
            "run.feedback",
            "run.start",
        }
        sections = [place.partition(".")[0] for place in places]
        assert sections == sorted(sections, key=lambda name: ("tgmr".index(name[0]), name)) and len(places) == len(set(places))
        text = "\n".join(found)
        for words in (
            "titel: unknown; did you mean 'title'?",
            "did you mean 'rock-paper-scissors'?",
            "did you mean 'margin'?",
            "games[2].margin: 3 must lie between 0 and 0.5",
            "games[2].grid.beta[1]: -1 must not be negative",
            "did you mean 'NashMirrorProx'?",
            "methods[4].step_size: [1, 2] must be one value; to run each of them, write grid.step_size = [1, 2]",
            "did you mean 'n_steps'?",
            "did you mean 'batch_size'?",
        ):
            assert words in text

    @pytest.mark.parametrize(
        ("changes", "mistake"),
        [
            ({"games": []}, "games: must be given: one or more tables [[games]]"),
            ({"methods": {}}, "methods: must be given: one or more tables [[methods]]"),
            ({"games": ["x"]}, "games[0]: 'x' must be a table"),
            ({"seed": -1}, "seed: -1 must be at least 0"),
            ({"samples": 0}, "samples: 0 must be at least 1"),
            ({"run": {"n_steps": 0}}, "run.n_steps: 0 must be at least 1"),
            ({"run": {"n_steps": 5, "start": [0.5, 0.5]}}, "run.start on games[0]: start has shape (2,), must be (3,)"),
            (
                {"run": {"n_steps": 5, "grid": {"start": "random"}}},
                "run.grid.start: 'random' must be a list of values, at least one",
            ),
            ({"run": {"n_steps": 5, "curves": 1}}, "run.curves: 1 must be True or False"),
            ({"methods": [{"name": 3}]}, "methods[0].name: 3 must be a word"),
            ({"methods": [{"name": "INPO", "tau": 1}]}, "methods[0].tau: 1 is not INPO's to set"),
            (
                {"methods": [{"name": "NashMD", "random": {"step_size": 1}, "samples": 2}]},
                "methods[0].random.step_size: must be a table",
            ),
            ({"methods": [{"name": "NashMD", "step_size": float("nan")}]}, "methods[0].step_size: nan must be finite"),
            (
                {"methods": [{"name": "ProximalPoint"}], "run": {"n_steps": 5, "feedback": "sampled"}},
                "methods[0] with run.feedback: ProximalPoint has no sampled form",
            ),
            (
                {"samples": 3, "methods": [{"name": "NashMD", "random": {"step_size": {"uniform": [1, 2]}}, "samples": 2}]},
                "methods[0].samples: must not be given: samples stands at the top",
            ),
        ],
    )
    def test_one(self, changes: dict[str, Any], mistake: str) -> None:
        """Each alone is the only one that is told."""
        [found] = mistakes_of(minimal(**changes))
        assert found.startswith(mistake)

    def test_a_file_that_is_no_toml_is_refused_with_the_line(self, tmp_path: Path) -> None:
        """And one that is not there."""
        path = tmp_path / "bad.toml"
        path.write_text("[[games]]\nsource = \n", encoding="utf-8")
        with pytest.raises(DataError, match="bad.toml' is not TOML: .*line 2"):
            design_of(path)
        with pytest.raises(DataError, match="cannot be read: No such file"):
            design_of(tmp_path / "none.toml")
        with pytest.raises(InputError, match="config = 3 must be the path"):
            design_of(3)

    def test_nothing_is_made_if_there_are_some(self, tmp_path: Path) -> None:
        """Not even the folder."""
        with pytest.raises(ConfigurationError):
            nl.sweep(minimal(run={}), out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestSizes:
    """How many runs there are, known before any is laid out."""

    @pytest.mark.parametrize(
        ("methods", "run", "runs"),
        [
            ([{"name": "NashMD", "grid": {"step_size": [1, 2]}}], {"seeds": 10**6}, 2 * 10**6),
            (
                [{"name": "NashProx", "grid": dict.fromkeys(("step_size", "proximal_step"), [1 / k for k in range(1, 2001)])}],
                {},
                4 * 10**6,
            ),
            ([{"name": "NashMD", "random": {"step_size": {"uniform": [1, 2]}}, "samples": 10**6}], {"seeds": 2}, 2 * 10**6),
        ],
    )
    def test_too_many_are_refused_at_once(self, methods: Any, run: Any, runs: int) -> None:
        """Before lists of that length are made."""
        config = {"games": [{"source": "rock-paper-scissors"}], "methods": methods, "run": {"n_steps": 5} | run}
        with pytest.raises(ConfigurationError, match=f"it describes {runs} runs, must describe at most 1000000"):
            design_of(config)

    def test_equal_numbers_are_one_run(self) -> None:
        """1 is 1.0, in a list and in another entry."""
        methods = [{"name": "NashMD", "step_size": 1}, {"name": "NashMD", "grid": {"step_size": [1.0, 2]}}]
        design = design_of({"games": [{"source": "rock-paper-scissors", "beta": 1}], "methods": methods, "run": {"n_steps": 5}})
        assert [run.config["method_step_size"] for run in design.runs] in ([1, 2], [1.0, 2])

    @pytest.mark.parametrize("place", ["step_size", "n_steps", "beta", "start"])
    def test_numbers_beyond_floats_are_mistakes(self, place: str) -> None:
        """Each with its place."""
        game: dict[str, Any] = {"source": "rock-paper-scissors"}
        method: dict[str, Any] = {"name": "NashMD", "step_size": 1}
        run: dict[str, Any] = {"n_steps": 5}
        where = {"step_size": method, "n_steps": run, "beta": game, "start": run}[place]
        where[place] = [10**400, 1, 1] if place == "start" else 10**400
        with pytest.raises(ConfigurationError, match=rf"{place}: .*(too large a number|must be reference)"):
            design_of({"games": [game], "methods": [method], "run": run})


@pytest.mark.parametrize(
    ("values", "median"), [([None, 1.0, 3.0], 3.0), ([1.0, None, 3.0], 3.0), ([None, None, 3.0], np.inf), ([1.0, np.nan], np.inf)]
)
def test_what_is_missing_is_infinitely_bad(values: list[float | None], median: float) -> None:
    """In whichever order it comes."""
    for some in itertools.permutations(values):
        assert _median(some) == median


class TestResults:
    """The tables hold what `simulate` gives."""

    @pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
    def test_a_row_is_the_run_it_names(self, finished: nl.Sweep) -> None:
        """Configuration and outcome of every fifth run, to the bit, by another way."""
        frame, curves = finished.to_frame(), finished.curves()
        assert len(frame) == 36 and list(frame["run"]) == list(range(36)) and frame["seconds"].gt(0).all()
        for row in frame.iloc[::5].to_dict("records"):
            if row["game"] == "regenwetter2012":
                game = nl.datasets.load("regenwetter2012").with_beta(0.02).with_reference([0.4, 0.15, 0.15, 0.15, 0.15])
            else:
                game = nl.games.rock_paper_scissors(row["game_margin"], beta=row["beta"])
            text = row["method_step_size_schedule"]
            step = nl.schedules.parse(text) if isinstance(text, str) else float(row["method_step_size"])
            method = nl.dynamics.build(row["method"], step_size=step)
            feedback = "exact" if row["feedback"] == "exact" else nl.Sampled(batch_size=int(row["batch_size"]))
            run = nl.simulate(game, method, 60, feedback=feedback, start="random", seed=row["seed"])
            assert row["final_kl"] == run.kl[0, -1] and row["min_kl"] == run.kl[0].min()
            assert row["final_exploitability"] == run.exploitability[0, -1]
            assert (row["steps"], row["oracle_calls"], row["queries"]) == (60, run.oracle_calls[-1], run.queries[-1])
            assert row["status"] == "completed" and row["fingerprint"] == game.fingerprint
            mine = curves[curves["run"] == row["run"]]
            assert list(mine["step"]) == list(run.steps) and list(mine["gap0"]) == list(run.gap0[0])

    def test_the_folder_says_how_to_make_it_again(self, finished: nl.Sweep, config: Path) -> None:
        """The configuration as it was, versions, and the fields of a run that other commands give too."""
        about = json.loads((finished.path / "sweep.json").read_text(encoding="utf-8"))
        assert (finished.path / "config.toml").read_text(encoding="utf-8") == CONFIG
        assert about["versions"]["numpy"] == np.__version__ and about["runs"] == 36
        assert design_of(about["config"]).digest == about["digest"] == design_of(config).digest
        result = json.loads((finished.path / "result.json").read_text(encoding="utf-8"))
        fields = {"dynamics", "params", "seed", "steps", "oracle_calls", "queries", "final_kl", "final_exploitability", "status"}
        assert all(fields <= set(run) for run in result["runs"]) and len(result["runs"]) == 36
        assert result["sweep"]["completed"] == 36

    def test_the_best_of_a_method_has_the_smallest_median(self, finished: nl.Sweep) -> None:
        """Recomputed by pandas."""
        frame = finished.to_frame()
        problem = (frame["game"] == "rock-paper-scissors") & (frame["beta"] == 0.1) & (frame["feedback"] == "exact")
        mine = frame[problem & (frame["method"] == "NashMirrorProx")]
        medians = mine.groupby("method_step_size")["final_kl"].median()
        [best] = [
            entry
            for entry in finished.best()
            if (entry["game"], entry["beta"], entry["feedback"], entry["method"])
            == ("rock-paper-scissors", 0.1, "exact", "NashMirrorProx")
        ]
        assert best["params"]["step_size"] == float(medians.idxmin()) and best["final_kl"] == medians.min()
        assert (best["points"], best["runs"], best["status"]) == (2, 2, "completed")
        assert len(finished.best()) == 3 * 2 * 2

    def test_other_libraries_read_the_table(self, finished: nl.Sweep) -> None:
        """Polars and DuckDB, where they are installed; the files of single runs too."""
        polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
        table = finished.path / "results.parquet"
        mean = finished.to_frame()["final_kl"].mean()
        assert polars.read_parquet(table)["final_kl"].mean() == pytest.approx(mean, rel=1e-12)
        for source in (table, finished.path / "runs" / "*.parquet"):
            [(count, found)] = duckdb.sql(f"select count(*), avg(final_kl) from '{source}'").fetchall()
            assert count == 36 and found == pytest.approx(mean, rel=1e-12)

    def test_read_gives_it_back(self, finished: nl.Sweep, tmp_path: Path) -> None:
        """And says so where there is none."""
        assert nl.Sweep.read(finished.path).rows == finished.rows
        assert repr(finished).startswith("Sweep(36 runs: 36 completed; ")
        with pytest.raises(DataError, match="holds no sweep"):
            nl.Sweep.read(tmp_path)
