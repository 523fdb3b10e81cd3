"""The browser as a reader moves it: in a real JupyterLab, and as the self-contained page, in a system Chromium.

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
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright (pip install 'swys-utils[browser]')")

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "browser"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
# What JupyterLab itself asks for and a bare test server does not have; nothing of ours may be on this list.
NOISE = ("favicon", "/api/me", "/lsp/status", "/api/contents/.jupyter", "workspaces", "Slow network")
THEME = '{"theme": "JupyterLab %s"}'  # Light or Dark

# Drawn chests: class 1 has a bright patch. Base and Tiny look at it, KD Tiny beside it; some maps are empty.
DRAW = """
import numpy as np
from swys_utils.browser import GradCAMBrowser

rng = np.random.default_rng(0)
n, rows, columns = 40, *np.mgrid[0:28, 0:28] / 27
labels = rng.integers(0, 2, n)
lungs = 1 - 0.6 * sum(np.exp(-((columns - x) / 0.16) ** 2 - ((rows - 0.5) / 0.35) ** 2) for x in (0.27, 0.73))
spots = np.stack([np.where(rng.random(n) < 0.5, 0.27, 0.73), rng.uniform(0.3, 0.7, n)], axis=1)


def bump(x, y, side, width):
    v, u = np.mgrid[0:side, 0:side] / (side - 1)
    return np.exp(-(((u - x) ** 2 + (v - y) ** 2) / width**2))


patches = np.stack([bump(x, y, 28, 0.14) for x, y in spots]) * labels[:, None, None]
images = (255 * (0.75 * lungs + 0.3 * patches + rng.normal(0, 0.02, (n, 28, 28)))).clip(0, 255).astype(np.uint8)
models = {}
for name, shift, slip in (("Base", 0, 3), ("Tiny", 0.1, 5), ("KD Tiny", 0.45, 2)):
    right = np.ones(n, bool)
    right[rng.permutation(n)[:slip]] = False
    confidence = np.where(right, rng.uniform(0.7, 0.99, n), rng.uniform(0.5, 0.7, n))
    one = np.where(np.where(right, labels, 1 - labels) == 1, confidence, 1 - confidence)
    maps = np.stack([bump((x + shift) % 1, y, 14, 0.25) for x, y in spots]) * rng.uniform(0.1, 1, (n, 1, 1)) * 1e-3
    maps = np.stack([maps[:, ::-1] * 0.6, maps + rng.uniform(0, 1e-4, maps.shape)], axis=1).astype(np.float32)
    maps[::9] = 0
    models[name] = {"probabilities": np.stack([1 - one, one], axis=1), "heatmaps": maps}
browser = GradCAMBrowser(images, labels, ["normal", "pneumonia"], models, index=range(100, 100 + n))
"""


@pytest.fixture(scope="module")
def chromium():
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


class Watched:
    """A page whose console errors, script errors and requests are kept."""

    def __init__(self, chromium, block_network=False, **kwargs):
        self.context = chromium.new_context(offline=block_network, **kwargs)
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _console(self, message):
        said = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(noise in said for noise in NOISE):
            self.errors.append(said)


@pytest.fixture
def watch(chromium):
    opened = []

    def open_page(**kwargs):
        opened.append(Watched(chromium, **kwargs))
        return opened[-1]

    yield open_page
    for watched in opened:
        watched.context.close()


# ---- the self-contained page


@pytest.fixture(scope="module")
def html_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "browser.html"
    names: dict = {}
    exec(DRAW, names)  # the same lines that the notebook runs
    names["browser"].to_html(path, title="Where do Base, Tiny and KD Tiny look?")
    return path


def canvases(page) -> list[str]:
    return page.eval_on_selector_all("#columns canvas", "all => all.map(canvas => canvas.toDataURL())")


def test_page_moves_filters_and_toggles_without_a_network(watch, html_page):
    watched = watch(block_network=True, viewport={"width": 1100, "height": 800})
    page = watched.page
    page.goto(html_page.as_uri())
    assert page.locator("#columns section").count() == 4
    seen = [canvases(page)]
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowLeft", "Home"):
        page.keyboard.press(key)
        seen.append(canvases(page))
        assert all(a != b for a, b in zip(seen[-2][:1], seen[-1][:1])), key
    assert seen[-1] == seen[0]
    page.locator("#position").focus()  # the slider has its own arrow keys: one move, not two
    page.keyboard.press("ArrowRight")
    assert "Image 2 of 40" in page.locator("#status").inner_text()

    before = canvases(page)
    page.locator("#scale").select_option("image")
    after = canvases(page)
    assert after[0] == before[0] and after[1:] != before[1:]
    page.locator("#target").select_option("1")
    for control, value in (("#target", "0"), ("#cmap", "viridis"), ("#target", "1")):
        before = canvases(page)
        page.locator(control).select_option(value)
        assert canvases(page)[0] == before[0] and canvases(page) != before, control

    page.locator("#who").select_option("Tiny wrong")
    assert "of 5" in page.locator("#status").inner_text()
    assert "✗ wrong" in page.locator("#columns section").nth(2).inner_text()
    page.locator("#sort").select_option("confidence of Tiny")
    shown = []
    for _ in range(5):
        label = page.locator("#columns canvas").nth(2).get_attribute("aria-label")
        shown.append(float(label.split("%")[0].split()[-1]))
        page.get_by_role("button", name="next").click(force=True)
    assert shown == sorted(shown) and len(set(shown)) == 5

    page.locator("#who").select_option("all")
    page.locator("#limit").fill("-1")
    assert "No image fits" in page.locator("#status").inner_text()
    page.locator("#limit").fill("1")
    page.get_by_role("button", name="play").click()
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Image 3 ')")
    page.get_by_role("button", name="pause").click()
    page.locator("#sort").select_option("index")
    page.keyboard.press("Home")
    page.locator("h1").click()
    page.keyboard.press("Home")
    assert "empty map (ReLU left nothing)" in page.locator("#columns").inner_text()
    assert watched.errors == []
    assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 420])
def test_page_is_readable_in_both_themes_and_on_a_phone(watch, html_page, theme, width):
    watched = watch(color_scheme=theme, viewport={"width": width, "height": 800})
    page = watched.page
    page.goto(html_page.as_uri())
    page.keyboard.press("ArrowRight")
    heights = set()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
        heights.add(page.locator("main").bounding_box()["height"])
    assert len(heights) == 1, "the page jumps while it is moved"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ratio = page.evaluate(CONTRAST)
    assert ratio >= 4.5, f"contrast {ratio:.1f}"
    page.screenshot(path=SCREENSHOTS / f"page_{theme}_{width}.png", full_page=True)
    assert watched.errors == []


# The lowest WCAG contrast of a text with the page behind it.
CONTRAST = """() => {
  const light = colour => {
    const part = colour.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const back = light(getComputedStyle(document.body).backgroundColor);
  const texts = [...document.querySelectorAll("h1, h2, label, .facts div, .hint, #status, #top")];
  return Math.min(...texts.map(node => light(getComputedStyle(node).color))
    .map(text => (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05)));
}"""


# ---- JupyterLab


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """A JupyterLab of its own: nothing of the reader's settings is read or written. Yields (address, settings)."""
    home = tmp_path_factory.mktemp("jupyter")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(DRAW.strip()), nbformat.v4.new_code_cell("browser")],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / "browser.ipynb")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "themes.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.with_name("notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {name: str(home / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    env = (
        os.environ
        | folders
        | {
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "IPYTHONDIR": str(home / "ipython"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
    )
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=test"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = home / "server.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={home / 'work'}"], env=env, stdout=stream, stderr=stream
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/status?token=test", server, log)
        yield address, settings
    finally:
        server.terminate()  # the server ends its kernels
        server.wait(timeout=30)


def wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 90):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def open_and_run(watched, address):
    page = watched.page
    page.set_default_timeout(90_000)  # a busy machine needs half a minute to import torch
    page.goto(f"{address}/lab/tree/browser.ipynb?token=test&reset")
    page.locator(".jp-Notebook").wait_for()
    page.get_by_text(re.compile(r"Python 3.* \| Idle")).wait_for()  # "run" before the kernel answers opens a dialog
    page.locator(".lm-MenuBar-item", has_text="Run").click()
    page.locator("[data-command='runmenu:run-all']").click()
    page.locator(".jp-OutputArea img.widget-image").first.wait_for()
    return page


def shown(page) -> list[str]:
    """The pixels of each picture in the notebook."""
    return page.evaluate(
        """async () => Promise.all([...document.querySelectorAll("img.widget-image")].map(async image => {
             for (let tries = 50; tries > 0; tries--) {  // decoding fails while the picture is being replaced
               try { await image.decode(); break; } catch { await new Promise(done => setTimeout(done, 40)); }
             }
             const canvas = document.createElement("canvas");
             [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
             canvas.getContext("2d").drawImage(image, 0, 0);
             return canvas.toDataURL();
           }))"""
    )


def wait_for_change(page, before: list[str], which=range(4)) -> list[str]:
    """Wait until these pictures differ from `before`; the kernel has to answer first."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        now = shown(page)
        if all(now[k] != before[k] for k in which):
            return now
        page.wait_for_timeout(50)
    raise AssertionError(f"pictures {list(which)} did not change")


def output(page):
    return page.locator(".jp-OutputArea-output", has=page.locator("img.widget-image")).first


def test_jupyterlab_moves_filters_and_toggles(watch, jupyter):
    watched = watch(viewport={"width": 1400, "height": 1000})
    page = open_and_run(watched, jupyter[0])
    first = shown(page)
    assert len(first) == 4
    page.locator(".widget-hslider", has_text="image").locator(".noUi-handle").focus()
    images = first
    for place in (2, 3, 4):
        page.keyboard.press("ArrowRight")
        images = wait_for_change(page, images, which=[0])
        assert f"Image {place} of 40" in output(page).inner_text()
    page.get_by_role("button", name="next").click()
    images = wait_for_change(page, images, which=[0])
    page.get_by_role("button", name="previous").click()
    images = wait_for_change(page, images, which=[0])

    def choose(label, option):
        output(page).get_by_label(label, exact=True).select_option(label=option)

    choose("scale", "each map its own")
    changed = wait_for_change(page, images, which=[1])
    assert changed[0] == images[0]
    choose("map explains", "class normal")
    output(page).get_by_text("map for normal").first.wait_for()
    changed = shown(page)
    choose("map explains", "class pneumonia")
    wait_for_change(page, changed, which=[1])
    choose("who is wrong", "Tiny wrong (5)")
    page.get_by_text("of 5 ").wait_for()
    assert "✗ wrong" in output(page).inner_text()
    images = shown(page)
    page.locator(".widget-play button").first.click()
    wait_for_change(page, images, which=[0])
    page.get_by_text("Image 5 of 5 ").wait_for()
    choose("who is wrong", "KD Tiny wrong (2)")
    page.get_by_text("of 2 ").wait_for()
    choose("true class", next(o for o in options(page, "true class") if o.startswith("pneumonia")))
    page.wait_for_timeout(500)
    choose("who is wrong", "everyone wrong (0)")
    page.get_by_text("No image fits these filters").wait_for()
    choose("who is wrong", "all (40)")
    page.get_by_text("Image 1 of ").wait_for()
    page.locator("img.widget-image[title*='map for']").nth(2).wait_for()
    titles = page.locator("img.widget-image").evaluate_all("all => all.map(image => image.title || image.alt)")
    assert "true class" in titles[0] and all("map for" in title for title in titles[1:])
    assert watched.errors == []


def options(page, label) -> list[str]:
    return output(page).get_by_label(label, exact=True).locator("option").all_inner_texts()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_jupyterlab_is_readable_and_does_not_jump(watch, jupyter, theme):
    address, settings = jupyter
    settings.write_text(THEME % theme)
    watched = watch(viewport={"width": 1400, "height": 1000})
    page = open_and_run(watched, address)
    page.keyboard.press("Control+b")  # the file list would take half of a narrow screen
    box, images = output(page), shown(page)
    for width in (1400, 420):
        page.set_viewport_size({"width": width, "height": 1400})
        heights = set()
        for _ in range(4):
            page.get_by_role("button", name="next").click()
            images = wait_for_change(page, images, which=[0])
            heights.add(round(box.bounding_box()["height"]))
        assert len(heights) == 1, f"the output jumps while it is moved: {heights}"
        page.wait_for_timeout(300)
        box.screenshot(path=SCREENSHOTS / f"jupyter_{theme.lower()}_{width}.png")
    assert watched.errors == []
