"""The shrink ladder: what each step from the largest model down to an int8 file costs, saves and changes.

Every rung is really run on the CPU, where small models are deployed: it is timed, classifies the same images
as all others, and its heatmaps are compared with those of the rung above and of the first rung.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from swys_utils.benchmark import count_macs, interleaved_latency, speedup
from swys_utils.config import SwysError, fast_bf16
from swys_utils.data import Dataset, to_model_input
from swys_utils.explain import agreement
from swys_utils.gradcam import heatmaps
from swys_utils.metrics import point_scores, wilson_interval
from swys_utils.models import count_parameters

from .export import export_onnx, onnx_session, predict_onnx, quantise_onnx_dynamic, run_onnx


@dataclass(frozen=True)
class Rung:
    """What was measured of one rung.

    ``model`` is the trained model it comes from, ``bytes`` the size of the weights or of the ONNX file.
    ``latency_ms`` is the median for one image, ``speedup`` the ratio to the first rung, intervals are 95 %.
    Scores are fractions on ``n`` test images; ``val_accuracy`` is the only one that chooses anything.
    ``flips`` are test images whose answer differs from that of the same model in float32. ``like_above`` and
    ``like_first`` are mean Spearman correlations of signed Grad-CAM maps with the rung above (the same model
    in float32; for a model in float32 the one before it) and with the first rung, which is like itself.
    """

    name: str
    model: str
    bytes: int
    parameters: int
    macs: int
    like_above: float
    like_first: float
    latency_ms: float
    speedup: float
    speedup_interval: Sequence[float]
    n: int
    accuracy: float
    accuracy_interval: Sequence[float]
    auc: float
    ece: float
    val_accuracy: float
    flips: int


@dataclass(frozen=True)
class Candidate:
    """How to run a rung: ``run`` takes model input, float32 (B, 3, S, S), to logits (B, C); ``explain`` takes
    uint8 images (N, H, W[, 3]) and classes, int (N,), to signed Grad-CAM maps (N, gh, gw)."""

    name: str
    model: str
    bytes: int
    run: Callable[[Tensor], np.ndarray]
    explain: Callable[[np.ndarray, np.ndarray], np.ndarray]
    trained: VisionTransformer  # in float32, for its size and counts

    def inputs(self, images: np.ndarray) -> Tensor:
        """Model input of uint8 images at the size that the rung reads."""
        return to_model_input(images, self.trained.patch_embed.img_size[0])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits of uint8 images, float32 (N, C), one by one: int8 scales activations by a batch's range."""
        return np.concatenate([self.run(self.inputs(images[i : i + 1])) for i in range(len(images))])


def shrink_ladder(models: dict, data: Dataset, images=0, explain_images=64, rounds=10) -> list[Rung]:
    """Measure every rung of these models; ``candidates`` says which there are.

    Args:
        models: name -> trained model, largest first; the last is the one to be shipped.
        images: so many random test and so many validation images are scored (0: all).
        explain_images: so many random test images are explained (0: all). rounds: of the interleaved latency.

    Raises SwysError: no models, classes that are not the data's, several labels an image, no ONNX package.
    """
    found = sorted({model.num_classes for model in models.values()})
    if found != [data.info.num_classes] or data.info.multi_label:
        raise SwysError(f"models of {found} classes; give models of {data.info.name}, one label an image")
    with tempfile.TemporaryDirectory() as folder:
        every = candidates(models, Path(folder))
    calls = {rung.name: partial(rung.run, rung.inputs(data.test.images[:1])) for rung in every}
    timings = interleaved_latency(calls, rounds)
    test, val, shown = data.test.head(images), data.val.head(images), data.test.head(explain_images).images
    classes, first = every[0].predict(shown).argmax(axis=1), every[0].name
    rungs, floats, answers, maps, before = [], {}, {}, {}, first
    for rung in every:
        name, logits, validated = rung.name, rung.predict(test.images), rung.predict(val.images)
        whole = floats.setdefault(rung.model, name)  # the same model in float32, which comes first
        above = before if whole == name else whole
        before = whole
        answers[name] = logits.argmax(axis=1)
        maps[name] = rung.explain(shown, classes)
        alike = [np.nanmean(agreement(maps[name], maps[other])) for other in (above, first)]
        times, *interval = speedup(timings[first], timings[name])
        facts = point_scores(logits, test.labels, data.info.task) | {
            "latency_ms": timings[name].median,
            "speedup": times,
            "speedup_interval": interval,
            "n": len(test),
            "accuracy_interval": wilson_interval(answers[name] == test.labels),
            "val_accuracy": float((validated.argmax(axis=1) == val.labels).mean()),
            "flips": int((answers[name] != answers[whole]).sum()),
        }
        counts = count_parameters(rung.trained), count_macs(rung.trained)
        rungs.append(Rung(name, rung.model, rung.bytes, *counts, *map(float, alike), **facts))
    return rungs


def ladder_table(rungs: Sequence[Rung]) -> list[dict]:
    """One row of text a rung, for a terminal or a notebook."""
    return [
        {
            "rung": r.name,
            "parameters": f"{r.parameters / 1e6:.2f} M",
            "MACs": f"{r.macs / 1e9:.3g} G",
            "size": f"{r.bytes / 1e6:.1f} MB",
            "one image": f"{r.latency_ms:.1f} ms",
            "times faster": "{:.3g} [{:.3g}, {:.3g}]".format(r.speedup, *r.speedup_interval),
            "accuracy": "{:.1%} [{:.1%}, {:.1%}]".format(r.accuracy, *r.accuracy_interval),
            "AUC": f"{r.auc:.3f}",
            "ECE": f"{r.ece:.3f}",
            "flips": f"{r.flips} of {r.n}",
            "like the rung above": f"{r.like_above:.2f}",
            "like the first rung": f"{r.like_first:.2f}",
        }
        for r in rungs
    ]


def which_to_ship(rungs: Sequence[Rung], max_loss=0.005) -> tuple[Rung, str]:
    """The fastest rung that is as good as the last model in float32, and a sentence that says why.

    As good: on *validation* images an accuracy at most ``max_loss`` below it, and heatmaps that agree by
    at least .95 with those of the rung's own model in float32. Test images choose nothing.
    """
    floats = {rung.model: rung for rung in rungs[::-1]}  # the first rung of each model
    first, last = rungs[0], floats[rungs[-1].model]
    exact = [rung for rung in rungs if rung in floats.values() or rung.like_above >= 0.95]
    good = [rung for rung in exact if rung.val_accuracy >= last.val_accuracy - max_loss]
    best = min(good, key=lambda rung: rung.latency_ms)
    return best, (
        f"{best.name} is the fastest rung that looks where its float32 form looks and loses at most"
        f" {100 * max_loss:g} points on validation images against {last.name} ({last.val_accuracy:.1%}). It"
        f" is {best.speedup:.3g} times as fast as {first.name}, {best.bytes / 1e6:.1f} MB, right on"
        f" {best.accuracy:.1%} of {best.n} test images; its number format changed {best.flips} answers."
    )


def candidates(models: dict, folder: Path) -> list[Candidate]:
    """Each model in float32; the first in bfloat16, too, on CPUs that compute in it; the last as ONNX."""
    found = []
    for name, model in models.items():
        model = deepcopy(model).cpu().float().eval()
        found.append(torch_candidate(f"{name} fp32", name, model))
    first, last, fp32, int8 = found[0], found[-1], folder / "fp32.onnx", folder / "int8.onnx"
    if fast_bf16("cpu"):
        half = deepcopy(first.trained).bfloat16()
        found.insert(1, torch_candidate(f"{first.model} bf16", first.model, half))
    export_onnx(last.trained, fp32)
    quantise_onnx_dynamic(fp32, int8)
    return found + [onnx_candidate(path, last) for path in (fp32, int8)]


def torch_candidate(name: str, trained: str, model: VisionTransformer) -> Candidate:
    """A model in PyTorch, in the number format of its weights; its maps are computed in float32."""
    size, whole = sum(tensor.nbytes for tensor in model.state_dict().values()), deepcopy(model).float()
    run = torch.inference_mode()(lambda pixels: model(pixels.to(model.pos_embed.dtype)).float().numpy())
    explain = lambda images, classes: heatmaps(whole, images, targets=classes, signed=True)  # noqa: E731
    return Candidate(name, trained, size, run, explain, whole)


def onnx_candidate(path: Path, of: Candidate) -> Candidate:
    """An exported file of a candidate; one image at a time, as int8 scales activations by a batch's range."""
    session, name = onnx_session(path), f"{of.name.removesuffix(' fp32')} {path.stem}, ONNX Runtime"
    explain = lambda images, classes: predict_onnx(session, images, 1, classes)[1]  # noqa: E731
    run = lambda pixels: run_onnx(session, pixels)[0]  # noqa: E731
    return Candidate(name, of.model, path.stat().st_size, run, explain, of.trained)
