"""What notebooks 4 to 6 show: figures, tables, teachers; and the code on their pages."""

import re
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from small import vit

from swys_figures import heatmaps as heatmap_figures
from swys_figures import teaching as teaching_figures
from swys_utils import (
    curve_names,
    shipped_results,
    teachers,
)
from swys_utils.benchmark import OperationCounter, vit_macs
from swys_utils.config import profile
from swys_utils.data import Dataset, load_dataset, to_model_input
from swys_utils.distillation import correlation, soft_target_loss
from swys_utils.exercises import check
from swys_utils.gradcam import grad_cam, hires_cam
from swys_utils.metrics import probabilities, t_interval
from swys_utils.occlusion import occlusion
from swys_utils.planted import Mark
from swys_utils.splits import Split

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FIRST = np.array(
    [
        [[1.0, 2.0], [3.0, 4.0]],
        [[2.0, 1.0], [3.0, 4.0]],
        [[4.0, 3.0], [1.0, 2.0]],
    ]
)
SECOND = np.array(
    [
        [[1.0, 2.0], [3.0, 4.0]],
        [[0.0, 0.0], [0.0, 8.0]],
        [[5.0, 5.0], [6.0, 6.0]],
    ]
)
THIRD = 1 / 3  # the mean agreement of the first with the mean of the second
IMAGES = np.random.default_rng(0).integers(
    0,
    256,
    (12, 28, 28),
    dtype=np.uint8,
)
MAPS = np.random.default_rng(1).normal(size=(12, 7, 7))
MARK = Mark()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(empty))  # medmnist's own folder is there
        return load_dataset("pneumoniamnist", root=empty, download=False)  # the twin


@pytest.fixture(scope="module")
def model():
    return vit(patch_size=4, noise=0.05)


def cell_with(notebook: str, text: str) -> str:
    """The source of the code cell of a notebook that has this text."""
    content = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4)
    found = [cell.source for cell in content.cells if text in cell.source]
    return next(source for source in found if "def " in source and "```" not in source)


def function_of_page(notebook: str, name: str, **names):
    """A function as the page defines it: the cell is run up to its last definition."""
    source = cell_with(notebook, f"def {name}(")
    functions = re.findall(
        r"(?:^@.*\n)?^def .*?(?=^\S(?!.*\bdef\b)|\Z)",
        source,
        re.M | re.S,
    )
    space = {"torch": torch, "np": np, "F": torch.nn.functional, **names}
    for function in functions:
        exec(function, space)
    return space[name]


def test_grad_cam_of_the_page_is_that_of_the_package(model):
    my_grad_cam = function_of_page("04_gradcam", "my_grad_cam")
    inputs = to_model_input(IMAGES[:3])
    classes = torch.tensor([0, 1, 1])
    ours = grad_cam(model, inputs, classes)
    assert torch.allclose(my_grad_cam(model, inputs, classes), ours, rtol=1e-4, atol=1e-7)


def test_occlusion_of_the_page_is_that_of_the_package(model, data):
    names = {"probabilities": probabilities, "data": data}
    log_odds = function_of_page("04_gradcam", "log_odds", **names)
    my_occlusion = function_of_page("04_gradcam", "my_occlusion", log_odds=log_odds)
    ours = occlusion(model, IMAGES[:2], 1)
    assert np.allclose(my_occlusion(model, to_model_input(IMAGES[:2]), 1), ours, atol=1e-5)


def test_soft_loss_of_the_page_is_that_of_the_package():
    soft_loss = function_of_page("05_distillation", "soft_loss")
    student, teacher = torch.randn(
        2,
        8,
        3,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.allclose(soft_loss(student, teacher, 2.0), soft_target_loss(student, teacher, 2.0))


def test_map_loss_of_the_page_is_one_minus_the_correlation():
    map_loss = function_of_page("05_distillation", "map_loss")
    own, wanted = torch.randn(
        2,
        8,
        16,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.allclose(map_loss(own, wanted), 1 - correlation(own, wanted).mean())


def test_macs_of_the_page_are_those_of_the_package():
    macs = function_of_page("06_benchmark", "macs")
    assert macs(49, 192) == vit_macs(49, 192, 12, 4, 2)
    assert macs(16, 192, patch=7) == vit_macs(16, 192, 12, 7, 2)


def test_at_least_twenty_images_keep_their_label(data):
    few = teachers.few_labelled(data.train, share=0.001)
    assert 20 <= len(few) <= 22
    assert set(few.labels) == {0, 1}


def test_many_classes_have_at_least_twenty_labels_together():
    labels = np.repeat(range(8), 100)
    few = teachers.few_labelled(Split(np.zeros((800, 2, 2), np.uint8), labels))
    assert len(few) >= 20


def test_of_several_labels_an_image_some_images_stay():
    labels = np.zeros((100, 3), int)
    few = teachers.few_labelled(Split(np.zeros((100, 28, 28), np.uint8), labels))
    assert few.labels.shape == (20, 3)


def test_answers_of_a_model(model):
    answers = teachers.answers_of(model, IMAGES)
    assert answers.logits.shape == (12, 2)
    assert answers.maps.shape == (12, 7, 7)
    assert all(weights.requires_grad for weights in model.parameters())


def test_one_label_an_image_is_one_choice(data):
    logits = torch.zeros(4, 2)
    assert teachers.as_choices(logits, data) is logits


def test_the_twin_has_a_small_teacher(data):
    teacher = teachers.best_teacher(
        data,
        IMAGES,
        profile("smoke"),
        torch.device("cpu"),
    )
    assert isinstance(teacher, teachers.ChosenTeacher)
    assert teacher.title.startswith("Tiny")
    assert len(teacher.answers.logits) == len(IMAGES)


def test_labels_are_moved_apart():
    _, ax = plt.subplots()
    ends = {"a": (0.5, "black"), "b": (0.5, "red"), "c": (0.9, "blue")}
    curve_names.name_ends(ax, 1, ends, gap=0.1)
    heights = [text.xy[1] for text in ax.texts]
    assert heights == [0.5, 0.6, 0.9]


def test_runs_of_few_labels_are_linked_by_their_draw():
    figure = teaching_figures.few_labels_figure(shipped_results.series_results())
    (ax,) = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["Tiny, few labels", "control", "answers of Base"]
    draws = [line.get_xdata() for line in ax.lines]
    assert len(draws) == 4
    assert all(areas[0] < areas[1] < areas[2] for areas in draws)


def test_a_draw_that_was_not_trained_leaves_no_dot():
    runs = {"few_labels": [few_run(1, 0.9), few_run(0, 0.8)], "few_control": [few_run(0, 0.7)]}
    results = shipped_results.series_results()._replace(few_labels=runs)
    figure = teaching_figures.few_labels_figure(results)
    first, second = figure.axes[0].lines
    assert list(first.get_xdata()) == [0.8, 0.7]
    assert np.isnan(second.get_xdata()[1])


def test_a_data_set_without_few_labels_says_so(capsys):
    results = shipped_results.series_results()._replace(few_labels={})
    assert teaching_figures.few_labels_figure(results) is None
    assert "no complete runs of pneumoniamnist with few labels" in capsys.readouterr().out


def test_notebook_5_gives_what_teachers_add_where_labels_are_few():
    runs = shipped_results.series_results().few_labels
    areas = {}
    for method, of_method in runs.items():
        ordered = sorted(of_method, key=lambda run: run["seed"])
        areas[method] = np.array([run["last"]["auc"] for run in ordered])
    gains = {method: areas[method] - areas["few_labels"] for method in areas}
    for method in ("few_answers", "few_control"):
        low, high = t_interval(gains[method])
        assert low < 0 < high  # "both 95 % intervals contain zero"
    assert all(gains["few_answers"] > 0)
    page = (NOTEBOOKS / "05_distillation.ipynb").read_text(encoding="utf-8")
    assert (
        f"Base's answers raise the AUC by {gains['few_answers'].mean():.3f}, and those of a "
        f"teacher that knows only the 47 labels by {gains['few_control'].mean():.3f}."
    ) in page


def test_a_better_teacher_stands_beside_base_with_its_own_auc():
    rows = teaching_figures.better_teachers_table()
    assert [(row["taught by"], row["the teacher's AUC"], row["runs"]) for row in rows] == [
        ("nobody", "-", "4"),
        ("Base", "0.946", "4"),
        ("two better Tinys", "0.963, 0.966", "4"),
        ("two ResNets", "0.971, 0.966", "2"),
        ("two ResNets, between the images", "0.971, 0.966", "2"),
    ]


def test_a_data_set_without_better_teachers_shows_the_default_one():
    rows = teaching_figures.better_teachers_table("bloodmnist")
    assert rows == teaching_figures.better_teachers_table()


def test_students_by_the_names_of_an_earlier_version_have_a_row(monkeypatch):
    runs = []
    for method in ("scratch", "answers_of_196"):
        scores = {"auc": 0.9, "accuracy": 0.8}
        runs.append({"id": f"vit_tiny/{method}/seed0", "last": scores})
    monkeypatch.setattr(teaching_figures, "_complete_runs", lambda dataset: runs)
    rows = teaching_figures.better_teachers_table()
    assert [row["taught by"] for row in rows] == ["nobody", "two better Tinys"]


def few_run(seed: int, auc: float) -> dict:
    return {"seed": seed, "last": {"auc": auc}}


class RingReader(torch.nn.Module):
    """Answers 1 where the first pixels are very bright, else 0."""

    def forward(self, images):
        bright = images[:, 0, :7, :7].amax(dim=(1, 2)) > 0.99
        return torch.stack([~bright, bright], dim=1).float()


def test_the_healthy_who_become_sick_with_the_ring(data, monkeypatch):
    dark = replace(data, test=Split(data.test.images // 2, data.test.labels))
    monkeypatch.setattr(teaching_figures, "predict", answers_of(RingReader()))
    assert teaching_figures.share_turned(None, dark, MARK) == 1
    assert teaching_figures.caught(None, dark, MARK) == "100%"


def test_who_is_called_sick_anyway_is_not_turned(data, monkeypatch):
    bright = np.full_like(data.test.images, 255)
    all_bright = replace(data, test=Split(bright, data.test.labels))
    monkeypatch.setattr(teaching_figures, "predict", answers_of(RingReader()))
    assert teaching_figures.share_turned(None, all_bright, MARK) == 0


def answers_of(model):
    def predict(_, images, **options):
        return model(to_model_input(images, 28)).numpy()

    return predict


def test_operations_are_counted():
    with OperationCounter() as operations:
        torch.ones(2) + torch.ones(2)
    assert operations.count == 3


@pytest.mark.parametrize(
    ("name", "answer", "given", "hint"),
    [
        ("habit", (THIRD, 0.0), (FIRST, SECOND), "right"),
        ("habit", (THIRD, 0.5), (FIRST, SECOND), "the same mean"),
        ("habit", (0.0, 0.0), (FIRST, SECOND), "the mean of all maps"),
        ("habit", (np.nan, np.nan), (FIRST, SECOND), "the mean of all maps"),
        ("habit", (THIRD, THIRD, 0.0), (FIRST, SECOND), "right"),
        ("two models", ([1.0, 0.0], [0.0, 1.0]), (), "right"),
        ("two models", ([1.0, 0.0], [1.0, 0.0]), (), "same patches"),
        ("two models", ([0.6, 0.4], [0.4, 0.6]), (), "same patches"),
        ("two models", ([0.1, 0.0], [0.0, 0.1]), (), "right"),
        ("soft targets", torch.tensor([[1.0, 0.0, 0.0]]), (), "right"),
        ("soft targets", torch.tensor([[0.4, 0.3, 0.3]]), (), "divide the logits by T"),
        ("attention costs more", 1152, (192,), "right"),
        ("attention costs more", 192, (192,), "divide both sides"),
    ],
)
def test_exercises_with_a_number_for_an_answer(capsys, name, answer, given, hint):
    check(name, answer, *given)
    assert hint in capsys.readouterr().out


def test_the_exercise_on_hires_cam(capsys, model):
    inputs = to_model_input(IMAGES[:2])
    check("HiResCAM", hires_cam(model, inputs, 1), model, inputs, 1)
    assert "right" in capsys.readouterr().out
    check("HiResCAM", grad_cam(model, inputs, 1), model, inputs, 1)
    assert "still Grad-CAM" in capsys.readouterr().out


def test_the_exercise_on_rounding(capsys):
    weights = torch.randn(
        4,
        6,
        generator=torch.Generator().manual_seed(0),
    )
    scale = weights.abs().max() / 64
    check("one scale", (weights / scale).round() * scale, weights)
    assert "right" in capsys.readouterr().out
    check("one scale", weights, weights)
    assert "largest absolute weight" in capsys.readouterr().out


def test_where_models_never_agree_all_images_are_taken():
    answers = {"a": np.array([0, 1]), "b": np.array([1, 0])}
    assert len(heatmap_figures.same_answers(answers)) == 2


def test_the_exercise_on_mixed_losses(capsys):
    logits = torch.tensor([[0.2, 0.8]])
    targets = torch.tensor([[0.0, 1.0]])
    teacher = torch.tensor([[0.0, 2.0]])
    hard = torch.nn.functional.cross_entropy(logits, targets)
    soft = soft_target_loss(logits, teacher, 2.0)
    check("mixed loss", 0.7 * hard + 0.3 * soft, logits, targets, teacher)
    assert "right" in capsys.readouterr().out
    check("mixed loss", hard + soft, logits, targets, teacher)
    assert "weights 1 - alpha" in capsys.readouterr().out


def test_the_exercise_on_random_weights(capsys, model):
    check("random weights", -5, model, IMAGES[:2])
    assert "below 0.5" in capsys.readouterr().out
