"""Servers that misbehave, downloads at once, a full disk, odd data; and every set at every size."""

import contextlib
import hashlib
import http.server
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from conftest import write_npz
from medmnist import INFO
from small import RECIPE, SMALL, objective, some, vit

from swys_utils import image_files, resume, training
from swys_utils.config import SwysError, replacing
from swys_utils.data import NAMES, SIZES, Dataset, load_dataset, to_model_input
from swys_utils.gradcam import heatmaps
from swys_utils.metrics import point_scores
from swys_utils.models import save_checkpoint, weights_digest
from swys_utils.recipe import SupervisedObjective


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``content``, and misbehaves as the first part of the path says: ``/<fault>/...``.

    ``requested`` are the faults so far. Where bytes drip, they come at some 5 kB a second.
    """

    protocol_version = "HTTP/1.1"
    content = b""
    requested: list[str] = []

    def handle(self):
        # A client that gives up is what some faults are for. A traceback of this thread would
        # stand in the output of whichever test runs by then.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self):  # noqa: N802 (the name that http.server calls)
        fault = self.path.split("/")[1]
        self.requested.append(fault)
        body = self.body(fault)
        self.send_response(self.status(fault))
        self.send_header("Location", self.location(fault))
        if fault != "trickles":
            length = "abc" if fault == "length" else str(len(body))
            self.send_header("Content-Length", length)
        self.end_headers()
        if fault in ("stalls", "truncates"):
            self.close_connection = True
            body = body[: len(body) // 2]
        self.send_body(body, pause=0.05 if fault in ("drips", "trickles") else 0)
        if fault == "stalls":
            time.sleep(2)

    def status(self, fault: str) -> int:
        first = len(self.requested) == 1
        if fault == "always503" or (fault == "recovers" and first):
            return 503
        return 302 if fault in ("redirects", "circles") else 200

    def location(self, fault: str) -> str:
        return "/fine/bloodmnist.npz" if fault == "redirects" else self.path

    def body(self, fault: str) -> bytes:
        if fault == "html":
            return b"<html>Sign in</html>"
        if fault == "corrupts":
            return self.content[:-1] + b"?"
        if fault in ("redirects", "circles"):
            return b""
        return self.content

    def send_body(self, body: bytes, pause: float) -> None:
        for start in range(0, len(body), 256):
            self.wfile.write(body[start : start + 256])
            time.sleep(pause)

    def log_message(self, *_):
        """Say nothing: the terminal belongs to the tests."""


@pytest.fixture
def address(drawn_data_dir, tmp_path, monkeypatch):
    """Of a server in place of the data set's host; and an empty home."""
    Server.requested = []
    Server.content = (drawn_data_dir / "bloodmnist.npz").read_bytes()
    md5 = hashlib.md5(Server.content).hexdigest()
    monkeypatch.setitem(INFO["bloodmnist"], "MD5", md5)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SWYS_DATA_DIR", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def serve(address, monkeypatch):
    """``serve(fault)``: the data set's address is one where the server misbehaves so."""

    def set_address(fault: str, host: str = address) -> None:
        monkeypatch.setitem(INFO["bloodmnist"], "url", f"{host}/{fault}/bloodmnist.npz")

    return set_address


@pytest.fixture
def impatient(monkeypatch):
    """Downloads that wait a second only, and that call 5 kB a second slow."""
    monkeypatch.setattr(image_files, "TIMEOUT", 1)
    monkeypatch.setattr(image_files, "LOWEST_SPEED", 100_000)


@pytest.mark.parametrize("fault", ["recovers", "redirects", "fine"])
def test_a_download_gets_right(serve, tmp_path, fault, faults):
    serve(fault)
    assert load_dataset("bloodmnist").info.source == "downloaded bloodmnist.npz"
    (path,) = (tmp_path / ".medmnist").iterdir()
    assert path.name == "bloodmnist.npz"
    assert path.read_bytes() == Server.content
    faults("server: wrong once, then right", 1)


def test_a_download_is_made_once(serve):
    serve("fine")
    load_dataset("bloodmnist")
    again = load_dataset("bloodmnist")
    assert again.info.source == "real file bloodmnist.npz in ~/.medmnist"
    assert Server.requested == ["fine"]


def test_a_download_is_read_in_large_pieces(serve, monkeypatch):
    sizes = []
    read = requests.Response.iter_content

    def noting(response, chunk_size, **options):
        sizes.append(chunk_size)
        return read(response, chunk_size, **options)

    monkeypatch.setattr(requests.Response, "iter_content", noting)
    serve("fine")
    load_dataset("bloodmnist")
    assert max(sizes) >= 4096


def test_at_the_lowest_speed_a_chunk_arrives_before_the_timeout():
    assert image_files.CHUNK <= image_files.LOWEST_SPEED * image_files.TIMEOUT / 2


WRONG_TWICE = [
    "drips",
    "trickles",
    "truncates",
    "corrupts",
    "stalls",
    "always503",
    "html",
    "length",
]


@pytest.mark.parametrize("fault", [*WRONG_TWICE, "circles"])
def test_a_download_that_stays_wrong_is_one_line(serve, impatient, tmp_path, fault, faults):
    serve(fault)
    with pytest.raises(SwysError, match="no data for 'bloodmnist'.*set SWYS_DATA_DIR") as caught:
        load_dataset("bloodmnist")
    assert "127.0.0.1" in str(caught.value)
    assert "\n" not in str(caught.value)
    faults("server: wrong for good, one line", 1)


@pytest.mark.parametrize("fault", ["truncates", "corrupts", "html"])
def test_a_download_that_stays_wrong_leaves_no_file(serve, impatient, tmp_path, fault):
    serve(fault)
    with pytest.raises(SwysError):
        load_dataset("bloodmnist")
    assert list((tmp_path / ".medmnist").iterdir()) == []


@pytest.mark.parametrize("fault", ["corrupts", "always503", "length"])
def test_a_download_is_tried_twice(serve, impatient, fault):
    serve(fault)
    with pytest.raises(SwysError):
        load_dataset("bloodmnist")
    assert len(Server.requested) == 2


def test_a_server_that_is_too_slow_is_named_so(serve, impatient):
    serve("drips")
    with pytest.raises(SwysError, match=r"only \d+ bytes in \d s"):
        load_dataset("bloodmnist")


def test_a_server_that_is_not_there_is_one_line(serve, impatient):
    serve("nobody", host="http://127.0.0.1:9")
    with pytest.raises(SwysError, match="no data for 'bloodmnist'.*127.0.0.1.*set SWYS_DATA_DIR"):
        load_dataset("bloodmnist")


def test_offline_the_default_set_says_one_line_without_a_path(
    monkeypatch, impatient, capfd, tmp_path
):
    monkeypatch.delenv("SWYS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))  # medmnist's own folder is there
    monkeypatch.setitem(
        INFO["pneumoniamnist"],
        "url",
        "http://127.0.0.1:9/pneumoniamnist.npz",
    )
    assert load_dataset().info.synthetic
    captured = capfd.readouterr()
    (line,) = (captured.out + captured.err).splitlines()
    assert "no connection" in line
    assert ".medmnist" not in line


def test_four_downloads_at_once_leave_one_good_file(at_once, address, tmp_path, faults):
    target = tmp_path / "new" / "file.npz"
    download = (f"{address}/fine/file.npz", INFO["bloodmnist"]["MD5"], target)
    assert at_once(image_files.download_file, *[download] * 4) == [0] * 4
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == Server.content
    faults("four downloads of one file at once", 4)


def write_letters(path: Path, letter: str) -> None:
    for _ in range(20):
        with replacing(path) as part, open(part, "w") as file:
            for _ in range(1000):
                file.write(letter)
                file.flush()


def test_of_two_processes_that_write_one_path_one_file_is_whole(at_once, tmp_path, faults):
    path = tmp_path / "file.txt"
    assert at_once(write_letters, (path, "a"), (path, "b")) == [0, 0]
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]
    faults("two processes write one file at once", 2)


def fill_the_disk(folder: Path) -> None:
    """Try to save as on a full disk: no file of this process can grow beyond 64 kB."""
    resource = pytest.importorskip("resource")
    model = vit()
    changed = vit(seed=1)
    save_checkpoint(model, folder / "m", {"model": "vit_tiny"}, "fp32")
    optimizer = torch.optim.AdamW(model.parameters())
    state = resume.TrainingState(
        folder / "state.pt",
        model,
        SupervisedObjective(),
        optimizer,
        {},
    )
    before = contents(folder)
    assert len(before) == 3
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    for path in (folder / "m", folder / "x.safetensors"):
        with pytest.raises(SwysError, match="cannot write"):
            save_checkpoint(changed, path, {"model": "vit_tiny"})
    with pytest.raises(SwysError, match="cannot write"):
        state.save(now=True)
    assert contents(folder) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_on_a_full_disk_the_old_files_stay(at_once, tmp_path, faults):
    assert at_once(fill_the_disk, (tmp_path,)) == [0]
    faults("no room left while saving: the old file stays", 3)


@pytest.fixture(scope="module")
def grey(drawn_data_dir) -> Dataset:
    """48 train, 16 val, 32 test images of two classes."""
    return some(load_dataset(root=drawn_data_dir))


@pytest.fixture
def threads():
    """``threads(n)`` sets torch's number of threads until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_seed_gives_the_same_bits(grey, threads, count, faults):
    threads(count)
    digests = []
    for _ in range(2):
        model = training.build("vit_tiny", grey, RECIPE, 0, **SMALL)
        trained = training.fit(model, grey, RECIPE).model
        digests.append(weights_digest(trained))
    assert digests[0] == digests[1]
    faults("the same seed twice: the same bits", 1)


def only_first_class(split):
    return split.take(split.labels == 0)


ODD_DATA = {
    "one image": lambda data: replace(data, train=data.train.sample(1)),
    "less than a batch": lambda data: replace(data, train=data.train.sample(5)),
    "a last batch of one": lambda data: replace(data, train=data.train.sample(33)),
    "a class missing in train": lambda data: replace(data, train=only_first_class(data.train)),
    "a class missing in val": lambda data: replace(data, val=only_first_class(data.val)),
}


@pytest.mark.parametrize("change", ODD_DATA.values(), ids=ODD_DATA)
def test_odd_data_trains(grey, change, faults):
    odd = change(grey)
    recipe = replace(RECIPE, epochs=1, batch_size=32)
    model = training.build("vit_tiny", odd, recipe, 0, **SMALL)
    (row,) = training.fit(model, odd, recipe).history
    assert np.isfinite(row["train_loss"])
    assert 0 <= row["val_accuracy"] <= 1
    faults("odd data: trains", 1)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_every_set_at_every_size(name, size, tmp_path, faults):
    facts = INFO[name]
    classes = len(facts["label"])
    colour = facts["n_channels"] == 3
    file_name = f"{name}.npz" if size == 28 else f"{name}_{size}.npz"
    rng = np.random.default_rng(0)
    write_npz(tmp_path / file_name, name, classes, colour, (16, 16, 16), size, rng)
    data = load_dataset(name, size, tmp_path)
    recipe = replace(RECIPE, epochs=1)
    untrained = training.build("vit_tiny", data, recipe, 0, **SMALL)
    model = training.fit(untrained, data, recipe).model

    logits = training.predict(model, data.test.images)
    scores = point_scores(logits, data.test.labels, data.info.task)
    assert 0 <= scores["accuracy"] <= 1

    last_class = torch.tensor([classes - 1] * 16)  # one label alone, also of several
    maps = heatmaps(model, data.test.images, targets=last_class)
    assert maps.shape == (16, 2, 2)
    assert np.isfinite(maps).all()

    for kind in ("answers", "maps"):
        student = training.build("vit_tiny", data, recipe, 1, **SMALL)
        loss = objective(kind, student, model, data.info.multi_label)
        run = training.fit(student, data, recipe, loss)
        assert np.isfinite(run.history[0]["train_loss"])
    faults("one of 12 sets x 4 sizes: train, score, explain, distil twice", 1)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int64])
def test_a_file_with_images_of_another_type_is_refused(drawn_data_dir, tmp_path, kind, faults):
    arrays = dict(np.load(drawn_data_dir / "pneumoniamnist.npz"))
    arrays["train_images"] = arrays["train_images"].astype(kind)
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    with pytest.raises(SwysError, match="is not pneumoniamnist at 28 px"):
        load_dataset(root=tmp_path)
    faults("images of another type: refused", 1)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int64])
def test_model_input_of_another_type_is_refused(kind):
    images = np.zeros((2, 28, 28), kind)
    with pytest.raises(SwysError, match="give uint8"):
        to_model_input(images)
