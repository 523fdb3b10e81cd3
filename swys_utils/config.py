"""Profiles, paths, seeds and the one error type: what every other module needs to know first."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch

_SOURCE = Path(__file__).resolve().parent.parent
PROJECT_ROOT = _SOURCE if (_SOURCE / "pyproject.toml").is_file() else Path.cwd()  # a clone, or pip installed alone
CHECKPOINTS = Path(os.environ.get("SWYS_CHECKPOINTS") or PROJECT_ROOT / "checkpoints")


class SwysError(ValueError):
    """A foreseeable mistake: one line that names the thing, its value and the way out."""


@dataclass(frozen=True)
class Profile:
    """The sizes of one profile; every notebook cell reads its sizes here and nowhere else.

    Attributes:
        name: ``smoke``, ``quick`` or ``full``.
        train_seconds: how long the live training of a shipped model may take; 0 means "to the end of the recipe".
        train_steps: upper bound on optimiser steps of the live training; 0 means no bound.
        batch_size: images a step in live training on a CPU (the recipe's own in ``full``).
        eval_images: at most so many images are scored in the analysis; 0 means the whole split.
        explain_images: at most so many images are explained.
        latency_seconds: time spent on each latency measurement.
    """

    name: str
    train_seconds: float
    train_steps: int
    batch_size: int
    eval_images: int
    explain_images: int
    latency_seconds: float

    def __str__(self) -> str:
        what = {
            "smoke": "every cell runs on a handful of images - the numbers mean nothing",
            "quick": "a minute of real training per model, then the shipped checkpoints",
            "full": "everything is trained by the reference recipe",
        }
        return f"{self.name} - {what[self.name]}"


PROFILES = {
    "smoke": Profile("smoke", 20, 2, 4, 24, 8, 0.2),
    "quick": Profile("quick", 40, 0, 16, 640, 96, 1.5),
    "full": Profile("full", 0, 0, 0, 0, 0, 5.0),
}


def profile(name: str | None = None) -> Profile:
    """The profile in force: ``name``, else ``SWYS_PROFILE``, else ``full`` with a GPU and ``quick`` without.

    Raises:
        SwysError: for a name that is not a profile.
    """
    name = name or os.environ.get("SWYS_PROFILE") or ("full" if default_device().type != "cpu" else "quick")
    if name not in PROFILES:
        raise SwysError(unknown("profile", name, PROFILES, "set SWYS_PROFILE to one of"))
    return PROFILES[name]


def default_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def fast_bf16(device: torch.device | str = "cpu") -> bool:
    """Does the device compute in bfloat16, or only emulate it (about ten times slower than float32 on a CPU)?"""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = next((v.split() for k, v in cpu_facts() if k in ("flags", "Features")), [])
    return device.type == "cpu" and bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


def cpu_facts() -> list[tuple[str, str]]:
    """What Linux says of its processors, (key, value); nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in lines) if v]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices). Call it right before each random block."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries still draw from it)
    torch.manual_seed(seed)


def unknown(kind: str, value: str, known, way_out: str = "known:") -> str:
    """The one-line message for a mistyped name, with the nearest known one."""
    near = get_close_matches(str(value), list(known), n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"{way_out} {', '.join(known)}"
    return f"unknown {kind} '{value}'; {hint}"
