"""Kept, lost, or cannot tell: what an interval says about a bound, and intervals that are honest.

A verdict looks at the whole 95 % interval. *Kept*: all of it is within the bound. *Lost*: all of it
is outside. Else the images are too few to say, and the verdict is *cannot tell*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from swys_utils.config import SwysError
from swys_utils.metrics import Interval, bootstrap_interval

KEPT = "kept"
LOST = "lost"
CANNOT_TELL = "cannot tell"
Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Bounds:
    """How much may be lost.

    Attributes:
        max_drop: of accuracy and of AUC x 100, in points.
        max_class_drop: of the share of any one class that is answered right, in points.
        min_agreement: share of the images that have to get the same answer.
        min_map: rank correlation that the heatmaps have to reach.
        min_occlusion: rank correlation that the occlusion maps have to reach.
        max_ece_rise: of the calibration error.
        max_time: of B, as a multiple of A's.
    """

    max_drop: float = 1.0
    max_class_drop: float = 5.0
    min_agreement: float = 0.98
    min_map: float = 0.9
    min_occlusion: float = 0.8
    max_ece_rise: float = 0.02
    max_time: float = 1.2

    def __post_init__(self):
        ranges = {
            "max_drop": (0, 100),
            "max_class_drop": (0, 100),
            "min_agreement": (0, 1),
            "min_map": (-1, 1),
            "min_occlusion": (-1, 1),
            "max_ece_rise": (0, 1),
            "max_time": (0, 1000),
        }
        for name, (lowest, highest) in ranges.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:  # nan is refused, too
                raise SwysError(f"{name} is {value}; give {lowest} to {highest}")


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; nan where it is not known.

    Attributes:
        value: the figure.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def at_most(estimate: Estimate, bound: float) -> str:
    """The verdict on a figure that has to stay at or below a bound.

    Args:
        estimate: the figure.
        bound: the largest value that is allowed.

    Returns:
        ``kept``, ``lost`` or ``cannot tell``.
    """
    if estimate.high <= bound:
        return KEPT
    if estimate.low > bound:
        return LOST
    return CANNOT_TELL


def at_least(estimate: Estimate, bound: float) -> str:
    """The verdict on a figure that has to reach a bound.

    Args:
        estimate: the figure.
        bound: the smallest value that is allowed.

    Returns:
        ``kept``, ``lost`` or ``cannot tell``.
    """
    if estimate.low >= bound:
        return KEPT
    if estimate.high < bound:
        return LOST
    return CANNOT_TELL


def unseen_share(count: int) -> float:
    """What did not happen in any of N images may still happen in this share of all images.

    It is the upper end of Wilson's interval (1927) for none of N, z^2 / (N + z^2).

    Args:
        count: number of images.
    """
    return Z**2 / (count + Z**2)


def enough_unseen(share: float) -> float:
    """The number of images of which none shows it when ``unseen_share`` is so much.

    Args:
        share: above 0.
    """
    return Z**2 / share - Z**2


def not_narrower(value: float, interval: Interval, count: int, span: float) -> Estimate:
    """An estimate whose interval is no narrower than so many images allow.

    Resampling images that all agree gives an interval of no width, however few they are. So each
    end is at least ``span`` times ``unseen_share`` away from the figure.

    Args:
        value: the figure, a mean over images or nearly so, at most 1 and at least -1.
        interval: by resampling.
        count: number of images.
        span: by how much the figure would change if all images were of the other kind.

    Returns:
        The estimate; unknown where the value is nan.
    """
    return no_closer(value, interval, span * unseen_share(count))


def no_closer(value: float, interval: Interval, reach: float) -> Estimate:
    """An estimate whose interval reaches at least so far to both sides.

    Args:
        value: the figure, at most 1 and at least -1.
        interval: by resampling.
        reach: from the figure to each end, at least.

    Returns:
        The estimate; unknown where the value is nan.
    """
    if math.isnan(value):
        return UNKNOWN
    low = min(_number(interval[0], value), value - reach)
    high = max(_number(interval[1], value), value + reach)
    return Estimate(value, max(low, -1.0), min(high, 1.0))


def _number(end: float, value: float) -> float:
    """An end of an interval; the value itself where it is nan."""
    return value if math.isnan(end) else end


def mean_estimate(values: np.ndarray, span: float) -> Estimate:
    """The mean of one value an image, with an interval that few images cannot make narrow.

    Args:
        values: float (N,) from -1 to 1; nan where an image has none.
        span: as for ``not_narrower``.

    Returns:
        The estimate; unknown without any value.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return UNKNOWN
    interval = bootstrap_interval(np.mean, known)
    return not_narrower(float(known.mean()), interval, len(known), span)


def paired_difference(first: np.ndarray, second: np.ndarray, z: float = Z) -> Estimate:
    """Difference of two shares that were seen on the same images, with Tango's score interval.

    Tango (1998), Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design. Where the two never differ it still has a width, which shrinks with
    the number of images.

    Args:
        first: bool (N,), of one model.
        second: bool (N,), of the other model.
        z: normal quantile of the interval's ends; by default those of 95 %.

    Returns:
        Share of the first minus share of the second.
    """
    count = len(first)
    only_first = int((first & ~second).sum())
    only_second = int((~first & second).sum())
    difference = (only_first - only_second) / count

    def excess(delta: float) -> float:
        return tango_statistic(only_first, only_second, count, delta)

    edge = 1 - 1e-9
    low = high = difference
    if excess(-edge) > z:
        low = brentq(lambda delta: excess(delta) - z, -edge, min(difference, edge))
    if excess(edge) < -z:
        high = brentq(lambda delta: excess(delta) + z, max(difference, -edge), edge)
    return Estimate(difference, float(low), float(high))


def tango_statistic(only_first: int, only_second: int, count: int, delta: float) -> float:
    """Tango's score statistic of a difference of paired shares.

    Args:
        only_first: number of images that only the first model has.
        only_second: number of images that only the second model has.
        count: number of images.
        delta: the difference to be tested, between -1 and 1.

    Returns:
        Nearly standard normal where ``delta`` is the true difference.
    """
    numerator = only_first - only_second - count * delta
    b = -only_first - only_second + (2 * count - only_first + only_second) * delta
    c = -only_second * delta * (1 - delta)
    root = math.sqrt(max(b**2 - 8 * count * c, 0))
    share = (root - b) / (4 * count)
    variance = count * (2 * share + delta * (1 - delta))
    if variance <= 0:
        return 0.0 if numerator == 0 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)
