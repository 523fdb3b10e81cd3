"""From a trained ViT to one ONNX file that runs without torch, checked against the model, with a card beside it.

The file reads *model input*: float32 (batch, 3, S, S) in [-1, 1]. Bringing uint8 images there is not inside; the card
spells it out, and ``tools/run_onnx.py`` does it in four lines of NumPy.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import platform
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from .config import SwysError
from .data import to_model_input
from .gradcam import evaluation_mode
from .models import file_sha256, write_json

OPSET = 17  # the first with LayerNormalization as one operator; every ONNX Runtime since 1.14 reads it
TOLERANCE = 1e-4  # largest difference of a logit between torch and ONNX Runtime, both float32
PREPROCESSING = (
    "uint8 image -> x / 127.5 - 1 -> grey repeated to 3 channels -> bilinear resize to the model's size, half-pixel"
    " centres, no antialias -> float32 (batch, 3, S, S)"
)


@dataclass(frozen=True)
class OnnxFile:
    """An exported model: where it is, its card, and how far its logits are from the torch model's."""

    path: Path
    card: dict

    @property
    def max_logit_difference(self) -> float:
        return self.card["max_logit_difference"]

    def __str__(self) -> str:
        return (
            f"{self.path.name}: {self.card['bytes'] / 1e6:.1f} MB, {self.card['precision']},"
            f" opset {self.card['opset']}, logits within {self.max_logit_difference:.1g} of torch"
        )


def export_onnx(
    model: VisionTransformer,
    path: str | Path,
    opset: int = OPSET,
    class_names: Sequence[str] | None = None,
    source: dict | None = None,
) -> OnnxFile:
    """Write ``path`` (.onnx) and its card (.json beside it), with a dynamic batch, after checking the result.

    The check runs ONNX Runtime and torch on random input of batch 1 and 3. Both files appear in one step each.

    Args:
        class_names: of the outputs, for the card. source: the checkpoint's card; data set, seed and scores are taken
            over from it.

    Raises:
        SwysError: onnx or onnxruntime missing, an unwritable path, or logits that differ by ``TOLERANCE`` or more,
            a model that is not float32, or an opset the exporter cannot write.
    """
    path = _onnx_path(path)
    _package("onnx")
    _package("onnxruntime")
    if class_names is not None and len(class_names) != model.num_classes:
        raise SwysError(f"{len(class_names)} class names for a model with {model.num_classes} classes; give one each")
    weight = model.patch_embed.proj.weight
    if weight.dtype != torch.float32:
        raise SwysError(
            f"this model is {weight.dtype}; export in float32 (model.float()) and quantise the file instead"
        )
    if not 14 <= opset <= 20:
        raise SwysError(f"opset is {opset}; torch's tracing exporter writes 14 to 20 for these models")
    part = path.with_name(path.name + ".part")
    inputs = _random_inputs(model, 3)
    try:
        with evaluation_mode(model), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing remarks on timm's shape checks, which are constant here
            expected = model(inputs.to(weight)).float().cpu().numpy()
            # The tracing exporter: it needs no package but onnx, and makes the same graph in every torch since 2.4.
            legacy = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
            torch.onnx.export(
                model,
                (inputs[:2].to(weight),),
                str(part),
                input_names=["pixels"],
                output_names=["logits"],
                dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
                opset_version=opset,
                **legacy,
            )
        difference = _difference(part, inputs, expected)
        if not difference < TOLERANCE:
            raise SwysError(
                f"ONNX logits of '{path}' differ from torch by {difference:.2g}, allowed is {TOLERANCE};"
                f" try another opset than {opset}"
            )
        kept = ("model", "dataset", "size", "source", "synthetic", "seed", "last", "val_chosen", "stored")
        card = {
            "format": "onnx",
            **{key: source[key] for key in kept if source and key in source},
            "precision": "float32",
            "classes": list(class_names) if class_names is not None else None,
            "num_classes": model.num_classes,
            "input": {
                "name": "pixels",
                "shape": ["batch", *inputs.shape[1:]],
                "dtype": "float32",
                "range": [-1, 1],
                "preprocessing": f"not included: {PREPROCESSING}",
            },
            "output": {"name": "logits", "shape": ["batch", model.num_classes], "dtype": "float32"},
            "max_logit_difference": difference,
        }
        return _finish(part, path, card)
    except OSError as error:
        raise SwysError(f"cannot write '{path}': {error}; choose a folder you may write to") from None
    finally:
        part.unlink(missing_ok=True)


def quantise_onnx_dynamic(path: str | Path, out: str | Path) -> OnnxFile:
    """Int8 by ONNX Runtime's dynamic quantisation: weights now, activations as they come, no calibration images.

    Only the matrix products of the blocks become int8, each output channel with its own scale. Weights use 7 of
    the 8 bits: without that, CPUs that lack VNNI overflow (saturate) inside the product and logits drift. The patch
    embedding is stored as int8 and computed in float32, because an int8 convolution is slower than a float one; what
    remains is stored as float16 and computed in float32. Activations are scaled by the range of the whole batch, so an
    image's logits depend a little on its companions: score such a file at batch 1 when it will serve at batch 1.

    Args:
        path: a float32 file of ``export_onnx``. out: the int8 file; its card is the old one with new facts.

    Raises:
        SwysError: packages missing, no such file, one that is quantised already, or an unwritable ``out``.
    """
    onnx, quantization = _package("onnx"), _package("onnxruntime.quantization")

    def quantise(source: Path, part: Path) -> None:
        heads = [node.name for node in onnx.load(str(source)).graph.node if node.op_type == "Gemm"]
        quantization.quantize_dynamic(
            str(source),
            str(part),
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=[*heads, *(f"{name}_MatMul" for name in heads)],  # it rewrites a Gemm under this name
        )

    how = "dynamic, per output channel, 7-bit weights, 8-bit activations (blocks' matrices only)"
    return _quantised(path, out, "int8", how, quantise)


def quantise_onnx_int4(path: str | Path, out: str | Path, block_size: int = 32) -> OnnxFile:
    """The smallest file: the blocks' weights in 4 bits, one scale for every ``block_size`` of them, round to nearest.

    Activations are quantised to int8 inside the product, row by row. This trades time for bytes: on a CPU it is slower
    than ``quantise_onnx_dynamic``, and at this size even slower than float32. The rest is stored as there.

    Args:
        path: a float32 file of ``export_onnx``. out: the int4 file. block_size: 16, 32, 64, ...; smaller is closer.

    Raises:
        SwysError: as ``quantise_onnx_dynamic``; it needs onnxruntime 1.22 or later, and onnx_ir.
    """
    onnx, nbits = _package("onnx"), _package("onnxruntime.quantization.matmul_nbits_quantizer")

    def quantise(source: Path, part: Path) -> None:
        quantizer = nbits.MatMulNBitsQuantizer(
            onnx.load(str(source)), bits=4, block_size=block_size, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(part))

    how = f"4-bit weights, blocks of {block_size}, 8-bit activations in the product (blocks' matrices only)"
    return _quantised(path, out, "int4", how, quantise)


def _quantised(path: str | Path, out: str | Path, precision: str, how: str, quantise: Callable) -> OnnxFile:
    """Quantise the float32 file ``path`` into ``out``, shrink what remains, measure the difference, write the card."""
    source, out = _existing(path), _onnx_path(out)
    onnx = _package("onnx")
    card = read_onnx_card(source)
    if card["precision"] != "float32":
        raise SwysError(f"'{source}' is {card['precision']} already; quantise the float32 file")
    part = out.with_name(out.name + ".part")
    try:
        with _quiet():
            quantise(source, part)
        graph = onnx.load(str(part))
        _store_patch_embedding_as_int8(graph, onnx)
        _store_rest_as_fp16(graph, onnx)
        _shorten_names(graph)
        part.write_bytes(graph.SerializeToString())
        inputs = torch.rand(3, *card["input"]["shape"][1:], generator=torch.Generator().manual_seed(0)) * 2 - 1
        expected = onnx_session(source).run(None, {"pixels": inputs.numpy()})[0]
        card["precision"], card["quantisation"] = precision, how
        card["quantised_from"] = {"file": source.name, "sha256": file_sha256(source)}
        card["max_logit_difference"] = _difference(part, inputs, expected)
        return _finish(part, out, card)
    except OSError as error:
        raise SwysError(f"cannot write '{out}': {error}; choose a folder you may write to") from None
    finally:
        part.unlink(missing_ok=True)


def onnx_session(path: str | Path, threads: int | None = None):
    """An ONNX Runtime session on the CPU with a fixed number of threads (default: torch's).

    Raises:
        SwysError: onnxruntime missing, no such file, or one that is damaged or not ONNX.
    """
    ort = _package("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = _existing(path)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public base class
        reason = str(error).splitlines()[0][:160]
        raise SwysError(f"'{path}' is no ONNX model that can be run ({reason}); export it again") from None


def predict_onnx(session, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Logits of uint8 images (N, H, W[, 3]) as float32 (N, C): ``training.predict`` for an ONNX session or path."""
    session = onnx_session(session) if isinstance(session, (str, Path)) else session
    size = session.get_inputs()[0].shape[-1]
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return np.concatenate(
        [session.run(None, {"pixels": to_model_input(batch, size).contiguous().numpy()})[0] for batch in batches]
    )


def read_onnx_card(path: str | Path) -> dict:
    """The card of an exported file, whose sha256 is checked.

    Raises:
        SwysError: no card, a foreign one, or a file that is not the one the card describes.
    """
    path = _existing(path)
    try:
        card = json.loads(path.with_suffix(".json").read_text())
        known = card["format"] == "onnx" and {"input", "precision", "max_logit_difference"} <= set(card)
        digest = card["sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SwysError(f"'{path}' has no readable card '{path.stem}.json' ({error}); export it again") from None
    if not known or digest != file_sha256(path):
        raise SwysError(f"'{path}' is not the file that its card describes; export it again")
    return card


def dequantised_twin(path: str | Path, model: VisionTransformer) -> VisionTransformer:
    """A float32 copy of ``model`` with the int8 or int4 weights of ``path``, for gradients, and so for Grad-CAM.

    It has the rounding of the weights, but not that of the activations.

    Raises:
        SwysError: the file was not quantised from a model of this shape.
    """
    onnx = _package("onnx")
    graph = onnx.load(str(_existing(path))).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants |= {node.output[0]: constants[node.input[0]] for node in graph.node if _is_stored_fp16(node, constants)}
    twin = deepcopy(model).cpu().float().eval()
    layers = [layer for block in twin.blocks for layer in block.modules() if isinstance(layer, torch.nn.Linear)]
    weights = _int8_weights(graph, constants) or _int4_weights(graph, constants)
    if [tuple(layer.weight.shape) for layer in layers] != [weight.shape for weight in weights]:
        raise SwysError(f"'{path}' was not quantised from this model: its matrices have other shapes")
    with torch.no_grad():
        for layer, weight in zip(layers, weights):
            layer.weight.copy_(torch.from_numpy(weight))
        for node in graph.node:
            if node.op_type == "DequantizeLinear":
                weight, scale = constants[node.input[0]], constants[node.input[1]]
                twin.patch_embed.proj.weight.copy_(torch.from_numpy(weight * scale[:, None, None, None]))
    return twin


# --- inside the file -------------------------------------------------------------------------------------------


def _int8_weights(graph, constants: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Float32 (out, in) for each MatMulInteger.

    ONNX Runtime writes: activation scale x weight scale (Mul), MatMulInteger -> Cast -> Mul by that product.
    """
    consumers = {name: node for node in graph.node for name in node.input}
    makers = {name: node for node in graph.node for name in node.output}
    weights = []
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            rescale = consumers[consumers[node.output[0]].output[0]]
            product = next(makers[name] for name in rescale.input if makers[name].op_type == "Mul")
            scale = next(constants[name] for name in product.input if name in constants)
            weights.append((constants[node.input[1]].astype(np.float32) * scale).T)
    return weights


def _int4_weights(graph, constants: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Float32 (out, in) for each MatMulNBits: two values a byte, the low half first, 8 stands for zero."""
    weights = []
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            packed = constants[node.input[1]]  # (out, blocks, block size / 2)
            values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1).astype(np.float32) - 8
            scale = constants[node.input[2]].reshape(*packed.shape[:2], 1).astype(np.float32)
            sides = {attribute.name: attribute.i for attribute in node.attribute}
            weights.append((values * scale).reshape(sides["N"], -1)[:, : sides["K"]])
    return weights


def _is_stored_fp16(node, constants: dict[str, np.ndarray]) -> bool:
    return node.op_type == "Cast" and node.input[0] in constants


def _store_patch_embedding_as_int8(model, onnx: ModuleType) -> None:
    """Replace the convolution's float weights by int8 and a DequantizeLinear, which is folded when a session starts."""
    graph = model.graph
    convolution = next(node for node in graph.node if node.op_type == "Conv")
    stored = next(tensor for tensor in graph.initializer if tensor.name == convolution.input[1])
    weight = onnx.numpy_helper.to_array(stored)
    scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)) / 127, 1e-12).astype(np.float32)
    rounded = np.round(weight / scale[:, None, None, None]).astype(np.int8)
    graph.initializer.remove(stored)
    for name, value in (("patch_int8", rounded), ("patch_scale", scale), ("patch_zero", np.zeros(len(scale), np.int8))):
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    names = ["patch_int8", "patch_scale", "patch_zero"]
    graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", names, [stored.name], axis=0))


def _store_rest_as_fp16(model, onnx: ModuleType) -> None:
    """Biases, norms, scales and position embedding: float16 and a Cast, which is folded when a session starts."""
    graph, casts = model.graph, []
    large = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) >= 64]
    for tensor in large:
        value = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        graph.initializer.remove(tensor)
        graph.initializer.append(onnx.numpy_helper.from_array(value, f"{tensor.name}_fp16"))
        casts.append(onnx.helper.make_node("Cast", [f"{tensor.name}_fp16"], [tensor.name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _shorten_names(model) -> None:
    """Give inner tensors and nodes short names: the exporter's long paths would be 5 % of a small int8 file."""
    graph = model.graph
    outside = {value.name for value in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {}

    def rename(name: str) -> str:
        return name if name in outside else short.setdefault(name, f"t{len(short)}")

    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    for node in graph.node:
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
        node.name = node.doc_string = ""
    del graph.value_info[:]


def _difference(path: Path, inputs: torch.Tensor, expected: np.ndarray) -> float:
    """Largest |logit difference| of the file from ``expected``, at batch 1 and at the whole batch."""
    session = onnx_session(path)
    got = session.run(None, {"pixels": inputs.numpy()})[0]
    alone = session.run(None, {"pixels": inputs[:1].numpy()})[0]
    return float(max(np.abs(got - expected).max(), np.abs(alone - expected[:1]).max()))


def _finish(part: Path, path: Path, card: dict) -> OnnxFile:
    """Complete the card, and put file and card in place."""
    onnx, ort = _package("onnx"), _package("onnxruntime")
    card = {
        **card,
        "opset": onnx.load(str(part), load_external_data=False).opset_import[0].version,
        "bytes": part.stat().st_size,
        "sha256": file_sha256(part),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": ort.__version__,
        },
    }
    part.replace(path)
    write_json(path.with_suffix(".json"), card)
    return OnnxFile(path, card)


def _random_inputs(model: VisionTransformer, batch: int) -> torch.Tensor:
    shape = (batch, model.patch_embed.proj.in_channels, *model.patch_embed.img_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _onnx_path(path: str | Path) -> Path:
    """A path that can be written to: it ends in .onnx, and its folder is there."""
    path = Path(path)
    if path.suffix != ".onnx":
        raise SwysError(f"'{path}' does not end in .onnx; give a file name such as 'vit_tiny_kd.onnx'")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SwysError(f"cannot write '{path}': {error}; choose a folder you may write to") from None
    return path


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise SwysError(f"no ONNX file '{path}'; write it with export_onnx or 'swys export'")
    return path


def _package(name: str) -> ModuleType:
    """An optional package, or one line that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise SwysError(f"ONNX export needs the package '{missing}'; pip install -U onnx onnxruntime onnx_ir") from None


@contextmanager
def _quiet():
    """ONNX Runtime reports each node, and advises a shape pass that changes nothing for these graphs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
