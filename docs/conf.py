"""How the site of these documents is built: `make docs`.

Its source is the whole repository, of which it takes the documents, so that a link means the same
on the site and where the files are read.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "grip-edge-middleware"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "ARCHITECTURE.md", "CHANGELOG.md", "examples/edge/**.md"]
# Not looked into at all.
exclude_patterns = [".*", "build", "grip_edge_middleware", "tests", "benchmarks", "tools"]
# `make docs` makes warnings errors: a link that leads nowhere, a page that no contents name.
nitpicky = True
myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "grip-edge-middleware"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["_static"]
html_css_files = ["site.css"]


def write_front_door(app: Sphinx, error: Exception | None) -> None:
    """Lead who opens the folder to the first page."""
    if error is None and app.builder.name == "html":
        target = f"{root_doc}.html"
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">'
        page += f'<link rel="canonical" href="{target}"><a href="{target}">{project}</a>\n'
        (Path(app.outdir) / "index.html").write_text(page)


def setup(app: Sphinx) -> None:
    """Be called by Sphinx."""
    app.connect("build-finished", write_front_door)
