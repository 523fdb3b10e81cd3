"""Checkpoints, results and command lines of strangers: they work, or give one line."""

import hashlib
import json

import pytest
import torch
from fuzz import BYTES, FUZZ, JSON, worked_or_one_line
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from small import run_entry, vit

from swys import cli
from swys_studies.report import report
from swys_utils.config import SwysError
from swys_utils.models import load_checkpoint, save_checkpoint

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
    (folder / "card.json").write_text(json.dumps(card))
    load_checkpoint(folder)
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

COMMANDS = [*cli.COMMANDS, "study"]
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
