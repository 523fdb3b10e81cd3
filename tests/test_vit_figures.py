"""What notebook 2 draws of a Vision Transformer."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from swys_figures import learning
from swys_figures.learning import LiveLosses, complete_curves, outcome
from swys_figures.vit import attention_figure, bag_of_patches, diagram, number_tables
from swys_utils.data import load_dataset
from swys_utils.models import create_model


@pytest.fixture
def data(drawn_data_dir):
    return load_dataset("pneumoniamnist", root=drawn_data_dir)


@pytest.fixture
def curve(data):
    line = {"line": {"accuracy": 0.5, "auc": 0.5}}
    return LiveLosses(data, 8, "Tiny", line, seconds=7)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("vit_tiny", 2, patch_size=7, depth=1)


def test_the_diagram_says_the_shapes(data):
    texts = [
        text.get_text()
        for text in diagram(
            data.test.images[0],
            192,
            3,
        )
        .axes[0]
        .texts
    ]
    assert "3 logits" in texts
    assert any("(17, 192)" in text for text in texts)


def test_each_number_stands_on_its_square():
    figure = number_tables({"a": np.array([[0.25, 1.0]])})
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.25", "1.00"]


def test_columns_have_names_and_a_row_has_a_frame():
    matrix = np.ones((2, 2))
    figure = number_tables(
        {"a": matrix, "b": matrix},
        column_names={"b": "key"},
        framed=1,
    )
    first, second = figure.axes
    names = [label.get_text() for label in second.get_xticklabels()]
    assert names == ["key 1", "key 2"]
    assert first.get_xticklabels() == []
    for ax in figure.axes:
        frame = ax.patches[0]
        assert frame.get_xy() == (-0.5, 0.5)


def words(ax):
    return [text.get_text().strip() for text in ax.texts]


def test_the_row_of_cls_in_percent():
    attention = torch.full((5, 5), 0.2)
    image = np.zeros((28, 28), np.uint8)
    matrix, picture = attention_figure(image, {"even": attention}).axes[:2]
    assert words(picture) == ["20"] * 4
    assert len(matrix.images[0].get_array()) == 5
    assert len(picture.images[0].get_array()) == 28


def test_each_patch_is_tinted_by_its_share():
    attention = torch.zeros(5, 5)
    attention[0, 3] = 1
    image = np.zeros((28, 28), np.uint8)
    picture = attention_figure(image, {"one": attention}).axes[1]
    tints = picture.collections[0]
    shares = np.ravel(tints.get_array())
    assert shares.tolist() == [0, 0, 1, 0]


def test_the_losses_are_noted_between_two_looks(curve, model):
    curve(model, 0.0)
    curve(model, 0.5, 4, torch.tensor(2.0))
    curve(model, 1.5, 8, torch.tensor(4.0))
    assert [row["images"] for row in curve.history] == [0, 8]
    assert curve.history[1]["train_loss"] == 3
    assert curve.history[1]["val_loss"] == curve.on_validation(model)["val_loss"]


def test_the_losses_are_drawn_beside_the_auc(curve, model):
    curve(model, 0.0)
    curve(model, 7.0, 4, torch.tensor(1.0))
    losses, auc = curve.figure().axes
    assert losses.get_title("left") == "loss"
    assert auc.get_title("left") == "AUC on 8 test images"
    assert losses.get_xlim() == auc.get_xlim()


def history(*losses):
    """A row of a curve for each (training loss, validation loss), one second apart."""
    rows = []
    for second, (training, validation) in enumerate(losses):
        row = {
            "seconds": second,
            "accuracy": 0.5,
            "auc": 0.5,
            "train_loss": training,
            "val_loss": validation,
        }
        rows.append(row)
    return rows


def test_a_loss_of_zero_lies_above_the_axis(curve):
    curve.history = history((np.nan, 1), (0, 0.5))
    losses = curve.figure().axes[0]
    bottom, _ = losses.get_ylim()
    assert bottom < -0.05


@pytest.fixture
def by_heart(data):
    curve = LiveLosses(data, 8, "Tiny", {}, 2, scored="val")
    curve.history = history(
        (np.nan, 1),
        (0.5, 0.4),
        (0.1, 0.8),
    )
    return curve


def test_from_the_lowest_validation_loss_on_it_learns_by_heart(by_heart):
    losses, auc = by_heart.figure().axes
    assert words(losses) == ["learns by heart", "training", "validation"]
    shade = losses.patches[0]
    assert shade.get_x() == 1
    assert shade.get_width() == 1
    assert auc.get_title("left") == "AUC on validation: ends no lower"
    assert auc.get_ylim()[1] == 1


def test_an_auc_that_falls_is_not_said_not_to(by_heart):
    by_heart.history[-1]["auc"] = 0.4
    auc = by_heart.figure().axes[1]
    assert auc.get_title("left") == "AUC on 8 validation images"
    assert auc.get_ylim()[0] < 0.4


def test_a_loss_that_does_not_rise_has_no_shade(by_heart):
    by_heart.history[-1]["val_loss"] = 0.3
    losses = by_heart.figure().axes[0]
    assert words(losses) == ["training", "validation"]


def test_a_loss_that_is_no_number_is_drawn_as_nothing(curve):
    curve.history = history((np.nan, np.nan))
    figure = curve.figure()
    figure.draw_without_rendering()


@pytest.fixture
def complete():
    """Draws two complete trainings whose validation AUC is too high by some number."""

    def draw(flattery):
        runs = []
        for seed in range(2):
            history = [{"epoch": 1, "val_auc": 0.9}]
            for epoch in range(2, 13):
                auc = 0.9 + 0.003 * epoch
                row = {
                    "epoch": epoch,
                    "val_auc": auc + flattery,
                    "test_auc": auc,
                }
                history.append(row)
            run = {
                "seed": seed,
                "history": history,
            }
            runs.append(run)
        return complete_curves(runs, 0.93)

    yield draw
    plt.close("all")


def test_complete_curves_are_drawn_where_both_splits_were_scored(complete):
    ax = complete(0.05).axes[0]
    styles = [line.get_linestyle() for line in ax.lines]
    assert styles == ["--", "--", "-", "-"]
    for line in ax.lines:
        epochs = line.get_xdata()
        assert list(epochs) == list(range(2, 13))


def test_complete_curves_are_named_at_their_ends(complete):
    ax = complete(0.05).axes[0]
    assert words(ax) == [
        "gap",
        "validation",
        "test",
        "linear model, test",
    ]
    assert len(ax.patches) == 2  # arrows, at the first pass and at the last
    assert ax.get_legend() is None


def test_validation_that_does_not_flatter_is_not_said_to(complete):
    ax = complete(0.0).axes[0]
    assert words(ax)[0] == "validation"


@pytest.mark.parametrize("flattery", [0.0, 0.05])
def test_words_of_complete_curves_do_not_overlap(complete, flattery):
    figure = complete(flattery)
    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    boxes = [text.get_window_extent() for text in texts]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_few_validation_images_are_watched(data):
    assert len(LiveLosses(data, 8, "Tiny", {}, 1).watched) <= learning.WATCHED


def test_the_auc_can_be_that_of_validation_images(data, model):
    curve = LiveLosses(data, 8, "Tiny", {}, 1, scored="val")
    curve(model, 0.0)
    auc = curve.figure().axes[1]
    assert auc.get_title("left") == "AUC on 8 validation images"
    assert np.array_equal(curve.split.images, data.val.sample(8).images)


def test_what_changed_since_the_lowest_validation_loss(data):
    curve = LiveLosses(data, 8, "Tiny", {}, 1)
    row = {"seconds": 1.0, "val_loss": 0.5, "right": 0.8, "certainty": 0.7, "certainty_wrong": 0.6}
    worse = {"seconds": 9.0, "val_loss": 0.9, "right": 0.7, "certainty": 0.9}
    untrained = row | {"seconds": 0.0, "val_loss": 0.4}
    curve.history = [untrained, row, worse | {"certainty_wrong": 0.85}]
    lowest, last = curve.lowest_and_last()
    assert lowest["after"] == "1.0 s"
    assert lowest["certainty of the wrong answers"] == "60%"
    assert last["validation loss"] == "end: 0.90"


def test_a_model_without_a_wrong_answer_has_no_certainty_of_one(data, monkeypatch):
    curve = LiveLosses(data, 8, "Tiny", {}, 1)
    labels = curve.watched.labels.ravel()
    logits = 9.0 * np.eye(2)[labels]
    monkeypatch.setattr(learning, "predict", lambda *_, **__: logits)
    measured = curve.on_validation(None)
    assert measured["right"] == 1
    assert np.isnan(measured["certainty_wrong"])


@pytest.mark.parametrize(
    ("auc", "words"),
    [(0.95, "above"), (0.905, "level with"), (0.8, "below"), (np.nan, "no AUC")],
)
def test_the_outcome_in_words(auc, words):
    assert outcome(auc, 0.9).startswith(words)


def test_without_positions_the_order_of_the_patches_does_not_matter():
    torch.manual_seed(0)
    vit = create_model("vit_tiny", num_classes=2, patch_size=7).eval()
    vit.pos_embed.data.mul_(50)
    images = torch.rand(1, 3, 28, 28)
    rows = bag_of_patches(
        vit,
        images,
        lambda tokens: tokens[:, [0, *range(16, 0, -1)]],
    )
    with_positions, without = rows
    assert with_positions["in order"] != with_positions["shuffled"]
    in_order = [float(value) for value in without["in order"].split(",")]
    shuffled = [float(value) for value in without["shuffled"].split(",")]
    assert in_order == pytest.approx(shuffled, abs=2e-3)


def test_the_logits_in_order_are_those_of_the_model():
    torch.manual_seed(0)
    vit = create_model("vit_tiny", num_classes=2, patch_size=7).eval()
    images = torch.rand(1, 3, 28, 28)
    rows = bag_of_patches(vit, images, lambda tokens: tokens)
    shown = [float(value) for value in rows[0]["in order"].split(",")]
    assert shown == pytest.approx(vit(images)[0].tolist(), abs=1e-3)
