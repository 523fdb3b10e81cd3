"""The browser's observers driven from Python: what a reader sees after each move, filter and toggle."""

from __future__ import annotations

import base64
import html
import io
import json
import re

import ipywidgets
import numpy as np
import pytest
import scipy.stats
import timm
import torch
from PIL import Image

from swys_utils import browser as module
from swys_utils.browser import EMPTY, GradCAMBrowser
from swys_utils.config import SwysError
from swys_utils.gradcam import overlay

N, CLASSES, GRID = 24, 3, 7
NAMES = ["Base", "Tiny", "KD Tiny"]


def drawn(n=N, colour=False, seed=0):
    """Images, labels, class names and models with known mistakes: Base errs on 0 and 1, Tiny on 1 and 2."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 28, 28, 3) if colour else (n, 28, 28), dtype=np.uint8)
    labels = np.arange(n) % CLASSES
    models = {}
    for name, mistakes in zip(NAMES, ([0, 1], [1, 2], [])):
        predicted = labels.copy()
        predicted[mistakes] = (predicted[mistakes] + 1) % CLASSES
        probabilities = np.full((n, CLASSES), 0.1)
        probabilities[np.arange(n), predicted] = rng.uniform(0.5, 0.9, n)
        models[name] = {
            "probabilities": probabilities,
            "heatmaps": rng.uniform(0, 1e-3, (n, CLASSES, GRID, GRID)).astype(np.float32),
        }
    return images, labels, ["normal", "mild", "severe"], models


@pytest.fixture
def browser():
    return GradCAMBrowser(*drawn())


def pixels(widget) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(widget.value)).convert("RGB")).astype(int)


def pictures(browser) -> list[bytes]:
    return [browser.image.value, *(widget.value for widget in browser.overlays.values())]


def text(widget) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", widget.value))


def test_is_one_box_of_core_widgets(browser):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    core = ("@jupyter-widgets/controls", "@jupyter-widgets/base")
    assert all(widget._model_module in core for widget in walk(browser))
    assert sum(isinstance(w, ipywidgets.Image) for w in walk(browser)) == 1 + len(NAMES)


def test_every_move_changes_every_picture_once(browser):
    for widget in (browser.image, *browser.overlays.values()):
        assert widget.format == "png" and pixels(widget).shape[0] == pixels(widget).shape[1]
    sent = []
    browser.image.observe(lambda change: sent.append(change.new), "value")
    for move in (lambda: setattr(browser.slider, "value", 5), browser.next.click, browser.previous.click):
        before = pictures(browser)
        move()
        assert all(a != b for a, b in zip(before, pictures(browser)))
    assert len(sent) == 3 and browser.slider.value == 5
    browser.play.value = 9  # what the play button does
    assert browser.current == 8


def test_previous_and_next_stop_at_the_ends(browser):
    browser.previous.click()
    assert browser.current == 0
    browser.slider.value = N
    browser.next.click()
    assert browser.current == N - 1


def test_caption_says_prediction_confidence_verdict_and_map(browser):
    images, labels, names, models = drawn()
    assert "normal" in text(browser.image_caption)
    said = text(browser.captions["Base"])  # image 0 is class 0 and Base says class 1
    assert "mild" in said and "✗ wrong" in said and "map for mild" in said
    assert f"{models['Base']['probabilities'][0].max():.1%}" in said
    assert f"peak {models['Base']['heatmaps'][0, 1].max():.2g}" in said
    assert "✓ right" in text(browser.captions["KD Tiny"])
    assert "true class normal" in browser.image.tooltip and "wrong" in browser.overlays["Base"].tooltip
    assert browser.image.get_state()["description"] == ""  # without it the front end fails on the tooltip


def test_filters_by_class_and_by_who_is_wrong(browser):
    expected = {
        "all": range(N),
        "everyone right": range(3, N),
        "Base wrong": [0, 1],
        "Tiny wrong": [1, 2],
        "KD Tiny wrong": [],
        "everyone wrong": [],
        "they disagree": [0, 1, 2],
    }
    assert [value for _, value in browser.who.options] == list(expected)
    for value, kept in expected.items():
        browser.who.value = value
        assert browser.selection.tolist() == list(kept)
        assert (f"{value} ({len(kept)})", value) in browser.who.options
    browser.who.value = "they disagree"
    browser.class_filter.value = 2
    assert browser.selection.tolist() == [2]
    assert browser.slider.max == 1 and browser.slider.disabled and browser.next.disabled


def test_a_filter_keeps_the_image_where_it_can(browser):
    browser.slider.value = 3  # image 2
    browser.who.value = "Tiny wrong"
    assert browser.current == 2 and browser.slider.value == 2
    browser.who.value = "Base wrong"
    assert browser.current == 0


def test_nothing_left_is_a_sentence_and_comes_back(browser):
    browser.who.value = "everyone wrong"
    assert browser.current is None and "No image fits" in browser.status.value
    assert (pixels(browser.image) == 0).all() and browser.captions["Base"].value == ""
    browser.next.click()
    browser.cmap.value = "viridis"
    browser.who.value = "all"
    assert browser.current == 0 and "Image 1 of 24" in browser.status.value
    assert not browser.slider.disabled and browser.slider.max == N


def test_agreement_is_spearman_of_the_maps_on_show(browser):
    _, labels, _, models = drawn()
    base, tiny = models["Base"]["heatmaps"], models["Tiny"]["heatmaps"]
    browser.target.value = "true"
    expected = [scipy.stats.spearmanr(base[i, labels[i]], tiny[i, labels[i]], axis=None)[0] for i in range(N)]
    assert f"agreement {expected[0]:+.2f}" in text(browser.captions["Tiny"])
    browser.sort.value = "agreement of Tiny"
    assert browser.selection.tolist() == np.argsort(expected).tolist()
    browser.sort.value = "index"
    both = [
        scipy.stats.spearmanr(base[i, labels[i]], models[m]["heatmaps"][i, labels[i]], axis=None)[0]
        for m in NAMES[1:]
        for i in range(N)
    ]
    browser.agreement_limit.value = 0.0
    assert browser.selection.tolist() == np.flatnonzero(np.reshape(both, (2, N)).min(0) <= 0).tolist()


def test_given_agreement_is_shown():
    given = {"Tiny": np.linspace(-1, 1, N), "KD Tiny": np.full(N, np.nan)}
    browser = GradCAMBrowser(*drawn(), agreement=given)
    assert "agreement -1.00" in text(browser.captions["Tiny"])
    assert "agreement none" in text(browser.captions["KD Tiny"])
    with pytest.raises(SwysError, match="agreement has"):
        GradCAMBrowser(*drawn(), agreement={"Tiny": np.zeros(N)})


def test_sorting_by_confidence_both_ways(browser):
    confidence = drawn()[3]["Tiny"]["probabilities"].max(axis=1)
    browser.slider.value = 7
    browser.sort.value = "confidence of Tiny"
    assert browser.selection.tolist() == np.argsort(confidence).tolist()
    assert browser.current == confidence.argmin()  # an order starts at its first image
    browser.reverse.value = True
    assert browser.selection.tolist() == np.argsort(-confidence).tolist()


def test_overlay_is_the_one_of_gradcam():
    images, labels, names, models = drawn(colour=True)
    browser = GradCAMBrowser(images, labels, names, models, size=112, opacity=0.6, target=2)
    top = max(model["heatmaps"][:, 2].max() for model in models.values())
    for scale, strongest in (("shared", float(top)), ("image", "image")):
        browser.scale.value = scale
        for cmap in ("inferno", "gray"):
            browser.cmap.value = cmap
            maps = models["Tiny"]["heatmaps"][:1, 2]
            expected = overlay(images[:1], maps, alpha=0.6, scale=strongest, cmap=cmap, size=112)[0]
            assert np.abs(pixels(browser.overlays["Tiny"]) - expected).max() <= 3  # bytes are rounded earlier


def test_shared_scale_keeps_weak_maps_weak():
    images, labels, names, models = drawn()
    models["Tiny"]["heatmaps"] /= 100
    browser = GradCAMBrowser(images, labels, names, models)
    plain = pixels(browser.image)
    assert np.abs(pixels(browser.overlays["Tiny"]) - plain).max() < 8
    browser.scale.value = "image"
    assert np.abs(pixels(browser.overlays["Tiny"]) - plain).max() > 60
    assert "cannot be compared" in text(browser.legend)


def test_target_class_opacity_and_colours_redraw(browser):
    for control, value in (
        (browser.target, "true"),
        (browser.target, 2),
        (browser.opacity, 0.3),
        (browser.cmap, "viridis"),
        (browser.cmap, "cividis"),
    ):
        before = browser.overlays["Base"].value
        control.value = value
        assert browser.overlays["Base"].value != before
    assert "map for severe" in text(browser.captions["Base"])
    browser.opacity.value = 0
    assert (pixels(browser.overlays["Base"]) == pixels(browser.image)).all()


@pytest.mark.parametrize("scale", ["shared", "image"])
def test_an_empty_map_is_said_and_not_drawn(scale):
    images, labels, names, models = drawn()
    models["Base"]["heatmaps"][:] = 0
    browser = GradCAMBrowser(images, labels, names, models)
    browser.scale.value = scale
    assert EMPTY in text(browser.captions["Base"])
    assert (pixels(browser.overlays["Base"]) == pixels(browser.image)).all()
    assert "agreement none" in text(browser.captions["Tiny"])
    browser.agreement_limit.value = 0.95
    assert browser.current is None  # no agreement at all is not a low agreement
    for model in models.values():
        model["heatmaps"] = np.zeros_like(model["heatmaps"])
    GradCAMBrowser(images, labels, names, models).scale.value = scale


def test_evidence_against_a_class_is_not_drawn_but_counts_in_the_agreement():
    images, labels, names, models = drawn()
    for model in models.values():
        model["heatmaps"] = model["heatmaps"] - model["heatmaps"].mean()
    signed = GradCAMBrowser(images, labels, names, models)
    cut = {name: m | {"heatmaps": np.maximum(m["heatmaps"], 0)} for name, m in models.items()}
    assert (
        pixels(signed.overlays["Tiny"]) == pixels(GradCAMBrowser(images, labels, names, cut).overlays["Tiny"])
    ).all()
    label = signed._predicted["Base"][0], signed._predicted["Tiny"][0]
    expected = scipy.stats.spearmanr(models["Base"]["heatmaps"][0, label[0]], models["Tiny"]["heatmaps"][0, label[1]],
                                     axis=None)[0]  # fmt: skip
    assert signed._agreement("predicted")["Tiny"][0] == pytest.approx(expected)


def test_errors_reach_whoever_moved_the_slider(browser, monkeypatch):
    def broken(*args):
        raise RuntimeError("cannot draw")

    monkeypatch.setattr(module, "_blend", broken)
    with pytest.raises(RuntimeError, match="cannot draw"):
        browser.slider.value = 2


def test_one_model_and_different_grids_work():
    images, labels, names, models = drawn()
    alone = GradCAMBrowser(images, labels, names, {"Base": models["Base"]})
    assert "agreement" not in text(alone.captions["Base"]) and alone.agreement_limit.layout.display == "none"
    assert [value for _, value in alone.who.options] == ["all", "everyone right", "Base wrong"]
    models["Tiny"]["heatmaps"] = np.ones((N, CLASSES, 4, 5), np.float32)
    assert "agreement none" in text(GradCAMBrowser(images, labels, names, models).captions["Tiny"])


def test_names_are_text_and_not_markup():
    images, labels, _, models = drawn()
    bad = "<b>&</script><script>alert(1)</script>"
    browser = GradCAMBrowser(images, labels, [bad, "x", "y"], {bad: models["Base"], "Tiny": models["Tiny"]})
    for widget in (browser.status, browser.legend, browser.image_caption, *browser.captions.values()):
        assert "<script" not in widget.value


def changed(part, value):
    """The drawn arguments with one of them replaced."""
    arguments = dict(zip(("images", "labels", "class_names", "models"), drawn()))
    if part in ("probabilities", "heatmaps"):
        arguments["models"]["Tiny"][part] = value
    else:
        arguments[part] = value
    return arguments


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("images", np.zeros((N, 28, 28)), "uint8"),
        ("images", np.zeros((0, 28, 28), np.uint8), "0 images"),
        ("labels", np.zeros(N - 1, int), "one whole number per image"),
        ("labels", np.full(N, 3), "labels run from 3 to 3"),
        ("models", {}, "0 models"),
        ("models", {"Base": {"heatmaps": 1}}, "'probabilities' and 'heatmaps'"),
        ("probabilities", np.zeros((N, 2)), "probabilities of 'Tiny'"),
        ("heatmaps", np.zeros((N, GRID, GRID)), "heatmaps of 'Tiny'"),
        ("heatmaps", np.full((N, CLASSES, GRID, GRID), np.nan), "must be finite"),
        ("index", [1, 2], "index has shape"),
        ("target", "predictd", "target is 'predictd'"),
    ],
)
def test_bad_input_is_one_clear_line(part, value, message):
    with pytest.raises(SwysError, match=re.escape(message)) as raised:
        GradCAMBrowser(**changed(part, value))
    assert "\n" not in str(raised.value)


def test_contact_sheet_is_a_figure_of_the_selection(browser, tmp_path):
    browser.who.value = "they disagree"
    figure = browser.contact_sheet(tmp_path / "sheet.png", n=2)
    assert len(figure.axes) == 2 * (1 + len(NAMES))
    assert "number 0" in figure.axes[0].get_xlabel() and "wrong" in figure.axes[1].get_xlabel()
    assert Image.open(tmp_path / "sheet.png").width > 400
    browser.who.value = "everyone wrong"
    with pytest.raises(SwysError, match="no image fits"):
        browser.contact_sheet()


def page_data(path) -> dict:
    pattern = r'<script id="data" type="application/json">(.*?)</script>'
    found = re.findall(pattern, path.read_text("utf-8"), re.S)
    assert len(found) == 1
    return json.loads(found[0])


def test_page_holds_the_same_numbers(browser, tmp_path):
    images, labels, names, models = drawn()
    path = browser.to_html(tmp_path / "deep" / "page.html", title="A & B </script>")
    data = page_data(path)
    assert data["labels"] == labels.tolist() and data["classNames"] == names
    assert base64.b64decode(data["images"]) == images.tobytes()
    for name, model in zip(NAMES, data["models"]):
        levels = np.frombuffer(base64.b64decode(model["maps"]), np.uint8).reshape(N, CLASSES, GRID, GRID)
        maps = levels / 255 * np.array(model["peaks"])[..., None, None]
        np.testing.assert_allclose(maps, models[name]["heatmaps"], atol=1e-3 / 255)
    score = browser._agreement("predicted")["Tiny"]
    np.testing.assert_allclose(data["agreement"]["predicted"]["Tiny"], score, atol=6e-4)
    page = path.read_text("utf-8")
    assert "http://" not in page and "https://" not in page and "__DATA__" not in page
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]  # no half-written file is left


def test_page_of_100_large_colour_images_is_small(tmp_path):
    n = 100
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, n)
    maps = rng.uniform(0, 1, (n, 9, 14, 14)).astype(np.float32)
    model = {"probabilities": rng.dirichlet(np.ones(9), n), "heatmaps": maps}
    images = rng.integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)
    names = [f"tissue {k}" for k in range(9)]
    browser = GradCAMBrowser(images, labels, names, dict.fromkeys(NAMES, model))
    path = browser.to_html(tmp_path / "page.html")
    assert path.stat().st_size < 5e6


def test_from_models_computes_probabilities_and_a_map_per_class():
    torch.manual_seed(0)
    images, labels, names, _ = drawn(n=5, colour=True)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    models = {
        name: timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, global_pool=pool, **size).train()
        for name, pool in (("Base", "token"), ("Tiny", "avg"))
    }
    browser = GradCAMBrowser.from_models(images, labels, names, models, batch_size=2, index=range(10, 15))
    for name, model in models.items():
        assert model.training  # as it was
        assert browser._heatmaps[name].shape == (5, CLASSES, 4, 4) and browser._heatmaps[name].any()
        inputs = module.to_model_input(images, 32)
        model.eval()
        with torch.no_grad():
            expected = model(inputs).softmax(dim=1).numpy()
        np.testing.assert_allclose(browser._probabilities[name], expected, atol=1e-5)
        maps = module.grad_cam(model, inputs, targets=1).numpy()
        np.testing.assert_allclose(browser._heatmaps[name][:, 1], maps, atol=1e-6)
    assert "number 10" in browser.status.value
    with pytest.raises(SwysError, match="3 classes; there are 2"):
        GradCAMBrowser.from_models(images, labels, names[:2], models)
