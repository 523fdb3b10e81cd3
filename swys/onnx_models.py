"""ONNX files: ours, which return a heatmap, too, and others that read images and give scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.onnx_export import onnx_session, read_onnx_card

from .opened_models import BATCH, OpenedModel, short_path
from .preprocessing import Preprocessing, from_image_processor, given

NO_MAP = (
    "an ONNX file has no gradient (those of 'swys export' hold the map themselves); occlusion works"
)
SCORE_NAMES = ("logits", "scores", "probabilities", "output")  # of several outputs
INPUT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
DEFAULT_SIDE = 224


class Signature(NamedTuple):
    """What an ONNX file takes.

    Attributes:
        name: of its input.
        dtype: NumPy's.
        channels: 1 or 3.
        channels_last: whether it reads (N, H, W, C).
        side: px; 0 where any side will do.
        batch: number of images that it insists on; 0 where any will do.
        output: name of its scores.
    """

    name: str
    dtype: type
    channels: int
    channels_last: bool
    side: int
    batch: int
    output: str


def open_onnx(path: Path, preprocessing: str = "", layer: str = "") -> OpenedModel:
    """Any ONNX file that reads images and gives class scores.

    Args:
        path: ends in .onnx.
        preprocessing: as for ``preprocessing.given``.
        layer: where Grad-CAM is taken; a file that returns maps has one layer only.

    Returns:
        The model, opened.

    Raises:
        SwysError: no such file, one with other inputs or outputs, or a layer for one with maps.
    """
    if not path.is_file():
        raise SwysError(f"no file '{path}'; give an .onnx file")
    session = onnx_session(path)
    names = {value.name for value in session.get_inputs()}
    if names == {"pixels", "target"}:
        ours = _open_ours(path, session, layer)
        note = "it says itself how it reads images: --preprocess is not used"
        return replace(ours, notes=(note,)) if preprocessing else ours
    signature = _signature(path, session)
    base = Preprocessing() if signature.dtype != np.uint8 else _raw_pixels()
    base = _beside(path) or base
    wanted = given(preprocessing, _fitted(base, signature))
    if signature.dtype == np.uint8:  # it normalises by itself
        channels = signature.channels
        wanted = replace(wanted, mean=(0.0,) * channels, std=(1.0,) * channels)

    def prepare(images: np.ndarray) -> Tensor:
        return wanted(images)

    def answer(pixels: Tensor) -> Tensor:
        return torch.from_numpy(_run(session, signature, pixels.numpy()))

    return OpenedModel(
        name=short_path(path),
        kind="an ONNX file",
        prepare=prepare,
        answer=answer,
        preprocessing=str(wanted),
        img_size=wanted.resized,
        num_classes=_classes(session, signature.output),
        map_layer=NO_MAP,
        size_bytes=onnx_bytes(path),
        batch_size=signature.batch or BATCH,
        fixed_batch=signature.batch,
        notes=_notes(signature, wanted),
    )


def onnx_bytes(path: Path) -> int:
    """Bytes of an ONNX file and of the external data beside it.

    Args:
        path: the file.
    """
    beside = [path.with_name(f"{path.name}{suffix}") for suffix in (".data", "_data")]
    return sum(part.stat().st_size for part in [path, *beside] if part.is_file())


def _open_ours(path: Path, session: Any, layer: str) -> OpenedModel:
    """A file of ``swys export``: it returns logits and the map of any class."""
    if layer:
        raise SwysError(f"'{path}' returns maps of its last block only; leave --layer out")
    card = read_onnx_card(path)
    size = session.get_inputs()[0].shape[-1]

    def prepare(images: np.ndarray) -> Tensor:
        return to_model_input(images, size, "cpu")

    def run(pixels: Tensor, targets: np.ndarray) -> list[Tensor]:
        feed = {"pixels": pixels.numpy(), "target": np.asarray(targets, np.int64)}
        return [torch.from_numpy(part) for part in session.run(None, feed)]

    def answer(pixels: Tensor) -> Tensor:
        return run(pixels, np.full(len(pixels), -1))[0]

    def draw(pixels: Tensor, targets: np.ndarray) -> Tensor:
        return run(pixels, targets)[1]

    return OpenedModel(
        name=short_path(path),
        kind=f"an ONNX file of this project, {card['precision']}",
        prepare=prepare,
        answer=answer,
        preprocessing=f"{size} x {size} px, {card['preprocessing']}",
        img_size=size,
        num_classes=card["outputs"]["logits"][1],
        class_names=tuple(card["classes"] or ()),
        draw=draw,
        map_layer="blocks[-1].norm1, in the file",
        size_bytes=onnx_bytes(path),
        # a dynamically quantised file scales by the range of the batch: as it will serve
        batch_size=BATCH if card["precision"] == "float32" else 1,
    )


def _signature(path: Path, session: Any) -> Signature:
    """The input and the output of a file, once they are known to be images and scores."""
    inputs = session.get_inputs()
    outputs = [value for value in session.get_outputs() if len(value.shape) == 2]
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shown = ", ".join(f"{value.name} {value.shape}" for value in inputs)
        raise SwysError(f"'{path}' takes {shown}; it has to take one batch of images, (N, C, H, W)")
    if not outputs:
        shown = ", ".join(f"{value.name} {value.shape}" for value in session.get_outputs())
        raise SwysError(f"'{path}' gives {shown}; it has to give class scores, (N, C)")
    entry = inputs[0]
    if entry.type not in INPUT_TYPES:
        raise SwysError(f"'{path}' takes {entry.type}; export it with an input of float32")
    batch, *sides = [size if isinstance(size, int) else 0 for size in entry.shape]
    channels_last = sides[2] in (1, 3) and sides[0] not in (1, 3)
    channels = sides[2] if channels_last else sides[0] or 3
    height, width = sides[:2] if channels_last else sides[1:]
    if channels not in (1, 3) or height != width:
        raise SwysError(f"'{path}' takes images {entry.shape}; only squares of 1 or 3 channels can")
    return Signature(
        name=entry.name,
        dtype=INPUT_TYPES[entry.type],
        channels=channels,
        channels_last=channels_last,
        side=height,
        batch=batch,
        output=_scores_among(path, [value.name for value in outputs]),
    )


def _scores_among(path: Path, outputs: list[str]) -> str:
    """The output that has the class scores; a SwysError where the names do not tell."""
    if len(outputs) == 1:
        return outputs[0]
    for wanted in SCORE_NAMES:
        for name in outputs:
            if name.lower() == wanted:
                return name
    shown = ", ".join(outputs)
    raise SwysError(f"'{path}' gives {shown}; name the one with the class scores 'logits'")


def _run(session: Any, signature: Signature, pixels: np.ndarray) -> np.ndarray:
    """Scores of one batch; a file of a fixed batch gets it filled up with the last image."""
    count = len(pixels)
    if signature.batch > count:
        filling = np.repeat(pixels[-1:], signature.batch - count, axis=0)
        pixels = np.concatenate([pixels, filling])
    if signature.channels_last:
        pixels = np.moveaxis(pixels, 1, 3)
    if signature.dtype == np.uint8:
        pixels = (pixels * 255).round().clip(0, 255)
    typed: Any = np.ascontiguousarray(pixels, dtype=signature.dtype)
    feed = {signature.name: typed}
    (scores,) = session.run([signature.output], feed)
    return np.asarray(scores[:count], dtype=np.float32)


def _classes(session: Any, output: str) -> int:
    """Number of classes of a file; 0 where it does not say."""
    for value in session.get_outputs():
        if value.name == output and isinstance(value.shape[1], int):
            return value.shape[1]
    return 0


def _raw_pixels() -> Preprocessing:
    """For a file that normalises by itself."""
    return Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, source="uint8 input: pixels as they are")


def _beside(path: Path) -> Preprocessing | None:
    """What preprocessor_config.json beside the file says; None where there is none."""
    config = path.with_name("preprocessor_config.json")
    if not config.is_file():
        return None
    try:
        return from_image_processor(json.loads(config.read_text("utf-8")))
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise SwysError(f"'{config}' cannot be used ({error})"[:300]) from None


def _fitted(base: Preprocessing, signature: Signature) -> Preprocessing:
    """A preprocessing with the side and the channels that a file insists on."""
    size = signature.side or base.size or DEFAULT_SIDE
    mean = base.mean
    std = base.std
    if signature.channels == 1 and len(mean) == 3:
        mean = (sum(mean) / 3,)
        std = (sum(std) / 3,)
    source = base.source
    if signature.side and source.startswith("assumed"):
        source = f"the file's side; the rest {source}"
    return Preprocessing(size, mean, std, base.interpolation, base.crop, source)


def _notes(signature: Signature, wanted: Preprocessing) -> tuple[str, ...]:
    """What the reader should know of how a file is fed."""
    notes = []
    if signature.batch > 1:
        notes.append(f"fixed batch of {signature.batch}: the last batch is filled up")
    if signature.dtype == np.uint8:
        notes.append("uint8 input: it is given pixels from 0 to 255")
    if "assumed" in wanted.source:
        notes.append("an ONNX file does not say how it wants its images: check the preprocessing")
    return tuple(notes)
