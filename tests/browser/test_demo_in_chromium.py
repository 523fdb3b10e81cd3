"""The demo in a system Chromium; screenshots to look at lie in build/browser/."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_page import Demo, shown_models
from PIL import Image
from watched import CHROMIUM, SCREENSHOTS, SITE, VIOLATIONS, watched_page

from swys_utils.config import PROJECT_ROOT
from swys_utils.data import TWIN
from swys_utils.occlusion import occlusion
from swys_utils.onnx_export import onnx_session, run_onnx

sys.path.insert(0, str(PROJECT_ROOT / "site"))
import build_demo  # noqa: E402

HOST = "http://localhost/"
FIRST_MODEL = SITE / "demo" / "assets" / "vit_tiny_maps.onnx"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no system Chromium"),
]


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


def test_the_demo_begins_with_the_models_that_are_quick(demo):
    quick = [name for name in build_demo.MODELS if name not in build_demo.ON_DEMAND]
    assert shown_models(demo) == [build_demo.TITLES[name] for name in quick]


def test_a_dropped_image_changes_every_picture(demo, noise):
    before = demo.pictures()
    demo.drop(noise)
    demo.wait_for("Shown: noise.png.")
    assert not set(before) & set(demo.pictures())
    demo.page.screenshot(path=SCREENSHOTS / "demo.png", full_page=True)


def assert_answered_as_by_the_model(demo, pixels: np.ndarray) -> None:
    """The first card says what ONNX Runtime says in Python; grey values from 0 to 255."""
    inputs = torch.tensor(pixels, dtype=torch.float32) / 127.5 - 1
    session = onnx_session(FIRST_MODEL)
    logits, _ = run_onnx(session, inputs.expand(1, 3, 28, 28))
    odds = np.exp(logits[0] - logits[0].max())
    percent = 100 * odds.max() / odds.sum()
    name, shown = re.match(r"(\w+), ([\d.]+) %", demo.answer(0)).groups()
    assert name == ("normal", "pneumonia")[logits[0].argmax()]
    assert float(shown) == pytest.approx(percent, abs=0.3)


def test_a_dropped_image_is_answered_as_by_the_model(demo, noise):
    demo.drop(noise)
    demo.wait_for("Shown: noise.png.")
    assert_answered_as_by_the_model(demo, np.asarray(Image.open(noise)))


def test_a_stroke_hides_patches_and_the_answers_follow(demo, noise):
    demo.drop(noise)
    demo.wait_for("Shown: noise.png. ")
    before = demo.pictures()
    demo.stroke((1, 1), (1, 3), (2, 3))
    demo.wait_for("Shown: noise.png. 4 of 49 patches hidden.")
    assert not set(before) & set(demo.pictures())
    pixels = np.asarray(Image.open(noise)).astype(float)
    hidden = np.zeros((7, 7), dtype=bool)
    hidden[1, 1:4] = True
    hidden[2, 3] = True
    covered = np.where(hidden.repeat(4, axis=0).repeat(4, axis=1), pixels.mean(), pixels)
    assert_answered_as_by_the_model(demo, covered)
    demo.page.screenshot(path=SCREENSHOTS / "demo_hidden.png", full_page=True)
    demo.stroke((1, 1), (1, 2))  # begins on a hidden patch, so it shows
    demo.wait_for("2 of 49 patches hidden.")
    demo.show_all()
    assert demo.pictures() == before


def one_by_one(path: Path):
    """A model as a function of model input, asked as the page asks: one image at a time.

    Int8 activations are scaled by the range of the batch, so that other batches differ slightly.
    """
    session = onnx_session(path)

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        answers = [run_onnx(session, part)[0] for part in inputs.split(1)]
        return torch.as_tensor(np.concatenate(answers))

    return answer


def test_the_occlusion_maps_are_those_of_python(demo, tmp_path):
    pixels = np.load(TWIN)["test_images"][20]
    drawn = tmp_path / "drawn.png"
    Image.fromarray(pixels).save(drawn)
    demo.drop(drawn)
    demo.wait_for("Shown: drawn.png. ")
    quick = [name for name in build_demo.MODELS if name not in build_demo.ON_DEMAND]
    for index, name in enumerate(quick):
        shown = demo.rests(index)
        model = one_by_one(FIRST_MODEL.with_name(f"{name}.onnx"))
        expected = occlusion(model, pixels[None], patch=4)[0]
        largest = float(np.abs(expected).max())
        print(f"{name}: {largest:.3f} at most, {np.abs(shown - expected).max():.4f} apart")
        assert shown == pytest.approx(expected, abs=0.05 * largest)
        cost = demo.page.locator("#models article:visible .cost").nth(index).inner_text()
        assert re.match(r"[\d.]+ ms an image, \d+ ms for the occlusion map, [\d.]+ MB, ", cost)


def test_the_new_answer_is_read_aloud(demo):
    status = demo.page.get_by_role("status")
    assert status.get_attribute("aria-live") == "polite"
    title = build_demo.TITLES["vit_tiny_maps"]
    assert re.search(rf"{re.escape(title)}: (normal|pneumonia), [\d.]+ %", status.inner_text())


def test_a_patch_is_hidden_by_keyboard(demo):
    page = demo.page
    page.locator("#cells [tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    for _ in range(7):
        page.keyboard.press("ArrowUp")  # the edge stops it
    page.keyboard.press("Space")
    demo.wait_for("1 of 49 patches hidden.")
    cell = page.get_by_role("gridcell", name="row 1, column 2, hidden")
    assert cell.get_attribute("aria-selected") == "true"
    assert cell.evaluate("cell => cell === document.activeElement")
    page.keyboard.press("Space")
    page.get_by_role("gridcell", name="row 1, column 2, visible").wait_for()
    demo.show_all()


def test_maps_are_compared_with_the_first_model(demo):
    texts = demo.page.locator("#models .alike").all_inner_texts()
    title = build_demo.TITLES["vit_tiny_maps"]
    assert texts[0] == ""
    assert texts[1].startswith(f"Grad-CAM's agreement with {title}: ")


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


def test_every_model_says_how_far_it_is_from_what_is_stored(demo):
    text = demo.page.locator("#tested").inner_text()
    differences = re.findall(r" (\d\.\d{4})(?:;| \()", text)
    assert len(differences) == len(shown_models(demo))
    assert max(map(float, differences)) < 0.02


@pytest.fixture
def page_with_other_logits(chromium, demo_files):
    """The demo where the second model's logits are not those that are stored: they differ by 1."""
    page_text = (SITE / "demo" / "index.html").read_text("utf-8")
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page_text)[1]
    content = json.loads(data)
    content["models"][1]["logits"][0] += 1
    changed = page_text.replace(data, json.dumps(content).replace("<", "\\u003c"))

    def answer(route):
        path = route.request.url.removeprefix(HOST)
        if path.endswith(".html"):
            route.fulfill(body=changed, content_type="text/html")
        else:
            route.fulfill(path=SITE / path)

    with watched_page(chromium) as page:
        page.route(f"{HOST}**", answer)
        yield Demo(page, f"{HOST}demo/index.html")


def test_a_model_that_is_computed_wrongly_is_named_and_not_shown(page_with_other_logits, demo):
    one = page_with_other_logits
    wrong = one.page.locator("#models article").filter(has=one.page.get_by_role("alert"))
    name = shown_models(demo)[1]
    assert wrong.locator("h3").inner_text() == name
    sentence = wrong.get_by_role("alert").inner_text()
    found = re.search(rf"WebAssembly backend computes {name} wrongly.* by (\d\.\d+)\.", sentence)
    assert float(found[1]) == pytest.approx(1, abs=0.02)
    assert wrong.locator("canvas").count() == 0
    assert shown_models(one) == [title for title in shown_models(demo) if title != name]
    assert f"{name}: " not in one.page.get_by_role("status").inner_text()


def test_a_model_is_loaded_when_it_is_ticked(demo):
    name = build_demo.TITLES[build_demo.ON_DEMAND[0]]
    before = shown_models(demo)
    box = demo.page.get_by_role("checkbox", name=name)
    box.check()
    demo.wait_for(re.compile(rf"Shown: .*{name}: "))
    assert shown_models(demo) == sorted([*before, name], key=list(build_demo.TITLES.values()).index)
    box.uncheck()
    demo.page.wait_for_function(
        "name => !document.getElementById('status').textContent.includes(name)", arg=name
    )
    assert shown_models(demo) == before


def test_the_mark_moves_the_cheat_and_hiding_it_brings_the_answer_back(demo):
    """The puzzle can be solved: of the small models, one follows the mark."""
    cheat = build_demo.TITLES[build_demo.CHEAT]
    honest = build_demo.TITLES[build_demo.HONEST]
    page = demo.page
    status = page.get_by_role("status")
    page.get_by_role("button", name="synthetic X-ray 4, normal").click()
    demo.wait_for("Shown: synthetic X-ray 4, normal. ")
    assert f"{cheat}: normal" in status.inner_text()
    page.get_by_label("draw the mark").check()
    demo.wait_for("Shown: synthetic X-ray 4, normal. The mark is drawn. ")
    assert f"{cheat}: pneumonia" in status.inner_text()
    assert f"{honest}: normal" in status.inner_text()
    rests = demo.rests(shown_models(demo).index(cheat))
    assert max(map(int, divmod(int(rests.argmax()), 7))) <= 1, "the mark is what it rests on"
    page.screenshot(path=SCREENSHOTS / "demo_mark.png", full_page=True)
    demo.stroke((0, 0), (0, 1), (1, 1), (1, 0))
    demo.wait_for("The mark is drawn. 4 of 49 patches hidden.")
    assert f"{cheat}: normal" in status.inner_text()
    demo.show_all()
    page.get_by_label("draw the mark").uncheck()


def test_nothing_comes_from_elsewhere(demo):
    own = (HOST, "data:", "blob:")
    assert [url for url in demo.requests if not url.startswith(own)] == []


@pytest.fixture(scope="module")
def small_demo(chromium, demo_files):
    """The demo in one file, from disk, on a small dark screen without a network."""
    window = {"viewport": {"width": 375, "height": 800}, "color_scheme": "dark", "has_touch": True}
    with watched_page(chromium, **window) as page:
        page.context.set_offline(True)
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
    assert set(pictures) == {image}


def test_a_finger_hides_a_patch(small_demo):
    x, y = small_demo.square(3, 3)
    small_demo.page.touchscreen.tap(x, y)
    small_demo.wait_for("1 of 49 patches hidden.")
    small_demo.show_all()


def test_a_patch_is_large_enough_for_a_finger(small_demo):
    width = small_demo.page.locator("#cells").bounding_box()["width"]
    assert width / 7 >= 40


def test_the_demo_can_be_read_aloud(demo, small_demo, axe):
    for one in (demo, small_demo):
        one.page.evaluate(axe)
        assert one.page.evaluate(VIOLATIONS) == []
