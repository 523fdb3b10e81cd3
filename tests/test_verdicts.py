"""Kept, lost, cannot tell: what an interval says, and how narrow it may be."""

import numpy as np
import pytest

from swys.verdicts import (
    CANNOT_TELL,
    KEPT,
    LOST,
    Bounds,
    Estimate,
    at_least,
    at_most,
    mean_estimate,
    not_narrower,
    paired_difference,
    unseen_share,
)
from swys_utils.config import SwysError


def answers(both: int, only_first: int, only_second: int, neither: int):
    """Two models' right answers, from the four counts."""
    counts = [both, only_first, only_second, neither]
    first = np.repeat([True, True, False, False], counts)
    second = np.repeat([True, False, True, False], counts)
    return first, second


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-1, 1, KEPT),
        (1.1, 2, LOST),
        (0, 2, CANNOT_TELL),
        (np.nan, np.nan, CANNOT_TELL),
    ],
)
def test_what_has_to_stay_below_a_bound(low, high, verdict):
    assert at_most(Estimate(0.5, low, high), 1.0) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.9, 1, KEPT),
        (0.2, 0.8, LOST),
        (0.8, 1, CANNOT_TELL),
        (np.nan, np.nan, CANNOT_TELL),
    ],
)
def test_what_has_to_reach_a_bound(low, high, verdict):
    assert at_least(Estimate(0.5, low, high), 0.9) == verdict


def test_paired_difference_of_a_table():
    """Of 50 pairs, 12 only by the first and 2 only by the second: Tango's score interval."""
    estimate = paired_difference(*answers(36, 12, 2, 0))
    assert estimate.low == pytest.approx(0.0611, abs=1e-4)
    assert estimate.high == pytest.approx(0.3447, abs=1e-4)


def test_models_that_never_differ_have_a_closed_form():
    estimate = paired_difference(*answers(40, 0, 0, 10))
    assert estimate.high == pytest.approx(unseen_share(50))


def test_the_interval_turns_round_with_the_models():
    forth = paired_difference(*answers(30, 7, 3, 10))
    back = paired_difference(*answers(30, 3, 7, 10))
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))


def test_one_pair_gives_an_interval():
    estimate = paired_difference(*answers(0, 1, 0, 0))
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        luck = rng.random(200)
        first = luck < 0.85
        second = (luck < 0.81) | (luck > 0.97)
        estimate = paired_difference(first, second)
        covered += estimate.low <= 0.01 <= estimate.high
    assert 0.92 <= covered / 400 <= 0.98


def test_few_images_that_all_agree_do_not_give_a_narrow_interval():
    estimate = mean_estimate(np.ones(20), span=2)
    assert estimate.low == pytest.approx(1 - 2 * unseen_share(20))


def test_a_wide_interval_stays_as_it_is():
    estimate = not_narrower(0.5, (0.1, 0.9), 1000, span=1)
    assert (estimate.low, estimate.high) == (0.1, 0.9)


def test_images_without_a_value_are_left_out():
    assert mean_estimate(np.array([0.5, np.nan, 0.5]), span=2).value == 0.5


def test_no_value_is_unknown():
    assert np.isnan(mean_estimate(np.array([np.nan]), span=2).value)


@pytest.mark.parametrize(
    "bound",
    [
        {"max_drop": -1},
        {"min_map": 2},
        {"min_agreement": np.nan},
    ],
)
def test_an_impossible_bound_is_refused(bound):
    (name,) = bound
    with pytest.raises(SwysError, match=name):
        Bounds(**bound)
