"""What a model costs: multiply-accumulates (MACs) by formula and by count, latency in milliseconds.

One MAC is two floating-point operations. On a machine that others use, compare models with
``interleaved_latency``: two measurements made one after the other differ by more than many models do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from .metrics import bootstrap_interval
from .vit_internals import evaluation_mode, plain_attention


def vit_macs(tokens: int, dim: int, depth: int, patch_size: int = 16, classes: int = 1000) -> int:
    """MACs of an RGB image in a ViT with a CLS token and MLPs four times as wide (Dosovitskiy et al. 2021).

    Patch embedding ``tokens 3 patch^2 d``; each block, with N = tokens + 1: queries, keys, values, projection
    ``4 N d^2``, attention ``2 N^2 d``, MLP ``8 N d^2``; head ``d classes``. Norms, softmax, GELU, sums
    are left out (well under 1 %). ``patch_size`` is the side of the patch embedding's kernel in pixels.
    """
    n = tokens + 1
    return (
        tokens * 3 * patch_size**2 * dim
        + depth * (12 * n * dim**2 + 2 * n**2 * dim)
        + dim * classes
    )


def count_macs(model: VisionTransformer) -> int:
    """MACs of one image, counted by torch, which does not see those of fused attention on a CPU."""
    counter = FlopCounterMode(display=False)
    with evaluation_mode(model), torch.no_grad(), plain_attention(model), counter:
        model(random_inputs(model, 1))
    return counter.get_total_flops() // 2


@dataclass(frozen=True, repr=False)
class Timing:
    """Milliseconds of one call, float (R,); prints as median [quartiles]."""

    samples: np.ndarray

    @property
    def median(self) -> float:
        """Milliseconds."""
        return float(np.median(self.samples))

    def __repr__(self) -> str:
        return "{1:.3g} ms [{0:.3g}, {2:.3g}]".format(*np.percentile(self.samples, [25, 50, 75]))


def interleaved_latency(
    calls: Mapping[str, Callable], rounds: int = 20, repeats=3
) -> dict[str, Timing]:
    """Time several models in turns, so that whatever else the machine does hits all of them alike.

    calls: name -> a function that runs the model once. In each round every model has its turn in random
    order: two calls to warm up, then the mean of ``repeats`` calls. Torch's CPU threads stay as they are.
    """
    rng, samples, threads = (
        np.random.default_rng(0),
        {name: [] for name in calls},
        torch.get_num_threads(),
    )
    for _ in range(rounds):
        for name in rng.permutation(list(calls)):
            timer = Timer("call()", globals={"call": calls[name]}, num_threads=threads)
            samples[name].append(1000 * timer.timeit(repeats).mean)
    return {name: Timing(np.array(values)) for name, values in samples.items()}


def speedup(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times faster? (ratio, low, high): median ratio of the paired rounds of one
    ``interleaved_latency``, and its 95 % bootstrap interval."""
    ratios = slow.samples / fast.samples
    return float(np.median(ratios)), *bootstrap_interval(np.median, ratios, n_resamples=1000)


def random_inputs(model: VisionTransformer, batch: int) -> torch.Tensor:
    """Random model input (batch, 3, S, S) in [-1, 1], where the model is and in the dtype of its weights."""
    pixels = torch.rand(
        batch, 3, *model.patch_embed.img_size, generator=torch.Generator().manual_seed(0)
    )
    return (2 * pixels - 1).to(model.patch_embed.proj.weight)
