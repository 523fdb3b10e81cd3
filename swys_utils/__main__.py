"""The command line: ``swys train | distill``, and what ``swys_studies.cli`` adds (evaluate, explain, ...).

Options are made from the signatures below; those that the earlier project of this name had keep their names.
Several GPUs or nodes: ``accelerate launch -m swys_utils train ...``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser
from torch import nn

from . import metrics
from .config import SwysError, default_device
from .data import DEFAULT_DATASET, Dataset, load_dataset
from .distillation import ExplanationDistiller, FeatureDistiller, SoftTargets, Teacher
from .models import SHORT_NAMES, load_checkpoint, save_checkpoint
from .training import SupervisedObjective, build, fit, predict, reference_recipe, run_card


@dataclass
class Train:
    """Train a model from random weights.

    Args:
        save_path: x.safetensors, or a folder.
        model: a timm ViT, or vit_base / vit_tiny for the two of this series (28 px, patches of 4 px).
        dataset: any 2D MedMNIST name. size: stored image size: 28, 64, 128 or 224 px.
        img_size: pixels that the model reads. patch_size: side of a patch. Defaults: what the name says.
        epochs: default of this, batch_size and lr: the reference recipe's.
        resume: go on where a run with this save_path stopped.
    """

    save_path: str
    model: str = "vit_tiny"
    dataset: str = DEFAULT_DATASET
    size: int = 28
    img_size: int | None = None
    patch_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    resume: bool = False

    def run(self) -> None:
        """Train on the labels alone."""
        data = load_dataset(self.dataset, self.size)
        labels = SupervisedObjective(data.info.multi_label)
        self.fit(self.model, data, lambda model: labels, {"method": "scratch"})

    def fit(self, name: str, data: Dataset, objective, card: dict) -> None:
        """Train by ``objective(model)``; save and print the last epoch and the one validation chooses."""
        asked = {
            key: getattr(self, key)
            for key in ("epochs", "batch_size", "lr")
            if getattr(self, key) is not None
        }
        if any(value <= 0 for value in asked.values()):
            raise SwysError(f"{asked}: epochs, batch_size and lr must be above 0")
        path = Path(self.save_path)
        if path.suffix not in ("", ".safetensors"):
            raise SwysError(f"--save_path '{path}' ends in {path.suffix}; use .safetensors or a folder")
        beside = path.with_suffix("") if path.suffix else path / "model"
        state, chosen = Path(f"{beside}.state.pt"), Path(f"{beside}.val_chosen.safetensors")
        if self.resume and not state.is_file():
            raise SwysError(f"nothing to resume: '{state}' does not exist; run without --resume first")
        if not self.resume and state.is_file():
            state.unlink()
        recipe = replace(reference_recipe(name, self.dataset), **asked)
        model = build(name, data, recipe, self.seed, img_size=self.img_size, patch_size=self.patch_size)
        print(f"{name} on {data.info.name}, {data.info.size} px: {data.info.source}")
        result = fit(model, data, recipe, objective(model), seed=self.seed, state_path=state)
        card |= {"model": SHORT_NAMES.get(name, name)} | run_card(data, recipe, self.seed, result.history)
        for title, trained, where in (
            ("last epoch", result.model, path),
            ("val-chosen", result.chosen(), chosen),
        ):
            save_checkpoint(trained, where, card, storage="fp32")
            scores = metrics.evaluate(predict(trained, data.test.images), data.test.labels, data.info.task)
            print(f"{title}: {scores}")
        state.unlink()
        print(f"wrote {path}")


@dataclass
class Distill(Train):
    """Train a student with a teacher. Options of ``train`` hold for the student.

    Args:
        ckpt_path: the teacher: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_base.
        student_model: a timm ViT, vit_base or vit_tiny. teacher_model: refuse a teacher of another model.
        method: taught besides the labels: soft targets, features, or explanations and soft targets.
        alpha: weight of the soft targets. temperature: of the soft targets.
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
        model, teacher_card = checkpoint(self.ckpt_path, data, self.teacher_model)
        teacher, labels = Teacher(model), SupervisedObjective(data.info.multi_label)

        def objective(student) -> nn.Module:
            if self.method == "features":
                student.patch_drop = nn.Identity()  # features are compared token by token
                return FeatureDistiller(teacher, labels, student)
            kind = ExplanationDistiller if self.method == "explain" else SoftTargets
            return kind(teacher, labels, self.alpha, self.temperature)

        card = {
            "method": f"kd_{self.method}",
            "teacher": {key: teacher_card[key] for key in ("model", "files")},
        }
        self.fit(self.student_model, data, objective, card)


def checkpoint(path: str, data: Dataset, model: str = ""):
    """Model and card of a checkpoint for this data; refuses one of another model when ``model`` is given."""
    loaded, card = load_checkpoint(path, default_device(), data.info.num_classes)
    if model and SHORT_NAMES.get(model, model) not in card["model"]:
        raise SwysError(f"checkpoint '{path}' is a {card['model']}, not a {model}; drop the option")
    return loaded, card


def add_commands(parser: ArgumentParser, commands: Mapping) -> None:
    """A subcommand for each function or dataclass, options from its signature; a mapping is a group."""
    group = parser.add_subcommands(dest="command")
    for name, command in commands.items():
        nested = isinstance(command, Mapping)
        title = f"one of {', '.join(command)}" if nested else inspect.getdoc(command).splitlines()[0]
        sub = ArgumentParser(description=title)
        group.add_subcommand(name, sub, help=title)
        if nested:
            add_commands(sub, command)
        elif inspect.isclass(command):
            sub.add_class_arguments(command, as_group=False)
        else:
            sub.add_function_arguments(command, as_group=False)
        for option in sub._actions:
            if isinstance(option.default, bool):
                option.nargs, option.const = "?", True  # --resume alone means --resume true


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 with one line on stderr for a foreseeable mistake."""
    from swys_studies.cli import COMMANDS as studies  # late: nothing else here needs the studies

    command, name = (
        {"train": Train, "distill": Distill} | studies,
        "swys",
    )
    parser = ArgumentParser(prog="swys", description="See what you shrink: train, explain and shrink ViTs.")
    add_commands(parser, command)
    options = parser.parse_args(arguments).as_dict()
    while isinstance(command, Mapping):
        chosen = options["command"]
        command, options, name = command[chosen], options[chosen], f"{name} {chosen}"
    try:
        result = command(**options)
        if inspect.isclass(command):
            result.run()
    except SwysError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: stopped; go on with --resume where there is one", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
