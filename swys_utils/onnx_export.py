"""From a trained ViT to an ONNX file that answers and explains without torch, with a card (JSON):

    model --export_onnx--> x.onnx, x.json --quantise_onnx_dynamic--> x_int8.onnx, x_int8.json

A file appears only after ONNX Runtime has run it, and its card says how far its logits are from the
model's. The file reads *model input*: the card says how uint8 images are brought there.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .benchmark import random_inputs
from .cards import ONNX_CARD_SCHEMA, file_entry, read_card, sha256_of
from .config import SwysError, reason_of, replacing, write_json
from .data import to_model_input
from .onnx_gradcam import WithGradCAM, refuse_other_kinds

if TYPE_CHECKING:  # optional packages, which `package` imports
    from onnx import ModelProto
    from onnxruntime import InferenceSession

OPSET = 18
TOLERANCE = 1e-4  # largest difference of a logit between torch and ONNX Runtime, both float32
PREPROCESSING = (
    "uint8 / 127.5 - 1, grey in 3 channels, bilinear resize (half-pixel centres;"
    " antialiased where it shrinks: the triangle is as many times wider)"
)
HEATMAP = "signed Grad-CAM at blocks[-1].norm1, unnormalised; negative: evidence against the class"
# what the card of a checkpoint hands on to the card of the file
FROM_CHECKPOINT = (
    "model",
    "dataset",
    "size",
    "source",
    "synthetic",
    "seed",
    "last",
    "val_chosen",
    "stored",
)


def export_onnx(
    model: VisionTransformer,
    path: str | Path,
    class_names: Sequence[str] = (),
    source: dict | None = None,
) -> dict:
    """Write a model and its Grad-CAM in float32, for batches of any size.

    Args:
        model: it classifies from its CLS token; it is left as it was.
        path: ends in .onnx; the card is written beside it, ending in .json.
        class_names: for the card; none, or one for each class.
        source: the card of the checkpoint, to take facts from.

    Returns:
        The card.

    Raises:
        SwysError: another number of class names than classes, another kind of model, a missing
            package, an unwritable path, or a logit that differs from torch's by ``TOLERANCE``.
    """
    if class_names and len(class_names) != model.num_classes:
        raise SwysError(
            f"{len(class_names)} class names for a model with {model.num_classes}; give one each"
        )
    _refuse_path(Path(path))
    refuse_other_kinds(model)
    model = deepcopy(model).cpu().float().eval()
    pixels = random_inputs(model, 3)
    card = _float32_card(model, class_names, source or {})
    with torch.no_grad():
        expected = model(pixels).numpy()
        graph = _float32_graph(model, pixels)
    return _write_checked(graph, path, card, pixels, expected)


def quantise_onnx_dynamic(path: str | Path, out: str | Path) -> dict:
    """Int8 by ONNX Runtime's dynamic quantisation: weights now, activations when the file is run.

    Only matrix products with weights become int8, each output channel with its own scale. Weights
    use 7 of the 8 bits: without that, CPUs that lack VNNI overflow inside the product. Activations
    are scaled by the range of the batch: score a file at batch 1 when it will serve at batch 1.

    Args:
        path: a file of ``export_onnx``.
        out: the file to write, ending in .onnx.

    Returns:
        The card of the new file.

    Raises:
        SwysError: no such file, one that is quantised already, a missing package, or an unwritable
            path.
    """
    onnx = package("onnx")
    quantization = package("onnxruntime.quantization")
    card = read_onnx_card(path)
    if card["precision"] != "float32":
        raise SwysError(f"'{path}' is {card['precision']} already; quantise the float32 file")
    _refuse_path(Path(out))
    graph = onnx.load(str(path))
    products = [node.name for node in graph.graph.node if node.op_type == "MatMul"]
    with tempfile.TemporaryDirectory() as folder:
        quantised = f"{folder}/int8.onnx"
        quantization.quantize_dynamic(
            graph,
            quantised,
            nodes_to_quantize=products,
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )
        graph = onnx.load(quantised)
    card["precision"] = "int8"
    card["quantisation"] = "dynamic, matrix products: 7-bit weights, a scale per output channel"
    card["quantised_from"] = card["sha256"]
    generator = torch.Generator().manual_seed(0)
    _, *shape = card["input"]["shape"]
    pixels = torch.rand(3, *shape, generator=generator) * 2 - 1
    expected, _ = run_onnx(onnx_session(path), pixels)
    return _write_checked(graph, out, card, pixels, expected)


def onnx_session(path: str | Path) -> InferenceSession:
    """An ONNX Runtime session on the CPU, with torch's number of threads.

    Args:
        path: an ONNX file.

    Raises:
        SwysError: no such file, or one that is damaged or not ONNX.
    """
    onnxruntime = package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no public base class
        reason = reason_of(error)
        raise SwysError(f"'{path}' cannot be run ({reason}); write it with 'swys export'") from None


def run_onnx(
    session: InferenceSession, pixels: Tensor, targets: Sequence[int] | np.ndarray | None = None
) -> list[np.ndarray]:
    """Logits and heatmaps of one batch of model input.

    Args:
        session: of a file that ``export_onnx`` or ``quantise_onnx_dynamic`` wrote.
        pixels: float32 (B, 3, S, S) on the CPU.
        targets: the classes to explain, int (B,); None: the predicted classes.

    Returns:
        Logits (B, C) and signed Grad-CAM maps (B, gh, gw), float32.
    """
    if targets is None:
        targets = np.full(len(pixels), -1)
    feed = {"pixels": pixels.numpy(), "target": np.asarray(targets, dtype=np.int64)}
    return session.run(None, feed)


def predict_onnx(
    session: InferenceSession | str | Path,
    images: np.ndarray,
    batch_size: int = 32,
    targets: Sequence[int] | np.ndarray | None = None,
) -> list[np.ndarray]:
    """Logits and heatmaps of images, batch by batch.

    Args:
        session: from ``onnx_session``, or the path of a file.
        images: uint8 (N, H, W) or (N, H, W, 3).
        batch_size: number of images in a batch.
        targets: the classes to explain, int (N,); None: the predicted classes.

    Returns:
        Logits (N, C) and signed Grad-CAM maps (N, gh, gw), float32.

    Raises:
        SwysError: no image, or targets that do not fit.
    """
    if isinstance(session, (str, Path)):
        session = onnx_session(session)
    if targets is None:
        targets = np.full(len(images), -1)
    targets = np.asarray(targets)
    classes = session.get_outputs()[0].shape[1]
    if not len(images) or targets.shape != (len(images),):
        counts = f"{len(images)} images, targets of shape {targets.shape}"
        raise SwysError(f"{counts}; give at least one image, and a class for each")
    if targets.min() < -1 or targets.max() >= classes:
        wanted = f"give classes from 0 to {classes - 1}, or -1 for the predicted one"
        raise SwysError(f"targets {targets.min()} to {targets.max()}; {wanted}")
    size = session.get_inputs()[0].shape[-1]
    logits = []
    maps = []
    for start in range(0, len(images), batch_size):
        batch = slice(start, start + batch_size)
        pixels = to_model_input(images[batch], size)
        batch_logits, batch_maps = run_onnx(session, pixels, targets[batch])
        logits.append(batch_logits)
        maps.append(batch_maps)
    return [np.concatenate(logits), np.concatenate(maps)]


def read_onnx_card(path: str | Path) -> dict:
    """The card of an exported file.

    Args:
        path: the ONNX file.

    Raises:
        SwysError: no file, no card, a card that ``assets/onnx_card.schema.json`` does not allow, or
            a file that is not the one the card describes (sha256).
    """
    path = Path(path)
    card_path = path.with_suffix(".json")
    card = _card_in(card_path)
    if not path.is_file() or card.get("sha256") != sha256_of(path):
        raise SwysError(f"'{path}' is not the file that its card describes; export it again")
    return read_card(card_path, schema_path=ONNX_CARD_SCHEMA)


def _card_in(card_path: Path) -> dict:
    """The card of this module in a JSON file; empty where there is none, or another content."""
    try:
        content = json.loads(card_path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):  # missing, unreadable, or not JSON
        return {}
    is_ours = isinstance(content, dict) and content.get("format") == "onnx"
    return content if is_ours else {}


def _float32_card(model: VisionTransformer, class_names: Sequence[str], source: dict) -> dict:
    """What the card says of a file before it is written.

    Args:
        model: to be exported.
        class_names: none, or one for each class.
        source: the card of the checkpoint, or an empty one.
    """
    shape = ["batch", 3, *model.patch_embed.img_size]
    handed_on = {key: source[key] for key in FROM_CHECKPOINT if key in source}
    return {
        "format": "onnx",
        **handed_on,
        "precision": "float32",
        "classes": list(class_names) or None,
        "input": {"name": "pixels", "shape": shape, "dtype": "float32"},
        "preprocessing": PREPROCESSING,
        "target": {
            "name": "target",
            "shape": ["batch"],
            "dtype": "int64",
            "of": "the map; -1: predicted",
        },
        "outputs": {
            "logits": ["batch", model.num_classes],
            "heatmap": ["batch", *model.patch_embed.grid_size],
        },
        "heatmap": HEATMAP,
    }


def _float32_graph(model: VisionTransformer, pixels: Tensor) -> ModelProto:
    """The model with its Grad-CAM as an ONNX graph, by torch's exporter.

    Args:
        model: on the CPU, in eval mode.
        pixels: model input, to trace the model with.
    """
    package("onnxscript")  # torch's exporter is written in it
    target = torch.full((len(pixels),), -1)
    batch = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings():
        # torch's exporter uses deprecated parts of torch, and talks of axes
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            WithGradCAM(model).eval(),
            (pixels, target),
            input_names=["pixels", "target"],
            output_names=["logits", "heatmap"],
            dynamic_shapes=(batch, batch),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    # inferred shapes, over which quantising stumbles before onnxruntime 1.24
    proto.graph.ClearField("value_info")
    # stack traces: a tenth of an int8 file, and the exporting machine's paths
    for part in (proto.graph, *proto.graph.node, *proto.graph.input):
        part.ClearField("metadata_props")
    # without this, quantising advises a shape pass, which changes nothing in these graphs
    proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return proto


def _write_checked(
    graph: ModelProto, path: str | Path, card: dict, pixels: Tensor, expected: np.ndarray
) -> dict:
    """Run a graph, compare its logits with the expected ones, put file and card in place.

    Args:
        graph: the content of the file.
        path: ends in .onnx.
        card: what is known of the file; what is measured here is added.
        pixels: model input, float32 (3, 3, S, S).
        expected: logits, (3, C).

    Returns:
        The completed card.

    Raises:
        SwysError: an unwritable path, or a float32 graph with a logit that differs from the
            expected one by ``TOLERANCE``.
    """
    path = Path(path)
    with replacing(path) as part:
        part.write_bytes(graph.SerializeToString())
        difference = _largest_difference(onnx_session(part), pixels, expected)
        if card["precision"] == "float32" and not difference < TOLERANCE:
            raise SwysError(
                f"'{path}': a logit differs from torch's by {difference:.2g}, not {TOLERANCE}"
            )
        card = card | file_entry(part, path.name)
        card["max_logit_difference"] = difference
        card["opset"] = graph.opset_import[0].version
        card["versions"] = {
            "torch": torch.__version__,
            "onnx": package("onnx").__version__,
            "onnxruntime": package("onnxruntime").__version__,
        }
        write_json(path.with_suffix(".json"), card)
    return card


def _refuse_path(path: Path) -> None:
    """Raise a SwysError for another ending, or where the card of another file is in the way."""
    card_path = path.with_suffix(".json")
    if path.suffix != ".onnx":
        raise SwysError(f"'{path}' does not end in .onnx; give a file name such as 'vit_tiny.onnx'")
    if card_path.is_file() and not _card_in(card_path):
        raise SwysError(
            f"'{card_path}' is the card of another file; give another name than '{path.name}'"
        )


def _largest_difference(session: InferenceSession, pixels: Tensor, expected: np.ndarray) -> float:
    """How far a logit is from the expected one, for the first image alone and for all images."""
    differences = []
    for count in (1, len(pixels)):
        logits, _ = run_onnx(session, pixels[:count])
        differences.append(np.abs(logits - expected[:count]).max())
    return float(max(differences))


def package(name: str) -> ModuleType:
    """An optional package.

    Args:
        name: as it is imported.

    Raises:
        SwysError: it is not installed; the message has the way to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SwysError(
            f"ONNX needs '{error.name}'; pip install onnx onnxscript onnxruntime"
        ) from None
