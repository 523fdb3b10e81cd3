"""What looks like a mistake in a comparison rather than like a loss: one line each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import nn

REORDERED_SHARE = 0.6  # of the images of each class that another order of classes explains
REORDERED_GAIN = 0.3  # in answers that are the same, once the order is mended
FEWEST_OF_A_CLASS = 5
ABOVE_CHANCE = 0.1  # accuracy above the commonest class's share that shows that a model works
ONE_ANSWER = 0.95
ZEROS_WORTH_A_LINE = 0.1  # share of the weights
GOOD_AUC = 0.85  # of a model that ranks images well, whatever its threshold


def other_order(
    answers_a: np.ndarray, answers_b: np.ndarray, class_names: Sequence[str]
) -> str | None:
    """Whether B has the classes of A in another order.

    Then the table of both models' answers is nearly a permutation, and not the identity.

    Args:
        answers_a: int (N,).
        answers_b: int (N,), of the same images.
        class_names: C names.

    Returns:
        One line, or None.
    """
    moved = _moved_classes(answers_a, answers_b, len(class_names))
    if not moved:
        return None
    some = []
    for row, column in moved[:3]:
        some.append(f"A's '{class_names[row]}' is B's '{class_names[column]}'")
    return (
        f"B seems to have the classes in another order ({', '.join(some)}): put its scores into"
        " A's order and compare again"
    )


def other_order_than_data(
    labels: np.ndarray, answers_a: np.ndarray, class_names: Sequence[str]
) -> str | None:
    """Whether A has the classes of the data in another order, as ``other_order`` tells it of B.

    Args:
        labels: int (N,).
        answers_a: int (N,).
        class_names: C names, of the data.

    Returns:
        One line, or None.
    """
    moved = _moved_classes(labels, answers_a, len(class_names))
    if not moved:
        return None
    some = []
    for row, column in moved[:3]:
        some.append(f"'{class_names[row]}' is A's class {column}")
    return (
        f"A seems to have the classes of the data in another order ({', '.join(some)}): rename the"
        " folders, or number the labels, as A does"
    )


def _moved_classes(first: np.ndarray, second: np.ndarray, classes: int) -> list[tuple[int, int]]:
    """Which class of the first is which of the second, where they are another's; else nothing.

    The table of both has to be nearly a permutation, and not the identity.
    """
    table = np.zeros((classes, classes))
    np.add.at(table, (first, second), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched = table[rows, columns]
    used = table.sum(axis=1) >= FEWEST_OF_A_CLASS
    explained = matched >= REORDERED_SHARE * table.sum(axis=1)
    moved = used & (rows != columns)
    gain = (matched.sum() - np.trace(table)) / max(len(first), 1)
    if moved.sum() < 2 or not explained[used].all() or gain < REORDERED_GAIN:
        return []
    return [(int(row), int(columns[row])) for row in np.flatnonzero(moved)]


def near_chance(
    correct: dict[str, np.ndarray], labels: np.ndarray, preprocessing: dict[str, str]
) -> str | None:
    """Whether one of two models, or both, answer no better than the commonest class would.

    Args:
        correct: model -> bool (N,).
        labels: int (N,).
        preprocessing: model -> how it is given its images, in words.

    Returns:
        One line, or None.
    """
    commonest = np.bincount(labels).max() / len(labels)
    noise = np.sqrt(commonest * (1 - commonest) / len(labels))
    accuracies = {name: float(right.mean()) for name, right in correct.items()}
    best = max(accuracies.values())
    worst = min(accuracies, key=lambda name: accuracies[name])
    if best <= commonest + 2 * noise:
        return (
            f"neither model answers better than the commonest class ({commonest:.1%}), so it says"
            " little that they are alike: do the classes of the data have the models' order?"
        )
    if best < commonest + ABOVE_CHANCE or accuracies[worst] > commonest + 2 * noise:
        return None
    return (
        f"{worst} answers near chance ({accuracies[worst]:.1%} right; the commonest class has"
        f" {commonest:.1%}): is its normalisation the one it was trained with?"
        f" It gets {preprocessing[worst]}"
    )


def moved_threshold(
    correct: dict[str, np.ndarray],
    areas: dict[str, float],
    labels: np.ndarray,
    preprocessing: dict[str, str],
) -> str | None:
    """Whether a model ranks images well, and answers no better than the commonest class would.

    Args:
        correct: model -> bool (N,).
        areas: model -> its AUC, a fraction.
        labels: int (N,).
        preprocessing: model -> how it is given its images, in words.

    Returns:
        One line about the model with the lower accuracy, or None.
    """
    commonest = np.bincount(labels).max() / len(labels)
    worst = min(correct, key=lambda name: correct[name].mean())
    accuracy = correct[worst].mean()
    if not areas[worst] >= GOOD_AUC or accuracy > commonest:
        return None
    return (
        f"{worst} ranks the images well (AUC {areas[worst]:.2f}) but answers no better than the"
        f" commonest class would ({accuracy:.1%} right; that class has {commonest:.1%}): its"
        " threshold lies elsewhere on these images, or its normalisation is not its own."
        f" It gets {preprocessing[worst]}"
    )


def one_answer(answers: dict[str, np.ndarray], preprocessing: dict[str, str]) -> str | None:
    """Whether one of two models gives nearly all images the same answer, and the other does not.

    Args:
        answers: model -> int (N,).
        preprocessing: model -> how it is given its images, in words.

    Returns:
        One line, or None.
    """
    largest = {name: np.bincount(given).max() / len(given) for name, given in answers.items()}
    worst = max(largest, key=lambda name: largest[name])
    if largest[worst] < ONE_ANSWER or min(largest.values()) > ONE_ANSWER - ABOVE_CHANCE:
        return None
    return (
        f"{worst} gives {largest[worst]:.0%} of the images one answer: is its normalisation the one"
        f" it was trained with? It gets {preprocessing[worst]}"
    )


def behind_a_sigmoid(logits: dict[str, np.ndarray]) -> str | None:
    """Whether a model of single answers gives a share of each class that do not sum to 1.

    Args:
        logits: model -> float (N, C); probabilities that sum to 1 were turned into logits before.

    Returns:
        One line, or None.
    """
    for name, values in logits.items():
        if values.min() >= 0 and values.max() <= 1 and np.ptp(values) > 0:
            return (
                f"{name} gives numbers from 0 to 1 that do not sum to 1, as from a sigmoid for each"
                " class. They were taken as logits: the answers are right, but AUC, calibration and"
                " occlusion are not. Give what stands before the sigmoid"
            )
    return None


def other_names(
    names_a: Sequence[str], names_b: Sequence[str], owners: tuple[str, str]
) -> str | None:
    """Whether two lists have the same class names in another order.

    Args:
        names_a: class names, or none.
        names_b: class names, or none.
        owners: whose they are.

    Returns:
        One line, or None.
    """
    known = list(names_a) and list(names_b)
    if not known or list(names_a) == list(names_b) or sorted(names_a) != sorted(names_b):
        return None
    first, second = owners
    return (
        f"{first} and {second} have the same class names in another order"
        f" ({names_a[0]}, ... and {names_b[0]}, ...): put one of them into the other's order"
    )


def empty_classes(labels: np.ndarray, class_names: Sequence[str]) -> str | None:
    """Whether a class has no image, so that its AUC is not defined.

    Args:
        labels: int (N,), or 0/1 (N, L).
        class_names: C names.

    Returns:
        One line, or None.
    """
    if labels.ndim == 2:
        counts = labels.sum(axis=0)
    else:
        counts = np.bincount(labels, minlength=len(class_names))
    empty = [name for name, count in zip(class_names, counts) if count == 0]
    if not empty:
        return None
    shown = ", ".join(f"'{name}'" for name in empty[:3])
    more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
    return f"no image of {shown}{more}: the AUC is not defined"


def many_zeros(model: nn.Module) -> tuple[str, ...]:
    """Whether pruning left many weights that are zero, because a file stores them, too.

    Args:
        model: any module.

    Returns:
        One line, or none.
    """
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    total = sum(weight.numel() for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    if not zeros or zeros < ZEROS_WORTH_A_LINE * total:
        return ()
    line = (
        f"{zeros / total:.0%} of its weights are zero; they are stored and multiplied all the same,"
        " so size and speed do not show it"
    )
    return (line,)
