"""How models want their images: as timm's own transforms, from configurations, and given."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from swys.preprocessing import Preprocessing, from_image_processor, from_timm, given
from swys_utils.config import SwysError

PHOTO = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_is_what_timms_transform_does(name):
    model = timm.create_model(name)
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    expected = transform(Image.fromarray(PHOTO))
    found = from_timm(config)(PHOTO[None])[0]
    # Pillow and torch round a resized pixel to neighbouring values at times
    assert (found - expected).abs().mean() < 0.02


def test_grey_images_become_three_channels():
    pixels = Preprocessing(size=28)(np.zeros((2, 28, 28), np.uint8))
    assert pixels.shape == (2, 3, 28, 28)


def test_colour_becomes_grey_for_a_model_of_one_channel():
    pixels = Preprocessing(size=96, mean=(0.5,), std=(0.5,))(PHOTO[None])
    assert pixels.shape == (1, 1, 96, 96)


def test_what_hugging_face_writes_is_read():
    config = {
        "do_center_crop": True,
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "resample": 3,
    }
    found = from_image_processor(config)
    assert (found.size, found.crop, found.interpolation) == (224, 0.875, "bicubic")


def test_what_is_given_replaces_what_the_model_says():
    found = given("size=64,mean=0.5,std=0.1/0.2/0.3", Preprocessing())
    assert (found.size, found.mean, found.std) == (64, (0.5,) * 3, (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    "text",
    ["size=0", "size=x", "sise=28", "std=0", "mean=nan", "crop=2", "mean=1/2", "interpolation=x"],
)
def test_impossible_values_are_one_line(text):
    with pytest.raises(SwysError):
        given(text, Preprocessing())


def test_a_model_of_rectangles_is_refused():
    with pytest.raises(SwysError, match="squares"):
        from_timm({"input_size": (3, 64, 32)})


def test_normalised_values_have_mean_and_deviation_taken_out():
    white = np.full((1, 2, 2), 255, np.uint8)
    prepare = Preprocessing(size=2, mean=(0.5,), std=(0.25,))
    pixels = prepare(white)
    assert torch.allclose(pixels, torch.full((1, 1, 2, 2), 2.0))


CONFIG = {"size": 224, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}


def test_a_processor_that_does_not_rescale_has_its_mean_of_255():
    found = from_image_processor(
        {
            "size": 224,
            "do_rescale": False,
            "image_mean": [127.5] * 3,
            "image_std": [63.75] * 3,
        }
    )
    assert found.mean == (0.5, 0.5, 0.5)
    assert found.std == (0.25, 0.25, 0.25)


def test_a_processor_of_rectangles_is_refused():
    with pytest.raises(SwysError, match="224 x 448 px; only squares"):
        from_image_processor(CONFIG | {"size": {"height": 224, "width": 448}})


@pytest.mark.parametrize(("side", "crop"), [(224, 0.875), (384, 1.0)])
def test_convnext_crops_small_images_only(side, crop):
    config = CONFIG | {
        "size": {"shortest_edge": side},
        "crop_pct": 0.875,
        "image_processor_type": "ConvNextImageProcessor",
    }
    assert from_image_processor(config).crop == crop


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("size=64", "size given; the rest assumed: ImageNet's usual values"),
        ("size=64,crop=1", "size, crop given; the rest assumed: ImageNet's usual values"),
        ("mean=0.5,std=0.5", "given"),
    ],
)
def test_what_was_not_given_is_said_to_be_assumed(text, source):
    assert given(text, Preprocessing()).source == source
