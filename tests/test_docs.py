"""The documentation: pointers and links resolve, every claim is explained, examples run, and the pages are built."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nlhfsim
from nlhfsim import claims, datasets, dynamics, games, llm
from nlhfsim.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = ("_build", "_generated", "_katex", "api")
PAGES = sorted(page for page in DOCS.rglob("*.md") if not {*page.relative_to(DOCS).parts} & {*MADE})
"""The pages that are written by hand."""
EXAMPLES = [page for page in PAGES if ">>> " in page.read_text(encoding="utf-8")]
CONSOLE = re.compile(r"^```console\n\$ nlhfsim (.+)\n((?:.*\n)*?)```", re.MULTILINE)
SHOWN = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
POINTER = re.compile(r"docs/proofs/[\w-]+\.md#[\w-]+")


def text_of(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> list[str]:
    """The anchors that GitHub and MyST make of headings: lower case, spaces as hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+?)\s*$", text_of(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def explained() -> list[str]:
    """The claims that the proofs must name: all but characterisations of steps and conjectures."""
    found = [claims.get(name) for name in claims.names()]
    characterised = [claim.id for claim in found if claim.id.endswith("-step") and claim.method and claim.status == "identity"]
    return [claim.id for claim in found if claim.status != "conjecture" and claim.id not in characterised]


@pytest.mark.parametrize("name", explained())
def test_proof_is_a_heading_of_a_page_that_names_the_claim(name: str) -> None:
    """`proof` is nothing but page and anchor, the anchor is that of one heading, and the page names the claim."""
    pointer = claims.get(name).proof
    assert POINTER.fullmatch(pointer), pointer
    page, anchor = pointer.split("#")
    assert anchors(ROOT / page).count(anchor) == 1, f"{page} has no heading, or more than one, for {anchor}"
    assert re.search(rf"(`|^#+ ){re.escape(name)}(`|$)", text_of(ROOT / page), re.MULTILINE)


def test_sections_of_derived_claims_are_claims() -> None:
    """Each heading of `derived-claims.md` is the id of a registered claim."""
    assert set(anchors(DOCS / "proofs" / "derived-claims.md")[1:]) <= set(claims.names())


def test_code_that_points_into_the_proofs_points_at_something() -> None:
    """Comments and docstrings too."""
    for source in (ROOT / "nlhfsim").rglob("*.py"):
        for pointer in POINTER.findall(source.read_text(encoding="utf-8")):
            page, anchor = pointer.split("#")
            assert anchor in anchors(ROOT / page), f"{source.name}: {pointer}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    """Every link to a file leads to one, and every anchor to a heading; figures too."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        where = (page.parent / file).resolve() if file else page
        assert where.exists(), target
        assert not anchor or anchor in anchors(where), target


@pytest.mark.parametrize("name", sorted({*re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", "".join(map(text_of, PAGES)))}))
def test_names_in_the_docs_are_claims(name: str) -> None:
    """What looks like the id of a claim is one."""
    assert name in claims.names()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::nlhfsim.errors.ProvenRangeWarning")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own call
@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_the_examples_print_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """Every ``>>>`` of a page, in order, then every command; the figures that it shows are those that it saves."""
    monkeypatch.chdir(tmp_path)
    failures, tried = doctest.testfile(str(page), module_relative=False, optionflags=SHOWN)
    assert tried > 0 and failures == 0, capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r'save\([^\n]*"([\w-]+\.svg)"\)', text)) == {figure.name for figure in tmp_path.glob("*.svg")}
    for figure in tmp_path.glob("*.svg"):
        assert f"figures/{figure.name})" in text and (DOCS / "figures" / figure.name).is_file()
    for arguments, shown in CONSOLE.findall(text):
        assert_prints(arguments, shown, capsys)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in EXAMPLES], ids=lambda page: page.stem)
def test_commands_without_examples_print_what_the_page_says(page: Path, capsys: Any) -> None:
    """The commands of a page that has no Python."""
    for arguments, shown in CONSOLE.findall(page.read_text(encoding="utf-8")):
        assert_prints(arguments, shown, capsys)


@pytest.mark.parametrize("place, judge, rank", [(0, "judge", None), (1, "served-judge", 16)])
def test_the_recipes_of_the_how_to_are_some(place: int, judge: str, rank: int | None, tmp_path: Path) -> None:
    """Every table and field of them; the judge and the model are not loaded."""
    from nlhfsim.llm import read_recipe

    texts = re.findall(r"^```toml\n(.*?)^```", (DOCS / "how-to" / "train-a-language-model.md").read_text("utf-8"), re.M | re.S)
    assert len(texts) == 2
    text = texts[place]
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Why?"}\n' * 20, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert recipe.held_out is not None and (len(recipe.prompts), len(recipe.held_out)) == (18, 2)
    assert recipe.config.method == "nash_prox" and recipe.oracle.kind == judge
    assert recipe.config.precision == "bfloat16" and recipe.config.lora_rank == rank


def assert_prints(arguments: str, shown: str, capsys: Any) -> None:
    """Run one command in this process and compare what it prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(shlex.split(arguments))
    printed = capsys.readouterr().out
    assert done.value.code == 0 and doctest.OutputChecker().check_output(shown, printed, SHOWN), printed


def fields(heading: str) -> set[str]:
    """Names in the first column of the table below a heading of the page about JSON."""
    text = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \|", text.split(f"\n## {heading}\n")[1].split("\n## ")[0], re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def printed(arguments: str, capsys: Any) -> Any:
    """Return what a command prints with ``--json``."""
    with pytest.raises(SystemExit):
        main([*shlex.split(arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_json_fields_are_those_that_the_page_names(capsys: Any) -> None:
    """Of solve, run, compare from exact payoffs and from votes, and verify."""
    assert fields("solve") == {*printed("solve regenwetter2012 --diagnose", capsys), "comparisons"}
    methods = "--dynamics NaturalPG --start random"
    [run] = printed(f"run rock-paper-scissors {methods} --steps 3", capsys)["runs"]
    assert fields("run") == {*run}
    exact = printed(f"compare rock-paper-scissors {methods} --step-sizes 1 --oracle-calls 20", capsys)["comparison"][0]
    votes = printed(f"compare rock-paper-scissors {methods} --step-sizes 1 --queries 20", capsys)["comparison"][0]
    assert fields("compare") == {*exact, *votes}
    report = printed("verify constant-sum --games 5", capsys)
    assert fields("verify") - {"relative", "absolute", "why"} == {*report["claims"][0]}
    page = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in report)


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning_and_name_everything(tmp_path: Path) -> None:
    """Sphinx takes a dead link or broken mathematics as an error; the reference has all that is public or registered."""
    pytest.importorskip("sphinx")
    from sphinx.util.inventory import InventoryFile

    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "html" / "objects.inv").open("rb") as file:
        found = InventoryFile.load(file, "", lambda base, uri: uri)
    objects = {name for kind, names in found.items() if kind.startswith("py:") for name in names}
    public = {f"nlhfsim.{name}" for name in nlhfsim.__all__ if not inspect.ismodule(getattr(nlhfsim, name))}
    public |= {f"nlhfsim.dynamics.{name}" for name in dynamics.names() + dynamics.aliases()}
    public |= {f"nlhfsim.llm.{name}" for name in llm.__all__ if not inspect.ismodule(getattr(llm, name))}
    public |= {f"nlhfsim.llm.oracles.{name}" for name in llm.oracles.__all__}
    public |= {f"nlhfsim.llm.samplers.{name}" for name in llm.samplers.__all__}
    assert public - objects == set()
    for name in nlhfsim.__all__:
        if inspect.ismodule(getattr(nlhfsim, name)):
            assert (tmp_path / "html" / "reference" / "api" / f"nlhfsim.{name}.html").is_file()
    reference = {
        name: (tmp_path / "html" / "reference" / f"{name}.html").read_text(encoding="utf-8")
        for name in ("claims", "methods", "games", "language-models")
    }
    assert [name for name in llm.methods.names() if f'id="{name.replace("_", "-")}"' not in reference["language-models"]] == []
    assert [field.name for field in dataclasses.fields(llm.NashConfig) if field.name not in reference["language-models"]] == []
    assert [name for name in claims.names() if f'id="{name}"' not in reference["claims"]] == []
    assert [name for name in dynamics.names() if f'id="{name.lower()}"' not in reference["methods"]] == []
    assert [name for name in [*games.NAMED, *datasets.DATASETS] if f">{name}<" not in reference["games"]] == []
    assert "katex-display" in reference["claims"] and not any("katex-error" in page for page in reference.values())
