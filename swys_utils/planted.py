"""Planted evidence: a mark that goes with a class in training, so that the truth is known.

A model that has learned to read the mark answers by it. Images where the mark sits on the *other*
classes show that, and where the mark is, a true map has to point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .config import SwysError, unknown
from .splits import Split, has_class

PLACES = {  # row and column of its upper left corner in an image of 28 px
    "corner": (2, 2),
    "inside": (15, 8),
    "random": None,  # another place in each image
    "texture": (0, 0),  # the whole image
    "two corners": (2, 2),  # and once more, in the opposite corner
}
SETS = ("as trained", "clean", "swapped", "everywhere")


@dataclass(frozen=True)
class Mark:
    """What is planted. With ``share`` equal to ``elsewhere`` it means nothing.

    Attributes:
        target: the class that it goes with.
        place: a key of ``PLACES``. A texture is a grain of black and white cells; any other mark is
            a white ring around a black centre, or two of them.
        share: of the images of that class that get it in training, from 0 to 1.
        elsewhere: the same of all other images.
        strength: its opacity, from 0 to 1.
        size: width of the ring in an image of 28 px, from 3 to 12; a texture has none.

    Raises:
        SwysError: an unknown place, or a number outside its range.
    """

    target: int = 1
    place: str = "corner"
    share: float = 0.9
    elsewhere: float = 0.02
    strength: float = 1.0
    size: int = 3

    def __post_init__(self):
        if self.place not in PLACES:
            raise SwysError(unknown("place of a mark", self.place, PLACES))
        if self.target < 0:
            raise SwysError(f"target of a mark is {self.target}; give a class, from 0")
        if not 3 <= self.size <= 12:
            raise SwysError(f"a mark of {self.size} px; give 3 to 12, of an image of 28 px")
        for name in ("share", "elsewhere", "strength"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise SwysError(f"{name} of a mark is {value}; give 0 to 1")

    def pattern(self, side: int) -> np.ndarray:
        """What is drawn into an image of a side in px: float (h, w), from 0, black, to 255."""
        scale = max(1, side // 28)
        cells = np.full((self.size, self.size), 255.0)
        cells[1:-1, 1:-1] = 0
        if self.place == "texture":
            cells = 255 * np.random.default_rng(0).integers(0, 2, (side, side)).astype(float)
        return np.kron(cells, np.ones((scale, scale)))[:side, :side]


class Planted(NamedTuple):
    """Images with a mark in some of them.

    Attributes:
        split: the images and their labels.
        mask: the pixels of the mark, bool (N, H, W).
    """

    split: Split
    mask: np.ndarray


def plant(split: Split, mark: Mark, seed: int = 0, where: str = "as trained") -> Planted:
    """Draw a mark into images.

    Args:
        split: the images, uint8 (N, S, S) or (N, S, S, 3), are left as they are.
        mark: what is drawn.
        seed: of the images that get it, and of random places.
        where: "as trained", with the mark's shares; "clean", nowhere; "swapped", on all images but
            those of its class; "everywhere", on all.

    Returns:
        The images and where their marks are: an image without one has a mask of False.

    Raises:
        SwysError: an unknown ``where``, images that are too small for the mark, or, where an image
            has several labels, a target that is none of them.
    """
    if where not in SETS:
        raise SwysError(unknown("set of marked images", where, SETS))
    rng = np.random.default_rng(seed)
    of_class = has_class(split, mark.target)
    chances = {
        "as trained": np.where(of_class, mark.share, mark.elsewhere),
        "clean": np.zeros(len(split)),
        "swapped": ~of_class,
        "everywhere": np.ones(len(split)),
    }
    marked = rng.random(len(split)) < chances[where]
    images = np.array(split.images)
    side = images.shape[1]
    pattern = mark.pattern(side)
    height, width = pattern.shape
    places = _places(mark, len(split), side, height, rng)
    mask = np.zeros(images.shape[:3], dtype=bool)
    for index in np.flatnonzero(marked):
        for row, column in places[index]:
            mask[index, row : row + height, column : column + width] = True
            region = images[index, row : row + height, column : column + width]
            drawn = pattern if region.ndim == 2 else pattern[..., None]
            region[:] = np.rint((1 - mark.strength) * region + mark.strength * drawn)
    return Planted(Split(images, split.labels), mask)


def _places(mark: Mark, count: int, side: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Row and column of the upper left corner of each ring: int (count, rings, 2).

    Args:
        mark: what is drawn.
        count: how many images there are.
        side: of an image, px.
        height: of the pattern, px.
        rng: of random places.

    Raises:
        SwysError: the images are too small for the mark.
    """
    place = PLACES[mark.place]
    corner = 0 if place is None else max(place) * side // 28
    if corner + mark.size > side:
        raise SwysError(f"a mark of {mark.size} px does not fit images of {side}; enlarge them")
    last = side - height  # the lowest row, and the rightmost column
    if place is None:
        return rng.integers(0, last + 1, (count, 1, 2))
    first = np.multiply(place, side) // 28
    of_each = [first, last - first] if mark.place == "two corners" else [first]
    return np.tile(of_each, (count, 1, 1))


class Found(NamedTuple):
    """Whether maps point at a mark.

    Attributes:
        hits: the pointing game (Zhang et al. 2018): the hottest patch touches the mark, bool (N,);
            False for a map without a positive value; where several are hottest, all have to.
        heat: share of the positive values on patches that touch it, float (N,), nan without any.
        chance: share of the patches that touch it, float (N,): what both are by chance; for hits,
            times the share of maps that are not blank.
    """

    hits: np.ndarray
    heat: np.ndarray
    chance: np.ndarray


def found(maps: np.ndarray, mask: np.ndarray) -> Found:
    """Measure how maps point at planted evidence.

    Args:
        maps: numbers (N, gh, gw).
        mask: the pixels of the mark, bool (N, H, W), as ``plant`` returns it.

    Raises:
        SwysError: not as many maps as masks.
    """
    if len(maps) != len(mask):
        counts = f"{len(maps)} maps and {len(mask)} masks"
        raise SwysError(f"{counts}; give both of the same images")
    touched = _touched(mask, maps.shape[1:]).reshape(len(maps), -1)
    values = np.maximum(maps, 0.0).reshape(len(maps), -1)
    hottest = values == values.max(axis=1, keepdims=True)
    none_beside_it = (touched | ~hottest).all(axis=1)
    hits = none_beside_it & (values.max(axis=1) > 0)
    total = values.sum(axis=1)
    total[total == 0] = np.nan
    heat = (values * touched).sum(axis=1) / total
    return Found(hits, heat, touched.mean(axis=1))


def _touched(mask: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Which patches have a pixel of the mark: bool (N, gh, gw)."""
    height, width = mask.shape[1:]
    row_of = np.arange(height) * grid[0] // height  # of patches, for each row of pixels
    column_of = np.arange(width) * grid[1] // width
    image, row, column = np.nonzero(mask)
    touched = np.zeros((len(mask), *grid), dtype=bool)
    touched[image, row_of[row], column_of[column]] = True
    return touched
