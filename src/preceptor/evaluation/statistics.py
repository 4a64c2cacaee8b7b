"""What a few seeds and a few hundred images can support: intervals, p-values, shares.

A study's numbers vary for two reasons: another seed trains another model, and another sample of
images gives another score. `paired_difference` sees the first (the test images are taken as
given), `two_level_bootstrap` both. Sides are always paired: entry s of both sides is of the same
seed, hence of the same annotated images where those are redrawn per seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from preceptor.errors import InputError
from preceptor.evaluation.metrics import (
    Array,
    accuracy_weighted,
    auc_weighted,
    macro_auc_weighted,
)

_LEVEL = 0.95
_EXACT_UP_TO = 20  # 2^20 sign patterns are 8 MiB and a few milliseconds
_RANDOM_FLIPS = 2**16
_BLOCK = 2**22  # counts drawn at once: 16 MiB, however many images there are
_REDRAWS = 50  # rounds after which a resample without some class is given up


class MeanStd(NamedTuple):
    """A mean and its standard deviation with n − 1."""

    mean: float
    std: float


@dataclass(frozen=True)
class PairedResult:
    """Paired differences a − b over seeds: see `paired_difference`."""

    mean: float
    std: float
    low: float
    high: float
    p: float
    p_floor: float
    n: int


@dataclass(frozen=True, eq=False)
class BootstrapResult:
    """An estimate with its two-level bootstrap interval: see `two_level_bootstrap`.

    `redrawn` counts resamples that lacked a class and were drawn again, `skipped` those given up.
    """

    estimate: float
    low: float
    high: float
    redrawn: int
    skipped: int
    replicates: Array = field(repr=False)


class SeedsNeeded(NamedTuple):
    """Numbers of seeds by the spread as seen and by its upper bound: see `seeds_needed`."""

    expected: int
    cautious: int


@dataclass(frozen=True)
class ShareResult:
    """A share of the way with its interval, or `None` and the reason: see `share_of_the_way`."""

    share: float | None
    low: float | None
    high: float | None
    reason: str


def mean_std(values: npt.ArrayLike) -> MeanStd:
    """Mean and standard deviation (n − 1): NaN without values, the deviation also of one value.

    Args:
        values: (n,) numbers.

    Example:
        >>> mean_std([1.0, 2.0, 3.0])
        MeanStd(mean=2.0, std=1.0)
    """
    given = np.asarray(values, dtype=np.float64)
    mean = float(given.mean()) if given.size else float("nan")
    return MeanStd(mean, float(given.std(ddof=1)) if given.size > 1 else float("nan"))


def t_interval(values: npt.ArrayLike) -> tuple[float, float]:
    """The 95 % interval of a mean: mean ± t(0.975, n − 1) · std / √n; NaN below two values.

    Args:
        values: (n,) numbers, taken as normal.

    Example:
        >>> low, high = t_interval([1.0, 2.0, 3.0])
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
    """
    given = np.asarray(values, dtype=np.float64)
    mean, std = mean_std(given)
    n = len(given)
    if n < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, n - 1)) * std / np.sqrt(n)
    return float(mean - half), float(mean + half)


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike) -> PairedResult:
    """Compare two sides seed by seed: mean of d = a − b, 95 % t interval, exact sign-flip p.

    The interval is mean ± t(0.975, n − 1) · std / √n. The p-value is two-sided: the share of all
    2^n sign patterns ±d whose |sum| is at least the observed one; it needs no distribution, only
    that swapping the two sides of a seed would change nothing if they were equal. It cannot fall
    below `p_floor` = 2 / 2^n. Above 20 seeds, 2^16 random patterns from a fixed seed stand for
    all, p is (1 + hits) / (1 + 2^16), and `p_floor` is 1 / (1 + 2^16).

    Args:
        a: (n,) one value a seed.
        b: (n,) the other side's values of the same seeds, in the same order.

    Returns:
        The result; interval and std are NaN at n = 1, everything at n = 0 and where a value is
        NaN (the AUC of a set with one class): a seed is never dropped in silence.

    Raises:
        InputError: The sides do not have one value a seed each.

    Reference:
        Fisher, "The Design of Experiments", 1935, section 21; Phipson and Smyth, "Permutation
        p-values should never be zero", 2010 (the +1).

    Example:
        >>> r = paired_difference([0.74, 0.75, 0.76], [0.71, 0.73, 0.72])
        >>> f"{r.mean:.2f} [{r.low:.3f}, {r.high:.3f}], p = {r.p}"
        '0.03 [0.005, 0.055], p = 0.25'
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(f"paired sides need one value a seed: {first.shape}, {second.shape}")
    d = first - second
    n, nan = len(d), float("nan")
    floor = p_floor(n)
    if not n or np.isnan(d).any():
        return PairedResult(nan, nan, nan, nan, nan, floor, n)
    mean, std = mean_std(d)
    p = _sign_flip(d)
    return PairedResult(mean, std, *t_interval(d), p, floor, n)


def p_floor(n: int) -> float:
    """The smallest p-value that `paired_difference` can give with n seeds.

    Args:
        n: Seeds.

    Example:
        >>> p_floor(3)
        0.25
    """
    return min(1.0, 2.0 / 2**n) if n <= _EXACT_UP_TO else 1.0 / (1 + _RANDOM_FLIPS)


def floor_note(n: int) -> str:
    """The sentence that goes with a sign-flip p-value.

    Args:
        n: Seeds.

    Example:
        >>> floor_note(3)
        '3 seeds: p cannot fall below 0.25'
    """
    return f"{n} seed{'' if n == 1 else 's'}: p cannot fall below {p_floor(n):.3g}"


def seeds_needed(differences: npt.ArrayLike, half_width: float = 0.01) -> SeedsNeeded | None:
    """How many seeds make the 95 % t interval of a paired difference narrow enough.

    The smallest n ≥ 2 with t(0.975, n − 1) · s / √n ≤ half_width. `expected` takes for s the
    standard deviation of the differences at hand; it is itself uncertain at a few seeds, so that
    `cautious` takes its upper 80 % confidence bound s √((k − 1) / χ²(0.2, k − 1)), which is 2.1 s
    at k = 3 seeds and 1.3 s at 10.

    Args:
        differences: (k,) paired differences a − b, one a seed.
        half_width: Of the interval, > 0, in the differences' unit.

    Returns:
        Both numbers, the k seeds at hand included; 2 and 2 where all differences are equal; None
        where the spread cannot be told: fewer than two seeds, or a difference that is NaN or
        infinite.

    Raises:
        InputError: A half width ≤ 0, or differences of more than one dimension.

    Example:
        >>> seeds_needed([0.02, 0.03, 0.05], half_width=0.01)
        SeedsNeeded(expected=12, cautious=43)
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not 0 < half_width < np.inf:
        raise InputError(f"one difference a seed and a half width > 0: {d.shape}, {half_width}")
    k = len(d)
    if k < 2 or not np.isfinite(d).all():
        return None
    std = mean_std(d).std
    bound = std * float(np.sqrt((k - 1) / stats.chi2.ppf(0.2, k - 1)))
    return SeedsNeeded(_fewest(std / half_width), _fewest(bound / half_width))


def _fewest(ratio: float) -> int:
    """The smallest n ≥ 2 with t(0.975, n − 1) · ratio / √n ≤ 1: the left side falls with n."""

    def wide(n: int) -> bool:
        return float(stats.t.ppf(0.5 + _LEVEL / 2, n - 1)) * ratio > float(np.sqrt(float(n)))

    if not wide(2):
        return 2
    low, high = 2, 4  # too few, enough
    while wide(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wide(middle) else (low, middle)
    return high


def holm(p_values: npt.ArrayLike) -> Array:
    """Holm's step-down adjustment: p_(i) → max over j ≤ i of min(1, (m − j + 1) p_(j)).

    Rejecting where the adjusted value is at most 0.05 keeps the chance of any false rejection in
    the family below 5 %, whatever the dependence.

    Args:
        p_values: (m,) p-values; NaN (not computable) stays NaN and does not count in m.

    Returns:
        (m,) adjusted p-values in the order given.

    Raises:
        InputError: A value lies outside [0, 1].

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2)
        array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise InputError("p-values must lie in [0, 1]")
    order = np.argsort(p, kind="stable")  # NaN last
    m = int((~np.isnan(p)).sum())
    factors = np.maximum(m - np.arange(len(p)), 0)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def unit_codes(groups: npt.ArrayLike | None, images: int) -> npt.NDArray[np.int64]:
    """Number what is independent: groups in order of appearance, then images without a group.

    Args:
        groups: (n,) names of groups, None or "" where there is none; None for no groups at all.
        images: n.

    Returns:
        (n,) codes 0, 1, …, without gaps.

    Raises:
        InputError: Another number of groups than images.

    Example:
        >>> unit_codes(["a", "", "b", "a", None], 5)
        array([0, 2, 1, 0, 3])
    """
    if groups is None:
        return np.arange(images)
    names = np.asarray(groups, dtype=object)
    if names.shape != (images,):
        raise InputError(f"{len(names)} groups do not fit {images} images")
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
) -> BootstrapResult:
    """A 95 % interval for the mean over seeds of a metric, or of its difference a − b.

    Each resample draws seeds with replacement, and images (or whole groups) with replacement,
    the same for all seeds and both sides, since all models are tested on the same images:

        replicate = m + λ (m* − m) + κ Σ_s (w_s − 1/S) m_s

    with m_s the value of seed s, m their mean, m* the mean on the resampled images, w_s the share
    of seed s in the resample. The interval lies between the 2.5 and 97.5 percentiles. With λ =
    κ = 1 this is the plain bootstrap, which is wrong at a handful of seeds (it covers 77 % at
    three where seeds differ much, and 100 % where they differ by noise only), so that

    - κ = √(S / (S − 1)) · t(0.975, S − 1) / 1.96: resampled seeds spread too little;
    - λ² = 1 − (seed-by-image variance) / (variance of m*): that part is in the spread of the
      m_s already. It is the residual mean square of the two-way table seeds × resamples.

    In simulations of 3, 5 and 10 seeds (1,500 to 3,000 of each, ±1.5 % at most) on 200 and 1,000
    images it covered 94 to 96 % for a difference and 94 to 97 % for one side, most at three seeds.
    Over 40 to 100 groups it covered 94 to 96 % and 93 to 97 %, least at ten seeds and 40 groups: a
    percentile interval over few groups is narrow. With one seed only images are resampled, and the
    interval is about this one model.

    Args:
        labels: (n,) bool for scores (S, n), class indices for (S, n, C).
        scores_a: (S, n) or (S, n, C), a row a seed.
        scores_b: The other side's scores, the same shape and seeds; None for side a alone.
        groups: (n,) what is drawn as a whole (subject, patient); None or "" is a group of its own.
        resamples: How many resamples R.
        seed: Of the resampling; equal seeds give equal results.
        metric: "auc" (macro for class scores), or "accuracy" (class scores only).

    Returns:
        Estimate (of the sample itself), interval and replicates. Resamples without some class of
        the sample are drawn again and counted. All is NaN where the sample has one class only.

    Raises:
        InputError: A score is NaN, or shapes or names do not fit.

    Reference:
        Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007 (why the plain one
        counts the seed-by-image variance more than once).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(200) % 2 == 0
        >>> b = rng.normal(size=(3, 200)) + labels
        >>> r = two_level_bootstrap(labels, b + labels, b, resamples=500)
        >>> r.low < r.estimate < r.high
        True
    """
    sides = [scores_a] if scores_b is None else [scores_a, scores_b]
    sample = _resample(labels, sides, groups, resamples, seed, metric)
    contrast = [1.0] if scores_b is None else [1.0, -1.0]
    estimate, replicates = _contrast(sample, contrast)
    skipped = resamples - len(replicates)
    return BootstrapResult(estimate, *_interval(replicates), sample.redrawn, skipped, replicates)


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
) -> ShareResult:
    """(Student − best baseline) ÷ (ceiling − best baseline), with a two-level bootstrap interval.

    A ratio whose denominator may be zero means nothing: it is given only where the denominator's
    interval lies above 0. The few resamples with a denominator ≤ 0 count as ±infinity by the
    sign of their numerator, as in Fieller's interval.

    Args:
        labels: (n,) bool for scores (S, n), class indices for (S, n, C).
        student: (S, n) or (S, n, C), a row a seed; the same seeds for all three.
        best_baseline: Scores of the better baseline.
        ceiling: Scores of the run on all human maps.
        groups: (n,) what is drawn as a whole.
        resamples: How many resamples.
        seed: Of the resampling.
        metric: As in `two_level_bootstrap`.

    Returns:
        The share (1: as good as the ceiling; below 0: worse than the baseline) and interval, or
        None for each, with the reason.

    Raises:
        InputError: A score is NaN, or shapes or names do not fit.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(400) % 2 == 0
        >>> base = rng.normal(size=(5, 400))
        >>> r = share_of_the_way(labels, base + labels, base, base + 2 * labels, resamples=500)
        >>> 0.5 < r.share < 0.8
        True
    """
    sides = [student, best_baseline, ceiling]
    return _share(_resample(labels, sides, groups, resamples, seed, metric))


def share_of_draws(
    student: npt.ArrayLike,
    best_baseline: npt.ArrayLike,
    ceiling: npt.ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> ShareResult:
    """`share_of_the_way` where every seed is tested on images of its own.

    The images are then part of what differs between seeds, so seeds alone are resampled.

    Args:
        student: (S,) a metric of each seed.
        best_baseline: (S,) of the better baseline.
        ceiling: (S,) of the run on all human maps.
        resamples: How many resamples.
        seed: Of the resampling.

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
    shifts = _seed_shifts(estimates.shape[1], resamples, np.random.default_rng(seed))
    return _share(_Sample(estimates, estimates[..., None].repeat(resamples, 2), shifts, 0))


def _share(sample: _Sample) -> ShareResult:
    """Of the sides Student, best baseline, ceiling."""
    above, numerators = _contrast(sample, [1.0, -1.0, 0.0])
    gap, denominators = _contrast(sample, [0.0, -1.0, 1.0])
    low, high = _interval(denominators)
    if np.isnan(low):
        return ShareResult(None, None, None, "the evaluation set has one class only")
    if low <= 0:
        why = "the ceiling is below the baseline" if high < 0 else "this includes 0"
        interval = f"ceiling minus best baseline is {gap:.3f} [{low:.3f}, {high:.3f}]"
        return ShareResult(None, None, None, f"{interval}: {why}")
    safe = np.where(denominators > 0, denominators, 1.0)
    ratios = np.where(denominators > 0, numerators / safe, np.copysign(np.inf, numerators))
    return ShareResult(above / gap, *_interval(ratios), reason="")


class _Sample(NamedTuple):
    estimates: Array  # (K, S) the value of each side and seed on the images as they are
    values: Array  # (K, S, R) on resampled images; NaN where a resample was given up
    shifts: Array  # (R, S) how each resample weighs the seeds, less 1/S, stretched
    redrawn: int


def _resample(
    labels: npt.ArrayLike,
    sides: Sequence[npt.ArrayLike],
    groups: npt.ArrayLike | None,
    resamples: int,
    seed: int,
    metric: str,
) -> _Sample:
    """Each side and seed on each resample of the images, the same for all of them."""
    scores = [np.asarray(side, dtype=np.float64) for side in sides]
    given = np.asarray(labels)
    shape = scores[0].shape
    if any(side.shape != shape for side in scores) or len(shape) not in (2, 3) or not shape[0]:
        raise InputError(
            "each side needs scores (seeds, images) or (seeds, images, classes), alike on every "
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
    shifts = _seed_shifts(seeds, resamples, rng)

    # Accuracy is defined on any resample; the area needs every class that the sample has.
    classes = pd.factorize(given)[0] if metric == "auc" else np.zeros(images, dtype=np.int64)
    blocks, redrawn = [], 0
    for counts, again in _image_counts(classes, groups, resamples, rng):
        blocks.append([[measure(given, row, counts) for row in side] for side in scores])
        redrawn += again
    return _Sample(estimates, np.concatenate(blocks, axis=2), shifts, redrawn)


def _seed_shifts(seeds: int, resamples: int, rng: np.random.Generator) -> Array:
    """(R, S) how much more or less than 1/S each resample weighs each seed, stretched by κ."""
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds  # w
    stretch = 1.0
    if seeds > 1:
        tails = stats.t.ppf(0.5 + _LEVEL / 2, seeds - 1) / stats.norm.ppf(0.5 + _LEVEL / 2)
        stretch = float(tails * np.sqrt(seeds / (seeds - 1)))
    return stretch * (drawn - 1 / seeds)


def _contrast(sample: _Sample, weights: Sequence[float]) -> tuple[float, Array]:
    """A weighted sum of the sides: its estimate, and its replicates without the given up."""
    own = np.tensordot(weights, sample.estimates, 1)
    values = np.tensordot(weights, sample.values, 1)
    held = ~np.isnan(values).any(axis=0)
    values, shifts = values[:, held], sample.shifts[held]
    over_seeds = values.mean(axis=0)
    centre, shrink = float(own.mean()), 1.0
    seeds, resamples = values.shape
    if seeds > 1 and resamples > 1 and (spread := over_seeds.var(ddof=1)) > 0:
        residual = values - values.mean(axis=1, keepdims=True) - over_seeds + over_seeds.mean()
        both = (residual**2).sum() / ((seeds - 1) * (resamples - 1) * seeds)
        shrink = float(np.sqrt(max(0.0, 1.0 - both / spread)))
    return centre, centre + shrink * (over_seeds - centre) + shifts @ own


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
    groups: npt.ArrayLike | None,
    resamples: int,
    rng: np.random.Generator,
) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Blocks of image counts that hold every class, and how many rows were drawn again.

    A row that still lacks a class after all rounds holds zeros, so that its metric is NaN.
    """
    images = len(classes)
    member = unit_codes(groups, images)
    units = int(member.max()) + 1
    present = np.eye(int(classes.max()) + 1, dtype=np.float32)[classes]

    def draw(rows: int) -> npt.NDArray[np.float32]:
        picked = rng.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(picked.ravel(), minlength=rows * units).astype(np.float32)
        counts = counts.reshape(rows, units)
        return counts if groups is None else counts[:, member]

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


def _interval(replicates: Array) -> tuple[float, float]:
    if not len(replicates):
        return float("nan"), float("nan")
    tail = (1 - _LEVEL) / 2
    # Without interpolation: replicates of a ratio may be infinite.
    low, high = np.quantile(replicates, [tail, 1 - tail], method="nearest")
    return float(low), float(high)


def _sign_flip(d: Array) -> float:
    """The two-sided p-value of Σ d under flips of its signs."""
    least = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # equal sums must not differ by rounding
    if len(d) <= _EXACT_UP_TO:
        sums = d[:1]  # of a pattern and its mirror image, one is enough
        for value in d[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= least))
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(16):  # in parts, to keep the memory small
        signs = rng.integers(0, 2, (_RANDOM_FLIPS // 16, len(d)), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ d) >= least).sum())
    return (1 + hits) / (1 + _RANDOM_FLIPS)
