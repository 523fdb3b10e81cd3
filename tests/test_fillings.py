"""Occlusion with other fillings, on untrained models with drawn images."""

import pytest
from small import some, vit

from swys_studies import fillings
from swys_utils.config import SwysError
from swys_utils.data import load_dataset


@pytest.fixture(scope="module")
def found(drawn_data_dir):
    images = some(load_dataset(root=drawn_data_dir), test=12).test.images
    models = {"vit_base": vit(seed=0, noise=0.1), "vit_tiny": vit(seed=1, noise=0.1)}
    return fillings.compare_fillings(models, images)


def test_base_agrees_with_itself_in_each_way(found):
    for way in fillings.WAYS:
        assert found["vit_base"]["like_base"][way]["spearman"] == pytest.approx(1)


def test_a_model_agrees_with_itself_behind_the_same_filling(found):
    own = found["vit_tiny"]["like_grey"]
    assert own["mean"]["spearman"] == pytest.approx(1)
    assert own["blur"]["spearman"] < 0.999


def test_there_is_a_row_for_each_model_and_way(found):
    rows = fillings.table(found)
    assert [row["hidden"] for row in rows] == list(fillings.WAYS) * 2


def test_a_folder_without_base_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        fillings,
        "one_label_data",
        lambda dataset: load_dataset(download=False),
    )
    with pytest.raises(SwysError, match="has no vit_base"):
        fillings.fillings(folder=str(tmp_path))
