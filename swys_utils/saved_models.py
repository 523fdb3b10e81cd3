"""The model that a notebook goes on with: a shipped one, one trained live, or one trained here."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .cards import checkpoint_ids
from .config import BUILD, Profile
from .data import Dataset
from .models import SERIES, load_checkpoint, save_checkpoint, timm_name
from .recipe import Recipe, SupervisedObjective, reference_recipe
from .resume import objective_settings
from .training import build, fit, run_card


class SavedModel(NamedTuple):
    """A trained model in eval mode, its card, and where it comes from in one sentence."""

    model: VisionTransformer
    card: dict
    how: str


def load_or_train(
    name: str,
    data: Dataset,
    profile: Profile,
    device: torch.device | str,
    objective: nn.Module | None = None,
) -> SavedModel:
    """The model that a notebook goes on with.

    It is the shipped one if there is one for this data set. If not, it is the model that the reader
    has trained live and :func:`keep_live` has kept. If there is none either, it is trained here,
    once. In the profile ``full`` it is always trained here, but for a student without the objective
    that teaches it, where one is shipped.

    Args:
        name: a key of ``models.SERIES``.
        data: what the model is for.
        profile: how long to train.
        device: where the model goes.
        objective: how it is taught, if it is trained here; None: by the labels. A live model is
            taken only with None, because it was taught by the labels.

    Raises:
        SwysError: unknown name.
    """
    known = SERIES.get(name)
    untaught = objective is None and known is not None and known.objective != "labels"
    if is_shipped(name, data) and (profile.name != "full" or untaught):
        checkpoint = f"{data.info.name}/{name}"
        return _load(checkpoint, data, device, f"{name}: loaded checkpoints/{checkpoint}")
    if profile.name != "full":
        live = _folder(name, data, profile, "live")
        if objective is None and (live / "card.json").is_file():
            how = f"{name}: trained here, {data.info.name}, labels, profile {profile.name}"
            with _turn(live):
                return _load(live, data, device, how)
    return train_here(name, data, profile, device, objective)


def is_shipped(name: str, data: Dataset) -> bool:
    """Whether the repository has this model for this data set.

    Args:
        name: a key of ``models.SERIES``.
        data: what the model is for.
    """
    return f"{data.info.name}/{name}" in checkpoint_ids()


def keep_live(
    name: str,
    data: Dataset,
    profile: Profile,
    model: VisionTransformer,
    recipe: Recipe,
    history: list[dict],
) -> None:
    """Keep a model that was trained in front of the reader, for ``load_or_train``.

    Nothing is kept where ``load_or_train`` would not take it: where the model is shipped, and in
    the profile ``full``, where it is trained by the whole recipe.

    Args:
        name: a key of ``models.SERIES``; the patches may be other than this name says.
        data: what the model was trained on.
        profile: in force when it was trained.
        model: after its training on the labels.
        recipe: of its training.
        history: of its training.

    Raises:
        SwysError: unknown name.
    """
    if profile.name == "full" or is_shipped(name, data):
        return
    folder = _folder(name, data, profile, "live")
    card = {"model": timm_name(name)} | run_card(data, asdict(recipe), 0, history)
    with _turn(folder):
        save_checkpoint(model, folder, card, storage="fp32")


def train_here(
    name: str,
    data: Dataset,
    profile: Profile,
    device: torch.device | str,
    objective: nn.Module | None = None,
    patch_size: int | None = None,
) -> SavedModel:
    """A model that is trained once, for a minute by the profile's clock, and kept below ``build/``.

    In the profile ``full`` the training is the whole reference recipe, each view a new one.
    Notebooks may run at once: one of them trains, the others wait for its model.

    Args:
        name: a key of ``models.SERIES``.
        data: what the model is for.
        profile: how long to train.
        device: where the model is trained.
        objective: what it is trained by; None: the loss on the labels. Another objective, other
            settings of it or another recipe give another model.
        patch_size: side of a patch, px, such as a teacher's; None is what the name says.

    Raises:
        SwysError: unknown name, or what ``fit`` refuses.
    """
    taught = "labels" if objective is None else type(objective).__name__
    how = f"{name}: trained here, {data.info.name}, {taught}, profile {profile.name}"
    if objective is None:
        objective = SupervisedObjective(data.info.multi_label)
    recipe = _recipe_for(name, data, profile)
    settings = json.dumps([objective_settings(objective), asdict(recipe)], sort_keys=True)
    geometry = "" if patch_size is None else f"patch{patch_size}-"
    folder = _folder(name, data, profile, f"{geometry}{zlib.crc32(settings.encode()):08x}")
    with _turn(folder):
        if not (folder / "card.json").is_file():
            few = replace(data, val=data.val.sample(profile.eval_images))  # some have ten thousand
            model = build(name, few, recipe, patch_size=patch_size)
            state_path = folder / "state.pt"
            state = fit(model, few, recipe, objective, device=device, state_path=state_path)
            card = {"model": timm_name(name)} | run_card(few, asdict(recipe), 0, state.history)
            save_checkpoint(model, folder, card, storage="fp32")
            state_path.unlink()
        return _load(folder, data, device, how)


def _recipe_for(name: str, data: Dataset, profile: Profile) -> Recipe:
    recipe = replace(reference_recipe(name, data.info.name), seconds=profile.minute, views=0)
    if profile.minute:
        recipe = replace(recipe, batch_size=32)  # more steps in the time
    return recipe


def _load(
    checkpoint: str | Path, data: Dataset, device: torch.device | str, how: str
) -> SavedModel:
    model, card = load_checkpoint(checkpoint, device, data.info.num_classes)
    return SavedModel(model, card, how)


def _turn(folder: Path) -> FileLock:
    """A lock by which processes that train, save or load one model take turns."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")


def _folder(name: str, data: Dataset, profile: Profile, kind: str) -> Path:
    """Where a model is kept: another data file of the same name has another folder."""
    images = data.train.images[:256].tobytes()
    labels = data.train.labels.tobytes()
    fingerprint = zlib.crc32(labels, zlib.crc32(images))
    source = f"{data.info.results_name}-{profile.name}-{fingerprint:08x}"
    return BUILD / "runs" / source / f"{name}-{kind}"
