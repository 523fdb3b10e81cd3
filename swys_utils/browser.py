"""Step through images and see what each model says, where it looks, and how far the models agree.

`GradCAMBrowser` is an ipywidgets box for JupyterLab, Colab and VS Code. Everything is computed beforehand,
so a move only blends and encodes a few small pictures. The same content goes into one self-contained web page
with `to_html` and, for places that run neither, into a static figure with `contact_sheet`.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from textwrap import shorten

import ipywidgets as widgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm
from traitlets import Unicode

from .config import SwysError
from .data import to_model_input
from .explain import agreement
from .gradcam import grad_cam

COLOUR_MAPS = ("inferno", "viridis", "cividis", "gray")  # lightness rises evenly: for the colour-blind too
EMPTY = "empty map (ReLU left nothing)"
PAGE = Path(__file__).parent / "assets" / "browser.html"
PAGE_IMAGE = 96  # px; larger images are reduced to this side in `to_html`, to keep 100 of them under 5 MB


class Picture(widgets.Image):
    """The core Image widget, with its tooltip working: screen readers say it, for the widget has no alt text.

    The front end (ipywidgets 8.1) reads a widget's description before it shows the tooltip, and fails on an
    Image, which has none.
    """

    description = Unicode("").tag(sync=True)


class GradCAMBrowser(widgets.VBox):
    """Images one by one, with each model's prediction, heatmap and agreement; slider, play, filters, sorting.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        labels: int (N,), the true classes, 0 to C - 1.
        class_names: C names.
        models: ordered ``{name: {"probabilities": (N, C), "heatmaps": (N, C, gh, gw)}}``. Probabilities are
            fractions. There is one heatmap for each class, finite and *unnormalised*: the map of the
            predicted class, the true class or any other is a look-up. Maps may be signed: evidence against
            the class is drawn as none, but counts in the agreement. The first model is the one the others
            are compared with.
        agreement: ``{name: (N,)}`` for all models but the first, in [-1, 1], shown for every target class.
            None: as ``explain.agreement``, Spearman's rank correlation of the two token maps; NaN where a map
            is constant.
        index: int (N,), what each image is called, such as its place in the test split. None counts from 0.
        target: class the maps explain at first: "predicted" (each model's own), "true" or a class number.
        size: side of a picture on the screen, px.
        opacity: of the heatmap where it is strongest, 0 to 1.

    The controls are public attributes and work from Python as from the screen: ``slider`` (1 to the number
    of images that fit the filters), ``play``, ``previous``, ``next``, ``class_filter``, ``who``,
    ``agreement_limit``, ``sort``, ``reverse``, ``target``, ``scale``, ``cmap``, ``opacity``. What they show
    is in ``image``, ``overlays[name]``, ``captions[name]`` and ``status``; ``selection`` holds the images that
    fit, in order.

    Raises:
        SwysError: for shapes that do not fit, non-finite maps, labels that are not classes.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        models: Mapping[str, Mapping[str, np.ndarray]],
        agreement: Mapping[str, np.ndarray] | None = None,
        index: Sequence[int] | None = None,
        target: str | int = "predicted",
        size: int = 208,
        opacity: float = 0.75,
    ):
        self._set_data(images, labels, class_names, models, agreement, index)
        self._size = size
        self._busy = True  # no drawing while several controls change together
        self._make_controls(target, opacity)
        self._make_columns()
        self.selection = np.arange(len(self._labels))
        super().__init__(self._arrange())
        self._busy = False
        self._select()

    @classmethod
    def from_models(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        models: Mapping[str, torch.nn.Module],
        device: torch.device | str | None = None,
        batch_size: int = 32,
        **kwargs,
    ) -> GradCAMBrowser:
        """Compute probabilities (softmax) and one signed Grad-CAM per class with timm ViTs, then make the browser.

        models: ordered ``{name: model}``, used in eval mode on `device`; None leaves each model where it is.
        Everything else is passed on. Raises SwysError.
        """
        computed = {}
        with tqdm(total=len(images) * len(models), desc="Grad-CAM", unit="img") as bar:
            for name, model in models.items():
                if device is not None:
                    model.to(device)
                probabilities, heatmaps = [], []
                for start in range(0, len(images), batch_size):
                    batch = images[start : start + batch_size]
                    batch_probabilities, batch_maps = _explain(model, batch, len(class_names))
                    probabilities.append(batch_probabilities)
                    heatmaps.append(batch_maps)
                    bar.update(len(batch))
                computed[name] = {
                    "probabilities": np.concatenate(probabilities),
                    "heatmaps": np.concatenate(heatmaps),
                }
        return cls(images, labels, class_names, computed, **kwargs)

    # ---- data: what is known about every image, whatever is on the screen

    def _set_data(self, images, labels, class_names, models, agreement, index):
        self._images, self._labels = np.asarray(images), np.asarray(labels)
        self._class_names = [str(name) for name in class_names]
        if self._images.dtype != np.uint8 or not (
            self._images.ndim == 3 or (self._images.ndim == 4 and self._images.shape[-1] == 3)
        ):
            kind = f"{self._images.dtype} {self._images.shape}"
            raise SwysError(f"images are {kind}; the browser needs uint8 (N, H, W) or (N, H, W, 3)")
        n, c = len(self._images), len(self._class_names)
        if not n:
            raise SwysError("there are 0 images; give the browser at least one")
        if self._labels.shape != (n,) or self._labels.dtype.kind not in "iu":
            kind = f"{self._labels.dtype} {self._labels.shape}"
            raise SwysError(f"labels are {kind}; the browser needs one whole number per image, ({n},)")
        if self._labels.min() < 0 or self._labels.max() >= c:
            low, high = self._labels.min(), self._labels.max()
            raise SwysError(f"labels run from {low} to {high}; {c} class names allow 0 to {c - 1}")
        if not models:
            raise SwysError("there are 0 models; give the browser at least one")
        self._probabilities, self._signed, self._heatmaps = {}, {}, {}  # as given, and what is drawn
        for name, given in models.items():
            if set(given) != {"probabilities", "heatmaps"}:
                raise SwysError(f"model '{name}' has {sorted(given)}; give 'probabilities' and 'heatmaps'")
            probabilities = np.asarray(given["probabilities"])
            maps = np.asarray(given["heatmaps"], np.float32)
            if probabilities.shape != (n, c):
                raise SwysError(f"probabilities of '{name}' are {probabilities.shape}; they must be {(n, c)}")
            if maps.ndim != 4 or maps.shape[:2] != (n, c):
                raise SwysError(f"heatmaps of '{name}' are {maps.shape}; they must be ({n}, {c}, gh, gw)")
            if not np.isfinite(maps).all():
                raise SwysError(f"heatmaps of '{name}' hold {maps.min()}; they must be finite")
            self._probabilities[name] = probabilities
            self._signed[name], self._heatmaps[name] = maps, np.maximum(maps, 0)
        self._names = list(self._probabilities)
        self._predicted = {name: p.argmax(axis=1) for name, p in self._probabilities.items()}
        self._right = {name: predicted == self._labels for name, predicted in self._predicted.items()}
        self._index = np.arange(n) if index is None else np.asarray(index)
        if self._index.shape != (n,):
            raise SwysError(f"index has shape {self._index.shape}; it must name each image, ({n},)")
        self._given_agreement = {name: np.asarray(values) for name, values in (agreement or {}).items()}
        shapes = {name: values.shape for name, values in self._given_agreement.items()}
        if agreement is not None and shapes != dict.fromkeys(self._names[1:], (n,)):
            raise SwysError(f"agreement has {shapes}; give ({n},) for each of {self._names[1:]}")
        self._agreements, self._tops = {}, {}  # by target class, as they are asked for

    def _explained(self, name: str, target: str | int) -> np.ndarray:
        """The class that the map of model `name` explains, int (N,)."""
        if target == "predicted":
            return self._predicted[name]
        return self._labels if target == "true" else np.full(len(self._labels), target)

    def _maps(self, name: str, target: str | int) -> np.ndarray:
        """The maps on show for one model, (N, gh, gw)."""
        return self._heatmaps[name][np.arange(len(self._labels)), self._explained(name, target)]

    def _signed_maps(self, name: str, target: str | int) -> np.ndarray:
        return self._signed[name][np.arange(len(self._labels)), self._explained(name, target)]

    def _agreement(self, target: str | int) -> dict[str, np.ndarray]:
        """Agreement of each other model with the first, {name: (N,)}; NaN where a map is constant."""
        if self._given_agreement:
            return self._given_agreement
        if target not in self._agreements:
            first = self._signed_maps(self._names[0], target)
            self._agreements[target] = {
                name: agreement(first, self._signed_maps(name, target)).spearman for name in self._names[1:]
            }
        return self._agreements[target]

    def _lowest_agreement(self, target: str | int) -> np.ndarray:
        return np.min([np.where(np.isnan(a), np.inf, a) for a in self._agreement(target).values()], axis=0)

    def _strongest(self, target: str | int) -> float:
        """The largest value of all maps on show: the top of the shared scale."""
        if target not in self._tops:
            self._tops[target] = max(float(self._maps(name, target).max()) for name in self._names)
        return self._tops[target]

    def _who_filters(self) -> dict[str, np.ndarray]:
        """What 'who is wrong' can be set to, and which images it keeps, {label: bool (N,)}."""
        right = np.stack(list(self._right.values()))
        filters = {"all": np.ones(len(self._labels), bool), "everyone right": right.all(axis=0)}
        filters |= {f"{name} wrong": ~self._right[name] for name in self._names}
        if len(self._names) > 1:
            predicted = np.stack(list(self._predicted.values()))
            filters["everyone wrong"] = ~right.any(axis=0)
            filters["they disagree"] = (predicted != predicted[0]).any(axis=0)
        return filters

    def _sort_keys(self, target: str | int) -> dict[str, np.ndarray]:
        """What images can be sorted by, smallest first, {label: (N,)}; NaN comes last."""
        keys = {"index": self._index}
        keys |= {f"confidence of {name}": p.max(axis=1) for name, p in self._probabilities.items()}
        return keys | {f"agreement of {name}": a for name, a in self._agreement(target).items()}

    # ---- controls

    def _make_controls(self, target, opacity):
        n, names, several = len(self._labels), self._names, len(self._names) > 1
        classes = [(f"class {name}", k) for k, name in enumerate(self._class_names)]
        if target not in ("predicted", "true", *range(len(self._class_names))):
            raise SwysError(f"target is {target!r}; give 'predicted', 'true' or a class number")
        full = widgets.Layout(flex="1 1 200px", min_width="120px")
        self.slider = widgets.IntSlider(
            1, 1, n, description="image", layout=full, style={"description_width": "initial"}
        )
        self.play = widgets.Play(value=1, min=1, max=n, interval=600, show_repeat=False, tooltip="play")
        widgets.link((self.play, "value"), (self.slider, "value"))
        self.previous = widgets.Button(
            description="previous", tooltip="previous image", layout=widgets.Layout(width="92px")
        )
        self.next = widgets.Button(
            description="next",
            tooltip="next image",
            layout=widgets.Layout(width="92px", margin="2px 14px 2px 2px"),
        )

        counts = np.bincount(self._labels, minlength=len(self._class_names))
        self.class_filter = _dropdown(
            "true class",
            [(f"all ({n})", -1)] + [(f"{name} ({counts[k]})", k) for k, name in enumerate(self._class_names)],
            "show only images of this true class",
        )
        self.who = _dropdown(
            "who is wrong",
            [(f"{label} ({kept.sum()})", label) for label, kept in self._who_filters().items()],
            "show only images on which these models are right or wrong",
        )
        self.sort = _dropdown("sort by", list(self._sort_keys(target)), "order of the images, smallest first")
        self.reverse = widgets.Checkbox(description="largest first", indent=False, layout=widgets.Layout(width="auto"))
        self.agreement_limit = widgets.FloatSlider(
            value=1,
            min=-1,
            max=1,
            step=0.05,
            description="agreement at most",
            tooltip=f"show only images on which a map agrees with that of {names[0]} no more than this",
            continuous_update=False,
            style={"description_width": "initial"},
            layout=widgets.Layout(width="300px", display="" if several else "none"),
        )
        self.target = _dropdown(
            "map explains",
            [("predicted class", "predicted"), ("true class", "true"), *classes],
            "class that the heatmaps explain",
            value=target,
        )
        self.scale = _dropdown(
            "scale",
            [("shared by all maps", "shared"), ("each map its own", "image")],
            "what counts as the strongest colour",
        )
        self.cmap = _dropdown("colours", COLOUR_MAPS, "colour map")
        self.opacity = widgets.FloatSlider(
            value=opacity,
            min=0,
            max=1,
            step=0.05,
            description="opacity",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="260px"),
        )
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(1))
        self.slider.observe(self._show, "value")
        filters = (self.class_filter, self.who, self.agreement_limit, self.sort, self.reverse, self.target)
        for control in filters:
            control.observe(self._select, "value")
        for control in (self.scale, self.cmap, self.opacity):
            control.observe(self._show, "value")

    def _make_columns(self):
        picture = {"width": "100%", "max_width": f"{self._size}px", "height": "auto"}
        self.image = Picture(format="png", layout=picture)
        self.overlays = {name: Picture(format="png", layout=picture) for name in self._names}
        self.image_caption = widgets.HTML()
        self.captions = {name: widgets.HTML() for name in self._names}
        self.status = widgets.HTML()
        self.legend = widgets.HTML()

    def _arrange(self) -> list[widgets.Widget]:
        def row(*children, **layout):
            return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", align_items="center", **layout))

        def column(title, picture, caption):
            heading = widgets.HTML(f"<b>{html.escape(title)}</b>")
            caption.layout.height = "114px"  # fixed, so that nothing below moves
            caption.layout.max_width = picture.layout.max_width
            return widgets.VBox([heading, picture, caption], layout=widgets.Layout(overflow="hidden"))

        columns = [column("image", self.image, self.image_caption)]
        columns += [column(name, self.overlays[name], self.captions[name]) for name in self._names]
        tracks = f"repeat(auto-fill, minmax(min(44%, {self._size}px), 1fr))"  # two side by side on a phone
        grid = widgets.Layout(grid_template_columns=tracks, grid_gap="4px 14px", width="100%")
        return [
            row(self.class_filter, self.who, self.agreement_limit, self.sort, self.reverse),
            row(self.play, self.previous, self.next, self.slider),
            self.status,
            widgets.GridBox(columns, layout=grid),
            self.legend,
            row(self.target, self.scale, self.cmap, self.opacity),
        ]

    # ---- observers

    @property
    def current(self) -> int | None:
        """Which of the N images is on the screen; None when the filters leave nothing."""
        return int(self.selection[self.slider.value - 1]) if len(self.selection) else None

    def _step(self, by: int):
        self.slider.value = min(max(self.slider.value + by, 1), max(len(self.selection), 1))

    def _select(self, change=None):
        """Apply the filters and the order. A filter stays on the image where it can, an order starts afresh."""
        if self._busy:
            return
        before, target = self.current, self.target.value
        keep = self._who_filters()[self.who.value]
        if self.class_filter.value >= 0:
            keep &= self._labels == self.class_filter.value
        if self.agreement_limit.value < 1 and len(self._names) > 1:
            keep &= self._lowest_agreement(target) <= self.agreement_limit.value
        key = self._sort_keys(target)[self.sort.value]
        order = np.argsort(-key if self.reverse.value else key, kind="stable")
        self.selection = order[keep[order]]
        reordered = change is not None and change.owner in (self.sort, self.reverse)
        place = np.flatnonzero(self.selection == (None if reordered else before))
        self._busy = True
        try:
            n = len(self.selection)
            for control in (self.slider, self.play):
                control.max = max(n, 1)
                control.disabled = n < 2
            self.slider.value = int(place[0]) + 1 if len(place) else 1
            self.previous.disabled = self.next.disabled = n < 2
        finally:
            self._busy = False
        self._show()

    def _show(self, change=None):
        """Draw the current image: one new value for each picture and caption."""
        if self._busy:
            return
        i, target = self.current, self.target.value
        self.legend.value = self._legend(target)
        if i is None:
            self.status.value = _live("No image fits these filters. Set one of them back to “all”.")
            for picture in (self.image, *self.overlays.values()):
                picture.value, picture.tooltip = _png(Image.new("RGBA", (self._size,) * 2)), "no image"
            for caption in (self.image_caption, *self.captions.values()):
                caption.value = ""
            return
        true = self._class_names[self._labels[i]]
        place = f"Image {self.slider.value} of {len(self.selection)}"
        self.status.value = _live(f"{place} · number {self._index[i]}")
        base = self._picture(i)
        self.image.value = _png(base if self._images.ndim == 4 else base.convert("L"))  # a third of the bytes
        self.image.tooltip = f"image number {self._index[i]}, true class {true}"
        self.image_caption.value = _lines("true class", true)
        for name in self._names:
            heatmap = self._maps_at(name, i, target)
            strongest = self._strongest(target) if self.scale.value == "shared" else float(heatmap.max())
            drawn = _blend(base, heatmap, strongest, self.cmap.value, self.opacity.value)
            self.overlays[name].value = _png(drawn)
            facts = self._facts(name, i, target)
            self.overlays[name].tooltip = f"{name}: {', '.join(facts.values())}"
            self.captions[name].value = _caption(facts, float(self._probabilities[name][i].max()))

    # ---- what is drawn

    def _maps_at(self, name: str, i: int, target: str | int) -> np.ndarray:
        return self._heatmaps[name][i, self._explained(name, target)[i]]

    def _picture(self, i: int) -> Image.Image:
        size = (self._size, self._size)
        return Image.fromarray(self._images[i]).convert("RGB").resize(size, Image.Resampling.BILINEAR)

    def _facts(self, name: str, i: int, target: str | int) -> dict[str, str]:
        """What is said about one model on one image, in plain words."""
        predicted, heatmap = self._predicted[name][i], self._maps_at(name, i, target)
        confidence = self._probabilities[name][i, predicted]
        facts = {
            "prediction": self._class_names[predicted],
            "confidence": f"{confidence:.1%}",
            "mark": "✓ right" if self._right[name][i] else "✗ wrong",
            "map": f"map for {self._class_names[self._explained(name, target)[i]]}",
            "peak": f"peak {heatmap.max():.2g}" if heatmap.any() else EMPTY,
        }
        if name != self._names[0]:
            score = self._agreement(target)[name][i]
            facts["agreement"] = "agreement " + ("none (constant map)" if np.isnan(score) else f"{score:+.2f}")
        return facts

    def _legend(self, target: str | int) -> str:
        heat = np.linspace(0, 1, 18)[:, None]
        colours = _colours(self.cmap.value)[::15].astype(float)
        colours = 128 + self.opacity.value * heat * (colours - 128)  # as on mid-grey pixels, where they are read
        stops = ", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*stop) for stop in colours)
        top = "each map's own peak: strengths cannot be compared"
        if self.scale.value == "shared":
            top = f"{self._strongest(target):.2g}, the highest of all images and models"
        note = ""
        if len(self._names) > 1:
            first = html.escape(self._names[0])
            note = f"<div>agreement: rank correlation with {first}, before ReLU (+1 same, 0 unrelated)</div>"
        return (
            '<div style="line-height:1.6">'
            '<div style="display:flex;align-items:center;flex-wrap:wrap;gap:0 8px">'
            'heat 0<span role="img" aria-label="colour scale" style="width:160px;height:12px;'
            f'border:1px solid #888;background:linear-gradient(to right, {stops})"></span>'
            f"{top}</div>{note}</div>"
        )

    def contact_sheet(self, path: str | Path | None = None, n: int = 4) -> Figure:
        """The first `n` images of the selection as a static figure, a row each, with the current settings.

        path: also save it there (the ending gives the format). Returns a matplotlib Figure, which a notebook
        shows once. Raises SwysError when the filters leave no image.
        """
        rows = self.selection[:n]
        if not len(rows):
            raise SwysError(f"no image fits the filters and n = {n}; set a filter back to 'all'")
        target, columns = self.target.value, len(self._names) + 1
        size = (2.1 * columns, 2.75 * len(rows) + 0.3)
        figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, layout="constrained")
        plt.close(figure)  # returned, so a notebook shows it once and not twice
        for i, line in zip(rows, axes):
            base = self._picture(i)
            line[0].imshow(base)
            true = shorten(self._class_names[self._labels[i]], 32)
            line[0].set_xlabel(f"number {self._index[i]}\ntrue class\n{true}", fontsize=8)
            for name, axis in zip(self._names, line[1:]):
                heatmap = self._maps_at(name, i, target)
                top = self._strongest(target) if self.scale.value == "shared" else float(heatmap.max())
                axis.imshow(_blend(base, heatmap, top, self.cmap.value, self.opacity.value))
                facts = self._facts(name, i, target)
                lines = ["{prediction}", "{confidence} {mark}", "{map}", "{peak}", "{agreement}"]
                lines = [shorten(line.format(**{"agreement": ""} | facts), 32) for line in lines]
                axis.set_xlabel("\n".join(lines), fontsize=8)
        for title, axis in zip(["image", *self._names], axes[0]):
            axis.set_title(title, fontsize=10, fontweight="bold")
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        if path is not None:
            figure.savefig(path, dpi=100)
        return figure

    def to_html(self, path: str | Path, title: str = "Where do the models look?") -> Path:
        """Write all images into one self-contained page: no kernel, no network, plain JavaScript.

        Images of more than 96 px a side are reduced to 96 px; a heatmap is stored as 256 levels of its peak.
        The page starts with the current settings. The file appears whole or not at all. Returns its path.
        """
        images = self._images
        if max(images.shape[1:3]) > PAGE_IMAGE:
            height, width = (round(side * PAGE_IMAGE / max(images.shape[1:3])) for side in images.shape[1:3])
            small = [Image.fromarray(image).resize((width, height), Image.Resampling.BOX) for image in images]
            images = np.stack([np.asarray(image) for image in small])
        targets = ["predicted", "true", *range(len(self._class_names))]
        data = {
            "title": title,
            "count": len(images),
            "height": images.shape[1],
            "width": images.shape[2],
            "channels": 1 if images.ndim == 3 else 3,
            "images": _base64(images),
            "labels": self._labels.tolist(),
            "index": self._index.tolist(),
            "classNames": self._class_names,
            "models": [self._page_model(name) for name in self._names],
            "agreement": {
                str(target): {
                    name: [None if np.isnan(score) else round(float(score), 3) for score in scores]
                    for name, scores in self._agreement(target).items()
                }
                for target in targets
            },
            "colourMaps": {name: _base64(_colours(name)) for name in COLOUR_MAPS},
            "empty": EMPTY,
            "settings": {
                "target": str(self.target.value),
                "scale": self.scale.value,
                "cmap": self.cmap.value,
                "opacity": self.opacity.value,
            },
        }
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        text = text.replace("<", "\\u003c")  # a class called "</script>" must not end the script
        page = PAGE.read_text(encoding="utf-8").replace("__TITLE__", html.escape(title))
        page = page.replace("__DATA__", text)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(page, encoding="utf-8")
        os.replace(part, path)
        return path

    def _page_model(self, name: str) -> dict:
        maps = self._heatmaps[name]
        peaks = maps.max(axis=(2, 3), keepdims=True)
        levels = np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0) * 255
        return {
            "name": name,
            "grid": maps.shape[2:],
            "predicted": self._predicted[name].tolist(),
            "probabilities": self._probabilities[name].astype(float).round(4).tolist(),
            "peaks": [[float(f"{peak:.4g}") for peak in row] for row in peaks[:, :, 0, 0]],
            "maps": _base64(levels.round().astype(np.uint8)),
        }


def _explain(model: torch.nn.Module, images: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (B, C) and one signed Grad-CAM for each class (B, C, gh, gw) of one batch."""
    device = next(model.parameters()).device
    inputs = to_model_input(images, model.patch_embed.img_size[0], device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            probabilities = model(inputs).float().softmax(dim=1)
    finally:
        model.train(training)
    if probabilities.shape[1] != num_classes:
        raise SwysError(f"a model has {probabilities.shape[1]} classes; there are {num_classes} class names")
    maps = torch.stack([grad_cam(model, inputs, targets=k, signed=True) for k in range(num_classes)], dim=1)
    return probabilities.cpu().numpy(), maps.cpu().numpy()


def _blend(base: Image.Image, heatmap: np.ndarray, strongest: float, cmap: str, opacity: float) -> Image.Image:
    """As `gradcam.overlay` (a test compares them) but faster: Pillow blends bytes; empty maps add nothing."""
    if not heatmap.any():
        return base
    heat = Image.fromarray((heatmap / strongest).clip(0, 1).astype(np.float32))
    heat = np.asarray(heat.resize(base.size, Image.Resampling.BILINEAR))
    colours = Image.fromarray((heat * 255).round().astype(np.uint8)).convert("P")
    colours.putpalette(_colours(cmap).tobytes())
    mask = Image.fromarray((heat * (opacity * 255)).round().astype(np.uint8))
    return Image.composite(colours.convert("RGB"), base, mask)


@cache
def _colours(cmap: str) -> np.ndarray:
    """A colour map as 256 colours, uint8 (256, 3)."""
    return (matplotlib.colormaps[cmap](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)  # speed over size: it is not kept
    return buffer.getvalue()


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _dropdown(description: str, options: Sequence, tooltip: str, **kwargs) -> widgets.Dropdown:
    return widgets.Dropdown(
        description=description,
        options=options,
        tooltip=tooltip,
        style={"description_width": "initial"},
        layout=widgets.Layout(width="auto", max_width="300px", margin="2px 12px 2px 2px"),
        **kwargs,
    )


def _live(text: str) -> str:
    """A line that screen readers say when it changes. Colours are the page's own, so dark themes work."""
    return f'<div role="status" aria-live="polite" style="line-height:1.6">{html.escape(text)}</div>'


def _line(text: str, style: str = "") -> str:
    """One line that is cut with an ellipsis rather than wrapped, so that a long class name moves nothing."""
    said = html.escape(text)
    style = f"overflow:hidden;text-overflow:ellipsis;white-space:nowrap;{style}"
    return f'<div style="{style}" title="{said}">{said}</div>'


def _lines(label: str, text: str) -> str:
    return f'<div style="line-height:1.45">{label}{_line(text, "font-weight:bold")}</div>'


def _caption(facts: dict[str, str], confidence: float) -> str:
    bar = (
        '<div aria-hidden="true" style="height:5px;border:1px solid currentColor;opacity:.7;margin:3px 0">'
        f'<div style="height:100%;width:{confidence:.1%};background:currentColor"></div></div>'
    )
    prediction = _line(facts["prediction"], "font-weight:bold")
    rest = "".join(_line(facts[key]) for key in ("map", "peak", "agreement") if key in facts)
    verdict = _line(f"{facts['confidence']} · {facts['mark']}")
    return f'<div style="line-height:1.45">{prediction}{verdict}{bar}{rest}</div>'
