"""The kinds of run, their ids of today and of before, and runs.json."""

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
from small import run_entry, vit

from swys_studies import kinds, run_specs, runs
from swys_studies.kinds import BASE, TINY
from swys_utils.cards import read_card
from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.distillation import OBJECTIVES
from swys_utils.models import save_checkpoint

OLD_RUN = run_entry("vit_tiny/kd_soft/seed1", teacher="vit_base/scratch/seed0")
CARD = {"model": "vit_tiny_patch16_224", "dataset": "pneumoniamnist"}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder in place of checkpoints/."""
    folder = tmp_path / "shipped"
    monkeypatch.setattr(runs, "CHECKPOINTS", folder)
    return folder


@pytest.fixture
def new_objective(monkeypatch):
    """A way to teach that somebody adds."""
    objective = replace(
        OBJECTIVES["answers"],
        id="new",
        title="something new",
        defaults={"alpha": 0.5, "weight": 3.0},
        recipe_changes={"patch_drop": 0.25},
    )
    monkeypatch.setitem(OBJECTIVES, "new", objective)
    return objective


def write_entry(folder, entry):
    path = folder / f"{entry['id']}.run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entry))
    return path


def spec(run_id, dataset="pneumoniamnist"):
    return next(run for run in run_specs.reference_runs(dataset) if run.id == run_id)


def test_the_titles_of_the_kinds():
    assert [kind.title for kind in kinds.all_kinds()] == [
        "Base",
        "Tiny",
        "Tiny, answers",
        "Tiny, answers + maps",
        "Tiny, answers of two Bases",
        "Tiny, answers of another Base",
        "Tiny, answers of another Tiny",
        "Tiny, answers of our Tiny",
        "Tiny, answers of two Tinys with 196 patches",
        "Tiny, answers of two ResNets",
        "Tiny, answers of two ResNets to mixed views",
        "Tiny, answers, 16 patches",
        "Tiny, as many passes as Base",
        "Base, as many passes as Tiny",
        "Base, views without blur",
        "Tiny, views without blur",
        "Tiny, a hundred passes of mixed views",
        "Tiny, whole pictures in every step",
        "Tiny, a hundred passes of mixed views, whole pictures",
        "Tiny, masked pretraining first",
        "Base, views without blur, masked pretraining first",
        "Tiny, views without blur, masked pretraining first",
        "Tiny, 1 % of the labels",
        "Tiny, answers, 1 % of the labels",
        "Tiny, answers of a Tiny with the same 1 % of the labels",
        "Tiny, the earlier project's recipe",
    ]


def test_tiny_is_also_trained_for_as_many_passes_as_base():
    assert (
        spec("vit_tiny/labels_12/seed0").recipe.epochs
        == spec("vit_base/labels/seed0").recipe.epochs
    )


def test_base_is_also_trained_for_as_many_passes_as_tiny():
    assert (
        spec("vit_base/labels_30/seed0").recipe.epochs
        == spec("vit_tiny/labels/seed0").recipe.epochs
    )


def test_whole_pictures_differ_in_the_patches_alone():
    whole = spec("vit_tiny/labels_whole/seed0").recipe
    assert whole.patch_drop == 0
    assert replace(whole, patch_drop=0.5) == spec("vit_tiny/labels/seed0").recipe


def test_function_matching_sees_new_mixed_views_and_no_label():
    run = spec("vit_tiny/answers_matching/seed0")
    assert run.recipe.views == 0
    assert run.recipe.mixup == 1
    assert run.recipe.patch_drop == 0
    assert run.settings["alpha"] == 1


def test_views_without_blur_are_moved_and_mirrored_only():
    sharp = spec("vit_tiny/labels_sharp/seed0").recipe
    usual = spec("vit_tiny/labels/seed0").recipe
    assert (sharp.augmentation.rotate, sharp.augmentation.scale) == (0, 0)
    unturned = replace(usual.augmentation, rotate=0.0, scale=0.0)
    assert replace(usual, augmentation=unturned) == sharp


def test_the_strong_recipe_is_that_of_the_shipped_tiny_of_224_px():
    strong = asdict(spec("vit_tiny/labels_strong/seed0").recipe)
    shipped = read_card(CHECKPOINTS / "pneumoniamnist/vit_tiny_patch16_224/card.json")["recipe"]
    for name in ("epochs", "batch_size", "lr", "weight_decay", "mixup", "drop_path", "views"):
        assert strong[name] == shipped.get(name, 0), name
    for name in ("flip", "rotate", "scale", "shift", "jitter"):
        assert strong["augmentation"][name] == shipped[name], name


def test_students_are_compared_with_tiny_first():
    pairs = [(a.method, b.method) for a, b in kinds.taught_pairs()]
    assert pairs == [("answers", "labels"), ("maps", "labels"), ("maps", "answers")]


def test_no_student_starts_with_the_weights_of_a_teacher_of_its_size():
    for run in run_specs.reference_runs():
        for teacher in run.teachers:
            if "/" not in teacher:  # a shipped model of another geometry
                continue
            model, method, seed = teacher.split("/")
            if model == run.kind.model and method != kinds.FEW_LABELS.method:
                assert seed != f"seed{run.seed}"


def test_a_small_answer_comes_first():
    ids = [run.id for run in run_specs.reference_runs()]
    assert ids[:5] == [
        "vit_base/labels/seed0",
        "vit_tiny/labels/seed0",
        "vit_tiny/answers/seed0",
        "vit_tiny/maps/seed0",
        "vit_tiny/answers_of_two/seed0",
    ]


def test_short_runs_come_before_more_seeds():
    ids = [run.id for run in run_specs.reference_runs("bloodmnist")]
    few = ["few_labels", "few_answers", "few_control"]
    assert ids[7:16] == [f"vit_tiny/{method}/seed{seed}" for seed in range(3) for method in few]
    assert ids[16:18] == ["vit_base/labels/seed1", "vit_tiny/labels/seed1"]


@pytest.mark.parametrize(("dataset", "count"), [("pneumoniamnist", 67), ("bloodmnist", 27)])
def test_every_run_of_the_set_has_its_own_id(dataset, count):
    ids = {run.id for run in run_specs.reference_runs(dataset)}
    assert len(ids) == len(run_specs.reference_runs(dataset)) == count


def test_outside_of_a_clone_there_is_nothing_to_study(tmp_path, monkeypatch):
    runs.refuse_outside_clone()
    monkeypatch.setattr(runs, "PROJECT_ROOT", tmp_path)
    with pytest.raises(SwysError, match="studies need a clone"):
        runs.refuse_outside_clone()


def test_a_shipped_model_can_teach(tmp_path):
    for teacher in spec("vit_tiny/answers_of_196/seed0").teachers:
        assert runs.run_path(teacher, "pneumoniamnist", tmp_path).name == teacher


def test_the_first_base_teaches():
    assert spec("vit_tiny/maps/seed3").teachers == (BASE.run_id(0),)


def test_labels_need_no_teacher():
    assert spec("vit_tiny/labels/seed0").teachers == ()


def test_two_bases_teach_together():
    assert spec("vit_tiny/answers_of_two/seed3").teachers == (BASE.run_id(0), BASE.run_id(1))


def test_the_control_is_taught_by_a_tiny_with_the_same_labels():
    assert spec("vit_tiny/few_control/seed2").teachers == ("vit_tiny/few_labels/seed2",)


@pytest.mark.parametrize(
    ("run_id", "settings"),
    [
        ("vit_base/labels/seed0", {}),
        ("vit_tiny/answers/seed0", {"alpha": 0.7, "temperature": 2.0}),
        ("vit_tiny/maps/seed0", {"alpha": 0.7, "temperature": 2.0, "gamma": 1.0}),
        ("vit_tiny/answers_p7/seed0", {"alpha": 0.7, "temperature": 2.0}),
        ("vit_tiny/few_labels/seed0", {}),
        ("vit_tiny/few_answers/seed0", {"alpha": 0.9, "temperature": 2.0}),
    ],
)
def test_the_settings_of_the_study(run_id, settings):
    assert spec(run_id).settings == settings


def test_patches_of_7_px_make_16_tokens():
    assert spec("vit_tiny/answers_p7/seed0").kind.patch_size == 7


def test_the_cost_of_a_run_is_estimated():
    run = spec("vit_tiny/labels/seed0")  # 30 epochs, the last fifth of them with all tokens
    assert run.cost(330) == pytest.approx(30 * 1.2)
    coarse = run_specs.reference_runs(patch=14)[1]
    assert coarse.cost(330) == pytest.approx(30 * 1.2 * (4 / 14) ** 2)


def test_a_run_with_few_labels_is_short():
    assert spec("vit_tiny/few_labels/seed0").recipe.epochs == 10


def test_a_new_way_to_teach_is_trained_with_every_seed(new_objective):
    ids = [run.id for run in run_specs.reference_runs()]
    assert [run_id for run_id in ids if "/new/" in run_id] == [
        f"vit_tiny/new/seed{seed}" for seed in range(4)
    ]


def test_a_new_way_to_teach_has_its_own_settings(new_objective):
    assert spec("vit_tiny/new/seed0").settings == {"alpha": 0.7, "weight": 3.0}


def test_a_new_way_to_teach_has_its_own_recipe(new_objective):
    assert spec("vit_tiny/new/seed0").recipe.patch_drop == 0.25


def test_a_new_way_to_teach_is_compared_with_the_others(new_objective):
    pairs = [(a.method, b.method) for a, b in kinds.taught_pairs()]
    assert {("new", "labels"), ("new", "answers"), ("new", "maps")} < set(pairs)


def test_a_way_to_teach_that_is_not_studied_has_no_runs():
    assert not OBJECTIVES["features"].studied
    assert "features" not in [kind.objective for kind in kinds.all_kinds()]


def test_the_kind_of_a_run():
    assert kinds.kind_of(run_entry("vit_tiny/labels/seed7")) == TINY


def test_a_run_of_no_kind():
    assert kinds.kind_of(run_entry("vit_tiny/nothing/seed7")) is None


def test_json_of_before_gets_todays_names():
    before = {"runs": [{"group": "soft targets"}], "by id": {"vit_tiny/kd_soft/seed0": 0.5}}
    assert runs.with_todays_names(before) == {
        "runs": [{"group": "Tiny, answers"}],
        "by id": {"vit_tiny/answers/seed0": 0.5},
    }


def test_runs_of_before_are_read_with_todays_ids(tmp_path):
    write_entry(tmp_path, OLD_RUN)
    (entry,) = runs.read_runs(tmp_path)
    assert entry["id"] == "vit_tiny/answers/seed1"
    assert entry["method"] == "answers"
    assert entry["teacher"] == "vit_base/labels/seed0"


def test_reading_leaves_the_files_as_they_are(tmp_path):
    path = write_entry(tmp_path, OLD_RUN)
    runs.read_runs(tmp_path)
    assert json.loads(path.read_text()) == OLD_RUN


def test_the_oldest_run_of_a_folder_comes_first(tmp_path):
    for seed in (2, 0, 1):
        path = write_entry(tmp_path, run_entry(f"vit_tiny/labels/seed{seed}"))
        os.utime(path, (seed, seed))
    assert [entry["seed"] for entry in runs.read_runs(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"runs": 3}', '{"runs": [{"id": "vit_tiny/labels/seed0"}]}']
)
def test_a_damaged_runs_json_is_refused(tmp_path, text):
    path = tmp_path / "runs.json"
    path.write_text(text)
    with pytest.raises(SwysError, match="cannot be read as runs"):
        runs.read_runs(path)


@pytest.mark.parametrize("dataset", ["pneumoniamnist", "bloodmnist"])
def test_every_shipped_run_of_the_set_is_known(dataset):
    entries = runs.read_runs(CHECKPOINTS / dataset / "runs.json")
    shipped_ids = {entry["id"] for entry in entries}
    of_the_set = {run.id for run in run_specs.reference_runs(dataset)}
    assert len(of_the_set & shipped_ids) > 10
    assert all(kinds.kind_of(entry) is not None for entry in entries)


def test_finished_runs_are_added_to_the_shipped_ones(tmp_path, shipped):
    old = {"dataset": "pneumoniamnist", "runs": [OLD_RUN]}
    (shipped / "pneumoniamnist").mkdir(parents=True)
    (shipped / "pneumoniamnist" / "runs.json").write_text(json.dumps(old))
    write_entry(tmp_path / "runs", run_entry("vit_tiny/maps/seed0"))
    runs.write_runs("pneumoniamnist", tmp_path / "runs")
    assert list(runs.finished_runs("pneumoniamnist", tmp_path / "nothing")) == [
        "vit_tiny/answers/seed1",
        "vit_tiny/maps/seed0",
    ]


def test_a_file_that_has_every_run_stays_as_it_is(tmp_path, shipped):
    path = shipped / "pneumoniamnist" / "runs.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"dataset": "pneumoniamnist", "runs": [OLD_RUN]}))
    before = path.read_text()
    runs.write_runs("pneumoniamnist", tmp_path / "runs")
    assert path.read_text() == before


def test_written_numbers_have_five_digits(tmp_path, shipped):
    write_entry(tmp_path / "runs", run_entry("vit_tiny/maps/seed0", accuracy=1 / 3))
    runs.write_runs("pneumoniamnist", tmp_path / "runs")
    (entry,) = runs.read_runs(shipped / "pneumoniamnist" / "runs.json")
    assert entry["last"]["accuracy"] == 0.33333


def test_a_run_trained_here_comes_before_the_shipped_one(tmp_path, shipped):
    save_checkpoint(vit(), tmp_path / "vit_tiny" / "maps" / "seed0.safetensors", CARD)
    card = CARD | {"id": "vit_tiny/maps/seed0"}
    save_checkpoint(vit(), shipped / "pneumoniamnist" / "vit_tiny_maps", card)
    path = runs.run_path("vit_tiny/maps/seed0", "pneumoniamnist", tmp_path)
    assert path == tmp_path / "vit_tiny" / "maps" / "seed0.safetensors"


def test_a_run_of_before_is_found_in_its_folder(tmp_path, shipped):
    save_checkpoint(vit(), tmp_path / "vit_tiny" / "kd_explain" / "seed0.safetensors", CARD)
    path = runs.run_path("vit_tiny/maps/seed0", "pneumoniamnist", tmp_path)
    assert path == tmp_path / "vit_tiny" / "kd_explain" / "seed0.safetensors"


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("vit_base/labels/seed0", "vit_base"),
        ("vit_tiny/labels/seed0", "vit_tiny"),
        ("vit_tiny/answers/seed0", "vit_tiny_answers"),
        ("vit_tiny/maps/seed0", "vit_tiny_maps"),
        ("vit_tiny/answers_p7/seed0", "vit_tiny_answers_p7"),
    ],
)
def test_a_shipped_run_is_found_by_its_card(tmp_path, run_id, name):
    path = runs.run_path(run_id, "pneumoniamnist", tmp_path)
    assert path == CHECKPOINTS / "pneumoniamnist" / name


def test_a_run_without_weights_has_no_path(tmp_path):
    assert runs.run_path("vit_tiny/maps/seed3", "pneumoniamnist", tmp_path) is None


def test_recalls_are_shares_of_each_class():
    answers = np.array([0, 1, 1, 1])
    assert runs.recalls(answers, np.array([0, 0, 1, 1]), 3) == [0.5, 1.0, 0.0]


def test_images_with_several_labels_have_no_recalls():
    assert runs.recalls(np.array([0, 1]), np.eye(2, dtype=int), 2) is None
