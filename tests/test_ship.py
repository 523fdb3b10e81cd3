"""A shipped run: scores are those of the stored weights; timm loads it without this package."""

from dataclasses import replace

import pytest
import timm
import torch

from swys_studies import original
from swys_studies import ship as module
from swys_studies.reference import read_runs
from swys_studies.ship import ship
from swys_utils import models
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.metrics import point_scores
from swys_utils.models import create_model, load_checkpoint, save_checkpoint
from swys_utils.training import predict


@pytest.fixture
def run(tmp_path, monkeypatch, drawn_data_dir):
    """A run of drawn images, in a place of its own, and checkpoints that go to another."""
    monkeypatch.setattr(module, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(models, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    kwargs = {"depth": 2, "embed_dim": 48}
    model = create_model("vit_tiny", 2, **kwargs)
    torch.nn.init.normal_(model.head.weight)  # zeros at first: every logit would be equal
    card = {"model": "vit_tiny_patch16_224", "model_kwargs": kwargs, "dataset": "pneumoniamnist", "seed": 3}
    save_checkpoint(model, tmp_path / "seed3.safetensors", card | {"stored": {"accuracy": 2.0}}, "fp32")
    return str(tmp_path / "seed3.safetensors")


def test_scores_are_those_of_the_stored_weights(run):
    card = ship(run, "pneumoniamnist/mine", note="drawn images")
    model, read = load_checkpoint("pneumoniamnist/mine")
    assert read == card and (card["status"], card["note"], card["seed"]) == ("reference", "drawn images", 3)
    data = load_dataset("pneumoniamnist")
    logits = predict(model, data.test.images)
    scores = point_scores(logits, data.test.labels, data.info.task)
    assert card["stored"] == pytest.approx({"dtype": "fp16", "split": "test", "n": len(data.test), **scores})


def test_timm_loads_fp16_by_itself_and_is_not_offered_int8(run, tmp_path):
    for storage in ("fp16", "int8"):
        ship(run, f"pneumoniamnist/{storage}", storage)
    assert not (tmp_path / "checkpoints/pneumoniamnist/int8/config.json").exists()
    folder = tmp_path / "checkpoints/pneumoniamnist/fp16"
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    inputs = to_model_input(load_dataset("pneumoniamnist").test.images[:8])
    with torch.no_grad():
        torch.testing.assert_close(theirs(inputs), load_checkpoint(folder)[0](inputs))
    assert (theirs.pretrained_cfg["mean"], theirs.pretrained_cfg["input_size"][1:]) == ([0.5] * 3, (28, 28))


def test_runs_on_the_twin_are_refused(run):
    model, card = load_checkpoint(run)
    save_checkpoint(model, run, card | {"synthetic": True})
    with pytest.raises(SwysError, match="synthetic twin"):
        ship(run, "pneumoniamnist/mine")


def test_the_earlier_projects_training_goes_on_where_it_was_killed(tmp_path, monkeypatch, drawn_data_dir):
    data = load_dataset("pneumoniamnist", root=drawn_data_dir)
    data = replace(data, **{name: getattr(data, name).head(8) for name in ("train", "val", "test")})
    real, done = original.epoch, []

    def killed_once(model, optimizer, split, number, seconds):
        done.append(number)
        if len(done) == 2:
            raise KeyboardInterrupt
        return real(model, optimizer, split, number, seconds)

    monkeypatch.setattr(original, "study_data", lambda dataset: data)
    monkeypatch.setattr(original, "write_runs", lambda dataset, out: None)
    monkeypatch.setattr(original, "epoch", killed_once)
    monkeypatch.setitem(original.RECIPE, "epochs", 2)
    with pytest.raises(KeyboardInterrupt):
        original.original(folder=str(tmp_path))
    original.original(folder=str(tmp_path))
    (entry,) = read_runs(tmp_path)
    assert done == [0, 1, 1] and [row["epoch"] for row in entry["history"]] == [1, 2]
    assert not list(tmp_path.rglob("*.state.pt")) and set(entry["last"]) == {"accuracy", "auc", "ece"}
    assert load_checkpoint(tmp_path / f"{entry['id']}.safetensors")[1]["img_size"] == 224
