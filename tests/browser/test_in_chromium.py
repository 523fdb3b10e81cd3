"""The slider in a real JupyterLab, in a system Chromium; screenshots lie in build/browser/."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from watched import CHROMIUM, SCREENSHOTS, watched_page

from swys_utils.config import PROJECT_ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no system Chromium"),
]

# Three small untrained models, which disagree on images of noise.
DRAW = """\
import numpy as np
import torch
from swys_utils.browser import GradCAMBrowser
from swys_utils.data import Split
from swys_utils.models import create_model

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
labels = rng.integers(0, 2, 40)
torch.manual_seed(0)
models = {}
for name in ("Base", "Tiny", "Tiny, answers"):
    models[name] = create_model("vit_tiny", 2, depth=1)
for model in models.values():
    torch.nn.init.normal_(model.head.weight, std=0.5)
browser = GradCAMBrowser(models, Split(images, labels), ["normal", "pneumonia"])
browser.slider.value = 1
"""
LAB = [
    "jupyterlab",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--IdentityProvider.token=test",
]
CLASSIC = [
    "notebook",
    "--NotebookApp.token=test",
]


def write_notebook(path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in (DRAW, "browser")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)


@pytest.fixture(params=["lab", "classic"])
def jupyter(request, tmp_path, environment):
    """A notebook's address in a server of its own, away from the reader's settings."""
    write_notebook(tmp_path / "b.ipynb")
    if request.param == "lab":
        command = [sys.executable, "-m", *LAB]
        place = "lab/tree/b.ipynb"
    else:
        python = environment("notebook<7", "ipywidgets==7.7.1", "setuptools<81")
        command = [python, "-m", *CLASSIC]
        place = "notebooks/b.ipynb"
    command += ["--no-browser", "--allow-root", "--ip=127.0.0.1"]
    variables = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(PROJECT_ROOT)}
    server = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield f"{printed_address(server)}/{place}?token=test"
    finally:
        server.terminate()  # the server ends its kernels
        server.wait(timeout=30)


def printed_address(server: subprocess.Popen) -> str:
    for line in server.stderr:
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        if address:
            return address.group()
    raise RuntimeError("the server ended without an address")


@pytest.fixture
def output(chromium, jupyter):
    """The browser as the notebook shows it, at the first image."""
    with watched_page(chromium) as page:
        page.set_default_timeout(90_000)  # a busy machine needs half a minute to import torch
        page.goto(jupyter)
        if "/lab/" in page.url:
            # Before the kernel is there, "run" would open a dialog.
            page.get_by_text(re.compile(r"Python 3.* \| Idle")).wait_for()
            page.locator(".lm-MenuBar-item", has_text="Run").click()
            page.locator("[data-command='runmenu:run-all']").click()
        else:
            page.locator("#kernel_indicator_icon.kernel_idle_icon").wait_for()
            page.evaluate("Jupyter.notebook.execute_all_cells()")
        picture = page.locator("img.widget-image")
        picture.first.wait_for()
        yield page.locator(".jp-OutputArea-output, .output_subarea", has=picture).first


def test_the_slider_moves_filters_and_plays(output):
    """One story: each control does its work, and nothing on the page jumps."""
    page = output.page
    first = page.locator("img.widget-image").evaluate_all("all => all.map(image => image.src)")
    output.locator(".noUi-handle, .ui-slider-handle").first.focus()
    page.keyboard.press("ArrowRight")
    output.get_by_text("Image 2 of 40").wait_for()
    moved = """old => [...document.querySelectorAll('img.widget-image')]
        .every((image, k) => image.src != old[k])"""
    page.wait_for_function(moved, arg=first)
    height = output.bounding_box()["height"]

    output.get_by_label("map explains").select_option(label="pneumonia")
    output.get_by_text("map for pneumonia").nth(2).wait_for()

    second = page.locator("img.widget-image").nth(1).get_attribute("src")
    output.get_by_label("map", exact=True).select_option(label="LeGrad")
    changed = "old => document.querySelectorAll('img.widget-image')[1].src != old"
    page.wait_for_function(changed, arg=second)

    output.get_by_label("scale").select_option(label="one for each map")
    output.screenshot(path=SCREENSHOTS / f"{page.url.split('/')[3]}.png")

    output.get_by_label("show").select_option(index=1)
    output.get_by_text("✗ wrong").first.wait_for()

    output.locator(".widget-play button").first.click()
    output.get_by_text(re.compile(r"Image 3 of \d\d,")).wait_for()
    assert output.bounding_box()["height"] == pytest.approx(height, abs=1), "the output jumps"
