"""What goes wrong while it runs: kills, servers that misbehave, a full disk, two downloads at once."""

from __future__ import annotations

import hashlib
import http.server
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from swys_utils import data as data_module
from swys_utils import resume, training
from swys_utils.config import SwysError
from swys_utils.data import Dataset, load_dataset
from swys_utils.distillation import ExplanationDistiller, FeatureDistiller, SoftTargets, Teacher
from swys_utils.models import create_model, load_checkpoint, save_checkpoint, weights_digest
from swys_utils.recipe import Recipe, SupervisedObjective

resource = pytest.importorskip("resource")  # not on Windows
SMALL = {"patch_size": 14, "depth": 2, "embed_dim": 48, "num_heads": 3}
RECIPE = Recipe(epochs=6, batch_size=16, warmup_epochs=1, patch_drop=0.5, views=2)


@pytest.fixture(scope="module")
def processes():
    """Starts Python processes that have the libraries loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["swys_utils.training", "swys_utils.distillation"])
    return context


def train(kind: str, folder: Path, root: Path, steps_to_live: int, killed_in_save: bool) -> None:
    """One run, to its end or until it is killed after so many steps or in a save; every epoch is saved."""
    torch.set_num_threads(1)
    resume.SAVE_SECONDS = 0
    calls = iter(range(1, 1000))
    watch = lambda *_: next(calls) == steps_to_live and os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    if killed_in_save:
        torch.save = lambda state, path: (Path(path).write_bytes(b"x" * 99), os.kill(os.getpid(), 9))
    data = load_dataset(root=root)
    data = Dataset(data.train.head(96), data.val.head(16), data.test.head(32), data.info)
    recipe = replace(RECIPE, patch_drop=0.0) if kind == "features" else RECIPE
    teacher = Teacher(training.build("vit_tiny", data, recipe, 1, **SMALL))
    student, labels = training.build("vit_tiny", data, recipe, 0, **SMALL), SupervisedObjective()
    torch.manual_seed(3)
    objective = {
        "labels": lambda: labels,
        "soft": lambda: SoftTargets(teacher, labels),
        "features": lambda: FeatureDistiller(teacher, labels, student),
        "explain": lambda: ExplanationDistiller(teacher, labels),
    }[kind]()
    path = folder / "state.pt"
    run = training.fit(student, data, recipe, objective, device="cpu", state_path=path, watch=watch)
    objective.teacher = None
    projector = list(objective.state_dict().values())
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    end = {"digests": [weights_digest(run.model), weights_digest(run.chosen())], "history": history}
    torch.save(end | {"projector": projector}, folder / "end.pt")


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(processes, drawn_data_dir, tmp_path, faults):
    rng, kills = np.random.default_rng(0), {"in training": 0, "in a save": 0}
    kinds = ("labels", "soft", "features", "explain")
    for kind in kinds:
        ends = []
        for name in ("straight", "killed"):
            folder = tmp_path / kind / name
            folder.mkdir(parents=True)
            for attempt in range(7):  # an epoch has six steps: four kills leave at most four epochs done
                in_save = name == "killed" and attempt in (1, 3)
                steps = int(rng.integers(1, 9)) if name == "killed" and attempt < 6 and not in_save else 0
                process = processes.Process(target=train, args=(kind, folder, drawn_data_dir, steps, in_save))
                process.start()
                process.join()
                if process.exitcode != -signal.SIGKILL:
                    break
                kills["in a save" if in_save else "in training"] += 1
            assert process.exitcode == 0
            end = torch.load(folder / "end.pt", weights_only=True)
            ends.append(end)
        straight, killed = ends
        assert straight["digests"] == killed["digests"] and straight["history"] == killed["history"], kind
        assert all(map(torch.equal, straight["projector"], killed["projector"]))
    assert kills == {"in training": 16, "in a save": 8}
    for when, count in kills.items():
        faults(f"kill -9 {when}, then resumed: the same bits", count)


SERVED = b"".join(bytes([i % 251]) * 997 for i in range(300))


class Server(http.server.BaseHTTPRequestHandler):
    """Answers by the first part of the path: how it misbehaves; ``/<fault>/...``."""

    asked: dict[str, int] = {}
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        fault = self.path.split("/")[1]
        first = Server.asked.setdefault(fault, 0) == 0
        Server.asked[fault] += 1
        if fault == "always503" or (fault == "recovers" and first):
            return self.send_error(503)
        if fault in ("redirects", "circles"):
            self.send_response(302)
            self.send_header("Location", "/fine/file.npz" if fault == "redirects" else self.path)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = b"<html>Sign in</html>" if fault == "html" else SERVED
        body = SERVED[:-1] + b"?" if fault == "corrupts" else body
        self.send_response(200)
        self.send_header("Content-Length", "abc" if fault == "length" else str(len(body)))
        self.end_headers()
        if fault == "stalls" or fault == "truncates":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(2 if fault == "stalls" else 0)
            self.close_connection = True
            return None
        return self.wfile.write(body)

    def log_message(self, *args):
        """Silent."""


@pytest.fixture
def address():
    Server.asked = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


MENDED = ("recovers", "redirects", "fine")
FAULTS = MENDED + ("truncates", "corrupts", "stalls", "always503", "html", "length", "circles")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download_is_right_or_not_there(address, tmp_path, monkeypatch, fault, faults):
    monkeypatch.setattr(data_module, "TIMEOUT", 1)
    target, md5 = tmp_path / "home" / "file.npz", hashlib.md5(SERVED).hexdigest()
    if fault in MENDED:
        assert data_module._download(f"{address}/{fault}/file.npz", md5, target).read_bytes() == SERVED
    else:
        with pytest.raises(OSError, match="127.0.0.1") as caught:
            data_module._download(f"{address}/{fault}/file.npz", md5, target)
        assert "\n" not in str(caught.value) and not target.exists()
        assert fault == "circles" or Server.asked[fault] == 2  # tries are counted
    assert [path for path in target.parent.iterdir() if path != target] == []
    faults("server: " + ("wrong once, then right" if fault in MENDED else "wrong for good, one line"), 1)


def fetch(url: str, md5: str, target: Path) -> None:
    data_module._download(url, md5, target)


def test_four_downloads_at_once_leave_one_good_file(processes, address, tmp_path, faults):
    arguments = (f"{address}/fine/file.npz", hashlib.md5(SERVED).hexdigest(), tmp_path / "file.npz")
    started = [processes.Process(target=fetch, args=arguments) for _ in range(4)]
    [process.start() for process in started]
    [process.join() for process in started]
    assert [process.exitcode for process in started] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["file.npz"]
    assert (tmp_path / "file.npz").read_bytes() == SERVED
    faults("four downloads of one file at once", 4)


def unpack(root: Path) -> None:
    data_module.MEMORY_LIMIT = 1000
    assert len(load_dataset("bloodmnist", root=root).train) == 256


def test_unpackings_at_once_and_one_killed(processes, drawn_data_dir, tmp_path, faults):
    (tmp_path / "bloodmnist.npz").write_bytes((drawn_data_dir / "bloodmnist.npz").read_bytes())
    started = [processes.Process(target=unpack, args=(tmp_path,)) for _ in range(5)]
    [process.start() for process in started]
    started.pop(0).kill()
    [process.join() for process in started]
    assert [process.exitcode for process in started] == [0] * 4
    unpack(tmp_path)
    faults("four unpackings of one file at once, and one killed", 5)


def fill_the_disk(folder: Path) -> None:
    """As on a full disk: no file of this process can grow beyond 64 kB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
    torch.manual_seed(1)
    for path in (folder / "m", folder / "x.safetensors"):
        with pytest.raises(SwysError, match="cannot write"):
            save_checkpoint(create_model("vit_tiny", 2, **SMALL), path, {"model": "vit_tiny"})
    state = resume.Run.__new__(resume.Run)
    state.path, state.facts, state.best, state.history, state.saved = folder / "state.pt", "{}", {}, [], 0
    state.model = state.objective = create_model("vit_tiny", 2, **SMALL)
    state.optimizer = torch.optim.AdamW(state.model.parameters())
    with pytest.raises(SwysError, match="cannot write"):
        state.save(now=True)


def test_a_full_disk_is_one_line_and_the_old_files_stay(processes, tmp_path, faults):
    torch.manual_seed(0)
    kwargs = {key: SMALL[key] for key in ("depth", "embed_dim", "num_heads")}
    model = create_model("vit_tiny", 2, **SMALL).eval()
    save_checkpoint(model, tmp_path / "m", {"model": "vit_tiny", "model_kwargs": kwargs}, "fp32")
    (tmp_path / "state.pt").write_bytes(b"old")
    process = processes.Process(target=fill_the_disk, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert weights_digest(load_checkpoint(tmp_path / "m")[0]) == weights_digest(model)
    assert (tmp_path / "state.pt").read_bytes() == b"old"
    faults("no room left while saving: the old file stays", 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(drawn_data_dir, threads, faults):
    data = load_dataset(root=drawn_data_dir)
    data = Dataset(data.train.head(48), data.val.head(16), data.test.head(16), data.info)
    recipe, before = replace(RECIPE, epochs=2), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runs = [
            training.fit(training.build("vit_tiny", data, recipe, 0, **SMALL), data, recipe) for _ in "ab"
        ]
    finally:
        torch.set_num_threads(before)
    assert weights_digest(runs[0].model) == weights_digest(runs[1].model)
    faults("the same seed twice: the same bits", 1)


ODD = {
    "one image": lambda d: replace(d, train=d.train.take(np.array([0]))),
    "a class missing in training": lambda d: replace(d, train=d.train.take(d.train.labels == 0)),
    "a class missing in validation": lambda d: replace(d, val=d.val.take(d.val.labels == 0)),
    "a last batch of one": lambda d: replace(d, train=d.train.head(33)),
    "fewer images than a batch": lambda d: replace(d, train=d.train.head(5)),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_data_trains(drawn_data_dir, what, faults):
    data = load_dataset(root=drawn_data_dir)
    data = ODD[what](Dataset(data.train.head(64), data.val.head(16), data.test.head(16), data.info))
    run = training.fit(
        training.build("vit_tiny", data, RECIPE, 0, **SMALL), data, replace(RECIPE, epochs=1, batch_size=32)
    )
    assert np.isfinite(run.history[0]["train_loss"]) and 0 <= run.history[0]["val_accuracy"] <= 1
    faults("odd data: trains", 1)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int64])
def test_images_of_another_kind_are_refused(kind, tmp_path, faults):
    arrays = {f"{s}_images": np.zeros((4, 28, 28), kind) for s in ("train", "val", "test")}
    arrays |= {f"{s}_labels": np.array([[0], [1], [0], [1]]) for s in ("train", "val", "test")}
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    with pytest.raises(SwysError, match="is not pneumoniamnist"):
        load_dataset(root=tmp_path)
    with pytest.raises(SwysError, match="give uint8"):
        data_module.to_model_input(arrays["train_images"])
    faults("images of another type: refused", 1)
