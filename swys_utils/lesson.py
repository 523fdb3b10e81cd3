"""Load or train, and remember: what every notebook does to get a trained model and its predictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .config import CHECKPOINTS, PROJECT_ROOT, Profile, SwysError
from .data import Dataset, Split
from .explain import heatmaps
from .models import SHORT_NAMES, load_checkpoint, shipped_predictions
from .training import FitResult, Recipe, build, fit, predict, reference_recipe

BUILD = PROJECT_ROOT / "build"
CHECKED = 16  # shipped logits that are computed again before the others are believed


@dataclass(frozen=True)
class Trained:
    """A trained model, its card, one sentence that says where it comes from, and its id if it is a shipped one."""

    model: VisionTransformer
    card: dict
    how: str
    shipped: str | None = None


def results_folder(data: Dataset) -> Path:
    """Where results on this data go: ``build/results/<dataset>``, the twin's apart."""
    folder = BUILD / "results" / data.info.results_name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def live_data(data: Dataset, P: Profile) -> Dataset:
    """The data with a validation split cut down to what a demonstration can afford (``full``: all of it)."""
    return replace(data, val=data.val.head({"smoke": 16, "quick": 32}.get(P.name, 0)))


def live_recipe(recipe: Recipe, P: Profile, lr: float = 0, batch_size: int = 0) -> Recipe:
    """The recipe for a minute on a laptop: no mixing or warping, which only pay over many epochs, and three quarters of
    the patch tokens left out in training, which makes a step about four times cheaper. ``full``: the recipe itself.

    Args:
        lr: another peak learning rate; a large model is only shaken by a few steps at the recipe's.
        batch_size: another number of images a step than the profile's (``smoke`` keeps its own).
    """
    if P.name == "full":
        return recipe
    batch_size = batch_size if batch_size and P.name == "quick" else P.batch_size
    return replace(recipe, name="live", batch_size=batch_size, lr=lr or recipe.lr, rotate=0, scale=0, shift=0.05,
                   jitter=0.1, mixup=0, drop_path=0, average_epochs=0, patch_drop=0.75)  # fmt: skip


def train_live(
    model: VisionTransformer,
    data: Dataset,
    P: Profile,
    device: torch.device,
    recipe: Recipe,
    objective: nn.Module | None = None,
    model_id: str | None = None,
) -> FitResult:
    """Train as long as the profile allows: a few steps, a minute, or (``full``) the whole recipe, resumable.

    Args:
        recipe: as from ``live_recipe``.
        model_id: in ``full`` the run is kept under this name, where ``load_or_train`` finds it.
    """
    save_path = run_folder(model_id, data, P) if P.name == "full" and model_id else None
    resume = save_path is not None and (save_path / "state.safetensors").is_file()
    card = {"model": timm_name(model_id)} if model_id else {}
    return fit(model, live_data(data, P), recipe, objective=objective, device=device, card=card,
               live_seconds=P.train_seconds, max_steps=P.train_steps, save_path=save_path, resume=resume)  # fmt: skip


def run_folder(model_id: str, data: Dataset, P: Profile) -> Path:
    """Where a model that is trained here is kept."""
    return BUILD / "runs" / f"{data.info.results_name}-{P.name}" / model_id


def timm_name(model_id: str) -> str:
    """``vit_tiny_kd`` -> ``vit_tiny_patch16_224``: what the id's model is called in timm."""
    return next(name for short, name in SHORT_NAMES.items() if model_id.startswith(short))


def load_or_train(
    model_id: str,
    data: Dataset,
    P: Profile,
    device: torch.device,
    objective: nn.Module | None = None,
    seed: int = 0,
) -> Trained:
    """The shipped checkpoint of this data set if there is one, else a model trained here; says which.

    In ``full`` the reference recipe is trained (or resumed, or loaded when it is done) below ``build/runs``. For a
    data set without a shipped checkpoint the other profiles train briefly, once.

    Args:
        model_id: ``vit_base``, ``vit_tiny``, ``vit_tiny_kd``, ...
        objective: of a student that has to be trained here.
    """
    card_id = f"{data.info.name}/{model_id}"
    if P.name != "full" and (CHECKPOINTS / card_id / "card.json").is_file():
        model, card = load_checkpoint(card_id, device, data.info.num_classes)
        what = card.get("status", "reference")
        how = f"loaded checkpoints/{data.info.name}/{model_id} ({what} weights, {stored_accuracy(card)})"
    else:
        card_id, done = None, run_folder(model_id, data, P)
        if not (done / "card.json").is_file():
            recipe = live_recipe(reference_recipe(model_id, data.info.name), P)
            model = build(timm_name(model_id), data, recipe, seed)
            fit(model, live_data(data, P), recipe, objective=objective, device=device, save_path=done,
                live_seconds=P.train_seconds, max_steps=P.train_steps, card={"model": timm_name(model_id)})  # fmt: skip
        model, card = load_checkpoint(done, device, data.info.num_classes)
        how = f"trained here in profile {P.name}"
        if P.name != "full":
            how += f": no checkpoint is shipped for {data.info.name}, so its numbers are only a demonstration"
    print(f"{model_id}: {how}")
    return Trained(model, card, how, card_id)


def stored_accuracy(card: dict) -> str:
    """What the card says of exactly these weights."""
    stored = card["stored"]
    return f"{stored['accuracy']:.1%} on the real test split" if "accuracy" in stored else "not scored"


def predict_once(trained: Trained, split: Split) -> np.ndarray:
    """Logits float32 (N, C) of ``split``, without computing them twice.

    A shipped checkpoint brings the logits of its own test and validation split along; a few are computed here all the
    same, and have to agree. Other logits are kept below ``build/cache`` so that the next notebook need not wait.

    Raises:
        SwysError: the shipped logits are not those of these weights.
    """
    shipped = shipped_predictions(trained.shipped, split.images) if trained.shipped else None
    if shipped is None:
        return _once("logits", trained, split, "", lambda: predict(trained.model, split.images))
    rows = split.rows(CHECKED)
    difference = float(np.abs(predict(trained.model, split.images[rows]) - shipped[rows]).max())
    if difference > 0.02:
        raise SwysError(
            f"shipped logits of {trained.shipped} differ by {difference:.2g} from the model's; fetch it again"
        )
    print(f"{trained.shipped}: logits of {len(split)} images come with the checkpoint; {len(rows)} of them computed"
          f" here differ by at most {difference:.0e}")  # fmt: skip
    return shipped


def signed_maps_once(trained: Trained, split: Split, targets: np.ndarray) -> np.ndarray:
    """Signed Grad-CAM maps float32 (N, gh, gw) of the classes ``targets`` int (N,), kept like predictions."""
    key = hashlib.sha256(np.asarray(targets, dtype=np.int64).tobytes()).hexdigest()[:16]
    return _once(
        "maps", trained, split, key, lambda: heatmaps(trained.model, split.images, targets=targets, signed=True)
    )


def _once(kind: str, trained: Trained, split: Split, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The file's name is a digest of weights, images and key, so what it holds cannot be out of date."""
    weights = hashlib.sha256("".join(f["sha256"] for f in trained.card["files"]).encode()).hexdigest()[:16]
    images = hashlib.sha256(np.ascontiguousarray(split.images).tobytes()).hexdigest()[:16]
    path = BUILD / "cache" / f"{kind}-{weights}-{images}{key and '-' + key}.npy"
    if path.is_file():
        return np.load(path)
    values = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npy")
    np.save(part, values)
    part.replace(path)
    return values


def shipped_measurement(dataset_name: str, kind: str) -> dict | None:
    """``explanations`` or ``matching``: a long measurement on real test images that is shipped, and where it is from.

    None, with a line that says so, for a data set without one.
    """
    path = CHECKPOINTS / dataset_name / f"{kind}.json"
    if not path.is_file():
        print(f"no {kind} measurement of {dataset_name} is shipped")
        return None
    found = json.loads(path.read_text())
    print(f"{path.relative_to(CHECKPOINTS.parent)}: real test split, {found['device']}, {found['threads']} threads")
    return found


def reference_runs(dataset_name: str) -> list[dict]:
    """The runs of ``checkpoints/<dataset>/reference_runs.json``; none when the file is not shipped."""
    path = CHECKPOINTS / dataset_name / "reference_runs.json"
    return json.loads(path.read_text())["runs"] if path.is_file() else []
