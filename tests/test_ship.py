"""A run that is put into checkpoints/ is scored as it is stored, and timm loads it."""

import json

import pytest
import timm
import torch
from small import vit

from swys_studies import ship
from swys_utils import cards
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.metrics import point_scores
from swys_utils.models import load_checkpoint, save_checkpoint
from swys_utils.training import predict

CARD = {
    "model": "vit_tiny_patch16_224",
    "dataset": "pneumoniamnist",
    "seed": 3,
    "predicted": "0101",
    "stored": {"auc": 2.0},
}


@pytest.fixture(scope="module", autouse=True)
def checkpoints(tmp_path_factory, drawn_data_dir):
    """A folder in place of checkpoints/, and drawn images."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship, "CHECKPOINTS", folder)
        patch.setattr(cards, "CHECKPOINTS", folder)
        patch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
        yield folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The weights of a finished run."""
    path = tmp_path_factory.mktemp("runs") / "seed3.safetensors"
    save_checkpoint(vit(noise=0.05), path, CARD, "fp32")
    return path


@pytest.fixture(scope="module")
def card(run, checkpoints):
    """The card of what was shipped."""
    return ship.ship(run, "pneumoniamnist/mine", note="drawn images")


def test_the_card_is_the_one_that_a_reader_loads(card):
    assert load_checkpoint("pneumoniamnist/mine")[1] == card


def test_the_card_keeps_what_the_run_says(card):
    assert card["seed"] == 3


def test_the_card_has_status_and_note(card):
    assert card["status"] == "reference"
    assert card["note"] == "drawn images"


def test_predictions_for_paired_tests_are_left_out(card):
    assert "predicted" not in card


def test_the_scores_are_those_of_the_stored_weights(card):
    model, _ = load_checkpoint("pneumoniamnist/mine")
    data = load_dataset("pneumoniamnist")
    logits = predict(model, data.test.images)
    scores = point_scores(logits, data.test.labels, data.info.task)
    expected = {
        "dtype": "fp16",
        "split": "test",
        "n": len(data.test),
        **scores,
    }
    assert card["stored"] == pytest.approx(expected)


@pytest.fixture(scope="module")
def timm_model(card, checkpoints):
    """The model as timm reads it, without this package."""
    folder = checkpoints / "pneumoniamnist" / "mine"
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def test_timm_loads_the_same_model(timm_model):
    model, _ = load_checkpoint("pneumoniamnist/mine")
    images = load_dataset("pneumoniamnist").test.images[:8]
    inputs = to_model_input(images)
    with torch.no_grad():
        torch.testing.assert_close(timm_model(inputs), model(inputs))


def test_timm_knows_how_images_are_prepared(timm_model):
    assert timm_model.pretrained_cfg["mean"] == [0.5, 0.5, 0.5]
    assert list(timm_model.pretrained_cfg["input_size"]) == [3, 28, 28]


def test_int8_weights_are_not_offered_to_timm(run, checkpoints):
    ship.ship(run, "pneumoniamnist/small")
    ship.ship(run, "pneumoniamnist/small", "int8")  # timm would misread them
    assert not (checkpoints / "pneumoniamnist" / "small" / "config.json").exists()


def test_weights_that_the_card_does_not_name_are_removed(run, checkpoints):
    folder = checkpoints / "pneumoniamnist" / "again"
    ship.ship(run, "pneumoniamnist/again")
    left_over = folder / "model-00001-of-00002.safetensors"
    left_over.write_bytes(b"of an earlier, larger checkpoint")
    ship.ship(run, "pneumoniamnist/again")
    card = json.loads((folder / "card.json").read_text())
    files = [path.name for path in folder.glob("*.safetensors")]
    assert files == [entry["name"] for entry in card["files"]]


def test_a_run_on_the_twin_is_refused(run, tmp_path):
    model, card = load_checkpoint(run)
    save_checkpoint(model, tmp_path / "twin", card | {"synthetic": True})
    with pytest.raises(SwysError, match="synthetic twin"):
        ship.ship(tmp_path / "twin", "pneumoniamnist/twin")


def test_answers_stay_until_they_are_replaced(tmp_path):
    """A kill in between must not lose that there were answers."""
    answers = tmp_path / ship.FILE_NAME
    answers.write_bytes(b"of the earlier weights")
    ship.remove_old_files(tmp_path, {"files": []})
    assert answers.exists()
