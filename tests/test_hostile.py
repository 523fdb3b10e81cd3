"""Files of strangers: whatever they hold, a load gives data or one line, and never more than that."""

import errno
import hashlib
import io
import json
import os
import zipfile
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from small import run_entry, vit

from swys import cli as command_line
from swys_studies.report import report
from swys_utils.config import SwysError
from swys_utils.data import load_dataset, to_model_input
from swys_utils.models import load_checkpoint, save_checkpoint

CASES = int(os.environ.get("SWYS_FUZZ", 400))  # of each kind
FUZZ = settings(
    max_examples=CASES, derandomize=True, deadline=None, suppress_health_check=[*HealthCheck]
)
KNOWN = ["../x", "/etc/passwd", "a/b", "model.safetensors", "pneumoniamnist", "0" * 64, 10**9]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(KNOWN),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
NO_RUNS = [b'{"runs": 3}', b'{"runs": [[]]}', b'{"a": 1}', b"null"]
OF_A_CARD = st.sampled_from(
    ["model", "num_classes", "img_size", "patch_size", "files", "model_kwargs", "stored"]
)
OF_A_RUN = st.sampled_from(
    ["id", "method", "seed", "device", "predicted", "val_auc", "last", "val_chosen", "history"]
)
BYTES = st.binary(max_size=60) | st.sampled_from([b"[" * 10**5, b"{" * 999, *NO_RUNS])
OPTIONS = [
    {"checkpoint_path": "/etc/passwd"},
    {"pretrained": True},
    {"pretrained_cfg": {"file": "x"}},
]
FORBIDDEN = [{"model_kwargs": options} for options in (*OPTIONS, {"depth": 10_000})]
FORBIDDEN += [
    {"files": [{"name": x, "sha256": "0" * 64}]}
    for x in [r"../../x", r"/etc/passwd", r"..", r"a\b", r"c:x"]
]
FORBIDDEN += [{"img_size": 10**6}, {"num_classes": 10**9}]


def given_or_one_line(function, *arguments, **named) -> bool:
    """Whether ``function`` worked; anything but a SwysError of one short line fails the test."""
    try:
        function(*arguments, **named)
        return True
    except SwysError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
        return False


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder, the card in it and its weights' bytes, with some matrices as int8."""
    folder = tmp_path_factory.mktemp("hostile") / "m"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swys_utils.models.INT8_MIN_ELEMENTS", 1000)
        card = save_checkpoint(vit(depth=1), folder, {"model": "vit_tiny"}, "int8")
    return folder, card, (folder / "model.safetensors").read_bytes()


@given(field=OF_A_CARD, value=JSON, file=JSON)
@FUZZ
def test_any_field_of_a_card(checkpoint, field, value, file, faults):
    faults("fuzz: a card with any value in any field", 1)
    folder, card, _ = checkpoint
    changed = card | {
        field: [card["files"][0] | {"name": file}] if field == "files" and file else value
    }
    (folder / "card.json").write_text(json.dumps(changed))
    given_or_one_line(load_checkpoint, folder)


@given(text=BYTES)
@FUZZ
def test_any_bytes_as_a_card(checkpoint, text, faults):
    faults("fuzz: any bytes as a card", 1)
    (checkpoint[0] / "card.json").write_bytes(text)
    assert not given_or_one_line(load_checkpoint, checkpoint[0])


@pytest.mark.parametrize("change", FORBIDDEN, ids=str)
def test_a_card_cannot_reach_out_of_its_folder_or_ask_for_a_giant(checkpoint, change):
    folder, card, _ = checkpoint
    (folder / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(SwysError, match="cannot be used"):
        load_checkpoint(folder)


def rewrite(folder, card, weights: bytes) -> None:
    """Put weights into the folder, and a card that fits them."""
    (folder / "model.safetensors").write_bytes(weights)
    entry = {"name": "model.safetensors", "sha256": hashlib.sha256(weights).hexdigest()}
    (folder / "card.json").write_text(json.dumps(card | {"files": [entry]}))


@given(at=st.integers(0, 5000), byte=st.integers(0, 255), cut=st.integers(0, 5000))
@FUZZ
def test_damaged_weights_under_a_card_that_fits_them(checkpoint, at, byte, cut, faults):
    faults("fuzz: weights damaged under a matching sha256", 1)
    folder, card, whole = checkpoint
    damaged = whole[:at] + bytes([byte]) + whole[at + 1 :]
    rewrite(folder, card, damaged[: len(whole) - cut])
    given_or_one_line(load_checkpoint, folder)


def test_weights_that_are_no_weights(checkpoint):
    folder, card, whole = checkpoint
    good = load(whole)
    scale = next(key for key in good if key.endswith(".scale"))
    without_scale = {key: value for key, value in good.items() if key != scale}
    not_finite = good | {"pos_embed": good["pos_embed"] * float("nan")}
    for tensors in (without_scale, not_finite, good | {"head.bias": torch.zeros(3)}):
        rewrite(folder, card, save(tensors))
        with pytest.raises(SwysError, match="does not fit"):
            load_checkpoint(folder)


def packed(arrays: dict) -> bytes:
    """An .npz of arrays, or of raw bytes where a value is bytes."""
    file, raw = (
        io.BytesIO(),
        {key: value for key, value in arrays.items() if isinstance(value, bytes)},
    )
    np.savez_compressed(file, **{key: value for key, value in arrays.items() if key not in raw})
    with zipfile.ZipFile(file, "a") as archive:
        for key, value in raw.items():
            archive.writestr(f"{key}.npy", value)
    return file.getvalue()


def header(shape: str, dtype: str = "|u1") -> bytes:
    """The start of an .npy, with no data after it."""
    text = (
        f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode()
        + b"\n"
    )
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


SHAPES = (
    "(10**12,)",
    "(1000000000000,)",
    "(True, 28, 28)",
    "(-1,)",
    "()",
    "(4, 28, 28",
    f"({'9' * 20},)",
)
PARTS = [header(shape) for shape in SHAPES] + [b"", b"x" * 200]
PARTS += [
    header("(4, 1)", dtype) for dtype in ("|O", "<M8[s]", "<c16", "|S9", "<f8", "x", "|b1", "<u2")
]
PARTS += [
    np.full((4, 1), value) for value in (0.9, 1 + 5j, 7, -1, object(), np.datetime64("2020-01-01"))
]
PARTS += [
    np.zeros((4, 28, 28), bool),
    np.zeros((0, 28, 28), np.uint8),
    np.zeros((4, 28, 28, 3), np.uint8),
]
PARTS += [np.zeros(4, [("a", int)]), np.array(3)]
SPLITS = ("train", "val", "test")
ARRAYS = {f"{split}_labels": np.array([[0], [1], [0], [1]], np.uint8) for split in SPLITS}
NOISE = np.random.default_rng(0).integers(0, 256, (3, 4, 28, 28), dtype=np.uint8)
ARRAYS |= {f"{split}_images": images for split, images in zip(SPLITS, NOISE)}
HARM = {
    "key": st.sampled_from(sorted(ARRAYS)),
    "part": st.sampled_from(PARTS) | st.binary(max_size=200),
}
HARM |= {"at": st.integers(0, 10**4), "byte": st.integers(0, 255)}


@given(**HARM, harm=st.sampled_from(["part", "byte", "cut"]))
@FUZZ
def test_any_npz(tmp_path_factory, key, part, at, byte, harm, faults):
    faults("fuzz: any .npz", 1)
    content = packed(ARRAYS | {key: part} if harm == "part" else ARRAYS)
    at %= len(content)
    after = {"part": content[at:], "byte": bytes([byte]) + content[at + 1 :], "cut": b""}
    path = tmp_path_factory.getbasetemp() / "pneumoniamnist.npz"
    path.write_bytes(content[:at] + after[harm])
    worked = given_or_one_line(load_dataset, root=path.parent)
    assert not worked or harm == "byte"


def test_a_bomb_and_a_swapped_file(tmp_path, monkeypatch):
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(packed(ARRAYS | {"train_images": np.zeros((200_000, 28, 28), np.uint8)}))
    with pytest.raises(SwysError, match="is damaged or no MedMNIST file .*far larger unpacked"):
        load_dataset(root=tmp_path)
    monkeypatch.setattr("swys_utils.data.MEMORY_LIMIT", 1000)
    for images in NOISE[:2]:  # the unpacked cache notices
        path.write_bytes(packed(ARRAYS | {"train_images": images}))
        mapped = load_dataset(root=tmp_path).train.images
        assert isinstance(mapped, np.memmap)
        torch.testing.assert_close(to_model_input(mapped), to_model_input(images), rtol=0, atol=0)
    path.write_bytes(packed(ARRAYS | {"train_images": NOISE[2]}))
    full, before = (
        Mock(side_effect=OSError(errno.ENOSPC, "No space left")),
        sorted(tmp_path.iterdir()),
    )
    monkeypatch.setattr("swys_utils.data.shutil.copyfileobj", full)
    with pytest.raises(SwysError, match="cannot unpack"):
        load_dataset(root=tmp_path)
    assert sorted(tmp_path.iterdir()) == before


@given(field=OF_A_RUN, value=JSON, text=st.none() | BYTES)
@FUZZ
def test_any_runs_json(tmp_path_factory, drawn_data_dir, field, value, text, faults):
    faults("fuzz: any runs.json", 1)
    run = run_entry("vit_tiny/scratch/seed0", "01" * 64) | {field: value}
    path = tmp_path_factory.getbasetemp() / "runs.json"
    path.write_bytes(json.dumps({"runs": [run]}).encode() if text is None else text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
        patch.setattr(
            "swys_studies.report.accuracy_interval", lambda values: (0.0, 0.0)
        )  # it is slow
        given_or_one_line(report, runs=str(path))


WORDS = st.text(max_size=6) | st.sampled_from(
    [
        "train",
        "distill",
        "evaluate",
        "explain",
        "benchmark",
        "export",
        "study",
        "report",
        "ship",
        "reference",
        "--ckpt_path",
        "--dataset",
        "--size",
        "--split",
        "--images",
        "--method",
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
        "pneumoniamnist",
        "bloodmnist",
        "nothing",
        "vit_tiny",
        "vit_nothing",
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
)


@given(words=st.lists(WORDS, max_size=6))
@FUZZ
def test_any_command_line(drawn_data_dir, tmp_path_factory, words, faults):
    """What would start real work is replaced; everything before it is the command line's own."""
    faults("fuzz: any command line", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
        patch.chdir(tmp_path_factory.getbasetemp())
        for place in (
            "swys.train.fit",
            "swys.commands.heatmaps",
            "swys.commands.predict",
            "swys_studies.reference.train",
        ):
            patch.setattr(place, Mock(side_effect=SwysError("work")))
        try:
            assert command_line.main(words) in (0, 2)
        except SystemExit as end:  # the parser's own refusal
            assert end.code in (0, 2)
