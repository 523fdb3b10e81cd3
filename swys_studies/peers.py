"""Ours beside other libraries, as ``swys study peers`` prints it: the package grad-cam, and ONNX Runtime."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from swys_utils.benchmark import Timing, interleaved_latency, random_inputs, speedup
from swys_utils.config import SwysError, default_device, device_name
from swys_utils.data import DEFAULT_DATASET
from swys_utils.gradcam import grad_cam
from swys_utils.metrics import Rows
from swys_utils.models import load_checkpoint

from .export import export_onnx, logits_of, onnx_session, quantise_onnx_dynamic


def compare(ckpt_path: str = f"{DEFAULT_DATASET}/vit_tiny_patch16_224", rounds: int = 20) -> None:
    """Print both tables: Grad-CAM on the default device, runtimes on the CPU.

    Args:
        ckpt_path: the model: a folder, a file, or an id below ``checkpoints/``.
        rounds: of every timing; in each round all have their turn.
    """
    model, _ = load_checkpoint(ckpt_path)
    device = default_device()
    print(f"{ckpt_path}, {device_name(device)}\n{gradcam(deepcopy(model).to(device), rounds)}")
    print(f"\n{device_name('cpu')}, {torch.get_num_threads()} threads\n{runtimes(model, rounds)}")


def gradcam(model: VisionTransformer, rounds: int = 20) -> Rows:
    """How much faster is ours than the package grad-cam, used as its documentation shows? Times an image.

    Raises:
        SwysError: the package is missing, or its maps differ by 1e-5: then a ratio would mean nothing.
    """
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.image import scale_cam_image as scaled
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        raise SwysError("the package grad-cam is missing; pip install grad-cam") from None
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
            if difference > 1e-5:
                raise SwysError(f"maps differ from grad-cam's by {difference:.1e}; use another version of it")
            timings = interleaved_latency(calls, rounds)
        row = {"batch": batch} | {name: f"{timing.median / batch:.2f} ms" for name, timing in timings.items()}
        rows.append(row | {"faster": ratio(timings["grad-cam"], timings["ours"])})
    return rows


def runtimes(model: VisionTransformer, rounds: int = 20) -> Rows:
    """Which runtime is fastest for one image on the CPU, and how far are its logits from PyTorch's?"""
    x = random_inputs(model, 1)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        export_onnx(model, fp32)
        quantise_onnx_dynamic(fp32, int8)
        calls = {
            "PyTorch fp32": lambda: model(x).numpy(),
            "ONNX Runtime fp32": partial(logits_of, onnx_session(fp32), x),
            "ONNX Runtime int8": partial(logits_of, onnx_session(int8), x),
        }
        timings, logits = interleaved_latency(calls, rounds), {name: call() for name, call in calls.items()}
    rows, eager = Rows(), "PyTorch fp32"
    for name, timing in timings.items():
        row = {"runtime": name, "one image": str(timing), "times PyTorch": ratio(timings[eager], timing)}
        rows.append(row | {"logits differ by": f"{np.abs(logits[name] - logits[eager]).max():.1e}"})
    return rows


def ratio(slow: Timing, fast: Timing) -> str:
    """How many times faster, with its interval, as text."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*speedup(slow, fast))
