"""The shrink ladder: what each step from ViT-Base down to an int8 file costs, saves and changes.

Every rung is run, not only counted: it classifies the test images (accuracy, flips against float32), and its heatmaps
are compared with those of the rung above.
"""

from __future__ import annotations

import math
import platform
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .benchmark import (
    best_throughput,
    count_macs,
    device_name,
    fast_bf16,
    fixed_threads,
    interleaved_latency,
    peak_memory,
    random_inputs,
    speedup,
)
from .config import SwysError
from .data import Dataset, to_model_input
from .explain import agreement, heatmaps, mean_interval
from .export import dequantised_twin, export_onnx, onnx_session, quantise_onnx_dynamic, quantise_onnx_int4
from .models import count_parameters, create_model
from .models import write_json as _write_json
from .stats import bootstrap_interval, wilson_interval
from .training import auc, calibration_error, probabilities

NAN = float("nan")
VARIANTS = ("fp32", "bf16", "int8 PyTorch", "fp32 ONNX", "int8 ONNX", "int4 ONNX")
UNTRAINED = "untrained: latency only"

# What the earlier project of this name published (README, "Final Results"), and what its numbers can only mean.
ORIGINAL_TABLE = (
    {"model": "ViT Base", "published time": "9.12 s a sample", "published parameters": "83.8 M",
     "published accuracy": 83.16, "parameters": "85.8 M"},
    {"model": "ViT Tiny", "published time": "0.86 s a sample", "published parameters": "5.4 M",
     "published accuracy": 83.37, "parameters": "5.5 M"},
    {"model": "ViT KD Tiny", "published time": "0.87 s a sample", "published parameters": "5.4 M",
     "published accuracy": 83.20, "parameters": "5.5 M"},
)  # fmt: skip
ORIGINAL_REASON = (
    "9.12 s for one image is impossible: two CPU cores need well under half a second for ViT-Base. The figure can only"
    " be milliseconds, or seconds a batch. Counting the tensors gives 85.8 M and 5.5 M parameters, not 83.8 M and"
    " 5.4 M. The accuracies differ by less than their 95 % interval (+-0.9 points at n = 7,180)."
)


@dataclass(frozen=True)
class Step:
    """One model on the way down: its name, the model, the variants to measure, and whether it was trained."""

    name: str
    model: VisionTransformer
    variants: Sequence[str] = ("fp32",)
    trained: bool = True


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder; nan where something was not measured, and then ``note`` says why.

    Attributes:
        name: model and variant. model: name of the step. precision: fp32, bf16, int8. runtime: PyTorch, ONNX Runtime.
        disk_bytes: what has to be shipped. memory_bytes: peak growth at batch 1; runtime_bytes: the library itself.
        latency_ms, latency_low, latency_high: batch 1, median and quartiles over interleaved rounds; first_ms: the
            first call, with whatever is compiled then. speedup (low, high): against the first rung, same rounds.
        throughput: images a second at ``batch``.
        accuracy, accuracy_low, accuracy_high, auc, ece: fractions, on ``n`` test images.
        flips: images whose prediction differs from the same model's in PyTorch float32.
        spearman (low, high): agreement of signed Grad-CAM maps (true class) with rung ``above``: the same model in
            float32, or for a float32 model the model before it. explained: what the maps were computed from.
    """

    name: str
    model: str
    precision: str
    runtime: str
    trained: bool
    parameters: int
    macs: int
    disk_bytes: int
    device: str
    threads: int
    memory_bytes: float = NAN
    runtime_bytes: float = NAN
    latency_ms: float = NAN
    latency_low: float = NAN
    latency_high: float = NAN
    first_ms: float = NAN
    speedup: float = NAN
    speedup_low: float = NAN
    speedup_high: float = NAN
    throughput: float = NAN
    batch: int = 0
    n: int = 0
    accuracy: float = NAN
    accuracy_low: float = NAN
    accuracy_high: float = NAN
    auc: float = NAN
    ece: float = NAN
    flips: int = 0
    above: str = ""
    spearman: float = NAN
    spearman_low: float = NAN
    spearman_high: float = NAN
    explained: str = ""
    note: str = ""

    @property
    def measured(self) -> bool:
        return not math.isnan(self.latency_ms)

    @property
    def gflops(self) -> float:
        """Achieved rate at batch 1, 10^9 floating-point operations a second."""
        return 2 * self.macs / self.latency_ms / 1e6

    @property
    def intensity(self) -> float:
        """Operations for each byte of weights at batch 1: an upper bound, since activations move, too."""
        return 2 * self.macs / self.disk_bytes


def shrink_ladder(
    base: VisionTransformer | None,
    tiny: VisionTransformer | None,
    kd_tiny: VisionTransformer | None,
    data: Dataset,
    *,
    coarse: Mapping[str, VisionTransformer] | None = None,
    **options,
) -> list[Rung]:
    """Every step of the series: Base, Tiny, KD Tiny, its bf16 and int8 forms, and coarser token grids.

    Args:
        base, tiny, kd_tiny: trained models; None leaves a step out.
        coarse: name -> trained model on another grid. Default: two *untrained* ViT-Tiny on native 28 px, whose latency
            alone is measured: patch 4 (49 tokens), and patch 2 (196 tokens, as many as 224 px have, without enlarging).
        options: see ``measure_ladder``.
    """
    steps = [
        Step("Base", base, ("fp32", "bf16")),
        Step("Tiny", tiny),
        Step("KD Tiny", kd_tiny, VARIANTS),
    ]
    steps = [step for step in steps if step.model is not None]
    variants = ("fp32", "int8 ONNX")
    if coarse is None:
        for patch in (4, 2):
            model = create_model("vit_tiny", data.info.num_classes, 28, patch_size=patch)
            steps.append(Step(f"Tiny, patch {patch} on 28 px", model, variants, trained=False))
    else:
        steps += [Step(name, model, variants) for name, model in coarse.items()]
    return measure_ladder(steps, data, **options)


def measure_ladder(
    steps: Sequence[Step],
    data: Dataset,
    *,
    images: int = 0,
    explain_images: int = 128,
    seconds: float = 1.0,
    rounds: int = 15,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    memory: bool = True,
    folder: str | Path | None = None,
    logits: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Rung]:
    """Measure each variant of each step: cost, correctness, and whether it still looks at the same places.

    Args:
        images: test images to score (0: all). explain_images: how many of them to explain (0: all).
        seconds: for each throughput. rounds: of the interleaved latency.
        memory: measure peak memory (a new process for each rung: some seconds).
        folder: keep the ONNX files and cards there; default: a temporary folder.
        logits: step name -> float32 logits (n, C) of these images, where they are known already.
        progress: called with one line at each stage, for example ``print``.

    Returns:
        Rungs in the order of ``steps``. A variant that cannot run here (bfloat16 that the CPU only emulates, ONNX
        without its packages, int8 on a GPU) is listed with a note and without measurements.

    Raises:
        SwysError: no steps, an unknown variant, or a model whose classes are not the data's.
    """
    if not steps:
        raise SwysError("the ladder has no steps; give at least one model")
    for step in steps:
        if set(step.variants) - set(VARIANTS):
            raise SwysError(
                f"unknown variants {sorted(set(step.variants) - set(VARIANTS))}; known: {', '.join(VARIANTS)}"
            )
        if step.trained and step.model.num_classes != data.info.num_classes:
            raise SwysError(
                f"'{step.name}' has {step.model.num_classes} classes, {data.info.name} has {data.info.num_classes};"
                " use a checkpoint trained on this data set"
            )
    device, say = torch.device(device), progress or (lambda line: None)
    with tempfile.TemporaryDirectory(prefix="swys-") as scratch, torch.no_grad(), fixed_threads(threads) as used:
        say("preparing the variants")
        folder = Path(folder or scratch)
        places = {step.name: (next(step.model.parameters()).device, step.model.training) for step in steps}
        try:
            exported: dict[str, Path] = {}  # step name -> its float32 ONNX file
            built = [
                _build(step, variant, folder, device, used, exported) for step in steps for variant in step.variants
            ]
            _time(built, seconds, rounds, device, say)
            if memory:
                _weigh(built, device, used, say)
            _score(built, data, images, explain_images, device, logits or {}, say)
        finally:
            for step in steps:
                place, training = places[step.name]
                step.model.to(place).train(training)
    return [b.rung for b in built]


@dataclass
class _Built:
    """A rung while it is measured: how to run it, and the PyTorch model that stands for it in explanations."""

    rung: Rung
    run: Callable[[torch.Tensor], np.ndarray] | None = None  # float32 model input -> float32 logits
    call: Callable[[int], Callable[[], object]] | None = None  # batch size -> one timed call
    explain: nn.Module | None = None
    memory: tuple = ()  # what peak_memory takes: a model or a path, and 'int8' for torch's


def _build(step: Step, variant: str, folder: Path, device: torch.device, threads: int, exported: dict) -> _Built:
    precision, _, runtime = variant.partition(" ")
    runtime = {"ONNX": "ONNX Runtime"}.get(runtime, "PyTorch")
    model = step.model.to(device).eval()
    parameters = count_parameters(model)
    rung = Rung(
        name=f"{step.name} {precision}" + (f", {runtime}" if precision == "int8" or runtime != "PyTorch" else ""),
        model=step.name,
        precision=precision,
        runtime=runtime,
        trained=step.trained,
        parameters=parameters,
        macs=count_macs(model),
        disk_bytes=_state_bytes(model) // (2 if precision == "bf16" else 1),
        device=device_name(device),
        threads=threads,
        note="" if step.trained else UNTRAINED,
    )
    if runtime == "ONNX Runtime" or precision == "int8":
        rung = replace(rung, disk_bytes=0)  # known once the file is there
        if device.type != "cpu":
            return _Built(replace(rung, note="not run: a CPU variant; measure it with device='cpu'"))
    elif precision == "bf16" and not fast_bf16(device):
        return _Built(replace(rung, note="not run: this CPU only emulates bfloat16, about 10x slower than float32"))
    try:
        if runtime == "ONNX Runtime":
            return _build_onnx(rung, step, folder, threads, exported)
        if precision == "int8":
            return _build_torch_int8(rung, model)
    except (SwysError, AttributeError, RuntimeError) as error:
        return _Built(replace(rung, note=f"not run: {str(error).splitlines()[0]}"))
    if precision == "bf16":
        model = deepcopy(model).bfloat16()
    return _Built(rung, _torch_run(model), _torch_call(model), model, (model,))


def _build_onnx(rung: Rung, step: Step, folder: Path, threads: int, exported: dict[str, Path]) -> _Built:
    stem = "".join(c if c.isalnum() else "_" for c in step.name.lower())
    twin, explained = step.model, "its PyTorch model: the same weights"
    if step.name not in exported:
        exported[step.name] = export_onnx(step.model, folder / f"{stem}.onnx").path
    path = exported[step.name]
    if rung.precision != "fp32":
        quantise = {"int8": quantise_onnx_dynamic, "int4": quantise_onnx_int4}[rung.precision]
        path = quantise(path, folder / f"{stem}_{rung.precision}.onnx").path
        twin, explained = dequantised_twin(path, step.model), f"a float twin with the {rung.precision} weights"
    session = onnx_session(path, threads)

    def run(pixels: torch.Tensor) -> np.ndarray:
        return session.run(None, {"pixels": pixels.contiguous().numpy()})[0]

    def call(batch: int) -> Callable[[], object]:
        inputs = random_inputs(step.model, batch).numpy()
        return lambda: session.run(None, {"pixels": inputs})

    return _Built(replace(rung, disk_bytes=path.stat().st_size, explained=explained), run, call, twin, (path,))


def _build_torch_int8(rung: Rung, model: VisionTransformer) -> _Built:
    """torch's own dynamic int8. It is deprecated in favour of torchao, and listed to compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        int8 = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    twin, size = deepcopy(model), _state_bytes(model)
    for name, layer in int8.named_modules():
        if "quantized" in type(layer).__module__ and hasattr(layer, "in_features"):
            weight = layer.weight()
            twin.get_submodule(name).weight.copy_(weight.dequantize())
            size -= 3 * weight.numel() - 4  # one byte instead of four, and the scale of the matrix
    rung = replace(rung, disk_bytes=size, explained="a float twin with the int8 weights")
    return _Built(rung, _torch_run(int8), _torch_call(model, int8), twin, (model, "int8"))


def _torch_run(model: nn.Module) -> Callable[[torch.Tensor], np.ndarray]:
    def run(pixels: torch.Tensor) -> np.ndarray:
        dtype = model.patch_embed.proj.weight.dtype
        return model(pixels.to(dtype)).float().cpu().numpy()

    return run


def _torch_call(model: VisionTransformer, run: nn.Module | None = None) -> Callable[[int], Callable[[], object]]:
    def call(batch: int) -> Callable[[], object]:
        inputs = random_inputs(model, batch)
        return lambda: (run or model)(inputs)

    return call


def _state_bytes(model: nn.Module) -> int:
    """Bytes of all tensors, as safetensors stores them (its header adds about 0.02 MB)."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _time(built: list[_Built], seconds: float, rounds: int, device: torch.device, say) -> None:
    running = {b.rung.name: b for b in built if b.call}
    if not running:
        return
    say(f"latency of {len(running)} variants, {rounds} interleaved rounds")
    timings = interleaved_latency({name: b.call(1) for name, b in running.items()}, rounds, device=device)
    top = next(iter(timings.values()))
    for name, timing in timings.items():
        say(f"throughput: {name}")
        throughput, batch = best_throughput(running[name].call, seconds, device)
        ratio, low, high = speedup(top, timing)
        running[name].rung = replace(
            running[name].rung,
            latency_ms=timing.median,
            latency_low=timing.low,
            latency_high=timing.high,
            first_ms=timing.first,
            speedup=ratio,
            speedup_low=low,
            speedup_high=high,
            throughput=throughput,
            batch=batch,
        )


def _weigh(built: list[_Built], device: torch.device, threads: int, say) -> None:
    for b in built:
        if not b.memory:
            continue
        say(f"memory: {b.rung.name}")
        try:
            memory = peak_memory(b.memory[0], device=device, threads=threads, int8="int8" in b.memory[1:])
            b.rung = replace(b.rung, memory_bytes=memory.growth, runtime_bytes=memory.runtime)
        except SwysError as error:
            b.rung = replace(b.rung, note="; ".join(filter(None, (b.rung.note, f"memory: {error}"))))


def _score(built: list[_Built], data: Dataset, images: int, explain_images: int, device, known, say) -> None:
    test = data.test.head(images)
    chosen = test.head(explain_images)
    targets = chosen.labels
    float_logits: dict[str, np.ndarray] = {}
    maps: dict[str, np.ndarray] = {}
    top = previous = ""  # names of this model's float32 rung and of the one before it
    for b in built:
        if b.run is None or not b.rung.trained:
            continue
        say(f"accuracy and heatmaps: {b.rung.name}")
        is_float = b.rung.precision == "fp32" and b.rung.runtime == "PyTorch"
        if is_float:
            previous, top = top, b.rung.name
        logits = known.get(b.rung.model) if is_float else None
        if logits is None:
            logits = _predict(b, test.images, device)
        elif len(logits) != len(test):
            raise SwysError(f"{len(logits)} known logits of '{b.rung.model}' for {len(test)} images; give one row each")
        if is_float:
            float_logits[b.rung.model] = logits
        if targets.ndim > 1:  # several labels at once: explain the class that the first rung finds most likely
            targets = _predict(b, chosen.images, device).argmax(axis=1)
        maps[b.rung.name] = heatmaps(b.explain, chosen.images, targets=targets, signed=True)
        above = previous if is_float else top
        rho = mean_interval(agreement(maps[above], maps[b.rung.name]).spearman) if above else (NAN, NAN, NAN)
        b.rung = replace(
            b.rung,
            **_scores(logits, test.labels, data.info),
            flips=_flips(logits, float_logits.get(b.rung.model, logits), data.info.multi_label),
            above=above,
            spearman=rho[0],
            spearman_low=rho[1],
            spearman_high=rho[2],
            explained=b.rung.explained or "itself",
        )


def _predict(b: _Built, images: np.ndarray, device: torch.device) -> np.ndarray:
    """training.predict for anything that runs, whatever the runtime.

    Int8 goes image by image: its activations are scaled by the range of the batch, so batch 1 is what is deployed.
    """
    batch_size = 1 if b.rung.precision == "int8" else 32
    size = b.explain.patch_embed.img_size[0]
    starts = range(0, len(images), batch_size)
    return np.concatenate([b.run(to_model_input(images[i : i + batch_size], size, device)) for i in starts])


def _scores(logits: np.ndarray, labels: np.ndarray, info) -> dict:
    p = probabilities(logits.astype(np.float64), info.task)
    correct = (p > 0.5) == labels if info.multi_label else p.argmax(axis=1) == labels
    low, high = bootstrap_interval(np.mean, correct) if info.multi_label else wilson_interval(correct)
    return {
        "n": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "auc": auc(labels, p, info.task),
        "ece": calibration_error(p, labels),
    }


def _flips(logits: np.ndarray, reference: np.ndarray, multi_label: bool) -> int:
    """Images whose prediction differs (multi-label: any label's)."""
    if multi_label:
        return int(((logits > 0) != (reference > 0)).any(axis=1).sum())
    return int((logits.argmax(axis=1) != reference.argmax(axis=1)).sum())


def ladder_table(rungs: Sequence[Rung]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of text, for a notebook, the site or a terminal; '-' where nothing was measured."""

    def shown(value: float, text: str) -> str:
        return "-" if math.isnan(value) else text

    columns = ["rung", "parameters", "MACs", "on disk", "peak memory", "latency, batch 1", "faster", "best throughput",
               "accuracy", "AUC", "ECE", "flips", "looks like the rung above", "note"]  # fmt: skip
    rows = []
    for r in rungs:
        scored = r.n > 0
        alike = f"{r.spearman:.3f} [{r.spearman_low:.3f}, {r.spearman_high:.3f}]"
        rows.append([
            r.name,
            f"{r.parameters / 1e6:.2f} M",
            f"{r.macs / 1e9:.3g} G",
            f"{r.disk_bytes / 1e6:.1f} MB" if r.disk_bytes else "-",
            shown(r.memory_bytes, f"{r.memory_bytes / 1e6:.0f} + {r.runtime_bytes / 1e6:.0f} MB"),
            shown(r.latency_ms, f"{r.latency_ms:.3g} ms [{r.latency_low:.3g}, {r.latency_high:.3g}]"),
            shown(r.speedup, f"{r.speedup:.3g}x [{r.speedup_low:.3g}, {r.speedup_high:.3g}]"),
            shown(r.throughput, f"{r.throughput:.3g} img/s (batch {r.batch})"),
            shown(r.accuracy, f"{r.accuracy:.1%} [{r.accuracy_low:.1%}, {r.accuracy_high:.1%}]"),
            shown(r.auc, f"{r.auc:.3f}"),
            shown(r.ece, f"{r.ece:.3f}"),
            f"{r.flips} of {r.n}" if scored else "-",
            shown(r.spearman, alike),
            r.note,
        ])  # fmt: skip
    return columns, rows


def write_json(rungs: Sequence[Rung], path: str | Path, **facts) -> None:
    """Write the ladder in one step: versions, ``facts``, rungs (null where nothing was measured), the original's table.

    Raises:
        SwysError: an unwritable path.
    """
    content = {
        **facts,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
        "rungs": [
            {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in asdict(rung).items()}
            for rung in rungs
        ],
        "original": {"rows": list(ORIGINAL_TABLE), "reason": ORIGINAL_REASON},
    }
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _write_json(path, content)
    except OSError as error:
        raise SwysError(f"cannot write '{path}': {error}; choose a folder you may write to") from None
