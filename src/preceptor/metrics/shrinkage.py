"""Covariance of features with Ledoit–Wolf shrinkage."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preceptor.errors import InputError
from preceptor.metrics.auc import Array


def ledoit_wolf(deviations: npt.ArrayLike) -> tuple[Array, float]:
    """Covariance shrunk toward a multiple of the identity: (1 − δ) S + δ (tr S / p) I.

    δ minimizes the expected squared error of the estimate; it is high where there are few rows for
    the number of features, and makes the covariance invertible.

    Args:
        deviations: (n, p) deviations from the mean, or from the means of several classes.

    Returns:
        (p, p) covariance, and δ in [0, 1].

    Raises:
        InputError: There are no rows, or all are zero.

    Reference:
        O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional covariance
        matrices", Journal of Multivariate Analysis 2004.
    """
    values = np.asarray(deviations, np.float64)
    if values.ndim != 2 or not values.size:
        raise InputError(f"deviations {values.shape} must be (n, p), n ≥ 1 and p ≥ 1")
    rows, features = values.shape
    sample = values.T @ values / rows
    scale = float(np.trace(sample)) / features
    if not scale > 0:
        raise InputError("all features are constant; a covariance needs images that differ")
    squares = values**2
    distance = float((sample**2).sum()) - features * scale**2
    noise = (float((squares.sum(1) ** 2).sum()) / rows - float((sample**2).sum())) / rows
    share = 0.0 if noise <= 0 else 1.0 if distance <= noise else noise / distance
    shrunk = (1 - share) * sample
    shrunk[np.diag_indices(features)] += share * scale
    return shrunk, share
