"""What notebooks 4 to 6 show: figures, tables, teachers; and the code on their pages."""

import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from small import vit

from swys_figures import benchmark as benchmark_figures
from swys_figures import heatmaps as heatmap_figures
from swys_figures import planted as planted_figures
from swys_figures import teaching as teaching_figures
from swys_utils import (
    plots,
    shipped_results,
    teachers,
)
from swys_utils.benchmark import OperationCounter, Timing, vit_macs
from swys_utils.config import profile
from swys_utils.data import Dataset, load_dataset, to_model_input
from swys_utils.distillation import correlation, soft_target_loss
from swys_utils.exercises import check
from swys_utils.gradcam import METHODS, grad_cam, hires_cam
from swys_utils.metrics import probabilities
from swys_utils.occlusion import occlusion
from swys_utils.planted import Mark, plant
from swys_utils.saved_models import SavedModel
from swys_utils.splits import Split

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
MAPS = np.random.default_rng(1).normal(size=(12, 7, 7))
MARK = Mark()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    empty = tmp_path_factory.mktemp("empty")
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
    functions = re.findall(r"(?:^@.*\n)?^def .*?(?=^\S(?!.*\bdef\b)|\Z)", source, re.M | re.S)
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
    student, teacher = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(soft_loss(student, teacher, 2.0), soft_target_loss(student, teacher, 2.0))


def test_map_loss_of_the_page_is_one_minus_the_correlation():
    map_loss = function_of_page("05_distillation", "map_loss")
    own, wanted = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(map_loss(own, wanted), 1 - correlation(own, wanted).mean())


def test_macs_of_the_page_are_those_of_the_package():
    macs = function_of_page("06_benchmark", "macs")
    assert macs(49, 192) == vit_macs(49, 192, 12, 4, 2)
    assert macs(16, 192, patch=7) == vit_macs(16, 192, 12, 7, 2)


def test_examples_of_marked_images(data):
    planted = plant(data.train, MARK)
    figure = planted_figures.marked_examples(data, planted.split, planted.mask, MARK)
    framed = [ax for ax in figure.axes if ax.patches]
    assert 4 <= len(framed) <= 6  # nearly all of the class, nearly none of the others


def test_a_frame_only_where_a_mark_is():
    figure, ax = plt.subplots()
    planted_figures.frame_mark(ax, np.zeros((28, 28), bool))
    assert not ax.patches
    plt.close(figure)


def test_the_curve_of_a_shortcut_looks_at_three_sets(data, model):
    curve = planted_figures.ShortcutCurve(data, MARK, images=40, seconds=12)
    for seconds in (0, 0.5, 12):
        curve(model, seconds)
    assert [row["seconds"] for row in curve.history] == [0, 12]
    assert curve.history[0].keys() == {"seconds", "as trained", "clean", "swapped"}
    assert len(curve.figure().axes) == 1


def test_a_class_is_named_as_often_with_the_mark_by_a_model_that_knows_nothing(data, model):
    rows = planted_figures.how_often_named(model, data, MARK)
    assert [row["images"] for row in rows] == ["truly pneumonia", "truly not pneumonia"]
    assert rows[0].keys() == {"images", "without the mark", "with the mark"}


def test_a_map_that_points_at_the_mark_is_a_hit():
    planted = plant(Split(IMAGES[:1], np.array([1])), MARK, where="everywhere")
    points = np.zeros((1, 7, 7))
    points[0, 0, 0] = 1
    maps = {"right": points, "wrong": points[:, ::-1].copy(), "none": 0 * points}
    figure = planted_figures.found_figure(planted.split.images, planted.mask, maps)
    assert [ax.get_title() for ax in figure.axes] == ["hit", "miss", "empty"]


def unit(kind: str, patch: int = 7) -> dict:
    """An entry of planted.json, as far as figures read it."""
    keys = ("grad_cam, block 10", "grad_cam, block 11", "occlusion, mean", "occlusion, blur")
    alike = {"agreement": 0.5}
    return {
        "kind": kind,
        "patch": patch,
        "mark": "corner",
        "model": "vit_tiny",
        "methods": {key: {"hits": 0.5, "chance": 0.06} for key in keys},
        "scores": {"flips": 0.4},
        "like_honest": {"grad_cam": alike, "occlusion": alike},
        "maps": {"occlusion": {"heat": 0.9}},
    }


@pytest.mark.parametrize("units", [[], [unit("cheat"), unit("cheat", 4), unit("honest answers")]])
def test_figures_of_the_planted_study_with_and_without_results(monkeypatch, units):
    for module in (planted_figures, teaching_figures):
        monkeypatch.setattr(module, "planted_units", lambda dataset: units)
    assert len(planted_figures.finders_figure().axes) == (2 if units else 1)
    assert len(teaching_figures.cheating_students().axes) == 3


def saved(auc: float) -> SavedModel:
    return SavedModel(vit(), {"history": [{"val_auc": auc}]}, "trained here")


def test_a_model_that_has_learned_nothing_is_left_out(capsys):
    models = heatmap_figures.knowing_models({"Base": saved(0.5), "Tiny": saved(0.9)})
    assert list(models) == ["Tiny"]
    assert "Base has AUC 0.50" in capsys.readouterr().out


def test_where_no_model_has_learned_anything_all_stay():
    assert list(heatmap_figures.knowing_models({"Base": saved(0.5)})) == ["Base"]


def test_images_with_the_same_answers_come_by_their_weaker_map():
    peaks = np.array([1.0, 3.0, 2.0])[:, None, None]
    answers = {"a": np.array([0, 1, 1]), "b": np.array([0, 1, 0])}
    assert heatmap_figures.same_answers(answers, {"a": peaks, "b": peaks}).tolist() == [1, 0]


def test_typical_images_come_from_little_to_much_agreement():
    peaks = np.array([[[0.0, 1.0, 2.0]], [[2.0, 1.0, 0.0]], [[0.0, 2.0, 1.0]]])
    same = np.repeat([[[0.0, 1.0, 2.0]]], 3, axis=0)
    answers = {"a": np.zeros(3), "b": np.zeros(3)}
    chosen = heatmap_figures.typical_images(answers, {"a": peaks, "b": same}, 3)
    assert chosen.tolist() == [1, 2, 0]


def test_the_number_of_an_image_stands_below_its_map():
    maps = {"torch": MAPS[:2]}
    figure = benchmark_figures.file_maps(IMAGES[:2], maps, {"torch": np.array([0.5, 1.0])})
    assert [ax.get_xlabel() for ax in figure.axes[2:]] == ["agreement 0.50", "agreement 1.00"]


def test_figures_of_heatmaps():
    signed = {"Base": MAPS - 5, "Tiny": MAPS}
    figures = [
        heatmap_figures.heatmap_steps(IMAGES[0], MAPS[0].clip(0), "pneumonia"),
        heatmap_figures.colours_figure(MAPS),
        heatmap_figures.two_rulers(IMAGES[:3], signed, signed, ["yes"] * 3),
    ]
    assert [len(figure.axes) for figure in figures] == [4, 10, 15]


def test_the_agreement_of_an_image_stands_below_the_second_model():
    one = {"Base": MAPS[:1], "Tiny": MAPS[:1]}
    other = {"Base": MAPS[:1], "Tiny": -MAPS[:1]}
    figure = heatmap_figures.two_rulers(IMAGES[:1], one, other, ["yes"])
    words = [ax.get_xlabel() for ax in figure.axes]
    assert words == ["both: yes", "", "agreement 1.00", "", "agreement -1.00"]


def test_the_hottest_patch_has_a_frame():
    heat = np.zeros((4, 4))
    heat[1, 2] = 3
    figure, ax = plt.subplots()
    heatmap_figures.draw_patches(ax, IMAGES[0], heat)
    (frame,) = ax.patches
    assert frame.get_xy() == (13.5, 6.5)  # patches of 7 px; pixel 0 begins at -0.5
    assert ax.images[1].get_alpha()[0, 0] == 0
    plt.close(figure)


def test_an_empty_map_is_called_so():
    figure, ax = plt.subplots()
    heatmap_figures.draw_patches(ax, IMAGES[0], np.full((4, 4), -1.0))
    assert ax.texts[0].get_text() == "empty"
    plt.close(figure)


def test_at_least_twenty_images_keep_their_label(data):
    few = teachers.few_labelled(data.train, share=0.001)
    assert 18 <= len(few) <= 22
    assert set(few.labels) == {0, 1}


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
    assert not teachers.has_stored_answers("vit_base", data, IMAGES)
    teacher = teachers.best_teacher(data, IMAGES, profile("smoke"), torch.device("cpu"))
    assert isinstance(teacher, teachers.ChosenTeacher)
    assert teacher.title.startswith("Tiny")
    assert len(teacher.answers.logits) == len(IMAGES)


def test_curves_of_students_have_their_names(data, model):
    curves = teaching_figures.StudentCurves(data.test.head(30), data.info.task, 8, ("line", 0.9))
    for name in ("Tiny, answers", "control"):
        watch = curves.watch(name)
        for seconds in (0, 0.1, 8):
            watch(model, seconds)
    assert [len(rows) for rows in curves.history.values()] == [2, 2]
    texts = [text.get_text() for text in curves.figure().axes[0].texts]
    assert any(text.startswith("control: ") for text in texts)


def test_a_student_that_learned_nothing_is_not_compared(data, capsys):
    curves = teaching_figures.StudentCurves(data.test, data.info.task, 8, ("line", 0.9))
    curves.history = {"a": [{"auc": 0.5}], "b": [{"auc": 0.9}]}
    assert curves.that_learned({"a": 1, "b": 2}) == {"b": 2}
    assert "a: AUC 0.50, nothing learned" in capsys.readouterr().out


def test_labels_are_moved_apart():
    assert plots.spread_out([0.5, 0.5, 0.9], gap=0.1) == [0.5, 0.6, 0.9]


def test_figures_of_teaching():
    results = shipped_results.series_results()
    grid = teaching_figures.places_grid(IMAGES[:3], {"Tiny": MAPS[:3]}, {"Tiny": MAPS[:3]})
    assert len(grid.axes) == 12
    assert len(teaching_figures.three_questions(results).axes) >= 2
    rows = teaching_figures.few_label_table(results)
    assert [row["Tiny learned from"] for row in rows][:2] == ["labels alone", "answers of Base"]


TIMINGS = {
    f"{model}, {runtime}": Timing(np.array([ms, ms, ms]))
    for model, ms in {"Base": 100.0, "Tiny": 10.0}.items()
    for runtime in benchmark_figures.RUNTIMES
}


def test_a_factor_is_against_base_in_torch():
    rows = benchmark_figures.time_table(TIMINGS)
    assert rows[1]["int8"] == "10.0 ms, 10.0x"


def test_figures_of_the_benchmark():
    figure = benchmark_figures.speed_figure(TIMINGS, dict.fromkeys(TIMINGS, 1))
    assert len(figure.axes[0].get_yticks()) == 6
    figure = benchmark_figures.file_maps(IMAGES[:2], {"torch": MAPS[:2], "file": MAPS})
    assert len(figure.axes) == 6


def test_the_table_of_steps_is_kept(tmp_path):
    file = tmp_path / "tiny.onnx"
    file.write_bytes(b"0" * 6_000_000)
    counts = {"Base, torch": 4 * 10**9, "Tiny, ONNX": 3 * 10**8}
    rows = benchmark_figures.step_table(TIMINGS, counts, {"Tiny, ONNX": file})
    assert [row["size"] for row in rows] == ["341 MB", "6 MB"]
    assert rows[1]["times faster [95 %]"] == "10.0 [10.0, 10.0]"
    benchmark_figures.keep_table(rows, "a note", tmp_path)
    assert json.loads((tmp_path / "benchmark_table.json").read_text())["note"] == "a note"


def test_a_table_of_html():
    html = benchmark_figures.as_html([{"model": "Base", "ms": "3"}], "a note")
    assert "<td>Base</td><td>3</td>" in html
    assert html.endswith("<p>a note</p>")


def test_operations_are_counted():
    with OperationCounter() as operations:
        torch.ones(2) + torch.ones(2)
    assert operations.count == 3


@pytest.mark.parametrize(
    ("name", "answer", "given", "hint"),
    [
        ("two marks", (0, 0, 1), (), "right"),
        ("two marks", (1, 1, 1), (), "max(0, 1)"),
        ("two models", ([1.0, 0.0], [0.0, 1.0]), (), "right"),
        ("two models", ([1.0, 0.0], [1.0, 0.0]), (), "same patches"),
        ("soft targets", torch.tensor([[1.0, 0.0, 0.0]]), (), "right"),
        ("soft targets", torch.tensor([[0.4, 0.3, 0.3]]), (), "Divide the logits"),
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
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    scale = weights.abs().max() / 64
    check("one scale", (weights / scale).round() * scale, weights)
    assert "right" in capsys.readouterr().out
    check("one scale", weights, weights)
    assert "largest absolute weight" in capsys.readouterr().out


def test_where_models_never_agree_all_images_are_taken():
    peaks = np.ones((2, 1, 1))
    answers = {"a": np.array([0, 1]), "b": np.array([1, 0])}
    assert len(heatmap_figures.same_answers(answers, {"a": peaks, "b": peaks})) == 2


def test_the_exercise_on_mixed_losses(capsys):
    logits = torch.tensor([[0.2, 0.8]])
    targets = torch.tensor([[0.0, 1.0]])
    teacher = torch.tensor([[0.0, 2.0]])
    hard = torch.nn.functional.cross_entropy(logits, targets)
    soft = soft_target_loss(logits, teacher, 2.0)
    check("mixed loss", 0.5 * hard + 0.5 * soft, logits, targets, teacher)
    assert "right" in capsys.readouterr().out
    check("mixed loss", hard + soft, logits, targets, teacher)
    assert "weights 1 - alpha" in capsys.readouterr().out


def test_the_exercise_on_random_weights(capsys, model):
    check("random weights", -5, model, IMAGES[:2])
    assert "below 0.5" in capsys.readouterr().out


def test_the_exercise_on_enlarged_images(capsys):
    check("enlarged images", 4.1)
    assert "right" in capsys.readouterr().out
    check("enlarged images", 64)
    assert "number of patches" in capsys.readouterr().out


def test_a_way_to_explain_that_was_measured_has_a_row(monkeypatch):
    monkeypatch.setitem(METHODS, "new", replace(METHODS["legrad"], id="new", title="a new way"))
    measured = unit("cheat")
    measured["methods"]["new, block 11"] = {"hits": 0.5, "chance": 0.06}
    monkeypatch.setattr(planted_figures, "planted_units", lambda dataset: [measured])
    (ax,) = planted_figures.finders_figure().axes
    assert [text.get_text() for text in ax.get_yticklabels()][-1] == "a new way"


def test_the_last_block_stands_for_a_method():
    rows = planted_figures._measured_methods([unit("cheat")])
    assert rows["Grad-CAM"] == "grad_cam, block 11"


def test_the_first_fill_stands_for_occlusion():
    rows = planted_figures._measured_methods([unit("cheat")])
    assert rows["occlusion"] == "occlusion, mean"
