"""Fingerprints of training images: which of these images has a checkpoint been trained on?"""

from __future__ import annotations

import base64

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn

from swys_utils.config import SwysError

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
        stop = start + BATCH
        grey = small_grey(images[start:stop])
        coefficients = dctn(grey, axes=(1, 2))
        bits = coefficients[:, rows, columns] > 0
        hashes.append(np.packbits(bits, axis=1))
    return np.concatenate(hashes)


def mid_frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Positions of the 64 DCT coefficients that are hashed.

    Returns:
        Rows and columns, int (64,): in the order of rising frequency the first 15 are left out.
    """
    positions = list(np.ndindex(SIDE, SIDE))
    positions.sort()
    positions.sort(key=sum)
    chosen: np.ndarray = np.array(positions[15:79])
    rows = chosen[:, 0]
    columns = chosen[:, 1]
    return rows, columns


def small_grey(images: np.ndarray) -> np.ndarray:
    """Images in grey at 28 px.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        float32 (N, 28, 28).
    """
    in_memory = np.array(images)  # they may be a memory map
    grey = torch.as_tensor(in_memory).float()
    if grey.ndim == 4:
        grey = grey.mean(dim=-1)
    planes = grey.unsqueeze(1)
    small = F.interpolate(planes, size=(SIDE, SIDE), mode="area")
    return small.squeeze(1).numpy()


def pack_hashes(hashes: np.ndarray) -> str:
    """Hashes as text for the card, 11 characters an image; equal ones are kept once.

    Args:
        hashes: uint8 (N, 8).

    Returns:
        Base64.
    """
    distinct = np.unique(hashes, axis=0)
    encoded = base64.b64encode(distinct.tobytes())
    return encoded.decode()


def seen_in_training(training_hashes: str, images: np.ndarray) -> np.ndarray:
    """Which images have the fingerprint of a training image, or one that differs by 2 bits of 64.

    Args:
        training_hashes: of a checkpoint's card.
        images: uint8 (N, H, W) or (N, H, W, 3).

    Returns:
        bool (N,).

    Raises:
        SwysError: text that holds no fingerprints.
    """
    training = signs(_unpacked(training_hashes))
    hashes = perceptual_hashes(images)
    seen = []
    for start in range(0, len(hashes), BATCH):
        stop = start + BATCH
        # a sum of 64 products of signs: an equal bit adds 1, another one takes 1 away
        agreement = signs(hashes[start:stop]) @ training.T
        nearest = agreement.max(axis=1)
        bits_apart = (64 - nearest) / 2
        seen.append(bits_apart <= HASH_TOLERANCE)
    return np.concatenate(seen)


def _unpacked(training_hashes: str) -> np.ndarray:
    """The fingerprints of a card, uint8 (N, 8)."""
    problem = "the card's training_hashes are damaged; restore the card with git"
    try:
        decoded = base64.b64decode(training_hashes, validate=True)
    except ValueError:
        raise SwysError(problem) from None
    if not decoded or len(decoded) % 8 != 0:
        raise SwysError(problem)
    return np.frombuffer(decoded, dtype=np.uint8).reshape(-1, 8)


def signs(hashes: np.ndarray) -> np.ndarray:
    """The bits of hashes as numbers.

    Args:
        hashes: uint8 (N, 8).

    Returns:
        float32 (N, 64), each -1 or 1.
    """
    bits = np.unpackbits(hashes, axis=1)
    ones = bits.astype(np.float32)
    return 2 * ones - 1
