"""The study of planted evidence: what is kept of it, and what is not measured again."""

import json
from dataclasses import replace

import pytest

from swys_studies import planted, planted_cnn, resnet, result_files
from swys_studies.planted_students import kind_named
from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.shipped_results import PLANTED_EPOCHS


@pytest.fixture
def study(tmp_path, monkeypatch):
    """``study(kind, *known)`` runs one kind and seed; returns the units of the file that had some.

    What is measured now says "today".
    """
    path = tmp_path / "planted.json"
    monkeypatch.setattr(planted, "_measured", lambda *arguments: {"today": True})
    monkeypatch.setattr(planted, "print_tables", len)
    monkeypatch.setattr(planted, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(result_files, "RUNS", tmp_path / "runs")

    def run(kind, *known):
        path.write_text(json.dumps({"units": known}))
        planted.planted("twin", seeds=1, only=kind, save_path=str(path))
        return json.loads(path.read_text("utf-8"))["units"]

    return run


def known_unit(kind):
    return {"id": f"vit_tiny 28/7, corner, {kind}, seed0", "kind": kind}


def test_what_is_done_is_not_done_again(study):
    done = known_unit("honest")
    assert study("honest", done) == [done]


def test_what_is_measured_stands_beside_what_it_is_of(study):
    done = known_unit("honest")
    first, second = study("cheat", done)
    assert first == done
    assert second == known_unit("cheat") | {
        "dataset": "pneumoniamnist-twin",
        "model": "vit_tiny",
        "patch": 7,
        "mark": "corner",
        "seed": 0,
        "epochs": PLANTED_EPOCHS,
        "today": True,
    }


def test_a_cheat_that_was_not_asked_by_every_method_is_measured_anew(study):
    (measured,) = study("another cheat", known_unit("another cheat"))
    assert measured["today"]


@pytest.mark.parametrize("missing", ["methods", "int8", "subsets"])
def test_a_cheat_that_lacks_a_part_is_measured_anew(study, missing):
    parts = {"methods": {}, "int8": {}, "subsets": {}}
    del parts[missing]
    (measured,) = study("cheat", known_unit("cheat") | parts)
    assert measured["today"]


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.glob("*/planted.json")), ids=str)
def test_no_shipped_model_would_be_measured_anew(path):
    for unit in json.loads(path.read_text("utf-8"))["units"]:
        of_vit = planted.PARTS_OF_CHEATS.get(unit["kind"], ())
        parts = planted_cnn.PARTS if unit["model"] == resnet.MODEL else of_vit
        assert unit.keys() >= set(parts), unit["id"]


def test_a_unit_is_locked_by_its_name_and_its_file(study, tmp_path):
    study("honest")
    of_file = result_files.result_lock(tmp_path / "planted.json")
    locks = {path.name for path in (tmp_path / "runs").rglob("*.lock")}
    of_unit = f"vit_tiny 28 by 7, corner, honest, seed0, {of_file.stem}.lock"
    assert locks == {of_file.name, of_unit}


def test_a_result_of_another_data_set_is_one_line(study):
    with pytest.raises(SwysError, match="has models of 'bloodmnist'; choose another --save_path"):
        study("honest", known_unit("honest") | {"dataset": "bloodmnist"})


@pytest.mark.parametrize(
    "change",
    [{"epochs": 3}, {"model": "vit_base"}, {"mark": "texture"}],
    ids=["recipe", "model", "mark"],
)
def test_a_teacher_of_another_recipe_or_mark_is_another_file(change):
    data = planted.planted_data("twin")
    setting = planted.Setting(data, "vit_tiny", 7, "corner", 2, planted.teachers_folder(data))
    assert replace(setting, **change).digest != setting.digest
    assert replace(setting).digest == setting.digest


def test_a_teacher_of_other_labels_is_another_file():
    data = planted.planted_data("twin")
    setting = planted.Setting(data, "vit_tiny", 7, "corner", 2, planted.teachers_folder(data))
    turned = replace(data.train, labels=1 - data.train.labels)
    other = replace(setting, data=replace(data, train=turned))
    assert other.digest != setting.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mark": "cornr"}, "no mark 'cornr'"), ({"only": "honst"}, "no kind matches 'honst'")],
)
def test_what_does_not_exist_is_one_line(change, message):
    with pytest.raises(SwysError, match=message):
        planted.planted(**({"dataset": "twin"} | change))


def test_a_mistyped_kind_is_one_line():
    with pytest.raises(SwysError, match="unknown kind 'honst'; did you mean 'honest'"):
        kind_named("honst")
