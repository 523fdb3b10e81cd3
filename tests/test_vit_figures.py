"""What notebook 2 draws of a Vision Transformer."""

import numpy as np
import pytest
import torch

from swys_figures import vit as vit_figures
from swys_figures.vit import LiveLosses, attention_figure, diagram, number_tables, outcome
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
    texts = [text.get_text() for text in diagram(data.test.images[0], 192, 3).axes[0].texts]
    assert "3 logits" in texts
    assert any("(17, 192)" in text for text in texts)


def test_each_number_stands_on_its_square():
    figure = number_tables({"a": np.array([[0.25, 1.0]])})
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.25", "1.00"]


def test_the_row_of_cls_in_percent():
    attention = torch.full((5, 5), 0.2)
    figure = attention_figure(np.zeros((28, 28), np.uint8), {"even": attention})
    shown = [text.get_text() for text in figure.axes[2].texts]
    assert shown == ["20"] * 4


def test_the_losses_are_noted_between_two_looks(curve, model):
    curve(model, 0.0)
    curve(model, 0.5, 4, torch.tensor(2.0))
    curve(model, 1.5, 8, torch.tensor(4.0))
    assert [row["images"] for row in curve.history] == [0, 8]
    assert curve.history[1]["train_loss"] == 3
    assert curve.history[1]["val_loss"] == curve.validation_loss(model)


def test_the_losses_are_drawn_beside_the_auc(curve, model):
    curve(model, 0.0)
    curve(model, 7.0, 4, torch.tensor(1.0))
    labels = [ax.get_ylabel() for ax in curve.figure().axes]
    assert labels == ["loss", "AUC (8 test images)"]


def test_few_validation_images_are_watched(data):
    assert len(LiveLosses(data, 8, "Tiny", {}, 1).watched) <= vit_figures.WATCHED


@pytest.mark.parametrize(
    ("auc", "words"),
    [(0.95, "above"), (0.905, "level with"), (0.8, "below"), (np.nan, "no AUC")],
)
def test_the_outcome_in_words(auc, words):
    assert outcome(auc, 0.9).startswith(words)
