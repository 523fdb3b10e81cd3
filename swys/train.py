"""The commands ``swys train`` and ``swys distill``; options of the earlier project keep their names."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from accelerate import PartialState
from torch import nn

from swys_utils.config import SwysError, default_device
from swys_utils.data import DEFAULT_DATASET, Dataset, load_dataset
from swys_utils.distillation import FeatureDistiller, MapDistiller, SoftTargets, Teacher
from swys_utils.metrics import evaluate
from swys_utils.models import load_checkpoint, save_checkpoint, timm_name
from swys_utils.recipe import SupervisedObjective, reference_recipe
from swys_utils.training import build, fit, predict, run_card


@dataclass
class Training:
    """What both commands share; epochs, batch_size and lr are the reference recipe's unless given.

    Args:
        save_path: x.safetensors, or a folder.
        dataset: any 2D MedMNIST name.
        size: stored image size: 28, 64, 128 or 224 px.
        img_size: pixels that the model reads; default: what its name says.
        patch_size: side of a patch; default: what its name says.
        resume: go on where a run with this save_path stopped.
    """

    save_path: str
    dataset: str = DEFAULT_DATASET
    size: int = 28
    img_size: int | None = None
    patch_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    resume: bool = False

    def fit(self, name: str, data: Dataset, objective, card: dict, **changes) -> None:
        """Train by ``objective(model)``; save and print the last epoch and the one validation chooses.
        ``changes``: to the recipe."""
        asked = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr}
        asked = {key: value for key, value in asked.items() if value is not None}
        if self.seed < 0 or any(value <= 0 for value in asked.values()):
            raise SwysError(
                f"{asked}, seed {self.seed}: numbers must be above 0, the seed not below"
            )
        path = Path(self.save_path)
        if path.suffix not in ("", ".safetensors"):
            raise SwysError(
                f"--save_path '{path}' ends in {path.suffix}; use .safetensors or a folder"
            )
        beside = path.with_suffix("") if path.suffix else path / "model"
        state, chosen = Path(f"{beside}.state.pt"), Path(f"{beside}.val_chosen.safetensors")
        if self.resume and not state.is_file():
            raise SwysError(
                f"nothing to resume: '{state}' does not exist; run without --resume first"
            )
        if not self.resume and state.is_file():
            state.unlink(missing_ok=True)  # of several processes one is first
        recipe = replace(reference_recipe(name, self.dataset), **asked, **changes)
        model = build(
            name, data, recipe, self.seed, img_size=self.img_size, patch_size=self.patch_size
        )
        here = PartialState()
        print(
            f"process {here.process_index + 1} of {here.num_processes}: {name} on {data.info.source}"
        )
        result = fit(model, data, recipe, objective(model), seed=self.seed, state_path=state)
        if not here.is_main_process:
            return
        card |= {"model": timm_name(name)} | run_card(
            data, asdict(recipe), self.seed, result.history
        )
        saved = {"last epoch": (result.model, path), "val-chosen": (result.chosen(), chosen)}
        for title, (trained, where) in saved.items():
            save_checkpoint(trained, where, card, storage="fp32")
            scores = evaluate(predict(trained, data.test.images), data.test.labels, data.info.task)
            print(f"{title}, {where}: {scores}")
        state.unlink()


@dataclass
class Train(Training):
    """Train a model from random weights.

    Args:
        model: a timm ViT, or vit_base / vit_tiny for the two of this series (28 px, patches of 4 px).
    """

    model: str = "vit_tiny"

    def run(self) -> None:
        """Train on the labels alone."""
        data = load_dataset(self.dataset, self.size)
        labels = SupervisedObjective(data.info.multi_label)
        self.fit(self.model, data, lambda model: labels, {"method": "scratch"})


@dataclass
class Distill(Training):
    """Train a student with a teacher.

    Args:
        ckpt_path: the teacher: a folder, a .safetensors file, or an id below checkpoints/.
        student_model: a timm ViT, vit_base or vit_tiny.
        teacher_model: refuse a teacher of another model.
        method: taught besides the labels: soft targets, features, or explanations and soft targets.
        alpha: weight of the soft targets (soft, explain).
        temperature: of the soft targets (soft, explain).
    """

    ckpt_path: str = f"{DEFAULT_DATASET}/vit_base"
    student_model: str = "vit_tiny"
    teacher_model: str = ""
    method: Literal["soft", "features", "explain"] = "soft"
    alpha: float = 0.5
    temperature: float = 2.0

    def run(self) -> None:
        """Train on the labels and on what the teacher says."""
        data = load_dataset(self.dataset, self.size)
        model, teacher_card = load_for(self.ckpt_path, data, self.teacher_model)
        teacher, labels = Teacher(model), SupervisedObjective(data.info.multi_label)

        def objective(student) -> nn.Module:
            if self.method == "features":
                return FeatureDistiller(teacher, labels, student)
            kind = MapDistiller if self.method == "explain" else SoftTargets
            return kind(teacher, labels, self.alpha, self.temperature)

        card: dict = {"teacher": {key: teacher_card[key] for key in ("model", "files")}}
        card["method"] = f"kd_{self.method}"
        if self.method == "features":  # they are compared token by token
            return self.fit(self.student_model, data, objective, card, patch_drop=0.0)
        card |= {"alpha": self.alpha, "temperature": self.temperature}
        self.fit(self.student_model, data, objective, card)


def load_for(path: str, data: Dataset, model: str = ""):
    """Model and card of a checkpoint for this data; refuses one of another model when ``model`` is given."""
    loaded, card = load_checkpoint(path, default_device(), data.info.num_classes)
    if model and timm_name(model) not in card["model"]:
        raise SwysError(f"checkpoint '{path}' is a {card['model']}, not a {model}; drop the option")
    if card.get("dataset", data.info.name) != data.info.name:
        print(
            f"note: '{path}' was trained on {card['dataset']}, not {data.info.name}",
            file=sys.stderr,
        )
    return loaded, card
