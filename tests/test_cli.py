"""The command line as a person uses it, on drawn images and very small models."""

import json

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from swys_studies import cli as studies
from swys_studies import train
from swys_studies.leaks import pack_hashes, perceptual_hashes
from swys_utils import __main__ as cli
from swys_utils.data import Dataset, load_dataset
from swys_utils.models import create_model, save_checkpoint

SIZE = {"depth": 2, "embed_dim": 48, "num_heads": 3}
KWARGS = {"model_kwargs": SIZE}


@pytest.fixture(autouse=True)
def few_images(monkeypatch, drawn_data_dir, tmp_path):
    """Commands see 24 images a split and build two-block models."""
    real_build, real_save = train.build, train.save_checkpoint

    def few(name, size=28):
        data = load_dataset(name, size, drawn_data_dir)
        return Dataset(data.train.head(24), data.val.head(24), data.test.head(24), data.info)

    monkeypatch.setattr(train, "load_dataset", few)
    monkeypatch.setattr(studies, "load_dataset", few)
    monkeypatch.setattr(train, "build", lambda *args, **kwargs: real_build(*args, **kwargs, **SIZE))
    save = lambda model, path, card, **kwargs: real_save(model, path, card | KWARGS, **kwargs)  # noqa: E731
    monkeypatch.setattr(train, "save_checkpoint", save)
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def checkpoint(tmp_path, drawn_data_dir):
    torch.manual_seed(0)
    images = load_dataset(root=drawn_data_dir).test.head(24).images[:5]
    card = KWARGS | {"model": "vit_tiny", "training_hashes": pack_hashes(perceptual_hashes(images))}
    save_checkpoint(create_model("vit_tiny", 2, patch_size=14, **SIZE), tmp_path / "ckpt", card)
    return str(tmp_path / "ckpt")


def test_train_evaluate_explain_distil(capsys, tmp_path):
    train = "train --model vit_tiny_patch16_224 --img_size 28 --patch_size 7 --batch_size 8 --lr 1e-4"
    assert cli.main([*train.split(), "--epochs", "1", "--save_path", "out.safetensors"]) == 0
    assert "last epoch" in capsys.readouterr().out
    card = json.loads((tmp_path / "out.json").read_text())
    assert (card["img_size"], card["patch_size"], card["recipe"]["lr"]) == (28, 7, 1e-4)
    written = sorted(path.name for path in tmp_path.glob("out*.safetensors"))
    assert written == ["out.safetensors", "out.val_chosen.safetensors"]
    assert cli.main("evaluate --ckpt_path out.safetensors --json scores.json".split()) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["n"] == 24 and 0 <= scores["accuracy"] <= 1
    assert cli.main("explain --ckpt_path out.safetensors --save_path maps --images 3".split()) == 0
    assert np.load(tmp_path / "maps" / "maps.npz")["maps"].shape == (3, 4, 4)
    assert (tmp_path / "maps" / "overlays.png").stat().st_size > 1000
    assert cli.main("export --ckpt_path out.safetensors --save_path tiny.onnx".split()) == 0
    assert json.loads((tmp_path / "tiny.json").read_text())["classes"] == ["normal", "pneumonia"]
    for method, student in (("features", "--patch_size 7"), ("explain", "--patch_size 14"), ("soft", "")):
        distil = f"distill --ckpt_path out.safetensors --method {method} --save_path kd {student}"
        assert cli.main([*distil.split(), "--epochs", "1", "--batch_size", "8"]) == 0
        card = json.loads((tmp_path / "kd" / "card.json").read_text())
        assert card["method"] == f"kd_{method}" and card["teacher"]["model"] == "vit_tiny_patch16_224"


def test_a_killed_training_resumes(capsys, monkeypatch, tmp_path):
    real_fit = train.fit

    def killed(*args, state_path, **kwargs):
        state_path.parent.mkdir(exist_ok=True)
        state_path.write_text("what a kill leaves")
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "fit", killed)
    command = "train --save_path out --epochs 1 --batch_size 8".split()
    assert cli.main(command) == 130 and "--resume" in capsys.readouterr().err
    monkeypatch.setattr(train, "fit", real_fit)
    assert cli.main([*command, "--resume"]) == 2 and "cannot be read" in capsys.readouterr().err
    assert cli.main(command) == 0 and not list(tmp_path.rglob("*.state.*"))


def test_evaluate_counts_images_seen_in_training(checkpoint, capsys):
    assert cli.main(["evaluate", "--ckpt_path", checkpoint]) == 0
    out = capsys.readouterr().out
    assert "5 of 24 images were in its training data" in out and "without them" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --dataset pneumonia --save_path x", "did you mean 'pneumoniamnist'"),
        ("train --model vit_tinny --save_path x", "did you mean"),
        ("train --save_path x.pth", "use .safetensors"),
        ("train --save_path x.safetensors --resume", "nothing to resume"),
        ("train --save_path x --epochs 0", "must be above 0"),
        ("train --save_path /dev/null/x.safetensors", "choose another folder"),
        ("evaluate --ckpt_path nowhere", "unknown checkpoint 'nowhere'"),
        ("evaluate --ckpt_path CKPT --dataset bloodmnist", "has 2 classes, the data has 8"),
        ("evaluate --ckpt_path CKPT --model vit_base_patch16_224", "not a vit_base_patch16_224"),
        ("explain --ckpt_path CKPT --save_path /dev/null/x", "choose another --save_path"),
        ("evaluate --ckpt_path CKPT.safetensors --json CKPT.json", "is the card of"),
        ("benchmark --dataset bloodmnist", "no checkpoint of bloodmnist is shipped"),
        ("study report --runs nowhere", "'nowhere' does not exist"),
        ("study reference --only nothing", "no run matches 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(checkpoint, capsys, tmp_path, arguments, message):
    before = sorted(tmp_path.rglob("*"))
    words = arguments.replace("CKPT", checkpoint).split()
    assert cli.main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith(f"swys {words[0]}")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path not in before] == []


def test_options_come_from_signatures_and_a_flag_alone_is_true():
    parser = ArgumentParser(exit_on_error=False)
    cli.add_commands(parser, {"group": {"go": go}})
    found = parser.parse_args(["group", "go", "--times", "3", "--loud"]).as_dict()["group"]
    assert found == {"command": "go", "go": {"times": 3, "loud": True}}


def go(times: int = 1, loud: bool = False):
    """A command."""
