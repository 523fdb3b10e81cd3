"""Planted evidence in a ResNet: its size, its maps, and what is kept of the study."""

import json
from dataclasses import replace

import pytest
from filelock import FileLock

from swys_studies import planted, planted_cnn, resnet, result_files
from swys_studies.planted_students import CHEAT, HONEST
from swys_utils.planted import plant


@pytest.fixture(scope="module")
def data():
    twin = planted.planted_data("twin")
    return replace(twin, train=twin.train.sample(32), test=twin.test.sample(12))


@pytest.fixture(scope="module")
def model():
    return resnet.small_resnet(2, seed=0).eval()


def test_each_layer_has_a_map_and_hiding_has_one(model, data):
    shown = plant(data.test.sample(2), planted.MARKS["corner"], where="everywhere")
    maps = planted_cnn.cnn_maps(model, shown, target=1)
    sides = {name: values.shape for name, values in maps.items()}
    assert sides["grad_cam, layer3"] == (2, 7, 7)
    assert sides["grad_cam, layer4"] == sides["occlusion, mean"] == (2, 4, 4)


@pytest.fixture
def study(data, monkeypatch, tmp_path):
    """``study(seeds)`` returns the seeds that were trained, and the results so far."""
    path = tmp_path / "planted.json"
    asked = []

    def pair(setting, seed):
        asked.append(seed)
        return {kind: {"methods": {}} for kind in (HONEST, CHEAT)}

    monkeypatch.setattr(planted_cnn, "planted_data", lambda dataset: data)
    monkeypatch.setattr(planted_cnn, "pair_of_models", pair)
    monkeypatch.setattr(planted_cnn, "print_tables", len)
    monkeypatch.setattr(planted, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(result_files, "RUNS", tmp_path / "runs")

    def run(seeds):
        planted_cnn.planted_cnn("twin", seeds=seeds, save_path=str(path))
        units = json.loads(path.read_text("utf-8"))["units"] if path.is_file() else []
        return asked, units

    return run


def test_what_is_done_is_skipped_and_the_rest_is_kept(study):
    study(seeds=1)
    asked, units = study(seeds=2)
    assert asked == [0, 1]
    assert len(units) == 4


def test_a_pair_that_another_process_trains_is_left_to_it(study, data, tmp_path):
    setting = planted.Setting(
        data, resnet.MODEL, planted_cnn.PATCH, planted_cnn.MARK, 2, planted.teachers_folder(data)
    )
    of_file = result_files.result_lock(tmp_path / "planted.json")
    with FileLock(setting.path(f"{setting.id}, pair, {of_file.stem}, seed0", ".lock")):
        asked, units = study(seeds=2)
    assert asked == [1]
    assert [unit["seed"] for unit in units] == [1, 1]
