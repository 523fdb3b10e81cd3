"""What the heatmaps of checkpoints are worth on real test images: ``swys study explanations``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from timm.models.vision_transformer import VisionTransformer

from swys_utils.cards import checkpoint_ids
from swys_utils.config import CHECKPOINTS, SwysError, default_device, device_name, write_json
from swys_utils.data import DEFAULT_DATASET, Dataset, Split
from swys_utils.explain import randomisation_check
from swys_utils.faithfulness import centre_prior_maps, deletion_insertion, random_maps
from swys_utils.gradcam import METHODS, grad_cam, heatmaps
from swys_utils.metrics import mean_interval
from swys_utils.models import SERIES, lesson_models, load_checkpoint
from swys_utils.training import predict

from .mosaics import mosaic_pointing
from .reference import real_data, refuse_several_labels
from .result_files import only_writer, read_json
from .runs import todays_title

EMPTY_MAPS = "empty maps"
METHODS_RANKED = "methods"
# how sure the model is of its prediction: at least, and below
BANDS = {
    "below 0.8": (0, 0.8),
    "0.8 to 0.95": (0.8, 0.95),
    "0.95 to 1": (0.95, np.inf),
}


@dataclass(frozen=True)
class Part:
    """One measurement of one model.

    Attributes:
        what: what is measured, ``EMPTY_MAPS`` or ``METHODS_RANKED``.
        model: name of the model.
        images: number of test images; 0 is all.
        compute: ``compute(split)`` returns the rows.
    """

    what: str
    model: str
    images: int
    compute: Callable[[Split], list[dict]]

    def key(self, model: str = "") -> str:
        """Its key in explanations.json.

        Args:
            model: name of the model as the file has it; the name of this part if it is empty.
        """
        return f"{self.what}, {model or self.model}"


def measure(
    dataset: str = DEFAULT_DATASET,
    checkpoints: dict[str, str] | None = None,
    save_path: str = "",
) -> dict:
    """Measure empty maps, faithfulness and dependence on the model, on the test split.

    The file is written after every part; what it has for the same weights is not measured again.

    Args:
        dataset: any 2D MedMNIST name with one label an image.
        checkpoints: name -> id; default: the shipped models of the series with Base's geometry.
        save_path: default: ``checkpoints/<dataset>/explanations.json``.

    Returns:
        What the file has: ``dataset``, ``split``, ``weights`` (name -> sha256 of its files) and
        ``parts`` (``Part.key`` -> ``images``, ``device``, ``torch`` and ``rows``).

    Raises:
        SwysError: no real data, several labels an image, no fitting checkpoint, or two writers.
    """
    data = real_data(dataset)
    refuse_several_labels(data)
    folder = data.info.results_name
    checkpoints = checkpoints or shipped_models(folder)
    if not checkpoints:
        raise SwysError(f"no checkpoint of '{dataset}' is shipped; name some with --checkpoints")
    models, weights = _loaded(checkpoints, data)
    path = Path(save_path or CHECKPOINTS / folder / "explanations.json")
    parts = all_parts(models, data.info.class_names)
    with only_writer(path):
        measured = _measured_before(path, weights, parts)
        others = _of_other_models(path, models)
        study: dict[str, Any] = {
            "dataset": folder,
            "split": "test",
            "weights": others["weights"] | weights,
            "parts": others["parts"] | measured,
        }
        for part in parts:
            sample = data.test.sample(part.images)
            known = measured.get(part.key())
            if known is None or known["images"] != len(sample):
                study["parts"][part.key()] = _measured_now(part, sample)
                write_json(path, study)
                print(f"{part.key()}: {len(sample)} images", flush=True)
    print(f"{len(parts)} parts of {len(models)} models are in {path}")
    return study


def _loaded(checkpoints: Mapping[str, str], data: Dataset) -> tuple[dict, dict]:
    """Name -> model, and name -> sha256 of the files of its weights."""
    models = {}
    weights = {}
    for name, checkpoint_id in checkpoints.items():
        models[name], card = load_checkpoint(checkpoint_id, default_device(), data.info.num_classes)
        if card["dataset"] != data.info.name:
            problem = f"learned {card['dataset']}, not {data.info.name}"
            raise SwysError(f"'{checkpoint_id}' {problem}; name another")
        weights[name] = [entry["sha256"] for entry in card["files"]]
    return models, weights


def shipped_models(folder: str) -> dict[str, str]:
    """The shipped models of the series with Base's geometry, whose maps are as fine as Base's.

    Args:
        folder: folder of the data set below ``checkpoints/``.

    Returns:
        Title -> checkpoint id.
    """
    shipped = {}
    for name in lesson_models():
        checkpoint_id = f"{folder}/{name}"
        if checkpoint_id in checkpoint_ids():
            shipped[SERIES[name].title] = checkpoint_id
    return shipped


def all_parts(models: Mapping[str, VisionTransformer], class_names: Sequence[str]) -> list[Part]:
    """Every measurement of some models.

    Args:
        models: name -> model.
        class_names: names of the classes.
    """
    parts = []
    for name, model in models.items():
        parts.append(Part(EMPTY_MAPS, name, 0, partial(empty, model, class_names)))
    for name, model in models.items():
        parts.append(Part(METHODS_RANKED, name, 128, partial(rank_methods, model)))
    return parts


def _measured_before(path: Path, weights: Mapping, parts: Sequence[Part]) -> dict[str, dict]:
    """What an earlier result has of the same weights: key of a part -> what the file says."""
    if not path.is_file():
        return {}
    study = read_json(path)
    kept = {}
    for part in parts:
        for stored_name, stored_weights in study.get("weights", {}).items():
            same_name = part.model in (stored_name, todays_title(stored_name))
            same_weights = weights[part.model] == stored_weights
            stored = study["parts"].get(part.key(stored_name))
            if same_name and same_weights and stored and _has_all_methods(part, stored):
                kept[part.key()] = stored
    return kept


def _of_other_models(path: Path, models: Collection[str]) -> dict[str, dict]:
    """What an earlier result has of models that are not measured now: it stays."""
    if not path.is_file():
        return {"weights": {}, "parts": {}}
    study = read_json(path)
    weights = {}
    for name, stored in study.get("weights", {}).items():
        if todays_title(name) not in models:
            weights[name] = stored
    parts = {}
    for key, stored in study["parts"].items():
        _, name = key.split(", ", 1)
        if name in weights:
            parts[key] = stored
    return {"weights": weights, "parts": parts}


def _has_all_methods(part: Part, stored: dict) -> bool:
    """Whether a part was measured when all of today's methods of explaining were there."""
    if part.what != METHODS_RANKED:
        return True
    return set(ranked_methods()) <= {row["method"] for row in stored["rows"]}


def _measured_now(part: Part, sample: Split) -> dict:
    """Measure a part on a sample of the test split."""
    return {
        "images": len(sample),
        "device": device_name(default_device()),
        "torch": torch.__version__,
        "rows": part.compute(sample),
    }


def empty(model: VisionTransformer, class_names: Sequence[str], sample: Split) -> list[dict]:
    """How often does ReLU leave nothing of a map for the predicted class?

    Args:
        model: a model.
        class_names: names of the classes.
        sample: images to explain.

    Returns:
        A row for all images, then one for each class and band of confidence: ``predicted``,
        ``confidence``, number of ``images``, how many of their maps are ``empty``, and their
        ``share``, which is nan of no image.
    """
    logits = torch.as_tensor(predict(model, sample.images))
    probabilities = logits.softmax(1).numpy()
    predictions = probabilities.argmax(1)
    confidence = probabilities.max(1)
    maps = heatmaps(model, sample.images, targets=predictions)
    is_empty = maps.max(axis=(1, 2)) <= 0
    rows = [_empty_row("all", "all", is_empty)]
    for label, name in enumerate(class_names):
        for band, (low, high) in BANDS.items():
            within = (confidence >= low) & (confidence < high)
            members = within & (predictions == label)
            rows.append(_empty_row(name, band, is_empty[members]))
    return rows


def _empty_row(predicted: str, confidence: str, is_empty: np.ndarray) -> dict:
    """A row of ``empty``; ``is_empty``: bool, one for each image of the group."""
    images = len(is_empty)
    count = int(is_empty.sum())
    return {
        "predicted": predicted,
        "confidence": confidence,
        "images": images,
        "empty": count,
        "share": count / images if images else np.nan,
    }


def rank_methods(model: VisionTransformer, sample: Split, steps: int = 7) -> list[dict]:
    """Which method of explaining deserves the headline?

    Args:
        model: a model.
        sample: images with labels.
        steps: steps of deletion and insertion.

    Returns:
        A row for each method, the best mean rank of three measures first, and for two baselines,
        which have no rank and come last. ``gap``: insertion - deletion; ``mosaic``: share of the
        map in the target's cell; ``randomised``: mean absolute Spearman correlation with the map of
        the fully randomised model (lower is better); ``empty``: share of empty maps. ``gap`` and
        ``mosaic`` have 95 % intervals.
    """
    methods = _methods_of(model)
    predictions = predict(model, sample.images).argmax(1)
    maps = {}
    for name, method in methods.items():
        maps[name] = heatmaps(model, sample.images, method, predictions)
    grid = model.patch_embed.grid_size
    maps["random"] = random_maps(len(sample), grid)
    maps["centre prior"] = centre_prior_maps(len(sample), grid)
    rows = []
    for name, own in maps.items():
        gap = deletion_insertion(model, sample.images, own, predictions, steps).gap
        mosaic = np.array([np.nan])  # a baseline has no map of a mosaic, and no model
        randomised = np.array([np.nan])
        if name in methods:
            mosaic = mosaic_pointing(
                model, sample.images, sample.labels, methods[name], len(sample)
            )
            stages = randomisation_check(model, sample.images, methods[name], only_last=True)
            randomised = np.abs(stages["embedding"])
        row = {
            "method": name,
            **_with_interval("gap", gap),
            **_with_interval("mosaic", mosaic),
            "randomised": mean_interval(randomised)[0],
            "empty": float((own.max((1, 2)) <= 0).mean()),
        }
        rows.append(row)
    return _ranked(rows, methods)


def ranked_methods() -> list[str]:
    """Ids of the methods that are ranked.

    Not occlusion: deletion and insertion hide patches, too, and would measure it by itself. Planted
    evidence measures it, see ``planted``.
    """
    return [name for name in METHODS if name != "occlusion"]


def _methods_of(model: VisionTransformer) -> dict[str, str | Callable]:
    """All methods of explaining, and Grad-CAM at two earlier blocks: name -> for ``heatmaps``."""
    methods: dict[str, str | Callable] = {name: name for name in ranked_methods()}
    depth = len(model.blocks)
    for block in (depth // 2, 3 * depth // 4):
        methods[f"grad_cam, block {block}"] = partial(grad_cam, block=block)
    return methods


def _with_interval(name: str, values: np.ndarray) -> dict[str, float]:
    """The mean of some values with its 95 % interval."""
    mean, low, high = mean_interval(values)
    return {name: mean, f"{name} low": low, f"{name} high": high}


def _ranked(rows: Sequence[dict], methods: Mapping) -> list[dict]:
    """The rows with their mean rank, the best first; other rows than those of methods get nan."""
    measures = np.full((len(rows), 3), np.nan)
    for index, row in enumerate(rows):
        if row["method"] in methods:
            measures[index] = (-row["gap"], -row["mosaic"], row["randomised"])
    ranks = rankdata(measures, axis=0, nan_policy="omit").mean(axis=1)
    ranked = []
    for index in np.argsort(ranks):  # nan comes last
        ranked.append(rows[index] | {"rank": float(ranks[index])})
    return ranked
