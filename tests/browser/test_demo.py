"""The demo in Chromium, from a static server and as one file from disk."""

from __future__ import annotations

import functools
import http.server
import threading

import numpy as np
import pytest
from conftest import SCREENSHOTS
from PIL import Image

from swys_studies.export import predict_onnx
from swys_utils.config import BUILD

SITE = BUILD / "site"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (SITE / "demo.html").is_file(), reason="make site builds the demo (needs npm)"),
]


@pytest.fixture(scope="module")
def served():
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/demo/"
        server.shutdown()


def opened(page, address: str) -> list[str]:
    """Open the demo and wait for its models; returns a list that will hold every request to elsewhere."""
    strange, here = [], address.rsplit("/", 1)[0]
    page.on("request", lambda r: r.url.startswith((here, "data:", "blob:")) or strange.append(r.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready=yes]", timeout=90_000)
    return strange


def pictures(page) -> list[str]:
    return page.eval_on_selector_all("#models canvas", "all => all.map(one => one.toDataURL())")


def drop(page, path) -> None:
    """What a browser does when a file is dropped on the page."""
    content = list(path.read_bytes())
    make = """([name, bytes]) => {
        const all = new DataTransfer();
        all.items.add(new File([new Uint8Array(bytes)], name));
        return all;
    }"""
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(make, [path.name, content])})


def test_a_dropped_image_is_answered_as_by_the_model_and_nothing_leaves_the_page(page, served, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    strange, before = opened(page, served), pictures(page)
    assert len(before) == 4
    drop(page, tmp_path / "noise.png")
    page.get_by_text("Shown: noise.png.").wait_for()
    assert all(old != new for old, new in zip(before, pictures(page)))
    logits, _ = predict_onnx(SITE / "demo" / "assets" / "vit_tiny_maps.onnx", pixels[None])
    odds = np.exp(logits[0] - logits[0].max())
    said = page.locator("#models article").nth(1).locator(".answer").inner_text()
    assert said.startswith(("normal", "pneumonia")[logits[0].argmax()])
    assert float(said.split(",")[1].split("%")[0]) == pytest.approx(100 * odds.max() / odds.sum(), abs=0.3)
    page.screenshot(path=SCREENSHOTS / "demo.png", full_page=True)
    (tmp_path / "x.txt").write_text("no picture")
    before = pictures(page)
    drop(page, tmp_path / "x.txt")
    page.get_by_text("x.txt is not an image").wait_for()
    assert pictures(page) == before and strange == []


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
    page.wait_for_function(
        "old => document.querySelectorAll('#models canvas')[1].toDataURL() != old", arg=before[1]
    )
    page.get_by_label("opacity of the map").focus()
    page.keyboard.press("Home")
    assert page.get_by_role("img", name="Grad-CAM of Student, 49 tokens for normal").count() == 1
    page.screenshot(path=SCREENSHOTS / "demo_narrow_dark.png", full_page=True)
