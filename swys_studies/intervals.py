"""Intervals over seeds, and over seeds and images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swys_utils.metrics import PERCENTILES, Interval, t_interval


def accuracy_interval(values: np.ndarray) -> Interval:
    """95 % interval of a mean accuracy over seeds and images.

    Several runs that differ in their seed answer the same test images. Other seeds and other images
    would give another mean, so both are drawn anew (percentile bootstrap): each time S seeds and,
    independently, N images, the same images for all seeds. Of a few seeds the bootstrap alone is
    too narrow, so the interval is at least as wide as the t interval of the S means. With one seed
    it is over images alone.

    Args:
        values: (S, N), one row a seed: 1 where its answer is right and 0 where it is wrong, or the
            difference of two such tables, for the interval of a gain.

    Returns:
        (low, high), fractions.
    """
    values = np.asarray(values, dtype=float)
    seeds, images = values.shape
    # how often each resample draws each seed and each image
    rng = np.random.default_rng(0)
    seed_counts = rng.multinomial(seeds, [1 / seeds] * seeds, size=4000)
    image_counts = rng.multinomial(images, [1 / images] * images, size=4000)
    seed_shares = seed_counts / seeds
    image_shares = image_counts / images
    over_seeds = seed_shares @ values
    means = (over_seeds * image_shares).sum(axis=1)
    low, high = np.percentile(means, PERCENTILES)
    if seeds > 1:
        t_low, t_high = t_interval(values.mean(axis=1))
        low = min(low, t_low)
        high = max(high, t_high)
    return float(low), float(high)


def with_interval(values: Sequence[float], lowest: float = 0.0) -> str:
    """The mean over seeds with its t interval, as text; one value, or equal ones, have none.

    Args:
        values: one a seed; a share, or a correlation. Seeds without one (nan) are left out.
        lowest: that it can be; the interval ends there, and at 1.
    """
    values = [value for value in values if not np.isnan(value)]
    if not values:
        return "none"
    mean = f"{np.mean(values):.2f}"
    if len(values) < 2 or np.ptp(values) == 0:
        return mean
    low, high = np.clip(t_interval(values), lowest, 1.0)
    return f"{mean} [{low:.2f}, {high:.2f}]"
