"""The reference set as it is trained: resumable, shared by processes, one start for all kinds.

Drawn data, tiny models.
"""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from small import RECIPE, SMALL, ship_teachers, some, vit

from swys_studies import kinds, pretraining, reference, resnet, run_specs, runs
from swys_studies.kinds import FEW_ANSWERS, FEW_LABELS, TINY
from swys_studies.run_scores import CurveOnTest
from swys_studies.run_specs import RunSpec
from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.data import load_dataset
from swys_utils.distillation import OBJECTIVES
from swys_utils.models import load_checkpoint

BEGUN = "min on two cores"
WORKER = "import sys, test_reference; test_reference.worker(sys.argv[1])"


def shrink(patch: pytest.MonkeyPatch, data, shipped: Path) -> None:
    """Two-block models, short recipes and few images; results go elsewhere."""
    build = reference.build

    def build_small(*arguments, **geometry):
        return build(*arguments, **SMALL)

    for module in (reference, pretraining):
        patch.setattr(module, "build", build_small)
    patch.setattr(resnet, "resnet_recipe", lambda name: replace(RECIPE, epochs=1))
    patch.setattr(reference, "masked_recipe", lambda name: replace(RECIPE, epochs=1))
    patch.setattr(run_specs, "reference_recipe", lambda *names: RECIPE)
    patch.setattr(kinds, "MATCHING_RESNETS", replace(kinds.MATCHING_RESNETS, epochs=2))
    patch.setattr(reference, "study_data", lambda dataset: data)
    patch.setattr(reference, "refuse_other_patches", lambda patches, folder: None)  # theirs are 14
    patch.setattr(runs, "CHECKPOINTS", shipped)
    patch.setattr(runs, "RUNS", shipped.with_name("locks"))


@pytest.fixture(scope="module")
def data(drawn_data_dir):
    return some(load_dataset(root=drawn_data_dir))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A folder with two seeds of each kind of run, and the third Tiny, which teaches."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, data, folder / "shipped")
        ship_teachers(folder / "shipped")
        for runs_to_train in ("vit_base", "vit_tiny/labels/seed2", "seed0", "seed1"):
            reference.reference(only=runs_to_train, folder=folder)
    return folder


@pytest.fixture(scope="module")
def entries(trained):
    """Of the first two seeds."""
    return [entry for entry in runs.read_runs(trained) if entry["seed"] < 2]


@pytest.fixture
def empty_folder(data, tmp_path, monkeypatch):
    """A folder without runs, where small runs can be trained; only the teachers are shipped."""
    shrink(monkeypatch, data, tmp_path / "shipped")
    ship_teachers(tmp_path / "shipped")
    return tmp_path / "runs"


@pytest.fixture
def new_objective(monkeypatch):
    """A way to teach that somebody adds: labels, and a setting that changes nothing."""
    objective = replace(
        OBJECTIVES["labels"],
        id="new",
        title="something new",
        make=lambda teacher, labels, student, weight: labels,
        defaults={"weight": 3.0},
    )
    monkeypatch.setitem(OBJECTIVES, "new", objective)


def ids_of(entries: list[dict]) -> list[str]:
    return sorted(entry["id"] for entry in entries)


def test_two_seeds_of_each_kind_are_trained(entries):
    wanted = [run.id for run in run_specs.reference_runs() if run.seed < 2]
    assert ids_of(entries) == sorted(wanted)


def test_runs_of_one_seed_start_with_the_same_weights(entries):
    """Base is as small as Tiny here."""
    starts = {}
    for entry in entries:
        if entry["method"] != "few_control" and not entry["method"].endswith("masked"):
            starts.setdefault(entry["seed"], set()).add(entry["initial_weights"])
    assert [len(weights) for weights in starts.values()] == [1, 1]
    assert starts[0] != starts[1]


def test_the_control_begins_with_other_weights_than_its_teacher(entries):
    start_of = {entry["id"]: entry["initial_weights"] for entry in entries}
    control = start_of["vit_tiny/few_control/seed0"]
    assert control != start_of["vit_tiny/few_labels/seed0"]


def test_runs_may_share_a_masked_autoencoder(trained, entries):
    starts = {entry["id"]: entry["initial_weights"] for entry in entries}
    masked = starts["vit_tiny/labels_masked/seed0"]
    assert masked == starts["vit_tiny/labels_sharp_masked/seed0"]
    assert masked != starts["vit_tiny/labels/seed0"]
    encoders = [path.stem.split(", ") for path in (trained / "masked").glob("*.pt")]
    assert sorted(names[:2] for names in encoders) == [["vit_base", "4 px"], ["vit_tiny", "4 px"]]


def test_seeds_take_the_masked_autoencoders_in_turn(data, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        reference,
        "pretrained",
        lambda *arguments, **size: asked.append(arguments),
    )
    for seed in range(4):
        run = RunSpec(replace(TINY, encoders=2), seed, RECIPE)
        reference._encoder(run, data, tmp_path)
    assert [arguments[3] for arguments in asked] == [0, 1, 0, 1]


def test_the_history_has_a_row_for_each_epoch(entries):
    for entry in entries:
        assert len(entry["history"]) == entry["recipe"]["epochs"]


def test_the_history_has_test_scores(entries):
    for entry in entries:
        for row in entry["history"]:
            assert {"test_accuracy", "test_auc", "val_auc", "seconds"} <= row.keys()


def test_an_entry_names_its_teacher_and_its_settings(entries):
    by_id = {entry["id"]: entry for entry in entries}
    entry = by_id["vit_tiny/maps/seed1"]
    assert entry["method"] == "maps"
    assert entry["teacher"] == "vit_base/labels/seed0"
    assert entry["recipe"]["alpha"] == 0.7
    assert entry["recipe"]["gamma"] == 1.0


def test_an_entry_has_a_character_for_each_test_image(entries, data):
    for entry in entries:
        assert len(entry["predicted"]) == len(data.test)


def test_the_scores_are_those_of_the_predictions(entries, data):
    for entry in entries:
        predicted = np.array(list(entry["predicted"]), int)
        right = predicted == data.test.labels
        assert entry["last"]["accuracy"] == right.mean()


def test_each_run_has_a_checkpoint_with_a_card(trained, entries):
    for entry in entries:
        _, card = load_checkpoint(trained / f"{entry['id']}.safetensors")
        assert card["id"] == entry["id"]


def test_nothing_of_an_unfinished_run_is_left(trained):
    assert list(trained.rglob("*.state.*")) == []
    assert list(trained.rglob("*.curve.json")) == []


def test_finished_runs_are_written_to_the_shipped_ones(trained):
    path = trained / "shipped" / "pneumoniamnist" / "runs.json"
    assert ids_of(runs.read_runs(path)) == ids_of(runs.read_runs(trained))


@pytest.fixture
def listed(capsys):
    """``listed(folder, only)``: the lines of ``swys study reference --list``."""

    def lines(folder: Path, only: str = "") -> list[str]:
        reference.reference(folder=str(folder), only=only, list=True)
        return capsys.readouterr().out.splitlines()

    return lines


def test_the_list_says_what_is_done(trained, empty_folder, listed):
    done = [line for line in listed(trained) if line.endswith(" done")]
    first_words = [line.split()[0] for line in done]
    assert sorted(first_words) == ids_of(runs.read_runs(trained))


def test_the_list_gives_the_cost_of_what_is_missing(empty_folder, listed):
    (line,) = listed(empty_folder, "vit_tiny/maps/seed3")
    assert line == "vit_tiny/maps/seed3            2 epochs  about 0 min on two cores"


def test_the_list_makes_no_file_and_no_folder(empty_folder, listed):
    assert len(listed(empty_folder)) == len(run_specs.reference_runs())
    assert not empty_folder.exists()


def test_the_list_shows_what_another_process_trains(empty_folder, listed):
    with FileLock(empty_folder / "vit_tiny/maps/seed3.lock"):
        (line,) = listed(empty_folder, "vit_tiny/maps/seed3")
    assert line.endswith("in training by another process")


def test_the_lock_of_a_process_that_died_is_no_training(empty_folder, listed):
    lock = empty_folder / "vit_tiny/maps/seed3.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    (line,) = listed(empty_folder, "vit_tiny/maps/seed3")
    assert line.endswith(BEGUN)


def test_every_shipped_run_is_done(data, tmp_path, monkeypatch, listed):
    monkeypatch.setattr(reference, "study_data", lambda dataset: data)
    shipped = runs.read_runs(CHECKPOINTS / "pneumoniamnist" / "runs.json")
    shipped_ids = {entry["id"] for entry in shipped}
    for line in listed(tmp_path):
        is_shipped = line.split()[0] in shipped_ids
        assert line.endswith(" done") == is_shipped


def test_a_new_way_to_teach_is_in_the_list(empty_folder, new_objective, listed):
    lines = listed(empty_folder, "/new/")
    assert len(lines) == 4
    assert lines[0].startswith("vit_tiny/new/seed0 ")


def test_a_new_way_to_teach_is_trained(empty_folder, new_objective):
    reference.reference(folder=str(empty_folder), only="vit_tiny/new/seed0")
    (entry,) = runs.read_runs(empty_folder)
    assert entry["method"] == "new"
    assert entry["recipe"]["weight"] == 3.0


def test_a_student_without_a_teacher_is_refused(empty_folder):
    with pytest.raises(SwysError, match="the teacher vit_base/labels/seed0 is not there"):
        reference.reference(only="answers/seed0", folder=str(empty_folder))


def test_an_unknown_run_is_refused(empty_folder):
    with pytest.raises(SwysError, match="no run matches 'nothing'; ids look like vit_base/labels"):
        reference.reference(only="nothing", folder=str(empty_folder))


def test_a_process_that_trains_a_run_is_not_disturbed(empty_folder, capsys):
    with FileLock(empty_folder / "vit_tiny/labels/seed0.lock"):
        reference.reference(only="vit_tiny/labels/seed0", folder=str(empty_folder))
    assert "in training by another process" in capsys.readouterr().out
    assert runs.read_runs(empty_folder) == []


def test_all_labels_are_seen(data):
    run = RunSpec(TINY, 0, RECIPE)
    assert reference.training_data(run, data) is data


def test_a_taught_student_sees_images_without_a_label(data):
    run = RunSpec(FEW_ANSWERS, 0, RECIPE)
    train = reference.training_data(run, data).train
    assert len(train) == len(data.train)
    assert (train.labels >= 0).sum() == 4  # at least two of each of two classes


def test_without_a_teacher_the_images_with_a_label_are_repeated(data):
    run = RunSpec(FEW_LABELS, 0, RECIPE)
    train = reference.training_data(run, data).train
    assert len(train) == len(data.train)
    assert (train.labels >= 0).all()
    different = np.unique(train.images, axis=0)
    assert len(different) == 4


def test_another_seed_hides_other_labels(data):
    labels = []
    for seed in (0, 1):
        run = RunSpec(FEW_ANSWERS, seed, RECIPE)
        labels.append(reference.training_data(run, data).train.labels)
    assert not np.array_equal(*labels)


@pytest.mark.parametrize(
    ("dataset", "images"),
    [
        ("pneumoniamnist", 256),
        ("bloodmnist", 128),
    ],
)
def test_the_share_of_the_training_split_that_is_used(drawn_data_dir, monkeypatch, dataset, images):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    train = reference.study_data(dataset).train
    assert len(train) == images


def test_the_twin_is_no_real_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # medmnist's own folder is there
    with pytest.raises(SwysError, match="studies need real images"):
        reference.study_data("pneumoniamnist")


def test_the_curve_is_measured_at_the_end_of_an_epoch(data, tmp_path):
    curve = CurveOnTest(tmp_path / "curve.json", data, steps=3)
    for step in range(1, 8):
        curve(vit(), seconds=0.0, step=step)
    assert list(curve.scores) == ["3", "6"]


def test_the_curve_outlives_a_kill(data, tmp_path):
    path = tmp_path / "curve.json"
    killed = CurveOnTest(path, data, steps=3)
    killed(vit(), seconds=0.0, step=3)
    curve = CurveOnTest(path, data, steps=3)
    assert curve.scores == killed.scores


def test_the_curve_is_put_beside_the_history(data, tmp_path):
    curve = CurveOnTest(tmp_path / "curve.json", data, steps=3)
    curve.scores = {"3": {"test_auc": 0.9}}
    history = [{"steps": 3}, {"steps": 6}]
    assert curve.beside(history) == [{"steps": 3, "test_auc": 0.9}, {"steps": 6}]


def worker(folder: str) -> None:
    """Train the small set in another process."""
    torch.set_num_threads(1)
    data = some(load_dataset())
    shrink(pytest.MonkeyPatch(), data, Path(folder, "shipped"))
    reference.reference(folder=f"{folder}/runs")


@pytest.fixture(scope="module")
def shared(drawn_data_dir, tmp_path_factory):
    """What four processes trained together, of which one was killed: entries, and their log."""
    folder = tmp_path_factory.mktemp("shared")
    ship_teachers(folder / "shipped")
    command = [sys.executable, "-c", WORKER, str(folder)]
    log = folder / "log.txt"
    options: dict = {
        "cwd": Path(__file__).parent,
        "env": os.environ | {"SWYS_DATA_DIR": str(drawn_data_dir)},
    }
    with log.open("a") as output:
        options["stdout"] = output
        first = subprocess.Popen(command, **options)
        while BEGUN not in log.read_text() and first.poll() is None:
            time.sleep(0.05)
        others = [subprocess.Popen(command, **options) for _ in range(3)]
        first.kill()
        assert first.wait() != 0
        for other in others:
            assert other.wait() == 0
        subprocess.run(command, check=True, **options)  # what the killed one left
    entries = runs.read_runs(folder / "shipped" / "pneumoniamnist" / "runs.json")
    return entries, log.read_text()


def test_four_processes_of_which_one_is_killed_train_everything(shared):
    entries, _ = shared
    wanted = [run.id for run in run_specs.reference_runs()]
    assert ids_of(entries) == sorted(wanted)


def test_four_processes_train_nothing_twice(shared):
    entries, log = shared
    begun = log.count(BEGUN)
    assert len(entries) <= begun <= len(entries) + 1  # one process was killed in a run
