"""What stands as code or as numbers on the pages is what libraries and shipped results say."""

import math
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from swys_utils.data import to_model_input
from swys_utils.distillation import MapDistiller
from swys_utils.faithfulness import deletion_insertion
from swys_utils.models import count_parameters, create_model
from swys_utils.recipe import Batch, SupervisedObjective

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def defined_on(page: str, *functions: str) -> dict:
    """Run the cells of a notebook that define these functions; returns their names and values."""
    names = {"torch": torch, "math": math}
    notebook = nbformat.read(NOTEBOOKS / page, as_version=4)
    for cell in notebook.cells:
        defines = any(f"def {function}(" in cell.source for function in functions)
        if cell.cell_type == "code" and defines:
            exec(compile(cell.source, page, "exec"), names)
    return names


@pytest.fixture
def vit():
    torch.manual_seed(0)
    model = create_model("vit_tiny", 2, patch_size=7, depth=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def page():
    return defined_on("02_train_base.ipynb", "norm", "embed", "attend", "forward")


@torch.no_grad()
def test_the_forward_pass_of_notebook_2_is_that_of_timm(page, vit):
    images = torch.rand(3, 3, 28, 28)
    logits, _ = page["forward"](vit, images)
    torch.testing.assert_close(logits, vit(images), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_each_row_of_its_attention_sums_to_one(page, vit):
    _, maps = page["forward"](vit, torch.rand(2, 3, 28, 28))
    assert maps.shape == (2, 2, 3, 17, 17)
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 2, 3, 17))


def test_the_learning_rate_of_notebook_2_rises_and_falls_to_zero():
    rate_at = defined_on("02_train_base.ipynb", "rate_at")["rate_at"]
    assert 0 < rate_at(0, 1.0) < rate_at(0.05, 1.0) < 1
    assert rate_at(0.2, 1.0) == pytest.approx(1)
    assert rate_at(1, 1.0) == pytest.approx(0)


def test_the_rule_of_notebook_3_counts_nearly_all_weights():
    for width, heads in ((768, 12), (192, 3)):
        model = create_model("vit_base", num_classes=2, embed_dim=width, num_heads=heads)
        assert 144 * width**2 / count_parameters(model) == pytest.approx(1, abs=0.02)


def test_base_with_the_width_of_tiny_is_tiny():
    narrow = create_model("vit_base", num_classes=2, embed_dim=192, num_heads=3)
    assert count_parameters(narrow) == count_parameters(create_model("vit_tiny", num_classes=2))


class Told(torch.nn.Module):
    """A teacher whose answers and maps are given."""

    num_classes = 2
    grid = (4, 4)

    def __init__(self, answers, maps):
        super().__init__()
        self.answers = answers
        self.maps = maps.unflatten(1, self.grid)

    def explain(self, batch):
        return self.answers, self.maps


def test_the_losses_of_notebook_5_are_those_of_the_library(vit):
    functions = ["soft_loss", "loss_of_answers", "map_loss", "trainable_map"]
    page = defined_on("05_distillation.ipynb", *functions)
    labels = SupervisedObjective()
    page["label_loss"] = labels.loss  # as its folded cell does
    answers = torch.randn(3, 2)
    maps = torch.randn(3, 16)
    batch = Batch(
        torch.rand(3, 3, 28, 28),
        torch.eye(2)[[0, 1, 1]],
        torch.arange(3),
        view=0,
    )
    library = MapDistiller(
        Told(answers, maps),
        labels,
        alpha=0.7,
        temperature=2.0,
        gamma=1.0,
    )
    _, own = page["trainable_map"](vit, batch.inputs, answers.argmax(dim=1))
    of_labels = page["loss_of_labels"](vit, batch)
    of_answers = page["loss_of_answers"](vit, batch, lambda asked: answers)
    on_the_page = 0.3 * of_labels + 0.7 * of_answers + page["map_loss"](own, maps)
    torch.testing.assert_close(on_the_page, library(vit, batch), atol=1e-5, rtol=1e-4)


def test_the_pictures_of_extra_7_have_the_probabilities_of_the_library(vit):
    page = defined_on("extras/07_is_the_map_true.ipynb", "removed_and_put_back")
    image = np.random.default_rng(0).integers(0, 255, (1, 28, 28), dtype=np.uint8)
    heat = np.random.default_rng(1).random((1, 4, 4), dtype=np.float32)
    scored = deletion_insertion(vit, image, heat, np.array([1]), steps=4)
    inputs = to_model_input(image, 28, torch.device("cpu"))
    pictures = page["removed_and_put_back"](inputs, torch.as_tensor(heat[0]), 4)
    for name, images in pictures.items():
        with torch.no_grad():
            shares = vit(images).softmax(dim=1)[:, 1].numpy()
        assert shares == pytest.approx(getattr(scored, name)[0], abs=1e-4)
