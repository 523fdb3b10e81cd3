"""Run an exported model without torch: python tools/run_onnx.py model.onnx images.npy   (needs onnxruntime and NumPy)

images.npy: uint8 (N, H, W) or (N, H, W, 3), square. Prints class and probability of each (single-label models).
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

path, images = Path(sys.argv[1]), np.load(sys.argv[2])
card = json.loads(path.with_suffix(".json").read_text())
size, side = card["input"]["shape"][-1], images.shape[1]
x = (images if images.ndim == 4 else np.stack([images] * 3, axis=-1)).transpose(0, 3, 1, 2) / 127.5 - 1
centres = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)  # of the new pixels, in old ones
resize = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(side)))  # bilinear weights, (size, side)
x = (resize @ x @ resize.T).astype(np.float32)
logits = onnxruntime.InferenceSession(path).run(["logits"], {"pixels": x})[0]
odds = np.exp(logits - logits.max(axis=1, keepdims=True))
for p in odds / odds.sum(axis=1, keepdims=True):
    print((card["classes"] or range(len(p)))[p.argmax()], f"{p.max():.4f}")
