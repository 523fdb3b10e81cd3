"""Tables of shipped results."""

import pytest

from swys_figures.tables import agreement_table, deployed_table
from swys_utils.shipped_results import series_results

PAIR = {"spearman": 0.25, "chance_in_class": 0.125}


@pytest.fixture
def results():
    return series_results()


def test_the_first_row_is_tiny_and_the_next_a_yardstick(results):
    titles = [row["compared"] for row in agreement_table(results)]
    assert titles[:2] == ["Tiny with Base", "another Base with Base"]


def test_the_last_row_is_what_other_random_weights_change(results):
    last = agreement_table(results._replace(siblings={"grad_cam": [PAIR]}))[-1]
    assert last["compared"] == "two Tinys with each other"
    assert last["Grad-CAM (chance)"] == "0.25 (0.12)"
    assert last["hiding (chance)"] == "-"
    assert last["runs"] == "1, 0"


def test_the_share_of_the_same_hottest_patch_is_that_of_runs_that_have_it(results):
    measured = PAIR | {"same_top": 0.5, "same_top_chance": 0.1}
    last = agreement_table(results._replace(siblings={"occlusion": [PAIR, measured]}))[-1]
    assert last["same hottest patch by hiding (chance)"] == "50% (10%)"


def test_a_model_that_was_not_measured_has_no_row(results):
    results = results._replace(agreement={}, siblings={})
    assert agreement_table(results) == []


def test_a_map_of_other_patches_has_no_number():
    model = {"title": "Tiny", "megabytes": 6.0, "accuracy": 0.5, "auc": 0.5, "same_answer": 1.0}
    (row,) = deployed_table([model | {"occlusion": PAIR}])
    assert row["Grad-CAM (chance)"] == "other patches"
    assert row["hiding (chance)"] == "0.25 (0.12)"
