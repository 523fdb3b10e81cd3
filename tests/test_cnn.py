"""ResNets compared with shipped ViTs: untrained models and drawn images."""

import json

import pytest
from small import some, vit

from swys_studies import cnn, resnet
from swys_utils.data import load_dataset
from swys_utils.models import load_checkpoint, save_checkpoint, weights_digest
from swys_utils.recipe import Recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """In place of checkpoints/, with a folder of runs."""
    return tmp_path_factory.mktemp("cnn")


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir), train=32, test=12)


@pytest.fixture(scope="module")
def found(data, folder):
    """The printed rows and the content of the file, of Base, Tiny, two ResNets and a student."""
    for seed, name in enumerate(("vit_base", "vit_tiny")):
        model = vit(seed=seed, noise=0.1, patch_size=4)
        card = {"model": name, "dataset": "pneumoniamnist"}
        save_checkpoint(model, folder / "pneumoniamnist" / name, card)
    student = "vit_tiny/answers_of_resnets/seed1"
    model = vit(seed=2, noise=0.1, patch_size=4)
    save_checkpoint(model, folder / "runs" / f"{student}.safetensors", card)
    recipe = Recipe(epochs=1, batch_size=16, warmup_epochs=1, views=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cnn, "one_label_data", lambda dataset: data)
        patch.setattr(cnn, "CHECKPOINTS", folder)
        patch.setattr(resnet, "resnet_recipe", lambda dataset: recipe)
        rows = cnn.cnn(folder=str(folder / "runs"))
        patch.setattr(cnn, "occlusion", None)  # what is explained is kept
        assert cnn.cnn(folder=str(folder / "runs")) == rows
    path = folder / "pneumoniamnist" / "cnn.json"
    return rows, json.loads(path.read_text("utf-8"))


def test_each_vit_is_compared_with_each_resnet_and_these_with_each_other(found):
    rows, _ = found
    assert [row["models"] for row in rows] == [
        "Base and ResNet 1",
        "Base and ResNet 2",
        "Tiny and ResNet 1",
        "Tiny and ResNet 2",
        "their student 2 and ResNet 1",
        "their student 2 and ResNet 2",
        "ResNet 1 and ResNet 2",
    ]


def test_every_fourth_image_is_hidden_and_all_are_marked(found):
    _, kept = found
    for pair in kept["pairs"].values():
        assert pair["occlusion"]["images"] == 3
        assert pair["grad_cam"]["images"] == 12


def test_the_scores_are_those_of_the_answers(found):
    _, kept = found
    first, second = cnn.scores_table(kept)
    assert (first["model"], second["model"]) == ("ResNet 1", "ResNet 2")
    assert first["passes"] == "1"
    pair = kept["pairs"]["resnet18/labels/seed0 and resnet18/labels/seed1"]
    answers = [run["predicted"] for run in kept["runs"]]
    same = sum(one == other for one, other in zip(*answers))
    assert pair["same_answer"] == pytest.approx(same / 12, abs=1e-4)


STORED = {
    "runs": [{"id": "first", "predicted": "01"}, {"id": "second", "predicted": "11"}],
    "pairs": {"vit and first": {}, "vit and second": {}, "first and second": {}},
}
NEW = {"vit and first": {"new": True}}


@pytest.fixture
def path(data, tmp_path):
    """A file with what is stored of these images."""
    path = tmp_path / "cnn.json"
    facts = {"images": len(data.test), "source": data.info.source}
    path.write_text(json.dumps(STORED | facts))
    return path


@pytest.mark.parametrize(
    ("predicted", "kept"),
    [("01", ["vit and second", "first and second"]), ("00", ["vit and second"])],
)
def test_what_was_measured_of_other_networks_is_kept(data, path, predicted, kept):
    asked = [{"id": "first", "predicted": predicted}]
    runs, pairs = cnn._measured_before(path, data, "base", asked, NEW)
    assert runs == STORED["runs"][1:]
    assert list(pairs) == kept


@pytest.mark.parametrize(("base", "kept"), [("this one", 3), ("another", 0)])
def test_pairs_are_kept_of_the_same_base_only(data, path, base, kept):
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"base": "this one"}))
    runs, pairs = cnn._measured_before(path, data, base, [], {})
    assert runs == STORED["runs"]
    assert len(pairs) == kept


@pytest.mark.parametrize("other", [{"source": "drawn otherwise"}, {"images": 11}])
def test_nothing_is_kept_of_other_images(data, path, other):
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | other))
    assert cnn._measured_before(path, data, "base", [], {}) == ([], {})


def test_other_images_are_explained_anew(found, data, folder):
    weights = {"vit_base": folder / "pneumoniamnist" / "vit_base"}
    network = resnet.small_resnet(2, seed=0).eval()
    fewer = some(data, test=8)
    explained = folder / "runs" / "explained"
    _, pairs = cnn.compared_pairs(weights, {"resnet": network}, fewer, explained)
    assert pairs["vit_base and resnet"]["grad_cam"]["images"] == 8


def test_the_weights_of_base_are_named(found, folder):
    _, kept = found
    base, _ = load_checkpoint(folder / "pneumoniamnist" / "vit_base")
    assert kept["base"] == weights_digest(base)
