"""Figures of heatmaps in notebook 4."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from small import vit

from swys_figures import heatmaps as heatmap_figures
from swys_utils.data import Split
from swys_utils.saved_models import SavedModel

IMAGES = np.random.default_rng(0).integers(
    0,
    256,
    (3, 28, 28),
    np.uint8,
)
MAPS = np.random.default_rng(1).normal(size=(12, 7, 7))


def test_figures_of_heatmaps():
    signed = {"Base": MAPS - 5, "Tiny": MAPS}
    figures = [
        heatmap_figures.heatmap_steps(IMAGES[0], MAPS[0].clip(0), "pneumonia"),
        heatmap_figures.colours_figure(MAPS),
        heatmap_figures.two_rulers(IMAGES[:3], signed, signed, ["yes"] * 3),
    ]
    assert [len(figure.axes) for figure in figures] == [4, 10, 15]


def test_the_agreement_of_an_image_stands_below_the_second_model():
    one = {"Base": MAPS[:1], "Tiny": MAPS[:1]}
    other = {"Base": MAPS[:1], "Tiny": -MAPS[:1]}
    figure = heatmap_figures.two_rulers(IMAGES[:1], one, other, ["yes"])
    last_lines = [ax.get_xlabel().split("\n")[-1] for ax in figure.axes]
    assert last_lines[2::2] == ["agreement 1.00", "agreement -1.00"]


def test_the_highest_value_stands_below_each_map():
    maps = {
        "Base": np.full((1, 4, 4), 0.25),
        "Tiny": np.full((1, 4, 4), 3.0),
    }
    figure = heatmap_figures.two_rulers(IMAGES[:1], maps, maps, ["yes"])
    first_lines = [ax.get_xlabel().split("\n")[0] for ax in figure.axes]
    assert first_lines[1:3] == ["highest 0.25", "highest 3"]


def test_the_hottest_patch_has_a_frame():
    heat = np.zeros((4, 4))
    heat[1, 2] = 3
    figure, ax = plt.subplots()
    heatmap_figures.draw_patches(ax, heat, (28, 28))
    (frame,) = ax.patches
    assert frame.get_xy() == (13.5, 6.5)  # patches of 7 px; pixel 0 begins at -0.5
    assert ax.images[0].get_clim() == (0, 3)
    plt.close(figure)


def test_squares_alone_have_no_frame():
    heat = np.zeros((4, 4))
    heat[1, 2] = 3
    figure, ax = plt.subplots()
    heatmap_figures.draw_squares(ax, heat, (28, 28))
    assert len(ax.images) == 1
    assert len(ax.patches) == 0
    plt.close(figure)


def test_the_maps_of_a_column_have_one_scale():
    of_model = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 3.0)])
    maps = {"Base": of_model, "Tiny": of_model}
    figure = heatmap_figures.two_rulers(IMAGES[:2], maps, maps, ["yes", "no"])
    of_maps = [ax.images[0] for ax in figure.axes if "highest" in ax.get_xlabel()]
    assert [drawn.get_clim() for drawn in of_maps] == [(0, 3)] * 8


def test_a_patch_that_is_always_first_is_white():
    maps = np.random.default_rng(0).random((50, 4, 4))
    maps[:, 1, 2] = 2
    figure = heatmap_figures.usual_places({"Base": maps})
    mean = figure.axes[0].images[0].get_array()
    assert mean[1, 2] == 1
    assert 0.2 < mean[0, 0] < 0.8
    plt.close(figure)


def test_an_empty_map_is_called_so():
    figure, ax = plt.subplots()
    heatmap_figures.draw_patches(
        ax,
        np.full((4, 4), -1.0),
        (28, 28),
    )
    assert ax.texts[0].get_text() == "empty"
    plt.close(figure)


def saved(auc: float) -> SavedModel:
    return SavedModel(vit(), {"history": [{"val_auc": auc}]}, "trained here")


def test_a_model_that_has_learned_nothing_is_left_out(capsys):
    models = heatmap_figures.knowing_models({"Base": saved(0.5), "Tiny": saved(0.9)})
    assert list(models) == ["Tiny"]
    assert "Base has AUC 0.50" in capsys.readouterr().out


def test_where_no_model_has_learned_anything_all_stay():
    assert list(heatmap_figures.knowing_models({"Base": saved(0.5)})) == ["Base"]


def test_images_with_the_same_answers_are_found():
    answers = {"a": np.array([0, 1, 1]), "b": np.array([0, 1, 0])}
    assert heatmap_figures.same_answers(answers).tolist() == [0, 1]


def test_typical_images_come_from_little_to_much_agreement():
    peaks = np.array(
        [
            [[0.0, 1.0, 2.0]],
            [[2.0, 1.0, 0.0]],
            [[0.0, 2.0, 1.0]],
        ]
    )
    same = np.repeat(
        [[[0.0, 1.0, 2.0]]],
        3,
        axis=0,
    )
    answers = {"a": np.zeros(3), "b": np.zeros(3)}
    chosen = heatmap_figures.typical_images(answers, {"a": peaks, "b": same}, 3)
    assert chosen.tolist() == [1, 2, 0]


def test_one_model_alone_has_typical_images_and_both_rulers():
    maps = {"Tiny": np.random.default_rng(0).random((4, 2, 2)) - 0.5}
    chosen = heatmap_figures.typical_images({"Tiny": np.zeros(4)}, maps, 3)
    assert len(set(chosen.tolist())) == 3
    images = np.zeros((4, 28, 28), np.uint8)
    figure = heatmap_figures.two_rulers(images, maps, maps, ["sick"] * 4)
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert not any("agreement" in label for label in labels)


def test_a_model_that_reads_the_border_answers_otherwise_without_it(monkeypatch):
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = generator.integers(100, 110, (40, 28, 28), dtype=np.uint8)
    images[labels == 1, :2] = 200

    def by_the_border(model, images, bf16):
        shown = images[:, 0].mean(axis=1) > 150
        return np.stack([~shown, shown], axis=1).astype(np.float32)

    monkeypatch.setattr(heatmap_figures, "predict", by_the_border)
    split = Split(images, labels)
    info = SimpleNamespace(task="binary-class", num_classes=3)
    rows = heatmap_figures.border_table(
        {"reader": None}, SimpleNamespace(train=split, info=info), split
    )
    assert [row["answers changed"] for row in rows] == ["0%", "50%", "50%"]
    assert [row["others cleared"] for row in rows] == ["100%"] * 3
    assert [row["AUC"] for row in rows] == [1, 0.5, 0.5]


def test_a_line_goes_around_a_dark_area():
    image = np.full((28, 28), 200, np.uint8)
    image[8:20, 8:20] = 20
    _, ax = plt.subplots()
    heatmap_figures.draw_dark_areas(ax, image)
    (lines,) = ax.collections
    corners = lines.get_paths()[0].vertices
    assert corners.min(axis=0) == pytest.approx([7.5, 7.5], abs=0.5)
    assert corners.max(axis=0) == pytest.approx([19.5, 19.5], abs=0.5)


def test_an_image_of_one_colour_has_no_dark_area():
    _, ax = plt.subplots()
    heatmap_figures.draw_dark_areas(ax, np.full((28, 28, 3), 200, np.uint8))
    assert not ax.collections
