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
from swys_utils.data import NAMES, TWIN_SOURCE, Info, load_dataset, single_labels, to_model_input


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

    handler = functools.partial(Handler, directory=str(drawn_data_dir))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", Handler
        httpd.shutdown()


@pytest.mark.parametrize(
    ("name", "channels", "labels", "classes"),
    [
        ("pneumoniamnist", (), (), 2),
        ("bloodmnist", (3,), (), 8),
        ("retinamnist", (3,), (), 5),
        ("chestmnist", (), (14,), 14),
    ],
)
def test_layout_of_each_task(drawn_data_dir, name, channels, labels, classes):
    data = load_dataset(name, root=drawn_data_dir)
    for split in (data.train, data.val, data.test):
        assert split.images.dtype == np.uint8 and split.images.shape[1:] == (28, 28, *channels)
        assert split.labels.dtype == np.int64 and split.labels.shape == (len(split), *labels)
    assert data.info.num_classes == len(data.info.class_names) == classes
    assert data.info.multi_label == (name == "chestmnist")
    single, rows = single_labels(split), np.arange(len(split))
    if data.info.multi_label:  # drawn: the first image has every label and the second has none
        assert single[:2].tolist() == [0, -1] and split.labels[rows, single][single >= 0].all()


def test_results_on_the_twin_and_on_other_sizes_are_kept_apart():
    facts = ("binary-class", ("a", "b"), 1)
    twin, large = Info("a", 28, *facts, TWIN_SOURCE, "none"), Info("a", 64, *facts, "real file", "none")
    assert (twin.results_name, large.results_name, large.synthetic) == ("a-twin", "a_64", False)


def test_real_data_is_as_its_source_says(real_data_dir):
    data = load_dataset(root=real_data_dir)
    assert (len(data.train), len(data.val), len(data.test)) == (4708, 524, 624)
    assert np.bincount(data.test.labels).tolist() == [234, 390]


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 28, 28, 3)])
def test_model_input(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    large, expected = to_model_input(images, 56), images.reshape(3, 28, 28, -1) / 127.5 - 1
    assert large.shape == (3, 3, 56, 56) and large.dtype == torch.float32 and large.abs().max() <= 1
    expected = np.broadcast_to(expected, (3, 28, 28, 3)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(to_model_input(images, 28).numpy(), expected, atol=1e-6)
    with pytest.raises(SwysError, match="uint8"):
        to_model_input(images / 255)


def test_head_is_a_fixed_sample(drawn_data_dir):
    test = load_dataset(root=drawn_data_dir).test
    assert len(test.head(10)) == 10 and test.head(0) is test and len(test.head(10**6)) == len(test)
    np.testing.assert_array_equal(test.head(10).images, test.take(test.rows(10)).images)


def test_unknown_names_get_the_nearest_and_a_missing_folder_is_named(tmp_path):
    assert len(NAMES) == 12 and "chestmnist" in NAMES and not any(name.endswith("3d") for name in NAMES)
    for message, wrong in {
        "unknown dataset 'pnuemoniamnist'; did you mean 'pneumoniamnist'": {"name": "pnuemoniamnist"},
        "unknown image size 32; MedMNIST has 28, 64, 128, 224": {"size": 32},
        "does not exist; create it, or unset SWYS_DATA_DIR": {"root": tmp_path / "nowhere"},
    }.items():
        with pytest.raises(SwysError, match=message):
            load_dataset(**wrong)


def test_damaged_and_foreign_files_are_refused(tmp_path, drawn_data_dir):
    whole = (drawn_data_dir / "bloodmnist.npz").read_bytes()
    (tmp_path / "bloodmnist.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SwysError, match="bloodmnist.npz' is damaged"):
        load_dataset("bloodmnist", root=tmp_path)
    (tmp_path / "pneumoniamnist.npz").write_bytes(whole)
    with pytest.raises(SwysError, match="is not pneumoniamnist at 28 px"):
        load_dataset("pneumoniamnist", root=tmp_path)
    np.savez(tmp_path / "pathmnist.npz", a=np.zeros(3))
    with pytest.raises(SwysError, match="no MedMNIST file"):
        load_dataset("pathmnist", root=tmp_path)


def test_download_checks_md5_and_leaves_nothing_half_written(no_home, server, monkeypatch, drawn_data_dir):
    (address, handler), content = server, (drawn_data_dir / "bloodmnist.npz").read_bytes()
    monkeypatch.setitem(INFO["bloodmnist"], "url", f"{address}/bloodmnist.npz")
    monkeypatch.setitem(INFO["bloodmnist"], "MD5", "0" * 32)
    with pytest.raises(SwysError, match="no data for 'bloodmnist'.*hash"):
        load_dataset("bloodmnist")
    assert handler.tries == 2
    assert list((no_home / ".medmnist").iterdir()) == []
    monkeypatch.setitem(INFO["bloodmnist"], "MD5", hashlib.md5(content).hexdigest())
    assert "downloaded" in load_dataset("bloodmnist").info.source
    assert (no_home / ".medmnist" / "bloodmnist.npz").read_bytes() == content
    assert "real file" in load_dataset("bloodmnist", download=False).info.source  # now it is there


def test_no_network_is_one_line_with_a_way_out(no_home, monkeypatch):
    monkeypatch.setitem(INFO["bloodmnist"], "url", "http://127.0.0.1:9/none.npz")
    with pytest.raises(SwysError, match="Connection refused.*SWYS_DATA_DIR") as caught:
        load_dataset("bloodmnist")
    assert "\n" not in str(caught.value)


def test_large_arrays_are_memory_mapped(tmp_path, drawn_data_dir, monkeypatch):
    path = tmp_path / "bloodmnist_224.npz"
    path.write_bytes((drawn_data_dir / "bloodmnist_224.npz").read_bytes())
    loaded = load_dataset("bloodmnist", size=224, root=tmp_path)
    monkeypatch.setattr(data_module, "MEMORY_LIMIT", 1000)
    mapped = load_dataset("bloodmnist", size=224, root=tmp_path)
    assert isinstance(mapped.train.images, np.memmap) and not isinstance(loaded.train.images, np.memmap)
    np.testing.assert_array_equal(mapped.train.images, loaded.train.images)
    assert to_model_input(mapped.train.images[:2], 224).shape == (2, 3, 224, 224)
