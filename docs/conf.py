"""Configuration of the documentation site: make docs."""

# ruff: noqa: E402  # this folder must be on the path first

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference_pages

import preceptor

project = "preceptor"
author = "the authors of preceptor"
version = release = preceptor.__version__
extensions = ["myst_parser", "sphinx_design", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images", "templates"]
suppress_warnings = ["myst.header"]  # pages may begin with a comment
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"preceptor {release}"
html_static_path: list[str] = ["static"]
html_css_files = ["site.css"]
html_js_files = ["tables.js"]
templates_path = ["templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/versions.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_custom_sections = [("Reference", "returns_style")]
napoleon_use_ivar = True

reference_pages.write_reference()


def _write_llms(app: object, error: Exception | None) -> None:
    """Write the pages for readers that are programs."""
    builder = app.builder  # type: ignore[attr-defined]
    if error is not None or builder.name != "html":
        return
    env = builder.env
    pages = [
        (name, env.titles[name].astext(), Path(env.doc2path(name)).read_text(encoding="utf-8"))
        for name in sorted(env.found_docs, key=lambda name: (name != "index", name))
    ]
    reference_pages.write_llms(Path(builder.outdir), pages)


def _link_inside(app: object, name: str, source: list[str]) -> None:
    """Let links to files beside the pages lead to their copies in the site."""
    up = "../" * name.count("/")
    source[0] = reference_pages.with_links_inside(source[0], up)


def _heading_levels(
    app: object, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Give the captions of the navigation the level that their role needs."""
    key = "furo_navigation_tree"
    if key in context:
        context[key] = context[key].replace('role="heading"', 'role="heading" aria-level="2"')


def setup(app: object) -> None:
    """Connect the hooks."""
    after_furo = 900
    app.connect(  # type: ignore[attr-defined]
        "html-page-context", _heading_levels, priority=after_furo
    )
    app.connect("source-read", _link_inside)  # type: ignore[attr-defined]
    app.connect("build-finished", _write_llms)  # type: ignore[attr-defined]
