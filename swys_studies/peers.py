"""The same measurements with other libraries: ``swys study peers`` prints three tables.

``gradcam``: our Grad-CAM and the package grad-cam, speed at equal maps. ``metrics``: our deletion/insertion
and grad-cam's ROAD, on the same maps. ``runtimes``: one image through one model in several runtimes. What is
missing is left out with a line that says how to install it.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy.stats import spearmanr
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from swys_utils.benchmark import interleaved_latency, random_inputs, speedup
from swys_utils.config import SwysError, default_device, device_name
from swys_utils.data import DEFAULT_DATASET, load_dataset, to_model_input
from swys_utils.explain import centre_prior_maps, deletion_insertion, random_maps
from swys_utils.gradcam import grad_cam, heatmaps
from swys_utils.metrics import Rows, mean_interval
from swys_utils.models import load_checkpoint

from .export import export_onnx, onnx_session, quantise_onnx_dynamic


def compare(
    what: Literal["all", "gradcam", "metrics", "runtimes"] = "all",
    ckpt_path: str = f"{DEFAULT_DATASET}/vit_tiny_patch16_224",
    images: int = 16,
    rounds: int = 20,
) -> dict[str, Rows]:
    """Print and return the tables; all but ``gradcam`` are measured on the CPU.

    Args:
        what: one table, or all.
        ckpt_path: the model: a folder, a file, or an id below ``checkpoints/``.
        images: of the test split, a fixed sample, whose maps are scored.
        rounds: of every timing; in each round all have their turn.
    """
    model, card = load_checkpoint(ckpt_path)
    sample = load_dataset(card["dataset"]).test.head(images).images
    makers = {
        "gradcam": partial(gradcam, deepcopy(model).to(default_device()), rounds),
        "metrics": partial(metrics, model, sample),
        "runtimes": partial(runtimes, model, rounds),
    }
    tables = {}
    for name in makers if what == "all" else (what,):
        device = device_name(default_device() if name == "gradcam" else "cpu")
        tables[name] = attempt(name, makers[name])
        print(f"\n{name}: {ckpt_path}, {device}, {torch.get_num_threads()} threads\n{tables[name] or ''}")
    return tables


def gradcam(model: VisionTransformer, rounds: int = 20) -> Rows:
    """How much faster is ours than the package grad-cam, used as its documentation shows? Times an image.

    Raises SwysError where the maps differ: a ratio would mean nothing.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import scale_cam_image as scaled
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    first, grid = model.num_prefix_tokens, model.patch_embed.grid_size

    def as_image(tokens: Tensor) -> Tensor:
        return tokens[:, first:].mT.unflatten(2, grid)

    rows = Rows()
    for batch in (1, 8, 32):
        x = random_inputs(model, batch)
        with GradCAM(model, [model.blocks[-1].norm1], reshape_transform=as_image) as cam:
            calls = {
                "forward": partial(torch.no_grad()(model.forward), x),
                "ours": partial(grad_cam, model, x, 1),
                "grad-cam": partial(cam, input_tensor=x, targets=[ClassifierOutputTarget(1)] * batch),
            }
            # the peer scales to [0, 1], enlarges to the image, and scales again
            ours = scaled(scaled(calls["ours"]().cpu().numpy(), x.shape[:1:-1]))
            difference = float(np.abs(ours - calls["grad-cam"]()).max())
            if difference > 1e-3:
                raise SwysError(f"maps differ from grad-cam's by {difference:.1e}; use another version of it")
            timings = interleaved_latency(calls, rounds)
        row = {"batch": batch} | {name: f"{timing.median / batch:.2f} ms" for name, timing in timings.items()}
        rows.append(row | {"faster": interval(speedup(timings["grad-cam"], timings["ours"]))})
    return rows


def metrics(model: VisionTransformer, images: np.ndarray) -> Rows:
    """Does another score order the same maps as ours? Means with intervals, Spearman correlation over images.

    ours: gap of insertion and deletion of whole patches. ROAD (Rong et al. 2022): hot pixels give way to a
    mean of their neighbours. Higher is more faithful. Images are uint8 (N, H, W[, 3]), the model on the CPU.
    """
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    inputs, grid = to_model_input(images, model.patch_embed.img_size[0]), model.patch_embed.grid_size
    with torch.no_grad():
        classes = model(inputs).argmax(dim=1).numpy()
    maps = {name: heatmaps(model, inputs, name, classes) for name in ("grad_cam", "legrad")}
    maps |= {"centre prior": centre_prior_maps(len(inputs), grid), "random": random_maps(len(inputs), grid)}
    score, targets = ROADCombined([20, 40, 60, 80]), [ClassifierOutputSoftmaxTarget(int(c)) for c in classes]
    rows = Rows()
    for name, heat in maps.items():
        ours = deletion_insertion(model, inputs, heat, classes).gap
        torch.manual_seed(0)  # ROAD adds noise
        large = interpolate(torch.as_tensor(heat)[:, None], size=inputs.shape[-2:], mode="bilinear")[:, 0]
        road = score(inputs, large.numpy(), targets, model)
        row = {"map": name, "ours": interval(mean_interval(ours)), "ROAD": interval(mean_interval(road))}
        rows.append(row | {"correlation": float(spearmanr(ours, road).statistic)})
    return rows


def runtimes(model: VisionTransformer, rounds: int = 20) -> Rows:
    """Which runtime is fastest for one image on the CPU? What is missing or fails is left out with a line."""
    x, calls, differences = random_inputs(model, 1), {}, {}
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model(x)
        for name, make in runtime_makers(model, x, Path(folder)).items():
            made = attempt(name, lambda make=make: (call := make(), torch.as_tensor(call()[0])))
            if made is not None:
                calls[name], logits = made
                differences[name] = f"{(logits - expected).abs().max():.1e}"
        timings = interleaved_latency(calls, rounds)
    rows = Rows()
    for name, timing in sorted(timings.items(), key=lambda item: item[1].median):
        faster = interval(speedup(timings["PyTorch fp32"], timing))
        row = {"runtime": name, "one image": str(timing), "times PyTorch": faster}
        rows.append(row | {"logits differ by": differences[name]})
    return rows


def runtime_makers(model: VisionTransformer, x: Tensor, folder: Path) -> dict[str, Callable[[], Callable]]:
    """Name -> a function that makes a function that runs ``x`` (1, 3, S, S) and returns logits first."""
    threads, fp32, int8 = torch.get_num_threads(), folder / "fp32.onnx", folder / "int8.onnx"
    export_onnx(model, fp32)
    quantise_onnx_dynamic(fp32, int8)

    def torchao() -> Callable:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantize_(changed := deepcopy(model), Int8DynamicActivationInt8WeightConfig())
        return partial(torch.compile(changed), x)

    def onnx_runtime(path: Path) -> Callable:
        return partial(onnx_session(path, threads).run, ["logits"], {"pixels": x.numpy()})

    def openvino(path: Path, precision: str = "f32") -> Callable:
        from openvino import Core

        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        return partial(Core().compile_model(str(path), "CPU", options), x.numpy())

    return {
        "PyTorch fp32": lambda: partial(model, x),
        "torch.compile fp32": lambda: partial(torch.compile(model), x),
        "PyTorch bf16": lambda: partial(deepcopy(model).bfloat16(), x.bfloat16()),
        "PyTorch int8": lambda: partial(torch.ao.quantization.quantize_dynamic(model, {nn.Linear}), x),
        "torchao int8, compiled": torchao,
        "ONNX Runtime fp32": partial(onnx_runtime, fp32),
        "ONNX Runtime int8": partial(onnx_runtime, int8),
        "OpenVINO fp32": partial(openvino, fp32),
        "OpenVINO bf16": partial(openvino, fp32, "bf16"),
        "OpenVINO int8": partial(openvino, int8),
    }


def attempt(name: str, call: Callable):
    """What ``call`` returns, or None and a line that says why; other libraries fail in their own ways."""
    try:
        return call()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        if isinstance(error, ImportError) and error.name:
            reason = f"pip install {error.name.split('.')[0].replace('pytorch_grad_cam', 'grad-cam')}"
        print(f"{name} is left out: {reason}")


def interval(values: tuple[float, float, float]) -> str:
    """A value with its interval, as text."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*values)
