"""The figure that answers the title, and the shipped results that it reads."""

from dataclasses import replace

import pytest

from swys_figures import answer
from swys_figures.answer import answer_figure
from swys_utils.shipped_results import SeriesResults, read_results, series_id, series_results


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("vit_base/scratch/seed0", "vit_base"),
        ("vit_tiny/labels/seed3", "vit_tiny"),
        ("vit_tiny/kd_soft/seed1", "vit_tiny_answers"),
        ("vit_tiny/answers/seed1", "vit_tiny_answers"),
        ("vit_tiny/kd_explain/seed2", "vit_tiny_maps"),
    ],
)
def test_the_model_of_a_run_by_todays_and_by_old_names(run_id, name):
    assert series_id(run_id) == name


@pytest.mark.parametrize("run_id", ["vit_tiny/few_scratch/seed0", "vit_tiny/kd_coarse/seed0"])
def test_a_run_of_another_kind_is_no_model_of_the_series(run_id):
    assert series_id(run_id) is None


def test_the_shipped_results_have_the_four_models():
    results = series_results("pneumoniamnist")
    four = {"vit_base", "vit_tiny", "vit_tiny_answers", "vit_tiny_maps"}
    assert four <= results.runs.keys()
    assert results.images == 624


def test_the_agreement_of_base_is_that_of_another_base():
    results = series_results("pneumoniamnist")
    assert len(results.agreement["grad_cam"]["vit_base"]) < len(results.runs["vit_base"])


def test_a_data_set_without_runs_shows_those_of_the_default_one():
    results = series_results("octmnist")
    assert isinstance(results, SeriesResults)
    assert results.dataset == "pneumoniamnist"


def test_results_that_are_not_there_are_none():
    assert read_results("octmnist", "planted") is None


@pytest.fixture(scope="module")
def figure():
    return answer_figure("pneumoniamnist", {"Base": 66.8})


def texts(figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_each_model_has_a_heading(figure):
    headings = [text.replace("\n", " ") for text in texts(figure)]
    for title in ("Base", "Tiny", "Tiny, answers", "Tiny, answers + maps"):
        assert title in headings


def test_bases_own_file_stands_beside_base():
    timed = texts(answer_figure(milliseconds={"Base, int8": 25.3}))
    assert timed.index("Base,\nint8") == timed.index("Base") + 1
    assert "93 MB\n25.3 ms\nin ONNX" in timed


def test_a_set_without_measured_files_has_no_column_of_them():
    assert "Base,\nint8" not in texts(answer_figure("bloodmnist"))


def test_a_measured_time_stands_beside_the_size(figure):
    assert "341 MB\n66.8 ms" in texts(figure)
    assert texts(figure).count("21 MB") == 3


def test_a_student_has_the_time_of_its_network():
    timed = answer_figure(milliseconds={"Tiny": 9.5})
    costs = texts(timed)
    assert costs.count("21 MB\n9.5 ms") == 3


def test_the_network_of_a_student_is_not_found_by_its_name(monkeypatch):
    student = answer.SERIES["vit_tiny_answers"]
    renamed = replace(student, title="A student")
    monkeypatch.setitem(
        answer.SERIES,
        "vit_tiny_answers",
        renamed,
    )
    timed = answer_figure(milliseconds={"Tiny": 9.5})
    assert "A student" in texts(timed)
    assert texts(timed).count("21 MB\n9.5 ms") == 3


def test_a_network_with_other_patches_has_a_time_of_its_own():
    timed = answer_figure(milliseconds={"Tiny, 16 patches": 9.5})
    assert texts(timed).count("21 MB") == 3


def test_the_second_base_is_drawn_through_the_rows(figure):
    for ax in figure.axes:
        if ax.get_ylabel().startswith("SAME"):
            assert any(line.get_linestyle() == "--" for line in ax.lines)


def test_two_tinys_are_drawn_beside_tiny(monkeypatch):
    pair = {"spearman": 0.25, "chance_in_class": 0.0}
    results = series_results()._replace(siblings={"grad_cam": [pair]}, siblings_answers=[0.9])
    monkeypatch.setattr("swys_figures.answer.series_results", lambda dataset: results)
    heights = []
    for ax in answer_figure().axes:
        heights += [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert heights == [90, 25]


def test_each_row_asks_one_thing(figure):
    titles = [ax.get_ylabel().split("\n")[0] for ax in figure.axes]
    assert titles == [
        "ACCURACY",
        "CALIBRATION",
        "COST",
        "SAME ANSWERS?",
        "SAME REASONS?",
        "SAME MAP?",
    ]


def test_the_share_of_the_same_answers_is_a_row(figure):
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert any(label.startswith("SAME ANSWERS?") for label in labels)


def test_what_the_lines_are_stands_there_once(figure):
    notes = [text for text in texts(figure) if text.startswith("dashed")]
    assert len(notes) == 1
    assert "shaded: luck\nof 624 images" in texts(figure)


def test_no_run_is_cut_off(figure):
    of_maps = figure.axes[-1]
    drawn = []
    for line in of_maps.lines:
        if line.get_marker() == "o":
            drawn += list(line.get_ydata())
    assert min(drawn) < 0
    assert of_maps.get_ylim()[0] < min(drawn) - 10


def test_several_labels_an_image_have_no_row_of_the_healthy(monkeypatch):
    results = series_results()
    run = {**results.runs["vit_base"][0], "recall": None}
    several = results._replace(dataset="chestmnist", runs={"vit_base": [run]}, agreement={})
    monkeypatch.setattr(answer, "series_results", lambda dataset: several)
    panels = answer_figure("chestmnist").axes
    titles = [ax.get_ylabel().split("\n")[0] for ax in panels]
    assert titles == ["ACCURACY", "CALIBRATION", "COST", "SAME ANSWERS?"]
