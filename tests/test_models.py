import json

import pytest
import timm
import torch
from small import vit

from swys_studies import ship
from swys_utils import cards, models
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.metrics import point_scores
from swys_utils.models import create_model, load_checkpoint, save_checkpoint
from swys_utils.training import predict

CARD = {"model": "vit_tiny"}


@pytest.fixture
def model():
    return vit(3, noise=0.02, embed_dim=192)  # wide enough for int8


def outputs(model):
    with torch.inference_mode():
        return model(torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(1)))


def test_short_names_are_28_px_timm_names_their_own_and_what_cannot_be_made_is_one_line():
    sizes = {"vit_tiny": (49, 5_358_338), "vit_tiny_patch16_224": (196, 5_524_802)}
    for name, expected in (sizes | {"vit_base_patch16_224": (196, 85_800_194)}).items():
        model = create_model(name, 2)
        assert (model.patch_embed.num_patches, models.count_parameters(model)) == expected
    for message, arguments in {
        "unknown model .*; did you mean 'vit_tiny_patch16_224'": ("vit_tinny_patch16_224", 2),
        "unknown model '0'; .* for example vit_base, vit_tiny, .{,200}$": ("0", 2),
        "not a Vision Transformer|cannot be made": ("levit_128", 2, 224),
        "patches do not divide the image|cannot be made": ("vit_tiny", 2, 28, 5),
        "cannot be made with .*'patch_size': 0}": ("vit_tiny", 2, 28, 0),
        "'img_size': 0,": ("vit_tiny", 2, 0),
    }.items():
        with pytest.raises(SwysError, match=message) as caught:
            create_model(*arguments)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 0), ("fp16", 2e-3), ("int8", 5e-2)])
@pytest.mark.parametrize("form", ["folder", "my model (1) größe.safetensors"])
def test_round_trip(model, tmp_path, storage, tolerance, form, monkeypatch):
    if storage == "fp16":
        monkeypatch.setattr(models, "SHARD_BYTES", 2**19)  # large models are written in shards
    card = save_checkpoint(model, tmp_path / form, CARD, storage)
    loaded, read = load_checkpoint(tmp_path / form, num_classes=3)
    assert storage != "fp16" or (
        len(card["files"]) > 2 and all(x["bytes"] < 2**20 for x in card["files"])
    )
    assert read == json.loads(json.dumps(card))
    assert (read["num_classes"], read["img_size"], read["patch_size"]) == (3, 28, 14)
    assert not loaded.training and next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(outputs(loaded), outputs(model), rtol=0, atol=tolerance)
    save_checkpoint(vit(img_size=4, patch_size=1), tmp_path / form, CARD, storage)
    assert load_checkpoint(tmp_path / form)[0].patch_embed.grid_size == (4, 4)
    assert not list(tmp_path.rglob("*.new")) and not list(tmp_path.rglob("*.part"))


def test_damaged_and_foreign_files_are_refused(model, tmp_path):
    save_checkpoint(model, tmp_path / "m", CARD)
    weights = tmp_path / "m" / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(SwysError, match="model.safetensors does not match the sha256"):
            load_checkpoint(tmp_path / "m")
    renamed = weights.rename(tmp_path / "other.safetensors")
    wrong = {"model.safetensors is missing": tmp_path / "m", "has no card": renamed}
    wrong |= {
        "is a pickle": "model.pth",
        "unknown checkpoint 'bloodmnist/vit_huge'": "bloodmnist/vit_huge",
    }
    for message, path in wrong.items():
        with pytest.raises(SwysError, match=message):
            load_checkpoint(path)
    refused = {
        "cannot write": (renamed / "m", CARD),
        "be used": (tmp_path / "n", CARD | {"dataset": "a/b"}),
    }
    for message, (path, card) in refused.items():
        with pytest.raises(SwysError, match=message):
            save_checkpoint(model, path, card)
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("killed_at", ["card.json", "model.safetensors"])
def test_a_kill_leaves_the_old_or_the_new_checkpoint(model, tmp_path, monkeypatch, killed_at):
    save_checkpoint(model, tmp_path / "m", CARD)
    real, other = models.Path.replace, vit(3, seed=7, noise=0.02, embed_dim=192)

    def replace(self, target):  # the kill comes right before this rename
        if models.Path(target).name == killed_at:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(models.Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(other, tmp_path / "m", CARD)
    monkeypatch.undo()
    left = other if killed_at == "model.safetensors" else model
    torch.testing.assert_close(
        outputs(load_checkpoint(tmp_path / "m")[0]), outputs(left), rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("name", cards.checkpoint_ids())
def test_shipped_checkpoints_are_whole_and_score_what_their_cards_say(real_data_dir, name):
    model, card = load_checkpoint(name)
    assert card == cards.read_card(cards.find_checkpoint(name) / "card.json")
    assert card["training_hashes"] and not card["synthetic"]
    if card["img_size"] == 28:  # scoring at 224 px takes minutes; `swys evaluate` does it
        data, threads = load_dataset(card["dataset"], root=real_data_dir), torch.get_num_threads()
        torch.set_num_threads(2)
        scores = point_scores(predict(model, data.test.images), data.test.labels, data.info.task)
        torch.set_num_threads(threads)
        assert scores == pytest.approx({key: card["stored"][key] for key in scores}, abs=1e-3)
