"""The shrink ladder: what each step from ViT-Base down to an int8 file costs, saves and changes.

Every rung is run, not only counted: it classifies the test images (accuracy, flips against float32), and its heatmaps
are compared with those of the rung above and of the first rung.
"""

from __future__ import annotations

import math
import platform
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    fixed_threads,
    interleaved_latency,
    peak_memory,
    random_inputs,
    speedup,
)
from .config import SwysError, fast_bf16
from .data import Dataset, Split, to_model_input
from .explain import agreement, heatmaps, mean_interval
from .export import dequantised_twin, export_onnx, onnx_session, quantise_onnx_dynamic, quantise_onnx_int4
from .models import at_native_resolution, count_parameters
from .models import write_json as _write_json
from .stats import bootstrap_interval, wilson_interval
from .training import auc, calibration_error, predict, probabilities

NAN = float("nan")
VARIANTS = ("fp32", "bf16", "int8 PyTorch", "fp32 ONNX", "int8 ONNX", "int4 ONNX")
LADDER_NAMES = {"vit_base": "Base", "vit_tiny": "Tiny", "vit_tiny_kd": "KD Tiny", "vit_tiny_kd_p4": "KD Tiny patch 4",
                "vit_tiny_kd_p7": "KD Tiny patch 7"}  # fmt: skip
CHECKED = 16  # images on which a rewritten model has to give the original's logits
VALIDATED = 256  # validation images by which a rung is chosen
MIN_SCORED = 64  # test images that even the slowest rung is scored on
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
    """One model on the way down: its name, the model, the variants to measure, and whether it was trained.

    ``equals`` names the step of which this one is an exact rewrite (the same function, nothing trained).
    """

    name: str
    model: VisionTransformer
    variants: Sequence[str] = ("fp32",)
    trained: bool = True
    equals: str = ""


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
        val_accuracy: on ``val_n`` validation images; the only score that chooses anything (``which_to_ship``).
        flips: images whose prediction differs from the same model's in PyTorch float32, out of ``compared``.
        spearman (low, high): agreement of signed Grad-CAM maps with rung ``above``: the same model in float32, or for
            a float32 model the model before it. like_first (low, high): the same with the first rung, whose predicted
            class is explained in all. explained: what the maps were computed from.
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
    val_n: int = 0
    val_accuracy: float = NAN
    flips: int = 0
    compared: int = 0
    above: str = ""
    spearman: float = NAN
    spearman_low: float = NAN
    spearman_high: float = NAN
    like_first: float = NAN
    like_first_low: float = NAN
    like_first_high: float = NAN
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


def shrink_ladder(models: Mapping[str, VisionTransformer], data: Dataset, **options) -> list[Rung]:
    """Every step of the series on these models: see ``ladder_steps`` and ``measure_ladder`` (its ``options``).

    Raises:
        SwysError: a rewritten model gives other logits than those known of the original.
    """
    steps, known = ladder_steps(models, data), dict(options.pop("logits", None) or {})
    known_val = dict(options.pop("val_logits", None) or {})
    test = data.test.head(options.get("images", 0))
    rows = test.rows(CHECKED)
    for step in steps:
        if step.equals in known:
            difference = np.abs(predict(step.model, test.images[rows]) - known[step.equals][rows]).max()
            if difference > 0.02:
                raise SwysError(
                    f"'{step.name}' is no exact rewrite of '{step.equals}': logits differ by {difference:.2g}"
                )
            known[step.name] = known[step.equals]
            if step.equals in known_val:
                known_val[step.name] = known_val[step.equals]
    return measure_ladder(steps, data, logits=known, val_logits=known_val, **options)


def ladder_steps(models: Mapping[str, VisionTransformer], data: Dataset) -> list[Step]:
    """Which variants of which model: bf16 of the first, everything of the model that is to be shipped, and grids.

    The model to be shipped is the last of those on the first model's patch grid. After it comes the same model
    rewritten for the images' own size (where that is possible), then models on other grids.

    Args:
        models: name -> trained model, largest first, such as Base, Tiny, KD Tiny, KD Tiny with patches of 4 px.
    """
    if not models:
        raise SwysError("the ladder has no steps; give at least one model")
    grids = {name: model.patch_embed.grid_size for name, model in models.items()}
    first = next(iter(models))
    plain = [name for name, grid in grids.items() if grid == grids[first]]
    steps = [Step(name, models[name], ("fp32", "bf16") if name == first else ("fp32",)) for name in plain[:-1]]
    shipped = plain[-1]
    steps.append(Step(shipped, models[shipped], VARIANTS))
    try:
        native = at_native_resolution(models[shipped], data.info.size)
        steps.append(Step(f"{shipped} on {data.info.size} px", native, ("fp32", "int8 ONNX"), equals=shipped))
    except SwysError:
        pass  # it reads the images at their own size already, or at no whole multiple
    coarse = ("fp32", "int8 ONNX")
    return steps + [Step(name, model, coarse) for name, model in models.items() if name not in plain]


def measure_ladder(
    steps: Sequence[Step],
    data: Dataset,
    *,
    images: int = 0,
    explain_images: int = 64,
    seconds: float = 0.5,
    score_seconds: float = 0,
    rounds: int = 10,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    memory: bool = True,
    folder: str | Path | None = None,
    logits: Mapping[str, np.ndarray] | None = None,
    val_logits: Mapping[str, np.ndarray] | None = None,
    maps: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Rung]:
    """Measure each variant of each step: cost, correctness, and whether it still looks at the same places.

    Args:
        images: test images to score (0: all), and at most so many of ``VALIDATED`` validation images.
        explain_images: how many of the test images to explain (0: all). All are fixed random samples.
        seconds: for each throughput. rounds: of the interleaved latency.
        score_seconds: a rung that would take longer to score all of the images is scored on a fixed random sample of
            them, and says so in its note (0: always all).
        memory: measure peak memory (a new process for each rung: some seconds).
        folder: keep the ONNX files and cards there; default: a temporary folder.
        logits: step name -> float32 logits (n, C) of these images, where they are known already. val_logits: the same
            of the whole validation split.
        maps: step name -> signed Grad-CAM maps of the explained images, where they are known already, of the classes
            that the first step's ``logits`` predict.
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
            _score(built, data, images, explain_images, score_seconds, device, logits or {}, maps or {}, say)
            _validate(built, data, images, score_seconds, device, val_logits or {}, say)
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
    if step.equals:
        rung = _noted(rung, f"the same function as {step.equals}")
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
        say(f"{name}: {timing.median:.3g} ms at batch 1; now its throughput")
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
    """Peak memory of each rung. On a CPU two processes at a time, since how long they take does not matter."""
    chosen = [b for b in built if b.memory]
    say(f"peak memory of {len(chosen)} variants, each in a process of its own")

    def weigh(b: _Built) -> Rung:
        try:
            memory = peak_memory(b.memory[0], device=device, threads=threads, int8="int8" in b.memory[1:])
            return replace(b.rung, memory_bytes=memory.growth, runtime_bytes=memory.runtime)
        except SwysError as error:
            return _noted(b.rung, f"memory: {error}")

    with ThreadPoolExecutor(2 if device.type == "cpu" else 1) as pool:
        for b, rung in zip(chosen, pool.map(weigh, chosen)):
            b.rung = rung


def _noted(rung: Rung, note: str) -> Rung:
    return replace(rung, note="; ".join(filter(None, (rung.note, note))))


def _score(built, data: Dataset, images, explain_images, seconds, device, known, known_maps, say) -> None:
    test = data.test.head(images)
    part = data.test.rows(explain_images)  # the same images whatever ``images`` is, as long as that is not less
    chosen = np.flatnonzero(np.isin(data.test.rows(images), part))
    targets = None  # the class that the first rung finds most likely
    float_logits: dict[str, np.ndarray] = {}  # nan where an image was not scored
    maps: dict[str, np.ndarray] = {}
    first = top = previous = ""  # the first rung, this model's float32 rung, and the float32 rung before that
    for b in built:
        if b.run is None or not b.rung.trained:
            continue
        say(f"accuracy and heatmaps: {b.rung.name}")
        name, is_float = b.rung.model, b.rung.precision == "fp32" and b.rung.runtime == "PyTorch"
        if is_float:
            previous, top = top, b.rung.name
        rows, logits = _scored(b, test, known.get(name) if is_float else None, seconds, device)
        if is_float:
            float_logits[name] = np.full((len(test), logits.shape[1]), np.nan, np.float32)
            float_logits[name][rows] = logits
        if targets is None:
            both = np.isin(chosen, rows).all()
            first_logits = logits[np.searchsorted(rows, chosen)] if both else _predict(b, test.images[chosen], device)
            targets, first = first_logits.argmax(axis=1), b.rung.name
        maps[b.rung.name] = known_maps.get(name) if is_float else None
        if maps[b.rung.name] is None:
            maps[b.rung.name] = heatmaps(b.explain, test.images[chosen], targets=targets, signed=True)
        above = previous if is_float else top
        reference = float_logits.get(name, np.full((len(test), 1), np.nan))[rows]
        seen = ~np.isnan(reference).any(axis=1)
        b.rung = replace(
            b.rung,
            **_scores(logits, test.labels[rows], data.info),
            flips=_flips(logits[seen], reference[seen], data.info.multi_label),
            compared=int(seen.sum()),
            above=above,
            explained=b.rung.explained or "itself",
            **_alike("spearman", maps.get(above), maps[b.rung.name]),
            **_alike("like_first", maps[first] if b.rung.name != first else None, maps[b.rung.name]),
        )
        if len(rows) < len(test):
            b.rung = _noted(b.rung, f"scored on a sample of {len(rows)} images")


def _validate(built, data: Dataset, images, seconds, device, known, say) -> None:
    """Accuracy on validation images, by which a rung may be chosen."""
    say("validation accuracy of every rung")
    sample = data.val.rows(min(images or VALIDATED, VALIDATED))
    val, info, known = data.val.take(sample), data.info, {name: logits[sample] for name, logits in known.items()}
    for b in built:
        if b.run is None or not b.rung.trained:
            continue
        is_float = b.rung.precision == "fp32" and b.rung.runtime == "PyTorch"
        rows, logits = _scored(b, val, known.get(b.rung.model) if is_float else None, seconds, device)
        correct = _correct(probabilities(logits.astype(np.float64), info.task), val.labels[rows], info)
        b.rung = replace(b.rung, val_n=len(rows), val_accuracy=float(correct.mean()))


def _scored(b: _Built, split: Split, known: np.ndarray | None, seconds, device) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images that are scored, and their logits: the known ones, or as many as can be afforded."""
    if known is None:
        rows = _affordable(b.rung, split, seconds)
        return rows, _predict(b, split.images[rows], device)
    if len(known) != len(split):
        raise SwysError(f"{len(known)} known logits of '{b.rung.model}' for {len(split)} images; give one row each")
    return np.arange(len(split)), known


def _affordable(rung: Rung, test: Split, seconds: float) -> np.ndarray:
    """Positions of the images that can be scored in so many seconds (0: all), at least ``MIN_SCORED``."""
    rate = 1000 / rung.latency_ms if rung.precision == "int8" else rung.throughput
    return test.rows(max(MIN_SCORED, int(seconds * rate)) if seconds else 0)


def _alike(field: str, maps_a: np.ndarray | None, maps_b: np.ndarray) -> dict[str, float]:
    """Mean rank correlation of two models' maps with its interval, under this field's names."""
    values = (NAN,) * 3 if maps_a is None else mean_interval(agreement(maps_a, maps_b).spearman)
    return dict(zip((field, f"{field}_low", f"{field}_high"), values))


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
    correct = _correct(p, labels, info)
    low, high = bootstrap_interval(np.mean, correct) if info.multi_label else wilson_interval(correct)
    return {
        "n": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "auc": auc(labels, p, info.task),
        "ece": calibration_error(p, labels),
    }


def _correct(p: np.ndarray, labels: np.ndarray, info) -> np.ndarray:
    return (p > 0.5) == labels if info.multi_label else p.argmax(axis=1) == labels


def _flips(logits: np.ndarray, reference: np.ndarray, multi_label: bool) -> int:
    """Images whose prediction differs (multi-label: any label's)."""
    if multi_label:
        return int(((logits > 0) != (reference > 0)).any(axis=1).sum())
    return int((logits.argmax(axis=1) != reference.argmax(axis=1)).sum())


COST = ("rung", "parameters", "MACs", "on disk", "peak memory", "latency, batch 1", "faster", "best throughput")
KEPT = ("rung", "accuracy", "AUC", "ECE", "flips", "looks like the rung above", "looks like the first rung", "note")


def ladder_table(
    rungs: Sequence[Rung], columns: Sequence[str] = (*COST, *KEPT[1:])
) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of text, for a notebook, the site or a terminal; '-' where nothing was measured.

    Args:
        columns: ``COST`` (what each rung costs), ``KEPT`` (what it keeps), or both.
    """

    def shown(value: float, text: str) -> str:
        return "-" if math.isnan(value) else text

    def alike(value: float, low: float, high: float) -> str:
        return shown(value, f"{value:.3f}" + shown(low, f" [{low:.3f}, {high:.3f}]").rstrip("-"))

    rows, most = [], max((r.n for r in rungs), default=0)
    for r in rungs:
        cells = {
            "rung": r.name,
            "parameters": f"{r.parameters / 1e6:.2f} M",
            "MACs": f"{r.macs / 1e9:.3g} G",
            "on disk": f"{r.disk_bytes / 1e6:.1f} MB" if r.disk_bytes else "-",
            "peak memory": shown(r.memory_bytes, f"{r.memory_bytes / 1e6:.0f} + {r.runtime_bytes / 1e6:.0f} MB"),
            "latency, batch 1": shown(
                r.latency_ms, f"{r.latency_ms:.3g} ms [{r.latency_low:.3g}, {r.latency_high:.3g}]"
            ),
            "faster": shown(r.speedup, f"{r.speedup:.3g}x [{r.speedup_low:.3g}, {r.speedup_high:.3g}]"),
            "best throughput": shown(r.throughput, f"{r.throughput:.3g} img/s (batch {r.batch})"),
            "accuracy": shown(r.accuracy, f"{r.accuracy:.1%} [{r.accuracy_low:.1%}, {r.accuracy_high:.1%}]")
            + (f" of {r.n}" if 0 < r.n < most else ""),
            "AUC": shown(r.auc, f"{r.auc:.3f}"),
            "ECE": shown(r.ece, f"{r.ece:.3f}"),
            "flips": f"{r.flips} of {r.compared}" if r.compared else "-",
            "looks like the rung above": alike(r.spearman, r.spearman_low, r.spearman_high),
            "looks like the first rung": alike(r.like_first, r.like_first_low, r.like_first_high),
            "note": r.note,
        }
        rows.append([cells[column] for column in columns])
    return list(columns), rows


def which_to_ship(rungs: Sequence[Rung], max_loss: float = 0.005, min_spearman: float = 0.95) -> tuple[Rung, str]:
    """The fastest rung that is as good as the model to be shipped, and one sentence that says why.

    The model to be shipped is the one measured in most variants; as good as it in float32: on the *validation* images
    an accuracy at most ``max_loss`` below it, scored on as many as any, and heatmaps that agree at least
    ``min_spearman`` with the same model's in float32. Test scores are reported and choose nothing.

    Raises:
        SwysError: no rung was measured and scored.
    """
    n = max((r.val_n for r in rungs if r.measured), default=0)
    scored = [r for r in rungs if r.measured and r.val_n == n]
    if not n:
        raise SwysError("no rung was measured and scored; give trained models")
    variants = Counter(r.model for r in scored)
    floats = [r for r in scored if r.precision == "fp32" and r.runtime == "PyTorch"]
    reference = max(floats or scored, key=lambda r: variants[r.model])
    good = [
        r for r in scored
        if r.val_accuracy >= reference.val_accuracy - max_loss
        and (r.explained == "itself" and r.precision == "fp32" or not r.spearman < min_spearman)
    ]  # fmt: skip
    rung, first = min(good, key=lambda r: r.latency_ms), next(r for r in rungs if r.measured)
    share = first.disk_bytes / rung.disk_bytes
    reason = (
        f"{rung.name}: the fastest rung that loses at most {100 * max_loss:g} points of validation accuracy against"
        f" {reference.name} ({reference.val_accuracy:.1%}) and looks where its float32 form looks."
        f" {rung.speedup:.3g} times as fast as {first.name} at batch 1, {rung.disk_bytes / 1e6:.1f} MB"
        f" ({share:.3g} times smaller), {rung.accuracy:.1%} right on the test images, {rung.flips} of"
        f" {rung.compared} answers changed"
    )
    if not math.isnan(rung.spearman):
        reason += f", heatmaps {rung.spearman:.2f} like {rung.above}"
    if rung.above != first.name and not math.isnan(rung.like_first):
        reason += f" and {rung.like_first:.2f} like {first.name}"
    return rung, reason + "."


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
