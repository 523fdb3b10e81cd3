"""Planted evidence in a convolutional network: ``swys study planted_cnn``.

Grad-CAM was made for convolutional networks. Does it find there what it misses in a ViT?
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from filelock import FileLock
from torch import nn

from swys.layer_maps import cut_timm, grad_cam_at_layer, grad_cam_of_features
from swys_utils.config import (
    CHECKPOINTS,
    default_device,
    device_name,
    fast_bf16,
    seed_everything,
    write_json,
)
from swys_utils.data import DEFAULT_DATASET, Dataset, to_model_input
from swys_utils.occlusion import occlusion
from swys_utils.planted import Planted, plant
from swys_utils.recipe import Recipe, SupervisedObjective, batches, learning_rate
from swys_utils.results import as_table

from .planted import (
    MARKS,
    TEST_SEED,
    Setting,
    planted_data,
    read_units,
)
from .planted_measures import EXPLAINED, compared, scores, where_maps_point
from .planted_students import CHEAT, HONEST
from .planted_tables import methods_table, students_table
from .runs import RUNS

MODEL = "resnet18"
MARK = "corner"
PATCH = 7  # px that are hidden; the last map has 4 x 4 positions, as a ViT with such patches
SCORED = 624  # test images
BATCH = 64


def planted_cnn(
    dataset: str = DEFAULT_DATASET, seeds: int = 6, epochs: int = 2, save_path: str = ""
) -> None:
    """Train honest and cheating ResNets, and ask Grad-CAM and hiding for the mark.

    What is done is skipped.

    Args:
        dataset: any 2D MedMNIST name with one label an image, or "twin".
        seeds: number of them; each trains an honest model and a cheat.
        epochs: how long each model is trained.
        save_path: the result; default: checkpoints/<dataset>/planted.json.

    Raises:
        SwysError: several labels an image.
    """
    data = planted_data(dataset)
    path = Path(save_path or CHECKPOINTS / data.info.results_name / "planted.json")
    setting = Setting(data, MODEL, PATCH, MARK, epochs, path.parent)
    RUNS.mkdir(parents=True, exist_ok=True)  # for the lock
    for seed in range(seeds):
        done = {unit["id"] for unit in read_units(path)}
        ids = {kind: f"{setting.id}, {kind}, seed{seed}" for kind in (HONEST, CHEAT)}
        if done.issuperset(ids.values()):
            continue
        print(f"{setting.id}, seed{seed} ...", flush=True)
        facts = {"model": MODEL, "patch": PATCH, "mark": MARK, "seed": seed, "epochs": epochs}
        for kind, measured in pair_of_models(setting, seed).items():
            unit = {"id": ids[kind], "kind": kind} | facts | measured
            with FileLock(RUNS / "planted.lock"):
                others = [other for other in read_units(path) if other["id"] != unit["id"]]
                write_json(path, {"units": [*others, unit]})
    units = [unit for unit in read_units(path) if unit["model"] == MODEL]
    print(as_table(methods_table(units)))
    print(as_table(students_table(units)))


def pair_of_models(setting: Setting, seed: int) -> dict[str, dict]:
    """Train an honest model and a cheat, and measure both.

    Args:
        setting: data, mark and recipe.
        seed: of the weights, the order of the images and their views.

    Returns:
        Kind -> what ``swys study planted`` measures of it, as far as a CNN has it.
    """
    data = setting.data
    mark = MARKS[setting.mark]
    planted = plant(data.test.head(EXPLAINED), mark, TEST_SEED, "everywhere")
    images = {HONEST: data.train, CHEAT: plant(data.train, mark).split}
    measured = {}
    honest_maps: dict[str, np.ndarray] = {}
    for kind, train in images.items():
        model = small_resnet(data.info.num_classes, seed)
        train_cnn(model, replace(data, train=train), setting.recipe, seed)
        maps = cnn_maps(model, planted, mark.target)
        rulers = {"grad_cam": maps["grad_cam, layer4"], "occlusion": maps["occlusion, mean"]}
        honest_maps = honest_maps or rulers
        split = data.test.head(SCORED)
        measured[kind] = {
            "scores": scores(partial(cnn_logits, model), split, mark, data.info.task, TEST_SEED),
            "maps": where_maps_point(rulers, planted),
            "like_honest": compared(rulers, honest_maps),
            "methods": where_maps_point(maps, planted),
            "device": device_name(default_device()),
        }
    return measured


def small_resnet(num_classes: int, seed: int) -> nn.Module:
    """ResNet-18 for small images: its first layer neither strides nor pools.

    So 28 px become 4 positions a side at the end, and not 1.

    Args:
        num_classes: width of the head.
        seed: of the weights.
    """
    seed_everything(seed)
    model = timm.create_model(MODEL, num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model.to(default_device())


def train_cnn(model: nn.Module, data: Dataset, recipe: Recipe, seed: int) -> None:
    """Train a model on the labels, in place.

    Args:
        model: any classifier of images.
        data: its training split is shown.
        recipe: batches, views and the learning rate.
        seed: of the order of the images and their views.
    """
    device = default_device()
    objective = SupervisedObjective()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay)
    steps_per_epoch = len(data.train) // recipe.batch_size
    step = 0
    model.train()
    for epoch in range(recipe.epochs):
        for batch in batches(data, epoch, recipe, seed=seed, device=device):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, steps_per_epoch)
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
                loss = objective(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    model.eval()


@torch.no_grad()
def cnn_logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Answers of a model.

    Args:
        model: in eval mode.
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        Float32 (N, C).
    """
    logits = []
    for start in range(0, len(images), BATCH):
        inputs = to_model_input(images[start : start + BATCH], device=default_device())
        logits.append(model(inputs).float().cpu().numpy())
    return np.concatenate(logits)


def cnn_maps(model: nn.Module, planted: Planted, target: int) -> dict[str, np.ndarray]:
    """Signed maps of marked images: "grad_cam, <layer>" and "occlusion, mean" -> (N, gh, gw).

    Args:
        model: a timm ResNet in eval mode.
        planted: images with the mark.
        target: the class to explain.
    """
    inputs = to_model_input(planted.split.images, device=default_device())
    maps = {
        "grad_cam, layer2": grad_cam_at_layer(model, model, "layer2", inputs, target),
        "grad_cam, layer3": grad_cam_at_layer(model, model, "layer3", inputs, target),
        "grad_cam, layer4": grad_cam_of_features(model, cut_timm(model), inputs, target),
    }
    found = {name: values.cpu().numpy() for name, values in maps.items()}
    found["occlusion, mean"] = occlusion(model, inputs, target, PATCH)
    return found
