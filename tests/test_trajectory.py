"""Trajectories: files that come back bit for bit or are refused, tables, and what is read off the curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim as nl
from nlhfsim import dynamics
from nlhfsim.errors import DataError, InputError, MissingExtraError
from nlhfsim.trajectory import METRICS, Trajectory

MIRROR = dynamics.NashMirrorProx(2.0)


@pytest.fixture(scope="module")
def run() -> Trajectory:
    """Two runs of mirror prox on a cycle."""
    game = nl.games.rock_paper_scissors(0.5, beta=0.1)
    return nl.simulate(game, MIRROR, 40, start=[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])


@pytest.fixture(scope="module")
def contexts_run(family: dict[str, nl.PreferenceGame]) -> Trajectory:
    """Two runs of a method with a larger state on a game with contexts."""
    return nl.simulate(family["contexts"], dynamics.NashProx(0.5, refresh_every=3), 12, runs=2, start="random", seed=4)


# --- files ----------------------------------------------------------------------------------------------------------------


def assert_same(one: Trajectory, other: Trajectory) -> None:
    """Every field equal, arrays with their bits, shapes and dtypes."""
    for name in one.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(left, dict) and name != "params":
            assert left.keys() == right.keys()
            for key in left:
                np.testing.assert_array_equal(left[key], right[key])
                assert left[key].dtype == right[key].dtype
        elif isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype
        else:
            assert left == right and type(left) is type(right), name


@pytest.mark.parametrize("which", ["run", "contexts_run"])
def test_saved_and_loaded_is_the_same(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Everything comes back from a file, bit for bit."""
    trajectory: Trajectory = request.getfixturevalue(which)
    assert_same(nl.load(trajectory.save(tmp_path / "run.npz")), trajectory)
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


@pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
def test_diverged_and_uncounted_runs_survive_a_file(tmp_path: Path) -> None:
    """NaN, infinite step counts, missing policies and notes come back too."""
    game = nl.games.random_game(4, 0, beta=10.0)
    diverged = nl.simulate(game, dynamics.NaturalPG(1e6), 100, start="random", keep_policies=False)
    uncounted = nl.simulate(game, dynamics.ProximalPoint(nl.schedules.inverse_time(2, 1)), 3, start="random", equilibrium=False)
    assert np.isnan(uncounted.oracle_calls[1:]).all() and diverged.notes
    for trajectory in (diverged, uncounted):
        assert_same(nl.load(trajectory.save(tmp_path / "run.npz")), trajectory)


def test_the_suffix_is_added(run: Trajectory, tmp_path: Path) -> None:
    """A name without .npz gets it, another suffix stays; saving again replaces."""
    assert run.save(tmp_path / "one") == tmp_path / "one.npz"
    assert run.save(str(tmp_path / "two.v1")) == tmp_path / "two.v1.npz"
    assert run.save(tmp_path / "one.npz").exists() and len(list(tmp_path.iterdir())) == 2


def test_paths_that_cannot_be_are_refused(run: Trajectory, tmp_path: Path) -> None:
    """Missing folders and files, and a folder in place of a file, are one sentence with the path."""
    with pytest.raises(DataError, match="no/run.npz' cannot be written: No such file"):
        run.save(tmp_path / "no" / "run")
    with pytest.raises(DataError, match="none.npz' cannot be read: No such file"):
        nl.load(tmp_path / "none.npz")
    with pytest.raises(DataError, match="cannot be read"):
        nl.load(tmp_path)


def broken_files(folder: Path, good: Path) -> dict[str, Path]:
    """Files that are not a saved trajectory, by what is wrong with them."""
    about = {"format": "nlhfsim-trajectory-1", "status": ["completed"], "notes": []}
    raw = good.read_bytes()
    texts = {"text": b"hello", "empty": b"", "truncated": raw[: len(raw) // 2], "end cut off": raw[:-3], "start cut off": raw[4:]}
    found = {name: folder / f"{name}.npz" for name in texts}
    for name, path in found.items():
        path.write_bytes(texts[name])
    archives: dict[str, dict[str, Any]] = {
        "foreign": {"x": np.zeros(3)},
        "no arrays": {"about": json.dumps(about)},
        "no json": {"about": "hello"},
        "a list": {"about": "[1, 2]"},
        "strange group": {"about": json.dumps(about), "strange.x": np.zeros(2)},
    }
    for name, arrays in archives.items():
        found[name] = folder / f"{name}.npz"
        np.savez(found[name], **arrays)
    with np.load(good) as stored:
        kept = {name: stored[name] for name in stored.files}
    changed = json.loads(str(kept.pop("about"))) | {"format": "nlhfsim-trajectory-0"}
    found["another format"] = folder / "another format.npz"
    np.savez(found["another format"], about=json.dumps(changed), **kept)
    found["npy"] = folder / "plain.npy"
    np.save(found["npy"], np.zeros(3))
    found["pickle"] = folder / "pickle.npz"
    np.savez(found["pickle"], about=np.array([{"format": 1}], dtype=object))
    return found


def test_files_that_are_no_trajectory_are_refused(run: Trajectory, tmp_path: Path) -> None:
    """Text, empty, cut, foreign and pickled files are all refused in one sentence with the path."""
    for name, path in broken_files(tmp_path, run.save(tmp_path / "good")).items():
        with pytest.raises(DataError, match=f"{path.name}' is not a trajectory saved by nlhfsim") as error:
            nl.load(path)
        assert isinstance(error.value, InputError), name


def test_damaged_bytes_never_pass_silently(run: Trajectory, tmp_path: Path) -> None:
    """Two flipped bytes anywhere are either refused or change nothing (they lie in the archive's own bookkeeping)."""
    good = run.save(tmp_path / "good")
    raw, refused = good.read_bytes(), 0
    for at in range(40, len(raw) - 30, max(1, len(raw) // 150)):
        damaged = bytearray(raw)
        damaged[at] ^= 0xFF
        damaged[at + 1] ^= 0xFF
        path = tmp_path / "damaged.npz"
        path.write_bytes(bytes(damaged))
        try:
            assert_same(nl.load(path), run)
        except DataError:
            refused += 1
    assert refused > 75


# --- tables ---------------------------------------------------------------------------------------------------------------


def test_to_frame_holds_the_records(run: Trajectory) -> None:
    """A row a run and record, in order, with every clock and metric."""
    frame = run.to_frame()
    assert len(frame) == 2 * len(run.steps) and set(METRICS) <= set(frame.columns)
    for k in range(2):
        part = frame[frame["run"] == k]
        np.testing.assert_array_equal(part["steps"], run.steps)
        np.testing.assert_array_equal(part["kl"], run.kl[k])
        np.testing.assert_array_equal(part["oracle_calls"], run.oracle_calls)
    assert (frame["dynamics"] == "NashMirrorProx").all()


def test_to_xarray_holds_the_records(run: Trajectory, contexts_run: Trajectory) -> None:
    """Dimensions run, record, (context,) action; values and parameters as recorded."""
    plain, batched = run.to_xarray(), contexts_run.to_xarray()
    assert plain["log_policy"].dims == ("run", "record", "action")
    assert batched["log_policy"].dims == ("run", "record", "context", "action")
    np.testing.assert_array_equal(plain["kl"], run.kl)
    np.testing.assert_array_equal(plain["steps"], run.steps)
    assert json.loads(batched.attrs["params"]) == contexts_run.params and batched.attrs["seed"] == 4


@pytest.mark.parametrize(("module", "call"), [("pandas", "to_frame"), ("xarray", "to_xarray")])
def test_tables_say_which_extra_is_missing(module: str, call: str, run: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library one sentence gives the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{call} needs {module}: pip install nlhfsim\[data\]"):
        getattr(run, call)()


# --- reading the curves ---------------------------------------------------------------------------------------------------


def test_metrics_by_name(run: Trajectory) -> None:
    """metric(name) is the property; a misspelt one is suggested."""
    for name in METRICS:
        np.testing.assert_array_equal(run.metric(name), getattr(run, name))
    with pytest.raises(InputError, match="did you mean 'exploitability'"):
        run.metric("exploitabilty")


def test_first_passage_is_on_the_clock_asked_for(run: Trajectory) -> None:
    """The first record at or below the threshold, in steps or oracle calls, by looking at the records one by one."""
    steps = run.first_passage("kl", 1e-3, clock="steps")
    for k in range(2):
        assert steps[k] == next(t for t, value in zip(run.steps, run.kl[k]) if value <= 1e-3)
    np.testing.assert_array_equal(run.first_passage("kl", 1e-3), 2 * steps)
    assert np.isinf(run.first_passage("kl", 1e-300)).all()
    with pytest.raises(InputError, match="clock = 'seconds' is unknown"):
        run.first_passage(clock="seconds")
    with pytest.raises(InputError, match="eps = 0 must be positive"):
        run.first_passage(eps=0.0)


def test_fit_rate_finds_a_factor_known_in_closed_form() -> None:
    """Without preferences NashMirrorProx shrinks log(π/ρ) by 1/(1 + γβ) a step, so KL by its square in the end."""
    game = nl.PreferenceGame(np.full((3, 3), 0.5), 0.25)
    run = nl.simulate(game, dynamics.NashMirrorProx(1.0), 80, start=[0.5, 0.3, 0.2], record_every=1)
    np.testing.assert_allclose(run.fit_rate(), 1.25**-2, rtol=1e-3)
    np.testing.assert_allclose(run.fit_rate(clock="oracle_calls"), 1.25**-1, rtol=1e-3)


def test_repr_tells_the_outcome(run: Trajectory) -> None:
    """Method, runs, steps, records and status at a glance."""
    assert repr(run) == f"Trajectory(NashMirrorProx, runs=2, steps=40, records={len(run.steps)}, completed)"
