"""Shared figures: they are drawn without an error, and the live curve leaves one picture in a notebook."""

import json
from types import SimpleNamespace

import nbclient
import nbformat
import numpy as np
import pytest
from small import vit

from swys_utils import baseline, plots, results
from swys_utils.data import load_dataset

LOOP = """
import numpy as np
from swys_utils import baseline, plots, results
from swys_utils.data import Split
from swys_utils.models import create_model
split, model = Split(np.zeros((4, 28, 28), np.uint8), np.arange(4) % 2), create_model("vit_tiny", 2, depth=1)
row = {"seconds": 9, "accuracy": 0.7, "auc": 0.8}
curve = plots.LiveCurve(split, "binary-class", "Tiny", {"linear model": row}, {"Base": [row]})
for second in (0, 59, 60, 120): curve(model.train(), second)
assert curve.history[2:] == [{"seconds": 120, "accuracy": 0.5, "auc": 0.5}] and model.training
"""


def test_live_curve_stores_one_plain_picture_in_a_notebook_and_keeps_other_entries(
    tmp_path, monkeypatch
):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LOOP)])
    (output,) = nbclient.execute(notebook, timeout=240, kernel_name="python3").cells[0].outputs
    assert list(output.data) == ["image/png"] and len(output.data["image/png"]) > 10_000
    assert output.metadata["image/png"]["alt"] == "Tiny after 120 s: accuracy 50.0%, AUC 0.500"
    monkeypatch.setattr(results, "BUILD", tmp_path)
    data = SimpleNamespace(info=SimpleNamespace(results_name="twin"))
    for key in ("base", "tiny", "base"):
        results.write_live(data, key, vit(), [{"seconds": 1.0}])
    entry = {"img_size": 28, "patch_size": 14, "history": [{"seconds": 1.0}]}
    written = (tmp_path / "results" / "twin" / "live.json").read_text()
    assert json.loads(written) == {"base": entry, "tiny": entry}


@pytest.mark.parametrize("name", ["pneumoniamnist", "chestmnist"])
def test_the_linear_line_tells_drawn_classes_apart(drawn_data_dir, name):
    data = load_dataset(name, root=drawn_data_dir)
    (scores,) = baseline.linear_line(data, data.test).values()
    assert scores["auc"] > 0.95 and set(scores) == {"accuracy", "auc", "ece"}


@pytest.mark.filterwarnings("error")
def test_figures_are_drawn_with_one_colour_for_each_name():
    rng = np.random.default_rng(0)
    images, maps = np.zeros((3, 28, 28), np.uint8), {"Base": rng.normal(size=(3, 7, 7))}
    maps["Tiny"] = -(maps["Base"] ** 2)
    figure = plots.heatmap_rows(images, maps, dict.fromkeys(maps, "abc"), "xyz", "model")
    figure.canvas.draw()
    assert [axis.get_xlabel() for axis in figure.axes[3:]] == [
        *"abc",
        *(f"{c}\nempty map" for c in "abc"),
    ]
    names = ["Base", "Tiny", "KD Tiny", "Tiny, features", "Tiny, soft targets and maps", "another"]
    assert len({plots.colour(name) for name in names}) == len(names)
    assert plots.colour("Base, shipped run") == plots.colour("Base")
