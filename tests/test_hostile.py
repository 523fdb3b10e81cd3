"""Files of strangers: whatever they hold, a load gives data or one line, and never more than that."""

from __future__ import annotations

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
from safetensors.torch import load_file, save_file

from swys_studies import report
from swys_utils import __main__ as command_line
from swys_utils import data as data_module
from swys_utils import models
from swys_utils.config import SwysError
from swys_utils.data import load_dataset
from swys_utils.models import create_model, load_checkpoint, save_checkpoint

CASES = int(os.environ.get("SWYS_FUZZ", 400))  # of each kind
FUZZ = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
SMALL = {"depth": 1, "embed_dim": 48, "num_heads": 3}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../x", "/etc/passwd", "a/b", "model.safetensors", "pneumoniamnist", "0" * 64, 10**9]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def given_or_one_line(load) -> bool:
    """Whether ``load`` worked; anything but a SwysError of one short line fails the test."""
    try:
        load()
        return True
    except SwysError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
        return False


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hostile") / "m"
    model = create_model("vit_tiny", 2, **SMALL)
    save_checkpoint(model, folder, {"model": "vit_tiny", "model_kwargs": SMALL}, "int8")
    return folder, json.loads((folder / "card.json").read_text())


@given(
    field=st.sampled_from("model num_classes img_size patch_size files model_kwargs stored".split()),
    value=JSON,
    file=JSON,
)
@FUZZ
def test_any_field_of_a_card(checkpoint, field, value, file, faults):
    faults("fuzz: a card with any value in any field", 1)
    folder, card = checkpoint
    changed = card | {field: [card["files"][0] | {"name": file}] if field == "files" and file else value}
    (folder / "card.json").write_text(json.dumps(changed))
    given_or_one_line(lambda: load_checkpoint(folder))


@given(
    text=st.binary(max_size=60)
    | st.sampled_from([b"[" * 10**5, b"{" * 999, b'{"a":1}', b"null", b"\xff\xfe"])
)
@FUZZ
def test_any_bytes_as_a_card(checkpoint, text, faults):
    faults("fuzz: any bytes as a card", 1)
    (checkpoint[0] / "card.json").write_bytes(text)
    assert not given_or_one_line(lambda: load_checkpoint(checkpoint[0]))


@pytest.mark.parametrize(
    "change",
    [
        {"model_kwargs": {"checkpoint_path": "/etc/passwd"}},
        {"model_kwargs": {"pretrained": True}},
        {"model_kwargs": {"pretrained_cfg": {"file": "x"}}},
        {"model_kwargs": {"depth": 10_000}},
        {"img_size": 10**6},
        {"num_classes": 10**9},
        {"files": [{"name": "../../x", "sha256": "0" * 64}]},
        {"files": [{"name": "/etc/passwd", "sha256": "0" * 64}]},
    ],
    ids=str,
)
def test_a_card_cannot_reach_out_of_its_folder_or_ask_for_a_giant(checkpoint, change):
    folder, card = checkpoint
    (folder / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(SwysError, match="cannot be used"):
        load_checkpoint(folder)


def rewrite(folder, card, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    entry = {"name": "model.safetensors", "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "card.json").write_text(json.dumps(card | {"files": [entry]}))


@given(at=st.integers(0, 5000), byte=st.integers(0, 255), cut=st.integers(0, 5000))
@FUZZ
def test_damaged_weights_under_a_card_that_fits_them(checkpoint, tmp_path_factory, at, byte, cut, faults):
    faults("fuzz: weights damaged under a matching sha256", 1)
    folder, card = checkpoint
    whole = tmp_path_factory.getbasetemp() / "whole.safetensors"
    if not whole.is_file():
        whole.write_bytes((folder / "model.safetensors").read_bytes())
    content = bytearray(whole.read_bytes())
    content[at] = byte
    rewrite(folder, card, bytes(content[: len(content) - cut]))
    given_or_one_line(lambda: load_checkpoint(folder))


def test_weights_that_are_no_weights(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "INT8_MIN_ELEMENTS", 1000)
    torch.manual_seed(0)
    model = create_model("vit_tiny", 2, **SMALL)
    card = save_checkpoint(model, tmp_path / "m", {"model": "vit_tiny", "model_kwargs": SMALL}, "int8")
    good = load_file(tmp_path / "m" / "model.safetensors")
    scaled = next(key for key in good if key.endswith(".scale"))
    for change in (
        {"pos_embed": good["pos_embed"] * float("nan")},
        {scaled: None},
        {"head.bias": torch.zeros(3)},
    ):
        tensors = {key: value for key, value in (good | change).items() if value is not None}
        save_file(tensors, tmp_path / "x")
        rewrite(tmp_path / "m", card, (tmp_path / "x").read_bytes())
        with pytest.raises(SwysError, match="does not fit"):
            load_checkpoint(tmp_path / "m")


def packed(arrays: dict, method=zipfile.ZIP_STORED) -> bytes:
    """An .npz of arrays, or of raw bytes where a value is bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for key, value in arrays.items():
            part = io.BytesIO()
            value if isinstance(value, bytes) else np.save(part, value, allow_pickle=True)
            archive.writestr(f"{key}.npy", value if isinstance(value, bytes) else part.getvalue())
    return file.getvalue()


def header(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    made = {
        f"{split}_images": rng.integers(0, 256, (4, 28, 28), dtype=np.uint8)
        for split in ("train", "val", "test")
    }
    return made | {key.replace("images", "labels"): np.array([[0], [1], [0], [1]], np.uint8) for key in made}


@given(
    key=st.sampled_from([f"{s}_{k}" for s in ("train", "val", "test") for k in ("images", "labels")]),
    value=st.sampled_from(
        [
            header(s)
            for s in (
                "(10**12,)",
                "(1000000000000,)",
                "(True, 28, 28)",
                "(-1,)",
                "()",
                "(4, 28, 28",
                "(99999999999999999999,)",
            )
        ]
        + [header("(4, 1)", d) for d in ("|O", "<M8[s]", "<c16", "|S9", "<f8", "x", "|b1", "<u2")]
        + [
            np.zeros(4, [("a", int)]),
            np.array(3),
            np.full((4, 1), 0.9),
            np.full((4, 1), 1 + 5j),
            np.array([[object()]]),
            np.zeros((4, 28, 28), bool),
        ]
        + [
            np.array([["2020-01-01"]] * 4, "M8[D]"),
            np.full((4, 1), 7),
            np.full((4, 1), -1),
            np.zeros((0, 28, 28), np.uint8),
            b"",
            b"x" * 200,
        ]
    )
    | st.binary(max_size=200),
    at=st.integers(0, 10**4),
    byte=st.integers(0, 255),
    cut=st.integers(0, 50),
    harm=st.sampled_from(["part", "byte", "cut", "bytes"]),
)
@FUZZ
def test_any_npz(arrays, tmp_path_factory, key, value, at, byte, cut, harm, faults):
    faults("fuzz: any .npz", 1)
    content = bytearray(packed(arrays | {key: value} if harm == "part" else arrays, zipfile.ZIP_DEFLATED))
    if harm == "byte":
        content[at % len(content)] = byte
    content = {
        "cut": bytes(content[: len(content) - 1 - cut]),
        "bytes": value if isinstance(value, bytes) else b"",
    }.get(harm, bytes(content))
    folder = tmp_path_factory.getbasetemp() / "npz"
    folder.mkdir(exist_ok=True)
    (folder / "pneumoniamnist.npz").write_bytes(content)
    worked = given_or_one_line(lambda: load_dataset(root=folder))
    assert not (worked and harm in ("cut", "bytes", "part"))


@given(
    field=st.sampled_from("id method seed device predicted val_auc last val_chosen history".split())
    | st.none(),
    value=JSON,
    text=st.binary(max_size=40) | st.sampled_from([b"[" * 10**5, b'{"runs": 3}', b'{"runs": [[]]}', b"null"]),
)
@FUZZ
def test_any_runs_json(tmp_path_factory, drawn_data_dir, field, value, text, faults):
    faults("fuzz: any runs.json", 1)
    scores = {"accuracy": 0.5, "auc": 0.5, "ece": 0.1}
    run = {"id": "vit_tiny/scratch/seed0", "method": "scratch", "seed": 0, "device": "x", "val_auc": 0.5}
    run |= {"predicted": "01" * 64, "last": scores, "val_chosen": scores}
    path = tmp_path_factory.getbasetemp() / "runs.json"
    path.write_bytes(json.dumps({"runs": [run | {field: value}]}).encode() if field else text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
        patch.setattr(report, "accuracy_interval", lambda values: (0.0, 0.0))  # not what is tested, and slow
        given_or_one_line(lambda: report.report(runs=str(path)))


WORDS = st.text(max_size=6) | st.sampled_from(
    "train distill evaluate explain benchmark export study report ship reference --ckpt_path --dataset "
    "--size --split --images --method --json --save_path --epochs --lr --seed --model --resume --runs "
    "--list --only pneumoniamnist bloodmnist nothing vit_tiny vit_nothing 28 29 -1 0 1e9 nan 4295000000 "
    "test ../x x.pt x.onnx /dev/null/x true [] {} null".split()
)


@given(words=st.lists(WORDS, max_size=6))
@FUZZ
def test_any_command_line(drawn_data_dir, tmp_path_factory, words, faults):
    """What would start real work is replaced; everything before it is the command line's own."""
    faults("fuzz: any command line", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
        patch.chdir(tmp_path_factory.getbasetemp())
        for place in ("train.fit", "cli.heatmaps", "cli.predict", "reference.train", "ladder.shrink_ladder"):
            stop = lambda *args, **kwargs: (_ for _ in ()).throw(SwysError("work"))  # noqa: E731
            patch.setattr(f"swys_studies.{place}", stop)
        try:
            assert command_line.main(words) in (0, 2)
        except SystemExit as end:  # the parser's own refusal
            assert end.code in (0, 2)


def test_a_bomb_and_a_swapped_file(arrays, tmp_path, monkeypatch):
    bomb = packed(arrays | {"train_images": np.zeros((10**6, 28, 28), np.uint8)}, zipfile.ZIP_DEFLATED)
    (tmp_path / "pneumoniamnist.npz").write_bytes(bomb)
    with pytest.raises(SwysError, match="far larger unpacked"):
        load_dataset(root=tmp_path)
    monkeypatch.setattr(data_module, "MEMORY_LIMIT", 1000)
    for images in (arrays, arrays | {"train_images": arrays["val_images"]}):  # the unpacked cache notices
        (tmp_path / "pneumoniamnist.npz").write_bytes(packed(images))
        np.testing.assert_array_equal(load_dataset(root=tmp_path).train.images, images["train_images"])
