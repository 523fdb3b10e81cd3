"""Measuring explanations: is a heatmap faithful, does it depend on the model, do two models look alike?

Results keep one value an image (NumPy arrays; nan where an image has none) and print as a small table of means
with 95 % bootstrap intervals. Models are timm ViTs as in ``gradcam``; ``images`` are uint8 (N, H, W[, 3]) or
model input, float (N, 3, S, S), fed in batches, so that a whole test set fits. Scores are softmax probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.integrate import trapezoid
from scipy.stats import rankdata
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from .config import SwysError, unknown
from .data import to_model_input
from .gradcam import METHODS, Targets, evaluation_mode, grad_cam
from .stats import bootstrap_interval, wilson_interval

Images = np.ndarray | Tensor
Method = str | Callable[..., Tensor]


class Rows(list):
    """A list of dicts, all with the same keys, that prints as a table."""

    def _cells(self) -> list[list[str]]:
        shown = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in self]
        return [list(self[0]), *shown] if self else []

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self._cells())]
        lines = ("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in self._cells())
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = ["".join(f"<td>{cell}</td>" for cell in line) for line in self._cells()]
        return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high): the mean of all values but nan, and its 95 % bootstrap interval (nan for fewer than 5)."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    mean = float(values.mean()) if len(values) else float("nan")
    # resampling two or three images gives an interval of almost no width: precise-looking and wrong
    return mean, *(bootstrap_interval(np.mean, values) if len(values) >= 5 else (float("nan"),) * 2)


def heatmaps(
    model: nn.Module, images: Images, method: Method = "grad_cam", targets: Targets = None,
    batch_size: int = 32, **options,
) -> np.ndarray:  # fmt: skip
    """Maps of one method for many images: float32 (N, gh, gw). ``options`` (block, signed) go to the method."""
    method = _method(method)
    each = targets is not None and np.ndim(targets) > 0
    batches = _batches(model, images, batch_size)
    maps = [method(model, x, targets[rows] if each else targets, **options).cpu() for rows, x in batches]
    return torch.cat(maps).numpy()


# --- do two models look at the same places? ---


@dataclass(frozen=True)
class Agreement:
    """Per image: Spearman correlation of two maps and overlap (IoU) of their strongest tokens."""

    spearman: np.ndarray
    iou: np.ndarray

    @property
    def undefined(self) -> int:
        """Images on which a map is constant (most often: empty), so that nothing can be compared."""
        return int(np.isnan(self.spearman).sum())

    def row(self, mask: np.ndarray | slice = slice(None)) -> dict:
        """Means over the images in ``mask``, with intervals."""
        rho, iou = self.spearman[mask], self.iou[mask]
        keys = ("spearman", "low", "high", "top IoU", "IoU low", "IoU high")
        numbers = dict(zip(keys, mean_interval(rho) + mean_interval(iou)))
        return {**numbers, "images": len(rho), "undefined": int(np.isnan(rho).sum())}

    def __str__(self) -> str:
        return str(Rows([self.row()]))


def agreement(maps_a: np.ndarray, maps_b: np.ndarray, top: float = 0.2) -> Agreement:
    """Compare the maps of two models image by image.

    Args:
        maps_a, maps_b: (N, gh, gw) for the same images. Ranks use every value: give signed maps, or the zeros
            that ReLU leaves are one large tie. Maps on different grids are averaged down to the coarser.
        top: share of tokens that counts as "where the model looks"; tied lowest values never count.

    Raises:
        SwysError: different numbers of images.
    """
    a, b = (torch.as_tensor(maps).float() for maps in (maps_a, maps_b))
    if len(a) != len(b):
        raise SwysError(f"{len(a)} maps against {len(b)}; agreement compares maps of the same images in the same order")
    grid = tuple(min(sides) for sides in zip(a.shape[1:], b.shape[1:]))
    a, b = (F.adaptive_avg_pool2d(maps, grid).flatten(1).numpy() for maps in (a, b))
    in_a, in_b = _strongest(a, top), _strongest(b, top)
    constant = (np.ptp(a, axis=1) == 0) | (np.ptp(b, axis=1) == 0)
    iou = (in_a & in_b).sum(1) / np.maximum((in_a | in_b).sum(1), 1)
    return Agreement(_spearman(a, b), np.where(constant, np.nan, iou))


def agreement_ladder(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    groups: Mapping[str, np.ndarray] | None = None,
    top: float = 0.2,
    seed: int = 0,
) -> Rows:
    """Agreement of named pairs of maps, each above its own chance level: the same maps, images shuffled.

    Args:
        pairs: name -> (maps of one model, maps of the other): the teacher with a student trained alone (the
            floor), with its students, and with a second teacher (the ceiling).
        groups: name -> bool (N,), to split each pair by images, as ``outcome_groups`` does.

    Returns:
        Rows with pair, group, spearman, low, high, top IoU and its interval, images, undefined; nan for a group
        without images. Chance rows have the pair's name with ", shuffled".
    """
    rows = Rows()
    for name, (maps_a, maps_b) in pairs.items():
        same = agreement(maps_a, maps_b, top)
        rows.append({"pair": name, "group": "all", **same.row()})
        rows += [{"pair": name, "group": key, **same.row(mask)} for key, mask in (groups or {}).items()]
        chance = agreement(maps_a, shuffled(maps_b, seed), top)
        rows.append({"pair": f"{name}, shuffled", "group": "all", **chance.row()})
    return rows


def shuffled(maps: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same maps (N, gh, gw), each with another image's: one random cycle through all of them, so none stays."""
    order = np.random.default_rng(seed).permutation(len(maps))
    partner = np.empty(len(maps), int)
    partner[order] = np.roll(order, 1)
    return np.asarray(maps)[partner]


def outcome_groups(labels: np.ndarray, teacher: np.ndarray, student: np.ndarray) -> dict[str, np.ndarray]:
    """Who is right? Four bool masks (N,) from labels (N,) and two models' logits (N, C)."""
    right_t, right_s = teacher.argmax(1) == labels, student.argmax(1) == labels
    return {
        "both right": right_t & right_s,
        "student wrong": right_t & ~right_s,
        "teacher wrong": ~right_t & right_s,
        "both wrong": ~right_t & ~right_s,
    }


def prediction_agreement(teacher: np.ndarray, student: np.ndarray) -> Rows:
    """How alike two models answer, from logits (N, C): share of equal predictions, KL(teacher || student), nats."""
    log_t, log_s = (F.log_softmax(torch.as_tensor(z).double(), dim=1).numpy() for z in (teacher, student))
    kl = (np.exp(log_t) * (log_t - log_s)).sum(1)
    same = teacher.argmax(1) == student.argmax(1)
    return Rows([
        dict(zip(("measure", "mean", "low", "high"), ("same prediction", float(same.mean()), *wilson_interval(same)))),
        dict(zip(("measure", "mean", "low", "high"), ("KL", *mean_interval(kl)))),
    ])


# --- is the map faithful to the model? ---


def random_maps(count: int, grid: tuple[int, int], seed: int = 0) -> np.ndarray:
    """The first baseline of every faithfulness score: uniform noise (N, gh, gw)."""
    return np.random.default_rng(seed).random((count, *grid), dtype=np.float32)


def centre_prior_maps(count: int, grid: tuple[int, int]) -> np.ndarray:
    """The second baseline: the same Gaussian bump in the middle for every image (N, gh, gw)."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in grid), indexing="ij")
    return np.repeat(np.exp(-2 * (x**2 + y**2), dtype=np.float32)[None], count, axis=0)


@dataclass(frozen=True)
class DeletionInsertion:
    """Curves (N, steps + 1) of the target's probability over ``fractions`` of tokens; AUCs and gap (N,)."""

    fractions: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_auc(self) -> np.ndarray:
        return trapezoid(self.deletion, self.fractions, axis=1)

    @property
    def insertion_auc(self) -> np.ndarray:
        return trapezoid(self.insertion, self.fractions, axis=1)

    @property
    def gap(self) -> np.ndarray:
        """Insertion minus deletion: 0 for an order that says nothing, higher is more faithful."""
        return self.insertion_auc - self.deletion_auc

    def __str__(self) -> str:
        scores = {"deletion": self.deletion_auc, "insertion": self.insertion_auc, "gap": self.gap}
        rows = ((name, *mean_interval(values)) for name, values in scores.items())
        return str(Rows(dict(zip(("score", "mean", "low", "high"), row)) for row in rows))


def deletion_insertion(
    model: nn.Module,
    images: Images,
    maps: np.ndarray,
    targets: Targets = None,
    steps: int = 14,
    fill: str = "blur",
    batch_size: int = 32,
    seed: int = 0,
) -> DeletionInsertion:
    """Take away the hottest tokens first (deletion), or start from nothing and put them in first (insertion).

    Petsiuk et al. 2018 (RISE), in whole patches: half a patch would be a new edge, and a new edge is evidence too.

    Args:
        maps: (N, gh, gw). Ties, so also a whole empty map, are put in random order.
        targets: as in ``grad_cam``; None for the class predicted on the whole image.
        steps: so many equal steps from no token to all. Each costs two forward passes.
        fill: what stands in for a missing patch: 'blur' (Gaussian, sigma one patch) or 'mean' (the image's colour).
    """
    if fill not in ("blur", "mean"):
        raise SwysError(unknown("fill", fill, ("blur", "mean")))
    maps = np.asarray(maps)
    rng = np.random.default_rng(seed)
    order = np.stack([np.lexsort((rng.random(m.size), -m.ravel())) for m in maps])
    ranks = torch.as_tensor(order.argsort(axis=1).reshape(maps.shape))[:, None]  # 0 is the hottest token
    if targets is None:
        targets = _logits(model, images, batch_size).argmax(1)
    targets = torch.as_tensor(targets).long().expand(len(maps))
    fractions = np.linspace(0, 1, steps + 1)
    deletion, insertion = np.empty((2, len(maps), steps + 1))
    with evaluation_mode(model), torch.no_grad():
        for rows, x in _batches(model, images, batch_size):
            patch = x.shape[-1] // maps.shape[-1]
            blank = blurred(x, patch) if fill == "blur" else x.mean((2, 3), keepdim=True)
            classes = targets[rows, None].to(x.device)
            for i, fraction in enumerate(fractions):
                hot = (ranks[rows] < round(fraction * order.shape[1])).float().to(x.device)
                hot = F.interpolate(hot, size=x.shape[-2:], mode="nearest").bool()
                without, only = torch.where(hot, blank, x), torch.where(hot, x, blank)
                for curve, picture in ((deletion, without), (insertion, only)):
                    curve[rows, i] = model(picture).float().softmax(1).gather(1, classes)[:, 0].cpu()
    return DeletionInsertion(fractions, deletion, insertion)


# --- does it find the class, and does it depend on the model? ---


@dataclass(frozen=True)
class Mosaics:
    """Per mosaic: share of the positive map in the target's cell (chance 0.25; nan: empty); is its peak there?"""

    share: np.ndarray
    hit: np.ndarray
    targets: np.ndarray
    cells: np.ndarray

    def __str__(self) -> str:
        scores = {"share": self.share, "peak": np.where(np.isnan(self.share), np.nan, self.hit)}
        rows = ((name, *mean_interval(v), int(np.isnan(v).sum())) for name, v in scores.items())
        return str(Rows(dict(zip(("in target cell", "mean", "low", "high", "empty"), row)) for row in rows))


def make_mosaics(
    images: np.ndarray, labels: np.ndarray, count: int = 100, img_size: int = 224, seed: int = 0
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """2 x 2 mosaics of uint8 images: one of the target class, three of others, each at half the model's size.

    Returns:
        inputs float32 (count, 3, img_size, img_size); target classes (count,), each class in turn; the cell
        (count,) that holds it: 0 1 over 2 3.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(np.unique(labels)) < 2:
        raise SwysError(f"labels of shape {labels.shape}; a mosaic needs one label an image, and two classes or more")
    rng = np.random.default_rng(seed)
    targets = np.resize(np.unique(labels), count)
    cells = rng.integers(0, 4, count)
    picks = np.stack([rng.choice(np.flatnonzero(labels != t), 4) for t in targets])
    picks[np.arange(count), cells] = [rng.choice(np.flatnonzero(labels == t)) for t in targets]
    tiles = to_model_input(np.asarray(images)[picks.ravel()], img_size // 2)
    tiles = tiles.reshape(count, 2, 2, *tiles.shape[1:]).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(count, 3, img_size // 2 * 2, img_size // 2 * 2), targets, cells


def mosaic_pointing(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, method: Method = "grad_cam",
    count: int = 100, batch_size: int = 32, seed: int = 0, **options,
) -> Mosaics:  # fmt: skip
    """Does the map for a class lie on the image of that class? The grid pointing game (Boehle et al. 2021)."""
    inputs, targets, cells = make_mosaics(images, labels, count, model.patch_embed.img_size[0], seed)
    maps = np.maximum(heatmaps(model, inputs, method, targets, batch_size, **options), 0)
    maps = maps.repeat(2, axis=1).repeat(2, axis=2)  # an odd grid has no middle line; doubled, it has one
    half_h, half_w = maps.shape[1] // 2, maps.shape[2] // 2
    quarters = maps.reshape(count, 2, half_h, 2, half_w)
    sums, peaks = quarters.sum((2, 4)).reshape(count, 4), quarters.max((2, 4)).reshape(count, 4)
    total = sums.sum(1)
    share = np.where(total > 0, sums[np.arange(count), cells] / np.where(total > 0, total, 1), np.nan)
    return Mosaics(share, peaks.argmax(1) == cells, targets, cells)


@dataclass(frozen=True)
class Randomisation:
    """Spearman (stages, N) of each image's map with its original; each stage re-initialises one part more."""

    stages: tuple[str, ...]
    spearman: np.ndarray

    def rows(self) -> Rows:
        keys = ("randomised down to", "spearman", "low", "high", "undefined")
        return Rows(
            dict(zip(keys, (stage, *mean_interval(rho), int(np.isnan(rho).sum()))))
            for stage, rho in zip(self.stages, self.spearman)
        )

    def __str__(self) -> str:
        return str(self.rows())


def randomisation_check(
    model: nn.Module, images: Images, method: Method = "grad_cam", batch_size: int = 32, seed: int = 0,
    only_last: bool = False, **options,
) -> Randomisation:  # fmt: skip
    """Cascading randomisation (Adebayo et al. 2018): head, block by block from the top, then the embedding.

    A map that stays the same explains the image, not the model. Works on a copy; the class explained stays the
    one that the trained model predicts. Maps are signed, so that ranks have no tie of zeros.

    Args:
        only_last: measure the last stage alone (nothing trained is left), at a fourteenth of the price for 12 blocks.
    """
    targets = _logits(model, images, batch_size).argmax(1)
    options = {"signed": True} | options
    original = heatmaps(model, images, method, targets, batch_size, **options)
    copy = deepcopy(model)
    names = ("norm", "attn_pool", "fc_norm", "head", "head_dist")
    depth = len(copy.blocks)
    parts = {"head": _present(copy, names)} | {f"block {i}": [copy.blocks[i]] for i in reversed(range(depth))}
    names = ("patch_embed", "norm_pre", "pos_embed", "cls_token", "reg_token", "dist_token")
    parts["embedding"] = _present(copy, names)
    spearman = []
    measured = list(parts)[-1:] if only_last else list(parts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for stage, modules in parts.items():
            for module in modules:
                _reinitialise(module)
            if stage not in measured:
                continue
            maps = heatmaps(copy, images, method, targets, batch_size, **options)
            spearman.append(_spearman(original.reshape(len(maps), -1), maps.reshape(len(maps), -1)))
    return Randomisation(tuple(measured), np.stack(spearman))


def empty_maps(maps: np.ndarray, logits: np.ndarray, class_names: tuple[str, ...] | None = None) -> Rows:
    """How often does ReLU leave nothing? Counted by predicted class and by confidence.

    Args:
        maps: (N, gh, gw), signed or not: empty is a map without a single positive value.
        logits: (N, C) of the same model.
    """
    probabilities = torch.as_tensor(logits).softmax(1).numpy()
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    empty = np.asarray(maps).max(axis=(1, 2)) <= 0
    groups = {("all", "all"): np.ones(len(empty), bool)}
    for c in range(probabilities.shape[1]):
        name = class_names[c] if class_names else str(c)
        for low, high in ((0, 0.8), (0.8, 0.95), (0.95, 1.01)):
            band = f"{low} to {min(high, 1)}" if low else f"below {high}"
            groups[name, band] = (predicted == c) & (confidence >= low) & (confidence < high)
    return Rows(
        {"predicted": name, "confidence": band, "images": int(mask.sum()), "empty": int(empty[mask].sum()),
         "share": float(empty[mask].mean()) if mask.any() else float("nan")}
        for (name, band), mask in groups.items()
    )  # fmt: skip


def rank_methods(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    methods: Mapping[str, Method] | None = None,
    mosaics: int = 100,
    steps: int = 14,
    batch_size: int = 32,
    seed: int = 0,
) -> Rows:
    """Which method deserves the headline? Gap, mosaic share and randomisation of each, best mean rank first.

    Args:
        images, labels: uint8 images and labels (N,), N a sample sensible for the machine.
        methods: name -> method; None for ``METHODS`` and Grad-CAM at two earlier blocks.

    Returns:
        Rows with gap and mosaic share (intervals), randomised (mean absolute Spearman with the map of the fully
        randomised model; lower is better), empty (share of empty maps), rank (not for the two baselines).
    """
    if methods is None:
        depth = len(model.blocks)
        earlier = {f"grad_cam, block {b}": partial(grad_cam, block=b) for b in (depth // 2, 3 * depth // 4)}
        methods = METHODS | earlier
    targets = _logits(model, images, batch_size).argmax(1)

    def gap(maps):
        return deletion_insertion(model, images, maps, targets, steps, batch_size=batch_size, seed=seed).gap

    rows = []
    for name, method in methods.items():
        maps = heatmaps(model, images, method, targets, batch_size)
        pointing = mosaic_pointing(model, images, labels, method, mosaics, batch_size, seed)
        last = randomisation_check(model, images, method, batch_size, seed, only_last=True).spearman[-1]
        empty = (maps.max((1, 2)) <= 0).mean()
        rows.append(_method_row(name, gap(maps), pointing.share, np.abs(last), empty))
    ranks = sum(rankdata([sign * row[key] for row in rows])
                for key, sign in (("gap", -1), ("mosaic", -1), ("randomised", 1))) / 3  # fmt: skip
    ranked = [row | {"rank": float(rank)} for row, rank in zip(rows, ranks)]
    count, grid = len(maps), maps.shape[1:]
    baselines = {"random": random_maps(count, grid, seed), "centre prior": centre_prior_maps(count, grid)}
    nothing = np.full(1, np.nan)
    for name, prior in baselines.items():
        ranked.append(_method_row(name, gap(prior), nothing, nothing, 0.0) | {"rank": float("nan")})
    return Rows(sorted(ranked, key=lambda row: (np.isnan(row["rank"]), row["rank"])))


def _method_row(name, gap, share, randomised, empty) -> dict:
    (g, g_low, g_high), (s, s_low, s_high) = mean_interval(gap), mean_interval(share)
    return {"method": name, "gap": g, "gap low": g_low, "gap high": g_high, "mosaic": s, "mosaic low": s_low,
            "mosaic high": s_high, "randomised": mean_interval(randomised)[0], "empty": float(empty)}  # fmt: skip


def _method(method: Method) -> Callable[..., Tensor]:
    if callable(method):
        return method
    if method not in METHODS:
        raise SwysError(unknown("method", method, METHODS))
    return METHODS[method]


def _logits(model: nn.Module, images: Images, batch_size: int) -> np.ndarray:
    """As ``training.predict``, for model input too: float32 (N, C)."""
    with evaluation_mode(model), torch.no_grad():
        return torch.cat([model(x).float().cpu() for _, x in _batches(model, images, batch_size)]).numpy()


def _batches(model: nn.Module, images: Images, batch_size: int) -> Iterator[tuple[slice, Tensor]]:
    """(rows, model input on the model's device), batch by batch."""
    device = next(model.parameters()).device
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        batch = torch.as_tensor(images[rows])
        if batch.dtype == torch.uint8:
            yield rows, to_model_input(batch, model.patch_embed.img_size[0], device)
        else:
            yield rows, batch.to(device)


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row-wise Spearman correlation of (N, T) arrays; ties get their mean rank, a constant row gives nan."""
    a, b = (rankdata(x, axis=1) for x in (a, b))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.where(scale > 0, (a * b).sum(1) / np.where(scale > 0, scale, 1), np.nan)


def _strongest(values: np.ndarray, top: float) -> np.ndarray:
    """Which tokens are among the ``top`` share of their row? bool (N, T); the tied lowest value never is."""
    kept = max(1, round(top * values.shape[1]))
    threshold = np.partition(values, -kept, axis=1)[:, -kept, None]
    return (values >= threshold) & (values > values.min(1, keepdims=True))


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, 3, H, W), one axis at a time, edges repeated."""
    reach = int(2 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    for _ in range(2):
        x = F.pad(x, (reach, reach, 0, 0), mode="replicate")
        x = F.conv2d(x, kernel, groups=x.shape[1]).transpose(2, 3)
    return x


def _present(model: nn.Module, names: tuple[str, ...]) -> list[nn.Module | Tensor]:
    """Those of a model's parts that it has: one kind of ViT has tokens or heads that another lacks."""
    return [part for name in names if (part := getattr(model, name, None)) is not None]


def _reinitialise(part: nn.Module | Tensor) -> None:
    """Weights as before training: torch's own reset, then timm's for the linear layers and tokens of a ViT."""
    if isinstance(part, Tensor):
        nn.init.trunc_normal_(part, std=0.02)
        return
    for module in part.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        init_weights_vit_timm(module)
