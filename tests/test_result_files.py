"""Files of results: digits, damage, and one writer at a time."""

import pytest

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
