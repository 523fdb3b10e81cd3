"""Fingerprints find copies of training images, and nothing else."""

import base64

import numpy as np
import pytest

from swys.fingerprints import pack_hashes, perceptual_hashes, seen_in_training
from swys_utils.config import SwysError
from swys_utils.data import load_dataset


@pytest.fixture(scope="module")
def images(drawn_data_dir):
    """Drawn images in colour."""
    return load_dataset("bloodmnist", root=drawn_data_dir).train.images


@pytest.fixture(scope="module")
def training_hashes(images):
    """Their fingerprints, as a card has them."""
    return pack_hashes(perceptual_hashes(images))


def test_a_copy_is_found(images, training_hashes):
    assert seen_in_training(training_hashes, images).all()


def test_most_copies_of_another_brightness_and_contrast_are_found(images, training_hashes):
    changed = np.clip(images * 0.9 + 10, 0, 255)
    changed = changed.round().astype(np.uint8)
    assert seen_in_training(training_hashes, changed).mean() > 0.8


def test_noise_is_not_found(images, training_hashes):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, images.shape, dtype=np.uint8)
    assert not seen_in_training(training_hashes, noise).any()


@pytest.mark.parametrize(
    ("bits", "found"),
    [
        (2, True),
        (3, False),
    ],
)
def test_two_bits_of_64_may_differ(images, bits, found):
    (stored,) = perceptual_hashes(images[:1])
    stored[0] ^= 2**bits - 1  # other values of that many bits
    training_hashes = base64.b64encode(stored.tobytes()).decode()
    assert seen_in_training(training_hashes, images[:1]).tolist() == [found]


def test_a_hash_is_64_bits(images):
    hashes = perceptual_hashes(images[:3])
    assert hashes.shape == (3, 8)
    assert hashes.dtype == np.uint8


def test_equal_hashes_are_kept_once(images):
    once = pack_hashes(perceptual_hashes(images[:1]))
    twice = pack_hashes(perceptual_hashes(images[[0, 0]]))
    assert twice == once


def test_no_real_test_image_is_in_the_training_split(real_data_dir):
    data = load_dataset(root=real_data_dir)
    training_hashes = pack_hashes(perceptual_hashes(data.train.images))
    assert not seen_in_training(training_hashes, data.test.images).any()


def test_eight_real_validation_images_are_in_the_training_split(real_data_dir):
    data = load_dataset(root=real_data_dir)
    training_hashes = pack_hashes(perceptual_hashes(data.train.images))
    seen = seen_in_training(training_hashes, data.val.images)
    assert seen.sum() == 8  # identical pixels in both splits


@pytest.mark.parametrize("text", ["AAAA", "AAA", "=", ""])
def test_text_without_fingerprints_is_refused(images, text):
    with pytest.raises(SwysError, match="training_hashes are damaged"):
        seen_in_training(text, images)
