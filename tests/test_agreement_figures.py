"""How much two models agree: the figures of notebooks 4 and 5."""

import numpy as np

from swys_figures import agreement
from swys_figures.agreement import (
    agreement_figure,
    beyond_chance,
    changed_figure,
    orders_figure,
    three_questions,
)
from swys_utils.data import load_dataset
from swys_utils.shipped_results import series_results

PAIR = {"spearman": 0.25, "chance_in_class": 0.125, "same_top": 0.5, "same_top_chance": 0.2}


def test_agreement_has_a_panel_for_each_ruler_and_a_row_for_each_yardstick():
    results = series_results()
    panels = agreement_figure(results).axes
    titles = [ax.get_title(loc="left") for ax in panels]
    assert titles == [
        "by hiding,\nall patches",
        "by hiding,\nthe hottest patch",
        "by Grad-CAM,\nall patches",
    ]
    rows = [label.get_text() for label in panels[0].get_yticklabels()]
    assert rows == [
        "two Bases",
        "two Tinys",
        "Tiny and Base",
        "Tiny and Base,\nboth after 12\npasses",
        "a ResNet and\nBase",
        "a ResNet and\nTiny",
        "two ResNets",
    ]


def test_in_brief_agreement_has_two_panels_of_four_rows():
    panels = agreement_figure(series_results(), brief=True).axes
    titles = [ax.get_title(loc="left") for ax in panels]
    assert titles == ["by hiding", "by Grad-CAM"]
    rows = [label.get_text() for label in panels[0].get_yticklabels()]
    assert rows == ["two Bases", "two Tinys", "Tiny and Base", "a ResNet and\nBase"]
    assert [text.get_text() for text in panels[0].texts] == ["62 %", "46 %", "40 %", "20 %"]


def test_agreement_is_drawn_beyond_chance():
    results = series_results()._replace(dataset="another")
    other = {"spearman": 0.75, "chance_in_class": 0.5, "same_top": 0.3, "same_top_chance": 0.2}
    found = {"occlusion": {"vit_tiny": [PAIR, other]}}
    all_patches, hottest = agreement_figure(results._replace(agreement=found, siblings={})).axes
    assert [text.get_text() for text in all_patches.texts] == ["32 %\n14 to 50"]
    (dots,) = [line.get_xdata() for line in all_patches.lines if line.get_marker() == "o"]
    assert list(dots.round(1)) == [14.3, 50]
    assert [text.get_text() for text in hottest.texts] == ["25 %\n12 to 38"]


def test_chance_is_zero_and_the_most_is_a_hundred():
    pairs = []
    for found, chance in ((0.25, 0.25), (1, 0.25), (0.75, 0.5)):
        pairs.append({"spearman": found, "chance_in_class": chance})
    assert beyond_chance(pairs).tolist() == [0, 100, 50]


def test_agreement_that_was_not_measured_is_an_empty_panel():
    results = series_results()._replace(agreement={}, siblings={})
    (ax,) = agreement_figure(results).axes
    assert not ax.texts


def test_the_three_questions_have_a_panel_each():
    figure = three_questions(series_results())
    assert len(figure.axes) == 3
    for ax in figure.axes:
        (dashed,) = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert len(ax.texts) == 4  # the means
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == ["95.1 %", "92.7 %", "96.0 %", "96.2 %"]


def test_two_tinys_have_a_row_if_asked_for():
    left, *_ = three_questions(series_results(), siblings=True).axes
    rows = [label.get_text() for label in left.get_yticklabels()]
    assert rows[-1] == "(two Tinys)"


def test_students_of_other_teachers_are_compared_with_our_base(monkeypatch):
    run_ids = [
        "vit_tiny/answers_of_another/seed0",
        "vit_tiny/answers_of_tiny/seed0",
        "vit_tiny/answers_of_our_tiny/seed1",
    ]
    pairs = {"runs": dict.fromkeys(run_ids, PAIR)}
    measured = {"maps": {"grad_cam": pairs, "occlusion": pairs}}
    monkeypatch.setattr(agreement, "read_results", lambda dataset, name: measured)
    rows = agreement.teachers_table(series_results())
    teachers = [row["Tiny, taught by the answers of"] for row in rows]
    assert teachers == ["another Base", "our Tiny", "another Tiny"]
    assert rows[0]["runs"] == "1"
    assert rows[0]["like our Base by hiding"] == "14%"


def test_students_by_the_names_of_an_earlier_version_are_compared_with_our_base(monkeypatch):
    pairs = {"runs": {"vit_tiny/kd_soft/seed0": PAIR, "vit_tiny/scratch/seed0": PAIR}}
    measured = {"maps": {"grad_cam": pairs, "occlusion": pairs}}
    monkeypatch.setattr(agreement, "read_results", lambda dataset, name: measured)
    rows = agreement.teachers_table(series_results())
    teachers = [row["Tiny, taught by the answers of"] for row in rows]
    assert teachers == ["our Base", "nobody (labels alone)"]


def test_three_pairs_show_what_agreement_means():
    rng = np.random.default_rng(0)
    maps = rng.random((9, 4, 4))
    noise = np.linspace(0, 1, 9)[:, None, None]  # the first child has the same map twice
    others = maps + noise * rng.random((9, 4, 4))
    axes = orders_figure({"Base": maps, "Tiny": others}, np.zeros(9)).axes
    two_children, same_child, most_alike = axes
    assert two_children.get_title().startswith("two children: ")
    assert same_child.get_title().startswith("the same child: ")
    assert most_alike.get_title() == "the most alike: 1.00,\n100 % beyond chance"
    dots = most_alike.lines[1]
    of_first = dots.get_xdata()
    of_second = dots.get_ydata()
    assert sorted(of_first) == list(range(1, 17))
    assert (of_first == of_second).all()


def test_the_pair_of_two_children_agrees_as_by_chance():
    maps = np.random.default_rng(0).random((40, 4, 4))
    figure = orders_figure({"Base": maps, "Tiny": maps}, np.zeros(40))
    assert figure.axes[0].get_title().endswith("\n0 % beyond chance")


def test_a_child_that_is_alone_with_its_answer_is_no_pair_of_two_children():
    maps = np.random.default_rng(0).random((5, 4, 4))
    said = np.array([0, 0, 0, 0, 1])
    figure = orders_figure({"Base": maps, "Tiny": maps}, said)
    dots = figure.axes[0].lines[1]
    places = dots.get_ydata()
    assert sorted(places) == list(range(1, 17))


def test_a_single_model_is_compared_with_itself():
    maps = np.random.default_rng(0).random((4, 4, 4))
    figure = orders_figure({"Tiny": maps}, np.zeros(4))
    assert figure.axes[1].get_title() == "the same child: 1.00,\n100 % beyond chance"


def test_where_no_two_children_have_the_same_answer_there_is_no_such_pair():
    maps = np.random.default_rng(0).random((3, 4, 4))
    figure = orders_figure({"Base": maps, "Tiny": maps}, np.arange(3))
    first, second = figure.axes
    assert first.get_title() == "the same child: 1.00"
    assert second.get_title() == "the most alike: 1.00"


def test_a_changed_image_says_who_answered_what(drawn_data_dir):
    data = load_dataset("pneumoniamnist", root=drawn_data_dir)
    image = {"index": 0, "label": 0, "teacher": 1, "share": 0.75}
    (ax,) = changed_figure(data, [image]).axes
    assert ax.get_title() == "truly normal\nBase: pneumonia"
    assert ax.texts[0].get_text() == "75% of Tinys differ"


def test_questions_without_compared_maps_have_one_panel():
    results = series_results()._replace(agreement={}, siblings={})
    assert len(agreement.three_questions(results).axes) == 1


def test_a_pair_that_was_not_measured_has_no_row():
    axes = agreement.agreement_figure(series_results("bloodmnist")).axes
    labels = [label.get_text().replace("\n", " ") for label in axes[0].get_yticklabels()]
    assert "Tiny and Base" in labels
    assert "two Tinys" not in labels
