"""The commands ``swys train`` and ``swys distill``.

Options of the earlier project keep their names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from swys_utils.config import SwysError, default_device, unknown
from swys_utils.data import DEFAULT_DATASET, Dataset, load_dataset
from swys_utils.distillation import OBJECTIVES, Objective, Teacher
from swys_utils.models import timm_name
from swys_utils.recipe import MAX_WARMUP, Recipe, SupervisedObjective, reference_recipe
from swys_utils.shipped_results import OLD_METHODS
from swys_utils.training import build, fit, run_card

from .checkpoints import load_for, output_files, save_and_score
from .features import FEATURES

OBJECTIVES[FEATURES.id] = FEATURES  # a way to teach that only the command offers

LARGEST_SEED = 2**32


@dataclass
class Training:
    """What both commands share.

    Args:
        save_path: x.safetensors, or a folder.
        dataset: any 2D MedMNIST name.
        size: stored image size: 28, 64, 128 or 224 px.
        img_size: pixels that the model reads; default: what its name says.
        patch_size: side of a patch; default: what its name says.
        epochs: number of times that each image is shown; default: the reference recipe's.
        batch_size: number of images in a step; default: the reference recipe's.
        lr: the largest learning rate; default: the reference recipe's.
        seed: of the first weights, of the order of images and of their views.
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

    def train_and_save(
        self,
        name: str,
        data: Dataset,
        make_objective: Callable[[VisionTransformer], nn.Module],
        card: dict,
        recipe_changes: dict[str, Any],
    ) -> None:
        """Train a model; save and score its last epoch and the epoch that validation chooses.

        Args:
            name: of the model.
            data: to train, validate and test on.
            make_objective: returns the objective for a model.
            card: what the command knows for the cards; the run is added.
            recipe_changes: fields of the recipe that the objective needs at these values.

        Raises:
            SwysError: an option that cannot be used, or an error of the training.
        """
        self.check_numbers()
        recipe = self.recipe(name, recipe_changes)
        files = output_files(self.save_path)
        geometry = {"img_size": self.img_size, "patch_size": self.patch_size}
        model = build(name, data, recipe, self.seed, **geometry)
        objective = make_objective(model)
        if hasattr(objective, "check"):
            objective.check(model)
        self.prepare_state(files.state)  # it may delete one, so what can be refused was refused
        process = this_process()
        place = f"process {process.process_index + 1} of {process.num_processes}"
        print(f"{place}: {name} on {data.info.source}")
        longest = MAX_WARMUP * recipe.epochs
        if recipe.warmup_epochs > longest:
            instead = f"{longest:g} epochs instead of {recipe.warmup_epochs:g}"
            print(f"warm-up: {instead}, at most a fifth of the schedule")
        run = fit(
            model,
            data,
            recipe,
            objective,
            seed=self.seed,
            state_path=files.state,
        )
        if process.is_main_process:
            card["model"] = timm_name(name)
            card |= run_card(data, asdict(recipe), self.seed, run.history)
            save_and_score("last epoch", run.model, files.last, card, data)
            save_and_score("val-chosen", run.chosen(), files.chosen, card, data)
            files.state.unlink()

    def check_numbers(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            SwysError: a number that must be above 0 is not, or a seed below 0.
        """
        numbers = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
        }
        for name, value in numbers.items():
            if value is not None and not value > 0:  # nan is refused, too
                raise SwysError(f"--{name} is {value}; it must be above 0")
        if not 0 <= self.seed < LARGEST_SEED:
            raise SwysError(f"--seed is {self.seed}; it must be 0 or above, and below 2^32")

    def recipe(self, name: str, changes: dict[str, Any]) -> Recipe:
        """The reference recipe with what was given as options.

        Args:
            name: of the model.
            changes: fields that the objective needs at these values.

        Returns:
            The recipe.
        """
        recipe = reference_recipe(name, self.dataset)
        if self.epochs is not None:
            recipe = replace(recipe, epochs=self.epochs)
        if self.batch_size is not None:
            recipe = replace(recipe, batch_size=self.batch_size)
        if self.lr is not None:
            recipe = replace(recipe, lr=self.lr)
        return replace(recipe, **changes)

    def prepare_state(self, path: Path) -> None:
        """Look for an unfinished run, to go on with (``--resume``) or to start anew.

        Of several processes the main one removes what an earlier run left, while the others wait:
        a late one would remove what the first has written since.

        Args:
            path: of the state of an unfinished run.

        Raises:
            SwysError: there is no run to resume.
        """
        if self.resume:
            if not path.is_file():
                problem = f"nothing to resume: '{path}' does not exist"
                raise SwysError(f"{problem}; run without --resume first")
            return
        process = this_process()
        if process.is_main_process and path.is_file():
            path.unlink()
        process.wait_for_everyone()


@dataclass
class Train(Training):
    """Train a model from random weights.

    Args:
        model: a timm ViT, or vit_base / vit_tiny for the two of this series (28 px, patches of
            4 px).
    """

    model: str = "vit_tiny"

    def run(self) -> None:
        """Train on the labels alone.

        Raises:
            SwysError: an option that cannot be used, or an error of the training.
        """
        data = load_dataset(self.dataset, self.size)
        labels = SupervisedObjective(data.info.multi_label)

        def make_objective(model: VisionTransformer) -> nn.Module:
            return labels

        self.train_and_save(self.model, data, make_objective, {"method": "labels"}, {})


@dataclass
class Distill(Training):
    """Train a student with a teacher.

    Args:
        ckpt_path: the teacher: a folder, a .safetensors file, or an id below checkpoints/.
        student_model: a timm ViT, vit_base or vit_tiny.
        teacher_model: refuse a teacher of another model.
        method: what the teacher teaches besides the labels.
        alpha: share of the teacher's answers in the loss; default: the method's.
        temperature: of the teacher's answers; default: the method's.
        gamma: weight of the teacher's heatmaps; default: the method's.
    """

    ckpt_path: str = f"{DEFAULT_DATASET}/vit_base"
    student_model: str = "vit_tiny"
    teacher_model: str = ""
    method: str = "answers"
    alpha: float | None = None
    temperature: float | None = None
    gamma: float | None = None

    def run(self) -> None:
        """Train on the labels and on what the teacher says.

        Raises:
            SwysError: an option that cannot be used, or an error of the training.
        """
        objective = objective_with_teacher(self.method)
        settings = self.settings(objective)
        data = load_dataset(self.dataset, self.size)
        model, teacher_card = load_for(self.ckpt_path, data, self.teacher_model)
        teacher = Teacher(model)
        labels = SupervisedObjective(data.info.multi_label)

        def make_objective(student: VisionTransformer) -> nn.Module:
            return objective.make(teacher, labels, student, **settings)

        card = {
            "method": objective.id,
            "teacher": {"model": teacher_card["model"], "files": teacher_card["files"]},
            **settings,
        }
        changes = objective.recipe_changes
        self.train_and_save(self.student_model, data, make_objective, card, changes)

    def settings(self, objective: Objective) -> dict[str, float]:
        """The settings of the loss: those of the method, changed by what was given as options.

        Args:
            objective: the method.

        Returns:
            What ``objective.make`` takes.

        Raises:
            SwysError: an option that the method does not have.
        """
        options = {
            "alpha": self.alpha,
            "temperature": self.temperature,
            "gamma": self.gamma,
        }
        settings = dict(objective.defaults)
        for name, value in options.items():
            if value is None:
                continue
            if name not in objective.defaults:
                raise SwysError(f"method '{objective.id}' has no --{name}; drop the option")
            settings[name] = value
        return settings


def this_process() -> PartialState:
    """Which process this is of those that train one model together.

    Accelerate decides this when it is first called in a process. On CPUs it has to be told: without
    ``cpu=True`` each of several processes would take itself for the only one.

    Returns:
        Accelerate's view of the processes.
    """
    return PartialState(cpu=default_device().type == "cpu")


def methods_with_teacher() -> list[str]:
    """What ``swys distill --method`` takes, whoever registered it.

    Returns:
        Ids of ``distillation.OBJECTIVES``.
    """
    return [name for name, objective in OBJECTIVES.items() if objective.needs_teacher]


def objective_with_teacher(name: str) -> Objective:
    """A way to teach that needs a teacher.

    Args:
        name: an id of ``distillation.OBJECTIVES``, or one of an earlier version.

    Returns:
        The registered objective.

    Raises:
        SwysError: an unknown name, or an objective without a teacher.
    """
    todays_name = OLD_METHODS.get(name, name)
    known = methods_with_teacher()
    if todays_name not in known:
        raise SwysError(unknown("method", name, known, "with a teacher:"))
    return OBJECTIVES[todays_name]
