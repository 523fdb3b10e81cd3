"""Which class pays: the row of `swys compare` about the class that loses most."""

from dataclasses import replace

import numpy as np
import pytest
from compare_cases import FEW, NAMES, brightest, images_of, labels_of

from swys import compare
from swys.comparison import Effort
from swys.gates import exit_code, gates_of
from swys.measures import Answers
from swys.result import Comparison
from swys.verdicts import CANNOT_TELL, KEPT, LOST, Bounds, paired_difference
from swys.wording import headline
from swys.worst_class import class_losses, class_row
from swys_utils.config import SwysError

BOUNDS = Bounds()
NONE = Effort(
    maps=0,
    occlusions=0,
    shown=0,
    seconds=0,
)


def answers_of(classes: np.ndarray, count: int = 3) -> Answers:
    """The answers of a model that is sure of these classes."""
    return Answers.of(5.0 * np.eye(count)[classes], multi_label=False)


def rare_class(rare: int = 40, common: int = 4000) -> np.ndarray:
    """Labels: two common classes, and a rare third one."""
    return np.concatenate([np.arange(common) % 2, np.full(rare, 2)])


def test_a_rare_class_that_is_forgotten_is_lost_and_accuracy_is_kept():
    labels = rare_class()
    forgotten = np.where(labels == 2, 0, labels)
    a = answers_of(labels)
    b = answers_of(forgotten)
    row = class_row(a, b, labels, NAMES, BOUNDS)
    assert row.verdict == LOST
    assert row.estimate.value == 100
    assert row.note == "'right', 40 images; surely lost: 'right'"
    accuracy = paired_difference(a.right(labels), b.right(labels))
    assert accuracy.high < 0.02


def test_the_row_is_about_the_class_that_is_surely_lost():
    labels = np.concatenate([np.zeros(200, int), np.ones(200, int), [2]])
    given = labels.copy()
    given[:30] = 1  # 15 points of 'left', surely
    given[-1] = 0  # the only image of 'right', by luck
    row = class_row(answers_of(labels), answers_of(given), labels, NAMES, BOUNDS)
    assert row.verdict == LOST
    assert row.subject == "left"
    assert row.a == "100.0%"
    assert row.b == "85.0%"


def test_the_headline_says_that_a_class_is_lost():
    labels = rare_class(rare=40, common=4000)

    def forgetful(scores):
        scores = scores.copy()
        scores[:, 2] = -100
        return scores

    pictures = images_of(labels, side=6)
    bright = compare(
        brightest, lambda images: forgetful(brightest(images)), pictures, labels, NAMES, effort=NONE
    )
    assert (
        headline(bright.measured)
        == "B gives the answers that A gives, but loses the class 'right'."
    )


def test_the_same_answers_are_kept_where_every_class_has_enough_images():
    labels = rare_class(rare=400)
    a = answers_of(labels)
    row = class_row(a, a, labels, NAMES, BOUNDS)
    assert row.verdict == KEPT
    assert row.estimate.value == 0


def test_few_images_of_a_class_cannot_tell_and_it_is_named():
    labels = rare_class(rare=20)
    a = answers_of(labels)
    row = class_row(a, a, labels, NAMES, BOUNDS)
    assert row.verdict == CANNOT_TELL
    assert row.remedy == "compare more images of 'right'; these are 20"


def test_a_class_without_images_does_not_count():
    labels = np.arange(300) % 2
    a = answers_of(labels)
    losses = class_losses(a, a, labels, NAMES)
    assert [each.name for each in losses] == ["left", "middle"]


def test_one_class_alone_has_the_interval_of_a_paired_difference():
    labels = np.zeros(50, int)
    given = labels.copy()
    given[:5] = 1
    a = answers_of(labels)
    b = answers_of(given)
    (only,) = class_losses(a, b, labels, NAMES)
    expected = paired_difference(labels == 0, given == 0)
    assert only.loss.low == pytest.approx(100 * expected.low)
    assert only.loss.high == pytest.approx(100 * expected.high)


def test_with_more_classes_it_takes_more_to_be_sure_of_a_loss():
    labels = np.arange(300) % 3
    a = answers_of(labels)
    always = np.full(100, True)
    one = paired_difference(always, always)
    losses = class_losses(a, a, labels, NAMES)
    for each in losses:
        assert each.loss.high == pytest.approx(100 * one.high)
        assert each.loss.low < 100 * one.low


def test_of_several_labels_those_that_are_there_count():
    labels = np.zeros((60, 3), int)
    labels[:30, 0] = 1
    labels[:, 2] = 1
    logits = 5.0 * (2 * labels - 1)
    a = Answers.of(logits, multi_label=True)
    without = logits.copy()
    without[:30, 0] = -5  # B never sees the first label; the images without it do not matter
    b = Answers.of(without, multi_label=True)
    row = class_row(a, b, labels, NAMES, BOUNDS)
    assert row.estimate.value == 100
    assert row.subject == "left"
    losses = class_losses(a, b, labels, NAMES)
    assert [each.images for each in losses] == [30, 60]


def test_the_interval_contains_the_largest_true_loss():
    """Eight classes of 60 images; A is right on .9 of each, B on .8."""
    rng = np.random.default_rng(0)
    labels = np.arange(480) % 8
    names = [str(number) for number in range(8)]
    other = (labels + 1) % 8
    contained = 0
    for _ in range(100):
        right_a = rng.random(480) < 0.9
        right_b = rng.random(480) < 0.8
        given_a = np.where(right_a, labels, other)
        given_b = np.where(right_b, labels, other)
        a = answers_of(given_a, count=8)
        b = answers_of(given_b, count=8)
        estimate = class_row(a, b, labels, names, BOUNDS).estimate
        contained += estimate.low <= 10 <= estimate.high
    assert contained >= 93


@pytest.fixture(scope="module")
def measured():
    labels = labels_of(60)
    result = compare(
        brightest,
        brightest,
        images_of(labels),
        labels,
        NAMES,
        effort=FEW,
    )
    return result.measured


def test_the_row_stands_in_a_comparison(measured):
    row = measured.row("class")
    assert row.estimate.value == 0
    assert row.title == "Worst class"


def test_it_is_a_gate_only_where_it_is_asked_for(measured):
    options = [gate.option for gate in gates_of(measured)]
    assert "max_class_drop" not in options
    asked = replace(measured, asked=frozenset({"max_class_drop"}))
    gates = {gate.option: gate for gate in gates_of(asked)}
    assert gates["max_class_drop"].code == 2
    assert "compare more images of 'left'" in gates["max_class_drop"].line


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("max_class_drop", "no labels"),
        ("max_ece_rise", "no labels"),
        ("max_time", "not timed"),
    ],
)
def test_a_gate_that_was_asked_for_and_not_measured_fails(option, why):
    images = images_of(labels_of(30))
    bare = compare(brightest, brightest, images, effort=FEW).measured
    gates = gates_of(replace(bare, asked=frozenset({option})))
    (gate,) = [gate for gate in gates if gate.option == option]
    assert gate.code == 2
    assert why in gate.line
    assert exit_code(gates) == 2


def test_from_python_a_gate_is_asked_for_by_name(measured):
    result = Comparison(measured).with_gates("max_class_drop")
    assert "max_class_drop" in [gate.option for gate in result.gates]
    assert result.exit_code == 2
    with pytest.raises(SwysError, match="unknown gate 'max_loss'"):
        result.with_gates("max_loss")
