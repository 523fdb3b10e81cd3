"""The tables of the reference set, against closed forms."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small import run_entry, some

from swys_studies import report
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.distillation import OBJECTIVES

# of 400 images of class 0, Tiny has 320 right, and 40 more with its teacher's answers
LABELS = np.zeros(400, int)
ALONE = "0" * 320 + "1" * 80
TAUGHT = "0" * 360 + "1" * 40


@pytest.fixture
def entries():
    """Three seeds of Tiny, and three of Tiny with answers."""
    runs = []
    for seed in range(3):
        tiny = run_entry(f"vit_tiny/labels/seed{seed}", ALONE, accuracy=0.8)
        taught = run_entry(f"vit_tiny/answers/seed{seed}", TAUGHT, accuracy=0.9)
        runs += [tiny, taught]
    return runs


def set_auc(entry, auc):
    entry["last"] = entry["last"] | {"auc": auc}


@pytest.fixture
def difference(entries):
    (row,) = report.differences(entries, LABELS)
    return row


def test_a_row_for_each_kind(entries):
    rows = report.kinds(entries, LABELS)
    assert [row["trained"] for row in rows] == ["Tiny", "Tiny, answers"]
    assert [row["seeds"] for row in rows] == [3, 3]


def test_scores_have_a_mean_and_a_deviation(entries):
    set_auc(entries[0], 0.8)
    tiny, _ = report.kinds(entries, LABELS)
    assert tiny["AUC"] == "0.6000 ± 0.1732"


def test_one_seed_has_no_deviation(entries):
    one_run = entries[:1]
    (tiny,) = report.kinds(one_run, LABELS)
    assert tiny["accuracy %"] == "80.0"


def test_a_run_of_another_method_is_left_out(entries):
    rows = report.kinds(entries, LABELS)
    entries.append(run_entry("vit_tiny/nothing/seed0", ALONE))
    assert report.kinds(entries, LABELS) == rows


def test_a_difference_is_paired_by_seed(entries):
    entries.pop()
    (row,) = report.differences(entries, LABELS)
    assert row["pairs"] == 2


def test_a_difference_is_in_points(difference):
    assert difference["difference"] == "Tiny, answers - Tiny"
    assert difference["points"] == "+10.0"


def test_the_interval_of_a_difference_is_that_of_a_mean(difference):
    low, high = difference["95 %"].split(" to ")
    half = 196 * np.sqrt(0.1 * 0.9 / 400)  # of a mean of 400 differences, 40 of them 1
    assert float(low) == pytest.approx(10 - half, abs=0.4)
    assert float(high) == pytest.approx(10 + half, abs=0.4)


def test_mcnemar_counts_the_images_that_one_run_alone_has_right(difference):
    p = difference["McNemar p, first seed"]
    assert p == pytest.approx(2 * 0.5**40, rel=0.01)


def test_one_pair_has_no_interval_over_seeds(entries):
    one_pair = entries[:2]
    (row,) = report.differences(one_pair, LABELS)
    assert row["95 % over seeds"] == "one seed"


def test_an_interval_over_seeds(entries):
    set_auc(entries[1], 0.6)
    set_auc(entries[3], 0.7)
    set_auc(entries[5], 0.8)
    (row,) = report.differences(entries, LABELS)
    assert row["AUC"] == "+0.2000"
    half = 4.3027 * 0.1 / np.sqrt(3)  # t quantile, standard error
    assert row["95 % over seeds"] == f"{0.2 - half:+.4f} to {0.2 + half:+.4f}"


def test_predictions_of_other_images_are_refused(entries):
    with pytest.raises(SwysError, match="400 predictions for 3 test images"):
        report.right(entries[0], LABELS[:3])


def test_classes_above_nine_are_letters():
    entry = run_entry("vit_tiny/labels/seed0", "0A", accuracy=1.0)
    labels = np.array([0, 10])
    assert report.right(entry, labels).all()


def test_a_run_of_other_images_of_the_same_number_is_refused():
    entry = run_entry("vit_tiny/labels/seed0", "01", accuracy=1.0)
    with pytest.raises(SwysError, match="answered other images"):
        report.right(entry, np.array([1, 0]))


@pytest.fixture
def with_new_objective(entries, monkeypatch):
    """The runs, and one of a way to teach that somebody adds."""
    new = replace(OBJECTIVES["answers"], id="new", title="something new")
    monkeypatch.setitem(OBJECTIVES, "new", new)
    entry = run_entry("vit_tiny/new/seed0", TAUGHT, accuracy=0.9)
    return [*entries, entry]


def test_a_new_way_to_teach_has_a_row(with_new_objective):
    rows = report.kinds(with_new_objective, LABELS)
    assert [row["trained"] for row in rows] == ["Tiny", "Tiny, answers", "Tiny, something new"]


def test_a_new_way_to_teach_is_compared(with_new_objective):
    rows = report.differences(with_new_objective, LABELS)
    assert [row["difference"] for row in rows] == [
        "Tiny, answers - Tiny",
        "Tiny, something new - Tiny",
        "Tiny, something new - Tiny, answers",
    ]


@pytest.fixture
def data(drawn_data_dir, monkeypatch):
    """Drawn images in place of real ones."""
    images = some(load_dataset(root=drawn_data_dir))
    monkeypatch.setattr(report, "one_label_data", lambda dataset: images)
    return images


@pytest.fixture
def printed(data, tmp_path, capsys):
    """``printed(ids)``: what the report says of runs with these ids."""

    def text(*run_ids: str) -> str:
        predicted = "0" * len(data.test)
        entries = [run_entry(run_id, predicted) for run_id in run_ids]
        path = tmp_path / "runs.json"
        path.write_text(json.dumps({"runs": entries}))
        report.report(runs=str(path))
        return capsys.readouterr().out

    return text


def test_the_report_says_what_it_is_of(printed):
    text = printed("vit_tiny/labels/seed0")
    assert "pneumoniamnist: 1 runs, 32 test images" in text
    assert "trained on drawn" in text


def test_runs_of_before_are_reported(printed):
    text = printed("vit_tiny/kd_explain/seed0", "vit_tiny/scratch/seed0")
    assert "Tiny, answers + maps - Tiny" in text


def test_a_missing_runs_json(tmp_path):
    with pytest.raises(SwysError, match="train the set with 'swys study reference' first"):
        report.report(runs=str(tmp_path / "runs.json"))
