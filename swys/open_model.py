"""From what a reader writes (a path, an id, ``timm:resnet18``) to an opened model."""

from __future__ import annotations

import json
from pathlib import Path

import timm
from timm.models.vision_transformer import VisionTransformer

from swys_utils.cards import PICKLES, find_checkpoint, locate
from swys_utils.config import SwysError
from swys_utils.models import load_checkpoint

from .model_libraries import (
    LOCAL_DIR,
    open_local_timm,
    open_timm,
    open_torchvision,
    open_transformers,
)
from .onnx_models import open_onnx
from .opened_models import OpenedModel, from_python, opened_module, opened_vit
from .preprocessing import Preprocessing, given

OTHER_WEIGHTS = (*PICKLES, ".pickle", ".joblib", ".npy", ".h5")


def open_model(
    model: object,
    name: str = "",
    num_classes: int = 0,
    preprocessing: str = "",
    layer: str = "",
) -> OpenedModel:
    """Open a model of any kind.

    Args:
        model: a checkpoint of this project (a folder, a .safetensors file, an id),
            ``timm:NAME``, ``torchvision:NAME`` (both with ``?pretrained`` or
            ``?weights=FILE.safetensors``), ``local-dir:FOLDER`` of timm, a Hugging Face folder, an
            .onnx file; from Python also a torch model, a function from uint8 images to scores, or
            an `OpenedModel`.
        name: what the report calls it; "" takes what was written.
        num_classes: of the data, for a head with random weights; 0 where unknown.
        preprocessing: as for ``preprocessing.given``; "" takes the model's own.
        layer: where Grad-CAM is taken; "" is the usual place.

    Returns:
        The opened model.

    Raises:
        SwysError: it is not there, is a pickle, or cannot be read.
    """
    if isinstance(model, VisionTransformer) and _is_ours(model):
        return _opened_ours(model, preprocessing, name=name or type(model).__name__, layer=layer)
    if not isinstance(model, (str, Path)):
        return from_python(model, name or _name_of(model), preprocessing, layer)
    text = str(model)
    settings = (preprocessing, layer)
    library, colon, rest = text.partition(":")
    architecture, _, options = rest.partition("?")
    if text.startswith(LOCAL_DIR):
        return open_local_timm(Path(text.removeprefix(LOCAL_DIR)).expanduser(), settings)
    if colon and library == "timm":
        return open_timm(architecture, options, num_classes, settings)
    if colon and library == "torchvision":
        return open_torchvision(architecture, options, num_classes, settings)
    return _open_path(Path(text).expanduser(), settings)


def _open_path(path: Path, settings: tuple[str, str]) -> OpenedModel:
    """A model by its path, or a checkpoint by its id."""
    preprocessing, layer = settings
    _refuse_strange(path)
    if path.suffix == ".onnx":
        return open_onnx(path, preprocessing, layer)
    if _is_transformers(path):
        return open_transformers(path, settings)
    if path.is_dir() and not (path / "card.json").is_file() and (path / "config.json").is_file():
        return open_local_timm(path, settings)
    _refuse_without_card(path)
    model, card = load_checkpoint(path)
    # a report that is handed on names no folder of this machine
    shown = Path(*path.parts[-2:]) if path.is_absolute() else path
    facts = {
        "name": str(shown),
        "kind": f"{card['model']}, a checkpoint of this project",
        "num_classes": card["num_classes"],
        "size_bytes": _checkpoint_bytes(path, card),
    }
    model.requires_grad_(False)
    return _opened_ours(model, preprocessing, layer=layer, **facts)


def _opened_ours(model: VisionTransformer, preprocessing: str, **facts) -> OpenedModel:
    """A ViT of this project, which reads images as ours do unless the reader says how."""
    if not preprocessing:
        return opened_vit(model, **facts)
    own = Preprocessing(
        size=model.patch_embed.img_size[0],
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        source="this project's models",
    )
    return opened_module(model, preprocessing=given(preprocessing, own), **facts)


def _refuse_strange(path: Path) -> None:
    """A SwysError for a path that cannot be looked at, or for a pickle."""
    if path.suffix.lower() in OTHER_WEIGHTS:
        raise SwysError(
            f"'{path}' is not opened, because such files can run code; save the weights as"
            " .safetensors, or export the model as .onnx"
        )
    try:
        path.exists()
    except (OSError, ValueError) as error:
        raise SwysError(
            f"'{str(path)[:80]}' is no path ({error}); give a file or a folder"
        ) from None


def _refuse_without_card(path: Path) -> None:
    """A SwysError that says how weights of another program, or a bare name, are given."""
    if path.suffix == ".safetensors" and path.is_file() and not path.with_suffix(".json").is_file():
        raise SwysError(
            f"'{path}' has no card beside it; for weights of your own write"
            f" 'timm:NAME?weights={path}' or 'torchvision:NAME?weights={path}'"
        )
    name = path.name.lower()
    if len(path.parts) == 1 and not path.exists() and timm.is_model(name):
        raise SwysError(f"no checkpoint '{path}'; for timm's model write 'timm:{name}'")


def _is_transformers(path: Path) -> bool:
    """Whether a folder is one of Hugging Face's transformers: its config names architectures."""
    config = path / "config.json"
    if not config.is_file():
        return False
    try:
        content = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "architectures" in content


def _is_ours(model: VisionTransformer) -> bool:
    """Whether a ViT has another geometry than its name at timm: then it reads images as ours do."""
    config = getattr(model, "pretrained_cfg", None) or {}
    return config.get("input_size", (3, 0, 0))[1] != model.patch_embed.img_size[0]


def _checkpoint_bytes(path: Path, card: dict) -> int:
    """Bytes of the weights of a checkpoint of this project."""
    folder, _, _ = locate(find_checkpoint(path))
    files = [folder / entry["name"] for entry in card["files"]]
    return sum(file.stat().st_size for file in files if file.is_file())


def _name_of(model: object) -> str:
    """A name for a model that has none: a function's own, or its class."""
    return getattr(model, "__name__", type(model).__name__)
