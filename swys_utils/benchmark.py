"""What a model costs: parameters, MACs, memory, latency and throughput, each with the conditions it was measured under.

Times are milliseconds, sizes bytes, counts whole numbers. One multiply-accumulate (MAC) is two floating-point
operations. Latency is the median over repeated calls with its quartiles; on a machine that others use, compare models
with ``interleaved_latency`` only, because two runs made one after the other differ by more than many models do.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .config import SwysError, cpu_facts, fast_bf16
from .gradcam import evaluation_mode
from .models import count_parameters, plain_attention
from .stats import bootstrap_interval

MAX_BATCH = {"cuda": 4096, "cpu": 64}  # where the search for the best throughput ends
MIN_CALLS = 5  # timed calls behind every median, however short the time


# --- counting --------------------------------------------------------------------------------------------------


def vit_macs(
    tokens: int, dim: int, depth: int, patch_size: int = 16, classes: int = 1000, prefix: int = 1, mlp_ratio: float = 4
) -> int:
    """Multiply-accumulates of one forward pass of a plain ViT (Dosovitskiy et al. 2021), one RGB image.

    Patch embedding ``tokens x 3 patch^2 x d``; each block, with N = tokens + prefix: query, key, value and
    projection ``4 N d^2``, the two attention products ``2 N^2 d``, the MLP ``2 ratio N d^2``; the head ``d x classes``.
    Norms, softmax, GELU and additions are left out, as everywhere in the literature (well under 1 %).

    Args:
        tokens: patch tokens (196 for 224 px and patches of 16 px). dim: embedding width d. depth: blocks.
        prefix: tokens that are no patches (CLS).
    """
    n = tokens + prefix
    block = 4 * n * dim**2 + 2 * n**2 * dim + 2 * mlp_ratio * n * dim**2
    return int(tokens * 3 * patch_size**2 * dim + depth * block + dim * classes)


def count_macs(model: VisionTransformer, img_size: int | None = None) -> int:
    """MACs of one image, attention included, counted by torch while the model runs.

    Attention is counted without the fused kernel, because torch's counter sees no operations in the fused one on
    a CPU: ViT-Tiny would appear 14 % cheaper than it is.

    Args:
        img_size: side of the square input, px; default: the model's own.
    """
    inputs = random_inputs(model, 1, img_size)
    with evaluation_mode(model), torch.no_grad(), plain_attention(model):
        with FlopCounterMode(display=False) as counter:
            model(inputs)
    return counter.get_total_flops() // 2


# --- timing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """Times of one call in milliseconds: ``samples`` (R,), and ``first`` for the very first call.

    The first call is apart: it holds compilation, memory allocation and the choice of kernels.
    """

    samples: np.ndarray
    first: float

    @property
    def median(self) -> float:
        return float(np.median(self.samples))

    @property
    def low(self) -> float:
        """Lower quartile."""
        return float(np.percentile(self.samples, 25))

    @property
    def high(self) -> float:
        """Upper quartile."""
        return float(np.percentile(self.samples, 75))

    def __str__(self) -> str:
        return (
            f"{self.median:.3g} ms [{self.low:.3g}, {self.high:.3g}] (n = {len(self.samples)}, first {self.first:.3g})"
        )


def time_calls(
    call: Callable[[], object], seconds: float = 2.0, device: torch.device | str = "cpu", min_calls: int = MIN_CALLS
) -> Timing:
    """Call again and again for about ``seconds``, after a warm-up of a quarter of it; ``min_calls`` or more count."""
    device = torch.device(device)
    first = _timed(call, device)
    end = time.perf_counter() + seconds / 4
    while time.perf_counter() < end:
        _timed(call, device)
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples) < min_calls:
        samples.append(_timed(call, device))
    return Timing(np.array(samples), first)


def interleaved_latency(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 20,
    repeats: int = 3,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    seed: int = 0,
) -> dict[str, Timing]:
    """Time several models in turns, so that whatever else the machine does hits all of them alike.

    In each round every model has its turn, in a new random order: one call that does not count (it brings the weights
    back into the cache), then ``repeats`` calls whose median is this round's sample. Sample i of all models comes from
    the same round, so ratios can be paired: see ``speedup``.

    Args:
        calls: name -> a function without arguments that runs the model once.
        threads: torch threads during the measurement; default: as they are. Other runtimes have their own setting.
    """
    device = torch.device(device)
    rng = np.random.default_rng(seed)
    with fixed_threads(threads):
        first = {name: _timed(call, device) for name, call in calls.items()}
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name in rng.permutation(list(calls)):
                _timed(calls[name], device)
                samples[name].append(float(np.median([_timed(calls[name], device) for _ in range(repeats)])))
    return {name: Timing(np.array(samples[name]), first[name]) for name in calls}


def speedup(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times faster? Ratio of medians and its 95 % bootstrap interval over paired rounds: (ratio, low, high).

    Raises:
        SwysError: different numbers of rounds; both have to come from one ``interleaved_latency``.
    """
    if len(slow.samples) != len(fast.samples):
        raise SwysError(
            f"{len(slow.samples)} rounds against {len(fast.samples)}; time both in one interleaved_latency call"
        )

    def ratio(a, b):
        return float(np.median(a) / np.median(b))

    return ratio(slow.samples, fast.samples), *bootstrap_interval(ratio, slow.samples, fast.samples, n_resamples=1000)


def best_throughput(
    make_call: Callable[[int], Callable[[], object]],
    seconds: float = 2.0,
    device: torch.device | str = "cpu",
    max_batch: int | None = None,
    batch: int | None = None,
) -> tuple[float, int]:
    """Images a second at a saturating batch: the batch is doubled until that gains no more than 5 %.

    The search also ends at ``max_batch``, where memory ends, or where one call would take longer than ``seconds``.

    Args:
        make_call: batch size -> a function without arguments that runs one such batch.
        batch: measure this one batch size instead of searching.

    Returns:
        (images a second, batch size) of the best batch.
    """
    device = torch.device(device)
    if batch is not None:
        return 1000 * batch / time_calls(make_call(batch), seconds, device, 3).median, batch
    limit = max_batch or MAX_BATCH.get(device.type, 256)
    best, best_batch, size = 0.0, 1, 1
    while size <= limit:
        try:
            median = time_calls(make_call(size), seconds / 2, device, 3).median
        except torch.cuda.OutOfMemoryError:
            break
        rate = 1000 * size / median
        saturated = size > 1 and rate <= 1.05 * best
        if rate > best:
            best, best_batch = rate, size
        if saturated or 2 * median > 1000 * seconds:
            break
        size *= 2
    return best, best_batch


@contextmanager
def fixed_threads(threads: int | None = None):
    """torch's CPU threads inside the block; None leaves them. Yields the number in force."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            if threads < 1:
                raise SwysError(f"threads is {threads}; give 1 or more")
            torch.set_num_threads(threads)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _timed(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call. On an accelerator until its work is done, not until it is queued."""
    _synchronise(device)
    start = time.perf_counter()
    call()
    _synchronise(device)
    return 1000 * (time.perf_counter() - start)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


# --- one model -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What one model costs on one device.

    Attributes:
        parameters, macs: counts; MACs of one image, attention included.
        weight_bytes: weights as float32, 4 bytes each.
        latency_ms, latency_low, latency_high: median and quartiles of one forward pass at batch 1.
        throughput: images a second at ``batch``, the saturating batch size.
        threads: CPU threads; on a GPU those of the process that feeds it. dtype: of the weights while measured.
    """

    parameters: int
    macs: int
    weight_bytes: int
    latency_ms: float
    latency_low: float
    latency_high: float
    throughput: float
    batch: int
    device: str
    threads: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.2f} M parameters, {self.macs / 1e9:.3g} GMACs, {self.weight_bytes / 1e6:.1f} MB"
            f" as float32 | batch 1: {self.latency_ms:.3g} ms [{self.latency_low:.3g}, {self.latency_high:.3g}]"
            f" | batch {self.batch}: {self.throughput:.3g} img/s | {self.dtype}, {self.device}, {self.threads} threads"
        )

    def row(self) -> dict[str, str]:
        """The same as column -> text, ready for a table."""
        return {
            "parameters": f"{self.parameters / 1e6:.2f} M",
            "MACs": f"{self.macs / 1e9:.3g} G",
            "weights (fp32)": f"{self.weight_bytes / 1e6:.1f} MB",
            "latency, batch 1": f"{self.latency_ms:.3g} ms [{self.latency_low:.3g}, {self.latency_high:.3g}]",
            "throughput": f"{self.throughput:.3g} img/s (batch {self.batch})",
        }


def measure_cost(
    model: VisionTransformer,
    img_size: int | None = None,
    device: torch.device | str | None = None,
    batch_sizes: Sequence[int | None] = (1, None),
    seconds: float = 2.0,
    threads: int | None = None,
) -> Cost:
    """Count and time one model: eval mode, no gradient, random input that already lies on the device.

    Args:
        img_size: side of the square input, px; default: the model's own.
        device: where to measure; default: where the model is. The model is back where it was afterwards.
        batch_sizes: batch of the latency, batch of the throughput; None doubles the batch until no more than 5 % is
            gained.
        seconds: time spent on each measurement. threads: CPU threads, default: as they are.

    Raises:
        SwysError: an image size the model does not take, or a device that is not there.
    """
    home = next(model.parameters()).device
    device = torch.device(device) if device is not None else home
    macs = count_macs(model, img_size)
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise SwysError(f"device '{device}' cannot be used ({str(error).splitlines()[0]}); use 'cpu'") from None

    def make_call(batch: int) -> Callable[[], object]:
        inputs = random_inputs(model, batch, img_size)
        return lambda: model(inputs)

    try:
        with evaluation_mode(model), torch.no_grad(), fixed_threads(threads) as used:
            latency = time_calls(make_call(batch_sizes[0] or 1), seconds, device)
            throughput, batch = best_throughput(make_call, seconds, device, batch=batch_sizes[1])
    finally:
        model.to(home)
    parameters = count_parameters(model)
    return Cost(
        parameters=parameters,
        macs=macs,
        weight_bytes=4 * parameters,
        latency_ms=latency.median,
        latency_low=latency.low,
        latency_high=latency.high,
        throughput=throughput,
        batch=batch,
        device=device_name(device),
        threads=used,
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
    )


def device_name(device: torch.device | str = "cpu") -> str:
    """'NVIDIA H100 ...' or the CPU's brand, as the system tells it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    brand = next((v for k, v in cpu_facts() if k == "model name"), platform.processor() or platform.machine())
    return f"CPU ({brand})"


def random_inputs(model: VisionTransformer, batch: int, img_size: int | None = None) -> torch.Tensor:
    """Random model input (batch, 3, S, S) where the model is, in the dtype of its weights."""
    weight = model.patch_embed.proj.weight
    size = img_size or model.patch_embed.img_size[0]
    if size != model.patch_embed.img_size[0] and not model.dynamic_img_size:
        raise SwysError(f"img_size is {size}; this model takes {model.patch_embed.img_size[0]} px")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(batch, weight.shape[1], size, size, generator=generator) * 2 - 1
    return pixels.to(weight.device, weight.dtype)


# --- memory ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Peak memory of one forward pass in bytes: ``growth`` by weights and activations, over ``runtime``.

    ``runtime`` is what the process takes once the library is imported (on a GPU: 0, allocations only).
    """

    growth: int
    runtime: int
    method: str

    def __str__(self) -> str:
        return f"{self.growth / 1e6:.0f} MB over {self.runtime / 1e6:.0f} MB ({self.method})"


def peak_memory(
    model: VisionTransformer | str | Path,
    batch: int = 1,
    device: torch.device | str | None = None,
    threads: int | None = None,
    int8: bool = False,
) -> Memory:
    """Peak memory while a batch runs.

    On a CPU a new process runs a model of the same shape with random weights (memory does not depend on their values)
    and reads from /proc how far its resident memory rose; nothing of this process is counted. On CUDA it is torch's
    own count of allocated bytes.

    Args:
        model: a ViT, in the dtype of its weights, or the path of an ONNX file. int8: quantise it first (torch, CPU).

    Raises:
        SwysError: on a CPU of a system other than Linux, or when the process fails.
    """
    if isinstance(model, (str, Path)):
        path = Path(model).resolve()
        if not path.is_file():
            raise SwysError(f"no ONNX file '{model}'; write it with export_onnx or 'swys export'")
        spec = {"onnx": str(path), "written": path.stat().st_mtime_ns}
        device = torch.device("cpu")
    else:
        device = torch.device(device) if device is not None else next(model.parameters()).device
        spec = {"model": _shape(model), "dtype": _dtype(model), "int8": int8}
    if device.type == "cuda":
        return _peak_memory_cuda(model, batch, device)
    if not Path("/proc/self/status").is_file():
        raise SwysError(f"peak memory on a CPU is read from /proc, which {platform.system()} lacks; use Linux")
    spec |= {"batch": batch, "threads": threads or torch.get_num_threads()}
    before, peak = _memory_of_child(json.dumps(spec))
    return Memory(peak - before, before, "resident memory of a process of its own")


@lru_cache
def _memory_of_child(spec: str) -> tuple[int, int]:
    child = subprocess.run([sys.executable, "-c", _MEMORY_CHILD, spec], capture_output=True, text=True)
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        raise SwysError(f"the process that measures memory failed ({reason}); try a smaller batch or model")
    before, peak = json.loads(child.stdout.strip().splitlines()[-1])
    return before, peak


# Imports no more than a deployed model would: importing swys_utils would count its libraries, too.
_MEMORY_CHILD = """
import json, sys, warnings
warnings.simplefilter("ignore")
spec = json.loads(sys.argv[1])

def memory(field):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))

if "onnx" in spec:
    import numpy as np
    import onnxruntime as ort
    before = memory("VmRSS")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = spec["threads"], 3
    session = ort.InferenceSession(spec["onnx"], options, providers=["CPUExecutionProvider"])
    inputs = np.zeros([spec["batch"], *session.get_inputs()[0].shape[1:]], np.float32)
    call = lambda: session.run(None, {"pixels": inputs})
else:
    import torch
    from timm.models.vision_transformer import VisionTransformer
    torch.set_num_threads(spec["threads"])
    torch.set_grad_enabled(False)
    torch.nn.Linear(64, 64)(torch.zeros(8, 64))  # what torch loads at its first product belongs to the library
    before = memory("VmRSS")
    model = VisionTransformer(**spec["model"]).eval()
    inputs = torch.zeros(spec["batch"], spec["model"]["in_chans"], *[spec["model"]["img_size"]] * 2)
    if spec["int8"]:
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    else:
        model, inputs = model.to(getattr(torch, spec["dtype"])), inputs.to(getattr(torch, spec["dtype"]))
    call = lambda: model(inputs)
try:  # forget the peak of building the model
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
except OSError:
    pass
for _ in range(3):
    call()
print(json.dumps([before, memory("VmHWM")]))
"""


def _peak_memory_cuda(model: VisionTransformer, batch: int, device: torch.device) -> Memory:
    home = next(model.parameters()).device
    model.to("cpu")
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    try:
        model.to(device)
        torch.cuda.reset_peak_memory_stats(device)
        with evaluation_mode(model), torch.no_grad():
            model(random_inputs(model, batch))
        torch.cuda.synchronize(device)
        return Memory(torch.cuda.max_memory_allocated(device) - before, 0, "allocated by torch on the GPU")
    finally:
        model.to(home)


def _shape(model: VisionTransformer) -> dict:
    """timm arguments that give a model with the same tensors."""
    return {
        "img_size": model.patch_embed.img_size[0],
        "patch_size": model.patch_embed.patch_size[0],
        "in_chans": model.patch_embed.proj.in_channels,
        "num_classes": model.num_classes,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": model.blocks[0].attn.num_heads,
        "mlp_ratio": model.blocks[0].mlp.fc1.out_features / model.embed_dim,
        "global_pool": model.global_pool,
        "class_token": model.cls_token is not None,
    }


def _dtype(model: nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")


# --- the machine's roofs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Roofs:
    """What the machine can do at most, measured.

    ``gflops``: a large float32 matrix product; ``gflops_bf16``: the same in bfloat16, nan where that is emulated;
    ``gbytes``: 10^9 bytes moved a second.
    """

    gflops: float
    gbytes: float
    device: str
    threads: int
    gflops_bf16: float = float("nan")

    @property
    def ridge(self) -> float:
        """Operations a byte below which memory, not arithmetic, is the limit (Williams et al. 2009)."""
        return self.gflops / self.gbytes


def measure_roofs(device: torch.device | str = "cpu", seconds: float = 1.0, threads: int | None = None) -> Roofs:
    """The lines of a roofline plot: a square matrix product, and a copy of an array beyond the caches.

    On a CPU the float32 product is tried in both libraries that torch brings, and the faster counts: what ``a @ b``
    calls (MKL) uses only half the width of an AMD processor's vectors, where oneDNN uses all of it.
    """
    device = torch.device(device)
    side = 8192 if device.type == "cuda" else 1536
    a = torch.rand(side, side, device=device)
    source = torch.zeros(2**26 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    products = [lambda: a @ a]
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        from torch.utils.mkldnn import to_mkldnn  # here, because importing it warns of TorchScript

        layer, inputs = to_mkldnn(nn.Linear(side, side, bias=False).eval()), a.to_mkldnn()
        products.append(lambda: layer(inputs))
    half = a.bfloat16()

    def fastest(calls: Sequence[Callable[[], object]]) -> float:
        """Shortest time of any call, ms."""
        return min(time_calls(call, seconds / 4, device).samples.min() for call in calls)

    with torch.no_grad(), fixed_threads(threads) as used:
        product, copy = fastest(products), fastest([lambda: target.copy_(source)])
        bf16 = fastest([lambda: half @ half]) if fast_bf16(device) else float("nan")
    work, moved = 2 * side**3, 2 * 4 * source.numel()  # operations; bytes read and written
    return Roofs(
        gflops=float(work / product / 1e6),
        gbytes=float(moved / copy / 1e6),
        device=device_name(device),
        threads=used,
        gflops_bf16=float(work / bf16 / 1e6),
    )
