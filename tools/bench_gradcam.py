"""How much faster than the package grad-cam is swys_utils.grad_cam, at equal output? Both in one run.

    python tools/bench_gradcam.py [--model vit_base_patch16_224] [--batch_sizes 1 8 32] [--seconds 3]

Weights are random: speed does not depend on them. The peer runs as its documentation shows, one call a batch, on
blocks[-1].norm1 with a reshape_transform; before the clock starts, our maps, scaled as it scales, must equal its.
"""

import argparse
import time
from functools import partial

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from swys_utils.gradcam import grad_cam
from swys_utils.models import create_model


def seconds(calls: list, limit: float) -> list[float]:
    """Median seconds of each call. They take turns, so that whatever else the machine does slows all of them alike."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for call in calls:
        call()
    times = []
    while len(times) < 3 or np.sum(times) < limit * len(calls):
        times.append([])
        for call in calls:
            wait()
            start = time.perf_counter()
            call()
            wait()
            times[-1].append(time.perf_counter() - start)
    return list(np.median(times, axis=0))


def to_image(tokens: torch.Tensor, first: int, grid: tuple[int, int]) -> torch.Tensor:
    return tokens[:, first:].reshape(len(tokens), *grid, -1).permute(0, 3, 1, 2)


def compare(model, inputs: torch.Tensor, limit: float) -> list[float]:
    """Seconds a call: plain forward, ours, ours under bf16 autocast, the peer."""
    reshape = partial(to_image, first=model.num_prefix_tokens, grid=model.patch_embed.grid_size)
    targets = [ClassifierOutputTarget(1)] * len(inputs)
    with GradCAM(model, [model.blocks[-1].norm1], reshape_transform=reshape) as cam:
        theirs = cam(input_tensor=inputs, targets=targets)
        # the peer scales to [0, 1], enlarges to the image, and scales again
        ours = scale_cam_image(scale_cam_image(grad_cam(model, inputs, 1).cpu().numpy(), inputs.shape[:1:-1]))
        difference = np.abs(ours - theirs).max()
        if difference > 1e-3:
            raise SystemExit(f"outputs differ by {difference:.1e}: a ratio would mean nothing")

        def forward():
            with torch.no_grad():
                model(inputs)

        def bf16():
            with torch.autocast(inputs.device.type, torch.bfloat16):
                grad_cam(model, inputs, 1)

        def peer():
            cam(input_tensor=inputs, targets=targets)

        return seconds([forward, lambda: grad_cam(model, inputs, 1), bf16, peer], limit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=None)
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    args = parser.parse_args()

    print(f"{args.model}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads; ms an image")
    print(f"{'device':8}{'batch':>6}{'forward':>10}{'ours':>10}{'bf16':>10}{'grad-cam':>10}{'ratio':>9}{'bf16':>9}")
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        torch.manual_seed(0)
        model = create_model(args.model, 2).to(device).eval()
        for batch in args.batch_sizes or ([1, 8, 32] if device == "cpu" else [1, 32, 256]):
            inputs = torch.randn(batch, 3, *model.patch_embed.img_size, device=device)
            forward, ours, bf16, peer = compare(model, inputs, args.seconds)
            cells = "".join(f"{1e3 * t / batch:10.2f}" for t in (forward, ours, bf16, peer))
            print(f"{device:8}{batch:6}{cells}{peer / ours:8.1f}x{peer / bf16:8.1f}x", flush=True)


if __name__ == "__main__":
    main()
