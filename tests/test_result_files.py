"""Files of results: digits, damage, locks, and one writer at a time."""

from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from swys_studies import result_files, runs
from swys_studies.result_files import Entries
from swys_utils.config import SwysError
from swys_utils.data import load_dataset


def test_a_small_rate_keeps_its_digits():
    assert runs._rounded("0.33333333") == 0.33333
    assert runs._rounded("3.3333333e-07") == 3.3333e-07


def test_a_damaged_result_is_one_line(tmp_path):
    path = tmp_path / "agreement.json"
    path.write_text("{")
    with pytest.raises(SwysError, match="agreement.json' is damaged .*; restore it with git"):
        result_files.read_json(path)


def test_a_device_is_named_once():
    assert result_files.with_another("", "EPYC 7B1") == "EPYC 7B1"
    assert result_files.with_another("EPYC 7B13", "EPYC 7B1") == "EPYC 7B13, EPYC 7B1"
    assert result_files.with_another("EPYC 7B13, Xeon", "Xeon") == "EPYC 7B13, Xeon"


def test_files_of_equal_names_have_locks_of_their_own(tmp_path):
    one = tmp_path / "one" / "set" / "agreement.json"
    other = tmp_path / "other" / "set" / "agreement.json"
    assert result_files.result_lock(one) != result_files.result_lock(other)


def test_a_file_has_one_lock_however_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("set/agreement.json")
    assert result_files.result_lock(path) == result_files.result_lock(tmp_path / path)


def test_two_processes_do_not_measure_into_one_result(tmp_path):
    path = tmp_path / "set" / "agreement.json"
    with (
        result_files.only_writer(path),
        pytest.raises(SwysError, match="another process measures into"),
        result_files.only_writer(path),
    ):
        pass
    with result_files.only_writer(path):  # it is free again
        pass


@pytest.fixture
def entries(tmp_path):
    """A result that is not there yet."""
    return Entries(tmp_path / "set" / "trials.json", "trials")


def test_no_file_has_no_entries(entries):
    assert entries.read() == []


def test_an_entry_replaces_the_one_with_its_id(entries):
    entries.add({"id": "first", "score": 1})
    entries.add({"id": "second"})
    entries.add({"id": "first", "score": 2})
    assert entries.read() == [
        {"id": "second"},
        {"id": "first", "score": 2},
    ]


def test_an_entry_that_is_not_complete_is_measured_anew(entries, tmp_path):
    entries.add({"id": "first"})
    turn = tmp_path / "first.lock"
    for score in (1, 2):
        measured = {"score": score}
        assert entries.add_once("first", turn, measured.copy, lambda entry: "score" in entry)
    assert entries.read() == [{"id": "first", "score": 1}]


def test_a_lock_that_measuring_waits_for_in_vain_is_an_error_of_its_own(entries, tmp_path):
    def measure():
        raise Timeout("another.lock")

    turn = tmp_path / "first.lock"
    with pytest.raises(Timeout, match="another.lock"):
        entries.add_once("first", turn, measure)
    assert entries.add_once("first", turn, dict)  # the turn is free again


@pytest.fixture
def add(entries, tmp_path):
    """``add(run_id, score)`` adds a run to a result, and returns what the result has then."""
    state_path = tmp_path / "state.pt"

    def one(run_id, score):
        state_path.write_bytes(b"of an unfinished run")
        entries.train_once(run_id, state_path, train=lambda: {"score": score})
        assert not state_path.exists()
        return entries.read()

    return one


def test_a_run_is_trained_once(add):
    add("first", 1)
    assert add("first", 2) == [{"id": "first", "score": 1}]
    assert [entry["id"] for entry in add("second", 3)] == ["first", "second"]


def test_a_run_that_another_process_trains_is_left_to_it(entries, tmp_path, capsys):
    state_path = tmp_path / "state.pt"
    state_path.write_bytes(b"of the other process")
    with FileLock(f"{state_path}.lock"):
        entries.train_once("first", state_path, train=pytest.fail)
    assert state_path.exists()
    assert capsys.readouterr().out == "first is trained by another process\n"


@pytest.mark.parametrize(
    ("source", "is_same"),
    [
        ("downloaded pneumoniamnist.npz", True),
        ("real file pneumoniamnist.npz in /elsewhere", True),
        ("real file other.npz in SWYS_DATA_DIR", False),
    ],
)
def test_the_same_file_is_known_wherever_it_lies(drawn_data_dir, source, is_same):
    data = load_dataset(root=drawn_data_dir)
    stored = {"images": len(data.test), "source": source}
    assert result_files.is_of_same_images(stored, data) == is_same
    assert not result_files.is_of_same_images(stored | {"images": 1}, data)
