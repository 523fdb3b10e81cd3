"""What notebook 1 shows of a data set."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from swys_figures import data as data_figures
from swys_figures.data import (
    PUBLISHED,
    GuessingGame,
    Published,
    difference_figure,
    neighbour_figure,
    patch_figure,
    published_figure,
)
from swys_utils.data import load_dataset
from swys_utils.splits import Split, has_class


@pytest.fixture
def data(drawn_data_dir):
    return load_dataset("pneumoniamnist", root=drawn_data_dir)


@pytest.fixture
def game(data):
    return GuessingGame(data)


def test_a_class_among_single_labels():
    split = Split(
        np.zeros((3, 28, 28), np.uint8),
        np.array([0, 1, 1]),
    )
    assert has_class(split, 1).tolist() == [False, True, True]


def test_a_class_among_several_labels():
    split = Split(
        np.zeros((2, 28, 28), np.uint8),
        np.array([[1, 0], [1, 1]]),
    )
    assert has_class(split, 1).tolist() == [False, True]


def test_four_of_the_eight_images_have_the_class(game, data):
    assert has_class(data.test, 1)[game.indices].tolist() == game.truth.tolist()
    assert game.truth.sum() == 4


def test_the_places_in_the_folded_answer_of_notebook_1(game):
    """The page says "2, 3, 7 and 8" whatever the data are."""
    assert (1 + np.flatnonzero(game.truth)).tolist() == [2, 3, 7, 8]


def test_no_button_pressed_is_four_right(game):
    assert game.score() == 4
    assert "4 of 8 are right" in game.answer.value


def test_all_right(game):
    for button, has_it in zip(game.buttons, game.truth):
        button.value = bool(has_it)
    assert game.score() == 8


def test_the_game_leaves_a_sentence_where_nothing_can_be_pressed(game):
    assert "run the notebook" in repr(game)
    assert len(game.figure().axes) == 8


def test_every_published_score_says_what_it_was_chosen_on():
    for scores in PUBLISHED.values():
        for score in scores:
            assert score.chosen_on in ("validation", "unclear", "test")
            assert 0.5 < score.accuracy < 1


@pytest.mark.parametrize("draw", ["difference_figure", "patch_figure", "published_figure"])
def test_a_figure_of_the_data(draw, data):
    arguments = {
        "difference_figure": (np.zeros((28, 28)), np.ones((28, 28))),
        "patch_figure": (data.test.images[0],),
        "published_figure": (data, 0.85),
    }
    figure = getattr(data_figures, draw)(*arguments[draw])
    assert isinstance(figure, Figure)


def test_figures_of_images(data):
    image = data.test.images[0]
    figure = data_figures.image_row([image, image], ["a", "b"], [0.9, 0.7])
    first, second = figure.axes
    assert first.get_xlabel() == "AUC 0.900"
    assert first.xaxis.label.get_color() == "black"
    assert second.xaxis.label.get_color() == data_figures.WARNING


def test_a_class_name_fits_on_a_button(data):
    assert len(data_figures.short_name(data, 1)) <= 20


def test_an_image_is_shown_in_its_own_grey():
    figure, ax = plt.subplots()
    data_figures.show_image(ax, np.full((2, 2), 100, np.uint8))
    assert ax.images[0].get_clim() == (0, 255)
    plt.close(figure)


def test_the_difference_of_two_means_is_shown_in_two_directions():
    darker = np.full((28, 28), 100.0)
    figure = difference_figure(darker, darker + 20)
    shown = figure.axes[2].images[0]
    assert np.allclose(shown.get_array(), 20)
    assert shown.get_clim() == (-20, 20)


def test_the_bar_of_a_difference_has_numbers():
    darker = np.full((28, 28), 100.0)
    figure = difference_figure(darker, darker + 20)
    labels = [label.get_text() for label in figure.axes[3].get_yticklabels()]
    assert labels == ["10 darker\nin the sick", "0", "10 brighter\nin the sick"]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (data_figures.GROUPS, ["lung", "lung", "border, too"]),
        (("melanoma", "others"), []),
    ],
)
def test_lungs_are_named_in_x_rays_of_the_chest(groups, words):
    darker = np.full((28, 28), 100.0)
    figure = difference_figure(darker, darker + 20, groups)
    assert [text.get_text() for text in figure.axes[2].texts] == words


def test_a_patch_of_4_px_is_enlarged_from_both_sizes(data):
    figure = patch_figure(data.test.images[0])
    sides = [len(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert sides == [28, 4, 224, 16]


def test_the_patch_of_the_large_image_is_a_dashed_quarter_of_the_other_one(data):
    figure = patch_figure(data.test.images[0])
    small = figure.axes[1].patches[0]
    large = figure.axes[3].patches[0]
    assert small.get_linestyle() == "--"
    assert small.get_width() == 2  # of 4 pixels
    assert large.get_linestyle() == "--"
    assert large.get_width() == 16  # of 16 pixels


def test_an_image_stands_above_its_neighbour_with_what_both_are(data):
    healthy = int(np.flatnonzero(~has_class(data.test, 1))[0])
    sick = int(np.flatnonzero(has_class(data.train, 1))[0])
    nearest = {"test": np.full(len(data.test), sick)}
    figure = neighbour_figure(
        {"a": ("test", healthy)}, {"test": data.test}, data.train, nearest, asked=1
    )
    upper, lower = figure.axes
    assert np.array_equal(lower.images[0].get_array(), data.train.images[sick])
    assert [upper.texts[0].get_text(), lower.texts[0].get_text()] == ["healthy", "sick"]
    assert upper.get_xlabel() == "✗ another diagnosis"


def test_a_published_score_is_drawn_in_its_row(data, monkeypatch):
    scores = {data.info.name: (Published("a model", 0.9, "test"),)}
    monkeypatch.setattr(data_figures, "PUBLISHED", scores)
    figure = published_figure(data, linear=0.8)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "a model" in labels


def test_what_a_score_was_chosen_on_stands_beside_the_axes(data):
    figure = published_figure(data, linear=0.85)
    places = {}
    for text in figure.axes[0].texts:
        words = text.get_text()
        places[words] = text.get_position()[0]
    assert places["unclear"] == data_figures.NOTES
    assert places["model\nchosen by"] == data_figures.NOTES
    assert data_figures.NOTES > 100


def test_a_long_name_is_cut_between_its_words(data):
    names = ("normal", "diabetic macular edema of the eye")
    data = replace(data, info=replace(data.info, class_names=names))
    assert data_figures.short_name(data, 1) == "diabetic macular"
