"""The reference recipe, the learning rate and the loss on labels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from medmnist.info import INFO
from small import vit

from swys_utils.config import SwysError
from swys_utils.recipe import (
    MAX_WARMUP,
    Batch,
    Recipe,
    SupervisedObjective,
    batches,
    class_and_numbers,
    learning_rate,
    one_hot,
    reference_recipe,
)
from swys_utils.splits import Split


@pytest.fixture
def ten_epochs() -> Recipe:
    return Recipe(epochs=10, lr=1.0, warmup_epochs=1)


STEPS_AND_RATES = [(0, 1 / 11), (9, 10 / 11), (10, 1), (55, 0.5)]


@pytest.mark.parametrize("step, expected", STEPS_AND_RATES)
def test_the_rate_rises_then_falls(ten_epochs, step, expected):
    rate = learning_rate(ten_epochs, step, 10)
    assert rate == pytest.approx(expected)


def test_the_rate_ends_at_exactly_zero(ten_epochs):
    rate = learning_rate(ten_epochs, 100, 10)
    assert rate == 0


def test_the_rate_can_follow_the_clock(ten_epochs):
    timed = replace(ten_epochs, seconds=60.0)
    rate = learning_rate(timed, 3, 10, seconds=33.0)
    assert rate == pytest.approx(0.5)


@pytest.mark.parametrize("epochs", [1, 10, 12])
def test_a_long_warmup_takes_a_fifth_of_the_schedule(epochs):
    recipe = Recipe(epochs=epochs, warmup_epochs=5)
    steps = range(100 * epochs)
    rates = [learning_rate(recipe, step, 100) for step in steps]
    highest = np.argmax(rates)
    assert highest == MAX_WARMUP * len(steps)


@pytest.mark.parametrize("name", ["vit_base", "vit_base_p7", "vit_base_patch16_224"])
def test_a_base_gets_bases_recipe(name):
    recipe = reference_recipe(name)
    assert recipe.epochs == 12
    assert recipe.lr == 3e-4
    assert recipe.full_tokens == 0.1


def test_the_name_of_pretrained_weights_does_not_matter():
    recipe = reference_recipe("vit_base_patch16_224.augreg_in21k")
    assert recipe == reference_recipe("vit_base")


@pytest.mark.parametrize("name", ["vit_tiny_answers", "deit_tiny_patch16_224", "my_baseline"])
def test_every_other_model_gets_tinys_recipe(name):
    recipe = reference_recipe(name)
    assert recipe == reference_recipe("vit_tiny")


def test_cells_are_turned():
    recipe = reference_recipe("vit_tiny", "bloodmnist")
    assert recipe.augmentation.turns


def test_lungs_are_not_turned():
    recipe = reference_recipe("vit_tiny", "pneumoniamnist")
    assert not recipe.augmentation.turns


def test_images_with_a_left_and_a_right_are_not_mirrored():
    for name in ("organamnist", "organcmnist"):
        assert {"kidney-left", "kidney-right"} <= set(INFO[name]["label"].values())
        assert not reference_recipe("vit_tiny", name).augmentation.flip


def test_an_image_without_a_label_cannot_be_smoothed():
    split = Split(np.zeros((4, 28, 28), np.uint8), np.array([0, 1, -1, -1]))
    data = SimpleNamespace(train=split, info=SimpleNamespace(multi_label=False))
    recipe = Recipe(label_smoothing=0.1)
    with pytest.raises(SwysError, match="label_smoothing needs one label"):
        next(batches(data, 0, recipe))


def test_a_missing_label_is_a_row_of_zeros():
    labels = torch.tensor([1, -1])
    targets = one_hot(labels, 2)
    assert targets.tolist() == [[0, 1], [0, 0]]


def test_several_labels_stay_as_they_are():
    labels = torch.tensor([[1, 0, 1]])
    targets = one_hot(labels, 3)
    assert targets.tolist() == [[1, 0, 1]]


@pytest.fixture
def even_logits() -> torch.Tensor:
    return torch.zeros(1, 4)


@pytest.fixture
def target() -> torch.Tensor:
    return torch.tensor([[0.0, 1.0, 0.0, 0.0]])


def test_one_label_is_taught_by_cross_entropy(even_logits, target):
    objective = SupervisedObjective()
    loss = objective.loss(even_logits, target)
    assert loss.item() == pytest.approx(np.log(4))


def test_several_labels_are_taught_by_binary_cross_entropy(even_logits, target):
    objective = SupervisedObjective(multi_label=True)
    loss = objective.loss(even_logits, target)
    assert loss.item() == pytest.approx(np.log(2))


def test_the_loss_is_computed_in_float32(even_logits, target):
    objective = SupervisedObjective()
    loss = objective.loss(even_logits.bfloat16(), target)
    assert loss.dtype == torch.float32


def test_an_objective_is_called_with_model_and_batch():
    model = vit()
    objective = SupervisedObjective()
    inputs = torch.zeros(1, 3, 28, 28)
    targets = torch.tensor([[1.0, 0.0]])
    indices = torch.tensor([0])
    batch = Batch(inputs, targets, indices, view=0)
    expected = objective.loss(model(inputs), targets)
    assert torch.equal(objective(model, batch), expected)


class Focal(SupervisedObjective):
    """A reader's own loss, with a setting."""

    def __init__(self, gamma: float):
        super().__init__()
        self.gamma = gamma


def test_a_readers_objective_is_told_apart_by_its_numbers():
    settings = Focal(2.0).settings()
    assert settings == {"objective": "Focal", "multi_label": False, "gamma": 2.0}


def test_any_module_has_a_class_and_numbers():
    settings = class_and_numbers(torch.nn.Dropout(0.25))
    assert settings["objective"] == "Dropout"
    assert settings["p"] == 0.25


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("weight_decay", -1),
        ("warmup_epochs", -1),
        ("views", -3),
        ("mixup", -1),
        ("seconds", -5),
        ("patch_drop", 1.0),
        ("drop_path", -1),
        ("full_tokens", 7),
        ("label_smoothing", 2),
    ],
)
def test_a_number_out_of_its_range_is_one_line(name, value):
    with pytest.raises(SwysError, match=f"{name} is {value}; give "):
        Recipe(**{name: value})
