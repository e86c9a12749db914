"""LaTeX as MathML, which browsers set themselves."""

from __future__ import annotations

import html
import re

_SCRIPT = {"E": "ℰ", "F": "ℱ", "H": "ℋ", "I": "ℐ", "L": "ℒ", "R": "ℛ", "B": "ℬ", "M": "ℳ"}
"""Script capitals: a variant of a letter is not in every browser."""
_FUNCTION = re.compile(r"(\\(?:log|exp|min|max|sinh|operatorname\{\w+\}))\s*(?=[A-Za-z0-9]|\\(?:[a-z]*(?:pi|rho|beta|gamma)\b))")


def mathematics(latex: str) -> str:
    """Return a formula in display style as MathML, or as it is written if it cannot be read."""
    from latex2mathml.converter import convert

    written = re.sub(r"\\mathcal\s*\{?([A-Z])\}?", lambda found: _SCRIPT.get(found[1], found[1]) + " ", latex)
    try:
        return str(convert(_FUNCTION.sub(r"\1\\,", written), display="block"))
    except Exception:  # whatever a formula from outside breaks
        return f"<code>{html.escape(latex)}</code>"
