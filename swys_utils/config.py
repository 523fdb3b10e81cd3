"""Profiles, paths, seeds, devices and the one error type: what every other module needs to know first."""

from __future__ import annotations

import json
import logging
import os
import platform
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

logging.getLogger("torch.utils.cpp_extension").setLevel(
    logging.ERROR
)  # it warns where there is no CUDA
PROJECT_ROOT = (
    Path(__file__).resolve().parent.parent
)  # of a clone; a wheel works where it is started
PROJECT_ROOT = PROJECT_ROOT if (PROJECT_ROOT / "pyproject.toml").is_file() else Path.cwd()
CHECKPOINTS = PROJECT_ROOT / "checkpoints"
BUILD = PROJECT_ROOT / "build"
CPUINFO = (
    Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
)  # Linux alone has it


class SwysError(ValueError):
    """A foreseeable mistake: one line that names the thing, its value and the way out."""


@dataclass(frozen=True)
class Profile:
    """The sizes of one profile; notebooks read their sizes here and nowhere else.

    ``minute``: seconds that one minute of live training lasts; 0 trains the whole recipe. ``eval_images``,
    ``explain_images``: at most so many are scored, explained; 0 is all. ``latency_rounds``: of timing.
    """

    name: str
    minute: float
    eval_images: int
    explain_images: int
    latency_rounds: int
    what: str


PROFILES = {
    "smoke": Profile(
        "smoke", 1, 32, 8, 3, "every cell runs on a few images; the numbers mean nothing"
    ),
    "quick": Profile(
        "quick", 60, 1000, 128, 24, "minutes of real training, then the shipped checkpoints"
    ),
    "full": Profile("full", 0, 0, 0, 80, "models are trained by the reference recipe"),
}


def profile(name: str | None = None) -> Profile:
    """The profile in force: ``name``, else ``SWYS_PROFILE``, else ``quick``; SwysError for an unknown one."""
    name = name or os.environ.get("SWYS_PROFILE") or "quick"
    if name not in PROFILES:
        raise SwysError(unknown("profile", name, PROFILES, "set SWYS_PROFILE to one of"))
    return PROFILES[name]


def default_device() -> torch.device:
    """The accelerator that torch finds (CUDA, Apple's MPS), else the CPU."""
    return torch.accelerator.current_accelerator(True) or torch.device("cpu")


def fast_bf16(device: torch.device | str = "cpu") -> bool:
    """Whether the device computes in bfloat16; one that only emulates it is slower than in float32."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool({"avx512_bf16", "amx_bf16", "bf16"} & set(CPUINFO.split()))


def device_name(device: torch.device | str = "cpu") -> str:
    """Name of the processor or GPU, for the caption of a measurement."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    names = (
        line.partition(":")[2].strip() for line in CPUINFO.splitlines() if "model name" in line
    )
    return next(names, platform.processor() or platform.machine())


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices). Call it right before each random block."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries still draw from it)
    torch.manual_seed(seed)


def unknown(kind: str, value: str, known: Iterable[str], way_out: str = "known:") -> str:
    """One line for a mistyped name, with the nearest known one."""
    near = get_close_matches(str(value), list(known), n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"{way_out} {', '.join([*known][:12])}"
    return f"unknown {kind} '{value}'; {hint}"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write, which becomes ``path`` in one step at the end of the block: a kill or an error leaves
    the old file. Raises SwysError when it cannot be written."""
    part = Path(f"{path}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except BaseException as error:
        if part.is_file():
            part.unlink()
        if isinstance(
            error, (OSError, RuntimeError, SafetensorError)
        ):  # torch, safetensors: no room
            raise SwysError(
                f"cannot write '{path}' ({error}); make room, or choose another path"
            ) from None
        raise


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON as ``replacing`` does."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1, default=float) + "\n")
