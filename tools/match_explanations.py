"""Can a student be taught its teacher's reasons? Short continued training of Tiny in three ways, over several seeds.

    python tools/match_explanations.py [--seeds 0 1 2] [--data DIR]

Every run starts from the shipped Tiny (trained alone), sees the same training images in an order that depends on the
seed, and differs only in its loss: labels; labels and soft targets; both and the teacher's Grad-CAM maps. Base's
logits and maps of those images are computed once, so images are not augmented. Each run is scored on the whole test
split, which chose nothing. Writes checkpoints/pneumoniamnist/matching.json after every run and skips finished ones
(half an hour on two CPU cores); the explanation-matched student of the first seed goes to build/matched.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from swys_utils.benchmark import device_name
from swys_utils.config import CHECKPOINTS, PROFILES, SwysError, default_device, fast_bf16
from swys_utils.data import DEFAULT_DATASET, Split, load_dataset, single_labels, to_model_input
from swys_utils.distillation import correlation, logits_and_map, soft_target_loss
from swys_utils.explain import agreement, heatmaps, mean_interval, prediction_agreement
from swys_utils.lesson import Trained, load_or_train, predict_once, signed_maps_once
from swys_utils.models import save_checkpoint, write_json
from swys_utils.stats import t_interval
from swys_utils.training import evaluate, predict, reference_recipe, run_card, seed_everything

ARMS = ("labels", "soft targets", "explanations")
RECIPE = {"images": 768, "epochs": 2, "batch_size": 32, "lr": 2e-4, "weight_decay": 0.05, "alpha": 0.5,
          "temperature": 2.0, "gamma": 1.0, "label_smoothing": 0.1}  # fmt: skip


def taught_by(teacher: Trained, split: Split, device) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's logits (N, C) and its signed maps (N, tokens) for the class that it predicts."""
    batches = [split.images[start : start + 32] for start in range(0, len(split), 32)]
    found = [
        logits_and_map(teacher.model, to_model_input(batch, device=device), None, create_graph=False)
        for batch in tqdm(batches, desc="Base explains its training images", unit="batch", mininterval=5)
    ]
    return tuple(torch.cat(values).cpu() for values in zip(*found))


def continue_training(student, split: Split, taught, arm: str, seed: int, recipe: dict, device) -> list[float]:
    """Train ``student`` in place; returns the loss of each step."""
    seed_everything(seed)
    labels = torch.as_tensor(single_labels(split))
    inputs = to_model_input(split.images, device="cpu")
    order = np.concatenate([np.random.default_rng([seed, e]).permutation(len(labels)) for e in range(recipe["epochs"])])
    steps = len(order) // recipe["batch_size"]
    optimizer = torch.optim.AdamW(student.parameters(), lr=recipe["lr"], weight_decay=recipe["weight_decay"])
    student.train()
    losses = []
    for step in tqdm(range(steps), desc=f"{arm}, seed {seed}", unit="step", mininterval=5):
        warm = min(1, (step + 1) / (steps / 10))
        optimizer.param_groups[0]["lr"] = recipe["lr"] * warm * (1 + math.cos(math.pi * step / steps)) / 2
        rows = torch.as_tensor(order[step * recipe["batch_size"] : (step + 1) * recipe["batch_size"]])
        x, y, teacher_logits, teacher_map = (t[rows].to(device) for t in (inputs, labels, *taught))
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
            if arm == "explanations":
                logits, student_map = logits_and_map(student, x, teacher_logits.argmax(dim=1), create_graph=True)
            else:
                logits = student(x)
        logits = logits.float()
        loss = F.cross_entropy(logits, y, label_smoothing=recipe["label_smoothing"])
        if arm != "labels":
            soft = soft_target_loss(logits, teacher_logits, recipe["temperature"])
            loss = (1 - recipe["alpha"]) * loss + recipe["alpha"] * soft
        if arm == "explanations":
            loss = loss + recipe["gamma"] * (1 - correlation(student_map, teacher_map).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    student.eval()
    return losses


def score(student, test: Split, teacher_logits: np.ndarray, teacher_maps: np.ndarray, task: str) -> dict:
    """What the student kept: accuracy, answers and maps like the teacher's."""
    logits = predict(student, test.images)
    metrics = evaluate(logits, test.labels, task)
    maps = heatmaps(student, test.images, targets=teacher_logits.argmax(axis=1), signed=True)
    looks = agreement(teacher_maps, maps)
    same, kl = prediction_agreement(teacher_logits, logits)
    return {
        "accuracy": metrics.accuracy, "accuracy_interval": metrics.accuracy_interval, "auc": metrics.auc,
        "same_prediction": same["mean"], "kl": kl["mean"], "spearman": mean_interval(looks.spearman),
        "top_iou": mean_interval(looks.iou),
    }  # fmt: skip


def compare(runs: dict) -> list[dict]:
    """Paired differences between ways of teaching, run by run: their mean, each seed's, and an interval over seeds.

    The interval is Student's t over seeds, since runs differ far more than resampled images do.
    """

    def value(arm: str, seed: str, what: str) -> float:
        run = runs[f"{arm}, {seed}"]
        return run["spearman"][0] if what == "agreement" else run["accuracy"]

    rows = []
    seeds = [key.removeprefix(f"{ARMS[-1]}, ") for key in runs if key.startswith(f"{ARMS[-1]}, seed")]
    for a, b in (("soft targets", "labels"), ("explanations", "labels"), ("explanations", "soft targets")):
        for what in ("agreement", "accuracy"):
            each = np.array([value(a, seed, what) - value(b, seed, what) for seed in seeds])
            if len(each) > 1:
                low, high = t_interval(each)
                row = {"difference": f"{a} - {b}", "of": what, "mean": float(each.mean()), "low": low, "high": high}
                rows.append(row | {"seeds": each.tolist()})
    return rows


def measure(path: Path, seeds: list[int], root: str | None) -> None:
    data = load_dataset(DEFAULT_DATASET, root=root, download=False)
    if data.info.synthetic:
        raise SwysError("this measures real test images; set SWYS_DATA_DIR to a folder with pneumoniamnist.npz")
    device = default_device()
    teacher, alone = (load_or_train(name, data, PROFILES["quick"], device) for name in ("vit_base", "vit_tiny"))
    weights = [file["sha256"] for file in teacher.card["files"] + alone.card["files"]]
    found = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("weights") != weights or found.get("recipe") != RECIPE:
        facts = {"device": device_name(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
        found = {"dataset": data.info.name, "split": "test", "images": len(data.test), "recipe": RECIPE,
                 "weights": weights, **facts, "runs": {}}  # fmt: skip
    lesson = data.train.head(RECIPE["images"])
    taught = taught_by(teacher, lesson, device)
    teacher_logits = predict_once(teacher, data.test)
    teacher_maps = signed_maps_once(teacher, data.test, teacher_logits.argmax(axis=1))

    def keep(key: str, model, seconds: float) -> None:
        result = score(model, data.test, teacher_logits, teacher_maps, data.info.task)
        found["runs"][key] = json.loads(json.dumps(result | {"seconds": seconds}, default=float))
        found["differences"] = compare(found["runs"])
        write_json(path, found)
        print(f"{key}: agreement {result['spearman'][0]:.3f}, accuracy {result['accuracy']:.1%}", flush=True)

    if "start" not in found["runs"]:
        keep("start", alone.model, 0)
    for seed in seeds:
        for arm in ARMS:
            key = f"{arm}, seed {seed}"
            if key in found["runs"]:
                continue
            student, start = deepcopy(alone.model), time.perf_counter()
            continue_training(student, lesson, taught, arm, seed, RECIPE, device)
            keep(key, student, round(time.perf_counter() - start))
            if arm == "explanations" and seed == seeds[0]:
                card = run_card(data, reference_recipe("vit_tiny", data.info.name), seed, [])
                card |= {"model": alone.card["model"], "method": "kd_explain", "recipe": RECIPE,
                         "started_from": alone.shipped, "teacher": teacher.shipped}  # fmt: skip
                save_checkpoint(student, Path("build/matched"), card)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", help="folder with pneumoniamnist.npz (default: SWYS_DATA_DIR)")
    options = parser.parse_args()
    try:
        measure(CHECKPOINTS / DEFAULT_DATASET / "matching.json", options.seeds, options.data)
    except SwysError as error:
        print(f"match_explanations: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
