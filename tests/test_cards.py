"""Finding checkpoints, today's and those of earlier versions, and reading their cards."""

import pytest
from small import vit

from swys_utils import cards, models
from swys_utils.cards import find_checkpoint, read_card
from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.models import save_checkpoint

CARD = {
    "model": "vit_tiny",
    "num_classes": 2,
    "img_size": 28,
    "patch_size": 4,
    "files": [{"name": "model.safetensors", "sha256": 64 * "0"}],
}
SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(("old_id", "todays_id"), cards.OLD_IDS.items())
def test_an_old_id_finds_todays_checkpoint(old_id, todays_id):
    assert find_checkpoint(old_id) == CHECKPOINTS / todays_id


def test_a_folder_on_disk_comes_before_an_old_id(tmp_path, monkeypatch):
    old_id = next(iter(cards.OLD_IDS))
    folder = tmp_path / old_id
    folder.mkdir(parents=True)
    (folder / "card.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(old_id).resolve() == folder.resolve()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", ".bin", ".ckpt"])
def test_a_pickle_is_refused(suffix):
    with pytest.raises(SwysError, match="is a pickle"):
        find_checkpoint(f"model{suffix}")


def test_weights_without_a_card_are_refused(tmp_path):
    weights = tmp_path / "other.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(SwysError, match="has no card 'other.json'"):
        find_checkpoint(weights)


def test_an_unknown_id_is_one_line():
    with pytest.raises(SwysError, match="unknown checkpoint 'bloodmnist/vit_huge'"):
        find_checkpoint("bloodmnist/vit_huge")


def test_outside_of_a_clone_no_list_of_ids_is_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "CHECKPOINTS", tmp_path)
    with pytest.raises(SwysError, match="ids need a clone; give a folder or a file$"):
        find_checkpoint("bloodmnist/vit_huge")


def test_a_card_that_will_be_written_is_checked(tmp_path):
    card = CARD | {"dataset": "a/b"}
    with pytest.raises(SwysError, match="'a/b' does not match .* change that value"):
        read_card(tmp_path / "card.json", card)


def test_a_damaged_card_is_refused(tmp_path):
    path = tmp_path / "card.json"
    path.write_text('{"model": ')
    with pytest.raises(SwysError, match="cannot be used .* restore it with git"):
        read_card(path)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("reg_tokens", 65),
        ("reg_tokens", -1),
        ("mlp_ratio", 5),
        ("class_token", 1),
        ("global_pool", "map"),
        ("init_values", "0.1"),
        ("block_fn", "Block"),
    ],
)
def test_a_card_holds_no_other_options_of_timm(tmp_path, option, value):
    card = CARD | {"model_kwargs": {option: value}}
    with pytest.raises(SwysError, match="cannot be used"):
        read_card(tmp_path / "card.json", card)


@pytest.fixture
def abc(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc")
    return path


def test_a_file_has_the_sha256_of_its_bytes(abc):
    assert cards.sha256_of(abc) == SHA256_OF_ABC


def test_an_entry_describes_a_file_under_its_new_name(abc):
    expected = {"name": "b.txt", "bytes": 3, "sha256": SHA256_OF_ABC}
    assert cards.file_entry(abc, "b.txt") == expected


def test_the_card_of_a_folder_lies_in_it(tmp_path):
    assert cards.locate(tmp_path) == (tmp_path, "model", tmp_path / "card.json")


def test_the_card_of_a_file_lies_beside_it(tmp_path):
    path = tmp_path / "tiny.safetensors"
    assert cards.locate(path) == (tmp_path, "tiny", tmp_path / "tiny.json")


def test_no_new_weights_stay_where_the_card_cannot_be_written(tmp_path, monkeypatch):
    def full(*arguments):
        raise SwysError("no space left")

    monkeypatch.setattr(models, "write_json", full)
    with pytest.raises(SwysError, match="no space left"):
        save_checkpoint(vit(), tmp_path, {"model": "vit_tiny"})
    assert list(tmp_path.iterdir()) == []
