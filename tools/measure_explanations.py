"""Measure the explanations of the shipped checkpoints on real test images; notebooks 4 and 5 show the result.

    python tools/measure_explanations.py [--images 256] [--data DIR]

Writes checkpoints/pneumoniamnist/explanations.json after every part and skips parts that are already there (half an
hour on two CPU cores). It refuses the synthetic twin: results on it are never kept beside results on patients.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from swys_utils.benchmark import device_name
from swys_utils.config import CHECKPOINTS, SwysError, default_device
from swys_utils.data import DEFAULT_DATASET, load_dataset
from swys_utils.explain import agreement, agreement_ladder, empty_maps, heatmaps, randomisation_check, rank_methods
from swys_utils.models import load_checkpoint, write_json
from swys_utils.stats import bootstrap_interval
from swys_utils.training import predict

MODELS = {"Base": "vit_base", "Tiny": "vit_tiny", "KD Tiny": "vit_tiny_kd"}
METHODS = ("grad_cam", "hires_cam", "attention_rollout", "legrad")


def measure(path: Path, images: int, root: str | None) -> None:
    data = load_dataset(DEFAULT_DATASET, root=root, download=False)
    if data.info.synthetic:
        raise SwysError("this measures real test images; set SWYS_DATA_DIR to a folder with pneumoniamnist.npz")
    device = default_device()
    models, cards = {}, {}
    for name, model_id in MODELS.items():
        models[name], cards[name] = load_checkpoint(f"{data.info.name}/{model_id}", device)
    weights = {name: [entry["sha256"] for entry in card["files"]] for name, card in cards.items()}
    sample = data.test.head(images)
    few = data.test.head(images // 4)
    found = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("weights") != weights or found.get("images") != len(sample):
        facts = {"device": device_name(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
        found = {"dataset": data.info.name, "split": "test", "images": len(sample), "weights": weights, **facts}

    def part(key: str, compute) -> None:
        if key not in found:
            print(key, "...", flush=True)
            found[key] = json.loads(json.dumps(compute(), default=float))
            write_json(path, found)

    teacher_class = predict(models["Base"], sample.images).argmax(axis=1)

    def ladder(method: str) -> dict:
        """Agreement with Base for Base's class; the paired difference between the two students."""
        signed = {name: heatmaps(m, sample.images, method, teacher_class, signed=True) for name, m in models.items()}
        rows = agreement_ladder({
            "Tiny alone (floor)": (signed["Base"], signed["Tiny"]),
            "KD Tiny": (signed["Base"], signed["KD Tiny"]),
            "KD Tiny with Tiny": (signed["Tiny"], signed["KD Tiny"]),
        })  # fmt: skip
        taught, floor = (agreement(signed["Base"], signed[name]).spearman for name in ("KD Tiny", "Tiny"))
        low, high = bootstrap_interval(lambda a, b: np.nanmean(a) - np.nanmean(b), taught, floor)
        return {"rows": list(rows), "difference": [float(np.nanmean(taught - floor)), low, high]}

    def randomisation(name: str) -> dict:
        result = randomisation_check(models[name], few.images)
        return {
            "stages": list(result.stages),
            "spearman": np.nanmean(result.spearman, axis=1).tolist(),
            "images": len(few),
        }

    def empty(name: str) -> list:
        logits = predict(models[name], sample.images)
        maps = heatmaps(models[name], sample.images, targets=logits.argmax(axis=1))
        return list(empty_maps(maps, logits, data.info.class_names))

    for method in METHODS:
        part(f"agreement, {method}", lambda method=method: ladder(method))
    for name in models:
        part(f"empty maps, {name}", lambda name=name: empty(name))
    for name in ("Tiny", "KD Tiny", "Base"):
        part(f"randomisation, {name}", lambda name=name: randomisation(name))
    for name in ("Tiny", "KD Tiny", "Base"):
        part(f"methods, {name}", lambda name=name: list(
            rank_methods(models[name], few.images, few.labels, mosaics=len(few), steps=7)))  # fmt: skip
    print(f"wrote {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, default=256, help="of the test split, a fixed sample (a quarter for the slow parts)"
    )
    parser.add_argument("--data", help="folder with pneumoniamnist.npz (default: SWYS_DATA_DIR)")
    options = parser.parse_args()
    try:
        measure(CHECKPOINTS / DEFAULT_DATASET / "explanations.json", options.images, options.data)
    except SwysError as error:
        print(f"measure_explanations: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
