"""Figures and tables of the planted study, with and without results."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from small import vit

from swys_figures import planted as planted_figures
from swys_figures import teaching as teaching_figures
from swys_studies.planted import planted_data
from swys_utils.data import Dataset
from swys_utils.planted import Mark, plant
from swys_utils.splits import Split

MARK = Mark()
IMAGES = np.zeros((4, 28, 28), np.uint8)


def unit(kind: str, patch: int = 7) -> dict:
    """An entry of planted.json, as far as figures read it."""
    keys = ("grad_cam, block 10", "grad_cam, block 11", "occlusion, mean", "occlusion, blur")
    alike = {"agreement": 0.5, "chance": 0.2}
    return {
        "kind": kind,
        "patch": patch,
        "mark": "corner",
        "model": "vit_tiny",
        "methods": {key: {"hits": 0.5, "chance": 0.06} for key in keys},
        "scores": {"flips": 0.4},
        "like_honest": {"grad_cam": alike, "occlusion": alike},
        "maps": {"occlusion": {"heat": 0.9}},
    }


def only_vits(units):
    """``planted_units`` where no other model was measured."""
    return lambda dataset, model="vit_tiny": [unit for unit in units if unit["model"] == model]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted_data("twin")


@pytest.fixture(scope="module")
def model():
    return vit(patch_size=4, noise=0.05)


@pytest.mark.parametrize("units", [[], [unit("cheat"), unit("cheat", 4), unit("honest answers")]])
def test_figures_of_the_planted_study_with_and_without_results(monkeypatch, units):
    for module in (planted_figures, teaching_figures):
        monkeypatch.setattr(module, "planted_units", only_vits(units))
    assert len(planted_figures.finders_figure().axes) == (2 if units else 1)
    assert len(teaching_figures.cheating_students().axes) == 3


def test_no_student_of_the_lesson_is_cut_off(monkeypatch):
    odd = unit("cheat")
    odd["like_honest"]["grad_cam"] = {"agreement": -0.4, "chance": 0.2}
    monkeypatch.setattr(
        teaching_figures,
        "planted_units",
        only_vits([odd, unit("honest answers")]),
    )
    by_map = teaching_figures.cheating_students().axes[1]
    drawn = []
    for line in by_map.lines:
        drawn += list(line.get_xdata())
    assert min(drawn) == pytest.approx(-75)
    assert by_map.get_xlim()[0] < -75


def test_only_the_two_ways_of_the_lesson_have_a_row_and_a_mean(monkeypatch):
    measured = unit("cheat")
    measured["methods"]["legrad, block 11"] = {"hits": 0.1, "chance": 0.06}
    other = unit("cheat")
    other["methods"]["occlusion, mean"] = {"hits": 1, "chance": 0.06}
    monkeypatch.setattr(
        planted_figures,
        "planted_units",
        only_vits([measured, other]),
    )
    (ax,) = planted_figures.finders_figure().axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["Grad-CAM", "hiding"]
    written = [text.get_text() for text in ax.texts]
    assert written == ["50 %", "75 %", " chance", "mean"]


def test_a_cnn_that_was_measured_has_a_panel_with_its_last_layer(monkeypatch):
    hits = {"grad_cam, layer3": 0.1, "grad_cam, layer4": 0.8, "occlusion, mean": 0.9}
    methods = {key: {"hits": share, "chance": 0.06} for key, share in hits.items()}
    cnn = unit("cheat") | {"model": "resnet18", "methods": methods}
    monkeypatch.setattr(planted_figures, "planted_units", only_vits([unit("cheat"), cnn]))
    _, ax = planted_figures.finders_figure().axes
    assert ax.get_title("left") == "ResNet-18, 1 models"
    drawn = [
        line.get_xdata()[0]
        for line in ax.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    ]
    assert drawn == [80, 90]


def test_a_map_that_points_at_the_mark_is_a_hit():
    planted = plant(
        Split(IMAGES[:1], np.array([1])),
        MARK,
        where="everywhere",
    )
    points = np.zeros((1, 7, 7))
    points[0, 0, 0] = 1
    maps = {"right": points, "wrong": points[:, ::-1].copy(), "none": 0 * points}
    first = slice(0, 1)
    figure = planted_figures.found_figure(
        planted.split.images,
        planted.mask,
        maps,
        first,
    )
    assert [ax.get_title() for ax in figure.axes] == ["", "hit", "miss", "empty"]


def test_the_share_of_hits_is_of_all_images():
    split = Split(IMAGES, np.ones(4, int))
    planted = plant(split, MARK, where="everywhere")
    points = np.zeros((4, 7, 7))
    points[0, 0, 0] = 1
    points[1:, 6, 6] = 1
    figure = planted_figures.found_figure(
        planted.split.images,
        planted.mask,
        {"a way": points},
        slice(0, 2),
    )
    assert len(figure.axes) == 4
    words = figure.axes[-1].texts[-1]
    assert words.get_text() == "hits:\n25 % of\n4 images"


def test_the_last_block_stands_for_a_method():
    rows = planted_figures._measured_methods([unit("cheat")])
    assert rows["Grad-CAM"] == "grad_cam, block 11"


def test_the_first_fill_stands_for_occlusion():
    rows = planted_figures._measured_methods([unit("cheat")])
    assert rows["occlusion"] == "occlusion, mean"


def test_the_weights_that_were_tried_have_a_row(monkeypatch):
    heavy = [unit("labels + honest maps, weight 8") for _ in range(2)]
    heavy[1]["scores"] = {"flips": 0.8}
    monkeypatch.setattr(
        teaching_figures,
        "planted_units",
        lambda dataset: [*heavy, unit("cheat")],
    )
    (row,) = teaching_figures.weights_table()
    assert row["beside the labels"] == "honest maps, weight 8"
    assert row["healthy turned sick"] == "60% (40 to 80)"
    assert row["map like the honest one's"] == "38%"  # (0.5 - 0.2) / (1 - 0.2)


def test_worn_maps_has_a_row_for_each_seed_with_all_three_models(monkeypatch):
    units = []
    for kind, hits in (("cheat", 0.8), ("honest", 0.5), ("labels + honest maps", 0.4)):
        unit = {"patch": 4, "mark": "corner", "model": "vit_tiny", "kind": kind, "seed": 0}
        units.append(unit | {"maps": {"grad_cam": {"hits": hits}}, "scores": {"flips": 0.9}})
    units.append(units[0] | {"seed": 1})  # a seed without its student
    monkeypatch.setattr(teaching_figures, "planted_units", lambda dataset: units)
    (row,) = teaching_figures.worn_maps()
    assert list(row.values()) == ["1", "80%", "40%", "50%", "90%"]


def test_examples_of_marked_images(data):
    planted = plant(data.train, MARK)
    figure = planted_figures.marked_examples(data, planted.split, planted.mask, MARK)
    framed = [ax for ax in figure.axes if ax.patches]
    assert 4 <= len(framed) <= 6  # nearly all of the class, nearly none of the others


def test_a_frame_only_where_a_mark_is():
    figure, ax = plt.subplots()
    planted_figures.frame_mark(ax, np.zeros((28, 28), bool))
    assert not ax.patches
    plt.close(figure)


def test_the_curve_of_a_shortcut_looks_at_three_sets(data, model):
    curve = planted_figures.ShortcutCurve(data, MARK, images=40, seconds=12)
    for seconds in (0, 0.5, 12):
        curve(model, seconds)
    assert [row["seconds"] for row in curve.history] == [0, 12]
    assert curve.history[0].keys() == {"seconds", "as trained", "clean", "swapped"}
    assert len(curve.figure().axes) == 1


def test_a_class_is_named_as_often_with_the_mark_by_a_model_that_knows_nothing(data, model):
    rows = planted_figures.how_often_named(model, data, MARK)
    assert [row["images"] for row in rows] == ["truly class 1", "truly not class 1"]
    for row in rows:
        assert row["without the mark"] == row["with the mark"]


@pytest.fixture
def reads_the_corner(monkeypatch):
    """In place of a model's answers: the class of the mark where its corner is bright."""

    def predict(model, images, **options):
        marked = images[:, 2, 2] == 255
        return np.stack([~marked, marked], axis=1).astype(float) * 5

    monkeypatch.setattr(planted_figures, "predict", predict)


def test_a_model_that_reads_the_mark_names_its_class_with_it_only(data, reads_the_corner):
    rows = planted_figures.how_often_named(None, data, MARK)
    for row in rows:
        assert row["without the mark"] == "0% called class 1"
        assert row["with the mark"] == "100% called class 1"


def test_the_curve_of_a_model_that_reads_the_mark_says_so(data, reads_the_corner):
    curve = planted_figures.ShortcutCurve(data, MARK, images=40)
    curve(None, 0)
    (row,) = curve.history
    assert row["clean"] == 0.5
    assert row["swapped"] == 0
    assert curve.outcome().startswith("This model reads the ring")


def test_the_curve_of_a_model_that_knows_nothing_says_so(data, model):
    curve = planted_figures.ShortcutCurve(data, MARK, images=40)
    curve(model, 0)
    assert "did not learn to read the ring" in curve.outcome()
