"""timm Vision Transformers, and checkpoints of them: safetensors with a card that says what they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from timm.models.vision_transformer import VisionTransformer

from .cards import file_entry, find_checkpoint, locate, read_card, sha256_of
from .config import SwysError, unknown, write_json


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
    "vit_base_p7": SeriesModel("Base, 16 tokens", BASE, 28, 7, "labels", BLUE),
    "vit_tiny_p7": SeriesModel("Tiny, 16 tokens", TINY, 28, 7, "labels", ORANGE),
    "vit_tiny_answers_p7": SeriesModel("Tiny, answers, 16 tokens", TINY, 28, 7, "answers", GREEN),
    BASE: SeriesModel("Base, 224 px", BASE, 224, 16, "labels", BLUE),
    TINY: SeriesModel("Tiny, 224 px", TINY, 224, 16, "labels", ORANGE),
    f"{TINY}_kd": SeriesModel("Tiny, answers + maps, 224 px", TINY, 224, 16, "maps", PINK),
}


def timm_name(name: str) -> str:
    """The architecture behind a name of the series; any other name is timm's own."""
    return SERIES[name].timm_name if name in SERIES else name


SHARD_BYTES = 49_000_000  # one file in the repository stays under 50 MB
INT8_MIN_ELEMENTS = 100_000  # smaller matrices stay fp16: they cost nothing


def create_model(
    name: str,
    num_classes: int,
    img_size: int | None = None,
    patch_size: int | None = None,
    **kwargs,
) -> VisionTransformer:
    """A timm ViT (Dosovitskiy et al. 2021) with random weights.

    Args:
        name: ``vit_base`` or ``vit_tiny`` (28 px, patches of 4 px), or any timm ViT at its own geometry.
        img_size, patch_size: px; None is what the name says. kwargs: for timm, such as ``drop_path_rate``.

    Raises SwysError: unknown name (with the nearest), no ViT, or a geometry that does not fit.
    """
    asked = {"img_size": img_size, "patch_size": patch_size} | kwargs
    options = {key: value for key, value in asked.items() if value is not None}
    if name in SERIES:
        geometry = {"img_size": SERIES[name].img_size, "patch_size": SERIES[name].patch_size}
        options = geometry | options
    full_name = timm_name(name)
    if not timm.is_model(full_name):
        known = [*SERIES, *timm.list_models("*vit*"), *timm.list_models("*deit*")]
        raise SwysError(unknown("model", name, known, "see timm.list_models('*vit*'), for example"))
    try:
        model = timm.create_model(full_name, num_classes=num_classes, **options)
    except (TypeError, ValueError, ArithmeticError, AssertionError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SwysError(
            f"model '{name}' cannot be made with {options} ({reason}); change them"
        ) from None
    if not isinstance(model, VisionTransformer):
        kind = type(model).__name__
        raise SwysError(
            f"model '{name}' is a {kind}, not a Vision Transformer; use vit_tiny or vit_base"
        )
    if (
        model.patch_embed.img_size[0] % model.patch_embed.patch_size[0]
        or not model.patch_embed.num_patches
    ):
        raise SwysError(
            f"model '{name}': patches do not divide the image ({options}); choose a divisor"
        )
    return model


def count_parameters(model: torch.nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(p.numel() for p in model.parameters())


def weights_digest(model: torch.nn.Module) -> str:
    """12 hex digits that two models share exactly when all their weights are equal."""
    return hashlib.sha256(save({k: v.cpu() for k, v in model.state_dict().items()})).hexdigest()[
        :12
    ]


def save_checkpoint(
    model: VisionTransformer, path: str | Path, card: dict, storage: str = "fp16"
) -> dict:
    """Write weights and card; a kill at any moment leaves the old checkpoint or the new one.

    Args:
        path: a folder (model.safetensors and card.json go into it), or x.safetensors (its card is x.json).
        card: what is known of the run, at least ``model`` (timm name); what the files say is added here.
        storage: ``fp32``, ``fp16``, or ``int8`` (matrices as int8 with one fp16 scale an output row).

    Returns the completed card. Raises SwysError for an unknown storage or an unwritable path.
    """
    if storage not in ("fp32", "fp16", "int8"):
        raise SwysError(unknown("storage", storage, ("fp32", "fp16", "int8")))
    folder, stem, card_path = locate(path)
    tensors, pattern = _pack(model.state_dict(), storage), f"{stem}{{suffix}}.safetensors"
    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern=pattern, max_shard_size=SHARD_BYTES
    )
    shards = {
        name: {key: tensors[key] for key in keys} for name, keys in plan.filename_to_tensors.items()
    }
    embed, heads = model.patch_embed, model.blocks[0].attn.num_heads
    sizes = {"depth": len(model.blocks), "embed_dim": model.embed_dim, "num_heads": heads}
    card = card | {
        "num_classes": model.num_classes,
        "stored": {"dtype": storage},
        "model_kwargs": sizes,
    }
    card |= {"img_size": embed.img_size[0], "patch_size": embed.patch_size[0]}
    card["versions"] = {"torch": torch.__version__, "timm": timm.__version__}
    read_card(card_path, card | {"files": [{"name": name, "sha256": 64 * "0"} for name in shards]})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # New weights are named *.new until the card, renamed in one step, makes them the current ones.
        for name, shard in shards.items():
            save_file(shard, folder / f"{name}.new", metadata={"format": "pt"})
        card["files"] = [file_entry(folder / f"{name}.new", name) for name in shards]
        write_json(card_path, card)
        for name in shards:
            (folder / f"{name}.new").replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise SwysError(
            f"cannot write checkpoint '{path}' ({error}); choose another folder"
        ) from None
    return card


def load_checkpoint(path_or_id, device=None, num_classes=None) -> tuple[VisionTransformer, dict]:
    """Load a model (eval mode, float32) and its card.

    Args:
        path_or_id: a folder, a .safetensors file, or an id below checkpoints/ (<dataset>/<model>).
        num_classes: when given, a checkpoint with another number of classes is refused.

    Raises SwysError: not there, a pickle, truncated or altered (sha256), weights of another model.
    """
    folder, _, card_path = locate(find_checkpoint(path_or_id))
    card = read_card(card_path)
    if num_classes is not None and card["num_classes"] != num_classes:
        what = f"has {card['num_classes']} classes, the data has {num_classes}"
        raise SwysError(
            f"checkpoint '{path_or_id}' {what}; use a checkpoint trained on this data set"
        )
    kwargs = card.get("model_kwargs", {})
    model = create_model(
        card["model"], card["num_classes"], card["img_size"], card["patch_size"], **kwargs
    )
    tensors: dict[str, torch.Tensor] = {}
    try:
        for entry in card["files"]:
            tensors |= _read_file(folder, entry)
        model.load_state_dict(_unpack(tensors))
    except (RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).splitlines()[-1].strip()[:160]
        raise SwysError(
            f"checkpoint '{path_or_id}' does not fit {card['model']}: {reason}"
        ) from None
    return model.to(device or "cpu").eval(), card


def _read_file(folder: Path, entry: dict) -> dict[str, torch.Tensor]:
    """Tensors of one file of a card; a writer killed after the card left it under its .new name."""
    for path in (folder / entry["name"], folder / f"{entry['name']}.new"):
        if path.is_file() and sha256_of(path) == entry["sha256"]:
            return load_file(path)
    problem = (
        "does not match the sha256 in its card"
        if (folder / entry["name"]).is_file()
        else "is missing"
    )
    raise SwysError(f"checkpoint '{folder}': file {entry['name']} {problem}; restore it with git")


def _pack(tensors: dict[str, torch.Tensor], storage: str) -> dict[str, torch.Tensor]:
    packed = {}
    for key, tensor in tensors.items():
        value = tensor.detach().cpu().float()
        if storage == "int8" and value.ndim == 2 and value.numel() > INT8_MIN_ELEMENTS:
            scale = (value.abs().amax(dim=1) / 127).clamp(min=1e-8).half()
            packed[key] = (value / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
            packed[f"{key}.scale"] = scale
        else:
            packed[key] = (value if storage == "fp32" else value.half()).contiguous()
    return packed


def _unpack(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    scales = {
        key: value.float()[:, None] for key, value in tensors.items() if key.endswith(".scale")
    }
    weights = {key: value for key, value in tensors.items() if key not in scales}
    factors = {
        key: scales[f"{key}.scale"] for key, value in weights.items() if value.dtype == torch.int8
    }
    unpacked = {key: value.float() * factors.get(key, 1) for key, value in weights.items()}
    if not all(value.isfinite().all() for value in unpacked.values()):
        raise KeyError("weights that are no finite numbers")
    return unpacked
