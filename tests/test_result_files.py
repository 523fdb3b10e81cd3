"""Files of results: digits, damage, and one writer at a time."""

import pytest
from filelock import FileLock

from swys_studies import runs
from swys_utils.config import SwysError


def test_a_small_rate_keeps_its_digits():
    assert runs._rounded("0.33333333") == 0.33333
    assert runs._rounded("3.3333333e-07") == 3.3333e-07


def test_a_damaged_result_is_one_line(tmp_path):
    path = tmp_path / "agreement.json"
    path.write_text("{")
    with pytest.raises(SwysError, match="agreement.json' is damaged .*; restore it with git"):
        runs.read_json(path)


def test_two_processes_do_not_measure_into_one_result(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    path = tmp_path / "set" / "agreement.json"
    with (
        runs.only_writer(path),
        pytest.raises(SwysError, match="another process measures into"),
        runs.only_writer(path),
    ):
        pass
    with runs.only_writer(path):  # it is free again
        pass


@pytest.fixture
def add(tmp_path, monkeypatch):
    """``add(run_id, score)`` adds a run to a result, and returns what the result has then."""
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    path = tmp_path / "set" / "trials.json"
    state_path = tmp_path / "state.pt"

    def one(run_id, score):
        state_path.write_bytes(b"of an unfinished run")
        runs.add_once(path, "trials", run_id, state_path, train=lambda: {"score": score})
        assert not state_path.exists()
        return runs.read_entries(path, "trials")

    return one


def test_a_run_is_trained_once(add):
    add("first", 1)
    assert add("first", 2) == [{"id": "first", "score": 1}]
    assert [entry["id"] for entry in add("second", 3)] == ["first", "second"]


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path, capsys):
    state_path = tmp_path / "state.pt"
    state_path.write_bytes(b"of the other process")
    with FileLock(f"{state_path}.lock"):
        runs.add_once(tmp_path / "trials.json", "trials", "first", state_path, train=pytest.fail)
    assert state_path.exists()
    assert capsys.readouterr().out == "first is trained by another process\n"
