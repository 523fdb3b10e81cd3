"""What notebooks read of the shipped measurements."""

from swys_utils import shipped_results


def test_a_data_set_without_planted_marks_has_those_of_the_default_one():
    assert shipped_results.planted_units("octmnist") == shipped_results.planted_units()


def test_the_agreement_table_names_another_base():
    rows = shipped_results.agreement_table(shipped_results.series_results())
    titles = [row["compared"] for row in rows]
    assert titles[:2] == ["another Base with Base", "Tiny with Base"]
    assert "Grad-CAM, by chance" in rows[0]


def test_the_agreement_table_has_what_other_random_weights_change():
    results = shipped_results.series_results()
    pair = {"spearman": 0.25, "chance_in_class": 0.125}
    results = results._replace(siblings={"grad_cam": [pair]})
    last = shipped_results.agreement_table(results)[-1]
    assert last["compared"] == "two Tinys with each other"
    assert last["Grad-CAM"] == "0.25"
    assert last["hiding"] == "-"


def test_base_is_the_first_of_the_deployed_models():
    first = shipped_results.deployed_models()[0]
    assert first["title"] == "Base"
    assert first["same_answer"] == 1


def test_a_data_set_without_deployed_models_has_those_of_the_default_one():
    assert shipped_results.deployed_models("octmnist") == shipped_results.deployed_models()
