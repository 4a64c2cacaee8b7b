"""95 % intervals of one AUC, from its variance and the number of units of each class."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from preceptor.evaluation.paired_tests import LEVEL


class ClassUnits(NamedTuple):
    """Degrees of freedom and bootstrap bias factor of an AUC's variance, see `class_units`."""

    degrees: float
    factor: float


def class_units(classes: npt.NDArray[Any], units: npt.NDArray[np.int64]) -> ClassUnits:
    """Welch-Satterthwaite degrees of freedom of an AUC's variance, and its bootstrap's bias factor.

    Let k_c be the number of units (images, or groups) that contain class c, and G the number of
    all units. Each class is assumed to contribute a variance proportional to 1 / k_c:

        degrees = min(G − 1, (Σ 1 / k_c)² ÷ Σ 1 / (k_c² (k_c − 1)))
        factor = Σ 1 / (k_c − 1) ÷ Σ 1 / k_c

    The rarest class dominates: 20 positives among 200 images give 23 degrees of freedom, not 199.
    The variance over bootstrap resamples is too small by the factor; an unbiased variance does not
    need it.

    Args:
        classes: (n,) class of each image.
        units: (n,) codes of the independent units, as returned by `bootstrap.unit_codes`.

    Returns:
        Both numbers; NaN if fewer than two classes are present, or if a class is in one unit only.

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


def t_quantile(degrees: float, level: float = LEVEL) -> float:
    """Quantile of Student's t distribution for a two-sided interval.

    Args:
        degrees: Degrees of freedom, > 0; NaN gives NaN.
        level: Coverage of the interval, in (0, 1).

    Example:
        >>> round(t_quantile(2), 3)
        4.303
    """
    return float(special.stdtrit(degrees, 0.5 + level / 2))


def logit_interval(area: float, half_width: float) -> tuple[float, float]:
    """Interval of an AUC computed on the logit scale: logit A ± half width / (A (1 − A)).

    By the delta method, the half width on the logit scale is that of the AUC divided by
    A (1 − A). The interval lies within (0, 1) and is longer on the side of 0.5: if an AUC near 1 is
    too high by chance, its standard error is too small as well, so that the lower limit of
    AUC ± 1.96 · se is too high.

    Args:
        area: A, in [0, 1].
        half_width: Quantile times standard error, in units of the AUC.

    Returns:
        Lower and upper limit; NaN at an AUC of 0 or 1 and for a half width of 0 or NaN.

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
