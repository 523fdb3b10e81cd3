"""The browser's controls driven from Python: what a reader sees after each move."""

import io
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.stats
from PIL import Image
from scipy.special import softmax

from swys_utils import browser as module
from swys_utils.browser import SIDE, GradCAMBrowser
from swys_utils.config import SwysError
from swys_utils.data import Split
from swys_utils.gradcam import METHODS, Method, grad_cam, overlay

N = 24
NAMES = ["normal", "mild", "severe"]
MISTAKES = {  # model -> images that it gets wrong; at 7 all three give the same wrong answer
    "Base": [4, 5, 7],
    "Tiny": [5, 6, 7],
    "Tiny, answers": [7],
}


@dataclass
class Drawn:
    """What a model that is only a name answers, and what its maps are."""

    logits: np.ndarray  # (N, classes)
    maps: np.ndarray  # (N, classes, 7, 7)


@dataclass
class World:
    """Three models that are names, their images, and which maps were made."""

    split: Split
    models: dict[str, Drawn]
    made: list[tuple]

    def heatmaps(self, model, images, method, targets, multi_label, signed):
        self.made.append((model, method, targets))
        drawn = self.models[model]
        classes = drawn.logits.argmax(axis=1) if targets is None else targets
        return drawn.maps[np.arange(N), classes]

    def browser(self, at: int = 6, **options) -> GradCAMBrowser:
        """A browser that shows image ``at``."""
        arguments = {
            "models": {name: name for name in self.models},
            "split": self.split,
            "class_names": NAMES,
        }
        browser = GradCAMBrowser(**(arguments | options))
        browser.slider.value = at + 1
        return browser


def drawn_model(labels, mistakes, rng) -> Drawn:
    """All maps are equally strong except those of image 6."""
    is_wrong = np.isin(np.arange(N), mistakes)
    predictions = (labels + is_wrong) % 3
    noise = rng.uniform(0, 1, (N, 3))
    logits = 3 * np.eye(3)[predictions] + noise
    maps = rng.uniform(-1e-3, 1e-3, (N, 3, 7, 7))
    maps[..., 0, 0] = 2e-3
    maps[6, :, 0, 0] = 3e-3
    return Drawn(logits, maps.astype(np.float32))


@pytest.fixture
def world(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    models = {}
    for name, mistakes in MISTAKES.items():
        models[name] = drawn_model(labels, mistakes, rng)
    images = rng.integers(0, 256, (N, 28, 28), dtype=np.uint8)
    world = World(Split(images, labels), models, made=[])
    monkeypatch.setattr(module, "predict", lambda model, images: models[model].logits)
    monkeypatch.setattr(module, "heatmaps", world.heatmaps)
    return world


def shown(browser) -> list[bytes]:
    return [view.value for view in browser.views]


def decoded(view) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(view.value)))


# --- moving through the images ---


def test_its_text_form_says_how_many_images_it_has_in_one_line(world):
    text = repr(world.browser())
    assert "24 images" in text
    assert "\n" not in text


@pytest.mark.filterwarnings("error:Passing unrecognized arguments")  # ipywidgets 7 has fewer
def test_it_is_made_without_arguments_that_ipywidgets_does_not_know(world):
    world.browser()


def test_the_slider_changes_every_picture(world):
    browser = world.browser(at=0)
    before = shown(browser)
    browser.slider.value = 5
    assert not set(before) & set(shown(browser))


def test_the_status_says_which_image_is_shown(world):
    browser = world.browser(at=8)
    assert browser.status.value == "Image 9 of 24, row 8 of the split"


def test_next_goes_one_image_on(world):
    browser = world.browser(at=4)
    browser.next.click()
    assert browser.slider.value == 6


def test_next_stays_at_the_last_image(world):
    browser = world.browser(at=N - 1)
    browser.next.click()
    assert browser.slider.value == N


def test_previous_goes_one_image_back(world):
    browser = world.browser(at=4)
    browser.previous.click()
    assert browser.slider.value == 4


def test_previous_stays_at_the_first_image(world):
    browser = world.browser(at=0)
    browser.previous.click()
    assert browser.slider.value == 1


def test_play_moves_the_slider(world):
    browser = world.browser()
    browser.play.value = 9
    assert browser.slider.value == 9


@pytest.mark.parametrize(
    ("number_of_empty_maps", "place"),
    [
        (0, 7),  # image 6, where a model errs, has the strongest maps
        (7, 8),  # all models err at image 7
        (8, 9),  # no map is left at an error: the strongest of the others
        (N, 1),
    ],
)
def test_it_opens_at_an_error_where_no_map_is_empty(world, number_of_empty_maps, place):
    world.models["Tiny"].maps[:number_of_empty_maps] = -1
    models = {name: name for name in world.models}
    browser = GradCAMBrowser(models, world.split, NAMES)
    assert browser.slider.value == place


# --- filters ---


def test_wrong_are_images_at_which_a_model_errs(world):
    browser = world.browser()
    browser.filter.value = "wrong"
    assert browser.selection.tolist() == [4, 5, 6, 7]


def test_disagree_are_images_with_two_answers(world):
    browser = world.browser()
    browser.filter.value = "disagree"
    assert browser.selection.tolist() == [4, 5, 6]


def test_a_filter_limits_slider_and_play(world):
    browser = world.browser()
    browser.filter.value = "wrong"
    assert browser.slider.max == 4
    assert browser.play.max == 4


def test_a_filter_stays_on_an_image_that_passes_it(world):
    browser = world.browser(at=5)
    browser.filter.value = "wrong"
    assert browser.status.value == "Image 2 of 4, row 5 of the split"


def test_a_filter_goes_to_its_first_image_where_this_one_does_not_pass(world):
    browser = world.browser(at=7)
    browser.filter.value = "disagree"
    assert browser.status.value == "Image 1 of 3, row 4 of the split"


def test_one_model_cannot_disagree(world):
    browser = world.browser(models={"Tiny": "Tiny"})
    names = [name for _, name in browser.filter.options]
    assert names == ["all", "wrong"]


# --- texts ---


@pytest.fixture
def texts(world):
    """Texts at image 4 of the second class, which Base takes for the third and Tiny does not."""
    return [box.value for box in world.browser(at=4).texts]


def test_the_first_text_is_the_true_class(texts):
    assert ">mild<" in texts[0]


def test_a_text_has_the_answer_with_its_probability(world, texts):
    probability = softmax(world.models["Tiny"].logits[4])[1]
    assert f">mild {probability:.1%}<" in texts[2]


def test_a_text_says_that_an_answer_is_wrong(texts):
    assert "✗ wrong" in texts[1]


def test_a_text_says_that_an_answer_is_right(texts):
    assert "✓ right" in texts[2]


def test_a_text_says_which_class_the_map_explains(texts):
    assert "map for mild" in texts[2]


def test_a_text_has_the_highest_value_of_the_map(texts):
    assert "peak 0.002" in texts[2]


def test_a_text_has_the_rank_correlation_with_the_first_models_map(world, texts):
    of_base = world.models["Base"].maps[4, 2]
    of_tiny = world.models["Tiny"].maps[4, 1]
    correlation = scipy.stats.spearmanr(of_base, of_tiny, axis=None)[0]
    assert f"agreement {correlation:+.2f}" in texts[2]


def test_the_first_model_does_not_agree_with_itself_in_its_text(texts):
    assert "agreement" not in texts[1]


def test_names_are_shown_as_they_are_spelled(world):
    browser = world.browser(class_names=["<b>", "mild", "severe"], at=0)
    assert "&lt;b&gt;" in browser.texts[0].value


# --- maps ---


@pytest.mark.parametrize(("scale", "strongest"), [("model", 3e-3), ("image", "image")])
def test_a_picture_is_the_overlay_of_gradcam(world, scale, strongest):
    browser = world.browser(at=8)
    browser.target.value = 2
    browser.scale.value = scale
    browser.opacity.value = 0.3
    image = world.split.images[8:9]
    heatmap = world.models["Tiny"].maps[8:9, 2]
    expected = overlay(image, heatmap, 0.3, strongest, size=SIDE)[0]
    assert np.array_equal(decoded(browser.views[2]), expected)


@pytest.fixture
def empty_browser(world):
    """Base's maps have no positive value."""
    drawn = world.models["Base"]
    drawn.maps = -np.abs(drawn.maps)
    return world.browser()


def test_an_empty_map_leaves_the_image_as_it_is(empty_browser):
    image, picture, *_ = shown(empty_browser)
    assert picture == image


def test_a_text_says_that_a_map_is_empty(empty_browser):
    assert "empty map" in empty_browser.texts[1].value


def test_every_method_can_be_chosen_by_its_title(world):
    browser = world.browser()
    options = [(method.title, name) for name, method in METHODS.items()]
    assert list(browser.method.options) == options


def test_a_method_that_is_added_to_the_registry_can_be_chosen(world, monkeypatch):
    monkeypatch.setitem(METHODS, "mine", Method("mine", "my maps", "#123456", grad_cam))
    browser = world.browser()
    browser.method.value = "mine"
    assert world.made[-1][1] == "mine"


def test_the_first_method_is_the_one_given(world):
    browser = world.browser(method="legrad")
    assert browser.method.value == "legrad"
    assert {method for _, method, _ in world.made} == {"legrad"}


def test_another_method_makes_only_the_maps_that_are_shown(world):
    browser = world.browser()
    world.made.clear()
    browser.method.value = "legrad"
    assert world.made == [(model, "legrad", None) for model in world.models]


def test_maps_are_made_once(world):
    browser = world.browser()
    browser.method.value = "legrad"
    world.made.clear()
    browser.method.value = "grad_cam"
    browser.method.value = "legrad"
    assert world.made == []


def test_another_method_redraws_the_pictures(world, monkeypatch):
    browser = world.browser()
    before = shown(browser)
    other_maps = world.models["Tiny"].maps[::-1, 0].copy()
    monkeypatch.setattr(module, "heatmaps", lambda *_, **__: other_maps)
    browser.method.value = "legrad"
    assert not set(before[1:]) & set(shown(browser))


# --- bad input ---


def test_no_model_is_refused(world):
    with pytest.raises(SwysError, match="0 models, 24 images; give at least one"):
        world.browser(models={})


def test_hidden_labels_are_refused(world):
    hidden = Split(world.split.images, np.full(N, -1))
    with pytest.raises(SwysError, match="labels -1 to -1"):
        world.browser(split=hidden)


def test_another_number_of_class_names_is_refused(world):
    with pytest.raises(SwysError, match="4 class names"):
        world.browser(class_names="abcd")
