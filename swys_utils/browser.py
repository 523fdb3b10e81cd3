"""Step through images in a notebook, and see what each model answers and where it looks."""

from __future__ import annotations

import html
import io

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .config import SwysError
from .explain import agreement
from .gradcam import heatmaps, overlay
from .metrics import probabilities
from .plots import heatmap_rows
from .training import predict

SIDE = 176  # px of a picture on the screen: four beside each other in a notebook
LINE = "line-height:1.4;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"  # long names move nothing
LABEL = {"description_width": "initial"}


class GradCAMBrowser(widgets.VBox):
    """A slider through images: what each model answers, where it looks, and how alike two maps are.

    Args:
        models: ``{name: timm ViT}``, used where they are. split, class_names: the images, C names.
        images: how many images of the split, drawn at random (0: all). method: a name in ``gradcam.METHODS``.

    It opens at an image whose maps tell something. Agreement is the rank correlation with the first map.
    Controls are attributes: ``slider`` (1 to N), ``play``, ``previous``, ``next``, ``filter``, ``target``,
    ``scale``, ``opacity``; ``data`` is what they show, ``selection`` the positions that pass the filter.

    Raises SwysError: nothing to show; labels or models do not fit the class names.
    """

    def __init__(self, models, split, class_names, images=48, method="grad_cam"):
        self.data = data = Explained(models, split, class_names, images, method)
        self.selection = np.arange(len(data.rows))
        ends = {"value": 1 + int(data.informative()[0]), "min": 1, "max": len(data.rows)}
        self.slider = widgets.IntSlider(description="image", style=LABEL, **ends)
        self.play = widgets.Play(interval=600, show_repeat=False, **ends)
        widgets.link((self.play, "value"), (self.slider, "value"))
        self.previous, self.next = (
            widgets.Button(description=word) for word in ("previous", "next")
        )
        filters = [(f"{key} ({kept.sum()})", key) for key, kept in data.kept.items() if kept.any()]
        self.filter = widgets.Dropdown(description="show", options=filters, style=LABEL)
        targets = [
            ("predicted class", "predicted"),
            *((name, k) for k, name in enumerate(data.class_names)),
        ]
        self.target = widgets.Dropdown(description="map explains", options=targets, style=LABEL)
        scales = [("one for a model", "model"), ("one for each map", "image")]
        self.scale = widgets.Dropdown(description="scale", options=scales, style=LABEL)
        self.opacity = widgets.FloatSlider(
            value=0.75, max=1, step=0.05, description="opacity", style=LABEL
        )
        self.views = [
            widgets.Image(format="png", layout={"width": "100%"}) for _ in ("image", *data.models)
        ]
        self.texts = [
            widgets.HTML(layout={"height": "132px"}) for _ in self.views
        ]  # so that nothing moves
        self.status = widgets.HTML()
        row, column = {"flex_flow": "row wrap"}, {"width": f"{SIDE}px", "margin": "0 14px 0 0"}
        columns = [widgets.VBox(parts, layout=column) for parts in zip(self.views, self.texts)]
        move = widgets.HBox(
            [self.play, self.previous, self.next, self.slider, self.filter], layout=row
        )
        look = widgets.HBox([self.target, self.scale, self.opacity], layout=row)
        super().__init__([move, self.status, widgets.HBox(columns, layout=row), look])
        self.previous.on_click(lambda _: self.slider.set_trait("value", self.slider.value - 1))
        self.next.on_click(lambda _: self.slider.set_trait("value", self.slider.value + 1))
        self.filter.observe(self.select, "value")
        for control in (self.slider, self.target, self.scale, self.opacity):
            control.observe(self.show, "value")
        self.show()

    def __repr__(self) -> str:
        return f"Grad-CAM browser of {len(self.data.rows)} images (run the notebook to move its slider)"

    def select(self, change=None) -> None:
        """Apply the filter; stay on the image where it passes."""
        before = self.selection[self.slider.value - 1]
        self.selection = np.flatnonzero(self.data.kept[self.filter.value])
        self.play.max = self.slider.max = len(self.selection)
        self.slider.value = 1 + int(np.argmax(self.selection == before))
        self.show()

    def show(self, change=None) -> None:
        """Draw the current image: a new value for each picture and text."""
        data, target, place = self.data, self.target.value, self.slider.value
        i = self.selection[place - 1]
        self.status.value = (
            f"Image {place} of {len(self.selection)}, row {data.rows[i]} of the split"
        )
        for view, picture in zip(
            self.views, data.pictures(i, target, self.scale.value, self.opacity.value)
        ):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            view.value = buffer.getvalue()
        for box, name, lines in zip(self.texts, ("image", *data.models), data.texts(i, target)):
            lines = [f"<b>{html.escape(name)}</b>", *map(html.escape, lines)]
            box.value = "".join(f'<div style="{LINE}">{line}</div>' for line in lines)

    def contact_sheet(self, n: int = 6) -> Figure:
        """The `n` most informative images that pass the filter as a static figure, one row a model."""
        data, target = self.data, self.target.value
        chosen = [i for i in data.informative() if i in self.selection][:n]
        texts = [data.texts(i, target) for i in chosen]
        titles = [
            f"row {data.rows[i]}, truth:\n{lines[0][0]:.20}" for i, lines in zip(chosen, texts)
        ]
        captions, maps = {}, {}
        for k, name in enumerate(data.models, 1):
            captions[name] = [f"{lines[k][0]:.20}\n{lines[k][1]:.28}" for lines in texts]
            maps[name] = data.maps(name, target)[chosen]
        return heatmap_rows(data.images[chosen], maps, captions, titles, self.scale.value)


class Explained:
    """Images of a split with each model's answers and heatmaps; arguments as of `GradCAMBrowser`.

    ``rows``: int (N,), where the images lie in the split. ``images``: uint8 (N, H, W[, 3]). ``scores``: model
    -> probabilities, float (N, C). ``truth``, and ``said`` of a model: bool (N, C), the true classes and
    those it names: the most probable one, or in a multi-label set all above 0.5. ``kept``: filter -> bool:
    "all", "wrong" (some model errs) and "disagree" (two answers differ).
    """

    def __init__(self, models, split, class_names, images, method):
        self.models, self.method, self.class_names = (
            dict(models),
            method,
            [str(name) for name in class_names],
        )
        self.rows, c = split.sample_indices(images), len(self.class_names)
        if not self.models or not len(self.rows):
            raise SwysError(
                f"{len(self.models)} models, {len(self.rows)} images; give at least one of each"
            )
        self.images, labels = split.images[self.rows], split.labels[self.rows]
        logits = {name: predict(model, self.images) for name, model in self.models.items()}
        several, one_hot = labels.ndim == 2, np.eye(c, dtype=bool)
        fits = labels.shape[1] == c if several else labels.max() < c
        if not fits or labels.min() < 0 or any(one.shape[1] != c for one in logits.values()):
            raise SwysError(
                f"{c} class names; labels {labels.min()} to {labels.max()} or a model do not fit"
            )
        task = "multi-label" if several else "multi-class"
        self.scores = {name: probabilities(one, task) for name, one in logits.items()}
        self.truth = labels > 0 if several else one_hot[labels]
        self.said = {
            k: p > 0.5 if several else one_hot[p.argmax(axis=1)] for k, p in self.scores.items()
        }
        answers = np.stack(list(self.said.values()))
        wrong, disagree = ((answers != one).any(axis=(0, 2)) for one in (self.truth, answers[0]))
        self.kept = {"all": np.ones(len(labels), bool), "wrong": wrong, "disagree": disagree}
        self.made: dict[tuple[str, str | int], np.ndarray] = {}

    def maps(self, name: str, target: str | int) -> np.ndarray:
        """Signed maps of a model, float32 (N, gh, gw), made when they are first asked for."""
        if (name, target) not in self.made:
            k = None if target == "predicted" else target
            self.made[name, target] = heatmaps(
                self.models[name], self.images, self.method, k, signed=True
            )
        return self.made[name, target]

    def informative(self) -> np.ndarray:
        """Positions by interest: strong maps at an error or a disagreement, then by the weakest map."""
        peaks = np.stack([self.maps(name, "predicted").max(axis=(1, 2)) for name in self.models])
        weakest = (peaks / peaks.max(axis=1, keepdims=True).clip(1e-30)).clip(0).min(axis=0)
        told = (self.kept["wrong"] | self.kept["disagree"]) & (weakest > 0.25)
        return np.argsort(-weakest - told, kind="stable")

    def texts(self, i: int, target: str | int) -> list[list[str]]:
        """Lines on image i and each model at it: answer, verdict, the map's class and peak, agreement."""
        names, first, predicted = (
            np.array(self.class_names),
            next(iter(self.models)),
            target == "predicted",
        )
        columns = [[", ".join(names[self.truth[i]]) or "no label", "true class"]]
        for model, scores in self.scores.items():
            said, one = self.said[model][i], self.maps(model, target)[i : i + 1]
            answer = ", ".join(f"{names[k]} {scores[i, k]:.1%}" for k in np.flatnonzero(said))
            verdict = "✓ right" if (said == self.truth[i]).all() else "✗ wrong"
            peak = f"peak {one.max():.2g}" if one.max() > 0 else "empty map: nothing for it"
            explained = names[scores[i].argmax() if predicted else target]
            lines = [answer or "no label", verdict, f"map for {explained}", peak]
            if model != first:
                alike = agreement(self.maps(first, target)[i : i + 1], one)[0]
                lines.append(f"agreement {alike:+.2f}")
            columns.append(lines)
        return columns

    def pictures(self, i: int, target: str | int, scale: str, alpha: float) -> list[np.ndarray]:
        """Image i, then the same under each model's map, uint8 (SIDE, SIDE, 3); scale as in the control."""
        image = self.images[i : i + 1]
        drawn = [overlay(image, np.zeros((1, 1, 1)), size=SIDE)[0]]
        for name in self.models:
            maps = self.maps(name, target)
            top = max(float(maps.max()), 1e-30) if scale == "model" else scale
            drawn.append(overlay(image, maps[i : i + 1], alpha, top, size=SIDE)[0])
        return drawn
