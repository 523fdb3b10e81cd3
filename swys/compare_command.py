"""The command ``swys compare``: what did shrinking your model keep?"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from swys_utils.config import SwysError

from .commands import is_card
from .compared_images import open_images
from .comparison import Effort, measure
from .gates import ASKED_GATES, GATES, exit_code
from .open_model import open_model
from .opened_models import OpenedModel
from .result import Comparison
from .verdicts import Bounds


@dataclass
class Compare:
    """What B kept of A: answers, errors, heatmaps, speed; one verdict each. See swys/COMPARE.md.

    Exit code of the gates: 0 all kept, 1 one lost, 2 one cannot tell, or the comparison failed.

    Args:
        a: a checkpoint, timm:NAME, torchvision:NAME (with ?pretrained or ?weights=FILE),
            local-dir:FOLDER, a Hugging Face folder, or an .onnx file.
        b: what it was made into.
        data: a MedMNIST name, an .npz file, or a folder with a subfolder for each class.
        html: write the report to this file, one page that needs nothing else.
        json: write the same as JSON.
        max_drop: points of accuracy that may be lost; default 1.0.
        min_agreement: share of images that have to keep their answer; default 0.98.
        min_map: rank correlation that heatmaps have to reach; default 0.9.
        min_occlusion: rank correlation that occlusion maps have to reach; default 0.8.
        max_class_drop: points that B may lose on the images of any one class; default 5.0, and a
            gate only where it is given.
        max_ece_rise: by how much the calibration error may rise; default 0.02, as above.
        max_time: of B for an image, as a multiple of A's; default 1.2, as above.
        ceiling: a second A, such as another seed.
        split: which images, where the data has splits: train, val or test.
        size: side of the images, px; default: 28 of MedMNIST, of image files that of the larger
            model's input.
        layer: where Grad-CAM is taken; default: the usual place.
        layer_b: the same for B alone; default: as for A.
        preprocess: how images are given, such as size=224,mean=0.5,std=0.5,crop=1; default: as each
            model's own configuration says.
        preprocess_b: the same for B alone; default: as for A.
        maps: number of images whose heatmaps are compared.
        occlusions: number of images whose occlusion maps are compared.
        shown: largest number of images in the report.
        seconds: for timing both models, about: at least five rounds are made; 0 leaves it out.
    """

    a: str
    b: str
    data: str = ""
    html: str = ""
    json: str = ""
    max_drop: float | None = None
    min_agreement: float | None = None
    min_map: float | None = None
    min_occlusion: float | None = None
    max_class_drop: float | None = None
    max_ece_rise: float | None = None
    max_time: float | None = None
    ceiling: str = ""
    split: str = "test"
    size: int = 0
    layer: str = ""
    layer_b: str = ""
    preprocess: str = ""
    preprocess_b: str = ""
    maps: int = 128
    occlusions: int = 48
    shown: int = 16
    seconds: float = 5.0

    def run(self) -> int:
        """Compare, print the verdicts and the gates, write the reports.

        Returns:
            The exit code.

        Raises:
            SwysError: models or images that cannot be compared.
        """
        self._check_outputs()
        limits = {name: getattr(self, name) for name in GATES | ASKED_GATES}
        asked = {name: limit for name, limit in limits.items() if limit is not None}
        bounds = Bounds(**asked)
        effort = Effort(self.maps, self.occlusions, self.shown, self.seconds)
        images = open_images(self.data, self.split, self.size)
        models = self._models(len(images.class_names))
        for name, model in models.items():
            print(f"{name}: {model.name}, {model.kind}", file=sys.stderr)
            print(f"{name}: reads {model.preprocessing}", file=sys.stderr)
            for note in model.notes:
                print(f"{name}: {note}", file=sys.stderr)
        if not self.size:
            images = images.read_at(max(model.img_size for model in models.values()))
        print(f"{len(images)} images: {images.source}", file=sys.stderr)
        measured = measure(models, images, bounds, effort)
        comparison = Comparison(replace(measured, asked=frozenset(asked)))
        print(comparison)
        gates = comparison.gates
        print("gates")
        for gate in gates:
            print(gate.line)
        for path in (self.html, self.json):
            if path:
                comparison.save(path)
                print(f"wrote {path}", file=sys.stderr)
        return exit_code(gates)

    def _models(self, num_classes: int) -> dict[str, OpenedModel]:
        """A, B, and the second A where there is one."""
        layer_b = self.layer_b or self.layer
        preprocess_b = self.preprocess_b or self.preprocess
        models = {
            "A": open_model(self.a, "", num_classes, self.preprocess, self.layer),
            "B": open_model(self.b, "", num_classes, preprocess_b, layer_b),
        }
        if self.ceiling:
            models["ceiling"] = open_model(
                self.ceiling, "", num_classes, self.preprocess, self.layer
            )
        return models

    def _check_outputs(self) -> None:
        """A SwysError for what can be seen before any work is done."""
        if not self.data:
            raise SwysError(
                "which images? give --data with a folder, an .npz file, or a MedMNIST name such as"
                " pneumoniamnist"
            )
        for option, ending in (("html", ".html"), ("json", ".json")):
            path = getattr(self, option)
            if path and not path.endswith(ending):
                raise SwysError(f"--{option} '{path}' does not end in {ending}; give another name")
        if self.json and is_card(Path(self.json)):
            raise SwysError(f"'{self.json}' is the card of a model; give another name to --json")
