"""Does it matter how patches are hidden? ``swys study fillings``.

A grey square is itself something in a picture, and where evidence is there twice, hiding one patch
takes nothing away. So the shipped models are asked with each filling of ``occlusion``, and with
random halves of the patches hidden: do they still agree with Base, and does each with itself?
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
from .planted_measures import by_subsets
from .reference import one_label_data

EVERY = 13  # one of how many test images is asked about, in each way
HALVES = "halves"  # random halves of the patches are hidden together, behind the mean colour
WAYS = (*FILLS, HALVES)  # with the others, single patches are hidden


def fillings(
    dataset: str = DEFAULT_DATASET, folder: str = "", save_path: str = ""
) -> list[dict[str, str]]:
    """Hide the patches of test images in several ways, and compare the maps of the models.

    It takes about 45 minutes of one core, and a killed run keeps nothing.

    Args:
        dataset: any 2D MedMNIST name with one label an image; Base has to be shipped for it.
        folder: checkpoints; default: checkpoints/<dataset>.
        save_path: the result; default: checkpoints/<dataset>/fillings.json.

    Returns:
        The printed table.

    Raises:
        SwysError: no real data, several labels an image, or no checkpoint of Base.
    """
    data = one_label_data(dataset)
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
    """Occlusion of each model in each way, of the class that Base predicts.

    Args:
        models: id in ``SERIES`` -> model; Base is the first.
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        Id -> ``like_base``: way -> ``compared_maps.compare`` with Base's map in the same way;
        ``like_grey``: way -> the same with the model's own map by the mean colour.
    """
    answers = predict(next(iter(models.values())), images).argmax(axis=1)
    of_base: dict[str, np.ndarray] = {}
    found = {}
    for name, model in models.items():
        maps = {}
        for way in WAYS:
            maps[way] = hidden_in(way, model, images, answers)
            print(f"{SERIES[name].title}, {way}: done", flush=True)
        of_base = of_base or maps
        found[name] = {
            "like_base": {way: compare(of_base[way], maps[way], answers) for way in WAYS},
            "like_grey": {way: compare(maps["mean"], maps[way], answers) for way in WAYS},
        }
    return found


def hidden_in(
    way: str, model: VisionTransformer, images: np.ndarray, answers: np.ndarray
) -> np.ndarray:
    """What the answers rest on, with patches hidden in one of ``WAYS``.

    Args:
        way: one of ``WAYS``.
        model: who is asked.
        images: uint8 (N, H, W) or (N, H, W, 3).
        answers: the class to ask about, int (N,).

    Returns:
        float32 (N, gh, gw).
    """
    if way != HALVES:
        return occlusion(model, images, answers, fill=way)
    maps = []
    for index, answer in enumerate(answers):
        maps.append(by_subsets(model, images[index : index + 1], int(answer)))
    return np.stack(maps)


def table(models: dict[str, dict]) -> list[dict[str, str]]:
    """A row for each model and way.

    Args:
        models: of ``compare_fillings``.
    """
    rows = []
    for name, found in models.items():
        for way in WAYS:
            like_base = found["like_base"][way]
            row = {
                "model": SERIES[name].title,
                "hidden": way,
                "like Base": f"{like_base['spearman']:.2f} ({like_base['chance_in_class']:.2f})",
                "like its own map with grey": f"{found['like_grey'][way]['spearman']:.2f}",
            }
            rows.append(row)
    return rows
