"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

import nlhfsim  # noqa: E402

project = "nlhfsim"
author = "nlhfsim contributors"
copyright = author
version = release = nlhfsim.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_click",
    "sphinx_copybutton",
    "mathematics",
    "registries",
    "names",
]
exclude_patterns = ["_*", "**/_*"]
nitpicky = True
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]

# Dashes and quotes stand as they are written: --option is no dash.
smartquotes = False
# A name in single backticks is code; the extension `names` links it.
default_role = "literal"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"nlhfsim {version}"
html_math_renderer = "katex"
html_static_path = ["_static"]
html_css_files = ["katex/katex.min.css", "nlhfsim.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
