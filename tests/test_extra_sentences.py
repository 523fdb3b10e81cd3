"""Sentences of notebooks 5 and 6 and some extras whose numbers no cell prints: shipped results."""

from pathlib import Path
from statistics import mean

import nbformat
import pytest
from pages import ring_tinys

from swys_figures.agreement import beyond_chance
from swys_figures.obedience import like_honest
from swys_utils.shipped_results import planted_units, read_results

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
EXTRAS = NOTEBOOKS / "extras"
IN_WORDS = {3: "three", 8: "eight", 12: "twelve", 13: "thirteen", 17: "seventeen"}
STUDENTS = {  # a row of the folded table of extra 13 -> what the ids of its models begin with
    "our Tiny": "vit_tiny",
    "two students of the mean of their answers": "vit_tiny/answers_of_resnets/",
    "two students of what they say of mixtures of two images": "vit_tiny/answers_matching/",
    "two Tinys of whole pictures, with labels only": "vit_tiny/labels_whole/",
    "two Tinys of mixed pictures, with labels only": "vit_tiny/labels_strong/",
}


def text_of(name: str) -> str:
    """All Markdown of an extra."""
    notebook = nbformat.read(EXTRAS / f"{name}.ipynb", as_version=4)
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def runs_of(kind: str) -> list[dict]:
    """The shipped complete runs whose ids begin so."""
    runs = read_results("pneumoniamnist", "runs")["runs"]
    return [run for run in runs if run["id"].startswith(f"{kind}/")]


def cleared(kind: str) -> float:
    """The mean share of the healthy that these runs clear, %."""
    return 100 * mean(run["recall"][0] for run in runs_of(kind))


def areas_of(kind: str) -> list[str]:
    """The test AUC of each of these runs, with three decimals."""
    return [f"{run['last']['auc']:.3f}" for run in runs_of(kind)]


def test_extra_7_gives_the_leap_of_grad_cam_from_block_to_block():
    leaps = []
    for unit in planted_units("pneumoniamnist"):
        if (unit["kind"], unit["patch"]) == ("another cheat", 7):
            hits = [unit["methods"][f"grad_cam, block {block}"]["hits"] for block in (8, 9)]
            leaps.append([f"{share:.0%}" for share in hits])
    assert ["81%", "2%"] in leaps
    text = text_of("07_is_the_map_true")
    assert "in 81 % of its maps at the ninth block, and in 2 % at the tenth" in text


def test_extra_7_gives_what_the_texture_turns():
    turned = {}
    for kind in ("honest", "cheat"):
        flips = [
            unit["scores"]["flips"]
            for unit in planted_units("pneumoniamnist")
            if (unit["kind"], unit["mark"]) == (kind, "texture")
        ]
        assert len(flips) == 6
        turned[kind] = round(100 * mean(flips))
    words = f"it turns {turned['honest']} of 100 healthy children, and in the cheats"
    assert f"{words} {turned['cheat']}" in text_of("07_is_the_map_true")


def test_extra_7_gives_what_rings_turn_in_honest_models():
    turned = {}
    units = planted_units("pneumoniamnist")
    for mark in ("inside", "random", "meaningless"):
        for kind in ("honest", "cheat"):
            flips = []
            for unit in units:
                if unit["kind"] == kind and unit["mark"] == mark:
                    flips.append(unit["scores"]["flips"])
            assert len(flips) == 6
            share = mean(flips)
            turned[kind, mark] = round(100 * share)
    text = text_of("07_is_the_map_true")
    inside, random, meaningless = (
        turned["honest", mark] for mark in ("inside", "random", "meaningless")
    )
    assert f"The ring in the chest turns {inside} of 100 healthy children in them" in text
    assert f"at a random place {random}, and the meaningless one {meaningless}." in text
    assert f"In the cheats of the ring in the chest it is {turned['cheat', 'inside']}." in text


def test_extra_7_gives_what_hires_cam_misses_at_the_first_block():
    units = planted_units("pneumoniamnist")
    of_all = [unit for unit in units if (unit["kind"], unit["patch"]) == ("another cheat", 7)]
    found = [
        mean(unit["methods"][f"hires_cam, block {block}"]["hits"] for unit in of_all)
        for block in range(12)
    ]
    assert max(found) == found[0]
    assert round(10 * (1 - found[0])) == 4
    assert "Even there it misses four of ten rings" in text_of("07_is_the_map_true")


def test_extra_12_says_what_views_and_size_move():
    base_blurred = cleared("vit_base/labels")
    base_sharp = cleared("vit_base/labels_sharp")
    tiny_blurred = cleared("vit_tiny/labels")
    tiny_sharp = cleared("vit_tiny/labels_sharp")
    base = IN_WORDS[round(base_blurred - base_sharp)]
    tiny = IN_WORDS[round(tiny_blurred - tiny_sharp)]
    blurred = IN_WORDS[round(base_blurred - tiny_blurred)]
    sharp = IN_WORDS[round(base_sharp - tiny_sharp)]
    text = text_of("12_is_it_the_size")
    assert f"the cleared fall by {base} points for Base and by {tiny} for Tiny" in text
    assert f"by {blurred} points with blurred views and by {sharp} with sharp ones" in text


def test_extra_12_gives_the_two_tinys_of_mixed_views():
    mixed = areas_of("vit_tiny/labels_strong")
    both = areas_of("vit_tiny/labels_strong_whole")
    ordinary = areas_of("vit_tiny/labels")
    text = text_of("12_is_it_the_size")
    assert f"At {' and '.join(mixed)}, where the ordinary Tinys are" in text
    assert f"Their {' and '.join(both)} are the best" in text
    assert f"the ordinary ones, {min(ordinary)} to {max(ordinary)}" in text


@pytest.mark.parametrize("row", STUDENTS)
def test_extra_13_gives_what_others_share_with_the_resnets(row):
    pairs = read_results("pneumoniamnist", "cnn")["pairs"]
    shared = []
    for name, pair in pairs.items():
        model, _ = name.split(" and ")
        begin = STUDENTS[row]
        if model == begin or (begin.endswith("/") and model.startswith(begin)):
            shared += beyond_chance([pair["occlusion"]]).round().astype(int).tolist()
    ends = sorted({min(shared), max(shared)})
    assert f"| {row} | {' to '.join(map(str, ends))} % |" in text_of("13_what_two_models_share")


def test_extra_14_says_where_the_students_of_better_teachers_end():
    means = []
    for kind in ("answers_of_196", "answers_of_resnets", "answers_matching"):
        means.append(mean(run["last"]["auc"] for run in runs_of(f"vit_tiny/{kind}")))
    words = f"at a mean AUC of {min(means):.3f} to {max(means):.3f}"
    assert words in text_of("14_what_makes_a_teacher")


def test_notebook_5_gives_what_maps_alone_teach():
    units = [unit for unit in planted_units() if unit["kind"] == "honest maps alone"]
    assert len(units) == 6
    maps = [like_honest(unit, "grad_cam") for unit in units]
    areas = [unit["scores"]["clean"]["auc"] for unit in units]
    page = (NOTEBOOKS / "05_distillation.ipynb").read_text(encoding="utf-8")
    assert f"They have its maps, by {min(maps):.0f} to {max(maps):.0f} % beyond chance." in page
    assert f"anywhere from {min(areas):.2f} to {max(areas):.2f}, and at {min(areas):.2f}" in page


def turned_by_the_ring(kind: str) -> int:
    """Of 100 healthy children, on average over these students."""
    return round(100 * mean(unit["scores"]["flips"] for unit in ring_tinys(kind)))


def found_by_hiding(kind: str) -> int:
    """In how many % of the images hiding's hottest patch is on the ring, on average."""
    return round(100 * mean(unit["maps"]["occlusion"]["hits"] for unit in ring_tinys(kind)))


def test_notebook_5_gives_what_honest_hiding_teaches():
    reasons = "labels + honest occlusion"
    turned = turned_by_the_ring(reasons)
    cheats = turned_by_the_ring("cheat")
    answers = found_by_hiding("labels + honest answers")
    page = (NOTEBOOKS / "05_distillation.ipynb").read_text(encoding="utf-8")
    assert f"the ring turns {turned} of 100, where it turns {cheats} in plain cheats" in page
    assert (
        f"in only {found_by_hiding(reasons)} % of these students' images. In students of"
        f" *labels + honest answers*, who obey it less, it finds it in {answers} %."
    ) in page


def test_extra_7_gives_what_hiding_finds_in_those_who_were_taught_by_it():
    reasons = "labels + honest occlusion"
    answers = "labels + honest answers"
    text = text_of("07_is_the_map_true")
    assert (
        f"Beside labels {turned_by_the_ring(answers)} turn, and with honest reasons beside labels"
        f" {turned_by_the_ring(reasons)}."
    ) in text
    assert (
        f"in {found_by_hiding(reasons)} % where the others have {found_by_hiding(answers)}."
    ) in text


def test_extra_7_gives_the_ranking_of_those_who_were_taught_maps():
    def swapped(kind: str) -> str:
        area = mean(unit["scores"]["swapped"]["auc"] for unit in ring_tinys(kind))
        return f"{area:.2f}"

    text = text_of("07_is_the_map_true")
    assert f"maps may help a little: {swapped('labels + honest maps')} on swapped images" in text
    assert f"Cheats of the same starts have {swapped('another cheat')}, those of the figure" in text
    assert f"which have other starts, {swapped('cheat')}" in text
    others = swapped("labels + maps of other images")
    assert f"students of other images' maps {others}" in text


def test_notebook_5_gives_the_reasons_that_other_tinys_hand_on():
    runs = read_results("pneumoniamnist", "agreement")["maps"]["occlusion"]["runs"]
    for kinds in (("answers_of_tiny", "answers_of_our_tiny"), ("answers_of_196",)):
        pairs = [pair for name, pair in runs.items() if name.split("/")[1] in kinds]
        assert len(pairs) == 4
        assert beyond_chance(pairs).mean() == pytest.approx(40, abs=2)
    page = (NOTEBOOKS / "05_distillation.ipynb").read_text(encoding="utf-8")
    assert "*other Tinys'* answers have about 40 % of Base's reasons" in page


def test_notebook_6_gives_what_is_kept_from_a_resnet_on():
    of_resnets = []
    for name, pair in read_results("pneumoniamnist", "cnn")["pairs"].items():
        if name.startswith("vit_base and"):
            of_resnets.append(pair["occlusion"])
    start = beyond_chance(of_resnets).mean()
    runs = read_results("pneumoniamnist", "agreement")["maps"]["occlusion"]["runs"]
    tinys = [pair for name, pair in runs.items() if name.startswith("vit_tiny/labels/")]
    second = beyond_chance([runs["vit_base/labels/seed1"]]).mean()
    kept = (beyond_chance(tinys).mean() - start) / (second - start)
    page = (NOTEBOOKS / "06_benchmark.ipynb").read_text(encoding="utf-8")
    assert f"{kept:.0%}".replace("%", " %") + " of the way to a second Base's reasons" in page
