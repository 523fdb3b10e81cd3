"""What is measured of a model that may have learned to read a planted mark."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from swys_utils.data import single_labels
from swys_utils.explain import agreement, shuffled
from swys_utils.gradcam import METHODS, heatmaps
from swys_utils.metrics import area_under_roc, probabilities
from swys_utils.occlusion import FILLS, grid_of, lost_without, occlusion, one_input
from swys_utils.onnx_export import predict_onnx
from swys_utils.planted import SETS, Mark, Planted, found, plant
from swys_utils.splits import Split
from swys_utils.vit_internals import (
    Targets,
    as_map,
    checked_input,
    evaluation_mode,
    explained_score,
    plain_attention,
)

from .deployed import int8_session

RULERS = ("grad_cam", "occlusion")  # by which models are compared
EXPLAINED = 64  # test images with a mark
SUBSET_IMAGES = 16
IG_STEPS = 16
Predict = Callable[[np.ndarray], np.ndarray]  # images, uint8 -> logits (N, C)


def scores(answer: Predict, split: Split, mark: Mark, task: str, seed: int) -> dict:
    """How well a model tells the marked class from the others on each set of images.

    Args:
        answer: the model.
        split: clean images.
        mark: what is planted in them.
        task: MedMNIST's name of it.
        seed: of the images that get the mark.

    Returns:
        Set -> ``accuracy``, over all classes, and ``auc``, of the mark's class against the rest;
        ``flips``: of the images of other classes, the share whose answer becomes the mark's class
        when the mark is added; ``lost``: of those of the class, the share whose answer stops being
        it when the mark is removed.
    """
    result: dict = {}
    answers = {}
    labels = single_labels(split)
    of_class = labels == mark.target
    for where in SETS:
        images = plant(split, mark, seed, where).split.images
        shares = probabilities(answer(images), task)
        answers[where] = shares.argmax(axis=1)
        result[where] = {
            "accuracy": float((answers[where] == labels).mean()),
            "auc": _auc(of_class, shares[:, mark.target]),
        }
    target = mark.target
    became = (answers["clean"] != target) & (answers["everywhere"] == target)
    stopped = (answers["everywhere"] == target) & (answers["clean"] != target)
    result["flips"] = float(became[~of_class].mean())
    result["lost"] = float(stopped[of_class].mean())
    return _rounded(result)


def _auc(of_class: np.ndarray, share: np.ndarray) -> float:
    """Area under the ROC curve; nan where all images have the mark's class, or none."""
    both = np.stack([1 - share, share], axis=1)
    return float(area_under_roc(of_class.astype(int), both, "binary-class"))


def _rounded(value):
    """The same JSON value with five digits of each number."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return round(value, 5) if isinstance(value, float) else value


def gradient_times_input(
    model: nn.Module, inputs: Tensor, targets: Targets = None, block: int = -1, signed: bool = False
) -> Tensor:
    """Gradient times input (Shrikumar et al. 2016), the mean over the pixels of each patch.

    Args:
        model: any plain timm VisionTransformer.
        inputs: model input, float (B, 3, H, W).
        targets: as for ``gradcam.grad_cam``.
        block: changes nothing.
        signed: keep negative values.

    Returns:
        float32 (B, gh, gw), as ``gradcam.grad_cam`` does.
    """
    x, _ = checked_input(model, inputs, block)
    with evaluation_mode(model):
        values = x * _gradient(model, x, targets)
    return _by_patch(values, model, inputs, signed)


def integrated_gradients(
    model: nn.Module, inputs: Tensor, targets: Targets = None, block: int = -1, signed: bool = False
) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017) from the image's mean colour to the image.

    Args:
        model: any plain timm VisionTransformer.
        inputs: model input, float (B, 3, H, W).
        targets: as for ``gradcam.grad_cam``.
        block: changes nothing.
        signed: keep negative values.

    Returns:
        float32 (B, gh, gw), as ``gradcam.grad_cam`` does.
    """
    x, _ = checked_input(model, inputs, block)
    start = x.mean(dim=(2, 3), keepdim=True)
    total = torch.zeros_like(x)
    with evaluation_mode(model):
        if targets is None:
            with torch.no_grad():
                targets = model(x).argmax(dim=1)
        for step in range(IG_STEPS):
            share = (step + 0.5) / IG_STEPS
            total += _gradient(model, torch.lerp(start, x, share), targets)
    values = (x - start) * total / IG_STEPS
    return _by_patch(values, model, inputs, signed)


def _gradient(model: nn.Module, x: Tensor, targets: Targets) -> Tensor:
    """Gradient of the explained logits by the pixels."""
    with torch.enable_grad(), plain_attention(model):
        pixels = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(explained_score(model(pixels), targets), pixels)
    return gradient


def _by_patch(values: Tensor, model: nn.Module, inputs: Tensor, signed: bool) -> Tensor:
    """Values of pixels, float (B, 3, H, W), as a map of their means."""
    grid = model.patch_embed.dynamic_feat_size(tuple(inputs.shape[-2:]))
    means = F.adaptive_avg_pool2d(values.sum(dim=1, keepdim=True), grid)
    return as_map(means.flatten(1), model, inputs, signed)


PIXEL_METHODS: Mapping[str, Callable[..., Tensor]] = {
    "gradient_times_input": gradient_times_input,
    "integrated_gradients": integrated_gradients,
}


def ruler_maps(model: VisionTransformer, planted: Planted, target: int) -> dict[str, np.ndarray]:
    """Signed maps by which models are compared: id in ``RULERS`` -> float32 (N, gh, gw).

    Args:
        model: is asked about the images.
        planted: the N images.
        target: the class that is explained.
    """
    images = planted.split.images
    return {name: heatmaps(model, images, name, target, signed=True) for name in RULERS}


def where_maps_point(maps: Mapping[str, np.ndarray], planted: Planted) -> dict[str, dict]:
    """Hits and heat on the mark: name of the maps -> ``hits``, ``heat``, ``spread``, ``chance``.

    Args:
        maps: name -> (N, gh, gw).
        planted: the N images.

    Returns:
        Means; ``spread`` is the share of the patches that the positive values are on, as the
        participation ratio (sum of v) ** 2 / (n * sum of v ** 2): 1 for a uniform map.
    """
    rows = {}
    for name, values in maps.items():
        result = found(values, planted.mask)
        rows[name] = {
            "hits": float(result.hits.mean()),
            "heat": _mean(result.heat),
            "spread": _mean(_participation(values)),
            "chance": float(result.chance.mean()),
        }
    return _rounded(rows)


def _participation(maps: np.ndarray) -> np.ndarray:
    values = np.maximum(maps, 0).reshape(len(maps), -1)
    squares = (values**2).sum(axis=1)
    squares[squares == 0] = np.nan
    return values.sum(axis=1) ** 2 / (values.shape[1] * squares)


def _mean(values: np.ndarray) -> float:
    """Mean without nan; nan where nothing else is there."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def compared(maps: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Agreement of two models by both rulers: id -> ``agreement``, and ``chance``.

    Args:
        maps: of ``ruler_maps``.
        others: of another model for the same images.
    """
    rows = {}
    for name in RULERS:
        rows[name] = {
            "agreement": _mean(agreement(others[name], maps[name])),
            "chance": _mean(agreement(others[name], shuffled(maps[name]))),
        }
    return _rounded(rows)


def every_method(model: VisionTransformer, planted: Planted, target: int) -> dict[str, dict]:
    """``where_maps_point`` of every method at every block that it can be asked at.

    Args:
        model: a model.
        planted: images with the mark.
        target: the class to explain.

    Returns:
        "method" or "method, block k" -> row. Further rows: "occlusion, <fill>" for each fill.
    """
    images = planted.split.images
    maps = {}
    for name in METHODS:
        if name == "occlusion":
            continue  # asked with each fill below
        for block in range(len(model.blocks)):
            maps[f"{name}, block {block}"] = heatmaps(model, images, name, target, block=block)
    for name, function in PIXEL_METHODS.items():
        maps[name] = heatmaps(model, images, function, target)
    for fill in FILLS:
        maps[f"occlusion, {fill}"] = occlusion(model, images, target, fill=fill)
    return where_maps_point(maps, planted)


def singles_against_subsets(model: VisionTransformer, shown: Planted, target: int) -> dict:
    """Do single hidden patches say what random subsets of patches say?

    Args:
        model: a model.
        shown: marked images; the first ``SUBSET_IMAGES`` count.
        target: the class.

    Returns:
        ``agreement``: mean rank correlation of both maps; ``same_patch``: share of the images with
        the same hottest patch; ``hits`` and ``hits of subsets``: share with the hottest patch of
        either on the mark; ``images``.
    """
    images = shown.split.images[:SUBSET_IMAGES]
    mask = shown.mask[:SUBSET_IMAGES]
    singles = occlusion(model, images, target)
    subsets = np.stack([by_subsets(model, image[None], target) for image in images])
    hottest = singles.reshape(len(images), -1).argmax(1)
    hottest_of_subsets = subsets.reshape(len(images), -1).argmax(1)
    result = {
        "agreement": _mean(agreement(singles, subsets)),
        "same_patch": float((hottest == hottest_of_subsets).mean()),
        "hits": float(found(singles, mask).hits.mean()),
        "hits of subsets": float(found(subsets, mask).hits.mean()),
        "images": len(images),
    }
    return _rounded(result)


def by_subsets(model: VisionTransformer, image: np.ndarray, target: int) -> np.ndarray:
    """Hide half of the patches at random, often, and fit what each of them is worth.

    Where two patches show the same evidence, hiding one alone changes nothing. The masks are those
    of RISE (Petsiuk et al. 2018) on whole patches; least squares find the share of each patch in
    the log-odds, as LIME (Ribeiro et al. 2016) does.

    Args:
        model: as for ``occlusion``.
        image: as for ``occlusion``, (1, ...).
        target: the class.

    Returns:
        float32 (gh, gw); of a linear model the same as ``occlusion``.
    """
    inputs = one_input(model, image)
    grid = grid_of(model, inputs)
    count = 8 * grid[0] * grid[1]
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(count, *grid, generator=generator) < 0.5
    lost = lost_without(model, inputs, hidden, target).cpu().double()
    constant = torch.ones(count, 1, dtype=torch.double)
    design = torch.cat([hidden.flatten(1).double(), constant], dim=1)
    share_of_each = torch.linalg.lstsq(design, lost[:, None]).solution[:-1]
    return share_of_each.reshape(grid).float().numpy()


def int8_answers(model: VisionTransformer) -> Predict:
    """The model as an ONNX file in int8, run by ONNX Runtime.

    Args:
        model: it classifies from its CLS token.
    """
    session, _ = int8_session(model)

    def answer(images: np.ndarray) -> np.ndarray:
        # at batch 1, because activations are scaled by the range of the batch
        logits, _ = predict_onnx(session, images, batch_size=1)
        return logits

    return answer
