"""The demo, models that run in the browser: build/site/demo/index.html; in one file: build/site/demo.html.

ONNX Runtime Web comes from the npm registry once; its files are copied, and the page asks for nothing else.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from swys_utils.config import BUILD, PROJECT_ROOT
from swys_utils.data import TWIN
from swys_utils.models import load_checkpoint
from swys_utils.onnx_export import export_onnx, quantise_onnx_dynamic

SITE, PAGE = PROJECT_ROOT / "site", BUILD / "site" / "demo" / "index.html"
RUNTIME = "onnxruntime-web@1.30.0"
FILES = {"ort.mjs": "ort.wasm.bundle.min.mjs", "ort.wasm": "ort-wasm-simd-threaded.wasm"}
CLASSES = ("normal", "pneumonia")
MODELS = {"Student of maps": "vit_tiny_maps", "Student of answers": "vit_tiny_answers_p7"}
MODELS |= {"Tiny": "vit_tiny_patch16_224_kd"}


def picture(pixels: np.ndarray) -> str:
    """A uint8 image as the address of a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def samples() -> list[dict]:
    """Images to try: six of the synthetic twin, and a drawing of a blood cell, which is no X-ray."""
    twin, (y, x) = np.load(TWIN), np.mgrid[:112, :112]
    names = [f"synthetic X-ray, {CLASSES[label]}" for label in twin["test_labels"][:6, 0]]
    cell, red, violet = np.full((112, 112, 3), 240, np.uint8), (226, 150, 150), (96, 60, 140)
    drawn = (
        (20, 20, 17, red),
        (90, 92, 19, red),
        (56, 54, 33, (200, 180, 220)),
        (54, 50, 20, violet),
    )
    for row, column, radius, colour in drawn:
        cell[np.hypot(y - row, x - column) < radius] = colour
    pictures = [*twin["test_images"][:6], cell]
    names.append("a drawn blood cell, no X-ray")
    return [{"name": name, "src": picture(pixels)} for name, pixels in zip(names, pictures)]


def export(name: str, title: str, folder: Path) -> dict:
    """Write a shipped model as int8 ONNX; returns what the page says of it."""
    model, card = load_checkpoint(f"pneumoniamnist/{name}")
    export_onnx(model, folder / "float32.onnx", CLASSES, card)
    size = quantise_onnx_dynamic(folder / "float32.onnx", folder / f"{name}.onnx")["bytes"]
    tokens = model.patch_embed.num_patches
    for file in [*folder.glob("*.json"), *folder.glob("float32*")]:
        file.unlink(missing_ok=True)
    facts = {"file": f"{name}.onnx", "bytes": size, "tokens": tokens, "size": card["img_size"]}
    return facts | {"name": f"{title}, {tokens} tokens"}


def build() -> None:
    """Write both forms of the demo."""
    assets = PAGE.parent / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    if not (assets / "ort.wasm").is_file():
        command = ["npm", "pack", "--silent", RUNTIME]
        packed = assets / subprocess.check_output(command, cwd=assets, text=True).strip()
        with tarfile.open(packed) as archive:
            for name, member in FILES.items():
                (assets / name).write_bytes(archive.extractfile(f"package/dist/{member}").read())
        packed.unlink()
    models = [export(name, title, assets) for title, name in MODELS.items()]
    inside = {
        name: gzip.compress((assets / name).read_bytes()) for name in (*FILES, models[0]["file"])
    }
    inside = {name: base64.b64encode(content).decode() for name, content in inside.items()}
    template, shown = jinja2.Template((SITE / "demo.html").read_text("utf-8")), samples()
    parts = {
        "style": (SITE / "style.css").read_text("utf-8"),
        "script": (SITE / "demo.js").read_text("utf-8"),
    }
    for path, those, inline in (
        (PAGE, models, {}),
        (PAGE.parents[1] / "demo.html", models[:1], inside),
    ):
        facts = json.dumps({"models": those, "samples": shown, "classes": CLASSES}).replace(
            "<", "\\u003c"
        )
        home = "index.html" if inline else "../index.html"
        path.write_text(template.render(facts=facts, inline=inline, home=home, **parts), "utf-8")
        print(f"demo: {path.relative_to(PROJECT_ROOT)}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        build()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"demo: {error}; it needs npm (Node.js) and the npm registry once")
