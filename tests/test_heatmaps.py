"""Maps of many images by any method on the list, and what is refused."""

import builtins

import numpy as np
import pytest
import torch
from small import vit
from timm.models.vision_transformer import ResPostBlock
from vit_cases import CLASSES, Case, close, make

from swys_utils import gradcam
from swys_utils.config import SwysError, no_bar
from swys_utils.data import to_model_input
from swys_utils.gradcam import METHODS, Method, grad_cam, heatmaps, legrad
from swys_utils.models import SERIES


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


# The list of methods


def test_each_method_is_listed_under_its_id():
    for name, method in METHODS.items():
        assert method.id == name


def test_methods_differ_in_title_and_colour():
    titles = {method.title for method in METHODS.values()}
    colours = {method.colour for method in METHODS.values()}
    assert len(titles) == len(METHODS)
    assert len(colours) == len(METHODS)


def test_no_method_has_the_colour_of_a_model():
    of_models = {model.colour for model in SERIES.values()}
    assert not of_models & {method.colour for method in METHODS.values()}


def test_a_method_that_is_added_to_the_list_can_be_chosen(monkeypatch):
    def ones(model, inputs, *args):
        return torch.ones(len(inputs), 4, 4)

    added = Method("ones", "Ones", "#0072B2", ones)
    monkeypatch.setitem(METHODS, "ones", added)
    model, inputs, _ = make()
    maps = heatmaps(model, inputs, "ones")
    assert maps.mean() == 1


# Maps of many images


@pytest.fixture
def small() -> Case:
    return make()


def test_heatmaps_of_batches_equal_one_big_batch(small, images):
    inputs = to_model_input(images, 32)
    expected = grad_cam(small.model, inputs, CLASSES)
    maps = heatmaps(small.model, images, targets=CLASSES, batch_size=2)
    assert close(maps, expected)


@pytest.mark.parametrize("method, steps", [("grad_cam", [2, 2, 1]), ("occlusion", [1] * 5)])
def test_one_bar_counts_all_images(small, images, monkeypatch, method, steps):
    """Hiding patches is slow, so its bar moves with each image."""
    counted = []

    class Bar:
        def __init__(self, **options):
            assert (options["total"], options["delay"]) == (5, 5)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, count):
            counted.append(count)

    monkeypatch.setattr(gradcam, "tqdm", Bar)
    heatmaps(small.model, images, method, batch_size=2)
    assert counted == steps


def test_a_log_file_gets_no_bar(monkeypatch):
    assert no_bar()  # of pytest's captured output
    monkeypatch.setattr(builtins, "get_ipython", None, raising=False)  # as in a notebook
    assert not no_bar()
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert no_bar()


def test_heatmaps_take_model_input(small):
    model, inputs, _ = small
    expected = grad_cam(model, inputs)
    assert close(heatmaps(model, inputs), expected)


def test_heatmaps_take_a_function(small):
    model, inputs, _ = small
    expected = legrad(model, inputs)
    assert close(heatmaps(model, inputs, legrad), expected)


def test_heatmaps_pass_options_on(small):
    model, inputs, _ = small
    expected = grad_cam(model, inputs, 1, block=0, signed=True)
    maps = heatmaps(model, inputs, targets=1, block=0, signed=True)
    assert close(maps, expected)


ENLARGED = torch.zeros(5, 3, 224, 224)
NO_IMAGES = torch.zeros(0, 3, 32, 32)
TOO_MANY = [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("model", torch.nn.Linear(3, 3), "Linear is not"),
        ("model", vit(block_fn=ResPostBlock), "ResPostBlock is not"),
        ("block", 3, "choose 0 to 2"),
        ("images", ENLARGED, "give a float tensor (B, 3, 32, 32)"),
        ("images", NO_IMAGES, "for 0 images"),
        ("method", "gradcam", "did you mean 'grad_cam'"),
        ("targets", 4, "4 for 5 images; give one class from 0 to 3"),
        ("targets", 1.0, "1.0 for 5 images"),
        ("targets", True, "True for 5 images"),
        ("targets", [0, 1], "[0, 1] for 5 images"),
        ("targets", TOO_MANY, "[0, 1, 2, 3, 0, 1] for 5 images"),
    ],
)
def test_what_cannot_be_explained_is_one_line(small, argument, value, message):
    arguments = {"model": small.model, "images": small.inputs}
    arguments[argument] = value
    with pytest.raises(SwysError) as error:
        heatmaps(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_function_checks_the_number_of_targets(small):
    with pytest.raises(SwysError, match="for 5 images; give one class from 0 to 3, or one for"):
        grad_cam(small.model, small.inputs, [0, 1])
