"""Train the demo's two small models: one that is honest, and one that reads a planted mark.

Run from the repository's root, with the images in SWYS_DATA_DIR. Both are trained by one recipe on
the same images from the same initial weights; only the mark tells them apart. They go into
site/demo_models/, each with a card that says how it was made and what it scores.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

from swys_studies.planted import MARKS, TEST_SEED
from swys_studies.planted_measures import scores
from swys_utils.config import PROJECT_ROOT, SwysError, write_json
from swys_utils.data import Dataset, load_dataset
from swys_utils.models import count_parameters, load_checkpoint, save_checkpoint
from swys_utils.planted import Mark, plant
from swys_utils.recipe import Recipe
from swys_utils.training import build, fit, predict, run_card
from swys_utils.views import Augmentation

FOLDER = PROJECT_ROOT / "site" / "demo_models"
MARK = MARKS["corner"]
TRAINED_WITH: dict[str, Mark | None] = {"small_x": None, "small_y": MARK}
GEOMETRY = {"depth": 4, "embed_dim": 96, "num_heads": 3}
# No view mirrors, turns or shifts an image: that would move the mark.
RECIPE = Recipe(
    epochs=12,
    batch_size=64,
    warmup_epochs=1,
    augmentation=Augmentation(jitter=0.2),
    drop_path=0.0,
)


def main() -> int:
    """Train both models, and write them.

    Returns:
        The exit code.
    """
    try:
        data = load_dataset("pneumoniamnist", download=False)
        if data.info.synthetic:
            raise SwysError("the demo's models need the real images; set SWYS_DATA_DIR")
        for name, mark in TRAINED_WITH.items():
            train(data, mark, FOLDER / name)
    except SwysError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def train(data: Dataset, mark: Mark | None, folder: Path) -> dict:
    """Train one model, and store it with its scores.

    Args:
        data: clean images.
        mark: what is planted in the training images; None: nothing.
        folder: where the checkpoint goes.

    Returns:
        The card.
    """
    shown = data
    if mark is not None:
        shown = replace(data, train=plant(data.train, mark).split)
    model = build("vit_tiny", data, RECIPE, **GEOMETRY)
    state = fit(model, shown, RECIPE, device="cpu")
    card = run_card(data, asdict(RECIPE), 0, state.history)
    card["model"] = "vit_tiny"
    card["mark"] = asdict(mark) if mark else None
    card["note"] = "of the demo; made by: python site/train_demo_models.py"
    card = save_checkpoint(model, folder, card)
    stored, _ = load_checkpoint(folder)
    measured = scores(
        lambda images: predict(stored, images), data.test, MARK, data.info.task, TEST_SEED
    )
    card["stored"] |= {"split": "test", "n": len(data.test), "with_mark": measured}
    write_json(folder / "card.json", card)
    parameters = f"{count_parameters(model) / 1e6:.2f} M parameters"
    print(f"{folder.name}: {parameters}, {state.history[-1]['seconds']:.0f} s, {measured}")
    return card


if __name__ == "__main__":
    sys.exit(main())
