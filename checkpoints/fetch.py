"""Check the checkpoints in this folder, or fetch them from a base URL or another folder.

    python checkpoints/fetch.py                      # what is here, and is it whole?
    python checkpoints/fetch.py BASE [ID ...]        # BASE: http(s)://... or a folder with the same layout
    python checkpoints/fetch.py --readme             # rewrite README.md and index.json from the cards

BASE may also come from SWYS_CHECKPOINTS_URL. No address is built in: a clone of the repository is complete.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))

from swys_utils.config import SwysError  # noqa: E402
from swys_utils.fetch import INDEX, check_checkpoints, fetch_checkpoints  # noqa: E402

INTRODUCTION = """# Checkpoints

Each folder holds `model.safetensors` (in shards when it is large) and `card.json`: the model, the data, the recipe,
the seed, the scores of exactly these stored weights on the test split, and the sha256 of every file. There is no
pickle here. Load one with `swys_utils.models.load_checkpoint("pneumoniamnist/vit_tiny")`.

This table is generated from the cards (`python checkpoints/fetch.py --readme`).

| id | model | method | status | stored as | size | test accuracy | AUC | ECE |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

NOTES = """
* `fp16`: half precision. `int8`: matrices as int8 with one fp16 scale for each output row (weight = int8 x scale),
  the rest fp16. Both become float32 on loading.
* The weights are of the *last* epoch of a fixed schedule, seed 0; nothing was chosen by the test split.
* `explanations.json`, `matching.json` and `pocket.json` are long measurements that notebooks 4 and 5 show: of the
  heatmaps of these checkpoints (`tools/measure_explanations.py`), of students taught on
  (`tools/match_explanations.py`), and of the pocket set (`swys reproduce --pocket`, then `swys agreement`).
* The training images are from MedMNIST v2 (Yang et al. 2023), CC BY 4.0. A card carries a 64-bit fingerprint of each
  of them, so that `swys evaluate` can say how many of *your* images a checkpoint was trained on.
* `python checkpoints/fetch.py` checks every file against its card; with a base URL or a folder it fetches what is
  missing.
"""


def write_readme() -> None:
    rows, ids = [], []
    for path in sorted(FOLDER.glob("*/*/card.json")):
        card = json.loads(path.read_text())
        stored, name = card["stored"], str(path.parent.relative_to(FOLDER))
        size = sum(entry["bytes"] for entry in card["files"]) / 1e6
        ids.append(name)
        rows.append(
            f"| `{name}` | {card['model']} | {card.get('method', '')} | {card.get('status', 'reference')}"
            f" | {stored['dtype']} | {size:.1f} MB"
            f" | {stored['accuracy']:.1%} | {stored['auc']:.3f} | {stored['ece']:.3f} |"
        )
    (FOLDER / "README.md").write_text(INTRODUCTION + "\n".join(rows) + "\n" + NOTES)
    (FOLDER / INDEX).write_text(json.dumps({"checkpoints": ids}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default=os.environ.get("SWYS_CHECKPOINTS_URL"), help="base URL or folder")
    parser.add_argument("ids", nargs="*", help="for example pneumoniamnist/vit_tiny (default: all of the index)")
    parser.add_argument("--readme", action="store_true", help="rewrite README.md and index.json from the cards")
    options = parser.parse_args()
    if options.readme:
        write_readme()
        return 0
    try:
        if options.base:
            for line in fetch_checkpoints(options.base, FOLDER, options.ids or None):
                print(line, flush=True)
    except SwysError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 2
    found = list(check_checkpoints(FOLDER))
    for line, _ in found:
        print(line)
    if not options.base:
        print("nothing was fetched: give a base URL or a folder, or set SWYS_CHECKPOINTS_URL, to fetch")
    return 0 if all(right for _, right in found) else 1


if __name__ == "__main__":
    sys.exit(main())
