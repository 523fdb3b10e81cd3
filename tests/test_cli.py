"""The command line as a person uses it, on drawn images and a very small model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swys_utils import cli, ladder
from swys_utils.benchmark import Memory
from swys_utils.models import create_model, pack_hashes, perceptual_hashes, save_checkpoint

KWARGS = {"patch_size": 14, "depth": 2}


@pytest.fixture(autouse=True)
def few_images(monkeypatch, drawn_data_dir, tmp_path):
    """Commands see 24 images a split and build a two-block model that reads 28 px."""
    from swys_utils.data import Dataset

    def few(options):
        data = cli.load_dataset(options.dataset, options.size, options.data_dir)
        return Dataset(data.train.head(24), data.val.head(24), data.test.head(24), data.info)

    monkeypatch.setattr(cli, "_data", few)
    monkeypatch.setenv("SWYS_DATA_DIR", str(drawn_data_dir))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_models(monkeypatch):
    real_build, real_fit = cli.build, cli.fit
    monkeypatch.setattr(
        cli,
        "build",
        lambda name, data, recipe, seed, *size, **kwargs: real_build(name, data, recipe, seed, 28, **KWARGS),
    )

    def fit(model, data, recipe, *, card, **kwargs):
        return real_fit(model, data, recipe, card={**card, "model_kwargs": KWARGS}, progress=False, **kwargs)

    monkeypatch.setattr(cli, "fit", fit)


@pytest.fixture
def checkpoint(tmp_path, drawn_data_dir):
    torch.manual_seed(0)
    model = create_model("vit_tiny", 2, 28, **KWARGS)
    images = cli.load_dataset(root=drawn_data_dir).test.head(24).images[:5]
    card = {
        "model": "vit_tiny_patch16_224",
        "model_kwargs": KWARGS,
        "training_hashes": pack_hashes(perceptual_hashes(images)),
    }
    save_checkpoint(model, tmp_path / "ckpt", card)
    return str(tmp_path / "ckpt")


def test_train_resume_evaluate_explain_distil(small_models, capsys, tmp_path):
    train = [
        "train",
        "--model",
        "vit_tiny_patch16_224",
        "--batch_size",
        "8",
        "--lr",
        "1e-4",
        "--save_path",
        "out.safetensors",
    ]
    assert cli.main([*train, "--epochs", "1"]) == 0
    assert "last epoch" in capsys.readouterr().out
    assert cli.main([*train, "--epochs", "2", "--resume"]) == 0
    card = json.loads((tmp_path / "out.json").read_text())
    assert len(card["history"]) == 2 and card["model"] == "vit_tiny_patch16_224" and card["recipe"]["lr"] == 1e-4
    assert cli.main(["evaluate", "--ckpt_path", "out.safetensors", "--json", "scores.json"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["n"] == 24 and 0 <= scores["accuracy"] <= 1
    assert cli.main(["explain", "--ckpt_path", "out.safetensors", "--save_path", "maps", "--images", "3"]) == 0
    maps = np.load(tmp_path / "maps" / "maps.npz")["maps"]
    assert maps.shape == (3, 2, 2) and (tmp_path / "maps" / "overlays.png").stat().st_size > 1000
    distil = ["distill", "--ckpt_path", "out.safetensors", "--method", "features", "--save_path", "kd"]
    assert cli.main([*distil, "--epochs", "1", "--batch_size", "8"]) == 0
    assert json.loads((tmp_path / "kd" / "card.json").read_text())["method"] == "kd_features"


def test_evaluate_counts_images_seen_in_training(checkpoint, capsys):
    assert cli.main(["evaluate", "--ckpt_path", checkpoint]) == 0
    out = capsys.readouterr().out
    assert "5 of 24 images were in this checkpoint's training data" in out and "(n = 19)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--dataset", "pneumonia", "--save_path", "x"], "did you mean 'pneumoniamnist'"),
        (["train", "--model", "vit_tinny", "--save_path", "x"], "did you mean"),
        (["train", "--save_path", "x.pth"], "use .safetensors"),
        (["train", "--save_path", "x.safetensors", "--resume"], "nothing to resume"),
        (["train", "--save_path", "x", "--epochs", "0"], "--epochs is 0"),
        (["train", "--save_path", "x", "--recipe", "orignal"], "did you mean 'original'"),
        (["train", "--save_path", "/dev/null/x.safetensors"], "choose another --save_path"),
        (["evaluate", "--ckpt_path", "nowhere"], "checkpoint"),
        (["evaluate", "--ckpt_path", "CKPT", "--dataset", "bloodmnist"], "has 2 classes, the data has 8"),
        (["evaluate", "--ckpt_path", "CKPT", "--model", "vit_base_patch16_224"], "not a vit_base_patch16_224"),
        (["explain", "--ckpt_path", "CKPT", "--save_path", "x", "--method", "gradcam"], "did you mean 'grad_cam'"),
        (["explain", "--ckpt_path", "CKPT", "--save_path", "/dev/null/x"], "choose another --save_path"),
        (["distill", "--ckpt_path", "CKPT", "--save_path", "x", "--method", "feature"], "did you mean 'features'"),
        (["benchmark", "--ckpt_path", "CKPT", "--device", "cpuu"], "--device 'cpuu' cannot be used"),
        (["benchmark", "--dataset", "bloodmnist"], "no checkpoint of bloodmnist is shipped"),
        (["agreement", "--save_path", "nowhere"], "no finished run with its teacher"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(checkpoint, small_models, capsys, tmp_path, arguments, message):
    before = sorted(tmp_path.rglob("*"))
    assert cli.main([checkpoint if a == "CKPT" else a for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith(f"swys {arguments[0]}: ")
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p not in before] == []


def test_benchmark_is_the_ladder_of_one_checkpoint(checkpoint, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(ladder, "peak_memory", lambda *args, **kwargs: Memory(2**20, 2**21, "not measured"))
    assert cli.main(["benchmark", "--ckpt_path", checkpoint, "--seconds", "0.02", "--json", "table.json"]) == 0
    content, out = json.loads((tmp_path / "table.json").read_text()), capsys.readouterr().out
    rungs = {rung["precision"] + " " + rung["runtime"]: rung for rung in content["rungs"]}
    assert {"fp32 PyTorch", "int8 ONNX Runtime", "int4 ONNX Runtime"} <= set(rungs)
    assert rungs["fp32 PyTorch"]["speedup"] == 1 and rungs["int8 ONNX Runtime"]["n"] == 24
    assert content["ship"] in out and "fixed sample" in content["note"] and content["dataset"] == "pneumoniamnist"
    assert "latency, batch 1" in out and "looks like the first rung" in out and "throughput" in out


def test_benchmark_takes_the_shipped_steps_in_order(monkeypatch):
    ids = [f"pneumoniamnist/{name}" for name in ("other", "vit_base", "vit_tiny", "vit_tiny_kd_p4", "vit_tiny_kd")]
    monkeypatch.setattr(cli, "checkpoint_ids", lambda: [*ids, "bloodmnist/mine"])
    info = SimpleNamespace(info=SimpleNamespace(name="pneumoniamnist"))
    assert cli._shipped(info) == [ids[i] for i in (1, 2, 4, 3)]
    assert cli._shipped(SimpleNamespace(info=SimpleNamespace(name="bloodmnist"))) == ["bloodmnist/mine"]


def test_export_writes_a_checked_onnx_file(checkpoint, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    assert cli.main(["export", "--ckpt_path", checkpoint, "--save_path", "tiny.onnx"]) == 0
    assert json.loads((tmp_path / "tiny.json").read_text())["max_logit_difference"] < 1e-4
    assert cli.main(["export", "--ckpt_path", checkpoint, "--save_path", "int8.onnx", "--int8"]) == 0
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "tiny.onnx").stat().st_size
    assert cli.main(["export", "--ckpt_path", checkpoint, "--save_path", "tiny.pt"]) == 2
    assert cli.main(["export", "--ckpt_path", checkpoint, "--save_path", "native.onnx", "--native"]) == 2
    assert "cannot be rewritten" in capsys.readouterr().err  # this model reads 28 px already


def test_reproduce_lists_its_runs_and_report_needs_some(capsys):
    assert cli.main(["reproduce", "--list"]) == 0
    runs = capsys.readouterr().out.split()
    assert "vit_base/scratch/seed0" in runs and len(runs) == len(set(runs)) > 20
    assert cli.main(["reproduce", "--pocket", "--list"]) == 0
    assert "pocket_tiny/kd_explain/seed3" in capsys.readouterr().out.split()
    assert cli.main(["report", "--save_path", "nowhere"]) == 2
