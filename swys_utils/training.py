"""One training loop for every model of the series, and the scores that are reported of each."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from medmnist.evaluator import getACC, getAUC
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.special import expit, softmax
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from torch import nn
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error
from tqdm.auto import tqdm

from .config import SwysError, default_device, fast_bf16, seed_everything
from .data import Dataset, Split, to_model_input, to_planes
from .models import create_model, pack_hashes, perceptual_hashes, plain_attention, save_checkpoint
from .stats import bootstrap_interval, wilson_interval

# --- recipe ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, apart from the seed.

    Attributes:
        epochs, batch_size, lr, weight_decay: of AdamW (Loshchilov & Hutter 2019); lr is the peak.
        warmup_epochs: linear rise of the learning rate; then half a cosine down to 0, unless ``step_epochs`` is
            set: then the rate is halved every so many epochs.
        patience: stop after so many epochs without a better validation accuracy; 0 trains the whole schedule.
        flip: mirror left-right with probability 1/2. turns: also up-down, and by multiples of 90 degrees.
        rotate: degrees, scale: relative, shift: share of the side; each drawn uniformly from +- the value.
        jitter: +- brightness, contrast and (colour images) saturation, relative.
        gamma: +- log of the exponent of a gamma curve. sharpness: +- share of a blurred copy added or taken away.
        mixup: alpha of the Beta distribution (Zhang et al. 2018); 0 is off.
        drop_path: stochastic depth of the last block, rising linearly from 0 (Huang et al. 2016).
        label_smoothing: in [0, 1).
        balanced: weigh each class by 1 / its share, so that the training site's disease rate is not learnt.
        average_epochs: the final weights are the mean over the ends of the last so many epochs; 0 is off.
        patch_drop: share of the patch tokens left out at random in training, to save time (PatchDropout, Liu et al.
            2023); ``build`` puts it into the model.
    """

    name: str = "reference"
    epochs: int = 100
    batch_size: int = 128
    lr: float = 5e-4
    weight_decay: float = 0.05
    warmup_epochs: float = 5
    step_epochs: int = 0
    patience: int = 0
    flip: bool = True
    turns: bool = False
    rotate: float = 15.0
    scale: float = 0.15
    shift: float = 0.1
    jitter: float = 0.4
    gamma: float = 0.0
    sharpness: float = 0.0
    mixup: float = 0.4
    drop_path: float = 0.1
    label_smoothing: float = 0.0
    balanced: bool = False
    average_epochs: int = 0
    patch_drop: float = 0.0

    @property
    def augments(self) -> bool:
        return any(
            (self.flip, self.turns, self.rotate, self.scale, self.shift, self.jitter, self.gamma, self.sharpness)
        )


ORIGINAL = Recipe(
    name="original",
    epochs=30,
    batch_size=64,
    lr=1e-5,
    weight_decay=0.01,
    warmup_epochs=0,
    step_epochs=5,
    patience=3,
    flip=False,
    rotate=0,
    scale=0,
    shift=0,
    jitter=0,
    mixup=0,
    drop_path=0,
)  # what the earlier project of this name did


TURNED = ("bloodmnist", "pathmnist", "dermamnist", "tissuemnist")  # cells and tissue have no up or down


def reference_recipe(model_name: str, dataset_name: str = "pneumoniamnist") -> Recipe:
    """The recipe of the reference runs; data without an up and down is also turned."""
    recipe = Recipe()
    if "base" in model_name:
        recipe = replace(recipe, epochs=50, lr=2e-4)
    if dataset_name in TURNED:
        recipe = replace(recipe, turns=True, jitter=0.2, epochs=round(recipe.epochs * 0.6))
    return recipe


# --- batches on the device -------------------------------------------------------------------------------------


def augment(planes: torch.Tensor, img_size: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Random view of each image, drawn and computed on its device.

    Mirroring, turning, scaling, shifting and enlarging are one affine map, so pixels are interpolated once.

    Args:
        planes: float (B, C, H, W) in [-1, 1]. generator: on the same device.

    Returns:
        float (B, C, S, S) in [-1, 1].
    """
    batch, device = len(planes), planes.device

    def uniform(width: float) -> torch.Tensor:
        return (torch.rand(batch, device=device, generator=generator) * 2 - 1) * width

    def coin() -> torch.Tensor:
        return torch.randint(0, 2, (batch,), device=device, generator=generator) * 2.0 - 1

    if recipe.sharpness:  # at the stored size, where the scanner's own blur is
        planes = planes + uniform(recipe.sharpness)[:, None, None, None] * (blur(planes) - planes)
    angle = uniform(math.radians(recipe.rotate))
    if recipe.turns:
        angle = angle + torch.randint(0, 4, (batch,), device=device, generator=generator) * (math.pi / 2)
    size = 1 + uniform(recipe.scale)
    mirror_x = coin() if recipe.flip or recipe.turns else torch.ones(batch, device=device)
    cos, sin = torch.cos(angle) * size, torch.sin(angle) * size
    theta = torch.stack(
        [
            torch.stack([cos * mirror_x, -sin, uniform(2 * recipe.shift)], dim=1),
            torch.stack([sin * mirror_x, cos, uniform(2 * recipe.shift)], dim=1),
        ],
        dim=1,
    )  # (B, 2, 3)
    grid = F.affine_grid(theta, (batch, planes.shape[1], img_size, img_size), align_corners=False)
    views = F.grid_sample(planes, grid.to(planes.dtype), mode="bilinear", padding_mode="border", align_corners=False)
    if recipe.jitter:
        amount = [1 + uniform(recipe.jitter)[:, None, None, None].to(views.dtype) for _ in range(3)]
        views = (views + 1) * amount[0] - 1  # brightness: black stays black
        mean = views.mean(dim=(1, 2, 3), keepdim=True)
        views = (views - mean) * amount[1] + mean  # contrast
        if views.shape[1] == 3:
            grey = views.mean(dim=1, keepdim=True)
            views = (views - grey) * amount[2] + grey  # saturation
    if recipe.gamma:
        exponent = torch.exp(uniform(recipe.gamma))[:, None, None, None]
        views = (views.clamp(-1, 1) / 2 + 0.5).clamp(min=1e-4) ** exponent * 2 - 1
    return views.clamp(-1, 1) if recipe.jitter or recipe.sharpness else views


def blur(planes: torch.Tensor) -> torch.Tensor:
    """Float (B, C, H, W) through a 5 x 5 binomial filter (standard deviation 1 px)."""
    row = torch.tensor([1, 4, 6, 4, 1], device=planes.device, dtype=planes.dtype) / 16
    channels = planes.shape[1]
    padded = F.pad(planes, (2, 2, 2, 2), mode="replicate")
    padded = F.conv2d(padded, row.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return F.conv2d(padded, row.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)


def one_hot(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """int64 (B,) to float (B, C); multi-label (B, L) stays as it is."""
    return F.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels.float()


class SupervisedObjective(nn.Module):
    """Cross-entropy with (possibly mixed) labels; binary cross-entropy a label when several can be true.

    An objective is called as ``objective(model, inputs, targets)`` with inputs float (B, 3, S, S) and targets
    float (B, C) that sum to 1 (multi-label: each in [0, 1]), and returns a scalar loss.
    """

    def __init__(self, multi_label: bool = False, label_smoothing: float = 0.0, class_weights=None):
        super().__init__()
        self.multi_label, self.label_smoothing = multi_label, label_smoothing
        self.register_buffer("class_weights", None if class_weights is None else torch.as_tensor(class_weights).float())

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, targets)
        return F.cross_entropy(logits, targets, weight=self.class_weights, label_smoothing=self.label_smoothing)

    def forward(self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.loss(model(inputs), targets)


def supervised_objective(data: Dataset, recipe: Recipe) -> SupervisedObjective:
    """The labels' part of the loss for this data set and recipe."""
    weights = None
    if recipe.balanced and not data.info.multi_label:
        counts = np.bincount(data.train.labels, minlength=data.info.num_classes).clip(min=1)
        weights = counts.sum() / (len(counts) * counts)
    return SupervisedObjective(data.info.multi_label, recipe.label_smoothing, weights)


class _Step(nn.Module):
    """Model and objective as one module, so that Accelerate wraps and synchronises both (a projector learns too)."""

    def __init__(self, model: nn.Module, objective: nn.Module):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.objective(self.model, inputs, targets)


class _GraphedStep:
    """One optimiser step, recorded as a CUDA graph and replayed (https://pytorch.org/docs/stable/notes/cuda.html).

    The first steps run unrecorded on a side stream, where compilation and lazy allocations happen; they are steps of
    the run like any other, and recording itself executes nothing.
    """

    WARM_UP = 3

    def __init__(self, step, batch_size: int, generator: torch.Generator):
        self.step, self.generator = step, generator
        self.rows = torch.zeros(batch_size, dtype=torch.int64, device=generator.device)
        self.lam = torch.ones((), device=generator.device)
        self.stream, self.graph, self.calls = torch.cuda.Stream(), None, 0

    def __call__(self, rows: torch.Tensor, lam: float) -> torch.Tensor:
        self.rows.copy_(rows)
        self.lam.fill_(lam)
        self.calls += 1
        if self.calls <= self.WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                loss = self.step(self.rows, self.lam)
            torch.cuda.current_stream().wait_stream(self.stream)
            return loss
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            self.graph.register_generator_state(self.generator)
            with torch.cuda.graph(self.graph):
                self.loss = self.step(self.rows, self.lam)
        self.graph.replay()
        return self.loss


def _compiled(step_module: nn.Module, objective: nn.Module, mode: str):
    """The step through ``torch.compile``: as a whole, or in the parts that the objective names."""
    if hasattr(objective, "compile_parts"):
        objective.compile_parts(mode)
        return step_module
    return torch.compile(step_module, mode=mode)


# --- the loop --------------------------------------------------------------------------------------------------


@dataclass
class FitResult:
    """``model`` holds the last epoch's weights; ``val_chosen`` those of the epoch with the best validation accuracy."""

    model: VisionTransformer
    val_chosen: dict[str, torch.Tensor]
    history: list[dict] = field(default_factory=list)
    finished: bool = True
    step_losses: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> dict:
        return max(self.history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))

    def val_chosen_model(self) -> VisionTransformer:
        """A copy of the model with the validation-chosen weights."""
        import copy

        model = copy.deepcopy(self.model)
        model.load_state_dict(self.val_chosen)
        return model.eval()


def build(
    model_name: str, data: Dataset, recipe: Recipe, seed: int = 0, img_size: int = 224, **kwargs
) -> VisionTransformer:
    """A model with the initial weights of ``seed``: the same for every run of that model and seed."""
    seed_everything(seed)
    kwargs = {"drop_path_rate": recipe.drop_path, "patch_drop_rate": recipe.patch_drop} | kwargs
    return create_model(model_name, data.info.num_classes, img_size, **kwargs)


def fit(
    model: VisionTransformer,
    data: Dataset,
    recipe: Recipe,
    *,
    objective: nn.Module | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    save_path: str | Path | None = None,
    resume: bool = False,
    card: dict | None = None,
    live_seconds: float = 0,
    max_steps: int = 0,
    budget_s: float = 0,
    compile_mode: str | None = None,
    cuda_graph: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train ``model`` by ``recipe``; works on a CPU, one GPU, or several under ``accelerate launch``.

    The last epoch of a fixed schedule is the result; the epoch with the best validation accuracy is kept beside it.
    Each epoch's randomness follows from (seed, epoch), so a resumed run repeats an uninterrupted one.

    Args:
        objective: see :class:`SupervisedObjective`; default: labels only.
        save_path: ``x.safetensors`` or a folder; the weights of the last epoch go there, those of the chosen epoch to
            ``x.val_chosen.safetensors``, and what resuming needs to ``x.state.safetensors`` on the way.
        resume: go on from the state file, or from a finished run when ``recipe.epochs`` was raised.
        card: entries for the checkpoint's card.
        live_seconds: squeeze the whole schedule into so many seconds (a demonstration, not a recipe).
        max_steps: squeeze it into so many steps.
        budget_s: stop after so many seconds at the end of an epoch, resumable, with ``finished=False``.
        compile_mode: None, or a mode of ``torch.compile`` (an objective with a method ``compile_parts(mode)`` is
            asked to compile what can be compiled of it).
        cuda_graph: on one GPU, record one step as a CUDA graph and replay it, so that a small model does not wait for
            hundreds of kernel launches. Needs an objective without decisions on the host, as all of this package
            are; ignored elsewhere. Off by default.

    Raises:
        SwysError: nothing to resume, a state of another recipe, an unwritable path, a loss that is not finite.
    """
    start = time.monotonic()
    device = torch.device(device or default_device())
    accelerator = Accelerator(mixed_precision="bf16" if fast_bf16(device) else "no", cpu=device.type == "cpu")
    device = accelerator.device
    objective = objective or supervised_objective(data, recipe)
    state_path = _beside(save_path, "state") if save_path else None
    if state_path:
        _check_writable(state_path)

    step_module = _Step(model, objective).to(device)
    images, labels = _resident(data.train, device)
    cuda_graph = cuda_graph and images.is_cuda and accelerator.num_processes == 1
    groups = param_groups_weight_decay(step_module, recipe.weight_decay)
    # a recorded step reads the learning rate from the device
    rate_holder = torch.tensor(recipe.lr, device=device) if cuda_graph else recipe.lr
    fused = device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=rate_holder, fused=fused, capturable=cuda_graph)
    step_module, optimizer = accelerator.prepare(step_module, optimizer)
    train_step = _compiled(step_module, objective, compile_mode) if compile_mode else step_module

    batch_size = min(recipe.batch_size, len(data.train))
    per_process = math.ceil(batch_size / accelerator.num_processes)
    steps_per_epoch = len(data.train) // batch_size
    total_steps = max_steps or recipe.epochs * steps_per_epoch
    best: dict[str, torch.Tensor] = {}
    average: dict[str, torch.Tensor] = {}
    history: list[dict] = []
    if resume:
        history, best, average = _load_state(state_path, model, objective, optimizer, recipe, seed, device)
    img_size = model.patch_embed.img_size[0]
    first_epoch, saved_at, step = len(history), time.monotonic(), len(history) * steps_per_epoch
    finished, step_losses = True, []
    val_batch = 1024 if device.type == "cuda" else 0
    generator = torch.Generator(device)

    def step_once(rows: torch.Tensor, lam: float | torch.Tensor) -> torch.Tensor:
        inputs, targets = _batch(images, labels, rows, data, recipe, img_size, lam, generator, device)
        with accelerator.autocast(), plain_attention(step_module) if device.type == "cpu" else nullcontext():
            loss = train_step(inputs, targets)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    run_step = _GraphedStep(step_once, per_process, generator) if cuda_graph else step_once
    bar = tqdm(
        total=total_steps,
        initial=step,
        unit="step",
        mininterval=1,
        desc="training",
        disable=not progress or not accelerator.is_main_process,
    )
    for epoch in range(first_epoch, recipe.epochs):
        if _stopped_early(history, recipe):
            break
        epoch_start = time.monotonic()
        seed_everything(1_000_003 * seed + epoch)
        host = np.random.default_rng([seed, epoch])
        generator.manual_seed(1_000_003 * seed + epoch + accelerator.process_index * 7919)
        order = torch.as_tensor(host.permutation(len(data.train))).to(images.device)
        model.train()
        losses = []
        for i in range(steps_per_epoch):
            rate = _learning_rate(recipe, step, steps_per_epoch, total_steps, start, live_seconds)
            for group in optimizer.param_groups:
                if cuda_graph:
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate
            rows = order[i * batch_size : (i + 1) * batch_size]
            lam = host.beta(recipe.mixup, recipe.mixup) if recipe.mixup else 1.0
            rows = rows[accelerator.process_index * per_process : (accelerator.process_index + 1) * per_process]
            losses.append(run_step(rows, lam).float().clone())  # a replayed step writes over its loss
            step += 1
            bar.update()
            out_of_time = live_seconds and time.monotonic() - start > live_seconds
            if out_of_time or (max_steps and step >= max_steps):
                break
        train_loss = torch.stack(losses).mean().item()
        step_losses += torch.stack(losses).tolist()
        if not math.isfinite(train_loss):
            raise SwysError(f"the loss is {train_loss} in epoch {epoch + 1}; lower the learning rate ({recipe.lr})")
        seconds = time.monotonic() - epoch_start
        logits = predict(model, data.val.images, device=device, batch_size=val_batch, progress=False, amp=True)
        row = {
            "epoch": epoch + 1,
            "steps": step,
            "lr": rate,
            "train_loss": train_loss,
            "seconds": seconds,
            "images_per_s": len(losses) * batch_size / seconds,
            **_quick_scores(logits, data.val.labels, data.info),
        }
        history.append(row)
        bar.set_postfix(loss=f"{train_loss:.3f}", val=f"{row['val_accuracy']:.3f}", epoch=epoch + 1)
        if row is max(history, key=lambda r: (r["val_accuracy"], -r["val_loss"])):
            best = {key: value.detach().clone() for key, value in model.state_dict().items()}
        if recipe.average_epochs and epoch >= recipe.epochs - recipe.average_epochs:
            n = epoch - (recipe.epochs - recipe.average_epochs)  # epochs already in the mean
            current = {key: value.detach().float() for key, value in model.state_dict().items()}
            average = {
                key: average[key] + (value - average[key]) / (n + 1) if n else value.clone()
                for key, value in current.items()
            }
        if live_seconds and time.monotonic() - start > live_seconds or max_steps and step >= max_steps:
            break
        more = epoch + 1 < recipe.epochs
        stop_now = (
            bool(budget_s) and more and time.monotonic() - start + 1.3 * (time.monotonic() - epoch_start) > budget_s
        )
        if state_path and accelerator.is_main_process and (not more or stop_now or time.monotonic() - saved_at > 60):
            _save_state(state_path, model, objective, optimizer, recipe, seed, history, best, average)
            saved_at = time.monotonic()
        if stop_now:
            finished = False
            break
    bar.close()
    if average and finished:
        model.load_state_dict(average)
    model.eval()
    result = FitResult(model, best, history, finished, step_losses)
    if save_path and finished and accelerator.is_main_process:
        card = {**run_card(data, recipe, seed, history), **(card or {})}
        save_checkpoint(model, save_path, card, storage="fp32")
        save_checkpoint(result.val_chosen_model(), _beside(save_path, "val_chosen"), card, storage="fp32")
    return result


def run_card(data: Dataset, recipe: Recipe, seed: int, history: list[dict]) -> dict:
    """What a card says of any run: data, recipe, seed, history and the fingerprints of the training images."""
    return {
        "dataset": data.info.name,
        "size": data.info.size,
        "source": data.info.source,
        "synthetic": data.info.synthetic,
        "splits": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
        "seed": seed,
        "recipe": asdict(recipe),
        "history": history,
        "training_hashes": pack_hashes(perceptual_hashes(data.train.images)),
    }


def _batch(images, labels, rows, data, recipe, img_size, lam, generator, device):
    """Model input float (B, 3, S, S) and targets float (B, C) of the given rows, augmented and mixed."""
    planes, targets = to_planes(images[rows], device), one_hot(labels[rows].to(device), data.info.num_classes)
    if recipe.augments:
        inputs = augment(planes, img_size, recipe, generator)
    else:
        inputs = F.interpolate(planes, size=(img_size, img_size), mode="bilinear", align_corners=False)
    if recipe.mixup:
        partner = torch.arange(len(rows) - 1, -1, -1, device=device)  # the batch reversed: rows come shuffled
        inputs = lam * inputs + (1 - lam) * inputs[partner]
        targets = lam * targets + (1 - lam) * targets[partner]
    return inputs.expand(-1, 3, -1, -1), targets


def _resident(split: Split, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Small sets live on the device as uint8; memory-mapped ones stay on disk and travel by batch."""
    labels = torch.as_tensor(split.labels)
    if isinstance(split.images, np.memmap):
        return torch.from_numpy(split.images), labels
    return torch.as_tensor(split.images).to(device), labels.to(device)


def _learning_rate(
    recipe: Recipe, step: int, steps_per_epoch: int, total: int, start: float, live_seconds: float
) -> float:
    if recipe.step_epochs:
        return recipe.lr * 0.5 ** (step // steps_per_epoch // recipe.step_epochs)
    done = step / total
    if live_seconds:
        done = max(done, min(1.0, (time.monotonic() - start) / live_seconds))
    warmup = min(recipe.warmup_epochs / recipe.epochs, 0.2)
    if done < warmup:
        return recipe.lr * (done + 1 / total) / (warmup + 1 / total)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _stopped_early(history: list[dict], recipe: Recipe) -> bool:
    if not recipe.patience or len(history) <= recipe.patience:
        return False
    before = max(row["val_accuracy"] for row in history[: -recipe.patience])
    return max(row["val_accuracy"] for row in history[-recipe.patience :]) <= before


# --- state of an unfinished run: safetensors, no pickle --------------------------------------------------------


def _beside(path: str | Path, what: str) -> Path:
    """``x.safetensors`` -> ``x.<what>.safetensors``; a folder -> ``<folder>/<what>.safetensors``."""
    path = Path(path)
    return path.with_suffix(f".{what}.safetensors") if path.suffix == ".safetensors" else path / f"{what}.safetensors"


def _check_writable(path: Path) -> None:
    """Fail before the training, not after it."""
    probe = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SwysError(f"cannot write to '{path.parent}': {error.strerror}; choose another --save_path") from None


def _save_state(path, model, objective, optimizer, recipe, seed, history, best, average) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"objective.{k}": v for k, v in _trained(objective).items()}
    tensors |= {f"best.{k}": v for k, v in best.items()} | {f"average.{k}": v for k, v in average.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    meta = {"recipe": json.dumps(asdict(recipe)), "seed": str(seed), "history": json.dumps(history)}
    part = path.with_name(path.name + ".part")
    try:
        save_file(tensors, part, metadata=meta)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SwysError(
            f"cannot write '{path}': {error.strerror}; free some space or choose another --save_path"
        ) from None


def _load_state(path, model, objective, optimizer, recipe, seed, device):
    if path is None or not path.is_file():
        raise SwysError(f"nothing to resume: '{path}' does not exist; run without --resume first")
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # safetensors raises its own class for a damaged header, OSError for the rest
        raise SwysError(f"'{path}' cannot be read ({error}); start again without --resume") from None
    stored, wanted = json.loads(meta["recipe"]), asdict(recipe)
    other = [key for key in wanted if key not in ("epochs", "name") and stored.get(key) != wanted[key]]
    if other or meta["seed"] != str(seed):
        what = (
            ", ".join(f"{key} {stored.get(key)} -> {wanted[key]}" for key in other) or f"seed {meta['seed']} -> {seed}"
        )
        raise SwysError(
            f"'{path}' is a run of another recipe ({what}); use the same settings, or start without --resume"
        )
    parts: dict[str, dict] = {"model": {}, "objective": {}, "best": {}, "average": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, rest = key.split(".", 1)
        parts[part][rest] = value.to(device)
    try:
        model.load_state_dict(parts["model"])
    except RuntimeError:
        raise SwysError(
            f"'{path}' is a run of another model; use the same --model, or start without --resume"
        ) from None
    objective.load_state_dict(parts["objective"], strict=False)
    state = optimizer.state_dict()
    for key, value in parts["optimizer"].items():
        index, name = key.split(".", 1)
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    return json.loads(meta["history"]), parts["best"], parts["average"]


def _trained(objective: nn.Module) -> dict[str, torch.Tensor]:
    """The objective's own trained weights (a projector), not the frozen teacher's."""
    return {name: p for name, p in objective.named_parameters() if p.requires_grad}


# --- scores ----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def predict(
    model: VisionTransformer,
    images: np.ndarray,
    *,
    device: torch.device | str | None = None,
    batch_size: int = 0,
    amp: bool = False,
    progress: bool = True,
) -> np.ndarray:
    """Logits of uint8 images (N, H, W[, 3]) as float32 (N, C).

    Args:
        device: default: where the model is. batch_size: default 256 on a GPU, 32 on a CPU.
        amp: bfloat16 on CUDA (validation during training); otherwise float32 throughout.
    """
    device = torch.device(device) if device else next(model.parameters()).device
    batch_size = batch_size or (256 if device.type == "cuda" else 32)
    was_training = model.training
    model.eval()
    logits = []
    for start in tqdm(
        range(0, len(images), batch_size),
        desc="predicting",
        unit="batch",
        leave=False,
        mininterval=1,
        disable=not progress or len(images) <= 4 * batch_size,
    ):
        inputs = to_model_input(images[start : start + batch_size], model.patch_embed.img_size[0], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=amp and device.type == "cuda"):
            logits.append(model(inputs).float())
    model.train(was_training)
    return torch.cat(logits).cpu().numpy()


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Softmax over classes, or a sigmoid a label for multi-label tasks; float (N, C)."""
    return expit(logits) if task.startswith("multi-label") else softmax(logits, axis=1)


@dataclass(frozen=True)
class Metrics:
    """Scores on n images, fractions in [0, 1]; intervals are 95 %. ``correct`` is bool (N,) (multi-label: (N, L))."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    auc: float
    auc_interval: tuple[float, float]
    ece: float
    ece_interval: tuple[float, float]
    n: int
    correct: np.ndarray = field(repr=False, compare=False)

    def __str__(self) -> str:
        (a, b), (c, d), (e, f) = self.accuracy_interval, self.auc_interval, self.ece_interval
        return (
            f"accuracy {self.accuracy:.1%} [{a:.1%}, {b:.1%}]  AUC {self.auc:.3f} [{c:.3f}, {d:.3f}]"
            f"  ECE {self.ece:.3f} [{e:.3f}, {f:.3f}]  (n = {self.n})"
        )


def evaluate(logits: np.ndarray, labels: np.ndarray, task: str, n_resamples: int = 500) -> Metrics:
    """Accuracy and AUC as ``medmnist.Evaluator`` computes them, ECE, and 95 % intervals.

    Accuracy's interval is Wilson's (multi-label: bootstrap); AUC's and ECE's are bootstrap over images.

    Args:
        logits: float (N, C). labels: int (N,) or (N, L). task: MedMNIST's task name.
    """
    if len(logits) != len(labels):
        raise SwysError(f"{len(logits)} predictions for {len(labels)} labels; predict and score the same images")
    scores = probabilities(np.asarray(logits, dtype=np.float64), task)
    multi_label = task.startswith("multi-label")
    correct = (scores > 0.5) == labels if multi_label else scores.argmax(axis=1) == labels
    interval = (
        bootstrap_interval(np.mean, correct, n_resamples=n_resamples) if multi_label else wilson_interval(correct)
    )
    return Metrics(
        accuracy=float(getACC(labels, scores, task)),
        accuracy_interval=interval,
        auc=auc(labels, scores, task),
        auc_interval=bootstrap_interval(lambda y, s: auc(y, s, task), labels, scores, n_resamples=n_resamples),
        ece=calibration_error(scores, labels),
        ece_interval=bootstrap_interval(calibration_error, scores, labels, n_resamples=n_resamples),
        n=len(labels),
        correct=correct,
    )


def auc(labels: np.ndarray, scores: np.ndarray, task: str) -> float:
    """Area under the ROC curve as medmnist has it (mean over classes or labels); nan where a class is absent."""
    columns = labels if labels.ndim == 2 else np.eye(scores.shape[1], dtype=int)[labels]
    if (columns.min(axis=0) == columns.max(axis=0)).any():
        return float("nan")
    return float(getAUC(labels, scores, task))


def calibration_error(scores: np.ndarray, labels: np.ndarray, n_bins: int = 15) -> float:
    """Expected calibration error, 15 equal bins of confidence, L1 (Guo et al. 2017), by torchmetrics."""
    p, y = torch.as_tensor(scores), torch.as_tensor(labels)
    if y.ndim == 2:
        return binary_calibration_error(p.flatten(), y.flatten(), n_bins=n_bins).item()
    return multiclass_calibration_error(p, y, num_classes=p.shape[1], n_bins=n_bins).item()


def _quick_scores(logits: np.ndarray, labels: np.ndarray, info) -> dict:
    """Validation loss and accuracy without intervals: once an epoch."""
    scores = probabilities(logits.astype(np.float64), info.task)
    if info.multi_label:
        loss = F.binary_cross_entropy_with_logits(torch.as_tensor(logits), torch.as_tensor(labels).float())
    else:
        loss = F.cross_entropy(torch.as_tensor(logits), torch.as_tensor(labels))
    return {"val_loss": loss.item(), "val_accuracy": float(getACC(labels, scores, info.task))}
