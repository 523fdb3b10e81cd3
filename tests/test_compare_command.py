"""``swys compare`` as a person uses it: exit codes, gates, reports, and what it refuses."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from compare_cases import CLASSES, FEW, NAMES, brightest, images_of, labels_of
from jsonschema import validate
from PIL import Image
from small import vit

from swys import cli, compare
from swys.gates import exit_code, gates_of
from swys.report_json import schema
from swys.report_page import page
from swys_utils.models import save_checkpoint

LITTLE = ["--maps", "4", "--occlusions", "2", "--shown", "4", "--seconds", "0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two checkpoints and a folder of images with class folders."""
    folder = tmp_path_factory.mktemp("place")
    for seed, name in enumerate("ab"):
        model = vit(classes=CLASSES, seed=seed, noise=0.1, patch_size=4)
        save_checkpoint(model, folder / name, {"model": "vit_tiny"})
    labels = labels_of(12)
    for number, (image, label) in enumerate(zip(images_of(labels), labels)):
        path = folder / "images" / NAMES[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture
def run(place, monkeypatch, capsys):
    """``run(*words)``: the exit code, what was printed, and what went to stderr."""
    monkeypatch.chdir(place)

    def call(*words: str) -> tuple[int, str, str]:
        code = cli.main(["compare", *LITTLE, *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_a_loss_gives_1(run):
    code, printed, _ = run("a", "b", "--data", "images")
    assert code == 1
    assert "lost" in printed


def test_a_layer_that_is_not_there_is_no_missing_gate(run):
    code, _, said = run("a", "b", "--data", "images", "--layer", "layer9")
    assert code == 2
    assert "give --layer, or --layer_b for B" in said


def test_too_few_images_give_2(run):
    code, _, _ = run("a", "a", "--data", "images")
    assert code == 2


def test_bounds_that_everything_keeps_give_0(run):
    bounds = ["--max-drop", "100", "--min-agreement", "0", "--min-map", "-1"]
    code, _, _ = run("a", "b", "--data", "images", *bounds, "--min-occlusion", "-1")
    assert code == 0


def test_each_gate_has_a_line(run):
    _, printed, _ = run("a", "b", "--data", "images")
    assert len(re.findall(r"^.*--(?:max|min)-[\w-]+: ", printed, re.MULTILINE)) == 4


def test_a_gate_more_is_asked_for_by_its_option(run):
    options = ["--max-class-drop", "100", "--max-ece-rise", "1"]
    _, printed, _ = run("a", "b", "--data", "images", *options)
    assert len(re.findall(r"^.*--(?:max|min)-[\w-]+: ", printed, re.MULTILINE)) == 6
    assert re.search(r"^kept +--max-class-drop: ", printed, re.MULTILINE)


def test_the_preprocessing_is_printed(run):
    _, _, errors = run("a", "b", "--data", "images")
    assert "28 x 28 px" in errors


def test_both_reports_are_written(run, tmp_path):
    files = ["--html", f"{tmp_path}/r.html", "--json", f"{tmp_path}/r.json"]
    run("a", "b", "--data", "images", *files)
    validate(json.loads((tmp_path / "r.json").read_text()), schema())
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    "words",
    [
        ("a", "b"),
        ("a", "nothing", "--data", "images"),
        ("a", "b", "--data", "nothing"),
        ("a", "x.pt", "--data", "images"),
        ("a", "b", "--data", "images", "--html", "report.pdf"),
        ("a", "b", "--data", "images", "--min-map", "2"),
        ("a", "b", "--data", "images", "--maps", "-1"),
        ("a", "b", "--data", "images", "--preprocess", "size=x"),
        ("a", "timm:resnet10t?weights=x", "--data", "images"),
        ("a", "b", "--data", "images", "--json", "a/card.json"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line_and_2(run, words):
    code, _, errors = run(*words)
    lines = [line for line in errors.splitlines() if line.startswith("swys compare: ")]
    assert code == 2
    assert len(lines) == 1


# Gates of what was not measured


@pytest.fixture(scope="module")
def without_maps():
    images = images_of(labels_of(30))
    return compare(brightest, brightest, images, effort=FEW).measured


def test_a_gate_that_nobody_asked_for_needs_no_measure(without_maps):
    gates = {gate.option: gate.code for gate in gates_of(without_maps)}
    assert gates["min_map"] is None
    assert gates["max_drop"] is None


def test_a_gate_that_was_asked_for_does(without_maps):
    asked = replace(without_maps, asked=frozenset(["min_map"]))
    assert exit_code(gates_of(asked)) == 2


# The page


@pytest.fixture(scope="module")
def html() -> str:
    images = images_of(labels_of(60))
    hostile = ["<script>alert(1)</script>", "a&b", 'c"d']
    worse = compare(
        brightest, lambda batch: -brightest(batch), images, labels_of(60), hostile, effort=FEW
    )
    return page(worse.measured)


def test_the_page_asks_for_nothing_from_elsewhere(html):
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', html)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "@import" not in html


def test_the_page_names_no_folder_of_this_machine(run, place, tmp_path):
    report = tmp_path / "report.html"
    models = [f"{place}/a", f"{place}/b"]
    run(*models, "--data", f"{place}/images", "--html", str(report))
    assert str(place.parent) not in report.read_text()


def test_names_of_strangers_are_escaped(html):
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


def test_each_measure_has_a_verdict_on_the_page(html):
    words = re.findall(r'<p class="word">.*?</span>(.*?)</p>', html)
    assert len(words) == 9  # tests measure no time
    assert set(words) <= {"kept", "lost", "cannot tell"}


def test_every_picture_says_what_it_shows(html):
    pictures = re.findall(r"<img[^>]*>", html)
    assert pictures
    assert all('alt="' in picture for picture in pictures)


def test_links_lead_to_the_notebooks_from_within_a_clone(without_maps, monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr("swys.report_page.PROJECT_ROOT", tmp_path)
    assert 'href="../notebooks' not in page(without_maps, tmp_path / "build")  # somebody else's
    (tmp_path / "notebooks" / "01_data.ipynb").touch()
    assert 'href="../notebooks/06_benchmark.ipynb"' in page(without_maps, tmp_path / "build")


def test_labels_in_words_are_those_of_the_data():
    images = images_of(labels_of(6))
    result = compare(brightest, brightest, images, np.zeros(6, int), NAMES, effort=FEW)
    assert {image.truth for image in result.measured.shown} == {"left"}
