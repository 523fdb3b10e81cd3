"""A slider of bits: what rounding leaves of a model's answers, reasons and maps."""

from __future__ import annotations

from functools import partial

import ipywidgets as widgets
import numpy as np
from timm.models.vision_transformer import VisionTransformer

from swys_utils.explain import agreement_beyond_chance
from swys_utils.gradcam import heatmaps
from swys_utils.occlusion import occlusion
from swys_utils.training import predict

from .benchmark import rounded_model, rounded_to
from .html_tables import html_table


class BitsDial(widgets.VBox):
    """A number of bits to move, what it leaves of a few weights, and of the model.

    Args:
        model: all of its matrices are rounded, each row with a scale of its own.
        images: uint8 (N, H, W) or (N, H, W, 3).
        explained: of how many of the images reasons and maps are compared.
        multi_label: as for ``occlusion.occlusion``.

    Attributes:
        bits: of each weight; 8 at first.
        shown: what they do, as ``row`` returns it.
        table: the same to look at.
    """

    def __init__(
        self,
        model: VisionTransformer,
        images: np.ndarray,
        explained: int = 16,
        multi_label: bool = False,
    ):
        self.model = model
        self.images = images
        self.explained = images[:explained]
        self.answers = predict(model, images).argmax(axis=1)
        asked = self.answers[:explained]
        self._hide = partial(occlusion, targets=asked, multi_label=multi_label)
        self._mark = partial(heatmaps, targets=asked, signed=True)
        self._alike = partial(agreement_beyond_chance, classes=asked)
        self.reasons = self._hide(model, self.explained)
        self.maps = self._mark(model, self.explained)
        self.bits = widgets.IntSlider(
            8,
            min=2,
            max=8,
            description="bits",
            continuous_update=False,  # each value costs hundreds of answers
        )
        self.table = widgets.HTML()
        super().__init__([self.bits, self.table])
        self.bits.observe(self._show, "value")
        self._show()

    def row(self) -> dict[str, str]:
        """Three weights as they are restored, and what the rounded model has kept.

        Reasons (by hiding) and maps (Grad-CAM, signed) are those of the whole model's answer, and
        are compared by ``agreement_beyond_chance``, within the answers.
        """
        bits = self.bits.value
        small = rounded_model(self.model, rounded_to, bits)
        restored = small.blocks[0].mlp.fc1.weight[0, :3].tolist()
        changed = predict(small, self.images).argmax(axis=1) != self.answers
        same_reasons = self._alike(self.reasons, self._hide(small, self.explained))
        same_maps = self._alike(self.maps, self._mark(small, self.explained))
        return {
            "bits": str(bits),
            "three weights": ", ".join(f"{weight + 0:.4f}" for weight in restored),  # no -0
            "answers changed": f"{changed.sum()} of {len(changed)}",
            "same reasons": f"{same_reasons:.0%}",
            "same map": f"{same_maps:.0%}",
        }

    def _show(self, change: dict | None = None) -> None:
        self.shown = self.row()
        self.table.value = html_table([self.shown])

    def __repr__(self) -> str:
        return f"Slider: {self.bits.value} bits (run it to move it)"
