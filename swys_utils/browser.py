"""Step through images and see what each model answers and where it looks: a slider, a figure, a web page.

`Explained` computes answers, maps and pictures; `GradCAMBrowser` is the widget that shows them.
"""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path

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
PAGE = Path(__file__).parent / "assets" / "browser.html"


class GradCAMBrowser(widgets.VBox):
    """A slider through images: what each model answers, where it looks, and how alike two maps are.

    Args:
        models: ``{name: timm ViT}``, used where they are. split, class_names: the images, C names.
        images: how many images of the split, drawn at random (0: all), or their rows in it.
        method: a name in ``gradcam.METHODS``. start: position to open at; None: one that tells something.

    Controls are attributes: ``slider`` (1 to N), ``play``, ``previous``, ``next``, ``filter``, ``target``,
    ``scale``, ``opacity``. ``data`` has what they show, ``selection`` the positions that pass the filter.

    Raises SwysError: nothing to show; rows, labels or start out of range; models with other classes.
    """

    def __init__(self, models, split, class_names, images=48, method="grad_cam", start=None):
        self.data = data = Explained(models, split, class_names, images, method)
        self.selection = np.arange(len(data.rows))
        if start is not None and start not in self.selection:
            raise SwysError(f"start is {start}; positions run from 0 to {len(data.rows) - 1}")
        place = 1 + int(data.informative()[0] if start is None else start)
        ends, label = {"value": place, "min": 1, "max": len(data.rows)}, {"description_width": "initial"}
        self.slider = widgets.IntSlider(description="image", style=label, **ends)
        self.play = widgets.Play(interval=600, show_repeat=False, **ends)
        widgets.link((self.play, "value"), (self.slider, "value"))
        self.previous, self.next = (widgets.Button(description=word) for word in ("previous", "next"))
        filters = [(f"{key} ({kept.sum()})", key) for key, kept in data.kept.items() if kept.any()]
        self.filter = widgets.Dropdown(description="show", options=filters, style=label)
        targets = [(f"{key} class", key) for key in ("predicted", "true")[: 1 if data.multi_label else 2]]
        targets += [(name, k) for k, name in enumerate(data.class_names)]
        self.target = widgets.Dropdown(description="map explains", options=targets, style=label)
        scales = [("one for a model", "shared"), ("one for each map", "image")]
        self.scale = widgets.Dropdown(description="scale", options=scales, style=label)
        self.opacity = widgets.FloatSlider(value=0.75, max=1, step=0.05, description="opacity", style=label)
        self.views = [widgets.Image(format="png", layout={"width": "100%"}) for _ in ("image", *data.models)]
        self.texts = [widgets.HTML(layout={"height": "112px"}) for _ in self.views]  # so that nothing moves
        self.status, self.legend = widgets.HTML(), widgets.HTML()
        super().__init__(self.arrange())
        self.previous.on_click(lambda _: self.slider.set_trait("value", self.slider.value - 1))
        self.next.on_click(lambda _: self.slider.set_trait("value", self.slider.value + 1))
        self.filter.observe(self.select, "value")
        for control in (self.slider, self.target, self.scale, self.opacity):
            control.observe(self.show, "value")
        self.show()

    def __repr__(self) -> str:
        return f"Grad-CAM browser of {len(self.data.rows)} images (run the notebook to move its slider)"

    def arrange(self) -> list[widgets.Widget]:
        """All that is on the screen, from top to bottom."""
        row = {"flex_flow": "row wrap", "align_items": "center"}
        column = {"max_width": f"{SIDE}px", "overflow": "hidden"}
        titles = [widgets.HTML(f"<b>{html.escape(name)}</b>") for name in ("image", *self.data.models)]
        columns = [widgets.VBox(parts, layout=column) for parts in zip(titles, self.views, self.texts)]
        tracks = f"repeat(auto-fill, minmax(min(44%, {SIDE}px), 1fr))"  # two side by side on a telephone
        grid = widgets.GridBox(columns, layout={"grid_template_columns": tracks, "grid_gap": "4px 14px"})
        move = widgets.HBox([self.play, self.previous, self.next, self.slider, self.filter], layout=row)
        look = widgets.HBox([self.target, self.scale, self.opacity], layout=row)
        return [move, self.status, grid, self.legend, look]

    def select(self, change=None) -> None:
        """Apply the filter; stay on the image where it passes."""
        before = self.selection[self.slider.value - 1]
        self.selection = np.flatnonzero(self.data.kept[self.filter.value])
        self.play.max = self.slider.max = len(self.selection)
        self.slider.value = 1 + int(np.argmax(self.selection == before))
        self.show()

    def show(self, change=None) -> None:
        """Draw the current image: a new value for each picture and text."""
        data, target, scale = self.data, self.target.value, self.scale.value
        i = self.selection[self.slider.value - 1]
        place = f"Image {self.slider.value} of {len(self.selection)}"
        self.status.value = f"{place}, row {data.rows[i]} of the split"
        for view, picture in zip(self.views, data.pictures(i, target, scale, self.opacity.value)):
            view.value = encode(picture, "PNG")
        for box, lines in zip(self.texts, data.texts(i, target)):
            box.value = "".join(f'<div style="{LINE}">{html.escape(line)}</div>' for line in lines)
        own = "each map's own peak, so strengths cannot be compared"
        top = own if scale == "image" else "the highest peak of the model's maps of all images"
        self.legend.value = f"Strongest colour: {top}.<br>Agreement: rank correlation with the first map."

    def contact_sheet(self, n: int = 6) -> Figure:
        """The `n` most informative images that pass the filter as a static figure, one row a model."""
        data, target = self.data, self.target.value
        chosen = [i for i in data.informative() if i in self.selection][: max(n, 1)]
        titles, captions = [], {name: [] for name in data.models}
        for i in chosen:
            (truth, _), *said = data.texts(i, target)
            titles.append(f"row {data.rows[i]}\n{truth:.20}")
            for lines, (answer, verdict, *_) in zip(captions.values(), said):
                lines.append(f"{answer:.20}\n{verdict:.28}")
        maps = {name: data.maps(name, target)[chosen] for name in data.models}
        scale = "model" if self.scale.value == "shared" else "image"
        return heatmap_rows(data.images[chosen], maps, captions, titles, scale)

    def save(self, path: str | Path, title: str = "Where do the models look?") -> Path:
        """Write the images and the maps on show as one web page that needs no kernel and no network."""
        data, target, images = self.data, self.target.value, []
        for i, row in enumerate(data.rows):
            content = {"row": int(row), "texts": data.texts(i, target)}
            content["filters"] = [key for key, kept in data.kept.items() if kept[i]]
            for kind in ("shared", "image"):
                layers = (encode(one, "JPEG") for one in data.pictures(i, target, kind, alpha=1))
                content[kind] = [base64.b64encode(layer).decode("ascii") for layer in layers]
            images.append(content)
        shown = {"columns": ["image", *data.models], "images": images, "scale": self.scale.value}
        shown |= {"place": int(self.selection[self.slider.value - 1]) + 1, "opacity": self.opacity.value}
        text = json.dumps(shown).replace("<", "\\u003c")  # no name may end the script
        page = PAGE.read_text("utf-8").replace("__TITLE__", html.escape(title)).replace("__DATA__", text)
        Path(path).write_text(page, "utf-8")
        return Path(path)


class Explained:
    """Images of a split with each model's answers and heatmaps; arguments as of `GradCAMBrowser`.

    Attributes:
        rows: int (N,), where the images lie in the split. images: uint8 (N, H, W[, 3]).
        scores[model]: probabilities, float (N, C). truth, said[model]: bool (N, C), true classes and those
            that a model names: the most probable one, or in a multi-label set all above 0.5.
        kept[filter]: bool (N,) for "all", "wrong" (some model errs) and "disagree" (two answers differ).
    """

    def __init__(self, models, split, class_names, images, method):
        self.models, self.method, self.class_names = dict(models), method, [str(name) for name in class_names]
        self.rows = split.rows(images) if isinstance(images, int) else np.asarray(images, int)
        if not self.models or not len(self.rows):
            raise SwysError(f"{len(self.models)} models, {len(self.rows)} images; give at least one of each")
        low, high = self.rows.min(), self.rows.max()
        if low < 0 or high >= len(split):
            raise SwysError(f"images are rows {low} to {high}; the split has rows 0 to {len(split) - 1}")
        self.images, labels, c = split.images[self.rows], split.labels[self.rows], len(self.class_names)
        self.multi_label = labels.ndim == 2
        if labels.min() < 0 or (labels.shape[1] != c if self.multi_label else labels.max() >= c):
            raise SwysError(f"labels {labels.min()} to {labels.max()} do not fit {c} class names")
        logits = {name: predict(model, self.images) for name, model in self.models.items()}
        if odd := {name: one.shape[1] for name, one in logits.items() if one.shape[1] != c}:
            raise SwysError(f"{c} class names; models with another number of classes: {odd}")
        task, one_hot = "multi-label" if self.multi_label else "multi-class", np.eye(c, dtype=bool)
        self.scores = {name: probabilities(one, task) for name, one in logits.items()}
        self.truth = labels > 0 if self.multi_label else one_hot[labels]
        self.said = {k: p > 0.5 if self.multi_label else one_hot[p.argmax(1)] for k, p in self.scores.items()}
        answers = np.stack(list(self.said.values()))
        wrong, disagree = ((answers != one).any(axis=(0, 2)) for one in (self.truth, answers[0]))
        self.kept = {"all": np.ones(len(labels), bool), "wrong": wrong, "disagree": disagree}
        self.made: dict[tuple[str, str | int], np.ndarray] = {}

    def classes(self, name: str, target: str | int) -> np.ndarray:
        """The class that each map of a model explains, int (N,). target: "predicted", "true" or a class."""
        if isinstance(target, int):
            return np.full(len(self.rows), target)
        return (self.truth if target == "true" else self.scores[name]).argmax(axis=1)

    def maps(self, name: str, target: str | int) -> np.ndarray:
        """Signed maps of a model, float32 (N, gh, gw), made when they are first asked for."""
        if (name, target) not in self.made:
            options = {"targets": self.classes(name, target), "signed": True}
            self.made[name, target] = heatmaps(self.models[name], self.images, self.method, **options)
        return self.made[name, target]

    def informative(self) -> np.ndarray:
        """Positions by interest: strong maps at an error or a disagreement, strong maps, any, empty ones."""
        peaks = np.stack([self.maps(name, "predicted").max(axis=(1, 2)) for name in self.models])
        full, strong = (peaks > 0).all(axis=0), (peaks > peaks.max(axis=1, keepdims=True) / 4).all(axis=0)
        told = strong & (self.kept["wrong"] | self.kept["disagree"])
        return np.argsort(-1 * full - (full & strong) - (full & told), kind="stable")

    def texts(self, i: int, target: str | int) -> list[list[str]]:
        """Lines on image i and each model at it: answer, probability, verdict, the map's class and peak."""
        names, columns = np.array(self.class_names), []
        for model, scores in self.scores.items():
            said, one = self.said[model][i], self.maps(model, target)[i : i + 1]
            sure = f"{names[scores[i].argmax()]} " if self.multi_label else ""
            sure += f"{scores[i].max():.1%} · {'✓ right' if (said == self.truth[i]).all() else '✗ wrong'}"
            peak = f"peak {one.max():.2g}" if one.max() > 0 else "empty map: nothing for it"
            lines = [", ".join(names[said]) or "no label", sure]
            lines += [f"map for {names[self.classes(model, target)[i]]}", peak]
            if columns:
                first = next(iter(self.models))
                alike = agreement(self.maps(first, target)[i : i + 1], one).spearman[0]
                lines.append(f"agreement {alike:+.2f}")
            columns.append(lines)
        return [[", ".join(names[self.truth[i]]) or "no label", "true class"], *columns]

    def pictures(self, i: int, target: str | int, scale: str, alpha: float) -> list[np.ndarray]:
        """Image i, then the same under each model's map, uint8 (SIDE, SIDE, 3); scale as in the control."""
        image = self.images[i : i + 1]
        drawn = [overlay(image, np.zeros((1, 1, 1)), size=SIDE)[0]]
        for name in self.models:
            maps = self.maps(name, target)
            top = float(maps.max()) if scale == "shared" and maps.max() > 0 else "image"
            drawn.append(overlay(image, maps[i : i + 1], alpha, top, size=SIDE)[0])
        return drawn


def encode(picture: np.ndarray, form: str) -> bytes:
    """An image, uint8 (H, W, 3), as the bytes of a PNG or JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, form)
    return buffer.getvalue()
