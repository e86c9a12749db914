"""The documentation: pointers to proofs and links between pages resolve, every claim is explained, examples run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from nlhfsim import claims

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
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
@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("*.md")), ids=lambda page: page.stem)
def test_the_examples_print_what_the_page_says(page: Path) -> None:
    """Every ``>>>`` of a how-to, in order."""
    failures, tried = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried > 10 and failures == 0
