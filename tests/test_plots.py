"""Shared figures: they are drawn without an error, and the live curve leaves one picture in a notebook."""

from __future__ import annotations

import json
from types import SimpleNamespace

import nbclient
import nbformat
import numpy as np
import pytest

from swys_utils import plots
from swys_utils.data import Split
from swys_utils.metrics import evaluate, point_scores
from swys_utils.models import create_model
from swys_utils.training import predict

RNG = np.random.default_rng(0)
SPLIT = Split(RNG.integers(0, 256, (24, 28, 28), dtype=np.uint8), np.arange(24) % 2)

LOOP = """
import numpy as np
from swys_utils import plots
from swys_utils.data import Split
from swys_utils.models import create_model
split = Split(np.zeros((4, 28, 28), np.uint8), np.arange(4) % 2)
model = create_model("vit_tiny", 2, depth=1)
row = {"seconds": 9, "accuracy": 0.7, "auc": 0.8}
curve = plots.LiveCurve(split, "binary-class", "Tiny", {"linear model": row}, {"Base": [row]})
for second in range(3): curve(model, second)
"""


def test_a_name_has_one_colour_and_different_models_have_different_ones():
    names = ["Base", "Tiny", "KD Tiny", "Tiny, features", "Tiny, soft targets and maps"]
    assert len({plots.colour(name) for name in names}) == len(names)
    assert plots.colour("Base, shipped run") == plots.colour("Base") != plots.colour("another")


def test_live_curve_records_scores_and_leaves_the_mode():
    model, curve = create_model("vit_tiny", 2, depth=1).train(), plots.LiveCurve(SPLIT, "binary-class")
    curve(model, 1, 10)
    scores = point_scores(predict(model, SPLIT.images), SPLIT.labels, "binary-class")
    assert curve.history == [{"seconds": 1.0, "accuracy": scores["accuracy"], "auc": scores["auc"]}]
    assert model.training and model.blocks[0].training
    for seconds, rows in ((2, 2), (0.5, 1)):  # fewer seconds: the cell runs again
        curve(model, seconds)
        assert len(curve.history) == rows


def test_live_curve_stores_one_plain_picture_in_a_notebook():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LOOP)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert list(output.data) == ["image/png"] and len(output.data["image/png"]) > 10_000
    assert output.metadata["image/png"]["alt"].startswith("Tiny after 2 s: accuracy ")


def test_write_live_keeps_other_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "BUILD", tmp_path)
    data = SimpleNamespace(info=SimpleNamespace(results_name="pneumoniamnist-twin"))
    for key in ("base", "tiny", "base"):
        plots.write_live(data, key, create_model("vit_tiny", 2, depth=1), [{"seconds": 1.0}])
    found = json.loads((tmp_path / "results" / "pneumoniamnist-twin" / "live.json").read_text())
    assert list(found) == ["base", "tiny"]
    assert found["base"] == {"img_size": 28, "patch_size": 4, "history": [{"seconds": 1.0}]}


@pytest.mark.filterwarnings("error")
def test_figures_are_drawn():
    rows = [{"epoch": e, "train_loss": 1 / e, "val_accuracy": e / 3} for e in (1, 2, 3)]
    assert "epoch 3" in plots.training_curves(rows, "Base").get_suptitle()
    scores = evaluate(RNG.normal(size=(24, 2)), SPLIT.labels, "binary-class", n_resamples=20)
    figure = plots.intervals({"Base": scores, "KD Tiny": scores}, {"linear model": 0.8})
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["Base", "KD Tiny"]
    maps = {"Base": RNG.normal(size=(3, 7, 7)), "Tiny": -np.ones((3, 7, 7))}
    figure = plots.heatmap_rows(SPLIT.images[:3], maps, dict.fromkeys(maps, "abc"), "xyz", "model")
    assert [axis.get_title() for axis in figure.axes] == [*"xyz", "", "", "", *["empty map"] * 3]
    figure.canvas.draw()
