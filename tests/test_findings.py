"""The numbers of FINDINGS.md are those of the shipped results."""

import json
import re
from statistics import mean

import pytest
from pages import SHIPPED, numbers_in, page, row_beside

from swys_figures.agreement import beyond_chance
from swys_studies.runs import read_runs, read_study
from swys_utils.metrics import t_interval
from swys_utils.shipped_results import deployed_models


@pytest.fixture(scope="module")
def findings() -> str:
    return page("FINDINGS.md")


SCORES = {  # how a row of the table of scores begins -> how the ids of its runs begin
    "Base | 12": "vit_base/labels/",
    "Base | 30": "vit_base/labels_30/",
    "Tiny | 12": "vit_tiny/labels_12/",
    "Tiny | 30": "vit_tiny/labels/",
    "Tiny, mixed views | 100": "vit_tiny/labels_strong/",
    "Tiny, whole pictures | 30": "vit_tiny/labels_whole/",
    "Tiny, mixed views of whole pictures | 100": "vit_tiny/labels_strong_whole/",
    "Tiny, taught by Base's answers | 30": "vit_tiny/answers/",
    "Tiny, taught by two better Tinys' answers | 30": "vit_tiny/answers_of_196/",
    "Tiny, taught by two ResNets' answers | 30": "vit_tiny/answers_of_resnets/",
    "Tiny, taught by two ResNets' answers between the images | 60": "vit_tiny/answers_matching/",
}
RESNETS = "ResNet-18, 11 M weights | 12"


def means_of(runs: list[dict]) -> list[float]:
    """How many runs, then their mean accuracy, AUC, and recall of the sick and the healthy."""
    healthy, sick = zip(*[run["recall"] for run in runs])
    return [
        len(runs),
        round(100 * mean(run["last"]["accuracy"] for run in runs), 1),
        round(mean(run["last"]["auc"] for run in runs), 3),
        round(100 * mean(sick)),
        round(100 * mean(healthy)),
    ]


@pytest.mark.parametrize("begin", SCORES)
def test_its_table_of_scores_has_the_means_of_the_runs(findings, begin):
    entries = read_runs(SHIPPED / "runs.json")
    runs = [run for run in entries if run["id"].startswith(SCORES[begin])]
    assert row_beside(begin, findings) == means_of(runs)


def test_its_table_of_scores_has_the_resnets(findings):
    runs = json.loads((SHIPPED / "cnn.json").read_text("utf-8"))["runs"]
    assert row_beside(RESNETS, findings) == means_of(runs)


def test_the_rows_of_its_table_of_scores_follow_each_other(findings):
    lines = findings.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("| Base | 12"))
    for place, begin in enumerate([*SCORES, RESNETS], start=first):
        assert lines[place].startswith(f"| {begin} |")


def test_it_gives_the_gain_of_a_better_teacher(findings):
    auc = {run["id"]: run["last"]["auc"] for run in read_runs(SHIPPED / "runs.json")}
    for other in ("answers", "labels"):
        gains = []
        for seed in range(4):
            better = auc[f"vit_tiny/answers_of_196/seed{seed}"]
            gains.append(better - auc[f"vit_tiny/{other}/seed{seed}"])
        low, high = t_interval(gains)
        gain = f"{mean(gains):.3f} [{abs(low):.3f}, {high:.3f}]".replace("0.", ".")
        assert gain in findings.replace("[-", "["), other


COMPARED = {  # how a row of the table of agreement begins -> how the ids of its runs begin
    "other Bases (three; reasons and maps of two)": tuple(
        f"vit_base/labels/seed{seed}" for seed in (1, 2, 3)
    ),
    "Tiny (four)": ("vit_tiny/labels/",),
    "Tiny, after as many passes as Base (maps of two of four)": ("vit_tiny/labels_12/",),
    "Tiny, taught Base's answers (four)": ("vit_tiny/answers/",),
    "Tiny, taught another Base's answers (two)": ("vit_tiny/answers_of_another/",),
    "Tiny, taught a Tiny's answers (four, of two teachers)": (
        "vit_tiny/answers_of_tiny/",
        "vit_tiny/answers_of_our_tiny/",
    ),
    "Tiny, taught two better Tinys' answers (four)": ("vit_tiny/answers_of_196/",),
    "Tiny, taught Base's answers and maps (four)": ("vit_tiny/maps/",),
}


@pytest.mark.parametrize("begin", COMPARED)
def test_its_table_of_agreement_has_the_means_of_the_runs(findings, begin):
    entries = {run["id"]: run for run in read_runs(SHIPPED / "runs.json")}
    base = entries["vit_base/labels/seed0"]["predicted"]
    same = []
    for run_id, run in entries.items():
        if run_id.startswith(COMPARED[begin]):
            same.append(mean(one == other for one, other in zip(run["predicted"], base)))
    maps = read_study(SHIPPED / "agreement.json")["maps"]
    expected = [round(100 * mean(same))]
    for ruler in ("occlusion", "grad_cam"):
        compared = maps[ruler]["runs"]
        pairs = [compared[name] for name in compared if name.startswith(COMPARED[begin])]
        expected.append(round(mean(beyond_chance(pairs))))
    assert row_beside(begin, findings) == expected


def test_its_table_of_agreement_has_the_resnets(findings):
    pairs = json.loads((SHIPPED / "cnn.json").read_text("utf-8"))["pairs"]
    with_base = [pair for name, pair in pairs.items() if name.startswith("vit_base and")]
    expected = [round(100 * mean(pair["same_answer"] for pair in with_base))]
    for ruler in ("occlusion", "grad_cam"):
        expected.append(round(mean(beyond_chance([pair[ruler] for pair in with_base]))))
    assert row_beside("a ResNet-18 (two)", findings) == expected


def test_it_gives_what_models_of_blood_cells_share(findings):
    (text,) = re.findall(r"^\* \*\*On eight kinds of blood cells.*$", findings, re.MULTILINE)
    study = read_study(SHIPPED.parent / "bloodmnist-p7" / "agreement.json")
    expected = []
    for ruler in ("occlusion", "grad_cam"):
        rows = study["maps"][ruler]["runs"]
        for kind in ("vit_tiny/labels", "vit_base/labels", "vit_tiny/answers", "vit_tiny/maps"):
            of_kind = [row for run_id, row in sorted(rows.items()) if run_id.startswith(kind)]
            expected += [round(value) for value in beyond_chance(of_kind)]
    (two_tinys,) = study["siblings"]["occlusion"].values()
    expected += [round(value) for value in beyond_chance([two_tinys])]
    _, _, numbers = text.partition("By occlusion")
    assert numbers_in(numbers)[: len(expected)] == expected


def test_it_gives_what_teachers_do_with_few_labels(findings):
    (text,) = re.findall(r"^With the labels of 1 %.*$", findings, re.MULTILINE)
    runs = read_runs(SHIPPED / "runs.json")
    areas = {}
    for kind in ("few_labels", "few_answers", "few_control"):
        of_kind = [run for run in runs if run["id"].startswith(f"vit_tiny/{kind}/")]
        areas[kind] = {run["seed"]: run["last"]["auc"] for run in of_kind}
    alone = areas["few_labels"]
    taught = areas["few_answers"].values()
    gains = [area - alone[seed] for seed, area in areas["few_answers"].items()]
    of_control = [area - alone[seed] for seed, area in areas["few_control"].items()]
    wanted = [mean(alone.values()), min(alone.values()), max(alone.values())]
    wanted += [mean(taught), min(taught), max(taught), *gains, mean(gains), *t_interval(gains)]
    wanted += [mean(of_control), *t_interval(of_control), max(of_control)]
    areas_in_text = [number for number in numbers_in(text) if 0 < abs(number) < 1]
    assert areas_in_text == [round(number, 3) for number in wanted]


def test_few_labels_of_blood_cells_have_the_same_answer(findings):
    (text,) = re.findall(
        r"^On eight kinds of blood cells \(BloodMNIST, three.*$", findings, re.MULTILINE
    )
    right = {}
    for run in read_runs(SHIPPED.parent / "bloodmnist" / "runs.json"):
        right.setdefault(run["method"], {})[run["seed"]] = 100 * run["last"]["accuracy"]
    alone = right["few_labels"]
    wanted = [mean(alone.values())]
    for kind in ("few_answers", "few_control"):
        gains = [accuracy - alone[seed] for seed, accuracy in right[kind].items()]
        wanted += [mean(right[kind].values()), mean(gains), *t_interval(gains)]
    in_text = [number for number in numbers_in(text) if number % 1]
    assert in_text[: len(wanted)] == [round(number, 1) for number in wanted]


def test_it_gives_what_two_bits_do_to_the_certainty(findings):
    (text,) = re.findall(r"^\*\*With 2 bits the certainty.*$", findings, re.MULTILINE)
    models = {model["title"]: model for model in deployed_models()}
    bits = {32: "Base", 8: "Base, int8", 4: "Base, 4 bits", 2: "Base, 2 bits"}
    wanted = [2]
    for number, title in bits.items():
        wanted += [round(models[title]["ece"], 3), number]
    two = models["Base, 2 bits"]
    wanted += [round(100 * two[name], 1) for name in ("accuracy", "certainty")]
    assert numbers_in(text) == [*wanted, round(two["auc"], 3)]


def test_it_gives_what_fewer_patches_keep(findings):
    (text,) = re.findall(r"^\*\*In one student, fewer.*$", findings, re.MULTILINE)
    models = {model["title"]: model for model in deployed_models()}

    def kept(title: str) -> list[float]:
        model = models[title]
        (reasons,) = beyond_chance([model["occlusion"]])
        return [round(100 * model["same_answer"], 1), round(reasons)]

    coarse = kept("Tiny, answers, 16 patches")
    _, reasons = kept("Tiny, answers")
    rounded = kept("Tiny, answers, 16 patches, int8")
    student = models["Tiny, answers, 16 patches"]
    scores = [round(100 * student["accuracy"], 1), round(student["auc"], 3)]
    assert numbers_in(text) == [16, 7, 49, *scores, *coarse, reasons, *rounded]


def test_it_gives_what_a_longer_recipe_does_on_blood_cells(findings):
    (text,) = re.findall(r"^\* \*\*On blood cells a longer.*$", findings, re.MULTILINE)
    runs = read_runs(SHIPPED.parent / "bloodmnist" / "runs.json")
    wanted = []
    for kind in ("vit_tiny/labels_strong/", "vit_tiny/labels/"):
        right = [run["last"]["accuracy"] for run in runs if run["id"].startswith(kind)]
        wanted.append(round(100 * mean(right), 1))
    assert numbers_in(text) == wanted


def test_the_size_of_reasons_is_the_one_that_notebook_4_printed(findings):
    (text,) = re.findall(r"^\* \*\*These reasons are small.*$", findings, re.MULTILINE)
    printed = page("notebooks/04_gradcam.ipynb")
    wanted = []
    for model in ("Base", "Tiny"):
        line = rf'"{model}: ([\d.]+)% sure as it is\\n",\s+" +([\d.]+)% sure without'
        (found,) = re.findall(line, printed)
        wanted += [float(number) for number in found]
    assert [number for number in numbers_in(text) if number % 1] == wanted


def test_notebook_4_says_how_often_the_hottest_patch_is_the_same():
    (text,) = re.findall(
        r"Count only the patch that matters most: (.*?)\. ", page("notebooks/04_gradcam.ipynb")
    )
    runs = read_study(SHIPPED / "agreement.json")["maps"]["occlusion"]["runs"]
    tinys = [run for name, run in runs.items() if name.startswith("vit_tiny/labels/")]
    bases = [run for name, run in runs.items() if name.startswith("vit_base/labels/")]
    shares = [mean(run["same_top"] for run in tinys)]
    for what in ("same_top", "same_top_chance"):
        shares += [base[what] for base in bases]
    in_text = [number for number in numbers_in(text) if number != 100]
    assert in_text == [round(100 * share) for share in shares]


def test_it_gives_the_errors_that_are_shared(findings):
    (text,) = re.findall(r"^Of Base's \d+ errors.*$", findings, re.MULTILINE)
    runs = json.loads((SHIPPED / "inheritance.json").read_text("utf-8"))["runs"]
    shares = {}
    for begin in ("vit_tiny/answers/", "vit_base/labels/", "vit_tiny/labels/"):
        of_kind = [run for run in runs if run["id"].startswith(begin)]
        shares[begin] = [100 * run["inherited"] for run in of_kind]
    taught, second, alone = shares.values()
    wanted = [runs[0]["teacher_errors"], mean(taught), *t_interval(taught), mean(second)]
    wanted += [mean(alone), *t_interval(alone)]
    assert numbers_in(text)[: len(wanted)] == [round(number) for number in wanted]
