"""Models of timm, torchvision and Hugging Face by name or folder; of a reader only safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from swys_utils.config import SwysError, unknown

from .opened_models import OpenedModel, module_bytes, opened_module, short_path
from .preprocessing import Preprocessing, checked, from_image_processor, from_timm, given

RANDOM_WEIGHTS = "random weights: add ?pretrained, or ?weights=FILE.safetensors"
LOCAL_DIR = "local-dir:"
PRETRAINED = "pretrained"
WEIGHTS = "weights="


def open_timm(name: str, options: str, num_classes: int, settings: tuple[str, str]) -> OpenedModel:
    """A model by timm's name for it.

    Args:
        name: such as ``resnet18`` or ``vit_base_patch16_224.augreg_in21k``.
        options: "", ``pretrained`` (downloaded), or ``weights=FILE.safetensors``.
        num_classes: of the data, for a head with random weights; 0 is timm's own number.
        settings: preprocessing and layer as the reader gave them.

    Returns:
        The model, opened.

    Raises:
        SwysError: an unknown name, or weights that cannot be had or do not fit.
    """
    if not timm.is_model(name):
        raise SwysError(unknown("timm model", name.partition(".")[0], timm.list_models()))

    def make(classes: int, pretrained: bool) -> nn.Module:
        head = {"num_classes": classes} if classes else {}
        return timm.create_model(name, pretrained=pretrained, **head)

    model, notes = _with_weights(make, f"timm:{name}", options, num_classes)
    facts = {"notes": notes, "size_bytes": _stored_bytes(options) or module_bytes(model)}
    return _opened_timm(model, label(f"timm:{name}", options), settings, **facts)


def open_local_timm(folder: Path, settings: tuple[str, str]) -> OpenedModel:
    """A folder that timm's ``save_for_hf`` or this project wrote: config.json and safetensors.

    Args:
        folder: the folder.
        settings: preprocessing and layer as the reader gave them.

    Returns:
        The model, opened.

    Raises:
        SwysError: no such folder, or one without safetensors, or that timm cannot read.
    """
    _safetensors_of(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():  # timm would take a pickle beside it
        raise SwysError(f"'{folder}' has no model.safetensors; name its weights so")
    try:
        model = timm.create_model(f"{LOCAL_DIR}{folder}", pretrained=True)
    except Exception as error:  # timm raises a dozen kinds for a folder that is none of its own
        raise SwysError(_cannot(f"{LOCAL_DIR}{folder}", error)) from None
    size = weights.stat().st_size
    return _opened_timm(model, f"{LOCAL_DIR}{short_path(folder)}", settings, size_bytes=size)


def open_torchvision(
    name: str, options: str, num_classes: int, settings: tuple[str, str]
) -> OpenedModel:
    """A classification model by torchvision's name for it.

    Args:
        name: such as ``resnet18``.
        options: "", ``pretrained`` (downloaded), or ``weights=FILE.safetensors``.
        num_classes: of the data, for a head with random weights; 0 is torchvision's own number.
        settings: preprocessing and layer as the reader gave them.

    Returns:
        The model, opened.

    Raises:
        SwysError: an unknown name, or weights that cannot be had or do not fit.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise SwysError(unknown("torchvision model", name, names))

    def make(classes: int, pretrained: bool) -> nn.Module:
        head = {"num_classes": classes} if classes else {}
        weights = "DEFAULT" if pretrained else None
        return torchvision.models.get_model(name, weights=weights, **head)

    model, notes = _with_weights(make, f"torchvision:{name}", options, num_classes)
    preprocessing, layer = settings
    return opened_module(
        model,
        label(f"torchvision:{name}", options),
        given(preprocessing, _torchvision_preprocessing(name)),
        layer,
        num_classes=classes_of(model),
        notes=notes,
        size_bytes=_stored_bytes(options) or module_bytes(model),
    )


def open_transformers(folder: Path, settings: tuple[str, str]) -> OpenedModel:
    """A Hugging Face folder with a model for image classification.

    Args:
        folder: with config.json, preprocessor_config.json and safetensors.
        settings: preprocessing and layer as the reader gave them.

    Returns:
        The model, opened.

    Raises:
        SwysError: transformers is not installed, or the folder is not such a one.
    """
    files = _safetensors_of(folder)
    try:
        from transformers import AutoModelForImageClassification
    except ImportError:
        raise SwysError(
            f"'{folder}' needs transformers; pip install 'transformers>=4.46'"
        ) from None
    try:
        model, found = AutoModelForImageClassification.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises a dozen kinds for a damaged folder
        raise SwysError(_cannot(folder, error)) from None
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])[0]
        raise SwysError(f"'{folder}' has no '{missing}'; give a model trained to classify images")
    model.eval().requires_grad_(False)
    names = model.config.id2label
    preprocessing, layer = settings

    def logits(pixels: Tensor) -> Tensor:
        return model(pixel_values=pixels).logits

    return opened_module(
        model,
        short_path(folder),
        given(preprocessing, _processor_preprocessing(folder)),
        layer,
        logits,
        num_classes=model.config.num_labels,
        class_names=tuple(str(names[index]) for index in sorted(names)),
        size_bytes=sum(file.stat().st_size for file in files),
    )


def label(name: str, options: str) -> str:
    """What a report calls a model: its weights' file tells two of one architecture apart.

    Args:
        name: such as ``timm:resnet18``.
        options: as for ``open_timm``.
    """
    if options.startswith(WEIGHTS):
        return f"{name}, {Path(options).name}"
    return f"{name}, {options}" if options else name


def classes_of(model: nn.Module) -> int:
    """Number of classes of a model whose last layer is linear, or a convolution.

    Args:
        model: of torchvision.

    Returns:
        The outputs of its last linear layer, else of its last convolution; 0 without either.
    """
    head = head_of(model)
    return len(model.get_submodule(head).weight) if head else 0


def head_of(model: nn.Module) -> str:
    """The name of a model's last linear layer, else of its last convolution; "" without either.

    Args:
        model: any module.
    """
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, part in model.named_modules() if isinstance(part, kind)]
        if names:
            return names[-1]
    return ""


def _stored_bytes(options: str) -> int:
    """Bytes of the file of weights that the options name; 0 where they name none."""
    if not options.startswith(WEIGHTS):
        return 0
    return Path(options.removeprefix(WEIGHTS)).expanduser().stat().st_size


def _opened_timm(
    model: nn.Module, name: str, settings: tuple[str, str], **facts: Any
) -> OpenedModel:
    """A timm model with its own data configuration."""
    preprocessing, layer = settings
    model.eval().requires_grad_(False)
    own = from_timm(resolve_model_data_config(model))
    labels = (getattr(model, "pretrained_cfg", None) or {}).get("label_names") or ()
    return opened_module(
        model,
        name,
        given(preprocessing, own),
        layer,
        num_classes=int(model.num_classes),
        class_names=tuple(map(str, labels)),
        **facts,
    )


def _with_weights(
    make: Callable[[int, bool], nn.Module], name: str, options: str, num_classes: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """A model with the weights that the reader asked for, and what to know of them."""
    notes: tuple[str, ...] = ()
    try:
        if options == PRETRAINED:
            model = make(0, True)
        elif options.startswith(WEIGHTS):
            tensors = _read_weights(Path(options.removeprefix(WEIGHTS)).expanduser())
            model = make(_classes_of(tensors, make(0, False)), False)
            model.load_state_dict(tensors)
        elif options:
            known = [PRETRAINED, f"{WEIGHTS}FILE.safetensors"]
            raise SwysError(unknown("option", options, known, f"'{name}?' takes"))
        else:
            torch.manual_seed(0)
            model = make(num_classes, False)
            notes = (RANDOM_WEIGHTS,)
    except SwysError:
        raise
    except Exception as error:  # a download or foreign weights fail in a dozen ways
        raise SwysError(_cannot(name, error)) from None
    return model.eval().requires_grad_(False), notes


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    if path.suffix != ".safetensors":
        raise SwysError(f"weights '{path}' are no .safetensors; other files can run code")
    if not path.is_file():
        raise SwysError(f"no weights '{path}'; give a .safetensors file")
    try:
        return {key: value.float() for key, value in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise SwysError(_cannot(path, error)) from None


def _classes_of(tensors: dict[str, Tensor], model: nn.Module) -> int:
    """Number of classes of weights: the rows of a model's last layer; 0 where it has none.

    Args:
        tensors: the weights.
        model: of the same architecture, with any number of classes.
    """
    weight = f"{head_of(model)}.weight"
    return len(tensors[weight]) if weight in tensors else 0


def _safetensors_of(folder: Path) -> list[Path]:
    """The weights in a folder, once their headers could be read."""
    if not folder.is_dir():
        raise SwysError(f"no folder '{folder}'; give one with config.json and model.safetensors")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SwysError(
            f"'{folder}' has no .safetensors (other weights are pickles, which can run code); save"
            " the model with safe_serialization=True"
        )
    for file in files:
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise SwysError(_cannot(file, error)) from None
    return files


def _cannot(place: object, error: Exception) -> str:
    """One line for what a library made of a place."""
    words = " ".join(str(error).split())
    way_out = "check the name, the folder or the network"
    for sign in ("size mismatch", "Unexpected key", "Missing key"):  # torch, of foreign weights
        if sign in words:
            words = words[words.index(sign) :]
            way_out = "are these the weights of this network, with its names, channels and classes?"
            break
    reason = f"{type(error).__name__}: {words}"[:200]
    return f"'{place}' cannot be opened ({reason}); {way_out}"


def _torchvision_preprocessing(name: str) -> Preprocessing:
    """What the usual weights of a torchvision model were trained with."""
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    mode = InterpolationMode(transform.interpolation)
    (resized,) = transform.resize_size
    (size,) = transform.crop_size
    return checked(
        Preprocessing(
            size=size,
            mean=tuple(transform.mean),
            std=tuple(transform.std),
            interpolation=mode.value,
            crop=min(1.0, size / resized),
            source="torchvision's transforms",
        )
    )


def _processor_preprocessing(folder: Path) -> Preprocessing:
    """What preprocessor_config.json in a folder says."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return Preprocessing()
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SwysError(_cannot(path, error)) from None
    if not isinstance(content, dict):
        raise SwysError(f"'{path}' is no JSON object; repair it")
    return from_image_processor(content)
