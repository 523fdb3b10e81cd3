"""The demo and the slider in a system Chromium; screenshots to look at lie in build/browser/."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from swys_utils.config import BUILD, PROJECT_ROOT
from swys_utils.models import SERIES
from swys_utils.onnx_export import predict_onnx

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SITE = BUILD / "site"
SCREENSHOTS = BUILD / "browser"
HOST = "http://localhost/"
# What JupyterLab itself asks for and a bare test server lacks; nothing of ours may be on this list.
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


@pytest.fixture(scope="module")
def chromium():
    reason = "no Playwright (pip install playwright)"
    sync_api = pytest.importorskip("playwright.sync_api", reason=reason)
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@contextmanager
def watched_page(chromium) -> Iterator:
    """A page; at its end no error may have been thrown or written to its console."""
    errors = []

    def keep_message(message):
        if message.type == "error":
            errors.append(f"{message.text} {message.location.get('url', '')}")

    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    page.on("console", keep_message)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    ours = [error for error in errors if not any(noise in error for noise in NOISE)]
    assert ours == []


# --- the demo ---


class Demo:
    """The demo in a page, once its models are loaded."""

    def __init__(self, page, address: str):
        self.page = page
        self.requests: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]", timeout=90_000)

    def pictures(self) -> list[str]:
        """The input, then the image under each model's map."""
        script = "all => all.map(canvas => canvas.toDataURL())"
        return self.page.eval_on_selector_all("#models canvas", script)

    def drop(self, path: Path) -> None:
        """What a browser does when a file is dropped on the page."""
        script = """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }"""
        content = list(path.read_bytes())
        transfer = self.page.evaluate_handle(script, [path.name, content])
        self.page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})

    def wait_for(self, text: str | re.Pattern) -> None:
        self.page.get_by_text(text).wait_for()


@pytest.fixture(scope="module")
def demo_files():
    if not (SITE / "demo.html").is_file():
        pytest.skip("make site builds the demo (needs npm)")


@pytest.fixture(scope="module")
def demo(chromium, demo_files):
    """The demo as a server would give it."""

    def answer(route):
        route.fulfill(path=SITE / route.request.url.removeprefix(HOST))

    with watched_page(chromium) as page:
        page.route(f"{HOST}**", answer)
        yield Demo(page, f"{HOST}demo/index.html")


@pytest.fixture
def noise(tmp_path) -> Path:
    """An image of 28 x 28 pixels, as the models take it."""
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    return path


def test_the_demo_has_a_card_for_each_model(demo):
    headings = demo.page.locator("#models h3").all_inner_texts()
    assert headings[1:] == [
        SERIES["vit_tiny_maps"].title,
        SERIES["vit_tiny_answers_p7"].title,
        SERIES["vit_tiny_patch16_224_kd"].title,
    ]


def test_a_dropped_image_changes_every_picture(demo, noise):
    before = demo.pictures()
    demo.drop(noise)
    demo.wait_for("Shown: noise.png.")
    assert not set(before) & set(demo.pictures())
    demo.page.screenshot(path=SCREENSHOTS / "demo.png", full_page=True)


def test_a_dropped_image_is_answered_as_by_the_model(demo, noise):
    demo.drop(noise)
    demo.wait_for("Shown: noise.png.")
    pixels = np.asarray(Image.open(noise))
    logits, _ = predict_onnx(SITE / "demo" / "assets" / "vit_tiny_maps.onnx", pixels[None])
    odds = np.exp(logits[0] - logits[0].max())
    percent = 100 * odds.max() / odds.sum()
    answer = demo.page.locator("#models article").nth(1).locator(".answer").inner_text()
    name, shown = re.match(r"(\w+), ([\d.]+) %", answer).groups()
    assert name == ("normal", "pneumonia")[logits[0].argmax()]
    assert float(shown) == pytest.approx(percent, abs=0.3)


def test_maps_are_compared_with_the_first_model(demo):
    texts = demo.page.locator("#models .alike").all_inner_texts()
    title = SERIES["vit_tiny_maps"].title
    assert texts[0] == ""
    assert texts[1].startswith(f"map agreement with {title}: ")


def test_a_file_that_is_no_image_changes_nothing(demo, tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("no picture")
    before = demo.pictures()
    demo.drop(path)
    demo.wait_for("x.txt is not an image")
    assert demo.pictures() == before


def test_a_damaged_image_is_shown_or_refused_with_a_sentence(demo, noise):
    content = noise.read_bytes()
    for at in range(0, len(content), 10):
        damaged = content[:at] + b"?" + content[at + 1 :]
        path = noise.with_name(f"{at}.png")
        path.write_bytes(damaged[: len(content) - at % 3])
        demo.drop(path)
        demo.wait_for(re.compile(rf"Shown: {at}\.png\.|{at}\.png is not an image"))


def test_nothing_comes_from_elsewhere(demo):
    own = (HOST, "data:", "blob:")
    assert [url for url in demo.requests if not url.startswith(own)] == []


@pytest.fixture(scope="module")
def small_demo(chromium, demo_files):
    """The demo in one file, from disk, on a small dark screen without a network."""
    with watched_page(chromium) as page:
        page.context.set_offline(True)
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 375, "height": 800})
        demo = Demo(page, (SITE / "demo.html").as_uri())
        yield demo
        page.screenshot(path=SCREENSHOTS / "demo_narrow_dark.png", full_page=True)


def test_one_file_is_not_too_large_to_send(small_demo):
    assert (SITE / "demo.html").stat().st_size < 15e6


def test_one_file_fits_a_small_screen(small_demo):
    width = small_demo.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 375


def test_a_sample_is_chosen_by_keyboard(small_demo):
    before = small_demo.pictures()
    small_demo.page.get_by_role("button", name="a drawn blood cell, no X-ray").focus()
    small_demo.page.keyboard.press("Enter")
    small_demo.wait_for("Shown: a drawn blood cell, no X-ray.")
    assert not set(before) & set(small_demo.pictures())


def test_another_class_is_explained_by_another_map(small_demo):
    page = small_demo.page
    page.get_by_label("explain").select_option(label="normal")
    described = page.get_by_role("img", name="Grad-CAM of Tiny, answers + maps for normal")
    described.wait_for()
    normal = small_demo.pictures()[1]
    page.get_by_label("explain").select_option(label="pneumonia")
    moved = "old => document.querySelectorAll('#models canvas')[1].toDataURL() != old"
    page.wait_for_function(moved, arg=normal)


def test_a_map_without_opacity_leaves_the_image(small_demo):
    small_demo.page.get_by_label("opacity of the map").focus()
    small_demo.page.keyboard.press("Home")
    image, *pictures = small_demo.pictures()
    assert pictures == [image]


# --- the slider ---

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
