"""What fewer bits and coarser patches keep of Base, by both rulers: ``swys study deployed``.

``agreement`` compares ways of teaching. Here each shipped model is made smaller once more: its
ONNX file with int8 weights, the student that reads 16 patches instead of 49, and Base with so few
bits that its weights take no more space than Tiny's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from swys_figures.benchmark import rounded_model, rounded_to
from swys_utils.config import CHECKPOINTS, default_device, device_name, write_json
from swys_utils.data import DEFAULT_DATASET, Dataset
from swys_utils.explain import coarsened
from swys_utils.gradcam import heatmaps
from swys_utils.metrics import certainty, point_scores, probabilities
from swys_utils.models import SERIES, lesson_models, load_checkpoint, weights_digest
from swys_utils.occlusion import occlusion
from swys_utils.onnx_export import (
    export_onnx,
    onnx_session,
    predict_onnx,
    quantise_onnx_dynamic,
    run_onnx,
)
from swys_utils.results import as_table
from swys_utils.training import predict

from .compared_maps import PATCH, compare, part_of, weights_beside_base
from .reference import one_label_data
from .result_files import is_of_same_images, only_writer, read_json, with_another
from .runs import recalls

if TYPE_CHECKING:  # an optional package
    from onnxruntime import InferenceSession

RULERS = {"grad_cam": "Grad-CAM", "occlusion": "hiding"}  # id of a way to explain -> its column
BITS = (4, 2)  # of Base's matrices; with 2, its weights take as much space as Tiny's of 32 bits


@dataclass
class Deployed:
    """A model as it is used.

    Attributes:
        megabytes: of its weights or its file.
        predict: uint8 images -> logits (N, C).
        maps: uint8 images, classes -> signed Grad-CAM (N, gh, gw).
        scorer: model input -> logits, to be asked with hidden patches.
    """

    megabytes: float
    predict: Callable[[np.ndarray], np.ndarray]
    maps: Callable[[np.ndarray, np.ndarray], np.ndarray]
    scorer: Callable[[Tensor], Tensor]


def deployed(
    dataset: str = DEFAULT_DATASET, folder: str = "", save_path: str = ""
) -> list[dict[str, str]]:
    """Compare the shipped models, also with fewer bits, and the 16-token student with Base.

    The maps of the same weights that the file has are kept.

    Args:
        dataset: any 2D MedMNIST name with one label an image; Base has to be shipped for it.
        folder: checkpoints; default: checkpoints/<dataset>.
        save_path: the result; default: checkpoints/<dataset>/deployed.json.

    Returns:
        The printed table.

    Raises:
        SwysError: no real data, several labels an image, no checkpoint of Base, or another process
            measures into the file.
    """
    data = one_label_data(dataset)
    weights = weights_beside_base(folder or CHECKPOINTS / data.info.results_name)
    path = Path(save_path or CHECKPOINTS / data.info.results_name / "deployed.json")
    with only_writer(path):
        measured: dict[str, Any] = {"models": [], "device": ""}
        if path.is_file():
            stored = read_json(path)
            if is_of_same_images(stored, data):
                measured = stored
        result: dict[str, Any] = {
            "dataset": data.info.name,
            "source": data.info.source,
            "images": len(data.test),
            "device": with_another(measured["device"], device_name(default_device())),
        }
        done: list[dict] = []
        for row in compare_deployed(weights, data, measured["models"]):
            done.append(row)
            titles = [model["title"] for model in done]
            later = []  # rows of the same Base that are not reached yet
            for model in measured["models"]:
                if model["title"] not in titles and model.get("base") == done[0]["base"]:
                    later.append(model)
            known = done + later
            write_json(path, result | {"models": known})  # a run that is killed loses nothing
            print(f"{row['title']}: done")
    rows = deployed_table(known)
    print(as_table(rows))
    return rows


def deployed_table(models: Sequence[Mapping]) -> list[dict[str, str]]:
    """A row for each model, for ``results.as_table``.

    Args:
        models: of ``compare_deployed``.
    """
    rows = []
    for model in models:
        row = {
            "model": model["title"],
            "MB": f"{model['megabytes']:.1f}",
            "accuracy": f"{model['accuracy']:.1%}",
            "AUC": f"{model['auc']:.3f}",
            "Base's answer": f"{model['same_answer']:.1%}",
        }
        for method, title in RULERS.items():
            found = model[method]
            row[f"{title} (chance)"] = f"{found['spearman']:.2f} ({found['chance_in_class']:.2f})"
        rows.append(row)
    return rows


def compare_deployed(weights: Path, data: Dataset, measured: Sequence[dict] = ()) -> Iterator[dict]:
    """What each model has in common with Base as it is stored, computed in float32.

    Args:
        weights: folder with ``vit_base`` and others.
        data: all test images are explained, every fourth with hidden patches; none chose anything.
        measured: rows of an earlier run; the maps of the same weights, of the model and of the
            Base that it was compared with, are not compared again.

    Yields:
        A row for each model, Base first, with ``title``, ``weights`` (their digest, before they
        have fewer bits), ``base`` (the same of Base), ``megabytes``, ``accuracy``, ``auc``,
        ``ece``, ``certainty``, ``recall`` (of each class), ``same_answer``, and by the id of a way
        to explain ``compared_maps.compare``. A map of larger patches is compared with Base's
        averaged over them.
    """
    done = {(row["title"], row.get("weights"), row.get("base")): row for row in measured}
    images = data.test.images
    base: Deployed | None = None
    answers = np.zeros(0, int)  # Base's
    base_digest = ""
    base_maps: dict[str, np.ndarray] = {}  # are computed where a model is not known yet
    for title, digest, make in small_and_smaller(weights, data.info.num_classes):
        model = make()
        logits = model.predict(images)
        predictions = logits.argmax(axis=1)
        if base is None:
            base = model
            answers = predictions
            base_digest = digest
        row = {
            "title": title,
            "weights": digest,
            "base": base_digest,
            "megabytes": round(model.megabytes, 1),
            **rounded_scores(logits, data),
            "same_answer": round(float((predictions == answers).mean()), 5),
        }
        known = done.get((title, digest, base_digest), {})
        if "grad_cam" in known:
            yield row | {method: known[method] for method in RULERS}
            continue
        base_maps = base_maps or maps_of(base, images, answers)
        maps = base_maps if model is base else maps_of(model, images, answers)
        yield row | like_base(base_maps, maps, answers)


def maps_of(model: Deployed, images: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
    """Id of a way to explain -> maps, float (n, gh, gw); hiding is asked for a part of the images.

    Args:
        model: is explained.
        images: uint8 (N, H, W) or (N, H, W, 3).
        answers: classes to explain, int (N,).
    """
    few = part_of("occlusion")
    return {
        "grad_cam": model.maps(images, answers),
        "occlusion": occlusion(model.scorer, images[few], answers[few], patch=PATCH),
    }


def rounded_scores(logits: np.ndarray, data: Dataset) -> dict[str, Any]:
    """Scores on the test images, fractions.

    ``accuracy``, ``auc``, ``ece``, the mean ``certainty`` of the answers, and the ``recall`` of
    each class.

    Args:
        logits: float (N, C), of all test images.
        data: with one label an image.
    """
    scores = point_scores(logits, data.test.labels, data.info.task)
    sure, _ = certainty(probabilities(logits, data.info.task), data.test.labels)
    scores["certainty"] = float(sure.mean())
    rounded: dict[str, Any] = {name: round(value, 5) for name, value in scores.items()}
    of_classes = recalls(logits.argmax(axis=1), data.test.labels, data.info.num_classes)
    return rounded | {"recall": of_classes}


def like_base(
    base_maps: dict[str, np.ndarray], maps: dict[str, np.ndarray], answers: np.ndarray
) -> dict[str, dict]:
    """Id of a way to explain -> how like Base's maps are; a finer grid is coarsened.

    Args:
        base_maps: id -> float (n, gh, gw).
        maps: the same of another model.
        answers: classes that were explained, int (N,), with N >= n.
    """
    compared = {}
    for method, own in maps.items():
        theirs = coarsened(base_maps[method], own.shape[1:])
        compared[method] = compare(theirs, own, answers[part_of(method)])
    return compared


def small_and_smaller(
    weights: Path, num_classes: int
) -> Iterator[tuple[str, str, Callable[[], Deployed]]]:
    """The models of the lesson that are there, each in float32 and smaller, then coarser ones.

    Args:
        weights: folder of checkpoints.
        num_classes: of the data.

    Yields:
        The title of a model, the digest of its weights before they have fewer bits, and a function
        that makes it; Base in float32 is the first.
    """
    names = [*lesson_models(), "vit_tiny_answers_p7"]
    for name in names:
        if not (weights / name).is_dir():
            continue
        model, _ = load_checkpoint(weights / name, default_device(), num_classes)
        title = SERIES[name].title
        digest = weights_digest(model)
        yield title, digest, partial(in_torch, model)
        yield f"{title}, int8", digest, partial(in_int8, model)
        if name == "vit_base":
            for bits in BITS:
                yield f"{title}, {bits} bits", digest, partial(in_few_bits, model, bits)


def in_torch(model: VisionTransformer) -> Deployed:
    """A model as torch runs it, in float32."""

    def maps(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return heatmaps(model, images, "grad_cam", targets, signed=True)

    def answer(images: np.ndarray) -> np.ndarray:
        return predict(model, images)

    megabytes = sum(4 * weight.numel() for weight in model.parameters()) / 1e6
    return Deployed(megabytes, answer, maps, model)


def in_few_bits(model: VisionTransformer, bits: int) -> Deployed:
    """A model whose matrices were rounded to a few bits, as torch runs it in float32."""
    small = in_torch(rounded_model(model, rounded_to, bits))
    stored = [bits * w.numel() if w.ndim == 2 else 32 * w.numel() for w in model.parameters()]
    return replace(small, megabytes=sum(stored) / 8e6)


def int8_session(model: VisionTransformer) -> tuple[InferenceSession, float]:
    """A model as an ONNX file of int8 weights: how ONNX Runtime runs it, and its size in MB.

    Args:
        model: it classifies from its CLS token.
    """
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "int8.onnx"
        export_onnx(model, f"{folder}/float32.onnx")
        quantise_onnx_dynamic(f"{folder}/float32.onnx", small)
        return onnx_session(small), small.stat().st_size / 1e6


def in_int8(model: VisionTransformer) -> Deployed:
    """A model as an ONNX file of int8 weights, run one image at a time."""
    session, megabytes = int8_session(model)

    def answer(images: np.ndarray) -> np.ndarray:
        logits, _ = predict_onnx(session, images, batch_size=1)
        return logits

    def maps(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        _, values = predict_onnx(session, images, batch_size=1, targets=targets)
        return values

    def scorer(inputs: Tensor) -> Tensor:
        logits = [run_onnx(session, pixels)[0] for pixels in inputs.split(1)]
        return torch.from_numpy(np.concatenate(logits))

    return Deployed(megabytes, answer, maps, scorer)
