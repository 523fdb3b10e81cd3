"""Planted evidence: which map finds a mark, and which student inherits it? ``swys study planted``.

A mark is planted in the training images of one class. Where it is, is known, so a map can be right
or wrong; and a model that reads it fails where the mark sits on the other classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from swys_utils.config import CHECKPOINTS, SwysError, default_device, device_name, replacing
from swys_utils.data import DEFAULT_DATASET, TWIN, Dataset, load_dataset
from swys_utils.distillation import Teacher
from swys_utils.models import weights_digest
from swys_utils.planted import Mark, Planted, plant
from swys_utils.recipe import Recipe, SupervisedObjective
from swys_utils.shipped_results import PLANTED_EPOCHS
from swys_utils.splits import TWIN_SOURCE
from swys_utils.training import build, fit, predict
from swys_utils.views import Augmentation

from .planted_measures import (
    EXPLAINED,
    compared,
    every_method,
    int8_answers,
    ruler_maps,
    scores,
    singles_against_subsets,
    where_maps_point,
)
from .planted_students import (
    ANOTHER_CHEAT,
    CHEAT,
    HONEST,
    STUDENT_SEEDS,
    UNTRAINED,
    PlantedKind,
    kind_named,
    kinds_for,
)
from .planted_tables import print_tables
from .result_files import Entries, images_digest
from .run_scores import TEST_SAMPLE
from .runs import RUNS, refuse_no_seeds, refuse_outside_clone

MARKS = {
    "corner": Mark(place="corner"),
    "inside": Mark(place="inside"),
    "random": Mark(place="random"),
    "texture": Mark(place="texture", strength=0.06),
    "meaningless": Mark(place="corner", share=0.5, elsewhere=0.5),
    "large": Mark(place="corner", size=7),
    "two": Mark(place="two corners"),  # either ring is enough
}
PARTS_OF_CHEATS = {  # kind of ViT -> what else is measured of it; "methods": of maps, at all blocks
    CHEAT: ("methods", "int8", "subsets"),
    ANOTHER_CHEAT: ("methods",),
}
TEST_SEED = 1  # of the test images that have the mark; no training image is marked by it


@dataclass(frozen=True)
class Setting:
    """What the models of a table share.

    Attributes:
        data: clean images; a few of the validation images, which choose nothing here.
        model: of the series or of timm.
        patch: side of its patches, px.
        mark: a key of ``MARKS``.
        epochs: how long each model is trained.
        folder: where teachers are kept, and locks of models in training.
    """

    data: Dataset
    model: str
    patch: int
    mark: str
    epochs: int
    folder: Path

    @property
    def id(self) -> str:
        """How the ids of its results begin; another length than the usual one is named."""
        length = "" if self.epochs == PLANTED_EPOCHS else f", {self.epochs} epochs"
        return f"{self.model} {self.data.info.size}/{self.patch}, {self.mark}{length}"

    @cached_property
    def digest(self) -> str:
        """Of all that decides a teacher's weights beside its id and seed: images, recipe, mark."""
        train = self.data.train
        images = images_digest(train.images) + images_digest(train.labels)
        identity = f"{images} {self.recipe} {MARKS[self.mark]}"
        return hashlib.sha256(identity.encode()).hexdigest()[:8]

    def path(self, name: str, suffix: str) -> Path:
        """A file of one model.

        Args:
            name: of the model; a slash in it becomes "by".
            suffix: ".safetensors" or ".lock".
        """
        return self.folder / f"{name.replace('/', ' by ')}{suffix}"

    @property
    def recipe(self) -> Recipe:
        """No view mirrors, turns or shifts an image: that would move the mark."""
        return Recipe(
            epochs=self.epochs,
            batch_size=32,
            lr=2e-4 if "base" in self.model else 5e-4,
            warmup_epochs=0.5,
            augmentation=Augmentation(jitter=0.2),
            drop_path=0.0,
        )


def planted(
    dataset: str = DEFAULT_DATASET,
    patch: int = 7,
    mark: str = "corner",
    seeds: int = 6,
    only: str = "",
    epochs: int = PLANTED_EPOCHS,
    model: str = "vit_tiny",
    save_path: str = "",
) -> None:
    """Train cheats, honest models and their students, and measure who reads the mark.

    What is done is skipped; a cheat that lacks one of ``PARTS_OF_CHEATS`` is measured anew.
    Every seed is finished before the next one begins. All seeds see the same marked images. All
    kinds take hours: some learn from a Base.

    Args:
        dataset: any 2D MedMNIST name with one label an image, or "twin".
        patch: side of a ViT's patches, px.
        mark: what is planted: corner, inside, random, texture, meaningless, large or two.
        seeds: number of them.
        only: "core" for a few kinds, the name of a kind or a part of several names, or "none".
        epochs: how long each model is trained.
        model: name of the architecture.
        save_path: the result; default: checkpoints/<dataset>/planted.json.

    Raises:
        SwysError: no seed, no such mark or kind, a kind that is another one's copy with these
            options, several labels an image, a result of another data set, or no clone to write
            into.
    """
    refuse_no_seeds(seeds)
    data = planted_data(dataset)
    if mark not in MARKS:
        raise SwysError(f"no mark '{mark}'; choose one of {', '.join(MARKS)}")
    wanted = kinds_for(only, model, patch, mark)
    setting = Setting(data, model, patch, mark, epochs, teachers_folder(data))
    units = planted_entries(data, save_path)
    architectures = {kind.teacher_model or model for kind in wanted}
    for seed in range(seeds):
        teachers = {name: Teachers(replace(setting, model=name), seed) for name in architectures}
        for kind in wanted:
            measure = partial(_measured, setting, kind, teachers[kind.teacher_model or model])
            add_unit(units, setting, kind.id, seed, measure, PARTS_OF_CHEATS.get(kind.id, ()))
    print_tables(units.read())


def planted_data(dataset: str) -> Dataset:
    """The images; "twin" takes the embedded ones even where real ones are.

    Args:
        dataset: any 2D MedMNIST name with one label an image, or "twin".

    Raises:
        SwysError: several labels an image.
    """
    refuse_outside_clone()
    if dataset == "twin":
        data = Dataset.from_npz(TWIN)
        info = replace(data.info, name=DEFAULT_DATASET, source=TWIN_SOURCE)
        data = replace(data, info=info)
    else:
        data = load_dataset(dataset, download=False)
    if data.info.multi_label:
        raise SwysError(f"'{dataset}' has several labels an image; planting needs one")
    return replace(data, val=data.val.sample(50))


def teachers_folder(data: Dataset) -> Path:
    """Where the teachers of a data set are kept."""
    return RUNS / "planted" / data.info.results_name


def planted_entries(data: Dataset, save_path: str) -> Entries:
    """The models that are measured so far.

    Args:
        data: the images.
        save_path: the file; "" for checkpoints/<dataset>/planted.json.

    Raises:
        SwysError: the file has models of another data set.
    """
    name = data.info.results_name
    path = Path(save_path or CHECKPOINTS / name / "planted.json")
    units = Entries(path, "units")
    for unit in units.read():
        other = unit.get("dataset", name)  # older results do not say it
        if other != name:
            raise SwysError(f"'{path}' has models of '{other}'; choose another --save_path")
    return units


def add_unit(
    units: Entries,
    setting: Setting,
    kind: str,
    seed: int,
    measure: Callable[[], dict],
    parts: Sequence[str],
) -> None:
    """Train and measure one model, unless that is done or another process does it.

    Args:
        units: gets what is measured.
        setting: of the model.
        kind: id of its kind.
        seed: of its kind.
        measure: trains it, and returns what is measured of it.
        parts: what a known unit has to have, to be complete.
    """

    def is_complete(unit: dict) -> bool:
        return all(part in unit for part in parts)

    unit_id = f"{setting.id}, {kind}, seed{seed}"
    facts = {
        "dataset": setting.data.info.results_name,
        "model": setting.model,
        "patch": setting.patch,
        "mark": setting.mark,
        "kind": kind,
        "seed": seed,
        "epochs": setting.epochs,
    }
    turn = setting.path(f"{unit_id}, {units.lock.stem}", ".lock")
    units.add_once(unit_id, turn, lambda: facts | measure(), is_complete)


class Teachers:
    """The honest model and the cheat of one seed, and their maps of marked test images.

    Args:
        setting: how they are made.
        seed: of their weights and the order of their images.
    """

    def __init__(self, setting: Setting, seed: int):
        self.setting = setting
        self.seed = seed
        self._made: dict[str, VisionTransformer] = {}
        self._maps: dict[str, dict[str, np.ndarray]] = {}

    @cached_property
    def explained(self) -> Planted:
        """Test images, all with the mark."""
        sample = self.setting.data.test.sample(EXPLAINED)
        return plant(sample, MARKS[self.setting.mark], TEST_SEED, "everywhere")

    def model(self, name: str) -> VisionTransformer:
        """One of them, from its file or trained now.

        Args:
            name: ``HONEST``, ``CHEAT`` or ``UNTRAINED``.
        """
        if name not in self._made:
            self._made[name] = self._load_or_train(name)
        return self._made[name]

    def maps(self, name: str) -> dict[str, np.ndarray]:
        """``ruler_maps`` of one of them.

        Args:
            name: ``HONEST`` or ``CHEAT``.
        """
        if name not in self._maps:
            target = MARKS[self.setting.mark].target
            self._maps[name] = ruler_maps(self.model(name), self.explained, target)
        return self._maps[name]

    def student(self, kind: PlantedKind, setting: Setting) -> tuple[VisionTransformer, float]:
        """A student of one of them, trained now, and the seconds that it took.

        Args:
            kind: how it is taught; its weights begin from another seed than its teacher's.
            setting: of the student, which may be smaller than its teacher.
        """
        seed = STUDENT_SEEDS + self.seed
        model = _build(setting, kind.patch or setting.patch, seed)
        labels = SupervisedObjective()
        teacher = Teacher(self.model(kind.teacher or HONEST))
        seconds = _train(model, setting, kind, seed, kind.make(teacher, labels))
        return model, seconds

    def _load_or_train(self, name: str) -> VisionTransformer:
        setting = self.setting
        model = _build(setting, setting.patch, self.seed)
        if name == UNTRAINED:
            return model.to(default_device()).eval()
        what = f"{setting.id}, {name}, {setting.digest}, seed{self.seed}"
        path = setting.path(what, ".safetensors")
        with FileLock(setting.path(what, ".lock")):  # a process that trains it is waited for
            if not path.is_file():
                _train(model, setting, kind_named(name), self.seed, SupervisedObjective())
                with replacing(path) as unfinished:
                    save_file(model.state_dict(), unfinished)
        model.load_state_dict(load_file(path))
        return model.to(default_device()).eval()


def _build(setting: Setting, patch: int, seed: int) -> VisionTransformer:
    return build(setting.model, setting.data, setting.recipe, seed, patch_size=patch)


def _train(
    model: VisionTransformer,
    setting: Setting,
    kind: PlantedKind,
    seed: int,
    objective: torch.nn.Module,
) -> float:
    """Train a model of a kind; returns the seconds that it took."""
    data = setting.data
    if kind.marked:
        train = plant(data.train, MARKS[kind.mark or setting.mark]).split
        data = replace(data, train=train)
    state = fit(model, data, setting.recipe, objective, seed=seed, device=default_device())
    return state.history[-1]["seconds"]


def _measured(setting: Setting, kind: PlantedKind, teachers: Teachers) -> dict:
    """Train a model of a kind, and everything that is measured of it."""
    mark = MARKS[setting.mark]
    seconds = None
    if kind.is_teacher:
        model = teachers.model(kind.id)
    else:
        model, seconds = teachers.student(kind, setting)
    maps = ruler_maps(model, teachers.explained, mark.target)
    measured = {
        "scores": scores_on_test(setting, partial(predict, model)),
        "maps": where_maps_point(maps, teachers.explained),
        "like_honest": compared(maps, teachers.maps(HONEST)),
    }
    compared_with = [HONEST]
    if kind.id != HONEST:
        compared_with.append(CHEAT)
        measured["like_cheat"] = compared(maps, teachers.maps(CHEAT))
    measured["teachers"] = {name: weights_digest(teachers.model(name)) for name in compared_with}
    parts = PARTS_OF_CHEATS.get(kind.id, ())
    if "methods" in parts:
        measured["methods"] = every_method(model, teachers.explained, mark.target)
    if "subsets" in parts:
        measured["subsets"] = singles_against_subsets(model, teachers.explained, mark.target)
    if "int8" in parts:
        measured["int8"] = scores_on_test(setting, int8_answers(model))
    return measured | {"seconds": seconds, "device": device_name(default_device())}


def scores_on_test(setting: Setting, answer: Callable[[np.ndarray], np.ndarray]) -> dict:
    """``planted_measures.scores`` on the test images.

    Args:
        setting: whose images and mark.
        answer: the model: images, uint8 -> logits (N, C).
    """
    split = setting.data.test.sample(TEST_SAMPLE)
    return scores(answer, split, MARKS[setting.mark], setting.data.info.task, TEST_SEED)
