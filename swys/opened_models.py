"""Models of any kind, opened so that two of them can be compared: answers, maps, size, speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from swys_utils.config import SwysError, reason_of
from swys_utils.data import to_model_input
from swys_utils.models import count_parameters
from swys_utils.vit_internals import evaluation_mode

from .map_makers import ToLogits, ToMaps, kind_of_input, map_maker
from .preprocessing import Preprocessing, from_timm, given
from .suspicions import many_zeros

BATCH = 64
SMALLEST_PROBABILITY = 1e-12
SUM_TOLERANCE = 0.02  # probabilities in 8 bits add up to 1 only nearly
NO_MAP_OF_A_FUNCTION = "a function gives answers only; occlusion needs no more"

ToInput = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class OpenedModel:
    """A model that answers and, where it can be, is explained.

    Attributes:
        name: what the reader calls it.
        kind: what it is, in words.
        prepare: uint8 images (N, S, S[, 3]) -> model input.
        answer: model input -> logits (N, C), or probabilities.
        preprocessing: what ``prepare`` does, in words.
        img_size: side of the images that serve it best, px; 0 where any do.
        num_classes: number of its classes; 0 where only its answers tell.
        class_names: of its classes, where it knows them.
        draw: model input and classes (N,) -> signed Grad-CAM maps (N, gh, gw), or None.
        map_layer: where the maps are taken; or, without maps, why there are none.
        parameters: number of weights; 0 where unknown.
        size_bytes: of its weights as they are stored; 0 where unknown.
        batch_size: number of images that it is given at once.
        fixed_batch: number of images that it insists on, fewer are filled up; 0 where it does not.
        notes: what the reader should know of how it was opened, one line each.
        probabilities: whether it answers with probabilities, which ``scores`` takes the log of.
    """

    name: str
    kind: str
    prepare: ToInput
    answer: ToLogits
    preprocessing: str
    img_size: int = 0
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    draw: ToMaps | None = None
    map_layer: str = NO_MAP_OF_A_FUNCTION
    parameters: int = 0
    size_bytes: int = 0
    batch_size: int = BATCH
    fixed_batch: int = 0
    notes: tuple[str, ...] = field(default=())
    probabilities: bool = False

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Logits of images, batch by batch.

        Args:
            images: uint8 (N, S, S) or (N, S, S, 3).

        Returns:
            float32 (N, C). Where the model gives probabilities, their logarithm.

        Raises:
            SwysError: it cannot read these images, or an answer is no finite number.
        """
        answers = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            logits = self._one_batch(batch)
            if logits.shape[:1] != (len(batch),) or logits.ndim != 2 or logits.shape[1] < 2:
                shape = tuple(logits.shape)
                hint = " (of a single logit z make 0 and z)" if shape[-1:] == (1,) else ""
                raise SwysError(
                    f"'{self.name}' answers {len(batch)} images with {shape}; it has to give one"
                    f" row of two or more class scores for each{hint}"
                )
            answers.append(logits)
        logits = np.concatenate(answers)
        if not np.isfinite(logits).all():
            row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise SwysError(
                f"'{self.name}' gives a score that is no finite number (image {row} of a batch);"
                " look for a division by zero or an overflow in it"
            )
        return log_of(logits) if self.probabilities else logits

    def maps(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Signed Grad-CAM maps of images.

        Args:
            images: uint8 (N, S, S) or (N, S, S, 3).
            targets: the classes to explain, int (N,).

        Returns:
            float32 (N, gh, gw).

        Raises:
            SwysError: the model cannot be explained, with the reason.
        """
        if self.draw is None:
            raise SwysError(f"no map of '{self.name}': {self.map_layer}")
        maps = []
        for start in range(0, len(images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            maps.append(self._maps_of_a_batch(images[batch], targets[batch]))
        return np.concatenate(maps)

    def _one_batch(self, images: np.ndarray) -> np.ndarray:
        """What the model answers to one batch, float32; what goes wrong inside it is one line."""
        with self._guarded(images), torch.no_grad():
            answers = torch.as_tensor(self.answer(self.prepare(images)))
            return answers.detach().float().cpu().numpy()

    def _maps_of_a_batch(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Signed maps of one batch, float32; what goes wrong inside the model is one line."""
        assert self.draw is not None
        with self._guarded(images):
            return self.draw(self.prepare(images), targets).float().cpu().numpy()

    @contextmanager
    def _guarded(self, images: np.ndarray) -> Iterator[None]:
        """Whatever a stranger's model raises in the block becomes a SwysError of one line."""
        try:
            yield
        except SwysError:
            raise
        except Exception as error:  # a model of a reader may raise anything
            reason = reason_of(error, with_kind=True)
            shape = images.shape[1:]
            raise SwysError(f"'{self.name}' cannot read images {shape} ({reason})") from None


def are_probabilities(answers: np.ndarray) -> bool:
    """Whether answers look like those of a model that ends in a softmax.

    Args:
        answers: float (N, C), of many images: a single row of logits may add up to 1, too.
    """
    sums = answers.sum(axis=1)
    return bool(answers.min() >= 0 and np.allclose(sums, 1, atol=SUM_TOLERANCE))


def log_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits of probabilities: their logarithm.

    Args:
        probabilities: float (N, C).

    Returns:
        float32 (N, C).
    """
    return np.log(probabilities.clip(SMALLEST_PROBABILITY)).astype(np.float32)


def opened_vit(model: VisionTransformer, name: str, **facts) -> OpenedModel:
    """A model of this project: it reads images as ``to_model_input`` makes them.

    Args:
        model: a plain timm ViT.
        name: what the reader calls it.
        **facts: fields of `OpenedModel` that are known.
    """
    size = model.patch_embed.img_size[0]
    opened = opened_module(model, name, Preprocessing(size=size), **facts)

    def prepare(images: np.ndarray) -> Tensor:
        return to_model_input(images, size).to(**kind_of_input(model))

    return replace(
        opened,
        prepare=prepare,
        preprocessing=f"{size} x {size} px, bilinear, x / 127.5 - 1 (this project's models)",
    )


def opened_module(
    model: nn.Module,
    name: str,
    preprocessing: Preprocessing,
    layer: str = "",
    answer: ToLogits | None = None,
    **facts,
) -> OpenedModel:
    """Any torch model.

    Args:
        model: gives logits for model input, or ``answer`` makes them.
        name: what the reader calls it.
        preprocessing: how it wants its images.
        layer: where Grad-CAM is taken; "" is the usual place.
        answer: model input -> logits, where ``model(pixels)`` gives something else.
        **facts: fields of `OpenedModel` that are known.
    """
    forward = answer or model

    def prepare(images: np.ndarray) -> Tensor:
        return preprocessing(images).to(**kind_of_input(model))

    def logits(pixels: Tensor) -> Tensor:
        with evaluation_mode(model):
            return forward(pixels)

    draw, map_layer = map_maker(model, forward, layer, preprocessing)
    known: dict[str, Any] = {
        "kind": type(model).__name__,
        "img_size": preprocessing.resized,
        "parameters": count_parameters(model),
        "size_bytes": module_bytes(model),
        "notes": (),
    }
    known |= facts
    known["notes"] += many_zeros(model)
    return OpenedModel(
        name=name,
        prepare=prepare,
        answer=logits,
        preprocessing=str(preprocessing),
        draw=draw,
        map_layer=map_layer,
        **known,
    )


def opened_function(function: Callable, name: str) -> OpenedModel:
    """A function from Python.

    Args:
        function: uint8 images (N, S, S[, 3]) -> scores (N, C).
        name: what the reader calls it.
    """

    def as_is(images: np.ndarray) -> Tensor:
        return images  # type: ignore[return-value]

    return OpenedModel(
        name=name,
        kind="a Python function",
        prepare=as_is,
        answer=function,
        preprocessing="its own",
    )


def module_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights and buffers as they are in memory.

    Args:
        model: any module.
    """
    total = 0
    for value in model.state_dict().values():
        if isinstance(value, Tensor):
            total += value.nbytes
        elif isinstance(value, tuple):  # packed weights of torch's int8 layers
            total += sum(part.nbytes for part in value if isinstance(part, Tensor))
    return total


def from_python(model: object, name: str, preprocessing: str = "", layer: str = "") -> OpenedModel:
    """A model or a function that a reader has in Python.

    Args:
        model: an `OpenedModel`, a timm model (its data configuration is used), another torch
            model (ImageNet's values are assumed), or a function from uint8 images to scores.
        name: what the report calls it.
        preprocessing: as for ``preprocessing.given``, of torch models.
        layer: where Grad-CAM is taken; "" is the usual place.

    Returns:
        The opened model.

    Raises:
        SwysError: it is none of these, or the preprocessing is impossible.
    """
    if isinstance(model, OpenedModel):
        return model
    if isinstance(model, nn.Module):
        return opened_module(model, name, given(preprocessing, own_preprocessing(model)), layer)
    if callable(model):
        return opened_function(model, name)
    kind = type(model).__name__
    raise SwysError(f"{name} is a {kind}; give a path, a torch model, or a function of images")


def own_preprocessing(model: nn.Module) -> Preprocessing:
    """What a timm model's data configuration says; ImageNet's values for any other.

    A network whose first convolution takes one channel gets their means.

    Args:
        model: any module.
    """
    config = getattr(model, "pretrained_cfg", None)
    own = from_timm(resolve_model_data_config(model)) if config else Preprocessing()
    first = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != 1:
        return own
    mean = float(np.mean(own.mean))
    std = float(np.mean(own.std))
    return replace(own, mean=(mean,), std=(std,))


def short_path(path: Path) -> str:
    """A file or folder with the name of the folder that it is in, such as ``new/model.onnx``.

    Args:
        path: of a model.
    """
    return str(Path(*path.absolute().parts[-2:]))  # a link keeps its own name


def check_same_classes(models: Sequence[OpenedModel]) -> None:
    """Refuse models that cannot be compared.

    Args:
        models: two or three.

    Raises:
        SwysError: they are known to have other numbers of classes.
    """
    refuse_other_counts([(each.name, each.num_classes) for each in models if each.num_classes])


def refuse_other_counts(counts: Sequence[tuple[str, int]]) -> None:
    """Refuse models of other numbers of classes.

    Args:
        counts: name and number of classes of each model.

    Raises:
        SwysError: the numbers differ.
    """
    if len({count for _, count in counts}) > 1:
        shown = ", ".join(f"'{name}' has {count}" for name, count in counts)
        raise SwysError(f"other numbers of classes: {shown}; compare models of one task")
