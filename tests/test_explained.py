"""What the browser shows of a real model, on colour images with several labels."""

import numpy as np
import pytest
from small import vit

from swys_utils.browser import Explained
from swys_utils.data import Split, to_model_input
from swys_utils.gradcam import grad_cam, legrad

LABELS = np.array(
    [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
    ]
)


@pytest.fixture(scope="module")
def explained():
    """A model in training mode and its images, explained by Grad-CAM."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)
    model = vit(4).train()
    return Explained(
        {"Tiny": model},
        Split(images, LABELS),
        class_names="abcd",
        images=0,
        method="grad_cam",
    )


@pytest.fixture(scope="module")
def model():
    """The same model in evaluation mode."""
    return vit(4)


@pytest.fixture(scope="module")
def inputs(explained):
    return to_model_input(explained.images)


def test_an_image_without_a_label_says_so(explained):
    texts = explained.texts(0, 1)
    assert texts[0] == ["image", "no label", "true class"]


def test_an_image_has_the_name_of_its_label(explained):
    texts = explained.texts(2, 1)
    assert texts[0] == ["image", "b", "true class"]


def test_labels_are_those_of_the_split(explained):
    assert np.array_equal(explained.labels, LABELS)


def test_a_model_names_every_label_above_one_half(explained):
    above = explained.scores["Tiny"] > 0.5
    assert np.array_equal(explained.predictions["Tiny"], above)


def test_scores_of_several_labels_are_sigmoids(explained, model, inputs):
    logits = model(inputs).detach()
    scores = explained.scores["Tiny"]
    np.testing.assert_allclose(scores, logits.sigmoid(), atol=1e-5)


def test_a_model_in_training_mode_stays_in_it(explained):
    explained.maps("Tiny", 3)
    assert explained.models["Tiny"].training


def test_maps_of_a_class_are_signed_grad_cam_maps(explained, model, inputs):
    expected = grad_cam(model, inputs, targets=3, signed=True)
    maps = explained.maps("Tiny", 3)
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_maps_of_the_predicted_class_are_signed_grad_cam_maps(explained, model, inputs):
    expected = grad_cam(model, inputs, signed=True)
    maps = explained.maps("Tiny", "predicted")
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_maps_are_made_by_another_method_once_it_is_chosen(explained, model, inputs, monkeypatch):
    monkeypatch.setattr(explained, "method", "legrad")
    expected = legrad(model, inputs, targets=3, signed=True)
    maps = explained.maps("Tiny", 3)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
