"""The model that a notebook goes on with: a shipped one, one trained live, or one trained here."""

from __future__ import annotations

import zlib
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from timm.models.vision_transformer import VisionTransformer

from . import models
from .cards import checkpoint_ids
from .config import BUILD, Profile
from .data import Dataset
from .recipe import reference_recipe
from .training import build, fit, run_card


class SavedModel(NamedTuple):
    """A trained model, its card, and where it comes from in one sentence."""

    model: VisionTransformer
    card: dict
    how: str


def load_or_train(
    name: str, data: Dataset, profile: Profile, device, objective=None, live=None, **size
) -> SavedModel:
    """The shipped checkpoint of this data set, else a model that is trained here or was before.

    ``name`` starts with ``vit_base`` or ``vit_tiny``; ``_p7`` at its end: patches of 7 px. ``objective``,
    ``size`` (patch_size, ...): for training where nothing is shipped, a minute by the profile's clock; in
    ``full`` the whole recipe, each view a new one. ``live``: model, recipe and history, kept and taken
    instead of that minute (not in ``full``).
    """
    shipped, seen = (
        f"{data.info.name}/{name}",
        zlib.crc32(np.ascontiguousarray(data.train.images[:256])),
    )
    folder = BUILD / "runs" / f"{data.info.results_name}-{profile.name}-{seen:08x}" / name
    if profile.name != "full" and shipped in checkpoint_ids():
        model, card = models.load_checkpoint(shipped, device, data.info.num_classes)
        return SavedModel(model, card, f"{name}: loaded checkpoints/{shipped}")
    live, long = None if profile.name == "full" else live, models.timm_name(name)
    if live is None and not (folder / "card.json").is_file():
        recipe = replace(reference_recipe(name, data.info.name), seconds=profile.minute, views=0)
        recipe = (
            replace(recipe, batch_size=32) if profile.minute else recipe
        )  # more steps in the time
        data = replace(data, val=data.val.head(profile.eval_images))  # some sets have ten thousand
        size = {"patch_size": 7} | size if name.endswith("_p7") else size
        model = build(long if name.startswith(long) else name[:8], data, recipe, **size)
        result = fit(model, data, recipe, objective, device=device, state_path=folder / "state.pt")
        live = model, recipe, result.history
    with FileLock(BUILD / "runs.lock"):  # notebooks may run at once
        if live:
            model, known = (
                live[0].eval(),
                {"model": long} | run_card(data, asdict(live[1]), 0, live[2]),
            )
            card = models.save_checkpoint(model, folder, known, storage="fp32")
            (folder / "state.pt").unlink(missing_ok=True)  # another process may have been quicker
        else:
            model, card = models.load_checkpoint(folder, device, data.info.num_classes)
    taught = "labels" if objective is None else type(objective).__name__
    return SavedModel(
        model, card, f"{name}: trained here, {data.info.name}, {taught}, profile {profile.name}"
    )
