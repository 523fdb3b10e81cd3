"""Widgets to play with."""

import base64
import io
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from swys_figures import dials
from swys_figures.benchmark import rounded_to
from swys_figures.bits import BitsDial
from swys_figures.data import WARNING
from swys_figures.dials import (
    PatchCover,
    QueryDial,
    TemperatureDial,
    ThresholdDial,
)
from swys_figures.marks import write_shares
from swys_utils.data import load_dataset
from swys_utils.models import create_model
from swys_utils.occlusion import occlusion

SICK = np.array([True, True, True, True, False, False, False, False])
P = np.array([0.9, 0.8, 0.6, 0.3, 0.7, 0.2, 0.1, 0.1])


@pytest.fixture
def dial():
    return ThresholdDial({"Tiny": P}, SICK)


def test_at_first_the_share_is_that_of_the_images(dial):
    assert dial.share.value == 50
    (row,) = dial.rows()
    assert row["sick found"] == "75 of 100"
    assert row["healthy cleared"] == "75 of 100"
    assert row["alarms right"] == "7.5 of 10"
    assert row["cleared right"] == "7.5 of 10"


def test_where_few_are_sick_most_alarms_are_false(dial):
    dial.share.value = 5  # found 75 % of 5, false alarms 25 % of 95
    (row,) = dial.rows()
    assert row["alarms right"] == "1.4 of 10"
    assert row["cleared right"] == "9.8 of 10"  # 75 % of 95 of them, and 25 % of 5
    assert "<td>1.4 of 10</td>" in dial.table.value


def test_a_threshold_that_nobody_reaches_gives_no_alarm(dial):
    dial.threshold.value = 0.98
    assert dial.rows()[0]["alarms right"] == "no alarm"


def test_a_page_where_nothing_moves_says_where_the_sliders_stand(dial):
    assert "threshold 0.50, 50 of 100" in repr(dial)
    assert len(repr(dial)) < 110  # ipywidgets cuts the rest off


@pytest.fixture
def data(drawn_data_dir):
    return load_dataset("pneumoniamnist", root=drawn_data_dir)


@pytest.fixture
def cover(data):
    torch.manual_seed(0)
    model = create_model("vit_tiny", num_classes=2, patch_size=7).eval()
    pictures = {"one": data.test.images[0], "another": data.test.images[1]}
    return PatchCover({"Tiny": model}, data, pictures)


def test_there_is_a_button_for_each_patch(cover):
    assert len(cover.buttons) == 16
    assert cover.buttons[6].tooltip == "cover row 2, column 3"


def test_a_pressed_patch_has_the_mean_of_the_picture(cover, data):
    cover.buttons[6].value = True
    expected = data.test.images[0].copy()
    expected[7:14, 14:21] = round(data.test.images[0].mean())
    assert np.array_equal(cover.covered(), expected)
    assert "1 patches covered" in cover.answer.value


def test_another_picture_can_be_chosen(cover, data):
    cover.choice.value = "another"
    assert np.array_equal(cover.covered(), data.test.images[1])


def test_a_page_where_nothing_can_be_pressed_has_the_answers(cover):
    assert repr(cover).startswith("one: Tiny ")


def test_such_a_page_has_all_of_them(cover, data):
    cover.pictures = {f"{number}, a picture": data.test.images[number] for number in range(9)}
    assert cover._repr_mimebundle_()["text/plain"] == repr(cover)


def test_what_it_stores_is_what_it_would_answer(cover, data):
    stored = cover._repr_mimebundle_()[dials.STORED_COVER]
    assert (stored["asked"], stored["grid"], stored["models"]) == (cover.name, [4, 4], ["Tiny"])
    picture = stored["pictures"][1]
    image = data.test.images[1]
    answers = [cover.shares(cover.without(image, [place]))["Tiny"] for place in range(16)]
    assert np.ravel(picture["covered"]) == pytest.approx(answers, abs=1e-3)
    assert picture["whole"] == pytest.approx([cover.shares(image)["Tiny"]], abs=1e-3)
    shown = Image.open(io.BytesIO(base64.b64decode(picture["png"])))
    assert np.array_equal(np.array(shown.resize((28, 28), Image.Resampling.NEAREST)), image)
    mean = round(image.mean())
    assert picture["mean"] == f"rgb({mean} {mean} {mean})"
    json.dumps(stored)  # a notebook is JSON


def test_its_figure_covers_the_patch_that_counts_most(cover, data):
    figure = cover.figure()
    pictures = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    lost = occlusion(cover.models["Tiny"], data.test.images[:1], 1)[0]
    assert len(pictures) == 2 * 4  # two pictures: as they are, and with three patches covered
    assert np.array_equal(pictures[1], cover.without(data.test.images[0], [lost.argmax()]))


def test_a_patch_that_counts_most_for_two_models_is_covered_once(cover, monkeypatch):
    monkeypatch.setattr(dials, "FLOOR", -np.inf)
    cover.models = {"Base": cover.models["Tiny"], "Tiny": cover.models["Tiny"]}
    axes = [ax for ax in cover.figure().axes if ax.images]
    assert len(axes) == 4
    assert "counts most for Base, Tiny" in axes[1].get_title()


def test_a_patch_that_takes_nearly_nothing_is_not_covered(cover, monkeypatch):
    monkeypatch.setattr(dials, "FLOOR", np.inf)
    cover.models = {"Base": cover.models["Tiny"], "Tiny": cover.models["Tiny"]}
    axes = [ax for ax in cover.figure().axes if ax.images]
    assert len(axes) == len(cover.pictures)


def test_each_model_is_asked(cover, data):
    cover.models = {"Base": cover.models["Tiny"], "Tiny": cover.models["Tiny"]}
    base, tiny = cover.says(data.test.images[0]).split(", ")
    assert base.removeprefix("Base ") == tiny.removeprefix("Tiny ")


TOKENS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_the_shares_of_a_query_are_those_of_notebook_2():
    dial = QueryDial(TOKENS, TOKENS)
    assert dial.shares().tolist() == pytest.approx([0.401, 0.198, 0.401], abs=1e-3)
    assert "new token: (0.80, 0.60)" in dial.table.value
    assert "reads 40%, 20%, 40%" in repr(dial)
    assert len(repr(dial)) < 110


def test_a_query_can_be_moved_until_it_reads_from_one_token():
    dial = QueryDial(TOKENS, TOKENS)
    dial.query[0].value = -6
    dial.query[1].value = 6
    assert dial.shares()[1] > 0.9
    assert "(0.01, 1.00)" in dial.table.value


def test_a_high_temperature_pulls_answers_to_the_middle():
    dial = TemperatureDial(torch.tensor([[0.0, 4.0], [0.0, 0.5]]), "pneumonia")
    assert "temperature 1.00 gives 98%, 62%" in repr(dial)
    dial.temperature.value = 32
    assert "53.1%" in dial.table.value
    assert len(repr(dial)) < 110


def test_fewer_bits_leave_fewer_different_weights():
    matrix = torch.tensor([[0.1, -0.4, 1.0], [0.02, 0.01, -0.02]])
    assert rounded_to(matrix, 2).tolist() == [[0, 0, 1], [pytest.approx(0.02), 0, -matrix[1, 0]]]
    assert (rounded_to(matrix, 8) - matrix).abs().max() < 0.5 / 127


def test_the_dial_says_what_few_bits_do():
    model = create_model("vit_tiny_p7", num_classes=2).eval()
    images = np.random.default_rng(0).integers(0, 255, (4, 28, 28), np.uint8)
    dial = BitsDial(model, images, explained=8)
    assert int(dial.shown["same reasons"].rstrip("%")) > 90
    dial.bits.value = 2
    assert dial.shown["bits"] == "2"
    assert int(dial.shown["same reasons"].rstrip("%")) < 90
    assert int(dial.shown["same map"].rstrip("%")) < 90
    assert "of 4</td>" in dial.table.value
    assert repr(dial) == "Slider: 2 bits (run it to move it)"


def test_the_dial_of_bits_hides_patches_from_several_labels():
    model = create_model("vit_tiny_p7", num_classes=3).eval()
    images = np.random.default_rng(0).integers(0, 255, (2, 28, 28), np.uint8)
    dial = BitsDial(model, images, multi_label=True)
    lost = occlusion(model, images, dial.answers, multi_label=True)
    np.testing.assert_array_equal(dial.reasons, lost)
    assert not np.allclose(lost, occlusion(model, images, dial.answers))


def test_patches_cover_a_picture_that_they_do_not_divide(cover):
    picture = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    patches = range(cover.grid[0] * cover.grid[1])
    assert len(np.unique(cover.without(picture, patches))) == 1


def test_models_with_other_patches_are_covered_by_one_grid(data, monkeypatch):
    monkeypatch.setattr(dials, "FLOOR", -np.inf)
    torch.manual_seed(0)
    coarse = create_model("vit_tiny", num_classes=2, patch_size=7).eval()
    fine = create_model("vit_tiny", num_classes=2).eval()
    cover = PatchCover({"coarse": coarse, "fine": fine}, data, {"one": data.test.images[0]})
    places = cover._places(data.test.images[0])
    assert places
    assert max(places) < 16


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (0, "upper left corner covered"),
        (15, "lower right corner covered"),
        (5, "row 2, column 2 covered"),
    ],
)
def test_a_covered_corner_is_named(cover, place, words):
    assert cover._words(place) == words


def test_a_frame_marks_a_changed_answer():
    _, ax = plt.subplots()
    ax.set_frame_on(False)
    write_shares(ax, "sick", {"Tiny": 0.6}, {"Tiny": 0.9})
    assert not ax.get_frame_on()
    write_shares(ax, "sick", {"Tiny": 0.4}, {"Tiny": 0.9})
    assert ax.get_frame_on()
    first, second = ax.texts
    assert first.get_text() == "60 % sick"
    assert first.get_color() == WARNING
    assert second.get_color() == "black"
