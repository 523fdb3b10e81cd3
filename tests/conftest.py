"""Shared by all tests: the smoke profile, and images drawn here: no network, no data is needed."""

import multiprocessing
import os
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest

os.environ["SWYS_PROFILE"] = "smoke"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the models are small
os.environ.pop("SWYS_DATASET", None)
matplotlib.use("agg")

DRAWN_PREFIX = "swys-drawn-"
SLOW_FILES = (  # `make check` leaves them out
    "test_cli",
    "test_faults",
    "test_hostile",
    "test_hostile_compare",
    "test_hostile_data",
    "test_onnx_export",
    "test_plots",
    "test_reference",
)


def real_data_folder() -> str:
    """The absolute folder of real data; empty without one.

    The workers of xdist inherit the folder of drawn images, which is none. The path is absolute
    because notebooks run in folders of their own.
    """
    folder = os.environ.get("SWYS_DATA_DIR", "")
    if not folder or DRAWN_PREFIX in folder:
        return ""
    return os.path.abspath(folder)


REAL_DATA_DIR = real_data_folder()
if REAL_DATA_DIR:
    os.environ["SWYS_DATA_DIR"] = REAL_DATA_DIR

DRAWN = {  # name: (number of classes, colour, images in train / val / test)
    "pneumoniamnist": (2, False, (256, 64, 128)),
    "bloodmnist": (8, True, (256, 64, 128)),
    "pathmnist": (9, True, (256, 64, 128)),
    "retinamnist": (5, True, (128, 32, 64)),  # ordinal: the blob moves from left to right
    "chestmnist": (14, False, (128, 32, 64)),  # multi-label: one blob for each label that is set
}


def draw(labels: np.ndarray, colour: bool, rng: np.random.Generator, size: int = 28) -> np.ndarray:
    """Noise, and a blob for each class that a row of the labels sets: its place and hue tell it.

    Returns uint8 (N, size, size), in colour (N, size, size, 3).
    """
    count, classes = labels.shape
    y, x = np.mgrid[0:size, 0:size] / size
    centre_x = (np.arange(classes) + 0.5) / classes
    centre_y = 0.3 + 0.4 * (np.arange(classes) % 2)
    distance_x = x - centre_x[:, None, None]
    distance_y = y - centre_y[:, None, None]
    blobs = np.exp(-(distance_x**2 + distance_y**2) / 0.01)
    noise = rng.standard_normal((count, size, size))
    images = 60 + 12 * noise + 130 * np.einsum("nc,chw->nhw", labels, blobs)
    if colour:
        phases = centre_x[:, None] + np.array([0, 1 / 3, 2 / 3])
        hues = 0.6 + 0.4 * np.cos(2 * np.pi * phases)
        images = images[..., None] * (labels @ hues)[:, None, None, :]
    return images.clip(0, 255).astype(np.uint8)


def draw_datasets(folder: Path) -> Path:
    """Write small files in MedMNIST's layout for all of DRAWN, and one at 224 px."""
    rng = np.random.default_rng(0)
    for name, (classes, colour, counts) in DRAWN.items():
        write_npz(folder / f"{name}.npz", name, classes, colour, counts, 28, rng)
    write_npz(folder / "bloodmnist_224.npz", "bloodmnist", 8, True, (16, 8, 8), 224, rng)
    return folder


def write_npz(path, name, classes, colour, counts, size, rng) -> None:
    """Draw the splits of one data set; ``counts`` are the images in train, val and test."""
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts):
        if name == "chestmnist":
            stored = (rng.random((count, classes)) < 0.2).astype(np.uint8)
            stored[0] = 1  # every label occurs with both values in every split
            stored[1] = 0
            labels = stored
        else:
            index = rng.permutation(np.arange(count) % classes)
            stored = index[:, None].astype(np.uint8)
            labels = np.eye(classes)[index]
        arrays[f"{split}_images"] = draw(labels, colour, rng, size)
        arrays[f"{split}_labels"] = stored
    np.savez_compressed(path, **arrays)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SLOW_FILES:
            item.add_marker(pytest.mark.slow)


def pytest_configure(config):
    if REAL_DATA_DIR:
        return
    # The notebooks (nbval) inherit the environment: they get drawn images.
    folder = tempfile.TemporaryDirectory(prefix=DRAWN_PREFIX)
    config.add_cleanup(folder.cleanup)
    os.environ["SWYS_DATA_DIR"] = str(draw_datasets(Path(folder.name)))


@pytest.fixture
def faults(request):
    """Call it with what was tried, how often it was survived; `make faults` prints the table."""
    table = request.config.__dict__.setdefault("faults_survived", {})

    def survived(what: str, times: int) -> None:
        table[what] = table.get(what, 0) + times

    return survived


def pytest_terminal_summary(terminalreporter, config):
    table = getattr(config, "faults_survived", {})
    if table and config.getoption("verbose") >= 0:
        terminalreporter.section("faults tried and survived")
        for what, times in sorted(table.items()):
            terminalreporter.write_line(f"{times:6}  {what}")


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder with real .npz files; the test is skipped where there is none."""
    folder = Path(REAL_DATA_DIR)
    if not REAL_DATA_DIR or not (folder / "pneumoniamnist.npz").is_file():
        pytest.skip("needs real data: SWYS_DATA_DIR with pneumoniamnist.npz")
    return folder


@pytest.fixture(scope="session")
def drawn_data_dir(tmp_path_factory) -> Path:
    """A folder of small drawn .npz files for the names in DRAWN: a class is where its blob is."""
    return draw_datasets(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def at_once() -> Callable[..., list[int]]:
    """``at_once(function, *arguments)``: a process for each tuple of arguments; the exit codes."""
    pytest.importorskip("resource")  # Windows has none, and no forkserver and no SIGKILL
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["swys_utils.distillation"])

    def run(function: Callable, *arguments: tuple) -> list[int]:
        processes = [context.Process(target=function, args=each) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [process.exitcode for process in processes]

    return run


@pytest.fixture
def environment(tmp_path) -> Callable[..., Path]:
    """``environment(*packages)``: the Python of a new environment with these packages.

    It also has all packages of this one, except ``swys_utils``.
    """

    def make(*packages: str) -> Path:
        folder = tmp_path / "env"
        venv.create(folder, with_pip=False)
        (site_packages,) = folder.glob("lib/python*/site-packages")
        # Python does not read the .pth files of a folder that is named in a .pth file.
        (site_packages / "others.pth").write_text(sysconfig.get_path("purelib"))
        python = folder / "bin/python"
        install = [python, "-m", "pip", "install", "-q", *packages]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode and "connection broken" in done.stderr:
            pytest.skip("no package index to take them from")
        assert done.returncode == 0, done.stderr
        return python

    return make


@pytest.fixture(autouse=True, scope="session")
def _locks_of_studies_in_a_folder_of_their_own(tmp_path_factory):
    """Two test runs at once must not wait for each other, nor for a study."""
    from swys_studies import planted, result_files, runs

    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for module in (planted, result_files, runs):
            patch.setattr(module, "RUNS", folder)
        yield
