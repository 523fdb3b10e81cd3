import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest
import torch
from medmnist.info import INFO

from swys_utils import data as data_module
from swys_utils.config import SwysError
from swys_utils.data import NAMES, load_dataset, single_labels, to_model_input


@pytest.fixture
def no_home(monkeypatch, tmp_path):
    """An empty home: nothing in ~/.medmnist, no SWYS_DATA_DIR."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(data_module.Path, "home", lambda: home)
    monkeypatch.delenv("SWYS_DATA_DIR", raising=False)
    return home


@pytest.fixture
def server(drawn_data_dir):
    """A local file server in place of the data set's host; counts requests."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        tries = 0

        def do_GET(self):
            Handler.tries += 1
            super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(drawn_data_dir))
    ) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", Handler
        httpd.shutdown()


def test_names_are_the_twelve_2d_sets():
    assert len(NAMES) == 12 and "chestmnist" in NAMES and not any(name.endswith("3d") for name in NAMES)


@pytest.mark.parametrize(
    ("name", "image_shape", "label_shape", "classes"),
    [
        ("pneumoniamnist", (28, 28), (), 2),
        ("bloodmnist", (28, 28, 3), (), 8),
        ("retinamnist", (28, 28, 3), (), 5),
        ("chestmnist", (28, 28), (14,), 14),
    ],
)
def test_layout_of_each_task(drawn_data_dir, name, image_shape, label_shape, classes):
    data = load_dataset(name, root=drawn_data_dir)
    for split in (data.train, data.val, data.test):
        assert split.images.dtype == np.uint8 and split.images.shape[1:] == image_shape
        assert split.labels.dtype == np.int64 and split.labels.shape == (len(split), *label_shape)
    assert data.info.num_classes == len(data.info.class_names) == classes
    assert data.info.multi_label == (name == "chestmnist")


def test_single_labels_of_multi_label_data(drawn_data_dir):
    split = load_dataset("chestmnist", root=drawn_data_dir).train
    labels = single_labels(split)
    assert (
        labels[0] == 0 and labels[1] == -1
    )  # the drawn set has one image with every label and one with none
    assert all(split.labels[i, c] == 1 for i, c in enumerate(labels) if c >= 0)


def test_real_data_is_as_its_source_says(real_data_dir):
    data = load_dataset(root=real_data_dir)
    assert (len(data.train), len(data.val), len(data.test)) == (4708, 524, 624)
    assert np.bincount(data.test.labels).tolist() == [234, 390]


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 28, 28, 3)])
def test_model_input(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    x = to_model_input(images, 56)
    assert x.shape == (3, 3, 56, 56) and x.dtype == torch.float32
    assert x.min() >= -1 and x.max() <= 1
    same_size = to_model_input(images, 28)
    expected = images / 127.5 - 1
    expected = np.repeat(expected[:, None], 3, axis=1) if images.ndim == 3 else expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(same_size.numpy(), expected, atol=1e-6)


def test_model_input_refuses_floats():
    with pytest.raises(SwysError, match="uint8"):
        to_model_input(np.zeros((2, 28, 28)))


def test_head_is_a_fixed_sample(drawn_data_dir):
    test = load_dataset(root=drawn_data_dir).test
    assert len(test.head(10)) == 10 and test.head(0) is test and len(test.head(10**6)) == len(test)
    np.testing.assert_array_equal(test.head(10).images, test.take(test.rows(10)).images)


def test_unknown_names_get_the_nearest():
    with pytest.raises(SwysError, match="unknown dataset 'pnuemoniamnist'; did you mean 'pneumoniamnist'"):
        load_dataset("pnuemoniamnist")
    with pytest.raises(SwysError, match="unknown image size 32; MedMNIST has 28, 64, 128, 224"):
        load_dataset(size=32)


def test_damaged_and_foreign_files_are_refused(tmp_path, drawn_data_dir):
    whole = (drawn_data_dir / "bloodmnist.npz").read_bytes()
    (tmp_path / "bloodmnist.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SwysError, match="bloodmnist.npz' is damaged"):
        load_dataset("bloodmnist", root=tmp_path)
    (tmp_path / "pneumoniamnist.npz").write_bytes(whole)
    with pytest.raises(SwysError, match="is not pneumoniamnist at 28 px"):
        load_dataset("pneumoniamnist", root=tmp_path)
    np.savez(tmp_path / "pathmnist.npz", a=np.zeros(3))
    with pytest.raises(SwysError, match="is no MedMNIST file"):
        load_dataset("pathmnist", root=tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(SwysError, match="does not exist; create it, or unset SWYS_DATA_DIR"):
        load_dataset(root=tmp_path / "nowhere")


def test_download_checks_md5_and_leaves_nothing_half_written(no_home, server, monkeypatch, drawn_data_dir):
    address, handler = server
    content = (drawn_data_dir / "bloodmnist.npz").read_bytes()
    right = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(INFO["bloodmnist"], "url", f"{address}/bloodmnist.npz")
    monkeypatch.setitem(INFO["bloodmnist"], "MD5", "0" * 32)
    with pytest.raises(SwysError, match="no data for 'bloodmnist'.*corrupted"):
        load_dataset("bloodmnist")
    assert handler.tries == 4  # two tries, each asked for a redirect first
    assert list((no_home / ".medmnist").iterdir()) == []
    monkeypatch.setitem(INFO["bloodmnist"], "MD5", right)
    data = load_dataset("bloodmnist")
    assert (
        "downloaded" in data.info.source
        and (no_home / ".medmnist" / "bloodmnist.npz").read_bytes() == content
    )
    assert "real file" in load_dataset("bloodmnist", download=False).info.source  # now it is there


def test_no_network_is_one_line_with_a_way_out(no_home, monkeypatch):
    monkeypatch.setitem(INFO["bloodmnist"], "url", "http://127.0.0.1:9/none.npz")
    with pytest.raises(SwysError) as caught:
        load_dataset("bloodmnist")
    message = str(caught.value)
    assert "\n" not in message and "SWYS_DATA_DIR" in message and "Connection refused" in message


def test_large_arrays_are_memory_mapped(tmp_path, drawn_data_dir, monkeypatch):
    path = tmp_path / "bloodmnist_224.npz"
    path.write_bytes((drawn_data_dir / "bloodmnist_224.npz").read_bytes())
    loaded = load_dataset("bloodmnist", size=224, root=tmp_path)
    monkeypatch.setattr(data_module, "MEMORY_LIMIT", 1000)
    mapped = load_dataset("bloodmnist", size=224, root=tmp_path)
    assert isinstance(mapped.train.images, np.memmap) and not isinstance(loaded.train.images, np.memmap)
    np.testing.assert_array_equal(mapped.train.images, loaded.train.images)
    assert to_model_input(mapped.train.images[:2], 224).shape == (2, 3, 224, 224)
