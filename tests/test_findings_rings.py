"""What FINDINGS.md says of models that may read a ring: the shipped results."""

import json
import re
from itertools import product
from statistics import mean

import pytest
from pages import SHIPPED, numbers_in, page, ring_tinys, row_beside

from swys_figures.obedience import like_honest
from swys_utils.metrics import t_interval
from swys_utils.shipped_results import planted_units


@pytest.fixture(scope="module")
def findings() -> str:
    return page("FINDINGS.md")


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


TAUGHT = {  # how a row of the table of cheats begins -> the kind of model
    "nothing: an honest model, of X-rays without a ring": "honest",
    "labels (a plain cheat)": "cheat",
    "labels and the honest model's *heatmaps*": "labels + honest maps",
    "labels and the honest model's *answers*": "labels + honest answers",
    "the honest model's answers alone": "honest answers",
    "labels and an honest Base's *heatmaps*": "labels + honest Base's maps",
    "labels and an honest Base's *answers*": "labels + honest Base's answers",
    "an honest Base's answers alone": "honest Base's answers",
    "a cheating Base's answers alone": "cheating Base's answers",
}


def swapped_of(kind: str, patch: int = 7) -> list[float]:
    """The AUC of each Tiny of a kind where only the healthy have the ring, by seed."""
    units = ring_tinys(kind, patch)
    return [unit["scores"]["swapped"]["auc"] for unit in units]


def turned_by(kind: str, patch: int = 7) -> list[float]:
    """How many of 100 healthy images the ring turns in each Tiny of a kind, by seed."""
    units = ring_tinys(kind, patch)
    return [100 * unit["scores"]["flips"] for unit in units]


@pytest.mark.parametrize("begin", TAUGHT)
def test_its_table_of_cheats_has_the_means_and_the_intervals_of_the_models(findings, begin):
    units = ring_tinys(TAUGHT[begin])
    swapped = swapped_of(TAUGHT[begin])
    turned = [100 * unit["scores"]["flips"] for unit in units]
    hits = []
    for ruler in ("grad_cam", "occlusion"):
        hits.append(100 * mean(unit["maps"][ruler]["hits"] for unit in units))
    expected = [
        round(mean(unit["scores"]["clean"]["auc"] for unit in units), 2),
        round(mean(swapped), 2),
        *(round(end, 2) for end in t_interval(swapped)),
        round(mean(turned)),
        *(max(round(end), 0) for end in t_interval(turned)),
        *(round(share) for share in hits),
    ]
    assert row_beside(begin, findings) == expected


BESIDE_CHEATS = {  # how a row of the table of honest maps begins -> the cheats, the side of patches
    "cheats of the same starts, 16 patches": ("another cheat", 7),
    "cheats of other starts, 16 patches": ("cheat", 7),
    "cheats of the same starts, 49 patches": ("another cheat", 4),
    "cheats of other starts, 49 patches": ("cheat", 4),
}


@pytest.mark.parametrize("begin", BESIDE_CHEATS)
def test_its_table_of_honest_maps_has_what_they_change(findings, begin):
    cheats, patch = BESIDE_CHEATS[begin]
    of_maps = swapped_of("labels + honest maps", patch)
    of_cheats = swapped_of(cheats, patch)
    gains = [one - other for one, other in zip(of_maps, of_cheats)]
    pairs = zip(turned_by(cheats, patch), turned_by("labels + honest maps", patch))
    fewer = [one - other for one, other in pairs]
    areas = [mean(of_cheats), mean(of_maps), mean(gains), *t_interval(gains)]
    expected = [round(area, 2) for area in areas]
    expected += [round(number) for number in (mean(fewer), *t_interval(fewer))]
    assert row_beside(begin, findings) == expected
    low, high = t_interval(fewer)
    assert low < 0 < high  # "no help is resolved"


def test_it_gives_the_ranking_of_the_controls_of_honest_maps(findings):
    (text,) = re.findall(r"^Two controls with 16 patches (.*)$", findings, re.MULTILINE)
    controls = [
        mean(swapped_of(kind))
        for kind in ("labels + maps of other images", "labels + maps of an untrained model")
    ]
    assert numbers_in(text) == [round(number, 2) for number in (*controls, 0.5)]
    assert max(controls) < mean(swapped_of("labels + honest maps")) < 0.5


def test_it_gives_what_hiding_in_the_loss_does_to_hiding(findings):
    (text,) = re.findall(r"^\*\*A ruler that is put into the loss.*$", findings, re.MULTILINE)

    def turned_and_found(kind: str, patch: int) -> tuple[list[float], list[float]]:
        units = ring_tinys(kind, patch)
        turned = [100 * unit["scores"]["flips"] for unit in units]
        return turned, [100 * unit["maps"]["occlusion"]["hits"] for unit in units]

    turned, hits = turned_and_found("labels + honest occlusion", 7)
    area = mean(swapped_of("labels + honest occlusion"))
    wanted = [mean(turned), *t_interval(turned), mean(hits), min(hits), max(hits)]
    of_answers, found_in_answers = turned_and_found("labels + honest answers", 7)
    more = [one - other for one, other in zip(found_in_answers, hits)]
    wanted += [mean(of_answers), mean(found_in_answers), mean(more), *t_interval(more)]
    small, found_in_small = turned_and_found("labels + honest occlusion", 4)
    wanted += [mean(small), min(small), max(small), mean(found_in_small)]
    numbers = numbers_in(text.replace("16 patches", "").replace("With 49", ""))
    assert numbers.pop(3) == round(area, 2)
    assert numbers == [round(number) for number in wanted]
    extra = page("notebooks/extras/07_is_the_map_true.ipynb")
    seen = f"with 49 patches hiding finds the ring in {mean(found_in_small):.0f} %"
    assert f"{seen} of the images of such students" in extra
    obeyed = f"with 49 patches, the ring turns {mean(small):.0f} of 100"
    assert f"students of honest reasons beside labels, {obeyed}" in extra


def test_integrated_gradients_find_the_ring_in_nearly_every_image():
    found = []
    for kind, patch in product(("cheat", "another cheat"), (7, 4)):
        for unit in ring_tinys(kind, patch):
            found.append(round(100 * unit["methods"]["integrated_gradients"]["hits"]))
    words = f"{min(found)} to {max(found)} % of the images of {len(found)} cheating Tinys"
    assert words in page("README.md")


def drawn_for_long(kind: str, patch: int, model: str = "vit_tiny") -> list[dict]:
    """The models of a kind and patch, px, that learned from drawn X-rays for eighteen passes."""
    path = SHIPPED.parent / "pneumoniamnist-twin" / "planted.json"
    units = json.loads(path.read_text("utf-8"))["units"]
    asked = (kind, model, 18, patch)
    found = []
    for unit in units:
        described = tuple(unit[key] for key in ("kind", "model", "epochs", "patch"))
        if described == asked:
            found.append(unit)
    return found


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
    last_block = "7 % where it means nothing, and in 14 % in the cheats"
    assert f"Grad-CAM at the last block points at the ring in {last_block}" in findings


def test_it_gives_what_the_ring_turns_in_students_with_49_patches(findings):
    turned = []
    for kind in ("cheat", "labels + honest maps", "labels + honest answers", "honest answers"):
        flips = [unit["scores"]["flips"] for unit in ring_tinys(kind, 4)]
        turned.append(f"{mean(flips):.0%}".replace("%", " %"))
    cheats, of_maps, of_both, of_answers = turned
    assert (
        f"the ring turns {cheats} in plain cheats, {of_maps} in students of honest maps, {of_both}"
        f" in those of labels and honest answers, and {of_answers} in those of honest answers alone"
    ) in findings


def test_it_gives_what_the_ring_turns_after_honest_occlusion_and_maps_of_chance(findings):
    turned = []
    for kind in ("labels + honest occlusion", "labels + maps of an untrained model"):
        flips = [100 * unit["scores"]["flips"] for unit in ring_tinys(kind, 4)]
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


def test_the_drawn_rings_in_bases_are_those_of_the_runs(findings):
    (text,) = re.findall(r"^Six \*Bases\* cheat.*$", findings, re.MULTILINE)
    units = drawn_for_long("cheat", 7, "vit_base")
    assert len(units) == 6
    turned = [100 * unit["scores"]["flips"] for unit in units]
    grad_cam = [100 * unit["maps"]["grad_cam"]["hits"] for unit in units]
    hiding = [100 * unit["maps"]["occlusion"]["hits"] for unit in units]
    wanted = [mean(turned), min(turned), max(turned), mean(grad_cam), mean(hiding), min(hiding)]
    _, *numbers = numbers_in(text)
    assert numbers[:6] == [round(number) for number in wanted]
    swapped = [unit["scores"]["swapped"]["auc"] for unit in units]
    of_tinys = [unit["scores"]["swapped"]["auc"] for unit in drawn_for_long("cheat", 7)]
    areas = [mean(swapped), *t_interval(swapped), mean(of_tinys)]
    assert numbers[6:] == [round(area, 2) for area in areas]
    in_extra_7 = (
        f"In six Bases of drawn X-rays it turns {mean(turned):.0f} %. Hiding finds it in"
        f" {mean(hiding):.0f} % of their images, and in {min(hiding):.0f} % in the worst of them."
    )
    assert in_extra_7 in page("notebooks/extras/07_is_the_map_true.ipynb")


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
        units = ring_tinys(f"labels + honest maps, weight {weight}")
        turned = [100 * unit["scores"]["flips"] for unit in units]
        wanted += [weight, round(mean(turned))]
    wanted += [round(min(turned)), round(max(turned))]  # of the heaviest
    assert numbers_in(text) == wanted


def test_it_gives_what_maps_alone_teach(findings):
    (text,) = re.findall(r"^And heatmaps alone.*$", findings, re.MULTILINE)
    units = ring_tinys("honest maps alone")
    maps = [round(unit["like_honest"]["grad_cam"]["agreement"], 2) for unit in units]
    areas = {unit["seed"]: unit["scores"]["clean"]["auc"] for unit in units}
    reasons = {unit["seed"]: unit["like_honest"]["occlusion"]["agreement"] for unit in units}
    reversed_seeds = [seed for seed, area in areas.items() if area < 0.5]
    assert (len(units), len(reversed_seeds)) == (6, 2)
    wanted = [min(maps), max(maps), min(areas.values()), max(areas.values())]
    wanted += [reasons[seed] for seed in reversed_seeds]
    assert numbers_in(text) == [round(number, 2) for number in wanted]


def test_it_gives_what_finds_one_of_two_rings(findings):
    content = json.loads((SHIPPED / "planted.json").read_text("utf-8"))
    cheats = [unit for unit in content["units"] if unit["mark"] == "two"]
    assert len(cheats) == 6
    singles = [100 * unit["maps"]["occlusion"]["hits"] for unit in cheats]
    for unit in cheats:
        assert unit["subsets"]["hits of subsets"] == 1
        assert unit["subsets"]["images"] == 16
        assert unit["methods"]["integrated_gradients"]["hits"] == 1
    share = f"{mean(singles):.0f} % of the images"
    scatter = f"{share} ({min(singles):.0f} to {max(singles):.0f} by start; "
    assert f"in {scatter}chance 12;" in findings
    extra = page("notebooks/extras/07_is_the_map_true.ipynb")
    assert f"in only {scatter}by chance 12)" in extra
    assert f"of two rings it finds one in {share}." in page("README.md")


def test_the_pages_give_what_base_hands_on(findings):
    kinds = (
        "labels + honest Base's maps",
        "labels + honest Base's answers",
        "honest Base's answers",
    )
    maps, both, answers = (round(mean(turned_by(kind))) for kind in kinds)
    beside = "beside the labels"
    in_readme = (
        f"The ring turns {maps} % in Tinys that were taught an honest Base's heatmaps {beside},"
        f" {both} % with its answers {beside}, and {answers} % with its answers alone."
    )
    assert in_readme in page("README.md")
    in_extra = (
        f"turns {maps} of 100 after labels and its maps, {both} after labels and its answers, and"
    )
    extra = page("notebooks/extras/07_is_the_map_true.ipynb")
    assert f"{in_extra} {answers} after its answers alone." in extra
    in_lesson = (
        f"the ring turns {maps} of 100 after *labels + honest maps*, {both} after"
        f" *labels + honest answers*, and {answers} after *honest answers*."
    )
    assert in_lesson in page("notebooks/05_distillation.ipynb")


def test_it_gives_how_much_the_taught_maps_are_those_of_base(findings):
    like = [like_honest(unit, "grad_cam") for unit in ring_tinys("labels + honest Base's maps")]
    assert f"honest Bases by {min(like):.0f} to {max(like):.0f} % beyond chance" in findings


def test_it_gives_what_passes_through_images_without_labels(findings):
    (text,) = re.findall(r"^\*\*Images without labels.*$", findings, re.MULTILINE)
    of_cheat = turned_by("cheat's answers, ring on half")
    of_honest = turned_by("honest answers, ring on half")
    with_labels = turned_by("honest answers")
    wanted = [
        mean(of_cheat),
        *t_interval(of_cheat),
        mean(of_honest),
        max(of_honest),
        mean(with_labels),
    ]
    assert numbers_in(text) == [round(number) for number in wanted]
    extra = page("notebooks/extras/07_is_the_map_true.ipynb")
    assert f"the cheat's answers alone teach it: {mean(of_cheat):.0f} of 100 turn." in extra


def test_the_ring_turns_few_answers_of_models_of_blood_cells(findings):
    path = SHIPPED.parent / "bloodmnist" / "planted.json"
    cheats = {"vit_tiny": [], "vit_base": []}
    for unit in json.loads(path.read_text("utf-8"))["units"]:
        if unit["kind"] == "cheat":
            cheats[unit["model"]].append(unit)
    turned = {}
    found = {}
    for model, units in cheats.items():
        turned[model] = [100 * unit["scores"]["flips"] for unit in units]
        found[model] = [100 * unit["maps"]["occlusion"]["hits"] for unit in units]
    assert len(cheats["vit_tiny"]) == 12
    assert len(cheats["vit_base"]) == 6
    most = f"at most {max(turned['vit_tiny']):.0f} % of the answers of a cheating Tiny"
    of_bases = turned["vit_base"]
    scatter = f"{min(of_bases):.0f} to {max(of_bases):.0f}"
    hidden = f"{mean(found['vit_base']):.0f} %"
    assert f"turns {most}" in findings
    assert f"it turns {mean(of_bases):.0f} % on average ({scatter} by start)" in findings
    assert f"occlusion finds it in {hidden} of their images" in findings
    readme = page("README.md")
    assert f"{most} (twelve)" in readme
    assert f"{scatter} % in six cheating Bases" in readme
    extra = page("notebooks/extras/07_is_the_map_true.ipynb")
    with_16 = [100 * unit["scores"]["flips"] for unit in cheats["vit_tiny"] if unit["patch"] == 7]
    shares = f"{mean(with_16):.0f} % in Tinys and {mean(of_bases):.0f} % in Bases"
    assert f"the ring turns few answers, {shares}" in extra
    assert f"in half of the Tinys' images, and in {hidden} of the Bases'" in extra
