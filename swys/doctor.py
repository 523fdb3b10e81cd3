"""Why is the heatmap of a Vision Transformer blank? ``swys doctor`` asks the model itself.

Eight mistakes make a map blank or wrong. Each check below makes one of them on purpose, with the
reader's model and image, and writes down what it does to the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from swys_utils import image_files
from swys_utils.config import SwysError
from swys_utils.data import to_model_input
from swys_utils.gradcam import grad_cam
from swys_utils.models import load_checkpoint
from swys_utils.occlusion import log_odds, occlusion
from swys_utils.vit_internals import checked_input, evaluation_mode

VANISHED = 1e-3  # of the map of the logit; what is left of it is below what a colour shows
UNMOVED = 0.01  # change of a probability that nobody sees
CERTAIN = 0.99
USUAL_GRID = (14, 14)  # of 224 px in patches of 16, which most examples have
USUAL_PREFIX = 1  # a CLS token


@dataclass(frozen=True)
class Case:
    """A model, an image, and what the checks have in common.

    Attributes:
        model: in eval mode.
        inputs: model input, float (1, 3, S, S).
        logits: float (C,).
        target: the class to explain.
        gradients: whether the caller had gradients switched on.
    """

    model: VisionTransformer
    inputs: Tensor
    logits: Tensor
    target: int
    gradients: bool

    @property
    def probability(self) -> float:
        """Of the target, from 0 to 1."""
        return self.logits.softmax(dim=0)[self.target].item()


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        cause: a key of ``CHECKS``.
        title: the mistake, in words.
        found: whether it would spoil the map of this model and image.
        measured: what was seen.
        remedy: what to do about it.
    """

    cause: str
    title: str
    found: bool
    measured: str
    remedy: str


# What a check returns: whether the mistake spoils the map, and what was seen.
Result: TypeAlias = tuple[bool, str]


def doctor(model: str, image: str, target: int | None = None) -> None:
    """Why is the heatmap of this model blank? Eight causes, each tried on it.

    Args:
        model: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        image: a picture file.
        target: the class to explain, from 0; default: the predicted one.

    Raises:
        SwysError: a model or a picture that cannot be read, or no such class.
    """
    network, _ = load_checkpoint(model)
    inputs = read_image(image, network.patch_embed.img_size[0])
    findings = diagnose(network, inputs, target)
    print(f"{model}, {image}")
    print(report(findings))


def diagnose(model: nn.Module, inputs: Tensor, target: int | None = None) -> list[Finding]:
    """Try each mistake on a model and an image.

    Call it where the blank map was made: whether gradients are off there is one of the checks.

    Args:
        model: a plain timm VisionTransformer; it is left as it was.
        inputs: model input, float (1, 3, S, S).
        target: the class to explain; None for the predicted one.

    Returns:
        A finding for each entry of ``CHECKS``, in that order.

    Raises:
        SwysError: another kind of model, several images, or no such class.
    """
    gradients = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    x, _ = checked_input(model, inputs, -1)
    if len(x) != 1:
        raise SwysError(f"{len(x)} images; give one, as inputs[:1]")
    findings = []
    with evaluation_mode(model):
        with torch.no_grad():
            logits = model(x)[0].float()
        if target is None:
            target = int(logits.argmax())
        if not 0 <= target < len(logits):
            raise SwysError(f"no class {target}; choose 0 to {len(logits) - 1}")
        # a copy, because autograd refuses what was made in inference mode
        case = Case(model, x.clone(), logits, target, gradients)
        for cause, (title, check, remedy) in CHECKS.items():
            found, measured = check(case)
            findings.append(Finding(cause, title, found, measured, remedy))
    return findings


def verdict(findings: list[Finding]) -> Finding | None:
    """The cause that is most likely.

    Args:
        findings: of ``diagnose``.

    Returns:
        The one that comes first in ``LIKELY_FIRST``; None where nothing was found.
    """
    found = {finding.cause: finding for finding in findings if finding.found}
    for cause in LIKELY_FIRST:
        if cause in found:
            return found[cause]
    return None


def report(findings: list[Finding]) -> str:
    """The findings as text.

    Args:
        findings: of ``diagnose``.
    """
    lines = []
    for finding in findings:
        mark = "CAUSE" if finding.found else "ok"
        lines.append(f"{mark:5} {finding.title}: {finding.measured}")
        if finding.found:
            lines.append(f"      -> {finding.remedy}")
    likely = verdict(findings)
    lines.append(f"look first at: {likely.title if likely else 'your plotting; no cause found'}")
    return "\n".join(lines)


def read_image(path: str | Path, size: int) -> Tensor:
    """A picture file as model input.

    Args:
        path: of the file.
        size: side S that the model reads, px.

    Returns:
        float32 (1, 3, S, S).

    Raises:
        SwysError: no such file, or no picture.
    """
    picture = image_files.read_image(Path(path), size)
    return to_model_input(np.asarray(picture)[None], size)


def gradient_at(
    layer: nn.Module,
    case: Case,
    score: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """What leaves a layer, and the gradient of a score by it, at the patch tokens.

    Args:
        layer: of the model.
        case: the model and the image.
        score: logits (1, C) -> a scalar.

    Returns:
        Activation and gradient, float (N, D) each.
    """
    kept = []

    def keep(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    with torch.enable_grad(), layer.register_forward_hook(keep):
        logits = case.model(case.inputs).float()
        (gradient,) = torch.autograd.grad(score(logits), kept)
    patches = slice(case.model.num_prefix_tokens, None)
    return kept[0].detach()[0, patches], gradient[0, patches]


def check_pooling(case: Case) -> Result:
    """Is the gradient zero at the patch tokens that leave the last block?

    Args:
        case: the model and the image.
    """
    last_block = case.model.blocks[-1]
    _, gradient = gradient_at(last_block, case, lambda logits: logits[0, case.target])
    largest = gradient.abs().max().item()
    pooling = case.model.global_pool or "no"
    where = "the largest gradient at a patch token that leaves the last block"
    return largest == 0, f"{pooling} pooling, {where} is {largest:.2g}"


def check_relu(case: Case) -> Result:
    """Is every value of the map negative, so that ReLU leaves nothing?

    Args:
        case: the model and the image.
    """
    signed = grad_cam(case.model, case.inputs, case.target, signed=True)
    positive = int((signed > 0).sum())
    largest = signed.max().item()
    seen = f"{positive} of {signed.numel()} values are above 0, the largest is {largest:.2g}"
    return positive == 0, seen


def check_gradients(case: Case) -> Result:
    """Are gradients off, or all weights frozen?

    Args:
        case: the model and the image.
    """
    trainable = any(weight.requires_grad for weight in case.model.parameters())
    if not case.gradients:
        return True, "gradients are switched off here (no_grad or inference_mode)"
    if not trainable:
        return True, "no weight requires a gradient, so a hooked activation has none"
    return False, "gradients are on"


def check_attention(case: Case) -> Result:
    """Does a hook on the attention map ever fire?

    Args:
        case: the model and the image.
    """
    calls = []
    hooks = []
    for block in case.model.blocks:
        hook = block.attn.attn_drop.register_forward_hook(lambda *_: calls.append(1))
        hooks.append(hook)
    try:
        with torch.no_grad():
            case.model(case.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    blocks = len(case.model.blocks)
    return len(calls) < blocks, f"{len(calls)} of {blocks} blocks form an attention map"


def check_softmax(case: Case) -> Result:
    """Does the map vanish when the probability is explained in place of the logit?

    Args:
        case: the model and the image.
    """
    norm = case.model.blocks[-1].norm1
    sizes = []
    for score in (
        lambda logits: logits[0, case.target],
        lambda logits: logits.softmax(dim=1)[0, case.target],
    ):
        activation, gradient = gradient_at(norm, case, score)
        values = (gradient.mean(dim=0) * activation).sum(dim=1)
        sizes.append(values.abs().max().item())
    of_logit, of_probability = sizes
    share = of_probability / of_logit if of_logit > 0 else 0.0
    seen = f"p = {case.probability:.4f}; its map is {share:.2g} times as strong as the logit's"
    return share < VANISHED, seen


def check_grid(case: Case) -> Result:
    """Is the grid of patches another one than 14 x 14?

    Args:
        case: the model and the image.
    """
    size = (case.inputs.shape[-2], case.inputs.shape[-1])
    grid = tuple(case.model.patch_embed.dynamic_feat_size(size))
    return grid != USUAL_GRID, f"{grid[0]} x {grid[1]} patches, many examples have 14 x 14"


def check_prefix(case: Case) -> Result:
    """Is there another number of tokens before the patches than one?

    Args:
        case: the model and the image.
    """
    prefix = case.model.num_prefix_tokens
    return prefix != USUAL_PREFIX, f"{prefix} before the patch tokens, many examples drop 1"


def check_saturation(case: Case) -> Result:
    """Does no hidden patch change a probability that is nearly 1?

    Args:
        case: the model and the image.
    """
    lost = torch.as_tensor(occlusion(case.model, case.inputs, case.target)).double()
    logits = case.logits.cpu().double()
    odds = log_odds(logits[None], torch.tensor([case.target]))[0]
    change = odds.sigmoid() - (odds - lost).sigmoid()
    largest = change.abs().max().item()
    saturated = case.probability > CERTAIN and largest < UNMOVED
    seen = f"hiding one patch moves p by {largest:.2g}, its log-odds by {lost.abs().max():.2g}"
    return saturated, seen


# Cause -> title, check, remedy; another cause is one more entry.
CHECKS: dict[str, tuple[str, Callable[[Case], Result], str]] = {
    "cls_pooling": (
        "CLS pooling at the last layer",
        check_pooling,
        "hook blocks[-1].norm1, what the last attention reads, or an earlier block",
    ),
    "relu": (
        "ReLU of an all-negative map",
        check_relu,
        "look at the signed map (signed=True), or explain another class (target)",
    ),
    "no_grad": (
        "gradients switched off",
        check_gradients,
        "compute the map under torch.enable_grad(), and let the hooked activation require it",
    ),
    "fused_attention": (
        "fused attention",
        check_attention,
        "for methods that read attention: with plain_attention(model), or TIMM_FUSED_ATTN=0",
    ),
    "softmax": (
        "softmax in place of the logit",
        check_softmax,
        "explain the logit of the class, not its probability",
    ),
    "grid": (
        "another grid",
        check_grid,
        "reshape to model.patch_embed.grid_size",
    ),
    "prefix_tokens": (
        "prefix tokens",
        check_prefix,
        "drop model.num_prefix_tokens, not 1",
    ),
    "saturated": (
        "a saturated answer",
        check_saturation,
        "measure log-odds, log(p / (1 - p)), not the probability",
    ),
}
# What empties the map whatever the code does, then what empties it, then what spoils it otherwise.
LIKELY_FIRST = (
    "relu",
    "no_grad",
    "cls_pooling",
    "softmax",
    "saturated",
    "fused_attention",
    "prefix_tokens",
    "grid",
)
