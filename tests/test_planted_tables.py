"""Tables of planted evidence: means, intervals, chance, and lines that are not too long."""

import numpy as np

from swys_studies import planted_tables
from swys_studies.planted_measures import RULERS
from swys_utils.shipped_results import planted_units


def unit(seed, swapped, kind="cheat"):
    scores = {
        "as trained": {"auc": swapped},
        "clean": {"auc": swapped},
        "swapped": {"auc": swapped},
        "flips": 0.5,
        "lost": 0.2,
    }
    found = {
        "hits": swapped,
        "heat": 0.5,
        "chance": 0.1,
    }
    return {
        "id": f"{kind} {seed}",
        "model": "vit_tiny",
        "patch": 7,
        "mark": "corner",
        "kind": kind,
        "scores": scores,
        "maps": {ruler: {"hits": 0.5} for ruler in RULERS},
        "methods": {"occlusion": found},
        "like_honest": {ruler: {"agreement": 0.4} for ruler in RULERS},
    }


def test_a_table_has_means_and_intervals_over_seeds():
    (row,) = planted_tables.students_table([unit(0, 0.1), unit(1, 0.3)])
    assert row["seeds"] == 2
    assert row["swapped"] == "0.20 [0.00, 1.00]"  # two seeds tell nothing
    assert row["flips"].startswith("0.50")


def test_one_seed_has_no_interval():
    (row,) = planted_tables.methods_table([unit(0, 0.25)])
    assert row["hits"] == "0.25"


def test_a_method_counts_the_cheats_that_were_asked_by_it():
    def asked_at(seed, *blocks):
        found = {"hits": seed / 10, "heat": 0.5, "chance": 0.1}
        methods = {f"grad_cam, block {block}": found for block in blocks}
        return unit(seed, 0.0) | {"methods": methods}

    rows = planted_tables.methods_table([asked_at(1, 0, 10), asked_at(3, 0, 9, 10)])
    assert [(row["method"], row["seeds"]) for row in rows] == [
        ("grad_cam, block 0", 2),
        ("grad_cam, block 9", 1),
        ("grad_cam, block 10", 2),
    ]
    assert rows[1]["hits"] == "0.30"


def test_the_table_of_methods_is_of_cheats_only():
    kinds = ("honest", "cheat", "another cheat")
    rows = planted_tables.methods_table([unit(seed, 0.2, kind) for seed, kind in enumerate(kinds)])
    assert [(row["kind"], row["seeds"]) for row in rows] == [("cheat", 1), ("another cheat", 1)]


def test_a_cheat_without_a_map_does_not_count_in_the_mean():
    blank = unit(0, 0.1)
    blank["methods"]["occlusion"]["heat"] = float("nan")
    (row,) = planted_tables.methods_table([blank, unit(1, 0.1)])
    assert row["heat"] == "0.50"


def test_what_a_smaller_file_keeps_stands_beside_it():
    rows = planted_tables.int8_and_subsets_table(planted_units())
    cheats = [one for one in planted_units() if one["kind"] == "cheat" and one["patch"] == 7]
    cheats = [one for one in cheats if one["mark"] == "corner" and one["model"] == "vit_tiny"]
    in_int8 = np.mean([one["int8"]["swapped"]["auc"] for one in cheats])
    assert [row["setting"] for row in rows] == [
        "Tiny, 7 px, corner",
        "Tiny, 7 px, texture",
        "Tiny, 7 px, inside",
        "Tiny, 7 px, random",
        "Tiny, 7 px, meaningless",
        "Tiny, 4 px, corner",
        "Tiny, 7 px, two",
    ]
    assert rows[0]["swapped, int8"].startswith(f"{in_int8:.2f}")


def test_random_halves_stand_beside_single_patches():
    (row,) = planted_tables.subsets_table(planted_units())
    assert (row["setting"], row["seeds"]) == ("Tiny, 7 px, two", 6)
    shares = [unit["subsets"]["hits"] for unit in planted_units() if unit["mark"] == "two"]
    assert row["single patches"].startswith(f"{np.mean(shares):.2f} [")
    assert row["random halves"] == "1.00"


def test_cheats_of_every_shipped_data_set_have_a_row():
    rows = planted_tables.cheats_table()
    shipped = {row["images"] for row in rows}
    assert shipped == set(planted_tables.MEASURED.values())


def test_the_spread_is_of_the_last_block():
    rows = planted_tables.spread_table()
    by_method = {row["spread of the map"]: row for row in rows}
    cheats = []
    for unit in planted_units():
        if unit["kind"] == "cheat" and unit["mark"] == "texture":
            cheats.append(unit["methods"]["grad_cam, block 11"]["spread"])
    mean = f"{np.mean(cheats):.2f}"
    assert by_method["Grad-CAM"]["texture"].startswith(mean)


def test_the_usual_scores_have_means_and_seconds():
    trained = [unit(seed, 0.9) | {"seconds": 60.0} for seed in range(2)]
    assert planted_tables.usual_scores_table(trained) == [
        {
            "setting": "Tiny, 7 px, corner",
            "kind": "cheat",
            "as trained": "0.90",
            "clean": "0.90",
            "seconds": "60",
        }
    ]


def test_maps_have_a_row_for_each_ruler():
    rows = planted_tables.students_maps_table([unit(0, 0.1)])
    assert [row["by"] for row in rows] == list(RULERS)
    assert rows[0] == {
        "setting": "Tiny, 7 px, corner",
        "kind": "cheat",
        "by": "grad_cam",
        "hits": "0.50",
        "like honest": "0.40",
        "like cheat": "none",
    }


def test_a_printed_line_has_at_most_125_characters(capsys):
    planted_tables.print_tables(planted_units())
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 125


def test_each_setting_is_printed_apart(capsys):
    planted_tables.print_tables(
        [
            unit(0, 0.1),
            unit(0, 0.1) | {"patch": 4},
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if line.endswith(": who obeys the mark")]
    assert headings == [
        "Tiny, 4 px, corner: who obeys the mark",
        "Tiny, 7 px, corner: who obeys the mark",
    ]
