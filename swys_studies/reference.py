"""The reference set: the runs behind every claim about models of the series, over seeds, on two CPU cores.

``swys study reference`` trains what is missing; after a kill the same command goes on. Several processes may
share a folder: each run is locked while it is trained, and the system frees the lock of a process that died.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from swys.fingerprints import pack_hashes, perceptual_hashes
from swys_utils import config, training
from swys_utils.config import SwysError, write_json
from swys_utils.data import Dataset, Split, load_dataset
from swys_utils.distillation import MapDistiller, SoftTargets, hide_labels
from swys_utils.metrics import point_scores
from swys_utils.models import (
    load_checkpoint,
    save_checkpoint,
    timm_name,
    weights_digest,
)
from swys_utils.recipe import Recipe, SupervisedObjective, reference_recipe
from swys_utils.resume import TrainingState
from swys_utils.teacher_cache import cached_teacher
from swys_utils.training import build, fit, predict

from .runs import RUNS, finished_runs, run_path, write_runs

SOFT = {"alpha": 0.7, "temperature": 2.0}
METHODS = {
    "scratch": {},
    "kd_soft": SOFT,
    "kd_explain": SOFT | {"gamma": 1.0},
}  # settings of the loss
METHODS |= {"few_scratch": {}, "few_soft": {"alpha": 0.9, "temperature": 2.0}}
METHODS["kd_coarse"] = SOFT  # of a student with 16 tokens
TEST_SAMPLE = (
    624  # for curves and agreement: all of PneumoniaMNIST's test images, a fixed sample of more
)
TRAINED_ON = {"pneumoniamnist": 1.0}  # share of the training split; half of other sets
FEW = 0.01  # share of the training split that keeps its label in the few_* runs
IMAGES_PER_S = {
    "vit_base": 31,
    "vit_tiny": 330,
}  # with half of the tokens, two cores of an AMD EPYC


@dataclass(frozen=True)
class RunSpec:
    """One run; ``teacher`` is the id of the run that teaches, or None."""

    model: str
    method: str
    seed: int
    recipe: Recipe
    teacher: str | None = None

    @property
    def id(self) -> str:
        """``<model>/<method>/seed<k>``: also the name of its files below the folder of its data set."""
        return f"{self.model}/{self.method}/seed{self.seed}"

    def cost(self, images: int) -> float:
        """Estimated seconds on two CPU cores."""
        slow = (
            self.recipe.full_tokens if self.recipe.patch_drop else 1
        )  # share of epochs with all tokens
        return self.recipe.epochs * (1 + slow) * images / IMAGES_PER_S[self.model]


def reference_runs(dataset: str = "pneumoniamnist") -> list[RunSpec]:
    """The set in the order of training: one seed of each kind first, then more seeds."""

    def spec(model: str, method: str, seed: int) -> RunSpec:
        recipe = reference_recipe(model, dataset)
        if method.startswith("few"):
            recipe = replace(recipe, epochs=10, warmup_epochs=1)
        taught = method.startswith("kd") or method == "few_soft"
        return RunSpec(model, method, seed, recipe, "vit_base/scratch/seed0" if taught else None)

    kinds = ("scratch", "kd_soft", "kd_explain")
    few = ("few_scratch", "few_soft")
    seeds, coarse = (range(4), ["kd_coarse"]) if dataset == "pneumoniamnist" else (range(3), [])
    runs = [spec("vit_base", "scratch", 0)] + [
        spec("vit_tiny", kind, 0) for kind in (*kinds, *coarse)
    ]
    runs += [spec("vit_tiny", kind, seed) for seed in seeds for kind in few]
    runs += [spec("vit_base", "scratch", 1)]
    runs += [spec("vit_tiny", kind, seed) for seed in seeds[1:] for kind in kinds]
    return runs


def study_data(dataset: str) -> Dataset:
    """The data of the set; of what is trained on, a fixed random sample, see ``TRAINED_ON``."""
    data = load_dataset(dataset, download=False)
    if data.info.synthetic:
        raise SwysError("studies need real images; set SWYS_DATA_DIR to a folder with them")
    return replace(data, train=data.train.head(int(TRAINED_ON.get(dataset, 0.5) * len(data.train))))


def reference(
    dataset: str = "pneumoniamnist", only: str = "", folder: str = "", list: bool = False
) -> None:
    """Train the reference set; what is done is skipped, and an unfinished run goes on.

    Args:
        dataset: pneumoniamnist or bloodmnist.
        only: part of the ids of the runs to train.
        folder: where runs are kept; default: runs/<dataset>.
        list: only print the runs with their state and estimated cost.
    """
    runs, out = reference_runs(dataset), Path(folder or RUNS / dataset)
    wanted = [run for run in runs if only in run.id]
    if not wanted:
        raise SwysError(f"no run matches '{only}'; ids look like {runs[0].id}, {runs[1].id}")
    data = study_data(dataset)

    def step(run: RunSpec, timeout: float) -> None:
        print(f"{run.id:28} {run.recipe.epochs:3} epochs  ", end="", flush=True)
        try:
            with FileLock(out / f"{run.id}.lock", timeout=timeout):
                done = run.id in finished_runs(dataset, out)
                minutes = run.cost(len(data.train)) / 60
                print("done" if done else f"about {minutes:.0f} min on two cores", flush=True)
                if not (done or list):
                    entry = train(run, data, out)
                    print(f"    test {entry['last']}  {entry['seconds']:.0f} s", flush=True)
                    write_runs(dataset, out)
        except Timeout:
            print("in training by another process")

    for run in wanted:
        for other in (
            wanted
        ):  # a process that trains the teacher is waited for; if it died, this one goes on
            if other.id == run.teacher and not list and other.id not in finished_runs(dataset, out):
                step(other, timeout=-1)
        step(run, timeout=0)
    if not list:
        write_runs(dataset, out)  # also of a run after which the process was killed


def train(run: RunSpec, data: Dataset, out: Path) -> dict:
    """Train, score and write one run below ``out``; returns its entry."""
    device = config.default_device()
    model = build(
        run.model, data, run.recipe, run.seed, patch_size=7 if run.method == "kd_coarse" else 4
    )
    digest = weights_digest(model)
    curve = TestCurve(out / f"{run.id}.curve.json", data, len(data.train) // run.recipe.batch_size)
    objective, shown = objective_for(run, data, out, device)
    state = out / f"{run.id}.state.pt"
    result = fit(
        model,
        shown,
        run.recipe,
        objective,
        seed=run.seed,
        device=device,
        state_path=state,
        callback=curve,
    )
    facts = {key: getattr(run, key) for key in ("id", "method", "teacher", "seed")}
    facts |= {"model": timm_name(run.model), "recipe": asdict(run.recipe) | METHODS[run.method]}
    facts |= {"initial_weights": digest, "history": curve.beside(result.history)}
    entry = finish(result, facts, data, out)
    state.unlink(missing_ok=True)
    curve.path.unlink(missing_ok=True)
    return entry


def finish(result: TrainingState, facts: dict, data: Dataset, out: Path) -> dict:
    """Score a trained model; write its checkpoint and its entry, ``facts`` and scores; returns the entry."""
    test, history, patches = data.test, facts["history"], result.model.patch_embed
    logits = {
        "last": predict(result.model, test.images),
        "val_chosen": predict(result.chosen(), test.images),
    }
    scores = {
        when: point_scores(values, test.labels, data.info.task) for when, values in logits.items()
    }
    entry = facts | {
        **{"img_size": patches.img_size[0], "patch_size": patches.patch_size[0]},
        **{key: history[-1][key] for key in ("val_accuracy", "val_auc", "seconds")},
        "last": scores["last"],
        "val_chosen": scores["val_chosen"] | {"epoch": training.best_epoch(history)["epoch"]},
        "device": f"{config.device_name(config.default_device())}, {torch.get_num_threads()} threads",
        # the predicted class of each test image, one character each, for paired tests
        "predicted": "".join(np.base_repr(c, 36) for c in logits["last"].argmax(axis=1)),
    }
    card = training.run_card(data, facts["recipe"], facts["seed"], history) | entry
    card["training_hashes"] = pack_hashes(perceptual_hashes(data.train.images))
    save_checkpoint(result.model, out / f"{facts['id']}.safetensors", card, "fp32")
    write_json(out / f"{facts['id']}.run.json", entry)  # last: this file says that the run is done
    return entry


def objective_for(run: RunSpec, data: Dataset, out: Path, device: torch.device):
    """The loss of a run and the data it is trained on; SwysError: the run that teaches is not finished."""
    labels, shown, settings = SupervisedObjective(data.info.multi_label), data, METHODS[run.method]
    if run.method.startswith("few"):
        shown = replace(
            data, train=hide_labels(data.train, FEW / TRAINED_ON.get(data.info.name, 0.5), run.seed)
        )
    if not run.teacher:
        if (
            run.method == "few_scratch"
        ):  # repeated: an epoch has as many steps as that of a taught student
            rows = np.resize(np.flatnonzero(shown.train.labels >= 0), len(data.train))
            shown = replace(data, train=Split(shown.train.images[rows], shown.train.labels[rows]))
        return labels, shown
    with FileLock(out / f"{run.teacher}.lock"):  # a process that trains the teacher is waited for
        path = run_path(run.teacher, data.info.name, out)
    if path is None:
        raise SwysError(
            f"the teacher {run.teacher} is not there; train '--only {run.teacher}' first"
        )
    model, _ = load_checkpoint(path, device, data.info.num_classes)
    with FileLock(out / "views.lock"):
        teacher = cached_teacher(model, data, run.recipe, out / "views", device)
    kind = MapDistiller if "gamma" in settings else SoftTargets
    return kind(teacher, labels, **settings), shown


class TestCurve:
    """Test accuracy and AUC at the end of each epoch, for figures: nothing is chosen by them. Kept through a
    kill."""

    def __init__(self, path: Path, data: Dataset, steps: int):
        self.path, self.data, self.steps = (
            path,
            replace(data, test=data.test.head(TEST_SAMPLE)),
            steps,
        )
        self.rows = json.loads(path.read_text()) if path.is_file() else {}

    def __call__(self, model, seconds: float, step: int) -> None:
        """Called by ``fit``."""
        if step % self.steps == 0:
            logits = predict(model, self.data.test.images, bf16=True)
            scores = point_scores(logits, self.data.test.labels, self.data.info.task)
            self.rows[str(step)] = {"test_accuracy": scores["accuracy"], "test_auc": scores["auc"]}
            write_json(self.path, self.rows)

    def beside(self, history: list[dict]) -> list[dict]:
        """The rows of ``history`` with the test scores of their epochs."""
        return [row | self.rows.get(str(row["steps"]), {}) for row in history]
