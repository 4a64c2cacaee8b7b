"""Corrections for seeds that are run until an interval is narrow: coverage and cost.

Differences between two sides are drawn seed by seed; a study stops at the first look at which its t
interval is narrow enough, or at the limit. Each correction is judged by its smallest coverage over
all widths at which one may stop, and by the seeds that it needs. Nothing is trained.

    python benchmarks/sequential_seeds.py --replicates 200000
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from preceptor.evaluation.bootstrap import two_level_bootstrap
from preceptor.evaluation.paired_tests import LEVEL, paired_difference
from preceptor.evaluation.sequential import sequential_level, sequential_p

Array = NDArray[np.float64]
LOOKS = (3, 5, 8, 12, 20)
WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)  # in std of a difference
MISS = 1 - LEVEL
N = np.array(LOOKS)


def mixture(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """One seed in ten fails by four standard deviations."""
    found = rng.normal(size=shape) - 4 * (rng.random(shape) < 0.1) + 0.4
    return np.asarray(found / math.sqrt(1 + 16 * 0.09))


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t, 3 degrees": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
    "gamma, skewness 1": lambda rng, shape: (rng.gamma(4, size=shape) - 4) / 2,
    "one in ten fails": mixture,
    "exponential, skewness 2": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def moments(draws: Array) -> tuple[Array, Array]:
    """Means and standard deviations (replicates, looks)."""
    means = np.stack([draws[:, :n].mean(1) for n in LOOKS], 1)
    return means, np.stack([draws[:, :n].std(1, ddof=1) for n in LOOKS], 1)


def quantiles(misses: Sequence[float] | Array) -> Array:
    """t quantiles of two-sided intervals by look."""
    return np.asarray(stats.t.isf(np.asarray(misses) / 2, N - 1))


def any_rule(means: Array, stds: Array) -> float:
    """Miss of each look so that one miss at any of them has 5 %, from simulated normal draws."""
    p = np.asarray(2 * stats.t.sf(np.abs(means) / stds * np.sqrt(N), N - 1))
    worst = p.min(1)
    return float(
        optimize.brentq(lambda one: float((worst <= one).mean()) - MISS, MISS / 9, MISS, xtol=1e-5)
    )


def corrections(draws: Array) -> dict[str, Array]:
    """Miss of the interval of each look, by correction."""
    share = np.sqrt(N / N[-1])
    spent = 2 * stats.norm.sf(stats.norm.isf(MISS / 2) / share)
    return {
        "none": np.full(len(N), MISS),
        "union bound, equal": np.full(len(N), MISS / len(N)),
        "union bound, by seeds": MISS * N / N.sum(),
        "O'Brien-Fleming spending": np.diff([0.0, *spent]),
        "any stopping rule": np.full(len(N), any_rule(*moments(draws))),
        "any rule by widths": np.full(len(N), 1 - sequential_level(LOOKS)),
    }


def stops(half: Array, width: float) -> NDArray[np.intp]:
    """Look at which each replicate stops."""
    narrow = 2 * half <= width
    narrow[:, -1] = True
    return np.asarray(narrow.argmax(1))


def bounded_half_width(n: int, std: float) -> float:
    """Half width of the empirical Bernstein confidence sequence of differences in [−1, 1].

    Predictable plug-in of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
    betting", 2024, theorem 2, for n normal differences.
    """
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(200):
        x = (1 + np.clip(rng.normal(0, std, n), -1, 1)) / 2
        i = np.arange(1, n + 1)
        mean = (0.5 + np.cumsum(x)) / (i + 1)
        variance = (0.25 + np.cumsum((x - mean) ** 2)) / (i + 1)
        before = np.concatenate([[0.25], variance[:-1]])
        bet = np.minimum(np.sqrt(2 * math.log(2 / MISS) / (before * i * np.log(i + 1))), 0.5)
        psi = (-np.log(1 - bet) - bet) / 4
        error = 4 * (x - np.concatenate([[0.5], mean[:-1]])) ** 2
        halves.append((math.log(2 / MISS) + (error * psi).sum()) / bet.sum())
    return 2 * float(np.mean(halves))


def coverage(replicates: int) -> None:
    size = (replicates, LOOKS[-1])
    rules = corrections(KINDS["normal"](np.random.default_rng(0), size))
    print(f"looks {LOOKS}; {replicates:,} replicates; widths {WIDTHS} standard deviations")
    print(
        "\n| correction | t quantiles by look | mean seeds at 1.5 and 3 std | "
        + " | ".join(KINDS)
        + " |"
    )
    print("| --- | --- | --- | " + "--- | " * len(KINDS))
    drawn = {name: moments(make(np.random.default_rng(1), size)) for name, make in KINDS.items()}
    for name, misses in rules.items():
        cells, rows = [], np.arange(replicates)
        for means, stds in drawn.values():
            half = quantiles(misses) * stds / np.sqrt(N)
            hit = np.abs(means) <= half
            found = [hit[rows, stops(half, width)].mean() for width in WIDTHS]
            cells.append(f"{min(found):.1%}")
        half = quantiles(misses) * drawn["normal"][1] / np.sqrt(N)
        seeds = " and ".join(f"{N[stops(half, width)].mean():.1f}" for width in (1.5, 3.0))
        shown = ", ".join(f"{one:.2f}" for one in quantiles(misses))
        print(f"| {name} | {shown} | {seeds} | {' | '.join(cells)} |")
    fixed = []
    for means, stds in drawn.values():
        half = quantiles(np.full(len(N), MISS)) * stds / np.sqrt(N)
        own = (np.abs(means) <= half).mean(0)
        fixed.append(f"{own.min():.1%} to {own.max():.1%}")
    print(f"| fixed seeds, 95 % | {' | '.join(['', '', *fixed])} |")
    half = bounded_half_width(LOOKS[-1], 0.02)
    student = stats.t.ppf(0.5 + sequential_level(LOOKS) / 2, N[-1] - 1) * 0.02 / math.sqrt(N[-1])
    print(f"\nstd 0.02, {N[-1]} seeds: ±{student:.4f}; bounded confidence sequence ±{half:.3f}")


def bootstrap(replicates: int) -> None:
    """Coverage of the two-level bootstrap of studies that stop by the width of the t interval."""
    looks, level = (3, 5, 8, 12), sequential_level((3, 5, 8, 12))
    rng = np.random.default_rng(5)
    for seed_std, width in ((0.1, 0.06), (0.3, 0.1), (0.3, 0.15)):
        hits, seeds = np.zeros(2), 0
        for again in range(replicates):
            labels = rng.random(200) < 0.4
            shared = 0.9 * rng.normal(size=200)
            sides = [
                shared
                + 0.4 * rng.normal(size=(looks[-1], 200))
                + labels * (shift + seed_std * rng.normal(size=(looks[-1], 1)))
                for shift in (1.0, 0.7)
            ]
            spread = math.sqrt(2 * (0.9**2 + 0.4**2) + seed_std**2)
            one, two = (float(stats.norm.cdf(shift / spread)) for shift in (1.0, 0.7))
            n = _stop(labels, sides, looks, level, width)
            seeds += n
            for place, own in enumerate((LEVEL, level)):
                found = two_level_bootstrap(
                    labels, sides[0][:n], sides[1][:n], resamples=400, seed=again, level=own
                )
                hits[place] += found.low <= one - two <= found.high
        plain, ours = hits / replicates
        print(
            f"bootstrap, seeds' std {seed_std}, width {width}: {seeds / replicates:.1f} seeds, "
            f"coverage {ours:.1%}, uncorrected {plain:.1%} ({replicates} replicates)",
            flush=True,
        )


def _stop(
    labels: NDArray[np.bool_], sides: list[Array], looks: Sequence[int], level: float, width: float
) -> int:
    ranks = [stats.rankdata(side, axis=1) for side in sides]
    positive, count = int(labels.sum()), len(labels)
    aucs = [
        (one[:, labels].sum(1) - positive * (positive + 1) / 2) / (positive * (count - positive))
        for one in ranks
    ]
    d = aucs[0] - aucs[1]
    for n in looks[:-1]:
        half = stats.t.ppf(0.5 + level / 2, n - 1) * d[:n].std(ddof=1) / math.sqrt(n)
        if 2 * half <= width:
            return n
    return looks[-1]


def p_values(replicates: int) -> None:
    """Share of p ≤ 0.05 without an effect: stopped by width, and where p is smallest."""
    looks = (5, 8, 12)
    quantile = np.asarray(stats.t.ppf(0.5 + sequential_level(looks) / 2, np.array(looks) - 1))
    rng = np.random.default_rng(6)
    found = np.zeros((2, 2))
    for _ in range(replicates):
        d = rng.normal(size=looks[-1])
        plain = [paired_difference(d[:n], np.zeros(n)).p for n in looks]
        ours = [sequential_p(p, n, looks) for p, n in zip(plain, looks, strict=True)]
        widths = [
            2 * q * d[:n].std(ddof=1) / math.sqrt(n) for q, n in zip(quantile, looks, strict=True)
        ]
        stop = next((place for place, one in enumerate(widths[:-1]) if one <= 2.0), 2)
        found += np.array([[plain[stop], min(plain)], [ours[stop], min(ours)]]) <= 0.05
    for name, (by_width, smallest) in zip(("p", "corrected p"), found / replicates, strict=True):
        print(
            f"{name} ≤ 0.05 without an effect: stopped by width {by_width:.1%}, where it is "
            f"smallest {smallest:.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=200_000)
    parser.add_argument("--bootstraps", type=int, default=1000)
    arguments = parser.parse_args()
    coverage(arguments.replicates)
    p_values(20_000)
    bootstrap(arguments.bootstraps)


if __name__ == "__main__":
    main()
