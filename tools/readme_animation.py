"""Draw the README's animation: the slider of notebook 4 moves through X-rays, with two rulers.

Run from the repository's root, with the images in SWYS_DATA_DIR. Base is asked with hidden patches,
which takes about a minute.
"""

import io
import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from swys_figures.data import show_image
from swys_studies.reference import study_data
from swys_utils.browser import PREDICTED, Explained
from swys_utils.config import SwysError
from swys_utils.gradcam import METHODS
from swys_utils.models import SERIES, load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "notebooks" / "images" / "slider.gif"
NAMES = ("vit_base", "vit_tiny", "vit_tiny_maps")
LOOKED_AT = 16
SHOWN = 6
MILLISECONDS = 1400  # of a frame


def main() -> None:
    """Draw the frames and write them as one file."""
    data = study_data("pneumoniamnist")  # the real images
    models = {SERIES[name].title: load_checkpoint(f"pneumoniamnist/{name}")[0] for name in NAMES}
    explained = Explained(models, data.test, data.info.class_names, LOOKED_AT, "grad_cam")
    chosen = explained.informative()[:SHOWN]
    frames = []
    for place, index in enumerate(chosen):
        for method in ("grad_cam", "occlusion"):
            explained.method = method
            figure = frame(explained, int(index), place, METHODS[method].title)
            frames.append(as_image(figure))
    first, *others = frames
    first.save(PATH, save_all=True, append_images=others, duration=MILLISECONDS, loop=2)


def frame(explained: Explained, index: int, place: int, title: str) -> Figure:
    """One position of the slider: the X-ray, and what each model's map marks.

    Args:
        explained: images, models and the method of explaining.
        index: of the image.
        place: of the slider's handle, from 0.
        title: of the method.
    """
    figure = Figure(figsize=(7.6, 3), layout="constrained")
    grid = figure.add_gridspec(2, 1 + len(explained.models), height_ratios=[9, 1])
    pictures = explained.pictures(index, PREDICTED, "model", 0.7)
    texts = explained.texts(index, PREDICTED)
    for column, (picture, lines) in enumerate(zip(pictures, texts)):
        ax = figure.add_subplot(grid[0, column])
        show_image(ax, picture)
        name = lines[0] if column else "X-ray"
        shade = explained_colour(lines[0])
        ax.set_title(f"{name}\n{lines[1]}", fontsize=9, color=shade)
        if column:
            peak = lines[4]  # "peak 0.004", or that the map is empty
            ax.set_xlabel(f"{title}\n{peak}", fontsize=9)
    bar = figure.add_subplot(grid[1, :])
    bar.plot([0, SHOWN - 1], [0, 0], color="#BBBBBB", lw=4, solid_capstyle="round")
    bar.plot(place, 0, "o", ms=12, color="black")
    bar.set(xlim=(-0.3, SHOWN - 0.7), yticks=[], xticks=[], frame_on=False)
    return figure


def explained_colour(title: str) -> str:
    """The colour of a model of the series; black for another title."""
    shades = [model.colour for model in SERIES.values() if model.title == title]
    return shades[0] if shades else "black"


def as_image(figure: Figure) -> Image.Image:
    """A figure as a picture of few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    picture = Image.open(buffer).convert("RGB")
    return picture.quantize(256, method=Image.Quantize.MAXCOVERAGE)  # keeps the few colours of text


if __name__ == "__main__":
    try:
        main()
    except SwysError as error:
        sys.exit(f"readme_animation: {error}")
