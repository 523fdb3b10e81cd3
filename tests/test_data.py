import numpy as np
import pytest
import torch

from swys_utils.config import SwysError
from swys_utils.data import (
    NAMES,
    TWIN_SOURCE,
    Info,
    Split,
    load_dataset,
    notebook_setup,
    resized,
    single_labels,
    to_model_input,
    to_planes,
)
from swys_utils.image_files import data_folders


@pytest.fixture(scope="module")
def blood(drawn_data_dir) -> Split:
    """128 colour images of eight classes."""
    return load_dataset("bloodmnist", root=drawn_data_dir).test


@pytest.fixture(scope="module")
def chest(drawn_data_dir) -> Split:
    """64 grey images with fourteen labels each; all labels of the first, none of the second."""
    return load_dataset("chestmnist", root=drawn_data_dir).test


def info(size: int = 28, source: str = "real file") -> Info:
    return Info("a", size, "binary-class", ("x", "y"), 1, source, "none")


def test_labels_of_one_class_an_image_have_one_axis(blood):
    assert blood.labels.shape == (128,)
    assert blood.labels.dtype == np.int64


def test_several_labels_an_image_have_two_axes(chest):
    assert chest.labels.shape == (64, 14)
    assert chest.labels.dtype == np.int64


def test_a_single_label_is_taken_as_it_is(blood):
    assert single_labels(blood) is blood.labels


def test_of_several_labels_the_first_true_one_counts(chest):
    labels = single_labels(chest).tolist()
    for label, row in zip(labels, chest.labels.tolist()):
        assert label == (row.index(1) if any(row) else -1)


def test_no_label_is_minus_1(chest):
    assert single_labels(chest)[:2].tolist() == [0, -1]


def test_a_sample_has_at_most_as_many_images_as_there_are(blood):
    assert len(blood.sample_indices(10)) == 10
    assert len(blood.sample_indices(10**6)) == 128


def test_a_sample_is_random_and_that_of_stored_results(blood):
    expected = [34, 53, 64, 66, 74, 102, 112, 117, 121, 125]
    assert blood.sample_indices(10).tolist() == expected


def test_a_sample_of_0_is_all(blood):
    assert blood.sample_indices(0).tolist() == list(range(128))


def test_a_sample_is_the_same_each_time_and_keeps_the_order(blood):
    indices = blood.sample_indices(10)
    assert indices.dtype == np.int64
    assert indices.tolist() == sorted(blood.sample_indices(10))


@pytest.mark.parametrize("n", [-1, -128])
@pytest.mark.parametrize("method", ["sample_indices", "sample"])
def test_a_sample_of_fewer_than_none_is_refused(blood, method, n):
    with pytest.raises(SwysError, match=f"a sample of {n} images; give 1 or more, or 0 for all"):
        getattr(blood, method)(n)


def test_a_sample_is_a_split(blood):
    sample = blood.sample(10)
    indices = blood.sample_indices(10)
    np.testing.assert_array_equal(sample.images, blood.images[indices])
    np.testing.assert_array_equal(sample.labels, blood.labels[indices])


@pytest.mark.parametrize("n", [0, 128, 10**6])
def test_a_sample_of_all_is_the_split_itself(blood, n):
    assert blood.sample(n) is blood


def test_images_are_taken_by_position_in_the_order_asked_for(blood):
    taken = blood.take(np.array([5, 2]))
    np.testing.assert_array_equal(taken.images, blood.images[[5, 2]])


def test_images_are_taken_by_a_mask(blood):
    taken = blood.take(blood.labels == 3)
    assert set(taken.labels) == {3}
    assert len(taken) == (blood.labels == 3).sum()


def test_results_of_the_twin_are_kept_apart():
    assert info(source=TWIN_SOURCE).results_name == "a-twin"


def test_results_of_another_size_are_kept_apart():
    assert info(size=64).results_name == "a_64"


def test_the_names_are_those_of_the_twelve_2d_sets():
    assert len(NAMES) == 12
    assert "chestmnist" in NAMES
    assert "organmnist3d" not in NAMES


def test_a_mistyped_name_gets_the_nearest():
    with pytest.raises(SwysError, match="'pnuemoniamnist'; did you mean 'pneumoniamnist'"):
        load_dataset("pnuemoniamnist")


def test_an_unknown_size_gets_the_known_ones():
    with pytest.raises(SwysError, match="unknown image size 32; MedMNIST has 28, 64, 128, 224"):
        load_dataset(size=32)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SwysError, match="nowhere' does not exist; create it, or unset SWYS_DATA"):
        load_dataset(root=tmp_path / "nowhere")


def test_a_folder_that_is_given_is_looked_into_first(tmp_path):
    assert next(data_folders(tmp_path)) == (tmp_path, "root")


def test_the_folder_can_come_from_the_environment(drawn_data_dir, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    assert load_dataset().info.source == "real file pneumoniamnist.npz in SWYS_DATA_DIR"


def test_a_folder_that_is_given_comes_before_the_environment(drawn_data_dir, monkeypatch):
    monkeypatch.setenv("SWYS_DATA_DIR", "/nowhere")
    source = load_dataset(root=drawn_data_dir).info.source
    assert source == "real file pneumoniamnist.npz in root"


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SWYS_DATA_DIR")


def test_without_any_file_the_default_set_is_the_twin(empty_home, capsys):
    data = load_dataset(download=False)
    assert data.info.synthetic
    assert "using the synthetic twin" in capsys.readouterr().err


def test_without_any_file_another_set_is_an_error(empty_home):
    with pytest.raises(SwysError, match="no data for 'bloodmnist' at 28 px .download=False.; put"):
        load_dataset("bloodmnist", download=False)


def test_the_home_folder_is_looked_into_last(empty_home, tmp_path, drawn_data_dir):
    home = tmp_path / ".medmnist"
    home.mkdir()
    content = (drawn_data_dir / "bloodmnist.npz").read_bytes()
    (home / "bloodmnist.npz").write_bytes(content)
    source = load_dataset("bloodmnist", download=False).info.source
    assert source == "real file bloodmnist.npz in ~/.medmnist"


def test_real_data_has_the_sizes_that_its_source_gives(real_data_dir):
    data = load_dataset(root=real_data_dir)
    assert len(data.train) == 4708
    assert len(data.val) == 524
    assert np.bincount(data.test.labels).tolist() == [234, 390]


def test_the_first_cell_prints_what_is_used(drawn_data_dir, monkeypatch, capsys):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    data, profile, device = notebook_setup("bloodmnist")
    printed = capsys.readouterr().out
    assert "bloodmnist, 28 px: 256 train / 64 val / 128 test" in printed
    assert f"profile {profile.name}" in printed
    assert f"{device.type}: " in printed
    assert data.info.source in printed
    assert "text    of pneumoniamnist" in printed


def test_on_the_default_set_nothing_is_said_of_the_text(drawn_data_dir, monkeypatch, capsys):
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    notebook_setup()
    assert "text " not in capsys.readouterr().out


GREY = (3, 28, 28)
COLOUR = (3, 28, 28, 3)


@pytest.fixture(params=[GREY, COLOUR], ids=["grey", "colour"])
def pixels(request) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, request.param, dtype=np.uint8)


def test_pixels_become_numbers_from_minus_1_to_1(pixels):
    planes = to_planes(pixels)
    channels_last = planes.permute(0, 2, 3, 1).numpy()
    expected = pixels.reshape(3, 28, 28, -1) / 127.5 - 1
    np.testing.assert_allclose(channels_last, expected, atol=1e-6)


def test_model_input_has_three_channels(pixels):
    inputs = to_model_input(pixels, 28)
    planes = to_planes(pixels)
    torch.testing.assert_close(inputs, planes.expand(3, 3, 28, 28))


def test_model_input_has_the_size_asked_for(pixels):
    large = to_model_input(pixels, 56)
    assert large.shape == (3, 3, 56, 56)
    assert large.dtype == torch.float32
    assert large.abs().max() <= 1


def test_model_input_of_a_tensor_is_that_of_the_array(pixels):
    torch.testing.assert_close(to_model_input(torch.tensor(pixels)), to_model_input(pixels))


@pytest.mark.parametrize("shape", [(2, 8, 8, 4), (2, 8, 8, 2), (2, 3, 8, 8)])
def test_other_channels_than_1_or_3_are_refused(shape):
    images = np.zeros(shape, np.uint8)
    with pytest.raises(SwysError, match=r"give uint8 \(N, H, W\)"):
        to_model_input(images)


@pytest.mark.parametrize("shape", [(2, 40, 28), (2, 28, 40)])
def test_oblong_images_become_square(shape):
    images = np.zeros(shape, np.uint8)
    assert to_model_input(images).shape == (2, 3, 28, 28)


def test_a_single_image_is_refused():
    image = np.zeros((28, 28), np.uint8)
    with pytest.raises(SwysError, match=r"give uint8 \(N, H, W\)"):
        to_model_input(image)


def test_images_of_the_right_size_are_not_resized():
    planes = torch.rand(1, 1, 28, 28)
    assert resized(planes, 28) is planes


def test_stripes_that_are_too_fine_become_grey():
    stripes = torch.tensor([-1.0, 1.0]).repeat(28).expand(1, 1, 56, 56)
    assert resized(stripes, 28)[..., 2:-2].abs().max() < 1e-6
