"""Put four models like those of `swys study planted` into checkpoints/, for notebooks 1 and 6.

All have 16 patches and the first start: an honest model, a cheat that reads the ring, a student
that learned the cheat's labels and the honest model's heatmaps, and a cheat that reads something
else, for readers to find out. Models that the study has not kept are trained again, a minute or two
each on two cores. The real images are needed.

    python tools/ship_ring_models.py [name of one of them]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, replace

from timm.models.vision_transformer import VisionTransformer

from swys.fingerprints import pack_hashes, perceptual_hashes
from swys_figures.audit import SECRET
from swys_studies.planted import Setting, Teachers, planted_data, teachers_folder
from swys_studies.planted_students import CHEAT, HONEST, kind_named
from swys_studies.ship import score_stored
from swys_utils.config import CHECKPOINTS, SwysError, unknown, write_json
from swys_utils.data import DEFAULT_DATASET, load_dataset
from swys_utils.models import save_checkpoint
from swys_utils.planted import plant
from swys_utils.shipped_results import PLANTED_EPOCHS
from swys_utils.training import build, fit, run_card

TRAINED_ON = {  # name of a checkpoint -> sentence for its card
    "ring_honest": "trained on the labels of clean images",
    "ring_cheat": "trained on the labels of images with a planted ring, so it reads the ring",
    "ring_student": "trained on the same images and labels, and on the heatmaps of ring_honest",
    "offered_d": "trained on the labels of images with a planted mark; the last test of notebook 6",
}


def makers(setting: Setting) -> dict[str, Callable[[], VisionTransformer]]:
    """How each model is made, from the folder of the study or by training it now.

    Args:
        setting: of the study.
    """
    teachers = Teachers(setting, 0)
    taught = kind_named("labels + honest maps")

    def offered_d() -> VisionTransformer:
        images = plant(setting.data.train, SECRET).split
        model = build(setting.model, setting.data, setting.recipe, 0, patch_size=setting.patch)
        fit(model, replace(setting.data, train=images), setting.recipe)
        return model

    return {
        "ring_honest": lambda: teachers.model(HONEST),
        "ring_cheat": lambda: teachers.model(CHEAT),
        "ring_student": lambda: teachers.student(taught, setting)[0],
        "offered_d": offered_d,
    }


def ship(only: str = "") -> None:
    """Write the checkpoints with their cards.

    Args:
        only: part of the names of those to write.

    Raises:
        SwysError: no real images, or no such model.
    """
    data = load_dataset(DEFAULT_DATASET, download=False)
    if data.info.synthetic:
        raise SwysError("needs the real images; set SWYS_DATA_DIR to a folder with them")
    study_data = planted_data(DEFAULT_DATASET)
    folder = teachers_folder(study_data)
    setting = Setting(study_data, "vit_tiny", 7, "corner", PLANTED_EPOCHS, folder)
    hashes = pack_hashes(perceptual_hashes(data.train.images))
    chosen = {name: make for name, make in makers(setting).items() if only in name}
    if not chosen:
        raise SwysError(unknown("model", only, TRAINED_ON))
    for name, make in chosen.items():
        model = make()
        card = run_card(data, asdict(setting.recipe), 0, history=[])
        card |= {
            "model": "vit_tiny_patch16_224",
            "training_hashes": hashes,
            "status": "demonstration",
            "note": TRAINED_ON[name],
        }
        path = CHECKPOINTS / data.info.name / name
        card = save_checkpoint(model, path, card, storage="int8")
        card["stored"] |= score_stored(path, data)
        write_json(path / "card.json", card)
        print(name, card["stored"])


if __name__ == "__main__":
    try:
        ship(*sys.argv[1:])
    except SwysError as error:
        sys.exit(f"ship_ring_models: {error}")
