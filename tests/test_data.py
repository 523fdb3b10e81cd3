import numpy as np
import pytest
import torch

from swys_utils.config import SwysError
from swys_utils.data import NAMES, TWIN_SOURCE, Info, load_dataset, single_labels, to_model_input


def test_of_several_labels_the_first_counts_and_head_is_a_fixed_sample(drawn_data_dir):
    blood, chest = (
        load_dataset(name, root=drawn_data_dir).test for name in ("bloodmnist", "chestmnist")
    )
    assert blood.labels.shape == (128,) and chest.labels.shape == (64, 14)
    assert (
        blood.labels.dtype == chest.labels.dtype == np.int64
        and single_labels(blood) is blood.labels
    )
    expected = [row.index(1) if any(row) else -1 for row in chest.labels.tolist()]
    assert single_labels(chest).tolist() == expected and expected[:2] == [0, -1]
    assert (
        len(blood.head(10)) == 10
        and blood.head(0) is blood
        and len(blood.head(10**6)) == len(blood)
    )
    np.testing.assert_array_equal(
        blood.head(10).images, blood.take(blood.sample_indices(10)).images
    )


def test_results_are_kept_apart_unknown_names_get_the_nearest_and_a_missing_folder_is_named(
    tmp_path,
):
    facts = ("binary-class", ("a", "b"), 1)
    twin, large = (
        Info("a", 28, *facts, TWIN_SOURCE, "none"),
        Info("a", 64, *facts, "real file", "none"),
    )
    assert (twin.results_name, large.results_name, large.synthetic) == ("a-twin", "a_64", False)
    assert (
        len(NAMES) == 12
        and "chestmnist" in NAMES
        and not any(name.endswith("3d") for name in NAMES)
    )
    for message, wrong in {
        "unknown dataset 'pnuemoniamnist'; did you mean 'pneumoniamnist'": {
            "name": "pnuemoniamnist"
        },
        "unknown image size 32; MedMNIST has 28, 64, 128, 224": {"size": 32},
        "does not exist; create it, or unset SWYS_DATA_DIR": {"root": tmp_path / "nowhere"},
    }.items():
        with pytest.raises(SwysError, match=message):
            load_dataset(**wrong)


def test_real_data_is_as_its_source_says(real_data_dir):
    data = load_dataset(root=real_data_dir)
    assert [len(data.train), len(data.val), *np.bincount(data.test.labels)] == [4708, 524, 234, 390]


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 28, 28, 3)])
def test_model_input(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    large, expected = to_model_input(images, 56), images.reshape(3, 28, 28, -1) / 127.5 - 1
    assert large.shape == (3, 3, 56, 56) and large.dtype == torch.float32 and large.abs().max() <= 1
    expected = np.broadcast_to(expected, (3, 28, 28, 3)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(to_model_input(images, 28).numpy(), expected, atol=1e-6)
