"""Checks of a reader's answers to the exercises: each one says what is wrong, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .config import SwysError, unknown
from .distillation import soft_target_loss
from .explain import agreement, randomisation_check
from .gradcam import grad_cam, hires_cam
from .vit_internals import evaluation_mode

Check = Callable[..., str]  # (answer, *given) -> a hint, or "" where the answer is right
CHECKS: dict[str, Check] = {}


def register(name: str) -> Callable[[Check], Check]:
    """Add a check to the table, as a decorator of its function.

    Args:
        name: what the reader gives to :func:`check`.
    """

    def add(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return add


def check(name: str, answer: Any, *given: Any) -> None:
    """Print what is wrong with an answer to an exercise, or that it is right.

    Args:
        name: of the exercise, as its starter cell has it.
        answer: the reader's; ``...`` is a starter cell that nobody has filled in.
        *given: what the check needs to know, such as the data; each exercise says what.

    Raises:
        SwysError: there is no such exercise.
    """
    if name not in CHECKS:
        raise SwysError(unknown("exercise", name, CHECKS))
    if answer is None:
        print(f"{name}: there is no answer yet (None). Does your function end with return?")
        return
    parts = answer if isinstance(answer, tuple) else (answer,)
    if any(part is ... for part in parts):
        print(f"{name}: put your answer in place of the dots (...), then run the cell again.")
        return
    hint = CHECKS[name](answer, *given)
    if hint:
        print(f"{name}: not yet. {hint}")
    else:
        print(f"{name}: right.")


@register("other shares")
def _shares(answer: float, healthy: float, sick: float, share: float) -> str:
    expected = share * sick + (1 - share) * healthy
    if abs(answer - 100 * expected) < 0.1:
        return "Give a fraction from 0 to 1, not a percentage."
    if abs(answer - share * healthy - (1 - share) * sick) < 1e-3:
        return "You have exchanged the sick and the healthy."
    return "" if abs(answer - expected) < 1e-3 else "Weight each rate by the share of its group."


@register("moved")
def _moved(answer: np.ndarray, images: np.ndarray) -> str:
    if np.shape(answer) != images.shape:
        return f"The shape is {np.shape(answer)}, but {images.shape} went in."
    if np.array_equal(answer, np.roll(images, 2, axis=1)):
        return "They moved down: the columns are axis 2, the rows axis 1."
    right = np.array_equal(answer[:, :, 2:], images[:, :, :-2])
    return "" if right else "Column 2 of the result should be column 0 of the image."


@register("weights as an image")
def _weights(answer: np.ndarray, coefficients: np.ndarray) -> str:
    shape = np.shape(answer)
    if len(shape) != 2 or shape[0] != shape[1]:
        return f"The image is a square, this has the shape {shape}; use reshape."
    if coefficients.size % (shape[0] * shape[1]):
        return f"The shape is {shape}, but the model has {coefficients.size} weights."
    image = coefficients.reshape(*shape, -1).mean(axis=2)
    return "" if np.allclose(answer, image) else "These are not the model's weights in their order."


@register("query")
def _query(answer: Any, key: Tensor) -> str:
    answer = torch.as_tensor(answer, dtype=key.dtype)
    if tuple(answer.shape) != (key.shape[1],):
        return f"A query has {key.shape[1]} numbers, this has the shape {tuple(answer.shape)}."
    shares = (key @ answer / key.shape[1] ** 0.5).softmax(dim=0).tolist()
    if shares[1] >= 0.9:
        return ""
    read = ", ".join(f"{share:.0%}" for share in shares)
    if key[1] @ answer > 0 >= key[2] @ answer:
        return f"It reads {read} from the three tokens. The direction is right: make it longer."
    return f"It reads {read} from the three tokens. Which numbers fit key 2 and not key 3?"


@register("shuffled")
def _shuffled(answer: Any, tokens: Tensor) -> str:
    if not isinstance(answer, Tensor):
        return f"Give one tensor, as it went in; this is a {type(answer).__name__}."
    if answer.shape != tokens.shape:
        return f"The shape is {tuple(answer.shape)}, but {tuple(tokens.shape)} went in."
    if not torch.equal(answer[:, 0], tokens[:, 0]):
        return "CLS, the first token, has to stay where it is."
    if torch.equal(answer, tokens):
        return "The patch tokens are still in their order."
    same = torch.allclose(answer.sum(dim=1), tokens.sum(dim=1), atol=1e-3)
    return "" if same else "These are not the same tokens; only their order may change."


@register("forward pass")
def _forward_pass(answer: Any, vit: VisionTransformer, images: Tensor) -> str:
    if not isinstance(answer, Tensor):
        return f"Return the logits alone, one tensor; this is a {type(answer).__name__}."
    with evaluation_mode(vit), torch.no_grad():
        logits = vit(images)
        tokens = vit.blocks(vit._pos_embed(vit.patch_embed(images)))
        cls = vit.cls_token.expand(len(images), -1, -1)
        without_places = vit.blocks(torch.cat([cls, vit.patch_embed(images)], dim=1))
        hints = {
            "": logits,
            "The last normalisation is missing: vit.norm, before the head.": vit.head(tokens[:, 0]),
            "The position embedding is missing: add vit.pos_embed to the tokens.": vit.head(
                vit.norm(without_places)[:, 0]
            ),
            "The head reads CLS alone, which is token 0.": vit.head(vit.norm(tokens).mean(dim=1)),
        }
    if answer.shape != logits.shape:
        return f"The shape is {tuple(answer.shape)}, but the logits have {tuple(logits.shape)}."
    for hint, with_this_slip in hints.items():
        if torch.allclose(answer, with_this_slip, atol=1e-3):
            return hint
    return "A block adds attention and MLP to the tokens; both read them normalised."


@register("HiResCAM")
def _hires_cam(answer: Tensor, model: VisionTransformer, inputs: Tensor, target: int) -> str:
    wanted = hires_cam(model, inputs, target).cpu()
    maps = torch.as_tensor(answer).detach().cpu()
    if maps.shape != wanted.shape:
        return f"The shape is {tuple(maps.shape)}, expected {tuple(wanted.shape)}."
    near = 1e-3 * float(wanted.max())
    if torch.allclose(maps, wanted, rtol=1e-3, atol=near):
        return ""
    if torch.allclose(maps, grad_cam(model, inputs, target).cpu(), atol=near):
        return "This is still Grad-CAM: leave out the mean of the gradient over the patches."
    return "Multiply gradient and activation, add up the channels, then the ReLU."


@register("habit")
def _habit(answer: tuple[float, ...], first: np.ndarray, second: np.ndarray) -> str:
    if np.ndim(answer) != 1 or len(answer) < 2:
        return "Give two numbers: (agreement, beyond chance)."
    agreed, *_, beyond = answer  # chance may stand between them
    habit = 0 * second + second.mean(axis=0)
    if not np.isclose(agreed, np.nanmean(agreement(first, habit)), atol=1e-3):
        return "Compare each map of the first model with the mean of all maps of the second."
    if not np.isclose(beyond, 0, atol=0.05):
        return "The map of another child is the same mean, so chance is the agreement itself."
    return ""


@register("true alarms")
def _true_alarms(answer: float, sensitivity: float, specificity: float) -> str:
    sick = 0.05
    found = sick * sensitivity
    alarms = found + (1 - sick) * (1 - specificity)
    if answer > 1:
        return "Give a fraction from 0 to 1."
    if abs(answer - sensitivity) < 1e-6:
        return "That is the share of the sick who get an alarm; asked is the other way round."
    right = abs(answer - found / alarms) < 0.005
    return "" if right else "Of 1,000 children 50 are sick. How many alarms are there in all?"


@register("how many images")
def _how_many_images(answer: float) -> str:
    if abs(answer - 500) < 50:
        return "This is where the difference is once its standard error; it should be twice."
    right = 1500 < answer < 2500
    return "" if right else "Solve 0.01 = 2 * sqrt(0.05 / n) for n."


@register("soft targets")
def _soft_targets(answer: Tensor) -> str:
    answer = torch.as_tensor(answer)
    if tuple(answer.shape) != (1, 3):
        return f"The shape is {tuple(answer.shape)}; three logits went in, of one image."
    if abs(float(answer.sum()) - 1) > 1e-4:
        return "The three shares have to sum to 1: softmax over dim=1, and nothing after it."
    right = answer[0, 0] > 0.99
    hint = "A low temperature leaves nearly all on one class: divide the logits by T, then softmax."
    return "" if right else hint


@register("two models")
def _two_models(answer: tuple) -> str:
    if [np.shape(weights) for weights in answer] != [(2,), (2,)]:
        return "Give two lists of two numbers: (a, b)."
    if not np.isclose(sum(answer[0]), sum(answer[1])):
        return "With x[0] = x[1] = 1 they answer differently: the sums of the weights differ."
    read = [[weight != 0 for weight in weights] for weights in answer]
    return "Both read the same patches." if read[0] == read[1] else ""


@register("attention costs more")
def _attention_costs_more(answer: float, width: int) -> str:
    if answer == 6 * width:
        return ""
    return "Set 12 n d^2 equal to 2 n^2 d, and divide both sides by 2 n d."


@register("one scale")
def _one_scale(answer: Tensor, weights: Tensor) -> str:
    answer = torch.as_tensor(answer).to(weights)
    scale = weights.abs().max() / 64
    if answer.shape != weights.shape:
        return f"The shape is {tuple(answer.shape)}, but {tuple(weights.shape)} went in."
    if torch.allclose(answer, (weights / scale).round()):
        return "These are the whole numbers: multiply them by the scale again."
    row_scales = weights.abs().amax(dim=1, keepdim=True) / 64
    if torch.allclose(answer, (weights / row_scales).round() * row_scales):
        return "This has a scale for each row; take one for the whole matrix."
    right = torch.allclose(answer, (weights / scale).round() * scale)
    return "" if right else "The scale is the largest absolute weight divided by 64."


@register("random weights")
def _random_weights(answer: int, model: VisionTransformer, images: np.ndarray) -> str:
    correlations = randomisation_check(model, images)
    means = [np.nanmean(np.abs(values)) for values in correlations.values()]
    below = [stage for stage, mean in enumerate(means) if mean < 0.5]
    wanted = below[0] if below else len(means)
    if answer == wanted + 1:
        return "The first stage is the head, which is no block: begin to count with 0."
    return "" if answer == wanted else "Take the first stage whose mean is below 0.5."


@register("mixed loss")
def _mixed_loss(answer: Tensor, logits: Tensor, targets: Tensor, teacher_logits: Tensor) -> str:
    answer = torch.as_tensor(answer, dtype=logits.dtype)
    hard = torch.nn.functional.cross_entropy(logits, targets)
    soft = soft_target_loss(logits, teacher_logits, 2.0)
    if torch.allclose(answer, hard + soft, atol=1e-4):
        return "The two parts have the weights 1 - alpha and alpha."
    if torch.allclose(answer, 0.7 * hard + 0.3 * soft / 4, atol=1e-4):
        return "The factor T**2 of the soft loss is missing."
    right = torch.allclose(answer, 0.7 * hard + 0.3 * soft, atol=1e-4)
    return "" if right else "With alpha 0.3: 0.7 of the cross-entropy plus 0.3 of the soft loss."


@register("bits")
def _bits(answer: Tensor, weights: Tensor) -> str:
    answer = torch.as_tensor(answer).to(weights)
    if answer.shape != weights.shape:
        return f"The shape is {tuple(answer.shape)}, but {tuple(weights.shape)} went in."
    scale = weights.abs().amax(dim=1, keepdim=True) / 7
    if torch.allclose(answer, (weights / scale).round()):
        return "These are the whole numbers: multiply them by the scale again."
    right = torch.allclose(answer, (weights / scale).round() * scale)
    return "" if right else "With 4 bits the largest weight of each row becomes 7."


@register("pairs")
def _pairs(answer: float, cheats: list[float], students: list[float]) -> str:
    share = np.mean([student < cheat for student in students for cheat in cheats])
    if answer > 1:
        return "Give a fraction: divide by the number of pairs."
    if abs(answer - share) < 1e-3:
        return ""
    by_start = [student < cheat for student, cheat in zip(students, cheats)]
    if abs(answer - np.mean(by_start)) < 1e-3:
        return "You compared start by start; compare each cheat with each student."
    return "In what share of all pairs does the student turn fewer?"


@register("two rings")
def _two_rings(answer: tuple, sick: Callable[[list[int]], float]) -> str:
    if len(answer) != 2 or np.shape(answer[0]) != (4,):
        return "Give (alone, both): four numbers, and one."
    lost = [sick([]) - sick([patch]) for patch in range(4)]
    lost.append(sick([]) - sick([0, 3]))
    right = np.allclose([*answer[0], answer[1]], lost, atol=1e-3)
    return "" if right else "Take sick([0]) from sick([]), then sick([1]), and so on."


@register("same answers, same maps")
def _same_answers(answer: tuple, study: dict) -> str:
    means: dict[str, list[list[float]]] = {}
    for run in study["runs"]:
        alike = study["maps"]["grad_cam"]["runs"][run["id"]]["spearman"]
        means.setdefault(run["group"], []).append([alike, run["same_prediction"]])
    with_maps = np.mean(means["Tiny, answers + maps"], axis=0)
    more = with_maps - np.mean(means["Tiny, answers"], axis=0)
    if np.shape(answer) != (2,):
        return "Give two differences: (of the maps, of the answers)."
    right = np.allclose(answer, more, atol=5e-3)
    return "" if right else "From the mean of Tiny, answers + maps take that of Tiny, answers."


@register("how many seeds")
def _how_many_seeds(answer: float, differences: list[float]) -> str:
    pairs = (2.8 * np.std(differences, ddof=1) / 0.2) ** 2
    if answer == np.ceil(pairs):
        return ""
    if abs(answer - (2.8 * np.std(differences) / 0.2) ** 2) < 1:
        return "Of a few runs, divide by n - 1: np.std(..., ddof=1)."
    return "Here e is 0.2 and s the standard deviation of the differences. Round up."


@register("levels")
def _levels(answer: np.ndarray, images: np.ndarray) -> str:
    of_levels = [(images // 32 == level).mean(axis=(1, 2)) for level in range(8)]
    wanted = np.stack(of_levels, axis=1).reshape(len(images), -1)
    if np.shape(answer) != wanted.shape:
        return f"The shape is {np.shape(answer)}, expected {wanted.shape}."
    right = np.allclose(np.sort(answer), np.sort(wanted), atol=1e-3)  # in whatever order
    return "" if right else "images // 32 is the level of each pixel. Give shares, not counts."


@register("heat on the dark")
def _heat_on_the_dark(answer: list[float], maps: list[np.ndarray], dark: np.ndarray) -> str:
    if np.shape(answer) != (len(maps),):
        return f"Give one share for each of the {len(maps)} models."
    wanted = []
    for heat in maps:
        kept = heat.any(axis=(1, 2))
        on_the_dark = (heat * dark)[kept].sum(axis=(1, 2))
        of_all = heat[kept].sum(axis=(1, 2))
        wanted.append((on_the_dark / of_all).mean())
    # a model whose maps are all empty has no share
    right = np.allclose(answer, wanted, atol=5e-3, equal_nan=True)
    return "" if right else "Of each map that is not empty: heat on the dark, divided by all heat."


@register("smallest patch")
def _smallest_patch(answer: int, cost: Callable[[int], float], budget: float) -> str:
    if answer != int(answer) or answer < 1:
        return "Give a whole number of pixels."
    if 224 % answer:
        return f"224 pixels cannot be cut into patches of {answer}."
    if cost(answer) > budget:
        return f"This costs {cost(answer) / budget:.1f} times your budget."
    fit = any(cost(side) <= budget for side in range(4, answer) if 224 % side == 0)
    return "It fits, but smaller patches would fit, too." if fit else ""


@register("patients in two splits")
def _patients(answer: int, patients: np.ndarray, splits: np.ndarray) -> str:
    shared = [one for one in set(patients) if len(set(splits[patients == one])) > 1]
    if answer == len(shared):
        return ""
    if answer == np.isin(patients, shared).sum():
        return "You counted images; count the patients."
    return "For each patient, look at the splits of its images: is there more than one?"
