"""Planted evidence in a convolutional network: ``swys study planted_cnn``.

Grad-CAM was made for convolutional networks. Does it find there what it misses in a ViT?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
from torch import nn

from swys.layer_maps import cut_timm, grad_cam_at_layer, grad_cam_of_features
from swys_utils.config import default_device, device_name
from swys_utils.data import DEFAULT_DATASET, to_model_input
from swys_utils.occlusion import occlusion
from swys_utils.planted import Planted, plant
from swys_utils.shipped_results import PLANTED_EPOCHS

from .planted import (
    MARKS,
    TEST_SEED,
    Setting,
    add_unit,
    planted_data,
    planted_entries,
    scores_on_test,
    teachers_folder,
)
from .planted_measures import EXPLAINED, compared, where_maps_point
from .planted_students import CHEAT, HONEST
from .planted_tables import print_tables
from .resnet import MODEL, resnet_logits, small_resnet, train_resnet
from .result_files import held
from .runs import refuse_no_seeds

MARK = "corner"
PARTS = ("methods",)  # that a complete result has
PATCH = 7  # px that are hidden; the last map has 4 x 4 positions, as a ViT with such patches


def planted_cnn(
    dataset: str = DEFAULT_DATASET,
    seeds: int = 6,
    epochs: int = PLANTED_EPOCHS,
    save_path: str = "",
) -> None:
    """Train honest and cheating ResNets, and ask Grad-CAM and hiding for the mark.

    What is done is skipped, and so is a pair that another process trains.

    Args:
        dataset: any 2D MedMNIST name with one label an image, or "twin".
        seeds: number of them; each trains an honest model and a cheat.
        epochs: how long each model is trained.
        save_path: the result; default: checkpoints/<dataset>/planted.json.

    Raises:
        SwysError: no seed, or several labels an image.
    """
    refuse_no_seeds(seeds)
    data = planted_data(dataset)
    setting = Setting(data, MODEL, PATCH, MARK, epochs, teachers_folder(data))
    units = planted_entries(data, save_path)
    for seed in range(seeds):
        pair = cache(partial(pair_of_models, setting, seed))  # trained together, and once
        turn = setting.path(f"{setting.id}, pair, {units.lock.stem}, seed{seed}", ".lock")
        with held(turn) as mine:
            if not mine:
                print(f"{setting.id}, seed{seed} is trained by another process")
                continue
            for kind in (HONEST, CHEAT):
                add_unit(units, setting, kind, seed, partial(_one_of, pair, kind), PARTS)
    print_tables([unit for unit in units.read() if unit["model"] == MODEL])


def _one_of(pair: Callable[[], dict[str, dict]], kind: str) -> dict:
    """What is measured of one model of ``pair_of_models``."""
    return pair()[kind]


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
    planted = plant(data.test.sample(EXPLAINED), mark, TEST_SEED, "everywhere")
    images = {HONEST: data.train, CHEAT: plant(data.train, mark).split}
    measured = {}
    honest_maps: dict[str, np.ndarray] = {}
    for kind, train in images.items():
        model = small_resnet(data.info.num_classes, seed)
        train_resnet(model, replace(data, train=train), setting.recipe, seed)
        maps = cnn_maps(model, planted, mark.target)
        rulers = {"grad_cam": maps["grad_cam, layer4"], "occlusion": maps["occlusion, mean"]}
        if kind == HONEST:
            honest_maps = rulers
        measured[kind] = {
            "scores": scores_on_test(setting, partial(resnet_logits, model)),
            "maps": where_maps_point(rulers, planted),
            "like_honest": compared(rulers, honest_maps),
            "methods": where_maps_point(maps, planted),
            "device": device_name(default_device()),
        }
    return measured


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
