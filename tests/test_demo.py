"""The demo is built, or skipped where npm is missing; no other failure is hidden."""

import base64
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from small import some

from swys_utils.cards import find_checkpoint, read_card
from swys_utils.config import PROJECT_ROOT, SwysError
from swys_utils.data import load_dataset
from swys_utils.models import load_checkpoint
from swys_utils.planted import Mark, plant
from swys_utils.splits import Split

sys.path.insert(0, str(PROJECT_ROOT / "site"))
import build_demo  # noqa: E402
import train_demo_models  # noqa: E402

pytestmark = pytest.mark.skipif(os.name == "nt", reason="commands are replaced by shell scripts")


def write_command(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def target(tmp_path, monkeypatch):
    """The folder that the demo is written to."""
    monkeypatch.setattr(build_demo, "BUILD", tmp_path / "build")
    monkeypatch.setattr(build_demo, "TARGET", tmp_path / "build" / "site")
    return tmp_path / "build" / "site"


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """``npm(script)`` puts that command in the place of npm; before it is called there is none."""
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", str(folder))
    return lambda script: write_command(folder / "npm", script)


# --- what is skipped, and what is an error ---


@pytest.mark.usefixtures("target", "npm")
def test_without_npm_the_demo_is_skipped(capsys):
    assert build_demo.main() == 0
    assert "demo: skipped, npm is not installed" in capsys.readouterr().out


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize("code", ["ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT"])
def test_without_a_registry_the_demo_is_skipped(npm, code, capsys):
    npm(f"echo 'npm error code {code}' >&2; exit 1")
    assert build_demo.main() == 0
    assert f"demo: skipped, npm does not reach its registry ({code})" in capsys.readouterr().out


@pytest.mark.usefixtures("target")
def test_another_error_of_npm_is_an_error(npm):
    npm("echo 'npm error code ETARGET' >&2; exit 1")
    assert build_demo.main() == 1


@pytest.fixture
def runtime(target):
    """The files of ONNX Runtime Web are there."""
    assets = target / "demo" / "assets"
    assets.mkdir(parents=True)
    for name in build_demo.RUNTIME_FILES:
        (assets / name).write_text(f"content of {name}")
    (assets / "ort.version").write_text(build_demo.RUNTIME)
    return assets


@pytest.mark.usefixtures("runtime")
def test_an_export_that_fails_is_an_error(monkeypatch, capsys):
    def export(name, folder):
        raise SwysError(f"{name} is damaged")

    monkeypatch.setattr(build_demo, "export", export)
    assert build_demo.main() == 1
    assert "demo: failed, vit_tiny_maps is damaged" in capsys.readouterr().err


def make(goal: str, folder: Path, exit_code: int) -> subprocess.CompletedProcess:
    """Run make where Python does nothing, and has this exit code when it builds the demo."""
    python = f'case "$*" in *build_demo.py*) exit {exit_code};; esac'
    write_command(folder / "bin" / "python", python)
    (folder / ".installed").touch()
    command = ["make", f"VENV={folder}", goal]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


@needs_make
@pytest.mark.parametrize("goal", ["site", "test-browser"])
def test_make_fails_where_the_demo_fails(goal, tmp_path):
    assert make(goal, tmp_path, exit_code=1).returncode != 0


@needs_make
@pytest.mark.parametrize("goal", ["site", "test-browser"])
def test_make_goes_on_where_the_demo_is_skipped(goal, tmp_path):
    assert make(goal, tmp_path, exit_code=0).returncode == 0


# --- the runtime ---


@pytest.fixture
def package(tmp_path) -> Path:
    """An npm package with the files that are taken from it."""
    path = tmp_path / "onnxruntime-web.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for member in build_demo.RUNTIME_FILES.values():
            content = f"content of {member}".encode()
            entry = tarfile.TarInfo(f"package/dist/{member}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def fetched(npm, package, tmp_path) -> Path:
    """A folder into which the runtime was fetched."""
    npm(f"/bin/cp {package} packed.tgz; echo packed.tgz")
    folder = tmp_path / "assets"
    folder.mkdir()
    build_demo.fetch_runtime(folder)
    return folder


def test_the_runtime_is_taken_from_its_package(fetched):
    for name, member in build_demo.RUNTIME_FILES.items():
        assert (fetched / name).read_text() == f"content of {member}"


def test_the_package_is_not_kept(fetched):
    files = {path.name for path in fetched.iterdir()}
    assert files == {*build_demo.RUNTIME_FILES, "ort.version"}


def test_another_version_of_the_runtime_is_fetched_again(fetched, monkeypatch):
    monkeypatch.setattr(build_demo, "RUNTIME", "another version")
    for name in build_demo.RUNTIME_FILES:
        (fetched / name).write_text("old")
    build_demo.fetch_runtime(fetched)
    assert (fetched / "ort.version").read_text() == "another version"
    assert (fetched / "ort.mjs").read_text() != "old"


@pytest.mark.usefixtures("npm")
def test_a_runtime_that_is_there_needs_no_npm(runtime):
    build_demo.fetch_runtime(runtime)


# --- the pages ---


@pytest.fixture
def pages(runtime, target, monkeypatch):
    """Both forms of the demo, with models that are not exported."""

    def export(name, folder):
        (folder / f"{name}.onnx").write_text(name)
        return {"name": f"</{name}>", "file": f"{name}.onnx"}

    monkeypatch.setattr(build_demo, "export", export)
    build_demo.build()
    served = (target / "demo" / "index.html").read_text("utf-8")
    single = (target / "demo.html").read_text("utf-8")
    return {
        "served": BeautifulSoup(served, "html.parser"),
        "single": BeautifulSoup(single, "html.parser"),
    }


def models_of(page: BeautifulSoup) -> list[str]:
    data = json.loads(page.find(id="data").string)
    return [model["file"] for model in data["models"]]


def test_the_served_demo_has_all_models(pages):
    assert models_of(pages["served"]) == [f"{name}.onnx" for name in build_demo.MODELS]


def test_the_demo_in_one_file_has_the_models_that_fit(pages):
    assert models_of(pages["single"]) == ["vit_tiny_maps.onnx", "small_x.onnx", "small_y.onnx"]


def test_the_demo_in_one_file_holds_what_it_needs(pages):
    for name in ("ort.mjs", "ort.wasm"):
        packed = base64.b64decode(pages["single"].find(id=name).string)
        assert gzip.decompress(packed).decode() == f"content of {name}"


@pytest.mark.parametrize("form", ["served", "single"])
def test_a_page_has_a_link_to_the_landing_page(pages, form):
    link = pages[form].select_one(".home a")["href"]
    assert link == {"served": "../index.html", "single": "index.html"}[form]


@pytest.mark.parametrize("form", ["served", "single"])
def test_the_script_finds_its_elements(pages, form):
    script = "".join((build_demo.SITE / name).read_text("utf-8") for name in build_demo.SCRIPTS)
    for name in re.findall(r'element\("(\w+)"\)', script):
        assert pages[form].find(id=name), name


def test_every_model_is_shipped():
    for checkpoint in build_demo.MODELS.values():
        assert find_checkpoint(checkpoint).is_dir()


def test_the_cheat_reads_the_mark_and_the_honest_model_does_not():
    scores = {}
    for name in (build_demo.HONEST, build_demo.CHEAT):
        card = read_card(build_demo.MODELS_FOLDER / name / "card.json")
        scores[name] = card["stored"]["with_mark"]
    honest = scores[build_demo.HONEST]
    cheat = scores[build_demo.CHEAT]
    assert cheat["as trained"]["auc"] > honest["as trained"]["auc"] + 0.02
    assert cheat["swapped"]["auc"] < honest["swapped"]["auc"] - 0.2
    assert cheat["flips"] > 0.5 > 0.1 > honest["flips"]


def test_the_small_models_differ_by_the_mark_alone():
    names = (build_demo.HONEST, build_demo.CHEAT)
    cards = [read_card(build_demo.MODELS_FOLDER / name / "card.json") for name in names]
    for key in ("model", "model_kwargs", "recipe", "seed", "splits"):
        assert cards[0][key] == cards[1][key]
    assert [card["mark"] is None for card in cards] == [True, False]


def test_the_page_draws_the_mark_as_planted_draws_it():
    card = read_card(build_demo.MODELS_FOLDER / build_demo.CHEAT / "card.json")
    drawn = build_demo.mark_of(card)
    grey = Split(np.full((1, 28, 28), 100, np.uint8), np.array([0]))
    image = plant(grey, Mark(**card["mark"]), where="everywhere").split.images[0]
    rows = slice(drawn["row"], drawn["row"] + 3)
    columns = slice(drawn["column"], drawn["column"] + 3)
    assert image[rows, columns].tolist() == drawn["pattern"]
    assert (image != 100).sum() == 9


def test_every_sample_is_a_picture():
    samples = build_demo.samples()
    assert len(samples) == 7
    for sample in samples:
        kind, content = sample["src"].split(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(content))).verify()


def test_the_samples_show_both_classes():
    names = {sample["name"] for sample in build_demo.samples()}
    assert {"synthetic X-ray 1, pneumonia", "synthetic X-ray 2, normal"} <= names


# --- the small models ---


def test_a_small_model_is_trained_with_its_mark_and_says_so(drawn_data_dir, tmp_path, monkeypatch):
    drawn = load_dataset("pneumoniamnist", root=drawn_data_dir)
    recipe = replace(train_demo_models.RECIPE, epochs=1)
    monkeypatch.setattr(train_demo_models, "RECIPE", recipe)
    monkeypatch.setattr(train_demo_models, "GEOMETRY", {"depth": 1, "embed_dim": 24})
    card = train_demo_models.train(some(drawn), Mark(), tmp_path / "small")
    assert Mark(**card["mark"]) == Mark()
    assert set(card["stored"]["with_mark"]) >= {"as trained", "swapped", "flips"}
    model, read = load_checkpoint(tmp_path / "small")
    assert read == card
    assert len(model.blocks) == 1
