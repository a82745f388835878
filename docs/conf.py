"""Sphinx's configuration: MyST pages, and reference pages from docstrings and the live objects."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for live_reference

project = "Perijove"
author = "The Perijove developers"
copyright = "2026, the Perijove developers"  # noqa: A001
release = installed("perijove")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "live_reference",
]
exclude_patterns = ["_build"]
# `Job` is both the handle a researcher has and the record that travels; annotations may mean either.
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_default_options = {"member-order": "bysource", "show-inheritance": False}
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True

html_theme = "pydata_sphinx_theme"
html_title = "Perijove"
html_static_path = ["_static"]
html_css_files = ["perijove.css"]
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False
html_show_sphinx = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
