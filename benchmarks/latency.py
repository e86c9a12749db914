"""How long it takes until something is on the screen: imports, first and second compilation, first figure; new processes all."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._measure import NOT_INSTALLED, DisagreementError, Report, versions

_SIMULATE = """
import nlhfsim as nl
game = nl.games.rock_paper_scissors(margin=0.5, beta=0.1)
trajectory = nl.simulate(game, nl.dynamics.NashMirrorProx(step_size=2.0), 100, start=[0.8, 0.1, 0.1])
assert trajectory.kl[0, -1] < 1e-12
"""
_JAX = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
matrix = jnp.array([[0, -0.5, 0.5], [0.5, 0, -0.5], [-0.5, 0.5, 0]])
prox = lambda logits, gain: jax.nn.log_softmax((logits + 2.0 * gain - 0.2 * jnp.log(3.0)) / 1.2)
step = lambda logits, _: (prox(logits, matrix @ jnp.exp(prox(logits, matrix @ jnp.exp(logits)))), None)
final = jax.jit(lambda start: jax.lax.scan(step, start, None, length=100)[0])(jnp.log(jnp.array([0.8, 0.1, 0.1])))
assert abs(jnp.exp(final) - 1 / 3).max() < 1e-6
"""
_PYTHON = "python -c pass"
PROGRAMS: Mapping[str, tuple[str, str]] = {
    _PYTHON: ("", "pass"),
    "import numpy": ("numpy", "import numpy"),
    "import nlhfsim": ("nlhfsim", "import nlhfsim"),
    "nlhfsim --help": ("nlhfsim", "import sys; sys.argv[1:] = ['--help']; from nlhfsim.cli import main; sys.exit(main())"),
    "nlhfsim: solve": ("nlhfsim", "import nlhfsim as nl; assert nl.solve(nl.games.rock_paper_scissors()).status == 'certified'"),
    "nlhfsim: first simulate, empty cache": ("nlhfsim", _SIMULATE),
    "nlhfsim: first simulate, filled cache": ("nlhfsim", _SIMULATE),
    "nlhfsim: first figure, filled cache": ("nlhfsim", _SIMULATE + "nl.plots.save(trajectory.plot(), FIGURE)\n"),
    "import jax": ("jax", "import jax"),
    "jax: the same steps, compiled by scan": ("jax", _JAX),
    "import torch": ("torch", "import torch"),
}


def run(*, quick: bool, out: Path, programs: Mapping[str, tuple[str, str]] = PROGRAMS) -> Report:
    """Time every program in new processes."""
    repeats = 1 if quick else 5
    report = Report(
        "latency",
        "Seconds from an empty prompt",
        {"program": "program", "s_min": "s, min", "s_median": "median", "note": "note"},
        settings={"repeats": repeats},
        notes=["whole processes, Python's own start included; every program checks its own result"],
    )
    present = versions()
    rows: dict[str, dict[str, Any]] = {name: {"program": name, "s_min": None, "seconds": []} for name in programs}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for name, (package, code) in programs.items():
                if package and present.get(package) == NOT_INSTALLED:
                    rows[name]["note"] = NOT_INSTALLED
                    continue
                figure = repr(str(Path(cache) / "first.png"))
                rows[name]["seconds"].append(_seconds(name, code.replace("FIGURE", figure), Path(cache), "empty" in name))
    for row in rows.values():
        if row["seconds"]:
            row |= {"s_min": min(row["seconds"]), "s_median": statistics.median(row["seconds"])}
    report.rows = list(rows.values())
    return report


def _seconds(name: str, code: str, cache: Path, empty: bool) -> float:
    """Return how long a new Python takes over `code`."""
    kept = cache / "nlhfsim"
    if empty and kept.exists():
        raise DisagreementError(f"{name}: the cache is not empty, so that this is not a first run")
    environment = os.environ | {"NLHFSIM_CACHE_DIR": str(kept) if "cache" in name else str(cache / "other")}
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    spent = time.perf_counter() - begin
    if done.returncode != 0:
        raise DisagreementError(f"{name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return spent
