"""Step through images in a notebook, and see what each model answers and what its map marks."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from .config import SwysError
from .data import Split
from .explain import agreement
from .gradcam import METHODS, heatmaps, overlay
from .metrics import probabilities
from .plots import overlay_scale
from .training import predict

PREDICTED = "predicted"  # a map of each image's predicted class is shown
Target = int | str  # what a map explains: PREDICTED, or the number of a class
SIDE = 176  # px of a picture on the screen: four beside each other in a notebook
STYLE = {"description_width": "initial"}  # the words before a control are not cut
WRAPPED = {"flex_flow": "row wrap"}
COLUMN = {"width": f"{SIDE}px", "margin": "0 14px 0 0"}
# A line that is too long is cut, so that long names of classes move nothing.
LINE = "line-height:1.4;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"


class GradCAMBrowser(widgets.VBox):
    """A slider through images: what each model answers, what its map marks, and how alike maps are.

    It opens at an informative image. Agreement is the rank correlation with the first model's map.

    Args:
        models: name -> timm ViT, used on the device where it is.
        split: the images and their labels.
        class_names: C names.
        images: number of images of the split, a fixed random sample (0: all).
        method: how maps are made at first, an id in ``gradcam.METHODS``.

    Attributes:
        data: what is shown, an `Explained`.
        selection: int (M,), the positions in ``data`` of the images that pass the filter.
        slider: the place in ``selection``, 1 to M; ``play``, ``previous`` and ``next`` move it.
        filter: which images are stepped through, a key of ``data.filters``.
        method: how maps are made, an id in ``gradcam.METHODS``.
        target: the class that maps explain, "predicted" or its number.
        scale: "model" for one scale for all maps of a model, "image" for one for each map.
        opacity: of the maps, from 0 to 1.

    Raises:
        SwysError: there is nothing to show, or labels or models do not fit the class names.
    """

    def __init__(
        self,
        models: Mapping[str, VisionTransformer],
        split: Split,
        class_names: Sequence[str],
        images: int = 48,
        method: str = "grad_cam",
    ):
        self.data = Explained(models, split, class_names, images, method)
        self.selection = np.arange(len(self.data.indices))
        self._make_moving_controls()
        self._make_looking_controls()
        self._make_views()
        moving = [self.play, self.previous, self.next, self.slider, self.filter]
        looking = [self.method, self.target, self.scale, self.opacity]
        top = widgets.HBox(moving, layout=WRAPPED)
        middle = widgets.HBox(self.columns, layout=WRAPPED)
        bottom = widgets.HBox(looking, layout=WRAPPED)
        super().__init__([top, self.status, middle, bottom])
        self._connect()
        self._show()

    def __repr__(self) -> str:
        count = len(self.data.indices)
        return f"Grad-CAM browser of {count} images (run the notebook to move its slider)"

    def _make_moving_controls(self) -> None:
        """The controls that choose the image."""
        start = 1 + int(self.data.informative()[0])
        span = {"value": start, "min": 1, "max": len(self.data.indices)}
        self.slider = widgets.IntSlider(description="image", style=STYLE, **span)
        self.play = widgets.Play(interval=600, show_repeat=False, **span)
        self.previous = widgets.Button(description="previous")
        self.next = widgets.Button(description="next")
        options = []
        for name, passes in self.data.filters.items():
            if passes.any():
                options.append((f"{name} ({passes.sum()})", name))
        self.filter = widgets.Dropdown(description="show", options=options, style=STYLE)

    def _make_looking_controls(self) -> None:
        """The controls that choose the maps and how they are drawn."""
        methods = [(method.title, method.id) for method in METHODS.values()]
        self.method = widgets.Dropdown(
            description="map",
            options=methods,
            value=self.data.method,
            style=STYLE,
        )
        targets: list[tuple[str, Target]] = [("predicted class", PREDICTED)]
        for number, name in enumerate(self.data.class_names):
            targets.append((name, number))
        self.target = widgets.Dropdown(
            description="map explains",
            options=targets,
            style=STYLE,
        )
        self.scale = widgets.Dropdown(
            description="scale",
            options=[("one for a model", "model"), ("one for each map", "image")],
            style=STYLE,
        )
        self.opacity = widgets.FloatSlider(
            value=0.75,
            max=1,
            step=0.05,
            description="opacity",
            style=STYLE,
        )

    def _make_views(self) -> None:
        """A picture and a text for the image and for each model, and one line about the image."""
        self.status = widgets.HTML()
        self.views = []
        self.texts = []
        self.columns = []
        for _ in ["image", *self.data.models]:
            view = widgets.Image(layout={"width": "100%"})
            text = widgets.HTML(layout={"height": "132px"})  # so that nothing moves
            self.views.append(view)
            self.texts.append(text)
            self.columns.append(widgets.VBox([view, text], layout=COLUMN))

    def _connect(self) -> None:
        """Say what each control does."""
        widgets.link((self.play, "value"), (self.slider, "value"))
        self.previous.on_click(self._move)
        self.next.on_click(self._move)
        self.filter.observe(self._select, "value")
        for control in [self.slider, self.method, self.target, self.scale, self.opacity]:
            control.observe(self._show, "value")

    def _select(self, change: dict) -> None:
        """Apply the filter, and stay on the image where it passes."""
        before = self.selection[self.slider.value - 1]
        passes = self.data.filters[self.filter.value]
        self.selection = np.flatnonzero(passes)
        self.play.max = len(self.selection)
        self.slider.max = len(self.selection)
        is_before = self.selection == before
        self.slider.value = 1 + int(np.argmax(is_before))
        self._show()

    def _show(self, change: dict | None = None) -> None:
        """Draw the current image: a new value for each picture and text."""
        self.data.method = self.method.value
        place = self.slider.value
        target = self.target.value
        position = self.selection[place - 1]
        row = self.data.indices[position]
        self.status.value = f"Image {place} of {len(self.selection)}, row {row} of the split"
        pictures = self.data.pictures(position, target, self.scale.value, self.opacity.value)
        for view, picture in zip(self.views, pictures):
            view.value = _as_png(picture)
        for box, lines in zip(self.texts, self.data.texts(position, target)):
            box.value = _as_html(lines)

    def _move(self, button: widgets.Button) -> None:
        """Go to the image before or to the next one; the slider stays at its ends."""
        step = 1 if button is self.next else -1
        self.slider.value += step


def _as_png(picture: np.ndarray) -> bytes:
    """A uint8 picture (H, W, 3) as the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _as_html(lines: Sequence[str]) -> str:
    """A title, which becomes bold, and lines of text; each stays one line on the screen."""
    title, *others = map(html.escape, lines)
    parts = [f"<b>{title}</b>", *others]
    return "".join(f'<div style="{LINE}">{part}</div>' for part in parts)


class Explained:
    """Images of a split with each model's answers and heatmaps.

    Its arguments are those of `GradCAMBrowser`.

    Attributes:
        indices: int (N,), where the images lie in the split.
        images: uint8 (N, H, W[, 3]).
        labels: bool (N, C), the true classes.
        scores: model -> probabilities, float (N, C).
        predictions: model -> bool (N, C), the most probable class, or labels with more than 0.5.
        filters: "all", "wrong" (some model errs) and "disagree" (two models name different
            classes) -> bool (N,).
        method: how maps are made; it may be changed.
    """

    def __init__(
        self,
        models: Mapping[str, VisionTransformer],
        split: Split,
        class_names: Sequence[str],
        images: int,
        method: str,
    ):
        self.models = models
        self.class_names = list(class_names)
        self.method = method
        self.indices = split.sample_indices(images)
        if not self.models or not len(self.indices):
            counts = f"{len(self.models)} models, {len(self.indices)} images"
            raise SwysError(f"{counts}; give at least one of each")
        self.images = split.images[self.indices]
        labels = split.labels[self.indices]
        multi_label = labels.ndim == 2
        self.multi_label = multi_label
        task = "multi-label" if multi_label else "multi-class"
        one_hot = np.eye(len(self.class_names), dtype=bool)
        self.scores = {}
        self.predictions = {}
        for name, model in self.models.items():
            logits = predict(model, self.images)
            self._check(labels, logits)
            scores = probabilities(logits, task)
            most_probable = scores.argmax(axis=1)
            self.scores[name] = scores
            self.predictions[name] = scores > 0.5 if multi_label else one_hot[most_probable]
        self.labels = labels > 0 if multi_label else one_hot[labels]
        predictions = np.stack(list(self.predictions.values()))  # (models, N, C)
        self.filters = {
            "all": np.full(len(labels), True),
            "wrong": (predictions != self.labels).any(axis=(0, 2)),
            "disagree": (predictions != predictions[0]).any(axis=(0, 2)),
        }
        self._maps: dict[tuple, np.ndarray] = {}

    def maps(self, name: str, target: Target) -> np.ndarray:
        """Signed maps of a model by the current method, made when they are first needed.

        Args:
            name: of the model.
            target: the class to explain, or "predicted" for each image's predicted class.

        Returns:
            float32 (N, gh, gw).
        """
        key = (self.method, name, target)
        if key not in self._maps:
            model = self.models[name]
            targets = None if target == PREDICTED else target
            self._maps[key] = heatmaps(
                model,
                self.images,
                self.method,
                targets,
                multi_label=self.multi_label,
                signed=True,
            )
        return self._maps[key]

    def informative(self) -> np.ndarray:
        """Positions of all images, int (N,), the most interesting first.

        The strength of a map is its peak, as a share of the highest peak of this model's maps; an
        image has the strength of its weakest map. Images at which a model errs or two models
        disagree come first if they are strong enough; within both groups, strong ones come first.
        """
        strengths = []
        for name in self.models:
            peaks = self.maps(name, PREDICTED).max(axis=(1, 2))
            strengths.append(peaks / peaks.max().clip(1e-30))
        weakest = np.min(strengths, axis=0).clip(0)
        debated = self.filters["wrong"] | self.filters["disagree"]
        comes_first = debated & (weakest > 0.25)
        return np.lexsort((-weakest, ~comes_first))  # sorted by the last key first

    def texts(self, i: int, target: Target) -> list[list[str]]:
        """Title and lines of text about an image, then about each model at it.

        Args:
            i: position of the image.
            target: as in ``maps``.
        """
        true_classes = np.flatnonzero(self.labels[i])
        names = [self.class_names[k] for k in true_classes]
        columns = [["image", ", ".join(names) or "no label", "true class"]]
        for name in self.models:
            columns.append(self._texts_of_model(name, i, target))
        return columns

    def pictures(self, i: int, target: Target, scale: str, alpha: float) -> list[np.ndarray]:
        """An image, then the same under each model's map, each uint8 (SIDE, SIDE, 3).

        Args:
            i: position of the image.
            target: as in ``maps``.
            scale: "model" or "image", as in ``plots.heatmap_rows``.
            alpha: opacity of the maps, from 0 to 1.
        """
        image = self.images[i : i + 1]
        empty_map = np.zeros((1, 1, 1))
        drawn = [overlay(image, empty_map, size=SIDE)[0]]
        for name in self.models:
            maps = self.maps(name, target)
            heatmap = maps[i : i + 1]
            strongest = overlay_scale(maps, scale)
            drawn.append(overlay(image, heatmap, alpha, strongest, size=SIDE)[0])
        return drawn

    def _check(self, labels: np.ndarray, logits: np.ndarray) -> None:
        """Raise SwysError where labels or a model do not fit the number of class names."""
        count = len(self.class_names)
        labels_fit = labels.shape[1] == count if labels.ndim == 2 else labels.max() < count
        model_fits = logits.shape[1] == count
        if labels.min() < 0 or not labels_fit or not model_fits:
            span = f"{labels.min()} to {labels.max()}"
            raise SwysError(f"{count} class names; labels {span} or a model do not fit")

    def _texts_of_model(self, name: str, i: int, target: Target) -> list[str]:
        """Name, answer, verdict, class and peak of the map, agreement with the first model's."""
        scores = self.scores[name][i]
        prediction = self.predictions[name][i]
        answers = [f"{self.class_names[k]} {scores[k]:.1%}" for k in np.flatnonzero(prediction)]
        is_right = (prediction == self.labels[i]).all()
        explained = int(scores.argmax() if target == PREDICTED else target)
        heatmap = self.maps(name, target)[i : i + 1]
        peak = heatmap.max()
        lines = [
            name,
            ", ".join(answers) or "no label",
            "✓ right" if is_right else "✗ wrong",
            f"map for {self.class_names[explained]}",
            f"peak {peak:.2g}" if peak > 0 else "empty map: nothing for it",
        ]
        first = next(iter(self.models))
        if name != first:
            reference = self.maps(first, target)[i : i + 1]
            correlation = agreement(reference, heatmap)[0]
            constant = np.isnan(correlation)
            lines.append("a constant map" if constant else f"agreement {correlation:+.2f}")
        return lines
