"""Do other libraries' faithfulness scores tell the same story as ours? The same maps, three scores.

    python tools/compare_metrics.py [--images 16] [--data DIR]

ours: deletion/insertion gap of explain.py (whole patches, blurred fill). torchcam: its deletion/insertion with the
same fill, but in order of single pixels of the enlarged map. ROAD: grad-cam's ROADCombined (Rong et al. 2022), which
fills pixels in from their neighbours and scores the logit's probability. Adds "other libraries, Tiny" to
checkpoints/pneumoniamnist/explanations.json.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.stats import spearmanr
from torchcam.metrics import DeletionInsertionMetric
from tqdm.auto import tqdm

from swys_utils.config import CHECKPOINTS
from swys_utils.data import DEFAULT_DATASET, load_dataset, to_model_input
from swys_utils.explain import (
    Rows,
    blurred,
    centre_prior_maps,
    deletion_insertion,
    heatmaps,
    mean_interval,
    random_maps,
)
from swys_utils.models import load_checkpoint, write_json

PERCENTILES = [20, 40, 60, 80]


class GivenMaps:
    """What torchcam asks of an extractor, for maps that are there already."""

    def __init__(self, model, maps):
        self.model, self.maps = model, maps

    def __call__(self, *args, **kwargs):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


def torchcam_gap(model, inputs, maps, classes) -> np.ndarray:
    """Insertion AUC - deletion AUC of each image, (N,)."""
    gaps = []
    for x, heat, c in zip(inputs, maps, classes):
        metric = DeletionInsertionMetric(
            GivenMaps(model, torch.as_tensor(heat)[None]), logits_fn=lambda z: z.softmax(dim=1), steps=14,
            baseline=lambda image: blurred(image, 16), batch_size=32,
        )  # fmt: skip
        metric.update(x[None], int(c))
        scores = metric.summary()
        gaps.append(scores["insertion_auc"] - scores["deletion_auc"])
    return np.array(gaps)


def road(model, inputs, maps, classes) -> np.ndarray:
    """ROADCombined of each image, (N,): higher is more faithful."""
    torch.manual_seed(0)  # its noise
    size = tuple(inputs.shape[-2:])
    large = F.interpolate(torch.as_tensor(maps)[:, None], size=size, mode="bilinear", align_corners=False)[:, 0].numpy()
    targets = [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    return ROADCombined(PERCENTILES)(inputs, large, targets, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="of the test split, a fixed sample")
    parser.add_argument("--data", help="folder with pneumoniamnist.npz (default: SWYS_DATA_DIR)")
    options = parser.parse_args()
    data = load_dataset(DEFAULT_DATASET, root=options.data, download=False)
    model, _ = load_checkpoint(f"{DEFAULT_DATASET}/vit_tiny")
    sample = data.test.head(options.images)
    inputs, grid = to_model_input(sample.images), model.patch_embed.grid_size
    with torch.no_grad():
        classes = model(inputs).argmax(dim=1).numpy()
    candidates = {name: heatmaps(model, inputs, name, classes) for name in ("grad_cam", "legrad")}
    candidates |= {"centre prior": centre_prior_maps(len(sample), grid), "random": random_maps(len(sample), grid)}
    rows = Rows()
    for name, maps in tqdm(candidates.items(), unit="method"):
        ours = deletion_insertion(model, inputs, maps, classes).gap
        theirs = {"torchcam": torchcam_gap(model, inputs, maps, classes), "ROAD": road(model, inputs, maps, classes)}
        row = {"method": name}
        for score, values in {"ours": ours, **theirs}.items():
            row |= dict(zip((score, f"{score} low", f"{score} high"), mean_interval(values)))
        row |= {f"ours with {score}": float(spearmanr(ours, values).statistic) for score, values in theirs.items()}
        rows.append(row)
    print(rows)
    path = CHECKPOINTS / DEFAULT_DATASET / "explanations.json"
    if path.is_file() and not data.info.synthetic:
        found = json.loads(path.read_text())
        found["parts"]["other libraries, Tiny"] = {"images": len(sample), "rows": list(rows)}
        write_json(path, found)


if __name__ == "__main__":
    main()
