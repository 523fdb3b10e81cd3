"""From how many images on does the large model pay? ``swys study amount``.

Base and Tiny learn from more and more images of one data set. Every run is shown equally many
images in all, so where there are fewer, each of them comes more often. With another number of
shown images, Tiny can be given the time that Base took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from swys_utils.config import CHECKPOINTS, SwysError, default_device, device_name
from swys_utils.data import Dataset
from swys_utils.metrics import point_scores
from swys_utils.recipe import Recipe, reference_recipe
from swys_utils.results import as_table
from swys_utils.training import build, fit, predict

from .reference import real_data, refuse_several_labels
from .result_files import Entries
from .runs import RUNS, refuse_no_seeds

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the training images
SHOWN = 48_000  # images that a run is shown, unless another number is asked for
PATCH_SIZE = 7  # px; a third of the cost of the reference set's 4
FULL_TOKENS = 0.25  # of the passes, the last ones, show all patches: at least one of four
WATCHED = 200  # validation images that are scored after each pass; they choose nothing


@dataclass(frozen=True)
class AmountRun:
    """One run.

    Attributes:
        model: an id in ``models.SERIES``.
        images: number of training images.
        shown: number of images that it is shown: the same ones again and again.
        seed: of the weights and the order of the images.
    """

    model: str
    images: int
    shown: int
    seed: int

    @property
    def id(self) -> str:
        """``<model>/<images>/<shown>/seed<k>``."""
        return f"{self.model}/{self.images}/{self.shown}/seed{self.seed}"


def amount(
    dataset: str = "bloodmnist",
    only: str = "",
    seeds: int = 1,
    shown: int = SHOWN,
    folder: str = "",
) -> None:
    """Train Base and Tiny on 1/8, 1/4, 1/2 and all of the training images; print their scores.

    What is done is skipped, and a killed run goes on.

    Args:
        dataset: any 2D MedMNIST name with one label an image.
        only: part of the ids of the runs to train; "none" trains nothing.
        seeds: number of runs of each model with each number of images.
        shown: number of images that each run is shown.
        folder: where unfinished runs are kept; default: runs/<dataset>/amount.

    Raises:
        SwysError: no real images, several labels an image, no seed, or no such run.
    """
    refuse_no_seeds(seeds)
    data = real_data(dataset)
    refuse_several_labels(data)
    out = Path(folder or RUNS / dataset / "amount")
    done = Entries(CHECKPOINTS / dataset / "amount.json", "runs")
    counts = [int(share * len(data.train)) for share in SHARES]
    runs = []
    for seed in range(seeds):
        for count in counts:
            for model in ("vit_tiny", "vit_base"):
                runs.append(AmountRun(model, count, shown, seed))
    wanted = [run for run in runs if only in run.id]
    if not wanted and only != "none":
        raise SwysError(f"no run matches '{only}'; ids look like {runs[0].id}")
    for run in wanted:
        _train_once(run, data, out, done)
    print(as_table(summary(done.read())))


def amount_recipe(run: AmountRun, dataset: str) -> Recipe:
    """The recipe of the reference set, as long as it takes to show as many images as a run shows.

    Args:
        run: its model, its number of training images, and how many it shows.
        dataset: name of the data set.
    """
    recipe = reference_recipe(run.model, dataset)
    passes = max(1, round(run.shown / run.images))
    return replace(recipe, epochs=passes, views=0, full_tokens=FULL_TOKENS)


def summary(entries: Sequence[dict]) -> list[dict]:
    """One row a run, few images first.

    Args:
        entries: of amount.json.

    Returns:
        Rows for ``results.as_table``: scores on the test split, and the training loss at the end.
    """
    rows = []
    for entry in sorted(entries, key=_place):
        row = {
            "images": entry["images"],
            "passes": entry["recipe"]["epochs"],
            "model": entry["model"],
            "seed": entry["seed"],
            "accuracy": f"{entry['test']['accuracy']:.1%}",
            "AUC": f"{entry['test']['auc']:.4f}",
            "training loss": entry["train_loss"],
            "minutes": f"{entry['seconds'] / 60:.0f}",
        }
        rows.append(row)
    return rows


def _place(entry: dict) -> tuple:
    """Where a run stands in the table."""
    return entry["images"], entry["shown"], entry["model"], entry["seed"]


def _train_once(run: AmountRun, data: Dataset, out: Path, done: Entries) -> None:
    """Train and score one run, unless that is done or another process does it."""
    state_path = out / f"{run.id.replace('/', ', ')}.state.pt"
    done.train_once(
        run.id,
        state_path,
        train=lambda: asdict(run) | _trained(run, data, state_path),
    )


def _trained(run: AmountRun, data: Dataset, state_path: Path) -> dict:
    """Train one run; returns its scores."""
    recipe = amount_recipe(run, data.info.name)
    part = replace(data, train=data.train.sample(run.images), val=data.val.sample(WATCHED))
    model = build(run.model, data, recipe, run.seed, patch_size=PATCH_SIZE)
    device = default_device()
    state = fit(model, part, recipe, seed=run.seed, device=device, state_path=state_path)
    logits = predict(model, data.test.images)
    scores = point_scores(logits, data.test.labels, data.info.task)
    last = state.history[-1]
    return {
        "test": {name: round(value, 5) for name, value in scores.items()},
        "train_loss": round(last["train_loss"], 5),
        "recipe": asdict(recipe),
        "patch_size": PATCH_SIZE,
        "seconds": round(last["seconds"], 1),
        "device": f"{device_name(device)}, {torch.get_num_threads()} threads",
    }
