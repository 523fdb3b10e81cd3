"""The figures of extra 7 on the study of planted evidence."""

import numpy as np
import pytest

from swys_figures import evidence
from swys_figures.obedience import LESSON_STUDENTS, OBEDIENCE, STUDENTS, by_obedience
from swys_studies.planted_students import KINDS
from swys_utils.gradcam import METHODS
from swys_utils.metrics import t_interval
from swys_utils.shipped_results import planted_units


@pytest.fixture(scope="module")
def units():
    return planted_units()


def of_kind(units, kind, patch=7):
    return [
        unit
        for unit in units
        if (unit["kind"], unit["patch"], unit["mark"]) == (kind, patch, "corner")
    ]


def numbers(ax) -> list[str]:
    """What stands at the right of the rows."""
    return [text.get_text() for text in ax.texts]


def test_each_way_to_explain_has_a_row_in_each_panel(units):
    left, right = evidence.finders_by_block(units).axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == list(evidence.ASKED)
    assert [left.get_title("left"), right.get_title("left")] == ["16 patches", "49 patches"]
    assert len(numbers(left)) == len(numbers(right)) == len(names)


def test_the_bar_of_a_way_to_explain_is_the_interval_of_its_mean(units):
    left, _ = evidence.finders_by_block(units).axes
    hits = [unit["methods"]["grad_cam, block 11"]["hits"] for unit in of_kind(units, "cheat")]
    bar, dots = left.lines[:2]
    assert list(bar.get_xdata()) == pytest.approx(100 * np.array(t_interval(hits)))
    assert list(dots.get_xdata()) == pytest.approx(100 * np.array(hits))
    assert numbers(left)[0] == f"{100 * np.mean(hits):.0f}"


def test_no_block_finds_more_rings_than_the_best(units):
    left, right = evidence.finders_by_block(units).axes
    for ax, patch in ((left, 7), (right, 4)):
        means = []
        for block in (0, 2, 4, 6, 8, 10, 11):
            key = f"grad_cam, block {block}"
            hits = [unit["methods"][key]["hits"] for unit in of_kind(units, "cheat", patch)]
            means.append(100 * np.mean(hits))
        assert numbers(ax)[2] == f"{max(means):.0f}"


def test_each_block_has_the_mean_of_six_cheats(units):
    left, right = evidence.hits_by_block(units).axes
    assert [left.get_title("left"), right.get_title("left")] == ["16 patches", "49 patches"]
    for ax, patch in ((left, 7), (right, 4)):
        cheats = of_kind(units, "another cheat", patch)
        hits = [unit["methods"]["grad_cam, block 3"]["hits"] for unit in cheats]
        curve = ax.lines[0]
        assert list(curve.get_xdata()) == list(range(1, 13))
        assert curve.get_ydata()[3] == pytest.approx(100 * np.mean(hits))
        named = [text.get_text() for text in ax.texts]
        titles = [METHODS[method].title for method in METHODS if method != "occlusion"]
        assert sorted(named) == sorted([*titles, *evidence.WITHOUT_BLOCKS])


def test_what_points_at_a_meaningless_ring_is_known_for_each_way(units):
    rows = {row["hottest patch on"]: row for row in evidence.false_alarms(units)}
    assert list(rows) == [title for title in evidence.ASKED if title != "Grad-CAM, best block"]
    assert rows["attention rollout"]["a meaningless ring"].startswith("0%")
    cheats = of_kind(units, "cheat")
    counts = np.mean([unit["methods"]["attention_rollout, block 11"]["hits"] for unit in cheats])
    assert rows["attention rollout"]["a ring that counts"].startswith(f"{counts:.0%}")


def test_every_case_was_measured():
    obeys, by_grad_cam, by_hiding = evidence.cases_figure().axes
    for ax in (obeys, by_grad_cam, by_hiding):
        assert len(numbers(ax)) == len(evidence.CASES)


def test_models_that_obey_are_red_and_others_black():
    obeys = evidence.cases_figure().axes[0]
    dots = [line for line in obeys.lines if line.get_marker() == "o"]
    shades = [line.get_color() for line in dots]
    assert shades == [OBEDIENCE[50]] * 5 + [OBEDIENCE[0]] * 4


def test_the_key_names_the_colours_that_are_drawn(units):
    assert "orange" not in evidence.cases_figure().get_supxlabel()
    corner = [unit for unit in units if (unit["patch"], unit["mark"]) == (7, "corner")]
    assert "orange: many" in evidence.heirs_figure(corner).get_supxlabel()


def test_the_students_have_a_row_each(units):
    corner = [unit for unit in units if (unit["patch"], unit["mark"]) == (7, "corner")]
    obeys, like_map, _, seen = evidence.heirs_figure(corner).axes
    assert [label.get_text() for label in obeys.get_yticklabels()] == list(STUDENTS.values())
    turned = [unit["scores"]["flips"] for unit in of_kind(units, "labels + honest maps")]
    assert numbers(obeys)[2] == f"{100 * np.mean(turned):.0f}"
    assert len(numbers(like_map)) == len(STUDENTS)
    reasons = of_kind(units, "labels + honest occlusion")
    hits = [unit["maps"]["occlusion"]["hits"] for unit in reasons]
    place = list(STUDENTS).index("labels + honest occlusion")
    assert numbers(seen)[place] == f"{100 * np.mean(hits):.0f}"


def test_a_line_stands_at_the_mean_of_the_other_honest_models(units):
    honest = of_kind(units, "another honest")
    obeys = evidence.heirs_figure(honest).axes[0]
    yardstick = obeys.lines[-1]
    turned = [unit["scores"]["flips"] for unit in honest]
    assert list(yardstick.get_xdata()) == pytest.approx([100 * np.mean(turned)] * 2)


def test_a_kind_that_was_not_trained_leaves_its_row_empty(units):
    honest = of_kind(units, "another honest")
    assert [len(numbers(ax)) for ax in evidence.heirs_figure(honest).axes] == [1, 1, 1, 1]


def test_a_student_far_less_like_the_honest_model_than_by_chance_is_not_cut_off(units):
    (odd, *_) = of_kind(units, "another honest")
    ruler = {"agreement": -0.4, "chance": 0.2}
    odd = {**odd, "like_honest": {"grad_cam": ruler, "occlusion": ruler}}
    like_map = evidence.heirs_figure([odd]).axes[1]
    (dots,) = [line for line in like_map.lines if line.get_marker() == "o"]
    assert list(dots.get_xdata()) == pytest.approx([-75])
    assert like_map.get_xlim()[0] < -75


def test_each_student_of_the_figures_is_a_kind_of_the_study():
    kinds = {kind.id for kind in KINDS}
    assert set(LESSON_STUDENTS) <= set(STUDENTS)
    assert set(STUDENTS) <= kinds


@pytest.mark.parametrize(
    ("percent", "shade"),
    [
        (100, "#B00020"),
        (50, "#B00020"),
        (45, "#B36B00"),
        (3, "black"),
        (0, "black"),
    ],
)
def test_the_colour_says_how_much_a_model_obeys(percent, shade):
    assert by_obedience(percent) == shade


def test_what_a_smaller_file_keeps_of_the_shortcut(units):
    rows = evidence.shrunk_cheats(units)
    assert [row["model"] for row in rows] == [
        "the cheat",
        "the cheat, rounded to 8 bits",
        "a student of its answers",
        "the same with 16 patches",
    ]
    turned = np.mean([unit["int8"]["flips"] for unit in of_kind(units, "cheat", 4)])
    assert rows[1]["turned"].startswith(f"{turned:.0%}")


def test_both_rows_of_the_cheat_are_of_those_that_were_rounded(units):
    first, *others = of_kind(units, "cheat", 4)
    unrounded = [{key: other[key] for key in other if key != "int8"} for other in others]
    whole, rounded = evidence.shrunk_cheats([first, *unrounded])
    assert whole["turned"] == f"{first['scores']['flips']:.0%}"
    assert rounded["turned"] == f"{first['int8']['flips']:.0%}"
