"""The notebooks: run from top to bottom at small size, warnings as errors; they hide no mathematics and keep no outputs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
OWN_MATHEMATICS = "6-test-your-own-method-and-claim"
"""Defines a method and a claim, as its readers will."""
SHOWS = r"^\S.*\.figure$|^plt\.show\(\)$|^sliders = slide\("
"""The lines that show a figure."""
STRICT = "import warnings\nwarnings.simplefilter('error')"
RELAXED = "import warnings\nwarnings.resetwarnings()"
"""What the kernel does when it stops is not the notebook's."""
SLIDES = """
import sys
%matplotlib inline
import nlhfsim as nl
from sliders import slide
def draw(beta=0.1):
    return nl.plots.policy_bars(game.with_beta(beta), {"π*": nl.solve(game.with_beta(beta)).policy}).figure
game = nl.games.rock_paper_scissors(bias=-0.4)
"""


def cells(path: Path, kind: str) -> list[str]:
    """Return the sources of the cells of one kind."""
    return [
        "".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind
    ]


def code(path: Path) -> list[ast.Module]:
    """Return the syntax of the code cells, without magics."""
    return [ast.parse(re.sub(r"^%.*$", "", source, flags=re.MULTILINE)) for source in cells(path, "code")]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run sources in a kernel of their own, in the folder of the notebooks, and return the executed cells."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("NLHFSIM_QUICK", "1")
    # A reader has the compiler; what a kernel runs is not measured anyway.
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)

    def run_cells(sources: list[str]) -> list[Any]:
        framed = [nbformat.v4.new_code_cell(source) for source in (STRICT, *sources, RELAXED)]
        notebook = nbformat.v4.new_notebook(cells=framed)
        nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
        return list(notebook.cells[1:-1])

    return run_cells


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_numbers_hold(path: Path, run: Any) -> None:
    """No cell fails, warns, or writes on standard error, and every cell that ends in a figure shows one, sliders or not."""
    for cell in run(cells(path, "code")):
        assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.source
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(pictures) == len(re.findall(SHOWS, cell.source, re.MULTILINE)), cell.source


@pytest.mark.parametrize("source", ["assert 1 + 1 == 3", "import warnings\nwarnings.warn('careful')"])
def test_what_fails_or_warns_in_a_notebook_is_seen(source: str, run: Any) -> None:
    """The test above can fail."""
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="AssertionError|careful"):
        run([source])


def test_sliders_redraw_the_figure_which_stays_without_them(run: Any) -> None:
    """A slider that is moved changes the picture; where ipywidgets is not installed, there is the picture alone."""
    pytest.importorskip("ipywidgets")
    show = "sliders = slide(draw, beta=[0.01, 0.1])"
    without = "sys.modules['ipywidgets'] = None\n"
    shown = [cell.outputs for cell in run([SLIDES, show, show, "sliders[0].value = 0.01", without + show, "assert not sliders"])]
    (view, still), (_, moved), (alone,) = shown[1], shown[2], shown[4]
    assert "application/vnd.jupyter.widget-view+json" in view.data
    assert alone.data["image/png"] == still.data["image/png"] != moved.data["image/png"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_last_cell_asserts_and_the_first_reads_the_size(path: Path) -> None:
    """Assertions of numbers, at least five."""
    sources = cells(path, "code")
    assert 'QUICK = "NLHFSIM_QUICK" in os.environ' in sources[0]
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(code(path)[-1])) >= 5


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem != OWN_MATHEMATICS], ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_but_what_its_sliders_draw(path: Path) -> None:
    """All mathematics is called from the package: no class, no lambda, no function that is not given to a slider."""
    for tree in code(path):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        drawn = {getattr(call.args[0], "id", "") for call in calls if getattr(call.func, "id", "") == "slide"}
        defined = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert defined <= drawn and not [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_its_links_resolve(path: Path) -> None:
    """So that a change of a notebook is a change of its text."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in found)
    for target in re.findall(r"\]\(([^)\s:]+)\)", "\n".join(cells(path, "markdown"))):
        assert (FOLDER / target).is_file(), target


def test_the_readme_and_the_documentation_list_every_notebook() -> None:
    """With a link to the file."""
    assert len(NOTEBOOKS) == 7
    for page, prefix in (("README.md", "notebooks"), ("docs/notebooks.md", "../notebooks")):
        assert re.findall(rf"\({prefix}/([\w-]+\.ipynb)\)", (ROOT / page).read_text(encoding="utf-8")) == [
            p.name for p in NOTEBOOKS
        ]
