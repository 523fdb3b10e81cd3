"""Draw notebooks/images/worn_map.png: a cheat's heatmap, its student's, and their honest teacher's.

The models are those of one row of the table in notebook 5 (`swys study planted --patch 4`): a seed
in which Grad-CAM finds the ring in the cheat. The images are the first of the test split. It needs
the real images and about five minutes on two cores.

    python tools/worn_map.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from swys_figures.planted import found_figure
from swys_studies.planted import MARKS, Setting, Teachers, planted_data
from swys_studies.planted_measures import ruler_maps
from swys_studies.planted_students import CHEAT, HONEST, KINDS
from swys_studies.runs import RUNS
from swys_utils.config import SwysError
from swys_utils.plots import use_style

PICTURE = Path(__file__).resolve().parents[1] / "notebooks" / "images" / "worn_map.png"
SEED = 3  # row 4 of the table
IMAGES = 4


def draw(dataset: str = "pneumoniamnist") -> None:
    """Train the student, and the teachers where they are not kept, and write the picture.

    Args:
        dataset: name of the data set.
    """
    folder = RUNS / "planted" / dataset
    data = planted_data(dataset)
    setting = Setting(data, "vit_tiny", patch=4, mark="corner", epochs=2, folder=folder)
    teachers = Teachers(setting, SEED)
    taught = next(kind for kind in KINDS if kind.id == "labels + honest maps")
    student, _ = teachers.student(taught)
    target = MARKS[setting.mark].target
    of_student = ruler_maps(student, teachers.explained, target)
    rows = {
        "cheat,\nGrad-CAM": teachers.maps(CHEAT)["grad_cam"],
        "honest teacher,\nGrad-CAM": teachers.maps(HONEST)["grad_cam"],
        "its student,\nGrad-CAM": of_student["grad_cam"],
        "honest teacher,\nhiding": teachers.maps(HONEST)["occlusion"],
        "its student,\nhiding": of_student["occlusion"],
    }
    shown = {name: maps[:IMAGES] for name, maps in rows.items()}
    use_style()
    images = teachers.explained.split.images[:IMAGES]
    figure = found_figure(images, teachers.explained.mask[:IMAGES], shown)
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    try:
        draw()
    except SwysError as error:
        sys.exit(f"worn_map: {error}")
