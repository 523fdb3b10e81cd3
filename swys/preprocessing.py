"""How a model wants its images: size, crop, normalisation; from its configuration, or given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from swys_utils.config import SwysError, reason_of, unknown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# those that torchvision has for tensors
INTERPOLATIONS = {
    mode.value: mode
    for mode in (
        InterpolationMode.BILINEAR,
        InterpolationMode.BICUBIC,
        InterpolationMode.NEAREST,
        InterpolationMode.NEAREST_EXACT,
    )
}
# Pillow's numbers for the ways to resize, as preprocessor_config.json has them
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
CONVNEXT_WHOLE = 384  # px: from here on ConvNextImageProcessor does not crop, whatever it stores
DECISIVE = {"mean", "std"}  # who gives these has given what cannot be seen in a model
LARGEST_SIDE = 4096  # px; what is larger is a mistake in a configuration
SMALLEST_CROP = 0.05


@dataclass(frozen=True)
class Preprocessing:
    """From uint8 images to what a model reads.

    Attributes:
        size: side of the square that the model reads, px.
        mean: of the normalisation, one value a channel, for pixels in [0, 1].
        std: of the normalisation, one value a channel.
        interpolation: how images are resized, a key of ``INTERPOLATIONS``.
        crop: share of the image's side that the model sees, in the centre.
        source: where these values come from, for the report.
    """

    size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    crop: float = 1.0
    source: str = "assumed: ImageNet's usual values"

    def __str__(self) -> str:
        mean = ", ".join(f"{value:.4g}" for value in self.mean)
        std = ", ".join(f"{value:.4g}" for value in self.std)
        crop = "" if self.crop == 1 else f", centre crop {self.crop:.3g}"
        size = f"{self.size} x {self.size} px"
        return f"{size}, {self.interpolation}{crop}, mean {mean}, std {std} ({self.source})"

    @property
    def resized(self) -> int:
        """Side to which an image is resized before its centre is cut out, px."""
        return math.floor(self.size / self.crop)

    def __call__(self, images: np.ndarray) -> Tensor:
        """Model input of a batch of square images.

        Args:
            images: uint8 (N, S, S) or (N, S, S, 3).

        Returns:
            float32 (N, C, size, size); C is 3, or 1 where the mean has one value.
        """
        planes = self._channels(to_tensor(images))
        side = self.resized
        if planes.shape[-1] != side:
            mode = INTERPOLATIONS[self.interpolation]
            planes = tv.resize(planes, [side, side], mode, antialias=True)
        if side != self.size:
            planes = tv.center_crop(planes, [self.size, self.size])
        pixels = planes.float() / 255
        return tv.normalize(pixels, list(self.mean), list(self.std))

    def _channels(self, planes: Tensor) -> Tensor:
        """Grey in three channels for a model of colours, and the other way round."""
        wanted = len(self.mean)
        if planes.shape[1] == wanted:
            return planes
        if wanted == 1:
            return tv.rgb_to_grayscale(planes)
        return planes.expand(-1, wanted, -1, -1)


def to_tensor(images: np.ndarray) -> Tensor:
    """Images with their channels first.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        uint8 (N, 1, H, W) or (N, 3, H, W), a copy.
    """
    tensor = torch.from_numpy(np.array(images))
    if tensor.ndim == 3:
        return tensor.unsqueeze(1)
    return tensor.permute(0, 3, 1, 2).contiguous()


def from_timm(config: Mapping[str, Any]) -> Preprocessing:
    """What timm's data configuration of a model says.

    Args:
        config: of ``timm.data.resolve_model_data_config``.

    Returns:
        The preprocessing.

    Raises:
        SwysError: the model reads no squares, or a value is impossible.
    """
    _, height, width = config["input_size"]
    if height != width:
        raise SwysError(f"the model reads {height} x {width} px; only squares can be compared")
    return checked(
        Preprocessing(
            size=height,
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            interpolation=config["interpolation"],
            crop=config.get("crop_pct") or 1.0,
            source="timm's data configuration",
        )
    )


def from_image_processor(config: Mapping[str, Any]) -> Preprocessing:
    """What a Hugging Face ``preprocessor_config.json`` says.

    Args:
        config: its content.

    Returns:
        The preprocessing.

    Raises:
        SwysError: a value is missing or impossible.
    """
    try:
        resized = _side(config["size"])
        size = _side(config["crop_size"]) if config.get("do_center_crop") else resized
        crop = config.get("crop_pct") or size / resized
        kind = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
        if "ConvNext" in kind and size >= CONVNEXT_WHOLE:
            crop = 1.0
        if not config.get("do_normalize", True):
            config = {**config, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
        # what a value is multiplied by before the mean is taken off; ours lie between 0 and 1
        factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        scale = 255 * factor
        return checked(
            Preprocessing(
                size=size,
                mean=tuple(value / scale for value in config["image_mean"]),
                std=tuple(value / scale for value in config["image_std"]),
                interpolation=RESAMPLING[config.get("resample", 2)],
                crop=crop,
                source="preprocessor_config.json",
            )
        )
    except SwysError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        reason = reason_of(error, with_kind=True)
        raise SwysError(f"preprocessor_config.json cannot be used ({reason}); repair it") from None


def _side(size: Any) -> int:
    """The side of a square in one of Hugging Face's three ways to say it."""
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        if not edge and size["height"] != size["width"]:
            sides = f"{size['height']} x {size['width']}"
            raise SwysError(f"the model reads {sides} px; only squares can be compared")
        return int(edge or size["height"])
    return int(size)


def given(text: str, base: Preprocessing) -> Preprocessing:
    """What a reader gives on the command line.

    Args:
        text: such as "size=224,mean=0.5,std=0.5,interpolation=bicubic,crop=0.9"; a mean or std of
            three channels is "0.485/0.456/0.406". What is left out stays as it is.
        base: the model's own preprocessing.

    Returns:
        The preprocessing, or ``base`` where the text is empty. Its source tells what was given and
        where the rest comes from.

    Raises:
        SwysError: an unknown word, or an impossible value.
    """
    if not text:
        return base
    changes: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        changes[name.strip()] = _value(name.strip(), value.strip())
    if set(changes) >= DECISIVE:
        source = "given"
    else:
        source = f"{', '.join(changes)} given; the rest {base.source}"
    given = {key: changes.get(key, getattr(base, key)) for key in ("mean", "std")}
    channels = max(len(base.mean), *map(len, given.values()))
    for key, values in given.items():
        changes[key] = values * channels if len(values) == 1 else values
    return checked(replace(base, **changes, source=source))


def _value(name: str, text: str) -> Any:
    """The value of one word."""
    readers: dict[str, Callable[[str], Any]] = {
        "size": int,
        "crop": float,
        "interpolation": str,
        "mean": _numbers,
        "std": _numbers,
    }
    if name not in readers:
        raise SwysError(unknown("preprocessing", name, readers, "known words are"))
    try:
        return readers[name](text)
    except ValueError:
        raise SwysError(f"preprocessing {name}={text!s:.40}; give a number") from None


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split("/"))


def checked(preprocessing: Preprocessing) -> Preprocessing:
    """The same preprocessing, once its values are known to be possible.

    Args:
        preprocessing: of any values.

    Returns:
        It.

    Raises:
        SwysError: a value that no image can be brought to.
    """
    problem = _problem(preprocessing)
    if problem:
        raise SwysError(f"preprocessing {problem}")
    return preprocessing


def _problem(preprocessing: Preprocessing) -> str:
    """What is impossible in a preprocessing; empty where nothing is."""
    size = preprocessing.size
    channels = len(preprocessing.mean)
    finite = all(math.isfinite(value) for value in (*preprocessing.mean, *preprocessing.std))
    if not 1 <= size <= LARGEST_SIDE:
        return f"size={size}; give 1 to {LARGEST_SIDE} px"
    if not SMALLEST_CROP <= preprocessing.crop <= 1:
        return f"crop={preprocessing.crop}; give a share of the side, {SMALLEST_CROP} to 1"
    if preprocessing.interpolation not in INTERPOLATIONS:
        return unknown("interpolation", preprocessing.interpolation, INTERPOLATIONS)
    if channels not in (1, 3) or len(preprocessing.std) != channels:
        return f"mean and std of {channels} and {len(preprocessing.std)} channels; give 1 or 3"
    if not finite or min(preprocessing.std) <= 0:
        return "mean or std is no finite number, or a std is not above 0"
    return ""
