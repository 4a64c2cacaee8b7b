"""Two-level bootstrap over seeds and test images.

All models of a study are tested on the same images. Therefore each resample of images (or of
groups) is the same for every seed and side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from preceptor.errors import InputError
from preceptor.evaluation.area_intervals import class_units, logit_interval, t_quantile
from preceptor.evaluation.metrics import Array, accuracy_weighted, auc_weighted, macro_auc_weighted
from preceptor.evaluation.paired_tests import LEVEL
from preceptor.evaluation.resampled_values import Blocks, ResampledValues

_BLOCK = 2**22  # counts drawn at once: 16 MiB for any number of images
_KNOWN = ResampledValues()
_REDRAWS = 50  # rounds after which a resample without some class is skipped


@dataclass(frozen=True, eq=False)
class BootstrapResult:
    """Estimate with its two-level bootstrap interval, see `two_level_bootstrap`.

    `redrawn` is the number of resamples without some class that were drawn again, `skipped` the
    number of those that still lacked one. The interval of a single AUC is not the percentile
    interval of its `replicates`.
    """

    estimate: float
    low: float
    high: float
    redrawn: int
    skipped: int
    replicates: Array = field(repr=False)


@dataclass(frozen=True)
class ShareResult:
    """Share of the way with its interval, or `None` and the reason, see `share_of_the_way`."""

    share: float | None
    low: float | None
    high: float | None
    reason: str


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


def two_level_bootstrap(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    metric: str = "auc",
    level: float = LEVEL,
) -> BootstrapResult:
    """Interval of the mean over seeds of a metric, or of its difference a − b.

    Each resample draws seeds with replacement, and images (or whole groups) with replacement. The
    drawn images are the same for all seeds and both sides:

        replicate = m + λ (m* − m) + κ Σ_s (w_s − 1/S) m_s

    where m_s is the value of seed s, m the mean of the m_s, m* the mean on the resampled images,
    and w_s the share of seed s in the resample. With λ = κ = 1 this is the plain bootstrap, which
    is inaccurate for few seeds: with three seeds it covers 77 % if seeds differ much, and 100 % if
    they differ only by noise. Therefore, at the level 95 %,

    - κ = √(S / (S − 1)) · t(0.975, S − 1) / 1.96, since the variance over resampled seeds is too
      small;
    - λ² = 1 − (seed-by-image variance) / (variance of m*), since the variance of the m_s already
      contains the seed-by-image variance. The latter is the residual mean square of the two-way
      table seeds × resamples.

    The limits of a difference, and of an accuracy, are the 2.5 and 97.5 percentiles of the
    replicates. The interval of one AUC is computed on the logit scale (`logit_interval`), since
    percentile intervals cover too little near 1 and if few images or groups are positive. Its half
    width on the scale of the AUC is

        (t_I V_I + t_S V_S) / √(V_I + V_S)

    with V_I = λ² · variance of m* · factor, V_S = variance of the m_s / S, t_S = t(0.975, S − 1);
    t_I and the factor depend on the number of units of each class (`class_units`).

    Coverage in simulations (1,000 to 3,000 of each, ±1.8 % at most) with 3, 5 and 10 seeds:
    differences, 94 to 96 % on 200 and 1,000 images and over 40 to 100 groups. One AUC, 95 to 97 %
    on 200 images and over 40 to 100 groups at AUCs of 0.69 to 0.76, the most with three seeds, for
    which t is conservative; 96.5 % with ten seeds and 20 groups; 93.7 % with five seeds and
    20 positives among 200 images at an AUC of 0.96; and 96.3 % with three seeds and 40 positives
    among 100 at 0.98 (percentile intervals: 91.4, 87.8 and 90.5 %). The coverage is too low, 92 %,
    with ten seeds and 20 positives among 200 images at 0.96, and with five seeds and 30 among 300
    at 0.99. With one seed only images are resampled, and the interval is conditional on this model.

    Args:
        labels: (n,) bool for scores (S, n), class indices for (S, n, C).
        scores_a: (S, n) or (S, n, C) scores, one row per seed.
        scores_b: Scores of the other side, the same shape and seeds; None = side a only.
        groups: (n,) units that are resampled as a whole (subject, patient); None or "" is a group
            of its own.
        resamples: Number of resamples R.
        seed: Random seed; equal seeds give equal results.
        metric: "auc" (macro for class scores), or "accuracy" (class scores only).
        level: Coverage of the interval, in (0, 1).

    Returns:
        Estimate (of the sample itself), interval and replicates. Resamples without some class of
        the sample are drawn again and counted. All values are NaN if the sample has one class only.
        The interval of one AUC is also NaN if its value is 0 or 1, if nothing varies, or if a class
        is in one unit only, since the variance of the AUC is then unknown.

    Raises:
        InputError: A score is NaN, or shapes or names do not match.

    Reference:
        Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (the plain bootstrap
        counts the seed-by-image variance more than once); Cochran, "Approximate significance levels
        of the Behrens-Fisher test", Biometrics 1964 (t quantiles weighted by variances).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(200) % 2 == 0
        >>> b = rng.normal(size=(3, 200)) + labels
        >>> r = two_level_bootstrap(labels, b + labels, b, resamples=500)
        >>> r.low < r.estimate < r.high
        True
    """
    sides = [scores_a] if scores_b is None else [scores_a, scores_b]
    sample = _resample(labels, sides, groups, resamples, seed, metric, level)
    contrast = [1.0] if scores_b is None else [1.0, -1.0]
    estimate, replicates = _contrast(sample, contrast)
    skipped = resamples - len(replicates)
    one_area = scores_b is None and metric == "auc"
    if one_area:
        low, high = _area_interval(sample, labels, groups, level)
    else:
        low, high = _interval(replicates, level)
    return BootstrapResult(estimate, low, high, sample.redrawn, skipped, replicates)


def share_of_the_way(
    labels: npt.ArrayLike,
    student: npt.ArrayLike,
    best_baseline: npt.ArrayLike,
    ceiling: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    metric: str = "auc",
    level: float = LEVEL,
) -> ShareResult:
    """Share of the way from the better baseline to the ceiling, with its bootstrap interval.

        (Student − better baseline) ÷ (ceiling − better baseline)

    The ratio is meaningless if its denominator may be zero; it is given only if the interval of the
    denominator lies above 0. The few resamples with a denominator ≤ 0 count as ±infinity by the
    sign of their numerator, as in Fieller's interval.

    Args:
        labels: (n,) bool for scores (S, n), class indices for (S, n, C).
        student: (S, n) or (S, n, C) scores, one row per seed; the same seeds for all three.
        best_baseline: Scores of the better baseline.
        ceiling: Scores of the run on all human maps.
        groups: (n,) units that are resampled as a whole.
        resamples: Number of resamples.
        seed: Random seed.
        metric: "auc" or "accuracy", see `two_level_bootstrap`.
        level: Coverage of the interval, in (0, 1).

    Returns:
        The share (1: as good as the ceiling; below 0: worse than the baseline) and its interval, or
        None for each, with the reason.

    Raises:
        InputError: A score is NaN, or shapes or names do not match.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(400) % 2 == 0
        >>> base = rng.normal(size=(5, 400))
        >>> r = share_of_the_way(labels, base + labels, base, base + 2 * labels, resamples=500)
        >>> 0.5 < r.share < 0.8
        True
    """
    sides = [student, best_baseline, ceiling]
    return _share(_resample(labels, sides, groups, resamples, seed, metric, level), level)


def share_of_draws(
    student: npt.ArrayLike,
    best_baseline: npt.ArrayLike,
    ceiling: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> ShareResult:
    """`share_of_the_way` for seeds that are tested on images of their own.

    The differences between seeds then include the differences between images, so that only seeds
    are resampled.

    Args:
        student: (S,) metric of the Student by seed.
        best_baseline: (S,) metric of the better baseline.
        ceiling: (S,) metric of the run on all human maps.
        resamples: Number of resamples.
        seed: Random seed.
        level: Coverage of the interval, in (0, 1).

    Raises:
        InputError: The three differ in length, or are empty.

    Example:
        >>> found = share_of_draws([0.7, 0.72, 0.71], [0.6, 0.61, 0.6], [0.8, 0.8, 0.81])
        >>> round(found.share, 2)
        0.53
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (student, best_baseline, ceiling)]
    if any(side.shape != sides[0].shape or side.ndim != 1 for side in sides) or not len(sides[0]):
        raise InputError(f"draws must be paired; got {', '.join(str(s.shape) for s in sides)}")
    estimates = np.stack(sides)
    shifts = _seed_shifts(estimates.shape[1], resamples, np.random.default_rng(seed), level)
    sample = _Sample(estimates, estimates[..., None].repeat(resamples, 2), shifts, 0)
    return _share(sample, level)


def _share(sample: _Sample, level: float) -> ShareResult:
    """Share of the way of the sides Student, better baseline, ceiling."""
    above, numerators = _contrast(sample, [1.0, -1.0, 0.0])
    gap, denominators = _contrast(sample, [0.0, -1.0, 1.0])
    low, high = _interval(denominators, level)
    if np.isnan(low):
        return ShareResult(None, None, None, "the evaluation set has one class only")
    if low <= 0:
        why = "the ceiling is below the baseline" if high < 0 else "this includes 0"
        interval = f"ceiling minus best baseline is {gap:.3f} [{low:.3f}, {high:.3f}]"
        return ShareResult(None, None, None, f"{interval}: {why}")
    safe = np.where(denominators > 0, denominators, 1.0)
    ratios = np.where(denominators > 0, numerators / safe, np.copysign(np.inf, numerators))
    return ShareResult(above / gap, *_interval(ratios, level), reason="")


class _Sample(NamedTuple):
    estimates: Array  # (K, S) value of each side and seed on the sample itself
    values: Array  # (K, S, R) value on resampled images; NaN for skipped resamples
    shifts: Array  # (R, S) weight of each seed in each resample, minus 1/S, times κ
    redrawn: int


def _resample(
    labels: npt.ArrayLike,
    sides: Sequence[npt.ArrayLike],
    groups: npt.ArrayLike | None,
    resamples: int,
    seed: int,
    metric: str,
    level: float,
) -> _Sample:
    """Metric of each side and seed on each resample; the resampled images are common to all."""
    scores = [np.asarray(side, dtype=np.float64) for side in sides]
    given = np.asarray(labels)
    shape = scores[0].shape
    if any(side.shape != shape for side in scores) or len(shape) not in (2, 3) or not shape[0]:
        raise InputError(
            "scores must have the same shape (seeds, images) or (seeds, images, classes) on every "
            f"side; got {', '.join(str(side.shape) for side in scores)}"
        )
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples}")
    measure = _measure(metric, len(shape))
    seeds, images = shape[:2]
    whole = np.ones((1, images))
    estimates = np.array([[measure(given, row, whole)[0] for row in side] for side in scores])
    if np.isnan(estimates).any():
        nothing = np.full((*estimates.shape, resamples), np.nan)
        return _Sample(estimates, nothing, np.zeros((resamples, seeds)), 0)

    rng = np.random.default_rng(seed)
    shifts = _seed_shifts(seeds, resamples, rng, level)

    # Accuracy is defined on any resample; the AUC needs every class of the sample.
    classes = pd.factorize(given)[0] if metric == "auc" else np.zeros(images, dtype=np.int64)
    codes = None if groups is None else unit_codes(groups, images)
    values, redrawn = _KNOWN.of(
        [given, codes, resamples, seed, seeds, metric],
        [row for side in scores for row in side],
        partial(measure, given),
        lambda: _image_counts(classes, codes, resamples, rng),
    )
    return _Sample(estimates, np.reshape(values, (*estimates.shape, -1)), shifts, redrawn)


def _seed_shifts(seeds: int, resamples: int, rng: np.random.Generator, level: float) -> Array:
    """(R, S) weight of each seed in each resample, minus 1/S, times κ."""
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds  # w
    stretch = 1.0
    if seeds > 1:
        tails = stats.t.ppf(0.5 + level / 2, seeds - 1) / stats.norm.ppf(0.5 + level / 2)
        stretch = float(tails * np.sqrt(seeds / (seeds - 1)))
    return stretch * (drawn - 1 / seeds)


def _contrast(sample: _Sample, weights: Sequence[float]) -> tuple[float, Array]:
    """Weighted sum of the sides: the estimate, and the replicates that could be drawn."""
    own = np.tensordot(weights, sample.estimates, 1)
    values = np.tensordot(weights, sample.values, 1)
    held = ~np.isnan(values).any(axis=0)
    values, shifts = values[:, held], sample.shifts[held]
    over_seeds = values.mean(axis=0)
    centre = float(own.mean())
    return centre, centre + _shrink(values) * (over_seeds - centre) + shifts @ own


def _shrink(values: Array) -> float:
    """λ of (S, R) values: excludes the seed-by-image variance, see `two_level_bootstrap`."""
    seeds, resamples = values.shape
    over_seeds = values.mean(axis=0)
    if seeds > 1 and resamples > 1 and (spread := over_seeds.var(ddof=1)) > 0:
        residual = values - values.mean(axis=1, keepdims=True) - over_seeds + over_seeds.mean()
        both = (residual**2).sum() / ((seeds - 1) * (resamples - 1) * seeds)
        return float(np.sqrt(max(0.0, 1.0 - both / spread)))
    return 1.0


def _area_interval(
    sample: _Sample, labels: npt.ArrayLike, groups: npt.ArrayLike | None, level: float
) -> tuple[float, float]:
    """Interval of the mean AUC of one side, see `two_level_bootstrap`."""
    own, values = sample.estimates[0], sample.values[0]
    values = values[:, ~np.isnan(values).any(axis=0)]
    seeds, resamples = values.shape
    if resamples < 2:
        return float("nan"), float("nan")
    classes = np.asarray(labels)
    degrees, factor = class_units(classes, unit_codes(groups, len(classes)))
    over_images = _shrink(values) ** 2 * float(values.mean(axis=0).var(ddof=1)) * factor
    over_seeds = float(own.var(ddof=1)) / seeds if seeds > 1 else 0.0
    if not over_images + over_seeds > 0:
        return float("nan"), float("nan")
    tails = t_quantile(degrees, level) * over_images
    if seeds > 1:
        tails += t_quantile(seeds - 1, level) * over_seeds
    return logit_interval(float(own.mean()), tails / float(np.sqrt(over_images + over_seeds)))


def _measure(
    metric: str, dimensions: int
) -> Callable[[npt.NDArray[Any], Array, npt.NDArray[Any]], Array]:
    if metric == "auc":
        return auc_weighted if dimensions == 2 else macro_auc_weighted
    if metric == "accuracy" and dimensions == 3:
        return accuracy_weighted
    raise InputError(f"metric {metric!r}: use auc, or accuracy with scores of every class")


def _image_counts(
    classes: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int64] | None,
    resamples: int,
    rng: np.random.Generator,
) -> Blocks:
    """Blocks of image counts that contain every class, and the number of rows drawn again.

    A row that still lacks a class after all rounds is set to zeros, so that its metric is NaN.
    """
    images = len(classes)
    member = np.arange(images) if codes is None else codes
    units = int(member.max()) + 1
    present = np.eye(int(classes.max()) + 1, dtype=np.float32)[classes]

    def draw(rows: int) -> npt.NDArray[np.float32]:
        picked = rng.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(picked.ravel(), minlength=rows * units).astype(np.float32)
        counts = counts.reshape(rows, units)
        return counts if codes is None else counts[:, member]

    block = max(1, _BLOCK // images)
    for start in range(0, resamples, block):
        counts = draw(min(block, resamples - start))
        redrawn = 0
        for _ in range(_REDRAWS):
            bad = np.flatnonzero((counts @ present == 0).any(axis=1))
            if not len(bad):
                break
            counts[bad] = draw(len(bad))
            redrawn += len(bad)
        counts[(counts @ present == 0).any(axis=1)] = 0
        yield counts, redrawn


def _interval(replicates: Array, level: float) -> tuple[float, float]:
    if not len(replicates):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    # Without interpolation: replicates of a ratio may be infinite.
    low, high = np.quantile(replicates, [tail, 1 - tail], method="nearest")
    return float(low), float(high)
