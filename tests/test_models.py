"""Models of the series, and checkpoints: whole, loadable, or refused in one line."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from small import vit
from timm.models.vision_transformer import ResPostBlock
from torch import nn

from swys_utils import cards, models
from swys_utils.config import SwysError
from swys_utils.models import (
    SERIES,
    create_model,
    lesson_models,
    load_checkpoint,
    save_checkpoint,
)

CARD = {"model": "vit_tiny"}
TINY_224 = "vit_tiny_patch16_224"
BASE_224 = "vit_base_patch16_224"
TOLERANCES = {"fp32": 0, "fp16": 2e-3, "int8": 5e-2}


@pytest.fixture
def model():
    return vit(3, noise=0.02, embed_dim=192)  # wide enough for int8


@pytest.fixture
def saved(model, tmp_path):
    """The folder of a checkpoint of ``model``."""
    folder = tmp_path / "m"
    save_checkpoint(model, folder, CARD)
    return folder


def outputs(model):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(4, 3, 28, 28, generator=generator)
    with torch.inference_mode():
        return model(inputs)


def assert_answers_alike(model, other, tolerance: float) -> None:
    torch.testing.assert_close(outputs(model), outputs(other), rtol=0, atol=tolerance)


# models


@pytest.mark.parametrize(
    ("name", "tokens", "parameters"),
    [
        ("vit_tiny", 49, 5_358_338),
        (TINY_224, 196, 5_524_802),
        (BASE_224, 196, 85_800_194),
    ],
)
def test_a_name_gives_a_geometry(name, tokens, parameters):
    model = create_model(name, 2)
    assert model.patch_embed.num_patches == tokens
    assert models.count_parameters(model) == parameters


def test_a_given_geometry_comes_before_that_of_the_name():
    model = create_model("vit_tiny", 2, img_size=56, patch_size=14, depth=1)
    assert model.patch_embed.img_size == (56, 56)
    assert model.patch_embed.patch_size == (14, 14)


def test_a_name_of_the_series_stands_for_a_row_of_its_table():
    assert models.SERIES["vit_tiny_answers_p7"] == models.SeriesModel(
        title="Tiny, answers, 16 patches",
        timm_name=TINY_224,
        img_size=28,
        patch_size=7,
        objective="answers",
        colour="#009E73",
    )


def test_titles_differ():
    titles = [member.title for member in models.SERIES.values()]
    assert len(set(titles)) == len(titles)


def test_a_name_of_the_series_has_an_architecture_of_timm():
    assert models.timm_name("vit_tiny_answers_p7") == TINY_224


def test_another_name_is_timms_own():
    assert models.timm_name("deit_tiny_patch16_224") == "deit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("unknown model .*; did you mean 'vit_tiny_patch16_224'", ("vit_tinny_patch16_224", 2)),
        ("unknown model '0'; .* for example vit_base, vit_tiny, .{,200}$", ("0", 2)),
        ("not a Vision Transformer|cannot be made", ("levit_128", 2, 224)),
        ("patches do not divide the image|cannot be made", ("vit_tiny", 2, 28, 5)),
        ("cannot be made with .*'patch_size': 0}", ("vit_tiny", 2, 28, 0)),
        ("'img_size': 0,", ("vit_tiny", 2, 0)),
    ],
)
def test_a_model_that_cannot_be_made_is_one_line(message, arguments):
    with pytest.raises(SwysError, match=message) as caught:
        create_model(*arguments)
    assert "\n" not in str(caught.value)


def test_an_option_that_timm_refuses_without_a_word_is_one_line():
    with pytest.raises(SwysError, match="AssertionError"):
        create_model("vit_tiny", 2, patch_drop_rate=1.0)


def test_equal_weights_have_one_digest():
    model = vit(seed=1)
    again = vit(seed=1)
    assert models.weights_digest(model) == models.weights_digest(again)


def test_other_weights_have_another_digest():
    model = vit(seed=1)
    other = vit(seed=2)
    assert models.weights_digest(model) != models.weights_digest(other)


# saved and loaded again


@pytest.mark.parametrize(("storage", "tolerance"), TOLERANCES.items())
@pytest.mark.parametrize("form", ["folder", "my model (1) größe.safetensors"])
def test_a_loaded_model_answers_like_the_saved_one(model, tmp_path, storage, tolerance, form):
    save_checkpoint(model, tmp_path / form, CARD, storage)
    loaded, _ = load_checkpoint(tmp_path / form, num_classes=3)
    assert_answers_alike(loaded, model, tolerance)


def test_a_loaded_model_is_ready_for_use(saved):
    loaded, _ = load_checkpoint(saved)
    assert not loaded.training
    assert next(loaded.parameters()).dtype == torch.float32


def test_the_card_is_loaded_as_it_was_returned(model, tmp_path):
    card = save_checkpoint(model, tmp_path / "m", CARD)
    _, loaded = load_checkpoint(tmp_path / "m")
    assert loaded == json.loads(json.dumps(card))


def test_the_card_says_the_geometry(saved):
    _, card = load_checkpoint(saved)
    assert card["num_classes"] == 3
    assert card["img_size"] == 28
    assert card["patch_size"] == 14


def test_a_large_model_is_stored_in_shards(model, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "SHARD_BYTES", 2**19)
    card = save_checkpoint(model, tmp_path / "m", CARD)
    loaded, _ = load_checkpoint(tmp_path / "m")
    assert len(card["files"]) > 2
    assert max(entry["bytes"] for entry in card["files"]) < 2**20
    assert_answers_alike(loaded, model, TOLERANCES["fp16"])


def test_a_checkpoint_is_replaced_by_the_next(saved):
    save_checkpoint(vit(img_size=4, patch_size=1), saved, CARD)
    loaded, _ = load_checkpoint(saved)
    assert loaded.patch_embed.grid_size == (4, 4)


def test_only_weights_and_card_are_left(saved):
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["card.json", "model.safetensors"]


# architectures that a card does not describe

REFUSED = {
    "oblong image": {"img_size": (28, 42)},
    "oblong patches": {"patch_size": (14, 7)},
    "no bias": {"qkv_bias": False},
    "registers": {"reg_tokens": 4},
    "average pooling": {"global_pool": "avg"},
    "layer scale": {"init_values": 0.1},
    "pooling by attention": {"global_pool": "map"},
    # these have the names and shapes of the plain model's weights, and would give other answers
    "another kind of block": {"block_fn": ResPostBlock},
    "another activation": {"act_layer": nn.ReLU},
    "average pooling without its norm": {"global_pool": "avg", "fc_norm": False},
}


def test_a_model_with_the_rates_of_a_recipe_is_loaded_again(tmp_path):
    model = vit(3, noise=0.05, drop_path_rate=0.2, patch_drop_rate=0.5, drop_rate=0.1)
    save_checkpoint(model, tmp_path / "m", CARD, "fp32")
    loaded, _ = load_checkpoint(tmp_path / "m")
    assert_answers_alike(loaded, model, 0)


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_what_could_not_be_loaded_is_refused_before_it_is_written(tmp_path, options):
    model = vit(3, **options)
    with pytest.raises(SwysError, match="cannot") as caught:
        save_checkpoint(model, tmp_path / "m", CARD)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_blocks_without_an_attention_layer_are_refused(tmp_path):
    name = "vit_small_patch16_18x2_224"
    model = vit(name=name, img_size=28)
    with pytest.raises(SwysError, match="cannot describe .*ParallelThingsBlock"):
        save_checkpoint(model, tmp_path / "m", {"model": name})


def test_a_model_under_a_wrong_name_is_refused(tmp_path):
    with pytest.raises(SwysError, match="unknown model 'vit_mine'"):
        save_checkpoint(vit(), tmp_path / "m", {"model": "vit_mine"})


def test_the_card_of_a_plain_model_holds_its_sizes_alone(saved):
    card = cards.read_card(saved / "card.json")
    assert card["model_kwargs"] == {"depth": 2, "embed_dim": 192, "num_heads": 3}


def test_saving_draws_no_random_number(model, tmp_path):
    before = torch.get_rng_state()
    save_checkpoint(model, tmp_path / "m", CARD)
    assert torch.equal(torch.get_rng_state(), before)


# damaged, foreign, unwritable


def test_truncated_weights_are_refused(saved):
    weights = saved / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(SwysError, match="model.safetensors does not match the sha256"):
        load_checkpoint(saved)


def test_weights_with_one_flipped_bit_are_refused(saved):
    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(SwysError, match="model.safetensors does not match the sha256"):
        load_checkpoint(saved)


def test_missing_weights_are_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(SwysError, match="model.safetensors is missing"):
        load_checkpoint(saved)


def test_a_scale_that_is_one_number_is_refused(model, tmp_path):
    card = save_checkpoint(model, tmp_path / "m", CARD, "int8")
    weights = tmp_path / "m" / "model.safetensors"
    tensors = load(weights.read_bytes())
    scale = next(key for key in tensors if key.endswith(".scale"))
    tensors[scale] = torch.tensor(1.0)
    weights.write_bytes(save(tensors))
    card["files"] = [cards.file_entry(weights, weights.name)]
    (tmp_path / "m" / "card.json").write_text(json.dumps(card))
    with pytest.raises(SwysError, match="does not fit vit_tiny"):
        load_checkpoint(tmp_path / "m")


def test_another_number_of_classes_is_refused(saved):
    with pytest.raises(SwysError, match="has 3 classes, the data has 8"):
        load_checkpoint(saved, num_classes=8)


def test_a_folder_below_a_file_cannot_be_written(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SwysError, match="cannot write checkpoint"):
        save_checkpoint(model, tmp_path / "file" / "m", CARD)


def test_a_card_that_could_not_be_read_is_not_written(model, tmp_path):
    with pytest.raises(SwysError, match="cannot be used"):
        save_checkpoint(model, tmp_path / "m", CARD | {"dataset": "a/b"})
    assert not (tmp_path / "m").exists()


def test_an_unknown_storage_is_refused(model, tmp_path):
    with pytest.raises(SwysError, match="unknown storage 'fp61'; did you mean 'fp16'"):
        save_checkpoint(model, tmp_path / "m", CARD, "fp61")


@pytest.mark.parametrize(
    ("killed_at", "left"), [("card.json", "old"), ("model.safetensors", "new")]
)
def test_a_kill_leaves_the_old_or_the_new_checkpoint(model, saved, monkeypatch, killed_at, left):
    other = vit(3, seed=7, noise=0.02, embed_dim=192)
    real_replace = models.Path.replace

    def replace(self, target):  # the kill comes right before this rename
        if models.Path(target).name == killed_at:
            raise KeyboardInterrupt
        return real_replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(models.Path, "replace", replace)
        save_checkpoint(other, saved, CARD)
    loaded, _ = load_checkpoint(saved)
    expected = {"old": model, "new": other}[left]
    assert_answers_alike(loaded, expected, TOLERANCES["fp16"])


def test_what_a_kill_left_survives_a_later_save_that_fails(saved, monkeypatch):
    weights = saved / "model.safetensors"
    kept, _ = load_checkpoint(saved)
    weights.rename(f"{weights}.new")  # as a kill before the last renaming leaves it

    def full(*args, **options):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(SwysError, match="no space left"):
        patch.setattr(models, "save_file", full)
        save_checkpoint(vit(3, seed=7), saved, CARD)
    loaded, _ = load_checkpoint(saved)
    assert_answers_alike(loaded, kept, 0)


def test_a_checkpoint_of_own_images_is_loaded_again(model, tmp_path):
    own = {"dataset": "my moles (2019) v1.2", "size": 32}
    save_checkpoint(model, tmp_path / "m", CARD | own)
    _, card = load_checkpoint(tmp_path / "m")
    assert own.items() <= card.items()


def test_a_file_that_is_no_card_is_overwritten(model, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "card.json").write_text("[]")
    save_checkpoint(model, tmp_path / "m", CARD)
    load_checkpoint(tmp_path / "m")


def test_a_row_of_zeros_has_a_scale_above_0():
    zeros = torch.zeros(400, 400)
    packed = models._pack({"head.weight": zeros}, "int8")
    assert packed["head.weight.scale"].min() > 0


def test_a_student_with_an_entry_of_its_own_is_compared_in_the_lesson(monkeypatch):
    student = replace(SERIES["vit_tiny"], title="Tiny, taught anew", objective="new")
    monkeypatch.setitem(SERIES, "vit_tiny_new", student)
    assert lesson_models()[0] == "vit_base"
    assert lesson_models()[-1] == "vit_tiny_new"


def test_a_card_of_a_model_larger_than_its_files_is_refused_before_it_takes_memory(tmp_path):
    save_checkpoint(vit(), tmp_path / "small", {"model": "vit_tiny"})
    path = tmp_path / "small" / "card.json"
    card = json.loads(path.read_text())
    card |= {
        "img_size": 1024,
        "patch_size": 1,
        "model_kwargs": {"embed_dim": 2048, "num_heads": 32},
    }
    path.write_text(json.dumps(card))  # 8 GB of position embeddings
    with pytest.raises(SwysError, match="does not fit vit_tiny"):
        load_checkpoint(tmp_path / "small")
