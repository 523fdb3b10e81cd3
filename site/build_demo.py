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

from swys_utils.config import BUILD, PROJECT_ROOT, SwysError
from swys_utils.data import TWIN
from swys_utils.models import SERIES, load_checkpoint
from swys_utils.onnx_export import export_onnx, predict_onnx, quantise_onnx_dynamic

SITE = PROJECT_ROOT / "site"
TARGET = BUILD / "site"
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
# The first one is the model of demo.html, and the one that the others' maps are compared with.
MODELS = ("vit_tiny_maps", "vit_tiny_answers_p7", "vit_tiny_patch16_224_kd")


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
    first = models[0]
    inline = {}
    for name in [*RUNTIME_FILES, first["file"]]:
        packed = gzip.compress((assets / name).read_bytes())
        inline[name] = base64.b64encode(packed).decode()
    write_page(TARGET / "demo.html", [first], inline)


def fetch_runtime(folder: Path) -> None:
    """Copy the files of ONNX Runtime Web into a folder, if they are not there yet.

    Args:
        folder: where they are written.

    Raises:
        NoRuntimeError: npm is not installed, or does not reach its registry.
        subprocess.CalledProcessError: npm fails for another reason.
    """
    if all((folder / name).is_file() for name in RUNTIME_FILES):
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
            (folder / name).write_bytes(file.read())
    archive_path.unlink()


def export(name: str, folder: Path) -> dict:
    """Write a shipped model as an int8 ONNX file.

    Args:
        name: of the model, a key of ``models.SERIES``.
        folder: where the file is written.

    Returns:
        What the page says about it.
    """
    model, card = load_checkpoint(f"pneumoniamnist/{name}")
    with tempfile.TemporaryDirectory() as scratch:
        float_file = Path(scratch) / "float32.onnx"
        int8_file = Path(scratch) / f"{name}.onnx"
        export_onnx(model, float_file, CLASSES, card)
        quantise_onnx_dynamic(float_file, int8_file)
        shutil.copy(int8_file, folder)
        logits, _ = predict_onnx(folder / int8_file.name, probe()[None])
    return {
        "name": SERIES[name].title,
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
    content = {
        "models": models,
        "samples": samples(),
        "classes": CLASSES,
        "probe": probe().ravel().tolist(),
    }
    data = json.dumps(content)
    template = jinja2.Template((SITE / "demo.html").read_text("utf-8"))
    page = template.render(
        style=(SITE / "style.css").read_text("utf-8"),
        script="\n".join((SITE / name).read_text("utf-8") for name in SCRIPTS),
        data=data.replace("<", "\\u003c"),
        inline=inline or {},
        home="index.html" if inline else "../index.html",
    )
    path.write_text(page, "utf-8")
    print(f"demo: {path.relative_to(BUILD.parent)}, {path.stat().st_size / 1e6:.1f} MB")


def probe() -> np.ndarray:
    """The image of the self-test: the page compares its logits with those stored in it.

    Returns:
        uint8 (28, 28): a synthetic X-ray.
    """
    return np.load(TWIN)["test_images"][0]


def samples() -> list[dict]:
    """Images to try: six of the synthetic twin, and one that is no X-ray."""
    twin = np.load(TWIN)
    images = list(twin["test_images"][:6])
    names = [f"synthetic X-ray, {CLASSES[label]}" for label in twin["test_labels"][:6, 0]]
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
