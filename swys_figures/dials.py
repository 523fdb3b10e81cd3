"""Widgets to play with: numbers that can be moved, patches that can be covered."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from functools import partial
from textwrap import fill
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from swys_utils.data import Dataset
from swys_utils.metrics import probabilities
from swys_utils.occlusion import occlusion
from swys_utils.training import predict

from .data import GROUPS, as_png, group_names, short_name, show_image
from .html_tables import html_table
from .marks import write_shares

SIDE = 224  # px of a picture on a button's side
FLOOR = 0.2  # log-odds; a patch that takes less does not count for a model
STORED_COVER = "application/vnd.swys.cover+json"  # programs that do not know it pass it by


class QueryDial(widgets.VBox):
    """A query of two numbers to move, and what its token reads from the others.

    Args:
        key: float (N, 2).
        value: float (N, 2).

    Attributes:
        query: a slider for each of its numbers; (1, 0) at first.
        table: fit and share of each token, and the mean of the values.
    """

    def __init__(self, key: Tensor, value: Tensor):
        self.key = key
        self.handed_over = value
        self.query = []
        for name, start in (("query, first", 1.0), ("query, second", 0.0)):
            slider = widgets.FloatSlider(start, min=-6, max=6, step=0.5, description=name)
            slider.style.description_width = "initial"
            slider.observe(self._show, "value")
            self.query.append(slider)
        self.table = widgets.HTML()
        super().__init__([*self.query, self.table])
        self._show()

    def fit(self) -> Tensor:
        """How well the query fits each key, float (N,)."""
        query = torch.tensor([slider.value for slider in self.query])
        return self.key @ query / len(query) ** 0.5

    def shares(self) -> Tensor:
        """Which part is read from each token, float (N,); the sum is 1."""
        return self.fit().softmax(dim=0)

    def _show(self, change: dict | None = None) -> None:
        rows = []
        for number, (fit, share) in enumerate(zip(self.fit(), self.shares()), start=1):
            row = {"token": str(number), "fit": f"{fit:.2f}", "share": f"{share:.0%}"}
            rows.append(row)
        first, second = self.shares() @ self.handed_over
        self.table.value = f"{html_table(rows)}new token: ({first:.2f}, {second:.2f})"

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.0%}" for share in self.shares())
        query = ", ".join(f"{slider.value:.1f}" for slider in self.query)
        return f"Sliders: the query ({query}) reads {shares} (run it to move them)"


class TemperatureDial(widgets.VBox):
    """A temperature to move, and how it softens the answers of a teacher.

    Args:
        logits: of a few images, float (N, 2).
        name: of the second class.

    Attributes:
        temperature: the logits are divided by it before the softmax; 1 at first.
        table: the probability of the second class in each image.
    """

    def __init__(self, logits: Tensor, name: str):
        self.logits = logits.float()
        self.name = name
        self.temperature = widgets.FloatLogSlider(
            1.0,
            base=2,
            min=-3,
            max=5,
            step=0.25,
            description="temperature",
            readout_format=".2f",
        )
        self.table = widgets.HTML()
        super().__init__([self.temperature, self.table])
        self.temperature.observe(self._show, "value")
        self._show()

    def shares(self) -> Tensor:
        """Probability of the second class, float (N,)."""
        return (self.logits / self.temperature.value).softmax(dim=1)[:, 1]

    def _show(self, change: dict | None = None) -> None:
        row = {f"image {number}": f"{p:.1%}" for number, p in enumerate(self.shares(), start=1)}
        self.table.value = f"probability of {html.escape(self.name)}{html_table([row])}"

    def __repr__(self) -> str:
        shares = ", ".join(f"{share:.0%}" for share in self.shares())
        return (
            f"Slider: temperature {self.temperature.value:.2f} gives {shares} (run it to move it)"
        )


class ThresholdDial(widgets.VBox):
    """A threshold and a share of sick children to move, and what becomes of the alarms.

    Args:
        probability: name of a model -> its probability of the class, float (N,).
        sick: which images have the class, bool (N,).
        groups: of ``data.group_names``.

    Attributes:
        threshold: above it the answer is "sick"; 0.5 at first.
        share: how many of 100 children are sick; at first as many as of the images.
        table: what it means for each model.
    """

    def __init__(
        self,
        probability: Mapping[str, np.ndarray],
        sick: np.ndarray,
        groups: tuple[str, str] = GROUPS,
    ):
        self.probability = probability
        self.sick = sick
        self.groups = groups
        self.threshold = widgets.FloatSlider(
            0.5, min=0.02, max=0.98, step=0.02, description="threshold"
        )
        share = int(np.clip(round(100 * sick.mean()), 1, 90))
        self.share = widgets.IntSlider(share, min=1, max=90, description=f"{groups[0]} of 100")
        self.share.style.description_width = "initial"
        self.table = widgets.HTML()
        super().__init__([self.threshold, self.share, self.table])
        for slider in (self.threshold, self.share):
            slider.observe(self._show, "value")
        self._show()

    def rows(self) -> list[dict[str, str]]:
        """A row for each model, at the threshold and the share that are set."""
        share = self.share.value / 100
        sick, healthy = self.groups
        rows = []
        for name, p in self.probability.items():
            alarm = p > self.threshold.value
            found = alarm[self.sick].mean()
            false = alarm[~self.sick].mean()
            alarms = share * found + (1 - share) * false
            true = f"{10 * share * found / alarms:.1f} of 10" if alarms > 0 else "no alarm"
            well = (1 - share) * (1 - false) / (1 - alarms) if alarms < 1 else 0.0
            cells = {
                "model": name,
                f"{sick} found": f"{100 * found:.0f} of 100",
                f"{healthy} cleared": f"{100 * (1 - false):.0f} of 100",
                "alarms right": true,
                "cleared right": f"{10 * well:.1f} of 10" if alarms < 1 else "none cleared",
            }
            rows.append(cells)
        return rows

    def _show(self, change: dict | None = None) -> None:
        self.table.value = html_table(self.rows())

    def __repr__(self) -> str:
        settings = (
            f"threshold {self.threshold.value:.2f}, {self.share.value} of 100 are {self.groups[0]}"
        )
        return f"Sliders: {settings} (run it to move them)"  # ipywidgets shows 110 letters


class PatchCover(widgets.VBox):
    """A picture whose patches can be covered one by one, and what models then answer.

    Args:
        models: name -> model; all are asked after each press. Their patches are of one size.
        data: says what its classes are.
        pictures: what to choose from, title -> image, uint8 (H, W) or (H, W, 3).
        asked: the class whose probability is shown.

    Attributes:
        choice: which picture is shown.
        buttons: one for each patch, row by row; pressed means covered.
        answer: what the models say.
    """

    def __init__(
        self,
        models: Mapping[str, VisionTransformer],
        data: Dataset,
        pictures: Mapping[str, np.ndarray],
        asked: int = 1,
    ):
        self.models = models
        self.task = data.info.task
        self.pictures = pictures
        self.multi_label = data.info.multi_label
        self.asked = asked
        self.name = short_name(data, asked)
        self.group, _ = group_names(data, asked)
        rows, columns = next(iter(models.values())).patch_embed.grid_size
        self.grid = (rows, columns)
        self.choice = widgets.Dropdown(options=list(pictures), description="picture")
        self.buttons = []
        for place in range(rows * columns):
            words = f"cover row {place // columns + 1}, column {place % columns + 1}"
            layout = {"width": f"{SIDE // columns - 4}px", "margin": "2px"}
            self.buttons.append(widgets.ToggleButton(tooltip=words, layout=layout))
        columns_of_buttons = f"repeat({columns}, {SIDE // columns}px)"
        board = widgets.GridBox(self.buttons, layout={"grid_template_columns": columns_of_buttons})
        self.shown = widgets.Image(width=SIDE, height=SIDE)
        self.answer = widgets.HTML()
        both = widgets.HBox([self.shown, board], layout={"flex_flow": "row wrap"})
        super().__init__([self.choice, both, self.answer])
        for control in (self.choice, *self.buttons):
            control.observe(self._show, "value")
        self._show()

    def covered(self) -> np.ndarray:
        """The picture as the model sees it: pressed patches have its mean colour."""
        pressed = [place for place, button in enumerate(self.buttons) if button.value]
        return self.without(self.pictures[self.choice.value], pressed)

    def without(self, picture: np.ndarray, places: Sequence[int]) -> np.ndarray:
        """A picture in which patches have its mean colour.

        Args:
            picture: uint8 (H, W) or (H, W, 3).
            places: numbers of the patches, row by row.
        """
        shown = picture.copy()
        rows, columns = self.grid
        down = np.arange(rows + 1) * picture.shape[0] // rows
        across = np.arange(columns + 1) * picture.shape[1] // columns
        mean = picture.mean(axis=(0, 1)).round().astype(np.uint8)
        for place in places:
            row, column = divmod(place, columns)
            shown[down[row] : down[row + 1], across[column] : across[column + 1]] = mean
        return shown

    def figure(self) -> Figure:
        """Each picture as it is, then without one of its patches.

        Of several models, a patch each: the one whose covering takes most of the score of the class
        that is asked about, and at least ``FLOOR``. Of a single model, three: this one, one in the
        middle, and the last.
        A frame marks a picture for which a model changes its answer.
        """
        rows = []
        for title, picture in self.pictures.items():
            rows.append([(fill(title, width=26), picture)])
            for place, names in self._places(picture).items():
                words = self._words(place)
                if len(self.models) > 1:
                    words += "\n" + fill(f"counts most for {', '.join(names)}", width=26)
                rows[-1].append((words, self.without(picture, [place])))
        count = max(len(row) for row in rows)
        lines = max(words.count("\n") for row in rows for words, _ in row) + len(self.models)
        size = (2.05 * count, (1.95 + 0.2 * lines) * len(rows))  # inches; pictures are 1.9 high
        figure, axes = plt.subplots(len(rows), count, figsize=size, squeeze=False)
        figure.set_layout_engine("constrained", h_pad=0.06)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[], frame_on=False)
        for row, panels in zip(axes, rows):
            _, first = panels[0]
            uncovered = self.shares(first)
            for ax, (title, picture) in zip(row, panels):
                show_image(ax, picture)
                ax.set_title(title, fontsize=10)
                write_shares(ax, self.group, self.shares(picture), uncovered)
        framed = any(ax.get_frame_on() for ax in axes.flat)
        words = "; in the frame the answer changes" if framed else ""
        figure.suptitle(f"probability of {self.name}{words}", fontsize=11)
        return figure

    def _words(self, place: int) -> str:
        """Which patch is covered."""
        last = self.grid[0] - 1
        end = self.grid[1] - 1
        corners = {
            (0, 0): "upper left",
            (0, end): "upper right",
            (last, 0): "lower left",
            (last, end): "lower right",
        }
        row, column = divmod(place, self.grid[1])
        if (row, column) in corners:
            return f"{corners[row, column]} corner covered"
        return f"row {row + 1}, column {column + 1} covered"

    def _places(self, picture: np.ndarray) -> dict[int, list[str]]:
        """The patches that ``figure`` covers in a picture -> the models that chose them."""
        places: dict[int, list[str]] = {}
        for name, model in self.models.items():
            side = model.patch_embed.img_size[0] // self.grid[0]  # one grid for all models
            hide = partial(occlusion, patch=side, multi_label=self.multi_label)
            lost = hide(model, picture[None], self.asked)[0]
            order = (-lost).argsort(axis=None).tolist()
            chosen = order[:1] if lost.max() >= FLOOR else []
            if len(self.models) == 1:
                chosen = [order[0], order[len(order) // 2], order[-1]]
            for place in chosen:
                places.setdefault(place, []).append(name)
        return places

    def says(self, picture: np.ndarray) -> str:
        """How probable the class that is asked about is to each model.

        Args:
            picture: uint8 (H, W) or (H, W, 3).
        """
        return ", ".join(f"{name} {share:.0%}" for name, share in self.shares(picture).items())

    def shares(self, picture: np.ndarray) -> dict[str, float]:
        """The same as numbers: name of a model -> probability.

        Args:
            picture: uint8 (H, W) or (H, W, 3).
        """
        return {name: float(p[0]) for name, p in self._asked_about([picture]).items()}

    def stored(self) -> dict[str, Any]:
        """What covering each patch by itself does, for a page on which no model runs.

        Returns:
            ``asked``: name of the class; ``grid``: rows and columns of patches; ``models``: names;
            ``pictures``: of each its ``title``, ``png`` in base64, ``mean`` as a colour of CSS,
            ``whole``: the probability by each model, and ``covered``: the same without each patch,
            row by row.
        """
        rows, columns = self.grid
        pictures = []
        for title, picture in self.pictures.items():
            variants = [picture]
            for place in range(rows * columns):
                variants.append(self.without(picture, [place]))
            by_model = np.array(list(self._asked_about(variants).values()))
            whole, *covered = by_model.T.round(4).tolist()
            red, green, blue = np.broadcast_to(picture.mean(axis=(0, 1)).round().astype(int), 3)
            stored = {
                "title": title,
                "png": base64.b64encode(as_png(picture)).decode("ascii"),
                "mean": f"rgb({red} {green} {blue})",
                "whole": whole,
                "covered": covered,
            }
            pictures.append(stored)
        return {
            "asked": self.name,
            "grid": list(self.grid),
            "models": list(self.models),
            "pictures": pictures,
        }

    def _asked_about(self, pictures: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Name of a model -> probability of the class that is asked about, float (N,)."""
        asked = {}
        for name, model in self.models.items():
            p = probabilities(predict(model, np.stack(pictures)), self.task)
            asked[name] = p[:, self.asked]
        return asked

    def _show(self, change: dict[str, Any] | None = None) -> None:
        picture = self.covered()
        self.shown.value = as_png(picture)
        count = sum(button.value for button in self.buttons)
        says = f"{self.name}: {self.says(picture)}"
        self.answer.value = f"<b>{html.escape(says)}</b>, with {count} patches covered"

    def __repr__(self) -> str:
        lines = []
        for title, picture in self.pictures.items():
            lines.append(f"{title}: {self.says(picture)}")
        return "\n".join([*lines, "(run it to cover patches)"])

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """What a notebook shows and stores; ipywidgets cuts the text after 110 letters."""
        shown = super()._repr_mimebundle_(**options)
        return shown | {"text/plain": repr(self), STORED_COVER: self.stored()}
