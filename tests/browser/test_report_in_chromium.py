"""The report of `swys compare` in a system Chromium: filter, slider, keys, looks."""

import sys
from pathlib import Path

import numpy as np
import pytest
from watched import CHROMIUM, SCREENSHOTS, VIOLATIONS, watched_page

sys.path.append(str(Path(__file__).resolve().parents[1]))
from compare_cases import NAMES, brightest, images_of, labels_of

from swys import compare
from swys.comparison import Effort

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no system Chromium"),
]


def confused(images: np.ndarray) -> np.ndarray:
    """Scores that are wrong on every fourth image."""
    scores = brightest(images)
    others = [1, 2, 0]
    scores[::4] = scores[::4, others]
    return scores


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    labels = labels_of(40)
    effort = Effort(
        maps=0,
        occlusions=4,
        shown=8,
        seconds=0,
    )
    result = compare(
        brightest,
        confused,
        images_of(labels),
        labels,
        NAMES,
        effort=effort,
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    result.save(path)
    return path


@pytest.fixture
def page(chromium, report):
    with watched_page(chromium) as opened:
        opened.goto(report.as_uri())
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 375])
def test_it_fits_and_can_be_read_aloud(chromium, report, axe, width, scheme):
    viewport = {"width": width, "height": 900}
    with watched_page(chromium, viewport=viewport, color_scheme=scheme) as opened:
        opened.goto(report.as_uri())
        picture = SCREENSHOTS / f"report-{width}-{scheme}.png"
        opened.screenshot(path=picture, full_page=True)
        assert opened.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        opened.evaluate(axe)
        assert opened.evaluate(VIOLATIONS) == []


def test_it_asks_for_nothing(chromium, report):
    asked = []
    with watched_page(chromium) as opened:
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(report.as_uri())
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


def test_a_button_steps_and_keeps_the_focus_at_the_end(page):
    place = page.locator("output")
    assert place.inner_text() == "1 of 8"
    following = page.get_by_role("button", name="next image")
    for _ in range(9):  # two more than there are
        following.press("Enter")
    assert place.inner_text() == "8 of 8"
    assert following.get_attribute("aria-disabled") == "true"
    page.keyboard.press("ArrowLeft")  # the button still has the focus
    assert place.inner_text() == "7 of 8"


def test_one_image_is_shown_until_all_are_asked_for(page):
    cards = page.locator(".card:visible")
    assert cards.count() == 1
    page.get_by_role("button", name="show all").click()
    assert cards.count() == 8
    page.keyboard.press("ArrowRight")  # means nothing while all are shown
    page.get_by_role("button", name="one at a time").click()
    assert page.locator("output").inner_text() == "1 of 8"


def test_the_class_chooses_the_images(page):
    page.get_by_label("class").select_option("middle")
    count = int(page.locator("output").inner_text().split()[-1])
    assert 1 <= count < 8
    truths = page.locator(".card:visible .truth").all_inner_texts()
    assert truths == ["truth: middle"]
