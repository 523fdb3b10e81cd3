"""timm Vision Transformers, and checkpoints that say what they are: safetensors plus a card, never a pickle."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.fft import dctn
from timm.models.vision_transformer import VisionTransformer

from .config import CHECKPOINTS, SwysError, unknown
from .fetch import fetch_checkpoints, file_sha256

SHORT_NAMES = {"vit_base": "vit_base_patch16_224", "vit_tiny": "vit_tiny_patch16_224"}
SHARD_BYTES = 48 * 2**20  # one file in the repository stays under 50 MB
INT8_MIN_ELEMENTS = 100_000  # smaller matrices stay fp16: they cost nothing


def create_model(
    name: str, num_classes: int, img_size: int = 224, pretrained: bool = False, **kwargs
) -> VisionTransformer:
    """A timm ViT (Dosovitskiy et al. 2021) for images of ``img_size`` px, from random weights unless asked.

    Args:
        name: any timm ViT name, or ``vit_base`` / ``vit_tiny`` for the two of this series.
        num_classes: outputs (logits).
        kwargs: passed to timm, for example ``patch_size``, ``drop_path_rate``.

    Raises:
        SwysError: unknown name (with the nearest), a timm model that is no ViT, or pretrained weights out of reach.
    """
    name = SHORT_NAMES.get(name, name)
    known = [*SHORT_NAMES, *timm.list_models("*vit*"), *timm.list_models("*deit*")]
    if not timm.is_model(name):
        raise SwysError(unknown("model", name, known, "see timm.list_models('*vit*'), for example"))
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, img_size=img_size, **kwargs)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise SwysError(f"pretrained weights of '{name}' cannot be fetched ({reason}); use pretrained=False") from None
    except (TypeError, AssertionError) as error:
        raise SwysError(f"model '{name}' does not take img_size={img_size} {kwargs or ''}: {error}") from None
    if not isinstance(model, VisionTransformer):
        raise SwysError(
            f"model '{name}' is a {type(model).__name__}, not a Vision Transformer; use vit_tiny or vit_base"
        )
    return model


def at_native_resolution(model: VisionTransformer, size: int = 28) -> VisionTransformer:
    """A copy that reads images of ``size`` px itself and gives the same logits: an exact rewrite, nothing is trained.

    ``to_model_input`` enlarges small images bilinearly, and the patch embedding is linear, too. Their product is one
    convolution on the small image: for 28 -> 224 px and patches of 16 px a kernel of 4 px at stride 2, with the edge
    pixels repeated. Tokens, grid and heatmaps stay as they are: the enlarged image never held more than this.

    Raises:
        SwysError: the model's input is no whole multiple (2 or more) of ``size``, or its patch no multiple of that.
    """
    embed = model.patch_embed
    (side, width), (patch, across) = embed.img_size, embed.patch_size
    scale = side // size if size > 0 else 0
    if side != width or patch != across or scale < 2 or side != size * scale or patch % scale:
        raise SwysError(
            f"patches of {patch} px on {side} px cannot be rewritten for {size} px;"
            " the enlargement has to be a whole number that divides the patch"
        )
    native, weight = deepcopy(model), embed.proj.weight
    new = native.patch_embed
    new.patch_size = (patch // scale,) * 2
    new.img_size, new.grid_size, new.num_patches = new._init_img_size(size)
    reach = patch // scale + 2  # a patch and one pixel on each side, which bilinear weights reach into
    enlarged = torch.nn.functional.interpolate(
        torch.eye(reach, dtype=torch.float64)[None], scale_factor=scale, mode="linear", align_corners=False
    )
    rows = enlarged[0, :, scale:-scale].T.to(weight.device)  # (patch, reach)
    new.proj = torch.nn.Conv2d(weight.shape[1], weight.shape[0], reach, stride=patch // scale, padding=1,
                               padding_mode="replicate", bias=embed.proj.bias is not None)  # fmt: skip
    new.proj.to(weight).load_state_dict(
        {**embed.proj.state_dict(), "weight": torch.einsum("ocuv,ui,vj->ocij", weight.detach().double(), rows, rows)}
    )
    return native


def count_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@contextmanager
def plain_attention(module: torch.nn.Module) -> Iterator[None]:
    """Attention as separate products inside the block, and each layer as it was afterwards.

    The fused kernel forms no attention map, has no second derivative, hides its operations from torch's counter, and
    on a CPU its backward pass takes twice as long.
    """
    layers = [layer for layer in module.modules() if hasattr(layer, "fused_attn")]
    before = [layer.fused_attn for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield
    finally:
        for layer, fused in zip(layers, before):
            layer.fused_attn = fused


def weights_digest(model: torch.nn.Module) -> str:
    """12 hex digits that two models share exactly when all their weights are equal."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


# --- checkpoints -----------------------------------------------------------------------------------------------


def save_checkpoint(model: VisionTransformer, path: str | Path, card: dict, storage: str = "fp16") -> dict:
    """Write weights and card; a kill at any moment leaves the old checkpoint or the new one.

    Args:
        path: a folder (``model.safetensors`` and ``card.json`` go into it), or a file ``x.safetensors`` (its card
            is ``x.json`` beside it).
        card: what is known of the run: at least ``model`` (timm name); ``num_classes``, ``img_size``, files with
            sha256, and library versions are filled in here.
        storage: ``fp32``, ``fp16``, or ``int8`` (matrices as int8 with one fp16 scale an output row, weight = int8 x
            scale; the rest fp16).

    Returns:
        The completed card.

    Raises:
        SwysError: unknown storage or an unwritable path.
    """
    if storage not in ("fp32", "fp16", "int8"):
        raise SwysError(unknown("storage", storage, ("fp32", "fp16", "int8")))
    folder, weights_name, card_path = _locate(path)
    tensors = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    shards = _shards(_pack(tensors, storage))
    names = (
        [weights_name]
        if len(shards) == 1
        else [f"{Path(weights_name).stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    )
    card = {
        **card,
        "num_classes": model.num_classes,
        "img_size": model.patch_embed.img_size[0],
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
        "stored": {**card.get("stored", {}), "dtype": storage},
        "files": [],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # New weights lie beside the old ones as *.new until the card, renamed in one step, makes them the current ones.
        for name, shard in zip(names, shards):
            save_file(shard, folder / f"{name}.new", metadata={"format": "pt"})
            _fsync(folder / f"{name}.new")
            card["files"].append(
                {
                    "name": name,
                    "bytes": (folder / f"{name}.new").stat().st_size,
                    "sha256": file_sha256(folder / f"{name}.new"),
                }
            )
        write_json(card_path, card)
        for name in names:
            (folder / f"{name}.new").replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise SwysError(f"cannot write checkpoint '{path}': {error}; choose a folder you may write to") from None
    return card


def load_checkpoint(
    path_or_id: str | Path, device: torch.device | str | None = None, num_classes: int | None = None
) -> tuple[VisionTransformer, dict]:
    """Load a model (eval mode, float32) and its card.

    Args:
        path_or_id: a folder, a ``.safetensors`` file, or an id below ``checkpoints/`` such as
            ``pneumoniamnist/vit_tiny``.
        num_classes: when given, a checkpoint with another number of classes is refused.

    Raises:
        SwysError: not there, a pickle, truncated or altered (sha256), keys or shapes that do not fit the model.
    """
    folder, _, card_path = _locate(find_checkpoint(path_or_id))
    card = read_card(card_path)
    if num_classes is not None and card["num_classes"] != num_classes:
        raise SwysError(
            f"checkpoint '{path_or_id}' has {card['num_classes']} classes, the data has {num_classes}; "
            "use a checkpoint trained on this data set"
        )
    tensors: dict[str, torch.Tensor] = {}
    for entry in card["files"]:
        tensors.update(_read_shard(folder, entry, path_or_id))
    model = create_model(card["model"], card["num_classes"], card["img_size"], **card.get("model_kwargs", {}))
    state = _unpack(tensors)
    expected = model.state_dict()
    for key in [*expected, *state]:
        if key not in state or key not in expected or state[key].shape != expected[key].shape:
            have = tuple(state[key].shape) if key in state else "missing"
            want = tuple(expected[key].shape) if key in expected else "not a weight of this model"
            raise SwysError(
                f"checkpoint '{path_or_id}' does not fit {card['model']}: '{key}' is {have}, expected {want}"
            )
    model.load_state_dict(state)
    return model.to(device or "cpu").eval(), card


def save_predictions(path: str | Path, images: np.ndarray, logits: np.ndarray) -> None:
    """Keep the logits of exactly these stored weights beside them, under each image's digest; the card names the file.

    Args:
        path: folder of a checkpoint. images: uint8 (N, ...). logits: float32 (N, C) of the model as it is loaded.
    """
    folder, _, card_path = _locate(path)
    card, name = read_card(card_path), "predictions.safetensors"
    save_file(
        {"images": torch.as_tensor(image_digests(images)), "logits": torch.as_tensor(logits)}, folder / f"{name}.new"
    )
    size = (folder / f"{name}.new").stat().st_size
    card["predictions"] = {"name": name, "bytes": size, "sha256": file_sha256(folder / f"{name}.new")}
    write_json(card_path, card)
    (folder / f"{name}.new").replace(folder / name)


def shipped_predictions(path_or_id: str | Path, images: np.ndarray) -> np.ndarray | None:
    """Logits float32 (N, C) that lie beside a checkpoint, or None unless all of these images are among them."""
    folder, _, card_path = _locate(find_checkpoint(path_or_id))
    entry = read_card(card_path).get("predictions")
    if entry is None:
        return None
    tensors = _read_shard(folder, entry, path_or_id)
    rows = {digest.tobytes(): row for row, digest in enumerate(tensors["images"].numpy())}
    found = [rows.get(digest.tobytes()) for digest in image_digests(images)]
    return None if None in found else tensors["logits"].numpy()[found]


def image_digests(images: np.ndarray) -> np.ndarray:
    """First 8 bytes of each image's SHA-256, uint8 (N, 8)."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()[:8] for image in images]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 8).copy()


def find_checkpoint(path_or_id: str | Path) -> Path:
    """The folder or file that ``path_or_id`` names, on disk or below ``checkpoints/``."""
    path = Path(path_or_id)
    if path.suffix in (".pth", ".pt", ".pkl", ".bin", ".ckpt"):
        raise SwysError(
            f"'{path}' is a pickle, which can run code when opened; checkpoints here are .safetensors with a card"
        )
    for candidate in (path, CHECKPOINTS / path):
        if _locate(candidate)[2].is_file():
            return candidate
    if path.suffix == ".safetensors" and path.is_file():
        raise SwysError(
            f"'{path}' has no card '{path.with_suffix('.json').name}' beside it; it was renamed or moved alone"
        )
    base = os.environ.get("SWYS_CHECKPOINTS_URL")
    if base and re.fullmatch(r"[\w.-]+/[\w.-]+", str(path_or_id)):
        for line in fetch_checkpoints(base, CHECKPOINTS, [str(path_or_id)]):
            print(line)
        return CHECKPOINTS / path
    known = checkpoint_ids()
    raise SwysError(
        unknown("checkpoint", str(path_or_id), known, "known:")
        if known
        else f"no checkpoint '{path_or_id}' and none in '{CHECKPOINTS}'; run 'make checkpoints' or 'swys train'"
    )


def checkpoint_ids() -> list[str]:
    """Ids of the checkpoints below ``checkpoints/``."""
    return sorted(str(card.parent.relative_to(CHECKPOINTS)) for card in CHECKPOINTS.glob("*/*/card.json"))


def read_card(path: Path) -> dict:
    """The card at ``path``, refused when it is no card of ours."""
    try:
        card = json.loads(path.read_text())
        missing = {"model", "num_classes", "img_size", "files"} - set(card)
    except (OSError, ValueError, TypeError) as error:
        raise SwysError(f"card '{path}' cannot be read ({error}); fetch the checkpoint again") from None
    if missing:
        raise SwysError(f"'{path}' is not a checkpoint card: it lacks {', '.join(sorted(missing))}")
    return card


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON in one step: a temporary file beside it, fsync, rename."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    _fsync(part)
    part.replace(path)


def _locate(path: str | Path) -> tuple[Path, str, Path]:
    """(folder, name of the weights file, path of the card) of either form of checkpoint."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return path.parent, path.name, path.with_suffix(".json")
    return path, "model.safetensors", path / "card.json"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _read_shard(folder: Path, entry: dict, shown: str | Path) -> dict[str, torch.Tensor]:
    """Read one file whose sha256 is the card's; a writer killed after the card left it under its .new name."""
    for path in (folder / entry["name"], folder / f"{entry['name']}.new"):
        if path.is_file() and file_sha256(path) == entry["sha256"]:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    state = (
        "does not match the sha256 in its card (truncated or altered)"
        if (folder / entry["name"]).is_file()
        else "is missing"
    )
    raise SwysError(f"checkpoint '{shown}': file {entry['name']} {state}; fetch it again or restore it with git")


def _pack(tensors: dict[str, torch.Tensor], storage: str) -> dict[str, torch.Tensor]:
    packed = {}
    for key, value in tensors.items():
        if storage == "fp32":
            packed[key] = value.float().contiguous()
        elif storage == "int8" and value.ndim == 2 and value.numel() > INT8_MIN_ELEMENTS:
            scale = (value.float().abs().amax(dim=1) / 127).clamp(min=1e-8).half()
            packed[key] = (value.float() / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
            packed[f"{key}.scale"] = scale
        else:
            packed[key] = value.half().contiguous()
    return packed


def _unpack(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        key: value.float() * tensors[f"{key}.scale"].float()[:, None] if value.dtype == torch.int8 else value.float()
        for key, value in tensors.items()
        if not key.endswith(".scale")
    }


def _shards(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    shards: list[dict[str, torch.Tensor]] = [{}]
    filled = 0
    for key, value in tensors.items():
        size = value.numel() * value.element_size()
        if filled + size > SHARD_BYTES and shards[-1]:
            shards.append({})
            filled = 0
        shards[-1][key] = value
        filled += size
    return shards


# --- fingerprints of training images ---------------------------------------------------------------------------


HASH_TOLERANCE = 2  # bits of 64 that a re-saved or re-windowed copy may differ in


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
    """64-bit perceptual hash: the signs of 64 mid-frequency DCT coefficients (after Zauner 2010).

    Low frequencies are left out on purpose: all chest X-rays share them. Brightness and contrast do not matter.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3); brought to 28 x 28 grey first.

    Returns:
        uint8 (N, 8), the 64 bits packed.
    """
    order = sorted(np.ndindex(28, 28), key=lambda ij: (sum(ij), ij))[15:79]
    rows, columns = np.array(order).T
    hashes = []
    for start in range(0, len(images), 1024):
        grey = torch.as_tensor(np.ascontiguousarray(images[start : start + 1024])).float()
        grey = grey.mean(dim=-1) if grey.ndim == 4 else grey
        small = torch.nn.functional.interpolate(grey[:, None], size=(28, 28), mode="area")[:, 0].numpy()
        hashes.append(np.packbits(dctn(small, axes=(1, 2))[:, rows, columns] > 0, axis=1))
    return np.concatenate(hashes)


def pack_hashes(hashes: np.ndarray) -> str:
    """uint8 (N, 8) as base64 text, 11 characters an image, for the card."""
    return base64.b64encode(np.unique(hashes, axis=0).tobytes()).decode()


def seen_in_training(card: dict, images: np.ndarray) -> np.ndarray:
    """bool (N,): which images have (within 2 of 64 bits) the fingerprint of a training image of this checkpoint.

    Raises:
        SwysError: the card carries no fingerprints.
    """
    if not card.get("training_hashes"):
        raise SwysError(f"the card of '{card.get('model')}' carries no fingerprints of its training images")
    known = np.frombuffer(base64.b64decode(card["training_hashes"]), dtype=np.uint8).reshape(-1, 8)
    signs = 2.0 * np.unpackbits(known, axis=1).astype(np.float32) - 1  # (K, 64) of +-1
    seen = []
    for rows in np.array_split(perceptual_hashes(images), max(1, len(images) // 1024)):
        agreement = (2.0 * np.unpackbits(rows, axis=1).astype(np.float32) - 1) @ signs.T
        seen.append((64 - agreement.max(axis=1)) / 2 <= HASH_TOLERANCE)
    return np.concatenate(seen)
