"""Agreement of students with their teacher, over runs, on untrained models with drawn images."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small import run_entry, some, vit

from swys_studies import agreement, runs
from swys_studies.kinds import taught_pairs
from swys_utils import explain
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.distillation import OBJECTIVES
from swys_utils.gradcam import METHODS, Method, heatmaps
from swys_utils.models import load_checkpoint, save_checkpoint
from swys_utils.results import as_table
from swys_utils.training import predict

TEACHER = "vit_base/labels/seed0"
STUDENT = "vit_tiny/maps/seed1"
CARD = {"model": "vit_tiny_patch16_224", "dataset": "pneumoniamnist"}
GROUPS = ["Tiny", "Tiny, answers", "Tiny, answers + maps", "another teacher"]
# two seeds of each kind that is compared, and two that are not
TAUGHT_BY_LABELS = ("vit_base/labels", "vit_tiny/labels", "vit_tiny/few_labels")
TAUGHT_BY_BASE = ("vit_tiny/answers", "vit_tiny/maps", "vit_tiny/answers_p7")


def write_entry(folder, run_id, accuracy):
    model, method, _ = run_id.split("/")
    teacher = TEACHER if f"{model}/{method}" in TAUGHT_BY_BASE else None
    entry = run_entry(run_id, accuracy=accuracy, teacher=teacher)
    (folder / f"{run_id}.run.json").write_text(json.dumps(entry))


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir), test=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs as ``swys study reference`` leaves them, of models with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    number = 0
    for kind in (*TAUGHT_BY_LABELS, *TAUGHT_BY_BASE):
        for seed in (0, 1):
            number += 1
            run_id = f"{kind}/seed{seed}"
            model = vit(seed=number, noise=0.1, patch_size=7)
            save_checkpoint(model, folder / f"{run_id}.safetensors", CARD)
            write_entry(folder, run_id, accuracy=number / 100)
    return folder


@pytest.fixture(scope="module")
def study(folder, data, tmp_path_factory):
    """What is measured of these runs."""
    path = tmp_path_factory.mktemp("study") / "agreement.json"
    return agreement.agreement_over_runs(folder, data, path)


@pytest.fixture
def path(study, tmp_path):
    """A file with the study."""
    path = tmp_path / "agreement.json"
    path.write_text(json.dumps(study))
    return path


@pytest.fixture
def nothing_measured(monkeypatch):
    """A run that is compared with its teacher fails the test."""
    monkeypatch.setattr(agreement, "compare", pytest.fail)


@pytest.fixture
def pair(folder):
    """A teacher and a student."""
    teacher, _ = load_checkpoint(folder / f"{TEACHER}.safetensors")
    student, _ = load_checkpoint(folder / f"{STUDENT}.safetensors")
    return teacher, student


def test_each_kind_of_student_is_a_group(study):
    groups = sorted(run["group"] for run in study["runs"])
    assert groups == sorted([*GROUPS[:3], *GROUPS[:3], "another teacher"])


def test_the_study_names_its_teacher_and_its_images(study):
    assert study["teacher"]["id"] == TEACHER
    assert study["images"] == 16


def test_the_teacher_predicts_what_it_predicts(study):
    assert study["teacher"]["same_prediction"] == 1


@pytest.mark.parametrize("method", METHODS)
def test_each_way_to_explain_is_compared(study, method):
    part = study["maps"][method]
    assert part["runs"].keys() == {run["id"] for run in study["runs"]}
    assert len(part["differences"]) == 3


def test_a_share_of_the_predictions_is_the_teachers(study, pair, data):
    teacher, student = [predict(model, data.test.images).argmax(axis=1) for model in pair]
    run = next(run for run in study["runs"] if run["id"] == STUDENT)
    assert run["same_prediction"] == pytest.approx((teacher == student).mean())


def test_maps_are_compared_for_the_class_that_the_teacher_predicts(study, pair, data):
    images = data.test.images
    predictions = predict(pair[0], images).argmax(axis=1)
    maps = [heatmaps(model, images, "grad_cam", predictions, signed=True) for model in pair]
    spearman = study["maps"]["grad_cam"]["runs"][STUDENT]["spearman"]
    assert spearman == pytest.approx(np.nanmean(explain.agreement(*maps)), abs=1e-5)


def test_the_study_is_kept_and_printed(folder, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(agreement, "study_data", lambda dataset: data)
    path = tmp_path / "agreement.json"
    rows = agreement.measure("pneumoniamnist", str(folder), str(path))
    assert rows == agreement.summary(json.loads(path.read_text()))
    assert as_table(rows) in capsys.readouterr().out


def test_several_labels_an_image_are_refused(data, monkeypatch):
    info = replace(data.info, task="multi-label, binary-class")
    monkeypatch.setattr(agreement, "study_data", lambda dataset: replace(data, info=info))
    with pytest.raises(SwysError, match="'chestmnist' has several labels an image"):
        agreement.measure("chestmnist")


def test_what_is_known_is_not_measured_again(study, folder, data, path, nothing_measured):
    assert agreement.agreement_over_runs(folder, data, path)["runs"] == study["runs"]


def with_old_names(content):
    """JSON as an earlier version wrote it."""
    text = json.dumps(content)
    for new, old in {
        "/labels/": "/scratch/",
        "/answers/": "/kd_soft/",
        "/maps/": "/kd_explain/",
        '"Tiny"': '"alone"',
        '"Tiny, answers"': '"soft targets"',
        '"Tiny, answers + maps"': '"soft targets + maps"',
    }.items():
        text = text.replace(new, old)
    return json.loads(text)


def test_what_an_earlier_version_knew_is_not_measured_again(
    study, folder, data, path, nothing_measured
):
    path.write_text(json.dumps(with_old_names(study)))
    assert agreement.agreement_over_runs(folder, data, path)["runs"] == study["runs"]


def test_a_study_of_an_earlier_version_is_read(study, path):
    path.write_text(json.dumps(with_old_names(study)))
    assert agreement.read_study(path) == json.loads(json.dumps(study))


def test_a_summary_of_an_earlier_version_has_todays_names(study):
    assert agreement.summary(with_old_names(study)) == agreement.summary(study)


def test_a_run_that_was_trained_anew_is_measured_again(folder, data, path, monkeypatch):
    monkeypatch.setattr(agreement, "compare", lambda *maps: {"spearman": 9.0})
    retrained = json.loads(path.read_text())
    retrained["runs"][0]["accuracy"] += 0.1
    path.write_text(json.dumps(retrained))
    again = agreement.agreement_over_runs(folder, data, path)["maps"]["grad_cam"]["runs"]
    assert [run_id for run_id, row in again.items() if row["spearman"] == 9] == [
        retrained["runs"][0]["id"]
    ]


def test_another_teacher_makes_everything_anew(folder, data, path, monkeypatch):
    monkeypatch.setattr(agreement, "compare", lambda *maps: {"spearman": 9.0})
    other = json.loads(path.read_text())
    other["teacher"]["accuracy"] += 0.1
    path.write_text(json.dumps(other))
    rows = agreement.agreement_over_runs(folder, data, path)["maps"]["grad_cam"]["runs"]
    assert {row["spearman"] for row in rows.values()} == {9}


def test_a_new_way_to_explain_is_compared(folder, data, path, monkeypatch):
    new = Method("new", "something new", "#000000", METHODS["hires_cam"].function)
    monkeypatch.setitem(METHODS, "new", new)
    study = agreement.agreement_over_runs(folder, data, path)
    assert study["maps"]["new"] == study["maps"]["hires_cam"]
    assert [row["map"] for row in agreement.summary(study)] == list(METHODS)


def test_a_new_way_to_teach_is_compared(folder, monkeypatch):
    objective = replace(OBJECTIVES["answers"], id="new", title="something new", old_ids=())
    monkeypatch.setitem(OBJECTIVES, "new", objective)
    entries = runs.read_runs(folder)
    entries.append(run_entry("vit_tiny/new/seed0", teacher=TEACHER))
    _, students = agreement.split_runs(entries)
    assert students[-1]["group"] == "Tiny, something new"


def test_runs_of_another_data_set_are_refused(folder, data, path, monkeypatch):
    monkeypatch.setattr(runs, "CHECKPOINTS", path.parent)
    other = replace(data, info=replace(data.info, name="chestmnist"))
    with pytest.raises(SwysError, match="holds runs of pneumoniamnist, not chestmnist"):
        agreement.agreement_over_runs(folder, other, path)


def test_students_need_a_teacher():
    message = "students of one finished teacher, found none; train them first"
    with pytest.raises(SwysError, match=message):
        agreement.split_runs([])


def test_the_teacher_has_to_be_finished():
    student = run_entry("vit_tiny/answers/seed0", teacher=TEACHER)
    with pytest.raises(SwysError, match=f"found {TEACHER}; train them first"):
        agreement.split_runs([student])


def test_chance_is_the_agreement_with_another_image():
    maps = np.random.default_rng(0).random((200, 4, 4))
    compared = agreement.compare(maps, maps, np.zeros(200, int))
    assert compared["spearman"] == pytest.approx(1)
    assert compared["chance"] == pytest.approx(0, abs=0.1)


def test_chance_in_class_is_the_agreement_with_an_image_of_the_same_prediction():
    predictions = np.arange(20) % 2
    of_class = np.random.default_rng(0).random((2, 4, 4))
    maps = of_class[predictions]
    compared = agreement.compare(maps, maps, predictions)
    assert compared["chance_in_class"] == pytest.approx(1)
    assert compared["chance"] < 0.9


def test_constant_maps_are_counted():
    maps = np.random.default_rng(0).random((6, 4, 4))
    maps[:2] = 0
    compared = agreement.compare(maps, maps, np.zeros(6, int))
    assert compared["undefined"] == 2


SEEDS = {  # group -> value of each seed
    "Tiny": (0.1, 0.2, 0.3),
    "Tiny, answers": (0.2, 0.4, 0.3),
    "Tiny, answers + maps": (0.8, 0.8, 0.8),
    "another teacher": (0.4, 0.4, 0.4),
}


@pytest.fixture
def rows():
    """Runs of four groups."""
    rows = []
    for group, values in SEEDS.items():
        for seed in range(len(values)):
            rows.append({"id": f"{group}, {seed}", "group": group, "seed": seed})
    return rows


@pytest.fixture
def values():
    """Id of a run -> its value."""
    values = {}
    for group, numbers in SEEDS.items():
        for seed, number in enumerate(numbers):
            values[f"{group}, {seed}"] = number
    return values


@pytest.fixture
def tiny_study(rows, values):
    """A study with one way to explain, its runs in another order."""
    compared = {}
    for run_id, value in values.items():
        compared[run_id] = {"spearman": value, "chance": 0.05, "chance_in_class": 0.1}
    return {"runs": rows[::-1], "maps": {"grad_cam": {"runs": compared}}}


def test_what_is_compared(rows, values):
    differences = agreement.differences(rows, values)
    pairs = [(a.title, b.title) for a, b in taught_pairs()]
    assert [(row["of"], row["to"]) for row in differences] == pairs


def test_differences_are_paired_by_seed(rows, values):
    answers = agreement.differences(rows, values)[0]
    assert answers["seeds"] == pytest.approx([0.1, 0.2, 0.0])
    assert answers["mean"] == pytest.approx(0.1)


def test_the_interval_of_a_difference_is_a_t_interval(rows, values):
    answers = agreement.differences(rows, values)[0]
    half = 4.3027 * 0.1 / np.sqrt(3)  # t quantile, standard error
    assert answers["high"] == pytest.approx(0.1 + half, abs=1e-4)


def test_one_pair_is_no_comparison(rows, values):
    one_seed = [row for row in rows if row["seed"] == 0]
    assert agreement.differences(one_seed, values) == []


def test_the_summary_has_the_groups_in_the_order_of_the_table(tiny_study):
    (row,) = agreement.summary(tiny_study)
    assert list(row)[:7] == ["map", "chance", "chance_in_class", *GROUPS]


def test_the_summary_has_the_mean_of_each_group(tiny_study):
    (row,) = agreement.summary(tiny_study)
    assert [row[group] for group in GROUPS] == pytest.approx([0.2, 0.3, 0.8, 0.4])


def test_the_summary_has_chance(tiny_study):
    (row,) = agreement.summary(tiny_study)
    assert (row["chance"], row["chance_in_class"]) == pytest.approx((0.05, 0.1))


def test_the_summary_has_differences_with_intervals(tiny_study):
    (row,) = agreement.summary(tiny_study)
    assert row["Tiny, answers + maps - Tiny"].startswith("+0.60 [")
