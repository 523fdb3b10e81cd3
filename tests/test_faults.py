"""Servers that misbehave, downloads at once, a full disk, odd data; and every set at every size."""

import hashlib
import http.server
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_npz
from medmnist import INFO
from small import RECIPE, SMALL, objective, some, vit

from swys_utils import data as data_module
from swys_utils import resume, training
from swys_utils.config import SwysError
from swys_utils.data import NAMES, SIZES, load_dataset, to_model_input
from swys_utils.gradcam import heatmaps
from swys_utils.metrics import point_scores
from swys_utils.models import save_checkpoint, weights_digest
from swys_utils.recipe import SupervisedObjective


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content``, and misbehaves as the first part of the path says: ``/<fault>/...``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        fault = self.path.split("/")[1]
        self.asked.append(fault)
        broken = fault == "always503" or (fault == "recovers" and len(self.asked) == 1)
        moved = {"redirects": "/fine/bloodmnist.npz", "circles": self.path}
        other = {"html": b"<html>Sign in</html>", "corrupts": self.content[:-1] + b"?"}
        body = other.get(fault, self.content)
        self.send_response(503 if broken else 302 if fault in moved else 200)
        self.send_header("Location", moved.get(fault, self.path))
        if fault != "trickles":
            self.send_header("Content-Length", "abc" if fault == "length" else str(len(body)))
        self.end_headers()
        self.close_connection = fault in ("stalls", "truncates")
        for start in range(0, len(body) // (1 + self.close_connection), 256):
            self.wfile.write(body[start : start + 256])
            time.sleep(0.5 if fault in ("drips", "trickles") else 0)
        time.sleep(2 if fault == "stalls" else 0)


@pytest.fixture
def address(drawn_data_dir, tmp_path, monkeypatch):
    """Of a server in place of the data set's host; and an empty home."""
    Server.asked, Server.content = [], (drawn_data_dir / "bloodmnist.npz").read_bytes()
    monkeypatch.setitem(INFO["bloodmnist"], "MD5", hashlib.md5(Server.content).hexdigest())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SWYS_DATA_DIR", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("fault", ["recovers", "redirects", "fine"])
def test_a_download_gets_right_and_is_made_once(address, tmp_path, monkeypatch, fault, faults):
    monkeypatch.setitem(INFO["bloodmnist"], "url", f"{address}/{fault}/bloodmnist.npz")
    assert "downloaded" in load_dataset("bloodmnist").info.source
    (path,) = (tmp_path / ".medmnist").iterdir()
    assert path.name == "bloodmnist.npz" and path.read_bytes() == Server.content
    assert "real file" in load_dataset("bloodmnist", download=False).info.source
    data_module._Patience(disable=True).update(9)  # a bar that is switched off has no clock
    faults("server: wrong once, then right", 1)


WRONG = [
    "drips",
    "trickles",
    "truncates",
    "corrupts",
    "stalls",
    "always503",
    "html",
    "length",
    "circles",
    "nobody",
]


@pytest.mark.parametrize("fault", WRONG)
def test_a_download_that_stays_wrong_is_one_line(address, tmp_path, monkeypatch, fault, faults):
    address = "http://127.0.0.1:9" if fault == "nobody" else address
    monkeypatch.setattr(data_module, "TIMEOUT", 1)
    monkeypatch.setitem(INFO["bloodmnist"], "url", f"{address}/{fault}/bloodmnist.npz")
    with pytest.raises(
        SwysError, match="no data for 'bloodmnist'.*127.0.0.1.*set SWYS_DATA_DIR"
    ) as caught:
        load_dataset("bloodmnist")
    assert "\n" not in str(caught.value) and list((tmp_path / ".medmnist").iterdir()) == []
    if fault != "nobody":
        assert len(Server.asked) == 2 or fault == "circles"  # tries are counted
        faults("server: wrong for good, one line", 1)


def test_four_downloads_at_once_leave_one_good_file(at_once, address, tmp_path, faults):
    target = tmp_path / "new" / "file.npz"
    download = (f"{address}/fine/file.npz", INFO["bloodmnist"]["MD5"], target)
    assert at_once(data_module._download, *[download] * 4) == [0] * 4
    assert list(target.parent.iterdir()) == [target] and target.read_bytes() == Server.content
    faults("four downloads of one file at once", 4)


def fill_the_disk(folder) -> None:
    """As on a full disk: no file of this process can grow beyond 64 kB."""
    resource = pytest.importorskip("resource")
    model, changed = vit(), vit(seed=1)
    save_checkpoint(model, folder / "m", {"model": "vit_tiny"}, "fp32")
    optimizer = torch.optim.AdamW(model.parameters())
    run = resume.TrainingState(folder / "state.pt", model, SupervisedObjective(), optimizer, {})
    old = {path: path.read_bytes() for path in folder.rglob("*.*")}
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    for path in (folder / "m", folder / "x.safetensors"):
        with pytest.raises(SwysError, match="cannot write"):
            save_checkpoint(changed, path, {"model": "vit_tiny"})
    with pytest.raises(SwysError, match="cannot write"):
        run.save(now=True)
    assert (
        len(old) == 3
        and old == {p: p.read_bytes() for p in old}
        and not list(folder.glob("*.part"))
    )


def test_a_full_disk_is_one_line_and_the_old_files_stay(at_once, tmp_path, faults):
    assert at_once(fill_the_disk, (tmp_path,)) == [0]
    faults("no room left while saving: the old file stays", 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(drawn_data_dir, threads, faults):
    data, before = some(load_dataset(root=drawn_data_dir)), torch.get_num_threads()
    torch.set_num_threads(threads)
    models = [training.build("vit_tiny", data, RECIPE, 0, **SMALL) for _ in range(2)]
    one, two = (weights_digest(training.fit(model, data, RECIPE).model) for model in models)
    torch.set_num_threads(before)
    assert one == two
    faults("the same seed twice: the same bits", 1)


def test_odd_data_trains(drawn_data_dir, faults):
    data, recipe = (
        some(load_dataset(root=drawn_data_dir), train=64),
        replace(RECIPE, epochs=1, batch_size=32),
    )
    train, val = data.train, data.val
    for odd in (
        replace(data, train=train.head(1)),
        replace(data, train=train.head(5)),  # fewer images than a batch
        replace(data, train=train.head(33)),  # a last batch of one
        replace(data, train=train.take(train.labels == 0)),  # a class that is missing
        replace(data, val=val.take(val.labels == 0)),
    ):
        run = training.fit(training.build("vit_tiny", odd, recipe, 0, **SMALL), odd, recipe)
        assert (
            np.isfinite(run.history[0]["train_loss"]) and 0 <= run.history[0]["val_accuracy"] <= 1
        )
        faults("odd data: trains", 1)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_every_set_at_every_size(name, size, tmp_path, faults):
    classes, colour = len(INFO[name]["label"]), INFO[name]["n_channels"] == 3
    path = tmp_path / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    write_npz(path, name, classes, colour, (16, 16, 16), size, np.random.default_rng(0))
    data, recipe = load_dataset(name, size, tmp_path), replace(RECIPE, epochs=1)
    model = training.fit(training.build("vit_tiny", data, recipe, 0, **SMALL), data, recipe).model
    scores = point_scores(
        training.predict(model, data.test.images), data.test.labels, data.info.task
    )
    assert 0 <= scores["accuracy"] <= 1
    last_class = torch.tensor([classes - 1] * 16)  # of each label alone, where several can be true
    maps = heatmaps(model, data.test.images, targets=last_class)
    assert maps.shape == (16, 2, 2) and np.isfinite(maps).all()
    for kind in ("soft", "explain"):
        student = training.build("vit_tiny", data, recipe, 1, **SMALL)
        run = training.fit(
            student, data, recipe, objective(kind, student, model, data.info.multi_label)
        )
        assert np.isfinite(run.history[0]["train_loss"])
    faults("one of 12 sets x 4 sizes: train, score, explain, distil twice", 1)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int64])
def test_images_of_another_type_are_refused(drawn_data_dir, tmp_path, kind, faults):
    arrays = dict(np.load(drawn_data_dir / "pneumoniamnist.npz"))
    arrays["train_images"] = arrays["train_images"].astype(kind)
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    with pytest.raises(SwysError, match="is not pneumoniamnist at 28 px"):
        load_dataset(root=tmp_path)
    with pytest.raises(SwysError, match="give uint8"):
        to_model_input(arrays["train_images"])
    faults("images of another type: refused", 1)
