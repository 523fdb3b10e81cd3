"""The Grad-CAM browser as one web page that needs no kernel and no network."""

from __future__ import annotations

import base64
import html
import json
from importlib.resources import files
from pathlib import Path

from swys_utils.browser import GradCAMBrowser, encode

TEMPLATE = files("swys_utils") / "assets" / "browser.html"


def save_page(browser: GradCAMBrowser, path: str | Path, title: str = "Where do the models look?") -> Path:
    """Write all images of a browser, under maps of the class it shows, as a page with the same controls.

    The page opens where the browser stands, with its scale and opacity; the filter and both scales are on it.
    """
    data, target, images = browser.data, browser.target.value, []
    for i, row in enumerate(data.rows):
        content = {"row": int(row), "texts": data.texts(i, target)}
        content["filters"] = [key for key, kept in data.kept.items() if kept[i]]
        for scale in ("model", "image"):
            layers = (encode(one, "JPEG") for one in data.pictures(i, target, scale, alpha=1))
            content[scale] = [base64.b64encode(layer).decode("ascii") for layer in layers]
        images.append(content)
    shown = {"columns": ["image", *data.models], "images": images, "scale": browser.scale.value}
    place = int(browser.selection[browser.slider.value - 1]) + 1
    text = json.dumps(shown | {"place": place, "opacity": browser.opacity.value})
    text = text.replace("<", "\\u003c")  # no name may end the script
    page = TEMPLATE.read_text("utf-8").replace("__TITLE__", html.escape(title)).replace("__DATA__", text)
    Path(path).write_text(page, "utf-8")
    return Path(path)
