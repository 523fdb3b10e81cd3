"""The command line: ``swys train | distill | evaluate | explain``, and of the studies ``benchmark | export | study``.

Options are made from the signatures below. Options that the earlier project of this name had keep their names.
Several GPUs or nodes: ``accelerate launch -m swys_utils train ...``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal, get_type_hints

import numpy as np
from jsonargparse import ArgumentParser
from torch import nn

from .config import SwysError, default_device, write_json
from .data import DEFAULT_DATASET, Dataset, load_dataset, single_labels
from .distillation import ExplanationDistiller, FeatureDistiller, SoftTargets, Teacher
from .gradcam import heatmaps
from .metrics import evaluate as score
from .metrics import probabilities, seen_in_training
from .models import SHORT_NAMES, load_checkpoint, save_checkpoint
from .plots import heatmap_rows
from .training import Recipe, SupervisedObjective, build, fit, predict, reference_recipe, run_card


@dataclass
class Data:
    """Which images.

    Args:
        dataset: any 2D MedMNIST name.
        size: stored image size: 28, 64, 128 or 224 px.
        data_dir: folder with the .npz files; default: SWYS_DATA_DIR, then ~/.medmnist.
    """

    dataset: str = DEFAULT_DATASET
    size: int = 28
    data_dir: str | None = None

    def load(self) -> Dataset:
        """The data set; says where it comes from."""
        data = load_dataset(self.dataset, self.size, self.data_dir)
        print(f"{data.info.name}, {data.info.size} px: {data.info.source}")
        return data

    def checkpoint(self, data: Dataset, path: str, model: str = ""):
        """Model and card of a checkpoint for this data; refuses one of another model when ``model`` is given."""
        loaded, card = load_checkpoint(path, default_device(), data.info.num_classes)
        if model and SHORT_NAMES.get(model, model) not in card["model"]:
            raise SwysError(f"checkpoint '{path}' is a {card['model']}, not a {model}; drop the option")
        return loaded, card


@dataclass
class Run:
    """How to train, and where the result goes.

    Args:
        save_path: x.safetensors, or a folder.
        resume: go on where a run with this save_path stopped.
        epochs: default: the reference recipe's.
        batch_size: default: the reference recipe's.
        lr: peak learning rate; default: the reference recipe's.
        seed: of the initial weights, the order of images and their views.
        img_size: pixels that the model reads; default: what its name says.
        patch_size: side of a patch in pixels; default: what its name says.
    """

    save_path: str
    resume: bool = False
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    img_size: int | None = None
    patch_size: int | None = None

    def recipe(self, model: str, dataset: str) -> Recipe:
        """The reference recipe with what was asked for."""
        asked = {key: getattr(self, key) for key in ("epochs", "batch_size", "lr")}
        for name, value in asked.items():
            if value is not None and value <= 0:
                raise SwysError(f"--{name} is {value}; it must be above 0")
        return replace(reference_recipe(model, dataset), **{k: v for k, v in asked.items() if v is not None})

    def train(self, model, data: Dataset, recipe: Recipe, objective: nn.Module, card: dict) -> None:
        """Fit, save the last epoch and the one that validation chooses, print both with intervals."""
        path = Path(self.save_path)
        if path.suffix not in ("", ".safetensors"):
            raise SwysError(f"--save_path '{path}' ends in {path.suffix}; use .safetensors or a folder")
        state, chosen = (
            path.with_suffix(f".{what}.safetensors") if path.suffix else path / f"{what}.safetensors"
            for what in ("state", "val_chosen")
        )
        if self.resume and not state.is_file():
            raise SwysError(f"nothing to resume: '{state}' does not exist; run without --resume first")
        if not self.resume:
            state.unlink(missing_ok=True)
        result = fit(model, data, recipe, objective, seed=self.seed, state_path=state)
        card |= run_card(data, recipe, self.seed, result.history)
        for name, where, trained in (
            ("last epoch", path, result.model),
            ("val-chosen", chosen, result.val_chosen_model()),
        ):
            save_checkpoint(trained, where, card, storage="fp32")
            print(name, score(predict(trained, data.test.images), data.test.labels, data.info.task))
        state.unlink()
        print(f"wrote {path}")


def train(data: Data, run: Run, model: str = "vit_tiny") -> None:
    """Train a model from random weights.

    Args:
        model: a timm ViT, or vit_base / vit_tiny for the two of this series (28 px, patches of 4 px).
    """
    images, recipe = data.load(), run.recipe(model, data.dataset)
    network = build(model, images, recipe, run.seed, img_size=run.img_size, patch_size=run.patch_size)
    objective = SupervisedObjective(images.info.multi_label)
    run.train(
        network, images, recipe, objective, {"model": SHORT_NAMES.get(model, model), "method": "scratch"}
    )


def distill(
    data: Data,
    run: Run,
    ckpt_path: str,
    student_model: str = "vit_tiny",
    teacher_model: str = "",
    method: Literal["soft", "features", "explain"] = "soft",
    alpha: float = 0.5,
    temperature: float = 2.0,
) -> None:
    """Train a student with a teacher.

    Args:
        ckpt_path: the teacher.
        student_model: a timm ViT, vit_base or vit_tiny.
        teacher_model: refuse a teacher of another model.
        method: what is taught besides the labels: soft targets, features, or explanations and soft targets.
        alpha: weight of the soft targets. temperature: of the soft targets.
        temperature: of the soft targets.
    """
    images, recipe = data.load(), run.recipe(student_model, data.dataset)
    model, teacher_card = data.checkpoint(images, ckpt_path, teacher_model)
    if method == "features":
        recipe = replace(recipe, patch_drop=0.0)  # features are compared token by token
    student = build(student_model, images, recipe, run.seed, img_size=run.img_size, patch_size=run.patch_size)
    teacher, labels = Teacher(model), SupervisedObjective(images.info.multi_label)
    objective = {
        "soft": lambda: SoftTargets(teacher, labels, alpha, temperature),
        "features": lambda: FeatureDistiller(teacher, labels, student),
        "explain": lambda: ExplanationDistiller(teacher, labels, alpha, temperature),
    }[method]()
    card = {"model": SHORT_NAMES.get(student_model, student_model), "method": f"kd_{method}"}
    card["teacher"] = {"model": teacher_card["model"], "files": teacher_card["files"]}
    run.train(student, images, recipe, objective, card)


def evaluate(
    data: Data,
    ckpt_path: str,
    model: str = "",
    split: Literal["train", "val", "test"] = "test",
    json: str = "",
) -> None:
    """Accuracy, AUC and calibration of a checkpoint, with intervals; and which images it was trained on.

    Args:
        ckpt_path: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        model: refuse a checkpoint of another model.
        split: which images.
        json: write the scores to this file, too.
    """
    images = data.load()
    network, card = data.checkpoint(images, ckpt_path, model)
    part = getattr(images, split)
    logits = predict(network, part.images, progress=True)
    scores = score(logits, part.labels, images.info.task)
    print(f"{ckpt_path}, {split} split, {scores.n} images\n{scores}")
    found = {"checkpoint": ckpt_path, "dataset": data.dataset, "source": images.info.source, "split": split}
    found |= {key: value for key, value in asdict(scores).items() if key != "correct"}
    if split != "train" and card.get("training_hashes"):
        seen = seen_in_training(card, part.images)
        found["seen_in_training"] = int(seen.sum())
        print(f"{seen.sum()} of {len(seen)} images were in its training data (64-bit fingerprint)")
        if seen.any() and not seen.all():
            print(f"without them: {score(logits[~seen], part.labels[~seen], images.info.task)}")
    if json:
        write_json(json, found)


def explain(
    data: Data,
    ckpt_path: str,
    save_path: str,
    model: str = "",
    method: Literal["grad_cam", "hires_cam", "legrad", "attention_rollout"] = "grad_cam",
    split: Literal["train", "val", "test"] = "test",
    images: int = 8,
) -> None:
    """Write heatmap overlays of a checkpoint: overlays.png and maps.npz.

    Args:
        ckpt_path: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        save_path: folder to write to.
        model: refuse a checkpoint of another model.
        method: which heatmap.
        split: which images.
        images: how many, a fixed random sample.
    """
    loaded, folder = data.load(), Path(save_path)
    network, card = data.checkpoint(loaded, ckpt_path, model)
    part, names = getattr(loaded, split).head(images), loaded.info.class_names
    logits, maps = predict(network, part.images), heatmaps(network, part.images, method)
    captions = [f"{names[p.argmax()][:12]} {p.max():.0%}" for p in probabilities(logits, loaded.info.task)]
    titles = [names[label][:14] if label >= 0 else "no label" for label in single_labels(part)]
    figure = heatmap_rows(
        part.images, {card["model"]: maps}, {card["model"]: captions}, titles, scale="model"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / "overlays.png", dpi=120, bbox_inches="tight")
        np.savez_compressed(folder / "maps.npz", maps=maps, logits=logits, labels=part.labels)
    except OSError as error:
        raise SwysError(f"cannot write to '{folder}': {error.strerror}; choose another --save_path") from None
    empty = int((maps.max(axis=(1, 2)) <= 0).sum())
    print(f"wrote {folder / 'overlays.png'} and maps.npz: {method}, {len(maps)} images, {empty} empty maps")


COMMANDS: dict[str, Callable] = {"train": train, "distill": distill, "evaluate": evaluate, "explain": explain}


def add_commands(parser: ArgumentParser, commands: Mapping) -> None:
    """A subcommand for each function, its options from the signature; a mapping is a group of subcommands."""
    group = parser.add_subcommands(dest="command")
    for name, function in commands.items():
        title = f"one of {', '.join(function)}" if isinstance(function, Mapping) else inspect.getdoc(function)
        sub = ArgumentParser(description=title.splitlines()[0])
        if isinstance(function, Mapping):
            add_commands(sub, function)
        else:
            groups = dataclasses_of(function)
            for kind in groups.values():
                sub.add_class_arguments(kind, as_group=False)
            sub.add_function_arguments(function, as_group=False, skip=set(groups))
        group.add_subcommand(name, sub, help=title.splitlines()[0])


def dataclasses_of(function: Callable) -> dict[str, type]:
    """Parameters whose type is a dataclass: their fields are options."""
    return {name: kind for name, kind in get_type_hints(function).items() if is_dataclass(kind)}


def run_command(function: Callable, options: dict) -> None:
    """Call ``function`` with the parsed options."""
    groups = dataclasses_of(function)
    built = {n: kind(**{f.name: options[f.name] for f in fields(kind)}) for n, kind in groups.items()}
    function(**{n: built[n] if n in built else options[n] for n in inspect.signature(function).parameters})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 with one line on stderr for a foreseeable mistake."""
    try:
        from swys_studies.cli import COMMANDS as studies  # late: the helper works without the studies
    except ModuleNotFoundError:
        studies = {}
    parser = ArgumentParser(prog="swys", description="See what you shrink: train, explain and shrink ViTs.")
    add_commands(parser, COMMANDS | studies)
    options, command, name = parser.parse_args(arguments).as_dict(), COMMANDS | studies, "swys"
    while isinstance(command, Mapping):
        name, chosen = f"{name} {options['command']}", options["command"]
        command, options = command[chosen], options[chosen]
    try:
        run_command(command, options)
    except SwysError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: stopped; go on with --resume where there is one", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
