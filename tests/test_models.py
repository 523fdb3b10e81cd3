import functools
import http.server
import json
import threading

import numpy as np
import pytest
import torch

from swys_utils import models
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.explain import agreement, heatmaps
from swys_utils.fetch import check_checkpoints, fetch_checkpoints
from swys_utils.models import (
    count_parameters,
    create_model,
    load_checkpoint,
    pack_hashes,
    perceptual_hashes,
    save_checkpoint,
    save_predictions,
    seen_in_training,
    shipped_predictions,
    weights_digest,
)
from swys_utils.training import predict

SMALL = {"img_size": 28, "patch_size": 7}
CARD = {"model": "vit_tiny_patch16_224", "model_kwargs": {"patch_size": 7}}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("vit_tiny", 3, **SMALL).eval()


def outputs(model):
    with torch.inference_mode():
        return model(torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(1)))


def test_the_two_models_of_the_series():
    assert count_parameters(create_model("vit_base", 2)) == 85_800_194
    assert count_parameters(create_model("vit_tiny", 2)) == 5_524_802


def test_unknown_models_get_the_nearest():
    with pytest.raises(SwysError, match="unknown model 'vit_tinny_patch16_224'; did you mean 'vit_tiny_patch16_224'"):
        create_model("vit_tinny_patch16_224", 2)
    with pytest.raises(SwysError, match="not a Vision Transformer"):
        create_model("levit_128", 2)


def test_equal_weights_have_equal_digests(model):
    torch.manual_seed(0)
    assert weights_digest(model) == weights_digest(create_model("vit_tiny", 3, **SMALL))
    torch.manual_seed(1)
    assert weights_digest(model) != weights_digest(create_model("vit_tiny", 3, **SMALL))


@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 0), ("fp16", 2e-3), ("int8", 5e-2)])
@pytest.mark.parametrize("form", ["folder", "file.safetensors"])
def test_round_trip(model, tmp_path, storage, tolerance, form):
    card = save_checkpoint(model, tmp_path / form, CARD, storage)
    loaded, read = load_checkpoint(tmp_path / form, num_classes=3)
    assert read == json.loads(json.dumps(card)) and read["num_classes"] == 3 and read["img_size"] == 28
    assert not loaded.training and next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(outputs(loaded), outputs(model), rtol=0, atol=tolerance)
    assert not list(tmp_path.rglob("*.new")) and not list(tmp_path.rglob("*.part"))


def test_int8_error_is_at_most_half_a_step(model):
    weight = model.blocks[0].mlp.fc1.weight.detach()
    back = models._unpack(models._pack({"w": weight}, "int8"))["w"]
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((back - weight).abs() <= 0.51 * step + 1e-3 * weight.abs()).all()


def test_large_models_are_written_in_shards(model, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "SHARD_BYTES", 3 * 2**20)
    card = save_checkpoint(model, tmp_path / "m", CARD, "fp16")
    assert len(card["files"]) > 2 and all(entry["bytes"] < 3.2 * 2**20 for entry in card["files"])
    torch.testing.assert_close(outputs(load_checkpoint(tmp_path / "m")[0]), outputs(model), rtol=0, atol=2e-3)


def test_predictions_travel_with_their_weights(model, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    save_checkpoint(model, tmp_path / "m", CARD)
    assert shipped_predictions(tmp_path / "m", images) is None
    logits = predict(model, images)
    save_predictions(tmp_path / "m", images, logits)
    np.testing.assert_array_equal(shipped_predictions(tmp_path / "m", images[[4, 1]]), logits[[4, 1]])
    assert shipped_predictions(tmp_path / "m", images + 1) is None
    (tmp_path / "m" / "predictions.safetensors").write_bytes(b"other")
    with pytest.raises(SwysError, match="predictions.safetensors does not match"):
        shipped_predictions(tmp_path / "m", images)


def test_damaged_files_are_refused(model, tmp_path):
    save_checkpoint(model, tmp_path / "m", CARD)
    weights = tmp_path / "m" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(SwysError, match="model.safetensors does not match the sha256"):
        load_checkpoint(tmp_path / "m")
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SwysError, match="truncated or altered"):
        load_checkpoint(tmp_path / "m")
    weights.rename(tmp_path / "m" / "other.safetensors")
    with pytest.raises(SwysError, match="model.safetensors is missing"):
        load_checkpoint(tmp_path / "m")
    with pytest.raises(SwysError, match="has no card"):
        load_checkpoint(tmp_path / "m" / "other.safetensors")
    (tmp_path / "m" / "card.json").write_text("{}")
    with pytest.raises(SwysError, match="not a checkpoint card"):
        load_checkpoint(tmp_path / "m")


def test_pickles_and_unknown_ids_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(SwysError, match="is a pickle"):
        load_checkpoint(tmp_path / "model.pth")
    with pytest.raises(SwysError, match="checkpoint"):
        load_checkpoint("pneumoniamnist/vit_huge")


def test_wrong_number_of_classes_and_wrong_keys_are_refused(model, tmp_path):
    save_checkpoint(model, tmp_path / "m", CARD)
    with pytest.raises(SwysError, match="has 3 classes, the data has 2"):
        load_checkpoint(tmp_path / "m", num_classes=2)
    save_checkpoint(model, tmp_path / "n", {**CARD, "model": "vit_small_patch16_224"})
    with pytest.raises(SwysError, match="does not fit vit_small_patch16_224: '.*' is .*, expected"):
        load_checkpoint(tmp_path / "n")


def test_unwritable_path_is_one_line(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SwysError, match="cannot write checkpoint"):
        save_checkpoint(model, tmp_path / "file" / "m", CARD)


@pytest.mark.parametrize("killed_at", ["card.json.part", "card.json", "model.safetensors"])
def test_a_kill_leaves_the_old_or_the_new_checkpoint(model, tmp_path, monkeypatch, killed_at):
    save_checkpoint(model, tmp_path / "m", CARD)
    old = outputs(load_checkpoint(tmp_path / "m")[0])
    torch.manual_seed(7)
    other = create_model("vit_tiny", 3, **SMALL).eval()
    real = models.Path.replace

    def replace(self, target):  # the power goes off right before this rename
        if models.Path(target).name == killed_at or self.name == killed_at:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(models.Path, "replace", replace)
    if killed_at == "card.json.part":
        monkeypatch.setattr(models, "write_json", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(other, tmp_path / "m", CARD)
    monkeypatch.undo()
    found = outputs(load_checkpoint(tmp_path / "m")[0])
    expected = outputs(other) if killed_at == "model.safetensors" else old
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_fingerprints_find_copies_and_nothing_else(drawn_data_dir):
    data = load_dataset("bloodmnist", root=drawn_data_dir)
    card = {"training_hashes": pack_hashes(perceptual_hashes(data.train.images))}
    assert seen_in_training(card, data.train.images).all()
    brighter = np.clip(data.train.images * 0.9 + 10, 0, 255).round().astype(np.uint8)
    assert seen_in_training(card, brighter).mean() > 0.8
    noise = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8)
    assert not seen_in_training(card, noise).any()
    with pytest.raises(SwysError, match="no fingerprints"):
        seen_in_training({}, noise)


def test_fingerprints_on_real_images(real_data_dir):
    data = load_dataset(root=real_data_dir)
    card = {"training_hashes": pack_hashes(perceptual_hashes(data.train.images))}
    assert not seen_in_training(card, data.test.images).any()
    train = {image.tobytes() for image in data.train.images}
    copies = np.array([image.tobytes() in train for image in data.val.images])
    np.testing.assert_array_equal(seen_in_training(card, data.val.images), copies)
    assert copies.sum() == 8


# --- fetching --------------------------------------------------------------------------------------------------


@pytest.fixture
def source(model, tmp_path):
    """A folder with one checkpoint and an index, and an http server on it that understands ranges."""
    folder = tmp_path / "source"
    save_checkpoint(model, folder / "toy" / "vit_tiny", CARD)
    (folder / "index.json").write_text(json.dumps({"checkpoints": ["toy/vit_tiny"]}))

    class Handler(http.server.SimpleHTTPRequestHandler):
        ranges = []

        def do_GET(self):
            wanted = self.headers.get("Range")
            if not wanted:
                return super().do_GET()
            Handler.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            content = open(self.translate_path(self.path), "rb").read()
            self.send_response(206 if start < len(content) else 416)
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}", Handler
        httpd.shutdown()


@pytest.mark.parametrize("by", ["folder", "url"])
def test_fetch_then_load(source, tmp_path, by, model):
    folder, url, _ = source
    target = tmp_path / "target"
    lines = list(fetch_checkpoints(str(folder) if by == "folder" else url, target))
    assert len(lines) == 1 and "fetched" in lines[0]
    assert "already there" in next(fetch_checkpoints(url, target))
    torch.testing.assert_close(outputs(load_checkpoint(target / "toy/vit_tiny")[0]), outputs(model), rtol=0, atol=2e-3)
    assert list(check_checkpoints(target))[0][1]


def test_fetch_resumes_and_survives_a_wrong_beginning(source, tmp_path):
    folder, url, handler = source
    whole = (folder / "toy/vit_tiny/model.safetensors").read_bytes()
    part = tmp_path / "t" / "toy" / "vit_tiny" / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(whole[:5000])
    list(fetch_checkpoints(url, tmp_path / "t"))
    assert handler.ranges == ["bytes=5000-"] and part.with_suffix("").read_bytes() == whole
    part.with_suffix("").unlink()
    part.write_bytes(b"wrong" + whole[5:5000])
    list(fetch_checkpoints(url, tmp_path / "t"))
    assert part.with_suffix("").read_bytes() == whole and not part.exists()


def test_fetch_refuses_what_is_not_in_the_card(source, tmp_path):
    folder, url, _ = source
    weights = folder / "toy/vit_tiny/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(SwysError, match="sha256 differs"):
        list(fetch_checkpoints(url, tmp_path / "t"))
    assert not list((tmp_path / "t").rglob("*.safetensors")) and not list((tmp_path / "t").rglob("card.json"))
    with pytest.raises(SwysError, match="cannot read"):
        list(fetch_checkpoints(str(tmp_path / "nowhere"), tmp_path / "t"))


def test_ids_are_found_through_a_base_url(source, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "CHECKPOINTS", tmp_path / "cache")
    monkeypatch.setenv("SWYS_CHECKPOINTS_URL", source[1])
    assert load_checkpoint("toy/vit_tiny")[1]["model"] == CARD["model"]
    assert (tmp_path / "cache" / "toy" / "vit_tiny" / "card.json").is_file()


def test_int8_keeps_answers_and_heatmaps_of_a_trained_model_on_real_images(real_data_dir, tmp_path):
    """The bar for a shipped int8 file: at most 0.2 points of accuracy, maps at rank correlation 0.99 or more."""
    test = load_dataset(root=real_data_dir).test.head(128)
    model, card = load_checkpoint("pneumoniamnist/vit_tiny")
    save_checkpoint(model, tmp_path / "int8", card, "int8")
    small, _ = load_checkpoint(tmp_path / "int8")
    right = [(predict(m, test.images).argmax(axis=1) == test.labels).mean() for m in (model, small)]
    assert abs(right[0] - right[1]) <= 0.002
    maps = [heatmaps(m, test.images, targets=1, signed=True) for m in (model, small)]
    assert np.nanmean(agreement(*maps).spearman) >= 0.99


def test_shipped_checkpoints_are_whole_and_say_what_they_are():
    for name in models.checkpoint_ids():
        _, card = load_checkpoint(name)
        assert card["training_hashes"] and not card["synthetic"] and card["stored"]["accuracy"] > 0.8
        assert all(entry["bytes"] < 50e6 for entry in card["files"])
    assert "pneumoniamnist/vit_tiny" in models.checkpoint_ids()
