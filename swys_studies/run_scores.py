"""What is kept of a run: its curve on test images while it trains, its scores when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from swys.fingerprints import pack_hashes, perceptual_hashes
from swys_utils.config import default_device, device_name, write_json
from swys_utils.data import Dataset
from swys_utils.metrics import point_scores
from swys_utils.models import save_checkpoint, weights_digest
from swys_utils.resume import TrainingState
from swys_utils.training import best_epoch, predict, run_card

from .result_files import read_json
from .runs import recalls

# test images that are asked again and again: all of PneumoniaMNIST, a fixed sample of more
TEST_SAMPLE = 624


def finish(result: TrainingState, metadata: dict, data: Dataset, out: Path) -> dict:
    """Score a trained model; write its checkpoint, and its entry beside it.

    Args:
        result: the finished training.
        metadata: what the entry says of the run beside its scores: at least ``id``, ``method``,
            ``teacher``, ``seed``, ``model``, ``recipe`` and ``history``.
        data: the test images are scored, the training images' fingerprints are kept.
        out: folder of the runs.

    Returns:
        The entry.
    """
    history = metadata["history"]
    patches = result.model.patch_embed
    last = predict(result.model, data.test.images)
    val_chosen = predict(result.chosen(), data.test.images)
    val_chosen_scores = point_scores(val_chosen, data.test.labels, data.info.task)
    device = device_name(default_device())
    answers = last.argmax(axis=1)
    # the predicted class of each test image, one character each, for paired tests
    predicted = "".join(np.base_repr(index, 36) for index in answers)
    entry = {
        **metadata,
        "img_size": patches.img_size[0],
        "patch_size": patches.patch_size[0],
        "val_accuracy": history[-1]["val_accuracy"],
        "val_auc": history[-1]["val_auc"],
        "seconds": history[-1]["seconds"],
        "last": point_scores(last, data.test.labels, data.info.task),
        "val_chosen": val_chosen_scores | {"epoch": best_epoch(history)["epoch"]},
        "device": f"{device}, {torch.get_num_threads()} threads",
        "predicted": predicted,
        "dataset": data.info.name,
        "weights": weights_digest(result.model),
        "recall": recalls(answers, data.test.labels, data.info.num_classes),
    }
    card = run_card(data, metadata["recipe"], metadata["seed"], history) | entry
    card["training_hashes"] = pack_hashes(perceptual_hashes(data.train.images))
    save_checkpoint(result.model, out / f"{metadata['id']}.safetensors", card, "fp32")
    write_json(out / f"{metadata['id']}.run.json", entry)  # last: it says that the run is done
    return entry


class CurveOnTest:
    """Test accuracy and AUC at the end of each epoch, for figures; a kill does not lose it.

    Nothing is chosen by these scores.

    Attributes:
        path: JSON file that keeps the curve of an unfinished run.
        data: data of the reference set with a sample of its test images.
        steps: number of steps of an epoch.
        scores: number of steps so far, as text -> ``test_accuracy`` and ``test_auc``.
    """

    def __init__(self, path: Path, data: Dataset, steps: int):
        self.path = path
        self.data = replace(data, test=data.test.sample(TEST_SAMPLE))
        self.steps = steps
        self.scores: dict[str, dict] = read_json(path) if path.is_file() else {}

    def __call__(self, model: VisionTransformer, seconds: float, step: int) -> None:
        """Score the model at the end of an epoch; called by ``training.fit``.

        Args:
            model: the model in training.
            seconds: seconds of training so far.
            step: number of steps so far.
        """
        if step % self.steps != 0:
            return
        test = self.data.test
        logits = predict(model, test.images, bf16=True)
        scores = point_scores(logits, test.labels, self.data.info.task)
        self.scores[str(step)] = {
            "test_accuracy": scores["accuracy"],
            "test_auc": scores["auc"],
        }
        write_json(self.path, self.scores)

    def beside(self, history: Sequence[dict]) -> list[dict]:
        """The rows of a history with the test scores of their epochs.

        Args:
            history: one dict an epoch, as in ``resume.TrainingState``.
        """
        return [row | self.scores.get(str(row["steps"]), {}) for row in history]
