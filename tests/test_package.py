"""The package as it is installed: quick to import, one version, and the extras that the design promises."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nlhfsim

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"cvxpy", "dask", "jax", "matplotlib", "mpltern", "pandas", "pyarrow", "torch", "transformers", "xarray"}
EXTRAS = {"data", "notebooks", "dask", "torch", "lora", "parallel", "served", "trackers", "datasets", "peers", "test", "docs"}


def modules_loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `statement`."""
    home = str(Path(nlhfsim.__file__).resolve().parents[1])
    script = f"import json, sys\nsys.path.insert(0, {home!r})\n{statement}\n"
    script += "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def setup_cfg() -> configparser.RawConfigParser:
    """Return the parsed ``setup.cfg``."""
    parser = configparser.RawConfigParser()
    assert parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirement_names(lines: str) -> set[str]:
    """Return the distribution names of a block of requirements, one a line."""
    return {name.group() for name in (re.match(r"[\w.-]+", line.strip()) for line in lines.splitlines()) if name}


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert modules_loaded_by("import nlhfsim") & (HEAVY | {"numba"}) == set()


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert modules_loaded_by("import nlhfsim.cli") & HEAVY == set()


def test_the_import_check_sees_a_heavy_import() -> None:
    assert "matplotlib" in modules_loaded_by("import nlhfsim, matplotlib")


def test_an_unknown_attribute_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        nlhfsim.no_such_name


def test_version_is_that_of_the_installed_metadata() -> None:
    try:
        installed = importlib.metadata.version("nlhfsim")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nlhfsim runs from its source tree here and is not installed")
    assert nlhfsim.__version__ == installed


def test_citation_and_changelog_have_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)$", citation, flags=re.MULTILINE) == [nlhfsim.__version__]
    assert f"## [{nlhfsim.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_version_has_a_single_source() -> None:
    assert setup_cfg()["metadata"]["version"] == "attr: nlhfsim.__version__"
    source = (ROOT / "nlhfsim" / "__init__.py").read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE) == [nlhfsim.__version__]


def test_extras_are_those_of_the_design() -> None:
    assert set(setup_cfg()["options.extras_require"]) == EXTRAS


def test_the_core_requires_nothing_that_an_extra_is_for() -> None:
    parser = setup_cfg()
    core = requirement_names(parser["options"]["install_requires"])
    numbers = {"numpy", "scipy", "numba", "cvxpy", "joblib", "hypothesis"}
    assert core == numbers | {"matplotlib", "mpltern", "click", "rich", "jinja2", "latex2mathml"}
    for extra in EXTRAS:
        assert core & requirement_names(parser["options.extras_require"][extra]) == set(), extra


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(nlhfsim.__file__).parent / "py.typed").is_file()
