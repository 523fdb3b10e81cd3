"""What a model costs: parameters, multiply-accumulates (MACs), bytes, latency in milliseconds, throughput.

One MAC is two floating-point operations. On a machine that others use, compare models with
``interleaved_latency``: two measurements made one after the other differ by more than many models do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from .config import SwysError, device_name
from .gradcam import evaluation_mode
from .metrics import bootstrap_interval
from .models import count_parameters, plain_attention

BATCHES = (1, 4, 16, 64, 256)  # tried for the best throughput


def vit_macs(tokens: int, dim: int, depth: int, patch_size: int = 16, classes: int = 1000) -> int:
    """MACs of an RGB image in a ViT with a CLS token and MLPs four times as wide (Dosovitskiy et al. 2021).

    Patch embedding ``tokens 3 patch^2 d``; each block, with N = tokens + 1: queries, keys, values, projection
    ``4 N d^2``, attention ``2 N^2 d``, MLP ``8 N d^2``; head ``d classes``. Norms, softmax, GELU, sums
    are left out (well under 1 %). ``patch_size`` is the side of the patch embedding's kernel in pixels.
    """
    n = tokens + 1
    return tokens * 3 * patch_size**2 * dim + depth * (12 * n * dim**2 + 2 * n**2 * dim) + dim * classes


def count_macs(model: VisionTransformer) -> int:
    """MACs of one image, counted by torch while the model runs.

    Attention runs without its fused kernel, in which torch's counter sees no operations on a CPU.
    """
    with evaluation_mode(model), torch.no_grad(), plain_attention(model):
        with FlopCounterMode(display=False) as counter:
            model(random_inputs(model, 1))
    return counter.get_total_flops() // 2


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call, float (R,); prints as median [quartiles]."""

    samples: np.ndarray

    @property
    def median(self) -> float:
        """Milliseconds."""
        return float(np.median(self.samples))

    def __str__(self) -> str:
        low, high = np.percentile(self.samples, [25, 75])
        return f"{self.median:.3g} ms [{low:.3g}, {high:.3g}]"


def interleaved_latency(
    calls: Mapping[str, Callable[[], object]], rounds: int = 20, repeats: int = 3, threads: int | None = None
) -> dict[str, Timing]:
    """Time several models in turns, so that whatever else the machine does hits all of them alike.

    In each round every model has its turn, in a new random order: two calls to warm up, then the mean of
    ``repeats`` calls is its sample of this round. Sample i of all is from the same round: see ``speedup``.

    Args:
        calls: name -> a function without arguments that runs the model once.
        threads: torch's CPU threads meanwhile; default: as they are. Other runtimes have their own setting.
    """
    rng, samples = np.random.default_rng(0), {name: [] for name in calls}
    timers = {name: torch_timer(call, threads) for name, call in calls.items()}
    for _ in range(rounds):
        for name in rng.permutation(list(calls)):
            samples[name].append(1000 * timers[name].timeit(repeats).mean)
    return {name: Timing(np.array(values)) for name, values in samples.items()}


def speedup(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times faster? (ratio, low, high): median ratio of paired rounds, its 95 % bootstrap interval.

    Raises:
        SwysError: different numbers of rounds, so the two cannot come from one ``interleaved_latency``.
    """
    a, b = len(slow.samples), len(fast.samples)
    if a != b:
        raise SwysError(f"{a} rounds against {b}; time both in one interleaved_latency call")
    ratios = slow.samples / fast.samples
    return float(np.median(ratios)), *bootstrap_interval(np.median, ratios, n_resamples=1000)


@dataclass(frozen=True)
class Cost:
    """What a model costs where it lies: ``bytes`` of its weights, ``throughput`` in images a second."""

    parameters: int
    macs: int
    bytes: int
    latency: Timing
    throughput: float
    batch: int
    device: str
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.2f} M parameters, {self.macs / 1e9:.3g} G MACs, {self.bytes / 1e6:.1f}"
            f" MB; one image {self.latency}; batch of {self.batch} {self.throughput:.3g} images/s;"
            f" {self.device}, {self.threads} threads"
        )


def measure_cost(model: VisionTransformer, seconds: float = 2.0, threads: int | None = None) -> Cost:
    """Count and time a model on its device, in evaluation mode, with random input that lies there already.

    Args:
        seconds: about so long for one image and for each larger batch of ``BATCHES``, which end where the
            next one gains less than 5 % or one batch takes longer than this.
        threads: torch's CPU threads; default: as they are.
    """
    threads, timings, rates = threads or torch.get_num_threads(), [], {}
    with evaluation_mode(model), torch.no_grad():
        for batch in BATCHES:
            call = torch_timer(partial(model, random_inputs(model, batch)), threads)
            timings.append(Timing(1000 * np.array(call.blocked_autorange(min_run_time=seconds).times)))
            best, rates[batch] = max(rates.values(), default=0), 1000 * batch / timings[-1].median
            if rates[batch] < 1.05 * best or timings[-1].median > 1000 * seconds:
                break
    size, device = sum(p.nbytes for p in model.parameters()), device_name(next(model.parameters()).device)
    batch, counts = max(rates, key=rates.get), (count_parameters(model), count_macs(model), size)
    return Cost(*counts, timings[0], rates[batch], batch, device, threads)


def torch_timer(call: Callable[[], object], threads: int | None = None) -> Timer:
    """torch's own timer: it warms up, fixes the threads, and waits until an accelerator's work is done."""
    return Timer("call()", globals={"call": call}, num_threads=threads or torch.get_num_threads())


def random_inputs(model: VisionTransformer, batch: int) -> torch.Tensor:
    """Random model input (batch, 3, S, S) in [-1, 1], where the model is and in the dtype of its weights."""
    weight = model.patch_embed.proj.weight
    shape = (batch, weight.shape[1], *model.patch_embed.img_size)
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(weight)
