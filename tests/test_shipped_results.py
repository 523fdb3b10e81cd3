"""What notebooks read of the shipped measurements."""

from swys_utils import shipped_results


def test_a_data_set_without_planted_marks_has_those_of_the_default_one():
    assert shipped_results.planted_units("octmnist") == shipped_results.planted_units()


def test_a_data_set_whose_models_ignore_the_mark_has_those_of_the_default_one():
    assert shipped_results.read_results("bloodmnist", "planted") is not None
    assert shipped_results.planted_units("bloodmnist") == shipped_results.planted_units()


def test_base_is_the_first_of_the_deployed_models():
    first = shipped_results.deployed_models()[0]
    assert first["title"] == "Base"
    assert first["same_answer"] == 1


def test_a_data_set_without_deployed_models_has_those_of_the_default_one():
    assert shipped_results.deployed_models("octmnist") == shipped_results.deployed_models()
