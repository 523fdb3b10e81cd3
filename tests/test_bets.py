"""The reader's bets: kept, read again, and shown beside what was found."""

import pytest

from swys_figures import bets
from swys_utils.data import load_dataset
from swys_utils.shipped_results import series_results


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(bets, "BUILD", tmp_path)


def test_a_bet_is_kept_for_the_next_notebook():
    made = bets.Bets("kept", bets.KEPT, ["a part", "nothing"])
    made.dropdowns[2].value = "a part"
    assert bets.read_bets("kept") == {"the reasons for them": "a part"}
    again = bets.Bets("kept", bets.KEPT, ["a part", "nothing"])
    assert again.made() == made.made()
    assert repr(again).startswith("4 bets to choose, 1 made")


def test_a_bet_can_be_taken_back():
    made = bets.Bets("kept", bets.KEPT, ["a part", "nothing"])
    made.dropdowns[0].value = "nothing"
    made.dropdowns[0].value = bets.OPEN
    assert bets.read_bets("kept") == {}


def test_a_choice_that_is_no_longer_offered_is_open_again():
    bets.Bets("kept", bets.KEPT, ["a part"]).dropdowns[0].value = "a part"
    assert bets.Bets("kept", bets.KEPT, ["nothing"]).made() == {}


def test_bets_of_two_notebooks_do_not_mix():
    bets.Bets("kept", bets.KEPT, ["nothing"]).dropdowns[0].value = "nothing"
    bets.Bets("taught", bets.taught_questions(), ["yes", "no"]).dropdowns[0].value = "yes"
    assert bets.read_bets("kept") == {"its scores": "nothing"}
    assert bets.read_bets("taught") == {"Tiny, answers: same answers?": "yes"}


def test_what_tiny_keeps_stands_beside_the_bet():
    bets.Bets("kept", bets.KEPT, ["nothing"]).dropdowns[3].value = "nothing"
    rows = bets.kept_rows(series_results())
    assert [row["your bet"] for row in rows] == [bets.OPEN] * 3 + ["nothing"]
    tiny, base = (int(rows[3][whose].rstrip("%")) for whose in ("Tiny", "second Base"))
    assert tiny < base
    kept = [row["kept"] for row in rows]
    assert kept[:2] == ["", ""]  # of answers, because the start is not known
    assert int(kept[3].rstrip("%")) == pytest.approx(100 * tiny / base, abs=2)


def test_nothing_measured_leaves_cells_empty():
    nothing = series_results()._replace(
        runs={}, agreement={}, siblings={}, same_answers={}, siblings_answers=[]
    )
    rows = bets.kept_rows(nothing)
    assert all(row["Tiny"] == row["kept"] == "" for row in rows)


def test_a_row_for_each_question_about_the_students():
    rows = bets.taught_rows(series_results())
    assert [row["question"] for row in rows] == bets.taught_questions()
    assert all(row["it has"] and row["second Base has"] for row in rows)


def test_answers_are_counted_from_chance():
    kept = []
    for chance in (None, 0.825, 0.92, 1.0):
        rows = bets.kept_rows(series_results(), chance)
        kept.append(rows[1]["kept"])
    assert kept[0] == kept[3] == ""
    assert int(kept[1].rstrip("%")) > int(kept[2].rstrip("%")) > 0


def test_the_linear_model_is_not_compared_with_runs_of_other_images(drawn_data_dir):
    data = load_dataset("bloodmnist", root=drawn_data_dir)
    assert bets.answers_by_chance(series_results(), data) is None


def test_the_linear_model_shares_many_answers_with_base(real_data_dir):
    data = load_dataset("pneumoniamnist", root=real_data_dir)
    assert 0.7 < bets.answers_by_chance(series_results(), data) < 0.9
