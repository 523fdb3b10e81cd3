"""A comparison as JSON; ``compare.schema.json`` beside this file says what it holds."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .comparison import Measured
from .gates import exit_code, gates_of
from .measure_rows import Row
from .opened_models import OpenedModel
from .shown_images import ShownImage
from .wording import headline

SCHEMA = Path(__file__).parent / "compare.schema.json"
FORMAT = "swys-compare-1"
PACKAGES = ("torch", "timm", "torchvision", "onnxruntime", "transformers")


def report(measured: Measured) -> dict[str, Any]:
    """The comparison as JSON holds it.

    Args:
        measured: the comparison.

    Returns:
        What ``compare.schema.json`` describes; unknown numbers are None.
    """
    gates = gates_of(measured)
    models = {name: _model(model) for name, model in measured.models.items()}
    return {
        "format": FORMAT,
        "headline": headline(measured),
        "exit_code": exit_code(gates),
        "gates": [asdict(gate) for gate in gates],
        "models": models,
        "data": {
            "source": measured.images.source,
            "images": len(measured.images),
            "labels": measured.images.labels is not None,
            "classes": list(measured.class_names),
        },
        "measures": [_row(row) for row in measured.rows],
        "notes": list(measured.notes),
        "changed": measured.changed,
        "images": [_image(image) for image in measured.shown],
        "seconds": round(measured.seconds, 1),
        "versions": _versions(),
    }


def schema() -> dict[str, Any]:
    """The JSON schema of a report."""
    return json.loads(SCHEMA.read_text("utf-8"))


def _number(value: float | None) -> float | None:
    """A number that JSON can hold."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def _model(model: OpenedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind,
        "preprocessing": model.preprocessing,
        "map": model.map_layer if model.draw is not None else None,
        "why_no_map": None if model.draw is not None else model.map_layer,
        "parameters": model.parameters or None,
        "bytes": model.size_bytes or None,
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "title": row.title,
        "verdict": row.verdict,
        "value": _number(row.estimate.value),
        "low": _number(row.estimate.low),
        "high": _number(row.estimate.high),
        "unit": row.unit,
        "bound": row.bound,
        "a": row.a or None,
        "b": row.b or None,
        "images": row.images,
        "chance": _number(row.chance),
        "ceiling": _number(row.ceiling),
        "class": row.subject or None,
        "note": row.note,
        "meaning": row.meaning,
        "notebook": f"notebooks/{row.notebook}",
    }


def _image(image: ShownImage) -> dict[str, Any]:
    return {
        "index": image.index,
        "name": image.name,
        "kind": image.kind,
        "truth": image.truth,
        "answers": list(image.answers),
        "confidences": list(image.confidences),
        "map_agreement": _number(image.map_agreement),
        "occlusion_agreement": _number(image.occlusion_agreement),
    }


def _versions() -> dict[str, str]:
    """Versions of the libraries that the models may have come from."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
