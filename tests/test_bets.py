"""The reader's bets: kept, read again, and shown beside what was found."""

import pytest

from swys_figures import bets
from swys_utils.data import load_dataset
from swys_utils.shipped_results import SeriesResults, series_results


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
    made = bets.Bets("kept", bets.KEPT, bets.CHOICES)
    for dropdown in made.dropdowns:
        dropdown.value = "most"
    rows = bets.kept_rows(series_results())
    judged = ["most", "most", "most: right", "most: wrong"]  # two starts are not known
    assert [row["your bet"] for row in rows] == judged
    assert [row["found"] for row in rows] == ["", "", "most", "next to nothing"]
    tiny, base = (float(rows[3][whose].rstrip("%")) for whose in ("Tiny", "second Base"))
    assert tiny < base
    kept = [row["kept"] for row in rows]
    assert kept[:2] == ["", ""]
    assert int(kept[3].rstrip("%")) == pytest.approx(100 * tiny / base, abs=2)


@pytest.mark.parametrize(
    ("share", "word"),
    [
        (1.0, "nearly all"),
        (0.75, "nearly all"),
        (0.74, "most"),
        (0.5, "most"),
        (0.25, "a part"),
        (0.24, "next to nothing"),
        (-0.1, "next to nothing"),
    ],
)
def test_each_quarter_has_a_word(share, word):
    assert bets.word_for(share) == word


def with_one_tiny(results: SeriesResults, place: int) -> SeriesResults:
    """The same results with only one of the runs of Tiny."""
    every = {
        "runs": results.runs,
        "same": results.same_answers,
        "occlusion": results.agreement["occlusion"],
        "grad_cam": results.agreement["grad_cam"],
    }
    one = {}
    for what, models in every.items():
        tiny = models["vit_tiny"][place]
        one[what] = {**models, "vit_tiny": [tiny]}
    return results._replace(
        runs=one.pop("runs"),
        same_answers=one.pop("same"),
        agreement=one,
    )


def test_each_tiny_has_the_word_of_their_mean():
    results = series_results()
    starts = {"its scores": 0.625, "its answers": 0.825}
    words = [row["found"] for row in bets.kept_rows(results, starts)]
    assert words == ["nearly all", "nearly all", "most", "next to nothing"]
    for place in range(4):
        rows = bets.kept_rows(with_one_tiny(results, place), starts)
        assert [row["found"] for row in rows] == words


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
    for start in (0.825, 0.92, 1.0):
        rows = bets.kept_rows(series_results(), {"its answers": start})
        kept.append(rows[1]["kept"])
    assert kept[2] == ""
    assert int(kept[0].rstrip("%")) > int(kept[1].rstrip("%")) > 0


def test_a_score_above_a_second_bases_is_kept_wholly():
    (row, *_) = bets.kept_rows(series_results(), {"its scores": 0.625})
    assert row["kept"] == "100%"
    assert float(row["Tiny"].rstrip("%")) > float(row["second Base"].rstrip("%"))


def test_no_start_is_known_where_the_runs_are_of_other_images(drawn_data_dir):
    data = load_dataset("bloodmnist", root=drawn_data_dir)
    assert bets.starts_without_base(series_results(), data) == {}


def test_the_linear_model_shares_many_answers_with_base(real_data_dir):
    data = load_dataset("pneumoniamnist", root=real_data_dir)
    starts = bets.starts_without_base(series_results(), data)
    assert starts["its scores"] == 390 / 624
    assert 0.7 < starts["its answers"] < 0.9
