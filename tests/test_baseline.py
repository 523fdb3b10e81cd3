"""The linear model on pixels, which a network has to beat."""

from dataclasses import replace

import numpy as np
import pytest

from swys_utils.baseline import linear_line, linear_logits
from swys_utils.data import load_dataset
from swys_utils.splits import Split


@pytest.fixture(scope="module", params=["pneumoniamnist", "chestmnist"])
def scores(request, drawn_data_dir):
    """Scores on drawn images of a binary and of a multi-label set."""
    data = load_dataset(request.param, root=drawn_data_dir)
    line = linear_line(data, data.test)
    return line["linear model on pixels"]


def test_the_linear_model_tells_drawn_classes_apart(scores):
    assert scores["auc"] > 0.95


def test_the_linear_model_has_every_score_of_a_figure(scores):
    assert set(scores) == {"accuracy", "auc", "ece"}


def test_its_logits_have_the_scores_of_the_line(drawn_data_dir):
    data = load_dataset("pneumoniamnist", root=drawn_data_dir)
    right = linear_logits(data, data.test.images).argmax(axis=1) == data.test.labels
    line = linear_line(data, data.test)["linear model on pixels"]
    assert np.mean(right) == pytest.approx(line["accuracy"])


def test_the_linear_model_is_trained_once_for_a_data_set(drawn_data_dir, monkeypatch):
    data = load_dataset("pneumoniamnist", root=drawn_data_dir)
    first = linear_line(data, data.test)
    monkeypatch.setattr("swys_utils.baseline.make_pipeline", None)
    assert linear_line(data, data.test) == first


def test_a_class_that_the_sample_lacks_keeps_its_place(drawn_data_dir):
    data = load_dataset("pneumoniamnist", root=drawn_data_dir)
    labels = 2 * data.train.labels  # 0 and 2 of three classes
    three = replace(data.info, class_names=("a", "b", "c"))
    data = replace(data, train=Split(data.train.images, labels), info=three)
    logits = linear_logits(data, data.test.images)
    assert logits.shape == (len(data.test), 3)
    assert set(logits.argmax(axis=1)) == {0, 2}
