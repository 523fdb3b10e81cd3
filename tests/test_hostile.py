"""Files of strangers: whatever they hold, a load gives data or one line, and nothing else."""

import errno
import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from small import run_entry, vit

from swys import cli
from swys_studies.report import report
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.models import load_checkpoint, save_checkpoint

FUZZ = settings(
    max_examples=int(os.environ.get("SWYS_FUZZ", 400)),  # of each test
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def worked_or_one_line(function, *args, **kwargs) -> bool:
    """Whether ``function`` worked; any error but a SwysError of one short line fails the test."""
    try:
        function(*args, **kwargs)
    except SwysError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 700
        return False
    return True


# any JSON value, and any bytes

TELLING = [
    "../x",
    "/etc/passwd",
    "a/b",
    "model.safetensors",
    "pneumoniamnist",
    "0" * 64,
    10**9,
]
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(TELLING),
)


def lists_or_objects(inner):
    """What holds other JSON values."""
    return st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )


JSON = st.recursive(LEAF, lists_or_objects, max_leaves=6)
ODD_JSON = [
    b"[" * 10**5,
    b"{" * 999,
    b'{"runs": 3}',
    b'{"runs": [[]]}',
    b'{"a": 1}',
    b"null",
]
BYTES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(ODD_JSON),
)


# cards

CARD_FIELDS = [
    "model",
    "num_classes",
    "img_size",
    "patch_size",
    "files",
    "model_kwargs",
    "stored",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder, the card in it and its weights' bytes, with some matrices as int8."""
    folder = tmp_path_factory.mktemp("hostile") / "m"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swys_utils.models.INT8_MIN_ELEMENTS", 1000)
        card = save_checkpoint(vit(depth=1), folder, {"model": "vit_tiny"}, "int8")
    weights = (folder / "model.safetensors").read_bytes()
    return folder, card, weights


@given(field=st.sampled_from(CARD_FIELDS), value=JSON, file=JSON)
@FUZZ
def test_any_field_of_a_card(checkpoint, field, value, file, faults):
    faults("fuzz: a card with any value in any field", 1)
    folder, card, _ = checkpoint
    if field == "files" and file:
        (entry,) = card["files"]
        value = [entry | {"name": file}]
    changed = card | {field: value}
    (folder / "card.json").write_text(json.dumps(changed))
    worked_or_one_line(load_checkpoint, folder)


@given(content=BYTES)
@FUZZ
def test_any_bytes_as_a_card(checkpoint, content, faults):
    faults("fuzz: any bytes as a card", 1)
    folder, _, _ = checkpoint
    (folder / "card.json").write_bytes(content)
    assert not worked_or_one_line(load_checkpoint, folder)


def assert_refused(checkpoint, change: dict) -> None:
    """A card with this change cannot be used."""
    folder, card, _ = checkpoint
    (folder / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(SwysError, match="cannot be used"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", r"a\b", "c:x"])
def test_a_card_cannot_reach_out_of_its_folder(checkpoint, name):
    file = {"name": name, "sha256": "0" * 64}
    assert_refused(checkpoint, {"files": [file]})


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint_path": "/etc/passwd"},
        {"pretrained": True},
        {"pretrained_cfg": {"file": "x"}},
    ],
    ids=str,
)
def test_a_card_cannot_make_timm_read_files(checkpoint, options):
    assert_refused(checkpoint, {"model_kwargs": options})


@pytest.mark.parametrize(
    "change",
    [
        {"model_kwargs": {"depth": 10_000}},
        {"img_size": 10**6},
        {"num_classes": 10**9},
    ],
    ids=str,
)
def test_a_card_cannot_ask_for_a_giant(checkpoint, change):
    assert_refused(checkpoint, change)


# weights


def rewrite(folder, card: dict, weights: bytes) -> None:
    """Put weights into the folder, and a card that fits them."""
    (folder / "model.safetensors").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    entry = {"name": "model.safetensors", "sha256": digest}
    (folder / "card.json").write_text(json.dumps(card | {"files": [entry]}))


@given(
    at=st.integers(0, 5000),
    byte=st.integers(0, 255),
    cut=st.integers(0, 5000),
)
@FUZZ
def test_damaged_weights_under_a_card_that_fits_them(checkpoint, at, byte, cut, faults):
    faults("fuzz: weights damaged under a matching sha256", 1)
    folder, card, weights = checkpoint
    damaged = bytearray(weights)
    damaged[at] = byte
    shortened = damaged[: len(damaged) - cut]
    rewrite(folder, card, bytes(shortened))
    worked_or_one_line(load_checkpoint, folder)


def without_a_scale(tensors: dict) -> dict:
    """An int8 matrix has lost its scale."""
    scale = next(name for name in tensors if name.endswith(".scale"))
    return {name: tensor for name, tensor in tensors.items() if name != scale}


def not_finite(tensors: dict) -> dict:
    """One tensor is full of nan."""
    return tensors | {"pos_embed": tensors["pos_embed"] * float("nan")}


def of_another_shape(tensors: dict) -> dict:
    """The head has a class more than its weights."""
    return tensors | {"head.bias": torch.zeros(3)}


@pytest.mark.parametrize("harm", [without_a_scale, not_finite, of_another_shape])
def test_weights_that_are_no_weights(checkpoint, harm):
    folder, card, weights = checkpoint
    tensors = harm(load(weights))
    rewrite(folder, card, save(tensors))
    with pytest.raises(SwysError, match="does not fit"):
        load_checkpoint(folder)


# data files


def npz(arrays: dict) -> bytes:
    """An .npz of arrays, or of raw bytes where a value is bytes."""
    file = io.BytesIO()
    whole = {key: part for key, part in arrays.items() if not isinstance(part, bytes)}
    np.savez_compressed(file, **whole)
    with zipfile.ZipFile(file, "a") as archive:
        for key, part in arrays.items():
            if isinstance(part, bytes):
                archive.writestr(f"{key}.npy", part)
    return file.getvalue()


def header(shape: str, dtype: str = "|u1") -> bytes:
    """The start of an .npy, with no data after it."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    line = text.ljust(117).encode() + b"\n"
    length = len(line).to_bytes(2, "little")
    return b"\x93NUMPY\x01\x00" + length + line


SHAPES = [
    "(10**12,)",
    "(1000000000000,)",
    "(True, 28, 28)",
    "(-1,)",
    "()",
    "(4, 28, 28",
    f"({'9' * 20},)",
]
DTYPES = ["|O", "<M8[s]", "<c16", "|S9", "<f8", "x", "|b1", "<u2"]
VALUES = [0.9, 1 + 5j, 7, -1, object(), np.datetime64("2020-01-01")]
PARTS = [
    *[header(shape) for shape in SHAPES],
    *[header("(4, 1)", dtype) for dtype in DTYPES],
    *[np.full((4, 1), value) for value in VALUES],
    b"",
    b"x" * 200,
    np.zeros((4, 28, 28), bool),
    np.zeros((0, 28, 28), np.uint8),
    np.zeros((4, 28, 28, 3), np.uint8),
    np.zeros(4, [("a", int)]),
    np.array(3),
]
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (3, 4, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1], np.uint8)[:, None]
ARRAYS = {
    "train_images": NOISE[0],
    "train_labels": LABELS,
    "val_images": NOISE[1],
    "val_labels": LABELS,
    "test_images": NOISE[2],
    "test_labels": LABELS,
}


def write_and_load(folder, content: bytes) -> bool:
    """Whether these bytes are a data set, in the view of ``load_dataset``."""
    (folder / "pneumoniamnist.npz").write_bytes(content)
    return worked_or_one_line(load_dataset, root=folder)


@given(
    key=st.sampled_from(sorted(ARRAYS)),
    part=st.sampled_from(PARTS) | st.binary(max_size=200),
)
@FUZZ
def test_any_array_in_an_npz(tmp_path_factory, key, part, faults):
    faults("fuzz: any .npz", 1)
    content = npz(ARRAYS | {key: part})
    assert not write_and_load(tmp_path_factory.getbasetemp(), content)


@given(at=st.integers(0, 10**4), byte=st.integers(0, 255))
@FUZZ
def test_any_byte_of_an_npz(tmp_path_factory, at, byte, faults):
    faults("fuzz: any .npz", 1)
    content = bytearray(npz(ARRAYS))
    content[at % len(content)] = byte
    write_and_load(tmp_path_factory.getbasetemp(), bytes(content))


@given(length=st.integers(0, 10**4))
@FUZZ
def test_any_beginning_of_an_npz(tmp_path_factory, length, faults):
    faults("fuzz: any .npz", 1)
    content = npz(ARRAYS)
    beginning = content[: length % len(content)]
    assert not write_and_load(tmp_path_factory.getbasetemp(), beginning)


def test_a_bomb_is_not_unpacked(tmp_path):
    bomb = np.zeros((200_000, 28, 28), np.uint8)
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(npz(ARRAYS | {"train_images": bomb}))
    message = "is damaged or no MedMNIST file .*far larger unpacked"
    with pytest.raises(SwysError, match=message):
        load_dataset(root=tmp_path)


@pytest.fixture
def small_memory(monkeypatch):
    """Arrays of more than 1,000 bytes are unpacked beside the file and read from disk."""
    monkeypatch.setattr("swys_utils.data.MEMORY_LIMIT", 1000)


def test_a_swapped_file_is_unpacked_anew(tmp_path, small_memory):
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(npz(ARRAYS))
    load_dataset(root=tmp_path)
    path.write_bytes(npz(ARRAYS | {"train_images": NOISE[1]}))
    mapped = load_dataset(root=tmp_path).train.images
    assert isinstance(mapped, np.memmap)
    expected = to_model_input(NOISE[1])
    torch.testing.assert_close(to_model_input(mapped), expected, rtol=0, atol=0)


def test_a_full_disk_leaves_nothing_behind(tmp_path, small_memory, monkeypatch):
    def disk_is_full(*args):
        raise OSError(errno.ENOSPC, "No space left")

    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(npz(ARRAYS))
    monkeypatch.setattr("swys_utils.data.shutil.copyfileobj", disk_is_full)
    with pytest.raises(SwysError, match="cannot unpack"):
        load_dataset(root=tmp_path)
    assert list(tmp_path.iterdir()) == [path]


# results of studies

RUN_FIELDS = [
    "id",
    "method",
    "teacher",
    "seed",
    "device",
    "predicted",
    "val_auc",
    "last",
    "val_chosen",
    "history",
]


@pytest.fixture(scope="module")
def quick_report(drawn_data_dir):
    """``swys study report`` on drawn images, without its slow intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
        patch.setattr("swys_studies.report.accuracy_interval", lambda values: (0.0, 0.0))
        yield report


@given(field=st.sampled_from(RUN_FIELDS), value=JSON)
@FUZZ
def test_any_field_of_a_run(quick_report, tmp_path_factory, field, value, faults):
    faults("fuzz: any runs.json", 1)
    run = run_entry("vit_tiny/scratch/seed0", "01" * 64)
    path = tmp_path_factory.getbasetemp() / "runs.json"
    path.write_text(json.dumps({"runs": [run | {field: value}]}))
    worked_or_one_line(quick_report, runs=str(path))


@given(content=BYTES)
@FUZZ
def test_any_bytes_as_runs(quick_report, tmp_path_factory, content, faults):
    faults("fuzz: any runs.json", 1)
    path = tmp_path_factory.getbasetemp() / "runs.json"
    path.write_bytes(content)
    worked_or_one_line(quick_report, runs=str(path))


# command lines

COMMANDS = ["train", "distill", "evaluate", "explain", "export", "study"]
STUDIES = ["report", "ship", "reference"]
OPTIONS = [
    "--ckpt_path",
    "--dataset",
    "--size",
    "--split",
    "--images",
    "--method",
    "--gamma",
    "--json",
    "--save_path",
    "--epochs",
    "--lr",
    "--seed",
    "--model",
    "--resume",
    "--runs",
    "--list",
    "--only",
]
ARGUMENTS = [
    "pneumoniamnist",
    "bloodmnist",
    "nothing",
    "vit_tiny",
    "vit_nothing",
    "maps",
    "legrad",
    "28",
    "29",
    "-1",
    "0",
    "1e9",
    "nan",
    "4295000000",
    "test",
    "../x",
    "x.pt",
    "x.onnx",
    "/dev/null/x",
    "true",
    "[]",
    "{}",
    "null",
]
WORDS = st.one_of(
    st.text(max_size=6),
    st.sampled_from([*COMMANDS, *STUDIES, *OPTIONS, *ARGUMENTS]),
)
WORK = [
    "swys.train.fit",
    "swys.commands.heatmaps",
    "swys.commands.predict",
    "swys_studies.reference.train",
]


@pytest.fixture(scope="module")
def no_work(drawn_data_dir, tmp_path_factory):
    """What would start real work is replaced; everything before it is the command line's own."""

    def work(*args, **kwargs):
        raise SwysError("work")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
        patch.chdir(tmp_path_factory.getbasetemp())
        for place in WORK:
            patch.setattr(place, work)
        yield


@given(words=st.lists(WORDS, max_size=6))
@FUZZ
def test_any_command_line(no_work, words, faults):
    faults("fuzz: any command line", 1)
    try:
        code = cli.main(words)
    except SystemExit as end:  # the parser's own refusal
        code = end.code
    assert code in (0, 2)
