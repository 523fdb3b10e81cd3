"""Profiles, paths, seeds, devices and the one error type: what all other modules build on."""

from __future__ import annotations

import builtins
import functools
import json
import logging
import os
import platform
import random
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

# torch warns at import that there is no CUDA to compile for; a machine without a GPU is no mistake.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def project_root() -> Path:
    """The folder of a clone; without one (an installed wheel), the folder Python was started in."""
    clone = Path(__file__).resolve().parent.parent
    if (clone / "pyproject.toml").is_file():
        return clone
    return Path.cwd()


PROJECT_ROOT = project_root()
CHECKPOINTS = PROJECT_ROOT / "checkpoints"
BUILD = PROJECT_ROOT / "build"


class SwysError(ValueError):
    """A foreseeable mistake: one line that names the thing, its value and the way out."""


@dataclass(frozen=True)
class Profile:
    """The sizes of one profile; notebooks read their sizes here and nowhere else.

    Attributes:
        name: ``smoke``, ``quick`` or ``full``.
        minute: Number of seconds that one minute of live training lasts; 0 trains the whole recipe.
        eval_images: Largest number of images that are scored; 0 scores all.
        explain_images: Largest number of images that are explained; 0 explains all.
        latency_rounds: Number of rounds of a timing.
        what: What the profile does, in words.
    """

    name: str
    minute: float
    eval_images: int
    explain_images: int
    latency_rounds: int
    what: str


PROFILES = {
    "smoke": Profile(
        name="smoke",
        minute=1,
        eval_images=32,
        explain_images=8,
        latency_rounds=3,
        what="every cell runs on a few images; the numbers mean nothing",
    ),
    "quick": Profile(
        name="quick",
        minute=60,
        eval_images=1000,
        explain_images=128,
        latency_rounds=24,
        what="minutes of real training, then the shipped checkpoints",
    ),
    "full": Profile(
        name="full",
        minute=0,
        eval_images=0,
        explain_images=0,
        latency_rounds=80,
        what="models are trained by the reference recipe",
    ),
}


def profile(name: str | None = None) -> Profile:
    """The profile in force.

    Args:
        name: A key of ``PROFILES``; None takes the environment's ``SWYS_PROFILE``, else ``quick``.

    Returns:
        The profile of that name.

    Raises:
        SwysError: There is no such profile.
    """
    name = name or os.environ.get("SWYS_PROFILE") or "quick"
    if name not in PROFILES:
        raise SwysError(unknown("profile", name, PROFILES, "set SWYS_PROFILE to one of"))
    return PROFILES[name]


def default_device() -> torch.device:
    """SWYS_DEVICE, else the accelerator that torch finds (CUDA, Apple's MPS), else the CPU.

    Raises:
        SwysError: SWYS_DEVICE names no device that works.
    """
    name = os.environ.get("SWYS_DEVICE")
    if name:
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:  # no such name, or no such device here
            problem = f"SWYS_DEVICE={name} does not work ({reason_of(error)})"
            raise SwysError(f"{problem}; set it to cpu") from None
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def fast_bf16(device: torch.device | str = "cpu") -> bool:
    """Whether a device computes in bfloat16; one that only emulates it is slower than in float32.

    Args:
        device: The device, or its name.

    Returns:
        True for GPUs from compute capability 8.0 and for processors with bfloat16 instructions.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        flags = set(cpu_info().split())
        return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})
    return False


def device_name(device: torch.device | str = "cpu") -> str:
    """Name of the processor or GPU, for the caption of a measurement.

    Args:
        device: The device, or its name.

    Returns:
        The name as the driver or the operating system gives it.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in cpu_info().splitlines():
        if "model name" in line:
            _, _, name = line.partition(":")
            return name.strip()
    return platform.processor() or platform.machine()


@functools.cache
def cpu_info() -> str:
    """Linux's list of the processor's name and instructions; empty on other systems."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def no_bar() -> bool:
    """For tqdm's ``disable``: a terminal and a notebook get a progress bar, a log file none.

    TQDM_DISABLE=1 in the environment keeps them away, as from notebooks that nobody watches.
    """
    watched = sys.stderr.isatty() or hasattr(builtins, "get_ipython")
    return os.environ.get("TQDM_DISABLE", "0") not in ("", "0") or not watched


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices). Call it right before each random block.

    Args:
        seed: Any whole number that torch takes.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries still draw from it)
    torch.manual_seed(seed)


def unknown(kind: str, value: str, known: Iterable[str], way_out: str = "known:") -> str:
    """The message for a mistyped name, with the nearest known one.

    Args:
        kind: What the name is of: "dataset", "profile".
        value: The mistyped name.
        known: The names that exist.
        way_out: What stands before the list of known names where none is near.

    Returns:
        One line.
    """
    known = list(known)
    nearest = get_close_matches(str(value), known, n=1, cutoff=0.5)
    if nearest:
        return f"unknown {kind} '{value}'; did you mean '{nearest[0]}'?"
    return f"unknown {kind} '{value}'; {way_out} {', '.join(known[:12])}".rstrip()


def reason_of(error: Exception, line: int = 0, with_kind: bool = False) -> str:
    """One line of what an error says, at most 160 characters; its kind where it says nothing.

    Args:
        error: Any error.
        line: Number of the line; -1 is the last one.
        with_kind: Begin with the kind of error, for those that do not speak to a reader.
    """
    kind = type(error).__name__
    reason = (str(error).splitlines() or [kind])[line].strip()
    return f"{kind}: {reason}"[:160] if with_kind else reason[:160]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write, which becomes ``path`` in one step at the end of the block.

    An error, or a kill, leaves the old file as it is. Several processes may write the same path at
    once: each has a file of its own, and the last one that ends stays. After an error that file is
    removed; only a killed process leaves it behind, as ``<path>.<process id>-<random>.part``.

    Args:
        path: Where the file is to be; folders that are missing are made.

    Yields:
        The file to write in the meantime.

    Raises:
        SwysError: The file cannot be written.
    """
    part = Path(f"{path}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except BaseException as error:
        if part.is_file():
            part.unlink()
        # Where there is no room left, torch raises a RuntimeError, safetensors its own error.
        if isinstance(error, (OSError, RuntimeError, SafetensorError)):
            message = f"cannot write '{path}' ({error}); make room, or choose another path"
            raise SwysError(message) from None
        raise


def write_json(path: str | Path, content: dict) -> None:
    """Write JSON as ``replacing`` does.

    Args:
        path: Where the file is to be.
        content: What it is to hold; numbers of NumPy become floats. nan is written as NaN, which
            Python reads, and JSON itself does not have.

    Raises:
        SwysError: The file cannot be written.
    """
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1, default=float) + "\n")
