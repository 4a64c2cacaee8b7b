"""DeLong's test of two correlated AUCs, and 95 % intervals of one AUC.

The test is conditional on the two models: it covers the variation over test images, but not over
trainings. `two_level_bootstrap` covers both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from preceptor.errors import InputError
from preceptor.metrics.auc import Array, auc
from preceptor.metrics.paired_tests import LEVEL
from preceptor.metrics.scores import positive_log_odds


def unit_codes(groups: npt.ArrayLike | None, images: int) -> npt.NDArray[np.int64]:
    """Codes of the independent units: groups in order of appearance, then images without a group.

    Args:
        groups: (n,) names of groups, None or "" for images without a group; None = no groups.
        images: Number of images n.

    Returns:
        (n,) codes 0, 1, …, without gaps.

    Raises:
        InputError: The numbers of groups and images differ.

    Example:
        >>> unit_codes(["a", "", "b", "a", None], 5)
        array([0, 2, 1, 0, 3])
    """
    if groups is None:
        return np.arange(images)
    names = np.asarray(groups, dtype=object)
    if names.shape != (images,):
        raise InputError(f"{len(names)} groups for {images} images; give one group per image")
    alone = pd.isna(names)
    alone[~alone] = names[~alone] == ""
    codes = np.empty(images, dtype=np.int64)
    codes[~alone] = pd.factorize(names[~alone])[0]
    codes[alone] = codes[~alone].max(initial=-1) + 1 + np.arange(alone.sum())
    return codes


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
    """
    if not (0 < area < 1 and half_width > 0):
        return math.nan, math.nan
    half = half_width / (area * (1 - area))
    low, high = special.expit(special.logit(area) + half * np.array([-1.0, 1.0]))
    return float(low), float(high)


_NORMAL = float(stats.norm.ppf(0.975))


class AucInterval(NamedTuple):
    """AUC with its standard error and 95 % interval, see `auc_interval`."""

    auc: float
    se: float
    low: float
    high: float


@dataclass(frozen=True)
class DelongResult:
    """Two AUCs on the same images and their difference a − b, see `delong`.

    `units` is the number of independent units: groups, or images without groups.
    """

    auc_a: float
    auc_b: float
    difference: float
    se: float
    low: float
    high: float
    z: float
    p: float
    interval_a: AucInterval
    interval_b: AucInterval
    units: int


def auc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike | None = None
) -> AucInterval:
    """AUC of one model with DeLong's standard error and 95 % interval over images.

    The standard error is that of `delong`. The interval is AUC ± t · se on the logit scale
    (`logit_interval`), with the degrees of freedom of `class_units`.

    Coverage in simulations: docs/report.md. It is too low near 1 with few positives.

    Args:
        groups: (n,) group of each image, see `delong`.

    Returns:
        AUC, standard error and interval; NaN in the same cases as in `delong`.
    """
    area = auc(labels, scores)
    positive = np.asarray(labels).astype(np.bool_)
    units = unit_codes(groups, len(positive))
    se = _standard_error(_deviations(positive, scores), positive, units)
    return _own(area, se, t_quantile(class_units(positive, units).degrees))


def delong(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
) -> DelongResult:
    """DeLong's test of two correlated AUCs: difference, 95 % interval and two-sided p; O(n log n).

    Let there be M positives x and N negatives y. Each image has a component: V(x) is the share of
    negatives with a lower score than x, V(y) the share of positives with a higher score than y,
    ties counted one half. By midranks, V(x) = (rank of x among all − rank of x among the
    positives) / N. The mean of either component is the AUC A. With a_g = Σ (V(x) − A) / M over the
    positives of group g and b_g = Σ (V(y) − A) / N over its negatives,

        se² = G⁺ / (G⁺ − 1) Σ a_g² + G⁻ / (G⁻ − 1) Σ b_g² + 2 G / (G − 1) Σ a_g b_g

    where G counts the groups, G⁺ those with a positive and G⁻ those with a negative. Where every
    image is its own group the last sum is 0, and this is DeLong's variance without a further
    factor. The difference's se takes the components' differences. z = difference / se is set
    against the normal distribution, which needs some tens of groups of each class. Each
    side's own interval is that of `auc_interval`.

    Args:
        scores_a: (n,) scores, higher for the positive class.
        scores_b: (n,) the other model's scores of the same images.
        groups: (n,) group of each image (subject, patient), whose images depend on each other and
            may be of one class or of both; None or "" is a group of its own.

    Returns:
        Both AUCs, their difference with interval, z and p. All values are NaN if a class is absent;
        all but AUCs and difference are NaN if a class is in fewer than two groups. A standard error
        of 0 is not an estimate: interval, z and p are then NaN (perfect separation has no interval
        [1, 1]), except for a difference of 0, as of equal scores, with interval [0, 0], z 0 and
        p 1.

    Reference:
        DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
        receiver operating characteristic curves", Biometrics 1988; Sun and Xu, "Fast
        implementation of DeLong's algorithm", IEEE Signal Processing Letters 2014 (midranks);
        Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997.

    Example:
        >>> labels = [False] * 4 + [True] * 4
        >>> r = delong(labels, [1, 2, 3, 5, 4, 6, 7, 8], [1, 4, 3, 5, 2, 6, 8, 7])
        >>> f"{r.difference:.3f} [{r.low:.3f}, {r.high:.3f}], p = {r.p:.2f}"
        '0.125 [-0.158, 0.408], p = 0.39'
    """
    auc_a, auc_b = auc(labels, scores_a), auc(labels, scores_b)
    positive = np.asarray(labels).astype(np.bool_)
    units = unit_codes(groups, len(positive))
    a, b = _deviations(positive, scores_a), _deviations(positive, scores_b)
    se = _standard_error(a - b, positive, units)
    difference = auc_a - auc_b
    low, high = _interval(difference, se)
    z = difference / se if se > 0 else math.nan
    if difference == 0 and se == 0:
        low = high = z = 0.0
    quantile = t_quantile(class_units(positive, units).degrees)
    return DelongResult(
        auc_a,
        auc_b,
        difference,
        se,
        low,
        high,
        z,
        float(2 * stats.norm.sf(abs(z))),
        _own(auc_a, _standard_error(a, positive, units), quantile),
        _own(auc_b, _standard_error(b, positive, units), quantile),
        len(np.unique(units)),
    )


def _deviations(positive: npt.NDArray[np.bool_], scores: npt.ArrayLike) -> Array:
    """(n,) 2 M N (V − A) of each image, as integers, so that equal components cancel exactly."""
    values = np.asarray(scores, dtype=np.float64)
    up, down = values[positive], values[~positive]
    won, lost = _beaten(up, down), _beaten(down, up)
    found = np.empty(len(values))
    found[positive] = len(up) * won
    found[~positive] = len(down) * (2.0 * len(up) - lost)
    found -= won.sum()
    return found


def _beaten(own: Array, others: Array) -> Array:
    """Twice the number of other scores below each own score, ties counted one half."""
    order, ranked = np.argsort(own), np.sort(others)
    rising = own[order]  # in sorted order, successive look-ups share cache lines
    found = np.empty(len(own))
    found[order] = np.searchsorted(ranked, rising, "left")
    found[order] += np.searchsorted(ranked, rising, "right")
    return found


def _standard_error(
    deviations: Array, positive: npt.NDArray[np.bool_], units: npt.NDArray[np.int64]
) -> float:
    """Obuchowski's standard error of the AUC; NaN for fewer than two groups of a class."""
    count, sums, factors = int(units.max(initial=-1)) + 1, [], []
    for own in (positive, ~positive):
        groups = len(np.unique(units[own]))
        if groups < 2:
            return math.nan
        sums.append(np.bincount(units[own], deviations[own], count) / own.sum())
        factors.append(groups / (groups - 1))
    a, b = sums
    both = 2 * count / (count - 1) * (a @ b)
    variance = factors[0] * (a @ a) + factors[1] * (b @ b) + both
    pairs = 2.0 * positive.sum() * (~positive).sum()
    return math.sqrt(max(0.0, float(variance))) / float(pairs)  # below 0 by rounding only


def _own(area: float, se: float, quantile: float) -> AucInterval:
    return AucInterval(area, se, *logit_interval(area, quantile * se))


def _interval(centre: float, se: float) -> tuple[float, float]:
    if not se > 0:
        return math.nan, math.nan
    return centre - _NORMAL * se, centre + _NORMAL * se


def compare_sets(
    ours: pd.DataFrame, theirs: pd.DataFrame, classes: Sequence[str], positive: str
) -> pd.DataFrame:
    """DeLong's test of two models on the same images, for each evaluation set.

    Args:
        ours: Score table of model a.
        theirs: Score table of model b, with the same rows in the same order.
        classes: Class names of both models, in any order.
        positive: Positive class.

    Returns:
        One row per set, with columns set, images, groups (0 = the set has no groups, images are
        treated as independent), auc_a, auc_b, difference, low, high, p.

    Raises:
        InputError: The tables are of different images.
    """
    if list(ours["path"]) != list(theirs["path"]):
        raise InputError("the two score tables differ in their images or in the order of images")
    found = []
    for name, own in ours.groupby("split", sort=False):
        other = theirs.loc[own.index]
        grouped = bool((own["group"] != "").any())
        result = delong(
            own["label"] == positive,
            positive_log_odds(own, classes, positive),
            positive_log_odds(other, classes, positive),
            own["group"] if grouped else None,
        )
        found.append(
            {
                "set": str(name),
                "images": len(own),
                "groups": result.units if grouped else 0,
                "auc_a": result.auc_a,
                "auc_b": result.auc_b,
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "p": result.p,
            }
        )
    return pd.DataFrame(found)
