"""Sweeps that are stopped: nothing is lost, nothing done twice, and the table has the bits of one that never stopped."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import nlhfsim as nl
from nlhfsim.cli import main
from nlhfsim.dynamics import Dynamics, Method, _spec
from nlhfsim.errors import DataError, InputError, MissingExtraError, NlhfsimWarning
from nlhfsim.sweep import _workers

KILLS = int(os.environ.get("NLHFSIM_KILLS", "4"))
"""Random moments at which the kill test kills."""
TABLES = ("results.parquet", "curves.parquet")


def config_of(n_steps: int, seeds: int) -> dict[str, Any]:
    """8 runs a seed, with votes and without."""
    return {
        "games": [{"source": "regenwetter2012", "grid": {"beta": [0.02, 0.1]}}],
        "methods": [{"name": "SelfPlayPG", "grid": {"step_size": [0.1, "inverse-time:12,12"]}}],
        "run": {
            "n_steps": n_steps,
            "start": "random",
            "seeds": seeds,
            "grid": {"feedback": ["exact", "sampled"]},
            "curves": True,
        },
    }


CONFIG = config_of(50, 2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> nl.Sweep:
    """16 short runs, undisturbed."""
    return nl.sweep(CONFIG, out=tmp_path_factory.mktemp("finished"), workers=1)


@pytest.fixture
def copy(finished: nl.Sweep, tmp_path: Path) -> Path:
    """A copy of its folder to do harm to, without the tables."""
    folder = tmp_path / "copy"
    shutil.copytree(finished.path, folder)
    for name in (*TABLES, "timings.parquet", "result.json"):
        (folder / name).unlink()
    return folder


def files_of(folder: Path) -> dict[str, tuple[int, int, str]]:
    """What tells whether the file of a run was written again, by its name: inode, time, content."""
    found = {}
    for path in (folder / "runs").glob("*.parquet"):
        about = path.stat()
        found[path.name] = (about.st_ino, about.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def ensure_same_tables(one: Path, other: Path) -> None:
    """The tables that hold no times are equal byte for byte."""
    for name in TABLES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def start(config: Path, out: Path) -> subprocess.Popen[bytes]:
    """Begin, or go on with, a sweep on the command line, in a process group of its own; what it says goes to a file."""
    command = [sys.executable, "-m", "nlhfsim", "sweep", str(config), "--out", str(out), "--workers", "2"]
    # Not to a pipe: who reads that waits for workers that outlive their parent.
    with open(said_by(out), "w", encoding="utf-8") as said:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)


def said_by(out: Path) -> Path:
    """The file with what the sweep of a folder said last."""
    return out.with_name(f"{out.name}.said")


def workers_of(parent: psutil.Process) -> list[psutil.Process]:
    """The workers of a sweep, without the process that keeps track of semaphores."""
    found = []
    for child in parent.children():
        try:
            if "popen_loky" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


class TestKilled:
    """By kill −9 at random moments."""

    @pytest.mark.slow
    def test_nothing_is_lost_or_repeated_and_the_table_is_the_same(self, tmp_path: Path) -> None:
        """The parent or a worker is killed, whatever they are doing; where the parent dies its workers end too."""
        config = tmp_path / "config.json"
        config.write_text(json.dumps(config_of(1_000_000, 1 + KILLS)), encoding="utf-8")
        undisturbed = start(config, tmp_path / "undisturbed")
        assert undisturbed.wait(300) == 0, said_by(tmp_path / "undisturbed").read_text(encoding="utf-8")
        draw, out = random.Random(KILLS), tmp_path / "killed"
        seen: dict[str, tuple[int, int, str]] = {}
        killed = {"parent": 0, "worker": 0}
        running = start(config, out)
        while sum(killed.values()) < KILLS:
            progress = len(files_of(out)) + draw.randint(0, 4)
            while len(list((out / "runs").glob("*.parquet"))) < progress:
                assert running.poll() is None, "it ended before it was killed often enough"
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 1))
            workers = workers_of(psutil.Process(running.pid))
            if workers and draw.random() < 0.5:
                draw.choice(workers).kill()
                killed["worker"] += 1
            else:
                running.kill()
                killed["parent"] += 1
                running.wait()
                assert not psutil.wait_procs(workers, 20)[1], "workers outlive their parent"
                running = start(config, out)
            now = files_of(out)
            assert {name: now.get(name) for name in seen} == seen, "a run was lost, or done again"
            seen = now
        assert running.wait(300) == 0, said_by(out).read_text(encoding="utf-8")
        now = files_of(out)
        assert {name: now.get(name) for name in seen} == seen, "a run was lost, or done again"
        assert set(now) == set(files_of(tmp_path / "undisturbed")) and not list((out / "runs").glob("*.part"))
        ensure_same_tables(out, tmp_path / "undisturbed")
        assert 0 < len(seen) < len(now)
        print(f"killed {killed}; {len(seen)} of {len(now)} runs were done when the last was killed")

    def test_an_interrupt_says_how_to_go_on(self, tmp_path: Path) -> None:
        """Exit code 130, a sentence, no traceback, no workers left, and the next call goes on."""
        config, out = tmp_path / "config.json", tmp_path / "out"
        config.write_text(json.dumps(config_of(1_000_000, 2)), encoding="utf-8")
        running = start(config, out)
        while not list((out / "runs").glob("*.parquet")):
            assert running.poll() is None
            time.sleep(0.05)
        workers = workers_of(psutil.Process(running.pid))
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        assert running.wait(60) == 130
        said = said_by(out).read_text(encoding="utf-8")
        kept = len(files_of(out))
        assert f"nlhfsim: {kept} of 16 runs are kept in '{out}', and the same call goes on with the rest" in said
        assert "Traceback" not in said and said.rstrip().endswith("nlhfsim: interrupted")
        assert len(workers) == 2 and not psutil.wait_procs(workers, 20)[1]


class TestResumed:
    """From what is in the folder."""

    def test_what_is_done_is_not_done_again(self, finished: nl.Sweep, copy: Path) -> None:
        """Some runs are missing, one file is unfinished: those are done, the others left alone."""
        missing = sorted((copy / "runs").glob("*.parquet"))[3:7]
        for path in missing:
            path.unlink()
        before = files_of(copy)
        for name in (missing[0].name, next(iter(before))):
            (copy / "runs" / f"{name}.part").write_bytes(b"half")
        again = nl.sweep(CONFIG, out=copy, workers=1)
        after = files_of(copy)
        assert {name: after[name] for name in before} == before and len(after) == 16
        assert again.rows == finished.rows and not list((copy / "runs").glob("*.part"))
        ensure_same_tables(copy, finished.path)

    def test_a_damaged_file_counts_for_nothing(self, finished: nl.Sweep, copy: Path) -> None:
        """Cut in half, or another run's: it is said, and done again."""
        first, second, third = sorted((copy / "runs").glob("*.parquet"))[:3]
        first.write_bytes(first.read_bytes()[:2000])
        shutil.copy(third, second)
        with pytest.warns(NlhfsimWarning, match="is damaged, so that run is done again") as warned:
            nl.sweep(CONFIG, out=copy, workers=1)
        assert len(warned) == 2
        ensure_same_tables(copy, finished.path)

    def test_another_configuration_is_refused(self, copy: Path) -> None:
        """Also one of more seeds, and any if resume is off; the folder stays as it is."""
        before = files_of(copy)
        with pytest.raises(InputError, match="holds a sweep with another configuration"):
            nl.sweep(config_of(50, 3), out=copy)
        with pytest.raises(InputError, match="holds a sweep already"):
            nl.sweep(CONFIG, out=copy, resume=False)
        assert files_of(copy) == before

    def test_another_version_is_told(self, copy: Path) -> None:
        """Bits may depend on it."""
        about = json.loads((copy / "sweep.json").read_text(encoding="utf-8"))
        about["versions"]["numpy"] = "2.0.0"
        (copy / "sweep.json").write_text(json.dumps(about), encoding="utf-8")
        with pytest.warns(NlhfsimWarning, match="the sweep began with numpy 2.0.0, now "):
            nl.sweep(CONFIG, out=copy)

    def test_two_at_once_are_refused(self, copy: Path) -> None:
        """While one has the lock; a lock file that is merely there, as a kill leaves it, is none."""
        filelock = pytest.importorskip("filelock")
        with filelock.FileLock(copy / ".lock"), pytest.raises(InputError, match="in use by another sweep"):
            nl.sweep(CONFIG, out=copy)
        (copy / ".lock").touch()
        assert len(nl.sweep(CONFIG, out=copy).rows) == 16


def _raise(state: Any, context: Any, step_size: float, params: Any) -> Any:
    if params.path:
        raise ArithmeticError("no step\nfrom here")
    return state


def _die(state: Any, context: Any, step_size: float, params: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
    return state


class Broken(_spec.NamedTuple):
    """Parameters of methods that go wrong."""

    path: str = ""


@pytest.fixture
def broken() -> Iterator[None]:
    """Methods of a user's own: one whose step raises while a file is there, one whose step kills its process."""

    def enter(name: str, step: Any) -> None:
        def factory(path: str = "") -> Dynamics:
            return Dynamics(method, Broken(path if path and Path(path).exists() else ""))

        method = Method(name, step, compiled=False, scheduled=None, oracle_calls=None)
        factory.__name__ = factory.__qualname__ = name
        _spec.register(method)(factory)

    enter("Raises", _raise)
    enter("Dies", _die)
    yield
    for name in ("Raises", "Dies"):
        del _spec._REGISTRY[name]


@pytest.mark.usefixtures("broken")
class TestFailures:
    """Of a run, of its process, of the disk."""

    def test_a_run_that_raises_is_recorded_and_tried_again(self, tmp_path: Path) -> None:
        """The others are not harmed; when the cause is gone the same call cures it."""
        cause = tmp_path / "cause"
        cause.touch()
        methods = [{"name": "SelfPlayPG", "step_size": 0.1}, {"name": "Raises", "path": str(cause)}]
        config = CONFIG | {"methods": methods, "run": {"n_steps": 5, "seeds": 2}}
        found = nl.sweep(config, out=tmp_path / "out", workers=1)
        assert found.counts == {"completed": 4, "diverged": 0, "failed": 4}
        assert {row["error"] for row in found.rows if row["status"] == "failed"} == {"ArithmeticError: no step from here"}
        assert [entry["status"] for entry in found.best()] == ["completed", "failed"] * 2
        before = files_of(tmp_path / "out")
        cause.unlink()
        again = nl.sweep(config, out=tmp_path / "out", workers=1)
        after = files_of(tmp_path / "out")
        assert again.counts["completed"] == 8 and sum(after[name] == before[name] for name in before) == 4

    def test_a_run_that_kills_its_process_again_and_again_has_failed(self, tmp_path: Path) -> None:
        """And no other has."""
        methods = [{"name": "Dies"}, {"name": "SelfPlayPG", "step_size": 0.1}]
        config = {"games": [{"source": "mtbench"}], "methods": methods, "run": {"n_steps": 5, "seeds": 2}}
        found = nl.sweep(config, out=tmp_path / "out", workers=2)
        assert [row["status"] for row in found.rows] == ["failed"] * 2 + ["completed"] * 2
        assert "its process died 4 times" in found.rows[0]["error"]

    def test_a_full_disk_is_a_sentence_and_what_was_done_stays(
        self, finished: nl.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The disk fills at the seventh file; when there is room again the sweep goes on."""
        synced, real = [], os.fsync

        def full(handle: int) -> None:
            synced.append(handle)
            if len(synced) >= 7:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        monkeypatch.setattr("nlhfsim.files.os.fsync", full)
        out = tmp_path / "out"
        with pytest.raises(DataError, match=r"cannot be written: No space left on device; 5 of 16 runs are kept in .*goes on"):
            nl.sweep(CONFIG, out=out, workers=1)
        monkeypatch.undo()
        before = files_of(out)
        assert len(before) == 5 and not list((out / "runs").glob("*.part"))
        nl.sweep(CONFIG, out=out, workers=1)
        assert {name: files_of(out)[name] for name in before} == before
        ensure_same_tables(out, finished.path)

    def test_a_folder_that_cannot_be_is_refused_before_anything_runs(self, tmp_path: Path) -> None:
        """A file in its place, or in its way."""
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="out .*file' must be a folder"):
            nl.sweep(CONFIG, out=tmp_path / "file")
        with pytest.raises(DataError, match="out .* cannot be written: Not a directory"):
            nl.sweep(CONFIG, out=tmp_path / "file" / "out")

    @pytest.mark.parametrize("library", ["pyarrow", "filelock"])
    def test_without_the_extra_there_is_a_sentence(self, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before anything runs."""
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(MissingExtraError, match=rf"needs {library}: pip install 'nlhfsim\[data\]'"):
            nl.sweep(CONFIG, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_wrong_workers_are_refused(self, tmp_path: Path) -> None:
        """Both kinds at once, none, and what is no cluster."""
        with pytest.raises(InputError, match="workers = 0 must be at least 1"):
            nl.sweep(CONFIG, out=tmp_path, workers=0)
        with pytest.raises(InputError, match="not both"):
            nl.sweep(CONFIG, out=tmp_path, workers=1, client="tcp://127.0.0.1:1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processes of one thread."""
    distributed = pytest.importorskip("distributed", reason="the dask extra is not installed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


class TestDask:
    """On a local cluster of two workers."""

    def test_by_address_and_by_client_the_bits_are_those_of_processes(
        self, cluster: Any, finished: nl.Sweep, tmp_path: Path
    ) -> None:
        """And both workers are used."""
        found = nl.sweep(CONFIG, out=tmp_path / "address", client=cluster.scheduler_address)
        assert found.rows == finished.rows
        ensure_same_tables(tmp_path / "address", finished.path)
        with cluster.get_client() as client:
            nl.sweep(CONFIG, out=tmp_path / "client", client=client)
            assert client.status == "running"
        ensure_same_tables(tmp_path / "client", finished.path)

    def test_a_worker_that_is_killed_loses_nothing(self, cluster: Any, tmp_path: Path) -> None:
        """Dask does what it was doing again."""
        import threading

        def kill() -> None:
            while len(list((tmp_path / "dask" / "runs").glob("*.parquet"))) < 2:
                time.sleep(0.05)
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        config = config_of(300_000, 2)
        nl.sweep(config, out=tmp_path / "dask", client=cluster.scheduler_address)
        killer.join(10)
        assert not killer.is_alive(), "it was not killed"
        nl.sweep(config, out=tmp_path / "processes", workers=2)
        ensure_same_tables(tmp_path / "dask", tmp_path / "processes")

    def test_no_scheduler_is_a_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is no address too."""
        monkeypatch.setattr(_workers, "_PATIENCE", 1.0)
        pytest.importorskip("distributed", reason="the dask extra is not installed")
        for wrong in ("tcp://127.0.0.1:1", "nonsense"):
            with pytest.raises(DataError, match=f"no Dask scheduler answers at '{wrong}'"):
                nl.sweep(CONFIG, out=tmp_path, client=wrong)
        with pytest.raises(InputError, match="client = 3 must be"):
            nl.sweep(CONFIG, out=tmp_path, client=3)


class TestCommandLine:
    """``nlhfsim sweep``."""

    def call(self, capsys: Any, *arguments: str) -> tuple[int, str, str]:
        """Run it in this process."""
        with pytest.raises(SystemExit) as exit_:
            main(["sweep", *arguments])
        printed = capsys.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    def test_it_prints_the_best_and_where_the_table_is(self, capsys: Any, copy: Path, tmp_path: Path) -> None:
        """As a table, or as one JSON object."""
        config = tmp_path / "config.json"
        config.write_text(json.dumps(CONFIG), encoding="utf-8")
        code, out, err = self.call(capsys, str(config), "--out", str(copy))
        assert (code, err) == (0, "") and "16 runs, 16 completed" in out and out.count("SelfPlayPG") == 4
        assert out.rstrip().endswith(f"results.parquet, a row a run, is in {copy}/")
        code, out, err = self.call(capsys, str(config), "--out", str(copy), "--json")
        found = json.loads(out)
        assert code == 0 and len(found["runs"]) == 16 and found["path"] == str(copy) and len(found["best"]) == 4

    def test_mistakes_are_a_line_each_and_exit_code_2(self, capsys: Any, tmp_path: Path) -> None:
        """Nothing else is said."""
        config = tmp_path / "config.json"
        config.write_text(json.dumps(CONFIG | {"methods": [{"name": "NashMDD"}], "run": {}}), encoding="utf-8")
        code, out, err = self.call(capsys, str(config), "--out", str(tmp_path / "out"))
        assert (code, out) == (2, "")
        assert err.splitlines() == [
            f"nlhfsim: {config} has 2 mistakes, so nothing was run:",
            "  methods[0].name: method 'NashMDD' is unknown; did you mean 'NashMD'?",
            "  run.n_steps: must be given",
        ]
