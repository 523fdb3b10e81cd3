"""The Grad-CAM browser as a reader moves it, in a real JupyterLab."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

SCREENSHOTS = Path(__file__).parents[2] / "build" / "browser"
pytestmark = pytest.mark.browser

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
torch.manual_seed(0)
models = {name: create_model("vit_tiny", 2, depth=1) for name in ("Base", "Tiny", "KD Tiny")}
for model in models.values(): torch.nn.init.normal_(model.head.weight, std=0.5)
browser = GradCAMBrowser(models, split, ["normal", "pneumonia"])
browser.slider.value = 1
"""


def sources(page, selector: str) -> list[str]:
    return page.eval_on_selector_all(selector, "all => all.map(image => image.src)")


@pytest.fixture
def jupyter(tmp_path):
    """The address of a JupyterLab of its own: nothing of the reader's settings is read or written."""
    cells = [nbformat.v4.new_code_cell(text) for text in (DRAW.strip(), "browser")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "b.ipynb")
    env = os.environ | {"HOME": str(tmp_path)}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += ["--IdentityProvider.token=test", f"--ServerApp.root_dir={tmp_path}", "--LabApp.news_url=None"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        said = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stderr)
        yield next(address.group() for address in said if address)
    finally:
        server.terminate()  # the server ends its kernels
        server.wait(timeout=30)


def test_jupyterlab_moves_filters_and_plays(jupyter, page):
    page.set_default_timeout(90_000)  # a busy machine needs half a minute to import torch
    page.goto(f"{jupyter}/lab/tree/b.ipynb?token=test&reset")
    page.get_by_text(re.compile(r"Python 3.* \| Idle")).wait_for()  # earlier, "run" would open a dialog
    page.locator(".lm-MenuBar-item", has_text="Run").click()
    page.locator("[data-command='runmenu:run-all']").click()
    page.locator("img.widget-image").first.wait_for()
    output = page.locator(".jp-OutputArea-output", has=page.locator("img.widget-image")).first

    first = sources(page, "img.widget-image")
    output.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    output.get_by_text("Image 2 of 40").wait_for()
    moved = "old => [...document.querySelectorAll('img.widget-image')].every((one, k) => one.src != old[k])"
    page.wait_for_function(moved, arg=first)
    height = output.bounding_box()["height"]
    output.get_by_label("map explains").select_option(label="pneumonia")
    output.get_by_text("map for pneumonia").nth(2).wait_for()
    output.get_by_label("scale").select_option(label="one for each map")
    output.screenshot(path=SCREENSHOTS / "jupyter.png")
    output.get_by_label("show").select_option(index=1)
    output.get_by_text("✗ wrong").first.wait_for()
    output.locator(".widget-play button").first.click()
    output.get_by_text(re.compile(r"Image 3 of \d\d,")).wait_for()
    assert output.bounding_box()["height"] == pytest.approx(height, abs=1), "the output jumps"
