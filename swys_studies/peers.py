"""Our Grad-CAM beside the package grad-cam, as ``swys study peers`` prints it."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from swys_utils.benchmark import Timing, interleaved_latency, random_inputs, speedup
from swys_utils.config import SwysError, default_device, device_name
from swys_utils.data import DEFAULT_DATASET
from swys_utils.gradcam import grad_cam
from swys_utils.models import load_checkpoint

from .report import as_table


def compare(ckpt_path: str = f"{DEFAULT_DATASET}/vit_tiny_patch16_224", rounds: int = 20) -> None:
    """Print the times of both on the default device, and check that their maps agree.

    Args:
        ckpt_path: the model: a folder, a file, or an id below ``checkpoints/``.
        rounds: of every timing; in each round all have their turn.
    """
    model, _ = load_checkpoint(ckpt_path, default_device())
    print(f"{ckpt_path}, {device_name(default_device())}\n{as_table(gradcam(model, rounds))}")


def gradcam(model: VisionTransformer, rounds: int = 20) -> list[dict]:
    """Times an image of ours and of the package grad-cam, used as its documentation shows.

    Raises SwysError: the package is missing, or its maps differ by 1e-5: then a ratio would mean nothing.
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

    rows = []
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


def ratio(slow: Timing, fast: Timing) -> str:
    """How many times faster, with its interval, as text."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*speedup(slow, fast))
