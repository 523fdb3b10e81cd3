"""What B kept of A: against itself, against shuffled weights, on few images, without labels."""

from dataclasses import replace

import numpy as np
import pytest
from compare_cases import (
    CLASSES,
    FEW,
    NAMES,
    QUICK,
    SmallCNN,
    brightest,
    images_of,
    in_another_order,
    labels_of,
    mostly_right,
    random_vit,
    shuffled_vit,
)
from jsonschema import validate
from sklearn.metrics import roc_auc_score

from swys import compare
from swys.compared_images import from_arrays
from swys.comparison import Effort
from swys.gates import gates_of
from swys.measures import maps_row, rank_area, speed_row
from swys.report_json import schema
from swys.verdicts import CANNOT_TELL, KEPT, LOST, Bounds
from swys_utils.benchmark import Timing
from swys_utils.config import SwysError


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return images_of(labels_of(600))


@pytest.fixture(scope="module")
def model():
    return random_vit()


@pytest.fixture(scope="module")
def against_itself(model, images):
    labels = mostly_right(model, images)
    bounds = Bounds(max_drop=3, max_class_drop=15)  # two of three classes have some fifty images
    return compare(model, model, images, labels, NAMES, bounds=bounds, effort=QUICK)


@pytest.fixture(scope="module")
def against_shuffled(model, images):
    labels = mostly_right(model, images)
    return compare(model, shuffled_vit(), images, labels, NAMES, effort=QUICK)


def test_a_model_against_itself_is_all_kept(against_itself):
    verdicts = dict(against_itself.verdicts)
    assert set(verdicts.values()) == {KEPT}


def test_the_exit_code_of_kept_is_0(against_itself):
    assert against_itself.exit_code == 0


@pytest.mark.parametrize("measure", ["accuracy", "agreement", "errors", "map", "occlusion"])
def test_a_model_against_shuffled_weights_is_lost(against_shuffled, measure):
    assert against_shuffled.verdicts[measure] == LOST


def test_the_exit_code_of_lost_is_1(against_shuffled):
    assert against_shuffled.exit_code == 1


@pytest.fixture(scope="module")
def on_20_images(model, images):
    few = images[:20]
    return compare(model, model, few, mostly_right(model, few), NAMES, effort=QUICK)


@pytest.mark.parametrize(
    "measure", ["accuracy", "auc", "calibration", "errors", "agreement", "map", "occlusion"]
)
def test_20_images_cannot_tell(on_20_images, measure):
    assert on_20_images.verdicts[measure] == CANNOT_TELL


def test_the_exit_code_of_cannot_tell_is_2(on_20_images):
    assert on_20_images.exit_code == 2


def test_one_image_gives_a_report(model, images):
    result = compare(model, model, images[:1], np.array([0]), NAMES, effort=FEW)
    assert result.verdicts["agreement"] == CANNOT_TELL


def test_without_labels_there_is_everything_but_accuracy(model, images):
    result = compare(model, model, images[:30], effort=FEW)
    assert set(result.verdicts) == {"agreement", "map", "occlusion", "size"}


def test_what_has_no_map_leaves_the_rest_of_the_report(images):
    result = compare(brightest, brightest, images, labels_of(600), NAMES, effort=FEW)
    assert not result.measured.row("map").measured
    assert result.measured.row("occlusion").measured


def test_a_convolutional_network_is_explained(images):
    result = compare(SmallCNN(), SmallCNN(), images[:8], effort=FEW)
    assert result.measured.row("map").estimate.value == pytest.approx(1)


def test_a_second_a_is_the_ceiling(model, images):
    result = compare(model, shuffled_vit(), images[:60], ceiling=model, effort=FEW)
    assert result.measured.row("map").ceiling == pytest.approx(1)


def test_chance_is_of_other_images_with_the_same_answer():
    answers = labels_of(12)
    of_answer = np.random.default_rng(0).random((CLASSES, 4, 4))
    maps = of_answer[answers]
    row = maps_row("map", {"A": maps, "B": maps}, answers, 0.3)
    assert row.chance == pytest.approx(1)


def test_chance_is_not_of_the_same_image(against_itself):
    assert against_itself.measured.row("map").chance < 0.9


def test_the_auc_is_that_of_sklearn(model, images):
    labels = mostly_right(model, images)
    result = compare(model, shuffled_vit(), images, labels, NAMES, effort=FEW)
    logits = model.scores(images).astype(float)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = roc_auc_score(labels, scores, multi_class="ovr")
    assert float(result.measured.row("auc").a) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("tied", [False, True])
def test_the_area_by_ranks_is_that_of_sklearn(tied):
    rng = np.random.default_rng(0)
    truth = np.eye(CLASSES, dtype=int)[labels_of(50)]
    scores = rng.random((50, CLASSES))
    if tied:
        scores = scores.round(1)
    assert rank_area(truth, scores) == pytest.approx(roc_auc_score(truth, scores))


def test_new_errors_and_inherited_ones_are_told_apart(images):
    def a(batch):
        scores = brightest(batch)
        scores[scores.argmax(axis=1) == 0] = [0, 9, 0]  # A takes "left" for "middle"
        return scores

    def b(batch):
        scores = a(batch)
        scores[scores.argmax(axis=1) == 2] = [0, 9, 0]  # B takes "right" for it, too
        return scores

    labels = labels_of(300)
    result = compare(a, b, images[:300], labels, NAMES, effort=Effort(0, 0, 0, 0))
    assert result.measured.row("errors").estimate.value == pytest.approx(1 / 3)
    assert "repeats 100 of A's 100 errors" in result.measured.row("errors").note


def several_labels(count: int) -> np.ndarray:
    """A row of 0 and 1 for each image; of the first, two are true."""
    labels = np.eye(CLASSES, dtype=int)[labels_of(count)]
    labels[0] = [1, 1, 0]
    return labels


def test_several_labels_can_be_true(images):
    labels = several_labels(60)
    result = compare(brightest, brightest, images[:60], labels, NAMES, effort=FEW)
    row = result.measured.row("accuracy")
    assert row.estimate.value == 0
    assert row.note == "the share of labels, not of images"


@pytest.mark.parametrize(("slower", "verdict"), [(1.0, KEPT), (2.0, LOST)])
def test_speed_is_a_ratio_of_rounds(slower, verdict):
    milliseconds = np.linspace(1, 2, 20)
    timings = {"A": Timing(milliseconds), "B": Timing(slower * milliseconds)}
    assert speed_row(timings, Bounds()).verdict == verdict


# The images that are shown


def test_the_worst_image_comes_first(against_shuffled):
    kinds = [image.kind for image in against_shuffled.measured.shown]
    assert kinds[0] == "newly wrong"


def test_some_images_with_the_same_answer_are_shown(against_shuffled):
    kinds = [image.kind for image in against_shuffled.measured.shown]
    assert kinds[-1] == "same answer"


def test_the_shown_answers_are_the_models(against_shuffled, model, images):
    first = against_shuffled.measured.shown[0]
    answer = model.scores(images[[first.index]]).argmax()
    assert first.answers[0] == NAMES[answer]


# As an object


def test_the_report_is_what_the_schema_says(against_shuffled):
    validate(against_shuffled.to_dict(), schema())


def test_a_notebook_shows_a_row_for_each_measure(against_shuffled):
    shown = against_shuffled._repr_html_()
    assert shown.count("<tr>") == 1 + len(against_shuffled.verdicts)


def test_the_slider_goes_through_the_images(against_shuffled):
    slider, view = against_shuffled.slider().children
    before = view.value
    slider.value = 2
    assert view.value != before


def test_the_figure_has_a_column_for_each_image(against_shuffled):
    figure = against_shuffled.figure(3)
    assert len(figure.axes) == 9


# What cannot be compared, and what looks like a mistake


def four_classes(images: np.ndarray) -> np.ndarray:
    return np.zeros((len(images), 4))


def not_a_number(images: np.ndarray) -> np.ndarray:
    return np.full((len(images), CLASSES), np.nan)


def one_score(images: np.ndarray) -> np.ndarray:
    return np.zeros(len(images))


def broken(images: np.ndarray) -> np.ndarray:
    raise KeyError("nothing\nhere")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (four_classes, "other numbers of classes"),
        (not_a_number, "no finite number"),
        (one_score, "one row"),
        (broken, "cannot read"),
    ],
)
def test_a_model_that_cannot_be_compared_is_one_line(images, function, told):
    with pytest.raises(SwysError, match=told) as error:
        compare(brightest, function, images[:5], effort=FEW)
    assert "\n" not in str(error.value)


def test_labels_of_more_classes_are_one_line(images):
    with pytest.raises(SwysError, match="classes"):
        compare(brightest, brightest, images[:9], np.arange(9), effort=FEW)


def test_another_order_of_the_classes_is_said(images):
    result = compare(brightest, in_another_order, images[:90], effort=FEW)
    assert any("another order" in note for note in result.measured.notes)


def test_what_nobody_asked_for_is_left_out(images):
    effort = Effort(maps=0, occlusions=0, shown=2, seconds=0)
    result = compare(brightest, brightest, images[:30], effort=effort)
    assert {"map", "occlusion", "speed"}.isdisjoint(result.verdicts)


def test_answers_near_chance_are_said(images):
    def lost(batch):
        return np.random.default_rng(0).random((len(batch), CLASSES))

    labels = labels_of(300)
    result = compare(brightest, lost, images[:300], labels, NAMES, effort=FEW)
    assert any("normalisation" in note for note in result.measured.notes)


def test_two_models_that_know_nothing_are_said(images):
    def lost(batch):
        return np.random.default_rng(0).random((len(batch), CLASSES))

    result = compare(lost, lost, images[:90], labels_of(90), NAMES, effort=FEW)
    expected = "neither model answers better than the commonest class"
    assert any(expected in note for note in result.measured.notes)


def test_a_threshold_elsewhere_is_said(images):
    def shifted(batch):
        return brightest(batch) + [15, 0, 0]

    result = compare(brightest, shifted, images[:90], labels_of(90), NAMES, effort=FEW)
    assert any("B ranks the images well" in note for note in result.measured.notes)


def test_one_answer_for_all_images_is_said(images):
    def stuck(batch):
        return np.tile([0.0, 9.0, 0.0], (len(batch), 1))

    result = compare(brightest, stuck, images[:60], effort=FEW)
    assert any("one answer" in note for note in result.measured.notes)


def test_a_model_against_itself_is_under_no_suspicion(against_itself):
    assert against_itself.measured.notes == []


def test_a_class_without_images_is_said(images):
    labels = np.tile([0, 1], 30)
    result = compare(brightest, brightest, images[:60], labels, NAMES, effort=FEW)
    assert any("no image of 'right'" in note for note in result.measured.notes)
    assert result.verdicts["auc"] == CANNOT_TELL


def test_probabilities_of_several_labels_are_refused(images):
    labels = several_labels(len(images))

    def after_a_sigmoid(pictures):
        return 1 / (1 + np.exp(-brightest(pictures)))

    with pytest.raises(SwysError, match="give its logits, from before the sigmoid"):
        compare(after_a_sigmoid, brightest, images, labels, effort=FEW)


def test_a_function_gets_grey_images_grey_also_without_patches(images):
    seen = set()

    def answer(pictures):
        seen.add(pictures.ndim)
        return brightest(pictures)

    compare(answer, brightest, images[:8], effort=FEW)
    assert seen == {3}


def test_a_fixed_batch_is_not_timed_as_one_image(model, images):
    fixed = replace(model, fixed_batch=8)
    found = compare(fixed, model, images[:8], effort=replace(FEW, seconds=1))
    row = found.measured.row("speed")
    assert row.verdict == CANNOT_TELL
    assert "A takes 8 images at once" in row.note


def test_too_few_images_are_told_how_many_would_do(on_20_images):
    gates = gates_of(on_20_images.measured)
    (line,) = [gate.line for gate in gates if gate.option == "min_agreement"]
    assert "about 190 would do" in line


def test_opened_images_have_labels_of_their_own(model, images):
    opened = from_arrays(images, None, None)
    with pytest.raises(SwysError, match="labels and class names of their own"):
        compare(model, model, opened, labels_of(600))


def test_the_auc_of_few_sick_cannot_tell(images):
    labels = np.zeros(len(images), int)
    labels[0] = 1

    def answer(pictures):
        evidence = (pictures == images[0]).mean(axis=(1, 2))
        return np.stack([-evidence, evidence], axis=1)

    found = compare(answer, answer, images, labels, effort=FEW)
    assert found.verdicts["auc"] == CANNOT_TELL
