"""Heatmaps and occlusion maps of two models, of the same images and of the same class."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from tqdm import tqdm

from swys_utils.config import SwysError
from swys_utils.occlusion import occlusion

from .compared_images import ComparedImages
from .measure_rows import Row, untold
from .measures import maps_row
from .opened_models import OpenedModel

AT_ONCE = 8  # images whose maps are made before the next progress

# images and classes -> maps
ToMaps: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Explanations:
    """Heatmaps and occlusion maps of both models, each image explained once.

    Both explain A's answer: they have to be of one class to be alike.

    Args:
        models: "A", "B" and perhaps "ceiling".
        images: all of them.
        targets: A's answers, int (N,).
    """

    def __init__(self, models: dict[str, OpenedModel], images: ComparedImages, targets: np.ndarray):
        self.models = models
        self.images = images
        self.targets = targets
        self.order = np.random.default_rng(0).permutation(len(images))
        self.made: set[str] = set()
        self.drawn: dict[tuple[str, str, int], np.ndarray] = {}

    def row(self, row_id: str, limit: int, bound: float) -> Row:
        """The measure over a fixed random sample of the images.

        Args:
            row_id: ``map`` or ``occlusion``.
            limit: largest number of images, 1 or more.
            bound: the smallest correlation that counts as kept.
        """
        sample = np.sort(self.order[:limit])
        if row_id == "map":
            for name in ("A", "B"):
                if self.models[name].draw is None:
                    why = f"{name} cannot be explained: {self.models[name].map_layer}"
                    return untold(row_id, "correlation", bound, why, absent=True)
        try:
            maps = self.of(row_id, sample)
        except SwysError as error:
            return untold(row_id, "correlation", bound, str(error))
        self.made.add(row_id)
        return maps_row(row_id, maps, self.targets[sample], bound)

    def of(self, row_id: str, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Maps of some images.

        Args:
            row_id: ``map`` or ``occlusion``.
            indices: positions, int (n,).

        Returns:
            Name of the model -> signed maps, float (n, gh, gw); none where it cannot be done.

        Raises:
            SwysError: a map cannot be made.
        """
        models = dict(self.models)
        if row_id == "map":
            models = {name: model for name, model in models.items() if model.draw is not None}
        self._draw(row_id, models, indices)
        maps = {}
        for name in models:
            maps[name] = np.stack([self.drawn[row_id, name, int(index)] for index in indices])
        return maps

    def _draw(self, row_id: str, models: dict[str, OpenedModel], indices: np.ndarray) -> None:
        """Make the maps that are not there yet, some images at a time."""
        missing = [index for index in indices if (row_id, "A", int(index)) not in self.drawn]
        title = "heatmaps" if row_id == "map" else "occlusion"
        started = time.monotonic()
        with tqdm(total=len(missing), desc=title, leave=False, disable=None) as progress:
            for start in range(0, len(missing), AT_ONCE):
                some = np.array(missing[start : start + AT_ONCE])
                pictures = self.images.pictures[some]
                for name, model in models.items():
                    make = (
                        model.maps
                        if row_id == "map"
                        else _hide_patches(model, self.images.multi_label)
                    )
                    for index, values in zip(some, make(pictures, self.targets[some])):
                        self.drawn[row_id, name, int(index)] = values
                progress.update(len(some))
                if start == 0:
                    _say_how_long(title, len(missing), time.monotonic() - started)


def _say_how_long(title: str, images: int, seconds: float) -> None:
    """A line where no progress bar is shown and the rest takes longer than half a minute.

    Args:
        title: what is made.
        images: how many in all.
        seconds: that the first ``AT_ONCE`` of them took.
    """
    left = seconds * max(images - AT_ONCE, 0) / AT_ONCE
    if left > 30 and not sys.stderr.isatty():
        print(f"{title}: {images} images, about {left / 60:.0f} more min", file=sys.stderr)


def _hide_patches(model: OpenedModel, multi_label: bool) -> ToMaps:
    """What makes the occlusion maps of a model, which needs its answers only."""

    def maps(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        is_grey = images.ndim == 3

        def scores(pixels) -> np.ndarray:
            values = ((pixels + 1) * 127.5).round().clamp(0, 255)
            pictures = values.byte().permute(0, 2, 3, 1).cpu().numpy()
            return model.scores(pictures[..., 0] if is_grey else pictures)

        return occlusion(scores, images, targets, multi_label=multi_label)

    return maps
