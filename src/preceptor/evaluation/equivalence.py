"""Equivalence tests by confidence intervals: what an interval of a difference excludes.

An interval that contains 0 does not show that two sides are equal: it may only be wide. Equivalence
needs a margin, the smallest difference that is relevant, which is set before the results are seen.
Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15 (1987), the two one-sided
tests; Walker and Nowacki, Journal of General Internal Medicine 26 (2011), on equivalence and
non-inferiority by intervals.
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


def excluded(low: float, high: float, margin: float) -> Excluded:
    """Equivalence test of a difference by its confidence interval.

    With a 95 % interval each of the two one-sided tests has the level 2.5 %.

    Args:
        low, high: Ends of the interval; NaN if it is undefined, which excludes nothing.
        margin: Smallest relevant difference, above 0.

    Raises:
        InputError: The margin is not above 0, or low is above high.

    Example:
        >>> excluded(-0.004, 0.006, margin=0.01).value
        'both'
        >>> excluded(-0.02, 0.006, margin=0.01).value
        'gain'
    """
    if not margin > 0:
        raise InputError(f"The margin of an equivalence test must be above 0, not {margin}.")
    if low > high:
        raise InputError(f"The lower end of an interval, {low}, is above the upper end, {high}.")
    if not (math.isfinite(low) and math.isfinite(high)):
        return Excluded.NEITHER
    if -margin < low and high < margin:
        return Excluded.BOTH
    if high < margin:
        return Excluded.GAIN
    return Excluded.LOSS if low > -margin else Excluded.NEITHER
