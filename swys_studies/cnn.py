"""Does a ViT rest on what a convolutional network rests on? ``swys study cnn``.

Two sizes of one architecture share reasons. How much of that is the architecture, and how much do
the images ask of any model? A ResNet learns here from the same images in the same views as Base,
as often as Base, and is then compared with Base and Tiny as they are with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from filelock import FileLock
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from swys.layer_maps import cut_timm, grad_cam_of_features
from swys_figures.agreement import beyond_chance
from swys_utils.config import (
    CHECKPOINTS,
    default_device,
    device_name,
    replacing,
    write_json,
)
from swys_utils.data import DEFAULT_DATASET, Dataset, to_model_input
from swys_utils.models import SERIES, load_checkpoint, weights_digest
from swys_utils.occlusion import occlusion
from swys_utils.results import as_table
from swys_utils.training import predict

from .compared_maps import PATCH, compare, part_of, signed_maps, weights_beside_base
from .inheritance import in_common
from .kinds import MATCHING_RESNETS, RESNET_TEACHERS, STRONG_TINY, WHOLE_TINY
from .reference import one_label_data
from .resnet import BATCH, resnet_entry, resnet_id, resnet_logits, trained_resnet
from .result_files import (
    images_digest,
    is_of_same_images,
    read_json,
    result_lock,
    with_another,
)
from .runs import RUNS, refuse_no_seeds, run_path

METHODS = ("grad_cam", "occlusion")
COMPARED = ("vit_base", "vit_tiny")  # shipped models that are compared with the ResNets
RUNS_COMPARED = {  # kinds of run that are compared, too, where they are trained -> their name
    RESNET_TEACHERS: "their student",
    MATCHING_RESNETS: "their matching student",
    WHOLE_TINY: "Tiny of whole pictures",
    STRONG_TINY: "Tiny of mixed views",
}


@dataclass
class Explained:
    """A model's answers, and its maps for the classes that Base predicts.

    Attributes:
        answers: int (N,).
        maps: id of a method -> signed maps (n, gh, gw) of the images that it is asked about.
    """

    answers: np.ndarray
    maps: dict[str, np.ndarray]


def cnn(
    dataset: str = DEFAULT_DATASET, seeds: int = 2, folder: str = "", save_path: str = ""
) -> list[dict[str, str]]:
    """Train ResNets beside the ViTs, and compare answers and reasons.

    What is trained or explained is kept in the folder. Students of the ResNets, and Tinys that saw
    whole or mixed pictures, are compared, too, where ``swys study reference`` has trained them
    there.

    Args:
        dataset: any 2D MedMNIST name with one label an image; Base has to be shipped for it. Where
            Tiny is shipped, too, it is compared as well.
        seeds: number of ResNets, at least 1.
        folder: finished runs, the weights of the ResNets, and the maps; default: runs/<dataset>.
        save_path: the result; default: checkpoints/<dataset>/cnn.json.

    Returns:
        The second of the printed tables, see ``summary``.

    Raises:
        SwysError: no real data, several labels an image, no seed, or no checkpoint of Base.
    """
    refuse_no_seeds(seeds)
    data = one_label_data(dataset)
    shipped = weights_beside_base(CHECKPOINTS / data.info.results_name)
    path = Path(save_path or CHECKPOINTS / data.info.results_name / "cnn.json")
    out = Path(folder or RUNS / dataset)
    ids = [resnet_id(seed) for seed in range(seeds)]
    resnets = {run_id: trained_resnet(run_id, data, out) for run_id in ids}
    vits = _compared_vits(data, shipped, out)
    runs = [resnet_entry(run_id, out) for run_id in ids]
    base, pairs = compared_pairs(vits, resnets, data, out / "explained")
    with FileLock(result_lock(path)):  # another process may add its pairs
        other_runs, others = _measured_before(path, data, base, runs, pairs)
        before = read_json(path)["device"] if others else ""
        result = {
            "dataset": data.info.name,
            "source": data.info.source,
            "images": len(data.test),
            "device": with_another(before, device_name(default_device())),
            "base": base,
            "runs": runs + other_runs,
            "pairs": pairs | others,
        }
        write_json(path, result)
    print(as_table(scores_table(result)))
    rows = summary(result)
    print(as_table(rows))
    return rows


def _measured_before(
    path: Path, data: Dataset, base: str, runs: list[dict], pairs: Mapping[str, dict]
) -> tuple[list[dict], dict[str, dict]]:
    """What an earlier result has of ResNets that are not asked now, and of models not here.

    Args:
        path: the result; of one of other images nothing is kept.
        data: of today.
        base: digest of Base's weights; an earlier version did not store it.
        runs: of the ResNets that are asked now.
        pairs: that were measured now.

    Returns:
        Its other runs, and its other pairs of the same Base, without those of a ResNet that answers
        otherwise now.
    """
    if not path.is_file():
        return [], {}
    stored = read_json(path)
    if not is_of_same_images(stored, data):
        return [], {}
    now = {run["id"]: run["predicted"] for run in runs}
    changed = []
    other_runs = []
    for run in stored["runs"]:
        if run["id"] not in now:
            other_runs.append(run)
        elif run["predicted"] != now[run["id"]]:
            changed.append(run["id"])
    if stored.get("base", base) != base:
        return other_runs, {}  # the answers of another Base were explained
    others = {}
    for name, pair in stored["pairs"].items():
        if name not in pairs and not set(changed) & set(name.split(" and ")):
            others[name] = pair
    return other_runs, others


def _compared_vits(data: Dataset, shipped: Path, out: Path) -> dict[str, Path]:
    """Name or id -> weights: Base and Tiny, and the runs of ``RUNS_COMPARED`` that are there."""
    found = {name: shipped / name for name in COMPARED if (shipped / name).is_dir()}
    for kind in RUNS_COMPARED:
        for seed in kind.seeds_on(data.info.name):
            path = run_path(kind.run_id(seed), data.info.name, out)
            if path is not None:
                found[kind.run_id(seed)] = path
    return found


def compared_pairs(
    weights: Mapping[str, Path], resnets: Mapping[str, nn.Module], data: Dataset, folder: Path
) -> tuple[str, dict[str, dict]]:
    """Compare each ResNet with each ViT, and with the first ResNet.

    Args:
        weights: name or id of a ViT -> its weights; ``vit_base`` has to be among them.
        resnets: id of a ResNet -> the model.
        data: its test images are answered, and explained as in ``compared_maps``.
        folder: where answers and maps are kept, because hiding patches takes a ResNet minutes.

    Returns:
        The digest of Base's weights, and "<model> and <ResNet>" -> ``inheritance.in_common`` of the
        first model's errors, and by the id of a method ``compared_maps.compare``.
    """
    images = data.test.images
    vits = {}
    for name, path in weights.items():
        vits[name], _ = load_checkpoint(path, default_device(), data.info.num_classes)
    base = weights_digest(vits["vit_base"])
    targets = predict(vits["vit_base"], images).argmax(axis=1)
    explained = {}
    for title, model in {**vits, **resnets}.items():
        name = f"{base}-{weights_digest(model)}-{images_digest(images)}.npz"
        explained[title] = _kept_or_explained(model, images, targets, folder / name)
    first, *others = resnets
    pairs = {}
    for one, other in [*product(vits, resnets), *product([first], others)]:
        shared = in_common(explained[one].answers, explained[other].answers, data.test.labels)
        row: dict[str, Any] = dict(shared)
        for method in METHODS:
            row[method] = compare(
                explained[one].maps[method],
                explained[other].maps[method],
                targets[part_of(method)],
            )
        pairs[f"{one} and {other}"] = row
    return base, pairs


def _kept_or_explained(
    model: nn.Module, images: np.ndarray, targets: np.ndarray, path: Path
) -> Explained:
    """Answers and maps of a model, from a file if it was explained before."""
    if not path.is_file():
        explain = explained_vit if isinstance(model, VisionTransformer) else explained_resnet
        found = explain(model, images, targets)
        with replacing(path) as part, part.open("wb") as file:
            np.savez(
                file,
                answers=found.answers,
                grad_cam=found.maps["grad_cam"],
                occlusion=found.maps["occlusion"],
            )
    with np.load(path) as kept:
        return Explained(kept["answers"], {method: kept[method] for method in METHODS})


def explained_vit(model: VisionTransformer, images: np.ndarray, targets: np.ndarray) -> Explained:
    """Answers of a ViT, and its maps.

    Args:
        model: in eval mode.
        images: uint8 (N, H, W) or (N, H, W, 3).
        targets: the classes to explain, int (N,).
    """
    answers = predict(model, images).argmax(axis=1)
    maps = {method: signed_maps(model, images, targets, method) for method in METHODS}
    return Explained(answers, maps)


def explained_resnet(model: nn.Module, images: np.ndarray, targets: np.ndarray) -> Explained:
    """Answers of a ResNet, its Grad-CAM after its last layer, and what it loses without a patch.

    Grad-CAM has 4 x 4 positions; it is enlarged to the patches of Base, bilinearly.

    Args:
        model: in eval mode.
        images: uint8 (N, H, W) or (N, H, W, 3).
        targets: the classes to explain, int (N,).
    """
    side = images.shape[1] // PATCH
    maps = []
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        inputs = to_model_input(images[part], device=default_device())
        coarse = grad_cam_of_features(model, cut_timm(model), inputs, targets[part])
        fine = F.interpolate(coarse[:, None], size=(side, side), mode="bilinear")
        maps.append(fine[:, 0].cpu().numpy())
    few = part_of("occlusion")
    inputs = to_model_input(images[few], device=default_device())
    lost = occlusion(model, inputs, targets[few], patch=PATCH)
    answers = resnet_logits(model, images).argmax(axis=1)
    return Explained(answers, {"grad_cam": np.concatenate(maps), "occlusion": lost})


def scores_table(result: Mapping) -> list[dict[str, str]]:
    """One row a ResNet: its scores on the test split, and its AUC on validation.

    Args:
        result: content of a cnn.json.

    Returns:
        Rows for ``results.as_table``.
    """
    rows = []
    for run in result["runs"]:
        row = {
            "model": _title(run["id"]),
            "passes": str(run["recipe"]["epochs"]),
            "accuracy": f"{run['last']['accuracy']:.1%}",
            "AUC": f"{run['last']['auc']:.3f}",
            "ECE": f"{run['last']['ece']:.3f}",
            "validation AUC": f"{run['validation']['auc']:.3f}",
        }
        rows.append(row)
    return rows


def summary(result: Mapping) -> list[dict[str, str]]:
    """One row a pair of models: the same answers, shared errors, and agreement beyond chance.

    Args:
        result: content of a cnn.json.

    Returns:
        Rows for ``results.as_table``.
    """
    rows = []
    for pair, found in result["pairs"].items():
        one, other = [_title(name) for name in pair.split(" and ")]
        reasons, maps = beyond_chance([found["occlusion"], found["grad_cam"]])
        row = {
            "models": f"{one} and {other}",
            "same answers": f"{found['same_answer']:.1%}",
            "shared errors (chance)": f"{found['inherited']:.0%} ({found['by_chance']:.0%})",
            "same reasons": f"{reasons:.0f}%",
            "same map": f"{maps:.0f}%",
        }
        rows.append(row)
    return rows


def _title(name: str) -> str:
    """What a model is called in the tables."""
    if name in SERIES:
        return SERIES[name].title
    seed = int(name.rsplit("seed", 1)[1])
    for kind, title in RUNS_COMPARED.items():
        if name == kind.run_id(seed):
            return f"{title} {seed + 1}"
    return f"ResNet {seed + 1}"
