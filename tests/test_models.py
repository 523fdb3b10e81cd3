import json

import pytest
import torch

from swys_utils import models
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.metrics import point_scores
from swys_utils.models import create_model, load_checkpoint, save_checkpoint, weights_digest
from swys_utils.training import predict

SMALL = {"img_size": 28, "patch_size": 7, "depth": 2, "embed_dim": 192, "num_heads": 3}
CARD = {"model": "vit_tiny_patch16_224", "model_kwargs": {"depth": 2}}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("vit_tiny", 3, **SMALL).eval()


def outputs(model):
    with torch.inference_mode():
        return model(torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(1)))


def test_short_names_are_28_px_and_timm_names_their_own():
    for name, patches, parameters in (
        ("vit_tiny", 49, 5_358_338),
        ("vit_tiny_patch16_224", 196, 5_524_802),
        ("vit_base_patch16_224", 196, 85_800_194),
    ):
        model = create_model(name, 2)
        assert (model.patch_embed.num_patches, models.count_parameters(model)) == (patches, parameters)
    assert create_model("vit_tiny", 2, patch_size=7).patch_embed.num_patches == 16
    assert create_model("vit_tiny_patch16_224", 2, img_size=112).patch_embed.num_patches == 49


@pytest.mark.parametrize(
    "message, arguments",
    {
        "unknown model .*; did you mean 'vit_tiny_patch16_224'": ("vit_tinny_patch16_224", 2),
        "not a Vision Transformer|cannot be made": ("levit_128", 2, 224),
        "patches do not divide the image|cannot be made": ("vit_tiny", 2, 28, 5),
    }.items(),
)
def test_what_cannot_be_made_is_one_line(message, arguments):
    with pytest.raises(SwysError, match=message) as caught:
        create_model(*arguments)
    assert "\n" not in str(caught.value)


def test_equal_weights_have_equal_digests(model):
    for seed, same in ((0, True), (1, False)):
        torch.manual_seed(seed)
        assert (weights_digest(model) == weights_digest(create_model("vit_tiny", 3, **SMALL))) == same


def test_plain_attention_gives_the_same_and_leaves_no_trace(model):
    expected, fused = outputs(model), [block.attn.fused_attn for block in model.blocks]
    with models.plain_attention(model):
        assert not any(block.attn.fused_attn for block in model.blocks)
        torch.testing.assert_close(outputs(model), expected, rtol=0, atol=1e-5)
    assert [block.attn.fused_attn for block in model.blocks] == fused


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 0), ("fp16", 2e-3), ("int8", 5e-2)])
@pytest.mark.parametrize("form", ["folder", "file.safetensors"])
def test_round_trip(model, tmp_path, storage, tolerance, form, monkeypatch):
    if storage == "fp16":
        monkeypatch.setattr(models, "SHARD_BYTES", 2**19)  # large models are written in shards
    card = save_checkpoint(model, tmp_path / form, CARD, storage)
    loaded, read = load_checkpoint(tmp_path / form, num_classes=3)
    assert storage != "fp16" or (len(card["files"]) > 2 and all(x["bytes"] < 2**20 for x in card["files"]))
    assert read == json.loads(json.dumps(card))
    assert (read["num_classes"], read["img_size"], read["patch_size"]) == (3, 28, 7)
    assert not loaded.training and next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(outputs(loaded), outputs(model), rtol=0, atol=tolerance)
    assert not list(tmp_path.rglob("*.new")) and not list(tmp_path.rglob("*.part"))


def test_damaged_files_are_refused(model, tmp_path):
    save_checkpoint(model, tmp_path / "m", CARD)
    weights = tmp_path / "m" / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(SwysError, match="model.safetensors does not match the sha256"):
            load_checkpoint(tmp_path / "m")
    weights.rename(tmp_path / "m" / "other.safetensors")
    with pytest.raises(SwysError, match="model.safetensors is missing"):
        load_checkpoint(tmp_path / "m")
    with pytest.raises(SwysError, match="has no card"):
        models.find_checkpoint(tmp_path / "m" / "other.safetensors")
    (tmp_path / "m" / "card.json").write_text("{}")
    with pytest.raises(SwysError, match="is a required property"):
        models.read_card(tmp_path / "m" / "card.json")


def test_foreign_checkpoints_are_refused(model, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pth")
    save_checkpoint(model, tmp_path / "m", CARD)
    save_checkpoint(model, tmp_path / "n", {"model": "vit_tiny_patch16_224", "model_kwargs": {"depth": 3}})
    for message, foreign in {
        "is a pickle": (tmp_path / "model.pth",),
        "unknown checkpoint 'pneumoniamnist/vit_huge'": ("pneumoniamnist/vit_huge",),
        "has 3 classes, the data has 2": (tmp_path / "m", "cpu", 2),
        "does not fit vit_tiny_patch16_224: Missing key": (tmp_path / "n",),
    }.items():
        with pytest.raises(SwysError, match=message):
            load_checkpoint(*foreign)
    with pytest.raises(SwysError, match="cannot write"):
        save_checkpoint(model, tmp_path / "model.pth" / "m", CARD)


@pytest.mark.parametrize("killed_at", ["card.json", "model.safetensors"])
def test_a_kill_leaves_the_old_or_the_new_checkpoint(model, tmp_path, monkeypatch, killed_at):
    save_checkpoint(model, tmp_path / "m", CARD)
    old, real = outputs(load_checkpoint(tmp_path / "m")[0]), models.Path.replace
    torch.manual_seed(7)
    other = create_model("vit_tiny", 3, **SMALL).eval()

    def replace(self, target):  # the kill comes right before this rename
        if models.Path(target).name == killed_at:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(models.Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(other, tmp_path / "m", CARD)
    monkeypatch.undo()
    expected = outputs(other) if killed_at == "model.safetensors" else old
    torch.testing.assert_close(outputs(load_checkpoint(tmp_path / "m")[0]), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", models.checkpoint_ids())
def test_shipped_checkpoints_are_whole_and_score_what_their_cards_say(real_data_dir, name):
    model, card = load_checkpoint(name)
    assert card["training_hashes"] and not card["synthetic"]
    assert all(entry["bytes"] < 50e6 for entry in card["files"])
    if card["img_size"] == 224:
        return  # scoring takes minutes; `swys evaluate` does it
    data = load_dataset(card["dataset"], root=real_data_dir)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    scores = point_scores(predict(model, data.test.images), data.test.labels, data.info.task)
    torch.set_num_threads(threads)
    assert scores == pytest.approx({key: card["stored"][key] for key in scores}, abs=1e-3)
