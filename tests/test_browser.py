"""The browser's controls driven from Python: what a reader sees after each move."""

from __future__ import annotations

import base64
import io
import json
import re
import warnings

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from swys_utils import browser as module
from swys_utils.browser import SIDE, Explained, GradCAMBrowser, encode
from swys_utils.config import SwysError
from swys_utils.data import Split, to_model_input
from swys_utils.gradcam import grad_cam, overlay
from swys_utils.models import create_model

N, NAMES = 24, ["normal", "mild", "severe"]
MISTAKES = {"Base": [4, 5, 7], "Tiny": [5, 6, 7], "KD Tiny": [7]}  # at 7 all give the same wrong answer


@pytest.fixture
def known(monkeypatch):
    """Models that are names: ``drawn[name]`` has their logits and maps, ``calls`` counts the maps made."""
    rng = np.random.default_rng(0)
    labels, drawn, calls = np.arange(N) % 3, {}, []
    for name, wrong in MISTAKES.items():
        said = labels.copy()
        said[wrong] = (said[wrong] + 1) % 3
        logits = 3 * np.eye(3)[said] + rng.uniform(0, 1, (N, 3))
        drawn[name] = logits, rng.uniform(-1e-3, 1e-3, (N, 3, 7, 7)).astype(np.float32)

    def heatmaps(model, images, method, targets, signed):
        calls.append((model, method))
        return drawn[model][1][np.arange(N), targets]

    monkeypatch.setattr(module, "predict", lambda model, images: drawn[model][0])
    monkeypatch.setattr(module, "heatmaps", heatmaps)
    split = Split(rng.integers(0, 256, (N, 28, 28), dtype=np.uint8), labels)
    given = {"models": {name: name for name in MISTAKES}, "split": split, "class_names": NAMES, "images": 0}
    return {"given": given, "drawn": drawn, "calls": calls}


def make(known, **options) -> GradCAMBrowser:
    return GradCAMBrowser(**known["given"] | options)


def pixels(view) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(view.value)))


def test_is_made_of_core_widgets_without_a_warning(known):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Passing unrecognized arguments")  # ipywidgets 7 has fewer
        browser = make(known)
    parts = [browser, *browser.children, *browser.children[0].children, *browser.children[-1].children]
    assert all(widget._model_module.startswith("@jupyter-widgets/") for widget in parts)
    assert "24 images" in repr(browser) and "\n" not in repr(browser)


def test_every_move_changes_every_picture_and_stops_at_the_ends(known):
    browser = make(known, start=0)
    for move in (lambda: browser.slider.set_trait("value", 5), browser.next.click, browser.previous.click):
        before = [view.value for view in browser.views]
        move()
        assert all(old != view.value for old, view in zip(before, browser.views))
    browser.play.value = 9
    assert browser.slider.value == 9 and "Image 9 of 24, row 8" in browser.status.value
    for end, button in ((N, browser.next), (1, browser.previous)):
        browser.slider.value = end
        button.click()
        assert browser.slider.value == end


def test_opens_where_models_err_or_disagree_and_no_map_is_empty(known):
    assert make(known).slider.value == 5 and make(known, start=3).slider.value == 4
    maps = known["drawn"]["Tiny"][1]
    for empty, place in ((slice(4, 6), 7), (slice(4, 8), 1), (slice(0, 8), 9), (slice(0, N), 1)):
        maps[empty] = -1 - np.abs(maps[empty])
        assert make(known).slider.value == place


def test_filters_keep_the_image_where_they_can(known):
    browser = make(known, start=5)
    browser.filter.value = "wrong"
    assert browser.selection.tolist() == [4, 5, 6, 7] and browser.slider.max == browser.play.max == 4
    assert browser.slider.value == 2 and "Image 2 of 4, row 5" in browser.status.value
    browser.slider.value = 4
    browser.filter.value = "disagree"
    assert browser.selection.tolist() == [4, 5, 6] and browser.slider.value == 1
    browser.filter.value = "all"
    assert browser.slider.value == 5 and browser.slider.max == N
    assert len(make(known, models={"Tiny": "Tiny"}).filter.options) == 2  # one model cannot disagree


def test_texts_say_answer_verdict_map_and_agreement(known):
    browser, (logits, maps) = make(known, start=4), known["drawn"]["Tiny"]
    image, base, tiny, _ = (re.sub("<.*?>", "|", box.value) for box in browser.texts)
    assert "|mild|" in image and "|severe|" in base and "✗ wrong" in base and "✓ right" in tiny
    assert f"{torch.tensor(logits[4]).softmax(0).max():.1%}" in tiny and "map for mild" in tiny
    rho = scipy.stats.spearmanr(known["drawn"]["Base"][1][4, 2], maps[4, 1], axis=None)[0]
    assert f"peak {maps[4, 1].max():.2g}" in tiny and f"agreement {rho:+.2f}" in tiny


def test_overlays_are_those_of_gradcam_and_maps_are_made_once(known):
    browser, drawn, image = make(known, start=8), known["drawn"], known["given"]["split"].images[8:9]
    browser.target.value = 2
    top = float(drawn["Tiny"][1][:, 2].max())
    for scale, strongest, alpha in (("shared", top, 0.6), ("image", "image", 0.3)):
        browser.scale.value, browser.opacity.value = scale, alpha
        expected = overlay(image, drawn["Tiny"][1][8:9, 2], alpha, strongest, size=SIDE)[0]
        np.testing.assert_array_equal(pixels(browser.views[2]), expected)
    assert "cannot be compared" in browser.legend.value
    browser.target.value = "predicted"
    assert known["calls"] == [(name, "grad_cam") for _ in range(2) for name in MISTAKES]


def test_an_empty_map_is_said_and_not_drawn(known):
    for _, maps in known["drawn"].values():
        maps[:] = -np.abs(maps)
    browser = make(known)
    for browser.scale.value in ("shared", "image"):
        assert "empty map" in browser.texts[1].value
        np.testing.assert_array_equal(pixels(browser.views[1]), pixels(browser.views[0]))


def test_real_models_on_multi_label_colour_images():
    rng, model = np.random.default_rng(0), create_model("vit_tiny", 4, depth=2).train()
    split = Split(rng.integers(0, 256, (9, 28, 28, 3), dtype=np.uint8), rng.integers(0, 2, (9, 4)))
    split.labels[0] = 0
    browser = GradCAMBrowser({"Tiny": model}, split, "abcd", images=[0, 2, 8], start=0)
    assert "no label" in browser.texts[0].value and "true" not in [key for _, key in browser.target.options]
    inputs = to_model_input(split.images[[0, 2, 8]], 28)
    expected = grad_cam(model, inputs, targets=3, signed=True)
    np.testing.assert_allclose(browser.data.maps("Tiny", 3), expected, atol=1e-6)
    assert model.training and isinstance(browser.data, Explained)
    expected = model.eval()(inputs).sigmoid().detach()
    np.testing.assert_allclose(browser.data.scores["Tiny"], expected, atol=1e-5)


def test_contact_sheet_and_page_show_what_the_browser_shows(known, tmp_path):
    browser = make(known, models={"<b></script>": "Base", "Tiny": "Tiny"}, start=6)
    axes = browser.contact_sheet(n=5).axes
    assert len(axes) == 5 * 3 and axes[0].get_title() == "row 4\nmild" and "severe" in axes[5].get_xlabel()
    page = browser.save(tmp_path / "page.html", title="A & B </script>").read_text("utf-8")
    (data,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    data = json.loads(data)
    assert data["columns"] == ["image", "<b></script>", "Tiny"] and data["place"] == 7 and "http" not in page
    assert data["images"][4]["filters"] == ["all", "wrong", "disagree"]
    drawn = encode(browser.data.pictures(6, "predicted", "image", alpha=1)[2], "JPEG")
    assert base64.b64decode(data["images"][6]["image"][2]) == drawn


def test_bad_input_is_one_clear_line(known):
    hidden = Split(known["given"]["split"].images, np.full(N, -1))
    for change, message in (
        ({"models": {}}, "0 models"),
        ({"images": [0, N]}, "rows 0 to 24"),
        ({"start": N}, "start is 24"),
        ({"split": hidden}, "labels -1 to"),
        ({"class_names": [*NAMES, "x"]}, "4 class names"),
    ):
        with pytest.raises(SwysError, match=message):
            make(known, **change)
