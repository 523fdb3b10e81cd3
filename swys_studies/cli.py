"""The commands of the studies: ``swys benchmark``, ``swys export`` and ``swys study NAME``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from swys_utils.config import SwysError
from swys_utils.data import DEFAULT_DATASET, load_dataset
from swys_utils.models import checkpoint_ids, load_checkpoint

from . import agreement, explanations, ladder, original, peers, reference, report, ship, twin
from .export import export_onnx, quantise_onnx_dynamic
from .native import at_native_resolution


def benchmark(
    dataset: str = DEFAULT_DATASET, ckpt_path: list[str] | None = None, images: int = 0, json: str = ""
) -> None:
    """The shrink ladder: what each step down to an int8 file costs and changes.

    Args:
        dataset: any 2D MedMNIST name.
        ckpt_path: checkpoints, largest first, the one to ship last; default: all shipped ones of the data
            set.
        images: so many random test images are scored (0: all).
        json: write the rungs to this file, too.

    Raises:
        SwysError: no checkpoint of this data set.
    """
    data = load_dataset(dataset)
    found = {
        path: load_checkpoint(path, "cpu", data.info.num_classes) for path in ckpt_path or shipped(dataset)
    }
    if not found:
        raise SwysError(f"no checkpoint of {dataset} is shipped; name one with --ckpt_path")
    models = {path.removeprefix(f"{dataset}/"): model for path, (model, _) in found.items()}
    rungs = ladder.shrink_ladder(models, data, images)
    print(ladder.ladder_table(rungs))
    chosen, reason = ladder.which_to_ship(rungs)
    print(f"\nship {chosen.name}: {reason}")
    if json:
        ladder.write(rungs, json, dataset=dataset, source=data.info.source, ship=chosen.name)


def export(ckpt_path: str, save_path: str, int8: bool = False, native: bool = False) -> None:
    """Write a checkpoint as an ONNX file with its card.

    Args:
        ckpt_path: a folder, a .safetensors file, or an id such as pneumoniamnist/vit_tiny.
        save_path: x.onnx.
        int8: quantise the weights and, as they come, the activations.
        native: rewrite a model of enlarged images, exactly, to read them at their stored size.
    """
    model, card = load_checkpoint(ckpt_path)
    data = load_dataset(card["dataset"], card.get("size", 28), download=False)
    if native:
        model = at_native_resolution(model, data.info.size)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "float32.onnx" if int8 else Path(save_path)
        written = export_onnx(model, target, data.info.class_names, card)
        if int8:
            written = quantise_onnx_dynamic(target, save_path)
    print(f"wrote {save_path} and its card: {written['bytes'] / 1e6:.1f} MB, {written['precision']}")


def shipped(dataset: str) -> list[str]:
    """Ids of the shipped checkpoints of a data set, the largest file first."""
    ids = [name for name in checkpoint_ids() if name.startswith(f"{dataset}/")]
    sizes = {name: sum(f["bytes"] for f in load_checkpoint(name)[1]["files"]) for name in ids}
    return sorted(ids, key=sizes.__getitem__, reverse=True)


COMMANDS = {
    "benchmark": benchmark,
    "export": export,
    "study": {
        "reference": reference.reference,
        "original": original.original,
        "time": original.time_to_original,
        "report": report.report,
        "agreement": agreement.measure,
        "explanations": explanations.measure,
        "peers": peers.compare,
        "ship": ship.ship,
        "twin": twin.make,
    },
}
