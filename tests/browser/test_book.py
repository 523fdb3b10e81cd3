"""The book in a system Chromium, from disk: search, formulas, small and large, dark and light."""

from pathlib import Path

import pytest
from watched import CHROMIUM, SCREENSHOTS, SITE, VIOLATIONS

# One page of each kind; the reference's pages are all made alike.
LOOKS = [
    "index.html",
    "search.html",
    "try_it.html",
    "about/changelog.html",
    "about/glossary.html",
    "about/published.html",
    "how_to/index.html",
    "how_to/blank_heatmap.html",
    "how_to/multi_label.html",
    "notebooks/index.html",
    "notebooks/01_data.html",
    "notebooks/04_gradcam.html",
    "notebooks/05_distillation.html",
    "notebooks/06_benchmark.html",
    "reference/swys_utils.gradcam.html",
    "teachers/index.html",
    "teachers/quiz.html",
    "teachers/assignment.html",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no system Chromium"),
]


@pytest.fixture(scope="module", autouse=True)
def book():
    """The book, which another test may have built after this module was collected."""
    if not (SITE / "searchindex.js").is_file():
        pytest.skip("make site builds the book")


class Opened:
    """A page of the book, opened from disk, and what it asked for."""

    def __init__(self, context, address: str):
        self.page = context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"file://{SITE}/{address}")
        self.page.wait_for_load_state("load")

    def outside(self) -> list[str]:
        """Requests that leave the disk."""
        local = ("file:", "data:", "blob:")
        return [address for address in self.requests if not address.startswith(local)]

    def wider_than_the_window(self) -> int:
        """Pixels by which one would have to scroll sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth - innerWidth")


@pytest.fixture
def context(chromium, request):
    """A window; the test says how wide and in which colours."""
    width, colours = getattr(request, "param", (1400, "light"))
    window = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=colours,
    )
    yield window
    window.close()


def window_name(setting: tuple[int, str]) -> str:
    return "-".join(map(str, setting))


EACH_WINDOW = pytest.mark.parametrize(
    "context",
    [(1400, "light"), (1400, "dark"), (375, "light"), (375, "dark")],
    ids=window_name,
    indirect=True,
)


@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("occlusion", "how_to/blank_heatmap.html"),
        ("temperature", "teachers/assignment.html"),
        ("doctor", "how_to/blank_heatmap.html"),
    ],
)
def test_the_search_from_disk_finds_a_page(context, word, page):
    opened = Opened(context, f"search.html?q={word}")
    result = opened.page.locator(f"#search-results a[href^='{page}']").first
    result.wait_for(timeout=30_000)
    assert opened.errors == []


@EACH_WINDOW
@pytest.mark.parametrize("address", LOOKS)
def test_a_page_fits_asks_for_nothing_and_can_be_read_aloud(context, axe, address):
    opened = Opened(context, address)
    width = opened.page.viewport_size["width"]
    picture = SCREENSHOTS / f"book-{Path(address).stem}-{width}.png"
    opened.page.screenshot(path=picture, full_page=True)
    assert opened.outside() == []
    assert opened.errors == []
    assert opened.wider_than_the_window() <= 0
    opened.page.evaluate(axe)
    assert opened.page.evaluate(VIOLATIONS) == []


def test_a_formula_is_drawn(context):
    opened = Opened(context, "notebooks/05_distillation.html")
    opened.page.wait_for_selector("mjx-container svg", timeout=30_000)


def test_a_patch_that_is_pointed_at_is_covered(context):
    page = Opened(context, "notebooks/06_benchmark.html").page
    picture = page.locator(".cover svg").first
    whole = picture.locator(".whole text").nth(1)
    patch = picture.locator(".patch").nth(5)
    answer = patch.locator("text").nth(1)
    assert (whole.is_visible(), answer.is_visible()) == (True, False)
    patch.locator("rect").hover()
    assert (whole.is_visible(), answer.is_visible()) == (False, True)


def test_a_solution_unfolds(context):
    opened = Opened(context, "teachers/quiz.html")
    answer = opened.page.locator("details").first
    assert not answer.locator("p").last.is_visible()
    answer.locator("summary").click()
    assert answer.locator("p").last.is_visible()
