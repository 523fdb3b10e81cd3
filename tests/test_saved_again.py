"""A checkpoint that is saved over an earlier one, or from a loaded one."""

import pytest
import torch
from small import vit

from swys_utils import models
from swys_utils.config import SwysError
from swys_utils.models import load_checkpoint, save_checkpoint

CARD = {"model": "vit_tiny"}


@pytest.fixture
def model():
    return vit(3, noise=0.02, embed_dim=192)


@pytest.fixture
def saved(model, tmp_path):
    """The folder of a checkpoint of ``model``."""
    save_checkpoint(model, tmp_path / "m", CARD)
    return tmp_path / "m"


@torch.no_grad()
def assert_equal_answers(model, other) -> None:
    inputs = torch.linspace(-1, 1, 3 * 28 * 28).reshape(1, 3, 28, 28)
    assert torch.equal(model(inputs), other(inputs))


def test_a_smaller_checkpoint_leaves_no_dead_shards(model, saved, monkeypatch):
    monkeypatch.setattr(models, "SHARD_BYTES", 2**19)
    save_checkpoint(model, saved, CARD)
    assert len(list(saved.glob("*.safetensors"))) > 2
    monkeypatch.undo()
    save_checkpoint(model, saved, CARD)
    assert [path.name for path in saved.glob("*.safetensors")] == ["model.safetensors"]


def test_weights_that_overflow_are_refused_and_leave_the_old_checkpoint(model, saved):
    old, _ = load_checkpoint(saved)
    with torch.no_grad():
        model.head.bias[0] = 1e6
    with pytest.raises(SwysError, match="'head.bias' is not finite in fp16"):
        save_checkpoint(model, saved, CARD)
    loaded, _ = load_checkpoint(saved)
    assert_equal_answers(loaded, old)


def test_a_model_that_its_card_describes_is_saved_again(tmp_path):
    model = vit(3, noise=0.02, reg_tokens=4)
    card = CARD | {"model_kwargs": {"reg_tokens": 4}}
    card = save_checkpoint(model, tmp_path / "m", card, "fp32")
    loaded, _ = load_checkpoint(tmp_path / "m")
    assert_equal_answers(loaded, model)
    save_checkpoint(loaded, tmp_path / "again", card, "fp32")
