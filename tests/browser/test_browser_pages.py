"""The browser as a reader moves it, in a system Chromium: in a real JupyterLab, and as the saved web page.

Screenshots go to build/browser/, to be looked at. Without Chromium or Playwright these tests are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright (pip install playwright)")

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "browser"
# What JupyterLab itself asks for and a bare test server does not have; nothing of ours may be on this list.
NOISE = ("favicon", "/api/me", "/lsp/status", "/api/contents/.jupyter", "workspaces", "Slow network")

# Three small untrained models on drawn images with a bright spot: enough to disagree, and to have maps.
DRAW = """
import numpy as np
import torch
from swys_utils.browser import GradCAMBrowser
from swys_utils.data import Split
from swys_utils.models import create_model

rng, (y, x) = np.random.default_rng(0), np.mgrid[:28, :28]
spots = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / 30) for a, b in rng.uniform(6, 22, (40, 2))]
split = Split((60 + 190 * np.stack(spots)).astype(np.uint8), rng.integers(0, 2, 40))
models = {}
for seed, name in enumerate(("Base", "Tiny", "KD Tiny")):
    torch.manual_seed(seed)
    models[name] = create_model("vit_tiny", 2, depth=1)
    torch.nn.init.normal_(models[name].head.weight, std=0.5)
browser = GradCAMBrowser(models, split, ["normal", "pneumonia"], start=0)
"""


@pytest.fixture
def page():
    """A page that fails the test if anything is written to its console as an error, or thrown."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    errors = []

    def console(message):
        said = f"{message.type}: {message.text} {message.location.get('url', '')}"
        errors.extend([said] if said.startswith("error") and not any(n in said for n in NOISE) else [])

    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        page.on("console", console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        chromium.close()
    assert errors == []


def sources(page, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "all => all.map(image => image.src)")


def test_saved_page_moves_and_filters_without_a_network(page, tmp_path):
    exec(DRAW, names := {})  # the same lines that the notebook runs
    path = names["browser"].save(tmp_path / "page.html", "Where do Base, Tiny and KD Tiny look?")
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert page.locator("#columns section").count() == 4
    first = sources(page, "#columns img")
    page.keyboard.press("ArrowRight")
    assert "Image 2 of 40" in page.locator("#status").inner_text()
    assert all(old != new for old, new in zip(first, sources(page, "#columns img")))
    page.get_by_role("button", name="previous").click()
    assert sources(page, "#columns img") == first
    page.locator("#place").focus()
    page.keyboard.press("ArrowRight")
    assert "Image 2 of 40" in page.locator("#status").inner_text()  # one move, not two
    before = sources(page, "#columns img")
    page.locator("#scale").select_option("image")
    assert sources(page, "#columns img")[:2] == before[:2] and sources(page, "#columns img") != before
    page.locator("#filter").select_option("wrong")
    assert "✗ wrong" in page.locator("#columns").inner_text()
    page.screenshot(path=SCREENSHOTS / "page.png")
    page.set_viewport_size({"width": 420, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    page.screenshot(path=SCREENSHOTS / "page_narrow.png")
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def jupyter(tmp_path):
    """The address of a JupyterLab of its own: nothing of the reader's settings is read or written."""
    cells = [nbformat.v4.new_code_cell(text) for text in (DRAW.strip(), "browser")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "b.ipynb"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    env = os.environ | {name: str(tmp_path / name.lower()) for name in folders} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--IdentityProvider.token=test", f"--ServerApp.root_dir={tmp_path}"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 90
        while not answers(f"{address}/api/status?token=test") and time.monotonic() < end:
            time.sleep(0.3)
        yield address
    finally:
        server.terminate()  # the server ends its kernels
        server.wait(timeout=30)


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:  # URLError is one
        return False


def test_jupyterlab_moves_filters_and_plays(jupyter, page):
    page.set_default_timeout(90_000)  # a busy machine needs half a minute to import torch
    page.goto(f"{jupyter}/lab/tree/b.ipynb?token=test&reset")
    page.get_by_text(re.compile(r"Python 3.* \| Idle")).wait_for()  # earlier, "run" would open a dialog
    page.locator(".lm-MenuBar-item", has_text="Run").click()
    page.locator("[data-command='runmenu:run-all']").click()
    page.locator("img.widget-image").first.wait_for()
    output = page.locator(".jp-OutputArea-output", has=page.locator("img.widget-image")).first

    first = sources(page, "img.widget-image")
    assert len(first) == 4
    output.locator(".noUi-handle").first.focus()
    for place in (2, 3):
        page.keyboard.press("ArrowRight")
        output.get_by_text(f"Image {place} of 40").wait_for()
    assert all(old != new for old, new in zip(first, sources(page, "img.widget-image")))
    height = round(output.bounding_box()["height"])
    page.get_by_role("button", name="previous").click()
    output.get_by_text("Image 2 of 40").wait_for()
    output.get_by_label("map explains").select_option(label="pneumonia")
    output.get_by_text("map for pneumonia").nth(2).wait_for()
    output.get_by_label("scale").select_option(label="one for each map")
    output.get_by_text("cannot be compared").wait_for()
    output.screenshot(path=SCREENSHOTS / "jupyter.png")
    output.get_by_label("show").select_option(index=1)
    output.get_by_text("✗ wrong").first.wait_for()
    output.locator(".widget-play button").first.click()
    output.get_by_text(re.compile(r"Image 3 of \d\d,")).wait_for()
    assert round(output.bounding_box()["height"]) == height, "the output jumps while it is moved"
