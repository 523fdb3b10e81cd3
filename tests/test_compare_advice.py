"""What `swys compare` says where something looks like a mistake, or is not enough to tell."""

import math
from dataclasses import replace

import numpy as np
import pytest
from compare_cases import CLASSES, FEW, NAMES, brightest, images_of, in_another_order, labels_of

from swys import compare
from swys.comparison import Effort
from swys.gates import gates_of
from swys.measures import maps_row, size_row
from swys.opened_models import are_probabilities, opened_function
from swys.verdicts import CANNOT_TELL, KEPT, LOST, Bounds, enough_unseen, unseen_share
from swys.wording import headline, row_text
from swys_utils.config import SwysError

COUNT = 60


@pytest.fixture(scope="module")
def labels():
    return labels_of(COUNT)


@pytest.fixture(scope="module")
def images(labels):
    return images_of(labels)


def worse(images: np.ndarray) -> np.ndarray:
    """A function that is wrong on every fourth image."""
    scores = brightest(images)
    others = [1, 2, 0]
    scores[::4] = scores[::4, others]
    return scores


def test_a_better_b_is_said_to_be_better(images, labels):
    measured = compare(worse, brightest, images, labels, NAMES, effort=FEW).measured
    assert headline(measured) == "B is right more often than A, and gives other answers."


def test_a_worse_b_is_said_to_be_worse(images, labels):
    measured = compare(brightest, worse, images, labels, NAMES, effort=FEW).measured
    assert headline(measured).startswith("B is right less often than A")


def test_a_b_that_loses_less_than_the_limit_is_right_nearly_as_often(images, labels):
    wide = Bounds(max_drop=60)
    measured = compare(brightest, worse, images, labels, NAMES, effort=FEW, bounds=wide).measured
    expected = (
        "By the limits that were set: B is right nearly as often as A, but gives other answers"
    )
    assert headline(measured).startswith(expected)


def test_maps_as_alike_between_different_images_tell_nothing():
    rng = np.random.default_rng(0)
    habit = rng.random((1, 7, 7))
    maps = {name: habit + 0.3 * rng.random((40, 7, 7)) for name in ("A", "B")}
    row = maps_row("map", maps, np.zeros(40, int), bound=0.4)
    assert row.verdict == CANNOT_TELL
    assert "two different images agree" in row.note


def test_models_of_one_name_have_their_own_numbers_of_classes(images):
    def of_two(pictures):
        return brightest(pictures)[:, :2]

    of_two.__name__ = "brightest"
    with pytest.raises(SwysError, match="'brightest' has 3, 'brightest' has 2"):
        compare(brightest, of_two, images, effort=FEW)


def test_classes_of_the_data_in_another_order_are_said(images, labels):
    moved = (labels + 1) % CLASSES
    measured = compare(brightest, brightest, images, moved, NAMES, effort=FEW).measured
    notes = [note for note in measured.notes if "classes of the data" in note]
    (note,) = notes
    assert "'middle' is A's class 0" in note


def test_classes_in_the_order_of_the_data_get_no_word(images, labels):
    measured = compare(brightest, brightest, images, labels, NAMES, effort=FEW).measured
    assert not [note for note in measured.notes if "order" in note]


def test_b_in_another_order_is_still_said(images, labels):
    measured = compare(brightest, in_another_order, images, labels, NAMES, effort=FEW).measured
    assert [note for note in measured.notes if "B seems to have the classes" in note]


@pytest.mark.parametrize("steps", [1000, 255])
def test_rounded_probabilities_are_probabilities(images, steps):
    scores = brightest(images)
    exact = np.exp(scores)
    exact /= exact.sum(axis=1, keepdims=True)
    rounded = np.round(exact * steps) / steps
    assert are_probabilities(rounded)


@pytest.mark.parametrize(("bytes_of_b", "verdict"), [(1_000_020, KEPT), (1_010_000, LOST)])
def test_a_byte_more_is_the_same_size(bytes_of_b, verdict):
    opened = opened_function(brightest, "A")
    a = replace(opened, size_bytes=1_000_000)
    b = replace(opened, size_bytes=bytes_of_b)
    assert size_row(a, b).verdict == verdict


def test_the_second_a_stands_on_the_line(images, labels):
    result = compare(
        brightest,
        worse,
        images,
        labels,
        NAMES,
        ceiling=brightest,
        effort=FEW,
    )
    assert "second A 100.0%" in row_text(result.measured.row("agreement"))


def test_few_maps_are_told_how_many_would_do(images, labels):
    few = Effort(
        maps=0,
        occlusions=3,
        shown=0,
        seconds=0,
    )
    measured = compare(brightest, brightest, images, labels, NAMES, effort=few).measured
    lines = [gate.line for gate in gates_of(measured) if gate.option == "min_occlusion"]
    assert "about 40 would do" in lines[0]
    assert "see --occlusions" in lines[0]


def test_so_many_images_are_enough_not_to_have_seen_it():
    count = math.ceil(enough_unseen(0.02))
    assert unseen_share(count) <= 0.02 < unseen_share(count - 1)


def test_one_label_as_a_row_is_refused(images, labels):
    rows = np.eye(CLASSES, dtype=int)[labels]
    with pytest.raises(SwysError, match="give the number of its class"):
        compare(brightest, brightest, images, rows, NAMES, effort=FEW)


def test_a_sigmoid_for_each_class_is_said(images, labels):
    def squashed(pictures):
        return 1 / (1 + np.exp(-brightest(pictures) / 10))

    measured = compare(brightest, squashed, images, labels, NAMES, effort=FEW).measured
    (note,) = [note for note in measured.notes if "sigmoid" in note]
    assert note.startswith("B gives numbers from 0 to 1")


def test_logits_get_no_word_about_a_sigmoid(images, labels):
    measured = compare(brightest, brightest, images, labels, NAMES, effort=FEW).measured
    assert not [note for note in measured.notes if "sigmoid" in note]
