"""Two-level bootstrap over seeds and test images, and the share of the way to the ceiling.

All models of a study are tested on the same images. Therefore each resample of images (or of
groups) is the same for every seed and side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from preceptor.errors import InputError
from preceptor.metrics.auc import Array, auc_weighted, macro_auc_weighted
from preceptor.metrics.paired_tests import LEVEL, unit_codes

_KNOWN: OrderedDict[bytes, Array] = OrderedDict()
"""Values of rows of scores on resamples: a study compares each model with many others on them."""
_ROOM = 2**26  # bytes of the values that are kept
_BLOCK = 2**22  # counts drawn at once: 16 MiB for any number of images
_REDRAWS = 50  # rounds after which a resample without some class is skipped


def _digest(*parts: Any) -> bytes:
    """Digest of arrays, with type and shape, and of other values."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            hashed.update(f"{part.dtype.str} {part.shape} ".encode())
            hashed.update(np.ascontiguousarray(part).tobytes())
        else:
            hashed.update(f"{list(part) if isinstance(part, np.ndarray) else part!r} ".encode())
    return hashed.digest()


class Resamples(NamedTuple):
    """Metric of each side and seed on a set and on its resamples."""

    estimates: Array  # (K, S) value of each side and seed on the set itself
    values: Array  # (K, S, R) value on resampled images; NaN for skipped resamples
    shifts: Array  # (R, S) weight of each seed in each resample, minus 1/S, times κ


def resample(
    labels: npt.ArrayLike,
    sides: Sequence[npt.ArrayLike],
    groups: npt.ArrayLike | None,
    resamples: int,
    seed: int,
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
    rows = [row for side in scores for row in side]
    estimates = np.array([measure(given, row, np.ones((1, images)))[0] for row in rows])
    estimates = estimates.reshape(-1, seeds)
    if np.isnan(estimates).any():
        nothing = np.full((*estimates.shape, resamples), np.nan)
        return Resamples(estimates, nothing, np.zeros((resamples, seeds)))

    rng = np.random.default_rng(seed)
    shifts = seed_shifts(seeds, resamples, rng)
    classes = pd.factorize(given)[0]
    codes = None if groups is None else unit_codes(groups, images)
    drawn = _digest(given, codes, resamples, seed, seeds)
    keys = [_digest(drawn, row) for row in rows]
    samples = {key: _KNOWN[key] for key in keys if key in _KNOWN}
    missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in samples}
    parts: dict[bytes, list[Array]] = {key: [] for key in missing}
    for counts in _image_counts(classes, codes, resamples, rng) if missing else ():
        for key, row in missing.items():
            parts[key].append(measure(given, row, counts))
    samples |= {key: np.concatenate(part) for key, part in parts.items()}
    for key, values in samples.items():
        _KNOWN[key] = values
        _KNOWN.move_to_end(key)
    while sum(values.nbytes for values in _KNOWN.values()) > _ROOM:
        _KNOWN.popitem(last=False)
    sampled = np.reshape([samples[key] for key in keys], (*estimates.shape, -1))
    return Resamples(estimates, sampled, shifts)


def seed_shifts(seeds: int, resamples: int, rng: np.random.Generator) -> Array:
    """(R, S) weight of each seed in each resample, minus 1/S, times κ of `bootstrap_difference`."""
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds  # w
    stretch = 1.0
    if seeds > 1:
        tails = stats.t.ppf(0.5 + LEVEL / 2, seeds - 1) / stats.norm.ppf(0.5 + LEVEL / 2)
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
    """λ of (S, R) values: excludes the seed-by-image variance, see `bootstrap_difference`."""
    seeds, resamples = values.shape
    over_seeds = values.mean(axis=0)
    if seeds > 1 and resamples > 1 and (spread := over_seeds.var(ddof=1)) > 0:
        residual = values - values.mean(axis=1, keepdims=True) - over_seeds + over_seeds.mean()
        both = (residual**2).sum() / ((seeds - 1) * (resamples - 1) * seeds)
        return float(np.sqrt(max(0.0, 1.0 - both / spread)))
    return 1.0


def percentiles(replicates: Array) -> tuple[float, float]:
    """Percentile interval of replicates; NaN and NaN without any."""
    if not len(replicates):
        return float("nan"), float("nan")
    tail = (1 - LEVEL) / 2
    # Without interpolation: replicates of a ratio may be infinite.
    low, high = np.quantile(replicates, [tail, 1 - tail], method="nearest")
    return float(low), float(high)


def _image_counts(
    classes: npt.NDArray[np.int64],
    codes: npt.NDArray[np.int64] | None,
    resamples: int,
    rng: np.random.Generator,
) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of image counts with every class; a row that lacks one after all rounds is zero."""
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
        for _ in range(_REDRAWS):
            bad = np.flatnonzero((counts @ present == 0).any(axis=1))
            if not len(bad):
                break
            counts[bad] = draw(len(bad))
        counts[(counts @ present == 0).any(axis=1)] = 0
        yield counts


class Side(NamedTuple):
    """One side of a difference on an evaluation set, see `bootstrap_difference`."""

    labels: npt.ArrayLike  # (n,) bool for scores (S, n), class indices for (S, n, C)
    scores: Sequence[npt.ArrayLike]  # scores of each model, (S, n) or (S, n, C), one row per seed
    groups: npt.ArrayLike | None = None  # (n,) units; "" or None for an image by itself


@dataclass(frozen=True, eq=False)
class BootstrapResult:
    """Estimate with its two-level bootstrap interval, see `bootstrap_difference`."""

    estimate: float
    low: float
    high: float
    replicates: Array = field(repr=False)  # of the resamples that contain every class


def bootstrap_difference(
    one: Side, other: Side, *, same_images: bool = True, resamples: int = 2000, seed: int = 0
) -> BootstrapResult:
    """Interval of the mean AUC over seeds and models of one side minus that of another.

    Each resample draws seeds with replacement, and images (or whole groups) with replacement. The
    drawn seeds are the same for both sides and all models, the drawn images for all models on an
    evaluation set:

        replicate = m + λ (m* − m) + κ Σ_s (w_s − 1/S) m_s

    where m_s is the difference of seed s, m the mean of the m_s, m* the mean on the resampled
    images, and w_s the share of seed s in the resample. With λ = κ = 1 this is the plain bootstrap,
    which is inaccurate for few seeds: with three seeds it covers 77 % if seeds differ much, and
    100 % if they differ only by noise. Therefore, at the level 95 %,

    - κ = √(S / (S − 1)) · t(0.975, S − 1) / 1.96, since the variance over resampled seeds is too
      small;
    - λ² = 1 − (seed-by-image variance) / (variance of m*), since the variance of the m_s already
      contains the seed-by-image variance. The latter is the residual mean square of the two-way
      table seeds × resamples.

    The limits are the 2.5 and 97.5 percentiles of the replicates. Coverage in simulations:
    docs/report.md. With one seed only images are resampled, and the interval is conditional on
    these models.

    Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (the plain bootstrap
    counts the seed-by-image variance more than once).
    """
    if same_images:
        sides = [*one.scores, *other.scores]
        sample = resample(one.labels, sides, one.groups, resamples, seed)
    else:
        first, second = (
            resample(side.labels, side.scores, side.groups, resamples, images)
            for side, images in ((one, seed), (other, seed + 1))
        )
        if first.shifts.shape != second.shifts.shape:
            raise InputError("both sides need the same seeds")
        estimates = np.concatenate([first.estimates, second.estimates])
        sample = Resamples(estimates, np.concatenate([first.values, second.values]), first.shifts)
    shares = [np.full(len(side.scores), 1 / len(side.scores)) for side in (one, other)]
    estimate, replicates = contrast(sample, [*shares[0], *-shares[1]])
    return BootstrapResult(estimate, *percentiles(replicates), replicates)


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
) -> ShareResult:
    """Share of the way from the better baseline to the ceiling, with its bootstrap interval.

        (Student − better baseline) ÷ (ceiling − better baseline)

    The ratio is meaningless if its denominator may be zero; it is given only if the interval of the
    denominator lies above 0. The few resamples with a denominator ≤ 0 count as ±infinity by the
    sign of their numerator, as in Fieller's interval.
    """
    sides = [student, best_baseline, ceiling]
    return _share(resample(labels, sides, groups, resamples, seed))


def share_of_draws(
    student: npt.ArrayLike,
    best_baseline: npt.ArrayLike,
    ceiling: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
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
    shifts = seed_shifts(estimates.shape[1], resamples, np.random.default_rng(seed))
    sample = Resamples(estimates, estimates[..., None].repeat(resamples, 2), shifts)
    return _share(sample)


def _share(sample: Resamples) -> ShareResult:
    """Share of the way of the sides Student, better baseline, ceiling."""
    above, numerators = contrast(sample, [1.0, -1.0, 0.0])
    gap, denominators = contrast(sample, [0.0, -1.0, 1.0])
    low, high = percentiles(denominators)
    if np.isnan(low):
        return ShareResult(None, None, None, "the evaluation set has one class only")
    if low <= 0:
        why = "the ceiling is below the baseline" if high < 0 else "this includes 0"
        interval = f"ceiling minus best baseline is {gap:.3f} [{low:.3f}, {high:.3f}]"
        return ShareResult(None, None, None, f"{interval}: {why}")
    safe = np.where(denominators > 0, denominators, 1.0)
    ratios = np.where(denominators > 0, numerators / safe, np.copysign(np.inf, numerators))
    return ShareResult(above / gap, *percentiles(ratios), reason="")
