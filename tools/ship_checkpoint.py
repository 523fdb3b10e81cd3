"""Put a finished run into checkpoints/: weights as stored there, their own scores, their logits, one card.

    python tools/ship_checkpoint.py runs/reference/kd_soft-0 pneumoniamnist/vit_tiny_kd [--storage fp16] [--note TEXT]

The scores and the logits are those of exactly the stored weights, read back from the file that is shipped.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from swys_utils.config import CHECKPOINTS, SwysError
from swys_utils.data import load_dataset
from swys_utils.models import load_checkpoint, read_card, save_checkpoint, save_predictions, write_json
from swys_utils.training import evaluate, predict


def ship(run: str, checkpoint_id: str, storage: str, status: str, note: str, root: str | None) -> dict:
    """Returns the card of what was written; refuses runs on the synthetic twin."""
    model, card = load_checkpoint(run)
    data = load_dataset(card["dataset"], card["size"], root, download=False)
    if card["synthetic"] or data.info.synthetic:
        raise SwysError("only runs on real images are shipped; set SWYS_DATA_DIR to a folder with them")
    card = {key: value for key, value in card.items() if key not in ("stored", "files", "predictions")}
    folder = CHECKPOINTS / checkpoint_id
    save_checkpoint(model, folder, card | {"status": status} | ({"note": note} if note else {}), storage)
    stored, card = load_checkpoint(folder)
    logits = {name: predict(stored, getattr(data, name).images) for name in ("val", "test")}
    scores = evaluate(logits["test"], data.test.labels, data.info.task)
    card = read_card(folder / "card.json")
    card["stored"] |= {
        "accuracy": scores.accuracy,
        "auc": scores.auc,
        "ece": scores.ece,
        "split": "test",
        "n": scores.n,
    }
    write_json(folder / "card.json", card)
    save_predictions(folder, np.concatenate([data.val.images, data.test.images]), np.concatenate(list(logits.values())))
    print(f"{checkpoint_id}: {scores}")
    return card


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder or file of the run")
    parser.add_argument("id", help="for example pneumoniamnist/vit_tiny_kd")
    parser.add_argument("--storage", default="fp16", help="fp32, fp16 or int8 (default: %(default)s)")
    parser.add_argument("--status", default="reference", help="reference or interim (default: %(default)s)")
    parser.add_argument("--note", default="", help="a sentence for the card")
    parser.add_argument("--data", help="folder with the .npz file (default: SWYS_DATA_DIR)")
    options = parser.parse_args()
    try:
        ship(options.run, options.id, options.storage, options.status, options.note, options.data)
    except SwysError as error:
        print(f"ship_checkpoint: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
