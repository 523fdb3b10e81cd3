"""From a trained ViT to one ONNX file that answers and explains without torch, with a card (JSON) beside it:

    model --export_onnx--> x.onnx, x.json --quantise_onnx_dynamic--> x_int8.onnx, x_int8.json

A file appears only after ONNX Runtime has run it, and its card says how far its logits are from the model's.
It reads *model input*: bringing uint8 images there is not inside, and the card spells it out.
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

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .benchmark import random_inputs
from .cards import file_entry
from .config import SwysError, replacing, write_json
from .data import to_model_input
from .onnx_gradcam import WithGradCAM

OPSET = 18
TOLERANCE = 1e-4  # largest difference of a logit between torch and ONNX Runtime, both float32
PREPROCESSING = "uint8 / 127.5 - 1, grey in 3 channels, bilinear resize (half-pixel centres)"
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
    """Write a model in float32 with a dynamic batch; refused when ONNX Runtime's logits differ from torch's.

    Args:
        path: ends in .onnx. class_names: for the card. source: the checkpoint's card, to take facts from.

    Returns the card. Raises SwysError: a missing package, an unwritable path.
    """
    model = deepcopy(model).cpu().float().eval()
    pixels, grid = random_inputs(model, 3), model.patch_embed.grid_size
    card = {
        "format": "onnx",
        **{key: source[key] for key in FROM_CHECKPOINT if source and key in source},
        "precision": "float32",
        "classes": list(class_names) or None,
        "input": {"name": "pixels", "shape": ["batch", *pixels.shape[1:]], "dtype": "float32"},
        "preprocessing": PREPROCESSING,
        "target": {
            "name": "target",
            "shape": ["batch"],
            "dtype": "int64",
            "of": "the map; -1: predicted",
        },
        "outputs": {"logits": ["batch", model.num_classes], "heatmap": ["batch", *grid]},
        "heatmap": "signed Grad-CAM at blocks[-1].norm1, unnormalised; negative: evidence against the class",
    }
    with torch.no_grad():
        return write_checked(
            float32_graph(model, pixels), path, card, pixels, model(pixels).numpy()
        )


def quantise_onnx_dynamic(path: str | Path, out: str | Path) -> dict:
    """Int8 by ONNX Runtime's dynamic quantisation: weights now, activations as they come, no calibration.

    Only matrix products with weights become int8, each output channel with its own scale. They use 7 of the
    8 bits: without that, CPUs that lack VNNI overflow inside the product. Activations are scaled by the range
    of the batch: score such a file at batch 1 when it will serve at batch 1.

    Returns the card. Raises SwysError: no such file, or one that is quantised already.
    """
    onnx, quantization, card = (
        package("onnx"),
        package("onnxruntime.quantization"),
        read_onnx_card(path),
    )
    if card["precision"] != "float32":
        raise SwysError(f"'{path}' is {card['precision']} already; quantise the float32 file")
    pixels = (
        torch.rand((3, *card["input"]["shape"][1:]), generator=torch.Generator().manual_seed(0)) * 2
        - 1
    )
    card |= {
        "precision": "int8",
        "quantisation": "dynamic, matrix products: 7-bit weights, a scale per output channel",
        "quantised_from": card["sha256"],
    }
    graph = onnx.load(str(path))
    with tempfile.TemporaryDirectory() as folder:
        quantization.quantize_dynamic(
            graph,
            f"{folder}/int8.onnx",
            nodes_to_quantize=[n.name for n in graph.graph.node if n.op_type == "MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )
        graph = onnx.load(f"{folder}/int8.onnx")
    return write_checked(graph, out, card, pixels, run_onnx(onnx_session(path), pixels)[0])


def onnx_session(path: str | Path):
    """An ONNX Runtime session on the CPU with as many threads as torch has.

    Raises SwysError: no such file, or one that is damaged or not ONNX.
    """
    ort = package("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public base class
        reason = str(error).splitlines()[0][:160]
        raise SwysError(f"'{path}' cannot be run ({reason}); write it with 'swys export'") from None


def run_onnx(session, pixels: Tensor, targets=None) -> list[np.ndarray]:
    """Logits float32 (B, C) and signed Grad-CAM maps (B, gh, gw) of model input, float32 (B, 3, S, S)."""
    asked = np.full(len(pixels), -1) if targets is None else np.asarray(targets)
    return session.run(None, {"pixels": pixels.numpy(), "target": asked.astype(np.int64)})


def predict_onnx(
    session, images: np.ndarray, batch_size: int = 32, targets=None
) -> list[np.ndarray]:
    """Logits float32 (N, C) and signed Grad-CAM maps (N, gh, gw) of uint8 images (N, H, W[, 3]).

    ``session``: from ``onnx_session``, or a path. ``targets``: int (N,); None: of the predicted classes.
    """
    session = onnx_session(session) if isinstance(session, (str, Path)) else session
    size = session.get_inputs()[0].shape[-1]
    targets = np.full(len(images), -1) if targets is None else targets
    rows = (slice(start, start + batch_size) for start in range(0, len(images), batch_size))
    parts = [run_onnx(session, to_model_input(images[part], size), targets[part]) for part in rows]
    return [np.concatenate(part) for part in zip(*parts)]


def read_onnx_card(path: str | Path) -> dict:
    """The card of an exported file.

    Raises SwysError: no file, no card, or a file that is not the one the card describes (sha256).
    """
    try:
        card, found = (
            json.loads(Path(path).with_suffix(".json").read_text()),
            file_entry(Path(path), ""),
        )
    except (OSError, ValueError) as error:
        raise SwysError(
            f"'{path}' and its card cannot be read ({error}); export it again"
        ) from None
    if (
        not isinstance(card, dict)
        or card.get("format") != "onnx"
        or card.get("sha256") != found["sha256"]
    ):
        raise SwysError(f"'{path}' is not the file that its card describes; export it again")
    return card


def float32_graph(model: VisionTransformer, pixels: Tensor):
    """The model with its Grad-CAM as an onnx.ModelProto, by torch's exporter."""
    package("onnxscript")
    batch = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch's exporter uses deprecated parts of torch, and talks of axes
        program = torch.onnx.export(
            WithGradCAM(model).eval(),
            (pixels, torch.full((len(pixels),), -1)),
            input_names=["pixels", "target"],
            output_names=["logits", "heatmap"],
            dynamic_shapes=(batch, batch),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    del proto.graph.value_info[
        :
    ]  # inferred shapes, over which quantising stumbles before onnxruntime 1.24
    for part in (proto.graph, *proto.graph.node, *proto.graph.input):
        del part.metadata_props[
            :
        ]  # stack traces: a tenth of an int8 file, and the exporting machine's paths
    # without this, quantising advises a shape pass, which changes nothing in these graphs
    proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return proto


def write_checked(
    model, path: str | Path, card: dict, pixels: Tensor, expected: np.ndarray
) -> dict:
    """Run the graph at batch 1 and 3, compare it with the ``expected`` logits, put file and card in place."""
    path = Path(path)
    if path.suffix != ".onnx":
        raise SwysError(f"'{path}' does not end in .onnx; give a file name such as 'vit_tiny.onnx'")
    card_path = path.with_suffix(".json")
    if card_path.is_file() and '"format": "onnx"' not in card_path.read_text(errors="replace"):
        raise SwysError(
            f"'{card_path}' is the card of another file; give another name than '{path.name}'"
        )
    with replacing(path) as part:
        part.write_bytes(model.SerializeToString())
        session = onnx_session(part)
        card |= file_entry(part, path.name)
        difference = max(
            np.abs(run_onnx(session, pixels[:n])[0] - expected[:n]).max() for n in (1, 3)
        )
        if card["precision"] == "float32" and not difference < TOLERANCE:
            raise SwysError(
                f"'{path}': a logit differs from torch's by {difference:.2g}, not {TOLERANCE}"
            )
        card |= {"max_logit_difference": float(difference), "opset": model.opset_import[0].version}
        card["versions"] = {
            name: package(name).__version__ for name in ("torch", "onnx", "onnxruntime")
        }
        write_json(card_path, card)
    return card


def package(name: str) -> ModuleType:
    """An optional package, or one line that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SwysError(
            f"ONNX needs '{error.name}'; pip install onnx onnxscript onnxruntime"
        ) from None
