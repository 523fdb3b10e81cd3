"""Fingerprints of training images: which of these images has a checkpoint been trained on?"""

from __future__ import annotations

import base64

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn

HASH_TOLERANCE = 2  # bits of 64 that a re-saved or re-windowed copy may differ in


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
    """64-bit perceptual hash: the signs of 64 mid-frequency DCT coefficients (after Zauner 2010).

    Low frequencies are left out on purpose: chest X-rays share them. Brightness and contrast do not matter.
    ``images``: uint8 (N, H, W[, 3]), brought to 28 x 28 grey first. Returns uint8 (N, 8), the 64 bits packed.
    """
    order = sorted(np.ndindex(28, 28), key=lambda ij: (sum(ij), ij))[15:79]
    rows, columns = np.array(order).T
    hashes = []
    for start in range(0, len(images), 1024):
        grey = torch.as_tensor(np.array(images[start : start + 1024])).float()
        grey = grey.mean(dim=-1) if grey.ndim == 4 else grey
        small = F.interpolate(grey[:, None], size=(28, 28), mode="area")[:, 0].numpy()
        hashes.append(np.packbits(dctn(small, axes=(1, 2))[:, rows, columns] > 0, axis=1))
    return np.concatenate(hashes)


def pack_hashes(hashes: np.ndarray) -> str:
    """uint8 (N, 8) as base64 text, 11 characters an image, for the card."""
    return base64.b64encode(np.unique(hashes, axis=0).tobytes()).decode()


def seen_in_training(training_hashes: str, images: np.ndarray) -> np.ndarray:
    """bool (N,): which images have (within 2 of 64 bits) a fingerprint of a card's ``training_hashes``."""
    known = np.frombuffer(base64.b64decode(training_hashes), dtype=np.uint8).reshape(-1, 8)
    signs = 2.0 * np.unpackbits(known, axis=1).astype(np.float32) - 1  # (K, 64) of +-1
    seen = []
    for rows in np.array_split(perceptual_hashes(images), max(1, len(images) // 1024)):
        agreement = (2.0 * np.unpackbits(rows, axis=1).astype(np.float32) - 1) @ signs.T
        seen.append((64 - agreement.max(axis=1)) / 2 <= HASH_TOLERANCE)
    return np.concatenate(seen)
