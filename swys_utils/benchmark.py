"""What a model costs: multiply-accumulates (MACs) by formula, latency in milliseconds.

One MAC is two floating-point operations. On a machine that others use, compare models with
``interleaved_latency``: two measurements made one after the other differ by more than many models
do.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.benchmark import timer

from .metrics import bootstrap_interval

WARM_UP_CALLS = 3  # caches and threads still serve another model


def vit_macs(
    tokens: int,
    dim: int,
    depth: int,
    patch_size: int = 16,
    classes: int = 1000,
) -> int:
    """MACs of an RGB image in a ViT with a CLS token and MLPs four times as wide as its tokens.

    With N = tokens + 1 and d = dim (Dosovitskiy et al. 2021), the patch embedding takes
    ``tokens 3 patch^2 d``; each block ``4 N d^2`` for queries, keys, values and projection,
    ``2 N^2 d`` for attention and ``8 N d^2`` for its MLP; the head ``d classes``. Norms, softmax,
    GELU and sums are left out (well under 1 %).

    Args:
        tokens: number of patches.
        dim: width of a token.
        depth: number of blocks.
        patch_size: side of the patch embedding's kernel, px.
        classes: number of outputs.

    Returns:
        MACs of one image.
    """
    n = tokens + 1
    embedding = tokens * 3 * patch_size**2 * dim
    matrices = 12 * n * dim**2
    attention = 2 * n**2 * dim
    block = matrices + attention
    head = dim * classes
    return embedding + depth * block + head


@dataclass(frozen=True, repr=False)
class Timing:
    """How long a call took; prints as median [quartiles].

    Attributes:
        samples: milliseconds of one call, float (R,), one a round.
    """

    samples: np.ndarray

    @property
    def median(self) -> float:
        """Milliseconds."""
        return float(np.median(self.samples))

    def __repr__(self) -> str:
        low, middle, high = np.percentile(self.samples, [25, 50, 75])
        return f"{middle:.3g} ms [{low:.3g}, {high:.3g}]"


def interleaved_latency(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 20,
    repeats: int = 3,
    warm_up: float = 0.0,
) -> dict[str, Timing]:
    """Time several models in turns, so that whatever else the machine does hits all of them alike.

    In each round every model has its turn, in random order: three calls to warm up, then the mean
    of ``repeats`` calls. An accelerator is waited for; torch's CPU threads stay as they are.

    Args:
        calls: name -> a function that runs the model once.
        rounds: number of samples of each model.
        repeats: number of calls behind one sample.
        warm_up: seconds for which a model is called before each sample; at least three calls.
            Threads of another library still wait busily for up to 0.2 s, on the same cores.

    Returns:
        name -> its timing.
    """
    names = list(calls)
    rng = np.random.default_rng(0)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in rng.permutation(names):
            stopwatch = timeit.Timer(calls[name], timer=timer)
            started = timer()
            stopwatch.timeit(WARM_UP_CALLS)
            while timer() - started < warm_up:
                calls[name]()
            seconds = stopwatch.timeit(repeats) / repeats
            samples[name].append(1000 * seconds)
    return {name: Timing(np.array(values)) for name, values in samples.items()}


def speedup(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times faster one model is than another.

    Args:
        slow: a timing of ``interleaved_latency``.
        fast: another timing of the same call, so that their rounds are paired.

    Returns:
        (ratio, low, high): the median of the slow one divided by that of the fast one, and its
        95 % bootstrap interval, for which rounds are drawn.
    """

    def ratio(slow_samples: np.ndarray, fast_samples: np.ndarray) -> float:
        return float(np.median(slow_samples) / np.median(fast_samples))

    samples = slow.samples, fast.samples
    low, high = bootstrap_interval(ratio, *samples, n_resamples=1000)
    return ratio(*samples), low, high


def random_inputs(model: VisionTransformer, batch: int) -> torch.Tensor:
    """Random images as a model takes them.

    Args:
        model: gives the size of the images, the device and the dtype.
        batch: number of images.

    Returns:
        (batch, 3, H, W) in [-1, 1], the same at each call.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = model.patch_embed.img_size
    pixels = torch.rand(batch, 3, height, width, generator=generator)
    weights = model.patch_embed.proj.weight
    return (2 * pixels - 1).to(weights)


class OperationCounter(TorchDispatchMode):
    """Counts the operations that torch starts, one by one, while it is entered.

    Attributes:
        count: how many there were.
    """

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Count one operation and let it run."""
        self.count += 1
        return function(*args, **(kwargs or {}))
