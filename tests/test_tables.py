"""The table of notebook 6."""

from swys_figures.tables import deployed_table

PAIR = {"spearman": 0.25, "chance_in_class": 0.125}


def test_an_agreement_has_its_chance_beside_it():
    model = {"title": "Tiny", "megabytes": 6.0, "accuracy": 0.5, "auc": 0.5, "same_answer": 1.0}
    (row,) = deployed_table([model | {"occlusion": PAIR, "grad_cam": PAIR}])
    assert row["Grad-CAM (chance)"] == "0.25 (0.12)"
    assert row["hiding (chance)"] == "0.25 (0.12)"
