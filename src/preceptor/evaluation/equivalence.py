"""Equivalence tests by confidence intervals: what an interval of a difference excludes.

An interval that contains 0 does not show that two sides are equal: it may only be wide. Equivalence
needs a margin, the smallest difference that is relevant, which is set before the results are seen.
An interval over trainings alone describes the test images at hand: what is to hold for other images
must be excluded by the interval over images as well. Source: Schuirmann, Journal of
Pharmacokinetics and Biopharmaceutics 15 (1987), the two one-sided tests; Walker and Nowacki,
Journal of General Internal Medicine 26 (2011), on equivalence and non-inferiority by intervals.
"""

from __future__ import annotations

import math
from enum import Enum

from preceptor.errors import InputError

RELEVANT_DIFFERENCE = 0.01
"""Default of the smallest relevant difference in AUC."""


class Excluded(Enum):
    """Differences of at least the margin that an interval excludes."""

    BOTH = "both"
    """Gains and losses: the sides are equivalent."""
    GAIN = "gain"
    """Gains alone: the first side is not superior."""
    LOSS = "loss"
    """Losses alone: the first side is not inferior."""
    NEITHER = "neither"
    """Neither: the interval is too wide."""


UNDEFINED = (math.nan, math.nan)
"""Interval that is not known."""


def excluded(
    low: float, high: float, margin: float, images: tuple[float, float] = UNDEFINED
) -> Excluded:
    """Equivalence test of a difference by its confidence intervals.

    With 95 % intervals each of the two one-sided tests has the level 2.5 %. An interval without a
    width, as of two models with an AUC of 1 with every seed, is undefined.

    Args:
        low, high: Ends of the interval over seeds; NaN if it is undefined, which excludes nothing.
        margin: Smallest relevant difference, above 0.
        images: Interval over seeds and images, which has to exclude the same; NaN if there is none.

    Raises:
        InputError: The margin is not above 0, or low is above high.

    Example:
        >>> excluded(-0.004, 0.006, margin=0.01).value
        'both'
        >>> excluded(-0.02, 0.006, margin=0.01).value
        'gain'
        >>> excluded(-0.004, 0.006, margin=0.01, images=(-0.03, 0.008)).value
        'gain'
    """
    if not margin > 0:
        raise InputError(f"The margin of an equivalence test must be above 0, not {margin}.")
    if low > high:
        raise InputError(f"The lower end of an interval, {low}, is above the upper end, {high}.")
    if not (math.isfinite(low) and math.isfinite(high)):
        return Excluded.NEITHER
    if math.isfinite(images[0]) and math.isfinite(images[1]):
        low, high = min(low, images[0]), max(high, images[1])
    if low == high:
        return Excluded.NEITHER
    if -margin < low and high < margin:
        return Excluded.BOTH
    if high < margin:
        return Excluded.GAIN
    return Excluded.LOSS if low > -margin else Excluded.NEITHER
