"""Make the embedded twin, a synthetic stand-in for PneumoniaMNIST sampled from a small generative model, and check it.

    python tools/make_twin.py --data pneumoniamnist.npz               # fit, sample, check, write
    python tools/make_twin.py --data pneumoniamnist.npz --check-only  # measure the shipped twin again

The generator is a class-conditional flow-matching diffusion model (Lipman et al. 2023), a U-Net of about four million
parameters, fitted to the real *training* split and to nothing else. It starts from Gaussian noise: no pixel of a real
image, and no residual of one, enters a sample, and no sample is thrown away. Everything is seeded, but GPU kernels do
not promise the same bits twice: a rerun may give a slightly different file, the card's sha256 names the shipped one.
About three minutes on an H100; not timed to the end on a CPU, expect hours on two cores.

Five bars have to be met; the script prints them, keeps them in the card beside the file and ends with status 1 if
one is missed. The sheets that show real images stay in ``build/twin``: no patient image goes into the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "swys_utils" / "assets"
BUILD = ROOT / "build" / "twin"
NAME = "pneumoniamnist_twin"
# (normal, pneumonia) in each split: the real splits' proportions, 74.2 % pneumonia in train and val, 62.5 % in test
COUNTS = {"train": (132, 380), "val": (33, 95), "test": (96, 160)}
BARS = {  # name -> (limit, whether the value has to be at least or at most that)
    "tiny_accuracy_on_twin_test": (0.90, "at least"),
    "linear_auc_on_real_test": (0.91, "at least"),
    "discriminator_auc": (0.80, "at most"),
    "share_of_copies": (0.02, "at most"),
    "max_megabytes": (1.0, "at most"),
}


# --- the generator -------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Two 3x3 convolutions; time and class come in as a scale and a shift."""

    def __init__(self, c_in: int, c_out: int, emb: int, dropout: float):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.film, self.drop = nn.Linear(emb, 2 * c_out), nn.Dropout(dropout)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x, emb):
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = F.silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(self.drop(h))


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.norm, self.attend = nn.GroupNorm(8, channels), nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x):
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        out = self.attend(tokens, tokens, tokens, need_weights=False)[0]
        return x + out.transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """Velocity field v(x_t, t, class) on (B, 1, 28, 28), at 28, 14 and 7 px."""

    def __init__(self, width: int = 64, dropout: float = 0.1):
        super().__init__()
        a, b, c, emb = width, 2 * width, 3 * width, 4 * width
        self.register_buffer("freqs", torch.exp(torch.linspace(0, 6, width // 2)))
        self.time = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label = nn.Embedding(2, emb)
        self.stem = nn.Conv2d(1, a, 3, padding=1)

        def block(i: int, o: int) -> Block:
            return Block(i, o, emb, dropout)

        self.d1, self.d2 = block(a, a), block(a, a)
        self.d3, self.d4 = block(a, b), block(b, b)
        self.d5, self.mid, self.d6 = block(b, c), Attention(c), block(c, c)
        self.u3, self.u4 = block(c + b, b), block(b, b)
        self.u1, self.u2 = block(b + a, a), block(a, a)
        self.head = nn.Sequential(nn.GroupNorm(8, a), nn.SiLU(), nn.Conv2d(a, 1, 3, padding=1))

    def forward(self, x, t, labels):
        angle = t[:, None] * self.freqs
        emb = F.silu(self.time(torch.cat([angle.sin(), angle.cos()], 1)) + self.label(labels))
        h1 = self.d2(self.d1(self.stem(x), emb), emb)
        h2 = self.d4(self.d3(F.avg_pool2d(h1, 2), emb), emb)
        h = self.d6(self.mid(self.d5(F.avg_pool2d(h2, 2), emb)), emb)
        h = torch.cat([F.interpolate(h, scale_factor=2), h2], 1)
        h = self.u4(self.u3(h, emb), emb)
        h = torch.cat([F.interpolate(h, scale_factor=2), h1], 1)
        return self.head(self.u2(self.u1(h, emb), emb))


def fit(images: np.ndarray, labels: np.ndarray, steps: int, seed: int, device: torch.device) -> tuple[UNet, tuple]:
    """Flow matching: on the line x_t = (1 - t) x + t noise the network learns the velocity noise - x.

    Returns:
        the exponential moving average of the network, and the (mean, standard deviation) that scale its pixels.
    """
    torch.manual_seed(seed)
    scale = float(images.mean()), float(images.std())
    x_all = ((torch.from_numpy(images).float() - scale[0]) / scale[1])[:, None].to(device)
    y_all = torch.from_numpy(labels).long().to(device)
    net, average = UNet().to(device), UNet().to(device).requires_grad_(False)
    average.load_state_dict(net.state_dict())
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-4, weight_decay=0.01)
    warm_up = min(200, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(1.0, (s + 1) / warm_up) * (0.5 + 0.5 * np.cos(np.pi * s / steps))
    )
    started = time.time()
    for step in range(steps):
        index = torch.randint(len(x_all), (256,), device=device)
        x, y = x_all[index], y_all[index]
        t = torch.sigmoid(torch.randn(len(x), device=device))  # most effort in the middle (Esser et al. 2024)
        noise, at = torch.randn_like(x), t[:, None, None, None]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            velocity = net((1 - at) * x + at * noise, t, y)
        loss = F.mse_loss(velocity.float(), noise - x)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        decay = min(0.999, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"  step {step + 1}/{steps}  loss {loss.item():.3f}  {time.time() - started:.0f} s", flush=True)
    return average.eval(), scale


@torch.inference_mode()
def sample(net: UNet, scale: tuple, labels: np.ndarray, seed: int, device: torch.device, steps: int = 40) -> np.ndarray:
    """Follow the velocity from noise (t = 1) to image (t = 0) with Heun's method; uint8 (N, 28, 28)."""
    x = torch.randn(len(labels), 1, 28, 28, generator=torch.Generator().manual_seed(seed)).to(device)
    y = torch.from_numpy(labels).long().to(device)
    times = np.linspace(1, 0, steps + 1)
    for now, then in zip(times[:-1], times[1:]):
        v = net(x, torch.full((len(x),), now, device=device, dtype=torch.float32), y)
        ahead = x + (then - now) * v
        v = (v + net(ahead, torch.full((len(x),), then, device=device, dtype=torch.float32), y)) / 2
        x = x + (then - now) * v
    pixels = x[:, 0].cpu().numpy() * scale[1] + scale[0]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def make(real: dict, steps: int, seed: int, device: torch.device) -> dict:
    """The twin as MedMNIST lays a data set out, labels shuffled within each split."""
    net, scale = fit(real["train_images"], real["train_labels"].ravel(), steps, seed, device)
    rng, twin = np.random.default_rng(seed), {}
    for number, (split, counts) in enumerate(COUNTS.items()):
        labels = rng.permutation(np.repeat([0, 1], counts)).astype(np.uint8)
        twin[f"{split}_images"] = sample(net, scale, labels, seed + 1 + number, device)
        twin[f"{split}_labels"] = labels[:, None]
    return twin


def describe(path: Path, steps: int, seed: int, device: str, seconds: int, torch_version: str) -> dict:
    """The card's first half: what the file is, and how it was made."""
    return {
        "name": NAME,
        "what": "synthetic twin - not patients, numbers are illustrations",
        "made_from": "PneumoniaMNIST 28x28 (MedMNIST v2, Yang et al. 2023), CC BY 4.0; source: Kermany et al. 2018",
        "licence": "CC BY 4.0",
        "fitted_to": "the real training split only; every pixel starts as Gaussian noise, no sample was rejected",
        "centre_shift": "none: the real test split comes from a harder distribution than train, the twin's test "
        "split is sampled from the same generator as its train split, only with the real test's class proportions",
        "splits_normal_pneumonia": {split: list(counts) for split, counts in COUNTS.items()},
        "generator": {
            "kind": "class-conditional flow-matching U-Net, Heun sampler, 40 steps",
            "parameters": sum(p.numel() for p in UNet().parameters()),
            "steps": steps,
            "batch": 256,
            "seed": seed,
            "device": device,
            "seconds": seconds,
            "torch": torch_version,
        },
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


# --- the bars ------------------------------------------------------------------------------------------------------


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)


def linear_auc(twin: dict, real: dict) -> float:
    """Logistic regression on standardised pixels (defaults), trained on twin train, scored on real test."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    model.fit(flat(twin["train_images"]), twin["train_labels"].ravel())
    return roc_auc_score(real["test_labels"].ravel(), model.decision_function(flat(real["test_images"])))


def discriminator_auc(images: np.ndarray, labels: np.ndarray, real: dict, seed: int) -> float:
    """5-fold AUC of boosted trees on pixels, twin against as many real training images of the same classes."""
    rng, truth = np.random.default_rng(seed), real["train_labels"].ravel()
    pick = [rng.choice(np.flatnonzero(truth == c), (labels == c).sum(), replace=False) for c in (0, 1)]
    x = flat(np.concatenate([images, real["train_images"][np.concatenate(pick)]]))
    y = np.repeat([1, 0], len(images))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    trees = HistGradientBoostingClassifier(random_state=seed)
    return cross_val_score(trees, x, y, scoring="roc_auc", cv=folds).mean()


def nearest(a: np.ndarray, b: np.ndarray, same: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """L2 distance of each image in ``a`` to its nearest in ``b`` (grey levels, own mean removed), and its index."""
    a, b = (flat(x) - flat(x).mean(1, keepdims=True) for x in (a, b))
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    if same:
        np.fill_diagonal(squared, np.inf)
    return np.sqrt(np.maximum(squared.min(1), 0)), squared.argmin(1)


@torch.inference_mode()
def tiny_accuracy(images: np.ndarray, labels: np.ndarray, tiny: str) -> float:
    """Accuracy of the shipped Tiny, or of a plain timm safetensors file."""
    if tiny.endswith(".safetensors"):
        import timm
        from safetensors.torch import load_file

        model = timm.create_model("vit_tiny_patch16_224", num_classes=2)
        model.load_state_dict({key: value.float() for key, value in load_file(tiny).items()})
        model.eval()
    else:
        sys.path.insert(0, str(ROOT))
        from swys_utils.models import load_checkpoint

        model, _ = load_checkpoint(tiny, "cpu")
    right = 0
    for start in range(0, len(images), 32):
        x = torch.from_numpy(images[start : start + 32, None]).float() / 127.5 - 1
        x = F.interpolate(x, size=224, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
        right += (model(x).argmax(1).numpy() == labels[start : start + 32]).sum()
    return right / len(images)


def check(twin: dict, real: dict, tiny: str, seed: int, megabytes: float) -> dict:
    """All bars but the eye; a plain dictionary for the card."""
    images = np.concatenate([twin[f"{split}_images"] for split in COUNTS])
    labels = np.concatenate([twin[f"{split}_labels"].ravel() for split in COUNTS])
    own, _ = nearest(real["train_images"], real["train_images"], same=True)
    distance, index = nearest(images, real["train_images"])
    threshold = float(np.percentile(own, 1))
    closest = np.argsort(distance)[:10]
    values = {
        "tiny_accuracy_on_twin_test": tiny_accuracy(twin["test_images"], twin["test_labels"].ravel(), tiny),
        "linear_auc_on_real_test": linear_auc(twin, real),
        "discriminator_auc": discriminator_auc(images, labels, real, seed),
        "share_of_copies": float((distance < threshold).mean()),
        "max_megabytes": megabytes,
    }
    bars = {}
    for name, (limit, side) in BARS.items():
        value = round(float(values[name]), 4)
        bars[name] = {
            "value": value,
            side.replace(" ", "_"): limit,
            "met": value >= limit if side == "at least" else value <= limit,
        }
    return {
        "bars": bars,
        "nearest_neighbours": {
            "distance": "L2 over 784 grey levels after removing each image's mean; twin index counts train, val, test",
            "first_percentile_of_real_train_to_real_train": round(threshold, 1),
            "median_of_real_train_to_real_train": round(float(np.median(own)), 1),
            "median_of_twin_to_real_train": round(float(np.median(distance)), 1),
            "ten_nearest_pairs_twin_train_distance": [
                [int(i), int(index[i]), round(float(distance[i]), 1)] for i in closest
            ],
        },
    }


# --- sheets to look at ---------------------------------------------------------------------------------------------


def sheet(images: np.ndarray, path: Path, columns: int, zoom: int = 3) -> None:
    """A grid of images, bicubically enlarged as a viewer would show them."""
    images = images[: len(images) // columns * columns]
    tiles = [np.pad(np.asarray(Image.fromarray(x).resize((28 * zoom,) * 2, Image.BICUBIC)), 2) for x in images]
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(path, optimize=True)


def draw_sheets(twin: dict, real: dict, pairs: list, out: Path) -> None:
    """Into ``out`` the twin alone (normal above pneumonia); into BUILD the ones with real images in them."""
    rng = np.random.default_rng(0)
    chosen = {}
    for name, data in (("real", real), ("twin", twin)):
        labels = data["train_labels"].ravel()
        chosen[name] = [data["train_images"][rng.choice(np.flatnonzero(labels == c), 40, False)] for c in (0, 1)]
    sheet(np.concatenate([x[:20] for x in chosen["twin"]]), out / f"{NAME}.png", columns=10)
    rows = [
        row
        for r, t in zip(chosen["real"], chosen["twin"])
        for i in range(0, 40, 8)
        for row in (r[i : i + 8], t[i : i + 8])
    ]
    sheet(np.concatenate(rows), BUILD / "real_left_twin_right.png", columns=16)
    images = np.concatenate([twin[f"{split}_images"] for split in COUNTS])
    twins = images[[i for i, _, _ in pairs]]
    sheet(np.concatenate([twins, real["train_images"][[j for _, j, _ in pairs]]]), BUILD / "nearest_pairs.png", 10, 5)


# --- the command ---------------------------------------------------------------------------------------------------


def read(path: Path, what: str) -> dict:
    """A MedMNIST file as a dictionary, or the end with one line that says why not."""
    keys = [f"{split}_{part}" for split in COUNTS for part in ("images", "labels")]
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in keys}
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"make_twin: no {what} at '{path}' ({str(error).splitlines()[0]}); give the path with --data")
    if data["train_images"].shape[1:] != (28, 28):
        shape = data["train_images"].shape
        sys.exit(f"make_twin: '{path}' holds training images of shape {shape}, not (N, 28, 28)")
    return data


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the real pneumoniamnist.npz")
    parser.add_argument("--check-only", action="store_true", help="measure the existing twin, write sheets only")
    parser.add_argument("--tiny", default="pneumoniamnist/vit_tiny", help="checkpoint id, or a .safetensors file")
    parser.add_argument("--steps", type=int, default=3700, help="optimiser steps of the generator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder of the twin and its card")
    args = parser.parse_args(argv)

    if not args.data.is_file():
        sys.exit(f"make_twin: no real data at '{args.data}'; put MedMNIST's pneumoniamnist.npz there or change --data")
    real, path, card_path = read(args.data, "real data"), args.out / f"{NAME}.npz", args.out / f"{NAME}.json"
    if args.check_only:
        twin, card = read(path, "twin"), None
    else:
        device, started = torch.device(args.device), time.time()
        print(f"Fitting the generator on {len(real['train_images'])} training images ({device}) ...", flush=True)
        twin = make(real, args.steps, args.seed, device)
        args.out.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **twin)
        name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
        card = describe(path, args.steps, args.seed, name, round(time.time() - started), torch.__version__)
    measured = check(twin, real, args.tiny, args.seed, path.stat().st_size / 1e6)
    for name, bar in measured["bars"].items():
        side = "at_least" if "at_least" in bar else "at_most"
        verdict = "met" if bar["met"] else "MISSED"
        print(f"{name:30s} {bar['value']:8.4f}   {side.replace('_', ' ')} {bar[side]:<6} {verdict}")
    near = measured["nearest_neighbours"]
    print("ten nearest pairs (twin, train, distance):", near["ten_nearest_pairs_twin_train_distance"])
    print("threshold (1st percentile of train to train):", near["first_percentile_of_real_train_to_real_train"])
    if card is not None:
        versions = {lib: version(lib) for lib in ("numpy", "scikit-learn", "torch", "timm")}
        card |= measured | {"checked_with": {"python": platform.python_version(), **versions}}
        card_path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    draw_sheets(twin, real, near["ten_nearest_pairs_twin_train_distance"], args.out if card else BUILD)
    print(f"Look at {BUILD}/real_left_twin_right.png and nearest_pairs.png (real images: not for the repository).")
    return 0 if all(bar["met"] for bar in measured["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
