"""Two-level bootstrap over seeds and test images, and the share of the way to the ceiling.

All models of a study are tested on the same images. Therefore each resample of images (or of
groups) is the same for every seed and side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics.auc import Array, auc_weighted, macro_auc_weighted
from preceptor.metrics.paired_tests import (
    LEVEL,
    class_units,
    logit_interval,
    t_quantile,
    unit_codes,
)

Blocks = Iterator[tuple[npt.NDArray[np.float32], int]]
"""Counts of images in some resamples, and the number of those that were drawn again."""


_KNOWN: OrderedDict[bytes, tuple[Array, int]] = OrderedDict()
"""Values of rows of scores on resamples, and the number of resamples drawn again: a study compares
each model with many others on the same resamples."""
_ROOM = 2**26  # bytes of the values that are kept


def _values(
    resamples: bytes,
    rows: Sequence[Array],
    measure: Callable[[Array, npt.NDArray[np.float32]], Array],
    draw: Callable[[], Blocks],
) -> tuple[list[Array], int]:
    """Metric of each row of scores on each resample, and the number of resamples drawn again."""
    keys = [_digest(resamples, row) for row in rows]
    missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in _KNOWN}
    parts: dict[bytes, list[Array]] = {key: [] for key in missing}
    redrawn = 0
    for counts, again in draw() if missing else ():
        redrawn += again
        for key, row in missing.items():
            parts[key].append(measure(row, counts))
    measured = {key: _KNOWN[key] for key in keys if key not in missing}
    measured |= {key: (np.concatenate(part), redrawn) for key, part in parts.items()}
    _KNOWN.update(measured)
    for key in measured:
        _KNOWN.move_to_end(key)
    while sum(values.nbytes for values, _ in _KNOWN.values()) > _ROOM:
        _KNOWN.popitem(last=False)
    return [measured[key][0] for key in keys], measured[keys[0]][1]


def _digest(*parts: Any) -> bytes:
    """Digest of arrays (with type and shape), bytes and other values."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            hashed.update(f"{part.dtype.str} {part.shape} ".encode())
            hashed.update(np.ascontiguousarray(part).tobytes())
        else:
            hashed.update(f"{list(part) if isinstance(part, np.ndarray) else part!r} ".encode())
    return hashed.digest()


_BLOCK = 2**22  # counts drawn at once: 16 MiB for any number of images
_REDRAWS = 50  # rounds after which a resample without some class is skipped


class Resamples(NamedTuple):
    """Metric of each side and seed on a set and on its resamples."""

    estimates: Array  # (K, S) value of each side and seed on the set itself
    values: Array  # (K, S, R) value on resampled images; NaN for skipped resamples
    shifts: Array  # (R, S) weight of each seed in each resample, minus 1/S, times κ
    redrawn: int  # number of resamples that were drawn again


def resample(
    labels: npt.ArrayLike,
    sides: Sequence[npt.ArrayLike],
    groups: npt.ArrayLike | None,
    resamples: int,
    seed: int,
    level: float,
) -> Resamples:
    """Metric of each side and seed on each resample; the resampled images are common to all.

    Labels are (n,) bool for K sides of scores (S, n), class indices for (S, n, C); groups are (n,)
    units that are resampled as a whole, None = images.
    """
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
    measure = auc_weighted if len(shape) == 2 else macro_auc_weighted
    seeds, images = shape[:2]
    whole = np.ones((1, images))
    estimates = np.array([[measure(given, row, whole)[0] for row in side] for side in scores])
    if np.isnan(estimates).any():
        nothing = np.full((*estimates.shape, resamples), np.nan)
        return Resamples(estimates, nothing, np.zeros((resamples, seeds)), 0)

    rng = np.random.default_rng(seed)
    shifts = seed_shifts(seeds, resamples, rng, level)

    classes = pd.factorize(given)[0]
    codes = None if groups is None else unit_codes(groups, images)
    values, redrawn = _values(
        _digest(given, codes, resamples, seed, seeds),
        [row for side in scores for row in side],
        partial(measure, given),
        lambda: _image_counts(classes, codes, resamples, rng),
    )
    return Resamples(estimates, np.reshape(values, (*estimates.shape, -1)), shifts, redrawn)


def seed_shifts(seeds: int, resamples: int, rng: np.random.Generator, level: float) -> Array:
    """(R, S) weight of each seed in each resample, minus 1/S, times κ of `two_level_bootstrap`."""
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds  # w
    stretch = 1.0
    if seeds > 1:
        tails = stats.t.ppf(0.5 + level / 2, seeds - 1) / stats.norm.ppf(0.5 + level / 2)
        stretch = float(tails * np.sqrt(seeds / (seeds - 1)))
    return stretch * (drawn - 1 / seeds)


def contrast(sample: Resamples, weights: Sequence[float]) -> tuple[float, Array]:
    """Weighted sum of the sides: the estimate, and the replicates that could be drawn."""
    own = np.tensordot(weights, sample.estimates, 1)
    values = np.tensordot(weights, sample.values, 1)
    held = ~np.isnan(values).any(axis=0)
    values, shifts = values[:, held], sample.shifts[held]
    over_seeds = values.mean(axis=0)
    centre = float(own.mean())
    return centre, centre + image_share(values) * (over_seeds - centre) + shifts @ own


def image_share(values: Array) -> float:
    """λ of (S, R) values: excludes the seed-by-image variance, see `two_level_bootstrap`."""
    seeds, resamples = values.shape
    over_seeds = values.mean(axis=0)
    if seeds > 1 and resamples > 1 and (spread := over_seeds.var(ddof=1)) > 0:
        residual = values - values.mean(axis=1, keepdims=True) - over_seeds + over_seeds.mean()
        both = (residual**2).sum() / ((seeds - 1) * (resamples - 1) * seeds)
        return float(np.sqrt(max(0.0, 1.0 - both / spread)))
    return 1.0


def percentiles(replicates: Array, level: float) -> tuple[float, float]:
    """Percentile interval of replicates; NaN and NaN without any."""
    if not len(replicates):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    # Without interpolation: replicates of a ratio may be infinite.
    low, high = np.quantile(replicates, [tail, 1 - tail], method="nearest")
    return float(low), float(high)


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


class Side(NamedTuple):
    """One side of a difference on an evaluation set, see `bootstrap_difference`."""

    labels: npt.ArrayLike  # (n,) bool for scores (S, n), class indices for (S, n, C)
    scores: Sequence[npt.ArrayLike]  # scores of each model, (S, n) or (S, n, C), one row per seed
    groups: npt.ArrayLike | None = None


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


def two_level_bootstrap(
    labels: npt.ArrayLike,
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> BootstrapResult:
    """Interval of the mean AUC over seeds, or of its difference a − b.

    Labels are (n,) bool for scores (S, n), one row per seed, and class indices for (S, n, C), whose
    AUC is macro-averaged; groups are (n,) units, "" or None for an image by itself. Each resample
    draws seeds with replacement, and images (or whole groups) with replacement. The drawn images
    are the same for all seeds and both sides:

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

    The limits of a difference are the 2.5 and 97.5 percentiles of the
    replicates. The interval of one AUC is computed on the logit scale (`logit_interval`), since
    percentile intervals cover too little near 1 and if few images or groups are positive. Its half
    width on the scale of the AUC is

        (t_I V_I + t_S V_S) / √(V_I + V_S)

    with V_I = λ² · variance of m* · factor, V_S = variance of the m_s / S, t_S = t(0.975, S − 1);
    t_I and the factor depend on the number of units of each class (`class_units`).

    Coverage in simulations: docs/report.md. With one seed only images are resampled, and the
    interval is conditional on this model.

    Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (the plain bootstrap
    counts the seed-by-image variance more than once); Cochran, "Approximate significance levels
    of the Behrens-Fisher test", Biometrics 1964 (t quantiles weighted by variances).
    """
    sides = [scores_a] if scores_b is None else [scores_a, scores_b]
    sample = resample(labels, sides, groups, resamples, seed, level)
    weights = [1.0] if scores_b is None else [1.0, -1.0]
    estimate, replicates = contrast(sample, weights)
    skipped = resamples - len(replicates)
    if scores_b is None:
        low, high = _area_interval(sample, labels, groups, level)
    else:
        low, high = percentiles(replicates, level)
    return BootstrapResult(estimate, low, high, sample.redrawn, skipped, replicates)


def bootstrap_difference(
    one: Side,
    other: Side,
    *,
    same_images: bool,
    resamples: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> BootstrapResult:
    """Interval of the mean AUC over seeds and models of one side minus that of another.

    That of `two_level_bootstrap`, for sides of several models, or on two evaluation sets. The
    resampled seeds are the same for both sides and all models, and the resampled images are those
    of the set.
    """
    samples = [
        resample(side.labels, side.scores, side.groups, resamples, images, level)
        for side, images in ((one, seed), (other, seed if same_images else seed + 1))
    ]
    if samples[0].shifts.shape != samples[1].shifts.shape:
        raise InputError("both sides need the same seeds")
    both = Resamples(
        np.concatenate([sample.estimates for sample in samples]),
        np.concatenate([sample.values for sample in samples]),
        samples[0].shifts,
        samples[0].redrawn if same_images else sum(sample.redrawn for sample in samples),
    )
    shares = [np.full(len(side.scores), 1 / len(side.scores)) for side in (one, other)]
    estimate, replicates = contrast(both, [*shares[0], *-shares[1]])
    limits = percentiles(replicates, level)
    return BootstrapResult(estimate, *limits, both.redrawn, resamples - len(replicates), replicates)


def _area_interval(
    sample: Resamples, labels: npt.ArrayLike, groups: npt.ArrayLike | None, level: float
) -> tuple[float, float]:
    """Interval of the mean AUC of one side, see `two_level_bootstrap`."""
    own, values = sample.estimates[0], sample.values[0]
    values = values[:, ~np.isnan(values).any(axis=0)]
    seeds, resamples = values.shape
    if resamples < 2:
        return float("nan"), float("nan")
    classes = np.asarray(labels)
    degrees, factor = class_units(classes, unit_codes(groups, len(classes)))
    over_images = image_share(values) ** 2 * float(values.mean(axis=0).var(ddof=1)) * factor
    over_seeds = float(own.var(ddof=1)) / seeds if seeds > 1 else 0.0
    if not over_images + over_seeds > 0:
        return float("nan"), float("nan")
    tails = t_quantile(degrees, level) * over_images
    if seeds > 1:
        tails += t_quantile(seeds - 1, level) * over_seeds
    return logit_interval(float(own.mean()), tails / float(np.sqrt(over_images + over_seeds)))


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
    level: float = LEVEL,
) -> ShareResult:
    """Share of the way from the better baseline to the ceiling, with its bootstrap interval.

        (Student − better baseline) ÷ (ceiling − better baseline)

    The ratio is meaningless if its denominator may be zero; it is given only if the interval of the
    denominator lies above 0. The few resamples with a denominator ≤ 0 count as ±infinity by the
    sign of their numerator, as in Fieller's interval.
    """
    sides = [student, best_baseline, ceiling]
    return _share(resample(labels, sides, groups, resamples, seed, level), level)


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
