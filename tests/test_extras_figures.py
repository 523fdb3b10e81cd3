"""The figures of extras 8 to 10, and the code on the page of extra 8."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from scipy import stats
from scipy.stats import spearmanr

from swys_figures import extras as extras_figures
from swys_figures import runs as runs_figures
from swys_figures.runs import ANOTHER
from swys_utils.explain import agreement, coarsened
from swys_utils.metrics import bootstrap_interval, mean_interval, t_interval
from swys_utils.plots import GREY

EXTRAS = Path(__file__).resolve().parents[1] / "notebooks" / "extras"
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 28, 28), dtype=np.uint8)
MAPS = RNG.random((4, 7, 7)).astype(np.float32)
HALF = np.zeros((4, 28, 28), dtype=bool)
HALF[:, :14] = True
RUNS = [
    {"id": "another", "group": ANOTHER, "seed": 1},
    {"id": "tiny 0", "group": "Tiny", "seed": 0},
    {"id": "tiny 1", "group": "Tiny", "seed": 1},
]
ROWS = {
    "tiny 0": {"spearman": 0.1, "chance_in_class": 0.0},
    "tiny 1": {"spearman": 0.3, "chance_in_class": 0.2},
}
STUDIES = {"pneumoniamnist": {"runs": RUNS, "maps": {"grad_cam": {"runs": ROWS}}}}
VALUES = {"pneumoniamnist": {"another": 0.8, "tiny 0": 0.1, "tiny 1": 0.3}}


def function_of_extra_8(name: str):
    """A function that the page of extra 8 defines."""
    notebook = nbformat.read(EXTRAS / "08_many_runs.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    defines = re.compile(rf"^def {name}\(.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
    (source,) = [match[0] for match in map(defines.search, sources) if match]
    names = {"np": np, "coarsened": coarsened, "spearmanr": spearmanr, "stats": stats}
    exec(source, names)
    return names[name]


def test_the_agreement_on_the_page_is_that_of_the_library():
    theirs = RNG.normal(size=(5, 7, 7)).astype(np.float32)
    ours = RNG.normal(size=(5, 4, 4)).astype(np.float32)
    mine = function_of_extra_8("my_agreement")(theirs, ours)
    np.testing.assert_allclose(mine, agreement(theirs, ours), atol=1e-6)


def test_the_interval_on_the_page_is_that_of_the_library():
    differences = [-0.1, 0.3, 0.2]
    mine = function_of_extra_8("interval")(differences)
    assert mine == pytest.approx(t_interval(differences))


def test_the_histogram_names_the_mean_of_each_kind_of_pair():
    pairs = {"different images": np.array([0.0, 0.5, np.nan]), "the same image": np.array([1.0])}
    ax = runs_figures.agreement_histogram(pairs).axes[0]
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["different images: mean 0.25", "the same image: mean 1.00"]


def test_a_second_base_is_the_last_row_of_the_runs():
    ax = runs_figures.runs_figure(STUDIES, VALUES, "agreement").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Tiny", "a second Base"]


def test_each_row_of_the_runs_has_its_dots_and_their_mean():
    ax = runs_figures.runs_figure(STUDIES, VALUES, "agreement").axes[0]
    stroke, dots = ax.lines[:2]
    assert list(dots.get_xdata()) == [0.1, 0.3]
    assert list(stroke.get_xdata()) == pytest.approx([0.2, 0.2])
    assert [text.get_text() for text in ax.texts] == ["0.20", "0.80"]


def test_chance_is_a_grey_stroke_beside_the_dots():
    chance = {"pneumoniamnist": {"tiny 0": 0.0, "tiny 1": 0.2}}
    ax = runs_figures.runs_figure(STUDIES, VALUES, "agreement", chance).axes[0]
    assert list(ax.lines[0].get_xdata()) == pytest.approx([0.1, 0.1])
    assert ax.lines[0].get_color() == GREY


def test_lines_of_the_runs_are_named_above_them():
    lines = {"pneumoniamnist": {"the teacher": 0.5}}
    figure = runs_figures.runs_figure(STUDIES, VALUES, "gap", lines=lines)
    assert "the teacher" in [text.get_text() for text in figure.axes[0].texts]


def test_the_bar_of_a_difference_is_its_interval_over_seeds():
    seeds = [0.1, 0.2, 0.4]
    pairs = {"pneumoniamnist": {("Tiny, answers", "Tiny"): seeds}}
    ax = runs_figures.differences_figure(pairs, "difference").axes[0]
    assert tuple(ax.lines[0].get_xdata()) == pytest.approx(t_interval(seeds))


def test_one_pair_of_runs_has_no_interval():
    pairs = {"pneumoniamnist": {("Tiny, answers", "Tiny"): [0.1]}}
    ax = runs_figures.differences_figure(pairs, "difference").axes[0]
    assert len(ax.lines) == 2  # the circle, and the line at zero


def test_a_way_to_explain_that_was_not_measured_says_so():
    texts = []
    for ax in runs_figures.kinds_of_maps(STUDIES).axes:
        texts += [text.get_text() for text in ax.texts]
    assert texts == ["not\nmeasured"] * 4


def test_a_way_to_explain_has_its_runs_beside_chance():
    ax = runs_figures.kinds_of_maps(STUDIES).axes[0]
    chance, mean, dots = ax.lines[:3]
    assert ax.get_title() == "Grad-CAM\n(taught)"
    assert list(chance.get_xdata()) == pytest.approx([0.1, 0.1])
    assert list(mean.get_xdata()) == pytest.approx([0.2, 0.2])
    assert list(dots.get_xdata()) == [0.1, 0.3]


def test_the_diagonal_of_a_class_table_has_numbers_but_no_colour():
    ax = extras_figures.class_tables({"answered": np.eye(2)}, ["a", "b"]).axes[0]
    assert np.isnan(ax.images[0].get_array().filled(np.nan)).tolist() == np.eye(2).tolist()
    assert [text.get_text() for text in ax.texts] == ["100", "100"]


def test_soft_targets_are_drawn_once_for_each_temperature():
    softened = {
        1: np.array([0.6, 0.3, 0.1]),
        2: np.array([0.5, 0.3, 0.2]),
    }
    figure = extras_figures.soft_targets_figure(
        IMAGES[0],
        MAPS[:2],
        ["a", "b", "c"],
        softened,
    )
    labels = [line.get_label() for line in figure.axes[-1].lines]
    assert labels == ["T = 1", "T = 2"]


def test_the_gain_is_that_of_the_first_images():
    taught = np.array([True] * 8)
    alone = np.array([True] * 4 + [False] * 4)
    ax = extras_figures.gain_figure(taught, alone, [4, 8]).axes[0]
    paired = [container[0] for container in ax.containers[1::2]]
    assert [line.get_ydata()[0] for line in paired] == [0, 50]


def test_the_paired_interval_of_a_gain_is_that_of_its_bootstrap():
    taught = np.array([True, True, False, True] * 8)
    alone = np.array([True, False, False, True] * 8)
    ax = extras_figures.gain_figure(taught, alone, [32]).axes[0]
    _, _, (paired,) = ax.containers[1]
    ends = paired.get_segments()[0][:, 1]
    gain = 100 * (taught.astype(float) - alone)
    assert ends == pytest.approx(bootstrap_interval(np.mean, gain))


def test_a_region_is_outlined_and_an_empty_one_is_not():
    masks = HALF.copy()
    masks[0] = False
    figure = extras_figures.outlined(IMAGES, {"cyan": masks})
    assert [len(ax.collections) for ax in figure.axes] == [0, 1, 1, 1]


def test_the_last_row_of_the_shares_is_of_all_images():
    shares = {"cell": {"Grad-CAM": np.array([0.2, 0.2, 0.4, 0.4])}}
    figure = extras_figures.shares_figure(shares, np.array([0, 0, 1, 1]), ["a", "b"])
    means = [line.get_xdata()[0] for line in figure.axes[0].lines[1::2]]
    assert means == pytest.approx([0.2, 0.4, 0.3])


def test_the_bar_of_a_share_is_the_interval_of_its_mean():
    values = np.linspace(0.1, 0.7, 40)
    shares = {"cell": {"Grad-CAM": values}}
    figure = extras_figures.shares_figure(shares, np.arange(40) % 2, ["a", "b"])
    bar, dot = figure.axes[0].lines[-2:]
    mean, low, high = mean_interval(values)
    assert list(bar.get_xdata()) == [low, high]
    assert list(dot.get_xdata()) == [mean]


def test_a_coarse_map_is_shown_below_its_sharp_picture():
    figure = extras_figures.sharp_and_coarse(IMAGES, MAPS)
    assert figure.axes[4].images[0].get_array().shape == (7, 7)


def test_a_spot_is_outlined_in_the_image_and_in_each_map():
    hits = {"Tiny": np.array([True, False, True, True])}
    figure = extras_figures.spots_figure(IMAGES, HALF, {"Tiny": MAPS}, hits)
    assert [len(ax.collections) for ax in figure.axes] == [1] * 8
    assert figure.axes[5].get_xlabel() == "miss"


def test_hits_are_drawn_in_percent():
    hits = {"Tiny, seed 0": {"Grad-CAM": 0.5, "LeGrad": 1.0}}
    ax = extras_figures.hits_figure(hits, chance=0.1).axes[0]
    assert list(ax.lines[0].get_xdata()) == [50, 100]
