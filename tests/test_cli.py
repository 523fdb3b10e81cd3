"""The command line as a person uses it, on drawn images and very small models."""

import json
import re

import numpy as np
import pytest
from small import SMALL, some, vit

from swys import cli, commands, train
from swys.fingerprints import pack_hashes, perceptual_hashes
from swys_utils.data import load_dataset
from swys_utils.models import save_checkpoint


@pytest.fixture(autouse=True)
def data(monkeypatch, drawn_data_dir, tmp_path):
    """Commands see few images and build two-block models."""
    build = train.build
    monkeypatch.setattr(train, "build", lambda *args, **size: build(*args, **SMALL | size))
    for module in (train, commands):
        monkeypatch.setattr(
            module, "load_dataset", lambda *args: some(load_dataset(*args), 24, 24, 24)
        )
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    monkeypatch.chdir(tmp_path)
    return train.load_dataset("pneumoniamnist")


@pytest.fixture
def checkpoint(tmp_path, data):
    hashes = pack_hashes(perceptual_hashes(data.test.images[:5]))
    card = {"model": "vit_tiny", "dataset": "breastmnist", "training_hashes": hashes}
    save_checkpoint(vit(), tmp_path / "ckpt", card)
    return str(tmp_path / "ckpt")


def test_train_evaluate_explain_export_distil(capsys, tmp_path):
    options = "--model vit_tiny_patch16_224 --img_size 28 --patch_size 7 --batch_size 8 --lr 1e-4 --epochs 1"
    assert cli.main(f"train {options} --save_path out.safetensors".split()) == 0
    assert re.search("process 1 of 1: .*last epoch", capsys.readouterr().out, re.DOTALL)
    card = json.loads((tmp_path / "out.json").read_text())
    assert (card["img_size"], card["patch_size"], card["recipe"]["lr"]) == (28, 7, 1e-4)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {"out", "out.val_chosen"}
    assert cli.main(["evaluate", "--ckpt_path", "out.safetensors", "--json", "scores.json"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (
        scores["n"] == 24 and 0 <= scores["accuracy"] <= 1 and "note" not in capsys.readouterr().err
    )
    assert cli.main(["evaluate", "--ckpt_path", "out.safetensors", "--json", "./out.json"]) == 2
    assert (
        cli.main(
            ["explain", "--ckpt_path", "out.safetensors", "--save_path", "maps", "--images", "3"]
        )
        == 0
    )
    assert np.load(tmp_path / "maps" / "maps.npz")["maps"].shape == (3, 4, 4)
    assert (tmp_path / "maps" / "overlays.png").stat().st_size > 1000
    assert cli.main(["export", "--ckpt_path", "out.safetensors", "--save_path", "tiny.onnx"]) == 0
    assert json.loads((tmp_path / "tiny.json").read_text())["classes"] == ["normal", "pneumonia"]
    for method, student in (
        ("features", "--patch_size 7"),
        ("explain", "--patch_size 14"),
        ("soft", ""),
    ):
        distil = f"distill --ckpt_path out.safetensors --method {method} --save_path kd {student}"
        assert cli.main(f"{distil} --epochs 1 --batch_size 8".split()) == 0
        card = json.loads((tmp_path / "kd" / "card.json").read_text())
        assert (
            card["method"] == f"kd_{method}" and card["teacher"]["model"] == "vit_tiny_patch16_224"
        )


def test_a_killed_training_resumes(capsys, monkeypatch, tmp_path):
    def killed(*args, state_path, **kwargs):
        state_path.parent.mkdir(exist_ok=True)
        state_path.write_text("what a kill leaves")
        raise KeyboardInterrupt

    command = ["train", "--save_path", "out", "--epochs", "1", "--batch_size", "8"]
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", killed)
        assert cli.main(command) == 130 and "--resume" in capsys.readouterr().err
    assert cli.main([*command, "--resume"]) == 2  # add_commands lets the flag alone mean true
    assert "cannot be read" in capsys.readouterr().err
    assert cli.main(command) == 0 and not list(tmp_path.rglob("*.state.*"))


def test_evaluate_counts_images_seen_in_training(checkpoint, capsys):
    assert cli.main(["evaluate", "--ckpt_path", checkpoint]) == 0
    out, err = capsys.readouterr()
    assert "5 of 24 images were in its training data" in out and "without them" in out
    assert f"note: '{checkpoint}' was trained on breastmnist, not pneumoniamnist" in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --dataset pneumonia --save_path x", "did you mean 'pneumoniamnist'"),
        ("train --save_path x.pth", "use .safetensors"),
        ("train --save_path x.safetensors --resume", "nothing to resume"),
        ("train --save_path x --epochs 0", "must be above 0"),
        ("train --save_path x --seed -1", "the seed not below"),
        ("train --save_path /dev/null/x.safetensors", "choose another path"),
        ("evaluate --ckpt_path CKPT --dataset bloodmnist", "has 2 classes, the data has 8"),
        ("evaluate --ckpt_path CKPT --model vit_base_patch16_224", "not a vit_base_patch16_224"),
        ("explain --ckpt_path CKPT --save_path /dev/null/x", "choose another --save_path"),
        ("evaluate --ckpt_path CKPT --json ./ckpt/card.json", "is the card of"),
        ("benchmark --ckpt_path [CKPT] --json CKPT/../ckpt/card.json", "is the card of"),
        ("benchmark --dataset pathmnist", "no checkpoint of pathmnist is shipped"),
        ("study report --runs nowhere", "'nowhere' does not exist"),
        ("study reference --only nothing", "no run matches 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(checkpoint, capsys, tmp_path, command, message):
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(command.replace("CKPT", checkpoint).split()) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith(f"swys {command.split()[0]}")
    assert sorted(tmp_path.rglob("*")) == before
