"""Draw the README's picture: what three models mark in X-rays, and what their answers rest on.

Run from the repository's root, with the images in SWYS_DATA_DIR. The images are those of the test
split to which all three models give the same answer, the strongest maps first.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from swys_figures.data import show_image
from swys_figures.heatmaps import same_answers
from swys_utils.data import load_dataset
from swys_utils.gradcam import heatmaps, overlay
from swys_utils.models import SERIES, load_checkpoint
from swys_utils.training import predict

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "notebooks" / "images" / "where_it_looks.png"
NAMES = ("vit_base", "vit_tiny", "vit_tiny_maps")
SHOWN = 3
LOOKED_AT = 48
METHODS = {"grad_cam": "Grad-CAM marks", "occlusion": "rests on"}


def main() -> None:
    """Draw the picture and write it."""
    data = load_dataset("pneumoniamnist", download=False)
    test = data.test.head(LOOKED_AT)
    models = {name: load_checkpoint(f"pneumoniamnist/{name}")[0] for name in NAMES}
    answers = {name: predict(model, test.images).argmax(axis=1) for name, model in models.items()}
    signed = {name: heatmaps(model, test.images, signed=True) for name, model in models.items()}
    chosen = same_answers(answers, signed)[:SHOWN]
    images = test.images[chosen]
    figure, axes = plt.subplots(SHOWN, 7, figsize=(10.5, 5.4), layout="constrained")
    for ax, image in zip(axes[:, 0], images):
        show_image(ax, image)
    axes[0, 0].set_title("X-ray", fontsize=11)
    column = 1
    for name, model in models.items():
        for method, words in METHODS.items():
            maps = heatmaps(model, images, method, answers[name][chosen])
            model_title = SERIES[name].title.replace(", ", ",\n").replace(" + ", "\n+ ")
            title = f"{model_title}:\n{words}"
            _draw(axes[:, column], images, maps, title, SERIES[name].colour)
            column += 1
    figure.savefig(PATH, dpi=110)


def _draw(
    column: np.ndarray, images: np.ndarray, maps: np.ndarray, title: str, colour: str
) -> None:
    """Draw one method of one model over all images."""
    column[0].set_title(title, color=colour, fontsize=10)
    for ax, picture in zip(column, overlay(images, maps, alpha=0.7, size=112)):
        show_image(ax, picture)


if __name__ == "__main__":
    main()
