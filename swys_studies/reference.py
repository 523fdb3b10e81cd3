"""The reference set: the runs behind every claim about models of the series, on two CPU cores.

``swys study reference`` trains what is missing; after a kill the same command goes on. Several
processes may share a folder: each run is locked while it is trained, and the system frees the lock
of a process that died.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn

from swys_utils.config import SwysError, default_device
from swys_utils.data import Dataset, load_dataset
from swys_utils.distillation import OBJECTIVES, Teacher, hide_labels
from swys_utils.models import load_checkpoint, timm_name, weights_digest
from swys_utils.recipe import SupervisedObjective
from swys_utils.training import build, fit

from .kinds import BASE
from .pretraining import masked_recipe, pretrained, start_from
from .resnet import MODEL as RESNET
from .resnet import AnyTeacher, ResnetTeacher, trained_resnet
from .result_files import images_digest
from .run_scores import CurveOnTest, finish
from .run_specs import RunSpec, reference_runs
from .runs import (
    RUNS,
    finished_runs,
    refuse_other_patches,
    refuse_outside_clone,
    results_name,
    run_path,
    write_runs,
)
from .teacher_cache import AskedTeachers, CachedTeacher, cached_teacher, mean_teacher

# share of the training split that is trained on
TRAINED_ON = {"pneumoniamnist": 1.0}
TRAINED_ON_ELSEWHERE = 0.5


def real_data(dataset: str) -> Dataset:
    """The whole data set.

    Args:
        dataset: name of the data set.

    Raises:
        SwysError: there are no real images.
    """
    refuse_outside_clone()
    data = load_dataset(dataset, download=False)
    if data.info.synthetic:
        raise SwysError("studies need real images; set SWYS_DATA_DIR to a folder with them")
    return data


def study_data(dataset: str) -> Dataset:
    """The data of the reference set; of the training images a fixed random sample.

    Args:
        dataset: name of the data set.

    Raises:
        SwysError: there are no real images.
    """
    data = real_data(dataset)
    count = int(_share_trained_on(dataset) * len(data.train))
    return replace(data, train=data.train.sample(count))


def one_label_data(dataset: str) -> Dataset:
    """The data of the reference set, for a study that needs one label an image.

    Args:
        dataset: name of the data set.

    Raises:
        SwysError: there are no real images, or an image can have several labels.
    """
    data = study_data(dataset)
    refuse_several_labels(data)
    return data


def refuse_several_labels(data: Dataset) -> None:
    """Raise a SwysError where an image can have several labels."""
    if data.info.multi_label:
        name = data.info.name
        raise SwysError(f"'{name}' has several labels an image; take a set like bloodmnist")


def _share_trained_on(dataset: str) -> float:
    """Share of the training split that the runs of a data set are trained on."""
    return TRAINED_ON.get(dataset, TRAINED_ON_ELSEWHERE)


def reference(
    dataset: str = "pneumoniamnist",
    only: str = "",
    folder: str = "",
    list: bool = False,  # noqa: A002 (the option's name)
    patch: int = BASE.patch_size,
) -> None:
    """Train the reference set; what is done is skipped, and an unfinished run goes on.

    Args:
        dataset: pneumoniamnist or bloodmnist.
        only: part of the ids of the runs to train.
        folder: where runs are kept; default: runs/<dataset>, or runs/<dataset>-p<patch>.
        list: only print the runs with their state and estimated cost.
        patch: side of the models' patches, px; with others than Base's it is a smaller set.

    Raises:
        SwysError: no such run, no real images, or several labels an image.
    """
    runs = reference_runs(dataset, patch)
    results = results_name(dataset, patch)
    wanted = [run for run in runs if only in run.id]
    if not wanted:
        raise SwysError(f"no run matches '{only}'; ids look like {runs[0].id}, {runs[1].id}")
    out = Path(folder or RUNS / results)
    data = one_label_data(dataset)
    refuse_other_patches({run.id: run.kind.patch_size for run in wanted}, out)
    if list:
        _print_states(wanted, data, out)
        return
    by_id = {run.id: run for run in wanted}
    for run in wanted:
        for name in run.teachers:
            # a process that trains a teacher is waited for; if it died, this one goes on
            if name in by_id and name not in finished_runs(results, out):
                _train_if_missing(by_id[name], data, out, timeout=-1)
        _train_if_missing(run, data, out, timeout=0)
    write_runs(results, out)  # also of a run after which the process was killed


def _print_states(runs: Sequence[RunSpec], data: Dataset, out: Path) -> None:
    """Print a line for each run: done, in training by another process, or its estimated cost."""
    finished = finished_runs(runs[0].results, out)
    for run in runs:
        state = "done" if run.id in finished else _about(run, data)
        if _is_locked(out / f"{run.id}.lock"):
            state = "in training by another process"
        print(f"{_heading(run)}{state}")


def _is_locked(lock_path: Path) -> bool:
    """Whether another process holds a lock; a lock file that is not there is not made."""
    if not lock_path.is_file():
        return False
    try:
        with FileLock(lock_path, timeout=0):
            return False
    except Timeout:
        return True


def _heading(run: RunSpec) -> str:
    """How the printed line of a run begins."""
    return f"{run.id:28} {run.recipe.epochs:3} epochs  "


def _about(run: RunSpec, data: Dataset) -> str:
    """The estimated cost of a run."""
    minutes = run.cost(len(data.train)) / 60
    about = f"about {minutes:.0f} min on two cores"
    if run.teachers and not run.recipe.views:
        about += ", and as much again or more for its teachers, which are asked in each step"
    return about


def _train_if_missing(run: RunSpec, data: Dataset, out: Path, timeout: float) -> None:
    """Train a run unless it is done or another process trains it.

    That process is waited for: ``timeout`` seconds; -1: until it has finished or died.
    """
    print(_heading(run), end="", flush=True)
    try:
        with FileLock(out / f"{run.id}.lock", timeout=timeout):
            if run.id in finished_runs(run.results, out):
                print("done", flush=True)
                return
            print(_about(run, data), flush=True)
            entry = train(run, data, out)
            print(f"    test {entry['last']}  {entry['seconds']:.0f} s", flush=True)
            write_runs(run.results, out)
    except Timeout:
        print("in training by another process")


def train(run: RunSpec, data: Dataset, out: Path) -> dict:
    """Train, score and write one run.

    Args:
        run: the run.
        data: data of the reference set.
        out: folder of the runs.

    Returns:
        Its entry in runs.json.

    Raises:
        SwysError: the run that teaches is not finished.
    """
    device = default_device()
    start = run.seed + run.kind.start
    model = build(run.kind.model, data, run.recipe, start, patch_size=run.kind.patch_size)
    if run.kind.encoders:
        start_from(model, _encoder(run, data, out))
    teachers = [_teacher(name, run, data, out) for name in run.teachers]
    metadata = {
        "id": run.id,
        "method": run.kind.method,
        "teacher": run.teachers[0] if run.teachers else None,
        "teachers": run.teachers,
        # a run can be trained anew under its id, so weights say which one teaches
        "taught_by": [teacher.digest for teacher in teachers],
        "seed": run.seed,
        "model": timm_name(run.kind.model),
        "recipe": asdict(run.recipe) | run.settings,
        "initial_weights": weights_digest(model),
    }
    steps = max(1, len(data.train) // run.recipe.batch_size)  # few images are one batch
    curve = CurveOnTest(out / f"{run.id}.curve.json", data, steps)
    state_path = out / f"{run.id}.state.pt"
    result = fit(
        model,
        training_data(run, data),
        run.recipe,
        _objective_for(run, data, model, teachers, out),
        seed=run.seed,
        device=device,
        state_path=state_path,
        callback=curve,
    )
    history = curve.beside(result.history)
    entry = finish(result, metadata | {"history": history}, data, out)
    state_path.unlink(missing_ok=True)
    curve.path.unlink(missing_ok=True)
    return entry


def _encoder(run: RunSpec, data: Dataset, out: Path) -> dict[str, torch.Tensor]:
    """Weights of the masked autoencoder that a run starts from; other runs may share them."""
    name = run.kind.model
    patch_size = run.kind.patch_size
    seed = run.seed % run.kind.encoders
    digest = images_digest(data.train.images)
    path = out / "masked" / f"{name}, {patch_size} px, {digest}, seed{seed}.pt"
    return pretrained(name, data, masked_recipe(name), seed, path, patch_size=patch_size)


def training_data(run: RunSpec, data: Dataset) -> Dataset:
    """The data with the labels that the run may see.

    Args:
        run: the run.
        data: data of the reference set.
    """
    if run.kind.label_share == 1:
        return data
    share = run.kind.label_share / _share_trained_on(data.info.name)  # of the images trained on
    hidden = hide_labels(data.train, share, run.seed)
    if not run.teachers:
        # Nothing is learnt from images without a label. Those with one are repeated, so that an
        # epoch has as many steps as that of a student with a teacher.
        labelled = np.flatnonzero(hidden.labels >= 0)
        hidden = hidden.take(np.resize(labelled, len(hidden)))
    return replace(data, train=hidden)


def _objective_for(
    run: RunSpec, data: Dataset, model: nn.Module, teachers: Sequence[AnyTeacher], out: Path
) -> nn.Module:
    """The loss of a run that trains ``model``."""
    teacher: nn.Module | None = None
    if teachers and run.recipe.views:
        teacher = mean_teacher([_cached(one, run, data, out) for one in teachers])
    elif teachers:
        teacher = AskedTeachers(teachers)
    labels = SupervisedObjective(data.info.multi_label)
    make = OBJECTIVES[run.kind.objective].make
    return make(teacher, labels, model, **run.settings)


def _cached(teacher: AnyTeacher, run: RunSpec, data: Dataset, out: Path) -> CachedTeacher:
    """A teacher, with its answers to every view that the student will see."""
    with FileLock(out / "views.lock"):
        return cached_teacher(teacher, data, run.recipe, out / "views", default_device())


def _teacher(name: str, run: RunSpec, data: Dataset, out: Path) -> AnyTeacher:
    """One that teaches a run: a finished run, or a shipped model; a missing ResNet is trained."""
    if name.startswith(RESNET):
        return ResnetTeacher(trained_resnet(name, data, out))
    with FileLock(out / f"{name}.lock"):  # a process that trains the teacher is waited for
        path = run_path(name, run.results, out)
    if path is None:
        way_out = f"train '--only {name}' first" if "/" in name else "it should be shipped"
        raise SwysError(f"the teacher {name} is not there; {way_out}")
    model, _ = load_checkpoint(path, default_device(), data.info.num_classes)
    return Teacher(model)
