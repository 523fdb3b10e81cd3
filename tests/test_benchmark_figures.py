"""Figures and tables of notebook 6."""

import json

import numpy as np
import pytest
import torch
from small import vit

from swys_figures import benchmark as benchmark_figures
from swys_utils.benchmark import Timing
from swys_utils.data import Dataset, load_dataset
from swys_utils.models import count_parameters, create_model

IMAGES = np.random.default_rng(0).integers(
    0,
    256,
    (2, 28, 28),
    np.uint8,
)
MAPS = np.random.default_rng(1).normal(size=(2, 7, 7))


@pytest.fixture
def data(drawn_data_dir) -> Dataset:
    return load_dataset(root=drawn_data_dir)


@pytest.fixture
def model():
    return vit().eval()


TIMINGS = {
    f"{model}, {runtime}": Timing(np.array([ms, ms, ms]))
    for model, ms in {"Base": 100.0, "Tiny": 10.0}.items()
    for runtime in benchmark_figures.RUNTIMES
}


def test_the_factor_of_each_program_is_written():
    figure = benchmark_figures.width_figure(TIMINGS, 15.5)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("10.0 times faster") == 3
    assert texts.count("arithmetic alone: 15.5 times") == 3


def test_the_fixed_part_stands_where_a_line_begins():
    lines = {"torch": (5.0, 10.0), "ONNX": (2.0, 8.0)}
    check = ("Tiny, 16 patches", 0.1, 6.0)
    whole, corner = benchmark_figures.fixed_part_figure(
        lines, {"Base": 4.0, "Tiny": 0.3}, check
    ).axes
    drawn = {line.get_label(): line.get_ydata() for line in whole.lines}
    assert list(drawn["torch"]) == [5.0, 45.0]
    texts = [text.get_text() for text in corner.texts]
    assert texts == ["torch:\n5.0 ms fixed", "ONNX:\n2.0 ms fixed", "Tiny, 16 patches"]


@pytest.fixture(scope="module")
def compared_maps():
    first, second = MAPS
    pairs = {
        "Grad-CAM": (first, second),
        "hiding": (second, second),
    }
    agreements = {
        "Grad-CAM": 0.5,
        "hiding": 1.0,
    }
    return benchmark_figures.file_maps(
        IMAGES[0],
        pairs,
        agreements,
    )


def test_maps_of_a_file_stand_below_those_of_torch(compared_maps):
    titles = [ax.get_title() for ax in compared_maps.axes]
    above = ["the X-ray", "torch: Grad-CAM", "torch: hiding"]
    assert titles == [
        *above,
        "",
        "int8 file: Grad-CAM",
        "int8 file: hiding",
    ]


def test_both_maps_of_a_pair_have_one_scale(compared_maps):
    scales = []
    for ax in compared_maps.axes:
        drawn = ax.images
        scales.append(drawn[0].get_clim() if drawn else None)
    assert scales[1] == scales[4]
    assert scales[2] == scales[5]


def test_no_rounding_changes_no_answer(data, model):
    before = model.head.weight.clone()
    rows = benchmark_figures.answers_by_bits(
        model,
        data.test.sample(8),
        lambda matrix, bits: matrix,
    )
    assert {row["answers that change"] for row in rows} == {"0.0%"}
    assert torch.equal(model.head.weight, before)


def test_other_matrices_change_answers(data, model):
    rows = benchmark_figures.answers_by_bits(
        model, data.test.sample(40), lambda matrix, bits: -matrix if bits == 2 else matrix
    )
    assert rows[0]["answers that change"] == "0.0%"
    assert rows[-1]["answers that change"] != "0.0%"


def test_the_table_of_steps_is_kept(tmp_path):
    file = tmp_path / "tiny.onnx"
    file.write_bytes(b"0" * 6_000_000)
    counts = {"Base, torch": 4 * 10**9, "Tiny, ONNX": 3 * 10**8}
    rows = benchmark_figures.step_table(TIMINGS, counts, {"Tiny, ONNX": file})
    assert [row["size"] for row in rows] == ["341 MB", "6 MB"]
    assert rows[1]["times faster [95 %]"] == "10.0 [10.0, 10.0]"
    benchmark_figures.keep_table(rows, "a note", tmp_path)
    assert json.loads((tmp_path / "benchmark_table.json").read_text())["note"] == "a note"


def test_how_far_the_maps_agree_stands_below_those_of_the_file(compared_maps):
    below = [ax.get_xlabel() for ax in compared_maps.axes]
    assert below[1] == f"highest {MAPS[0].max():.2g}"
    assert below[4].endswith(", agreement 0.50")
    assert below[5].endswith(", agreement 1.00")


@pytest.mark.parametrize("name", ["vit_base", "vit_tiny"])
def test_the_weights_of_a_model_are_counted_without_it(name):
    counted = count_parameters(create_model(name, 2))
    assert benchmark_figures.parameters_of(name) == counted
