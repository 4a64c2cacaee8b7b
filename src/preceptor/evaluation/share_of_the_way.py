"""Share of the way from the better baseline to the ceiling, with its bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError
from preceptor.evaluation.paired_tests import LEVEL
from preceptor.evaluation.resampling import Resamples, contrast, percentiles, resample, seed_shifts


@dataclass(frozen=True)
class ShareResult:
    """Share of the way with its interval, or `None` and the reason, see `share_of_the_way`."""

    share: float | None
    low: float | None
    high: float | None
    reason: str


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
    return _share(resample(labels, sides, groups, resamples, seed, metric, level), level)


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
    are resampled. Of a single seed, the interval is unknown, and there is no share.

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
    if len(sides[0]) == 1:
        return ShareResult(None, None, None, "one seed has no interval over seeds")
    estimates = np.stack(sides)
    shifts = seed_shifts(estimates.shape[1], resamples, np.random.default_rng(seed), level)
    sample = Resamples(estimates, estimates[..., None].repeat(resamples, 2), shifts, 0)
    return _share(sample, level)


def _share(sample: Resamples, level: float) -> ShareResult:
    """Share of the way of the sides Student, better baseline, ceiling."""
    above, numerators = contrast(sample, [1.0, -1.0, 0.0])
    gap, denominators = contrast(sample, [0.0, -1.0, 1.0])
    low, high = percentiles(denominators, level)
    if np.isnan(low):
        return ShareResult(None, None, None, "the evaluation set has one class only")
    if low <= 0:
        why = "the ceiling is below the baseline" if high < 0 else "this includes 0"
        interval = f"ceiling minus best baseline is {gap:.3f} [{low:.3f}, {high:.3f}]"
        return ShareResult(None, None, None, f"{interval}: {why}")
    safe = np.where(denominators > 0, denominators, 1.0)
    ratios = np.where(denominators > 0, numerators / safe, np.copysign(np.inf, numerators))
    return ShareResult(above / gap, *percentiles(ratios, level), reason="")
