"""Resamples of seeds and test images, for the bootstrap of `preceptor.evaluation.bootstrap`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from preceptor.errors import InputError
from preceptor.evaluation.arrays import Array
from preceptor.evaluation.auc import auc_weighted, macro_auc_weighted
from preceptor.evaluation.probabilities import accuracy_weighted
from preceptor.evaluation.resampled_values import Blocks, ResampledValues
from preceptor.evaluation.units import unit_codes

_BLOCK = 2**22  # counts drawn at once: 16 MiB for any number of images
_KNOWN = ResampledValues()
_REDRAWS = 50  # rounds after which a resample without some class is skipped


class Resamples(NamedTuple):
    """Metric of each side and seed on a set and on its resamples.

    Args:
        estimates: (K, S) value of each side and seed on the set itself.
        values: (K, S, R) value on resampled images; NaN for skipped resamples.
        shifts: (R, S) weight of each seed in each resample, minus 1/S, times κ.
        redrawn: Number of resamples that were drawn again.
    """

    estimates: Array
    values: Array
    shifts: Array
    redrawn: int


def resample(
    labels: npt.ArrayLike,
    sides: Sequence[npt.ArrayLike],
    groups: npt.ArrayLike | None,
    resamples: int,
    seed: int,
    metric: str,
    level: float,
) -> Resamples:
    """Metric of each side and seed on each resample; the resampled images are common to all.

    Args:
        labels: (n,) bool for scores (S, n), class indices for (S, n, C).
        sides: K arrays of scores, (S, n) or (S, n, C), one row per seed.
        groups: (n,) units that are resampled as a whole; None = images.
        resamples: Number of resamples R.
        seed: Random seed.
        metric: "auc" (macro for class scores), or "accuracy" (class scores only).
        level: Coverage of the interval, in (0, 1), which sets κ.

    Raises:
        InputError: A score is NaN, or shapes or names do not match.
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
    measure = _measure(metric, len(shape))
    seeds, images = shape[:2]
    whole = np.ones((1, images))
    estimates = np.array([[measure(given, row, whole)[0] for row in side] for side in scores])
    if np.isnan(estimates).any():
        nothing = np.full((*estimates.shape, resamples), np.nan)
        return Resamples(estimates, nothing, np.zeros((resamples, seeds)), 0)

    rng = np.random.default_rng(seed)
    shifts = seed_shifts(seeds, resamples, rng, level)

    # Accuracy is defined on any resample; the AUC needs every class of the sample.
    classes = pd.factorize(given)[0] if metric == "auc" else np.zeros(images, dtype=np.int64)
    codes = None if groups is None else unit_codes(groups, images)
    values, redrawn = _KNOWN.of(
        [given, codes, resamples, seed, seeds, metric],
        [row for side in scores for row in side],
        partial(measure, given),
        lambda: _image_counts(classes, codes, resamples, rng),
    )
    return Resamples(estimates, np.reshape(values, (*estimates.shape, -1)), shifts, redrawn)


def seed_shifts(seeds: int, resamples: int, rng: np.random.Generator, level: float) -> Array:
    """(R, S) weight of each seed in each resample, minus 1/S, times κ.

    Args:
        seeds: Number of seeds S.
        resamples: Number of resamples R.
        rng: Random generator.
        level: Coverage of the interval, in (0, 1), which sets κ, see `two_level_bootstrap`.
    """
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds  # w
    stretch = 1.0
    if seeds > 1:
        tails = stats.t.ppf(0.5 + level / 2, seeds - 1) / stats.norm.ppf(0.5 + level / 2)
        stretch = float(tails * np.sqrt(seeds / (seeds - 1)))
    return stretch * (drawn - 1 / seeds)


def contrast(sample: Resamples, weights: Sequence[float]) -> tuple[float, Array]:
    """Weighted sum of the sides: the estimate, and the replicates that could be drawn.

    Args:
        sample: Resamples of K sides.
        weights: K weights.
    """
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
