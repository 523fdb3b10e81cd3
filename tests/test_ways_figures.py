"""Complete runs of both sizes after each way to train them."""

import pytest

from swys_figures import ways
from swys_utils.shipped_results import read_results, series_results


def entry(method, right):
    """A complete run of Tiny with two classes."""
    return {
        "id": f"vit_tiny/{method}",
        "history": [{}],
        "val_accuracy": 0.8,
        "val_auc": 0.98,
        "last": {"accuracy": right, "auc": 0.95},
        "recall": [right - 0.2, 0.9],
    }


def test_each_way_to_train_has_a_row_of_dots_and_its_mean_in_each_panel(monkeypatch):
    entries = [
        entry("labels/seed0", 0.8),
        entry("labels/seed1", 0.9),
        entry("labels_sharp/seed0", 0.7),
    ]
    monkeypatch.setattr(ways, "read_results", lambda dataset, name: {"runs": entries})
    means = {
        "test: right (%)": ["85", "70"],
        "test: healthy cleared (%)": ["65", "50"],
        "validation: AUC": ["0.980", "0.980"],
    }
    figure = ways.scores_figure(series_results(), ways.VIEWS, list(means))
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["Tiny, blurred", "Tiny, sharp"]
    for ax in figure.axes:
        shown = [text.get_text() for text in ax.texts]
        assert shown == means[ax.get_xlabel()]
    dots = figure.axes[0].lines[0]
    assert list(dots.get_xdata()) == [80, 90]


def test_each_score_can_be_drawn_of_each_shipped_way():
    for rows in (ways.VIEWS, ways.RECIPES, ways.MASKED):
        panels = ways.scores_figure(series_results(), rows, list(ways.SCORES)).axes
        for ax in panels:
            assert len(ax.texts) == len(rows)


def test_each_run_has_a_curve_of_its_training_loss_and_one_of_its_auc():
    results = series_results()
    runs = read_results(results.dataset, "runs")["runs"]
    of_both_sizes = ways.WAYS["blurred views"]
    drawn = [run for run in runs if run["id"].startswith(of_both_sizes)]
    losses, areas = ways.by_passes(results).axes
    for ax, key in ((losses, "train_loss"), (areas, "test_auc")):
        ends = {line.get_ydata()[-1] for line in ax.lines if len(line.get_ydata())}
        assert ends == {run["history"][-1][key] for run in drawn}


def test_each_way_has_a_row_of_dots_and_its_mean():
    results = series_results()
    (ax,) = ways.cleared_figure(results, ["blurred views"]).axes
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows == [
        "",
        "Base, 12 passes",
        "Base, 30 passes",
        "Tiny, 12 passes",
        "Tiny, 30 passes",
    ]
    base, *_ = [line for line in ax.lines if line.get_marker() == "o"]
    mean = base.get_xdata().mean()
    header, number, *_ = ax.texts
    assert header.get_text() == "blurred views"
    assert number.get_text() == f"{mean:.0f}"


def test_each_number_of_images_has_a_dot_for_both_sizes(monkeypatch):
    runs = []
    accuracies = {
        ("vit_tiny", 2000): 0.8,
        ("vit_base", 2000): 0.9,
        ("vit_tiny", 1000): 0.7,
        ("vit_base", 1000): 0.6,
    }
    for (model, images), accuracy in accuracies.items():
        run = {
            "model": model,
            "images": images,
            "shown": 8000,
            "test": {"accuracy": accuracy},
            "train_loss": 0.5,
        }
        runs.append(run)
    monkeypatch.setattr(ways, "read_results", lambda dataset, name: {"runs": runs})
    accuracy, loss = ways.by_amount().axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in accuracy.lines}
    assert curves["Base, 8,000 shown"] == [[1000, 60], [2000, 90]]
    assert curves["Tiny, 8,000 shown"] == [[1000, 70], [2000, 80]]
    assert [text.get_text() for text in loss.texts] == ["Base,\n8,000 shown", "Tiny,\n8,000 shown"]


def test_the_line_of_amounts_goes_through_the_means_of_runs_with_as_many_images():
    curve = ways.AmountCurve(
        title="Tiny, 8,000 shown",
        shade="black",
        style="-",
        images=[2000, 1000, 2000],
        scores={"loss": [0.2, 0.9, 0.4]},
    )
    means = curve.means("loss")
    assert list(means) == [1000, 2000]
    assert list(means.values()) == pytest.approx([0.9, 0.3])


def test_without_runs_the_figure_of_amounts_is_empty(monkeypatch):
    monkeypatch.setattr(ways, "read_results", lambda dataset, name: None)
    for ax in ways.by_amount().axes:
        drawn = [line for line in ax.lines if len(line.get_xdata())]
        assert drawn == []


def test_no_curve_of_test_auc_is_cut_off():
    _, panel = ways.by_passes(series_results()).axes
    lowest = min(line.get_ydata().min() for line in panel.lines)
    assert panel.get_ylim()[0] < lowest


def test_of_many_classes_none_is_the_healthy(monkeypatch):
    many = {"id": "vit_tiny/labels/seed0", "history": [{}], "recall": [0.5, 0.6, 0.7]}
    monkeypatch.setattr(ways, "read_results", lambda *names: {"runs": [many]})
    results = series_results()
    for figure in (
        ways.cleared_figure(results, ["blurred views"]),
        ways.scores_figure(results, ways.VIEWS, ["test: AUC"]),
    ):
        assert len(figure.axes[0].texts) == 0
