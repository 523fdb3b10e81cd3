"""How much two models agree: the figures of notebooks 4 and 5."""

from swys_figures.agreement import MEASURES, agreement_figure, three_questions
from swys_utils.shipped_results import series_results

PAIR = {"spearman": 0.25, "chance_in_class": 0.125}


def test_agreement_has_a_panel_for_each_measure_and_a_row_for_each_yardstick():
    results = series_results()
    panels = agreement_figure(results).axes
    titles = [ax.get_title(loc="left") for ax in panels]
    assert titles == [measure.title for measure in MEASURES]
    rows = [label.get_text() for label in panels[0].get_yticklabels()]
    assert rows == [
        "Tiny\nwith Base",
        "Tiny, 12 passes,\nwith Base",
        "another Base\nwith Base",
        "two Tinys",
    ]


def test_agreement_says_the_mean_and_chance():
    results = series_results()._replace(dataset="another")
    other = {"spearman": 0.75, "chance_in_class": 0.375, "same_top": 0.5, "same_top_chance": 0.1}
    found = {"occlusion": {"vit_tiny": [PAIR, other]}}
    order, hottest = agreement_figure(results._replace(agreement=found, siblings={})).axes
    assert [text.get_text() for text in order.texts] == ["0.50 (0.25)\n33% of the way"]
    assert [text.get_text() for text in hottest.texts] == ["50% (10%)\n44% of the way"]
    dots = [line.get_xdata() for line in order.lines if line.get_marker() == "o"]
    assert [list(values) for values in dots] == [[0.25, 0.75]]


def test_agreement_that_was_not_measured_is_an_empty_panel():
    results = series_results()._replace(agreement={}, siblings={})
    (ax,) = agreement_figure(results).axes
    assert not ax.texts


def test_the_three_questions_have_a_panel_each():
    assert len(three_questions(series_results()).axes) == 3
