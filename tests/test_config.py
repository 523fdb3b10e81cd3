import json
import random

import numpy as np
import pytest
import torch

from swys_utils import config
from swys_utils.config import PROFILES, SwysError, profile


def test_the_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("SWYS_PROFILE", "full")
    assert profile() is PROFILES["full"]


def test_a_profile_can_be_named(monkeypatch):
    monkeypatch.setenv("SWYS_PROFILE", "full")
    assert profile("smoke") is PROFILES["smoke"]


def test_quick_is_the_profile_without_a_word(monkeypatch):
    monkeypatch.delenv("SWYS_PROFILE")
    assert profile() is PROFILES["quick"]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_found_by_its_own_name(name):
    assert isinstance(profile(name), config.Profile)
    assert profile(name).name == name


def test_a_mistyped_profile_gets_the_nearest_name():
    with pytest.raises(SwysError, match="unknown profile 'quik'; did you mean 'quick'"):
        profile("quik")


def test_a_name_that_is_near_to_none_gets_the_list():
    message = config.unknown("dataset", "xyz", ["blood", "chest"], "there are")
    assert message == "unknown dataset 'xyz'; there are blood, chest"


def test_a_clone_is_the_project_root():
    assert (config.project_root() / "swys_utils" / "config.py").is_file()


def test_without_a_clone_the_project_root_is_where_python_was_started(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "swys_utils" / "config.py"
    monkeypatch.setattr(config, "__file__", str(installed))
    monkeypatch.chdir(tmp_path)
    assert config.project_root() == tmp_path


@pytest.mark.parametrize(
    "draw",
    [
        random.random,
        np.random.rand,  # noqa: NPY002 (libraries still draw from it)
        lambda: torch.rand(1).item(),
    ],
    ids=["random", "numpy", "torch"],
)
def test_the_same_seed_draws_the_same_number(draw):
    config.seed_everything(3)
    first = draw()
    config.seed_everything(3)
    assert draw() == first
    config.seed_everything(4)
    assert draw() != first


def test_the_default_device_is_one_that_torch_knows():
    assert config.default_device().type in ("cuda", "mps", "cpu")


def test_a_reader_can_choose_the_device(monkeypatch):
    monkeypatch.setenv("SWYS_DEVICE", "meta")
    assert config.default_device() == torch.device("meta")


def test_a_mistyped_device_is_refused(monkeypatch):
    monkeypatch.setenv("SWYS_DEVICE", "cpuu")
    with pytest.raises(SwysError, match="SWYS_DEVICE=cpuu does not work .*; set it to cpu"):
        config.default_device()


@pytest.mark.parametrize("flags, fast", [("fpu avx512_bf16 sse", True), ("fpu avx2 sse", False)])
def test_a_processor_is_fast_in_bfloat16_if_it_says_so(monkeypatch, flags, fast):
    monkeypatch.setattr(
        config,
        "cpu_info",
        lambda: f"model name\t: Some CPU\nflags\t\t: {flags}\n",
    )
    assert config.fast_bf16("cpu") is fast


def test_no_other_device_than_processors_and_gpus_is_fast_in_bfloat16():
    assert config.fast_bf16("meta") is False


def test_the_processor_has_the_name_that_linux_gives_it(monkeypatch):
    monkeypatch.setattr(
        config,
        "cpu_info",
        lambda: "vendor: X\nmodel name\t: Some CPU @ 2 GHz\n",
    )
    assert config.device_name("cpu") == "Some CPU @ 2 GHz"


def test_what_linux_says_of_the_processor_is_text():
    assert isinstance(config.cpu_info(), str)


def test_a_processor_without_a_model_name_still_has_one(monkeypatch):
    monkeypatch.setattr(config, "cpu_info", lambda: "")
    assert config.device_name("cpu")


def test_json_takes_the_numbers_of_numpy(tmp_path):
    path = tmp_path / "a.json"
    config.write_json(path, {"x": np.float32(1)})
    assert path.read_text() == '{\n "x": 1.0\n}\n'


def test_json_is_written_into_a_new_folder(tmp_path):
    path = tmp_path / "new" / "a.json"
    config.write_json(path, {"x": 1})
    assert json.loads(path.read_text()) == {"x": 1}


@pytest.fixture
def old_file(tmp_path):
    """A file that a writer means to replace."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    return path


def test_a_file_is_replaced_at_the_end_of_the_block(old_file):
    with config.replacing(old_file) as part:
        part.write_text("new")
        assert old_file.read_text() == "old"
    assert old_file.read_text() == "new"


def write_half_and_fail(path, error: Exception) -> None:
    with config.replacing(path) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("error", [OSError("full"), RuntimeError("full")], ids=repr)
def test_a_file_that_cannot_be_written_is_one_line(old_file, error):
    with pytest.raises(SwysError, match=r"cannot write .*full\); make room, or choose another"):
        write_half_and_fail(old_file, error)


@pytest.mark.parametrize("error", [OSError(), KeyError()], ids=repr)
def test_an_error_leaves_the_old_file_alone(old_file, error):
    with pytest.raises((SwysError, KeyError)):
        write_half_and_fail(old_file, error)
    assert old_file.read_text() == "old"
    assert list(old_file.parent.iterdir()) == [old_file]


def test_two_writers_in_one_process_do_not_share_a_part(old_file):
    with config.replacing(old_file) as outer:
        outer.write_text("outer")
        with config.replacing(old_file) as inner:
            inner.write_text("inner")
        assert old_file.read_text() == "inner"
    assert old_file.read_text() == "outer"


def test_the_reason_of_an_error_is_one_of_its_lines():
    error = ValueError("first\n  last ")
    assert config.reason_of(error) == "first"
    assert config.reason_of(error, line=-1) == "last"


def test_an_error_without_a_word_has_its_kind_as_its_reason():
    assert config.reason_of(AssertionError()) == "AssertionError"
