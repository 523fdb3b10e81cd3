"""Masked autoencoders: what is hidden is drawn, and what was learned can be taken over."""

from dataclasses import replace

import pytest
import torch
from small import RECIPE, SMALL, some, vit

from swys_studies import pretraining
from swys_studies.pretraining import MaskedObjective, patch_pixels
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.recipe import Batch
from swys_utils.training import build


@pytest.fixture
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir))


@pytest.fixture
def model():
    """Two of four patches are hidden while it trains."""
    return vit(patch_drop_rate=0.5).train()


def batch_of(inputs):
    return Batch(inputs, torch.zeros(len(inputs), 2), torch.arange(len(inputs)), 0)


def test_a_patch_is_the_pixels_below_it(model):
    inputs = torch.randn(3, 3, 28, 28)
    pixels = patch_pixels(model, inputs)
    second = inputs[:, :, :14, 14:].flatten(1)
    expected = (second - second.mean(dim=1, keepdim=True)) / second.std(
        dim=1, correction=0, keepdim=True
    )
    torch.testing.assert_close(pixels[:, 1], expected, atol=2e-3, rtol=0)


def test_hidden_patches_are_not_seen(model):
    """Where every hidden patch changes its sign, so does the best guess: the loss must change."""
    inputs = torch.randn(4, 3, 28, 28)
    objective = MaskedObjective(model)
    torch.manual_seed(0)
    tokens, kept = pretraining.embedded_tokens(model, inputs)
    grid = torch.ones(4, 4).scatter(1, kept, 0.0)
    hidden = grid.reshape(4, 1, 2, 2).repeat_interleave(14, 2).repeat_interleave(14, 3)
    torch.manual_seed(0)
    changed, _ = pretraining.embedded_tokens(model, inputs * (1 - hidden))
    assert torch.equal(tokens, changed)
    assert objective(model, batch_of(inputs)).ndim == 0


def test_the_loss_falls_while_one_image_is_learned(model):
    inputs = torch.randn(1, 3, 28, 28).expand(16, -1, -1, -1)
    objective = MaskedObjective(model)
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], lr=3e-3)
    losses = []
    for _ in range(60):
        loss = objective(model, batch_of(inputs))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_labels_are_not_read(model, data):
    objective = MaskedObjective(model)
    inputs = torch.randn(4, 3, 28, 28)
    batch = batch_of(inputs)
    losses = []
    for targets in (batch.targets, batch.targets + 1):
        torch.manual_seed(0)
        losses.append(objective(model, batch._replace(targets=targets)).item())
    assert losses[0] == losses[1]


def test_the_head_is_not_taken_over(data, monkeypatch, tmp_path):
    recipe = replace(RECIPE, epochs=1)
    path = tmp_path / "masked.pt"
    weights = pretraining.pretrained("vit_tiny", data, recipe, 0, path, **SMALL)
    missing = build("vit_tiny", data, recipe, **SMALL).load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["head.weight", "head.bias"]
    monkeypatch.setattr(
        pretraining,
        "fit",
        pytest.fail,
    )  # what is there is not trained again
    again = pretraining.pretrained("vit_tiny", data, recipe, 0, path, **SMALL)
    assert torch.equal(again["norm.weight"], weights["norm.weight"])


def test_a_model_starts_from_an_encoder_and_keeps_its_own_head():
    model = vit(noise=0.1)
    head = model.head.weight.clone()
    encoder = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    pretraining.start_from(model, encoder)
    assert torch.equal(model.norm.weight, encoder["norm.weight"])
    assert torch.equal(model.head.weight, head)


@pytest.mark.parametrize(
    "change",
    [
        {"norm.weight": None},
        {"neck.weight": torch.ones(1)},
        {"norm.weight": torch.ones(7)},
    ],
)
def test_an_encoder_of_another_model_is_refused(change):
    encoder = vit().state_dict() | change
    encoder = {name: value for name, value in encoder.items() if value is not None}
    with pytest.raises(SwysError, match="the masked encoder is of another model"):
        pretraining.start_from(vit(), encoder)
