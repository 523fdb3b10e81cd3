"""A row of a comparison: what is measured, what it means, the figure, the bound, the verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .verdicts import CANNOT_TELL, UNKNOWN, Estimate

# what each measure means, and the notebook that explains it
MEANINGS = {
    "accuracy": (
        "Accuracy",
        "How many more of the same images A gets right than B, in points of a hundred.",
        "06_benchmark.ipynb",
    ),
    "auc": (
        "AUC",
        "How much better A ranks images by class than B does, whatever the threshold.",
        "02_train_base.ipynb",
    ),
    "calibration": (
        "Calibration",
        "How much farther B's confidence is from how often it is right (expected calibration"
        " error).",
        "03_train_tiny.ipynb",
    ),
    "agreement": (
        "Same answers",
        "The share of the images that both models give the same answer, right or wrong.",
        "05_distillation.ipynb",
    ),
    "errors": (
        "New errors",
        "The share of the images that A gets right and B gets wrong (negative flips).",
        "06_benchmark.ipynb",
    ),
    "class": (
        "Worst class",
        "The most that any one class loses: of its images, how many more A gets right than B.",
        "extras/09_many_classes.ipynb",
    ),
    "map": (
        "Heatmaps",
        "How alike the two Grad-CAM maps of an image rank its patches: what the models mark.",
        "04_gradcam.ipynb",
    ),
    "occlusion": (
        "Occlusion",
        "How alike the two models suffer when a patch is hidden: what the answers rest on.",
        "extras/07_is_the_map_true.ipynb",
    ),
    "speed": (
        "Speed",
        "The time that B needs for one image, as a multiple of A's, timed in turns.",
        "06_benchmark.ipynb",
    ),
    "size": (
        "Size",
        "The bytes of B's weights as they are stored, as a multiple of A's.",
        "06_benchmark.ipynb",
    ),
}


@dataclass(frozen=True)
class Row:
    """One measure of a comparison.

    Attributes:
        id: its name in JSON.
        verdict: ``kept``, ``lost`` or ``cannot tell``.
        estimate: the figure and its interval, in the unit.
        unit: ``points``, ``share``, ``correlation``, ``error`` or ``times``.
        bound: what it has to stay within.
        a: A's own figure, as text.
        b: B's own figure, as text.
        images: number of images behind it.
        chance: the same between images of one answer; None where it has no meaning.
        ceiling: the same between A and the second A; None without one.
        subject: name of the class that the figure is about; empty where it is about all images.
        note: what else there is to say; why nothing can be told.
        remedy: what would make it tell, where that is not more images.
        absent: whether these models or images do not have what it measures.
    """

    id: str
    verdict: str
    estimate: Estimate
    unit: str
    bound: float
    a: str = ""
    b: str = ""
    images: int = 0
    chance: float | None = None
    ceiling: float | None = None
    subject: str = ""
    note: str = ""
    remedy: str = ""
    absent: bool = False

    @property
    def title(self) -> str:
        """Its name in tables."""
        return MEANINGS[self.id][0]

    @property
    def meaning(self) -> str:
        """What it means, in one sentence."""
        return MEANINGS[self.id][1]

    @property
    def notebook(self) -> str:
        """The notebook that explains it, below ``notebooks/``."""
        return MEANINGS[self.id][2]

    @property
    def measured(self) -> bool:
        """Whether there is a figure."""
        return not np.isnan(self.estimate.value)


def untold(row_id: str, unit: str, bound: float, why: str, absent: bool = False) -> Row:
    """A measure that could not be made.

    Args:
        row_id: a key of ``MEANINGS``.
        unit: as in `Row`.
        bound: as in `Row`.
        why: the reason, in one line.
        absent: as in `Row`.

    Returns:
        The row; its verdict is ``cannot tell``.
    """
    return Row(row_id, CANNOT_TELL, UNKNOWN, unit, bound, note=why, absent=absent)
