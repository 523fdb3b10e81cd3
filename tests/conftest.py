"""Shared by all tests: the smoke profile, and images drawn here, so that no network and no data is needed."""

import multiprocessing
import os
import subprocess
import sysconfig
import tempfile
import venv
from pathlib import Path

import matplotlib
import numpy as np
import pytest

os.environ["SWYS_PROFILE"] = "smoke"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the models are small
os.environ.pop("SWYS_DATASET", None)
matplotlib.use("agg")
REAL_DATA_DIR = (
    "" if "swys-drawn-" in (given := os.environ.get("SWYS_DATA_DIR", "")) else given
)  # workers
if REAL_DATA_DIR:  # the notebooks run in another folder
    REAL_DATA_DIR = os.environ["SWYS_DATA_DIR"] = os.path.abspath(REAL_DATA_DIR)

DRAWN = {  # name: (number of classes, colour, images in train / val / test)
    "pneumoniamnist": (2, False, (256, 64, 128)),
    "bloodmnist": (8, True, (256, 64, 128)),
    "pathmnist": (9, True, (256, 64, 128)),
    "retinamnist": (5, True, (128, 32, 64)),  # ordinal: the blob moves from left to right
    "chestmnist": (14, False, (128, 32, 64)),  # multi-label: one blob for each label that is set
}


def draw(labels: np.ndarray, colour: bool, rng: np.random.Generator, size: int = 28) -> np.ndarray:
    """uint8 (N, size, size[, 3]): noise, and a blob in its place and hue for each class that a row sets."""
    n, classes = labels.shape
    y, x = np.mgrid[0:size, 0:size] / size
    centre_x, centre_y = (np.arange(classes) + 0.5) / classes, 0.3 + 0.4 * (np.arange(classes) % 2)
    blobs = np.exp(
        -((x - centre_x[:, None, None]) ** 2 + (y - centre_y[:, None, None]) ** 2) / 0.01
    )
    images = (
        60
        + 12 * rng.standard_normal((n, size, size))
        + 130 * np.einsum("nc,chw->nhw", labels, blobs)
    )
    if colour:
        hues = 0.6 + 0.4 * np.cos(2 * np.pi * (centre_x[:, None] + np.array([0, 1 / 3, 2 / 3])))
        images = images[..., None] * (labels @ hues)[:, None, None, :]
    return images.clip(0, 255).astype(np.uint8)


def draw_datasets(folder: Path) -> Path:
    """Write small files with MedMNIST's names and layout for all of DRAWN (and bloodmnist at 224 px)."""
    rng = np.random.default_rng(0)
    for name, (classes, colour, counts) in DRAWN.items():
        write_npz(folder / f"{name}.npz", name, classes, colour, counts, 28, rng)
    write_npz(folder / "bloodmnist_224.npz", "bloodmnist", 8, True, (16, 8, 8), 224, rng)
    return folder


def write_npz(path, name, classes, colour, counts, size, rng) -> None:
    arrays = {}
    for split, n in zip(("train", "val", "test"), counts):
        if name == "chestmnist":
            labels = stored = (rng.random((n, classes)) < 0.2).astype(np.uint8)
            labels[0], labels[1] = 1, 0  # every label occurs with both values in every split
        else:
            index = rng.permutation(np.arange(n) % classes)
            labels, stored = np.eye(classes)[index], index[:, None].astype(np.uint8)
        arrays |= {f"{split}_images": draw(labels, colour, rng, size), f"{split}_labels": stored}
    np.savez_compressed(path, **arrays)


def pytest_collection_modifyitems(items):
    for item in items:  # `make check` leaves these files out
        if item.path.stem in ("test_cli", "test_export", "test_plots", "test_reference"):
            item.add_marker(pytest.mark.slow)


def pytest_configure(config):
    if not REAL_DATA_DIR:  # the notebooks (nbval) inherit the environment: they get drawn images
        folder = tempfile.TemporaryDirectory(prefix="swys-drawn-")
        config.add_cleanup(folder.cleanup)
        os.environ["SWYS_DATA_DIR"] = str(draw_datasets(Path(folder.name)))


@pytest.fixture
def faults(request):
    """Call it with what was tried and how often it was survived; `make faults` prints the table."""
    table = request.config.__dict__.setdefault("faults_survived", {})
    return lambda what, times: table.update({what: table.get(what, 0) + times})


def pytest_terminal_summary(terminalreporter, config):
    table = getattr(config, "faults_survived", {})
    if table and config.getoption("verbose") >= 0:
        terminalreporter.section("faults tried and survived")
        for what, times in sorted(table.items()):
            terminalreporter.write_line(f"{times:6}  {what}")


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder with real .npz files; the test is skipped where there is none."""
    if not REAL_DATA_DIR or not (Path(REAL_DATA_DIR) / "pneumoniamnist.npz").is_file():
        pytest.skip("needs real data: SWYS_DATA_DIR with pneumoniamnist.npz")
    return Path(REAL_DATA_DIR)


@pytest.fixture(scope="session")
def drawn_data_dir(tmp_path_factory) -> Path:
    """A folder of small drawn .npz files for the names in DRAWN: a class is where its blob is."""
    return draw_datasets(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def at_once():
    """``at_once(function, *arguments)`` calls it in one process for each tuple; returns their exit codes."""
    pytest.importorskip("resource")  # Windows has none, and no forkserver and no SIGKILL
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["swys_utils.distillation"])

    def run(function, *arguments: tuple) -> list[int]:
        processes = [context.Process(target=function, args=each) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [process.exitcode for process in processes]

    return run


@pytest.fixture
def environment(tmp_path):
    """``environment(*packages)``: the Python of a new one, with all of this one's but ``swys_utils``, too."""

    def make(*packages: str) -> Path:
        venv.create(tmp_path / "env", with_pip=False)
        python, (site,) = (
            tmp_path / "env/bin/python",
            (tmp_path / "env").glob("lib/python*/site-packages"),
        )
        (site / "others.pth").write_text(
            sysconfig.get_path("purelib")
        )  # its own .pth files are not read
        if subprocess.run([python, "-m", "pip", "install", "-q", *packages]).returncode:
            pytest.skip("no package index to take them from")
        return python

    return make
