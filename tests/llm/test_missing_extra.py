"""Without PyTorch the package works, and what needs it says so in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.split(".")[0] in {hidden!r} else real(name, *more)
"""


def run(code: str, *hidden: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own where some packages are not installed."""
    script = "import importlib.util\n" + BLOCKED.format(hidden=hidden) + code
    return subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("hidden", ["torch", "transformers", "safetensors"])
def test_the_sentence(hidden: str) -> None:
    code = """
import nlhfsim as nl
nl.solve(nl.games.rock_paper_scissors())
import nlhfsim.training_run
for wanted in ("import nlhfsim.llm", "from nlhfsim.llm import NashConfig", "import nlhfsim.llm.trainer"):
    try:
        exec(wanted)
    except nl.errors.MissingExtraError as error:
        print(error)
"""
    done = run(code, hidden)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"nlhfsim.llm needs {hidden}: pip install 'nlhfsim[torch]'"] * 3


def test_importing_the_package_does_not_import_torch() -> None:
    done = run("import nlhfsim, sys\nprint('torch' in sys.modules, 'transformers' in sys.modules)")
    assert done.stdout == "False False\n", done.stderr


def test_configurations_need_no_torch_to_be_in_memory() -> None:
    """Reading and checking a configuration stays fast."""
    done = run("from nlhfsim.llm import NashConfig, methods, oracles\nimport sys\nNashConfig()\nprint('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr
