"""Shipped models to be examined, some of which read a planted mark: notebooks 1 and 6.

The models read X-rays. Where the lesson has another data set, they are shown the drawn stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from timm.models.vision_transformer import VisionTransformer

from swys_utils.config import SwysError
from swys_utils.data import DEFAULT_DATASET, TWIN, Dataset
from swys_utils.explain import agreement_beyond_chance
from swys_utils.gradcam import heatmaps, overlay
from swys_utils.metrics import probabilities
from swys_utils.models import load_checkpoint
from swys_utils.occlusion import occlusion
from swys_utils.planted import Mark, Planted, found, plant
from swys_utils.splits import TWIN_SOURCE, has_class
from swys_utils.training import predict

from .data import show_image
from .dials import PatchCover

# `tools/ship_ring_models.py` made them; how each was trained stands on its card
OFFERED = {"A": "ring_cheat", "B": "ring_honest", "C": "ring_student", "D": "offered_d"}
RING = Mark(target=1, place="corner", share=0.9, elsewhere=0.02)
# what model D reads: a reader who looks here has solved the last question of notebook 6
SECRET = Mark(target=1, place="inside", share=0.9, elsewhere=0.02, strength=0.2)
FILMS = 64  # so many get a map


def load_offered(letter: str) -> VisionTransformer:
    """One of the four models.

    Args:
        letter: "A", "B", "C" or "D".
    """
    model, _ = load_checkpoint(f"{DEFAULT_DATASET}/{OFFERED[letter]}")
    return model


def x_rays(data: Dataset) -> Dataset:
    """The data if they are X-rays of 28 px, else the drawn stand-in for them, and a line says so.

    Args:
        data: of the lesson.
    """
    if data.info.name == DEFAULT_DATASET and data.info.size == 28:
        return data
    print("These models read X-rays, so drawn ones are shown here.")
    drawn = Dataset.from_npz(TWIN, class_names=("normal", "pneumonia"))
    return replace(drawn, info=replace(drawn.info, source=TWIN_SOURCE))


def turned_child(
    data: Dataset, model: VisionTransformer, number: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A healthy test image that the ring clearly turns, without the ring and with it.

    Args:
        data: X-rays.
        model: says "sick" with less than 10 % without the ring, and with more than 90 % with it.
        number: of the image among those that it turns so, from 0; where it turns fewer, the image
            with this number among all healthy ones is taken.

    Returns:
        Two images, uint8 (28, 28).
    """
    of_healthy = np.flatnonzero(~has_class(data.test, RING.target))
    healthy = data.test.take(of_healthy[:100])
    ringed = plant(healthy, RING, where="everywhere").split
    before = chance_of_pneumonia(model, healthy.images)
    after = chance_of_pneumonia(model, ringed.images)
    turned = np.flatnonzero((before < 0.1) & (after > 0.9))
    chosen = turned[number] if number < len(turned) else number
    return healthy.images[chosen], ringed.images[chosen]


def chance_of_pneumonia(model: VisionTransformer, images: np.ndarray) -> np.ndarray:
    """Probability of pneumonia, float (N,).

    Args:
        model: of X-rays.
        images: uint8 (N, 28, 28).
    """
    return probabilities(predict(model, images), "binary-class")[:, RING.target]


def cover_the_corner(data: Dataset) -> PatchCover:
    """Another healthy child than that of the picture above it, with the ring and without it.

    Args:
        data: of the lesson.
    """
    model = load_offered("A")
    films = x_rays(data)
    plain, ringed = turned_child(films, model, number=1)
    pictures = {"with nine pixels": ringed, "without them": plain}
    return PatchCover({"the model": model}, films, pictures)


class Offer:
    """What a firm says of three models, and what its customer can find out.

    Args:
        data: of the lesson.

    Attributes:
        models: letter -> model.
        films: the firm's test images, most of the sick ones with a ring.
    """

    def __init__(self, data: Dataset):
        self.data = x_rays(data)
        self.models = {letter: load_offered(letter) for letter in "ABC"}
        self.films: Planted = plant(self.data.test, RING, seed=1, where="as trained")

    def scores(self) -> list[dict[str, str | float]]:
        """What the firm measured on its own films: a row for each model."""
        films = self.films.split
        sick = has_class(films, RING.target)
        rows: list[dict[str, str | float]] = []
        for letter, model in self.models.items():
            p = chance_of_pneumonia(model, films.images)
            right = (p > 0.5) == sick
            row: dict[str, str | float] = {
                "model": letter,
                "right": f"{right.mean():.0%}",
                "AUC": float(roc_auc_score(sick, p)),
            }
            rows.append(row)
        return rows

    def brochure(self) -> Figure:
        """Heatmaps of three sick children as firms print them: smooth, each on its own scale."""
        has_ring = self.films.mask.any(axis=(1, 2))
        sick = np.flatnonzero(has_class(self.films.split, RING.target) & has_ring)
        images = self.films.split.images[sick[:FILMS]]
        maps = self._maps(images)
        peaks = [of_model.max(axis=(1, 2)) for of_model in maps.values()]
        weakest = np.min(peaks, axis=0)  # of an image; none of the three should be empty
        chosen = np.sort((-weakest).argsort()[:3])
        figure, axes = plt.subplots(len(maps), 3, figsize=(6, 2 * len(maps)))
        figure.set_layout_engine("constrained")
        figure.suptitle("the firm's brochure: three sick children", fontsize=11)
        for row, (letter, of_model) in zip(axes, maps.items()):
            row[0].set_ylabel(f"model {letter}", fontsize=11)
            pictures = overlay(images[chosen], of_model[chosen], alpha=0.6, size=224)
            for ax, picture in zip(row, pictures):
                show_image(ax, picture)
        return figure

    def cover(self) -> PatchCover:
        """Two of the firm's films and one that the customer has marked, to cover patches of."""
        plain, ringed = turned_child(self.data, self.models["A"])
        films = self.films.split
        has_ring = self.films.mask.any(axis=(1, 2))
        sick = has_class(films, RING.target) & has_ring
        pictures = {
            "a sick child": films.images[sick.argmax()],
            "a healthy child": plain,
            "the healthy child, with the mark": ringed,
        }
        return PatchCover(self.models, self.data, pictures)

    def verdict(self) -> list[dict[str, str]]:
        """What the customer finds on films without the mark, and with it: a row for each model."""
        test = self.data.test
        sick = has_class(test, RING.target)
        ringed = plant(test, RING, where="everywhere").split
        maps = self._maps(ringed.images[:FILMS])
        rows = []
        for letter, model in self.models.items():
            p = chance_of_pneumonia(model, test.images)
            alarm = p > 0.5
            with_ring = chance_of_pneumonia(model, ringed.images) > 0.5
            alike = agreement_beyond_chance(maps["B"], maps[letter])
            row = {
                "model": letter,
                "right": f"{(alarm == sick).mean():.0%}",
                "AUC": f"{roc_auc_score(sick, p):.3f}",
                "sick found": f"{alarm[sick].mean():.0%}",
                "false alarms": f"{alarm[~sick].mean():.0%}",
                "with the mark": f"{with_ring[~sick].mean():.0%}",
                "heatmap like B's": f"{alike:.0%}",
            }
            rows.append(row)
        return rows

    def _maps(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Letter -> signed Grad-CAM maps of pneumonia, float (N, 4, 4)."""
        maps = {}
        for letter, model in self.models.items():
            maps[letter] = heatmaps(model, images, targets=RING.target, signed=True)
        return maps


class FourthOffer:
    """A model of which nobody says what it reads: the last question of notebook 6.

    Args:
        data: of the lesson.

    Attributes:
        model: model D, with 4 x 4 patches.
        films: test images of its firm.
        sick: which of them are called sick, bool (N,).
    """

    def __init__(self, data: Dataset):
        self.data = x_rays(data)
        self.model = load_offered("D")
        self._planted = plant(self.data.test, SECRET, seed=2, where="as trained")
        self.films = self._planted.split
        self.sick = has_class(self.films, SECRET.target)

    def cover(self) -> PatchCover:
        """Two films of sick children and one of a healthy child, to cover patches of.

        The mark is on the first two. On the first, hiding says that another patch counts most,
        where there is such a film; on the second, that the mark does. The third is the film that
        the model calls healthy most surely.
        """
        marked = self._planted.mask.any(axis=(1, 2))
        sick = np.flatnonzero(self.sick & marked)[:FILMS]
        lost = occlusion(self.model, self.films.images[sick], SECRET.target)
        hits = found(lost, self._planted.mask[sick]).hits
        others = np.flatnonzero(~self.sick & ~marked)
        p = chance_of_pneumonia(self.model, self.films.images[others])
        pictures = {
            "a sick child": self.films.images[sick[hits.argmin()]],
            "another sick child": self.films.images[sick[hits.argmax()]],
            "a healthy child": self.films.images[others[p.argmin()]],
        }
        return PatchCover({"D": self.model}, self.data, pictures)

    def paste(self, row: int, column: int) -> str:
        """Put a patch of twenty sick children's films, in turn, on the films of healthy children.

        Args:
            row: of the patch, from 1 at the top to 4.
            column: of the patch, from 1 at the left to 4.

        Returns:
            A sentence: how many of the healthy children are called sick, before and after.

        Raises:
            SwysError: there is no such patch.
        """
        rows, columns = self.model.patch_embed.grid_size
        if not (1 <= row <= rows and 1 <= column <= columns):
            raise SwysError(f"no patch ({row}, {column}); rows and columns are from 1 to {rows}")
        healthy = self.data.test.take(~has_class(self.data.test, SECRET.target))
        side = self.model.patch_embed.patch_size[0]
        down = slice(row * side - side, row * side)
        across = slice(column * side - side, column * side)
        sick_films = self.films.images[self.sick][:20]
        pasted = np.array(healthy.images)
        for index, image in enumerate(pasted):
            image[down, across] = sick_films[index % len(sick_films)][down, across]
        before = (chance_of_pneumonia(self.model, healthy.images) > 0.5).mean()
        after = (chance_of_pneumonia(self.model, pasted) > 0.5).mean()
        return (
            f"{before:.0%} of {len(healthy)} healthy children are called sick, and {after:.0%} "
            f"with row {row}, column {column} of sick children's films"
        )
