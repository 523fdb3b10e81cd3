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
from swys_utils.metrics import accuracy_interval

# of 400 images of class 0, Tiny has 320 right, and 40 more with its teacher's answers
LABELS = np.zeros(400, int)
ALONE = "0" * 320 + "1" * 80
TAUGHT = "0" * 360 + "1" * 40


@pytest.fixture
def entries():
    """Three seeds of Tiny, and three of Tiny with answers."""
    runs = []
    for seed in range(3):
        runs.append(run_entry(f"vit_tiny/labels/seed{seed}", ALONE, accuracy=0.8))
        runs.append(run_entry(f"vit_tiny/answers/seed{seed}", TAUGHT, accuracy=0.9))
    return runs


@pytest.fixture
def difference(entries):
    (row,) = report.differences(entries, LABELS)
    return row


def test_a_row_for_each_kind(entries):
    rows = report.kinds(entries, LABELS)
    assert [(row["trained"], row["seeds"]) for row in rows] == [("Tiny", 3), ("Tiny, answers", 3)]


def test_scores_have_a_mean_and_a_deviation(entries):
    entries[0]["last"] = entries[0]["last"] | {"auc": 0.8}
    assert report.kinds(entries, LABELS)[0]["AUC"] == "0.6000 ± 0.1732"


def test_one_seed_has_no_deviation(entries):
    assert report.kinds(entries[:1], LABELS)[0]["accuracy %"] == "80.0"


def test_a_run_of_another_method_is_left_out(entries):
    other = run_entry("vit_tiny/nothing/seed0", ALONE)
    assert report.kinds([*entries, other], LABELS) == report.kinds(entries, LABELS)


def test_a_difference_is_paired_by_seed(entries):
    (row,) = report.differences(entries[:-1], LABELS)
    assert row["pairs"] == 2


def test_a_difference_is_in_points(difference):
    assert difference["difference"] == "Tiny, answers - Tiny"
    assert difference["points"] == "+10.0"


def test_the_interval_of_a_difference_is_that_of_a_mean(difference):
    interval = [float(end) for end in difference["95 %"].split(" to ")]
    half = 196 * np.sqrt(0.1 * 0.9 / 400)  # of a mean of 400 differences, 40 of them 1
    assert interval == pytest.approx([10 - half, 10 + half], abs=0.4)


def test_mcnemar_counts_the_images_that_one_run_alone_has_right(difference):
    assert difference["McNemar p, first seed"] == pytest.approx(2 * 0.5**40, rel=0.01)


def test_one_pair_has_no_interval_over_seeds(entries):
    (row,) = report.differences(entries[:2], LABELS)
    assert row["95 % over seeds"] == "one seed"


def test_an_interval_over_seeds(entries):
    for seed, auc in enumerate((0.6, 0.7, 0.8)):
        taught = entries[2 * seed + 1]
        taught["last"] = taught["last"] | {"auc": auc}
    (row,) = report.differences(entries, LABELS)
    assert row["AUC"] == "+0.2000"
    half = 4.3027 * 0.1 / np.sqrt(3)  # t quantile, standard error
    assert row["95 % over seeds"] == f"{0.2 - half:+.4f} to {0.2 + half:+.4f}"


def test_predictions_of_other_images_are_refused(entries):
    with pytest.raises(SwysError, match="400 predictions for 3 test images"):
        report.right(entries[0], LABELS[:3])


def test_classes_above_nine_are_letters():
    entry = run_entry("vit_tiny/labels/seed0", "0A")
    assert report.right(entry, np.array([0, 10])).tolist() == [True, True]


def test_a_new_way_to_teach_is_in_the_tables(entries, monkeypatch):
    objective = replace(OBJECTIVES["answers"], id="new", title="something new", old_ids=())
    monkeypatch.setitem(OBJECTIVES, "new", objective)
    entries.append(run_entry("vit_tiny/new/seed0", TAUGHT))
    titles = [row["trained"] for row in report.kinds(entries, LABELS)]
    compared = [row["difference"] for row in report.differences(entries, LABELS)]
    assert titles == ["Tiny", "Tiny, answers", "Tiny, something new"]
    assert compared[1:] == ["Tiny, something new - Tiny", "Tiny, something new - Tiny, answers"]


@pytest.fixture
def data(drawn_data_dir, monkeypatch):
    """Drawn images in place of real ones."""
    images = some(load_dataset(root=drawn_data_dir))
    monkeypatch.setattr(report, "study_data", lambda dataset: images)
    return images


def test_the_report_is_printed(data, tmp_path, capsys):
    entry = run_entry("vit_tiny/labels/seed0", "0" * len(data.test))
    path = tmp_path / "runs.json"
    path.write_text(json.dumps({"runs": [entry]}))
    report.report(runs=str(path))
    printed = capsys.readouterr().out
    assert "pneumoniamnist: 1 runs, 32 test images" in printed
    assert "trained on drawn" in printed


def test_runs_of_before_are_reported(data, tmp_path, capsys):
    predicted = "0" * len(data.test)
    old = ("vit_tiny/kd_explain/seed0", "vit_tiny/scratch/seed0")
    path = tmp_path / "runs.json"
    path.write_text(json.dumps({"runs": [run_entry(run_id, predicted) for run_id in old]}))
    report.report(runs=str(path))
    assert "Tiny, answers + maps - Tiny" in capsys.readouterr().out


def test_a_missing_runs_json(tmp_path):
    with pytest.raises(SwysError, match="train the set with 'swys study reference' first"):
        report.report(runs=str(tmp_path / "runs.json"))


def width(values):
    low, high = accuracy_interval(values)
    return high - low


def test_the_interval_of_equal_seeds_is_that_of_the_images():
    right = np.random.default_rng(0).random((1, 500)) < 0.8
    same = np.repeat(right, 4, axis=0)
    assert width(same) == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 500), rel=0.15)


def test_the_interval_widens_with_the_spread_between_seeds():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.random((1, 500)) < 0.8, 4, axis=0)
    shares = np.array([[0.6], [0.75], [0.85], [1.0]])
    varied = rng.random((4, 500)) < shares
    assert width(varied) > 2 * width(same)


def test_two_seeds_say_little():
    values = np.repeat([[0.8], [0.9]], 500, axis=1)
    half = 12.706 * 0.05  # t quantile of one degree of freedom, standard error
    assert accuracy_interval(values) == pytest.approx((0.85 - half, 0.85 + half), abs=1e-3)
