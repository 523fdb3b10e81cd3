"""The shrink ladder: what each step from the largest model down to an int8 file costs, saves and changes.

Every rung is really run on the CPU, where small models are deployed: it is timed, classifies the same images
as all others, and its heatmaps are compared with those of the rung above and of the first rung.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from swys_utils.benchmark import count_macs, interleaved_latency, speedup
from swys_utils.config import SwysError, device_name, fast_bf16, write_json
from swys_utils.data import Dataset, to_model_input
from swys_utils.explain import agreement
from swys_utils.gradcam import heatmaps
from swys_utils.metrics import Rows, bootstrap_interval, point_scores, wilson_interval
from swys_utils.models import count_parameters

from .export import dequantised_twin, export_onnx, onnx_session, quantise_onnx_dynamic
from .native import at_native_resolution

NAN = float("nan")
Models = Mapping[str, VisionTransformer]


@dataclass(frozen=True)
class Rung:
    """What was measured of one rung; nan where nothing was, and ``reason`` says why it cannot run here.

    ``model`` is the trained model it comes from, ``bytes`` the size of the weights or of the ONNX file.
    ``latency_ms`` is the median for one image, ``speedup`` the ratio to the first rung, intervals are 95 %.
    Scores are fractions on ``n`` test images; ``val_accuracy`` is the only one that chooses anything.
    ``flips`` are test images whose answer differs from that of the same model in float32. ``like_above`` and
    ``like_first`` are mean Spearman correlations of signed Grad-CAM maps with the rung ``above`` (the same
    model in float32; for a model in float32 the one before it) and with the first rung.
    """

    name: str
    model: str
    parameters: int
    macs: int
    bytes: int
    reason: str = ""
    latency_ms: float = NAN
    speedup: float = NAN
    speedup_interval: tuple[float, ...] = (NAN, NAN)
    n: int = 0
    accuracy: float = NAN
    accuracy_interval: tuple[float, ...] = (NAN, NAN)
    auc: float = NAN
    ece: float = NAN
    val_accuracy: float = NAN
    flips: int = 0
    above: str = ""
    like_above: float = NAN
    like_first: float = NAN


@dataclass(frozen=True)
class Candidate:
    """How to run a rung: model input, float32 (B, 3, S, S), to logits (B, C); None where it cannot run."""

    rung: Rung
    explained: VisionTransformer  # float32 with the rung's rounded weights, as an ONNX file has no gradients
    run: Callable[[Tensor], np.ndarray] | None = None
    batch: int = 32

    def inputs(self, images: np.ndarray) -> Tensor:
        """Model input of uint8 images at the size that the rung reads."""
        return to_model_input(images, self.explained.patch_embed.img_size[0])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits of uint8 images, float32 (N, C)."""
        starts = range(0, len(images), self.batch)
        return np.concatenate([self.run(self.inputs(images[i : i + self.batch])) for i in starts])


def shrink_ladder(
    models: Models, data: Dataset, images: int = 0, explain_images: int = 64, rounds: int = 10
) -> list[Rung]:
    """Measure every rung of these models; ``candidates`` says which there are.

    Args:
        models: name -> trained model, largest first; the last is the one to be shipped.
        images: so many random test and so many validation images are scored (0: all).
        explain_images: so many random test images are explained (0: all). rounds: of the interleaved latency.

    Raises:
        SwysError: no models, or a model whose classes are not the data's.
    """
    if not models:
        raise SwysError("the ladder has no models; give at least one")
    for name, model in models.items():
        if model.num_classes != data.info.num_classes:
            raise SwysError(f"'{name}' has {model.num_classes} classes; use one trained on {data.info.name}")
    with tempfile.TemporaryDirectory() as folder:
        every = candidates(models, data.info.size, Path(folder))
        able = {candidate.rung.name: candidate for candidate in every if candidate.run}
        parts = times(able, data, rounds), scores(able, data, images), looks(able, data, explain_images)
    facts = {name: parts[0][name] | parts[1][name] | parts[2][name] for name in able}
    return [replace(candidate.rung, **facts.get(candidate.rung.name, {})) for candidate in every]


def candidates(models: Models, size: int, folder: Path) -> list[Candidate]:
    """Each model in float32; the first in bfloat16, too; the last as ONNX files in float32 and int8.

    A model that reads enlarged images is followed by its exact rewrite for their own ``size`` in pixels, and
    if it is the last, the files are those of the rewrite.
    """
    found = []
    for name, model in models.items():
        model = deepcopy(model).cpu().float().eval()
        found.append(torch_candidate(f"{name} fp32", name, model))
        try:
            native = at_native_resolution(model, size)
            found.append(torch_candidate(f"{name} on {size} px fp32", name, native))
        except SwysError:
            pass  # it reads the images at their own size already, or at no whole multiple
    first, reason = found[0], "" if fast_bf16("cpu") else "this CPU only emulates bfloat16"
    half = deepcopy(first.explained).bfloat16()
    found.insert(1, torch_candidate(f"{first.rung.model} bf16", first.rung.model, half, reason))
    last = found[-1] if len(found) > 2 else first
    return found + [onnx_candidate(last, precision, folder) for precision in ("fp32", "int8")]


def ladder_table(rungs: Sequence[Rung]) -> Rows:
    """One row of text a rung, for a terminal or a notebook; '-' where nothing was measured."""
    rows = Rows()
    for r in rungs:
        cells = {
            "parameters": f"{r.parameters / 1e6:.2f} M",
            "MACs": f"{r.macs / 1e9:.3g} G",
            "size": f"{r.bytes / 1e6:.1f} MB",
            "one image": f"{r.latency_ms:.1f} ms",
            "times faster": "{:.3g} [{:.3g}, {:.3g}]".format(r.speedup, *r.speedup_interval),
            "accuracy": "{:.1%} [{:.1%}, {:.1%}]".format(r.accuracy, *r.accuracy_interval),
            "AUC": f"{r.auc:.3f}",
            "ECE": f"{r.ece:.3f}",
            "flips": "nan" if r.reason else f"{r.flips} of {r.n}",
            "like the rung above": f"{r.like_above:.2f}",
            "like the first rung": f"{r.like_first:.2f}",
        }
        cells = {column: "-" if "nan" in text else text for column, text in cells.items()}
        rows.append({"rung": r.name, **cells, "not run": r.reason})
    return rows


def which_to_ship(rungs: Sequence[Rung], max_loss=0.005, min_alike=0.95) -> tuple[Rung, str]:
    """The fastest rung that is as good as the last model in float32, and a sentence that says why.

    As good: on *validation* images an accuracy at most ``max_loss`` below it, and heatmaps that agree at
    least ``min_alike`` with those of the rung's own model in float32. Test images choose nothing.
    """
    measured, floats = [rung for rung in rungs if not rung.reason], {}
    for rung in measured:
        floats.setdefault(rung.model, rung)
    first, last = measured[0], floats[measured[-1].model]
    exact = [rung for rung in measured if rung in floats.values() or rung.like_above >= min_alike]
    good = [rung for rung in exact if rung.val_accuracy >= last.val_accuracy - max_loss]
    best = min(good, key=lambda rung: rung.latency_ms)
    return best, (
        f"{best.name} is the fastest rung that looks where its float32 form looks and loses at most"
        f" {100 * max_loss:g} points on validation images against {last.name} ({last.val_accuracy:.1%}). It"
        f" is {best.speedup:.3g} times as fast as {first.name}, {best.bytes / 1e6:.1f} MB, right on"
        f" {best.accuracy:.1%} of {best.n} test images; its number format changed {best.flips} answers."
    )


def write(rungs: Sequence[Rung], path: str | Path, **facts) -> None:
    """Write the ladder as JSON: the processor, ``facts``, and all rungs (null where nothing was measured)."""
    entries = [json.loads(json.dumps(asdict(rung)), parse_constant=lambda word: None) for rung in rungs]
    write_json(path, {"device": device_name("cpu"), **facts, "rungs": entries})


# --- helpers -----------------------------------------------------------------------------------------------


def torch_candidate(name: str, trained: str, model: VisionTransformer, reason: str = "") -> Candidate:
    """A model in PyTorch, in the number format of its weights."""
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    rung = Rung(name, trained, count_parameters(model), count_macs(model), size, reason)
    dtype = model.pos_embed.dtype
    explained = model if dtype == torch.float32 else deepcopy(model).float()
    run = torch.inference_mode()(lambda pixels: model(pixels.to(dtype)).float().numpy())
    return Candidate(rung, explained, None if reason else run)


def onnx_candidate(base: Candidate, precision: str, folder: Path) -> Candidate:
    """The same as an ONNX file; the one in int8 is made from the one in float32."""
    title, model = base.rung.name.removesuffix(" fp32"), base.explained
    path, source = folder / f"{precision}.onnx", folder / "fp32.onnx"
    rung = replace(base.rung, name=f"{title} {precision}, ONNX Runtime")
    try:
        if not source.is_file():
            export_onnx(model, source)
        if precision == "int8":
            quantise_onnx_dynamic(source, path)
            model = dequantised_twin(path, model)
        session = onnx_session(path)
    except SwysError as error:
        return Candidate(replace(rung, reason=str(error)), model)
    # int8 is scored as it serves, one by one: its activations are scaled by the range of the batch.
    rung, batch = replace(rung, bytes=path.stat().st_size), 1 if precision == "int8" else 32
    return Candidate(rung, model, lambda x: session.run(["logits"], {"pixels": x.numpy()})[0], batch)


def times(able: Mapping[str, Candidate], data: Dataset, rounds: int) -> dict[str, dict]:
    """Latency of one test image, all rungs in turns, and the speed-up against the first."""
    calls = {name: partial(rung.run, rung.inputs(data.test.images[:1])) for name, rung in able.items()}
    timings = interleaved_latency(calls, rounds)
    ratios = {name: speedup(next(iter(timings.values())), timing) for name, timing in timings.items()}
    return {
        name: {"latency_ms": timings[name].median, "speedup": ratio, "speedup_interval": (low, high)}
        for name, (ratio, low, high) in ratios.items()
    }


def scores(able: Mapping[str, Candidate], data: Dataset, images: int) -> dict[str, dict]:
    """Accuracy, AUC and calibration on test images, accuracy on validation images, and changed answers."""
    test, val, task = data.test.head(images), data.val.head(images), data.info.task
    found, floats = {}, {}
    for name, candidate in able.items():
        logits = candidate.predict(test.images)
        answers = logits > 0 if data.info.multi_label else logits.argmax(axis=1)
        changed = answers != floats.setdefault(candidate.rung.model, answers)  # its float32 rung comes first
        right = answers == test.labels
        interval = wilson_interval(right) if right.ndim == 1 else bootstrap_interval(np.mean, right)
        found[name] = point_scores(logits, test.labels, task) | {
            "n": len(test),
            "accuracy_interval": interval,
            "val_accuracy": point_scores(candidate.predict(val.images), val.labels, task)["accuracy"],
            "flips": int(changed.reshape(len(test), -1).any(axis=1).sum()),
        }
    return found


def looks(able: Mapping[str, Candidate], data: Dataset, count: int) -> dict[str, dict]:
    """Agreement of every rung's heatmaps with two others', all for the class that the first predicts."""
    images, first = data.test.head(count).images, next(iter(able))
    classes = able[first].predict(images).argmax(axis=1)
    maps, found, floats = {}, {}, {"": ""}
    for name, candidate in able.items():
        above = floats.get(candidate.rung.model) or [*floats.values()][-1]
        floats.setdefault(candidate.rung.model, name)
        maps[name] = heatmaps(candidate.explained, images, targets=classes, signed=True)
        others = {"like_above": above, "like_first": "" if name == first else first}
        alike = {key: agreement(maps[name], maps[other]).spearman for key, other in others.items() if other}
        found[name] = {"above": above} | {key: float(np.nanmean(values)) for key, values in alike.items()}
    return found
