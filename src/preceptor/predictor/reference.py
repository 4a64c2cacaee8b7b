"""Reference of a trained model: its validation images, and how unfamiliar another image is.

An image is unfamiliar if it is farther from the training images than nearly all validation images
are. Two distances are known: the Mahalanobis distance of the features to the nearest class (K. Lee,
K. Lee, H. Lee, J. Shin, NeurIPS 2018) and the energy, minus the log-sum-exp of the logits (W. Liu,
X. Wang, J. Owens, Y. Li, NeurIPS 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preceptor.predictor.calibration import Calibration

DistanceKind = Literal["mahalanobis", "energy"]
REFERENCE = "reference.json"
"""File of a model folder that describes its reference."""


@dataclass(frozen=True)
class Unfamiliar:
    """How unfamiliar an image is, in comparison with validation images; true if it is flagged.

    Args:
        share: (k + 1) ÷ (n + 1), where k of n validation images are at least as far from the
            training images: a p-value for an image of the same kind (conformal, V. Vovk, A.
            Gammerman, G. Shafer 2005).
        rate: Rate of false alarms: an image is flagged if its share is at most this.
        distance: Distance from the training images.

    Example:
        >>> bool(Unfamiliar(0.003, 0.01, 40.0)), bool(Unfamiliar(0.4, 0.01, 20.0))
        (True, False)
    """

    share: float
    rate: float
    distance: float

    def __bool__(self) -> bool:
        return self.share <= self.rate


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Features of the training images: a normal distribution per class, with one covariance.

    Args:
        means: (C, p) float32 mean of each class.
        whitening: (p, p) float32 matrix W with WᵀW = inverse covariance.
    """

    means: NDArray[np.float32]
    whitening: NDArray[np.float32]

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) Mahalanobis distance of (n, p) features to the nearest class."""
        whitening = self.whitening.astype(np.float64)
        own = features.astype(np.float64) @ whitening.T
        centers = self.means.astype(np.float64) @ whitening.T
        found = [np.sqrt(((own - center) ** 2).sum(1)) for center in centers]
        nearest: NDArray[np.float64] = np.min(found, axis=0)
        return nearest


@dataclass(frozen=True, eq=False)
class Reference:
    """Calibration of a model, distribution of its features, and its validation images.

    Args:
        calibration: Calibration; None = the probabilities are those of the network.
        kind: Distance by which images are unfamiliar.
        rate: Rate of false alarms.
        gaussians: Distribution of the features; None for the energy.
        probabilities: (n, C) calibrated probabilities of the validation images.
        labels: (n,) index of their class.
        distances: (n,) their distances.
        description: What the reference was made from, for model cards and pages.
    """

    calibration: Calibration | None
    kind: DistanceKind
    rate: float
    gaussians: Gaussians | None
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    distances: NDArray[np.float64]
    description: dict[str, str | float | int] = field(default_factory=dict)

    def distances_of(
        self, features: NDArray[np.float32], energies: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """(n,) distances of images.

        Args:
            features: (n, p) features.
            energies: (n,) energies.
        """
        if self.gaussians is None:
            return energies.astype(np.float64)
        return self.gaussians.distances(features)

    def shares_of(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) share of the validation images that are at least as far, see `Unfamiliar`."""
        return shares_at_least(self.distances, distances)


def shares_at_least(
    known: NDArray[np.float64], distances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(k + 1) ÷ (n + 1) of each distance, where k of n known distances are at least as large.

    For exchangeable distances it is at most α with a probability of at most α.

    Example:
        >>> shares_at_least(np.array([1.0, 2.0, 3.0]), np.array([0.5, 3.0, 4.0])).tolist()
        [1.0, 0.5, 0.25]
    """
    below = np.searchsorted(np.sort(known), distances, side="left")
    return np.asarray((len(known) - below + 1) / (len(known) + 1), np.float64)
