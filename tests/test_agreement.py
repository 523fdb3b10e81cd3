"""Agreement of students with their teacher, over runs, on untrained models with drawn images."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small import run_entry, some, vit

from swys_studies import agreement, cnn, compared_maps, deployed, fillings, inheritance, runs
from swys_utils import explain
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.distillation import OBJECTIVES
from swys_utils.gradcam import METHODS, Method, heatmaps
from swys_utils.models import load_checkpoint, save_checkpoint, weights_digest
from swys_utils.results import as_table
from swys_utils.training import predict

TEACHER = "vit_base/labels/seed0"
STUDENT = "vit_tiny/maps/seed1"
CARD = {"model": "vit_tiny_patch16_224", "dataset": "pneumoniamnist"}
# two seeds of each kind that is compared, and two that are not
TAUGHT_BY_LABELS = ("vit_base/labels", "vit_tiny/labels", "vit_tiny/few_labels")
TAUGHT_BY_BASE = ("vit_tiny/answers", "vit_tiny/maps", "vit_tiny/answers_p7")


def write_entry(folder, run_id, accuracy):
    model, method, _ = run_id.split("/")
    teacher = TEACHER if f"{model}/{method}" in TAUGHT_BY_BASE else None
    entry = run_entry(run_id, accuracy=accuracy, teacher=teacher)
    (folder / f"{run_id}.run.json").write_text(json.dumps(entry))


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir), test=12)


@pytest.fixture(scope="module", autouse=True)
def nothing_shipped(tmp_path_factory):
    """An empty folder in place of checkpoints/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "CHECKPOINTS", tmp_path_factory.mktemp("shipped"))
        yield


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
    agreement.agreement_over_runs(folder, data, path)
    return json.loads(path.read_text())


@pytest.fixture
def path(study, tmp_path):
    """A file with the study."""
    path = tmp_path / "agreement.json"
    path.write_text(json.dumps(study))
    return path


@pytest.fixture
def measured_again(folder, data, path):
    """``measured_again()`` repeats the study and returns its runs by Grad-CAM."""

    def again() -> dict:
        study = agreement.agreement_over_runs(folder, data, path)
        return study["maps"]["grad_cam"]["runs"]

    return again


@pytest.fixture
def nothing_is_measured(monkeypatch):
    """A run that is compared with its teacher fails the test."""
    monkeypatch.setattr(agreement, "compare", pytest.fail)
    monkeypatch.setattr(compared_maps, "compare", pytest.fail)


@pytest.fixture
def measuring_marks(monkeypatch):
    """A run that is compared with its teacher gets an agreement of 9, and costs no time."""
    monkeypatch.setattr(agreement, "compare", lambda *maps: {"spearman": 9.0})
    monkeypatch.setattr(agreement, "own_measures", lambda *arguments: {"gap": 0.0})


@pytest.fixture
def teacher(folder):
    model, _ = load_checkpoint(folder / f"{TEACHER}.safetensors")
    return model


@pytest.fixture
def student(folder):
    model, _ = load_checkpoint(folder / f"{STUDENT}.safetensors")
    return model


def test_each_kind_of_student_is_a_group(study):
    groups = Counter(run["group"] for run in study["runs"])
    assert groups == {
        "Tiny": 2,
        "Tiny, answers": 2,
        "Tiny, answers + maps": 2,
        "another teacher": 1,
    }


def test_the_study_names_its_teacher_and_its_images(study):
    assert study["teacher"]["id"] == TEACHER
    assert study["images"] == 12


def test_the_teacher_predicts_what_it_predicts(study):
    assert study["teacher"]["same_prediction"] == 1


@pytest.mark.parametrize("method", METHODS)
def test_each_way_to_explain_is_compared(study, method):
    part = study["maps"][method]
    assert len(part["runs"]) == 7
    assert len(part["differences"]) == 3


@pytest.mark.parametrize("method", METHODS)
def test_two_tinys_are_compared_with_each_other(study, method):
    assert list(study["siblings"][method]) == ["vit_tiny/labels/seed0 and vit_tiny/labels/seed1"]


def test_a_pair_of_tinys_is_explained_for_the_class_that_the_teacher_predicts(
    study, folder, teacher, data
):
    images = data.test.images
    predictions = predict(teacher, images).argmax(axis=1)
    maps = []
    for seed in (0, 1):
        model, _ = load_checkpoint(folder / f"vit_tiny/labels/seed{seed}.safetensors")
        maps.append(heatmaps(model, images, "grad_cam", predictions, signed=True))
    expected = np.nanmean(explain.agreement(*maps))
    (pair,) = study["siblings"]["grad_cam"].values()
    assert pair["spearman"] == pytest.approx(expected, abs=1e-5)


def test_a_share_of_the_predictions_is_the_teachers(study, teacher, student, data):
    images = data.test.images
    same = predict(teacher, images).argmax(axis=1) == predict(student, images).argmax(axis=1)
    shares = {run["id"]: run["same_prediction"] for run in study["runs"]}
    assert shares[STUDENT] == same.mean()


def test_maps_are_compared_for_the_class_that_the_teacher_predicts(study, teacher, student, data):
    images = data.test.images
    predictions = predict(teacher, images).argmax(axis=1)
    teacher_maps = heatmaps(teacher, images, "grad_cam", predictions, signed=True)
    student_maps = heatmaps(student, images, "grad_cam", predictions, signed=True)
    expected = np.nanmean(explain.agreement(teacher_maps, student_maps))
    compared = study["maps"]["grad_cam"]["runs"][STUDENT]
    assert compared["spearman"] == pytest.approx(expected, abs=1e-5)


def test_the_table_is_printed(study, folder, data, path, monkeypatch, capsys):
    monkeypatch.setattr(agreement, "one_label_data", lambda dataset: data)
    rows = agreement.measure("pneumoniamnist", str(folder), str(path))
    assert rows == agreement.summary(study)
    assert as_table(rows) in capsys.readouterr().out


@pytest.mark.parametrize(
    "study",
    [agreement.measure, cnn.cnn, deployed.deployed, fillings.fillings, inheritance.inheritance],
)
def test_several_labels_an_image_are_refused(study, drawn_data_dir, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    with pytest.raises(SwysError, match="'chestmnist' has several labels an image"):
        study("chestmnist")


def test_what_is_known_is_not_measured_again(study, measured_again, nothing_is_measured):
    assert measured_again() == study["maps"]["grad_cam"]["runs"]


OLD_NAMES = {
    "/labels/": "/scratch/",
    "/answers/": "/kd_soft/",
    "/maps/": "/kd_explain/",
    '"Tiny"': '"alone"',
    '"Tiny, answers"': '"soft targets"',
    '"Tiny, answers + maps"': '"soft targets + maps"',
}


@pytest.fixture
def old_study(study):
    """The study as an earlier version wrote it."""
    text = json.dumps(study)
    for new, old in OLD_NAMES.items():
        text = text.replace(new, old)
    return json.loads(text) | {"siblings": study["siblings"]}


def test_what_an_earlier_version_knew_is_not_measured_again(
    study, old_study, path, measured_again, nothing_is_measured
):
    path.write_text(json.dumps(old_study))
    assert measured_again() == study["maps"]["grad_cam"]["runs"]


def test_a_study_of_an_earlier_version_is_read(study, old_study, path):
    path.write_text(json.dumps(old_study))
    assert runs.read_study(path) == study


def test_a_summary_of_an_earlier_version_has_todays_names(study, old_study):
    assert agreement.summary(old_study) == agreement.summary(study)


def test_an_earlier_device_is_named_beside_todays(study, path, measured_again):
    todays = study["device"]
    one_run_less = study | {"runs": study["runs"][1:]}
    path.write_text(json.dumps(one_run_less | {"device": "another processor"}))
    measured_again()
    assert json.loads(path.read_text())["device"] == f"another processor, {todays}"


def test_a_device_that_measured_nothing_is_not_named(study, path, measured_again):
    path.write_text(json.dumps(study | {"device": "another processor"}))
    measured_again()
    assert json.loads(path.read_text())["device"] == "another processor"


def test_the_weights_of_the_teacher_are_named(study, teacher):
    assert study["base"] == weights_digest(teacher)


def test_a_study_of_unnamed_weights_is_kept(study, path, measured_again, nothing_is_measured):
    unnamed = {key: value for key, value in study.items() if key != "base"}
    path.write_text(json.dumps(unnamed))
    assert measured_again() == study["maps"]["grad_cam"]["runs"]
    assert json.loads(path.read_text())["base"] == ""


def test_earlier_weights_are_named_beside_todays(study, path, measured_again):
    one_run_less = study | {"runs": study["runs"][1:]}
    path.write_text(json.dumps(one_run_less | {"base": "of more bits"}))
    measured_again()
    assert json.loads(path.read_text())["base"] == f"of more bits, {study['base']}"


def test_a_run_that_was_trained_anew_is_measured_again(
    study, path, measured_again, measuring_marks
):
    retrained = study["runs"][0]
    before = study | {"runs": [retrained | {"accuracy": 0.5}, *study["runs"][1:]]}
    path.write_text(json.dumps(before))
    marked = [run_id for run_id, row in measured_again().items() if row["spearman"] == 9]
    assert marked == [retrained["id"]]


def test_a_run_that_was_trained_anew_elsewhere_loses_its_maps(study, data, folder, path):
    path.write_text(json.dumps(study))
    entries = runs.read_runs(folder)
    retrained = study["runs"][0]["id"]
    for entry in entries:
        if entry["id"] == retrained:
            entry["last"]["accuracy"] = 0.123
    kept = agreement._measured_before(path, data, study["teacher"], entries)
    assert retrained not in {run["id"] for run in kept.runs}
    assert retrained not in kept.maps["grad_cam"]


@pytest.mark.parametrize("other", [{"source": "drawn otherwise"}, {"images": 11}])
def test_a_study_of_other_images_is_not_kept(study, data, folder, path, other):
    path.write_text(json.dumps(study | other))
    entries = runs.read_runs(folder)
    assert agreement._measured_before(path, data, study["teacher"], entries) is None


def test_another_teacher_makes_everything_anew(study, path, measured_again, measuring_marks):
    before = study | {"teacher": study["teacher"] | {"accuracy": 0.5}}
    path.write_text(json.dumps(before))
    for row in measured_again().values():
        assert row["spearman"] == 9


def test_a_new_way_to_explain_is_compared(folder, data, path, monkeypatch):
    hires_cam = METHODS["hires_cam"]
    new = Method("new", "something new", "#000000", hires_cam.function)
    monkeypatch.setitem(METHODS, "new", new)
    monkeypatch.setattr(agreement, "own_measures", lambda *arguments: {"gap": 0.0})
    study = agreement.agreement_over_runs(folder, data, path)
    assert study["maps"]["new"] == study["maps"]["hires_cam"]


def test_a_new_way_to_explain_leaves_what_was_measured_before(
    study, path, measured_again, measuring_marks, monkeypatch
):
    new = Method("new", "something new", "#000000", METHODS["hires_cam"].function)
    monkeypatch.setitem(METHODS, "new", new)
    assert measured_again() == study["maps"]["grad_cam"]["runs"]


def test_a_new_way_to_teach_is_compared(folder, monkeypatch):
    new = replace(OBJECTIVES["answers"], id="new", title="something new")
    monkeypatch.setitem(OBJECTIVES, "new", new)
    entries = runs.read_runs(folder)
    entries.append(run_entry("vit_tiny/new/seed0", teacher=TEACHER))
    _, students = agreement.split_runs(entries)
    assert students[-1]["group"] == "Tiny, something new"


def test_runs_of_another_data_set_are_refused(folder, data, path):
    info = replace(data.info, name="chestmnist")
    other = replace(data, info=info)
    with pytest.raises(SwysError, match="holds runs of pneumoniamnist, not chestmnist"):
        agreement.agreement_over_runs(folder, other, path)


def test_students_of_another_base_are_compared_with_the_same_teacher():
    entries = [run_entry(TEACHER), run_entry("vit_tiny/answers/seed0", teacher=TEACHER)]
    other = "vit_base/labels/seed1"
    entries.append(run_entry("vit_tiny/answers_of_another/seed0", teacher=other))
    teacher, students = agreement.split_runs(entries)
    assert teacher["id"] == TEACHER
    assert students[-1]["group"] == "Tiny, answers of another Base"


def test_students_need_a_teacher():
    message = "weights of students of one teacher, found none; train them first"
    with pytest.raises(SwysError, match=message):
        agreement.split_runs([])


def test_the_weights_of_the_teacher_have_to_be_there():
    student = run_entry("vit_tiny/answers/seed0", teacher=TEACHER)
    with pytest.raises(SwysError, match=f"the weights of {TEACHER} are not there; train it"):
        agreement.split_runs([student])
