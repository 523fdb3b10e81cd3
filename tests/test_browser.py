"""The browser's controls driven from Python: what a reader sees after each move."""

import io

import numpy as np
import pytest
import scipy.stats
from PIL import Image
from small import vit

from swys_utils import browser as module
from swys_utils.browser import SIDE, Explained, GradCAMBrowser
from swys_utils.config import SwysError
from swys_utils.data import Split, to_model_input
from swys_utils.gradcam import grad_cam, overlay

N, NAMES = 24, ["normal", "mild", "severe"]
MISTAKES = {
    "Base": [4, 5, 7],
    "Tiny": [5, 6, 7],
    "KD Tiny": [7],
}  # at 7 all give the same wrong answer


@pytest.fixture
def known(monkeypatch):
    """Models that are names; ``drawn[name]`` has their logits and maps, all equally strong but at image 6."""
    rng = np.random.default_rng(0)
    labels, drawn = np.arange(N) % 3, {}
    for name, wrong in MISTAKES.items():
        said = (labels + np.isin(np.arange(N), wrong)) % 3
        maps = rng.uniform(-1e-3, 1e-3, (N, 3, 7, 7)).astype(np.float32)
        maps[..., 0, 0] = np.where(np.arange(N) == 6, 3e-3, 2e-3)[:, None]
        drawn[name] = 3 * np.eye(3)[said] + rng.uniform(0, 1, (N, 3)), maps

    def heatmaps(model, images, method, targets, signed):
        return drawn[model][1][
            np.arange(N), drawn[model][0].argmax(1) if targets is None else targets
        ]

    monkeypatch.setattr(module, "predict", lambda model, images: drawn[model][0])
    monkeypatch.setattr(module, "heatmaps", heatmaps)
    split = Split(rng.integers(0, 256, (N, 28, 28), dtype=np.uint8), labels)
    return {
        "models": {name: name for name in MISTAKES},
        "split": split,
        "class_names": NAMES,
    }, drawn


def make(known, at=6, **options) -> GradCAMBrowser:
    browser = GradCAMBrowser(**known[0] | options)
    browser.slider.value = at + 1
    return browser


@pytest.mark.filterwarnings("error:Passing unrecognized arguments")  # ipywidgets 7 has fewer
def test_every_move_changes_every_picture_and_stops_at_the_ends(known):
    browser = make(known, at=0)
    assert "24 images" in repr(browser) and "\n" not in repr(browser)
    for move in (
        lambda: browser.slider.set_trait("value", 5),
        browser.next.click,
        browser.previous.click,
    ):
        before = [view.value for view in browser.views]
        move()
        assert all(old != view.value for old, view in zip(before, browser.views))
    browser.play.value = 9
    assert browser.slider.value == 9 and "Image 9 of 24, row 8" in browser.status.value
    browser.slider.value = N
    browser.next.click()
    assert browser.slider.value == N


def test_opens_where_models_err_or_disagree_and_no_map_is_empty(known):
    for empty, place in ((0, 7), (7, 8), (8, 9), (N, 1)):
        known[1]["Tiny"][1][:empty] = -1
        assert GradCAMBrowser(**known[0]).slider.value == place


def test_filters_keep_the_image_where_they_can(known):
    browser = make(known, at=5)
    browser.filter.value = "wrong"
    assert (
        browser.selection.tolist() == [4, 5, 6, 7] and browser.slider.max == browser.play.max == 4
    )
    assert browser.slider.value == 2 and "Image 2 of 4, row 5" in browser.status.value
    browser.slider.value = 4
    browser.filter.value = "disagree"
    assert browser.selection.tolist() == [4, 5, 6] and browser.slider.value == 1
    assert (
        len(make(known, models={"Tiny": "Tiny"}).filter.options) == 2
    )  # one model cannot disagree


def test_texts_and_the_contact_sheet_say_answer_verdict_map_and_agreement(known):
    browser = make(known, at=4)
    image, base, tiny, _ = (box.value for box in browser.texts)
    assert ">mild<" in image and ">severe " in base and "✗ wrong" in base and "✓ right" in tiny
    p, maps = scipy.special.softmax(known[1]["Tiny"][0][4]), known[1]["Tiny"][1][4, 1]
    rho = scipy.stats.spearmanr(known[1]["Base"][1][4, 2], maps, axis=None)[0]
    assert f"mild {p.max():.1%}" in tiny and "map for mild" in tiny and "peak 0.002" in tiny
    assert f"agreement {rho:+.2f}" in tiny
    axes = browser.contact_sheet(n=5).axes
    assert (
        len(axes) == 20
        and "6, truth:\nnormal" in axes[0].get_title()
        and "normal" in axes[5].get_xlabel()
    )


def test_overlays_are_those_of_gradcam_and_an_empty_map_is_not_drawn(known):
    known[1]["Base"][1][:] *= -np.sign(known[1]["Base"][1])
    browser, maps, images = make(known, at=8), known[1]["Tiny"][1][:, 2], known[0]["split"].images
    browser.target.value = 2
    for scale, strongest, alpha in (("model", 3e-3, 0.6), ("image", "image", 0.3)):
        browser.scale.value, browser.opacity.value = scale, alpha
        expected = overlay(images[8:9], maps[8:9], alpha, strongest, size=SIDE)[0]
        assert np.array_equal(Image.open(io.BytesIO(browser.views[2].value)), expected)
        assert (
            "empty map" in browser.texts[1].value
            and browser.views[1].value == browser.views[0].value
        )


def test_real_models_on_multi_label_colour_images():
    rng, model = np.random.default_rng(0), vit(4).train()
    split = Split(rng.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8), np.eye(3, 4, -1, dtype=int))
    data, inputs = GradCAMBrowser({"Tiny": model}, split, "abcd").data, to_model_input(split.images)
    assert data.texts(0, 1)[0][0] == "no label" and model.training and isinstance(data, Explained)
    for target, explained in ((3, 3), ("predicted", None)):
        expected = grad_cam(model, inputs, targets=explained, signed=True)
        np.testing.assert_allclose(data.maps("Tiny", target), expected, atol=1e-6)
    np.testing.assert_allclose(
        data.scores["Tiny"], model.eval()(inputs).sigmoid().detach(), atol=1e-5
    )


def test_bad_input_is_one_clear_line(known):
    hidden = Split(known[0]["split"].images, np.full(N, -1))
    wrong = {
        "0 models": {"models": {}},
        "labels -1": {"split": hidden},
        "4 class": {"class_names": "abcd"},
    }
    for message, change in wrong.items():
        with pytest.raises(SwysError, match=message):
            make(known, **change)
