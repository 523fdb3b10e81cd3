"""Training from a file larger than a limit of memory: ``python tools/large_file.py [gigabytes, 6]``.

Writes a drawn pathmnist_224.npz, and trains Tiny at 224 px with batches from disk and from memory in turn.
"""

import re
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from swys_utils.data import load_dataset
from swys_utils.models import create_model
from swys_utils.recipe import Recipe, SupervisedObjective, batches

SIDE = 224


def write(path: Path, gigabytes: float) -> None:
    """Images of noise, in the layout of MedMNIST."""
    block = np.random.default_rng(0).integers(0, 256, (64, SIDE, SIDE, 3), dtype=np.uint8)
    large = path.with_suffix(".npy")
    images = np.lib.format.open_memmap(
        large, "w+", np.uint8, (int(gigabytes * 1e9 / block[0].size), *block[0].shape)
    )
    for start in range(0, len(images), 64):
        images[start : start + 64] = block[: len(images) - start]
    parts = {"train": images, "val": block[:16], "test": block[:16]}
    labels = {f"{split}_labels": np.arange(len(part))[:, None] % 9 for split, part in parts.items()}
    np.savez(path, **{f"{split}_images": part for split, part in parts.items()}, **labels)
    large.unlink()


def peak() -> dict[str, float]:
    """Megabytes of this process now: its own, and pages of files, which the system can take back."""
    status = Path("/proc/self/status").read_text()
    return {key: int(re.search(rf"{key}:\s+(\d+)", status)[1]) / 1e3 for key in ("RssAnon", "RssFile")}


def main(gigabytes: float = 6, rounds: int = 3, steps: int = 6) -> None:
    """Train some steps from disk and from memory in turn, and print images a second and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "pathmnist_224.npz", gigabytes)
        disk = load_dataset("pathmnist", 224, root=folder, download=False)
        recipe, model, loss = (
            Recipe(batch_size=64),
            create_model("vit_tiny_patch16_224", 9),
            SupervisedObjective(),
        )
        memory = replace(disk, train=disk.train.head(64 * steps))
        assert isinstance(disk.train.images, np.memmap) and not isinstance(memory.train.images, np.memmap)
        streams = {"disk": batches(disk, 0, recipe, SIDE)}
        seconds, most = {"disk": [], "memory": []}, peak()
        for epoch in range(rounds):
            streams["memory"] = batches(memory, epoch, recipe, SIDE)
            for name, stream in streams.items():
                for _ in range(steps):
                    start = time.perf_counter()
                    loss(model, next(stream)).backward()
                    seconds[name].append(time.perf_counter() - start)
                    most = {key: max(value, most[key]) for key, value in peak().items()}
    per_s = {name: 64 / np.median(values) for name, values in seconds.items()}
    print(f"{gigabytes:g} GB, {torch.get_num_threads()} threads: images/s", per_s)
    print(f"from disk {per_s['memory'] / per_s['disk']:.2f} times as long as from memory; peak MB", most)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
