"""The Grad-CAM browser as a reader moves it, in JupyterLab and in the front end of ipywidgets 7."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
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


@pytest.fixture(params=["lab", "classic"])
def jupyter(request, tmp_path):
    """A notebook's address in a server of its own: none of the reader's settings is read or written."""
    cells = [nbformat.v4.new_code_cell(text) for text in (DRAW.strip(), "browser")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "b.ipynb")
    env = os.environ | {"HOME": str(tmp_path)}
    if request.param == "lab":
        server, place = [sys.executable, "-m", "jupyterlab", "--LabApp.news_url=None"], "lab/tree/b.ipynb"
        server += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        server += ["--IdentityProvider.token=test", f"--ServerApp.root_dir={tmp_path}"]
    else:
        server, place = [classic(tmp_path / "env"), "-m", "notebook"], "notebooks/b.ipynb"
        server += ["--NotebookApp.token=test", f"--notebook-dir={tmp_path}"]
    server += ["--no-browser", "--allow-root", "--ip=127.0.0.1"]
    running = subprocess.Popen(server, env=env, stderr=subprocess.PIPE, text=True)
    try:
        said = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in running.stderr)
        yield f"{next(address.group() for address in said if address)}/{place}?token=test"
    finally:
        running.terminate()  # the server ends its kernels
        running.wait(timeout=30)


def classic(folder: Path) -> Path:
    """The Python of a new environment: Notebook 6 and ipywidgets 7.7.1, the rest from the present one."""
    venv.create(folder, with_pip=False)
    (python,) = folder.glob("bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    if subprocess.run([*pip, "notebook<7", "ipywidgets==7.7.1", "setuptools<81"]).returncode:
        pytest.skip("no package index to take Notebook 6 from")
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n{Path(__file__).parents[2]}")
    return python


def run_all(page) -> None:
    if "/lab/" in page.url:
        page.get_by_text(re.compile(r"Python 3.* \| Idle")).wait_for()  # earlier, "run" would open a dialog
        page.locator(".lm-MenuBar-item", has_text="Run").click()
        page.locator("[data-command='runmenu:run-all']").click()
    else:
        page.locator("#kernel_indicator_icon.kernel_idle_icon").wait_for()
        page.evaluate("Jupyter.notebook.execute_all_cells()")


def test_the_slider_moves_filters_and_plays(jupyter, page):
    page.set_default_timeout(90_000)  # a busy machine needs half a minute to import torch
    page.goto(jupyter)
    run_all(page)
    page.locator("img.widget-image").first.wait_for()
    area = page.locator(".jp-OutputArea-output, .output_subarea", has=page.locator("img.widget-image"))
    output = area.first

    first = sources(page, "img.widget-image")
    output.locator(".noUi-handle, .ui-slider-handle").first.focus()
    page.keyboard.press("ArrowRight")
    output.get_by_text("Image 2 of 40").wait_for()
    moved = "old => [...document.querySelectorAll('img.widget-image')].every((one, k) => one.src != old[k])"
    page.wait_for_function(moved, arg=first)
    height = output.bounding_box()["height"]
    output.get_by_label("map explains").select_option(label="pneumonia")
    output.get_by_text("map for pneumonia").nth(2).wait_for()
    output.get_by_label("scale").select_option(label="one for each map")
    output.screenshot(path=SCREENSHOTS / f"{page.url.split('/')[3]}.png")
    output.get_by_label("show").select_option(index=1)
    output.get_by_text("✗ wrong").first.wait_for()
    output.locator(".widget-play button").first.click()
    output.get_by_text(re.compile(r"Image 3 of \d\d,")).wait_for()
    assert output.bounding_box()["height"] == pytest.approx(height, abs=1), "the output jumps"
