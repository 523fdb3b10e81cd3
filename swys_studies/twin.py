"""Make the embedded twin, a synthetic stand-in for PneumoniaMNIST, and check it: ``swys study twin``.

The generator is a class-conditional flow-matching model (Lipman et al. 2023), a U-Net of four million
parameters, fitted to the real *training* split and to nothing else. It starts from Gaussian noise: no pixel
of a real image, and no residual of one, enters a sample, and no sample is thrown away. All is seeded, but
a GPU does not promise the same bits twice. The shipped twin took 154 seconds on an H100.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm.auto import trange

from swys_utils.cards import file_entry
from swys_utils.config import BUILD, SwysError, default_device, device_name, write_json
from swys_utils.data import TWIN, Dataset, Split
from swys_utils.models import load_checkpoint
from swys_utils.training import predict

from .reference import study_data

RATE = 5e-4  # largest learning rate: a warm-up of 200 steps, then a cosine
# (normal, pneumonia): the real splits' proportions, 74.2 % pneumonia in train and val, 62.5 % in test
COUNTS = {"train": (132, 380), "val": (33, 95), "test": (96, 160)}


def make(steps: int = 3700, seed: int = 0) -> None:
    """Fit the generator, sample the twin, hold it against five bars, and write it with its card.

    Args:
        steps: optimiser steps of the generator.
        seed: of the generator's weights, batches and samples, and of the discriminator's folds.

    Raises SwysError: no real ``pneumoniamnist.npz`` was found, or a bar is missed.
    """
    data, start, device = study_data("pneumoniamnist"), time.monotonic(), default_device()
    card_path, arrays = TWIN.with_suffix(".json"), generate(data.train, steps, seed, device)
    card = json.loads(
        card_path.read_text(encoding="utf-8")
    )  # what it is made from, and the licence, stay
    card["generator"] |= {"steps": steps, "seed": seed, "device": device_name(device)}
    card["generator"] |= {"seconds": round(time.monotonic() - start), "torch": torch.__version__}
    BUILD.mkdir(exist_ok=True)
    part = BUILD / TWIN.name
    np.savez_compressed(part, **arrays)
    card |= check(arrays, data, seed, part) | {"sha256": file_entry(part, TWIN.name)["sha256"]}
    card["checked_with"] = {
        name: version(name) for name in ("numpy", "scikit-learn", "torch", "timm")
    }
    print(json.dumps(card["bars"], indent=1))
    missed = [name for name, found in card["bars"].items() if not found["met"]]
    if missed:
        raise SwysError(f"the twin misses {', '.join(missed)}; try more --steps or another --seed")
    part.replace(TWIN)
    write_json(card_path, card)


def generate(train: Split, steps: int, seed: int, device: torch.device) -> dict:
    """The six arrays of a MedMNIST file, sampled from a generator fitted to ``train``, in random order."""
    net = fit(train, steps, seed, device)
    rng, arrays = np.random.default_rng(seed), {}
    for number, (split, counts) in enumerate(COUNTS.items()):
        labels = rng.permutation(np.repeat([0, 1], counts)).astype(np.uint8)
        pixels = sample(net, labels, seed + 1 + number) * train.images.std() + train.images.mean()
        arrays[f"{split}_images"] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None]
    return arrays


def fit(train: Split, steps: int, seed: int, device: torch.device) -> UNet:
    """Flow matching: on the line x_t = (1 - t) x + t noise the network learns the velocity noise - x.

    Returns a running average of the network, in which late steps weigh most, for standardised grey levels.
    """
    torch.manual_seed(seed)
    pixels = (train.images - train.images.mean()) / train.images.std()
    x_all = torch.as_tensor(pixels)[:, None].float().to(device)
    y_all = torch.as_tensor(train.labels).long().to(device)
    net, average = UNet().to(device), UNet().to(device).requires_grad_(False)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    for step in trange(steps, leave=False):
        index = torch.randint(len(x_all), (min(256, len(x_all)),), device=device)
        x, y = x_all[index], y_all[index]
        t = torch.sigmoid(
            torch.randn(len(x), device=device)
        )  # most effort in the middle (Esser et al. 2024)
        noise, at = torch.randn_like(x), t[:, None, None, None]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            velocity = net((1 - at) * x + at * noise, t, y)
        optimiser.param_groups[0]["lr"] = (
            RATE * min(1, (step + 1) / 200) * (1 + np.cos(np.pi * step / steps)) / 2
        )
        optimiser.zero_grad(set_to_none=True)
        F.mse_loss(velocity.float(), noise - x).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 9 / (step + 9))
    return average.eval()


@torch.inference_mode()
def sample(net: UNet, labels: np.ndarray, seed: int, steps: int = 40) -> np.ndarray:
    """Follow the velocity from noise (t = 1) to image (t = 0) with Heun's method: float32 (N, 28, 28)."""
    device = net.stem.weight.device
    x = torch.randn(len(labels), 1, 28, 28, generator=torch.Generator().manual_seed(seed)).to(
        device
    )
    y = torch.as_tensor(labels).long().to(device)
    times = torch.linspace(1, 0, steps + 1, device=device)
    for now, then in zip(times[:-1], times[1:]):
        v = net(x, now.expand(len(x)), y)
        v = (v + net(x + (then - now) * v, then.expand(len(x)), y)) / 2
        x = x + (then - now) * v
    return x[:, 0].cpu().numpy()


class Block(nn.Module):
    """Two 3x3 convolutions; time and class come in as a scale and a shift."""

    def __init__(self, c_in: int, c_out: int, emb: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.film, self.drop = nn.Linear(emb, 2 * c_out), nn.Dropout(0.1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Features (B, c_out, H, W) of ``x`` (B, c_in, H, W), given time and class as ``emb`` (B, E)."""
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(self.drop(h))


class UNet(nn.Module):
    """Velocity field v(x_t, t, class) on (B, 1, 28, 28), at 28, 14 and 7 px, with attention at 7 px."""

    def __init__(self):
        super().__init__()
        a, b, c, emb = 64, 128, 192, 256  # channels at each size, and of time and class
        self.register_buffer("freqs", torch.exp(torch.linspace(0, 6, 32)))
        self.time = nn.Sequential(nn.Linear(64, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label, self.stem = nn.Embedding(2, emb), nn.Conv2d(1, a, 3, padding=1)
        steps = (a, a), (a, a), (a, b), (b, b), (b, c), (c, c)
        self.down = nn.ModuleList(Block(*channels, emb) for channels in steps)
        self.norm, self.attend = nn.GroupNorm(8, c), nn.MultiheadAttention(c, 4, batch_first=True)
        steps = (c + b, b), (b, b), (b + a, a), (a, a)
        self.up = nn.ModuleList(Block(*channels, emb) for channels in steps)
        self.head = nn.Sequential(nn.GroupNorm(8, a), nn.SiLU(), nn.Conv2d(a, 1, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Velocity at times ``t`` (B,) in [0, 1] for classes ``labels`` (B,)."""
        angle = t[:, None] * self.freqs
        emb = F.silu(self.time(torch.cat([angle.sin(), angle.cos()], 1)) + self.label(labels))
        h1 = self.down[1](self.down[0](self.stem(x), emb), emb)
        h2 = self.down[3](self.down[2](F.avg_pool2d(h1, 2), emb), emb)
        h = self.down[4](F.avg_pool2d(h2, 2), emb)
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        h = h + self.attend(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(
            h.shape
        )
        h = torch.cat([F.interpolate(self.down[5](h, emb), scale_factor=2), h2], 1)
        h = torch.cat([F.interpolate(self.up[1](self.up[0](h, emb), emb), scale_factor=2), h1], 1)
        return self.head(self.up[3](self.up[2](h, emb), emb))


def check(twin: dict[str, np.ndarray], real: Dataset, seed: int, path: Path) -> dict:
    """All bars, and the nearest real training images of the twin's."""
    images = np.concatenate([twin[f"{split}_images"] for split in COUNTS])
    labels = np.concatenate([twin[f"{split}_labels"].ravel() for split in COUNTS])
    tiny, _ = load_checkpoint("pneumoniamnist/vit_tiny_patch16_224")
    recognised = predict(tiny, twin["test_images"]).argmax(axis=1) == twin["test_labels"].ravel()
    own, distance, index = nearest(images, real.train.images)
    threshold = np.percentile(own, 1)
    auc = linear_auc(twin["train_images"], twin["train_labels"].ravel(), real.test)
    bars = {
        "tiny_accuracy_on_twin_test": bar(recognised.mean(), at_least=0.90),
        "linear_auc_on_real_test": bar(auc, at_least=0.91),
        "discriminator_auc": bar(discriminator_auc(images, labels, real.train, seed), at_most=0.80),
        "share_of_copies": bar((distance < threshold).mean(), at_most=0.02),
        "max_megabytes": bar(path.stat().st_size / 1e6, at_most=1.0),
    }
    pairs = [[int(i), int(index[i]), round(float(distance[i]), 1)] for i in distance.argsort()[:10]]
    near = {
        "distance": "L2 over 784 grey levels, each image's mean removed; twin index counts train, val, test",
        "first_percentile_of_real_train_to_real_train": round(float(threshold), 1),
        "ten_nearest_pairs_twin_train_distance": pairs,
    }
    return {"bars": bars, "nearest_neighbours": near}


def bar(value: float, **limit: float) -> dict:
    """A value beside its limit, ``at_least`` or ``at_most``, and whether it is met."""
    value, ((side, number),) = round(float(value), 4), limit.items()
    return {
        "value": value,
        side: number,
        "met": value >= number if side == "at_least" else value <= number,
    }


def nearest(images: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances (M,) within ``train``, and of each image (N,) to the nearest there, with its index (N,)."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (flat(images), flat(train)))
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(b)
    (own, _), (distance, index) = search.kneighbors(), search.kneighbors(a)
    return own[:, 0], distance[:, 0], index[:, 0]


def linear_auc(images: np.ndarray, labels: np.ndarray, test: Split) -> float:
    """AUC on ``test`` of logistic regression on standardised pixels, trained on the images."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(
        flat(images), labels
    )
    return roc_auc_score(test.labels, model.decision_function(flat(test.images)))


def discriminator_auc(images: np.ndarray, labels: np.ndarray, real: Split, seed: int) -> float:
    """5-fold AUC of boosted trees on pixels: twin images against as many real ones of the same classes."""
    rng = np.random.default_rng(seed)
    pick = [
        rng.choice(np.flatnonzero(real.labels == c), (labels == c).sum(), replace=False)
        for c in (0, 1)
    ]
    x = flat(np.concatenate([images, real.images[np.concatenate(pick)]]))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    trees = HistGradientBoostingClassifier(random_state=seed)
    return cross_val_score(
        trees, x, np.repeat([1, 0], len(images)), scoring="roc_auc", cv=folds
    ).mean()


def flat(images: np.ndarray) -> np.ndarray:
    """Images as rows of grey levels, float32 (N, pixels)."""
    return images.reshape(len(images), -1).astype(np.float32)
