"""Masked-autoencoder pretraining (He et al. 2022): fill in the patches that are hidden.

A ViT sees a random share of the patches of each training image, and a small decoder has to draw the
others. No labels are read. The encoder starts from random weights and sees the training images
only, so a model that goes on from it is still trained from scratch on these images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from swys_utils.config import SwysError, default_device, replacing
from swys_utils.data import Dataset
from swys_utils.recipe import Batch, Recipe, class_and_numbers
from swys_utils.training import build, fit
from swys_utils.views import Augmentation
from swys_utils.vit_internals import embedded_tokens

HIDDEN = 0.75  # share of the patches that an encoder does not see
SCORED = 100  # validation images: their scores mean nothing while no label is learned
DECODER_BLOCKS = 2
DECODER_HEADS = 4


class MaskedObjective(nn.Module):
    """The mean squared error of the hidden patches' pixels, each patch with mean 0, deviation 1.

    Which patches are hidden is decided by the model's PatchDropout.

    Args:
        model: the encoder, a timm ViT with PatchDropout.
        width: of the decoder.
    """

    def __init__(self, model: VisionTransformer, width: int = 96):
        super().__init__()
        patch_values = 3 * model.patch_embed.patch_size[0] ** 2
        places = torch.randn(1, model.patch_embed.num_patches, width) * 0.02
        self.narrow = nn.Linear(model.embed_dim, width)
        self.hidden = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(places)
        blocks = [Block(width, DECODER_HEADS) for _ in range(DECODER_BLOCKS)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.draw = nn.Linear(width, patch_values)

    def settings(self) -> dict:
        """What a resumed run has to share."""
        return class_and_numbers(self)

    def forward(self, model: VisionTransformer, batch: Batch) -> Tensor:
        """The loss of the patches that ``model`` did not see.

        Raises:
            SwysError: the model saw all of them.
        """
        tokens, kept = embedded_tokens(model, batch.inputs)
        if kept is None:
            raise SwysError("nothing is hidden; build the model with patch_drop above 0")
        encoded = model.norm(model.blocks(tokens))[:, model.num_prefix_tokens :]
        seen = self.narrow(encoded)
        index = kept[:, :, None].expand(-1, -1, seen.shape[2])
        grid = self.hidden.expand(len(seen), self.places.shape[1], -1).to(seen.dtype)
        grid = grid.scatter(1, index, seen)
        drawn = self.draw(self.norm(self.blocks(grid + self.places))).float()
        error = (drawn - patch_pixels(model, batch.inputs)).square().mean(dim=2)
        is_hidden = torch.ones_like(error).scatter(1, kept, 0.0)
        return (error * is_hidden).sum() / is_hidden.sum()


def patch_pixels(model: VisionTransformer, inputs: Tensor) -> Tensor:
    """The pixels of each patch with mean 0 and deviation 1, float (B, patches, values).

    Args:
        model: gives the size of a patch.
        inputs: model input, float (B, 3, S, S).
    """
    side = model.patch_embed.patch_size[0]
    patches = F.unfold(inputs, side, stride=side).transpose(1, 2)
    return F.layer_norm(patches, patches.shape[2:], eps=1e-4)


def masked_recipe(model_name: str) -> Recipe:
    """The recipe of the masked autoencoders of the reference set.

    Args:
        model_name: vit_base or vit_tiny; Base is shown the images less often, with smaller steps.
    """
    augmentation = Augmentation(flip=True, crop=0.3)
    recipe = Recipe(epochs=150, batch_size=128, augmentation=augmentation)
    if model_name == "vit_base":
        recipe = replace(recipe, epochs=30, batch_size=64, lr=3e-4)
    return recipe


def pretrained(
    name: str, data: Dataset, recipe: Recipe, seed: int, path: Path, **geometry: int | None
) -> dict[str, Tensor]:
    """Weights of an encoder that was pretrained on the training images, without its head.

    They are trained once and kept; a killed training goes on.

    Args:
        name: a model of the series.
        data: its training images are shown; labels are not read.
        recipe: epochs, rate and views.
        seed: of weights, order and views.
        path: file of the weights; the unfinished run and a lock stand beside it.
        **geometry: for ``create_model``: img_size, patch_size, ...

    Returns:
        Name -> weight, for ``start_from``.
    """
    state_path = path.with_suffix(".state.pt")
    with FileLock(path.with_suffix(".lock")):  # a process that trains them is waited for
        if not path.is_file():
            weights = _pretrain(name, data, recipe, seed, state_path, **geometry)
            with replacing(path) as part:
                torch.save(weights, part)
            state_path.unlink(missing_ok=True)
    return torch.load(path, map_location="cpu", weights_only=True)


def start_from(model: VisionTransformer, encoder: Mapping[str, Tensor]) -> None:
    """Give a model all weights of an encoder but those of the head, which stay as they are.

    Args:
        model: of the encoder's architecture.
        encoder: of ``pretrained``.

    Raises:
        SwysError: the encoder has other weights than the model.
    """
    wanted = _shapes_below_the_head(model.state_dict())
    given = _shapes_below_the_head(encoder)
    if wanted != given:
        other = sorted(name for name, _ in wanted.items() ^ given.items())[0]
        raise SwysError(f"the masked encoder is of another model ({other}); remove its file")
    model.load_state_dict({name: encoder[name] for name in given}, strict=False)


def _shapes_below_the_head(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Name -> shape of all weights but those of the head."""
    return {name: w.shape for name, w in weights.items() if not name.startswith("head")}


def _pretrain(
    name: str, data: Dataset, recipe: Recipe, seed: int, state_path: Path, **geometry: int | None
) -> dict[str, Tensor]:
    """Train the encoder of :func:`pretrained`."""
    recipe = replace(recipe, patch_drop=HIDDEN, full_tokens=0.0, drop_path=0.0)
    model = build(name, data, recipe, seed, **geometry)
    objective = MaskedObjective(model)
    shown = replace(data, val=data.val.sample(SCORED))
    fit(model, shown, recipe, objective, seed=seed, device=default_device(), state_path=state_path)
    return {key: value for key, value in model.state_dict().items() if not key.startswith("head")}
