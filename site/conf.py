"""Settings of the book for Sphinx; `build_book.py` gathers its pages and calls Sphinx."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from swys_utils import __version__

ALT_LENGTH = 200  # letters of a picture's description
MATHJAX = "mathjax/tex-svg.js"  # one file: formulas are drawn as SVG and need no font

project = "SeeWhatYouShrink"
author = "The SeeWhatYouShrink developers"
project_copyright = "2026, " + author
version = __version__
release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3

# Notebooks are shown as they are stored. A widget needs Jupyter, so the picture below it stands for
# it; and no script of widgets is asked for.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None),
    ("html", "text/plain", 100),
]
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_context = {"default_mode": "auto"}
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # it fetches pages, which a browser refuses for a book on disk
mathjax_path = MATHJAX
html_theme_options = {
    "logo": {"text": project},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Sphinx) -> None:
    """What Sphinx calls first.

    Args:
        app: the application.
    """
    app.connect("doctree-read", describe_pictures)
    app.connect("build-finished", copy_mathjax)


def describe_pictures(app: Sphinx, doctree: nodes.document) -> None:
    """Give each figure of a notebook a description: the words that follow it.

    Args:
        app: the application.
        doctree: a page, changed in place.
    """
    parts = list(doctree.findall())
    for position, part in enumerate(parts):
        if isinstance(part, nodes.image) and not part.get("alt"):
            following = (other for other in parts[position:] if isinstance(other, nodes.paragraph))
            words = next((paragraph.astext() for paragraph in following), "a figure")
            part["alt"] = " ".join(words.split())[:ALT_LENGTH]


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put the script that draws formulas into the book.

    Args:
        app: the application.
        error: what stopped the build, if anything did.
    """
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if error is None and package is not None and package.origin is not None:
        target = Path(app.outdir) / "_static" / MATHJAX
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(package.origin).parent / "static" / MATHJAX, target)
