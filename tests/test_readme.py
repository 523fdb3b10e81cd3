"""The numbers of the README are those of the notebooks and of the shipped results."""

import json
import re
from statistics import mean

import nbformat
import pytest
from pages import ROOT, SHIPPED, numbers_in, page, row_beside

from swys_figures.agreement import beyond_chance
from swys_figures.benchmark import parameters_of
from swys_studies.runs import read_runs, read_study
from swys_utils.benchmark import vit_macs


@pytest.fixture(scope="module")
def readme() -> str:
    return page("README.md")


@pytest.fixture(scope="module")
def lines_of_notebook_6() -> list[list[float]]:
    """The numbers in each line that notebook 6 prints."""
    notebook = nbformat.read(ROOT / "notebooks" / "06_benchmark.ipynb", as_version=4)
    lines = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            lines += output.get("text", "").splitlines()
    return [numbers_in(line) for line in lines]


def test_its_table_has_the_numbers_of_notebook_6(readme, lines_of_notebook_6):
    rows = re.findall(r"^\| ((?:Base|Tiny)[^|]*\|.* ms \|.*) \|$", readme, re.MULTILINE)
    assert len(rows) >= 4
    for row in rows:
        model, weights, macs, *measured = row.split(" | ")
        assert numbers_in(" ".join([model, *measured])) in lines_of_notebook_6, row
        width = 768 if model.startswith("Base") else 192
        tokens, side = (16, 7) if "16 patches" in model else (49, 4)
        count = vit_macs(tokens, width, depth=12, patch_size=side, classes=2)
        assert macs == f"{count / 1e9:.2f} G"
        name = "vit_base" if width == 768 else "vit_tiny"
        assert weights == f"{parameters_of(name) / 1e6:.1f} M"


MODELS = {  # how a row of the table of models begins -> its row in the table of FINDINGS, its runs
    "other Bases (3; reasons and maps of 2)": (
        "other Bases (three; reasons and maps of two)",
        tuple(f"vit_base/labels/seed{seed}" for seed in (1, 2, 3)),
    ),
    "Tiny (4)": ("Tiny (four)", "vit_tiny/labels/"),
    "Tiny, taught Base's answers (4)": ("Tiny, taught Base's answers (four)", "vit_tiny/answers/"),
    "Tiny, taught Base's answers and maps (4)": (
        "Tiny, taught Base's answers and maps (four)",
        "vit_tiny/maps/",
    ),
}


def scores_of(begin: str | tuple[str, ...]) -> list[float]:
    """Mean accuracy in % and AUC of the runs whose ids begin so."""
    scores = []
    for run in read_runs(SHIPPED / "runs.json"):
        if run["id"].startswith(begin):
            scores.append(run["last"])
    accuracy = 100 * mean(score["accuracy"] for score in scores)
    return [round(accuracy, 1), round(mean(score["auc"] for score in scores), 3)]


def range_of_reasons(begin: str | tuple[str, ...]) -> list[float]:
    """The lowest and the highest agreement with Base's reasons of the runs whose ids begin so.

    Empty where there is one run.
    """
    compared = read_study(SHIPPED / "agreement.json")["maps"]["occlusion"]["runs"]
    pairs = []
    for run_id, pair in compared.items():
        if run_id.startswith(begin):
            pairs.append(pair)
    values = beyond_chance(pairs)
    if len(values) == 1:
        return []
    return [
        round(values.min()),
        round(values.max()),
    ]


@pytest.mark.parametrize("begin", MODELS)
def test_a_row_of_models_has_their_scores_and_what_findings_say_of_them(readme, begin):
    row_of_findings, runs = MODELS[begin]
    findings = page("FINDINGS.md")
    # test_findings compares these with the results
    same, reasons, maps = row_beside(row_of_findings, findings)
    expected = [
        *scores_of(runs),
        same,
        reasons,
        *range_of_reasons(runs),
        maps,
    ]
    assert row_beside(begin, readme) == expected


def test_the_other_rows_of_models_are_base_and_the_resnets(readme):
    findings = page("FINDINGS.md")
    _, *scores, _, _ = row_beside("ResNet-18, 11 M weights | 12", findings)
    agreement = row_beside("a ResNet-18 (two)", findings)
    assert row_beside("a ResNet-18, 11 M weights (2)", readme) == [*scores, *agreement]
    base = scores_of("vit_base/labels/seed0")
    assert row_beside("Base, with which all are compared (1)", readme) == [*base, 100, 100, 100]


def table_of_cheats(text: str) -> list[list[str]]:
    """The heading and the rows, cell by cell."""
    begin = text.index("| taught on X-rays with the ring by")
    heading, _, *rows = text[begin : text.index("\n\n", begin)].splitlines()
    return [row.split(" | ") for row in (heading, *rows)]


def test_its_table_of_cheats_is_that_of_findings_without_a_column(readme):
    found = table_of_cheats(page("FINDINGS.md"))
    assert len(found) == 6
    without_swapped = [cells[:2] + cells[3:] for cells in found]
    assert table_of_cheats(readme) == without_swapped


RINGS = {  # how a row of the table of networks begins -> the architecture, the side of its patches
    "ViT-Base, 16 patches": ("vit_base", 7),
    "ViT-Tiny, 16 patches": ("vit_tiny", 7),
    "ViT-Tiny, 49 patches": ("vit_tiny", 4),
    "ResNet-18, for which Grad-CAM was made": ("resnet18", 7),
}
WITH_RANGE = ("ViT-Tiny, 49 patches", "ResNet-18, for which Grad-CAM was made")


def rings_found(kind: str, method: str, network: tuple[str, int]) -> list[float]:
    """In how many % of the images each model of a kind has its hottest patch on the ring."""
    content = (SHIPPED / "planted.json").read_text("utf-8")
    asked = (kind, "corner", *network)
    found = []
    for unit in json.loads(content)["units"]:
        described = tuple(unit[key] for key in ("kind", "mark", "model", "patch"))
        if described == asked:
            measured = unit["maps"][method]
            found.append(100 * measured["hits"])
    assert len(found) == 6
    return found


def ends(values: list[float]) -> list[int]:
    """The lowest and the highest one, rounded."""
    return [
        round(min(values)),
        round(max(values)),
    ]


@pytest.mark.parametrize("begin", RINGS)
def test_its_table_of_networks_has_the_means_of_the_models(readme, begin):
    network = RINGS[begin]
    cheats = rings_found("cheat", "grad_cam", network)
    honest = rings_found("honest", "grad_cam", network)
    by_hiding = rings_found("cheat", "occlusion", network)
    expected = [round(mean(cheats))]
    if begin in WITH_RANGE:
        expected += ends(cheats)
    expected.append(round(mean(honest)))
    expected += sorted(set(ends(by_hiding)))
    assert row_beside(begin, readme) == expected


@pytest.mark.parametrize("name", ["01_data", "06_benchmark"])
def test_the_answer_stands_in_the_same_three_sentences_in_the_notebooks(readme, name):
    begin = readme.index("1. **Rounded to 8 bits")
    answer = readme[begin : readme.index("\n\n", begin)]
    assert answer.count("\n") == 2
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert any(answer in cell.source for cell in notebook.cells)


def test_it_gives_the_scores_of_the_earlier_projects_recipe(readme):
    original = next(run for run in read_runs(SHIPPED / "runs.json") if run["method"] == "original")
    accuracy = 100 * original["last"]["accuracy"]
    assert f"{accuracy:.1f} % ({original['last']['auc']:.3f})" in readme
