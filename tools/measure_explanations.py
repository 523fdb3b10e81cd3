"""Measure the explanations of the shipped checkpoints on real test images; notebooks 4 and 5 show the result.

    python tools/measure_explanations.py [--data DIR]

Writes checkpoints/pneumoniamnist/explanations.json after every part and skips parts that are already there (half an
hour on two CPU cores). The agreement of Grad-CAM maps and empty maps are counted on the whole test split, slower
parts on a fixed sample of it. It refuses the synthetic twin: results on it are never kept beside results on patients.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from swys_utils.benchmark import device_name
from swys_utils.config import CHECKPOINTS, SwysError, default_device, fast_bf16
from swys_utils.data import DEFAULT_DATASET, Split, load_dataset, single_labels
from swys_utils.explain import (
    Method,
    agreement,
    agreement_ladder,
    centre_prior_maps,
    deletion_insertion,
    empty_maps,
    heatmaps,
    mean_interval,
    outcome_groups,
    random_maps,
    randomisation_check,
    rank_methods,
)
from swys_utils.gradcam import grad_cam
from swys_utils.models import load_checkpoint, write_json
from swys_utils.stats import bootstrap_interval
from swys_utils.training import predict

MODELS = {"Base": "vit_base", "Tiny": "vit_tiny", "KD Tiny": "vit_tiny_kd"}
NOISE = 2.0  # grey levels of 255, standard deviation: no reader would see it


def measure(path: Path, root: str | None) -> None:
    data = load_dataset(DEFAULT_DATASET, root=root, download=False)
    if data.info.synthetic:
        raise SwysError("this measures real test images; set SWYS_DATA_DIR to a folder with pneumoniamnist.npz")
    device = default_device()
    models, cards = {}, {}
    for name, model_id in MODELS.items():
        models[name], cards[name] = load_checkpoint(f"{data.info.name}/{model_id}", device)
    weights = {name: [entry["sha256"] for entry in card["files"]] for name, card in cards.items()}
    found = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("weights") != weights:
        facts = {"device": device_name(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
        found = {"dataset": data.info.name, "split": "test", "weights": weights, **facts, "parts": {}}

    def part(key: str, images: int, compute) -> None:
        """One measurement on a fixed sample of the test split; kept at once, so that a stop loses only this one."""
        if key not in found["parts"]:
            start = time.perf_counter()
            sample = data.test.head(images)
            rows = json.loads(json.dumps(compute(sample), default=float))
            found["parts"][key] = {"images": len(sample), "rows": rows}
            write_json(path, found)
            print(f"{key}: {len(sample)} images, {time.perf_counter() - start:.0f} s", flush=True)

    logits_of = {}  # of the last sample: several parts use the same one

    def logits(sample: Split) -> dict:
        key = sample.images.tobytes()
        if key not in logits_of:
            logits_of.clear()
            logits_of[key] = {name: predict(model, sample.images) for name, model in models.items()}
        return logits_of[key]

    def ladder(sample: Split, method: Method, classes: int | None = None) -> list:
        """Agreement with Base for Base's class or a given one, split by who is right; the paired difference last."""
        answers = logits(sample)
        targets = answers["Base"].argmax(axis=1) if classes is None else np.full(len(sample), classes)
        signed = {name: heatmaps(m, sample.images, method, targets, signed=True) for name, m in models.items()}
        rows = []
        for name, student in (("Tiny alone (floor)", "Tiny"), ("KD Tiny", "KD Tiny")):
            groups = outcome_groups(single_labels(sample), answers["Base"], answers[student])
            rows += agreement_ladder({name: (signed["Base"], signed[student])}, groups)
        rows += agreement_ladder({"KD Tiny with Tiny": (signed["Tiny"], signed["KD Tiny"])})
        taught, floor = (agreement(signed["Base"], signed[name]).spearman for name in ("KD Tiny", "Tiny"))
        low, high = bootstrap_interval(lambda a, b: np.nanmean(a) - np.nanmean(b), taught, floor)
        difference = float(np.nanmean(taught - floor))
        return [*rows, {"pair": "KD Tiny - Tiny", "group": "all", "spearman": difference, "low": low, "high": high}]

    def retest(sample: Split, name: str) -> list:
        """How alike are a model's maps of the same image with faint noise? More than this no student can be."""
        noise = np.random.default_rng(0).normal(0, NOISE, sample.images.shape)
        noisy = (sample.images + noise).round().clip(0, 255).astype(np.uint8)
        targets = logits(sample)[name].argmax(axis=1)
        maps = (heatmaps(models[name], images, targets=targets, signed=True) for images in (sample.images, noisy))
        return list(agreement_ladder({f"{name}, faint noise": tuple(maps)}))

    def randomisation(sample: Split, name: str) -> list:
        return list(randomisation_check(models[name], sample.images).rows())

    def empty(sample: Split, name: str) -> list:
        answers = logits(sample)[name]
        maps = heatmaps(models[name], sample.images, targets=answers.argmax(axis=1))
        return list(empty_maps(maps, answers, data.info.class_names))

    def methods(sample: Split, name: str) -> list:
        return list(rank_methods(models[name], sample.images, sample.labels, mosaics=len(sample), steps=7))

    def teacher_faithfulness(sample: Split) -> list:
        """Are the maps that students are compared with true to Base? With its ReLU, a third of them is empty."""
        base, classes = models["Base"], logits(sample)["Base"].argmax(axis=1)
        grid = base.patch_embed.grid_size
        candidates = {
            "grad_cam": heatmaps(base, sample.images, "grad_cam", classes),
            "grad_cam, signed": heatmaps(base, sample.images, "grad_cam", classes, signed=True),
            "grad_cam, block 9, signed": heatmaps(base, sample.images, "grad_cam", classes, block=9, signed=True),
            "legrad": heatmaps(base, sample.images, "legrad", classes),
            "random": random_maps(len(sample), grid),
            "centre prior": centre_prior_maps(len(sample), grid),
        }
        rows = []
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device)):
            for name, maps in candidates.items():
                gap = deletion_insertion(base, sample.images, maps, classes, steps=7).gap
                rows.append(dict(zip(("method", "gap", "low", "high"), (name, *mean_interval(gap)))))
        return rows

    everything, half, some, few = len(data.test), len(data.test) // 2, len(data.test) // 4, 32
    part("agreement, grad_cam", everything, lambda sample: ladder(sample, "grad_cam"))
    for name in models:
        part(f"empty maps, {name}", everything, lambda sample, name=name: empty(sample, name))
    for method in ("hires_cam", "legrad", "attention_rollout"):
        part(f"agreement, {method}", half, lambda sample, method=method: ladder(sample, method))
    part("agreement, grad_cam, block 9", half, lambda sample: ladder(sample, partial(grad_cam, block=9)))
    for c, name in enumerate(data.info.class_names):
        part(f"agreement, grad_cam, class {name}", half, lambda sample, c=c: ladder(sample, "grad_cam", c))
    for name in models:
        part(f"retest, {name}", some, lambda sample, name=name: retest(sample, name))
    for name in models:
        part(f"randomisation, {name}", few, lambda sample, name=name: randomisation(sample, name))
    for name, count in (("Tiny", some), ("KD Tiny", 64)):
        part(f"methods, {name}", count, lambda sample, name=name: methods(sample, name))
    part("methods, Base", 12, lambda sample: methods(sample, "Base"))
    part("faithfulness, Base", 64, teacher_faithfulness)
    print(f"wrote {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with pneumoniamnist.npz (default: SWYS_DATA_DIR)")
    options = parser.parse_args()
    try:
        measure(CHECKPOINTS / DEFAULT_DATASET / "explanations.json", options.data)
    except SwysError as error:
        print(f"measure_explanations: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
