"""Distance from the training images: its estimation, and the choice of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from preceptor.evaluation.auc import auc
from preceptor.evaluation.shrinkage import ledoit_wolf
from preceptor.predictor.reference import DistanceKind, Gaussians

KINDS: tuple[DistanceKind, ...] = get_args(DistanceKind)


def fit_gaussians(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Gaussians:
    """Normal distribution of features for each class, with one shrunk covariance.

    The covariance is that of the deviations from the class means (K. Lee et al., NeurIPS 2018),
    with the shrinkage of Ledoit and Wolf, without which it cannot be inverted where there are more
    features than images.

    Args:
        features: (n, p).
        labels: (n,) index of the class of each image; classes without images have no mean.

    Raises:
        InputError: All features are constant.
    """
    values = features.astype(np.float64)
    classes, place = np.unique(labels, return_inverse=True)
    means = np.stack([values[place == index].mean(0) for index in range(len(classes))])
    covariance, _ = ledoit_wolf(values - means[place])
    # W = L⁻¹ with L Lᵀ = covariance, so that WᵀW is its inverse.
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    return Gaussians(means.astype(np.float32), whitening.astype(np.float32))


def choose_distance(
    plain: Mapping[DistanceKind, NDArray[np.float64]],
    changed: Mapping[str, Mapping[DistanceKind, NDArray[np.float64]]],
) -> tuple[DistanceKind, dict[DistanceKind, dict[str, float]]]:
    """Kind of distance that best tells validation images from changed copies of them.

    Images of other kinds are not needed. The kind with the highest mean AUC over the changes is
    chosen; of equal ones, the first.

    Args:
        plain: Distances of validation images by kind.
        changed: Distances of their changed copies by change and kind.

    Returns:
        Kind, and the AUC by kind and change.

    Example:
        >>> plain = {"mahalanobis": np.array([1.0, 2.0]), "energy": np.array([1.0, 4.0])}
        >>> copies = {"mahalanobis": np.array([3.0, 4.0]), "energy": np.array([3.0, 4.0])}
        >>> choose_distance(plain, {"blur": copies})
        ('mahalanobis', {'mahalanobis': {'blur': 1.0}, 'energy': {'blur': 0.625}})
    """
    found = {
        kind: {change: _auc(plain[kind], copies[kind]) for change, copies in changed.items()}
        for kind in plain
    }
    chosen = max(found, key=lambda kind: sum(found[kind].values()))
    return chosen, found


def _auc(near: NDArray[np.float64], far: NDArray[np.float64]) -> float:
    is_far = np.repeat([False, True], [len(near), len(far)])
    return auc(is_far, np.concatenate([near, far]))
