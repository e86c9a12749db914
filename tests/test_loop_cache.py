"""Compiled loops on disk: a second process finds them, no edit in the package runs stale code, and no folder is needed.

Each test copies the package and runs it in processes of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlhfsim
from nlhfsim import loop_cache

SCRIPT = """
import json, sys, warnings
import nlhfsim as nl
from nlhfsim import kernels
warnings.simplefilter("error")
game = nl.games.rock_paper_scissors(0.5, beta=0.1)
run = nl.simulate(game, nl.dynamics.SelfPlayPG(0.05), 30, start=[0.7, 0.2, 0.1], equilibrium=False)
loop = kernels.compile_loop(nl.dynamics.get("SelfPlayPG").method.kernel, ("logits",), True, None)
stats = loop.stats
print(json.dumps({"home": nl.__file__, "final": run.final[0].tolist(), "hits": sum(stats.cache_hits.values()),
                  "misses": sum(stats.cache_misses.values()), "cached": stats.cache_path is not None}))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that may be edited."""
    home = tmp_path / "site"
    shutil.copytree(Path(nlhfsim.__file__).parent, home / "nlhfsim", ignore=shutil.ignore_patterns("__pycache__"))
    return home / "nlhfsim"


def run(package: Path, cache: str) -> dict[str, Any]:
    """What a fresh process computes with the copied package and a cache folder."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT")}
    environment |= {"PYTHONPATH": str(package.parent), "NLHFSIM_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=package.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert Path(found["home"]).is_relative_to(package)
    return found


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one occurrence of a piece of source."""
    source = path.read_text(encoding="utf-8")
    assert source.count(old) == 1, (path, old)
    path.write_text(source.replace(old, new), encoding="utf-8")


def plain_run(gain: float) -> list[float]:
    """The same run by NumPy, each step's gradient multiplied by `gain`."""
    A = 0.5 * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    theta = np.log([0.7, 0.2, 0.1])
    for _ in range(30):
        pi = np.exp(theta) / np.exp(theta).sum()
        u = A @ pi - 0.1 * (theta - np.log(1 / 3))
        theta = theta + gain * 0.05 * pi * (u - pi @ u)
    return list(np.exp(theta) / np.exp(theta).sum())


def test_a_second_process_compiles_nothing_and_an_edit_elsewhere_counts(package: Path, tmp_path: Path) -> None:
    """Miss, hit; a helper in another module is edited: the next process has the new numbers; undone, the old ones return."""
    cache = tmp_path / "cache"
    first, second = run(package, str(cache)), run(package, str(cache))
    assert (first["hits"], first["misses"]) == (0, 1) and (second["hits"], second["misses"]) == (1, 0)
    assert first["final"] == second["final"]
    np.testing.assert_allclose(first["final"], plain_run(1.0), rtol=1e-12)
    helper = package / "kernels" / "one.py"
    edit(
        helper,
        "total += first[i] * second[i]\n    return total",
        "total += first[i] * second[i]\n    return 0.5 * total",
    )
    edited = run(package, str(cache))
    assert (edited["hits"], edited["misses"]) == (0, 1)
    assert np.abs(np.subtract(edited["final"], first["final"])).max() > 1e-6
    edit(helper, "return 0.5 * total", "return total")
    undone = run(package, str(cache))
    assert undone["final"] == first["final"] and undone["hits"] == 1
    assert len(list(cache.iterdir())) == 2


def test_an_edited_helper_of_a_step_counts(package: Path, tmp_path: Path) -> None:
    """A call that is compiled with the loop is edited: the next process walks twice as fast, as NumPy does."""
    cache = tmp_path / "cache"
    run(package, str(cache))
    edit(
        package / "dynamics" / "self_play_pg.py",
        "ascend_to(state.logits, policy, gain, step_size,",
        "ascend_to(state.logits, policy, gain, 2 * step_size,",
    )
    np.testing.assert_allclose(run(package, str(cache))["final"], plain_run(2.0), rtol=1e-12)


@pytest.mark.parametrize("kind", ["off", "a file", "below a file"])
def test_no_cache_is_needed(kind: str, package: Path, tmp_path: Path) -> None:
    """Switched off, or where the folder cannot be, everything is compiled in memory and nothing is written."""
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    chosen = {"off": "", "a file": str(tmp_path / "file"), "below a file": str(tmp_path / "file" / "cache")}[kind]
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    found = run(package, chosen)
    np.testing.assert_allclose(found["final"], plain_run(1.0), rtol=1e-12)
    assert found["cached"] is False and found["misses"] in (0, 1)
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == before
    assert not list(package.rglob("*.nbi"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_no_obstacle(package: Path, tmp_path: Path) -> None:
    """A folder without write permission switches the cache off."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert run(package, str(closed))["cached"] is False


def test_a_garbled_cache_folder_is_no_obstacle(package: Path, tmp_path: Path) -> None:
    """Generated modules that were overwritten are written anew."""
    cache = tmp_path / "cache"
    expected = run(package, str(cache))["final"]
    for module in cache.rglob("loop_*.py"):
        module.write_text("raise RuntimeError('stale')\n", encoding="utf-8")
    assert run(package, str(cache))["final"] == expected


def test_the_hash_sees_names_and_contents(tmp_path: Path) -> None:
    """Any change of a source, its name or its place changes the hash; other files do not."""
    (tmp_path / "a.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.py").write_text("y = 2\n", encoding="utf-8")
    hashes = [loop_cache.sources_hash(tmp_path)]
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    assert loop_cache.sources_hash(tmp_path) == hashes[0]
    (tmp_path / "sub" / "b.py").write_text("y = 3\n", encoding="utf-8")
    hashes.append(loop_cache.sources_hash(tmp_path))
    (tmp_path / "sub" / "b.py").rename(tmp_path / "b.py")
    hashes.append(loop_cache.sources_hash(tmp_path))
    (tmp_path / "c.py").write_text("", encoding="utf-8")
    hashes.append(loop_cache.sources_hash(tmp_path))
    assert len(set(hashes)) == 4


def test_only_a_few_folders_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of old sources are removed, the oldest first; the present one stays, and so does what others keep there."""
    (tmp_path / "thesis").mkdir()
    os.utime(tmp_path / "thesis", (1, 1))
    for k in range(20):
        old = tmp_path / f"{k:020x}"
        old.mkdir()
        os.utime(old, (1000 + k, 1000 + k))
    monkeypatch.setenv("NLHFSIM_CACHE_DIR", str(tmp_path))
    folder = loop_cache._folder.__wrapped__()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert folder is not None and folder.name in left
    assert "thesis" in left and len(left) == 1 + loop_cache._KEPT
    assert f"{19:020x}" in left and f"{0:020x}" not in left


def test_steps_from_outside_are_not_cached() -> None:
    """A user's step has sources that the hash does not see, so it is never kept on disk."""

    def step(state: Any, context: Any, step_size: float, params: Any) -> Any:
        return state

    assert loop_cache.load(step, "", loop_cache.source(("logits",), False, cached=True)) is None
