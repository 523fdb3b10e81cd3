"""The numbers of the README are those of the notebooks and of the shipped results."""

import re
from statistics import mean

import nbformat
import pytest
from pages import ROOT, SHIPPED, numbers_in, page, row_beside

from swys_studies.runs import read_runs


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
        assert numbers_in(row) in lines_of_notebook_6, row


MODELS = {  # how a row of the table of models begins -> its row in the table of FINDINGS, its runs
    "a second Base (1)": ("a second Base (one)", "vit_base/labels/seed1"),
    "Tiny (4)": ("Tiny (four)", "vit_tiny/labels/"),
    "Tiny, taught Base's answers (4)": ("Tiny, taught Base's answers (four)", "vit_tiny/answers/"),
    "Tiny, taught Base's answers and maps (4)": (
        "Tiny, taught Base's answers and maps (four)",
        "vit_tiny/maps/",
    ),
}


def scores_of(begin: str) -> list[float]:
    """Mean accuracy in % and AUC of the runs whose ids begin so."""
    scores = []
    for run in read_runs(SHIPPED / "runs.json"):
        if run["id"].startswith(begin):
            scores.append(run["last"])
    accuracy = 100 * mean(score["accuracy"] for score in scores)
    return [round(accuracy, 1), round(mean(score["auc"] for score in scores), 3)]


@pytest.mark.parametrize("begin", MODELS)
def test_a_row_of_models_has_their_scores_and_what_findings_say_of_them(readme, begin):
    row_of_findings, runs = MODELS[begin]
    findings = page("FINDINGS.md")
    agreement = row_beside(row_of_findings, findings)  # test_findings compares it with the results
    assert row_beside(begin, readme) == [*scores_of(runs), *agreement]


def test_the_other_rows_of_models_are_base_and_the_resnets(readme):
    findings = page("FINDINGS.md")
    _, *scores, _, _ = row_beside("ResNet-18, 11 M weights | 12", findings)
    agreement = row_beside("a ResNet-18 (two)", findings)
    assert row_beside("a ResNet-18, 11 M weights (2)", readme) == [*scores, *agreement]
    base = scores_of("vit_base/labels/seed0")
    assert row_beside("Base, with which all are compared (1)", readme) == [*base, 100, 100, 100]


def test_its_table_of_cheats_is_that_of_findings(readme):
    findings = page("FINDINGS.md")
    heading, *rows = re.findall(
        r"^\| .* \| (?:occlusion's|\d+ %) \|$",
        readme,
        re.MULTILINE,
    )
    assert heading.startswith("| taught on X-rays with the ring by")
    assert len(rows) == 5
    assert all(row in findings.splitlines() for row in [heading, *rows])


def test_it_gives_the_scores_of_the_earlier_projects_recipe(readme):
    original = next(run for run in read_runs(SHIPPED / "runs.json") if run["method"] == "original")
    accuracy = 100 * original["last"]["accuracy"]
    assert f"{accuracy:.1f} % ({original['last']['auc']:.3f})" in readme
