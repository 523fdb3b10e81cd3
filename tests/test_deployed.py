"""Smaller files of shipped models, compared with Base, on untrained models with drawn images."""

import pytest
import torch
from small import some, vit

from swys_figures.tables import shrunk_table
from swys_studies import deployed
from swys_utils.data import load_dataset
from swys_utils.models import save_checkpoint

PAIR = {"spearman": 0.25, "chance_in_class": 0.125}

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir), test=20)


@pytest.fixture(scope="module")
def result(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    names = {"vit_base": 4, "vit_tiny": 4, "vit_tiny_answers_p7": 7}
    for seed, (name, patch) in enumerate(names.items()):
        model = vit(seed=seed, noise=0.1, patch_size=patch)
        card = {"model": name, "dataset": "pneumoniamnist", "patch_size": patch}
        save_checkpoint(model, folder / name, card)
    rows = list(deployed.compare_deployed(folder, data))
    return {"models": rows, "folder": folder}


def row(result, title):
    return next(row for row in result["models"] if row["title"] == title)


def test_base_agrees_with_itself(result):
    base = row(result, "Base")
    assert base["same_answer"] == 1
    assert base["grad_cam"]["spearman"] == pytest.approx(1)
    assert base["occlusion"]["spearman"] == pytest.approx(1)


def test_int8_is_nearer_to_its_own_model_than_another_model_is(result):
    same = row(result, "Base, int8")
    other = row(result, "Tiny")
    assert same["occlusion"]["spearman"] > other["occlusion"]["spearman"]
    assert same["grad_cam"]["spearman"] > other["grad_cam"]["spearman"]
    assert same["megabytes"] < row(result, "Base")["megabytes"]


def test_fewer_bits_take_less_space_and_are_further_from_the_whole_model(result):
    four = row(result, "Base, 4 bits")
    two = row(result, "Base, 2 bits")
    assert two["megabytes"] < four["megabytes"] < row(result, "Base")["megabytes"]
    assert two["occlusion"]["spearman"] < four["occlusion"]["spearman"]


def test_what_was_measured_is_not_measured_again(result, data):
    kept = [entry | {"occlusion": {}} for entry in result["models"] if entry["title"] != "Tiny"]
    again = list(deployed.compare_deployed(result["folder"], data, kept))
    assert [entry["title"] for entry in again] == [entry["title"] for entry in result["models"]]
    assert row({"models": again}, "Base, int8")["occlusion"] == {}
    assert row({"models": again}, "Tiny") == row(result, "Tiny")


@pytest.mark.parametrize("digest", ["weights", "base"])
def test_other_weights_are_measured_anew(result, data, digest):
    """Those of a model, or those of the Base that it was compared with."""
    changed = []
    for entry in result["models"]:
        known = entry | {"occlusion": {}}
        if entry["title"] == "Tiny":
            known[digest] = "others"
        changed.append(known)
    again = {"models": list(deployed.compare_deployed(result["folder"], data, changed))}
    assert row(again, "Tiny") == row(result, "Tiny")
    assert row(again, "Tiny, int8")["occlusion"] == {}


def test_the_scores_of_a_model_are_those_of_its_answers(result):
    base = row(result, "Base")
    assert len(base["recall"]) == 2
    assert 0 <= base["ece"] <= 1


def test_maps_of_coarser_patches_are_compared_on_as_many_images(result, data):
    coarse = row(result, "Tiny, answers, 16 patches")
    assert coarse["grad_cam"]["images"] == len(data.test)
    assert coarse["occlusion"]["images"] == -(-len(data.test) // 4)


def test_a_table_has_a_row_for_each_model(result):
    rows = deployed.deployed_table(result["models"])
    assert len(rows) == 8
    coarse = row(result, "Tiny, answers, 16 patches")["grad_cam"]
    assert rows[-2]["Grad-CAM (chance)"].startswith(f"{coarse['spearman']:.2f} (")


def test_the_int8_file_answers_with_a_hidden_patch_as_it_does_without(data):
    model = vit(noise=0.1)
    small = deployed.in_int8(model)
    inputs = torch.rand(2, 3, 28, 28) * 2 - 1
    with torch.no_grad():
        expected = model(inputs)
    difference = (small.scorer(inputs) - expected).abs().max()
    assert difference < 0.2 * expected.abs().max()


def test_what_is_left_of_base_is_counted_beyond_chance(result):
    rows = shrunk_table(result["models"])
    assert [row["model"] for row in rows] == [
        "Base",
        "Base, int8",
        "Base, 4 bits",
        "Base, 2 bits",
        "Tiny",
    ]
    assert (rows[0]["same answers"], rows[0]["same reasons"]) == ("100.0%", "100%")


def test_an_agreement_has_its_chance_beside_it():
    model = {"title": "Tiny", "megabytes": 6.0, "accuracy": 0.5, "auc": 0.5, "same_answer": 1.0}
    (row,) = deployed.deployed_table([model | {"occlusion": PAIR, "grad_cam": PAIR}])
    assert row["Grad-CAM (chance)"] == "0.25 (0.12)"
    assert row["hiding (chance)"] == "0.25 (0.12)"
