"""The demo as a reader uses it: what its tests in Chromium do to the page, and read from it."""

import re
from pathlib import Path

import numpy as np


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
        article = self.page.locator("#models article:visible:has(.rests)").nth(model)
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
        return self.page.locator("#models article:visible .answer").nth(model).inner_text()

    def wait_for(self, text: str | re.Pattern) -> None:
        self.page.get_by_text(text).wait_for()


def shown_models(demo) -> list[str]:
    """Names of the models with an answer."""
    cards = demo.page.locator("#models article:visible", has=demo.page.locator(".answer"))
    return cards.locator("h3").all_inner_texts()
