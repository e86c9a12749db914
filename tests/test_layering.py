"""Imports point one way: a module imports only what stands before it in the design's list, and heavy libraries when used."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nlhfsim"

LAYERS = """
    errors files provenance simplex sources games in_place sum_tree pairs datasets game_sources solvers equilibrium
    loop_cache kernels dynamics parametrizations log_linear feedback metrics trajectory high_probability loop plan execution
    simulate flow stability tuning compare experiment claims verify testing sweep tables training_run plots report llm cli
    __main__
""".split()

# Presentation calls: `Trajectory.plot` and its like import the figures when they are called, `cite` the methods and
# claims to find one by its name.
CALLS_ALLOWED_DOWN = {
    ("trajectory", "plots"),
    ("compare", "plots"),
    ("experiment", "plots"),
    ("high_probability", "plots"),
    ("stability", "plots"),
    ("training_run", "plots"),
    ("sources", "dynamics"),
    ("sources", "claims"),
}

# Where everything stands before, the package may be used as its users do: `import nlhfsim`.
FRONT_DOOR = {"cli", "__main__"}

HEAVY = {"cvxpy", "dask", "distributed", "matplotlib", "mpltern", "pandas", "pyarrow", "torch", "transformers", "xarray"}
HEAVY |= {"datasets", "httpx2", "tenacity", "tensorboard", "trackio", "wandb"}
# The extra that exists for a library may import it at the top.
HEAVY_ALLOWED = {("llm", "torch"), ("llm", "transformers")}


class Import(NamedTuple):
    """One imported module, or one name imported from the package itself."""

    target: str
    line: int
    in_function: bool
    for_types_only: bool


def is_type_checking(node: ast.AST) -> bool:
    """Return whether `node` is ``if TYPE_CHECKING:`` (its ``else`` branch does not occur in this package)."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def targets(node: ast.Import | ast.ImportFrom, package: tuple[str, ...]) -> list[str]:
    """Return the dotted names that `node`, in a module of `package`, imports; names only where the package is the source."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    parent = package[: len(package) - node.level + 1] if node.level else ()
    source = ".".join((*parent, *(node.module.split(".") if node.module else ())))
    return [f"nlhfsim.{alias.name}" for alias in node.names] if source == "nlhfsim" else [source]


def imports(node: ast.AST, package: tuple[str, ...], in_function: bool = False, for_types_only: bool = False) -> Iterator[Import]:
    """Yield every import below `node`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            for target in targets(child, package):
                yield Import(target, child.lineno, in_function, for_types_only)
        else:
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(child, package, inside, for_types_only or is_type_checking(child))


def objection(layer: str, found: Import) -> str | None:
    """Return what is wrong with an import made in `layer`, or None."""
    top, _, rest = found.target.partition(".")
    if top != "nlhfsim":
        at_top = not found.in_function and not found.for_types_only
        if top in HEAVY and at_top and (layer, top) not in HEAVY_ALLOWED:
            return f"imports {top} at the top; import it in the function that uses it"
        return None
    name = rest.partition(".")[0]
    if layer == "__init__":
        lazy = found.in_function or found.for_types_only
        return None if lazy else f"imports {found.target} at the top; the package imports its modules when they are used"
    if name == layer or name == "__version__":
        return None
    if name not in LAYERS:
        if layer in FRONT_DOOR:
            return None
        return f"imports {found.target}, which is no module of the list; import from the one that defines it"
    if LAYERS.index(name) < LAYERS.index(layer) or (found.in_function and (layer, name) in CALLS_ALLOWED_DOWN):
        return None
    return f"imports {name}, which stands after {layer}"


def violations(root: Path) -> list[str]:
    """Return a sentence for every import under the package folder `root` that breaks the rules, and every unlisted module."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        layer = relative.parts[0].removesuffix(".py")
        if layer not in (*LAYERS, "__init__"):
            found.append(f"{relative}: {layer} is not in the list of layers")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for item in imports(tree, ("nlhfsim", *relative.parts[:-1])):
            if (wrong := objection(layer, item)) is not None:
                found.append(f"{relative}:{item.line}: {wrong}")
    return found


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Write `files`, path to source, under `root`, and return it."""
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return root


def test_the_package_keeps_its_layers() -> None:
    assert violations(PACKAGE) == []


def test_a_tree_that_keeps_the_rules_passes(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nlhfsim.cli import main\n",
        "errors.py": "import numpy as np\n",
        "games/__init__.py": "from .game import Game\nfrom nlhfsim.games.game import Game\n",
        "games/game.py": "from ..errors import InputError\nfrom nlhfsim import __version__, simplex\n",
        "trajectory.py": "def plot(self):\n    from nlhfsim.plots import draw\n",
        "plots.py": "import typing\nif typing.TYPE_CHECKING:\n    import matplotlib\ndef draw():\n    import matplotlib.pyplot\n",
        "cli/demo.py": "import nlhfsim\nfrom nlhfsim import solve\n",
        "llm/train.py": "import torch\nfrom nlhfsim.dynamics import registry\n",
    }
    assert violations(write_tree(tmp_path, files)) == []


# One mutant a rule: the file, its source, and the whole sentence that must be reported.
MUTANTS = {
    "downward": ("games/game.py", "import nlhfsim.cli", "games/game.py:1: imports cli, which stands after games"),
    "downward in a function": (
        "errors.py",
        "def f():\n    from nlhfsim.simplex import kl",
        "errors.py:2: imports simplex, which stands after errors",
    ),
    "downward for types": (
        "games/game.py",
        "if TYPE_CHECKING:\n    from nlhfsim.simulate import simulate",
        "games/game.py:2: imports simulate, which stands after games",
    ),
    "downward in a try": (
        "dynamics/_spec.py",
        "try:\n    from nlhfsim import claims\nexcept ImportError:\n    pass",
        "dynamics/_spec.py:2: imports claims, which stands after dynamics",
    ),
    "downward, relative": (
        "games/game.py",
        "from ..plots import draw",
        "games/game.py:1: imports plots, which stands after games",
    ),
    "downward, relative name": ("metrics.py", "from . import flow", "metrics.py:1: imports flow, which stands after metrics"),
    "exception at the top": (
        "trajectory.py",
        "from nlhfsim.plots import draw",
        "trajectory.py:1: imports plots, which stands after trajectory",
    ),
    "front door": (
        "report.py",
        "import nlhfsim as nl",
        "report.py:1: imports nlhfsim, which is no module of the list; import from the one that defines it",
    ),
    "front door, name": (
        "metrics.py",
        "from nlhfsim import solve",
        "metrics.py:1: imports nlhfsim.solve, which is no module of the list; import from the one that defines it",
    ),
    "eager package": (
        "__init__.py",
        "from nlhfsim.errors import InputError",
        "__init__.py:1: imports nlhfsim.errors at the top; the package imports its modules when they are used",
    ),
    "heavy": (
        "equilibrium.py",
        "import cvxpy as cp",
        "equilibrium.py:1: imports cvxpy at the top; import it in the function that uses it",
    ),
    "heavy in a class": (
        "plots.py",
        "class A:\n    from matplotlib.figure import Figure",
        "plots.py:2: imports matplotlib at the top; import it in the function that uses it",
    ),
    "unlisted": ("utils.py", "", "utils.py: utils is not in the list of layers"),
    "unlisted folder": ("helpers/__init__.py", "", "helpers/__init__.py: helpers is not in the list of layers"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_tree_that_breaks_a_rule_is_reported(tmp_path: Path, name: str) -> None:
    file, source, sentence = MUTANTS[name]
    assert violations(write_tree(tmp_path, {"__init__.py": "", file: source})) == [sentence]
