"""Mathematics rendered when the pages are built, by KaTeX in an embedded engine: a reader needs neither network nor scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from py_mini_racer import JSEvalException, MiniRacer
from sphinx.application import Sphinx
from sphinx.util import logging

KATEX = Path(__file__).parents[1] / "_katex" / "katex.min.js"
_LOGGER = logging.getLogger(__name__)
_PUNCTUATION = tuple(".,;:)]")
_END = "</span>" * 3
"""How KaTeX ends a formula: its last part, which is never broken, all parts, the whole."""
_ENGINES: list[MiniRacer] = []


def engine() -> MiniRacer:
    """Return the engine with KaTeX in it, started when it is first asked for."""
    if not _ENGINES:
        fresh = MiniRacer()
        fresh.eval(KATEX.read_text(encoding="utf-8"))
        _ENGINES.append(fresh)
    return _ENGINES[0]


def render(latex: str, display: bool) -> str:
    """Return HTML with MathML beside it for screen readers; what KaTeX does not know is an error."""
    options = {"displayMode": display, "throwOnError": True, "strict": "error"}
    return str(engine().call("katex.renderToString", latex.strip(), options))


def keep_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Move punctuation that follows a formula into it: a browser would break the line between the two."""
    for formula in list(doctree.findall(nodes.math)):
        following = formula.next_node(descend=False, siblings=True)
        if isinstance(following, nodes.Text) and following.astext()[:1] in _PUNCTUATION:
            formula["punctuation"] = following.astext()[0]
            following.parent.replace(following, nodes.Text(following.astext()[1:]))


def _visit(translator: Any, node: Any, display: bool) -> None:
    try:
        html = render(node.astext(), display)
    except JSEvalException as error:
        _LOGGER.warning("mathematics: %s in %s", str(error).splitlines()[0], node.astext(), location=node)
        html = translator.encode(node.astext())
    if "punctuation" in node:
        html = html.removesuffix(_END) + node["punctuation"] + _END
    translator.body.append(f'<div class="math">{html}</div>' if display else f'<span class="math">{html}</span>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Make KaTeX the renderer of mathematics."""
    app.connect("doctree-resolved", keep_punctuation)
    app.add_html_math_renderer(
        "katex",
        inline_renderers=(lambda self, node: _visit(self, node, False), None),
        block_renderers=(lambda self, node: _visit(self, node, True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": False}
