"""The demo: models that run in the browser, as build/site/demo/ and, in one file, demo.html.

ONNX Runtime Web comes from the npm registry once; its files are copied, and the page asks for
nothing else. Where npm or its registry is missing, the demo is skipped with a line that says so;
everything else that goes wrong is an error.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from swys_utils.cards import read_card
from swys_utils.config import BUILD, PROJECT_ROOT, SwysError, replacing
from swys_utils.data import TWIN
from swys_utils.models import SERIES, load_checkpoint
from swys_utils.onnx_export import export_onnx, predict_onnx, quantise_onnx_dynamic
from swys_utils.planted import PLACES, Mark

SITE = PROJECT_ROOT / "site"
TARGET = BUILD / "site"
MODELS_FOLDER = SITE / "demo_models"  # written by train_demo_models.py
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = {  # name in assets/ -> name in the npm package
    "ort.mjs": "ort.wasm.bundle.min.mjs",
    "ort.wasm": "ort-wasm-simd-threaded.wasm",
}
NO_NETWORK = {  # codes with which npm says that it cannot reach its registry
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "ENOTFOUND",
    "ERR_SOCKET_TIMEOUT",
    "ETIMEDOUT",
}
SCRIPTS = ("demo_pictures.js", "demo_models.js", "demo.js")  # one after the other in the page
CLASSES = ("normal", "pneumonia")
# Checkpoints by the name of their file. The others' maps are compared with those of the first one.
MODELS: dict[str, str | Path] = {
    "vit_tiny_maps": "pneumoniamnist/vit_tiny_maps",
    "vit_tiny_answers_p7": "pneumoniamnist/vit_tiny_answers_p7",
    "vit_tiny_patch16_224_kd": "pneumoniamnist/vit_tiny_patch16_224_kd",
    "small_x": MODELS_FOLDER / "small_x",
    "small_y": MODELS_FOLDER / "small_y",
}
TITLES = {name: entry.title for name, entry in SERIES.items()}
TITLES |= {"small_x": "Small X", "small_y": "Small Y"}
IN_ONE_FILE = ("vit_tiny_maps", "small_x", "small_y")  # more would make it too large to send
ON_DEMAND = ("vit_tiny_patch16_224_kd",)  # not shown before the reader asks: it is slow
# Of the twin's test images: three of each class. The honest model knows them without a mark; it
# does not know all of them, but the puzzle needs an answer that can move.
SAMPLES = (0, 1, 2, 9, 10, 11)
HONEST = "small_x"
CHEAT = "small_y"


class NoRuntimeError(Exception):
    """ONNX Runtime Web cannot be had here, so there is no demo to build."""


def main() -> int:
    """Build the demo.

    Returns:
        The exit code: 0 also where the demo is skipped.
    """
    try:
        build()
    except NoRuntimeError as reason:
        print(f"demo: skipped, {reason}; it needs npm (Node.js) and the npm registry once")
    except (OSError, SwysError, subprocess.CalledProcessError) as error:
        print(f"demo: failed, {error}", file=sys.stderr)
        return 1
    return 0


def build() -> None:
    """Write both forms of the demo.

    Raises:
        NoRuntimeError: npm, or its registry, is missing.
    """
    assets = TARGET / "demo" / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    fetch_runtime(assets)
    models = [export(name, assets) for name in MODELS]
    write_page(TARGET / "demo" / "index.html", models)
    small = [model for name, model in zip(MODELS, models) if name in IN_ONE_FILE]
    inline = {}
    for name in [*RUNTIME_FILES, *(model["file"] for model in small)]:
        packed = gzip.compress((assets / name).read_bytes())
        inline[name] = base64.b64encode(packed).decode()
    write_page(TARGET / "demo.html", small, inline)


def fetch_runtime(folder: Path) -> None:
    """Copy the files of ONNX Runtime Web into a folder, if they are not there yet.

    Args:
        folder: where they are written.

    Raises:
        NoRuntimeError: npm is not installed, or does not reach its registry.
        subprocess.CalledProcessError: npm fails for another reason.
    """
    stamp = folder / "ort.version"  # which one the files are of; written last
    is_current = stamp.is_file() and stamp.read_text("utf-8") == RUNTIME
    if is_current and all((folder / name).is_file() for name in RUNTIME_FILES):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise NoRuntimeError("npm is not installed")
    command = [npm, "pack", "--fetch-retries=1", RUNTIME]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        codes = re.findall(r"\bcode (\w+)", done.stderr)
        if NO_NETWORK.intersection(codes):
            raise NoRuntimeError(f"npm does not reach its registry ({codes[0]})")
        done.check_returncode()
    archive_path = folder / done.stdout.split()[-1]
    with tarfile.open(archive_path) as archive:
        for name, member in RUNTIME_FILES.items():
            file = archive.extractfile(f"package/dist/{member}")
            assert file is not None  # it is a plain file
            with replacing(folder / name) as unfinished:
                unfinished.write_bytes(file.read())
    archive_path.unlink()
    stamp.write_text(RUNTIME, "utf-8")


def export(name: str, folder: Path) -> dict:
    """Write a model as an int8 ONNX file.

    Args:
        name: of the model, a key of ``MODELS``.
        folder: where the file is written.

    Returns:
        What the page says about it.
    """
    model, card = load_checkpoint(MODELS[name])
    with tempfile.TemporaryDirectory() as scratch:
        float_file = Path(scratch) / "float32.onnx"
        int8_file = Path(scratch) / f"{name}.onnx"
        export_onnx(model, float_file, CLASSES, card)
        quantise_onnx_dynamic(float_file, int8_file)
        shutil.copy(int8_file, folder)
        logits, _ = predict_onnx(folder / int8_file.name, probe()[None])
    return {
        "name": TITLES[name],
        "ticked": name not in ON_DEMAND,
        "logits": logits[0].tolist(),  # of the probe
        "file": int8_file.name,
        "bytes": (folder / int8_file.name).stat().st_size,
        "tokens": model.patch_embed.num_patches,
        "size": card["img_size"],
    }


def write_page(path: Path, models: Sequence[dict], inline: Mapping[str, str] | None = None) -> None:
    """Write one form of the demo.

    Args:
        path: of the page.
        models: what ``export`` says about the models.
        inline: files that the page itself holds, name -> gzip in base64; without them it reads
            those in assets/.
    """
    honest = read_card(MODELS_FOLDER / HONEST / "card.json")
    cheat = read_card(MODELS_FOLDER / CHEAT / "card.json")
    content = {
        "models": models,
        "samples": samples(),
        "classes": CLASSES,
        "probe": probe().ravel().tolist(),
        "mark": mark_of(cheat),
    }
    data = json.dumps(content)
    template = jinja2.Template((SITE / "demo.html").read_text("utf-8"))
    page = template.render(
        style=(SITE / "style.css").read_text("utf-8"),
        script="\n".join((SITE / name).read_text("utf-8") for name in SCRIPTS),
        data=data.replace("<", "\\u003c"),
        inline=inline or {},
        home="index.html" if inline else "../index.html",
        share=cheat["mark"]["share"],
        cheat={"name": TITLES[CHEAT], **cheat["stored"]["with_mark"]},
        honest={"name": TITLES[HONEST], **honest["stored"]["with_mark"]},
    )
    with replacing(path) as unfinished:
        unfinished.write_text(page, "utf-8")
    print(f"demo: {path.relative_to(BUILD.parent)}, {path.stat().st_size / 1e6:.1f} MB")


def mark_of(card: dict) -> dict:
    """The mark that a model was trained with, as the page draws it.

    Args:
        card: of the model.

    Returns:
        ``row`` and ``column`` of its upper left corner in an image of 28 px, and ``pattern``, its
        grey values.
    """
    mark = Mark(**card["mark"])
    place = PLACES[mark.place]
    assert place is not None  # it is in the same place in each image
    row, column = place
    return {"row": row, "column": column, "pattern": mark.pattern(28).tolist()}


def probe() -> np.ndarray:
    """The image of the self-test: the page compares its logits with those stored in it.

    Returns:
        uint8 (28, 28): a synthetic X-ray.
    """
    return np.load(TWIN)["test_images"][0]


def samples() -> list[dict]:
    """Images to try: six of the synthetic twin, and one that is no X-ray."""
    twin = np.load(TWIN)
    images = [twin["test_images"][index] for index in SAMPLES]
    labels = [twin["test_labels"][index, 0] for index in SAMPLES]
    names = [f"synthetic X-ray {n}, {CLASSES[label]}" for n, label in enumerate(labels, start=1)]
    images.append(blood_cell())
    names.append("a drawn blood cell, no X-ray")
    return [{"name": name, "src": address(image)} for name, image in zip(names, images)]


def blood_cell() -> np.ndarray:
    """A drawing of a white blood cell between two red ones, uint8 (112, 112, 3)."""
    red = (226, 150, 150)
    discs = [  # row and column of the centre, radius (px), colour
        (20, 20, 17, red),
        (90, 92, 19, red),
        (56, 54, 33, (200, 180, 220)),
        (54, 50, 20, (96, 60, 140)),
    ]
    picture = np.full((112, 112, 3), 240, np.uint8)
    y, x = np.mgrid[:112, :112]
    for row, column, radius, colour in discs:
        inside = np.hypot(y - row, x - column) < radius
        picture[inside] = colour
    return picture


def address(image: np.ndarray) -> str:
    """A uint8 image as a data address of a PNG.

    Args:
        image: uint8 (H, W) or (H, W, 3).
    """
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    sys.exit(main())
