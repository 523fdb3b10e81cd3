"""The demo in a system Chromium; screenshots to look at lie in build/browser/."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from watched import CHROMIUM, SCREENSHOTS, SITE, VIOLATIONS, watched_page

from swys_utils.config import PROJECT_ROOT
from swys_utils.models import SERIES
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


class Demo:
    """The demo in a page, once its models are loaded."""

    def __init__(self, page, address: str):
        self.page = page
        self.requests: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]", timeout=90_000)

    def pictures(self) -> list[str]:
        """The input, then the image under each model's Grad-CAM map."""
        script = "all => all.map(canvas => canvas.toDataURL())"
        return self.page.eval_on_selector_all("#input, #models canvas.marks", script)

    def rests(self, model: int) -> np.ndarray:
        """The occlusion map of a model, (7, 7), once it is there."""
        article = self.page.locator("#models article:has(.rests)").nth(model)
        article.locator(".rests[data-values]").wait_for(timeout=60_000)
        values = article.locator(".rests").get_attribute("data-values").split()
        return np.array(values, dtype=float).reshape(7, 7)

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

    def square(self, row: int, column: int) -> tuple[float, float]:
        """The middle of one of the 7 x 7 squares that can be hidden, px of the page."""
        self.page.locator("#paint").scroll_into_view_if_needed()
        box = self.page.locator("#cells").bounding_box()
        x = box["x"] + (column + 0.5) * box["width"] / 7
        y = box["y"] + (row + 0.5) * box["height"] / 7
        return x, y

    def stroke(self, *squares: tuple[int, int]) -> None:
        """Draw with the mouse from square to square."""
        mouse = self.page.mouse
        mouse.move(*self.square(*squares[0]))
        mouse.down()
        for square in squares[1:]:
            mouse.move(*self.square(*square), steps=4)
        mouse.up()

    def show_all(self) -> None:
        self.page.get_by_role("button", name="Show all patches").click()
        script = "!document.getElementById('status').textContent.includes('hidden')"
        self.page.wait_for_function(script)

    def answer(self, model: int) -> str:
        """What the card of a model says, for example "normal, 98.0 %"."""
        return self.page.locator("#models article .answer").nth(model).inner_text()

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


def in_sevens(path: Path):
    """A model as a function of model input, asked as the page asks: at most 7 images at once.

    Int8 activations are scaled by the range of the batch, so that other batches differ slightly.
    """
    session = onnx_session(path)

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        answers = [run_onnx(session, part)[0] for part in inputs.split(7)]
        return torch.as_tensor(np.concatenate(answers))

    return answer


@pytest.mark.parametrize("model", [0, 1])
def test_the_occlusion_map_is_that_of_python(demo, noise, model):
    demo.drop(noise)
    demo.wait_for("Shown: noise.png. ")
    shown = demo.rests(model)
    pixels = np.array(Image.open(noise))
    path = FIRST_MODEL.with_name(f"{build_demo.MODELS[model]}.onnx")
    expected = occlusion(in_sevens(path), pixels[None], patch=4)[0]
    largest = float(np.abs(expected).max())
    assert largest > 0.1
    assert shown == pytest.approx(expected, abs=0.05 * largest)
    cost = demo.page.locator("#models .cost").nth(model).inner_text()
    assert re.match(r"[\d.]+ ms an image, \d+ ms for the occlusion map, [\d.]+ MB, ", cost)


def test_the_new_answer_is_read_aloud(demo):
    status = demo.page.get_by_role("status")
    assert status.get_attribute("aria-live") == "polite"
    title = SERIES["vit_tiny_maps"].title
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
    title = SERIES["vit_tiny_maps"].title
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


def shown_models(demo) -> list[str]:
    """Names of the models with an answer."""
    return demo.page.locator("#models article:has(.answer) h3").all_inner_texts()


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
    assert pictures == [image]


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
