"""A system Chromium for the tests of this folder; without it or Playwright they are skipped.

Screenshots go to build/browser/, to be looked at.
"""

import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "browser"
# What JupyterLab itself asks for and a bare test server does not have; nothing of ours may be on this list.
NOISE = ("favicon", "/api/me", "/lsp/status", "/api/contents/.jupyter", "workspaces", "Slow network")


@pytest.fixture
def page():
    """A page that fails the test if anything is written to its console as an error, or thrown."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("no Chromium (apt-get install chromium)")
    said = []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        page.on("console", lambda m: said.append(f"{m.type}: {m.text} {m.location.get('url', '')}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        yield page
    assert not [one for one in said if one.startswith("error") and not any(noise in one for noise in NOISE)]
