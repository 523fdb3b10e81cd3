"""Fingerprints of training images: which of these images has a checkpoint been trained on?"""

from __future__ import annotations

import base64

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn

HASH_TOLERANCE = 2  # bits of 64 that a re-saved or re-windowed copy may differ in
SIDE = 28  # px of the images that are hashed
BATCH = 1024


def perceptual_hashes(images: np.ndarray) -> np.ndarray:
    """64-bit perceptual hashes: the signs of 64 mid-frequency DCT coefficients (after Zauner 2010).

    Low frequencies are left out on purpose: chest X-rays share them. Brightness and contrast do not
    matter.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3), brought to 28 x 28 grey first.

    Returns:
        uint8 (N, 8), the 64 bits packed.
    """
    rows, columns = mid_frequencies()
    hashes = []
    for start in range(0, len(images), BATCH):
        batch = small_grey(images[start : start + BATCH])
        coefficients = dctn(batch, axes=(1, 2))
        bits = coefficients[:, rows, columns] > 0
        hashes.append(np.packbits(bits, axis=1))
    return np.concatenate(hashes)


def mid_frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Positions of the 64 DCT coefficients that are hashed.

    Returns:
        Rows and columns, int (64,): in the order of rising frequency the first 15 are left out.
    """
    positions = list(np.ndindex(SIDE, SIDE))
    positions.sort(key=lambda position: (sum(position), position))
    chosen = np.array(positions[15 : 15 + 64])
    return chosen[:, 0], chosen[:, 1]


def small_grey(images: np.ndarray) -> np.ndarray:
    """Images in grey at 28 px.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        float32 (N, 28, 28).
    """
    grey = torch.as_tensor(np.array(images)).float()
    if grey.ndim == 4:
        grey = grey.mean(dim=-1)
    small = F.interpolate(grey[:, None], size=(SIDE, SIDE), mode="area")
    return small[:, 0].numpy()


def pack_hashes(hashes: np.ndarray) -> str:
    """Hashes as text for the card, 11 characters an image; equal ones are kept once.

    Args:
        hashes: uint8 (N, 8).

    Returns:
        Base64.
    """
    distinct = np.unique(hashes, axis=0)
    return base64.b64encode(distinct.tobytes()).decode()


def seen_in_training(training_hashes: str, images: np.ndarray) -> np.ndarray:
    """Which images have the fingerprint of a training image, or one that differs by 2 bits of 64.

    Args:
        training_hashes: of a checkpoint's card.
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        bool (N,).
    """
    stored = np.frombuffer(base64.b64decode(training_hashes), dtype=np.uint8)
    training = signs(stored.reshape(-1, 8))
    hashes = perceptual_hashes(images)
    seen = []
    for part in np.array_split(hashes, max(1, len(images) // BATCH)):
        # of 64 products of signs, an equal bit adds 1 and another bit takes 1 away
        agreement = signs(part) @ training.T
        bits_apart = (64 - agreement.max(axis=1)) / 2
        seen.append(bits_apart <= HASH_TOLERANCE)
    return np.concatenate(seen)


def signs(hashes: np.ndarray) -> np.ndarray:
    """The bits of hashes as numbers.

    Args:
        hashes: uint8 (N, 8).

    Returns:
        float32 (N, 64), each -1 or 1.
    """
    bits = np.unpackbits(hashes, axis=1)
    return 2 * bits.astype(np.float32) - 1
