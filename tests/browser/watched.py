"""What the tests in a system Chromium have in common, besides fixtures."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from swys_utils.config import BUILD

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
SITE = BUILD / "site"
SCREENSHOTS = BUILD / "browser"  # to look at
# By axe-core: what a reader with a screen reader stumbles over.
VIOLATIONS = """axe.run(document, {iframes: false}).then(
    found => found.violations.map(one => one.id + ': ' + one.nodes[0].html.slice(0, 200)))"""
# What JupyterLab itself asks for and a bare test server lacks; nothing of ours may be on this list.
NOISE = (
    "favicon",
    "/api/me",
    "/lsp/status",
    "/api/contents/.jupyter",
    "workspaces",
    "Slow network",
)


@contextmanager
def watched_page(chromium, **options) -> Iterator:
    """A page; at its end no error may have been thrown or written to its console.

    Args:
        chromium: the browser.
        **options: of Playwright's ``new_page``.
    """
    errors = []

    def keep_message(message):
        if message.type == "error":
            errors.append(f"{message.text} {message.location.get('url', '')}")

    options = {"viewport": {"width": 1400, "height": 1000}} | options
    page = chromium.new_page(**options)
    page.on("console", keep_message)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    ours = [error for error in errors if not any(noise in error for noise in NOISE)]
    assert ours == []
