"""timm Vision Transformers, and checkpoints of them: safetensors files, with a card beside them."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .cards import file_entry, find_checkpoint, locate, read_card, sha256_of
from .config import SwysError, reason_of, unknown, write_json

STORAGES = ("fp32", "fp16", "int8")
SHARD_BYTES = 49_000_000  # one file in the repository stays under 50 MB
INT8_MIN_ELEMENTS = 100_000  # smaller matrices stay fp16: they cost nothing
SMALLEST_FP16 = 2**-24  # above 0


@dataclass(frozen=True)
class SeriesModel:
    """A model of the series.

    Attributes:
        title: its name in text, figures and tables.
        timm_name: the architecture, as timm calls it.
        img_size: side of the images it reads, px.
        patch_size: side of a patch, px.
        objective: how it is taught, an id in ``distillation.OBJECTIVES``.
        colour: of the model in every figure, from Okabe and Ito's palette.
    """

    title: str
    timm_name: str
    img_size: int
    patch_size: int
    objective: str
    colour: str


BASE = "vit_base_patch16_224"
TINY = "vit_tiny_patch16_224"
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PINK = "#CC79A7"
# 28 px are the pixels that MedMNIST has; patches of 4 px make 49 tokens of them, patches of 7 px 16
SERIES = {
    "vit_base": SeriesModel("Base", BASE, 28, 4, "labels", BLUE),
    "vit_tiny": SeriesModel("Tiny", TINY, 28, 4, "labels", ORANGE),
    "vit_tiny_answers": SeriesModel("Tiny, answers", TINY, 28, 4, "answers", GREEN),
    "vit_tiny_maps": SeriesModel("Tiny, answers + maps", TINY, 28, 4, "maps", PINK),
    "vit_base_p7": SeriesModel("Base, 16 patches", BASE, 28, 7, "labels", BLUE),
    "vit_tiny_p7": SeriesModel("Tiny, 16 patches", TINY, 28, 7, "labels", ORANGE),
    "vit_tiny_answers_p7": SeriesModel("Tiny, answers, 16 patches", TINY, 28, 7, "answers", GREEN),
    BASE: SeriesModel("Base, 224 px", BASE, 224, 16, "labels", BLUE),
    TINY: SeriesModel("Tiny, 224 px", TINY, 224, 16, "labels", ORANGE),
    f"{TINY}_kd": SeriesModel("Tiny, answers, 224 px", TINY, 224, 16, "answers", GREEN),
}


def lesson_models() -> list[str]:
    """Base, and the models of ``SERIES`` with its geometry: those that the lesson compares."""
    base = SERIES["vit_base"]
    geometry = (base.img_size, base.patch_size)
    return [
        name for name, entry in SERIES.items() if (entry.img_size, entry.patch_size) == geometry
    ]


def timm_name(name: str) -> str:
    """The architecture behind a name of the series; any other name is timm's own."""
    if name in SERIES:
        return SERIES[name].timm_name
    return name


def create_model(
    name: str,
    num_classes: int,
    img_size: int | None = None,
    patch_size: int | None = None,
    **kwargs: Any,
) -> VisionTransformer:
    """Make a timm ViT (Dosovitskiy et al. 2021) with random weights.

    Args:
        name: a key of ``SERIES``, or any timm ViT at its own geometry.
        num_classes: number of outputs.
        img_size: side of the images, px; None is what the name says.
        patch_size: side of a patch, px; None is what the name says.
        **kwargs: for timm, such as ``drop_path_rate``; None is timm's own value.

    Returns:
        The model, in training mode, on the CPU.

    Raises:
        SwysError: an unknown name (with the nearest), no ViT, or a geometry that does not fit.
    """
    architecture = timm_name(name)
    if not timm.is_model(architecture):
        names = [*SERIES, *timm.list_models("*vit*"), *timm.list_models("*deit*")]
        raise SwysError(unknown("model", name, names, "see timm.list_models('*vit*'), for example"))
    given = {"img_size": img_size, "patch_size": patch_size, **kwargs}
    options = {option: value for option, value in given.items() if value is not None}
    if name in SERIES:
        options.setdefault("img_size", SERIES[name].img_size)
        options.setdefault("patch_size", SERIES[name].patch_size)
    try:
        model = timm.create_model(architecture, num_classes=num_classes, **options)
    except (TypeError, ValueError, ArithmeticError, AssertionError, RuntimeError, OSError) as error:
        reason = reason_of(error)
        raise SwysError(
            f"model '{name}' cannot be made with {options} ({reason}); change them"
        ) from None
    if not isinstance(model, VisionTransformer):
        kind = type(model).__name__
        raise SwysError(
            f"model '{name}' is a {kind}, not a Vision Transformer; use vit_tiny or vit_base"
        )
    embed = model.patch_embed
    if embed.img_size[0] % embed.patch_size[0] != 0 or embed.num_patches == 0:
        raise SwysError(
            f"model '{name}': patches do not divide the image ({options}); choose a divisor"
        )
    return model


def count_parameters(model: nn.Module) -> int:
    """Number of weights and biases of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def weights_digest(model: nn.Module) -> str:
    """12 hexadecimal digits that two models share exactly when all their weights are equal."""
    tensors = {key: tensor.cpu() for key, tensor in model.state_dict().items()}
    return hashlib.sha256(save(tensors)).hexdigest()[:12]


def save_checkpoint(
    model: VisionTransformer, path: str | Path, card: dict[str, Any], storage: str = "fp16"
) -> dict[str, Any]:
    """Write weights and card; a kill at any moment leaves the old checkpoint or the new one.

    Args:
        model: any model that ``create_model`` makes, as long as a card can describe it.
        path: a folder (model.safetensors and card.json go into it), or x.safetensors (its card is
            x.json).
        card: what is known of the run, at least ``model``, a name that ``create_model`` takes; what
            the model and the files say is added here.
        storage: ``fp32``, ``fp16``, or ``int8`` (large matrices as int8, with one fp16 scale a
            row).

    Returns:
        The completed card.

    Raises:
        SwysError: an unknown storage, a model that could not be loaded again, an unwritable path.
    """
    if storage not in STORAGES:
        raise SwysError(unknown("storage", storage, STORAGES))
    folder, stem, card_path = locate(path)
    packed = _pack(model.state_dict(), storage)
    for key, tensor in packed.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise SwysError(f"'{key}' is not finite in {storage}; train again, or store fp32")
    shards = _shards(packed, stem)
    card = card | {
        "num_classes": model.num_classes,
        "stored": {"dtype": storage},
        "img_size": model.patch_embed.img_size[0],
        "patch_size": model.patch_embed.patch_size[0],
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
    }
    card = _described(model, card)
    unwritten = [{"name": name, "sha256": 64 * "0"} for name in shards]
    read_card(card_path, card | {"files": unwritten})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_files(shards, folder, card_path, card)
    except (OSError, SafetensorError) as error:
        raise SwysError(
            f"cannot write checkpoint '{path}' ({error}); choose another folder"
        ) from None
    return card


def _write_files(
    shards: dict[str, dict[str, Tensor]], folder: Path, card_path: Path, card: dict[str, Any]
) -> None:
    """Write weights and their card; what was there stays until all of it is written.

    New weights are named *.new until the card, renamed in one step, makes them current. After a
    kill right then, the current weights may still be named so: they get their name first.
    """
    current = _current_files(card_path)
    for entry in current:
        renamed_late = folder / f"{entry['name']}.new"
        if renamed_late.is_file() and sha256_of(renamed_late) == entry["sha256"]:
            renamed_late.replace(folder / entry["name"])
    parts = {name: folder / f"{name}.new" for name in shards}
    try:
        for name, part in parts.items():
            save_file(shards[name], part, metadata={"format": "pt"})
        card["files"] = [file_entry(part, name) for name, part in parts.items()]
        write_json(card_path, card)
    except (OSError, SafetensorError, SwysError):
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise
    for name, part in parts.items():
        part.replace(folder / name)
    for entry in current:
        if entry["name"] not in parts:
            (folder / entry["name"]).unlink(missing_ok=True)


def _current_files(card_path: Path) -> list[dict[str, Any]]:
    """The files that a card names; none where there is no card, or what is there is no card."""
    try:
        return read_card(card_path)["files"] if card_path.is_file() else []
    except SwysError:
        return []


def load_checkpoint(
    path_or_id: str | Path,
    device: torch.device | str | None = None,
    num_classes: int | None = None,
) -> tuple[VisionTransformer, dict[str, Any]]:
    """Load a model (eval mode, float32) and its card.

    Args:
        path_or_id: a folder, a .safetensors file, or an id below checkpoints/ (<dataset>/<model>).
        device: where the model goes; None is the CPU.
        num_classes: when given, a checkpoint with another number of classes is refused.

    Returns:
        The model and the card.

    Raises:
        SwysError: not there, a pickle, truncated or altered (sha256), weights of another model.
    """
    folder, _, card_path = locate(find_checkpoint(path_or_id))
    card = read_card(card_path)
    if num_classes is not None and card["num_classes"] != num_classes:
        problem = f"has {card['num_classes']} classes, the data has {num_classes}"
        raise SwysError(
            f"checkpoint '{path_or_id}' {problem}; use a checkpoint trained on this data set"
        )
    tensors: dict[str, Tensor] = {}
    try:
        for entry in card["files"]:
            tensors |= _read_file(folder, entry)
        weights = _unpack(tensors)
        with torch.device("meta"):  # shapes without memory, and without a random draw
            model = _model_of(card)
        model.load_state_dict(weights, assign=True)
    except (RuntimeError, LookupError, SafetensorError) as error:
        reason = reason_of(error, line=-1)
        raise SwysError(
            f"checkpoint '{path_or_id}' does not fit {card['model']}: {reason}"
        ) from None
    return model.to(device or "cpu").eval(), card


def _model_of(card: dict[str, Any]) -> VisionTransformer:
    """The model that a card describes, with random weights."""
    return create_model(
        card.get("model", ""),
        card["num_classes"],
        card["img_size"],
        card["patch_size"],
        **card.get("model_kwargs", {}),
    )


def _described(model: VisionTransformer, card: dict[str, Any]) -> dict[str, Any]:
    """The card with the sizes of the model; a SwysError where it describes another model."""
    model = deepcopy(model).cpu().float().eval()
    height, width = model.patch_embed.img_size
    inputs = torch.linspace(-1, 1, 3 * height * width).reshape(1, 3, height, width)
    try:
        sizes = {
            "depth": len(model.blocks),
            "embed_dim": model.embed_dim,
            "num_heads": model.blocks[0].attn.num_heads,
        }
        card = card | {"model_kwargs": card.get("model_kwargs", {}) | sizes}
        with torch.device("meta"):  # shapes without memory, and without a random draw
            again = _model_of(card).eval()
        again.load_state_dict(model.state_dict(), assign=True)
        with torch.no_grad():
            if not torch.equal(again(inputs), model(inputs)):
                raise RuntimeError("it would give other answers")
    except (AttributeError, RuntimeError, AssertionError) as error:
        reason = reason_of(error, line=-1)
        raise SwysError(
            f"a card cannot describe this model as '{card['model']}' ({reason}); use square images"
            " and the layers of timm's model of that name"
        ) from None
    return card


def _shards(tensors: dict[str, Tensor], stem: str) -> dict[str, dict[str, Tensor]]:
    """Tensors by the file that they go into, each file at most ``SHARD_BYTES`` long."""
    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=SHARD_BYTES
    )
    shards = {}
    for file_name, keys in plan.filename_to_tensors.items():
        shards[file_name] = {key: tensors[key] for key in keys}
    return shards


def _read_file(folder: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors of one file of a card.

    A kill between the writing of the card and the last renaming leaves the file with a name that
    ends in .new.
    """
    path = folder / entry["name"]
    for candidate in (path, folder / f"{entry['name']}.new"):
        if candidate.is_file() and sha256_of(candidate) == entry["sha256"]:
            return load_file(candidate)
    problem = "does not match the sha256 in its card" if path.is_file() else "is missing"
    raise SwysError(f"checkpoint '{folder}': file {entry['name']} {problem}; restore it with git")


def _pack(tensors: dict[str, Tensor], storage: str) -> dict[str, Tensor]:
    """Tensors as they are stored; a matrix in int8 has one scale for each of its rows."""
    packed = {}
    for key, tensor in tensors.items():
        value = tensor.detach().cpu().float()
        if storage == "fp32":
            packed[key] = value.contiguous()
        elif storage == "int8" and value.ndim == 2 and value.numel() > INT8_MIN_ELEMENTS:
            scale = (value.abs().amax(dim=1) / 127).half().clamp(min=SMALLEST_FP16)
            steps = (value / scale.float()[:, None]).round()
            packed[key] = steps.clamp(-127, 127).to(torch.int8)
            packed[f"{key}.scale"] = scale
        else:
            packed[key] = value.half().contiguous()
    return packed


def _unpack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float32 weights of stored tensors; LookupError or RuntimeError where they are none."""
    weights = {}
    for key, tensor in tensors.items():
        if key.endswith(".scale"):
            continue
        value = tensor.to(torch.float32, copy=True)  # the file is not kept open behind it
        if tensor.dtype == torch.int8:
            value = value * tensors[f"{key}.scale"].float()[:, None]
        if not value.isfinite().all():
            raise RuntimeError("weights that are no finite numbers")
        weights[key] = value
    return weights
