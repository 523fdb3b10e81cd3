"""The figures of the series. Each function draws one figure and returns it; a model has the same colour everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.metrics import confusion_matrix

from .benchmark import Roofs
from .data import Dataset, Split
from .gradcam import overlay
from .ladder import Rung
from .stats import t_interval
from .study import HEADLINE, group_means
from .training import Metrics

MODEL_COLOURS = {"Base": "#4C72B0", "Tiny": "#DD8452", "KD Tiny": "#55A868"}
OTHER_COLOURS = ("#8172B3", "#937860", "#DA8BC3", "#8C8C8C", "#CCB974", "#64B5CD")

_RUNG_NAMES = {"alone": "student alone (floor)", "soft targets": "soft targets", "features": "features",
               "maps": "soft targets and maps", "another teacher": "another teacher (ceiling)"}  # fmt: skip
_RUNG_COLOURS = dict(zip(_RUNG_NAMES.values(), ("#DD8452", "#937860", "#64B5CD", "#DA8BC3", "#4C72B0")))

plt.rcParams.update({"figure.dpi": 90, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})


def colour(name: str, position: int = 0) -> str:
    """The colour of a model, the same in every figure; other names get one by position."""
    for known in ("KD Tiny", "Tiny", "Base"):
        if name.startswith(known):
            return MODEL_COLOURS[known]
    return OTHER_COLOURS[position % len(OTHER_COLOURS)]


def _show(ax, image: np.ndarray, title: str = "") -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    ax.set_title(title, fontsize=9)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _short(name: str, width: int = 16) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


# --- data ------------------------------------------------------------------------------------------------------


def examples(split: Split, class_names: Sequence[str], per_class: int = 8) -> Figure:
    """A row of images for each class (the first ``per_class`` of the split that show it)."""
    fig, axes = plt.subplots(
        len(class_names), per_class, figsize=(1.05 * per_class + 1, 1.1 * len(class_names)), squeeze=False
    )
    for label, row in enumerate(axes):
        has = split.labels[:, label] == 1 if split.labels.ndim == 2 else split.labels == label
        for ax, image in zip(row, split.images[np.flatnonzero(has)[:per_class]]):
            _show(ax, image)
        for ax in row:
            ax.set_axis_off()
        row[0].text(-0.15, 0.5, _short(class_names[label]), transform=row[0].transAxes, ha="right", va="center")
    return fig


def class_shares(data: Dataset) -> Figure:
    """Share of each class in the three splits: what a model learns about frequency, and where it will not hold."""
    names, splits = data.info.class_names, {"train": data.train, "val": data.val, "test": data.test}
    height = 0.3 * 3 * len(names) * (0.6 if len(names) > 4 else 1) + 0.9
    fig, ax = plt.subplots(figsize=(8, height))
    for i, (split_name, split) in enumerate(splits.items()):
        labels = split.labels if split.labels.ndim == 2 else np.eye(len(names))[split.labels]
        places = np.arange(len(names)) + (i - 1) * 0.27
        bars = ax.barh(places, labels.mean(axis=0), 0.25, label=split_name, color=("#8C8C8C", "#C7C7C7", "#C44E52")[i])
        ax.bar_label(bars, fmt="{:.0%}", padding=3, fontsize=8)
    ax.set_yticks(range(len(names)), [_short(n, 30) for n in names])
    ax.invert_yaxis()
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    ax.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    ax.set_title("share of each class", loc="left")
    return fig


def patch_grid(image: np.ndarray, enlarged: np.ndarray, patch: int = 16) -> Figure:
    """The stored image beside what the model reads, with the model's patches drawn in.

    Args:
        image: uint8 (H, W[, 3]). enlarged: float (3, S, S) in [-1, 1].
    """
    size = enlarged.shape[-1]
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.5), width_ratios=[1, 1, 1])
    _show(axes[0], image, f"stored: {image.shape[0]} x {image.shape[1]} pixels")
    picture = ((np.asarray(enlarged) + 1) * 127.5).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    _show(axes[1], picture, f"read: {size} x {size}, {(size // patch) ** 2} patches of {patch} px")
    for at in range(0, size + 1, patch):
        axes[1].axhline(at - 0.5, color="#FFD23F", lw=0.6)
        axes[1].axvline(at - 0.5, color="#FFD23F", lw=0.6)
    tiles = [(picture[y : y + patch, x : x + patch], x, y)
             for y in range(0, size, patch) for x in range(0, size, patch)]  # fmt: skip
    tile, x, y = max(tiles, key=lambda entry: entry[0].std())
    axes[1].add_patch(plt.Rectangle((x - 0.5, y - 0.5), patch, patch, fill=False, ec="#C44E52", lw=2.5))
    real = image.shape[0] * patch / size
    _show(axes[2], tile, f"the red patch: {real:g} x {real:g} real pixels")
    return fig


def brightness_shift(data: Dataset) -> Figure:
    """Distribution of each image's mean brightness and contrast, in the three splits."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3))
    statistics = {"mean of an image (grey levels)": np.mean, "standard deviation within an image (grey levels)": np.std}
    for ax, (title, statistic) in zip(axes, statistics.items()):
        values = [statistic(s.images.reshape(len(s), -1), axis=1) for s in (data.train, data.val, data.test)]
        bins = np.linspace(min(v.min() for v in values), max(v.max() for v in values), 31)
        for v, name, c in zip(values, ("train", "val", "test"), ("#8C8C8C", "#C7C7C7", "#C44E52")):
            filled = name == "train"
            ax.hist(v, bins, density=True, label=name, color=c, histtype="stepfilled" if filled else "step",
                    lw=2, alpha=0.5 if filled else 1)  # fmt: skip
        ax.set_xlabel(title)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    axes[0].legend(frameon=False)
    return fig


# --- training and scores ---------------------------------------------------------------------------------------


def live_loss(losses: Sequence[float], name: str) -> Figure:
    """Training loss by step, raw and smoothed."""
    losses = np.asarray(losses)
    fig, ax = plt.subplots(figsize=(7, 2.6))
    ax.plot(np.arange(1, len(losses) + 1), losses, color=colour(name), alpha=0.35, lw=1)
    if len(losses) >= 10:
        width = max(3, len(losses) // 10)
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        ax.plot(np.arange(width, len(losses) + 1), smooth, color=colour(name), lw=2, label=f"mean of {width} steps")
        ax.legend(frameon=False)
    ax.set(xlabel="step", ylabel="training loss", title=f"{name}: trained here, now")
    return fig


def training_curves(history: Sequence[Mapping], name: str) -> Figure:
    """Loss and validation accuracy by epoch, with the validation-chosen epoch marked."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3))
    epochs = [row["epoch"] for row in history]
    axes[0].plot(
        epochs, [row["train_loss"] for row in history], color=colour(name), ls="--", label="training (augmented)"
    )
    axes[0].plot(epochs, [row["val_loss"] for row in history], color=colour(name), label="validation")
    axes[0].set(xlabel="epoch", ylabel="loss")
    axes[0].legend(frameon=False)
    accuracy = [100 * row["val_accuracy"] for row in history]
    best = max(history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    axes[1].plot(epochs, accuracy, color=colour(name))
    axes[1].plot(best["epoch"], 100 * best["val_accuracy"], "o", color="k", mfc="none")
    axes[1].annotate(f"chosen by validation: epoch {best['epoch']}", (best["epoch"], 100 * best["val_accuracy"]),
                     xytext=(0, -22), textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    axes[1].set(xlabel="epoch", ylabel="validation accuracy (%)")
    fig.suptitle(f"{name}: {len(history)} epochs of the reference run", x=0.05, ha="left")
    fig.tight_layout()
    return fig


def intervals(scores: Mapping[str, Metrics], reference: Mapping[str, float] | None = None) -> Figure:
    """Accuracy, AUC and ECE of each model as a point with its 95 % interval: do the intervals part?

    Args:
        reference: name -> accuracy of points without an interval (for example a baseline), drawn as crosses.
    """
    fields = [("accuracy", "accuracy (%)", 100), ("auc", "AUC", 1), ("ece", "ECE (lower is better)", 1)]
    fig, axes = plt.subplots(1, 3, figsize=(10, 0.45 * len(scores) + 1.1), sharey=True)
    for ax, (key, title, factor) in zip(axes, fields):
        for i, (name, metrics) in enumerate(scores.items()):
            value = getattr(metrics, key) * factor
            low, high = (factor * v for v in getattr(metrics, f"{key}_interval"))
            ax.plot([low, high], [i, i], color=colour(name, i), lw=3, alpha=0.5, solid_capstyle="butt")
            ax.plot(value, i, "o", color=colour(name, i))
            text = f"{value:.1f}" if factor == 100 else f"{value:.3f}"
            ax.annotate(text, (value, i), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8)
        ax.set_xlabel(title)
        ax.margins(y=0.25)
    for name, value in (reference or {}).items():
        axes[0].axvline(100 * value, color="#8C8C8C", ls=":", lw=1)
        axes[0].annotate(name, (100 * value, 0.5), xytext=(3, 0), xycoords=("data", "axes fraction"),
                         textcoords="offset points", fontsize=8, color="#666666", va="center")  # fmt: skip
    axes[0].set_yticks(range(len(scores)), list(scores))
    axes[0].invert_yaxis()
    fig.tight_layout()
    return fig


def confusion(labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], title: str = "") -> Figure:
    """Confusion matrix: counts, coloured by share of the true class."""
    matrix = confusion_matrix(labels, predicted, labels=range(len(class_names)))
    share = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    side = 1.7 + 0.62 * len(class_names)
    fig, ax = plt.subplots(figsize=(side + 0.8, side))
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(matrix.shape):
        ink = "white" if share[i, j] > 0.5 else "black"
        ax.text(j, i, f"{matrix[i, j]}\n{share[i, j]:.0%}" if matrix[i, j] else "0", ha="center", va="center",
                color=ink, fontsize=8 if len(class_names) > 4 else 10)  # fmt: skip
    names = [_short(name, 14) for name in class_names]
    ax.set_xticks(
        range(len(names)), names, rotation=45 if len(names) > 2 else 0, ha="right" if len(names) > 2 else "center"
    )
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true", title=title)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return fig


def reliability(probabilities: Mapping[str, np.ndarray], labels: np.ndarray, n_bins: int = 10) -> Figure:
    """Reliability diagram (Guo et al. 2017): of the images predicted with 80 % confidence, are 80 % right?

    Args:
        probabilities: name -> (N, C). labels: int (N,). Bins with fewer than 5 images are left out.
    """
    fig, (ax, low) = plt.subplots(2, 1, figsize=(4.6, 5), height_ratios=[3, 1], sharex=True)
    edges = np.linspace(0, 1, n_bins + 1)
    for name, p in probabilities.items():
        confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
        bins = np.digitize(confidence, edges[1:-1])
        kept = [b for b in range(n_bins) if (bins == b).sum() >= 5]
        ax.plot([confidence[bins == b].mean() for b in kept], [correct[bins == b].mean() for b in kept],
                "o-", color=colour(name), label=name)  # fmt: skip
        low.hist(confidence, edges, histtype="step", color=colour(name), lw=1.5)
    ax.plot([0, 1], [0, 1], color="#8C8C8C", ls=":", label="perfectly calibrated")
    ax.set(ylabel="share that is right", xlim=(1 / p.shape[1] * 0.95, 1.01), ylim=(0, 1.03))
    ax.legend(frameon=False, loc="lower right")
    low.set(xlabel="confidence (largest probability)", ylabel="images")
    return fig


# --- heatmaps --------------------------------------------------------------------------------------------------


def heatmap_rows(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    captions: Mapping[str, Sequence[str]],
    titles: Sequence[str],
    scale: str | float = "image",
    alpha: float = 0.6,
) -> Figure:
    """One column an image, one row a model: the image, then each model's heatmap over it.

    Args:
        images: uint8 (N, H, W[, 3]). maps: model -> (N, gh, gw), unnormalised. captions: model -> N lines.
        titles: N lines above the images. scale: as in ``gradcam.overlay``, or "model": one scale for all maps of a
            model, so that weak maps stay weak. An empty map is said to be empty.
    """
    n = len(images)
    fig, axes = plt.subplots(len(maps) + 1, n, figsize=(1.25 * n + 0.9, 1.65 * (len(maps) + 1)), squeeze=False)
    for ax, image, title in zip(axes[0], images, titles):
        _show(ax, image, title)
    for row, (name, heat) in zip(axes[1:], maps.items()):
        strongest = float(np.max(heat)) or 1.0
        drawn = overlay(images, heat, alpha, scale=strongest if scale == "model" else scale, size=112)
        for ax, picture, one, caption in zip(row, drawn, heat, captions[name]):
            _show(ax, picture)
            ax.set_xlabel(caption, fontsize=8)
            if np.asarray(one).max() <= 0:
                ax.text(0.5, 0.5, "empty map", color="white", fontsize=8, ha="center", va="center",
                        transform=ax.transAxes, bbox={"color": "black", "alpha": 0.6})  # fmt: skip
        row[0].set_ylabel(name, color=colour(name), fontsize=11)
    fig.tight_layout(h_pad=1.2, w_pad=0.3)
    return fig


# --- the shrink ------------------------------------------------------------------------------------------------


def pareto(rungs: Sequence[Rung]) -> Figure:
    """Latency against accuracy with its interval; area: bytes on disk; colour: heatmap agreement with the first rung.

    Left is faster. Rungs that were scored on a part of the images only are left out: another sample is no comparison.
    """
    n = max(r.n for r in rungs)
    rungs = [r for r in rungs if r.measured and r.n == n]
    fig, ax, side = _with_key(10.5, 5.4)
    x, y = [r.latency_ms for r in rungs], [100 * r.accuracy for r in rungs]
    ax.vlines(x, [100 * r.accuracy_low for r in rungs], [100 * r.accuracy_high for r in rungs], color="#CCCCCC", lw=1.5)
    alike = [1.0 if math.isnan(r.like_first) else r.like_first for r in rungs]
    areas = [20 + 6 * r.disk_bytes / 1e6 for r in rungs]  # the smallest large enough to be seen
    points = ax.scatter(x, y, s=areas, c=alike, cmap="viridis", vmin=0, vmax=1,
                        ec="white", lw=0.8, zorder=3)  # fmt: skip
    fig.colorbar(points, ax=ax, location="bottom", shrink=0.6, aspect=40,
                 label=f"looks where {rungs[0].name} looks (rank correlation)")  # fmt: skip
    ax.set(xscale="log", xlabel="latency of one image (ms, log scale): left is faster", ylabel="test accuracy (%)")
    _plain_log(ax.xaxis)
    ax.margins(x=0.12, y=0.12)
    _numbered(ax, side, x, y, [f"{r.name}, {r.disk_bytes / 1e6:.3g} MB" for r in rungs])
    return fig


def roofline(rungs: Sequence[Rung], roofs: Roofs) -> Figure:
    """Where each rung stands below what the machine can do (Williams et al. 2009): filled one image, hollow best batch.

    Intensity counts the bytes of the weights alone, so it is an upper bound. The full line is float32's; int8 may
    lie above bfloat16's, too.
    """
    rungs = [r for r in rungs if r.measured]
    fig, ax, side = _with_key(10.5, 5)
    x, y = [r.intensity for r in rungs], [r.gflops for r in rungs]
    low, high = min(roofs.ridge / 4, *x) / 1.5, max(r.intensity * r.batch for r in rungs) * 2
    ends = np.array([low, roofs.ridge, high])
    ax.plot(ends, np.minimum(roofs.gflops, ends * roofs.gbytes), color="black", lw=2)
    ax.annotate(f"memory: {roofs.gbytes:.3g} GB/s", (low, low * roofs.gbytes), xytext=(10, -2),
                textcoords="offset points", va="top", fontsize=9)  # fmt: skip
    for rate, precision in ((roofs.gflops, "float32"), (roofs.gflops_bf16, "bfloat16")):
        if not math.isnan(rate):
            if precision == "bfloat16":
                ax.plot([rate / roofs.gbytes, high], [rate, rate], color="black", lw=1, ls="--")
            ax.annotate(f"arithmetic, {precision}: {rate:.3g} GFLOP/s", (roofs.ridge, rate), xytext=(14, 4),
                        textcoords="offset points", fontsize=9)  # fmt: skip
    marks = {"fp32": "o", "bf16": "s", "int8": "^", "int4": "v"}
    for r in rungs:
        c, many = colour(r.name), (r.intensity * r.batch, 2 * r.macs * r.throughput / 1e9)
        ax.plot([r.intensity, many[0]], [r.gflops, many[1]], color=c, lw=0.8, alpha=0.5)
        ax.plot(*many, marks[r.precision], color=c, mfc="white", ms=7)
        ax.plot(r.intensity, r.gflops, marks[r.precision], color=c, ms=8)
    for precision, mark in marks.items():
        ax.plot([], [], mark, color="#777777", label=precision)
    ax.legend(frameon=False, loc="lower right", ncols=len(marks))
    ax.set(xscale="log", yscale="log", xlim=(low, high), xlabel="operations for each byte of weights (log scale)",
           ylabel="GFLOP/s achieved (log scale)")  # fmt: skip
    ax.margins(y=0.15)
    for axis in (ax.xaxis, ax.yaxis):
        _plain_log(axis)
    _numbered(ax, side, x, y, [r.name for r in rungs])
    return fig


def _plain_log(axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _with_key(width: float, height: float) -> tuple[Figure, Axes, Axes]:
    """A figure, its axes, and an empty stretch to the right of them for the key of ``_numbered``."""
    fig, (ax, side) = plt.subplots(1, 2, figsize=(width, height), width_ratios=(3, 1), layout="constrained")
    side.set_axis_off()
    return fig, ax, side


def _numbered(ax: Axes, side: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[str]) -> None:
    """A number at each point, counted from left to right, and what it stands for in ``side``.

    Points that nearly coincide share one label.
    """
    ax.figure.draw_without_rendering()  # places on the paper are known from here on
    order = np.lexsort((y, x))
    places = ax.transData.transform(np.column_stack([x, y]))
    groups: list[list[int]] = []
    for i in order:
        near = next((g for g in groups if np.abs(places[g[0]] - places[i]).max() < 16), None)
        if near is None:
            groups.append([i])
        else:
            near.append(i)
    number = {i: n for n, i in enumerate(order, start=1)}
    for g, group in enumerate(groups):  # neighbours take turns above and below, so that labels keep clear
        ax.annotate(", ".join(str(number[i]) for i in group), (x[group[0]], y[group[0]]),
                    xytext=(8, -14 if g % 2 else 6), textcoords="offset points", fontsize=9,
                    fontweight="bold")  # fmt: skip
    short = [names[i].replace(", ONNX Runtime", " ONNX").replace(", PyTorch", " PyTorch") for i in order]
    key = "\n".join(f"{n:2}  {name}" for n, name in enumerate(short, start=1))
    side.text(0, 1, key, va="top", fontsize=8.5, linespacing=1.6, transform=side.transAxes)


def agreement_ladder(rows: Sequence[Mapping]) -> Figure:
    """Heatmap agreement of each pair as a point with its interval, its chance level (shuffled images) as a cross.

    Args:
        rows: as from ``explain.agreement_ladder``; rows whose pair ends in ", shuffled" are chance levels.
    """
    pairs = [row for row in rows if not row["pair"].endswith(", shuffled")]
    chance = {row["pair"].removesuffix(", shuffled"): row["spearman"] for row in rows if row not in pairs}
    fig, ax = plt.subplots(figsize=(8, 0.6 * len(pairs) + 1.2))
    for i, row in enumerate(pairs):
        c = colour(row["pair"], i)
        ax.plot([row["low"], row["high"]], [i, i], color=c, lw=4, alpha=0.5, solid_capstyle="butt")
        ax.plot(row["spearman"], i, "o", color=c, ms=8)
        ax.annotate(
            f"{row['spearman']:.2f}", (row["spearman"], i), xytext=(0, 9), textcoords="offset points", ha="center"
        )
        if row["pair"] in chance:
            ax.plot(
                chance[row["pair"]], i, "x", color="#555555", ms=8, label="chance: images shuffled" if i == 0 else None
            )
    ax.axvline(0, color="#CCCCCC", lw=1, zorder=0)
    ax.set_yticks(range(len(pairs)), [row["pair"] for row in pairs])
    ax.invert_yaxis()
    ax.margins(y=0.3)
    ax.set_xlabel("agreement of heatmaps (Spearman's rank correlation over patches)")
    ax.legend(frameon=False, loc="lower right")
    fig.tight_layout()
    return fig


def randomisation(curves: Mapping[str, Sequence[Mapping]]) -> Figure:
    """Similarity of the maps with those of the trained model, as more and more of it is re-initialised.

    Args:
        curves: model -> rows as from ``Randomisation.rows``. A line that stays up belongs to maps that do not need
            the model.
    """
    fig, ax = plt.subplots(figsize=(8, 3.2))
    for i, (name, rows) in enumerate(curves.items()):
        stages = ["trained", *(row["randomised down to"] for row in rows)]
        mean, low, high = ([1.0, *(row[key] for row in rows)] for key in ("spearman", "low", "high"))
        ax.plot(range(len(stages)), mean, "o-", color=colour(name, i), ms=4, label=name)
        ax.fill_between(range(len(stages)), low, high, color=colour(name, i), alpha=0.2, lw=0)
    ax.axhline(0, color="#8C8C8C", ls=":", lw=1)
    ax.set_xticks(range(len(stages)), stages, rotation=40, ha="right", fontsize=8)
    ax.set(xlabel="re-initialised from the head down to", ylabel="rank correlation with\nthe trained model's maps")
    ax.legend(frameon=False)
    fig.tight_layout()
    return fig


def method_ranking(rows: Sequence[Mapping], name: str) -> Figure:
    """Faithfulness, localisation and dependence on the model of each heatmap method, best mean rank on top.

    Args:
        rows: as from ``explain.rank_methods``. name: the model's, for the title and the colour.
    """
    measures = [
        ("gap", "insertion - deletion\n(higher: more faithful)"),
        ("mosaic", "share on the right tile of a mosaic\n(chance 0.25)"),
        ("randomised", "similarity to a random model's map\n(lower: needs the model)"),
    ]
    fig, axes = plt.subplots(1, 3, figsize=(10, 0.38 * len(rows) + 1.3), sharey=True)
    for ax, (key, title) in zip(axes, measures):
        for y, row in enumerate(rows):
            c = "#8C8C8C" if np.isnan(row["rank"]) else colour(name)
            low, high = row.get(f"{key} low", row[key]), row.get(f"{key} high", row[key])
            ax.plot([low, high], [y, y], color=c, lw=3, alpha=0.5, solid_capstyle="butt")
            ax.plot(row[key], y, "o", color=c)
        ax.set_xlabel(title, fontsize=9)
    axes[0].axvline(0, color="#8C8C8C", ls=":", lw=1)
    axes[1].axvline(0.25, color="#8C8C8C", ls=":", lw=1)
    axes[2].set_xlim(left=0)
    axes[0].set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes[0].invert_yaxis()
    fig.suptitle(name, x=0.02, ha="left", color=colour(name))
    fig.tight_layout()
    return fig


def agreement_by_method(ladders: Mapping[str, Sequence[Mapping]]) -> Figure:
    """Does the comparison of two students turn out the same way for every method, class and group of images?

    Args:
        ladders: what -> rows of one pair each with ``pair``, ``spearman``, ``low``, ``high``; points of one line are
            joined, so that the direction of the difference is seen first.
    """
    fig, ax = plt.subplots(figsize=(8, 0.42 * len(ladders) + 1.2))
    for y, rows in enumerate(ladders.values()):
        ax.plot([row["spearman"] for row in rows], [y] * len(rows), color="#BBBBBB", lw=1, zorder=0)
        for i, row in enumerate(rows):
            c = colour(row["pair"], i)
            ax.plot([row["low"], row["high"]], [y, y], color=c, lw=4, alpha=0.45, solid_capstyle="butt")
            ax.plot(row["spearman"], y, "o", color=c, ms=7, label=row["pair"] if y == 0 else None)
    ax.axvline(0, color="#CCCCCC", lw=1, zorder=0)
    ax.set_yticks(range(len(ladders)), list(ladders))
    ax.invert_yaxis()
    ax.margins(y=0.12)
    ax.set_xlabel("agreement of heatmaps with Base's (rank correlation over patches)")
    ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    fig.tight_layout()
    return fig


def ladder_over_runs(studies: Mapping[str, Mapping]) -> Figure:
    """The agreement ladder with one point a run: chance, students alone, taught students, another teacher.

    Args:
        studies: title of a panel -> what ``study.agreement_over_runs`` returns. Line: mean over runs; bar: its 95 % t
            interval, for three runs or more.
    """
    fig, axes = plt.subplots(1, len(studies), figsize=(4.6 * len(studies) + 1.4, 3.2), sharey=True, squeeze=False)
    for ax, (title, study) in zip(axes[0], studies.items()):
        rows, lowest = study["maps"][HEADLINE]["runs"], 0
        rungs = {"chance (images shuffled)": [row["chance"] for row in rows.values()]}
        for run in study["runs"]:
            rungs.setdefault(_RUNG_NAMES[run["group"]], []).append(rows[run["id"]]["spearman"])
        names = [*list(rungs)[:1], *(name for name in _RUNG_NAMES.values() if name in rungs)]
        for y, name in enumerate(names):
            values, c = np.array(rungs[name]), _RUNG_COLOURS.get(name, "#777777")
            if len(values) > 2:
                low, high = t_interval(values)
                ax.barh(y, high - low, left=low, height=0.42, color=c, alpha=0.25, lw=0)
            ax.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color=c, lw=2.5)
            lowest = min(lowest, *values)
            ax.plot(values, [y] * len(values), "o", color=c, ms=5, alpha=0.8, mec="white", mew=0.6)
            ax.annotate(f"{values.mean():.2f}", (values.mean(), y - 0.33), ha="center", va="bottom", fontsize=9)
        ax.axvline(0, color="#CCCCCC", lw=1, zorder=0)
        ax.set_yticks(range(len(names)), names)
        ax.set_xlim(lowest - 0.1, 1)
        ax.set_xlabel("agreement with the teacher's heatmaps\n(rank correlation over patches)")
        ax.set_title(f"{title}, {study['images']} test images", loc="left", fontsize=10)
    axes[0, 0].invert_yaxis()
    fig.tight_layout()
    return fig


def ladder_by_map(studies: Mapping[str, Mapping]) -> Figure:
    """The same ladder's means for every kind of heatmap: does the order of the rungs survive?

    Args:
        studies: as in ``ladder_over_runs``.
    """
    tallest = max(len(study["maps"]) for study in studies.values())
    fig, axes = plt.subplots(1, len(studies), figsize=(5.4 * len(studies), 0.34 * tallest + 1.4), squeeze=False)
    for ax, (title, study) in zip(axes[0], studies.items()):
        for y, part in enumerate(study["maps"].values()):
            means = group_means(study["runs"], {run: row["spearman"] for run, row in part["runs"].items()})
            ax.plot([min(means.values()), max(means.values())], [y, y], color="#DDDDDD", lw=1, zorder=0)
            for group, mean in means.items():
                name = _RUNG_NAMES[group]
                ax.plot(mean, y, "o", color=_RUNG_COLOURS[name], ms=7, label=name if y == 0 else None)
        ax.axvline(0, color="#CCCCCC", lw=1, zorder=0)
        ax.set_yticks(range(len(study["maps"])), [_short(name, 30) for name in study["maps"]], fontsize=8)
        ax.invert_yaxis()
        ax.set_xlabel("agreement with the teacher's heatmaps")
        ax.set_title(title, loc="left", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, ncols=4, fontsize=9, loc="upper center")
    fig.tight_layout(rect=(0, 0, 1, 0.93))
    return fig


def matching(runs: Mapping[str, Mapping], teacher_accuracy: float, retest: float | None = None) -> Figure:
    """Agreement with the teacher against accuracy, one point a run: what did each way of teaching move?

    Args:
        runs: "what was taught, seed n" -> dict with ``spearman`` (mean, low, high) and ``accuracy`` (fraction); the run
            "start" is where all others began.
        teacher_accuracy: drawn as a line. retest: the teacher's agreement with itself under faint noise.
    """
    fig, ax = plt.subplots(figsize=(8, 3.8))
    arms = list(dict.fromkeys(key.split(", seed")[0] for key in runs if key != "start"))
    for i, arm in enumerate(arms):
        points = [run for key, run in runs.items() if key.startswith(f"{arm}, seed")]
        x, y = [run["spearman"][0] for run in points], [100 * run["accuracy"] for run in points]
        for run, height in zip(points, y):
            ax.plot(run["spearman"][1:], [height] * 2, color=OTHER_COLOURS[i], lw=2, alpha=0.4)
        ax.plot(x, y, "o", color=OTHER_COLOURS[i], ms=8, label=f"then taught: {arm} ({len(points)} seeds)")
    start = runs["start"]
    ax.plot(start["spearman"][0], 100 * start["accuracy"], "*k", ms=14, label="Tiny trained alone: the start")
    ax.axhline(100 * teacher_accuracy, color=MODEL_COLOURS["Base"], ls=":", lw=1)
    ax.annotate("Base", (0.005, 100 * teacher_accuracy), color=MODEL_COLOURS["Base"], fontsize=8,
                xycoords=("axes fraction", "data"), xytext=(2, 3), textcoords="offset points")  # fmt: skip
    if retest is not None:
        ax.axvline(retest, color=MODEL_COLOURS["Base"], ls=":", lw=1)
        ax.annotate("Base with itself,\nfaint noise added", (retest, 0.04), color=MODEL_COLOURS["Base"], fontsize=8,
                    xycoords=("data", "axes fraction"), xytext=(-4, 0), textcoords="offset points",
                    ha="right")  # fmt: skip
    ax.set(xlabel="agreement of heatmaps with Base's (rank correlation over patches)", ylabel="test accuracy (%)")
    ax.set_xlim(min(0, ax.get_xlim()[0]), 1.02)
    ax.margins(y=0.3)
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    fig.tight_layout()
    return fig


def kept(
    shares: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, tuple[float, float]]]
) -> Figure:
    """The answer of the series at a glance: what is left of the large model, in per cent, for each small one.

    Args:
        shares: model -> {what: fraction of the large model's}. intervals: the same keys where there is an interval.
    """
    what = list(next(iter(shares.values())))
    fig, ax = plt.subplots(figsize=(8.5, 0.62 * len(what) + 1))
    height = 0.8 / len(shares)
    for i, (name, values) in enumerate(shares.items()):
        places = np.arange(len(what)) + (i - (len(shares) - 1) / 2) * height
        ax.barh(places, [100 * values[w] for w in what], height * 0.9, color=colour(name, i), label=name)
        for place, w in zip(places, what):
            low, high = intervals.get(name, {}).get(w, (values[w], values[w]))
            if high > low:
                ax.plot([100 * low, 100 * high], [place, place], color="black", lw=1.5)
            text = f"{100 * values[w]:.0f} %" + (f"  [{100 * low:.0f}, {100 * high:.0f}]" if high > low else "")
            ax.annotate(text, (100 * max(values[w], high, 0), place), xytext=(5, 0), textcoords="offset points",
                        va="center", fontsize=8)  # fmt: skip
    ax.axvline(100, color="#8C8C8C", ls=":", lw=1)
    ax.set_yticks(range(len(what)), what)
    ax.invert_yaxis()
    ax.set(xlabel="per cent of Base", xlim=(min(0, *(100 * v[w] for v in shares.values() for w in what)), 125))
    ax.legend(frameon=False, loc="upper right", bbox_to_anchor=(0.8, 1))
    fig.tight_layout()
    return fig
