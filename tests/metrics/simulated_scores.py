"""Simulated scores with a known AUC.

Scores are normal: all sides share the difficulty of each image (and of its group), differ by their
own noise, and each seed's strength varies. The true AUC of a seed drawn at random on images drawn
at random is Φ(strength ÷ √(2 (σ_image² + σ_own² + σ_group²) + σ_seed²)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
IMAGE, OWN = 0.9, 0.4  # standard deviations of what sides share, and of what they do not


def spread(seed_sd: float = 0.1, group_sd: float = 0.0, own: float = OWN) -> float:
    """Standard deviation of a positive score minus a negative one."""
    return float(np.sqrt(2 * (IMAGE**2 + own**2 + group_sd**2) + seed_sd**2))


class Draw:
    """One study: labels, groups, and scores of each side over seeds."""

    def __init__(
        self,
        rng: np.random.Generator,
        seeds: int,
        images: int,
        *,
        shifts: tuple[float, ...],
        seed_sd: float = 0.1,
        per_group: int = 1,
        group_sd: float = 0.0,
        both: bool = False,
        own: float = OWN,
        positives: int | None = None,
    ) -> None:
        self.groups = np.repeat(np.arange(images // per_group), per_group)
        count = images // per_group
        self.labels: NDArray[np.bool_] = (rng.random(count) < 0.4)[self.groups]
        if both:  # pairs within a group are one in `count`, too few to move the true AUC
            self.labels = rng.random(images) < 0.4
        if positives is not None:
            self.labels = np.arange(images) < positives
        shared = IMAGE * rng.normal(size=images) + group_sd * rng.normal(size=count)[self.groups]
        self.sides: list[Array] = []
        for shift in shifts:
            strength = shift + seed_sd * rng.normal(size=(seeds, 1))
            noise = own * rng.normal(size=(seeds, images))
            self.sides.append(shared + noise + self.labels * strength)
        scale = spread(seed_sd, group_sd, own)
        self.truth = [float(stats.norm.cdf(shift / scale)) for shift in shifts]
