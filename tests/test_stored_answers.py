"""A teacher's stored answers: found by the pixels, computed where an image is not known."""

import numpy as np
import pytest
import torch
from small import vit

from swys_studies.ship import store_answers
from swys_utils import stored_answers
from swys_utils.models import save_checkpoint
from swys_utils.stored_answers import (
    StoredAnswers,
    answers_path,
    compute_answers,
    image_keys,
)


@pytest.fixture
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 28, 28), dtype=np.uint8)


@pytest.fixture
def checkpoint(tmp_path):
    save_checkpoint(vit(noise=0.3), tmp_path / "teacher", {"model": "vit_tiny"}, "fp32")
    return tmp_path / "teacher"


def assert_near(found, expected):
    torch.testing.assert_close(found.logits, expected.logits, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(found.maps, expected.maps, atol=5e-3, rtol=5e-3)


def test_stored_answers_are_those_that_were_computed(checkpoint, images):
    expected = compute_answers(checkpoint, images)
    store_answers(checkpoint, images)
    assert_near(stored_answers.stored_answers(checkpoint, images), expected)


def test_another_order_of_images_has_its_own_answers(checkpoint, images):
    store_answers(checkpoint, images)
    forwards = stored_answers.stored_answers(checkpoint, images)
    backwards = stored_answers.stored_answers(checkpoint, images[::-1])
    assert torch.equal(backwards.logits, forwards.logits.flip(0))


def test_an_unknown_image_has_no_stored_answer(checkpoint, images):
    store_answers(checkpoint, images[:4])
    assert stored_answers.stored_answers(checkpoint, images) is None


def test_without_a_file_nothing_is_stored(checkpoint, images):
    assert stored_answers.stored_answers(checkpoint, images) is None


def test_a_checkpoint_is_asked_now(checkpoint, images):
    answers = compute_answers(checkpoint, images)
    assert isinstance(answers, StoredAnswers)
    assert answers.logits.shape == (6, 2)


def test_equal_images_are_stored_once(checkpoint, images):
    twice = np.concatenate([images, images])
    once = store_answers(checkpoint, images).stat().st_size
    assert answers_path(checkpoint).stat().st_size == once
    assert store_answers(checkpoint, twice).stat().st_size == once
    assert len(stored_answers.stored_answers(checkpoint, twice).logits) == 12


def test_one_changed_pixel_is_another_image(images):
    changed = images.copy()
    changed[0, 0, 0] ^= 1
    assert image_keys(changed)[0] != image_keys(images)[0]
    assert image_keys(changed)[1:] == image_keys(images)[1:]


def test_answers_of_other_weights_are_not_used(checkpoint, images):
    store_answers(checkpoint, images)
    save_checkpoint(vit(noise=0.3, seed=1), checkpoint, {"model": "vit_tiny"}, "fp32")
    assert stored_answers.stored_answers(checkpoint, images) is None


def test_stored_answers_know_their_weights(checkpoint, images):
    store_answers(checkpoint, images)
    assert stored_answers.stored_answers(checkpoint, images) is not None
    assert len(stored_answers.weights_id(checkpoint)) == 64


def test_a_model_that_is_asked_is_left_as_it_was(images):
    model = vit().train()
    model.head.requires_grad_(False)
    stored_answers.answers_of(model, images)
    assert model.training
    assert not model.head.weight.requires_grad
    assert model.cls_token.requires_grad
