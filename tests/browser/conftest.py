"""Shared by the tests in a system Chromium: the browser, and a checker of accessibility."""

import shutil
import subprocess
import tarfile

import pytest
from watched import CHROMIUM

AXE = "axe-core@4.14.1"


@pytest.fixture(scope="module")
def chromium():
    reason = "no Playwright (pip install playwright)"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The script that looks for what a reader with a screen reader stumbles over."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("axe-core comes from the npm registry")
    folder = tmp_path_factory.mktemp("axe")
    packed = subprocess.run([npm, "pack", "-s", AXE], cwd=folder, capture_output=True, text=True)
    if packed.returncode:
        pytest.skip("npm does not reach its registry")
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()
