"""Names in code style become links: claims, methods, and what is public in the package. Examples lose their last blank line."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

from nlhfsim import claims

CLAIMS = "reference/claims"
_HOMES = ("", "nlhfsim.", "nlhfsim.dynamics.", "nlhfsim.games.", "nlhfsim.llm.")
"""Where a name without its module is looked for."""


def target(app: Sphinx, text: str) -> tuple[str, str] | None:
    """Return page and anchor of what a piece of code names, or None."""
    if text in claims.names():
        return CLAIMS, text
    plain = re.sub(r"^nl\.", "nlhfsim.", re.sub(r"\(.*\)$", "", text))
    if not re.fullmatch(r"[A-Za-z_][\w.]*", plain) or plain.islower() and "." not in plain and not text.endswith(")"):
        return None
    objects = app.env.domains.python_domain.objects
    found = next((home + plain for home in _HOMES if home + plain in objects), None)
    return None if found is None else (objects[found].docname, objects[found].node_id)


def link(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Wrap the literals of one page."""
    for literal in list(doctree.findall(nodes.literal)):
        if _stays(literal):
            continue
        found = target(app, literal.astext())
        if found is not None:
            literal.replace_self(make_refnode(app.builder, docname, *found, literal.deepcopy()))


def _stays(node: Any) -> bool:
    """Return whether a literal is in a link or a heading already."""
    while node is not None:
        if isinstance(node, (nodes.reference, nodes.title)):
            return True
        node = node.parent
    return False


def trim(app: Sphinx, doctree: nodes.document) -> None:
    """Drop the blank line that ends an example for doctest."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip("\n")
        block.rawsource = text
        block.children = [nodes.Text(text)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Trim what is read, and link when all pages are known."""
    app.connect("doctree-read", trim)
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
