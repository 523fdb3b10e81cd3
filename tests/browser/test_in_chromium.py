"""The demo and the slider in a system Chromium, with screenshots in build/browser/ to be looked at."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image

from swys_utils.config import BUILD, PROJECT_ROOT
from swys_utils.onnx_export import predict_onnx

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SITE, SCREENSHOTS = BUILD / "site", BUILD / "browser"
# What JupyterLab itself asks for and a bare test server does not have; nothing of ours may be on this list.
NOISE = (
    "favicon",
    "/api/me",
    "/lsp/status",
    "/api/contents/.jupyter",
    "workspaces",
    "Slow network",
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no system Chromium"),
]
built = pytest.mark.skipif(
    not (SITE / "demo.html").is_file(), reason="make site builds the demo (needs npm)"
)
# Three small untrained models, which disagree on images of noise.
DRAW = """
import numpy as np
import torch
from swys_utils.browser import GradCAMBrowser
from swys_utils.data import Split
from swys_utils.models import create_model
rng = np.random.default_rng(0)
split = Split(rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), rng.integers(0, 2, 40))
torch.manual_seed(0)
models = {name: create_model("vit_tiny", 2, depth=1) for name in ("Base", "Tiny", "KD Tiny")}
for model in models.values(): torch.nn.init.normal_(model.head.weight, std=0.5)
browser = GradCAMBrowser(models, split, ["normal", "pneumonia"])
browser.slider.value = 1
"""


@pytest.fixture
def page():
    """A page that fails the test if anything is written to its console as an error, or thrown."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright (pip install playwright)"
    )
    said = []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        page.on("console", lambda m: said.append(f"{m.type}: {m.text} {m.location.get('url', '')}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        yield page
    assert not [
        one for one in said if one.startswith("error") and not any(noise in one for noise in NOISE)
    ]


def opened(page, address: str) -> list[str]:
    """Open the demo and wait for its models; returns a list that will hold every request to elsewhere."""
    strange, here = [], address.rsplit("/", 1)[0]
    page.on(
        "request", lambda r: r.url.startswith((here, "data:", "blob:")) or strange.append(r.url)
    )
    page.goto(address)
    page.wait_for_selector("body[data-ready=yes]", timeout=90_000)
    return strange


def pictures(page) -> list[str]:
    return page.eval_on_selector_all("#models canvas", "all => all.map(one => one.toDataURL())")


def drop(page, path) -> None:
    """What a browser does when a file is dropped on the page."""
    content = list(path.read_bytes())
    make = """([name, bytes]) => { const all = new DataTransfer();
        all.items.add(new File([new Uint8Array(bytes)], name)); return all; }"""
    page.dispatch_event(
        "#drop", "drop", {"dataTransfer": page.evaluate_handle(make, [path.name, content])}
    )


@built
def test_a_dropped_image_is_answered_as_by_the_model_and_nothing_leaves_the_page(page, tmp_path):
    host = "http://localhost/"
    page.route(
        f"{host}**", lambda route: route.fulfill(path=SITE / route.request.url.removeprefix(host))
    )
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    strange, before = opened(page, f"{host}demo/index.html"), pictures(page)
    drop(page, tmp_path / "noise.png")
    page.get_by_text("Shown: noise.png.").wait_for()
    assert len(before) == 4 and all(old != new for old, new in zip(before, pictures(page)))
    logits, _ = predict_onnx(SITE / "demo" / "assets" / "vit_tiny_maps.onnx", pixels[None])
    odds = np.exp(logits[0] - logits[0].max())
    said = page.locator("#models article").nth(1).locator(".answer").inner_text()
    assert said.startswith(("normal", "pneumonia")[logits[0].argmax()])
    assert float(said.split(",")[1].split("%")[0]) == pytest.approx(
        100 * odds.max() / odds.sum(), abs=0.3
    )
    page.screenshot(path=SCREENSHOTS / "demo.png", full_page=True)
    (tmp_path / "x.txt").write_text("no picture")
    before = pictures(page)
    drop(page, tmp_path / "x.txt")
    page.get_by_text("x.txt is not an image").wait_for()
    assert pictures(page) == before and strange == []
    whole = (tmp_path / "noise.png").read_bytes()
    for at in range(0, len(whole), 10):  # a damaged file is shown, or refused with a sentence
        (tmp_path / f"{at}.png").write_bytes(
            whole[:at] + b"?" + whole[at + 1 : len(whole) - at % 3]
        )
        drop(page, tmp_path / f"{at}.png")
        page.get_by_text(re.compile(rf"Shown: {at}\.png\.|{at}\.png is not an image")).wait_for()


@built
def test_one_file_works_from_disk_by_keyboard_and_on_a_small_screen(page):
    page.context.set_offline(True)
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 375, "height": 800})
    opened(page, (SITE / "demo.html").as_uri())
    assert (SITE / "demo.html").stat().st_size < 15e6
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    before = pictures(page)
    page.get_by_role("button", name="a drawn blood cell, no X-ray").focus()
    page.keyboard.press("Enter")
    page.get_by_text("Shown: a drawn blood cell, no X-ray.").wait_for()
    assert all(old != new for old, new in zip(before, pictures(page)))
    before = pictures(page)
    page.get_by_label("explain").select_option(label="normal")
    moved = "old => document.querySelectorAll('#models canvas')[1].toDataURL() != old"
    page.wait_for_function(moved, arg=before[1])
    page.get_by_label("opacity of the map").focus()
    page.keyboard.press("Home")
    assert (
        page.get_by_role("img", name="Grad-CAM of Student of maps, 49 tokens for normal").count()
        == 1
    )
    page.screenshot(path=SCREENSHOTS / "demo_narrow_dark.png", full_page=True)


@pytest.fixture(params=["lab", "classic"])
def jupyter(request, tmp_path, environment):
    """A notebook's address in a server of its own: none of the reader's settings is read or written."""
    cells = [nbformat.v4.new_code_cell(text) for text in (DRAW.strip(), "browser")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "b.ipynb")
    env = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(PROJECT_ROOT)}
    if request.param == "lab":
        server, place = (
            [sys.executable, "-m", "jupyterlab", "--LabApp.news_url=None"],
            "lab/tree/b.ipynb",
        )
        server += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        server += ["--IdentityProvider.token=test"]
    else:
        python = environment("notebook<7", "ipywidgets==7.7.1", "setuptools<81")
        server, place = [python, "-m", "notebook", "--NotebookApp.token=test"], "notebooks/b.ipynb"
    server += ["--no-browser", "--allow-root", "--ip=127.0.0.1"]
    running = subprocess.Popen(server, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    try:
        said = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in running.stderr)
        yield f"{next(address.group() for address in said if address)}/{place}?token=test"
    finally:
        running.terminate()  # the server ends its kernels
        running.wait(timeout=30)


def test_the_slider_moves_filters_and_plays(jupyter, page):
    page.set_default_timeout(90_000)  # a busy machine needs half a minute to import torch
    page.goto(jupyter)
    if "/lab/" in page.url:
        page.get_by_text(
            re.compile(r"Python 3.* \| Idle")
        ).wait_for()  # earlier, "run" would open a dialog
        page.locator(".lm-MenuBar-item", has_text="Run").click()
        page.locator("[data-command='runmenu:run-all']").click()
    else:
        page.locator("#kernel_indicator_icon.kernel_idle_icon").wait_for()
        page.evaluate("Jupyter.notebook.execute_all_cells()")
    picture = page.locator("img.widget-image")
    picture.first.wait_for()
    output = page.locator(".jp-OutputArea-output, .output_subarea", has=picture).first
    first = picture.evaluate_all("all => all.map(image => image.src)")
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
