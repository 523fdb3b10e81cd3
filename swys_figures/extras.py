"""Figures of extras 9 and 10: eight kinds of blood cells, and a spot whose place is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from swys_utils.gradcam import overlay
from swys_utils.metrics import bootstrap_interval, mean_interval
from swys_utils.plots import GREY, colour, heatmap_rows

from .data import show_image
from .rows import name_rows

OUTLINE = "#00E5FF"  # of what a heatmap should find; no model has this colour
BASELINES = {"even": "black", "bump": GREY}  # maps that do not use the model -> colour


def class_tables(tables: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Tables with a row for each true class; the diagonal has numbers but no colour.

    Args:
        tables: title -> shares in [0, 1], float (C, C).
        names: of the C classes.
    """
    figure, axes = plt.subplots(
        1, len(tables), figsize=(8.8, 4.7), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (title, shares) in zip(axes[0], tables.items()):
        percent = 100 * np.asarray(shares)
        off_diagonal = np.where(
            np.eye(len(names), dtype=bool),
            np.nan,
            percent,
        )
        ax.imshow(off_diagonal, cmap="Blues", vmin=0, vmax=50)
        for true, other in np.argwhere(percent.round() >= 1):
            value = percent[true, other]
            shade = "white" if true != other and value > 30 else "black"
            ax.text(
                other,
                true,
                f"{value:.0f}",
                ha="center",
                va="center",
                color=shade,
                fontsize=9,
            )
        ax.set_title(title, fontsize=11, loc="left")
        ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes[0, 0].set(
        yticks=range(len(names)),
        yticklabels=names,
        ylabel="true class",
    )
    return figure


def soft_targets_figure(
    image: np.ndarray,
    maps: np.ndarray,
    names: Sequence[str],
    probabilities: Mapping[float, np.ndarray],
) -> Figure:
    """An image with a heatmap for each of some classes, and the probabilities of its best ones.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        maps: float (M, gh, gw), >= 0, of the first M classes.
        names: of K classes, the most probable first; K >= M.
        probabilities: temperature -> float (K,) in [0, 1].
    """
    ratios = [1] * (len(maps) + 1) + [2]
    figure, axes = plt.subplots(
        1,
        len(ratios),
        figsize=(9, 2.7),
        width_ratios=ratios,
    )
    figure.set_layout_engine("constrained")
    show_image(axes[0], image)
    axes[0].set_title("the cell", fontsize=10)
    pictures = overlay(
        np.stack([image] * len(maps)),
        maps,
        alpha=0.6,
        size=224,
    )
    for ax, picture, name in zip(axes[1:], pictures, names):
        show_image(ax, picture)
        ax.set_title(f"heat for\n{name}", fontsize=10)
    _draw_softened(axes[-1], names, probabilities)
    return figure


def _draw_softened(
    ax: Axes, names: Sequence[str], probabilities: Mapping[float, np.ndarray]
) -> None:
    """A dot for each class and temperature, lighter the softer it is."""
    shades = np.linspace(0.9, 0.4, len(probabilities))
    greens = plt.get_cmap("Greens")(shades)
    for (temperature, values), green in zip(probabilities.items(), greens):
        (dots,) = ax.plot(
            100 * values,
            range(len(names)),
            "o",
        )
        dots.set(color=green, markersize=9, label=f"T = {temperature:g}")
    ax.set(xlabel="probability (%)", xlim=(0, None))
    name_rows(ax, names)
    ax.legend(
        frameon=False,
        ncols=3,
        loc="lower center",
        bbox_to_anchor=(0.4, 1),
    )


def gain_figure(taught: np.ndarray, alone: np.ndarray, counts: Sequence[int]) -> Figure:
    """How many points one student is better than another, by the first of so many test images.

    Args:
        taught: whether the answer to each image is right, bool (N,).
        alone: the same of the other student.
        counts: numbers of images, at most N each.
    """
    figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    gain = 100 * (taught.astype(float) - alone)
    for place, count in enumerate(counts):
        mean = gain[:count].mean()
        variances = taught[:count].var() + alone[:count].var()
        half = 196 * np.sqrt(variances / count)
        unpaired = ax.errorbar(place + 0.15, mean, half, color=GREY, capsize=4)
        low, high = bootstrap_interval(np.mean, gain[:count])
        around = [[mean - low], [high - mean]]
        paired = ax.errorbar(
            place,
            mean,
            around,
            fmt="o",
            color=colour("answers"),
            lw=3,
        )
    ax.axhline(0, color="black", lw=1)
    ax.set_xticks(range(len(counts)), [str(count) for count in counts])
    ax.set(xlabel="number of test images", ylabel="gain from the teacher (points)")
    _name_beside(ax, paired, "paired", side=-1)
    _name_beside(ax, unpaired, "not paired", side=1)
    return figure


def _name_beside(ax: Axes, bar: ErrorbarContainer, name: str, side: int) -> None:
    """Write a name left (side -1) or right (1) of the upper end of an interval."""
    _, _, (interval,) = bar
    place, top = interval.get_segments()[0].max(axis=0)
    align = "right" if side < 0 else "left"
    ax.annotate(
        name,
        (place, top),
        (7 * side, 0),
        textcoords="offset points",
        color=interval.get_color(),
        ha=align,
        va="top",
    )


def outlined(images: np.ndarray, regions: Mapping[str, np.ndarray]) -> Figure:
    """Images in a row, with the borders of some regions.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        regions: colour -> bool (N, H, W).
    """
    figure, axes = plt.subplots(
        1,
        max(len(images), 1),
        figsize=(9, 1.35),
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    for index, (ax, image) in enumerate(zip(axes[0], images)):
        show_image(ax, image)
        for shade, masks in regions.items():
            _outline(ax, masks[index], shade)
    return figure


def _outline(ax: Axes, mask: np.ndarray, shade: str = OUTLINE) -> None:
    """The border of a region, also over a picture with more pixels than the mask."""
    if not mask.any():
        return
    rows, columns = ax.images[0].get_size()
    x = np.linspace(0, columns - 1, mask.shape[1])
    y = np.linspace(0, rows - 1, mask.shape[0])
    border = ax.contour(x, y, mask, [0.5])
    border.set(edgecolor=shade, linewidth=1.2)


def shares_figure(
    shares: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, names: Sequence[str]
) -> Figure:
    """How much of a map lies on a region, by class and for all images, with 95 % intervals.

    Args:
        shares: region -> kind of map -> share of each image, float (N,) in [0, 1].
        labels: class of each image, int (N,).
        names: of the classes.
    """
    figure, axes = plt.subplots(
        1,
        len(shares),
        figsize=(9, 4),
        sharey=True,
        squeeze=False,
    )
    figure.set_layout_engine("constrained")
    members = [labels == number for number in range(len(names))]
    members.append(np.full(len(labels), True))
    for ax, (region, by_kind) in zip(axes[0], shares.items()):
        for kind, values in by_kind.items():
            for place, chosen in enumerate(members):
                _draw_share(ax, place, kind, values[chosen])
        ax.set(xlabel=f"share of the map on the {region}", xlim=(0, 1))
    name_rows(axes[0, 0], [*names, "all"])
    handles, kinds = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(kinds, handles))
    figure.legend(
        unique.values(),
        unique,
        loc="outside upper center",
        ncols=3,
        frameon=False,
    )
    return figure


def _draw_share(ax: Axes, place: int, kind: str, values: np.ndarray) -> None:
    """The mean of one class and its interval, by the marker and the colour of a kind of map."""
    marker = {"even": "|", "bump": "o"}.get(kind, "D")
    shade = BASELINES.get(kind, colour(kind))
    mean, low, high = mean_interval(values)
    (interval,) = ax.plot(
        [low, high],
        [place, place],
        color=shade,
    )
    interval.set(linewidth=3, alpha=0.4)
    (dot,) = ax.plot(
        mean,
        place,
        marker,
        color=shade,
        label=kind,
    )
    dot.set(markersize=9, markeredgewidth=2)


def sharp_and_coarse(images: np.ndarray, maps: np.ndarray) -> Figure:
    """Heatmaps over their images, and below each the map as it is, one value for each patch.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        maps: float (N, gh, gw), >= 0.
    """
    figure, axes = plt.subplots(
        2,
        len(images),
        figsize=(7, 3.6),
        dpi=72,
        layout="constrained",
        squeeze=False,
    )
    plt.setp(axes, xticks=[], yticks=[])
    for ax in axes.flat:
        ax.spines[:].set_visible(False)
    pictures = overlay(images, maps, alpha=0.8)
    for above, below, picture, heat in zip(*axes, pictures, maps):
        above.imshow(picture)
        below.imshow(heat, cmap="inferno", vmin=0, vmax=max(heat.max(), 1e-30))
    axes[0, 0].set_ylabel("over the image")
    axes[1, 0].set_ylabel(f"the map, {maps.shape[1]} x {maps.shape[2]}")
    return figure


def spots_figure(
    images: np.ndarray,
    spots: np.ndarray,
    maps: Mapping[str, np.ndarray],
    hits: Mapping[str, np.ndarray],
) -> Figure:
    """Images with a spot, and a row of heatmaps for each model; the spot is outlined in all.

    Args:
        images: uint8 (N, H, W).
        spots: where the spot is, bool (N, H, W).
        maps: model -> float (N, gh, gw), >= 0.
        hits: model -> whether each map finds the spot, bool (N,).
    """
    captions = {}
    for name, found in hits.items():
        captions[name] = ["hit" if one else "miss" for one in found]
    titles = [f"image {number + 1}" for number in range(len(images))]
    figure = heatmap_rows(images, maps, captions, titles)
    for index, ax in enumerate(figure.axes):
        _outline(ax, spots[index % len(images)])
    return figure


def hits_figure(hits: Mapping[str, Mapping[str, float]], chance: float) -> Figure:
    """In what share of the images each way to explain finds the spot, for each model.

    Args:
        hits: model -> way to explain -> share in [0, 1]; at most four models.
        chance: share for a patch that is drawn at random.
    """
    figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
    markers = ["o", "D", "s", "^"]
    for (name, shares), marker in zip(hits.items(), markers[: len(hits)], strict=True):
        percent = [100 * share for share in shares.values()]
        ax.plot(
            percent, list(shares), marker, ms=10, mew=2, mfc="none", color=colour(name), label=name
        )
    ax.axvline(
        100 * chance,
        color=GREY,
        lw=1,
        ls="--",
        label="a random patch",
    )
    ax.set(xlabel="hottest patch touches the spot (% of images)", xlim=(-3, 103))
    ax.set_ylim(len(next(iter(hits.values()))) - 0.5, -0.5)
    figure.legend(frameon=False, loc="outside upper center", ncols=3)
    return figure
