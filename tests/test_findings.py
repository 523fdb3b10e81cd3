"""The numbers of FINDINGS.md are those of the shipped results."""

import json
import re
from statistics import mean

import pytest
from pages import SHIPPED, numbers_in, page, row_beside

from swys_figures.agreement import beyond_chance
from swys_studies.runs import read_runs, read_study
from swys_utils.metrics import t_interval
from swys_utils.shipped_results import deployed_models, planted_units


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


CHEATS = {  # how a row of the table of rings begins -> the architecture, the side of its patches
    "ViT-Base, 16 patches (chance 6)": ("vit_base", 7),
    "ViT-Tiny, 16 patches (chance 6)": ("vit_tiny", 7),
    "ViT-Tiny, 49 patches (the ring touches four of them: chance 8)": ("vit_tiny", 4),
    "ResNet-18, for which Grad-CAM was made (chance 6)": ("resnet18", 7),
}


def planted_of(kind: str) -> list[dict]:
    """The shipped models of a kind that learned from X-rays with the ring in their corner."""
    units = json.loads((SHIPPED / "planted.json").read_text("utf-8"))["units"]
    return [unit for unit in units if unit["kind"] == kind and unit["mark"] == "corner"]


def test_integrated_gradients_find_the_ring_in_nearly_every_image():
    found = []
    for unit in planted_of("cheat") + planted_of("another cheat"):
        if unit["model"] == "vit_tiny":
            found.append(round(100 * unit["methods"]["integrated_gradients"]["hits"]))
    words = f"{min(found)} to {max(found)} % of the images of {len(found)} cheating Tinys"
    assert words in page("README.md")


def drawn_for_long(kind: str, patch: int) -> list[dict]:
    """The models of a kind and patch, px, that learned from drawn X-rays for eighteen passes."""
    path = SHIPPED.parent / "pneumoniamnist-twin" / "planted.json"
    units = json.loads(path.read_text("utf-8"))["units"]
    asked = (kind, 18, patch)
    return [unit for unit in units if (unit["kind"], unit["epochs"], unit["patch"]) == asked]


def test_it_gives_what_points_at_a_ring_that_does_not_matter(findings):
    def hits(mark, key):
        cheats = [
            unit
            for unit in planted_units("pneumoniamnist")
            if (unit["kind"], unit["patch"], unit["mark"]) == ("cheat", 7, mark)
        ]
        assert len(cheats) == 6
        return round(100 * mean(unit["methods"][key]["hits"] for unit in cheats))

    keys = ("occlusion, mean", "integrated_gradients", "attention_rollout, block 11")
    assert [hits("meaningless", key) for key in keys] == [1, 5, 0]
    assert [hits("corner", key) for key in keys] == [100, 100, 90]
    last = "grad_cam, block 11"
    assert (hits("meaningless", last), hits("corner", last)) == (7, 14)
    assert "lies on the ring in 1 % of the images, that of integrated gradients in 5 %" in findings
    assert "In the cheats they find it in 100, 100 and 90 %" in findings
    assert "Grad-CAM at the last block points at it in 7 and 14 %" in findings


def test_it_gives_what_the_ring_turns_in_students_with_49_patches(findings):
    turned = []
    for kind in ("cheat", "labels + honest maps", "labels + honest answers", "honest answers"):
        flips = [unit["scores"]["flips"] for unit in planted_of(kind) if unit["patch"] == 4]
        assert len(flips) == 6
        turned.append(f"{mean(flips):.0%}".replace("%", " %"))
    cheats, of_maps, of_both, of_answers = turned
    assert (
        f"the ring turns {cheats} in plain cheats, {of_maps} in students of honest maps, {of_both}"
        f" in those of labels and honest answers, and {of_answers} in those of honest answers alone"
    ) in findings


def test_it_gives_what_the_ring_turns_after_honest_occlusion_and_maps_of_chance(findings):
    turned = []
    for kind in ("labels + honest occlusion", "labels + maps of an untrained model"):
        flips = [100 * unit["scores"]["flips"] for unit in planted_of(kind) if unit["patch"] == 4]
        assert len(flips) == 6
        turned.append((round(mean(flips)), round(min(flips)), round(max(flips))))
    (reasons, least, most), (untrained, _, _) = turned
    assert f"honest occlusion it turns {reasons} % ({least} to {most} by start)" in findings
    assert f"the maps of an untrained model {untrained} %" in findings


def test_the_drawn_rings_are_those_of_the_runs(findings):
    turned = {}
    for kind in ("cheat", "labels + honest maps", "honest answers"):
        units = drawn_for_long(kind, patch=7)
        assert len(units) == 6
        turned[kind] = [100 * unit["scores"]["flips"] for unit in units]
    cheat, maps, answers = (round(mean(shares)) for shares in turned.values())
    least, most = (round(end(turned["honest answers"])) for end in (min, max))
    assert f"turns {cheat} % in plain cheats and {maps} % in students of honest maps" in findings
    assert f"{answers} % turn on average, from {least} to {most} % by start" in findings
    readme = page("README.md")
    assert f"{cheat} % turn in plain cheats, {maps} % in students of honest maps" in readme
    assert (
        f"{answers} % in students of honest answers alone ({least} to {most} % by start)" in readme
    )


def test_the_drawn_rings_with_smaller_patches_are_those_of_the_runs(findings):
    def turned(kind):
        shares = [100 * unit["scores"]["flips"] for unit in drawn_for_long(kind, patch=4)]
        assert len(shares) == 6
        return round(mean(shares)), round(min(shares)), round(max(shares))

    assert "in plain cheats {} % turn ({} to {})".format(*turned("cheat")) in findings
    of_maps = "in students of honest maps {} % ({} to {})"
    assert of_maps.format(*turned("labels + honest maps")) in findings
    of_answers = "in students of honest answers {} % ({} to {})"
    assert of_answers.format(*turned("honest answers")) in findings


@pytest.mark.parametrize("begin", CHEATS)
def test_its_table_of_rings_has_the_range_of_the_models(findings, begin):
    expected = []
    for kind, method in (("cheat", "grad_cam"), ("honest", "grad_cam"), ("cheat", "occlusion")):
        units = [u for u in planted_of(kind) if (u["model"], u["patch"]) == CHEATS[begin]]
        hits = [round(100 * unit["maps"][method]["hits"]) for unit in units]
        expected += sorted({min(hits), max(hits)})
    assert row_beside(begin, findings) == expected


def test_it_gives_what_heavier_maps_change(findings):
    (text,) = re.findall(r"^Does the weight of the maps.*$", findings, re.MULTILINE)
    wanted = []
    for weight in (0.5, 8, 32):
        units = planted_of(f"labels + honest maps, weight {weight}")
        turned = [100 * unit["scores"]["flips"] for unit in units]
        wanted += [weight, round(mean(turned))]
    wanted += [round(min(turned)), round(max(turned))]  # of the heaviest
    assert numbers_in(text) == wanted


def test_it_gives_what_maps_alone_teach(findings):
    (text,) = re.findall(r"^And heatmaps alone.*$", findings, re.MULTILINE)
    units = planted_of("honest maps alone")
    maps = [round(unit["like_honest"]["grad_cam"]["agreement"], 2) for unit in units]
    areas = {unit["seed"]: unit["scores"]["clean"]["auc"] for unit in units}
    reasons = {unit["seed"]: unit["like_honest"]["occlusion"]["agreement"] for unit in units}
    reversed_seeds = [seed for seed, area in areas.items() if area < 0.5]
    assert (len(units), len(reversed_seeds)) == (6, 2)
    wanted = [min(maps), max(maps), min(areas.values()), max(areas.values())]
    wanted += [reasons[seed] for seed in reversed_seeds]
    assert numbers_in(text) == [round(number, 2) for number in wanted]


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
