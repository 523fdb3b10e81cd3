"""The figures that notebooks share: colours, the live curve, rows of heatmaps."""

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from small import vit

import swys.train  # noqa: F401 (adds a way to teach)
from swys_utils import plots
from swys_utils.data import Split
from swys_utils.distillation import OBJECTIVES
from swys_utils.gradcam import METHODS, Method
from swys_utils.models import SERIES

BLACK = np.zeros((4, 28, 28), np.uint8)
SPLIT = Split(BLACK, np.array([0, 1, 0, 1]))
# All images are alike, so that all answers are, and half of them are right.
LOOP = """
import numpy as np
from swys_utils.data import Split
from swys_utils.models import create_model
from swys_utils.plots import LiveCurve

split = Split(np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 0, 1]))
model = create_model("vit_tiny", 2, depth=1)
curve = LiveCurve(split, "binary-class", "Tiny")
for second in (0, 60, 120):
    curve(model, second)
"""


@pytest.mark.parametrize("registry", [SERIES, OBJECTIVES, METHODS])
def test_the_colour_of_an_id(registry):
    for key, entry in registry.items():
        assert plots.colour(key) == entry.colour


@pytest.mark.parametrize("registry", [SERIES, OBJECTIVES, METHODS])
def test_the_colour_of_a_title(registry):
    for entry in registry.values():
        assert plots.colour(entry.title) == entry.colour


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("Base, live", "Base"),
        ("Base at 224 px", "Base"),
        ("Tiny alone", "Tiny"),
        ("Tiny, answers, int8", "Tiny, answers"),
        ("Tiny, answers + maps, int8 ONNX", "Tiny, answers + maps"),
    ],
)
def test_the_colour_of_a_name_that_begins_with_a_title(name, title):
    assert plots.colour(name) == plots.colour(title)


@pytest.mark.parametrize("name", ["another model", "Baseline", "complete run, seed 0", ""])
def test_the_colour_of_any_other_name_is_grey(name):
    assert plots.colour(name) == plots.GREY


def test_the_colour_differs_between_ways_to_teach():
    colours = {plots.colour(name) for name in OBJECTIVES}
    assert len(colours) == len(OBJECTIVES)


def test_the_colour_of_a_method_that_is_added_later(monkeypatch):
    added = Method("mine", "my maps", "#123456", None)
    monkeypatch.setitem(METHODS, "mine", added)
    assert plots.colour("my maps") == "#123456"


def test_the_style_has_no_box_around_an_axis():
    with plt.rc_context():
        plt.rcdefaults()
        plots.use_style()
        assert not plt.rcParams["axes.spines.top"]
        assert not plt.rcParams["axes.spines.right"]


@pytest.fixture
def scored_models(monkeypatch):
    """Prediction is replaced: every model answers class 0; the list fills with what was scored."""
    models = []

    def predict(model, images, bf16):
        models.append(model)
        return np.tile([1.0, 0.0], (len(images), 1))

    monkeypatch.setattr(plots, "predict", predict)
    return models


def looks(curve, seconds) -> list[float]:
    """When the curve scored a model that was shown to it at these seconds."""
    for second in seconds:
        curve("a model", second)
    return [row["seconds"] for row in curve.history]


@pytest.mark.usefixtures("scored_models")
def test_a_live_curve_scores_at_each_call_where_the_end_is_unknown():
    curve = plots.LiveCurve(SPLIT, "binary-class")
    assert looks(curve, [0, 59, 60]) == [0, 59, 60]


@pytest.mark.usefixtures("scored_models")
def test_a_live_curve_scores_at_each_twelfth_of_a_known_time():
    curve = plots.LiveCurve(SPLIT, "binary-class", seconds=24)
    assert looks(curve, [0, 1, 2, 3, 4]) == [0, 2, 4]


@pytest.mark.usefixtures("scored_models")
def test_a_live_curve_scores_at_the_end_even_right_after_another_look():
    curve = plots.LiveCurve(SPLIT, "binary-class", seconds=24)
    assert looks(curve, [0, 23.5, 24, 25]) == [0, 23.5, 24]


@pytest.mark.usefixtures("scored_models")
def test_a_cell_that_runs_again_begins_a_new_curve():
    curve = plots.LiveCurve(SPLIT, "binary-class", seconds=24)
    looks(curve, [0, 12, 24])
    assert looks(curve, [0, 2]) == [0, 2]


class Cells:
    """A shell that counts its cells, in place of IPython's."""

    execution_count = 1


def test_a_picture_is_drawn_anew_in_another_cell(monkeypatch):
    shell = Cells()
    monkeypatch.setattr(plots, "get_ipython", lambda: shell)
    picture = plots.LivePicture()
    done = []
    monkeypatch.setattr(picture._display, "display", lambda *_, **__: done.append("display"))
    monkeypatch.setattr(picture._display, "update", lambda *_, **__: done.append("update"))
    for cell in (1, 1, 2):
        shell.execution_count = cell
        picture.show(lambda: Figure(figsize=(1, 1)))
    assert done == ["display", "update", "display"]


def test_a_live_curve_does_not_score_in_between(scored_models):
    curve = plots.LiveCurve(SPLIT, "binary-class", seconds=60)
    looks(curve, [0, 1, 2])
    assert scored_models == ["a model"]


@pytest.mark.usefixtures("scored_models")
def test_a_live_curve_keeps_accuracy_and_auc():
    curve = plots.LiveCurve(SPLIT, "binary-class")
    curve("a model", 0)
    assert curve.history == [{"steps": 0, "seconds": 0.0, "accuracy": 0.5, "auc": 0.5}]


@pytest.mark.usefixtures("scored_models")
def test_a_live_curve_takes_the_step_that_fit_passes_to_a_callback():
    curve = plots.LiveCurve(SPLIT, "binary-class")
    curve("a model", 0.0, 7)
    assert len(curve.history) == 1


def test_a_live_curve_leaves_a_model_in_training_mode():
    model = vit().train()
    curve = plots.LiveCurve(SPLIT, "binary-class")
    curve(model, 0)
    assert model.training


@pytest.fixture
def curve():
    row = {"seconds": 9.0, "accuracy": 0.75, "auc": 0.8}
    curve = plots.LiveCurve(
        SPLIT,
        "binary-class",
        "Tiny",
        baseline={"linear model": row},
        others={"Base": [row]},
    )
    curve.history = [{"seconds": 1.0, "accuracy": 0.5, "auc": 0.6}, row]
    return curve


def line_of(figure, name):
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == name]
    return line


def test_the_figure_of_a_live_curve_shows_accuracy_in_percent(curve):
    line = line_of(curve.figure(), "Tiny")
    assert line.get_ydata().tolist() == [50, 75]


def test_the_figure_of_a_live_curve_shows_auc_beside_it(curve):
    figure = curve.figure()
    line = figure.axes[1].lines[1]
    assert line.get_ydata().tolist() == [0.6, 0.8]


def test_the_figure_of_a_live_curve_has_the_time_of_training_below(curve):
    line = line_of(curve.figure(), "Tiny")
    assert line.get_xdata().tolist() == [1, 9]


def test_the_figure_of_a_live_curve_draws_the_model_in_its_colour(curve):
    line = line_of(curve.figure(), "Tiny")
    assert line.get_color() == plots.colour("Tiny")


def test_the_figure_of_a_live_curve_draws_the_model_thicker_than_others(curve):
    figure = curve.figure()
    own = line_of(figure, "Tiny").get_linewidth()
    other = line_of(figure, "Base").get_linewidth()
    assert own > other


def test_the_figure_of_a_live_curve_draws_the_baseline_dashed(curve):
    line = line_of(curve.figure(), "linear model")
    assert line.get_linestyle() == "--"


def test_the_figure_of_a_live_curve_names_all_other_lines_at_their_ends(curve):
    _, ax = curve.figure().axes
    names = {}
    for text in ax.texts:
        _, height = text.xy
        names[text.get_text()] = height
    assert set(names) == {"linear model", "Base"}
    assert min(names.values()) == 0.8  # where both lines end; the other name stands above it
    assert ax.get_legend() is None


def test_the_names_of_a_live_curve_do_not_overlap_where_lines_end_together(curve):
    figure = curve.figure()
    figure.draw_without_rendering()
    texts = figure.axes[1].texts
    one, other = [text.get_window_extent() for text in texts]
    assert not one.padded(-1).overlaps(other)


def test_a_curve_of_another_model_that_has_no_points_yet_has_no_name(curve):
    curve.others = {"Base": []}
    assert [text.get_text() for text in curve.figure().axes[1].texts] == ["linear model"]


def test_a_live_curve_of_one_model_has_no_name_but_its_title(curve):
    curve.others = {}
    curve.baseline = {}
    assert not any(ax.texts for ax in curve.figure().axes)


def test_the_figure_of_a_live_curve_says_the_last_scores_above(curve):
    figure = curve.figure()
    assert figure.get_suptitle() == "Tiny after 9 s: accuracy 75.0%, AUC 0.800"


def test_the_figure_of_a_live_curve_is_unknown_to_pyplot(curve):
    before = plt.get_fignums()
    curve.figure()
    assert plt.get_fignums() == before


@pytest.fixture(scope="module")
def outputs():
    """What a notebook keeps of a loop that scores a model three times."""
    cell = nbformat.v4.new_code_cell(LOOP)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    executed = nbclient.execute(notebook, timeout=240, kernel_name="python3")
    return executed.cells[0].outputs


def test_a_live_curve_in_a_notebook_leaves_one_output(outputs):
    assert len(outputs) == 1


def test_a_live_curve_in_a_notebook_leaves_a_png_and_nothing_that_needs_javascript(outputs):
    assert list(outputs[0].data) == ["image/png"]


def test_a_live_curve_in_a_notebook_describes_the_picture(outputs):
    metadata = outputs[0].metadata["image/png"]
    assert metadata["alt"] == "Tiny after 120 s: accuracy 50.0%, AUC 0.500"


MAPS = {
    "Base": np.full((3, 7, 7), 2.0),
    "Tiny": np.full((3, 7, 7), -1.0),
}
CAPTIONS = {
    "Base": ["a", "b", "c"],
    "Tiny": ["d", "e", "f"],
}


@pytest.fixture(scope="module")
def rows():
    """Axes of a figure with three images and two models, the second with maps that are empty."""
    figure = plots.heatmap_rows(BLACK[:3], MAPS, CAPTIONS, ["x", "y", "z"], scale="model")
    figure.canvas.draw()
    return np.reshape(figure.axes, (3, 3))


@pytest.mark.filterwarnings("error")
def test_heatmap_rows_are_drawn_without_a_warning():
    figure = plots.heatmap_rows(BLACK[:3], MAPS, CAPTIONS, ["x", "y", "z"])
    figure.canvas.draw()


def test_heatmap_rows_have_titles_above_the_images(rows):
    assert [ax.get_title() for ax in rows[0]] == ["x", "y", "z"]


def test_heatmap_rows_have_captions_below_the_maps(rows):
    assert [ax.get_xlabel() for ax in rows[1]] == ["a", "b", "c"]


def test_heatmap_rows_say_which_maps_are_empty(rows):
    assert [ax.get_xlabel() for ax in rows[2]] == [f"{c}\nempty map" for c in "def"]


def test_heatmap_rows_name_the_model_in_its_colour(rows):
    label = rows[2, 0].yaxis.label
    assert label.get_text() == "Tiny"
    assert label.get_color() == plots.colour("Tiny")


def test_heatmap_rows_do_not_draw_an_empty_map(rows):
    picture = rows[2, 0].images[0].get_array()
    assert not picture.any()


def test_the_scale_of_an_overlay_of_a_model_is_the_maximum_of_its_maps():
    assert plots.overlay_scale(np.array([[[1.0]], [[3.0]]]), "model") == 3


def test_the_scale_of_an_overlay_is_above_0_where_all_maps_are_empty():
    assert plots.overlay_scale(np.array([[[-1.0]]]), "model") > 0


@pytest.mark.parametrize("scale", ["image", 0.5])
def test_the_scale_of_an_overlay_is_otherwise_that_of_the_overlay(scale):
    assert plots.overlay_scale(np.ones((1, 2, 2)), scale) == scale


def test_a_tiny_taught_in_some_way_has_the_colour_of_the_way():
    assert plots.colour("Tiny, features") == OBJECTIVES["features"].colour


def test_outside_of_a_notebook_no_picture_is_drawn():
    plots.LivePicture().show(lambda: pytest.fail("drawn"))
