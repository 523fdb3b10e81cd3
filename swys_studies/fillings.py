"""Does it matter what a hidden patch is filled with? ``swys study fillings``.

A grey square is itself something in a picture. So the shipped models are asked with each filling of
``occlusion``: do they still agree with Base, and does each agree with itself?
"""

from __future__ import annotations

import numpy as np
from timm.models.vision_transformer import VisionTransformer

from swys_utils.config import CHECKPOINTS, default_device, device_name, write_json
from swys_utils.data import DEFAULT_DATASET
from swys_utils.models import SERIES, lesson_models, load_checkpoint
from swys_utils.occlusion import FILLS, occlusion
from swys_utils.results import as_table
from swys_utils.training import predict

from .compared_maps import compare, weights_beside_base
from .reference import study_data

EVERY = 13  # one of how many test images is asked about, with each filling


def fillings(
    dataset: str = DEFAULT_DATASET, folder: str = "", save_path: str = ""
) -> list[dict[str, str]]:
    """Hide the patches of test images behind each filling, and compare the maps of the models.

    Args:
        dataset: any 2D MedMNIST name with one label an image; Base has to be shipped for it.
        folder: checkpoints; default: checkpoints/<dataset>.
        save_path: the result; default: checkpoints/<dataset>/fillings.json.

    Returns:
        The printed table.

    Raises:
        SwysError: no real data, or no checkpoint of Base.
    """
    data = study_data(dataset)
    weights = weights_beside_base(folder or CHECKPOINTS / data.info.results_name)
    models = {}
    for name in lesson_models():
        if (weights / name).is_dir():
            models[name], _ = load_checkpoint(
                weights / name, default_device(), data.info.num_classes
            )
    images = data.test.images[::EVERY]
    found = compare_fillings(models, images)
    result = {
        "dataset": data.info.name,
        "source": data.info.source,
        "images": len(images),
        "device": device_name(default_device()),
        "models": found,
    }
    write_json(save_path or CHECKPOINTS / data.info.results_name / "fillings.json", result)
    rows = table(found)
    print(as_table(rows))
    return rows


def compare_fillings(models: dict[str, VisionTransformer], images: np.ndarray) -> dict[str, dict]:
    """Occlusion of each model with each filling, of the class that Base predicts.

    Args:
        models: id in ``SERIES`` -> model; Base is the first.
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        Id -> ``like_base``: filling -> ``compared_maps.compare`` with Base's map by the same
        filling; ``like_grey``: filling -> the same with the model's own map by the mean colour.
    """
    answers = predict(next(iter(models.values())), images).argmax(axis=1)
    of_base: dict[str, np.ndarray] = {}
    found = {}
    for name, model in models.items():
        maps = {}
        for fill in FILLS:
            maps[fill] = occlusion(model, images, answers, fill=fill)
            print(f"{SERIES[name].title}, {fill}: done", flush=True)
        of_base = of_base or maps
        found[name] = {
            "like_base": {fill: compare(of_base[fill], maps[fill], answers) for fill in FILLS},
            "like_grey": {fill: compare(maps["mean"], maps[fill], answers) for fill in FILLS},
        }
    return found


def table(models: dict[str, dict]) -> list[dict[str, str]]:
    """A row for each model and filling.

    Args:
        models: of ``compare_fillings``.
    """
    rows = []
    for name, found in models.items():
        for fill in FILLS:
            like_base = found["like_base"][fill]
            row = {
                "model": SERIES[name].title,
                "hidden behind": fill,
                "like Base": f"{like_base['spearman']:.2f} ({like_base['chance_in_class']:.2f})",
                "like its own map with grey": f"{found['like_grey'][fill]['spearman']:.2f}",
            }
            rows.append(row)
    return rows
