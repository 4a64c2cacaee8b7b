"""95 % intervals of one AUC, from its variance and from how many units each class has."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from preceptor.evaluation.paired_tests import LEVEL


class ClassUnits(NamedTuple):
    """What few units a class do to the variance of an AUC: see `class_units`."""

    degrees: float
    factor: float


def class_units(classes: npt.NDArray[Any], units: npt.NDArray[np.int64]) -> ClassUnits:
    """Welch-Satterthwaite degrees of freedom of an AUC's variance, and its bootstrap's bias factor.

    With k_c the units (images, or groups) that hold class c, and G units in all, each class adds
    a part of the variance that is taken as proportional to 1 / k_c:

        degrees = min(G − 1, (Σ 1 / k_c)² ÷ Σ 1 / (k_c² (k_c − 1)))
        factor = Σ 1 / (k_c − 1) ÷ Σ 1 / k_c

    The rarest class decides: 20 positives among 200 images leave 23 degrees, not 199. The factor
    is what a variance over resamples is too small by; an unbiased variance does not take it.

    Args:
        classes: (n,) the class of each image.
        units: (n,) codes of what is independent, as from `bootstrap.unit_codes`.

    Returns:
        Both numbers; NaN where fewer than two classes are present, or one in a single unit.

    Reference:
        Welch, "The generalization of Student's problem when several different population
        variances are involved", Biometrika 1947.

    Example:
        >>> found = class_units(np.arange(200) < 20, np.arange(200))
        >>> f"{found.degrees:.1f} {found.factor:.3f}"
        '23.4 1.048'
    """
    held = np.array([_distinct(units[classes == one]) for one in np.unique(classes)], float)
    if len(held) < 2 or held.min() < 2:
        return ClassUnits(math.nan, math.nan)
    parts = 1 / held
    welch = parts.sum() ** 2 / (parts**2 / (held - 1)).sum()
    factor = (1 / (held - 1)).sum() / parts.sum()
    return ClassUnits(float(min(welch, _distinct(units) - 1)), float(factor))


def _distinct(codes: npt.NDArray[np.int64]) -> int:
    return int((np.bincount(codes) > 0).sum())


def t_quantile(degrees: float) -> float:
    """The quantile of Student's t for a two-sided 95 % interval; NaN at NaN degrees of freedom.

    Args:
        degrees: Of freedom, > 0.

    Example:
        >>> round(t_quantile(2), 3)
        4.303
    """
    return float(special.stdtrit(degrees, 0.5 + LEVEL / 2))


def logit_interval(area: float, half_width: float) -> tuple[float, float]:
    """The interval of an AUC on the logit scale: logit A ± half width / (A (1 − A)), taken back.

    By the delta method the half width on the logit scale is that of the AUC divided by
    A (1 − A). The interval lies within (0, 1), and reaches further from the nearer end of that
    range: where an AUC near 1 is too high by chance, its standard error is too small as well,
    so that AUC ± 1.96 · se ends too early below.

    Args:
        area: A, in [0, 1].
        half_width: Quantile times standard error, in units of the AUC.

    Returns:
        Both ends; NaN at an AUC of 0 or 1 and where the half width is 0 or NaN.

    Reference:
        Qin and Hotilovac, "Comparison of non-parametric confidence intervals for the area under
        the ROC curve of a continuous-scale diagnostic test", Statistical Methods in Medical
        Research 2008.

    Example:
        >>> low, high = logit_interval(0.96, 0.05)
        >>> f"{low:.3f} to {high:.3f}"
        '0.867 to 0.989'
    """
    if not (0 < area < 1 and half_width > 0):
        return math.nan, math.nan
    half = half_width / (area * (1 - area))
    low, high = special.expit(special.logit(area) + half * np.array([-1.0, 1.0]))
    return float(low), float(high)
