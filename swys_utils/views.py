"""Random views of images: mirrored, turned, scaled, shifted, with other colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .data import resized, to_planes


@dataclass(frozen=True)
class Augmentation:
    """How far a random view may differ from its image; the default is no difference.

    To add an augmentation, add a field here, a field at the end of :class:`Draws`, and a step in
    :func:`augment`. ``draw`` has to draw its numbers by a call of its own, after the table of nine,
    as it does for ``ratio``: a wider table would change the views of earlier runs.

    Attributes:
        flip: mirror left-right with probability 1/2.
        turns: turn by a random multiple of 90 degrees.
        rotate: turn by an angle within +- this many degrees.
        scale: change the size by a share within +- this value.
        shift: move by a share of the side within +- this value, in whole pixels.
        jitter: change brightness, contrast and (colour images) saturation, relative, within +-.
        crop: show a random part whose area is at least this share of the image, and whose sides
            differ by a factor of at most 4/3 (Szegedy et al. 2015), instead of ``scale`` and
            ``shift``; 1 shows the whole image. A side that would be longer than the image is cut,
            so a share near 1 is not always reached.
    """

    flip: bool = False
    turns: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    jitter: float = 0.0
    crop: float = 1.0


class Draws(NamedTuple):
    """The random numbers behind n views: float32 (n,) in [0, 1) for each kind of change."""

    angle: Tensor
    turn: Tensor
    scale: Tensor
    mirror: Tensor
    shift_x: Tensor
    shift_y: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    ratio: Tensor

    def take(self, indices: Tensor) -> Draws:
        """The random numbers of the views at ``indices``, int64 (B,)."""
        return Draws(*torch.stack(self)[:, indices])

    def to(self, device: torch.device | str) -> Draws:
        """The same random numbers on ``device``."""
        return Draws(*torch.stack(self).to(device))


def augment(planes: Tensor, img_size: int, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Make one view of each image, on the device of the images.

    Mirroring, turning, scaling, shifting and resizing are one affine map: pixels are interpolated
    once. (Images that shrink are first resized, so that no pixel is left out.)

    Args:
        planes: images, float (B, C, H, W) in [-1, 1].
        img_size: side S of the views, px.
        augmentation: how far a view may differ from its image.
        draws: B random numbers of each kind; the same numbers give the same views.

    Returns:
        Views, float (B, C, S, S) in [-1, 1].
    """
    if planes.shape[-1] > img_size:  # smoothed while it shrinks
        planes = resized(planes, img_size)
    draws = draws.to(planes.device)
    theta = _affine_maps(augmentation, draws, img_size)
    grid = F.affine_grid(theta, [*planes.shape[:2], img_size, img_size], align_corners=False)
    views = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if augmentation.jitter:
        views = _jittered(views, augmentation.jitter, draws)
    return views


def _affine_maps(augmentation: Augmentation, draws: Draws, side: int) -> Tensor:
    """(B, 2, 3): from points of each view to points of its image, both from -1 to 1."""
    angle = _within(math.radians(augmentation.rotate), draws.angle)
    if augmentation.turns:
        quarters = (draws.turn * 4).floor()
        angle = angle + quarters * (math.pi / 2)
    mirror = torch.ones_like(draws.mirror)
    if augmentation.flip:
        mirror = torch.where(draws.mirror < 0.5, -1.0, 1.0)
    cos = torch.cos(angle)
    sin = torch.sin(angle)
    part = _shown_part(augmentation, draws, side)
    row_x = torch.stack([cos * part.width * mirror, -sin * part.height, part.x], dim=1)
    row_y = torch.stack([sin * part.width * mirror, cos * part.height, part.y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


class _Part(NamedTuple):
    """A part of an image: its sides, 1 for the whole image's, and its centre, from -1 to 1."""

    width: Tensor
    height: Tensor
    x: Tensor
    y: Tensor


def _shown_part(augmentation: Augmentation, draws: Draws, side: int) -> _Part:
    if augmentation.crop == 1:
        size = 1 + _within(augmentation.scale, draws.scale)
        pixels = augmentation.shift * side
        # whole ones, because a part of a pixel would blur the view
        x = _within(pixels, draws.shift_x).round()
        y = _within(pixels, draws.shift_y).round()
        return _Part(size, size, 2 * x / side, 2 * y / side)  # a side is 2 long
    area = augmentation.crop + (1 - augmentation.crop) * draws.scale
    ratio = torch.exp(_within(math.log(4 / 3), draws.ratio))
    width = (area * ratio).sqrt().clamp(max=1)
    height = (area / ratio).sqrt().clamp(max=1)
    return _Part(
        width,
        height,
        x=(1 - width) * _within(1, draws.shift_x),
        y=(1 - height) * _within(1, draws.shift_y),
    )


def _jittered(views: Tensor, jitter: float, draws: Draws) -> Tensor:
    """Change brightness, contrast and (colour images) saturation of views (B, C, S, S)."""
    brightness = 1 + _within(jitter, draws.brightness).view(-1, 1, 1, 1)
    contrast = 1 + _within(jitter, draws.contrast).view(-1, 1, 1, 1)
    saturation = 1 + _within(jitter, draws.saturation).view(-1, 1, 1, 1)
    views = (views + 1) * brightness - 1  # black stays black
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = (views - mean) * contrast + mean
    if views.shape[1] == 3:
        grey = views.mean(dim=1, keepdim=True)
        views = (views - grey) * saturation + grey
    return views.clamp(-1, 1)


def _within(limit: float, draws: Tensor) -> Tensor:
    """Random numbers in [0, 1) as random numbers in [-limit, limit)."""
    return (draws * 2 - 1) * limit


def view_draws(count: int, view_seed: int) -> Draws:
    """The random numbers behind one view of each of ``count`` images, for any augmentation.

    Args:
        count: number of images.
        view_seed: the same seed gives the same numbers; of a fixed view, its number.
    """
    generator = torch.Generator().manual_seed(view_seed)
    table = torch.rand(count, 9, generator=generator)
    ratio = torch.rand(count, generator=generator)
    columns = [*table.unbind(dim=1), ratio]
    return Draws(*columns)


def make_views(
    images: np.ndarray | Tensor,
    indices: Tensor,
    draws: Draws,
    augmentation: Augmentation,
    img_size: int,
    device: torch.device | str,
) -> Tensor:
    """Make a view of some images. All views are made here: a student sees what its teacher saw.

    Args:
        images: of the whole split, uint8 (N, H, W) or (N, H, W, 3); a tensor lies on ``device``.
        indices: positions of the images to show, int64 (B,), on the CPU.
        draws: of the whole split, N random numbers of each kind.
        augmentation: how far a view may differ from its image.
        img_size: side S of the views, px.
        device: where views are made.

    Returns:
        Views, float (B, 3, S, S) in [-1, 1]; grey is repeated.
    """
    if isinstance(images, np.ndarray):
        pixels = images[indices.numpy()]
    else:
        pixels = images[indices.to(device)]
    planes = to_planes(pixels, device)
    views = augment(planes, img_size, augmentation, draws.take(indices))
    return views.expand(-1, 3, -1, -1)
